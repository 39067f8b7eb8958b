"""Noise ceilings recovered from simulations, and scores of targets against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

from neurodecode.scoring import ceiling_from_ncsnr, noise_ceiling, score_targets, split_half_ceiling
from neurodecode.scoring.ceiling import VARIANCES
from neuroloaders.betas import BetaSet

# Standard deviations of the signal, ten voxels of each; noise is 1.5.
SIGNALS, NOISE = np.repeat([0.5, 1.0, 2.0], 10), 1.5


def responses(repeats, seed=0, n=3000):
    rng = np.random.default_rng(seed)
    stimuli = rng.permutation(np.repeat(np.arange(n), np.resize(repeats, n)))
    signal = rng.standard_normal((n, len(SIGNALS))) * SIGNALS
    return 7 + signal[stimuli] + NOISE * rng.standard_normal((len(stimuli), len(SIGNALS))), stimuli, signal


def by_signal(x):
    return x.reshape(3, 10).mean(1)


@pytest.mark.parametrize("variances", VARIANCES)
@pytest.mark.parametrize("repeats", [3, [1, 2, 3, 3]], ids=["equal", "mixed"])
def test_ncsnr_is_recovered_within_three_percent(repeats, variances):
    betas, stimuli, _ = responses(repeats)
    found = noise_ceiling(betas, stimuli, variances=variances, chunk_size=7)
    np.testing.assert_allclose(by_signal(found.ncsnr), np.array([0.5, 1, 2]) / NOISE, rtol=0.03)
    np.testing.assert_allclose(by_signal(found.noise_sd), NOISE, rtol=0.03)
    counts = np.resize(repeats, 3000)
    assert sorted(found.repeats) == sorted(counts)
    signal = np.array([0.5, 1, 2]) ** 2
    np.testing.assert_allclose(
        by_signal(found.percent), 100 * signal / (signal + NOISE**2 * (1 / counts).mean()), rtol=0.05
    )


def test_ceiling_is_the_r2_of_the_true_signal():
    betas, stimuli, signal = responses(3)
    average = np.stack([betas[stimuli == k].mean(0) for k in range(1000)])
    reached = score_targets(average, 7 + signal[:1000]).r2
    np.testing.assert_allclose(by_signal(noise_ceiling(betas, stimuli).percent), 100 * by_signal(reached), rtol=0.05)


def test_split_halves_agree_with_analysis_of_variance():
    betas, stimuli, _ = responses([2, 3, 4, 5])
    for repeats in (1, 4):
        halves = split_half_ceiling(betas, stimuli, repeats=repeats, n_splits=12, rng=np.random.default_rng(0))
        whole = noise_ceiling(betas, stimuli, repeats=repeats).percent
        np.testing.assert_allclose(by_signal(halves), by_signal(whole), rtol=0.05)


def test_ceiling_formula_is_that_of_the_nsd_manual():
    ncsnr, counts = np.array([0.2, 1.0, 3.0]), {3: 700, 2: 200, 1: 100}
    want = 100 * ncsnr**2 / (ncsnr**2 + (700 / 3 + 200 / 2 + 100 / 1) / 1000)
    np.testing.assert_allclose(ceiling_from_ncsnr(ncsnr, counts), want)
    np.testing.assert_allclose(ceiling_from_ncsnr(ncsnr, np.repeat([3, 2, 1], [700, 200, 100])), want)
    np.testing.assert_allclose(ceiling_from_ncsnr(ncsnr, 3), 100 * ncsnr**2 / (ncsnr**2 + 1 / 3))
    assert ceiling_from_ncsnr([0.0, np.inf], 3).tolist() == [0, 100]


def test_variances_are_those_of_a_loop_over_stimuli():
    betas, stimuli, _ = responses([1, 2, 3], n=20)
    groups = [betas[stimuli == k] for k in range(20)]
    noise = np.mean([own.var(0, ddof=1) for own in groups if len(own) > 1], axis=0)
    found = noise_ceiling(betas, stimuli, variances="nsd")
    np.testing.assert_allclose(found.noise_sd, np.sqrt(noise), rtol=1e-9)
    np.testing.assert_allclose(found.signal_sd, np.sqrt(np.maximum(betas.var(0, ddof=1) - noise, 0)), rtol=1e-9)
    pooled = sum(((own - own.mean(0)) ** 2).sum(0) for own in groups) / (len(betas) - 20)
    np.testing.assert_allclose(noise_ceiling(betas, stimuli).noise_sd, np.sqrt(pooled), rtol=1e-9)


def test_drifts_between_sessions_count_as_noise_unless_sessions_are_given(tmp_path):
    betas, stimuli, _ = responses(3, n=900)
    session = np.arange(len(betas)) // 300
    drifting = (betas + 4 * session[:, None]).astype(np.float32)
    still, moved = noise_ceiling(betas, stimuli), noise_ceiling(drifting, stimuli)
    assert (by_signal(moved.ncsnr) < 0.7 * by_signal(still.ncsnr)).all()
    np.save(tmp_path / "betas.npy", drifting)
    as_set = BetaSet(betas=np.load(tmp_path / "betas.npy", mmap_mode="r"), stimuli=stimuli, sessions=session)
    for found in (noise_ceiling(drifting, stimuli, sessions=session), noise_ceiling(as_set, chunk_size=4)):
        np.testing.assert_allclose(by_signal(found.ncsnr), by_signal(still.ncsnr), rtol=0.02)


def test_averaged_betas_have_no_noise_to_estimate():
    betas, stimuli, _ = responses(3, n=20)
    trials = BetaSet(betas=betas.astype(np.float32), stimuli=stimuli, sessions=np.zeros(60, dtype=np.int64))
    with pytest.raises(ValueError, match="`stimuli` must hold a stimulus that was shown at least twice"):
        noise_ceiling(trials.average())


def test_ceilings_say_what_is_wrong():
    betas, rng = np.random.default_rng(0).standard_normal((6, 3)), np.random.default_rng(0)
    with pytest.raises(ValueError, match="`stimuli` must hold a stimulus that was shown at least twice"):
        noise_ceiling(betas, np.arange(6))
    with pytest.raises(ValueError, match="`stimuli` must be given, unless"):
        noise_ceiling(betas)
    with pytest.raises(ValueError, match="NaN or infinity in 1 voxels from voxel 2 on"):
        noise_ceiling(np.where([False, False, True], np.nan, betas), [0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="`repeats` must be whole numbers >= 1"):
        ceiling_from_ncsnr([1.0], [0, 3])
    with pytest.raises(ValueError, match="`sessions` must have at least 2 trials each, got 1 in session 3"):
        noise_ceiling(betas, [0, 0, 1, 1, 2, 2], sessions=[1, 1, 1, 1, 1, 3])
    with pytest.raises(ValueError, match="`stimuli` must hold at least 3 stimuli that were shown twice"):
        split_half_ceiling(betas, [0, 0, 1, 1, 2, 3], rng=rng)


# --- scores of targets ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(1)
    y = 3 + rng.standard_normal((40, 11)).astype(np.float32)
    return y, (0.5 * y + rng.standard_normal((40, 11))).astype(np.float32), rng.standard_normal(11)


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_scores_of_targets_equal_sklearn_and_scipy(predictions, chunk_size):
    y, guess, mean = predictions
    found = score_targets(y, guess, train_mean=mean, chunk_size=chunk_size)
    a, b = y.astype(float), guess.astype(float)
    np.testing.assert_allclose(found.r2, r2_score(a, b, multioutput="raw_values"), rtol=1e-9)
    np.testing.assert_allclose(found.correlation, [pearsonr(a[:, k], b[:, k])[0] for k in range(11)], rtol=1e-9)
    np.testing.assert_allclose(found.r2_train_mean, 1 - ((a - b) ** 2).sum(0) / ((a - mean) ** 2).sum(0), rtol=1e-9)
    assert (found.r2_train_mean >= found.r2).all()


def test_predicting_the_training_mean_explains_nothing_around_it(predictions):
    y, _, mean = predictions
    found = score_targets(y, np.tile(mean, (40, 1)), train_mean=mean)
    np.testing.assert_allclose(found.r2_train_mean, 0, atol=1e-12)
    assert (found.r2 < 0).all()
    assert np.isnan(found.correlation).all()


def test_targets_may_be_files_tensors_and_have_axes(predictions, tmp_path):
    y, guess, _ = predictions
    want = score_targets(y, guess)
    np.save(tmp_path / "y.npy", y)
    np.testing.assert_array_equal(score_targets(tmp_path / "y.npy", guess, chunk_size=3).r2, want.r2)
    np.testing.assert_array_equal(score_targets(torch.from_numpy(y), torch.from_numpy(guess)).r2, want.r2)
    shaped = score_targets(y[:, :10].reshape(40, 2, 5), guess[:, :10].reshape(40, 2, 5), train_mean=np.zeros((2, 5)))
    np.testing.assert_array_equal(shaped.r2, want.r2[:10])


def test_target_that_does_not_vary_has_no_score():
    found = score_targets(np.full((4, 1), 0.1), np.arange(4.0)[:, None], train_mean=[0.1])
    assert np.isnan([found.r2[0], found.r2_train_mean[0], found.correlation[0]]).all()


def test_scores_of_targets_say_what_is_wrong(predictions):
    y, guess, _ = predictions
    with pytest.raises(ValueError, match=r"`predicted` must have shape \(40, 11\), got \(40, 10\)"):
        score_targets(y, guess[:, :10])
    with pytest.raises(ValueError, match=r"`y` must hold finite numbers only, got NaN or infinity in 1 targets.* 5"):
        score_targets(np.where(np.arange(11) == 5, np.nan, y), guess, chunk_size=3)
    with pytest.raises(ValueError, match="`train_mean` must have shape"):
        score_targets(y, guess, train_mean=[1.0])
