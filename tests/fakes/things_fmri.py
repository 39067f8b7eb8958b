"""A tiny THINGS-fMRI in tables: real names of files and columns, and the frame as pandas writes it.

What pandas 3 writes with ``to_hdf(key="ResponseData")`` was looked at with h5py: blocks by type, rows first; names of
columns as text, or pickled where text and numbers are mixed.
"""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np

NOT_REGIONS = ("voxel_id", "subject_id", "voxel_x", "voxel_y", "voxel_z", "nc_singletrial", "nc_testset",
               "splithalf_uncorrected", "splithalf_corrected", "prf-eccentricity", "prf-polarangle", "prf-rsquared",
               "prf-size")  # fmt: skip


def trials(n_sessions=3):
    """Return rows of StimulusMetadata: per session 4 training images, and the same 2 test images."""
    things = ["dog", "mango", "ice_cream", "bat1", "spatula", "panda"]
    rows, seen = [], 0
    for session in range(1, n_sessions + 1):
        for place in range(6):
            if place in (1, 4):
                kind, name = "test", ("candelabra_14s.jpg" if place == 1 else "dog_13s.jpg")
            else:
                kind, name = "train", f"{things[seen % len(things)]}_{seen + 1:02d}b.jpg"
                seen += 1
            rows.append({"trial_type": kind, "session": session, "run": 1 + place // 3, "subject_id": 1,
                         "trial_id": len(rows), "stimulus": name})  # fmt: skip
    return rows


def write_things(folder, subject="sub-01", *, n_voxels=12, labels="text", seed=0, **changes):
    """Write the three files of a subject into `folder`; return (responses (voxels, trials), voxel table).

    `labels` is "text" or "mixed", how the frame names its columns; `order` permutes its columns; `voxel_ids` are those
    in the frame.
    """
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = trials()
    _table(folder / f"{subject}_StimulusMetadata.csv", rows)
    places = np.argwhere(np.ones((4, 5, 3), bool))[np.sort(rng.permutation(60)[:n_voxels])]
    voxels = []
    for number, (x, y, z) in enumerate(places.tolist()):
        row = dict.fromkeys(NOT_REGIONS, 0.0)
        row |= {"voxel_id": number, "subject_id": 1, "voxel_x": x, "voxel_y": y, "voxel_z": z}
        row |= {"nc_singletrial": 100 * number / (number + 4), "V1": int(number < 4), "hV4": int(number == 5)}
        voxels.append(row | {"lFFA": int(number > 8), "rFFA": 0})
    _table(folder / f"{subject}_VoxelMetadata.csv", voxels)
    responses = rng.standard_normal((n_voxels, len(rows)))
    write_frame(folder / f"{subject}_ResponseData.h5", responses, labels=labels, **changes)
    return responses, voxels


def write_frame(path, responses, *, labels="text", order=None, voxel_ids=None):
    """Write a frame of voxels in rows and trials in columns, with a column voxel_id."""
    import h5py

    n_voxels, n = responses.shape
    order = np.arange(n) if order is None else np.asarray(order)
    with h5py.File(path, "w") as file:
        group = file.create_group("ResponseData")
        group.attrs.update({"pandas_type": b"frame", "ndim": 2, "nblocks": 2})
        names = [b"voxel_id", *(str(number).encode() for number in order)]
        group["axis1"] = np.arange(n_voxels)
        group["block0_values"] = responses[:, order]
        group["block1_values"] = (np.arange(n_voxels) if voxel_ids is None else np.asarray(voxel_ids))[:, None]
        group["block1_items"] = np.array([b"voxel_id"])
        if labels == "text":
            group["axis0"], group["block0_items"] = np.array(names), np.array(names[1:])
        else:
            pickled = np.frombuffer(pickle.dumps(list(range(n))), np.uint8)
            for name in ("axis0", "block0_items"):
                group.create_dataset(name, (1,), h5py.vlen_dtype(np.uint8))[0] = pickled


def write_image(folder, name, colour, size=(9, 9)):
    """Write a picture of one colour where THINGS has it: in a folder of its category."""
    from PIL import Image

    path = Path(folder) / name.rsplit("_", 1)[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=100)
    return path


def _table(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
