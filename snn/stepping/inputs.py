"""What a network is shown over time: the same input at each step, or a sequence, of the samples still in the batch."""

# T time steps, k steps of a block, B samples

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroloaders.checks import check_option, invalid

__all__ = ["INPUTS", "Shown"]

INPUTS = {
    "static": "the same input (B, ...) at each step, without end",
    "sequence": "a sequence [T, B, ...], which ends after T steps",
}


@dataclass(slots=True)
class Shown:
    """An input and the samples of it that are left.

    Attributes
    ----------
    x : Tensor, shape (B, ...) or (T, B, ...)
        As it was given.
    kind : str
        A key of `INPUTS`.
    rows : Tensor or None
        Which samples of a sequence are left; None for all. They are picked where a block is read: a sequence is long,
        and most of it is never read if its samples leave early.
    """

    x: Tensor
    kind: str
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the shape."""
        check_option("inputs", self.kind, INPUTS)
        least = 2 if self.kind == "sequence" else 1
        if not isinstance(self.x, Tensor) or self.x.ndim < least:
            shape = "(T, B, ...)" if self.kind == "sequence" else "(B, ...)"
            raise invalid("x", f"be a tensor of shape {shape}", self.x, kind=ValueError)

    @property
    def n_samples(self) -> int:
        """B."""
        if self.rows is not None:
            return len(self.rows)
        return self.x.shape[1] if self.kind == "sequence" else self.x.shape[0]

    def left(self, age: int) -> int | None:
        """Return how many steps there are after `age` steps; None if there is no end."""
        return len(self.x) - age if self.kind == "sequence" else None

    def block(self, age: int, n_steps: int) -> Tensor:
        """Return the input of the steps from `age` on, shape (k, B, ...); fewer than asked for where it ends."""
        if self.kind == "static":
            return self.x.expand(n_steps, *self.x.shape)
        block = self.x[age : age + n_steps]
        return block if self.rows is None else block.index_select(1, self.rows)

    def keep(self, index: Tensor) -> Shown:
        """Return the samples `index` only."""
        index = index.to(self.x.device)
        if self.kind == "static":
            return Shown(self.x.index_select(0, index), self.kind)
        rows = torch.arange(self.x.shape[1], device=self.x.device) if self.rows is None else self.rows
        return Shown(self.x, self.kind, rows.index_select(0, index))
