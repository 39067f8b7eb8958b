"""THINGS-EEG2: ten subjects look at 16 740 images of things, five a second; 63 electrodes at 1000 Hz.

Gifford, Dwivedi, Roig & Cichy, NeuroImage 264 (2022), doi:10.1016/j.neuroimage.2022.119754; osf.io/3jk45. Dictionaries
of arrays that ``np.save`` wrote: ``sub-01/ses-01/raw_eeg_training.npy``, ``raw_eeg_test.npy``, ``image_metadata.npy``.
What is said here of them is what the authors' code writes; it is checked when they are read.
"""

# C channels, T samples

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuroloaders.checks import check_number, corrupt_file, invalid, missing_data, soft_import
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.studies.meeg_study import MEEGStudy, RecordingFile
from neuroloaders.studies.npy_dicts import read_npy_dict
from neuroloaders.studies.things_images import things_image, things_image_paths

__all__ = ["ThingsEEG2Study", "eeg2_images", "entry"]

# Where the folders of subjects are, from the folder that a user has.
_RAW = (".", "eeg_dataset/raw_data", "raw_data", "raw-eeg", "Raw_data")
_METADATA = ("image_set", ".", "images_set", "stimuli", "..", "../image_set", "../../image_set")
_FILES = {"raw_eeg_training.npy": "train", "raw_eeg_test.npy": "test"}
_TARGET = 99_999


class _Part(NamedTuple):
    """A file of a session: its path, "train" or "test", samples (C, T), names and types of channels, rate in Hz."""

    path: Path
    image_set: str
    samples: np.ndarray
    ch_names: list[str]
    ch_types: list[str]
    sfreq: float


