"""THINGS-fMRI: 3T fMRI of three subjects, 8740 photographs of 720 things, responses of 9840 trials each.

Hebart et al., eLife 12 (2023), doi:10.7554/eLife.82580; OpenNeuro ds004192. Read here are the single-trial responses in
table form, ``betas_csv.zip`` of doi:10.25452/figshare.plus.20492835.

Names of files and columns are those of the authors' usage notes (ViCCo-Group/THINGS-data, MRI/notebooks/fmri_usage:
``pandas.read_hdf`` gives voxels in rows and, behind a column ``voxel_id``, trials in columns). That the responses
lie in the group ``ResponseData`` as ``block0_values``, voxels first, is how others read the published file with h5py.
Not seen here is the file itself, so each of these is checked when it is read.
"""

# n trials, p voxels, N images

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.betas import BetaSet
from neuroloaders.cache import Allocate, cached_arrays, source_identity
from neuroloaders.checks import (
    check_int,
    check_option,
    corrupt_file,
    invalid,
    missing_data,
    soft_import,
)
from neuroloaders.fmri_splits import StimulusSplit, identifiers
from neuroloaders.nifti import read_volume
from neuroloaders.studies.things_files import (
    VOXEL_COLUMNS,
    kept_voxels,
    read_responses,
    read_table,
    table_regions,
)

__all__ = ["ThingsFMRIStudy"]

_FOLDERS = (".", "betas_csv", "derivatives/betas_csv")
_MASKS = ("brainmasks", "../brainmasks", "derivatives/brainmasks")
_IMAGES = ("images_THINGS/object_images", "object_images", "images", "_image_database_things")
_RESPONSES = "sub-*_ResponseData.h5"
_STIMULUS_COLUMNS = ("trial_type", "session", "run", "stimulus")


@dataclass(frozen=True, kw_only=True)
class ThingsReading:
    """What stored responses depend on besides the file.

    Parameters
    ----------
    voxels : str
        Hash of which voxels are kept.
    version : int
        Of the code that reads.
    """

    voxels: str
    version: int = 1


