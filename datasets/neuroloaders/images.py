"""Image data sets as whole tensors of bytes, with the statistics of their training images.

N images, C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuroloaders.cache import cache_folder
from neuroloaders.checks import check_option, check_same_length, check_shape, corrupt_file, invalid
from neuroloaders.fetch import fetch
from neuroloaders.image_files import read_cifar_binary, read_class_names, read_mnist
from neuroloaders.image_folder import ImageFolderConfig, class_folders, read_image_folder
from neuroloaders.registry import DatasetEntry
from neuroloaders.splits import SPLITS, stratified_holdout

__all__ = ["IMAGE_SETS", "ImageSet", "channel_statistics", "load_images", "statistics_of_counts"]

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


Arrays = tuple[np.ndarray, np.ndarray]  # images, labels
Parts = tuple[Arrays, Arrays, tuple[str, ...]]  # training set, test set, class names


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSet:
    """Images, labels and what is needed to read them.

    Parameters
    ----------
    images : Tensor of uint8, shape (N, C, H, W)
        As stored; may be over a memory map.
    labels : Tensor of int64, shape (N,)
        Places in `classes`.
    classes : tuple of str
        Class names.
    name : str
        The data set.
    split : str
        A key of `neuroloaders.splits.SPLITS`.
    mean, std : tuple of float, length C
        Mean and standard deviation of each channel of the *training* images, with pixels in [0, 1]. Sets that
        belong together carry the same: those of the images that are trained on.
    provenance : str
        Where the images come from.

    Raises
    ------
    TypeError, ValueError
        If shapes, types or labels do not fit.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        check_shape("images", self.images, ("N", "C", "H", "W"))
        check_shape("labels", self.labels, ("N",))
        check_same_length(images=self.images, labels=self.labels)
        check_option("split", self.split, SPLITS)
        for name, tensor, dtype in (
            ("images", self.images, torch.uint8),
            ("labels", self.labels, torch.int64),
        ):
            if tensor.dtype != dtype:
                raise invalid(name, f"have dtype {dtype}", tensor, kind=TypeError)
        if len(self.labels) == 0:
            raise invalid("images", "hold at least one image", self.images)
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise invalid("labels", f"lie in 0..{len(self.classes) - 1}, one for each class", f"{low}..{high}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.images.shape[1]:
                raise invalid(name, f"have one value for each of {self.images.shape[1]} channels", f"{values}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape))
        return f"ImageSet({self.name} {self.split}: {shape} uint8, {len(self.classes)} classes)"

    def holdout(self, fraction: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Carve a validation set out of this training set, every class in proportion.

        Parameters
        ----------
        fraction : float
            Share of the images to hold out, in (0, 1).
        seed : int
            Names the choice; see `stratified_holdout`.

        Returns
        -------
        train, valid : ImageSet
            Copies of the images. Both carry the mean and standard deviation of the *remaining* training
            images: the held-out ones are as unknown as a test set's.

        Raises
        ------
        ValueError
            If this is no training set: a test set is not for choosing.
        """
        if self.split != "train":
            raise invalid("split", "be 'train' to hold out images from", repr(self.split))
        rows = stratified_holdout(self.labels, fraction=fraction, seed=seed)
        train_rows, valid_rows = map(torch.from_numpy, rows)
        images = self.images.index_select(0, train_rows)
        mean, std = channel_statistics(images)
        same = {
            "classes": self.classes,
            "name": self.name,
            "mean": mean,
            "std": std,
            "provenance": self.provenance,
        }
        train = ImageSet(images=images, labels=self.labels[train_rows], split="train", **same)
        held = self.images.index_select(0, valid_rows)
        return train, ImageSet(images=held, labels=self.labels[valid_rows], split="valid", **same)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, pixels scaled to [0, 1].

    Parameters
    ----------
    images : Tensor of uint8, shape (N, C, H, W)

    Returns
    -------
    mean, std : tuple of float, length C
        Over all images and pixels, in float64 from exact counts of the 256 values; `std` divides by the
        number of pixels.
    """
    check_shape("images", images, ("N", "C", "H", "W"))
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for portion in images.split(4096):
        for channel in range(images.shape[1]):
            counts[channel] += torch.bincount(portion[:, channel].reshape(-1), minlength=256).cpu()
    return statistics_of_counts(counts)


def statistics_of_counts(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of pixels in [0, 1] from how often each value 0..255 occurs.

    Parameters
    ----------
    counts : Tensor of int64, shape (C, 256)

    Returns
    -------
    mean, std : tuple of float, length C
    """
    check_shape("counts", counts, ("C", 256))
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())


def load_images(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    size: int | None = None,
    offline: bool | None = None,
    progress: bool = True,
    registry: Mapping[str, DatasetEntry] | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Load a data set of images: the official training and test set.

    Parameters
    ----------
    name : str
        A key of `IMAGE_SETS`.
    data_dir, offline, progress, registry
        As for `neuroloaders.fetch`, which finds or downloads the files.
    size : int, optional
        For 'imagenet': height and width in pixels, 224 by default. The other sets have one size.

    Returns
    -------
    train, test : ImageSet
        Both with mean and standard deviation of the training images. There is no validation set: take
        ``train, valid = train.holdout(0.1)``.

    Raises
    ------
    ValueError
        If `name` is unknown, or a file is damaged.
    OSError
        If the files are not there and cannot be downloaded.
    """
    read = IMAGE_SETS[check_option("name", name, IMAGE_SETS)]
    if size is not None and name != "imagenet":
        raise invalid("size", "be left out", f"{size}", f"The images of {name!r} have one size.")
    folder = fetch(name, data_dir=data_dir, offline=offline, progress=progress, registry=registry)
    if name == "imagenet":
        return _imagenet(folder, size or 224, cache_folder(data_dir))
    train, test, classes = read(folder)
    return pair_of_sets(train, test, classes=classes, name=name, provenance=os.fspath(folder))


def pair_of_sets(
    train: Arrays,
    test: Arrays,
    *,
    classes: tuple[str, ...],
    name: str,
    provenance: str,
    counts: np.ndarray | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Make two image sets of (images, labels) arrays; both carry the statistics of the training images.

    `counts` are those of the training images, as for `statistics_of_counts`; by default they are counted.
    """
    tensors = [torch.from_numpy(array) for array in (*train, *test)]
    known = counts is not None
    mean, std = statistics_of_counts(torch.from_numpy(counts)) if known else channel_statistics(tensors[0])
    same = {"classes": classes, "name": name, "mean": mean, "std": std, "provenance": provenance}
    return (
        ImageSet(images=tensors[0], labels=tensors[1], split="train", **same),
        ImageSet(images=tensors[2], labels=tensors[3], split="test", **same),
    )


def _mnist(folder: Path) -> Parts:
    return *read_mnist(folder), _DIGITS


def _fashion_mnist(folder: Path) -> Parts:
    return *read_mnist(folder), _CLOTHES


def _cifar10(folder: Path) -> Parts:
    folder = folder / "cifar-10-batches-bin"
    train = read_cifar_binary([folder / f"data_batch_{i}.bin" for i in range(1, 6)], n_label_bytes=1)
    test = read_cifar_binary([folder / "test_batch.bin"], n_label_bytes=1)
    return train, test, _names(folder / "batches.meta.txt", 10)


def _cifar100(folder: Path) -> Parts:
    folder = folder / "cifar-100-binary"
    train, test = (read_cifar_binary([folder / f"{part}.bin"], n_label_bytes=2) for part in ("train", "test"))
    return train, test, _names(folder / "fine_label_names.txt", 100)


def _imagenet(folder: Path, size: int, cache_dir: Path) -> tuple[ImageSet, ImageSet]:
    classes, config = class_folders(folder / "train"), ImageFolderConfig(size=size)
    options = {"classes": classes, "cache_dir": cache_dir}
    *train, counts = read_image_folder(folder / "train", config, **options)
    *test, _ = read_image_folder(folder / "val", config, **options)
    source = os.fspath(folder)
    return pair_of_sets(train, test, classes=classes, name="imagenet", provenance=source, counts=counts)


def _names(path: Path, n_classes: int) -> tuple[str, ...]:
    names = read_class_names(path)
    if len(names) != n_classes:
        raise corrupt_file(path, f"it has {len(names)} class names instead of {n_classes}")
    return names


# What reads each data set of one size; 'imagenet' is cut to size first.
IMAGE_SETS: dict[str, Callable[[Path], Parts] | None] = {
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "imagenet": None,
}
