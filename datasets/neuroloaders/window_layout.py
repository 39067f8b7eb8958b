"""Before windows are cut: which sample of which recording each begins with, and which channel stands where."""

# R recordings, N events, C channels, T samples of a window

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import NO_POSITION, ContinuousRecording, RecordingSet, channel_faults
from neuroloaders.window_times import first_samples, windows_inside

__all__ = [
    "BAD_CHANNELS",
    "OUTSIDE",
    "REPEATED",
    "ChannelPlaces",
    "WindowPlaces",
    "batches_of_blocks",
    "place_channels",
    "place_windows",
]

OUTSIDE = {
    "raise": "windows that leave their recording are an error",
    "drop": "windows that leave their recording are left out, and counted",
}
REPEATED = {
    "keep": "events at the same sample of the same recording are windows of their own",
    "drop": "of events at the same sample of the same recording, the first is kept",
}
BAD_CHANNELS = {
    "raise": "channels that are flat or not finite, and not among the recording's `bads`, are an error",
    "zero": "such channels are treated as if they were among the `bads`: zero, and not in the channel mask",
    "keep": "nobody looks: NaN stays NaN",
}

logger = logging.getLogger(__name__)


class WindowPlaces(NamedTuple):
    """Where N windows are.

    ``rows``: rows of the event table that are kept; ``recording``, ``first``: the recording of each and the sample its
    window begins with, int64 of shape (N,). ``n_outside``, ``n_repeated``: how many events were left out.
    """

    rows: np.ndarray
    recording: np.ndarray
    first: np.ndarray
    n_outside: int
    n_repeated: int


def place_windows(
    recordings: RecordingSet,
    events: EventTable,
    *,
    tmin: float,
    tmax: float,
    n_times: int,
    outside: str,
    repeated: str,
) -> WindowPlaces:
    """Return where the window around each event is; see `WindowLoader` for the parameters.

    Raises
    ------
    ValueError
        If an event names a recording that is not there, or a window leaves its recording and `outside` is "raise".
    """
    check_option("outside", outside, OUTSIDE)
    check_option("repeated", repeated, REPEATED)
    if len(events) == 0:
        raise invalid("events", "hold at least one event", "none")
    sfreq = recordings.sfreq
    names, number = np.unique(events.recording, return_inverse=True)
    known = {name: place for place, name in enumerate(recordings.names)}
    missing = [name for name in names.tolist() if name not in known]
    if missing:
        got = f"{len(missing)} unknown names, such as {missing[0]!r}"
        examples = ", ".join(map(repr, recordings.names[:3]))
        raise invalid("events.recording", f"name recordings of the set ({examples}, ...)", got)
    recording = np.array([known[name] for name in names.tolist()], dtype=np.int64)[number]
    start, stop = (np.array([getattr(r, end) for r in recordings])[recording] for end in ("start", "stop"))
    first = first_samples(events.start, tmin, sfreq, start)
    inside = windows_inside(events.start, tmin, tmax, sfreq, start, stop)
    # The rule of times allows half a sample too many, for blocks; a recording has no such sample.
    inside &= (first >= 0) & (first + n_times <= np.array([r.n_times for r in recordings])[recording])
    n_outside = int((~inside).sum())
    if n_outside:
        _report_outside(recordings, events, inside, recording, tmin, tmax, outside)
    rows = np.flatnonzero(inside)
    n_repeated = 0
    if repeated == "drop":
        _, kept = np.unique(np.stack([recording[rows], first[rows]]), axis=1, return_index=True)
        n_repeated = len(rows) - len(kept)
        rows = rows[np.sort(kept)]
    return WindowPlaces(rows, recording[rows], first[rows], n_outside, n_repeated)


def _report_outside(
    recordings: RecordingSet,
    events: EventTable,
    inside: np.ndarray,
    recording: np.ndarray,
    tmin: float,
    tmax: float,
    outside: str,
) -> None:
    n, row = int((~inside).sum()), int(np.flatnonzero(~inside)[0])
    where = recordings[int(recording[row])]
    text = (
        f"{n} of {len(events)} windows outside, the first of the event at {events.start[row]:g} s (row {row}), from "
        f"{events.start[row] + tmin:g} to {events.start[row] + tmax:g} s, of {where.name!r}, which lasts from "
        f"{where.start:g} to {where.stop:g} s"
    )
    if outside == "raise" or not inside.any():
        advice = 'Pass outside="drop" to leave such events out.' if inside.any() else "Check the clock of the events."
        raise invalid("events", "have windows inside their recordings", text, advice)
    logger.warning("Left out: %s.", text)


