"""Delays on the CPU by shifted rows: a few taps a synapse in training (banded), one in evaluation (discrete)."""

# T steps, B batch, O outputs, I inputs, K kernels a connection, W taps a kernel, E taps a connection

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroloaders.checks import invalid
from snn.delays import numba_kernels, window_kernels
from snn.kernels.buffers import BufferPool

__all__ = ["padding", "shifted", "windowed"]

# Vectors of a window, its factors and sums are to fit into the registers.
_WIDEST_WINDOW = 12
_buffers = BufferPool()


def shifted(x: Tensor, coefficients: Tensor, lags: Tensor) -> Tensor:
    """Add up shifted inputs: ``y[t, b, o] = sum over i, e of coefficients[o, i, e] * x[t - lags[o, i, e], b, i]``.

    Parameters
    ----------
    x : Tensor, shape (T, B, I), on the CPU
    coefficients : Tensor, shape (O, I, E), float32 or float64
    lags : Tensor of int32, shape (O, I, E), at least 0

    Returns
    -------
    Tensor, shape (T, B, O), dtype of `coefficients`
        Differentiable with respect to `x` and `coefficients`.
    """
    return _Shifted.apply(x, coefficients, lags)


class _Shifted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficients: Tensor, lags: Tensor) -> Tensor:
        n_steps, n_batch, n_inputs = x.shape
        n_outputs = len(coefficients)
        ctx.x_dtype, ctx.n_inputs = x.dtype, n_inputs
        y = _buffers.empty((n_steps, n_batch, n_outputs), coefficients.dtype)
        if 0 in x.shape or 0 in coefficients.shape:
            ctx.save_for_backward(x.new_empty(0), coefficients, lags)
            return y.zero_()
        pad, lanes = padding(lags, n_steps), _lanes(n_batch, coefficients.dtype)
        rows = _pack(x, coefficients.dtype, pad, 0, lanes)
        offsets = _offsets(lags, pad, n_steps, lanes)
        out = _empty_rows(n_batch, n_outputs, n_steps, lanes, coefficients.dtype)
        numba_kernels.accumulate(_flat(rows), _matrix(coefficients), offsets, _flat_rows(out))
        numba_kernels.unpack(out.numpy(), y.numpy())
        keep = any(ctx.needs_input_grad[:2])
        ctx.save_for_backward(rows if keep and ctx.needs_input_grad[1] else x.new_empty(0), coefficients, lags)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, coefficients, lags = ctx.saved_tensors
        n_steps, n_batch, n_outputs = grad.shape
        dtype, n_inputs = coefficients.dtype, ctx.n_inputs
        need_x, need_coefficients, _ = ctx.needs_input_grad
        empty = 0 in grad.shape or 0 in coefficients.shape
        gx = _buffers.empty((n_steps, n_batch, n_inputs), dtype) if need_x else None
        gc = torch.empty_like(coefficients, memory_format=torch.contiguous_format) if need_coefficients else None
        if empty:
            return None if gx is None else gx.zero_(), None if gc is None else gc.zero_(), None
        pad, lanes = padding(lags, n_steps), _lanes(n_batch, dtype)
        if gc is not None:
            packed = _pack(grad, dtype, 0, 0, lanes)
            offsets = _offsets(lags, pad, n_steps, lanes)
            numba_kernels.correlate(_flat(rows), _flat_rows(packed), offsets, gc.view(n_outputs, -1).numpy())
        if gx is not None:
            # The same sum, seen from the inputs: what left at t arrived at t + lag.
            packed = _pack(grad, dtype, 0, pad, lanes)
            ahead = lags.transpose(0, 1).contiguous()
            starts = torch.arange(n_outputs, dtype=torch.int64)[None, :, None] * (n_steps + pad)
            offsets = ((starts + ahead.clamp(max=pad)) * lanes).to(torch.int32).view(n_inputs, -1).numpy()
            out = _empty_rows(n_batch, n_inputs, n_steps, lanes, dtype)
            back = coefficients.detach().transpose(0, 1).contiguous()
            numba_kernels.accumulate(_flat(packed), _matrix(back), offsets, _flat_rows(out))
            numba_kernels.unpack(out.numpy(), gx.numpy())
            gx = gx.to(ctx.x_dtype)
        return gx, gc, None


