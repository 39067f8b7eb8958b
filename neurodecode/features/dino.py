"""Features of DINO and DINOv2, vision transformers that were trained without labels."""

# B batch, L tokens: CLS, registers if there are any, patches; D width

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurodecode.features.base import ImageExtractor, check_config
from neurodecode.features.pixels import IMAGENET_MEAN, IMAGENET_STD, as_floats, square, standardised
from neurodecode.features.weights import load_pretrained
from neuroloaders.checks import check_int, check_option, invalid, soft_import

__all__ = ["DINOConfig", "DINOv1", "DINOv2"]

_TOKENS = {
    "cls": "the first token, shape (D,)",
    "mean": "the mean of the patches, without CLS and registers, shape (D,)",
    "all": "every token, shape (L, D)",
}


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """Settings of `DINOv2` and `DINOv1`.

    Parameters
    ----------
    tokens : {"cls", "mean", "all"}
        What is kept of the last layer, after its layer norm.
    resize : int
        Pixels of the shorter side after resizing (bicubic).
    crop : int
        Pixels of the square that is cut out of the middle.
    """

    tokens: str = "cls"
    resize: int = 256
    crop: int = 224

    def __post_init__(self) -> None:
        check_option("tokens", self.tokens, _TOKENS)
        check_int("crop", self.crop, at_least=1)
        check_int("resize", self.resize, at_least=self.crop)


class DINOv2(ImageExtractor):
    """Tokens of the last layer of DINOv2.

    Parameters
    ----------
    model : Dinov2Model or Dinov2WithRegistersModel
        Of transformers.
    config : DINOConfig, optional
        What is kept, and sizes.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    Oquab et al. 2023 [1]_. Positions are interpolated by the model if it was trained at another size than `crop`.

    References
    ----------
    .. [1] Oquab et al., DINOv2: learning robust visual features without supervision, arXiv:2304.07193.
    """

    name = "dinov2"
    _models: ClassVar[dict[str, str]] = {
        "dinov2": "Dinov2Model",
        "dinov2_with_registers": "Dinov2WithRegistersModel",
    }

    def __init__(
        self, model: nn.Module, config: DINOConfig | None = None, *, device: Any = None, batch_size: int = 32
    ) -> None:
        super().__init__(check_config(config, DINOConfig), model, device=device, batch_size=batch_size)
        if self.config.crop % model.config.patch_size:
            raise invalid("crop", f"be a multiple of the patch size {model.config.patch_size}", f"{self.config.crop}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: DINOConfig | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> DINOv2:
        """Load a model from a folder, or from what was downloaded from the Hugging Face hub before.

        Parameters
        ----------
        path : path-like
            A folder in the layout of transformers, or a name on the hub (``facebook/dinov2-giant``,
            ``facebook/dino-vitb16``).
        config : DINOConfig, optional
            Settings.
        device : str or torch.device, optional
            Where to compute; by default the CPU.
        dtype : torch.dtype
            What to compute in.
        batch_size : int
            Images at a time.

        Raises
        ------
        FileNotFoundError, ValueError
            If the model is not there, not complete, damaged, or another one.
        """
        transformers = soft_import("transformers", purpose="DINO")
        kind = load_pretrained(transformers.AutoConfig.from_pretrained, path, weights=False).model_type
        if kind not in cls._models:
            raise invalid("path", f"hold a model of {' or '.join(map(repr, cls._models))}", f"{kind!r} in {path!r}")
        load = getattr(transformers, cls._models[kind]).from_pretrained
        model = load_pretrained(load, path, dtype=dtype, options=cls._options())
        return cls(model, config, device=device, batch_size=batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        width = (self.module.config.hidden_size,)
        n_patches = (self.config.crop // self.module.config.patch_size) ** 2
        return (self._n_before() + n_patches, *width) if self.config.tokens == "all" else width

    def prepare(self, images: Tensor) -> Tensor:
        """Return images resized, cut and normalised by ImageNet's statistics."""
        pixels = square(as_floats(images), self.config.resize, crop=self.config.crop)
        return standardised(pixels, IMAGENET_MEAN, IMAGENET_STD).to(self.dtype)

    def compute(self, pixels: Tensor, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        tokens = self._tokens(pixels).float()
        if self.config.tokens == "all":
            return tokens
        return tokens[:, 0] if self.config.tokens == "cls" else tokens[:, self._n_before() :].mean(dim=1)

    def _tokens(self, pixels: Tensor) -> Tensor:
        return self.module(pixel_values=pixels).last_hidden_state

    def _n_before(self) -> int:
        return 1 + getattr(self.module.config, "num_register_tokens", 0)

    @classmethod
    def _options(cls) -> dict[str, Any]:
        return {}


class DINOv1(DINOv2):
    """Tokens of the last layer of the first DINO; parameters as of `DINOv2`.

    Parameters
    ----------
    model : ViTModel
        Of transformers, without its pooling layer, which DINO has no weights for.
    config : DINOConfig, optional
        What is kept, and sizes.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    Caron et al. 2021 [1]_.

    References
    ----------
    .. [1] Caron et al., Emerging properties in self-supervised vision transformers, ICCV 2021, arXiv:2104.14294.
    """

    name = "dinov1"
    _models: ClassVar[dict[str, str]] = {"vit": "ViTModel"}

    def _tokens(self, pixels: Tensor) -> Tensor:
        return self.module(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state

    @classmethod
    def _options(cls) -> dict[str, Any]:
        return {"add_pooling_layer": False}
