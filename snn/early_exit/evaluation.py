"""How good a decision is: accuracy, steps and calibration, with intervals, beside the same network without exits."""

# J checks, N samples, R resamples

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from neuroloaders.checks import check_int, check_number, check_shape, invalid
from snn.early_exit.calibration import BINNINGS, reliability
from snn.early_exit.pareto import Oracle, oracle
from snn.early_exit.readout import Trajectory

__all__ = ["BINNINGS", "Evaluation", "Interval", "bootstrap_means", "evaluate_exits"]

# Counts drawn at a time, which bounds the memory.
_BLOCK = 2**22


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its bootstrap interval.

    Attributes
    ----------
    value : float
        The mean of the data.
    low, high : float
        Percentiles of the means of the resamples.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Evaluation:
    """A decision measured on N samples, against the same network that always runs to T.

    Attributes
    ----------
    accuracy : Interval
        Fraction of right answers at the exits.
    mean_steps : Interval
        Mean steps per sample.
    full_accuracy : float
        Accuracy at T.
    difference : Interval
        Accuracy at the exits minus accuracy at T; paired, sample by sample.
    ece, full_ece : float
        Expected calibration error of the confidence, at the exits and at T.
    steps : tuple of int, length J
        The checked steps.
    static_accuracy : tuple of float, length J
        Accuracy if all samples left at that step: the curve to beat at the same mean steps.
    exits : tuple of int, length J
        How many samples left at that step.
    oracle : Oracle
        Exits of someone who knows the answers.
    n_samples, n_steps : int
        N and T.
    level : float
        Level of the intervals.
    fitted_on : bool
        True if these are recognised as the data that the decision was fitted on, so that the numbers flatter it.
    """

    accuracy: Interval
    mean_steps: Interval
    full_accuracy: float
    difference: Interval
    ece: float
    full_ece: float
    steps: tuple[int, ...]
    static_accuracy: tuple[float, ...]
    exits: tuple[int, ...]
    oracle: Oracle
    n_samples: int
    n_steps: int
    level: float
    fitted_on: bool

    @property
    def speedup(self) -> float:
        """T over the mean steps: the bound that a run with exits comes near."""
        return self.n_steps / self.mean_steps.value

    def __repr__(self) -> str:
        lines = [
            f"Early exit on {self.n_samples} samples, T = {self.n_steps}; {100 * self.level:g} % bootstrap intervals",
            f"accuracy            {self.accuracy}, at T {self.full_accuracy:.4f}, difference {self.difference}",
            f"mean steps          {self.mean_steps}, {self.speedup:.2f} times fewer than T",
            f"calibration error   {self.ece:.4f}, at T {self.full_ece:.4f}",
            f"oracle              {self.oracle.accuracy:.4f} at {self.oracle.mean_steps:.2f} steps",
            "step  static accuracy  exits",
        ]
        rows = zip(self.steps, self.static_accuracy, self.exits, strict=True)
        lines += [f"{step:4d}  {accuracy:15.4f}  {count:5d}" for step, accuracy, count in rows]
        if self.fitted_on:
            lines.append("These data chose the decision: report those of data that did not.")
        return "\n".join(lines)


def evaluate_exits(
    course: Trajectory,
    y: ArrayLike,
    threshold: float,
    *,
    rng: int | np.random.Generator = 0,
    n_resamples: int = 1000,
    level: float = 0.95,
    n_bins: int = 15,
    binning: str = "equal_width",
    fitted_on: bool = False,
) -> Evaluation:
    """Measure a threshold on the course of whole runs.

    Parameters
    ----------
    course : Trajectory
        Answers of all samples at all checks.
    y : array, shape (N,), int
        Classes.
    threshold : float
        In [0, 1].
    rng : int or numpy Generator
        Draws the resamples.
    n_resamples : int
        R.
    level : float
        Of the intervals, between 0 and 1.
    n_bins, binning
        Of the calibration error, as in `reliability`.
    fitted_on : bool
        Noted in the result.

    Returns
    -------
    Evaluation
    """
    labels, confidence, steps = course.labels.numpy(), course.confidence.numpy(), course.steps.numpy()
    right = labels == np.asarray(y)
    leaves = course.exits(threshold).numpy()
    everyone = np.arange(right.shape[1])
    answered, full = right[leaves, everyone], right[-1]
    # One draw of the resamples for all three, so that the difference is paired.
    columns = np.stack([answered, steps[leaves], answered.astype(int) - full], axis=1)
    accuracy, mean_steps, difference = bootstrap_means(columns, rng=rng, n_resamples=n_resamples, level=level)
    bins = {"n_bins": n_bins, "binning": binning}
    return Evaluation(
        accuracy=accuracy,
        mean_steps=mean_steps,
        full_accuracy=float(full.mean()),
        difference=difference,
        ece=reliability(confidence[leaves, everyone], answered, **bins).ece,
        full_ece=reliability(confidence[-1], full, **bins).ece,
        steps=tuple(steps.tolist()),
        static_accuracy=tuple(right.mean(axis=1).tolist()),
        exits=tuple(np.bincount(leaves, minlength=len(steps)).tolist()),
        oracle=oracle(right, steps),
        n_samples=right.shape[1],
        n_steps=int(steps[-1]),
        level=level,
        fitted_on=fitted_on,
    )


def bootstrap_means(
    columns: ArrayLike, *, rng: int | np.random.Generator = 0, n_resamples: int = 1000, level: float = 0.95
) -> list[Interval]:
    """Return the mean of each column and its percentile interval; samples are drawn with replacement, rows whole.

    Parameters
    ----------
    columns : array, shape (N, number of quantities)
        One row a sample.
    rng : int or numpy Generator
        Draws the resamples; a number is a seed.
    n_resamples : int
        R.
    level : float
        Of the intervals, between 0 and 1.

    Returns
    -------
    list of Interval
        One a column.

    Notes
    -----
    The percentile method of Efron & Tibshirani, *An Introduction to the Bootstrap* (1993), section 13.3. Equal rows are
    drawn together, by their multinomial counts: the same distribution, at the cost of the rows that differ. The
    interval is about the samples alone; it knows nothing of other trainings or other fits of the decision.

    Examples
    --------
    >>> print(bootstrap_means([[0], [1], [1], [1]], rng=0)[0])
    0.7500 [0.2500, 1.0000]
    """
    columns = np.asarray(columns, dtype=np.float64)
    check_shape("columns", columns, ("N", "M"))
    if not len(columns):
        raise invalid("columns", "have at least one row", "none")
    check_int("n_resamples", n_resamples, at_least=1)
    check_number("level", level, above=0, below=1)
    rng = np.random.default_rng(rng)
    rows, counts = np.unique(columns, axis=0, return_counts=True)
    n_samples = counts.sum()
    means = []
    size = max(1, _BLOCK // len(rows))
    for first in range(0, n_resamples, size):
        drawn = rng.multinomial(n_samples, counts / n_samples, size=min(size, n_resamples - first))
        means.append(drawn @ rows / n_samples)
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return [Interval(*map(float, three)) for three in zip(columns.mean(axis=0), low, high, strict=True)]
