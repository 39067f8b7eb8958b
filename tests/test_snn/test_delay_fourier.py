"""Convolution by transforms, against the sum that defines it."""

import pytest
import torch

from snn.delays import fourier
from snn.delays.waves import WAVES


def by_definition(x, kernel):
    y = x.new_zeros(*x.shape[:2], kernel.shape[1])
    for lag in range(min(len(x), len(kernel))):
        y[lag:] += torch.einsum("tbi,oi->tbo", x[: len(x) - lag], kernel[lag])
    return y


def only(waves):
    """Cut as usual, but go to the frequencies this way."""
    usual = fourier.blocks
    return lambda n_steps, n_batch, n_lags: usual(n_steps, n_batch, n_lags)._replace(waves=waves)


@pytest.mark.parametrize("waves", WAVES)
@pytest.mark.parametrize("n_steps", [1, 2, 7, 40, 97])
@pytest.mark.parametrize("n_lags", [1, 2, 9, 30])
def test_transforms_are_the_sum_and_so_are_their_gradients(n_steps, n_lags, waves, monkeypatch):
    monkeypatch.setattr(fourier, "blocks", only(waves))
    # Small limits: several groups of outputs.
    monkeypatch.setattr(fourier, "_LEAST_GROUP", 2)
    monkeypatch.setattr(fourier, "_GROUP_BYTES", {"cpu": 1})
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_steps, 3, 4, generator=generator, dtype=torch.double, requires_grad=True)
    kernel = torch.randn(n_lags, 5, 4, generator=generator, dtype=torch.double, requires_grad=True)
    grad = torch.randn(n_steps, 3, 5, generator=generator, dtype=torch.double)
    want = by_definition(x, kernel)
    got = fourier.convolve(x, kernel)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    for ours, theirs in zip(
        torch.autograd.grad(got, (x, kernel), grad), torch.autograd.grad(want, (x, kernel), grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("wanted", ["x", "kernel"])
def test_one_gradient_alone_is_that_of_both(wanted):
    x, kernel = torch.randn(60, 2, 3), torch.randn(11, 4, 3)
    leaves = {"x": x.clone().requires_grad_(), "kernel": kernel.clone().requires_grad_()}
    fourier.convolve(**leaves).square().sum().backward()
    alone = {"x": x, "kernel": kernel} | {wanted: leaves[wanted].detach().clone().requires_grad_()}
    fourier.convolve(**alone).square().sum().backward()
    torch.testing.assert_close(alone[wanted].grad, leaves[wanted].grad, rtol=0, atol=0)


@pytest.mark.parametrize(("n_steps", "n_batch", "n_lags"), [(1, 1, 1), (100, 32, 25), (400, 1, 7), (3, 256, 3)])
def test_blocks_hold_all_steps_and_what_lies_before_them(n_steps, n_batch, n_lags):
    cut = fourier.blocks(n_steps, n_batch, n_lags)
    assert cut.n % 2 == 0
    assert cut.n >= cut.length + n_lags - 1
    assert cut.count * cut.length >= n_steps


def test_short_kernels_go_by_tables_and_long_ones_by_the_fast_transform():
    short, long = fourier.blocks(100, 32, 25), fourier.blocks(400, 32, 251)
    assert (short.waves, long.waves) == ("tables", "fast")


def test_long_sequences_are_cut():
    assert fourier.blocks(1000, 32, 25).count > 1
