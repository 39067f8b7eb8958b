"""The linear way to decode moments: a ridge regression or a discriminant analysis for each window and subject."""

# M windows, N events, C channels, F features, K classes

from __future__ import annotations

from typing import Any

import numpy as np

from neurodecode.meeg.time_config import TimeConfig
from neurodecode.meeg.time_spans import SpanDecoder
from neurodecode.meeg.time_windows import TimeWindows
from neurodecode.ridge import MultiTargetRidge
from neuroloaders.checks import invalid
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_targets import StimulusFeatures

__all__ = ["LinearTimeDecoder"]

_ALPHAS = tuple(float(f"{alpha:.4g}") for alpha in np.logspace(-1, 8, 19))


class LinearTimeDecoder(SpanDecoder):
    """All samples of a window as one row of numbers: ridge regression for features, discriminant analysis for classes.

    Parameters
    ----------
    config : TimeConfig
        The span and its scale; what belongs to networks is not used.
    windows : TimeWindows
        M windows.
    learn_from_valid : bool
        Learn from the part "valid" too, which a network chooses its epochs on: a linear way has no other use for it.

    Attributes
    ----------
    estimators_ : dict of str to list
        For each subject of the training, one estimator a window.
    classes_, subjects_, scaler_
        As of `TimeResolvedDecoder`.

    Notes
    -----
    Estimators are within subjects. The penalty of the ridge is chosen by cross-validation over training stimuli, all
    presentations of one together. The discriminant analysis shrinks the covariance as Ledoit & Wolf [1]_ do. Scale,
    means and covariances are those of training events; the scale of the part "train" alone.

    References
    ----------
    .. [1] Ledoit & Wolf, Journal of Multivariate Analysis 88 (2004), doi:10.1016/S0047-259X(03)00096-4.
    """

    def __init__(self, config: TimeConfig, windows: TimeWindows, *, learn_from_valid: bool = True) -> None:
        super().__init__(config, windows)
        self.learn_from_valid = bool(learn_from_valid)

    def fit(
        self,
        recordings: RecordingSet,
        events: EventTable,
        targets: StimulusFeatures | None = None,
        split: Any = None,
        *,
        labels: str | None = None,
        progress: bool = False,
    ) -> LinearTimeDecoder:
        """Fit to the training events; the parameters are those of `TimeResolvedDecoder.fit`."""
        from tqdm.auto import tqdm

        tables = self._begin(recordings, events, targets, split, labels)
        table = concatenate_events(list(tables.values())) if self.learn_from_valid else tables["train"]
        x, subject, y = self._spans(recordings, table, targets=targets, labels=labels)
        places = self._places(self.windows)
        self.estimators_: dict[str, list[Any]] = {}
        self.n_outputs_ = len(self.classes_) if targets is None else y.shape[1]
        for number in tqdm(np.unique(subject).tolist(), desc="subjects", disable=not progress):
            own = subject == number
            found = []
            for place, length in zip(places, self.windows.n_times, strict=True):
                rows = _flat(x[own], place, length)
                if targets is None:
                    found.append(_discriminant(rows, y[own], self.subjects_[number]))
                else:
                    found.append(_ridge(rows, y[own], table.stimulus[own]))
            self.estimators_[self.subjects_[number]] = found
        return self

    def predict(self, recordings: RecordingSet, events: EventTable) -> np.ndarray:
        """Return what each window says of each event: features in the scale of `candidates`, or probabilities.

        Parameters
        ----------
        recordings : RecordingSet
            Of subjects of the training, known to `scaler_`.
        events : EventTable
            N events; their stimuli are not looked at.

        Returns
        -------
        ndarray of float32, shape (M, N, F) or (M, N, K)
        """
        self._check_fitted()
        x, subject, _ = self._spans(recordings, events)
        places = self._places(self.windows)
        out = np.zeros((len(self.windows), len(events), self.n_outputs_), dtype=np.float32)
        for number in np.unique(subject).tolist():
            name = recordings.subjects[number]
            if name not in self.estimators_:
                raise invalid("events", "be of subjects with training events", repr(name), "It is fitted within them.")
            own = np.flatnonzero(subject == number)
            for m, estimator in enumerate(self.estimators_[name]):
                rows = _flat(x[own], places[m], self.windows.n_times[m])
                if self.classes_ is None:
                    out[m, own] = estimator.predict(rows)
                else:
                    # Of classes that a subject was not shown in training the probability is 0.
                    out[m][np.ix_(own, estimator.classes_)] = estimator.predict_proba(rows)
        return out

    def _spans(
        self,
        recordings: RecordingSet,
        events: EventTable,
        *,
        targets: StimulusFeatures | None = None,
        labels: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return spans (N, C, T), subjects (N,), and features (N, F) or numbers of classes (N,)."""
        classes = None if labels is None else self.classes_
        loader = self.loader(recordings, events, batch_size=256, targets=targets, labels=labels, classes=classes)
        batches = list(loader)
        x, subject = (np.concatenate([getattr(b, name).numpy() for b in batches]) for name in ("x", "subject"))
        y = None
        if targets is not None:
            y = np.concatenate([batch.target.flatten(1).float().numpy() for batch in batches])
            y = (y - self.center_) / self.scale_
        elif labels is not None:
            y = np.concatenate([batch.label.numpy() for batch in batches])
        return x, subject, y


def _flat(x: np.ndarray, place: int, length: int) -> np.ndarray:
    return x[:, :, place : place + length].reshape(len(x), -1)


def _ridge(rows: np.ndarray, y: np.ndarray, stimuli: np.ndarray) -> MultiTargetRidge:
    n_stimuli = len(np.unique(stimuli))
    if n_stimuli < 2:
        raise invalid("events", "show at least two stimuli to each subject", f"{n_stimuli}")
    ridge = MultiTargetRidge(
        alphas=_ALPHAS, select="group-kfold", alpha_per="all", n_splits=min(5, n_stimuli), bad_features="drop"
    )
    return ridge.fit(rows.astype(np.float64), y.astype(np.float64), groups=stimuli)


def _discriminant(rows: np.ndarray, y: np.ndarray, subject: str) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if len(np.unique(y)) < 2:
        raise invalid("events", f"show at least two classes to subject {subject!r} in training", "one")
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(rows.astype(np.float64), y)
