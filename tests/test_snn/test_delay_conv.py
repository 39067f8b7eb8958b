"""Delayed convolutions against one ordinary convolution a lag, which is slow and evidently right."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from tolerances import close

from snn import DelayConv1d, DelayConv2d, DelayLinear
from snn.delays import SHAPES, SHARES, calls

D = 6
CONVS = {1: DelayConv1d, 2: DelayConv2d}
GEOMETRIES = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "stride": 2},
}
# Differs from axis to axis.
SKEW = {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}
KERNEL_SIZES = {1: 3, 2: (3, 2)}


def build(n_axes, *, in_channels=4, out_channels=8, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(8)
    options = {"kernel_count": 2, "sigma": 1.3, **options}
    layer = CONVS[n_axes](in_channels, out_channels, KERNEL_SIZES[n_axes], D, generator=generator, **options).to(dtype)
    if not layer.rounds:
        with torch.no_grad():  # widths that differ from weight to weight
            layer.sigma.add_(torch.rand(layer.sigma.shape, generator=generator))
    return layer


def images(generator, n_axes, n_steps=10, n_batch=2, channels=4, dtype=torch.float64):
    size = (8,) if n_axes == 1 else (8, 7)
    return torch.randn(n_steps, n_batch, channels, *size, generator=generator, dtype=dtype)


def lag_by_lag(layer, x):
    """Sum F.conv(x[t - d], W_d) over the lags d."""
    lags = torch.arange(layer.max_delay, dtype=x.dtype).view(-1, *[1] * layer.weight.ndim)
    delay = layer.delay.clamp(0, layer.max_delay - 1)
    if layer.rounds:
        kernel = layer.weight * (lags == delay.round())
    else:
        distance = (lags - delay).abs()
        bump = {
            "gauss": torch.exp(-0.5 * (distance / layer.sigma) ** 2),
            "triangle": F.relu(layer.sigma - distance),
            "linear": F.relu(1 - distance),
        }[layer.kernel]
        kernel = layer.weight * bump / (bump.sum(0) + (0 if layer.kernel == "linear" else 1e-7))
    convolve = F.conv1d if layer.n_axes == 1 else F.conv2d
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    steps = []
    for t in range(len(x)):
        heard = [convolve(x[t - d], kernel[d].sum(-1), **options) for d in range(min(t + 1, layer.max_delay))]
        steps.append(sum(heard))
    y = torch.stack(steps)
    return y if layer.bias is None else y + layer.bias.view(-1, *[1] * layer.n_axes)


def with_gradients(function, layer, x):
    leaf = x.clone().requires_grad_()
    learned = [p for p in layer.parameters() if p.requires_grad]
    y = function(leaf)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
    grads = torch.autograd.grad((y * seed).sum(), [leaf, *learned], allow_unused=True, materialize_grads=True)
    return [y.detach(), *grads]


def same_as_lag_by_lag(layer, x, kind=None):
    got = with_gradients(layer, layer, x)
    for ours, reference in zip(got, with_gradients(lambda z: lag_by_lag(layer, z), layer, x), strict=True):
        close(ours, reference, kind)


@pytest.mark.parametrize("n_axes", CONVS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("backend", ["auto", "dense"])
def test_every_geometry_and_sharing_is_right(generator, n_axes, geometry, share, backend):
    x = images(generator, n_axes)
    for training in (True, False):
        for out_channels in (4, 8) if geometry == "depthwise" else (8,):
            layer = build(
                n_axes, out_channels=out_channels, share=share, backend=backend, bias=True, learn_sigma=True,
                **GEOMETRIES[geometry],
            ).train(training)  # fmt: skip
            same_as_lag_by_lag(layer, x)
            if backend == "dense":
                assert layer.last_choice.path == "dense"
            elif share == "dendrite" or (share == "axon" and geometry != "depthwise"):
                assert layer.last_choice.path == "separable"


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize("backend", ["dense", "banded", "fft"])
@pytest.mark.parametrize("n_axes", CONVS)
def test_every_kernel_on_every_path_is_right(generator, n_axes, backend, kernel):
    layer = build(n_axes, kernel=kernel, backend=backend, groups=2, learn_sigma=kernel != "linear")
    before = calls.copy()
    same_as_lag_by_lag(layer, images(generator, n_axes))
    ran = calls - before
    assert set(ran) == {backend}
    assert layer.last_choice.path == backend


@pytest.mark.parametrize("backend", ["dense", "discrete", "fft"])
@pytest.mark.parametrize("n_axes", CONVS)
def test_whole_step_delays_on_every_path_are_right(generator, n_axes, backend):
    same_as_lag_by_lag(build(n_axes, backend=backend).eval(), images(generator, n_axes))


@pytest.mark.parametrize("n_axes", CONVS)
@torch.no_grad()
def test_whole_step_delays_give_the_same_bits(generator, n_axes):
    """Small dyadic numbers, whose sums are exact in any order."""
    layer = build(n_axes, dtype=torch.float32, padding=1).eval()
    layer.weight.copy_(torch.randint(-32, 33, layer.weight.shape, generator=generator) / 16)
    x = torch.randint(-3, 4, images(generator, n_axes).shape, generator=generator).float()
    want = lag_by_lag(layer, x)
    for backend in ("auto", "dense", "discrete", "event"):
        layer.backend = backend
        assert torch.equal(layer(x), want), backend
    layer.backend, spikes = "packed", (x > 0).float()
    assert torch.equal(layer(spikes), lag_by_lag(layer, spikes))


def test_geometry_of_each_axis_is_its_own(generator):
    for backend in ("auto", "dense"):
        same_as_lag_by_lag(build(2, backend=backend, **SKEW), images(generator, 2))


@pytest.mark.parametrize("n_axes", CONVS)
def test_single_precision_is_right(generator, n_axes):
    layer = build(n_axes, dtype=torch.float32, padding=1)
    same_as_lag_by_lag(layer, images(generator, n_axes, dtype=torch.float32), "float32 gradient")


@pytest.mark.parametrize(("n_steps", "n_batch"), [(0, 2), (5, 0), (1, 1), (3, 2), (17, 3)])
@pytest.mark.parametrize("backend", ["auto", "dense"])
@pytest.mark.parametrize("n_axes", CONVS)
def test_short_and_empty_sequences(generator, n_axes, backend, n_steps, n_batch):
    layer = build(n_axes, backend=backend)
    x = images(generator, n_axes, n_steps, n_batch)
    got = with_gradients(layer, layer, x)
    assert got[0].shape == (n_steps, n_batch, 8, *([6] if n_axes == 1 else [6, 6]))
    if n_steps and n_batch:
        same_as_lag_by_lag(layer, x)
    else:
        assert all(not grad.any() for grad in got[1:])


@pytest.mark.parametrize("kernel_count", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_a_kernel_of_one_place_is_a_linear_layer_on_each_place(generator, training, kernel_count):
    conv = DelayConv1d(4, 5, 1, D, kernel_count=kernel_count, bias=True).double().train(training)
    linear = DelayLinear(4, 5, D, kernel_count=kernel_count, bias=True).double().train(training)
    linear.load_state_dict({name: p.view(linear.state_dict()[name].shape) for name, p in conv.state_dict().items()})
    x = images(generator, 1)
    places = x.permute(0, 1, 3, 2).flatten(1, 2)  # [T, B * L, C]
    want = linear(places).unflatten(1, (2, 8)).permute(0, 1, 3, 2)
    close(conv(x), want)


@pytest.mark.parametrize("n_axes", CONVS)
def test_without_delays_it_is_an_ordinary_convolution(generator, n_axes):
    layer = CONVS[n_axes](4, 8, 3, 1, padding=1).double()
    x = images(generator, n_axes)
    convolve = F.conv1d if n_axes == 1 else F.conv2d
    want = convolve(x.flatten(0, 1), layer.weight[..., 0], padding=1).unflatten(0, x.shape[:2])
    close(layer.eval()(x), want)
    torch.testing.assert_close(layer.train()(x), want, rtol=2e-7, atol=1e-9)  # bumps are divided by 1 + 1e-7


def test_an_image_of_one_row_is_a_line(generator):
    for share in SHARES:
        line, image = (
            conv(4, 8, size, D, padding=pad, share=share, generator=torch.Generator().manual_seed(1))
            for conv, size, pad in ((DelayConv1d, 3, 1), (DelayConv2d, (1, 3), (0, 1)))
        )
        x = images(generator, 1, dtype=torch.float32)
        close(image(x.unsqueeze(3)).squeeze(3), line(x))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("n_axes", CONVS)
def test_shared_delays_have_the_shape_that_is_documented(share, n_axes):
    layer = build(n_axes, share=share, groups=2)
    ones = (1,) * n_axes
    size = (3,) if n_axes == 1 else (3, 2)
    want = {"synapse": (8, 2, *size, 2), "axon": (1, 2, *ones, 2), "dendrite": (8, 1, *ones, 2)}[share]
    assert layer.weight.shape == (8, 2, *size, 2)
    assert layer.delay.shape == layer.sigma.shape == want


def test_memory_that_is_not_contiguous(generator):
    for n_axes, backend in itertools.product(CONVS, ["auto", "dense"]):
        layer = build(n_axes, backend=backend)
        x = images(generator, n_axes)
        close(layer(x.transpose(0, 1).contiguous().transpose(0, 1)), layer(x))
        close(layer(x.transpose(2, -1).contiguous().transpose(2, -1)), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_input_is_summed_in_the_dtype_of_the_weights(generator, dtype):
    for n_axes, backend in itertools.product(CONVS, ["auto", "dense"]):
        layer = build(n_axes, backend=backend, dtype=torch.float32)
        x = images(generator, n_axes).to(dtype)
        y = layer(x)
        assert y.dtype == torch.float32
        close(y, layer(x.float()))
