"""Growth of disturbances: closed forms where they die, networks in which they grow, and that only the nudge differs."""

from dataclasses import replace

import numpy as np
import pytest

from reservoir import Izhikevich, Pulse, Readout, Reservoir, Stimulus, default_populations, simulate
from reservoir.analysis import DISTANCES, NUDGES, perturbation_growth


def quiet_cell(n=1, dt_ms=1.0):
    """Regular spiking cells at rest, without noise and synapses."""
    return Reservoir.from_edges(n, [], [], [], Izhikevich("RS"), dt_ms=dt_ms)


@pytest.mark.parametrize("dt_ms", [1.0, 0.1])
def test_a_nudge_at_rest_decays_with_the_eigenvalue_of_the_equations(dt_ms):
    # At rest v = -70 (v² / 25 + 5 v + 140 - u = 0 with u = v / 5), of the scheme's half steps and u from the new v.
    a, b, h = 0.02, 0.2, dt_ms / 2
    f = 0.08 * -70 + 5
    # v takes two steps with u held; u then takes one.
    half = np.array([[1 + h * f, -h], [0, 1]])
    recover = np.array([[1, 0], [dt_ms * a * b, 1 - dt_ms * a]])
    slow = np.abs(np.linalg.eigvals(recover @ half @ half)).max()
    found = perturbation_growth(
        quiet_cell(dt_ms=dt_ms), 150.0, nudge="voltage", size_mV=0.01, distance="voltage", n_repeats=1,
        settle_ms=500.0, window_ms=(40.0, 140.0),
    )  # fmt: skip
    assert found.rate_per_ms == pytest.approx(np.log(slow) / dt_ms, rel=2e-3)
    assert np.isnan(found.error_per_ms)
    assert found.window_ms == (40.0, 140.0)


def test_an_extra_spike_is_one_spike_and_fades_as_its_trace_does():
    net = quiet_cell(50)
    found = perturbation_growth(net, 100.0, n_repeats=3, settle_ms=100.0, tau_ms=10.0, neurons=[1, 7, 30])
    want = np.exp(-(found.t_ms - 1) / 10) / np.sqrt(50)
    assert np.allclose(found.distance, want, rtol=1e-9)
    assert found.rate_per_ms == pytest.approx(-0.1, rel=1e-6)
    assert found.error_per_ms == pytest.approx(0, abs=1e-12)
    # A hundredth of the beginning is where the fit ends.
    assert found.window_ms == (1.0, 48.0)
    inside = (found.t_ms >= 1) & (found.t_ms <= 48)
    assert np.allclose(found.fit[inside], want[inside])
    assert np.isnan(found.fit[~inside]).all()
    assert not found.unrelated.any(), "cells at rest are where all others are"


@pytest.mark.parametrize("form", ["2003", "2007"])
def test_extra_spike_comes_in_the_first_step_in_either_form(form):
    neuron = Izhikevich("RS", form=form)
    net = Reservoir.from_edges(3, [0], [1], [0.1], neuron, dt_ms=0.5)
    found = perturbation_growth(net, 10.0, n_repeats=2, neurons=[0, 2], settle_ms=50.0)
    assert np.allclose(found.distance[:, 0], 1 / np.sqrt(3))


def test_disturbance_dies_without_recurrence_and_grows_in_a_chaotic_network():
    alone = perturbation_growth(Reservoir(1000, gain=0.0, generator=0), 300.0, n_threads=1)
    assert alone.rate_per_ms < -2 * alone.error_per_ms
    assert alone.distance[:, -1].mean() < 0.2 * alone.distance[:, 0].mean()
    coupled = perturbation_growth(Reservoir(1000, generator=0), 300.0, n_threads=1)
    assert coupled.rate_per_ms > 4 * coupled.error_per_ms > 0
    # In the end as far apart as runs that have nothing in common but the noise.
    end = coupled.distance[:, -50:].mean()
    assert end > 0.7 * coupled.unrelated[:, -50:].mean() > 10 * alone.distance[:, -50:].mean()


