"""The tables of THINGS-fMRI, and the frame of responses that pandas wrote."""

# n trials, p voxels that are kept

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from neuroloaders.checks import check_option, check_shape, corrupt_file, invalid, soft_import

__all__ = ["VOXEL_COLUMNS", "kept_voxels", "read_responses", "read_table", "table_regions"]

VOXEL_COLUMNS = ("voxel_id", "voxel_x", "voxel_y", "voxel_z")
# Columns of VoxelMetadata that are no regions, even where a subject's numbers happen to be all 0.
_NO_REGIONS = {
    *VOXEL_COLUMNS,
    "subject_id",
    "nc_singletrial",
    "nc_testset",
    "splithalf_uncorrected",
    "splithalf_corrected",
    "prf-eccentricity",
    "prf-polarangle",
    "prf-rsquared",
    "prf-size",
}
_BLOCK_BYTES = 2**27


def read_table(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read a CSV file column by column, as text."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise corrupt_file(path, f"it is no table ({error})") from error
    absent = [name for name in needed if name not in header]
    if absent or not rows:
        raise corrupt_file(path, f"it has no column {absent[0]!r}" if absent else "it has no rows")
    if any(len(row) != len(header) for row in rows):
        raise corrupt_file(path, "rows are of different lengths, as in a file that was cut")
    return {name: np.array(column) for name, column in zip(header, zip(*rows, strict=True), strict=True) if name}


def table_regions(table: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns of VoxelMetadata that are regions, of 0 and 1 with at least one voxel, as bool."""
    columns = {name: values for name, values in table.items() if name not in _NO_REGIONS}
    return {name: values == 1 for name, values in columns.items() if np.isin(values, (0, 1)).all() and values.any()}


def kept_voxels(roi: Any, regions: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, str]:
    """Return which of `n` voxels are in a region, in one of several, or in a mask; and how to say it."""
    if roi is None:
        return np.ones(n, dtype=bool), "the brain"
    if isinstance(roi, np.ndarray):
        check_shape("roi", roi, (n,), advice="One entry for each row of VoxelMetadata.csv.")
        if roi.dtype != bool or not roi.any():
            raise invalid("roi", "be of bool and keep at least one voxel", roi)
        return roi, "a mask of the caller's"
    names = [roi] if isinstance(roi, str) else list(roi)
    if not names:
        raise invalid("roi", "name at least one region", "none")
    return np.any([regions[check_option("roi", name, regions)] for name in names], axis=0), " or ".join(names)


def read_responses(path: Path, voxel_ids: np.ndarray, rows: np.ndarray, out: np.ndarray, progress: bool) -> None:
    """Fill `out` (n, p) with the responses of the voxels `rows` of a frame that pandas wrote (format "fixed")."""
    h5py = soft_import("h5py", purpose="Reading the responses of THINGS-fMRI")
    try:
        with h5py.File(path, "r") as file:
            values, order = _frame(path, file, len(voxel_ids), voxel_ids, len(out))
            step = max(1, _BLOCK_BYTES // (values.shape[1] * values.dtype.itemsize))
            blocks = range(0, values.shape[0], step)
            for start in tqdm(blocks, desc="voxels", disable=not progress):
                wanted = np.flatnonzero((rows >= start) & (rows < start + step))
                if len(wanted):
                    low, high = rows[wanted].min(), rows[wanted].max() + 1
                    block = values[low:high][rows[wanted] - low]
                    out[:, wanted] = block.T if order is None else block[:, order].T
    except OSError as error:
        raise corrupt_file(path, f"it is truncated, or packed in a way that h5py cannot read ({error})") from error


def _frame(path: Path, file: Any, n_voxels: int, voxel_ids: np.ndarray, n: int) -> tuple[Any, np.ndarray | None]:
    """Return the data set (voxels, trials) and, where the file names its trials, their order."""
    group = file.get("ResponseData")
    if group is None and len(file) == 1:
        group = file[next(iter(file))]
    blocks = [name for name in group if name.endswith("_values")] if hasattr(group, "keys") else []
    fitting = [name for name in blocks if group[name].ndim == 2 and group[name].dtype.kind == "f"]
    if len(fitting) != 1:
        advice = 'It is to be a frame that pandas wrote with format="fixed".'
        raise corrupt_file(path, f"it holds {len(fitting)} blocks of numbers in the group 'ResponseData'", advice)
    values = group[fitting[0]]
    if values.shape != (n_voxels, n):
        came = f"responses have shape {values.shape}, the tables name {n_voxels} voxels and {n} trials"
        raise corrupt_file(path, came, "Use tables and responses of the same subject and version.")
    for name in blocks:
        numbers = group[name].dtype.kind in "iu" and group[name].shape == (n_voxels, 1)
        if numbers and (group[name][:, 0] != voxel_ids).any():
            raise corrupt_file(path, "its voxel_id is in another order than that of VoxelMetadata.csv")
    items = group.get(fitting[0].replace("_values", "_items"))
    # Labels of columns are numbers or text of numbers; anything else would be pickled, and is not read.
    if items is None or items.shape != (n,) or items.dtype.kind not in "iuS":
        return values, None
    try:
        labels = items[:].astype(np.int64)
    except ValueError:
        return values, None
    if (np.sort(labels) != np.arange(n)).any():
        raise corrupt_file(path, f"its columns are not the trials 0..{n - 1}")
    order = np.argsort(labels)
    return values, None if (order == np.arange(n)).all() else order
