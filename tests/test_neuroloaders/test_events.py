"""Binning: against a slow loop, against spikingjelly, and by hand where the rules meet an edge."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.events import BEYOND, BINNINGS, bin_events, bins_of, count_bins, counts_in_bins
from neuroloaders.spikes import gather_events

DTYPES = (torch.float16, torch.float32, torch.float64, torch.int16, torch.int32, torch.int64)


def lists(*samples, dtype=torch.float32):
    """Flat lists of samples given as lists of times; every event is on unit 0, 1, 2, 0, 1, ..."""
    offsets = torch.tensor([0, *np.cumsum([len(sample) for sample in samples])], dtype=torch.int64)
    times = torch.tensor([time for sample in samples for time in sample], dtype=dtype)
    return times, torch.arange(len(times)) % 3, offsets


def drawn(n_samples, seed, *, most=60, span=100.0, grid=None, n_units=7):
    """Random samples, some empty, some with all events at one time; times on a grid meet edges often."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most, n_samples)
    times = [np.sort(rng.uniform(0, span, n)) for n in counts]
    times = [np.full(len(t), t[0]) if len(t) and rng.random() < 0.1 else t for t in times]
    flat = np.concatenate([*times, np.zeros(0)])
    flat = np.round(flat / grid) * grid if grid else flat
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    return torch.from_numpy(flat), torch.from_numpy(rng.integers(0, n_units, len(flat))), offsets


def slow_bins(times, dt, mode):
    """Return the bin of each event of one sample and how many bins there are, one event at a time, in float64."""
    if not times:
        return [], 0
    if mode == "sj2023":
        bins, left = [0], times[0]
        for time in times[1:]:
            left, k = (time, bins[-1] + 1) if time - left > dt else (left, bins[-1])
            bins.append(k)
        return bins, bins[-1] + 1
    since = [time - times[0] for time in times] if mode == "ceil" else times
    bins = []
    for time in since:
        k = 0
        while (k + 1) * dt <= time:
            k += 1
        bins.append(k)
    if mode == "absolute":
        return bins, bins[-1] + 1
    n = 1
    while n * dt < since[-1]:
        n += 1
    return [min(k, n - 1) for k in bins], n


def slow_counts(times, units, offsets, dt, n_units, mode):
    samples = [slow_bins(times[a:b].double().tolist(), dt, mode) for a, b in pairwise(offsets)]
    counts = torch.zeros(max([n for _, n in samples], default=0), len(samples), n_units)
    for i, (bins, _) in enumerate(samples):
        for k, unit in zip(bins, units[offsets[i] : offsets[i + 1]].tolist(), strict=True):
            counts[k, i, unit] += 1
    return counts, torch.tensor([n for _, n in samples], dtype=torch.int64)


# --- laws ---


@pytest.mark.parametrize("mode", BINNINGS)
@settings(max_examples=80, deadline=None)
@given(
    n_samples=st.integers(0, 6),
    seed=st.integers(0, 2**32),
    dt=st.sampled_from([10.0, 1.0, 0.3, 7.5, 500.0]),
    grid=st.sampled_from([None, 0.3, 2.5, 10.0]),
    dtype=st.sampled_from(DTYPES),
)
def test_counts_are_those_of_a_loop_over_events(mode, n_samples, seed, dt, grid, dtype):
    times, units, offsets = drawn(n_samples, seed, grid=grid)
    times = times.to(dtype)
    counts = bin_events(times, units, offsets, dt_ms=dt, n_units=7, mode=mode)
    expected, n_bins = slow_counts(times, units, offsets, dt, 7, mode)
    assert counts.dtype == torch.float32
    assert torch.equal(counts, expected)
    assert torch.equal(count_bins(times, offsets, dt_ms=dt, mode=mode), n_bins)


