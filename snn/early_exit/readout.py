"""What a network knows after t steps: the evidence so far, the answer, and how sure it is.

Everything here is on the CPU in float64, whatever the network computes in. A decision needs the host anyway, so the
logits cross over once a check; and so the answer of a sample depends neither on the device, nor on the batch that it
was in, nor on how many steps were run in one call, beyond what its logits do.
"""

# T time steps, k steps of one call, J checks, B batch, N samples, K classes

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_fraction, check_int, check_number, check_option, check_shape, invalid
from snn.early_exit.recalibration import Recalibration

__all__ = [
    "ACCUMULATE",
    "CRITERIA",
    "Check",
    "ExitRule",
    "Look",
    "Readout",
    "Trajectory",
    "checked_readouts",
    "trajectory",
]

# Samples whose course is computed at a time: bounds the memory of what is in between.
_BLOCK = 4096


# --- evidence so far ----------------------------------------------------------------------------------------------


def _sum(logits: np.ndarray, carry: np.ndarray | None, n_before: int) -> tuple[np.ndarray, np.ndarray]:
    # One running sum over what was carried and what is new: the same additions in the same order for every k.
    if len(logits) == 1:
        total = logits if carry is None else logits + carry
    else:
        total = np.cumsum(logits if carry is None else np.concatenate([carry[None], logits]), axis=0)
        total = total if carry is None else total[1:]
    return total, total[-1]


def _mean(logits: np.ndarray, carry: np.ndarray | None, n_before: int) -> tuple[np.ndarray, np.ndarray]:
    total, carry = _sum(logits, carry, n_before)
    n_so_far = np.arange(n_before + 1.0, n_before + len(logits) + 1.0)
    return total / n_so_far[:, None, None], carry


def _max(logits: np.ndarray, carry: np.ndarray | None, n_before: int) -> tuple[np.ndarray, np.ndarray]:
    if len(logits) == 1:
        highest = logits if carry is None else np.maximum(logits, carry)
    else:
        highest = np.maximum.accumulate(logits if carry is None else np.concatenate([carry[None], logits]), axis=0)
        highest = highest if carry is None else highest[1:]
    return highest, highest[-1]


def _last(logits: np.ndarray, carry: np.ndarray | None, n_before: int) -> tuple[np.ndarray, np.ndarray]:
    return logits, logits[-1]


# Name -> function (logits [k, B, K], what was carried [B, K] or None, steps before) -> (O_t at each of the k steps
# [k, B, K], what to carry on). "sum" is the paper's: evidence grows with t, and one alpha serves all t.
ACCUMULATE: dict[str, Callable[[np.ndarray, np.ndarray | None, int], tuple[np.ndarray, np.ndarray]]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "last": _last,
}


# --- how sure -----------------------------------------------------------------------------------------------------


def _confidence(probability: np.ndarray, persistence: np.ndarray | None) -> np.ndarray:
    return probability.max(-1)


def _entropy(probability: np.ndarray, persistence: np.ndarray | None) -> np.ndarray:
    # 0 log 0 is 0: of the least number above 0 the product is as good as that, and no warning comes.
    entropy = -(probability * np.log(np.maximum(probability, _LEAST))).sum(-1)
    return 1.0 - entropy / math.log(probability.shape[-1])


def _margin(probability: np.ndarray, persistence: np.ndarray | None) -> np.ndarray:
    second, first = np.partition(probability, -2, axis=-1)[..., -2:].T
    return first - second


def _patience(probability: np.ndarray, persistence: np.ndarray | None) -> np.ndarray:
    return persistence


