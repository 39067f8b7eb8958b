"""Recordings of noise with offsets, and events in them."""

from __future__ import annotations

import numpy as np

from neuroloaders.events_table import EventTable
from neuroloaders.recordings import ContinuousRecording, RecordingSet

SFREQ = 120.0


def recording(subject="01", n_channels=5, seconds=20.0, *, sfreq=SFREQ, seed=0, offset=1.0, scale=1.0, **more):
    """Smoothed noise, as float32, each channel with an offset of its own."""
    rng = np.random.default_rng([seed, n_channels])
    data = rng.standard_normal((n_channels, round(seconds * sfreq)))
    data = (np.cumsum(data, axis=1) / 10 + data + offset * rng.standard_normal((n_channels, 1))) * scale
    names = tuple(f"EEG{k:03d}" for k in range(n_channels))
    positions = rng.uniform(size=(n_channels, 2))
    values = {"ch_names": names, "positions": positions, **more}
    return ContinuousRecording(data=data.astype(np.float32), sfreq=sfreq, subject=subject, **values)


def study(channels=(5, 3, 5), seconds=(20.0, 16.0, 12.5)):
    """Three recordings of two subjects, with different numbers of channels, lengths and starts."""
    subjects, starts = ("01", "01", "02"), (0.0, 3.25, -1.0)
    runs = zip(subjects, channels, seconds, starts, strict=True)
    return RecordingSet(
        recording(subject, n, length, seed=k, run=str(k), start=start)
        for k, (subject, n, length, start) in enumerate(runs)
    )


def events_of(recordings, n=7, seed=0, margin=1.5):
    """`n` events a recording, off the grid of samples, far from its ends; rows are mixed."""
    rng = np.random.default_rng(seed)
    names = np.repeat(recordings.names, n)
    start = np.concatenate([rng.uniform(r.start + margin, r.stop - margin, n) for r in recordings])
    stimulus = rng.choice(["cat", "dog", "owl"], len(names))
    order = rng.permutation(len(names))
    return EventTable(start=start[order], recording=names[order], kind="image", stimulus=stimulus[order])
