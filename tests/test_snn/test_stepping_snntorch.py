"""Networks of snntorch, some steps at a time, against the loops their users write."""

import pytest
import torch
from fakes.stepping import check_laws, dyadic, inputs_of, pieces, same, tensors_of
from tolerances import close
from torch import nn

from snn.stepping import as_stepper

pytestmark = pytest.mark.reference


def snt():
    return pytest.importorskip("snntorch")


def snt_hidden():
    import snntorch

    return {
        "Leaky": lambda n, **o: snntorch.Leaky(0.5, threshold=0.5, init_hidden=True, **o),
        "Leaky zero": lambda n, **o: snntorch.Leaky(0.5, reset_mechanism="zero", init_hidden=True, **o),
        "Leaky now": lambda n, **o: snntorch.Leaky(0.75, reset_delay=False, init_hidden=True, **o),
        "Synaptic": lambda n, **o: snntorch.Synaptic(0.5, 0.75, threshold=0.5, init_hidden=True, **o),
        "Alpha": lambda n, **o: snntorch.Alpha(0.75, 0.5, threshold=0.0625, init_hidden=True, **o),
        "RLeaky": lambda n, **o: snntorch.RLeaky(0.5, linear_features=n, threshold=0.5, init_hidden=True, **o),
        "RSynaptic": lambda n, **o: snntorch.RSynaptic(0.5, 0.5, linear_features=n, init_hidden=True, **o),
        "Lapicque": lambda n, **o: snntorch.Lapicque(0.5, threshold=0.5, init_hidden=True, **o),
        "SLSTM": lambda n, **o: snntorch.SLSTM(n, n, threshold=0.05, init_hidden=True, **o),
    }


SNT_NEURONS = ["Leaky", "Leaky zero", "Leaky now", "Synaptic", "Alpha", "RLeaky", "RSynaptic", "Lapicque", "SLSTM"]


def snt_network(neuron, *, output=False):
    make = snt_hidden()[neuron]
    model = nn.Sequential(nn.Linear(5, 8), make(8), nn.Linear(8, 3), make(3, output=output))
    return dyadic(model, torch.Generator().manual_seed(2), 4).eval()


@torch.no_grad()
def snt_full(model, x, pick=None):
    from snntorch import utils

    utils.reset(model)
    answers = [model(one) for one in x]
    utils.reset(model)
    return torch.stack([answer if pick is None else answer[pick] for answer in answers])


def test_the_list_of_hidden_neurons_is_whole():
    snt()
    assert list(snt_hidden()) == SNT_NEURONS


@pytest.mark.parametrize("inputs", ["static", "sequence"])
@pytest.mark.parametrize("neuron", SNT_NEURONS)
@torch.no_grad()
def test_snntorch_network_with_hidden_states_is_its_own_loop(neuron, inputs):
    snt()
    x, whole = inputs_of((5,), inputs)
    model = snt_network(neuron)
    want = snt_full(model, whole)
    if neuron != "SLSTM":  # its sigmoids round, and so do its sums by the size of the batch
        check_laws(as_stepper(model, inputs=inputs), x, want)
    stepper = as_stepper(model, inputs=inputs)
    close(pieces(stepper, stepper.start(x), [2, 1, 4])[0], want)


@pytest.mark.parametrize("pick", [0, 1, -1])
@torch.no_grad()
def test_snntorch_outputs_are_picked(pick):
    snt()
    x, whole = inputs_of((5,), "static")
    model = snt_network("Leaky", output=True)
    check_laws(as_stepper(model, inputs="static", output=pick), x, snt_full(model, whole, pick))
    stepper = as_stepper(model, inputs="static")
    with pytest.raises(ValueError, match=r"`output` must be given for a network with 2 outputs.*output=-1"):
        stepper.run(stepper.start(x), 1)
    stepper = as_stepper(model, inputs="static", output=2)
    with pytest.raises(ValueError, match=r"`output` must be the number of one of the network's outputs"):
        stepper.run(stepper.start(x), 1)


@torch.no_grad()
def test_snntorch_hidden_states_of_others_stay_as_they_are():
    snt()
    model = snt_network("RSynaptic")
    x, whole = inputs_of((5,), "static")
    stepper = as_stepper(model, inputs="static")
    state = stepper.start(x)
    model(x[:4])
    before = tensors_of(model)
    _, state = stepper.run(state, 2)
    stepper.run(stepper.keep(state, torch.tensor([1, 2])), 3)
    stepper.start(x)
    assert same(before, tensors_of(model))
    assert model[1].mem.shape == (4, 8)
    fresh = snt_network("RSynaptic")
    before = tensors_of(fresh)
    stepper = as_stepper(fresh, inputs="static")
    stepper.run(stepper.start(x), 2)
    assert same(before, tensors_of(fresh))


@torch.no_grad()
def test_snntorch_first_layer_can_run_once():
    snt()
    x, whole = inputs_of((5,), "static")
    model = snt_network("Leaky")
    want, calls = snt_full(model, whole), []
    model[0].register_forward_hook(lambda *a: calls.append(1))
    stepper = as_stepper(model, inputs="static", first_once=True)
    state = stepper.start(x)
    n_calls = len(calls)
    assert torch.equal(pieces(stepper, state, [3, 4])[0], want)
    assert len(calls) == n_calls == 2
    check_laws(stepper, x, want)


class Loop(nn.Module):
    """A network as snntorch's tutorials write it, with the loop taken out."""

    def __init__(self):
        super().__init__()
        import snntorch

        self.fc1, self.lif1 = nn.Linear(5, 8), snntorch.Leaky(0.5, threshold=0.5)
        self.fc2, self.lif2 = nn.Linear(8, 3), snntorch.Synaptic(0.5, 0.75, threshold=0.5)

    def step(self, x, state):
        mem1, (syn2, mem2) = state["mem1"], state["out"]
        spk1, mem1 = self.lif1(self.fc1(x), mem1)
        spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
        return mem2, {"mem1": mem1, "out": (syn2, mem2)}

    def begin(self, x, state):
        if state is None:
            state = {"mem1": self.lif1.reset_mem(), "out": self.lif2.reset_mem()}
        return self.step(x, state)


@pytest.mark.parametrize("inputs", ["static", "sequence"])
@torch.no_grad()
def test_snntorch_loop_is_a_step_function(inputs):
    snt()
    model = dyadic(Loop(), torch.Generator().manual_seed(2), 4).eval()
    x, whole = inputs_of((5,), inputs)
    state, want = None, []
    for one in whole:
        logits, state = model.begin(one, state)
        want.append(logits)
    check_laws(as_stepper(model.begin, inputs=inputs), x, torch.stack(want))
    stepper = as_stepper(model.train().begin, inputs=inputs)
    with pytest.raises(ValueError, match="evaluation mode"):
        stepper.start(x)


def test_snntorch_neuron_that_takes_whole_sequences_is_named():
    snt()
    import snntorch

    neuron = snntorch.StateLeaky(0.5, channels=3) if hasattr(snntorch, "StateLeaky") else None
    if neuron is None:
        pytest.skip("this snntorch has no StateLeaky")
    stepper = as_stepper(nn.Sequential(nn.Linear(5, 3), neuron).eval(), inputs="static")
    with pytest.raises(ValueError, match=r"`1` must keep its state in buffers between calls, got StateLeaky"):
        stepper.start(torch.ones(2, 5))
