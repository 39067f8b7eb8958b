"""Plastic synapses in brian2: every synapse in every step, which is what the event-driven ones mean."""

# T time, N neurons, S synapses, G segments: pairs of a delay and a sender

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloaders.checks import invalid
from reservoir.rules.stdp import (
    A_MINUS,
    A_PLUS,
    C_RATE,
    FADE,
    MINUS_RATE,
    MODULATED,
    NEAREST,
    PLUS_RATE,
    TONIC,
    W_MAX,
)
from reservoir.synapses import fades, gains, powers

__all__ = ["PlasticSynapses"]


class PlasticSynapses:
    """The plastic synapses of one lane, spread over brian2's objects, one for each kind of synapse.

    Parameters
    ----------
    brian2 : module
        The simulator.
    part : PlasticPart
        What the run is told.
    lane : int
        Which lane.
    """

    def __init__(self, brian2: Any, part: Any, lane: int) -> None:
        if part.every:
            raise invalid("on_spikes", "be left out with brian2", "a function", "Use 'numba', or 'torch'.")
        self.brian2, self.part, self.lane = brian2, part, lane
        self.numbers, self.net = part.numbers, part.networks[lane]
        self.made: list[tuple[Any, np.ndarray, Any]] = []
        state, n = part.state, len(self.net.wiring.post)
        self.segment = np.repeat(np.arange(len(self.net.wiring.start) - 1), np.diff(self.net.wiring.start))
        self.w, self.c = state.weights(lane), state.eligibility(lane)
        self.is_plastic = state.is_plastic[lane, :n] != 0
        # Traces as they are after the step before the first one.
        last = part.start - 1
        plus, minus = fades(self.numbers)
        self.x = _at(state.arrived[lane], last, plus)[self.segment]
        self.y = _at(state.spiked[lane], last, minus)[self.net.wiring.post]

    def namespace(self) -> dict[str, Any]:
        """Return the constants of the rule, and the gain of each step as a function of time."""
        numbers, part = self.numbers, self.part
        dopamine = np.zeros(part.n_steps + 1)
        dopamine[0] = part.state.now[self.lane, 0]
        for t in range(part.n_steps):
            due = [amount for step, amount in part.rewards[self.lane] if step == part.start + t]
            dopamine[t + 1] = dopamine[t] * numbers[FADE] + sum(due)
        self.dopamine = dopamine
        found = {"a_plus": numbers[A_PLUS], "a_minus": numbers[A_MINUS], "w_max": numbers[W_MAX]}
        found |= {"fade_x": np.exp(-numbers[PLUS_RATE]), "fade_y": np.exp(-numbers[MINUS_RATE])}
        found = {name: float(value) for name, value in found.items()}
        if numbers[MODULATED]:
            table = gains(numbers, dopamine[: max(part.n_steps, 1)])
            found["gain"] = self.brian2.TimedArray(table, dt=self.net.dt_ms * self.brian2.ms)
            found["fade_c"] = float(np.exp(-numbers[C_RATE]))
        return found

    def synapses(self, group: Any, target: str, name: str, mine: np.ndarray) -> Any:
        """Return brian2's synapses of one kind, without connections.

        Parameters
        ----------
        group : NeuronGroup
            The neurons.
        target : str
            The variable that a spike adds to.
        name : str
            Of the object.
        mine : ndarray of int
            Which synapses, in the order in which they will be connected.
        """
        trace = "{0} = 1.0" if self.numbers[NEAREST] else "{0} = {0} + 1.0"
        if self.numbers[MODULATED]:
            depress, potentiate = "mark = mark - plastic*(a_minus*answered)", "mark = mark + plastic*(a_plus*arrived)"
        else:
            depress = "w = (1 - plastic)*w + plastic*clip(w - a_minus*answered, 0, w_max)"
            potentiate = "w = (1 - plastic)*w + plastic*clip(w + a_plus*arrived, 0, w_max)"
        # What arrives in a step sees the neurons that spiked in it, and not the other way round.
        made = self.brian2.Synapses(
            group, group,
            "w : 1\nmark : 1\narrived : 1\nanswered : 1\nplastic : 1 (constant)\nscale : 1 (constant)",
            on_pre=f"{target}_post += w*scale\n{depress}\n{trace.format('arrived')}",
            on_post=f"{potentiate}\n{trace.format('answered')}",
            name=name,
        )  # fmt: skip
        made.post.order, made.pre.order = 0, 1
        code = "arrived = arrived*fade_x\nanswered = answered*fade_y"
        if self.numbers[MODULATED]:
            code = f"w = (1 - plastic)*w + plastic*clip(w + mark*gain(t), 0, w_max)\nmark = mark*fade_c\n{code}"
        made.run_regularly(code, dt=self.net.dt_ms * self.brian2.ms, when="groups", name=f"{name}_decay")
        made.namespace.update(group.namespace)
        self.made.append((made, mine, None))
        return made

    def start(self, made: Any, scale: np.ndarray) -> list[Any]:
        """Set what is kept from step to step, once connected; return what else the network needs.

        Parameters
        ----------
        made : Synapses
            The last that `synapses` returned.
        scale : ndarray, shape (N,)
            Factor on the weights that each neuron sends.
        """
        mine, wiring = self.made[-1][1], self.net.wiring
        made.w, made.mark, made.arrived, made.answered = self.w[mine], self.c[mine], self.x[mine], self.y[mine]
        made.plastic, made.scale = self.is_plastic[mine].astype(np.float64), scale[wiring.pre()[mine]]
        place = np.flatnonzero(np.isin(mine, self.part.plasticity.watch))
        if not len(place):
            return []
        monitor = self.brian2.StateMonitor(made, ["w", "mark"], record=place.tolist(), when="end")
        self.made[-1] = (made, mine, (monitor, np.searchsorted(self.part.plasticity.watch, mine[place])))
        return [monitor]

    def give_back(self) -> None:
        """Write down what the run left, as `reservoir.synapses.SynapseState` keeps it."""
        part, lane, state = self.part, self.lane, self.part.state
        end = part.start + part.n_steps
        steps = np.flatnonzero(np.arange(part.start, end) % part.plasticity.watch_every == 0)
        for made, mine, watched in self.made:
            self.w[mine], self.c[mine] = made.w[:], made.mark[:]
            self.x[mine], self.y[mine] = made.arrived[:], made.answered[:]
            if watched is not None:
                for k, name in enumerate(("w", "mark")):
                    part.kept[lane][:, watched[1], k] = np.asarray(getattr(watched[0], name)).T[steps]
        n, unit = len(self.w), powers(self.numbers)[(end - 1) % (len(powers(self.numbers)) - 1)]
        state.values[lane, :n] = np.stack([self.w, self.c / unit, np.zeros(n)], axis=1)
        state.arrived[lane, self.segment, 0], state.arrived[lane, :, 1] = self.x, end - 1
        state.spiked[lane, self.net.wiring.post, 0], state.spiked[lane, :, 1] = self.y, end - 1
        state.now[lane, :2] = self.dopamine[-1], 0.0
        part.kept_dopamine[lane] = (self.dopamine[1:] + self.numbers[TONIC])[steps]


def _at(trace: np.ndarray, step: int, fade: np.ndarray) -> np.ndarray:
    age = np.maximum(step - trace[:, 1].astype(np.int64), 0)
    return np.where(age < len(fade), trace[:, 0] * fade[np.minimum(age, len(fade) - 1)], 0.0)
