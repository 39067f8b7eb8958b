"""Generators against the pipelines of diffusers, which are run as they are, on the same networks and numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.tiny_diffusion import save_pipelines

from neurodecode.features import extract
from neurodecode.generate import GenerationSettings, load_backend
from neurodecode.generate.sampling import NOISES, noise_of_rows

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_pipelines(tmp_path_factory.mktemp("pipelines"))


def near(made: Any, want: Any) -> None:
    """Compare images in [0, 1] after a dozen steps in float32."""
    assert np.asarray(want).std() > 0.01
    np.testing.assert_allclose(np.asarray(made), np.asarray(want), atol=3e-5, rtol=0)


def generator(seed: int, row: int, what: str = "diffusion") -> torch.Generator:
    """Return what draws the noise of an image, for a pipeline that draws it itself."""
    source = np.random.SeedSequence([seed, row], spawn_key=(NOISES[what],))
    return torch.Generator().manual_seed(int(source.generate_state(1, np.uint64)[0]) >> 1)


def ddim_scheduler(backend: Any) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(backend.scheduler.config)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_versatile_gives_the_images_of_the_dual_guided_pipeline(folders, monkeypatch, mix) -> None:
    """From caption and image to pixels: encoders, no condition, merged networks, share of the text, guidance, steps.

    The pipeline of diffusers 0.42.1 cannot run, since its dual transformer knows no ``encoder_attention_mask``: the
    argument, which is None, is left out here. Its feature extractor rescales no second time.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers import VersatileDiffusionDualGuidedPipeline as Pipeline
    from diffusers.models import DualTransformer2DModel
    from diffusers.pipelines.deprecated.versatile_diffusion.modeling_text_unet import UNetFlatConditionModel
    from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPTokenizer
    from transformers import CLIPVisionModelWithProjection as Vision

    backend, folder = load_backend("versatile", folders["versatile"], device="cpu"), folders["versatile"]
    image = np.random.default_rng(0).uniform(size=(32, 32, 3)).astype(np.float32)
    stimuli = {"text": [["a cat on a mat"]], "image": torch.from_numpy(image).permute(2, 0, 1)[None]}
    latents = {kind: extract(stimuli[kind], extractor) for kind, extractor in backend.extractors.items()}
    settings = GenerationSettings(steps=6, guidance=7.5, mix=mix)
    made = backend.generate(latents, seed=3, settings=settings)

    forward = DualTransformer2DModel.forward
    monkeypatch.setattr(
        DualTransformer2DModel,
        "forward",
        lambda self, *args, encoder_attention_mask=None, **options: forward(self, *args, **options),
    )
    parts = {
        "text_encoder": CLIPTextModelWithProjection, "image_encoder": Vision, "tokenizer": CLIPTokenizer,
        "image_unet": UNet2DConditionModel, "text_unet": UNetFlatConditionModel, "vae": AutoencoderKL,
    }  # fmt: skip
    pipeline = Pipeline(
        **{name: kind.from_pretrained(folder, subfolder=name) for name, kind in parts.items()},
        scheduler=ddim_scheduler(backend),
        image_feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_rescale=False
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    want = pipeline(
        prompt="a cat on a mat", image=[image], text_to_image_strength=mix, num_inference_steps=6, guidance_scale=7.5,
        latents=noise_of_rows(3, [0], backend.latent_shape), output_type="np",
    ).images  # fmt: skip
    near(made, want.transpose(0, 3, 1, 2))


def test_ip_adapter_gives_the_images_of_the_image_to_image_pipeline(folders) -> None:
    """Strength, noise, guidance, text and weight of the image; the pipeline draws from the generators of our rows."""
    from diffusers import StableDiffusionImg2ImgPipeline

    backend = load_backend("ip-adapter", folders["ip-adapter"], adapter=folders["adapter"], device="cpu")
    text, image = drawn(1, 2, *backend.shapes["text"]), drawn(2, 2, *backend.shapes["image"])
    guess = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    settings = GenerationSettings(steps=10, strength=0.65, guidance=4.0, image_scale=0.7)
    made = backend.generate({"text": text, "image": image}, guess, seed=5, settings=settings)

    pipeline = StableDiffusionImg2ImgPipeline(
        vae=backend.vae, unet=backend.unet, text_encoder=backend.extractors["text"].module,
        tokenizer=backend.extractors["text"].tokenizer, scheduler=ddim_scheduler(backend), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.set_ip_adapter_scale(0.7)
    with torch.no_grad():
        # As latents: the pipeline would draw from the posterior.
        clean = backend.vae.encode(guess * 2 - 1).latent_dist.mean * backend.vae.config.scaling_factor
    empty, _ = pipeline.encode_prompt("", "cpu", 1, do_classifier_free_guidance=False)
    for row in (0, 1):
        # One at a time: of two prompts the pipeline repeats each embedding, and mixes them up.
        told = image[row : row + 1, None]
        want = pipeline(
            image=clean[row : row + 1], prompt_embeds=text[row : row + 1], negative_prompt_embeds=empty, strength=0.65,
            guidance_scale=4.0, ip_adapter_image_embeds=[torch.cat([torch.zeros_like(told), told])],
            num_inference_steps=10, generator=generator(5, row), output_type="np",
        ).images  # fmt: skip
        near(made[row : row + 1], want.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("noise_level", [0, 7, 400])
def test_unclip_gives_the_images_of_the_pipeline(folders, noise_level) -> None:
    """From noise: this pipeline takes no first guess. It draws the noise of the embedding from our generator."""
    from diffusers import StableUnCLIPImg2ImgPipeline

    backend = load_backend("unclip", folders["unclip"], device="cpu")
    text, image = drawn(1, 1, *backend.shapes["text"]), drawn(2, 1, *backend.shapes["image"])
    settings = GenerationSettings(steps=10, guidance=4.0, noise_level=noise_level)
    made = backend.generate({"text": text, "image": image}, seed=5, settings=settings)

    pipeline = StableUnCLIPImg2ImgPipeline(
        vae=backend.vae, unet=backend.unet, text_encoder=backend.extractors["text"].module,
        tokenizer=backend.extractors["text"].tokenizer, scheduler=ddim_scheduler(backend), feature_extractor=None,
        image_encoder=backend.extractors["image"].module, image_normalizer=backend._normalizer,
        image_noising_scheduler=backend._noising,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    empty, _ = pipeline.encode_prompt("", "cpu", 1, do_classifier_free_guidance=False)
    want = pipeline(
        image_embeds=image, prompt_embeds=text, negative_prompt_embeds=empty, num_inference_steps=10,
        guidance_scale=4.0, noise_level=noise_level, generator=generator(5, 0, "embedding"),
        latents=noise_of_rows(5, [0], backend.latent_shape), output_type="np",
    ).images  # fmt: skip
    near(made, want.transpose(0, 3, 1, 2))
