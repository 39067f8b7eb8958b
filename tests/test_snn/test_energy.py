"""Energy: the papers' numbers, hand-counted networks, and every way to unroll time."""

import csv
import math

import pytest
import torch
from fakes.spiking import IF, Stateful, Unfolded, digits, drawn, fixed, images, seeded, spiking
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snn.energy import AC_RULES, ENERGY_45NM, FIRST_LAYER, EnergyConstants, energy_from_rates, energy_report
from snn.energy.activity import MAC_RULES, MacRule, count_macs, measure_activity
from snn.models import resnet, vgg

# --- the equation -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg16_macs():
    model = vgg(16, 10, device="meta")
    return list(count_macs(model, torch.empty(1, 3, 32, 32, device="meta")).values())


# beta of the papers for VGG16 on CIFAR-10: 25 to 33 times, and round rates.
@pytest.mark.parametrize(("rate", "beta"), [(0.179, 25), (0.129, 33), (0.1, 40.5), (0.2, 22.6), (0.3, 15.7)])
def test_vgg16_ratio_at_a_rate_is_the_published_one(vgg16_macs, rate, beta):
    estimate = energy_from_rates(vgg16_macs, [None] + [rate] * 15)
    assert estimate.ratio == pytest.approx(beta, rel=5e-3)
    assert estimate.ann_pj == pytest.approx(4.6 * 338_403_328)


def test_energy_of_a_layer_is_operations_times_constant():
    estimate = energy_from_rates([10, 100, 20], [None, 0.5, None], evaluations=[3, 1, 2])
    assert estimate.snn_layers_pj == pytest.approx((4.6 * 30, 0.9 * 50, 4.6 * 40))
    assert estimate.ann_layers_pj == pytest.approx((46, 460, 92))
    cheap = EnergyConstants(mac_pj=1.5, ac_pj=0.4, source="half precision")
    assert energy_from_rates([10], [2.0], constants=cheap).ratio == pytest.approx(15 / 8)
    assert energy_from_rates([10], [0.0]).ratio == math.inf
    assert (ENERGY_45NM.mac_pj, ENERGY_45NM.ac_pj) == (4.6, 0.9)


@pytest.mark.parametrize(
    ("macs", "rates", "message"),
    [
        ([1, 2], [None], "must have the same length"),
        ([-1], [None], "`macs` must be a finite number >= 0"),
        ([1], [-0.1], "`rates` must be a finite number >= 0"),
        ([1], [math.nan], "`rates` must be a finite number >= 0"),
    ],
)
def test_bad_rates_are_refused(macs, rates, message):
    with pytest.raises(ValueError, match=message):
        energy_from_rates(macs, rates)


# --- counting MACs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 5), (7,)),
        (nn.Linear(7, 5), (6, 7)),
        (nn.Conv1d(4, 6, 5, stride=2, padding=1, groups=2), (4, 17)),
        (nn.Conv2d(4, 8, (3, 5), padding="same", dilation=2), (4, 9, 11)),
        (nn.Conv2d(8, 8, 3, groups=8, padding=1, padding_mode="circular"), (8, 6, 6)),
        (nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1)), (2, 4, 6, 7)),
    ],
)
def test_macs_are_half_of_torchs_own_flop_count(layer, shape):
    model, x = nn.Sequential(layer), torch.rand(3, *shape)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert count_macs(model, x) == {"0": counter.get_total_flops() / 2 / 3}
    assert count_macs(model.to("meta"), x.to("meta")) == count_macs(nn.Sequential(layer), x.to("meta"))


