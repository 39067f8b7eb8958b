"""How well could any model do? The share of the variance of responses that repeats with the stimulus."""

# n trials, s stimuli, k repeats, p voxels (or sensors, or targets)

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import is_tensor
from neuroloaders.checks import check_int, check_option, check_shape, invalid

__all__ = [
    "VARIANCES",
    "NoiseCeiling",
    "ceiling_from_ncsnr",
    "noise_ceiling",
    "split_half_ceiling",
]

# Bytes of responses in float64 at a time.
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True, eq=False, kw_only=True)
class NoiseCeiling:
    """Signal and noise of each voxel, and the best score they allow.

    Parameters
    ----------
    percent : ndarray of float64, shape (n_voxels,)
        Largest R2 that any model can reach, in percent; the largest correlation is ``sqrt(percent / 100)``.
    ncsnr : ndarray of float64, shape (n_voxels,)
        Noise ceiling signal-to-noise ratio: standard deviation of the signal over that of the noise of one trial.
    signal_sd, noise_sd : ndarray of float64, shape (n_voxels,)
        These standard deviations, in units of the responses.
    repeats : ndarray of int64, shape (n_scored,)
        Trials that were averaged for each stimulus that the ceiling is for.
    """

    percent: np.ndarray
    ncsnr: np.ndarray
    signal_sd: np.ndarray
    noise_sd: np.ndarray
    repeats: np.ndarray


