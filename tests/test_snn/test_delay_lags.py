"""Kernels with the lags first, against the taps that torch differentiates."""

import pytest
import torch
from tolerances import close

from snn.delays import lag_kernels
from snn.delays.lags import dense_kernel, lag_kernel
from snn.delays.taps import reference_taps


def draw(shape, max_delay, sigma, dtype, *, one_sigma=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=dtype)
    delay = (max_delay - 1) * torch.rand(shape, generator=generator, dtype=dtype)
    delay.view(-1)[:2] = torch.tensor([0.0, max_delay - 1.0], dtype=dtype)
    low, high = sigma
    widths = low + (high - low) * torch.rand(shape, generator=generator, dtype=dtype)
    width = torch.tensor(low, dtype=dtype) if one_sigma else widths
    return [leaf.requires_grad_() for leaf in (weight, delay, width)]


@pytest.fixture
def walks(monkeypatch):
    """Count the calls of the compiled kernels."""
    counts = {"forward": 0, "backward": 0}
    for name in counts:
        kernel = getattr(lag_kernels, name)

        def counted(*arguments, name=name, kernel=kernel):
            counts[name] += 1
            return kernel(*arguments)

        monkeypatch.setattr(lag_kernels, name, counted)
    return counts


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("max_delay", "n_lags", "sigma"),
    [(25, 25, (12.5, 12.5)), (31, 7, (1.0, 4.0)), (251, 100, (3.0, 90.0)), (700, 700, (1.0, 1.5)), (1, 1, (1.0, 2.0))],
)
@pytest.mark.parametrize("shape", [(5, 4, 1), (3, 3, 2), (1, 1, 3)])  # 20, 18 and 3 synapses: not whole vectors
@pytest.mark.parametrize("one_sigma", [False, True])
def test_walks_give_the_reference_and_its_gradients(walks, shape, max_delay, n_lags, sigma, one_sigma, dtype):
    leaves = draw(shape, max_delay, sigma, dtype, one_sigma=one_sigma)
    got = lag_kernel(*leaves, max_delay, "gauss", False, n_lags)
    want = reference_taps(*leaves, 0, max_delay, max_delay, "gauss")[..., :n_lags].sum(2).movedim(-1, 0)
    grad = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    kind = "float64" if dtype == torch.float64 else "float32"
    close(got, want, kind)
    grads = [torch.autograd.grad(result, leaves, grad) for result in (got, want)]
    for ours, reference in zip(*grads, strict=True):
        scale = reference.abs().max().clamp(min=1e-3)  # sums that cancel
        close(ours / scale, reference / scale, kind if dtype == torch.float64 else "float32 gradient")
    assert walks == {"forward": 1, "backward": 1}


@pytest.mark.parametrize(
    "options", [("gauss", (0.5, 0.9), False), ("triangle", (2.0, 9.0), False), ("gauss", (2.0, 3.0), True)]
)
def test_what_walks_cannot_do_goes_the_usual_way(walks, options):
    kernel, sigma, round_delays = options
    leaves = draw((3, 2, 1), 40, sigma, torch.float64)
    got = lag_kernel(*leaves, 40, kernel, round_delays, 30)
    assert torch.equal(got, dense_kernel(*leaves, 40, kernel, round_delays, 30).movedim(-1, 0))
    assert walks == {"forward": 0, "backward": 0}


def test_walks_do_not_depend_on_the_number_of_threads():
    leaves = draw((37, 29, 1), 251, (12.5, 12.5), torch.float32)
    n_threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            got = lag_kernel(*leaves, 251, "gauss", False, 200)
            results.append((got, *torch.autograd.grad(got.square().sum(), leaves)))
    finally:
        torch.set_num_threads(n_threads)
    for others in results[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(others, results[0], strict=True))
