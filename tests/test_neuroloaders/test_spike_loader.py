"""The spike loader: counts of the right samples, in the order and shares of `ResidentLoader`."""

import logging
import threading
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders import prefetch
from neuroloaders.event_augment import ComposeEvents, DropEvents, EventTransform, TimeStretch, UnitShift
from neuroloaders.events import BINNINGS, bin_events, count_bins
from neuroloaders.resident import ResidentLoader
from neuroloaders.spike_loader import SpikeLoader
from neuroloaders.spikes import SpikeSet

AUGMENT = ComposeEvents([TimeStretch(1.5), UnitShift(2), DropEvents(0.2)])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spikes(n=23, n_units=10, seed=0, **change):
    """Random samples of 0 to 40 events in 0 to 100 ms, sample 4 empty; the label is the row number."""
    g = generator(seed)
    counts = torch.randint(0, 40, (n,), generator=g)
    counts[4 % n] = 0
    times = torch.cat(
        [torch.rand(int(c), generator=g).sort().values * 100 * torch.rand(1, generator=g) for c in counts]
    )
    fields = {
        "times_ms": times,
        "units": torch.randint(0, n_units, times.shape, generator=g).int(),
        "offsets": torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0))),
        "labels": torch.arange(n),
        "n_units": n_units,
        "classes": tuple(map(str, range(n))),
        "name": "random",
        "split": "train",
    }
    return SpikeSet(**{**fields, **change})


def same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)


@pytest.mark.parametrize("mode", BINNINGS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_bins_of_their_samples_in_the_order_of_the_resident_loader(mode, shuffle):
    s = spikes()
    options = {"batch_size": 5, "shuffle": shuffle, "generator": generator(2)}
    loader = SpikeLoader(s, dt_ms=10, mode=mode, **options)
    order = ResidentLoader(s.labels, **options)
    assert len(loader) == len(order) == 5
    for epoch in range(2):
        for (x, n_bins, labels), (rows,) in zip(loader, order.batches(epoch), strict=True):
            assert torch.equal(labels, rows)
            chosen = s.select(rows)
            lists = (chosen.times_ms, chosen.units, chosen.offsets)
            assert torch.equal(x, bin_events(*lists, dt_ms=10, n_units=10, mode=mode))
            assert torch.equal(n_bins, count_bins(chosen.times_ms, chosen.offsets, dt_ms=10, mode=mode))
            assert x.is_contiguous()


def test_pooling_adds_neighbouring_units():
    s = spikes()
    plain, pooled = (SpikeLoader(s, dt_ms=10, batch_size=6, pool_units=k) for k in (1, 5))
    assert (plain.n_channels, pooled.n_channels) == (10, 2)
    for (x, *_), (y, *_) in zip(plain, pooled, strict=True):
        assert torch.equal(x.unflatten(2, (2, 5)).sum(3), y)
    # A shift is in units of the data, so it must come before pooling.
    plain, pooled = (SpikeLoader(s, dt_ms=10, batch_size=6, pool_units=k, transform=AUGMENT) for k in (1, 5))
    for (x, *_), (y, *_) in zip(plain, pooled, strict=True):
        assert torch.equal(x.unflatten(2, (2, 5)).sum(3), y)


@pytest.mark.parametrize("transform", [None, AUGMENT])
def test_lengths_are_rounded_up_or_fixed(transform):
    s = spikes()
    options = {"dt_ms": 10, "batch_size": 5, "transform": transform}
    exact = list(SpikeLoader(s, **options))
    assert all(len(x) == int(n_bins.max()) for x, n_bins, _ in exact)
    for (x, n, _), (y, m, _) in zip(exact, SpikeLoader(s, pad_to=4, **options), strict=True):
        assert len(y) % 4 == 0
        assert 0 <= len(y) - len(x) < 4
        assert torch.equal(y[: len(x)], x)
        assert y[len(x) :].sum() == 0
        assert torch.equal(n, m)
    for (x, n, _), (y, m, _) in zip(exact, SpikeLoader(s, n_bins=30, **options), strict=True):
        assert torch.equal(y[: len(x)], x)
        assert len(y) == 30
        assert torch.equal(n, m)
    for (x, n, _), (y, m, _) in zip(exact, SpikeLoader(s, n_bins=3, beyond="drop", **options), strict=True):
        assert torch.equal(y, x[:3])
        assert torch.equal(m, n.clamp(max=3))


def test_a_batch_of_empty_samples_has_one_empty_bin():
    s = spikes().select([4, 4, 0])
    (x, n_bins, labels), _ = SpikeLoader(s, dt_ms=10, batch_size=2)
    assert torch.equal(x, torch.zeros(1, 2, 10))
    assert n_bins.tolist() == [0, 0]
    assert labels.tolist() == [4, 4]


def test_lengths_are_left_out_on_request_and_the_type_is_chosen():
    s = spikes()
    batches = SpikeLoader(s, dt_ms=10, batch_size=5, with_lengths=False, dtype=torch.bfloat16)
    same(batches, [(x.bfloat16(), labels) for x, _, labels in SpikeLoader(s, dt_ms=10, batch_size=5)])


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 20),
    world_size=st.integers(1, 4),
    extra=st.integers(0, 8),
    shuffle=st.booleans(),
    transform=st.sampled_from([None, AUGMENT]),
    fixed=st.sampled_from([None, 4]),
    resident=st.booleans(),
)
def test_shares_of_the_ranks_make_the_batch_of_one_process(n, world_size, extra, shuffle, transform, fixed, resident):
    s = spikes(n)
    options = {
        "dt_ms": 10, "batch_size": world_size + extra, "shuffle": shuffle, "transform": transform, "n_bins": fixed,
        "beyond": "drop", "pool_units": 2,
    }  # fmt: skip
    single = list(SpikeLoader(s, **options).batches(1))
    options["max_bytes"] = None if resident else 0
    ranks = [list(SpikeLoader(s, rank=r, world_size=world_size, **options).batches(1)) for r in range(world_size)]
    assert all(len(rank) == len(single) for rank in ranks)
    for number, (x, n_bins, labels) in enumerate(single):
        shares = [rank[number] for rank in ranks]
        assert torch.equal(torch.cat([share[0] for share in shares], 1), x)
        assert torch.equal(torch.cat([share[1] for share in shares]), n_bins)
        assert torch.equal(torch.cat([share[2] for share in shares]), labels)


