"""Extractors against the networks they run, step by step, and their fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.tiny_models import (
    END,
    save_tiny_clip,
    smooth_images,
    tiny_clip_text,
    tiny_clip_vision,
    tiny_dinov1,
    tiny_dinov2,
    tiny_tokenizer,
    tiny_vae,
    tiny_vgg,
)
from tolerances import close
from torch import Tensor
from torch.nn import functional

from neurodecode.features import (
    VGG19,
    VGG_LAYERS,
    AutoKL,
    AutoKLConfig,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
    DINOConfig,
    DINOv1,
    DINOv2,
    VdvaeConfig,
    VdvaeLatents,
    VGG19Config,
    extract,
)
from neurodecode.fmri.vdvae import VDVAE, VDVAEConfig


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Five smooth images in bytes, 40 x 40."""
    return smooth_images()


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


CAPTIONS = [["a cat on a mat", "", "the hat"], ["dog"], ["a bat at sea", "   ", "oats", "at at", ""]]


def test_clip_vision_is_the_formula_on_the_tokens(clip_folder: Path, images: Tensor) -> None:
    extractor = ClipVision.load(clip_folder)
    model = tiny_clip_vision()  # not what was loaded
    pixels = extractor.prepare(images)
    out = model(pixel_values=pixels)
    hidden = out.last_hidden_state
    norm = model.vision_model.post_layernorm
    h = functional.layer_norm(hidden, (16,), norm.weight, norm.bias, norm.eps) @ model.visual_projection.weight.T
    close(extractor(images), h / h[:, :1].norm(dim=2, keepdim=True))
    close(h[:, 0], out.image_embeds)
    want = {
        ("pooled", "none"): out.image_embeds,
        ("cls", "paper"): functional.normalize(out.image_embeds, dim=1),
        ("mean", "tokens"): functional.normalize(h, dim=2).mean(dim=1),
        ("mean", "paper"): h.mean(dim=1) / h[:, 0].norm(dim=1, keepdim=True),
        ("all", "tokens"): functional.normalize(h, dim=2),
        ("all", "none"): h,
    }
    for (tokens, normalise), features in want.items():
        other = ClipVision(extractor.module, ClipVisionConfig(tokens=tokens, normalise=normalise))
        close(other(images), features)
        assert other.shape == features.shape[1:]
    assert extractor.shape == (5, 8)


def test_clip_vision_takes_bytes_and_floats_alike_and_never_rescales_twice(images: Tensor) -> None:
    extractor = ClipVision(tiny_clip_vision())
    want = extractor(images)
    assert torch.equal(extractor(images / 255), want)
    # Grey of one half is about 0 after normalisation, not the black of a second division by 255.
    grey = torch.full((1, 3, 28, 28), 0.5)
    assert extractor.prepare(grey).abs().max() < 0.4


def test_clip_vision_resizes_to_512_first_as_the_reference(images: Tensor) -> None:
    from PIL import Image

    first = [Image.fromarray(x.permute(1, 2, 0).numpy()).resize((512, 512), Image.Resampling.BILINEAR) for x in images]
    pillow = torch.stack([torch.from_numpy(np.array(x)).permute(2, 0, 1) for x in first])
    with_option = ClipVision(tiny_clip_vision(), ClipVisionConfig(resize_first=512))
    plain = ClipVision(tiny_clip_vision())
    got, want = with_option.prepare(images), plain.prepare(pillow)
    # One level of 255, divided by CLIP's standard deviation.
    assert (got - want).abs().max() < 1.01 / 255 / 0.26
    assert with_option.fingerprint() != plain.fingerprint()


def manual_text(model: Any, tokenizer: Any, text: str, normalise: str) -> tuple[Tensor, int]:
    """Return the projected tokens of one caption, and where it ends."""
    ids = tokenizer(text)["input_ids"]
    ids = [*ids[:76], END] if len(ids) > 77 else ids + [END] * (77 - len(ids))
    out = model(input_ids=torch.tensor([ids]))
    h = (out.last_hidden_state @ model.text_projection.weight.T)[0]
    end = ids.index(END)
    close(h[end], out.text_embeds[0])
    if normalise == "paper":
        h = h / out.text_embeds.norm()
    return (functional.normalize(h, dim=1) if normalise == "tokens" else h), end


