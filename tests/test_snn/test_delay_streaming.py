"""One time step at a time gives what the whole sequence gives."""

import pytest
import torch
from tolerances import close

from snn import DelayConv1d, DelayConv2d, DelayLinear
from snn.delays import SHAPES, SHARES
from snn.delays.streaming import DelayState

D = 6
LAYERS = {
    "linear": (lambda **options: DelayLinear(5, 4, D, **options), (3, 5)),
    "1d": (lambda **options: DelayConv1d(4, 6, 3, D, groups=2, padding=1, stride=2, **options), (3, 4, 7)),
    "2d": (lambda **options: DelayConv2d(2, 4, (3, 2), D, dilation=(1, 2), **options), (3, 2, 5, 4)),
}


def build(which, **options):
    options = {"kernel_count": 2, "bias": True, "sigma": 1.2, "generator": torch.Generator().manual_seed(4), **options}
    return LAYERS[which][0](**options)


def stream(layer, x, state=None):
    steps = []
    for one in x:
        y, state = layer.step(one, state)
        steps.append(y)
    return torch.stack(steps), state


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n_steps", [1, 4, 6, 20])
def test_steps_add_up_to_the_sequence(generator, which, share, training, n_steps):
    layer = build(which, share=share).double().train(training)
    x = torch.randn(n_steps, *LAYERS[which][1], generator=generator, dtype=torch.float64)
    close(stream(layer, x)[0], layer(x))


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("kernel", SHAPES)
def test_steps_of_every_kernel_add_up_to_the_sequence(generator, which, kernel):
    layer = build(which, kernel=kernel).train()
    x = torch.rand(20, *LAYERS[which][1], generator=generator)
    close(stream(layer, x)[0], layer(x))


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("max_delay", [1, 6])
@torch.no_grad()
def test_whole_step_delays_give_the_same_bits(generator, which, max_delay):
    """Small dyadic numbers, whose sums are exact in any order."""
    layer = build(which).eval()
    layer.max_delay = max_delay
    layer.weight.copy_(torch.randint(-32, 33, layer.weight.shape, generator=generator) / 16)
    layer.bias.copy_(torch.randint(-32, 33, layer.bias.shape, generator=generator) / 16)
    layer.delay.copy_(torch.randint(0, 2 * max_delay, layer.delay.shape, generator=generator) / 2)
    x = torch.randint(-3, 4, (25, *LAYERS[which][1]), generator=generator).float()
    assert torch.equal(stream(layer, x)[0], layer(x))


@pytest.mark.parametrize("which", LAYERS)
@torch.no_grad()
def test_a_stream_goes_on_where_it_stopped(generator, which):
    layer = build(which).eval()
    x = torch.rand(23, *LAYERS[which][1], generator=generator)
    whole, _ = stream(layer, x)
    first, state = stream(layer, x[:9])
    second, _ = stream(layer, x[9:], state)
    assert torch.equal(torch.cat([first, second]), whole)


@torch.no_grad()
def test_streams_side_by_side_do_not_mix(generator):
    layer = build("linear").eval()
    one, two = torch.rand(2, 15, 3, 5, generator=generator)
    states, steps = [None, None], [[], []]
    for t in range(15):
        for s, x in enumerate((one, two)):
            y, states[s] = layer.step(x[t], states[s])
            steps[s].append(y)
    assert torch.equal(torch.stack(steps[0]), stream(layer, one)[0])
    assert torch.equal(torch.stack(steps[1]), stream(layer, two)[0])


def test_the_input_may_be_overwritten_after_a_step(generator):
    """A live loop reuses its buffer."""
    layer = build("linear").eval()
    x = torch.rand(15, 3, 5, generator=generator)
    want, buffer, state, steps = layer(x), torch.empty(3, 5), None, []
    for one in x:
        y, state = layer.step(buffer.copy_(one), state)
        steps.append(y)
    close(torch.stack(steps), want)


def test_the_ring_holds_the_last_inputs(generator):
    layer = build("linear").eval()
    x = torch.rand(D + 4, 3, 5, generator=generator)
    _, state = stream(layer, x)
    assert isinstance(state, DelayState)
    assert state.ring.shape == (D, 3, 5)
    assert torch.equal(state.ring.roll(-1 - state.now, 0), x[-D:])
    assert not state.ring.requires_grad


def test_weights_learn_from_a_stream_as_from_the_sequence(generator):
    """Inputs get no gradient: a stream has no end to go back from."""
    for training in (True, False):
        layer = build("linear").double().train(training)
        x = torch.randn(12, 3, 5, generator=generator, dtype=torch.float64)
        seed = torch.randn(12, 3, 4, generator=generator, dtype=torch.float64)
        learned = [layer.weight, layer.delay] if training else [layer.weight]
        want = torch.autograd.grad((layer(x) * seed).sum(), learned)
        for got, reference in zip(torch.autograd.grad((stream(layer, x)[0] * seed).sum(), learned), want, strict=True):
            close(got, reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_summed_in_the_dtype_of_the_weights(generator, dtype):
    layer = build("linear").eval()
    x = torch.rand(9, 3, 5, generator=generator).to(dtype)
    y, _ = stream(layer, x)
    assert y.dtype == torch.float32
    close(y, layer(x))


def test_a_state_of_another_stream_is_refused():
    layer = build("linear")
    _, state = layer.step(torch.ones(3, 5))
    with pytest.raises(ValueError, match=r"`state` must be of 6 steps of shape \(2, 5\).*Start with state=None"):
        layer.step(torch.ones(2, 5), state)
    other = DelayLinear(5, 4, 9)
    with pytest.raises(ValueError, match=r"`state` must be of 9 steps of shape \(3, 5\)"):
        other.step(torch.ones(3, 5), state)
    conv = build("1d")
    _, state = conv.step(torch.ones(3, 4, 7))
    with pytest.raises(ValueError, match="`state` must be of 6 steps"):
        conv.step(torch.ones(2, 4, 7), state)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 5)])
def test_a_step_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"`x` must have shape \(B, 5\), one time step"):
        build("linear").step(torch.ones(shape))