@pytest.mark.parametrize("transform", [None, AUGMENT])
@pytest.mark.parametrize("start", [0, 2, 5])
def test_resumed_epoch_is_the_rest_of_the_epoch(transform, start):
    make = lambda: SpikeLoader(spikes(), dt_ms=10, batch_size=5, shuffle=True, transform=transform)  # noqa: E731
    same(list(make().batches(3))[start:], make().batches(3, start))


def test_augmentation_follows_the_seed_the_epoch_and_the_batch():
    s = spikes()
    s = s.select([int(s.offsets.diff().argmax())] * 12)  # the sample with the most events, so that chance repeats none
    loader = SpikeLoader(s, dt_ms=5, batch_size=6, transform=AUGMENT, n_bins=40)
    same(loader.batches(0), loader.batches(0))
    other = SpikeLoader(s, dt_ms=5, batch_size=6, transform=AUGMENT, n_bins=40, generator=generator(9))
    seen = [x for batches in (loader.batches(0), loader.batches(1), other.batches(0)) for x, *_ in batches]
    assert len({tuple(sample.flatten().tolist()) for x in seen for sample in x.unbind(1)}) == 36


def test_global_random_state_is_neither_read_nor_changed():
    before = torch.get_rng_state()
    list(SpikeLoader(spikes(), dt_ms=10, batch_size=5, shuffle=True, transform=AUGMENT))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("transform", [None, AUGMENT])
def test_batches_from_host_memory_are_the_same_bit_for_bit(shuffle, transform, caplog, monkeypatch):
    calls, prefetched = [], prefetch.prefetched
    monkeypatch.setattr("neuroloaders.spike_loader.prefetched", lambda *args: calls.append(1) or prefetched(*args))
    options = {"dt_ms": 10, "batch_size": 4, "shuffle": shuffle, "transform": transform, "pool_units": 5}
    resident = SpikeLoader(spikes(), **options)
    with caplog.at_level(logging.WARNING):
        host = SpikeLoader(spikes(), max_bytes=100, **options)
    assert "they stay in host memory" in caplog.text
    assert (resident.is_resident, host.is_resident) == (True, False)
    same(resident.batches(1), host.batches(1))
    assert calls == [1]
    for _ in host:
        break
    assert not any("neuroloaders-prefetch" in thread.name for thread in threading.enumerate())


