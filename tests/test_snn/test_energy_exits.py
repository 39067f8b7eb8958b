"""Energy of networks that stop: up to each sample's exit, and no more."""

import pytest
import torch
from torch import nn

import snn
from snn.conversion import QCFS, ann_to_snn
from snn.early_exit import DynamicConfidence
from snn.energy import energy_report, measure_exits
from snn.stepping import as_stepper

T = 8


def converted():
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), QCFS(4, 1.0), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), QCFS(4, 0.5), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    return ann_to_snn(ann, n_steps=T), torch.rand(30, 1, 8, 8)


def folded():
    ann = snn.models.vgg(
        5, 10, in_shape=(1, 8, 8), width=0.125, classifier=(16,), generator=torch.Generator().manual_seed(0)
    )
    net, x = snn.to_spiking(ann, T), torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    snn.calibrate_thresholds(net, x)
    return net, x


def delays():
    generator = torch.Generator().manual_seed(0)
    net = snn.models.delay_mlp(20, 4, hidden=(16, 12), max_delay=5, readout="max", generator=generator).eval()
    return net, (torch.rand(T, 30, 20, generator=generator) < 0.3).float()


NETWORKS = {"converted": converted, "folded": folded, "delays": delays}


def decision(net, x, threshold, **options):
    accumulate = "max" if isinstance(net, snn.models.DelayMLP) else "sum"
    return DynamicConfidence(net, T, alpha=1.0, threshold=threshold, accumulate=accumulate, **options)


def threshold_between(net, x):
    """Return a threshold at which some samples leave early and some do not."""
    certainty = decision(net, x, 0.0).predict(x).certainty
    return float(certainty.median())


def same(ours, theirs):
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert (mine.name, mine.input, mine.macs) == (other.name, other.input, other.macs)
        for field in ("evaluations", "input_rate", "nonzero_rate", "mac_operations", "ac_operations", "energy_pj"):
            assert getattr(mine, field) == pytest.approx(getattr(other, field), rel=1e-6, nan_ok=True), field
        assert mine.ann_energy_pj == other.ann_energy_pj
    for mine, other in zip(ours.neurons, theirs.neurons, strict=True):
        assert (mine.name, mine.n_neurons) == (other.name, other.n_neurons)
        assert mine.rate == pytest.approx(other.rate)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"check_every": 3}])
@pytest.mark.parametrize("report", [{}, {"first_layer": "every_step", "ac_rule": "nonzero", "count_bias": True}])
def test_without_early_exits_it_is_the_report_of_the_network(kind, options, report):
    net, x = NETWORKS[kind]()
    whole = energy_report(net, x, batch_axis=int(kind == "delays"), **report)
    same(energy_report(decision(net, x, 1.0, **options), x, **report), whole)


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_is_the_mean_over_samples_that_run_as_long_as_they_do(kind):
    net, x = NETWORKS[kind]()
    decide = decision(net, x, threshold_between(net, x))
    steps, axis = decide.predict(x).steps, int(kind == "delays")
    assert 1 < steps.double().mean() < T
    parts = []
    for n_steps in steps.unique().tolist():
        some = x.index_select(axis, (steps == n_steps).nonzero()[:, 0])
        if kind == "delays":
            parts.append((energy_report(net, some[:n_steps], batch_axis=1), some.shape[1]))
        else:
            parts.append((energy_report(net, some, n_steps=n_steps), len(some)))
    want = sum(part.energy_pj * count for part, count in parts) / len(steps)
    report = energy_report(decide, x, batch_size=7)
    assert report.energy_pj == pytest.approx(want, rel=1e-6)
    assert report.n_steps == T
    assert report.n_samples == 30
    assert f"{steps.double().mean():.4g} of {T} steps" in report.assumptions[1]


def test_the_order_and_the_size_of_batches_do_not_matter():
    net, x = converted()
    decide = decision(net, x, threshold_between(net, x))
    reports = [energy_report(decide, x[torch.randperm(30)], batch_size=size) for size in (1, 4, 64)]
    for other in reports[1:]:
        same(other, reports[0])


def test_what_comes_before_the_first_neuron_is_counted_once():
    net, x = converted()
    activity = measure_exits(decision(net, x, 1.0), x)
    assert [layer.static for layer in activity.layers] == [True, False, False]
    assert activity.evaluations == (1.0, T, T)
    assert activity.exit.mean_steps == T


def test_a_stepper_that_holds_a_network_will_do():
    net, x = folded()
    same(energy_report(decision(as_stepper(net), x, 0.5), x), energy_report(decision(net, x, 0.5), x))


def test_the_network_comes_out_as_it_went_in():
    net, x = folded()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    energy_report(decision(net, x, 0.5), x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_mistakes_are_named():
    net, x = converted()
    with pytest.raises(TypeError, match=r"`decide.model` must be a network of modules.*pass the network"):
        energy_report(DynamicConfidence(None, 4, alpha=1.0, threshold=0.5), torch.rand(4, 3, 2))
    with pytest.raises(ValueError, match="`n_steps` must be left out for a network with exits"):
        energy_report(decision(net, x, 0.5), x, n_steps=3)
    with pytest.raises(ValueError, match="`batch_axis` must be left out"):
        energy_report(decision(net, x, 0.5), x, batch_axis=1)
    with pytest.raises(ValueError, match="Call fit"):
        energy_report(DynamicConfidence(net, T), x)
    with pytest.raises(ValueError, match="`x` must have at least one sample"):
        energy_report(decision(net, x, 0.5), x[:0])
