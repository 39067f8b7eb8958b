"""Calibration: whether answers that are 80 % sure are right in 80 % of the cases."""

# N predictions, M bins

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from neuroloaders.checks import check_finite, check_int, check_option, check_same_length, check_shape, invalid

__all__ = ["BINNINGS", "Reliability", "expected_calibration_error", "reliability"]


def _equal_width(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, n_bins + 1)


def _equal_mass(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    # The upper edge of a bin is the confidence of a sample. Equal confidences share a bin, whatever their order:
    # where there are many, bins become fewer and unequal.
    ordered = np.sort(confidence)
    last = np.ceil(np.arange(1, n_bins + 1) * len(ordered) / n_bins).astype(int) - 1
    upper = np.unique(ordered[np.maximum(last, 0)])
    upper[-1] = 1.0
    return np.unique(np.concatenate([[0.0], upper]))


# Name -> function (confidence (N,), number of bins) -> edges (M + 1,), from 0 to 1; bins are (lower, upper].
BINNINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "equal_width": _equal_width,
    "equal_mass": _equal_mass,
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Reliability:
    """Data of a reliability diagram.

    Attributes
    ----------
    edges : ndarray, shape (M + 1,)
        Bins are (lower, upper]; a confidence of 0 is in the first.
    counts : ndarray, shape (M,), int64
        Predictions in each bin.
    accuracy, confidence : ndarray, shape (M,)
        Means of each bin; NaN where a bin is empty.
    """

    edges: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of accuracy and confidence, weighted by the counts."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((self.counts[filled] * gaps).sum() / self.counts.sum())

    @property
    def largest_gap(self) -> float:
        """The largest distance of accuracy and confidence in any bin that is not empty."""
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))

    def __repr__(self) -> str:
        lines = ["confidence      count  accuracy  mean confidence"]
        bins = zip(self.edges[:-1], self.edges[1:], self.counts, self.accuracy, self.confidence, strict=True)
        for lower, upper, count, accuracy, confidence in bins:
            lines.append(f"({lower:.3f}, {upper:.3f}] {count:6d}  {accuracy:8.4f}  {confidence:15.4f}")
        return "\n".join([*lines, f"ECE {self.ece:.4f}, largest gap {self.largest_gap:.4f}"])


def reliability(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, binning: str = "equal_width"
) -> Reliability:
    """Compare how sure predictions are with how often they are right.

    Parameters
    ----------
    confidence : array, shape (N,)
        Probability that each prediction gives itself, in [0, 1].
    correct : array, shape (N,), bool
        Whether it is right.
    n_bins : int
        M; fewer with ``"equal_mass"`` where many confidences are equal.
    binning : str
        A key of `BINNINGS`. Few confident predictions are low in confidence: bins of equal width leave some almost
        empty, bins of equal mass do not.

    Returns
    -------
    Reliability

    Raises
    ------
    ValueError
        If there are no predictions, or a confidence is no probability.

    Notes
    -----
    As in Guo et al. [1]_, whose 15 bins of equal width are the default.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599).

    Examples
    --------
    >>> round(reliability([0.8, 0.8, 0.8, 0.8, 0.8], [True, True, True, False, False]).ece, 6)
    0.2
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    correct = np.asarray(correct)
    check_shape("confidence", confidence, ("N",))
    check_shape("correct", correct, ("N",))
    if not check_same_length(confidence=confidence, correct=correct):
        raise invalid("confidence", "have at least one prediction", "none")
    check_finite("confidence", confidence)
    if confidence.min() < 0 or confidence.max() > 1:
        came = f"{confidence.min():g} to {confidence.max():g}"
        raise invalid("confidence", "lie in [0, 1]", came, "Turn scores into probabilities first.")
    if correct.dtype != bool:
        raise invalid("correct", "be boolean", correct, "Pass labels == y.", kind=TypeError)
    edges = BINNINGS[check_option("binning", binning, BINNINGS)](confidence, check_int("n_bins", n_bins, at_least=1))
    number = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    n_bins = len(edges) - 1
    counts = np.bincount(number, minlength=n_bins)
    # Empty bins have no mean; divided by NaN they say so, without a warning.
    per_bin = np.where(counts > 0, counts, np.nan)
    return Reliability(
        edges=edges,
        counts=counts,
        accuracy=np.bincount(number, weights=correct, minlength=n_bins) / per_bin,
        confidence=np.bincount(number, weights=confidence, minlength=n_bins) / per_bin,
    )


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, binning: str = "equal_width"
) -> float:
    """Return the mean distance of confidence and accuracy over bins; the parameters are those of `reliability`."""
    return reliability(confidence, correct, n_bins=n_bins, binning=binning).ece
