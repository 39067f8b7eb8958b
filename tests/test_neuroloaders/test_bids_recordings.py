"""BIDS folders of M/EEG: names, inherited tables, "n/a", bad channels, electrodes; real files of several makers."""

import shutil

import numpy as np
import pytest
from fakes.bids_meeg import EEG_NAMES, meg_raw, save_fif, tones, write_bids_eeg, write_brainvision, write_tsv

from neuroloaders.recordings import NO_POSITION
from neuroloaders.studies.bids_recordings import BIDSStudy, bids_entities, companion, read_tsv
from neuroloaders.studies.raw_files import flat_positions, open_raw, pick_sensors


@pytest.fixture
def root(tmp_path):
    return write_bids_eeg(tmp_path / "study")


def test_names_say_what_they_hold():
    assert bids_entities("sub-A2002_task-auditory_run-01_meg.ds") == {"sub": "A2002", "task": "auditory", "run": "01"}
    assert bids_entities("participants.tsv") == {}


def test_events_have_the_times_and_texts_of_the_table_and_na_is_nothing(root):
    events = BIDSStudy(root).events("01_see-1")
    assert events.start.tolist() == [0.5, 1.25, 2.0]
    assert events.duration.tolist() == [0.0, 0.2, 0.2]
    assert events.kind.tolist() == ["face", "house", "event"]
    assert events.stimulus.tolist() == ["face_3.png", "2", ""]
    assert events.extra["response_time"].tolist() == ["0.31", "", ""]


def test_a_recording_without_events_takes_those_of_the_study_and_missing_columns_are_empty(root):
    study = BIDSStudy(root)
    assert study.events("02_see-1").start.tolist() == [0.5, 1.25]
    everything = study.events()
    assert len(everything) == 5
    assert everything.where(recording="02_see-1").extra["value"].tolist() == ["", ""]
    assert everything.where(kind="face").repeat.tolist() == [0, 0]


def test_of_inherited_tables_the_nearest_and_most_special_is_taken(tmp_path):
    path = tmp_path / "sub-01/ses-a/meg/sub-01_ses-a_task-x_run-1_meg.fif"
    path.parent.mkdir(parents=True)
    root = write_tsv(tmp_path / "task-x_events.tsv", ("onset",), [])
    assert companion(path, "events.tsv", tmp_path) == root
    write_tsv(tmp_path / "task-y_events.tsv", ("onset",), [])
    write_tsv(tmp_path / "events.tsv", ("onset",), [])
    assert companion(path, "events.tsv", tmp_path) == root
    near = write_tsv(tmp_path / "sub-01/ses-a/sub-01_ses-a_events.tsv", ("onset",), [])
    assert companion(path, "events.tsv", tmp_path) == near
    write_tsv(path.with_name("sub-01_ses-a_task-x_run-2_events.tsv"), ("onset",), [])
    assert companion(path, "events.tsv", tmp_path) == near
    assert companion(path, "channels.tsv", tmp_path) is None


def test_electrodes_are_placed_in_metres_and_unknown_ones_nowhere(root):
    study = BIDSStudy(root)
    raw = study.raw("01_see-1")
    np.testing.assert_allclose(raw.info["chs"][0]["loc"][:3], [0, 0.06, 0.07], atol=1e-6)
    positions = flat_positions(raw.info)
    # Fz before Cz before Pz, in one line; nobody measured Oz.
    assert positions[:3, 1].tolist() == [1.0, pytest.approx(0.5, abs=0.05), 0.0]
    assert positions[3].tolist() == pytest.approx([NO_POSITION] * 2)
    assert raw.info["bads"] == ["Pz"]
    assert flat_positions(study.raw("02_see-1").info) is None
    placed = flat_positions(BIDSStudy(root, montage="biosemi64").raw("02_see-1").info)
    assert placed[:, 1].tolist() == sorted(placed[:, 1], reverse=True)
    assert (placed[0, 1], placed[3, 1]) == (1.0, 0.0)
    with pytest.raises(ValueError, match="`montage` must be one that MNE knows, got 'biosemi63'"):
        BIDSStudy(root, montage="biosemi63").raw("02_see-1")


def test_samples_are_those_of_the_file_in_volts(root):
    got = BIDSStudy(root).raw("02_see-1").get_data()
    np.testing.assert_allclose(got, tones(4, np.arange(3000) / 500, 1e-5), rtol=1e-6, atol=1e-11)


def test_emptyroom_calibration_later_parts_and_other_kinds_are_no_recordings(tmp_path):
    raw = meg_raw(n_channels=3, seconds=0.2)
    for name in (
        "sub-01/meg/sub-01_task-x_run-2_meg.fif",
        "sub-01/meg/sub-01_task-x_split-01_meg.fif",
        "sub-01/meg/sub-01_task-x_split-02_meg.fif",
        "sub-01/meg/sub-01_acq-crosstalk_meg.fif",
        "sub-emptyroom/ses-1/meg/sub-emptyroom_ses-1_task-noise_meg.fif",
        "derivatives/sub-01/meg/sub-01_task-x_run-3_meg.fif",
    ):
        save_fif(raw, tmp_path / name)
    (tmp_path / "sub-01/meg/sub-01_task-x_markers.mrk").write_bytes(b"")
    assert [recording.name for recording in BIDSStudy(tmp_path).recordings] == ["01_x", "01_x-2"]
    assert BIDSStudy(tmp_path, tasks=("x",)).recordings == BIDSStudy(tmp_path).recordings
    with pytest.raises(FileNotFoundError, match="BIDS"):
        BIDSStudy(tmp_path, tasks=("y",)).recordings  # noqa: B018


