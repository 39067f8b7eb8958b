"""THINGS-MEG as its authors preprocessed it: epochs of 27 048 trials a subject at 200 Hz, as recordings.

Hebart et al., eLife 12 (2023), doi:10.7554/eLife.82580; ``derivatives/preprocessed`` of OpenNeuro ds004212:
``preprocessed_P1-epo.fif`` and the parts that follow it (``-epo-1.fif``).
"""

# N epochs, C channels, T samples of an epoch

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from neuroloaders.cache import source_identity
from neuroloaders.checks import check_option, corrupt_file, invalid, missing_data, soft_import
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import RecordingSet
from neuroloaders.released_epochs import epoch_recordings
from neuroloaders.studies.raw_files import SENSORS, flat_positions
from neuroloaders.studies.things_meg import attributes_path, image_rows, read_attributes

__all__ = ["things_meg_epochs"]

_FOLDERS = ("derivatives/preprocessed", "preprocessed", ".")
_FILE = re.compile(r"preprocessed_p(\d+)-epo\.fif(\.gz)?", re.IGNORECASE)
_NUMBERS = ("rt", "image_on", "image_off", "things_image_nr", "things_category_nr")


def things_meg_epochs(
    root: str | os.PathLike[str],
    *,
    subjects: Iterable[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> tuple[RecordingSet, EventTable]:
    """Read the epochs of THINGS-MEG that its authors released.

    Parameters
    ----------
    root : path-like
        The study, or the folder with ``preprocessed_P1-epo.fif``.
    subjects : iterable of str, optional
        Some of "BIGMEG1" and so on, as the raw recordings call them; by default all that are there.
    folder : path-like, optional
        Where to write recordings and events, to be opened as memory maps; see `epoch_recordings`. Without it all is
        kept in memory: 8.2 GB a subject.
    progress : bool
        Show bars.

    Returns
    -------
    recordings : RecordingSet
        One a session, which takes 0.7 GB while it is read: "BIGMEG1_01".
    events : EventTable
        As of `ThingsMEGStudy`, with the kinds "image" and "catch" and the column ``image_set``; further ``run``, and
        ``epoch_tmin`` and ``epoch_tmax``: call `check_inside_epochs` before windows are cut.

    Raises
    ------
    FileNotFoundError
        If there are no such files, or a part of one is missing.
    ValueError
        If a file is damaged, or lacks what was shown.

    Notes
    -----
    The release has 271 channels (MRO11 is left out), was filtered from 0.1 to 40 Hz, cut from -0.1 to 1.3 s around
    the onsets of an optical sensor, divided by the standard deviation of the baseline after its mean was subtracted,
    and resampled to 200 Hz: it has no unit, and its baseline of 0.1 s is not that of Benchetrit et al. 2023
    (arXiv:2310.19812), who start from the raw recordings. Where epochs have no metadata, ``sample_attributes_P1.csv``
    says what was shown, row by row; where that table is there it must have a row for each epoch.
    """
    root = Path(root).expanduser()
    files = _files(root)
    wanted = list(files) if subjects is None else _checked(subjects, files)
    recordings, tables = [], []
    for subject in tqdm(wanted, unit="subject", disable=not progress):
        made, events = _read(root, subject, files[subject], folder, progress)
        recordings.extend(made)
        tables.append(events)
    return RecordingSet(recordings), concatenate_events(tables)


class _Epochs:
    """Epochs on the disk, read slice by slice."""

    def __init__(self, path: Path, epochs: Any, picks: np.ndarray) -> None:
        self._path, self._epochs, self._picks = path, epochs, picks
        self.shape = (len(epochs), len(picks), len(epochs.times))

    def __getitem__(self, rows: slice) -> np.ndarray:
        wanted = range(*rows.indices(self.shape[0]))
        try:
            data = self._epochs[rows].get_data(copy=False, verbose="ERROR")
        except (OSError, ValueError, RuntimeError, TypeError, IndexError) as error:
            raise corrupt_file(self._path, f"MNE says: {error}".replace("\n", " ")) from error
        if len(data) != len(wanted):
            raise corrupt_file(self._path, f"{len(wanted) - len(data)} of its epochs cannot be read")
        # Not by MNE: it would read all epochs to drop a channel.
        return data[:, self._picks]


def _files(root: Path) -> dict[str, Path]:
    """Return the first file of each subject."""
    for place in _FOLDERS:
        found = {}
        for path in sorted((root / place).glob("*")):
            match = _FILE.fullmatch(path.name)
            if match:
                found[f"BIGMEG{int(match[1])}"] = path
        if found:
            return found
    places = [root / place for place in _FOLDERS]
    raise missing_data("THINGS-MEG, preprocessed", ["preprocessed_P*-epo.fif"], places, "They are in ds004212.")


def _checked(subjects: Iterable[str], files: dict[str, Path]) -> list[str]:
    if isinstance(subjects, str):
        raise invalid("subjects", "be a sequence of names", repr(subjects), f"Write [{subjects!r}].", kind=TypeError)
    wanted = [check_option("subjects", subject, files) for subject in dict.fromkeys(subjects)]
    if not wanted:
        raise invalid("subjects", "name at least one", "none")
    return wanted


def _read(
    root: Path, subject: str, path: Path, folder: str | os.PathLike[str] | None, progress: bool
) -> tuple[RecordingSet, EventTable]:
    mne = soft_import("mne", purpose="Reading epochs of THINGS-MEG")
    try:
        with warnings.catch_warnings():
            # MNE 1.13 calls pandas 3.1 in a way that pandas will drop; nothing that a user could change.
            warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
            epochs = mne.read_epochs(path, proj=False, preload=False, verbose="ERROR")
    except FileNotFoundError as error:
        raise missing_data("a part of the epochs", [str(error)], [path.parent], "Fetch all parts of a file.") from error
    except Exception as error:  # a damaged part raises whatever its bytes lead to
        said = str(error) or type(error).__name__
        raise corrupt_file(path, f"MNE says: {said}".replace("\n", " "), "Fetch it and its parts again.") from error
    picks = mne.pick_types(epochs.info, meg=True, ref_meg=False, exclude=[])
    if len(picks) == 0:
        raise corrupt_file(path, f"it holds no {SENSORS['meg']}")
    info = mne.pick_info(epochs.info, picks)
    source, rows = _rows(root, subject, path, epochs)
    epochs.metadata = None  # else a copy of the whole table goes with each slice
    what = image_rows(source, rows)
    numbers = {name: np.array([_float(row[name]) for _, row in rows]) for name in _NUMBERS if name in rows[0][1]}
    session, run = ([row[name] for _, row in rows] for name in ("session_nr", "run_nr"))
    lasting = numbers["image_off"] - numbers["image_on"] if {"image_on", "image_off"} <= set(numbers) else np.zeros(1)
    size = sum(source_identity(part)["bytes"] for part in _parts(path))
    return epoch_recordings(
        _Epochs(path, epochs, picks),
        sfreq=float(info["sfreq"]),
        tmin=float(epochs.times[0]),
        ch_names=info["ch_names"],
        subject=subject,
        session=[f"{int(number):02d}" for number in session],
        stimulus=what["stimulus"],
        split_group=what["split_group"],
        kind=what["kind"],
        duration=np.clip(np.nan_to_num(np.broadcast_to(lasting, len(rows))), 0.0, None),
        extra={"image_set": what["image_set"], "trial_type": what["trial_type"], "run": run, **numbers},
        positions=flat_positions(info),
        bads=info["bads"],
        provenance=f"THINGS-MEG: {path.name} ({size} bytes), as preprocessed by its authors",
        folder=folder,
        progress=progress,
    )


def _rows(root: Path, subject: str, path: Path, epochs: Any) -> tuple[Path, list[tuple[int, dict[str, str]]]]:
    """Return what was shown, row by row, and the file that says it."""
    source = attributes_path(root, subject) or attributes_path(path.parent, subject)
    table = None if source is None else read_attributes(source)
    if table is not None and len(table) != len(epochs):
        raise corrupt_file(source, f"it has {len(table)} rows, {path.name} {len(epochs)} epochs", "Is a part missing?")
    if epochs.metadata is not None:
        frame = epochs.metadata.rename(columns=lambda name: str(name).strip().lower())
        needed = ("trial_type", "image_path", "session_nr", "run_nr")
        absent = [name for name in needed if name not in frame.columns]
        if absent:
            raise corrupt_file(path, f"its metadata have no column {absent[0]!r}")
        texts = frame.astype(object).where(frame.notna(), "").astype(str)
        records = texts.to_dict("records")
        for number, row in enumerate(records, start=1):
            for name in ("session_nr", "run_nr"):
                row[name] = _whole(path, number, name, row[name])
        return path, list(enumerate(records, start=1))
    if source is None or table is None:
        wanted = f"sample_attributes_P{subject.removeprefix('BIGMEG')}.csv"
        advice = f"{path.name} has no metadata; without that table it is not known what was shown."
        raise missing_data("images of the epochs", [wanted], [root / "sourcedata", root, path.parent], advice)
    for line, row in table:
        for name in ("session_nr", "run_nr"):
            row[name] = _whole(source, line, name, row[name])
    return source, table


def _whole(path: Path, line: int, name: str, text: str) -> str:
    value = _float(text)
    if not (np.isfinite(value) and value == int(value) and value >= 0):
        raise corrupt_file(path, f"row {line} has {text!r} in column {name!r}, which must be a whole number")
    return str(int(value))


def _float(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def _parts(path: Path) -> list[Path]:
    """Return the file and the parts that follow it: ``x-epo.fif``, ``x-epo-1.fif``."""
    stem, _, ending = path.name.partition(".")
    return [path, *sorted(path.parent.glob(f"{stem}-*.{ending}"))]
