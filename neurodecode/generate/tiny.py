"""A Versatile Diffusion of a million weights, for demonstrations and tests: written in the layout of the real one.

Its CLIP encoders keep their random weights, which still tell images and captions apart; autoencoder and denoising
network learn some hundred small images in a minute on a CPU.
"""

# B batch, h w sides of latents

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurodecode.features.pixels import as_floats, check_images, square
from neurodecode.features.weights import quiet_loading
from neurodecode.generate.versatile import VersatileDiffusion
from neuroloaders.checks import check_int, check_number, check_same_length, invalid, soft_import

__all__ = ["TinyTraining", "save_tiny_versatile", "train_tiny"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Byte-pair encoding of letters, without merges.
_VOCABULARY = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]


@dataclass(frozen=True, kw_only=True)
class TinyTraining:
    """How the tiny generator is trained.

    Parameters
    ----------
    vae_steps, unet_steps : int
        Batches for the autoencoder, and for the denoising network.
    batch_size : int
        Images a batch.
    lr : float
        Learning rate (AdamW, falling to 0 by a cosine).
    drop : float
        Share of images whose text, and independently whose image, is replaced by no condition, so that guidance works.
    seed : int
        Of everything that is drawn.
    """

    vae_steps: int = 250
    unet_steps: int = 350
    batch_size: int = 16
    lr: float = 2e-3
    drop: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("vae_steps", "unet_steps", "batch_size"):
            check_int(name, getattr(self, name), at_least=1)
        check_number("lr", self.lr, above=0)
        check_number("drop", self.drop, at_least=0, below=1)
        check_int("seed", self.seed, at_least=0)


