"""Identification against all sets of foils, and permutation tests against enumeration and under the null."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, kstest
from scipy.stats import permutation_test as scipy_permutation_test

from neurodecode.scoring import binomial_p, identification_test, n_way, permutation_test, win_share
from neurodecode.scoring.n_way import TIES, identification_table
from neurodecode.scoring.similarity import similarity_matrix


def noisy(n, d, noise, seed):
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((n, d))
    return real, real + noise * rng.standard_normal((n, d))


def test_two_way_gives_the_numbers_worked_out_by_hand():
    # shared/research/neurodecode.md, F.1.
    k = np.arange(20.0).reshape(4, 5)
    real = np.sin(1.3 * k)
    made = real + 0.8 * np.cos(2.1 * k)
    found = n_way(real, made)
    np.testing.assert_allclose(found.per_item, [2 / 3, 1 / 3, 1 / 3, 1])
    assert found.accuracy == pytest.approx(0.58333, abs=1e-5)
    assert n_way(torch.from_numpy(real), torch.from_numpy(made)).per_item.tolist() == found.per_item.tolist()


def test_two_way_equals_the_rule_on_corrcoef():
    real, made = noisy(40, 30, 3.0, 0)
    r = np.corrcoef(real, made)[:40, 40:]
    want = (r < np.diag(r)).sum(0) / 39
    np.testing.assert_allclose(n_way(real, made, chunk_size=7).per_item, want)
    assert 0.6 < want.mean() < 0.95


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("ties", TIES)
def test_n_way_equals_the_mean_over_all_sets_of_foils_and_orders(n, ties):
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, 8)
    for true in range(8):
        others = np.delete(scores, true)
        wins = []
        for foils in itertools.combinations(others, n - 1):
            if ties == "fail":
                wins.append(max(foils) < scores[true])
            else:
                # Of candidates that share the highest score, each is taken equally often.
                wins.append((max(foils) <= scores[true]) / (1 + sum(foil == scores[true] for foil in foils)))
        less, equal = (others < scores[true]).sum(), (others == scores[true]).sum()
        assert win_share(less, equal, 7, n, ties=ties) == pytest.approx(np.mean(wins))


def test_foils_of_the_same_category_are_all_there_are():
    real, made = noisy(30, 20, 2.0, 2)
    category = np.repeat(["a", "b", "c"], [14, 15, 1])
    found = n_way(real, made, categories=category)
    for name in "ab":
        own = category == name
        np.testing.assert_allclose(found.per_item[own], n_way(real[own], made[own]).per_item)
        assert (found.n_foils[own] == own.sum() - 1).all()
    assert np.isnan(found.per_item[29])
    assert found.accuracy == pytest.approx(found.per_item[:29].mean())


def test_knowing_the_category_alone_is_chance_among_its_own_foils():
    rng = np.random.default_rng(3)
    centres, category = 5 * rng.standard_normal((4, 50)), np.repeat(np.arange(4), 50)
    real, made = (centres[category] + rng.standard_normal((200, 50)) for _ in range(2))
    assert n_way(real, made).accuracy > 0.85
    assert n_way(real, made, categories=category).accuracy == pytest.approx(0.5, abs=0.06)


def test_identification_of_perfect_predictions_is_certain_and_of_equal_ones_depends_on_ties():
    real = np.random.default_rng(4).standard_normal((20, 9))
    for n in (2, 10, 20):
        assert n_way(real, real, n).accuracy == 1
    twice = np.repeat(real[:1], 20, axis=0)
    assert n_way(twice, real, ties="fail").accuracy == 0
    assert n_way(twice, real, 5, ties="share").accuracy == pytest.approx(0.2)


def test_identification_under_the_null_is_at_chance():
    real, made = np.random.default_rng(5).standard_normal((2, 300, 20))
    for n in (2, 4, 50):
        found = n_way(real, made, n)
        assert found.accuracy == pytest.approx(found.chance, abs=0.035)


@pytest.mark.parametrize("ties", TIES)
def test_table_holds_the_score_for_every_item_that_might_be_true(ties):
    rng = np.random.default_rng(6)
    real, made = rng.integers(0, 3, (2, 9, 4)).astype(float)
    real[:, 0] += 5
    made[:, 0] += 7
    table, _ = identification_table(*similarity_matrix(real, made), 3, ties=ties)
    np.testing.assert_allclose(np.diag(table), n_way(real, made, 3, ties=ties).per_item)
    order = rng.permutation(9)
    np.testing.assert_allclose(
        table[order, np.arange(9)], n_way(real[order], made, 3, ties=ties).per_item, rtol=1e-9, atol=1e-12
    )


def test_n_way_says_what_is_wrong():
    real = np.eye(4)
    with pytest.raises(ValueError, match="`n` must be a whole number >= 2"):
        n_way(real, real, 1)
    with pytest.raises(ValueError, match=r"`real` must hold at least 3 items .* at most 2 in a category"):
        n_way(real, real, 3, categories=[0, 0, 1, 1])
    with pytest.raises(ValueError, match="`real`, `made` must have the same length"):
        n_way(real, real[:3])
    with pytest.raises(ValueError, match="`made` must be rows that are not constant"):
        n_way(real, np.ones((4, 4)))
    with pytest.raises(ValueError, match="`real` must be rows that are not constant"):
        identification_test(np.ones((4, 4)), real, rng=np.random.default_rng(0))


# --- permutation tests ----------------------------------------------------------------------------------------------


def test_permutation_p_equals_scipys_over_all_orders():
    rng = np.random.default_rng(7)
    x = rng.standard_normal(6)
    y = x + 1.2 * rng.standard_normal(6)
    exact = scipy_permutation_test(
        (x,),
        lambda v: float(v @ y),
        permutation_type="pairings",
        vectorized=False,
        alternative="greater",
        n_resamples=np.inf,
    )
    found = permutation_test(lambda rows: float(x[rows] @ y), 6, n_permutations=4000, rng=rng)
    assert found.observed == pytest.approx(exact.statistic)
    assert found.p == pytest.approx(exact.pvalue, abs=4 * np.sqrt(exact.pvalue / 4000))
    mirrored = permutation_test(
        lambda rows: -float(x[rows] @ y), 6, n_permutations=4000, alternative="less", rng=np.random.default_rng(1)
    )
    assert mirrored.p == pytest.approx(exact.pvalue, abs=4 * np.sqrt(exact.pvalue / 4000))


def test_permutation_p_is_uniform_under_the_null():
    p = []
    for seed in range(200):
        real, made = np.random.default_rng(seed).standard_normal((2, 15, 6))
        p.append(identification_test(real, made, n_permutations=99, rng=np.random.default_rng(1000 + seed)).p)
    assert kstest(p, "uniform").pvalue > 0.05
    assert binomtest(sum(value <= 0.05 for value in p), 200, 0.05).pvalue > 0.05


def test_binomial_p_of_the_reference_finds_effects_where_there_are_none():
    wrong = 0
    for seed in range(100):
        real, made = np.random.default_rng(seed).standard_normal((2, 30, 6))
        wrong += binomial_p(n_way(real, made).accuracy, 30) < 0.05
    # 5 of 100 would be right.
    assert wrong > 20


def test_binomial_p_is_that_of_the_formula():
    # More than 15 heads of 20: C(20, 16) + ... + C(20, 20), of 2^20.
    assert binomial_p(0.75, 5) == pytest.approx((4845 + 1140 + 190 + 20 + 1) / 2**20)


def test_repeats_of_a_stimulus_move_together():
    stimuli = np.array(["a", "b", "a", "c", "c", "c", "d"])
    seen = []

    def record(rows):
        seen.append(rows.copy())
        return 0.0

    found = permutation_test(record, 7, groups=stimuli, n_permutations=50, rng=np.random.default_rng(8))
    assert found.p == 1
    assert (seen[0] == np.arange(7)).all()
    for rows in seen:
        shown = stimuli[rows]
        assert all(len(set(shown[stimuli == name])) == 1 for name in "abcd")
        assert sorted({name: shown[stimuli == name][0] for name in "abcd"}.values()) == list("abcd")
    assert len({tuple(rows) for rows in seen}) > 15


def test_repeats_that_are_taken_for_independent_make_p_too_small():
    liberal, honest = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        stimulus = np.repeat(np.arange(6), 10)
        x, y = rng.standard_normal((2, 6))
        brain = x[stimulus] + 0.1 * rng.standard_normal(60)

        def score(rows, brain=brain, y=y, stimulus=stimulus):
            return float(brain @ y[stimulus[rows]])

        liberal += permutation_test(score, 60, n_permutations=99, rng=rng).p <= 0.05
        honest += permutation_test(score, 60, groups=stimulus, n_permutations=99, rng=rng).p <= 0.05
    assert honest <= 8
    assert liberal > 15


def test_stimuli_change_places_within_their_block_only():
    block = np.array([0, 0, 0, 1, 1, 1, 1])
    seen = []
    permutation_test(
        lambda rows: seen.append(block[rows].tolist()) or 0.0,
        7,
        within=block,
        n_permutations=20,
        rng=np.random.default_rng(9),
    )
    assert all(rows == block.tolist() for rows in seen)
    with pytest.raises(ValueError, match="`within` must hold one block for all rows of a stimulus"):
        permutation_test(lambda rows: 0.0, 4, groups=[0, 0, 1, 1], within=[0, 1, 0, 0], rng=np.random.default_rng(0))


def test_identification_test_observes_what_n_way_gives():
    real, made = noisy(25, 12, 3.0, 10)
    category = np.repeat([0, 1], [13, 12])
    for n, categories in ((2, None), (4, None), (2, category)):
        found = identification_test(real, made, n, categories=categories, rng=np.random.default_rng(0))
        assert found.observed == pytest.approx(n_way(real, made, n, categories=categories).accuracy)
        assert found.chance == pytest.approx(1 / n, abs=0.02)
        assert found.p < 0.05
    again = [identification_test(real, made, rng=np.random.default_rng(0)).null.tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_permutation_test_says_what_is_wrong():
    with pytest.raises(ValueError, match="`statistic` must return a finite number, got nan"):
        permutation_test(lambda rows: np.nan, 4, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="`groups` must hold two stimuli that can change places"):
        permutation_test(lambda rows: 0.0, 4, groups=[1, 1, 1, 1], rng=np.random.default_rng(0))
