"""Plastic synapses inside the compiled loop: only those that a spike reaches are looked at.

Between two looks a synapse's eligibility decays and its weight moves by eligibility times dopamine. Dopamine is the
same for all, so one number a step, the gain P, tells how far a unit of eligibility would have moved a weight since the
epoch began. A synapse keeps its weight w, its eligibility e as it would have been when the epoch began, and the gain q
at its last look; it is up to date by ``w + e (P - q)``, between the bounds. An epoch is a few time constants of the
eligibility; where the next one begins all synapses are brought up to date, so that no number grows beyond measure.

What happens in a step, after its spikes are known::

    1. P and dopamine go on; synapses are swept where an epoch begins; rewards of the step add to dopamine
    2. neurons that spiked: their incoming synapses gain a_plus times the trace of arrivals; their own trace steps up
    3. arrivals: synapses act, and lose a_minus times the trace of the neuron after them; their trace steps up
    4. watched synapses are written down
"""

# N neurons, S synapses, G segments: pairs of a delay and a sender, K threads, W watched synapses

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from reservoir.rules.stdp import (
    A_MINUS,
    A_PLUS,
    FADE,
    MODULATED,
    NEAREST,
    PHASIC_GAIN,
    TONIC,
    TONIC_GAIN,
    W_MAX,
)

__all__ = ["DOPAMINE", "GAIN", "NEXT", "NO_SYNAPSES", "Plastic", "begin_step", "deliver", "potentiate", "write_down"]

# Places in Plastic.now.
DOPAMINE, GAIN, NEXT = range(3)
# Below this an eligibility is taken for 0: numbers that are hardly any take long to compute with.
TINY = 1e-290


class Plastic(NamedTuple):
    """Plastic synapses of one lane.

    is_plastic (S,), values (S, 3): w, e, q; incoming (N + 1,): where the plastic synapses of each receiver begin;
    synapse and segment of each; arrived (K, G, 2), spiked (N, 2): traces, each with the step at which it was so; now
    (K, 3): dopamine, P, next reward; numbers of the rule; down (epoch + 1,), fade_plus, fade_minus: powers of the
    decays; scale (N,) of the weights that a neuron sends; rewards by step; watched synapses, their receivers; rows:
    every how many steps, and the number of the first row; kept (rows, W, 2): weight, eligibility; kept_dopamine.
    """

    is_plastic: np.ndarray
    values: np.ndarray
    incoming: np.ndarray
    synapse: np.ndarray
    segment: np.ndarray
    arrived: np.ndarray
    spiked: np.ndarray
    now: np.ndarray
    numbers: np.ndarray
    down: np.ndarray
    fade_plus: np.ndarray
    fade_minus: np.ndarray
    scale: np.ndarray
    reward_steps: np.ndarray
    rewards: np.ndarray
    watch: np.ndarray
    watch_post: np.ndarray
    rows: np.ndarray
    kept: np.ndarray
    kept_dopamine: np.ndarray


def _nothing() -> Plastic:
    none, whole = np.zeros(0), np.zeros(0, dtype=np.int64)
    two = np.zeros((0, 2))
    return Plastic(
        np.zeros(0, dtype=np.uint8), np.zeros((0, 3)), whole, whole, whole, np.zeros((0, 0, 2)), two, np.zeros((0, 3)),
        none, none, none, none, none, whole, none, whole, whole, whole, np.zeros((0, 0, 2)), none,
    )  # fmt: skip


# Stands in a loop without plastic synapses.
NO_SYNAPSES = _nothing()
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@numba.njit(**_OPTIONS)
def _look(values, m, gain, w_max):
    """Bring a weight up to date, and return it."""
    w = values[m, 0] + values[m, 1] * (gain - values[m, 2])
    w = min(max(w, 0.0), w_max)
    values[m, 0] = w
    values[m, 2] = gain
    return w


@numba.njit(**_OPTIONS)
def _faded(value, since, step, fade):
    """Return a trace now."""
    age = step - np.int64(since)
    return value * fade[age] if age < fade.shape[0] else 0.0


