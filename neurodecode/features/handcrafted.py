"""Features without a network: colour histogram, histograms of gradients, local binary patterns, Fourier spectra."""

# B batch, S side of the square in pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neurodecode.features.base import ImageExtractor, check_config
from neurodecode.features.patterns import PATTERNS, grey, hog, local_binary_patterns
from neurodecode.features.pixels import FITS, as_floats, check_images, square
from neuroloaders.checks import check_int, check_number, check_option, invalid

__all__ = [
    "FFT2D",
    "HOG",
    "LBP",
    "HOGConfig",
    "HistogramConfig",
    "LBPConfig",
    "LogPSD",
    "RGBHistogram",
    "SpectrumConfig",
]

_SPECTRUM_PARTS = {
    "magnitude": "|F|, one plane",
    "complex": "real and imaginary part, two planes",
    "phase": "the angle, in (-pi, pi], one plane",
}


@dataclass(frozen=True, kw_only=True)
class HistogramConfig:
    """Settings of `RGBHistogram`.

    Parameters
    ----------
    bins : int
        Of equal width, from 0 to 1.
    joint : bool
        Count colours, in ``bins**3`` bins, instead of each channel on its own, in ``3 * bins``.
    """

    bins: int = 8
    joint: bool = False

    def __post_init__(self) -> None:
        check_int("bins", self.bins, at_least=1, at_most=64)


class _Handcrafted(ImageExtractor):
    """An extractor without weights. `kind` is its configuration's class."""

    kind: type

    def __init__(self, config: Any = None, *, device: Any = None, batch_size: int = 64) -> None:
        super().__init__(check_config(config, self.kind), None, device=device, batch_size=batch_size)

    def prepare(self, images: Tensor) -> Tensor:
        """Return images in floating point, as a square of the size that was set, if one was."""
        floats = as_floats(images)
        size = getattr(self.config, "size", None)
        return floats if size is None else square(floats, size, fit=self.config.fit)


