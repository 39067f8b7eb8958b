"""The CPU kernels: a block of neurons stays in cache while all its time steps go by.

The forward pass reads each input once and writes each spike once. For the backward pass it keeps the membrane of
every `CHUNK`-th step and nothing else: the backward pass runs each chunk again from there, into scratch memory that
fits the cache, and sweeps back through it. Threads split the neurons (see `threads`); no number depends on how.

Kernels are compiled per combination of options, which are constants to the compiler: branches on them vanish, and
what is left of each inner loop becomes vector instructions. Compiled code is cached on disk beside this file.
"""

# T time, M neurons (all axes but time, flattened)

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from numba import carray
from torch import Tensor
from torch.autograd.function import once_differentiable

from snn.kernels.buffers import BufferPool
from snn.kernels.spec import CHARGES, NeuronSpec, compute_dtype
from snn.kernels.threads import address, compile_kernel, my_range, run

__all__ = ["multi_step"]

# Steps between two kept membranes. Scratch is CHUNK x BLOCK_BYTES, a quarter of a common second-level cache.
CHUNK = 16
BLOCK_BYTES = 16 * 1024
_buffers = BufferPool()
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


@cache
def _forward_kernel(dtype: type, charge: int, hard: bool, strict: bool, keep: bool) -> Any:
    """Compile the forward pass for one combination of options; `keep` writes the membranes for the backward pass."""

    def forward(context):
        c = carray(context, 14)
        start, stop = my_range(c[0], c[1])
        n, n_steps, x_rows, block = c[2], c[3], c[4], c[5]
        x = carray(address(c[6]), (x_rows, n), dtype)
        v0 = carray(address(c[7]), (n,), dtype)
        decay = carray(address(c[8]), (n,), dtype)
        threshold = carray(address(c[9]), (n,), dtype)
        constants = carray(address(c[10]), (5,), dtype)
        spikes = carray(address(c[11]), (n_steps, n), dtype)
        kept = carray(address(c[12]), ((n_steps + CHUNK - 1) // CHUNK, n), dtype)
        v_out = carray(address(c[13]), (n,), dtype)
        zero, one, v_reset = constants[0], constants[1], constants[2]
        repeat = x_rows < n_steps
        v_block = np.empty(block, dtype)
        for a in range(start, stop, block):
            b = min(a + block, stop)
            v, decay_ab, threshold_ab = v_block[: b - a], decay[a:b], threshold[a:b]
            v[:] = v0[a:b]
            for t in range(n_steps):
                if keep and t % CHUNK == 0:
                    kept[t // CHUNK, a:b] = v
                x_t, s_t = x[0 if repeat else t, a:b], spikes[t, a:b]
                for i in range(b - a):
                    if charge == 0:
                        h = decay_ab[i] * v[i] + x_t[i]
                    elif charge == 1:
                        h = v[i] - (v[i] - v_reset) / decay_ab[i] + x_t[i]
                    else:
                        h = v[i] + (x_t[i] - (v[i] - v_reset)) / decay_ab[i]
                    fired = h > threshold_ab[i] if strict else h >= threshold_ab[i]
                    s_t[i] = one if fired else zero
                    if hard:
                        v[i] = v_reset if fired else h
                    else:
                        v[i] = h - threshold_ab[i] if fired else h
            v_out[a:b] = v

    return compile_kernel(forward)


@numba.njit(nogil=True, inline="always", error_model="numpy")
def _exp_minus(y, one):
    """exp(-y) for y >= 0 without a call, so that loops with it are vectorised.

    The series of exp(-y / 256), squared eight times. Good to 2e-5 relative in float32, which is a surrogate's need;
    the float64 kernels call the exact function.
    """
    z = min(y, one * 80) * (-one / 256)
    e = one + z * (one + z * (one / 2 + z * (one / 6 + z * (one / 24 + z * (one / 120 + z * (one / 720))))))
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    return e * e


@cache
def _backward_kernel(
    dtype: type, charge: int, hard: bool, strict: bool, detach: bool, shape: int, normalised: bool, parameters: bool
) -> Any:
    """Compile the backward pass for one combination of options; `parameters` adds those of decay and threshold."""
    single = dtype is np.float32

    def backward(context):
        c = carray(context, 17)
        start, stop = my_range(c[0], c[1])
        n, n_steps, x_rows, block = c[2], c[3], c[4], c[5]
        x = carray(address(c[6]), (x_rows, n), dtype)
        kept = carray(address(c[7]), ((n_steps + CHUNK - 1) // CHUNK, n), dtype)
        decay = carray(address(c[8]), (n,), dtype)
        threshold = carray(address(c[9]), (n,), dtype)
        constants = carray(address(c[10]), (5,), dtype)
        gs = carray(address(c[11]), (n_steps, n), dtype)
        gv_out = carray(address(c[12]), (n,), dtype)
        gx = carray(address(c[13]), (x_rows, n), dtype)
        gv0 = carray(address(c[14]), (n,), dtype)
        gdecay = carray(address(c[15]), (n,), dtype)
        gthreshold = carray(address(c[16]), (n,), dtype)
        zero, one, v_reset, alpha, scale = constants[0], constants[1], constants[2], constants[3], constants[4]
        half = one / (one + one)
        slope = half * alpha * (one * np.pi)
        gauss = alpha / np.sqrt(one * np.pi)
        repeat = x_rows < n_steps
        h_chunk = np.empty((CHUNK, block), dtype)
        rows = np.empty((4, block), dtype)
        for a in range(start, stop, block):
            b = min(a + block, stop)
            m = b - a
            v, gv, inverse, inverse_decay = rows[0, :m], rows[1, :m], rows[2, :m], rows[3, :m]
            decay_ab, threshold_ab = decay[a:b], threshold[a:b]
            # Without gradients of parameters these two are never touched; any array will do.
            gdecay_ab, gthreshold_ab = gdecay[a:b], gthreshold[a:b]
            gv[:] = gv_out[a:b]
            for i in range(m):
                inverse[i] = one / (threshold_ab[i] if normalised else one)
                if charge != 0:
                    inverse_decay[i] = one / decay_ab[i]
            if parameters:
                gdecay_ab[:] = zero
                gthreshold_ab[:] = zero
            if repeat:
                gx[0, a:b] = zero
            for chunk in range(kept.shape[0] - 1, -1, -1):
                first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, n_steps)
                v[:] = kept[chunk, a:b]
                for t in range(first, last):
                    x_t, h_t = x[0 if repeat else t, a:b], h_chunk[t - first, :m]
                    for i in range(m):
                        if charge == 0:
                            h = decay_ab[i] * v[i] + x_t[i]
                        elif charge == 1:
                            h = v[i] - (v[i] - v_reset) / decay_ab[i] + x_t[i]
                        else:
                            h = v[i] + (x_t[i] - (v[i] - v_reset)) / decay_ab[i]
                        fired = h > threshold_ab[i] if strict else h >= threshold_ab[i]
                        h_t[i] = h
                        if hard:
                            v[i] = v_reset if fired else h
                        else:
                            v[i] = h - threshold_ab[i] if fired else h
                for t in range(last - 1, first - 1, -1):
                    x_t, gx_t, gs_t = x[0 if repeat else t, a:b], gx[0 if repeat else t, a:b], gs[t, a:b]
                    h_t = h_chunk[t - first, :m]
                    before = h_chunk[max(t - first - 1, 0), :m]
                    kept_t = kept[chunk, a:b]
                    for i in range(m):
                        h, theta = h_t[i], threshold_ab[i]
                        fired = h > theta if strict else h >= theta
                        z = h * inverse[i] - one if normalised else h - theta
                        if shape == 0:
                            g = half * alpha / (one + (slope * z) * (slope * z))
                        elif shape == 1:
                            e = _exp_minus(alpha * abs(z), one) if single else np.exp(-alpha * abs(z))
                            g = alpha * e / ((one + e) * (one + e))
                        elif shape == 2:
                            g = one / ((one + alpha * abs(z)) * (one + alpha * abs(z)))
                        elif shape == 3:
                            g = half * alpha / ((one + alpha * abs(z)) * (one + alpha * abs(z)))
                        elif shape == 4:
                            g = max(one - alpha * abs(z), zero)
                        elif shape == 5:
                            y = alpha * z * alpha * z
                            g = gauss * (_exp_minus(y, one) if single else np.exp(-y))
                        elif shape == 6:
                            y = alpha * abs(z)
                            g = half * alpha * (_exp_minus(y, one) if single else np.exp(-y))
                        elif shape == 7:
                            g = alpha if abs(z) < half / alpha else zero
                        else:
                            g = alpha
                        g = g * scale * inverse[i]
                        # Through the spike, then through the reset, to h.
                        to_spike = gs_t[i]
                        if not detach:
                            to_spike += gv[i] * (v_reset - h) if hard else -gv[i] * theta
                        through = to_spike * g
                        gh = through + (zero if hard and fired else gv[i])
                        if parameters:
                            gthreshold_ab[i] -= through * h * inverse[i] if normalised else through
                            if not hard:
                                gthreshold_ab[i] -= gv[i] if fired else zero
                            if t > first:
                                h_before = before[i]
                                fired_before = h_before > theta if strict else h_before >= theta
                                if hard:
                                    v_before = v_reset if fired_before else h_before
                                else:
                                    v_before = h_before - theta if fired_before else h_before
                            else:
                                v_before = kept_t[i]
                        # Through the charge, to input, earlier membrane and decay.
                        if charge == 0:
                            gv[i] = decay_ab[i] * gh
                            gi = gh
                            if parameters:
                                gdecay_ab[i] += gh * v_before
                        else:
                            scaled = gh * inverse_decay[i]
                            gv[i] = gh - scaled
                            gi = gh if charge == 1 else scaled
                            if parameters and charge == 1:
                                gdecay_ab[i] += scaled * (v_before - v_reset) * inverse_decay[i]
                            elif parameters:
                                gdecay_ab[i] -= scaled * (x_t[i] - (v_before - v_reset)) * inverse_decay[i]
                        if repeat:
                            gx_t[i] += gi
                        else:
                            gx_t[i] = gi
            gv0[a:b] = gv

    return compile_kernel(backward)


def _per_neuron(value: Tensor, shape: torch.Size, dtype: torch.dtype) -> np.ndarray:
    """Spread a parameter over the neurons, shape (M,); contiguous, or the kernels would not be vectorised."""
    spread = value.detach().to(dtype).expand(shape).numpy()
    # numpy and not torch: an OpenMP thread that torch wakes for this would go on spinning on a core that we need.
    return np.ascontiguousarray(spread).reshape(-1)


def _rows(x: Tensor, rows: int, dtype: torch.dtype) -> np.ndarray:
    """View or copy as contiguous (rows, M)."""
    return x.detach().to(dtype).contiguous().view(rows, -1).numpy()


def _constants(spec: NeuronSpec, dtype: torch.dtype) -> np.ndarray:
    """Numbers the kernels need in the membrane's own dtype, so that nothing inside is promoted to float64."""
    numbers = (0.0, 1.0, spec.v_reset, spec.surrogate.alpha, spec.surrogate.scale)
    return np.array(numbers, dtype=_NUMPY[dtype])


class _MultiStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, v: Tensor, decay: Tensor, threshold: Tensor, n_steps: int | None, spec: NeuronSpec
    ) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(x.dtype)
        steps = x.shape[0] if n_steps is None else n_steps
        x_rows = steps if n_steps is None else 1
        n = v.numel()
        spikes = _buffers.empty((steps, *v.shape), dtype)
        v_out = torch.empty(v.shape, dtype=dtype)
        keep = any(ctx.needs_input_grad)
        kept = torch.empty((math.ceil(steps / CHUNK) if keep else 0, n), dtype=dtype)
        if steps and n:
            current = _rows(x, x_rows, dtype)
            kernel = _forward_kernel(_NUMPY[dtype], CHARGES[spec.charge], spec.hard_reset, spec.strict, keep)
            state = [_per_neuron(value, v.shape, dtype) for value in (v, decay, threshold)]
            arrays = (spikes.view(steps, n).numpy(), kept.numpy(), v_out.view(-1).numpy())
            sizes = (n, steps, x_rows, BLOCK_BYTES // dtype.itemsize)
            run(kernel, n, n * steps, (*sizes, current, *state, _constants(spec, dtype), *arrays))
        else:
            v_out.copy_(v)
        ctx.save_for_backward(x, decay, threshold, kept)
        ctx.x_rows, ctx.spec, ctx.shape, ctx.v_dtype = x_rows, spec, v.shape, v.dtype
        return spikes.to(x.dtype), v_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor, grad_v: Tensor) -> tuple[Tensor | None, ...]:
        x, decay, threshold, kept = ctx.saved_tensors
        spec, shape, x_rows, dtype = ctx.spec, ctx.shape, ctx.x_rows, kept.dtype
        steps, n = grad_spikes.shape[0], kept.shape[1]
        gx = _buffers.empty((x_rows, n), dtype)
        gv = torch.empty(n, dtype=dtype)
        parameters = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        gdecay, gthreshold = (torch.zeros(n if parameters else 0, dtype=dtype) for _ in range(2))
        if steps and n:
            kernel = _backward_kernel(
                _NUMPY[dtype],
                CHARGES[spec.charge],
                spec.hard_reset,
                spec.strict,
                spec.detach_reset,
                spec.surrogate.number,
                spec.surrogate.normalised,
                parameters,
            )
            state = (_per_neuron(decay, shape, dtype), _per_neuron(threshold, shape, dtype), _constants(spec, dtype))
            inputs = (_rows(grad_spikes, steps, dtype), _per_neuron(grad_v, shape, dtype))
            outputs = (gx.numpy(), gv.numpy(), gdecay.numpy(), gthreshold.numpy())
            sizes = (n, steps, x_rows, BLOCK_BYTES // dtype.itemsize)
            run(kernel, n, n * steps, (*sizes, _rows(x, x_rows, dtype), kept.numpy(), *state, *inputs, *outputs))
        else:
            gx.zero_()
            gv.copy_(grad_v.reshape(-1))
        return (
            gx.view(x.shape).to(x.dtype),
            gv.view(shape).to(ctx.v_dtype),
            gdecay.view(shape).sum_to_size(decay.shape).to(decay.dtype) if parameters else None,
            gthreshold.view(shape).sum_to_size(threshold.shape).to(threshold.dtype) if parameters else None,
            None,
            None,
        )


def multi_step(
    x: Tensor, v: Tensor, decay: Tensor, threshold: Tensor, n_steps: int | None, spec: NeuronSpec
) -> tuple[Tensor, Tensor]:
    """Run the neurons over all steps; the contract is that of `snn.kernels.torch.multi_step`."""
    return _MultiStep.apply(x, v, decay, threshold, n_steps, spec)
