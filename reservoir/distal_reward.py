"""The distal reward problem: one synapse's coincidences are rewarded seconds later, and only that one grows."""

# N neurons, S synapses

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_number, invalid
from reservoir.izhikevich import Izhikevich
from reservoir.network import Reservoir, random_source
from reservoir.wiring import Synapse

__all__ = ["DistalReward", "distal_reward_network"]


def distal_reward_network(
    n: int = 1000, n_targets: int = 100, *, noise: float = 3.75, generator: Any = None
) -> Reservoir:
    """Return the network of the experiment: four fifths regular-spiking neurons that excite, one fifth that inhibit.

    Parameters
    ----------
    n : int
        Number of neurons.
    n_targets : int
        To how many others each sends: those that excite to all, those that inhibit to the first sort only.
    noise : float
        Standard deviation of the current that is drawn anew at each step.
    generator : numpy.random.Generator, torch.Generator, or int
        Source of the connections.

    Notes
    -----
    Constants of [1]_ and its script (ModelDB 84167): 800 RS and 200 FS neurons, weights of 1 and -1 mV, currents that
    last one step, 1 ms from a spike to its effect, steps of 1 ms with two half steps of v. Deviations: the noise is
    normal and not uniform between -6.5 and 6.5, with the same standard deviation; no neuron sends to itself.

    References
    ----------
    .. [1] Izhikevich, Cerebral Cortex 17 (2007), doi:10.1093/cercor/bhl152.

    Examples
    --------
    >>> distal_reward_network(100, 10, generator=0)
    Reservoir(100 neurons (all 100), 1000 synapses, dt 1 ms)
    """
    n = check_int("n", n, at_least=10)
    n_excite = round(0.8 * n)
    check_int("n_targets", n_targets, at_least=1, at_most=n_excite - 1)
    rng = random_source(generator)
    targets = []
    for sender in range(n):
        drawn = rng.choice(n - 1 if sender < n_excite else n_excite, n_targets, replace=False)
        targets.append(drawn + (drawn >= sender) if sender < n_excite else drawn)
    pre, post = np.repeat(np.arange(n), n_targets), np.concatenate(targets)
    excites = np.arange(n) < n_excite
    neuron = Izhikevich(
        a=np.where(excites, 0.02, 0.1), b=np.full(n, 0.2), c=np.full(n, -65.0), d=np.where(excites, 8.0, 2.0)
    )
    weight = np.where(excites[pre], 1.0, -1.0)
    return Reservoir.from_edges(n, pre, post, weight, neuron, synapse=Synapse(0.0), noise=noise, v_min=None)


class DistalReward:
    """Reward a synapse for firing: after each coincidence of its neurons dopamine comes, one to three seconds late.

    Pass it to `Plasticity` as ``on_spikes`` with ``every_ms`` of at most the shortest delay.

    Parameters
    ----------
    pre, post : int
        Neurons before and after the synapse.
    amount : float
        Dopamine of a reward, uM.
    window_ms : float
        How soon the second must fire after the first.
    delay_ms : tuple of float
        Bounds of the delay of the reward, which is drawn anew each time, in whole ms.
    generator : numpy.random.Generator, torch.Generator, or int
        Source of the delays.

    Attributes
    ----------
    coincidences, rewards : list of (float, int)
        When, in ms, and in which lane they were.

    Examples
    --------
    >>> import numpy as np
    >>> reward = DistalReward(3, 7, delay_ms=(1000.0, 1000.0), generator=0)
    >>> reward(np.array([10.0, 14.0, 50.0]), np.array([3, 7, 7]), 0)
    [(1014.0, 0.5)]
    """

    def __init__(
        self,
        pre: int,
        post: int,
        *,
        amount: float = 0.5,
        window_ms: float = 10.0,
        delay_ms: tuple[float, float] = (1000.0, 3000.0),
        generator: Any = None,
    ) -> None:
        self.pre, self.post = check_int("pre", pre, at_least=0), check_int("post", post, at_least=0)
        self.amount = check_number("amount", amount, at_least=0)
        self.window_ms = check_number("window_ms", window_ms, above=0)
        first, last = (check_number("delay_ms", time, at_least=0) for time in delay_ms)
        if first > last:
            raise invalid("delay_ms", "be (shortest, longest)", delay_ms)
        self.delay_ms = (first, last)
        self.coincidences: list[tuple[float, int]] = []
        self.rewards: list[tuple[float, int]] = []
        self._rng = random_source(generator)
        self._last: dict[int, float] = {}

    def __call__(self, t_ms: np.ndarray, neurons: np.ndarray, lane: int) -> list[tuple[float, float]]:
        """Look for coincidences, and return the rewards for them.

        Parameters
        ----------
        t_ms, neurons : ndarray
            Spikes since the last call.
        lane : int
            Which lane.
        """
        found = []
        for here in np.flatnonzero((neurons == self.pre) | (neurons == self.post)):
            time = float(t_ms[here])
            if neurons[here] == self.pre:
                self._last[lane] = time
            # A spike in the same step cannot have been caused by the synapse.
            elif 0 < time - self._last.get(lane, -np.inf) <= self.window_ms:
                self.coincidences.append((time, lane))
                late = time + np.floor(self._rng.uniform(*self.delay_ms))
                self.rewards.append((float(late), lane))
                found.append((float(late), self.amount))
        return found
