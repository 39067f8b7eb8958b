"""The CPU kernels of synapses with a few neighbouring taps each: forward, and the gradient of the taps.

The layout of rows is that of `numba_kernels`, with a full cache line of lanes; the inner loops are those of `vectors`.
"""

# N groups of V lanes, O outputs, I inputs, W taps, T steps, L = T + padding

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from snn.delays.vectors import LANE_BYTES, add_window, sum_window
from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["accumulate_windows", "correlate_windows"]

# Outputs that share an input's row, and steps of a row that are worked on while they are in the first-level cache.
_OUTPUTS = 4
_STEPS = 100


@cache
def _accumulate_kernel(dtype: type, n_taps: int) -> Any:
    bits = np.dtype(dtype).itemsize * 8
    size = LANE_BYTES  # bytes of a step
    number = bits // 8

    def kernel(context):
        c = carray(context, 13)
        n_rows, n_inputs, n_steps, n_groups, inside = c[2], c[3], c[4], c[5], c[6]
        start, stop = my_range(c[0], c[1], 1)
        source, taps, first_at, out_at = c[7], c[8], c[9], c[10]
        firsts = carray(address(first_at), (n_rows, n_inputs), np.int32)
        out = carray(address(out_at), (n_groups, n_rows, n_steps * (size // number)), dtype)
        n_blocks = (n_rows + _OUTPUTS - 1) // _OUTPUTS
        for job in range(start, stop):
            g, first = job // n_blocks, job % n_blocks * _OUTPUTS
            last = min(first + _OUTPUTS, n_rows)
            out[g, first:last] = 0
            for s in range(0, n_steps, _STEPS):
                n = min(_STEPS, n_steps - s)
                for i in range(n_inputs):
                    for o in range(first, last):
                        add_window(
                            out_at + ((g * n_rows + o) * n_steps + s) * size,
                            source + (g * inside + firsts[o, i] + s) * size,
                            taps + (o * n_inputs + i) * n_taps * number,
                            n,
                            n_taps,
                            bits,
                        )

    return compile_kernel(kernel, fastmath={"contract"})


def accumulate_windows(source: np.ndarray, taps: np.ndarray, firsts: np.ndarray, out: np.ndarray) -> None:
    """Add windows of rows: ``out[g, o, t] = sum over i, w of taps[o, i, w] * source[g, firsts[o, i] + t - w]``.

    Parameters
    ----------
    source : ndarray, shape (N, I * L, V)
    taps : ndarray, shape (O, I, W)
    firsts : ndarray of int32, shape (O, I)
        Where in a group tap 0 reads at step 0; ``W - 1 <= firsts``, and ``firsts + T <= I * L``.
    out : ndarray, shape (N, O, T, V)
    """
    n_groups, n_rows, n_steps, _ = out.shape
    n_inputs, n_taps = taps.shape[1:]
    sizes = (n_rows, n_inputs, n_steps, n_groups, source.shape[1])
    jobs = n_groups * -(-n_rows // _OUTPUTS)
    context = (*sizes, source, taps, firsts, out, 0, 0)
    run(_accumulate_kernel(out.dtype.type, n_taps), jobs, 1, out.size * n_inputs * n_taps // 8, context)


@cache
def _correlate_kernel(dtype: type, n_taps: int) -> Any:
    bits = np.dtype(dtype).itemsize * 8
    size = LANE_BYTES
    number = bits // 8

    def kernel(context):
        c = carray(context, 13)
        n_rows, n_inputs, n_steps, n_groups, inside = c[2], c[3], c[4], c[5], c[6]
        start, stop = my_range(c[0], c[1], 1)
        source, grads, first_at, out_at = c[7], c[8], c[9], c[10]
        firsts = carray(address(first_at), (n_rows, n_inputs), np.int32)
        out = carray(address(out_at), (n_rows, n_inputs, n_taps), dtype)
        for job in range(start, stop):
            first = job * _OUTPUTS
            last = min(first + _OUTPUTS, n_rows)
            out[first:last] = 0
            for g in range(n_groups):
                for s in range(0, n_steps, _STEPS):
                    n = min(_STEPS, n_steps - s)
                    for i in range(n_inputs):
                        for o in range(first, last):
                            sum_window(
                                out_at + (o * n_inputs + i) * n_taps * number,
                                source + (g * inside + firsts[o, i] + s) * size,
                                grads + ((g * n_rows + o) * n_steps + s) * size,
                                n,
                                n_taps,
                                bits,
                            )

    return compile_kernel(kernel, fastmath={"contract"})


def correlate_windows(source: np.ndarray, grads: np.ndarray, firsts: np.ndarray, out: np.ndarray) -> None:
    """Sum products: ``out[o, i, w] = sum over g, t, v of grads[g, o, t, v] * source[g, firsts[o, i] + t - w, v]``.

    The shapes are those of `accumulate_windows`, with `grads` in place of its `out`, and `out` in place of its taps.
    """
    n_groups, n_rows, n_steps, _ = grads.shape
    n_inputs, n_taps = out.shape[1:]
    sizes = (n_rows, n_inputs, n_steps, n_groups, source.shape[1])
    jobs = -(-n_rows // _OUTPUTS)
    context = (*sizes, source, grads, firsts, out, 0, 0)
    run(_correlate_kernel(out.dtype.type, n_taps), jobs, 1, grads.size * n_inputs * n_taps // 8, context)
