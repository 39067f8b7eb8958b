"""The state of plastic synapses: weights, eligibilities, traces, dopamine, and rewards that are still to come."""

# B lanes, N neurons, S synapses, G segments: pairs of a delay and a sender

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from neuroloaders.checks import check_int
from reservoir.rules.stdp import (
    C_RATE,
    EPOCH,
    FADE,
    MINUS_RATE,
    MODULATED,
    PHASIC_GAIN,
    PLUS_RATE,
    TONIC,
    TONIC_GAIN,
    W_MAX,
    plastic_synapses,
)

__all__ = ["SynapseState", "fades", "first_state", "gains", "powers", "with_weights"]

# A trace is forgotten after so many time constants, when a spike has left 2e-22.
FORGOTTEN = 50.0


@dataclass(eq=False)
class SynapseState:
    """Plastic synapses of every lane after a run; part of `State`, which copies, forks, saves and loads it.

    Lanes whose networks have fewer synapses than the largest are filled up. What `values` and `now` mean says
    `reservoir.plastic_kernel`; read weights and eligibilities by the methods.

    Attributes
    ----------
    step : int
        Number of steps after which this was the state.
    numbers : ndarray
        Settings of the rule.
    n_synapses : ndarray of int64, shape (B,)
        Number of synapses, S of each lane.
    is_plastic : ndarray of uint8, shape (B, S)
        Which of them change.
    values : ndarray, shape (B, S, 3)
        Weights and eligibilities at their last looks.
    arrived, spiked : ndarray, shape (B, G, 2) and (B, N, 2)
        Traces of arrivals and of spikes, each with the step at which it was so.
    now : ndarray, shape (B, 3)
        Dopamine of rewards, and the gain.
    pending : ndarray, shape (rewards, 3)
        Rewards to come: lane, step, amount; by step.
    """

    step: int
    numbers: np.ndarray
    n_synapses: np.ndarray
    is_plastic: np.ndarray
    values: np.ndarray
    arrived: np.ndarray
    spiked: np.ndarray
    now: np.ndarray
    pending: np.ndarray

    def weights(self, lane: int = 0) -> np.ndarray:
        """Return the weights, shape (S,), in the order of the network's wiring, units of which they have.

        Parameters
        ----------
        lane : int
            Which lane.
        """
        lane = self._lane(lane)
        own = slice(0, self.n_synapses[lane])
        w, e, q = self.values[lane, own].T
        moved = np.minimum(np.maximum(w + e * (self.now[lane, 1] - q), 0.0), self.numbers[W_MAX])
        return np.where(self.is_plastic[lane, own], moved, w)

    def eligibility(self, lane: int = 0) -> np.ndarray:
        """Return the eligibilities, shape (S,); zeros where the rule has none.

        Parameters
        ----------
        lane : int
            Which lane.
        """
        lane = self._lane(lane)
        age = (self.step - 1) % int(self.numbers[EPOCH])
        return self.values[lane, : self.n_synapses[lane], 1] * powers(self.numbers)[age]

    def dopamine(self, lane: int = 0) -> float:
        """Return the dopamine, of rewards and tonic.

        Parameters
        ----------
        lane : int
            Which lane.
        """
        return float(self.now[self._lane(lane), 0] + self.numbers[TONIC])

    def network(self, reservoir: Any, lane: int = 0) -> Any:
        """Return a network with the weights of a lane, which stay as they are.

        Parameters
        ----------
        reservoir : Reservoir
            The network of the lane.
        lane : int
            Which lane.
        """
        return with_weights(reservoir, self.weights(lane))

    def _lane(self, lane: int) -> int:
        return check_int("lane", lane, at_least=0, at_most=len(self.values) - 1)

    def copy(self) -> SynapseState:
        """Return a copy that shares no memory."""
        return self.fork(range(len(self.values)))

    def fork(self, lanes: Sequence[int]) -> SynapseState:
        """Return a state whose lanes are copies of lanes of this one.

        Parameters
        ----------
        lanes : sequence of int
            Which lanes.
        """
        index = np.array(lanes, dtype=np.int64)
        names = ("n_synapses", "is_plastic", "values", "arrived", "spiked", "now")
        picked = {name: getattr(self, name)[index].copy() for name in names}
        coming = [np.zeros((0, 3))]
        for new, lane in enumerate(index):
            mine = self.pending[self.pending[:, 0] == lane].copy()
            mine[:, 0] = new
            coming.append(mine)
        return replace(self, numbers=self.numbers.copy(), pending=_by_step(np.concatenate(coming)), **picked)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all fields as arrays, for a file."""
        return {f"synapses.{f.name}": np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> SynapseState:
        """Return the state that `arrays` was made of.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Fields by name.
        """
        found = {f.name: arrays[f"synapses.{f.name}"] for f in fields(cls)}
        return cls(**found | {"step": int(found["step"])})

    def at(self, step: int, numbers: np.ndarray) -> SynapseState:
        """Return the state for a run that begins at a step with a rule; itself if it is the next step of the same rule.

        Where steps lie between, in which the rule was off, all decays and no weight changes.

        Parameters
        ----------
        step : int
            First step of the run.
        numbers : ndarray
            Settings of the rule.
        """
        if step == self.step and np.array_equal(numbers, self.numbers):
            return self
        old, gap = self.numbers, step - self.step
        values, now = np.zeros_like(self.values), np.zeros_like(self.now)
        fade = old[FADE] ** gap if old[MODULATED] else 0.0
        now[:, 0] = self.now[:, 0] * fade
        due = self.pending[:, 1] < step
        for lane, when, amount in self.pending[due]:
            now[int(lane), 0] += amount * (old[FADE] ** (step - 1 - when) if old[MODULATED] else 0.0)
        for lane, n in enumerate(self.n_synapses):
            values[lane, :n, 0] = self.weights(lane)
            if old[MODULATED] and numbers[MODULATED]:
                left = self.eligibility(lane) * np.exp(-old[C_RATE] * gap)
                values[lane, :n, 1] = left / powers(numbers)[(step - 1) % int(numbers[EPOCH])]
        return replace(self, step=step, numbers=numbers, values=values, now=now, pending=self.pending[~due])


def powers(numbers: np.ndarray) -> np.ndarray:
    """Return what is left of an eligibility after each number of steps of an epoch, shape (epoch + 1,).

    Parameters
    ----------
    numbers : ndarray
        Settings of the rule.
    """
    return np.exp(-numbers[C_RATE] * np.arange(int(numbers[EPOCH]) + 1))


def fades(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is left of both traces after each number of steps, until they are forgotten.

    Parameters
    ----------
    numbers : ndarray
        Settings of the rule.
    """
    rates = numbers[PLUS_RATE], numbers[MINUS_RATE]
    plus, minus = (np.exp(-rate * np.arange(int(np.ceil(FORGOTTEN / rate)) + 1)) for rate in rates)
    return plus, minus


