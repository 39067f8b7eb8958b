"""Single-trial betas: planted ones come back, and numbers are nilearn's own, fitted by hand."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from fakes.bold import AFFINE, SHAPE, FakeRun, brain_mask, save_volume, write_bids
from nilearn.glm.first_level import FirstLevelModel, make_first_level_design_matrix, run_glm
from nilearn.maskers import NiftiMasker
from tolerances import close

from neurodecode.fmri.betas import betas_from_bold, betas_from_images, read_table
from neurodecode.fmri.trials import trial_betas, trial_regressors

T_R, N_VOLUMES = 2.0, 60


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FakeRun]]:
    root = tmp_path_factory.mktemp("clean") / "study"
    return root, write_bids(root)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FakeRun]]:
    root = tmp_path_factory.mktemp("noisy") / "study"
    return root, write_bids(root, noise=4.0)


def same(got: np.ndarray, want: np.ndarray, kind: str = "float32") -> None:
    close(torch.from_numpy(np.asarray(got, np.float64)), torch.from_numpy(np.asarray(want, np.float64)), kind)


def given(runs: list[FakeRun]) -> dict:
    derived = runs[0].bold.parent
    return {
        "bold": [run.bold for run in runs],
        "events": [run.events for run in runs],
        "mask": next(derived.glob("*brain_mask.nii.gz")),
    }


def edited(run: FakeRun, **columns: object) -> pd.DataFrame:
    return read_table(run.events).assign(**columns)


# --- what was planted comes back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_model", ["ols", "ar1"])
def test_lsa_without_noise_returns_what_was_planted(clean: tuple, noise_model: str) -> None:
    _, runs = clean
    got = betas_from_bold(**given(runs), stimulus_column="stim_file", scale="none", noise_model=noise_model)
    same(got.betas, np.concatenate([run.betas for run in runs]))
    assert got.stimuli.tolist() == [name for run in runs for name in run.stimuli]
    assert got.runs.tolist() == [1] * 6 + [2] * 6
    assert set(got.sessions) == {1}
    assert (got.mask == brain_mask()).all()
    assert (got.affine == AFFINE).all()


def test_betas_in_percent_are_those_of_the_mean_of_the_run(clean: tuple) -> None:
    _, runs = clean
    got = betas_from_bold(**given(runs[:1]), stimulus_column="stim_file", scale="percent")
    mean = nib.load(runs[0].bold).get_fdata()[brain_mask()].mean(axis=1)
    same(got.betas, 100 * runs[0].betas / mean)


def test_voxels_are_in_c_order_of_the_mask(clean: tuple) -> None:
    _, runs = clean
    got = betas_from_bold(**given(runs[:1]), stimulus_column="stim_file", scale="none")
    volume = np.full(SHAPE, np.nan)
    volume[got.mask] = got.betas[2]
    where = np.argwhere(brain_mask())[7]
    same(volume[tuple(where)], runs[0].betas[2, 7])


# --- against nilearn, by hand -------------------------------------------------------------------------------------


# nilearn says so whenever it is given a mask, as it is in both of its models here.
MASK_GIVEN = pytest.mark.filterwarnings("ignore:.*Generation of a mask has been requested:RuntimeWarning")


@MASK_GIVEN
def test_lsa_equals_first_level_model(noisy: tuple) -> None:
    _, runs = noisy
    table = read_table(runs[0].events)
    table = table[["onset", "duration"]].assign(trial_type=[f"t{i}" for i in range(len(table))])
    mask = given(runs)["mask"]
    model = FirstLevelModel(t_r=T_R, hrf_model="glover", high_pass=0.02, mask_img=mask, slice_time_ref=0.5)
    model.fit(nib.load(runs[0].bold), events=table)
    maps = [model.compute_contrast(f"t{i}", output_type="effect_size") for i in range(len(table))]
    want = NiftiMasker(mask_img=mask, standardize=None, reports=False).fit().transform(maps)
    options = {"hrf": "glover", "high_pass": 0.02, "slice_time_ref": 0.5}
    got = betas_from_bold(**given(runs[:1]), stimulus_column="stim_file", **options)
    same(got.betas, want)


@pytest.mark.parametrize("hrf", ["spm", "glover", "spm + derivative"])
@pytest.mark.parametrize("noise_model", ["ols", "ar1"])
def test_lss_equals_one_model_of_nilearn_for_each_trial(noisy: tuple, hrf: str, noise_model: str) -> None:
    _, runs = noisy
    table = read_table(runs[0].events)[["onset", "duration"]]
    bold = nib.load(runs[0].bold).get_fdata()[brain_mask()].T
    motion = np.random.default_rng(3).standard_normal((N_VOLUMES, 2))
    want = []
    for i in range(len(table)):
        events = table.assign(trial_type=["one" if j == i else "rest" for j in range(len(table))])
        design = make_first_level_design_matrix(np.arange(N_VOLUMES) * T_R, events, hrf_model=hrf, add_regs=motion)
        labels, results = run_glm(bold, design.to_numpy(), noise_model=noise_model)
        column = design.columns.get_loc("one")
        row = np.empty(bold.shape[1])
        for label, result in results.items():
            row[labels == label] = result.theta[column]
        want.append(row)
    options = {"method": "lss", "hrf": hrf, "noise_model": noise_model, "scale": "none", "confounds": motion}
    got, kept = trial_betas(bold, table, t_r=T_R, **options)
    assert kept.tolist() == list(range(len(table)))
    same(got, np.array(want))
    pieces, _ = trial_betas(bold, table, t_r=T_R, chunk_size=5, **options)
    same(pieces, got)


def test_lss_of_one_trial_is_lsa(noisy: tuple) -> None:
    _, runs = noisy
    table = read_table(runs[0].events).iloc[:1]
    bold = nib.load(runs[0].bold).get_fdata()[brain_mask()].T
    same(*(trial_betas(bold, table, t_r=T_R, method=method)[0] for method in ("lss", "lsa")))


@MASK_GIVEN
def test_lsa_of_real_bold_equals_first_level_model(shared_data: Path) -> None:
    run = shared_data / "haxby" / "haxby2001" / "sub001" / "BOLD" / "task001_run001"
    if not run.is_dir():
        pytest.skip(f"no folder haxby of Haxby et al. 2001 in {shared_data}")
    mask = shared_data / "haxby" / "mask.nii.gz"
    table = read_table(run / "bold_events.tsv")
    # Whole numbers are masked to float32 by nilearn, which then fits in it.
    stored = nib.load(run / "bold_1slice.nii.gz")
    exact = nib.Nifti1Image(stored.get_fdata(), stored.affine)
    model = FirstLevelModel(t_r=2.5, hrf_model="spm", mask_img=mask).fit(exact, events=table)
    maps = [model.compute_contrast(name, output_type="effect_size") for name in table["trial_type"]]
    want = NiftiMasker(mask_img=mask, standardize=None, reports=False).fit().transform(maps)
    got = betas_from_bold(run / "bold_1slice.nii.gz", run / "bold_events.tsv", mask=mask)
    same(got.betas, want)
    assert got.stimuli.tolist() == table["trial_type"].tolist()


def test_images_equal_the_masker(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = save_volume(tmp_path / "mask.nii.gz", brain_mask().astype(np.uint8))
    series = save_volume(tmp_path / "series.nii.gz", rng.normal(size=(*SHAPE, 4)).astype(np.float32))
    single = save_volume(tmp_path / "single.nii.gz", rng.normal(size=SHAPE).astype(np.float32))
    roi = save_volume(tmp_path / "roi.nii.gz", np.where(np.arange(36).reshape(SHAPE) > 20, 3, -1).astype(np.int16))
    got = betas_from_images([series, single], [5, 6, 5, 7, 6], mask=mask, rois={"back": roi}, runs=[1, 1, 1, 1, 2])
    masker = NiftiMasker(mask_img=mask, standardize=None, reports=False).fit()
    want = np.concatenate([masker.transform(series), masker.transform(single)[None]])
    assert (got.betas == want).all()
    assert got.stimuli.tolist() == [5, 6, 5, 7, 6]
    assert (got.rois["back"] == (np.arange(36).reshape(SHAPE) > 20)[brain_mask()]).all()
    assert got.average().repeats.tolist() == [2, 2, 1]


# --- options ------------------------------------------------------------------------------------------------------


def test_nuisance_events_are_modelled_and_ignored_ones_are_not(clean: tuple) -> None:
    _, runs = clean
    table = edited(runs[0])
    extra = pd.DataFrame(
        {"onset": [1.0, 110.0, 50.0], "duration": 1.0, "trial_type": ["button", "button", np.nan], "stim_file": np.nan}
    )
    both = pd.concat([table, extra], ignore_index=True)
    base = given(runs[:1])
    bold = nib.load(runs[0].bold)
    press = trial_regressors(extra.iloc[:2], n_volumes=N_VOLUMES, t_r=T_R).sum(axis=1)
    loud = nib.Nifti1Image(bold.get_fdata() + 80 * press, bold.affine, bold.header)
    options = {"stimulus_column": "stim_file", "scale": "none", "mask": base["mask"], "ignored_types": ["n/a"]}
    got = betas_from_bold(loud, both, nuisance_types=["button"], **options)
    same(got.betas, runs[0].betas)
    with pytest.raises(ValueError, match=r"stim_file.*n/a in 2 of them, the first at 1.0 s.*nuisance_types"):
        betas_from_bold(loud, both, **options)


def test_confounds_are_regressed_out(clean: tuple) -> None:
    _, runs = clean
    base, bold = given(runs[:1]), nib.load(runs[0].bold)
    motion = pd.DataFrame(
        {"a": np.random.default_rng(0).standard_normal(N_VOLUMES), "b": [np.nan, *np.arange(59) ** 0.5]}
    )
    moved = nib.Nifti1Image(bold.get_fdata() + 30 * motion["a"].to_numpy(), bold.affine, bold.header)
    options = {"events": base["events"], "mask": base["mask"], "stimulus_column": "stim_file", "scale": "none"}
    same(betas_from_bold(moved, confounds=motion, **options).betas, runs[0].betas)
    assert abs(betas_from_bold(moved, **options).betas - runs[0].betas).max() > 1


def test_ids_that_are_numbers_stay_numbers(clean: tuple) -> None:
    _, runs = clean
    tables = [edited(run, stim_file=np.arange(6) + 10 * i) for i, run in enumerate(runs)]
    got = betas_from_bold(**given(runs) | {"events": tables}, stimulus_column="stim_file", sessions=[1, 2])
    assert got.stimuli.dtype == np.int64
    assert got.stimuli[[0, 6]].tolist() == [0, 10]
    assert got.sessions.tolist() == [1] * 6 + [2] * 6


def test_late_trials_are_refused_or_left_out(clean: tuple) -> None:
    _, runs = clean
    table = edited(runs[0])
    late = pd.concat([table, table.iloc[:1].assign(onset=118.0)], ignore_index=True)
    options = given(runs[:1]) | {"events": late, "stimulus_column": "stim_file", "scale": "none"}
    with pytest.raises(ValueError, match=r"responses in the run, got 1 without, the first at 118 s of 120 s"):
        betas_from_bold(**options)
    same(betas_from_bold(**options, incomplete="drop").betas, runs[0].betas)


def test_bad_voxels_are_refused_or_left_out_of_all_runs(clean: tuple) -> None:
    _, runs = clean
    images = [nib.load(run.bold) for run in runs]
    values = images[1].get_fdata().copy()
    values[tuple(np.argwhere(brain_mask())[3])] = 0
    values[tuple(np.argwhere(brain_mask())[9])] = np.inf
    images[1] = nib.Nifti1Image(values, images[1].affine, images[1].header)
    roi = nib.Nifti1Image(brain_mask().astype(np.uint8), AFFINE)
    options = given(runs) | {"bold": images, "stimulus_column": "stim_file", "rois": {"all": roi}}
    with pytest.raises(ValueError, match=r"got 2 that are constant or NaN in run 2, the first 3\. Use bad_voxels"):
        betas_from_bold(**options)
    got = betas_from_bold(**options, bad_voxels="drop", scale="none")
    kept = np.delete(np.arange(32), [3, 9])
    assert got.n_voxels == 30
    assert got.mask.sum() == 30
    same(got.betas, np.concatenate([run.betas[:, kept] for run in runs]))


# --- errors -------------------------------------------------------------------------------------------------------


def test_mask_of_another_grid_is_refused(clean: tuple) -> None:
    _, runs = clean
    shifted = AFFINE.copy()
    shifted[0, 3] += 1
    for mask, message in (
        (nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), AFFINE), r"grid of the mask, \(3, 3, 3\), got \(4, 3, 3\)"),
        (nib.Nifti1Image(np.ones(SHAPE, np.uint8), shifted), r"affine that differs by up to 1\. .*resample"),
        (nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), r"`mask` must hold at least one voxel above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            betas_from_bold(**given(runs) | {"mask": mask})


def test_repetition_times_that_differ_are_refused(clean: tuple) -> None:
    _, runs = clean
    images = [nib.load(run.bold) for run in runs]
    other = nib.Nifti1Image(images[1].get_fdata(), AFFINE, images[1].header.copy())
    other.header.set_zooms((2, 2, 2.5, 1.5))
    with pytest.raises(ValueError, match=r"one repetition time for all runs, got 2, 1\.5 s"):
        betas_from_bold(**given(runs) | {"bold": [images[0], other]})
    for image in (images[0], other):
        image.header.set_zooms((2, 2, 2.5, 0))
    with pytest.raises(ValueError, match=r"say their repetition time, got 0 s.*Pass t_r="):
        betas_from_bold(**given(runs) | {"bold": [images[0], other]})


def test_milliseconds_in_a_header_are_understood(clean: tuple) -> None:
    _, runs = clean
    image = nib.load(runs[0].bold)
    image = nib.Nifti1Image(image.get_fdata(), AFFINE, image.header.copy())
    image.header.set_zooms((2, 2, 2.5, 2000))
    image.header.set_xyzt_units("mm", "msec")
    options = given(runs[:1]) | {"bold": image, "stimulus_column": "stim_file", "scale": "none"}
    same(betas_from_bold(**options).betas, runs[0].betas)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"onset": [4, 20, 36, 52, 68, 140]}, r"lie in 0\.\.120 s, the run, got 140 s in row 5"),
        ({"onset": [-1, 20, 36, 52, 68, 80]}, r"lie in 0\.\.120 s, the run, got -1 s in row 0"),
        ({"onset": [4, 20, 36, 52, "soon", 80]}, r"be a number of seconds, got 'soon' in row 4"),
        ({"duration": 0.0}, r"duration.* must be > 0 s, got 0 in row 0.*Pass duration="),
        ({"onset": [4, 20, 36, 36, 68, 80]}, r"start one at a time, got 2 that start at 36 s"),
        ({"stim_file": ["a", "b", np.nan, "d", "e", "f"]}, r"say what each trial showed, got n/a in 1 of them"),
    ],
)
def test_events_that_do_not_fit_are_refused(clean: tuple, columns: dict, message: str) -> None:
    _, runs = clean
    with pytest.raises(ValueError, match=message):
        betas_from_bold(**given(runs[:1]) | {"events": edited(runs[0], **columns)}, stimulus_column="stim_file")


def test_designs_that_cannot_be_solved_are_refused(clean: tuple) -> None:
    _, runs = clean
    options = given(runs[:1]) | {"stimulus_column": "stim_file"}
    ones = np.ones((N_VOLUMES, 1))
    for method in ("lsa", "lss"):
        with pytest.raises(ValueError, match=r"independent regressors, got rank"):
            betas_from_bold(**options, confounds=ones, method=method)
    with pytest.raises(ValueError, match=r"fewer regressors than volumes, got 6\d for 60"):
        betas_from_bold(**options, confounds=np.random.default_rng(0).standard_normal((N_VOLUMES, 55)))
    with pytest.raises(ValueError, match=r"`confounds` must hold finite numbers"):
        betas_from_bold(**options, confounds=ones * np.nan)
    with pytest.raises(ValueError, match=r"`confounds` must have shape \(60, k\), got \(59, 2\)"):
        betas_from_bold(**options, confounds=np.ones((59, 2)))


def test_centred_time_courses_are_refused_in_percent(clean: tuple) -> None:
    _, runs = clean
    image = nib.load(runs[0].bold)
    values = image.get_fdata()
    centred = nib.Nifti1Image(values - values.mean(axis=3, keepdims=True) - 1, AFFINE, image.header)
    with pytest.raises(ValueError, match=r"means above 0 for scale='percent'.*scale='none'"):
        betas_from_bold(**given(runs[:1]) | {"bold": centred}, stimulus_column="stim_file")


def test_files_that_are_absent_or_damaged_are_named(clean: tuple, tmp_path: Path) -> None:
    _, runs = clean
    options = given(runs[:1]) | {"stimulus_column": "stim_file"}
    with pytest.raises(FileNotFoundError, match=r"nowhere\.nii\.gz"):
        betas_from_bold(**options | {"bold": tmp_path / "nowhere.nii.gz"})
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(ValueError, match=r"text\.nii\.gz' cannot be read: it is no image"):
        betas_from_bold(**options | {"bold": tmp_path / "text.nii.gz"})
    half = tmp_path / "half.nii.gz"
    whole = runs[0].bold.read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.nii\.gz' cannot be read"):
        betas_from_bold(**options | {"bold": half})
    shutil.copy(runs[0].events, tmp_path / "events.csv")
    table = (tmp_path / "events.csv").read_text().replace("\t", ";")
    (tmp_path / "events.csv").write_text(table)
    with pytest.raises(ValueError, match=r"have a column 'onset', got none.*separated by tabs"):
        betas_from_bold(**options | {"events": tmp_path / "events.csv"})
    with pytest.raises(TypeError, match=r"`bold\[0\]` must be a path or a nibabel image"):
        betas_from_bold(**options | {"bold": SimpleNamespace(shape=(3, 3, 3, 4))})


def test_images_and_stimuli_of_other_numbers_are_refused(tmp_path: Path) -> None:
    mask = save_volume(tmp_path / "mask.nii.gz", brain_mask().astype(np.uint8))
    series = np.random.default_rng(0).normal(size=(*SHAPE, 4))
    with pytest.raises(ValueError, match=r"one entry for each of 4 volumes, got 3"):
        betas_from_images(nib.Nifti1Image(series, AFFINE), ["a", "b", "c"], mask=mask)
    series[2, 1, 1, 2] = np.nan
    image = nib.Nifti1Image(series, AFFINE)
    with pytest.raises(ValueError, match=r"got 1 of 32 that are constant or NaN"):
        betas_from_images(image, list("abcd"), mask=mask)
    assert betas_from_images(image, list("abcd"), mask=mask, bad_voxels="drop").n_voxels == 31
