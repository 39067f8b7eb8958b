"""THINGS-EEG2: dictionaries in npy files, the stimulus channel, and epochs with all repetitions."""

import numpy as np
import pytest
import torch
from fakes.things_eeg2 import (
    NAMES,
    SCALE,
    SFREQ,
    TEST_FILES,
    TRAIN_FILES,
    bump,
    onsets,
    pattern,
    save_dict,
    write_metadata,
    write_things_eeg2,
    write_things_eeg2_epochs,
)

from neuroloaders.convert import convert_study
from neuroloaders.epoch_bounds import check_inside_epochs
from neuroloaders.recording_files import open_events
from neuroloaders.studies.npy_dicts import read_npy_dict
from neuroloaders.studies.things_eeg2 import ThingsEEG2Study
from neuroloaders.studies.things_eeg2_epochs import things_eeg2_epochs
from neuroloaders.studies.things_images import things_split
from neuroloaders.window_loader import WindowLoader


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_things_eeg2(tmp_path_factory.mktemp("eeg2"), sessions=("01", "02"))


def one(root, **options):
    return write_things_eeg2(root, subjects=("01",), **options)


def n_samples(subject, session, part):
    return onsets(subject, session, part)[-1][0] + 1500


def change(path, edit):
    """Write a recording again, after `edit` changed its dictionary."""
    content = read_npy_dict(path)
    content = {key: np.array(value) if isinstance(value, np.ndarray) else value for key, value in content.items()}
    edit(content)
    save_dict(path, content)


@pytest.mark.parametrize("place", [".", "raw_data", "eeg_dataset/raw_data", "raw-eeg"])
def test_recordings_are_found_in_the_folders_that_people_have(tmp_path, place):
    one(tmp_path / place, metadata=False)
    write_metadata(tmp_path / "image_set/image_metadata.npy")
    study = ThingsEEG2Study(tmp_path)
    assert ThingsEEG2Study.matches(tmp_path)
    assert [recording.name for recording in study.recordings] == ["01_01"]
    assert len(study.events()) > 0
    inside = ThingsEEG2Study(tmp_path / place)
    if place != "eeg_dataset/raw_data":  # two levels up is further than one looks
        assert len(inside.events()) == len(study.events())
    assert len(ThingsEEG2Study(tmp_path / place, metadata=tmp_path / "image_set/image_metadata.npy").events())


@pytest.mark.parametrize("protocol", [2, 3])
def test_older_pickles_are_read_as_well(tmp_path, protocol):
    study = ThingsEEG2Study(one(tmp_path, protocol=protocol))
    assert len(study.events("01_01")) == sum(len(onsets("01", "01", part)) for part in ("training", "test"))


def test_events_are_those_of_the_stimulus_channel(root):
    study = ThingsEEG2Study(root)
    assert study.subjects == ("01", "02")
    whole = study.events("02_02")
    n_train, first = len(onsets("02", "02", "training")), 0
    for part, files, name in (("training", TRAIN_FILES, "train"), ("test", TEST_FILES, "test")):
        want = onsets("02", "02", part)
        events = whole.select(slice(0, n_train) if name == "train" else slice(n_train, None))
        assert np.array_equal(events.start, [(first + sample) / SFREQ for sample, _ in want])
        images = [files[number - 1] if number != 99_999 else "target" for _, number in want]
        assert events.stimulus.tolist() == images
        assert events.kind.tolist() == ["target" if image == "target" else "image" for image in images]
        shown = events.where(kind="image")
        assert set(shown.extra["image_set"]) == {name}
        assert [files[k - 1] for k in shown.extra["image_number"]] == shown.stimulus.tolist()
        assert shown.split_group.tolist() == [image.rsplit("_", 1)[0] for image in shown.stimulus.tolist()]
        first = n_samples("02", "02", part)  # the test comes after the training
    assert study.raw("02_02").n_times == n_samples("02", "02", "training") + n_samples("02", "02", "test")


def test_raw_is_in_volts_with_electrodes_placed(root):
    raw = ThingsEEG2Study(root).raw("01_01")
    assert raw.ch_names == list(NAMES)
    assert raw.info["sfreq"] == SFREQ
    sample, number = next(item for item in onsets("01", "01", "training") if item[1] != 99_999)
    assert raw.get_montage() is not None
    want = np.zeros((len(NAMES), 40))
    times = np.arange(sample + 60, sample + 100) / SFREQ
    for other, shown in onsets("01", "01", "training"):
        if shown != 99_999:
            want += SCALE * pattern(TRAIN_FILES[shown - 1])[:, None] * bump(times - other / SFREQ)
    np.testing.assert_allclose(raw.get_data(start=sample + 60, stop=sample + 100), want, rtol=1e-12)


