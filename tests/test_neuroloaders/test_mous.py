"""MOUS: logs of Presentation, TextGrids, and the line from the clock of the one computer to that of the other."""

import numpy as np
import pytest
from fakes.mous import FILE_S, ONSET_S, SOUNDS, STEM, log_text, session, textgrid, write_mous

from neuroloaders.studies.mous import MOUSStudy
from neuroloaders.studies.mous_log import align_clocks, read_log
from neuroloaders.studies.textgrid import Interval, read_textgrid


@pytest.fixture(scope="module")
def mous(tmp_path_factory):
    root = tmp_path_factory.mktemp("mous")
    return root, write_mous(root)


def _log(tmp_path, content):
    path = tmp_path / "A2002-MEG-MOUS-Aud.log"
    path.write_bytes(content.encode("cp1252") if isinstance(content, str) else content)
    return path


def test_log_is_the_first_table_in_seconds(tmp_path):
    rows, _ = session()
    got = read_log(_log(tmp_path, log_text("A2002", rows)))
    assert [(row.kind, row.code) for row in got] == [(kind, code) for kind, code, _ in rows]
    np.testing.assert_allclose([row.time for row in got], [time for *_, time in rows], atol=0.5e-4)
    assert got[0].time == -1.2
    assert (got[0].line, got[1].line) == (6, 7)


def test_log_that_was_written_twice_is_read_once(tmp_path):
    rows, _ = session(n_trials=3)
    once = read_log(_log(tmp_path, log_text("A2002", rows)))
    assert [row.code for row in read_log(_log(tmp_path, log_text("A2002", rows, copies=2)))] == [r.code for r in once]
    short = log_text("A2002", rows[:4]) + log_text("A2002", rows)
    assert len(read_log(_log(tmp_path, short))) == len(rows)


def test_log_line_that_is_broken_after_a_full_stop_is_put_together(tmp_path):
    text = log_text("A2002", [("Picture", "huis.", 1.0), ("Picture", "FIX 3000", 2.0)]).replace("huis.", "huis.\r\n", 1)
    assert [(row.code, row.time) for row in read_log(_log(tmp_path, text))] == [("huis.", 1.0), ("FIX 3000", 2.0)]


def test_log_in_the_characters_of_windows_is_read(tmp_path):
    assert read_log(_log(tmp_path, log_text("A2002", [("Picture", "café", 1.0)])))[0].code == "café"


def test_what_is_wrong_with_a_log_is_said_with_its_line(tmp_path):
    rows, _ = session(n_trials=1)
    text = log_text("A2002", rows)
    with pytest.raises(ValueError, match=r"Aud\.log' cannot be read: line 7 has the time 'soon'"):
        read_log(_log(tmp_path, text.replace("\t3000\t", "\tsoon\t", 1)))
    with pytest.raises(ValueError, match="line 4 names no column 'Code'"):
        read_log(_log(tmp_path, text.replace("Code", "Name")))
    with pytest.raises(ValueError, match="no table of events"):
        read_log(_log(tmp_path, "Scenario - 5MEG\r\n"))
    with pytest.raises(FileNotFoundError, match="log of Presentation"):
        read_log(tmp_path / "none.log")


def test_clocks_are_aligned_whatever_triggers_are_lost_or_added():
    rng = np.random.default_rng(0)
    log = np.cumsum(rng.uniform(2.0, 7.0, 120))
    codes = np.where(np.arange(120) % 5, 20, 10)
    lost = rng.permutation(120)[:6]
    times = np.delete(log * (1 + 50e-6) - 31.7 + 5e-4 * rng.standard_normal(120), lost)
    extra = rng.uniform(times[0], times[-1], 15)
    times, order = np.append(times, extra), np.argsort(np.append(times, extra))
    all_codes = np.append(np.delete(codes, lost), np.full(15, 20))[order]
    got = align_clocks(log, codes, times[order], all_codes, path="log")
    assert 114 <= got.n_matched <= 116
    # Half a millisecond of jitter in 114 triggers over 9 minutes: the line is right to a few ten microseconds.
    np.testing.assert_allclose(log * got.rate + got.offset, log * (1 + 50e-6) - 31.7, atol=2e-4)
    assert got(log[3]) == log[3] * got.rate + got.offset


def test_clocks_of_another_session_are_not_aligned():
    rng = np.random.default_rng(1)
    log, times = np.cumsum(rng.uniform(2.0, 7.0, 60)), np.cumsum(rng.uniform(2.0, 7.0, 60))
    codes = np.full(60, 20)
    with pytest.raises(ValueError, match=r"of its 60 synchronising events \d+ have a trigger within 10 ms"):
        align_clocks(log, codes, times, codes, path="A2002.log")
    with pytest.raises(ValueError, match="none of its triggers"):
        align_clocks(log, codes, times, codes + 1, path="A2002.log")


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_textgrid_long_or_short_is_the_same(tmp_path, short, encoding):
    path = tmp_path / "x.TextGrid"
    path.write_bytes(textgrid(["Toen", "één"], [(0.05, 0.31), (0.31, 0.41)], short=short).encode(encoding))
    got = read_textgrid(path)
    assert list(got) == ["ORT-MAU", "KAN-MAU", "MAU"]
    words = [Interval(0, 0.05, ""), Interval(0.05, 0.31, "Toen"), Interval(0.31, 0.41, "één"), Interval(0.41, 1, "")]
    assert got["ORT-MAU"] == words
    assert [part.text for part in got["MAU"]] == ["<p:>", "t", "é", ""]


