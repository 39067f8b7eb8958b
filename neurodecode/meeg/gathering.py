"""Rows of all processes, with gradients: what a contrastive loss over several GPUs needs."""

# B rows of this process, W processes

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Rows", "gather_rows", "n_processes"]


def n_processes() -> int:
    """Return how many processes train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Rows:
    """Where the rows of each process stand among all.

    Parameters
    ----------
    n_rows : int
        Rows of this process; others may have another number.
    device : device
        Where the processes exchange numbers.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        world = n_processes()
        self.sizes = [n_rows]
        self.rank = 0
        if world > 1:
            self.rank = dist.get_rank()
            sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
            dist.all_gather(sizes, torch.tensor([n_rows], device=device))
            self.sizes = [int(size) for size in sizes]

    @property
    def total(self) -> int:
        """Rows of all processes."""
        return sum(self.sizes)

    @property
    def first(self) -> int:
        """Number of this process's first row among all."""
        return sum(self.sizes[: self.rank])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        # Collectives want the same shape everywhere: the shorter ones are padded, and cut again.
        longest = max(rows.sizes)
        mine = x.new_zeros((longest, *x.shape[1:]))
        mine[: len(x)] = x
        parts = [torch.empty_like(mine) for _ in rows.sizes]
        dist.all_gather(parts, mine)
        return torch.cat([part[:size] for part, size in zip(parts, rows.sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # What every process's loss says about these rows.
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        rows = ctx.rows
        return total[rows.first : rows.first + rows.sizes[rows.rank]], None


def gather_rows(x: Tensor, rows: Rows) -> Tensor:
    """Return the rows of all processes, in their order; gradients go back to the process that owns a row.

    Parameters
    ----------
    x : Tensor, shape (B, ...)
        Rows of this process.
    rows : Rows
        Made with B on all processes.

    Returns
    -------
    Tensor, shape (sum of B, ...)
    """
    return x if len(rows.sizes) == 1 else _Gather.apply(x, rows)
