"""Samples of equal length as one array of features over time: mel spectrograms, band powers.

N samples, T time steps, C channels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import check_option, check_same_length, check_shape, invalid
from neuroloaders.splits import SPLITS, stratified_holdout

__all__ = ["FeatureSet", "time_first"]


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureSet:
    """Features of N samples, their labels, and who made them.

    Parameters
    ----------
    features : Tensor of float32, shape (N, T, C)
        As stored; may be over a memory map. For a network that wants time first, see `time_first`.
    labels : Tensor of int64, shape (N,)
        Places in `classes`.
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
    provenance : str
        Where the features come from, and what made them.

    Raises
    ------
    TypeError, ValueError
        If shapes, types, labels or groups do not fit. The features themselves are not read.
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    groups: Tensor | None = None
    group_names: tuple[str, ...] = ()
    provenance: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_option("split", self.split, SPLITS)
        tensors = [
            ("features", self.features, torch.float32, ("N", "T", "C")),
            ("labels", self.labels, torch.int64, ("N",)),
        ]
        if self.groups is not None:
            tensors.append(("groups", self.groups, torch.int64, ("N",)))
        for name, tensor, dtype, shape in tensors:
            check_shape(name, tensor, shape)
            if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
                raise invalid(name, f"be a tensor of {dtype}", tensor, kind=TypeError)
        check_same_length(**{name: tensor for name, tensor, _, _ in tensors})
        if len(self.labels) == 0:
            raise invalid("labels", "hold at least one sample", self.labels)
        for name, places, names in (("labels", self.labels, self.classes), ("groups", self.groups, self.group_names)):
            if places is None:
                continue
            low, high = int(places.min()), int(places.max())
            if low < 0 or high >= len(names):
                raise invalid(name, f"lie in 0..{len(names) - 1}, one for each name", f"{low}..{high}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.features.shape))
        return f"FeatureSet({self.name} {self.split}: {shape} float32, {len(self.classes)} classes)"

    def select(self, rows: Any, split: str | None = None) -> FeatureSet:
        """Return the samples `rows` (numbers, or a mask of shape (N,)) as a set of their own, copied to memory.

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
        return dataclasses.replace(
            self,
            features=self.features.index_select(0, chosen),
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            split=split or self.split,
        )

    def holdout(self, fraction: float, seed: int = 0) -> tuple[FeatureSet, FeatureSet]:
        """Carve a validation set out of this training set, every class in proportion: (train, valid)."""
        self._must_be_train()
        train, valid = stratified_holdout(self.labels, fraction=fraction, seed=seed)
        return self.select(torch.from_numpy(train)), self.select(torch.from_numpy(valid), "valid")

    def hold_group_out(self, group: str, split: str = "valid") -> tuple[FeatureSet, FeatureSet]:
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
        if group not in self.group_names:  # of thousands of speakers, a message cannot list all
            raise invalid("group", f"be one of the {len(self.group_names)} in group_names", repr(group))
        self._must_be_train()
        held = self.groups == self.group_names.index(group)
        for rows, what in ((held, "no samples"), (~held, "all samples")):
            if not rows.any():
                raise invalid("group", "be that of some samples but not of all", f"{group!r}, which made {what}")
        return self.select(~held), self.select(held, split)

    def _must_be_train(self) -> None:
        if self.split != "train":
            raise invalid("split", "be 'train' to hold samples out from", repr(self.split))


def time_first(batch: Tensor) -> Tensor:
    """Turn a batch [B, T, C] into [T, B, C], as a `ResidentLoader` transform for spiking networks.

    Parameters
    ----------
    batch : Tensor, shape (B, T, C)
        Features; all samples have the same length.

    Returns
    -------
    Tensor, shape (T, B, C)
        A view.

    Examples
    --------
    >>> from neuroloaders import ResidentLoader
    >>> loader = ResidentLoader(torch.zeros(3, 101, 140), torch.arange(3), batch_size=3, transform=time_first)
    >>> next(iter(loader))[0].shape
    torch.Size([101, 3, 140])
    """
    check_shape("batch", batch, ("B", "T", "C"))
    return batch.transpose(0, 1)