class ThingsEEG2Study(MEEGStudy):
    """THINGS-EEG2, the raw recordings.

    Parameters
    ----------
    root : path-like
        The folder with ``sub-01``, or one with ``raw_data`` or ``eeg_dataset`` in it.
    metadata : path-like, optional
        ``image_metadata.npy``; by default looked for in `root`, in ``image_set``, and beside them.
    montage : str
        Places of electrodes by name, of ``mne.channels.make_standard_montage``.
    duration_s : float
        How long an image was shown, in s.

    Attributes
    ----------
    name, kind : str
        "THINGS-EEG2", "eeg".
    recordings : tuple of RecordingFile
        One a session, of its training and its test part in this order: subject "01", session "01".

    Notes
    -----
    Events are of the kinds "image" and "target" (the toy that subjects counted). An image has its file name as
    stimulus, its category as split_group (see `things_image`), and the columns ``image_set``, "train" or "test", and
    ``image_number``, from 1. The last row of the samples, ``stim``, has the number at the sample of the onset, 99999
    for a target, else 0. Images are shown every 0.2 s, so that a window longer than that holds others, too; the test
    has images and categories of its own.

    The two parts of a session are one recording, so that what is fitted on the training part is there for the test;
    the authors put the training part together from five such pieces. No window around an image should reach over such
    a seam, as long as there is rest at the ends of a piece; only the seam before the test is known.

    Of a file, `events` reads one row; `raw` has a session in memory as float64, some 2 GB, and so has each process of
    `convert_study`. Samples are taken to be in V, as MNE gives them.
    """

    name = "THINGS-EEG2"
    kind = "eeg"
    _wanted = "sub-*/ses-*/raw_eeg_*.npy"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        metadata: str | os.PathLike[str] | None = None,
        montage: str = "easycap-M1",
        duration_s: float = 0.1,
    ) -> None:
        super().__init__(root)
        self.montage, self.duration_s = montage, check_number("duration_s", duration_s, at_least=0)
        self._metadata = None if metadata is None else Path(metadata)
        self.settings = f"montage {montage}"

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Return whether there is a recording of this name."""
        return any(any((root / place).glob(cls._wanted)) for place in _RAW)

    def _find(self) -> list[RecordingFile]:
        for place in _RAW:
            folders = {path.parent for path in (self.root / place).glob(self._wanted) if path.name in _FILES}
            found = [
                RecordingFile(
                    subject=folder.parent.name.removeprefix("sub-"),
                    session=folder.name.removeprefix("ses-"),
                    path=folder,
                )
                for folder in folders
            ]
            if found:
                return sorted(found, key=lambda item: (item.subject, item.session))
        return []

    def raw(self, recording: RecordingFile | str) -> Any:
        """Return a recording as ``mne.io.RawArray``: its electrodes, in V, placed."""
        parts = _parts(self.named(recording))
        names, types, sfreq = parts[0].ch_names, parts[0].ch_types, parts[0].sfreq
        keep = [k for k, kind in enumerate(types) if kind == "eeg"]
        if not keep:
            raise corrupt_file(parts[0].path, f"its channels are {', '.join(sorted(set(types)))}, none is 'eeg'")
        samples = np.empty((len(keep), sum(part.samples.shape[1] for part in parts)), dtype=np.float64)
        for row, k in enumerate(keep):  # row by row: the files are mapped, not read as a whole
            np.concatenate([part.samples[k] for part in parts], out=samples[row])
        mne = soft_import("mne", purpose="Reading M/EEG")
        info = mne.create_info([names[k] for k in keep], sfreq, "eeg", verbose="ERROR")
        raw = mne.io.RawArray(samples, info, copy=None, verbose="ERROR")
        try:
            montage = mne.channels.make_standard_montage(self.montage)
        except ValueError as error:
            advice = "mne.channels.get_builtin_montages() lists them."
            raise invalid("montage", "be one that MNE knows", repr(self.montage), advice) from error
        raw.set_montage(montage, match_case=False, on_missing="ignore", verbose="ERROR")
        return raw

    def sound_path(self, stimulus: str) -> Path:
        """Return a place below the study; there are no sounds."""
        return self.root / stimulus

    def image_paths(self, images: Any, folder: str | os.PathLike[str] | None = None) -> list[Path]:
        """Return where images lie, in the order of `images`; by default below the study. See `things_image_paths`."""
        return things_image_paths(images, self.root if folder is None else folder)

    @cached_property
    def images(self) -> dict[str, list[str]]:
        """The file names of the images, "train" and "test", in the order of their numbers."""
        return eeg2_images(self.root, self._metadata)

    def _events(self, recording: RecordingFile) -> EventTable:
        tables, offset = [], 0
        for part in _parts(recording):
            tables.append(self._part_events(recording.name, part, offset))
            offset += part.samples.shape[1]
        return concatenate_events(tables)

    def _part_events(self, name: str, part: _Part, offset: int) -> EventTable:
        path, types = part.path, part.ch_types
        if types.count("stim") != 1:
            raise corrupt_file(path, f"it has {types.count('stim')} channels of the type 'stim', not one")
        values = np.asarray(part.samples[types.index("stim")], dtype=np.float64)
        begins = np.flatnonzero((values != 0) & (np.concatenate([[0.0], values[:-1]]) != values))
        numbers = values[begins]
        files = self.images[part.image_set]
        known = np.isin(numbers, np.arange(1, len(files) + 1)) | (numbers == _TARGET)
        if not known.all():
            wrong = int((~known).argmax())
            reason = f"{part.ch_names[types.index('stim')]!r} is {numbers[wrong]:g} at sample {begins[wrong]}"
            raise corrupt_file(path, reason, f"There are images 1 to {len(files)}, and targets, {_TARGET}.")
        numbers = numbers.astype(np.int64)
        shown = numbers != _TARGET
        image = [files[number - 1] if number != _TARGET else "target" for number in numbers.tolist()]
        groups = [things_image(file)[1] if there else "target" for file, there in zip(image, shown, strict=True)]
        return EventTable(
            start=(begins + offset) / part.sfreq,
            duration=np.where(shown, self.duration_s, 0.0),
            recording=np.full(len(begins), name),
            kind=np.where(shown, "image", "target"),
            stimulus=np.array(image, dtype=str),
            split_group=np.array(groups, dtype=str),
            extra={"image_set": np.where(shown, part.image_set, ""), "image_number": np.where(shown, numbers, 0)},
        )


def eeg2_images(root: Path, metadata: Path | None = None) -> dict[str, list[str]]:
    """Return the file names of the images of THINGS-EEG2, "train" and "test", in the order of their numbers.

    Parameters
    ----------
    root : Path
        Where, and around where, to look for ``image_metadata.npy``.
    metadata : Path, optional
        The file itself.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is damaged, or an image is in both sets or twice in one.
    """
    places = [root / place for place in _METADATA]
    path = next((place / "image_metadata.npy" for place in places if (place / "image_metadata.npy").is_file()), None)
    path = metadata or path
    if path is None:
        raise missing_data("images of THINGS-EEG2", ["image_metadata.npy"], places, "Pass metadata=...")
    found = read_npy_dict(path)
    out = {}
    for part in ("train", "test"):
        names = list(entry(path, found, f"{part}_img_files"))
        if not names or not all(isinstance(name, str) for name in names):
            raise corrupt_file(path, f"{part}_img_files holds no names of files")
        for name in names:
            try:
                things_image(name)
            except ValueError as error:
                raise corrupt_file(path, f"{part}_img_files has {name!r}", "Names are like 'dog_12s.jpg'.") from error
        out[part] = [str(name) for name in names]
    whole = out["train"] + out["test"]
    if len(set(whole)) < len(whole):
        twice = next(name for name in whole if whole.count(name) > 1)
        raise corrupt_file(path, f"the image {twice!r} is there twice")
    return out


def entry(path: Path, found: dict[str, Any], name: str) -> Any:
    """Return an entry of a dictionary that was read from `path`; say so if it is not there."""
    if name not in found:
        raise corrupt_file(
            path, f"it has no entry {name!r}, but {', '.join(found)}", "Is it the file of another study?"
        )
    return found[name]


def _parts(recording: RecordingFile) -> list[_Part]:
    """Return the parts of a session that are there; their channels and rates are the same."""
    paths = [recording.path / name for name in _FILES if (recording.path / name).is_file()]
    parts = [_part(path) for path in paths]
    for part in parts[1:]:
        if (part.ch_names, part.ch_types, part.sfreq) != (parts[0].ch_names, parts[0].ch_types, parts[0].sfreq):
            raise corrupt_file(part.path, f"its channels or its rate are not those of {parts[0].path.name}")
    return parts


def _part(path: Path) -> _Part:
    found = read_npy_dict(path)
    samples = entry(path, found, "raw_eeg_data")
    names, types = ([str(item) for item in entry(path, found, name)] for name in ("ch_names", "ch_types"))
    sfreq = entry(path, found, "sfreq")
    if not isinstance(samples, np.ndarray) or samples.ndim != 2 or samples.dtype.kind not in "fiu":
        raise corrupt_file(path, "its raw_eeg_data are no array of channels by samples")
    if not len(samples) == len(names) == len(types):
        reason = f"it has {len(samples)} rows of samples, {len(names)} names and {len(types)} types of channels"
        raise corrupt_file(path, reason)
    if len(set(names)) < len(names):
        raise corrupt_file(path, f"names of channels are not all different: {', '.join(names[:5])}, ...")
    if isinstance(sfreq, bool) or not isinstance(sfreq, (int, float)) or not 0 < sfreq < np.inf:
        raise corrupt_file(path, f"its sfreq is {sfreq!r}, no rate in Hz")
    return _Part(path, _FILES[path.name], samples, names, types, float(sfreq))
