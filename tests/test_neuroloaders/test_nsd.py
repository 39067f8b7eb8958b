"""The Natural Scenes Dataset in its real layout, small."""

import shutil

import numpy as np
import pytest
from fakes import nsd as fake

from neuroloaders.session_store import stored_sessions
from neuroloaders.studies import nsd as nsd_module
from neuroloaders.studies.nsd import NSDStudy
from neuroloaders.studies.nsd_files import read_session
from neuroloaders.studies.nsd_paper_regions import paper_regions


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    design, betas = fake.write_nsd(root)
    return root, design, betas


@pytest.fixture
def study(written, tmp_path):
    return NSDStudy(written[0], cache=tmp_path)


def _copy(written, tmp_path):
    return shutil.copytree(written[0], tmp_path / "copy")


def _volume(root, name, subject=1):
    import nibabel

    path = root / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/{name}.nii.gz"
    return np.asarray(nibabel.load(path).dataobj)


def test_responses_are_stored_numbers_over_300_voxel_by_voxel(study, written):
    root, _, betas = written
    got = study.betas("subj01")
    inside = np.argwhere(_volume(root, "nsdgeneral") > 0)
    assert got.betas.shape == (3 * 750, len(inside))
    for column, (x, y, z) in enumerate(inside):
        stored = np.concatenate([betas[1, session][x, y, z] for session in (1, 2, 4)])
        want = stored.astype(np.float32) / np.float32(300)
        np.testing.assert_array_equal(got.betas[:, column], want)
    np.testing.assert_array_equal(np.argwhere(got.mask), inside)
    np.testing.assert_allclose(got.affine, fake.AFFINE, rtol=1e-6)  # stored in float32


def test_stimuli_count_from_0_and_follow_the_order_of_the_design(study, written):
    _, design, _ = written
    got = study.betas("subj02", sessions=[1])
    order, images = design["masterordering"][0], design["subjectim"]
    want = [int(images[1, int(order[trial]) - 1]) - 1 for trial in range(750)]
    assert got.stimuli.tolist() == want
    assert set(got.sessions.tolist()) == {1}


def test_sessions_after_a_missing_one_keep_their_own_trials(study, written):
    _, design, _ = written
    assert study.sessions("subj01") == (1, 2, 4)
    assert study.missing_sessions("subj01") == (3,)
    got = study.betas("subj01")
    order, images = design["masterordering"][0].astype(int), design["subjectim"]
    fourth = images[0, order[3 * 750 : 4 * 750] - 1].astype(int) - 1
    assert got.stimuli[got.sessions == 4].tolist() == fourth.tolist()
    # Runs count on: session 4 has runs 37 to 48, of 63 and 62 trials in turn.
    numbers, counts = np.unique(got.runs[got.sessions == 4], return_counts=True)
    assert numbers.tolist() == list(range(37, 49))
    assert counts.tolist() == [63, 62] * 6
    assert "missing: 3" in study.describe()


def test_a_session_that_is_not_there_is_named(study):
    with pytest.raises(ValueError, match=r"1-2, 4, got 3, 5-6, which subj01 lacks"):
        study.betas("subj01", sessions=[1, 3, 5, 6])
    with pytest.raises(ValueError, match="'subj01', 'subj02'"):
        study.betas("subj03")


@pytest.mark.parametrize("chunks", [None, (750, 1, 1, 1), (1, 3, 5, 4), (75, 2, 5, 4)])
def test_hdf5_holds_the_same_as_nifti_whatever_its_chunks(written, tmp_path, chunks):
    root, _, betas = written
    mask = _volume(root, "nsdgeneral") > 0
    path = fake.write_session(tmp_path, 1, 1, betas[1, 1], ending=".hdf5", chunks=chunks)
    nifti = root / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.nii.gz"
    np.testing.assert_array_equal(read_session(path, mask, 750), read_session(nifti, mask, 750))


def test_hdf5_in_slabs_holds_the_same(written, tmp_path, monkeypatch):
    monkeypatch.setattr("neuroloaders.studies.nsd_files._SLAB_BYTES", 1000)
    test_hdf5_holds_the_same_as_nifti_whatever_its_chunks(written, tmp_path, (1, 3, 5, 4))
    test_hdf5_holds_the_same_as_nifti_whatever_its_chunks(written, tmp_path, None)