# Name -> function (softmax(O_t / alpha) [B, K], share of the T steps for which the label has been the same (B,)) ->
# certainty (B,). `Readout.look` brings it into (0, 1].
CRITERIA: dict[str, Callable[[np.ndarray, np.ndarray | None], np.ndarray]] = {
    "confidence": _confidence,
    "entropy": _entropy,
    "margin": _margin,
    "patience": _patience,
}
# Those that look at the label of every step, and not at the probabilities of the checked one.
_NEEDS_PERSISTENCE = ("patience",)
_LEAST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitRule:
    """When to stop: a rule that is decided, as `DynamicConfidence` fits it.

    Parameters
    ----------
    n_steps : int
        T: samples that are never sure leave here.
    alpha : float
        Temperature, in units of the logits: the probabilities are softmax(O_t / alpha), at every t.
    threshold : float
        In [0, 1]. A sample leaves at the first check with certainty > threshold: 0 leaves at the first, 1 at T.
    criterion : str
        A key of `CRITERIA`.
    accumulate : str
        A key of `ACCUMULATE`.
    check_every : int
        Checks are at steps k, 2k, ... and T.
    recalibration : Recalibration, optional
        What turns the largest probability into the confidence that is reported. It never enters the decision.
    """

    n_steps: int
    alpha: float = 1.0
    threshold: float = 1.0
    criterion: str = "confidence"
    accumulate: str = "sum"
    check_every: int = 1
    recalibration: Recalibration | None = None

    def __post_init__(self) -> None:
        advice = "One T holds for all samples: pad sequences to the longest, or run those of one length at a time."
        numbers = {
            "n_steps": check_int("n_steps", self.n_steps, at_least=1, advice=advice),
            "alpha": check_number("alpha", self.alpha, above=0, advice="Leave it out to have it fitted."),
            "threshold": check_fraction("threshold", self.threshold, advice="Leave it out to have it chosen by fit."),
            "check_every": check_int("check_every", self.check_every, at_least=1),
        }
        for name, number in numbers.items():
            object.__setattr__(self, name, number)  # plain numbers, whatever kind came: they are written to files
        check_option("criterion", self.criterion, CRITERIA)
        check_option("accumulate", self.accumulate, ACCUMULATE)

    @property
    def checks(self) -> list[int]:
        """Return the steps, counted from 1, after which is checked; the last is T."""
        return [*range(self.check_every, self.n_steps, self.check_every), self.n_steps]

    def confidence(self, probability: np.ndarray) -> np.ndarray:
        """Return how often answers of this largest probability are right, as far as it is known; any shape."""
        return probability if self.recalibration is None else self.recalibration(probability)


@dataclass(frozen=True, slots=True)
class Check:
    """What is known after a step.

    Attributes
    ----------
    step : int
        Steps so far.
    labels : Tensor, shape (B,), int64
        argmax O_t; the first of equal classes.
    confidence : Tensor, shape (B,), float64
        The probability that the label is right: max softmax(O_t / alpha), recalibrated if the rule says how.
    certainty : Tensor, shape (B,), float64
        The criterion, in (0, 1]; what is compared with the threshold.
    """

    step: int
    labels: Tensor
    confidence: Tensor
    certainty: Tensor


class Look(NamedTuple):
    """What a check finds, shape (B,) each: labels, largest probabilities, certainties."""

    labels: np.ndarray
    probability: np.ndarray
    certainty: np.ndarray


class Readout:
    """The evidence of the samples of a batch that are still running.

    Parameters
    ----------
    rule : ExitRule
        How it adds up, and what is made of it. The threshold is not looked at here.

    Attributes
    ----------
    step : int
        Steps seen so far.
    """

    # NumPy and not torch: of a few numbers, calls are all that costs, and its calls cost less.

    def __init__(self, rule: ExitRule) -> None:
        self.step = 0
        self._rule = rule
        self._add, self._criterion = ACCUMULATE[rule.accumulate], CRITERIA[rule.criterion]
        self._counts_steps = rule.criterion in _NEEDS_PERSISTENCE
        self._carry: np.ndarray | None = None
        self._label: np.ndarray | None = None
        self._same_for: np.ndarray | None = None

    def add(self, logits: Tensor, samples: np.ndarray | None = None) -> np.ndarray:
        """Take in the logits of the next k steps and return O_t of the last of them.

        Parameters
        ----------
        logits : Tensor, shape (k, B, K)
            Of the running samples, in their order.
        samples : ndarray, shape (B,), optional
            Their numbers, for messages.

        Returns
        -------
        ndarray, shape (B, K), float64
            The evidence.
        """
        if logits.ndim != 3 or logits.shape[2] < 2:
            came = f"{tuple(logits.shape)}"
            raise invalid("the model's logits", "have shape (k, B, K), with at least 2 classes", came)
        # Moved first: half the bytes. Then exact, as float64 holds every float32, bfloat16 and float16.
        values = logits.detach().cpu().double().numpy()
        # One number instead of as many flags; a sum may also overflow, so that the flags have the last word.
        if not math.isfinite(np.add.reduce(values, axis=None)):
            self._refuse_unless_finite(values, samples)
        readouts, self._carry = self._add(values, self._carry, self.step)
        self.step += len(values)
        if self._counts_steps:
            self._count(readouts.argmax(-1))
        return readouts[-1]

    def look(self, logits: Tensor, samples: np.ndarray | None = None) -> Look:
        """Take in the logits of the next k steps and say what is known after them; parameters as in `add`."""
        with np.errstate(over="ignore"):  # huge logits may differ by more than a float holds: that is inf, as it should
            return self.judge(self.add(logits, samples))

    def check(self, logits: Tensor, samples: np.ndarray | None = None) -> Check:
        """Do the same for those outside: in tensors, and with the confidence recalibrated."""
        seen = self.look(logits, samples)
        found = (seen.labels, self._rule.confidence(seen.probability), seen.certainty)
        return Check(self.step, *map(torch.from_numpy, found))

    def judge(self, readout: np.ndarray) -> Look:
        """Return answer and certainty of evidence `readout`, shape (B, K), at the present step."""
        # Softmax does not mind a shift, and with the largest at 0 no alpha, however small, makes inf - inf.
        below_top = readout - np.maximum.reduce(readout, axis=-1, keepdims=True)
        weight = np.exp(below_top / self._rule.alpha)
        total = np.add.reduce(weight, axis=-1)
        probability = 1.0 / total  # of the largest, whose weight is 1
        if self._rule.criterion == "confidence":
            certainty = probability
        else:
            persistence = self._same_for / self._rule.n_steps if self._counts_steps else None
            # Rounding may step over the bounds. No evidence at all counts as the least number above 0, so that a
            # threshold of 0 means "at once" for each criterion.
            certainty = self._criterion(weight / total[:, None], persistence).clip(_LEAST, 1.0)
        return Look(readout.argmax(-1), probability, certainty)

    def keep(self, rows: np.ndarray) -> None:
        """Go on with the samples in these rows of the batch only."""
        self._carry = self._carry[rows]
        if self._counts_steps:
            self._label, self._same_for = self._label[rows], self._same_for[rows]

    def _count(self, labels: np.ndarray) -> None:
        for label in labels:
            if self._label is None:
                self._same_for = np.ones(len(label))
            else:
                self._same_for = np.where(label == self._label, self._same_for + 1.0, 1.0)
            self._label = label

    def _refuse_unless_finite(self, values: np.ndarray, samples: np.ndarray | None) -> None:
        bad = np.argwhere(~np.isfinite(values))
        if not len(bad):
            return
        step, row, _ = bad[0].tolist()
        sample = row if samples is None else int(samples[row])
        came = f"{values[tuple(bad[0])]} at step {self.step + step + 1} of sample {sample}"
        raise invalid("the model's logits", "be finite", came, "Look at this sample and at the weights.")


