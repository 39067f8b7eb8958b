"""THINGS-EEG2 as its authors preprocessed it: epochs of four and eighty repetitions an image, as recordings.

Gifford et al., NeuroImage 264 (2022), doi:10.1016/j.neuroimage.2022.119754; osf.io/3jk45, ``preprocessed_data``:
``sub-01/preprocessed_eeg_training.npy`` (16540, 4, 17, 100) and ``preprocessed_eeg_test.npy`` (200, 80, 17, 100).
"""

# I images, R repetitions, N epochs, C channels, T samples of an epoch

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from neuroloaders.cache import source_identity
from neuroloaders.checks import check_option, corrupt_file, invalid, missing_data, soft_import
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import RecordingSet
from neuroloaders.released_epochs import epoch_recordings
from neuroloaders.studies.npy_dicts import read_npy_dict
from neuroloaders.studies.raw_files import flat_positions
from neuroloaders.studies.things_eeg2 import eeg2_images, entry
from neuroloaders.studies.things_images import things_image

__all__ = ["things_eeg2_epochs"]

_FOLDERS = (".", "eeg_dataset/preprocessed_data", "preprocessed_data", "Preprocessed_data_250Hz")
_FILES = {"train": "preprocessed_eeg_training.npy", "test": "preprocessed_eeg_test.npy"}
_SHOWN_S = 0.1


