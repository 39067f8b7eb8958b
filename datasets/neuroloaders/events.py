"""Counts of events in bins of time, for all samples of a batch at once, on the device of the events.

E events in all, B samples, C units, T bins. Events come as one flat list with the place where each sample begins,
see `neuroloaders.spikes`.

Events of a sample are sorted, so a bin is a stretch of the list and a binning is a table of cuts: which event is
the first of each bin. The kinds of binning differ in the cuts alone. Finding these takes a comparison for each bin
and halving, not a division for each event; what is left for the events is one addition.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_number, check_option, check_same_length, check_shape, invalid
from neuroloaders.spikes import check_events

__all__ = ["BEYOND", "BINNINGS", "bin_events", "count_bins"]

BINNINGS = {
    "ceil": "time counts from the sample's first event, the last bin includes its end (spikingjelly since 2024-03)",
    "sj2023": "a bin begins at the first event after the last bin, so that gaps vanish (spikingjelly 2023-03..2024-03)",
    "absolute": "time counts from the sample's own zero, so that the latency of the first event is kept",
}
BEYOND = {
    "error": "events after the last bin are an error",
    "drop": "events after the last bin are left out",
}

# 2**32 numbers are 17 GB: no batch of counts is larger, but microseconds taken for milliseconds soon are.
_MOST_NUMBERS = 2**32


def bin_events(
    times_ms: Tensor,
    units: Tensor,
    offsets: Tensor,
    *,
    dt_ms: float,
    n_units: int,
    n_bins: int | None = None,
    mode: str = "ceil",
    beyond: str = "error",
) -> Tensor:
    r"""Count the events of each unit in bins of `dt_ms`.

    Parameters
    ----------
    times_ms : Tensor, shape (E,)
        Time of each event in ms, rising within each sample. Any floating or integer type.
    units : Tensor of an integer type, shape (E,)
        Where each event happened, in 0..n_units - 1.
    offsets : Tensor of an integer type, shape (B + 1,)
        Events of sample i are ``offsets[i]:offsets[i + 1]``. A sample may be empty, and so may the batch.
    dt_ms : float
        Width of a bin in ms.
    n_units : int
        C, also the units that never fire.
    n_bins : int, optional
        T; by default that of the sample with the most bins.
    mode : str
        A key of `BINNINGS`.
    beyond : str
        What to do with events after `n_bins`, a key of `BEYOND`.

    Returns
    -------
    counts : Tensor of float32, shape (T, B, C)
        On the device of the events; whole numbers, exact up to 2**24, so bit for bit the same on every device.
        Zero after a sample's last bin, see `count_bins`.

    Raises
    ------
    TypeError, ValueError
        If shapes or types do not fit, events are out of order, a unit is out of range, a time is not finite, a
        time is negative with "absolute", events lie after `n_bins`, or the counts would be absurdly large.

    Notes
    -----
    All modes compute in float64, whatever the type of `times_ms`. For event :math:`i` of a sample with
    :math:`\tau_i = t_i - t_0` ("ceil") or :math:`\tau_i = t_i` ("absolute"), the bin is the largest :math:`k` with
    :math:`k \cdot dt \le \tau_i`, where product and difference are rounded to float64 and no quotient is: an event
    on an edge begins the later bin, and 0.9 lies in bin 3 of ``dt_ms=0.3`` if it was given as float64 (as float32 it
    is less than 0.9). "absolute" has as many bins as the last event needs. "ceil" has the smallest :math:`F \ge 1`
    with :math:`F \cdot dt \ge \tau_{last}`, so that events exactly at the end belong to the last bin. "sj2023" puts
    into a bin, from its first event :math:`l` on, all events with :math:`t_i - t_l \le dt`.

    "ceil" is what spikingjelly's ``integrate_events_by_fixed_duration`` does, "sj2023" what it did [1]_, the latter
    while the DCLS-Delays paper was made [2]_. Deviations: a sample whose events all have the same time gets one
    bin (spikingjelly since 2024: IndexError), an empty sample none. spikingjelly computes in the type of the file: the
    times of SHD and SSC are float16 seconds, so there both the milliseconds and their differences are rounded, by up
    to 0.5 ms. To have its frames bit for bit, round as it does before calling this::

        t = np.float16(1000) * seconds  # float16
        times_ms = t - t[0]             # float16, sample by sample

    References
    ----------
    .. [1] spikingjelly, ``datasets/shd.py``; pull request 507 changed the rule.
    .. [2] Hammouamri et al., Learning delays in spiking neural networks using dilated convolutions with learnable
       spacings, ICLR 2024, arXiv:2306.17670.

    Examples
    --------
    >>> times, units, offsets = torch.tensor([3.0, 4.0, 13.5, 0.5]), torch.tensor([0, 1, 1, 0]), torch.tensor([0, 3, 4])
    >>> bin_events(times, units, offsets, dt_ms=10, n_units=2)[:, 0].tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    dt_ms = _check_binning(dt_ms, mode)
    check_int("n_units", n_units, at_least=1)
    check_option("beyond", beyond, BEYOND)
    if n_bins is not None:
        check_int("n_bins", n_bins, at_least=1)
    offsets = _check_lists(times_ms, offsets, mode, units=units, n_units=n_units)
    units = units.long()
    counts = bins_of(times_ms, offsets, dt_ms, mode)
    if n_bins is None:
        n_bins = int(counts.max()) if len(counts) else 0
    elif beyond == "error":
        check_beyond(counts, n_bins)
    return counts_in_bins(times_ms, units, offsets, counts, dt_ms=dt_ms, n_units=n_units, n_bins=n_bins, mode=mode)


