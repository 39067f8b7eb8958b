"""Activity: rates, irregularity and rhythms of processes whose values are known, and of Izhikevich's network."""

import itertools

import numpy as np
import pytest
import scipy.signal
import scipy.stats

from reservoir import Izhikevich, Population, Record, Reservoir, Synapse, simulate
from reservoir.analysis import (
    BANDS,
    Spectrum,
    SpikeTrains,
    describe_activity,
    firing_rates,
    isi_cv,
    isi_cv2,
    population_rate,
    power_spectrum,
    spike_trains,
    synchrony,
)


def renewal(intervals):
    """Return trains from intervals, a row a neuron."""
    t_ms = np.cumsum(intervals, axis=1)
    neurons = np.repeat(np.arange(len(t_ms)), t_ms.shape[1])
    return SpikeTrains(t_ms=t_ms.ravel(), neurons=neurons, n=len(t_ms), stop_ms=t_ms.max() + 1)


# --- irregularity -------------------------------------------------------------------------------------------------


def test_a_clock_has_no_irregularity():
    trains = renewal(np.full((3, 50), 10.0))
    assert np.allclose(isi_cv(trains), 0)
    assert np.allclose(isi_cv2(trains), 0)
    assert np.allclose(firing_rates(trains), 100, rtol=0.02)


def test_poisson_and_gamma_processes_have_the_irregularity_of_the_textbook():
    rng = np.random.default_rng(0)
    poisson, gamma = renewal(rng.exponential(20.0, (20, 4000))), renewal(rng.gamma(4.0, 5.0, (20, 4000)))
    assert abs(isi_cv(poisson).mean() - 1) < 0.01
    assert abs(isi_cv2(poisson).mean() - 1) < 0.01
    # Of a gamma process of shape k: 1 / sqrt(k).
    assert abs(isi_cv(gamma).mean() - 0.5) < 0.005


def test_cv_of_intervals_is_that_of_scipy_and_cv2_that_of_its_definition():
    rng = np.random.default_rng(1)
    intervals = rng.lognormal(3.0, 0.7, (5, 40))
    trains = renewal(intervals)
    own = intervals[:, 1:]
    assert np.allclose(isi_cv(trains), scipy.stats.variation(own, axis=1))
    want = [np.mean([2 * abs(b - a) / (a + b) for a, b in itertools.pairwise(row)]) for row in own]
    assert np.allclose(isi_cv2(trains), want)


def test_slow_changes_of_the_rate_raise_cv_and_not_cv2():
    rng = np.random.default_rng(2)
    drift = 20 * np.exp(1.2 * np.sin(np.linspace(0, 6 * np.pi, 3000)))
    trains = renewal(rng.exponential(1.0, (10, 3000)) * drift)
    assert isi_cv(trains).mean() > 1.3
    assert abs(isi_cv2(trains).mean() - 1) < 0.02


def test_fewer_than_three_spikes_have_no_irregularity_but_a_rate():
    trains = SpikeTrains(t_ms=[1.0, 1.0, 2.0, 1.0, 2.0, 4.0], neurons=[1, 2, 2, 3, 3, 3], n=4, stop_ms=10.0)
    assert np.isnan(isi_cv(trains)).tolist() == [True, True, True, False]
    assert np.isnan(isi_cv2(trains)).tolist() == [True, True, True, False]
    assert firing_rates(trains).tolist() == [0, 100, 200, 300]


# --- synchrony ----------------------------------------------------------------------------------------------------


def test_synchrony_is_one_for_copies_and_one_over_root_n_for_strangers():
    rng = np.random.default_rng(0)
    wave = rng.standard_normal((4000, 1))
    assert np.isclose(synchrony(np.tile(wave, 8)), 1)
    for n in (25, 100):
        strangers = synchrony(rng.standard_normal((20000, n)))
        assert abs(strangers * np.sqrt(n) - 1) < 0.03
    # Half the variance in common: chi² = 1/2 + 1/(2 N).
    mixed = wave + rng.standard_normal((4000, 50))
    assert abs(synchrony(mixed) - np.sqrt(0.51)) < 0.02
    assert np.isnan(synchrony(np.ones((10, 3))))


# --- rhythms ------------------------------------------------------------------------------------------------------