class ThingsFMRIStudy:
    """THINGS-fMRI in a folder that holds ``betas_csv``.

    Parameters
    ----------
    root : path-like
        ``betas_csv`` itself, the folder around it, or the root of ds004192 (``derivatives/betas_csv``).
    images : path-like, optional
        The folder with a folder of images for each category (``object_images`` of doi:10.17605/OSF.IO/JUM2F); by
        default looked for in `root`.
    cache : path-like, optional
        Where responses are stored once read; by default `neuroloaders.cache_folder`.

    Attributes
    ----------
    name, kind : str
        "THINGS-fMRI", "fmri".
    subjects : tuple of str
        "sub-01" and so on: those of which there are responses.
    """

    name = "THINGS-fMRI"
    kind = "fmri"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        images: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self.root, self.cache = Path(root), cache
        found = [self.root / folder for folder in _FOLDERS if any((self.root / folder).glob(_RESPONSES))]
        if not found:
            places = [self.root / folder for folder in _FOLDERS]
            raise missing_data("THINGS-fMRI", [_RESPONSES], places, "Unpack betas_csv.zip there.")
        self.folder = found[0]
        self._image_folder = None if images is None else Path(images)

    def __repr__(self) -> str:
        return f"ThingsFMRIStudy({os.fspath(self.root)!r}: {', '.join(self.subjects)})"

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of which there are responses."""
        return tuple(sorted(path.name.removesuffix("_ResponseData.h5") for path in self.folder.glob(_RESPONSES)))

    def describe(self) -> str:
        """Return what is in the folder, for people."""
        lines = [f"THINGS-fMRI in {os.fspath(self.folder)}"]
        for subject in self.subjects:
            trials = self.trials(subject)
            counts = {kind: int((trials["trial_type"] == kind).sum()) for kind in np.unique(trials["trial_type"])}
            kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            images = len(np.unique(trials["stimulus"]))
            lines.append(f"  {subject}: {kinds} trials of {images} images in {len(set(trials['session']))} sessions")
        return "\n".join(lines)

    def trials(self, subject: str) -> dict[str, np.ndarray]:
        """Return the columns of ``StimulusMetadata.csv``, a row a trial; ``category`` is added, see `categories`."""
        path = self._file(subject, "StimulusMetadata.csv")
        columns = read_table(path, _STIMULUS_COLUMNS)
        for name in ("session", "run"):
            try:
                columns[name] = columns[name].astype(np.int64)
            except ValueError as error:
                raise corrupt_file(path, f"its column {name!r} is not of whole numbers ({error})") from error
        columns["category"] = _categories(columns["stimulus"])
        return columns

    def voxels(self, subject: str) -> dict[str, np.ndarray]:
        """Return the columns of ``VoxelMetadata.csv``, a row a voxel; as float64 if they are numbers."""
        path = self._file(subject, "VoxelMetadata.csv")
        columns = read_table(path, VOXEL_COLUMNS)
        for name, values in columns.items():
            try:
                columns[name] = values.astype(np.float64)
            except ValueError as error:
                if name in VOXEL_COLUMNS:
                    raise corrupt_file(path, f"its column {name!r} is not of numbers ({error})") from error
        return columns

    def regions(self, subject: str) -> dict[str, np.ndarray]:
        """Return the regions that hold a voxel, as bool of shape (all voxels,): columns of 0 and 1, by name."""
        return table_regions(self.voxels(subject))

    def betas(self, subject: str, roi: Any = None, *, in_memory: bool = False, progress: bool = False) -> BetaSet:
        """Return single-trial responses; catch trials are not among them.

        Parameters
        ----------
        subject : str
            One of `subjects`.
        roi : str, sequence of str, or array of bool, optional
            A name in `regions`, several for their union, or which of all voxels to keep, shape (voxels,). By default
            all voxels of the brain: 211,339 of the first subject, 8.3 GB.
        in_memory : bool
            Read into memory and store nothing.
        progress : bool
            Show a bar.

        Returns
        -------
        BetaSet
            Stimuli are names of files, ``dog_12s.jpg``. Runs are numbered on over sessions, sessions as in the table.
            ``ncsnr`` is computed from ``nc_singletrial``, the share of variance in a single trial in percent:
            sqrt(nc / (100 - nc)). Voxels are in C order of their coordinates, which is that of the table. The mask has
            the grid of the brain mask where that file is there, else the smallest grid that holds all voxels; then
            there is no affine.

        Raises
        ------
        ValueError
            If tables and responses do not fit together, or a file is damaged.
        """
        table, trials = self.voxels(subject), self.trials(subject)
        regions = table_regions(table)
        keep, said = kept_voxels(roi, regions, len(table["voxel_id"]))
        places = np.stack([table[f"voxel_{axis}"].astype(np.int64) for axis in "xyz"], axis=1)[keep]
        order = np.lexsort(places.T[::-1])
        rows = np.flatnonzero(keep)[order]
        path = self._file(subject, "ResponseData.h5")
        shape = (len(trials["stimulus"]), len(rows))

        def build(allocate: Allocate) -> None:
            read_responses(path, table["voxel_id"], rows, allocate("betas", shape, np.float32), progress)

        if in_memory:
            betas = np.empty(shape, dtype=np.float32)
            read_responses(path, table["voxel_id"], rows, betas, progress)
        else:
            reading = ThingsReading(voxels=hashlib.sha256(rows.tobytes()).hexdigest())
            betas = cached_arrays(reading, source_identity(path), build, folder=self.cache)["betas"]
        mask, affine = self._grid(subject, places)
        runs = trials["run"] + trials["session"] * (trials["run"].max() + 1)
        ceiling = np.clip(table["nc_singletrial"][rows], 0, 100 - 1e-9) if "nc_singletrial" in table else None
        inside = {name: region[rows] for name, region in regions.items()}
        return BetaSet(
            betas=betas,
            stimuli=trials["stimulus"],
            sessions=trials["session"],
            runs=np.unique(runs, return_inverse=True)[1] + 1,
            mask=mask,
            affine=affine,
            rois={name: region for name, region in inside.items() if region.any()},
            ncsnr=None if ceiling is None else np.sqrt(ceiling / (100 - ceiling)),
            name=self.name,
            subject=subject,
            provenance=f"THINGS-fMRI betas_csv, voxels of {said}",
        )

    def split(self, subject: str, *, test_categories: str = "keep") -> StimulusSplit:
        """Return the published split: images shown in every session are for the test, those shown once for training.

        Parameters
        ----------
        subject : str
            One of `subjects`.
        test_categories : {"keep", "drop"}
            Whether training keeps images of categories that are in the test as well.

        Returns
        -------
        StimulusSplit
            With the category of each image in ``groups`` if no category is on two sides.
        """
        check_option("test_categories", test_categories, ("keep", "drop"))
        trials = self.trials(subject)
        test = trials["trial_type"] == "test"
        train = trials["trial_type"] == "train"
        if test_categories == "drop":
            train &= ~np.isin(trials["category"], trials["category"][test])
        names, categories = trials["stimulus"], trials["category"]
        apart = not np.isin(categories[train], categories[test]).any()
        groups = dict(zip(names.tolist(), categories.tolist(), strict=True)) if apart else None
        return StimulusSplit(train=names[train], valid=names[:0], test=names[test], groups=groups)

    def categories(self, ids: Any) -> np.ndarray:
        """Return the category of each image by its name: ``dog_12s.jpg`` is a dog. Shape (N,)."""
        return _categories(identifiers("ids", ids))

    def captions(self, ids: Any) -> list[list[str]]:
        """Return the name of the thing, such as "great white shark": the only text that there is."""
        return [[name.rstrip("0123456789").replace("_", " ")] for name in self.categories(ids).tolist()]

    def image_paths(self, ids: Any) -> list[Path]:
        """Return the file of each image, in the order asked."""
        folder = self._images()
        names = identifiers("ids", ids)
        paths = [folder / category / name for category, name in zip(_categories(names), names, strict=True)]
        absent = [path for path in paths if not path.is_file()]
        if absent:
            count = f"{len(absent)} of {len(paths)} images"
            raise invalid(
                "ids",
                f"be names of images in {os.fspath(folder)!r}",
                f"{count} that are not, the first {absent[0].name!r}",
            )
        return paths

    def images(self, ids: Any, size: int = 500) -> np.ndarray:
        """Return images, in the order asked.

        Parameters
        ----------
        ids : array of str, shape (N,)
            Names of files, as in ``BetaSet.stimuli``.
        size : int
            Height and width in pixels; images are square, of several sizes, and resized (bicubic).

        Returns
        -------
        ndarray of uint8, shape (N, 3, size, size)
        """
        check_int("size", size, at_least=1)
        pillow = soft_import("PIL.Image", purpose="Reading images")
        paths = self.image_paths(ids)
        out = np.empty((len(paths), 3, size, size), dtype=np.uint8)
        for row, path in enumerate(paths):
            try:
                with pillow.open(path) as image:
                    resized = image.convert("RGB").resize((size, size), pillow.Resampling.BICUBIC)
            except OSError as error:
                raise corrupt_file(path, str(error)) from error
            out[row] = np.asarray(resized).transpose(2, 0, 1)
        return out

    def _file(self, subject: str, ending: str) -> Path:
        path = self.folder / f"{check_option('subject', subject, self.subjects)}_{ending}"
        if not path.is_file():
            raise missing_data("THINGS-fMRI", [path.name], [self.folder], "It is in betas_csv.zip.")
        return path

    def _images(self) -> Path:
        folders = [self.root / name for name in _IMAGES] if self._image_folder is None else [self._image_folder]
        found = next((folder for folder in folders if folder.is_dir()), None)
        if found is None:
            raise missing_data("images of THINGS", ["<category>/<image>.jpg"], folders, "Pass images=... to the study.")
        return found

    def _grid(self, subject: str, places: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        paths = [self.folder / folder / f"{subject}_space-T1w_brainmask.nii.gz" for folder in _MASKS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            shape, affine = tuple(places.max(axis=0) + 1), None
        else:
            volume, affine = read_volume(path)
            shape = volume.shape
            if (places.max(axis=0) >= shape).any():
                raise corrupt_file(path, f"its grid {shape} does not hold the voxels of the table")
        mask = np.zeros(shape, dtype=bool)
        mask[tuple(places.T)] = True
        return mask, affine


def _categories(names: np.ndarray) -> np.ndarray:
    return np.array([name.rsplit(".", 1)[0].rsplit("_", 1)[0] for name in names.tolist()])
