"""The ways to compute a delay layer: each against a plain loop or the dense one, and proof of which one ran."""

import itertools
import math

import numpy as np
import pytest
import torch
from tolerances import close

from snn import DelayLinear
from snn.delays import PATHS, SHAPES, calls, delay_linear

I, O = 5, 4  # noqa: E741 - the legend of the package
PEERS = ["banded", "fft"]


def draw(generator, kernel_count=1, max_delay=9, share="synapse", dtype=torch.float64, sigma=(0.3, 3.0)):
    shape = (O, I, kernel_count)
    weight = torch.randn(shape, generator=generator, dtype=dtype) / math.sqrt(I)
    of_delay = {"synapse": shape, "axon": (1, *shape[1:]), "dendrite": (O, 1, kernel_count)}[share]
    delay = torch.rand(of_delay, generator=generator, dtype=dtype) * (max_delay - 1)
    delay.flatten()[0], delay.flatten()[-1] = 0, max_delay - 1
    low, high = sigma
    return weight, delay, low + (high - low) * torch.rand(of_delay, generator=generator, dtype=dtype)


def spikes(generator, *shape, dtype=torch.float64, rate=0.3):
    return (torch.rand(shape, generator=generator) < rate).to(dtype)


def run(x, leaves, **options):
    """Return the output and the gradients of input, weight, delay and sigma, and check that the path named ran."""
    x, *leaves = [leaf.detach().clone().requires_grad_() for leaf in (x, *leaves)]
    before = calls.copy()
    y, choice = delay_linear(x, *leaves, **options)
    assert calls - before == {choice.path: 1}, "another path ran"
    assert options.get("backend", "auto") in ("auto", choice.path)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    grads = torch.autograd.grad((y * seed).sum(), [x, *leaves], allow_unused=True, materialize_grads=True)
    return y.detach(), grads


def same(got, want):
    double = got[0].dtype == torch.float64
    close(got[0], want[0])
    for ours, reference in zip(got[1], want[1], strict=True):
        close(ours, reference, "float64" if double else "float32 gradient")


# A plain loop


def by_loops(x, weight, delay, sigma, max_delay, kernel):
    y = np.zeros((len(x), x.shape[1], O))
    lags = np.arange(max_delay)
    for o, i, k in np.ndindex(*weight.shape):
        distance, width = np.abs(lags - delay[o, i, k]), sigma[o, i, k]
        bump = {
            "gauss": np.exp(-0.5 * (distance / width) ** 2),
            "triangle": np.maximum(0, width - distance),
            "linear": np.maximum(0, 1 - distance),
        }[kernel]
        taps = weight[o, i, k] * bump / (bump.sum() + (0 if kernel == "linear" else 1e-7))
        for lag in range(min(max_delay, len(x))):
            y[lag:, :, o] += taps[lag] * x[: len(x) - lag, :, i]
    return y


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize("n_steps", [4, 30])
@pytest.mark.parametrize("backend", ["dense", *PEERS])
def test_output_is_that_of_a_plain_numpy_loop(generator, backend, n_steps, kernel):
    leaves = draw(generator, kernel_count=2, sigma=(1.0, 3.0))
    x = torch.randn(n_steps, 3, I, generator=generator, dtype=torch.float64)
    y, _ = delay_linear(x, *leaves, max_delay=9, kernel=kernel, backend=backend)
    close(y, torch.from_numpy(by_loops(x.numpy(), *(p.numpy() for p in leaves), 9, kernel)))


@pytest.mark.parametrize("backend", ["dense", "banded"])
def test_what_comes_later_changes_nothing_before(generator, backend):
    leaves = draw(generator, sigma=(5.0, 9.0))
    x = spikes(generator, 20, 2, I)
    changed = x.clone()
    changed[11:] = 1 - changed[11:]
    first, second = (delay_linear(z, *leaves, max_delay=9, backend=backend)[0] for z in (x, changed))
    assert torch.equal(first[:11], second[:11])
    assert not torch.equal(first[11], second[11])


# Finite differences


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize(
    ("backend", "share"),
    [("dense", "synapse"), ("banded", "synapse"), ("fft", "synapse"), ("separable", "axon"), ("separable", "dendrite")],
)
@pytest.mark.parametrize("kernel_count", [1, 2])
def test_gradients_are_right_by_finite_differences(generator, backend, share, kernel, kernel_count):
    weight, delay, sigma = draw(generator, kernel_count, 5, share, sigma=(1.1, 1.9))
    delay = delay.clamp(0.1, 3.9)  # a corner has no derivative
    x = torch.randn(7, 2, I, generator=generator, dtype=torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (x, weight, delay, sigma)]
    leaves[3].requires_grad_(kernel != "linear")
    options = {"max_delay": 5, "kernel": kernel, "backend": backend}
    assert torch.autograd.gradcheck(lambda *p: delay_linear(*p, **options)[0], leaves)


# Fast against slow


