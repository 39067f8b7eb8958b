"""What retrieval reaches without the brain, or with a brain that heard something else: the controls of the field.

Each control gives estimates for the same trials, which go through the same retrieval as those of the decoder.
"""

# N windows, F features, T samples, p descriptors of a position

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurodecode.meeg.lagged_ridge import LaggedRidge
from neurodecode.meeg.linear_speech import LinearSpeechDecoder
from neurodecode.meeg.segments import Segments
from neurodecode.meeg.speech import SpeechDecoder
from neurodecode.meeg.speech_windows import shifted
from neuroloaders.block_splits import BlockSplit
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_targets import StimulusSequences

__all__ = ["CONTROLS", "ControlSetting", "position_descriptors"]

Estimates = Iterator[tuple[np.ndarray, Tensor]]

# Words of a sentence that have a descriptor each; those after it share one.
_N_PLACES = 10
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class ControlSetting:
    """What a control may use.

    Parameters
    ----------
    decoder : SpeechDecoder
        The decoder that is controlled for.
    recordings, events, targets, split
        What it was trained on, and is tested on.
    windows : EventTable
        The N test windows.
    segments : Segments
        The candidates.
    envelope : StimulusSequences or None
        Envelope of each sound: one feature, at the rate of the features.
    shift_s : float
        By how much brain and sound are moved apart, in s.
    batch_size : int
        Windows at a time.
    """

    decoder: SpeechDecoder
    recordings: RecordingSet
    events: EventTable
    targets: StimulusSequences
    split: BlockSplit
    windows: EventTable
    segments: Segments
    envelope: StimulusSequences | None
    shift_s: float
    batch_size: int

    def train_windows(self) -> EventTable:
        """Return windows around the words of the training blocks."""
        return self.decoder.windows(self.recordings, self.events, self.split, "train", words=True)


def position_descriptors(windows: EventTable) -> np.ndarray:
    """Describe where in its sentence each window begins, float64, shape (N, 13).

    Parameters
    ----------
    windows : EventTable
        From `neurodecode.meeg.word_windows`.

    Returns
    -------
    ndarray
        A constant; which of the first nine words, or a later one; seconds since the sentence began, and their square.
        Nothing of how the sentence goes on.
    """
    index, since = windows.extra["word_index"], np.nan_to_num(windows.extra["sentence_start"])
    place = (np.minimum(index, _N_PLACES - 1)[:, None] == np.arange(_N_PLACES)).astype(np.float64)
    return np.column_stack([np.ones(len(index)), place, since, since**2])


def _position(setting: ControlSetting) -> Estimates:
    """Estimate the mean sound at a place in a sentence: what is alike in all sentences."""
    decoder, train = setting.decoder, setting.train_windows()
    heard = decoder.segments(train, setting.targets, device="cpu")
    x = position_descriptors(train.select(heard.first))
    gram, moment, first = np.eye(x.shape[1]), 0.0, 0
    for piece in heard.pieces():
        rows = x[first : first + len(piece)]
        gram += rows.T @ rows
        moment = moment + rows.T @ piece.flatten(1).double().numpy()
        first += len(piece)
    weights = np.linalg.solve(gram, moment)
    for rows in _pieces(len(setting.windows), setting.batch_size):
        found = position_descriptors(setting.windows.select(rows)) @ weights
        yield rows, torch.from_numpy(found.astype(np.float32)).reshape(len(rows), *heard.shape[1:])


def _envelope(setting: ControlSetting) -> Estimates:
    """Decode the envelope from the brain by a ridge, and features from that envelope by another."""
    decoder, config = setting.decoder, setting.decoder.config
    of_brain = LinearSpeechDecoder(config)
    of_brain.fit(setting.recordings, setting.events, setting.envelope, setting.split)
    to_features = _from_envelope(setting, of_brain)
    n_times = config.n_times(decoder.sfreq_)
    for rows, found in of_brain.estimates(setting.recordings, setting.windows, batch_size=setting.batch_size):
        yield rows, torch.from_numpy(to_features.predict(found, n_times).astype(np.float32))


def _heard_envelope(setting: ControlSetting) -> Estimates:
    """Estimate features from the envelope of the sound itself: the most that an envelope can tell."""
    decoder = setting.decoder
    linear = LinearSpeechDecoder(decoder.config)
    linear.sfreq_, linear.feature_scale_ = decoder.sfreq_, None
    to_features = _from_envelope(setting, linear)
    true = linear.segments(setting.windows, setting.envelope)
    for rows in _pieces(len(setting.windows), setting.batch_size):
        found = to_features.predict(true[true.number[rows]], true.shape[2])
        yield rows, torch.from_numpy(found.astype(np.float32))


def _from_envelope(setting: ControlSetting, linear: LinearSpeechDecoder) -> LaggedRidge:
    """Return the ridge from envelopes, as `linear` scales them, to features, a quarter of a second to both sides."""
    train = setting.train_windows()
    features = setting.decoder.segments(train, setting.targets, device="cpu")
    # One window of each segment, and both tables in that order.
    once = train.select(features.first)
    features = setting.decoder.segments(once, setting.targets, device="cpu")
    envelopes = linear.segments(once, setting.envelope, device="cpu")
    reach = round(0.25 * setting.decoder.sfreq_)
    pairs = (
        (envelopes[envelopes.number[rows]], features[features.number[rows]], once.extra["block"][rows])
        for rows in _pieces(len(once), _BATCH)
    )
    return LaggedRidge(range(-reach, reach + 1)).fit(pairs, len(once))


def _shifted(setting: ControlSetting) -> Estimates:
    """Let the decoder look at the brain some seconds away from the sound."""
    config = setting.decoder.config
    moved = shifted(setting.recordings, setting.windows, setting.shift_s, tmin=config.tmin, tmax=config.tmax)
    place = moved.extra["row"]
    for rows, found in setting.decoder.estimates(setting.recordings, moved, batch_size=setting.batch_size):
        yield place[rows], found


# Name -> (function that yields estimates, whether it needs the envelope).
CONTROLS: dict[str, tuple[Callable[[ControlSetting], Estimates], bool]] = {
    "position": (_position, False),
    "envelope": (_envelope, True),
    "heard envelope": (_heard_envelope, True),
    "shifted brain": (_shifted, False),
}


def _pieces(n: int, size: int) -> Iterator[np.ndarray]:
    for first in range(0, n, size):
        yield np.arange(first, min(first + size, n))
