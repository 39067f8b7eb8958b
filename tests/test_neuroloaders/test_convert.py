"""Conversion of studies: rates and times, whole or not there, gone on with after whatever interrupted it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from fakes.bids_meeg import meg_raw, save_fif, tones, write_bids_eeg, write_tsv
from fakes.broderick import write_broderick
from fakes.meg_masc import write_meg_masc

from neuroloaders import convert
from neuroloaders.convert import continuous_recording, convert_study, open_sounds
from neuroloaders.recording_files import open_events, open_recordings
from neuroloaders.resampling import rate_ratio, resample, resampled_length
from neuroloaders.studies.bids_recordings import BIDSStudy
from neuroloaders.studies.broderick import BroderickStudy
from neuroloaders.studies.meg_masc import MEGMASCStudy

NAMES = ("01_0_0", "01_0_3", "01_1_0", "01_1_3", "02_0_0", "02_0_3")


@pytest.fixture(scope="module")
def masc(tmp_path_factory):
    return MEGMASCStudy(write_meg_masc(tmp_path_factory.mktemp("masc"), seconds=3.0))


@pytest.fixture
def done(masc, tmp_path):
    convert_study(masc, tmp_path / "out", progress=False)
    return tmp_path / "out"


def _stamps(folder):
    return {path.name: (path / "data.npy").stat().st_mtime_ns for path in (folder / "recordings").iterdir()}


@pytest.mark.parametrize(
    "rates", [(1000, 120), (1200, 120), (500, 120), (128, 120), (600.614990234375, 120), (100, 120)]
)
def test_a_tone_is_the_same_tone_at_the_other_rate(rates):
    before, after = rates
    times = np.arange(round(6 * before)) / before
    drift = 0.0 if float(before).is_integer() else 0.01
    for f_hz in (1.0, 10.0, 0.88 * min(rates) / 2):
        got = resample(np.sin(2 * np.pi * f_hz * times + 0.3)[None], before, after)[0]
        want = np.sin(2 * np.pi * f_hz * np.arange(len(got)) / after + 0.3)
        # A rate that is met to a hundredth of a sample is off by that much phase at the end.
        np.testing.assert_allclose(got[100:-100], want[100:-100], atol=2e-4 + 2 * np.pi * f_hz / after * drift)


def test_what_the_rate_cannot_hold_is_taken_out_and_not_folded_back():
    times = np.arange(12_000) / 1000
    for f_hz in (60.0, 62.0, 70.0, 100.0, 240.0, 499.0):
        got = resample(np.sin(2 * np.pi * f_hz * times)[None], 1000, 120)[0]
        assert np.abs(got[100:-100]).max() < 2e-4, f_hz


def test_offsets_and_drifts_pass_without_ringing_at_the_ends():
    line = 0.03 + 1e-3 * np.arange(5000)[None] / 1000
    np.testing.assert_allclose(resample(line, 1000, 120)[0], 0.03 + 1e-3 * np.arange(600) / 120, rtol=1e-7)


def test_an_event_stays_at_its_second():
    # A click at 1.7 s, and one at 3.25 s: linear phase moves neither.
    data = np.zeros((1, 5000))
    data[0, [1700, 3250]] = 1
    got = resample(data, 1000, 120)[0]
    assert got.argmax() in (204, 390)
    assert sorted(np.argsort(got)[-2:].tolist()) == [204, 390]


def test_ratios_are_exact_where_they_can_be_and_drift_by_less_than_a_hundredth_of_a_sample():
    assert rate_ratio(1000, 120, 10**7) == (3, 25)
    assert rate_ratio(128, 120, 10**7) == (15, 16)
    n = 600 * 3600
    up, down = rate_ratio(600.614990234375, 120, n)
    assert abs(up / down - 120 / 600.614990234375) * n <= 0.01
    assert resampled_length(1001, 1000, 120) == 121
    assert len(resample(np.zeros((1, 1001)), 1000, 120)[0]) == 121
    with pytest.raises(ValueError, match="whole numbers"):
        rate_ratio(1000, np.pi * 30, 10**9)


def test_a_study_becomes_memory_maps_at_one_rate_with_the_signal_of_its_files(masc, done):
    recordings = open_recordings(done)
    assert recordings.names == NAMES
    recording = recordings["01_0_0"]
    assert recording.is_mapped
    assert (recording.sfreq, recording.data.dtype, recording.start) == (120.0, np.float32, 0.0)
    assert recording.bads == ("MEG 002",)
    assert recording.ch_names == tuple(f"MEG {k:03d}" for k in range(1, 7))
    want = tones(6, np.arange(recording.n_times) / 120, 1e-13)
    np.testing.assert_allclose(recording.data[:, 60:-60], want[:, 60:-60], atol=1e-16)
    assert recording.positions.shape == (6, 2)
    assert recording.positions.min() == 0.0
    assert recording.positions.max() == 1.0
    assert "resampled to 120 Hz" in recording.provenance
    assert repr(open_events(done)) == repr(masc.events())


def test_each_sound_is_listed_once(masc, done):
    sounds = open_sounds(done)
    assert sorted(sounds) == ["stimuli/audio/lw1_0.wav", "stimuli/audio/the_black_willow_0.wav"]
    assert all(path.is_file() for path in sounds.values())
    assert set(open_events(done).where(kind="sound").stimulus) == set(sounds)


def test_reading_some_channels_at_a_time_changes_nothing(masc, monkeypatch):
    whole = continuous_recording(masc, "01_0_0")
    monkeypatch.setattr(convert, "_BLOCK_BYTES", 8 * 3000 * 4)
    assert np.array_equal(continuous_recording(masc, "01_0_0").data, whole.data)


def test_several_processes_write_what_one_writes(masc, done, tmp_path):
    other = convert_study(masc, tmp_path / "other", n_jobs=2, progress=False)
    for one, two in zip(open_recordings(done), other, strict=True):
        assert np.array_equal(one.data, two.data)
        assert one.provenance == two.provenance
    for name in ("events.csv", "sounds.csv", "conversion.json"):
        assert (tmp_path / "other" / name).read_bytes() == (done / name).read_bytes()


def test_what_is_whole_is_not_converted_again(masc, done):
    before = _stamps(done)
    convert_study(masc, done, progress=False)
    assert _stamps(done) == before


def test_what_is_cut_short_damaged_or_gone_is_converted_again(masc, done):
    before = {recording.name: recording.data.copy() for recording in open_recordings(done)}
    stamps = _stamps(done)
    folder = done / "recordings"
    data = folder / "01_0_0" / "data.npy"
    os.truncate(data, data.stat().st_size - 4)
    os.truncate(folder / "01_0_3" / "recording.json", 40)
    (folder / "01_1_0" / "recording.json").unlink()
    (folder / "02_0_0").rename(folder / ".partial-0011aabbccdd-02_0_0")
    with pytest.raises(ValueError, match="cannot be read"):
        open_recordings(done)
    recordings = convert_study(masc, done, progress=False)
    assert recordings.names == NAMES
    for recording in recordings:
        assert np.array_equal(recording.data, before[recording.name])
    after = _stamps(done)
    assert {name for name in after if after[name] == stamps.get(name)} == {"01_1_3", "02_0_3"}
    assert not list(folder.glob(".*"))


def test_a_recording_whose_file_changed_is_converted_again(tmp_path):
    root = tmp_path / "study"
    for run in (1, 2):
        base = root / f"sub-01/meg/sub-01_task-x_run-{run}"
        save_fif(meg_raw(n_channels=3, seconds=1.0), f"{base}_meg.fif")
        write_tsv(f"{base}_events.tsv", ("onset", "duration"), [("0.5", "0")])
    convert_study(BIDSStudy(root), tmp_path / "out", progress=False)
    before = _stamps(tmp_path / "out")
    save_fif(meg_raw(n_channels=3, seconds=2.0), root / "sub-01/meg/sub-01_task-x_run-2_meg.fif")
    got = convert_study(BIDSStudy(root), tmp_path / "out", progress=False)
    assert [recording.n_times for recording in got] == [120, 240]
    after = _stamps(tmp_path / "out")
    assert after["01_x-1"] == before["01_x-1"]


@pytest.mark.parametrize("moment", ["reading", "writing", "replacing"])
def test_an_interruption_leaves_whole_recordings_only_and_is_gone_on_with(masc, done, tmp_path, monkeypatch, moment):
    goal, calls = tmp_path / "interrupted", []
    place = {
        "reading": ("neuroloaders.convert.resample", resample),
        "writing": ("neuroloaders.recording_files.channel_faults", lambda *_: {}),
        "replacing": ("neuroloaders.recording_files._replace", None),
    }[moment]

    def interrupt(*args):
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(*args)

    from neuroloaders import recording_files

    original = {"replacing": recording_files._replace}.get(moment, place[1])
    monkeypatch.setattr(place[0], interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_study(masc, goal, progress=False)
    monkeypatch.undo()
    assert open_recordings(goal).names == NAMES[:2]
    assert not (goal / "events.csv").exists()
    recordings = convert_study(masc, goal, progress=False)
    for one, two in zip(recordings, open_recordings(done), strict=True):
        assert np.array_equal(one.data, two.data)
    assert (goal / "events.csv").read_bytes() == (done / "events.csv").read_bytes()


def test_a_killed_process_leaves_whole_recordings_only_and_is_gone_on_with(masc, tmp_path):
    goal = tmp_path / "killed"
    # The third recording is half written when it says so and waits to be killed.
    code = f"""
