"""Energy and memory of delay layers: networks counted by hand, impulses that show how long a layer remembers."""

import pytest
import torch
from fakes.spiking import drawn, seeded
from torch import nn

import snn
from snn.energy import count_macs, delay_buffer_bits, energy_report, longest_delays
from snn.energy.delays import BUFFER_COLUMN, BUFFER_MODEL
from snn.models import delay_mlp


def layer_with(weights, delays, **options):
    """A DelayLinear of these weights and delays (O, I), one kernel."""
    weights, delays = torch.tensor(weights), torch.tensor(delays)
    layer = snn.DelayLinear(weights.shape[1], weights.shape[0], 5, **options)
    with torch.no_grad():
        layer.weight.copy_(weights[..., None])
        layer.delay.copy_(delays[..., None])
    return layer


def hand_made():
    """Two inputs -> one neuron -> three outputs."""
    first = layer_with([[1.5, 1.5]], [[0.0, 3.0]])
    return nn.Sequential(first, snn.IF(), layer_with([[1.0], [2.0], [3.0]], [[1.0], [2.2], [0.0]]))


def hand_spikes():
    """Input 0 at step 0 and input 1 at step 1, which arrive at steps 0 and 4, where the neuron fires."""
    x = torch.zeros(5, 1, 2)
    x[0, 0, 0] = x[1, 0, 1] = 1
    return x


def buffers(report):
    return [layer.extra[BUFFER_COLUMN] for layer in report.layers]


# --- counted by hand ----------------------------------------------------------------------------------------------


def test_spikes_are_charged_per_synapse_and_registers_per_input():
    report = energy_report(hand_made(), hand_spikes(), batch_axis=1)
    one, two = report.layers
    assert (one.input, one.macs, one.evaluations, one.input_rate, one.ac_operations) == ("spikes", 2, 5, 1, 2)
    assert (two.input, two.macs, two.evaluations, two.input_rate, two.ac_operations) == ("spikes", 3, 5, 2, 6)
    assert one.mac_operations == two.mac_operations == 0
    assert report.energy_pj == pytest.approx(0.9 * 8)
    assert report.ann_energy_pj == pytest.approx(4.6 * 5)
    assert buffers(report) == [0 + 3, 2]
    assert [(neuron.n_neurons, neuron.rate) for neuron in report.neurons] == [(1, 2)]
    assert BUFFER_MODEL in report.assumptions
    assert BUFFER_COLUMN in str(report)


def test_bins_of_several_events_are_spikes_and_fractions_are_not():
    x = hand_spikes()
    x[0] *= 2
    first = energy_report(hand_made(), x, batch_axis=1).layers[0]
    assert (first.input, first.input_rate, first.nonzero_rate) == ("spikes", 3 / 2, 1)
    for values in (x + 0.5, -x, 100 * x):
        report = energy_report(hand_made(), values, batch_axis=1, kinds={"2": "spikes"})
        assert report.layers[0].input == "analog"
    assert energy_report(hand_made(), x, batch_axis=1, kinds={"0": "analog"}).layers[0].mac_operations == 2 * 5


def test_analog_values_take_32_bits_and_constant_ones_still_run_at_every_step():
    report = energy_report(hand_made(), torch.full((5, 1, 2), 0.6), batch_axis=1, first_layer="cached")
    assert report.layers[0].input == "analog"
    assert report.layers[0].evaluations == 5  # what is on its way at first is not there yet
    assert report.layers[0].mac_operations == 10
    assert buffers(report) == [32 * 3, 2]


@pytest.mark.parametrize(("rounding", "taps"), [("eval", 3), ("never", 6)])
def test_macs_are_outputs_times_inputs_times_kernels_or_all_lags(rounding, taps):
    layer = snn.DelayLinear(4, 7, 6, kernel_count=3, rounding=rounding, generator=seeded())
    assert count_macs(nn.Sequential(layer), torch.ones(9, 2, 4), batch_axis=1) == {"0": 7 * 4 * taps}


