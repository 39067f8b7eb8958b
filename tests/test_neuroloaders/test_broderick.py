"""Broderick et al.: MATLAB files in microvolts, words by Gentle, sentences by punctuation."""

import json

import numpy as np
import pytest
from fakes.bids_meeg import tones
from fakes.broderick import LOST, SENTENCES, TEXT, aligned, write_broderick

from neuroloaders.studies.broderick import BroderickStudy, sentence_starts


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_broderick(tmp_path_factory.mktemp("broderick"), seconds=2.0)


@pytest.fixture
def words(tmp_path):
    """Return what writes an alignment, and the study with it."""
    write_broderick(tmp_path, subjects=(1,), runs=(1,), seconds=0.5)

    def write(said):
        text = said if isinstance(said, str) else json.dumps(said)
        (tmp_path / "private/align1.json").write_text(text, encoding="utf-8")
        return BroderickStudy(tmp_path)

    return write


def test_recordings_are_ordered_by_number(root):
    names = [recording.name for recording in BroderickStudy(root).recordings]
    assert names == ["1_01", "1_02", "2_01", "10_01", "10_02"]
    assert BroderickStudy.matches(root)


def test_microvolts_become_volts_of_placed_electrodes(root):
    raw = BroderickStudy(root).raw("2_01")
    assert (raw.info["sfreq"], len(raw.ch_names), raw.ch_names[0]) == (128.0, 128, "A1")
    want = np.tile(tones(4, np.arange(256) / 128, 10.0), (32, 1)) + 2
    np.testing.assert_allclose(raw.get_data(), want * 1e-6, rtol=1e-12)
    assert raw.get_montage() is not None


@pytest.mark.parametrize("transcript", [True, False])
def test_sentences_are_cut_by_punctuation_and_keep_the_text_of_lost_words(tmp_path, transcript):
    write_broderick(tmp_path, subjects=(1,), runs=(1,), seconds=0.5, transcript=transcript)
    events = BroderickStudy(tmp_path).events()
    sentences = events.where(kind="sentence")
    assert sentences.split_group.tolist() == [" ".join(part) for part in SENTENCES]
    assert sentences.stimulus.tolist()[0] == "He was old man"
    found = [word for k, word in enumerate(w for part in SENTENCES for w in part) if k != LOST]
    assert events.where(kind="word").stimulus.tolist() == found


def test_phonemes_follow_each_other_from_the_begin_of_their_word(root):
    events = BroderickStudy(root).events("1_01")
    words, phonemes = events.where(kind="word"), events.where(kind="phoneme")
    np.testing.assert_allclose(phonemes.start[::2], words.start)
    np.testing.assert_allclose(phonemes.start[1::2], words.start + 0.1)
    np.testing.assert_allclose(phonemes.duration, np.tile([0.1, 0.2], len(words)))
    assert phonemes.extra["word"].tolist() == np.repeat(words.stimulus, 2).tolist()


def test_a_sound_begins_with_its_recording_and_lasts_as_long_as_its_file(root):
    study = BroderickStudy(root)
    sounds = study.events().where(kind="sound")
    assert sounds.start.tolist() == [0.0] * 5
    assert sounds.duration.tolist() == [5.5] * 5
    assert sounds.stimulus.tolist() == [f"private/audio{run}.wav" for run in (1, 2, 1, 1, 2)]
    assert all(path.is_file() for path in study.sounds().values())


def test_sentences_that_are_given_are_taken(words):
    said = aligned()
    for place, word in enumerate(said["words"]):
        word["sentence"] = "a" if place < 3 else "b" if place < 6 else "a"
    got = words(said).events().where(kind="sentence")
    plain = [word for part in SENTENCES for word in part]
    assert got.split_group.tolist() == [" ".join(plain[:3]), " ".join(plain[3:6]), " ".join(plain[6:])]


def test_sentences_begin_after_punctuation_quotes_and_abbreviations():
    text = 'Mr. Brown slept. "Up!" cried the boy... Then (at 3.5) he rose? ‘Yes.’ No end'
    starts = sentence_starts(text)
    parts = [text[start:stop] for start, stop in zip(starts, [*starts[1:], None], strict=True)]
    assert [part.strip() for part in parts] == [
        "Mr. Brown slept.", '"Up!" cried the boy...', "Then (at 3.5) he rose?", "‘Yes.’", "No end",
    ]  # fmt: skip
    assert sentence_starts(TEXT) == [0, 19, 33]


def test_what_is_wrong_with_an_alignment_is_said(words):
    said = aligned()
    said["words"][4]["startOffset"] += 1
    with pytest.raises(ValueError, match=r"align1\.json' cannot be read: word 4 is 'man', where the text has 'an'"):
        words(said).events()
    said = aligned()
    said["words"][1]["end"] = 0.0
    with pytest.raises(ValueError, match="word 1 ends before it begins"):
        words(said).events()
    said["words"][1]["end"] = "late"
    with pytest.raises(ValueError, match="word 1 has 'late' as 'end'"):
        words(said).events()
    del said["words"][1]["startOffset"]
    with pytest.raises(ValueError, match="has no 'startOffset'"):
        words(said).events()
    with pytest.raises(ValueError, match="no list 'words'"):
        words({"words": []}).events()
    with pytest.raises(ValueError, match="no JSON"):
        words("{").events()


def test_what_is_wrong_with_a_recording_is_said(tmp_path):
    from scipy.io import savemat

    write_broderick(tmp_path, subjects=(1,), runs=(1,), seconds=0.5)
    study = BroderickStudy(tmp_path)
    path = study.recordings[0].path
    savemat(path, {"eegData": np.zeros((64, 127)), "fs": 128.0})
    with pytest.raises(ValueError, match=r"Subject1_Run1\.mat' cannot be read: eegData has shape \(64, 127\)"):
        study.raw("1_01")
    savemat(path, {"eegData": np.full((64, 128), np.nan), "fs": 128.0})
    with pytest.raises(ValueError, match="NaN"):
        study.raw("1_01")
    savemat(path, {"fs": 128.0})
    with pytest.raises(ValueError, match="no variable 'eegData'"):
        study.raw("1_01")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match="no MATLAB file, or cut short"):
        study.raw("1_01")
    # The first bytes of a file of version 7.3, which is HDF5.
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(ValueError, match=r"version 7\.3"):
        study.raw("1_01")