def _anova(groups: _Repeats, x: np.ndarray, means: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k, n, s = groups.size, len(x), len(groups.size)
    noise = within.sum(axis=0) / (n - s)
    between = (k[:, None] * (means - x.mean(axis=0)) ** 2).sum(axis=0) / (s - 1)
    # How often a stimulus was repeated, as far as it enters the expected mean square between stimuli.
    typical = (n - (k**2).sum() / n) / (s - 1)
    return (between - noise) / typical, noise


def _nsd(groups: _Repeats, x: np.ndarray, means: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    repeated = groups.size > 1
    noise = (within[repeated] / (groups.size[repeated] - 1)[:, None]).mean(axis=0)
    return x.var(axis=0, ddof=1) - noise, noise


# Name -> function that returns the variance of the signal and of the noise of one trial.
VARIANCES: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {"anova": _anova, "nsd": _nsd}


def noise_ceiling(
    betas: Any,
    stimuli: Any = None,
    *,
    sessions: Any = None,
    repeats: Any = None,
    variances: str = "anova",
    chunk_size: int | None = None,
) -> NoiseCeiling:
    r"""Estimate the noise ceiling of each voxel from repeats of stimuli.

    Parameters
    ----------
    betas : array or memory map, shape (n_trials, n_voxels), or BetaSet
        Responses of single trials. Of a `neuroloaders.BetaSet`, stimuli and sessions are taken as well.
    stimuli : array of shape (n_trials,), optional
        What each trial showed. Stimuli that were shown once count as well, through their mean.
    sessions : array of shape (n_trials,), optional
        Session of each trial: responses are then z-scored in each session and voxel first (ddof = 1), as for NSD, so
        that drifts between sessions count neither as signal nor as noise. For a BetaSet, its sessions by default.
    repeats : int, array of int, or mapping of int to int, optional
        Over how many trials the responses are averaged that the ceiling is for: one number, one for each stimulus, or
        how many stimuli have how many. Default: the repeats of `stimuli`.
    variances : {"anova", "nsd"}
        "anova": signal and noise of a random-effects analysis, unbiased for any numbers of repeats. "nsd": as in the
        NSD data paper, noise = mean over repeated stimuli of their variance, signal = total variance - noise, which is
        a little too small where stimuli are few.
    chunk_size : int, optional
        Voxels in memory at a time.

    Returns
    -------
    NoiseCeiling
        Ceiling in percent of R2, and its parts. NaN where a voxel does not vary.

    Raises
    ------
    ValueError
        If shapes do not fit, there are fewer than 2 stimuli, no stimulus was repeated, or responses are NaN.

    Notes
    -----
    .. math:: NC = 100 \frac{ncsnr^2}{ncsnr^2 + \frac{1}{s}\sum_i 1/k_i}, \quad ncsnr = \hat\sigma_s / \hat\sigma_n

    with :math:`k_i` repeats of stimulus i. This is the formula of the NSD data manual and Allen et al. 2022 [1]_; the
    sum is written there as (A/3 + B/2 + C/1)/(A + B + C) for A, B and C stimuli with 3, 2 and 1 trials. Negative
    estimates of the variance of the signal become 0.

    The ceiling is that of a mean over trials of independent noise, and of models that see stimuli only.

    References
    ----------
    .. [1] Allen et al., Nature Neuroscience 25 (2022), doi:10.1038/s41593-021-00962-x.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> stimuli = np.repeat(np.arange(2000), 3)
    >>> betas = rng.standard_normal((2000, 4))[stimuli] + rng.standard_normal((6000, 4))
    >>> noise_ceiling(betas, stimuli).ncsnr.round(1).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    check_option("variances", variances, VARIANCES)
    if stimuli is None and sessions is None:
        sessions = getattr(betas, "sessions", None)
    betas, groups = _opened(betas, stimuli)
    if groups.size.max() < 2:
        raise invalid("stimuli", "hold a stimulus that was shown at least twice", "none")
    in_sessions = None if sessions is None else _session_rows(sessions, len(betas))
    counts = groups.size if repeats is None else _counts(repeats)
    signal, noise = (np.empty(betas.shape[1]) for _ in range(2))
    for part, x in _voxel_chunks(betas, chunk_size):
        x = x if in_sessions is None else _standardised(x, in_sessions)
        means = groups.means(x)
        within = groups.sums((x - means[groups.number]) ** 2)
        signal[part], noise[part] = VARIANCES[variances](groups, x, means, within)
    signal_sd, noise_sd = np.sqrt(np.maximum(signal, 0)), np.sqrt(noise)
    with np.errstate(invalid="ignore", divide="ignore"):
        ncsnr = signal_sd / noise_sd
    percent = ceiling_from_ncsnr(ncsnr, counts)
    return NoiseCeiling(percent=percent, ncsnr=ncsnr, signal_sd=signal_sd, noise_sd=noise_sd, repeats=counts)


def ceiling_from_ncsnr(ncsnr: Any, repeats: Any) -> np.ndarray:
    """Return the noise ceiling in percent for a published ncsnr, such as NSD's ``ncsnr.nii.gz``.

    Parameters
    ----------
    ncsnr : array
        Standard deviation of the signal over that of the noise of one trial.
    repeats : int, array of int, or mapping of int to int
        Over how many trials responses are averaged: one number, one for each stimulus, or, as {3: A, 2: B, 1: C}, how
        many stimuli have how many.

    Returns
    -------
    ndarray of float64
        100 ncsnr^2 / (ncsnr^2 + mean of 1/repeats), of the shape of `ncsnr`.

    Examples
    --------
    >>> ceiling_from_ncsnr([0.0, 1.0], 1).tolist(), ceiling_from_ncsnr([1.0], {3: 1, 1: 3}).round(3).tolist()
    ([0.0, 50.0], [54.545])
    """
    counts = _counts(repeats)
    ncsnr = np.asarray(ncsnr, dtype=np.float64)
    if (ncsnr < 0).any():
        raise invalid("ncsnr", "be >= 0", f"{np.nanmin(ncsnr):g}")
    # Not ncsnr^2 / (ncsnr^2 + ...): a voxel without noise has an infinite one.
    with np.errstate(divide="ignore"):
        return 100.0 / (1.0 + (1.0 / counts).mean() / ncsnr**2)


def split_half_ceiling(
    betas: Any,
    stimuli: Any = None,
    *,
    repeats: int = 1,
    n_splits: int = 20,
    chunk_size: int | None = None,
    rng: np.random.Generator,
) -> np.ndarray:
    r"""Estimate the noise ceiling from the agreement of two halves of the repeats.

    Parameters
    ----------
    betas : array or memory map, shape (n_trials, n_voxels), or BetaSet
        Responses of single trials, standardised as they are to be.
    stimuli : array of shape (n_trials,), optional
        What each trial showed; those of a BetaSet by default. Stimuli that were shown once are left out.
    repeats : int
        Over how many trials the responses are averaged that the ceiling is for.
    n_splits : int
        Random splits whose correlations are averaged.
    chunk_size : int, optional
        Voxels in memory at a time.
    rng : numpy.random.Generator
        Where the splits come from.

    Returns
    -------
    ndarray of float64, shape (n_voxels,)
        Ceiling in percent of R2, as `noise_ceiling` gives it. Not clipped: negative where halves disagree.

    Notes
    -----
    Each half of a stimulus is the mean of h trials, h being half of the smallest number of repeats above one; they are
    drawn anew in each split. Their correlation r over stimuli is the reliability of h trials; that of n trials follows
    by Spearman (1910) and Brown (1910), :math:`m r / (1 + (m - 1) r)` with m = n/h. The reliability of a mean is the
    share of its variance that is signal, which is the noise ceiling.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> stimuli = np.repeat(np.arange(3000), 2)
    >>> betas = rng.standard_normal((3000, 1))[stimuli] + rng.standard_normal((6000, 1))
    >>> split_half_ceiling(betas, stimuli, rng=rng).round(-1).tolist()
    [50.0]
    """
    check_int("repeats", repeats, at_least=1)
    check_int("n_splits", n_splits, at_least=1)
    betas, groups = _opened(betas, stimuli)
    repeated = np.flatnonzero(groups.size > 1)
    if len(repeated) < 3:
        raise invalid("stimuli", "hold at least 3 stimuli that were shown twice or more", f"{len(repeated)}")
    half = int(groups.size[repeated].min()) // 2
    # The same splits for all voxels; rows of trials, shape (n_splits, 2, n_stimuli, half).
    splits = np.empty((n_splits, 2, len(repeated), half), dtype=np.int64)
    for split in splits:
        for place, stimulus in enumerate(repeated):
            split[:, place] = rng.permutation(groups.rows(stimulus))[: 2 * half].reshape(2, half)
    out = np.empty(betas.shape[1])
    for part, x in _voxel_chunks(betas, chunk_size):
        r = np.zeros(x.shape[1])
        for first, second in splits:
            r += _correlation(x[first].mean(axis=1), x[second].mean(axis=1)) / n_splits
        out[part] = r
    m = repeats / half
    return 100 * m * out / (1 + (m - 1) * out)


class _Repeats:
    """Which trials showed the same stimulus."""

    def __init__(self, stimuli: np.ndarray) -> None:
        _, self.number, self.size = np.unique(stimuli, return_inverse=True, return_counts=True)
        self._order = np.argsort(self.number, kind="stable")
        self._start = np.cumsum(self.size) - self.size

    def rows(self, stimulus: int) -> np.ndarray:
        return self._order[self._start[stimulus] : self._start[stimulus] + self.size[stimulus]]

    def sums(self, x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x[self._order], self._start, axis=0)

    def means(self, x: np.ndarray) -> np.ndarray:
        return self.sums(x) / self.size[:, None]


def _opened(betas: Any, stimuli: Any) -> tuple[Any, _Repeats]:
    if stimuli is None:
        stimuli = getattr(betas, "stimuli", None)
        if stimuli is None:
            raise invalid("stimuli", "be given, unless `betas` is a BetaSet", "None")
    betas = getattr(betas, "betas", betas)
    betas = betas.detach().cpu().numpy() if is_tensor(betas) else betas
    betas = betas if hasattr(betas, "shape") else np.asarray(betas)
    if len(betas.shape) != 2 or 0 in betas.shape or betas.dtype.kind not in "fiu":
        raise invalid("betas", "have shape (n_trials, n_voxels), neither of them 0", betas)
    stimuli = np.asarray(stimuli)
    check_shape("stimuli", stimuli, (betas.shape[0],), advice="One stimulus for each trial.")
    groups = _Repeats(stimuli)
    if len(groups.size) < 2:
        raise invalid("stimuli", "hold at least 2 different stimuli", "1")
    return betas, groups


def _voxel_chunks(betas: Any, chunk_size: int | None) -> Iterator[tuple[slice, np.ndarray]]:
    n, p = betas.shape
    size = max(1, _BLOCK_BYTES // (8 * n))
    size = size if chunk_size is None else check_int("chunk_size", chunk_size, at_least=1)
    for first in range(0, p, size):
        part = slice(first, min(first + size, p))
        x = np.asarray(betas[:, part], dtype=np.float64)
        bad = ~np.isfinite(x).all(axis=0)
        if bad.any():
            came = f"NaN or infinity in {int(bad.sum())} voxels from voxel {first + int(bad.argmax())} on"
            raise invalid("betas", "hold finite numbers only", came, "Leave them out, e.g. BetaSet.drop_bad_voxels().")
        yield part, x


def _session_rows(sessions: Any, n: int) -> list[np.ndarray]:
    sessions = np.asarray(sessions)
    check_shape("sessions", sessions, (n,), advice="One session for each trial.")
    rows = [np.flatnonzero(sessions == session) for session in np.unique(sessions)]
    short = [own for own in rows if len(own) < 2]
    if short:
        raise invalid("sessions", "have at least 2 trials each", f"1 in session {sessions[short[0][0]]}")
    return rows


def _standardised(x: np.ndarray, sessions: list[np.ndarray]) -> np.ndarray:
    out = np.empty_like(x)
    for rows in sessions:
        spread = x[rows].std(axis=0, ddof=1)
        # A voxel that is constant in a session says nothing there, and stays at the mean.
        out[rows] = (x[rows] - x[rows].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return out


def _counts(repeats: Any) -> np.ndarray:
    if isinstance(repeats, Mapping):
        for count, stimuli in repeats.items():
            check_int("repeats", count, at_least=1)
            check_int(f"repeats[{count}]", stimuli, at_least=0)
        repeats = np.repeat(list(repeats), list(repeats.values()))
    counts = np.atleast_1d(np.asarray(repeats))
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or len(counts) == 0 or counts.min() < 1:
        raise invalid("repeats", "be whole numbers >= 1", counts if counts.ndim else f"{repeats}")
    return counts.astype(np.int64)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
