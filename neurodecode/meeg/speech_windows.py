"""Which windows of a recording of listening are trained on and tested on, and what was heard in each."""

# N windows

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloaders.block_splits import BlockSplit
from neuroloaders.checks import check_number, check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.splits import SPLITS
from neuroloaders.window_times import times_every, windows_inside

__all__ = ["grid_windows", "shifted", "word_windows"]


def grid_windows(
    recordings: RecordingSet,
    events: EventTable,
    split: BlockSplit,
    part: str,
    *,
    tmin: float,
    tmax: float,
    step_s: float = 0.5,
    sound: str = "sound",
    sentence: str = "sentence",
) -> EventTable:
    """Return windows at even steps through the blocks of one part: what Défossez et al. train on.

    Parameters
    ----------
    recordings : RecordingSet
        The recordings; blocks of others are left out.
    events : EventTable
        What was heard. Events of the kind `sound` say which sound, by their stimulus, was played from when to when;
        where such an event does not begin at the sound's begin, the extra column "stimulus_start" says where, in s.
    split : BlockSplit
        Blocks, and the part of each; see `neuroloaders.block_splits.split_blocks`.
    part : {"train", "valid", "test"}
        Which blocks.
    tmin, tmax : float
        Ends of the window in s.
    step_s : float
        Distance of windows, in s.
    sound, sentence : str
        Kinds of events.

    Returns
    -------
    EventTable
        Windows around ``start`` that lie inside a block and a recording, with the sound as ``stimulus`` and as extra
        columns "stimulus_start" (place in the sound, s), "block" (number in `split`), "word" (empty here), "sentence"
        (the last that began, its `split_group`), "sentence_start" (s since then, NaN before the first), and
        "word_index" (-1 here).

    Raises
    ------
    ValueError
        If there is no window.

    Notes
    -----
    The rule for "inside" is that of `neuroloaders.window_times.windows_inside` [1]_. Times at which nothing is played
    are left out.

    References
    ----------
    .. [1] Défossez et al., Nature Machine Intelligence 5 (2023), doi:10.1038/s42256-023-00714-5.
    """
    check_number("step_s", step_s, above=0)
    check_option("part", part, SPLITS)
    starts, names, blocks = [], [], []
    for number in np.flatnonzero(split.part == part):
        name = str(split.recording[number])
        if name not in recordings.names:
            continue
        recording = recordings[name]
        begin = max(split.start[number], recording.start)
        end = min(split.stop[number], recording.stop - 1 / recording.sfreq)
        if begin < end:
            times = times_every(step_s, begin, end, tmin=tmin, tmax=tmax, sfreq=recording.sfreq)
            starts.append(times)
            names += [name] * len(times)
            blocks += [number] * len(times)
    start = np.concatenate([np.empty(0), *starts])
    table = EventTable(start=start, recording=np.array(names, dtype=str), kind="window")
    heard = _heard(events, table, sound)
    # Not before the first sound, between sounds, and after the last.
    keep = np.flatnonzero(heard[1] >= 0)
    if len(keep) == 0:
        raise _no_windows(part, tmin, tmax)
    table = _described(table.select(keep), (heard[0][keep], heard[1][keep]), events, sentence)
    return table.with_column("block", np.array(blocks, dtype=np.int64)[keep]).with_column("word", "")


def word_windows(
    recordings: RecordingSet,
    events: EventTable,
    split: BlockSplit,
    part: str,
    *,
    tmin: float,
    tmax: float,
    kind: str = "word",
    word: str = "word",
    sound: str = "sound",
    sentence: str = "sentence",
) -> EventTable:
    """Return windows around the words in the blocks of one part: what Défossez et al. test on.

    Parameters
    ----------
    recordings, events, split, part, tmin, tmax, sound, sentence
        As for `grid_windows`.
    kind : str
        Events around which windows lie.
    word : str
        Column of `events`, own or extra, that says which word.

    Returns
    -------
    EventTable
        As of `grid_windows`, with the words, in lower case, and their number in the sentence, from 0.

    Raises
    ------
    ValueError
        If there is no window, or a word during which nothing is played.
    """
    check_option("part", part, SPLITS)
    rows = events.where(kind=kind)
    rows = rows.select(np.isin(rows.recording, recordings.names))
    if len(rows) == 0:
        kinds = ", ".join(map(repr, np.unique(events.kind).tolist())) or "none"
        raise invalid("kind", "be a kind of event in these recordings", f"{kind!r}", f"There are {kinds}.")
    rows = rows.select(np.lexsort([rows.start, rows.recording]))
    words = np.char.lower(np.asarray(rows.column(word), dtype=str))
    table = EventTable(start=rows.start, recording=rows.recording, kind=kind)
    heard = _heard(events, table, sound)
    # Described before any is left out: a word keeps its number in the sentence.
    table = _described(table, heard, events, sentence).with_column("word", words)
    block = split.block_of(rows)
    begin, end = _limits(recordings, rows)
    begin, end = np.maximum(begin, split.start[block]), np.minimum(end, split.stop[block])
    keep = (block >= 0) & (split.part[block] == part)
    keep &= windows_inside(rows.start, tmin, tmax, recordings.sfreq, begin, end)
    if not keep.any():
        raise _no_windows(part, tmin, tmax)
    if (heard[1][keep] < 0).any():
        k = int(np.flatnonzero(keep & (heard[1] < 0))[0])
        came = f"none at {rows.start[k]:g} s of {rows.recording[k]!r}"
        raise invalid("events", f"have an event of kind {sound!r} wherever there is a {kind}", came)
    return table.with_column("block", block).select(keep)


