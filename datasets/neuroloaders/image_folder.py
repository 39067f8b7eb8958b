"""Photographs in one folder per class, decoded once into a memory map of equal-sized images."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroloaders.cache import Allocate, cached_arrays, source_identity
from neuroloaders.checks import check_int, corrupt_file, invalid

__all__ = ["IMAGE_SUFFIXES", "ImageFolderConfig", "class_folders", "read_image_folder"]

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
_PORTION = 1024  # images decoded before they are counted


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig:
    """How photographs become equal-sized images.

    Parameters
    ----------
    size : int
        Height and width of the square that is cut from the middle, in pixels.
    resize : int, optional
        Length of the shorter side before cutting, in pixels; by default ``size * 256 / 224``, rounded: 256
        for the usual 224.
    version : int
        Of the code that decodes; part of the cache's key.
    """

    size: int = 224
    resize: int | None = None
    version: int = 1

    def __post_init__(self) -> None:
        check_int("size", self.size, at_least=1)
        if self.resize is None:
            object.__setattr__(self, "resize", round(self.size * 256 / 224))
        advice = "The square is cut from the resized photograph."
        check_int("resize", self.resize, at_least=self.size, advice=advice)


def class_folders(folder: str | os.PathLike) -> tuple[str, ...]:
    """Return the names of the class folders in `folder`, sorted; their places are the labels."""
    names = tuple(sorted(path.name for path in Path(folder).iterdir() if path.is_dir()))
    if not names:
        raise invalid("folder", "hold one folder for each class", f"none in {os.fspath(folder)!r}")
    return names


def read_image_folder(
    folder: str | os.PathLike,
    config: ImageFolderConfig | None = None,
    *,
    classes: tuple[str, ...] | None = None,
    cache_dir: str | os.PathLike | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read ``folder/class/*.JPEG``: decode, resize, cut the middle; the first time, then from the cache.

    Parameters
    ----------
    folder : path-like
        Holds one folder for each class.
    config : ImageFolderConfig, optional
        Sizes.
    classes : tuple of str, optional
        The class folders in the order of their labels; by default all, sorted. Pass the training set's when
        reading the test set.
    cache_dir : path-like, optional
        Where the decoded images are stored: ``3 * size**2`` bytes each.
    workers : int, optional
        Threads that decode; by default as many as there are processors.

    Returns
    -------
    images : ndarray of uint8, shape (n, 3, size, size)
        A memory map.
    labels : ndarray of int64, shape (n,)
        Sorted by class, then by file name.
    counts : ndarray of int64, shape (3, 256)
        How often each value occurs in each channel, for `statistics_of_counts`: counted while decoding, as a
        later pass would read everything once more.

    Raises
    ------
    ValueError
        If a class folder is missing or there, but unknown; if there is no image; if one cannot be decoded.

    Notes
    -----
    The shorter side is resized with Pillow's bilinear filter, which averages over the source pixels when
    shrinking, as torchvision's ``Resize`` and ``CenterCrop`` do with a Pillow image. Grey and CMYK files are
    converted to RGB.
    """
    config = config or ImageFolderConfig()
    folder, found = Path(folder), class_folders(folder)
    classes = found if classes is None else tuple(classes)
    if unlike := sorted(set(found) ^ set(classes)):
        advice = "Train and test need the same classes, or labels would mean different things."
        raise invalid("classes", "be the class folders", f"a difference at {unlike[0]!r} in {folder}", advice)
    files, labels = _list_images(folder, classes)
    workers = check_int("workers", os.cpu_count() or 1 if workers is None else workers, at_least=1)

    def build(allocate: Allocate) -> None:
        images = allocate("images", (len(files), 3, config.size, config.size), np.uint8)
        counts = allocate("counts", (3, 256), np.int64)
        allocate("labels", (len(files),), np.int64)[:] = labels

        def decode_into(row: int) -> None:
            images[row] = _decode(files[row], config)

        with ThreadPoolExecutor(workers) as pool:
            # In portions: a million waiting tasks would take a gigabyte.
            for first in range(0, len(files), _PORTION):
                last = min(first + _PORTION, len(files))
                list(pool.map(decode_into, range(first, last)))
                for channel in range(3):
                    counts[channel] += np.bincount(images[first:last, channel].reshape(-1), minlength=256)

    source = {**source_identity(folder), "classes": classes}
    arrays = cached_arrays(config, source, build, folder=cache_dir)
    return arrays["images"], np.array(arrays["labels"]), np.array(arrays["counts"])


def _list_images(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    files, labels = [], []
    for label, name in enumerate(classes):
        images = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        files += images
        labels += [label] * len(images)
    if not files:
        raise invalid("folder", f"hold images ({', '.join(IMAGE_SUFFIXES)})", f"none in {os.fspath(folder)!r}")
    return files, np.array(labels, dtype=np.int64)


def _decode(path: Path, config: ImageFolderConfig) -> np.ndarray:
    """Return one image as uint8 (3, size, size)."""
    from PIL import Image

    try:
        with Image.open(path) as photograph:
            width, height = photograph.size
            short = min(width, height)
            new = (int(config.resize * width / short), int(config.resize * height / short))
            resized = photograph.convert("RGB").resize(new, Image.Resampling.BILINEAR)
    except OSError as error:  # also what Pillow raises for an unknown or truncated image
        raise corrupt_file(path, str(error), "Remove or replace the image.") from error
    left, top = round((new[0] - config.size) / 2), round((new[1] - config.size) / 2)
    square = resized.crop((left, top, left + config.size, top + config.size))
    return np.asarray(square).transpose(2, 0, 1)
