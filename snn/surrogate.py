"""Surrogate gradients: what the derivative of the spike is taken to be in the backward pass.

A spike is a step function of the distance to threshold, and its true derivative is zero almost everywhere.
Each entry of `SURROGATES` names a shape g(x) that stands in for it. x is the distance ``h - v_threshold``, or,
where ``normalised=True``, ``h / v_threshold - 1`` (the distance in units of the threshold).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import check_number, check_option, invalid

__all__ = ["SURROGATES", "Surrogate", "as_surrogate", "spike"]


def _atan(x: Tensor, alpha: float) -> Tensor:
    return alpha / 2 / (1 + (torch.pi / 2 * alpha * x) ** 2)


def _sigmoid(x: Tensor, alpha: float) -> Tensor:
    s = torch.sigmoid(alpha * x)
    return alpha * s * (1 - s)


def _fast_sigmoid(x: Tensor, alpha: float) -> Tensor:
    return 1 / (1 + alpha * x.abs()) ** 2


def _softsign(x: Tensor, alpha: float) -> Tensor:
    return alpha / 2 / (1 + alpha * x.abs()) ** 2


def _triangle(x: Tensor, alpha: float) -> Tensor:
    return (1 - alpha * x.abs()).clamp(min=0)


def _gaussian(x: Tensor, alpha: float) -> Tensor:
    return alpha / torch.pi**0.5 * torch.exp(-((alpha * x) ** 2))


def _double_exponential(x: Tensor, alpha: float) -> Tensor:
    return alpha / 2 * torch.exp(-alpha * x.abs())


def _rectangle(x: Tensor, alpha: float) -> Tensor:
    return alpha * (x.abs() < 0.5 / alpha).to(x.dtype)


def _straight_through(x: Tensor, alpha: float) -> Tensor:
    return torch.full_like(x, alpha)


# name -> (number of the shape in the kernels, shape, default alpha)
SURROGATES: dict[str, tuple[int, Callable[[Tensor, float], Tensor], float]] = {
    "atan": (0, _atan, 2.0),  # Fang et al. 2021; spikingjelly ATan
    "sigmoid": (1, _sigmoid, 4.0),  # spikingjelly Sigmoid
    "fast_sigmoid": (2, _fast_sigmoid, 25.0),  # Zenke & Ganguli 2018; snntorch fast_sigmoid(slope)
    "softsign": (3, _softsign, 2.0),  # spikingjelly SoftSign
    "triangle": (4, _triangle, 1.0),  # Bellec et al. 2018; IIR-SNN uses it normalised, scaled by 0.3
    "gaussian": (5, _gaussian, 2.0),  # spikingjelly Erf
    "double_exponential": (6, _double_exponential, 1.0),  # spikingjelly PiecewiseExp
    "rectangle": (7, _rectangle, 1.0),  # Wu et al. 2018; spikingjelly Rect
    "straight_through": (8, _straight_through, 1.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Surrogate:
    """One choice of surrogate gradient: ``scale * g(x)``.

    Parameters
    ----------
    name : str
        A key of `SURROGATES`.
    alpha : float, optional
        Sharpness, in units of 1 / x; ``None`` takes the default beside the name in `SURROGATES`.
    scale : float
        Factor on the gradient; the dampening factor of Bellec et al. 2018.
    normalised : bool
        Measure x in units of the threshold, ``h / v_threshold - 1``, as IIR-SNN does. The gradient with respect to h
        is then divided by the threshold, and the one with respect to the threshold is ``-g h / v_threshold**2``.
    """

    name: str = "atan"
    alpha: float | None = None
    scale: float = 1.0
    normalised: bool = False

    def __post_init__(self) -> None:
        check_option("surrogate", self.name, SURROGATES)
        alpha = SURROGATES[self.name][2] if self.alpha is None else self.alpha
        object.__setattr__(self, "alpha", check_number("alpha", alpha, above=0))
        object.__setattr__(self, "scale", check_number("scale", self.scale, above=0))

    @property
    def number(self) -> int:
        """The shape's number in the compiled kernels."""
        return SURROGATES[self.name][0]

    def derivative(self, x: Tensor) -> Tensor:
        """Return ``scale * g(x)``, the same shape as `x`."""
        return self.scale * SURROGATES[self.name][1](x, self.alpha)


def as_surrogate(surrogate: str | Surrogate, **changes: Any) -> Surrogate:
    """Turn a name into a `Surrogate`; a `Surrogate` passes through, with `changes` applied to it."""
    if isinstance(surrogate, Surrogate):
        return replace(surrogate, **changes) if changes else surrogate
    if not isinstance(surrogate, str):
        raise invalid(
            "surrogate", "be a name or a snn.Surrogate", surrogate, f"Names: {', '.join(SURROGATES)}.", kind=TypeError
        )
    return Surrogate(name=surrogate, **changes)


class _Spike(torch.autograd.Function):
    """Step forward, surrogate backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate, strict: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x > 0 if strict else x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate.derivative(x), None, None


def spike(x: Tensor, surrogate: str | Surrogate = "atan", *, compare: str = "ge") -> Tensor:
    """Return 1 where `x` reaches zero and 0 elsewhere, with a surrogate gradient.

    Parameters
    ----------
    x : Tensor, any shape
        Distance to threshold.
    surrogate : str or Surrogate
        Gradient that stands in for the derivative of the step; a key of `SURROGATES`.
    compare : {"ge", "gt"}
        Whether ``x == 0`` spikes ("ge") or not ("gt").

    Returns
    -------
    Tensor
        0 or 1, same shape and dtype as `x`.
    """
    check_option("compare", compare, ("ge", "gt"))
    return _Spike.apply(x, as_surrogate(surrogate), compare == "gt")
