"""Hidden states of a text encoder, which Stable Diffusion is guided by."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from neurodecode.features.clip import ClipText

__all__ = ["ClipTextHidden", "ClipTextHiddenConfig"]


@dataclass(frozen=True, kw_only=True)
class ClipTextHiddenConfig:
    """Settings of `ClipTextHidden`: there are none."""


class ClipTextHidden(ClipText):
    """States of the last layer of CLIP's text encoder, after its layer norm, not projected and not normalised.

    Parameters
    ----------
    model : CLIPTextModel
        Of transformers.
    tokenizer : CLIPTokenizer
        Its tokenizer.
    config : ClipTextHiddenConfig, optional
        Nothing to set.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        Stimuli at a time, if the caller of `extract` does not say.

    Notes
    -----
    Shape (77, 768) for Stable Diffusion 1, (77, 1024) for 2 (Rombach et al. 2022 [1]_). Means over captions, as in
    `ClipText`.

    References
    ----------
    .. [1] Rombach et al., High-resolution image synthesis with latent diffusion models, CVPR 2022, arXiv:2112.10752.
    """

    name = "clip_text_hidden"
    loads, configured_by = "CLIPTextModel", ClipTextHiddenConfig

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        config: ClipTextHiddenConfig | None = None,
        *,
        subfolder: str | None = "text_encoder",
        tokenizer_subfolder: str | None = "tokenizer",
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> ClipTextHidden:
        """Load encoder and tokenizer from a folder, or from what was downloaded from the Hugging Face hub before.

        Parameters
        ----------
        path : path-like
            A pipeline in the layout of diffusers, or its name on the hub.
        config : ClipTextHiddenConfig, optional
            Nothing to set.
        subfolder, tokenizer_subfolder : str, optional
            Where in it.
        device : str or torch.device, optional
            Where to compute; by default the CPU.
        dtype : torch.dtype
            What to compute in.
        batch_size : int
            Stimuli at a time.
        """
        places = {"subfolder": subfolder, "tokenizer_subfolder": tokenizer_subfolder}
        return super().load(path, config, **places, device=device, dtype=dtype, batch_size=batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        return (self.module.config.max_position_embeddings, self.module.config.hidden_size)

    def _encode(self, texts: list[str]) -> Tensor:
        length = self.module.config.max_position_embeddings
        ids = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return self.module(input_ids=ids["input_ids"].to(self.device)).last_hidden_state.float()
