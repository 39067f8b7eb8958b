"""What a decoder of images is trained and tested on: responses to images, averaged over repeats, and the images."""

# n training images, t test images

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroloaders.betas import BetaSet
from neuroloaders.checks import check_int, check_same_length, invalid
from neuroloaders.fmri_splits import StimulusSplit

__all__ = ["ImagePart", "ImageStudy", "image_study"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ImagePart:
    """Responses to some images, and what they show, in one order.

    Parameters
    ----------
    betas : BetaSet
        A row an image.
    images : array, shape (n, 3, H, W)
        Bytes, or floating point in [0, 1].
    captions : list of list of str, or None
        What is on each.
    """

    betas: BetaSet
    images: Any
    captions: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        check_same_length(betas=self.betas, images=self.images)
        if self.captions is not None:
            check_same_length(betas=self.betas, captions=self.captions)

    def __len__(self) -> int:
        return len(self.betas)

    def first(self, n: int | None) -> ImagePart:
        """Return the first `n` images and their responses; None: all."""
        if n is None or check_int("n", n, at_least=1) >= len(self):
            return self
        captions = None if self.captions is None else self.captions[:n]
        return ImagePart(betas=self.betas.select(np.arange(n)), images=self.images[:n], captions=captions)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageStudy:
    """One subject's responses to images, in two parts that share none.

    Parameters
    ----------
    train, test : ImagePart
        The parts.
    name : str
        Study and subject.
    truth : object, optional
        What was planted, of a simulated subject.
    """

    train: ImagePart
    test: ImagePart
    name: str
    truth: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        both = np.intersect1d(self.train.betas.stimuli, self.test.betas.stimuli)
        if len(both):
            raise invalid("test", "share no image with train", f"{len(both)}, the first {both[0]!r}")

    @property
    def rois(self) -> Mapping[str, np.ndarray]:
        """Regions, over the voxels of the responses."""
        return self.train.betas.rois


def image_study(
    study: Any,
    subject: str,
    *,
    roi: Any = "nsdgeneral",
    split: StimulusSplit | None = None,
    sessions: Iterable[int] | None = None,
    progress: bool = False,
) -> ImageStudy:
    """Read a subject of a study of images.

    Parameters
    ----------
    study : NSDStudy or ThingsFMRIStudy
        From `neuroloaders.open_study`.
    subject : str
        One of ``study.subjects``.
    roi : str or array
        Voxels, as ``study.betas`` takes them.
    split : StimulusSplit, optional
        Which images are for training and for the test; by default the published split. Its part for validation is left
        out.
    sessions : iterable of int, optional
        As ``study.betas`` takes them.
    progress : bool
        Show a progress bar while responses are read.

    Returns
    -------
    ImageStudy
        Responses averaged over repeats, without voxels that are constant or NaN.
    """
    extra = {} if sessions is None else {"sessions": tuple(sessions)}
    betas = study.betas(subject, roi, progress=progress, **extra)
    split = study.split(subject, **extra) if split is None else split
    averaged = betas.drop_bad_voxels().average()
    parts = {}
    for name in ("train", "test"):
        rows = np.flatnonzero(np.isin(averaged.stimuli, getattr(split, name)))
        if len(rows) == 0:
            raise invalid("split", f"hold images for {name} that were shown", "none")
        part = averaged.select(rows)
        parts[name] = ImagePart(
            betas=part, images=_channels_second(study.images(part.stimuli)), captions=study.captions(part.stimuli)
        )
    return ImageStudy(**parts, name=f"{study.name}, {subject}")


def _channels_second(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2) if images.shape[-1] == 3 else images
