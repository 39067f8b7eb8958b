"""What would retrieval reach? For each reconstruction, the training image that is nearest to it."""

# n test images, m training images

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.fmri.image_metrics import ImageMetrics, image_metrics
from neurodecode.fmri.image_networks import ImageNetworks
from neurodecode.fmri.image_pixels import as_bytes, check_images
from neurodecode.scoring.similarity import prepared
from neuroloaders.checks import check_option, check_same_length, invalid

__all__ = ["NEAREST_TO", "NearestImages", "nearest_training_image"]

# Which images the training images are compared with -> how to choose them from (real, made).
NEAREST_TO: dict[str, Callable[[Any, Any], Any]] = {
    "made": lambda real, made: made,
    "real": lambda real, made: real,
}


# Networks run in float32: copies of an image get features that differ in the last bits if batches differ.
_ALIKE = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class NearestImages:
    """Training images in place of reconstructions.

    Parameters
    ----------
    index : ndarray of int64, shape (n_images,)
        Number of the training image that stands for each test image.
    correlation : ndarray of float64, shape (n_images,)
        Correlation of its features with those that it was chosen by.
    metrics : ImageMetrics
        Scores of these training images as if they were reconstructions.
    """

    index: np.ndarray
    correlation: np.ndarray
    metrics: ImageMetrics


def nearest_training_image(
    real: Any,
    made: Any,
    train: Any,
    *,
    networks: ImageNetworks,
    layer: str = "clip",
    nearest_to: str = "made",
    ssim: str = "2d",
    size: int | None = 425,
    categories: Any = None,
    batch_size: int = 32,
    n_resamples: int = 10_000,
    n_permutations: int = 1000,
    rng: np.random.Generator | None = None,
    progress: bool = False,
) -> NearestImages:
    """Score the training images that are nearest to the reconstructions.

    Parameters
    ----------
    real : array, tensor or memory map, shape (n_images, 3, H, W)
        The images that were seen.
    made : array, tensor or memory map, shape (n_images, 3, h, w)
        Their reconstructions.
    train : array, tensor or memory map, shape (n_train, 3, H, W)
        Training images; read a batch at a time.
    networks : ImageNetworks
        They give the features of `layer`, and the metrics.
    layer : str
        In whose features the nearest image is sought, by correlation.
    nearest_to : {"made", "real"}
        "made": what the decoder would get by retrieval. "real": what perfect retrieval from these training images
        could reach, an upper bound that looks at the answer.
    ssim, size, categories, batch_size, n_resamples, n_permutations, rng, progress
        As for `neurodecode.fmri.image_metrics.image_metrics`.

    Returns
    -------
    NearestImages
        Which images, and their metrics. A decoder that scores no better reconstructs nothing that is not in its
        training images.

    Notes
    -----
    Shirakawa et al. 2024 [1]_ show that test images of NSD have near twins among its training images, so that scores
    that look like reconstruction can come from picking one. Of images that are equally near, to 1e-6, the first is
    taken.

    References
    ----------
    .. [1] Shirakawa et al., Spurious reconstruction from brain activity, arXiv:2405.10078 (2024).
    """
    check_option("nearest_to", nearest_to, NEAREST_TO)
    for name, images in (("real", real), ("made", made), ("train", train)):
        check_images(name, images)
    check_same_length(real=real, made=made)
    if not isinstance(networks, ImageNetworks):
        raise invalid("networks", "come from load_image_networks or tiny_image_networks", networks, kind=TypeError)
    check_option("layer", layer, networks.layers)
    wanted = NEAREST_TO[nearest_to](real, made)
    index, correlation = _nearest(wanted, train, nearest_to, networks, layer, batch_size, progress)
    chosen = np.stack([as_bytes("train", train[int(k) : int(k) + 1])[0] for k in index])
    metrics = image_metrics(
        real,
        chosen,
        networks=networks,
        ssim=ssim,
        size=size,
        categories=categories,
        n_resamples=n_resamples,
        n_permutations=n_permutations,
        batch_size=batch_size,
        rng=rng,
        progress=progress,
    )
    return NearestImages(index=index, correlation=correlation, metrics=metrics)


def _nearest(
    wanted: Any, train: Any, name: str, networks: ImageNetworks, layer: str, batch_size: int, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest training image of each image, in one pass over the training images."""
    own: list[Tensor] = [
        found[layer] for _, found in networks.batches(wanted, [layer], name=name, batch_size=batch_size)
    ]
    features = torch.cat(own)
    queries, _ = prepared(name, features, slice(0, len(features)), "correlation", features)
    best = queries.new_full((len(queries),), -np.inf)
    index = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for part, found in networks.batches(train, [layer], name="train", batch_size=batch_size, progress=progress):
        rows, _ = prepared("train", found[layer], slice(0, part.stop - part.start), "correlation", features)
        scores = queries @ rows.T
        top = scores.amax(dim=1, keepdim=True)
        place = (scores >= top - _ALIKE).int().argmax(dim=1)
        value = scores.gather(1, place[:, None])[:, 0]
        better = value > best + _ALIKE
        best, index = torch.where(better, value, best), torch.where(better, place + part.start, index)
    return index.cpu().numpy(), best.cpu().numpy()
