"""What `fit` and `evaluate` accept as data, and how they walk through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import invalid

__all__ = ["check_loader", "describe_loader", "open_epoch", "split_batch"]


def check_loader(name: str, loader: Any, rank: int, world_size: int) -> None:
    """Raise if `loader` cannot be walked through more than once, or yields another process's share.

    Parameters
    ----------
    name : str
        ``"train"`` or ``"valid"``.
    loader : object
        With ``batches(epoch, start)``, or an iterable.
    rank, world_size : int
        This process and the number of all, as torchrun set them.

    Raises
    ------
    TypeError
        If it is a generator, or no iterable at all.
    ValueError
        If its ``rank`` and ``world_size`` differ from the process's: each sample would count twice or never.
    """
    if not hasattr(loader, "batches"):
        if not hasattr(loader, "__iter__"):
            raise invalid(name, "be a loader or an iterable of (x, y)", loader, kind=TypeError)
        if isinstance(loader, Iterator):
            advice = "Pass a list or a loader: each epoch walks through it once."
            raise invalid(name, "be iterable again and again", loader, advice, kind=TypeError)
    undeclared = (0, 1) if world_size == 1 else (None, None)
    declared = tuple(
        getattr(loader, key, default) for key, default in zip(("rank", "world_size"), undeclared, strict=True)
    )
    if declared != (rank, world_size):
        raise invalid(
            name,
            f"yield the share of rank {rank} of {world_size}, and say so by its `rank` and `world_size`",
            f"rank {declared[0]} of {declared[1]}",
            "Build it with `rank, _, world_size = neuroloaders.runs.world()`; each process gets its share of "
            "every global batch.",
        )


def describe_loader(loader: Any) -> dict[str, int]:
    """Return what a run's ``config.json`` records of a loader, where it tells: sizes."""
    described = {"n_batches": len(loader)} if hasattr(loader, "__len__") else {}
    for name in ("n_samples", "batch_size"):
        value = getattr(loader, name, None)
        if isinstance(value, int):
            described[name] = value
    return described


def open_epoch(loader: Any, epoch: int, start: int = 0) -> Iterator[Any]:
    """Return an iterator over the batches of one epoch, of which the first `start` are skipped.

    Parameters
    ----------
    loader : object
        Its ``batches(epoch, start)`` is used if it has one. Of an iterable, ``set_epoch`` is called if it or
        its sampler has one, and skipped batches are made and thrown away, before this returns.
    epoch, start : int
        Counted from 0.
    """
    if hasattr(loader, "batches"):
        return iter(loader.batches(epoch, start=start))
    for owner in (loader, getattr(loader, "sampler", None)):
        if hasattr(owner, "set_epoch"):
            owner.set_epoch(epoch)
    batches = iter(loader)
    for _ in range(start):
        next(batches, None)
    return batches


def split_batch(name: str, batch: Any, device: torch.device) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return (inputs, target) of a batch, on `device`: the last entry is the target, all else the input."""
    whole = isinstance(batch, tuple | list) and len(batch) >= 2
    if not whole or not all(isinstance(part, Tensor) for part in batch):
        kinds = [type(part).__name__ for part in batch] if isinstance(batch, tuple | list) else batch
        raise invalid(f"a batch of `{name}`", "be a tuple of tensors (x, y)", kinds, kind=TypeError)
    *inputs, target = (part.to(device, non_blocking=True) for part in batch)
    if target.ndim == 0:
        raise invalid(f"the targets of `{name}`", "have a batch axis", target)
    return tuple(inputs), target
