"""Runs of a headband: read from tiny files of the published form, and from the real ones."""

import json

import numpy as np
import pytest

from neuroloaders.studies.eeg_muse import EEG_MUSE_TASKS, load_eeg_muse


def write(folder, *, markers=({3: 1, 9: 2}, {5: 2}), name="n170.npz", **changes):
    """Two runs of one subject and one of another, 20 samples each, with values that say where they are."""
    rows, stored = [], {}
    for number, (subject, session) in enumerate([(1, 1), (1, 1), (10, 2)]):
        data = (1000 * number + np.arange(20)[:, None] + 0.1 * np.arange(5)).astype(np.float32)
        marker = np.zeros(20, dtype=np.int16)
        for place, code in (markers[number] if number < len(markers) else {}).items():
            marker[place] = code
        stored |= {f"eeg_{number:03d}": data, f"marker_{number:03d}": marker}
        rows.append({"subject": subject, "session": session, "file": f"run{number}.csv"})
    stored |= {"meta": np.array(json.dumps(rows)), **changes}
    np.savez(folder / name, **stored)
    return folder


def test_runs_events_and_units(tmp_path):
    recordings, events = load_eeg_muse(write(tmp_path), "n170")
    assert recordings.names == ("01_1_0", "01_1_1", "10_2_0")
    assert recordings.sfreq == 256
    assert recordings[1].ch_names == ("TP9", "AF7", "AF8", "TP10", "AUX")
    np.testing.assert_allclose(recordings[1].data[3, 7], 1007.3e-6, rtol=1e-6)
    assert events.recording.tolist() == ["01_1_0", "01_1_0", "01_1_1"]
    assert (events.start * 256).tolist() == [3, 9, 5]
    assert events.stimulus.tolist() == ["house", "face", "face"]
    assert events.split_group.tolist() == events.recording.tolist()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"markers": ({3: 7},)}, "marker_000 holds 7"),
        ({"eeg_001": np.zeros((20, 4), np.float32)}, "eeg_001"),
        ({"meta": np.array("[")}, "no file of this kind"),
        ({"meta": np.array(json.dumps([{"subject": 1}]))}, "session"),
    ],
)
def test_damaged_files_are_named(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        load_eeg_muse(write(tmp_path, **changes), "n170")


def test_missing_file_and_unknown_task(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ssvep\.npz"):
        load_eeg_muse(tmp_path, "ssvep")
    with pytest.raises(ValueError, match="task"):
        load_eeg_muse(tmp_path, "sleep")
    (tmp_path / "n170.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"n170\.npz"):
        load_eeg_muse(tmp_path, "n170")


@pytest.mark.parametrize(("task", "n_runs", "n_subjects"), [("n170", 18, 5), ("ssvep", 20, 3), ("p300_visual", 45, 5)])
def test_published_runs_have_the_markers_that_their_record_counts(task, n_runs, n_subjects, shared_data):
    file, classes = EEG_MUSE_TASKS[task]
    if not (shared_data / "eeg_muse" / file).is_file():
        pytest.skip(f"no folder eeg_muse in {shared_data}")
    recordings, events = load_eeg_muse(shared_data / "eeg_muse", task)
    assert (len(recordings), len(recordings.subjects)) == (n_runs, n_subjects)
    with np.load(shared_data / "eeg_muse" / file) as stored:
        runs = json.loads(str(stored["meta"]))
    for recording, run in zip(recordings, runs, strict=True):
        own = events.where(recording=recording.name)
        for code, name in classes.items():
            assert (own.stimulus == name).sum() == run["markers"].get(str(code), 0)
        assert recording.n_times == run["n"]
