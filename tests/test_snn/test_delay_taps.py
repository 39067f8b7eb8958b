"""From delays to taps: laws of the kernels, the fast gradients against autograd's, windows, rounding."""

import itertools
import math

import pytest
import torch
from tolerances import close

from snn.delays import SHAPES
from snn.delays.lags import dense_kernel
from snn.delays.taps import reference_taps, rounded, taps, window

D = 9


def draw(generator, shape=(4, 3, 2), delay_shape=None, dtype=torch.float64, max_delay=D, sigma=(0.3, 3.0)):
    """Return weights, delays that reach both ends, and widths that differ from synapse to synapse."""
    weight = torch.randn(shape, generator=generator, dtype=dtype)
    delay = torch.rand(delay_shape or shape, generator=generator, dtype=dtype) * (max_delay - 1)
    delay.flatten()[0], delay.flatten()[-1] = 0, max_delay - 1
    low, high = sigma
    return weight, delay, low + (high - low) * torch.rand(delay.shape, generator=generator, dtype=dtype)


def widths_for(kernel, sigma):
    return sigma + (1 if kernel == "triangle" else 0)


# Laws


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize("share", [False, True])  # shared delays take the way without compiled kernels
def test_the_first_lags_alone_are_those_of_all(generator, kernel, share):
    weight, delay, sigma = draw(generator, delay_shape=(1, 3, 2) if share else None, sigma=(1.0, 3.0))
    leaves = [t.requires_grad_() for t in (weight, delay, sigma)]
    few = taps(*leaves, 0, D, D, kernel, kept=5)
    want = reference_taps(*leaves, 0, D, D, kernel)[..., :5]
    close(few, want)
    grad = torch.randn(few.shape, generator=generator, dtype=few.dtype)
    for ours, theirs in zip(
        torch.autograd.grad(few, leaves, grad, allow_unused=True),
        torch.autograd.grad(want, leaves, grad, allow_unused=True),
        strict=True,
    ):
        if theirs is None:
            assert ours is None
        else:
            close(ours, theirs)


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize("max_delay", [1, 2, 9, 40])
def test_taps_sum_to_the_weight(generator, kernel, max_delay):
    weight, delay, sigma = draw(generator, max_delay=max_delay)
    total = taps(weight, delay, widths_for(kernel, sigma), 0, max_delay, max_delay, kernel).sum(-1)
    torch.testing.assert_close(total, weight, rtol=1e-6, atol=0)  # 1e-7 over the sum of a bump, at least 0.17


def test_linear_taps_have_their_centre_at_the_delay(generator):
    weight, delay, sigma = draw(generator)
    lags = torch.arange(D, dtype=torch.float64)
    kernel = taps(weight, delay, sigma, 0, D, D, "linear")
    close((lags * kernel).sum(-1), weight * delay)
    assert ((kernel != 0).sum(-1) <= 2).all()


@pytest.mark.parametrize("sigma", [0.27, 0.5, 2.0, 12.27])
def test_gauss_taps_fall_off_as_the_normal_density(sigma):
    delay = torch.tensor([3.4], dtype=torch.float64)
    kernel = taps(torch.ones(1), delay, torch.tensor([sigma], dtype=torch.float64), 0, D, D, "gauss")
    for lag in (0, 3, 7):
        ratio = math.exp(((lag - 3.4) ** 2 - (lag + 1 - 3.4) ** 2) / (2 * sigma**2))
        assert kernel[0, lag + 1].item() == pytest.approx(kernel[0, lag].item() * ratio, rel=1e-9)


