"""From delays to taps: each synapse is a short temporal kernel whose place and width are differentiable.

A synapse of weight w, delay δ and width σ adds ``w * k[d]`` to its connection's kernel at each lag d (in steps), where
k is a bump around δ with sum one. Learning moves the bump; once σ is small and δ is rounded, one tap is left: a delay.
"""

# D lags, O outputs, I inputs, K taps a connection; S any axes of synapses

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["SHAPES", "TapShape", "compiled", "reference_taps", "rounded", "taps", "window"]

# Added to the sum that the bump is divided by, as in the DCLS package, so that results agree to the last digits.
_EPS = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class TapShape:
    """What a bump looks like.

    Attributes
    ----------
    description : str
        One line.
    bump : callable
        ``bump(distance, sigma)``, unnormalised; distance = lag - delay.
    slopes : callable
        ``slopes(distance, sigma)``: derivatives of the bump with respect to delay and sigma, over the bump itself
        where `relative`.
    relative : bool
        See `slopes`.
    least_sigma : float
        Smallest width at which learning still feels neighbouring taps.
    reach : callable
        ``reach(sigma, dtype)``: farther from its centre than this the bump is below the rounding of `dtype`.
    """

    description: str
    bump: Callable[[Tensor, Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    relative: bool
    least_sigma: float
    reach: Callable[[float, torch.dtype], float]


def _gauss(distance: Tensor, sigma: Tensor) -> Tensor:
    # Far out nothing is left but denormal numbers, which slow every later operation down.
    return F.threshold(torch.exp(-0.5 * (distance / sigma) ** 2), 1e-30, 0.0)


def _gauss_slopes(distance: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    to_delay = distance / sigma**2
    return to_delay, to_delay * distance / sigma


def _gauss_reach(sigma: float, dtype: torch.dtype) -> float:
    return sigma * math.sqrt(-2 * math.log(torch.finfo(dtype).eps / 4))


def _triangle(distance: Tensor, sigma: Tensor) -> Tensor:
    return torch.relu(sigma - distance.abs())


def _triangle_slopes(distance: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    inside = (distance.abs() < sigma).to(distance.dtype)
    return distance.sign() * inside, inside


SHAPES: dict[str, TapShape] = {
    "gauss": TapShape(
        description="Gaussian of standard deviation sigma; the shape of DCLS-Delays",
        bump=_gauss,
        slopes=_gauss_slopes,
        relative=True,
        least_sigma=0.27,
        reach=_gauss_reach,
    ),
    "triangle": TapShape(
        description="triangle of half width sigma; DCLS calls it max",
        bump=_triangle,
        slopes=_triangle_slopes,
        relative=False,
        least_sigma=1.0,
        reach=lambda sigma, dtype: sigma,
    ),
    "linear": TapShape(
        description="linear interpolation between the two nearest steps; sigma is not used",
        bump=_triangle,
        slopes=_triangle_slopes,
        relative=False,
        least_sigma=1.0,
        reach=lambda sigma, dtype: 1.0,
    ),
}


def window(delay: Tensor, sigma: float, max_delay: int, shape: str) -> tuple[Tensor, int]:
    """Return where each synapse's window begins, and how many lags cover every bump of at most this width.

    Parameters
    ----------
    delay : Tensor, any shape
        In steps.
    sigma : float
        Largest width, in steps.
    max_delay : int
        D; windows lie in 0..D-1.
    shape : str
        A key of `SHAPES`.

    Returns
    -------
    start : Tensor of int32, shape of `delay`
    width : int
        W. What lies outside a window is below the rounding of the delays' dtype.
    """
    reach = SHAPES[shape].reach(sigma, delay.dtype)
    width = min(max_delay, math.floor(2 * reach) + 1)
    start = torch.ceil(delay.detach() - reach).clamp_(0, max_delay - width)
    return start.to(torch.int32), width


def rounded(delay: Tensor, max_delay: int) -> Tensor:
    """Return delays as whole steps in 0..max_delay - 1, int32; halves go to the even neighbour.

    The paper's code rounds positions, counted from the middle of the kernel: where D // 2 is odd, its exact halves go
    to the odd neighbour.
    """
    return torch.round(delay.detach()).clamp_(0, max_delay - 1).to(torch.int32)


def reference_taps(
    weight: Tensor, delay: Tensor, sigma: Tensor, start: Tensor | int, width: int, max_delay: int, shape: str
) -> Tensor:
    """Return ``weight * k`` at lags start..start + width - 1, differentiated by torch: slow, and evidently right.

    Parameters
    ----------
    weight : Tensor, shape S
    delay, sigma : Tensor, broadcastable to S
    start : Tensor of int, broadcastable to S, or int
        First lag of each synapse.
    width : int
        W.
    max_delay : int
        D.
    shape : str
        A key of `SHAPES`.

    Returns
    -------
    Tensor, shape (*S, W)
    """
    delay, sigma = delay[..., None], sigma[..., None] if sigma.ndim else sigma
    lag = _lags(start, width, delay)
    if shape == "linear":
        if max_delay == 1:
            delay = 0 * delay  # there is no step that could have a slope
        # The slope at a whole delay is that of the step that begins there; the last delay ends a step.
        below = torch.floor(delay.detach()).clamp(max=max(max_delay - 2, 0))
        part = (delay - below).expand(lag.shape if lag.ndim > 1 else (*delay.shape[:-1], width))
        bump = torch.where(lag == below, 1 - part, torch.where(lag == below + 1, part, torch.zeros_like(part)))
        return weight[..., None] * bump
    bump = SHAPES[shape].bump(lag - delay, sigma)
    return weight[..., None] * (bump / (bump.sum(-1, keepdim=True) + _EPS))


def _lags(start: Tensor | int, width: int, like: Tensor) -> Tensor:
    """Return the lags of the windows, shape (W,) or (*S, W)."""
    offsets = torch.arange(width, dtype=like.dtype, device=like.device)
    return offsets + (start if isinstance(start, int) else start.to(like.dtype)[..., None])


class _Taps(torch.autograd.Function):
    """`reference_taps` with its gradients written out: nothing of size (*S, W) is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, delay: Tensor, sigma: Tensor, start: Tensor | int, width: int, kept: int, shape: str
    ) -> Tensor:
        ctx.save_for_backward(weight, delay, sigma)
        ctx.window, ctx.shape = (start, width), shape
        if compiled(weight, delay, sigma):
            from snn.delays import tap_kernels

            out = weight.new_empty((*weight.shape, kept))
            tap_kernels.forward(*_arrays(weight, delay, sigma, start), _rows(out), width, shape == "gauss")
            return out
        at, broad = delay[..., None], sigma[..., None] if sigma.ndim else sigma
        bump = SHAPES[shape].bump(_lags(start, width, at) - at, broad)
        return bump[..., :kept] * (weight / (bump.sum(-1) + _EPS))[..., None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, delay, sigma = ctx.saved_tensors
        start, width = ctx.window
        needs = ctx.needs_input_grad
        if compiled(weight, delay, sigma):
            from snn.delays import tap_kernels

            grads = [weight.new_empty(weight.shape) for _ in range(3)]
            results = tuple(g.view(-1).numpy() for g in grads)
            arrays = _arrays(weight, delay, sigma, start)
            tap_kernels.backward(*arrays, _rows(grad.contiguous()), results, width, ctx.shape == "gauss")
            grads[2] = grads[2].sum_to_size(sigma.shape)
            return (*(g if need else None for g, need in zip(grads, needs, strict=False)), None, None, None, None)
        shape = SHAPES[ctx.shape]
        grad = F.pad(grad, (0, width - grad.shape[-1]))
        at, broad = delay[..., None], sigma[..., None] if sigma.ndim else sigma
        distance = _lags(start, width, at) - at
        bump = shape.bump(distance, broad)
        total = bump.sum(-1) + _EPS
        grad_weight = (grad * bump).sum(-1) / total
        grads = [grad_weight if needs[0] else None, None, None]
        if needs[1] or needs[2]:
            # With k = e / (sum e + eps): dk = (de - k sum de) / (sum e + eps).
            for index, slope in enumerate(shape.slopes(distance, broad), start=1):
                if needs[index]:
                    change = slope * bump if shape.relative else slope
                    through = (grad * change).sum(-1) - grad_weight * change.sum(-1)
                    grads[index] = (through * weight / total).sum_to_size((delay, sigma)[index - 1].shape)
        return (*grads, None, None, None, None)


def compiled(weight: Tensor, delay: Tensor, sigma: Tensor) -> bool:
    """Say whether the compiled kernels can run: on the CPU, for synapses that each have a delay of their own."""
    return (
        weight.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and weight.dtype == delay.dtype == sigma.dtype
        and weight.dtype in (torch.float32, torch.float64)
        and delay.shape == weight.shape
        and sigma.shape in (weight.shape, ())
        and weight.numel() > 0
    )


def _arrays(weight: Tensor, delay: Tensor, sigma: Tensor, start: Tensor | int) -> list[np.ndarray]:
    """Return the flat arrays that the kernels read; one value may stand for all."""
    starts = torch.tensor([start], dtype=torch.int32) if isinstance(start, int) else start.expand(weight.shape)
    return [t.detach().contiguous().view(-1).numpy() for t in (weight, delay, sigma, starts)]


def _rows(taps: Tensor) -> np.ndarray:
    return taps.detach().view(-1, taps.shape[-1]).numpy()


def taps(
    weight: Tensor,
    delay: Tensor,
    sigma: Tensor,
    start: Tensor | int,
    width: int,
    max_delay: int,
    shape: str,
    *,
    kept: int | None = None,
) -> Tensor:
    """Return the first `kept` lags, by default all, of what `reference_taps` returns: shape (*S, kept)."""
    kept = width if kept is None else min(kept, width)
    if shape == "linear":
        return reference_taps(weight, delay, sigma, start, width, max_delay, shape)[..., :kept]
    return _Taps.apply(weight, delay, sigma, start, width, kept, shape)