def test_power_integrates_to_the_variance_and_poisson_neurons_are_flat():
    rng, n, rate_hz = np.random.default_rng(0), 50, 20.0
    seconds = 60
    counts = rng.poisson(rate_hz * seconds, n)
    trains = SpikeTrains(
        t_ms=rng.random(counts.sum()) * seconds * 1e3, neurons=np.repeat(np.arange(n), counts), n=n,
        stop_ms=seconds * 1e3,
    )  # fmt: skip
    found = power_spectrum(trains)
    step = found.frequency_hz[1]
    assert np.isclose(found.power.sum() * step, population_rate(trains).var(), rtol=0.05)
    assert np.isclose(found.power[5:-5].mean(), 2 * rate_hz / n, rtol=0.02)
    low, high = BANDS["gamma"]
    assert np.isclose(found.band_fraction(low, high), (high - low) / 199, rtol=0.1)


def test_spectrum_is_that_of_scipy_with_its_defaults():
    rng = np.random.default_rng(3)
    trains = SpikeTrains(t_ms=rng.random(3000) * 2000, neurons=rng.integers(0, 10, 3000), n=10, stop_ms=2000.0)
    want = scipy.signal.welch(population_rate(trains, bin_ms=2.0), fs=500.0, nperseg=256)
    found = power_spectrum(trains, bin_ms=2.0, segment_ms=512.0)
    assert np.allclose(found.frequency_hz, want[0])
    assert np.allclose(found.power, want[1])


def test_peak_is_a_peak_and_not_the_border_of_a_band():
    frequency = np.arange(0.0, 51.0)
    falling = Spectrum(frequency_hz=frequency, power=1 / (1 + frequency))
    assert np.isnan(falling.peak_hz(7, 13))
    bump = Spectrum(frequency_hz=frequency, power=1 / (1 + frequency) + np.exp(-((frequency - 10) ** 2)))
    assert bump.peak_hz(7, 13) == 10
    with pytest.raises(ValueError, match=r"`of_hz` must hold a frequency of the spectrum, 1 Hz apart up to 50 Hz"):
        bump.band_fraction(7, 13)
    assert 0 < bump.band_fraction(7, 13, of_hz=(1, 50)) < 1
    with pytest.raises(ValueError, match=r"`low_hz` must hold a frequency of the spectrum"):
        bump.peak_hz(10.2, 10.7)


def net_m(seed):
    """The network of Izhikevich 2003, without synapses of neurons on themselves, as in test_simulate."""
    root, synapse = np.sqrt(1000), Synapse(0.0)
    kinds = {"E": ("excitatory_2003", 1, 0.25, 5.0), "I": ("inhibitory", -1, 0.5, 2.0)}
    populations = {
        name: Population(
            size={"E": 800, "I": 200}[name], neuron=kind, sign=sign, gain=gain * root, noise=noise, synapse=synapse
        )
        for name, (kind, sign, gain, noise) in kinds.items()
    }
    return Reservoir(1000, p_connect=1.0, populations=populations, generator=seed, v_min=None)


def test_izhikevichs_network_over_twenty_seeds():
    """Numbers of a port of net.m to C: 7.58 +- 0.18 and 7.33 +- 0.23 Hz; alpha 0.19 and gamma 0.34 of the power."""
    rates, spectra = [], []
    for seed in range(20):
        net = net_m(seed)
        recording = simulate(net, 1000.0, seed=100 + seed, n_threads=1)
        found = describe_activity(recording, net.populations)
        rates.append([found.rates_hz[name].mean() for name in ("E", "I")])
        spectra.append(power_spectrum(spike_trains(recording, start_ms=100.0), segment_ms=900.0))
    rates = np.array(rates)
    error = rates.std(axis=0, ddof=1) / np.sqrt(20)
    # Of both samples of 20 seeds, three standard errors of their difference.
    assert (np.abs(rates.mean(axis=0) - (7.58, 7.33)) < 3 * np.hypot(error, np.array([0.18, 0.23]) / np.sqrt(20))).all()
    for name, known in (("alpha", 0.19), ("gamma", 0.34)):
        parts = np.array([one.band_fraction(*BANDS[name]) for one in spectra])
        assert abs(parts.mean() - known) < 3 * np.sqrt(2) * parts.std(ddof=1) / np.sqrt(20), name
    mean = Spectrum(frequency_hz=spectra[0].frequency_hz, power=np.mean([one.power for one in spectra], axis=0))
    assert 7 <= mean.peak_hz(4, 20) <= 13
    assert abs(mean.peak_hz(25, 80) - 34) < 6
    # Part of the power by width alone: 0.03 and 0.15.
    assert found.table().splitlines()[1].startswith("E")