# --- the course of whole runs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Answers of all samples at all checks, none of them having left.

    Attributes
    ----------
    steps : Tensor, shape (J,), int64
        The checked steps.
    labels : Tensor, shape (J, N), int64
        Running answers.
    confidence, certainty : Tensor, shape (J, N), float64
        As in `Check`.
    """

    steps: Tensor
    labels: Tensor
    confidence: Tensor
    certainty: Tensor

    def exits(self, threshold: float) -> Tensor:
        """Return the number of the check at which each sample leaves, shape (N,)."""
        leaves = self.certainty > threshold
        leaves[-1] = True
        return leaves.int().argmax(0)  # of a row of 0 and 1, the first 1


def trajectory(logits: Tensor, rule: ExitRule) -> Trajectory:
    """Follow all samples to T.

    Parameters
    ----------
    logits : Tensor, shape (T, N, K)
        Of each step, not added up over time.
    rule : ExitRule
        Its threshold is not looked at.

    Returns
    -------
    Trajectory
        The numbers that a run with exits sees as well, bit for bit.
    """
    check_shape("logits", logits, (rule.n_steps, "N", "K"))
    parts: list[list[Look]] = [[] for _ in rule.checks]
    for samples, block in _blocks(logits):
        readout = Readout(rule)
        for part, piece in zip(parts, block.split(rule.check_every), strict=True):
            part.append(readout.look(piece, samples))
    joined = ([np.concatenate(column) for column in zip(*part, strict=True)] for part in parts)
    labels, probability, certainty = map(np.stack, zip(*joined, strict=True))
    found = (labels, rule.confidence(probability), certainty)
    return Trajectory(torch.tensor(rule.checks), *map(torch.from_numpy, found))


def checked_readouts(logits: Tensor, rule: ExitRule) -> Tensor:
    """Return the evidence O_t at the checked steps.

    Parameters
    ----------
    logits : Tensor, shape (T, N, K)
        Of each step, not added up over time.
    rule : ExitRule
        T, how evidence adds up, and when it is checked.

    Returns
    -------
    Tensor, shape (J, N, K), float64
    """
    check_shape("logits", logits, (rule.n_steps, "N", "K"))
    shape = (len(rule.checks), *logits.shape[1:])
    readouts = torch.empty(shape, dtype=torch.float64)
    for samples, block in _blocks(logits):
        readout = Readout(rule)
        for number, piece in enumerate(block.split(rule.check_every)):
            with np.errstate(over="ignore"):
                readouts[number, samples] = torch.from_numpy(readout.add(piece, samples))
    return readouts


def _blocks(logits: Tensor) -> Iterator[tuple[np.ndarray, Tensor]]:
    n_samples = logits.shape[1]
    for first in range(0, max(n_samples, 1), _BLOCK):
        last = min(first + _BLOCK, n_samples)
        yield np.arange(first, last), logits[:, first:last]