def shifted(recordings: RecordingSet, windows: EventTable, shift_s: float, *, tmin: float, tmax: float) -> EventTable:
    """Move the brain windows away from what was heard: the control that must end at chance.

    Parameters
    ----------
    recordings : RecordingSet
        The recordings.
    windows : EventTable
        From `word_windows`; the sounds that belong to them stay.
    shift_s : float
        By how much, in s; a window that would leave its recording is moved the other way, and left out if it leaves it
        there too.
    tmin, tmax : float
        Ends of the window in s.

    Returns
    -------
    EventTable
        With the extra column "row": the place of each window in `windows`.
    """
    check_number("shift_s", shift_s)
    limits, sfreq = _limits(recordings, windows), recordings.sfreq
    time = windows.start + shift_s
    time = np.where(windows_inside(time, tmin, tmax, sfreq, *limits), time, windows.start - shift_s)
    keep = np.flatnonzero(windows_inside(time, tmin, tmax, sfreq, *limits))
    if len(keep) == 0:
        raise invalid("shift_s", "keep some window inside its recording", f"{shift_s:g}", "Shift by less.")
    return windows.with_column("start", time).with_column("row", np.arange(len(windows))).select(keep)


def _heard(events: EventTable, table: EventTable, sound: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which sound is played at each time, and the place in it in s, -1 where there is none."""
    sounds = events.where(kind=sound)
    if len(sounds) == 0:
        kinds = ", ".join(map(repr, np.unique(events.kind).tolist())) or "none"
        raise invalid("sound", "be a kind of event that is there", f"{sound!r}", f"There are {kinds}.")
    offset = sounds.extra.get("stimulus_start", np.zeros(len(sounds)))
    stimulus, where = np.full(len(table), "", dtype=sounds.stimulus.dtype), np.full(len(table), -1.0)
    for recording in np.unique(table.recording):
        rows = np.flatnonzero(table.recording == recording)
        there = np.flatnonzero(sounds.recording == recording)
        if len(there) == 0:
            continue
        there = there[np.argsort(sounds.start[there], kind="stable")]
        last = np.searchsorted(sounds.start[there], table.start[rows] + 1e-9, side="right") - 1
        which = there[last.clip(0)]
        since = table.start[rows] - sounds.start[which]
        played = (last >= 0) & (since < sounds.duration[which])
        # To the microsecond: what subtraction leaves of a time must not put two subjects into different frames.
        where[rows] = np.where(played, np.round(since.clip(0) + np.nan_to_num(offset[which]), 6), -1.0)
        stimulus[rows] = np.where(played, sounds.stimulus[which], "")
    return stimulus, where


def _described(table: EventTable, heard: Any, events: EventTable, sentence: str) -> EventTable:
    """Add what was heard, and where in its sentence a window lies."""
    sentences = events.where(kind=sentence)
    since, index = np.full(len(table), np.nan), np.full(len(table), -1)
    group = np.full(len(table), "", dtype=sentences.split_group.dtype if len(sentences) else "<U1")
    for recording in np.unique(table.recording):
        rows = np.flatnonzero(table.recording == recording)
        there = np.flatnonzero(sentences.recording == recording)
        if len(there) == 0:
            continue
        there = there[np.argsort(sentences.start[there], kind="stable")]
        last = np.searchsorted(sentences.start[there], table.start[rows] + 1e-9, side="right") - 1
        rows, last = rows[last >= 0], last[last >= 0]
        since[rows] = (table.start[rows] - sentences.start[there[last]]).clip(0)
        group[rows] = sentences.split_group[there[last]]
        if not (table.kind[rows] == "window").all():
            order = np.lexsort([table.start[rows], last])
            first = np.searchsorted(last[order], last[order], side="left")
            index[rows[order]] = np.arange(len(order)) - first
    extra = {"stimulus_start": heard[1], "sentence": group, "sentence_start": since, "word_index": index}
    return EventTable(
        start=table.start, recording=table.recording, kind=table.kind, stimulus=heard[0], split_group=group, extra=extra
    )


def _limits(recordings: RecordingSet, table: EventTable) -> tuple[np.ndarray, np.ndarray]:
    """Return begin and end of the recording of each event, in s."""
    names, number = np.unique(table.recording, return_inverse=True)
    found: list[ContinuousRecording] = [recordings[str(name)] for name in names]
    # Exact to the sample: a window of the whole recording fits.
    return (
        np.array([recording.start for recording in found])[number],
        np.array([recording.stop - 1 / recording.sfreq for recording in found])[number],
    )


def _no_windows(part: str, tmin: float, tmax: float) -> Exception:
    came = f"none in the part {part!r}"
    advice = "Blocks must be longer than windows: raise min_block_s of split_blocks, or split anew."
    return invalid("split", f"have blocks that hold a window of {tmax - tmin:g} s", came, advice)
