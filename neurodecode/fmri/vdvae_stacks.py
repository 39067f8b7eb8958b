"""The two stacks of a very deep VAE: images to activations at each resolution, and contexts to pixels."""

# B images, R resolution

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurodecode.fmri.vdvae_blocks import (
    Bottleneck,
    DecoderBlock,
    draw_weights,
    new_conv,
    parse_decoder,
    parse_encoder,
)
from neurodecode.fmri.vdvae_config import VDVAEConfig
from neurodecode.fmri.vdvae_mixture import PixelMixture

__all__ = ["Decoder", "Encoder", "Output", "start_weights"]


class Encoder(nn.Module):
    """Residual blocks from fine to coarse.

    Parameters
    ----------
    config : VDVAEConfig
        How it is built.
    """

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.config, layers = config, parse_encoder(config.enc_blocks)
        self.in_conv = new_conv(3, config.width, 3)
        blocks = []
        for layer in layers:
            r = layer.resolution
            sizes = (config.width_at(r), config.middle_at(r), config.width_at(r))
            blocks.append(Bottleneck(*sizes, resolution=r, residual=True, down=layer.down))
        self.enc_blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Return the last activation at each resolution."""
        x = self.in_conv(x)
        activations = {x.shape[2]: x}
        for block in self.enc_blocks:
            x = block(x)
            missing = self.config.width_at(x.shape[2]) - x.shape[1]
            if missing:
                x = F.pad(x, (0, 0, 0, 0, 0, missing))
            activations[x.shape[2]] = x
        return activations


class Output(nn.Module):
    """The last convolution, to the parameters of `PixelMixture`.

    Parameters
    ----------
    config : VDVAEConfig
        How it is built.
    """

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.out_conv = new_conv(config.width, 10 * config.num_mixtures, 1)


class Decoder(nn.Module):
    """Blocks of latents from coarse to fine, what each resolution starts from, and the output.

    Parameters
    ----------
    config : VDVAEConfig
        How it is built.
    """

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.config, self.layers = config, parse_decoder(config.dec_blocks)
        resolutions = [layer.resolution for layer in self.layers]
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(config.width_at(r), config.middle_at(r), config.zdim, resolution=r) for r in resolutions
        )
        self.resolutions = sorted(set(resolutions))
        biased = [r for r in self.resolutions if r <= config.no_bias_above]
        self.bias_xs = nn.ParameterList(nn.Parameter(torch.zeros(1, config.width_at(r), r, r)) for r in biased)
        self.out_net = Output(config)
        self.gain = nn.Parameter(torch.ones(1, config.width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, config.width, 1, 1))

    def contexts(self, n: int) -> dict[int, Tensor]:
        """Return what each resolution starts from, for n images."""
        out = {bias.shape[2]: bias.expand(n, -1, -1, -1) for bias in self.bias_xs}
        for r in self.resolutions:
            if r not in out:
                out[r] = self.gain.new_zeros((n, self.config.width_at(r), r, r))
        return out

    def pixels(self, contexts: dict[int, Tensor]) -> PixelMixture:
        """Return the distribution of the pixels."""
        x = contexts[self.config.image_size] * self.gain + self.bias
        return PixelMixture.from_channels(self.out_net.out_conv(x))


@torch.no_grad()
def start_weights(encoder: Encoder, decoder: Decoder, generator: torch.Generator) -> None:
    """Give both stacks the weights that training begins with.

    Parameters
    ----------
    encoder, decoder : Module
        Changed in place; weights on the device "meta" are left alone.
    generator : torch.Generator
        Where the numbers come from: the same weights for each device and dtype.

    Notes
    -----
    What n blocks add to one another would grow with n: the last convolution of each begins smaller by sqrt(n), as in
    the paper. Priors begin as standard normal distributions.
    """
    draw_weights(encoder, generator)
    draw_weights(decoder, generator)
    for block in encoder.enc_blocks:
        block.c4.weight *= len(encoder.enc_blocks) ** -0.5
    for block in decoder.dec_blocks:
        block.z_proj.weight *= len(decoder.dec_blocks) ** -0.5
        block.resnet.c4.weight *= len(decoder.dec_blocks) ** -0.5
        block.prior.c4.weight.zero_()
