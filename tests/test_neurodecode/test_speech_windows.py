"""Windows of speech and the segments of sound they stand for: where they lie, what is heard, what is the same."""

import numpy as np
import pytest
import torch
from fakes import speech

from neurodecode.meeg.segments import FEATURE_SCALES, Segments, fit_feature_scale
from neurodecode.meeg.speech_windows import grid_windows, shifted, word_windows
from neuroloaders.block_splits import split_blocks
from neuroloaders.events_table import EventTable
from neuroloaders.window_loader import WindowLoader
from neuroloaders.window_times import n_samples

N_TIMES = n_samples(-0.5, 2.5, 60.0)


def both(part, **options):
    made, split = speech.study()
    return [
        f(made.recordings, made.events, split, part, **speech.ENDS, **options) for f in (grid_windows, word_windows)
    ]


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_windows_lie_in_blocks_of_their_part_and_hear_their_place_in_the_story(part):
    made, split = speech.study()
    for windows in both(part):
        assert len(windows) > 20
        block = windows.extra["block"]
        assert (split.part[block] == part).all()
        assert (split.recording[block] == windows.recording).all()
        assert (windows.start - 0.5 >= split.start[block] - 1e-6).all()
        assert (windows.start + 2.5 < split.stop[block] + 1 / 60).all()
        for start, name, heard in zip(windows.start, windows.recording, windows.extra["stimulus_start"], strict=True):
            sound = made.events.where(recording=str(name), kind="sound")
            assert heard == pytest.approx(start - sound.start[0])
        # All of them can be cut.
        assert WindowLoader(made.recordings, windows, **speech.ENDS).n_samples == len(windows)


def test_no_sample_of_a_training_window_is_in_a_test_window():
    made, _ = speech.study()
    taken = {}
    for part in ("train", "valid", "test"):
        samples = set()
        for windows in both(part):
            for name, start in zip(windows.recording, windows.start, strict=True):
                first = round((start - 0.5) * 60)
                samples |= {(str(name), k) for k in range(first, first + N_TIMES)}
        taken[part] = samples
    # A window may end with the sample at which the next block begins: it lasts until there.
    assert len(taken["train"] & taken["test"]) <= 4 * len(made.recordings)
    assert len(taken["valid"] & taken["test"]) <= 4 * len(made.recordings)
    assert len(taken["train"]) > 20 * len(taken["train"] & taken["test"])


def test_words_know_their_place_in_the_sentence():
    made, _ = speech.study()
    _, windows = both("test")
    for word, sentence, index in zip(*(windows.extra[c] for c in ("word", "sentence", "word_index")), strict=True):
        assert sentence.split()[index] == word
    since = windows.extra["sentence_start"]
    assert (since[windows.extra["word_index"] == 0] < 1e-6).all()
    follows = (np.diff(windows.extra["word_index"]) == 1) & (
        windows.extra["sentence"][1:] == windows.extra["sentence"][:-1]
    )
    assert (np.diff(since)[follows] > 0).all()


def test_a_sound_that_begins_within_its_file_is_placed_there():
    made, split = speech.study()
    offset = np.where(made.events.kind == "sound", 100.0, 0.0)
    moved = made.events.with_column("stimulus_start", offset)
    plain, late = (
        word_windows(made.recordings, events, split, "test", **speech.ENDS) for events in (made.events, moved)
    )
    assert late.extra["stimulus_start"] == pytest.approx(plain.extra["stimulus_start"] + 100)


def test_shifting_moves_the_brain_and_keeps_the_sound():
    made, _ = speech.study()
    _, windows = both("test")
    moved = shifted(made.recordings, windows, 10.0, **speech.ENDS)
    rows = moved.extra["row"]
    assert np.abs(moved.start - windows.start[rows]) == pytest.approx(10.0)
    assert (moved.extra["stimulus_start"] == windows.extra["stimulus_start"][rows]).all()
    # One that would leave its recording goes the other way.
    longest = max(r.duration for r in made.recordings)
    last = windows.select([int(windows.start.argmax())])
    back = shifted(made.recordings, last, longest - last.start[0], **speech.ENDS)
    assert back.start[0] < last.start[0]
    with pytest.raises(ValueError, match="`shift_s` must keep some window inside its recording"):
        shifted(made.recordings, windows, 1e4, **speech.ENDS)


