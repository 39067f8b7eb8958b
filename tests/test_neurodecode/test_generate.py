"""Laws of generators: of seeds, guidance, steps, types of numbers; and what mistakes they tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.tiny_diffusion import save_pipelines
from tolerances import close

from neurodecode.features import ClipVision, extract
from neurodecode.generate import BACKENDS, GenerationSettings, IPAdapter, TinyTraining, load_backend, train_tiny
from neurodecode.generate.backend import counts
from neurodecode.generate.sampling import NOISES, add_noise, ddim, ddim_schedule, noise_of_rows
from neurodecode.generate.versatile import DualAttention


def near(made: Any, want: Any, atol: float) -> None:
    """Compare images or latents after a dozen matrix products in float32."""
    np.testing.assert_allclose(np.asarray(made), np.asarray(want), atol=atol, rtol=0)


FEW = GenerationSettings(steps=8, strength=0.5, guidance=3.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_pipelines(tmp_path_factory.mktemp("pipelines"))


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
def test_parts_of_a_study_become_what_they_become_in_the_whole(folders, name) -> None:
    """With every noise that is drawn: of the diffusion, of the posterior, of the embedding."""
    backend = loaded(name, folders)
    latents, images = embeddings(backend, 3), guesses(3)
    settings = GenerationSettings(steps=8, strength=0.5, guidance=2.0, noise_level=200, compat=("sampled-latents",))
    whole = backend.generate(latents, images, seed=2, settings=settings)
    parts = [
        backend.generate({k: v[rows] for k, v in latents.items()}, images[rows], seed=2, settings=settings, first_row=n)
        for n, rows in ((0, slice(0, 1)), (1, slice(1, 3)))
    ]
    near(np.concatenate(parts), whole, 2e-4)
    plain = GenerationSettings(steps=8, strength=0.5, guidance=2.0, noise_level=200)
    assert np.abs(backend.generate(latents, images, seed=2, settings=plain) - whole).max() > 1e-3


def test_no_two_noises_are_the_same() -> None:
    """Of any seed, row and purpose; nor what the decoder of a first guess draws from (seed, row)."""
    drawn = {
        tuple(noise_of_rows(seed, [row], (3,), what)[0].tolist())
        for seed in range(4)
        for row in range(4)
        for what in NOISES
    }
    assert len(drawn) == 4 * 4 * len(NOISES)
    plain = int(np.random.SeedSequence([0, 1]).generate_state(1, np.uint64)[0]) >> 1
    assert tuple(torch.randn(3, generator=torch.Generator().manual_seed(plain)).tolist()) not in drawn
    noise = noise_of_rows(0, range(200), (100,))
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


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
    assert {extractor.dtype for extractor in half.extractors.values()} == {torch.float32}
    settings = GenerationSettings(steps=8, strength=0.25, guidance=1.0)
    latents = {kind: 0.3 * values for kind, values in embeddings(exact, 2).items()}
    a, b = (backend.generate(latents, guesses(2), settings=settings) for backend in (exact, half))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98


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
    with pytest.raises(ValueError, match=r"latents\['image'\].*NaN or infinity in rows 1\."):
        backend.generate({**latents, "image": broken})
    with pytest.raises(TypeError, match="mapping"):
        backend.generate(latents["image"])
    with pytest.raises(TypeError, match="array of numbers"):
        backend.generate({**latents, "text": ["a cat", "a dog"]})
    with pytest.raises(ValueError, match="at least one row"):
        backend.generate({kind: values[:0] for kind, values in latents.items()})
    with pytest.raises(ValueError, match="seed"):
        backend.generate(latents, seed=2**32)
    with pytest.raises(ValueError, match="first_guess"):
        backend.generate(latents, np.full_like(guesses(2), np.nan))
    with pytest.raises(ValueError, match="must be one of"):
        load_backend("versatile", folders["versatile"], dtype="half")
    with pytest.raises(ValueError, match="must be one of"):
        load_backend("versatile", folders["versatile"], dtype=torch.int8)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_backend("ip-adapter", folders["ip-adapter"], adapter=tmp_path / "absent.safetensors")
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
    latents = embeddings(backend, 3)
    latents["image"][2] = 1e38  # finite, and too large for attention
    with pytest.raises(ValueError, match=r"denoising network.*rows 2\."):
        backend.generate(latents, settings=FEW, batch_size=2)
    with torch.no_grad():
        next(backend.vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"decoder of images.*rows 0, 1\."):
        backend.generate(embeddings(backend, 2), settings=FEW)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_autoencoder_goes_on_in_float32_where_float16_is_too_small(folders, part) -> None:
    """Its first activations are beyond 65504; what comes out is an ordinary image."""
    backends = [loaded("ip-adapter", folders, dtype="float16") for _ in range(2)]
    for backend in backends:
        weights = getattr(backend.vae, part).conv_in.weight
        with torch.no_grad():
            weights.mul_(3e4 / weights.abs().max())
    backends[1].vae.float()
    latents = embeddings(backends[0], 2)
    first_guess = guesses(2) if part == "encoder" else None
    made, want = (backend.generate(latents, first_guess, settings=FEW) for backend in backends)
    np.testing.assert_array_equal(made, want)
    assert made.std() > 0.01
    assert {p.dtype for p in backends[0].vae.parameters()} == {torch.float32}
    assert not any(p.is_inference() for p in backends[0].vae.parameters())


def test_tiny_generator_learns_and_is_drawn_from_its_seed(folders) -> None:
    rng = np.random.default_rng(0)
    images = np.repeat(np.repeat(rng.uniform(size=(24, 3, 2, 2)), 8, axis=2), 8, axis=3).astype(np.float32)
    backend, again = loaded("versatile", folders), loaded("versatile", folders)
    latents = embeddings(backend, 24)
    training = TinyTraining(vae_steps=40, unet_steps=40, batch_size=8, seed=1)
    before = torch.random.get_rng_state()
    losses = train_tiny(backend, images, latents, training)
    assert torch.equal(torch.random.get_rng_state(), before)
    for kind, share in (("vae", 0.9), ("unet", 0.85)):
        assert np.mean(losses[kind][-10:]) < share * np.mean(losses[kind][:10])
    assert not any(p.requires_grad for module in (backend.unet, backend.vae) for p in module.parameters())
    short = TinyTraining(vae_steps=3, unet_steps=1, batch_size=8, seed=1)
    assert train_tiny(again, images, latents, short)["vae"] == pytest.approx(losses["vae"][:3], abs=0.02)
    with torch.no_grad():
        encoded = backend.vae.encode(torch.from_numpy(images) * 2 - 1).latent_dist.mean
    assert float(encoded.std() * backend.vae.config.scaling_factor) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="float32"):
        train_tiny(loaded("versatile", folders, dtype="bfloat16"), images, latents)
    with pytest.raises(ValueError, match="text and image"):
        train_tiny(again, images, {"image": latents["image"]})


def test_progress_is_shown_over_steps(folders, capsys) -> None:
    backend = loaded("unclip", folders)
    backend.generate(embeddings(backend, 3), settings=FEW, batch_size=2, progress=True)
    assert "diffusion, unclip: 100%" in capsys.readouterr().err
    backend.generate(embeddings(backend, 1), settings=FEW)
    assert capsys.readouterr().err == ""
