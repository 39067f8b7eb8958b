"""Recordings, sets of them, and their folders on disk, which are whole or not there."""

import json
import resource

import numpy as np
import pytest
from fakes.windows import events_of, recording, study

from neuroloaders.events_table import EventTable
from neuroloaders.recording_files import open_events, open_recordings, save_events, save_recording
from neuroloaders.recordings import ContinuousRecording, RecordingSet, channel_faults

BASE = {"data": np.zeros((2, 10)), "sfreq": 100, "ch_names": ("Fz", "Cz"), "subject": "01"}


def same(got, want):
    assert got.name == want.name
    assert np.array_equal(got.data, want.data)
    for name in ("sfreq", "start", "ch_names", "subject", "session", "run", "bads", "provenance"):
        assert getattr(got, name) == getattr(want, name)
    assert (got.positions is None) == (want.positions is None)
    assert want.positions is None or np.array_equal(got.positions, want.positions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros(10)}, r"`data` must have shape \(C, T\)"),
        ({"data": np.zeros((2, 0))}, "one channel and one sample"),
        ({"data": np.zeros((2, 10), dtype=complex)}, "real numbers"),
        ({"ch_names": ("Fz",)}, "name the 2 channels"),
        ({"ch_names": ("Fz", "Fz")}, "each name once"),
        ({"ch_names": "Fz"}, "sequence of names"),
        ({"bads": ("Pz",)}, "channels of this recording"),
        ({"positions": np.full((2, 2), np.nan)}, "finite"),
        ({"sfreq": 0}, "`sfreq`"),
        ({"subject": "a/b"}, "without slashes"),
        ({"subject": ""}, "be given"),
        ({"run": 3}, "be text"),
    ],
)
def test_recording_that_does_not_fit_together_is_refused(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ContinuousRecording(**{**BASE, **change})


def test_recording_is_float32_and_keeps_its_times():
    made = ContinuousRecording(**{**BASE, "data": np.asfortranarray(np.ones((2, 10))), "start": 2.5, "run": "3"})
    assert made.data.dtype == np.float32
    assert made.data.flags.c_contiguous
    assert (made.name, made.n_channels, made.n_times, made.duration, made.stop) == ("01_3", 2, 10, 0.1, 2.6)


def test_set_numbers_recordings_and_subjects_in_order():
    recordings = study()
    assert recordings.names == ("01_0", "01_1", "02_2")
    assert recordings.subjects == ("01", "02")
    assert recordings.subject_numbers.tolist() == [0, 0, 1]
    assert recordings["02_2"] is recordings[2]
    assert recordings.max_channels == 5
    assert recordings.of_subjects(["02"]).names == ("02_2",)
    assert recordings[1:].names == ("01_1", "02_2")
    with pytest.raises(ValueError, match="'01' more than once"):
        RecordingSet([recording(), recording()])
    with pytest.raises(ValueError, match="one sampling rate"):
        RecordingSet([recording("a"), recording("b", sfreq=100.0)]).sfreq  # noqa: B018
    with pytest.raises(ValueError, match="'03'"):
        recordings.of_subjects(["03"])


def test_faults_are_found_in_any_part_of_a_channel(monkeypatch):
    monkeypatch.setattr("neuroloaders.recordings._SCANNED", 40)  # parts of ten samples
    data = np.random.default_rng(0).standard_normal((5, 95)).astype(np.float32)
    data[0, 94], data[1, 3], data[2], data[3, 1:] = np.nan, np.inf, 7.0, data[3, 0]
    data[3, 94] += 1
    assert channel_faults(data, "abcde") == {"a": "not finite", "b": "not finite", "c": "flat"}


def test_study_on_disk_is_what_was_saved(tmp_path):
    recordings = study()
    events = events_of(recordings).with_column("surprisal", np.linspace(0, 1, 21) / 3)
    for one in recordings:
        written = save_recording(one, tmp_path / "study")
        assert written.is_mapped
        same(written, one)
    save_events(events, tmp_path / "study")
    opened = open_recordings(tmp_path / "study")
    assert opened.names == recordings.names
    for got, want in zip(opened, recordings, strict=True):
        same(got, want)
        assert got.faults == {}
    assert open_recordings(tmp_path / "study", subjects=["02"]).names == ("02_2",)
    assert not open_recordings(tmp_path / "study", in_memory=True)[0].is_mapped
    assert open_events(tmp_path / "study").extra["surprisal"].tolist() == events.extra["surprisal"].tolist()


def test_recording_larger_than_a_part_is_copied_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("neuroloaders.recording_files._COPIED", 1 << 12)
    one = recording(n_channels=7)
    same(save_recording(one, tmp_path), one)
    again = save_recording(save_recording(one, tmp_path, overwrite=True), tmp_path / "copy")  # from map to map
    same(again, one)


def test_recording_that_is_there_is_replaced_only_if_asked(tmp_path):
    save_recording(recording(seed=1), tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_recording(recording(seed=2), tmp_path)
    same(open_recordings(tmp_path)[0], recording(seed=1))
    save_recording(recording(seed=2), tmp_path, overwrite=True)
    same(open_recordings(tmp_path)[0], recording(seed=2))
    assert [path.name for path in (tmp_path / "recordings").iterdir()] == ["01"]


def test_recording_cut_short_by_a_full_disk_never_looks_whole(tmp_path):
    save_recording(recording("01"), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        for subject, overwrite in (("02", False), ("01", True)):
            with pytest.raises(OSError, match="larger than this system allows"):
                save_recording(recording(subject, n_channels=60, seed=3), tmp_path, overwrite=overwrite)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_recordings(tmp_path).names == ("01",)
    same(open_recordings(tmp_path)[0], recording("01"))


def test_folder_of_a_writer_that_was_killed_is_not_a_recording(tmp_path):
    save_recording(recording(), tmp_path)
    (tmp_path / "recordings" / "01").rename(tmp_path / "recordings" / ".partial-012345-01")
    with pytest.raises(FileNotFoundError, match="save_recording"):
        open_recordings(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "shape", "json", "lacks", "version", "name", "absent"])
def test_damaged_recording_is_refused_with_its_folder(tmp_path, damage):
    folder = tmp_path / "recordings" / "01"
    save_recording(recording(), tmp_path)
    data, record = folder / "data.npy", folder / "recording.json"
    content = json.loads(record.read_text())
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "shape":
        np.save(data, np.zeros((5, 7), dtype=np.float32))
    elif damage == "json":
        record.write_text(record.read_text()[:-5])
    elif damage == "absent":
        data.unlink()
    elif damage == "name":
        folder.rename(folder.with_name("02"))
    else:
        content = {**content, "version": 99} if damage == "version" else {**content, "sfreq": None}
        record.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"recordings/0[12].*cannot be read"):
        open_recordings(tmp_path)


def test_events_that_are_not_there_are_missed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"events\.csv"):
        open_events(tmp_path)
    assert isinstance(EventTable(start=[], recording=[]), EventTable)
