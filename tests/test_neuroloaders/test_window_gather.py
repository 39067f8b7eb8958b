"""Three ways to cut windows that give the same, and memory that is used again but never while it is held."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import close

from neuroloaders import window_gather
from neuroloaders.window_gather import GATHERS, GatherPlan, make_gather

CPU = torch.device("cpu")


def some(seed=0, n_times=31, width=4, n=40, offset=1.0, baseline=slice(0, 11), clamp=1.5, scaled=True):
    """Recordings of 4, 2 and 3 channels, a plan for them, and windows."""
    rng = np.random.default_rng(seed)
    sizes = [(4, 300), (2, 200), (3, n_times)]
    data = [(rng.standard_normal(s) + offset * rng.standard_normal((s[0], 1))).astype(np.float32) for s in sizes]
    rows = np.full((3, width), -1)
    for r, (channels, _) in enumerate(sizes):
        places = rng.permutation(width)[:channels]
        rows[r, places] = rng.permutation(channels)
    rows[0, 1] = -1  # a bad channel
    shape = rows.shape
    center, scale = np.zeros(shape), np.ones(shape)
    if scaled:
        center, scale = rng.standard_normal(shape), rng.uniform(0.5, 2, shape)
    plan = GatherPlan(n_times=n_times, rows=rows, baseline=baseline, center=center, scale=scale, clamp=clamp)
    recording = rng.integers(0, 3, n)
    first = np.array([rng.integers(0, data[r].shape[1] - n_times + 1) for r in recording], dtype=np.int64)
    return data, plan, torch.from_numpy(recording), torch.from_numpy(first)


def by_hand(data, plan, b, c, recording, first):
    r, begin = int(recording[b]), int(first[b])
    if plan.rows[r, c] < 0:
        return np.zeros(plan.n_times)
    x = data[r][plan.rows[r, c]].astype(np.float64)[begin : begin + plan.n_times]
    if plan.baseline is not None:
        x = x - x[plan.baseline].mean()
    return np.clip((x - plan.center[r, c]) / plan.scale[r, c], -plan.clamp, plan.clamp)


def test_plain_is_what_the_words_say():
    data, plan, recording, first = some()
    got = make_gather("plain", data, plan, CPU)(recording, first)
    assert got.shape == (40, 4, 31)
    for b in range(40):
        for c in range(4):
            np.testing.assert_array_equal(got[b, c].numpy(), by_hand(data, plan, b, c, recording, first).astype("f4"))


@pytest.mark.parametrize("name", sorted(set(GATHERS) - {"plain"}))
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 50),
    n_times=st.sampled_from([1, 2, 5, 31, 64]),
    baseline=st.sampled_from([None, slice(0, 1), slice(0, 11), slice(3, 9)]),
    clamp=st.sampled_from([np.inf, 0.7, 20.0]),
    scaled=st.booleans(),
)
def test_fast_ways_give_what_the_plain_way_gives(name, seed, n, n_times, baseline, clamp, scaled):
    if baseline is not None:
        baseline = slice(min(baseline.start, n_times - 1), min(baseline.stop, n_times))
    data, plan, recording, first = some(seed, n_times, n=n, baseline=baseline, clamp=clamp, scaled=scaled)
    fast, plain = make_gather(name, data, plan, CPU), make_gather("plain", data, plan, CPU)
    close(fast(recording, first), plain(recording, first))
    assert (fast.calls, plain.calls) == (1, 1)


@pytest.mark.parametrize("name", sorted(set(GATHERS) - {"plain"}))
def test_offsets_of_amplifiers_cost_no_precision(name):
    # Samples are whole numbers, which float32 holds exactly beside an offset of a million.
    data, plan, recording, first = some(baseline=slice(0, 10), clamp=np.inf, scaled=False)
    data = [np.rint(100 * samples) + np.float32(1e6) for samples in data]
    got = make_gather(name, data, plan, CPU)(recording, first)
    want = make_gather("plain", data, plan, CPU)(recording, first)
    close(got, want)
    assert want.abs().max() < 1000


@pytest.mark.parametrize("name", sorted(GATHERS))
def test_windows_that_are_only_cut_are_the_samples_themselves(name):
    data, plan, recording, first = some(baseline=None, clamp=np.inf, scaled=False)
    got = make_gather(name, data, plan, CPU)(recording, first)
    for b in range(len(first)):
        for c in range(4):
            assert np.array_equal(got[b, c].numpy(), by_hand(data, plan, b, c, recording, first).astype("f4"))


@pytest.mark.parametrize("name", sorted(GATHERS))
def test_nan_stays_in_its_channel(name):
    data, plan, recording, first = some(baseline=slice(0, 31))
    for samples in data:
        samples[0] = np.nan
    got = make_gather(name, data, plan, CPU)(recording, first)
    want = torch.from_numpy(plan.rows)[recording] == 0
    assert torch.equal(got.isnan().all(dim=2), want)
    assert torch.equal(got.isnan().any(dim=2), want)


def test_threads_share_a_batch(monkeypatch):
    monkeypatch.setattr(window_gather, "_MIN_WORK", 100)
    data, plan, recording, first = some(n=37)
    cut = make_gather("numba", data, plan, CPU)
    alone = cut(recording, first)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(cut(recording, first), alone)
    finally:
        torch.set_num_threads(threads)


def test_memory_is_used_again_only_when_nobody_holds_it(monkeypatch):
    monkeypatch.setattr(window_gather, "_MIN_POOLED", 0)
    data, plan, recording, first = some()
    cut = make_gather("numba", data, plan, CPU)
    seen, kept, copies = set(), [], []
    for k in range(12):
        batch = cut(recording.roll(k), first.roll(k))
        seen.add(batch.data_ptr())
        if k < 3:
            kept.append(batch[5:7, 1:, ::2])  # a view, as a caller may keep
            copies.append(kept[-1].clone())
        del batch
    assert len(seen) == 4
    for view, copy in zip(kept, copies, strict=True):
        assert torch.equal(view, copy)
    smaller = cut(recording[:3], first[:3])
    assert smaller.data_ptr() in seen
    assert smaller.is_contiguous()
