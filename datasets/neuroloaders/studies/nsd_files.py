"""The files of the Natural Scenes Dataset: the design, regions of interest, and single-trial responses.

What the layout is taken from: the data manual of NSD (https://cvnlab.slite.page/p/CT9Fwl4_hc/NSD-Data-Manual) as far
as others quote it, and code that reads the published files: brain-diffuser (design, betas in NIfTI), the authors' own
MATLAB scripts (axes of the HDF5 files), brain-score and algonauts (labels of the regions).
"""

# n trials, x, y, z axes of a volume, p voxels

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import corrupt_file, invalid, soft_import
from neuroloaders.nifti import check_grid, masked_series, read_volume, series_shape

__all__ = ["N_IMAGES", "REGIONS", "VISUAL_AREAS", "NSDDesign", "read_design", "read_regions", "read_session"]

N_IMAGES = 73000
TRIALS_PER_SESSION = 750
BETA_SCALE = 300  # betas are stored as int16, percent signal change times 300
N_SHARED = 1000  # the first images of each subject's 10,000 are those that all subjects saw
_SLAB_BYTES = 2**26  # of an HDF5 file, in memory at a time

# File in roi/ -> name of a region -> its label. Labels of -1 and 0 are outside of all.
REGIONS: dict[str, dict[str, int]] = {
    "nsdgeneral": {"nsdgeneral": 1},
    "prf-visualrois": {"V1v": 1, "V1d": 2, "V2v": 3, "V2d": 4, "V3v": 5, "V3d": 6, "hV4": 7},
    "prf-eccrois": {"ecc0pt5": 1, "ecc1": 2, "ecc2": 3, "ecc4": 4, "ecc4+": 5},
    "floc-faces": {"OFA": 1, "FFA-1": 2, "FFA-2": 3, "mTL-faces": 4, "aTL-faces": 5},
    "floc-words": {"OWFA": 1, "VWFA-1": 2, "VWFA-2": 3, "mfs-words": 4, "mTL-words": 5},
    "floc-places": {"OPA": 1, "PPA": 2, "RSC": 3},
    "floc-bodies": {"EBA": 1, "FBA-1": 2, "FBA-2": 3, "mTL-bodies": 4},
    "streams": {
        "early": 1,
        "midventral": 2,
        "midlateral": 3,
        "midparietal": 4,
        "ventral": 5,
        "lateral": 6,
        "parietal": 7,
    },
}
# Visual areas of both halves of the visual field, from prf-visualrois.
VISUAL_AREAS = {"V1": ("V1v", "V1d"), "V2": ("V2v", "V2d"), "V3": ("V3v", "V3d"), "V4": ("hV4",)}


@dataclass(frozen=True, eq=False, kw_only=True)
class NSDDesign:
    """Which image was shown when, the same order of places for all subjects.

    Parameters
    ----------
    order : ndarray of int64, shape (n,)
        For each trial, a place among a subject's images, from 0; places below 1000 are images that all saw.
    images : ndarray of int64, shape (n_subjects, n_places)
        For each subject and place, the image, from 0 to 72999.
    sessions : ndarray of int64, shape (n,)
        The session of each trial, from 1.
    runs : ndarray of int64, shape (n,), optional
        The run of each trial, from 1 and counted on over sessions.
    """

    order: np.ndarray
    images: np.ndarray
    sessions: np.ndarray
    runs: np.ndarray | None

    def stimuli(self, subject: int) -> np.ndarray:
        """Return the image of each trial, from 0, for a subject from 1."""
        return self.images[subject - 1, self.order]

    @property
    def shared(self) -> np.ndarray:
        """The images that all subjects saw, sorted."""
        return np.sort(self.images[0, :N_SHARED])


def read_design(path: str | os.PathLike[str]) -> NSDDesign:
    """Read ``nsd_expdesign.mat``.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it lacks a variable, or its numbers are not what NSD's are (from 1; the first 1000
        images of each subject the same, and those of ``sharedix``).
    """
    path = Path(path)
    if not path.is_file():
        required = "be the design of NSD"
        raise invalid("path", required, f"{os.fspath(path)!r}, which does not exist", kind=FileNotFoundError)
    loadmat = soft_import("scipy.io", purpose="Reading nsd_expdesign.mat").loadmat
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises whatever the damaged bytes lead to
        raise corrupt_file(path, f"it is no MATLAB file of version 5, or damaged ({error})") from error
    for name in ("masterordering", "subjectim", "sharedix"):
        if name not in content:
            raise corrupt_file(path, f"it has no variable {name!r}", "Take the file that NSD publishes.")
    order = content["masterordering"].ravel().astype(np.int64) - 1
    images = np.atleast_2d(content["subjectim"]).astype(np.int64) - 1
    shared = content["sharedix"].ravel().astype(np.int64) - 1
    if order.size == 0 or order.min() < 0 or order.max() >= images.shape[1]:
        raise corrupt_file(path, f"`masterordering` does not lie in 1..{images.shape[1]}")
    if images.min() < 0 or images.max() >= N_IMAGES:
        raise corrupt_file(path, f"`subjectim` does not lie in 1..{N_IMAGES}")
    first = np.sort(images[:, :N_SHARED], axis=1)
    if first.shape[1] != len(shared) or not (first == np.sort(shared)).all():
        raise corrupt_file(path, "the first 1000 images of each subject are not those of `sharedix`")
    sessions, runs = _when(path, content.get("stimpattern"), len(order))
    return NSDDesign(order=order, images=images, sessions=sessions, runs=runs)


