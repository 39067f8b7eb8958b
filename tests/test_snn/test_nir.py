"""Writing networks as NIR graphs and reading them back: what is kept, to the bit, and what is refused."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from tolerances import close
from torch import nn

import snn
from snn.nir import INTEGRATIONS, FoldTime, LeakyIntegrator, PerNeuron, Scale, StepDelay, from_nir, to_nir, write_nir

nir = pytest.importorskip("nir")


@pytest.fixture
def draw(generator):
    """Give all parameters of a network values that do not come from the global generator."""

    def draw(network):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.uniform_(-0.4, 0.8, generator=generator)
        return network

    return draw


def spike_trains(*shape, generator):
    return (torch.rand(*shape, generator=generator) < 0.4).float()


def lif_graph(**changes):
    fields = {"tau": 20e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    fields = {key: np.atleast_1d(np.array(value, dtype=float)) for key, value in (fields | changes).items()}
    return nir.NIRGraph.from_list(nir.LIF(**fields))


# --- there and back -----------------------------------------------------------------------------------------------

NEURONS = {
    "lif": lambda: snn.LIF(tau=3.7),
    "lif gt": lambda: snn.LIF(tau=3.7, compare="gt"),
    "lif decay_input": lambda: snn.LIF(tau=2.3, decay_input=True, v_threshold=0.3),
    "lif reset": lambda: snn.LIF(tau=5.0, v_reset=-0.25, v_threshold=0.75),
    "lif per channel": lambda: snn.LIF([1.005, 2.0, 7.3], v_threshold=[0.5, 1.0, 0.7], n_channels=3),
    "plif": lambda: snn.PLIF(tau=4.4),
    "if": lambda: snn.IF(v_threshold=0.9),
    "if per channel": lambda: snn.IF(v_threshold=[0.5, 1.0, 1.5], v_reset=0.125, n_channels=3),
}


@pytest.mark.parametrize("dt_ms", [0.1, 1.0, 7.3])
@pytest.mark.parametrize("kind", NEURONS)
def test_round_trip_through_a_file_keeps_every_spike(kind, dt_ms, generator, draw, tmp_path):
    network = nn.Sequential(draw(nn.Linear(5, 3)), NEURONS[kind](), draw(nn.Linear(3, 3, bias=False)), NEURONS[kind]())
    again = from_nir(write_nir(tmp_path / "network.nir", network, 5, dt_ms=dt_ms), dt_ms=dt_ms)
    x = spike_trains(60, 4, 5, generator=generator)
    assert torch.equal(again(x), network(x))
    assert 0 < network(x).mean() < 1
    for ours, back in ((network[0].weight, again[0].weight), (network[2].weight, again[2].weight)):
        assert torch.equal(ours, back)
    assert again[1].compare == network[1].compare
    assert torch.equal(again[1].v_threshold, network[1].v_threshold)


def test_round_trip_of_an_image_network(generator, draw, tmp_path):
    network = nn.Sequential(
        FoldTime(draw(nn.Conv2d(2, 4, (3, 2), stride=2, padding=1, groups=2))),
        snn.LIF(tau=[2.0, 3.0, 4.0, 5.0], n_channels=4),
        nn.Sequential(FoldTime(nn.Sequential(nn.AvgPool2d(2), nn.Dropout(0.5))), snn.IF(v_threshold=0.5)),
        FoldTime(nn.AvgPool2d((1, 2), stride=1, divisor_override=1)),
        nn.Flatten(2),
        draw(nn.Linear(16, 3)),
        snn.PLIF(),
    ).eval()
    again = from_nir(write_nir(tmp_path / "network.nir", network, (2, 9, 10), dt_ms=1), dt_ms=1)
    x = spike_trains(20, 3, 2, 9, 10, generator=generator)
    assert torch.equal(again(x), network(x))
    assert network(x).sum() > 0
    # What was read can be written again.
    assert torch.equal(from_nir(to_nir(again, (2, 9, 10), dt_ms=2), dt_ms=2)(x), network(x))


@pytest.mark.parametrize("padding", [1, "same", "valid"])
def test_round_trip_of_a_convolution_over_one_axis(padding, generator, draw):
    network = FoldTime(draw(nn.Conv1d(2, 3, 3, padding=padding, dilation=2)))
    x = spike_trains(5, 2, 2, 11, generator=generator)
    assert torch.equal(from_nir(to_nir(network, (2, 11), dt_ms=1), dt_ms=1)(x), network(x))


def test_a_layer_that_stands_in_two_places_is_written_twice(draw, generator):
    linear, lif = draw(nn.Linear(3, 3)), snn.LIF()
    network = nn.Sequential(linear, lif, linear, lif)
    x = spike_trains(20, 2, 3, generator=generator)
    assert torch.equal(from_nir(to_nir(network, 3, dt_ms=1), dt_ms=1)(x), network(x))


def test_spike_at_the_threshold_survives_the_strict_comparison_of_nir():
    """Quarters add up to exactly 1: "ge" and "gt" differ in the step of every spike, for all readers."""
    x = torch.full((12, 1, 1), 0.25)
    for compare, first in (("ge", 3), ("gt", 4)):
        graph = to_nir(snn.IF(compare=compare), 1, dt_ms=1)
        for meta in (graph.nodes["model"].metadata, {}):
            graph.nodes["model"].metadata = meta
            assert from_nir(graph, dt_ms=1)(x).flatten().nonzero()[0].item() == first


def test_layers_without_spikes_come_back(generator):
    tau = torch.tensor([2.0, 3.0, 8.0])
    network = nn.Sequential(Scale(torch.tensor([1.0, 2.0, 3.0])), StepDelay([0, 2, 5]), LeakyIntegrator(tau, 0.5, 0.1))
    x = torch.randn(20, 2, 3, generator=generator)
    again = from_nir(to_nir(network, 3, dt_ms=0.5), dt_ms=0.5)
    close(again(x), network(x))
    integrator = from_nir(to_nir(LeakyIntegrator(np.inf), 3, dt_ms=0.5), dt_ms=0.5)
    close(integrator(x), x.cumsum(0))


# --- equations ----------------------------------------------------------------------------------------------------


def test_half_the_time_step_is_the_same_neuron_in_time(generator):
    """tau is kept in seconds: a membrane that decays without input loses the same share in 40 steps of half a ms."""
    node = nir.LI(tau=np.array([20e-3]), r=np.array([1.0]), v_leak=np.array([0.0]))
    left = []
    for dt_ms in (1.0, 0.5):
        x = torch.zeros(round(20 / dt_ms) + 1, 1, 1, dtype=torch.float32)
        x[0] = 1
        v = from_nir(nir.NIRGraph.from_list(node), dt_ms=dt_ms, integration="exact")(x).flatten()
        left.append((v[-1] / v[0]).item())
    assert left == pytest.approx([np.exp(-1)] * 2, rel=1e-5)


@pytest.mark.parametrize(("integration", "order"), [("euler", 1), ("exact", None)])
def test_charging_curve_converges_with_the_order_of_the_scheme(integration, order):
    """Constant input: v(t) = R I (1 - exp(-t / tau)). Forward Euler has order 1; "exact" has no error."""
    node = nir.LI(tau=np.array([10e-3]), r=np.array([2.0]), v_leak=np.array([0.5]))
    errors = []
    for dt_ms in (1.0, 0.5, 0.25):
        network = from_nir(nir.NIRGraph.from_list(node), dt_ms=dt_ms, integration=integration)
        v = network(torch.ones(round(10 / dt_ms), 1, 1)).flatten()[-1]
        errors.append(abs(v.item() - 0.5 - 2 * (1 - np.exp(-1))))
    if order is None:
        assert max(errors) < 1e-6
    else:
        for coarse, fine in itertools.pairwise(errors):
            assert np.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_resistance_scales_the_input(integration, generator):
    x = torch.rand(50, 2, 1, generator=generator)
    for r in (0.3, 1.0, 20.0):
        network = from_nir(lif_graph(r=r, v_threshold=0.2), dt_ms=1, integration=integration)
        same = from_nir(lif_graph(v_threshold=0.2 / r), dt_ms=1, integration=integration)
        assert torch.equal(network(x), same(x))


def test_potentials_in_millivolt_become_relative_to_the_reset(generator):
    x = torch.rand(80, 2, 1, generator=generator) * 40
    network = from_nir(lif_graph(v_leak=-65, v_reset=-65, v_threshold=-50), dt_ms=1)
    assert torch.equal(network(x), from_nir(lif_graph(v_threshold=15), dt_ms=1)(x))
    assert network(x).sum() > 0


def test_parameters_of_single_neurons_are_kept(generator):
    """A map whose neurons all differ spikes like its neurons one by one."""
    shape = (2, 3, 4)
    tau, threshold = (torch.rand(shape, generator=generator).double() + 0.5 for _ in range(2))
    zeros = np.zeros(shape)
    node = nir.LIF(tau=tau.numpy() * 1e-2, r=zeros + 1, v_leak=zeros, v_threshold=threshold.numpy())
    network = from_nir(nir.NIRGraph.from_list(node), dt_ms=1)
    assert isinstance(network[0], PerNeuron)
    x = torch.rand(30, 2, *shape, generator=generator) * 3
    spikes = network(x)
    for index in np.ndindex(shape):
        alone = snn.LIF(tau[index].item() * 10, v_threshold=threshold[index].item(), decay_input=True, compare="gt")
        assert torch.equal(spikes[:, :, *index][..., None], alone(x[:, :, *index][..., None]))
    again = from_nir(to_nir(network, shape, dt_ms=1), dt_ms=1)
    assert torch.equal(again(x), spikes)


def test_current_based_neuron_is_two_recursions(generator):
    one = np.ones(2)
    fields = {"tau_syn": one * 5e-3, "tau_mem": one * 10e-3, "r": one * 2, "v_leak": one * 0, "v_threshold": one}
    network = from_nir(nir.NIRGraph.from_list(nir.CubaLIF(**fields, w_in=one * 3)), dt_ms=1)
    x = spike_trains(40, 1, 2, generator=generator)
    current = v = torch.zeros(1, 2)
    for step, spikes in zip(x, network(x), strict=True):
        current = current + (3 * step - current) / 5
        v = v + (2 * current - v) / 10
        assert torch.equal((v > 1).float(), spikes)
        v = torch.where(v > 1, 0.0, v)
    assert network(x).sum() > 0


# --- graphs -------------------------------------------------------------------------------------------------------


def diamond(**linear):
    nodes = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2])), **linear}
    return nir.NIRGraph(nodes, [(a, b) for name in linear for a, b in (("input", name), (name, "output"))])


def test_branches_are_added_where_they_meet(generator):
    left, right = (torch.randn(2, 2, generator=generator) for _ in range(2))
    network = from_nir(diamond(left=nir.Linear(left.numpy()), items=nir.Linear(right.numpy())), dt_ms=1)
    x = torch.randn(4, 3, 2, generator=generator)
    close(network(x), x @ (left + right).T)


def test_subgraph_is_read_as_part_of_the_graph(generator):
    weight = torch.randn(2, 2, generator=generator)
    inner = nir.NIRGraph.from_list(nir.Linear(weight.numpy()), nir.Scale(np.array([2.0, 3.0])))
    graph = nir.NIRGraph(
        {"input": nir.Input(np.array([2])), "block": inner, "output": nir.Output(np.array([2]))},
        [("input", "block"), ("block", "output")],
        type_check=False,
    )
    network = from_nir(graph, dt_ms=1)
    assert isinstance(network, nn.Sequential)
    x = torch.randn(4, 3, 2, generator=generator)
    close(network(x), x @ weight.T * torch.tensor([2.0, 3.0]))


def test_reading_leaves_the_global_generator_alone(draw, global_rng_untouched):
    network = nn.Sequential(FoldTime(draw(nn.utils.skip_init(nn.Conv2d, 1, 2, 3))), nn.Flatten(2), snn.LIF())
    from_nir(to_nir(network, (1, 4, 4), dt_ms=1), dt_ms=1)


def test_import_of_snn_nir_does_not_load_nir():
    code = "import sys, snn.nir; sys.exit('nir' in sys.modules or 'h5py' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match=r"Reading a NIR graph needs nir, .*pip install 'spikedecode\[nir\]'"):
        from_nir("network.nir", dt_ms=1)


def test_failed_export_leaves_the_old_file(tmp_path):
    path = write_nir(tmp_path / "network.nir", snn.LIF(), 3, dt_ms=1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="v_reset"):
        write_nir(path, snn.LIF(v_reset=None), 3, dt_ms=1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="Could not write"):
        write_nir(tmp_path / "none" / "network.nir", snn.LIF(), 3, dt_ms=1)
