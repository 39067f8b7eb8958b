"""The compiled way from recordings to windows: each sample is read once and written once.

Recordings are passed as addresses, so that arrays and memory maps of any size are read where they lie. Compiled code is
stored on disk beside this file. Imported when it is needed, because it loads numba.
"""

# R recordings, B windows, C channels, T samples of a window

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

__all__ = ["cut"]


@intrinsic
def _pointer(typingctx: Any, value: Any) -> Any:
    """Turn a whole number into an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


@numba.njit(nogil=True, inline="always")
def _mean(x, begin, end):
    """Average in float64, by four sums side by side: one would wait for itself at every step."""
    a = b = c = d = 0.0
    whole = begin + (end - begin) // 4 * 4
    for t in range(begin, whole, 4):
        a += x[t]
        b += x[t + 1]
        c += x[t + 2]
        d += x[t + 3]
    for t in range(whole, end):
        a += x[t]
    return ((a + b) + (c + d)) / (end - begin)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def cut(addresses, lengths, rows, recording, first, begin, end, center, inverse, limit, out, begin_row, end_row):
    """Write windows `begin_row` to `end_row` of a batch into `out`.

    Parameters
    ----------
    addresses, lengths : array of int64, shape (R,)
        Where the samples of each recording lie, and how many a channel has.
    rows : array of int64, shape (R, C)
        Which channel of the recording stands at each place of a window; -1 for none.
    recording, first : array of int64, shape (B,)
        The recording of each window and the sample at which it begins.
    begin, end : int
        Samples of the window that are its baseline; the same number for no baseline.
    center, inverse : array of float64, shape (R, C)
        What is subtracted, and then multiplied by.
    limit : float
        Largest absolute value; infinite for no limit.
    out : array of float32, shape (B, C, T)
    begin_row, end_row : int
    """
    n = out.shape[2]
    for b in range(begin_row, end_row):
        r = recording[b]
        for c in range(out.shape[1]):
            y = out[b, c]
            if rows[r, c] < 0:
                y[:] = 0
                continue
            offset = 4 * (rows[r, c] * lengths[r] + first[b])
            x = carray(_pointer(addresses[r] + offset), (n,), np.float32)
            shift, factor = center[r, c], inverse[r, c]
            if end > begin:
                shift += _mean(x, begin, end)
            for t in range(n):
                # A comparison with NaN is false, so that NaN stays.
                value = (x[t] - shift) * factor
                value = limit if value > limit else value
                y[t] = -limit if value < -limit else value
