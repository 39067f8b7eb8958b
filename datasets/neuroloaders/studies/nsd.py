"""The Natural Scenes Dataset: 7T fMRI of eight subjects, up to 30,000 trials of 10,000 photographs each.

Allen et al., Nature Neuroscience 25 (2022), doi:10.1038/s41593-021-00962-x. Access is by a form at
https://naturalscenesdataset.org; the folder is laid out as on its server.
"""

# N images, H height, W width, n trials, p voxels

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from neuroloaders.betas import BetaSet
from neuroloaders.cache import source_identity
from neuroloaders.checks import check_option, invalid, missing_data
from neuroloaders.fmri_splits import StimulusSplit
from neuroloaders.nifti import check_grid, read_volume
from neuroloaders.session_store import stored_sessions
from neuroloaders.studies.nsd_files import (
    BETA_SCALE,
    NSDDesign,
    read_design,
    read_regions,
    read_session,
    session_shape,
)
from neuroloaders.studies.nsd_stimuli import check_ids, read_captions, read_images, read_info

__all__ = ["NSDStudy"]

_DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
_IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
_CAPTIONS = "COCO_73k_annots_curated.npy"
# NSD itself has no captions; this file of MindEye's authors lies wherever its user put it.
_CAPTION_FOLDERS = (".", "annots", "nsddata/experiments/nsd", "nsddata_stimuli/stimuli/nsd")
_ENDINGS = (".nii.gz", ".hdf5")


@dataclass(frozen=True, kw_only=True)
class NSDReading:
    """What stored responses depend on besides the files.

    Parameters
    ----------
    mask : str
        Hash of the mask.
    scale : int
        What stored numbers are divided by.
    version : int
        Of the code that reads.
    """

    mask: str
    scale: int = BETA_SCALE
    version: int = 1