def test_textgrid_with_quotes_numbers_and_points(tmp_path):
    path = tmp_path / "x.TextGrid"
    text = 'File type = "ooTextFile"\r\nObject class = "TextGrid"\r\n\r\n0\r\n2\r\n<exists>\r\n1\r\n'
    path.write_text(text + '"TextTier"\r\n"a ""b"" 7"\r\n0\r\n2\r\n1\r\n1.5e0\r\n"say ""3 4"""\r\n', encoding="utf-8")
    assert read_textgrid(path) == {'a "b" 7': [Interval(1.5, 1.5, 'say "3 4"')]}


def test_what_is_wrong_with_a_textgrid_is_said_with_its_line(tmp_path):
    path = tmp_path / "x.TextGrid"
    good = textgrid(["Toen"], [(0.05, 0.31)])
    for text, message in (
        (good[: len(good) // 2], "ends in the middle"),
        (good.replace("xmin = 0.050000", "xmin = early", 1), 'line 22 has "Toen" where a number is due'),
        (good.replace("xmax = 0.310000", "xmax = 0.010000", 1), "line 21 has an interval from 0.05 to 0.01 s"),
        ('"ooTextFile" "Pitch 1"', "does not begin like a TextGrid"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read_textgrid(path)
    with pytest.raises(FileNotFoundError):
        read_textgrid(tmp_path / "none.TextGrid")


def test_sounds_begin_where_the_drifting_clock_puts_their_files(mous):
    root, played = mous
    study = MOUSStudy(root)
    assert [recording.name for recording in study.recordings] == ["A2002", "A2003"]
    for subject, sounds in played.items():
        got = study.events(subject).where(kind="sound")
        assert got.stimulus.tolist() == [f"stimuli/audio_files/{STEM}{number}.wav" for number, *_ in sounds]
        # Half a unit of the log's clock, and as much of the triggers'.
        np.testing.assert_allclose(got.start, [begin for *_, begin in sounds], atol=1e-4)
        assert got.duration.tolist() == [FILE_S] * len(sounds)
        names = {"ZINNEN": "sentence", "WOORDEN": "word_list"}
        assert got.extra["condition"].tolist() == [names[context] for _, context, _ in sounds]


def test_words_and_phonemes_are_where_the_textgrid_has_them_in_the_file(mous):
    root, played = mous
    events = MOUSStudy(root).events("A2002")
    begin = played["A2002"][1][2]
    words = events.where(kind="word").select(slice(2, 5))
    assert words.stimulus.tolist() == SOUNDS["045"][1]
    np.testing.assert_allclose(words.start, [begin + start for start, _ in SOUNDS["045"][2]], atol=1e-4)
    assert set(words.split_group) == {"het café sluit"}
    phonemes = events.where(kind="phoneme").select(slice(2, 5))
    assert phonemes.stimulus.tolist() == ["h", "c", "s"]
    assert phonemes.extra["word"].tolist() == SOUNDS["045"][1]
    assert set(phonemes.split_group) == {"het café sluit"}


def test_published_compatibility_counts_from_the_onset_of_speech_and_groups_by_stimuli_txt(mous):
    root, _ = mous
    ours, theirs = MOUSStudy(root).events("A2002"), MOUSStudy(root, compat="published").events("A2002")
    np.testing.assert_allclose(theirs.start - ours.start, ONSET_S, atol=1e-5)
    assert theirs.split_group[:3].tolist() == ["61", "61", "61"]
    assert ours.split_group[:3].tolist() == ["toen de"] * 3


def test_triggers_are_read_from_the_stimulus_channel_where_the_table_has_none(tmp_path, mous):
    write_mous(tmp_path, subjects=("A2002",), triggers="channel")
    got, want = MOUSStudy(tmp_path).events(), MOUSStudy(mous[0]).events("A2002")
    np.testing.assert_allclose(got.start, want.start, atol=1 / 600)


def test_sensors_are_gradiometers_without_references(mous):
    raw = MOUSStudy(mous[0]).raw("A2003")
    assert raw.ch_names == ["MLC11-2908", "MLC12-2908", "MLC13-2908", "MLC14-2908"]


def test_subjects_with_two_runs_and_those_who_read_are_left_out(tmp_path):
    write_mous(tmp_path, subjects=("A2002", "A2011"))
    assert MOUSStudy(tmp_path).subjects == ("A2002",)
    assert MOUSStudy(tmp_path, exclude=()).subjects == ("A2002", "A2011")
    assert MOUSStudy.matches(tmp_path)


def test_what_is_missing_from_mous_is_named(tmp_path):
    write_mous(tmp_path, subjects=("A2002",))
    study = MOUSStudy(tmp_path)
    log = tmp_path / "sourcedata/meg_task/A2002-MEG-MOUS-Aud.log"
    text = log.read_bytes()
    log.write_bytes(text.replace(b"15 End of file", b"15 End", 1))
    with pytest.raises(ValueError, match=r"line \d+ starts the sound 186, but no 'Audio onset' or 'End of file'"):
        study.events()
    log.write_bytes(text)
    (tmp_path / f"derivatives/phonemes/{STEM}704.TextGrid").unlink()
    with pytest.raises(FileNotFoundError, match=f"{STEM}704.TextGrid"):
        study.events()
    log.unlink()
    with pytest.raises(FileNotFoundError, match=r"sourcedata/meg_task/\*A2002\*\.log"):
        study.events()
