"""A whole image study without a scanner: photographs, a subject with a planted model, small networks that fit them.

To try a pipeline out, and to test it against what is known: where decoding can get at best.
"""

# n images, d planted features

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurodecode.features import VdvaeConfig, VdvaeLatents, extract
from neurodecode.fmri.betas import betas_from_bold
from neurodecode.fmri.image_study import ImagePart, ImageStudy
from neurodecode.fmri.photographs import photographs
from neurodecode.fmri.simulate import ScanDesign, SimulatedSubject, simulate_subject
from neurodecode.fmri.vdvae import VDVAE, VDVAEConfig
from neurodecode.fmri.vdvae_training import VDVAETraining, train_vdvae
from neurodecode.generate import GenerationSettings, TinyTraining, VersatileDiffusion, save_tiny_versatile, train_tiny
from neuroloaders.checkpoints import load_checkpoint, save_checkpoint

__all__ = ["FAKE_SETTINGS", "FakeNetworks", "FakeStudyConfig", "PlantedTruth", "fake_networks", "fake_study"]

# For networks that learned some hundred images: more of the first guess is kept.
FAKE_SETTINGS = GenerationSettings(steps=20, strength=0.4, guidance=2.0)


@dataclass(frozen=True, kw_only=True)
class FakeStudyConfig:
    """A simulated study.

    Parameters
    ----------
    n_images : int
        Photographs, a fifth of them for the test.
    image_size : int
        Their side in pixels.
    n_voxels : int
        Voxels, half of them driven by low-level features.
    n_features : int
        Planted features: as many low-level ones as high-level ones.
    n_repeats : int
        How often each image is shown.
    noise_ceiling : float
        Share of the variance of averaged responses that is signal.
    steps : int
        Of the training of each network.
    seed : int
        Of everything that is drawn.
    """

    n_images: int = 500
    image_size: int = 32
    n_voxels: int = 600
    n_features: int = 24
    n_repeats: int = 2
    noise_ceiling: float = 0.6
    steps: int = 250
    seed: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class FakeNetworks:
    """Small networks in the places of large ones.

    Parameters
    ----------
    vdvae : VdvaeLatents
        A VDVAE that was trained on the training images.
    backend : VersatileDiffusion
        A generator that was.
    """

    vdvae: VdvaeLatents
    backend: VersatileDiffusion

    @property
    def extractors(self) -> dict[str, Any]:
        """What `BrainDiffuser` takes: "low_level", "text", "image"."""
        return {"low_level": self.vdvae, **self.backend.extractors}


@dataclass(frozen=True, eq=False, kw_only=True)
class PlantedTruth:
    """What drives the voxels of a simulated subject.

    Parameters
    ----------
    subject : SimulatedSubject
        Weights, noise, ceilings.
    train, test : ndarray, shape (n, d)
        The planted features of the images.
    """

    subject: SimulatedSubject
    train: np.ndarray
    test: np.ndarray

    def decoder_ceiling(self) -> np.ndarray:
        """Return the R2 of the best linear decoder of each planted feature over the test images, shape (d,)."""
        return self.subject.decoder_ceiling(np.cov(self.test, rowvar=False))


def fake_networks(
    folder: str | os.PathLike[str], images: Any, captions: Any, config: FakeStudyConfig, *, progress: bool = False
) -> FakeNetworks:
    """Train small networks on images, or read those that were trained before.

    Parameters
    ----------
    folder : path-like
        Where they are written, each in the layout of the real one.
    images, captions
        Training images, shape (n, 3, H, W), and their captions.
    config : FakeStudyConfig
        Sizes, steps and seed; they must be those of the networks that are there.
    progress : bool
        Show progress bars.
    """
    folder = Path(folder)
    vdvae = _vdvae(folder / "vdvae", images, config, progress)
    pipeline, weights = folder / "versatile", folder / "trained.safetensors"
    if not (pipeline / "scheduler").is_dir():
        save_tiny_versatile(pipeline, image_size=config.image_size, seed=config.seed)
    backend = VersatileDiffusion.load(pipeline)
    if weights.is_file():
        stored = load_checkpoint(weights)
        for name, module in (("unet", backend.unet), ("vae", backend.vae)):
            own = {key.removeprefix(f"{name}."): v for key, v in stored.tensors.items() if key.startswith(f"{name}.")}
            module.load_state_dict(own)
        backend.vae.register_to_config(scaling_factor=stored.meta["scaling_factor"])
    else:
        stimuli = {"text": captions, "image": images}
        latents = {kind: extract(stimuli[kind], extractor) for kind, extractor in backend.extractors.items()}
        training = TinyTraining(vae_steps=config.steps, unet_steps=config.steps, seed=config.seed)
        train_tiny(backend, images, latents, training, progress=progress)
        modules = (("unet", backend.unet), ("vae", backend.vae))
        tensors = {f"{name}.{key}": value for name, module in modules for key, value in module.state_dict().items()}
        save_checkpoint(weights, tensors, meta={"scaling_factor": backend.vae.config.scaling_factor})
    return FakeNetworks(vdvae=VdvaeLatents(vdvae, VdvaeConfig()), backend=backend)


