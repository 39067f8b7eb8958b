"""One response a trial: least squares all and least squares separate, on the time courses of one run."""

# t volumes, p voxels, n trials, k confounds

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neuroloaders.checks import (
    check_finite,
    check_int,
    check_number,
    check_option,
    check_shape,
    invalid,
    soft_import,
)

__all__ = ["DRIFTS", "HRFS", "INCOMPLETE", "METHODS", "NOISE_MODELS", "SCALES", "trial_betas", "trial_regressors"]

# Haemodynamic responses, by nilearn's names. The beta is that of the response itself, not of its derivatives.
HRFS = ("spm", "spm + derivative", "spm + derivative + dispersion", "glover", "glover + derivative")

# Name -> nilearn's.
DRIFTS = {"cosine": "cosine", "polynomial": "polynomial", "none": None}

# Of the noise, over time: independent, or autoregressive of first order, fitted to each voxel.
NOISE_MODELS = ("ols", "ar1")

# What to do with trials whose response lies outside of the run for the most part.
INCOMPLETE = {"raise": "raise an error", "drop": "leave them out of the model and of the result"}

# Trials of whose response a smaller share is recorded, by its sum of squares, are incomplete.
_SEEN = 0.1

# How long nilearn's haemodynamic responses are.
_RESPONSE_S = 32.0

# Regressors of which a smaller share is left by the others depend on them.
_DEPENDENT = 1e-8


def _percent(bold: np.ndarray) -> np.ndarray:
    mean = bold.mean(axis=0)
    if (mean <= 0).any():
        came = f"{int((mean <= 0).sum())} voxels with a mean of 0 or less"
        advice = "They were centred already, or lie outside of the brain: use scale='none', or another mask."
        raise invalid("bold", "have means above 0 for scale='percent'", came, advice)
    return 100 * (bold / mean - 1)


# Name -> function of time courses, shape (t, p).
SCALES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"percent": _percent, "none": lambda bold: bold}


