"""The neuron modules: where they can stand, what they learn, what they refuse."""

import copy
import warnings

import pytest
import torch
from tolerances import close
from torch import nn

import snn
from snn import functional

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import snntorch
    import snntorch.surrogate
    from spikingjelly.activation_based import functional as sj_functional
    from spikingjelly.activation_based import layer, neuron, surrogate


def seeded_linear(n_in, n_out, seed):
    linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        linear.weight.normal_(0, 0.5, generator=generator)
        linear.bias.zero_()
    return linear


def spikingjelly_network(make_neuron):
    wrap = [layer.SeqToANNContainer(seeded_linear(8, 16, 0)), layer.SeqToANNContainer(seeded_linear(16, 4, 1))]
    network = nn.Sequential(wrap[0], make_neuron(), wrap[1], make_neuron())
    sj_functional.set_step_mode(network, "m")
    return network


@pytest.mark.reference
def test_takes_the_place_of_a_spikingjelly_neuron(generator):
    """Same network, same data, three steps of SGD: the same weights, with ours in the place of theirs."""
    options = {"tau": 2.0, "decay_input": False, "detach_reset": True, "v_reset": 0.0}
    theirs = spikingjelly_network(lambda: neuron.LIFNode(**options, surrogate_function=surrogate.ATan()))
    ours = spikingjelly_network(lambda: snn.LIF(**options))
    x = torch.randn(10, 5, 8, generator=generator)
    for network in (theirs, ours):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        for _ in range(3):
            sj_functional.reset_net(network)
            optimizer.zero_grad()
            (network(x).mean(0) - 0.5).square().sum().backward()
            optimizer.step()
    for (name, want), got in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        assert torch.equal(got, want) or (got - want).abs().max() < 1e-5, name


@pytest.mark.reference
def test_single_step_mode_of_spikingjelly_is_refused():
    with pytest.raises(ValueError, match=r"`step_mode` must be 'm', got 's'. For single steps call the neuron with"):
        sj_functional.set_step_mode(nn.Sequential(snn.LIF()), "s")


@pytest.mark.reference
def test_works_in_a_snntorch_loop(generator):
    x = torch.rand(12, 3, 8, generator=generator) * 0.5
    theirs = snntorch.Leaky(beta=0.75, reset_mechanism="zero", spike_grad=snntorch.surrogate.fast_sigmoid(25))
    # beta = 0.75 is tau = 4; a reset to zero gives the same spikes at once and one step later.
    ours = snn.LIF(tau=4.0, compare="gt", surrogate="fast_sigmoid")
    trains = []
    for neuron_ in (theirs, ours):
        mem = neuron_.init_leaky()
        spikes = []
        for step in x:
            spk, mem = neuron_(step, mem)
            spikes.append(spk)
        trains.append(torch.stack(spikes))
    assert torch.equal(trains[0], trains[1])
    assert trains[0].sum() > 0
    assert torch.equal(ours(x), trains[1])


@pytest.mark.reference
def test_plif_is_spikingjellys_parametric_neuron(generator):
    x = torch.randn(15, 4, 6, generator=generator, dtype=torch.float64) + 0.4
    grad = torch.randn(15, 4, 6, generator=generator, dtype=torch.float64)
    theirs = neuron.ParametricLIFNode(
        init_tau=3.0,
        decay_input=False,
        v_reset=None,
        detach_reset=True,
        surrogate_function=surrogate.ATan(),
        step_mode="m",
    ).double()
    ours = snn.PLIF(tau=3.0, v_reset=None).double()
    with torch.no_grad():
        ours.w.copy_(theirs.w)
    spikes = {}
    for name, neuron_ in (("theirs", theirs), ("ours", ours)):
        spikes[name] = neuron_(x)
        spikes[name].backward(grad)
    assert torch.equal(spikes["ours"], spikes["theirs"])
    close(ours.w.grad, theirs.w.grad)


