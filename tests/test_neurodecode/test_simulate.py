"""The simulated subject: what is planted comes out, and decoders come as near to their bound as they can."""

from __future__ import annotations

import numpy as np
import pytest

from neurodecode.fmri.betas import betas_from_bold
from neurodecode.fmri.decoder_ceiling import decoder_ceiling_r2, wiener_decoder
from neurodecode.fmri.photographs import PHOTOGRAPHS, photographs
from neurodecode.fmri.simulate import ScanDesign, SimulatedSubject, simulate_subject
from neurodecode.ridge import MultiTargetRidge
from neurodecode.scoring import noise_ceiling


def correlated_features(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features and the covariance of the population."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d, d))
    covariance = mixing @ mixing.T / d + 0.3 * np.eye(d)
    return rng.multivariate_normal(np.zeros(d), covariance, size=n), covariance


def r2(want: np.ndarray, got: np.ndarray) -> np.ndarray:
    return 1 - ((want - got) ** 2).sum(0) / ((want - want.mean(0)) ** 2).sum(0)


# --- betas, directly ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_noise_ceiling_that_was_chosen_comes_out(correlation: float) -> None:
    features, _ = correlated_features(3000, 5)
    chosen = np.array([0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0] * 2)
    subject = simulate_subject(
        features,
        rng=np.random.default_rng(1),
        n_voxels=16,
        n_repeats=3,
        noise_ceiling=chosen,
        noise_correlation=correlation,
        signal_percent=0.7,
        bold=False,
    )
    betas = subject.betas
    assert len(betas) == 9000
    found = noise_ceiling(betas.betas, betas.stimuli)
    # The estimate is 1 - 1/F of an analysis of variance of 3000 stimuli and 3 repeats, whose F has a relative standard
    # error of sqrt(2/2999 + 2/6000) = 0.032.
    assert (abs(found.percent / 100 - chosen) <= 3.5 * 0.032 * (1 - chosen) + 1e-9).all()
    seen = chosen > 0
    np.testing.assert_allclose(subject.responses[:, seen].std(axis=0, ddof=1), 0.7, rtol=1e-9)
    assert (subject.responses[:, ~seen].std(axis=0) < 1e-12).all()
    noise = betas.betas - np.tile(subject.responses, (3, 1))
    got = np.corrcoef(noise[:, :7], rowvar=False)[np.triu_indices(7, 1)]
    np.testing.assert_allclose(got, correlation, atol=0.05)
    np.testing.assert_allclose(np.cov(noise, rowvar=False), subject.noise_covariance(1), atol=0.5, rtol=0.1)


def test_regions_are_driven_by_their_features_only() -> None:
    features, _ = correlated_features(400, 6)
    subject = simulate_subject(features, rng=np.random.default_rng(0), n_voxels=11, noise_ceiling=0.8, bold=False)
    assert {name: int(roi.sum()) for name, roi in subject.betas.rois.items()} == {"early": 6, "higher": 5}
    assert (subject.weights[3:, subject.rois["early"]] == 0).all()
    assert (subject.weights[:3, subject.rois["early"]] != 0).all()
    averaged = subject.betas.average()
    fitted = MultiTargetRidge(1e-6).fit(features, averaged.betas).coef_
    np.testing.assert_allclose(fitted, subject.weights.T, atol=0.15)
    own = simulate_subject(
        features, rng=np.random.default_rng(0), n_voxels=6, regions={"a": [5], "b": [0, 1], "c": range(6)}, bold=False
    )
    assert [np.flatnonzero(own.weights[:, j]).tolist() for j in (0, 2, 4)] == [[5], [0, 1], [0, 1, 2, 3, 4, 5]]


def test_same_generator_gives_the_same_subject() -> None:
    features, _ = correlated_features(10, 2)
    scan = ScanDesign(n_runs=2)
    a, b = (simulate_subject(features, rng=np.random.default_rng(3), n_voxels=5, scan=scan) for _ in range(2))
    for x, y in zip(a.bold, b.bold, strict=True):
        assert (np.asanyarray(x.dataobj) == np.asanyarray(y.dataobj)).all()


# --- the bound of decoders ----------------------------------------------------------------------------------------


def test_ceiling_equals_the_textbook_form_and_the_error_of_the_wiener_decoder() -> None:
    features, covariance = correlated_features(200_000, 3)
    rng = np.random.default_rng(1)
    weights, mixing = rng.standard_normal((3, 8)), rng.standard_normal((8, 8))
    for noise in (rng.uniform(1, 4, 8), mixing @ mixing.T + np.eye(8)):
        full = np.diag(noise) if noise.ndim == 1 else noise
        gain = covariance @ weights @ np.linalg.inv(weights.T @ covariance @ weights + full)
        want = np.diag(gain @ weights.T @ covariance) / np.diag(covariance)
        got = decoder_ceiling_r2(covariance, weights, noise)
        np.testing.assert_allclose(got, want, rtol=1e-10)
        decoder = wiener_decoder(covariance, weights, noise)
        np.testing.assert_allclose(decoder, gain.T, rtol=1e-9, atol=1e-12)
        betas = features @ weights + rng.multivariate_normal(np.zeros(8), full, size=len(features))
        np.testing.assert_allclose(r2(features, betas @ decoder), want, atol=0.005)


def test_ceiling_of_features_that_repeat_each_other() -> None:
    one = decoder_ceiling_r2([[2.0]], [[3.0, 1.0]], [1.0, 1.0])[0]
    got = decoder_ceiling_r2([[2.0, 2.0, 0], [2.0, 2.0, 0], [0, 0, 0]], [[3.0, 1.0], [0, 0], [1, 1]], [1.0, 1.0])
    np.testing.assert_allclose(got[:2], one, rtol=1e-12)
    assert np.isnan(got[2])


@pytest.mark.parametrize("correlation", [0.0, 0.1])
def test_ridge_comes_within_5_percent_of_the_analytic_ceiling(correlation: float) -> None:
    features, covariance = correlated_features(8000, 10)
    train, test = features[:4000], features[4000:]
    rng = np.random.default_rng(2)
    subject = simulate_subject(
        train,
        rng=rng,
        n_voxels=80,
        noise_ceiling=rng.uniform(0.05, 0.5, 80),
        noise_correlation=correlation,
        bold=False,
    )
    ceiling = subject.decoder_ceiling(covariance)
    assert (ceiling > 0.5).all()
    assert (ceiling < 0.95).all()
    ridge = MultiTargetRidge(select="loo").fit(subject.betas.average().betas, train)
    new = subject.respond(test, rng=rng).average()
    ratio = r2(test, ridge.predict(new.betas)) / ceiling
    assert (ratio > 0.95).all()
    # 4000 stimuli: the sampling error of R2 is about 0.01.
    assert (ratio < 1.03).all()
    # A ceiling for one trial would be lower, and is that of what one trial lets decode.
    single = subject.respond(test, n_repeats=1, rng=rng)
    decoder = wiener_decoder(covariance, subject.weights, subject.noise_covariance(1))
    got = r2(test, (single.betas - subject.offset) @ decoder)
    np.testing.assert_allclose(got, subject.decoder_ceiling(covariance, repeats=1), atol=0.03)


# --- BOLD ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scanned() -> SimulatedSubject:
    features, _ = correlated_features(40, 4)
    return simulate_subject(
        features,
        rng=np.random.default_rng(5),
        n_voxels=60,
        n_repeats=4,
        noise_ceiling=0.6,
        stimuli=np.array([f"img{i:02d}" for i in range(40)]),
        scan=ScanDesign(n_runs=4, spacing_s=6.0),
    )


def test_betas_of_simulated_bold_have_the_noise_ceiling_that_was_chosen(scanned: SimulatedSubject) -> None:
    assert scanned.betas is None
    betas = betas_from_bold(scanned.bold, scanned.events, mask=scanned.mask_image, stimulus_column="stimulus")
    assert betas.betas.shape == (160, 60)
    assert (betas.mask == scanned.mask).all()
    noise = betas.betas - scanned.responses[np.searchsorted(scanned.stimuli, betas.stimuli)]
    # 160 trials of 60 voxels: a standard error of 0.015, and what the estimate of the autocorrelation costs.
    assert abs((noise**2).mean(axis=0) / scanned.noise_sd**2).mean() == pytest.approx(1, abs=0.07)
    # The estimate from 40 stimuli is biased by about -(1 - 0.6) 2/39, and noise of neighbouring trials is correlated.
    found = noise_ceiling(betas.betas, betas.stimuli).percent / 100
    assert abs(found.mean() - 0.6) < 0.08
    averaged = betas.average()
    responses = scanned.responses[np.searchsorted(scanned.stimuli, averaged.stimuli)]
    # The squared correlation of averaged with true responses is the same share.
    r = [np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(averaged.betas.T, responses.T, strict=True)]
    assert abs(np.mean(r) - 0.6) < 0.08
    np.testing.assert_allclose(averaged.betas.mean(), responses.mean(), rtol=0.05)


def test_noise_of_simulated_bold_is_autoregressive_around_a_drift(scanned: SimulatedSubject) -> None:
    features = scanned.features
    rho = 0.5
    scan = ScanDesign(n_runs=1, autocorrelation=rho, drift_percent=0.0)
    rng = np.random.default_rng(0)
    quiet = simulate_subject(features, rng=rng, n_voxels=40, noise_ceiling=0.0, signal_percent=1e-9, scan=scan)
    values = np.asanyarray(quiet.bold[0].dataobj)[quiet.mask].astype(np.float64)
    loud = simulate_subject(features, rng=rng, n_voxels=40, noise_ceiling=0.0, signal_percent=1.0, scan=scan)
    noise = np.asanyarray(loud.bold[0].dataobj)[loud.mask].astype(np.float64)
    np.testing.assert_allclose(values, 1000, atol=0.01)
    # Voxels without signal respond to each trial alike; the mean over voxels takes that away.
    noise -= noise.mean(axis=1, keepdims=True)
    noise -= noise.mean(axis=0)
    got = (noise[:, 1:] * noise[:, :-1]).sum() / (noise**2).sum()
    assert abs(got - rho) < 0.03
    steps = np.diff(noise, axis=1).std()
    scan = ScanDesign(n_runs=1, drift_percent=2.0)
    drift = simulate_subject(features, rng=rng, n_voxels=40, noise_ceiling=0.0, signal_percent=1e-9, scan=scan)
    slow = np.asanyarray(drift.bold[0].dataobj)[drift.mask].astype(np.float64)
    assert slow.std(axis=1).mean() > 20
    assert np.diff(slow, axis=1).std() < 0.1 * slow.std() < steps * 10


def test_noise_free_bold_gives_the_responses_back() -> None:
    features, _ = correlated_features(12, 4)
    subject = simulate_subject(
        features,
        rng=np.random.default_rng(0),
        n_voxels=7,
        n_repeats=1,
        noise_ceiling=1.0,
        scan=ScanDesign(n_runs=1, spacing_s=10.0),
    )
    options = {"mask": subject.mask_image, "stimulus_column": "stimulus", "noise_model": "ols", "scale": "none"}
    betas = betas_from_bold(subject.bold, subject.events, **options)
    # BOLD is in float32 around 1000, where a step is 6e-5; betas are in units of the mean, 1000.
    np.testing.assert_allclose(betas.betas / 10, subject.responses[betas.stimuli], atol=1e-3)


# --- pictures -----------------------------------------------------------------------------------------------------


def test_photographs_share_no_pixel_between_train_and_test() -> None:
    for seed in range(3):
        found = photographs(300, rng=np.random.default_rng(seed), size=16, test_fraction=0.3)
        assert found.images.shape == (300, 3, 16, 16)
        assert found.images.dtype == np.float32
        assert 0 <= found.images.min() < 0.1 < 0.9 < found.images.max() <= 1
        assert found.is_test.sum() == 90
        assert set(found.sources) == set(PHOTOGRAPHS)
        for name in PHOTOGRAPHS:
            sides = []
            for test in (False, True):
                covered = np.zeros((427, 640), dtype=bool)
                for box, source, side in zip(found.boxes, found.sources, found.is_test, strict=True):
                    if source == name and side == test:
                        left, top, right, bottom = box
                        covered[top:bottom, left:right] = True
                sides.append(covered)
            assert not (sides[0] & sides[1]).any()
            assert sides[0].mean() > 0.4
            assert sides[1].mean() > 0.05


def test_captions_say_what_is_on_a_crop() -> None:
    found = photographs(200, rng=np.random.default_rng(0), size=16)
    orange = np.array([caption == "orange petals of a dahlia" for caption in found.captions])
    green = np.array([caption == "dark green leaves" for caption in found.captions])
    assert orange.sum() > 3
    assert green.sum() > 3
    redness = (found.images[:, 0] - found.images[:, 2]).mean(axis=(1, 2))
    assert redness[orange].min() > redness[green].max()
    assert len(set(found.captions)) > 10


def test_photographs_in_a_size_are_crops_of_the_original() -> None:
    from sklearn.datasets import load_sample_image

    found = photographs(20, rng=np.random.default_rng(0), size=32)
    for image, box, source in zip(found.images, found.boxes, found.sources, strict=True):
        left, top, right, bottom = box
        crop = load_sample_image(f"{source}.jpg")[top:bottom, left:right] / 255
        np.testing.assert_allclose(image.mean(axis=(1, 2)), crop.mean(axis=(0, 1)), atol=0.01)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((5, 2))}, r"vary over stimuli in the columns of 'early'"),
        ({"features": np.zeros((2, 2))}, r"at least 3 stimuli"),
        ({"features": np.full((5, 2), np.nan)}, r"hold finite numbers"),
        ({"noise_ceiling": 60}, r"`noise_ceiling` must lie in \[0, 1\], got 60"),
        ({"noise_ceiling": [0.1, 0.2]}, r"`noise_ceiling` must have shape \(4,\)"),
        ({"noise_correlation": 1.0}, r"`noise_correlation` must be a finite number >= 0 and < 1"),
        ({"regions": {"a": [2]}}, r"regions\['a'\].*0\.\.1, got \(2,\)"),
        ({"regions": {}}, r"name at least one region"),
        ({"n_voxels": 1}, r"`n_voxels` must be at least 2, the number of regions"),
        ({"stimuli": [0, 0, 1, 2, 3]}, r"be unique, one for each row of `features`, got 4 of 5"),
        ({"scan": ScanDesign(n_runs=40)}, r"`n_runs` must be at most 15"),
    ],
)
def test_what_cannot_be_simulated_is_refused(change: dict, message: str) -> None:
    given = {"features": np.random.default_rng(0).standard_normal((5, 2)), "n_voxels": 4}
    with pytest.raises(ValueError, match=message):
        simulate_subject(**given | change, rng=np.random.default_rng(0))


def test_bounds_that_do_not_exist_are_refused() -> None:
    for arguments, message in (
        (([[1.0]], [[1.0, 1.0]], [1.0, 0.0]), r"`noise` must be > 0 for each voxel"),
        (([[1.0]], [[1.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]), r"`noise` must be positive definite"),
        (([[1.0, 0.5], [0.1, 1.0]], [[1.0], [1.0]], [1.0]), r"`covariance` must be symmetric"),
        (([[1.0]], [[1.0], [1.0]], [1.0]), r"`covariance` must have shape \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder_ceiling_r2(*arguments)
    with pytest.raises(ValueError, match=r"leave a picture of 3 on each side"):
        photographs(3, rng=np.random.default_rng(0), test_fraction=0.01)
    with pytest.raises(ValueError, match=r"`tail_s` must be a finite number >= 10"):
        ScanDesign(tail_s=2)
