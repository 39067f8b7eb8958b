"""Random changes of a batch of event lists, on the device, before the events are binned.

As for images (see `neuroloaders.augment`), `draw` makes the random numbers of a batch, one row a sample, and
`apply` is a pure function of the events and these rows: the share of a batch that one of several processes holds is
changed as it would be in the whole batch, and a resumed run repeats what it did.

E events, B samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from neuroloaders.augment import Draws, share_of_draws
from neuroloaders.checks import check_fraction, check_int, check_number, invalid

__all__ = ["ComposeEvents", "DropEvents", "EventTransform", "Events", "TimeStretch", "UnitShift"]


class Events(NamedTuple):
    """A flat list of events.

    Attributes
    ----------
    times_ms : Tensor of a floating type, shape (E,)
        Rising within each sample.
    units : Tensor of an integer type, shape (E,)
        In 0..n_units - 1.
    offsets : Tensor of int64, shape (B + 1,)
        Events of sample i are ``offsets[i]:offsets[i + 1]``.
    unit_shape : tuple of int
        How units are laid out; the product is their number.
    """

    times_ms: Tensor
    units: Tensor
    offsets: Tensor
    unit_shape: tuple[int, ...]

    def of_each_event(self, values: Tensor) -> Tensor:
        """Return the value of its sample for each event: (B,) to (E,)."""
        return torch.repeat_interleave(values, self.offsets.diff(), output_size=len(self.times_ms))

    def kept(self, keep: Tensor) -> Events:
        """Return the events that `keep`, bool (E,), says; every sample stays. Waits for the device."""
        before = torch.zeros(len(keep) + 1, dtype=torch.int64, device=keep.device)
        torch.cumsum(keep, 0, out=before[1:])
        return self._replace(times_ms=self.times_ms[keep], units=self.units[keep], offsets=before[self.offsets])


class EventTransform:
    """A random change of a batch of event lists.

    Subclasses are frozen dataclasses with `draw` and `apply`. `apply` keeps the samples and their order; it may
    drop events, add them and change times and units, as long as times rise within each sample.

    Attributes
    ----------
    keeps_valid : bool
        Whether events are sound after `apply` if they were before. Where this is False, the default,
        `SpikeLoader` checks every batch, which on a GPU waits for it.
    """

    keeps_valid: ClassVar[bool] = False

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Return the random numbers for `n` samples: tensors with n rows, a tuple of such, or None."""
        raise NotImplementedError

    def apply(self, events: Events, draws: Draws) -> Events:
        """Return the events changed by what was drawn; `events` itself stays as it is."""
        raise NotImplementedError

    def __call__(self, events: Events, *, generator: torch.Generator) -> Events:
        """Draw for every sample of the batch and apply."""
        if not isinstance(generator, torch.Generator):
            advice = "Use torch.Generator().manual_seed(seed); the global random state is never used."
            raise invalid("generator", "be a torch.Generator", generator, advice, kind=TypeError)
        n = len(events.offsets) - 1
        return self.apply(events, share_of_draws(self.draw(n, generator), 0, n, events.offsets.device))


