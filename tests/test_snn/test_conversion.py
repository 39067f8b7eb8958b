"""Folding, placing neurons, calibrating: the same function before and after, and the authors' percentile."""

import numpy as np
import pytest
import torch
from tolerances import close
from torch import nn

import snn
from snn.models import resnet, vgg


def trained_like(model, generator):
    """Give the normalisations statistics as training would leave them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return model.eval()


def small_vgg(generator, **options):
    options = {"in_shape": (1, 8, 8), "width": 0.1, "classifier": (64,), "generator": generator, **options}
    return trained_like(vgg(5, 10, **options), generator)


@pytest.mark.parametrize("build", [small_vgg, lambda g: trained_like(resnet(12, 10, width=0.1, generator=g), g)])
def test_folding_keeps_the_function_and_removes_every_norm(generator, build):
    model = build(generator)
    x = torch.randn(5, *model.in_shape, generator=generator)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = snn.fold_batchnorm(model)
    close(folded(x), model(x), "float32")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "the model was changed"


def test_folding_into_a_linear_layer_and_a_layer_with_bias(generator):
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 3, 1), nn.BatchNorm1d(3, affine=False)
    )
    flat = nn.Sequential(model[0], model[1]).eval()
    flat[1].running_mean.normal_(generator=generator)
    x = torch.randn(7, 4, generator=generator)
    close(snn.fold_batchnorm(flat, x)(x), flat(x), "float32")


class OutOfOrder(nn.Module):
    """Two branches that are called crosswise to how they are registered."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_a = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.b, self.norm_b = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm_b(self.a(x)) + self.norm_a(self.b(x))


def test_wrong_pairs_are_found_and_not_folded_silently(generator):
    model = OutOfOrder()
    model.norm_a.running_mean.fill_(3.0)
    model.norm_b.weight.data.fill_(2.0)
    with pytest.raises(ValueError, match="`model` must compute the same with its normalisations folded"):
        snn.fold_batchnorm(model, torch.randn(5, 4, generator=generator))
    with pytest.raises(
        ValueError, match=r"`1` must come right after a convolution or linear layer, got a ReLU before it"
    ):
        snn.fold_batchnorm(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match="must keep running statistics"):
        snn.fold_batchnorm(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)))


def test_thresholds_are_the_authors_percentile_layer_by_layer(generator):
    """Against numpy: run the layers by hand with the thresholds found so far."""
    model = snn.to_spiking(small_vgg(generator, n_pools=0, classifier=()), 4)
    x = torch.rand(6, 1, 8, 8, generator=generator)
    found = snn.calibrate_thresholds(model, x, 90.0)
    layers = dict(model.named_modules())

    def percentile(current):
        flat = np.sort(current.reshape(current.shape[0], -1), axis=1)
        return flat[:, round(0.9 * (flat.shape[1] - 1))].max()

    spikes = None
    for name in model.activation_names:
        conv = layers[name.replace("act", "conv")]
        with torch.no_grad():
            current = (
                conv(x)[None].repeat(4, 1, 1, 1, 1)
                if spikes is None
                else conv(spikes.flatten(0, 1)).unflatten(0, (4, 6))
            )
        assert found[name] == pytest.approx(percentile(current.numpy()), rel=1e-5)
        u, train = torch.zeros_like(current[0]), []
        for step in current:
            u = u + step
            train.append((u > found[name]).float())
            u = u - found[name] * train[-1]
        spikes = torch.stack(train)
    assert len(found) == 3
    assert [layers[name].v_threshold.item() for name in found] == pytest.approx(list(found.values()))


def test_calibration_options(generator):
    model = snn.to_spiking(small_vgg(generator), 3)
    x = torch.rand(6, 1, 8, 8, generator=generator)
    full = snn.calibrate_thresholds(model, x)
    assert model.n_steps == 3
    some = snn.calibrate_thresholds(model, x, n_steps=8, layers=("features.act1",), scale=0.5)
    assert list(some) == ["features.act1"]
    assert some["features.act1"] == pytest.approx(0.5 * full["features.act1"]), "a constant current has one percentile"
    dead = snn.to_spiking(small_vgg(generator), 3)
    nn.init.constant_(dead.features.conv2.weight, -1.0)
    nn.init.constant_(dead.features.conv2.bias, -1.0)
    assert snn.calibrate_thresholds(dead, x)["features.act2"] == 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m, x: snn.calibrate_thresholds(m, x, 101),
            "`percentile` must be a finite number >= 0 and <= 100, got 101",
        ),
        (lambda m, x: snn.calibrate_thresholds(m, x, layers=("act9",)), "`layers` must name neurons of the model"),
        (lambda m, x: snn.calibrate_thresholds(m, x[:, 0]), r"`x` must have shape \(B, 1, 8, 8\), got \(2, 8, 8\)"),
        (lambda m, x: snn.calibrate_thresholds(m, x / 0), "`x` must hold finite numbers only"),
        (lambda m, x: snn.to_spiking(m, 0), "`n_steps` must be a whole number >= 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(generator, change, message):
    model = snn.to_spiking(small_vgg(generator), 2)
    with pytest.raises(ValueError, match=message):
        change(model, torch.rand(2, 1, 8, 8, generator=generator))


def test_networks_that_cannot_be_converted_are_named(generator):
    with pytest.raises(TypeError, match=r"`ann` must be a snn.models.FoldedNetwork, got Sequential"):
        snn.to_spiking(nn.Sequential(nn.Linear(2, 2)), 2)
    with pytest.raises(ValueError, match=r"`model` must have spiking layers, got VGG\. Convert it with snn.to_spiking"):
        snn.calibrate_thresholds(small_vgg(generator), torch.rand(2, 1, 8, 8, generator=generator))
