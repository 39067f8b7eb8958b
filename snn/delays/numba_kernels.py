"""The CPU kernels of delay layers: each synapse, or each tap of one, is a shifted row that is added to another.

A row holds all time steps of one channel for a few samples (lanes) side by side, steps outside and lanes inside, with
zeros before or behind the steps, as many as the longest delay. A shift by a delay is then another address, on the same
alignment. Rows are added in segments that stay in the first-level cache, four at a time.
"""

# N groups of V lanes (B = N V samples, padded), O outputs, I inputs, E entries (taps of synapses), T steps,
# L = T + padding

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["accumulate", "correlate", "pack", "unpack"]

# Outputs that share the inputs in cache, and numbers of a row that are worked on at a time.
_OUTPUTS = 4
_SEGMENT = 1600
_CHANNELS = 16


@cache
def _pack_kernel(dtype: type, back: bool) -> Any:
    """Compile the copy from (T, B, C) to rows, or back."""

    def kernel(context):
        c = carray(context, 11)
        n_steps, n_batch, n_channels, n_lanes, before, length = c[2], c[3], c[4], c[5], c[6], c[7]
        n_blocks = (n_channels + _CHANNELS - 1) // _CHANNELS
        n_groups = (n_batch + n_lanes - 1) // n_lanes
        start, stop = my_range(c[0], c[1], 1)
        steps = carray(address(c[8]), (n_steps, n_batch, n_channels), dtype)
        rows = carray(address(c[9]), (n_groups, n_channels, length, n_lanes), dtype)
        for job in range(start, stop):
            g, first = job // n_blocks, job % n_blocks * _CHANNELS
            last = min(first + _CHANNELS, n_channels)
            n_real = min(n_lanes, n_batch - g * n_lanes)
            if not back:
                rows[g, first:last] = 0
            for t in range(n_steps):
                for v in range(n_real):
                    if back:
                        for i in range(first, last):
                            steps[t, g * n_lanes + v, i] = rows[g, i, before + t, v]
                    else:
                        for i in range(first, last):
                            rows[g, i, before + t, v] = steps[t, g * n_lanes + v, i]

    return compile_kernel(kernel)


def pack(steps: np.ndarray, rows: np.ndarray, before: int) -> None:
    """Copy (T, B, C) into rows (N, C, L, V), with `before` zero steps in front and zeros wherever nothing is."""
    _copy(steps, rows, before, False)


def unpack(rows: np.ndarray, steps: np.ndarray) -> None:
    """Copy rows (N, C, T, V) into (T, B, C)."""
    _copy(steps, rows, 0, True)


