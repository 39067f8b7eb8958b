"""What is done to a network from outside: pulses of current, and currents given step by step."""

# T time, B lanes, N neurons, P patterns

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_int, check_number, invalid
from reservoir.network import whole_steps

__all__ = ["Pulse", "Schedule", "Stimulus", "as_stimulus"]


@dataclass(frozen=True, slots=True, eq=False)
class Pulse:
    """A constant current for a while.

    Parameters
    ----------
    start_ms, stop_ms : float
        When it begins and when it is over, from the start of the run; multiples of the time step.
    current : float or array of shape (N,)
        The current, one for all neurons or one a neuron. Use the same array for pulses that are alike: it is kept
        once.
    lane : int, optional
        The lane that gets it; by default all.
    """

    start_ms: float
    stop_ms: float
    current: float | np.ndarray
    lane: int | None = None

    def __post_init__(self) -> None:
        check_number("start_ms", self.start_ms, at_least=0)
        check_number("stop_ms", self.stop_ms, at_least=self.start_ms)
        check_finite("current", np.asarray(self.current, dtype=np.float64))


class Stimulus:
    """All input of a run.

    Parameters
    ----------
    duration_ms : float
        How long the run lasts, a multiple of the time step. Left out, it is that of `current`.
    pulses : sequence of Pulse
        Currents that are switched on and off. Those of one step are added in this order.
    current : array, shape (T, N) or (T, B, N), optional
        Current of each step, the same for all lanes or one a lane.

    Examples
    --------
    >>> Stimulus(500.0, pulses=[Pulse(100.0, 150.0, 20.0)])
    Stimulus(500 ms, 1 pulses)
    """

    def __init__(self, duration_ms: float | None = None, *, pulses: Sequence[Pulse] = (), current: Any = None) -> None:
        self.duration_ms = None if duration_ms is None else check_number("duration_ms", duration_ms, at_least=0)
        self.pulses = tuple(pulses)
        self.current = None if current is None else _checked(current)
        if duration_ms is None and current is None:
            raise invalid("duration_ms", "be given, or `current`", "neither")

    def n_steps(self, dt_ms: float) -> int:
        """Return the number of time steps.

        Parameters
        ----------
        dt_ms : float
            Time step.
        """
        if self.duration_ms is None:
            return self.current.shape[0]
        n_steps = whole_steps(self.duration_ms, dt_ms, "duration_ms")
        if self.current is not None and self.current.shape[0] != n_steps:
            raise invalid("current", f"have {n_steps} steps, as `duration_ms` says", f"{self.current.shape[0]}")
        return n_steps

    def schedule(self, lane: int, n_lanes: int, n: int, dt_ms: float) -> Schedule:
        """Return what one lane gets, in steps.

        Parameters
        ----------
        lane, n_lanes : int
            Which lane, of how many.
        n : int
            Number of neurons.
        dt_ms : float
            Time step.
        """
        n_steps, given = self.n_steps(dt_ms), None
        if self.current is not None:
            given = self.current if self.current.ndim == 2 else self.current[:, lane % self.current.shape[1]]
            lanes = self.current.shape[1] if self.current.ndim == 3 else n_lanes
            if given.shape[1] != n or lanes not in (1, n_lanes):
                shape = f"({n_steps}, {n}) or ({n_steps}, {n_lanes}, {n})"
                raise invalid("current", f"have shape {shape}", f"{self.current.shape}")
        for pulse in self.pulses:
            if pulse.lane is not None:
                check_int("lane", pulse.lane, at_least=0, at_most=n_lanes - 1)
            if np.shape(pulse.current) not in ((), (n,)):
                raise invalid("current", f"be a number or have shape ({n},)", f"{np.shape(pulse.current)}")
        mine = [pulse for pulse in self.pulses if pulse.lane in (None, lane)]
        starts = [whole_steps(pulse.start_ms, dt_ms, "start_ms") for pulse in mine]
        stops = [whole_steps(pulse.stop_ms, dt_ms, "stop_ms") for pulse in mine]
        patterns: dict[Any, int] = {}
        rows, which = [], []
        for pulse in mine:
            # Arrays are told apart by identity: to compare their numbers would take longer than it saves.
            key = id(pulse.current) if isinstance(pulse.current, np.ndarray) else float(pulse.current)
            if key not in patterns:
                patterns[key] = len(rows)
                rows.append(np.broadcast_to(np.asarray(pulse.current, dtype=np.float64), n))
            which.append(patterns[key])
        edges = np.unique(np.array([0, *starts, *stops], dtype=np.int64))
        active_start = np.zeros(len(edges) + 1, dtype=np.int64)
        active = _active(edges, starts, stops, which, active_start)
        return Schedule(n_steps, np.array(rows).reshape(len(rows), n), edges, active_start, active, given)

    def __repr__(self) -> str:
        length = f"{self.duration_ms:g} ms" if self.duration_ms is not None else f"{self.current.shape[0]} steps"
        return f"Stimulus({length}, {len(self.pulses)} pulses{', current' if self.current is not None else ''})"


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The input of one lane, in steps from the start of the run.

    Attributes
    ----------
    n_steps : int
        Length of the run.
    patterns : ndarray of float64, shape (P, N)
        The different currents.
    edges : ndarray of int64
        Steps at which the set of acting pulses changes; the first is 0.
    active_start : ndarray of int64
        Where the set that acts from each edge on begins in `active`, and the end.
    active : ndarray of int64
        Numbers of patterns, set by set, each in the order of the pulses.
    given : ndarray of float64, shape (T, N), or None
        Current of each step.
    """

    n_steps: int
    patterns: np.ndarray
    edges: np.ndarray
    active_start: np.ndarray
    active: np.ndarray
    given: np.ndarray | None

    def base(self, t: int, bias: np.ndarray) -> np.ndarray:
        """Return bias and pulses of a step, added as every backend adds them.

        Parameters
        ----------
        t : int
            Step of the run.
        bias : ndarray, shape (N,)
            Constant current; its dtype is that of the sum.
        """
        edge = int(np.searchsorted(self.edges, t, side="right")) - 1
        total = bias.copy()
        for k in self.active[self.active_start[edge] : self.active_start[edge + 1]]:
            total += self.patterns[k].astype(bias.dtype)
        return total


def _active(
    edges: np.ndarray, starts: list[int], stops: list[int], which: list[int], active_start: np.ndarray
) -> np.ndarray:
    """List the pulses that act from each edge on; fill in where each list begins."""
    pieces: list[list[tuple[int, int]]] = [[] for _ in edges]
    for number, (start, stop, pattern) in enumerate(zip(starts, stops, which, strict=True)):
        for k in range(int(np.searchsorted(edges, start)), int(np.searchsorted(edges, stop))):
            pieces[k].append((number, pattern))
    np.cumsum([len(piece) for piece in pieces], out=active_start[1:])
    return np.array([pattern for piece in pieces for _, pattern in piece], dtype=np.int64)


def _checked(current: Any) -> np.ndarray:
    array = np.asarray(current, dtype=np.float64)
    if array.ndim not in (2, 3):
        raise invalid("current", "have shape (T, N) or (T, B, N)", f"{array.shape}", "Add the missing axis.")
    return check_finite("current", array)


def as_stimulus(stimulus: Any) -> Stimulus:
    """Return a stimulus for one, for a duration in ms, or for an array of currents.

    Parameters
    ----------
    stimulus : Stimulus, float, or array of shape (T, N) or (T, B, N)
        What the user passed.
    """
    if isinstance(stimulus, Stimulus):
        return stimulus
    if np.ndim(stimulus) == 0:
        return Stimulus(check_number("stimulus", stimulus, at_least=0))
    if np.ndim(stimulus) not in (2, 3):
        required = "be a Stimulus, a duration in ms, or an array of shape (T, N) or (T, B, N)"
        raise invalid("stimulus", required, f"shape {np.shape(stimulus)}")
    return Stimulus(current=stimulus)
