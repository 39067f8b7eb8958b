"""The CPU kernels: a block of neurons stays in cache while all its time steps go by.

The forward pass reads each input once and writes each spike once. For the backward pass it keeps the membrane of
every `CHUNK`-th step but the first and nothing else: the backward pass runs each chunk again from there, into scratch
memory that fits the cache, and sweeps back through it. Threads split the neurons (see `threads`); no number depends
on how.

Kernels are compiled per combination of options, which are constants to the compiler: branches on them vanish, and
what is left of each inner loop becomes vector instructions. Compiled code is cached on disk beside this file.
"""

# T time, M neurons (all axes but time, flattened)

from __future__ import annotations

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


@numba.njit(nogil=True, inline="always")
def _fill(row, values, a, step):
    """Copy the values of neurons a, a + 1, ... into `row`; one value serves all if `step` is 0."""
    if step:
        row[:] = values[a : a + row.shape[0]]
    else:
        row[:] = values[0]


@cache
def _forward_kernel(dtype: type, charge: int, hard: bool, strict: bool, keep: bool) -> Any:
    """Compile the forward pass for one combination of options; `keep` writes the membranes for the backward pass."""

    def forward(context):
        c = carray(context, 17)
        n, n_steps, x_rows, block = c[2], c[3], c[4], c[5]
        v_step, decay_step, threshold_step = c[6], c[7], c[8]
        start, stop = my_range(c[0], c[1], block)
        x = carray(address(c[9]), (x_rows, n), dtype)
        v0 = carray(address(c[10]), (1 + (n - 1) * v_step,), dtype)
        decay = carray(address(c[11]), (1 + (n - 1) * decay_step,), dtype)
        threshold = carray(address(c[12]), (1 + (n - 1) * threshold_step,), dtype)
        constants = carray(address(c[13]), (5,), dtype)
        spikes = carray(address(c[14]), (n_steps, n), dtype)
        kept = carray(address(c[15]), ((n_steps - 1) // CHUNK, n), dtype)
        v_out = carray(address(c[16]), (n,), dtype)
        zero, one, v_reset = constants[0], constants[1], constants[2]
        repeat = x_rows < n_steps
        rows = np.empty((3, block), dtype)
        for a in range(start, stop, block):
            b = min(a + block, stop)
            v, decay_ab, threshold_ab = rows[0, : b - a], rows[1, : b - a], rows[2, : b - a]
            _fill(v, v0, a, v_step)
            _fill(decay_ab, decay, a, decay_step)
            _fill(threshold_ab, threshold, a, threshold_step)
            for t in range(n_steps):
                if keep and t > 0 and t % CHUNK == 0:
                    kept[t // CHUNK - 1, a:b] = v
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


@numba.njit(nogil=True, inline="always")
def _give(out, row, a, block, step):
    """Write a block's gradients of a parameter: one per neuron, or their sum if one value serves all."""
    if step:
        out[a : a + row.shape[0]] = row
    else:
        # Sixteen sums side by side are a vector instruction; one sum would wait for itself at every element.
        sums = np.zeros(16)
        whole = row.shape[0] // 16 * 16
        for i in range(0, whole, 16):
            for k in range(16):
                sums[k] += row[i + k]
        total = 0.0
        for k in range(16):
            total += sums[k]
        for i in range(whole, row.shape[0]):
            total += row[i]
        out[a // block] = total


@cache
def _backward_kernel(
    dtype: type, charge: int, hard: bool, strict: bool, detach: bool, shape: int, normalised: bool, parameters: bool
) -> Any:
    """Compile the backward pass for one combination of options; `parameters` adds those of decay and threshold."""
    single = dtype is np.float32

    def backward(context):
        c = carray(context, 23)
        n, n_steps, x_rows, block = c[2], c[3], c[4], c[5]
        v_step, decay_step, threshold_step, gv_step, need_gv0 = c[6], c[7], c[8], c[9], c[10]
        start, stop = my_range(c[0], c[1], block)
        n_blocks = (n + block - 1) // block
        x = carray(address(c[11]), (x_rows, n), dtype)
        v0 = carray(address(c[12]), (1 + (n - 1) * v_step,), dtype)
        decay = carray(address(c[13]), (1 + (n - 1) * decay_step,), dtype)
        threshold = carray(address(c[14]), (1 + (n - 1) * threshold_step,), dtype)
        constants = carray(address(c[15]), (5,), dtype)
        kept = carray(address(c[16]), ((n_steps - 1) // CHUNK, n), dtype)
        gs = carray(address(c[17]), (n_steps, n), dtype)
        gv_out = carray(address(c[18]), (1 + (n - 1) * gv_step,), dtype)
        gx = carray(address(c[19]), (x_rows, n), dtype)
        gv0 = carray(address(c[20]), (n,), dtype)
        gdecay = carray(address(c[21]), (n if decay_step else n_blocks,), dtype)
        gthreshold = carray(address(c[22]), (n if threshold_step else n_blocks,), dtype)
        zero, one, v_reset, alpha, scale = constants[0], constants[1], constants[2], constants[3], constants[4]
        half = one / (one + one)
        slope = half * alpha * (one * np.pi)
        gauss = alpha / np.sqrt(one * np.pi)
        repeat = x_rows < n_steps
        h_chunk = np.empty((CHUNK, block), dtype)
        rows = np.empty((9, block), dtype)
        for a in range(start, stop, block):
            b = min(a + block, stop)
            m = b - a
            v, gv, inverse, inverse_decay, kept_t = rows[0, :m], rows[1, :m], rows[2, :m], rows[3, :m], rows[4, :m]
            decay_ab, threshold_ab, gdecay_ab, gthreshold_ab = rows[5, :m], rows[6, :m], rows[7, :m], rows[8, :m]
            _fill(decay_ab, decay, a, decay_step)
            _fill(threshold_ab, threshold, a, threshold_step)
            _fill(gv, gv_out, a, gv_step)
            for i in range(m):
                inverse[i] = one / (threshold_ab[i] if normalised else one)
                if charge != 0:
                    inverse_decay[i] = one / decay_ab[i]
            if parameters:
                gdecay_ab[:] = zero
                gthreshold_ab[:] = zero
            if repeat:
                gx[0, a:b] = zero
            for chunk in range((n_steps - 1) // CHUNK, -1, -1):
                first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, n_steps)
                if chunk == 0:
                    _fill(kept_t, v0, a, v_step)
                else:
                    kept_t[:] = kept[chunk - 1, a:b]
                v[:] = kept_t
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
            if need_gv0:
                gv0[a:b] = gv
            if parameters:
                _give(gdecay, gdecay_ab, a, block, decay_step)
                _give(gthreshold, gthreshold_ab, a, block, threshold_step)

    return compile_kernel(backward)


def _values(value: Tensor, shape: torch.Size, dtype: torch.dtype) -> tuple[np.ndarray, int]:
    """Return a parameter's values and the step between neurons: 1 with one value per neuron, 0 with one for all.

    Contiguous, or the kernels would not be vectorised; by numpy and not torch, because an OpenMP thread that torch
    wakes for this would go on spinning on a core that the kernel needs.
    """
    spread = value.detach().to(dtype).expand(shape)
    if not any(stride for stride, size in zip(spread.stride(), shape, strict=True) if size > 1):
        return spread.as_strided((1,), (1,)).numpy(), 0
    return np.ascontiguousarray(spread.numpy()).reshape(-1), 1


def _rows(x: Tensor, rows: int, dtype: torch.dtype) -> np.ndarray:
    """View or copy as contiguous (rows, M)."""
    return x.detach().to(dtype).contiguous().view(rows, -1).numpy()


def _constants(spec: NeuronSpec, dtype: torch.dtype) -> np.ndarray:
    """Numbers the kernels need in the membrane's own dtype, so that nothing inside is promoted to float64."""
    numbers = (0.0, 1.0, spec.v_reset, spec.surrogate.alpha, spec.surrogate.scale)
    return np.array(numbers, dtype=_NUMPY[dtype])


def _block(n: int, dtype: torch.dtype) -> int:
    """Return how many neurons go together: no more than fit the cache, and enough blocks for some threads."""
    return max(64, min(BLOCK_BYTES // dtype.itemsize, n // 16 // 16 * 16))


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
        v_out = _buffers.empty(v.shape, dtype)
        keep = any(ctx.needs_input_grad)
        kept = torch.empty((max(0, steps - 1) // CHUNK if keep else 0, n), dtype=dtype)
        if steps and n:
            kernel = _forward_kernel(_NUMPY[dtype], CHARGES[spec.charge], spec.hard_reset, spec.strict, keep)
            current, block = _rows(x, x_rows, dtype), _block(n, dtype)
            state, state_steps = zip(*(_values(value, v.shape, dtype) for value in (v, decay, threshold)), strict=True)
            arrays = (spikes.view(steps, n).numpy(), kept.numpy(), v_out.view(-1).numpy())
            sizes = (n, steps, x_rows, block, *state_steps)
            run(kernel, n, block, n * steps, (*sizes, current, *state, _constants(spec, dtype), *arrays))
        else:
            v_out.copy_(v)
        ctx.save_for_backward(x, v, decay, threshold, kept)
        ctx.x_rows, ctx.spec, ctx.steps = x_rows, spec, steps
        ctx.set_materialize_grads(False)
        return spikes.to(x.dtype), v_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_v: Tensor | None) -> tuple[Tensor | None, ...]:
        x, v, decay, threshold, kept = ctx.saved_tensors
        spec, shape, x_rows, steps, dtype = ctx.spec, v.shape, ctx.x_rows, ctx.steps, kept.dtype
        n, block = v.numel(), _block(v.numel(), dtype)
        _, need_v, need_decay, need_threshold, *_ = ctx.needs_input_grad
        parameters = need_decay or need_threshold
        grad_spikes = x.new_zeros((steps, *shape)) if grad_spikes is None else grad_spikes
        grad_v = torch.zeros((), dtype=dtype) if grad_v is None else grad_v
        gx = _buffers.empty((x_rows, n), dtype)
        gv0 = torch.empty(n if need_v else 0, dtype=dtype)
        values = [_values(value, shape, dtype) for value in (v, decay, threshold, grad_v)]
        (v_row, v_step), (decay_row, decay_step), (threshold_row, threshold_step), (gv_row, gv_step) = values
        n_blocks = -(-n // block)
        gdecay = torch.zeros((n if decay_step else n_blocks) if parameters else 0, dtype=dtype)
        gthreshold = torch.zeros((n if threshold_step else n_blocks) if parameters else 0, dtype=dtype)
        if steps and n:
            s = spec.surrogate
            options = (CHARGES[spec.charge], spec.hard_reset, spec.strict, spec.detach_reset, s.number, s.normalised)
            kernel = _backward_kernel(_NUMPY[dtype], *options, parameters)
            sizes = (n, steps, x_rows, block, v_step, decay_step, threshold_step, gv_step, need_v)
            inputs = (_rows(x, x_rows, dtype), v_row, decay_row, threshold_row, _constants(spec, dtype), kept.numpy())
            grads = (_rows(grad_spikes, steps, dtype), gv_row)
            outputs = (gx.numpy(), gv0.numpy(), gdecay.numpy(), gthreshold.numpy())
            run(kernel, n, block, n * steps, (*sizes, *inputs, *grads, *outputs))
        else:
            gx.zero_()
            gv0.copy_(grad_v.expand(shape).reshape(-1)[: gv0.numel()])
        return (
            gx.view(x.shape).to(x.dtype),
            gv0.view(shape).to(v.dtype) if need_v else None,
            _parameter_gradient(gdecay, decay, shape, decay_step) if need_decay else None,
            _parameter_gradient(gthreshold, threshold, shape, threshold_step) if need_threshold else None,
            None,
            None,
        )


def _parameter_gradient(grad: Tensor, parameter: Tensor, shape: torch.Size, step: int) -> Tensor:
    """Sum the gradients of neurons, or of blocks of neurons, that share a value of the parameter."""
    total = grad.view(shape).sum_to_size(parameter.shape) if step else grad.sum().expand(parameter.shape)
    return total.to(parameter.dtype)


def multi_step(
    x: Tensor, v: Tensor, decay: Tensor, threshold: Tensor, n_steps: int | None, spec: NeuronSpec
) -> tuple[Tensor, Tensor]:
    """Run the neurons over all steps; the contract is that of `snn.kernels.torch.multi_step`."""
    return _MultiStep.apply(x, v, decay, threshold, n_steps, spec)
