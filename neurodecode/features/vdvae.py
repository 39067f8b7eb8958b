"""Latents of the very deep VAE, the low-level target of Brain-Diffuser, from which images can be decoded again."""

# B batch

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.features.autokl import LATENTS
from neurodecode.features.base import ImageExtractor, check_config
from neurodecode.features.pixels import as_floats, check_images, image_seed
from neuroloaders.checks import check_int, check_option

__all__ = ["VdvaeConfig", "VdvaeLatents"]


@dataclass(frozen=True, kw_only=True)
class VdvaeConfig:
    """Settings of `VdvaeLatents`.

    Parameters
    ----------
    latents : {"mean", "sample"}
        A key of `neurodecode.features.LATENTS`. The code of Brain-Diffuser takes samples, without a seed.
    n_layers : int
        Decoder blocks, from the coarsest, whose latents are taken: 31 in Brain-Diffuser.
    seed : int
        For "sample".
    """

    latents: str = "mean"
    n_layers: int = 31
    seed: int = 0

    def __post_init__(self) -> None:
        check_option("latents", self.latents, LATENTS)
        check_int("n_layers", self.n_layers, at_least=1)
        check_int("seed", self.seed)


class VdvaeLatents(ImageExtractor):
    """Latents of the first decoder blocks of a `neurodecode.fmri.vdvae.VDVAE`, one after the other.

    Parameters
    ----------
    vdvae : VDVAE
        The network.
    config : VdvaeConfig, optional
        Blocks, mean or sample.
    device : str or torch.device, optional
        Where to compute; by default where the network is.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    91168 numbers for 31 blocks of the released network (Ozcelik & VanRullen 2023 [1]_). Samples are seeded by what the
    image shows, so that they depend neither on the batch nor on the order.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.
    """

    name = "vdvae"

    def __init__(
        self, vdvae: nn.Module, config: VdvaeConfig | None = None, *, device: Any = None, batch_size: int = 32
    ) -> None:
        super().__init__(check_config(config, VdvaeConfig), vdvae, device=device, batch_size=batch_size)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: VdvaeConfig | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> VdvaeLatents:
        """Load the network by ``VDVAE.load``.

        Parameters
        ----------
        path : path-like
            A checkpoint of OpenAI's, or a folder of ``VDVAE.save``.
        config : VdvaeConfig, optional
            Settings.
        device : str or torch.device, optional
            Where to compute; by default the CPU.
        dtype : torch.dtype
            What to compute in.
        batch_size : int
            Images at a time.
        """
        from neurodecode.fmri.vdvae import VDVAE

        return cls(VDVAE.load(path).to(dtype), config, device=device, batch_size=batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        offsets = self.module.latent_offsets
        return (offsets[min(self.config.n_layers, len(offsets) - 1)],)

    def prepare(self, images: Tensor) -> Tensor:
        """Return images in floating point; the network resizes them itself."""
        return as_floats(images)

    def _prepare_each(self, batch: Sequence[Tensor]) -> list[Tensor]:
        images = [check_images(f"batch[{i}]", image[None])[0] for i, image in enumerate(batch)]
        return [as_floats(image.to(self.device)) for image in images]

    def compute(self, pixels: Tensor | list[Tensor], originals: Sequence[Tensor] | Tensor) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        config, rows = self.config, {}
        for i, image in enumerate(pixels):
            rows.setdefault(tuple(image.shape), []).append(i)
        found: list[Tensor | None] = [None] * len(pixels)
        for some in rows.values():
            generators = None
            if config.latents == "sample":
                generators = [torch.Generator().manual_seed(image_seed(originals[i], config.seed)) for i in some]
            images = torch.stack([pixels[i] for i in some])
            options = {"latents": config.latents, "n_layers": config.n_layers, "generator": generators}
            for i, latents in zip(some, self.module.encode(images, **options), strict=True):
                found[i] = latents
        return torch.stack(found)

    def decode(
        self, latents: Any, *, rest: str = "mean", output: str = "mean", generator: torch.Generator | None = None
    ) -> Tensor:
        """Turn latents back into images.

        Parameters
        ----------
        latents : tensor or array of shape (B, n_latents)
            As the extractor gives them, or predicted.
        rest, output : {"mean", "sample"}
            The latents of the blocks that follow, and the pixels, see ``VDVAE.decode``. Both are drawn in the code of
            Brain-Diffuser.
        generator : torch.Generator, or sequence of B of them, optional
            Draws what is drawn.

        Returns
        -------
        Tensor of float32, shape (B, 3, R, R)
            In [0, 1].
        """
        latents = torch.as_tensor(latents, dtype=torch.float32, device=self.device)
        return self.module.decode(latents, rest=rest, output=output, generator=generator).float()
