"""Brennan & Hale: FieldTrip structs, trials that begin before their words, subjects who lack words."""

import numpy as np
import pytest
from fakes.bids_meeg import tones
from fakes.brennan import BEGINS, OFFSET, SFREQ, WORDS, times, write_brennan
from scipy.io import loadmat, savemat

from neuroloaders.studies.brennan import BrennanStudy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    missing = {"S03": (1, 6)}
    return write_brennan(tmp_path_factory.mktemp("brennan"), subjects=("S01", "S02", "S03"), missing=missing)


def test_subjects_are_those_of_the_paper(root):
    assert BrennanStudy(root).subjects == ("S01", "S03")
    assert BrennanStudy(root, exclude=()).subjects == ("S01", "S02", "S03")
    assert BrennanStudy.matches(root)


def test_words_begin_at_the_time_0_of_their_trials(root):
    got = BrennanStudy(root).events("S01").where(kind="word")
    want = [BEGINS[segment] + onset for (_, segment, _), (onset, _) in zip(WORDS, times(), strict=True)]
    np.testing.assert_allclose(got.start, want, atol=1e-9)
    assert got.stimulus.tolist() == [word for word, *_ in WORDS]
    np.testing.assert_allclose(got.duration, 0.4)


def test_published_compatibility_takes_the_first_sample_of_the_trial(root):
    ours, theirs = (
        BrennanStudy(root, compat=compat).events("S01").where(kind="word") for compat in (None, "published")
    )
    np.testing.assert_allclose(theirs.start - ours.start, (OFFSET + 1) / SFREQ, atol=1e-9)


def test_sounds_begin_where_their_words_fit_even_before_the_recording(root):
    study = BrennanStudy(root)
    sounds = study.events("S01").where(kind="sound")
    np.testing.assert_allclose(sounds.start, [-0.1, 4.0], atol=1e-9)
    assert sounds.duration.tolist() == [3.5, 3.5]
    assert all(path.is_file() for path in study.sounds().values())


def test_a_subject_who_lacks_words_has_the_others_and_the_same_split_groups(root):
    events = BrennanStudy(root).events("S03")
    assert events.where(kind="word").stimulus.tolist() == [w for k, (w, *_) in enumerate(WORDS) if k not in (1, 6)]
    whole = BrennanStudy(root).events("S01").where(kind="sentence")
    assert events.where(kind="sentence").split_group.tolist() == whole.split_group.tolist()
    assert events.where(kind="sentence").stimulus.tolist()[0] == "Alice tired"
    with pytest.raises(ValueError, match=r"proc\.trl has 7 rows, AliceChapterOne-EEG\.csv 9"):
        BrennanStudy(root, compat="published").events("S03")


def test_electrodes_are_in_volts_with_places_and_bads(root):
    study = BrennanStudy(root)
    for subject, bads in (("S01", ["7"]), ("S03", ["5", "41"])):
        raw = study.raw(subject)
        assert raw.ch_names == [str(k) for k in range(1, 62) if k != 29]
        assert raw.info["bads"] == bads
        assert raw.info["sfreq"] == SFREQ
        want = np.tile(tones(4, np.arange(raw.n_times) / SFREQ, 10.0), (15, 1)) * 1e-6
        np.testing.assert_allclose(raw.get_data(), want, rtol=1e-9)
        assert raw.get_montage() is not None


def _change(root, name, variable, change):
    path = root / name
    content = loadmat(path, simplify_cells=True)[variable]
    change(content)
    savemat(path, {variable: content})


def test_what_is_wrong_with_trials_is_said(tmp_path):
    write_brennan(tmp_path, subjects=("S01",))
    study, path = BrennanStudy(tmp_path), tmp_path / "proc/S01.mat"
    good = path.read_bytes()

    def late(proc):
        proc["trl"][4, 0] += 60

    def twice(proc):
        proc["trl"][1, 5] = 1

    def unknown(proc):
        proc["trl"][1, 5] = 10

    def elsewhere(proc):
        proc["trl"][1, 3] = 2

    for change, message in (
        (late, r"S01\.mat' cannot be read: the word 'she' \(5\) is 0\.120 s from where its sound puts it"),
        (twice, "a word twice"),
        (unknown, "the word 10"),
        (elsewhere, "row 2 of proc.trl is in segment 2, its word in 1"),
        (lambda proc: proc.pop("trl"), r"no field proc\.trl"),
        (lambda proc: proc.update(varnames=["segment"]), "6 columns, proc.varnames names 4"),
    ):
        _change(tmp_path, "proc/S01.mat", "proc", change)
        with pytest.raises(ValueError, match=message):
            study.events()
        path.write_bytes(good)
    assert len(BrennanStudy(tmp_path, max_jitter_s=0.2).events())


def test_what_is_wrong_with_a_recording_or_the_words_is_said(tmp_path):
    write_brennan(tmp_path, subjects=("S01",), seconds=1.0)
    study, path = BrennanStudy(tmp_path), tmp_path / "S01.mat"
    good = path.read_bytes()

    def gap(raw):
        raw["time"][100:] += 0.5

    for change, message in (
        (gap, "the times in raw.time are not 500 Hz apart"),
        (lambda raw: raw["hdr"].update(chanunit=["T"] * 61), "chanunit has 'T'"),
        (lambda raw: raw.update(trial=raw["trial"][:5]), r"raw\.trial has shape \(5, 500\), not \(61, T\)"),
    ):
        _change(tmp_path, "S01.mat", "raw", change)
        with pytest.raises(ValueError, match=message):
            study.raw("S01")
        path.write_bytes(good)
    table = tmp_path / "AliceChapterOne-EEG.csv"
    text = table.read_text(encoding="utf-8")
    for old, new, message in (
        (",Sentence,", ",Clause,", "no column 'Sentence'"),
        ("tired,1,1.600", "tired,1,soon", r"AliceChapterOne-EEG\.csv' cannot be read: line 4 lacks a number"),
        ("tired,1,1.600", "tired,1,9.000", "line 4 has no word, or one that ends before it begins"),
    ):
        table.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            BrennanStudy(tmp_path).events()
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"AliceChapterOne-EEG\.csv"):
        BrennanStudy(tmp_path).events()
