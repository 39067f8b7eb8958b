"""Spikes of a data set as one flat list of events, with where each sample begins.

N samples, E events in all. A sample is what one trial, word or gesture is: events at times, on units (channels of
a cochlea, pixels of a camera). Event lists stay on the disk's precision and are binned on the device, batch by batch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_option, check_same_length, check_shape, invalid
from neuroloaders.splits import SPLITS, stratified_holdout

__all__ = ["SpikeSet"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpikeSet:
    """Events of N samples, their labels, and what is needed to read them.

    Parameters
    ----------
    times_ms : Tensor of float32, shape (E,)
        Time of each event in ms. Within a sample in rising order; the zero of time is the sample's own.
    units : Tensor of int32, shape (E,)
        Where each event happened, in 0..n_units - 1.
    offsets : Tensor of int64, shape (N + 1,)
        Events of sample i are ``offsets[i]:offsets[i + 1]``. A sample may be empty.
    labels : Tensor of int64, shape (N,)
        Places in `classes`.
    n_units : int
        Number of units, also those that never fire.
    classes : tuple of str
        Class names.
    name : str
        The data set.
    split : str
        A key of `neuroloaders.splits.SPLITS`.
    groups : Tensor of int64, shape (N,), optional
        Who made each sample, places in `group_names`: speakers, subjects.
    group_names : tuple of str
        Their names.
    unit_shape : tuple of int, optional
        How units are laid out, for example (2, 128, 128) for polarity, row and column of a camera; its product is
        `n_units`. By default ``(n_units,)``.
    provenance : str
        Where the events come from, and what made them.

    Raises
    ------
    TypeError, ValueError
        If shapes, types, offsets, labels or units do not fit, or a sample's events are out of order.
    """

    times_ms: Tensor
    units: Tensor
    offsets: Tensor
    labels: Tensor
    n_units: int
    classes: tuple[str, ...]
    name: str
    split: str
    groups: Tensor | None = None
    group_names: tuple[str, ...] = ()
    unit_shape: tuple[int, ...] | None = None
    provenance: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_option("split", self.split, SPLITS)
        check_int("n_units", self.n_units, at_least=1)
        tensors: list[tuple[str, Any, torch.dtype, str]] = [
            ("times_ms", self.times_ms, torch.float32, "E"),
            ("units", self.units, torch.int32, "E"),
            ("offsets", self.offsets, torch.int64, "N + 1"),
            ("labels", self.labels, torch.int64, "N"),
        ]
        if self.groups is not None:
            tensors.append(("groups", self.groups, torch.int64, "N"))
        for name, tensor, dtype, axis in tensors:
            check_shape(name, tensor, (axis,))
            if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
                raise invalid(name, f"be a tensor of {dtype}", tensor, kind=TypeError)
        check_same_length(times_ms=self.times_ms, units=self.units)
        n = len(self.labels)
        if len(self.offsets) != n + 1:
            raise invalid("offsets", f"have one entry more than the {n} labels", f"{len(self.offsets)}")
        if n == 0:
            raise invalid("labels", "hold at least one sample", self.labels)
        if self.groups is not None:
            check_same_length(labels=self.labels, groups=self.groups)
            _check_places("groups", self.groups, len(self.group_names), "group name")
        _check_places("labels", self.labels, len(self.classes), "class")
        check_events(self.times_ms, self.units, self.offsets, self.n_units)
        if self.unit_shape is not None and math.prod(self.unit_shape) != self.n_units:
            raise invalid("unit_shape", f"multiply to n_units = {self.n_units}", f"{self.unit_shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (
            f"SpikeSet({self.name} {self.split}: {len(self)} samples, {len(self.times_ms)} events, "
            f"{self.n_units} units, {len(self.classes)} classes)"
        )

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Return times (ms) and units of one sample."""
        index = check_int("index", index, at_least=0, at_most=len(self) - 1)
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.times_ms[part], self.units[part]

    def select(self, rows: Any, split: str | None = None) -> SpikeSet:
        """Return the samples `rows` (numbers, or a mask of shape (N,)) as a set of their own, copied.

        Parameters
        ----------
        rows : array or tensor
            Whole numbers in the order wanted, or one bool a sample.
        split : str, optional
            The new set's split; by default that of this one.
        """
        chosen = torch.as_tensor(rows)
        if chosen.dtype == torch.bool:
            check_shape("rows", chosen, (len(self),))
            chosen = chosen.nonzero()[:, 0]
        elif chosen.numel() and (int(chosen.min()) < 0 or int(chosen.max()) >= len(self)):
            raise invalid("rows", f"lie in 0..{len(self) - 1}", f"{int(chosen.min())}..{int(chosen.max())}")
        chosen = chosen.long()
        events, offsets = gather_events(self.offsets, chosen)
        return dataclasses.replace(
            self,
            times_ms=self.times_ms[events],
            units=self.units[events],
            offsets=offsets,
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            split=split or self.split,
        )

    def holdout(self, fraction: float, seed: int = 0) -> tuple[SpikeSet, SpikeSet]:
        """Carve a validation set out of this training set, every class in proportion: (train, valid)."""
        self._must_be_train()
        rows = stratified_holdout(self.labels, fraction=fraction, seed=seed)
        return self.select(torch.from_numpy(rows[0])), self.select(torch.from_numpy(rows[1]), "valid")

    def hold_group_out(self, group: str, split: str = "valid") -> tuple[SpikeSet, SpikeSet]:
        """Split off everything that one speaker or subject made: (the others, `group`).

        Parameters
        ----------
        group : str
            One of `group_names`.
        split : str
            What the second set is for: "valid" or "test".
        """
        if self.groups is None:
            raise invalid("groups", "be known to hold one out", "None", "This set does not say who made its samples.")
        check_option("group", group, self.group_names)
        self._must_be_train()
        held = self.groups == self.group_names.index(group)
        for rows, what in ((held, "no samples"), (~held, "all samples")):
            if not rows.any():
                raise invalid("group", "be that of some samples but not of all", f"{group!r}, which made {what}")
        return self.select(~held), self.select(held, split)

    def _must_be_train(self) -> None:
        if self.split != "train":
            raise invalid("split", "be 'train' to hold samples out from", repr(self.split))