def _when(path: Path, pattern: Any, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return session and run of each trial; `pattern` (sessions, runs, places) is 1 where an image was shown."""
    if pattern is None:
        return np.arange(n) // TRIALS_PER_SESSION + 1, None
    counts = np.asarray(pattern).astype(np.int64).sum(axis=-1)
    if counts.ndim != 2 or counts.sum() != n:
        raise corrupt_file(path, f"`stimpattern` shows {counts.sum()} images, `masterordering` {n}")
    sessions = np.repeat(np.arange(len(counts)) + 1, counts.sum(axis=1))
    return sessions, np.repeat(np.arange(counts.size) + 1, counts.ravel())


def read_regions(folder: Path, label_folders: Iterable[Path] = ()) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Read the regions of interest of a subject.

    Parameters
    ----------
    folder : Path
        ``.../func1pt8mm/roi``.
    label_folders : iterable of Path
        Where the tables ``<file>.mgz.ctab`` of label names may lie. Without one, `REGIONS` names the labels.

    Returns
    -------
    regions : dict of str to ndarray of bool, shape (x, y, z)
        Each region by its name; each file by its own name, as the union of its regions; and V1, V2, V3, V4.
    affine : ndarray or None
        Of the first file; None if there are no files.
    """
    regions: dict[str, np.ndarray] = {}
    shape, affine, first = None, None, None
    for file, labels in REGIONS.items():
        path = folder / f"{file}.nii.gz"
        if not path.is_file():
            continue
        volume, here = read_volume(path)
        if shape is None:
            shape, affine, first = volume.shape, here, path
        check_grid(f"roi/{path.name}", volume.shape, shape, first)
        for name, label in _labels(file, labels, label_folders).items():
            regions[name] = volume == label
        regions[file] = volume > 0
    for area, halves in VISUAL_AREAS.items():
        if all(half in regions for half in halves):
            regions[area] = np.any([regions[half] for half in halves], axis=0)
    return regions, affine


def _labels(file: str, known: dict[str, int], folders: Iterable[Path]) -> dict[str, int]:
    for folder in folders:
        path = folder / f"{file}.mgz.ctab"
        if not path.is_file():
            continue
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        try:
            table = {name: int(label) for label, name, *_ in rows}
        except ValueError as error:
            raise corrupt_file(path, f"a line is no label and name ({error})") from error
        return {name: label for name, label in table.items() if label > 0}
    return known


def read_session(path: Path, mask: np.ndarray, n_trials: int) -> np.ndarray:
    """Read the responses of one session in percent signal change.

    Parameters
    ----------
    path : Path
        ``betas_session01.nii.gz`` or ``.hdf5``.
    mask : ndarray of bool, shape (x, y, z)
        Which voxels.
    n_trials : int
        How many trials the design has for this session.

    Returns
    -------
    ndarray of float32, shape (n_trials, p)
        Stored numbers over 300, voxels in C order of the mask.
    """
    shape = session_shape(path)
    check_grid("roi", mask.shape, shape[:3], path)
    if shape[3] != n_trials:
        raise corrupt_file(path, f"it holds {shape[3]} trials, the design {n_trials}")
    out = np.empty((n_trials, int(mask.sum())), dtype=np.float32)
    if path.suffix == ".hdf5":
        _read_hdf5(path, mask, out)
    else:
        for trial, values in enumerate(masked_series(path, mask)):
            out[trial] = values
    out /= np.float32(BETA_SCALE)
    return out


def session_shape(path: Path) -> tuple[int, int, int, int]:
    """Return (x, y, z, trials) of a session's file."""
    if path.suffix != ".hdf5":
        return series_shape(path)[0]
    with _hdf5(path) as file:
        # HDF5 lists axes the other way round than MATLAB, which wrote them: (trials, z, y, x).
        return tuple(int(size) for size in file["betas"].shape[::-1])


def _read_hdf5(path: Path, mask: np.ndarray, out: np.ndarray) -> None:
    turned = np.ascontiguousarray(mask.T)
    # Columns in C order of (x, y, z), where the voxels come in C order of (z, y, x).
    z, y, x = np.nonzero(turned)
    column = np.empty(mask.shape, dtype=np.int64)
    column[mask] = np.arange(int(mask.sum()))
    column = column[x, y, z]
    with _hdf5(path) as file:
        data = file["betas"]
        n, depth = data.shape[:2]
        chunks = data.chunks or (n, 1)
        try:
            if chunks[0] / n < chunks[1] / depth:  # stored trial by trial
                step = max(1, _SLAB_BYTES // (mask.size * data.dtype.itemsize * chunks[0])) * chunks[0]
                for start in range(0, n, step):
                    out[start : start + step][:, column] = data[start : start + step][:, turned]
                return
            plane = n * data.shape[2] * data.shape[3] * data.dtype.itemsize * chunks[1]
            step = max(1, _SLAB_BYTES // plane) * chunks[1]
            for start in range(0, depth, step):
                inside = turned[start : start + step]
                if inside.any():
                    here = column[(z >= start) & (z < start + step)]
                    out[:, here] = data[:, start : start + step][:, inside]
        except OSError as error:
            raise corrupt_file(path, f"it is truncated or damaged ({error})") from error


def _hdf5(path: Path) -> Any:
    h5py = soft_import("h5py", purpose="Reading betas in HDF5")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise corrupt_file(path, f"it is no HDF5 file, or truncated ({error})") from error
    if "betas" not in file or file["betas"].ndim != 4:
        file.close()
        raise corrupt_file(path, "it has no data set 'betas' with four axes", "Take the file that NSD publishes.")
    return file
