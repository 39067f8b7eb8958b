"""Energy against other counters: where spikingjelly's mean the same, and by how much they differ elsewhere."""

import pytest
import torch
from fakes.spiking import drawn, images, seeded
from torch import nn

from snn.energy import energy_report


def counted_by_spikingjelly(layer, x):
    """Return (MACs, synaptic operations) of spikingjelly's own counters for one call."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter

    mac, synop = MACCounter(), SynOpCounter()
    with DispatchCounterMode([mac, synop]), torch.no_grad():
        layer(x)
    return mac.get_total(), synop.get_total()


def ours(layer, x):
    """Return the same for one sample at T = 1, with spikes `x` said to be spikes."""
    kind = "spikes" if bool(((x == 0) | (x == 1)).all()) else "analog"
    report = energy_report(nn.Sequential(layer), x, kinds={"0": kind}, batch_size=len(x))
    return report.layers[0].mac_operations * len(x), report.layers[0].ac_operations * len(x)


def spikes(*shape):
    return (torch.rand(shape, generator=seeded(4)) < 0.3).float()


# Where every input has the same number of targets, our mean-rate count is spikingjelly's event count.
@pytest.mark.reference
@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(20, 7, bias=False), spikes(5, 20)),
        (nn.Conv2d(4, 6, 1, bias=False), spikes(5, 4, 8, 8)),
        (nn.Conv2d(4, 6, 2, stride=2, groups=2, bias=False), spikes(5, 4, 8, 8)),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False), spikes(5, 4, 8, 8)),
        (nn.Linear(20, 7, bias=False), images(5, (20,))),
        (nn.Conv2d(4, 6, 3, padding=1, bias=False), images(5, (4, 8, 8))),
    ],
)
def test_operations_are_those_of_spikingjelly_where_targets_are_uniform(layer, x):
    assert ours(layer, x) == pytest.approx(counted_by_spikingjelly(layer, x))


# Where the border cuts targets off, spikingjelly counts each spike's true fan-out. The papers do not: with zero padding
# their count is the higher one, and it is exactly the true one for inputs that are active everywhere up to the border.
@pytest.mark.reference
def test_operations_exceed_those_of_spikingjelly_by_the_border_of_zero_padding():
    layer, x = nn.Conv2d(4, 6, 3, padding=1, bias=False), spikes(5, 4, 8, 8)
    _, synops = counted_by_spikingjelly(layer, x)
    targets = torch.nn.functional.conv_transpose2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3), padding=1)
    assert synops == int((x * targets).sum()) * 6
    _, operations = ours(layer, x)
    assert operations == pytest.approx(float(x.sum()) * 9 * 6)
    inner = x.clone()
    inner[..., [0, -1], :] = inner[..., [0, -1]] = 0
    assert ours(layer, inner)[1] == pytest.approx(counted_by_spikingjelly(layer, inner)[1])


@pytest.mark.reference
def test_pooled_spikes_are_macs_for_spikingjelly_and_accumulates_for_the_papers():
    layer, x = nn.Linear(16, 7, bias=False), nn.functional.avg_pool2d(spikes(5, 1, 8, 8), 2).flatten(1)
    assert counted_by_spikingjelly(layer, x) == (5 * 16 * 7, 0)
    report = energy_report(nn.Sequential(layer), x, kinds={"0": "spikes"}, batch_size=5)
    assert report.layers[0].ac_operations * 5 == pytest.approx(float(x.sum()) * 7)


@pytest.mark.reference
def test_spikingjelly_network_is_read_and_its_state_kept():
    from spikingjelly.activation_based import functional, layer, neuron

    model = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        neuron.IFNode(v_threshold=0.05),
        layer.MaxPool2d(2),
        layer.Conv2d(4, 5, 1, bias=False),
        neuron.LIFNode(tau=2.0, v_threshold=0.3),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(5 * 4, 3, bias=False),
    )
    for number in (0, 4, 8):
        drawn(model[number], number)
    functional.set_step_mode(model, "m")
    x = images(6).expand(4, 6, 1, 8, 8)
    model.eval()(x)
    potentials = [model[index].v.clone() for index in (2, 5)]
    report = energy_report(model, x, batch_axis=1, batch_size=5)
    assert [(layer.name, layer.input) for layer in report.layers] == [("0", "analog"), ("4", "spikes"), ("8", "spikes")]
    assert [layer.macs for layer in report.layers] == [9 * 4 * 64, 20 * 16, 60]
    assert [neuron.name for neuron in report.neurons] == ["2", "5"]
    for index, potential in zip((2, 5), potentials, strict=True):
        assert torch.equal(model[index].v, potential)

    functional.reset_net(model)
    seen = {}
    handle = model[5].register_forward_hook(lambda _, __, output: seen.update(rate=float(output.sum() / 6 / 80)))
    macs, synops = counted_by_spikingjelly(model, x)
    handle.remove()
    functional.reset_net(model)
    assert 0.2 < report.neurons[1].rate < 3
    assert report.neurons[1].rate == pytest.approx(seen["rate"])
    assert report.layers[1].ac_operations * 6 == pytest.approx(synops)
    # They charge the first layer at all four steps, the pooled linear layer as MACs, and the normalisation.
    dense = 4 * 6 * (report.layers[0].macs + report.layers[2].macs)
    assert macs == dense + 4 * 6 * 4 * 64


@pytest.mark.reference
def test_energy_of_one_spiking_layer_is_spikingjellys_compute_energy():
    from spikingjelly.activation_based.op_counter import estimate_simple_energy

    model, x = nn.Sequential(nn.Linear(20, 7, bias=False)), spikes(5, 20)
    theirs = estimate_simple_energy(model, x).energy_compute_pj
    assert energy_report(model, x, kinds={"0": "spikes"}).energy_pj * 5 == pytest.approx(theirs)
