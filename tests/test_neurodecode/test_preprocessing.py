"""Filters do what their formula says, and windows with artefacts are left out."""

import numpy as np
import pytest
from scipy.signal import butter, sosfreqz

from neurodecode.meeg.preprocessing import PHASES, bandpass, quiet_windows
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import ContinuousRecording, RecordingSet

SFREQ = 256.0


def recording(data, **options):
    settings = {"sfreq": SFREQ, "ch_names": tuple("ABCD")[: len(data)], "subject": "1", **options}
    return ContinuousRecording(data=np.asarray(data, dtype=np.float32), **settings)


@pytest.mark.parametrize(("phase", "passes"), [("zero", 2), ("causal", 1)])
@pytest.mark.parametrize("frequency", [0.5, 4.0, 12.0, 30.0, 60.0])
def test_sines_are_weakened_as_the_response_of_the_filter_says(phase, passes, frequency):
    t = np.arange(round(20 * SFREQ)) / SFREQ
    (out,) = bandpass(recording([np.sin(2 * np.pi * frequency * t)]), 2.0, 20.0, phase=phase)
    sos = butter(4, [2.0, 20.0], "bandpass", fs=SFREQ, output="sos")
    gain = np.abs(sosfreqz(sos, worN=[frequency], fs=SFREQ)[1][0]) ** passes
    middle = out.data[0, round(8 * SFREQ) : round(12 * SFREQ)]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(gain, rel=1e-3, abs=1e-4)


def test_causal_filter_knows_nothing_of_what_comes_and_zero_phase_keeps_its_place():
    impulse = np.zeros(2048)
    impulse[1024] = 1
    (causal,), (zero,) = (bandpass(recording([impulse]), 2.0, 20.0, phase=phase) for phase in ("causal", "zero"))
    assert np.abs(causal.data[0, :1024]).max() == 0
    assert np.argmax(np.abs(zero.data[0])) == 1024
    np.testing.assert_allclose(zero.data[0, 1024 - 100 : 1024], zero.data[0, 1024 + 100 : 1024 : -1], atol=1e-6)


def test_an_offset_makes_no_step():
    (out,) = bandpass(recording([np.full(1000, 5e3)]), 2.0, 20.0, phase="causal")
    assert np.abs(out.data).max() < 1e-3


def test_every_second_sample_of_the_same_filter_and_picked_channels():
    rng = np.random.default_rng(0)
    raw = recording(rng.standard_normal((3, 999)), positions=np.arange(6).reshape(3, 2) / 10, bads=("B",))
    (whole,), (half,) = (bandpass(raw, 2.0, 20.0, every=n, picks=picks) for n, picks in ((1, None), (2, ["C", "B"])))
    assert np.array_equal(half.data, whole.data[[2, 1], ::2])
    assert (half.sfreq, half.ch_names, half.bads, half.name) == (128.0, ("C", "B"), ("B",), raw.name)
    np.testing.assert_allclose(half.positions, raw.positions[[2, 1]])
    assert "2 to 20 Hz" in half.provenance


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"l_freq": 0.0, "h_freq": 20.0}, "l_freq"),
        ({"l_freq": 20.0, "h_freq": 2.0}, "h_freq"),
        ({"l_freq": 2.0, "h_freq": 60.0, "every": 2}, "51.2 Hz"),
        ({"l_freq": 2.0, "h_freq": 20.0, "picks": ["Z"]}, "'Z'"),
        ({"l_freq": 2.0, "h_freq": 20.0, "phase": "linear"}, "phase"),
    ],
)
def test_bands_that_cannot_be_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        bandpass(recording(np.zeros((2, 500))), **options)


def test_phases_are_those_that_are_tested():
    assert set(PHASES) == {"zero", "causal"}


def test_windows_beyond_the_limit_or_the_recording_are_left_out():
    data = np.random.default_rng(0).normal(0, 0.1, (2, 1280))
    data[1, 600] = 3.0
    data[0] += 100.0  # an offset, which the baseline takes away
    raw = RecordingSet(recording(data))
    events = EventTable(start=np.array([0.1, 1.0, 2.2, 3.0, 4.9]), recording=raw.names[0], kind="x", stimulus="a")
    kept = quiet_windows(raw, events, tmin=-0.2, tmax=0.4, limit=1.0, baseline=(None, 0.0))
    assert kept.start.tolist() == [1.0, 3.0]