def test_visual_areas_come_from_the_visual_regions_and_not_from_faces(study, written):
    root = written[0]
    areas, faces = _volume(root, "prf-visualrois"), _volume(root, "floc-faces")
    regions = study.regions("subj01")
    for name, labels in {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "V4": (7,), "V2d": (4,)}.items():
        np.testing.assert_array_equal(regions[name], np.isin(areas, labels))
    np.testing.assert_array_equal(regions["floc-faces"], faces > 0)
    got = study.betas("subj01")
    np.testing.assert_array_equal(got.rois["V1"], np.isin(areas[got.mask], (1, 2)))
    whole = study.betas("subj01", "brainmask").betas
    np.testing.assert_array_equal(study.betas("subj01", "V1").betas, whole[:, np.isin(areas, (1, 2)).ravel()])
    assert all(region.any() for region in got.rois.values())


def test_names_of_a_label_table_win_over_the_built_in_ones(written, tmp_path):
    root = _copy(written, tmp_path)
    table = root / "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab"
    table.parent.mkdir(parents=True)
    table.write_text("0 Unknown\n1 OFA\n3 swapped\n", encoding="utf-8")
    regions = NSDStudy(root).regions("subj01")
    np.testing.assert_array_equal(regions["swapped"], _volume(root, "floc-faces") == 3)
    assert "FFA-1" not in regions
    table.write_text("one OFA\n", encoding="utf-8")
    with pytest.raises(ValueError, match="floc-faces"):
        NSDStudy(root).regions("subj01")


def test_noise_ceiling_of_the_study_goes_with_the_voxels(study, written):
    import nibabel

    path = next(written[0].glob("nsddata_betas/ppdata/subj01/*/*/ncsnr.nii.gz"))
    got = study.betas("subj01", sessions=[1])
    np.testing.assert_allclose(got.ncsnr, np.asarray(nibabel.load(path).dataobj)[got.mask])


def test_published_split_is_that_of_the_design(study, written):
    _, design, _ = written
    split = study.split("subj01", sessions=[1, 2])
    order, images = design["masterordering"][0][: 2 * 750].astype(int), design["subjectim"][0]
    train = {int(images[place - 1]) - 1 for place in order if place > 1000}
    test = {int(images[place - 1]) - 1 for place in order if place <= 1000}
    assert set(split.train.tolist()) == train
    assert set(split.test.tolist()) == test
    assert len(split.valid) == 0
    betas = study.betas("subj01", sessions=[1, 2])
    np.testing.assert_array_equal(split.rows(betas, "test"), order <= 1000)
    assert study.split("subj01", sessions=[1, 2]).test.tolist() == sorted(test)


def test_counts_of_37_sessions_add_up_as_published_ones_do(written):
    # 27,750 trials; of the images that occur, those below place 1000 are the test.
    design = NSDStudy(written[0]).design
    order = design.order[design.sessions <= 37]
    assert len(order) == 27750
    stimuli = design.stimuli(1)[design.sessions <= 37]
    shared = np.isin(np.unique(stimuli), design.shared)
    assert shared.sum() == len(np.unique(order[order < 1000]))
    assert (~shared).sum() == len(np.unique(order[order >= 1000]))


@pytest.mark.parametrize("kind", ["array", "file"])
def test_a_mask_of_another_grid_is_refused(study, written, kind):
    root = written[0]
    other = root / "nsddata/ppdata/subj02/func1pt8mm/roi/nsdgeneral.nii.gz"
    roi = _volume(root, "nsdgeneral", 2) > 0 if kind == "array" else other
    with pytest.raises(
        ValueError, match=r"grid of 'betas_session01.nii.gz', \(4, 5, 3\), got \(5, 4, 3\), another grid"
    ):
        study.betas("subj01", roi)


def test_a_mask_file_that_lies_elsewhere_is_refused(study, tmp_path):
    moved = fake.AFFINE.copy()
    moved[0, 3] = 5
    path = fake.write_volume(tmp_path / "mask.nii.gz", np.ones((4, 5, 3), np.int16), moved)
    with pytest.raises(ValueError, match="affine that differs by up to 5"):
        study.betas("subj01", path)


