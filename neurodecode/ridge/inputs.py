"""What comes in: features and sample weights, checked once, with messages that name the columns."""

# n rows, p features

from __future__ import annotations

import numbers
import os
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import Library, is_tensor, library_of
from neurodecode.ridge.targets import open_array
from neuroloaders.checks import check_finite, check_number, check_option, invalid

__all__ = ["BAD_FEATURES", "checked_features", "checked_weights", "new_features"]

# What to do with features that hold NaN or infinity, or are constant.
BAD_FEATURES = ("raise", "drop")


def checked_features(estimator: Any, X: Any) -> tuple[Library, Any]:
    """Return the library to compute with and the training features, without those that are dropped.

    Sets `n_features_in_`, `feature_names_in_` and `kept_features_` of the estimator.
    """
    check_option("bad_features", estimator.bad_features, BAD_FEATURES)
    x = _validated(estimator, _opened("X", X), "X", reset=True)
    lib = library_of(x, estimator.device)
    estimator._takes_numpy = not is_tensor(x)
    bad, constant = _bad_columns(x)
    if estimator.bad_features == "raise":
        if bad.any():
            _complain(estimator, "hold finite numbers only", "NaN or infinity", bad)
        if constant.any():
            _complain(estimator, "vary over the rows", "the same value in every row", constant)
    keep = ~(bad | constant)
    if not keep.any():
        raise invalid("X", "have a feature that is finite and varies", f"{x.shape[1]} that do not")
    estimator.kept_features_ = keep
    return lib, x if keep.all() else x[:, np.flatnonzero(keep)]


def new_features(estimator: Any, X: Any, name: str = "X") -> Any:
    """Return new rows, checked against those of the fit, without features that were dropped."""
    x = _validated(estimator, _opened(name, X), name, reset=False)
    keep = estimator.kept_features_
    if not keep.all():
        x = x[:, np.flatnonzero(keep)]
    return check_finite(name, x, advice="Leave out these rows.")


def checked_weights(sample_weight: Any, n: int) -> np.ndarray | None:
    """Return sample weights as float64, or None where there are none."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, numbers.Real):
        return np.full(n, check_number("sample_weight", sample_weight, above=0))
    if is_tensor(sample_weight):
        sample_weight = sample_weight.detach().cpu().numpy()
    weights = check_finite("sample_weight", np.asarray(sample_weight, dtype=np.float64))
    if weights.ndim != 1:
        raise invalid("sample_weight", f"have shape ({n},): Sample weights must be 1D array or scalar", weights)
    if weights.shape != (n,):
        raise invalid("sample_weight", f"have shape ({n},), one weight for each row", weights)
    if (weights < 0).any():
        raise invalid("sample_weight", "be >= 0", f"{weights.min():g}")
    if not weights.any():
        raise invalid("sample_weight", "be above 0 somewhere", "weights that are all zero")
    return weights


def _opened(name: str, X: Any) -> Any:
    """Return what a path leads to; all else as it is."""
    return open_array(name, X) if isinstance(X, (str, os.PathLike)) else X


def _validated(estimator: Any, x: Any, name: str, *, reset: bool) -> Any:
    """Return a matrix of float32 or float64, its shape checked, its values not."""
    if is_tensor(x):
        if x.ndim != 2 or 0 in x.shape:
            raise invalid(name, "have shape (n_samples, n_features), neither of them 0", x)
        if reset and len(x) < 2:
            raise invalid(name, "have at least 2 samples", "1")
        if x.requires_grad or x.is_complex():
            raise invalid(name, "hold real numbers without gradients", x, "Call X.detach().", kind=TypeError)
        if reset:
            estimator.n_features_in_ = x.shape[1]
        elif x.shape[1] != estimator.n_features_in_:
            raise invalid(name, f"have {estimator.n_features_in_} features, as in fit", x)
        half = x.is_floating_point() and x.element_size() <= 4
        return x.float() if half else x.double()
    from sklearn.utils.validation import validate_data

    # float32 stays; all else becomes float64, float16 included.
    single = getattr(x, "dtype", None) == np.float32
    dtype = np.float32 if single else np.float64
    least = 2 if reset else 1
    return validate_data(estimator, x, reset=reset, dtype=dtype, ensure_all_finite=False, ensure_min_samples=least)


def _bad_columns(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return which columns hold NaN or infinity, and which of the others are constant."""
    if is_tensor(x):
        low, high = x.amin(0).cpu().numpy(), x.amax(0).cpu().numpy()
    else:
        low, high = x.min(axis=0), x.max(axis=0)
    # Minimum and maximum are NaN where there is a NaN, and infinite where there is an infinity.
    bad = ~(np.isfinite(low) & np.isfinite(high))
    return bad, ~bad & (low == high)


def _complain(estimator: Any, required: str, what: str, columns: np.ndarray) -> None:
    numbers = np.flatnonzero(columns)
    names = getattr(estimator, "feature_names_in_", None)
    shown = ", ".join(str(k if names is None else names[k]) for k in numbers[:5]) + (
        ", ..." if len(numbers) > 5 else ""
    )
    advice = "bad_features='drop' leaves such features out, with weight 0."
    raise invalid("X", required, f"{what} in {len(numbers)} of {len(columns)} columns ({shown})", advice)
