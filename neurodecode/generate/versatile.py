"""Versatile Diffusion, guided by a text and an image at once: the generator of Brain-Diffuser."""

# B batch, L tokens, D width

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.features.clip import ClipText, ClipVision
from neurodecode.features.weights import load_pretrained
from neurodecode.generate.backend import DiffusionBackend
from neurodecode.generate.settings import GenerationSettings
from neuroloaders.checks import corrupt_file, invalid, soft_import

__all__ = ["DualAttention", "VersatileDiffusion", "with_dual_attention"]


class DualAttention(nn.Module):
    r"""Attention to a text and to an image, side by side.

    Parameters
    ----------
    text, image : Transformer2DModel
        The two.
    n_text : int
        Tokens of the text, which come first in ``encoder_hidden_states``.

    Attributes
    ----------
    mix : float
        Share of the text. At 0 and 1 only one of the two is computed.

    Notes
    -----
    :math:`h + m\,(T_t(h, c_t) - h) + (1 - m)\,(T_i(h, c_i) - h)` (Xu et al. 2023). It stands where the U-Net of
    diffusers has a transformer. ``DualTransformer2DModel`` of diffusers 0.42.1 computes the same, but cannot be called
    by that U-Net, which passes an ``encoder_attention_mask``.
    """

    def __init__(self, text: nn.Module, image: nn.Module, n_text: int) -> None:
        super().__init__()
        self.text, self.image, self.n_text, self.mix = text, image, n_text, 0.4

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor | None = None,
        cross_attention_kwargs: Any = None,
        return_dict: bool = True,
        **unused: Any,
    ) -> tuple[Tensor]:
        """Return the mixed states, in a tuple; masks are not used."""
        text, image = encoder_hidden_states[:, : self.n_text], encoder_hidden_states[:, self.n_text :]
        out = 0
        for transformer, tokens, share in ((self.text, text, self.mix), (self.image, image, 1 - self.mix)):
            if share:
                states = transformer(hidden_states, encoder_hidden_states=tokens, timestep=timestep, return_dict=False)[
                    0
                ]
                out = out + share * states
        return (out,)


def with_dual_attention(image_unet: nn.Module, text_unet: nn.Module, n_text: int) -> nn.Module:
    """Put the attention of the text's network beside that of the image's, in place.

    Parameters
    ----------
    image_unet : UNet2DConditionModel
        Gets `DualAttention` wherever it has a transformer.
    text_unet : nn.Module
        Network with transformers of the same names.
    n_text : int
        Tokens of a text.

    Returns
    -------
    UNet2DConditionModel
        The first of the two.
    """
    transformer = soft_import("diffusers", purpose="Versatile Diffusion").models.Transformer2DModel
    theirs = {name: module for name, module in text_unet.named_modules() if isinstance(module, transformer)}
    ours = [name for name, module in image_unet.named_modules() if isinstance(module, transformer)]
    if set(theirs) != set(ours):
        only = sorted(set(theirs) ^ set(ours))[0]
        raise invalid("text_unet", "have attention where image_unet has it", f"{only!r} in one of them")
    for name in ours:
        parent, _, place = name.rpartition(".")
        image_unet.get_submodule(parent)[int(place)] = DualAttention(
            theirs[name], image_unet.get_submodule(name), n_text
        )
    return image_unet


