"""How well each window tells what was seen, for each subject or run, and by how much that varies by chance."""

# M windows, N events, F features, K classes, U units (subjects or runs), I candidates, P permutations

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from neurodecode.scoring.similarity import similarity_matrix
from neuroloaders.checks import check_finite, check_int, check_same_length, check_shape, invalid

__all__ = ["TimeScores", "class_scores", "retrieval_scores"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeScores:
    """A score of each unit in each window, and what it would be if brains did not know.

    Parameters
    ----------
    score : ndarray of float64, shape (U, M)
        Of each unit.
    null : ndarray of float64, shape (P, M)
        Mean over units with stimuli or labels in each other's places, the same places in all windows. P may be 0.
    units : tuple of str
        Names of subjects or runs.
    chance : float
        What a decoder that knows nothing scores.
    measure : str
        What is scored.
    """

    score: np.ndarray
    null: np.ndarray
    units: tuple[str, ...]
    chance: float
    measure: str

    @property
    def mean(self) -> np.ndarray:
        """Mean over units, shape (M,)."""
        return self.score.mean(axis=0)


def retrieval_scores(
    estimates: Any,
    stimulus: Any,
    names: Any,
    features: Any,
    *,
    k: int = 5,
    units: Any = None,
    similarity: str = "cosine",
    n_permutations: int = 1000,
    rng: np.random.Generator | None = None,
) -> TimeScores:
    """Score features: whether the true stimulus is among the k nearest of all candidates.

    Parameters
    ----------
    estimates : array, shape (M, N, F)
        What each window says of each presentation, or of each averaged one.
    stimulus : array of str, shape (N,)
        What was shown.
    names : array of str, shape (I,)
        Candidates, each once, those that were shown among them.
    features : array, shape (I, F)
        Of the candidates, in the scale of the estimates: ``decoder.candidates(targets, names)``.
    k : int
        How many count.
    units : sequence of str, length N, optional
        Subject or run of each row; by default all are one.
    similarity : {"cosine", "correlation", "dot"}
        A key of `neurodecode.scoring.SIMILARITIES`.
    n_permutations : int
        P; 0 for none.
    rng : numpy.random.Generator, optional
        Where permutations come from.

    Returns
    -------
    TimeScores

    Notes
    -----
    Ties across the border count by shares, as in `neurodecode.scoring.Retrieval.top_k`. In a permutation stimuli change
    places as wholes: all presentations of one, of all subjects, are taken for those of another. So repeats of a
    stimulus are not treated as independent. Each window is scored once for all candidates; a permutation is a look-up.
    """
    estimates, stimulus = np.asarray(estimates), np.asarray(stimulus, dtype=str)
    check_shape("stimulus", stimulus, ("N",))
    check_shape("estimates", estimates, ("M", len(stimulus), "F"), advice="A row of each window for each presentation.")
    check_int("k", k, at_least=1)
    place = {name: number for number, name in enumerate(np.asarray(names, dtype=str).tolist())}
    if len(place) < len(names):
        raise invalid("names", "hold each candidate once", "one twice")
    check_same_length(names=names, features=features)
    shown, number = np.unique(stimulus, return_inverse=True)
    missing = [name for name in shown.tolist() if name not in place]
    if missing or len(shown) < 2:
        came = f"none that is {missing[0]!r}" if missing else f"{len(shown)} that was shown"
        raise invalid("names", "hold all stimuli that were shown, at least two", came)
    candidate_of = np.array([place[name] for name in shown.tolist()])
    unit_names, unit = _units(units, len(stimulus))
    orders = _orders([np.arange(len(shown))], len(shown), n_permutations, rng)
    rows = np.arange(len(stimulus))
    score = np.empty((len(unit_names), len(estimates)))
    null = np.empty((n_permutations, len(estimates)))
    for m, found in enumerate(estimates):
        matrix, width = similarity_matrix(found.astype(np.float64), np.asarray(features), similarity=similarity)
        greater, equal = _counts(matrix, width)
        credit = ((k - greater) / (1 + equal)).clip(0, 1)
        score[:, m] = _means(credit[rows, candidate_of[number]], unit, len(unit_names))
        for p, order in enumerate(orders):
            null[p, m] = _means(credit[rows, candidate_of[order[number]]], unit, len(unit_names)).mean()
    return TimeScores(
        score=score, null=null, units=unit_names, chance=min(k / len(names), 1.0), measure=f"top-{k} accuracy"
    )


def class_scores(
    probabilities: Any,
    labels: Any,
    classes: Any,
    *,
    units: Any = None,
    n_permutations: int = 1000,
    rng: np.random.Generator | None = None,
) -> TimeScores:
    """Score classes: the area under the curve, of each class against all others, averaged over classes.

    Parameters
    ----------
    probabilities : array, shape (M, N, K)
        Of each class, from each window.
    labels : sequence, length N
        The true classes.
    classes : sequence, length K
        What the last axis stands for.
    units : sequence of str, length N, optional
        Subject or run of each event: areas are computed within units. By default all are one.
    n_permutations : int
        P; 0 for none.
    rng : numpy.random.Generator, optional
        Where permutations come from.

    Returns
    -------
    TimeScores

    Raises
    ------
    ValueError
        If a unit has not all classes.

    Notes
    -----
    Of two classes it is the area under the ROC curve, of more that of scikit-learn's ``multi_class="ovr"``. Labels
    change places within units.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    classes = list(classes)
    labels = np.asarray(labels)
    check_shape("probabilities", probabilities, ("M", "N", len(classes)))
    check_shape("labels", labels, (probabilities.shape[1],))
    check_finite("probabilities", probabilities)
    unit_names, unit = _units(units, len(labels))
    one_hot = np.stack([labels == name for name in classes], axis=1)
    if not one_hot.any(axis=1).all():
        raise invalid("labels", f"be of the classes {classes}", repr(labels[~one_hot.any(axis=1)][0]))
    blocks = [np.flatnonzero(unit == u) for u in range(len(unit_names))]
    for name, block in zip(unit_names, blocks, strict=True):
        if not one_hot[block].any(axis=0).all():
            advice = "Leave it out, or join it with another."
            raise invalid("units", f"have all {len(classes)} classes each", f"fewer in {name!r}", advice)
    score = np.empty((len(blocks), len(probabilities)))
    null = np.zeros((n_permutations, len(probabilities)))
    orders = _orders(blocks, len(labels), n_permutations, rng)
    for u, block in enumerate(blocks):
        ranks = rankdata(probabilities[:, block], axis=1)
        score[u] = _areas(ranks, one_hot[block])
        for p, order in enumerate(orders):
            null[p] += _areas(ranks, one_hot[order[block]]) / len(blocks)
    return TimeScores(score=score, null=null, units=unit_names, chance=0.5, measure="area under the curve")


def _areas(ranks: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """Return the mean area over classes, shape (M,), of ranks (M, n, K) and classes (n, K) by Mann & Whitney's sum."""
    n_own = one_hot.sum(axis=0)
    above = np.einsum("mnk,nk->mk", ranks, one_hot) - n_own * (n_own + 1) / 2
    return (above / (n_own * (len(one_hot) - n_own))).mean(axis=1)


def _counts(matrix: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how many other candidates are more similar, and as similar, for each row and candidate."""
    order = np.argsort(-matrix, axis=1, kind="stable")
    ordered = np.take_along_axis(matrix, order, axis=1)
    # Scores that rounding cannot tell apart are one: a new one begins where the gap is wider.
    begins = np.ones(matrix.shape, dtype=bool)
    begins[:, 1:] = ordered[:, :-1] - ordered[:, 1:] > width
    place = np.arange(matrix.shape[1])
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    last_begins = np.ones(matrix.shape, dtype=bool)
    last_begins[:, :-1] = begins[:, 1:]
    last = np.minimum.accumulate(np.where(last_begins, place, matrix.shape[1])[:, ::-1], axis=1)[:, ::-1]
    greater, equal = np.empty(matrix.shape), np.empty(matrix.shape)
    np.put_along_axis(greater, order, first.astype(float), axis=1)
    np.put_along_axis(equal, order, (last - first).astype(float), axis=1)
    return greater, equal


def _units(units: Any, n: int) -> tuple[tuple[str, ...], np.ndarray]:
    names = np.full(n, "all") if units is None else np.asarray(units)
    check_shape("units", names, (n,), advice="The subject or run of each event.")
    if n == 0:
        raise invalid("events", "hold at least one", "none")
    found, number = np.unique(names.astype(str), return_inverse=True)
    return tuple(found.tolist()), number


def _means(values: np.ndarray, unit: np.ndarray, n_units: int) -> np.ndarray:
    return np.bincount(unit, values, n_units) / np.bincount(unit, minlength=n_units)


def _orders(blocks: list[np.ndarray], n: int, n_permutations: int, rng: np.random.Generator | None) -> list[np.ndarray]:
    """Return random orders of 0 to n - 1 that stay within blocks."""
    check_int("n_permutations", n_permutations, at_least=0)
    if n_permutations and not isinstance(rng, np.random.Generator):
        advice = "rng=np.random.default_rng(0), or n_permutations=0."
        raise invalid("rng", "be a numpy.random.Generator for permutations", rng, advice, kind=TypeError)
    orders = []
    for _ in range(n_permutations):
        order = np.arange(n)
        for block in blocks:
            order[block] = rng.permutation(block)
        orders.append(order)
    return orders
