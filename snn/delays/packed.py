"""Whole-step delays of spikes that are 0 or 1, as bits: a synapse adds its weight to all samples with a spike."""

# T steps, B batch in G groups of V lanes, O outputs, I inputs, K kernels a connection, E = I * K entries, L steps of
# a row with its zeros

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from numba import carray
from torch import Tensor

from snn.delays.bit_vectors import MOST_STEPS, add_spikes, transpose
from snn.delays.shifts import padding
from snn.delays.vectors import LANE_BYTES
from snn.kernels.buffers import BufferPool
from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["fits", "packed"]

# Steps of a block; each is compiled by itself.
_BLOCKS = (8, 16, 20, MOST_STEPS)
# Samples that only fill up the last word cost as much as others.
_MOST_FILLING = 1.5
_buffers = BufferPool()


@cache
def _masked_additions() -> bool:
    """Return whether this processor adds under a mask in one instruction; elsewhere shifted rows are quicker."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))


def fits(n_batch: int, dtype: torch.dtype) -> bool:
    """Return whether this way is likely to be the quickest here, for spikes that are 0 or 1."""
    lanes = LANE_BYTES // dtype.itemsize
    return _masked_additions() and -(-n_batch // lanes) * lanes <= _MOST_FILLING * n_batch


@torch.no_grad()
def packed(x: Tensor, weight: Tensor, lags: Tensor) -> Tensor:
    """Do what `snn.delays.shifts.shifted` does, where entries of `x` are 0 or 1; no gradients.

    Parameters
    ----------
    x : Tensor, shape (T, B, I), on the CPU
        What is not 0 counts as 1.
    weight : Tensor, shape (O, I, K), float32 or float64
    lags : Tensor of int32, shape (O, I, K), at least 0

    Returns
    -------
    Tensor, shape (T, B, O), dtype of `weight`
    """
    n_steps, n_batch, n_inputs = x.shape
    n_outputs, _, n_kernels = weight.shape
    y = _buffers.empty((n_steps, n_batch, n_outputs), weight.dtype)
    if 0 in x.shape or 0 in weight.shape:
        return y.zero_()
    dtype = y.numpy().dtype
    lanes = LANE_BYTES // dtype.itemsize
    n_groups = -(-n_batch // lanes)
    least = -(-n_steps // -(-n_steps // MOST_STEPS))
    block = next(size for size in _BLOCKS if size >= least)
    pad = padding(lags, n_steps)
    length = pad + -(-n_steps // block) * block
    words = np.zeros((n_groups, n_inputs, length), f"uint{lanes}")
    scratch = np.empty((n_groups * n_steps, n_inputs), words.dtype)
    values = x.detach().to(weight.dtype).contiguous().numpy()
    sizes = (n_steps, n_batch, n_inputs, pad, length, n_groups)
    run(_pack_kernel(dtype.type), n_groups * n_steps, 1, values.size // 4, (*sizes, values, words, scratch, 0))

    n_jobs = -(-n_outputs // lanes)
    offsets = np.empty((n_outputs, n_inputs * n_kernels), np.int32)
    tile = np.empty((n_jobs, lanes, block, lanes), dtype)
    sizes = (n_steps, n_batch, n_outputs, n_inputs, n_kernels, pad, length, n_groups)
    arrays = (words, weight.detach().contiguous().numpy(), lags.contiguous().numpy(), offsets, tile, y.numpy())
    work = n_outputs * n_inputs * n_kernels * n_groups * n_steps
    run(_add_kernel(dtype.type, block), n_jobs, 1, work, (*sizes, *arrays, 0))
    return y


@cache
def _pack_kernel(dtype: type) -> Any:
    lanes = LANE_BYTES // np.dtype(dtype).itemsize
    word = np.dtype(f"uint{lanes}").type
    none = word(0)

    def kernel(context):
        c = carray(context, 12)
        n_steps, n_batch, n_inputs, pad, length, n_groups = c[2], c[3], c[4], c[5], c[6], c[7]
        start, stop = my_range(c[0], c[1], 1)
        x = carray(address(c[8]), (n_steps, n_batch, n_inputs), dtype)
        words = carray(address(c[9]), (n_groups, n_inputs, length), word)
        scratch = carray(address(c[10]), (n_groups * n_steps, n_inputs), word)
        for job in range(start, stop):
            g, t = job // n_steps, job % n_steps
            row = scratch[job]
            for i in range(n_inputs):
                row[i] = none
            for v in range(min(lanes, n_batch - g * lanes)):
                sample = x[t, g * lanes + v]
                bit = word(1 << v)
                for i in range(n_inputs):
                    row[i] |= bit if sample[i] != 0 else none
            for i in range(n_inputs):
                words[g, i, pad + t] = row[i]

    return compile_kernel(kernel)


@cache
def _add_kernel(dtype: type, block: int) -> Any:
    number = np.dtype(dtype).itemsize
    bits = 8 * number
    lanes = LANE_BYTES // number
    word_bytes = lanes // 8

    def kernel(context):
        c = carray(context, 17)
        n_steps, n_batch, n_outputs, n_inputs, n_kernels = c[2], c[3], c[4], c[5], c[6]
        pad, length, n_groups = c[7], c[8], c[9]
        start, stop = my_range(c[0], c[1], 1)
        n_entries = n_inputs * n_kernels
        words_at, weights_at, lags_at, offsets_at, tile_at, y_at = c[10], c[11], c[12], c[13], c[14], c[15]
        lags = carray(address(lags_at), (n_outputs, n_entries), np.int32)
        offsets = carray(address(offsets_at), (n_outputs, n_entries), np.int32)
        # One tile for each thread: that of its first job.
        tile_at += start * lanes * block * lanes * number
        tile = carray(address(tile_at), (lanes, block, lanes), dtype)
        y = carray(address(y_at), (n_steps, n_batch, n_outputs), dtype)
        for job in range(start, stop):
            first, last = job * lanes, min((job + 1) * lanes, n_outputs)
            for o in range(first, last):
                for e in range(n_entries):
                    offsets[o, e] = e // n_kernels * length + pad - min(lags[o, e], pad)
            for g in range(n_groups):
                n_real = min(lanes, n_batch - g * lanes)
                for t in range(0, n_steps, block):
                    for o in range(first, last):
                        add_spikes(
                            tile_at + (o - first) * block * lanes * number,
                            words_at + (g * n_inputs * length + t) * word_bytes,
                            weights_at + o * n_entries * number,
                            offsets_at + o * n_entries * 4,
                            n_entries,
                            block,
                            bits,
                        )
                    for s in range(min(block, n_steps - t)):
                        if n_real == lanes and last - first == lanes:
                            out = ((t + s) * n_batch + g * lanes) * n_outputs + first
                            source = tile_at + s * lanes * number
                            transpose(y_at + out * number, n_outputs, source, block * lanes, bits)
                        else:
                            for v in range(n_real):
                                for o in range(first, last):
                                    y[t + s, g * lanes + v, o] = tile[o - first, s, v]

    return compile_kernel(kernel)