# --- spike trains -------------------------------------------------------------------------------------------------


def test_trains_of_a_recording_count_as_the_recording_does():
    net = Reservoir(100, generator=0, dt_ms=0.1)
    recording = simulate(net, 300.0, seed=1, n_threads=1)
    later = simulate(net, 100.0, state=recording.state, n_threads=1)
    for one in (recording, later):
        trains = spike_trains(one)
        assert np.array_equal(trains.counts(), one.spike_counts()[0])
        assert np.allclose(firing_rates(one), one.rates_hz()[0])
        # A spike at 0.1 * 3 ms belongs to step 3, although 0.1 * 3 / 0.1 < 3 would be possible.
        assert np.array_equal(trains.binned(0.1, each=False), one.step_counts()[:, 0])
        assert np.array_equal(trains.binned(0.1), one.to_dense()[:, 0])
    assert spike_trains(later).start_ms == 300.0
    assert spike_trains(recording, start_ms=200.0).duration_ms == 100.0
    inhibitory = spike_trains(recording).part(neurons=net.populations["I"])
    assert np.array_equal(inhibitory.counts(), recording.spike_counts()[0, 80:])


def test_order_of_spikes_does_not_matter():
    rng = np.random.default_rng(0)
    t_ms, neurons, order = np.arange(60) * 1.7, rng.integers(0, 3, 60), rng.permutation(60)
    one = SpikeTrains(t_ms=t_ms, neurons=neurons, n=3, stop_ms=200.0)
    other = SpikeTrains(t_ms=t_ms[order], neurons=neurons[order], n=3, stop_ms=200.0)
    assert np.array_equal(isi_cv(one), isi_cv(other))
    assert np.array_equal(one.binned(10.0), other.binned(10.0))


def test_one_neuron_and_silence_are_fine():
    silent = SpikeTrains(t_ms=[], neurons=[], n=1, stop_ms=100.0)
    found = describe_activity(silent)
    assert found.rows()[0]["silent"] == 1
    assert found.rows()[0]["cv"] is None
    assert found.table().count("-") >= 3
    assert np.isnan(power_spectrum(silent, segment_ms=50.0).band_fraction(20, 60))


def test_spikes_that_make_no_sense_are_refused():
    net = Reservoir.from_edges(2, [], [], [], Izhikevich("RS"))
    two, watched = simulate(net, 10.0, batch=2), simulate(net, 10.0, record=Record(spikes="watched", neurons=[1]))
    for make, message in (
        (lambda: firing_rates(two), r"`spikes` must be a recording of one lane, got 2 lanes. Choose one: recording"),
        (lambda: firing_rates(watched), r"`spikes` must hold the spikes of every neuron, got those of watched ones"),
        (lambda: firing_rates(simulate(net, 0.0)), r"`spikes` must last some time, got a recording of 0 steps"),
        (lambda: SpikeTrains(t_ms=[5.0], neurons=[3], n=3, stop_ms=9.0), r"`neurons` must be from 0 to 2, got 3 to 3"),
        (lambda: SpikeTrains(t_ms=[9.0], neurons=[0], n=3, stop_ms=9.0), r"`t_ms` must lie in \[0, 9\) ms, got 9 to 9"),
        (lambda: SpikeTrains(t_ms=[np.nan], neurons=[0], n=1, stop_ms=9.0), r"`t_ms` must hold finite numbers only"),
        (lambda: SpikeTrains(t_ms=[1.0, 2.0], neurons=[0], n=1, stop_ms=9.0), r"must have the same length"),
        (
            lambda: isi_cv(SpikeTrains(t_ms=[1.0, 1.0], neurons=[0, 0], n=1, stop_ms=9.0)),
            r"`spikes` must hold at most one spike of a neuron at a time, got two of neuron 0",
        ),
        (lambda: synchrony(np.zeros((0, 3))), r"`signal` must have at least one step and one neuron"),
        (lambda: power_spectrum(SpikeTrains(t_ms=[], neurons=[], n=1, stop_ms=1.0)), r"last at least two bins"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match=r"`spikes` must be a Recording or SpikeTrains"):
        firing_rates(np.zeros((10, 3)))
