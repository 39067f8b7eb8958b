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

import torch
from torch import Tensor

from neuroloaders.checks import check_fraction, check_int, check_number, check_option, check_shape, invalid

__all__ = ["ACCUMULATE", "CRITERIA", "Check", "ExitRule", "Readout", "Trajectory", "checked_readouts", "trajectory"]

# Samples whose course is computed at a time: bounds the memory of what is in between.
_BLOCK = 4096


# --- evidence so far ----------------------------------------------------------------------------------------------


def _sum(logits: Tensor, carry: Tensor | None, n_before: int) -> tuple[Tensor, Tensor]:
    # One running sum over what was carried and what is new: the same additions in the same order for every k.
    if len(logits) == 1:
        total = logits if carry is None else logits + carry
    else:
        total = logits.cumsum(0) if carry is None else torch.cat([carry[None], logits]).cumsum(0)[1:]
    return total, total[-1]


def _mean(logits: Tensor, carry: Tensor | None, n_before: int) -> tuple[Tensor, Tensor]:
    total, carry = _sum(logits, carry, n_before)
    n_so_far = torch.arange(n_before + 1, n_before + len(logits) + 1, dtype=total.dtype)
    return total / n_so_far[:, None, None], carry


def _max(logits: Tensor, carry: Tensor | None, n_before: int) -> tuple[Tensor, Tensor]:
    highest = logits.cummax(0).values if carry is None else torch.cat([carry[None], logits]).cummax(0).values[1:]
    return highest, highest[-1]


def _last(logits: Tensor, carry: Tensor | None, n_before: int) -> tuple[Tensor, Tensor]:
    return logits, logits[-1]


# Name -> function (logits [k, B, K], what was carried [B, K] or None, steps before) -> (O_t at each of the k steps
# [k, B, K], what to carry on). "sum" is the paper's: evidence grows with t, and one alpha serves all t.
ACCUMULATE: dict[str, Callable[[Tensor, Tensor | None, int], tuple[Tensor, Tensor]]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "last": _last,
}


# --- how sure -----------------------------------------------------------------------------------------------------


def _confidence(probability: Tensor, persistence: Tensor | None) -> Tensor:
    return probability.amax(-1)


def _entropy(probability: Tensor, persistence: Tensor | None) -> Tensor:
    return 1.0 - torch.special.entr(probability).sum(-1) / math.log(probability.shape[-1])


def _margin(probability: Tensor, persistence: Tensor | None) -> Tensor:
    first, second = probability.topk(2, dim=-1).values.unbind(-1)
    return first - second


def _patience(probability: Tensor, persistence: Tensor | None) -> Tensor:
    return persistence


