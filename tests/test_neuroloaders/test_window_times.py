"""Samples of windows: counts of the literature, and those of MNE for windows of all sorts."""

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.window_times import (
    baseline_samples,
    first_samples,
    n_samples,
    times_every,
    window_times,
    windows_inside,
)


@pytest.mark.parametrize(
    ("window", "endpoint", "n"),
    [
        ((-0.5, 2.5, 120), True, 361),  # Défossez et al. 2023
        ((-0.5, 1.0, 120), True, 181),  # Benchetrit et al. 2023, table S1
        ((-0.5, 1.0, 120), False, 180),  # mne-lsl
        ((-0.1, 1.3, 200), True, 281),  # preprocessed THINGS-MEG
        ((0, 0, 100), True, 1),
        ((0.8, 0.81, 100), False, 2),  # 0.01 * 100 is a little more than 1 there, and rounded up as mne-lsl does
    ],
)
def test_number_of_samples_is_that_of_the_literature(window, endpoint, n):
    assert n_samples(*window, endpoint=endpoint) == n == len(window_times(*window, endpoint=endpoint))


@settings(max_examples=60, deadline=None)
@given(
    sfreq=st.sampled_from([100.0, 120.0, 128.0, 250.0, 256.0, 512.5, 1000.0, 1017.25]),
    tmin=st.floats(-1, 0.2),
    length=st.floats(0, 1),
    samples=st.lists(st.integers(1100, 2500), min_size=1, max_size=5, unique=True),
)
def test_windows_are_the_samples_that_mne_takes(sfreq, tmin, length, samples):
    count = np.arange(4000.0)
    info = mne.create_info(1, sfreq, "misc")
    raw = mne.io.RawArray(count[None], info, verbose="error")
    samples = sorted(samples)
    table = np.array([(s, 0, 1) for s in samples])
    kwargs = {"baseline": None, "preload": True, "verbose": "error"}
    epochs = mne.Epochs(raw, table, tmin=tmin, tmax=tmin + length, **kwargs)
    np.testing.assert_array_equal(epochs.times, window_times(tmin, tmin + length, sfreq))
    first = first_samples(np.array(samples) / sfreq, tmin, sfreq)
    want = first[:, None] + np.arange(n_samples(tmin, tmin + length, sfreq))
    np.testing.assert_array_equal(epochs.get_data(copy=False)[:, 0], want)


def test_events_off_the_grid_are_rounded_as_mne_does():
    rng = np.random.default_rng(0)
    # Halves as well, which go to even samples.
    onsets = np.sort(np.concatenate([rng.uniform(2, 38, 200), np.arange(5, 15) + 0.5 / 128]))
    raw = mne.io.RawArray(np.zeros((1, 40 * 128)), mne.create_info(1, 128.0, "misc"), verbose="error")
    raw.set_annotations(mne.Annotations(onsets, 0.0, "x"))
    samples = mne.events_from_annotations(raw, verbose="error")[0][:, 0]
    np.testing.assert_array_equal(first_samples(onsets, -0.5, 128.0), samples - 64)


@pytest.mark.parametrize("baseline", [(None, 0), (None, None), (-0.2, -0.05), (0, 0.3), (-0.5004, 0), (0.1, 0.1)])
@pytest.mark.parametrize("sfreq", [100.0, 120.0, 1000.0])
def test_baseline_is_the_samples_that_mne_averages(baseline, sfreq):
    times = window_times(-0.5, 1.0, sfreq)
    # As many channels as samples, each 1 at one sample: its mean tells whether that sample is averaged.
    impulses = np.eye(len(times))
    want = impulses - mne.baseline.rescale(impulses, times, baseline, verbose="error")
    chosen = np.zeros(len(times))
    chosen[baseline_samples(baseline, -0.5, 1.0, sfreq)] = 1
    np.testing.assert_allclose(want[:, 0], chosen / chosen.sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [((-2, 0), "lie in the window"), ((0.3, 0.2), "at least one sample"), (0.5, "a pair"), ("ab", "a pair")],
)
def test_baseline_that_is_none_is_refused(baseline, message):
    with pytest.raises(ValueError, match=message):
        baseline_samples(baseline, -0.5, 1.0, 120)


def test_window_is_inside_if_its_last_sample_is():
    # A stretch from 2 to 5 s at 10 Hz has samples at 2.0, 2.1, ..., 4.9.
    times = np.array([2.49, 2.5, 3.9, 3.94, 3.96, 4.0])
    inside = windows_inside(times, -0.5, 1.0, 10, 2.0, 5.0)
    assert inside.tolist() == [False, True, True, True, True, True]
    assert windows_inside(np.array([4.04, 4.06]), -0.5, 1.0, 10, 2.0, 5.0).tolist() == [True, False]
    assert windows_inside(np.array([1e9]), -0.5, 1.0, 10, 2.0, np.inf).all()


def test_rounding_of_seconds_loses_no_window_at_the_edge():
    sfreq = 120.0
    starts = np.arange(1, 2000) / 7
    assert windows_inside(starts + 0.3, -0.3, 0.7, sfreq, starts, starts + 1 + 0.5 / sfreq + 1e-3).all()


def test_regular_times_fill_a_block_and_stay_inside():
    times = times_every(0.5, 10.0, 16.2, tmin=-0.5, tmax=2.5, sfreq=120)
    np.testing.assert_allclose(times, np.arange(10.5, 13.8, 0.5))
    assert windows_inside(times, -0.5, 2.5, 120, 10.0, 16.2).all()
    assert not windows_inside(times[-1:] + 0.5, -0.5, 2.5, 120, 10.0, 16.2).any()
    assert len(times_every(0.5, 10.0, 12.0, tmin=-0.5, tmax=2.5, sfreq=120)) == 0


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((1.0, -0.5, 120), "`tmax` must be more than tmin"),
        ((0, 1, 0), "`sfreq`"),
        ((float("nan"), 1, 120), "`tmin`"),
        ((0, 0, 120, False), "no sample"),
    ],
)
def test_window_that_is_none_is_refused(window, message):
    with pytest.raises(ValueError, match=message):
        n_samples(*window)
