"""Plastic synapses in one run: their arrays for the loop, and their steps in numpy for backends that have no loop."""

# B lanes, N neurons, S synapses, G segments: pairs of a delay and a sender, K threads, W watched synapses

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuroloaders.checks import invalid
from reservoir.network import Reservoir, whole_steps
from reservoir.plasticity import Plasticity, as_rewards
from reservoir.rules.stdp import MODULATED, plastic_synapses
from reservoir.synapses import SynapseState, fades, first_state, powers, with_weights

__all__ = ["PlasticPart", "lane_networks"]


def lane_networks(networks: Sequence[Reservoir], state: SynapseState) -> tuple[Reservoir, ...]:
    """Return the networks with the weights of a state, one for each lane.

    Parameters
    ----------
    networks : sequence of Reservoir
        One a lane.
    state : SynapseState
        Where the weights are.
    """
    sizes = [len(net.wiring.post) for net in networks]
    if len(sizes) != len(state.values) or (state.n_synapses != sizes).any():
        got = f"{state.n_synapses.tolist()} in {len(state.values)} lanes"
        raise invalid("state", f"have as many synapses as the networks, {sizes}", got, "Take one of these networks.")
    return tuple(with_weights(net, state.weights(lane)) for lane, net in enumerate(networks))


class PlasticPart:
    """Plastic synapses in one run: arrays for the loop, and the same in numpy for backends that go step by step.

    Parameters
    ----------
    plasticity : Plasticity
        What the run is told.
    networks : sequence of Reservoir
        One a lane, as the user gave them.
    state : SynapseState or None
        Where to begin.
    start, n_steps : int
        The run.
    """

    def __init__(
        self,
        plasticity: Plasticity,
        networks: Sequence[Reservoir],
        state: SynapseState | None,
        start: int,
        n_steps: int,
    ) -> None:
        self.plasticity, self.rule = plasticity, plasticity.rule
        self.start, self.n_steps, self.dt_ms = start, n_steps, networks[0].dt_ms
        self.numbers = self.rule.numbers(self.dt_ms)
        if state is None:
            state = first_state(self.rule, networks, start)
        self.networks = lane_networks(networks, state)
        state = state.at(start, self.numbers).copy()
        for lane, net in enumerate(self.networks):
            state.is_plastic[lane, : len(net.wiring.post)] = plastic_synapses(self.rule, net)
        given = plasticity.rewards_of(len(networks), start, self.dt_ms)
        self.rewards: list[list[tuple[int, float]]] = [[] for _ in networks]
        for lane, step, amount in np.concatenate([state.pending, given]):
            self.rewards[int(lane)].append((int(step), float(amount)))
        if (len(given) or plasticity.on_spikes) and not self.numbers[MODULATED]:
            raise invalid("rewards", "be left out with a rule without dopamine", self.rule)
        self.state = state
        self.every = max(1, whole_steps(plasticity.every_ms, self.dt_ms, "every_ms")) if plasticity.on_spikes else 0
        rows = -(-(start + n_steps) // plasticity.watch_every) + -start // plasticity.watch_every
        self.kept = np.zeros((len(networks), rows, len(plasticity.watch), 2))
        self.kept_dopamine = np.zeros((len(networks), rows))
        for net in networks:
            if len(plasticity.watch) and plasticity.watch[-1] >= len(net.wiring.post):
                required = f"hold synapses 0 to {len(net.wiring.post) - 1}"
                raise invalid("watch", required, f"{plasticity.watch[-1]}")
        self._originals = networks
        self._shared = (powers(self.numbers), *fades(self.numbers))
        self._heard: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in networks]
        self._lock = threading.Lock()
        self._tables: dict[int, Any] = {}

    def table(self, lane: int, n_threads: int) -> Any:
        """Return the arrays of a lane as the loop takes them; they are changed there.

        Parameters
        ----------
        lane : int
            Which lane.
        n_threads : int
            How many threads share it.
        """
        # What loads numba is imported where a run begins.
        from reservoir.plastic_kernel import NO_SYNAPSES

        net, state, watch = self.networks[lane], self.state, self.plasticity.watch
        n = len(net.wiring.post)
        is_plastic = state.is_plastic[lane, :n]
        incoming, synapse, segment = _incoming(self._originals[lane].wiring, is_plastic)
        now = np.repeat(state.now[lane][None], n_threads, axis=0)
        every = self.plasticity.watch_every
        down, fade_plus, fade_minus = self._shared
        self._tables[lane] = NO_SYNAPSES._replace(
            is_plastic=is_plastic,
            values=state.values[lane, :n],
            incoming=incoming,
            synapse=synapse,
            segment=segment,
            arrived=np.repeat(state.arrived[lane][None], n_threads, axis=0),
            spiked=state.spiked[lane],
            now=now,
            numbers=self.numbers,
            down=down,
            fade_plus=fade_plus,
            fade_minus=fade_minus,
            scale=np.array([s.scale for s in net.synapses])[net.receptor],
            watch=watch,
            watch_post=net.wiring.post[watch].astype(np.int64),
            rows=np.array([every, -(-self.start // every)]),
            kept=self.kept[lane],
            kept_dopamine=self.kept_dopamine[lane],
        )
        return self._tables[lane]

    def begin(self, lane: int, t: int, n_steps: int) -> tuple[int, Any]:
        """Return how many steps may be taken until the callback is due, and the arrays with the rewards as known.

        Parameters
        ----------
        lane, t, n_steps : int
            Lane, step of the run, and how many steps are wanted.
        """
        step = self.start + t
        if self.every:
            n_steps = min(n_steps, self.every - step % self.every)
        coming = sorted((pair for pair in self.rewards[lane] if pair[0] >= step), key=lambda pair: pair[0])
        table = self._tables[lane]
        table.now[:, 2] = 0
        self._tables[lane] = table._replace(
            reward_steps=np.array([when for when, _ in coming], dtype=np.int64),
            rewards=np.array([amount for _, amount in coming], dtype=np.float64),
        )
        return n_steps, self._tables[lane]

    def end(self, lane: int, step: int, counts: np.ndarray, neurons: np.ndarray) -> None:
        """Be told what was done, and ask the callback where it is due.

        Parameters
        ----------
        lane, step : int
            Lane, and first step of the chunk, of the simulation.
        counts, neurons : ndarray
            Number of spikes of each step, and who spiked.
        """
        if not self.every:
            return
        steps = np.repeat(np.arange(step, step + len(counts)), counts)
        self._heard[lane].append((steps, neurons.astype(np.int64)))
        now = step + len(counts)
        if now % self.every:
            return
        steps, neurons = (np.concatenate(parts) for parts in zip(*self._heard[lane], strict=True))
        self._heard[lane].clear()
        with self._lock:
            answer = self.plasticity.on_spikes(steps * self.dt_ms, neurons, lane)
        for _, when, amount in as_rewards(() if answer is None else answer, lane, 0, self.dt_ms):
            if when < now:
                advice = "A reward cannot act on what has passed."
                got = f"{when * self.dt_ms:g} ms"
                raise invalid("on_spikes", f"return times from {now * self.dt_ms:g} ms on", got, advice)
            self.rewards[lane].append((when, amount))

    def finish(self) -> SynapseState:
        """Return the state after the run, and leave what was watched with the user."""
        end = self.start + self.n_steps
        rows = []
        for lane, coming in enumerate(self.rewards):
            rows += [(lane, when, amount) for when, amount in coming if when >= end]
            if lane in self._tables:
                self.state.arrived[lane] = self._tables[lane].arrived[0]
                self.state.now[lane, :2] = self._tables[lane].now[0, :2]
        pending = np.array(rows, dtype=np.float64).reshape(-1, 3)
        plasticity, every = self.plasticity, self.plasticity.watch_every
        first = -(-self.start // every) * every
        plasticity.t_ms = np.arange(first, end, every) * self.dt_ms
        plasticity.weights, plasticity.eligibility = np.moveaxis(self.kept.transpose(1, 0, 2, 3), 3, 0).copy()
        plasticity.dopamine = self.kept_dopamine.T.copy()
        order = np.argsort(pending[:, 1], kind="stable")
        return dataclasses.replace(self.state, step=end, numbers=self.numbers, pending=pending[order])

    def step(
        self, lane: int, step: int, spiked: np.ndarray, due: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Do in numpy what the loop does in a step; return the synapses that act, and their weights.

        Parameters
        ----------
        lane, step : int
            Lane, and step of the simulation.
        spiked : ndarray of int
            Neurons that spiked, ascending.
        due : sequence of ndarray of int
            Neurons whose spikes arrive now, for each delay of the network's wiring.
        """
        from reservoir.plastic_steps import numpy_step

        if lane not in self._tables:
            self.table(lane, 1)
        _, table = self.begin(lane, step - self.start, 1)
        acting = numpy_step(table, self.networks[lane].wiring, step, spiked, due)
        self.end(lane, step, np.array([len(spiked)]), spiked)
        return acting


def _incoming(wiring: Any, is_plastic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the plastic synapses of each receiver begin, which they are, and their segments; made once."""
    key = ("incoming", is_plastic.tobytes())
    if key not in wiring._cache:
        mine = np.flatnonzero(is_plastic)
        synapse = mine[np.argsort(wiring.post[mine], kind="stable")]
        start = np.zeros(wiring.n + 1, dtype=np.int64)
        np.cumsum(np.bincount(wiring.post[mine], minlength=wiring.n), out=start[1:])
        segment = np.repeat(np.arange(len(wiring.start) - 1), np.diff(wiring.start))[synapse]
        wiring._cache[key] = (start, synapse, segment)
    return wiring._cache[key]
