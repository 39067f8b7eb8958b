"""Simulated viewers: what is planted is there, and the ideal observer reaches what theory says."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from neurodecode.meeg.simulate_images import drawn_images, simulate_images
from neurodecode.meeg.simulated_head import BRAIN_RADIUS, CENTRE, dipole_fields, helmet

SMALL = {"n_sensors": 12, "n_sources": 4, "n_subjects": 2, "sfreq": 60.0}


def study(seed=0, n_categories=10, n_exemplars=4, n_features=6, **settings):
    names, categories, features = drawn_images(n_categories, n_exemplars, n_features, rng=np.random.default_rng(seed))
    options = {"categories": categories, **SMALL, **settings}
    return simulate_images(names, features, rng=np.random.default_rng(seed + 1), **options)


def planted(made, recording):
    """The noiseless recording of a study without jitter, from mixing, sources and images."""
    signal = np.zeros((recording.n_channels, recording.n_times))
    events = made.events.where(recording=recording.name)
    for start, name in zip(events.start, events.stimulus, strict=True):
        first = round(start * recording.sfreq)
        latent = made.readout @ made.driving[name]
        signal[:, first : first + made.time_course.shape[1]] += made.mixing[recording.subject] @ (
            latent[:, None] * made.time_course
        )
    return signal


def test_signal_has_the_variance_that_was_asked_for():
    made = study(n_repeats=1, snr=0.3)
    for subject in made.recordings.subjects:
        variances = []
        for recording in made.recordings.of_subjects([subject]):
            events = made.events.where(recording=recording.name)
            first, last = round(made.onset_s * 60), round(made.offset_s * 60)
            inside = np.concatenate([round(s * 60) + np.arange(first, last + 1) for s in events.start])
            variances.append((planted(made, recording)[:, inside] ** 2).mean(axis=1))
        # Of images seen once each, the latent variance is the population's; the arches are zero at both ends.
        n_inside, n_active = last + 1 - first, int(made.time_course.any(axis=0).sum())
        found = np.average(variances, axis=0).mean() / np.diag(made.noise_covariance).mean() * n_inside / n_active
        assert found == pytest.approx(made.snr, rel=0.02)


def test_the_rest_is_noise_of_the_stated_covariance_and_autocorrelation():
    made = study(n_categories=30, n_repeats=2, snr=0.5)
    noise = np.concatenate([r.data - planted(made, r) for r in made.recordings], axis=1)
    found, stated = np.cov(noise), made.noise_covariance
    assert np.linalg.norm(found - stated) < 0.1 * np.linalg.norm(stated)
    neighbours = np.mean([np.corrcoef(row[1:], row[:-1])[0, 1] for row in noise])
    assert neighbours == pytest.approx(made.autocorrelation, abs=0.01)


def test_nothing_is_planted_before_onset_and_after_offset():
    made = study(snr=1.0)
    course, first, last = made.time_course, round(made.onset_s * 60), round(made.offset_s * 60)
    assert not course[:, :first].any()
    assert course[:, first + 1 : last].any(axis=0).all()
    assert np.abs(course[:, last:]).max() < 1e-12
    for tmin, tmax in ((-0.4, made.onset_s), (made.offset_s, 1.0)):
        # All images are as likely, but for the rounding of sines: one in 40 is right by chance.
        found = made.ideal(made.events, tmin=tmin, tmax=tmax)
        assert found.accuracy(1) == pytest.approx(1 / 40, abs=0.03)
    assert made.ideal(made.events, tmin=-0.1, tmax=0.6).accuracy(1) > 0.5


def test_ideal_observer_tells_two_images_apart_as_often_as_their_distance_says():
    names, _, features = drawn_images(2, 1, 6, rng=np.random.default_rng(3))
    made = simulate_images(
        names, features, rng=np.random.default_rng(4), n_repeats=1500, n_runs=1, snr=0.01, **{**SMALL, "n_subjects": 1}
    )
    window = {"tmin": -0.1, "tmax": 0.6}
    found = made.ideal(made.events, **window)
    # The distance of the two responses after whitening: over sensors, and from sample to sample.
    step = made.readout @ (made.driving[names[0]] - made.driving[names[1]])
    difference = made.mixing["S01"] @ (step[:, None] * made.time_course)
    n_before = 6
    padded = np.concatenate([np.zeros((12, n_before)), difference, np.zeros((12, 60))], axis=1)[:, : n_before + 37]
    rho = made.autocorrelation
    n = padded.shape[1]
    covariance = np.kron(made.noise_covariance, rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))))
    distance = np.sqrt(padded.ravel() @ np.linalg.solve(covariance, padded.ravel()))
    expected = norm.cdf(distance / 2)
    assert 0.6 < expected < 0.95
    assert found.accuracy(1) == pytest.approx(expected, abs=3 * np.sqrt(expected * (1 - expected) / len(made.events)))


def test_ideal_observer_gains_from_repetitions():
    made = study(n_repeats=4, snr=0.03)
    single, together = (made.ideal(made.events, tmin=-0.1, tmax=0.6, average=average) for average in (False, True))
    assert together.n_candidates == single.n_candidates == 40
    assert together.accuracy(1) > single.accuracy(1) + 0.1


def test_knowing_how_latencies_vary_is_worth_something():
    made = study(n_repeats=8, snr=0.5, jitter_s=0.05)
    assert made.jitter.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    unaware = dataclasses.replace(made, jitter=np.array([0]))
    knows, does_not = (m.ideal(made.events, tmin=-0.1, tmax=0.65).accuracy(1) for m in (made, unaware))
    assert knows > does_not + 0.05


def test_every_subject_sees_every_image_as_often_as_asked_and_in_an_order_of_its_own():
    repeats = np.arange(40) % 3
    made = study(n_repeats=repeats)
    orders = []
    for subject in made.recordings.subjects:
        shown = np.concatenate(
            [made.events.where(recording=r.name).stimulus for r in made.recordings.of_subjects([subject])]
        )
        found, counts = np.unique(shown, return_counts=True)
        assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == {
            f"thing-{k // 4:04d}/{k % 4:02d}": int(n) for k, n in enumerate(repeats) if n
        }
        orders.append(shown.tolist())
    assert orders[0] != orders[1]
    categories = [name.split("/")[0] for name in made.events.stimulus]
    assert categories == made.events.split_group.tolist()


def test_the_same_generator_makes_the_same_study():
    a, b, c = (study(seed=seed, jitter_s=0.05) for seed in (1, 1, 2))
    assert np.array_equal(a.recordings[0].data, b.recordings[0].data)
    assert a.recordings[0].data.shape != c.recordings[0].data.shape


def test_dipoles_stay_inside_the_brain_however_many_are_drawn():
    made = study(n_subjects=20, n_sources=12, n_categories=2)
    assert all(np.isfinite(mixing).all() for mixing in made.mixing.values())
    info, _ = helmet(12)
    rim = CENTRE + np.array([[0.0, -BRAIN_RADIUS, 0.0]])
    assert np.isfinite(dipole_fields(info, rim, np.random.default_rng(0))).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing_s": (0.5, 0.6)}, "overlap"),
        ({"spacing_s": (2.0, 1.0)}, "spacing_s"),
        ({"onset_s": 0.01, "jitter_s": 0.1}, "onset_s"),
        ({"offset_s": 0.05}, "offset_s"),
        ({"n_repeats": [1, 2]}, "n_repeats"),
        ({"n_repeats": 0}, "n_repeats"),
        ({"snr": -1.0}, "snr"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        study(**settings)


def test_ideal_observer_needs_the_true_image_among_candidates():
    made = study()
    with pytest.raises(ValueError, match="candidates"):
        made.ideal(made.events, tmin=-0.1, tmax=0.6, candidates=["nothing"])