def count_bins(times_ms: Tensor, offsets: Tensor, *, dt_ms: float, mode: str = "ceil") -> Tensor:
    """Return how many bins each sample has of its own, int64 (B,); 0 for an empty sample.

    Parameters
    ----------
    times_ms, offsets, dt_ms, mode
        As for `bin_events`, which gives ``counts[n:, i] == 0`` for a sample i with n bins.

    Raises
    ------
    TypeError, ValueError
        As `bin_events` does.

    Examples
    --------
    >>> count_bins(torch.tensor([0.0, 25.0, 40.0]), torch.tensor([0, 2, 2, 3]), dt_ms=10)
    tensor([3, 0, 1])
    """
    dt_ms = _check_binning(dt_ms, mode)
    return bins_of(times_ms, _check_lists(times_ms, offsets, mode), dt_ms, mode)


# --- without checks, for lists that have been checked: no call below waits for the device unless it says so ---


def bins_of(times_ms: Tensor, offsets: Tensor, dt_ms: float, mode: str) -> Tensor:
    """Return the number of bins of each sample; see `count_bins`. Waits for the device with "sj2023"."""
    counts = torch.zeros(len(offsets) - 1, dtype=torch.int64, device=offsets.device)
    if not len(times_ms):
        return counts
    if mode == "sj2023":
        for left in _windows(times_ms, offsets, dt_ms):
            begun = left < offsets[1:]
            if not bool(begun.any()):
                return counts
            counts += begun
    last = times_ms[(offsets[1:] - 1).clamp(min=0)].double() - _zero(times_ms, offsets, mode)
    # The quotient is off by less than one bin; comparing with the edges themselves decides. Beyond 2**53 edges are
    # further apart than whole numbers, and nothing that long can be counted.
    bins = torch.ceil(last / dt_ms).clamp(max=2.0**53)
    if mode == "ceil":
        bins = torch.where((bins - 1) * dt_ms >= last, bins - 1, torch.where(bins * dt_ms < last, bins + 1, bins))
    else:
        bins = torch.where((bins - 1) * dt_ms > last, bins - 1, torch.where(bins * dt_ms <= last, bins + 1, bins))
    return torch.where(offsets.diff() > 0, bins.clamp(min=1).long(), counts)


def counts_in_bins(
    times_ms: Tensor,
    units: Tensor,
    offsets: Tensor,
    counts: Tensor,
    *,
    dt_ms: float,
    n_units: int,
    n_bins: int,
    mode: str,
) -> Tensor:
    """Return counts (n_bins, B, n_units) of events that were checked; those after the last bin are left out.

    Parameters
    ----------
    counts : Tensor of int64, shape (B,)
        From `bins_of`.
    times_ms, units, offsets, dt_ms, n_units, n_bins, mode
        As for `bin_events`.
    """
    n_samples, n_events = len(counts), len(times_ms)
    numbers = n_bins * n_samples * n_units
    if numbers > _MOST_NUMBERS:
        advice = "Times are in ms: are these in microseconds, or does one event lie far from the others?"
        got = f"{dt_ms:g}, which makes {n_bins} bins x {n_samples} samples x {n_units} units"
        raise invalid("dt_ms", f"make at most {_MOST_NUMBERS} counts", got, advice)
    # One more bin than asked for takes what lies beyond, without asking the device whether anything does.
    table = torch.zeros((n_bins + 1) * n_samples * n_units, device=times_ms.device)
    if n_events:
        cuts = _cuts(times_ms, offsets, counts, dt_ms, n_bins, mode)
        lengths = torch.cat((cuts, offsets[1:].unsqueeze(0))).diff(dim=0)
        bins = torch.arange(n_bins + 1, device=table.device) * (n_samples * n_units)
        samples = torch.arange(n_samples, device=table.device) * n_units
        rows = (samples.unsqueeze(1) + bins).flatten()
        # Events lie sample by sample, and bin by bin within a sample.
        place = torch.repeat_interleave(rows, lengths.t().flatten(), output_size=n_events).add_(units)
        # Sums of ones: the order of additions, which a GPU does not keep, changes nothing.
        table.scatter_add_(0, place, table.new_ones(1).expand(n_events))
    return table.view(n_bins + 1, n_samples, n_units)[:n_bins]


def check_beyond(counts: Tensor, n_bins: int) -> None:
    """Raise ValueError if a sample has more bins than `n_bins`. Waits for the device."""
    if len(counts) and int(counts.max()) > n_bins:
        sample = int(counts.argmax())
        advice = "Raise it, or choose beyond='drop' to leave later events out."
        raise invalid("n_bins", f"be at least {int(counts[sample])}, the bins of sample {sample}", f"{n_bins}", advice)


