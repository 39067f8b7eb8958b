"""CLIP features of images and captions, token by token, normalised as Versatile Diffusion expects them."""

# B batch, L tokens (257 of an image, 77 of a caption in ViT-L/14), D projected width (768)

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.features.base import FeatureExtractor, ImageExtractor, check_config, counts
from neurodecode.features.pixels import CLIP_MEAN, CLIP_STD, as_floats, square, standardised
from neurodecode.features.stimuli import caption_texts
from neurodecode.features.weights import load_pretrained
from neuroloaders.checks import check_int, check_option, invalid, soft_import

__all__ = ["NORMALISATIONS", "ClipText", "ClipTextConfig", "ClipVision", "ClipVisionConfig", "normalised_tokens"]

# What projected tokens are divided by.
NORMALISATIONS = {
    "paper": "all by the norm of one of them, CLS of an image and end of text of a caption",
    "tokens": "each by its own norm",
    "none": "nothing",
}
_IMAGE_TOKENS = {
    "all": "every token, shape (L, D)",
    "cls": "the first one, shape (D,): CLIP's embedding of the image",
    "pooled": "the same, under the name that transformers gives it (image_embeds)",
    "mean": "the mean of all, shape (D,)",
}
# No "cls": attention is causal, so the first token of a caption has seen nothing and is the same for all.
_TEXT_TOKENS = {
    "all": "every token, padding included, shape (L, D)",
    "pooled": "the end of text, shape (D,): CLIP's embedding of the caption (text_embeds)",
    "mean": "the mean from start to end of text, without padding, shape (D,)",
}
_HUB_NAME = "openai/clip-vit-large-patch14"


