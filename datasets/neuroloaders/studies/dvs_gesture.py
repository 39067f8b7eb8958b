"""IBM's DVS128 Gesture: hand and arm gestures of 29 people before an event camera of 128 x 128 pixels.

A trial is one AEDAT 3.1 file in which a person makes all gestures, and a table of when each begins and ends.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from neuroloaders.archives import unpack
from neuroloaders.cache import cache_folder, source_identity
from neuroloaders.checks import corrupt_file
from neuroloaders.fetch import fetch
from neuroloaders.registry import DatasetEntry
from neuroloaders.spikes import SpikeSet
from neuroloaders.studies.aedat import PolarityEvents, read_aedat31
from neuroloaders.studies.event_store import EventReading, Piece, SampleTable, spike_sets, store_events

__all__ = ["GESTURES", "load_dvs_gesture", "read_gesture_times"]

GESTURES = (
    "hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise", "right_arm_counter_clockwise",
    "left_arm_clockwise", "left_arm_counter_clockwise", "arm_roll", "air_drums", "air_guitar", "other_gestures",
)  # fmt: skip
_SIDE = 128  # pixels
_ARCHIVE, _FOLDER = "DvsGesture.tar.gz", "DvsGesture"
_TRIALS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
_COLUMNS = ["class", "startTime_usec", "endTime_usec"]

logger = logging.getLogger(__name__)


def load_dvs_gesture(
    *,
    data_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    sort: bool = False,
    progress: bool = True,
    registry: Mapping[str, DatasetEntry] | None = None,
) -> dict[str, SpikeSet]:
    """Load DVS128 Gesture in the official split by person: train (users 1 to 23), test (24 to 29).

    Parameters
    ----------
    data_dir, offline, registry
        As for `neuroloaders.fetch`, which finds ``dvs-gesture/DvsGesture``. If only ``DvsGesture.tar.gz`` is there,
        it is unpacked beside it.
    sort : bool
        Sort events that are out of order instead of refusing the file.
    progress : bool
        Show a progress bar while reading the first time.

    Returns
    -------
    sets : dict of str to SpikeSet
        By split, one sample for each line of the tables. Times in ms from the gesture's start; unit
        ``(polarity * 128 + y) * 128 + x``, `unit_shape` (2, 128, 128), polarity 1 for brighter. Groups are the users.

    Raises
    ------
    ValueError
        If a file is truncated, of another format, or out of order, or a table does not fit.
    FileNotFoundError
        If the files are not there; the message says where to get them.

    Notes
    -----
    A sample has the events with ``start <= t < end``, as in spikingjelly and snnTorch: 1176 + 288 samples with
    IBM's files. The table of ``user22_led`` lets its class 9 end within class 10, and those events are in both.
    Read twice, a file at a time (sizes, then events), into the cache: 8 bytes an event.

    References
    ----------
    .. [1] Amir et al., CVPR 2017; https://research.ibm.com/interactive/dvsgesture/
    """
    found = fetch("dvs-gesture", data_dir=data_dir, offline=offline, progress=progress, registry=registry)
    folder = found / _FOLDER
    if not folder.is_dir():
        unpack(found / _ARCHIVE, _FOLDER, folder)
    identity, stored = source_identity(folder), {}
    for split in _TRIALS:
        stored[split] = store_events(
            EventReading(name="dvs-gesture", split=split, sort=sort),
            identity,
            partial(_read_table, folder, split, sort, progress),
            partial(_read_pieces, folder, split, sort, progress),
            folder=cache_folder(data_dir),
        )
    return spike_sets(
        stored,
        name="dvs-gesture",
        classes=GESTURES,
        unit_shape=(2, _SIDE, _SIDE),
        provenance=os.fspath(folder),
    )


def read_gesture_times(path: str | os.PathLike) -> np.ndarray:
    """Read when each gesture of a trial begins and ends.

    Parameters
    ----------
    path : path-like
        A table with the columns class (1 to 11), startTime_usec and endTime_usec.

    Returns
    -------
    rows : ndarray of int64, shape (n, 3)
        Class from 0, start and end in microseconds.

    Raises
    ------
    ValueError
        If the table has other columns, no rows, a class out of range, or a gesture that ends before it begins.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            head, *lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line] or [[]]
    except FileNotFoundError as error:
        raise corrupt_file(path, "it is not there", "Unpack the archive again.") from error
    if head != _COLUMNS:
        raise corrupt_file(path, f"its columns are {head} instead of {_COLUMNS}")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(_COLUMNS) or not all(cell.isdecimal() for cell in line):
            raise corrupt_file(path, f"line {number} has {line} instead of three whole numbers")
    rows = np.array(lines, dtype=np.int64).reshape(-1, 3)
    if not len(rows) or rows[:, 0].min() < 1 or rows[:, 0].max() > len(GESTURES):
        raise corrupt_file(
            path, f"it must have gestures of the classes 1..{len(GESTURES)}, it has {rows[:, 0].tolist()}"
        )
    if (rows[:, 1] >= rows[:, 2]).any():
        line = int((rows[:, 1] >= rows[:, 2]).argmax()) + 2
        raise corrupt_file(path, f"the gesture in line {line} ends before it begins")
    return rows - np.array([1, 0, 0])


