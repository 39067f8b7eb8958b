"""Leave one run out, within each subject: no window of a tested run is learned from, or chosen on."""

# N events, K classes

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet

__all__ = ["LEARN_FROM", "RunFold", "RunScores", "cross_validate_runs", "run_folds"]

LEARN_FROM = {
    "subject": "the other runs of the same subject",
    "all": "those, and all runs of all other subjects",
}
_VALID_SHARE = 0.25  # of the end of a run, where there is no second one to choose epochs on


@dataclass(frozen=True, eq=False, kw_only=True)
class RunFold:
    """One run that is tested, and what may be used for it.

    Parameters
    ----------
    subject, recording : str
        Whose run, and which.
    train, valid, test : ndarray of int64
        Rows of the event table.
    """

    subject: str
    recording: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def run_folds(
    recordings: RecordingSet,
    events: EventTable,
    *,
    labels: str = "stimulus",
    learn_from: str = "subject",
    min_events: int = 10,
) -> Iterator[RunFold]:
    """Yield a fold for each run of each subject with at least two.

    Parameters
    ----------
    recordings : RecordingSet
        Runs: one recording each.
    events : EventTable
        N events.
    labels : str
        Runs without all classes are never tested.
    learn_from : str
        A key of `LEARN_FROM`.
    min_events : int
        Runs with fewer are not tested, and neither chosen on.

    Notes
    -----
    Epochs are chosen on the run after the tested one, in turn. With two runs, the last quarter of the other one serves:
    its windows may overlap with those before them by less than a window.
    """
    check_option("learn_from", learn_from, LEARN_FROM)
    check_int("min_events", min_events, at_least=2)
    subject_of = {recording.name: recording.subject for recording in recordings}
    whose = np.array([subject_of[name] for name in events.recording.tolist()])
    kinds = events.column(labels)
    n_kinds = len(np.unique(kinds))
    for subject in recordings.subjects:
        rows = {
            name: np.flatnonzero(events.recording == name) for name in recordings.names if subject_of[name] == subject
        }
        runs = [name for name, own in rows.items() if len(own) >= min_events and len(np.unique(kinds[own])) == n_kinds]
        for place, name in enumerate(runs):
            others = [other for other in runs if other != name]
            if not others:
                continue
            if len(others) > 1:
                valid = rows[runs[(place + 1) % len(runs)]]
            else:
                valid = rows[others[0]][-max(1, round(_VALID_SHARE * len(rows[others[0]]))) :]
            may = whose == subject if learn_from == "subject" else np.ones(len(events), dtype=bool)
            may[rows[name]] = False
            may[valid] = False
            yield RunFold(subject=subject, recording=name, train=np.flatnonzero(may), valid=valid, test=rows[name])


@dataclass(frozen=True, eq=False, kw_only=True)
class RunScores:
    """What was found of runs that were left out.

    Parameters
    ----------
    classes : tuple of str
        K.
    probability : ndarray, shape (N, K)
        For each event, NaN if its run was not tested.
    auc : dict of str to float
        Of each tested run: the area under the curve, of several classes the mean over pairs.
    valid_auc : dict of str to float
        Of the run that chose the epochs: what settings may be compared by.
    subject : dict of str to str
        Of each tested run.
    """

    classes: tuple[str, ...]
    probability: np.ndarray
    auc: dict[str, float]
    valid_auc: dict[str, float]
    subject: dict[str, str]

    def by_subject(self, of: str = "auc") -> dict[str, float]:
        """Return the mean over runs of each subject; of ``"valid_auc"`` likewise."""
        values = getattr(self, check_option("of", of, ("auc", "valid_auc")))
        subjects = dict.fromkeys(self.subject.values())
        return {who: float(np.mean([v for run, v in values.items() if self.subject[run] == who])) for who in subjects}

    def mean(self, of: str = "auc") -> float:
        """Return the mean over subjects."""
        return float(np.mean(list(self.by_subject(of).values())))


def cross_validate_runs(
    make: Callable[[], Any],
    recordings: RecordingSet,
    events: EventTable,
    *,
    labels: str = "stimulus",
    learn_from: str = "subject",
    min_events: int = 10,
    n_jobs: int = 1,
    progress: bool = False,
) -> RunScores:
    """Fit a classifier for each run without that run, and test it there.

    Parameters
    ----------
    make : callable
        Returns a new `BrainClassifier` or `LinearClassifier`.
    recordings, events, labels, learn_from, min_events
        As for `run_folds`.
    n_jobs : int
        Runs at a time, in processes of their own if there are several; the numbers are the same.
    progress : bool
        Show a bar.

    Returns
    -------
    RunScores
    """
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    check_int("n_jobs", n_jobs, at_least=1)
    folds = list(run_folds(recordings, events, labels=labels, learn_from=learn_from, min_events=min_events))
    if not folds:
        came = f"{len(recordings)} runs of {len(recordings.subjects)} subjects"
        raise invalid("recordings", "hold two runs of a subject with both classes", came)
    kinds = events.column(labels)
    classes = tuple(np.unique(kinds).tolist())
    number = np.searchsorted(np.array(classes), kinds)
    probability = np.full((len(events), len(classes)), np.nan)
    auc: dict[str, float] = {}
    valid_auc: dict[str, float] = {}
    tasks = (delayed(_one_fold)(make, recordings, events, labels, fold) for fold in folds)
    found = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    for fold, (known, tested, chosen) in zip(folds, tqdm(found, "runs", len(folds), disable=not progress), strict=True):
        if known != classes:
            raise invalid("events", "have all classes in each training set", f"{known}")
        probability[fold.test] = tested
        auc[fold.recording] = _area(number[fold.test], tested)
        valid_auc[fold.recording] = _area(number[fold.valid], chosen)
    return RunScores(
        classes=classes, probability=probability, auc=auc, valid_auc=valid_auc,
        subject={fold.recording: fold.subject for fold in folds},
    )  # fmt: skip


def _one_fold(
    make: Callable[[], Any], recordings: RecordingSet, events: EventTable, labels: str, fold: RunFold
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return the classes, and their probabilities for the tested run and for the one that chose."""
    import torch

    # Such networks are too small for a second thread; and sums are the same, however many folds run at a time.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        classifier = make().fit(recordings, events.select(fold.train), events.select(fold.valid), labels=labels)
        tested, chosen = (classifier.predict_proba(recordings, events.select(rows)) for rows in (fold.test, fold.valid))
    finally:
        torch.set_num_threads(threads)
    return classifier.classes_, tested, chosen


def _area(number: np.ndarray, probability: np.ndarray) -> float:
    """Return the area under the curve, NaN if there is one class only."""
    from sklearn.metrics import roc_auc_score

    n_classes = probability.shape[1]
    if len(np.unique(number)) < n_classes:
        return float("nan")
    if n_classes == 2:
        return float(roc_auc_score(number, probability[:, 1]))
    return float(roc_auc_score(number, probability, multi_class="ovo", labels=np.arange(n_classes)))
