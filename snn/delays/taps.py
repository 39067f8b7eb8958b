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

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["SHAPES", "TapShape", "reference_taps", "rounded", "taps", "window"]

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
    return torch.exp(-0.5 * (distance / sigma) ** 2)


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
    """Return delays as whole steps in 0..max_delay - 1, int32; halves go to the even neighbour, as in the paper."""
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
    Tensor, shape (W, *S)
    """
    lag = _lags(start, width, delay)
    if shape == "linear":
        # The slope at a whole delay is that of the step that begins there; the last delay ends a step.
        below = torch.floor(delay.detach()).clamp(max=max(max_delay - 2, 0))
        part = delay - below
        return weight * torch.where(lag == below, 1 - part, torch.where(lag == below + 1, part, torch.zeros_like(part)))
    bump = SHAPES[shape].bump(lag - delay, sigma)
    return weight * (bump / (bump.sum(0) + _EPS))


def _lags(start: Tensor | int, width: int, like: Tensor) -> Tensor:
    """Return the lags of the windows, shape (W, *S) or (W, 1, ...)."""
    offsets = torch.arange(width, dtype=like.dtype, device=like.device).view(-1, *[1] * like.ndim)
    return offsets + (start if isinstance(start, int) else start.to(like.dtype))


class _Taps(torch.autograd.Function):
    """`reference_taps` with its gradients written out: nothing of size (W, *S) is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, delay: Tensor, sigma: Tensor, start: Tensor | int, width: int, shape: str
    ) -> Tensor:
        ctx.save_for_backward(weight, delay, sigma)
        ctx.window, ctx.shape = (start, width), shape
        bump = SHAPES[shape].bump(_lags(start, width, delay) - delay, sigma)
        return (
            bump.mul_(weight / (bump.sum(0) + _EPS))
            if bump.shape[1:] == weight.shape and not torch.compiler.is_compiling()
            else (bump / (bump.sum(0) + _EPS) * weight)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, delay, sigma = ctx.saved_tensors
        shape = SHAPES[ctx.shape]
        distance = _lags(*ctx.window, delay) - delay
        bump = shape.bump(distance, sigma)
        total = bump.sum(0) + _EPS
        grad_weight = (grad * bump).sum(0) / total
        needs = ctx.needs_input_grad
        grads: list[Tensor | None] = [grad_weight if needs[0] else None, None, None]
        if needs[1] or needs[2]:
            # With k = e / (sum e + eps): dk = (de - k sum de) / (sum e + eps).
            for index, slope in enumerate(shape.slopes(distance, sigma), start=1):
                if needs[index]:
                    change = slope * bump if shape.relative else slope
                    through = (grad * change).sum(0) - grad_weight * change.sum(0)
                    grads[index] = (through * weight / total).sum_to_size((delay, sigma)[index - 1].shape)
        return (*grads, None, None, None)


def taps(
    weight: Tensor, delay: Tensor, sigma: Tensor, start: Tensor | int, width: int, max_delay: int, shape: str
) -> Tensor:
    """Return ``weight * k`` at lags start..start + width - 1, shape (W, *S), as `reference_taps` does."""
    if shape == "linear":
        return reference_taps(weight, delay, sigma, start, width, max_delay, shape)
    return _Taps.apply(weight, delay, sigma, start, width, shape)
