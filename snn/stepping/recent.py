"""The last inputs of a layer of whole-step delays, as bits: only the steps that were asked for are computed.

A layer that is run on a whole sequence has zeros before it. Here the last inputs stand in their place, and the kernel
of `snn.delays.packed` does the rest: the same sums in the same order as for the whole sequence.
"""

# k steps of a block, h steps of history, B samples in G groups of V lanes, O outputs, I inputs, K kernels a connection

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snn.delays import DelayLinear
from snn.delays.paths import calls, check_delay
from snn.delays.taps import rounded

__all__ = ["after_history", "are_bits"]


# From so many samples times steps on this is quicker than one spike after the other, where a tenth of neurons spike.
_LEAST = 128


def are_bits(layer: DelayLinear, x: Tensor) -> bool:
    """Return whether `x`, shape (k, B, I), is 0 and 1, and enough of it for this way to be the quickest."""
    from snn.delays.census import census
    from snn.delays.packed import fits

    n_steps, n_batch, _ = x.shape
    return n_steps * n_batch >= _LEAST and fits(n_batch, layer.weight.dtype) and census(x).binary


@torch.no_grad()
def after_history(layer: DelayLinear, history: Tensor | None, x: Tensor) -> Tensor:
    """Return what a layer gives for `x` after `history`.

    Parameters
    ----------
    layer : DelayLinear
        With whole-step delays, on the CPU.
    history : Tensor, shape (h, B, I), or None
        The last inputs, 0 or 1; before them there were none.
    x : Tensor, shape (k, B, I)
        Inputs for which `are_bits` holds.

    Returns
    -------
    Tensor, shape (k, B, O)
    """
    # Loaded here, as the compiler takes longer to load than all the rest.
    from snn.delays.packed import _BLOCKS, _add_kernel, _pack_kernel
    from snn.delays.shifts import padding
    from snn.delays.vectors import LANE_BYTES
    from snn.kernels.threads import run

    weight, (n_steps, n_batch, n_inputs) = layer.weight.detach(), x.shape
    n_outputs, _, n_kernels = weight.shape
    check_delay(layer.delay)
    inside = layer.delay.detach().clamp(0, layer.max_delay - 1)
    lags = rounded(inside, layer.max_delay).expand(weight.shape).contiguous()
    pad = padding(lags, layer.max_delay)
    n_before = 0 if history is None else min(len(history), pad)
    seen = torch.cat([history[len(history) - n_before :], x]) if n_before else x
    y = torch.empty((n_steps, n_batch, n_outputs), dtype=weight.dtype)
    dtype = y.numpy().dtype
    lanes = LANE_BYTES // dtype.itemsize
    n_groups = -(-n_batch // lanes)
    least = -(-n_steps // -(-n_steps // _BLOCKS[-1]))
    block = next(size for size in _BLOCKS if size >= least)
    length = pad + -(-n_steps // block) * block
    words = np.zeros((n_groups, n_inputs, length), f"uint{lanes}")
    scratch = np.empty((n_groups * len(seen), n_inputs), words.dtype)
    values = seen.to(weight.dtype).contiguous().numpy()
    sizes = (len(seen), n_batch, n_inputs, pad - n_before, length, n_groups)
    run(_pack_kernel(dtype.type), n_groups * len(seen), 1, values.size // 4, (*sizes, values, words, scratch, 0))

    n_jobs = -(-n_outputs // lanes)
    offsets = np.empty((n_outputs, n_inputs * n_kernels), np.int32)
    tile = np.empty((n_jobs, lanes, block, lanes), dtype)
    sizes = (n_steps, n_batch, n_outputs, n_inputs, n_kernels, pad, length, n_groups)
    arrays = (words, weight.contiguous().numpy(), lags.numpy(), offsets, tile, y.numpy())
    work = n_outputs * n_inputs * n_kernels * n_groups * n_steps
    run(_add_kernel(dtype.type, block), n_jobs, 1, work, (*sizes, *arrays, 0))
    calls["packed"] += 1
    return y if layer.bias is None else y + layer.bias
