"""Decoding of brain recordings. So far: ridge regression from fMRI betas, or any features, to many targets."""

from neurodecode.ridge import BandedRidge as BandedRidge
from neurodecode.ridge import MultiTargetRidge as MultiTargetRidge
from neurodecode.ridge import PredictionScaler as PredictionScaler
from neurodecode.ridge import StandardizedRidge as StandardizedRidge
from neurodecode.ridge import cross_val_smooth as cross_val_smooth
from neurodecode.ridge import load_ridge as load_ridge
from neurodecode.ridge import predict_to_folder as predict_to_folder
from neurodecode.ridge import smooth_predict_many as smooth_predict_many