class ChannelPlaces(NamedTuple):
    """What stands where in a window: ``rows``, int64 (R, C), the channel of each recording, -1 for none; ``positions``,
    float32 (R, C, 2); ``ch_names``, the names if all recordings have the same at each place, else None.
    """

    rows: np.ndarray
    positions: np.ndarray
    ch_names: tuple[str, ...] | None


def place_channels(
    recordings: RecordingSet, channels: Sequence[str] | None, bad_channels: str, used: Sequence[int]
) -> ChannelPlaces:
    """Return where the channels of each recording stand; see `WindowLoader` for the parameters.

    Parameters
    ----------
    recordings : RecordingSet
    channels : sequence of str, optional
    bad_channels : str
    used : sequence of int
        The recordings that windows are cut from: others are not looked at.

    Raises
    ------
    ValueError
        If recordings have the same channels in another order and `channels` does not say in which they are wanted; if
        a channel is in no recording, or none is left of a recording; if one is bad.
    """
    check_option("bad_channels", bad_channels, BAD_CHANNELS)
    if channels is None:
        _check_same_order(recordings)
        columns = [recording.ch_names for recording in recordings]
        ch_names = columns[0] if len(set(columns)) == 1 else None
        width = recordings.max_channels
    else:
        ch_names = _check_channels(recordings, channels)
        columns, width = [ch_names] * len(recordings), len(ch_names)
    rows = np.full((len(recordings), width), -1, dtype=np.int64)
    positions = np.full((len(recordings), width, 2), NO_POSITION, dtype=np.float32)
    for r, (recording, names) in enumerate(zip(recordings, columns, strict=True)):
        place = {name: row for row, name in enumerate(recording.ch_names) if name not in recording.bads}
        if r in used:
            for name in _faulty(recording, [name for name in names if name in place], bad_channels):
                del place[name]
        for c, name in enumerate(names):
            if name in place:
                rows[r, c] = place[name]
                if recording.positions is not None:
                    positions[r, c] = recording.positions[place[name]]
        if r in used and (rows[r] < 0).all():
            raise invalid("channels", f"leave a good channel of {recording.name!r}", "none", "Leave it out.")
    return ChannelPlaces(rows, positions, ch_names)


def _faulty(recording: ContinuousRecording, names: Sequence[str], bad_channels: str) -> list[str]:
    if bad_channels == "keep":
        return []
    faults = recording.faults
    if faults is None:
        faults = channel_faults(recording.data, recording.ch_names)
    found = [name for name in names if name in faults]
    if found and bad_channels == "raise":
        got = f"{len(found)} that are not: {found[0]!r} is {faults[found[0]]}"
        advice = 'Name them in its `bads`, or pass bad_channels="zero".'
        raise invalid("recordings", f"have finite channels that change ({recording.name!r})", got, advice)
    return found


def _check_same_order(recordings: RecordingSet) -> None:
    seen: dict[frozenset[str], ContinuousRecording] = {}
    for recording in recordings:
        other = seen.setdefault(frozenset(recording.ch_names), recording)
        if other.ch_names != recording.ch_names:
            got = f"another in {recording.name!r} than in {other.name!r}"
            advice = "Pass the names in the order wanted: channels=recordings[0].ch_names."
            raise invalid("recordings", "have the same channels in the same order", got, advice)


def _check_channels(recordings: RecordingSet, channels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(channels, str) or not len(channels) or not all(isinstance(name, str) for name in channels):
        raise invalid("channels", "be a sequence of names", channels, kind=TypeError)
    names = tuple(channels)
    if len(set(names)) < len(names):
        raise invalid("channels", "hold each name once", repr(next(n for n in names if names.count(n) > 1)))
    known = {name for recording in recordings for name in recording.ch_names}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise invalid("channels", "be in one of the recordings at least", repr(unknown[0]))
    return names


def batches_of_blocks(
    blocks: Sequence[np.ndarray], batch_size: int, drop_last: bool, generator: torch.Generator | None
) -> list[Tensor]:
    """Cut each block of windows into batches of its own.

    Parameters
    ----------
    blocks : sequence of ndarray of int64
        The windows of each recording.
    batch_size : int
        Windows in a batch, at most.
    drop_last : bool
        Leave out batches that are smaller.
    generator : torch.Generator, optional
        Shuffles the windows within their block, then the batches.

    Returns
    -------
    batches : list of Tensor of int64
    """
    batches = []
    for block in blocks:
        rows = torch.from_numpy(block)
        if generator is not None:
            rows = rows[torch.randperm(len(rows), generator=generator)]
        batches += [part for part in rows.split(batch_size) if len(part) == batch_size or not drop_last]
    if generator is not None:
        batches = [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
    return batches
