"""Stable unCLIP, guided by the pooled embedding of an image."""

# B batch, D width

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.features.clip import ClipVision, ClipVisionConfig
from neurodecode.features.clip_hidden import ClipTextHidden
from neurodecode.features.weights import load_pretrained
from neurodecode.generate.backend import DiffusionBackend
from neurodecode.generate.sampling import add_noise, noise_of_rows
from neurodecode.generate.settings import GenerationSettings
from neuroloaders.checks import check_int, invalid, soft_import

__all__ = ["StableUnCLIP"]


class StableUnCLIP(DiffusionBackend):
    """Stable Diffusion 2.1 unCLIP (Ramesh et al. 2022 [1]_, Rombach et al. 2022).

    Parameters
    ----------
    unet, vae, scheduler, device, offload, slicing
        As for `DiffusionBackend`.
    normalizer : StableUnCLIPImageNormalizer
        Mean and spread of embeddings.
    noising : DDPMScheduler
        Noise levels of embeddings.
    text : ClipTextHidden
        The text encoder of the pipeline.
    image : ClipVision
        The image encoder of the pipeline, pooled and not normalised.

    Notes
    -----
    Guided by ``image``, (1024,) for ViT-H/14 or (768,) for ViT-L/14, and ``text``, (77, 1024), which may be left out:
    the empty caption. The embedding gets noise of ``settings.noise_level`` and is told its level; without a condition
    both are 0, as in diffusers. ``mix`` does not count.

    References
    ----------
    .. [1] Ramesh et al., Hierarchical text-conditional image generation with CLIP latents, arXiv:2204.06125.
    """

    name = "unclip"

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: nn.Module,
        scheduler: Any,
        normalizer: nn.Module,
        noising: Any,
        text: Any,
        image: Any,
        device: torch.device | str = "cpu",
        offload: bool = False,
        slicing: bool = False,
    ) -> None:
        options = {"device": device, "offload": offload, "slicing": slicing}
        super().__init__(unet=unet, vae=vae, scheduler=scheduler, **options)
        self._normalizer, self._noising, self._text, self._image = normalizer, noising, text, image
        if image.shape != self.shapes["image"]:
            raise invalid("image", f"give embeddings of shape {self.shapes['image']}", f"{image.shape}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
        slicing: bool = False,
    ) -> StableUnCLIP:
        """Load the pipeline from a folder, or from what was downloaded from the Hugging Face hub before.

        Parameters
        ----------
        path : path-like
            In the layout of ``stabilityai/stable-diffusion-2-1-unclip``.
        device, dtype, offload, slicing
            As for `neurodecode.generate.load_backend`.
        """
        diffusers = soft_import("diffusers", purpose="Stable unCLIP")
        from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

        def network(kind: Any, subfolder: str) -> nn.Module:
            return load_pretrained(kind.from_pretrained, path, subfolder=subfolder, dtype=dtype)

        def schedule(kind: Any, subfolder: str) -> Any:
            return load_pretrained(kind.from_pretrained, path, subfolder=subfolder, weights=False)

        # In float32: targets are computed by these, once.
        where = None if offload else device
        pooled = ClipVisionConfig(tokens="pooled", normalise="none")
        return cls(
            unet=network(diffusers.UNet2DConditionModel, "unet"),
            vae=network(diffusers.AutoencoderKL, "vae"),
            scheduler=schedule(diffusers.DDIMScheduler, "scheduler"),
            normalizer=network(StableUnCLIPImageNormalizer, "image_normalizer"),
            noising=schedule(diffusers.DDPMScheduler, "image_noising_scheduler"),
            text=ClipTextHidden.load(path, device=where),
            image=ClipVision.load(path, pooled, subfolder="image_encoder", device=where),
            device=device,
            offload=offload,
            slicing=slicing,
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Kind of embedding -> its shape for one image."""
        return {"text": self._text.shape, "image": (self._normalizer.config.embedding_dim,)}

    @property
    def extractors(self) -> dict[str, Any]:
        """Kind of embedding -> the extractor whose features it is guided by."""
        return {"text": self._text, "image": self._image}

    def prepare(self, kinds: Sequence[str], settings: GenerationSettings) -> None:
        """Check that there is an image's embedding, and that its noise level exists."""
        if "image" not in kinds:
            raise invalid("latents", "hold 'image'", ", ".join(kinds))
        check_int("noise_level", settings.noise_level, at_least=0, at_most=len(self._noising.alphas_cumprod) - 1)

    def guide(self, latents: Mapping[str, Tensor], rows: Sequence[int], seed: int, settings: Any) -> dict[str, Tensor]:
        """Return the text, and the noised embedding beside its noise level."""
        from diffusers.models.embeddings import get_timestep_embedding

        text = latents["text"] if "text" in latents else self._empty.expand(len(rows), -1, -1)
        image = latents["image"]
        mean, std = (p.detach().to(image) for p in (self._normalizer.mean, self._normalizer.std))
        noise = noise_of_rows(seed, rows, tuple(image.shape[1:]), "embedding").to(image)
        signal = float(self._noising.alphas_cumprod[settings.noise_level])
        noised = add_noise((image - mean) / std, noise, signal) * std + mean
        level = torch.full((len(rows),), settings.noise_level, device=image.device)
        told = get_timestep_embedding(level, image.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
        return {"text": text, "image": torch.cat([noised, told.to(noised)], dim=1)}

    def unguided(self, n: int, settings: GenerationSettings) -> dict[str, Tensor]:
        """Return the empty caption, and 0."""
        return {"text": self._empty.expand(n, -1, -1), "image": torch.zeros(n, 2 * self.shapes["image"][0])}

    def denoise(self, x: Tensor, t: int, given: dict[str, Tensor]) -> Tensor:
        """Run the network once."""
        return self.unet(x, t, encoder_hidden_states=given["text"], class_labels=given["image"], return_dict=False)[0]

    @cached_property
    def _empty(self) -> Tensor:
        return self._text.uncaptioned().to(self.device)
