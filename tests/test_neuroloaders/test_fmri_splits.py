"""Splits that keep clusters and categories of stimuli together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.betas import BetaSet
from neuroloaders.fmri_splits import StimulusSplit, category_split, cluster_split
from neuroloaders.splits import SPLITS

SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.4])


def _check(split, ids, groups, shares):
    """Each stimulus in one part, each group on one side, no part that was asked for empty, none above its share."""
    parts = {part: getattr(split, part).tolist() for part in SPLITS}
    together = [uid for part in parts.values() for uid in part]
    assert sorted(together) == sorted(set(np.asarray(ids).tolist()))
    sides = {}
    for part, uids in parts.items():
        for uid in uids:
            assert sides.setdefault(groups[uid], part) == part
    sizes = np.unique(list(groups.values()), return_counts=True)[1]
    for part, share in shares.items():
        assert bool(parts[part]) == (share > 0)
        if part != "train":
            assert len(parts[part]) <= max(share * len(together) + 1e-6, sizes.max())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=80),
    SHARES,
    SHARES,
    st.integers(0, 10),
)
def test_no_stimulus_and_no_category_is_on_two_sides(table, valid, test, seed):
    # A row a trial: stimuli occur more than once, with the category of their first row.
    first = {}
    for uid, category in table:
        first.setdefault(uid, category)
    ids = np.array([uid for uid, _ in table])
    categories = np.array([first[uid] for uid in ids.tolist()])
    shares = {"train": 1 - valid - test, "valid": valid, "test": test}
    if len(set(first.values())) < sum(share > 0 for share in shares.values()):
        with pytest.raises(ValueError, match="one for each of"):
            category_split(categories, ids=ids, valid=valid, test=test, random_state=seed)
        return
    split = category_split(categories, ids=ids, valid=valid, test=test, random_state=seed)
    _check(split, ids, first, shares)
    assert split.groups == first
    # The order of the rows decides nothing.
    again = category_split(categories[::-1], ids=ids[::-1], valid=valid, test=test, random_state=seed)
    assert all(getattr(again, part).tolist() == getattr(split, part).tolist() for part in SPLITS)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(3, 12), SHARES, st.integers(20, 60))
def test_no_stimulus_and_no_cluster_is_on_two_sides(seed, n_clusters, valid, n):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[:n]
    split = cluster_split(rng.standard_normal((n, 3)), n_clusters, ids=ids, valid=valid, test=0.2, random_state=seed)
    assert len(set(split.groups.values())) == n_clusters
    _check(split, ids, split.groups, {"train": 0.8 - valid, "valid": valid, "test": 0.2})


def test_planted_clusters_are_found_and_held_out_whole():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 40)) * 5
    planted = np.repeat(np.arange(10), 12)
    features = centres[planted] + 0.1 * rng.standard_normal((120, 40))
    split = cluster_split(features, 10, valid=0.1, test=0.2)
    sides = [{int(planted[uid]) for uid in getattr(split, part)} for part in SPLITS]
    assert [len(side) for side in sides] == [7, 1, 2]
    assert sum(len(side) for side in sides) == len(set.union(*sides))
    assert [len(getattr(split, part)) for part in SPLITS] == [84, 12, 24]


def test_held_out_stimuli_are_farther_from_training_than_in_a_random_split():
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((30, 8)) * 3)[np.repeat(np.arange(30), 10)] + rng.standard_normal((300, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    split = cluster_split(features, 30, test=0.2)
    random = category_split(np.arange(300), test=0.2)

    def nearest(split):
        return (features[split.test] @ features[split.train].T).max(axis=1).mean()

    assert nearest(split) < nearest(random) - 0.1


def test_length_of_features_counts_only_if_it_is_to():
    angle = np.repeat([0.0, 0.3], 20) + np.tile(np.linspace(-0.02, 0.02, 20), 2)
    length = np.tile(np.repeat([1.0, 100.0], 10), 2)
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
    by_angle = cluster_split(features, 2, test=0.5).groups
    assert len({by_angle[uid] for uid in range(20)}) == 1
    by_place = cluster_split(features, 2, test=0.5, normalize=False).groups
    assert len({by_place[uid] for uid in range(20)}) == 2


def test_another_seed_is_another_split():
    categories = np.repeat(np.arange(20), 5)
    splits = [tuple(category_split(categories, test=0.2, random_state=seed).test.tolist()) for seed in range(5)]
    assert len(set(splits)) == 5


def test_rows_of_a_set_are_found_by_stimulus():
    split = StimulusSplit(train=[3, 1], valid=[2], test=[9])
    trials = BetaSet(betas=np.ones((5, 1), np.float32), stimuli=np.array([1, 9, 1, 7, 3]), sessions=np.ones(5, int))
    assert split.rows(trials, "train").tolist() == [True, False, True, False, True]
    assert split.rows(trials, "test").tolist() == [False, True, False, False, False]
    with pytest.raises(ValueError, match="'train', 'valid', 'test'"):
        split.rows(trials, "dev")
    with pytest.raises(TypeError, match="identifiers like those"):
        split.rows(["a"], "train")


def test_text_identifies_as_well_as_numbers():
    names = np.array([f"{name}_{k}.jpg" for name in ("dog", "cat", "bus", "cup") for k in range(3)])
    split = category_split([name.split("_")[0] for name in names], ids=names, test=0.25)
    assert len(split.test) == 3
    assert len({name.split("_")[0] for name in split.test.tolist()}) == 1


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: StimulusSplit(train=[1, 2], valid=[], test=[2]), ValueError, "the stimulus 2 in train and test"),
        (lambda: StimulusSplit(train=[1], valid=[], test=[2], groups={1: 0, 2: 0}), ValueError, "the group 0 in train"),
        (lambda: StimulusSplit(train=[1], valid=[], test=[2], groups={1: 0}), ValueError, "none for 2"),
        (lambda: StimulusSplit(train=[1], valid=[], test=["b"]), TypeError, "same type"),
        (lambda: category_split(["a", "b"], ids=[1, 1], test=0.5), ValueError, "1 in 'a' and 'b'"),
        (lambda: category_split(["a", "b"], test=0.6, valid=0.4), ValueError, "left is for training"),
        (lambda: category_split([0.5, 1.0]), TypeError, "whole numbers or text"),
        (lambda: cluster_split(np.zeros((3, 2, 2)), 2), ValueError, "Flatten"),
        (lambda: cluster_split(np.full((3, 2), np.nan), 2), ValueError, "finite"),
        (lambda: cluster_split(np.zeros((4, 2)), 2), ValueError, "normalize=False"),
        (lambda: cluster_split(np.ones((4, 2)), 2), ValueError, "at most 1, the number of different rows"),
        (lambda: cluster_split(np.eye(3), 5), ValueError, "<= 3"),
        (lambda: cluster_split(np.eye(3), 2, ids=[1, 1, 2]), ValueError, "1 2 times"),
    ],
)
def test_what_cannot_be_split_is_said(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