@pytest.mark.parametrize("n_batch", [0, 1, 3, 16, 20, 33])
@pytest.mark.parametrize("kernel_count", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_size_gives_what_dense_gives(generator, dtype, kernel_count, n_batch):
    for n_steps, max_delay in itertools.product([0, 1, 2, 7, 16, 17, 50], [1, 9, 60]):
        leaves = draw(generator, kernel_count, max_delay, dtype=dtype)
        x = spikes(generator, n_steps, n_batch, I, dtype=dtype)
        want = run(x, leaves, max_delay=max_delay, backend="dense")
        assert want[0].shape == (n_steps, n_batch, O)
        for backend in (*PEERS, "auto"):
            same(run(x, leaves, max_delay=max_delay, backend=backend), want)


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize("share", ["axon", "dendrite"])
@pytest.mark.parametrize("round_delays", [False, True])
def test_shared_delays_give_what_dense_gives(generator, round_delays, share, kernel):
    for kernel_count, n_batch, n_steps in itertools.product([1, 2], [0, 1, 16, 33], [0, 3, 30]):
        leaves = draw(generator, kernel_count, share=share, sigma=(1.0, 3.0))
        x = spikes(generator, n_steps, n_batch, I)
        options = {"max_delay": 9, "kernel": kernel, "round_delays": round_delays}
        want = run(x, leaves, **options, backend="dense")
        same(run(x, leaves, **options), want)
        same(run(x, leaves, **options, backend="discrete" if round_delays else "banded"), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_batch", [0, 1, 3, 16, 20, 33])
def test_whole_step_delays_give_the_same_bits_everywhere(generator, n_batch, dtype):
    """Sums of small dyadic numbers are exact, so that their order does not matter; gradients, too."""
    for n_steps, max_delay, kernel_count in itertools.product([0, 1, 2, 7, 17, 50], [1, 9, 60], [1, 3]):
        _, delay, sigma = draw(generator, kernel_count, max_delay, dtype=dtype)
        delay = (2 * delay).round() / 2
        weight = torch.randint(-64, 65, (O, I, kernel_count), generator=generator).to(dtype) / 16
        x = torch.randint(0, 3, (n_steps, n_batch, I), generator=generator).to(dtype)
        options = {"max_delay": max_delay, "round_delays": True}
        want = delay_linear(x, weight, delay, **options, backend="dense")[0]
        for backend in ("discrete", "event", "auto"):
            with torch.no_grad():
                assert torch.equal(delay_linear(x, weight, delay, **options, backend=backend)[0], want), backend
        bits = (x > 0).to(dtype)
        with torch.no_grad():
            plain, *others = (
                delay_linear(bits, weight, delay, **options, backend=backend)[0]
                for backend in ("dense", "packed", "discrete", "event", "auto")
            )
        assert all(torch.equal(other, plain) for other in others)
        transformed = delay_linear(x, weight, delay, **options, backend="fft")[0]
        if want.numel():  # rounds in proportion to the largest number
            assert (transformed - want).abs().max() <= 8 * torch.finfo(dtype).eps * want.abs().max().clamp(min=1)
        grads = [run(x, (weight, delay, sigma), **options, backend=b)[1] for b in ("dense", "discrete")]
        for ours, reference in zip(*grads, strict=True):
            close(ours, reference, "float64" if dtype == torch.float64 else "float32 gradient")
        assert not grads[1][2].any(), "whole-step delays have no gradient"


@pytest.mark.parametrize("kernel", ["gauss", "triangle"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_wide_bump_among_narrow_ones(generator, kernel, dtype):
    """The window must be that of the widest, wherever its delay is; the others' taps are cut to nothing in it."""
    for wide in (2.0, 6.0, 40.0, 1e6):
        weight, delay, sigma = draw(generator, 2, 30, dtype=dtype, sigma=(1.0, 1.0))
        sigma.flatten()[::7] = wide
        x = spikes(generator, 40, 3, I, dtype=dtype)
        options = {"max_delay": 30, "kernel": kernel}
        want = run(x, (weight, delay, sigma), **options, backend="dense")
        for backend in PEERS:
            same(run(x, (weight, delay, sigma), **options, backend=backend), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["dense", *PEERS])
def test_half_precision_input_is_summed_in_the_dtype_of_the_weights(generator, backend, dtype):
    leaves = draw(generator, dtype=torch.float32)
    x = torch.randn(20, 3, I, generator=generator).to(dtype)
    got, grads = run(x, leaves, max_delay=9, backend=backend)
    want, want_grads = run(x.float(), leaves, max_delay=9, backend="dense")
    assert (got.dtype, grads[0].dtype) == (torch.float32, dtype)
    close(got, want)
    close(grads[0], want_grads[0], str(dtype).removeprefix("torch."))
    close(grads[2], want_grads[2], "float32 gradient")


@pytest.mark.parametrize("backend", ["dense", *PEERS, "discrete", "packed", "event"])
def test_memory_that_is_not_contiguous(generator, backend):
    rounds = backend in ("discrete", "packed", "event")
    x = torch.randn(3, I, 20, generator=generator, dtype=torch.float64).permute(2, 0, 1)
    if backend == "packed":
        x = (x > 0.5).double().permute(1, 2, 0).contiguous().permute(2, 0, 1)
        assert not x.is_contiguous()
    weight, delay, sigma = (p.transpose(0, 1).contiguous().transpose(0, 1) for p in draw(generator, 2))
    options = {"max_delay": 9, "backend": backend, "round_delays": rounds}
    plain = [p.contiguous() for p in (x, weight, delay, sigma)]
    with torch.no_grad():
        close(delay_linear(x, weight, delay, sigma, **options)[0], delay_linear(*plain, **options)[0])
    if backend not in ("packed", "event"):
        leaves = [p.detach().requires_grad_() for p in (x, weight, delay, sigma)]
        seed = torch.randn(O, 20, 3, generator=generator, dtype=torch.float64).permute(1, 2, 0)
        y, _ = delay_linear(*leaves, **options)
        grads = torch.autograd.grad((y * seed).sum(), leaves[:2])
        y, _ = delay_linear(*leaves, **{**options, "backend": "dense"})
        for ours, reference in zip(grads, torch.autograd.grad((y * seed).sum(), leaves[:2]), strict=True):
            close(ours, reference)


# Which one runs


def layer_and_input(path, generator):
    """Return a layer and an input for which "auto" should take `path`."""
    options = {"banded": {"sigma": 0.3}, "fft": {"sigma": 60.0}, "separable": {"share": "axon"}}.get(path, {})
    layer = DelayLinear(I, O, 200, **options).train(path in ("banded", "fft", "separable"))
    x = spikes(generator, 100, 16, I, dtype=torch.float32, rate=0.005 if path == "event" else 0.3)
    return layer, 2 * x if path == "discrete" else x


def with_masked_additions(monkeypatch, there):
    monkeypatch.setattr("snn.delays.packed._masked_additions", lambda: there)


@pytest.mark.parametrize("path", [p for p in PATHS if p != "dense"])
def test_auto_takes_each_path_where_it_belongs(generator, path, monkeypatch):
    """Dense is left out: on the CPU it never wins, and elsewhere it is what "auto" takes."""
    with_masked_additions(monkeypatch, True)
    layer, x = layer_and_input(path, generator)
    with torch.no_grad():
        before = calls.copy()
        y = layer(x)
        assert calls - before == {path: 1}
        assert layer.last_choice.path == path
        assert layer.last_choice.reason
        layer.backend = "dense"
        close(y, layer(x))
        assert layer.last_choice == ("dense", "asked for")


@pytest.mark.parametrize(
    ("there", "n_batch", "rate", "path"),
    [
        (True, 16, 0.02, "packed"),
        (False, 16, 0.02, "event"),
        (False, 16, 0.3, "discrete"),
        (True, 3, 0.3, "discrete"),
    ],
)
def test_bits_are_taken_where_they_are_quicker(generator, monkeypatch, there, n_batch, rate, path):
    """Only with masked additions, and not where most samples of a word would be there to fill it."""
    with_masked_additions(monkeypatch, there)
    layer = DelayLinear(I, O, 9).eval()
    with torch.no_grad():
        layer(spikes(generator, 200, n_batch, I, dtype=torch.float32, rate=rate))
    assert layer.last_choice.path == path


@pytest.mark.parametrize("n_batch", [2, 33])
def test_bits_of_many_inputs_and_outputs(generator, n_batch):
    """More outputs than a tile holds, and steps that fill no block; weights are dyadic, so that sums are exact."""
    weight = torch.randint(-64, 65, (37, 70, 2), generator=generator).float() / 16
    delay = torch.randint(0, 25, weight.shape, generator=generator).float()
    x = spikes(generator, 101, n_batch, 70, dtype=torch.float32)
    options = {"max_delay": 25, "round_delays": True}
    with torch.no_grad():
        bits, rows = (delay_linear(x, weight, delay, **options, backend=b)[0] for b in ("packed", "dense"))
    assert torch.equal(bits, rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bits_of_spikes_in_half_precision(generator, dtype):
    layer = DelayLinear(I, O, 9, backend="packed").eval()
    x = spikes(generator, 30, 16, I, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(layer(x.to(dtype)), layer(x))


def test_events_are_not_taken_where_a_gradient_is_wanted(generator):
    layer = DelayLinear(I, O, 9).eval()
    layer(spikes(generator, 100, 16, I, dtype=torch.float32, rate=0.005)).sum().backward()
    assert layer.last_choice.path == "discrete"
    assert layer.weight.grad is not None


def test_numbers_do_not_depend_on_the_threads(generator):
    """Large enough that the work is split."""
    weight, delay, sigma = (torch.cat([p, p, p]) for p in draw(generator, 2, 40, dtype=torch.float32, sigma=(0.3, 0.6)))
    x = spikes(generator, 200, 64, I, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            y, grads = run(x, (weight, delay, sigma), max_delay=40, backend="banded")
            whole = {"max_delay": 40, "round_delays": True}
            arrived = [delay_linear(x, weight, delay, **whole, backend=b)[0] for b in ("discrete", "packed", "event")]
            found.append([y, *grads, *arrived])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
