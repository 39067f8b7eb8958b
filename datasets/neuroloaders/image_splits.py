"""Splits of studies in which images are looked at: whole images, and whole categories, are on one side."""

# N events, I images

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_fraction, check_int, check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.splits import hash_split

__all__ = ["IMAGE_PARTS", "VALID_BY", "ImageSplit", "split_images"]

IMAGE_PARTS = {
    "train": "images that are learned from",
    "valid": "images that settings and epochs are chosen on",
    "test": "the test images of the study",
    "large": "training images of the study whose category is that of a test image: never learned from, tested on",
}

VALID_BY = {
    "category": "whole categories: validation asks for what the test asks for, an image of a new category",
    "image": "single images, all presentations together, as Benchetrit et al. 2023: their categories are learned from",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSplit:
    """Images, and the part that each belongs to.

    Parameters
    ----------
    image : ndarray of str, shape (I,)
        Sorted names.
    part : ndarray of str, shape (I,)
        Keys of `IMAGE_PARTS`.
    """

    image: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        counts = ", ".join(f"{int((self.part == part).sum())} {part}" for part in IMAGE_PARTS)
        return f"ImageSplit({len(self)} images: {counts})"

    def parts_of(self, events: EventTable) -> np.ndarray:
        """Return the part of each event, shape (N,); '' for images that are not in the split."""
        place = np.minimum(np.searchsorted(self.image, events.stimulus), len(self) - 1)
        return np.where(self.image[place] == events.stimulus, self.part[place], "")

    def select(self, events: EventTable, part: str) -> EventTable:
        """Return the events of one part, in their order."""
        check_option("part", part, IMAGE_PARTS)
        return events.select(np.flatnonzero(self.parts_of(events) == part))

    def images(self, part: str) -> np.ndarray:
        """Return the names of the images of one part, sorted."""
        return self.image[self.part == check_option("part", part, IMAGE_PARTS)]


def split_images(
    events: EventTable, test: Iterable[str], *, valid: float = 0.2, seed: int = 0, valid_by: str = "category"
) -> ImageSplit:
    """Divide the images of a study whose test images are given.

    Parameters
    ----------
    events : EventTable
        One row a presentation: the image as stimulus, its category as split_group.
    test : iterable of str
        The study's own test images.
    valid : float
        Expected share of the other images, in (0, 1).
    seed : int
        Names the choice of validation images, which does not depend on the order of events.
    valid_by : str
        A key of `VALID_BY`.

    Returns
    -------
    ImageSplit
        Images of a category that a test image has are never in "train" or "valid": they are the part "large" [1]_.

    Raises
    ------
    ValueError
        If a test image is never shown, an image has two categories, or a part is empty.

    Notes
    -----
    In THINGS-MEG, where 1854 categories have 12 images each and 200 test images are of 200 categories, 22 248 images
    become 19 848 to learn from and 2400 of the large test set, as in [1]_.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """
    check_fraction("valid", valid)
    check_int("seed", seed, at_least=0)
    check_option("valid_by", valid_by, VALID_BY)
    image, first, place = np.unique(events.stimulus, return_index=True, return_inverse=True)
    category = events.split_group[first]
    differs = np.flatnonzero(events.split_group != category[place])
    if len(differs):
        name = str(events.stimulus[differs[0]])
        raise invalid("events", "have one category, the split_group, for each image", f"several for {name!r}")
    test = np.unique(np.array([str(name) for name in test]))
    missing = np.setdiff1d(test, image)
    if len(missing):
        raise invalid("test", "be images of the events", f"{str(missing[0])!r}, which is never shown")
    part = np.full(len(image), "train", dtype="<U5")
    is_test = np.isin(image, test)
    part[np.isin(category, category[is_test])] = "large"
    part[is_test] = "test"
    free = part == "train"
    keys = category[free] if valid_by == "category" else image[free]
    names, which = np.unique(keys, return_inverse=True)
    parts = np.asarray(hash_split(names.tolist(), valid=valid, test=0.0, seed=seed))
    part[free] = parts[which]
    for name in ("train", "valid", "test"):
        if not (part == name).any():
            advice = "Choose another share or seed." if name != "test" else "Name the test images."
            raise invalid("events", f"leave an image in the part {name!r}", "none", advice)
    return ImageSplit(image=image, part=part)
