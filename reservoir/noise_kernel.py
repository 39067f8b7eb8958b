"""The numbers of `noise`, compiled. Imported by the compiled backend only, because it loads numba."""

# N neurons

from __future__ import annotations

import numba
import numpy as np

from reservoir.noise import ANGLE, COS_SERIES, LN2, LOG_SERIES, M0, M1, N_ROUNDS, SIN_SERIES, SQRT2, W0, W1

__all__ = ["fill_normals"]

# Called from compiled code only, so that the way in from Python need not be compiled.
_INNER = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1, _W0, _W1 = (np.uint64(number) for number in (M0, M1, W0, W1))
_EXPONENT = np.int64(52)
_MANTISSA = np.int64((1 << 52) - 1)
_BIAS = np.int64(1023 << 52)
_LOG_TOP = 66.0 * LN2
_EIGHTH = np.int64(1 << 29)
_QUARTER_BITS = np.int64(30)
_ONE, _TWO = np.int64(1), np.int64(2)
_L = LOG_SERIES
_S = SIN_SERIES
_C = COS_SERIES


@numba.njit(**_INNER)
def _random_words(seed, step, stream, block, radius0, angle0, radius1, angle1):
    """Write four words a block of neurons, where their radii and angles are kept."""
    low_step, high_step = np.uint64(step) & _LOW, np.uint64(step) >> _HALF
    for j in range(radius0.shape[0]):
        c0, c1, c2, c3 = np.uint64(block + j), low_step, high_step, np.uint64(stream)
        k0, k1 = np.uint64(seed) & _LOW, np.uint64(seed) >> _HALF
        for _ in range(N_ROUNDS):
            low, high = c0 * _M0, c2 * _M1
            c0, c1, c2, c3 = (high >> _HALF) ^ c1 ^ k0, high & _LOW, (low >> _HALF) ^ c3 ^ k1, low & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        radius0[j] = np.int64(c0)
        angle0[j] = np.int64(c1)
        radius1[j] = np.int64(c2)
        angle1[j] = np.int64(c3)


@numba.njit(**_INNER)
def _as_odd_numbers(bits, p):
    for i in range(bits.shape[0]):
        p[i] = np.float64(bits[i] + bits[i] + _ONE)


@numba.njit(**_INNER)
def _radii(whole, pieces, mantissas, radii):
    """Write sqrt(-2 log u); `whole` are the bits of u, `pieces` those of `mantissas`."""
    for i in range(whole.shape[0]):
        radii[i] = np.float64((whole[i] >> _EXPONENT) - np.int64(1023))
        pieces[i] = (whole[i] & _MANTISSA) | _BIAS
    for i in range(whole.shape[0]):
        high = mantissas[i] > SQRT2
        mantissa = mantissas[i] * 0.5 if high else mantissas[i]
        exponent = radii[i] + 1.0 if high else radii[i]
        z = (mantissa - 1.0) / (mantissa + 1.0)
        z2 = z * z
        series = (((_L[0] * z2 + _L[1]) * z2 + _L[2]) * z2 + _L[3]) * z2 + _L[4]
        radii[i] = np.sqrt(_LOG_TOP - 2.0 * (exponent * LN2 + 2.0 * z * series))


@numba.njit(**_INNER)
def _turn(angles, radii, first, second):
    """Write radius times cosine, and radius times sine."""
    for i in range(angles.shape[0]):
        quarter = (angles[i] + _EIGHTH) >> _QUARTER_BITS
        x = (np.float64(angles[i] - (quarter << _QUARTER_BITS)) + 0.5) * ANGLE
        x2 = x * x
        sine = x * ((((_S[0] * x2 + _S[1]) * x2 + _S[2]) * x2 + _S[3]) * x2 + _S[4])
        cosine = ((((_C[0] * x2 + _C[1]) * x2 + _C[2]) * x2 + _C[3]) * x2 + _C[4]) * x2 + _C[5]
        swap = (quarter & _ONE) == _ONE
        a = sine if swap else cosine
        b = cosine if swap else sine
        first[i] = radii[i] * (a * np.float64(_ONE - ((quarter + _ONE) & _TWO)))
        second[i] = radii[i] * (b * np.float64(_ONE - (quarter & _TWO)))


@numba.njit(**_INNER)
def _interleave(first0, second0, first1, second1, out):
    for j in range(out.shape[0] // 4):
        out[4 * j] = first0[j]
        out[4 * j + 1] = second0[j]
        out[4 * j + 2] = first1[j]
        out[4 * j + 3] = second1[j]


@numba.njit(**_INNER)
def fill_normals(seed, step, stream, first, last, scratch, out):
    """Write the standard normal deviates of neurons `first` to `last` of one step.

    Passes over scratch in cache, each of which is compiled to vector instructions. `first` is a multiple of 4; `out`
    has room for N + 3 numbers, `scratch` (float64) has shape (5, N + 6). Threads with ranges of their own share them.
    """
    block, n_blocks = first // 4, (last + 3) // 4 - first // 4
    # Two pairs a block: the first ones of all blocks, then the second ones. Each thread has its own part.
    start, middle, stop = 2 * block, 2 * block + n_blocks, 2 * block + 2 * n_blocks
    radius_bits, angle_bits = scratch[0].view(np.int64), scratch[1].view(np.int64)
    _random_words(
        seed, step, stream, block,
        radius_bits[start:middle], angle_bits[start:middle], radius_bits[middle:stop], angle_bits[middle:stop],
    )  # fmt: skip
    odd, mantissas, radii = scratch[2, start:stop], scratch[3, start:stop], scratch[4, start:stop]
    _as_odd_numbers(radius_bits[start:stop], odd)
    _radii(odd.view(np.int64), mantissas.view(np.int64), mantissas, radii)
    cosines, sines = scratch[2, start:stop], scratch[3, start:stop]
    _turn(angle_bits[start:stop], radii, cosines, sines)
    _interleave(
        cosines[:n_blocks], sines[:n_blocks], cosines[n_blocks:], sines[n_blocks:], out[first : first + 4 * n_blocks]
    )
