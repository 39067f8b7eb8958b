"""The blocks of a very deep VAE, and the strings that describe how they are stacked (Child 2021, arXiv:2011.10650)."""

# B images, C channels, R resolution

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuroloaders.checks import invalid

__all__ = [
    "Bottleneck",
    "DecoderBlock",
    "DecoderLayer",
    "EncoderLayer",
    "at_resolution",
    "draw_weights",
    "new_conv",
    "parse_decoder",
    "parse_encoder",
    "parse_widths",
]


@dataclass(frozen=True)
class EncoderLayer:
    """An encoder block: its resolution, and by how much it is reduced afterwards (1: not at all)."""

    resolution: int
    down: int = 1


@dataclass(frozen=True)
class DecoderLayer:
    """A decoder block: its resolution, and the lower resolution that is mixed in before it, if any."""

    resolution: int
    mixin: int | None = None


def parse_encoder(text: str) -> list[EncoderLayer]:
    """Return the blocks that a string such as "64x11,64d2,32x20" describes.

    "64x11" are 11 blocks at a resolution of 64; "64d2" is one at 64 that halves it.

    Examples
    --------
    >>> [(layer.resolution, layer.down) for layer in parse_encoder("8x1,8d2,4x2")]
    [(8, 1), (8, 2), (4, 1), (4, 1)]
    """
    out: list[EncoderLayer] = []
    for resolution, mark, number in _parts("enc_blocks", text, "xd"):
        out += [EncoderLayer(resolution)] * number if mark == "x" else [EncoderLayer(resolution, number)]
    _check_encoder(out)
    return out


def parse_decoder(text: str) -> list[DecoderLayer]:
    """Return the blocks that a string such as "1x2,4m1,4x3" describes.

    "4x3" are 3 blocks at a resolution of 4; "4m1" is one at 4 that first takes in what stands at 1.

    Examples
    --------
    >>> parse_decoder("1x1,4m1")
    [DecoderLayer(resolution=1, mixin=None), DecoderLayer(resolution=4, mixin=1)]
    """
    out: list[DecoderLayer] = []
    seen: set[int] = set()
    for resolution, mark, number in _parts("dec_blocks", text, "xm"):
        if mark == "m" and (number not in seen or number >= resolution or resolution % number):
            raise invalid("dec_blocks", "mix in a lower resolution that came before", f"{resolution}m{number}")
        out += [DecoderLayer(resolution)] * number if mark == "x" else [DecoderLayer(resolution, number)]
        seen.add(resolution)
    return out


def parse_widths(text: str) -> dict[int, int]:
    """Return the widths that a string such as "4:64,1:64" gives to resolutions.

    Examples
    --------
    >>> parse_widths("4:64,1:128"), parse_widths("")
    ({4: 64, 1: 128}, {})
    """
    out = {}
    for part in text.split(",") if text else ():
        found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", part.strip())
        if found is None:
            raise invalid("custom_widths", "be parts like '8:64' joined by commas", repr(part))
        out[int(found[1])] = int(found[2])
    return out


def _parts(name: str, text: str, marks: str) -> list[tuple[int, str, int]]:
    out = []
    for part in text.split(","):
        found = re.fullmatch(rf"([1-9]\d*)([{marks}])([1-9]\d*)", part.strip())
        if found is None:
            raise invalid(name, f"be parts like '8{marks[0]}2' or '8{marks[1]}2' joined by commas", repr(part))
        out.append((int(found[1]), found[2], int(found[3])))
    return out


def _check_encoder(layers: list[EncoderLayer]) -> None:
    resolution = layers[0].resolution
    for layer in layers:
        if layer.resolution != resolution:
            came = f"{layer.resolution} where {resolution} arrives"
            raise invalid("enc_blocks", "name the resolution that the blocks before leave", came)
        resolution //= layer.down
        if resolution < 1:
            raise invalid("enc_blocks", "reduce to a resolution of at least 1", f"{layer.resolution}d{layer.down}")


def new_conv(n_in: int, n_out: int, size: int) -> nn.Conv2d:
    """Return a convolution that keeps the resolution; `draw_weights` gives it its first values."""
    # Torch's own first values would move the global generator.
    return nn.utils.skip_init(nn.Conv2d, n_in, n_out, size, padding=size // 2, device=torch.get_default_device())


@torch.no_grad()
def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all convolutions evenly within 1 / sqrt(inputs of one output), as torch does; biases are 0.

    Weights on the device "meta" are left alone.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            bound = layer.weight[0].numel() ** -0.5
            drawn = torch.empty(layer.weight.shape, device=generator.device, dtype=torch.float32)
            layer.weight.copy_(drawn.uniform_(-bound, bound, generator=generator))
            layer.bias.zero_()


class Bottleneck(nn.Module):
    """Four convolutions, each after a GELU: 1 x 1 to fewer channels, two in the middle, 1 x 1 to the output.

    Parameters
    ----------
    n_in, n_middle, n_out : int
        Channels.
    resolution : int
        Where it works: the two in the middle are 3 x 3 above a resolution of 2, else 1 x 1.
    residual : bool
        Add the input.
    down : int
        Average over squares of this size afterwards.
    """

    def __init__(
        self, n_in: int, n_middle: int, n_out: int, *, resolution: int, residual: bool = False, down: int = 1
    ) -> None:
        super().__init__()
        size = 3 if resolution > 2 else 1
        self.residual, self.down = residual, down
        self.c1 = new_conv(n_in, n_middle, 1)
        self.c2 = new_conv(n_middle, n_middle, size)
        self.c3 = new_conv(n_middle, n_middle, size)
        self.c4 = new_conv(n_middle, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, shape (B, n_out, R / down, R / down)."""
        y = x
        for layer in (self.c1, self.c2, self.c3, self.c4):
            y = layer(F.gelu(y))
        if self.residual:
            y = x + y
        return F.avg_pool2d(y, self.down) if self.down > 1 else y


class DecoderBlock(nn.Module):
    """One group of latents: a posterior from image and context, a prior from the context alone.

    Parameters
    ----------
    width, n_middle, zdim : int
        Channels of the context, of the bottlenecks, of the latents.
    resolution : int
        Where it works.
    """

    def __init__(self, width: int, n_middle: int, zdim: int, *, resolution: int) -> None:
        super().__init__()
        self.zdim = zdim
        self.enc = Bottleneck(2 * width, n_middle, 2 * zdim, resolution=resolution)
        self.prior = Bottleneck(width, n_middle, 2 * zdim + width, resolution=resolution)
        self.z_proj = new_conv(zdim, width, 1)
        self.resnet = Bottleneck(width, n_middle, width, resolution=resolution, residual=True)

    def posterior(self, x: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation given the image, each (B, zdim, R, R)."""
        return self.enc(torch.cat([x, activations], dim=1)).chunk(2, dim=1)

    def split_prior(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and log standard deviation without the image, and what the context gains."""
        return self.prior(x).split([self.zdim, self.zdim, x.shape[1]], dim=1)

    def take_in(self, x: Tensor, gain: Tensor, z: Tensor) -> Tensor:
        """Return the context after latents `z`."""
        return self.resnet(x + gain + self.z_proj(z))


def at_resolution(contexts: dict[int, Tensor], layer: DecoderLayer) -> Tensor:
    """Return the context at a layer, with a lower resolution mixed in where it says so.

    Of a wider one, the first channels are.
    """
    x = contexts[layer.resolution]
    if layer.mixin is None:
        return x
    coarse = contexts[layer.mixin][:, : x.shape[1]]
    return x + F.interpolate(coarse, scale_factor=layer.resolution // layer.mixin)