def check_times_from_zero(times_ms: Tensor, offsets: Tensor) -> None:
    """Raise ValueError if a sorted sample has a time below 0. Waits for the device."""
    if not len(times_ms):
        return
    early = (times_ms[offsets[:-1].clamp(max=len(times_ms) - 1)] < 0) & (offsets.diff() > 0)
    if bool(early.any()):
        sample = int(early.nonzero()[0, 0])
        got = f"{float(times_ms[offsets[sample]]):g} in sample {sample}"
        raise invalid("times_ms", "be >= 0 with mode='absolute'", got, "Add what lies before your time zero.")


def _zero(times_ms: Tensor, offsets: Tensor, mode: str) -> Tensor | float:
    """Return where the bins of each sample begin, float64 (B,)."""
    return 0.0 if mode == "absolute" else times_ms[offsets[:-1].clamp(max=len(times_ms) - 1)].double()


def _cuts(times_ms: Tensor, offsets: Tensor, counts: Tensor, dt_ms: float, n_bins: int, mode: str) -> Tensor:
    """Return the first event of each bin, int64 (n_bins + 1, B); bins after a sample's last begin at its end."""
    if mode == "sj2023":
        windows = _windows(times_ms, offsets, dt_ms)
        return torch.stack([next(windows) for _ in range(n_bins + 1)])
    edges = torch.arange(1, n_bins + 1, dtype=torch.float64, device=times_ms.device).unsqueeze(1) * dt_ms
    begins, ends = (part.expand(n_bins, -1) for part in (offsets[:-1], offsets[1:]))
    cuts = _first(times_ms, begins, ends, _zero(times_ms, offsets, mode), edges, or_equal=True)
    bins = torch.arange(1, n_bins + 1, device=times_ms.device).unsqueeze(1)
    return torch.cat((offsets[:-1].unsqueeze(0), torch.where(bins < counts, cuts, ends)))


def _windows(times_ms: Tensor, offsets: Tensor, dt_ms: float) -> Iterator[Tensor]:
    """Yield the first event of the first, second, ... window of each sample, for ever; at its end it stays there."""
    left, ends = offsets[:-1], offsets[1:]
    while True:
        yield left
        start = times_ms[left.clamp(max=len(times_ms) - 1)].double()
        left = _first(times_ms, left, ends, start, dt_ms, or_equal=False)


def _first(
    times_ms: Tensor, begins: Tensor, ends: Tensor, zero: Tensor | float, edges: Tensor | float, *, or_equal: bool
) -> Tensor:
    """Return the first event in ``begins:ends`` later than the edge (or on it), else its end; by halving."""
    # Off the host, the length of the whole list is a bound that needs no waiting for the longest sample.
    on_host = times_ms.device.type == "cpu" and begins.numel() > 0
    longest = int((ends - begins).max()) if on_host else len(times_ms)
    low, high = begins, ends
    for _ in range(longest.bit_length()):
        middle = (low + high) >> 1
        since = times_ms[middle.clamp(max=len(times_ms) - 1)].double() - zero
        later = since >= edges if or_equal else since > edges
        is_open = low < high
        low, high = torch.where(is_open & ~later, middle + 1, low), torch.where(is_open & later, middle, high)
    return low


def _check_binning(dt_ms: float, mode: str) -> float:
    check_option("mode", mode, BINNINGS)
    return check_number("dt_ms", dt_ms, above=0)


def _check_lists(
    times_ms: Tensor, offsets: Tensor, mode: str, *, units: Tensor | None = None, n_units: int = 1
) -> Tensor:
    """Check everything that `bin_events` relies on and return the offsets as int64."""
    for name, tensor, axis in (("times_ms", times_ms, "E"), ("units", units, "E"), ("offsets", offsets, "B + 1")):
        if tensor is None:
            continue
        check_shape(name, tensor, (axis,))
        if not isinstance(tensor, Tensor):
            raise invalid(name, "be a tensor", tensor, "Use torch.as_tensor on it.", kind=TypeError)
        refused = tensor.dtype == torch.bool or tensor.is_complex()
        # torch cannot compare unsigned integers of more than 8 bits; units are converted first.
        refused |= not tensor.dtype.is_signed if name == "times_ms" else tensor.is_floating_point()
        if refused:
            kinds = "a floating or signed integer type" if name == "times_ms" else "an integer type"
            raise invalid(name, f"have {kinds}", tensor, kind=TypeError)
        if tensor.device != times_ms.device:
            raise invalid(name, f"be on {times_ms.device} as `times_ms` is", f"one on {tensor.device}")
    if units is not None:
        check_same_length(times_ms=times_ms, units=units)
    if not len(offsets):
        raise invalid("offsets", "have one entry more than samples", offsets)
    offsets = offsets.long()
    check_events(times_ms, units, offsets, n_units)
    if mode == "absolute":
        check_times_from_zero(times_ms, offsets)
    return offsets
