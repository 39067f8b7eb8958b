"""Networks on disk: OpenAI's released checkpoints, and folders of our own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from neurodecode.fmri.vdvae import VDVAE, VDVAEConfig
from neuroloaders.checkpoints import load_checkpoint, save_checkpoint
from neuroloaders.checks import check_state_dict, corrupt_file, invalid, missing_data

__all__ = ["RELEASE", "load_vdvae", "save_vdvae"]

# Where the released network for 64 x 64 images lies: 500 MB, github.com/openai/vdvae, MIT licence.
RELEASE = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets-2/imagenet64-iter-1600000-model-ema.th"

_FILE = "model.safetensors"


def save_vdvae(vdvae: VDVAE, folder: str | os.PathLike[str]) -> None:
    """Write weights and configuration into a folder; see `VDVAE.save`.

    The weights are one file, with the configuration in its header: it is there whole or not at all.

    Raises
    ------
    ValueError
        If a network of another configuration lies there.
    OSError
        If it cannot be written.
    """
    goal = Path(folder)
    goal.mkdir(parents=True, exist_ok=True)
    save_checkpoint(goal / _FILE, vdvae, config=vdvae.config, meta={"kind": "VDVAE"})


def load_vdvae(path: str | os.PathLike[str], *, config: VDVAEConfig | None = None, device: Any = None) -> VDVAE:
    """Read a network; see `VDVAE.load`."""
    path = Path(path)
    if not path.exists():
        advice = f"Download {RELEASE}"
        raise invalid("path", "be a checkpoint or a folder", repr(os.fspath(path)), advice, kind=FileNotFoundError)
    if path.is_dir():
        stored_config, tensors = _own(path)
        if config is not None and config != stored_config:
            raise invalid(
                "config", f"be that of {os.fspath(path)!r}", "another one", "Leave it out: the folder has it."
            )
        config = stored_config
    else:
        config = config or VDVAEConfig.imagenet64()
        tensors = _released(path)
    with torch.device("meta"):
        vdvae = VDVAE(config)
    check_state_dict(path, tensors, vdvae.state_dict())
    vdvae.load_state_dict(tensors, assign=True)
    return vdvae.to(device=device or "cpu", memory_format=torch.channels_last).eval()


def _own(folder: Path) -> tuple[VDVAEConfig, dict[str, torch.Tensor]]:
    path = folder / _FILE
    if not path.is_file():
        raise missing_data("VDVAE", [_FILE], [folder], "Give the folder that was passed to save().")
    stored = load_checkpoint(path)
    if stored.meta.get("kind") != "VDVAE" or stored.config is None:
        raise corrupt_file(path, "it holds no VDVAE", "Write it with VDVAE.save.")
    try:
        return VDVAEConfig(**stored.config), stored.tensors
    except (TypeError, ValueError) as error:
        raise corrupt_file(path, f"its configuration does not fit ({error})", "Save it again.") from error


def _released(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint of the release; nothing in it is executed."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # PyTorch raises half a dozen kinds, all of them about the content.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise corrupt_file(path, f"it is no checkpoint of tensors ({reason})") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise corrupt_file(path, "it holds something else than tensors by name")
    # Written by a model that was wrapped for several GPUs.
    return {str(name).removeprefix("module."): value for name, value in found.items()}
