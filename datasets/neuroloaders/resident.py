"""Batches of a data set that lies on the device as a whole.

Small data sets (MNIST is 47 MB of bytes, CIFAR-10 184 MB) fit on every GPU. Then a batch is an index
operation on the device: no worker processes, no copies from the host, and the conversion to floating point
happens where it is used.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroloaders.augment import Transform, share_of_draws
from neuroloaders.checks import check_int, check_same_length, invalid
from neuroloaders.prefetch import prefetched

__all__ = ["ResidentLoader"]

# Of the GPU memory that is free when the loader is made, the data may take half: the rest is for the network.
_SHARE_OF_FREE = 0.5
_ORDER, _AUGMENT = 0, 1  # separate streams of random numbers

logger = logging.getLogger(__name__)


class ResidentLoader:
    """Batches of tensors that belong together row by row, cut on the device.

    Parameters
    ----------
    *tensors : array or tensor, shape (n_samples, ...)
        For example images and labels. Kept in the type they have: bytes stay bytes. NumPy arrays and memory
        maps are taken without a copy where possible.
    batch_size : int
        Rows in a batch of all processes together.
    device : torch.device or str, optional
        Where the batches are; by default where the first tensor is.
    shuffle : bool
        Another order in every epoch. Without it, batches are slices of the stored tensors: do not change them
        in place.
    generator : torch.Generator, optional
        Only its ``initial_seed()`` is read, once, here; it is not advanced. By default the seed is 0.
    rank, world_size : int
        This process and how many there are. Each gets a contiguous share of every batch; the shares of all
        ranks, one after the other, are the batch of a single process, augmentation included. Their sizes
        differ by at most one; in a last batch smaller than `world_size` some are empty.
    transform : Transform or callable, optional
        Applied to the first tensor of each batch, on the device. A plain callable takes and returns the
        batch's tensor, works row by row, and uses no random numbers; for random changes see
        `neuroloaders.augment`.
    drop_last : bool
        Leave out the last batch if it is smaller than the others.
    max_bytes : int, optional
        How much the data may take on the device. By default half of the free memory of a GPU, and any amount
        elsewhere. Data that take more stay in host memory; the next batch is then copied while the current
        one is used. The batches are the same.

    Attributes
    ----------
    n_samples, batch_size : int
    device : torch.device
    is_resident : bool
        Whether the data are on the device.

    Raises
    ------
    ValueError
        If the tensors are empty or differ in length, or a size is out of range.
    TypeError
        If something is no array.

    Notes
    -----
    The order of an epoch depends on the seed and the epoch, the augmentation of a batch on the seed, the
    epoch and the batch number; on nothing else, and not on the device. So a run that is resumed with
    ``batches(epoch, start)`` sees the batches it would have seen. The global random state is neither read
    nor changed.

    Examples
    --------
    >>> loader = ResidentLoader(torch.arange(5), batch_size=2)
    >>> [batch.tolist() for (batch,) in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        *tensors: Any,
        batch_size: int,
        device: torch.device | str | None = None,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world_size: int = 1,
        transform: Transform | Callable[[Tensor], Tensor] | None = None,
        drop_last: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        stored = [_as_tensor(f"tensors[{i}]", tensor) for i, tensor in enumerate(tensors)]
        if not stored:
            raise invalid("tensors", "be given", "none", "Pass e.g. images and labels.")
        self.n_samples = check_same_length(**{f"tensors[{i}]": tensor for i, tensor in enumerate(stored)})
        if self.n_samples == 0:
            raise invalid("tensors", "have at least one row", stored[0])
        self.world_size = check_int("world_size", world_size, at_least=1)
        self.rank = check_int("rank", rank, at_least=0, at_most=self.world_size - 1)
        advice = "Each process needs a row of every full batch." if self.world_size > 1 else ""
        self.batch_size = check_int("batch_size", batch_size, at_least=self.world_size, advice=advice)
        if drop_last and self.n_samples < self.batch_size:
            raise invalid(
                "batch_size",
                f"be at most {self.n_samples} with drop_last",
                f"{batch_size}",
                "No batch is left.",
            )
        if transform is not None and not callable(transform):
            raise invalid("transform", "be a Transform or a callable", transform, kind=TypeError)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise invalid("generator", "be a torch.Generator", generator, kind=TypeError)
        if max_bytes is not None:
            check_int("max_bytes", max_bytes, at_least=0)
        self.device = _resolved(stored[0].device if device is None else torch.device(device))
        self._shuffle, self._drop_last, self._transform = bool(shuffle), bool(drop_last), transform
        self._seed = 0 if generator is None else generator.initial_seed()
        self._next_epoch = 0
        # A slice of read-only memory would be written to by a careless `batch += 1`, and end the process.
        self._copy_slices = any(_is_read_only(tensor) for tensor in tensors)
        self.is_resident = self._fits(stored, max_bytes)
        home = self.device if self.is_resident else torch.device("cpu")
        self._tensors = [tensor.to(home) for tensor in stored]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(self.n_samples, self.batch_size)
        return whole + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Iterate over the next epoch: the first time 0, then 1, and so on."""
        epoch = self._next_epoch
        self._next_epoch += 1
        return self.batches(epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Return the batches of an epoch, from batch number `start` on.

        Parameters
        ----------
        epoch : int
            Decides the order and the augmentation.
        start : int
            First batch; those before it cost nothing.

        Yields
        ------
        batch : tuple of Tensor
            One tensor for each that was given, this rank's share of the rows.
        """
        epoch = check_int("epoch", epoch, at_least=0)
        start = check_int("start", start, at_least=0, at_most=len(self))
        return self._batches(epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        numbers, order = range(start, len(self)), self._order(epoch)
        if self.is_resident:
            gathered = (self._gather(number, order) for number in numbers)
        else:
            gathered = prefetched(lambda number: self._gather(number, order), numbers, self.device)
        try:
            for number, batch in zip(numbers, gathered, strict=True):
                yield self._transformed(batch, epoch, number)
        finally:
            gathered.close()  # ends the background thread now, also if the caller stops early

    def _order(self, epoch: int) -> Tensor | None:
        if not self._shuffle:
            return None
        # Drawn on the host, so that the order is the same on every device; moved once an epoch.
        order = torch.randperm(self.n_samples, generator=self._generator(_ORDER, epoch))
        return order.to(self._tensors[0].device, non_blocking=True)

    def _share(self, number: int) -> tuple[int, int, int]:
        """Return the first row of a batch, and where this rank's share of it begins and ends."""
        first = number * self.batch_size
        n = min(self.batch_size, self.n_samples - first)
        return first, n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size

    def _gather(self, number: int, order: Tensor | None) -> tuple[Tensor, ...]:
        first, begin, end = self._share(number)
        rows = slice(first + begin, first + end)
        if not self.is_resident and self.device.type == "cuda":
            return tuple(_pinned(tensor, rows, order) for tensor in self._tensors)
        if order is not None:
            return tuple(tensor.index_select(0, order[rows]) for tensor in self._tensors)
        return tuple(tensor[rows].clone() if self._copy_slices else tensor[rows] for tensor in self._tensors)

    def _transformed(self, batch: tuple[Tensor, ...], epoch: int, number: int) -> tuple[Tensor, ...]:
        if self._transform is None:
            return batch
        if not isinstance(self._transform, Transform):
            return (self._transform(batch[0]), *batch[1:])
        first, begin, end = self._share(number)
        n = min(self.batch_size, self.n_samples - first)
        # Drawn for the whole batch, on the host: the same for every division into ranks and on every device.
        draws = self._transform.draw(n, self._generator(_AUGMENT, epoch, number))
        return (self._transform.apply(batch[0], share_of_draws(draws, begin, end, self.device)), *batch[1:])

    def _generator(self, *key: int) -> torch.Generator:
        seed = np.random.SeedSequence(self._seed, spawn_key=key).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seed[0]))

    def _fits(self, stored: list[Tensor], max_bytes: int | None) -> bool:
        needed = sum(tensor.numel() * tensor.element_size() for tensor in stored if tensor.device != self.device)
        if max_bytes is not None:
            needed = sum(tensor.numel() * tensor.element_size() for tensor in stored)
        elif self.device.type == "cuda":
            max_bytes = int(torch.cuda.mem_get_info(self.device)[0] * _SHARE_OF_FREE)
        if max_bytes is None or needed <= max_bytes:
            return True
        logger.warning(
            "The data take %.2f GB, more than the %s may hold of them (%.2f GB): they stay in host memory.",
            needed / 1e9, self.device, max_bytes / 1e9,
        )  # fmt: skip
        return False


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        tensor = value.detach()
    elif isinstance(value, np.ndarray):
        tensor = _from_numpy(name, value)
    else:
        raise invalid(name, "be an array or a tensor", value, "Use torch.as_tensor on it.", kind=TypeError)
    if tensor.ndim == 0:
        raise invalid(name, "have at least one axis", tensor)
    return tensor


def _from_numpy(name: str, array: np.ndarray) -> Tensor:
    try:
        with warnings.catch_warnings():
            # Read-only arrays are shared all the same: nothing here writes, and slices of them are copied.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        advice = f"torch says: {error}. np.ascontiguousarray(x, dtype=np.float32) is one way."
        raise invalid(name, "be an array that torch can share", array, advice, kind=TypeError) from error


def _is_read_only(value: Any) -> bool:
    return isinstance(value, np.ndarray) and not value.flags.writeable


def _pinned(tensor: Tensor, rows: slice, order: Tensor | None) -> Tensor:
    """Return rows of a host tensor in pinned memory, from which a GPU copies without the host's help."""
    shape = (rows.stop - rows.start, *tensor.shape[1:])
    out = torch.empty(shape, dtype=tensor.dtype, pin_memory=True)
    return out.copy_(tensor[rows]) if order is None else torch.index_select(tensor, 0, order[rows], out=out)


def _resolved(device: torch.device) -> torch.device:
    """Return 'cuda' as the GPU that it stands for, so that devices can be compared."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
