"""THINGS-MEG: triggers rather than tables that are late, images by their files, epochs as the authors released them."""

import re

import numpy as np
import pytest
import torch
from fakes.bids_meeg import write_tsv
from fakes.things_meg import (
    LATE_S,
    PEAK_S,
    SCALE,
    TEST,
    bump,
    pattern,
    trials,
    write_csv,
    write_things_meg,
    write_things_meg_epochs,
)

from neuroloaders.convert import convert_study
from neuroloaders.epoch_bounds import check_inside_epochs
from neuroloaders.recording_files import open_events, open_recordings
from neuroloaders.studies.bids_recordings import BIDSStudy
from neuroloaders.studies.meg_masc import MEGMASCStudy
from neuroloaders.studies.mous import MOUSStudy
from neuroloaders.studies.things_images import things_image_paths, things_split, unseen_images
from neuroloaders.studies.things_meg import ONSETS, ThingsMEGStudy
from neuroloaders.studies.things_meg_epochs import things_meg_epochs
from neuroloaders.window_loader import WindowLoader

RUNS = [f"BIGMEG{s}_0{session}_main-0{run}" for s in (1, 2) for session in (1, 2) for run in (1, 2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_things_meg(tmp_path_factory.mktemp("things_meg"))


def rows_of(name):
    subject, session, run = re.fullmatch(r"(BIGMEG\d)_0(\d)_main-0(\d)", name).groups()
    return [row for row in trials(subject) if (row["session_nr"], row["run_nr"]) == (session, run)]


def small(root, **options):
    return write_things_meg(root, subjects=("BIGMEG1",), sessions=(1,), runs=(1,), **options)


def table_of(root):
    return next(root.glob("sub-*/ses-*/meg/*_events.tsv"))


def test_runs_are_found_and_only_this_study_matches(root):
    study = ThingsMEGStudy(root)
    assert [recording.name for recording in study.recordings] == RUNS
    assert study.subjects == ("BIGMEG1", "BIGMEG2")
    assert ThingsMEGStudy.matches(root)
    assert BIDSStudy.matches(root)
    assert not MEGMASCStudy.matches(root)
    assert not MOUSStudy.matches(root)


def test_a_folder_of_a_ctf_is_a_recording_and_goes_to_mne(tmp_path):
    folder = tmp_path / "sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_meg.ds"
    (folder / "empty.meg4").parent.mkdir(parents=True)
    study = ThingsMEGStudy(tmp_path)
    assert [(item.name, item.path) for item in study.recordings] == [("BIGMEG1_01_main-01", folder)]
    with pytest.raises(ValueError, match=r"_meg\.ds' cannot be read: MNE says"):
        study.raw("BIGMEG1_01_main-01")


@pytest.mark.parametrize("onsets", ONSETS)
def test_events_say_what_was_shown_and_when(root, onsets):
    study = ThingsMEGStudy(root, onsets=onsets)
    for name in RUNS[1:4]:
        events, want = study.events(name), rows_of(name)
        if onsets == "trigger":
            np.testing.assert_allclose(events.start, [row["begin"] for row in want], atol=1e-9)
            assert np.abs(events.extra["table_difference_s"]).min() > 0.05
        else:
            off = events.start - [row["begin"] for row in want]
            assert ((off > LATE_S - 0.041) & (off < LATE_S + 0.041)).all()
            assert np.isnan(events.extra["table_difference_s"]).all()
        assert events.stimulus.tolist() == [row["name"] for row in want]
        kinds = ["catch" if row["trial_type"] == "catch" else "image" for row in want]
        assert events.kind.tolist() == kinds
        sets = [{"exp": "train", "test": "test", "catch": ""}[row["trial_type"]] for row in want]
        assert events.extra["image_set"].tolist() == sets
        image = events.where(kind="image")
        assert image.split_group.tolist() == [file.rsplit("_", 1)[0] for file in image.stimulus.tolist()]
        assert (image.duration == 0.5).all()


def test_differences_between_tables_and_triggers_are_reported(root):
    found = ThingsMEGStudy(root).onset_differences()
    assert list(found) == RUNS
    for middle, most in found.values():
        assert abs(middle - LATE_S) < 0.04
        assert 0 < most < 0.09


def test_repeats_are_counted_over_all_runs_of_a_subject(root):
    events = ThingsMEGStudy(root).events()
    test = events.where(stimulus=TEST[0])
    assert test.repeat.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("paths", ["image_path", "file_path", "stim_file", "IMAGE_PATH", None])
def test_the_column_of_files_has_several_names_and_the_csv_stands_in_for_it(tmp_path, paths):
    root = small(tmp_path, paths=paths, csv=paths is None)
    events = ThingsMEGStudy(root).events()
    want = [row for row in trials("BIGMEG1", (1,), (1,))]
    assert events.stimulus.tolist() == [row["name"] for row in want]


def test_a_csv_is_found_whatever_its_case_and_must_fit(tmp_path):
    root = small(tmp_path, paths=None)
    path = root / "sourcedata/sample_attributes_P1.csv"
    upper = path.rename(path.with_name("Sample_Attributes_p1.CSV".replace("CSV", "csv")))
    want = ThingsMEGStudy(root).events().stimulus
    rows = trials("BIGMEG1", (1,), (1,))
    for change, says in (
        (rows[:-1], rf"it has {len(rows)} rows, Sample_Attributes_p1\.csv {len(rows) - 1} of this session and run"),
        (rows[1:] + rows[:1], "Both must be of the same version"),
    ):
        write_csv(upper, change)
        with pytest.raises(ValueError, match=says):
            ThingsMEGStudy(root).events()
    text = write_csv(upper, rows).read_text(encoding="utf-8")
    assert ThingsMEGStudy(root).events().stimulus.tolist() == want.tolist()
    upper.write_text(text.replace("image_path", "path", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="line 1 names no column 'image_path'"):
        ThingsMEGStudy(root).events()
    upper.write_text(text.replace(",exp,", ",", 1).replace("exp,", "", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"line \d+ has 17 fields of 18"):
        ThingsMEGStudy(root).events()
    upper.unlink()
    with pytest.raises(FileNotFoundError, match=r"sample_attributes_P1\.csv.*names no files of images"):
        ThingsMEGStudy(root).events()


def test_what_is_missing_is_left_out_or_said(tmp_path, caplog):
    root = small(tmp_path, triggers=False)
    events = ThingsMEGStudy(root).events()
    # No channel: the table's onsets, and the log says so.
    assert np.isnan(events.extra["table_difference_s"]).all()
    assert "has no channel UPPT001" in caplog.text
    late = events.start - [row["begin"] for row in trials("BIGMEG1", (1,), (1,))]
    assert late.min() > 0.05
    table_of(root).unlink()
    with pytest.raises(FileNotFoundError, match=r"run-01_events\.tsv"):
        ThingsMEGStudy(root).events()
    with pytest.raises(FileNotFoundError, match="THINGS-MEG"):
        _ = ThingsMEGStudy(tmp_path / "sourcedata").recordings


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("onset\t", "begin\t", "line 1 names no column 'onset'"),
        ("trial_type", "kind", "line 1 names no column 'trial_type'"),
        ("\texp\t", "\tpause\t", r"line \d+ has the trial_type 'pause'. Known are exp, test, catch"),
        (TEST[0], "picture", r"line \d+ has the image 'images_test_meg/picture'"),
        ("\t0.5\t", "\t-0.5\t", "negative duration"),
        ("\t0.5\t", "\tlong\t", "'long' in column 'duration'"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, old, new, says):
    path = table_of(small(tmp_path))
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        ThingsMEGStudy(tmp_path).events()


def test_case_of_trial_types_and_missing_durations_do_not_matter(tmp_path):
    path = table_of(small(tmp_path))
    want = ThingsMEGStudy(tmp_path).events()
    text = path.read_text(encoding="utf-8").replace("\texp\t", "\tEXP\t").replace("\t0.5\t", "\tn/a\t")
    path.write_text(text.replace("onset", "Onset", 1), encoding="utf-8")
    got = ThingsMEGStudy(tmp_path).events()
    assert got.stimulus.tolist() == want.stimulus.tolist()
    assert (got.duration == 0).all()


def test_triggers_and_rows_must_be_of_each_other(tmp_path):
    path = table_of(small(tmp_path))
    lines = path.read_text(encoding="utf-8").splitlines()
    header, *rows = (line.split("\t") for line in lines)
    write_tsv(path, header, rows[:-1])
    n = len(rows)
    with pytest.raises(ValueError, match=rf"it has {n - 1} rows, the channel UPPT001 {n} triggers.*onsets='table'"):
        ThingsMEGStudy(tmp_path).events()
    assert len(ThingsMEGStudy(tmp_path, onsets="table").events()) == n - 1
    # As many rows as triggers, but the last row is missing and one was put in: rows and triggers are shifted.
    shifted = [["0.1", *rows[0][1:]], *rows[:-1]]
    write_tsv(path, header, shifted)
    with pytest.raises(ValueError, match=r"row \d+ is -1\.\d+ s from its trigger"):
        ThingsMEGStudy(tmp_path).events()
    assert len(ThingsMEGStudy(tmp_path, max_difference_s=3.0).events()) == n


def test_raw_has_gradiometers_with_bads_and_no_trigger(root):
    raw = ThingsMEGStudy(root).raw(RUNS[0])
    assert raw.ch_names == ["MLC11-2908", "MLC12-2908", "MLC13-2908", "MLC14-2908", "MLC15-2908", "MLC16-2908"]
    assert raw.info["bads"] == ["MLC11-2908"]


def _responses(recordings, events):
    """Return responses (N, C) at the peak after the events, baseline subtracted."""
    loader = WindowLoader(recordings, events, tmin=-0.2, tmax=0.3, baseline=(None, 0.0), batch_size=99)
    x = torch.cat([batch.x for batch in loader]).numpy() / SCALE
    return x[:, :, np.abs(loader.times - PEAK_S).argmin()]


def test_converted_windows_hold_the_responses_at_triggers_and_not_at_the_onsets_of_tables(root, tmp_path):
    study = ThingsMEGStudy(root)
    recordings = convert_study(study, tmp_path / "a", sfreq=120.0, subjects=["BIGMEG1"], progress=False)
    assert recordings.sfreq == 120.0
    assert len(recordings) == 4
    events = open_events(tmp_path / "a").where(kind="image")
    want = np.stack([pattern(name) for name in events.stimulus.tolist()])
    # Bads are zero: their column is left out. An event is half a sample of 120 Hz off at most: the bump is 4 % lower.
    error = np.abs(_responses(recordings, events)[:, 1:] - want[:, 1:]).max() / np.abs(want).max()
    assert error < 0.05
    late = convert_study(
        ThingsMEGStudy(root, onsets="table"), tmp_path / "b", sfreq=120.0, subjects=["BIGMEG1"], progress=False
    )
    tabled = _responses(late, open_events(tmp_path / "b").where(kind="image"))
    assert np.abs(tabled[:, 1:]).max() < 0.3 * np.abs(want).max()


def test_splits_keep_the_categories_of_the_test_out(root):
    events = ThingsMEGStudy(root).events()
    split = things_split(events, valid=0.4, seed=1)
    assert split.images("test").tolist() == sorted(TEST)
    assert set(split.images("large")) == {f"thing{c}_0{e}s.jpg" for c in (0, 1) for e in (1, 2, 3)}
    part = split.parts_of(events)
    assert set(events.kind[part == ""]) == {"catch"}
    assert not (set(events.split_group[part == "train"]) & set(events.split_group[part == "valid"]))
    single = things_split(events, valid=0.4, seed=1, valid_by="image")
    assert len(single) == len(split)
    with pytest.raises(ValueError, match="have the column 'image_set'"):
        things_split(BIDSStudy(root, stimulus="image_path").events())
    with pytest.raises(ValueError, match=r"in one image_set, got 'thing0_00x\.jpg' in two"):
        things_split(
            events.with_column("image_set", np.where(np.arange(len(events)) < 60, events.extra["image_set"], "train"))
        )


def test_unseen_images_enlarge_the_candidates(root):
    events = ThingsMEGStudy(root).events()
    more = unseen_images(["a/dog_01b.jpg", "dog_02s.jpg", f"x/{TEST[0]}", "dog_02s.jpg"], events)
    assert more.tolist() == ["dog_01b.jpg", "dog_02s.jpg"]


def test_images_lie_in_folders_of_their_categories(root, tmp_path):
    for file in ("thing0_00x.jpg", "thing1_00x.jpg"):
        path = tmp_path / "images_THINGS/object_images" / file.rsplit("_", 1)[0] / file
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    found = ThingsMEGStudy(root).image_paths(["thing1_00x.jpg", "thing0_00x.jpg"], tmp_path)
    assert [path.name for path in found] == ["thing1_00x.jpg", "thing0_00x.jpg"]
    assert things_image_paths(["thing0_00x.jpg"], tmp_path / "images_THINGS/object_images")[0].is_file()
    with pytest.raises(FileNotFoundError, match=r"thing2/thing2_01s\.jpg and 1 more"):
        things_image_paths(["thing2_01s.jpg", "thing3_01s.jpg"], tmp_path)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    root = tmp_path_factory.mktemp("released")
    x, rows = write_things_meg_epochs(root)
    return root, x, rows


def test_released_epochs_are_recordings_by_session(released, tmp_path):
    root, x, rows = released
    parts = sorted(path.name for path in (root / "derivatives/preprocessed").iterdir())
    assert len(parts) > 1  # the release is in parts, too
    for folder in (None, tmp_path):
        recordings, events = things_meg_epochs(root, folder=folder)
        assert recordings.names == ("BIGMEG1_01", "BIGMEG1_02", "BIGMEG1_03")
        assert recordings.sfreq == 200.0
        assert recordings[0].positions.shape == (20, 2)
        loader = WindowLoader(recordings, events, tmin=-0.1, tmax=1.3, batch_size=31)
        assert loader.n_times == 281
        assert np.array_equal(torch.cat([batch.x for batch in loader]).numpy(), x)
        assert events.stimulus.tolist() == [row["name"] for row in rows]
        assert events.extra["run"].tolist() == [row["run_nr"] for row in rows]
        np.testing.assert_allclose(events.duration, 0.5)
        check_inside_epochs(events, -0.1, 1.3, sfreq=200.0)
        with pytest.raises(ValueError, match="lie inside the epoch"):
            check_inside_epochs(events, -0.5, 1.0, sfreq=200.0)
    assert open_recordings(tmp_path).names == recordings.names
    split = things_split(events, valid=0.4, seed=1)
    assert len(split.images("large")) == 6
    assert bump(PEAK_S) == 1.0


def test_epochs_without_metadata_take_the_csv(tmp_path):
    x, rows = write_things_meg_epochs(tmp_path, metadata=False, n_channels=3, split_size="2GB")
    with pytest.raises(FileNotFoundError, match=r"sample_attributes_P1\.csv.*has no metadata"):
        things_meg_epochs(tmp_path)
    path = write_csv(tmp_path / "sourcedata/sample_attributes_P1.csv", rows)
    recordings, events = things_meg_epochs(tmp_path / "derivatives/preprocessed/../..", subjects=["BIGMEG1"])
    assert events.stimulus.tolist() == [row["name"] for row in rows]
    assert np.array_equal(recordings["BIGMEG1_01"].data[:, :281], x[0])
    write_csv(path, rows[:-1])
    with pytest.raises(ValueError, match=rf"it has {len(rows) - 1} rows, preprocessed_P1-epo\.fif {len(rows)} epochs"):
        things_meg_epochs(tmp_path)
    with pytest.raises(ValueError, match="subjects"):
        things_meg_epochs(tmp_path, subjects=["BIGMEG9"])
    with pytest.raises(FileNotFoundError, match=r"preprocessed_P\*-epo\.fif"):
        things_meg_epochs(tmp_path / "sourcedata")


def test_a_part_that_is_missing_or_cut_is_said(released, tmp_path):
    root, *_ = released
    first, *others = sorted((root / "derivatives/preprocessed").iterdir(), key=lambda path: len(path.name))
    for path in (first, *others):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / others[0].name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=r"part"):
        things_meg_epochs(tmp_path)
    (tmp_path / others[0].name).write_bytes(others[0].read_bytes()[: others[0].stat().st_size // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        things_meg_epochs(tmp_path)
