"""The report of a conversion: numbers by their definition, and a finger on the layer that loses."""

import copy
import math

import numpy as np
import pytest
import torch
from fakes.anns import ANNS, build, trained_like
from torch import nn

from snn.conversion import QCFS, ann_to_snn, conversion_errors


@pytest.fixture(autouse=True)
def _seeded():
    """Plain layers draw their weights from torch's global generator, which conftest.py puts back after each test."""
    torch.manual_seed(0)


def qcfs_network(levels=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return trained_like(_two_layers(levels))


def _two_layers(levels):
    return nn.Sequential(nn.Linear(6, 40), QCFS(levels, 1.0), nn.Linear(40, 30), QCFS(levels, 1.0), nn.Linear(30, 4))


def test_numbers_are_those_of_their_definition(generator):
    model = qcfs_network(4)
    x = 3 * torch.randn(50, 6, generator=generator)
    network = ann_to_snn(model, n_steps=6)
    report = conversion_errors(model, network, x, batch_size=16)
    spikes = {}
    for name in ("1", "3"):
        network.get_submodule(name).register_forward_hook(
            lambda m, a, y, name=name: spikes.update({name: y[0].unflatten(0, (6, 50)).sum(0).numpy()})
        )
    with torch.no_grad():
        logits, have = model(x).numpy(), network(x).numpy() / 6
        currents = {"1": model[0](x).numpy(), "3": model[:3](x).numpy()}
        activations = {"1": model[:2](x).numpy(), "3": model[:4](x).numpy()}
    for layer in report.layers:
        ann, snn = activations[layer.name], spikes[layer.name] / 6
        assert layer.threshold == 1.0
        assert layer.ann_mean == pytest.approx(ann.mean())
        assert layer.snn_mean == pytest.approx(snn.mean())
        assert layer.mean_absolute_error == pytest.approx(np.abs(ann - snn).mean())
        assert layer.relative_error == pytest.approx(np.abs(ann - snn).mean() / ann.mean())
        assert layer.correlation == pytest.approx(np.corrcoef(ann.ravel(), snn.ravel())[0, 1])
        assert layer.clipped == pytest.approx((currents[layer.name] > 1).mean())
        assert layer.spike_rate == pytest.approx(spikes[layer.name].mean())
    assert report.logits_error == pytest.approx(np.abs(logits - have).mean(), rel=1e-4)
    assert report.relative_logits_error == pytest.approx(np.abs(logits - have).mean() / np.abs(logits).mean(), rel=1e-4)
    assert report.agreement == pytest.approx((logits.argmax(1) == have.argmax(1)).mean())
    assert (report.n_steps, report.n_samples) == (6, 50)
    assert 0 < report.layers[1].clipped < 1


def test_first_layer_of_qcfs_is_without_error_at_as_many_steps_as_levels(generator):
    model = qcfs_network()
    x = torch.randn(50, 6, generator=generator)
    exact, later = conversion_errors(model, ann_to_snn(model), x).layers
    assert exact.mean_absolute_error == pytest.approx(0, abs=1e-7)
    assert exact.correlation == pytest.approx(1)
    assert later.mean_absolute_error > 1e-3


@pytest.mark.parametrize("name", ["plain", "residual", "dense", "resnet"])
def test_errors_of_all_layers_fall_as_steps_grow(name):
    model, x = build(name)
    network = ann_to_snn(model, x, n_steps=8, percentile=100)
    few, many = (conversion_errors(model, network, x, n_steps) for n_steps in (8, 256))
    assert [layer.name for layer in few.layers] == list(network.thresholds) or len(few.layers) == len(
        network.thresholds
    )
    for before, after in zip(few.layers, many.layers, strict=True):
        assert after.mean_absolute_error < 0.3 * before.mean_absolute_error
        assert after.correlation > 0.99
    assert many.logits_error < 0.3 * few.logits_error
    assert network.n_steps == 8


@pytest.mark.parametrize("name", ["residual", "resnet", "vgg, QCFS"])
def test_layer_with_a_wrong_threshold_is_found(name):
    """The error of a layer far too low a threshold clips is in its own row first."""
    model, x = build(name)
    network = ann_to_snn(model, x, n_steps=32, percentile=100)
    names = [layer.name for layer in conversion_errors(model, network, x).layers]
    spoilt = names[len(names) // 2]
    good = conversion_errors(model, network, x)
    network.get_submodule(spoilt).v_threshold.mul_(0.05)
    bad = conversion_errors(model, network, x)
    ratios = {b.name: b.relative_error / g.relative_error for b, g in zip(bad.layers, good.layers, strict=True)}
    before = names[: names.index(spoilt)]
    assert all(ratios[name] == pytest.approx(1) for name in before)
    assert ratios[spoilt] > 2
    clipped = {layer.name: layer.clipped for layer in bad.layers}
    assert clipped[spoilt] == max(clipped.values())
    assert clipped[spoilt] > 0.2


def test_report_prints_a_table_with_a_row_for_each_layer():
    model, x = build("plain")
    report = conversion_errors(model, ann_to_snn(model, x, n_steps=16), x)
    lines = repr(report).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == [layer.name for layer in report.layers]
    assert [layer.name for layer in report.layers] == ["relu", "act2", "relu_2"]
    assert f"same label in {report.agreement:.2%} of 12 samples at T = 16" in lines[4]
    assert f"Largest error for its size: {report.worst.name}" in lines[5]
    assert report.worst.relative_error == max(layer.relative_error for layer in report.layers)
    assert report.table()[0].keys() >= {"name", "threshold", "clipped", "spike_rate"}


def test_silent_layer_has_no_relative_error_and_no_correlation():
    model = qcfs_network()
    nn.init.constant_(model[0].bias, -100.0)
    report = conversion_errors(model, ann_to_snn(model), torch.rand(5, 6))
    first, second = report.layers
    assert math.isnan(first.relative_error)
    assert math.isnan(first.correlation)
    assert first.spike_rate == 0
    # Its biases alone, and they are constant currents.
    assert second.mean_absolute_error == pytest.approx(0, abs=1e-7)
    assert report.worst.name == "3"


def test_network_before_quantisation_can_be_compared(generator):
    model, x = build("vgg")
    relu = copy.deepcopy(model)
    for name in model.activation_names:
        model.set_submodule(name, QCFS(8, 2.0))
    report = conversion_errors(relu, ann_to_snn(model), x, 64)
    assert [layer.name for layer in report.layers] == list(model.activation_names)


def test_nothing_is_left_behind_even_by_an_error():
    model, x = build("residual")
    network = ann_to_snn(model, x, n_steps=4)
    hooks = [len(module._forward_hooks) for module in network.modules()]
    with pytest.raises(RuntimeError):
        conversion_errors(model, network, x[:, :1], 9)
    assert network.n_steps == 4
    assert [len(module._forward_hooks) for module in network.modules()] == hooks


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, n, x: conversion_errors(m, m, x), TypeError, "`snn` must be a ConvertedNetwork, got Plain"),
        (lambda m, n, x: conversion_errors(nn.ReLU(), n, x), ValueError, "`ann` must have the activations of `snn`"),
        (lambda m, n, x: conversion_errors(m, n, x[:0]), ValueError, "`x` must .* at least one sample"),
        (lambda m, n, x: conversion_errors(m, n, x / 0), ValueError, "`x` must hold finite numbers only"),
        (lambda m, n, x: conversion_errors(m, n, x, 0), ValueError, "`n_steps` must be a whole number >= 1"),
        (lambda m, n, x: conversion_errors(m, n, x, batch_size=0), ValueError, "`batch_size` must be a whole number"),
    ],
)
def test_what_is_wrong_is_named(call, error, message):
    model, x = build("plain")
    network = ann_to_snn(model, x, n_steps=4)
    with pytest.raises(error, match=message):
        call(model, network, x)


def test_every_network_has_a_report():
    for name in ANNS:
        model, x = build(name)
        report = conversion_errors(model, ann_to_snn(model, x, n_steps=8), x)
        assert 0 <= report.agreement <= 1
        assert all(math.isfinite(layer.mean_absolute_error) for layer in report.layers)
