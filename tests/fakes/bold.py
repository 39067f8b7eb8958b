"""Writes a tiny BIDS data set with preprocessed BOLD, laid out and named as fMRIPrep does, with responses planted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix

SHAPE = (4, 3, 3)
AFFINE = np.diag([2.0, 2.0, 2.5, 1.0])
AFFINE[:3, 3] = [-10, 5, 7]


@dataclass
class FakeRun:
    """One run and what was planted in it."""

    bold: Path
    events: Path
    betas: np.ndarray  # (n_trials, n_voxels)
    stimuli: list[str]


def brain_mask() -> np.ndarray:
    mask = np.ones(SHAPE, dtype=bool)
    mask[0, 0] = False
    mask[3, 2, 2] = False
    return mask


def save_volume(path: Path, values: np.ndarray, *, t_r: float | None = None, affine: np.ndarray = AFFINE) -> Path:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm", "sec")
    if t_r is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], t_r))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def planted_bold(
    events: pd.DataFrame,
    betas: np.ndarray,
    *,
    n_volumes: int,
    t_r: float,
    start: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """Return (n_volumes, n_voxels): a baseline, cosine drifts, and responses to each event, by nilearn's SPM model."""
    rng = np.random.default_rng(seed)
    times = np.arange(n_volumes) * t_r + start
    table = events[["onset", "duration"]].assign(trial_type=[f"t{i:03d}" for i in range(len(events))])
    design = make_first_level_design_matrix(times, table, hrf_model="spm", drift_model="cosine", high_pass=0.01)
    n = len(events)
    weights = np.zeros((design.shape[1], betas.shape[1]))
    weights[:n] = betas
    weights[n:-1] = rng.normal(0, 2, weights[n:-1].shape)
    weights[-1] = 1000 + rng.uniform(0, 100, betas.shape[1])
    return design.to_numpy() @ weights + noise * rng.standard_normal((n_volumes, betas.shape[1]))


def write_bids(
    root: Path,
    *,
    n_runs: int = 2,
    n_trials: int = 6,
    n_volumes: int = 60,
    t_r: float = 2.0,
    sessions: tuple[str, ...] = ("",),
    start_time: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> list[FakeRun]:
    """Write ``root`` and ``root/derivatives/fmriprep``; return the runs in order."""
    rng = np.random.default_rng(seed)
    mask = brain_mask()
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Fake views", "BIDSVersion": "1.9.0"}))
    (root / "task-view_bold.json").write_text(json.dumps({"RepetitionTime": t_r, "TaskName": "view"}))
    runs = []
    for session in sessions:
        inside = Path(f"sub-01/ses-{session}/func" if session else "sub-01/func")
        raw, derived = root / inside, root / "derivatives" / "fmriprep" / inside
        raw.mkdir(parents=True)
        derived.mkdir(parents=True)
        for r in range(1, n_runs + 1):
            stem = f"sub-01_{f'ses-{session}_' if session else ''}task-view_run-{r:02d}"
            onset = 4.0 + np.arange(n_trials) * 16.0 + rng.uniform(0, 4, n_trials).round(2)
            stimuli = [f"img{j:02d}.jpg" for j in rng.permutation(n_trials)]
            table = pd.DataFrame(
                {"onset": onset, "duration": 3.0, "trial_type": "image", "stim_file": stimuli, "response": "n/a"}
            )
            events = raw / f"{stem}_events.tsv"
            table.to_csv(events, sep="\t", index=False)
            betas = rng.normal(1, 5, (n_trials, mask.sum()))
            values = np.zeros((*SHAPE, n_volumes))
            values[mask] = planted_bold(
                table, betas, n_volumes=n_volumes, t_r=t_r, start=start_time, noise=noise, seed=seed + len(runs)
            ).T
            names = f"{stem}_space-T1w"
            bold = save_volume(derived / f"{names}_desc-preproc_bold.nii.gz", values, t_r=t_r)
            sidecar = {"StartTime": start_time, "SliceTimingCorrected": True} if start_time else {}
            (derived / f"{names}_desc-preproc_bold.json").write_text(json.dumps(sidecar))
            save_volume(derived / f"{names}_desc-brain_mask.nii.gz", mask.astype(np.uint8))
            motion = rng.normal(0, 0.1, (n_volumes, 6))
            columns = pd.DataFrame(motion, columns=["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"])
            columns.insert(0, "framewise_displacement", [np.nan, *rng.uniform(0, 0.2, n_volumes - 1)])
            columns.to_csv(derived / f"{stem}_desc-confounds_timeseries.tsv", sep="\t", index=False, na_rep="n/a")
            runs.append(FakeRun(bold=bold, events=events, betas=betas, stimuli=stimuli))
    return runs
