"""Images as networks take them: checked, floating point in [0, 1], square, without a second rescaling."""

# B batch, H height, W width

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neuroloaders.checks import check_option, check_shape, invalid

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "FITS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "as_floats",
    "check_images",
    "image_digest",
    "image_seed",
    "square",
    "standardised",
]

# Means and standard deviations of ImageNet's channels, with which VGG and DINO were trained (torchvision, DINO).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Those that CLIP was trained with (Radford et al. 2021, released code).
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# How an image that is no square becomes one.
FITS = {
    "crop": "the shorter side is resized, the middle is cut out",
    "squash": "both sides are resized, the proportions change",
}


def check_images(name: str, images: Any) -> Tensor:
    """Return images as a tensor if they are (B, 3, H, W), bytes or floating point in [0, 1].

    Parameters
    ----------
    name : str
        The argument's name.
    images : tensor or array
        What came.

    Raises
    ------
    TypeError, ValueError
        If type, shape or range are others.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images if images.flags.writeable else images.copy())
    if not isinstance(images, Tensor):
        raise invalid(name, "be a tensor of shape (B, 3, H, W)", images, kind=TypeError)
    last = images.ndim == 4 and images.shape[-1] == 3 and images.shape[1] != 3
    advice = "Channels come second: x.permute(0, 3, 1, 2)." if last else "Grey images: repeat the channel three times."
    check_shape(name, images, ("B", 3, "H", "W"), advice=advice)
    if 0 in images.shape:
        raise invalid(name, "hold at least one pixel", images)
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise invalid(name, "be bytes (uint8) or floating point in [0, 1]", images, kind=TypeError)
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        advice = "Divide by 255 or pass uint8." if high > 2 else "From [-1, 1]: (x + 1) / 2; else clamp, x.clamp(0, 1)."
        raise invalid(name, "lie in [0, 1]", f"{low:g}..{high:g}", advice)
    return images


def as_floats(images: Tensor) -> Tensor:
    """Return checked images as float32 in [0, 1]: bytes are divided by 255, floating point stays as it is."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def square(images: Tensor, size: int, *, crop: int | None = None, fit: str = "crop", mode: str = "bicubic") -> Tensor:
    """Resize images, averaging over source pixels when shrinking, and cut out the middle.

    Parameters
    ----------
    images : Tensor of floating point, shape (B, 3, H, W)
        In [0, 1].
    size : int
        Pixels of the shorter side after resizing; with ``fit="squash"``, of both.
    crop : int, optional
        Pixels of the square that is cut out; by default `size`.
    fit : {"crop", "squash"}
        A key of `FITS`.
    mode : {"bicubic", "bilinear"}
        The filter.

    Returns
    -------
    Tensor, shape (B, 3, crop, crop)
        In [0, 1]. What was resized is clamped and rounded to whole multiples of 1/255.

    Notes
    -----
    Filters and rounding are those of Pillow, with which networks were trained and references were computed; its
    coefficients are fixed-point numbers, so that a few values differ by 1/255. The middle is that of transformers:
    half of an odd number of pixels is rounded down. Images that have the size already stay as they are.
    """
    check_option("fit", fit, FITS)
    crop = size if crop is None else crop
    height, width = images.shape[-2:]
    if fit == "squash":
        new = (size, size)
    elif height <= width:
        new = (size, max(int(size * width / height), size))
    else:
        new = (max(int(size * height / width), size), size)
    # Rows first, and to bytes after each, as Pillow does.
    for sizes in ((height, new[1]), new):
        if sizes != tuple(images.shape[-2:]):
            resized = functional.interpolate(images, sizes, mode=mode, align_corners=False, antialias=True)
            images = (resized.clamp(0, 1) * 255).round() / 255
    top, left = (new[0] - crop) // 2, (new[1] - crop) // 2
    return images[..., top : top + crop, left : left + crop]


def standardised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images with the mean of each channel subtracted, divided by its standard deviation."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (mean, std))
    return (pixels - mean) / std


def image_digest(image: Any) -> bytes:
    """Return the hash of what an image shows, 32 bytes: the same for bytes and for these bytes divided by 255.

    Parameters
    ----------
    image : tensor or array of shape (3, H, W)
        Bytes, or floating point in [0, 1].
    """
    array = np.asarray(image.detach().cpu() if isinstance(image, Tensor) else image)
    if array.dtype != np.uint8:
        floats = array.astype(np.float32)
        array = np.rint(floats * 255).astype(np.uint8)
        if not np.array_equal(array.astype(np.float32) / np.float32(255), floats):
            array = floats
    head = f"image {array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()


def image_seed(image: Any, seed: int) -> int:
    """Return a seed for what is drawn for an image, from what it shows and from the user's `seed`.

    A drawn latent then depends neither on the batch nor on the order, and an image that comes twice has it twice.
    """
    digest = hashlib.sha256(f"seed {seed} ".encode() + image_digest(image)).digest()
    return int.from_bytes(digest[:8], "little") >> 1
