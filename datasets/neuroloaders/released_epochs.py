"""Releases that come as epochs, as recordings: epochs laid end to end, so that windows are cut from them like from any.

Where one epoch ends the next one begins, minutes or days later. A window that reaches over that seam would mix two
presentations, so each event says how far its epoch reaches, and `epoch_bounds` refuses windows that are longer.
"""

# N epochs, C channels, T samples of an epoch

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from neuroloaders.checks import check_number, check_same_length, check_shape, invalid
from neuroloaders.convert import _with_earlier
from neuroloaders.epoch_bounds import EPOCH_TMAX, EPOCH_TMIN
from neuroloaders.events_table import EventTable
from neuroloaders.recording_files import _opened, save_events, save_recording
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.studies.meeg_study import count_repeats

__all__ = ["epoch_recordings"]

_BLOCK_BYTES = 1 << 27  # of epochs read at a time
_GRID = 1e-3  # how far, in samples, the first sample of an epoch may be from the grid of its event


def epoch_recordings(
    x: Any,
    *,
    sfreq: float,
    tmin: float,
    ch_names: Sequence[str],
    subject: str | Sequence[str],
    stimulus: Sequence[str],
    session: str | Sequence[str] = "",
    run: str | Sequence[str] = "",
    split_group: Sequence[str] | None = None,
    kind: str | Sequence[str] = "image",
    duration: float | Sequence[float] = 0.0,
    extra: Mapping[str, Any] | None = None,
    positions: np.ndarray | None = None,
    bads: Sequence[str] = (),
    provenance: str = "",
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> tuple[RecordingSet, EventTable]:
    """Lay epochs end to end, in one recording for each subject, session and run.

    Parameters
    ----------
    x : array, shape (N, C, T)
        Epochs, of real numbers. Anything that has a ``shape`` and whose slices ``x[first:last]`` are arrays will do:
        a memory map, a data set of h5py, or an object that reads epochs when they are asked for.
    sfreq : float
        Rate in Hz.
    tmin : float
        Time of the first sample of each epoch in s, relative to its event; a whole number of samples.
    ch_names : sequence of str, length C
        The channels.
    subject, session, run : str or sequence of str, length N
        Whose epochs they are, and where they were recorded: all from one, or each its own.
    stimulus : sequence of str, length N
        What was shown.
    split_group : sequence of str, length N, optional
        What stays on one side of a split, such as the category; by default the stimulus.
    kind : str or sequence of str
        What sort of event.
    duration : float or sequence of float
        How long it was shown, in s.
    extra : mapping of str to array of length N, optional
        Further columns of the event table.
    positions : ndarray, shape (C, 2), optional
        Places of the sensors, as for `ContinuousRecording`.
    bads : sequence of str
        Channels that are not to be used.
    provenance : str
        Where the epochs come from, and what was done to them.
    folder : path-like, optional
        Then recordings and events are written there, in the form of `neuroloaders.recording_files`, and opened as
        memory maps. One recording is in memory at a time. Those that are there already, from epochs with the same
        `provenance` (which must then tell these epochs from others), are left as they are; others are replaced.
        Without `provenance` a recording that is there already is an error.
    progress : bool
        Show a bar over recordings.

    Returns
    -------
    recordings : RecordingSet
        float32, in the order in which they first appear in `x`.
    events : EventTable
        One row an epoch, in the order of `x`. ``repeat`` counts for each subject, kind and stimulus, in
        the order of the recordings.

    Raises
    ------
    TypeError, ValueError
        If something does not fit together, or samples are not finite.
    OSError
        If the disk is full. Whole recordings stay, and the same call goes on after them.

    Notes
    -----
    The k-th epoch of a recording has the samples k T to (k + 1) T - 1, and its event is at the sample
    k T - round(tmin sfreq): windows from `tmin` on are the epochs themselves, bit for bit if those are of float32.
    The extra columns ``epoch_tmin`` and ``epoch_tmax`` are the times of the first and last sample of the epoch.

    Examples
    --------
    >>> x = np.arange(2 * 1 * 5, dtype=np.float32).reshape(2, 1, 5)
    >>> recordings, events = epoch_recordings(
    ...     x, sfreq=10, tmin=-0.2, ch_names=["Oz"], subject="01", stimulus=["cat", "dog"]
    ... )
    >>> events.start.tolist(), recordings["01"].data.tolist()
    ([0.2, 0.7], [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]])
    """
    if not hasattr(x, "shape") or not hasattr(x, "__getitem__"):
        raise invalid("x", "be an array of shape (N, C, T)", x, kind=TypeError)
    check_shape("x", x, ("N", len(ch_names), "T"), advice="C is the number of ch_names.")
    n, _, n_times = (int(size) for size in x.shape)
    if n == 0 or n_times == 0:
        raise invalid("x", "hold at least one epoch and one sample", x)
    sfreq, tmin = check_number("sfreq", sfreq, above=0), check_number("tmin", tmin)
    first = round(tmin * sfreq)
    if abs(tmin * sfreq - first) > _GRID:
        raise invalid("tmin", f"be a whole number of samples of {1 / sfreq:g} s", f"{tmin:g}")
    names = {
        name: _column(name, value, n) for name, value in (("subject", subject), ("session", session), ("run", run))
    }
    where, number = np.unique(np.stack(list(names.values()), axis=1), axis=0, return_inverse=True)
    number = number.ravel()
    # In the order of the epochs, not of the names.
    order = np.argsort([np.flatnonzero(number == k)[0] for k in range(len(where))])
    number = np.argsort(order)[number]
    whole = {"sfreq": sfreq, "ch_names": tuple(ch_names), "positions": positions, "bads": tuple(bads)}
    rows_of = [np.flatnonzero(number == k) for k in range(len(where))]
    headers = [dict(zip(names, map(str, where[k]), strict=True)) for k in order]
    events = _events(
        headers, number, rows_of, first, n_times, sfreq,
        stimulus=stimulus, split_group=split_group, kind=kind, duration=duration, extra=dict(extra or {}),
    )  # fmt: skip
    out = []
    for header, rows in tqdm(list(zip(headers, rows_of, strict=True)), unit="recording", disable=not progress):
        source = provenance
        if folder is not None and provenance:
            source = f"{provenance}; epochs of {_digest(events.select(rows), n_times, ch_names)}"
            there = _stored(Path(folder), header, source, (len(ch_names), len(rows) * n_times))
            if there is not None:
                out.append(there)
                continue
        recording = ContinuousRecording(data=_laid(x, rows), provenance=source, **header, **whole)
        out.append(recording if folder is None else save_recording(recording, folder, overwrite=bool(provenance)))
    if folder is not None:
        save_events(_with_earlier(Path(folder), events), folder)
    return RecordingSet(out), events


def _column(name: str, value: Any, n: int) -> np.ndarray:
    column = np.asarray(value)
    if column.ndim == 0:
        column = np.full(n, column)
    if column.dtype.kind == "O":
        column = column.astype(str)
    if column.dtype.kind != "U":
        raise invalid(name, "be text", column, kind=TypeError)
    return check_shape(name, column, (n,), advice="One value for all epochs, or one for each.")


def _events(
    headers: list[dict[str, str]],
    number: np.ndarray,
    rows_of: list[np.ndarray],
    first: int,
    n_times: int,
    sfreq: float,
    *,
    extra: dict[str, Any],
    **columns: Any,
) -> EventTable:
    """Return the table of N epochs, of which `rows_of` says which are in each recording."""
    for taken in (EPOCH_TMIN, EPOCH_TMAX):
        if taken in extra:
            raise invalid("extra", "leave this column to epoch_recordings", repr(taken))
    for name, value in {**columns, **extra}.items():
        if value is not None and np.ndim(value) > 0:
            check_same_length(**{"x": number, name: value})
    place = np.empty(len(number), dtype=np.int64)
    for rows in rows_of:
        place[rows] = np.arange(len(rows))
    full = ["_".join(part for part in header.values() if part) for header in headers]
    if len(set(full)) < len(full):
        twice = next(name for name in full if full.count(name) > 1)
        raise invalid("subject, session, run", "give each recording a name of its own", f"{twice!r} twice")
    events = EventTable(
        start=(place * n_times - first) / sfreq,
        recording=np.array(full)[number],
        extra={
            **extra,
            EPOCH_TMIN: np.full(len(number), first / sfreq),
            EPOCH_TMAX: np.full(len(number), (first + n_times - 1) / sfreq),
        },
        **{name: value for name, value in columns.items() if value is not None},
    )
    subject_of = {name: header["subject"] for name, header in zip(full, headers, strict=True)}
    return count_repeats(events, subject_of)


def _laid(x: Any, rows: np.ndarray) -> np.ndarray:
    """Return epochs (n, C, T) one after the other: float32, (C, n T)."""
    _, n_channels, n_times = x.shape
    out = np.empty((n_channels, len(rows), n_times), dtype=np.float32)
    for begin, end in _stretches(rows, max(1, _BLOCK_BYTES // (8 * n_channels * n_times))):
        block = np.asarray(x[int(rows[begin]) : int(rows[end - 1]) + 1])
        if block.dtype.kind not in "fiu" or block.shape != (end - begin, n_channels, n_times):
            raise invalid("x", f"give epochs of {n_channels} channels x {n_times} real numbers", block, kind=TypeError)
        with np.errstate(over="ignore"):  # infinity is said below
            out[:, begin:end] = block.transpose(1, 0, 2)
        bad = ~np.isfinite(out[:, begin:end]).all(axis=(0, 2))
        if bad.any():
            row = int(rows[begin + int(bad.argmax())])
            raise invalid("x", "hold finite numbers that float32 can hold", f"others in epoch {row}", "Leave it out.")
    return out.reshape(n_channels, -1)


def _stretches(rows: np.ndarray, longest: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end, places in `rows`, of stretches of rows that follow one another."""
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for begin, end in itertools.pairwise(cuts):
        for start in range(begin, end, longest):
            yield start, min(start + longest, end)


def _digest(events: EventTable, n_times: int, ch_names: Sequence[str]) -> str:
    """Return what tells the epochs of a recording from those of another table: a hash of the table."""
    table = [dataclasses.replace(events, extra={}).column(name).tolist() for name in ("stimulus", "kind", "start")]
    return hashlib.sha256(json.dumps([table, n_times, list(ch_names)]).encode()).hexdigest()[:16]


def _stored(
    folder: Path, header: dict[str, str], provenance: str, shape: tuple[int, int]
) -> ContinuousRecording | None:
    """Return a recording that an earlier call wrote whole, or None."""
    name = "_".join(part for part in header.values() if part)
    try:
        there = _opened(folder / "recordings" / name)
    except (OSError, ValueError):
        return None
    return there if there.provenance == provenance and there.data.shape == shape else None
