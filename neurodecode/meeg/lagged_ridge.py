"""Linear maps between time series by ridge regression on lagged samples: the baseline of the field."""

# B windows, C channels, T_x samples of the input, F features, T samples of the output, L lags; n rows, p columns

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from neurodecode.ridge import MultiTargetRidge
from neurodecode.ridge.estimator import DEFAULT_ALPHAS
from neuroloaders.checks import check_int, check_same_length, check_shape, invalid

__all__ = ["LaggedRidge", "grouped_errors", "lagged"]

_ROWS_AT_A_TIME = 8192


def lagged(x: np.ndarray, lags: Sequence[int], n_times: int) -> np.ndarray:
    """Lay lagged samples side by side.

    Parameters
    ----------
    x : ndarray, shape (B, C, T_x)
        Windows.
    lags : sequence of int, length L
        Row t holds the samples t + lag: positive ones come later. Zero where there is no such sample.
    n_times : int
        T, rows of each window.

    Returns
    -------
    ndarray, shape (B, T, C * L)
        For each channel, its lags.

    Examples
    --------
    >>> lagged(np.array([[[1.0, 2.0, 3.0]]]), [0, 1], 3)[0].tolist()
    [[1.0, 2.0], [2.0, 3.0], [3.0, 0.0]]
    """
    check_shape("x", x, ("B", "C", "T"))
    out = np.zeros((x.shape[0], n_times, x.shape[1], len(lags)), dtype=x.dtype)
    for place, lag in enumerate(lags):
        first, last = max(0, -lag), min(n_times, x.shape[2] - lag)
        if first < last:
            out[:, first:last, :, place] = x[:, :, first + lag : last + lag].transpose(0, 2, 1)
    return out.reshape(x.shape[0], n_times, -1)


def grouped_errors(
    design: np.ndarray, target: np.ndarray, groups: Any, alphas: Sequence[float], *, n_splits: int = 5
) -> np.ndarray:
    """Return the cross-validated squared error of ridge regression for each penalty, over folds of whole groups.

    Parameters
    ----------
    design : ndarray, shape (n, p)
        Rows, many more than columns.
    target : ndarray, shape (n, F)
        Targets.
    groups : array of shape (n,)
        Rows of the same group are in the same fold.
    alphas : sequence of float
        Penalties, above 0.
    n_splits : int
        Folds; the number of groups if that is less.

    Returns
    -------
    ndarray of float64, shape (n_alphas,)
        Mean over rows and targets. The intercept is fitted, and not penalised.

    Notes
    -----
    From the products of each fold alone, of sizes p x p and p x F: one factorisation a fold, no row is predicted. The
    closed form of `neurodecode.ridge` inverts a matrix as large as the rows of a fold, which here are thousands.
    """
    check_same_length(design=design, target=target, groups=groups)
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    n_splits = min(check_int("n_splits", n_splits, at_least=2), len(names))
    if n_splits < 2:
        raise invalid("groups", "hold at least two groups", "one", "Rows of one group cannot be cut.")
    fold = number * n_splits // len(names)
    folds = [_Products.of(design, target, np.flatnonzero(fold == k)) for k in range(n_splits)]
    alphas = np.asarray(alphas, dtype=np.float64)
    errors = np.zeros(len(alphas))
    for held in folds:
        rest = _Products.total([one for one in folds if one is not held])
        mean_x, mean_y = rest.x / rest.n, rest.y / rest.n
        values, vectors = np.linalg.eigh(rest.about(mean_x, mean_y)[0])
        moment = vectors.T @ rest.about(mean_x, mean_y)[1]
        gram, cross, power = held.about(mean_x, mean_y)
        gram, cross = vectors.T @ gram @ vectors, vectors.T @ cross
        for k, alpha in enumerate(alphas):
            weights = moment / (values.clip(0) + alpha)[:, None]
            errors[k] += power - 2 * (weights * cross).sum() + (weights * (gram @ weights)).sum()
    return errors / target.size