def windowed(x: Tensor, taps: Tensor, start: Tensor) -> Tensor:
    """Add up windows: ``y[t, b, o] = sum over i, k, w of taps[o, i, k, w] * x[t - start[o, i, k] - w, b, i]``.

    Parameters
    ----------
    x : Tensor, shape (T, B, I), on the CPU
    taps : Tensor, shape (O, I, K, W), float32 or float64
    start : Tensor of int32, shape (O, I, K), at least 0
        Lag of each first tap.

    Returns
    -------
    Tensor, shape (T, B, O), dtype of `taps`
        Differentiable with respect to `x` and `taps`.
    """
    n_batch, width, full = x.shape[1], taps.shape[-1], 64 // taps.dtype.itemsize
    if width <= _WIDEST_WINDOW and n_batch and -(-n_batch // full) * full <= 1.35 * n_batch:
        return _Windowed.apply(x, taps, start)
    # Few samples do not fill a vector with lanes: tap by tap, with vectors along time.
    lags = start[..., None] + torch.arange(width, dtype=torch.int32)
    shape = (*taps.shape[:2], -1)
    return shifted(x, taps.reshape(shape), lags.reshape(shape))


class _Windowed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, start: Tensor) -> Tensor:
        n_steps, n_batch, n_inputs = x.shape
        n_outputs, _, n_kernels, width = taps.shape
        ctx.x_dtype, ctx.x_shape = x.dtype, x.shape
        if 0 in x.shape or 0 in taps.shape:
            ctx.save_for_backward(x.new_empty(0), taps, start)
            return torch.zeros((n_steps, n_batch, n_outputs), dtype=taps.dtype)
        y = _buffers.empty((n_steps, n_batch, n_outputs), taps.dtype)
        pad = padding(start, n_steps) + width - 1
        lanes = 64 // taps.dtype.itemsize
        rows = _pack(x, taps.dtype, pad, 0, lanes)
        out = _empty_rows(n_batch, n_outputs, n_steps, lanes, taps.dtype)
        firsts = _firsts(start, pad, n_steps)
        window_kernels.accumulate_windows(_steps(rows), _synapses(taps), firsts, out.numpy())
        numba_kernels.unpack(out.numpy(), y.numpy())
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else x.new_empty(0), taps, start)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, taps, start = ctx.saved_tensors
        n_steps, n_batch, n_inputs = ctx.x_shape
        n_outputs, _, n_kernels, width = taps.shape
        need_x, need_taps, _ = ctx.needs_input_grad
        gx = _buffers.empty(ctx.x_shape, taps.dtype) if need_x else None
        gt = torch.empty((n_outputs, n_inputs * n_kernels, width), dtype=taps.dtype) if need_taps else None
        if 0 in ctx.x_shape or 0 in taps.shape:
            return None if gx is None else gx.zero_(), None if gt is None else gt.zero_().view(taps.shape), None
        reach, lanes = padding(start, n_steps), 64 // taps.dtype.itemsize
        pad = reach + width - 1
        if gt is not None:
            packed = _pack(grad, taps.dtype, 0, 0, lanes)
            window_kernels.correlate_windows(_steps(rows), packed.numpy(), _firsts(start, pad, n_steps), gt.numpy())
        if gx is not None:
            # The same sum, seen from the inputs: what left at t arrived at t + lag. So the last tap comes first.
            packed = _pack(grad, taps.dtype, 0, pad, lanes)
            places = torch.arange(n_outputs, dtype=torch.int32)[None, :, None] * (n_steps + pad) + width - 1
            firsts = (places + start.transpose(0, 1).clamp(max=reach)).reshape(n_inputs, -1).contiguous().numpy()
            back = taps.detach().transpose(0, 1).flip(-1).reshape(n_inputs, -1, width).contiguous().numpy()
            out = _empty_rows(n_batch, n_inputs, n_steps, lanes, taps.dtype)
            window_kernels.accumulate_windows(_steps(packed), back, firsts, out.numpy())
            numba_kernels.unpack(out.numpy(), gx.numpy())
            gx = gx.to(ctx.x_dtype)
        return gx, None if gt is None else gt.view(taps.shape), None


def _firsts(start: Tensor, pad: int, n_steps: int) -> np.ndarray:
    """Return where the first tap of each synapse reads at step 0, shape (O, I * K)."""
    n_outputs, n_inputs, _ = start.shape
    places = torch.arange(n_inputs, dtype=torch.int32)[None, :, None] * (n_steps + pad) + pad
    return (places - start.clamp(max=n_steps)).reshape(n_outputs, -1).contiguous().numpy()


def _synapses(taps: Tensor) -> np.ndarray:
    """Return taps as (O, I * K, W)."""
    return taps.detach().flatten(1, 2).contiguous().numpy()


def _steps(rows: Tensor) -> np.ndarray:
    """Return rows (N, C, L, V) as (N, C * L, V)."""
    return rows.view(len(rows), -1, rows.shape[-1]).numpy()


def padding(lags: Tensor, n_steps: int) -> int:
    """Return how many zeros keep every shift inside its row; what is delayed beyond the end reads zeros only."""
    low, high = (int(bound) for bound in torch.aminmax(lags))
    if low < 0:
        # An address outside the row would be read.
        raise invalid("delay", "be at least 0 and no NaN", f"{low} steps", "Look at the learning rate of the delays.")
    return min(high, n_steps)


def _lanes(n_batch: int, dtype: torch.dtype) -> int:
    """Return how many samples lie side by side: a cache line of them, or fewer where that would pad too much."""
    lanes = 64 // dtype.itemsize
    while lanes > 1 and -(-n_batch // lanes) * lanes > 1.15 * n_batch:
        lanes //= 2
    return lanes


def _empty_rows(n_batch: int, n_channels: int, length: int, lanes: int, dtype: torch.dtype) -> Tensor:
    return _buffers.empty((-(-n_batch // lanes), n_channels, length, lanes), dtype)


def _pack(steps: Tensor, dtype: torch.dtype, before: int, behind: int, lanes: int) -> Tensor:
    n_steps, n_batch, n_channels = steps.shape
    rows = _empty_rows(n_batch, n_channels, before + n_steps + behind, lanes, dtype)
    numba_kernels.pack(steps.detach().to(dtype).contiguous().numpy(), rows.numpy(), before)
    return rows


def _offsets(lags: Tensor, pad: int, n_steps: int, lanes: int) -> np.ndarray:
    """Return where each shifted input row begins, shape (O, I * E)."""
    n_outputs, n_inputs, _ = lags.shape
    starts = torch.arange(n_inputs, dtype=torch.int32)[None, :, None] * (n_steps + pad) + pad
    return ((starts - lags.clamp(max=pad)) * lanes).reshape(n_outputs, -1).numpy()


def _matrix(coefficients: Tensor) -> np.ndarray:
    return coefficients.detach().contiguous().view(len(coefficients), -1).numpy()


def _flat(rows: Tensor) -> np.ndarray:
    return rows.view(len(rows), -1).numpy()


def _flat_rows(rows: Tensor) -> np.ndarray:
    return rows.view(*rows.shape[:2], -1).numpy()