def test_a_stimulus_channel_in_between_and_samples_in_columns_are_no_trouble(tmp_path):
    path = one(tmp_path) / "sub-01/ses-01/raw_eeg_test.npy"
    study = ThingsEEG2Study(tmp_path)
    order = [0, 1, 5, 2, 3, 4]

    # The training file is left out here: a session may have one file only.
    path.with_name("raw_eeg_training.npy").unlink()
    want, events = study.raw("01_01").get_data(), study.events("01_01")

    def move(content):
        content["raw_eeg_data"] = np.asfortranarray(content["raw_eeg_data"][order].astype("f4"))
        for name in ("ch_names", "ch_types"):
            content[name] = [content[name][k] for k in order]

    change(path, move)
    again = ThingsEEG2Study(tmp_path)
    assert again.raw("01_01").ch_names == list(NAMES)
    np.testing.assert_allclose(again.raw("01_01").get_data(), want, rtol=1e-6, atol=1e-12)
    assert again.events("01_01").start.tolist() == events.start.tolist()


def test_converted_windows_hold_the_responses(root, tmp_path):
    recordings = convert_study(ThingsEEG2Study(root), tmp_path, sfreq=250.0, subjects=["02"], progress=False)
    assert recordings.names == ("02_01", "02_02")
    events = open_events(tmp_path).where(kind="image")
    loader = WindowLoader(recordings, events, tmin=0.0, tmax=0.2, batch_size=99)
    x = torch.cat([batch.x for batch in loader]).numpy() / SCALE
    peak = x[:, :, np.abs(loader.times - 0.08).argmin()]
    want = np.stack([pattern(name) for name in events.stimulus.tolist()])
    assert np.abs(peak - want).max() < 0.02 * np.abs(want).max()
    split = things_split(events, valid=0.4, seed=2)
    assert split.images("test").tolist() == sorted(TEST_FILES)
    assert len(split.images("large")) == 0


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c.pop("sfreq"), "it has no entry 'sfreq'"),
        (lambda c: c.update(sfreq="fast"), "sfreq is 'fast', no rate in Hz"),
        (lambda c: c.update(raw_eeg_data=c["raw_eeg_data"][0]), "no array of channels by samples"),
        (lambda c: c.update(ch_names=c["ch_names"][1:]), "6 rows of samples, 5 names and 6 types"),
        (lambda c: c.update(ch_names=["a"] * 6), "not all different"),
        (lambda c: c.update(sfreq=500), r"not those of raw_eeg_training\.npy"),
        (lambda c: c.update(ch_types=["eeg"] * 6), "0 channels of the type 'stim', not one"),
        (lambda c: c["raw_eeg_data"].__setitem__((-1, 7), 99.0), "'stim' is 99 at sample 7"),
        (lambda c: c["raw_eeg_data"].__setitem__((-1, 7), 1.5), "'stim' is 1.5 at sample 7"),
        (lambda c: c["raw_eeg_data"].__setitem__((-1, 7), np.nan), "'stim' is nan at sample 7"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said(tmp_path, edit, says):
    path = one(tmp_path) / "sub-01/ses-01/raw_eeg_test.npy"
    if "not those of" not in says:
        path.with_name("raw_eeg_training.npy").unlink()
    change(path, edit)
    with pytest.raises(ValueError, match=says):
        ThingsEEG2Study(tmp_path).events("01_01")


def test_what_is_wrong_with_the_images_or_settings_is_said(tmp_path):
    path = one(tmp_path) / "image_set/image_metadata.npy"
    good = path.read_bytes()
    for edit, says in (
        (lambda c: c.pop("test_img_files"), "no entry 'test_img_files'"),
        (lambda c: c.update(test_img_files=["dog.jpg"]), "test_img_files has 'dog.jpg'"),
        (lambda c: c.update(test_img_files=[1]), "no names of files"),
        (lambda c: c.update(test_img_files=TRAIN_FILES[:1]), f"the image '{TRAIN_FILES[0]}' is there twice"),
    ):
        change(path, edit)
        with pytest.raises(ValueError, match=says):
            ThingsEEG2Study(tmp_path).events()
        path.write_bytes(good)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"image_metadata\.npy.*Pass metadata="):
        ThingsEEG2Study(tmp_path).events()
    with pytest.raises(ValueError, match="be one that MNE knows"):
        ThingsEEG2Study(tmp_path, montage="nowhere").raw("01_01")
    with pytest.raises(FileNotFoundError, match="raw_eeg"):
        _ = ThingsEEG2Study(tmp_path / "image_set").recordings


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    root = tmp_path_factory.mktemp("released")
    return root, write_things_eeg2_epochs(root)


