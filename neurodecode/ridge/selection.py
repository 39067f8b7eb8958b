r"""Cross-validation of many alphas and many targets in closed form, from one eigendecomposition and without a refit.

All three score the mean squared error of predictions for rows that were left out, with the intercept fitted anew
without them. Residuals R = (I - H) Ỹ and the hat matrix H are those of the fit with all rows:

========================  ==========================================================================================
``"gcv"``                 generalised cross-validation [1]_: mean(R²) / (1 - tr H / n)²
``"loo"``                 leave-one-out: mean((R_i / (1 - H_ii))²) [2]_, exactly what n refits give
``"group-kfold"``         whole folds left out: the errors of fold g are (I - H_gg)⁻¹ R_g, exactly what k refits give
========================  ==========================================================================================

The block formula follows from the same argument as [2]_: fitted with the left-out rows replaced by their own
predictions, the fit is the one without them, so that E_g = R_g + H_gg E_g. The unpenalised intercept is part of H.

References
----------
.. [1] Golub, Heath & Wahba, Technometrics 21 (1979), doi:10.1080/00401706.1979.10489751.
.. [2] Allen, Technometrics 16 (1974), doi:10.1080/00401706.1974.10489157.
"""

# n rows, m targets, A alphas, r eigenvectors

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neurodecode.ridge.system import Spectrum
from neuroloaders.checks import check_int, check_same_length, invalid

__all__ = ["SELECTIONS", "folds_of_groups", "scores"]

# Scores in float32 that differ by less than this are computed again in float64: relative to the best score, and to the
# variance of the target, as residuals are differences from it.
_TIE, _TIE_OF_VARIANCE = 1e-5, 1e-6


def scores(
    select: str, spectrum: Spectrum, y: Any, alphas: np.ndarray, folds: Sequence[np.ndarray] = ()
) -> tuple[np.ndarray, Any]:
    """Return the cross-validated mean squared errors of a chunk of targets, and their projections.

    Parameters
    ----------
    select : str
        A key of `SELECTIONS`.
    spectrum : Spectrum
        The eigendecomposition.
    y : array, shape (n, m)
        Centred and weighted targets, Ỹ.
    alphas : ndarray, shape (A,)
        What to choose from.
    folds : sequence of ndarray
        Rows of each fold, for ``"group-kfold"``.

    Returns
    -------
    errors : ndarray of float64, shape (A, m)
        Mean squared errors, weighted by the sample weights.
    q : array, shape (r, m)
        UᵀỸ.

    Notes
    -----
    In float32, alphas that come close to the best one of a target are scored again in float64, so that rounding chooses
    no alpha.
    """
    method, lib = SELECTIONS[select], spectrum.lib
    weights = spectrum.features.weights
    total = float(spectrum.features.n if weights is None else weights.sum())
    q = spectrum.project(y)
    errors = method(spectrum, y, q, alphas, folds) / total
    if str(y.dtype).endswith("32"):
        variance = lib.numpy((y * y).sum(0)) / total
        near = errors <= (1 + _TIE) * errors.min(0) + _TIE_OF_VARIANCE * variance
        tied = np.flatnonzero(near.sum(0) > 1)
        if len(tied):
            some = np.flatnonzero(near[:, tied].any(1))
            y64 = lib.array(y[:, tied], "float64")
            again = method(spectrum, y64, spectrum.project(y64), alphas[some], folds) / total
            errors[np.ix_(some, tied)] = np.where(near[np.ix_(some, tied)], again, errors[np.ix_(some, tied)])
    return errors, q