def test_plif_learns_the_time_constant_that_made_the_spikes(generator):
    """Gradient descent on the membrane brings tau from 2 to that of the data, 8."""
    x = torch.rand(40, 16, 1, generator=generator) * 0.1
    target = functional.lif(x, tau=8.0)[1]
    plif = snn.PLIF(tau=2.0)
    optimizer = torch.optim.Adam(plif.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        functional.lif(x, tau=plif.tau)[1].sub(target).square().mean().backward()
        optimizer.step()
    assert plif.tau.item() == pytest.approx(8.0, rel=0.02)


def test_thresholds_per_channel_are_learned_and_stored():
    lif = snn.LIF(n_channels=3, learn_threshold=True, v_threshold=[0.5, 1.0, 2.0])
    x = torch.full((6, 2, 3, 4, 4), 0.8)
    lif(x).sum().backward()
    assert lif.v_threshold.grad.shape == (3,)
    assert torch.all(lif.v_threshold.grad < 0), "a higher threshold means fewer spikes"
    rates = lif(x).mean((0, 1, 3, 4))
    assert rates[0] > rates[1] > rates[2]
    again = snn.LIF(n_channels=3, learn_threshold=True)
    again.load_state_dict(lif.state_dict())
    assert torch.equal(again(x), lif(x))


@pytest.mark.parametrize("make", [snn.LIF, snn.PLIF, snn.IF])
def test_modules_keep_no_state_and_can_be_copied(make, generator):
    x = torch.randn(9, 2, 5, generator=generator) + 0.3
    neuron_ = make()
    first = neuron_(x)
    assert torch.equal(neuron_(x), first)
    assert torch.equal(copy.deepcopy(neuron_)(x), first)
    assert torch.equal(neuron_.double()(x.double()), make().double()(x.double()))
    assert type(neuron_).__name__ in repr(neuron_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 1.0}, "`tau` must be a finite number > 1"),
        ({"v_threshold": [1.0, 2.0]}, "`v_threshold` must be a number, or give `n_channels`"),
        ({"v_threshold": [1.0, 2.0], "n_channels": 3}, r"`v_threshold` must have shape \(3,\), got shape \(2,\)"),
        ({"backend": "cupy"}, "`backend` must be one of 'auto', 'torch', 'numba', 'triton', got 'cupy'"),
        ({"n_channels": 0}, "`n_channels` must be a whole number >= 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        snn.LIF(**options)


@pytest.mark.parametrize("repeat", [False, True])
def test_folded_neuron_is_the_unfolded_one(generator, repeat):
    neuron_ = snn.FoldedLIF(n_steps=3, repeat_input=repeat, v_threshold=0.7, leak=0.9)
    x = torch.randn(4 if repeat else 12, 5, 6, 6, generator=generator)
    steps = x.expand(3, *x.shape) if repeat else x.unflatten(0, (3, 4))
    want = functional.lif(steps, leak=0.9, v_threshold=0.7, v_reset=None, compare="gt", surrogate=neuron_.surrogate)[0]
    assert torch.equal(neuron_(x), want.flatten(0, 1))
    channels_last = neuron_(x.to(memory_format=torch.channels_last))
    assert torch.equal(channels_last, want.flatten(0, 1))
    assert channels_last.is_contiguous(memory_format=torch.channels_last)


def test_rows_that_are_no_multiple_of_the_steps_are_refused():
    with pytest.raises(ValueError, match=r"`x` must have T \* B rows with T = 3, got 7 rows"):
        snn.FoldedLIF(n_steps=3)(torch.zeros(7, 2))


def test_compare_is_the_neuron_at_one_step(generator):
    x = torch.randn(4, 5, 6, 6, generator=generator)
    x[0, 0, 0, 0] = 0.7
    spikes = snn.FoldedLIF(v_threshold=0.7)(x)
    assert torch.equal(snn.Compare(torch.tensor(0.7).item())(x), spikes)
    assert spikes[0, 0, 0, 0] == 0
    current = x.clone()
    assert snn.Compare(torch.tensor(0.7).item(), inplace=True)(current) is current
    assert torch.equal(current, spikes)