@pytest.mark.parametrize("mode", BINNINGS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), dt=st.floats(0.2, 200), extra=st.integers(0, 5))
def test_no_event_is_lost_and_nothing_follows_the_last_bin(mode, seed, dt, extra):
    times, units, offsets = drawn(5, seed)
    n_bins = count_bins(times, offsets, dt_ms=dt, mode=mode)
    total = max(1, int(n_bins.max()) + extra)
    counts = bin_events(times, units, offsets, dt_ms=dt, n_units=7, n_bins=total, mode=mode)
    assert counts.shape == (total, 5, 7)
    assert torch.equal(counts.sum((0, 2)).long(), offsets.diff())
    assert torch.equal(counts.sum((0, 1)).long(), torch.bincount(units, minlength=7))
    for i, n in enumerate(n_bins.tolist()):
        assert counts[n:, i].sum() == 0
        assert n == 0 or counts[n - 1, i].sum() > 0


@pytest.mark.parametrize("mode", BINNINGS)
def test_a_sample_is_binned_the_same_alone_and_in_a_batch(mode):
    times, units, offsets = drawn(8, 3)
    batch = bin_events(times, units, offsets, dt_ms=4, n_units=7, mode=mode)
    for i, (a, b) in enumerate(pairwise(offsets.tolist())):
        alone = bin_events(times[a:b], units[a:b], torch.tensor([0, b - a]), dt_ms=4, n_units=7, mode=mode)
        assert torch.equal(batch[: len(alone), i], alone[:, 0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.integers(-1000, 1000))
def test_only_absolute_time_sees_a_shift_of_the_sample(seed, shift):
    times, units, offsets = drawn(4, seed, grid=0.5)
    for mode in ("ceil", "sj2023"):
        first, second = (bin_events(t, units, offsets, dt_ms=5, n_units=7, mode=mode) for t in (times, times + shift))
        assert torch.equal(first, second)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), bins=st.integers(1, 12))
def test_absolute_bins_add_up_to_wider_ones(seed, bins):
    times, units, offsets = drawn(4, seed, grid=0.5)
    fine = bin_events(times, units, offsets, dt_ms=0.5, n_units=7, n_bins=300 * bins, mode="absolute")
    coarse = bin_events(times, units, offsets, dt_ms=0.5 * bins, n_units=7, n_bins=300, mode="absolute")
    assert torch.equal(fine.view(300, bins, 4, 7).sum(1), coarse)


@pytest.mark.parametrize("mode", BINNINGS)
def test_dropping_keeps_the_first_bins(mode):
    times, units, offsets = drawn(5, 1)
    full = bin_events(times, units, offsets, dt_ms=5, n_units=7, mode=mode)
    assert len(full) > 6
    short = bin_events(times, units, offsets, dt_ms=5, n_units=7, n_bins=6, mode=mode, beyond="drop")
    assert torch.equal(short, full[:6])


# --- by hand ---


@pytest.mark.parametrize(
    ("mode", "times", "expected"),
    [
        # An event on an edge begins the later bin, but the end belongs to the last bin.
        ("ceil", [2, 11, 12, 21], [2, 2]),
        ("ceil", [2, 12, 22], [1, 2]),
        ("ceil", [2, 22, 22, 22.5], [1, 0, 3]),
        ("ceil", [5], [1]),
        ("ceil", [5, 5, 5], [3]),
        ("ceil", [5, 6, 9], [3]),
        ("absolute", [0, 9.5, 10, 20], [2, 1, 1]),
        ("absolute", [35], [0, 0, 0, 1]),
        # The window includes dt; the next one begins at the next event, however late.
        ("sj2023", [0, 10, 10.5, 20.5, 500], [2, 2, 1]),
        ("sj2023", [7, 7, 7], [3]),
        ("ceil", [], []),
        ("absolute", [], []),
        ("sj2023", [], []),
    ],
)
def test_edges_ends_gaps_and_single_events(mode, times, expected):
    times, units, offsets = lists(times)
    counts = bin_events(times, units, offsets, dt_ms=10, n_units=3, mode=mode)
    assert counts.sum(2).flatten().tolist() == expected
    assert count_bins(times, offsets, dt_ms=10, mode=mode).tolist() == [len(expected)]


