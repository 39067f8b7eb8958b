"""SHD and SSC against files in their format; the protocols against the speakers that a network hears."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from fakes.spikes import SHD_KEYS, SSC_KEYS, random_samples, write_heidelberg, write_shd, write_ssc

from neuroloaders.features import FeatureSet
from neuroloaders.studies import event_store, heidelberg
from neuroloaders.studies.heidelberg import load_heidelberg
from neuroloaders.studies.protocols import PROTOCOLS, split_by_protocol


def load(name, folder, **options):
    return load_heidelberg(name, data_dir=folder, offline=True, progress=False, **options)


@pytest.fixture(scope="module")
def shd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, write_shd(folder / "shd")


@pytest.fixture
def own_shd(shd, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(shd[0] / "shd", tmp_path / "shd")
    return tmp_path


def assert_samples_are(spikes, samples):
    assert len(spikes) == len(samples)
    for row, (times, units) in enumerate(samples):
        times_ms, ours = spikes.sample(row)
        np.testing.assert_array_equal(times_ms.double(), times.astype(np.float64) * 1000)
        np.testing.assert_array_equal(ours, units)


# --- reading ---


def test_golden_events_of_two_samples(tmp_path):
    samples = [([0.1, 0.25, 1.0], [699, 0, 7]), ([], [])]
    for split in ("train", "test"):
        write_heidelberg(tmp_path / "shd" / f"shd_{split}.h5", samples, [11, 0], speakers=[10, 9])
    train = load("shd", tmp_path)["train"]
    # 0.1 is 0.0999755859375 in float16, whose thousandfold has 18 binary digits.
    assert train.times_ms.tolist() == [99.9755859375, 250.0, 1000.0]
    assert train.units.tolist() == [699, 0, 7]
    assert train.offsets.tolist() == [0, 3, 3]
    assert train.labels.tolist() == [11, 0]
    assert train.classes[11] == "eins"
    assert train.group_names == ("9", "10")
    assert train.groups.tolist() == [1, 0]
    assert train.n_units == 700


def test_every_float16_time_is_exact_in_ms(tmp_path):
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16)  # 0 and all positive finite ones, in rising order
    for split in ("train", "test"):
        write_heidelberg(tmp_path / "shd" / f"shd_{split}.h5", [(every, every * 0)], [0], speakers=[0])
    times_ms = load("shd", tmp_path)["train"].times_ms
    np.testing.assert_array_equal(times_ms.double(), every.astype(np.float64) * 1000)


@pytest.mark.parametrize("portion", [1, 7, 512])
def test_shd_is_what_was_written_in_pieces_of_any_size(shd, tmp_path, monkeypatch, portion):
    folder, written = shd
    monkeypatch.setattr(heidelberg, "_PORTION", portion)
    monkeypatch.setattr(heidelberg, "cache_folder", lambda data_dir: tmp_path)
    sets = load("shd", folder)
    assert list(sets) == ["train", "test"]
    for split, (samples, labels, speakers) in written.items():
        assert_samples_are(sets[split], samples)
        assert sets[split].labels.tolist() == labels.tolist()
        assert [int(sets[split].group_names[group]) for group in sets[split].groups] == speakers.tolist()
        assert sets[split].classes == SHD_KEYS
    assert sets["train"].group_names == sets["test"].group_names == tuple("012345")


def test_ssc_has_three_splits_and_may_lack_speakers(tmp_path):
    written = write_ssc(tmp_path / "ssc")
    sets = load("ssc", tmp_path)
    assert list(sets) == ["train", "valid", "test"]
    for split, (samples, labels) in written.items():
        assert_samples_are(sets[split], samples)
        assert sets[split].labels.tolist() == labels.tolist()
        assert sets[split].groups is None
        assert sets[split].classes == SSC_KEYS


def test_second_start_reads_no_events_from_the_files(shd, monkeypatch):
    first = load("shd", shd[0])
    monkeypatch.setattr(heidelberg, "_portions", lambda *args: pytest.fail("the file is read again"))
    again = load("shd", shd[0])
    for split in first:
        assert torch.equal(first[split].times_ms, again[split].times_ms)
        assert torch.equal(first[split].units, again[split].units)
        assert torch.equal(first[split].groups, again[split].groups)
        assert again[split].times_ms.data_ptr() != first[split].times_ms.data_ptr()


def test_only_one_portion_is_in_memory(shd, tmp_path, monkeypatch):
    sizes, in_order = [], event_store._in_order
    monkeypatch.setattr(heidelberg, "_PORTION", 8)
    monkeypatch.setattr(heidelberg, "cache_folder", lambda data_dir: tmp_path)
    monkeypatch.setattr(
        event_store, "_in_order", lambda piece, sort: sizes.append(len(piece.counts)) or in_order(piece, sort)
    )
    load("shd", shd[0])
    assert sizes == [8] * 15 + [8] * 5


def test_events_out_of_order_are_refused_or_sorted(tmp_path):
    samples = [([0.25, 0.5], [1, 2]), ([0.5, 0.25, 0.5, 0.125], [3, 4, 5, 6])]
    for split in ("train", "test"):
        write_heidelberg(tmp_path / "shd" / f"shd_{split}.h5", samples, [0, 1], speakers=[0, 0])
    with pytest.raises(ValueError, match=r"events of sample 1 are out of order \(event 1 .* pass sort=True"):
        load("shd", tmp_path)
    train = load("shd", tmp_path, sort=True)["train"]
    assert train.times_ms.tolist() == [250, 500, 125, 250, 500, 500]
    assert train.units.tolist() == [1, 2, 6, 4, 3, 5]


# --- damage ---


def replace(path, key, value):
    with h5py.File(path, "r+") as file:
        del file[key]
        if value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("spikes/units", None, "there is no dataset 'spikes/units' in it"),
        ("extra/keys", None, "there is no dataset 'extra/keys' in it"),
        ("extra/speaker", None, "there is no dataset 'extra/speaker' in it"),
        ("labels", np.zeros(120), "'labels' has dtype float64"),
        ("labels", np.zeros(119, int), "must all have one entry a sample, they have labels: 119"),
        ("labels", np.full(120, 20), r"labels 20\.\.20 are not in 0\.\.19"),
        ("extra/speaker", np.zeros(3, int), "extra/speaker: 3"),
        ("extra/keys", np.array([b"a", b"b"]), "2 class names instead of 20"),
        ("spikes/times", np.zeros(120), "'spikes/times' has dtype float64"),
    ],
)
def test_missing_and_contradictory_parts_are_named(own_shd, key, value, text):
    replace(own_shd / "shd" / "shd_train.h5", key, value)
    with pytest.raises(ValueError, match=rf"shd_train\.h5.*{text}"):
        load("shd", own_shd)


def test_times_and_units_of_a_sample_must_be_equally_many(own_shd):
    with h5py.File(own_shd / "shd" / "shd_test.h5", "r+") as file:
        file["spikes/times"][5] = np.zeros(77, np.float16)
    with pytest.raises(ValueError, match="sample 5 has 77 times and"):
        load("shd", own_shd)


@pytest.mark.parametrize(("value", "text"), [(700, r"channels \d+\.\.700 in samples 0"), (np.nan, "NaN or infinite")])
def test_impossible_events_are_refused(own_shd, value, text):
    samples = random_samples(np.arange(4))
    samples[2] = ([0.5, np.nan], [1, 2]) if np.isnan(value) else ([0.5], [value])
    write_heidelberg(own_shd / "shd" / "shd_test.h5", samples, np.arange(4), speakers=np.zeros(4))
    with pytest.raises(ValueError, match=text):
        load("shd", own_shd)


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"PK" + content[2:]])
def test_truncated_or_foreign_file_is_refused_and_nothing_is_cached(own_shd, damage):
    path = own_shd / "shd" / "shd_test.h5"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"shd_test\.h5' cannot be read: it is no whole HDF5 file"):
        load("shd", own_shd)
    assert len(list((own_shd / "cache").iterdir())) == 1  # the training set, read before


def test_class_names_must_agree_between_splits(own_shd):
    replace(own_shd / "shd" / "shd_test.h5", "extra/keys", np.array([key.encode() for key in SHD_KEYS[::-1]]))
    with pytest.raises(ValueError, match="class names differ from those of the training set"):
        load("shd", own_shd)


def test_unknown_name_and_missing_files_are_explained(tmp_path):
    with pytest.raises(ValueError, match="`name` must be one of 'shd', 'ssc', got 'hd'"):
        load("hd", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data set 'shd' \(shd_train\.h5\.zip"):
        load("shd", tmp_path)


# --- protocols ---


def rows(spikes):
    return [(spikes.labels[i].item(), *(part.tolist() for part in spikes.sample(i))) for i in range(len(spikes))]


def test_validation_is_a_tenth_of_every_class_by_default(shd):
    sets = load("shd", shd[0])
    train, valid, test = split_by_protocol(sets)
    assert test is sets["test"]
    assert (train.split, valid.split) == ("train", "valid")
    assert len(valid) == 20  # a tenth of 120, but at least one of each class
    assert torch.bincount(valid.labels, minlength=20).tolist() == [1] * 20
    assert sorted(rows(train) + rows(valid)) == sorted(rows(sets["train"]))
    assert rows(split_by_protocol(sets, seed=1)[1]) != rows(valid)
    assert len(split_by_protocol(sets, fraction=0.5)[1]) == 60


def test_official_validation_set_is_taken_as_it_is(tmp_path):
    write_ssc(tmp_path / "ssc")
    sets = load("ssc", tmp_path)
    assert split_by_protocol(sets) == (sets["train"], sets["valid"], sets["test"])
    with pytest.raises(ValueError, match=r"`fraction` must be left out.*official validation set"):
        split_by_protocol(sets, fraction=0.1)
    with pytest.raises(ValueError, match="do not say who spoke"):
        split_by_protocol(sets, "speaker", speaker="1")


def test_held_out_speaker_is_never_heard_in_training(shd):
    sets = load("shd", shd[0])
    train, valid, _ = split_by_protocol(sets, "speaker", speaker="2")
    assert {valid.group_names[group] for group in valid.groups} == {"2"}
    assert {train.group_names[group] for group in train.groups} == {"0", "1", "3"}
    assert len(train) + len(valid) == len(sets["train"])


@pytest.mark.parametrize("speaker", ["5", None])
def test_only_speakers_of_the_training_set_can_be_held_out(shd, speaker):
    with pytest.raises(ValueError, match=r"`speaker` must be one of the training set's: '0', '1', '2', '3', got"):
        split_by_protocol(load("shd", shd[0]), "speaker", speaker=speaker)


def test_test_selection_is_labelled_and_logged(shd, caplog):
    sets = load("shd", shd[0])
    train, valid, test = split_by_protocol(sets, "test-selection")
    assert train is sets["train"]
    assert valid is test
    assert valid.split == "test"
    assert "accuracy reported is too high" in caplog.text


def test_protocols_other_than_test_selection_never_choose_on_test_samples(shd, caplog):
    sets = load("shd", shd[0])
    options = {"speaker": {"speaker": "0"}}
    for protocol in PROTOCOLS.keys() - {"test-selection"}:
        _, valid, test = split_by_protocol(sets, protocol, **options.get(protocol, {}))
        assert valid.split == "valid"
        assert not {str(row) for row in rows(valid) if row[1]} & {str(row) for row in rows(test)}
    assert not caplog.text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"protocol": "honest"}, "`protocol` must be one of 'validation', 'speaker', 'test-selection', got 'honest'"),
        ({"speaker": "1"}, "`speaker` must be left out with protocol 'validation'"),
        ({"protocol": "speaker", "fraction": 0.1}, "`fraction` must be left out with protocol 'speaker'"),
    ],
)
def test_options_must_belong_to_the_protocol(shd, options, text):
    with pytest.raises(ValueError, match=text):
        split_by_protocol(load("shd", shd[0]), **options)
    with pytest.raises(ValueError, match="have the splits 'train' and 'test', got 'train'"):
        split_by_protocol({"train": None})


def test_protocols_take_feature_sets_as_well():
    make = {"features": torch.arange(40.0).view(40, 1, 1), "labels": torch.arange(40) % 2, "classes": ("a", "b")}
    sets = {split: FeatureSet(**make, name="x", split=split) for split in ("train", "test")}
    train, valid, _ = split_by_protocol(sets)
    assert (len(train), len(valid)) == (36, 4)
