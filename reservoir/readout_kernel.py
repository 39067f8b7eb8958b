"""What a readout does at the end of each step, compiled; it calls the rule, which is compiled by itself.

In this order, which is the specification::

    1. traces decay, and the neurons that spiked add to theirs
    2. z = W r, each output summed as eight interleaved parts, so that vector instructions do not change the number
    3. the rule sees trace, output and target; it changes the weights, and may change z
    4. z is kept, and fed back between its bounds; the next step adds the current
    5. the trace is added to the mean of the window that this step belongs to

The rule gets the table below, an array of int64 of `SIZE` numbers, as its only argument.
"""

# T time, N neurons, K outputs, W windows

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from reservoir.backends.kernel import _call

__all__ = ["SIZE", "compile_function", "compiled_readout", "dot", "fingerprint", "lesson_of", "memory_of"]

# Places in the table: numbers, then addresses of float64 arrays (0: there is none), then of others.
N, K, STEP, T, RISES, SINGLE, RULE, EVERY, SEED, N_WINDOWS, WINDOW, N_NUMBERS, N_MEMORY = range(13)
NUMBERS, TRACE, RISING, WEIGHTS, FEEDBACK, Z, TARGET, ACTIVE, OUTPUTS, AVERAGES = range(13, 23)
RULE_NUMBERS, RULE_MEMORY, WINDOWS, SIZE = range(23, 27)
# Places in NUMBERS: factors on the trace and on what feeds it, what a spike adds, time step, bounds of the feedback.
DECAY, SLOW, JUMP, DT, LOW, HIGH = range(6)

_INLINE = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@intrinsic
def _pointer(typingctx: Any, value: Any) -> Any:
    """Turn an integer into a pointer, for `carray`; here as in `snn.kernels.threads`, which loads torch."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@numba.njit(**_INLINE)
def dot(w, r):
    """Return the sum of products as eight sums that take turns."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0
    whole = r.shape[0] // 8 * 8
    for i in range(0, whole, 8):
        a0 += w[i] * r[i]
        a1 += w[i + 1] * r[i + 1]
        a2 += w[i + 2] * r[i + 2]
        a3 += w[i + 3] * r[i + 3]
        a4 += w[i + 4] * r[i + 4]
        a5 += w[i + 5] * r[i + 5]
        a6 += w[i + 6] * r[i + 6]
        a7 += w[i + 7] * r[i + 7]
    rest = 0.0
    for i in range(whole, r.shape[0]):
        rest += w[i] * r[i]
    return ((a0 + a4) + (a2 + a6)) + ((a1 + a5) + (a3 + a7)) + rest


@numba.njit(inline="always")
def lesson_of(table):
    """Return what every rule needs: trace (N,), output, target, gate (K,), weights (K, N), whether there is a gate."""
    n, k, t = table[N], table[K], table[T]
    trace = carray(_pointer(table[TRACE]), (n,), np.float64)
    z = carray(_pointer(table[Z]), (k,), np.float64)
    target = carray(_pointer(table[TARGET] + 8 * t * k), (k,), np.float64)
    gated = table[ACTIVE] != 0
    # Without a gate the target stands in: it is not read.
    active = carray(_pointer(table[ACTIVE] + 8 * t * k if gated else table[TARGET]), (k,), np.float64)
    weights = carray(_pointer(table[WEIGHTS]), (k, n), np.float64)
    return trace, z, target, active, weights, gated


@numba.njit(inline="always")
def memory_of(table):
    """Return the numbers of the rule, and what it keeps from step to step."""
    numbers = carray(_pointer(table[RULE_NUMBERS]), (table[N_NUMBERS],), np.float64)
    return numbers, carray(_pointer(table[RULE_MEMORY]), (table[N_MEMORY],), np.float64)