def test_triangle_of_width_one_is_linear_interpolation(generator):
    weight, delay, _ = draw(generator)
    ones = torch.ones_like(delay)
    triangle = taps(weight, delay, ones, 0, D, D, "triangle")
    torch.testing.assert_close(triangle, taps(weight, delay, ones, 0, D, D, "linear"), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kernel", SHAPES)
def test_mirrored_delays_have_mirrored_taps(generator, kernel):
    weight, delay, sigma = draw(generator)
    sigma = widths_for(kernel, sigma)
    there = taps(weight, delay, sigma, 0, D, D, kernel)
    close(taps(weight, D - 1 - delay, sigma, 0, D, D, kernel).flip(-1), there)


@pytest.mark.parametrize("kernel", ["gauss", "triangle"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_very_wide_bump_hears_every_lag_alike(generator, kernel, dtype):
    weight, delay, _ = draw(generator, dtype=dtype)
    for sigma in (1e5, 1e12, 1e30):
        leaf = delay.clone().requires_grad_()
        kernel_of_all = taps(weight, leaf, torch.full_like(delay, sigma), 0, D, D, kernel)
        torch.testing.assert_close(kernel_of_all, (weight / D)[..., None].expand_as(kernel_of_all), rtol=1e-3, atol=0)
        kernel_of_all.square().sum().backward()
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("kernel", SHAPES)
def test_with_one_lag_all_of_the_weight_is_on_it(generator, kernel):
    weight, delay, sigma = draw(generator, max_delay=1)
    only = taps(weight, delay, widths_for(kernel, sigma), 0, 1, 1, kernel)
    torch.testing.assert_close(only[..., 0], weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", SHAPES)
def test_with_one_lag_there_is_no_delay_to_learn(generator, kernel):
    weight, delay, sigma = draw(generator, max_delay=1)
    delay.requires_grad_()
    (grad,) = torch.autograd.grad(taps(weight, delay, widths_for(kernel, sigma), 0, 1, 1, kernel).sum(), delay)
    assert grad.abs().max() < 1e-5


@pytest.mark.parametrize("round_delays", [False, True])
@pytest.mark.parametrize("kernel", SHAPES)
def test_kernels_at_one_delay_add_up(kernel, round_delays):
    delay = torch.full((1, 1, 3), 4.0, dtype=torch.float64)
    sigma = torch.ones_like(delay)
    weight = torch.tensor([[[0.5, 2.0, -0.25]]], dtype=torch.float64)
    together = dense_kernel(weight, delay, sigma, D, kernel, round_delays)
    one = dense_kernel(torch.full((1, 1, 1), 2.25), delay[..., :1], sigma[..., :1], D, kernel, round_delays)
    close(together, one.double())


# The gradients written out, against autograd's


def with_gradients(function, leaves, *rest):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    y = function(*leaves, *rest)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    return y.detach(), *torch.autograd.grad((y * seed).sum(), leaves, allow_unused=True)


SHARED = [((4, 3, 2), None), ((4, 3, 2), (1, 3, 2)), ((4, 3, 2), (4, 1, 2)), ((4, 3, 1), (1, 1, 1)), ((7,), None)]


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize(("shape", "delay_shape"), SHARED)
@pytest.mark.parametrize("windowed", [False, True])
def test_taps_and_gradients_are_those_of_the_reference(generator, kernel, shape, delay_shape, windowed):
    weight, delay, sigma = draw(generator, shape, delay_shape)
    sigma = widths_for(kernel, sigma)
    start, width = window(delay, 1.4, D, kernel) if windowed else (0, D)
    got = with_gradients(taps, (weight, delay, sigma), start, width, D, kernel)
    want = with_gradients(reference_taps, (weight, delay, sigma), start, width, D, kernel)
    for ours, reference in zip(got, want, strict=True):
        assert (ours is None) == (reference is None)
        if ours is not None:
            close(ours, reference)


@pytest.mark.parametrize("kernel", ["gauss", "triangle"])
def test_one_width_for_all_synapses(generator, kernel):
    weight, delay, _ = draw(generator)
    for sigma in (torch.tensor(1.7, dtype=torch.float64), torch.full((1, 1, 1), 1.7, dtype=torch.float64)):
        got = with_gradients(taps, (weight, delay, sigma), 0, D, D, kernel)
        want = with_gradients(reference_taps, (weight, delay, sigma), 0, D, D, kernel)
        for ours, reference in zip(got, want, strict=True):
            close(ours, reference)


def test_corners_of_the_triangle_have_the_same_gradient_as_the_reference():
    """Whole delays and widths, where a lag lies on the foot or on the tip; both ends of the range are such."""
    delay = torch.arange(D, dtype=torch.float64)
    for sigma in (1.0, 2.0, 3.0):
        leaves = (torch.ones_like(delay), delay, torch.full_like(delay, sigma))
        got = with_gradients(taps, leaves, 0, D, D, "triangle")
        want = with_gradients(reference_taps, leaves, 0, D, D, "triangle")
        for ours, reference in zip(got, want, strict=True):
            close(ours, reference)


@pytest.mark.parametrize("kernel", SHAPES)
def test_gradients_are_right_by_finite_differences(generator, kernel):
    weight, delay, sigma = draw(generator, (2, 2, 2))
    delay = delay.clamp(0.1, D - 1.1)  # a corner has no derivative
    leaves = [leaf.requires_grad_() for leaf in (weight, delay, widths_for(kernel, sigma))]
    leaves[2].requires_grad_(kernel != "linear")
    assert torch.autograd.gradcheck(lambda *p: taps(*p, 0, D, D, kernel), leaves)


def test_linear_kernel_learns_at_both_ends():
    """The slope at a whole delay is that of a step inside the range, so no delay is stuck at an end."""
    delay = torch.tensor([0.0, 3.0, D - 1.0], dtype=torch.float64, requires_grad=True)
    lags = torch.arange(D, dtype=torch.float64) ** 2
    (lags * taps(torch.ones(3), delay, delay, 0, D, D, "linear")).sum().backward()
    assert delay.grad.tolist() == [1, 7, 2 * (D - 1) - 1]


# Windows

WIDTHS = [0.27, 0.5, 1.0, 1.01, 2.5, 7.0, 100.0, 1e8]


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("max_delay", [1, 2, 25, 200])
def test_what_lies_outside_a_window_is_below_rounding(generator, kernel, dtype, max_delay):
    least = SHAPES[kernel].least_sigma
    for widest in (w for w in WIDTHS if w >= least):
        # Among the widest there are narrow ones; delays also where a window begins or ends exactly on a lag.
        weight, delay, sigma = draw(generator, (64, 3, 1), None, dtype, max_delay, (least, widest))
        sigma.flatten()[0] = sigma.flatten()[7] = widest
        delay[:32] = (2 * delay[:32]).round() / 2
        start, width = window(delay, float(sigma.max()), max_delay, kernel)
        assert start.min() >= 0
        assert start.max() + width <= max_delay
        few = taps(weight, delay, sigma, start, width, max_delay, kernel)
        everything = taps(weight, delay, sigma, 0, max_delay, max_delay, kernel)
        lags = start.long()[..., None] + torch.arange(width)
        placed = torch.zeros_like(everything).scatter(-1, lags, few)
        bound = 8 * torch.finfo(dtype).eps
        assert ((placed - everything).abs().sum(-1) <= bound * weight.abs()).all(), widest


@pytest.mark.parametrize(("kernel", "widths"), [("gauss", {0.27: 4, 0.5: 6}), ("triangle", {1.0: 3}), ("linear", {})])
def test_windows_are_small_once_bumps_are(kernel, widths):
    for sigma, width in widths.items():
        assert window(torch.rand(3, 3, 1) * 20, sigma, 100, kernel)[1] == width


# Rounding


def test_halves_round_to_the_even_neighbour_and_nothing_leaves_the_range():
    delay = torch.tensor([0.5, 1.5, 2.5, 3.5, 2.4999, 2.5001, -0.5, -3.0, 8.5, 40.0, torch.inf])
    lags = rounded(delay, D)
    assert lags.tolist() == [0, 2, 2, 4, 2, 3, 0, 0, 8, 8, 8]
    assert lags.dtype == torch.int32


@pytest.mark.parametrize(("kernel", "dtype"), list(itertools.product(SHAPES, [torch.float32, torch.float64])))
def test_numbers_keep_their_dtype(generator, kernel, dtype):
    weight, delay, sigma = draw(generator, dtype=dtype)
    assert taps(weight, delay, widths_for(kernel, sigma), 0, D, D, kernel).dtype == dtype
