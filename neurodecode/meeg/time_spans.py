"""What decoders of moments share: the spans that windows are cut from, their scale, and who learns from what."""

# M windows, N events, S subjects, C channels, T samples of the span, F features, K classes

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neurodecode.meeg.images import features_of
from neurodecode.meeg.time_config import TimeConfig
from neurodecode.meeg.time_windows import TimeWindows
from neuroloaders.checks import check_int, check_option, check_shape, invalid
from neuroloaders.events_table import COLUMNS, EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.robust_scaler import RobustScaler, robust_scale
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_targets import StimulusFeatures

__all__ = ["SpanDecoder", "parts_of", "subject_scaler"]

_MANY = 200  # windows that a scale is fitted to, at most, as in WindowLoader.fit_scaler


class SpanDecoder:
    """Base: a decoder of features or classes from each of several windows.

    Parameters
    ----------
    config : TimeConfig
        Settings.
    windows : TimeWindows
        M windows, in the span of `config`.
    """

    def __init__(self, config: TimeConfig, windows: TimeWindows) -> None:
        if not isinstance(config, TimeConfig):
            raise invalid("config", "be a TimeConfig", config, kind=TypeError)
        if not isinstance(windows, TimeWindows):
            advice = "sliding_windows(...) and growing_windows(...) make some."
            raise invalid("windows", "be TimeWindows", windows, advice, kind=TypeError)
        windows.places(config.tmin, config.tmax, windows.sfreq)
        self.config, self.windows = config, windows

    def loader(self, recordings: RecordingSet, events: EventTable, **options: Any) -> WindowLoader:
        """Return a `WindowLoader` of whole spans, prepared as in training."""
        config = self.config
        if recordings.sfreq != self.windows.sfreq:
            came = f"{recordings.sfreq:g} Hz"
            raise invalid("recordings", f"be sampled at {self.windows.sfreq:g} Hz, as the windows", came)
        settings: dict[str, Any] = {
            "tmin": config.tmin, "tmax": config.tmax, "baseline": config.baseline, "clamp": config.clamp,
            "scale": self.scaler_, **options,
        }  # fmt: skip
        return WindowLoader(recordings, events, **settings)

    def _begin(
        self,
        recordings: RecordingSet,
        events: EventTable,
        targets: StimulusFeatures | None,
        split: Any,
        labels: str | None,
    ) -> dict[str, EventTable]:
        """Learn subjects, classes and scale, and return the events of each part."""
        config = self.config
        if (targets is None) == (labels is None):
            advice = "targets=StimulusFeatures(...) decodes features, labels='stimulus' classes."
            raise invalid("targets", "be given, or `labels`, and not both", "both" if labels else "none", advice)
        if targets is not None and not isinstance(targets, StimulusFeatures):
            raise invalid("targets", "be StimulusFeatures", targets, kind=TypeError)
        part = parts_of(split, events)
        tables = {name: events.select(part == name) for name in ("train", "valid")}
        for name, table in tables.items():
            if len(table) == 0:
                raise invalid("split", f"hold events of the part {name!r}", "none")
        self.sfreq_, self.subjects_, self.labels_ = recordings.sfreq, recordings.subjects, labels
        self.classes_: tuple[str, ...] | None = None
        self.center_ = self.scale_ = None
        if targets is not None:
            # Over training stimuli, each counted once.
            values = features_of(targets, np.unique(tables["train"].stimulus)).double().numpy()
            spread = values.std(axis=0)
            if config.feature_scale == "none":
                values, spread = np.zeros_like(values), np.ones_like(spread)
            self.center_ = values.mean(axis=0).astype(np.float32)
            self.scale_ = np.where(spread > 0, spread, 1.0).astype(np.float32)
        if labels is not None:
            check_option("labels", labels, [*COLUMNS, *events.extra])
            self.classes_ = tuple(np.unique(tables["train"].column(labels)).tolist())
            if len(self.classes_) < 2:
                came = f"{len(self.classes_)} in the column {labels!r}"
                raise invalid("events", "be of at least two classes in training", came)
        span = {"tmin": config.tmin, "tmax": config.tmax, "baseline": config.baseline}
        if config.scale_by == "subject":
            self.scaler_ = subject_scaler(recordings, tables["train"], **span)
        else:
            self.scaler_ = WindowLoader(recordings, tables["train"], scale="robust", **span).scaler
        return tables

    def candidates(self, targets: StimulusFeatures, names: Any) -> np.ndarray:
        """Return features of stimuli in the scale of the estimates, float32, shape (I, F).

        Parameters
        ----------
        targets : StimulusFeatures
            Features.
        names : sequence of str, length I
            Stimuli.
        """
        self._check_fitted()
        values = features_of(targets, np.asarray(names, dtype=str)).numpy()
        if self.center_ is None or values.shape[1] != len(self.center_):
            came = f"{values.shape[1]}"
            raise invalid("targets", f"have {0 if self.center_ is None else len(self.center_)} features", came)
        return (values - self.center_) / self.scale_

    def _subject_numbers(self, recordings: RecordingSet) -> list[int]:
        known = {name: number for number, name in enumerate(self.subjects_)}
        return [known.get(name, -1) for name in recordings.subjects]

    def _places(self, windows: TimeWindows) -> np.ndarray:
        return windows.places(self.config.tmin, self.config.tmax, self.sfreq_)

    def _check_fitted(self) -> None:
        if not hasattr(self, "scaler_"):
            raise invalid("self", "be fitted", "a decoder that is not", "Call fit() first.", kind=AttributeError)


