"""From betas to latents to first guesses: BrainDiffuser against what it is made of, and against scikit-learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.tiny_models import save_tiny_clip, seeded, smooth_images
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

from neurodecode import MultiTargetRidge
from neurodecode.features import ClipText, ClipVision, ClipVisionConfig, VdvaeConfig, VdvaeLatents, extract
from neurodecode.fmri import (
    PAPER_ALPHA,
    VDVAE,
    BrainDiffuser,
    VDVAEConfig,
    evaluate_decoder,
    region_preference,
    roi_scene,
    simulate_subject,
    voxel_weights,
)
from neurodecode.report import report, save_report
from neuroloaders import BetaSet

CAPTIONS = (("a cat",), ("a hat", "that cat"), ("the mat",), ("fat rat", ""), ("a bat at dawn",))
TRAIN, TEST, VOXELS = 60, 8, 90


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = save_tiny_clip(tmp_path_factory.mktemp("clip"))
    vdvae = seeded(lambda: VDVAE(VDVAEConfig.tiny(8, 8), generator=torch.Generator().manual_seed(0)), 1)
    return {"low_level": VdvaeLatents(vdvae), "text": ClipText.load(folder), "image": ClipVision.load(folder)}


def images_of_few_dimensions(n: int) -> torch.Tensor:
    """Four smooth pictures, mixed: networks are nearly linear in the shares."""
    parts = smooth_images(4).double()
    shares = torch.rand(n, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.einsum("nk,kchw->nchw", shares / 4, parts).to(torch.uint8)


@pytest.fixture(scope="module")
def study(networks: dict[str, Any]) -> dict[str, Any]:
    images = images_of_few_dimensions(TRAIN + TEST)
    captions = [CAPTIONS[k % 5] for k in range(len(images))]
    rng = np.random.default_rng(0)
    latents = extract(images, networks["low_level"])
    latents = (latents - latents.mean(0)) / (latents.std(0) + 1e-6)
    betas = latents @ rng.standard_normal((latents.shape[1], VOXELS)) / np.sqrt(latents.shape[1])
    betas = (3 + betas + 0.05 * rng.standard_normal(betas.shape)).astype(np.float32)
    return {
        "images": images,
        "captions": captions,
        "betas": betas,
        "train": slice(0, TRAIN),
        "test": slice(TRAIN, None),
    }


def fitted(
    networks: dict[str, Any], study: dict[str, Any], kinds: tuple[str, ...] = (), **options: Any
) -> BrainDiffuser:
    chosen = {kind: networks[kind] for kind in kinds or networks}
    rows = study["train"]
    return BrainDiffuser(**chosen, **options).fit(study["betas"][rows], study["images"][rows], study["captions"][rows])


def test_predictions_are_those_of_the_loop_over_tokens_with_scikit_learn(networks, study) -> None:
    """The reference: one Ridge a token, voxels z-scored with ddof 1, predictions z-scored over the test set."""
    alpha = {"low_level": 30.0, "text": 80.0, "image": 50.0}
    made = fitted(networks, study, ridge=MultiTargetRidge(alpha=alpha), standardize="test").predict(
        study["betas"][study["test"]]
    )
    train, test = study["betas"][study["train"]].astype(float), study["betas"][study["test"]].astype(float)
    mean, spread = train.mean(0), train.std(0, ddof=1)
    x, new = (train - mean) / spread, (test - mean) / spread
    for kind, extractor in networks.items():
        stimuli = study["captions"] if kind == "text" else study["images"]
        y = extract(stimuli[: study["train"].stop], extractor).astype(float)
        tokens = y.reshape(len(y), -1, y.shape[-1])
        for token in range(tokens.shape[1]):
            guess = Ridge(alpha=alpha[kind]).fit(x, tokens[:, token]).predict(new)
            z = (guess - guess.mean(0)) / guess.std(0)
            want = z * tokens[:, token].std(0) + tokens[:, token].mean(0)
            got = made[kind].reshape(len(new), -1, y.shape[-1])[:, token]
            varies = tokens[:, token].std(0) > 1e-6  # the first tokens of all captions are alike
            np.testing.assert_allclose(got[:, varies], want[:, varies], atol=2e-4)


def test_latents_that_drive_voxels_linearly_are_found_again_and_decoded_to_the_images_guess(networks, study) -> None:
    decoder = fitted(networks, study, kinds=("low_level",), standardize=None)
    found = decoder.reconstruct(study["betas"][study["test"]])
    true = decoder.generate({"low_level": extract(study["images"][study["test"]], networks["low_level"])})
    r = np.corrcoef(found.latents["low_level"].ravel(), true.latents["low_level"].ravel())[0, 1]
    assert r > 0.9
    assert found.images is found.first_guess
    assert found.images.shape == (TEST, 3, 8, 8)
    a, b = found.images.reshape(TEST, -1), true.images.reshape(TEST, -1)
    own = [np.abs(a[k] - b[k]).mean() for k in range(TEST)]
    others = [np.abs(a[k] - b[(k + 1) % TEST]).mean() for k in range(TEST)]
    assert np.mean(own) < 0.7 * np.mean(others)


def test_prediction_of_a_volume_does_not_depend_on_the_others_to_the_last_bit(networks, study) -> None:
    decoder = fitted(networks, study)
    betas = study["betas"][study["test"]]
    together = decoder.predict(betas)
    changed = betas.copy()
    changed[1:] = 3.0
    for other in (decoder.predict(betas[:1]), decoder.predict(changed)):
        for kind, values in together.items():
            np.testing.assert_array_equal(other[kind][0], values[0])


def test_one_volume_cannot_be_standardised_by_itself(networks, study) -> None:
    decoder = fitted(networks, study, kinds=("low_level",), standardize="test")
    with pytest.raises(ValueError, match="standardize='loo'"):
        decoder.predict(study["betas"][:1])


def test_alphas_of_the_paper_go_to_their_kinds(networks, study) -> None:
    decoder = fitted(networks, study, ridge=MultiTargetRidge(alpha=PAPER_ALPHA))
    for kind, where in decoder.layout_.columns.items():
        assert set(decoder.ridge_.ridge_.alpha_[where]) == {PAPER_ALPHA[kind]}
    shared = fitted(networks, study, ridge=MultiTargetRidge(alpha_per="group"))
    for where in shared.layout_.columns.values():
        assert len(set(shared.ridge_.ridge_.alpha_[where])) == 1


def test_known_responses_are_predicted_on_disk_as_by_fit(networks, study, tmp_path: Path) -> None:
    rows, test = study["train"], study["test"]
    want = fitted(networks, study, n_loo=None).predict(study["betas"][test])
    decoder = BrainDiffuser(**networks, n_loo=None)
    given = (study["betas"][rows], study["images"][rows], study["captions"][rows], study["betas"][test])
    for _ in range(2):  # the second time everything is there
        found = decoder.predict_known(*given, tmp_path / "predictions")
        for kind, values in want.items():
            spread = np.abs(values).max()
            np.testing.assert_allclose(found[kind], values, atol=2e-3 * spread)


def test_saved_decoder_predicts_the_same_bits(networks, study, tmp_path: Path) -> None:
    decoder = fitted(networks, study, decoding={"rest": "sample", "output": "truncated"})
    decoder.save(tmp_path)
    loaded = BrainDiffuser.load(tmp_path, **networks)
    betas = study["betas"][study["test"]]
    for kind, values in decoder.predict(betas).items():
        np.testing.assert_array_equal(loaded.predict(betas)[kind], values)
    assert loaded.decoding == decoder.decoding
    np.testing.assert_array_equal(loaded.reconstruct(betas[:2]).images, decoder.reconstruct(betas[:2]).images)


def test_load_refuses_other_extractors_other_fits_and_halves(networks, study, tmp_path: Path) -> None:
    decoder = fitted(networks, study, kinds=("image",))
    decoder.save(tmp_path)
    with pytest.raises(ValueError, match="image, as saved"):
        BrainDiffuser.load(tmp_path, **networks)
    other = ClipVision(networks["image"].module, dataclasses.replace(ClipVisionConfig(), normalise="none"))
    with pytest.raises(ValueError, match="the decoder was fitted with"):
        BrainDiffuser.load(tmp_path, image=other)
    again = BrainDiffuser(image=networks["image"]).fit(study["betas"][:40], study["images"][:40])
    again.ridge_.save(tmp_path / "ridge.safetensors")
    with pytest.raises(ValueError, match="belongs to another decoder"):
        BrainDiffuser.load(tmp_path, image=networks["image"])
    (tmp_path / "decoder.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"decoder\.safetensors"):
        BrainDiffuser.load(tmp_path, image=networks["image"])


def test_image_depends_on_its_seed_and_row_only_where_guesses_are_drawn(networks, study) -> None:
    decoder = fitted(networks, study, kinds=("low_level",), decoding={"output": "sample"}, batch_size=3)
    latents = decoder.predict(study["betas"][study["test"]])
    images = decoder.generate(latents, seed=4).images
    np.testing.assert_array_equal(decoder.generate(latents, seed=4).images, images)
    first = decoder.generate({"low_level": latents["low_level"][:2]}, seed=4).images
    np.testing.assert_allclose(first, images[:2], atol=1.01 / 255)
    assert np.abs(decoder.generate(latents, seed=5).images - images).max() > 2 / 255


def test_betas_of_a_set_are_read_as_they_are(networks, study) -> None:
    rows = np.arange(TRAIN)
    mask = np.ones((VOXELS, 1, 1), dtype=bool)
    betas = BetaSet(
        betas=study["betas"][rows], stimuli=rows, sessions=np.ones(TRAIN, dtype=int), mask=mask, affine=np.eye(4)
    )
    made = BrainDiffuser(image=networks["image"]).fit(betas, study["images"][:TRAIN]).predict(study["betas"][:2])
    want = BrainDiffuser(image=networks["image"]).fit(betas.betas, study["images"][:TRAIN]).predict(study["betas"][:2])
    np.testing.assert_array_equal(made["image"], want["image"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.__setitem__((3, 5), np.nan), "NaN or infinity in 1 voxels, the first 5"),
        (lambda x: x.__setitem__((slice(None), 7), 2.0), "1 constant ones, the first 7"),
    ],
)
def test_bad_voxels_are_named(networks, study, change, message) -> None:
    betas = study["betas"][:TRAIN].copy()
    change(betas)
    with pytest.raises(ValueError, match=message):
        BrainDiffuser(image=networks["image"]).fit(betas, study["images"][:TRAIN])


def test_mistakes_are_told(networks, study) -> None:
    with pytest.raises(ValueError, match="at least one extractor"):
        BrainDiffuser()
    with pytest.raises(NotFittedError, match="fit"):
        BrainDiffuser(image=networks["image"]).predict(study["betas"])
    with pytest.raises(ValueError, match="captions"):
        BrainDiffuser(text=networks["text"]).fit(study["betas"][:TRAIN], study["images"][:TRAIN])
    with pytest.raises(ValueError, match="same length"):
        BrainDiffuser(image=networks["image"]).fit(study["betas"][:TRAIN], study["images"][: TRAIN - 1])
    decoder = fitted(networks, study, kinds=("image",))
    with pytest.raises(ValueError, match=r"betas.*90"):
        decoder.predict(study["betas"][:, :-1])
    with pytest.raises(ValueError, match="load_backend"):
        decoder.reconstruct(study["betas"][:2])
    guess = fitted(networks, study, kinds=("low_level",))
    with pytest.raises(ValueError, match="hold low_level"):
        guess.generate({})
    with pytest.raises(ValueError, match=r"latents\['low_level'\]"):
        guess.generate({"low_level": np.zeros((2, 5))})


def test_scene_of_a_region_shows_the_features_that_drive_it(networks) -> None:
    """One region is driven by the first latent block alone: its scene has that block's latents, and no others."""
    images = smooth_images(80)
    latents = extract(images, VdvaeLatents(networks["low_level"].module, VdvaeConfig(n_layers=2)))
    first = networks["low_level"].module.latent_offsets[1]
    subject = simulate_subject(
        latents, rng=np.random.default_rng(0), n_voxels=120, noise_ceiling=0.99, bold=False,
        regions={"early": range(first), "late": range(first, latents.shape[1])},
    )  # fmt: skip
    extractor = VdvaeLatents(networks["low_level"].module, VdvaeConfig(n_layers=2))
    decoder = BrainDiffuser(low_level=extractor, standardize="loo").fit(subject.betas.average(), images)
    scenes = roi_scene(decoder, subject.rois, norms={"low_level": (1.0, None)})
    assert scenes.images.shape == (2, 3, 8, 8)
    scaler, share = decoder.ridge_.scaler_, {}
    for name, row in zip(subject.rois, scenes.latents["low_level"], strict=True):
        moved = ((row - decoder.ridge_.ridge_.intercept_) / scaler.target_std_) ** 2
        share[name] = moved[:first].mean() / moved[first:].mean()
    assert share["early"] > 3 * share["late"]
    weights = voxel_weights(decoder.ridge_, decoder.layout_)
    with pytest.raises(ValueError, match="high-level kind"):
        region_preference(weights, subject.rois)


