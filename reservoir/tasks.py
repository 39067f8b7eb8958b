"""The prediction task: a cue, then one of several events, each with its own delay and probability."""

# T time, M trials, K events

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuroloaders.checks import check_fraction, check_int, check_number, check_option, check_shape, invalid
from reservoir.network import random_source, whole_steps

__all__ = ["GROUND_TRUTHS", "PredictionTask", "Trials", "nrmse", "rmse", "standard_blocks"]

GROUND_TRUTHS = {
    "expectation": "probability times bump: what an observer who knows the statistics expects",
    "timing": "the bump alone, as if each event were certain",
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trials:
    """What happens in a sequence of trials, one after the other without a break.

    Attributes
    ----------
    start : ndarray of int64, shape (M,)
        Step at which each cue comes on.
    cue : ndarray of int64, shape (M,)
        Which cue.
    event : ndarray of int64, shape (M,)
        Which event follows; -1: none.
    end : ndarray of int64, shape (M,)
        Step after the last one of each trial. The pause before the next cue belongs to the next trial.
    task : PredictionTask
        The statistics that they were drawn from.
    """

    start: np.ndarray
    cue: np.ndarray
    event: np.ndarray
    end: np.ndarray
    task: PredictionTask

    def __len__(self) -> int:
        return len(self.start)

    @property
    def n_steps(self) -> int:
        """Length of all of them."""
        return int(self.end[-1]) if len(self.end) else 0

    def part(self, first: int, last: int) -> Trials:
        """Return some of the trials, counted from the end of the one before.

        Parameters
        ----------
        first, last : int
            The first one, and the one after the last one.
        """
        begin = int(self.end[first - 1]) if first else 0
        pick = slice(first, last)
        return replace(
            self, start=self.start[pick] - begin, cue=self.cue[pick], event=self.event[pick], end=self.end[pick] - begin
        )


class PredictionTask:
    r"""Cue, then event k at its delay with its probability; else another event, or none.

    Parameters
    ----------
    delays_ms : sequence of float, shape (K,), or (cues, K)
        Delay of each event after the onset of the cue; with several cues, one row a cue.
    probabilities : float, or sequence of float of shape (K,) or (cues, K)
        Probability of each event. What is missing to 1 is the probability that nothing comes. A single number p is that
        of the first of two events, and 1 - p that of the second.
    n_trials : int
        Number of trials of a block.
    trial_ms : float
        Length of a trial, from the onset of the cue.
    pause_ms : tuple of float
        Shortest and longest pause before a cue; drawn evenly.
    sigma_ms : float
        Width of the bump that stands for an event.
    cue_ms : float
        How long a cue lasts.
    event_ms : float
        How long an event lasts, if it drives the network.
    stratified : bool
        Whether each block holds each event as often as its probability says, up to rounding, in random order. Else
        events are drawn independently.

    Raises
    ------
    ValueError
        For probabilities outside [0, 1] or that add up to more than 1, and delays beyond the trial.

    Notes
    -----
    After the Multi-Event Expectation Task of [1]_, blocks of 100 trials of two events. Its times in ms and the width of
    its bump were not available; the defaults work. The target of event k is :math:`f_k(t) = \exp(-(t - t_k)^2 / 2
    \sigma^2)`, and the truth that a model is scored against is :math:`p_k f_k(t)`.

    References
    ----------
    .. [1] Yamada & Chao, arXiv:2510.14382.

    Examples
    --------
    >>> task = PredictionTask((250.0, 450.0), 0.8)
    >>> task
    PredictionTask(250 ms: 0.8, 450 ms: 0.2)
    >>> truth = task.truth(dt_ms=1.0)
    >>> round(rmse(np.zeros_like(truth), truth), 4)
    0.1467
    """

    def __init__(
        self,
        delays_ms: Sequence[float] | Sequence[Sequence[float]] | np.ndarray,
        probabilities: float | Sequence[float] | Sequence[Sequence[float]] | np.ndarray,
        *,
        n_trials: int = 100,
        trial_ms: float = 700.0,
        pause_ms: tuple[float, float] = (200.0, 500.0),
        sigma_ms: float = 25.0,
        cue_ms: float = 50.0,
        event_ms: float = 30.0,
        stratified: bool = True,
    ) -> None:
        self.trial_ms = check_number("trial_ms", trial_ms, above=0)
        self.delays_ms = np.atleast_2d(np.array(delays_ms, dtype=np.float64))
        check_shape("delays_ms", self.delays_ms, ("cues", "K"))
        n_cues, n_events = self.delays_ms.shape
        if np.ndim(probabilities) == 0:
            p = check_fraction("probabilities", float(probabilities))
            if n_events != 2:
                raise invalid("probabilities", f"hold one number for each of the {n_events} events", f"{p:g}")
            probabilities = (p, 1 - p)
        self.probabilities = np.atleast_2d(np.array(probabilities, dtype=np.float64))
        check_shape("probabilities", self.probabilities, (n_cues, n_events), advice="One number for each delay.")
        for delay in self.delays_ms.flat:
            advice = "Lengthen `trial_ms`, or shorten the delay."
            check_number("delays_ms", float(delay), at_least=0, at_most=self.trial_ms, advice=advice)
        for p in self.probabilities.flat:
            check_fraction("probabilities", float(p))
        if self.probabilities.sum(axis=1).max() > 1 + 1e-9:
            raise invalid("probabilities", "add up to at most 1 for each cue", f"{self.probabilities.sum(axis=1)}")
        self.n_trials = check_int("n_trials", n_trials, at_least=0)
        self.pause_ms = (
            check_number("pause_ms", pause_ms[0], at_least=0),
            check_number("pause_ms", pause_ms[1], at_least=pause_ms[0]),
        )
        self.sigma_ms = check_number("sigma_ms", sigma_ms, above=0)
        self.cue_ms = check_number("cue_ms", cue_ms, at_least=0, at_most=self.trial_ms)
        self.event_ms = check_number("event_ms", event_ms, at_least=0)
        self.stratified = stratified

    @property
    def n_cues(self) -> int:
        """Number of cues."""
        return self.delays_ms.shape[0]

    @property
    def n_events(self) -> int:
        """Number of events, K."""
        return self.delays_ms.shape[1]

    def switch(
        self, *, delays_ms: Any = None, probabilities: Any = None, n_trials: int | None = None
    ) -> PredictionTask:
        """Return the task with other statistics and the rest as it is: the block after a switch.

        Parameters
        ----------
        delays_ms, probabilities : optional
            What changes.
        n_trials : int, optional
            Number of trials of the new block.

        Examples
        --------
        >>> PredictionTask((250.0, 450.0), 0.8).switch(probabilities=0.2)
        PredictionTask(250 ms: 0.2, 450 ms: 0.8)
        """
        return PredictionTask(
            self.delays_ms if delays_ms is None else delays_ms,
            self.probabilities if probabilities is None else probabilities,
            n_trials=self.n_trials if n_trials is None else n_trials,
            trial_ms=self.trial_ms,
            pause_ms=self.pause_ms,
            sigma_ms=self.sigma_ms,
            cue_ms=self.cue_ms,
            event_ms=self.event_ms,
            stratified=self.stratified,
        )

    def bumps(self, *, dt_ms: float, cue: int = 0) -> np.ndarray:
        """Return the target of each event, as if it were certain, over one trial, shape (T, K).

        Parameters
        ----------
        dt_ms : float
            Time step, which must divide the trial.
        cue : int
            Which cue.
        """
        check_int("cue", cue, at_least=0, at_most=self.n_cues - 1)
        t_ms = np.arange(whole_steps(self.trial_ms, dt_ms, "trial_ms"))[:, None] * dt_ms
        return np.exp(-((t_ms - self.delays_ms[cue]) ** 2) / (2 * self.sigma_ms**2))

    def truth(self, *, dt_ms: float, cue: int = 0, kind: str = "expectation") -> np.ndarray:
        """Return what a perfect model gives over one trial after the cue alone, shape (T, K).

        Parameters
        ----------
        dt_ms : float
            Time step, which must divide the trial.
        cue : int
            Which cue.
        kind : str
            A key of `GROUND_TRUTHS`.
        """
        check_option("kind", kind, GROUND_TRUTHS)
        bumps = self.bumps(dt_ms=dt_ms, cue=cue)
        return bumps * self.probabilities[cue] if kind == "expectation" else bumps

    def trials(self, *, dt_ms: float, generator: Any = None) -> Trials:
        """Draw the trials of a block.

        Parameters
        ----------
        dt_ms : float
            Time step, which must divide trial, cue and pauses.
        generator : numpy.random.Generator, torch.Generator, or int
            Source of randomness.
        """
        rng, m = random_source(generator), self.n_trials
        length = whole_steps(self.trial_ms, dt_ms, "trial_ms")
        whole_steps(self.cue_ms, dt_ms, "cue_ms")
        shortest, longest = (whole_steps(pause, dt_ms, "pause_ms") for pause in self.pause_ms)
        pauses = rng.integers(shortest, longest + 1, m)
        end = np.cumsum(pauses + length)
        cue = rng.permutation(np.arange(m) % self.n_cues)
        event = np.full(m, -1, dtype=np.int64)
        for k in range(self.n_cues):
            mine = np.flatnonzero(cue == k)
            event[mine] = self._events(self.probabilities[k], len(mine), rng)
        return Trials(start=end - length, cue=cue, event=event, end=end, task=self)

    def _events(self, p: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return which event comes in each of the n trials of one cue."""
        shares = np.append(p, max(0.0, 1 - p.sum()))
        kinds = np.append(np.arange(self.n_events), -1)
        if not self.stratified:
            return rng.choice(kinds, size=n, p=shares / shares.sum())
        # The largest remainders get the trials that rounding down leaves.
        exact = shares / shares.sum() * n
        counts = np.floor(exact + 1e-9).astype(np.int64)
        order = np.argsort(-(exact - counts), kind="stable")
        counts[order[: n - counts.sum()]] += 1
        return rng.permutation(np.repeat(kinds, counts))

    def __repr__(self) -> str:
        rows = [
            ", ".join(f"{delay:g} ms: {p:g}" for delay, p in zip(delays, ps, strict=True))
            for delays, ps in zip(self.delays_ms, self.probabilities, strict=True)
        ]
        return f"PredictionTask({'; '.join(rows)})"


def standard_blocks(
    task: PredictionTask | None = None, *, shift_ms: float = 100.0
) -> tuple[PredictionTask, PredictionTask, PredictionTask, PredictionTask]:
    """Return four blocks: a task, then its delays moved, then its probabilities swapped, then both as at first.

    Parameters
    ----------
    task : PredictionTask, optional
        The first block, with one cue; by default two events, 250 ms with 0.8 and 450 ms with 0.2.
    shift_ms : float
        By how much all delays move.

    Examples
    --------
    >>> for block in standard_blocks():
    ...     print(block)
    PredictionTask(250 ms: 0.8, 450 ms: 0.2)
    PredictionTask(350 ms: 0.8, 550 ms: 0.2)
    PredictionTask(350 ms: 0.2, 550 ms: 0.8)
    PredictionTask(250 ms: 0.8, 450 ms: 0.2)
    """
    first = PredictionTask((250.0, 450.0), 0.8) if task is None else task
    moved = first.switch(delays_ms=first.delays_ms + shift_ms)
    swapped = moved.switch(probabilities=first.probabilities[:, ::-1])
    return first, moved, swapped, first


def rmse(outputs: np.ndarray, truth: np.ndarray) -> float:
    """Return the root of the mean squared difference over time and events.

    Parameters
    ----------
    outputs, truth : ndarray, shape (T, K)
        What a model gave after the cue alone, and `PredictionTask.truth`.
    """
    check_shape("outputs", outputs, np.shape(truth))
    # Outputs of a network that diverges may be too large to square: their error is infinite.
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.mean((np.asarray(outputs) - truth) ** 2)))


def nrmse(outputs: np.ndarray, truth: np.ndarray) -> float:
    """Return `rmse` in units of that of an output that is 0 throughout.

    Parameters
    ----------
    outputs, truth : ndarray, shape (T, K)
        As for `rmse`.

    Raises
    ------
    ValueError
        If the truth is 0 throughout.
    """
    size = rmse(np.zeros(np.shape(truth)), truth)
    if size == 0:
        raise invalid("truth", "differ from 0 somewhere", "zeros", "Use rmse.")
    return rmse(outputs, truth) / size
