"""Very small diffusion pipelines with random weights, written by diffusers in their own layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes.tiny_models import seeded, tiny_clip_vision, tiny_tokenizer, tiny_vae

# One level of attention; latents of 16 x 16, images of 32 x 32.
SIZES = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def scheduler(prediction: str = "epsilon") -> Any:
    """Return the noise levels of Stable Diffusion."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )


def text_model() -> Any:
    """Return a text encoder without projection, 16 numbers wide."""
    from fakes.tiny_models import END, START, WORDS
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=START,
        eos_token_id=END,
        pad_token_id=END,
    )
    return seeded(lambda: CLIPTextModel(config), 3)


def tokenizer() -> Any:
    """Return letters as tokens, 77 of them at most."""
    found = tiny_tokenizer()
    found.model_max_length = 77
    return found


def _save(folder: Path, parts: dict[str, Any]) -> Path:
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder


def save_stable_diffusion(folder: Path) -> Path:
    """Write Stable Diffusion."""
    from diffusers import UNet2DConditionModel

    unet = seeded(lambda: UNet2DConditionModel(**SIZES), 1)
    parts = {"unet": unet, "vae": tiny_vae(2), "scheduler": scheduler(), "tokenizer": tokenizer()}
    return _save(folder, {**parts, "text_encoder": text_model()})


def save_ip_adapter(file: Path) -> Path:
    """Write an adapter for it, of embeddings of 8 numbers, which become 4 tokens."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(5)

    def drawn(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    tensors = {
        "image_proj.proj.weight": drawn(64, 8),
        "image_proj.proj.bias": drawn(64),
        "image_proj.norm.weight": 1 + drawn(16),
        "image_proj.norm.bias": drawn(16),
    }
    unet = UNet2DConditionModel(**SIZES)
    # Original numbering: odd, in the order of the attention processors that look at the text.
    widths = [unet.get_submodule(name.removesuffix(".processor")) for name in unet.attn_processors if "attn2" in name]
    for number, attention in enumerate(widths):
        for part in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{part}.weight"] = drawn(attention.to_k.out_features, 16)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file


def save_unclip(folder: Path) -> Path:
    """Write Stable unCLIP, which predicts velocities."""
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    unet = seeded(
        lambda: UNet2DConditionModel(**SIZES, class_embed_type="projection", projection_class_embeddings_input_dim=16),
        1,
    )
    normalizer = StableUnCLIPImageNormalizer(embedding_dim=8)
    with torch.no_grad():
        normalizer.mean.copy_(torch.linspace(-1, 1, 8)[None])
        normalizer.std.copy_(torch.linspace(0.5, 2, 8)[None])
    parts = {
        "unet": unet,
        "vae": tiny_vae(2),
        "scheduler": scheduler("v_prediction"),
        "tokenizer": tokenizer(),
        "text_encoder": text_model(),
        "image_encoder": tiny_clip_vision(4),
        "image_normalizer": normalizer,
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    }
    return _save(folder, parts)


def save_pipelines(folder: Path) -> dict[str, Path]:
    """Write one for each backend, by its name, and "adapter", the weights of the IP-Adapter."""
    from neurodecode.generate import save_tiny_versatile

    return {
        "versatile": save_tiny_versatile(folder / "versatile", image_size=16, width=16, depth=1),
        "ip-adapter": save_stable_diffusion(folder / "sd"),
        "unclip": save_unclip(folder / "unclip"),
        "adapter": save_ip_adapter(folder / "adapter" / "ip-adapter_tiny.safetensors"),
    }
