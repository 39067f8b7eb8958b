"""Latents of Stable Diffusion's autoencoder (AutoKL), from which images can be decoded again."""

# B batch, C latent channels (4), h w sides of the latent (64 at 512 pixels)

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.features.base import ImageExtractor, check_config
from neurodecode.features.pixels import FITS, as_floats, image_seed, square
from neurodecode.features.weights import load_pretrained
from neuroloaders.checks import check_int, check_option, check_shape, invalid, soft_import

__all__ = ["LATENTS", "AutoKL", "AutoKLConfig"]

# What is taken of the posterior.
LATENTS = {
    "mean": "its mean",
    "sample": "a sample, seeded by what the image shows: the same image has the same latent",
}


@dataclass(frozen=True, kw_only=True)
class AutoKLConfig:
    """Settings of `AutoKL`.

    Parameters
    ----------
    size : int
        Images are resized to this square before, in pixels.
    fit : {"squash", "crop"}
        How an image that is no square becomes one.
    latents : {"mean", "sample"}
        A key of `LATENTS`.
    seed : int
        For "sample".
    """

    size: int = 512
    fit: str = "squash"
    latents: str = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("size", self.size, at_least=1)
        check_int("seed", self.seed)
        check_option("fit", self.fit, FITS)
        check_option("latents", self.latents, LATENTS)


class AutoKL(ImageExtractor):
    r"""Latents of a KL-regularised autoencoder, scaled as diffusion takes them.

    Parameters
    ----------
    vae : AutoencoderKL
        Of diffusers.
    config : AutoKLConfig, optional
        Size, mean or sample.
    device : str or torch.device, optional
        Where to compute; by default where the autoencoder is.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Raises
    ------
    ValueError
        If the size is no multiple of what the autoencoder shrinks by (8 in Stable Diffusion).

    Notes
    -----
    :math:`z = (\mu(2x - 1) - b)\,s` with scaling factor s (0.18215) and shift b (0 in Stable Diffusion 1 and 2);
    Rombach et al. 2022 [1]_. The low-level target of Benchetrit et al. 2023 [2]_, of shape (4, 64, 64).

    References
    ----------
    .. [1] Rombach et al., High-resolution image synthesis with latent diffusion models, CVPR 2022, arXiv:2112.10752.
    .. [2] Benchetrit, Banville & King, Brain decoding: toward real-time reconstruction of visual perception,
       arXiv:2310.19812.
    """

    name = "autokl"

    def __init__(
        self, vae: nn.Module, config: AutoKLConfig | None = None, *, device: Any = None, batch_size: int = 8
    ) -> None:
        super().__init__(check_config(config, AutoKLConfig), vae, device=device, batch_size=batch_size)
        if self.config.size % self.factor:
            raise invalid("size", f"be a multiple of {self.factor}", f"{self.config.size}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: AutoKLConfig | None = None,
        *,
        subfolder: str | None = None,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
    ) -> AutoKL:
        """Load an autoencoder from a folder, or from what was downloaded from the Hugging Face hub before.

        Parameters
        ----------
        path : path-like
            A folder in the layout of diffusers, or a name on the hub (``stabilityai/sd-vae-ft-mse``).
        config : AutoKLConfig, optional
            Settings.
        subfolder : str, optional
            Where in it: "vae" of a whole pipeline.
        device : str or torch.device, optional
            Where to compute; by default the CPU.
        dtype : torch.dtype
            What to compute in.
        batch_size : int
            Images at a time.

        Raises
        ------
        FileNotFoundError, ValueError
            If the model is not there, not complete, or damaged.
        """
        diffusers = soft_import("diffusers", purpose="AutoKL")
        vae = load_pretrained(diffusers.AutoencoderKL.from_pretrained, path, subfolder=subfolder, dtype=dtype)
        return cls(vae, config, device=device, batch_size=batch_size)

    @property
    def factor(self) -> int:
        """By how much latents are smaller than images, side by side."""
        return 2 ** (len(self.module.config.block_out_channels) - 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        side = self.config.size // self.factor
        return (self.module.config.latent_channels, side, side)

    def prepare(self, images: Tensor) -> Tensor:
        """Return images in [-1, 1], of the size that was set."""
        return (square(as_floats(images), self.config.size, fit=self.config.fit) * 2 - 1).to(self.dtype)

    def compute(self, pixels: Tensor, originals: Sequence[Tensor] | Tensor) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        posterior = self.module.encode(pixels).latent_dist
        latents = posterior.mean.float()
        if self.config.latents == "sample":
            drawn = [
                torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(image_seed(x, self.config.seed)))
                for x in originals
            ]
            latents = latents + posterior.std.float() * torch.stack(drawn).to(latents.device)
        shift, scale = self._scaling()
        return (latents - shift) * scale

    def decode(self, latents: Any) -> Tensor:
        """Turn latents back into images.

        Parameters
        ----------
        latents : tensor or array of shape (B, *shape), or flattened (B, C * h * w)
            As the extractor gives them, or predicted.

        Returns
        -------
        Tensor of float32, shape (B, 3, size, size)
            In [0, 1].
        """
        latents = torch.as_tensor(latents, dtype=torch.float32, device=self.device)
        if latents.ndim == 2:
            check_shape("latents", latents, ("B", self.shape[0] * self.shape[1] * self.shape[2]))
            latents = latents.unflatten(1, self.shape)
        check_shape("latents", latents, ("B", *self.shape))
        shift, scale = self._scaling()
        with torch.no_grad():
            images = self.module.decode((latents / scale + shift).to(self.dtype)).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def _scaling(self) -> tuple[float, float]:
        config = self.module.config
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