# Name -> function (softmax(O_t / alpha) [B, K], share of the T steps for which the label has been the same (B,)) ->
# certainty (B,). `Readout.judge` brings it into (0, 1].
CRITERIA: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "confidence": _confidence,
    "entropy": _entropy,
    "margin": _margin,
    "patience": _patience,
}
# Those that look at the label of every step, and not at the probabilities of the checked one.
_NEEDS_PERSISTENCE = ("patience",)
_LEAST = torch.finfo(torch.float64).tiny


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
    """

    n_steps: int
    alpha: float = 1.0
    threshold: float = 1.0
    criterion: str = "confidence"
    accumulate: str = "sum"
    check_every: int = 1

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
        max softmax(O_t / alpha): the probability that the label is right, as far as alpha is calibrated at this step.
    certainty : Tensor, shape (B,), float64
        The criterion, in (0, 1]; what is compared with the threshold.
    """

    step: int
    labels: Tensor
    confidence: Tensor
    certainty: Tensor


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

    def __init__(self, rule: ExitRule) -> None:
        self.step = 0
        self._rule = rule
        self._add, self._criterion = ACCUMULATE[rule.accumulate], CRITERIA[rule.criterion]
        self._counts_steps = rule.criterion in _NEEDS_PERSISTENCE
        self._carry: Tensor | None = None
        self._label: Tensor | None = None
        self._same_for: Tensor | None = None

    def add(self, logits: Tensor, samples: Tensor | None = None) -> Tensor:
        """Take in the logits of the next k steps and return O_t of the last of them.

        Parameters
        ----------
        logits : Tensor, shape (k, B, K)
            Of the running samples, in their order.
        samples : Tensor, shape (B,), optional
            Their numbers, for messages.

        Returns
        -------
        Tensor, shape (B, K), float64
            The evidence, on the CPU.
        """
        if logits.ndim != 3 or logits.shape[2] < 2:
            came = f"{tuple(logits.shape)}"
            raise invalid("the model's logits", "have shape (k, B, K), with at least 2 classes", came)
        # Moved first: half the bytes. Then exact, as float64 holds every float32, bfloat16 and float16.
        values = logits.cpu().double()
        # One number instead of as many flags; a sum may also overflow, so that the flags have the last word.
        if not math.isfinite(values.sum().item()):
            self._refuse_unless_finite(values, samples)
        readouts, self._carry = self._add(values, self._carry, self.step)
        self.step += len(values)
        if self._counts_steps:
            self._count(readouts.argmax(-1))
        return readouts[-1]

    def check(self, logits: Tensor, samples: Tensor | None = None) -> Check:
        """Take in the logits of the next k steps and say what is known after them; parameters as in `add`."""
        return self.judge(self.add(logits, samples))

    def judge(self, readout: Tensor) -> Check:
        """Return answer and certainty of evidence `readout`, shape (B, K), at the present step."""
        # Softmax does not mind a shift, and with the largest at 0 no alpha, however small, makes inf - inf.
        top = readout.amax(-1, keepdim=True)
        probability = torch.softmax((readout - top) / self._rule.alpha, -1)
        confidence = _confidence(probability, None)
        if self._rule.criterion == "confidence":
            certainty = confidence
        else:
            persistence = self._same_for / self._rule.n_steps if self._counts_steps else None
            # Rounding may step over the bounds. No evidence at all counts as the least number above 0, so that a
            # threshold of 0 means "at once" for each criterion.
            certainty = self._criterion(probability, persistence).clamp(_LEAST, 1.0)
        return Check(self.step, readout.argmax(-1), confidence, certainty)

    def keep(self, rows: Tensor) -> None:
        """Go on with the samples in these rows of the batch only."""
        self._carry = self._carry[rows]
        if self._counts_steps:
            self._label, self._same_for = self._label[rows], self._same_for[rows]

    def _count(self, labels: Tensor) -> None:
        for label in labels:
            if self._label is None:
                self._same_for = torch.ones_like(label, dtype=torch.float64)
            else:
                self._same_for = torch.where(label == self._label, self._same_for + 1.0, 1.0)
            self._label = label

    def _refuse_unless_finite(self, values: Tensor, samples: Tensor | None) -> None:
        bad = (~torch.isfinite(values)).nonzero()
        if not len(bad):
            return
        step, row, _ = bad[0].tolist()
        sample = row if samples is None else int(samples[row])
        value = values[tuple(bad[0].tolist())].item()
        came = f"{value} at step {self.step + step + 1} of sample {sample}"
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
    parts: list[list[Check]] = [[] for _ in rule.checks]
    for samples, block in _blocks(logits):
        readout = Readout(rule)
        for part, piece in zip(parts, block.split(rule.check_every), strict=True):
            part.append(readout.check(piece, samples))
    columns = [
        torch.stack([torch.cat([getattr(check, name) for check in part]) for part in parts])
        for name in ("labels", "confidence", "certainty")
    ]
    return Trajectory(torch.tensor(rule.checks), *columns)


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
            readouts[number, samples] = readout.add(piece, samples)
    return readouts


def _blocks(logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for samples in torch.arange(logits.shape[1]).split(_BLOCK):
        yield samples, logits[:, samples]