import sys, time
import neuroloaders.recording_files as files
from neuroloaders.convert import convert_study
from neuroloaders.studies.meg_masc import MEGMASCStudy
copy, n = files._copy, []
def half(data, path):
    n.append(path)
    if len(n) == 3:
        copy(data[:, :50], path)
        print("half", flush=True)
        time.sleep(60)
    copy(data, path)
files._copy = half
convert_study(MEGMASCStudy({str(masc.root)!r}), {str(goal)!r}, progress=False)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline().strip() == "half"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert len(list((goal / "recordings").glob(".partial-*"))) == 1
    assert open_recordings(goal).names == NAMES[:2]
    before = _stamps(goal)
    assert convert_study(masc, goal, progress=False).names == NAMES
    after = _stamps(goal)
    assert sorted(after) == list(NAMES)
    assert all(after[name] == before[name] for name in NAMES[:2])


def test_subjects_are_added_by_a_later_call(masc, done, tmp_path):
    goal = tmp_path / "some"
    assert convert_study(masc, goal, subjects=["02"], progress=False).subjects == ("02",)
    assert set(open_events(goal).recording) == {"02_0_0", "02_0_3"}
    convert_study(masc, goal, subjects=["01"], progress=False)
    assert open_recordings(goal).names == NAMES
    assert set(open_events(goal).recording) == set(NAMES)
    assert len(open_events(goal)) == len(open_events(done))
    with pytest.raises(ValueError, match="'03'"):
        convert_study(masc, goal, subjects=["03"], progress=False)


