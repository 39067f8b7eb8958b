"""First values of weights, from a generator of their own: the same on every device and in every dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["blank", "draw_layer", "draw_normal", "draw_uniform", "own_generator"]


def own_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return `generator`, or a new one with a seed from the system; the global one is left alone."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def blank(
    kind: type[nn.Module],
    *sizes: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **settings: object,
) -> nn.Module:
    """Build a layer of torch without drawing its weights, which would move the global generator."""
    device = torch.get_default_device() if device is None else device
    return nn.utils.skip_init(kind, *sizes, device=device, dtype=dtype, **settings)


@torch.no_grad()
def draw_normal(parameter: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Fill with normal numbers, drawn in float32 on the generator's device."""
    generator = own_generator(generator)
    drawn = torch.empty(parameter.shape, device=generator.device, dtype=torch.float32)
    parameter.copy_(drawn.normal_(0, std, generator=generator))


@torch.no_grad()
def draw_uniform(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Fill with numbers from -bound to bound, drawn in float32 on the generator's device."""
    generator = own_generator(generator)
    drawn = torch.empty(parameter.shape, device=generator.device, dtype=torch.float32)
    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def draw_layer(layer: nn.Module, generator: torch.Generator | None, fan: int | None = None) -> nn.Module:
    """Draw weight and bias of a layer evenly within 1 / sqrt(fan), as torch does, and return the layer.

    Parameters
    ----------
    layer : Module
        Linear or convolution.
    generator : torch.Generator or None
        Where the numbers come from.
    fan : int, optional
        By default the inputs of one output, as in ``nn.Linear`` and ``nn.Conv1d``.
    """
    generator = own_generator(generator)
    fan = layer.weight[0].numel() if fan is None else fan
    draw_uniform(layer.weight, fan**-0.5, generator)
    if layer.bias is not None:
        draw_uniform(layer.bias, fan**-0.5, generator)
    return layer
