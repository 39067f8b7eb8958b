"""A tiny Natural Scenes Dataset: real names of files and variables, real types and order of axes, small grids."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
SHAPES = {1: (4, 5, 3), 2: (5, 4, 3)}  # each subject of NSD has a grid of its own
_BETAS = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
_ROI = "nsddata/ppdata/subj{:02d}/func1pt8mm/roi"


def expdesign(seed=0):
    """Return the variables of nsd_expdesign.mat: 10,000 images three times each, the first 1000 shared; from 1."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(73000) + 1
    shared, own = ids[:1000], ids[1000:].reshape(8, 9000)
    # As in NSD, the shared images are in rising order in `sharedix` and in `subjectim`.
    shared = np.sort(shared)
    pattern = np.zeros((40, 12, 75), dtype=np.uint8)
    pattern[:, 0::2, :63] = 1
    pattern[:, 1::2, 3:65] = 1
    return {
        "masterordering": rng.permutation(np.repeat(np.arange(1, 10001), 3)).astype(np.uint16)[None],
        "subjectim": np.concatenate([np.tile(shared, (8, 1)), own], axis=1).astype(np.float64),
        "sharedix": shared.astype(np.float64)[None],
        "basiccnt": np.zeros((3, 40), dtype=np.uint16),
        "stimpattern": pattern,
    }


def write_volume(path, volume, affine=AFFINE):
    """Write a NIfTI file in the type of the array."""
    import nibabel

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume), affine), path)
    return path


def write_session(root, subject, session, betas, *, ending=".nii.gz", chunks=None):
    """Write responses (x, y, z, trials) in the type of the array; HDF5 has the axes the other way round."""
    path = Path(root) / _BETAS.format(subject) / f"betas_session{session:02d}{ending}"
    if ending != ".hdf5":
        return write_volume(path, betas)
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=betas.transpose(3, 2, 1, 0), chunks=chunks)
    return path


def write_design(root, design=None):
    """Write nsd_expdesign.mat, by default `expdesign()`, which is returned."""
    from scipy.io import savemat

    design = expdesign() if design is None else design
    path = Path(root) / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, design)
    return design


def write_nsd(root, *, sessions=None, seed=0):
    """Write design, responses and regions; return the design, and {(subject, session): int16 (x, y, z, 750)}.

    By default subject 1 has sessions 1, 2 and 4, and subject 2 session 1.
    """
    rng = np.random.default_rng(seed)
    design, betas = write_design(root), {}
    for subject, numbers in (sessions or {1: (1, 2, 4), 2: (1,)}).items():
        shape = SHAPES[subject]
        for session in numbers:
            betas[subject, session] = rng.integers(-3000, 3000, (*shape, 750)).astype(np.int16)
            write_session(root, subject, session, betas[subject, session])
        write_regions(root, subject, rng)
        ncsnr = rng.random(shape).astype(np.float32)
        write_volume(Path(root) / _BETAS.format(subject) / "ncsnr.nii.gz", ncsnr)
    return design, betas


def write_regions(root, subject, rng):
    """Write nsdgeneral (-1, 0, 1), prf-visualrois (-1 to 7), floc-faces, prf-eccrois and a brain mask."""
    shape, folder = SHAPES[subject], Path(root) / _ROI.format(subject)
    inside = rng.integers(-1, 2, shape)
    write_volume(folder / "nsdgeneral.nii.gz", inside.astype(np.float32))
    # Every label once inside of nsdgeneral, so that no region is empty.
    areas = rng.integers(-1, 8, shape)
    areas[tuple(np.argwhere(inside == 1)[:7].T)] = np.arange(1, 8)
    write_volume(folder / "prf-visualrois.nii.gz", areas.astype(np.float32))
    write_volume(folder / "prf-eccrois.nii.gz", rng.integers(-1, 6, shape).astype(np.float32))
    write_volume(folder / "floc-faces.nii.gz", rng.integers(-1, 4, shape).astype(np.int16))
    for name in ("words", "places", "bodies"):
        write_volume(folder / f"floc-{name}.nii.gz", rng.integers(-1, 3, shape).astype(np.int16))
    write_volume(folder.parent / "brainmask.nii.gz", np.ones(shape, dtype=np.int16))


def write_images(root, *, size=2):
    """Write nsd_stimuli.hdf5; image i is filled with colours (i % 256, i // 256 % 256, 7)."""
    import h5py

    path = Path(root) / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(73000)
    colours = np.stack([numbers % 256, numbers // 256 % 256, np.full(73000, 7)], axis=1).astype(np.uint8)
    with h5py.File(path, "w") as file:
        file["imgBrick"] = np.broadcast_to(colours[:, None, None], (73000, size, size, 3))
    return path


def write_captions(root, texts):
    """Write COCO_73k_annots_curated.npy with captions {image: [text, ...]}; '' elsewhere."""
    longest = max(len(text) for some in texts.values() for text in some)
    table = np.full((73000, 5), "", dtype=f"<U{longest}")
    for image, some in texts.items():
        table[image, : len(some)] = some
    path = Path(root) / "annots" / "COCO_73k_annots_curated.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, table)
    return path


def write_info(root, ids):
    """Write rows of nsd_stim_info_merged.csv."""
    path = Path(root) / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", "cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"])
        for row, uid in enumerate(ids):
            writer.writerow([row, 500000 + uid, "val2017", "(0, 0, 0.1, 0.2)", "0.5", uid, "False", "False", "True"])
    return path