def test_layer_without_a_rule_is_refused_until_one_is_given():
    class Delay(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5, 4, 2))

        def forward(self, x):
            return x @ self.weight.sum(-1).T

    model, x = nn.Sequential(Delay()), torch.rand(3, 4)
    with pytest.raises(ValueError, match=r"`model` must be made of Conv1d, .* got a Delay at '0'\. Pass rules="):
        energy_report(model, x)
    report = energy_report(model, x, rules={Delay: MacRule(lambda module, output: module.weight.numel(), 1)})
    assert report.macs == 40
    with pytest.raises(ValueError, match="at least one weighted layer"):
        energy_report(nn.Sequential(nn.ReLU()), x)
    normed = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm((3, 4)), nn.Linear(4, 2))
    assert energy_report(normed, torch.rand(2, 3, 4)).macs == 3 * (16 + 8)
    assert all(issubclass(base, nn.Module) for base in MAC_RULES)


def test_layer_used_twice_is_counted_twice_and_unused_is_named():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(torch.relu(self.fc(x)))

    report = energy_report(Twice(), torch.rand(3, 4))
    assert report.macs == 32
    assert "layers that did not run are left out: other" in report.assumptions


# --- the report ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [vgg, resnet])
def test_ann_costs_what_an_ann_costs(build):
    model = build(5 if build is vgg else 12, 10, width=1 / 16, generator=seeded())
    report = energy_report(model, torch.rand(4, 3, 32, 32, generator=seeded()))
    assert report.ratio == 1
    assert report.energy_pj == pytest.approx(4.6 * report.macs)
    assert {layer.input for layer in report.layers} == {"analog"}
    assert report.neurons == ()
    assert math.isnan(report.mean_spike_rate)
    assert math.isnan(report.mean_input_rate)
    assert "no spiking neurons were found: counted as an ANN" in report.assumptions


def test_ann_with_binary_input_and_dead_units_stays_an_ann():
    model = nn.Sequential(fixed(nn.Linear(4, 3), -1), nn.ReLU(), fixed(nn.Linear(3, 2), 1))
    report = energy_report(model, torch.eye(4))
    assert report.ratio == 1


def hand_made():
    """2 x 2 image -> 1 x 1 convolution -> neurons -> average pooling -> linear, with known spikes."""
    return nn.Sequential(
        fixed(nn.Conv2d(1, 1, 1, bias=False), 1.0),
        IF(threshold=0.5, n_steps=2, repeat_input=True),
        nn.AvgPool2d(2),
        nn.Flatten(),
        fixed(nn.Linear(1, 3), 1.0),
    )


# Currents .6, .3, .1, 0 at threshold .5 over two steps: spikes 1+1, 0+1, 0, 0. The pooled input is 1/4, then 2/4.
HAND = torch.tensor([[[[0.6, 0.3], [0.1, 0.0]]]])


@pytest.mark.parametrize(("ac_rule", "operations"), [("spikes", 3 * 0.75), ("nonzero", 3 * 2)])
def test_pooled_spikes_are_charged_as_the_rule_says(ac_rule, operations):
    report = energy_report(hand_made(), HAND, ac_rule=ac_rule)
    conv, linear = report.layers
    assert (conv.input, conv.macs, conv.mac_operations, conv.ac_operations) == ("analog", 4, 4, 0)
    assert (linear.input, linear.macs, linear.mac_operations) == ("spikes", 3, 0)
    assert linear.input_rate == pytest.approx(0.75)
    assert linear.nonzero_rate == pytest.approx(2)
    assert linear.ac_operations == pytest.approx(operations)
    assert report.energy_pj == pytest.approx(4.6 * 4 + 0.9 * operations)
    assert report.ann_energy_pj == pytest.approx(4.6 * 7)
    assert [(neuron.name, neuron.n_neurons) for neuron in report.neurons] == [("1", 4)]
    assert report.neurons[0].rate == pytest.approx(3 / 4)
    assert AC_RULES[ac_rule] in repr(report)


@pytest.mark.parametrize(("first_layer", "times"), [("cached", 1), ("every_step", 2)])
def test_first_layer_is_charged_once_or_every_step(first_layer, times):
    report = energy_report(hand_made(), HAND, first_layer=first_layer)
    assert report.layers[0].evaluations == times
    assert report.layers[0].energy_pj == pytest.approx(4.6 * 4 * times)
    assert report.layers[0].ann_energy_pj == pytest.approx(4.6 * 4)
    assert FIRST_LAYER[first_layer] in report.assumptions


