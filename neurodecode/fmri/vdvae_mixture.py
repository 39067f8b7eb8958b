"""Mixtures of discretised logistics: the distribution of the pixels that a VDVAE gives.

Salimans, Karpathy, Chen & Kingma 2017 (arXiv:1701.05517): each of M components has a mean and a scale for red, green
and blue, of which green's mean moves with red and blue's with both. Values lie in [-1, 1], 2/255 apart.
"""

# B images, M components, H W pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neurodecode.fmri.vdvae_draws import draw_uniform, image_streams
from neuroloaders.checks import check_shape, invalid

__all__ = ["PixelMixture"]

# Below this, scales are much narrower than a grey level, and gradients explode.
_LEAST_LOG_SCALE = -7.0
_HALF_LEVEL = 1.0 / 255.0


@dataclass(frozen=True, eq=False)
class PixelMixture:
    r"""The distribution of the pixels of B images.

    Parameters
    ----------
    logits : Tensor, shape (B, M, H, W)
        Of the components' weights.
    means, log_scales, coefficients : Tensor, shape (B, 3, M, H, W)
        Of red, green and blue. Coefficients: green on red, blue on red, blue on green.

    Notes
    -----
    A byte v stands for the interval of one grey level around :math:`x = v / 127.5 - 1`, 0 and 255 also for all below
    and above. Its probability in a component with mean :math:`\mu` and scale s is

    .. math:: \sigma(a) - \sigma(b), \quad a, b = (x - \mu \pm 1/255) / s,

    taken here in the equal form :math:`\sigma(a)\,\sigma(-b)\,(1 - e^{b-a})`, whose logarithm is exact also far out in
    the tails, where the reference turns to the density in the middle of the interval.
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor

    @classmethod
    def from_channels(cls, channels: Tensor) -> PixelMixture:
        """Read it off the last convolution, shape (B, 10 M, H, W); in float32 at least.

        M logits come first; then for each colour M means, M logarithms of scales, and M coefficients before tanh.
        """
        check_shape("channels", channels, ("B", "10M", "H", "W"))
        if channels.shape[1] % 10:
            raise invalid("channels", "have 10 channels for each component", channels)
        m = channels.shape[1] // 10
        channels = channels.to(torch.promote_types(channels.dtype, torch.float32))
        rest = channels[:, m:].reshape(len(channels), 3, 3, m, *channels.shape[2:])
        means, log_scales, coefficients = rest.unbind(2)
        return cls(channels[:, :m], means, log_scales.clamp_min(_LEAST_LOG_SCALE), coefficients.tanh())

    def log_prob(self, pixels: Tensor) -> Tensor:
        """Return the log probability of each pixel's three bytes, shape (B, H, W).

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
            Whole numbers 0..255.
        """
        check_shape("pixels", pixels, (len(self.logits), 3, *self.logits.shape[2:]))
        pixels = pixels.to(self.means.dtype)[:, :, None]
        x = pixels / 127.5 - 1.0
        c = self.coefficients
        green = self.means[:, 1] + c[:, 0] * x[:, 0]
        blue = self.means[:, 2] + c[:, 1] * x[:, 0] + c[:, 2] * x[:, 1]
        distance = x - torch.stack([self.means[:, 0], green, blue], dim=1)
        inverse = torch.exp(-self.log_scales)
        below_upper = F.logsigmoid(inverse * (distance + _HALF_LEVEL))
        above_lower = F.logsigmoid(-inverse * (distance - _HALF_LEVEL))
        within = below_upper + above_lower + torch.log(-torch.expm1(-2 * _HALF_LEVEL * inverse))
        log_prob = torch.where(pixels <= 0, below_upper, torch.where(pixels >= 255, above_lower, within))
        return torch.logsumexp(log_prob.sum(1) + F.log_softmax(self.logits, dim=1), dim=1)

    def sample(self, generator: torch.Generator | Sequence[torch.Generator] | None = None) -> Tensor:
        """Draw pixels, shape (B, 3, H, W), in [-1, 1], not rounded.

        Parameters
        ----------
        generator : torch.Generator, or sequence of B of them, optional
            See `neurodecode.fmri.vdvae_draws.image_streams`.
        """
        m, streams = self.logits.shape[1], image_streams(generator, len(self.logits))
        u = draw_uniform((m + 3, *self.logits.shape[2:]), streams, self.logits.device)
        # Gumbel's trick: the largest of logits plus Gumbel noise is a draw of the component.
        component = (self.logits - torch.log(-torch.log(u[:, :m]))).argmax(dim=1)
        noise = torch.log(u[:, m:]) - torch.log1p(-u[:, m:])
        index = component[:, None, None].expand(-1, 3, 1, -1, -1)
        means, log_scales, c = (
            values.gather(2, index)[:, :, 0] for values in (self.means, self.log_scales, self.coefficients)
        )
        x = means + torch.exp(log_scales) * noise
        red = x[:, 0].clamp(-1, 1)
        green = (x[:, 1] + c[:, 0] * red).clamp(-1, 1)
        blue = (x[:, 2] + c[:, 1] * red + c[:, 2] * green).clamp(-1, 1)
        return torch.stack([red, green, blue], dim=1)

    def mean(self) -> Tensor:
        """Return the expected pixels, shape (B, 3, H, W), in [-1, 1].

        Notes
        -----
        That values end at -1 and 1 is taken into account: components often lie far outside, and pixels at the margins
        would be wrong otherwise. Exact for red; green and blue are those at the expected value of the colours before,
        exact unless they reach the margins themselves.
        """
        c, scales = self.coefficients, torch.exp(self.log_scales)
        red = _clipped_mean(self.means[:, 0], scales[:, 0])
        green = _clipped_mean(self.means[:, 1] + c[:, 0] * red, scales[:, 1])
        blue = _clipped_mean(self.means[:, 2] + c[:, 1] * red + c[:, 2] * green, scales[:, 2])
        weights = F.softmax(self.logits, dim=1)
        return (torch.stack([red, green, blue], dim=1) * weights[:, None]).sum(2).clamp(-1, 1)


def _clipped_mean(mean: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of a logistic variable that is cut off at -1 and 1: 1 minus the integral of its distribution."""
    low, gap = (-1.0 - mean) / scale, 2.0 / scale
    # log((1 + exp(low + gap)) / (1 + exp(low))); for a wide one as a small step, which a difference would cancel.
    step = torch.log1p(torch.sigmoid(low) * torch.expm1(gap.clamp_max(1.0)))
    return 1.0 - scale * torch.where(gap <= 1.0, step, F.softplus(low + gap) - F.softplus(low))
