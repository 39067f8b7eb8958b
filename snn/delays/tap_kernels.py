"""The CPU kernels of taps: one pass over the synapses, forward and for the gradients.

Neighbouring values of a Gaussian differ by a factor that itself changes by a constant factor: four exponentials give
all taps of a synapse, from the nearest lag outwards. Everything is summed in float64.
"""

# S synapses, W taps

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import carray

from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["backward", "forward"]

_EPS = 1e-7
# Synapses that go together.
_BLOCK = 64
# Smaller bumps are zero: next come denormal numbers, which are slow.
_LEAST = 1e-30


@numba.njit(nogil=True, inline="always")
def _bumps(row, first, delay, sigma, gauss):
    """Fill `row` with the bump at lags first, first + 1, ...; return its sum."""
    n = row.shape[0]
    if not gauss:
        total = 0.0
        for k in range(n):
            row[k] = max(sigma - abs(first + k - delay), 0.0)
            total += row[k]
        return total
    centre = min(max(math.floor(delay - first + 0.5), 0), n - 1)
    narrow = 1.0 / sigma
    z = (first + centre - delay) * narrow
    shrink = math.exp(-narrow * narrow)
    middle = math.exp(-0.5 * z * z)
    row[centre] = middle if middle > _LEAST else 0.0
    total = row[centre]
    value, ratio = middle, math.exp(-narrow * (z + 0.5 * narrow))
    for k in range(centre + 1, n):
        value *= ratio
        ratio *= shrink
        if value < _LEAST:
            value = 0.0
        row[k] = value
        total += value
    value, ratio = middle, math.exp(narrow * (z - 0.5 * narrow))
    for k in range(centre - 1, -1, -1):
        value *= ratio
        ratio *= shrink
        if value < _LEAST:
            value = 0.0
        row[k] = value
        total += value
    return total


@cache
def _forward_kernel(dtype: type, gauss: bool) -> Any:
    def kernel(context):
        c = carray(context, 12)
        n, n_kept, n_taps, sigma_step, start_step = c[2], c[3], c[4], c[5], c[6]
        low, high = my_range(c[0], c[1], _BLOCK)
        weight = carray(address(c[7]), (n,), dtype)
        delay = carray(address(c[8]), (n,), dtype)
        sigma = carray(address(c[9]), (1 + (n - 1) * sigma_step,), dtype)
        starts = carray(address(c[10]), (1 + (n - 1) * start_step,), np.int32)
        out = carray(address(c[11]), (n, n_kept), dtype)
        row = np.empty(n_taps)
        for s in range(low, high):
            total = _bumps(row, starts[s * start_step], float(delay[s]), float(sigma[s * sigma_step]), gauss)
            scale = weight[s] / (total + _EPS)
            for k in range(n_kept):
                out[s, k] = scale * row[k]

    return compile_kernel(kernel)


def forward(
    weight: np.ndarray,
    delay: np.ndarray,
    sigma: np.ndarray,
    starts: np.ndarray,
    out: np.ndarray,
    n_taps: int,
    gauss: bool,
) -> None:
    """Write ``weight * k`` of each synapse.

    Parameters
    ----------
    weight, delay : ndarray, shape (S,)
    sigma : ndarray, shape (S,) or (1,)
    starts : ndarray of int32, shape (S,) or (1,)
        First lag of each window.
    out : ndarray, shape (S, at most W)
        The first taps of each window.
    n_taps : int
        W: all taps count in the sum that a bump is divided by.
    gauss : bool
        Gaussian, or else triangle.
    """
    steps = (int(len(sigma) > 1), int(len(starts) > 1))
    context = (*out.shape, n_taps, *steps, weight, delay, sigma, starts, out)
    run(_forward_kernel(out.dtype.type, gauss), len(out), _BLOCK, len(out) * n_taps, context)


@cache
def _backward_kernel(dtype: type, gauss: bool) -> Any:
    def kernel(context):
        c = carray(context, 15)
        n, n_kept, n_taps, sigma_step, start_step = c[2], c[3], c[4], c[5], c[6]
        low, high = my_range(c[0], c[1], _BLOCK)
        weight = carray(address(c[7]), (n,), dtype)
        delay = carray(address(c[8]), (n,), dtype)
        sigma = carray(address(c[9]), (1 + (n - 1) * sigma_step,), dtype)
        starts = carray(address(c[10]), (1 + (n - 1) * start_step,), np.int32)
        grads = carray(address(c[11]), (n, n_kept), dtype)
        to_weight = carray(address(c[12]), (n,), dtype)
        to_delay = carray(address(c[13]), (n,), dtype)
        to_sigma = carray(address(c[14]), (n,), dtype)
        row = np.empty(n_taps)
        for s in range(low, high):
            first, d, width = starts[s * start_step], float(delay[s]), float(sigma[s * sigma_step])
            total = _bumps(row, first, d, width, gauss) + _EPS
            narrow = 1.0 / width
            # Sums of the bump and of its derivatives, alone and with the gradient: g is the gradient's.
            g_bump, g_delay, g_sigma, sum_delay, sum_sigma = 0.0, 0.0, 0.0, 0.0, 0.0
            for k in range(n_taps):
                e, g, distance = row[k], float(grads[s, k]) if k < n_kept else 0.0, first + k - d
                if gauss:
                    by_delay = e * distance * narrow * narrow
                    by_sigma = by_delay * distance * narrow
                else:
                    by_sigma = 1.0 if e > 0.0 else 0.0
                    by_delay = by_sigma * ((distance > 0.0) - (distance < 0.0))
                g_bump += g * e
                g_delay += g * by_delay
                g_sigma += g * by_sigma
                sum_delay += by_delay
                sum_sigma += by_sigma
            # With k = e / (sum e + eps): dk = (de - k sum de) / (sum e + eps).
            mean = g_bump / total
            scale = weight[s] / total
            to_weight[s] = mean
            to_delay[s] = (g_delay - mean * sum_delay) * scale
            to_sigma[s] = (g_sigma - mean * sum_sigma) * scale

    return compile_kernel(kernel)


def backward(
    weight: np.ndarray,
    delay: np.ndarray,
    sigma: np.ndarray,
    starts: np.ndarray,
    grads: np.ndarray,
    results: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_taps: int,
    gauss: bool,
) -> None:
    """Write the gradients of weight, delay and sigma, each (S,), from those of the taps that were kept."""
    steps = (int(len(sigma) > 1), int(len(starts) > 1))
    context = (*grads.shape, n_taps, *steps, weight, delay, sigma, starts, grads, *results)
    run(_backward_kernel(grads.dtype.type, gauss), len(grads), _BLOCK, len(grads) * n_taps, context)