@pytest.mark.parametrize("normalise", ["paper", "tokens", "none"])
def test_clip_text_is_the_formula_averaged_over_captions(normalise: str, clip_folder: Path) -> None:
    extractor = ClipText.load(clip_folder, ClipTextConfig(normalise=normalise))
    model, tokenizer = tiny_clip_text(), tiny_tokenizer()
    every = [[manual_text(model, tokenizer, t, normalise) for t in row if t.strip()] for row in CAPTIONS]
    got = extractor(CAPTIONS)
    assert got.shape == (3, *extractor.shape) == (3, 77, 8)
    close(got, torch.stack([torch.stack([h for h, _ in row]).mean(0) for row in every]))
    pooled = ClipText(extractor.module, tokenizer, ClipTextConfig(tokens="pooled", normalise=normalise))
    close(pooled(CAPTIONS), torch.stack([torch.stack([h[end] for h, end in row]).mean(0) for row in every]))
    mean = ClipText(extractor.module, tokenizer, ClipTextConfig(tokens="mean", normalise=normalise))
    want = [torch.stack([h[: end + 1].mean(0) for h, end in row]).mean(0) for row in every]
    close(mean(CAPTIONS), torch.stack(want))
    assert mean.shape == pooled.shape == (8,)


def test_captions_are_cut_at_77_with_their_end_kept() -> None:
    model, tokenizer = tiny_clip_text(), tiny_tokenizer()
    extractor = ClipText(model, tokenizer)
    long = " ".join("abcdefghij" * 10)
    got = extractor([long, long + " k l m", long[: 2 * 75 - 1]])
    close(got[0], manual_text(model, tokenizer, long, "paper")[0])
    assert torch.equal(got[0], got[1])
    assert torch.equal(got[0], got[2])


def test_captions_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    extractor = ClipText(tiny_clip_text(), tiny_tokenizer())
    alone = torch.cat([extractor([row]) for row in CAPTIONS])
    close(extractor(CAPTIONS), alone)
    table = np.array([[*row, *[""] * (5 - len(row))] for row in CAPTIONS])
    got = extract(table[[2, 0, 1, 0]], extractor, cache=tmp_path, batch_size=2)
    close(torch.from_numpy(got), alone[[2, 0, 1, 0]])
    # Strings, lists and tables with empty places are the same stimuli.
    assert (extract([CAPTIONS[2], CAPTIONS[0], "dog"], extractor, cache=tmp_path) == got[:3]).all()


def test_rows_without_captions_are_named() -> None:
    extractor = ClipText(tiny_clip_text(), tiny_tokenizer())
    with pytest.raises(ValueError, match=r"`stimuli\[1\]` must have at least one caption that is not empty, got 2"):
        extract([["a"], ["", "  "]], extractor)
    with pytest.raises(ValueError, match=r"batch\[0\]"):
        extractor([[]])
    with pytest.raises(TypeError, match=r"stimuli\[0\]` must hold text only, got NoneType None"):
        extract([[None]], extractor)
    with pytest.raises(TypeError, match=r"stimuli\[2\]` must be a caption"):
        extract(["a", "b", 3.5], extractor)
    with pytest.raises(TypeError, match="make a list"):
        extract("a cat", extractor)
    with pytest.raises(ValueError, match="'all', 'pooled', 'mean', got 'cls'"):
        ClipTextConfig(tokens="cls")


def test_end_of_text_that_the_model_does_not_know_is_refused() -> None:
    # transformers would silently take the first token for the end.
    with pytest.raises(ValueError, match=rf"`tokenizer` must be the model's: .* end of text 7, got .* {END}"):
        ClipText(tiny_clip_text(eos_token_id=7), tiny_tokenizer())
    old = ClipText(tiny_clip_text(eos_token_id=2), tiny_tokenizer())
    close(old(["a cat"]), ClipText(tiny_clip_text(), tiny_tokenizer())(["a cat"]))