def _read_out(context):
    c = carray(context, 8)
    table = carray(_pointer(c[6]), (SIZE,), np.int64)
    n, k, step, t = table[N], table[K], c[0], c[1]
    table[STEP], table[T] = step, t
    spiked = carray(_pointer(c[3]), (c[2],), np.int32)
    numbers = carray(_pointer(table[NUMBERS]), (6,), np.float64)
    trace = carray(_pointer(table[TRACE]), (n,), np.float64)
    z = carray(_pointer(table[Z]), (k,), np.float64)
    weights = carray(_pointer(table[WEIGHTS]), (k, n), np.float64)

    decay, slow, jump, dt = numbers[DECAY], numbers[SLOW], numbers[JUMP], numbers[DT]
    if table[RISES] != 0:
        rising = carray(_pointer(table[RISING]), (n,), np.float64)
        for i in range(n):
            trace[i] = trace[i] * decay + rising[i] * dt
        for i in range(n):
            rising[i] = rising[i] * slow
        for j in range(c[2]):
            rising[spiked[j]] += jump
    else:
        for i in range(n):
            trace[i] = trace[i] * decay
        for j in range(c[2]):
            trace[spiked[j]] += jump

    for q in range(k):
        z[q] = dot(weights[q], trace)
    if table[RULE] != 0:
        _call(table[RULE], c[6])

    if table[OUTPUTS] != 0 and step % table[EVERY] == 0:
        # Steps that are kept are counted from the beginning of the simulation, rows from that of the run.
        row = step // table[EVERY] - (step - t + table[EVERY] - 1) // table[EVERY]
        kept = carray(_pointer(table[OUTPUTS] + 8 * row * k), (k,), np.float64)
        for q in range(k):
            kept[q] = z[q]
    if table[FEEDBACK] != 0:
        feedback = carray(_pointer(table[FEEDBACK]), (k, n), np.float64)
        low, high = numbers[LOW], numbers[HIGH]
        if table[SINGLE] != 0:
            fed32 = carray(_pointer(c[4]), (n,), np.float32)
            for q in range(k):
                bounded32 = min(max(z[q], low), high)
                for i in range(n):
                    before = np.float32(0.0) if q == 0 else fed32[i]
                    fed32[i] = np.float32(before + bounded32 * feedback[q, i])
        else:
            fed = carray(_pointer(c[4]), (n,), np.float64)
            for q in range(k):
                bounded = min(max(z[q], low), high)
                if q == 0:
                    for i in range(n):
                        fed[i] = bounded * feedback[q, i]
                else:
                    for i in range(n):
                        fed[i] += bounded * feedback[q, i]

    if table[N_WINDOWS] != 0:
        windows = carray(_pointer(table[WINDOWS]), (table[N_WINDOWS], 2), np.int64)
        w = table[WINDOW]
        while w < table[N_WINDOWS] and windows[w, 1] <= t:
            w += 1
        table[WINDOW] = w
        if w < table[N_WINDOWS] and windows[w, 0] <= t:
            average = carray(_pointer(table[AVERAGES] + 8 * w * n), (n,), np.float64)
            for i in range(n):
                average[i] += trace[i]
            if windows[w, 1] == t + 1:
                length = windows[w, 1] - windows[w, 0]
                for i in range(n):
                    average[i] = average[i] / length


def compile_function(function: Any) -> Any:
    """Compile a function of one array of int64, or load it from the cache on disk.

    Parameters
    ----------
    function : callable
        What numba can compile; its `address` is that of a C function.
    """
    options = {"error_model": "numpy"}
    signature = types.void(types.CPointer(types.int64))
    try:
        return cfunc(signature, cache=True, **options)(function)
    except RuntimeError:
        # Neither the installation nor the user's cache folder can be written to: compile anew in each process.
        return cfunc(signature, **options)(function)


@cache
def compiled_readout() -> Any:
    """Return the compiled function, whose `address` the loop calls."""
    return compile_function(_read_out)


@cache
def fingerprint() -> int:
    """Return a number of this file's text, never 0.

    numba's cache looks at the file of a function only. A rule that has this number in its closure is compiled anew when
    the table changes.
    """
    return zlib.crc32(Path(__file__).read_bytes()) + 1
