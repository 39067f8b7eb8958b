"""Delay layers as modules: parameters that stay as they are, reading delays, checkpoints, other dtypes and devices."""

import copy

import pytest
import torch
from tolerances import close
from torch import nn

import snn
from snn import LIF, DelayConv1d, DelayConv2d, DelayLinear, clamp_delays, delays_in_steps, fix_delays
from snn.delays import ROUNDING, SHAPES, SHARES, ms_to_steps

LAYERS = {
    "linear": (lambda **options: DelayLinear(5, 4, 9, **options), (12, 3, 5)),
    "1d": (lambda **options: DelayConv1d(2, 4, 3, 9, **options), (12, 3, 2, 7)),
    "2d": (lambda **options: DelayConv2d(2, 4, 3, 9, **options), (12, 3, 2, 5, 4)),
}


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_bits(module, before):
    after = module.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name


# Training, evaluation and back


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("share", SHARES)
def test_evaluation_leaves_parameters_as_they_are(generator, which, grad, share):
    build, shape = LAYERS[which]
    layer = build(bias=True, share=share, kernel_count=2, generator=generator)
    x = torch.rand(shape, generator=generator)
    before, versions = bits(layer), [p._version for p in layer.parameters()]
    pointers = [p.data_ptr() for p in layer.parameters()]
    with torch.set_grad_enabled(grad):
        layer.train()
        first = layer(x)
        layer.eval()
        layer(x)
        layer.step(x[0])
        layer.train()
        assert torch.equal(layer(x), first)
    assert_same_bits(layer, before)
    assert versions == [p._version for p in layer.parameters()]
    assert pointers == [p.data_ptr() for p in layer.parameters()]


def test_evaluate_leaves_a_network_as_it_is(generator):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(DelayLinear(5, 8, 9, generator=generator), LIF(tau=2.0), DelayLinear(8, 3, 9))

        def forward(self, x):  # [B, T, C]
            return self.layers(x.transpose(0, 1)).sum(0)

    model = Classifier().train()
    before = bits(model)
    batch = torch.rand(6, 10, 5, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])
    first = snn.evaluate(model, [batch])
    assert model.training
    assert model.layers[0].last_choice.path in ("discrete", "packed", "event"), "delays were not whole steps"
    assert snn.evaluate(model, [batch]) == first
    assert_same_bits(model, before)


@pytest.mark.parametrize("which", LAYERS)
def test_training_clamps_delays_and_evaluation_does_so_in_memory_only(generator, which):
    build, shape = LAYERS[which]
    layer, inside = build(generator=generator), build()
    outside = torch.linspace(-30, 30, layer.delay.numel()).view_as(layer.delay)
    with torch.no_grad():
        layer.delay.copy_(outside)
        inside.load_state_dict(layer.state_dict())
        inside.delay.clamp_(0, 8)
    x = torch.rand(shape, generator=generator)
    layer.eval()
    assert torch.equal(layer(x), inside.eval()(x))
    assert torch.equal(layer.step(x[0])[0], inside.step(x[0])[0])
    assert torch.equal(layer.delays_in_steps(), inside.delays_in_steps())
    assert torch.equal(layer.delay, outside)
    layer.train()
    assert torch.equal(layer(x), inside.train()(x))
    assert torch.equal(layer.delay, inside.delay)
    assert (layer.delay.min(), layer.delay.max()) == (0, 8)


def test_delays_at_an_end_can_leave_it(generator):
    layer = DelayLinear(1, 2, 9, sigma=2.0)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([-3.0, 12.0]).view(2, 1, 1))
    x = torch.rand(20, 4, 1, generator=generator)
    layer(x).square().sum().backward()
    assert (layer.delay.grad != 0).all()


def test_learned_widths_stay_at_least_the_smallest(generator):
    for kernel in ("gauss", "triangle"):
        layer = DelayLinear(3, 2, 9, kernel=kernel, learn_sigma=True)
        with torch.no_grad():
            layer.sigma[0] = -1.0
        layer(torch.rand(5, 2, 3, generator=generator))
        assert layer.sigma[0].unique().item() == pytest.approx(SHAPES[kernel].least_sigma)


def test_clamp_delays_reaches_every_layer():
    model = nn.Sequential(DelayLinear(3, 3, 5), nn.ModuleDict({"deep": DelayConv1d(1, 1, 1, 7)}))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(100)
    clamp_delays(model)
    assert (model[0].delay == 4).all()
    assert (model[1]["deep"].delay == 6).all()
    assert (model[0].weight == 100).all()