@numba.njit(**_OPTIONS)
def begin_step(plastic, thread, step, low, high):
    """Go on with gain and dopamine, sweep where an epoch begins, take the rewards of the step."""
    numbers, now, values = plastic.numbers, plastic.now[thread], plastic.values
    if numbers[MODULATED] == 0.0:
        return
    epoch = plastic.down.shape[0] - 1
    now[GAIN] += plastic.down[(step - 1) % epoch] * (now[DOPAMINE] * numbers[PHASIC_GAIN] + numbers[TONIC_GAIN])
    now[DOPAMINE] *= numbers[FADE]
    if step % epoch == 0:
        left = plastic.down[epoch]
        for g in range(low.shape[0]):
            for m in range(low[g], high[g]):
                if plastic.is_plastic[m] != 0:
                    _look(values, m, now[GAIN], numbers[W_MAX])
                    e = values[m, 1] * left
                    values[m, 1] = e if abs(e) > TINY else 0.0
                    values[m, 2] = 0.0
        now[GAIN] = 0.0
    k = np.int64(now[NEXT])
    while k < plastic.rewards.shape[0] and plastic.reward_steps[k] <= step:
        now[DOPAMINE] += plastic.rewards[k]
        k += 1
    now[NEXT] = k


@numba.njit(**_OPTIONS)
def potentiate(plastic, thread, step, neuron):
    """Let a neuron's spike reward what arrived before it, and step its trace up."""
    numbers, values, arrived = plastic.numbers, plastic.values, plastic.arrived[thread]
    modulated, w_max, gain = numbers[MODULATED] != 0.0, numbers[W_MAX], plastic.now[thread, GAIN]
    size = numbers[A_PLUS]
    if modulated:
        size = size / plastic.down[step % (plastic.down.shape[0] - 1)]
    for k in range(plastic.incoming[neuron], plastic.incoming[neuron + 1]):
        m, g = plastic.synapse[k], plastic.segment[k]
        x = _faded(arrived[g, 0], arrived[g, 1], step, plastic.fade_plus)
        if x == 0.0:
            continue
        if modulated:
            _look(values, m, gain, w_max)
            values[m, 1] += size * x
        else:
            values[m, 0] = min(values[m, 0] + size * x, w_max)
    y = _faded(plastic.spiked[neuron, 0], plastic.spiked[neuron, 1], step, plastic.fade_minus)
    plastic.spiked[neuron, 0] = 1.0 if numbers[NEAREST] != 0.0 else y + 1.0
    plastic.spiked[neuron, 1] = step


@numba.njit(**_OPTIONS)
def deliver(plastic, thread, step, segment, sender, first, last, post, weight, to):
    """Let a spike act on its targets, punish what arrives after their spikes, and step the trace of arrivals up."""
    numbers, values, spiked = plastic.numbers, plastic.values, plastic.spiked
    modulated, w_max, gain = numbers[MODULATED] != 0.0, numbers[W_MAX], plastic.now[thread, GAIN]
    size, scale = numbers[A_MINUS], plastic.scale[sender]
    if modulated:
        size = size / plastic.down[step % (plastic.down.shape[0] - 1)]
    for m in range(first, last):
        i = post[m]
        if plastic.is_plastic[m] != 0:
            y = _faded(spiked[i, 0], spiked[i, 1], step, plastic.fade_minus)
            if modulated:
                # Rounded to the type of the run by going through the array.
                weight[m] = _look(values, m, gain, w_max) * scale
                values[m, 1] -= size * y
            else:
                weight[m] = values[m, 0] * scale
                values[m, 0] = max(values[m, 0] - size * y, 0.0)
        to[i] += weight[m]
    arrived = plastic.arrived[thread]
    x = _faded(arrived[segment, 0], arrived[segment, 1], step, plastic.fade_plus)
    arrived[segment, 0] = 1.0 if numbers[NEAREST] != 0.0 else x + 1.0
    arrived[segment, 1] = step


@numba.njit(**_OPTIONS)
def write_down(plastic, thread, step, first, last):
    """Keep weight and eligibility of watched synapses, and dopamine, as they are after the step."""
    every = plastic.rows[0]
    if step % every != 0:
        return
    row, now, values = step // every - plastic.rows[1], plastic.now[thread], plastic.values
    if thread == 0:
        plastic.kept_dopamine[row] = now[DOPAMINE] + plastic.numbers[TONIC]
    for k in range(plastic.watch.shape[0]):
        if first <= plastic.watch_post[k] < last:
            m = plastic.watch[k]
            w = values[m, 0] + values[m, 1] * (now[GAIN] - values[m, 2])
            plastic.kept[row, k, 0] = min(max(w, 0.0), plastic.numbers[W_MAX]) if plastic.is_plastic[m] != 0 else w
            plastic.kept[row, k, 1] = values[m, 1] * plastic.down[step % (plastic.down.shape[0] - 1)]