@dataclass(frozen=True)
class Backwards(EventTransform):
    """A transform of a user that breaks its promise."""

    def draw(self, n, generator):
        return None

    def apply(self, events, draws):
        return events._replace(times_ms=-events.times_ms)


def test_transforms_of_users_are_checked():
    loader = SpikeLoader(spikes(), dt_ms=10, batch_size=5, transform=Backwards())
    with pytest.raises(ValueError, match="`times_ms` must rise within each sample"):
        next(iter(loader))


def test_a_stretched_sample_that_does_not_fit_is_reported():
    s = spikes()
    n_bins = int(count_bins(s.times_ms, s.offsets, dt_ms=10).max())
    loader = SpikeLoader(s, dt_ms=10, batch_size=23, n_bins=n_bins, transform=TimeStretch(3))
    with pytest.raises(ValueError, match="`n_bins` must be at least"):
        list(loader)


def test_attributes_say_what_the_loop_needs():
    loader = SpikeLoader(spikes(), dt_ms=10, n_units=10, batch_size=4, rank=1, world_size=2, pool_units=5)
    assert (loader.n_samples, loader.batch_size, loader.rank, loader.world_size, len(loader)) == (23, 4, 1, 2, 6)
    assert (loader.device, loader.n_channels) == (torch.device("cpu"), 2)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n_units": 700}, ValueError, "`n_units` must be 10, the units of `spikes`, got 700"),
        ({"pool_units": 3}, ValueError, "`pool_units` must divide the 10 units of `spikes`, got 3"),
        ({"pool_units": 0}, ValueError, "`pool_units` must be a whole number >= 1"),
        ({"dt_ms": -1}, ValueError, "`dt_ms` must be"),
        ({"mode": "greedy"}, ValueError, "`mode` must be one of"),
        ({"beyond": "cut"}, ValueError, "`beyond` must be one of"),
        ({"n_bins": 2}, ValueError, "`n_bins` must be at least .*, the bins of sample"),
        ({"n_bins": 20, "pad_to": 4}, ValueError, "`pad_to` must be left out"),
        ({"pad_to": 0}, ValueError, "`pad_to` must be"),
        ({"dtype": torch.int32}, ValueError, "`dtype` must be a floating type"),
        ({"transform": lambda x: x}, TypeError, "`transform` must be an EventTransform"),
        ({"max_bytes": -1}, ValueError, "`max_bytes` must be"),
        ({"batch_size": 1, "world_size": 2}, ValueError, "`batch_size` must be a whole number >= 2"),
        ({"spikes": 3}, TypeError, "`spikes` must be a SpikeSet"),
        (
            {"spikes": spikes(times_ms=spikes().times_ms - 50), "mode": "absolute"},
            ValueError,
            "`times_ms` must be >= 0 with mode='absolute', got -",
        ),
    ],
)
def test_mistakes_are_refused_with_a_reason(options, error, text):
    with pytest.raises(error, match=text):
        SpikeLoader(**{"spikes": spikes(), "dt_ms": 10, "batch_size": 5, **options})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", BINNINGS)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("max_bytes", [None, 0])
def test_batches_on_the_gpu_are_those_of_the_cpu_and_never_wait(mode, shuffle, max_bytes):
    options = {"dt_ms": 10, "batch_size": 5, "shuffle": shuffle, "pool_units": 5, "mode": mode}
    expected = list(SpikeLoader(spikes(), **options).batches(1))
    loader = SpikeLoader(spikes(), device="cuda", max_bytes=max_bytes, **options)
    assert loader.is_resident == (max_bytes is None)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(loader.batches(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    same(expected, [tuple(tensor.cpu() for tensor in batch) for batch in batches])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("max_bytes", [None, 0])
def test_augmented_batches_on_the_gpu_are_those_of_the_cpu(max_bytes):
    options = {"dt_ms": 10, "batch_size": 5, "shuffle": True, "transform": AUGMENT}
    expected = list(SpikeLoader(spikes(), **options).batches(1))
    loader = SpikeLoader(spikes(), device="cuda", max_bytes=max_bytes, **options)
    same(expected, [tuple(tensor.cpu() for tensor in batch) for batch in loader.batches(1)])
