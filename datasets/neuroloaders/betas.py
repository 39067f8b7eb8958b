"""Single-trial fMRI responses: how strongly each voxel answered to each stimulus.

n trials, p voxels; x, y, z the axes of a volume.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from neuroloaders.checks import check_option, check_same_length, check_shape, invalid

__all__ = ["ZSCORES", "BetaSet"]

# Which rows share a mean and a spread.
ZSCORES = {"all": "one of each voxel, from all training rows", "session": "one of each voxel and session"}


@dataclass(frozen=True, eq=False, kw_only=True)
class BetaSet:
    """Responses of one subject to stimuli, a row a trial; or, after `average`, a row a stimulus.

    Parameters
    ----------
    betas : ndarray of float32, shape (n, p)
        Responses; may be a memory map.
    stimuli : ndarray of int64 or str, shape (n,)
        The stimulus of each trial.
    sessions : ndarray of int64, shape (n,)
        The session of each trial; of an averaged set, the first in which the stimulus was shown.
    runs : ndarray of int64, shape (n,), optional
        The run of each trial, unique over sessions.
    repeats : ndarray of int64, shape (n,), optional
        How many trials a row is the mean of; by default 1 each.
    mask : ndarray of bool, shape (x, y, z), optional
        Where the voxels are: voxel j is the j-th that is True, in C order.
    affine : ndarray of float64, shape (4, 4), optional
        From voxel indices to millimetres.
    rois : mapping of str to ndarray of bool, shape (p,)
        Regions of interest.
    ncsnr : ndarray of float, shape (p,), optional
        Noise-ceiling signal-to-noise ratio of each voxel, where the study gives it.
    name, subject : str
        The study, and who it was.
    provenance : str
        Where the responses come from, and what made them.

    Raises
    ------
    TypeError, ValueError
        If shapes, types or lengths do not fit. The responses themselves are not read: see `bad_voxels`.

    Examples
    --------
    >>> trials = BetaSet(
    ...     betas=np.array([[1, 0], [3, 0], [5, 2]], "float32"),
    ...     stimuli=np.array([7, 4, 7]),
    ...     sessions=np.array([1, 1, 2]),
    ...     name="example",
    ...     subject="01",
    ... )
    >>> trials.average().betas.tolist(), trials.average().stimuli.tolist()
    ([[3.0, 1.0], [3.0, 0.0]], [7, 4])
    """

    betas: np.ndarray
    stimuli: np.ndarray
    sessions: np.ndarray
    runs: np.ndarray | None = None
    repeats: np.ndarray | None = None
    mask: np.ndarray | None = None
    affine: np.ndarray | None = None
    rois: Mapping[str, np.ndarray] = field(default_factory=dict)
    ncsnr: np.ndarray | None = None
    name: str = ""
    subject: str = ""
    provenance: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_shape("betas", self.betas, ("n", "p"))
        if not isinstance(self.betas, np.ndarray) or self.betas.dtype != np.float32:
            raise invalid("betas", "be an array of float32", self.betas, kind=TypeError)
        n, p = self.betas.shape
        if n == 0 or p == 0:
            raise invalid("betas", "hold at least one trial and one voxel", self.betas)
        stimuli = np.asarray(self.stimuli)
        if stimuli.dtype.kind not in "iuU":
            raise invalid("stimuli", "be whole numbers or text", stimuli, kind=TypeError)
        columns = {"stimuli": stimuli if stimuli.dtype.kind == "U" else stimuli.astype(np.int64)}
        for name in ("sessions", "runs", "repeats"):
            value = getattr(self, name)
            if value is None:
                value = np.ones(n, dtype=np.int64) if name == "repeats" else None
            elif np.asarray(value).dtype.kind not in "iu":
                raise invalid(name, "be whole numbers", value, kind=TypeError)
            columns[name] = None if value is None else np.asarray(value, dtype=np.int64)
        for name, value in columns.items():
            if value is not None:
                check_shape(name, value, ("n",))
                check_same_length(betas=self.betas, **{name: value})
            object.__setattr__(self, name, value)
        if (self.repeats < 1).any():
            raise invalid("repeats", "be at least 1", f"{self.repeats.min()}")
        if self.mask is not None:
            mask = np.asarray(self.mask)
            check_shape("mask", mask, ("x", "y", "z"))
            if mask.dtype != bool or int(mask.sum()) != p:
                came = f"{int(np.count_nonzero(mask))} of dtype {mask.dtype}"
                raise invalid("mask", f"be of bool with {p} voxels, one for each column of `betas`", came)
            object.__setattr__(self, "mask", mask)
        if self.affine is not None:
            object.__setattr__(
                self, "affine", np.asarray(check_shape("affine", np.asarray(self.affine, float), (4, 4)))
            )
        rois = {}
        for name, roi in self.rois.items():
            roi = check_shape(f"rois[{name!r}]", np.asarray(roi), (p,), advice="One entry for each column of `betas`.")
            if roi.dtype != bool:
                raise invalid(f"rois[{name!r}]", "be of bool", roi, kind=TypeError)
            rois[name] = roi
        object.__setattr__(self, "rois", MappingProxyType(rois))
        if self.ncsnr is not None:
            object.__setattr__(self, "ncsnr", check_shape("ncsnr", np.asarray(self.ncsnr, dtype=float), (p,)))

    def __len__(self) -> int:
        return len(self.betas)

    def __repr__(self) -> str:
        n_stimuli = len(np.unique(self.stimuli))
        return f"BetaSet({self.name} {self.subject}: {len(self)} trials of {n_stimuli} stimuli, {self.n_voxels} voxels)"

    @property
    def n_voxels(self) -> int:
        """Number of voxels, p."""
        return self.betas.shape[1]

    def select(self, rows: Any) -> BetaSet:
        """Return some rows as a set of their own, copied to memory.

        Parameters
        ----------
        rows : array of int, or of bool of shape (n,)
            Row numbers in the order wanted, or one bool a row.

        Raises
        ------
        IndexError, ValueError
            If a number is out of range, or nothing is selected.
        """
        rows = self._row_numbers("rows", rows)
        columns = {name: getattr(self, name) for name in ("stimuli", "sessions", "runs", "repeats")}
        chosen = {name: None if value is None else value[rows] for name, value in columns.items()}
        return dataclasses.replace(self, betas=np.array(self.betas[rows]), **chosen)

    def average(self) -> BetaSet:
        """Return the mean response to each stimulus, in the order in which they first occur.

        Rows that are means already count as many trials as they are of.
        """
        _, first, code = np.unique(self.stimuli, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        group = place[code]
        totals = np.zeros((len(order), self.n_voxels))
        # In blocks: a memory map of all trials need not fit into memory.
        for start in range(0, len(self), 256):
            part = slice(start, start + 256)
            np.add.at(totals, group[part], self.betas[part].astype(np.float64) * self.repeats[part, None])
        repeats = np.bincount(group, weights=self.repeats).astype(np.int64)
        rows = first[order]
        return dataclasses.replace(
            self,
            betas=(totals / repeats[:, None]).astype(np.float32),
            stimuli=self.stimuli[rows],
            sessions=self.sessions[rows],
            runs=None,
            repeats=repeats,
        )

    def restrict(self, voxels: Any) -> BetaSet:
        """Return the set with some voxels only.

        Parameters
        ----------
        voxels : str or array of bool, shape (p,)
            The name of a region of interest, or which voxels to keep.
        """
        if isinstance(voxels, str):
            voxels = self.rois[check_option("voxels", voxels, self.rois)]
        voxels = check_shape("voxels", np.asarray(voxels), (self.n_voxels,))
        if voxels.dtype != bool or not voxels.any():
            raise invalid("voxels", "be of bool and keep at least one voxel", voxels)
        mask = self.mask
        if mask is not None:
            mask = mask.copy()
            mask[mask] = voxels
        return dataclasses.replace(
            self,
            betas=np.array(self.betas[:, voxels]),
            mask=mask,
            rois={name: roi[voxels] for name, roi in self.rois.items()},
            ncsnr=None if self.ncsnr is None else self.ncsnr[voxels],
        )

    def zscore(self, train_rows: Any, *, per: str = "all") -> BetaSet:
        """Return the set in units of the training spread: each voxel minus its mean, over its standard deviation.

        Parameters
        ----------
        train_rows : array of int, or of bool of shape (n,)
            The rows that mean and spread (ddof = 1) come from.
        per : str
            A key of `ZSCORES`. Of "session", every session needs at least two training rows.

        Raises
        ------
        IndexError, ValueError
            If a row is out of range, or a voxel is constant over the training rows: see `drop_bad_voxels`.
        """
        check_option("per", per, ZSCORES)
        chosen = np.zeros(len(self), dtype=bool)
        chosen[self._row_numbers("train_rows", train_rows)] = True
        out = np.empty(self.betas.shape, dtype=np.float32)
        for session in [None] if per == "all" else np.unique(self.sessions):
            here = np.ones(len(self), bool) if session is None else self.sessions == session
            train = self.betas[here & chosen]
            if len(train) < 2:
                where = "" if session is None else f" in session {session}"
                raise invalid("train_rows", f"name at least 2 rows{where}", f"{len(train)}")
            mean, spread = train.mean(0, dtype=np.float64), train.std(0, ddof=1, dtype=np.float64)
            flat = ~(spread > 1e-7 * abs(mean))  # also NaN
            if flat.any():
                came = f"{int(flat.sum())} constant or NaN ones, the first {int(flat.argmax())}"
                raise invalid(
                    "betas", "have voxels that vary over training rows", came, "Call drop_bad_voxels() first."
                )
            out[here] = (self.betas[here] - mean) / spread
        return dataclasses.replace(self, betas=out)

    def _row_numbers(self, name: str, rows: Any) -> np.ndarray:
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(check_shape(name, rows, (len(self),)))
        if rows.ndim != 1 or len(rows) == 0 or rows.dtype.kind not in "iu":
            raise invalid(name, "name at least one row, by number or by one bool for each", rows)
        if rows.min() < 0 or rows.max() >= len(self):
            raise invalid(name, f"lie in 0..{len(self) - 1}", f"{rows.min()}..{rows.max()}", kind=IndexError)
        return rows

    def bad_voxels(self) -> np.ndarray:
        """Return which voxels hold NaN or infinity or are constant, shape (p,), bool."""
        bad = np.zeros(self.n_voxels, dtype=bool)
        low, high = np.full(self.n_voxels, np.inf), np.full(self.n_voxels, -np.inf)
        for start in range(0, len(self), 1024):
            part = self.betas[start : start + 1024]
            bad |= ~np.isfinite(part).all(0)
            low, high = np.fmin(low, part.min(0)), np.fmax(high, part.max(0))
        return bad | ~(high > low)

    def drop_bad_voxels(self) -> BetaSet:
        """Return the set without `bad_voxels`; itself if there are none."""
        bad = self.bad_voxels()
        return self.restrict(~bad) if bad.any() else self
