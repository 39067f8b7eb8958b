"""Scores of each target (voxel, latent, sensor) over samples, in chunks of targets."""

# n samples, m targets

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import is_tensor
from neurodecode.ridge.targets import open_array
from neuroloaders.checks import check_int, check_shape, invalid

__all__ = ["TargetScores", "score_targets"]

_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetScores:
    """How well each target is predicted.

    Parameters
    ----------
    r2 : ndarray of float64, shape (n_targets,)
        Share of the variance around the mean of these samples that is explained (scikit-learn's ``r2_score``). NaN
        where the target does not vary.
    r2_train_mean : ndarray of float64, shape (n_targets,), or None
        The same with squared deviations from the *training* mean below the line: against the best guess without brain
        data. None where no training mean was given. Never smaller than `r2`.
    correlation : ndarray of float64, shape (n_targets,)
        Pearson's, which does not see an offset or a wrong scale. NaN where target or prediction does not vary.
    """

    r2: np.ndarray
    r2_train_mean: np.ndarray | None
    correlation: np.ndarray


def score_targets(y: Any, predicted: Any, *, train_mean: Any = None, chunk_size: int | None = None) -> TargetScores:
    """Score each target over samples.

    Parameters
    ----------
    y : array, tensor, memory map or path, shape (n_samples, ...)
        True values; further axes are flattened. A path leads to a ``.npy`` file.
    predicted : array, tensor, memory map or path, of the same shape
        Predictions.
    train_mean : array of shape (...), optional
        Mean of each target over the training samples.
    chunk_size : int, optional
        Targets in memory at a time. By default some tens of MB.

    Returns
    -------
    TargetScores
        R2 around both means, and correlation.

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than 2 samples, or a value is NaN or infinite: the message names the target.

    Notes
    -----
    1 - SS_residual / SS_total, in float64. The test mean is not known to a decoder, so that R2 around it can be
    negative for predicting the training mean; around the training mean that scores 0. Papers rarely say which they
    mean.

    Examples
    --------
    >>> y = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    >>> score_targets(y, np.ones((3, 2)) * [1.0, 2.0], train_mean=[0.0, 2.0]).r2_train_mean.tolist()
    [0.6, 0.0]
    """
    y, predicted = open_array("y", y), open_array("predicted", predicted)
    shape = tuple(int(size) for size in y.shape)
    if len(shape) < 1 or 0 in shape or shape[0] < 2:
        raise invalid("y", "have shape (n_samples, ...) with at least 2 samples", f"{shape}")
    y, predicted = _flat("y", y, shape), _flat("predicted", predicted, shape)
    m = y.shape[1]
    mean = None
    if train_mean is not None:
        mean = np.asarray(train_mean.detach().cpu() if is_tensor(train_mean) else train_mean, dtype=np.float64)
        check_shape("train_mean", mean, shape[1:], advice="One mean for each target.")
        mean = mean.reshape(-1)
    r2, correlation, r2_train = np.empty(m), np.empty(m), np.empty(m)
    for part in _parts(shape[0], m, chunk_size):
        true, guess = _chunk("y", y, part), _chunk("predicted", predicted, part)
        residual = ((true - guess) ** 2).sum(axis=0)
        a, b = true - true.mean(axis=0), guess - guess.mean(axis=0)
        total = np.where(np.ptp(true, axis=0) > 0, (a * a).sum(axis=0), np.nan)
        spread = np.where(np.ptp(guess, axis=0) > 0, (b * b).sum(axis=0), np.nan)
        r2[part] = 1 - residual / total
        correlation[part] = np.clip((a * b).sum(axis=0) / np.sqrt(total * spread), -1, 1)
        if mean is not None:
            around = ((true - mean[part]) ** 2).sum(axis=0)
            r2_train[part] = 1 - residual / np.where(around > 0, around, np.nan)
    return TargetScores(r2=r2, r2_train_mean=None if mean is None else r2_train, correlation=correlation)


def _flat(name: str, x: Any, shape: tuple[int, ...]) -> Any:
    """Return the array with one axis of targets, still unread if it is a memory map."""
    check_shape(name, x, shape, advice="Targets and predictions are compared entry by entry.")
    x = x.detach() if is_tensor(x) else x
    return x if len(shape) == 2 else x.reshape(shape[0], -1)


def _parts(n: int, m: int, chunk_size: int | None) -> Iterator[slice]:
    size = max(1, _BLOCK_BYTES // (8 * n))
    size = size if chunk_size is None else check_int("chunk_size", chunk_size, at_least=1)
    for first in range(0, m, size):
        yield slice(first, min(first + size, m))


def _chunk(name: str, x: Any, part: slice) -> np.ndarray:
    chunk = x[:, part]
    chunk = np.asarray(chunk.cpu() if is_tensor(chunk) else chunk, dtype=np.float64)
    bad = ~np.isfinite(chunk).all(axis=0)
    if bad.any():
        came = f"NaN or infinity in {int(bad.sum())} targets, the first of them {part.start + int(bad.argmax())}"
        raise invalid(name, "hold finite numbers only", came)
    return chunk
