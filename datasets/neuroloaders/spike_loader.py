"""Batches of spikes, binned on the device where the events lie.

Events are a hundred times smaller than their counts: SHD is 0.5 GB of events and 40 GB of bins of 10 ms. So the
events are kept, and a batch is counted when it is due.

N samples, E events, T bins, B batch, C units after pooling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from neuroloaders.augment import share_of_draws
from neuroloaders.checks import check_int, check_number, check_option, invalid
from neuroloaders.event_augment import Events, EventTransform
from neuroloaders.events import BEYOND, BINNINGS, bins_of, check_beyond, check_times_from_zero, counts_in_bins
from neuroloaders.prefetch import prefetched
from neuroloaders.resident import _AUGMENT, ResidentLoader
from neuroloaders.spikes import SpikeSet, check_events, gather_events

__all__ = ["SpikeLoader"]


class SpikeLoader(ResidentLoader):
    """Batches of a `SpikeSet`, counted in bins on the device.

    Parameters
    ----------
    spikes : SpikeSet
        N samples.
    dt_ms : float
        Width of a bin in ms.
    n_units : int, optional
        Must be that of `spikes`, if given: a reader of the code then sees it.
    device : torch.device or str, optional
        Where the batches are; by default where the events are.
    batch_size, shuffle, generator, rank, world_size, drop_last
        As for `ResidentLoader`: order, shares of the ranks and resuming are the same.
    pool_units : int
        Neighbouring units that are counted as one; 5 makes the 700 channels of SHD 140, as Hammouamri et al. 2023
        do. Must divide the number of units.
    mode : str
        How time is divided, a key of `neuroloaders.events.BINNINGS`.
    n_bins : int, optional
        T of every batch. By default a batch is as long as its longest sample, over all ranks, and at least 1.
    beyond : str
        What to do with events after `n_bins`, a key of `neuroloaders.events.BEYOND`.
    pad_to : int
        Without `n_bins`, T is rounded up to a multiple of this, so that fewer lengths occur.
    transform : EventTransform, optional
        Random changes of the events before they are pooled and binned; see `neuroloaders.event_augment`.
    dtype : torch.dtype
        A floating type. Counting is done in float32; float16 and bfloat16 are rounded from there.
    with_lengths : bool
        Whether batches hold how long each sample is.
    max_bytes : int, optional
        As for `ResidentLoader`: how much the events may take on the device. If they take more they stay in host
        memory, and the next batch is gathered and copied while the current one is used.

    Attributes
    ----------
    n_samples, batch_size, rank, world_size : int
    n_channels : int
        C, the units of `spikes` divided by `pool_units`.
    device : torch.device
    is_resident : bool
        Whether the events are on the device.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, units do not divide by `pool_units`, a sample is longer than `n_bins`, or
        a time is negative with "absolute". A sample that a transform makes longer than `n_bins` is reported when its
        batch is due.

    Notes
    -----
    A batch is ``(x, n_bins, labels)``:

    - x, shape (T, B, C): counts; a sample is followed by zeros up to T.
    - n_bins, int64 (B,): bins of each sample, at most T; 0 if it is empty.
    - labels, int64 (B,).

    Without `transform` nothing waits for the device. `TimeStretch` waits once a batch for its length, unless `n_bins`
    is given and later events are dropped; transforms that drop events wait for their number.

    Examples
    --------
    >>> from neuroloaders.spikes import SpikeSet
    >>> spikes = SpikeSet(
    ...     times_ms=torch.tensor([0.0, 12.0, 5.0]), units=torch.tensor([0, 1, 1]).int(),
    ...     offsets=torch.tensor([0, 2, 3]), labels=torch.tensor([0, 1]), n_units=2,
    ...     classes=("one", "two"), name="tiny", split="train",
    ... )
    >>> for x, n_bins, labels in SpikeLoader(spikes, dt_ms=10, batch_size=2):
    ...     print(tuple(x.shape), n_bins.tolist(), labels.tolist())
    (2, 2, 2) [2, 1] [0, 1]
    """

    def __init__(
        self,
        spikes: SpikeSet,
        *,
        dt_ms: float,
        n_units: int | None = None,
        device: torch.device | str | None = None,
        batch_size: int,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world_size: int = 1,
        pool_units: int = 1,
        mode: str = "ceil",
        n_bins: int | None = None,
        beyond: str = "error",
        pad_to: int = 1,
        transform: EventTransform | None = None,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
        with_lengths: bool = True,
        max_bytes: int | None = None,
    ) -> None:
        if not isinstance(spikes, SpikeSet):
            raise invalid("spikes", "be a SpikeSet", spikes, kind=TypeError)
        if n_units is not None and n_units != spikes.n_units:
            advice = "Leave it out; units are merged by pool_units."
            raise invalid("n_units", f"be {spikes.n_units}, the units of `spikes`", f"{n_units}", advice)
        if transform is not None and not isinstance(transform, EventTransform):
            raise invalid("transform", "be an EventTransform", transform, kind=TypeError)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise invalid("dtype", "be a floating type", str(dtype))
        self._dt_ms = check_number("dt_ms", dt_ms, above=0)
        self._mode = check_option("mode", mode, BINNINGS)
        self._drops = check_option("beyond", beyond, BEYOND) == "drop"
        self._pool = check_int("pool_units", pool_units, at_least=1)
        if spikes.n_units % self._pool:
            raise invalid("pool_units", f"divide the {spikes.n_units} units of `spikes`", f"{pool_units}")
        self._n_bins = None if n_bins is None else check_int("n_bins", n_bins, at_least=1)
        self._pad_to = check_int("pad_to", pad_to, at_least=1)
        if n_bins is not None and pad_to != 1:
            raise invalid("pad_to", "be left out where `n_bins` fixes the length", f"{pad_to}")
        if max_bytes is not None:
            check_int("max_bytes", max_bytes, at_least=0)
        # What the loader below cuts into batches are row numbers, on the host: how many events and bins a batch has
        # is then known without asking the device.
        super().__init__(
            torch.arange(len(spikes)), batch_size=batch_size, device="cpu", shuffle=shuffle, generator=generator,
            rank=rank, world_size=world_size, drop_last=drop_last,
        )  # fmt: skip
        self.n_channels = spikes.n_units // self._pool
        self._unit_shape = spikes.unit_shape or (spikes.n_units,)
        self._transform, self._dtype, self._with_lengths = transform, dtype, bool(with_lengths)
        # An empty tensor names its device in full: "cuda:0", not "cuda".
        self.device = spikes.times_ms.device if device is None else torch.empty(0, device=device).device
        stored = [spikes.times_ms, spikes.units, spikes.offsets, spikes.labels]
        self.is_resident = self._fits(stored, max_bytes)
        home = self.device if self.is_resident else torch.device("cpu")
        self._times_ms, self._units, self._offsets, self._labels = (tensor.to(home) for tensor in stored)
        if transform is None and self._pool > 1:
            self._units = self._pooled(self._units)
        if mode == "absolute":
            check_times_from_zero(self._times_ms, self._offsets)
        self._counts = bins_of(self._times_ms, self._offsets, self._dt_ms, mode)
        self._host_offsets, self._host_counts = self._offsets.cpu(), self._counts.cpu()
        if transform is None and n_bins is not None and not self._drops:
            check_beyond(self._host_counts, n_bins)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        numbers, order = range(start, len(self)), self._order(epoch)
        if self.is_resident:
            gathered = (self._gather(number, order) for number in numbers)
        else:
            gathered = prefetched(lambda number: self._gather(number, order), numbers, self.device)
        try:
            for number, (times_ms, units, offsets, counts, labels) in zip(numbers, gathered, strict=True):
                events = Events(times_ms, units, offsets, self._unit_shape)
                if self._transform is None:
                    n_bins = self._length(self._host_counts[self._rows(number, order, whole=True)])
                else:
                    events, counts, n_bins = self._transformed_events(events, epoch, number)
                yield self._binned(events, counts, n_bins, labels)
        finally:
            gathered.close()  # ends the background thread now, also if the caller stops early

    def _rows(self, number: int, order: Tensor | None, *, whole: bool) -> Tensor:
        """Return the samples of a batch, all or this rank's share, on the host."""
        first, begin, end = self._share(number)
        rows = (
            slice(first, min(first + self.batch_size, self.n_samples)) if whole else slice(first + begin, first + end)
        )
        return self._tensors[0][rows] if order is None else order[rows]

    @property
    def _needs_whole(self) -> bool:
        """Whether a rank needs the events of the whole batch, to know how long it is once they are transformed."""
        return self._transform is not None and self._n_bins is None and self.world_size > 1

    def _gather(self, number: int, order: Tensor | None) -> tuple[Tensor, ...]:
        """Return times, units, offsets and bins of the samples this rank needs, and labels of its share."""
        rows = self._rows(number, order, whole=self._needs_whole)
        share = self._rows(number, order, whole=False).to(self._labels.device, non_blocking=True)
        n_events = int((self._host_offsets[rows + 1] - self._host_offsets[rows]).sum())
        if order is None and len(rows):
            rows = slice(int(rows[0]), int(rows[-1]) + 1)
            begin = int(self._host_offsets[rows.start])
            chosen, offsets = slice(begin, begin + n_events), self._offsets[rows.start : rows.stop + 1] - begin
        else:
            rows = rows.to(self._offsets.device, non_blocking=True)
            chosen, offsets = gather_events(self._offsets, rows, n_events)
        batch = (self._times_ms[chosen], self._units[chosen], offsets, self._counts[rows], self._labels[share])
        if self.is_resident or self.device.type != "cuda":
            return batch
        return tuple(tensor.pin_memory() for tensor in batch)

    def _transformed_events(self, events: Events, epoch: int, number: int) -> tuple[Events, Tensor, int]:
        """Return this rank's events after the transform, their bins, and the length of the batch."""
        first, begin, end = self._share(number)
        n = min(self.batch_size, self.n_samples - first)
        # Drawn for the whole batch, on the host: the same for every division into ranks and on every device.
        draws = self._transform.draw(n, self._generator(_AUGMENT, epoch, number))
        held = (0, n) if self._needs_whole else (begin, end)
        events = self._transform.apply(events, share_of_draws(draws, *held, self.device))
        if not self._transform.keeps_valid:
            check_events(events.times_ms, events.units, events.offsets, math.prod(events.unit_shape))
            if self._mode == "absolute":
                check_times_from_zero(events.times_ms, events.offsets)
        counts = bins_of(events.times_ms, events.offsets, self._dt_ms, self._mode)
        if self._n_bins is not None and not self._drops:
            check_beyond(counts, self._n_bins)
        n_bins = self._length(counts)
        if self._needs_whole:
            offsets = events.offsets[begin : end + 1]
            cut = slice(int(offsets[0]), int(offsets[-1]))
            events = events._replace(
                times_ms=events.times_ms[cut], units=events.units[cut], offsets=offsets - offsets[0]
            )
            counts = counts[begin:end]
        return events._replace(units=self._pooled(events.units)), counts, n_bins

    def _pooled(self, units: Tensor) -> Tensor:
        return units if self._pool == 1 else torch.div(units, self._pool, rounding_mode="floor")

    def _length(self, counts: Tensor) -> int:
        """Return T of a batch from the bins of all its samples."""
        if self._n_bins is not None:
            return self._n_bins
        longest = max(int(counts.max()), 1)
        return -(-longest // self._pad_to) * self._pad_to

    def _binned(self, events: Events, counts: Tensor, n_bins: int, labels: Tensor) -> tuple[Tensor, ...]:
        x = counts_in_bins(
            events.times_ms, events.units, events.offsets, counts,
            dt_ms=self._dt_ms, n_units=self.n_channels, n_bins=n_bins, mode=self._mode,
        ).to(self._dtype)  # fmt: skip
        return (x, counts.clamp(max=n_bins), labels) if self._with_lengths else (x, labels)
