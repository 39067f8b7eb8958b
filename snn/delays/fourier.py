"""Delays by the Fourier transform: the cost hardly depends on how wide they are.

Overlap-save: time is cut into blocks, and in the frequency domain each frequency is a matrix product of its own, of
real numbers. All of it goes by groups of outputs small enough to stay in the cache: a spectrum is larger than its
kernel, and moving it costs more than making it anew. Time and lags come first everywhere, so that transforms run along
the first axis, over columns that lie side by side.
"""

# T steps, B batch, D lags, O outputs, I inputs, F frequencies, M = blocks * B

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snn.delays.waves import WAVES, FastTransform, Tables

__all__ = ["Blocks", "blocks", "convolve"]

# Multiply-adds that take as long (2 cores) as to write a number of a kernel's spectrum and read it again, ...
_MOVE_COST = 25
# ... and n log2(n) times so many are as long as a fast transform of n points, with its sorting into planes.
_FAST_COST = 16
# What the spectrum of a group of outputs may take: enough to fill a GPU; on a CPU more is hardly quicker, and costs
# memory.
_GROUP_BYTES = {"cpu": 2**20}
_GROUP_BYTES_ELSEWHERE = 256 * 2**20
_LEAST_GROUP = 32  # narrower products are slow


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
    waves : str
        A key of `snn.delays.waves.WAVES`.
    cost : int
        Multiply-adds a synapse, once through; what is moved is counted in.
    """

    n: int
    count: int
    length: int
    waves: str
    cost: int

    @property
    def n_frequencies(self) -> int:
        """F."""
        return self.n // 2 + 1

    @property
    def before(self) -> int:
        """Points of a block that only bring what the longest lag needs."""
        return self.n - self.length

    def transform(self, n_lags: int, x: Tensor) -> Tables | FastTransform:
        """Return the way to the frequencies and back, for numbers like those of `x`."""
        return WAVES[self.waves](self.n, n_lags, self.length, x.dtype, x.device)


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
        shortest = math.ceil(n_steps / count) + n_lags - 1
        for waves, n in (("tables", shortest + shortest % 2), ("fast", _quick(shortest))):
            transform = (n // 2 + 1) * 2 * n_lags if waves == "tables" else _FAST_COST * n * math.log2(n)
            cost = transform + (n // 2 + 1) * (2 * _MOVE_COST + 4 * count * n_batch)
            choices.append(Blocks(n, count, n - n_lags + 1, waves, round(cost)))
    return min(choices, key=lambda choice: choice.cost)


def _quick(n: int) -> int:
    """Return the next even number without a prime factor above 5: fast transforms of it are fast."""
    n += n % 2
    while True:
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 2


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve causally in time: ``y[t, b, o] = sum over d, i of kernel[d, o, i] * x[t - d, b, i]``.

    Parameters
    ----------
    x : Tensor, shape (T, B, I)
    kernel : Tensor, shape (D, O, I), float32 or float64

    Returns
    -------
    Tensor, shape (T, B, O), dtype of `kernel`
    """
    if 0 in x.shape or 0 in kernel.shape:
        return x.new_zeros((*x.shape[:2], kernel.shape[1]), dtype=kernel.dtype) + 0 * (x.sum() + kernel.sum())
    # Half precision has too few digits for sums of waves.
    with torch.autocast(x.device.type, enabled=False):
        return _Convolve.apply(x.to(kernel.dtype), kernel[: x.shape[0]])


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        # The kernel is needed for the gradient to the input alone, and is the largest of all.
        ctx.save_for_backward(x, kernel if ctx.needs_input_grad[0] else None)
        ctx.kernel_shape = kernel.shape
        n_batch, cut = x.shape[1], blocks(*x.shape[:2], len(kernel))
        transform = cut.transform(len(kernel), x)
        signal = _Signal.of(x, cut, transform, cut.before)
        y = x.new_empty(cut.count, cut.length, n_batch, kernel.shape[1])
        for group in _groups(kernel.shape, x, cut):
            real, imag = _spectrum(kernel[:, group], transform)
            product = torch.bmm(signal.plain, real.mT).baddbmm_(signal.turned, imag.mT)
            rows = product.view(cut.n_frequencies, 2, cut.count, -1)
            for j in range(cut.count):
                y[j, :, :, group] = transform.steps(rows[:, :, j]).view(cut.length, n_batch, -1)
        return y.view(-1, *y.shape[2:])[: len(x)]

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
    n_lags, _, n_inputs = kernel_shape
    cut = blocks(*x.shape[:2], n_lags)
    transform = cut.transform(n_lags, x)
    signal = _Signal.of(x, cut, transform, cut.before) if to_kernel else None
    gk = x.new_empty(kernel_shape) if to_kernel else None
    gx = None
    if kernel is not None:
        gx = x.new_zeros(cut.n_frequencies, 2 * cut.count * x.shape[1], n_inputs)
    for group in _groups(kernel_shape, x, cut):
        through = _Signal.of(grad[:, :, group], cut, transform, 0)
        if gk is not None:
            product = x.new_empty(2, cut.n_frequencies, group.stop - group.start, n_inputs)
            torch.bmm(through.plain.mT, signal.plain, out=product[0])
            torch.bmm(through.plain.mT, signal.turned, out=product[1])
            transform.lags(product.flatten(2), out=gk[:, group].flatten(1))
        if gx is not None:
            real, imag = _spectrum(kernel[:, group], transform)
            gx.baddbmm_(through.plain, real).baddbmm_(through.turned, imag, alpha=-1)
    return None if gx is None else _overlapping(gx, x, cut, transform), gk


