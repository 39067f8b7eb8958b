"""Ridge regression from brain recordings to many targets, with one factorisation for all of them."""

from neurodecode.ridge.banded import BandedRidge
from neurodecode.ridge.estimator import MultiTargetRidge
from neurodecode.ridge.jobs import cross_val_smooth, smooth_predict_many
from neurodecode.ridge.side_by_side import SideBySide
from neurodecode.ridge.standardise import PredictionScaler, StandardizedRidge
from neurodecode.ridge.storage import load_ridge
from neurodecode.ridge.to_folder import predict_to_folder

__all__ = [
    "BandedRidge",
    "MultiTargetRidge",
    "PredictionScaler",
    "SideBySide",
    "StandardizedRidge",
    "cross_val_smooth",
    "load_ridge",
    "predict_to_folder",
    "smooth_predict_many",
]