def test_masks_of_the_callers_are_taken(study, written):
    whole = study.betas("subj01", "brainmask", sessions=[1])
    assert whole.n_voxels == 60
    mask = np.zeros((4, 5, 3), bool)
    mask[1, 2, 0] = mask[3, 0, 2] = True
    two = study.betas("subj01", mask, sessions=[1])
    np.testing.assert_array_equal(two.betas, whole.betas[:, mask[whole.mask]])
    with pytest.raises(ValueError, match="at least one voxel"):
        study.betas("subj01", np.zeros((4, 5, 3), bool))
    with pytest.raises(ValueError, match="volume > 0"):
        study.betas("subj01", mask.astype(float))
    with pytest.raises(ValueError, match="'nsdgeneral'"):
        study.betas("subj01", "V9")


def test_memory_and_disk_give_the_same(study):
    stored, read = study.betas("subj01"), study.betas("subj01", in_memory=True)
    assert isinstance(stored.betas, np.memmap)
    assert not isinstance(read.betas, np.memmap)
    np.testing.assert_array_equal(stored.betas, read.betas)


def test_an_interrupted_run_goes_on_with_the_next_session(study, monkeypatch):
    asked, stop = [], [True]

    def reading(path, mask, n):
        asked.append(path.name)
        if len(asked) == 3 and stop[0]:
            raise KeyboardInterrupt
        return read_session(path, mask, n)

    monkeypatch.setattr(nsd_module, "read_session", reading)
    with pytest.raises(KeyboardInterrupt):
        study.betas("subj01")
    stop[0] = False
    got = study.betas("subj01")
    names = [f"betas_session{number:02d}.nii.gz" for number in (1, 2, 4)]
    assert asked == [*names, names[2]]
    np.testing.assert_array_equal(got.betas, study.betas("subj01", in_memory=True).betas)
    # The next call reads nothing, and the parts are gone.
    del asked[:]
    study.betas("subj01")
    assert asked == []
    assert len(list(study.cache.iterdir())) == 1


def test_a_changed_file_is_read_again(written, tmp_path):
    root = _copy(written, tmp_path)
    study = NSDStudy(root, cache=tmp_path / "cache")
    before = study.betas("subj02").betas.copy()
    fake.write_session(root, 2, 1, np.full((*fake.SHAPES[2], 750), 600, np.int16))
    assert (study.betas("subj02").betas == 2).all()
    assert before.std() > 1


def test_nan_and_silent_voxels_are_found(written, tmp_path):
    root = _copy(written, tmp_path)
    betas = np.random.default_rng(1).standard_normal((4, 5, 3, 750)).astype(np.float32)
    betas[0, 0, 0, 17], betas[3, 4, 2] = np.nan, 0
    fake.write_session(root, 1, 1, betas)
    got = NSDStudy(root).betas("subj01", "brainmask", sessions=[1], in_memory=True)
    assert np.flatnonzero(got.bad_voxels()).tolist() == [0, 59]
    assert got.drop_bad_voxels().n_voxels == 58
    with pytest.raises(ValueError, match="2 constant or NaN ones"):
        got.zscore(np.arange(750))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".hdf5"])
def test_a_truncated_session_is_refused(written, tmp_path, ending):
    path = fake.write_session(tmp_path, 1, 1, written[2][1, 1], ending=ending)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match="truncated"):
        read_session(path, np.ones((4, 5, 3), bool), 750)


def test_a_session_of_another_length_is_refused(tmp_path):
    path = fake.write_session(tmp_path, 1, 1, np.zeros((4, 5, 3, 749), np.int16))
    with pytest.raises(ValueError, match="749 trials, the design 750"):
        read_session(path, np.ones((4, 5, 3), bool), 750)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sharedix": None}, "no variable 'sharedix'"),
        ({"sharedix": np.arange(1000.0)[None]}, "not those of `sharedix`"),
        ({"masterordering": np.zeros((1, 30000), np.uint16)}, "`masterordering` does not lie in 1..10000"),
        ({"subjectim": np.full((8, 10000), 73001.0)}, "`subjectim` does not lie in 1..73000"),
        ({"stimpattern": np.ones((40, 12, 75), np.uint8)}, "shows 36000 images"),
    ],
)
def test_a_design_that_is_not_nsds_is_refused(tmp_path, change, message):
    design = {name: value for name, value in (fake.expdesign() | change).items() if value is not None}
    fake.write_design(tmp_path, design)
    with pytest.raises(ValueError, match=message):
        NSDStudy(tmp_path)


