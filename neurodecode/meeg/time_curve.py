"""Accuracy over time: its interval, the windows in which it is more than chance, when that begins, ends and peaks."""

# M windows, U units (subjects or runs), P permutations

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from neurodecode.meeg.time_scores import TimeScores
from neurodecode.meeg.time_windows import TIMES, TimeWindows
from neuroloaders.checks import check_int, check_number, check_option, invalid

__all__ = ["TIME_TESTS", "Cluster", "TimeCurve", "permutation_clusters", "sign_clusters", "time_curve"]

TIME_TESTS = {
    "labels": "stimuli or labels change places; also for one subject, and for the few of most studies",
    "units": "signs of the units' differences from chance change (mne.stats); for new subjects, needs five at least",
    "none": "no test",
}


class Cluster(NamedTuple):
    """Neighbouring windows that are better than chance together: the first and the last of them, and p."""

    first: int
    last: int
    p: float


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeCurve:
    """What a score does over time.

    Parameters
    ----------
    times_s : ndarray, shape (M,)
        Of the windows, relative to the event.
    at : str
        Which time of a window that is, a key of `neurodecode.meeg.time_windows.TIMES`.
    score : ndarray, shape (U, M)
        Of each unit.
    mean, sem, low, high : ndarray, shape (M,)
        Mean over units, its standard error, and borders of its bootstrap interval; the latter three NaN for one unit.
    level : float
        Nominal coverage of the interval.
    chance : float
        Score of a decoder that knows nothing.
    measure : str
        What is scored.
    units : tuple of str
        Names of subjects or runs.
    clusters : tuple of Cluster
        All that were found, in order of time.
    alpha : float
        Clusters with a p of at most this are significant.
    test : str
        A key of `TIME_TESTS`.
    """

    times_s: np.ndarray
    at: str
    score: np.ndarray
    mean: np.ndarray
    sem: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    chance: float
    measure: str
    units: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    alpha: float
    test: str

    @property
    def significant(self) -> np.ndarray:
        """Whether each window is in a significant cluster, bool, shape (M,)."""
        out = np.zeros(len(self.mean), dtype=bool)
        for cluster in self.clusters:
            if cluster.p <= self.alpha:
                out[cluster.first : cluster.last + 1] = True
        return out

    @property
    def onset_s(self) -> float:
        """Time of the first significant window; NaN if there is none."""
        return float(self.times_s[self.significant.argmax()]) if self.significant.any() else float("nan")

    @property
    def offset_s(self) -> float:
        """Time of the last significant window; NaN if there is none."""
        return float(self.times_s[np.flatnonzero(self.significant)[-1]]) if self.significant.any() else float("nan")

    @property
    def peak_s(self) -> float:
        """Time of the window with the highest mean."""
        return float(self.times_s[self.mean.argmax()])

    @property
    def peak(self) -> float:
        """The highest mean. It is the best of M windows, and as such too high."""
        return float(self.mean.max())


def time_curve(
    scores: TimeScores,
    windows: TimeWindows,
    *,
    at: str = "end",
    test: str = "labels",
    alpha: float = 0.05,
    level: float = 0.95,
    n_resamples: int = 2000,
    n_permutations: int = 1024,
    rng: np.random.Generator,
) -> TimeCurve:
    """Put scores on the axis of time, with intervals and a cluster test.

    Parameters
    ----------
    scores : TimeScores
        From `retrieval_scores` or `class_scores`.
    windows : TimeWindows
        The M windows.
    at : {"end", "centre", "begin"}
        Which time of a window counts. By its end, a decoder can have known no earlier: an onset is not before the
        brain's, and an offset as much later as windows are long.
    test : {"labels", "units", "none"}
        A key of `TIME_TESTS`.
    alpha : float
        Level of the test, for all windows together, and of each window for forming clusters.
    level : float
        Nominal coverage of the bootstrap interval over units.
    n_resamples : int
        Of the bootstrap.
    n_permutations : int
        Of signs, for ``test="units"``; all of them if there are no more. Those of labels come with the scores.
    rng : numpy.random.Generator
        For both.

    Returns
    -------
    TimeCurve

    Raises
    ------
    ValueError
        If scores are of other windows, or too few for the test.

    Notes
    -----
    A cluster test tells that there is an effect, not when it begins: onsets and offsets of clusters have no error rate
    of their own (Sassenhagen & Draschkow 2019 [1]_). The interval is that of the mean over new units, the percentiles
    of resampled units; with few of them it is too short.

    References
    ----------
    .. [1] Sassenhagen & Draschkow, Psychophysiology 56 (2019), doi:10.1111/psyp.13335.
    """
    n_units, n_windows = scores.score.shape
    if n_windows != len(windows):
        raise invalid("scores", f"be of {len(windows)} windows", f"{n_windows}")
    check_option("at", at, TIMES)
    check_option("test", test, TIME_TESTS)
    check_number("alpha", alpha, above=0, below=1)
    check_number("level", level, above=0, below=1)
    check_int("n_resamples", n_resamples, at_least=100)
    sem = low = high = np.full(n_windows, np.nan)
    if n_units > 1:
        sem = scores.score.std(axis=0, ddof=1) / np.sqrt(n_units)
        drawn = rng.integers(0, n_units, (n_resamples, n_units))
        means = np.stack([scores.score[rows].mean(axis=0) for rows in drawn])
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    clusters: tuple[Cluster, ...] = ()
    if test == "labels":
        clusters = permutation_clusters(scores.mean, scores.null, alpha=alpha)
    elif test == "units":
        clusters = sign_clusters(scores.score - scores.chance, alpha=alpha, n_permutations=n_permutations, rng=rng)
    return TimeCurve(
        times_s=windows.times(at), at=at, score=scores.score, mean=scores.mean, sem=sem, low=low, high=high,
        level=level, chance=scores.chance, measure=scores.measure, units=scores.units, clusters=clusters, alpha=alpha,
        test=test,
    )  # fmt: skip


