"""Run a network in batches and let each sample go as soon as it is sure."""

# T time steps, k steps of one call, B batch, N samples, K classes

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_fraction, check_int, check_shape, invalid
from snn.early_exit.readout import Check, ExitRule, Look, Readout

if TYPE_CHECKING:
    from snn.stepping.protocol import Stepper

__all__ = [
    "COMPACT_BELOW",
    "Exit",
    "Replay",
    "Work",
    "check_compact_below",
    "once_sure",
    "run_to_the_end",
    "run_until_sure",
    "step_by_step",
]

# Measured on two cores with a VGG-9 and with fully connected layers, exits spread over 16 steps: 0.9 and 1 take the
# same time within noise, 0.5 about a third more, 0 (never) up to 2.5 times as much.
COMPACT_BELOW = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What was computed, counted.

    Attributes
    ----------
    samples : int
        N.
    sample_steps : int
        Steps times samples in the batch, those that had left and were still in it among them: what was paid for.
    needed_sample_steps : int
        Steps of all samples up to their exits: what hardware without batches pays for.
    full_sample_steps : int
        N T: what it would be without exits.
    calls : int
        Calls of ``run``, of up to ``check_every`` steps each.
    early : int
        Samples that left before T.
    compactions : int
        Calls of ``keep``.
    """

    samples: int
    sample_steps: int
    needed_sample_steps: int
    full_sample_steps: int
    calls: int
    early: int
    compactions: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class Exit:
    """Answers of N samples, in the order in which they came; on the CPU.

    Attributes
    ----------
    labels : Tensor, shape (N,), int64
        Classes.
    steps : Tensor, shape (N,), int64
        Steps taken, 1..T.
    confidence : Tensor, shape (N,), float64
        The probability that the label is right: max softmax(O_t / alpha) at the exit, recalibrated if the rule says
        how.
    certainty : Tensor, shape (N,), float64
        The criterion at the exit; above the threshold, or the sample ran to T.
    n_steps : int
        T.
    work : Work
        What was computed.
    """

    labels: Tensor
    steps: Tensor
    confidence: Tensor
    certainty: Tensor
    n_steps: int
    work: Work

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def mean_steps(self) -> float:
        """Mean steps per sample; NaN of no samples."""
        return self.steps.double().mean().item()

    def __repr__(self) -> str:
        if not len(self):
            return "Exit of 0 samples"
        return (
            f"Exit of {len(self)} samples: {self.mean_steps:.2f} of {self.n_steps} steps on average, "
            f"{self.work.early} left early, mean confidence {self.confidence.mean():.4f}, "
            f"{self.work.compactions} compactions"
        )


class Replay:
    """Stands for a network whose logits are known already: a stepper over [T, B, K], the batch on axis 1."""

    inputs = "sequence"

    def start(self, x: Tensor) -> tuple[Tensor, int]:
        """Return the state before the first step of logits `x`, shape (T, B, K)."""
        return x, 0

    def run(self, state: tuple[Tensor, int], n_steps: int) -> tuple[Tensor, tuple[Tensor, int]]:
        """Return the logits of the next `n_steps` steps and the state after them."""
        x, step = state
        return x[step : step + n_steps], (x, step + n_steps)

    def keep(self, state: tuple[Tensor, int], index: Tensor) -> tuple[Tensor, int]:
        """Go on with the samples `index` only."""
        x, step = state
        return x[step:, index], 0


def check_compact_below(compact_below: float) -> float:
    """Return `compact_below` if it is a fraction."""
    return check_fraction(
        "compact_below", compact_below, advice="It is the fraction of the batch that is still running."
    )


def run_until_sure(
    stepper: Stepper,
    x: Tensor,
    rule: ExitRule,
    *,
    batch_size: int = 256,
    compact_below: float = COMPACT_BELOW,
    look_ahead: int = 1,
    batch_axis: int = 0,
    device: torch.device | None = None,
    progress: bool = False,
) -> Exit:
    """Run samples until each is sure or at T, and take those that are out of the batch.

    Parameters
    ----------
    stepper : Stepper
        The network, with ``start``, ``run`` and ``keep`` (see `snn.stepping`).
    x : Tensor
        N samples along `batch_axis`.
    rule : ExitRule
        When to stop.
    batch_size : int
        Samples that start together.
    compact_below : float
        In [0, 1]. Once this fraction or less of the batch is still running, the rest is taken out. 1 compacts at each
        exit, 0 never: samples that left go on being computed, until the last one leaves.
    look_ahead : int
        A batch of one sample is run to its next so many checks in one call, and leaves at the first that is sure: the
        same answers, and less time where calling a network's layers costs more than what they compute.
    batch_axis : int
        Axis of `x` that samples are along.
    device : torch.device, optional
        Each batch is moved there first.
    progress : bool
        Show a bar.

    Returns
    -------
    Exit

    Raises
    ------
    ValueError
        If a running sample has a logit that is NaN or infinite: its step and its number in `x` are named.

    Notes
    -----
    The answers are those of each sample run alone, as far as the network's own arithmetic does not depend on the size
    of its batch; a matrix product may round differently. Places that become free are not given to waiting samples:
    a stepper can take samples out of a state, not join two states of different ages.
    """
    check_int("batch_size", batch_size, at_least=1)
    check_compact_below(compact_below)
    check_int("look_ahead", look_ahead, at_least=1)
    n_samples = x.shape[batch_axis]
    answers = _Answers(n_samples)
    sample_steps = calls = compactions = 0
    with torch.no_grad():
        for first, batch in _batches(x, batch_size, batch_axis, device, progress):
            state, readout = stepper.start(batch), Readout(rule)
            n_rows, rows = batch.shape[batch_axis], None  # rows of the batch that still run; None for all
            samples = np.arange(first, first + n_rows)
            at_once = rule.check_every * (look_ahead if n_rows == 1 else 1)
            while True:
                k = min(at_once, rule.n_steps - readout.step)
                logits, state = stepper.run(state, k)
                _check_logits(logits, k, n_rows)
                sample_steps, calls = sample_steps + k * n_rows, calls + 1
                if rows is not None:
                    logits = logits[:, rows]
                for piece in (logits,) if k <= rule.check_every else logits.split(rule.check_every):
                    seen = readout.look(piece, samples)
                    leaves = seen.certainty > rule.threshold
                    n_leaving = np.count_nonzero(leaves)
                    if n_leaving == len(samples):
                        break
                if readout.step == rule.n_steps or n_leaving == len(samples):
                    answers.note(samples, seen, readout.step)
                    break
                if not n_leaving:
                    continue
                answers.note(samples[leaves], Look(*(part[leaves] for part in seen)), readout.step)
                stays = np.flatnonzero(~leaves)
                readout.keep(stays)
                samples = samples[stays]
                stays = torch.from_numpy(stays).to(logits.device)
                rows = stays if rows is None else rows[stays]
                if len(samples) <= compact_below * n_rows:
                    state = stepper.keep(state, rows)
                    n_rows, rows, compactions = len(samples), None, compactions + 1
    work = Work(
        samples=n_samples,
        sample_steps=sample_steps,
        needed_sample_steps=int(answers.steps.sum()),
        full_sample_steps=n_samples * rule.n_steps,
        calls=calls,
        early=int((answers.steps < rule.n_steps).sum()),
        compactions=compactions,
    )
    return answers.as_exit(rule, work)


def run_to_the_end(
    stepper: Stepper,
    x: Tensor,
    n_steps: int,
    *,
    chunk: int | None = None,
    batch_size: int = 256,
    batch_axis: int = 0,
    device: torch.device | None = None,
    progress: bool = False,
) -> Tensor:
    """Run all samples to T.

    Parameters
    ----------
    stepper, x, batch_size, batch_axis, device, progress
        As in `run_until_sure`.
    n_steps : int
        T.
    chunk : int, optional
        Steps of one call; by default all T.

    Returns
    -------
    Tensor, shape (T, N, K)
        Logits of each step, on the CPU, in the network's own dtype.
    """
    parts = []
    with torch.no_grad():
        for _, batch in _batches(x, batch_size, batch_axis, device, progress):
            state, pieces, done = stepper.start(batch), [], 0
            while done < n_steps:
                k = min(chunk or n_steps, n_steps - done)
                logits, state = stepper.run(state, k)
                pieces.append(_check_logits(logits, k, batch.shape[batch_axis]).cpu())
                done += k
            parts.append(torch.cat(pieces))
    if not parts:
        raise invalid("x", "have at least one sample", "none")
    return torch.cat(parts, 1)


def step_by_step(stepper: Stepper, x: Tensor, rule: ExitRule, *, device: torch.device | None = None) -> Iterator[Check]:
    """Run one batch to T, and yield what is known at each check.

    Parameters
    ----------
    stepper, x, rule, device
        As in `run_until_sure`; all of `x` is one batch.

    Yields
    ------
    Check
        Of all samples. None leaves: stop taking when it is enough.
    """
    # Not around the loop: a generator that rests inside no_grad would switch gradients off for its caller.
    with torch.no_grad():
        state, readout = stepper.start(x if device is None else x.to(device)), Readout(rule)
    while readout.step < rule.n_steps:
        with torch.no_grad():
            logits, state = stepper.run(state, min(rule.check_every, rule.n_steps - readout.step))
            check = readout.check(logits)
        yield check


def once_sure(checks: Iterator[Check], rule: ExitRule) -> Iterator[tuple[Check, Tensor]]:
    """Yield each check with what `DynamicConfidence.anytime` says beside it: who is or has been sure, shape (B,)."""
    sure: Tensor | None = None
    for check in checks:
        now = (check.certainty > rule.threshold) | (check.step == rule.n_steps)
        sure = now if sure is None else sure | now
        yield check, sure


def _batches(
    x: Tensor, batch_size: int, batch_axis: int, device: torch.device | None, progress: bool
) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of each batch's first sample, and the batch."""
    n_samples = x.shape[batch_axis]
    first_ones = range(0, n_samples, batch_size)
    if progress:
        from tqdm.auto import tqdm

        first_ones = tqdm(first_ones, unit="batch")
    for first in first_ones:
        size = min(batch_size, n_samples - first)
        batch = x if size == n_samples else x.narrow(batch_axis, first, size)
        yield first, batch if device is None else batch.to(device)


def _check_logits(logits: Any, n_steps: int, n_rows: int) -> Tensor:
    # Compared here and worded by check_shape: this is on the way of every step.
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != (n_steps, n_rows):
        advice = "A stepper returns the logits of each step that it was asked for, see snn.stepping."
        check_shape("the model's logits", logits, (n_steps, n_rows, "K"), advice=advice)
    return logits


class _Answers:
    """The answers of N samples as they come."""

    def __init__(self, n_samples: int) -> None:
        self.labels, self.steps = np.zeros((2, n_samples), dtype=np.int64)
        self.probability, self.certainty = np.zeros((2, n_samples))

    def note(self, samples: np.ndarray, seen: Look, step: int) -> None:
        """Take down the answers of samples that leave."""
        self.labels[samples], self.probability[samples], self.certainty[samples] = seen
        self.steps[samples] = step

    def as_exit(self, rule: ExitRule, work: Work) -> Exit:
        """Return them once all have left."""
        columns = {
            "labels": self.labels,
            "steps": self.steps,
            "confidence": rule.confidence(self.probability),
            "certainty": self.certainty,
        }
        return Exit(**{k: torch.from_numpy(v) for k, v in columns.items()}, n_steps=rule.n_steps, work=work)
