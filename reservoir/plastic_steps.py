"""What `reservoir.plastic_kernel` does in a step, in numpy: the same operations on the same numbers."""

# S synapses, G segments: pairs of a delay and a sender

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reservoir.plastic_kernel import DOPAMINE, GAIN, NEXT, TINY, Plastic
from reservoir.rules.stdp import FADE, MODULATED, NEAREST, PHASIC_GAIN, TONIC, TONIC_GAIN

__all__ = ["numpy_step"]


def numpy_step(
    table: Plastic, wiring: Any, step: int, spiked: np.ndarray, due: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Take a step of all plastic synapses; return those that act, and their weights times their scale.

    Parameters
    ----------
    table : Plastic
        The lane; changed.
    wiring : Wiring
        The synapses.
    step : int
        Step of the simulation.
    spiked : ndarray of int
        Neurons that spiked, ascending.
    due : sequence of ndarray of int
        Neurons whose spikes arrive now, ascending, for each delay of the wiring.
    """
    numbers, values, arrived, now = table.numbers, table.values, table.arrived[0], table.now[0]
    a_plus, a_minus, w_max = numbers[:3]
    modulated, plastic = bool(numbers[MODULATED]), table.is_plastic != 0
    if modulated:
        _begin(table, step, plastic)
    gain, unit = now[GAIN], table.down[step % (len(table.down) - 1)]
    for neuron in spiked:
        own = slice(table.incoming[neuron], table.incoming[neuron + 1])
        m, x = table.synapse[own], _faded(arrived[table.segment[own]], step, table.fade_plus)
        m, x = m[x != 0], x[x != 0]
        if modulated:
            _look(values, m, gain, w_max)
            values[m, 1] += a_plus / unit * x
        else:
            values[m, 0] = np.minimum(values[m, 0] + a_plus * x, w_max)
    _step_up(table.spiked, spiked, step, table.fade_minus, numbers)
    acting, weights = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for q, senders in enumerate(due):
        for sender in senders:
            segment = q * wiring.n + sender
            m = np.arange(wiring.start[segment], wiring.start[segment + 1])
            m = m[plastic[m]]
            # One synapse after the other where a pair has several of them: each is its own row.
            y = _faded(table.spiked[wiring.post[m]], step, table.fade_minus)
            if modulated:
                _look(values, m, gain, w_max)
            weights.append(values[m, 0] * table.scale[sender])
            acting.append(m)
            if modulated:
                values[m, 1] -= a_minus / unit * y
            else:
                values[m, 0] = np.maximum(values[m, 0] - a_minus * y, 0.0)
            _step_up(arrived, np.array([segment]), step, table.fade_plus, numbers)
    if step % table.rows[0] == 0:
        row, m = step // table.rows[0] - table.rows[1], table.watch
        w = values[m, 0] + values[m, 1] * (gain - values[m, 2])
        table.kept[row, :, 0] = np.where(plastic[m], np.minimum(np.maximum(w, 0.0), w_max), w)
        table.kept[row, :, 1] = values[m, 1] * unit
        table.kept_dopamine[row] = now[DOPAMINE] + numbers[TONIC]
    return np.concatenate(acting), np.concatenate(weights)


def _begin(table: Plastic, step: int, plastic: np.ndarray) -> None:
    numbers, values, now = table.numbers, table.values, table.now[0]
    epoch = len(table.down) - 1
    now[GAIN] += table.down[(step - 1) % epoch] * (now[DOPAMINE] * numbers[PHASIC_GAIN] + numbers[TONIC_GAIN])
    now[DOPAMINE] *= numbers[FADE]
    if step % epoch == 0:
        m = np.flatnonzero(plastic)
        _look(values, m, now[GAIN], numbers[2])
        e = values[m, 1] * table.down[epoch]
        values[m, 1] = np.where(np.abs(e) > TINY, e, 0.0)
        values[m, 2] = 0.0
        now[GAIN] = 0.0
    k = int(now[NEXT])
    while k < len(table.rewards) and table.reward_steps[k] <= step:
        now[DOPAMINE] += table.rewards[k]
        k += 1
    now[NEXT] = k


def _look(values: np.ndarray, m: np.ndarray, gain: float, w_max: float) -> None:
    """Bring weights up to date."""
    values[m, 0] = np.minimum(np.maximum(values[m, 0] + values[m, 1] * (gain - values[m, 2]), 0.0), w_max)
    values[m, 2] = gain


def _faded(trace: np.ndarray, step: int, fade: np.ndarray) -> np.ndarray:
    """Return traces now."""
    age = step - trace[:, 1].astype(np.int64)
    return np.where(age < len(fade), trace[:, 0] * fade[np.minimum(age, len(fade) - 1)], 0.0)


def _step_up(trace: np.ndarray, who: np.ndarray, step: int, fade: np.ndarray, numbers: np.ndarray) -> None:
    trace[who, 0] = 1.0 if numbers[NEAREST] else _faded(trace[who], step, fade) + 1.0
    trace[who, 1] = step