class RGBHistogram(_Handcrafted):
    """Share of pixels in each bin of red, green and blue.

    Parameters
    ----------
    config : HistogramConfig, optional
        8 bins a channel by default, as in Benchetrit et al. 2023 (arXiv:2310.19812).
    device : str or torch.device, optional
        Where to compute; by default the CPU.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    Bins of each channel sum to one. A value on a border counts to the bin above it, the value 1 to the last, as in
    ``numpy.histogram``. Images keep their size.
    """

    name, kind = "rgb_histogram", HistogramConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        return (self.config.bins**3 if self.config.joint else 3 * self.config.bins,)

    def _prepare_each(self, batch: Sequence[Tensor]) -> list[Tensor]:
        # One at a time: they may be of any size.
        images = [check_images(f"batch[{i}]", image[None])[0] for i, image in enumerate(batch)]
        return [as_floats(image.to(self.device)) for image in images]

    def compute(self, pixels: Any, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        bins = self.config.bins
        features = []
        for image in pixels:
            places = (image * bins).floor().clamp(0, bins - 1).long().flatten(1)
            if self.config.joint:
                codes, n = (places[0] * bins + places[1]) * bins + places[2], bins**3
            else:
                codes, n = (places + torch.arange(3, device=places.device)[:, None] * bins).flatten(), 3 * bins
            features.append(torch.bincount(codes, minlength=n) / places.shape[1])
        return torch.stack(features)


@dataclass(frozen=True, kw_only=True)
class HOGConfig:
    """Settings of `HOG`.

    Parameters
    ----------
    orientations : int
        Bins from 0 to 180 degrees.
    cell : int
        Side of a cell, pixels.
    block : int
        Side of a block, cells.
    size : int
        Images are resized to this square before, in pixels.
    fit : {"crop", "squash"}
        How an image that is no square becomes one.
    """

    orientations: int = 8
    cell: int = 8
    block: int = 2
    size: int = 224
    fit: str = "crop"

    def __post_init__(self) -> None:
        for name in ("orientations", "cell", "block"):
            check_int(name, getattr(self, name), at_least=1)
        check_int("size", self.size, at_least=self.cell * self.block)
        check_option("fit", self.fit, FITS)


class HOG(_Handcrafted):
    """Histograms of oriented gradients of the grey image, see `neurodecode.features.hog`.

    Parameters
    ----------
    config : HOGConfig, optional
        8 orientations, cells of 8 pixels, blocks of 2 by 2 cells by default, as in Benchetrit et al. 2023
        (arXiv:2310.19812), who do not give the size of images.
    device : str or torch.device, optional
        Where to compute; by default the CPU.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.
    """

    name, kind = "hog", HOGConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        config = self.config
        n_blocks = config.size // config.cell - config.block + 1
        return (n_blocks, n_blocks, config.block, config.block, config.orientations)

    def compute(self, pixels: Tensor, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        config = self.config
        return hog(grey(pixels), orientations=config.orientations, cell=config.cell, block=config.block)


@dataclass(frozen=True, kw_only=True)
class LBPConfig:
    """Settings of `LBP`.

    Parameters
    ----------
    points : int
        Points on the circle.
    radius : float
        Of the circle, pixels.
    pattern : {"default", "uniform"}
        A key of `neurodecode.features.PATTERNS`.
    histogram : bool
        Share of pixels that have each code; else the code of each pixel.
    size : int
        Images are resized to this square before, in pixels.
    fit : {"crop", "squash"}
        How an image that is no square becomes one.
    """

    points: int = 8
    radius: float = 1.0
    pattern: str = "uniform"
    histogram: bool = True
    size: int = 224
    fit: str = "crop"

    def __post_init__(self) -> None:
        check_int("points", self.points, at_least=2, at_most=24)
        check_number("radius", self.radius, above=0)
        check_option("pattern", self.pattern, PATTERNS)
        check_int("size", self.size, at_least=1)
        check_option("fit", self.fit, FITS)
        if self.histogram and self.pattern == "default" and self.points > 16:
            raise invalid("points", "be <= 16 for a histogram of all patterns", f"{self.points}", "Or 'uniform'.")


class LBP(_Handcrafted):
    """Local binary patterns of the grey image, see `neurodecode.features.local_binary_patterns`.

    Parameters
    ----------
    config : LBPConfig, optional
        8 points at radius 1 by default, as in Benchetrit et al. 2023 (arXiv:2310.19812), who do not give the kind of
        code, nor whether codes are counted.
    device : str or torch.device, optional
        Where to compute; by default the CPU.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.
    """

    name, kind = "lbp", LBPConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        config = self.config
        if not config.histogram:
            return (config.size, config.size)
        return (2**config.points if config.pattern == "default" else config.points + 2,)

    def compute(self, pixels: Tensor, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        config = self.config
        codes, n_codes = local_binary_patterns(
            grey(pixels) * 255, points=config.points, radius=config.radius, pattern=config.pattern
        )
        if not config.histogram:
            return codes
        counted = [torch.bincount(image.flatten(), minlength=n_codes) for image in codes]
        return torch.stack(counted) / config.size**2


@dataclass(frozen=True, kw_only=True)
class SpectrumConfig:
    """Settings of `FFT2D` and `LogPSD`.

    Parameters
    ----------
    size : int
        Images are resized to this square before, in pixels.
    fit : {"crop", "squash"}
        How an image that is no square becomes one.
    part : {"magnitude", "complex", "phase"}
        What `FFT2D` keeps; `LogPSD` has no use for it.
    """

    size: int = 64
    fit: str = "crop"
    part: str = "magnitude"

    def __post_init__(self) -> None:
        check_int("size", self.size, at_least=2)
        check_option("fit", self.fit, FITS)
        check_option("part", self.part, _SPECTRUM_PARTS)


class FFT2D(_Handcrafted):
    """Two-dimensional Fourier transform of the grey image.

    Parameters
    ----------
    config : SpectrumConfig, optional
        Size of the image, and what is kept.
    device : str or torch.device, optional
        Where to compute; by default the CPU.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    Unitary (divided by S for S x S pixels), so that the energy of the spectrum is that of the image. A real image's
    spectrum is symmetric: only frequencies of 0 and more across are kept, S x (S/2 + 1).
    """

    name, kind = "fft2d", SpectrumConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        size = self.config.size
        plane = (size, size // 2 + 1)
        return (2, *plane) if self.config.part == "complex" else plane

    def compute(self, pixels: Tensor, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        spectrum = torch.fft.rfft2(grey(pixels), norm="ortho")
        if self.config.part == "complex":
            return torch.stack([spectrum.real, spectrum.imag], dim=1)
        return spectrum.abs() if self.config.part == "magnitude" else spectrum.angle()


class LogPSD(_Handcrafted):
    """Logarithm of the power spectrum of the grey image.

    Parameters
    ----------
    config : SpectrumConfig, optional
        Size of the image.
    device : str or torch.device, optional
        Where to compute; by default the CPU.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    log10(|F|² + 1e-10) with the unitary F of `FFT2D`: uniform images have a spectrum of zeros, whose logarithm is -10.
    """

    name, kind = "log_psd", SpectrumConfig

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        return (self.config.size, self.config.size // 2 + 1)

    def compute(self, pixels: Tensor, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        return (torch.fft.rfft2(grey(pixels), norm="ortho").abs().square() + 1e-10).log10()
