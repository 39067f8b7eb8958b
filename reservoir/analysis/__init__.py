"""What networks do and what trained readouts hold: activity, rhythms, growth of disturbances, predictions, geometry."""

from reservoir.analysis.activity import Activity, describe_activity, firing_rates, isi_cv, isi_cv2, synchrony
from reservoir.analysis.geometry import Angles, ConditionSpace, condition_space, subspace_angles
from reservoir.analysis.perturbation import DISTANCES, NUDGES, PerturbationGrowth, perturbation_growth
from reservoir.analysis.predictions import PredictionObject, prediction_object, replay_predictions
from reservoir.analysis.rhythms import BANDS, Spectrum, population_rate, power_spectrum
from reservoir.analysis.trains import SpikeTrains, spike_trains

__all__ = [
    "BANDS",
    "DISTANCES",
    "NUDGES",
    "Activity",
    "Angles",
    "ConditionSpace",
    "PerturbationGrowth",
    "PredictionObject",
    "Spectrum",
    "SpikeTrains",
    "condition_space",
    "describe_activity",
    "firing_rates",
    "isi_cv",
    "isi_cv2",
    "perturbation_growth",
    "population_rate",
    "power_spectrum",
    "prediction_object",
    "replay_predictions",
    "spike_trains",
    "subspace_angles",
    "synchrony",
]
