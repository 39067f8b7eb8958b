"""The photographs of the Natural Scenes Dataset, their captions, and the table of where they come from."""

# N images asked for, H height, W width

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import corrupt_file, invalid, soft_import
from neuroloaders.studies.nsd_files import N_IMAGES

__all__ = ["check_ids", "read_captions", "read_images", "read_info"]


def check_ids(ids: Any) -> np.ndarray:
    """Return image numbers, shape (N,), as int64 if they lie in 0..72999."""
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) == 0:
        raise invalid("ids", "be a 1-D array of at least one whole number", ids, kind=TypeError)
    if ids.min() < 0 or ids.max() >= N_IMAGES:
        advice = "Ids count from 0, as nsdId does; take 1 from 73KID and subjectim."
        raise invalid("ids", f"lie in 0..{N_IMAGES - 1}", f"{ids.min()}..{ids.max()}", advice, kind=IndexError)
    return ids.astype(np.int64)


def read_images(path: Path, ids: np.ndarray) -> np.ndarray:
    """Read images from ``nsd_stimuli.hdf5``, each once and in the order of the file.

    Returns
    -------
    ndarray of uint8, shape (N, 3, H, W)
        In the order of `ids`.
    """
    h5py = soft_import("h5py", purpose="Reading the images of NSD")
    try:
        with h5py.File(path, "r") as file:
            bricks = file["imgBrick"]
            if bricks.ndim != 4 or bricks.shape[0] != N_IMAGES or bricks.shape[3] != 3:
                raise corrupt_file(path, f"'imgBrick' has shape {bricks.shape}, not ({N_IMAGES}, 425, 425, 3)")
            _, height, width, colours = bricks.shape
            unique, where = np.unique(ids, return_inverse=True)
            out = np.empty((len(ids), colours, height, width), dtype=np.uint8)
            last, image = -1, None
            for row in np.argsort(where, kind="stable"):
                if where[row] != last:
                    last, image = where[row], bricks[unique[where[row]]].transpose(2, 0, 1)
                out[row] = image
            return out
    except (OSError, KeyError) as error:
        raise corrupt_file(path, f"it is no file of NSD's images, or truncated ({error})") from error


def read_captions(path: Path) -> np.ndarray:
    """Open ``COCO_73k_annots_curated.npy``: text of shape (73000, 5), '' where there is none."""
    try:
        texts = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise corrupt_file(path, str(error)) from error
    if texts.ndim != 2 or texts.dtype.kind != "U" or len(texts) != N_IMAGES:
        raise corrupt_file(path, f"it has shape {texts.shape} and dtype {texts.dtype}, not text of ({N_IMAGES}, 5)")
    return texts


def read_info(path: Path, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Read the rows of ``nsd_stim_info_merged.csv`` that belong to images, column by column, as text."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "nsdId" not in (reader.fieldnames or ()):
            raise corrupt_file(path, "it has no column 'nsdId'", "Take the file that NSD publishes.")
        rows = {int(row["nsdId"]): row for row in reader}
    absent = [uid for uid in ids.tolist() if uid not in rows]
    if absent:
        raise corrupt_file(path, f"it has no row for image {absent[0]}")
    # The first column is a row number without a name.
    columns = [name for name in rows[int(ids[0])] if name]
    return {name: np.array([rows[uid][name] for uid in ids.tolist()]) for name in columns}
