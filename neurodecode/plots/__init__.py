"""Pictures of decoders: what was seen beside what was decoded, scores with intervals, the stages behind them.

Each function draws into `ax`, by default a new figure's, and returns it. None shows it; `save_figure` writes it.
matplotlib is loaded by the first call.
"""

from neurodecode.plots.confusion import confusion_matrix
from neurodecode.plots.images import image_rows
from neurodecode.plots.runs import run_scores
from neurodecode.plots.scores import score_intervals
from neurodecode.plots.speech import decoder_and_controls, lag_curve
from neurodecode.plots.stages import region_bars, stage_histograms
from neurodecode.plots.time import plot_time_curve
from snn.plots.saving import save_figure

__all__ = [
    "confusion_matrix",
    "decoder_and_controls",
    "image_rows",
    "lag_curve",
    "plot_time_curve",
    "region_bars",
    "run_scores",
    "save_figure",
    "score_intervals",
    "stage_histograms",
]