def gather_events(offsets: Tensor, rows: Tensor, n_events: int | None = None) -> tuple[Tensor, Tensor]:
    """Return which events belong to samples `rows`, shape (E',), and the offsets among them, shape (len(rows) + 1,).

    Without `n_events`, which is E', it waits for the device.
    """
    starts, counts = offsets[rows], offsets[rows + 1] - offsets[rows]
    new = torch.zeros(len(rows) + 1, dtype=torch.int64, device=offsets.device)
    torch.cumsum(counts, 0, out=new[1:])
    n_events = int(new[-1]) if n_events is None else n_events
    events = torch.arange(n_events, device=offsets.device)
    return events + torch.repeat_interleave(starts - new[:-1], counts, output_size=n_events), new


def _check_places(name: str, values: Tensor, n: int, what: str) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= n:
        raise invalid(name, f"lie in 0..{n - 1}, one for each {what}", f"{low}..{high}")


def check_events(times_ms: Tensor, units: Tensor | None, offsets: Tensor, n_units: int) -> None:
    """Raise ValueError unless the flat list of events is sound. Waits for the device.

    Parameters
    ----------
    times_ms : Tensor of any real type, shape (E,)
        Must be finite and rise within each sample.
    units : Tensor of an integer type, shape (E,), optional
        Must lie in 0..n_units - 1.
    offsets : Tensor of int64, shape (B + 1,)
        Must rise from 0 to E.
    n_units : int
    """
    n_events = len(times_ms)
    if int(offsets[0]) != 0 or int(offsets[-1]) != n_events:
        raise invalid(
            "offsets", f"rise from 0 to the number of events, {n_events}", f"{int(offsets[0])}..{int(offsets[-1])}"
        )
    falling = offsets.diff() < 0
    if bool(falling.any()):
        raise invalid("offsets", "never fall", f"a step back after sample {int(falling.nonzero()[0, 0])}")
    if not n_events:
        return
    if not bool(torch.isfinite(times_ms).all()):
        raise invalid(
            "times_ms", "hold finite numbers only", "NaN or infinite times", "Look at the file they are from."
        )
    if units is not None:
        # Unsigned integers of more than 8 bits have no extremes in torch.
        low, high = (int(extreme) for extreme in units.long().aminmax())
        if low < 0 or high >= n_units:
            raise invalid("units", f"lie in 0..{n_units - 1}", f"{low}..{high}", "Give the right n_units.")
    falling = times_ms[1:] < times_ms[:-1]
    borders = offsets[1:-1]
    falling[borders[(borders > 0) & (borders < n_events)] - 1] = False
    if bool(falling.any()):
        where = int(falling.nonzero()[0, 0]) + 1
        sample = int(torch.searchsorted(offsets, where, right=True)) - 1
        raise invalid(
            "times_ms", "rise within each sample", f"a step back at event {where}, in sample {sample}", "Sort them."
        )