def test_edges_are_products_in_float64_not_quotients():
    # 0.9 / 0.3 is 3.0000000000000004 and 0.7 / 0.1 is 6.999999999999999; 0.7 is less than 7 * 0.1 in float64, too.
    times = torch.tensor([0.0, 0.3, 0.6, 0.9, 1.2], dtype=torch.float64)
    units = torch.zeros(5, dtype=torch.int32)
    counts = bin_events(times, units, torch.tensor([0, 5]), dt_ms=0.3, n_units=1, mode="absolute")
    assert counts.flatten().tolist() == [1, 1, 1, 1, 1]
    # As float32, 0.9 and 0.3 are other numbers, and they are taken for what they are.
    single = times.float()
    expected = [sum(k * 0.3 <= float(t) for k in range(1, 9)) for t in single]
    counts = bin_events(single, units, torch.tensor([0, 5]), dt_ms=0.3, n_units=1, mode="absolute")
    assert [k for k, n in enumerate(counts.flatten().tolist()) for _ in range(int(n))] == expected
    for k in (3, 7, 1000, 123456789):
        for dt in (0.1, 0.3, 1 / 3, 1e-3):
            edge = torch.tensor([0.0, k * dt], dtype=torch.float64)
            below = torch.tensor([0.0, math.nextafter(k * dt, 0)], dtype=torch.float64)
            assert count_bins(edge, torch.tensor([0, 2]), dt_ms=dt, mode="absolute").item() == k + 1
            assert count_bins(below, torch.tensor([0, 2]), dt_ms=dt, mode="absolute").item() == k
            assert count_bins(edge, torch.tensor([0, 2]), dt_ms=dt).item() == k
            above = torch.tensor([0.0, math.nextafter(k * dt, math.inf)], dtype=torch.float64)
            assert count_bins(above, torch.tensor([0, 2]), dt_ms=dt).item() == k + 1


@pytest.mark.parametrize("mode", BINNINGS)
def test_empty_samples_and_an_empty_batch(mode):
    times, units, offsets = lists([], [1, 2, 30], [], [4], [])
    assert count_bins(times, offsets, dt_ms=10, mode=mode).tolist() in (
        [0, 3, 0, 1, 0],
        [0, 4, 0, 1, 0],
        [0, 2, 0, 1, 0],
    )
    counts = bin_events(times, units, offsets, dt_ms=10, n_units=3, mode=mode)
    assert counts.sum((0, 2)).tolist() == [0, 3, 0, 1, 0]
    none = lists()
    assert bin_events(*none, dt_ms=10, n_units=3, mode=mode).shape == (0, 0, 3)
    assert bin_events(*none, dt_ms=10, n_units=3, n_bins=4, mode=mode).shape == (4, 0, 3)
    assert count_bins(none[0], none[2], dt_ms=10, mode=mode).shape == (0,)
    assert torch.equal(bin_events(*lists([], []), dt_ms=10, n_units=3, n_bins=4, mode=mode), torch.zeros(4, 2, 3))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_units_and_offsets_of_any_integer_type(dtype):
    times, units, offsets = lists([1, 2, 30], [4])
    expected = bin_events(times, units, offsets, dt_ms=10, n_units=3)
    assert torch.equal(bin_events(times, units.to(dtype), offsets.to(dtype), dt_ms=10, n_units=3), expected)


# --- references ---


def times_like_shd(rng, n):
    """Seconds in float16, sorted, as the files of SHD have them."""
    return np.sort(rng.uniform(0.002, rng.uniform(0.3, 1.4), n).astype(np.float16))


@pytest.mark.reference
@pytest.mark.parametrize("duration", [1, 4, 10])
def test_ceil_is_what_spikingjelly_does(duration):
    spikingjelly = pytest.importorskip("spikingjelly.datasets.shd")._integrate_events_by_fixed_duration
    rng = np.random.default_rng(0)
    for trial in range(30):
        seconds = np.sort(rng.uniform(0, 0.4, rng.integers(2, 300)))
        if trial % 2:  # many events on edges
            seconds = np.sort(rng.integers(0, 400, len(seconds)) * 2.0**-10)
        if seconds[0] == seconds[-1]:
            continue
        units = rng.integers(0, 20, len(seconds))
        theirs = spikingjelly({"t": seconds, "x": units}, duration, 20)
        ours = bin_events(
            torch.from_numpy(1000 * seconds), torch.from_numpy(units), torch.tensor([0, len(units)]),
            dt_ms=duration, n_units=20,
        )  # fmt: skip
        np.testing.assert_array_equal(ours[:, 0], theirs)


