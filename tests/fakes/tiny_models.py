"""Very small networks with random weights, written by transformers and diffusers in their own layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# CLIP's vocabulary in small: letters, letters that end a word, one merge, start and end of text.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "at</w>", "<|startoftext|>", "<|endoftext|>"]
START, END = len(WORDS) - 2, len(WORDS) - 1


def seeded(build: Any, seed: int) -> Any:
    """Return what `build` makes, its weights drawn from `seed`, and larger than they are at first.

    Freshly drawn biases are 0 and layer norms do nothing: an error in their use would not be seen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def smooth_images(n: int = 5) -> Tensor:
    """Return images in bytes, 40 x 40, of values that change slowly."""
    rough = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (nn.functional.interpolate(rough, (40, 40), mode="bilinear") * 255).to(torch.uint8)


def tiny_clip_vision(seed: int = 0) -> Any:
    """Images of 28 pixels, 4 patches and CLS, projected to 8 numbers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    return seeded(lambda: CLIPVisionModelWithProjection(config), seed)


def tiny_clip_text(seed: int = 0, *, eos_token_id: int = END) -> Any:
    """77 places, projected to 8 numbers. OpenAI's configurations say ``eos_token_id=2``."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=START,
        eos_token_id=eos_token_id,
        pad_token_id=END,
    )
    return seeded(lambda: CLIPTextModelWithProjection(config), seed)


def tiny_tokenizer() -> Any:
    """Byte-pair encoding of letters."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab={word: i for i, word in enumerate(WORDS)}, merges=[("a", "t</w>")])


def save_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write a whole CLIP, both encoders in one file as OpenAI's is, and its tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    text, vision = tiny_clip_text(seed, eos_token_id=2), tiny_clip_vision(seed)
    config = CLIPConfig(text_config=text.config.to_dict(), vision_config=vision.config.to_dict(), projection_dim=8)
    model = seeded(lambda: CLIPModel(config), seed)
    model.text_model.load_state_dict(text.text_model.state_dict())
    model.text_projection.load_state_dict(text.text_projection.state_dict())
    model.vision_model.load_state_dict(vision.vision_model.state_dict())
    model.visual_projection.load_state_dict(vision.visual_projection.state_dict())
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_vae(seed: int = 0, *, shift: float | None = None) -> Any:
    """Latents of 4 channels, half the size of the image."""
    from diffusers import AutoencoderKL

    return seeded(
        lambda: AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(4, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            sample_size=32,
            shift_factor=shift,
        ),
        seed,
    )


def tiny_dinov2(seed: int = 0, *, registers: int = 0) -> Any:
    """Patches of 7 pixels, trained (as it were) at 42 pixels."""
    from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    sizes = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 42,
        "patch_size": 7,
        "mlp_ratio": 2,
    }
    if registers:
        config = Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers)
        return seeded(lambda: Dinov2WithRegistersModel(config), seed)
    return seeded(lambda: Dinov2Model(Dinov2Config(**sizes)), seed)


def tiny_dinov1(seed: int = 0) -> Any:
    """Patches of 7 pixels, images of 28 pixels."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7, intermediate_size=24
    )
    return seeded(lambda: ViTModel(config, add_pooling_layer=False), seed)


class TinyVGG(nn.Module):
    """The three parts of torchvision's VGG, the classifier with its seven modules."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2))
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(16, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def tiny_vgg(seed: int = 0) -> TinyVGG:
    """Return a network like VGG, a few hundred weights."""
    return seeded(TinyVGG, seed)
