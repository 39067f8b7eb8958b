"""What all delay layers share: parameters, clamping, rounding, and how delays are read."""

# O outputs, I inputs a synapse row, K kernels a connection, D lags

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn.delays.paths import PATHS, Choice
from snn.delays.taps import SHAPES, rounded

__all__ = [
    "ROUNDING",
    "SHARES",
    "DelayModule",
    "clamp_delays",
    "delay_layers",
    "delays_in_steps",
    "fix_delays",
    "ms_to_steps",
]

SHARES = {
    "synapse": "every synapse has its own delay",
    "axon": "one delay for all synapses of an input",
    "dendrite": "one delay for all synapses onto an output",
}

ROUNDING = {
    "eval": "whole-step delays in evaluation, bumps in training",
    "always": "whole-step delays, also in training: for delays that are not learned",
    "never": "bumps, also in evaluation",
}


class DelayModule(nn.Module):
    """Base of the delay layers.

    Attributes
    ----------
    weight : Parameter, shape (O, ..., K)
        Strength of each synapse.
    delay : Parameter, shape of `weight`, or 1 where it is shared
        In steps. While training, kept in 0..max_delay - 1 by every forward pass.
    sigma : Parameter, shape of `delay`
        Width in steps, in effect: for the gauss kernel the standard deviation, for the triangle half its base.
    last_choice : Choice or None
        Which path the last forward pass took, and why.
    """

    last_choice: Choice | None = None

    def _build(
        self,
        weight_shape: tuple[int, ...],
        delay_shape: tuple[int, ...],
        max_delay: int,
        kernel: str,
        bias: bool,
        share: str,
        sigma: float | None,
        learn_delay: bool,
        learn_sigma: bool,
        rounding: str,
        dt_ms: float | None,
        backend: str,
        generator: torch.Generator | None,
    ) -> None:
        self.max_delay = check_int("max_delay", max_delay, at_least=1)
        self.kernel = check_option("kernel", kernel, SHAPES)
        self.kernel_count = weight_shape[-1]
        self.share = share
        self.rounding = check_option("rounding", rounding, ROUNDING)
        self.dt_ms = None if dt_ms is None else check_number("dt_ms", dt_ms, above=0)
        self.backend = check_option("backend", backend, ["auto", *PATHS])
        if learn_sigma and kernel == "linear":
            raise invalid("learn_sigma", "be False for the kernel 'linear'", "True", "It has no width.")
        if rounding == "always" and (learn_delay or learn_sigma):
            advice = "Whole-step delays have no gradient."
            raise invalid("rounding", "be 'eval' or 'never' where delays are learned", "'always'", advice)
        least = SHAPES[kernel].least_sigma
        # Half the range, as in the paper: at first every synapse hears everything.
        start = max(max_delay // 2, 0) + least if sigma is None else check_number("sigma", sigma, at_least=least)
        self.weight = nn.Parameter(torch.empty(weight_shape))
        self.delay = nn.Parameter(torch.empty(delay_shape), requires_grad=bool(learn_delay))
        self.sigma = nn.Parameter(torch.full(delay_shape, float(start)), requires_grad=bool(learn_sigma))
        self.bias = nn.Parameter(torch.empty(weight_shape[0])) if bias else None
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights as `torch.nn.Linear` does, and delays evenly from 0..max_delay - 1; leave sigma alone.

        Parameters
        ----------
        generator : torch.Generator, optional
            Where the numbers come from; by default PyTorch's global generator, as in its own layers.
        """
        bound = 1 / math.sqrt(max(1, math.prod(self.weight.shape[1:])))
        self.weight.uniform_(-bound, bound, generator=generator)
        self.delay.uniform_(0, self.max_delay - 1, generator=generator)
        if self.bias is not None:
            self.bias.uniform_(-bound, bound, generator=generator)

    @property
    def rounds(self) -> bool:
        """Whether the next forward pass takes whole-step delays."""
        return self.rounding == "always" or (self.rounding == "eval" and not self.training)

    @torch.no_grad()
    def clamp(self) -> None:
        """Move delays outside 0..max_delay - 1 to the nearest end, and widths below the least one up to it."""
        # Through .data: the values that an earlier forward pass keeps for its gradient stay valid, as none changes
        # that was already inside.
        self.delay.data.clamp_(0, self.max_delay - 1)
        if self.sigma.requires_grad:
            self.sigma.data.clamp_(min=SHAPES[self.kernel].least_sigma)

    def delays_in_steps(self, *, whole: bool = True) -> Tensor:
        """Return the delays in steps, shape of `delay`; as evaluation takes them, or as they are learned."""
        inside = self.delay.detach().clamp(0, self.max_delay - 1)
        return rounded(inside, self.max_delay) if whole else inside

    def delays_in_ms(self, *, whole: bool = True) -> Tensor:
        """Return the delays in ms, float32, shape of `delay`; needs `dt_ms`."""
        if self.dt_ms is None:
            raise invalid(
                "dt_ms", "be known to give delays in ms", "None", "Build the layer with dt_ms=..., or set it."
            )
        return self.delays_in_steps(whole=whole) * self.dt_ms

    def extra_repr(self) -> str:
        """Show sizes and the options that are not the default."""
        parts = [f"{self.max_delay} delays", f"kernel={self.kernel!r}"]
        parts += [f"kernel_count={self.kernel_count}"] if self.kernel_count != 1 else []
        parts += [f"share={self.share!r}"] if self.share != "synapse" else []
        parts += ["delays fixed"] if not self.delay.requires_grad else []
        parts += [f"dt_ms={self.dt_ms:g}"] if self.dt_ms is not None else []
        parts += ["bias"] if self.bias is not None else []
        return ", ".join(parts)


def delay_layers(model: nn.Module) -> Iterator[tuple[str, DelayModule]]:
    """Yield name and module of every delay layer in `model`, itself included."""
    for name, module in model.named_modules():
        if isinstance(module, DelayModule):
            yield name, module


def clamp_delays(model: nn.Module) -> None:
    """Clamp the delays of all layers; for ``fit(..., after_step=clamp_delays)``.

    Forward passes in training mode do it too, so this matters only if delays are looked at between steps.

    Parameters
    ----------
    model : Module
        A network, changed in place.
    """
    for _, layer in delay_layers(model):
        layer.clamp()


def fix_delays(model: nn.Module) -> None:
    """End the learning of delays: all layers take whole-step delays from now on, also in training.

    Weights trained on after this are trained for the very network that evaluation runs. The learned delays themselves
    stay as they are in `delay`.

    Parameters
    ----------
    model : Module
        A network with delay layers; changed in place.
    """
    layers = list(delay_layers(model))
    if not layers:
        raise invalid("model", "hold a delay layer", f"a {type(model).__name__} without")
    for _, layer in layers:
        layer.clamp()
        layer.delay.requires_grad_(False)
        layer.sigma.requires_grad_(False)
        layer.rounding = "always"


def delays_in_steps(module: nn.Module) -> Tensor | dict[str, Tensor]:
    """Return the whole-step delays of a layer, or of all layers of a network by name.

    Parameters
    ----------
    module : Module
        A delay layer, or a network that holds some.

    Returns
    -------
    Tensor or dict of str to Tensor
        int32, shape of each layer's `delay`; in ms: `DelayModule.delays_in_ms`.

    Raises
    ------
    ValueError
        If there is no delay layer.

    Examples
    --------
    >>> import snn
    >>> layer = snn.DelayLinear(3, 2, max_delay=5)
    >>> delays_in_steps(layer).shape
    torch.Size([2, 3, 1])
    """
    if isinstance(module, DelayModule):
        return module.delays_in_steps()
    found = {name: layer.delays_in_steps() for name, layer in delay_layers(module)}
    if not found:
        raise invalid("module", "be or hold a delay layer", f"a {type(module).__name__} without")
    return found


def ms_to_steps(duration_ms: float, dt_ms: float, *, round_up: bool = False) -> int:
    """Return how many time steps a duration is.

    Parameters
    ----------
    duration_ms : float
        At least 0.
    dt_ms : float
        Length of a step, > 0.
    round_up : bool
        Take the next whole number where the ratio is none; otherwise that is an error.

    Examples
    --------
    >>> ms_to_steps(250, 10)
    25
    """
    ratio = check_number("duration_ms", duration_ms, at_least=0) / check_number("dt_ms", dt_ms, above=0)
    # 0.3 / 0.1 is 2.9999999999999996.
    if math.isclose(ratio, round(ratio), rel_tol=1e-9, abs_tol=1e-9):
        return round(ratio)
    if not round_up:
        near = f"{math.floor(ratio) * dt_ms:g} or {math.ceil(ratio) * dt_ms:g} ms"
        raise invalid("duration_ms", f"be a whole number of steps of {dt_ms:g} ms", f"{duration_ms:g}", f"Take {near}.")
    return math.ceil(ratio)
