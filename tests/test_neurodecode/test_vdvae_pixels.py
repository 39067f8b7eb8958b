"""The distribution of the pixels of a very deep VAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import chisquare, logistic
from tolerances import close

from neurodecode.fmri.vdvae_mixture import PixelMixture


@pytest.fixture
def mixture(generator: torch.Generator) -> PixelMixture:
    """Two components, 2 x 2 pixels, wide enough to reach both margins."""
    channels = torch.randn(1, 20, 2, 2, generator=generator)
    channels[:, 2:] *= 0.6
    return PixelMixture.from_channels(channels)


def many(mixture: PixelMixture, n: int) -> PixelMixture:
    parts = (mixture.logits, mixture.means, mixture.log_scales, mixture.coefficients)
    return PixelMixture(*(part.expand(n, *part.shape[1:]) for part in parts))


def scipy_log_prob(mixture: PixelMixture, pixel: tuple[int, ...]) -> np.ndarray:
    """Sum over components of products of differences of distribution functions, in float64."""
    x = np.asarray(pixel) / 127.5 - 1
    means, scales, c = (v[0].double().numpy() for v in (mixture.means, mixture.log_scales.exp(), mixture.coefficients))
    centres = [means[0], means[1] + c[0] * x[0], means[2] + c[1] * x[0] + c[2] * x[1]]
    total = torch.log_softmax(mixture.logits[0].double(), 0).numpy()
    for k, value in enumerate(pixel):
        low = 0.0 if value == 0 else logistic.cdf(x[k] - 1 / 255, centres[k], scales[k])
        high = 1.0 if value == 255 else logistic.cdf(x[k] + 1 / 255, centres[k], scales[k])
        total = total + np.log(high - low)
    return logsumexp(total, axis=0)


@pytest.mark.parametrize("pixel", [(0, 0, 0), (255, 255, 255), (10, 200, 90), (128, 127, 3), (0, 255, 77)])
def test_log_probability_equals_scipys(mixture: PixelMixture, pixel: tuple[int, ...]) -> None:
    made = mixture.log_prob(torch.tensor(pixel, dtype=torch.float32).reshape(1, 3, 1, 1).expand(1, 3, 2, 2))
    close(made[0], torch.from_numpy(scipy_log_prob(mixture, pixel)))


def test_log_probability_is_exact_far_in_the_tails_and_has_gradients() -> None:
    """A narrow component at white, a pixel near black: the difference of two distribution functions is 0 in float32."""
    channels = torch.zeros(1, 10, 1, 1)
    channels[:, [1, 4, 7]], channels[:, [2, 5, 8]] = 1.0, -5.0
    channels.requires_grad_()
    pixel = torch.full((1, 3, 1, 1), 20.0)
    log_prob = PixelMixture.from_channels(channels).log_prob(pixel)
    scale, x = np.exp(-5.0), 20 / 127.5 - 1
    each = logistic.logcdf((x + 1 / 255 - 1) / scale) + np.log(-np.expm1(-2 / 255 / scale))  # F(b) - F(a), a far below
    assert log_prob.item() == pytest.approx(3 * each, rel=1e-5)
    log_prob.sum().backward()
    assert torch.isfinite(channels.grad).all()
    assert (channels.grad[:, [1, 4, 7]] < 0).all()  # darker means would be better


def test_probabilities_of_all_colours_sum_to_one(mixture: PixelMixture) -> None:
    """Exact law, colour by colour: all greens and blues for a red sum to the probability of that red, and so on."""
    parts = (mixture.logits, mixture.means, mixture.log_scales, mixture.coefficients)
    one = PixelMixture(*(part[..., :1, :1].double() for part in parts))
    green, blue = (grid.flatten() for grid in torch.meshgrid(*[torch.arange(256.0)] * 2, indexing="ij"))
    share = torch.softmax(one.logits[0, :, 0, 0], 0).numpy()
    mean, scale = one.means[0, 0, :, 0, 0].numpy(), one.log_scales[0, 0, :, 0, 0].exp().numpy()
    edges = logistic.cdf((np.arange(1, 256)[:, None] - 0.5) / 127.5 - 1, mean, scale) @ share
    red_probability = np.diff(np.concatenate([[0.0], edges, [1.0]]))
    assert red_probability.sum() == pytest.approx(1.0)
    for red in (0, 100, 255):
        pixels = torch.stack([torch.full_like(green, red), green, blue], 1)[..., None, None]
        total = many(one, len(pixels)).log_prob(pixels).exp().sum()
        close(total, torch.tensor(red_probability[red]), "float64")


def level_probabilities(levels: np.ndarray, mean: np.ndarray, scale: float) -> np.ndarray:
    x = levels / 127.5 - 1
    low = np.where(levels == 0, 0.0, logistic.cdf(x - 1 / 255, mean, scale))
    return np.where(levels == 255, 1.0, logistic.cdf(x + 1 / 255, mean, scale)) - low


def test_sampled_pixels_are_as_frequent_as_they_are_probable() -> None:
    """Red and green in 4 x 4 bins of grey levels: chi-square against scipy's probabilities."""
    weights, reds, greens = np.array([0.7, 0.3]), (-0.9, 0.5), (0.2, -0.3)
    scale, coefficient, n = np.exp(-1.5), np.tanh(0.7), 20_000
    channels = torch.zeros(1, 2, 10)
    channels[0, :, 0] = torch.from_numpy(np.log(weights))
    channels[0, :, [1, 4]] = torch.tensor([reds, greens]).T
    channels[0, :, [2, 5]], channels[0, :, 3] = -1.5, 0.7
    channels = channels.transpose(1, 2).reshape(1, 20, 1, 1)
    law = PixelMixture.from_channels(channels.expand(-1, -1, 100, n // 100))
    levels = ((law.sample(torch.Generator().manual_seed(0)) + 1) * 127.5).round().long()[0].flatten(1)
    counts = np.bincount((levels[0] // 64 * 4 + levels[1] // 64).numpy(), minlength=16)

    red, green = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    probability = sum(
        weight
        * level_probabilities(red, red_mean, scale)
        * level_probabilities(green, green_mean + coefficient * (red / 127.5 - 1), scale)
        for weight, red_mean, green_mean in zip(weights, reds, greens, strict=True)
    )
    expected = probability.reshape(4, 64, 4, 64).sum((1, 3)).ravel()
    assert expected.sum() == pytest.approx(1.0)
    assert chisquare(counts, expected * n).pvalue > 1e-3


def test_expected_pixels_are_the_mean_of_samples(mixture: PixelMixture) -> None:
    """Narrow components: green and blue seldom reach the margins, where only red is exact."""
    narrow = PixelMixture(mixture.logits, mixture.means * 0.5, mixture.log_scales - 3, mixture.coefficients)
    drawn = many(narrow, 20_000).sample(torch.Generator().manual_seed(0))
    error = 5 * drawn.std(0) / len(drawn) ** 0.5 + 1e-3
    assert ((drawn.mean(0) - narrow.mean()[0]).abs() < error).all()


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 0.69, 0.7, 4.0])
@pytest.mark.parametrize("mean", [-3.0, -0.99, 0.2, 1.5])
def test_expected_red_counts_what_lies_beyond_the_margins(mean: float, log_scale: float) -> None:
    """Against numerical integration of the clipped variable; a component at -3 is black, and not blacker than it."""
    scale = np.exp(log_scale)
    inside, _ = quad(lambda x: x * logistic.pdf(x, mean, scale), -1, 1, points=[float(np.clip(mean, -1, 1))], limit=200)
    want = inside - logistic.cdf(-1, mean, scale) + logistic.sf(1, mean, scale)
    channels = torch.zeros(1, 10, 1, 1)
    channels[0, 1], channels[0, 2] = mean, log_scale
    assert PixelMixture.from_channels(channels).mean()[0, 0, 0, 0].item() == pytest.approx(want, abs=2e-6)


def test_channels_are_ten_for_each_component() -> None:
    with pytest.raises(ValueError, match="10 channels for each component"):
        PixelMixture.from_channels(torch.zeros(1, 25, 2, 2))
    with pytest.raises(ValueError, match="pixels"):
        PixelMixture.from_channels(torch.zeros(1, 20, 2, 2)).log_prob(torch.zeros(1, 3, 4, 4))