def _copy(steps: np.ndarray, rows: np.ndarray, before: int, back: bool) -> None:
    n_groups, n_channels, length, n_lanes = rows.shape
    jobs = n_groups * -(-n_channels // _CHANNELS)
    sizes = (steps.shape[0], steps.shape[1], n_channels, n_lanes, before, length)
    run(_pack_kernel(rows.dtype.type, back), jobs, 1, rows.size, (*sizes, steps, rows, 0))


@cache
def _accumulate_kernel(dtype: type) -> Any:
    def kernel(context):
        c = carray(context, 12)
        n_rows, n_entries, size, n_inside, n_groups = c[2], c[3], c[4], c[5], c[6]
        start, stop = my_range(c[0], c[1], 1)
        source = carray(address(c[7]), (n_groups, n_inside), dtype)
        coefficients = carray(address(c[8]), (n_rows, n_entries), dtype)
        offsets = carray(address(c[9]), (n_rows, n_entries), np.int32)
        out = carray(address(c[10]), (n_groups, n_rows, size), dtype)
        n_blocks = (n_rows + _OUTPUTS - 1) // _OUTPUTS
        whole = n_entries // 4 * 4
        for job in range(start, stop):
            g, first = job // n_blocks, job % n_blocks * _OUTPUTS
            last = min(first + _OUTPUTS, n_rows)
            x = source[g]
            for s in range(0, size, _SEGMENT):
                n = min(_SEGMENT, size - s)
                for o in range(first, last):
                    row = out[g, o, s : s + n]
                    for j in range(n):
                        row[j] = 0
                for e in range(0, whole, 4):
                    for o in range(first, last):
                        row = out[g, o, s : s + n]
                        k, at = coefficients[o], offsets[o]
                        k0, k1, k2, k3 = k[e], k[e + 1], k[e + 2], k[e + 3]
                        x0, x1, x2, x3 = x[s + at[e] :], x[s + at[e + 1] :], x[s + at[e + 2] :], x[s + at[e + 3] :]
                        for j in range(n):
                            row[j] += (k0 * x0[j] + k1 * x1[j]) + (k2 * x2[j] + k3 * x3[j])
                for o in range(first, last):
                    row = out[g, o, s : s + n]
                    for e in range(whole, n_entries):
                        k0, x0 = coefficients[o, e], x[s + offsets[o, e] :]
                        for j in range(n):
                            row[j] += k0 * x0[j]

    return compile_kernel(kernel, fastmath={"contract"})


def accumulate(source: np.ndarray, coefficients: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Add shifted rows: ``out[g, o] = sum over e of coefficients[o, e] * source[g, offsets[o, e]:][:T * V]``.

    Parameters
    ----------
    source : ndarray, shape (N, I * L * V)
    coefficients : ndarray, shape (O, E)
    offsets : ndarray of int32, shape (O, E)
        Where in a group each shifted row begins; ``offset + T * V <= I * L * V``.
    out : ndarray, shape (N, O, T * V)
    """
    n_groups, n_rows, size = out.shape
    n_entries = offsets.shape[1]
    sizes = (n_rows, n_entries, size, source.shape[1], n_groups)
    jobs = n_groups * -(-n_rows // _OUTPUTS)
    context = (*sizes, source, coefficients, offsets, out, 0)
    run(_accumulate_kernel(out.dtype.type), jobs, 1, out.size * n_entries // 8, context)


@cache
def _correlate_kernel(dtype: type) -> Any:
    def kernel(context):
        c = carray(context, 12)
        n_rows, n_entries, size, n_inside, n_groups = c[2], c[3], c[4], c[5], c[6]
        start, stop = my_range(c[0], c[1], 1)
        source = carray(address(c[7]), (n_groups, n_inside), dtype)
        grads = carray(address(c[8]), (n_groups, n_rows, size), dtype)
        offsets = carray(address(c[9]), (n_rows, n_entries), np.int32)
        out = carray(address(c[10]), (n_rows, n_entries), dtype)
        zero = out.dtype.type(0)
        whole = n_entries // 4 * 4
        for job in range(start, stop):
            first = job * _OUTPUTS
            last = min(first + _OUTPUTS, n_rows)
            for o in range(first, last):
                for e in range(n_entries):
                    out[o, e] = 0
            for g in range(n_groups):
                x = source[g]
                for s in range(0, size, _SEGMENT):
                    n = min(_SEGMENT, size - s)
                    for e in range(0, whole, 4):
                        for o in range(first, last):
                            row, at = grads[g, o, s : s + n], offsets[o]
                            x0, x1 = x[s + at[e] :], x[s + at[e + 1] :]
                            x2, x3 = x[s + at[e + 2] :], x[s + at[e + 3] :]
                            s0, s1, s2, s3 = zero, zero, zero, zero
                            for j in range(n):
                                s0 += row[j] * x0[j]
                                s1 += row[j] * x1[j]
                                s2 += row[j] * x2[j]
                                s3 += row[j] * x3[j]
                            out[o, e] += s0
                            out[o, e + 1] += s1
                            out[o, e + 2] += s2
                            out[o, e + 3] += s3
                    for o in range(first, last):
                        row = grads[g, o, s : s + n]
                        for e in range(whole, n_entries):
                            x0 = x[s + offsets[o, e] :]
                            s0 = zero
                            for j in range(n):
                                s0 += row[j] * x0[j]
                            out[o, e] += s0

    # The sums over time may be taken in any order, or they would not be vectorised.
    return compile_kernel(kernel, fastmath={"contract", "reassoc", "nsz"})


def correlate(source: np.ndarray, grads: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Sum products: ``out[o, e] = sum over g, j of grads[g, o, j] * source[g, offsets[o, e] + j]``.

    The shapes are those of `accumulate`, with `grads` in place of its `out`, and `out` in place of its coefficients.
    """
    n_groups, n_rows, size = grads.shape
    n_entries = offsets.shape[1]
    sizes = (n_rows, n_entries, size, source.shape[1], n_groups)
    context = (*sizes, source, grads, offsets, out, 0)
    run(_correlate_kernel(out.dtype.type), -(-n_rows // _OUTPUTS), 1, grads.size * n_entries // 8, context)
