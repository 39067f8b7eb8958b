"""The dilated residual convolutions over time, with gates between them."""

# B batch, C channels, T samples

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodecode.meeg.drawing import blank, draw_layer, own_generator
from neuroloaders.checks import check_int, check_option, invalid

__all__ = ["ACTIVATIONS", "ConvolutionStack", "dilations"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


def dilations(depth: int, period: int) -> tuple[int, ...]:
    """Return the dilation of each layer: doubled from layer to layer, from 1 again after every `period`.

    Parameters
    ----------
    depth : int
        Number of layers.
    period : int
        Layers after which it begins anew.

    Examples
    --------
    >>> dilations(7, 5)
    (1, 2, 4, 8, 16, 1, 2)
    """
    check_int("depth", depth, at_least=1)
    check_int("period", period, at_least=1)
    return tuple(2 ** (k % period) for k in range(depth))


class ConvolutionStack(nn.Module):
    """Layers of dilated convolution, batch normalisation and activation, with residual paths and gates [1]_.

    Parameters
    ----------
    n_channels : int
        Channels that come in.
    hidden : int
        Channels of all layers.
    depth : int
        Number of layers.
    kernel_size : int
        Odd, in samples.
    dilation_period : int
        Dilations are 1, 2, 4, ... and begin anew after so many layers.
    glu_every : int
        After every so many layers stands a gate: a convolution of kernel 3 to twice the channels, of which one half
        gates the other. 0: none.
    skip : bool
        Add the input of a layer to its output, where they have as many channels.
    activation : {"gelu", "relu"}
        A key of `ACTIVATIONS`.
    batch_norm : bool
        Normalise before the activation.
    generator, device, dtype
        As in `neurodecode.meeg.SpatialAttention`.

    Notes
    -----
    Padding with zeros keeps the number of samples, and the layers see both ways in time. Gates have no residual path.

    References
    ----------
    .. [1] Defossez et al., Nature Machine Intelligence 5 (2023), 10.1038/s42256-023-00714-5.
    """

    def __init__(
        self,
        n_channels: int,
        hidden: int = 320,
        depth: int = 10,
        *,
        kernel_size: int = 3,
        dilation_period: int = 5,
        glu_every: int = 2,
        skip: bool = True,
        activation: str = "gelu",
        batch_norm: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("n_channels", n_channels, at_least=1)
        check_int("hidden", hidden, at_least=1)
        check_int("glu_every", glu_every, at_least=0)
        check_option("activation", activation, ACTIVATIONS)
        if check_int("kernel_size", kernel_size, at_least=1) % 2 == 0:
            raise invalid("kernel_size", "be odd, so that samples stay in their place", f"{kernel_size}")
        generator, place = own_generator(generator), {"device": device, "dtype": dtype}
        self.kernel_size, self.skip = kernel_size, bool(skip)
        self.dilations = dilations(depth, dilation_period)
        self.layers, self.gates = nn.ModuleList(), nn.ModuleDict()
        for k, dilation in enumerate(self.dilations):
            convolution = blank(
                nn.Conv1d, hidden if k else n_channels, hidden, kernel_size,
                dilation=dilation, padding=dilation * (kernel_size // 2), **place,
            )  # fmt: skip
            parts = [draw_layer(convolution, generator)]
            parts += [nn.BatchNorm1d(hidden, **place)] if batch_norm else []
            self.layers.append(nn.Sequential(*parts, ACTIVATIONS[activation]()))
            if glu_every and (k + 1) % glu_every == 0:
                gate = draw_layer(blank(nn.Conv1d, hidden, 2 * hidden, 3, padding=1, **place), generator)
                # Named by the layer that it follows.
                self.gates[str(k)] = nn.Sequential(gate, nn.GLU(dim=1))

    @property
    def receptive_field(self) -> int:
        """Samples of the input that one sample of the output depends on."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations) + 2 * len(self.gates)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, hidden, T)."""
        for k, layer in enumerate(self.layers):
            y = layer(x)
            x = x + y if self.skip and x.shape[1] == y.shape[1] else y
            if str(k) in self.gates:
                x = self.gates[str(k)](x)
        return x
