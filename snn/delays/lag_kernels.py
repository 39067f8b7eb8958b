"""The CPU kernels of wide Gaussian taps: all lags of all synapses, lag by lag, with the synapses side by side.

Several synapses walk through the lags together (`walk_vectors`), and look at the exponential function only now and
then, before rounding adds up. Everything is summed in float64.
"""

# S synapses, V lanes, D lags, L of them kept

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import carray

from snn.delays.walk_vectors import FIELDS, LANES, SUM, WEIGH, WRITE, walk
from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["LEAST_SIGMA", "backward", "forward"]

_EPS = 1e-7
_DISTANCE, _BUMP, _RATIO, _SHRINK, _SCALE, _TOTAL, _MOMENTS, _SQUARES = range(len(FIELDS))
# The walk starts anew every so many lags, and before it has gone 16 sigma: a bump that is zero in float64 where the
# walk starts, more than 37 sigma away, is still zero to rounding where it ends.
_MOST_LAGS, _MOST_SIGMAS = 64, 16
_ZERO_BELOW = -700.0
LEAST_SIGMA = 1.0


@numba.njit(nogil=True, inline="always")
def _begin(state, lag, delay, narrow):
    """Put the walkers at this lag."""
    for j in range(LANES):
        state[_DISTANCE, j] = lag - delay[j]
        z = state[_DISTANCE, j] * narrow[j]
        if -0.5 * z * z < _ZERO_BELOW:
            state[_BUMP, j], state[_RATIO, j] = 0.0, 0.0
        else:
            state[_BUMP, j], state[_RATIO, j] = math.exp(-0.5 * z * z), math.exp(-narrow[j] * (z + 0.5 * narrow[j]))


@numba.njit(nogil=True, inline="always")
def _read(state, s, n, delays, sigmas, sigma_step, delay, narrow):
    """Read the parameters of a group; behind the last synapse, those of the last. Set the sums to zero."""
    for j in range(LANES):
        at = min(s + j, n - 1)
        delay[j], narrow[j] = delays[at], 1.0 / sigmas[at * sigma_step]
        state[_SHRINK, j] = math.exp(-narrow[j] * narrow[j])
    state[_TOTAL:] = 0.0


@cache
def _forward_kernel(dtype: type) -> Any:
    bits = np.dtype(dtype).itemsize * 8
    size = bits // 8

    def kernel(context):
        c = carray(context, 12)
        n, n_kept, n_lags, stride, sigma_step = c[2], c[3], c[4], c[5], c[6]
        low, high = my_range(c[0], c[1], LANES)
        weights = carray(address(c[7]), (n,), dtype)
        delays = carray(address(c[8]), (n,), dtype)
        sigmas = carray(address(c[9]), (1 + (n - 1) * sigma_step,), dtype)
        out = carray(address(c[10]), (n_kept, n), dtype)
        sums = carray(address(c[11]), (3, n), np.float64)
        state, delay, narrow = np.empty((len(FIELDS), LANES)), np.empty(LANES), np.empty(LANES)
        rows = np.empty((stride, LANES), dtype)
        for s in range(low, high, LANES):
            here = min(LANES, n - s)
            _read(state, s, n, delays, sigmas, sigma_step, delay, narrow)
            for first in range(0, n_lags, stride):
                _begin(state, first, delay, narrow)
                walk(state.ctypes.data, 0, 0, min(stride, n_lags - first), SUM, bits)
            for j in range(here):
                for k in range(3):
                    sums[k, s + j] = state[_TOTAL + k, j]
                state[_SCALE, j] = weights[s + j] / (state[_TOTAL, j] + _EPS)
            for first in range(0, n_kept, stride):
                length = min(stride, n_kept - first)
                _begin(state, first, delay, narrow)
                if here == LANES:
                    walk(state.ctypes.data, c[10] + (first * n + s) * size, n * size, length, WRITE, bits)
                    continue
                # Fewer synapses than lanes are left: not to write over the next row.
                walk(state.ctypes.data, rows.ctypes.data, LANES * size, length, WRITE, bits)
                out[first : first + length, s:] = rows[:length, :here]

    return compile_kernel(kernel, fastmath={"contract"})


