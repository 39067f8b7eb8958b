"""The thirteen regions of Brain-Diffuser, right and as its code has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloaders.checks import check_option, check_shape, missing_data
from neuroloaders.nifti import check_grid, read_volume

__all__ = ["REGION_COMPAT", "paper_regions"]

REGION_COMPAT = {
    None: "V1 to V4 from prf-visualrois, where the population receptive fields say they are",
    "brain-diffuser": "V1 to V4 from the labels of floc-faces, as in the released code: parts of the face areas",
}

# Region -> file and labels; None: all above 0.
_REGIONS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "faces": ("floc-faces", None),
    "words": ("floc-words", None),
    "places": ("floc-places", None),
    "bodies": ("floc-bodies", None),
    "V1": ("prf-visualrois", (1, 2)),
    "V2": ("prf-visualrois", (3, 4)),
    "V3": ("prf-visualrois", (5, 6)),
    "V4": ("prf-visualrois", (7,)),
    "ecc05": ("prf-eccrois", (1,)),
    "ecc10": ("prf-eccrois", (2,)),
    "ecc20": ("prf-eccrois", (3,)),
    "ecc40": ("prf-eccrois", (4,)),
    "ecc40p": ("prf-eccrois", (5,)),
}


def paper_regions(study: Any, subject: str, mask: Any, *, compat: str | None = None) -> dict[str, np.ndarray]:
    """Return the regions whose scenes Ozcelik & VanRullen 2023 show, over the voxels of a mask.

    Parameters
    ----------
    study : NSDStudy
        Where the region files are.
    subject : str
        One of ``study.subjects``.
    mask : array of bool, shape (x, y, z)
        The voxels, such as ``betas.mask``.
    compat : {None, "brain-diffuser"}
        A key of `REGION_COMPAT`.

    Returns
    -------
    dict of str to ndarray of bool, shape (n_voxels,)
        faces, words, places, bodies (all of a file's labels), V1 to V4, and five bands of eccentricity: to 0.5, 1, 2, 4
        degrees, and beyond. Empty ones are left out.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, or on another grid than the mask.
    """
    check_option("compat", compat, REGION_COMPAT)
    mask = np.asarray(mask, dtype=bool)
    check_shape("mask", mask, ("x", "y", "z"))
    folder = study.root / "nsddata" / "ppdata" / subject / study.space / "roi"
    volumes, out = {}, {}
    for name, (file, labels) in _REGIONS.items():
        if compat == "brain-diffuser" and file == "prf-visualrois":
            file = "floc-faces"
        if file not in volumes:
            path = folder / f"{file}.nii.gz"
            if not path.is_file():
                raise missing_data("NSD regions", [path.name], [folder], "It is part of NSD.")
            volumes[file] = read_volume(path)[0]
            check_grid("mask", mask.shape, volumes[file].shape, path)
        values = volumes[file][mask]
        region = values > 0 if labels is None else np.isin(values, labels)
        if region.any():
            out[name] = region
    return out
