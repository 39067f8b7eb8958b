"""Delays by the Fourier transform: the cost hardly depends on how wide they are.

Overlap-save in matrix products: time is cut into blocks, their spectra, the spectrum of the kernels and the way back
are products with tables of cosines and sines, and each frequency is a product of its own. All of it goes by groups of
outputs small enough to stay in the cache: a spectrum is larger than its kernel, and moving it costs more than making
it anew.
"""

# T steps, B batch, D lags, O outputs, I inputs, F frequencies, M = blocks * B

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Blocks", "blocks", "convolve"]

# Writing a number of a kernel's spectrum and reading it again takes as long as so many multiply-adds (2 cores).
_MOVE_COST = 25
# What the spectrum of a group of outputs may take: enough to fill a GPU; on a CPU more is hardly quicker, and costs
# memory.
_GROUP_BYTES = {"cpu": 2**20}
_GROUP_BYTES_ELSEWHERE = 256 * 2**20
_LEAST_GROUP = 32  # narrower products are slow
# Longer kernels go in pieces: the product with a table costs as much as lags times frequencies.
_LONGEST_PIECE = 256


class Blocks(NamedTuple):
    """How time is cut.

    Attributes
    ----------
    n : int
        Points of the transform, even: steps of a block and what the longest lag needs before them.
    count : int
        Number of blocks.
    length : int
        Steps of a block.
    cost : int
        Multiply-adds a synapse, once through; what is moved is counted in.
    """

    n: int
    count: int
    length: int
    cost: int


