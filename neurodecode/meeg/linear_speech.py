"""The linear decoder of speech: ridge regression from lagged sensors to features, one for each subject."""

# B windows, C channels, F features, T samples

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.meeg.lagged_ridge import LaggedRidge
from neurodecode.meeg.segments import fit_feature_scale
from neurodecode.meeg.speech import SpeechDecoder
from neurodecode.meeg.speech_config import SpeechConfig
from neurodecode.meeg.speech_windows import grid_windows
from neuroloaders.block_splits import BlockSplit
from neuroloaders.checks import check_number, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_targets import StimulusSequences

__all__ = ["LinearSpeechDecoder", "disjoint_windows", "rows_of", "training_windows"]


class LinearSpeechDecoder(SpeechDecoder):
    """A ridge regression for each subject, from some hundred milliseconds of all sensors to each sample of features.

    Parameters
    ----------
    config : SpeechConfig, optional
        Window, scaling and lag, as of the network it is compared with; what belongs to networks is not used.
    lags_s : (float, float)
        From when to when after the sound the brain is looked at, in s, both included. Samples after the end of the
        window are not seen, as by the network.
    step_s : float
        Distance of the samples that are looked at, in s. The recordings are not filtered for it.
    max_rows : int
        Training samples of a subject, at most.
    seed : int
        Which windows are left out.

    Attributes
    ----------
    ridges_ : dict of str to LaggedRidge
        For each subject.

    Notes
    -----
    The backward model of auditory attention research (Crosse et al. 2016 [1]_), with the penalty by cross-validation
    over whole blocks of speech. Training windows do not overlap. It takes the same windows, and is scored by the same
    retrieval, as `SpeechDecoder`.

    References
    ----------
    .. [1] Crosse, Di Liberto, Bednar & Lalor, Frontiers in Human Neuroscience 10 (2016),
       doi:10.3389/fnhum.2016.00604.
    """

    def __init__(
        self,
        config: SpeechConfig | None = None,
        *,
        lags_s: tuple[float, float] = (0.0, 0.4),
        step_s: float = 0.025,
        max_rows: int = 50_000,
        seed: int = 0,
    ) -> None:
        super().__init__(config)
        low, high = (check_number("lags_s", lag) for lag in lags_s)
        if high < low:
            raise invalid("lags_s", "be from when to when", f"{tuple(lags_s)}")
        self.lags_s, self.step_s = (low, high), check_number("step_s", step_s, above=0)
        self.max_rows, self.seed = max_rows, seed

    # No run_dir and no device: nothing is trained step by step. A checker holds that against a subclass.
    def fit(  # type: ignore[override]
        self,
        recordings: RecordingSet,
        events: EventTable,
        targets: StimulusSequences,
        split: BlockSplit,
        *,
        progress: bool = False,
    ) -> LinearSpeechDecoder:
        """Fit a ridge to the training blocks of each subject; the parameters are those of `SpeechDecoder.fit`."""
        from tqdm.auto import tqdm

        self.sfreq_, self.subjects_, self.temperature_ = recordings.sfreq, recordings.subjects, 1.0
        windows, self.scaler_ = training_windows(self, recordings, events, split)
        self.feature_scale_ = None
        self.feature_scale_ = fit_feature_scale(self.segments(windows, targets), self.config.feature_scale)
        segments = self.segments(windows, targets)
        self.n_features_ = segments.shape[1]
        step = max(1, round(self.step_s * self.sfreq_))
        lags = range(round(self.lags_s[0] * self.sfreq_), round(self.lags_s[1] * self.sfreq_) + 1, step)
        self.ridges_ = {}
        for subject in tqdm(self.subjects_, desc="subjects", disable=not progress):
            rows = rows_of(recordings, windows, subject)
            if len(rows) == 0:
                continue
            loader = self.loader(recordings, windows.select(rows))
            number, block = torch.from_numpy(segments.number[rows]), windows.extra["block"][rows]
            pairs = ((batch.x, segments.features(number[batch.event]), block[batch.event]) for batch in loader)
            ridge = LaggedRidge(lags, max_rows=self.max_rows, seed=self.seed)
            self.ridges_[subject] = ridge.fit(pairs, len(rows))
        return self

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def to(self, device: Any) -> LinearSpeechDecoder:
        """Return itself, if `device` is the CPU."""
        if torch.device(device).type != "cpu":
            raise invalid("device", "be the CPU for a linear decoder", repr(str(device)))
        return self

    def estimates(
        self, recordings: RecordingSet, windows: EventTable, *, batch_size: int = 128
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield estimates of windows, some at a time, as `SpeechDecoder.estimates`."""
        if not hasattr(self, "ridges_"):
            raise invalid("decoder", "be trained", "one that is not", "Call fit() first.")
        n_times = self.config.n_times(self.sfreq_)
        for subject in dict.fromkeys(recordings.subjects):
            rows = rows_of(recordings, windows, subject)
            if len(rows) == 0:
                continue
            if subject not in self.ridges_:
                advice = "A linear decoder is of one subject: fit it to this one too."
                raise invalid("windows", "be of subjects it was trained on", repr(subject), advice)
            for batch in self.loader(recordings, windows.select(rows), batch_size=batch_size):
                found = self.ridges_[subject].predict(batch.x, n_times)
                yield rows[batch.event.numpy()], torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))

    def save(self, folder: Any) -> None:
        """Not offered: it is fitted in seconds."""
        raise invalid("decoder", "be a network to be saved", "a linear decoder", "Fit it again: it takes seconds.")

    def copy(self) -> LinearSpeechDecoder:
        """Return a copy that shares the ridges."""
        return copy.copy(self)


def disjoint_windows(
    decoder: SpeechDecoder, recordings: RecordingSet, events: EventTable, split: BlockSplit, part: str
) -> EventTable:
    """Return windows of a part, as long as those of `decoder`, that do not overlap."""
    config = decoder.config
    length = config.tmax - config.tmin + 1 / recordings.sfreq
    return grid_windows(recordings, events, split, part, tmin=config.tmin, tmax=config.tmax, step_s=length)


def training_windows(
    decoder: SpeechDecoder, recordings: RecordingSet, events: EventTable, split: BlockSplit
) -> tuple[EventTable, Any]:
    """Return training windows that do not overlap, and the scale of their recordings."""
    windows = disjoint_windows(decoder, recordings, events, split, "train")
    return windows, WindowLoader(recordings, windows, scale="robust", **decoder._window()).scaler


def rows_of(recordings: RecordingSet, windows: EventTable, subject: str) -> np.ndarray:
    """Return the numbers of the windows of a subject."""
    names = [recording.name for recording in recordings if recording.subject == subject]
    return np.flatnonzero(np.isin(windows.recording, names))
