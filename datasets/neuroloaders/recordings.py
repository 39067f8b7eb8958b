"""Continuous M/EEG recordings as arrays, and sets of them.

A recording is one file of one subject: sensors by samples at one rate. Its numbers may be in memory or stay on the
disk; nothing here copies them. `recording_files` writes and opens them, `window_loader` cuts windows from them.
"""

# R recordings, C channels, T samples

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroloaders.checks import check_number, check_shape, invalid

__all__ = ["NO_POSITION", "ContinuousRecording", "RecordingSet", "channel_faults"]

# Where sensors without a place are put: outside the unit square (Défossez et al. 2023).
NO_POSITION = -0.1
_SCANNED = 1 << 24  # bytes looked at in one go


@dataclass(frozen=True, eq=False, kw_only=True)
class ContinuousRecording:
    """One recording of one subject.

    Parameters
    ----------
    data : ndarray of float32, shape (C, T)
        Samples in SI units (V, T), channel after channel. A memory map stays one; other real numbers in memory are
        converted.
    sfreq : float
        Sampling rate in Hz.
    ch_names : sequence of str, length C
        Names of the channels, each once.
    subject : str
        Who was recorded.
    session, run : str
        Which of the subject's recordings this is.
    start : float
        Time of the first sample in s, on the clock on which its events are given.
    positions : ndarray, shape (C, 2), optional
        Places of the sensors on a plane, from 0 to 1; `NO_POSITION` where there is none.
    bads : sequence of str
        Channels that are not to be used.
    faults : mapping of str to str, optional
        What `channel_faults` found; None if nobody has looked.
    provenance : str
        Where the numbers come from, and what was done to them.

    Attributes
    ----------
    name : str
        Subject, session and run, joined by "_"; names a recording in event tables and folders.
    n_channels, n_times : int
    duration, stop : float
        ``n_times / sfreq``, and ``start`` plus that.

    Raises
    ------
    TypeError, ValueError
        If shapes, names or numbers do not fit. The samples themselves are not read.
    """

    data: np.ndarray
    sfreq: float
    ch_names: tuple[str, ...]
    subject: str
    session: str = ""
    run: str = ""
    start: float = 0.0
    positions: np.ndarray | None = None
    bads: tuple[str, ...] = ()
    faults: Mapping[str, str] | None = field(default=None, repr=False)
    provenance: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for name in ("subject", "session", "run"):
            value = getattr(self, name)
            if not isinstance(value, str) or any(mark in value for mark in "/\\\0\n,"):
                advice = "It becomes part of the name of a folder and of a table's column."
                raise invalid(name, "be text without slashes, commas and line breaks", value, advice, kind=TypeError)
        if not self.subject or self.subject.startswith("."):
            raise invalid("subject", "be given, and not begin with a dot", repr(self.subject))
        check_shape("data", self.data, ("C", "T"))
        data = _float32(self.data)
        if 0 in data.shape:
            raise invalid("data", "hold at least one channel and one sample", data)
        ch_names, bads = _names("ch_names", self.ch_names), _names("bads", self.bads)
        if len(ch_names) != len(data):
            raise invalid("ch_names", f"name the {len(data)} channels of `data`", f"{len(ch_names)} names")
        unknown = [name for name in bads if name not in ch_names]
        if unknown:
            raise invalid("bads", "be channels of this recording", f"{unknown[0]!r}")
        values = {
            "data": data,
            "sfreq": check_number("sfreq", self.sfreq, above=0),
            "start": check_number("start", self.start),
            "ch_names": ch_names,
            "bads": bads,
        }
        if self.positions is not None:
            positions = np.asarray(self.positions, dtype=np.float32)
            check_shape("positions", positions, (len(data), 2))
            if not np.isfinite(positions).all():
                advice = f"Use {NO_POSITION} for sensors whose place is not known."
                raise invalid("positions", "be finite numbers", "NaN or infinity", advice)
            values["positions"] = positions
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Subject, session and run, joined by "_"."""
        return "_".join(part for part in (self.subject, self.session, self.run) if part)

    @property
    def n_channels(self) -> int:
        """C."""
        return self.data.shape[0]

    @property
    def n_times(self) -> int:
        """T."""
        return self.data.shape[1]

    @property
    def duration(self) -> float:
        """Length in s."""
        return self.n_times / self.sfreq

    @property
    def stop(self) -> float:
        """Time in s at which it ends: that of the sample after the last."""
        return self.start + self.duration

    @property
    def is_mapped(self) -> bool:
        """Whether the samples stay on the disk."""
        return isinstance(self.data, np.memmap)

    def __repr__(self) -> str:
        where = "on disk" if self.is_mapped else "in memory"
        size = f"{self.n_channels} channels x {self.n_times} samples at {self.sfreq:g} Hz"
        return f"ContinuousRecording({self.name}: {size}, {where})"


class RecordingSet(Sequence[ContinuousRecording]):
    """Recordings that belong together: all of a study, or of some subjects.

    Parameters
    ----------
    recordings : iterable of ContinuousRecording
        Each name once.

    Attributes
    ----------
    names : tuple of str
        Of the recordings, in order: what the column ``recording`` of an event table refers to.
    subjects : tuple of str
        In the order in which they first appear. A subject's number is its place here.
    max_channels : int
        C of the recording with the most channels.
    n_bytes : int
        Of all samples.

    Examples
    --------
    >>> data = np.zeros((2, 10), dtype=np.float32)
    >>> RecordingSet([ContinuousRecording(data=data, sfreq=100, ch_names=("Fz", "Cz"), subject="01")])
    RecordingSet(1 recordings of 1 subjects, 2 channels, 0.1 s)
    """

    def __init__(self, recordings: Iterable[ContinuousRecording]) -> None:
        self._recordings = (recordings,) if isinstance(recordings, ContinuousRecording) else tuple(recordings)
        for number, recording in enumerate(self._recordings):
            if not isinstance(recording, ContinuousRecording):
                raise invalid(f"recordings[{number}]", "be a ContinuousRecording", recording, kind=TypeError)
        if not self._recordings:
            raise invalid("recordings", "hold at least one", "none")
        self.names = tuple(recording.name for recording in self._recordings)
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            advice = "Give each its session and run."
            raise invalid("recordings", "have names that occur once", f"{twice[0]!r} more than once", advice)
        self.subjects = tuple(dict.fromkeys(recording.subject for recording in self._recordings))

    def __len__(self) -> int:
        return len(self._recordings)

    def __getitem__(self, key: int | str | slice) -> Any:
        if isinstance(key, slice):
            return RecordingSet(self._recordings[key])
        return self._recordings[self.number(key) if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[ContinuousRecording]:
        return iter(self._recordings)

    def __repr__(self) -> str:
        fewest, most = min(r.n_channels for r in self), self.max_channels
        channels = f"{most}" if fewest == most else f"{fewest}-{most}"
        seconds = sum(recording.duration for recording in self)
        return (
            f"RecordingSet({len(self)} recordings of {len(self.subjects)} subjects, {channels} channels, {seconds:g} s)"
        )

    @property
    def max_channels(self) -> int:
        """C of the recording with the most channels."""
        return max(recording.n_channels for recording in self)

    @property
    def n_bytes(self) -> int:
        """Bytes of all samples."""
        return sum(recording.data.nbytes for recording in self)

    @property
    def sfreq(self) -> float:
        """The sampling rate in Hz, if all recordings have the same."""
        rates = sorted({recording.sfreq for recording in self})
        if len(rates) > 1:
            advice = "Resample them to one rate first."
            raise invalid("recordings", "have one sampling rate", " and ".join(f"{r:g} Hz" for r in rates), advice)
        return rates[0]

    @property
    def subject_numbers(self) -> np.ndarray:
        """The subject of each recording, places in `subjects`: int64, shape (R,)."""
        return np.array([self.subjects.index(recording.subject) for recording in self], dtype=np.int64)

    def number(self, name: str) -> int:
        """Return the place of the recording called `name`."""
        if name not in self.names:
            known = ", ".join(map(repr, self.names[:3])) + (", ..." if len(self) > 3 else "")
            raise invalid("recording", f"be one of the {len(self)} names ({known})", repr(name))
        return self.names.index(name)

    def of_subjects(self, subjects: Iterable[str]) -> RecordingSet:
        """Return the recordings of some subjects. Their numbers then count from 0 anew."""
        wanted = set(_names("subjects", subjects))
        unknown = sorted(wanted - set(self.subjects))
        if unknown:
            raise invalid("subjects", f"be among {', '.join(map(repr, self.subjects))}", repr(unknown[0]))
        return RecordingSet(recording for recording in self if recording.subject in wanted)


def channel_faults(data: np.ndarray, ch_names: Sequence[str]) -> dict[str, str]:
    """Find channels that hold NaN or infinity, or never change; reads all samples once.

    Parameters
    ----------
    data : ndarray, shape (C, T)
        Samples.
    ch_names : sequence of str, length C
        Names for the answer.

    Returns
    -------
    faults : dict of str to str
        "not finite" or "flat" for each channel at fault.
    """
    faults = {}
    step = max(_SCANNED // data.itemsize, 1)
    for row, name in zip(data, ch_names, strict=True):
        finite, flat, first = True, True, row[0]
        for begin in range(0, len(row), step):
            part = row[begin : begin + step]
            finite = finite and bool(np.isfinite(part).all())
            flat = flat and bool((part == first).all())
        if not finite:
            faults[name] = "not finite"
        elif flat and len(row) > 1:
            faults[name] = "flat"
    return faults


def _float32(data: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        data = np.asarray(data)
    if data.dtype == np.float32 and data.flags.c_contiguous:
        return data
    if isinstance(data, np.memmap):
        advice = "Write it anew with save_recording."
        raise invalid("data", "be of float32, channel after channel, if it is a memory map", data, advice)
    if data.dtype.kind not in "fiu":
        raise invalid("data", "be real numbers", data, kind=TypeError)
    return np.ascontiguousarray(data, dtype=np.float32)


def _names(name: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise invalid(name, "be a sequence of names", repr(values), f"Write ({values!r},).", kind=TypeError)
    names = tuple(values)
    wrong = [value for value in names if not isinstance(value, str)]
    if wrong:
        raise invalid(name, "be text", wrong[0], kind=TypeError)
    if len(set(names)) < len(names):
        twice = next(value for value in names if names.count(value) > 1)
        raise invalid(name, "hold each name once", f"{twice!r} twice")
    return tuple(str(value) for value in names)