class NSDStudy:
    """NSD in a folder that is laid out as on its server.

    Parameters
    ----------
    root : path-like
        The folder with ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``. What is not needed may be absent.
    space : str
        Folder of the resolution, ``"func1pt8mm"`` or ``"func1mm"``.
    version : str
        Folder of the responses: how betas were estimated.
    cache : path-like, optional
        Where responses are stored once read; by default `neuroloaders.cache_folder`.

    Attributes
    ----------
    name, kind : str
        "NSD", "fmri".
    subjects : tuple of str
        Those of which there are responses, such as "subj01".

    Raises
    ------
    FileNotFoundError, ValueError
        If the design is missing or damaged.

    Notes
    -----
    Images are named by numbers from 0 to 72999, NSD's ``nsdId`` and the place in ``nsd_stimuli.hdf5``. The files count
    from 1 (``subjectim``, ``73KID``): such numbers never leave this class.
    """

    name = "NSD"
    kind = "fmri"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        space: str = "func1pt8mm",
        version: str = "betas_fithrf_GLMdenoise_RR",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self.root, self.space, self.version, self.cache = Path(root), space, version, cache
        self.design: NSDDesign = read_design(self.root / _DESIGN)

    def __repr__(self) -> str:
        return f"NSDStudy({os.fspath(self.root)!r}: {', '.join(self.subjects) or 'no responses'})"

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of which there are responses."""
        names = [f"subj{number:02d}" for number in range(1, len(self.design.images) + 1)]
        return tuple(name for name in names if self._session_files(name))

    def sessions(self, subject: str) -> tuple[int, ...]:
        """Return the sessions, from 1, whose responses are there."""
        return tuple(self._session_files(self._checked(subject)))

    def missing_sessions(self, subject: str) -> tuple[int, ...]:
        """Return the sessions below the last one whose responses are not there."""
        there = self.sessions(subject)
        return tuple(session for session in range(1, there[-1]) if session not in there)

    def describe(self) -> str:
        """Return what is in the folder, for people."""
        lines = [f"NSD (Natural Scenes Dataset) in {os.fspath(self.root)}: {self.space}, {self.version}"]
        for subject in self.subjects:
            there, missing = self.sessions(subject), self.missing_sessions(subject)
            gaps = f"; missing: {', '.join(map(str, missing))}" if missing else ""
            stimuli = np.unique(self._trials(subject, there)[1])
            shared = int(np.isin(stimuli, self.design.shared).sum())
            lines.append(
                f"  {subject}: {len(there)} sessions up to {there[-1]}{gaps}; {len(stimuli)} images, {shared} of them"
                " shared by all subjects"
            )
        for what, path in (("images", self.root / _IMAGES), ("captions", self._caption_file())):
            lines.append(f"  {what}: {os.fspath(path) if path is not None and path.is_file() else 'not there'}")
        return "\n".join(lines)

    def regions(self, subject: str) -> dict[str, np.ndarray]:
        """Return the regions of interest of a subject as volumes of bool, shape (x, y, z), by name.

        Names are those of NSD's label tables, such as V1v, FFA-1 or ecc0pt5; those of its files, such as floc-faces,
        for all regions of a file together; and V1, V2, V3, V4. Empty regions are left out.
        """
        return self._regions(self._checked(subject))[0]

    def betas(
        self,
        subject: str,
        roi: Any = "nsdgeneral",
        *,
        sessions: Iterable[int] | None = None,
        in_memory: bool = False,
        progress: bool = False,
    ) -> BetaSet:
        """Return single-trial responses in percent signal change.

        Parameters
        ----------
        subject : str
            One of `subjects`.
        roi : str, array of bool of shape (x, y, z), or path-like
            A name in `regions`, ``"brainmask"``, a mask on the grid of the subject's responses, or a NIfTI file of one
            (above 0 is inside).
        sessions : iterable of int, optional
            From 1; by default all that are there, see `missing_sessions`. The first 37 are ``range(1, 38)``. They
            come in rising order.
        in_memory : bool
            Read into memory and store nothing. Else the responses are stored on disk, session by session, and come as
            a memory map; an interrupted run goes on where it was.
        progress : bool
            Show a bar over sessions.

        Returns
        -------
        BetaSet
            With stimuli from 0 to 72999, sessions, runs, mask, affine, regions (those with a voxel in `roi`) and the
            ``ncsnr`` of the study if there is one.

        Raises
        ------
        ValueError
            If there is no such subject or region, a session that was asked for is missing, the mask is of another grid
            or empty, or a file is damaged.

        Notes
        -----
        Stored int16 numbers over 300, in float32. A voxel that was outside of the image in some session is 0 throughout
        it: such voxels are constant there, and per-session z-scores name them.
        """
        files = self._session_files(self._checked(subject))
        wanted = self._wanted(subject, sessions, files)
        regions, affine = self._regions(subject)
        reference = files[wanted[0]]
        mask, affine, said = self._mask(subject, roi, regions, affine, reference)
        counts = {session: int((self.design.sessions == session).sum()) for session in wanted}
        for session in wanted:
            check_grid("roi", mask.shape, session_shape(files[session])[:3], files[session])

        def read(session: int) -> np.ndarray:
            return read_session(files[session], mask, counts[session])

        shape = (sum(counts.values()), int(mask.sum()))
        if in_memory:
            betas = np.empty(shape, dtype=np.float32)
            row = 0
            for session in tqdm(wanted, desc="sessions", disable=not progress):
                betas[row : row + counts[session]] = read(session)
                row += counts[session]
        else:
            digest = hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()
            sources = {session: [subject, source_identity(files[session])] for session in wanted}
            betas = stored_sessions(NSDReading(mask=digest), sources, read, shape, folder=self.cache, progress=progress)
        rows, stimuli = self._trials(subject, wanted)
        inside = {name: region[mask] for name, region in regions.items()}
        return BetaSet(
            betas=betas,
            stimuli=stimuli,
            sessions=self.design.sessions[rows],
            runs=None if self.design.runs is None else self.design.runs[rows],
            mask=mask,
            affine=affine,
            rois={name: region for name, region in inside.items() if region.any()},
            ncsnr=self._ncsnr(reference.parent, mask),
            name=self.name,
            subject=subject,
            provenance=f"NSD {self.space}/{self.version}, sessions {_ranges(wanted)}, voxels of {said}",
        )

    def split(self, subject: str, *, sessions: Iterable[int] | None = None) -> StimulusSplit:
        """Return the published split: images that all subjects saw are for the test, the subject's own for training.

        Parameters
        ----------
        subject : str
            One of `subjects`.
        sessions : iterable of int, optional
            As for `betas`; images that were not shown in them are in neither part.

        Notes
        -----
        Of the 1000 shared images, subjects who saw 37 sessions saw 982, and 8859 others (Ozcelik & VanRullen 2023).
        Test images have near twins in training: see `neuroloaders.fmri_splits`.
        """
        files = self._session_files(self._checked(subject))
        seen = np.unique(self._trials(subject, self._wanted(subject, sessions, files))[1])
        shared = np.isin(seen, self.design.shared)
        return StimulusSplit(train=seen[~shared], valid=seen[:0], test=seen[shared])

    def images(self, ids: Any) -> np.ndarray:
        """Return images, in the order asked.

        Parameters
        ----------
        ids : array of int, shape (N,)
            From 0 to 72999, as in ``BetaSet.stimuli``; may repeat.

        Returns
        -------
        ndarray of uint8, shape (N, 3, H, W)
            425 x 425 pixels.

        Raises
        ------
        FileNotFoundError, IndexError
            If the file is not there, or an id is out of range.

        Notes
        -----
        Read one by one in the order of the file; 10,000 take 5.4 GB.
        """
        path = self.root / _IMAGES
        if not path.is_file():
            raise missing_data("NSD images", [_IMAGES], [self.root], "It is part of NSD, 37 GB.")
        return read_images(path, check_ids(ids))

    def captions(self, ids: Any) -> list[list[str]]:
        """Return the captions of images, up to five each, without empty ones.

        Parameters
        ----------
        ids : array of int, shape (N,)
            From 0 to 72999.

        Returns
        -------
        list of list of str, length N

        Raises
        ------
        FileNotFoundError
            If ``COCO_73k_annots_curated.npy`` is not there.
        """
        ids, texts = check_ids(ids), self._captions
        return [[text for text in texts[uid].tolist() if text.strip()] for uid in ids]

    def stimulus_info(self, ids: Any) -> dict[str, np.ndarray]:
        """Return columns of ``nsd_stim_info_merged.csv`` for images, such as cocoId, cocoSplit, cropBox, as text."""
        path = self.root / _INFO
        if not path.is_file():
            raise missing_data("NSD stimulus table", [_INFO], [self.root], "It is part of NSD.")
        return read_info(path, check_ids(ids))

    @cached_property
    def _captions(self) -> np.ndarray:
        path = self._caption_file()
        if path is None:
            advice = "Download it from huggingface.co/datasets/pscotti/naturalscenesdataset."
            places = [self.root / folder for folder in _CAPTION_FOLDERS]
            raise missing_data("captions of NSD", [_CAPTIONS], places, advice)
        return read_captions(path)

    def _caption_file(self) -> Path | None:
        paths = [self.root / folder / _CAPTIONS for folder in _CAPTION_FOLDERS]
        return next((path for path in paths if path.is_file()), None)

    def _checked(self, subject: str) -> str:
        if not self.subjects:
            folder = f"nsddata_betas/ppdata/subj??/{self.space}/{self.version}"
            raise missing_data("NSD responses", [f"{folder}/betas_session??.nii.gz"], [self.root], "Download some.")
        return check_option("subject", subject, self.subjects)

    def _session_files(self, subject: str) -> dict[int, Path]:
        folder = self.root / "nsddata_betas" / "ppdata" / subject / self.space / self.version
        last = int(self.design.sessions[-1])
        found = {}
        for session in range(1, last + 1):
            paths = [folder / f"betas_session{session:02d}{ending}" for ending in _ENDINGS]
            path = next((path for path in paths if path.is_file()), None)
            if path is not None:
                found[session] = path
        return found

    def _wanted(self, subject: str, sessions: Iterable[int] | None, files: dict[int, Path]) -> list[int]:
        if sessions is None:
            return list(files)
        wanted = list(dict.fromkeys(int(session) for session in sessions))
        absent = [session for session in wanted if session not in files]
        if absent or not wanted:
            came = f"{_ranges(absent)}, which {subject} lacks" if absent else "none"
            raise invalid("sessions", f"be among those that are there, {_ranges(files)}", came)
        return sorted(wanted)

    def _trials(self, subject: str, sessions: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(np.isin(self.design.sessions, list(sessions)))
        return rows, self.design.stimuli(int(subject.removeprefix("subj")))[rows]

    def _regions(self, subject: str) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        labels = [self.root / "nsddata" / "freesurfer" / name / "label" for name in (subject, "fsaverage")]
        regions, affine = read_regions(self._anatomy(subject) / "roi", labels)
        return {name: region for name, region in regions.items() if region.any()}, affine

    def _anatomy(self, subject: str) -> Path:
        return self.root / "nsddata" / "ppdata" / subject / self.space

    def _mask(
        self, subject: str, roi: Any, regions: dict[str, np.ndarray], affine: np.ndarray | None, reference: Path
    ) -> tuple[np.ndarray, np.ndarray | None, str]:
        if isinstance(roi, str) and roi in regions:
            mask, said = regions[roi], roi
        elif isinstance(roi, str) and roi == "brainmask":
            volume, affine = read_volume(self._anatomy(subject) / "brainmask.nii.gz")
            mask, said = volume > 0, roi
        elif isinstance(roi, (str, os.PathLike)) and Path(roi).is_file():
            volume, here = read_volume(roi)
            check_grid("roi", volume.shape, session_shape(reference)[:3], reference, affine=here, wanted_affine=affine)
            mask, affine, said = volume > 0, here, Path(roi).name
        elif isinstance(roi, (str, os.PathLike)):
            check_option("roi", roi, [*regions, "brainmask"])
            raise missing_data("NSD regions", [f"{roi}.nii.gz"], [self._anatomy(subject) / "roi"], "Download it.")
        else:
            mask, said = np.asarray(roi), "a mask of the caller's"
            if mask.dtype != bool:
                raise invalid("roi", "be a name, a file or an array of bool", mask, "Compare it: volume > 0.")
        check_grid("roi", mask.shape, session_shape(reference)[:3], reference)
        if not mask.any():
            raise invalid("roi", "hold at least one voxel", "none")
        return mask, affine, said

    def _ncsnr(self, folder: Path, mask: np.ndarray) -> np.ndarray | None:
        path = folder / "ncsnr.nii.gz"
        if not path.is_file():
            return None
        volume, _ = read_volume(path)
        check_grid("roi", mask.shape, volume.shape, path)
        return volume[mask].astype(np.float64)


def _ranges(numbers: Iterable[int]) -> str:
    """Write whole numbers shortly: 1-3, 7."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{low}-{high}" if high > low else f"{low}" for low, high in runs)
