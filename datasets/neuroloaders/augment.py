"""Random changes of image batches, on the device, for all samples of a batch at once.

A transform is drawn and applied in two steps. `draw` makes the random numbers of a batch, one row a sample;
`apply` is a pure function of the images and these rows. So the share of a batch that one of several processes
holds is changed exactly as it would be in the whole batch, and a resumed run repeats what it did.

N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroloaders.checks import check_fraction, check_int, check_number, check_shape, invalid

__all__ = ["Compose", "HorizontalFlip", "RandomCrop", "ToFloat", "Transform", "share_of_draws"]

# What `draw` returns: a tensor with one row a sample, nothing, or a tuple of such.
Draws = Any


class Transform:
    """A random change of a batch of images.

    Subclasses are frozen dataclasses with `draw` and `apply`. They are called with a batch and a generator:
    ``RandomCrop(4)(images, generator=torch.Generator().manual_seed(0))``.
    """

    def draw(self, n: int, generator: torch.Generator | None) -> Draws:
        """Return the random numbers for `n` samples: tensors with n rows, or None if nothing is random."""
        raise NotImplementedError

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the images changed by what was drawn; `images` itself stays as it is."""
        raise NotImplementedError

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw for every image of the batch and apply."""
        n = len(check_shape("images", images, ("N", "C", "H", "W")))
        return self.apply(images, share_of_draws(self.draw(n, generator), 0, n, images.device))


@dataclass(frozen=True)
class ToFloat(Transform):
    """Bytes 0..255 to floating point in [0, 1], then standardised by channel if asked.

    Parameters
    ----------
    mean, std : sequence of float, length C, optional
        Both or neither: ``(pixel - mean) / std`` with pixels in [0, 1]. Take those of the training images,
        which every `ImageSet` carries.
    dtype : torch.dtype
        A floating type.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not isinstance(self.dtype, torch.dtype) or not self.dtype.is_floating_point:
            raise invalid("dtype", "be a floating type", str(self.dtype))
        if self.mean is None and self.std is None:
            return
        if self.mean is None or self.std is None or len(self.mean) != len(self.std):
            raise invalid("mean, std", "both be given, one value a channel", f"{self.mean}, {self.std}")
        object.__setattr__(self, "mean", tuple(check_number("mean", value) for value in self.mean))
        advice = "A channel that never changes cannot be standardised."
        object.__setattr__(self, "std", tuple(check_number("std", value, above=0, advice=advice) for value in self.std))

    def draw(self, n: int, generator: torch.Generator | None) -> Draws:
        """Return None: nothing is random."""
        return None

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Return uint8 images (N, C, H, W) as floating point."""
        if images.dtype != torch.uint8:
            advice = "Floating-point images are not divided by 255 a second time."
            raise invalid("images", "have dtype torch.uint8", images, advice, kind=TypeError)
        # Computed in float32 at least, rounded once to a shorter type at the end.
        working = torch.promote_types(self.dtype, torch.float32)
        if self.mean is None:
            return images.to(working).div_(255).to(self.dtype)
        check_shape("images", images, ("N", len(self.mean), "H", "W"))
        # (x / 255 - mean) / std in one multiplication and one addition.
        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float64)
        constants = torch.stack((1 / (255 * std), -mean / std)).to(working)
        # Made on the host and sent: torch.tensor(..., device=...) would wait for the GPU.
        scale, shift = constants.to(images.device, non_blocking=True).view(2, -1, 1, 1).unbind()
        return images.to(working).mul_(scale).add_(shift).to(self.dtype)


@dataclass(frozen=True)
class RandomCrop(Transform):
    """A window of the image's own size, cut at random out of the image padded with zeros on all sides.

    Parameters
    ----------
    padding : int
        Pixels added on each side; the window moves by -padding..padding rows and columns, each whole shift
        equally likely. Zero is black before `ToFloat` standardises, as in the usual CIFAR recipe (He et al.
        2016, section 4.2: 4 pixels).
    """

    padding: int

    def __post_init__(self) -> None:
        check_int("padding", self.padding, at_least=0)

    def draw(self, n: int, generator: torch.Generator | None) -> Draws:
        """Return the first row and column of each window in the padded image, int64 (n, 2)."""
        generator = _check_generator(generator)
        high = 2 * self.padding + 1
        return torch.randint(0, high, (n, 2), generator=generator, device=generator.device)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the windows, of the same shape and dtype as the images."""
        if len(images) == 0:
            return images
        n, channels, height, width = images.shape
        padded = F.pad(images, (self.padding,) * 4).contiguous()
        line = width + 2 * self.padding
        plane = line * (height + 2 * self.padding)
        # A window is everything from its first pixel to its last, with the pixels around it in between. So one
        # copy of `size` neighbouring values a sample is enough; the view then skips what is in between. Four
        # times as fast on a CPU as indexing rows and columns, which reads the same pixels.
        size = (channels - 1) * plane + (height - 1) * line + width
        starts = padded.as_strided((padded.numel() - size + 1, size), (1, 1))
        first = torch.arange(n, device=images.device) * (channels * plane) + draws[:, 0] * line + draws[:, 1]
        windows = starts.index_select(0, first)
        return windows.as_strided(images.shape, (size, plane, line, 1)).contiguous()


@dataclass(frozen=True)
class HorizontalFlip(Transform):
    """Each image mirrored left to right with probability `p`.

    Parameters
    ----------
    p : float
        In [0, 1].
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_fraction("p", self.p)

    def draw(self, n: int, generator: torch.Generator | None) -> Draws:
        """Return which images are mirrored, bool (n,)."""
        generator = _check_generator(generator)
        return torch.rand(n, generator=generator, device=generator.device) < self.p

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the images, the drawn ones mirrored."""
        # Choosing whole images out of both is eight times as fast on a CPU as torch.where on bytes.
        n = len(images)
        rows = torch.arange(n, device=images.device)
        return torch.cat((images, images.flip(-1))).index_select(0, rows + n * draws)


@dataclass(frozen=True)
class Compose(Transform):
    """Several transforms, one after the other.

    Parameters
    ----------
    transforms : sequence of Transform
    """

    transforms: Sequence[Transform]

    def __post_init__(self) -> None:
        transforms = tuple(self.transforms)
        for i, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise invalid(f"transforms[{i}]", "be a Transform", transform, kind=TypeError)
        object.__setattr__(self, "transforms", transforms)

    def draw(self, n: int, generator: torch.Generator | None) -> Draws:
        """Return what each transform draws, in order, from the one generator."""
        return tuple(transform.draw(n, generator) for transform in self.transforms)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the images after all transforms."""
        for transform, drawn in zip(self.transforms, draws, strict=True):
            images = transform.apply(images, drawn)
        return images


def share_of_draws(draws: Draws, first: int, last: int, device: torch.device) -> Draws:
    """Return rows ``first:last`` of everything drawn, on `device`, without waiting for it."""
    if draws is None:
        return None
    if isinstance(draws, tuple):
        return tuple(share_of_draws(drawn, first, last, device) for drawn in draws)
    return draws[first:last].to(device, non_blocking=True)


def _check_generator(generator: torch.Generator | None) -> torch.Generator:
    if not isinstance(generator, torch.Generator):
        advice = "Use torch.Generator().manual_seed(seed); the global random state is never used."
        raise invalid("generator", "be a torch.Generator", generator, advice, kind=TypeError)
    return generator
