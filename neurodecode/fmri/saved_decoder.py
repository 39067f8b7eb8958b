"""A fitted decoder of images in a folder: regression and statistics, with the fingerprints of its networks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from neurodecode.fmri.voxels import VoxelScaler
from neurodecode.ridge import StandardizedRidge, load_ridge
from neurodecode.ridge.side_by_side import Layout
from neuroloaders.checkpoints import load_checkpoint, save_checkpoint
from neuroloaders.checks import corrupt_file, invalid, missing_data

__all__ = ["load_decoder", "save_decoder"]

_VERSION = 1
_DECODER, _RIDGE = "decoder.safetensors", "ridge.safetensors"
_SETTINGS = ("standardize", "n_loo", "random_state", "decoding")


def save_decoder(decoder: Any, folder: str | os.PathLike[str]) -> None:
    """Write a fitted `BrainDiffuser`; an older one in the folder is replaced.

    Parameters
    ----------
    decoder : BrainDiffuser
        Fitted.
    folder : path-like
        Made if it is not there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Last what load_decoder looks for first: a save that is interrupted leaves no decoder that looks whole.
    (folder / _DECODER).unlink(missing_ok=True)
    decoder.ridge_.save(folder / _RIDGE)
    meta = {
        "version": _VERSION,
        "shapes": decoder.layout_.shapes,
        "fingerprints": {kind: extractor.fingerprint() for kind, extractor in decoder.extractors.items()},
        "regression": _digest(decoder.ridge_),
        "settings": {name: getattr(decoder, name) for name in _SETTINGS},
    }
    voxels = {name: torch.from_numpy(getattr(decoder.scaler_, name).copy()) for name in ("mean", "spread")}
    save_checkpoint(folder / _DECODER, voxels, meta=meta)


def load_decoder(
    kind_of_decoder: Any,
    folder: str | os.PathLike[str],
    extractors: Mapping[str, Any],
    backend: Any,
    device: Any,
) -> Any:
    """Read a decoder of `save_decoder`, and check that its networks are those it was fitted with.

    Parameters
    ----------
    kind_of_decoder : type
        `BrainDiffuser`.
    folder : path-like
        Where it is.
    extractors : mapping of str to extractor or None
        Kind of latent -> what it was fitted with.
    backend : DiffusionBackend or None
        Passed on.
    device : str or torch.device, optional
        For a regression that was fitted with torch.
    """
    folder = Path(folder)
    if not (folder / _DECODER).is_file():
        raise missing_data("the decoder", [_DECODER, _RIDGE], [folder], "Give the folder that went to save().")
    stored = load_checkpoint(folder / _DECODER)
    meta = stored.meta
    if meta.get("version") != _VERSION:
        raise corrupt_file(folder / _DECODER, "it holds no decoder of this version", "Fit and save it again.")
    given = {kind: extractor for kind, extractor in extractors.items() if extractor is not None}
    if set(given) != set(meta["shapes"]):
        raise invalid("extractors", f"be {', '.join(meta['shapes'])}, as saved", ", ".join(given) or "none")
    for kind, extractor in given.items():
        if extractor.fingerprint() != meta["fingerprints"][kind]:
            advice = "Its features mean something else: load the same weights, with the same settings."
            raise invalid(kind, "be the extractor that the decoder was fitted with", extractor, advice)
    decoder = kind_of_decoder(backend=backend, **given, **meta["settings"])
    ridge = load_ridge(folder / _RIDGE, device=device)
    if _digest(ridge) != meta["regression"]:
        raise corrupt_file(folder / _RIDGE, "it belongs to another decoder", "Fit and save it again.")
    decoder.ridge_, decoder.ridge = ridge, clone(ridge.ridge_)
    decoder.layout_ = Layout({kind: tuple(shape) for kind, shape in meta["shapes"].items()})
    decoder.scaler_ = VoxelScaler(*(stored.tensors[name].numpy() for name in ("mean", "spread")))
    return decoder


def _digest(model: StandardizedRidge) -> str:
    """Return what tells two fits apart."""
    statistics = (model.scaler_.target_mean_, model.scaler_.prediction_std_, model.ridge_.alpha_)
    return hashlib.sha256(b"".join(np.ascontiguousarray(values).tobytes() for values in statistics)).hexdigest()