@pytest.mark.parametrize("shift", [None, 0.1])
def test_autokl_is_what_diffusers_encodes(shift: float | None, images: Tensor, tmp_path: Path) -> None:
    vae = tiny_vae(shift=shift)
    vae.save_pretrained(tmp_path / "vae")
    extractor = AutoKL.load(tmp_path, AutoKLConfig(size=40), subfolder="vae")
    with torch.no_grad():
        want = vae.encode(images / 255 * 2 - 1).latent_dist
    close(extractor(images), (want.mean - (shift or 0)) * 0.18215)
    assert extractor.shape == (4, 20, 20)
    sampled = AutoKL(vae, AutoKLConfig(size=40, latents="sample"))(images)
    noise = (sampled / 0.18215 + (shift or 0) - want.mean) / want.std
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    with torch.no_grad():
        decoded = vae.decode(extractor(images) / 0.18215 + (shift or 0)).sample
    close(extractor.decode(extractor(images)), (decoded / 2 + 0.5).clamp(0, 1))
    latents = extractor(images)
    close(extractor.decode(latents.flatten(1)), extractor.decode(latents), "float32 gradient")


@pytest.mark.parametrize("kind", ["autokl", "vdvae"])
def test_samples_are_those_of_the_image_and_the_seed(kind: str, images: Tensor) -> None:
    vdvae = VDVAE(VDVAEConfig.tiny()) if kind == "vdvae" else None

    def sampler(seed: int) -> Any:
        if vdvae is not None:
            return VdvaeLatents(vdvae, VdvaeConfig(latents="sample", seed=seed))
        return AutoKL(tiny_vae(), AutoKLConfig(size=40, latents="sample", seed=seed))

    first = sampler(0)
    got = first(images)
    close(first(images[[3, 1]]), got[[3, 1]])
    close(first(images / 255), got)
    assert not torch.allclose(sampler(1)(images), got)
    assert sampler(1).fingerprint() != first.fingerprint()


