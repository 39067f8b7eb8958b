"""Pictures of networks that answer in few time steps, of networks with delays, and of early exit.

Each function draws into `ax`, by default a new figure's, and returns it; what takes two axes returns its figure. None
shows it; `save_figure` writes it. matplotlib is loaded by the first call.
"""

from snn.plots.calibration import reliability_diagram
from snn.plots.charts import accuracy_by_steps, energy_by_layer, learning_curves, spike_rates
from snn.plots.delays import delay_histogram, delay_matrix, sigma_history
from snn.plots.exits import exit_curve, exit_histogram, first_and_last
from snn.plots.pictures import sample_predictions, spike_maps
from snn.plots.rasters import delayed_raster, raster
from snn.plots.saving import save_figure

__all__ = [
    "accuracy_by_steps",
    "delay_histogram",
    "delay_matrix",
    "delayed_raster",
    "energy_by_layer",
    "exit_curve",
    "exit_histogram",
    "first_and_last",
    "learning_curves",
    "raster",
    "reliability_diagram",
    "sample_predictions",
    "save_figure",
    "sigma_history",
    "spike_maps",
    "spike_rates",
]