@pytest.mark.reference
def test_float16_files_give_the_frames_of_spikingjelly_once_rounded_as_it_does():
    spikingjelly = pytest.importorskip("spikingjelly.datasets.shd")._integrate_events_by_fixed_duration
    rng = np.random.default_rng(1)
    moved = total = 0
    for _ in range(20):
        seconds, units = times_like_shd(rng, 2000), rng.integers(0, 700, 2000)
        theirs = spikingjelly({"t": seconds, "x": units}, 10, 700)
        t = np.float16(1000) * seconds
        units, offsets = torch.from_numpy(units), torch.tensor([0, 2000])
        ours = bin_events(torch.from_numpy(t - t[0]), units, offsets, dt_ms=10, n_units=700)
        np.testing.assert_array_equal(ours[:, 0], theirs)
        # Exact milliseconds put the few events that this rounding carries over an edge into the bin next door.
        exact = torch.from_numpy(seconds.astype(np.float32) * 1000)
        bins = [
            bin_events(x, 0 * units, offsets, dt_ms=10, n_units=1).flatten().cumsum(0)
            for x in (exact, torch.from_numpy(t - t[0]))
        ]
        n = min(map(len, bins))
        assert abs(len(bins[0]) - len(bins[1])) <= 1
        moved += float((bins[0][:n] - bins[1][:n]).abs().sum())
        total += 2000
    assert 0 < moved / total < 0.05


def test_float16_seconds_on_the_edges():
    # 0.0625 s and 0.125 s are exact in float16: 62.5 and 125 ms; 1.2001953125 s is the float16 nearest to 1.2.
    seconds = torch.tensor([0.0, 0.0625, 0.125, 1.2, 1.25], dtype=torch.float16)
    times = seconds.float() * 1000
    units = torch.zeros(5, dtype=torch.int32)
    counts = bin_events(times, units, torch.tensor([0, 5]), dt_ms=12.5, n_units=1)
    assert counts.flatten().nonzero().flatten().tolist() == [0, 5, 10, 96, 99]
    assert len(counts) == 100


# --- mistakes ---

