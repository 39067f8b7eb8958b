"""QCFS: what IF neurons give, its gradients, and networks that are trained with it."""

import copy

import numpy as np
import pytest
import torch
from tolerances import close
from torch import nn
from torch.nn import functional as F

import snn
from neuroloaders import ResidentLoader, example_data
from snn.conversion import QCFS, ann_to_snn, qcfs, quantise_activations
from snn.conversion.neurons import ConvertedIF
from snn.models import resnet, vgg


@pytest.fixture(autouse=True)
def _seeded():
    """Plain layers draw their weights from torch's global generator, which conftest.py puts back after each test."""
    torch.manual_seed(0)


LEVELS = [4, 8, 16]


def currents(generator, threshold, dtype=torch.float32):
    """60 000 currents from well below zero to well above the threshold."""
    return (torch.rand(60, 1000, generator=generator, dtype=dtype) * 3 - 1) * threshold


# --- the law that conversion stands on ----------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("threshold", "dtype"), [(8.0, torch.float32), (1.3, torch.float64)])
def test_if_neurons_at_as_many_steps_as_levels_give_exactly_qcfs(generator, levels, threshold, dtype):
    x = currents(generator, threshold, dtype)
    spikes, _ = ConvertedIF(threshold).to(dtype)(x, n_steps=levels, repeat_input=True)
    counts = spikes.unflatten(0, (levels, -1)).sum(0)
    want = qcfs(x, torch.tensor(threshold).to(dtype), levels)
    assert (counts != (want * levels / torch.tensor(threshold).to(dtype)).round()).sum() == 0
    assert torch.equal(counts / levels * torch.tensor(threshold).to(dtype), want)
    assert (x < 0).any()
    assert (x > threshold).any()


