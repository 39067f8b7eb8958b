"""Single-trial responses from images: of betas that exist, or of BOLD through a model of each run."""

# n trials, p voxels, t volumes; x, y, z the axes of a volume

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurodecode.fmri.trials import trial_betas
from neurodecode.fmri.volumes import Voxels, load_image, repetition_time
from neuroloaders import checks
from neuroloaders.betas import BetaSet
from neuroloaders.checks import check_number, check_option, check_same_length, corrupt_file, invalid

__all__ = ["BAD_VOXELS", "betas_from_bold", "betas_from_images", "read_table", "split_events"]

log = logging.getLogger(__name__)

# What to do with voxels that are NaN or constant in a run.
BAD_VOXELS = {"raise": "raise an error", "drop": "leave them out of all runs"}


def betas_from_images(
    images: Any,
    stimuli: Any,
    *,
    mask: Any,
    sessions: Any = None,
    runs: Any = None,
    rois: Mapping[str, Any] | None = None,
    bad_voxels: str = "raise",
    name: str = "",
    subject: str = "",
    provenance: str = "",
) -> BetaSet:
    """Read betas that were estimated elsewhere: one volume a trial.

    Parameters
    ----------
    images : path, image, or sequence of them
        Volumes of shape (x, y, z), or series of shape (x, y, z, n), one after the other.
    stimuli : array of int or str, shape (n,)
        What each volume's trial showed.
    mask : path or image
        The voxels to take: those above 0, on the grid of the images.
    sessions, runs : array of int, shape (n,), optional
        Of each trial. By default all are of one session, and runs are unknown.
    rois : mapping of str to path or image, optional
        Regions of interest, on the same grid: voxels above 0.
    bad_voxels : {"raise", "drop"}
        What to do with voxels that hold NaN or are constant over trials.
    name, subject, provenance : str
        Kept in the result.

    Returns
    -------
    neuroloaders.BetaSet

    Raises
    ------
    ValueError
        If the images are on another grid than the mask, their number is not that of `stimuli`, the mask is empty, or
        voxels are bad.

    Notes
    -----
    Values are taken as they are, those that nilearn's ``NiftiMasker`` returns; nothing is resampled.
    """
    check_option("bad_voxels", bad_voxels, BAD_VOXELS)
    voxels = Voxels(mask, rois)
    parts = [voxels.read(f"images[{i}]", image) for i, image in enumerate(_listed(images))]
    betas = np.concatenate(parts).astype(np.float32)
    stimuli = _ids(np.asarray(stimuli))
    checks.check_shape("stimuli", stimuli, ("n",))
    if len(stimuli) != len(betas):
        raise invalid("stimuli", f"have one entry for each of {len(betas)} volumes", f"{len(stimuli)}")
    return _finished(
        BetaSet(
            betas=betas,
            stimuli=stimuli,
            sessions=np.ones(len(betas), np.int64) if sessions is None else np.asarray(sessions),
            runs=None if runs is None else np.asarray(runs),
            mask=voxels.mask,
            affine=voxels.affine,
            rois=voxels.rois,
            name=name,
            subject=subject,
            provenance=provenance,
        ),
        bad_voxels,
    )


