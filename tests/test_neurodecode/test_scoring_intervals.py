"""Bootstrap intervals: SciPy's, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from neurodecode.scoring import bootstrap_interval, hierarchical_interval
from neurodecode.scoring.intervals import DESIGNS, METHODS, STATISTICS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_interval_equals_scipys_on_the_same_resamples(statistic, method):
    values = np.random.default_rng(0).exponential(size=45)
    want = bootstrap(
        (values,), getattr(np, statistic), n_resamples=1500, method=method, rng=np.random.default_rng(1)
    ).confidence_interval
    got = bootstrap_interval(values, statistic=statistic, method=method, n_resamples=1500, rng=np.random.default_rng(1))
    np.testing.assert_allclose([got.low, got.high], want, rtol=1e-9)
    assert got.estimate == getattr(np, statistic)(values)


@pytest.mark.parametrize("method", METHODS)
def test_interval_covers_the_mean_of_skewed_scores_as_often_as_it_says(method):
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found = bootstrap_interval(rng.exponential(size=60), method=method, n_resamples=400, rng=rng)
        hits += found.low <= 1 <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_bca_is_nearer_to_its_level_than_percentiles_where_scores_are_skewed():
    above = dict.fromkeys(METHODS, 0)
    for seed in range(300):
        values = np.random.default_rng(seed).exponential(size=25)
        for method in METHODS:
            found = bootstrap_interval(values, method=method, n_resamples=300, rng=np.random.default_rng(seed))
            above[method] += found.high < 1
    # Percentile intervals miss on one side; 2.5 % would be right.
    assert above["bca"] < above["percentile"]


def simulated(design, seed):
    """Return scores of mean 0.6 of subjects and sentences, with the labels of both."""
    rng = np.random.default_rng(seed)
    n_subjects, n_items = 18, 25
    subject, item = (x.reshape(-1) for x in np.mgrid[:n_subjects, :n_items])
    spread = {"clusters": 0.0, "nested": 0.0, "crossed": 0.1}[design]
    scores = 0.6 + 0.1 * rng.standard_normal(n_subjects)[subject] + spread * rng.standard_normal(n_items)[item]
    return scores + 0.2 * rng.standard_normal(len(scores)), subject, item, rng


@pytest.mark.parametrize("design", DESIGNS)
def test_hierarchical_interval_covers_as_often_as_it_says(design):
    hits = 0
    for seed in range(120):
        scores, subject, item, rng = simulated(design, seed)
        found = hierarchical_interval(scores, subject, item, design=design, n_resamples=250, rng=rng)
        hits += found.low <= 0.6 <= found.high
    assert 0.90 <= hits / 120 <= 0.99


def test_trials_that_are_taken_for_independent_give_intervals_that_miss():
    hits = 0
    for seed in range(60):
        scores, *_, rng = simulated("crossed", seed)
        found = bootstrap_interval(scores, n_resamples=300, rng=rng)
        hits += found.low <= 0.6 <= found.high
    assert hits / 60 < 0.75


def test_each_subject_counts_the_same_however_many_trials_it_has():
    scores, subject = np.r_[np.zeros(90), np.ones(10)], np.r_[np.repeat("a", 90), np.repeat("b", 10)]
    item = np.r_[np.arange(90), np.arange(10)]
    for design in DESIGNS:
        found = hierarchical_interval(scores, subject, item, design=design, rng=np.random.default_rng(0))
        assert found.estimate == 0.5
        assert (found.low, found.high) == (0, 1)


def test_interval_of_scores_that_are_all_alike_is_a_point():
    found = bootstrap_interval(np.full(9, 0.25), rng=np.random.default_rng(0))
    assert (found.low, found.estimate, found.high) == (0.25, 0.25, 0.25)


def test_intervals_say_what_is_wrong():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="`values` must hold finite numbers only"):
        bootstrap_interval([0.1, np.nan], rng=rng)
    with pytest.raises(ValueError, match="`values` must have at least 2 entries"):
        bootstrap_interval([0.1], rng=rng)
    with pytest.raises(ValueError, match="`method` must be one of 'bca', 'percentile'"):
        bootstrap_interval([0.1, 0.2], method="normal", rng=rng)
    with pytest.raises(ValueError, match="`items` must be given for design='crossed'"):
        hierarchical_interval([0.1, 0.2], [0, 1], design="crossed", rng=rng)
    with pytest.raises(ValueError, match="`clusters` must name at least 2 clusters"):
        hierarchical_interval([0.1, 0.2], [1, 1], rng=rng)
    with pytest.raises(ValueError, match="`clusters` must have shape"):
        hierarchical_interval([0.1, 0.2], [1, 1, 2], rng=rng)
