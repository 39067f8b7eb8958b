"""What the input of a delay layer holds: how many spikes, and whether they are all 1."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import carray
from torch import Tensor

from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["Census", "census"]

_CHUNK = 4096


class Census(NamedTuple):
    """Share of the entries that are not zero, and whether every one of these is 1."""

    density: float
    binary: bool


@cache
def _kernel(dtype: type) -> Any:
    def kernel(context):
        c = carray(context, 6)
        size = c[2]
        start, stop = my_range(c[0], c[1], 1)
        x = carray(address(c[3]), (size,), dtype)
        counts = carray(address(c[4]), (c[1], 2), np.int64)
        for job in range(start, stop):
            n_spikes, n_ones = 0, 0
            for j in range(job * _CHUNK, min((job + 1) * _CHUNK, size)):
                n_spikes += x[j] != 0
                n_ones += x[j] == 1
            counts[job, 0], counts[job, 1] = n_spikes, n_ones

    return compile_kernel(kernel)


@torch.no_grad()
def census(x: Tensor) -> Census:
    """Count a tensor on the CPU; one without entries holds no spikes."""
    if not x.numel():
        return Census(0.0, True)
    if x.dtype not in (torch.float32, torch.float64):
        n_spikes = int(torch.count_nonzero(x))
        return Census(n_spikes / x.numel(), n_spikes == int((x == 1).sum()))
    values = x.detach().contiguous().view(-1).numpy()
    counts = np.empty((-(-values.size // _CHUNK), 2), np.int64)
    run(_kernel(values.dtype.type), len(counts), 1, values.size // 4, (values.size, values, counts, 0))
    n_spikes, n_ones = counts.sum(0)
    return Census(float(n_spikes / values.size), bool(n_spikes == n_ones))
