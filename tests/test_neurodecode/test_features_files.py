"""Extractors on disk: fingerprints that tell apart what differs, models that are missing, incomplete or damaged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.tiny_models import (
    save_tiny_clip,
    smooth_images,
    tiny_clip_text,
    tiny_clip_vision,
    tiny_dinov2,
    tiny_tokenizer,
    tiny_vae,
    tiny_vgg,
)
from torch.nn import functional

from neurodecode.features import (
    FEATURES,
    VGG19,
    AutoKL,
    AutoKLConfig,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
    DINOConfig,
    DINOv2,
    HOGConfig,
    VdvaeConfig,
    VdvaeLatents,
    VGG19Config,
    load_extractor,
)
from neurodecode.fmri.vdvae import VDVAE, VDVAEConfig


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def changes() -> dict[str, list[Any]]:
    """Return, by extractor, ones that compute something else each."""
    vision, text, vae, dino = tiny_clip_vision(), tiny_clip_text(), tiny_vae(), tiny_dinov2()
    quick = tiny_clip_vision()
    quick.config.hidden_act = "gelu"
    other_words = tiny_tokenizer()
    other_words.add_tokens([])
    other_words.backend_tokenizer.normalizer = None
    shallow = VDVAE(VDVAEConfig.tiny())
    return {
        "clip_vision": [
            ClipVision(vision),
            ClipVision(tiny_clip_vision(1)),
            ClipVision(quick),
            ClipVision(tiny_clip_vision().to(torch.bfloat16)),
            *(ClipVision(vision, ClipVisionConfig(tokens=t)) for t in ("cls", "mean")),
            *(ClipVision(vision, ClipVisionConfig(normalise=n)) for n in ("tokens", "none")),
            ClipVision(vision, ClipVisionConfig(resize_first=64)),
        ],
        "clip_text": [
            ClipText(text, tiny_tokenizer()),
            ClipText(tiny_clip_text(1), tiny_tokenizer()),
            ClipText(text, other_words),
            ClipText(text, tiny_tokenizer(), ClipTextConfig(tokens="pooled")),
        ],
        "autokl": [
            AutoKL(vae),
            AutoKL(tiny_vae(1)),
            AutoKL(tiny_vae(shift=0.1)),
            *(AutoKL(vae, AutoKLConfig(**c)) for c in ({"size": 256}, {"fit": "crop"}, {"latents": "sample"})),
        ],
        "dinov2": [DINOv2(dino), DINOv2(tiny_dinov2(1)), DINOv2(dino, DINOConfig(tokens="all"))],
        "vgg19": [VGG19(tiny_vgg()), VGG19(tiny_vgg(1)), VGG19(tiny_vgg(), VGG19Config(layer="avgpool"))],
        "vdvae": [VdvaeLatents(shallow), VdvaeLatents(shallow, VdvaeConfig(n_layers=2))],
    }


def test_fingerprints_differ_with_weights_architecture_and_settings_only() -> None:
    every = [extractor for family in changes().values() for extractor in family]
    prints = [extractor.fingerprint() for extractor in every]
    assert len(set(prints)) == len(prints)
    assert prints[0] == ClipVision(tiny_clip_vision(), batch_size=3).fingerprint()
    # Using an extractor changes nothing of it.
    text = ClipText(tiny_clip_text(), tiny_tokenizer())
    before = text.fingerprint()
    text(["a cat"])
    assert text.fingerprint() == before
    with torch.no_grad():
        text.module.text_projection.weight[0, 0] += 1e-6
    assert text.fingerprint() != before


def test_saved_and_loaded_model_has_the_same_fingerprint(clip_folder: Path) -> None:
    assert ClipVision.load(clip_folder).fingerprint() == ClipVision(tiny_clip_vision()).fingerprint()
    again = load_extractor("clip_text", clip_folder, batch_size=3)
    assert again.batch_size == 3
    assert again.fingerprint() == load_extractor("clip_text", clip_folder).fingerprint()
    assert not any(parameter.requires_grad for parameter in again.module.parameters())
    half = load_extractor("clip_vision", clip_folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.fingerprint() != ClipVision.load(clip_folder).fingerprint()


def test_half_precision_is_close(clip_folder: Path) -> None:
    images = smooth_images()
    got = load_extractor("clip_vision", clip_folder, dtype=torch.bfloat16)(images)
    assert got.dtype == torch.float32
    want = load_extractor("clip_vision", clip_folder)(images)
    assert functional.cosine_similarity(got.flatten(1), want.flatten(1)).min() > 0.999


@pytest.mark.parametrize("name", ["clip_vision", "clip_text", "autokl", "dinov2"])
def test_missing_models_say_how_to_download_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Download it once: hf download nobody/nothing"):
        load_extractor(name, "nobody/nothing")
    with pytest.raises(FileNotFoundError, match=r"be a folder with config\.json and weights in safetensors"):
        load_extractor(name, tmp_path)


def test_incomplete_and_damaged_models_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_clip(tmp_path / "clip")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "visual_projection.weight"}, weights, {"format": "pt"})
    # transformers would go on with random numbers.
    with pytest.raises(ValueError, match=r"1 tensors of CLIPVisionModelWithProjection are missing.*visual_projection"):
        ClipVision.load(folder)
    assert ClipText.load(folder).shape == (77, 8)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        ClipText.load(folder)
    save_file({**tensors, "visual_projection.weight": torch.zeros(3, 3)}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="cannot be read"):
        ClipVision.load(folder)


def test_registry_knows_every_extractor_by_its_name() -> None:
    assert {name: kind.name for name, kind in FEATURES.items()} == {name: name for name in FEATURES}
    for options, kind, message in (
        (("clip",), ValueError, "'clip_text', 'clip_text_hidden', 'clip_vision', 'autokl'"),
        (("autokl",), ValueError, "`path` must be given"),
        (("hog", "folder"), ValueError, "'hog' has no weights"),
        (("hog", None, ClipVisionConfig()), TypeError, "`config` must be a HOGConfig"),
    ):
        with pytest.raises(kind, match=message):
            load_extractor(*options)
    assert load_extractor("hog", config=HOGConfig(size=32)).shape == (3, 3, 2, 2, 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClipVisionConfig().tokens = "cls"
    json.dumps(load_extractor("hog").settings())


def test_vgg_refuses_other_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match=r"Download https://download\.pytorch\.org/models/vgg19"):
        VGG19.load(tmp_path / "none.pth")
    save_file(tiny_vgg().state_dict(), tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match="another architecture: it lacks 30 tensors"):
        VGG19.load(tmp_path / "tiny.safetensors")
    for name in ("bad.pth", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of that kind")
        with pytest.raises(ValueError, match="cannot be read"):
            VGG19.load(tmp_path / name)