def test_released_epochs_are_one_recording_a_subject(released, tmp_path):
    root, made = released
    for folder in (None, tmp_path):
        recordings, events = things_eeg2_epochs(root, folder=folder)
        assert recordings.names == ("01", "02")
        assert recordings.sfreq == 100.0
        assert recordings[0].positions.shape == (5, 2)
        loader = WindowLoader(recordings, events, tmin=-0.2, tmax=0.79, batch_size=50)
        got = torch.cat([batch.x for batch in loader]).numpy()
        want = [part.reshape(-1, 5, 100) for subject in ("01", "02") for part in made[subject]]
        assert np.array_equal(got, np.concatenate(want).astype(np.float32))
        assert events.stimulus.tolist() == (np.repeat(TRAIN_FILES, 4).tolist() + np.repeat(TEST_FILES, 7).tolist()) * 2
        assert events.repeat.tolist() == ([0, 1, 2, 3] * 12 + [*range(7)] * 3) * 2
        check_inside_epochs(events, -0.2, 0.79, sfreq=100.0)
        with pytest.raises(ValueError, match="lie inside the epoch"):
            check_inside_epochs(events, -0.2, 0.8, sfreq=100.0)
    # What is fitted on training epochs of a subject is there for those of the test.
    split = things_split(events, valid=0.4, seed=2)
    train = WindowLoader(recordings, split.select(events, "train"), tmin=-0.2, tmax=0.5, scale="robust")
    test = WindowLoader(recordings, split.select(events, "test"), tmin=-0.2, tmax=0.5, scale=train.scaler)
    assert test.n_samples == 42
    assert things_eeg2_epochs(root, subjects=["02"])[0].names == ("02",)


def test_released_epochs_are_read_in_blocks(released, monkeypatch):
    root, made = released
    monkeypatch.setattr("neuroloaders.released_epochs._BLOCK_BYTES", 8 * 5 * 100 * 3)  # three epochs
    recordings, _ = things_eeg2_epochs(root, subjects=["01"])
    want = np.concatenate([part.reshape(-1, 5, 100) for part in made["01"]]).astype(np.float32)
    assert np.array_equal(recordings["01"].data.reshape(5, -1, 100), want.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c.update(preprocessed_eeg_data=c["preprocessed_eeg_data"][0]), "no array of images, repetitions"),
        (lambda c: c.update(preprocessed_eeg_data=c["preprocessed_eeg_data"][1:]), "epochs of 2 images, .* names 3"),
        (lambda c: c.update(times=c["times"][1:]), r"epochs have shape \(5, 100\)"),
        (lambda c: c.update(times=c["times"] ** 2), "not evenly spaced"),
        (lambda c: c.update(times=c["times"] * 2), "channels or times are not those of preprocessed_eeg_training"),
        (lambda c: c.update(ch_names=c["ch_names"][::-1]), "channels or times are not those"),
        (lambda c: c["preprocessed_eeg_data"].__setitem__((1, 2, 3, 4), np.nan), "others in epoch 57"),
    ],
)
def test_what_is_wrong_with_epochs_is_said(tmp_path, edit, says):
    write_things_eeg2_epochs(tmp_path, subjects=("01",))
    change(tmp_path / "preprocessed_data/sub-01/preprocessed_eeg_test.npy", edit)
    with pytest.raises(ValueError, match=says):
        things_eeg2_epochs(tmp_path)


def test_what_is_missing_is_said(tmp_path):
    write_things_eeg2_epochs(tmp_path, subjects=("01",))
    with pytest.raises(ValueError, match="subjects"):
        things_eeg2_epochs(tmp_path, subjects=["03"])
    with pytest.raises(TypeError, match=r"Write \['01'\]"):
        things_eeg2_epochs(tmp_path, subjects="01")
    (tmp_path / "preprocessed_data/sub-01/preprocessed_eeg_test.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"preprocessed_eeg_test\.npy"):
        things_eeg2_epochs(tmp_path)
    with pytest.raises(FileNotFoundError, match="Unpack preprocessed_data there"):
        things_eeg2_epochs(tmp_path / "image_set")
