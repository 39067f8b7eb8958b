"""Networks for M/EEG in a folder: weights in safetensors with the configuration in the header, and a copy beside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroloaders.checkpoints import load_checkpoint, save_checkpoint
from neuroloaders.checks import corrupt_file, missing_data

__all__ = ["load_network", "save_network"]

_WEIGHTS = "model.safetensors"


def save_network(folder: str | os.PathLike[str], network: nn.Module, kind: str, config: Any, build: dict) -> None:
    """Write a network; each file is whole or not there.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    network : Module
        The network.
    kind : str
        What it is, checked on reading.
    config : dataclass
        Its configuration.
    build : dict
        What it was built with, as JSON can hold it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {field: getattr(config, field) for field in config.__dataclass_fields__}
    added = network.spatial.subject
    meta = {"n_added_subjects": 0 if added is None else len(added.added)}
    save_checkpoint(folder / _WEIGHTS, network, config={"kind": kind, "config": settings, "build": build}, meta=meta)


def load_network(
    folder: str | os.PathLike[str],
    kind: str,
    build: Callable[[dict[str, Any], dict[str, Any]], nn.Module],
    device: torch.device | str | None,
) -> nn.Module:
    """Read a network of `save_network`, in evaluation mode.

    Parameters
    ----------
    folder : path-like
        Where it is.
    kind : str
        What it must be.
    build : callable
        Makes the network of configuration and what it was built with.
    device : device or str or None
        Where to put it; None: the CPU.
    """
    path = Path(folder) / _WEIGHTS
    if not path.is_file():
        raise missing_data(kind, [_WEIGHTS], [folder], "Give the folder that was passed to save().")
    saved = load_checkpoint(path)
    note = saved.config or {}
    if note.get("kind") != kind:
        raise corrupt_file(path, f"it holds {note.get('kind', 'weights without configuration')!r}, no {kind!r}",
                           "Load it with the class that wrote it.")  # fmt: skip
    try:
        network = build(note["config"], note["build"])
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt_file(path, f"its configuration is of another version ({error})") from error
    for _ in range(saved.meta.get("n_added_subjects", 0)):
        network.spatial.subject.add()
    dtypes = {value.dtype for value in saved.tensors.values() if value.is_floating_point()}
    if len(dtypes) == 1:
        network.to(dtypes.pop())
    load_checkpoint(path, network)
    return network.to(device).eval()
