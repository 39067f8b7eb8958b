"""Whole-step delays with work for the spikes only: each event goes to its targets and arrives after its delays."""

# T steps, B batch, O outputs, I inputs, K kernels a connection

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray
from torch import Tensor

from snn.delays.shifts import padding
from snn.kernels.buffers import BufferPool
from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["events"]

# Outputs of one job: their sums over time stay in the first-level cache, and a step's are written as one line.
_OUTPUTS = 16
_buffers = BufferPool()


@torch.no_grad()
def events(x: Tensor, weight: Tensor, lags: Tensor) -> Tensor:
    """Do what `snn.delays.shifts.shifted` does, in proportion to the entries of `x` that are not 0; no gradients."""
    n_steps, n_batch, n_inputs = x.shape
    n_outputs, _, n_kernels = weight.shape
    y = _buffers.empty((n_steps, n_batch, n_outputs), weight.dtype)
    if 0 in x.shape or 0 in weight.shape:
        return y.zero_()
    dtype = y.numpy().dtype
    values = x.detach().to(weight.dtype).contiguous().numpy()
    counts = np.empty(n_steps * n_batch, np.int64)
    sizes = (n_steps, n_batch, n_inputs)
    run(_count_kernel(dtype.type), counts.size, 1, values.size // 4, (*sizes, values, counts, 0))
    # Sample by sample, and in the order of time within each.
    ends = counts.reshape(n_steps, n_batch).T.cumsum()
    n_events = int(ends[-1])
    starts = np.concatenate([[0], ends[:-1]]).reshape(n_batch, n_steps)
    times, inputs = np.empty((2, max(n_events, 1)), np.int32)
    strengths = np.empty(max(n_events, 1), dtype)
    context = (*sizes, n_events, values, np.ascontiguousarray(starts), times, inputs, strengths, 0)
    run(_list_kernel(dtype.type), counts.size, 1, values.size // 4, context)

    pad = padding(lags, n_steps)
    n_blocks = -(-n_outputs // _OUTPUTS)
    n_jobs = n_batch * n_blocks
    scratch = np.empty((n_jobs, _OUTPUTS, n_steps + pad), dtype)
    firsts = np.append(starts[:, 0], n_events)
    sizes = (n_steps, n_batch, n_outputs, n_inputs, n_kernels, pad, n_events)
    by_input = (part.detach().permute(1, 2, 0).contiguous().numpy() for part in (weight, lags))
    arrays = (firsts, times, inputs, strengths, *by_input)
    work = n_outputs * (n_events * n_kernels + n_steps * n_batch)
    run(_scatter_kernel(dtype.type), n_jobs, 1, work, (*sizes, *arrays, scratch, y.numpy(), 0))
    return y


@cache
def _count_kernel(dtype: type) -> Any:
    def kernel(context):
        c = carray(context, 8)
        n_rows, n_inputs = c[2] * c[3], c[4]
        start, stop = my_range(c[0], c[1], 1)
        x = carray(address(c[5]), (n_rows, n_inputs), dtype)
        counts = carray(address(c[6]), (n_rows,), np.int64)
        for r in range(start, stop):
            n, row = 0, x[r]
            for i in range(n_inputs):
                n += row[i] != 0
            counts[r] = n

    return compile_kernel(kernel)


@cache
def _list_kernel(dtype: type) -> Any:
    def kernel(context):
        c = carray(context, 12)
        n_steps, n_batch, n_inputs, n_events = c[2], c[3], c[4], c[5]
        start, stop = my_range(c[0], c[1], 1)
        x = carray(address(c[6]), (n_steps * n_batch, n_inputs), dtype)
        starts = carray(address(c[7]), (n_batch, n_steps), np.int64)
        times = carray(address(c[8]), (n_events,), np.int32)
        inputs = carray(address(c[9]), (n_events,), np.int32)
        strengths = carray(address(c[10]), (n_events,), dtype)
        for r in range(start, stop):
            t, b = r // n_batch, r % n_batch
            e, row = starts[b, t], x[r]
            for i in range(n_inputs):
                if row[i] != 0:
                    times[e], inputs[e], strengths[e] = t, i, row[i]
                    e += 1

    return compile_kernel(kernel)


@cache
def _scatter_kernel(dtype: type) -> Any:
    def kernel(context):
        c = carray(context, 18)
        n_steps, n_batch, n_outputs, n_inputs, n_kernels, pad, n_events = c[2], c[3], c[4], c[5], c[6], c[7], c[8]
        start, stop = my_range(c[0], c[1], 1)
        firsts = carray(address(c[9]), (n_batch + 1,), np.int64)
        times = carray(address(c[10]), (n_events,), np.int32)
        inputs = carray(address(c[11]), (n_events,), np.int32)
        strengths = carray(address(c[12]), (n_events,), dtype)
        weights = carray(address(c[13]), (n_inputs * n_kernels, n_outputs), dtype)
        lags = carray(address(c[14]), (n_inputs * n_kernels, n_outputs), np.int32)
        scratch = carray(address(c[15]), (c[1], _OUTPUTS, n_steps + pad), dtype)
        y = carray(address(c[16]), (n_steps, n_batch, n_outputs), dtype)
        n_blocks = (n_outputs + _OUTPUTS - 1) // _OUTPUTS
        for job in range(start, stop):
            b, first = job // n_blocks, job % n_blocks * _OUTPUTS
            last = min(first + _OUTPUTS, n_outputs)
            # Each thread uses that of its first job again.
            sums = scratch[start]
            for o in range(last - first):
                for t in range(n_steps + pad):
                    sums[o, t] = 0
            for e in range(firsts[b], firsts[b + 1]):
                t, k, strength = times[e], inputs[e] * n_kernels, strengths[e]
                for j in range(k, k + n_kernels):
                    w, d = weights[j, first:last], lags[j, first:last]
                    for o in range(last - first):
                        # What arrives after the last step falls into the rows' end.
                        sums[o, np.uint64(t + min(d[o], pad))] += w[o] * strength
            for t in range(n_steps):
                for o in range(first, last):
                    y[t, b, o] = sums[o - first, t]

    return compile_kernel(kernel, fastmath={"contract"})
