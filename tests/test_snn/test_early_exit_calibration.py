"""Confidence that means what it says: reliability, the temperature, and intervals by resampling."""

import itertools
import math

import numpy as np
import pytest
import torch
from fakes.exits import calibrated_logits, noisy_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from snn.early_exit import (
    BINNINGS,
    CALIBRATORS,
    DynamicConfidence,
    bootstrap_means,
    expected_calibration_error,
    fit_alpha,
    reliability,
)

# --- reliability --------------------------------------------------------------------------------------------------


def plain_ece(confidence, correct, edges):
    """Bin by bin, sample by sample, (lower, upper]."""
    total = 0.0
    for number, (lower, upper) in enumerate(itertools.pairwise(edges)):
        inside = [n for n, c in enumerate(confidence) if lower < c <= upper or (number == 0 and c == 0)]
        if inside:
            accuracy = sum(bool(correct[n]) for n in inside) / len(inside)
            mean = sum(confidence[n] for n in inside) / len(inside)
            total += len(inside) * abs(accuracy - mean)
    return total / len(confidence)


@given(
    st.lists(
        st.tuples(st.one_of(st.sampled_from([0.0, 0.2, 0.4, 0.5, 1.0]), st.floats(0, 1)), st.booleans()), min_size=1
    ),
    st.integers(1, 20),
    st.sampled_from(sorted(BINNINGS)),
)
@settings(max_examples=150, deadline=None)
def test_ece_equals_a_plain_loop_over_the_bins(samples, n_bins, binning):
    confidence, correct = map(list, zip(*samples, strict=True))
    found = reliability(confidence, correct, n_bins=n_bins, binning=binning)
    assert found.ece == pytest.approx(plain_ece(confidence, correct, found.edges.tolist()), abs=1e-12)
    assert found.counts.sum() == len(samples)
    assert (found.edges[0], found.edges[-1]) == (0.0, 1.0)
    if binning == "equal_width":
        assert np.allclose(np.diff(found.edges), 1 / n_bins)


def test_ece_of_one_bin_in_closed_form():
    assert expected_calibration_error([0.8] * 10, [True] * 6 + [False] * 4) == pytest.approx(0.2)
    assert expected_calibration_error([0.8] * 10, [True] * 8 + [False] * 2) == pytest.approx(0.0)


def test_edges_belong_to_the_bin_below():
    found = reliability([0.0, 0.5, 0.5000001, 1.0], [True] * 4, n_bins=2)
    assert found.counts.tolist() == [2, 2]


def test_bins_of_equal_mass_hold_equally_many():
    confidence = np.random.default_rng(0).beta(8, 1, size=1000)
    correct = np.ones(1000, dtype=bool)
    assert reliability(confidence, correct, n_bins=10, binning="equal_mass").counts.tolist() == [100] * 10
    assert reliability(confidence, correct, n_bins=10).counts.min() < 10


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(BINNINGS)))
@settings(max_examples=20, deadline=None)
def test_order_of_equally_confident_samples_does_not_matter(random, binning):
    samples = [(c, right) for c in (0.3, 0.3, 0.7, 0.7, 0.7, 0.9) for right in (True, False, True)]
    first = reliability(*zip(*samples, strict=True), n_bins=4, binning=binning)
    random.shuffle(samples)
    other = reliability(*zip(*samples, strict=True), n_bins=4, binning=binning)
    assert first.counts.tolist() == other.counts.tolist()
    assert first.ece == pytest.approx(other.ece, abs=1e-12)


