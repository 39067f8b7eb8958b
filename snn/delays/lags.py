"""From delays to kernels with the lags first, as transforms along the lags want them."""

# D lags, L of them kept, O outputs, I inputs, K kernels a connection

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snn.delays.taps import compiled, rounded, taps

__all__ = ["dense_kernel", "lag_kernel"]


def dense_kernel(
    weight: Tensor,
    delay: Tensor,
    sigma: Tensor,
    max_delay: int,
    kernel: str,
    round_delays: bool,
    n_lags: int | None = None,
) -> Tensor:
    """Return the kernel of each connection at its first `n_lags` lags, by default all D: shape (O, I, n_lags)."""
    if not round_delays:
        each = taps(weight, delay, sigma, 0, max_delay, max_delay, kernel, kept=n_lags)
        return each.squeeze(2) if each.shape[2] == 1 else each.sum(2)
    lags = rounded(delay, max_delay).long().expand_as(weight)
    zeros = weight.new_zeros((*weight.shape[:2], max_delay))
    return zeros.scatter_add(2, lags, weight)[..., :n_lags]


def lag_kernel(
    weight: Tensor, delay: Tensor, sigma: Tensor, max_delay: int, kernel: str, round_delays: bool, n_lags: int
) -> Tensor:
    """Return what `dense_kernel` returns, with the lags first: shape (n_lags, O, I)."""
    if round_delays or kernel != "gauss" or not _side_by_side(weight, delay, sigma):
        return dense_kernel(weight, delay, sigma, max_delay, kernel, round_delays, n_lags).movedim(-1, 0)
    each = _Lags.apply(weight, delay, sigma, max_delay, min(n_lags, max_delay))
    return each.squeeze(3) if each.shape[3] == 1 else each.sum(3)


def _side_by_side(weight: Tensor, delay: Tensor, sigma: Tensor) -> bool:
    """Say whether the kernels of `lag_kernels` can run."""
    if not compiled(weight, delay, sigma):
        return False
    from snn.delays.lag_kernels import LEAST_SIGMA

    return float(sigma.detach().min()) >= LEAST_SIGMA


class _Lags(torch.autograd.Function):
    """Gaussian taps, shape (L, *S), with their gradients written out."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, delay: Tensor, sigma: Tensor, n_lags: int, n_kept: int) -> Tensor:
        from snn.delays import lag_kernels

        out = weight.new_empty((n_kept, *weight.shape))
        sums = np.empty((3, weight.numel()))
        lag_kernels.forward(*_flat(weight, delay, sigma), out.view(n_kept, -1).numpy(), sums, n_lags)
        ctx.save_for_backward(weight, delay, sigma)
        ctx.sums = sums
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from snn.delays import lag_kernels

        leaves = ctx.saved_tensors
        results = [torch.empty_like(leaves[0], memory_format=torch.contiguous_format) for _ in leaves]
        rows = grad.contiguous().view(len(grad), -1).numpy()
        lag_kernels.backward(*_flat(*leaves), ctx.sums, rows, tuple(g.view(-1).numpy() for g in results))
        results[2] = results[2].sum_to_size(leaves[2].shape)
        return (*(g if need else None for g, need in zip(results, ctx.needs_input_grad, strict=False)), None, None)


def _flat(*leaves: Tensor) -> list[np.ndarray]:
    return [leaf.detach().contiguous().view(-1).numpy() for leaf in leaves]