def test_same_segment_means_same_features_and_all_subjects_share_them():
    made, _ = speech.study()
    for windows in both("test"):
        segments = Segments(windows, made.features, tmin=-0.5, sfreq=60.0, n_times=N_TIMES)
        loader = WindowLoader(made.recordings, windows, targets=made.features, batch_size=10_000, **speech.ENDS)
        (batch,) = loader
        whole = segments[:]
        assert torch.equal(whole[segments.number[batch.event]], batch.target)
        assert len(torch.unique(whole.flatten(1), dim=0)) == len(segments) == segments.shape[0]
        assert segments.shape[1:] == (8, N_TIMES)
    # Every word is heard by both.
    assert len(segments) == len(windows) / 2
    np.testing.assert_allclose(segments.norms(torch.arange(len(segments))), whole.flatten(1).norm(dim=1), rtol=1e-6)


def test_segments_do_not_depend_on_the_order_of_windows():
    made, _ = speech.study()
    _, windows = both("test")
    order = np.random.default_rng(0).permutation(len(windows))
    settings = {"tmin": -0.5, "sfreq": 60.0, "n_times": N_TIMES}
    a, b = (Segments(table, made.features, **settings) for table in (windows, windows.select(order)))
    assert torch.equal(a[:], b[:])
    assert (a.number[order] == b.number).all()


def test_two_words_in_one_frame_are_two_segments_with_labels():
    made, _ = speech.study()
    windows = EventTable(
        start=[5.0, 5.001], recording=made.recordings.names[0], stimulus="story-0",
        extra={"stimulus_start": [3.0, 3.001]},
    )  # fmt: skip
    settings = {"tmin": -0.5, "sfreq": 60.0, "n_times": N_TIMES}
    assert len(Segments(windows, made.features, **settings)) == 1
    assert len(Segments(windows, made.features, labels=["a", "b"], **settings)) == 2


@pytest.mark.parametrize("how", FEATURE_SCALES)
def test_features_are_standardised_by_training_segments(how):
    made, _ = speech.study()
    windows, _ = both("train")
    settings = {"tmin": -0.5, "sfreq": 60.0, "n_times": N_TIMES}
    raw = Segments(windows, made.features, **settings)
    scaled = Segments(windows, made.features, scale=fit_feature_scale(raw, how), **settings)[:].double()
    axes = {"all": (0, 1, 2), "each": (0, 2)}.get(how)
    if axes is None:
        assert torch.equal(scaled.float(), raw[:])
    else:
        assert scaled.mean(axes).abs().max() < 1e-5
        assert (scaled.std(axes, correction=0) - 1).abs().max() < 1e-5


def test_mistakes_are_named():
    made, split = speech.study()
    arguments = (made.recordings, made.events, split)
    with pytest.raises(ValueError, match="`part` must be one of 'train', 'valid', 'test', got 'dev'"):
        grid_windows(*arguments, "dev", **speech.ENDS)
    with pytest.raises(ValueError, match="blocks that hold a window of 103 s, got none in the part 'test'"):
        word_windows(*arguments, "test", tmin=-0.5, tmax=102.5)
    with pytest.raises(ValueError, match="`sound` must be a kind of event that is there, got 'audio'"):
        grid_windows(*arguments, "train", sound="audio", **speech.ENDS)
    with pytest.raises(ValueError, match="`kind` must be a kind of event in these recordings, got 'phoneme'"):
        word_windows(*arguments, "train", kind="phoneme", **speech.ENDS)
    silent = made.events.select(~((made.events.kind == "sound") & (made.events.recording == "S02_0")))
    with pytest.raises(ValueError, match="must have an event of kind 'sound' wherever there is a word, got none at"):
        word_windows(made.recordings, silent, split_blocks(silent), "test", **speech.ENDS)
    with pytest.raises(TypeError, match="`targets` must be StimulusSequences with a rate"):
        Segments(both("test")[0], None, tmin=-0.5, sfreq=60.0, n_times=10)
