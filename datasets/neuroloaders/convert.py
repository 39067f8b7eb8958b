"""A published study of M/EEG brought into the form that windows are cut from: once, in parallel, to be resumed.

    folder/
        events.csv, recordings/*        see `recording_files`
        sounds.csv                      which file each sound of the events is, with its length and a hash
        conversion.json                 from what and how

A recording has its name in ``recordings`` when it is whole. Whatever moment a conversion is interrupted at, the next
one goes on with the recordings that are missing or damaged.
"""

# C channels, T samples

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write, remove_leftovers
from neuroloaders.cache import source_identity
from neuroloaders.checks import check_int, check_number, check_option, corrupt_file, invalid, missing_data
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recording_files import open_recordings, save_events, save_recording
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.resampling import resample, resampled_length
from neuroloaders.studies.meeg_study import MEEGStudy, RecordingFile
from neuroloaders.studies.raw_files import flat_positions
from neuroloaders.studies.speech_events import wav_seconds

__all__ = ["ON_ERROR", "continuous_recording", "convert_study", "open_sounds"]

logger = logging.getLogger(__name__)

ON_ERROR = {
    "raise": "convert the others, then raise the first error; the events are not written",
    "skip": "leave recordings out that cannot be read, with a warning for each",
}

_VERSION = 1  # raised when the samples that come out change
_RECORDINGS, _SOUNDS, _RECORD = "recordings", "sounds.csv", "conversion.json"
_SOUND_COLUMNS = ("stimulus", "path", "seconds", "sha256")
_BLOCK_BYTES = 1 << 28  # of samples read at a time, as float64


def convert_study(
    study: MEEGStudy,
    folder: str | os.PathLike[str],
    *,
    sfreq: float = 120.0,
    subjects: Iterable[str] | None = None,
    n_jobs: int = 1,
    on_error: str = "raise",
    progress: bool = True,
) -> RecordingSet:
    """Bring a study to one rate: a float32 memory map for each recording, one table of events, one list of sounds.

    Parameters
    ----------
    study : MEEGStudy
        Such as `MEGMASCStudy`, or what `open_study` returns for a folder of M/EEG.
    folder : path-like
        Where to write; made if it is not there. One conversion at a time may write into it.
    sfreq : float
        Rate in Hz; see `neuroloaders.resampling.resample` for the filter. There is no high-pass filter.
    subjects : iterable of str, optional
        Only these. A later call with more of them adds theirs.
    n_jobs : int
        Recordings at a time, each in a process of its own; -1 for all processors. Each takes about 0.6 GB, and the
        float32 samples at the new rate.
    on_error : str
        A key of `ON_ERROR`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    RecordingSet
        Those of `subjects`, as memory maps. `neuroloaders.open_events` and `open_sounds` read the rest.

    Raises
    ------
    ValueError
        If a table of events is malformed: before anything is converted. If `folder` holds a conversion of another
        study, or with other settings. If a recording cannot be read, unless `on_error` is "skip".
    OSError
        If a file cannot be read or written.

    Notes
    -----
    Events are read anew by each call. A recording is converted again if its file has changed, if it was cut short or
    damaged on the disk, and if it is not there. Positions are those of `neuroloaders.studies.raw_files.flat_positions`.
    """
    if not isinstance(study, MEEGStudy):
        advice = "Open one with open_study, or make its class."
        raise invalid("study", "be a study of M/EEG", study, advice, kind=TypeError)
    sfreq = check_number("sfreq", sfreq, above=0)
    check_option("on_error", on_error, ON_ERROR)
    if n_jobs != -1:
        check_int("n_jobs", n_jobs, at_least=1)
    chosen = _chosen(study, subjects)
    goal = Path(folder).expanduser()
    settings = {"version": _VERSION, "study": study.name, "settings": study.settings, "sfreq": sfreq}
    _check_settings(goal, settings)
    # Before hours of conversion: what is wrong with a table of events is said at once.
    chosen, events = _readable_events(study, chosen, on_error)
    (goal / _RECORDINGS).mkdir(parents=True, exist_ok=True)
    remove_leftovers(goal)
    for recording in chosen:
        for leftover in (goal / _RECORDINGS).glob(f".partial-*-{_escaped(recording.name)}"):
            shutil.rmtree(leftover, ignore_errors=True)
    with atomic_write(goal / _RECORD, "w") as file:
        json.dump(settings, file, indent=1)
    missing = [recording for recording in chosen if not _is_whole(study, recording, goal, sfreq)]
    failed = _convert_all(study, missing, goal, sfreq, n_jobs=n_jobs, progress=progress)
    if failed and on_error == "raise":
        name, others = next(iter(failed)), len(failed) - 1
        more = f"; so it is with {others} more" if others else ""
        advice = "The others are converted. Call again once it is repaired, or pass on_error='skip'."
        raise corrupt_file(f"recording {name}", f"{failed[name]}{more}", advice)
    for name, error in failed.items():
        logger.warning("Left out the recording %s: %s", name, error)
    chosen = [recording for recording in chosen if recording.name not in failed]
    if not chosen:
        raise missing_data(study.name, ["recordings that can be read"], [study.root], "The log names the errors.")
    events = _with_earlier(goal, events.where(recording=[recording.name for recording in chosen]))
    _save_sounds(study, events, goal)
    save_events(events, goal)
    names = {recording.name for recording in chosen}
    return RecordingSet(recording for recording in open_recordings(goal) if recording.name in names)


