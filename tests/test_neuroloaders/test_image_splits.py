"""Images, and by default categories, are on one side only, whatever the table."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloaders.events_table import EventTable
from neuroloaders.image_splits import IMAGE_PARTS, VALID_BY, split_images


def table(images, categories, rng=None, repeats=1):
    """Presentations of images in some order."""
    rows = np.repeat(np.arange(len(images)), repeats)
    rows = rows if rng is None else rng.permutation(rows)
    return EventTable(
        start=np.arange(len(rows), dtype=float), recording="r", kind="image",
        stimulus=[images[k] for k in rows], split_group=[categories[k] for k in rows],
    )  # fmt: skip


def things(n_categories=60, n_exemplars=4, n_test=8):
    """Categories with some exemplars, and one test image more in each of the first ones."""
    categories = [f"c{c}" for c in range(n_categories) for _ in range(n_exemplars)]
    images = [f"c{c}/{k}" for c in range(n_categories) for k in range(n_exemplars)]
    test = [f"test/{c}" for c in range(n_test)]
    return table(images + test, categories + [f"c{c}" for c in range(n_test)]), test


@pytest.mark.parametrize("valid_by", VALID_BY)
@given(seed=st.integers(0, 10**6), n_categories=st.integers(60, 90), repeats=st.integers(1, 3))
def test_no_image_is_on_two_sides_and_no_test_category_is_learned_from(valid_by, seed, n_categories, repeats):
    rng = np.random.default_rng(seed)
    category = [f"c{k}" for k in rng.integers(0, n_categories, 200)]
    images = [f"i{k}" for k in range(200)]
    events = table(images, category, rng, repeats)
    test = rng.choice(images, 10, replace=False).tolist()
    split = split_images(events, test, valid=0.4, seed=seed, valid_by=valid_by)
    part = split.parts_of(events)
    assert set(part) <= set(IMAGE_PARTS)
    for image in np.unique(events.stimulus):
        assert len(set(part[events.stimulus == image])) == 1
    sides = {name: set(events.split_group[part == name]) for name in IMAGE_PARTS}
    assert sides["test"].isdisjoint(sides["train"] | sides["valid"])
    assert set(events.stimulus[part == "test"]) == set(test)
    if valid_by == "category":
        assert sides["train"].isdisjoint(sides["valid"])
    # Other orders and further repetitions change nothing.
    again = split_images(table(images, category, rng, repeats + 1), test, valid=0.4, seed=seed, valid_by=valid_by)
    assert np.array_equal(again.part, split.part)


def test_things_leaves_the_published_numbers():
    events, test = things(1854, 12, 200)
    split = split_images(events, test)
    counts = {name: len(split.images(name)) for name in IMAGE_PARTS}
    assert counts["train"] + counts["valid"] == 19_848
    assert counts["large"] == 2400
    assert counts["test"] == 200
    assert 0.17 < counts["valid"] / 19_848 < 0.23
    assert len(split.select(events, "large")) == 2400


def test_images_that_are_not_in_the_split_have_no_part():
    events, test = things()
    split = split_images(events, test)
    other = dataclasses.replace(events, stimulus=np.full(len(events), "zzz"))
    assert set(split.parts_of(other)) == {""}
    assert len(split.select(other, "train")) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test": ["nothing"]}, "never shown"),
        ({"test": []}, "'test'"),
        ({"valid": 0.0}, "'valid'"),
        ({"valid": 1.0}, "'train'"),
        ({"valid_by": "colour"}, "valid_by"),
    ],
)
def test_splits_that_cannot_be_are_refused(change, says):
    events, test = things()
    with pytest.raises(ValueError, match=says):
        split_images(**{"events": events, "test": test, **change})


def test_an_image_of_two_categories_is_refused():
    events, test = things()
    groups = events.split_group.copy()
    groups[0] = "another"
    twice = dataclasses.replace(events, split_group=groups)
    rows = np.concatenate([np.arange(len(events)), [0]])
    both = twice.select(rows)
    groups = both.split_group.copy()
    groups[-1] = "c0"
    with pytest.raises(ValueError, match="one category"):
        split_images(dataclasses.replace(both, split_group=groups), test)