GOOD = {"dt_ms": 10, "n_units": 3}


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        ({"times_ms": torch.tensor([0.0, 2, 1, 5])}, {}, ValueError, "`times_ms` must rise .* event 2, in sample 0"),
        ({"times_ms": torch.tensor([0.0, 2, 5, math.nan])}, {}, ValueError, "`times_ms` must hold finite"),
        ({"times_ms": torch.tensor([0.0, 2, 5])}, {}, ValueError, "same length, got times_ms: 3, units: 4"),
        ({"times_ms": [0.0, 2, 5, 1]}, {}, TypeError, "`times_ms` must be an array"),
        ({"times_ms": np.zeros(4)}, {}, TypeError, "`times_ms` must be a tensor"),
        ({"times_ms": torch.zeros(4, dtype=torch.bool)}, {}, TypeError, "`times_ms` must have a floating"),
        ({"times_ms": torch.zeros(4, dtype=torch.uint16)}, {}, TypeError, "`times_ms` must have a floating"),
        ({"times_ms": torch.zeros(2, 2)}, {}, ValueError, r"`times_ms` must have shape \(E,\)"),
        ({"units": torch.tensor([0, 1, 3, 0])}, {}, ValueError, r"`units` must lie in 0..2, got 0..3"),
        ({"units": torch.tensor([0, -1, 2, 0])}, {}, ValueError, r"`units` must lie in 0..2, got -1..2"),
        ({"units": torch.zeros(4)}, {}, TypeError, "`units` must have an integer type"),
        ({"offsets": torch.tensor([0, 3])}, {}, ValueError, "`offsets` must rise from 0 to the number of events, 4"),
        ({"offsets": torch.tensor([1, 4])}, {}, ValueError, r"`offsets` must rise .*, got 1..4"),
        ({"offsets": torch.tensor([0, 3, 2, 4])}, {}, ValueError, "must never fall, got a step back after sample 1"),
        ({"offsets": torch.zeros(0, dtype=torch.int64)}, {}, ValueError, "`offsets` must have one entry more"),
        ({"offsets": torch.zeros(2)}, {}, TypeError, "`offsets` must have an integer type"),
        ({}, {"dt_ms": 0}, ValueError, "`dt_ms` must be a finite number > 0"),
        ({}, {"dt_ms": math.nan}, ValueError, "`dt_ms` must be"),
        ({}, {"dt_ms": "10"}, TypeError, "`dt_ms` must be"),
        ({}, {"n_units": 0}, ValueError, "`n_units` must be"),
        ({}, {"n_bins": 0}, ValueError, "`n_bins` must be a whole number >= 1"),
        ({}, {"n_bins": 1, "dt_ms": 1}, ValueError, "`n_bins` must be at least 5, the bins of sample 0, got 1"),
        ({}, {"mode": "floor"}, ValueError, "`mode` must be one of 'ceil', 'sj2023', 'absolute'"),
        ({}, {"beyond": "ignore"}, ValueError, "`beyond` must be one of 'error', 'drop'"),
        ({"times_ms": torch.tensor([0.0, 2, 5, -1])}, {"mode": "absolute"}, ValueError, ">= 0 .* got -1 in sample 1"),
        ({"times_ms": torch.tensor([0.0, 2, 1e12, 0])}, {}, ValueError, "`dt_ms` must make at most .* microseconds"),
        ({"times_ms": torch.tensor([0, 2, 1e300, 0]).double()}, {"dt_ms": 1e-9}, ValueError, "must hold finite"),
        ({}, {"dt_ms": 1e-300}, ValueError, "`dt_ms` must make at most"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_with_a_reason(change, options, error, text):
    arguments = {
        "times_ms": torch.tensor([0.0, 2, 5, 1]),
        "units": torch.tensor([0, 1, 2, 0]),
        "offsets": torch.tensor([0, 3, 4]),
    }
    bin_events(**arguments, **GOOD)
    with pytest.raises(error, match=text):
        bin_events(**{**arguments, **change}, **{**GOOD, **options})


def test_choices_are_described():
    for choices in (BINNINGS, BEYOND):
        assert all(len(text) > 20 and "\n" not in text for text in choices.values())


@pytest.mark.parametrize("mode", BINNINGS)
def test_counting_checked_lists_never_waits_for_the_device(mode):
    # Meta tensors have shapes but no values: whatever would wait for a value raises.
    times, units, offsets = (tensor.to("meta") for tensor in drawn(5, 1))
    with pytest.raises((RuntimeError, NotImplementedError), match=r"[Mm]eta"):
        bin_events(times, units, offsets, dt_ms=5, n_units=7, mode=mode)
    events, new = gather_events(offsets, torch.zeros(3, dtype=torch.int64, device="meta"), n_events=40)
    if mode != "sj2023":
        assert bins_of(times[events], new, 5.0, mode).shape == (3,)
    counts = torch.empty(3, dtype=torch.int64, device="meta")
    bins = counts_in_bins(times[events], units[events], new, counts, dt_ms=5.0, n_units=7, n_bins=9, mode=mode)
    assert bins.shape == (9, 3, 7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", BINNINGS)
@pytest.mark.parametrize("dt", [10, 0.3])
def test_the_gpu_counts_bit_for_bit_as_the_cpu(mode, dt):
    for dtype in DTYPES:
        times, units, offsets = drawn(50, 5, most=3000, grid=0.3)
        lists_ = [times.to(dtype), units, offsets]
        expected = bin_events(*lists_, dt_ms=dt, n_units=7, mode=mode)
        counts = bin_events(*(tensor.cuda() for tensor in lists_), dt_ms=dt, n_units=7, mode=mode)
        assert torch.equal(counts.cpu(), expected)
