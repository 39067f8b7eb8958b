"""Random numbers for batches of images: each image has a stream of its own and does not depend on the others."""

# B images

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuroloaders.checks import invalid

__all__ = ["draw_normal", "draw_uniform", "image_streams", "own_generator"]

# Uniform draws keep this distance from 0 and 1, so that their logarithms stay finite.
_MARGIN = 1e-5


def own_generator(generator: torch.Generator | None) -> torch.Generator:
    """Return `generator`, or a new one with a seed from the system; the global one is left alone."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def image_streams(
    generator: torch.Generator | Sequence[torch.Generator] | None, n_images: int
) -> list[torch.Generator]:
    """Return a generator for each image.

    Parameters
    ----------
    generator : torch.Generator, or sequence of them, optional
        One gives each image a seed, one after the other: image k has the same stream however many follow, and the
        numbers do not depend on the size of batches. A sequence is taken as it is. None: seeds from the system.
    n_images : int
        How many are needed.

    Raises
    ------
    ValueError, TypeError
        If a sequence has another length, or holds something else.
    """
    if generator is None or isinstance(generator, torch.Generator):
        generator = own_generator(generator)
        where = generator.device
        seeds = torch.randint(2**62, (n_images,), generator=generator, device=where).tolist()
        return [torch.Generator(where).manual_seed(seed) for seed in seeds]
    if not isinstance(generator, Sequence) or not all(isinstance(one, torch.Generator) for one in generator):
        raise invalid("generator", "be a torch.Generator, or a sequence of them", generator, kind=TypeError)
    if len(generator) != n_images:
        raise invalid("generator", f"be one, or one for each of {n_images} images", f"{len(generator)}")
    return list(generator)


def draw_normal(like: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """Draw standard normal numbers, shape, dtype and device of `like`, row k from stream k.

    They are drawn in float32 where the generators are: a seed gives the same numbers for each device and dtype.
    """
    rows = [torch.randn(like.shape[1:], generator=one, device=one.device, dtype=torch.float32) for one in streams]
    return torch.stack(rows).to(like) if rows else torch.zeros_like(like)


def draw_uniform(shape: tuple[int, ...], streams: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """Draw numbers in (0, 1) in float32, shape (B, *shape), row k from stream k."""
    rows = [torch.rand(shape, generator=one, device=one.device, dtype=torch.float32) for one in streams]
    drawn = torch.stack(rows) if rows else torch.zeros(0, *shape)
    return drawn.to(device).clamp(_MARGIN, 1 - _MARGIN)
