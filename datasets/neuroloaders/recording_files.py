"""A study on disk in the form that windows are cut from: a folder a recording, and one table of events.

    study/
        events.csv                      see `events_table`
        recordings/01_s1_r1/data.npy    float32, (C, T), at the rate that is trained on
                            recording.json

A recording is written under another name and renamed when it is whole: what has its name can be read. Its samples are
opened as a memory map.
"""

# C channels, T samples

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.archives import partial_name
from neuroloaders.checks import check_int, corrupt_file, explain_os_error, invalid, missing_data
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import ContinuousRecording, RecordingSet, channel_faults

__all__ = ["open_events", "open_recordings", "save_events", "save_recording"]

_VERSION = 1
_DATA, _RECORD, _FOLDER, _EVENTS = "data.npy", "recording.json", "recordings", "events.csv"
_COPIED = 1 << 24  # bytes at a time


def save_recording(
    recording: ContinuousRecording, folder: str | os.PathLike[str], *, overwrite: bool = False
) -> ContinuousRecording:
    """Write a recording into the folder of a study.

    Parameters
    ----------
    recording : ContinuousRecording
        May be larger than memory if its samples are a memory map. Its channels are looked at on the way, see
        `channel_faults`.
    folder : path-like
        The study; made if it is not there.
    overwrite : bool
        Replace a recording of the same name.

    Returns
    -------
    ContinuousRecording
        The one on the disk.

    Raises
    ------
    FileExistsError
        If there is one of this name and `overwrite` is not set.
    OSError
        If it cannot be written. The study is then as it was.
    """
    goal = Path(folder) / _FOLDER / recording.name
    if goal.exists() and not overwrite:
        advice = "Pass overwrite=True to replace it."
        raise invalid("recording", "not be there already", os.fspath(goal), advice, kind=FileExistsError)
    partial = goal.with_name(partial_name(goal.name))
    try:
        partial.mkdir(parents=True)
        _copy(recording.data, partial / _DATA)
        faults = channel_faults(recording.data, recording.ch_names)
        (partial / _RECORD).write_text(json.dumps(_record(recording, faults), indent=1), encoding="utf-8")
        _replace(partial, goal)
    except OSError as error:
        raise explain_os_error("write", goal, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _opened(goal)


def open_recordings(
    folder: str | os.PathLike[str], *, subjects: Iterable[str] | None = None, in_memory: bool = False
) -> RecordingSet:
    """Open the recordings of a study, ordered by name.

    Parameters
    ----------
    folder : path-like
        What `save_recording` wrote into.
    subjects : iterable of str, optional
        Only these, numbered in the order in which their recordings stand.
    in_memory : bool
        Read the samples now, instead of opening memory maps.

    Returns
    -------
    RecordingSet

    Raises
    ------
    FileNotFoundError
        If there is no recording.
    ValueError
        If a file is damaged or cut short.
    """
    root = Path(folder) / _FOLDER
    # Names that begin with a dot are of recordings that are being written, or never were finished.
    found = sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not found:
        advice = "Write some with save_recording."
        raise missing_data("recordings", [f"{_FOLDER}/*/{_RECORD}"], [folder], advice)
    recordings = RecordingSet(_opened(path, in_memory) for path in found)
    return recordings if subjects is None else recordings.of_subjects(subjects)


def save_events(events: EventTable, folder: str | os.PathLike[str]) -> None:
    """Write the events of a study, in place of those that were there.

    Parameters
    ----------
    events : EventTable
        Of all its recordings.
    folder : path-like
        The folder of the study; made if it is not there.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    events.save(Path(folder) / _EVENTS)


def open_events(folder: str | os.PathLike[str]) -> EventTable:
    """Read the events of a study.

    Parameters
    ----------
    folder : path-like
        The folder of the study.

    Returns
    -------
    EventTable
    """
    return EventTable.load(Path(folder) / _EVENTS)


def _record(recording: ContinuousRecording, faults: dict[str, str]) -> dict[str, Any]:
    positions = recording.positions
    return {
        "version": _VERSION,
        "shape": list(recording.data.shape),
        "sfreq": recording.sfreq,
        "start": recording.start,
        "subject": recording.subject,
        "session": recording.session,
        "run": recording.run,
        "ch_names": list(recording.ch_names),
        "bads": list(recording.bads),
        "faults": faults,
        "positions": None if positions is None else positions.astype(float).tolist(),
        "provenance": recording.provenance,
    }


def _copy(data: np.ndarray, path: Path) -> None:
    # Written, not mapped: a full disk is then an error that says so, and not a signal that ends the process.
    with open(path, "xb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": data.shape}
        np.lib.format.write_array_header_1_0(file, header)
        rows = max(_COPIED // max(data[0].nbytes, 1), 1)
        for first in range(0, len(data), rows):
            file.write(np.ascontiguousarray(data[first : first + rows], dtype="<f4").data)
        file.flush()
        os.fsync(file.fileno())


def _replace(partial: Path, goal: Path) -> None:
    old = goal.with_name(partial_name(goal.name))
    with contextlib.suppress(FileNotFoundError):
        goal.rename(old)  # folders cannot be exchanged in one act: for a moment neither is there
    try:
        partial.rename(goal)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            old.rename(goal)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _opened(path: Path, in_memory: bool = False) -> ContinuousRecording:
    advice = f"Delete the folder {os.fspath(path)!r} and write it again."
    try:
        record = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        version = check_int("version", record.pop("version"), at_least=1)
        shape = tuple(record.pop("shape"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise corrupt_file(path / _RECORD, str(error), advice) from error
    if version > _VERSION:
        raise corrupt_file(path / _RECORD, f"it is of version {version}, newer than {_VERSION}", "Update this package.")
    try:
        data = np.load(path / _DATA, mmap_mode=None if in_memory else "r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise corrupt_file(path / _DATA, str(error), advice) from error
    if data.shape != shape or data.dtype != np.float32:
        raise corrupt_file(path / _DATA, f"it holds {data.shape} of {data.dtype}, not {shape} of float32", advice)
    try:
        recording = ContinuousRecording(data=data, **record)
    except (TypeError, ValueError) as error:
        raise corrupt_file(path / _RECORD, str(error), advice) from error
    if recording.name != path.name:
        raise corrupt_file(path, f"it holds the recording {recording.name!r}", "Give the folder that name.")
    return recording
