"""The CUDA kernels: each program owns a block of neurons and keeps their membranes in registers over all steps.

The forward pass reads each input once and writes each spike once. For the backward pass it keeps the membrane of
every `CHUNK`-th step; the backward pass runs a chunk again from there into scratch memory and sweeps back through it.
The number of steps is an ordinary argument, so that a new length compiles nothing. Fused multiply-add is switched off
and division is rounded as IEEE 754 says, so that spikes equal those of the reference exactly.
"""

# T time, M neurons (all axes but time, flattened)

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import knobs

from snn.kernels.spec import CHARGES, NeuronSpec, compute_dtype

__all__ = ["INTERPRETED", "multi_step"]

# Triton decides when a kernel is defined whether it is compiled or interpreted (TRITON_INTERPRET=1).
INTERPRETED: bool = knobs.runtime.interpret
CHUNK = 16
_BLOCK = 128


@triton.jit
def _divide(a, b):
    """Divide as IEEE 754 rounds; triton's own float32 division is an approximation."""
    if a.dtype == tl.float32:
        return tl.div_rn(a, b)
    return a / b


@triton.jit
def _charge(v, x, decay, v_reset, CHARGE: tl.constexpr):
    if CHARGE == 0:
        return decay * v + x
    if CHARGE == 1:
        return v - _divide(v - v_reset, decay) + x
    return v + _divide(x - (v - v_reset), decay)


@triton.jit
def _reset(h, fired, threshold, v_reset, HARD: tl.constexpr):
    if HARD:
        return tl.where(fired, v_reset, h)
    return tl.where(fired, h - threshold, h)


@triton.jit
def _surrogate(z, alpha, scale, SHAPE: tl.constexpr):
    """Return scale * g(z); the numbers of the shapes are those of `snn.surrogate.SURROGATES`."""
    y = alpha * tl.abs(z)
    if SHAPE == 0:
        u = 1.5707963267948966 * y
        g = alpha / 2 / (1 + u * u)
    elif SHAPE == 1:
        e = tl.exp(-y)
        g = alpha * e / ((1 + e) * (1 + e))
    elif SHAPE == 2:
        g = 1 / ((1 + y) * (1 + y))
    elif SHAPE == 3:
        g = alpha / 2 / ((1 + y) * (1 + y))
    elif SHAPE == 4:
        g = tl.maximum(1 - y, 0.0)
    elif SHAPE == 5:
        g = alpha * 0.5641895835477563 * tl.exp(-y * y)
    elif SHAPE == 6:
        g = alpha / 2 * tl.exp(-y)
    elif SHAPE == 7:
        g = tl.where(y < 0.5, alpha, 0.0)
    else:
        g = y * 0 + alpha
    return g * scale


