"""The very deep VAE: images to a hierarchy of latents, and latents, also predicted ones, to images."""

# B images, R resolution, L decoder blocks

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurodecode.features.pixels import as_floats, check_images, square
from neurodecode.fmri.vdvae_blocks import at_resolution
from neurodecode.fmri.vdvae_config import RELEASED, VDVAEConfig
from neurodecode.fmri.vdvae_draws import draw_normal, image_streams, own_generator
from neurodecode.fmri.vdvae_stacks import Decoder, Encoder, start_weights
from neuroloaders.checks import check_finite, check_int, check_number, check_option, check_shape, invalid

__all__ = ["LATENTS", "OUTPUTS", "RELEASED", "REST", "VDVAE", "Elbo", "VDVAEConfig", "gaussian_kl"]

LATENTS = {"mean": "means of the posterior", "sample": "draws from it, as in the reference"}
REST = {"mean": "means of the prior", "sample": "draws from it, as in the reference"}
OUTPUTS = {
    "mean": "expected pixels",
    "sample": "draws, to the nearest grey level, as the likelihood counts them",
    "truncated": "the same draws, to the grey level below, as in the reference: darker by half a level",
}

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Elbo:
    """The negative evidence bound of B images, in bits per dimension (3 R R of them).

    Parameters
    ----------
    distortion : Tensor, shape (B,)
        Negative log probability of the pixels given the latents.
    rates : Tensor, shape (B, L)
        Divergence of the posterior of each decoder block from its prior: where the information about the image is.
    """

    distortion: Tensor
    rates: Tensor

    @property
    def bits(self) -> Tensor:
        """The bound, shape (B,): lower is better."""
        return self.distortion + self.rates.sum(1)


