"""Weights and training states on disk, without pickle from outside.

Weights go into one safetensors file whose header carries the configuration: one rename is one transaction.
A copy of the configuration lies beside it as ``config.json``, for people; the header is what counts.
Optimiser states go into one file that is read with ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_state_dict, corrupt_file, invalid

__all__ = [
    "Checkpoint",
    "as_json",
    "check_same_config",
    "load_checkpoint",
    "load_state",
    "read_json",
    "save_checkpoint",
    "save_state",
]

_KEY = "spikedecode"


class Checkpoint(NamedTuple):
    """What `load_checkpoint` returns.

    Attributes
    ----------
    tensors : dict of str to Tensor
        All tensors of the file, on the CPU.
    config : dict or None
        The configuration that was saved with them.
    meta : dict
        Whatever else was saved with them.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any] | None
    meta: dict[str, Any]


def save_checkpoint(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor] | nn.Module,
    *,
    config: Any = None,
    meta: Any = None,
) -> None:
    """Write weights, their configuration and notes as one safetensors file.

    Parameters
    ----------
    path : path-like
        The file, usually ``.../model.safetensors``.
    tensors : mapping of str to Tensor, or Module
        The tensors; of a module, its state dict. Names that share one tensor (tied weights) are stored once.
    config : dataclass or mapping, optional
        Goes into the header, and as ``config.json`` beside the file.
    meta : mapping, optional
        Goes into the header only: epoch, scores.

    Raises
    ------
    ValueError
        If a ``config.json`` with other values lies there already: it belongs to other weights.
    OSError
        If it cannot be written; the old file stays whole.
    """
    from safetensors.torch import save

    state = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    beside = Path(path).parent / "config.json"
    config = as_json("config", config)
    if config is not None and beside.exists():
        check_same_config(beside, read_json(beside), config)
    stored, shared = _unshare(state)
    note = json.dumps({"config": config, "meta": as_json("meta", meta) or {}, "shared": shared}, allow_nan=False)
    with atomic_write(path, "wb") as file:
        # "format" is what transformers and diffusers look for.
        file.write(save(stored, metadata={"format": "pt", _KEY: note}))
    if config is not None and not beside.exists():
        with atomic_write(beside, "w") as file:
            json.dump(config, file, indent=2)


def load_checkpoint(
    path: str | os.PathLike[str], expected: nn.Module | Mapping[str, Tensor] | None = None
) -> Checkpoint:
    """Read a file of `save_checkpoint`, or any other safetensors file.

    Parameters
    ----------
    path : path-like
        The file.
    expected : Module or mapping of str to Tensor, optional
        A module is given the weights, on its own device and in its own dtype. With a mapping, only names and
        shapes are compared.

    Returns
    -------
    Checkpoint
        The tensors on the CPU, the configuration and the notes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or cut short, or of another architecture. A module that was passed is then unchanged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt", device="cpu") as file:
            note = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            # Cloned, because the file's pages are mapped and the file may be replaced or cut while in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error
    for alias, name in note.get("shared", {}).items():
        tensors[alias] = tensors[name]
    if expected is not None:
        want = expected.state_dict() if isinstance(expected, nn.Module) else expected
        check_state_dict(path, tensors, {name: value for name, value in want.items() if isinstance(value, Tensor)})
    if isinstance(expected, nn.Module):
        expected.load_state_dict(tensors)
    return Checkpoint(tensors, note.get("config"), note.get("meta", {}))


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a training state (tensors, numbers, strings, lists, dicts) that `load_state` reads back.

    Everything is in one file, so that one rename is one transaction.
    """
    buffer = io.BytesIO()
    # Not straight into the file: torch's writer turns a full disk into an unreadable RuntimeError.
    torch.save(dict(state), buffer)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getbuffer())


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of `save_state` onto the CPU; nothing in it is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, cut short, or holds more than tensors and plain values.
    """
    data = Path(path).read_bytes()
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch raises half a dozen kinds; the bytes are in memory, so that all of them are about the content.
        raise _damaged(path, error) from error


def as_json(name: str, value: Any) -> Any:
    """Return a dataclass or mapping as JSON would give it back: dicts, lists, strings, numbers.

    A value may have its own ``as_dict()``. Raises TypeError for what JSON cannot hold.
    """
    if value is None:
        return None
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    elif not isinstance(value, Mapping):
        raise invalid(name, "be a dataclass or a dict", value, kind=TypeError)
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise invalid(
            name, "hold only what JSON can: numbers, strings, lists and dicts", f"{error}", kind=TypeError
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; a damaged one is a ValueError that says so."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, error) from error


def check_same_config(path: str | os.PathLike[str], saved: Any, given: Any) -> None:
    """Raise ValueError at the first field in which two configurations (as JSON) differ, with both values."""
    difference = _first_difference(saved, given, "")
    if difference is not None:
        field, old, new = difference
        raise invalid(
            field,
            f"be {old}, as in {os.fspath(path)!r}",
            new,
            f"To go on there, pass {old} again; to start anew, choose another folder or delete that one.",
        )


def _damaged(path: str | os.PathLike[str], error: Exception) -> ValueError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return corrupt_file(
        path,
        f"it is damaged or cut short ({reason})",
        "Restore it from a copy, or delete it and make it again.",
    )


def _first_difference(saved: Any, given: Any, prefix: str) -> tuple[str, str, str] | None:
    if isinstance(saved, dict) and isinstance(given, dict):
        pairs = [
            (f"{prefix}.{key}", saved.get(key, "absent"), given.get(key, "absent"))
            for key in [*saved, *(given.keys() - saved.keys())]
        ]
    elif isinstance(saved, list) and isinstance(given, list) and len(saved) == len(given):
        pairs = [(f"{prefix}[{index}]", old, new) for index, (old, new) in enumerate(zip(saved, given, strict=True))]
    else:
        return None if saved == given else (prefix.lstrip("."), json.dumps(saved), json.dumps(given))
    found = (_first_difference(old, new, name) for name, old, new in pairs)
    return next((difference for difference in found if difference is not None), None)


def _unshare(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split names into those that own a tensor and those that are another name of it.

    safetensors refuses tensors that share memory, as tied weights do.
    """
    stored: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    owners: dict[Any, str] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise invalid(f"tensors[{name!r}]", "be a tensor", value, "Put other values into `meta`.", kind=TypeError)
        view = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        owner = owners.setdefault(view, name) if value.numel() else name
        if owner == name:
            # A clone has memory of its own also when `value` is a part of another tensor.
            stored[name] = value.detach().cpu().contiguous().clone()
        else:
            shared[name] = owner
    return stored, shared
