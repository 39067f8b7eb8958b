"""Low-level agreement of two images: correlation of pixels, and the two things that have been called SSIM."""

# B images, H height, W width

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import is_tensor
from neuroloaders.checks import check_option, check_shape, invalid

__all__ = ["FILTERS", "SSIM_MODES", "as_bytes", "check_images", "pixel_correlation", "resize", "ssim", "to_grey"]

# Weights of R, G, B in the luminance of Rec. 709, as scikit-image's rgb2gray has them.
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
# Wang et al. 2004: window and constants; scikit-image cuts the window at 3.5 sigma.
_SIGMA, _RADIUS, _C1, _C2 = 1.5, 5, 0.01**2, 0.03**2

FILTERS = ("bicubic", "bilinear")


def check_images(name: str, images: Any) -> Any:
    """Return images if they have shape (B, 3, H, W) and are bytes or floating-point numbers.

    Parameters
    ----------
    name : str
        The argument's name.
    images : array, tensor or memory map
        What came.
    """
    check_shape(name, images, ("B", 3, "H", "W"), advice="Colour comes before height: images.transpose(0, 3, 1, 2).")
    if 0 in images.shape:
        raise invalid(name, "hold at least one image", images)
    dtype = str(images.dtype).removeprefix("torch.")
    if dtype != "uint8" and not dtype.startswith(("float", "bfloat")):
        raise invalid(name, "be floating point in [0, 1], or uint8", images, kind=TypeError)
    return images


def as_bytes(name: str, images: Any) -> np.ndarray:
    """Return images as bytes, 0 to 255, as a PNG file would hold them; bytes come back as they are.

    Parameters
    ----------
    name : str
        The argument's name.
    images : array or tensor, shape (B, 3, H, W)
        Floating point in [0, 1], or uint8.

    Raises
    ------
    ValueError
        If values lie outside of [0, 1] or are NaN.
    """
    images = images.detach().cpu().float().numpy() if is_tensor(images) and images.is_floating_point() else images
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        advice = "Clip them to [0, 1]; if they are bytes, pass uint8."
        raise invalid(name, "lie in [0, 1]", f"values from {low:g} to {high:g}", advice)
    return (images * 255 + 0.5).astype(np.uint8)


def resize(images: np.ndarray, size: int | None, kind: str) -> np.ndarray:
    """Return images of size x size pixels, resampled by Pillow, with antialiasing.

    Parameters
    ----------
    images : ndarray of uint8, shape (B, 3, H, W)
        Images.
    size : int or None
        Height and width of the result; None leaves the images as they are.
    kind : {"bicubic", "bilinear"}
        Filter.
    """
    check_option("kind", kind, FILTERS)
    if size is None or images.shape[2:] == (size, size):
        return images
    from PIL import Image

    how = Image.Resampling[kind.upper()]
    out = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for k, image in enumerate(images):
        out[k] = np.asarray(Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize((size, size), how))
    return out.transpose(0, 3, 1, 2)


def to_grey(images: np.ndarray) -> np.ndarray:
    """Return the luminance of bytes, float64 in [0, 1], shape (B, H, W).

    Parameters
    ----------
    images : ndarray of uint8, shape (B, 3, H, W)
        Images.
    """
    return np.einsum("bchw,c->bhw", images, _LUMINANCE / 255)


def pixel_correlation(real: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation over all pixels and colours of each pair of images.

    Parameters
    ----------
    real, made : ndarray, shape (B, 3, H, W)
        Images of the same size.

    Returns
    -------
    ndarray of float64, shape (B,)
        PixCorr; NaN where an image is of one value throughout.
    """
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (real, made))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    length = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(length > 0, length, np.nan)


def _columns(maps: np.ndarray) -> np.ndarray:
    return _smooth(maps, -2)


def _two_d(maps: np.ndarray) -> np.ndarray:
    return _smooth(_smooth(maps, -2), -1)


# What is called SSIM -> function that returns local weighted means of maps (..., H, W), borders cut off.
SSIM_MODES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"columns": _columns, "2d": _two_d}


def ssim(real: np.ndarray, made: np.ndarray, mode: str = "2d") -> np.ndarray:
    """Return the structural similarity of pairs of grey images.

    Parameters
    ----------
    real, made : ndarray, shape (..., H, W)
        Grey images in [0, 1], each at least 11 pixels wide and high.
    mode : {"2d", "columns"}
        "2d": the index of Wang et al. 2004 [1]_, over windows of 11 x 11 pixels with Gaussian weights of 1.5 pixels.
        "columns": the same over 11 pixels of each column alone, averaged over columns. This is what the code of
        Brain-Diffuser [2]_ computes: it passes ``multichannel=True`` to scikit-image 0.17.2, which takes the last axis
        of a grey image, its columns, for colours. Later versions of scikit-image ignore the word and give "2d", so that
        the published numbers of different groups are not all comparable: either may be larger.

    Returns
    -------
    ndarray of float64, shape (...)
        Mean over all windows that lie inside.

    Notes
    -----
    Constants 0.01^2 and 0.03^2 (values span 1); variances divide by the sum of weights, not by one less.

    References
    ----------
    .. [1] Wang, Bovik, Sheikh & Simoncelli, IEEE Transactions on Image Processing 13 (2004),
       doi:10.1109/TIP.2003.819861.
    .. [2] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.

    Examples
    --------
    >>> image = np.random.default_rng(0).uniform(size=(20, 20))
    >>> float(ssim(image, image)), float(ssim(image, 1 - image)) < 0
    (1.0, True)
    """
    check_option("mode", mode, SSIM_MODES)
    real, made = np.asarray(real, dtype=np.float64), np.asarray(made, dtype=np.float64)
    check_shape("made", made, real.shape, advice="Compare images of the same size.")
    least = 2 * _RADIUS + 1
    if real.ndim < 2 or min(real.shape[-2:]) < least:
        raise invalid("real", f"have shape (..., H, W) with H and W of at least {least} pixels", real)
    u, v, uu, vv, uv = (SSIM_MODES[mode](x) for x in (real, made, real * real, made * made, real * made))
    above = (2 * u * v + _C1) * (2 * (uv - u * v) + _C2)
    below = (u * u + v * v + _C1) * (uu - u * u + vv - v * v + _C2)
    return (above / below).mean(axis=(-2, -1))


def _smooth(x: np.ndarray, axis: int) -> np.ndarray:
    """Return Gaussian means along an axis, where the window lies inside."""
    from scipy.ndimage import correlate1d

    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    out = correlate1d(x, weights / weights.sum(), axis=axis)
    return out[(..., slice(_RADIUS, -_RADIUS), *[slice(None)] * (-1 - axis))]