def test_empty_bins_are_nan_and_do_not_count():
    found = reliability([0.95, 0.95], [True, False], n_bins=4)
    assert np.isnan(found.accuracy[:3]).all()
    assert found.largest_gap == pytest.approx(0.45)
    assert "ECE 0.4500" in repr(found)


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "at least one prediction"),
        ([0.5, 1.2], [True, True], r"`confidence` must lie in \[0, 1\], got 0.5 to 1.2"),
        ([0.5, math.nan], [True, True], "`confidence` must hold finite numbers only"),
        ([0.5], [True, True], "must have the same length"),
        ([[0.5]], [True], r"`confidence` must have shape \(N,\)"),
    ],
)
def test_what_is_no_prediction_is_refused(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        reliability(confidence, np.array(correct, dtype=bool))


def test_labels_in_place_of_hits_are_refused():
    with pytest.raises(TypeError, match=r"`correct` must be boolean.*Pass labels == y"):
        reliability([0.5], [3])
    with pytest.raises(ValueError, match="`binning` must be one of 'equal_width', 'equal_mass', got 'width'"):
        reliability([0.5], [True], binning="width")


# --- temperature --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true_alpha", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_alpha_of_synthetic_logits_is_recovered(true_alpha, calibrator):
    logits, y = calibrated_logits(20000, 10)
    alpha = fit_alpha(true_alpha * logits[None], y, calibrator=calibrator)
    assert alpha == pytest.approx(true_alpha, rel={"nll": 0.02, "ece": 0.06}[calibrator])


@given(seed=st.integers(0, 10**6), n=st.integers(5, 60), n_classes=st.integers(2, 6), log_scale=st.floats(-20, 20))
@settings(max_examples=40, deadline=None)
def test_no_other_alpha_has_a_lower_loss(seed, n, n_classes, log_scale):
    logits, y = noisy_logits(4, n, n_classes, seed=seed)
    readouts = logits.cumsum(0) * math.exp(log_scale)
    hits = (readouts.argmax(-1) == y).double().mean()
    above_chance = (readouts.gather(2, y.expand(4, n)[..., None])[..., 0] - readouts.mean(-1)).mean()
    if hits == 1 or above_chance <= 0:
        return

    def loss(alpha):
        return F.cross_entropy((readouts / alpha).flatten(0, 1), y.repeat(4)).item()

    alpha = fit_alpha(readouts, y)
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        assert loss(alpha) <= loss(alpha * factor) + 1e-12


def test_alpha_pools_all_checked_steps():
    """Two checks with right temperatures of 1 and 4: the pooled one lies between, and doubling a check pulls it."""
    logits, y = calibrated_logits(5000, 5)
    sharp = 4.0 * logits
    both = fit_alpha(torch.stack([logits, sharp]), y)
    pulled = fit_alpha(torch.stack([logits, sharp, sharp]), y)
    assert 1.0 < both < pulled < 4.0


def test_calibration_more_than_halves_the_error_of_overconfident_logits():
    logits, y = calibrated_logits(4000, 10)
    steps = torch.cat([5.0 * logits[None], torch.zeros(3, *logits.shape)])
    decide = DynamicConfidence(None, 4).fit(steps[:, :2000], y[:2000])
    test = (steps[:, 2000:], y[2000:])
    before, after = decide.reliability(*test, alpha=1.0), decide.reliability(*test)
    assert before.ece > 0.1
    assert after.ece < before.ece / 2
    assert after.counts.sum() == 4 * 2000


def test_alpha_with_nothing_wrong_follows_the_rule_of_succession():
    readouts = torch.tensor([[[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]])
    with pytest.warns(UserWarning, match="All 2 answers at all checked steps are right"):
        alpha = fit_alpha(readouts, torch.tensor([0, 1]))
    confidence = torch.softmax(readouts.double() / alpha, -1).amax(-1)
    assert confidence.flatten().tolist() == pytest.approx([3 / 4, 3 / 4])


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_logits_that_prefer_other_classes_are_refused(calibrator):
    logits, y = noisy_logits(1, 50, 3, signal=3.0)
    with pytest.raises(ValueError, match="`y` must be more probable than other classes by the logits"):
        fit_alpha(logits, (y + 1) % 3, calibrator=calibrator)
    with pytest.raises(ValueError, match="`y` must be more probable"):
        fit_alpha(torch.zeros(2, 5, 3), torch.zeros(5, dtype=torch.int64), calibrator=calibrator)


# --- intervals ----------------------------------------------------------------------------------------------------


def test_bootstrap_of_equal_rows_is_that_of_samples():
    """Counts of rows against resampling by index: the same standard error, that of the binomial."""
    hits = np.array([1] * 80 + [0] * 20)
    found = bootstrap_means(hits[:, None], n_resamples=20000, level=0.6827, rng=3)[0]
    error = math.sqrt(0.8 * 0.2 / 100)
    assert found.value == 0.8
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=0.13)  # percentiles lie on a grid of 1/100
    drawn = np.random.default_rng(0).choice(hits, (20000, 100)).mean(1)
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.15865, 0.84135]), abs=0.011)


def test_bootstrap_is_paired():
    """A quantity and itself plus one: their difference has no spread, whatever each of them has."""
    values = np.random.default_rng(0).normal(size=50)
    first, second, difference = bootstrap_means(np.stack([values, values + 1, np.ones(50)], 1))
    assert first.high - first.low > 0.1
    assert second.low - first.low == pytest.approx(1)
    assert (difference.low, difference.value, difference.high) == (1.0, 1.0, 1.0)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(300):
        found = bootstrap_means(rng.random((60, 1)) < 0.7, rng=rng, n_resamples=300, level=0.9)[0]
        inside += found.low <= 0.7 <= found.high
    # 300 trials at 0.9: three standard errors are 0.052; the percentile method falls a little short at N = 60.
    assert 0.83 <= inside / 300 <= 0.96


def test_bootstrap_depends_on_its_seed_alone():
    values = np.random.default_rng(1).normal(size=(40, 2))
    first, again, other = (bootstrap_means(values, rng=seed, n_resamples=50) for seed in (7, 7, 8))
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [({"level": 1.0}, "`level` must be"), ({"n_resamples": 0}, "`n_resamples` must be")],
)
def test_bootstrap_refuses_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_means([[1.0]], **options)
    with pytest.raises(ValueError, match="at least one row"):
        bootstrap_means(np.zeros((0, 2)))
