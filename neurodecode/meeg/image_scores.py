"""How good a decoder of seen images is: retrieval among small, large and enlarged sets, with intervals and p."""

# N presentations, Q queries, I candidates, F features

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.meeg.images import ImageDecoder, features_of
from neurodecode.scoring.intervals import Interval, hierarchical_interval
from neurodecode.scoring.permutation import PermutationTest, permutation_test
from neurodecode.scoring.retrieval import Retrieval, retrieve
from neurodecode.scoring.similarity import similarity_matrix
from neuroloaders.checks import check_int, check_option, check_same_length, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_targets import StimulusFeatures

__all__ = ["AVERAGES", "ImageEvaluation", "average_estimates", "evaluate_images", "score_images"]

_KS = (1, 5, 10)


def _each(subject: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.arange(len(image))


def _repetitions(subject: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.unique(np.stack([subject, image], axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _all(subject: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.unique(image, return_inverse=True)[1].reshape(-1)


AVERAGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    # Each presentation by itself: what can be had live.
    "none": _each,
    # Over the repetitions of an image in a subject, as most numbers of Benchetrit et al. 2023.
    "repetitions": _repetitions,
    # Over repetitions and subjects: one query for each image.
    "all": _all,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageEvaluation:
    """What `evaluate_images` found.

    Parameters
    ----------
    retrieval : Retrieval
        Of each query.
    image, subject : ndarray of str, shape (Q,)
        Of each query; the subject is "all" where subjects were averaged.
    average : str
        A key of `AVERAGES`.
    n_candidates : int
        Images to choose from.
    intervals : dict of str to Interval
        Of "top-1", "top-5" and "top-10": over subjects and images, crossed; with one subject, over images.
    permutation : PermutationTest
        Of top-5, when images change places.
    """

    retrieval: Retrieval
    image: np.ndarray
    subject: np.ndarray
    average: str
    n_candidates: int
    intervals: dict[str, Interval]
    permutation: PermutationTest

    def top_k(self, k: int) -> float:
        """Return the mean over subjects of the share of images among the k nearest."""
        hit = np.asarray(self.retrieval.top_k(k))
        return float(np.mean([hit[self.subject == who].mean() for who in np.unique(self.subject)]))

    @property
    def median_relative_rank(self) -> float:
        """The median over queries: 0 is best, 0.5 chance."""
        return float(np.median(self.retrieval.relative_rank))

    def chance(self, k: int) -> float:
        """Return what `top_k` is by chance."""
        return self.retrieval.chance(k)

    def as_rows(self) -> list[dict[str, Any]]:
        """Return a row for each subject, and one for all."""
        rows = []
        for who in [*np.unique(self.subject).tolist(), None]:
            mine = np.ones(len(self.subject), dtype=bool) if who is None else self.subject == who
            row: dict[str, Any] = {"subject": "mean" if who is None else who, "queries": int(mine.sum())}
            for k in _KS:
                hit = np.asarray(self.retrieval.top_k(k))
                row[f"top-{k}"] = self.top_k(k) if who is None else float(hit[mine].mean())
            row["median relative rank"] = float(np.median(np.asarray(self.retrieval.relative_rank)[mine]))
            rows.append(row)
        return rows

    def __str__(self) -> str:
        lines = [f"{len(self.image)} queries among {self.n_candidates} images, averaged: {self.average}"]
        lines += [f"top-{k}: {self.intervals[f'top-{k}']}, chance {self.chance(k):.3f}" for k in _KS]
        lines.append(f"median relative rank {self.median_relative_rank:.3f}; top-5 p = {self.permutation.p:.3g}")
        return "\n".join(lines)


def average_estimates(
    estimates: Any, image: Any, subject: Any, average: str = "repetitions"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average what a decoder said of presentations, before anything is compared.

    Parameters
    ----------
    estimates : array, shape (N, F)
        Of each presentation.
    image, subject : array of str, shape (N,)
        What was shown, and to whom.
    average : str
        A key of `AVERAGES`.

    Returns
    -------
    estimates : ndarray of float64, shape (Q, F)
        Their means.
    image, subject : ndarray of str, shape (Q,)
        Of each; the subject is "all" if those of several were averaged.
    """
    estimates = np.asarray(estimates, dtype=np.float64)
    image, subject = np.asarray(image, dtype=str), np.asarray(subject, dtype=str)
    check_same_length(estimates=estimates, image=image, subject=subject)
    number = AVERAGES[check_option("average", average, AVERAGES)](subject, image)
    _, first = np.unique(number, return_index=True)
    total = np.zeros((len(first), estimates.shape[1]))
    np.add.at(total, number, estimates)
    whose = subject[first] if average != "all" else np.full(len(first), "all")
    return total / np.bincount(number)[:, None], image[first], whose


def score_images(
    estimates: Any,
    image: Any,
    subject: Any,
    names: Any,
    features: Any,
    *,
    average: str = "repetitions",
    n_permutations: int = 1000,
    rng: np.random.Generator,
) -> ImageEvaluation:
    """Look for the image of each estimate among candidates, by cosine.

    Parameters
    ----------
    estimates : array, shape (N, F)
        What a decoder said of presentations.
    image, subject : array of str, shape (N,)
        What was shown, and to whom.
    names : array of str, shape (I,)
        Candidates, each once, those that were shown among them.
    features : array, shape (I, F)
        Of the candidates, in the scale of the estimates.
    average : str
        A key of `AVERAGES`.
    n_permutations : int
        Of the test.
    rng : numpy.random.Generator
        For intervals and permutations.

    Returns
    -------
    ImageEvaluation
    """
    check_int("n_permutations", n_permutations, at_least=1)
    names = np.asarray(names, dtype=str)
    place = {name: number for number, name in enumerate(names.tolist())}
    if len(place) < len(names):
        raise invalid("names", "hold each candidate once", "one twice")
    found, shown, whose = average_estimates(estimates, image, subject, average)
    missing = sorted(set(shown.tolist()) - set(place))
    if missing:
        raise invalid("names", "hold all images that were shown", f"none that is {missing[0]!r}")
    features = np.asarray(features)
    target = np.array([place[name] for name in shown.tolist()])
    retrieval = retrieve(found, features, target)
    several = len(np.unique(whose)) > 1
    design = {"items": shown, "design": "crossed"} if several else {}
    intervals = {
        f"top-{k}": hierarchical_interval(
            np.asarray(retrieval.top_k(k)), whose if several else shown, rng=rng, **design
        )
        for k in _KS
    }
    # Which candidates are among the five nearest of each query: then a permutation is a lookup.
    scores, width = similarity_matrix(found, features, similarity="cosine")
    k = min(5, len(names))
    border = np.partition(scores, len(names) - k, axis=1)[:, len(names) - k]
    near = scores >= border[:, None] - width
    test = permutation_test(
        lambda rows: float(near[np.arange(len(target)), target[rows]].mean()), len(target), groups=shown,
        n_permutations=n_permutations, rng=rng,
    )  # fmt: skip
    return ImageEvaluation(
        retrieval=retrieval, image=shown, subject=whose, average=average, n_candidates=len(names),
        intervals=intervals, permutation=test,
    )  # fmt: skip


def evaluate_images(
    decoder: ImageDecoder,
    recordings: RecordingSet,
    events: EventTable,
    targets: StimulusFeatures,
    *,
    more: Iterable[str] = (),
    average: str = "repetitions",
    n_permutations: int = 1000,
    rng: np.random.Generator,
) -> ImageEvaluation:
    """Return how well a decoder finds the images of some presentations among all of them.

    Parameters
    ----------
    decoder : ImageDecoder or LinearImageDecoder
        Trained.
    recordings : RecordingSet
        Those of the presentations.
    events : EventTable
        Presentations: those of the small test set, ``split.select(events, "test")``, or of the large one.
    targets : StimulusFeatures
        Embeddings of their images, and of `more`.
    more : iterable of str
        Images that nobody saw, to enlarge the set of candidates.
    average : str
        A key of `AVERAGES`.
    n_permutations : int
        Of the test of top-5.
    rng : numpy.random.Generator
        For intervals and permutations.

    Returns
    -------
    ImageEvaluation
    """
    names = np.unique(np.concatenate([events.stimulus, np.array([str(name) for name in more], dtype=str)]))
    subject_of = {recording.name: recording.subject for recording in recordings}
    subject = np.array([subject_of[name] for name in events.recording.tolist()])
    features = decoder.standardised(features_of(targets, names)).numpy()
    return score_images(
        decoder.predict(recordings, events), events.stimulus, subject, names, features, average=average,
        n_permutations=n_permutations, rng=rng,
    )  # fmt: skip