class LaggedRidge:
    """Ridge regression from lagged samples of some channels to features, the same at all times of a window.

    Parameters
    ----------
    lags : sequence of int
        In samples; see `lagged`.
    alphas : sequence of float
        Penalties to choose from, by `grouped_errors`; one for all features.
    max_rows : int
        Training samples, at most: windows beyond that are left out at random. The matrix takes
        ``max_rows * C * L * 4`` bytes.
    n_splits : int
        Folds.
    seed : int
        Of the choice of windows.

    Attributes
    ----------
    alpha_ : float
        What was chosen.
    errors_ : ndarray, shape (n_alphas,)
        Cross-validated errors.
    ridge_ : MultiTargetRidge
    """

    def __init__(
        self,
        lags: Sequence[int],
        *,
        alphas: Sequence[float] = DEFAULT_ALPHAS,
        max_rows: int = 50_000,
        n_splits: int = 5,
        seed: int = 0,
    ) -> None:
        self.lags = [check_int("lags", lag) for lag in lags]
        if not self.lags:
            raise invalid("lags", "hold at least one lag", "none")
        self.alphas, self.seed = tuple(alphas), seed
        self.max_rows = check_int("max_rows", max_rows, at_least=1)
        self.n_splits = check_int("n_splits", n_splits, at_least=2)

    def fit(self, pairs: Iterable[tuple[Any, Any, Any]], n_windows: int) -> LaggedRidge:
        """Fit to windows that come in batches.

        Parameters
        ----------
        pairs : iterable of (x, y, groups)
            Arrays or tensors of shapes (B, C, T_x), (B, F, T) and (B,): windows of the same group, such as a block of
            speech, are in the same fold.
        n_windows : int
            How many windows come.

        Returns
        -------
        LaggedRidge
            Itself.
        """
        order, taken, rows = np.random.default_rng(self.seed).permutation(n_windows), 0, []
        for x, y, groups in pairs:
            x, y = _array(x), _array(y)
            kept = order[: max(1, self.max_rows // y.shape[2])]
            here = np.isin(np.arange(taken, taken + len(x)), kept)
            taken += len(x)
            if here.any():
                design, target = lagged(x[here], self.lags, y.shape[2]), y[here].transpose(0, 2, 1)
                group = np.repeat(np.asarray(groups)[here], y.shape[2])
                rows.append((design.reshape(len(group), -1), target.reshape(len(group), -1), group))
        if not rows:
            raise invalid("pairs", "hold at least one window", "none")
        design, target, group = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        self.errors_ = grouped_errors(design, target, group, self.alphas, n_splits=self.n_splits)
        self.alpha_ = float(self.alphas[int(self.errors_.argmin())])
        # Sensors that are missing are zero throughout.
        self.ridge_ = MultiTargetRidge(self.alpha_, bad_features="drop").fit(design, target)
        return self

    def predict(self, x: Any, n_times: int) -> np.ndarray:
        """Return the features of windows, shape (B, F, T), for inputs (B, C, T_x).

        Parameters
        ----------
        x : array or tensor, shape (B, C, T_x)
            Windows.
        n_times : int
            T.
        """
        design = lagged(_array(x), self.lags, n_times)
        found = np.asarray(self.ridge_.predict(design.reshape(-1, design.shape[2])))
        return found.reshape(len(design), n_times, -1).transpose(0, 2, 1)


class _Products:
    """Sums over rows: n, x, y, x xᵀ, x yᵀ and y², in float64."""

    def __init__(self, n: int, x: Any, y: Any, gram: Any, cross: Any, power: float) -> None:
        self.n, self.x, self.y, self.gram, self.cross, self.power = n, x, y, gram, cross, power

    @classmethod
    def of(cls, design: np.ndarray, target: np.ndarray, rows: np.ndarray) -> _Products:
        parts = []
        for first in range(0, len(rows), _ROWS_AT_A_TIME):
            mine = rows[first : first + _ROWS_AT_A_TIME]
            x, y = design[mine].astype(np.float64), target[mine].astype(np.float64)
            parts.append(cls(len(mine), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y, float((y**2).sum())))
        return cls.total(parts)

    @classmethod
    def total(cls, parts: list[_Products]) -> _Products:
        names = ("n", "x", "y", "gram", "cross", "power")
        return cls(*(sum(getattr(part, name) for part in parts) for name in names))

    def about(self, mean_x: np.ndarray, mean_y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return x xᵀ, x yᵀ and y² of rows from which these means are subtracted."""
        gram = self.gram - np.outer(self.x, mean_x) - np.outer(mean_x, self.x) + self.n * np.outer(mean_x, mean_x)
        cross = self.cross - np.outer(self.x, mean_y) - np.outer(mean_x, self.y) + self.n * np.outer(mean_x, mean_y)
        return gram, cross, float(self.power - 2 * mean_y @ self.y + self.n * mean_y @ mean_y)


def _array(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if hasattr(x, "detach") else np.asarray(x)