def test_bias_is_counted_on_demand_in_both_networks():
    plain = energy_report(hand_made(), HAND)
    report = energy_report(hand_made(), HAND, count_bias=True)
    assert [layer.bias_operations for layer in report.layers] == [0, 6]
    assert report.energy_pj - plain.energy_pj == pytest.approx(0.9 * 6)
    assert report.ann_energy_pj - plain.ann_energy_pj == pytest.approx(0.9 * 3)


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_folded_network_agrees_with_the_equation_at_any_number_of_steps(n_steps):
    model, x = digits(), images().double()
    report = energy_report(model, x, n_steps=n_steps)
    assert report.n_steps == n_steps
    assert [layer.input for layer in report.layers] == ["analog"] + ["spikes"] * 5
    assert all(0 < layer.input_rate <= n_steps for layer in report.layers[1:])
    rates = [None, *(layer.input_rate for layer in report.layers[1:])]
    estimate = energy_from_rates([layer.macs for layer in report.layers], rates)
    assert report.ratio == pytest.approx(estimate.ratio)
    assert {layer.name: layer.macs for layer in report.layers} == count_macs(digits(1), x)
    # Without pooling in between, the rate of a layer's input is the rate of the neurons before it.
    rate = {neuron.name: neuron.rate for neuron in report.neurons}
    assert set(rate) == set(model.activation_names)
    by_name = {layer.name: layer.input_rate for layer in report.layers}
    assert by_name["features.conv3"] == pytest.approx(rate["features.act2"])
    assert by_name["features.conv2"] == pytest.approx(rate["features.act1"])  # 2 x 2 pools tile the image
    assert by_name["classifier.fc3"] == pytest.approx(rate["classifier.act2"])


def test_shortcuts_of_a_residual_network_are_fed_by_spikes():
    model = spiking(resnet(12, 10, in_shape=(1, 8, 8), width=1 / 8, generator=seeded()), 3)
    report = energy_report(model, images())
    assert [layer.name for layer in report.layers if layer.input == "analog"] == ["pre_process.conv1"]
    rate = {neuron.name: neuron.rate for neuron in report.neurons}
    assert len(rate) == 11
    by_name = {layer.name: layer.input_rate for layer in report.layers}
    assert by_name["blocks.1.shortcut.conv1"] == pytest.approx(rate["blocks.0.act2"])


def test_result_does_not_depend_on_batch_size_or_spike_height():
    x = images(7).double()
    whole = energy_report(digits(), x, batch_size=7).table()
    parts = energy_report(digits(), x, batch_size=3).table()
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, nan_ok=True)
    model = drawn(nn.Sequential(nn.Linear(9, 8), IF(0.1, height=0.37), nn.Linear(8, 3)))
    low = energy_report(model, images(9, (9,)))
    assert 0 < low.neurons[0].rate < 1
    assert [layer.input for layer in low.layers] == ["analog", "spikes"]
    assert low.layers[1].input_rate == pytest.approx(low.neurons[0].rate)


