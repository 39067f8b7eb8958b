"""What a rule is, and a lesson: a rule with what it is to learn."""

# T time, B lanes, N neurons, K outputs, W windows

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_int, invalid

__all__ = ["Lesson", "Plain", "Rule"]

# A rule in plain numpy: (step, trace (N,), output (K,), target (K,), gate (K,), weights (K, N)) -> None. It changes the
# weights, and the output where the rule does so, in place.
Plain = Callable[[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


class Rule(abc.ABC):
    """How the weights of a readout change while the network runs.

    A rule is a frozen dataclass of settings. What it keeps from step to step lies in an array that belongs to the
    readout, so one rule may serve several runs.
    """

    @property
    @abc.abstractmethod
    def kernel(self) -> Any:
        """The compiled rule: a function of the table in `reservoir.readout_kernel`."""

    @abc.abstractmethod
    def numbers(self, n: int, dt_ms: float) -> np.ndarray:
        """Return the settings as the compiled function reads them, float64.

        Parameters
        ----------
        n : int
            Number of neurons, N.
        dt_ms : float
            Time step.
        """

    def memory(self, n: int, n_outputs: int) -> np.ndarray:
        """Return what the rule keeps from step to step, as it is at the beginning; one-dimensional, float64.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs, N and K.
        """
        return np.zeros(0)

    @abc.abstractmethod
    def plain(self, n: int, n_outputs: int, dt_ms: float, *, seed: int = 0) -> Plain:
        """Return the rule in plain numpy, with a memory of its own: the reference of the compiled one.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs, N and K.
        dt_ms : float
            Time step.
        seed : int
            Of the rule's random numbers, if it draws any.
        """

    def teach(
        self,
        target: Any,
        *,
        active: Any = None,
        windows: Sequence[tuple[int, int]] | np.ndarray | Sequence[np.ndarray] = (),
        seed: int | Sequence[int] = 0,
    ) -> Lesson:
        """Return the rule with what it is to learn, for `reservoir.simulate`.

        Parameters
        ----------
        target : array, shape (T, K) or (T, B, K)
            What the outputs should be at each step of the run.
        active : array, shape (T, K) or (T, B, K), optional
            Where to learn: a factor on the change, 1 by default. Where it is 0 no weight of that output changes.
        windows : sequence of (start, stop), or one such sequence a lane
            Steps of the run over which the trace is averaged; ascending, without overlap.
        seed : int or sequence of int
            Of the rule's random numbers, as for the noise of the network.
        """
        return Lesson(rule=self, target=target, active=active, windows=windows, seed=seed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What a readout does in one run: learn by a rule, average its trace, or neither.

    Parameters
    ----------
    rule : Rule, optional
        How to learn; None: learning is off.
    target : array, shape (T, K) or (T, B, K), optional
        What the outputs should be at each step.
    active : array, shape (T, K) or (T, B, K), optional
        Factor on the change of weights.
    windows : sequence of (start, stop), or one such sequence a lane
        Steps of the run over which the trace is averaged; ascending, without overlap.
    seed : int or sequence of int
        Of the rule's random numbers: of lane 0, the others get those that follow; or one a lane.
    """

    rule: Rule | None = None
    target: Any = None
    active: Any = None
    windows: Any = ()
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        if self.rule is not None and not isinstance(self.rule, Rule):
            raise invalid("rule", "be a Rule, or None", self.rule, kind=TypeError)
        if (self.rule is None) != (self.target is None):
            came = "a rule alone" if self.target is None else "a target alone"
            raise invalid("target", "come together with `rule`", came)

    def arrays(self, n_steps: int, n_lanes: int, n_outputs: int) -> list[tuple[np.ndarray | None, np.ndarray | None]]:
        """Return target and gate of each lane, checked, each (T, K), contiguous, float64; None where there is none.

        Parameters
        ----------
        n_steps, n_lanes, n_outputs : int
            T, B and K.
        """
        columns = [_by_lane(name, getattr(self, name), n_steps, n_lanes, n_outputs) for name in ("target", "active")]
        return list(zip(*columns, strict=True))

    def windows_of(self, n_steps: int, n_lanes: int) -> list[np.ndarray]:
        """Return the windows of each lane, int64, shape (W, 2); W is the same for all.

        Parameters
        ----------
        n_steps, n_lanes : int
            T and B.
        """
        given = self.windows
        per_lane = len(given) > 0 and np.ndim(given[0]) == 2
        lists = [np.array(one, dtype=np.int64).reshape(-1, 2) for one in (given if per_lane else [given] * n_lanes)]
        if len(lists) != n_lanes or len({len(one) for one in lists}) > 1:
            raise invalid("windows", f"be one list, or {n_lanes} of the same length: one a lane", f"{len(lists)} lists")
        for one in lists:
            edges = one.reshape(-1)
            is_full = (one[:, 0] < one[:, 1]).all()
            if len(edges) and not (is_full and (np.diff(edges) >= 0).all() and edges[0] >= 0 and edges[-1] <= n_steps):
                required = f"be (start, stop) pairs inside the {n_steps} steps of the run, ascending, without overlap"
                raise invalid("windows", required, f"{one[:3].tolist()}...")
        return lists


def _by_lane(name: str, value: Any, n_steps: int, n_lanes: int, n_outputs: int) -> list[np.ndarray | None]:
    if value is None:
        return [None] * n_lanes
    array = check_finite(name, np.asarray(value, dtype=np.float64))
    allowed = ((n_steps, n_outputs), (n_steps, 1, n_outputs), (n_steps, n_lanes, n_outputs))
    if array.shape not in allowed:
        raise invalid(name, f"have shape {allowed[0]} or {allowed[2]}", f"{array.shape}", "The axes are T, (B,) K.")
    if array.ndim == 2 or array.shape[1] == 1:
        return [np.ascontiguousarray(array.reshape(n_steps, n_outputs))] * n_lanes
    return [np.ascontiguousarray(array[:, lane]) for lane in range(n_lanes)]


def check_steps(name: str, time_ms: float, dt_ms: float) -> int:
    """Return a time as a number of steps, at least one.

    Parameters
    ----------
    name : str
        The argument's name.
    time_ms, dt_ms : float
        The time, and the time step, which must divide it.
    """
    from reservoir.network import whole_steps

    return check_int(name, whole_steps(time_ms, dt_ms, name), at_least=1)
