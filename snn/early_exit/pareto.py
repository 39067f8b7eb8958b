"""What each threshold costs and gives: the exact sweep, its Pareto front, the choice from it, and the oracle."""

# J checks, N samples, M thresholds

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from neuroloaders.checks import check_fraction, check_number, check_shape, invalid

__all__ = ["Oracle", "ParetoPoint", "Sweep", "choose", "oracle", "pareto_front", "sweep"]


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A threshold that no other beats in both steps and accuracy, on the data it was measured on.

    Attributes
    ----------
    threshold : float
        In [0, 1].
    mean_steps : float
        Mean steps per sample.
    accuracy : float
        Fraction of right answers.
    """

    threshold: float
    mean_steps: float
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """All thresholds that matter on N samples, in rising order; their steps rise strictly with them.

    Attributes
    ----------
    thresholds : ndarray, shape (M,)
        From 0 (all leave at the first check) to 1 (all run to T).
    n_steps : ndarray, shape (M,), int64
        Steps of all samples together.
    n_correct : ndarray, shape (M,), int64
        Samples that are answered rightly.
    n_changed : ndarray, shape (M,), int64
        Samples that are answered rightly at the exit and wrongly at T, or the other way round.
    n_samples : int
        N.
    """

    thresholds: np.ndarray
    n_steps: np.ndarray
    n_correct: np.ndarray
    n_changed: np.ndarray
    n_samples: int

    def point(self, number: int) -> ParetoPoint:
        """Return threshold `number` as means over the samples."""
        steps, correct = int(self.n_steps[number]), int(self.n_correct[number])
        return ParetoPoint(float(self.thresholds[number]), steps / self.n_samples, correct / self.n_samples)

    def thinned(self, n_points: int) -> tuple[ParetoPoint, ...]:
        """Return at most `n_points` thresholds, at even distances in mean steps, with the first and the last."""
        wanted = np.linspace(self.n_steps[0], self.n_steps[-1], n_points)
        return tuple(self.point(number) for number in np.unique(np.searchsorted(self.n_steps, wanted)))


def sweep(certainty: np.ndarray, correct: np.ndarray, steps: np.ndarray) -> Sweep:
    """Compute mean steps and accuracy of all thresholds at once.

    Parameters
    ----------
    certainty : ndarray, shape (J, N)
        In (0, 1], at the checked steps.
    correct : ndarray, shape (J, N), bool
        Whether the answer at that check would be right.
    steps : ndarray, shape (J,), int
        The checked steps; the last is T, where all leave.

    Returns
    -------
    Sweep
        A threshold lies halfway between two certainties that occur, so that rounding on another device does not push
        a sample over it.

    Notes
    -----
    A sample leaves at the first check with certainty > threshold, so only checks matter at which its certainty is
    higher than ever before. Between two such certainties nothing changes; as the threshold passes one of them, the
    sample moves on to the next, or to T. Sorting these moves gives all thresholds in O(N J log(N J)), without a grid.
    """
    check_shape("certainty", certainty, ("J", "N"))
    check_shape("correct", correct, certainty.shape)
    check_shape("steps", steps, (certainty.shape[0],))
    n_checks, n_samples = certainty.shape
    if n_samples == 0:
        raise invalid("certainty", "have at least one sample", "none")
    highest = np.maximum.accumulate(certainty[:-1], axis=0)
    is_record = np.ones(highest.shape, dtype=bool)
    is_record[1:] = highest[1:] > highest[:-1]
    next_check = np.empty(highest.shape, dtype=np.int64)
    following = np.full(n_samples, n_checks - 1)
    for check in range(n_checks - 2, -1, -1):
        next_check[check] = following
        following = np.where(is_record[check], check, following)
    check, sample = np.nonzero(is_record)
    to = next_check[check, sample]
    more_steps = steps[to] - steps[check]
    more_correct = correct[to, sample].astype(np.int64) - correct[check, sample]
    changed = correct != correct[-1]
    more_changed = changed[to, sample].astype(np.int64) - changed[check, sample]
    passed, first = np.unique(highest[check, sample], return_inverse=True)
    by_value = np.zeros((3, len(passed)), dtype=np.int64)
    for row, more in zip(by_value, (more_steps, more_correct, more_changed), strict=True):
        np.add.at(row, first, more)
    at_zero = np.array([[n_samples * int(steps[0])], [int(correct[0].sum())], [int(changed[0].sum())]])
    n_steps, n_correct, n_changed = np.concatenate([at_zero, by_value], axis=1).cumsum(axis=1)
    thresholds = np.zeros(len(passed) + 1)
    if len(passed):
        halfway = passed[:-1] + (passed[1:] - passed[:-1]) / 2
        # Between neighbouring floats there is no half way; the lower one means the same.
        thresholds[1:-1] = np.where(halfway < passed[1:], halfway, passed[:-1])
        thresholds[-1] = 1.0
    return Sweep(thresholds, n_steps, n_correct, n_changed, n_samples)


def pareto_front(all_points: Sweep) -> tuple[ParetoPoint, ...]:
    """Return the points that are more accurate than every cheaper one, from cheap to dear.

    Parameters
    ----------
    all_points : Sweep
        As `sweep` returns it.

    Returns
    -------
    tuple of ParetoPoint
        Both steps and accuracy rise strictly. Of equally accurate points the cheapest is in it.
    """
    best_before = np.maximum.accumulate(all_points.n_correct)[:-1]
    better = np.concatenate([[True], all_points.n_correct[1:] > best_before])
    return tuple(all_points.point(number) for number in np.flatnonzero(better))


def choose(all_points: Sweep, max_drop: float, assurance: float = 0.5) -> ParetoPoint:
    r"""Return the cheapest point that is at most `max_drop` less accurate than running all samples to T.

    Parameters
    ----------
    all_points : Sweep
        As `sweep` returns it.
    max_drop : float
        Accuracy to give up, as a fraction: 0.001 is 0.1 points. It is counted in whole samples: with fewer than
        1 / `max_drop` samples none may be lost.
    assurance : float
        Probability with which the loss on other samples of the same kind is to be no more, in [0.5, 1). At 0.5 the
        loss on these samples is taken for the loss on others.

    Returns
    -------
    ParetoPoint
        There always is one: threshold 1 loses nothing.

    Notes
    -----
    Of N samples b are lost by leaving early and c are gained. The point is good enough if

    .. math:: b - c + z \sqrt{b + c} \le d N,

    with d the drop and z the standard normal quantile of `assurance`: the upper end of the interval of a paired
    difference, as in McNemar's test. Where nothing changes the interval has no width, however few samples there are;
    and the best of many thresholds is a little worse elsewhere all the same.
    """
    check_fraction("max_drop", max_drop, advice="It is a fraction: 0.001 is 0.1 percentage points.")
    check_number("assurance", assurance, at_least=0.5, below=1, advice="0.5 takes the validation data at their word.")
    # In whole samples, so that 0.001 of 1000 samples is one of them in spite of binary fractions.
    may_lose = int(np.floor(max_drop * all_points.n_samples + 1e-9))
    lost = all_points.n_correct[-1] - all_points.n_correct
    enough = lost + NormalDist().inv_cdf(assurance) * np.sqrt(all_points.n_changed) <= may_lose + 1e-9
    return all_points.point(int(np.argmax(enough)))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Oracle:
    """Exits of someone who knows the answers: the target line that no threshold passes.

    Attributes
    ----------
    accuracy : float
        Share of the samples whose answer is right at any check.
    mean_steps : float
        Mean over all samples.
    steps : ndarray, shape (N,), int64
        The first check at which the answer is right; T where it never is.
    correct : ndarray, shape (N,), bool
        Whether it is right at any check.
    """

    accuracy: float
    mean_steps: float
    steps: np.ndarray
    correct: np.ndarray

    def __repr__(self) -> str:
        return f"Oracle on {len(self.steps)} samples: accuracy {self.accuracy:.4f} at {self.mean_steps:.2f} steps"


def oracle(correct: np.ndarray, steps: np.ndarray) -> Oracle:
    """Leave at the first check whose answer is right.

    Parameters
    ----------
    correct : ndarray, shape (J, N), bool
        Whether the answer at each check is right.
    steps : ndarray, shape (J,), int
        The checked steps.

    Returns
    -------
    Oracle

    Notes
    -----
    What holds against any rule on the same checks: the oracle is right wherever the rule is, and there it takes no more
    steps. On samples that the rule gets wrong the oracle may take more, up to T where no answer is right. So its
    accuracy is never below, but its mean steps may be above those of a rule that is quickly wrong.
    """
    check_shape("correct", correct, ("J", "N"))
    check_shape("steps", steps, (correct.shape[0],))
    if correct.shape[1] == 0:
        raise invalid("correct", "have at least one sample", "none")
    ever = correct.any(axis=0)
    taken = np.where(ever, steps[correct.argmax(axis=0)], steps[-1])
    return Oracle(float(ever.mean()), float(taken.mean()), taken, ever)