def parts_of(split: Any, events: EventTable) -> np.ndarray:
    """Return the part of each event, shape (N,), of a split with ``parts_of(events)`` or of an array of parts."""
    part = split.parts_of(events) if hasattr(split, "parts_of") else np.asarray(split)
    if part.dtype.kind != "U":
        advice = "One of 'train', 'valid', 'test' and '' for each event."
        raise invalid("split", "have parts_of(events), or be parts as text", split, advice, kind=TypeError)
    return check_shape("split", part, (len(events),), advice="The part of each event.")


def subject_scaler(
    recordings: RecordingSet,
    events: EventTable,
    *,
    tmin: float,
    tmax: float,
    baseline: tuple[float | None, float | None] | None = None,
    n_windows: int = _MANY,
) -> RobustScaler:
    """Return one center and scale a channel for each subject, for all of the subject's recordings.

    Parameters
    ----------
    recordings : RecordingSet
        All recordings of a subject have the same channels.
    events : EventTable
        Training events.
    tmin, tmax, baseline
        As for `WindowLoader`.
    n_windows : int
        How many windows of a subject are looked at, at even steps through his events; all, if there are fewer.

    Returns
    -------
    RobustScaler
        Of the recordings of all subjects with events, those without any events too: a run that is left out is scaled by
        numbers that do not depend on it.
    """
    check_int("n_windows", n_windows, at_least=1)
    subject_of = {recording.name: recording.subject for recording in recordings}
    whose = np.array([subject_of.get(name, "") for name in events.recording.tolist()])
    center, scale, ch_names = {}, {}, {}
    for subject in recordings.subjects:
        rows = np.flatnonzero(whose == subject)
        own = [recording for recording in recordings if recording.subject == subject]
        if len(rows) == 0:
            continue
        if len({recording.ch_names for recording in own}) > 1:
            advice = "Use scale_by='recording', or pick channels that all have."
            raise invalid("recordings", f"have the same channels within subject {subject!r}", "others", advice)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), n_windows)).round().astype(int)]
        loader = WindowLoader(RecordingSet(own), events.select(rows), tmin=tmin, tmax=tmax, baseline=baseline)
        x = torch.cat([batch.x for batch in loader]).transpose(1, 2).flatten(0, 1).numpy()
        found = robust_scale(x)
        for recording in own:
            center[recording.name], scale[recording.name] = found
            ch_names[recording.name] = recording.ch_names
    return RobustScaler(center=center, scale=scale, ch_names=ch_names, baseline=baseline)