@lru_cache(maxsize=256)
def blocks(n_steps: int, n_batch: int, n_lags: int) -> Blocks:
    """Return the cut of T steps that costs least.

    Parameters
    ----------
    n_steps, n_batch, n_lags : int
        T, B and D, each at least 1.

    Returns
    -------
    Blocks
    """
    choices = []
    # Blocks much shorter than the kernel only repeat its transform.
    for count in range(1, max(1, 4 * n_steps // n_lags) + 1):
        n = math.ceil(n_steps / count) + n_lags - 1
        n += n % 2
        cost = (n // 2 + 1) * (2 * n_lags + 2 * _MOVE_COST + 4 * count * n_batch)
        choices.append(Blocks(n, count, n - n_lags + 1, cost))
    return min(choices, key=lambda choice: choice.cost)


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
    # Half precision has too few digits for sums of waves.
    with torch.autocast(x.device.type, enabled=False):
        x, kernel = x.to(kernel.dtype), kernel[..., : x.shape[0]]
        n_pieces = math.ceil(kernel.shape[-1] / _LONGEST_PIECE)
        pieces = kernel.chunk(n_pieces, -1)
        y = _Convolve.apply(x, pieces[0])
        late = pieces[0].shape[-1]
        for piece in pieces[1:]:
            y = y + F.pad(_Convolve.apply(x[:-late], piece), (0, 0, 0, 0, late, 0))
            late += piece.shape[-1]
        return y


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        # The kernel is needed for the gradient to the input alone, and is the largest of all.
        ctx.save_for_backward(x, kernel if ctx.needs_input_grad[0] else None)
        ctx.kernel_shape = kernel.shape
        cut = blocks(*x.shape[:2], kernel.shape[2])
        tables = _tables(cut.n, kernel.shape[2], kernel.dtype, kernel.device)
        signal = _Signal.of(x, cut, tables)
        n_batch, n_inputs = x.shape[1:]
        y = x.new_empty(cut.count, cut.length, n_batch, len(kernel))
        for group in _groups(kernel.shape, x, cut):
            real, imag = _spectrum(kernel[group], tables)
            product = torch.bmm(signal.plain, real.mT).baddbmm_(signal.turned, imag.mT)
            rows = product.view(-1, cut.count, n_batch * (group.stop - group.start))
            for j in range(cut.count):
                y[j, :, :, group] = torch.mm(tables.to_output, rows[:, j]).view(cut.length, n_batch, -1)
        return y.view(-1, n_batch, len(kernel))[: len(x)]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, kernel = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            return _gradients(x, kernel, ctx.kernel_shape, grad.to(x.dtype), ctx.needs_input_grad[1])


def _gradients(
    x: Tensor, kernel: Tensor | None, kernel_shape: torch.Size, grad: Tensor, to_kernel: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients to the input, where its kernel is given, and to the kernel, where it is wanted."""
    n_steps, n_batch, n_inputs = x.shape
    n_lags = kernel_shape[2]
    cut = blocks(n_steps, n_batch, n_lags)
    tables = _tables(cut.n, n_lags, x.dtype, x.device)
    signal = _Signal.of(x, cut, tables) if to_kernel else None
    gk = x.new_empty(kernel_shape) if to_kernel else None
    n_frequencies, half = cut.n // 2 + 1, cut.count * n_batch
    gx = x.new_zeros(n_frequencies, 2 * half, n_inputs) if kernel is not None else None
    for group in _groups(kernel_shape, x, cut):
        n_outputs = group.stop - group.start
        padded = grad.new_zeros(cut.count * cut.length, n_batch, n_outputs)
        padded[:n_steps] = grad[:, :, group]
        # Per frequency: real part, imaginary part, minus the real part.
        through = grad.new_empty(len(tables.from_grad), cut.count, n_batch * n_outputs)
        for j, block in enumerate(padded.view(cut.count, cut.length, -1)):
            torch.mm(tables.from_grad, block, out=through[:, j])
        through = through.view(n_frequencies, 3 * half, n_outputs)
        plain, turned = through[:, : 2 * half], through[:, half:]
        if gk is not None:
            product = x.new_empty(2, n_frequencies, n_outputs, n_inputs)
            torch.bmm(plain.mT, signal.plain, out=product[0])
            torch.bmm(plain.mT, signal.turned, out=product[1])
            torch.mm(product.view(2 * n_frequencies, -1).T, tables.to_kernel, out=gk[group].view(-1, n_lags))
        if gx is not None:
            real, imag = _spectrum(kernel[group], tables)
            gx.baddbmm_(plain, real).baddbmm_(turned, imag)
    return None if gx is None else _overlapping(gx, x, cut, tables), gk


class _Signal(NamedTuple):
    """Spectra of the blocks of an input, as rows of real numbers.

    Attributes
    ----------
    plain : Tensor, shape (F, 2 M, I)
        Real parts, then imaginary parts.
    turned : Tensor, shape (F, 2 M, I)
        The same times i.
    """

    plain: Tensor
    turned: Tensor

    @classmethod
    def of(cls, x: Tensor, cut: Blocks, tables: _Tables) -> _Signal:
        n_steps, n_batch, n_inputs = x.shape
        before = cut.n - cut.length
        steps = x.reshape(n_steps, -1)
        # Per frequency: minus the imaginary part, real part, imaginary part.
        out = x.new_empty(len(tables.from_input), cut.count, n_batch * n_inputs)
        for j in range(cut.count):
            # Before the first step and behind the last there are only zeros.
            start = j * cut.length - before
            first, last = max(start, 0), min(start + cut.n, n_steps)
            torch.mm(tables.from_input[:, first - start : last - start], steps[first:last], out=out[:, j])
        half = cut.count * n_batch
        planes = out.view(cut.n // 2 + 1, 3 * half, n_inputs)
        return cls(planes[:, half:], planes[:, : 2 * half])


def _overlapping(spectra: Tensor, x: Tensor, cut: Blocks, tables: _Tables) -> Tensor:
    """Return the sum over blocks of what belongs to spectra (F, 2 M, I), in the shape of `x`."""
    before = cut.n - cut.length
    whole = x.new_zeros(before + cut.count * cut.length, x.shape[1] * x.shape[2])
    rows = spectra.view(-1, cut.count, x.shape[1] * x.shape[2])
    for j in range(cut.count):
        whole[j * cut.length :][: cut.n].addmm_(tables.back, rows[:, j])
    return whole[before : before + len(x)].view(x.shape)


def _groups(kernel_shape: torch.Size, x: Tensor, cut: Blocks) -> list[slice]:
    """Return slices of the outputs whose spectra are not too large."""
    n_outputs, n_inputs, _ = kernel_shape
    limit = _GROUP_BYTES.get(x.device.type, _GROUP_BYTES_ELSEWHERE)
    each = 2 * (cut.n // 2 + 1) * n_inputs * x.element_size()
    n_groups = math.ceil(n_outputs / max(_LEAST_GROUP, limit // each))
    size = math.ceil(n_outputs / n_groups)
    return [slice(start, min(n_outputs, start + size)) for start in range(0, n_outputs, size)]


def _spectrum(kernel: Tensor, tables: _Tables) -> Tensor:
    """Return real and imaginary part of the spectrum of a kernel (O, I, D), shape (2, F, O, I)."""
    n_outputs, n_inputs, n_lags = kernel.shape
    return torch.mm(tables.from_kernel, kernel.reshape(-1, n_lags).T).view(2, -1, n_outputs, n_inputs)


class _Tables(NamedTuple):
    """Cosines and sines that lead from time to frequency and back; a row of F each, or (plane, F), or (F, plane)."""

    from_input: Tensor  # (F * 3, n): -imag, real, imag
    from_grad: Tensor  # (F * 3, length): real, imag, -real; of a block that lies behind n - length zeros
    from_kernel: Tensor  # (2 * F, D): real, imag
    to_output: Tensor  # (length, F * 2): the steps behind the overlap
    to_kernel: Tensor  # (2 * F, D)
    back: Tensor  # (n, F * 2)


@lru_cache(maxsize=16)
def _tables(n: int, n_lags: int, dtype: torch.dtype, device: torch.device) -> _Tables:
    turns = torch.arange(n // 2 + 1)[:, None] * torch.arange(n)[None] % n
    angle = 2 * math.pi / n * turns.double()
    real, imag = angle.cos(), -angle.sin()
    # Every frequency but the first and the last stands for itself and its mirror image.
    count = torch.full((n // 2 + 1, 1), 2.0 / n, dtype=torch.double)
    count[0] = count[-1] = 1 / n

    def rows(planes: list[Tensor], axis: int, steps: slice) -> Tensor:
        whole = torch.stack(planes, axis).flatten(0, 1)[:, steps]
        return whole.to(device, dtype).contiguous()

    everything, lags, after = slice(None), slice(0, n_lags), slice(n_lags - 1, None)
    return _Tables(
        from_input=rows([-imag, real, imag], 1, everything),
        from_grad=rows([real, imag, -real], 1, after),
        from_kernel=rows([real, imag], 0, lags),
        to_output=rows([count * real, count * imag], 1, after).T.contiguous(),
        to_kernel=rows([count * real, count * imag], 0, lags),
        back=rows([count * real, count * imag], 1, everything).T.contiguous(),
    )