def test_vdvae_latents_are_what_the_network_encodes(images: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vdvae = VDVAE(VDVAEConfig.tiny())
    extractor = VdvaeLatents(vdvae, VdvaeConfig(n_layers=4))
    close(extractor(images), vdvae.encode(images, n_layers=4))
    assert extractor(images).shape[1:] == extractor.shape == (vdvae.latent_offsets[4],)
    assert VdvaeLatents(vdvae).shape == (vdvae.latent_offsets[-1],)
    close(extractor.decode(extractor(images).numpy()), vdvae.decode(extractor(images)))
    # Images of several sizes in one batch.
    close(extractor([images[0], images[1, :, :30]])[0], extractor(images[:1])[0])


@pytest.mark.parametrize("registers", [0, 3])
def test_dinov2_is_the_model_of_transformers(registers: int, images: Tensor, tmp_path: Path) -> None:
    model = tiny_dinov2(registers=registers)
    model.save_pretrained(tmp_path)
    sizes = {"resize": 40, "crop": 28}
    extractor = DINOv2.load(tmp_path, DINOConfig(tokens="all", **sizes))
    cut = images[:, :, 6:34, 6:34] / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    want = model(pixel_values=(cut - mean[:, None, None]) / std[:, None, None]).last_hidden_state
    close(extractor(images), want)
    assert extractor.shape == want.shape[1:] == (17 + registers, 12)
    close(DINOv2(model, DINOConfig(**sizes))(images), want[:, 0])
    close(DINOv2(model, DINOConfig(tokens="mean", **sizes))(images), want[:, 1 + registers :].mean(1))


def test_dinov1_is_the_model_of_transformers_without_a_pooling_layer(images: Tensor, tmp_path: Path) -> None:
    model = tiny_dinov1()
    model.save_pretrained(tmp_path)
    extractor = DINOv1.load(tmp_path, DINOConfig(resize=28, crop=28))
    want = model(pixel_values=extractor.prepare(images)).last_hidden_state
    close(extractor(images), want[:, 0])
    assert extractor.fingerprint() == DINOv1.load(tmp_path, DINOConfig(resize=28, crop=28)).fingerprint()
    with pytest.raises(ValueError, match="hold a model of 'dinov2' or 'dinov2_with_registers', got 'vit'"):
        DINOv2.load(tmp_path)
    with pytest.raises(ValueError, match="multiple of the patch size 7"):
        DINOv1(model, DINOConfig(crop=30))


def with_pillow(name: str) -> Any:
    """Return a processor of transformers that resizes by Pillow, which in version 5 is not the first choice."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def test_clip_pixels_are_those_of_its_processor(images: Tensor) -> None:
    wide = torch.cat([images, images.flip(3)], dim=3)
    processor = with_pillow("CLIPImageProcessor")(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    extractor = ClipVision(tiny_clip_vision())
    for some in (images, wide[..., :61], wide[..., :45].transpose(2, 3), images[..., 6:34, 6:34]):
        want = processor(list(some), return_tensors="pt")["pixel_values"]
        difference = (extractor.prepare(some) - want).abs()
        # One level of 255, divided by the smallest standard deviation.
        assert difference.max() < 1.01 / 255 / 0.26
        assert (difference > 1e-5).float().mean() < 0.01


def test_dino_pixels_are_those_of_its_processor(images: Tensor) -> None:
    processor = with_pillow("BitImageProcessor")(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
        resample=3,
    )
    wide = torch.cat([images, images.flip(3)], dim=3)[..., :61]
    want = processor(list(wide), return_tensors="pt")["pixel_values"]
    # One level of 255, divided by the smallest standard deviation.
    assert (DINOv2(tiny_dinov2()).prepare(wide) - want).abs().max() < 1.01 / 255 / 0.224


@pytest.mark.parametrize("layer", VGG_LAYERS)
def test_vgg_layers_are_those_of_the_network(layer: str, images: Tensor) -> None:
    model = tiny_vgg()
    extractor = VGG19(model, VGG19Config(layer=layer, resize=40, crop=32))
    x = extractor.prepare(images)
    maps = model.features(x)
    pooled = model.avgpool(maps)
    first = model.classifier[0](pooled.flatten(1)).relu()
    second = model.classifier[3](first).relu()
    want = {"maxpool2d_35": maps, "avgpool": pooled, "dropout_2": first, "dropout_5": second, "last": model(x)}
    close(extractor(images), want[layer])
    assert extractor.shape == want[layer].shape[1:]


@pytest.mark.slow  # 600 MB on the disk, three times that in memory
def test_vgg19_of_torchvision_is_loaded_from_its_file(tmp_path: Path, images: Tensor) -> None:
    from torchvision.models import vgg19

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = vgg19(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "vgg19.pth")
    extractor = VGG19.load(tmp_path / "vgg19.pth")
    with torch.no_grad():
        close(extractor(images[:1]), model(extractor.prepare(images[:1])))
    layers = {layer: VGG19(model, VGG19Config(layer=layer)).shape for layer in VGG_LAYERS}
    maps = (512, 7, 7)
    assert layers == {
        "last": (1000,),
        "dropout_5": (4096,),
        "dropout_2": (4096,),
        "avgpool": maps,
        "maxpool2d_35": maps,
    }


def test_images_of_several_sizes_share_a_batch(images: Tensor) -> None:
    extractor = ClipVision(tiny_clip_vision())
    others = [images[0], images[1, :, :30], images[2, :, :, 5:] / 255, images[3, :, :30]]
    got = extractor(others)
    close(got, torch.cat([extractor(image[None]) for image in others]))
    with pytest.raises(ValueError, match=r"batch\[1\]` must lie in \[0, 1\]"):
        extractor([images[0], images[1].float()])
