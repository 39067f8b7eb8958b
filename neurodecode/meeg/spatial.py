"""Spatial attention: virtual sensors that look at the real ones by where these are."""

# R recordings, B batch, C channels, H heads (virtual sensors), T samples

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurodecode.meeg.positions import UNPLACED, fourier_embedding, frequencies_per_axis, valid_positions
from neuroloaders.checks import check_int, check_number

__all__ = ["SpatialAttention", "attention_weights", "without_disc"]


def without_disc(positions: Tensor, centre: Tensor, radius: float) -> Tensor:
    """Return which sensors remain when those in a disc are silenced.

    Parameters
    ----------
    positions : Tensor, shape (..., C, 2)
        Positions.
    centre : Tensor, shape (2,)
        Centre of the disc.
    radius : float
        Its radius, in the unit of positions; a sensor on its rim is silenced.

    Returns
    -------
    Tensor of bool, shape (..., C)
        Sensors that have a place outside the disc. Where the disc covers all sensors of a recording, it is ignored for
        that recording: all that have a place remain.
    """
    valid = valid_positions(positions)
    kept = valid & (torch.linalg.vector_norm(positions - centre, dim=-1) > radius)
    return torch.where(kept.any(-1, keepdim=True), kept, valid)


def attention_weights(positions: Tensor, heads: Tensor, kept: Tensor | None = None, *, margin: float = 0.2) -> Tensor:
    """Return how much each virtual sensor takes from each real one.

    Parameters
    ----------
    positions : Tensor, shape (..., C, 2)
        Positions of the real sensors.
    heads : Tensor, shape (H, E)
        What each virtual sensor looks for, in the Fourier embedding.
    kept : Tensor of bool, shape (..., C), optional
        Sensors that may be listened to; by default those with a place.
    margin : float
        As in `fourier_embedding`.

    Returns
    -------
    Tensor, shape (..., H, C), dtype of `heads`
        A softmax over sensors. A sensor that is not kept has weight 0; where none is, all weights are 0.
    """
    kept = valid_positions(positions) if kept is None else kept
    # Waves of up to 31 periods lose their phase in half precision.
    exact = positions.to(torch.promote_types(positions.dtype, torch.float32))
    # Whatever stands where there is no place must not reach the sum: NaN times 0 is NaN.
    exact = torch.where(valid_positions(exact)[..., None], exact, exact.new_full((), UNPLACED))
    embedding = fourier_embedding(exact, heads.shape[1], margin=margin).to(heads.dtype)
    scores = heads @ embedding.transpose(-1, -2)
    kept = kept[..., None, :]
    # The least finite number in place of -inf: a softmax over nothing but -inf is NaN, also in its gradient.
    scores = scores.masked_fill(~kept, torch.finfo(scores.dtype).min)
    return scores.softmax(-1) * kept


class SpatialAttention(nn.Module):
    r"""Turn the sensors of any layout into H virtual ones [1]_.

    Parameters
    ----------
    n_heads : int
        H.
    n_features : int
        Length of the Fourier embedding, twice a square.
    dropout_radius : float
        Radius of the disc of sensors that is silenced in training; 0 silences none.
    margin : float
        As in `neurodecode.meeg.fourier_embedding`.
    generator : torch.Generator, optional
        For the first weights; by default a new one with a seed from the system.
    device, dtype : optional
        Of the weights.

    Attributes
    ----------
    heads : Parameter, shape (H, n_features)

    Notes
    -----
    .. math:: a_{hc} = \mathrm{softmax}_c \sum_f w_{hf} e_f(p_c), \quad y_h(t) = \sum_c a_{hc} x_c(t)

    In training, one disc a batch, with its centre anywhere in the unit square, is silenced. Weights start from a normal
    distribution with variance 1 / n_features. Deviation: a recording whose sensors all lie in the disc keeps them all,
    where the softmax of the paper's equation would be undefined; one without any sensor that has a place gives zeros.
    Channels without a place must still hold finite numbers.

    References
    ----------
    .. [1] Defossez et al., Nature Machine Intelligence 5 (2023), 10.1038/s42256-023-00714-5.
    """

    def __init__(
        self,
        n_heads: int = 270,
        n_features: int = 2048,
        *,
        dropout_radius: float = 0.2,
        margin: float = 0.2,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_int("n_heads", n_heads, at_least=1)
        frequencies_per_axis(n_features)
        self.dropout_radius = check_number("dropout_radius", dropout_radius, at_least=0)
        self.margin = check_number("margin", margin, at_least=0)
        self.heads = nn.Parameter(torch.empty(n_heads, n_features, device=device, dtype=dtype))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew; `generator` as in the class."""
        from neurodecode.meeg.drawing import draw_normal

        draw_normal(self.heads, self.heads.shape[1] ** -0.5, generator)

    def weights(self, positions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the weights on each sensor, shape (..., H, C), with a new disc of silence in training.

        Parameters
        ----------
        positions : Tensor, shape (..., C, 2)
            Positions.
        generator : torch.Generator, optional
            For the centre of the disc, on the device of `positions`; by default torch's own, as in ``nn.Dropout``.
        """
        kept = None
        if self.training and self.dropout_radius > 0:
            centre = torch.rand(2, generator=generator, device=positions.device, dtype=torch.float32)
            kept = without_disc(positions, centre.to(positions.dtype), self.dropout_radius)
        return attention_weights(positions, self.heads, kept, margin=self.margin)

    def forward(self, x: Tensor, positions: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the virtual sensors, shape (B, H, T), of recordings (B, C, T) at positions (B, C, 2) or (C, 2)."""
        return self.weights(positions, generator) @ x

    def extra_repr(self) -> str:
        """Show sizes and the disc."""
        return f"{self.heads.shape[0]} heads, {self.heads.shape[1]} features, dropout_radius={self.dropout_radius:g}"
