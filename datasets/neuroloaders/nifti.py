"""NIfTI files read as far as they are needed: small volumes whole, long series only inside of a mask.

A session of single-trial responses is a gigabyte of int16, and four of float64. Here it is read volume by volume, and
of each volume only the voxels of a mask are kept.
"""

# x, y, z axes of a volume, T volumes of a series, p voxels of a mask

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import check_shape, corrupt_file, invalid, soft_import

__all__ = ["check_grid", "masked_series", "read_volume", "repetition_time", "series_shape"]

_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)


def read_volume(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read a volume.

    Parameters
    ----------
    path : path-like
        A ``.nii`` or ``.nii.gz`` file with three axes, or more that are of length 1.

    Returns
    -------
    volume : ndarray, shape (x, y, z)
        Scaled by slope and intercept if the header names them.
    affine : ndarray of float64, shape (4, 4)
        From voxel indices to millimetres.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is damaged, or a series.
    """
    image = _open(path)
    shape = image.shape
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise corrupt_file(path, f"it has shape {shape}, and a volume has three axes", "Choose another file.")
    try:
        volume = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        raise corrupt_file(path, f"it is truncated or damaged ({error})") from error
    return volume.reshape(shape[:3]), np.asarray(image.affine, dtype=np.float64)


def series_shape(path: str | os.PathLike[str]) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """Return the shape (x, y, z, T) and the affine of a series, from its header."""
    image = _open(path)
    shape = tuple(int(size) for size in image.shape)
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4:
        raise corrupt_file(path, f"it has shape {image.shape}, and a series has four axes", "Choose another file.")
    return shape, np.asarray(image.affine, dtype=np.float64)


def repetition_time(path: str | os.PathLike[str]) -> float:
    """Return the seconds from one volume to the next, from the header; milliseconds and microseconds are converted."""
    header = _open(path).header
    zooms = header.get_zooms()
    unit = {"msec": 1e-3, "usec": 1e-6}.get(header.get_xyzt_units()[1], 1.0)
    seconds = float(zooms[3]) * unit if len(zooms) > 3 else 0.0
    if not seconds > 0:
        raise corrupt_file(path, "its header names no time between volumes", "Set pixdim[4].")
    return seconds


def masked_series(path: str | os.PathLike[str], mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the voxels of a mask, volume by volume.

    Parameters
    ----------
    path : path-like
        A series.
    mask : ndarray of bool, shape (x, y, z)
        Which voxels.

    Yields
    ------
    ndarray, shape (p,)
        Voxels in C order of the mask; in the type of the file, or float64 if its header scales.

    Raises
    ------
    ValueError
        If the mask is of another grid, or the file ends before its last volume.

    Notes
    -----
    Volumes lie one after the other in the file, the first axis fastest, so one pass through the compressed stream does;
    memory is needed for one volume.
    """
    shape, _ = series_shape(path)
    check_grid("mask", mask.shape, shape[:3], path)
    image = _open(path)
    proxy = image.dataobj
    dtype = image.header.get_data_dtype()
    slope, intercept = float(proxy.slope), float(proxy.inter)
    scaled = (slope, intercept) != (1.0, 0.0)
    # The mask's voxels in C order, at their places in a file in Fortran order.
    places = np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F")
    n_bytes = int(np.prod(shape[:3])) * dtype.itemsize
    openers = soft_import("nibabel.openers", purpose="Reading NIfTI files")
    with openers.ImageOpener(os.fspath(path), "rb") as file:
        try:
            file.seek(proxy.offset)
            for volume in range(shape[3]):
                content = file.read(n_bytes)
                if len(content) < n_bytes:
                    raise EOFError(f"it ends in volume {volume} of {shape[3]}")
                values = np.frombuffer(content, dtype)[places]
                values = values.astype(dtype.newbyteorder("="), copy=False)
                yield values * slope + intercept if scaled else values
        except _UNREADABLE as error:
            raise corrupt_file(path, f"it is truncated or damaged ({error})") from error


def check_grid(
    name: str,
    shape: tuple[int, ...],
    wanted: tuple[int, ...],
    path: Any,
    *,
    affine: np.ndarray | None = None,
    wanted_affine: np.ndarray | None = None,
) -> None:
    """Refuse a volume that is of another grid than a file.

    Parameters
    ----------
    name : str
        The argument, for the message.
    shape, wanted : tuple of int
        The shape of the volume, and that of the file.
    path : path-like
        The file.
    affine, wanted_affine : ndarray, shape (4, 4), optional
        Compared if both are given, to 0.001 mm.
    """
    advice = "Use the mask of the same subject and resolution, or resample it first."
    if tuple(shape) != tuple(wanted):
        grid = f"have the grid of {Path(path).name!r}, {tuple(wanted)}"
        raise invalid(name, grid, f"{tuple(shape)}, another grid", advice)
    if affine is not None and wanted_affine is not None:
        affine = check_shape(f"{name}.affine", np.asarray(affine, float), (4, 4))
        if not np.allclose(affine, wanted_affine, rtol=0, atol=1e-3):
            off = float(abs(affine - wanted_affine).max())
            raise invalid(
                name, f"lie where {Path(path).name!r} lies", f"an affine that differs by up to {off:g}", advice
            )


def _open(path: str | os.PathLike[str]) -> Any:
    nibabel = soft_import("nibabel", purpose="Reading NIfTI files")
    if not Path(path).is_file():
        raise invalid("path", "be a NIfTI file", f"{os.fspath(path)!r}, which does not exist", kind=FileNotFoundError)
    try:
        image = nibabel.load(path)
    except (*_UNREADABLE, nibabel.filebasedimages.ImageFileError) as error:
        raise corrupt_file(path, f"it is no NIfTI file, or damaged ({error})") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise corrupt_file(path, f"it is a {type(image).__name__}, not a NIfTI file", "Convert it to .nii.gz.")
    return image