class VDVAE(nn.Module):
    """A very deep variational autoencoder (Child 2021 [1]_), by default untrained.

    Parameters
    ----------
    config : VDVAEConfig
        How it is built.
    generator : torch.Generator, optional
        Draws the first weights; None: one with a seed from the system. The global generator is never used.

    Attributes
    ----------
    latent_shapes : list of tuple of int
        Shape (zdim, R, R) of the latents of each decoder block, from the coarsest.
    latent_offsets : list of int
        Where the latents of each block begin in a row of all, and where the last ends.

    Notes
    -----
    Decoder blocks come one after the other. Each has a context: what the blocks before have built at its resolution,
    with a coarser one mixed in at the first of each resolution. From the context it has a prior of its latents z, from
    context and image a posterior; z then enters the context.

    Names of parameters are those of OpenAI's release, so that its checkpoints load by name. Brain-Diffuser uses the
    latents of the first 31 of the 75 blocks of ``imagenet64``: 91168 numbers an image [2]_.

    Deviations: latents are posterior means and pixels expectations by default, where the reference draws both without
    a seed, and cuts grey levels off instead of rounding them. All of it is there by name: ``encode(latents="sample")``,
    ``decode(rest="sample", output="truncated")``.

    It runs under autocast, and in bfloat16 after ``.to(torch.bfloat16)``; latents and images come out in float32, and
    the pixels' distribution is computed in it. Drawn numbers come from generators on the CPU, unless others are given,
    and are then the same on each device.

    References
    ----------
    .. [1] Child, Very deep VAEs generalize autoregressive models and can outperform them on images, ICLR 2021,
       arXiv:2011.10650.
    .. [2] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.

    Examples
    --------
    >>> vdvae = VDVAE(VDVAEConfig.tiny(), generator=torch.Generator().manual_seed(0))
    >>> latents = vdvae.encode(torch.rand(2, 3, 40, 40))
    >>> latents.shape[1] == vdvae.latent_offsets[-1], vdvae.decode(latents).shape
    (True, torch.Size([2, 3, 16, 16]))
    """

    def __init__(self, config: VDVAEConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.latent_shapes = [(config.zdim, layer.resolution, layer.resolution) for layer in self.decoder.layers]
        sizes = [math.prod(shape) for shape in self.latent_shapes]
        self.latent_offsets = [0, *itertools.accumulate(sizes)]
        start_weights(self.encoder, self.decoder, own_generator(generator))
        # On CPUs a fifth to a third faster than channels first (measured).
        self.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, config: VDVAEConfig | None = None, device: Any = None) -> VDVAE:
        """Read a network from a folder of `save`, or from a checkpoint of OpenAI's release.

        Parameters
        ----------
        path : path-like
            A folder, or a file such as ``imagenet64-iter-1600000-model-ema.th``.
        config : VDVAEConfig, optional
            Of a file; by default ``imagenet64``. A folder holds its own.
        device : str or torch.device, optional
            Where to put it; by default the CPU.

        Returns
        -------
        VDVAE
            In evaluation mode, in the dtype of the file.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`: the message says where the released network is.
        ValueError
            If it is of another architecture (the first tensor that differs is named), or no checkpoint.
        """
        from neurodecode.fmri.vdvae_files import load_vdvae

        return load_vdvae(path, config=config, device=device)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write weights (safetensors) and configuration into a folder, which is made if it is not there."""
        from neurodecode.fmri.vdvae_files import save_vdvae

        save_vdvae(self, folder)

    @torch.no_grad()
    def encode(
        self,
        images: Any,
        *,
        latents: str = "mean",
        n_layers: int | None = 31,
        generator: Generators = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Return the latents of images.

        Parameters
        ----------
        images : tensor or array, shape (B, 3, H, W)
            Bytes, or floating point in [0, 1]; of any size.
        latents : {"mean", "sample"}
            A key of `LATENTS`.
        n_layers : int, optional
            Decoder blocks whose latents are wanted, from the coarsest; those after them are not computed. None, or
            more than there are: all.
        generator : torch.Generator, or sequence of B of them, optional
            For "sample". One gives each image a stream of its own, in order; so does None, with a seed from the
            system. With one for each image, its latents do not depend on its place either.
        batch_size : int, optional
            Images at a time; numbers do not depend on it, but for rounding. None: all at once.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Tensor of float32, shape (B, n_latents)
            Blocks one after the other, each (zdim, R, R) in C order; where the network is. 31 blocks of
            ``imagenet64``: 91168 numbers, resolution 4 from 32, 8 from 1056, 16 from 9248, 32 from 74784.

        Raises
        ------
        ValueError, TypeError
            If images have another shape, range or type, or an option is unknown.

        Notes
        -----
        A block's posterior depends on the latents of the blocks before: with "sample" on those that were drawn, with
        "mean" on their means. So "mean" is the path of the most probable values, not the mean over all draws.

        Images are resized to R x R by averaging over source pixels (bilinear, antialiased, proportions change), and
        rounded to bytes, as by Pillow; a few values differ from Pillow's by one grey level.
        """
        check_option("latents", latents, LATENTS)
        n = len(self.latent_shapes)
        n_layers = n if n_layers is None else min(check_int("n_layers", n_layers, at_least=1), n)
        _check_shape(images)
        streams = image_streams(generator, len(images)) if latents == "sample" else None
        out = self.decoder.gain.new_empty((len(images), self.latent_offsets[n_layers]), dtype=torch.float32)
        for some in _batches(len(images), batch_size, progress, "encode"):
            out[some] = self._encode(images[some], n_layers, streams[some] if streams else None)
        return out

    def _encode(self, images: Any, n_layers: int, streams: list[torch.Generator] | None) -> Tensor:
        activations = self.encoder(self._inputs(self._bytes(images)))
        contexts, out = self.decoder.contexts(len(images)), []
        for k, (layer, block) in enumerate(zip(self.decoder.layers[:n_layers], self.decoder.dec_blocks, strict=False)):
            x = at_resolution(contexts, layer)
            z, log_std = block.posterior(x, activations[layer.resolution])
            if streams is not None:
                z = z + log_std.exp() * draw_normal(z, streams)
            out.append(z.flatten(1).float())
            if k + 1 < n_layers:
                contexts[layer.resolution] = block.take_in(x, block.split_prior(x)[2], z)
        return torch.cat(out, dim=1)

    @torch.no_grad()
    def decode(
        self,
        latents: Any,
        *,
        rest: str = "mean",
        output: str = "mean",
        temperature: float = 1.0,
        generator: Generators = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Return images from the latents of the first blocks.

        Parameters
        ----------
        latents : tensor or array, shape (B, n_latents)
            Of any number of blocks, from the coarsest: a width among `latent_offsets`. A width of 0 draws images that
            the network makes up.
        rest : {"mean", "sample"}
            A key of `REST`: the latents of the blocks that follow.
        output : {"mean", "sample", "truncated"}
            A key of `OUTPUTS`: the pixels.
        temperature : float
            For ``rest="sample"``: factor on the standard deviation of what is drawn from the prior.
        generator : torch.Generator, or sequence of B of them, optional
            Draws what is drawn, as in `encode`.
        batch_size : int, optional
            Images at a time; numbers do not depend on it, but for rounding. None: all at once.
        progress : bool
            Show a progress bar.

        Returns
        -------
        Tensor of float32, shape (B, 3, R, R)
            In [0, 1]; unless expected pixels are asked for, whole multiples of 1/255.

        Raises
        ------
        ValueError, TypeError
            If latents have another width or are not finite, or an option is unknown or without effect.
        """
        check_option("rest", rest, REST)
        check_option("output", output, OUTPUTS)
        if check_number("temperature", temperature, above=0) != 1 and rest != "sample":
            raise invalid("temperature", "be 1 unless rest is 'sample'", f"{temperature:g}", "Pass rest='sample'.")
        self._check_latents(latents)
        draws = rest == "sample" or output != "mean"
        streams = image_streams(generator, len(latents)) if draws else None
        size = self.config.image_size
        out = self.decoder.gain.new_empty((len(latents), 3, size, size), dtype=torch.float32)
        for some in _batches(len(latents), batch_size, progress, "decode"):
            own = streams[some] if streams else None
            contexts = self._decode(latents[some], own if rest == "sample" else None, math.log(temperature))
            pixels = self.decoder.pixels(contexts)
            if output == "mean":
                out[some] = (pixels.mean() + 1.0) / 2.0
            else:
                levels = (pixels.sample(own) + 1.0) * 127.5
                out[some] = (levels.floor() if output == "truncated" else levels.round()) / 255.0
        return out

    def _decode(self, latents: Any, streams: list[torch.Generator] | None, log_temperature: float) -> dict[int, Tensor]:
        given = self._given(latents)
        contexts = self.decoder.contexts(len(latents))
        for k, (layer, block) in enumerate(zip(self.decoder.layers, self.decoder.dec_blocks, strict=True)):
            x = at_resolution(contexts, layer)
            mean, log_std, gain = block.split_prior(x)
            if k < len(given):
                z = given[k]
            elif streams is None:
                z = mean
            else:
                z = mean + (log_std + log_temperature).exp() * draw_normal(mean, streams)
            contexts[layer.resolution] = block.take_in(x, gain, z)
        return contexts

    def elbo(self, images: Any, *, generator: Generators = None) -> Elbo:
        """Return what training lowers, with gradients: the negative evidence bound of each image.

        Parameters
        ----------
        images : tensor or array, shape (B, 3, H, W)
            As for `encode`.
        generator : torch.Generator, or sequence of B of them, optional
            Draws the latents, as in `encode`.

        Returns
        -------
        Elbo
            In bits per dimension: the pixels' part, and that of each block. The release states 3.52 in all for
            ``imagenet64`` on ImageNet's validation images.
        """
        _check_shape(images)
        target = self._bytes(images)
        streams = image_streams(generator, len(images))
        activations = self.encoder(self._inputs(target))
        contexts, rates = self.decoder.contexts(len(images)), []
        for layer, block in zip(self.decoder.layers, self.decoder.dec_blocks, strict=True):
            x = at_resolution(contexts, layer)
            qm, qv = block.posterior(x, activations[layer.resolution])
            pm, pv, gain = block.split_prior(x)
            z = qm + qv.exp() * draw_normal(qm, streams)
            rates.append(gaussian_kl(qm, qv, pm, pv).flatten(1).sum(1))
            contexts[layer.resolution] = block.take_in(x, gain, z)
        distortion = -self.decoder.pixels(contexts).log_prob(target.to(self.decoder.gain.device)).flatten(1).sum(1)
        per_dimension = 3 * self.config.image_size**2 * math.log(2.0)
        return Elbo(distortion=distortion / per_dimension, rates=torch.stack(rates, dim=1) / per_dimension)

    def forward(self, images: Any, *, generator: Generators = None) -> Elbo:
        """Return `elbo`, so that wrappers for several GPUs can call it."""
        return self.elbo(images, generator=generator)

    def _bytes(self, images: Any) -> Tensor:
        """Return images of the network's size in whole numbers 0..255, in float32."""
        size = self.config.image_size
        check_finite("images", images)
        resized = square(as_floats(check_images("images", images)), size, fit="squash", mode="bilinear")
        return (resized * 255.0).round()

    def _inputs(self, levels: Tensor) -> Tensor:
        weight = self.encoder.in_conv.weight
        scaled = (levels - self.config.pixel_mean) / self.config.pixel_scale
        return scaled.to(weight.device, weight.dtype)

    def _check_latents(self, latents: Any) -> None:
        check_shape("latents", latents, ("B", "n_latents"))
        if latents.shape[1] not in self.latent_offsets:
            some = ", ".join(map(str, self.latent_offsets[:4]))
            advice = "Pass the latents of whole blocks, from the coarsest."
            required = f"have a width among latent_offsets ({some}, ... {self.latent_offsets[-1]})"
            raise invalid("latents", required, latents, advice)

    def _given(self, latents: Any) -> list[Tensor]:
        """Return latents of one batch block by block."""
        if not isinstance(latents, Tensor):
            latents = torch.from_numpy(np.array(latents, dtype=np.float32))
        check_finite("latents", latents, advice="Find where they come from before decoding them.")
        n_given = self.latent_offsets.index(latents.shape[1])
        latents = latents.to(self.decoder.gain.device, self.decoder.gain.dtype)
        edges = itertools.pairwise(self.latent_offsets[: n_given + 1])
        return [
            latents[:, first:last].reshape(len(latents), *shape)
            for (first, last), shape in zip(edges, self.latent_shapes[:n_given], strict=True)
        ]


def gaussian_kl(qm: Tensor, qv: Tensor, pm: Tensor, pv: Tensor) -> Tensor:
    """Return the divergence of normal distributions from others, given means and log standard deviations, in nats.

    In float32 at least: squares of half precision overflow.
    """
    qm, qv, pm, pv = (value.to(torch.promote_types(value.dtype, torch.float32)) for value in (qm, qv, pm, pv))
    return pv - qv - 0.5 + 0.5 * ((2 * qv).exp() + (qm - pm) ** 2) * (-2 * pv).exp()


def _check_shape(images: Any) -> None:
    """Check the shape of all images before the first batch; type and range are checked batch by batch."""
    check_shape("images", images, ("B", 3, "H", "W"), advice="Channels come second: x.permute(0, 3, 1, 2).")


def _batches(n: int, batch_size: int | None, progress: bool, what: str) -> Iterator[slice]:
    from tqdm.auto import tqdm

    step = max(n, 1) if batch_size is None else check_int("batch_size", batch_size, at_least=1)
    with tqdm(total=n, desc=f"VDVAE {what}", unit="image", disable=not progress) as bar:
        for start in range(0, n, step):
            stop = min(start + step, n)
            yield slice(start, stop)
            bar.update(stop - start)