class _Signal(NamedTuple):
    """Spectra of the blocks of a sequence, as rows of real numbers.

    Attributes
    ----------
    plain : Tensor, shape (F, 2 M, C)
        Real parts, then imaginary parts.
    turned : Tensor, shape (F, 2 M, C)
        The same times i.
    """

    plain: Tensor
    turned: Tensor

    @classmethod
    def of(cls, x: Tensor, cut: Blocks, transform: Tables | FastTransform, before: int) -> _Signal:
        """Return the spectra of (T, B, C); in front of a block come `before` steps of the last one, or zeros."""
        n_steps, n_batch, n_channels = x.shape
        # Per frequency: minus the imaginary part, real part, imaginary part.
        out = x.new_empty(cut.n_frequencies, 3, cut.count, n_batch * n_channels)
        for j in range(cut.count):
            # Before the first step and behind the last there are only zeros.
            start = j * cut.length - before
            first, last = max(start, 0), min((j + 1) * cut.length, n_steps)
            transform.spectrum(x[first:last].flatten(1), first - start + cut.before - before, out[:, :, j])
        half = cut.count * n_batch
        planes = out.view(cut.n_frequencies, 3 * half, n_channels)
        return cls(planes[:, half:], planes[:, : 2 * half])


def _overlapping(spectra: Tensor, x: Tensor, cut: Blocks, transform: Tables | FastTransform) -> Tensor:
    """Return the sum over blocks of what belongs to spectra (F, 2 M, I), in the shape of `x`."""
    whole = x.new_zeros(cut.before + cut.count * cut.length, x[0].numel())
    rows = spectra.view(cut.n_frequencies, 2, cut.count, -1)
    for j in range(cut.count):
        whole[j * cut.length :][: cut.n] += transform.steps(rows[:, :, j], whole=True)
    return whole[cut.before : cut.before + len(x)].view(x.shape)


def _groups(kernel_shape: torch.Size, x: Tensor, cut: Blocks) -> Iterator[slice]:
    """Yield slices of the outputs whose spectra are not too large."""
    _, n_outputs, n_inputs = kernel_shape
    limit = _GROUP_BYTES.get(x.device.type, _GROUP_BYTES_ELSEWHERE)
    each = 2 * cut.n_frequencies * n_inputs * x.element_size()
    n_groups = math.ceil(n_outputs / max(_LEAST_GROUP, limit // each))
    size = math.ceil(n_outputs / n_groups)
    return (slice(start, min(n_outputs, start + size)) for start in range(0, n_outputs, size))


def _spectrum(kernel: Tensor, transform: Tables | FastTransform) -> Tensor:
    """Return real and imaginary part of the spectrum of a kernel (D, O, I), shape (2, F, O, I)."""
    return transform.kernel_spectrum(kernel.flatten(1)).view(2, -1, *kernel.shape[1:])
