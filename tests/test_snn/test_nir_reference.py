"""NIR against the outside: one neuron recorded on eleven simulators and chips, and two other readers of our files."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import snn
from snn.nir import from_nir, to_nir, write_nir

pytest.importorskip("nir")

# Pedersen et al. 2024, one LIF neuron, dt 0.1 ms. Simulator -> integration, soft reset, factor from its
# membrane to NIR's, steps by which its membrane and its spikes come late, how far the membrane may be off.
# The factors: a unit of weight is 1 (snntorch, spinnaker2) or 640 (fixed point) instead of r * dt / tau = 0.04;
# nengo's threshold is 1 instead of 0.1.
SIMULATORS = {
    "norse": ("euler", False, 1.0, 0, 0, 1e-7),
    "snntorch": ("euler", False, 0.04, 0, 0, 1e-7),
    "lava_cpu_float": ("euler", False, 1.0, 1, 1, 1e-7),
    "nengo": ("exact", False, 0.1, 0, 0, 1e-7),
    "sinabs": ("impulse", True, 1.0, 0, 0, 1e-7),
    "rockpool": ("impulse", True, 1.0, 0, 0, 1e-7),
    # The chip rounds the weight: 0.9998 for 1.
    "spinnaker2": ("euler", False, 0.04, 0, 0, 3e-5),
    # Its membrane is a whole number, rounded at every step; one is 1 / 16000.
    "lava_cpu_fixed": ("euler", False, 0.04 / 640, 1, 1, 1e-3),
    # The same, but 128 is shown once after a spike, where the others have 0.
    "lava_loihi_fixed": ("euler", False, 0.04 / 640, 1, 1, 1e-3),
    # Spikes, and is reset, between two steps, and goes on from there. The reset at the end of a step is ours.
    "exact": ("exact", False, 1.0, 0, 0, 1e-7),
    # Its spike, and the reset, follow the crossing one step later; until then the membrane is the same.
    "spyx": ("euler", True, 1.0, 0, 1, 1e-7),
}
UNTIL_FIRST_SPIKE = ("exact", "spyx", "lava_loihi_fixed")


@pytest.fixture
def recordings(shared_data):
    folder = shared_data / "nir_lif_reference"
    if not folder.is_dir():
        pytest.skip("no recordings of the NIR paper")
    return folder


def read(folder, simulator):
    """Return input (T, 1, 1), membrane (T,), and the steps of the output spikes of a recording."""
    spikes_in, v, spikes_out = np.genfromtxt(folder / f"lif_{simulator}.csv", delimiter=",").T
    # sinabs lists its input already weighted.
    x = torch.from_numpy((spikes_in > 0).astype(np.float32)).view(-1, 1, 1)
    return x, torch.from_numpy(v), np.flatnonzero(spikes_out).tolist()


def membrane(network, x):
    """Run the last neuron of a network step by step and return its membrane after each."""
    (lif,) = (module for module in network.modules() if isinstance(module, snn.LIF))
    current = []
    with lif.register_forward_pre_hook(lambda _, inputs: current.append(inputs[0])):
        network(x)
    v, trace = torch.zeros(1, 1), []
    for step in current[0]:
        _, v = lif(step, v)
        trace.append(v.item())
    return torch.tensor(trace)


@pytest.mark.reference
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_imported_neuron_is_that_of_the_simulator(simulator, recordings):
    integration, soft_reset, scale, late_v, late_spikes, tolerance = SIMULATORS[simulator]
    x, v, spikes = read(recordings, simulator)
    network = from_nir(recordings / "lif_norse.nir", dt_ms=0.1, integration=integration, soft_reset=soft_reset)
    ours = network(x).flatten().nonzero().flatten()
    assert len(spikes) == 4
    assert (ours + late_spikes).tolist() == spikes
    stop = int(ours[0]) if simulator in UNTIL_FIRST_SPIKE else len(x)
    difference = v[late_v:stop] * scale - membrane(network, x)[: stop - late_v]
    assert difference.abs().max() < tolerance


@pytest.mark.reference
def test_default_integration_has_the_spikes_of_norse_on_the_file_of_norse(recordings):
    x, _, spikes = read(recordings, "norse")
    network = from_nir(str(recordings / "lif_norse.nir"), dt_ms=0.1)
    assert [type(layer) for layer in network] == [nn.Linear, snn.LIF]
    assert network[1].tau == pytest.approx(25.0)
    assert network(x).flatten().nonzero().flatten().tolist() == spikes


@pytest.mark.reference
def test_file_of_rockpool_is_read_though_its_output_has_the_wrong_shape(recordings):
    """Its r is 25 * exp(-1 / 25) and its weight 0.04: a gain that our LIF cannot hold becomes a layer before it."""
    network = from_nir(recordings / "lif_rockpool.nir", dt_ms=0.1, integration="impulse")
    assert network[0].weight.item() == pytest.approx(0.04)
    assert network[1][0].scale.item() == pytest.approx(np.exp(-1 / 25))
    x, _, spikes = read(recordings, "norse")
    assert network(x).flatten().nonzero().flatten().tolist() == spikes


def peers():
    pytest.importorskip("nirtorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import snntorch.import_nir
        from spikingjelly.activation_based import nir_exchange
    return snntorch.import_nir, nir_exchange


def small_network(generator, **options):
    network = nn.Sequential(nn.Linear(6, 8), snn.LIF(tau=4.0, **options), nn.Linear(8, 3), snn.LIF(tau=2.0, **options))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.8, generator=generator)
    return network


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # those of the other package
@pytest.mark.parametrize("decay_input", [False, True])
def test_spikingjelly_reads_our_file_and_spikes_the_same(decay_input, generator, tmp_path):
    _, spikingjelly = peers()
    network = small_network(generator, decay_input=decay_input, v_threshold=0.5)
    path = write_nir(tmp_path / "network.nir", network, 6, dt_ms=0.1)
    x = (torch.rand(50, 4, 6, generator=generator) < 0.5).float()
    theirs = spikingjelly.import_from_nir(path, dt=1e-4)
    state, spikes = None, []
    for step in x:
        out, state = theirs(step, state)
        spikes.append(out)
    assert torch.equal(torch.stack(spikes), network(x))
    assert network(x).mean() > 0.02


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # those of the other package
def test_snntorch_reads_our_graph_and_spikes_the_same(generator):
    snntorch, _ = peers()
    network = small_network(generator, compare="gt")
    # Its time step is 0.1 ms, fixed.
    theirs = snntorch.import_from_nir(to_nir(network, 6, dt_ms=0.1))
    x = (torch.rand(50, 4, 6, generator=generator) < 0.5).float()
    state, spikes = None, []
    for step in x:
        out, state = theirs(step, state)
        spikes.append(out)
    assert torch.equal(torch.stack(spikes).float(), network(x))
    assert network(x).mean() > 0.02


@pytest.mark.reference
def test_spikingjelly_network_with_our_neurons_is_written(generator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based import layer
    network = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 2, 3)),
        snn.LIF(),
        layer.Conv2d(2, 2, 3, step_mode="m"),
        snn.LIF(),
        layer.AvgPool2d(2, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Dropout(0.5, step_mode="m"),
        layer.Linear(8, 3, step_mode="m"),
        snn.IF(),
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.3, 0.6, generator=generator)
    x = torch.rand(20, 2, 1, 8, 8, generator=generator)
    assert torch.equal(from_nir(to_nir(network, (1, 8, 8), dt_ms=1), dt_ms=1)(x), network(x))
    assert 0 < network(x).mean() < 1
