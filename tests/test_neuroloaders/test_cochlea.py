"""The inner ear's stages against their laws and SciPy, and the compiled kernel against them."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
from fakes.audio import tone

from neuroloaders.cochlea import COCHLEA_BACKENDS, CochleaConfig, cochlea_spikes, cochlea_spikes_batch
from neuroloaders.cochlea_stages import (
    adapt,
    emphasise,
    erb_hz,
    erb_number,
    erb_space,
    gammatone_bands,
    hair_cell,
    lif_spikes,
)

CENTRES = np.array([100.0, 250.0, 1000.0, 2500.0, 3600.0])


def impulse(n):
    return np.eye(1, n)[0]


def noisy_tone(seed=0, sfreq=8000):
    rng = np.random.default_rng(seed)
    return np.concatenate([np.zeros(300), tone(700, sfreq), 0.1 * rng.normal(size=900), tone(2000, sfreq, 0.05)])


# --- the ERB scale ---


def test_erb_is_that_of_glasberg_and_moore():
    np.testing.assert_allclose(erb_hz(1000), 132.639)
    np.testing.assert_allclose(erb_hz([0, 100]), [24.7, 35.4939])


def test_erb_number_counts_bandwidths():
    f = np.linspace(50, 8000, 50001)
    np.testing.assert_allclose(np.gradient(erb_number(f), f)[1:-1], 1 / erb_hz(f)[1:-1], rtol=1e-6)
    # The published form: 21.4 log10(0.00437 f + 1), whose factor is rounded.
    np.testing.assert_allclose(erb_number(f), 21.4 * np.log10(0.00437 * f + 1), rtol=4e-3)


def test_centres_are_equally_far_apart_in_erb_number():
    centres = CochleaConfig().centres_hz
    np.testing.assert_allclose(centres[[0, -1]], [100, 3600])
    steps = np.diff(erb_number(centres))
    np.testing.assert_allclose(steps, steps[0])
    (middle,) = erb_space(100, 3600, 1)
    np.testing.assert_allclose(erb_number(middle), erb_number([100, 3600]).mean())


# --- gammatone filters ---


@pytest.mark.parametrize("sfreq", [8000, 16000, 44100])
def test_gammatone_bandwidth_is_the_erb_exactly(sfreq):
    responses = gammatone_bands(impulse(sfreq), sfreq, CENTRES)
    at_centre = np.abs((responses * np.exp(-2j * np.pi * CENTRES[:, None] / sfreq * np.arange(sfreq))).sum(1))
    np.testing.assert_allclose(at_centre, 2)  # of the half of the amplitude that lies at positive frequencies
    # Parseval: the area under the squared magnitude, over its height.
    np.testing.assert_allclose(sfreq * (np.abs(responses) ** 2).sum(1) / at_centre**2, erb_hz(CENTRES), rtol=1e-9)


@pytest.mark.parametrize(("sfreq", "centres"), [(8000, CENTRES[:4]), (16000, CENTRES), (44100, CENTRES)])
def test_real_gammatone_peaks_at_its_centre_with_its_bandwidth(sfreq, centres):
    n = 4 * sfreq
    magnitude = np.abs(np.fft.rfft(gammatone_bands(impulse(n), sfreq, centres).real))
    f = np.fft.rfftfreq(n, 1 / sfreq)
    for channel, centre in enumerate(centres):
        assert abs(f[magnitude[channel].argmax()] - centre) < 0.02 * erb_hz(centre)
        np.testing.assert_allclose(magnitude[channel].max(), 1, rtol=0.01)
        bandwidth = (magnitude[channel] ** 2).sum() * f[1] / magnitude[channel].max() ** 2
        np.testing.assert_allclose(bandwidth, erb_hz(centre), rtol=0.05)


@pytest.mark.reference
@pytest.mark.parametrize("centre", [150.0, 500.0, 1000.0, 3000.0])
def test_gammatone_responds_as_scipys(centre):
    sfreq = 32000  # high enough for the sampled response of the one and the filter of the other to be alike
    fir, _ = scipy.signal.gammatone(centre, "fir", order=4, numtaps=sfreq // 4, fs=sfreq)
    near = centre + erb_hz(centre) * np.linspace(-2, 2, 81)
    ours = gammatone_bands(impulse(sfreq // 4), sfreq, [centre])[0].real
    levels = []
    for response in (fir, ours):
        _, h = scipy.signal.freqz(response, worN=near, fs=sfreq)
        levels.append(20 * np.log10(np.abs(h) / np.abs(h).max()))
    np.testing.assert_allclose(levels[1], levels[0], atol=0.4)
    similarity = np.correlate(ours, fir, "full").max() / np.linalg.norm(ours) / np.linalg.norm(fir)
    assert similarity > 0.99


def test_low_channels_lag_as_documented():
    envelopes = np.abs(gammatone_bands(impulse(8000), 8000, [100.0, 1000.0]))
    np.testing.assert_allclose(envelopes.argmax(1) / 8000, 3 / (2 * np.pi * 1.019 * erb_hz([100.0, 1000.0])), atol=3e-4)


# --- hair cells and adaptation ---


def steady(drive):
    return drive[:, drive.shape[1] // 2 :]


def test_hair_cell_follows_cycles_below_and_envelope_above_its_corner():
    centres, sfreq = np.array([200.0, 3000.0]), 16000
    for channel, depth in ((0, (0.9, 1.0)), (1, (0.0, 0.25))):
        bands = gammatone_bands(tone(centres[channel], sfreq, 0.2), sfreq, centres)
        drive = steady(hair_cell(bands, sfreq, centres, cutoff_hz=1000, compression=1))[channel]
        modulation = (drive.max() - drive.min()) / (drive.max() + drive.min())
        assert depth[0] <= modulation <= depth[1]
        np.testing.assert_allclose(drive.mean(), 0.5 / np.pi, rtol=0.02)  # mean of a half-wave of amplitude 0.5


def test_rectification_makes_no_beat_that_is_not_in_the_sound():
    # The second harmonic of 2900 Hz is 5800 Hz, which folds back to 2200 Hz at 8 kHz; of 3500 Hz, to 1000 Hz.
    centres = np.array([3500.0])
    bands = gammatone_bands(tone(3500, 8000, 0.3), 8000, centres)
    drive = steady(hair_cell(bands, 8000, centres, cutoff_hz=1000, compression=1))[0]
    folded = np.abs((drive * np.exp(-2j * np.pi * 1000 / 8000 * np.arange(len(drive)))).mean()) / drive.mean()
    naive = scipy.signal.lfilter([0.54], [1, -0.46], np.maximum(bands.real, 0))[0, -1200:]
    naive_folded = np.abs((naive * np.exp(-2j * np.pi * 1000 / 8000 * np.arange(1200))).mean()) / naive.mean()
    assert folded < 0.06
    assert naive_folded > 3 * folded


def test_compression_is_a_power_law():
    centres = np.array([500.0, 3000.0])
    bands = gammatone_bands(noisy_tone(), 8000, centres)
    options = {"cutoff_hz": 1000, "compression": 0.3}
    quiet, loud = hair_cell(bands, 8000, centres, **options), hair_cell(1000 * bands, 8000, centres, **options)
    np.testing.assert_allclose(loud, 1000**0.3 * quiet, rtol=1e-9)


def test_adaptation_of_a_step_falls_from_one_to_what_is_left():
    step = np.ones((1, 8000))
    adapted = adapt(step, 8000, strength=0.6, tau_ms=60)[0]
    time_ms = np.arange(8000) / 8
    np.testing.assert_allclose(adapted, 1 - 0.6 * (1 - np.exp(-time_ms / 60)), rtol=1e-9)
    np.testing.assert_array_equal(adapt(step, 8000, strength=0, tau_ms=60), step)
    offset = adapt(np.concatenate([step, np.full_like(step, 0.3)], 1), 8000, strength=0.6, tau_ms=60)[0]
    assert offset[8000] == 0
    np.testing.assert_allclose(offset[-1], 0.3 * 0.4, rtol=1e-5)


def test_emphasis_raises_six_decibels_an_octave():
    _, h = scipy.signal.freqz(emphasise(impulse(4000), 44100, 200.0), worN=[1.0, 1000.0, 2000.0], fs=44100)
    np.testing.assert_allclose(abs(h[2] / h[1]), 2, rtol=0.03)
    np.testing.assert_allclose(abs(h[0]), -np.expm1(-2 * np.pi * 200 / 44100), rtol=1e-3)
    np.testing.assert_array_equal(emphasise(impulse(9), 44100, 0.0), impulse(9))


# --- spiking neurons ---

LIF = {"thresholds": (0.5, 1.0), "membrane_ms": 10, "refractory_ms": 2}


@pytest.mark.parametrize("sfreq", [1000, 8000, 44100])
def test_steady_current_fires_at_the_closed_form_interval(sfreq):
    times, units = lif_spikes(np.full((1, sfreq // 2), 1.5), sfreq, **LIF)
    for fibre, threshold in enumerate(LIF["thresholds"]):
        first = 10 * math.log(1.5 / (1.5 - threshold))
        own = times[units == fibre]
        np.testing.assert_allclose(own, first + (first + 2) * np.arange(len(own)), rtol=1e-9)
        assert abs(len(own) - 500 / (first + 2)) <= 1


def test_current_at_or_below_threshold_never_fires():
    times, units = lif_spikes(np.full((2, 8000), 0.5), 8000, **LIF)
    assert len(times) == len(units) == 0


def test_refractory_period_separates_spikes():
    times, units = lif_spikes(np.full((1, 800), 1e6), 8000, **LIF)
    assert set(units) == {0, 1}
    for fibre in (0, 1):
        assert np.diff(times[units == fibre]).min() >= 2 - 1e-9


def test_units_run_by_channel_and_then_by_fibre():
    drive = np.zeros((3, 400))
    drive[1] = 0.8
    assert set(lif_spikes(drive, 8000, **LIF)[1]) == {2}
    drive[1] = 1.8
    assert set(lif_spikes(drive, 8000, **LIF)[1]) == {2, 3}


# --- all together ---

CONFIGS = [
    {},
    {"n_channels": 1, "thresholds": (0.1,), "adaptation": 0.0, "refractory_ms": 0.0},
    {"normalisation": "peak", "emphasis_hz": 200.0, "f_max_hz": 3900.0, "compression": 1.0, "thresholds": (0.02, 0.1)},
    {
        "normalisation": "none",
        "n_channels": 7,
        "membrane_ms": 20.0,
        "adaptation": 1.0,
        "hair_cell_hz": 300.0,
        "thresholds": (0.02, 0.1),
    },
]


@pytest.mark.parametrize("setting", CONFIGS)
@pytest.mark.parametrize("sfreq", [8000, 11025])
def test_kernel_gives_the_spikes_of_the_stages(setting, sfreq):
    config, wave = CochleaConfig(**setting), noisy_tone(sfreq=sfreq)
    for rng in (None, 5):
        made = {
            backend: cochlea_spikes(
                wave, sfreq, config, rng=None if rng is None else np.random.default_rng(rng), backend=backend
            )
            for backend in COCHLEA_BACKENDS
        }
        (times, units), (slow_times, slow_units) = made["numba"], made["numpy"]
        assert len(times) > 10
        assert (times.dtype, units.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(units, slow_units)
        np.testing.assert_allclose(times, slow_times, rtol=1e-6, atol=1e-5)


def test_events_are_in_order_and_in_range():
    config = CochleaConfig()
    times, units = cochlea_spikes(noisy_tone(), 8000, config)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] <= len(noisy_tone()) / 8
    assert units.min() >= 0
    assert units.max() < config.n_units == 140


@pytest.mark.parametrize("f_hz", [200, 700, 2000, 3200])
def test_tone_is_loudest_on_its_channel(f_hz):
    config = CochleaConfig(thresholds=(0.3,))
    _, units = cochlea_spikes(tone(f_hz, seconds=0.5), 8000, config)
    rates = np.bincount(units, minlength=config.n_units)
    most = np.flatnonzero(rates == rates.max()).mean()
    place = np.interp(f_hz, config.centres_hz, np.arange(config.n_channels))
    assert abs(most - place) <= 3


def test_onsets_are_marked():
    times, _ = cochlea_spikes(tone(1000, seconds=0.5), 8000)
    assert (times < 100).sum() > 1.5 * (times > 400).sum()
    plain, _ = cochlea_spikes(tone(1000, seconds=0.5), 8000, CochleaConfig(adaptation=0.0))
    assert (plain < 100).sum() < 1.2 * (plain > 400).sum()


def test_same_sound_gives_the_same_spikes_and_a_generator_others():
    first, again = (cochlea_spikes(noisy_tone(), 8000) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    jittered = [cochlea_spikes(noisy_tone(), 8000, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(jittered[0], jittered[1])
    assert not np.array_equal(jittered[0][0], jittered[2][0])
    assert abs(len(jittered[0][0]) - len(first[0])) < 0.3 * len(first[0])


@pytest.mark.parametrize("normalisation", ["rms", "peak"])
def test_level_does_not_matter_when_it_is_normalised(normalisation):
    config = CochleaConfig(normalisation=normalisation)
    wave = np.round(noisy_tone() * 4096)
    want = cochlea_spikes(wave, 8000, config)
    for other in (wave.astype(np.int16), wave / 2**30, wave.astype(np.float32) * 8):
        got = cochlea_spikes(other, 8000, config)
        np.testing.assert_array_equal(got[1], want[1])
        np.testing.assert_array_equal(got[0], want[0])
    plain = CochleaConfig(normalisation="none")
    assert len(cochlea_spikes(wave, 8000, plain)[0]) > len(cochlea_spikes(wave / 2**14, 8000, plain)[0])


@pytest.mark.parametrize("backend", COCHLEA_BACKENDS)
def test_silence_is_silent(backend):
    config = CochleaConfig(thresholds=(1e-6,), compression=0.1)
    times, units = cochlea_spikes(np.zeros(4000, np.int16), 8000, config, backend=backend)
    assert len(times) == len(units) == 0


def test_batch_is_the_recordings_one_by_one():
    waves, rates = [noisy_tone(1), np.zeros(50), noisy_tone(2, 16000)], [8000, 8000, 16000]
    times, units, offsets = cochlea_spikes_batch(waves, rates)
    assert offsets[0] == 0
    assert offsets[-1] == len(times)
    for i, (wave, rate) in enumerate(zip(waves, rates, strict=True)):
        part = slice(offsets[i], offsets[i + 1])
        np.testing.assert_array_equal((times[part], units[part]), cochlea_spikes(wave, rate))
    assert cochlea_spikes_batch([np.zeros(5)], 8000)[2].tolist() == [0, 0]
    with pytest.raises(ValueError, match="`waves`, `sfreq` must have the same length"):
        cochlea_spikes_batch(waves, [8000])


# --- mistakes ---


@pytest.mark.parametrize(
    ("wave", "sfreq", "error", "text"),
    [
        (np.zeros((2, 9)), 8000, ValueError, r"`wave` must have shape \(T,\), got \(2, 9\)\. Pass one channel"),
        (np.zeros(0), 8000, ValueError, "`wave` must hold at least one sample"),
        (np.zeros(9, complex), 8000, TypeError, "`wave` must hold real numbers"),
        (np.array([0, np.nan]), 8000, ValueError, "`wave` must hold finite numbers only, got 1 NaN"),
        (np.zeros(9), 7200, ValueError, "`f_max_hz` must be below 3600 Hz, half of `sfreq`, got 3600. .* lower f_max"),
        (np.zeros(9), 0, ValueError, "`sfreq` must be a finite number > 0"),
    ],
)
def test_wrong_sounds_are_refused(wave, sfreq, error, text):
    with pytest.raises(error, match=text):
        cochlea_spikes(wave, sfreq)


@pytest.mark.parametrize(
    ("setting", "error", "text"),
    [
        ({"n_channels": 0}, ValueError, "`n_channels` must be a whole number >= 1"),
        ({"f_max_hz": 50.0}, ValueError, "`f_max_hz` must be a finite number > 100"),
        ({"filterbank": "mel"}, ValueError, "`filterbank` must be one of 'gammatone'"),
        ({"normalisation": "max"}, ValueError, "`normalisation` must be one of 'rms', 'peak', 'none'"),
        ({"compression": 0.0}, ValueError, "`compression` must be a finite number >= 0.1 and <= 1"),
        ({"adaptation": 1.5}, ValueError, "`adaptation` must be a finite number >= 0 and <= 1"),
        ({"thresholds": 0.2}, TypeError, "`thresholds` must be a tuple of at least one number"),
        ({"thresholds": ()}, TypeError, "`thresholds` must be a tuple of at least one number"),
        ({"thresholds": (0.1, 0.0)}, ValueError, r"`thresholds\[1\]` must be a finite number >= 1e-06"),
        ({"thresholds": (0.2, 0.1)}, ValueError, "`thresholds` must rise"),
        ({"membrane_ms": 0.0}, ValueError, "`membrane_ms` must be a finite number > 0"),
    ],
)
def test_wrong_settings_are_refused(setting, error, text):
    with pytest.raises(error, match=text):
        CochleaConfig(**setting)


def test_unknown_backend_is_refused_and_settings_survive_json():
    with pytest.raises(ValueError, match="`backend` must be one of 'numba', 'numpy'"):
        cochlea_spikes(np.zeros(9), 8000, backend="cuda")
    config = CochleaConfig(thresholds=(0.1, 0.4))
    record = dataclasses.asdict(config)
    assert CochleaConfig(**{**record, "thresholds": list(record["thresholds"])}) == config


def test_import_loads_neither_scipy_nor_numba():
    code = "import torch, sys; before = set(sys.modules); import neuroloaders.cochlea, neuroloaders.wav_folder; "
    code += "print({m.split('.')[0] for m in set(sys.modules) - before} & {'scipy', 'numba', 'tqdm', 'joblib'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
