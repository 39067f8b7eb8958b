"""Pictures of reservoirs: what they do, what they learn, and where their weights lie.

Each function draws into `ax`, by default into a new figure, and returns the figure. None shows it; `save_figure` writes
it. matplotlib is loaded by the first call.
"""

from reservoir.plots.comparisons import ablations
from reservoir.plots.cue_only import block_predictions, predictions
from reservoir.plots.divergence import divergence
from reservoir.plots.geometry import angles, condition_plane
from reservoir.plots.learning import learning_curves
from reservoir.plots.rasters import raster
from reservoir.plots.spectra import spectrum
from reservoir.plots.sweeps import probability_sweep
from reservoir.plots.traces import voltages
from reservoir.plots.weights import readout_weights, weight_matrix
from snn.plots.saving import save_figure

__all__ = [
    "ablations",
    "angles",
    "block_predictions",
    "condition_plane",
    "divergence",
    "learning_curves",
    "predictions",
    "probability_sweep",
    "raster",
    "readout_weights",
    "save_figure",
    "spectrum",
    "voltages",
    "weight_matrix",
]