def gains(numbers: np.ndarray, dopamine: np.ndarray) -> np.ndarray:
    """Return how far a unit of eligibility moves a weight in a step that begins with this dopamine of rewards.

    Parameters
    ----------
    numbers : ndarray
        Settings of the rule.
    dopamine : ndarray
        Of rewards, without the tonic part.
    """
    return dopamine * numbers[PHASIC_GAIN] + numbers[TONIC_GAIN]


def first_state(rule: Any, networks: Sequence[Any], step: int) -> SynapseState:
    """Return the state of synapses that nothing has happened to yet.

    Parameters
    ----------
    rule : STDP
        The rule.
    networks : sequence of Reservoir
        One a lane.
    step : int
        The first step to come.
    """
    n_lanes, n = len(networks), networks[0].n
    sizes = np.array([len(net.wiring.post) for net in networks], dtype=np.int64)
    is_plastic = np.zeros((n_lanes, sizes.max()), dtype=np.uint8)
    values = np.zeros((n_lanes, sizes.max(), 3))
    for lane, net in enumerate(networks):
        is_plastic[lane, : sizes[lane]] = plastic_synapses(rule, net)
        values[lane, : sizes[lane], 0] = net.wiring.weight
    segments = max(len(net.wiring.delays) for net in networks) * n
    return SynapseState(
        step=step,
        numbers=rule.numbers(networks[0].dt_ms),
        n_synapses=sizes,
        is_plastic=is_plastic,
        values=values,
        arrived=np.zeros((n_lanes, segments, 2)),
        spiked=np.zeros((n_lanes, n, 2)),
        now=np.zeros((n_lanes, 3)),
        pending=np.zeros((0, 3)),
    )


def with_weights(network: Any, weight: np.ndarray) -> Any:
    """Return a network that differs in its weights only.

    Parameters
    ----------
    network : Reservoir
        The network.
    weight : ndarray, shape (S,)
        Weights in the order of its wiring.
    """
    other = copy.copy(network)
    other.wiring = replace(network.wiring, weight=np.ascontiguousarray(weight, dtype=np.float64))
    return other


def _by_step(pending: np.ndarray) -> np.ndarray:
    return pending[np.argsort(pending[:, 1], kind="stable")]