def continuous_recording(
    study: MEEGStudy, recording: RecordingFile | str, *, sfreq: float = 120.0
) -> ContinuousRecording:
    """Return one recording of a study at another rate, in memory.

    Parameters
    ----------
    study : MEEGStudy
        The study.
    recording : RecordingFile or str
        Which, by itself or by its name.
    sfreq : float
        Rate in Hz.

    Returns
    -------
    ContinuousRecording
        The sensors of the study's kind, in V or T, from time 0 on.
    """
    known = study.named(recording)
    raw = study.raw(known)
    rate, n_times = float(raw.info["sfreq"]), int(raw.n_times)
    n_channels = len(raw.ch_names)
    data = np.empty((n_channels, resampled_length(n_times, rate, sfreq)), dtype=np.float32)
    # Some channels at a time, in double precision: hours at 1 kHz do not fit into memory as a whole.
    step = max(1, _BLOCK_BYTES // (8 * n_times))
    for first in range(0, n_channels, step):
        block = raw.get_data(picks=np.arange(first, min(first + step, n_channels)), verbose="ERROR")
        data[first : first + step] = resample(block, rate, sfreq)
    return ContinuousRecording(
        data=data,
        sfreq=sfreq,
        ch_names=tuple(raw.ch_names),
        subject=known.subject,
        session=known.session,
        run=known.run,
        positions=flat_positions(raw.info),
        bads=tuple(raw.info["bads"]),
        provenance=_provenance(study, known, sfreq),
    )


def open_sounds(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the sounds of a converted study: stimulus, as events name it -> wav file.

    Parameters
    ----------
    folder : path-like
        What `convert_study` wrote into.

    Returns
    -------
    dict of str to Path
        Each sound once, so that its features are computed once. Those whose files were not there are left out.

    Raises
    ------
    FileNotFoundError
        If there is no list of sounds.
    """
    path = Path(folder).expanduser() / _SOUNDS
    if not path.is_file():
        raise missing_data("list of sounds", [_SOUNDS], [folder], "Convert the study with convert_study.")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and tuple(rows[0]) != _SOUND_COLUMNS:
        raise corrupt_file(path, f"its columns are {', '.join(rows[0])}", "Convert the study again.")
    return {row["stimulus"]: Path(row["path"]) for row in rows if row["sha256"]}


def _chosen(study: MEEGStudy, subjects: Iterable[str] | None) -> list[RecordingFile]:
    if subjects is None:
        return list(study.recordings)
    if isinstance(subjects, str):
        raise invalid("subjects", "be a sequence of names", repr(subjects), f"Write [{subjects!r}].", kind=TypeError)
    wanted = {check_option("subjects", subject, study.subjects) for subject in subjects}
    chosen = [recording for recording in study.recordings if recording.subject in wanted]
    if not chosen:
        raise invalid("subjects", "name at least one", "none")
    return chosen


def _check_settings(goal: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds something else."""
    path = goal / _RECORD
    if not path.exists():
        if any((goal / _RECORDINGS).glob("[!.]*")):
            raise invalid("folder", "be a new one, or of an earlier conversion", f"recordings without {_RECORD}")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise corrupt_file(path, str(error), "Delete the folder, or choose another one.") from error
    differing = [key for key in settings if not isinstance(before, dict) or before.get(key) != settings[key]]
    if differing:
        key = differing[0]
        got = f"one with {key} {before.get(key) if isinstance(before, dict) else before!r}"
        raise invalid("folder", f"hold a conversion with {key} {settings[key]!r}", got, "Choose another folder.")


def _readable_events(
    study: MEEGStudy, chosen: list[RecordingFile], on_error: str
) -> tuple[list[RecordingFile], EventTable]:
    if on_error == "raise":
        return chosen, study.events(chosen)
    kept = []
    for recording in chosen:
        try:
            study.events(recording)
            kept.append(recording)
        except (OSError, ValueError) as error:
            logger.warning("Left out the recording %s: %s", recording.name, error)
    if not kept:
        raise missing_data(study.name, ["events that can be read"], [study.root], "The log names the errors.")
    return kept, study.events(kept)


def _convert_all(
    study: MEEGStudy, recordings: Sequence[RecordingFile], goal: Path, sfreq: float, *, n_jobs: int, progress: bool
) -> dict[str, str]:
    """Convert recordings, and return what is wrong with those that could not be."""
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    jobs = (delayed(_convert_one)(study, recording, goal, sfreq) for recording in recordings)
    # One at a time needs no other process, and no second import of everything.
    done = Parallel(n_jobs=min(n_jobs, max(len(recordings), 1)), return_as="generator_unordered")(jobs)
    failed = {}
    for name, error in tqdm(done, total=len(recordings), unit="recording", disable=not progress):
        if error:
            failed[name] = error
    return {recording.name: failed[recording.name] for recording in recordings if recording.name in failed}


def _convert_one(study: MEEGStudy, recording: RecordingFile, goal: Path, sfreq: float) -> tuple[str, str]:
    """Convert a recording, and return its name, and what is wrong with it, if anything."""
    try:
        made = continuous_recording(study, recording, sfreq=sfreq)
    except Exception as error:  # whatever a damaged file leads to, it is of this recording only
        return recording.name, f"{type(error).__name__}: {error}"
    save_recording(made, goal, overwrite=True)  # a full disk stops all of them
    return recording.name, ""


def _is_whole(study: MEEGStudy, recording: RecordingFile, goal: Path, sfreq: float) -> bool:
    """Tell whether a recording is there as it would be written, from its record and the size of its samples."""
    folder = goal / _RECORDINGS / recording.name
    try:
        record = json.loads((folder / "recording.json").read_text(encoding="utf-8"))
        data = np.load(folder / "data.npy", mmap_mode="r", allow_pickle=False)
        whole = list(data.shape) == record["shape"] and data.dtype == np.float32
        return whole and record["provenance"] == _provenance(study, recording, sfreq)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return False


def _provenance(study: MEEGStudy, recording: RecordingFile, sfreq: float) -> str:
    where = recording.path.relative_to(study.root).as_posix()
    # Of the bytes, not of the times of the last change, which copying changes.
    n_bytes = source_identity(recording.path)["bytes"]
    how = f"resampled to {sfreq:g} Hz by a polyphase filter, no high-pass filter"
    return f"{study.name}: {where} ({n_bytes} bytes), {study.kind} channels, {how}, version {_VERSION}"


def _with_earlier(goal: Path, events: EventTable) -> EventTable:
    """Return events with those of recordings that earlier calls converted, and this one was not asked for."""
    path = goal / "events.csv"
    if not path.exists():
        return events
    earlier = EventTable.load(path)
    there = {entry.name for entry in (goal / _RECORDINGS).iterdir() if not entry.name.startswith(".")}
    others = [name for name in np.unique(earlier.recording) if name in there - set(events.recording.tolist())]
    if not others:
        return events
    kept = earlier.where(recording=others)
    for name in events.extra.keys() - kept.extra.keys():
        kept = kept.with_column(name, np.full(len(kept), "", dtype=str))
    for name in kept.extra.keys() - events.extra.keys():
        events = events.with_column(name, np.full(len(events), "", dtype=str))
    return concatenate_events([kept, events])


def _save_sounds(study: MEEGStudy, events: EventTable, goal: Path) -> None:
    absent = []
    with atomic_write(goal / _SOUNDS, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_SOUND_COLUMNS)
        for stimulus, path in study.sounds(events).items():
            length, digest = wav_seconds(path), ""
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                absent.append(path)
            row = (stimulus, os.fspath(path.absolute()), "" if length is None else repr(length), digest)
            writer.writerow(row)
    if absent:
        logger.warning("%d sounds are not there, the first %s", len(absent), absent[0])


def _escaped(name: str) -> str:
    return "".join(f"[{mark}]" if mark in "*?[" else mark for mark in name)
