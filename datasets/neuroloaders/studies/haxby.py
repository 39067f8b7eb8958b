"""Haxby et al. 2001: faces, houses and six other categories, in blocks of 24 s; 12 runs of 121 volumes a subject.

Haxby, Gobbini, Furey, Ishai, Schouten & Pietrini, Science 293 (2001), doi:10.1126/science.1063736. Two layouts are
read: the slice that comes with PyMVPA (``bold.nii.gz``, ``mask.nii.gz``, ``attributes.txt``), and OpenfMRI's
(``sub001/BOLD/task001_run001/bold*.nii.gz`` with onsets in ``model/``).

The labels of both are shifted already. In the paper, photographs come 12 s after the start of a run and every 36 s
from then on; the labels come 1 to 4.5 s later, and it is with the labels as they are that visual voxels go along best:
of 530 voxels the best 50 correlate with stimulus on or off at 0.57 on average, at 0.48 with labels one volume (2.5 s)
later, and at 0.29 with two. So blocks are averaged without a further lag. A linear support vector machine names 0.82
of the blocks of runs left out at a lag of 0, and 0.75 at 5 s.
"""

# t volumes, p voxels; x, y, z axes of a volume

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.betas import BetaSet
from neuroloaders.bold import BlockAveraging, BoldSet, block_averages
from neuroloaders.checks import check_option, check_shape, corrupt_file, invalid, missing_data
from neuroloaders.nifti import check_grid, masked_series, read_volume, repetition_time, series_shape

__all__ = ["HAXBY_AVERAGING", "HaxbySlice", "HaxbyStudy"]

HAXBY_AVERAGING = BlockAveraging(lag=0.0)

# Labels of attributes.txt, as its companion attributes_literal.txt spells them.
_LABELS = ("rest", "face", "house", "shoe", "cat", "scissors", "scrambledpix", "bottle", "chair")


class _Haxby(ABC):
    """What both layouts share."""

    name = "Haxby 2001"
    kind = "fmri"
    root: Path
    subjects: tuple[str, ...]

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.root)!r}: {', '.join(self.subjects)})"

    @abstractmethod
    def bold(self, subject: str, roi: Any = None) -> BoldSet:
        """Return the volumes of a subject; see the layouts."""

    def betas(self, subject: str, roi: Any = None, *, averaging: BlockAveraging | None = None) -> BetaSet:
        """Return one response a block.

        Parameters
        ----------
        subject : str
            One of `subjects`.
        roi : str or array of bool of shape (x, y, z), optional
            As for `bold`.
        averaging : BlockAveraging, optional
            By default `HAXBY_AVERAGING`: no lag, as the labels have it already (see the top of this file), a line
            taken out of each run, z-scores in each run.

        Returns
        -------
        BetaSet
            Stimuli are categories; leave runs out to cross-validate.
        """
        return block_averages(self.bold(subject, roi), averaging or HAXBY_AVERAGING)

    def captions(self, ids: Any) -> list[list[str]]:
        """Return the names of categories: the only text that there is."""
        return [[str(name)] for name in np.asarray(ids).tolist()]

    def images(self, ids: Any) -> np.ndarray:
        """Raise FileNotFoundError: the photographs are not in these files."""
        advice = "The photographs are published apart, at data.pymvpa.org/datasets/haxby2001."
        raise missing_data("images of Haxby 2001", ["stimuli"], [self.root], advice)