@triton.jit
def _forward(
    x_ptr, v0_ptr, decay_ptr, threshold_ptr, constants_ptr, spikes_ptr, kept_ptr, v_ptr, n, n_steps, x_stride,
    CHARGE: tl.constexpr, HARD: tl.constexpr, STRICT: tl.constexpr, KEEP: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    row, x_row = tl.cast(n, tl.int64), tl.cast(x_stride, tl.int64)
    v = tl.load(v0_ptr + i, mask=inside)
    decay = tl.load(decay_ptr + i, mask=inside, other=1.0)
    threshold = tl.load(threshold_ptr + i, mask=inside, other=1.0)
    v_reset = tl.load(constants_ptr)
    for t in range(n_steps):
        if KEEP:  # noqa: SIM102
            # Two branches: the outer one is decided when the kernel is compiled.
            if t % CHUNK == 0:
                tl.store(kept_ptr + (t // CHUNK) * row + i, v, mask=inside)
        x = tl.load(x_ptr + t * x_row + i, mask=inside).to(v.dtype)
        h = _charge(v, x, decay, v_reset, CHARGE)
        fired = h > threshold if STRICT else h >= threshold
        tl.store(spikes_ptr + t * row + i, tl.where(fired, 1.0, 0.0).to(spikes_ptr.dtype.element_ty), mask=inside)
        v = _reset(h, fired, threshold, v_reset, HARD)
    tl.store(v_ptr + i, v, mask=inside)


@triton.jit
def _backward(
    x_ptr, kept_ptr, decay_ptr, threshold_ptr, constants_ptr, gs_ptr, gv_ptr, scratch_ptr, gx_ptr, gv0_ptr,
    gdecay_ptr, gthreshold_ptr, n, n_steps, x_stride,
    CHARGE: tl.constexpr, HARD: tl.constexpr, STRICT: tl.constexpr, DETACH: tl.constexpr, SHAPE: tl.constexpr,
    NORMALISED: tl.constexpr, PARAMETERS: tl.constexpr, REPEAT: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    row, x_row = tl.cast(n, tl.int64), tl.cast(x_stride, tl.int64)
    decay = tl.load(decay_ptr + i, mask=inside, other=1.0)
    threshold = tl.load(threshold_ptr + i, mask=inside, other=1.0)
    v_reset, alpha, scale = tl.load(constants_ptr), tl.load(constants_ptr + 1), tl.load(constants_ptr + 2)
    gv = tl.load(gv_ptr + i, mask=inside, other=0.0)
    gx_sum = gv * 0
    gdecay = gv * 0
    gthreshold = gv * 0
    n_chunks = (n_steps + CHUNK - 1) // CHUNK
    for back in range(n_chunks):
        chunk = n_chunks - 1 - back
        first = chunk * CHUNK
        length = tl.minimum(CHUNK, n_steps - first)
        kept = tl.load(kept_ptr + chunk * row + i, mask=inside, other=0.0)
        v = kept
        for k in range(length):
            x = tl.load(x_ptr + (first + k) * x_row + i, mask=inside, other=0.0).to(v.dtype)
            h = _charge(v, x, decay, v_reset, CHARGE)
            tl.store(scratch_ptr + k * row + i, h, mask=inside)
            v = _reset(h, h > threshold if STRICT else h >= threshold, threshold, v_reset, HARD)
        # What one thread wrote to scratch, another of the same program may read, and then write in the next chunk.
        tl.debug_barrier()
        for back_k in range(length):
            k = length - 1 - back_k
            h = tl.load(scratch_ptr + k * row + i, mask=inside, other=0.0)
            gs = tl.load(gs_ptr + (first + k) * row + i, mask=inside, other=0.0).to(gv.dtype)
            fired = h > threshold if STRICT else h >= threshold
            if NORMALISED:
                g = _surrogate(h / threshold - 1, alpha, scale, SHAPE) / threshold
            else:
                g = _surrogate(h - threshold, alpha, scale, SHAPE)
            # Through the spike, then through the reset, to h.
            if not DETACH:
                if HARD:
                    gs += gv * (v_reset - h)
                else:
                    gs -= gv * threshold
            through = gs * g
            gh = through + (tl.where(fired, 0.0, gv) if HARD else gv)
            if PARAMETERS:
                gthreshold -= through * h / threshold if NORMALISED else through
                if not HARD:
                    gthreshold -= tl.where(fired, gv, 0.0)
                v_before = kept
                if k > 0:
                    h_before = tl.load(scratch_ptr + (k - 1) * row + i, mask=inside, other=0.0)
                    fired_before = h_before > threshold if STRICT else h_before >= threshold
                    v_before = _reset(h_before, fired_before, threshold, v_reset, HARD)
            # Through the charge, to input, earlier membrane and decay.
            if CHARGE == 0:
                gi = gh
                gv = decay * gh
                if PARAMETERS:
                    gdecay += gh * v_before
            else:
                scaled = gh / decay
                gv = gh - scaled
                gi = gh if CHARGE == 1 else scaled
                if PARAMETERS:
                    if CHARGE == 1:
                        gdecay += scaled * (v_before - v_reset) / decay
                    else:
                        x = tl.load(x_ptr + (first + k) * x_row + i, mask=inside, other=0.0).to(gv.dtype)
                        gdecay -= scaled * (x - (v_before - v_reset)) / decay
            if REPEAT:
                gx_sum += gi
            else:
                tl.store(gx_ptr + (first + k) * row + i, gi.to(gx_ptr.dtype.element_ty), mask=inside)
        tl.debug_barrier()
    if REPEAT:
        tl.store(gx_ptr + i, gx_sum.to(gx_ptr.dtype.element_ty), mask=inside)
    if PARAMETERS:
        tl.store(gdecay_ptr + i, gdecay, mask=inside)
        tl.store(gthreshold_ptr + i, gthreshold, mask=inside)
    tl.store(gv0_ptr + i, gv, mask=inside)


def _per_neuron(value: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Spread a parameter over the neurons, shape (M,)."""
    return value.detach().to(dtype).expand(shape).contiguous().view(-1)


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, v: Tensor, decay: Tensor, threshold: Tensor, n_steps: int | None, spec: NeuronSpec
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(x.dtype)
        steps = x.shape[0] if n_steps is None else n_steps
        n = v.numel()
        current = x.detach().contiguous()
        spikes = x.new_empty((steps, *v.shape))
        v_out = torch.empty_like(v, dtype=dtype, memory_format=torch.contiguous_format)
        keep = any(ctx.needs_input_grad)
        kept = v_out.new_empty((math.ceil(steps / CHUNK) if keep else 0, n))
        if steps and n:
            state = [_per_neuron(value, v.shape, dtype) for value in (v, decay, threshold)]
            _forward[(triton.cdiv(n, _BLOCK),)](
                current, *state, _constants(spec, v_out), spikes, kept, v_out, n, steps, 0 if n_steps else n,
                CHARGE=CHARGES[spec.charge], HARD=spec.hard_reset, STRICT=spec.strict, KEEP=keep, CHUNK=CHUNK,
                BLOCK=_BLOCK, enable_fp_fusion=False,
            )  # fmt: skip
        else:
            v_out.copy_(v)
        ctx.save_for_backward(x, decay, threshold, kept)
        ctx.repeat, ctx.spec, ctx.shape, ctx.v_dtype = n_steps is not None, spec, v.shape, v.dtype
        return spikes, v_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor, grad_v: Tensor) -> tuple[Tensor | None, ...]:
        x, decay, threshold, kept = ctx.saved_tensors
        spec, shape, dtype = ctx.spec, ctx.shape, kept.dtype
        steps, n = grad_spikes.shape[0], kept.shape[1]
        gx = torch.empty_like(x, memory_format=torch.contiguous_format)
        gv = kept.new_empty(n)
        parameters = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        gdecay, gthreshold = (kept.new_zeros(n if parameters else 0) for _ in range(2))
        if steps and n:
            _backward[(triton.cdiv(n, _BLOCK),)](
                x.detach().contiguous(), kept, _per_neuron(decay, shape, dtype), _per_neuron(threshold, shape, dtype),
                _constants(spec, kept), grad_spikes.contiguous(), _per_neuron(grad_v, shape, dtype),
                kept.new_empty((min(CHUNK, steps), n)), gx, gv, gdecay, gthreshold, n, steps, 0 if ctx.repeat else n,
                CHARGE=CHARGES[spec.charge], HARD=spec.hard_reset, STRICT=spec.strict, DETACH=spec.detach_reset,
                SHAPE=spec.surrogate.number, NORMALISED=spec.surrogate.normalised, PARAMETERS=parameters,
                REPEAT=ctx.repeat, CHUNK=CHUNK, BLOCK=_BLOCK,
                # The chunk that is run again must round as the forward pass did.
                enable_fp_fusion=False,
            )  # fmt: skip
        else:
            gx.zero_()
            gv.copy_(grad_v.reshape(-1))
        return (
            gx,
            gv.view(shape).to(ctx.v_dtype),
            gdecay.view(shape).sum_to_size(decay.shape).to(decay.dtype) if parameters else None,
            gthreshold.view(shape).sum_to_size(threshold.shape).to(threshold.dtype) if parameters else None,
            None,
            None,
        )


def _constants(spec: NeuronSpec, like: Tensor) -> Tensor:
    """Numbers as a tensor, because triton passes plain floats in float32."""
    return like.new_tensor([spec.v_reset, spec.surrogate.alpha, spec.surrogate.scale])


def multi_step(
    x: Tensor, v: Tensor, decay: Tensor, threshold: Tensor, n_steps: int | None, spec: NeuronSpec
) -> tuple[Tensor, Tensor]:
    """Run the neurons over all steps; the contract is that of `snn.kernels.torch.multi_step`."""
    return _MultiStep.apply(x, v, decay, threshold, n_steps, spec)