def _vdvae(folder: Path, images: Any, config: FakeStudyConfig, progress: bool) -> VDVAE:
    if (folder / "model.safetensors").is_file():
        return VDVAE.load(folder)
    training = VDVAETraining(steps=config.steps, batch_size=16, lr=1e-2, rate_weight=0.1, seed=config.seed)
    vdvae, _ = train_vdvae(images, VDVAEConfig.tiny(config.image_size), training, progress=progress)
    vdvae.save(folder)
    return vdvae


def fake_study(
    folder: str | os.PathLike[str], config: FakeStudyConfig | None = None, *, progress: bool = False
) -> tuple[ImageStudy, FakeNetworks]:
    """Simulate a study: from photographs to BOLD, and back to responses.

    Parameters
    ----------
    folder : path-like
        Where networks and features are kept.
    config : FakeStudyConfig, optional
        Its sizes.
    progress : bool
        Show progress bars.

    Returns
    -------
    ImageStudy
        With `PlantedTruth` as its ``truth``.
    FakeNetworks
        Trained on its training images.

    Notes
    -----
    Planted features are the first principal components of VDVAE latents (low-level) and of CLIP embeddings
    (high-level), fitted on training images. The region "early" is driven by the former, "higher" by the latter. The
    subject sees the images in a scanner: responses times the spm HRF, autoregressive noise, drifts; responses are then
    estimated from these runs as from real ones.
    """
    config = FakeStudyConfig() if config is None else config
    folder, rng = Path(folder), np.random.default_rng(config.seed)
    pictures = photographs(config.n_images, rng=rng, size=config.image_size)
    captions = [[caption] for caption in pictures.captions]
    train, test = np.flatnonzero(~pictures.is_test), np.flatnonzero(pictures.is_test)
    own = [captions[k] for k in train]
    networks = fake_networks(folder / "networks", pictures.images[train], own, config, progress=progress)
    planted = _planted(networks, pictures.images, captions, train, config, folder / "features")
    half = planted.shape[1] // 2
    subject = simulate_subject(
        planted,
        rng=rng,
        n_voxels=config.n_voxels,
        n_repeats=config.n_repeats,
        noise_ceiling=config.noise_ceiling,
        regions={"early": range(half), "higher": range(half, planted.shape[1])},
        scan=ScanDesign(n_runs=max(4, config.n_images * config.n_repeats // 125)),
    )
    betas = betas_from_bold(
        subject.bold, subject.events, mask=subject.mask_image, stimulus_column="stimulus", progress=progress,
        name="simulated",
    ).average()  # fmt: skip
    betas = dataclasses.replace(betas, rois=subject.rois)
    place = {int(stimulus): row for row, stimulus in enumerate(betas.stimuli)}
    parts = {}
    for name, rows in (("train", train), ("test", test)):
        some = betas.select(np.array([place[int(row)] for row in rows]))
        parts[name] = ImagePart(betas=some, images=pictures.images[rows], captions=[captions[k] for k in rows])
    truth = PlantedTruth(subject=subject, train=planted[train], test=planted[test])
    return ImageStudy(**parts, name="simulated subject", truth=truth), networks


def _planted(
    networks: FakeNetworks, images: Any, captions: Any, train: np.ndarray, config: FakeStudyConfig, cache: Path
) -> np.ndarray:
    from sklearn.decomposition import PCA

    kinds: dict[str, list[np.ndarray]] = {"low": [], "high": []}
    for kind, extractor in networks.extractors.items():
        found = extract(captions if kind == "text" else images, extractor, cache=cache)
        found = found.reshape(len(found), -1)
        kinds["low" if kind == "low_level" else "high"].append(found / found[train].std())
    out = []
    for parts in kinds.values():
        both = np.concatenate(parts, axis=1)
        pca = PCA(config.n_features // 2, random_state=config.seed).fit(both[train])
        out.append(pca.transform(both) / np.sqrt(pca.explained_variance_[0]))
    return np.concatenate(out, axis=1)