class HaxbySlice(_Haxby):
    """Subject 1, posterior half of one slice: the small data set that comes with PyMVPA.

    Parameters
    ----------
    root : path-like
        The folder with ``bold.nii.gz``, ``mask.nii.gz`` and ``attributes.txt``.

    Attributes
    ----------
    name, kind : str
        "Haxby 2001", "fmri".
    subjects : tuple of str
        ("sub001",).
    """

    subjects = ("sub001",)

    def describe(self) -> str:
        """Return what is in the folder, for people."""
        labels, runs = self._attributes
        n_voxels = int((read_volume(self.root / "mask.nii.gz")[0] > 0).sum())
        count = f"{len(labels)} volumes in {len(np.unique(runs))} runs, {n_voxels} voxels"
        return f"Haxby 2001, a slice of subject 1, in {os.fspath(self.root)}\n  sub001: {count}"

    def bold(self, subject: str = "sub001", roi: Any = None) -> BoldSet:
        """Return the volumes as measured.

        Parameters
        ----------
        subject : str
            "sub001".
        roi : array of bool, shape (x, y, z), optional
            By default ``mask.nii.gz``, 530 voxels.

        Returns
        -------
        BoldSet
        """
        check_option("subject", subject, self.subjects)
        path = self.root / "bold.nii.gz"
        labels, runs = self._attributes
        shape, affine = series_shape(path)
        if shape[3] != len(labels):
            raise corrupt_file(path, f"it holds {shape[3]} volumes, attributes.txt {len(labels)}")
        mask = _mask(roi, read_volume(self.root / "mask.nii.gz")[0] > 0, {}, path, shape[:3])
        return BoldSet(
            bold=np.array(list(masked_series(path, mask)), dtype=np.float32),
            labels=labels,
            runs=runs,
            t_r=repetition_time(path),
            mask=mask,
            affine=affine,
            name=self.name,
            subject=subject,
            provenance="Haxby 2001, slice of PyMVPA",
        )

    @cached_property
    def _attributes(self) -> tuple[np.ndarray, np.ndarray]:
        path = self.root / "attributes.txt"
        rows = [line.split() for line in _text(path).splitlines() if line.strip()]
        try:
            codes = np.array([int(label) for label, _ in rows])
            runs = np.array([int(run) for _, run in rows])
            labels = np.array(_LABELS)[codes]
        except (ValueError, IndexError) as error:
            raise corrupt_file(path, f"a line is no label of 0..{len(_LABELS) - 1} and run ({error})") from error
        return labels, runs


