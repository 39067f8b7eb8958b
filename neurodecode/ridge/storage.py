"""Fitted regressions on disk: one safetensors file, no pickle, the same predictions to the last bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import NumpyLibrary, TorchLibrary, is_tensor
from neurodecode.ridge.banded import BandedRidge
from neurodecode.ridge.estimator import MultiTargetRidge
from neurodecode.ridge.standardise import PredictionScaler, StandardizedRidge
from neurodecode.ridge.system import Features
from neuroloaders.checkpoints import load_checkpoint, save_checkpoint
from neuroloaders.checks import corrupt_file, invalid

__all__ = ["load_ridge", "save_ridge"]

_VERSION = 1
_STATISTICS = ("prediction_mean_", "prediction_std_", "target_mean_", "target_std_")
_FITTED = {
    MultiTargetRidge: ("alpha_", "cv_mse_", "kept_features_"),
    BandedRidge: ("alpha_", "cv_mse_", "kept_features_", "band_shares_"),
}
_NUMBERS = ("n_features_in_", "is_dual_", "edge_share_")


def save_ridge(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted regression to a safetensors file.

    Parameters
    ----------
    estimator : MultiTargetRidge, BandedRidge or StandardizedRidge
        Fitted by ``fit``.
    path : path-like
        The file; it is replaced once the new one is complete.

    Raises
    ------
    ValueError
        If it holds no coefficients, as after ``smooth_predict``.
    """
    meta: dict[str, Any] = {"kind": type(estimator).__name__, "version": _VERSION}
    tensors: dict[str, Any] = {}
    ridge = estimator
    if isinstance(estimator, StandardizedRidge):
        ridge = estimator.ridge_
        state = estimator.random_state if isinstance(estimator.random_state, int) else None
        own = {"standardize": estimator.standardize, "n_loo": estimator.n_loo, "random_state": state}
        meta |= {"kind": f"StandardizedRidge({type(ridge).__name__})", "own": own}
        tensors |= {name: getattr(estimator.scaler_, name) for name in _STATISTICS}
    if type(ridge) not in _FITTED:
        raise invalid("estimator", "be a MultiTargetRidge, BandedRidge or StandardizedRidge", ridge, kind=TypeError)
    ridge._must_hold_coefficients()
    features = ridge._features
    # As it lies in memory: of dual systems feature by feature.
    tensors |= {"x": features.x.T, "x_mean": features.mean, "coefficients": ridge._coefficients, "y_mean": ridge._mean}
    if features.weights is not None:
        tensors["weights"] = features.weights
    tensors |= {name: getattr(ridge, name) for name in _FITTED[type(ridge)] if hasattr(ridge, name)}
    meta["settings"] = {name: _plain(name, value) for name, value in ridge.get_params(deep=False).items()}
    meta["numbers"] = {name: getattr(ridge, name) for name in _NUMBERS if hasattr(ridge, name)}
    meta |= {"dtype": features.dtype, "intercept": features.intercept, "dual": features.dual}
    meta |= {"is_1d": ridge._is_1d, "numpy": ridge._takes_numpy, "torch": features.lib.name == "torch"}
    if hasattr(ridge, "feature_names_in_"):
        meta["feature_names"] = list(ridge.feature_names_in_)
    save_checkpoint(path, {name: _tensor(value) for name, value in tensors.items()}, meta=meta)


def load_ridge(path: str | os.PathLike[str], *, device: Any = None) -> Any:
    """Read a file of `save_ridge`; nothing in it is executed.

    Parameters
    ----------
    path : path-like
        The file.
    device : str or torch.device, optional
        Where a regression that was fitted with torch is put; by default the CPU.

    Returns
    -------
    MultiTargetRidge, BandedRidge or StandardizedRidge
        Its predictions are those of the saved one, to the last bit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or something else.
    """
    stored = load_checkpoint(path)
    meta, tensors = stored.meta, stored.tensors
    kinds = {kind.__name__: kind for kind in _FITTED}
    kind = str(meta.get("kind", ""))
    wrapped = kind.startswith("StandardizedRidge(")
    name = kind[18:-1] if wrapped else kind
    if name not in kinds or meta.get("version") != _VERSION:
        raise corrupt_file(path, "it holds no ridge regression of this version", "Fit and save it again.")
    try:
        settings = {key: _restored(value) for key, value in meta["settings"].items()}
        ridge = kinds[name](**settings)
        lib = TorchLibrary(device or "cpu") if meta["torch"] else NumpyLibrary()
        dtype, numpy = meta["dtype"], {key: value.numpy() for key, value in tensors.items()}
        weights = numpy.get("weights")
        x, mean = lib.array(numpy["x"], dtype).T, lib.array(numpy["x_mean"], dtype)
        ridge._features = Features(lib, dtype, x, mean, weights, meta["intercept"], meta["dual"])
        ridge._coefficients = lib.array(numpy["coefficients"], dtype)
        ridge._mean, ridge._solver = lib.array(numpy["y_mean"], dtype), None
        ridge._is_1d, ridge._takes_numpy = meta["is_1d"], meta["numpy"]
        ridge.__dict__.update(meta["numbers"])
        ridge.__dict__.update({key: numpy[key] for key in _FITTED[type(ridge)] if key in numpy})
        if "feature_names" in meta:
            ridge.feature_names_in_ = np.asarray(meta["feature_names"], dtype=object)
        if not wrapped:
            return ridge
        own = meta["own"]
        outer = StandardizedRidge(ridge, **own)
        outer.ridge_, outer.n_features_in_ = ridge, ridge.n_features_in_
        outer.scaler_ = PredictionScaler(own["standardize"])._set(*(numpy[key] for key in _STATISTICS))
    except (KeyError, TypeError) as error:
        raise corrupt_file(path, f"it is no complete regression ({error})", "Fit and save it again.") from error
    return outer


def _plain(name: str, value: Any) -> Any:
    """Return a setting as JSON can hold it."""
    if isinstance(value, Mapping):
        return {"pairs": [[_plain(name, key), _plain(name, item)] for key, item in value.items()]}
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)  # a torch.device


def _restored(value: Any) -> Any:
    return {key: item for key, item in value["pairs"]} if isinstance(value, dict) and "pairs" in value else value


def _tensor(value: Any) -> Any:
    import torch

    return value if is_tensor(value) else torch.from_numpy(np.array(value))
