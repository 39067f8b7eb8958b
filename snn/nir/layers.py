"""Layers on sequences that NIR has and torch has not: small modules without state, on (T, B, ...)."""

# T time, B batch, C channels, H W image

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_number, invalid

__all__ = ["FoldTime", "LeakyIntegrator", "PerNeuron", "Scale", "StepDelay"]


class FoldTime(nn.Module):
    """Apply a layer without memory to every time step at once, with time folded into the batch.

    Parameters
    ----------
    module : Module
        A layer on (N, C, ...), such as a convolution or a pooling.

    Examples
    --------
    >>> FoldTime(nn.Conv2d(1, 8, 3))(torch.zeros(5, 2, 1, 28, 28)).shape
    torch.Size([5, 2, 8, 26, 26])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, ...) to (T, B, ...)."""
        if x.ndim < 3:
            raise invalid("x", "have shape (T, B, C, ...)", f"{tuple(x.shape)}", "Add the missing axis: x[:, None].")
        return self.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class PerNeuron(nn.Module):
    """Run neurons that have parameters of their own at every place of a feature map.

    Parameters
    ----------
    module : Module
        Neurons on (T, B, N), N = C * H * W, with ``n_channels=N``.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, C, ...) to spikes of the same shape."""
        return self.module(x.flatten(2)).reshape(x.shape)


class Scale(nn.Module):
    """Multiply by constants, which are not learned.

    Parameters
    ----------
    scale : float or Tensor
        One number, or an array that broadcasts to one step of one sample, (C, ...).
    """

    def __init__(self, scale: float | Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", _constant(scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, C, ...) to the same shape."""
        return x * self.scale

    def extra_repr(self) -> str:
        """Show the number, or the shape of the numbers."""
        return _shown("scale", self.scale)


class StepDelay(nn.Module):
    """Delay each element by a whole number of time steps; what comes before the first step is zero.

    Parameters
    ----------
    steps : int or Tensor of int
        One number, or an array of the shape (C, ...) of one step of one sample; at least 0.

    Raises
    ------
    ValueError
        For a delay below 0.

    Examples
    --------
    >>> StepDelay(1)(torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)).flatten().tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self, steps: int | Sequence[int] | Tensor) -> None:
        super().__init__()
        steps = torch.as_tensor(steps).detach().clone()
        if steps.is_floating_point() or (steps < 0).any():
            raise invalid("steps", "be whole numbers of at least 0", steps, "Round them first: steps.round().long().")
        steps = steps.long()
        self.register_buffer("steps", steps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, C, ...) to the same shape."""
        # One gather serves all: the source of step t is t - d, or a step of zeros put in front.
        steps = self.steps.expand(x.shape[2:])
        time = torch.arange(x.shape[0], device=x.device).view(-1, *[1] * steps.ndim)
        source = (time - steps + 1).clamp(min=0).unsqueeze(1).expand(x.shape)
        return torch.cat([x.new_zeros(1, *x.shape[1:]), x]).gather(0, source)

    def extra_repr(self) -> str:
        """Show the delay, or the shape of the delays."""
        return _shown("steps", self.steps)


class LeakyIntegrator(nn.Module):
    r"""Leaky integrators, which do not spike; they give their membrane potential at every step.

    Parameters
    ----------
    tau : float or Tensor
        Time constant in time steps, > 1; infinite for an integrator that does not leak.
    gain : float or Tensor
        Factor on the input.
    v_leak : float or Tensor
        Where the membrane starts and decays to. Each is one number, or an array that broadcasts to (C, ...).

    Notes
    -----
    .. math:: v_t = v_{t-1} - (v_{t-1} - v_l) / \tau + g x_t

    Examples
    --------
    >>> LeakyIntegrator(tau=2.0)(torch.ones(3, 1, 1)).flatten().tolist()
    [1.0, 1.5, 1.75]
    """

    def __init__(self, tau: float | Tensor, gain: float | Tensor = 1.0, v_leak: float | Tensor = 0.0) -> None:
        super().__init__()
        for value in torch.as_tensor(tau).flatten().tolist():
            check_number("tau", value, above=1.0, finite=False)
        self.register_buffer("tau", _constant(tau))
        self.register_buffer("gain", _constant(gain))
        self.register_buffer("v_leak", _constant(v_leak))

    def forward(self, x: Tensor) -> Tensor:
        """Map a current (T, B, C, ...) to the membrane potential, of the same shape."""
        current = x * self.gain
        u, steps = torch.zeros_like(x[:1]).sum(0), []
        for step in current:
            u = u - u / self.tau + step
            steps.append(u)
        return torch.stack(steps) + self.v_leak if steps else current

    def extra_repr(self) -> str:
        """Show the constants."""
        return ", ".join(_shown(name, value) for name, value in self.named_buffers())


def _constant(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()


def _shown(name: str, value: Tensor) -> str:
    return f"{name}={value.item():.4g}" if value.numel() == 1 else f"{name}: {tuple(value.shape)}"