def trial_betas(
    bold: Any,
    events: Any,
    *,
    t_r: float,
    nuisance: Any = None,
    confounds: Any = None,
    method: str = "lsa",
    hrf: str = "spm",
    noise_model: str = "ar1",
    drift: str = "cosine",
    high_pass: float = 0.01,
    drift_order: int = 1,
    slice_time_ref: float = 0.0,
    scale: str = "percent",
    incomplete: str = "raise",
    chunk_size: int = 20_000,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Estimate the response of each voxel to each trial of one run.

    Parameters
    ----------
    bold : array, shape (t, p)
        Time courses of voxels.
    events : DataFrame
        A row a trial, with ``onset`` and ``duration`` in seconds from the first volume.
    t_r : float
        Time between volumes, in seconds.
    nuisance : DataFrame, optional
        Further events, with ``trial_type`` as well: one regressor for each type.
    confounds : array, shape (t, k), optional
        Further regressors, such as motion.
    method : {"lsa", "lss"}
        "lsa", least squares all: one model with a regressor for each trial. "lss", least squares separate: a model for
        each trial, with one regressor for it and one for all other trials [1]_.
    hrf : str
        One of `HRFS`: what a trial evokes.
    noise_model : {"ar1", "ols"}
        Prewhitening by an autoregressive model of first order, fitted to each voxel, as nilearn does it; or none.
    drift : {"cosine", "polynomial", "none"}
        Slow drifts that are removed.
    high_pass : float
        Cut-off of ``drift="cosine"`` in Hz.
    drift_order : int
        Degree of ``drift="polynomial"``.
    slice_time_ref : float
        When within a volume its values were taken, as a share of `t_r`: 0 the start, 0.5 for slices that were
        corrected to the middle, as fMRIPrep does.
    scale : {"percent", "none"}
        "percent": time courses in percent of their mean, so that betas are percent signal change.
    incomplete : {"raise", "drop"}
        What to do with trials so late that less than a tenth of their response (of its sum of squares) is recorded.
    chunk_size : int
        Voxels in memory at a time, in float64.

    Returns
    -------
    betas : ndarray of float32, shape (n, p)
        Responses, in the unit of `scale`, to a regressor whose plateau for a long event is 1.
    kept : ndarray of int64, shape (n,)
        Which rows of `events` they belong to.

    Raises
    ------
    ValueError
        If events lie outside of the run or two trials start at once, if there are more regressors than volumes, if
        regressors depend on each other, or voxels are constant or not finite.

    Notes
    -----
    Design and fit are nilearn's ``make_first_level_design_matrix`` and ``run_glm``, one model a trial for "lss". By
    ordinary least squares, "lss" is one product: drifts and confounds are projected out once, and each trial is then a
    system of two unknowns.

    With overlapping responses "lsa" is unbiased and noisy, "lss" smoother and biased towards the mean response of the
    run [1]_. Where trials are seconds apart neither is best always [2]_; try both on training runs.

    References
    ----------
    .. [1] Mumford, Turner, Ashby & Poldrack, NeuroImage 59 (2012), doi:10.1016/j.neuroimage.2011.08.076.
    .. [2] Abdulrahman & Henson, NeuroImage 125 (2016), doi:10.1016/j.neuroimage.2015.11.009.
    """
    check_option("method", method, METHODS)
    check_option("noise_model", noise_model, NOISE_MODELS)
    check_option("scale", scale, SCALES)
    check_int("chunk_size", chunk_size, at_least=1)
    bold = check_shape("bold", np.asarray(bold), ("t", "p"))
    if bold.dtype.kind not in "fiu" or 0 in bold.shape:
        raise invalid("bold", "hold numbers, shape (t, p), neither of them 0", bold)
    _check_voxels(bold)
    design = Design(
        n_volumes=len(bold),
        t_r=t_r,
        nuisance=nuisance,
        confounds=confounds,
        hrf=hrf,
        drift=drift,
        high_pass=high_pass,
        drift_order=drift_order,
        slice_time_ref=slice_time_ref,
    )
    kept = design.complete(events, incomplete)
    chosen = events.iloc[kept]
    models = METHODS[method](design, chosen)
    betas = np.empty((len(kept), bold.shape[1]), dtype=np.float32)
    for start in range(0, bold.shape[1], chunk_size):
        part = slice(start, start + chunk_size)
        y = SCALES[scale](bold[:, part].astype(np.float64))
        betas[:, part] = models(y, noise_model)
    return betas, kept


def trial_regressors(
    events: Any, *, n_volumes: int, t_r: float, hrf: str = "spm", slice_time_ref: float = 0.0
) -> np.ndarray:
    """Return what each trial alone would evoke in a run: shape (n_volumes, n), without derivatives.

    Parameters
    ----------
    events : DataFrame
        A row a trial, with ``onset`` and ``duration`` in seconds.
    n_volumes : int
        Length of the run.
    t_r, hrf, slice_time_ref
        As for `trial_betas`.
    """
    design = Design(n_volumes=n_volumes, t_r=t_r, hrf=hrf, slice_time_ref=slice_time_ref)
    return design.alone(checked_events("events", events, design))


class Design:
    """The regressors of one run.

    Parameters
    ----------
    n_volumes : int
        Length of the run.
    t_r, nuisance, confounds, hrf, drift, high_pass, drift_order, slice_time_ref
        As for `trial_betas`.
    """

    def __init__(
        self,
        *,
        n_volumes: int,
        t_r: float,
        nuisance: Any = None,
        confounds: Any = None,
        hrf: str = "spm",
        drift: str = "cosine",
        high_pass: float = 0.01,
        drift_order: int = 1,
        slice_time_ref: float = 0.0,
    ) -> None:
        self.n_volumes = check_int("n_volumes", n_volumes, at_least=3)
        self.t_r = check_number("t_r", t_r, above=0, advice="In seconds.")
        self.hrf = check_option("hrf", hrf, HRFS)
        self.drift = DRIFTS[check_option("drift", drift, DRIFTS)]
        self.high_pass = check_number("high_pass", high_pass, above=0, below=0.5 / self.t_r, advice="In Hz.")
        self.drift_order = check_int("drift_order", drift_order, at_least=0)
        offset = check_number("slice_time_ref", slice_time_ref, at_least=0, at_most=1)
        self.frame_times = (np.arange(self.n_volumes) + offset) * self.t_r
        self.nuisance = None
        if nuisance is not None and len(nuisance):
            self.nuisance = checked_events("nuisance", nuisance, self, types=True)
            # A type may be called like a trial.
            self.nuisance["trial_type"] = [f"nuisance_{kind}" for kind in self.nuisance["trial_type"]]
        self.confounds = None
        if confounds is not None:
            self.confounds = np.asarray(confounds, dtype=np.float64)
            advice = "One row for each volume."
            check_shape("confounds", self.confounds, (self.n_volumes, "k"), advice=advice)
            check_finite("confounds", self.confounds, advice="Fill or drop these rows.")

    def complete(self, events: Any, incomplete: str) -> np.ndarray:
        """Return the rows of events whose response is in the run, or raise."""
        check_option("incomplete", incomplete, INCOMPLETE)
        events = checked_events("events", events, self)
        seen = np.ones(len(events), dtype=bool)
        end = (events["onset"] + events["duration"]).to_numpy() + _RESPONSE_S
        late = np.flatnonzero(end > self.n_volumes * self.t_r)
        if len(late):
            # What such an event evokes if the run goes on until the response is over.
            longer = int(np.ceil((end.max() - self.n_volumes * self.t_r) / self.t_r)) + 1
            whole = Design(n_volumes=self.n_volumes + longer, t_r=self.t_r, hrf=self.hrf)
            whole.frame_times = self.frame_times[0] + np.arange(whole.n_volumes) * self.t_r
            evoked = whole.alone(events.iloc[late]) ** 2
            seen[late] = evoked[: self.n_volumes].sum(axis=0) >= _SEEN * evoked.sum(axis=0)
        if not seen.all() and incomplete == "raise":
            late = events["onset"].to_numpy()[~seen]
            came = f"{len(late)} without, the first at {late[0]:g} s of {self.n_volumes * self.t_r:g} s"
            advice = "Leave them out with incomplete='drop'."
            raise invalid("events", "have their responses in the run", came, advice)
        if not seen.any():
            raise invalid("events", "have a trial whose response is in the run", "none")
        return np.flatnonzero(seen)

    def alone(self, events: Any) -> np.ndarray:
        """Return the response to each event, without derivatives, shape (t, n)."""
        compute = soft_import("nilearn.glm.first_level", purpose="A model of BOLD").compute_regressor
        model = self.hrf.split(" + ")[0]
        pairs = zip(events["onset"], events["duration"], strict=True)
        columns = [compute(np.array([[onset], [length], [1.0]]), model, self.frame_times)[0] for onset, length in pairs]
        return np.concatenate(columns, axis=1)

    def matrix(self, events: Any, names: Sequence[str]) -> Any:
        """Return nilearn's design matrix with events of these names; refuse one that is not of full rank."""
        import pandas as pd

        make = soft_import("nilearn.glm.first_level", purpose="A model of BOLD").make_first_level_design_matrix
        table = pd.DataFrame(
            {
                "onset": events["onset"].to_numpy(float),
                "duration": events["duration"].to_numpy(float),
                "trial_type": list(names),
            }
        )
        if self.nuisance is not None:
            table = pd.concat([table, self.nuisance], ignore_index=True)
        confounds = self.confounds
        with warnings.catch_warnings():
            # The rank is checked below.
            warnings.filterwarnings("ignore", message="Matrix is singular")
            design = make(
                self.frame_times,
                table,
                hrf_model=self.hrf,
                drift_model=self.drift,
                high_pass=self.high_pass,
                drift_order=self.drift_order,
                add_regs=confounds,
                add_reg_names=None if confounds is None else [f"confound_{j}" for j in range(confounds.shape[1])],
            )
        values = design.to_numpy()
        n = values.shape[1]
        if n >= self.n_volumes:
            came = f"{n} for {self.n_volumes} volumes"
            advice = "Use method='lss', fewer confounds, or a lower high_pass."
            raise invalid("events", "leave fewer regressors than volumes", came, advice)
        # Columns to length 1: their units are not what is asked.
        rank = np.linalg.matrix_rank(values / np.maximum(np.linalg.norm(values, axis=0), 1e-300), rtol=_DEPENDENT)
        if rank < n:
            raise _dependent(n, f"rank {rank}")
        return design


def checked_events(name: str, events: Any, design: Design, *, types: bool = False) -> Any:
    """Return events as a DataFrame, or say what is wrong with them."""
    import pandas as pd

    wanted = ["onset", "duration"] + ["trial_type"] * types
    if not isinstance(events, pd.DataFrame):
        raise invalid(name, "be a DataFrame", events, kind=TypeError)
    missing = [column for column in wanted if column not in events]
    if missing:
        raise invalid(name, f"have columns {', '.join(wanted)}", f"none named {missing[0]!r}")
    if len(events) == 0:
        raise invalid(name, "hold at least one event", "none")
    out = events[wanted].reset_index(drop=True)
    for column in ("onset", "duration"):
        out[column] = pd.to_numeric(out[column], errors="coerce")
        bad = ~np.isfinite(out[column].to_numpy(float))
        if bad.any():
            row = int(bad.argmax())
            came = f"{events[column].iloc[row]!r} in row {row}"
            raise invalid(f"{name}[{column!r}]", "be a number of seconds", came, "Drop these events.")
    onset, duration = out["onset"].to_numpy(float), out["duration"].to_numpy(float)
    if (duration <= 0).any():
        row = int((duration <= 0).argmax())
        advice = "Pass duration= with how long a stimulus lasts: the unit of betas depends on it."
        raise invalid(f"{name}['duration']", "be > 0 s", f"{duration[row]:g} in row {row}", advice)
    end = design.n_volumes * design.t_r
    outside = (onset < 0) | (onset >= end)
    if outside.any():
        row = int(outside.argmax())
        came = f"{onset[row]:g} s in row {row}"
        advice = f"The run has {design.n_volumes} volumes of {design.t_r:g} s: are onsets in seconds, and of this run?"
        raise invalid(f"{name}['onset']", f"lie in 0..{end:g} s, the run", came, advice)
    for _, group in out.groupby("trial_type") if types else [(None, out)]:
        values, counts = np.unique(group["onset"].to_numpy(float), return_counts=True)
        if counts.max() > 1:
            came = f"{counts.max()} that start at {values[counts.argmax()]:g} s"
            raise invalid(name, "start one at a time", came, "Drop what is listed twice.")
    return out


def _dependent(n: int, came: str) -> Exception:
    advice = "Two trials have the same regressor, or confounds repeat a drift, each other, or a trial."
    return invalid("events, confounds", f"give {n} independent regressors", came, advice)


def _check_voxels(bold: np.ndarray) -> None:
    bad = ~np.isfinite(bold).all(axis=0)
    advice = "Leave them out of the mask, or use bad_voxels='drop'."
    if bad.any():
        came = f"NaN or infinity in {int(bad.sum())} voxels, the first {int(bad.argmax())}"
        raise invalid("bold", "hold finite numbers only", came, advice)
    flat = bold.min(axis=0) == bold.max(axis=0)
    if flat.any():
        came = f"{int(flat.sum())} constant ones, the first {int(flat.argmax())}"
        raise invalid("bold", "have voxels that vary over time", came, advice)


def _fit(y: np.ndarray, x: np.ndarray, noise_model: str, wanted: Sequence[int]) -> np.ndarray:
    """Return the coefficients of some regressors, shape (n, p), as nilearn fits them."""
    run_glm = soft_import("nilearn.glm.first_level", purpose="A model of BOLD").run_glm
    labels, results = run_glm(y, x, noise_model=noise_model)
    out = np.empty((len(wanted), y.shape[1]))
    for label, result in results.items():
        out[:, labels == label] = result.theta[list(wanted)]
    return out


def _all(design: Design, events: Any) -> Callable[[np.ndarray, str], np.ndarray]:
    names = [f"trial_{i:06d}" for i in range(len(events))]
    table = design.matrix(events, names)
    where = table.columns.get_indexer(names)
    return lambda y, noise_model: _fit(y, table.to_numpy(), noise_model, where)


def _separate(design: Design, events: Any) -> Callable[[np.ndarray, str], np.ndarray]:
    n = len(events)
    if n == 1:
        return _all(design, events)
    if " + " in design.hrf:
        # Derivatives are made orthogonal to what they are of, so those of a sum are no sums.
        tables = [design.matrix(events, ["this" if j == i else "others" for j in range(n)]) for i in range(n)]
        matrices = [(table.to_numpy(), table.columns.get_loc("this")) for table in tables]
        return lambda y, noise_model: np.concatenate([_fit(y, x, noise_model, [column]) for x, column in matrices])
    trials = design.alone(events)
    total = trials.sum(axis=1)
    shared = design.matrix(events, ["all"] * n).drop(columns="all").to_numpy()
    if shared.shape[1] + 2 >= design.n_volumes:
        came = f"{shared.shape[1] + 2} for {design.n_volumes} volumes"
        raise invalid("confounds", "leave fewer regressors than volumes", came, "Use fewer, or a lower high_pass.")
    # What is shared is projected out of everything once; each trial is then a system of two unknowns.
    basis = np.linalg.svd(shared, full_matrices=False)[0]
    this = trials - basis @ (basis.T @ trials)
    others = this.sum(axis=1, keepdims=True) - this
    aa, ab, bb = (this * this).sum(0), (this * others).sum(0), (others * others).sum(0)
    left = aa * bb - ab * ab
    if (left <= _DEPENDENT * (trials**2).sum(0) * (total @ total)).any():
        raise _dependent(shared.shape[1] + 2, f"fewer for trial {int(left.argmin())}")
    weights = ((bb * this - ab * others) / left).T

    def fit(y: np.ndarray, noise_model: str) -> np.ndarray:
        if noise_model == "ols":
            # The weights are orthogonal to what is shared.
            return weights @ y
        columns = (np.column_stack([trial, total - trial, shared]) for trial in trials.T)
        return np.concatenate([_fit(y, x, noise_model, [0]) for x in columns])

    return fit


# Name -> function of a design and trials that returns the fit of time courses, (t, p) -> (n, p).
METHODS: dict[str, Callable[..., Callable[[np.ndarray, str], np.ndarray]]] = {"lsa": _all, "lss": _separate}
