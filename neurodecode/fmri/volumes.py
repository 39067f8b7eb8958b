"""Voxels of brain images: one grid, one mask, one order."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import check_number, corrupt_file, invalid, missing_data, soft_import

__all__ = ["Voxels", "common_mask", "load_image", "repetition_time"]

# Affines that differ by less are the same, in the units of the affine: millimetres.
_SAME_MM = 1e-3


class Voxels:
    """The voxels of a mask, in C order, and their regions.

    Parameters
    ----------
    mask : path or image, shape (x, y, z)
        Voxels above 0 are taken (NSD marks voxels outside with -1).
    rois : mapping of str to path or image, optional
        Regions, on the same grid.

    Attributes
    ----------
    mask : ndarray of bool, shape (x, y, z)
        Where they are.
    affine : ndarray of float64, shape (4, 4)
        From voxel indices to millimetres.
    rois : dict of str to ndarray of bool, shape (n,)
        Which of them lie in each region.
    n : int
        How many they are.
    """

    def __init__(self, mask: Any, rois: Mapping[str, Any] | None = None) -> None:
        image = load_image("mask", mask)
        self.affine = np.asarray(image.affine, dtype=np.float64)
        self.mask = _region("mask", image)
        self.n = int(self.mask.sum())
        if self.n == 0:
            raise invalid("mask", "hold at least one voxel above 0", "none", "Is it the mask of this subject?")
        self.rois = {}
        for name, roi in (rois or {}).items():
            image = load_image(f"rois[{name!r}]", roi)
            self.check_grid(f"rois[{name!r}]", image)
            self.rois[name] = _region(f"rois[{name!r}]", image)[self.mask]

    def check_grid(self, name: str, image: Any) -> None:
        """Raise ValueError unless an image has the shape and affine of the mask."""
        shape = tuple(image.shape[:3])
        advice = "Choose a mask of the same space, or resample it (nilearn.image.resample_to_img, nearest neighbour)."
        if shape != self.mask.shape:
            raise invalid(name, f"be on the grid of the mask, {self.mask.shape}", f"{shape}", advice)
        apart = float(abs(image.affine - self.affine).max())
        if apart > _SAME_MM:
            raise invalid(name, "be on the grid of the mask", f"an affine that differs by up to {apart:.3g}", advice)

    def read(self, name: str, image: Any) -> np.ndarray:
        """Return the values of all volumes as they are stored, shape (t, n).

        Those that nilearn's ``NiftiMasker`` returns, but for NaN and infinity, which it turns to 0 unseen.
        """
        image = load_image(name, image)
        self.check_grid(name, image)
        try:
            values = np.asanyarray(image.dataobj)
        except (OSError, EOFError, zlib.error) as error:
            path = image.get_filename() or name
            raise corrupt_file(path, f"it ends early or is damaged ({error})", "Copy it again.") from error
        if values.ndim == 3:
            values = values[..., None]
        return values[self.mask].T


def load_image(name: str, image: Any) -> Any:
    """Return an image as nibabel opens it, without reading its values.

    Parameters
    ----------
    name : str
        What to call it in an error.
    image : path or image
        A NIfTI file, or something with an affine and a shape.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        If it is not there, cannot be read, or is no image of 3 or 4 axes.
    """
    if isinstance(image, (str, os.PathLike)):
        nibabel = soft_import("nibabel", purpose="Reading an image")
        path = Path(image)
        if not path.is_file():
            raise missing_data(name, [path.name], [path.parent], "Is the path right?")
        try:
            image = nibabel.load(path)
        except (nibabel.filebasedimages.ImageFileError, OSError, EOFError) as error:
            raise corrupt_file(path, f"it is no image that nibabel knows ({error})", "Copy it again.") from error
    if not hasattr(image, "affine") or not hasattr(image, "dataobj"):
        raise invalid(name, "be a path or a nibabel image", image, kind=TypeError)
    if len(image.shape) not in (3, 4):
        raise invalid(name, "have 3 or 4 axes", f"shape {tuple(image.shape)}")
    return image


def repetition_time(images: Sequence[Any], t_r: float | None = None) -> float:
    """Return the time between volumes in seconds, which all runs must share.

    Parameters
    ----------
    images : sequence of image, shape (x, y, z, t)
        The runs.
    t_r : float, optional
        What is known already; by default what the headers say.

    Raises
    ------
    ValueError
        If the headers of runs differ, whatever `t_r`, or say nothing and nothing is known.
    """
    found = []
    for i, image in enumerate(images):
        if len(image.shape) != 4:
            raise invalid(f"bold[{i}]", "have shape (x, y, z, t)", f"{tuple(image.shape)}")
        seconds = float(image.header.get_zooms()[3])
        units = image.header.get_xyzt_units()[1] if hasattr(image.header, "get_xyzt_units") else "sec"
        found.append(seconds * {"msec": 1e-3, "usec": 1e-6}.get(units, 1.0))
    if max(found) - min(found) > 1e-4 * max(found):
        came = ", ".join(f"{value:g}" for value in found)
        raise invalid("bold", "have one repetition time for all runs", f"{came} s", "Model such runs by themselves.")
    if t_r is not None:
        return check_number("t_r", t_r, above=0, advice="In seconds.")
    if found[0] <= 0:
        raise invalid("bold", "say their repetition time", f"{found[0]:g} s in the header", "Pass t_r=, in seconds.")
    return found[0]


def common_mask(masks: Sequence[Any]) -> Any:
    """Return the image of the voxels that lie in all masks, which must be on one grid."""
    nibabel = soft_import("nibabel", purpose="A mask")
    first = Voxels(masks[0])
    kept = first.mask.copy()
    for i, mask in enumerate(masks[1:], start=1):
        image = load_image(f"mask[{i}]", mask)
        first.check_grid(f"mask[{i}]", image)
        kept &= _region(f"mask[{i}]", image)
    return nibabel.Nifti1Image(kept.astype(np.uint8), first.affine)


def _region(name: str, image: Any) -> np.ndarray:
    values = np.asanyarray(image.dataobj)
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise invalid(name, "have shape (x, y, z)", f"{values.shape}")
    # NaN marks what is outside.
    return np.nan_to_num(values) > 0