def test_two_files_of_one_recording_are_refused(tmp_path):
    data = np.zeros((4, 50))
    write_brainvision(tmp_path / "sub-01/eeg/sub-01_task-x_eeg.vhdr", data, EEG_NAMES, 100)
    (tmp_path / "sub-01/eeg/sub-01_task-x_eeg.edf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"each recording once.*x_eeg\.edf.*x_eeg\.vhdr"):
        BIDSStudy(tmp_path).recordings  # noqa: B018


def test_tables_are_read_with_crlf_byte_order_mark_and_quotes(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes('\ufeffonset\tname\r\n\r\n1.0\t"a ""b""\tc"\r\n2.0\t{"d"}\r\n'.encode())
    assert read_tsv(path) == [(3, {"onset": "1.0", "name": 'a "b"\tc'}), (4, {"onset": "2.0", "name": '{"d"}'})]


def test_what_is_wrong_with_a_folder_is_said(root):
    path = root / "sub-01/eeg/sub-01_task-see_run-1_events.tsv"
    text = path.read_text(encoding="utf-8")
    for old, new, message in (
        ("0.5\t", "n/a\t", r"run-1_events\.tsv' cannot be read: line 2 has 'n/a' in column 'onset'"),
        ("1.25\t0.2", "1.25\t-0.2", "line 3 has a negative duration"),
        ("1.25\t0.2", "1.25\tlong", "line 3 has 'long' in column 'duration'"),
    ):
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            BIDSStudy(root).events()
    path.unlink()
    (root / "task-see_events.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"events of 01_see-1.*sub-01_task-see_run-1_events\.tsv"):
        BIDSStudy(root).events()
    (root / "sub-02/eeg/sub-02_task-see_run-1_eeg.eeg").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"run-1_eeg\.vhdr' cannot be read: MNE says"):
        BIDSStudy(root).raw("02_see-1")
    save_fif(meg_raw(n_channels=2, seconds=0.1), root / "sub-01/meg/sub-01_task-see_meg.fif")
    with pytest.raises(ValueError, match=r"`kind` must be given where there are meg and eeg"):
        BIDSStudy(root)
    shutil.rmtree(root / "sub-01/eeg")
    shutil.copy(root / "sub-01/meg/sub-01_task-see_meg.fif", root / "sub-02/eeg/sub-02_task-hear_eeg.fif")
    with pytest.raises(ValueError, match="no eeg channels, but mag, ref_meg, stim"):
        BIDSStudy(root, kind="eeg").raw("02_hear")


def test_a_bids_folder_is_recognised_by_a_recording_and_a_table(root, tmp_path):
    assert BIDSStudy.matches(root)
    assert not BIDSStudy.matches(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "kind", "n_channels", "sfreq"),
    [
        ("test.sqd", "meg", 157, 1000.0),
        ("test_ctf_comp_raw.fif", "meg", 274, None),
        ("exported4D_linux_raw.fif", "meg", 248, None),
        ("test.vhdr", "eeg", 26, 1000.0),
        ("test.bdf", "eeg", None, 2048.0),
        ("test.edf", "eeg", None, 512.0),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # MNE's remarks on its own test files
def test_real_files_of_each_maker_open_with_finite_samples(shared_data, name, kind, n_channels, sfreq):
    path = shared_data / "mne_io" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    raw = pick_sensors(open_raw(path), kind, path)
    assert n_channels is None or len(raw.ch_names) == n_channels
    assert sfreq is None or raw.info["sfreq"] == sfreq
    part = raw.get_data(stop=100)
    assert np.isfinite(part).all()
    assert part.any()
    if kind == "meg":
        positions = flat_positions(raw.info)
        placed = positions[(positions >= 0).all(axis=1)]
        assert len(placed) >= 0.9 * len(positions)
        assert (placed.min(axis=0).tolist(), placed.max(axis=0).tolist()) == ([0, 0], [1, 1])
        assert len(np.unique(placed, axis=0)) == len(placed)


def test_a_real_kit_file_is_a_recording_of_bids(shared_data, tmp_path):
    source = shared_data / "mne_io" / "test.sqd"
    if not source.exists():
        pytest.skip(f"{source} is not there")
    path = tmp_path / "sub-01/ses-0/meg/sub-01_ses-0_task-0_meg.con"
    path.parent.mkdir(parents=True)
    shutil.copy(source, path)
    raw = BIDSStudy(tmp_path).raw("01_0_0")
    assert len(raw.ch_names) == 157
    assert raw.n_times == 2000
    assert 1e-14 < raw.get_data().std() < 1e-9  # T
