"""BOLD time courses of a block design, and one response a block from them.

A block is a stretch of volumes with the same label in one run. Its response is the mean over its volumes, some seconds
later, of time courses that were freed of slow drifts and put into units of their own standard deviation in each run.
"""

# t volumes, p voxels, n blocks; x, y, z axes of a volume

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroloaders.betas import BetaSet
from neuroloaders.checks import check_finite, check_int, check_number, check_same_length, check_shape, invalid

__all__ = ["BlockAveraging", "BoldSet", "block_averages", "clean_runs"]


@dataclass(frozen=True, kw_only=True)
class BlockAveraging:
    """How blocks become responses.

    Parameters
    ----------
    lag : float
        Seconds by which the response is behind the labels; rounded to whole volumes. About 5 if labels say when a
        stimulus was there; 0 if they were shifted already, as in some published tables.
    detrend : int
        Degree of the polynomial in time that is taken out of each run: 0 its mean, 1 a line.
    zscore : bool
        Divide by the standard deviation of the run (ddof = 1), each voxel.
    rest : str or None
        The label that is no stimulus and becomes no block; None keeps all.
    """

    lag: float = 5.0
    detrend: int = 1
    zscore: bool = True
    rest: str | None = "rest"

    def __post_init__(self) -> None:
        check_number("lag", self.lag, at_least=0)
        check_int("detrend", self.detrend, at_least=0)


@dataclass(frozen=True, eq=False, kw_only=True)
class BoldSet:
    """Volumes of one subject, what was shown during each, and in which run.

    Parameters
    ----------
    bold : ndarray of float32, shape (t, p)
        Time courses of voxels, as measured.
    labels : ndarray of str, shape (t,)
        What was shown while the volume was taken.
    runs : ndarray of int64, shape (t,)
        The run of each volume.
    t_r : float
        Seconds from one volume to the next.
    mask : ndarray of bool, shape (x, y, z)
        Where the voxels are, in C order.
    affine : ndarray of float64, shape (4, 4)
        From voxel indices to millimetres.
    rois : mapping of str to ndarray of bool, shape (p,)
        Regions of interest.
    name, subject, provenance : str
        As in `BetaSet`.
    """

    bold: np.ndarray
    labels: np.ndarray
    runs: np.ndarray
    t_r: float
    mask: np.ndarray
    affine: np.ndarray
    rois: Mapping[str, np.ndarray] = field(default_factory=dict)
    name: str = ""
    subject: str = ""
    provenance: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_shape("bold", self.bold, ("t", "p"))
        check_shape("labels", self.labels, ("t",))
        check_shape("runs", self.runs, ("t",))
        check_same_length(bold=self.bold, labels=self.labels, runs=self.runs)
        check_number("t_r", self.t_r, above=0)
        check_finite("bold", self.bold)

    def __len__(self) -> int:
        return len(self.bold)

    def __repr__(self) -> str:
        runs = len(np.unique(self.runs))
        return f"BoldSet({self.name} {self.subject}: {len(self)} volumes in {runs} runs, {self.bold.shape[1]} voxels)"


def clean_runs(bold: Any, runs: Any, *, detrend: int = 1, zscore: bool = True) -> np.ndarray:
    """Take slow drifts out of each run, and put each voxel into units of its standard deviation in the run.

    Parameters
    ----------
    bold : array of shape (t, p)
        Time courses.
    runs : array of int, shape (t,)
        The run of each volume; volumes of a run are in the order of time.
    detrend : int
        Degree of the polynomial that is taken out: 0 the mean, 1 a line.
    zscore : bool
        Divide by the standard deviation (ddof = 1) of what is left.

    Returns
    -------
    ndarray of float32, shape (t, p)

    Raises
    ------
    ValueError
        If a run has no more volumes than the polynomial has coefficients, or a voxel is constant in a run.

    Notes
    -----
    Statistics come from all volumes of a run, whichever are tested later; labels are not looked at, and leaving whole
    runs out stays honest.
    """
    bold, runs = np.asarray(bold), np.asarray(runs)
    check_shape("bold", bold, ("t", "p"))
    check_same_length(bold=bold, runs=runs)
    check_finite("bold", bold)
    check_int("detrend", detrend, at_least=0)
    out = np.empty(bold.shape, dtype=np.float32)
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        if len(rows) < detrend + 2:
            raise invalid("detrend", f"be below {len(rows) - 1} for a run of {len(rows)} volumes", f"{detrend}")
        series = bold[rows].astype(np.float64)
        # Legendre polynomials: powers of time would be nearly the same direction.
        basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, len(rows)), detrend))
        left = series - basis @ (basis.T @ series)
        if zscore:
            spread = left.std(axis=0, ddof=1)
            flat = spread <= 1e-9 * abs(series).max(axis=0)
            if flat.any():
                came = f"{int(flat.sum())} constant ones in run {run}, the first {int(flat.argmax())}"
                raise invalid("bold", "have voxels that vary in each run", came, "Leave them out of the mask.")
            left /= spread
        out[rows] = left
    return out


def find_blocks(labels: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first volume and the one behind the last of each stretch of one label in one run, shape (n,) each."""
    changed = (labels[1:] != labels[:-1]) | (runs[1:] != runs[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changed) + 1])
    return starts, np.concatenate([starts[1:], [len(labels)]])


def block_averages(bold: BoldSet, config: BlockAveraging = BlockAveraging()) -> BetaSet:
    """Return the mean response to each block.

    Parameters
    ----------
    bold : BoldSet
        Volumes, in the order of time in each run.
    config : BlockAveraging
        Lag, detrending, units.

    Returns
    -------
    BetaSet
        A row a block, in the order of time. Stimuli are the labels, so `BetaSet.average` gives one row a category;
        leave runs out to cross-validate.

    Raises
    ------
    ValueError
        If there is no block, or the lag moves one past the end of its run.

    Notes
    -----
    A block of volumes a..b becomes the mean of volumes a + lag..b + lag, cut at the end of the run. Two blocks without
    rest between them share no volume either, but their responses overlap in time.
    """
    cleaned = clean_runs(bold.bold, bold.runs, detrend=config.detrend, zscore=config.zscore)
    lag = round(config.lag / bold.t_r)
    rows, labels, runs = [], [], []
    for start, stop in zip(*find_blocks(bold.labels, bold.runs), strict=True):
        if bold.labels[start] == config.rest:
            continue
        run = bold.runs[start]
        shifted = np.arange(start + lag, min(stop + lag, len(bold)))
        shifted = shifted[bold.runs[shifted] == run]
        if len(shifted) == 0:
            came = f"{config.lag:g} s, past the end of run {run} for a block of {str(bold.labels[start])!r}"
            raise invalid("lag", "leave at least one volume of each block", came)
        rows.append(cleaned[shifted].mean(axis=0, dtype=np.float64))
        labels.append(str(bold.labels[start]))
        runs.append(int(run))
    if not rows:
        raise invalid("labels", "name at least one block", f"nothing but {config.rest!r}")
    how = f"mean of blocks after {lag} volumes; polynomial of degree {config.detrend} out of each run"
    return BetaSet(
        betas=np.array(rows, dtype=np.float32),
        stimuli=np.array(labels),
        sessions=np.ones(len(rows), dtype=np.int64),
        runs=np.array(runs),
        mask=bold.mask,
        affine=bold.affine,
        rois=bold.rois,
        name=bold.name,
        subject=bold.subject,
        provenance=f"{bold.provenance}; {how}{', z-scored in each run' if config.zscore else ''}",
    )