@pytest.mark.parametrize("which", LAYERS)
def test_rounding_always_or_never_makes_training_and_evaluation_alike(generator, which):
    build, shape = LAYERS[which]
    options = {"sigma": 0.5, "learn_delay": False}
    layers = {rounding: build(rounding=rounding, **options) for rounding in ROUNDING}
    x, y = torch.rand(shape, generator=generator), {}
    for rounding, layer in layers.items():
        layer.load_state_dict(layers["eval"].state_dict())
        y[rounding] = {training: layer.train(training)(x) for training in (True, False)}
    for training in (True, False):
        close(y["always"][training], y["eval"][False])
        close(y["never"][training], y["eval"][True])
    assert not torch.allclose(y["eval"][True], y["eval"][False])


@pytest.mark.parametrize("which", LAYERS)
def test_fixed_delays_train_the_network_that_evaluation_runs(generator, which):
    build, shape = LAYERS[which]
    layer = build(learn_sigma=True)
    model, x = nn.Sequential(layer), torch.rand(shape, generator=generator)
    want = model.eval()(x)
    before = bits(model)
    fix_delays(model)
    model.train()
    y = model(x)
    close(y, want)
    y.sum().backward()
    assert_same_bits(model, before)
    assert [name for name, p in layer.named_parameters() if p.grad is not None] == ["weight"]


def test_narrow_bumps_at_whole_delays_give_what_evaluation_gives(generator):
    """At the end of the schedule rounding changes little: the mass beside the centre is that of the bump."""
    layer = DelayLinear(5, 4, 9, kernel="triangle", sigma=1.0, generator=generator)
    with torch.no_grad():
        layer.delay.round_()
    x = torch.rand(12, 3, 5, generator=generator)
    close(layer.train()(x), layer.eval()(x))


def test_same_generator_same_layer():
    one, two = (DelayLinear(5, 4, 9, bias=True, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert_same_bits(one, bits(two))
    assert one.delay.min() >= 0
    assert one.delay.max() <= 8


# Reading delays


def test_delays_are_read_in_steps_and_in_ms():
    layer = DelayLinear(2, 1, 9, dt_ms=2.5)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([2.5, 11.0]).view(1, 2, 1))
    assert layer.delays_in_steps().flatten().tolist() == [2, 8]
    assert layer.delays_in_steps(whole=False).flatten().tolist() == [2.5, 8.0]
    assert layer.delays_in_ms().flatten().tolist() == [5.0, 20.0]
    assert layer.delays_in_ms(whole=False).flatten().tolist() == [6.25, 20.0]
    assert not layer.delays_in_steps(whole=False).requires_grad
    assert torch.equal(delays_in_steps(layer), layer.delays_in_steps())
    assert layer.delays_in_steps().dtype == torch.int32


def test_delays_of_a_network_are_named():
    model = nn.Sequential(DelayLinear(2, 3, 5), nn.Sequential(DelayConv1d(3, 1, 1, 7)))
    found = delays_in_steps(model)
    assert {name: tuple(delays.shape) for name, delays in found.items()} == {"0": (3, 2, 1), "1.0": (1, 3, 1, 1)}


@pytest.mark.parametrize(
    ("duration_ms", "dt_ms", "steps"),
    [(250, 10, 25), (0.3, 0.1, 3), (0, 1, 0), (1, 1 / 3, 3), (1e6, 0.1, 10_000_000), (0.7, 0.1, 7), (2.4e-3, 8e-4, 3)],
)
@pytest.mark.parametrize("round_up", [False, True])
def test_ms_are_whole_steps(duration_ms, dt_ms, steps, round_up):
    assert ms_to_steps(duration_ms, dt_ms, round_up=round_up) == steps


def test_ms_between_steps_round_up_on_demand_only():
    assert ms_to_steps(25, 10, round_up=True) == 3
    with pytest.raises(ValueError, match=r"`duration_ms` must be a whole number of steps of 10 ms.*Take 20 or 30 ms"):
        ms_to_steps(25, 10)


def test_a_layer_shows_what_it_is():
    layer = DelayLinear(5, 4, 9, kernel_count=2, share="axon", learn_delay=False, dt_ms=1.0, bias=True)
    assert "5, 4, 9 delays, kernel='gauss', kernel_count=2, share='axon', delays fixed, dt_ms=1, bias" in repr(layer)
    assert "kernel_size=(3, 3)" in repr(DelayConv2d(2, 4, 3, 9, padding=1))


# Copies, files, devices


@pytest.mark.parametrize("which", LAYERS)
def test_copies_and_checkpoints_compute_the_same(generator, which, tmp_path):
    build, shape = LAYERS[which]
    layer = build(bias=True, generator=generator)
    x = torch.rand(shape, generator=generator)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    loaded = build(bias=True)
    loaded.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True), strict=True)
    layer(x)
    for other in (loaded, copy.deepcopy(layer)):
        assert torch.equal(other.train()(x), layer.train()(x))
        assert torch.equal(other.eval()(x), layer.eval()(x))
    assert layer.state_dict().keys() == {"weight", "delay", "sigma", "bias"}