def permutation_clusters(observed: np.ndarray, null: np.ndarray, *, alpha: float = 0.05) -> tuple[Cluster, ...]:
    r"""Return clusters of windows that are better than permutations, with a p for the largest of any clusters.

    Parameters
    ----------
    observed : ndarray, shape (M,)
        Scores.
    null : ndarray, shape (P, M)
        Those of permutations, each of which is the same in all windows.
    alpha : float
        Level of a window to be in a cluster.

    Returns
    -------
    tuple of Cluster
        In order of time.

    Raises
    ------
    ValueError
        If there are so few permutations that no p can be `alpha`.

    Notes
    -----
    A window counts if :math:`z = (s - \mu) / \sigma` is above the normal quantile of 1 - alpha, with mean and standard
    deviation of the window over all permutations and the true order, which makes all orders alike under the null
    hypothesis. The mass of a cluster is the sum of its z, and p the share of orders whose largest cluster has at least
    that mass (Maris & Oostenveld 2007 [1]_).

    References
    ----------
    .. [1] Maris & Oostenveld, Journal of Neuroscience Methods 164 (2007), doi:10.1016/j.jneumeth.2007.03.024.
    """
    from scipy.stats import norm

    if len(null) + 1 < 1 / alpha:
        advice = f"Score with n_permutations={int(np.ceil(1 / alpha)) - 1} or more."
        raise invalid("null", f"hold enough permutations for a p of {alpha:g}", f"{len(null)}", advice)
    orders = np.concatenate([observed[None], null])
    spread = orders.std(axis=0)
    z = (orders - orders.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    threshold = norm.ppf(1 - alpha)
    largest = np.array([max((mass for *_, mass in _runs(row, threshold)), default=0.0) for row in z])
    # Sums of the same numbers may differ by rounding.
    return tuple(
        Cluster(first, last, float((largest >= mass * (1 - 1e-12)).mean()))
        for first, last, mass in _runs(z[0], threshold)
    )


def sign_clusters(
    differences: np.ndarray, *, alpha: float = 0.05, n_permutations: int = 1024, rng: np.random.Generator
) -> tuple[Cluster, ...]:
    """Return clusters of windows in which units differ from chance, by ``mne.stats.permutation_cluster_1samp_test``.

    Parameters
    ----------
    differences : ndarray, shape (U, M)
        Score of each unit less chance.
    alpha : float
        Level.
    n_permutations : int
        Of signs; all 2 ** U if they are no more.
    rng : numpy.random.Generator
        Its next number seeds the permutations.

    Returns
    -------
    tuple of Cluster
        In order of time.

    Raises
    ------
    ValueError
        If there are so few units that no p can be `alpha`.
    """
    from mne.stats import permutation_cluster_1samp_test
    from scipy.stats import t

    n_units = len(differences)
    if 2.0**-n_units > alpha:
        least = int(np.ceil(-np.log2(alpha)))
        advice = "Use test='labels'."
        raise invalid("scores", f"be of {least} units or more for a p of {alpha:g} by signs", f"{n_units}", advice)
    # Named anew in newer versions.
    name = "rng" if "rng" in inspect.signature(permutation_cluster_1samp_test).parameters else "seed"
    seed = {name: int(rng.integers(2**31))}
    _, found, p_values, _ = permutation_cluster_1samp_test(
        differences, threshold=t.ppf(1 - alpha, n_units - 1), tail=1, n_permutations=n_permutations, out_type="mask",
        verbose=False, **seed,
    )  # fmt: skip
    clusters = []
    for where, p in zip(found, p_values, strict=True):
        inside = np.zeros(differences.shape[1], dtype=bool)
        inside[where] = True
        rows = np.flatnonzero(inside)
        clusters.append(Cluster(int(rows[0]), int(rows[-1]), float(p)))
    return tuple(sorted(clusters))


def _runs(z: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """Return first, last and sum of each run of values above a threshold."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], z > threshold, [False]])))
    pairs = zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True)
    return [(first, last, float(z[first : last + 1].sum())) for first, last in pairs]
