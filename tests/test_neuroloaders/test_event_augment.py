"""Random changes of event lists: what they promise, on average and sample by sample."""

import math
from itertools import pairwise

import pytest
import torch

from neuroloaders.event_augment import ComposeEvents, DropEvents, Events, TimeStretch, UnitShift, _uniform

TRANSFORMS = [TimeStretch(1.5), UnitShift(3), DropEvents(0.3)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def events(n_samples=40, most=50, n_units=20, seed=0):
    """Random sorted samples, the third one empty."""
    g = generator(seed)
    counts = torch.randint(0, most, (n_samples,), generator=g)
    counts[2] = 0
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
    times = torch.cat([torch.rand(int(n), generator=g).sort().values * 100 for n in counts])
    return Events(times, torch.randint(0, n_units, times.shape, generator=g).int(), offsets, (n_units,))


def samples(e):
    return [(e.times_ms[a:b].tolist(), e.units[a:b].tolist()) for a, b in pairwise(e.offsets.tolist())]


def same(first, second):
    for a, b in zip(first[:3], second[:3], strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("transform", [*TRANSFORMS, ComposeEvents(TRANSFORMS)], ids=lambda t: type(t).__name__)
def test_a_sample_is_changed_the_same_in_any_share_of_the_batch(transform):
    e = events()
    draws = transform.draw(40, generator(3))
    whole = samples(transform.apply(e, draws))
    before = samples(e)

    def rows(drawn, a, b):
        return tuple(rows(d, a, b) for d in drawn) if isinstance(drawn, tuple) else drawn[a:b]

    for a, b in ((0, 13), (13, 14), (14, 40), (20, 20)):
        cut = slice(int(e.offsets[a]), int(e.offsets[b]))
        share = Events(e.times_ms[cut], e.units[cut], e.offsets[a : b + 1] - e.offsets[a], e.unit_shape)
        assert samples(transform.apply(share, rows(draws, a, b))) == whole[a:b]
    assert samples(e) == before
    assert whole != before


@pytest.mark.parametrize("transform", [*TRANSFORMS, ComposeEvents(TRANSFORMS)], ids=lambda t: type(t).__name__)
def test_events_stay_sound(transform):
    e = transform(events(), generator=generator(1))
    assert transform.keeps_valid
    assert len(e.offsets) == 41
    assert int(e.offsets[-1]) == len(e.times_ms) == len(e.units)
    assert all(times == sorted(times) for times, _ in samples(e))
    assert int(e.units.min()) >= 0
    assert int(e.units.max()) < 20
    assert (e.times_ms.dtype, e.units.dtype) == (torch.float32, torch.int32)


@pytest.mark.parametrize("transform", [*TRANSFORMS, ComposeEvents(TRANSFORMS)], ids=lambda t: type(t).__name__)
def test_a_seed_gives_one_result(transform):
    same(transform(events(), generator=generator(1)), transform(events(), generator=generator(1)))
    assert samples(transform(events(), generator=generator(1))) != samples(transform(events(), generator=generator(2)))


@pytest.mark.parametrize("transform", [TimeStretch(1), UnitShift(0), DropEvents(0), ComposeEvents([])])
def test_nothing_to_change_changes_nothing(transform):
    same(transform(events(), generator=generator()), events())


def test_stretch_multiplies_the_times_of_each_sample_by_its_factor():
    e = events()
    factors = TimeStretch(2).draw(40, generator(0))
    stretched = TimeStretch(2).apply(e, factors)
    for (times, units), (new, new_units), factor in zip(samples(e), samples(stretched), factors.tolist(), strict=True):
        assert new_units == units
        torch.testing.assert_close(torch.tensor(new), torch.tensor(times) * factor, rtol=1e-6, atol=0)


def test_stretch_factors_are_log_uniform():
    logs = TimeStretch(3).draw(20000, generator(0)).log() / math.log(3)
    assert logs.min() >= -1
    assert logs.max() <= 1
    # A uniform variable on [-1, 1]: mean 0, variance 1/3, within four standard errors.
    assert abs(logs.mean()) < 4 * (1 / 3 / 20000) ** 0.5
    assert abs(logs.square().mean() - 1 / 3) < 4 * (4 / 45 / 20000) ** 0.5


def test_shifts_are_uniform_and_events_that_leave_are_dropped():
    shifts = UnitShift(3).draw(7000, generator(0))
    assert sorted(set(shifts.tolist())) == list(range(-3, 4))
    assert (shifts.bincount(minlength=0) if shifts.min() >= 0 else (shifts + 3).bincount()).sub(1000).abs().max() < 150
    e = events()
    drawn = UnitShift(3).draw(40, generator(1))
    for (times, units), (new, moved), shift in zip(
        samples(e), samples(UnitShift(3).apply(e, drawn)), drawn.tolist(), strict=True
    ):
        kept = [(t, u + shift) for t, u in zip(times, units, strict=True) if 0 <= u + shift < 20]
        assert list(zip(new, moved, strict=True)) == kept


def test_shifts_move_channels_and_leave_fibres_what_they_are():
    e = events()._replace(unit_shape=(10, 2))  # 10 channels of 2 fibres
    drawn = UnitShift(2).draw(40, generator(1))
    for (_, units), (_, moved), shift in zip(
        samples(e), samples(UnitShift(2).apply(e, drawn)), drawn.tolist(), strict=True
    ):
        assert moved == [u + 2 * shift for u in units if 0 <= u // 2 + shift < 10]


def test_dropping_thins_events_by_p_whatever_their_place():
    n, length, p = 400, 200, 0.3
    offsets = torch.arange(n + 1) * length
    index = torch.arange(n * length)
    e = Events(torch.zeros(n * length), index.int(), offsets, (n * length,))
    kept = torch.zeros(n * length)
    kept[DropEvents(p)(e, generator=generator(0)).units.long()] = 1
    kept = kept.view(n, length)
    error = (p * (1 - p)) ** 0.5
    assert abs(kept.mean() - (1 - p)) < 4 * error / (n * length) ** 0.5
    assert (kept.mean(0) - (1 - p)).abs().max() < 5 * error / n**0.5
    assert (kept.mean(1) - (1 - p)).abs().max() < 5 * error / length**0.5
    # Neighbours in a sample, and the same place in neighbouring samples, are independent.
    centred = kept - kept.mean()
    for a, b in ((centred[:, 1:], centred[:, :-1]), (centred[1:], centred[:-1])):
        assert abs((a * b).mean()) < 5 * error**2 / (n * length) ** 0.5
    assert len(DropEvents(1)(e, generator=generator(0)).times_ms) == 0


def test_the_hash_is_splitmix64():
    # The first outputs for seed 1234567, as published with the reference implementation, as floats in [0, 1).
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    golden = 0x9E3779B97F4A7C15 - 2**64
    state = torch.arange(1, 6) * golden + 1234567
    assert _uniform(state).tolist() == [(value >> 11) * 2.0**-53 for value in published]


def test_keeps_valid_is_that_of_all_parts():
    class Reversed(TimeStretch):
        keeps_valid = False

    assert not ComposeEvents([TimeStretch(2), Reversed(2)]).keeps_valid


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: TimeStretch(0.5), ValueError, "`factor` must be a finite number >= 1, got 0.5"),
        (lambda: TimeStretch(math.inf), ValueError, "`factor` must be"),
        (lambda: UnitShift(-1), ValueError, "`n` must be a whole number >= 0"),
        (lambda: UnitShift(1.5), TypeError, "`n` must be"),
        (lambda: DropEvents(1.1), ValueError, "`p` must be"),
        (lambda: ComposeEvents([3]), TypeError, r"`transforms\[0\]` must be an EventTransform"),
        (lambda: TimeStretch(2)(events(), generator=None), TypeError, "`generator` must be a torch.Generator"),
        (
            lambda: TimeStretch(2)(events()._replace(times_ms=events().times_ms.long()), generator=generator()),
            TypeError,
            "`times_ms` must have a floating type",
        ),
    ],
)
def test_mistakes_are_refused_with_a_reason(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("transform", [*TRANSFORMS, ComposeEvents(TRANSFORMS)], ids=lambda t: type(t).__name__)
def test_the_gpu_changes_events_bit_for_bit_as_the_cpu(transform):
    e = events()
    on_gpu = Events(*(tensor.cuda() for tensor in e[:3]), e.unit_shape)
    result = transform(on_gpu, generator=generator(4))
    same(transform(e, generator=generator(4)), Events(*(tensor.cpu() for tensor in result[:3]), e.unit_shape))
