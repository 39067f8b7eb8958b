"""Generators against the pipelines of diffusers, and the laws of guidance and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.tiny_diffusion import save_ip_adapter, save_stable_diffusion, save_unclip
from tolerances import close

from neurodecode.features import ClipVision, extract
from neurodecode.generate import BACKENDS, GenerationSettings, IPAdapter, load_backend, save_tiny_versatile
from neurodecode.generate.backend import counts
from neurodecode.generate.sampling import add_noise, ddim, ddim_schedule, noise_of_rows
from neurodecode.generate.versatile import DualAttention


def near(made: Any, want: Any, atol: float) -> None:
    """Compare images or latents after a dozen matrix products in float32."""
    np.testing.assert_allclose(np.asarray(made), np.asarray(want), atol=atol, rtol=0)


FEW = GenerationSettings(steps=8, strength=0.5, guidance=3.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {
        "versatile": save_tiny_versatile(root / "versatile", image_size=16, width=16, depth=1),
        "ip-adapter": save_stable_diffusion(root / "sd"),
        "unclip": save_unclip(root / "unclip"),
        "adapter": save_ip_adapter(root / "adapter" / "ip-adapter_tiny.safetensors"),
    }


def loaded(name: str, folders: dict[str, Path], **options: Any) -> Any:
    extra = {"adapter": folders["adapter"]} if name == "ip-adapter" else {}
    return load_backend(name, folders[name], device="cpu", **extra, **options)


def embeddings(backend: Any, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {kind: rng.standard_normal((n, *shape)).astype(np.float32) for kind, shape in backend.shapes.items()}


def guesses(n: int) -> np.ndarray:
    return np.random.default_rng(9).uniform(size=(n, 3, 24, 24)).astype(np.float32)


@pytest.mark.parametrize("name", BACKENDS)
def test_every_image_depends_on_its_own_row_alone(folders, name) -> None:
    backend = loaded(name, folders)
    latents, images = embeddings(backend, 3), guesses(3)
    before = counts[name]
    made = backend.generate(latents, images, seed=2, settings=FEW, batch_size=3)
    assert counts[name] - before == 3 * 4
    assert made.shape == (3, 3, backend.image_size, backend.image_size)
    assert made.dtype == np.float32
    assert 0 <= made.min() < made.max() <= 1
    alone = [
        backend.generate({k: v[:n] for k, v in latents.items()}, images[:n], seed=2, settings=FEW, batch_size=1)
        for n in (1, 3)
    ]
    near(alone[0], made[:1], 2e-4)
    near(alone[1], made, 2e-4)
    assert np.abs(backend.generate(latents, images, seed=3, settings=FEW) - made).max() > 1e-2
    changed = {kind: values[[1, 1, 2]] for kind, values in latents.items()}
    again = backend.generate(changed, images, seed=2, settings=FEW, batch_size=3)
    near(again[1:], made[1:], 2e-4)
    assert np.abs(again[0] - made[0]).max() > 1e-3


@pytest.mark.parametrize("name", BACKENDS)
def test_slicing_and_offloading_change_nothing(folders, name) -> None:
    plain, thrifty = loaded(name, folders), loaded(name, folders, slicing=True, offload=True)
    latents = embeddings(plain, 2)
    made = [backend.generate(latents, guesses(2), settings=FEW) for backend in (plain, thrifty)]
    near(made[1], made[0], 2e-4)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_images(folders, name, dtype) -> None:
    exact, half = loaded(name, folders), loaded(name, folders, dtype=dtype)
    assert str(half.dtype) == f"torch.{dtype}"
    settings = GenerationSettings(steps=8, strength=0.25, guidance=1.0)
    latents = {kind: 0.3 * values for kind, values in embeddings(exact, 2).items()}
    a, b = (backend.generate(latents, guesses(2), settings=settings) for backend in (exact, half))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98


def test_ip_adapter_gives_the_images_of_diffusers(folders) -> None:
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

    backend = loaded("ip-adapter", folders)
    latents = embeddings(backend, 2)
    settings = GenerationSettings(steps=10, strength=0.6, guidance=4.0, image_scale=0.7)
    image = torch.from_numpy(guesses(2))
    image = torch.nn.functional.interpolate(image, (32, 32), mode="nearest")
    made = backend.generate(latents, image, seed=5, settings=settings)
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=backend.vae, unet=backend.unet, text_encoder=backend._text.module, tokenizer=backend._text.tokenizer,
        scheduler=DDIMScheduler.from_config(backend.scheduler.config), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler.set_timesteps(10)
    # Its own noise and encoding are random: the noised latents are handed over, at the first step that is run.
    clean = backend.vae.encode(image * 2 - 1).latent_dist.mean * backend.vae.config.scaling_factor
    start = noise_of_rows(5, range(2), backend.latent_shape)
    step = pipeline.scheduler.timesteps[4]
    noised = pipeline.scheduler.add_noise(clean, start, step[None])
    ids = torch.from_numpy(latents["image"])[:, None]
    empty = backend._text.uncaptioned().expand(2, -1, -1)
    x = noised
    for t in pipeline.scheduler.timesteps[4:]:
        both = pipeline.unet(
            torch.cat([x, x]), t, encoder_hidden_states=torch.cat([empty, torch.from_numpy(latents["text"])]),
            added_cond_kwargs={"image_embeds": [torch.cat([torch.zeros_like(ids), ids])]},
        ).sample  # fmt: skip
        without, with_it = both.chunk(2)
        x = pipeline.scheduler.step(without + 4.0 * (with_it - without), t, x).prev_sample
    want = (pipeline.vae.decode(x / backend.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    near(made, want, 2e-4)


def test_unclip_gives_the_images_of_the_pipeline_of_diffusers(folders) -> None:
    """From noise, the pipeline itself is run: embeddings, noise of the image and first latents are handed over."""
    from diffusers import DDIMScheduler, StableUnCLIPImg2ImgPipeline

    backend = loaded("unclip", folders)
    latents = {kind: values for kind, values in embeddings(backend, 1).items() if kind == "image"}
    settings = GenerationSettings(steps=10, guidance=4.0, noise_level=7)
    made = backend.generate(latents, seed=5, settings=settings)
    pipeline = StableUnCLIPImg2ImgPipeline(
        vae=backend.vae, unet=backend.unet, text_encoder=backend._text.module, tokenizer=backend._text.tokenizer,
        scheduler=DDIMScheduler.from_config(backend.scheduler.config), feature_extractor=None,
        image_encoder=backend._image.module, image_normalizer=backend._normalizer,
        image_noising_scheduler=backend._noising,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    noise = noise_of_rows(5 + (2 << 32), [0], (8,))
    told = pipeline.noise_image_embeddings(torch.from_numpy(latents["image"]), 7, noise=noise)
    empty = backend._text.uncaptioned()
    pipeline._encode_image = lambda **_: torch.cat([torch.zeros_like(told), told])
    want = pipeline(
        prompt_embeds=empty, negative_prompt_embeds=empty, image_embeds=torch.from_numpy(latents["image"]),
        num_inference_steps=10, guidance_scale=4.0,
        latents=noise_of_rows(5, [0], backend.latent_shape), output_type="pt",
    ).images  # fmt: skip
    near(made, want, 2e-4)


def test_dual_attention_equals_that_of_diffusers(folders) -> None:
    from diffusers.models import DualTransformer2DModel

    backend = loaded("versatile", folders)
    ours = next(module for module in backend.unet.modules() if isinstance(module, DualAttention))
    config = ours.image.config
    theirs = DualTransformer2DModel(
        num_attention_heads=config.num_attention_heads, attention_head_dim=config.attention_head_dim,
        in_channels=config.in_channels, num_layers=config.num_layers, norm_num_groups=config.norm_num_groups,
        cross_attention_dim=config.cross_attention_dim,
    )  # fmt: skip
    theirs.transformers[0], theirs.transformers[1] = ours.image, ours.text
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, config.in_channels, 4, 4, generator=generator)
    tokens = torch.randn(2, 77 + 5, config.cross_attention_dim, generator=generator)
    theirs.condition_lengths = [77, 5]
    for mix in (0.0, 0.4, 1.0):
        ours.mix = theirs.mix_ratio = mix
        with torch.no_grad():
            made = ours(hidden, tokens, encoder_attention_mask=None, attention_mask=None)[0]
            close(made, theirs(hidden, tokens).sample)


def test_share_of_the_text_says_what_guides(folders) -> None:
    backend = loaded("versatile", folders)
    a, b = embeddings(backend, 1), embeddings(backend, 1, seed=1)
    other_text, other_image = {**a, "text": b["text"]}, {**a, "image": b["image"]}

    def made(latents: dict, mix: float) -> np.ndarray:
        return backend.generate(latents, settings=GenerationSettings(steps=4, mix=mix))

    for mix, same, changed in ((0.0, other_text, other_image), (1.0, other_image, other_text)):
        np.testing.assert_array_equal(made(a, mix), made(same, mix))
        assert np.abs(made(a, mix) - made(changed, mix)).max() > 1e-4
    alone = made({"image": a["image"]}, 0.0)
    np.testing.assert_array_equal(alone, made(a, 0.0))
    with pytest.raises(ValueError, match="mix=0"):
        made({"image": a["image"]}, 0.4)


def test_no_condition_is_the_empty_caption_and_a_grey_image(folders) -> None:
    """Guidance by what stands for no condition changes nothing, whatever its weight."""
    backend = loaded("versatile", folders)
    size = backend._image.module.config.image_size
    grey = ClipVision(backend._image.module)(torch.full((1, 3, size, size), 128, dtype=torch.uint8))
    near(backend._no_condition["image"], grey, 0.08)
    black = ClipVision(backend._image.module)(torch.full((1, 3, size, size), 0.5 / 255))  # rescaled twice
    assert np.abs(np.asarray(black - grey)).max() > 0.3
    none = {kind: values.numpy() for kind, values in backend._no_condition.items()}
    images = [
        backend.generate(none, settings=GenerationSettings(steps=4, guidance=guidance)) for guidance in (1.0, 9.0)
    ]
    near(images[0], images[1], 1e-4)


def test_extractors_give_the_embeddings_that_are_taken(folders) -> None:
    stimuli = {"text": [["a cat"], ["the mat"]], "image": guesses(2)}
    for name in ("versatile", "unclip"):
        backend = loaded(name, folders)
        latents = {kind: extract(stimuli[kind], extractor) for kind, extractor in backend.extractors.items()}
        assert {kind: values.shape[1:] for kind, values in latents.items()} == backend.shapes
        assert np.isfinite(backend.generate(latents, settings=FEW)).all()


def test_reference_adds_the_noise_of_one_step_more(folders) -> None:
    backend = loaded("versatile", folders)
    settings = [GenerationSettings(), GenerationSettings(compat=("noise-offset",))]
    ours, theirs = (ddim_schedule(backend.scheduler, s, from_image=True) for s in settings)
    assert ours.timesteps == theirs.timesteps == tuple(range(721, 0, -20))
    alphas = backend.scheduler.alphas_cumprod.double()
    assert ours.start == pytest.approx(float(alphas[721]))
    assert theirs.start == pytest.approx(float(alphas[741]))
    whole = ddim_schedule(backend.scheduler, GenerationSettings(), from_image=False)
    assert whole.timesteps == tuple(range(981, 0, -20))
    assert whole.after[-1] == pytest.approx(float(alphas[0]))
    assert ours.after[:-1] == whole.signal[-36:]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_denoising_with_the_exact_network_gives_the_distribution_of_the_data(prediction) -> None:
    """Data N(2, 0.25) in each pixel: what a perfect network predicts is known, and many steps end at the data."""
    from fakes.tiny_diffusion import scheduler

    mean, spread = 2.0, 0.5
    levels = scheduler(prediction)
    schedule = ddim_schedule(levels, GenerationSettings(steps=200), from_image=False)
    by_time = dict(zip(schedule.timesteps, schedule.signal, strict=True))

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        a = by_time[t]
        gain = a**0.5 * spread**2 / (a * spread**2 + 1 - a)
        clean = mean + gain * (x - a**0.5 * mean)
        noise = (x - a**0.5 * clean) / (1 - a) ** 0.5
        return {"epsilon": noise, "v_prediction": a**0.5 * noise - (1 - a) ** 0.5 * clean, "sample": clean}[prediction]

    clean, noise = (noise_of_rows(seed, range(4), (5000,)).double() for seed in (0, 1))
    x = ddim(predict, add_noise(mean + spread * clean, noise, schedule.start), schedule)
    assert float(x.mean()) == pytest.approx(mean, abs=0.05)
    assert float(x.std()) == pytest.approx(spread, rel=0.05)


def test_steps_are_those_of_diffusers(folders) -> None:
    from diffusers import DDIMScheduler

    levels = DDIMScheduler.from_config(loaded("unclip", folders).scheduler.config)
    schedule = ddim_schedule(levels, GenerationSettings(steps=20), from_image=False)
    levels.set_timesteps(20)
    assert tuple(levels.timesteps.tolist()) == schedule.timesteps
    x = noise_of_rows(0, [0], (3, 4, 4))
    want = x.clone()
    for t in levels.timesteps:
        want = levels.step(torch.tanh(want), t, want).prev_sample
    near(ddim(lambda x, t: torch.tanh(x), x, schedule), want, 1e-4)
    noised = levels.add_noise(x, torch.ones_like(x), torch.tensor([schedule.timesteps[3]]))
    near(add_noise(x, torch.ones_like(x), schedule.signal[3]), noised, 1e-5)


def test_mistakes_are_told(folders, tmp_path) -> None:
    backend = loaded("versatile", folders)
    latents = embeddings(backend, 2)
    with pytest.raises(ValueError, match=r"latents\['text'\].*77"):
        backend.generate({**latents, "text": latents["text"][:, :5]})
    with pytest.raises(ValueError, match="same length"):
        backend.generate({**latents, "text": latents["text"][:1]})
    with pytest.raises(ValueError, match="same length"):
        backend.generate(latents, guesses(3))
    with pytest.raises(ValueError, match="sound"):
        backend.generate({"sound": latents["text"]})
    broken = latents["image"].copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        backend.generate({**latents, "image": broken})
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        backend.generate(latents, 255 * guesses(2))
    with pytest.raises(ValueError, match="below 1 for compat"):
        GenerationSettings(strength=1.0, compat=("noise-offset",))
    with pytest.raises(ValueError, match="leave a step"):
        GenerationSettings(steps=5, strength=0.1)
    with pytest.raises(ValueError, match="tuple of names"):
        GenerationSettings(compat="noise-offset")
    with pytest.raises(ValueError, match="must be one of"):
        load_backend("dalle", folders["versatile"])
    with pytest.raises(ValueError, match="adapter"):
        load_backend("ip-adapter", folders["ip-adapter"])
    with pytest.raises(TypeError, match="adapter"):
        load_backend("unclip", folders["unclip"], adapter="x")
    with pytest.raises(FileNotFoundError, match="hf download"):
        load_backend("versatile", "shi-labs/not-there")
    with pytest.raises((ValueError, FileNotFoundError)):
        load_backend("versatile", folders["unclip"])
    wrong = tmp_path / "wrong.safetensors"
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, wrong)
    with pytest.raises(ValueError, match="no IP-Adapter"):
        IPAdapter.load(folders["ip-adapter"], adapter=wrong)


def test_black_images_are_an_error_that_names_them(folders) -> None:
    backend = loaded("versatile", folders)
    with torch.no_grad():
        next(backend.vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"decoder of images.*rows 0, 1"):
        backend.generate(embeddings(backend, 2), settings=FEW)
