"""Simulated listeners: what is planted is there, and the ideal observer reaches what theory says."""

import dataclasses

import numpy as np
import pytest
from fakes import speech
from scipy.stats import norm

from neurodecode.meeg.artefacts import with_artefacts
from neurodecode.meeg.simulate_speech import helmet, simulate_speech
from neurodecode.meeg.speech_windows import word_windows
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import ContinuousRecording, RecordingSet


def planted(made, recording):
    """The noiseless recording, from mixing and sound."""
    sound = made.events.where(recording=recording.name, kind="sound")
    heard = made.mixing[recording.subject] @ made.driving[str(sound.stimulus[0])]
    first = round((sound.start[0] + made.lag_s) * recording.sfreq)
    signal = np.zeros((recording.n_channels, recording.n_times))
    signal[:, first : first + heard.shape[1]] = heard
    return signal, slice(first, first + heard.shape[1])


def test_signal_has_the_variance_that_was_asked_for():
    made, _ = speech.study()
    for recording in made.recordings:
        signal, heard = planted(made, recording)
        ratio = signal[:, heard].var(axis=1).mean() / np.diag(made.noise_covariance).mean()
        assert ratio == pytest.approx(made.snr, rel=1e-3)


def test_the_rest_is_noise_of_the_stated_covariance_and_autocorrelation():
    made, _ = speech.study()
    noise = np.concatenate([r.data - planted(made, r)[0] for r in made.recordings], axis=1)
    found, stated = np.cov(noise), made.noise_covariance
    assert np.linalg.norm(found - stated) < 0.1 * np.linalg.norm(stated)
    neighbours = np.mean([np.corrcoef(row[1:], row[:-1])[0, 1] for row in noise])
    assert neighbours == pytest.approx(made.autocorrelation, abs=0.01)


def test_subjects_share_sounds_and_differ_in_how_sensors_see_them():
    made, _ = speech.study()
    first, second = made.mixing.values()
    assert np.linalg.norm(first - second) > 0.5 * np.linalg.norm(first)
    words = [made.events.where(recording=name, kind="word").extra["word"].tolist() for name in made.recordings.names]
    assert words[0] == words[1]


def test_the_same_generator_makes_the_same_study():
    small = {"n_sentences": 2, "n_subjects": 1, "n_sensors": 8, "sfreq": 60.0, "n_mels": 4}
    a, b, c = (simulate_speech(rng=np.random.default_rng(seed), **small) for seed in (1, 1, 2))
    assert np.array_equal(a.recordings[0].data, b.recordings[0].data)
    assert a.recordings[0].data.shape != c.recordings[0].data.shape


def test_every_word_of_a_sentence_is_an_event_inside_it():
    made, _ = speech.study()
    events = made.events.where(recording=made.recordings.names[0])
    words = events.where(kind="word")
    for start, duration, text in zip(
        *(getattr(events.where(kind="sentence"), c) for c in ("start", "duration", "stimulus")), strict=True
    ):
        inside = (words.start >= start - 1e-9) & (words.start < start + duration)
        assert " ".join(words.extra["word"][inside]) == text


def test_sensors_surround_the_head_and_have_places_in_the_unit_square():
    info, positions = helmet(40)
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    assert np.linalg.norm(places - [0, 0, 0.04], axis=1) == pytest.approx(0.11)
    assert positions.min() == 0
    assert positions.max() == 1
    assert len(np.unique(positions, axis=0)) == 40


def test_ideal_observer_tells_two_segments_apart_as_often_as_their_distance_says():
    # Many trials of two windows of sound, in noise of known covariance; d is chosen by the strength of the signal.
    made, _ = speech.study(n_sentences=20)
    rng, n, sfreq, n_times, gap = np.random.default_rng(0), 1500, 60.0, 60, 90
    where = np.array([20.0, 31.0])
    drive = made._whitened(np.stack([made._drive("story-0", w, 0, n_times) for w in where]))
    mixing = made.mixing["S01"]
    metric = mixing.T @ np.linalg.solve(made.noise_covariance, mixing)
    step = drive[0] - drive[1]
    d = np.sqrt(np.einsum("ft,fg,gt->", step, metric, step))
    mixing = mixing * (1.2 / d)
    which, rho = rng.integers(0, 2, n), made.autocorrelation
    noise = rng.standard_normal((len(mixing), n * gap))
    noise[:, 1:] *= np.sqrt(1 - rho**2)
    for t in range(1, noise.shape[1]):
        noise[:, t] += rho * noise[:, t - 1]
    data = np.linalg.cholesky(made.noise_covariance) @ noise
    for k in range(n):
        data[:, k * gap : k * gap + n_times] += mixing @ made._drive("story-0", where[which[k]], 0, n_times)
    recording = ContinuousRecording(
        data=data.astype(np.float32), sfreq=sfreq, ch_names=made.recordings[0].ch_names, subject="S01", run="0"
    )
    start = np.arange(n) * gap / sfreq
    trials = EventTable(start=start, recording="S01_0", stimulus="story-0", extra={"stimulus_start": where[which]})
    copy = dataclasses.replace(made, recordings=RecordingSet(recording), mixing={"S01": mixing})
    found = copy.ideal(trials, tmin=0.0, tmax=(n_times - 1) / sfreq)
    assert found.n_candidates == 2
    expected = norm.cdf(0.6)
    assert abs(found.accuracy(1) - expected) < 3 * np.sqrt(expected * (1 - expected) / n)


def test_ideal_observer_is_at_chance_without_signal_and_perfect_with_much():
    accuracies = []
    for snr in (0.0, 0.001, 0.3):
        made, split = speech.study(n_sentences=20, snr=snr)
        trials = word_windows(made.recordings, made.events, split, "test", **speech.ENDS)
        accuracies.append(made.ideal(trials, **speech.ENDS).accuracy(1))
        chance = made.ideal(trials, **speech.ENDS).chance(1)
    # Without a signal all candidates are equal.
    assert accuracies[0] == pytest.approx(chance)
    assert chance < accuracies[1] < accuracies[2] == 1.0


def test_a_lag_between_samples_is_refused():
    with pytest.raises(ValueError, match=r"`lag_s` must be a whole number of samples of 0\.0166667 s, got 0\.16\."):
        simulate_speech(rng=np.random.default_rng(0), sfreq=60.0, lag_s=0.16)


def test_artefacts_are_rare_large_and_leave_the_original_as_it_was():
    made, _ = speech.study()
    before = [recording.data.copy() for recording in made.recordings]
    jumped = with_artefacts(made.recordings, rng=np.random.default_rng(0), per_minute=10.0, size=(50, 500), share=0.2)
    for recording, old, new in zip(made.recordings, before, jumped, strict=True):
        assert np.array_equal(recording.data, old)
        low, high = np.quantile(old, [0.25, 0.75], axis=1)
        added = np.abs(new.data - old) / (high - low)[:, None]
        touched = added > 0.01
        assert 40 < added.max() < 501
        assert 0 < touched.any(axis=0).mean() < 0.1
        assert touched.any(axis=1).mean() <= 1
    none = with_artefacts(made.recordings, rng=np.random.default_rng(0), per_minute=0.0)
    assert np.array_equal(none[0].data, before[0])
    with pytest.raises(ValueError, match="size"):
        with_artefacts(made.recordings, rng=np.random.default_rng(0), size=(5, 1))
    with pytest.raises(ValueError, match="share"):
        with_artefacts(made.recordings, rng=np.random.default_rng(0), share=0.0)