def save_tiny_versatile(
    folder: str | os.PathLike[str], *, image_size: int = 32, width: int = 32, depth: int = 2, seed: int = 0
) -> Path:
    """Write a randomly initialised Versatile Diffusion in the layout of ``shi-labs/versatile-diffusion``.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    image_size : int
        Side of images, in pixels; a multiple of 8. Latents are a quarter of it.
    width : int
        Numbers of an embedding's token, and channels of the networks' first layers; a multiple of 8.
    depth : int
        Layers of the encoders.
    seed : int
        Draws the weights.

    Returns
    -------
    Path
        The folder, for `VersatileDiffusion.load`.
    """
    check_int("image_size", image_size, at_least=16)
    check_int("width", width, at_least=8)
    check_int("depth", depth, at_least=1)
    if image_size % 8 or width % 8:
        raise invalid("image_size, width", "be multiples of 8", f"{image_size}, {width}")
    diffusers, transformers = (soft_import(name, purpose="A tiny generator") for name in ("diffusers", "transformers"))
    from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import UNetFlatConditionModel

    folder = Path(folder)
    sizes = {
        "sample_size": image_size // 4, "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
        "block_out_channels": (width, 2 * width), "norm_num_groups": 8, "cross_attention_dim": width,
        "attention_head_dim": 4,
    }  # fmt: skip
    encoder = {
        "hidden_size": width, "intermediate_size": 2 * width, "projection_dim": width, "num_hidden_layers": depth,
        "num_attention_heads": 4,
    }  # fmt: skip
    end = len(_VOCABULARY) - 1
    text = transformers.CLIPTextConfig(
        vocab_size=end + 1,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
        max_position_embeddings=77,
        **encoder,
    )
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=8, **encoder)
    parts = {
        "text_encoder": lambda: transformers.CLIPTextModelWithProjection(text),
        "image_encoder": lambda: transformers.CLIPVisionModelWithProjection(vision),
        "image_unet": lambda: diffusers.UNet2DConditionModel(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **sizes,
        ),
        "text_unet": lambda: UNetFlatConditionModel(
            down_block_types=("CrossAttnDownBlockFlat", "DownBlockFlat"),
            up_block_types=("UpBlockFlat", "CrossAttnUpBlockFlat"), **sizes,
        ),
        "vae": lambda: diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(width // 2, width, width), layers_per_block=1, latent_channels=4, norm_num_groups=4,
            sample_size=image_size, scaling_factor=1.0,
        ),
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(seed)
        for name, build in parts.items():
            model = build()
            if name.endswith("encoder"):
                _wake(model)
            model.save_pretrained(folder / name)
    tokens = {word: number for number, word in enumerate(_VOCABULARY)}
    transformers.CLIPTokenizer(vocab=tokens, merges=[], model_max_length=77).save_pretrained(folder / "tokenizer")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    return folder


def _wake(model: Any) -> None:
    """Enlarge freshly drawn weights, with which all stimuli look nearly the same to an encoder."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)


def train_tiny(
    backend: VersatileDiffusion,
    images: Any,
    latents: Mapping[str, Any],
    training: TinyTraining | None = None,
    *,
    progress: bool = False,
) -> dict[str, list[float]]:
    """Train the autoencoder and the denoising network of a tiny generator, in place.

    Parameters
    ----------
    backend : VersatileDiffusion
        From `save_tiny_versatile`.
    images : array or tensor, shape (n, 3, H, W)
        Training images, bytes or floating point in [0, 1].
    latents : mapping of str to array
        Embeddings of these images by ``backend.extractors``, "text" and "image".
    training : TinyTraining, optional
        Steps, learning rate.
    progress : bool
        Show progress bars (tqdm).

    Returns
    -------
    dict of str to list of float
        Loss of each batch, "vae" and "unet".

    Notes
    -----
    Autoencoder: absolute error of pixels plus 1e-4 times the divergence of the posterior from a normal distribution;
    then ``scaling_factor`` is set to the inverse spread of the latents, as in Rombach et al. 2022. Denoising: squared
    error of the noise, at a time drawn evenly for each image (Ho et al. 2020), at the share of the text that is set.
    """
    training = TinyTraining() if training is None else training
    if not isinstance(backend, VersatileDiffusion):
        raise invalid("backend", "be a VersatileDiffusion", backend, kind=TypeError)
    if not isinstance(training, TinyTraining):
        raise invalid("training", "be a TinyTraining", training, kind=TypeError)
    if backend.dtype != torch.float32 or backend.offload:
        raise invalid("backend", "compute in float32, without offloading, to be trained", repr(backend))
    pixels = square(as_floats(check_images("images", images)), backend.image_size, fit="squash") * 2 - 1
    given = {kind: values.to(backend.device) for kind, values in backend.checked(latents).items()}
    missing = [kind for kind in backend.shapes if kind not in given]
    if missing:
        raise invalid("latents", f"hold {' and '.join(backend.shapes)}", ", ".join(given))
    check_same_length(images=pixels, **given)
    pixels = pixels.to(backend.device)
    generator = torch.Generator().manual_seed(training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)  # the posterior's draws
        vae = _train_vae(backend, pixels, training, generator, progress)
    with torch.no_grad():
        encoded = torch.cat([backend.vae.encode(part).latent_dist.mean for part in pixels.split(64)])
    backend.vae.register_to_config(scaling_factor=float(1 / encoded.std()))
    unet = _train_unet(backend, encoded * backend.vae.config.scaling_factor, given, training, generator, progress)
    return {"vae": vae, "unet": unet}


def _train_vae(backend: Any, pixels: Tensor, training: TinyTraining, generator: Any, progress: bool) -> list[float]:
    def loss(rows: Tensor) -> Tensor:
        posterior = backend.vae.encode(pixels[rows]).latent_dist
        made = backend.vae.decode(posterior.sample()).sample
        return (made - pixels[rows]).abs().mean() + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()

    return _trained(backend.vae, loss, len(pixels), training.vae_steps, training, generator, "autoencoder", progress)


def _train_unet(
    backend: Any, latents: Tensor, given: dict[str, Tensor], training: TinyTraining, generator: Any, progress: bool
) -> list[float]:
    alphas = torch.as_tensor(backend.scheduler.alphas_cumprod, dtype=torch.float32, device=backend.device)
    absent = backend._no_condition

    def loss(rows: Tensor) -> Tensor:
        x, n = latents[rows], len(rows)
        t = torch.randint(len(alphas), (n,), generator=generator).to(x.device)
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        a = alphas[t][:, None, None, None]
        tokens = []
        for kind in ("text", "image"):
            dropped = (torch.rand(n, generator=generator) < training.drop).to(x.device)
            tokens.append(torch.where(dropped[:, None, None], absent[kind], given[kind][rows]))
        noised = a.sqrt() * x + (1 - a).sqrt() * noise
        made = backend.unet(noised, t, encoder_hidden_states=torch.cat(tokens, 1), return_dict=False)[0]
        return (made - noise).square().mean()

    return _trained(backend.unet, loss, len(latents), training.unet_steps, training, generator, "denoising", progress)


def _trained(
    module: Any, loss: Any, n: int, steps: int, training: TinyTraining, generator: Any, what: str, progress: bool
) -> list[float]:
    """Train all weights of a network, and leave it in evaluation mode, without gradients."""
    from tqdm.auto import tqdm

    module.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=training.lr, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in tqdm(range(steps), desc=what, disable=not progress):
        value = loss(torch.randint(n, (training.batch_size,), generator=generator))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    module.eval().requires_grad_(False)
    return losses
