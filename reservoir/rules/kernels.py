"""The rules, compiled: functions of the table of a readout. The classes beside this file say in numpy what they do."""

# N neurons, K outputs

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from numba import carray

from reservoir.noise import STREAMS
from reservoir.noise_kernel import fill_normals
from reservoir.readout_kernel import SEED, SIZE, STEP, compile_function, dot, fingerprint, lesson_of, memory_of

__all__ = ["compiled_rule"]

_INNER = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_STREAM = STREAMS["rule"]


@numba.njit(**_INNER)
def _add(weights, factor, trace):
    for i in range(weights.shape[0]):
        weights[i] += factor * trace[i]


# The sums over a row may be taken in parts, so that they become vector instructions.
@numba.njit(fastmath={"reassoc", "nsz"}, **_INNER)
def _covariance_times(p, c, q, inverse, r, y):
    """Subtract c q q' from the packed upper triangle p, multiply by `inverse`, and write p r to y: in one pass."""
    n = r.shape[0]
    for i in range(n):
        y[i] = 0.0
    start = 0
    for i in range(n):
        row, later_q, later_r, later_y = p[start + 1 : start + n - i], q[i + 1 :], r[i + 1 :], y[i + 1 :]
        cq, ri = c * q[i], r[i]
        diagonal = (p[start] - cq * q[i]) * inverse
        p[start] = diagonal
        total = 0.0
        for j in range(row.shape[0]):
            value = (row[j] - cq * later_q[j]) * inverse
            row[j] = value
            total += value * later_r[j]
            later_y[j] += value * ri
        y[i] += diagonal * ri + total
        start += n - i


def _three_factor(sources: int) -> Any:
    def learn(context):
        if sources == 0:
            return
        table = carray(context, SIZE)
        trace, z, target, active, weights, gated = lesson_of(table)
        numbers, memory = memory_of(table)
        eta, is_open, floor, decay = numbers[0], numbers[1], numbers[2], numbers[3]
        if decay >= 0.0:
            for i in range(trace.shape[0]):
                memory[i] = memory[i] * decay + trace[i]
        for k in range(z.shape[0]):
            attention = active[k] if gated else 1.0
            if is_open == 0.0:
                attention *= min(1.0, target[k] + max(0.0, z[k]) + floor)
            if attention != 0.0:
                _add(weights[k], eta * attention * (target[k] - z[k]), memory if decay >= 0.0 else trace)

    return learn


def _force(sources: int) -> Any:
    def learn(context):
        if sources == 0:
            return
        table = carray(context, SIZE)
        trace, z, target, active, weights, gated = lesson_of(table)
        numbers, memory = memory_of(table)
        every, forgetting = np.int64(numbers[0]), numbers[1]
        if table[STEP] % every != 0:
            return
        learns = not gated
        for k in range(z.shape[0]):
            learns = learns or active[k] != 0.0
        if not learns:
            return
        n = trace.shape[0]
        c, last, fresh, p = memory[0], memory[1 : n + 1], memory[n + 1 : 2 * n + 1], memory[2 * n + 1 :]
        # What the last update subtracts from P waits for this one: P goes through the cache once, not three times.
        _covariance_times(p, c, last, 1.0 / forgetting if c != 0.0 else 1.0, trace, fresh)
        gain = 1.0 / (forgetting + dot(trace, fresh))
        for k in range(z.shape[0]):
            error = (target[k] - z[k]) * (active[k] if gated else 1.0)
            if error != 0.0:
                _add(weights[k], gain * error, fresh)
        memory[0] = gain
        for i in range(n):
            last[i] = fresh[i]

    return learn


def _reward_hebbian(sources: int) -> Any:
    def learn(context):
        if sources == 0:
            return
        table = carray(context, SIZE)
        trace, z, target, active, weights, gated = lesson_of(table)
        numbers, memory = memory_of(table)
        eta, horizon, keep, exploration = numbers[0], numbers[1], numbers[2], numbers[3]
        n_outputs, step = z.shape[0], table[STEP]
        means, room = memory[1 : n_outputs + 1], memory[n_outputs + 1 :]
        deviates = room[: n_outputs + 3]
        scratch = room[n_outputs + 3 :].reshape((5, n_outputs + 6))
        fill_normals(table[SEED], step, _STREAM, 0, n_outputs, scratch, deviates)
        performance = 0.0
        for k in range(n_outputs):
            attention = active[k] if gated else 1.0
            z[k] += exploration * attention * deviates[k]
            performance -= attention * (z[k] - target[k]) ** 2
        if performance > memory[0]:
            rate = eta / (1.0 + step / horizon)
            for k in range(n_outputs):
                attention = active[k] if gated else 1.0
                if attention != 0.0:
                    _add(weights[k], rate * attention * (z[k] - means[k]), trace)
        memory[0] = keep * memory[0] + (1.0 - keep) * performance
        for k in range(n_outputs):
            means[k] = keep * means[k] + (1.0 - keep) * z[k]

    return learn


def _eprop(sources: int) -> Any:
    def learn(context):
        if sources == 0:
            return
        table = carray(context, SIZE)
        trace, z, target, active, weights, gated = lesson_of(table)
        numbers, memory = memory_of(table)
        eta, period = numbers[0], np.int64(numbers[1])
        n = trace.shape[0]
        for k in range(z.shape[0]):
            error = (target[k] - z[k]) * (active[k] if gated else 1.0)
            if error != 0.0:
                _add(memory[k * n : (k + 1) * n], error, trace)
        if (table[STEP] + 1) % period == 0:
            for k in range(z.shape[0]):
                _add(weights[k], eta, memory[k * n : (k + 1) * n])
            for i in range(memory.shape[0]):
                memory[i] = 0.0

    return learn


_MAKERS = {"three_factor": _three_factor, "force": _force, "reward_hebbian": _reward_hebbian, "eprop": _eprop}


@cache
def compiled_rule(name: str) -> Any:
    """Return a compiled rule, whose `address` the readout calls.

    Parameters
    ----------
    name : str
        A key of `reservoir.rules.RULES`.
    """
    return compile_function(_MAKERS[name](fingerprint()))