def test_twin_is_the_run_without_a_nudge():
    net = Reservoir(100, generator=0)
    stimulus = Stimulus(60.0, pulses=[Pulse(10.0, 30.0, 20 * np.random.default_rng(0).random(100))])
    found = perturbation_growth(net, stimulus, n_repeats=2, settle_ms=80.0, seed=5, neurons=[3, 4], tau_ms=1e9)
    # By hand: the same run, and one whose neuron starts at its peak.
    settled = simulate(net, 80.0, batch=3, seed=5)
    for k, neuron in enumerate((3, 4)):
        state = settled.state.fork([k])
        twin = simulate(net, stimulus, state=state).to_dense()[:, 0]
        state.v[0, neuron] = 30.0
        nudged = simulate(net, stimulus, state=state).to_dense()[:, 0]
        # Traces that never decay: the difference of the counts.
        counts = np.cumsum(nudged.astype(float) - twin, axis=0)
        assert np.allclose(found.distance[k], np.sqrt((counts**2).mean(axis=1)))


def test_readout_that_feeds_back_takes_part_and_is_not_changed():
    net, readout = Reservoir(200, gain=0.0, generator=0), Readout(200, 1, feedback=3.0, generator=0)
    readout.weights[:] = 0.02
    before = readout.copy()
    closed = perturbation_growth(net, 200.0, readout=readout, n_repeats=8, n_threads=1)
    for name in ("weights", "trace", "feedback"):
        assert np.array_equal(getattr(readout, name), getattr(before, name))
    opened = perturbation_growth(net, 200.0, n_repeats=8, n_threads=1)
    # Neurons hear of each other by the feedback alone.
    assert closed.distance[:, -50:].mean() > 3 * opened.distance[:, -50:].mean()


def test_state_is_where_it_starts_and_stays_as_it_was():
    net = Reservoir(100, generator=0)
    state = simulate(net, 200.0, seed=3).state
    before = state.copy()
    one, other = (perturbation_growth(net, 50.0, state=state, settle_ms=0.0, n_repeats=2, seed=9) for _ in range(2))
    assert np.array_equal(one.distance, other.distance)
    assert np.array_equal(state.v, before.v)
    # Without settling the unrelated run begins in the same state, with the same noise.
    assert not one.unrelated.any()


@pytest.mark.parametrize("nudge", NUDGES)
@pytest.mark.parametrize("distance", DISTANCES)
def test_every_nudge_and_distance_runs(nudge, distance):
    populations = {name: replace(p, noise=0.0) for name, p in default_populations().items()}
    net = Reservoir(60, populations=populations, generator=0)
    found = perturbation_growth(net, 80.0, nudge=nudge, distance=distance, n_repeats=2, size_mV=-5.0)
    assert found.distance.shape == found.unrelated.shape == (2, 80)
    assert found.measure == distance
    assert np.isfinite(found.distance).all()


def test_nudge_that_moves_no_spike_has_no_rate():
    found = perturbation_growth(quiet_cell(5), 50.0, nudge="voltage", size_mV=1.0, n_repeats=2, settle_ms=10.0)
    assert not found.distance.any()
    assert np.isnan(found.rate_per_ms)
    assert np.isnan(found.fit).all()


def test_what_does_not_fit_is_refused():
    net = quiet_cell(5)
    two = simulate(net, 10.0, batch=2).state
    for options, message in (
        ({"nudge": "kick"}, r"`nudge` must be one of 'voltage', 'spike', got 'kick'"),
        ({"distance": "u"}, r"`distance` must be one of 'voltage', 'spikes', got 'u'"),
        ({"nudge": "voltage", "size_mV": 0.0}, r"`size_mV` must differ from 0"),
        ({"neurons": [1]}, r"`neurons` must name 2 neurons, one a repetition, got 1"),
        ({"neurons": [1, 5]}, r"`neurons` must be a whole number >= 0 and <= 4, got 5"),
        ({"state": two}, r"`state` must have one lane, got 2. Choose one: state.fork\(\[0\]\)"),
        ({"window_ms": (10.0, 11.0)}, r"`window_ms` must hold at least 3 steps of the 20 ms"),
        ({"stimulus": 2.0}, r"`stimulus` must last at least 3 time steps, got 2"),
        ({"stimulus": Stimulus(20.0, pulses=[Pulse(0.0, 1.0, 1.0, lane=0)])}, r"`stimulus` must be the same for all"),
        ({"stimulus": np.zeros((20, 3, 5))}, r"`stimulus` must be the same for all lanes"),
    ):
        with pytest.raises(ValueError, match=message):
            perturbation_growth(net, **{"stimulus": 20.0, "n_repeats": 2, **options})
