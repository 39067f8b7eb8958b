"""Stable Diffusion with an IP-Adapter, guided by the pooled embedding of an image and, if wanted, a text."""

# B batch, L tokens, D width

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.features.clip import ClipVision, ClipVisionConfig
from neurodecode.features.clip_hidden import ClipTextHidden
from neurodecode.features.weights import load_pretrained
from neurodecode.generate.backend import DiffusionBackend
from neurodecode.generate.settings import GenerationSettings
from neuroloaders.checkpoints import load_checkpoint
from neuroloaders.checks import corrupt_file, invalid, soft_import

__all__ = ["IPAdapter"]


class IPAdapter(DiffusionBackend):
    """Stable Diffusion 1 or 2 with an IP-Adapter (Ye et al. 2023 [1]_).

    Parameters
    ----------
    unet : UNet2DConditionModel
        With the adapter's attention and projection.
    vae, scheduler, device, offload, slicing
        As for `DiffusionBackend`.
    text : ClipTextHidden
        The text encoder of the pipeline.
    image : ClipVision, optional
        The encoder of the adapter (ViT-H/14 for those of Stable Diffusion 1), pooled and not normalised.

    Notes
    -----
    Guided by ``image``, (1024,) for ViT-H/14, and ``text``, (77, 768), which may be left out: the empty caption.
    Without a condition the image's embedding is 0. The weight of the image is ``settings.image_scale``; ``mix`` does
    not count. Adapters that take hidden states of the encoder ("plus") and faces are refused.

    References
    ----------
    .. [1] Ye et al., IP-Adapter, arXiv:2308.06721.
    """

    name = "ip-adapter"

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: nn.Module,
        scheduler: Any,
        text: Any,
        image: Any = None,
        device: torch.device | str = "cpu",
        offload: bool = False,
        slicing: bool = False,
    ) -> None:
        options = {"device": device, "offload": offload, "slicing": slicing}
        super().__init__(unet=unet, vae=vae, scheduler=scheduler, **options)
        self._text, self._image = text, image
        if image is not None and image.shape != self.shapes["image"]:
            raise invalid("image", f"give embeddings of shape {self.shapes['image']}", f"{image.shape}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        adapter: str | os.PathLike[str],
        image_encoder: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
        slicing: bool = False,
    ) -> IPAdapter:
        """Load pipeline and adapter.

        Parameters
        ----------
        path : path-like
            Stable Diffusion in the layout of diffusers, or its name on the hub.
        adapter : path-like
            The adapter's weights, such as ``models/ip-adapter_sd15.safetensors`` of ``h94/IP-Adapter``.
        image_encoder : path-like, optional
            Folder of the adapter's image encoder, such as ``models/image_encoder`` there; for `extractors` only.
        device, dtype, offload, slicing
            As for `neurodecode.generate.load_backend`.
        """
        diffusers = soft_import("diffusers", purpose="An IP-Adapter")
        # In float32: targets are computed by these, once.
        where = None if offload else device
        text = ClipTextHidden.load(path, device=where)
        unet = load_pretrained(diffusers.UNet2DConditionModel.from_pretrained, path, subfolder="unet", dtype=dtype)
        vae = load_pretrained(diffusers.AutoencoderKL.from_pretrained, path, subfolder="vae", dtype=dtype)
        scheduler = load_pretrained(diffusers.DDIMScheduler.from_pretrained, path, subfolder="scheduler", weights=False)
        _add_adapter(diffusers, unet, vae, scheduler, text, Path(adapter))
        nn.Module.to(unet, dtype=dtype)  # the method of diffusers warns without cause
        image = None
        if image_encoder is not None:
            pooled = ClipVisionConfig(tokens="pooled", normalise="none")
            image = ClipVision.load(image_encoder, pooled, device=where)
        options = {"device": device, "offload": offload, "slicing": slicing}
        return cls(unet=unet, vae=vae, scheduler=scheduler, text=text, image=image, **options)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Kind of embedding -> its shape for one image."""
        return {"text": self._text.shape, "image": (_projection(self.unet).in_features,)}

    @property
    def extractors(self) -> dict[str, Any]:
        """Kind of embedding -> the extractor whose features it is guided by, where its encoder was loaded."""
        return {"text": self._text} | ({} if self._image is None else {"image": self._image})

    def prepare(self, kinds: Sequence[str], settings: GenerationSettings) -> None:
        """Check that there is an image's embedding, and set its weight."""
        if "image" not in kinds:
            raise invalid("latents", "hold 'image'", ", ".join(kinds))
        for processor in self.unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [settings.image_scale]

    def guide(self, latents: Mapping[str, Tensor], rows: Sequence[int], seed: int, settings: Any) -> dict[str, Tensor]:
        """Return text and image."""
        text = latents["text"] if "text" in latents else self._empty.expand(len(rows), -1, -1)
        return {"text": text, "image": latents["image"]}

    def unguided(self, n: int, settings: GenerationSettings) -> dict[str, Tensor]:
        """Return the empty caption, and 0."""
        return {"text": self._empty.expand(n, -1, -1), "image": torch.zeros(n, *self.shapes["image"])}

    def denoise(self, x: Tensor, t: int, given: dict[str, Tensor]) -> Tensor:
        """Run the network once."""
        added = {"image_embeds": [given["image"][:, None]]}
        return self.unet(x, t, encoder_hidden_states=given["text"], added_cond_kwargs=added, return_dict=False)[0]

    @cached_property
    def _empty(self) -> Tensor:
        return self._text.uncaptioned().to(self.device)


def _projection(unet: nn.Module) -> nn.Linear:
    """Return the layer that takes the embedding of the image."""
    layers = getattr(getattr(unet, "encoder_hid_proj", None), "image_projection_layers", [])
    if len(layers) != 1 or not isinstance(getattr(layers[0], "image_embeds", None), nn.Linear):
        advice = "Adapters on hidden states ('plus') and of faces are not supported: take ip-adapter_sd15.safetensors."
        raise invalid("adapter", "be one that takes the pooled embedding of an image", "another", advice)
    return layers[0].image_embeds


def _add_adapter(diffusers: Any, unet: nn.Module, vae: Any, scheduler: Any, text: ClipTextHidden, file: Path) -> None:
    tensors = load_checkpoint(file).tensors
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = tensor
    if not all(parts.values()):
        raise corrupt_file(file, "it is no IP-Adapter: 'image_proj' and 'ip_adapter' are not in it")
    log = diffusers.utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()  # it warns of the missing image encoder, which predicted embeddings do not need
    try:
        pipeline = diffusers.StableDiffusionPipeline(
            vae=vae, unet=unet, scheduler=scheduler, text_encoder=text.module, tokenizer=text.tokenizer,
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.load_ip_adapter(
            parts, subfolder="", weight_name="", image_encoder_folder=None, low_cpu_mem_usage=False
        )
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise corrupt_file(
            file, f"it does not fit the pipeline ({reason})", "Take the adapter of this model."
        ) from error
    finally:
        log.set_verbosity(before)
    _projection(unet)