def test_a_checkpoint_of_shorter_delays_computes_the_same(generator):
    short, long = DelayLinear(5, 4, 9, sigma=1.0), DelayLinear(5, 4, 30)
    long.load_state_dict(short.state_dict())
    x = torch.rand(40, 3, 5, generator=generator)
    assert torch.equal(long.eval()(x), short.eval()(x))


def test_a_checkpoint_of_longer_delays_is_clamped():
    """Like delays that left the range in training; the file's own numbers stay until training goes on."""
    long, short = DelayLinear(5, 4, 30), DelayLinear(5, 4, 9)
    short.load_state_dict(long.state_dict())
    short.eval()(torch.ones(3, 1, 5))
    assert torch.equal(short.delay, long.delay)
    assert torch.equal(short.delays_in_steps(), long.delays_in_steps().clamp(max=8))


@pytest.mark.parametrize("which", LAYERS)
def test_double_precision_and_back(generator, which):
    build, shape = LAYERS[which]
    layer = build(generator=generator)
    x = torch.rand(shape, generator=generator)
    single = layer(x)
    double = layer.double()(x.double())
    assert double.dtype == torch.float64
    close(single, double)
    assert torch.equal(layer.float()(x), single)


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_shapes_are_found_on_the_meta_device(which, training):
    build, shape = LAYERS[which]
    layer = build().train(training)
    want = layer(torch.zeros(shape))
    got = layer.to("meta")(torch.zeros(shape, device="meta"))
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert layer.last_choice.path == "dense"


@pytest.mark.parametrize("sigma", [0.3, 60.0])
def test_inference_mode_leaves_nothing_behind_that_training_trips_over(generator, sigma):
    layer = DelayLinear(5, 4, 60, sigma=sigma)
    x = torch.rand(100, 3, 5, generator=generator)
    with torch.inference_mode():
        before = layer(x)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(before, y)


@pytest.mark.parametrize("backend", ["dense", "banded", "fft", "separable"])
def test_mixed_precision_learns_as_single_precision_does(generator, backend):
    layer = DelayLinear(5, 4, 60, sigma=2.0, backend=backend, share="axon" if backend == "separable" else "synapse")
    x = (torch.rand(70, 3, 5, generator=generator) < 0.3).float()
    grads = []
    for enabled in (True, False):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = layer(x)
        y.float().square().sum().backward()
        grads.append((y.float(), layer.weight.grad.clone()))
    for half, single in zip(*grads, strict=True):
        assert (half - single).norm() < 2e-2 * single.norm()


# torch.compile

COMPILED = {
    "gauss": {},
    "triangle": {"kernel": "triangle"},
    "linear": {"kernel": "linear"},
    "axon": {"share": "axon"},
    "bias": {"bias": True, "learn_sigma": True},
}


@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself, differently in each release
@pytest.mark.parametrize("case", COMPILED)
def test_compiled_layers_compute_and_learn_the_same(generator, case):
    """By Dynamo and AOTAutograd, which trace forward and backward; code generation would take 15 s more."""
    layer = DelayLinear(5, 4, 8, **COMPILED[case]).double()
    torch.compiler.reset()  # every case is one more version of the same code, and there is a limit
    compiled = torch.compile(layer, backend="aot_eager")
    x = torch.rand(12, 3, 5, generator=generator, dtype=torch.float64)
    found = []
    for function in (compiled, layer):
        leaf = x.clone().requires_grad_()
        learned = [p for p in layer.parameters() if p.requires_grad]
        y = function(leaf)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), [leaf, *learned])])
        if function is compiled:
            assert layer.last_choice.path == ("separable" if case == "axon" else "dense")
    for got, want in zip(*found, strict=True):
        close(got, want)
    layer.eval()
    with torch.no_grad():
        close(compiled(x), layer(x))