def test_a_folder_of_another_conversion_is_refused(masc, done, tmp_path):
    with pytest.raises(ValueError, match=r"hold a conversion with sfreq 100\.0, got one with sfreq 120\.0"):
        convert_study(masc, done, sfreq=100, progress=False)
    write_bids_eeg(tmp_path / "bids")
    with pytest.raises(ValueError, match="with study 'BIDS', got one with study 'MEG-MASC'"):
        convert_study(BIDSStudy(tmp_path / "bids"), done, progress=False)
    (done / "conversion.json").unlink()
    with pytest.raises(ValueError, match=r"recordings without conversion\.json"):
        convert_study(masc, done, progress=False)
    assert open_recordings(done).names == NAMES


def test_one_damaged_recording_stops_no_other(tmp_path, caplog):
    root = write_broderick(tmp_path / "study", seconds=1.0)
    path = root / "Natural Speech/EEG/Subject1/Subject1_Run2.mat"
    path.write_bytes(path.read_bytes()[:2000])
    study = BroderickStudy(root)
    with pytest.raises(ValueError, match=r"'recording 1_02' cannot be read: ValueError: .*Subject1_Run2\.mat"):
        convert_study(study, tmp_path / "out", progress=False)
    assert len(open_recordings(tmp_path / "out")) == 4
    got = convert_study(study, tmp_path / "out", on_error="skip", progress=False)
    assert got.names == ("10_01", "10_02", "1_01", "2_01")
    assert "Left out the recording 1_02" in caplog.text
    assert "1_02" not in open_events(tmp_path / "out").recording
    write_broderick(tmp_path / "study", seconds=1.0)
    assert len(convert_study(study, tmp_path / "out", progress=False)) == 5


def test_a_malformed_table_is_said_before_anything_is_converted(tmp_path):
    root = write_meg_masc(tmp_path / "study", seconds=0.5)
    table = next((root / "sub-02").rglob("*_events.tsv"))
    table.write_text(table.read_text(encoding="utf-8").replace("'kind'", "kind", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="line 2, trial_type"):
        convert_study(MEGMASCStudy(root), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_sounds_that_are_not_there_are_named_and_left_out(tmp_path, caplog):
    root = write_meg_masc(tmp_path / "study", sounds=False, seconds=0.5)
    convert_study(MEGMASCStudy(root), tmp_path / "out", progress=False)
    assert open_sounds(tmp_path / "out") == {}
    assert "2 sounds are not there" in caplog.text


def test_wrong_arguments_are_named(masc, tmp_path):
    with pytest.raises(TypeError, match="`study` must be a study of M/EEG"):
        convert_study(str(masc.root), tmp_path, progress=False)
    with pytest.raises(ValueError, match="`n_jobs`"):
        convert_study(masc, tmp_path, n_jobs=0, progress=False)
    with pytest.raises(ValueError, match="'raise', 'skip'"):
        convert_study(masc, tmp_path, on_error="ignore", progress=False)
    with pytest.raises(TypeError, match=r"Write \['01'\]"):
        convert_study(masc, tmp_path, subjects="01", progress=False)
    with pytest.raises(FileNotFoundError, match="list of sounds"):
        open_sounds(tmp_path)
