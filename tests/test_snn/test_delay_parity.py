"""Delays against the DCLS package, which trained the published networks, and between neurons of spikingjelly."""

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from DCLS.construct.modules import ConstructKernel1d, Dcls1d
from tolerances import close
from torch import nn

from snn import LIF, DelayLinear, Surrogate
from snn.delays import calls, delay_linear
from snn.delays.lags import dense_kernel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from spikingjelly.activation_based import functional, neuron, surrogate

pytestmark = pytest.mark.reference

# Theirs -> ours, and what they add to |SIG|.
KERNELS = {"gauss": ("gauss", 0.27), "max": ("triangle", 1.0), "v0": ("linear", None), "v1": ("triangle", None)}
T, B, C_IN, C_OUT = 40, 2, 3, 4
LENGTHS = [7, 25, 31, 24]


def their_layer(generator, version, length, kernel_count, dtype=torch.float64, edges=True):
    """Return a Dcls1d whose positions fill the range, its ends included, and whose widths differ in size and sign."""
    layer = Dcls1d(
        C_IN, C_OUT, kernel_count=kernel_count, dilated_kernel_size=length, bias=False, version=version
    ).to(dtype)  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        lowest, highest = -(length // 2), (length - 1) // 2
        layer.P.copy_(lowest + (highest - lowest) * torch.rand(layer.P.shape, generator=generator))
        if edges:
            layer.P.view(-1)[0], layer.P.view(-1)[1] = lowest, highest
        if layer.SIG is not None:
            layer.SIG.copy_(torch.randn(layer.SIG.shape, generator=generator) * length / 8)
    return layer


def our_parameters(layer, version, length):
    """Return weight, delay and sigma as functions of theirs, so that both are differentiated by the same leaves."""
    added = KERNELS[version][1]
    delay = (length - 1) - (layer.P[0] + length // 2)
    return layer.weight, delay, torch.ones_like(delay) if added is None else layer.SIG[0].abs() + added


def their_output(layer, x, length):
    padded = F.pad(x.permute(1, 2, 0), (length - 1, 0))  # [B, C, T], as theirs
    return layer(padded).permute(2, 0, 1)


def leaves_of(layer, x):
    return [p for p in (layer.weight, layer.P, layer.SIG, x) if p is not None]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kernel_count", [1, 2])
@pytest.mark.parametrize("version", KERNELS)
def test_kernels_are_those_of_dcls(generator, version, kernel_count, length):
    layer = their_layer(generator, version, length, kernel_count)
    build = ConstructKernel1d(C_OUT, C_IN, 1, kernel_count, (length,), version)
    theirs = build(layer.weight, layer.P, layer.SIG)
    ours = dense_kernel(*our_parameters(layer, version, length), length, KERNELS[version][0], False)
    close(ours.flip(-1), theirs)  # theirs goes backwards in time


CASES = list(itertools.product(KERNELS, [1, 2], LENGTHS))


@pytest.mark.parametrize(("version", "kernel_count", "length"), CASES)
@pytest.mark.parametrize("backend", ["dense", "banded", "fft"])
def test_outputs_and_gradients_are_those_of_dcls(generator, backend, version, kernel_count, length):
    # At a whole position linear interpolation has a corner, where theirs takes the other slope.
    layer = their_layer(generator, version, length, kernel_count, edges=version not in ("v0", "v1"))
    x = torch.randn(T, B, C_IN, generator=generator, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(T, B, C_OUT, generator=generator, dtype=torch.float64)
    theirs = their_output(layer, x, length)
    ours, choice = delay_linear(
        x, *our_parameters(layer, version, length), max_delay=length, kernel=KERNELS[version][0], backend=backend
    )
    assert choice.path == backend
    close(ours, theirs)
    leaves = leaves_of(layer, x)
    want = torch.autograd.grad((theirs * seed).sum(), leaves)
    for got, reference in zip(torch.autograd.grad((ours * seed).sum(), leaves), want, strict=True):
        close(got, reference)


@pytest.mark.parametrize("backend", ["dense", "banded", "fft"])
@pytest.mark.parametrize("length", LENGTHS)
def test_linear_interpolation_at_the_ends_is_that_of_dcls(generator, length, backend):
    layer = their_layer(generator, "v0", length, 2)
    x = torch.randn(T, B, C_IN, generator=generator, dtype=torch.float64)
    options = {"max_delay": length, "kernel": "linear", "backend": backend}
    close(delay_linear(x, *our_parameters(layer, "v0", length), **options)[0], their_output(layer, x, length))


@pytest.mark.parametrize("backend", ["dense", "banded", "fft"])
@pytest.mark.parametrize("version", ["gauss", "max"])
def test_single_precision_is_that_of_dcls(generator, version, backend):
    layer = their_layer(generator, version, 25, 1, torch.float32)
    x = torch.rand(T, B, C_IN, generator=generator).round().requires_grad_()
    theirs = their_output(layer, x, 25)
    ours, _ = delay_linear(
        x, *our_parameters(layer, version, 25), max_delay=25, kernel=KERNELS[version][0], backend=backend
    )
    close(ours, theirs, "float32")
    leaves = leaves_of(layer, x)
    want = torch.autograd.grad(theirs.square().sum(), leaves)
    for got, reference in zip(torch.autograd.grad(ours.square().sum(), leaves), want, strict=True):
        close(got, reference, "float32 gradient")


@pytest.mark.parametrize("length", [7, 25])
def test_a_spike_arrives_when_theirs_does(length):
    """The mapping itself: delay = D // 2 - P, seen from one spike through sharp bumps."""
    for position in range(-(length // 2), length // 2 + 1):
        layer = Dcls1d(1, 1, kernel_count=1, dilated_kernel_size=length, bias=False, version="max")
        ours = DelayLinear(1, 1, length, kernel="triangle", sigma=1.0)
        with torch.no_grad():
            layer.P.fill_(position)
            ours.delay.fill_(length // 2 - position)
            ours.weight.copy_(layer.weight)
        spike = torch.zeros(length + 3, 1, 1)
        spike[1] = 1
        y = ours(spike)
        close(y, their_output(layer, spike, length))
        assert y.abs().argmax() == 1 + length // 2 - position


@pytest.mark.parametrize("length", [7, 25, 31])
def test_delays_out_of_range_are_clamped_as_theirs(generator, length):
    layer = their_layer(generator, "gauss", length, 1)
    ours = DelayLinear(C_IN, C_OUT, length).double()
    with torch.no_grad():
        layer.P.mul_(1.5)
        ours.delay.copy_(our_parameters(layer, "gauss", length)[1])
    layer.clamp_parameters()
    ours(torch.zeros(2, 1, C_IN, dtype=torch.float64))
    close(ours.delay.detach(), our_parameters(layer, "gauss", length)[1].detach())


# Rounded delays: the same bits


def rounded_theirs(generator, length, kernel_count, halves):
    """Return what their evaluation computes: version max, SIG = 0, rounded positions; and our delays for it."""
    layer = their_layer(generator, "max", length, kernel_count, torch.float32)
    with torch.no_grad():
        if halves:
            layer.P.copy_((layer.P - 0.5).round() + 0.5).clamp_(-(length // 2), length // 2)
        delay = our_parameters(layer, "max", length)[1].clone()
        layer.weight.copy_(torch.randint(-64, 65, layer.weight.shape, generator=generator) / 16)
        weight = layer.weight.clone()
        # Theirs divides by 1 + 1e-7, which is 1 + 2**-23 in float32.
        layer.weight.mul_(1 + 2**-23)
        layer.SIG.zero_()
        layer.P.round_()
        layer.clamp_parameters()
        expected = torch.zeros(C_OUT, C_IN, length)
        expected.scatter_add_(2, (layer.P[0] + length // 2).long(), weight)
        assert torch.equal(layer.DCK(layer.weight, layer.P, layer.SIG), expected), "their kernel is not the weight"
    return layer, weight, delay


# Where D // 2 is even, the even neighbour of a position is that of the delay: so it is in the paper, D = 25.
ROUNDED = [(7, False), (25, False), (31, False), (25, True), (9, True)]


@pytest.mark.parametrize(("length", "halves"), ROUNDED)
@pytest.mark.parametrize("kernel_count", [1, 2])
@torch.no_grad()
def test_rounded_delays_are_bit_for_bit_those_of_dcls(generator, length, halves, kernel_count):
    theirs, weight, delay = rounded_theirs(generator, length, kernel_count, halves)
    x = torch.randint(0, 4, (T, 19, C_IN), generator=generator).float()
    want = their_output(theirs, x, length)
    ours = DelayLinear(C_IN, C_OUT, length, kernel_count=kernel_count).eval()
    ours.weight.copy_(weight)
    ours.delay.copy_(delay)
    for backend in ("auto", "dense", "discrete", "event"):
        ours.backend = backend
        assert torch.equal(ours(x), want), backend
    ours.backend, spikes = "packed", (x > 1).float()
    assert torch.equal(ours(spikes), their_output(theirs, spikes, length))
    ours.backend = "fft"
    torch.testing.assert_close(ours(x), want, rtol=0, atol=1e-5 * float(want.abs().max()))
    state, steps = None, []
    for one in x:
        y, state = ours.step(one, state)
        steps.append(y)
    assert torch.equal(torch.stack(steps), want)


@pytest.mark.parametrize("share", ["axon", "dendrite"])
@torch.no_grad()
def test_shared_rounded_delays_are_bit_for_bit_those_of_dcls(generator, share):
    theirs, weight, delay = rounded_theirs(generator, 25, 2, False)
    ours = DelayLinear(C_IN, C_OUT, 25, kernel_count=2, share=share).eval()
    ours.weight.copy_(weight)
    ours.delay.copy_(delay[:1] if share == "axon" else delay[:, :1])
    theirs.P.copy_((12 - ours.delay.round()).expand(C_OUT, C_IN, 2)[None])
    x = torch.randint(0, 4, (T, 5, C_IN), generator=generator).float()
    assert torch.equal(ours(x), their_output(theirs, x, 25))
    assert ours.last_choice.path == "separable"


# spikingjelly


def test_layers_stand_between_spikingjellys_neurons(generator):
    def node():
        return neuron.LIFNode(tau=2.0, decay_input=False, detach_reset=True, surrogate_function=surrogate.ATan(5.0))

    delays = [DelayLinear(6, 8, 9, sigma=0.6), DelayLinear(8, 3, 9, share="axon")]
    with torch.no_grad():
        for layer in delays:  # no order of summation moves a spike over the threshold
            layer.weight.copy_(torch.randint(-2, 6, layer.weight.shape, generator=generator) / 8)
            layer.delay.copy_(torch.randint(0, 9, layer.delay.shape, generator=generator))
    theirs = nn.Sequential(node(), delays[0], node(), delays[1], node())
    functional.set_step_mode(theirs, "m")
    ours = nn.Sequential(*[LIF(tau=2.0, surrogate=Surrogate(name="atan", alpha=5.0)) if i % 2 == 0 else layer
                           for i, layer in enumerate(theirs)])  # fmt: skip
    x = torch.rand(20, 4, 6, generator=generator) * 2
    for training in (True, False):
        found, before = [], calls.total()
        for network in (theirs.train(training), ours.train(training)):
            functional.reset_net(network)
            for layer in delays:
                layer.zero_grad()
            y = network(x)
            y.sum().backward()
            found.append([y.detach(), *(layer.weight.grad.clone() for layer in delays)])
        assert calls.total() == before + 4
        assert found[0][0].sum() > 0
        assert torch.equal(found[0][0], found[1][0])
        for got, want in zip(*found, strict=True):
            close(got, want, "float32 gradient")