def normalised_tokens(tokens: Tensor, pooled: Tensor, normalise: str = "paper") -> Tensor:
    r"""Divide projected tokens by a norm.

    Parameters
    ----------
    tokens : Tensor, shape (B, L, D)
        Projected tokens.
    pooled : Tensor, shape (B, D)
        The projected token that stands for the whole: CLS, or the end of text.
    normalise : {"paper", "tokens", "none"}
        A key of `NORMALISATIONS`.

    Returns
    -------
    Tensor, shape (B, L, D)

    Notes
    -----
    "paper": :math:`t_l / \lVert t_\mathrm{pooled} \rVert_2`, in the released code of Versatile Diffusion [1]_, which
    Brain-Diffuser uses. Only the pooled token has unit norm then.

    References
    ----------
    .. [1] Xu et al., Versatile Diffusion, ICCV 2023, arXiv:2211.08332.
    """
    check_option("normalise", normalise, NORMALISATIONS)
    if normalise == "none":
        return tokens
    by = pooled[:, None] if normalise == "paper" else tokens
    return tokens / by.norm(dim=-1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class ClipVisionConfig:
    """Settings of `ClipVision`.

    Parameters
    ----------
    tokens : {"all", "cls", "pooled", "mean"}
        What is kept of the projected tokens.
    normalise : {"paper", "tokens", "none"}
        What they are divided by, a key of `NORMALISATIONS`; before the mean is taken.
    resize_first : int, optional
        Resize images to this square, by a bilinear filter and to bytes, before CLIP's own resizing: 512 in the code of
        Brain-Diffuser. None: only CLIP's.
    """

    tokens: str = "all"
    normalise: str = "paper"
    resize_first: int | None = None

    def __post_init__(self) -> None:
        check_option("tokens", self.tokens, _IMAGE_TOKENS)
        check_option("normalise", self.normalise, NORMALISATIONS)
        if self.resize_first is not None:
            check_int("resize_first", self.resize_first, at_least=1)


class ClipVision(ImageExtractor):
    r"""Projected tokens of CLIP's image encoder.

    Parameters
    ----------
    model : CLIPVisionModelWithProjection
        Of transformers.
    config : ClipVisionConfig, optional
        What is kept, and how it is normalised.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    All tokens go through the last layer norm and the projection, :math:`h = W\,\mathrm{LN}(x_L)`, which CLIP itself
    applies to the first only; then ``h / ||h[0]||`` (Ozcelik & VanRullen 2023 [1]_, released code). For ViT-L/14 the
    shape is (257, 768).

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.
    """

    name = "clip_vision"

    def __init__(
        self, model: nn.Module, config: ClipVisionConfig | None = None, *, device: Any = None, batch_size: int = 32
    ) -> None:
        super().__init__(check_config(config, ClipVisionConfig), model, device=device, batch_size=batch_size)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] = _HUB_NAME,
        config: ClipVisionConfig | None = None,
        *,
        subfolder: str | None = None,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> ClipVision:
        """Load the encoder from a folder, or from what was downloaded from the Hugging Face hub before.

        Parameters
        ----------
        path : path-like
            A folder in the layout of transformers, or a name on the hub.
        config : ClipVisionConfig, optional
            Settings.
        subfolder : str, optional
            Where in it: "image_encoder" of ``shi-labs/versatile-diffusion``.
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
        transformers = soft_import("transformers", purpose="CLIP")
        model = load_pretrained(
            transformers.CLIPVisionModelWithProjection.from_pretrained, path, subfolder=subfolder, dtype=dtype
        )
        return cls(model, config, device=device, batch_size=batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        sizes = self.module.config
        n_tokens = (sizes.image_size // sizes.patch_size) ** 2 + 1
        return (n_tokens, sizes.projection_dim) if self.config.tokens == "all" else (sizes.projection_dim,)

    def prepare(self, images: Tensor) -> Tensor:
        """Return pixel values as CLIP takes them: resized (bicubic), cut and normalised, rescaled once at most."""
        if self.config.resize_first is not None:
            resized = square(as_floats(images), self.config.resize_first, fit="squash", mode="bilinear")
            images = (resized * 255).round().to(torch.uint8)
        pixels = square(as_floats(images), self.module.config.image_size)
        return standardised(pixels, CLIP_MEAN, CLIP_STD).to(self.dtype)

    def compute(self, pixels: Tensor, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        model = self.module
        hidden = model.vision_model(pixel_values=pixels).last_hidden_state
        tokens = model.visual_projection(model.vision_model.post_layernorm(hidden))
        tokens = normalised_tokens(tokens.float(), tokens[:, 0].float(), self.config.normalise)
        if self.config.tokens == "all":
            return tokens
        return tokens.mean(dim=1) if self.config.tokens == "mean" else tokens[:, 0]


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """Settings of `ClipText`.

    Parameters
    ----------
    tokens : {"all", "pooled", "mean"}
        What is kept of the projected tokens.
    normalise : {"paper", "tokens", "none"}
        What they are divided by, a key of `NORMALISATIONS`; before means over tokens and captions are taken.
    """

    tokens: str = "all"
    normalise: str = "paper"

    def __post_init__(self) -> None:
        check_option("tokens", self.tokens, _TEXT_TOKENS)
        check_option("normalise", self.normalise, NORMALISATIONS)


class ClipText(FeatureExtractor):
    r"""Projected tokens of CLIP's text encoder, averaged over the captions of a stimulus.

    Parameters
    ----------
    model : CLIPTextModelWithProjection
        Of transformers.
    tokenizer : CLIPTokenizer
        Its tokenizer.
    config : ClipTextConfig, optional
        What is kept, and how it is normalised.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        Stimuli at a time, if the caller of `extract` does not say.

    Raises
    ------
    ValueError
        If model and tokenizer do not belong together.

    Notes
    -----
    Captions are cut or padded to the 77 places of the model, without an attention mask, as in the released code of
    Brain-Diffuser [1]_: :math:`h = W x_L`, divided by the norm of the end of text. For ViT-L/14 the shape is (77, 768).
    Means over captions are those of normalised tokens and are not normalised again.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.
    """

    name, takes = "clip_text", "captions"
    # The class of transformers that is loaded, and that of the settings.
    loads, configured_by = "CLIPTextModelWithProjection", ClipTextConfig

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        config: Any = None,
        *,
        device: Any = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(check_config(config, self.configured_by), model, device=device, batch_size=batch_size)
        self.tokenizer = tokenizer
        end, sizes = tokenizer.eos_token_id, model.config
        # 2 is what older configurations say; the model then takes the largest number for the end of text.
        wanted = sizes.vocab_size - 1 if sizes.eos_token_id == 2 else sizes.eos_token_id
        if end != wanted or len(tokenizer) > sizes.vocab_size:
            required = f"be the model's: {sizes.vocab_size} tokens, end of text {wanted}"
            raise invalid("tokenizer", required, f"{len(tokenizer)} tokens, end of text {end}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] = _HUB_NAME,
        config: ClipTextConfig | None = None,
        *,
        subfolder: str | None = None,
        tokenizer_subfolder: str | None = None,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> ClipText:
        """Load encoder and tokenizer from a folder, or from what was downloaded from the Hugging Face hub before.

        Parameters
        ----------
        path : path-like
            A folder in the layout of transformers, or a name on the hub.
        config : ClipTextConfig, optional
            Settings.
        subfolder : str, optional
            Where in it: "text_encoder" of ``shi-labs/versatile-diffusion``.
        tokenizer_subfolder : str, optional
            Where the tokenizer is, if it has a folder of its own: "tokenizer".
        device : str or torch.device, optional
            Where to compute; by default the CPU.
        dtype : torch.dtype
            What to compute in.
        batch_size : int
            Stimuli at a time.

        Raises
        ------
        FileNotFoundError, ValueError
            If the model is not there, not complete, or damaged.
        """
        transformers = soft_import("transformers", purpose="CLIP")
        load_model = getattr(transformers, cls.loads).from_pretrained
        model = load_pretrained(load_model, path, subfolder=subfolder, dtype=dtype)
        tokenizer = load_pretrained(
            transformers.CLIPTokenizer.from_pretrained, path, subfolder=tokenizer_subfolder or subfolder, weights=False
        )
        return cls(model, tokenizer, config, device=device, batch_size=batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        sizes = self.module.config
        width = (sizes.projection_dim,)
        return (sizes.max_position_embeddings, *width) if self.config.tokens == "all" else width

    def settings(self) -> dict[str, Any]:
        """Return everything besides the weights that the features depend on."""
        return {**super().settings(), "tokenizer": _hash_tokenizer(self.tokenizer)}

    def __call__(self, batch: Sequence[str | Sequence[str]]) -> Tensor:
        """Return the features of captions.

        Parameters
        ----------
        batch : sequence of B, each a str or a sequence of str
            A caption, or several, for each stimulus. Empty ones are left out.

        Returns
        -------
        Tensor of float32, shape (B, *shape)
            On the extractor's device.

        Raises
        ------
        ValueError
            If a stimulus has no caption that is not empty; its row is named.
        """
        if isinstance(batch, str) or len(batch) == 0:
            raise invalid("batch", "be a sequence with the captions of each stimulus", batch)
        rows = [caption_texts(f"batch[{i}]", item) for i, item in enumerate(batch)]
        flat = [text for texts in rows for text in texts]
        with torch.no_grad():
            # As many captions at a time as there are stimuli: memory does not depend on captions a stimulus.
            parts = [self._encode(flat[first : first + len(rows)]) for first in range(0, len(flat), len(rows))]
            encoded = torch.cat(parts)
        counts[self.name] += len(rows)
        return torch.stack([part.mean(dim=0) for part in encoded.split([len(texts) for texts in rows])])

    def uncaptioned(self) -> Tensor:
        """Return the features of the empty caption, float32, shape (1, *shape): no text, for a diffusion model."""
        with torch.no_grad():
            return self._encode([""])

    def _encode(self, texts: list[str]) -> Tensor:
        """Return what is kept of each caption, float32."""
        length = self.module.config.max_position_embeddings
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids = ids["input_ids"].to(self.device)
        hidden = self.module.text_model(input_ids=ids).last_hidden_state
        tokens = self.module.text_projection(hidden).float()
        # The first one: padding is the same token in CLIP's vocabulary.
        end = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)
        pooled = tokens[torch.arange(len(ids), device=ids.device), end]
        tokens = normalised_tokens(tokens, pooled, self.config.normalise)
        if self.config.tokens == "all":
            return tokens
        if self.config.tokens == "pooled":
            return tokens[torch.arange(len(ids), device=ids.device), end]
        inside = (torch.arange(length, device=ids.device) <= end[:, None]).float()
        return (tokens * inside[..., None]).sum(dim=1) / inside.sum(dim=1, keepdim=True)


def _hash_tokenizer(tokenizer: Any) -> str:
    """Return a hash of vocabulary, merges and rules of a tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"vocabulary": tokenizer.get_vocab()}
    # Each call sets these anew.
    rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}
    rules["pad"] = tokenizer.pad_token_id
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
