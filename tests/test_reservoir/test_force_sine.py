"""FORCE on the network of Nicola & Clopath 2017: it goes on with a sine of 5 Hz after learning has stopped."""

from typing import NamedTuple

import numpy as np
import pytest

from reservoir import Izhikevich, Record, Reservoir, Synapse, initial_state, simulate
from reservoir.readout import Readout
from reservoir.rules import FORCE

B = -2.0


class Sine(NamedTuple):
    """What a run gave: rates in Hz, RMSE of the last second of training, and what the output is afterwards."""

    rate_before: float
    rate_after: float
    training_rmse: float
    frequency: float
    amplitude: float
    purity: float
    largest: float


def network(n, dt_ms, seed, gain=5e3):
    """Constants of the sine example (ModelDB 190565), where the bias is the rheobase."""
    rng, p = np.random.default_rng(seed), 0.1
    weights = gain * rng.standard_normal((n, n)) * (rng.random((n, n)) < p) / (p * np.sqrt(n))
    cell = Izhikevich(
        form="2007", a=0.01, b=B, c=-65.0, d=200.0, v_peak=30.0, capacitance=250.0, k=2.5, v_rest=-60.0,
        v_threshold=-60.0 + 40.0 - B / 2.5,
    )  # fmt: skip
    synapse = Synapse(20.0, 2.0)
    net = Reservoir.from_weights(weights, cell, synapse=synapse, dale=False, bias=1000.0, dt_ms=dt_ms, v_min=None)
    readout = Readout(n, 1, tau_ms=20.0, rise_ms=2.0, feedback=rng.uniform(-5e3, 5e3, (n, 1)), clip=(-np.inf, np.inf))
    return net, readout, initial_state(net, v=-60.0 + 90.0 * rng.random(n), u=0.0)


def target(first_ms, last_ms, dt_ms):
    t_ms = np.arange(first_ms, last_ms - dt_ms / 2, dt_ms)
    return np.sin(2 * np.pi * 5 * t_ms / 1000)[:, None]


def learn_sine(n, dt_ms, seed, *, third_ms, every_ms, gain=5e3):
    """Run a third of the time freely, a third with RLS, a third without."""
    net, readout, state = network(n, dt_ms, seed, gain)
    before = simulate(net, third_ms, readout=readout, state=state, n_threads=1)
    f = target(third_ms, 2 * third_ms, dt_ms)
    lesson = FORCE(alpha=2.0, every_ms=every_ms).teach(f)
    trained = simulate(net, third_ms, readout=readout, rule=lesson, state=before.state, record=Record(spikes="none"))
    last = round(1000 / dt_ms)
    training_rmse = np.sqrt(np.mean((readout.outputs[-last:, 0] - f[-last:]) ** 2))
    after = simulate(net, third_ms, readout=readout, state=trained.state, n_threads=1)
    z = readout.outputs[:, 0, 0]
    frequency, amplitude, purity = spectrum(z, dt_ms)
    rates = before.rates_hz().mean(), after.rates_hz().mean()
    return Sine(*rates, training_rmse, frequency, amplitude, purity, np.abs(z).max())


def spectrum(z, dt_ms):
    """Return the best frequency, the amplitude there, and the share of the power within 1 Hz of it."""
    window = np.hanning(len(z))
    fine = np.abs(np.fft.rfft(z * window, 8 * len(z)))
    fine[:8] = 0
    frequency = np.fft.rfftfreq(8 * len(z), dt_ms / 1000)[fine.argmax()]
    angle = 2 * np.pi * frequency * np.arange(len(z)) * dt_ms / 1000
    basis = np.stack([np.sin(angle), np.cos(angle), np.ones(len(z))], axis=1)
    sine, cosine, _ = np.linalg.lstsq(basis, z, rcond=None)[0]
    power = np.abs(np.fft.rfft((z - z.mean()) * window)) ** 2
    near = np.abs(np.fft.rfftfreq(len(z), dt_ms / 1000) - frequency) < 1
    return frequency, np.hypot(sine, cosine), power[near].sum() / power.sum()


def test_small_network_goes_on_with_the_sine():
    found = learn_sine(300, 0.5, 1, third_ms=2000.0, every_ms=1.0)
    assert found.training_rmse < 0.12
    assert abs(found.frequency - 5) < 0.15
    assert 0.85 < found.amplitude < 1.1
    assert found.purity > 0.97


def test_network_without_spikes_cannot_begin_to_learn():
    """Without recurrence the bias alone, at the rheobase, makes nobody fire once the start is over: r stays 0."""
    net, readout, state = network(200, 0.5, 1, gain=0.0)
    state.v[:] = -60.0
    lesson = FORCE(alpha=2.0, every_ms=1.0).teach(target(0.0, 500.0, 0.5))
    recording = simulate(net, 500.0, readout=readout, rule=lesson, state=state)
    assert recording.spike_counts().sum() == 0
    assert not readout.weights.any()
    assert not readout.outputs.any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_network_of_a_thousand_goes_on_with_the_sine(seed):
    """Three seeds in C: training 0.020-0.029, 4.98-5.00 Hz, amplitude 0.976-1.003, purity 0.992-0.995."""
    found = learn_sine(1000, 0.2, seed, third_ms=5000.0, every_ms=0.8)
    assert found.training_rmse < 0.04
    assert abs(found.frequency - 5) < 0.1
    assert 0.9 < found.amplitude < 1.05
    assert found.purity > 0.98
    assert 3 < found.rate_before < 8
    assert 30 < found.rate_after < 45