class VersatileDiffusion(DiffusionBackend):
    r"""Versatile Diffusion in dual-guided mode.

    Parameters
    ----------
    unet : UNet2DConditionModel
        With `DualAttention`, see `with_dual_attention`.
    vae, scheduler, device, offload, slicing
        As for `DiffusionBackend`.
    text, image : extractor
        `ClipText` and `ClipVision` with the encoders that the network was trained with; they also give what stands for
        no condition.

    Notes
    -----
    Guided by projected tokens divided by the norm of the pooled one, (77, 768) and (257, 768). Without a condition: the
    empty caption, and an image of mid-grey (Ozcelik & VanRullen 2023 [1]_, released code). Share of the text `mix`, 0.4
    in the paper. With mix 0 or 1 the embedding that does not count may be left out.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.
    """

    name = "versatile"

    def __init__(
        self,
        *,
        unet: nn.Module,
        vae: nn.Module,
        scheduler: Any,
        text: Any,
        image: Any,
        device: torch.device | str = "cpu",
        offload: bool = False,
        slicing: bool = False,
    ) -> None:
        options = {"device": device, "offload": offload, "slicing": slicing}
        super().__init__(unet=unet, vae=vae, scheduler=scheduler, **options)
        self._text, self._image = text, image
        width = unet.config.cross_attention_dim
        for kind, extractor in self.extractors.items():
            if extractor.shape[-1] != width:
                raise invalid(kind, f"give embeddings of {width} numbers, as the network takes", f"{extractor.shape}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        offload: bool = False,
        slicing: bool = False,
    ) -> VersatileDiffusion:
        """Load the model from a folder, or from what was downloaded from the Hugging Face hub before.

        Parameters
        ----------
        path : path-like
            In the layout of ``shi-labs/versatile-diffusion``: image_unet, text_unet, vae, scheduler, text_encoder,
            image_encoder, tokenizer; weights in safetensors.
        device, dtype, offload, slicing
            As for `neurodecode.generate.load_backend`.
        """
        diffusers = soft_import("diffusers", purpose="Versatile Diffusion")
        from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import UNetFlatConditionModel

        # In float32: targets are computed by these, once.
        where = None if offload else device
        text = ClipText.load(path, subfolder="text_encoder", tokenizer_subfolder="tokenizer", device=where)
        image = ClipVision.load(path, subfolder="image_encoder", device=where)
        image_unet = load_pretrained(
            diffusers.UNet2DConditionModel.from_pretrained, path, subfolder="image_unet", dtype=dtype
        )
        text_unet = load_pretrained(UNetFlatConditionModel.from_pretrained, path, subfolder="text_unet", dtype=dtype)
        vae = load_pretrained(diffusers.AutoencoderKL.from_pretrained, path, subfolder="vae", dtype=dtype)
        scheduler = load_pretrained(diffusers.DDIMScheduler.from_pretrained, path, subfolder="scheduler", weights=False)
        try:
            unet = with_dual_attention(image_unet, text_unet, text.shape[0])
        except ValueError as error:
            raise corrupt_file(path, f"its networks do not belong together ({error})") from error
        options = {"device": device, "offload": offload, "slicing": slicing}
        return cls(unet=unet, vae=vae, scheduler=scheduler, text=text, image=image, **options)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Kind of embedding -> its shape for one image."""
        return {kind: extractor.shape for kind, extractor in self.extractors.items()}

    @property
    def extractors(self) -> dict[str, Any]:
        """Kind of embedding -> the extractor whose features it is guided by."""
        return {"text": self._text, "image": self._image}

    def prepare(self, kinds: Sequence[str], settings: GenerationSettings) -> None:
        """Check that the embeddings that count are there, and set their shares."""
        for kind, share in (("text", settings.mix), ("image", 1 - settings.mix)):
            if share and kind not in kinds:
                advice = f"Pass mix={1 - round(settings.mix)} to do without." if settings.mix in (0, 1) else ""
                advice = advice or f"To do without, pass mix={0 if kind == 'text' else 1}."
                raise invalid("latents", f"hold {kind!r} where its share is {share:g}", ", ".join(kinds), advice)
        for module in self.unet.modules():
            if isinstance(module, DualAttention):
                module.mix = settings.mix

    def guide(self, latents: Mapping[str, Tensor], rows: Sequence[int], seed: int, settings: Any) -> dict[str, Tensor]:
        """Return the tokens of both, the text's first."""
        absent = self._no_condition
        parts = [
            latents[kind] if kind in latents else absent[kind].expand(len(rows), -1, -1) for kind in ("text", "image")
        ]
        return {"tokens": torch.cat([part.to(self.device) for part in parts], dim=1)}

    def unguided(self, n: int, settings: GenerationSettings) -> dict[str, Tensor]:
        """Return the tokens of the empty caption and of a grey image."""
        both = torch.cat([self._no_condition["text"], self._no_condition["image"]], dim=1)
        return {"tokens": both.expand(n, -1, -1)}

    def denoise(self, x: Tensor, t: int, given: dict[str, Tensor]) -> Tensor:
        """Run the network once."""
        return self.unet(x, t, encoder_hidden_states=given["tokens"], return_dict=False)[0]

    @cached_property
    def _no_condition(self) -> dict[str, Tensor]:
        # ClipVision takes [0, 1] and rescales once: half of it is the reference's 0 in [-1, 1].
        size = self._image.module.config.image_size
        grey = torch.full((1, 3, size, size), 0.5)
        with torch.inference_mode(False):
            return {"text": self._text.uncaptioned().to(self.device), "image": self._image(grey).to(self.device)}
