"""MEG-MASC: dicts in tables of events, names of sounds, sentences, sessions that are missing."""

import math

import numpy as np
import pytest
from fakes.meg_masc import BEGIN_S, STORIES, WORD_S, annotations, write_events, write_meg_masc

from neuroloaders.block_splits import split_blocks
from neuroloaders.studies.meg_masc import MEGMASCStudy, parse_annotation


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_meg_masc(tmp_path_factory.mktemp("masc"), seconds=2.0)


@pytest.fixture
def table(tmp_path):
    """Write one recording without its samples, and return what writes its table of events."""
    base = tmp_path / "sub-01/ses-0/meg/sub-01_ses-0_task-0"
    base.parent.mkdir(parents=True)
    base.with_name(base.name + "_meg.con").write_bytes(b"")

    def write(rows):
        write_events(f"{base}_events.tsv", rows)
        return MEGMASCStudy(tmp_path)

    return write


def test_annotation_is_what_python_wrote():
    said = {"a": 1, "b": -2.5, "c": "it's", "d": None, "e": [1, (2, "x")], "f": True}
    assert parse_annotation(repr(said)) == said
    got = parse_annotation("{'w': 'nan', 'x': nan, 'y': -inf, 'z': [nan]}")
    assert got["w"] == "nan"
    assert math.isnan(got["x"])
    assert got["y"] == -math.inf
    assert math.isnan(got["z"][0])


@pytest.mark.parametrize(
    "text",
    ["__import__('os').getcwd()", "{'a': open('x')}", "[1]", "word", "", "{1: 2}", "{'a': b}", "{" * 5000, "{'a'"],
)
def test_annotation_that_is_more_than_numbers_and_text_is_refused_and_never_run(text):
    with pytest.raises(ValueError, match="no dict"):
        parse_annotation(text)


def test_recordings_are_those_that_are_there(root):
    study = MEGMASCStudy(root)
    names = [recording.name for recording in study.recordings]
    assert names == ["01_0_0", "01_0_3", "01_1_0", "01_1_3", "02_0_0", "02_0_3"]
    assert study.subjects == ("01", "02")
    assert "01: 4 recordings in sessions 0, 1" in study.describe()
    assert MEGMASCStudy.matches(root)


def test_words_have_the_times_and_texts_of_the_table(root):
    words = MEGMASCStudy(root).events("01_0_0").where(kind="word")
    want = [(onset, said) for onset, _, said in annotations("lw1") if said["kind"] == "word"]
    assert words.start.tolist() == [onset for onset, _ in want]
    assert words.stimulus.tolist() == [said["word"] for _, said in want]
    assert "don't" in words.stimulus
    assert "nan" in words.stimulus
    assert np.all(words.duration == WORD_S)
    assert words.extra["stimulus_start"].tolist() == [said["start"] for _, said in want]


def test_sentences_are_runs_of_words_and_lists_are_told_apart(root):
    sentences = MEGMASCStudy(root).events("01_0_0").where(kind="sentence")
    assert sentences.stimulus.tolist() == [" ".join(words) for words in STORIES["lw1"]]
    assert sentences.extra["condition"].tolist() == ["sentence", "sentence", "word_list"]
    np.testing.assert_allclose(sentences.duration, [len(words) * WORD_S for words in STORIES["lw1"]])


def test_what_is_in_a_sentence_stays_with_it(root):
    events = MEGMASCStudy(root).events("01_0_3")
    for kind, per_sentence in (("word", 3), ("phoneme", 6)):
        got = events.where(kind=kind).split_group.tolist()
        assert got == ["A willow grew"] * per_sentence + ["It was black"] * per_sentence
    assert events.where(kind="phoneme").extra["word"].tolist()[:4] == ["A", "A", "willow", "willow"]
    assert set(split_blocks(events, min_block_s=0).uid) == {"A willow grew", "It was black"}


def test_sounds_are_found_in_lower_case_and_last_as_long_as_their_files(root):
    study = MEGMASCStudy(root)
    sounds = study.events().where(kind="sound")
    assert set(sounds.stimulus) == {"stimuli/audio/lw1_0.wav", "stimuli/audio/the_black_willow_0.wav"}
    assert sounds.duration.tolist() == [5.0] * 6
    assert sounds.start.tolist() == [BEGIN_S] * 6
    paths = study.sounds()
    assert len(paths) == 2
    assert all(path.is_file() for path in paths.values())


def test_a_sound_without_a_file_lasts_to_its_last_word(tmp_path):
    write_meg_masc(tmp_path, sounds=False, seconds=1.0)
    events = MEGMASCStudy(tmp_path).events("01_0_0")
    sound, words = events.where(kind="sound"), events.where(kind="word")
    assert sound.stimulus.tolist() == ["stimuli/audio/lw1_0.wav"]
    np.testing.assert_allclose(sound.duration, [(words.start + words.duration).max() - BEGIN_S])


def test_a_second_session_is_a_repetition_for_the_same_subject_only(root):
    study = MEGMASCStudy(root)
    sounds = study.events().where(kind="sound", stimulus="stimuli/audio/lw1_0.wav")
    assert dict(zip(sounds.recording.tolist(), sounds.repeat.tolist(), strict=True)) == {
        "01_0_0": 0, "01_1_0": 1, "02_0_0": 0,
    }  # fmt: skip
    assert study.events("01_1_0").where(kind="sound").repeat.tolist() == [0]


def test_sensors_are_gradiometers_with_their_places_and_bads(root):
    raw = MEGMASCStudy(root).raw("01_0_0")
    assert raw.ch_names == [f"MEG {k:03d}" for k in range(1, 7)]
    assert raw.info["bads"] == ["MEG 002"]


def test_what_is_wrong_with_a_table_is_said_with_file_and_line(table):
    good = annotations("lw1")
    for change, message in (
        ({"kind": "picture"}, r"events\.tsv' cannot be read: line 4 has the kind 'picture'"),
        ({"word": math.nan}, "line 4 says no 'word', but nan"),
    ):
        rows = [*good[:2], (good[2][0], 0.1, {**good[1][2], **change}), *good[3:]]
        with pytest.raises(ValueError, match=message):
            table(rows).events()
    without = {key: value for key, value in good[1][2].items() if key != "sequence_id"}
    with pytest.raises(ValueError, match="line 3: the word has no 'sequence_id'"):
        table([good[0], (1.0, 0.1, without)]).events()
    study = table(good)
    path = study.recordings[0].path.with_name("sub-01_ses-0_task-0_events.tsv")
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, text, message in (
        (1, "0.1\t0.1\tword\t1\t1", "line 2, trial_type: 'word' is no dict"),
        (2, "soon\t0.1\t{}\t1\t1", "line 3 has 'soon' in column 'onset'"),
        (3, "0.1\t0.1", "line 4 has 2 fields of 5"),
        (0, "onset\tduration\tkind\tvalue\tsample", "line 1 names no column 'trial_type'"),
    ):
        path.write_text("\n".join([*lines[:line], text, *lines[line + 1 :]]) + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            study.events()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"events of 01_0_0.*sub-01_ses-0_task-0_events\.tsv"):
        study.events()


def test_a_folder_without_recordings_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sub-\*/ses-\*/meg/\*_task-\*_meg\.con"):
        MEGMASCStudy(tmp_path).recordings  # noqa: B018
    with pytest.raises(FileNotFoundError, match="be a folder"):
        MEGMASCStudy(tmp_path / "nowhere")


def test_a_recording_of_another_name_is_refused(root):
    with pytest.raises(ValueError, match=r"'01_0_0'.*'03_0_0'"):
        MEGMASCStudy(root).events("03_0_0")
