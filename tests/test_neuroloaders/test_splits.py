"""Laws of splits: what decides, what stays, and that no group is on both sides."""

import math
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, LeavePGroupsOut, StratifiedShuffleSplit, cross_val_score

from neuroloaders.splits import SPLITS, GroupSplit, hash_split, stratified_holdout

UIDS = [f"recording-{i}" for i in range(5000)]


def test_hash_split_depends_on_seed_and_uid_only():
    parts = dict(zip(UIDS, hash_split(UIDS, valid=0.1, test=0.2, seed=3), strict=True))
    shuffled = list(np.random.default_rng(0).permutation(UIDS))
    grown = ["new", *shuffled, "newer"]
    again = dict(zip(grown, hash_split(grown, valid=0.1, test=0.2, seed=3), strict=True))
    assert all(again[uid] == part for uid, part in parts.items())
    assert hash_split([UIDS[7]], valid=0.1, test=0.2, seed=3)[0] == parts[UIDS[7]]


def test_hash_split_is_the_same_on_every_machine():
    # Fixed when the function was written: if these move, every number obtained with hash_split moves.
    parts = hash_split(range(12), valid=0.25, test=0.25, seed=0)
    assert "".join(part[1] for part in parts) == "arrrarrrreea"  # the second letter: tRain, vAlid, tEst


def test_hash_split_gives_the_asked_shares():
    parts = hash_split(UIDS, valid=0.1, test=0.2, seed=0)
    for name, share in (("valid", 0.1), ("test", 0.2), ("train", 0.7)):
        four_sigma = 4 * math.sqrt(share * (1 - share) / len(UIDS))
        assert abs((parts == name).mean() - share) < four_sigma


def test_hash_split_with_more_validation_takes_from_training_only():
    few, many = (hash_split(UIDS, valid=valid, test=0.2, seed=1) for valid in (0.1, 0.3))
    assert np.array_equal(few == "test", many == "test")
    assert np.all(many[few == "valid"] == "valid")


def test_hash_split_seeds_are_independent():
    first, second = (hash_split(UIDS, valid=0.0, test=0.5, seed=seed) == "test" for seed in (0, 1))
    assert abs((first & second).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(UIDS))


def test_hash_split_treats_numbers_as_their_text_and_leaves_the_global_state():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    numbers = hash_split(np.arange(50), valid=0.3, test=0.3, seed=2)
    assert np.array_equal(numbers, hash_split([str(i) for i in range(50)], valid=0.3, test=0.3, seed=2))
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.mark.parametrize(("valid", "test", "only"), [(0, 0, "train"), (1, 0, "valid"), (0, 1, "test")])
def test_hash_split_extremes_are_exact(valid, test, only):
    assert set(hash_split(UIDS, valid=valid, test=test, seed=0)) == {only}
    assert only in SPLITS


def test_hash_split_refuses_what_cannot_be_meant():
    with pytest.raises(ValueError, match=r"`valid \+ test` must be a finite number <= 1"):
        hash_split(UIDS, valid=0.6, test=0.6, seed=0)
    with pytest.raises(ValueError, match="`valid` must be"):
        hash_split(UIDS, valid=-0.1, test=0.6, seed=0)
    for uid in (1.0, None, True, ("sub", 1)):
        with pytest.raises(TypeError, match=r"`uids\[1\]` must be text or a whole number"):
            hash_split(["a", uid], valid=0.1, test=0.1, seed=0)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 60), min_size=1, max_size=6),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 1000),
)
def test_holdout_is_a_partition_with_every_class_in_proportion(sizes, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    train, valid = stratified_holdout(labels, fraction=fraction, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([train, valid])), np.arange(len(labels)))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(valid) > 0)
    for label, size in enumerate(sizes):
        held = (labels[valid] == label).sum()
        assert 1 <= held <= size - 1
        assert abs(held - fraction * size) < 1 or held in (1, size - 1)


def test_holdout_proportions_agree_with_sklearn():
    labels = np.repeat(np.arange(5), [500, 200, 133, 67, 20])
    _, valid = stratified_holdout(labels, fraction=0.15, seed=4)
    splitter = StratifiedShuffleSplit(1, test_size=len(valid), random_state=0)
    _, reference = next(splitter.split(np.zeros((len(labels), 1)), labels))
    assert len(valid) == round(0.15 * len(labels))
    assert np.abs(np.bincount(labels[valid]) - np.bincount(labels[reference])).max() <= 1


def test_holdout_depends_on_its_seed_only():
    labels = np.arange(300) % 3
    assert np.array_equal(
        stratified_holdout(labels, fraction=0.2, seed=1)[1],
        stratified_holdout(torch.tensor(labels), fraction=0.2, seed=1)[1],
    )
    assert not np.array_equal(
        stratified_holdout(labels, fraction=0.2, seed=1)[1], stratified_holdout(labels, fraction=0.2, seed=2)[1]
    )


