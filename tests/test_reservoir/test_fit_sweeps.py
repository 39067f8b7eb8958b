"""Recordings as a fit sees them: steps, spikes, passive properties, and what is refused."""

import json

import numpy as np
import pytest

from reservoir.fitting import find_spikes, measure_cell, prepare_sweeps
from reservoir.fitting.measure import measure_passive, measure_spikes
from reservoir.fitting.sweeps import steps_of, time_step


@pytest.mark.parametrize(
    ("sfreq", "dt_ms", "expected"),
    [
        (20_000, None, (0.1, 2, 1)),
        (10_000, None, (0.1, 1, 1)),
        (30_000, None, (0.1, 3, 1)),
        (50_000, None, (0.1, 5, 1)),
        (5_000, None, (0.1, 1, 2)),
        (20_000, 0.05, (0.05, 1, 1)),
        (20_000, 1.0, (1.0, 20, 1)),
        (44_100, None, (0.090702947846, 4, 1)),
        (4_096, None, (0.1220703125, 1, 2)),
    ],
)
def test_step_is_whole_samples_or_a_sample_is_whole_steps(sfreq, dt_ms, expected):
    assert time_step(sfreq, dt_ms) == expected


def test_step_that_would_need_interpolation_is_refused_with_the_closest():
    with pytest.raises(
        ValueError, match=r"`dt_ms` must be a multiple of the sample interval, 0.05 ms, or divide it, go"
    ):
        time_step(20_000, 0.12)
    with pytest.raises(ValueError, match=r"The closest step is 0.1\."):
        time_step(20_000, 0.12)


def test_averaging_into_steps_keeps_the_charge():
    current = np.random.default_rng(0).normal(size=2000)
    assert steps_of(current, 4, 1).sum() * 4 == pytest.approx(current.sum(), rel=1e-12)
    assert np.array_equal(steps_of(current, 1, 3), np.repeat(current, 3))
    # What does not fill a step is left out.
    assert len(steps_of(current, 3, 1)) == 666


@pytest.mark.parametrize("sfreq", [5_000, 10_000, 20_000, 40_000])
def test_potentials_are_compared_at_their_own_time(sfreq):
    """A ramp of 1 mV/ms says what time it is: after n steps the state is that of n dt."""
    t_ms = np.arange(0.1 * sfreq) * 1000 / sfreq
    sweeps = prepare_sweeps(t_ms - 100, 10 * t_ms, sfreq)
    times = np.arange(1, len(sweeps.potential) + 1) * sweeps.stride * sweeps.dt_ms
    known = np.isfinite(sweeps.potential[:, 0])
    assert known[:-1].all()
    assert np.allclose(sweeps.potential[known, 0], (times - 100)[known], atol=1e-9)
    # Each step has the current of its samples.
    steps = np.arange(len(sweeps.current)) * sweeps.dt_ms
    assert np.abs(sweeps.current[:, 0] - 10 * steps).max() <= 10 * max(sweeps.dt_ms, 1000 / sfreq)


def test_potentials_around_recorded_spikes_are_not_compared():
    v = np.full(10_000, -65.0)
    v[[3000, 3060, 7000]] = 20.0
    current = np.zeros(10_000)
    current[2000:8000] = 100
    sweeps = prepare_sweeps(v, current, 10_000)
    assert sweeps.spikes[0].tolist() == [300.0, 306.0, 700.0]
    times = np.arange(1, len(sweeps.target) + 1) * 0.5
    hidden = ((times >= 298) & (times <= 311)) | ((times >= 698) & (times <= 705))
    # The last potential is at the end of the last step, when nothing was recorded any more.
    assert np.array_equal(np.isnan(sweeps.target[:-1, 0]), hidden[:-1])


def test_sweeps_of_unequal_length_are_the_sweeps_alone():
    rng = np.random.default_rng(0)
    voltages = [rng.normal(-60, 1, n) for n in (4000, 6001)]
    currents = [rng.normal(0, 50, n) for n in (4000, 6001)]
    both = prepare_sweeps(voltages, currents, 20_000)
    assert both.n_steps.tolist() == [2000, 3000]
    for k in range(2):
        alone, chosen = prepare_sweeps(voltages[k], currents[k], 20_000), both.choose([k])
        for name in ("current", "potential", "target", "n_steps", "v_start"):
            assert np.array_equal(getattr(alone, name), getattr(chosen, name), equal_nan=True)


def test_ripples_on_a_plateau_are_no_spikes():
    """As in a depolarisation block: above the level, and small."""
    v = -10 + 5 * np.sin(np.arange(10_000) / 20)
    v[5000] = 30.0
    assert find_spikes(v, 10_000).tolist() == [5000]
    assert len(find_spikes(v, 10_000, prominence_mV=8.0)) > 50