@dataclass(frozen=True)
class TimeStretch(EventTransform):
    """Times of each sample multiplied by a factor of its own: words spoken faster and slower.

    Parameters
    ----------
    factor : float
        At least 1. Factors are drawn from ``[1 / factor, factor]`` with a uniform logarithm, so that twice as fast
        is as likely as twice as slow.
    """

    keeps_valid: ClassVar[bool] = True
    factor: float

    def __post_init__(self) -> None:
        check_number("factor", self.factor, at_least=1)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Return the factors, float64 (n,)."""
        share = 2 * torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64) - 1
        return torch.exp(share * math.log(self.factor))

    def apply(self, events: Events, draws: Draws) -> Events:
        """Return the events at stretched times, about the zero of time."""
        if not events.times_ms.is_floating_point():
            raise invalid("times_ms", "have a floating type", events.times_ms, "Use times_ms.float().", kind=TypeError)
        # Rounding keeps the order: a <= b implies a * f <= b * f, however both are rounded.
        return events._replace(times_ms=events.times_ms * events.of_each_event(draws.to(events.times_ms.dtype)))


@dataclass(frozen=True)
class UnitShift(EventTransform):
    """All units of a sample moved by the same number: a voice higher or lower along the cochlea.

    Units move along the first axis of ``unit_shape``: where each channel of a cochlea has several fibres, fibres stay
    what they are and channels move. Events that would leave the units are dropped.

    Parameters
    ----------
    n : int
        Shifts are drawn from -n..n, each equally likely. In channels of the data, before any pooling.
    """

    keeps_valid: ClassVar[bool] = True
    n: int

    def __post_init__(self) -> None:
        check_int("n", self.n, at_least=0)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Return the shifts, int64 (n,)."""
        return torch.randint(-self.n, self.n + 1, (n,), generator=generator, device=generator.device)

    def apply(self, events: Events, draws: Draws) -> Events:
        """Return the events on shifted units."""
        n_units = math.prod(events.unit_shape)
        shift = draws * (n_units // events.unit_shape[0])
        units = events.units + events.of_each_event(shift.to(events.units.dtype))
        return events._replace(units=units).kept((units >= 0) & (units < n_units))


@dataclass(frozen=True)
class DropEvents(EventTransform):
    """Each event left out with probability `p`, independently.

    Parameters
    ----------
    p : float
        In [0, 1].

    Notes
    -----
    One key is drawn for each sample; whether its i-th event goes is a hash of the key and i. So nothing the size of
    the events is drawn on the host, and neither the other samples nor the device matter. The hash is the output
    function of SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).
    """

    keeps_valid: ClassVar[bool] = True
    p: float

    def __post_init__(self) -> None:
        check_fraction("p", self.p)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Return the keys, int64 (n,)."""
        return torch.randint(0, 2**63 - 1, (n,), generator=generator, device=generator.device)

    def apply(self, events: Events, draws: Draws) -> Events:
        """Return the events that stay."""
        # Counted from 1 within each sample; both parts are the same for all events of a sample, so added once.
        index = torch.arange(1, len(events.times_ms) + 1, device=events.offsets.device)
        state = index.mul_(_GOLDEN).add_(events.of_each_event(draws - events.offsets[:-1] * _GOLDEN))
        return events.kept(_uniform(state) >= self.p)


@dataclass(frozen=True)
class ComposeEvents(EventTransform):
    """Several transforms, one after the other.

    Parameters
    ----------
    transforms : sequence of EventTransform
    """

    transforms: Sequence[EventTransform]

    def __post_init__(self) -> None:
        transforms = tuple(self.transforms)
        for i, transform in enumerate(transforms):
            if not isinstance(transform, EventTransform):
                raise invalid(f"transforms[{i}]", "be an EventTransform", transform, kind=TypeError)
        object.__setattr__(self, "transforms", transforms)

    @property
    def keeps_valid(self) -> bool:
        """Whether all of them do."""
        return all(transform.keeps_valid for transform in self.transforms)

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Return what each transform draws, in order, from the one generator."""
        return tuple(transform.draw(n, generator) for transform in self.transforms)

    def apply(self, events: Events, draws: Draws) -> Events:
        """Return the events after all transforms."""
        for transform, drawn in zip(self.transforms, draws, strict=True):
            events = transform.apply(events, drawn)
        return events


# Constants of SplitMix64 as signed numbers: torch wraps int64 products, on the host and on a GPU.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _uniform(state: Tensor) -> Tensor:
    """Turn counters, int64, into float64 in [0, 1); the counters are overwritten."""
    z = state
    for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
        # A shift of signed numbers drags the sign along; the mask takes it away.
        z = z.bitwise_xor_((z >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(factor)
    return (z >> 11).bitwise_and_((1 << 53) - 1).double().mul_(2.0**-53)
