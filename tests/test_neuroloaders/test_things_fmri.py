"""THINGS-fMRI in tables, small."""

import numpy as np
import pytest
from fakes import things_fmri as fake
from fakes.nsd import write_volume

from neuroloaders.studies.things_files import read_responses
from neuroloaders.studies.things_fmri import ThingsFMRIStudy


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("things")
    return root, *fake.write_things(root / "betas_csv")


@pytest.fixture
def study(written, tmp_path):
    return ThingsFMRIStudy(written[0], cache=tmp_path)


@pytest.mark.parametrize("labels", ["text", "mixed"])
def test_responses_are_turned_to_trials_in_rows(tmp_path, labels):
    responses, _ = fake.write_things(tmp_path / "derivatives/betas_csv", labels=labels)
    got = ThingsFMRIStudy(tmp_path, cache=tmp_path / "cache").betas("sub-01")
    np.testing.assert_array_equal(got.betas, responses.T.astype(np.float32))
    assert isinstance(got.betas, np.memmap)


def test_columns_in_another_order_are_put_right(tmp_path):
    order = np.random.default_rng(3).permutation(18)
    responses, _ = fake.write_things(tmp_path, order=order)
    got = ThingsFMRIStudy(tmp_path).betas("sub-01", in_memory=True)
    np.testing.assert_array_equal(got.betas, responses.T.astype(np.float32))


def test_blocks_of_voxels_give_what_one_block_gives(study, monkeypatch):
    whole = study.betas("sub-01", in_memory=True)
    monkeypatch.setattr("neuroloaders.studies.things_files._BLOCK_BYTES", 18 * 8 * 5)
    np.testing.assert_array_equal(study.betas("sub-01", in_memory=True).betas, whole.betas)


def test_trials_keep_stimulus_session_and_run(study):
    got, rows = study.betas("sub-01"), fake.trials()
    assert got.stimuli.tolist() == [row["stimulus"] for row in rows]
    assert got.sessions.tolist() == [row["session"] for row in rows]
    # Runs are numbered in each session: two runs of three trials each.
    assert got.runs.tolist() == np.repeat(np.arange(1, 7), 3).tolist()
    assert got.average().repeats[got.average().stimuli == "dog_13s.jpg"].tolist() == [3]


def test_regions_are_the_columns_of_0_and_1(study, written):
    _, responses, voxels = written
    assert list(study.regions("sub-01")) == ["V1", "hV4", "lFFA"]  # rFFA has no voxel
    two = study.betas("sub-01", ["V1", "lFFA"])
    rows = [row["voxel_id"] for row in voxels if row["V1"] or row["lFFA"]]
    np.testing.assert_array_equal(two.betas, responses[rows].T.astype(np.float32))
    assert two.rois["V1"].tolist() == [row < 4 for row in rows]
    assert "hV4" not in two.rois
    with pytest.raises(ValueError, match="'V1', 'hV4', 'lFFA'"):
        study.betas("sub-01", "rFFA")


def test_voxels_lie_where_the_table_says(study, written, tmp_path):
    voxels = written[2]
    places = [[row[f"voxel_{axis}"] for axis in "xyz"] for row in voxels]
    got = study.betas("sub-01")
    assert np.argwhere(got.mask).tolist() == places
    assert got.affine is None
    affine = np.diag([2.0, 2, 2, 1])
    path = written[0] / "brainmasks" / "sub-01_space-T1w_brainmask.nii.gz"
    write_volume(path, np.ones((5, 6, 4), np.int16), affine)
    try:
        whole = study.betas("sub-01")
    finally:
        path.unlink()
    assert whole.mask.shape == (5, 6, 4)
    np.testing.assert_array_equal(whole.affine, affine)
    assert np.argwhere(whole.mask).tolist() == places


def test_signal_to_noise_follows_from_the_ceiling_of_a_single_trial(study):
    # nc = 100 k / (k + 4) is 100 ncsnr^2 / (ncsnr^2 + 1) for ncsnr^2 = k / 4.
    np.testing.assert_allclose(study.betas("sub-01").ncsnr, np.sqrt(np.arange(12) / 4))


