"""The inner loop of `snn.stepping.arrivals`: each spike adds its weights to the rows in which they arrive."""

# k steps of a block, B samples, O outputs, I inputs, K kernels a connection

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import carray

from snn.kernels.threads import address, compile_kernel, my_range

__all__ = ["N_OUTPUTS", "arrival_kernel"]

# Outputs of one job, known to the compiler: their sums over time stay in the first-level cache.
N_OUTPUTS = 32


@cache
def arrival_kernel(dtype: type) -> Any:
    """Return the kernel for numbers of this type.

    It reads, after the first and last job: k, B, O, I, K, the rows of a ring, the row that arrives next, and the arrays
    x, weights and lags by input, rings, y.
    """

    def kernel(context):
        c = carray(context, 15)
        n_steps, n_batch, n_outputs, n_inputs, n_kernels, n_rows = c[2], c[3], c[4], c[5], c[6], c[7]
        start, stop = my_range(c[0], c[1], 1)
        x = carray(address(c[9]), (n_steps, n_batch, n_inputs), dtype)
        weights = carray(address(c[10]), (n_inputs * n_kernels, n_outputs), dtype)
        lags = carray(address(c[11]), (n_inputs * n_kernels, n_outputs), np.int32)
        n_blocks = (n_outputs + N_OUTPUTS - 1) // N_OUTPUTS
        rings = carray(address(c[12]), (n_batch * n_blocks, n_rows, N_OUTPUTS), dtype)
        y = carray(address(c[13]), (n_steps, n_batch, n_outputs), dtype)
        # A power of two: a place around the end costs one operation.
        mask = np.uint64(n_rows - 1)
        for job in range(start, stop):
            b, first = job // n_blocks, job % n_blocks * N_OUTPUTS
            n_here = min(N_OUTPUTS, n_outputs - first)
            ring, now = rings[job], np.uint64(c[8])
            for t in range(n_steps):
                row = x[t, b]
                for i in range(n_inputs):
                    strength = row[i]
                    if strength != 0:
                        for j in range(i * n_kernels, (i + 1) * n_kernels):
                            w, d = weights[j, first : first + n_here], lags[j, first : first + n_here]
                            for o in range(n_here):
                                ring[(now + np.uint64(d[o])) & mask, o] += w[o] * strength
                for o in range(n_here):
                    y[t, b, first + o] = ring[now, o]
                    ring[now, o] = 0
                now = (now + np.uint64(1)) & mask

    return compile_kernel(kernel)