def test_evaluation_scores_latents_and_images_and_its_report_shows_them(networks, study, tmp_path: Path) -> None:
    from neurodecode.fmri import tiny_image_networks

    decoder = fitted(networks, study)
    rows = study["test"]
    images = study["images"].numpy()
    found = evaluate_decoder(
        decoder, study["betas"][rows], images[rows], study["captions"][rows],
        train_images=images[study["train"]], networks=tiny_image_networks(), size=40, n_resamples=200,
        n_permutations=50,
    )  # fmt: skip
    assert set(found.stages) == set(networks)
    low = found.stages["low_level"]
    assert low.mean_r2 > 0.5 > found.stages["text"].mean_r2
    assert np.nanmean(low.cv_r2) == pytest.approx(low.mean_r2, abs=0.25)
    assert found.as_dict()["stages"]["low_level"]["n_targets"] == len(low.alpha)
    made = report(found, title="Tiny", settings={"images": TRAIN}, notes="Not a real brain.")
    save_report(made, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for part in (
        "Not a real brain",
        "Images",
        "nearest training image",
        "R² of each stage",
        "brain-diffuser/issues/16",
    ):
        assert part in text
    assert text.count("<img") + text.count("data:image") >= 4
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(TypeError, match="DecoderEvaluation"):
        report(3)