def things_eeg2_epochs(
    root: str | os.PathLike[str],
    *,
    subjects: Iterable[str] | None = None,
    metadata: str | os.PathLike[str] | None = None,
    montage: str = "easycap-M1",
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> tuple[RecordingSet, EventTable]:
    """Read the epochs of THINGS-EEG2 that its authors released.

    Parameters
    ----------
    root : path-like
        The folder with ``sub-01``, or one with ``preprocessed_data`` or ``eeg_dataset`` in it.
    subjects : iterable of str, optional
        Some of "01" and so on; by default all that are there.
    metadata : path-like, optional
        ``image_metadata.npy``; by default looked for as `ThingsEEG2Study` does.
    montage : str
        Places of electrodes by name, of ``mne.channels.make_standard_montage``.
    folder : path-like, optional
        Where to write recordings and events, to be opened as memory maps; see `epoch_recordings`. Without it all is
        kept in memory: 0.56 GB a subject.
    progress : bool
        Show a bar over subjects.

    Returns
    -------
    recordings : RecordingSet
        One a subject, "01", of training and test, so that what is fitted on the training epochs of a subject is there
        for those of the test. It is in memory while it is read.
    events : EventTable
        As of `ThingsEEG2Study`, without targets; and ``epoch_tmin`` and ``epoch_tmax``: call `check_inside_epochs`
        before windows are cut.

    Raises
    ------
    FileNotFoundError
        If there are no such files, or a subject lacks one of the two.
    ValueError
        If a file is damaged, or numbers of images do not agree.

    Notes
    -----
    The release is cut from -0.2 to 0.8 s, has its baseline subtracted, is resampled to 100 Hz, and whitened with the
    covariance of the noise of each session: it has no unit. Which repetition came first, and in which session, is not
    known; ``repeat`` counts them in the order of the file.
    """
    root = Path(root).expanduser()
    place, found = _subjects(root)
    wanted = found if subjects is None else _checked(subjects, found)
    images = eeg2_images(root, None if metadata is None else Path(metadata))
    recordings, tables = [], []
    for subject in tqdm(wanted, unit="subject", disable=not progress):
        parts = {part: _read(place / f"sub-{subject}" / name) for part, name in _FILES.items()}
        made, events = _laid(place, subject, parts, images, montage, folder)
        recordings.extend(made)
        tables.append(events)
    return RecordingSet(recordings), concatenate_events(tables)


class _Part(NamedTuple):
    """A file: its path, samples (I, R, C, T), names of channels, and times of samples in s."""

    path: Path
    samples: np.ndarray
    ch_names: list[str]
    times: np.ndarray


class _Epochs:
    """Epochs of several files one after the other, repetitions of an image together."""

    def __init__(self, parts: Iterable[np.ndarray]) -> None:
        self._parts = list(parts)
        n = sum(part.shape[0] * part.shape[1] for part in self._parts)
        self.shape = (n, *self._parts[0].shape[2:])

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        out, begin = [], 0
        for part in self._parts:
            repeats = part.shape[1]
            low, high = max(first - begin, 0), min(last - begin, part.shape[0] * repeats)
            if low < high:
                image = low // repeats
                block = np.ascontiguousarray(part[image : -(-high // repeats)]).reshape(-1, *self.shape[1:])
                out.append(block[low - image * repeats : high - image * repeats])
            begin += part.shape[0] * repeats
        return np.concatenate(out)


def _subjects(root: Path) -> tuple[Path, list[str]]:
    """Return the folder of the subjects, and who has a file there."""
    for place in _FOLDERS:
        paths = [path for name in _FILES.values() for path in (root / place).glob(f"sub-*/{name}")]
        if paths:
            return root / place, sorted({path.parent.name.removeprefix("sub-") for path in paths})
    places = [root / place for place in _FOLDERS]
    advice = "Unpack preprocessed_data there."
    raise missing_data("THINGS-EEG2, preprocessed", [f"sub-*/{name}" for name in _FILES.values()], places, advice)


def _checked(subjects: Iterable[str], found: list[str]) -> list[str]:
    if isinstance(subjects, str):
        raise invalid("subjects", "be a sequence of names", repr(subjects), f"Write [{subjects!r}].", kind=TypeError)
    wanted = [check_option("subjects", subject, found) for subject in dict.fromkeys(subjects)]
    if not wanted:
        raise invalid("subjects", "name at least one", "none")
    return wanted


def _read(path: Path) -> _Part:
    found = read_npy_dict(path)
    samples = entry(path, found, "preprocessed_eeg_data")
    names = [str(name) for name in entry(path, found, "ch_names")]
    times = np.asarray(entry(path, found, "times"), dtype=np.float64)
    if not isinstance(samples, np.ndarray) or samples.ndim != 4 or samples.dtype.kind != "f" or 0 in samples.shape:
        raise corrupt_file(path, "its preprocessed_eeg_data are no array of images, repetitions, channels and samples")
    if samples.shape[2:] != (len(names), *times.shape):
        reason = f"epochs have shape {samples.shape[2:]}, there are {len(names)} ch_names and times of {times.shape}"
        raise corrupt_file(path, reason)
    step = np.diff(times)
    if len(times) < 2 or not np.isfinite(times).all() or step[0] <= 0 or np.abs(step - step.mean()).max() > 1e-6:
        raise corrupt_file(path, "its times are not evenly spaced")
    return _Part(path, samples, names, times)


def _laid(
    place: Path,
    subject: str,
    parts: dict[str, _Part],
    images: dict[str, list[str]],
    montage: str,
    folder: str | os.PathLike[str] | None,
) -> tuple[RecordingSet, EventTable]:
    train, test = parts["train"], parts["test"]
    if train.ch_names != test.ch_names or not np.array_equal(train.times, test.times):
        raise corrupt_file(test.path, f"its channels or times are not those of {train.path.name}")
    names: list[str] = []
    for part, read in parts.items():
        if len(read.samples) != len(images[part]):
            reason = f"it has epochs of {len(read.samples)} images, image_metadata.npy names {len(images[part])}"
            raise corrupt_file(read.path, reason)
        names += np.repeat(images[part], read.samples.shape[1]).tolist()
    n_train = train.samples.shape[0] * train.samples.shape[1]
    sizes = [source_identity(read.path)["bytes"] for read in parts.values()]
    sfreq = round(1.0 / float(np.diff(train.times).mean()), 6)
    return epoch_recordings(
        _Epochs(read.samples for read in parts.values()),
        sfreq=sfreq,
        tmin=float(train.times[0]),
        ch_names=train.ch_names,
        subject=subject,
        stimulus=names,
        split_group=[things_image(name)[1] for name in names],
        duration=_SHOWN_S,
        extra={"image_set": np.where(np.arange(len(names)) < n_train, "train", "test")},
        positions=_positions(train.ch_names, sfreq, montage),
        provenance=f"THINGS-EEG2: sub-{subject} ({' and '.join(map(str, sizes))} bytes), as preprocessed by"
        " its authors",
        folder=folder,
    )


def _positions(ch_names: list[str], sfreq: float, montage: str) -> Any:
    mne = soft_import("mne", purpose="Placing electrodes")
    info = mne.create_info(ch_names, sfreq, "eeg", verbose="ERROR")
    try:
        places = mne.channels.make_standard_montage(montage)
    except ValueError as error:
        advice = "mne.channels.get_builtin_montages() lists them."
        raise invalid("montage", "be one that MNE knows", repr(montage), advice) from error
    info.set_montage(places, match_case=False, on_missing="ignore", verbose="ERROR")
    return flat_positions(info)