def test_a_damaged_design_is_refused(written, tmp_path):
    path = tmp_path / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True)
    whole = (written[0] / "nsddata/experiments/nsd/nsd_expdesign.mat").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        NSDStudy(tmp_path)


def test_a_folder_without_responses_says_what_to_download(tmp_path):
    fake.write_design(tmp_path)
    with pytest.raises(FileNotFoundError, match="betas_session"):
        NSDStudy(tmp_path).betas("subj01")


def test_images_come_in_the_order_asked(written):
    root = written[0]
    fake.write_images(root)
    ids = [70000, 3, 256, 3]
    got = NSDStudy(root).images(ids)
    assert got.shape == (4, 3, 2, 2)
    assert got.dtype == np.uint8
    assert got[:, :, 1, 0].tolist() == [[uid % 256, uid // 256 % 256, 7] for uid in ids]


@pytest.mark.parametrize("bad", [[-1], [73000], [0, 73001]])
def test_ids_out_of_range_say_that_they_count_from_0(written, bad):
    fake.write_images(written[0])
    with pytest.raises(IndexError, match=r"0\.\.72999.*count from 0"):
        NSDStudy(written[0]).images(bad)


def test_ids_are_whole_numbers(written):
    fake.write_images(written[0])
    with pytest.raises(TypeError, match="whole number"):
        NSDStudy(written[0]).images([0.5])


def test_captions_are_those_that_are_not_empty(tmp_path):
    fake.write_design(tmp_path)
    with pytest.raises(FileNotFoundError, match="COCO_73k_annots_curated"):
        NSDStudy(tmp_path).captions([5])
    fake.write_captions(tmp_path, {5: ["a dog", "two dogs"], 72999: ["a", "b", "c", "d", "e"]})
    study = NSDStudy(tmp_path)
    assert study.captions([72999, 5, 6]) == [["a", "b", "c", "d", "e"], ["a dog", "two dogs"], []]
    with pytest.raises(IndexError, match="count from 0"):
        study.captions([73000])


def test_rows_of_the_stimulus_table_go_by_image(tmp_path):
    fake.write_design(tmp_path)
    fake.write_info(tmp_path, [9, 4, 7])
    got = NSDStudy(tmp_path).stimulus_info([7, 9])
    assert got["cocoId"].tolist() == ["500007", "500009"]
    assert "" not in got
    with pytest.raises(ValueError, match="no row for image 5"):
        NSDStudy(tmp_path).stimulus_info([5])


def test_parts_of_another_width_are_refused(tmp_path):
    from neuroloaders.studies.nsd import NSDReading

    with pytest.raises(ValueError, match=r"session 2.*\(n, 3\)"):
        stored_sessions(
            NSDReading(mask="x"),
            {1: "a", 2: "b"},
            lambda session: np.zeros((2, 2 + (session == 1)), np.float32),
            (4, 3),
            folder=tmp_path,
        )


def test_regions_of_the_paper_are_the_visual_areas_or_by_name_its_mistake(study, written):
    root, _, _ = written
    mask = study.betas("subj01").mask
    right, wrong = (paper_regions(study, "subj01", mask, compat=compat) for compat in (None, "brain-diffuser"))
    areas, faces, bands = (_volume(root, name)[mask] for name in ("prf-visualrois", "floc-faces", "prf-eccrois"))
    np.testing.assert_array_equal(right["V2"], (areas == 3) | (areas == 4))
    np.testing.assert_array_equal(right["V4"], areas == 7)
    np.testing.assert_array_equal(wrong["V1"], (faces == 1) | (faces == 2))
    assert "V4" not in wrong  # no face area has number 7
    for name, label in (("ecc05", 1), ("ecc40p", 5)):
        np.testing.assert_array_equal(right[name], bands == label)
        np.testing.assert_array_equal(wrong[name], bands == label)
    np.testing.assert_array_equal(right["faces"], faces > 0)
    with pytest.raises(ValueError, match="grid"):
        paper_regions(study, "subj01", mask[:-1])
    with pytest.raises(ValueError, match="brain-diffuser"):
        paper_regions(study, "subj01", mask, compat="paper")