def betas_from_bold(
    bold: Any,
    events: Any,
    *,
    mask: Any,
    t_r: float | None = None,
    stimulus_column: str = "trial_type",
    nuisance_types: Sequence[str] = (),
    ignored_types: Sequence[str] = (),
    duration: float | None = None,
    confounds: Any = None,
    sessions: Sequence[int] | None = None,
    rois: Mapping[str, Any] | None = None,
    method: str = "lsa",
    hrf: str = "spm",
    noise_model: str = "ar1",
    drift: str = "cosine",
    high_pass: float = 0.01,
    drift_order: int = 1,
    slice_time_ref: float = 0.0,
    scale: str = "percent",
    incomplete: str = "raise",
    bad_voxels: str = "raise",
    name: str = "",
    subject: str = "",
    progress: bool = False,
) -> BetaSet:
    """Estimate the response to each trial from BOLD, run by run.

    Parameters
    ----------
    bold : path, image, or sequence of them, each of shape (x, y, z, t)
        Preprocessed runs.
    events : path, DataFrame, or sequence of them
        Table of each run, as in BIDS: ``onset`` and ``duration`` in seconds, ``trial_type``, tab-separated.
    mask : path or image
        The voxels to take: those above 0, on the grid of the runs.
    t_r : float, optional
        Time between volumes, in seconds; by default what the headers say.
    stimulus_column : str
        The column that says which stimulus a trial showed, such as "stim_file".
    nuisance_types : sequence of str
        Values of ``trial_type`` that are modelled, one regressor each, but are no trials: button presses, cues.
    ignored_types : sequence of str
        Values of ``trial_type`` that are not modelled, such as "rest"; "n/a" for events without a type.
    duration : float, optional
        How long each trial lasts, in seconds, in place of the column.
    confounds : path, DataFrame, array of shape (t, k), or sequence of them, optional
        Further regressors of each run. All columns of a table are taken. Values that a first volume cannot have, as
        derivatives, are 0 there.
    sessions : sequence of int, optional
        Session of each run; by default all are of session 1.
    rois : mapping of str to path or image, optional
        Regions of interest, on the same grid: voxels above 0.
    method, hrf, noise_model, drift, high_pass, drift_order, slice_time_ref, scale, incomplete
        The model: see `neurodecode.fmri.trial_betas`.
    bad_voxels : {"raise", "drop"}
        What to do with voxels that hold NaN or are constant in a run.
    name, subject : str
        Kept in the result.
    progress : bool
        Show a progress bar over runs.

    Returns
    -------
    neuroloaders.BetaSet
        Rows in the order of runs and tables; runs are numbered from 1.

    Raises
    ------
    ValueError
        If grids or repetition times differ, an event lies outside of its run, a trial has no stimulus, or voxels are
        bad: each with what to do.
    """
    check_option("bad_voxels", bad_voxels, BAD_VOXELS)
    paths, tables = _listed(bold), _listed(events)
    check_same_length(bold=paths, events=tables)
    tables = [_table(f"events[{i}]", table) for i, table in enumerate(tables)]
    extra = [None] * len(paths) if confounds is None else _listed(confounds)
    check_same_length(bold=paths, confounds=extra)
    sessions = [1] * len(paths) if sessions is None else list(sessions)
    check_same_length(bold=paths, sessions=sessions)
    if duration is not None:
        check_number("duration", duration, above=0, advice="In seconds.")
    images = [load_image(f"bold[{i}]", image) for i, image in enumerate(paths)]
    t_r = repetition_time(images, t_r)
    voxels = Voxels(mask, rois)
    for i, image in enumerate(images):
        voxels.check_grid(f"bold[{i}]", image)

    from tqdm.auto import tqdm

    betas, stimuli, session_of, run_of = [], [], [], []
    for i in tqdm(range(len(images)), desc="runs", disable=not progress):
        trials, others = split_events(
            f"events[{i}]", tables[i], stimulus_column, nuisance_types, ignored_types, duration
        )
        series = voxels.read(f"bold[{i}]", images[i])
        good = np.isfinite(series).all(axis=0)
        good[good] = series[:, good].min(axis=0) < series[:, good].max(axis=0)
        if not good.all() and bad_voxels == "raise":
            came = f"{int((~good).sum())} that are constant or NaN in run {i + 1}, the first {int((~good).argmax())}"
            advice = "Use bad_voxels='drop', or another mask."
            raise invalid("bold", "have voxels that vary over time", came, advice)
        if not good.any():
            raise invalid(f"bold[{i}]", "have a voxel in the mask that varies over time", "none", "Is it the mask?")
        found, kept = trial_betas(
            series[:, good],
            trials,
            t_r=t_r,
            nuisance=others,
            confounds=None if extra[i] is None else _confounds(f"confounds[{i}]", extra[i]),
            method=method,
            hrf=hrf,
            noise_model=noise_model,
            drift=drift,
            high_pass=high_pass,
            drift_order=drift_order,
            slice_time_ref=slice_time_ref,
            scale=scale,
            incomplete=incomplete,
        )
        if len(kept) < len(trials):
            log.warning("run %d: %d late trials were left out", i + 1, len(trials) - len(kept))
        rows = np.full((len(kept), voxels.n), np.nan, dtype=np.float32)
        rows[:, good] = found
        betas.append(rows)
        stimuli.append(trials["stimulus"].to_numpy(dtype=object)[kept])
        session_of.append(np.full(len(kept), int(sessions[i])))
        run_of.append(np.full(len(kept), i + 1))
    return _finished(
        BetaSet(
            betas=np.concatenate(betas),
            stimuli=_ids(np.concatenate(stimuli)),
            sessions=np.concatenate(session_of),
            runs=np.concatenate(run_of),
            mask=voxels.mask,
            affine=voxels.affine,
            rois=voxels.rois,
            name=name,
            subject=subject,
            provenance=(
                f"{len(images)} runs of BOLD, {method} with hrf={hrf}, noise={noise_model}, drift={drift}, "
                f"high_pass={high_pass:g} Hz, scale={scale}, t_r={t_r:g} s, "
                f"{'with' if confounds is not None else 'no'} confounds"
            ),
        ),
        bad_voxels,
    )


