"""Which alpha for which target: fixed, or chosen by cross-validation, for each target, for groups of them, for all."""

# A alphas, m targets

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_number, check_shape, invalid

__all__ = ["ALPHA_PER", "alpha_grid", "chosen_alphas", "fixed_alphas", "group_numbers"]

_SHARED = "Pass the alphas as a number, one for each target, or a dict with one for each of target_groups."


def alpha_grid(alphas: Any) -> np.ndarray:
    """Return the alphas to choose from as an array, in the order given.

    Parameters
    ----------
    alphas : sequence of float
        All above 0.

    Raises
    ------
    ValueError
        If there are none, or one is not above 0.
    """
    grid = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if grid.ndim != 1 or grid.size == 0 or not (np.isfinite(grid).all() and (grid > 0).all()):
        raise invalid(
            "alphas", "be a list of finite numbers > 0", f"{alphas!r}", "For example numpy.logspace(0, 6, 20)."
        )
    return grid


def fixed_alphas(alpha: Any, target_groups: Any, m: int) -> np.ndarray:
    """Return the alpha of each of m targets.

    Parameters
    ----------
    alpha : float, array of shape (m,), or dict
        A dict gives one alpha for each name in `target_groups`.
    target_groups : array of shape (m,), optional
        Group of each target.
    m : int
        Number of targets.

    Examples
    --------
    >>> fixed_alphas({"text": 1e5, "image": 6e4}, ["text", "image", "image"], 3)
    array([100000.,  60000.,  60000.])
    """
    if isinstance(alpha, Mapping):
        names, numbers = _groups(target_groups, m)
        lacking = [name for name in names.tolist() if name not in alpha]
        if lacking:
            raise invalid("alpha", "have an entry for each of target_groups", f"none for {lacking[0]!r}", _SHARED)
        values = [check_number(f"alpha[{name!r}]", alpha[name], above=0) for name in names.tolist()]
        return np.asarray(values)[numbers]
    if np.ndim(alpha) == 0:
        return np.full(m, check_number("alpha", alpha, above=0, advice="For no penalty use LinearRegression."))
    values = check_finite("alpha", np.asarray(alpha, dtype=np.float64))
    check_shape("alpha", values, (m,), advice=_SHARED)
    if (values <= 0).any():
        raise invalid("alpha", "be > 0 for every target", f"{values.min():g}")
    return values


def _groups(target_groups: Any, m: int) -> tuple[np.ndarray, np.ndarray]:
    if target_groups is None:
        raise invalid("target_groups", "say which group each target belongs to", "None")
    labels = np.asarray(target_groups)
    check_shape("target_groups", labels, (m,), advice="One label for each column of Y.")
    return np.unique(labels, return_inverse=True)


def group_numbers(alpha_per: str, target_groups: Any, m: int) -> np.ndarray:
    """Return the number of the group that each of m targets shares its alpha with.

    Parameters
    ----------
    alpha_per : str
        A key of `ALPHA_PER`.
    target_groups : array of shape (m,), optional
        Group of each target, for ``"group"``.
    m : int
        Number of targets.
    """
    return ALPHA_PER[alpha_per](target_groups, m)


# Who shares an alpha -> number of the group of each target.
ALPHA_PER: dict[str, Callable[[Any, int], np.ndarray]] = {
    "target": lambda target_groups, m: np.arange(m),
    "all": lambda target_groups, m: np.zeros(m, dtype=np.int64),
    "group": lambda target_groups, m: _groups(target_groups, m)[1],
}


def chosen_alphas(errors: np.ndarray, alphas: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the alpha of each target: the first of those with the lowest mean error in the target's group.

    Parameters
    ----------
    errors : ndarray, shape (A, m)
        Cross-validated mean squared errors.
    alphas : ndarray, shape (A,)
        Alphas.
    numbers : ndarray, shape (m,)
        Group of each target, from 0.
    """
    n_groups = int(numbers.max()) + 1
    if n_groups == errors.shape[1] and np.array_equal(numbers, np.arange(n_groups)):
        return alphas[errors.argmin(0)]
    sums = np.stack([np.bincount(numbers, row, minlength=n_groups) for row in errors])
    return alphas[sums.argmin(0)][numbers]
