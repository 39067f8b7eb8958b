"""At which lag the brain follows the sound: ridge regressions from single samples, one lag after the other."""

# S subjects, L lags, C channels, F features

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.meeg.lagged_ridge import LaggedRidge
from neurodecode.meeg.linear_speech import LinearSpeechDecoder, disjoint_windows, rows_of, training_windows
from neurodecode.meeg.segments import Segments
from neurodecode.meeg.speech_config import SpeechConfig
from neuroloaders.block_splits import BlockSplit
from neuroloaders.checks import check_finite, check_option, check_shape, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import RecordingSet
from neuroloaders.window_targets import StimulusSequences
from neuroloaders.window_times import n_samples

__all__ = ["LagScan", "lag_scan"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LagScan:
    """How well single samples of the brain tell the sound, some time before.

    Parameters
    ----------
    lags_s : ndarray, shape (L,)
        From sound to brain, in s.
    correlation : ndarray, shape (S, L)
        For each subject: correlation of predicted and true features on held-out windows, mean over features.
    subjects : tuple of str
        Whose.
    """

    lags_s: np.ndarray
    correlation: np.ndarray
    subjects: tuple[str, ...]

    @property
    def peak_s(self) -> float:
        """The lag of the largest mean correlation, in s."""
        return float(self.lags_s[self.correlation.mean(axis=0).argmax()])


def lag_scan(
    recordings: RecordingSet,
    events: EventTable,
    targets: StimulusSequences,
    split: BlockSplit,
    lags_s: Any,
    *,
    config: SpeechConfig | None = None,
    part: str = "valid",
    max_rows: int = 50_000,
) -> LagScan:
    """Decode features from the sensors at one lag after the other: where the brain follows the sound.

    Parameters
    ----------
    recordings, events, targets, split
        As for `SpeechDecoder.fit`; ridges are fitted to the training blocks.
    lags_s : array of shape (L,)
        Lags in s, negative ones too: the brain before the sound, where there should be nothing but autocorrelation.
    config : SpeechConfig, optional
        For the window and the scaling; its lag is not used.
    part : {"valid", "test"}
        Which blocks are scored. A lag that is used later must not be chosen on the test blocks.
    max_rows : int
        Training samples of a subject, at most.

    Returns
    -------
    LagScan

    Notes
    -----
    All lags are fitted to, and scored on, the same samples of sound: those at which each lag lies within the window.
    """
    check_option("part", part, ["valid", "test"])
    lags_s = check_finite("lags_s", np.asarray(lags_s, dtype=np.float64))
    check_shape("lags_s", lags_s, ("L",))
    if len(lags_s) == 0:
        raise invalid("lags_s", "hold at least one lag", "none")
    decoder = LinearSpeechDecoder(config)
    decoder.sfreq_, decoder.feature_scale_ = recordings.sfreq, None
    lags = np.rint(lags_s * decoder.sfreq_).astype(int)
    windows, decoder.scaler_ = training_windows(decoder, recordings, events, split)
    tables = {"train": windows, "score": disjoint_windows(decoder, recordings, events, split, part)}
    # The sound of the whole window, without a lag.
    whole = {"tmin": decoder.config.tmin, "sfreq": decoder.sfreq_}
    whole["n_times"] = n_samples(decoder.config.tmin, decoder.config.tmax, decoder.sfreq_)
    inside = slice(max(0, -int(lags.min())), whole["n_times"] - max(0, int(lags.max())))
    if inside.stop - inside.start < 2:
        raise invalid("lags_s", "leave samples of the window", f"up to {abs(lags_s).max():g} s", "Widen the window.")
    segments = {name: Segments(table, targets, **whole) for name, table in tables.items()}
    scores = []
    for subject in recordings.subjects:
        rows = {name: rows_of(recordings, table, subject) for name, table in tables.items()}
        if not all(len(found) for found in rows.values()):
            raise invalid("split", "leave windows of each subject in both parts", f"none of {subject!r}")
        x, y = {}, {}
        for name, table in tables.items():
            x[name] = np.concatenate([b.x.numpy() for b in decoder.loader(recordings, table.select(rows[name]))])
            y[name] = segments[name][segments[name].number[rows[name]]].numpy()[..., inside]
        block = windows.extra["block"][rows["train"]]
        found = []
        for lag in lags:
            cut = slice(inside.start + lag, inside.stop + lag)
            ridge = LaggedRidge([0], max_rows=max_rows)
            ridge.fit([(x["train"][..., cut], y["train"], block)], len(block))
            found.append(_correlation(ridge.predict(x["score"][..., cut], y["score"].shape[2]), y["score"]))
        scores.append(found)
    return LagScan(lags_s=lags / decoder.sfreq_, correlation=np.array(scores), subjects=recordings.subjects)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over features of the correlation over windows and samples; 0 for a feature that is constant."""
    a, b = (v.transpose(1, 0, 2).reshape(v.shape[1], -1).astype(np.float64) for v in (a, b))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    length = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return float(((a * b).sum(axis=1) / np.where(length > 0, length, 1.0)).mean())
