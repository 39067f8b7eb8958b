"""The sweep over thresholds against brute force, the choice from it, and the oracle above it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn.early_exit.pareto import Sweep, choose, oracle, pareto_front, sweep


@st.composite
def courses(draw):
    """Certainty (J, N) with many ties, correctness (J, N), steps (J,)."""
    n_checks, n_samples = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    level = st.one_of(st.sampled_from([0.25, 0.5, 0.75, 1.0]), st.floats(1e-300, 1))
    size = n_checks * n_samples
    certainty = draw(st.lists(level, min_size=size, max_size=size))
    correct = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    steps = np.cumsum(draw(st.lists(st.integers(1, 3), min_size=n_checks, max_size=n_checks)))
    shape = (n_checks, n_samples)
    return np.array(certainty).reshape(shape), np.array(correct).reshape(shape), steps


def brute_force(certainty, correct, steps, threshold):
    """Return the sums of steps and of right answers, sample by sample."""
    n_steps = n_correct = 0
    for course, right in zip(certainty.T, correct.T, strict=True):
        leaves = next((j for j, c in enumerate(course) if c > threshold), len(steps) - 1)
        n_steps, n_correct = n_steps + int(steps[leaves]), n_correct + int(right[leaves])
    return n_steps, n_correct


@given(courses())
@settings(max_examples=200, deadline=None)
def test_sweep_equals_brute_force_and_misses_no_threshold(data):
    certainty, correct, steps = data
    found = sweep(certainty, correct, steps)
    for threshold, n_steps, n_correct in zip(found.thresholds, found.n_steps, found.n_correct, strict=True):
        assert brute_force(*data, threshold) == (n_steps, n_correct)
    # Whatever a threshold can do, one of these does.
    every = {brute_force(*data, threshold) for threshold in [0.0, 1.0, *certainty.ravel()]}
    assert every == set(zip(found.n_steps.tolist(), found.n_correct.tolist(), strict=True))
    assert (np.diff(found.n_steps) > 0).all()
    assert (np.diff(found.thresholds) > 0).all()
    assert found.thresholds[0] == 0
    assert found.thresholds[-1] == (1 if len(steps) > 1 else 0)


@given(courses())
@settings(max_examples=100, deadline=None)
def test_front_holds_what_nothing_beats(data):
    found = sweep(*data)
    points = [found.point(number) for number in range(len(found.thresholds))]
    unbeaten = [
        p
        for p in points
        if not any(q.mean_steps <= p.mean_steps and q.accuracy >= p.accuracy and q != p for q in points)
    ]
    assert list(pareto_front(found)) == unbeaten


@given(courses(), st.sampled_from([0.0, 0.001, 0.125, 0.25, 0.5, 1.0]))
@settings(max_examples=150, deadline=None)
def test_choice_is_the_cheapest_that_is_good_enough(data, max_drop):
    certainty, correct, steps = data
    n_samples = certainty.shape[1]
    found = sweep(*data)
    chosen = choose(found, max_drop)
    full = int(correct[-1].sum())
    good = [p for p in (0.0, 1.0, *certainty.ravel()) if full - brute_force(*data, p)[1] <= max_drop * n_samples]
    cheapest = min(brute_force(*data, threshold)[0] for threshold in good)
    assert chosen.mean_steps == cheapest / n_samples
    assert chosen in pareto_front(found)
    assert brute_force(*data, chosen.threshold) == (cheapest, round(chosen.accuracy * n_samples))


@given(courses())
@settings(max_examples=100, deadline=None)
def test_samples_that_change_are_those_whose_answer_at_the_exit_is_otherwise_right_or_wrong(data):
    certainty, correct, steps = data
    found = sweep(*data)
    for threshold, n_changed in zip(found.thresholds, found.n_changed, strict=True):
        leaves = [next((j for j, c in enumerate(course) if c > threshold), len(steps) - 1) for course in certainty.T]
        assert n_changed == sum(correct[j, n] != correct[-1, n] for n, j in enumerate(leaves))


def test_assurance_keeps_a_distance_that_grows_with_what_changes():
    """A hundred samples, of which a threshold loses 4 and gains 1, or loses 5 and gains 0, or ..."""
    n_changed = np.array([9, 5, 3, 1, 0])
    n_lost = np.array([7, 3, 3, 1, 0])
    everything = Sweep(np.linspace(0, 1, 5), np.arange(100, 105), 90 - n_lost, n_changed, 100)
    # lost + z sqrt(changed): 7 + 3z, 3 + 2.24z, 3 + 1.73z, 1 + z, 0
    for assurance, may_lose, best in (
        (0.5, 3, 1), (0.8413, 5, 2), (0.8413, 6, 1), (0.9773, 6, 3), (0.9773, 7, 2), (0.9999, 4, 4)
    ):  # fmt: skip
        assert choose(everything, may_lose / 100, assurance).threshold == everything.thresholds[best]
    for assurance in (0.4, 1.0):
        with pytest.raises(ValueError, match=r"`assurance` must be a finite number >= 0\.5 and < 1"):
            choose(everything, 0.1, assurance)


def test_loss_on_other_data_stays_within_the_drop_as_often_as_it_says():
    """Thresholds chosen on few synthetic courses, the loss counted on many others."""
    rng = np.random.default_rng(0)
    n, n_others, kept = 2000, 40_000, {0.5: 0, 0.9: 0}
    for _ in range(60):
        certainty = np.sort(rng.random((6, n + n_others)), axis=0)
        correct = rng.random(certainty.shape) < 0.5 + 0.5 * certainty
        correct[-1] |= correct[:-1].any(0)
        mine = sweep(certainty[:, :n], correct[:, :n], np.arange(1, 7))
        others, right = certainty[:, n:], correct[:, n:]
        for assurance in kept:
            leaves = others > choose(mine, 0.02, assurance).threshold
            leaves[-1] = True
            answered = right[leaves.argmax(0), np.arange(n_others)]
            kept[assurance] += right[-1].mean() - answered.mean() <= 0.02
    # Standard deviations of a count of 60: 2.3 at nine in ten, 3.9 at one half.
    assert kept[0.9] >= 50
    assert 18 <= kept[0.5] <= 42


def test_drop_is_counted_in_whole_samples_in_spite_of_binary_fractions():
    """0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996: 29 may be lost."""
    lost = np.arange(0, 101)
    thresholds = np.linspace(0, 1, 101)
    everything = Sweep(thresholds, 100 + lost, 100 - lost[::-1], lost[::-1], 100)
    for max_drop, may_lose in ((0.07, 7), (0.29, 29), (0.57, 57), (0.0, 0), (0.0099, 0), (1.0, 100)):
        assert choose(everything, max_drop).accuracy == (100 - may_lose) / 100


def test_threshold_lies_halfway_between_two_samples():
    """So that a difference in the last bit, on another device, moves nobody over it."""
    certainty = np.array([[0.2, 0.4, 0.9], [1.0, 1.0, 1.0]])
    found = sweep(certainty, np.ones((2, 3), dtype=bool), np.array([1, 2]))
    assert found.thresholds.tolist() == pytest.approx([0.0, 0.3, 0.65, 1.0])


def test_neighbouring_floats_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1)
    data = (np.array([[low, high], [1.0, 1.0]]), np.array([[True, True], [False, True]]), np.array([1, 2]))
    found = sweep(*data)
    assert found.thresholds.tolist() == [0.0, low, 1.0]
    assert [brute_force(*data, threshold) for threshold in found.thresholds] == [(2, 2), (3, 1), (4, 1)]


def test_network_that_thinks_too_long_may_gain_by_leaving():
    certainty = np.array([[0.9, 0.9], [0.95, 0.95]])
    correct = np.array([[True, True], [True, False]])
    found = sweep(certainty, correct, np.array([1, 2]))
    assert pareto_front(found) == (found.point(0),)
    assert choose(found, 0.0).accuracy == 1.0


def test_one_validation_sample_is_enough_to_choose():
    found = sweep(np.array([[0.6], [0.8]]), np.array([[False], [True]]), np.array([1, 2]))
    assert choose(found, 0.001).threshold == 1.0
    assert choose(found, 1.0).threshold == 0.0


def test_large_sweep_is_quick_enough_to_be_exact():
    """A million checks: sums at the ends and at a sample of thresholds."""
    rng = np.random.default_rng(0)
    certainty, correct = rng.random((20, 50000)) * 0.999 + 1e-3, rng.random((20, 50000)) < 0.7
    steps = np.arange(1, 21)
    found = sweep(certainty, correct, steps)
    assert len(found.thresholds) > 100000
    for number in (0, 1, 1000, len(found.thresholds) // 2, -2, -1):
        above = certainty > found.thresholds[number]
        above[-1] = True
        leaves = above.argmax(0)
        assert steps[leaves].sum() == found.n_steps[number]
        assert correct[leaves, np.arange(50000)].sum() == found.n_correct[number]


@given(courses(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_oracle_is_right_where_any_rule_is_and_no_later(data, threshold):
    certainty, correct, steps = data
    best = oracle(correct, steps)
    for number, (course, right) in enumerate(zip(certainty.T, correct.T, strict=True)):
        leaves = next((j for j, c in enumerate(course) if c > threshold), len(steps) - 1)
        if right[leaves]:
            assert best.correct[number]
            assert best.steps[number] <= steps[leaves]
        if not best.correct[number]:
            assert best.steps[number] == steps[-1]
    assert best.accuracy >= sweep(*data).n_correct.max() / certainty.shape[1]


def test_oracle_by_hand():
    correct = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
    best = oracle(correct, np.array([2, 4, 5]))
    assert best.steps.tolist() == [4, 2, 5, 5]
    assert best.correct.tolist() == [True, True, False, True]
    assert (best.accuracy, best.mean_steps) == (0.75, 4.0)
    assert repr(best) == "Oracle on 4 samples: accuracy 0.7500 at 4.00 steps"


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        sweep(np.zeros((2, 0)), np.zeros((2, 0), dtype=bool), np.array([1, 2]))
    with pytest.raises(ValueError, match="at least one sample"):
        oracle(np.zeros((2, 0), dtype=bool), np.array([1, 2]))


@pytest.mark.parametrize("max_drop", [-0.1, 1.5])
def test_drop_in_percent_is_refused(max_drop):
    found = sweep(np.array([[0.6]]), np.array([[True]]), np.array([1]))
    with pytest.raises(ValueError, match="`max_drop` must be a finite number >= 0 and <= 1"):
        choose(found, max_drop)