def read_table(path: Any) -> Any:
    """Read a tab-separated table of BIDS, in which "n/a" is missing, as a DataFrame."""
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise checks.missing_data("table", [path.name], [path.parent], "Is the path right?")
    try:
        return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["n/a", ""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise corrupt_file(path, f"it is no tab-separated table ({error})", "Write it again.") from error


def split_events(
    name: str,
    table: Any,
    stimulus_column: str,
    nuisance_types: Sequence[str],
    ignored_types: Sequence[str],
    duration: float | None,
) -> tuple[Any, Any]:
    """Return the trials of a table, with a column ``stimulus``, and the events of no interest.

    Parameters
    ----------
    name : str
        What to call the table in an error.
    table : DataFrame
        Events of a run.
    stimulus_column, nuisance_types, ignored_types, duration
        As for `betas_from_bold`.
    """
    needed = ["onset", stimulus_column] + ["duration"] * (duration is None)
    for column in needed:
        if column not in table:
            advice = f"It has {', '.join(map(str, table.columns))}: a table of BIDS is separated by tabs."
            raise invalid(name, f"have a column {column!r}", "none", advice)
    if isinstance(nuisance_types, str) or isinstance(ignored_types, str):
        raise invalid("nuisance_types, ignored_types", "be sequences", "a str", "Write ['rest'].", kind=TypeError)
    types = table["trial_type"] if "trial_type" in table else table[stimulus_column]
    types = types.astype(object).where(types.notna(), "n/a").astype(str)
    both = set(nuisance_types) & set(ignored_types)
    if both:
        raise invalid("nuisance_types, ignored_types", "name each type once", f"{sorted(both)[0]!r} in both")
    nuisance, ignored = types.isin(list(nuisance_types)), types.isin(list(ignored_types))
    others = table[nuisance].assign(trial_type=types[nuisance])
    trials = table[~nuisance & ~ignored].reset_index(drop=True)
    if len(trials) == 0:
        raise invalid(name, "have at least one trial", f"types {', '.join(sorted(set(types)))}, all set aside")
    stimulus = trials[stimulus_column]
    if stimulus.isna().any():
        row = int(stimulus.isna().to_numpy().argmax())
        came = f"n/a in {int(stimulus.isna().sum())} of them, the first at {trials['onset'].iloc[row]} s"
        advice = "Name the type of such events in ignored_types ('n/a' if they have none) or nuisance_types."
        raise invalid(f"{name}[{stimulus_column!r}]", "say what each trial showed", came, advice)
    trials = trials.assign(stimulus=stimulus)
    if duration is not None:
        trials = trials.assign(duration=float(duration))
    return trials, others


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _table(name: str, table: Any) -> Any:
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, (str, Path)):
        return read_table(table)
    raise invalid(name, "be a path or a DataFrame", table, kind=TypeError)


def _confounds(name: str, given: Any) -> np.ndarray:
    if isinstance(given, np.ndarray):
        return given
    table = _table(name, given)
    text = [str(column) for column in table if table[column].dtype.kind not in "fiub"]
    if text:
        raise invalid(name, "hold numbers only", f"text in column {text[0]!r}", "Choose columns.")
    values = table.to_numpy(dtype=np.float64, copy=True)
    # A difference to the volume before, or a change from it, does not exist for the first one.
    values[0, np.isnan(values[0])] = 0.0
    return values


def _ids(values: np.ndarray) -> np.ndarray:
    """Return ids of stimuli as int64 if they all are whole numbers, else as str."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return values.astype(str)
    is_text = values.dtype.kind == "U" or any(isinstance(value, str) for value in values)
    if is_text or not (numbers == np.rint(numbers)).all():
        return values.astype(str)
    return numbers.astype(np.int64)


def _finished(betas: BetaSet, bad_voxels: str) -> BetaSet:
    bad = betas.bad_voxels() if len(betas) > 1 else ~np.isfinite(betas.betas).all(axis=0)
    if not bad.any():
        return betas
    if bad.all() or bad_voxels == "raise":
        came = f"{int(bad.sum())} of {len(bad)} that are constant or NaN, the first {int(bad.argmax())}"
        raise invalid("betas", "have voxels that vary over trials", came, "Use bad_voxels='drop', or another mask.")
    log.info("%d voxels that are constant or NaN were left out", int(bad.sum()))
    return betas.restrict(~bad)
