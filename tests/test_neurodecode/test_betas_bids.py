"""Betas from a BIDS folder: the files that are found, and what is said where they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from fakes.bold import AFFINE, SHAPE, FakeRun, brain_mask, save_volume, write_bids
from tolerances import close

from neurodecode.fmri.betas import betas_from_bold, read_table
from neurodecode.fmri.bids import MOTION, betas_from_bids

COLUMN = {"stimulus_column": "stim_file", "scale": "none"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[FakeRun]]:
    root = tmp_path_factory.mktemp("bids") / "study"
    return root, write_bids(root, sessions=("a", "b"), start_time=1.0)


@pytest.fixture
def study(written: tuple[Path, list[FakeRun]], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    root = tmp_path / "study"
    shutil.copytree(written[0], root)
    return root


def same(got: np.ndarray, want: np.ndarray) -> None:
    close(torch.from_numpy(np.asarray(got, np.float64)), torch.from_numpy(np.asarray(want, np.float64)), "float32")


def derived(root: Path, session: str = "a") -> Path:
    return root / "derivatives" / "fmriprep" / "sub-01" / f"ses-{session}" / "func"


def test_bold_of_all_sessions_gives_what_was_planted(written: tuple) -> None:
    root, runs = written
    got = betas_from_bids(root, "sub-01", "view", **COLUMN)
    same(got.betas, np.concatenate([run.betas for run in runs]))
    assert got.stimuli.tolist() == [name for run in runs for name in run.stimuli]
    assert got.sessions.tolist() == [1] * 12 + [2] * 12
    assert got.runs.tolist() == np.repeat([1, 2, 3, 4], 6).tolist()
    assert (got.name, got.subject) == ("Fake views", "01")
    only = betas_from_bids(root, "01", "view", sessions=["b"], derivatives=root / "derivatives" / "fmriprep", **COLUMN)
    same(only.betas, got.betas[12:])
    assert set(only.sessions) == {1}


def test_bids_equals_the_same_files_given_by_hand(written: tuple) -> None:
    root, runs = written
    confounds = sorted((root / "derivatives").rglob("*confounds_timeseries.tsv"))
    want = betas_from_bold(
        [run.bold for run in runs],
        [run.events for run in runs],
        mask=next(derived(root).glob("*brain_mask.nii.gz")),
        confounds=[read_table(path)[["framewise_displacement", "rot_x"]] for path in confounds],
        slice_time_ref=0.5,
        method="lss",
        **COLUMN,
    )
    got = betas_from_bids(root, "01", "view", confounds=["framewise_displacement", "rot_x"], method="lss", **COLUMN)
    assert (got.betas == want.betas).all()
    wrong = betas_from_bids(root, "01", "view", slice_time_ref=0.0, **COLUMN)
    assert abs(wrong.betas - np.concatenate([run.betas for run in runs])).max() > 0.1


def test_masks_of_runs_are_intersected(study: Path) -> None:
    path = sorted(derived(study).glob("*brain_mask.nii.gz"))[1]
    smaller = brain_mask()
    smaller[1, 1, 1] = False
    save_volume(path, smaller.astype(np.uint8))
    got = betas_from_bids(study, "01", "view", **COLUMN)
    assert (got.mask == smaller).all()


def test_series_of_betas_are_preferred_and_read_with_their_table(study: Path, written: tuple) -> None:
    bold = betas_from_bids(study, "01", "view", **COLUMN)
    for run in written[1]:
        volume = np.zeros((*SHAPE, 6), np.float32)
        volume[brain_mask()] = 2 * run.betas.T
        folder = study / run.bold.parent.relative_to(written[0])
        stem = run.bold.name.split("_desc-")[0] + "_desc-betaseries_bold"
        save_volume(folder / f"{stem}.nii.gz", volume)
        if "run-01" in stem:
            pd.DataFrame({"stim_file": [f"own{i}" for i in range(6)]}).to_csv(folder / f"{stem}.tsv", sep="\t")
    got = betas_from_bids(study, "01", "view", **COLUMN)
    same(got.betas, 2 * bold.betas)
    assert got.stimuli[:6].tolist() == [f"own{i}" for i in range(6)]
    assert got.stimuli[6:12].tolist() == written[1][1].stimuli
    assert got.runs.tolist() == bold.runs.tolist()
    same(betas_from_bids(study, "01", "view", source="bold", **COLUMN).betas, bold.betas)
    table = study / "sub-01" / "ses-a" / "func" / "sub-01_ses-a_task-view_run-02_events.tsv"
    read_table(table).iloc[:5].to_csv(table, sep="\t", index=False)
    with pytest.raises(ValueError, match=r"as many volumes as .*events\.tsv has trials, 5.*, got 6.*ignored_types"):
        betas_from_bids(study, "01", "view", **COLUMN)


def test_series_of_one_type_are_named_by_it(study: Path) -> None:
    rng = np.random.default_rng(0)
    folder = derived(study)
    stem = "sub-01_ses-a_task-view_run-01_space-T1w"
    for kind, n in (("house", 3), ("face", 2)):
        save_volume(folder / f"{stem}_desc-{kind}_betaseries.nii.gz", rng.normal(size=(*SHAPE, n)))
    got = betas_from_bids(study, "01", "view", source="betas")
    assert got.stimuli.tolist() == ["face"] * 2 + ["house"] * 3
    assert set(got.runs) == {1}


def test_what_is_absent_is_said(study: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"sub-02, task-view.*desc-betaseries.*desc-preproc_bold.*fmriprep"):
        betas_from_bids(study, "02", "view")
    with pytest.raises(FileNotFoundError, match=r"desc-betaseries"):
        betas_from_bids(study, "01", "view", source="betas")
    with pytest.raises(ValueError, match=r"`sessions` must have bold each, got none for 'c'"):
        betas_from_bids(study, "01", "view", sessions=["a", "c"], **COLUMN)
    with pytest.raises(ValueError, match=r"columns of .*timeseries\.tsv, got 'csf'"):
        betas_from_bids(study, "01", "view", confounds=["csf"], **COLUMN)
    (derived(study) / "sub-01_ses-a_task-view_run-02_desc-confounds_timeseries.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"confounds_timeseries.*Pass confounds=\(\)"):
        betas_from_bids(study, "01", "view", **COLUMN)
    assert len(betas_from_bids(study, "01", "view", confounds=(), **COLUMN)) == 24
    (study / "sub-01" / "ses-a" / "func" / "sub-01_ses-a_task-view_run-02_events.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"sub-01_ses-a_task-view_run-02_events\.tsv"):
        betas_from_bids(study, "01", "view", confounds=(), **COLUMN)
    for path in derived(study).glob("*brain_mask*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"_desc-brain_mask\.nii\.gz.*Pass mask="):
        betas_from_bids(study, "01", "view", confounds=(), **COLUMN)


def test_spaces_and_pipelines_must_be_chosen(study: Path) -> None:
    for path in [*derived(study).glob("*space-T1w*"), *derived(study, "b").glob("*space-T1w*")]:
        shutil.copy(path, path.with_name(path.name.replace("_space-T1w", "")))
    with pytest.raises(ValueError, match=r"one file for each run, got .*Choose one by space="):
        betas_from_bids(study, "01", "view", **COLUMN)
    native = betas_from_bids(study, "01", "view", space="native", **COLUMN)
    assert (native.betas == betas_from_bids(study, "01", "view", space="T1w", **COLUMN).betas).all()
    shutil.copytree(study / "derivatives" / "fmriprep", study / "derivatives" / "other")
    with pytest.raises(ValueError, match=r"which pipeline's bold to take, got fmriprep, other"):
        betas_from_bids(study, "01", "view", space="T1w", **COLUMN)


def test_repetition_times_must_agree(study: Path) -> None:
    sidecar = derived(study) / "sub-01_ses-a_task-view_run-02_space-T1w_desc-preproc_bold.json"
    sidecar.write_text(json.dumps({"RepetitionTime": 1.5}))
    with pytest.raises(ValueError, match=r"same t_r in its sidecar and header, got 1\.5 s and 2 s"):
        betas_from_bids(study, "01", "view", **COLUMN)
    bold = sidecar.with_suffix(".nii.gz")
    image = nib.load(bold)
    save_volume(bold, image.get_fdata(), t_r=1.5, affine=AFFINE)
    with pytest.raises(ValueError, match=r"one repetition time for all runs, got 2 s and, in .*run-02.*, 1\.5 s"):
        betas_from_bids(study, "01", "view", **COLUMN)
    sidecar.write_text("{")
    with pytest.raises(ValueError, match=r"cannot be read: it is no JSON"):
        betas_from_bids(study, "01", "view", **COLUMN)


def test_events_of_a_level_above_are_inherited(study: Path, written: tuple) -> None:
    func = study / "sub-01" / "ses-a" / "func"
    first = func / "sub-01_ses-a_task-view_run-01_events.tsv"
    first.rename(study / "task-view_events.tsv")
    got = betas_from_bids(study, "01", "view", **COLUMN)
    assert got.stimuli[:6].tolist() == written[1][0].stimuli
    assert set(MOTION) <= set(read_table(next(derived(study).glob("*timeseries.tsv"))).columns)