@pytest.mark.parametrize("kind", ["steps", "noise"])
def test_resistance_and_time_constant_of_a_circuit(kind):
    """An RC circuit whose answer to steps of current is exact: v decays to rest + R I by exp(-dt / tau)."""
    rng = np.random.default_rng(1)
    current = np.zeros((4, 20_000))
    if kind == "steps":
        current[:, 4000:12_000] = [[-100], [-50], [25], [50]]
    else:
        current = 40 * np.repeat(rng.normal(size=(4, 200)), 100, axis=1)
    v = np.full((4, 20_001), -70.0)
    v[:, 0] += 0.15 * current[:, 0]
    decay = np.exp(-0.1 / 18.0)
    for t in range(20_000):
        v[:, t + 1] = -70 + 0.15 * current[:, t] + (v[:, t] + 70 - 0.15 * current[:, t]) * decay
    sweeps = prepare_sweeps(v[:, :-1], current, 10_000)
    rest, resistance, tau = measure_passive(sweeps)
    assert (rest, resistance, tau) == pytest.approx((-70, 0.15, 18), rel=1e-5)
    noisy = prepare_sweeps(v[:, :-1] + rng.normal(0, 0.5, (4, 20_000)), current, 10_000)
    assert measure_passive(noisy) == pytest.approx((-70, 0.15, 18), rel=0.02)


def test_threshold_is_where_the_upstroke_reaches_20_mv_per_ms():
    """v' = (v + 60)**2 / 20 blows up, and passes 20 mV/ms at -40 mV."""
    t = np.arange(-20.0, -0.2, 0.02)
    piece = -60 - 20 / t
    v = np.concatenate([np.full(500, piece[0]), piece, np.linspace(piece[-1], -70, 20), np.full(900, -70.0)])
    peak = 500 + len(piece) - 1
    threshold, top, trough = measure_spikes([v], 50_000, [np.array([peak * 0.02])])
    assert threshold == pytest.approx(-40, abs=0.3)
    assert (top, trough) == (pytest.approx(piece[-1]), -70)


# --- what is refused ----------------------------------------------------------------------------------------------

V = -65 + np.sin(np.arange(5000) / 50.0)
STEP = np.repeat([0.0, 100.0], 2500)


@pytest.mark.parametrize(
    ("voltage", "current", "sfreq", "message"),
    [
        (
            V / 1000,
            STEP,
            1e4,
            r"`voltage` must be in mV, got values from -0.066 to -0.064\. Volts\? Multiply by 1000\.",
        ),
        (V * 1000, STEP, 1e4, r"`voltage` must be a membrane potential in mV"),
        (STEP, V, 1e4, r"Are `voltage` and `current` exchanged\?"),
        (V, STEP / 1e12, 1e4, r"`current` must be in pA, got values from 0 to 1e-10\. Amperes\? Multiply by 1e12\."),
        (V, STEP / 1000, 1e4, r"Nanoamperes\? Multiply by 1000\."),
        (V, STEP * 1000, 1e4, r"`current` must be in pA, got values from 0 to 100000"),
        (V, np.full(5000, 50.0), 1e4, r"`current` must change in the course of the recording, got 50 throughout"),
        (V, STEP, 500.0, r"`sfreq` must be a finite number >= 2000, got 500"),
        (V, STEP, 20.0, r"Is it in Hz \(20 kHz: 20000\)\?"),
        (np.where(np.arange(5000) == 7, np.nan, V), STEP, 1e4, r"`voltage` must hold finite numbers only, got 1 NaN"),
        (V, np.where(np.arange(5000) == 7, np.inf, STEP), 1e4, r"`current` must hold finite numbers only"),
        (
            V,
            STEP[:-1],
            1e4,
            r"`current` must have as many samples as `voltage` in each sweep, 5000 in number 0, got 4999",
        ),
        ([V, V], [STEP], 1e4, r"`current` must hold 2 sweeps, as `voltage` does, got 1"),
        (np.zeros((2, 2, 9)), STEP, 1e4, r"`voltage` must have shape \(n_samples,\) or \(n_sweeps, n_samples\)"),
        (np.zeros(0), np.zeros(0), 1e4, r"`voltage` must have shape"),
        ([V, V[:0]], [STEP, STEP[:0]], 1e4, r"got shape \(0,\) as sweep 1"),
        (V[2490:2510], STEP[2490:2510], 1e4, r"`voltage` must last at least 5 ms, got 2 ms"),
    ],
)
def test_recording_that_cannot_be_fitted_is_refused(voltage, current, sfreq, message):
    with pytest.raises(ValueError, match=message):
        prepare_sweeps(voltage, current, sfreq)


def test_potential_that_falls_with_the_current_is_refused():
    sweeps = prepare_sweeps(-65 - STEP / 20, STEP, 10_000)
    with pytest.raises(ValueError, match=r"`voltage` must follow `current`, got -49.9 MOhm of input resistance"):
        measure_passive(sweeps)


def test_cell_without_spikes_is_refused():
    with pytest.raises(ValueError, match=r"`voltage` must hold spikes in the sweeps that are fitted, got none"):
        measure_cell(prepare_sweeps(-65 + STEP / 20, STEP, 10_000), [-65 + STEP / 20], 10_000)


# --- real recordings ----------------------------------------------------------------------------------------------


def test_real_recordings_have_the_spikes_that_their_catalogue_lists(shared_data):
    """Nine recordings, counted by whoever collected them; two run into depolarisation block."""
    file = shared_data / "patch_clamp" / "pyabf_current_clamp.npz"
    if not file.exists():
        pytest.skip(f"needs {file}")
    with np.load(file) as arrays:
        info = json.loads(str(arrays["info"]))
        for name, about in info.items():
            sweeps = prepare_sweeps(arrays[f"{name}_V"], arrays[f"{name}_I"], about["fs"])
            assert [len(one) for one in sweeps.spikes] == about["spikes_per_sweep"], name
    assert len(info) == 9
