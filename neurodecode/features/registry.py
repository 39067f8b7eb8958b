"""Extractors by name."""

from __future__ import annotations

import os
from typing import Any

import torch

from neurodecode.features.autokl import AutoKL
from neurodecode.features.base import FeatureExtractor
from neurodecode.features.clip import ClipText, ClipVision
from neurodecode.features.clip_hidden import ClipTextHidden
from neurodecode.features.dino import DINOv1, DINOv2
from neurodecode.features.handcrafted import FFT2D, HOG, LBP, LogPSD, RGBHistogram
from neurodecode.features.vdvae import VdvaeLatents
from neurodecode.features.vgg import VGG19
from neuroloaders.checks import check_option, invalid

__all__ = ["FEATURES", "load_extractor"]

# Name of an extractor -> its class.
FEATURES: dict[str, type[FeatureExtractor]] = {
    kind.name: kind
    for kind in (
        ClipText,
        ClipTextHidden,
        ClipVision,
        AutoKL,
        VdvaeLatents,
        DINOv2,
        DINOv1,
        VGG19,
        RGBHistogram,
        HOG,
        LBP,
        FFT2D,
        LogPSD,
    )
}
_WITH_DEFAULT_PATH = ("clip_text", "clip_vision", "vgg19")


def load_extractor(
    name: str,
    path: str | os.PathLike[str] | None = None,
    config: Any = None,
    *,
    subfolder: str | None = None,
    device: Any = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
) -> FeatureExtractor:
    """Return an extractor of images or captions.

    Parameters
    ----------
    name : str
        A key of `FEATURES`.
    path : path-like, optional
        Its weights: a folder in the layout of transformers or diffusers, a model of the Hugging Face hub that was
        downloaded before, or a file. CLIP (ViT-L/14) and VGG-19 have a default; handcrafted features take none.
    config : dataclass, optional
        The extractor's settings: `ClipVisionConfig` for "clip_vision", and so on.
    subfolder : str, optional
        Where in `path` the model is.
    device : str or torch.device, optional
        Where to compute; by default the CPU.
    dtype : torch.dtype
        What a network computes in.
    batch_size : int, optional
        Stimuli at a time; by default the extractor's.

    Returns
    -------
    FeatureExtractor

    Raises
    ------
    ValueError, TypeError
        If there is no such extractor, or the settings are those of another one.
    FileNotFoundError
        If the weights are not on this machine: the message says how to download them. Nothing is downloaded here.

    Examples
    --------
    >>> load_extractor("hog").shape
    (27, 27, 2, 2, 8)
    """
    kind = FEATURES[check_option("name", name, FEATURES)]
    given: dict[str, Any] = {"device": device} | ({} if batch_size is None else {"batch_size": batch_size})
    if not hasattr(kind, "load"):
        for what, value in (("path", path), ("subfolder", subfolder)):
            if value is not None:
                raise invalid(what, f"be None: {name!r} has no weights", repr(value))
        return kind(config, **given)
    given["dtype"] = dtype
    if subfolder is not None:
        if name not in ("clip_text", "clip_text_hidden", "clip_vision", "autokl"):
            raise invalid("subfolder", f"be None for {name!r}", repr(subfolder), "Add it to `path`.")
        given["subfolder"] = subfolder
    if path is None:
        if name not in _WITH_DEFAULT_PATH:
            raise invalid("path", f"be given: {name!r} has no default weights", "None")
        return kind.load(config=config, **given)
    return kind.load(path, config, **given)