@pytest.mark.parametrize("levels", LEVELS)
def test_qcfs_rounds_half_up_and_clips_where_the_equation_says(levels):
    threshold = 2.0
    steps = torch.arange(-2, levels + 3, dtype=torch.float64)
    ties = (steps + 0.5) * threshold / levels
    want = (steps + 1).clamp(0, levels) * threshold / levels
    assert torch.equal(qcfs(ties, threshold, levels), want)
    assert torch.equal(qcfs(ties - 1e-12, threshold, levels), steps.clamp(0, levels) * threshold / levels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_qcfs_keeps_dtype_and_shape(generator, dtype):
    x = torch.randn(3, 0, 2, generator=generator).to(dtype)
    assert qcfs(x, 1.0, 4).shape == (3, 0, 2)
    y = QCFS(4, 1.0)(torch.randn(7, generator=generator).to(dtype))
    assert y.dtype == dtype
    assert set(y.tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}


@pytest.mark.reference
@pytest.mark.parametrize("levels", LEVELS)
def test_spikes_are_those_of_spikingjelly(generator, levels):
    from spikingjelly.activation_based import neuron

    threshold = 1.5
    x = torch.randn(2 * levels, 50, 20, generator=generator) * threshold
    peer = neuron.IFNode(v_threshold=threshold, v_reset=None, step_mode="m")
    peer.v = torch.full((50, 20), threshold / 2)
    want = peer(x)
    spikes, v = ConvertedIF(threshold)(x.flatten(0, 1), n_steps=2 * levels)
    assert torch.equal(spikes.view_as(want), want)
    close(v, peer.v, "float32")


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", LEVELS)
def test_gradients_are_the_closed_form(generator, levels):
    x = currents(generator, 1.7, torch.float64).requires_grad_()
    threshold = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    y = qcfs(x, threshold, levels)
    y.backward(grad)
    inside, above = (x > 0) & (x < threshold), x >= threshold
    assert torch.equal(x.grad, grad * inside)
    slope = torch.where(inside, (y - x) / threshold, above.double())
    close(threshold.grad, (grad * slope).sum().detach(), "float64")


def test_gradient_of_the_threshold_is_the_finite_difference_away_from_steps(generator):
    """The staircase has slope y / threshold; straight through, x / threshold is credited to x."""
    levels, threshold, h = 8, 1.7, 1e-6
    x = currents(generator, threshold, torch.float64)
    distance = (x * levels / threshold - 0.5) % 1
    x = x[(distance > 1e-3) & (distance < 1 - 1e-3)]
    difference = (qcfs(x, threshold + h, levels) - qcfs(x, threshold - h, levels)) / (2 * h)
    each = torch.tensor(threshold, dtype=torch.float64, requires_grad=True)
    values = [x[x < 0], x[(x > 0) & (x < threshold)], x[x > threshold]]
    credited = torch.cat([torch.zeros_like(values[0]), values[1] / threshold, torch.zeros_like(values[2])])
    got = torch.stack([torch.autograd.grad(qcfs(part, each, levels), each)[0] for part in torch.cat(values)[::50]])
    order = torch.cat([difference[x < 0], difference[(x > 0) & (x < threshold)], difference[x > threshold]])
    torch.testing.assert_close(got + credited[::50], order[::50], rtol=0, atol=1e-8)


def test_straight_through_slope_is_that_of_the_clip_with_the_rounding_error_held(generator):
    levels, threshold, h = 8, 1.7, 1e-6
    x = currents(generator, threshold, torch.float64)[0]
    error = (qcfs(x, threshold, levels) - x.clamp(0, threshold)) / threshold

    def held(theta):
        return (x.clamp(0, theta) + theta * error).sum()

    theta = torch.tensor(threshold, dtype=torch.float64, requires_grad=True)
    qcfs(x, theta, levels).sum().backward()
    assert theta.grad.item() == pytest.approx(((held(threshold + h) - held(threshold - h)) / (2 * h)).item(), rel=1e-6)


def test_threshold_and_input_learn_what_they_should():
    """Activations that are clipped pull the threshold up to them."""
    layer = QCFS(levels=4, threshold=1.0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    x = torch.full((64,), 3.0)
    for _ in range(100):
        optimizer.zero_grad()
        ((layer(x) - x) ** 2).mean().backward()
        optimizer.step()
    assert layer.threshold.item() == pytest.approx(3.0, abs=0.01)


# --- networks -----------------------------------------------------------------------------------------------------


def test_every_relu_is_quantised_at_the_percentile_of_its_activations(generator):
    model = vgg(5, 10, in_shape=(1, 8, 8), width=0.1, classifier=(32,), generator=generator)
    before = copy.deepcopy(model.state_dict())
    x = torch.rand(20, 1, 8, 8, generator=generator)
    quantised = quantise_activations(model, 16, x, percentile=95.0)
    assert quantised.training == model.training
    model.eval()
    for name in model.activation_names:
        layer, values = quantised.get_submodule(name), []
        handle = model.get_submodule(name).register_forward_hook(lambda m, a, y, values=values: values.append(y))
        model(x)
        handle.remove()
        flat = np.sort(values[0].detach().numpy().ravel())
        assert layer.levels == 16
        assert layer.threshold.item() == pytest.approx(flat[round(0.95 * (flat.size - 1))])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "the model was changed"
    assert isinstance(quantise_activations(model).features.act1, QCFS)
    assert quantise_activations(model).features.act1.threshold.item() == 8.0


def test_many_levels_compute_what_relu_computes(generator):
    model = resnet(12, 10, width=0.1, generator=generator).eval()
    x = torch.rand(4, 3, 32, 32, generator=generator)
    fine = quantise_activations(model, 1 << 20, x, percentile=100)
    torch.testing.assert_close(fine(x), model(x), rtol=1e-3, atol=1e-5)


def test_max_pools_become_average_pools_only_on_request(generator):
    model = vgg(5, 10, in_shape=(1, 8, 8), width=0.1, classifier=(32,), pool="max", generator=generator)
    assert isinstance(quantise_activations(model).features.pool1, nn.MaxPool2d)
    pool = quantise_activations(model, average_pools=True).features.pool1
    assert isinstance(pool, nn.AvgPool2d)
    assert (pool.kernel_size, pool.stride) == (model.features.pool1.kernel_size, model.features.pool1.stride)
    dilated = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2, dilation=2))
    with pytest.raises(ValueError, match=r"got a MaxPool2d that no average pooling can replace"):
        quantise_activations(dilated, average_pools=True)


class FunctionalRelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(F.relu(self.act(self.fc(x)) - 1))


class Twice(FunctionalRelu):
    def forward(self, x):
        return self.out(self.act(self.act(self.fc(x)) - 1))


def test_relus_that_hold_no_threshold_are_named():
    with pytest.raises(ValueError, match=r"`model` must .* got a call of `relu` as a function, or"):
        quantise_activations(FunctionalRelu())
    with pytest.raises(ValueError, match=r"`relu` .* or of one module for a second time.* Make it a module"):
        quantise_activations(Twice())
    with pytest.raises(ValueError, match=r"`1` must .* got a GELU\. Use nn.ReLU or snn.conversion.QCFS"):
        quantise_activations(nn.Sequential(nn.Linear(2, 2), nn.GELU()))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: qcfs(torch.ones(2, dtype=torch.int64), 1.0, 4), TypeError, "`x` must be a floating-point tensor"),
        (lambda: qcfs(torch.ones(2), 0.0, 4), ValueError, "`threshold` must be a finite number > 0"),
        (lambda: qcfs(torch.ones(2), torch.ones(2), 4), ValueError, "`threshold` must be one number for the layer"),
        (lambda: qcfs(torch.ones(2), 1.0, 0), ValueError, "`levels` must be a whole number >= 1"),
        (lambda: QCFS(levels=2.5), TypeError, "`levels` must be a whole number >= 1"),
        (lambda: QCFS(threshold=-1.0), ValueError, "`threshold` must be a finite number > 0"),
        (lambda: quantise_activations(nn.ReLU(), 0), ValueError, "`levels` must be a whole number >= 1"),
        (lambda: quantise_activations(nn.ReLU(), percentile=0), ValueError, "`percentile` must be a finite number > 0"),
        (
            lambda: quantise_activations(nn.Sequential(nn.ReLU()), x=torch.ones(0, 2)),
            ValueError,
            "`x` must .* at least one sample",
        ),
        (lambda: quantise_activations(lambda x: x), TypeError, "`model` must be a torch.nn.Module"),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_quantised_network_is_trained_by_fit_and_converts(generator):
    """Digits, trained with ReLU, then with 4 levels: the spiking network at T = 4 answers as the quantised one."""
    train, test = example_data("digits")
    images, labels = (torch.as_tensor(array) for array in (train.images, train.labels))
    images = images.float() / 255
    loader = ResidentLoader(images, labels, batch_size=64, shuffle=True, generator=generator)
    model = vgg(5, 10, in_shape=(1, 8, 8), width=0.25, classifier=(64,), n_pools=1, generator=generator)
    snn.fit(model, loader, None, snn.TrainConfig(epochs=3, lr=3e-3, select="last"), device="cpu")
    quantised = quantise_activations(model, 4, images[:256])
    before = [quantised.get_submodule(name).threshold.item() for name in quantised.activation_names]
    snn.fit(quantised, loader, None, snn.TrainConfig(epochs=2, lr=1e-3, select="last"), device="cpu")
    after = [quantised.get_submodule(name).threshold.item() for name in quantised.activation_names]
    assert all(a != b for a, b in zip(before, after, strict=True)), "thresholds did not learn"
    x, y = torch.as_tensor(test.images).float() / 255, torch.as_tensor(test.labels)
    with torch.no_grad():
        ann = (quantised(x).argmax(1) == y).double().mean()
        spiking = ann_to_snn(quantised)
        accuracy = (spiking(x).argmax(1) == y).double().mean()
    assert spiking.n_steps == 4
    assert ann > 0.9
    assert accuracy > ann - 0.05