class HaxbyStudy(_Haxby):
    """The layout of OpenfMRI: subjects, runs, onsets of conditions, masks.

    Parameters
    ----------
    root : path-like
        The folder with ``sub001`` and ``models``.
    image : str
        Which file of each run: ``"bold_25mm"``, ``"bold_1slice"``, ``"bold"``. Masks are those in
        ``masks/<what comes after bold_>``.

    Attributes
    ----------
    name, kind : str
        "Haxby 2001", "fmri".
    subjects : tuple of str
        Those of which there are runs with such images.

    Notes
    -----
    Volume v is taken from ``v * t_r`` on and has the label of the event that holds this time, "rest" if there is none.
    """

    def __init__(self, root: str | os.PathLike[str], *, image: str = "bold_25mm") -> None:
        super().__init__(root)
        found = sorted(self.root.glob("sub*/BOLD/task*_run*/bold*.nii.gz"))
        images = sorted({path.name.removesuffix(".nii.gz") for path in found})
        if not images:
            raise missing_data("Haxby 2001", ["sub*/BOLD/task*_run*/bold*.nii.gz"], [self.root], "Unpack it there.")
        self.image = check_option("image", image, images)

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of which there are runs."""
        paths = self.root.glob(f"sub*/BOLD/task*_run*/{self.image}.nii.gz")
        return tuple(sorted({path.parents[2].name for path in paths}))

    def describe(self) -> str:
        """Return what is in the folder, for people."""
        lines = [f"Haxby 2001 in {os.fspath(self.root)}: {self.image}"]
        for subject in self.subjects:
            runs = list(self._runs(subject))
            volumes = sum(series_shape(path)[0][3] for _, path in runs)
            masks = ", ".join(sorted(self._masks(subject)[0])) or "none"
            lines.append(f"  {subject}: {volumes} volumes in {len(runs)} runs; masks: {masks}")
        return "\n".join(lines)

    def bold(self, subject: str, roi: Any = None) -> BoldSet:
        """Return the volumes as measured.

        Parameters
        ----------
        subject : str
            One of `subjects`.
        roi : str or array of bool of shape (x, y, z), optional
            The name of a mask of the subject's, or a mask. By default the mask ``brain``; where there is none, all
            voxels that vary in every run.

        Returns
        -------
        BoldSet
            With the subject's masks as regions. Runs count on over tasks, from 0.
        """
        runs = list(self._runs(check_option("subject", subject, self.subjects)))
        shape, affine = series_shape(runs[0][1])
        masks, folder = self._masks(subject)
        for name, volume in masks.items():
            check_grid(f"masks/{folder}/{name}.nii.gz", volume.shape, shape[:3], runs[0][1])
        default = masks.get("brain")
        mask = _mask(roi, np.ones(shape[:3], bool) if default is None else default, masks, runs[0][1], shape[:3])
        bold, labels, numbers, t_rs = [], [], [], set()
        for number, (task_run, path) in enumerate(runs):
            series = np.array(list(masked_series(path, mask)), dtype=np.float32)
            t_rs.add(round(repetition_time(path), 6))
            bold.append(series)
            labels.append(self._labels(subject, task_run, len(series), repetition_time(path)))
            numbers.append(np.full(len(series), number))
        if len(t_rs) > 1:
            raise corrupt_file(path, f"runs differ in their repetition times: {sorted(t_rs)} s", "Read them apart.")
        if roi is None and default is None:
            varying = np.all([np.ptp(series, axis=0) > 0 for series in bold], axis=0)
            bold = [series[:, varying] for series in bold]
            mask[mask] = varying
        return BoldSet(
            bold=np.concatenate(bold),
            labels=np.concatenate(labels),
            runs=np.concatenate(numbers),
            t_r=t_rs.pop(),
            mask=mask,
            affine=affine,
            rois={name: volume[mask] for name, volume in masks.items() if volume[mask].any()},
            name=self.name,
            subject=subject,
            provenance=f"Haxby 2001, {self.image}",
        )

    def _runs(self, subject: str) -> Iterator[tuple[str, Path]]:
        for path in sorted((self.root / subject / "BOLD").glob(f"task*_run*/{self.image}.nii.gz")):
            yield path.parent.name, path

    def _masks(self, subject: str) -> tuple[dict[str, np.ndarray], str]:
        folder = self.image.removeprefix("bold").strip("_") or "orig"
        paths = sorted((self.root / subject / "masks" / folder).glob("*.nii.gz"))
        return {path.name.removesuffix(".nii.gz"): read_volume(path)[0] > 0 for path in paths}, folder

    def _labels(self, subject: str, task_run: str, n: int, t_r: float) -> np.ndarray:
        """Return the label of each volume of a run, from the onsets of conditions."""
        folder = next((self.root / subject / "model").glob(f"model*/onsets/{task_run}"), None)
        if folder is None:
            raise missing_data("onsets of Haxby 2001", [f"model*/onsets/{task_run}"], [self.root / subject], "")
        names = self._conditions(folder.parents[1].name, task_run.split("_")[0])
        labels = np.full(n, "rest", dtype="<U32")
        # Times are text with few digits: half a millisecond keeps an event from losing its first volume.
        times = np.arange(n) * t_r + 5e-4
        for path in sorted(folder.glob("cond*.txt")):
            condition = path.name.removesuffix(".txt")
            if condition not in names:
                raise corrupt_file(path, f"condition_key.txt does not name {condition!r}", "")
            for line in _text(path).splitlines():
                if not line.strip():
                    continue
                try:
                    onset, duration = (float(part) for part in line.split()[:2])
                except ValueError as error:
                    raise corrupt_file(path, f"a line is no onset and duration ({error})") from error
                inside = (times >= onset) & (times < onset + duration)
                if (labels[inside] != "rest").any():
                    raise corrupt_file(path, f"its event at {onset:g} s overlaps another one", "")
                labels[inside] = names[condition]
        return labels

    def _conditions(self, model: str, task: str) -> dict[str, str]:
        path = self.root / "models" / model / "condition_key.txt"
        found = re.findall(rf"^{re.escape(task)}\s+(cond\d+)\s+(\S+)", _text(path), flags=re.MULTILINE)
        if not found:
            raise corrupt_file(path, f"it names no condition of {task!r}", "")
        return dict(found)


def _mask(
    roi: Any, default: np.ndarray, named: dict[str, np.ndarray], path: Path, shape: tuple[int, ...]
) -> np.ndarray:
    if roi is None:
        mask = default
    elif isinstance(roi, str):
        mask = named[check_option("roi", roi, named)]
    else:
        mask = np.asarray(roi)
        if mask.dtype != bool:
            raise invalid("roi", "be a name or an array of bool", mask, "Compare it: volume > 0.")
        check_shape("roi", mask, ("x", "y", "z"))
    check_grid("roi", mask.shape, shape, path)
    if not mask.any():
        raise invalid("roi", "hold at least one voxel", "none")
    return mask.copy()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise missing_data("Haxby 2001", [path.name], [path.parent], "It is part of the data set.") from error
    except ValueError as error:
        raise corrupt_file(path, f"it is no text ({error})") from error