def _gcv(spectrum: Spectrum, y: Any, q: Any, alphas: np.ndarray, folds: Sequence[np.ndarray]) -> np.ndarray:
    lib, features = spectrum.lib, spectrum.features
    squares = lib.array(q, "float64") ** 2
    shrink = alphas[:, None] / (spectrum.values + alphas[:, None])
    sums = lib.numpy(lib.array(shrink**2, "float64") @ squares)
    if not spectrum.complete:
        # What no eigenvector reaches is residual whatever alpha.
        outside = lib.numpy((lib.array(y, "float64") ** 2).sum(0) - squares.sum(0))
        sums = sums + np.maximum(outside, 0.0)
    n_rows = features.n if features.weights is None else int(np.count_nonzero(features.weights))
    left = np.array([spectrum.degrees_left(alpha, n_rows) for alpha in alphas])
    return sums * (n_rows / left[:, None]) ** 2


def _loo(spectrum: Spectrum, y: Any, q: Any, alphas: np.ndarray, folds: Sequence[np.ndarray]) -> np.ndarray:
    dtype = str(q.dtype).removeprefix("torch.")
    scale = 1.0 / spectrum.unexplained(alphas)
    if spectrum.features.weights is not None:
        scale[:, spectrum.features.weights == 0] = 0.0
    out = []
    for alpha, row in zip(alphas, scale, strict=True):
        errors = spectrum.residuals(y, q, alpha) * spectrum.lib.array(row[:, None], dtype)
        errors *= errors
        out.append(spectrum.lib.numpy(errors.sum(0)))
    return np.asarray(out, dtype=np.float64)


def _group_kfold(spectrum: Spectrum, y: Any, q: Any, alphas: np.ndarray, folds: Sequence[np.ndarray]) -> np.ndarray:
    lib, out = spectrum.lib, []
    for alpha in alphas:
        residuals = spectrum.residuals(y, q, alpha)
        total = 0.0
        for fold in folds:
            errors = spectrum.fold_errors(float(alpha), fold, residuals[fold])
            errors *= errors
            total = total + lib.numpy(errors.sum(0)).astype(np.float64)
        out.append(total)
    return np.asarray(out)


# How alpha may be chosen -> sums of squared errors, shape (A, m).
SELECTIONS: dict[str, Callable[..., np.ndarray]] = {"gcv": _gcv, "loo": _loo, "group-kfold": _group_kfold}


def folds_of_groups(groups: Any, n: int, n_splits: int | None) -> list[np.ndarray]:
    """Return the rows of each fold; rows of one group (image, run, session) are always in the same fold.

    Parameters
    ----------
    groups : array, shape (n,)
        Group of each row.
    n : int
        Number of rows.
    n_splits : int, optional
        Number of folds, of nearly equal size, as in ``sklearn.model_selection.GroupKFold``. None: each group is a fold.

    Returns
    -------
    list of ndarray

    Raises
    ------
    ValueError
        If there are no groups, not one for each row, or fewer than folds.

    Examples
    --------
    >>> [fold.tolist() for fold in folds_of_groups(["a", "b", "a", "c"], 4, None)]
    [[0, 2], [1], [3]]
    """
    if groups is None:
        advice = "Pass the run, session or image of each row, MultiTargetRidge(groups=...) or fit(X, y, groups=...)."
        raise invalid("groups", "be given for select='group-kfold'", "None", advice)
    groups = np.asarray(groups)
    if groups.ndim != 1:
        raise invalid("groups", f"have shape ({n},)", groups)
    check_same_length(groups=groups, X=range(n))
    names, numbers = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise invalid("groups", "name at least two groups", f"one, {names[0]!r}")
    if n_splits is None:
        return [np.flatnonzero(numbers == k) for k in range(len(names))]
    check_int("n_splits", n_splits, at_least=2)
    if n_splits > len(names):
        advice = "Lower it, or pass n_splits=None to leave one group out at a time."
        raise invalid("n_splits", f"be at most {len(names)}, the number of groups", f"{n_splits}", advice)
    from sklearn.model_selection import GroupKFold

    rows = np.zeros((n, 1))
    return [test for _, test in GroupKFold(n_splits).split(rows, groups=numbers)]