def networks_of_one_neuron():
    """Conv -> neuron -> pool -> linear on a static image, T = 3, unrolled in three ways."""
    conv, linear = drawn(nn.Conv2d(1, 4, 3, padding=1)), drawn(nn.Linear(4 * 9, 3))

    class MultiStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.neuron, self.pool, self.linear = conv, Unfolded(), nn.AvgPool2d(2), linear

        def forward(self, x):
            steps = self.neuron(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            pooled = self.pool(steps.flatten(0, 1)).flatten(1)
            return self.linear(pooled.unflatten(0, x.shape[:2])).sum(0)

    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.neuron, self.pool, self.linear = conv, Stateful(), nn.AvgPool2d(2), linear

        def forward(self, x):
            return sum(self.linear(self.pool(self.neuron(self.conv(x))).flatten(1)) for _ in range(3))

    folded = nn.Sequential(conv, IF(n_steps=3, repeat_input=True), nn.AvgPool2d(2), nn.Flatten(), linear)
    return folded, MultiStep(), Looped()


@pytest.mark.parametrize("first_layer", list(FIRST_LAYER))
def test_every_way_to_unroll_time_gives_the_same_energy(first_layer):
    x = (images(5, (1, 6, 6)) * 16).round() / 16  # 16 grey levels look like spikes pooled over 4 x 4
    folded, multi_step, looped = networks_of_one_neuron()
    options = {"first_layer": first_layer, "batch_size": 2}
    reports = [
        energy_report(folded, x, **options),
        energy_report(multi_step, x.expand(3, *x.shape), batch_axis=1, **options),
        energy_report(looped, x, n_steps=3, **options),
    ]
    assert reports[0].layers[1].input_rate > 0
    for report in reports[1:]:
        for one, other in zip(reports[0].layers, report.layers, strict=True):
            assert (one.macs, one.input, one.evaluations) == (other.macs, other.input, other.evaluations)
            assert one.energy_pj == pytest.approx(other.energy_pj)
        assert report.neurons[0].rate == pytest.approx(reports[0].neurons[0].rate)


def test_analog_input_that_changes_over_time_is_charged_at_every_step():
    _, model, _ = networks_of_one_neuron()
    x = torch.rand(3, 5, 1, 6, 6, generator=seeded())
    assert energy_report(model, x, batch_axis=1).layers[0].evaluations == 3


def test_spikes_as_data_are_charged_as_spikes():
    _, model, _ = networks_of_one_neuron()
    x = (torch.rand(3, 5, 1, 6, 6, generator=seeded()) < 0.4).float()
    first = energy_report(model, x, batch_axis=1).layers[0]
    assert first.input == "spikes"
    assert first.input_rate == pytest.approx(float(x.sum() / 5 / 36))
    assert energy_report(model, x, batch_axis=1, kinds={"conv": "analog"}).layers[0].input == "analog"


def test_spikes_averaged_over_time_are_analog():
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.neuron, self.two = nn.Linear(6, 8), IF(0.1, n_steps=4, repeat_input=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.two(self.neuron(self.one(x)).unflatten(0, (4, len(x))).mean(0))

    for first_layer in FIRST_LAYER:
        report = energy_report(drawn(Averaged()), images(5, (6,)), first_layer=first_layer)
        assert 0 < report.neurons[0].rate < 4
        assert report.layers[1].input == "analog"
        assert report.layers[1].evaluations == 1


def test_dead_layers_cost_nothing_and_show_rate_zero():
    model = digits()
    model.get_submodule("features.act2").threshold = 1e9
    report = energy_report(model, images().double())
    by_name = {layer.name: layer for layer in report.layers}
    assert by_name["features.conv3"].input == "spikes"
    assert by_name["features.conv3"].energy_pj == 0
    assert {neuron.name: neuron.rate for neuron in report.neurons}["features.act2"] == 0


def test_activation_with_several_levels_is_analog():
    class Levels(nn.Module):
        def forward(self, x):
            return (x.clamp(0, 1) * 4).round() / 4

    model = drawn(nn.Sequential(nn.Linear(9, 8), Levels(), nn.Linear(8, 3)))
    assert energy_report(model, images(9, (9,))).ratio == 1
    # ... also behind neurons whose spikes have another height.
    layers = [nn.Linear(9, 64), IF(0.1, height=0.3), nn.Linear(64, 64), Levels(), nn.Linear(64, 3)]
    kinds = [layer.input for layer in energy_report(drawn(nn.Sequential(*layers)), images(9, (9,))).layers]
    assert kinds == ["analog", "spikes", "analog"]


def test_axes_that_could_mean_two_things_are_refused():
    class BatchFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.n_steps = nn.Linear(4, 3), 5

        def forward(self, x):
            return self.fc(x)

    with pytest.raises(ValueError, match=r"`fc` must be fed .* got leading axes \(2, 5\)\. Pass the true n_steps"):
        energy_report(BatchFirst(), torch.rand(2, 5, 4))
    with pytest.raises(ValueError, match="leading axes"):
        energy_report(BatchFirst(), torch.rand(5, 5, 4))
    with pytest.raises(ValueError, match=r"`conv` must run once or a multiple of n_steps = 2 times"):
        energy_report(networks_of_one_neuron()[2], images(5, (1, 6, 6)), n_steps=2)
    with pytest.raises(ValueError, match=r"`n_steps` must be x\.shape\[0\] = 3"):
        energy_report(networks_of_one_neuron()[1], torch.rand(3, 5, 1, 6, 6), batch_axis=1, n_steps=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_layer": "once"}, "`first_layer` must be one of 'cached', 'every_step', got 'once'"),
        ({"ac_rule": "binary"}, "`ac_rule` must be one of 'spikes', 'nonzero'"),
        ({"kinds": {"9": "spikes"}}, "`kinds` must be one of '0', '4'"),
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        ({"batch_axis": 2}, "`batch_axis` must be one of 0, 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        energy_report(hand_made(), HAND, **options)
    with pytest.raises(ValueError, match="`x` must be a tensor with at least one sample"):
        energy_report(hand_made(), HAND[:0])


def test_network_is_left_as_it_was_even_after_an_error():
    model = vgg(5, 10, in_shape=(1, 8, 8), width=1 / 16, dropout=0.5, generator=seeded())
    spiking(model, 2).train()
    model.features.bn2.eval()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    energy_report(model, images(), n_steps=5)
    with pytest.raises(ValueError, match="must have shape"):
        energy_report(model, images(2, (1, 9, 9)), n_steps=3)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert {module.n_steps for module in model.modules() if hasattr(module, "n_steps")} == {2}
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    looped = networks_of_one_neuron()[2]
    looped.neuron.v = kept = torch.ones(2, 4, 6, 6)
    energy_report(looped, images(5, (1, 6, 6)), n_steps=3)
    assert looped.neuron.v is kept


def test_report_prints_its_assumptions_and_writes_its_table(tmp_path):
    report = energy_report(digits(), images().double())
    text = str(report)
    for part in (
        "Assumptions:",
        "memory access",
        "bias additions are not counted",
        "Horowitz",
        "features.conv2",
        "ratio",
    ):
        assert part in text
    path = report.to_csv(tmp_path / "energy.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [layer.name for layer in report.layers]
    assert [float(row["energy_pj"]) for row in rows] == [layer.energy_pj for layer in report.layers]
    assert [file.name for file in tmp_path.iterdir()] == ["energy.csv"]
    with pytest.raises(OSError, match="Could not write"):
        report.to_csv(tmp_path / "missing" / "energy.csv")


def test_further_columns_are_added_and_energy_only_on_demand():
    report = energy_report(digits(), images().double())
    steps = report.with_column("mean_exit_step", {"features.conv2": 2.5})
    assert steps.energy_pj == report.energy_pj
    assert steps.table()[1]["mean_exit_step"] == 2.5
    buffers = steps.with_column("delay_buffer_pj", {"features.conv1": 100.0}, is_energy=True)
    assert buffers.energy_pj == pytest.approx(report.energy_pj + 100)
    assert buffers.ann_energy_pj == report.ann_energy_pj
    assert "delay_buffer_pj" in str(buffers)
    with pytest.raises(ValueError, match="`name` must be a new column"):
        buffers.with_column("macs", {})
    with pytest.raises(ValueError, match="`values` must be one of"):
        buffers.with_column("new", {"nothing": 1.0})


def test_activity_is_the_measurement_behind_the_report():
    activity = measure_activity(hand_made(), HAND)
    assert (activity.n_samples, activity.n_steps, activity.not_run) == (1, 2, ())
    assert [(layer.steps, layer.static) for layer in activity.layers] == [(1, True), (2, False)]
    assert [(layer.n_inputs, layer.n_outputs) for layer in activity.layers] == [(4, 4), (1, 3)]