def test_holdout_takes_text_labels_and_refuses_lonely_classes():
    stratified_holdout(["a", "b", "a", "b"], fraction=0.5)
    with pytest.raises(ValueError, match="one row of class 'b'"):
        stratified_holdout(["a", "a", "b"], fraction=0.5)
    with pytest.raises(ValueError, match="`labels` must be a 1-D array"):
        stratified_holdout(np.zeros((3, 2)), fraction=0.5)
    for fraction in (0, 1, -0.5, math.nan):
        with pytest.raises(ValueError, match="`fraction` must be"):
            stratified_holdout([0, 0], fraction=fraction)


GROUPS = np.repeat([10, 20, 30, 40, 50, 60, 70], [8, 8, 8, 8, 8, 8, 8])


@pytest.mark.parametrize("splitter", [GroupSplit(), GroupSplit(leave_out=2), GroupSplit(3), GroupSplit(7, seed=5)])
def test_group_split_never_splits_a_group(splitter):
    X = np.zeros((len(GROUPS), 2))
    folds = list(splitter.split(X, groups=GROUPS))
    assert len(folds) == splitter.get_n_splits(X, groups=GROUPS)
    for train, test in folds:
        assert not set(GROUPS[train]) & set(GROUPS[test])
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(GROUPS)))
        assert len(test) > 0
        assert len(train) > 0


@pytest.mark.parametrize(
    ("ours", "reference"), [(GroupSplit(), LeaveOneGroupOut()), (GroupSplit(leave_out=2), LeavePGroupsOut(2))]
)
def test_leave_groups_out_agrees_with_sklearn(ours, reference):
    X = np.zeros((len(GROUPS), 1))
    groups = np.random.default_rng(0).permutation(GROUPS)
    as_sets = [{tuple(test) for _, test in s.split(X, groups=groups)} for s in (ours, reference)]
    assert as_sets[0] == as_sets[1]


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=4, max_size=12), k=st.integers(2, 4), seed=st.integers(0, 99))
def test_k_fold_tests_each_row_once_and_ignores_row_order(sizes, k, seed):
    groups = np.repeat([f"sub-{i:02}" for i in range(len(sizes))], sizes)
    order = np.random.default_rng(seed).permutation(len(groups))
    splitter = GroupSplit(k, seed=seed)
    tested = [test for _, test in splitter.split(groups, groups=groups)]
    assert sorted(chain.from_iterable(tested)) == list(range(len(groups)))
    shuffled = [set(groups[order][test]) for _, test in splitter.split(groups, groups=groups[order])]
    assert shuffled == [set(groups[test]) for test in tested]
    # Largest first into the emptiest fold: no two folds differ by more than the largest group.
    assert max(map(len, tested)) - min(map(len, tested)) <= max(sizes)


def test_k_fold_seed_changes_company_but_not_sizes():
    folds = {
        tuple(sorted(map(tuple, (test for _, test in GroupSplit(3, seed=s).split(GROUPS, groups=GROUPS)))))
        for s in range(8)
    }
    assert len(folds) > 1
    sizes = {tuple(sorted(map(len, fold))) for fold in folds}
    assert sizes == {(16, 16, 24)}


def test_group_split_works_with_cross_val_score():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(len(GROUPS), 3))
    y = X @ [1.0, 2.0, 3.0] + 0.01 * rng.normal(size=len(GROUPS))
    scores = cross_val_score(Ridge(), X, y, groups=GROUPS, cv=GroupSplit(4))
    assert scores.shape == (4,)
    assert scores.min() > 0.9
    assert len(cross_val_score(Ridge(), X, y, groups=GROUPS, cv=GroupSplit())) == 7


def test_group_split_refuses_missing_or_too_few_groups():
    with pytest.raises(ValueError, match="`groups` must be given"):
        cross_val_score(Ridge(), np.zeros((4, 1)), np.zeros(4), cv=GroupSplit(2), error_score="raise")
    with pytest.raises(ValueError, match=r"`groups` must have at least 3 different values, got 2\."):
        list(GroupSplit(3).split(np.zeros(4), groups=[0, 0, 1, 1]))
    with pytest.raises(ValueError, match="at least 2 different values"):
        list(GroupSplit().split(np.zeros(4), groups=[0, 0, 0, 0]))
    with pytest.raises(ValueError, match="same length"):
        list(GroupSplit().split(np.zeros(5), groups=[0, 0, 1, 1]))
    for missing in (np.array([0.0, np.nan]), np.array(["a", None], dtype=object)):
        with pytest.raises(ValueError, match="`groups` must"):
            list(GroupSplit().split(np.zeros(2), groups=missing))
    with pytest.raises(ValueError, match="`leave_out` must stay 1"):
        GroupSplit(3, leave_out=2)
    with pytest.raises(ValueError, match="`n_splits` must be a whole number >= 2"):
        GroupSplit(1)


def test_splits_are_named_in_the_order_of_use():
    assert list(SPLITS) == ["train", "valid", "test"]
    assert all(a != b for a, b in pairwise(SPLITS.values()))
