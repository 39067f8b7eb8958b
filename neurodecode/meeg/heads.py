"""The last layers: from features to the targets."""

# B batch, K hidden, L latent, F targets, T samples

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.drawing import blank, draw_layer, own_generator
from neuroloaders.checks import check_int

__all__ = ["PointwiseHead", "ProjectionHead"]


class PointwiseHead(nn.Module):
    """Two linear maps with a GELU between them, at each sample; or one map.

    Parameters
    ----------
    n_inputs, n_outputs : int
        K, F.
    width : int, optional
        Features between the maps. None: a single map.
    generator, device, dtype
        As in `neurodecode.meeg.SpatialAttention`.

    Notes
    -----
    The second map is drawn within 1 / sqrt(n_outputs), as a transposed convolution of kernel 1 is, which is the same
    map with its weights transposed.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        width: int | None,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("n_outputs", n_outputs, at_least=1)
        generator, place = own_generator(generator), {"device": device, "dtype": dtype}
        self.first = None
        if width is not None:
            check_int("width", width, at_least=1)
            self.first = draw_layer(blank(nn.Conv1d, n_inputs, width, 1, **place), generator)
        last = blank(nn.Conv1d, n_inputs if width is None else width, n_outputs, 1, **place)
        self.last = draw_layer(last, generator, fan=n_outputs)

    def before_last(self, x: Tensor) -> Tensor:
        """Return what the last map is given, (B, width, T), of features (B, K, T)."""
        return x if self.first is None else F.gelu(self.first(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, K, T) to (B, F, T)."""
        return self.last(self.before_last(x))


class ProjectionHead(nn.Module):
    """Normalisation, GELU and linear map, once or several times, from latents to targets [1]_.

    Parameters
    ----------
    n_inputs, n_outputs : int
        L, F.
    depth : int
        Number of blocks; those before the last keep L features.
    generator, device, dtype
        As in `neurodecode.meeg.SpatialAttention`.

    Notes
    -----
    The layer normalisation has no weights of its own: the paper counts 2048 · 768 + 768 parameters here.

    References
    ----------
    .. [1] Benchetrit, Banville & King, arXiv:2310.19812, table S1.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        depth: int = 1,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("n_outputs", n_outputs, at_least=1)
        check_int("depth", depth, at_least=1)
        generator = own_generator(generator)
        sizes = [n_inputs] * depth + [n_outputs]
        self.maps = nn.ModuleList(
            draw_layer(blank(nn.Linear, *pair, device=device, dtype=dtype), generator)
            for pair in itertools.pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L) to (B, F)."""
        for layer in self.maps:
            x = layer(F.gelu(F.layer_norm(x, x.shape[-1:])))
        return x
