"""Scenes that single regions of the brain drive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neurodecode.fmri.brain_diffuser import BrainDiffuser, Reconstruction
from neurodecode.fmri.roi import PAPER_NORMS, region_latents

__all__ = ["roi_scene"]


def roi_scene(
    decoder: BrainDiffuser,
    rois: Mapping[str, Any],
    *,
    norms: Mapping[str, tuple[float, float | None]] = PAPER_NORMS,
    spread: str = "training",
    seed: int = 0,
    settings: Any = None,
) -> Reconstruction:
    """Return the scenes that single regions of the brain drive.

    Parameters
    ----------
    decoder : BrainDiffuser
        Fitted.
    rois : mapping of str to array of bool, each of shape (n_voxels,)
        The regions, such as the ``rois`` of a `neuroloaders.BetaSet`.
    norms, spread
        As for `neurodecode.fmri.region_latents`.
    seed, settings
        As for `BrainDiffuser.generate`.

    Returns
    -------
    Reconstruction
        An image for each region, in order.
    """
    decoder._check_fitted()
    latents = region_latents(decoder.ridge_, decoder.layout_, rois, norms=norms, spread=spread)
    return decoder.generate(latents, seed=seed, settings=settings)
