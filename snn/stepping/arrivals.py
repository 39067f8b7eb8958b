"""Spikes on their way: what whole-step delays hold back, as the currents that will arrive, and work for spikes only.

A layer of whole-step delays can carry its last inputs, or what they will still bring. With the inputs, each step reads
all of the last D - 1 again. With the currents to come, a spike is dealt with once, when it leaves; that is what makes
single steps cheap. Sums are in the order of time, however the steps are cut.
"""

# k steps of a block, B samples, O outputs, I inputs, K kernels a connection, D lags

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn.delays import DelayLinear
from snn.delays.paths import check_delay
from snn.delays.taps import rounded

__all__ = ["ByInput", "OnTheWay", "by_input", "can_deliver", "deliver"]


class ByInput(NamedTuple):
    """Weights and lags of a layer, shape (I * K, O), and what they were read from."""

    weight: Tensor
    lags: Tensor
    versions: tuple[int, ...]


class OnTheWay(NamedTuple):
    """Currents that arrive in the next D steps, and the layer's synapses by input.

    `ring` has shape (B, O in blocks, D or more, outputs of a block). Of each block, row `now` arrives at the next step,
    the one after it at the step after that, around the end.
    """

    ring: Tensor
    now: int
    synapses: ByInput


def can_deliver(layer: Any, x: Tensor) -> bool:
    """Return whether a layer can be run this way: whole-step delays between vectors, on the CPU, and no path asked."""
    return (
        isinstance(layer, DelayLinear)
        and x.is_floating_point()
        and type(layer).forward is DelayLinear.forward
        and layer.rounds
        and layer.backend == "auto"
        and layer.weight.dtype in (torch.float32, torch.float64)
        and layer.weight.device.type == x.device.type == "cpu"
    )


def by_input(layer: DelayLinear, known: ByInput | None = None) -> ByInput:
    """Return the synapses ordered by input; those `known` if the layer has not changed."""
    tensors = (layer.weight, layer.delay)
    versions = tuple(number for tensor in tensors for number in (tensor.data_ptr(), tensor._version))
    if known is not None and known.versions == versions:
        return known
    check_delay(layer.delay)
    inside = layer.delay.detach().clamp(0, layer.max_delay - 1)
    lags = rounded(inside, layer.max_delay).expand(layer.weight.shape)
    n_outputs = layer.out_features
    weight = layer.weight.detach().permute(1, 2, 0).reshape(-1, n_outputs).contiguous()
    return ByInput(weight, lags.permute(1, 2, 0).reshape(-1, n_outputs).to(torch.int32).contiguous(), versions)


@torch.no_grad()
def deliver(layer: DelayLinear, x: Tensor, before: OnTheWay | None) -> tuple[Tensor, OnTheWay]:
    """Transmit some steps.

    Parameters
    ----------
    layer : DelayLinear
        For which `can_deliver` holds.
    x : Tensor, shape (k, B, I)
        Spikes or any other values.
    before : OnTheWay or None
        What the steps before left on its way; its ring is written over.

    Returns
    -------
    y : Tensor, shape (k, B, O)
    after : OnTheWay
    """
    # Loaded here, as the compiler takes longer to load than all the rest.
    from snn.kernels.threads import run
    from snn.stepping.arrival_kernel import N_OUTPUTS, arrival_kernel

    n_steps, n_batch, n_inputs = x.shape
    dtype, n_outputs, n_lags = layer.weight.dtype, layer.out_features, layer.max_delay
    synapses = by_input(layer, None if before is None else before.synapses)
    n_blocks, n_rows = -(-n_outputs // N_OUTPUTS), 1 << (n_lags - 1).bit_length()
    shape = (n_batch, n_blocks, n_rows, N_OUTPUTS)
    ring, now = (torch.zeros(shape, dtype=dtype), 0) if before is None else before[:2]
    y = torch.empty((n_steps, n_batch, n_outputs), dtype=dtype)
    if n_batch:
        sizes = (n_steps, n_batch, n_outputs, n_inputs, layer.kernel_count, n_rows, now)
        arrays = (x.to(dtype).contiguous(), synapses.weight, synapses.lags, ring, y)
        # A guess at the spikes: what is to be decided is whether a second thread is worth it.
        work = n_steps * n_batch * n_outputs * (1 + n_inputs // 8)
        kernel = arrival_kernel(y.numpy().dtype.type)
        run(kernel, n_batch * n_blocks, 1, work, (*sizes, *(array.numpy() for array in arrays), 0))
    if layer.bias is not None:
        y += layer.bias
    return y, OnTheWay(ring, (now + n_steps) % n_rows, synapses)
