"""Splits of recordings by what was heard in them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.block_splits import hold_out, published_parts, split_blocks
from neuroloaders.events_table import EventTable


def sentences(*recordings, spacing=2.5, kind="sentence"):
    """One recording for each list of texts, a sentence every `spacing` seconds."""
    starts = np.concatenate([np.arange(len(texts)) * spacing for texts in recordings])
    names = np.concatenate([np.full(len(texts), f"rec-{k}") for k, texts in enumerate(recordings)])
    return EventTable(
        start=starts, recording=names, kind=kind, stimulus=[text for texts in recordings for text in texts]
    )


def test_published_rule_gives_the_published_parts():
    # Computed from the rule as published; the numbers in brackets are the draws.
    texts = {"a": "test", "b": "train", "sentence-0": "train", "once upon a time": "train"}  # .006 .732 .320 .372
    texts |= {"1": "train", "2": "test", "3": "valid", "61": "test"}  # .515 .133 .275 .094
    assert dict(zip(texts, published_parts(texts).tolist(), strict=True)) == texts
    names, counts = np.unique(published_parts(map(str, range(1000))), return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"test": 206, "valid": 103, "train": 691}


def test_short_blocks_are_joined_until_they_are_long_enough():
    split = split_blocks(sentences(list("abcde")), min_block_s=6)
    assert split.uid.tolist() == ["a,b,c", "d,e"]  # the last one has no end
    assert split.start.tolist() == [0.0, 7.5]
    assert split.stop.tolist() == [7.5, np.inf]
    assert split_blocks(sentences(list("abcde")), min_block_s=0).uid.tolist() == list("abcde")


def test_the_published_rule_hashes_joined_texts():
    split = split_blocks(sentences(list("abcde")), compat="published")
    assert split.part.tolist() == published_parts(["a,b,c", "d,e"]).tolist()


def test_published_rule_can_put_a_sentence_on_two_sides_and_ours_cannot():
    rng = np.random.default_rng(0)
    texts = [f"sentence-{k}" for k in range(60)]
    events = sentences(texts, rng.permutation(texts).tolist())

    def sides(split):
        parts = {}
        for uid, part in zip(split.uid, split.part, strict=True):
            for text in uid.split(","):
                parts.setdefault(text, set()).add(part)
        return max(map(len, parts.values()))

    assert sides(split_blocks(events, compat="published")) > 1
    assert sides(split_blocks(events)) == 1


@settings(max_examples=60, deadline=None)
@given(
    recordings=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=15), min_size=1, max_size=4),
    spacing=st.floats(0.5, 9),
    min_block_s=st.floats(0, 20),
    seed=st.integers(0, 5),
)
def test_no_stimulus_is_ever_on_two_sides(recordings, spacing, min_block_s, seed):
    events = sentences(*[[f"s{k}" for k in texts] for texts in recordings], spacing=spacing)
    split = split_blocks(events, min_block_s=min_block_s, valid=0.3, test=0.3, seed=seed)
    parts = split.parts_of(events)
    assert set(parts.tolist()) <= {"train", "valid", "test"}
    for stimulus in np.unique(events.stimulus):
        assert len(set(parts[events.stimulus == stimulus].tolist())) == 1
    backwards = EventTable(
        start=events.start[::-1], recording=events.recording[::-1], kind="sentence", stimulus=events.stimulus[::-1]
    )
    again = split_blocks(backwards, min_block_s=min_block_s, valid=0.3, test=0.3, seed=seed)
    if spacing > 0:  # order of rows does not matter
        assert again.part.tolist() == split.part.tolist()


def test_words_belong_to_the_block_in_which_they_begin():
    split = split_blocks(sentences(list("abcde")))
    words = EventTable(start=[-1.0, 0.0, 7.4, 7.5, 99.0], recording="rec-0", kind="word")
    assert split.block_of(words).tolist() == [-1, 0, 0, 1, 1]
    assert split.parts_of(words).tolist() == ["", *split.part[[0, 0, 1, 1]]]
    elsewhere = EventTable(start=[1.0], recording="other")
    assert split.parts_of(elsewhere).tolist() == [""]


def test_blocks_of_a_part_are_those_of_that_part():
    split = split_blocks(sentences([f"s{k}" for k in range(200)]), min_block_s=0)
    parts = [split.of_part(part) for part in ("train", "valid", "test")]
    assert sum(map(len, parts)) == len(split)
    assert all((part.part == name).all() for part, name in zip(parts, ("train", "valid", "test"), strict=True))


def test_held_out_sessions_are_tested_without_their_stimuli_in_training():
    events = sentences(["a", "b", "c"], ["c", "d", "e"], ["e", "f", "a"])
    part = hold_out(events, events.recording, test=["rec-2"], valid=["rec-1"])
    assert part.tolist() == ["", "train", "", "valid", "valid", "", "test", "test", "test"]
    kept = hold_out(events, events.recording, test=["rec-2"], shared="keep")
    assert kept.tolist() == ["train"] * 6 + ["test"] * 3
    with pytest.raises(ValueError, match="share no stimulus with train"):
        hold_out(events, events.recording, test=["rec-2"], shared="raise")


def test_what_cannot_be_split_is_named():
    events = sentences(["a", "b"])
    with pytest.raises(ValueError, match="There are 'sentence'"):
        split_blocks(events, kind="story")
    with pytest.raises(ValueError, match="'rec-9'"):
        hold_out(events, events.recording, test=["rec-9"])
    with pytest.raises(ValueError, match="leave something to train on"):
        hold_out(events, events.recording, test=["rec-0"])
    with pytest.raises(ValueError, match="nothing in common"):
        hold_out(events, events.recording, test=["rec-0"], valid=["rec-0"])
    with pytest.raises(ValueError, match="one entry for each"):
        hold_out(events, ["x"], test=["x"])
    with pytest.raises(ValueError, match="valid \\+ test"):
        published_parts(["a"], valid=0.6, test=0.6)
