"""From a current-clamp recording to an Izhikevich cell: measure, search, compare on sweeps that were kept out, draw."""

from reservoir.fitting.fit import fit_izhikevich
from reservoir.fitting.measure import Measured, measure_cell
from reservoir.fitting.picture import draw_f_i, draw_raster, draw_sweep, fit_figure
from reservoir.fitting.result import FittedParameter, Goodness, IzhikevichFit, Prediction
from reservoir.fitting.scores import LOSSES, TERMS, Coincidences, coincidence_factor
from reservoir.fitting.space import SPACES
from reservoir.fitting.sweeps import find_spikes, prepare_sweeps

__all__ = [
    "LOSSES",
    "SPACES",
    "TERMS",
    "Coincidences",
    "FittedParameter",
    "Goodness",
    "IzhikevichFit",
    "Measured",
    "Prediction",
    "coincidence_factor",
    "draw_f_i",
    "draw_raster",
    "draw_sweep",
    "find_spikes",
    "fit_figure",
    "fit_izhikevich",
    "measure_cell",
    "prepare_sweeps",
]
