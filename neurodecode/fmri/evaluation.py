"""How good a decoder of images is, stage by stage, and what a mere choice of training images reaches."""

# t test images, m targets

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.fmri.brain_diffuser import BrainDiffuser, Reconstruction
from neurodecode.fmri.image_baseline import NearestImages, nearest_training_image
from neurodecode.fmri.image_metrics import ImageMetrics, image_metrics
from neurodecode.fmri.image_networks import ImageNetworks
from neurodecode.scoring import score_targets
from neuroloaders.checks import check_same_length

__all__ = ["REFERENCE_R2", "DecoderEvaluation", "Reference", "StageScores", "evaluate_decoder"]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A number that others got for a stage, to see whether one's own is of that order.

    Parameters
    ----------
    r2 : float
        Mean R2 over targets, around the mean of the test set.
    what : str
        Of which targets and data.
    source : str
        Where it was read.
    """

    r2: float
    what: str
    source: str


# Kind of latent -> what others report. Nobody has published these numbers for all stages.
REFERENCE_R2: dict[str, Reference] = {
    "text": Reference(
        r2=0.14,
        what="the last of the 77 tokens, NSD, by the released scripts",
        source="two users of the reference code, github.com/ozcelikfu/brain-diffuser/issues/16",
    ),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class StageScores:
    """How well the latents of one kind are predicted, before predictions are standardised.

    Parameters
    ----------
    r2 : ndarray of float64, shape (m,)
        On test images, around the mean of the test images; NaN for targets that do not vary there.
    r2_train_mean : ndarray of float64, shape (m,)
        Around the mean of the training images: what guessing without brain data gets scores 0.
    cv_r2 : ndarray of float64, shape (m,), or None
        Cross-validated on training images, at the alpha that was chosen; None where alphas were given.
    alpha : ndarray of float64, shape (m,)
        The penalty of each target.
    edge_share : float or None
        Share of targets whose alpha is the smallest or largest of the grid.
    reference : Reference or None
        What others report.
    """

    r2: np.ndarray
    r2_train_mean: np.ndarray
    cv_r2: np.ndarray | None
    alpha: np.ndarray
    edge_share: float | None
    reference: Reference | None

    @property
    def mean_r2(self) -> float:
        """Mean over targets that vary on the test images."""
        return float(np.nanmean(self.r2))

    def as_dict(self) -> dict[str, Any]:
        """Return a summary as JSON holds it."""
        return {
            "mean_r2": self.mean_r2,
            "mean_r2_train_mean": float(np.nanmean(self.r2_train_mean)),
            "mean_cv_r2": None if self.cv_r2 is None else float(np.nanmean(self.cv_r2)),
            "quartiles_r2": np.nanquantile(self.r2, [0.25, 0.5, 0.75]).tolist(),
            "quartiles_alpha": np.quantile(self.alpha, [0.25, 0.5, 0.75]).tolist(),
            "edge_share": self.edge_share,
            "n_targets": len(self.alpha),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class DecoderEvaluation:
    """What `evaluate_decoder` found; `neurodecode.report` draws it.

    Parameters
    ----------
    seen : array, shape (t, 3, H, W)
        The test images.
    reconstruction : Reconstruction
        What was decoded.
    metrics : ImageMetrics
        Of the images.
    first_guess : ImageMetrics or None
        Of the first guesses, where images are not these themselves.
    nearest : NearestImages or None
        Training images in place of reconstructions.
    nearest_images : array or None
        These images.
    stages : dict of str to StageScores
        For each kind of latent.
    """

    seen: Any
    reconstruction: Reconstruction
    metrics: ImageMetrics
    first_guess: ImageMetrics | None
    nearest: NearestImages | None
    nearest_images: Any
    stages: dict[str, StageScores]

    def as_dict(self) -> dict[str, Any]:
        """Return scores and intervals as JSON holds them; no images."""
        return {
            "metrics": self.metrics.as_dict(),
            "first_guess": None if self.first_guess is None else self.first_guess.as_dict(),
            "nearest": None if self.nearest is None else self.nearest.metrics.as_dict(),
            "stages": {kind: stage.as_dict() for kind, stage in self.stages.items()},
        }


def evaluate_decoder(
    decoder: BrainDiffuser,
    betas: Any,
    images: Any,
    captions: Sequence[Sequence[str]] | None = None,
    *,
    train_images: Any = None,
    networks: ImageNetworks | None = None,
    ssim: str = "2d",
    size: int | None = 425,
    categories: Any = None,
    seed: int = 0,
    settings: Any = None,
    n_resamples: int = 10_000,
    n_permutations: int = 1000,
    rng: np.random.Generator | None = None,
) -> DecoderEvaluation:
    """Decode the responses to test images, and score latents and images.

    Parameters
    ----------
    decoder : BrainDiffuser
        Fitted on other images.
    betas : array of shape (t, n_voxels), or BetaSet
        Responses to the test images, averaged over repeats.
    images : array, shape (t, 3, H, W)
        The test images, each once, in the same order.
    captions : sequence of t sequences of str, optional
        As for `BrainDiffuser.fit`.
    train_images : array, shape (n, 3, H, W), optional
        With `networks`: the training images nearest to the reconstructions are scored as if they were
        reconstructions.
    networks : ImageNetworks, optional
        For the metrics of features. Without, PixCorr and SSIM alone.
    ssim, size, categories, n_resamples, n_permutations, rng
        As for `image_metrics`.
    seed, settings
        As for `BrainDiffuser.generate`.

    Returns
    -------
    DecoderEvaluation
    """
    truth = decoder.targets(images, captions)
    check_same_length(betas=getattr(betas, "betas", betas), images=truth)
    stages = _stages(decoder, betas, truth)
    found = decoder.reconstruct(betas, seed=seed, settings=settings)
    rng = np.random.default_rng(0) if rng is None else rng
    options = {
        "ssim": ssim, "size": size, "categories": categories, "n_resamples": n_resamples,
        "n_permutations": n_permutations, "rng": rng, "progress": decoder.progress,
    }  # fmt: skip
    metrics = image_metrics(images, found.images, networks=networks, **options)
    guess = nearest = chosen = None
    if found.first_guess is not None and found.first_guess is not found.images:
        guess = image_metrics(images, found.first_guess, networks=networks, **options)
    if train_images is not None and networks is not None:
        nearest = nearest_training_image(images, found.images, train_images, networks=networks, **options)
        chosen = np.stack([np.asarray(train_images[int(k)]) for k in nearest.index])
    return DecoderEvaluation(
        seen=images,
        reconstruction=found,
        metrics=metrics,
        first_guess=guess,
        nearest=nearest,
        nearest_images=chosen,
        stages=stages,
    )


def _stages(decoder: BrainDiffuser, betas: Any, truth: Any) -> dict[str, StageScores]:
    model, layout = decoder.ridge_, decoder.layout_
    ridge = model.ridge_
    # Shrunk as they are: the full spread of standardised predictions costs R2.
    raw = np.asarray(ridge.predict(decoder.scaler_.transform(betas)))
    mean, spread = model.scaler_.target_mean_, model.scaler_.target_std_
    chosen = _chosen_errors(ridge)
    edge = None if ridge.alpha is not None else np.isin(ridge.alpha_, (min(ridge.alphas), max(ridge.alphas)))
    stages = {}
    for kind, where in layout.columns.items():
        scores = score_targets(truth[:, where], raw[:, where], train_mean=mean[where])
        cv_r2 = None
        if chosen is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                cv_r2 = 1 - chosen[where] / np.where(spread[where] > 0, spread[where] ** 2, np.nan)
        stages[kind] = StageScores(
            r2=scores.r2,
            r2_train_mean=scores.r2_train_mean,
            cv_r2=cv_r2,
            alpha=np.asarray(ridge.alpha_)[where],
            edge_share=None if edge is None else float(edge[where].mean()),
            reference=REFERENCE_R2.get(kind),
        )
    return stages


def _chosen_errors(ridge: Any) -> np.ndarray | None:
    """Return the cross-validated mean squared error of each target at its alpha."""
    if ridge.alpha is not None or not hasattr(ridge, "cv_mse_"):
        return None
    place = np.abs(np.asarray(ridge.alphas, dtype=float)[:, None] - np.asarray(ridge.alpha_)[None]).argmin(axis=0)
    return np.take_along_axis(np.asarray(ridge.cv_mse_), place[None], axis=0)[0]