def _stride(sigma: np.ndarray) -> int:
    return min(_MOST_LAGS, int(_MOST_SIGMAS * sigma.min()))


def forward(
    weight: np.ndarray, delay: np.ndarray, sigma: np.ndarray, out: np.ndarray, sums: np.ndarray, n_lags: int
) -> None:
    """Write ``weight * k`` of each synapse.

    Parameters
    ----------
    weight, delay : ndarray, shape (S,)
    sigma : ndarray, shape (S,) or (1,)
        At least `LEAST_SIGMA`.
    out : ndarray, shape (L, S)
        The first lags.
    sums : ndarray of float64, shape (3, S)
        For `backward`: sums over all lags of the bump, and times its distance from the delay and the square of that.
    n_lags : int
        D: all lags count in the sum that a bump is divided by.
    """
    n_kept, n = out.shape
    context = (n, n_kept, n_lags, _stride(sigma), int(len(sigma) > 1), weight, delay, sigma, out, sums)
    run(_forward_kernel(out.dtype.type), n, LANES, n * n_lags, context)


@cache
def _backward_kernel(dtype: type) -> Any:
    bits = np.dtype(dtype).itemsize * 8
    size = bits // 8

    def kernel(context):
        c = carray(context, 14)
        n, n_kept, stride, sigma_step = c[2], c[3], c[4], c[5]
        low, high = my_range(c[0], c[1], LANES)
        weights = carray(address(c[6]), (n,), dtype)
        delays = carray(address(c[7]), (n,), dtype)
        sigmas = carray(address(c[8]), (1 + (n - 1) * sigma_step,), dtype)
        sums = carray(address(c[9]), (3, n), np.float64)
        grads = carray(address(c[10]), (n_kept, n), dtype)
        to_weight = carray(address(c[11]), (n,), dtype)
        to_delay = carray(address(c[12]), (n,), dtype)
        to_sigma = carray(address(c[13]), (n,), dtype)
        state, delay, narrow = np.empty((len(FIELDS), LANES)), np.empty(LANES), np.empty(LANES)
        rows = np.zeros((stride, LANES), dtype)
        for s in range(low, high, LANES):
            here = min(LANES, n - s)
            _read(state, s, n, delays, sigmas, sigma_step, delay, narrow)
            for first in range(0, n_kept, stride):
                length = min(stride, n_kept - first)
                _begin(state, first, delay, narrow)
                if here == LANES:
                    walk(state.ctypes.data, c[10] + (first * n + s) * size, n * size, length, WEIGH, bits)
                    continue
                rows[:length, :here] = grads[first : first + length, s:]
                walk(state.ctypes.data, rows.ctypes.data, LANES * size, length, WEIGH, bits)
            for j in range(here):
                # With k = e / (sum e + eps): dk = (de - k sum de) / (sum e + eps).
                whole = sums[0, s + j] + _EPS
                mean, scale = state[_TOTAL, j] / whole, weights[s + j] / whole
                to_weight[s + j] = mean
                to_delay[s + j] = (state[_MOMENTS, j] - mean * sums[1, s + j]) * scale * narrow[j] ** 2
                to_sigma[s + j] = (state[_SQUARES, j] - mean * sums[2, s + j]) * scale * narrow[j] ** 3

    return compile_kernel(kernel, fastmath={"contract"})


def backward(
    weight: np.ndarray,
    delay: np.ndarray,
    sigma: np.ndarray,
    sums: np.ndarray,
    grads: np.ndarray,
    results: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Write the gradients of weight, delay and sigma, each (S,), from those of the lags that were kept, (L, S)."""
    n_kept, n = grads.shape
    context = (n, n_kept, _stride(sigma), int(len(sigma) > 1), weight, delay, sigma, sums, grads, *results)
    run(_backward_kernel(grads.dtype.type), n, LANES, n * n_kept, context)