def test_synapses_of_no_weight_and_no_delay_need_no_memory():
    layer = layer_with([[1.0, 0.0], [1.0, 1.0]], [[0.0, 4.0], [0.0, 1.0]])
    assert longest_delays(layer).tolist() == [0, 1]
    assert delay_buffer_bits(layer) == 1
    assert delay_buffer_bits(layer, n_positions=6, bits_per_value=8) == 48
    layer.rounding = "never"
    assert longest_delays(layer).tolist() == [4, 4]


# --- laws ---------------------------------------------------------------------------------------------------------

SIZES = {"max_delay": 7, "kernel_count": 2, "generator": seeded()}
LAYERS = {
    "linear": (snn.DelayLinear(4, 2, **SIZES), ()),
    "axon": (snn.DelayLinear(4, 3, share="axon", **SIZES), ()),
    "dendrite": (snn.DelayLinear(4, 3, share="dendrite", **SIZES), ()),
    "conv1d": (snn.DelayConv1d(4, 2, 3, padding=1, **SIZES), (5,)),
    "conv1d groups": (snn.DelayConv1d(4, 6, 3, padding=1, groups=2, **SIZES), (5,)),
    "conv2d": (snn.DelayConv2d(4, 2, (1, 3), padding=(0, 1), share="axon", **SIZES), (3, 5)),
    "conv2d groups": (snn.DelayConv2d(4, 4, 1, groups=4, share="dendrite", **SIZES), (2, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_an_impulse_is_heard_for_as_long_as_the_register_is(name):
    layer, space = LAYERS[name]
    layer.eval()
    middle = tuple(size // 2 for size in space)
    for channel, steps in enumerate(longest_delays(layer).tolist()):
        x = torch.zeros(10, 1, 4, *space)
        x[(0, 0, channel, *middle)] = 1
        heard = layer(x).flatten(1).abs().amax(1).nonzero()
        assert int(heard[-1]) == steps


@pytest.mark.parametrize("name", ["conv1d", "conv1d groups", "conv2d"])
def test_macs_of_a_convolution_are_those_of_torch_times_kernels(name):
    layer, space = LAYERS[name]
    plain = nn.Conv1d if len(space) == 1 else nn.Conv2d
    sizes = {"padding": layer.padding, "groups": layer.groups}
    same = plain(layer.in_channels, layer.out_channels, layer.kernel_size, **sizes)
    (want,) = count_macs(nn.Sequential(same), torch.ones(2, 4, *space)).values()
    assert count_macs(layer, torch.ones(6, 2, 4, *space), batch_axis=1) == {"": 2 * want}


def test_convolution_of_one_pixel_costs_what_a_layer_at_each_pixel_costs():
    conv = snn.DelayConv2d(3, 2, 1, max_delay=6, generator=seeded())
    linear = snn.DelayLinear(3, 2, max_delay=6)
    with torch.no_grad():
        for key in ("weight", "delay"):
            getattr(linear, key).copy_(getattr(conv, key)[:, :, 0, 0])

    class AtEachPixel(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.neuron = linear, snn.IF(v_threshold=0.1)

        def forward(self, x):
            rows = x.permute(0, 1, 3, 4, 2).flatten(1, 3)
            return self.neuron(self.layer(rows))

    x = (torch.rand(9, 4, 3, 2, 5, generator=seeded()) < 0.3).float()
    one = energy_report(nn.Sequential(conv, snn.IF(v_threshold=0.1)), x, batch_axis=1, batch_size=2)
    other = energy_report(AtEachPixel(), x, batch_axis=1, batch_size=3)
    assert one.layers[0].macs == other.layers[0].macs == 3 * 2 * 10
    assert one.layers[0].ac_operations == pytest.approx(other.layers[0].ac_operations)
    assert buffers(one) == buffers(other) == [10 * int(longest_delays(linear).sum())]


# --- the network of DCLS-Delays -----------------------------------------------------------------------------------


def network(**options):
    settings = {"hidden": (9, 7), "max_delay": 5, "tail_steps": 2, "tau": 1.5, "generator": seeded(), **options}
    return delay_mlp(6, 3, **settings)


def sequences(batch=8):
    return torch.poisson(torch.full((6, batch, 6), 0.5), generator=seeded(3))


def test_each_layer_is_charged_for_the_steps_of_its_own_sequence():
    model, x = network(), sequences()
    report = energy_report(model, x, batch_axis=1)
    assert [layer.evaluations for layer in report.layers] == [8, 10, 12]
    assert [layer.macs for layer in report.layers] == [6 * 9, 9 * 7, 7 * 3]
    assert report.n_steps == 6
    assert any("layers.0 8, layers.1 10, layers.2 12" in line for line in report.assumptions)
    with torch.no_grad():
        fed = [x, *model.eval().hidden_spikes(x)]
    spikes = [float(part.sum()) / 8 for part in fed]  # a sample
    assert all(count > 0 for count in spikes)
    for layer, count, n_outputs in zip(report.layers, spikes, (9, 7, 3), strict=True):
        assert layer.input == "spikes"
        assert layer.ac_operations == pytest.approx(count * n_outputs)
    for neuron, count, n_neurons in zip(report.neurons, spikes[1:], (9, 7), strict=True):
        assert (neuron.n_neurons, neuron.rate) == (n_neurons, pytest.approx(count / n_neurons))
    assert buffers(report) == [int(longest_delays(layer).sum()) for layer in model.layers]


@pytest.mark.parametrize("batch_size", [1, 3, 6, 8, 10])  # as many samples as steps, at the input or later
def test_result_does_not_depend_on_how_samples_are_batched(batch_size):
    x = sequences(20)
    whole = energy_report(network(), x, batch_axis=1, batch_size=20).table()
    parts = energy_report(network(), x, batch_axis=1, batch_size=batch_size).table()
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other)


def test_network_without_delays_is_counted_alike_but_needs_no_memory():
    model, x = network(delays="none"), sequences(5)
    report = energy_report(model, x, batch_axis=1, kinds={"layers.0": "spikes"})
    assert [layer.evaluations for layer in report.layers] == [8, 10, 12]
    assert [layer.macs for layer in report.layers] == [6 * 9, 9 * 7, 7 * 3]
    n_spikes = int(model.eval().hidden_spikes(x)[0].count_nonzero())
    assert report.layers[1].ac_operations == pytest.approx(n_spikes / 5 * 7)
    assert BUFFER_COLUMN not in report.table()[0]
    # Plain layers leave it open whether 8 x 8 rows are steps and samples or samples and places.
    with pytest.raises(ValueError, match=r"`layers.0` must be fed .* got leading axes \(8, 8\)"):
        energy_report(model, sequences(8), batch_axis=1)


def test_a_loop_over_steps_costs_what_all_steps_at_once_cost():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.neuron, self.two = nn.Linear(4, 3), snn.IF(v_threshold=0.1), nn.Linear(3, 2)

        def forward(self, x):
            return sum(self.two(self.neuron(self.one(now)[None])[0]) for now in x)

    model, x = drawn(Loop(), 2), torch.rand(3, 5, 4, generator=seeded())
    whole = nn.Sequential(model.one, model.neuron, model.two)
    model.neuron.forward = lambda x: (x > 0.1).to(x.dtype)  # no memory, so that both give the same spikes
    for values in (x, x[:1].expand(3, 5, 4)):
        one, other = (energy_report(network, values, batch_axis=1) for network in (model, whole))
        assert [layer.energy_pj for layer in one.layers] == pytest.approx([layer.energy_pj for layer in other.layers])
        assert one.neurons[0].rate == pytest.approx(other.neurons[0].rate)


def test_report_leaves_the_network_as_it_was(global_rng_untouched):
    model = network(dropout=0.5).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    energy_report(model, sequences(), batch_axis=1)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_wrong_layers_and_axes_are_refused():
    with pytest.raises(TypeError, match="`layer` must be a delay layer, got Linear"):
        longest_delays(nn.Linear(2, 3))
    with pytest.raises(ValueError, match="`bits_per_value` must be a whole number >= 1, got 0"):
        delay_buffer_bits(snn.DelayLinear(2, 3, 4), bits_per_value=0)

    class BatchFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = snn.DelayLinear(6, 2, 3)

        def forward(self, x):
            return self.layer(x.transpose(0, 1))

    with pytest.raises(ValueError, match=r"`layer` must be fed \(T, B, \.\.\.\) with B = 4, got leading axes \(4, 6\)"):
        energy_report(BatchFirst(), sequences(4), batch_axis=1)
