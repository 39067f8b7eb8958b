"""From one vector a sample to one vector a window, as the decoder of images needs (Benchetrit et al. 2023).

All of these are weighted sums over time, and the layer before them is linear at each sample: summing first and mapping
once is the same as mapping every sample and summing then. `projected` does the former.
"""

# B batch, K features before the projection, L features after it, T samples

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurodecode.meeg.drawing import blank, draw_layer, draw_uniform, own_generator
from neuroloaders.checks import check_int, invalid

__all__ = ["AGGREGATIONS", "AffineOverTime", "AttentionOverTime", "MeanOverTime", "calls"]

# How often the sum was taken first.
calls: Counter[str] = Counter()


class _Aggregation(nn.Module):
    """Base: forward maps (B, L, T) to (B, L)."""

    def forward(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def projected(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return what ``forward`` gives for ``weight @ h + bias`` at each sample, at the cost of one sample.

        Parameters
        ----------
        h : Tensor, shape (B, K, T)
            What comes before the projection.
        weight : Tensor, shape (L, K)
            The projection.
        bias : Tensor, shape (L,)
            Its bias.

        Returns
        -------
        Tensor, shape (B, L)
        """
        if not torch.compiler.is_compiling():
            calls[type(self).__name__] += 1
        return self._projected(h, weight, bias)

    def _projected(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        raise NotImplementedError


class MeanOverTime(_Aggregation):
    """The average over the window."""

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, L, T) to (B, L)."""
        return z.mean(-1)

    def _projected(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(h.mean(-1), weight, bias)


class AffineOverTime(_Aggregation):
    """A learned weight for each sample of the window and a bias, shared by all features: T + 1 numbers.

    Parameters
    ----------
    n_times : int
        T.
    generator, device, dtype
        As in `neurodecode.meeg.SpatialAttention`.

    Attributes
    ----------
    weight : Parameter, shape (T,)
    bias : Parameter, shape (1,)

    Notes
    -----
    Both start as those of ``nn.Linear(T, 1)``.
    """

    def __init__(
        self,
        n_times: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("n_times", n_times, at_least=1)
        generator = own_generator(generator)
        self.weight = nn.Parameter(torch.empty(n_times, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        for parameter in (self.weight, self.bias):
            draw_uniform(parameter, n_times**-0.5, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, L, T) to (B, L)."""
        self._check(z)
        return z @ self.weight + self.bias

    def _projected(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        self._check(h)
        return F.linear(h @ self.weight, weight) + (bias * self.weight.sum() + self.bias)

    def _check(self, z: Tensor) -> None:
        if z.shape[-1] != len(self.weight):
            advice = "Cut windows to this length, or build the network with n_times=..., or with another aggregation."
            raise invalid(
                "x", f"have {len(self.weight)} samples, as weights were learned for", f"{z.shape[-1]}", advice
            )


class AttentionOverTime(_Aggregation):
    r"""A softmax over the samples of the window, of scores that a small network gives to each [1]_.

    Parameters
    ----------
    n_features : int
        L.
    hidden : int
        Units of that network.
    generator, device, dtype
        As in `neurodecode.meeg.SpatialAttention`.

    Notes
    -----
    .. math:: s_t = v^\top \tanh(U z_t + u), \quad y = \sum_t \mathrm{softmax}(s)_t z_t

    Additive attention. Benchetrit et al. 2023 compare an attention layer with mean and affine weights, and choose the
    latter; the number of its units is our choice.

    References
    ----------
    .. [1] Bahdanau, Cho & Bengio, ICLR 2015, arXiv:1409.0473.
    """

    def __init__(
        self,
        n_features: int,
        hidden: int = 256,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("n_features", n_features, at_least=1)
        check_int("hidden", hidden, at_least=1)
        generator, place = own_generator(generator), {"device": device, "dtype": dtype}
        self.keys = draw_layer(blank(nn.Linear, n_features, hidden, **place), generator)
        self.score = draw_layer(blank(nn.Linear, hidden, 1, bias=False, **place), generator)

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, L, T) to (B, L)."""
        scores = self.score(torch.tanh(self.keys(z.transpose(1, 2))))
        return (z @ scores.softmax(1))[..., 0]

    def _projected(self, h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        keys = F.linear(h.transpose(1, 2), self.keys.weight @ weight, self.keys(bias))
        shares = self.score(torch.tanh(keys)).softmax(1)
        return F.linear((h @ shares)[..., 0], weight, bias)


def _mean(n_features: int, n_times: int | None, generator: torch.Generator, place: dict) -> nn.Module:
    return MeanOverTime()


def _affine(n_features: int, n_times: int | None, generator: torch.Generator, place: dict) -> nn.Module:
    if n_times is None:
        raise invalid("n_times", "be given for the aggregation 'affine'", "None", "It has a weight for each sample.")
    return AffineOverTime(n_times, generator=generator, **place)


def _attention(n_features: int, n_times: int | None, generator: torch.Generator, place: dict) -> nn.Module:
    return AttentionOverTime(n_features, generator=generator, **place)


# name -> builder from number of features, samples, generator, and device and dtype
AGGREGATIONS: dict[str, Callable[[int, int | None, torch.Generator, dict], nn.Module]] = {
    "mean": _mean,
    "attention": _attention,
    "affine": _affine,
}
