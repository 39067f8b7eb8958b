"""Synapses that change while the network runs: what a run is told of them, and what it tells."""

# B lanes, W watched synapses

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_number, invalid
from reservoir.network import whole_steps
from reservoir.rules.stdp import STDP

__all__ = ["Plasticity", "as_plasticity", "as_rewards"]


class Plasticity:
    """What the synapses of a network do in one run: learn by a rule, get rewards, be watched.

    Parameters
    ----------
    rule : STDP or DopamineSTDP
        How weights change.
    rewards : sequence of (t_ms, amount), or one such sequence a lane, optional
        What is added to dopamine, >= 0, and when, from the start of the run; multiples of the time step. Those after
        its end wait in the state for the next run.
    on_spikes : callable, optional
        ``on_spikes(t_ms, neurons, lane)`` is told every `every_ms` who spiked since the last time, with times since the
        beginning of the simulation, and returns rewards as (t_ms, amount) since that beginning, not before the end of
        the stretch. Lanes may call it in any order.
    every_ms : float
        How often; counted from the beginning of the simulation.
    watch : sequence of int
        Synapses, as numbers in the order of ``reservoir.wiring``, whose weights are kept; ascending.
    watch_every : int
        Keep them after those steps whose number this divides, counted from the beginning of the simulation.

    Attributes
    ----------
    t_ms : ndarray, shape (rows,)
        Steps that were kept in the last run, as times since the beginning of the simulation.
    weights, eligibility : ndarray, shape (rows, B, W)
        Of the watched synapses, after each of these steps.
    dopamine : ndarray, shape (rows, B)
        Of rewards and tonic.

    Notes
    -----
    Weights are part of the state: ``recording.state.synapses``. A run that starts from it goes on with them, with
    `plasticity` or without; without, they stay as they are to the last bit. A callback costs a return to Python every
    `every_ms`, nothing else does.

    Examples
    --------
    >>> from reservoir import Population, Reservoir, Synapse, simulate
    >>> from reservoir.rules import DopamineSTDP
    >>> neurons = {"E": Population(size=50, neuron="RS", gain=1.0, bias=(5.0, 1.0))}
    >>> plasticity = Plasticity(DopamineSTDP(), rewards=[(100.0, 0.5)], watch=[0], watch_every=10)
    >>> recording = simulate(Reservoir(50, populations=neurons, generator=0), 200.0, plasticity=plasticity)
    >>> plasticity.weights.shape, round(float(plasticity.dopamine[10, 0]), 3)
    ((20, 1, 1), 0.502)
    """

    def __init__(
        self,
        rule: STDP,
        *,
        rewards: Any = (),
        on_spikes: Callable[[np.ndarray, np.ndarray, int], Any] | None = None,
        every_ms: float = 100.0,
        watch: Sequence[int] = (),
        watch_every: int = 1,
    ) -> None:
        if not isinstance(rule, STDP):
            raise invalid("rule", "be STDP or DopamineSTDP", rule, kind=TypeError)
        if on_spikes is not None and not callable(on_spikes):
            raise invalid("on_spikes", "be a function of (t_ms, neurons, lane)", on_spikes, kind=TypeError)
        self.rule, self.rewards, self.on_spikes = rule, rewards, on_spikes
        self.every_ms = check_number("every_ms", every_ms, above=0)
        self.watch = np.array([check_int("watch", m, at_least=0) for m in watch], dtype=np.int64)
        if (np.diff(self.watch) <= 0).any():
            raise invalid("watch", "be ascending, each synapse once", watch)
        self.watch_every = check_int("watch_every", watch_every, at_least=1)
        self.t_ms = np.zeros(0)
        self.weights = self.eligibility = np.zeros((0, 1, len(self.watch)))
        self.dopamine = np.zeros((0, 1))

    def rewards_of(self, n_lanes: int, start: int, dt_ms: float) -> np.ndarray:
        """Return the rewards that were given, shape (rewards, 3): lane, step of the simulation, amount.

        Parameters
        ----------
        n_lanes : int
            Number of lanes.
        start : int
            First step of the run.
        dt_ms : float
            Time step.
        """
        given = list(self.rewards)
        per_lane = len(given) > 0 and np.ndim(given[0]) != 0 and (len(given[0]) == 0 or np.ndim(given[0][0]) > 0)
        lists = given if per_lane else [given] * n_lanes
        if len(lists) != n_lanes:
            raise invalid("rewards", f"be one list, or {n_lanes}: one a lane", f"{len(lists)} lists")
        rows = [row for lane, one in enumerate(lists) for row in as_rewards(one, lane, start, dt_ms)]
        return np.array(rows, dtype=np.float64).reshape(-1, 3)


def as_rewards(given: Any, lane: int, start: int, dt_ms: float) -> list[tuple[int, int, float]]:
    """Return rewards of a lane as (lane, step, amount), checked.

    Parameters
    ----------
    given : iterable of (t_ms, amount)
        Times count from `start`.
    lane, start : int
        Which lane, and a step.
    dt_ms : float
        Time step.
    """
    rows = []
    for pair in given:
        if np.shape(pair) != (2,):
            raise invalid("rewards", "hold pairs of (t_ms, amount)", pair)
        step = start + whole_steps(float(pair[0]), dt_ms, "rewards")
        rows.append((lane, step, check_number("rewards", float(pair[1]), at_least=0)))
    return rows


def as_plasticity(plasticity: Any) -> Plasticity:
    """Return what a user passed as `Plasticity`.

    Parameters
    ----------
    plasticity : Plasticity or STDP
        What came.
    """
    if isinstance(plasticity, STDP):
        return Plasticity(plasticity)
    if not isinstance(plasticity, Plasticity):
        raise invalid("plasticity", "be a Plasticity, or a rule such as DopamineSTDP()", plasticity, kind=TypeError)
    return plasticity
