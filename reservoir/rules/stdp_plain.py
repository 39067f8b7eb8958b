"""STDP in plain numpy: every synapse in every step, in the order of the equations. Slow, and evident."""

# N neurons, S synapses

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from reservoir.rules.stdp import DopamineSTDP, plastic_synapses

__all__ = ["DenseSTDP"]


class DenseSTDP:
    """The reference of the compiled rules: is told who spiked, keeps weights, eligibilities and traces.

    Parameters
    ----------
    rule : STDP
        The rule.
    network : Reservoir
        The network, from which the first weights come.

    Attributes
    ----------
    weights, eligibility : ndarray, shape (S,)
        In the order of ``network.wiring``.
    dopamine : float
        Of rewards, without the tonic part.
    """

    def __init__(self, rule: Any, network: Any) -> None:
        wiring, dt = network.wiring, network.dt_ms
        self.rule, self.dt_ms = rule, dt
        self.plastic = plastic_synapses(rule, network)
        self.pre, self.post, self.delay = wiring.pre(), wiring.post.astype(np.int64), wiring.delay()
        self.weights = wiring.weight.copy()
        self.eligibility, self.arrived = np.zeros_like(self.weights), np.zeros_like(self.weights)
        self.spiked, self.dopamine = np.zeros(network.n), 0.0
        silent = np.zeros(network.n, dtype=bool)
        self._history = deque([silent] * (wiring.max_delay + 1), maxlen=wiring.max_delay + 1)

    def step(self, spiked: np.ndarray, reward: float = 0.0) -> None:
        """Take one step.

        Parameters
        ----------
        spiked : ndarray of bool, shape (N,)
            Who spiked in it.
        reward : float
            What is added to dopamine in it.
        """
        rule, dt = self.rule, self.dt_ms
        self.arrived *= np.exp(-dt / rule.tau_plus_ms)
        self.spiked *= np.exp(-dt / rule.tau_minus_ms)
        if isinstance(rule, DopamineSTDP):
            both = 1 / (1 / rule.tau_c_ms + 1 / rule.tau_d_ms)
            gained = self.dopamine * both * (1 - np.exp(-dt / both))
            gained += rule.tonic * rule.tau_c_ms * (1 - np.exp(-dt / rule.tau_c_ms))
            self._bound(rule.eta * gained * self.eligibility)
            self.eligibility *= np.exp(-dt / rule.tau_c_ms)
            self.dopamine = self.dopamine * np.exp(-dt / rule.tau_d_ms) + reward
        self._history.append(spiked)
        after = spiked[self.post]
        self._mark(np.where(after, rule.a_plus * self.arrived, 0.0))
        self._trace(self.spiked, spiked)
        arrives = np.array(self._history)[-1 - self.delay, self.pre]
        self._mark(np.where(arrives, -rule.a_minus * self.spiked[self.post], 0.0))
        self._trace(self.arrived, arrives)

    def _mark(self, change: np.ndarray) -> None:
        if isinstance(self.rule, DopamineSTDP):
            self.eligibility += np.where(self.plastic, change, 0.0)
        else:
            self._bound(change)

    def _bound(self, change: np.ndarray) -> None:
        moved = np.clip(self.weights + change, 0.0, self.rule.w_max)
        self.weights = np.where(self.plastic, moved, self.weights)

    def _trace(self, trace: np.ndarray, here: np.ndarray) -> None:
        trace[here] = 1.0 if self.rule.pairing == "nearest" else trace[here] + 1.0