def _trials(folder: Path, split: str) -> list[Path]:
    path = folder / _TRIALS[split]
    try:
        names = path.read_text(encoding="utf-8").split()
    except FileNotFoundError as error:
        raise corrupt_file(path, "it is not there", "Unpack the archive again.") from error
    for name in names:
        if not (folder / name).is_file():
            raise corrupt_file(path, f"it names {name!r}, which is not there", "Unpack the archive again.")
    if not names:
        raise corrupt_file(path, "it names no trials")
    return [folder / name for name in names]


def _read_table(folder: Path, split: str, sort: bool, progress: bool) -> SampleTable:
    counts, labels, users = [], [], []
    for path in _with_bar(_trials(folder, split), f"counting events of {split}", progress):
        rows = read_gesture_times(_table_of(path))
        bounds = _bounds(_events_in_order(path, sort).times_us, rows)
        if (bounds[:, 0] == bounds[:, 1]).any():
            empty = (np.flatnonzero(bounds[:, 0] == bounds[:, 1]) + 2).tolist()
            logger.warning("%s: no event belongs to the gestures in the lines %s.", _table_of(path), empty)
        counts.append(bounds[:, 1] - bounds[:, 0])
        labels.append(rows[:, 0])
        users += [path.name.partition("_")[0]] * len(rows)
    return SampleTable(counts=np.concatenate(counts), labels=np.concatenate(labels), groups=np.array(users))


def _read_pieces(folder: Path, split: str, sort: bool, progress: bool, table: SampleTable) -> Iterator[Piece]:
    for path in _with_bar(_trials(folder, split), f"reading {split}", progress):
        rows, events = read_gesture_times(_table_of(path)), _events_in_order(path, sort)
        units = (events.polarity * _SIDE + events.y) * _SIDE + events.x
        bounds = _bounds(events.times_us, rows)
        # Below 16.7 s a whole number of microseconds is exact in float32; it is divided after that.
        times = [
            (events.times_us[first:last] - start).astype(np.float32) / np.float32(1000)
            for (first, last), start in zip(bounds.tolist(), rows[:, 1], strict=True)
        ]
        yield Piece(
            times_ms=np.concatenate(times),
            units=np.concatenate([units[first:last] for first, last in bounds.tolist()]),
            counts=bounds[:, 1] - bounds[:, 0],
            where=lambda row, path=path: (path, f"gesture {row + 1}"),
        )


def _events_in_order(path: Path, sort: bool) -> PolarityEvents:
    events = read_aedat31(path)
    for name, values in (("x", events.x), ("y", events.y)):
        if len(values) and values.max() >= _SIDE:
            raise corrupt_file(path, f"it has an event at {name} = {values.max()}, outside of {_SIDE} x {_SIDE} pixels")
    falling = np.diff(events.times_us) < 0
    if not falling.any():
        return events
    if not sort:
        event = int(falling.argmax()) + 1
        advice = "Fetch the file again, or pass sort=True to sort events by time."
        raise corrupt_file(
            path, f"its events are out of order (event {event} is before the one that precedes it)", advice
        )
    order = np.argsort(events.times_us, kind="stable")
    return PolarityEvents(
        times_us=events.times_us[order], x=events.x[order], y=events.y[order], polarity=events.polarity[order]
    )


def _bounds(times_us: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the first event of each gesture and the first after it, shape (n, 2)."""
    return np.searchsorted(times_us, rows[:, 1:])


def _table_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_labels.csv")


def _with_bar(paths: list[Path], what: str, progress: bool) -> Iterator[Path]:
    from tqdm.auto import tqdm

    return iter(tqdm(paths, desc=what, unit=" trials", disable=not progress))