def test_split_is_that_of_the_trial_types(study):
    split = study.split("sub-01")
    assert split.test.tolist() == ["candelabra_14s.jpg", "dog_13s.jpg"]
    assert len(split.train) == 12
    assert split.groups is None
    apart = study.split("sub-01", test_categories="drop")
    assert {study.categories([uid])[0] for uid in split.train} - {
        study.categories([uid])[0] for uid in apart.train
    } == {"dog"}
    assert apart.groups["mango_02b.jpg"] == "mango"


def test_categories_are_names_without_numbers(study):
    assert study.categories(["ice_cream_03b.jpg", "bat1_04b.jpg"]).tolist() == ["ice_cream", "bat1"]
    assert study.captions(["ice_cream_03b.jpg", "bat1_04b.jpg"]) == [["ice cream"], ["bat"]]


def test_images_are_found_by_category_in_the_order_asked(study, tmp_path):
    folder = tmp_path / "object_images"
    fake.write_image(folder, "dog_13s.jpg", (250, 10, 10))
    fake.write_image(folder, "ice_cream_03b.jpg", (10, 10, 250), size=(20, 20))
    with pytest.raises(FileNotFoundError, match=r"images=\.\.\."):
        study.images(["dog_13s.jpg"])
    seen = ThingsFMRIStudy(study.root, images=folder)
    got = seen.images(["ice_cream_03b.jpg", "dog_13s.jpg", "ice_cream_03b.jpg"], size=8)
    assert got.shape == (3, 3, 8, 8)
    assert got.dtype == np.uint8
    assert got.argmax(axis=1)[:, 4, 4].tolist() == [2, 0, 2]
    with pytest.raises(ValueError, match=r"1 of 2 images that are not, the first 'cat_01b.jpg'"):
        seen.images(["dog_13s.jpg", "cat_01b.jpg"])


def test_tables_of_another_subject_are_refused(tmp_path):
    responses, _ = fake.write_things(tmp_path)
    fake.write_frame(tmp_path / "sub-01_ResponseData.h5", responses[:-1])
    with pytest.raises(ValueError, match=r"shape \(11, 18\), the tables name 12 voxels and 18 trials"):
        ThingsFMRIStudy(tmp_path).betas("sub-01", in_memory=True)
    fake.write_frame(tmp_path / "sub-01_ResponseData.h5", responses, voxel_ids=np.arange(12)[::-1])
    with pytest.raises(ValueError, match="voxel_id is in another order"):
        ThingsFMRIStudy(tmp_path).betas("sub-01", in_memory=True)


def test_truncated_files_are_refused(tmp_path):
    fake.write_things(tmp_path)
    path = tmp_path / "sub-01_ResponseData.h5"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="truncated"):
        ThingsFMRIStudy(tmp_path).betas("sub-01", in_memory=True)
    table = tmp_path / "sub-01_StimulusMetadata.csv"
    table.write_bytes(table.read_bytes()[:-22])
    with pytest.raises(ValueError, match="file that was cut"):
        ThingsFMRIStudy(tmp_path).trials("sub-01")


def test_a_table_without_a_column_is_refused(tmp_path):
    fake.write_things(tmp_path)
    path = tmp_path / "sub-01_VoxelMetadata.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("voxel_x", "x"), encoding="utf-8")
    with pytest.raises(ValueError, match="no column 'voxel_x'"):
        ThingsFMRIStudy(tmp_path).betas("sub-01")


def test_nothing_pickled_is_read(tmp_path, monkeypatch):
    import pickle

    responses, _ = fake.write_things(tmp_path, labels="mixed")
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    out = np.empty((18, 12), np.float32)
    read_responses(tmp_path / "sub-01_ResponseData.h5", np.arange(12), np.arange(12), out, False)
    np.testing.assert_array_equal(out, responses.T.astype(np.float32))


def test_an_empty_folder_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sub-\*_ResponseData.h5"):
        ThingsFMRIStudy(tmp_path)
