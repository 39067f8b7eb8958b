"""Delays by the Fourier transform: the cost hardly depends on how long or how wide they are."""

# T steps, B batch, D lags, O outputs, I inputs, F frequencies

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["convolve"]

# Longer kernels are transformed by the fast algorithm; up to here a matrix product is faster.
_LONGEST_BY_MATRIX = 128


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve causally in time: ``y[t, b, o] = sum over d, i of kernel[o, i, d] * x[t - d, b, i]``.

    Parameters
    ----------
    x : Tensor, shape (T, B, I)
    kernel : Tensor, shape (O, I, D), float32 or float64

    Returns
    -------
    Tensor, shape (T, B, O), dtype of `kernel`
    """
    if 0 in x.shape or 0 in kernel.shape:
        return x.new_zeros((*x.shape[:2], len(kernel)), dtype=kernel.dtype) + 0 * (x.sum() + kernel.sum())
    # Transforms and complex products exist in full precision only.
    with torch.autocast(x.device.type, enabled=False):
        return _Convolve.apply(x.to(kernel.dtype), kernel[..., : x.shape[0]])


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        n = _length(x.shape[0] + kernel.shape[-1] - 1)
        spectrum = torch.fft.rfft(x, n=n, dim=0)
        ctx.save_for_backward(spectrum if ctx.needs_input_grad[1] else None, kernel)
        ctx.n, ctx.n_steps = n, x.shape[0]
        y = torch.bmm(spectrum, _transform(kernel, n).mT)
        return torch.fft.irfft(y, n=n, dim=0)[: x.shape[0]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        spectrum, kernel = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            return _Convolve._gradients(ctx, grad.to(kernel.dtype), spectrum, kernel)

    @staticmethod
    def _gradients(
        ctx: Any, grad: Tensor, spectrum: Tensor | None, kernel: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        n, n_steps = ctx.n, ctx.n_steps
        through = torch.fft.rfft(grad, n=n, dim=0)
        gx = gk = None
        if ctx.needs_input_grad[0]:
            gx = torch.fft.irfft(torch.bmm(through, _transform(kernel, n).conj()), n=n, dim=0)[:n_steps]
        if ctx.needs_input_grad[1]:
            gk = _inverse(torch.bmm(through.mT, spectrum.conj()), n, kernel.shape[-1])
        return gx, gk


def _length(least: int) -> int:
    """Return the next length whose prime factors are 2, 3 and 5."""
    n = least
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


@lru_cache(maxsize=16)
def _table(n: int, n_lags: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return cosines and minus sines of all frequencies at all lags, shape (2 F, D)."""
    turns = torch.arange(n // 2 + 1)[:, None] * torch.arange(n_lags)[None] % n
    angle = 2 * math.pi / n * turns.double()
    return torch.cat([angle.cos(), -angle.sin()]).to(device, dtype)


def _transform(kernel: Tensor, n: int) -> Tensor:
    """Return the spectrum over n points of a kernel (O, I, D), shape (F, O, I)."""
    if kernel.shape[-1] > _LONGEST_BY_MATRIX:
        return torch.fft.rfft(kernel, n=n).permute(2, 0, 1)
    table = _table(n, kernel.shape[-1], kernel.dtype, kernel.device)
    # Lags first: a product with rows that are long and side by side is twice as fast.
    rows = kernel.flatten(0, 1).T.contiguous()
    return torch.complex(*(table @ rows).view(2, n // 2 + 1, *kernel.shape[:2]))


def _inverse(spectrum: Tensor, n: int, n_lags: int) -> Tensor:
    """Return the first `n_lags` of the n points that belong to a spectrum (F, O, I), shape (O, I, D)."""
    if n_lags > _LONGEST_BY_MATRIX:
        return torch.fft.irfft(spectrum, n=n, dim=0)[:n_lags].permute(1, 2, 0)
    # Every frequency but the first, and the last of an even length, stands for itself and its mirror image.
    count = torch.full((n // 2 + 1, 1), 2.0 / n, dtype=spectrum.real.dtype, device=spectrum.device)
    count[0] = 1 / n
    if n % 2 == 0:
        count[-1] = 1 / n
    table = _table(n, n_lags, spectrum.real.dtype, spectrum.device).view(2, -1, n_lags) * count
    flat = spectrum.flatten(1)
    rows = torch.addmm(table[0].T @ flat.real, table[1].T, flat.imag)
    return rows.T.view(*spectrum.shape[1:], n_lags)
