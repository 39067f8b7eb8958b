"""Windows are the epochs of MNE: the same samples, baseline and selection, on simulated and on recorded data."""

import mne
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.events_table import EventTable
from neuroloaders.recordings import ContinuousRecording
from neuroloaders.window_loader import WindowLoader

pytestmark = pytest.mark.reference


def recording_of(raw):
    data = raw.get_data(verbose="error")
    return ContinuousRecording(data=data, sfreq=raw.info["sfreq"], ch_names=tuple(raw.ch_names), subject="01")


def epochs_of(raw, samples, **window):
    """Return MNE's epochs, loaded only when asked for, and the events they are left with."""
    table = np.stack([samples + raw.first_samp, 0 * samples, 0 * samples + 1], axis=1)
    epochs = mne.Epochs(raw, table, **window, picks="all", reject_by_annotation=False, verbose="error")
    return epochs.get_data(verbose="error"), epochs.selection


def simulated(sfreq, seconds=20, n_channels=8):
    """EEG in V: drifts and offsets that are a hundred times the noise."""
    rng = np.random.default_rng(0)
    noise = 1e-5 * rng.standard_normal((n_channels, round(seconds * sfreq)))
    data = noise + np.cumsum(noise, axis=1) + 1e-3 * rng.standard_normal((n_channels, 1))
    # What float32 holds, so that all differences are of the arithmetic and not of the storage.
    return mne.io.RawArray(
        data.astype(np.float32).astype(float), mne.create_info(n_channels, sfreq, "eeg"), verbose="error"
    )


@settings(max_examples=20, deadline=None)
@given(
    sfreq=st.sampled_from([100.0, 120.0, 250.0, 512.5]),
    tmin=st.floats(-0.6, -0.05),
    length=st.floats(0.7, 1.2),
    baseline=st.sampled_from([None, (None, 0), (0, None), (None, None)]),
    seed=st.integers(0, 100),
)
def test_windows_of_simulated_data_are_the_epochs(sfreq, tmin, length, baseline, seed):
    raw = simulated(sfreq)
    # All over the recording: some windows leave it, and both must agree on which.
    samples = np.unique(np.random.default_rng(seed).integers(0, raw.n_times, 40))
    window = {"tmin": tmin, "tmax": tmin + length, "baseline": baseline}
    want, kept = epochs_of(raw, samples, **window)
    events = EventTable(start=samples / sfreq, recording="01")
    loader = WindowLoader(recording_of(raw), events, **window, outside="drop")
    inside = np.isin(kept, loader.rows)
    # Where tmin is not a whole number of samples, MNE takes a window that begins up to half a sample too early.
    early = samples[kept] / sfreq + tmin < -1e-6 / sfreq
    np.testing.assert_array_equal(inside, ~early)
    assert set(loader.rows) <= set(kept)
    got = loader.windows(range(loader.n_samples)).x
    assert abs(got.double().numpy() - want[inside]).max() <= 1e-6 * abs(want).max()


@pytest.mark.parametrize("tmin", [-0.5, -0.2, 0.0])
def test_same_events_are_kept_on_the_grid(tmin):
    raw = simulated(120.0)
    samples = np.arange(raw.n_times)
    want, kept = epochs_of(raw, samples, tmin=tmin, tmax=1.0, baseline=None)
    loader = WindowLoader(
        recording_of(raw), EventTable(start=samples / 120, recording="01"), tmin=tmin, tmax=1.0, outside="drop"
    )
    np.testing.assert_array_equal(loader.rows, kept)
    assert loader.n_outside == raw.n_times - len(kept)
    np.testing.assert_allclose(loader.times, np.arange(len(loader.times)) / 120 + tmin, atol=1e-12)
    assert torch.equal(loader.windows(range(0, len(kept), 50)).x, torch.from_numpy(want[::50]).float())


def test_windows_of_recorded_meg_are_the_epochs(shared_data):
    raw = mne.io.read_raw_fif(shared_data / "mne_io" / "exported4D_linux_raw.fif", verbose="error")
    raw.pick("data", exclude=())  # the others, as triggers, MNE leaves without a baseline
    recording = recording_of(raw)
    sfreq = raw.info["sfreq"]
    n = raw.n_times
    samples = np.arange(0, n, max(n // 60, 1))
    window = {"tmin": -20 / sfreq, "tmax": 60 / sfreq, "baseline": (None, 0)}
    want, kept = epochs_of(raw, samples, **window)
    events = EventTable(start=samples / sfreq, recording="01")
    loader = WindowLoader(recording, events, **window, outside="drop", bad_channels="keep", batch_size=16)
    np.testing.assert_array_equal(loader.rows, kept)
    assert len(kept) > 10
    got = torch.cat([batch.x for batch in loader]).double().numpy()
    # Each channel in its own unit. Stored as float32, a sample is off by up to 6e-8 of its own size.
    size = abs(recording.data).max(axis=1).clip(1e-30)[:, None]
    assert (abs(got - want) / size).max() < 1e-6
    assert abs(want).max() > 0
