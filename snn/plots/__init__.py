"""Pictures of networks that answer in few time steps.

Each function draws into `ax`, by default a new figure's, and returns it; none shows it. matplotlib is loaded by the
first call.
"""

from snn.plots.charts import accuracy_by_steps, energy_by_layer, learning_curves, spike_rates
from snn.plots.pictures import sample_predictions, spike_maps

__all__ = [
    "accuracy_by_steps",
    "energy_by_layer",
    "learning_curves",
    "sample_predictions",
    "spike_maps",
    "spike_rates",
]
