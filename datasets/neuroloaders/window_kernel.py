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


# Sums may be taken in any order: a register of them side by side, where one would wait for itself at every step.
@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _mean(x):
    """Average in float64."""
    total = 0.0
    for t in range(x.shape[0]):
        total += x[t]
    return total / x.shape[0]


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
    n, top = out.shape[2], np.float32(limit)
    for b in range(begin_row, end_row):
        r = recording[b]
        for c in range(out.shape[1]):
            y = out[b, c]
            if rows[r, c] < 0:
                y[:] = 0
                continue
            offset = 4 * (rows[r, c] * lengths[r] + first[b])
            x = carray(_pointer(addresses[r] + offset), (n,), np.float32)
            shift = center[r, c]
            if end > begin:
                shift += _mean(carray(_pointer(addresses[r] + offset + 4 * begin), (end - begin,), np.float32))
            # What float32 cannot hold of the shift is subtracted after it: amplifiers' offsets are a thousand times
            # larger than the signal. Twice as many samples then fit into a register as in float64.
            high = np.float32(shift)
            low, factor = np.float32(shift - high), np.float32(inverse[r, c])
            if top == np.inf:
                for t in range(n):
                    y[t] = ((x[t] - high) - low) * factor
            else:
                for t in range(n):
                    # A comparison with NaN is false, so that NaN stays.
                    value = ((x[t] - high) - low) * factor
                    value = top if value > top else value
                    y[t] = -top if value < -top else value
