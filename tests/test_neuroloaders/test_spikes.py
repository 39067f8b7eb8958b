"""The set of events: what it refuses, and what selecting and splitting keeps."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.spikes import SpikeSet, gather_events


def spikes(**change):
    """Four samples of three classes by two speakers; sample 1 is empty."""
    fields = {
        "times_ms": torch.tensor([0.5, 1, 9, 2, 2, 0]),
        "units": torch.tensor([0, 4, 1, 2, 3, 4], dtype=torch.int32),
        "offsets": torch.tensor([0, 3, 3, 5, 6]),
        "labels": torch.tensor([0, 1, 0, 2]),
        "n_units": 5,
        "classes": ("one", "two", "three"),
        "name": "tiny",
        "split": "train",
        "groups": torch.tensor([0, 0, 1, 0]),
        "group_names": ("ann", "ben"),
    }
    return SpikeSet(**{**fields, **change})


def as_lists(spike_set):
    return [[part.tolist() for part in spike_set.sample(i)] for i in range(len(spike_set))]


def test_samples_are_stretches_of_the_list():
    assert as_lists(spikes()) == [[[0.5, 1, 9], [0, 4, 1]], [[], []], [[2, 2], [2, 3]], [[0], [4]]]
    assert len(spikes()) == 4
    assert repr(spikes()) == "SpikeSet(tiny train: 4 samples, 6 events, 5 units, 3 classes)"


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_selection_holds_the_chosen_samples_in_order_and_copies(rows):
    source = spikes()
    chosen = source.select(rows, "valid")
    assert as_lists(chosen) == [as_lists(source)[row] for row in rows]
    assert chosen.labels.tolist() == source.labels[rows].tolist()
    assert chosen.groups.tolist() == source.groups[rows].tolist()
    assert (chosen.split, chosen.n_units, chosen.classes) == ("valid", 5, source.classes)
    chosen.times_ms.fill_(-1)
    assert as_lists(source) == as_lists(spikes())


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=8), data=st.data())
def test_gathered_events_are_those_of_the_samples(counts, data):
    offsets = torch.tensor([0, *counts]).cumsum(0)
    rows = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=8))
    rows = torch.tensor(rows, dtype=torch.int64)
    events, new = gather_events(offsets, rows)
    expected = [list(range(offsets[row], offsets[row + 1])) for row in rows.tolist()]
    assert [events[new[i] : new[i + 1]].tolist() for i in range(len(rows))] == expected
    known, again = gather_events(offsets, rows, n_events=len(events))
    assert torch.equal(events, known)
    assert torch.equal(new, again)


def test_a_mask_selects_as_row_numbers_do():
    mask = torch.tensor([True, False, False, True])
    assert as_lists(spikes().select(mask)) == as_lists(spikes().select([0, 3]))
    assert as_lists(spikes().select(mask.numpy())) == as_lists(spikes().select([0, 3]))


def test_holding_out_shares_the_samples_between_the_parts():
    many = spikes().select(list(range(4)) * 10)
    train, valid = many.holdout(0.2, seed=1)
    assert (train.split, valid.split) == ("train", "valid")
    assert len(train) + len(valid) == 40
    assert valid.labels.bincount().tolist() == [4, 2, 2]
    assert sorted(as_lists(train) + as_lists(valid)) == sorted(as_lists(many))


def test_a_speaker_held_out_is_in_one_part_only():
    others, ben = spikes().hold_group_out("ben", "test")
    assert ben.split == "test"
    assert as_lists(ben) == [as_lists(spikes())[2]]
    assert ben.groups.tolist() == [1]
    assert others.groups.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="'ben', which made no samples"):
        others.hold_group_out("ben")
    with pytest.raises(ValueError, match="'ann', which made all samples"):
        others.hold_group_out("ann")


def test_a_set_without_any_event_is_a_set():
    silent = spikes(
        times_ms=torch.zeros(0), units=torch.zeros(0, dtype=torch.int32), offsets=torch.zeros(5, dtype=torch.int64)
    )
    assert as_lists(silent.select([3, 0])) == [[[], []], [[], []]]


def test_times_may_fall_from_one_sample_to_the_next_also_past_empty_ones():
    spikes(times_ms=torch.tensor([5.0, 6, 7, 3, 4, 0]))
    spikes(times_ms=torch.tensor([5.0, 6, 7, 3, 4, 0]), offsets=torch.tensor([0, 0, 3, 5, 6]))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"times_ms": torch.tensor([0.5, 1, 0, 2, 2, 0])}, ValueError, "step back at event 2, in sample 0. Sort them"),
        ({"times_ms": torch.tensor([0.5, 1, 9, 2, 1, 0])}, ValueError, "a step back at event 4, in sample 2"),
        ({"times_ms": torch.tensor([0.5, 1, torch.nan, 2, 2, 0])}, ValueError, "`times_ms` must hold finite numbers"),
        ({"times_ms": torch.zeros(6, dtype=torch.float64)}, TypeError, "`times_ms` must be a tensor of torch.float32"),
        ({"times_ms": torch.zeros(5)}, ValueError, "same length, got times_ms: 5, units: 6"),
        ({"units": torch.tensor([0, 5, 1, 2, 3, 4], dtype=torch.int32)}, ValueError, "must lie in 0..4, got 0..5"),
        ({"units": torch.zeros(6, dtype=torch.int64)}, TypeError, "`units` must be a tensor of torch.int32"),
        ({"offsets": torch.tensor([0, 3, 3, 5, 5])}, ValueError, "must rise from 0 to the number of events, 6"),
        ({"offsets": torch.tensor([0, 4, 3, 5, 6])}, ValueError, "`offsets` must never fall, .* after sample 1"),
        ({"offsets": torch.tensor([0, 3, 6])}, ValueError, "one entry more than the 4 labels, got 3"),
        ({"labels": torch.tensor([0, 1, 0, 3])}, ValueError, "`labels` must lie in 0..2, one for each class, got 0..3"),
        ({"groups": torch.tensor([0, 0, 2, 0])}, ValueError, "`groups` must lie in 0..1, one for each group name"),
        ({"groups": torch.tensor([0, 0])}, ValueError, "same length, got labels: 4, groups: 2"),
        ({"split": "dev"}, ValueError, "`split` must be one of"),
        ({"n_units": 0}, ValueError, "`n_units` must be a whole number >= 1"),
        ({"unit_shape": (2, 2)}, ValueError, r"`unit_shape` must multiply to n_units = 5, got \(2, 2\)"),
    ],
)  # fmt: skip
def test_unsound_sets_are_refused_with_a_reason(change, error, text):
    with pytest.raises(error, match=text):
        spikes(**change)


def test_wrong_requests_are_refused_with_a_reason():
    with pytest.raises(ValueError, match=r"`rows` must lie in 0..3, got -1..2"):
        spikes().select([2, -1])
    with pytest.raises(ValueError, match=r"`rows` must have shape \(4,\)"):
        spikes().select(torch.tensor([True]))
    with pytest.raises(ValueError, match="`index` must be a whole number >= 0 and <= 3"):
        spikes().sample(4)
    with pytest.raises(ValueError, match="`split` must be 'train'"):
        spikes(split="test").holdout(0.5)
    with pytest.raises(ValueError, match="`group` must be one of 'ann', 'ben'"):
        spikes().hold_group_out("eve")
    with pytest.raises(ValueError, match="`groups` must be known"):
        dataclasses.replace(spikes(), groups=None).hold_group_out("ann")
    with pytest.raises(ValueError, match="`labels` must hold at least one sample"):
        spikes().select([])


# The `select` of fields must not go stale when a field is added.
def test_selection_changes_these_fields_only():
    changed = {"times_ms", "units", "offsets", "labels", "groups", "split"}
    source = spikes(provenance="made by hand", unit_shape=(5,))
    chosen = source.select([0], "valid")
    for field in dataclasses.fields(SpikeSet):
        if field.name not in changed:
            assert getattr(chosen, field.name) == getattr(source, field.name)
