"""Networks of spikingjelly, some steps at a time, against their own full run."""

import inspect

import pytest
import torch
from fakes.spiking import Stateful
from fakes.stepping import check_laws, dyadic, inputs_of, pieces, same, tensors_of
from tolerances import close
from torch import nn

from snn import LIF
from snn.stepping import ModuleStepper, as_stepper

pytestmark = pytest.mark.reference

T, B = 7, 9


def sj():
    return pytest.importorskip("spikingjelly.activation_based")


def sj_neurons():
    from spikingjelly.activation_based import neuron

    # Decays by 1/2 or 3/4 and thresholds of 1/2: membranes are short binary fractions, sums exact in any order.
    return {
        "IF hard": lambda mode: neuron.IFNode(2.0, step_mode=mode),
        "IF soft": lambda mode: neuron.IFNode(2.0, None, step_mode=mode),
        "LIF": lambda mode: neuron.LIFNode(2.0, v_threshold=0.5, step_mode=mode),
        "LIF soft": lambda mode: neuron.LIFNode(4.0, decay_input=False, v_reset=None, step_mode=mode),
        "LIF reset elsewhere": lambda mode: neuron.LIFNode(2.0, v_threshold=0.5, v_reset=-0.25, step_mode=mode),
        "PLIF": lambda mode: neuron.ParametricLIFNode(2.0, v_threshold=0.5, step_mode=mode),
        "EIF": lambda mode: neuron.EIFNode(v_threshold=0.5, v_rest=0.0, v_reset=-0.1, step_mode=mode),
        "QIF": lambda mode: neuron.QIFNode(v_threshold=0.5, v_reset=-0.1, step_mode=mode),
        "adaptive": lambda mode: neuron.IzhikevichNode(v_threshold=0.5, v_reset=-0.1, step_mode=mode),
        "stores": lambda mode: neuron.LIFNode(2.0, v_threshold=0.5, step_mode=mode, store_v_seq=True),
    }


SJ_NEURONS = [
    "IF hard",
    "IF soft",
    "LIF",
    "LIF soft",
    "LIF reset elsewhere",
    "PLIF",
    "EIF",
    "QIF",
    "adaptive",
    "stores",
]


def sj_images(mode, neuron="LIF"):
    from spikingjelly.activation_based import layer

    make = sj_neurons()[neuron]
    model = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, step_mode=mode),
        layer.BatchNorm2d(4, step_mode=mode),
        make(mode),
        layer.MaxPool2d(2, step_mode=mode),
        layer.Flatten(step_mode=mode),
        layer.Dropout(0.5, step_mode=mode),
        layer.Linear(16, 8, step_mode=mode),
        make(mode),
        layer.Linear(8, 3, step_mode=mode),
    )
    return dyadic(model, torch.Generator().manual_seed(2), 4).eval()


@torch.no_grad()
def sj_full(model, x, mode):
    from spikingjelly.activation_based import functional

    functional.reset_net(model)
    logits = model(x) if mode == "m" else torch.stack([model(one) for one in x])
    functional.reset_net(model)
    return logits


def test_the_list_of_neurons_is_whole():
    sj()
    assert list(sj_neurons()) == SJ_NEURONS


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("inputs", ["static", "sequence"])
@pytest.mark.parametrize("neuron", SJ_NEURONS)
@torch.no_grad()
def test_spikingjelly_network_is_its_own_full_run(neuron, mode, inputs):
    sj()
    model = sj_images(mode, neuron).double()
    x, whole = inputs_of((2, 4, 4), inputs)
    want = sj_full(model, whole.double(), mode)
    stepper = as_stepper(model, inputs=inputs)
    assert isinstance(stepper, ModuleStepper)
    assert stepper.step_mode == mode
    check_laws(stepper, x.double(), want)


@pytest.mark.parametrize("mode", ["s", "m"])
@torch.no_grad()
def test_every_spikingjelly_neuron_goes_on_where_it_stopped_or_is_refused(mode):
    sj()
    from spikingjelly.activation_based import functional, layer, neuron

    classes = {name: kind for name, kind in vars(neuron).items() if isinstance(kind, type)}
    classes |= {"Delay": layer.Delay, "SynapseFilter": layer.SynapseFilter, "Dropout": layer.Dropout}
    known = {"SlidingPSN": (2,), "MaskedPSN": (2, T), "PSN": (T,), "Delay": (2,), "SynapseFilter": (2.0,)}
    x = 2 * inputs_of((4,), "sequence")[0]
    went_on, refused = [], []
    for name, kind in classes.items():
        try:
            takes_mode = "step_mode" in inspect.signature(kind).parameters
            node = kind(*known.get(name, ()), **({"step_mode": mode} if takes_mode else {}))
            model = nn.Sequential(nn.Linear(4, 4), node, nn.Linear(4, 3)).eval()
            dyadic(model, torch.Generator().manual_seed(2), 4)
            want = sj_full(model, x, mode)
        except (AssertionError, AttributeError, ImportError, RuntimeError, TypeError, ValueError):
            continue  # abstract, of another mode, or in want of more arguments
        functional.reset_net(model)
        try:
            stepper = as_stepper(model, inputs="sequence", step_mode=mode)
            logits, _ = pieces(stepper, stepper.start(x), [2, 1, 4])
        except (AssertionError, TypeError, ValueError, RuntimeError):
            refused.append(name)
            continue
        close(logits, want)
        went_on.append(name)
    assert len(went_on) >= 18
    assert {"IFNode", "LIFNode", "ParametricLIFNode", "RAFNode", "Delay"} <= set(went_on)
    assert mode == "s" or {"SlidingPSN", "PSN", "DSRIFNode"} <= set(refused)


@pytest.mark.parametrize("mode", ["s", "m"])
@torch.no_grad()
def test_spikingjelly_memories_of_others_stay_as_they_are(mode):
    sj()
    model = sj_images(mode, "stores")
    x, whole = inputs_of((2, 4, 4), "static")
    stepper = as_stepper(model, inputs="static")
    state = stepper.start(x)
    # Somebody else is in the middle of a sequence of another batch.
    half = whole[:3, :4] if mode == "m" else None
    model(half) if mode == "m" else [model(one[:4]) for one in whole[:3]]
    before = tensors_of(model)
    _, state = stepper.run(state, 2)
    stepper.run(stepper.keep(state, torch.tensor([1, 2])), 3)
    assert same(before, tensors_of(model))
    assert model[2].v.shape == (4, 4, 4, 4)
    handle = model[8].register_forward_pre_hook(lambda *a: 1 / 0)
    before = tensors_of(model)
    with pytest.raises(ZeroDivisionError):
        stepper.run(stepper.start(x), 2)
    assert same(before, tensors_of(model))
    handle.remove()


@pytest.mark.parametrize("mode", ["s", "m"])
@torch.no_grad()
def test_spikingjelly_run_begins_at_rest_whatever_the_neurons_remember(mode):
    sj()
    model = sj_images(mode)
    x, whole = inputs_of((2, 4, 4), "static")
    want = sj_full(model, whole, mode)
    model(whole[:3]) if mode == "m" else [model(one) for one in whole[:3]]
    stepper = as_stepper(model, inputs="static")
    assert torch.equal(stepper.run(stepper.start(x), T)[0], want)


@torch.no_grad()
def test_spikingjelly_runs_side_by_side_do_not_mix():
    sj()
    model = sj_images("m")
    (x, whole), (y, whole_y) = inputs_of((2, 4, 4), "static"), inputs_of((2, 4, 4), "static", seed=9)
    want, want_y = sj_full(model, whole, "m"), sj_full(model, whole_y, "m")
    stepper = as_stepper(model, inputs="static")
    at_x, at_y = stepper.start(x), stepper.start(y)
    for t in range(T):
        got_x, at_x = stepper.run(at_x, 1)
        got_y, at_y = stepper.run(at_y, 1)
        assert torch.equal(got_x[0], want[t])
        assert torch.equal(got_y[0], want_y[t])


@pytest.mark.parametrize("mode", ["s", "m"])
@torch.no_grad()
def test_spikingjelly_first_layer_can_run_once(mode):
    sj()
    model = sj_images(mode)
    x, whole = inputs_of((2, 4, 4), "static")
    want = sj_full(model, whole, mode)
    calls = {0: 0, 1: 0, 2: 0, 6: 0}
    for number in calls:
        model[number].register_forward_hook(lambda *a, number=number: calls.update({number: calls[number] + 1}))
    stepper = as_stepper(model, inputs="static", first_once=True)
    check_laws(stepper, x, want)
    state = stepper.start(x)
    calls.update(dict.fromkeys(calls, 0))
    stepper.run(stepper.run(state, 4)[1], 3)
    # In multi-step mode a layer is called once for all steps of a call, in single-step mode once a step.
    assert calls == {0: 0, 1: 0, 2: 2 if mode == "m" else 7, 6: 2 if mode == "m" else 7}


@torch.no_grad()
def test_spikingjelly_first_layer_that_draws_random_numbers_cannot_run_once():
    sj()
    from spikingjelly.activation_based import encoding

    model = nn.Sequential(encoding.PoissonEncoder("m"), *sj_images("m")).eval()
    stepper = as_stepper(model, inputs="static", first_once=True)
    with pytest.raises(ValueError, match="same at each step"):
        stepper.start(inputs_of((2, 4, 4), "static")[0])


class SkipsPast(nn.Module):
    """Uses the image after the first neuron too."""

    def __init__(self, mode):
        super().__init__()
        self.parts, self.step_mode = sj_images(mode), mode

    def forward(self, x):
        return self.parts(x) + x.flatten(-3).mean(-1, keepdim=True)


@pytest.mark.parametrize("mode", ["s", "m"])
@torch.no_grad()
def test_spikingjelly_skip_past_the_first_neuron_cannot_run_once(mode):
    sj()
    model = SkipsPast(mode).eval()
    x, whole = inputs_of((2, 4, 4), "static")
    check_laws(as_stepper(model, inputs="static"), x, sj_full(model, whole, mode), seeds=1)
    stepper = as_stepper(model, inputs="static", first_once=True)
    with pytest.raises(ValueError, match=r"before its first neuron there only.*first_once"):
        stepper.run(stepper.start(x), 1)


@torch.no_grad()
def test_spikingjelly_recurrent_container_and_synapse_filter_keep_their_state_too():
    sj()
    from spikingjelly.activation_based import functional, layer, neuron

    model = nn.Sequential(
        layer.Linear(5, 6),
        layer.LinearRecurrentContainer(neuron.LIFNode(2.0, v_threshold=0.5), 6, 6),
        layer.SynapseFilter(2.0),
        layer.Linear(6, 3),
    )
    functional.set_step_mode(model, "s")
    dyadic(model, torch.Generator().manual_seed(2), 4).eval().double()
    x, whole = inputs_of((5,), "static")
    check_laws(as_stepper(model, inputs="static"), x.double(), sj_full(model, whole.double(), "s"))


@pytest.mark.parametrize("mode", ["s", "m"])
@torch.no_grad()
def test_spikingjelly_memories_that_are_lists_are_of_each_run(mode):
    sj()
    from spikingjelly.activation_based import layer

    model = nn.Sequential(nn.Linear(5, 6), layer.Delay(2, step_mode=mode), nn.Linear(6, 3))
    dyadic(model, torch.Generator().manual_seed(2), 4).eval()
    x, whole = inputs_of((5,), "sequence")
    want = sj_full(model, whole, mode)
    stepper = as_stepper(model, inputs="sequence", step_mode=mode)
    check_laws(stepper, x, want)
    state = stepper.start(x)
    for part in (torch.tensor([0, 3]), torch.tensor([5])):  # two groups from one state before its first step
        assert torch.equal(pieces(stepper, stepper.keep(state, part), [3, 4])[0], want[:, part])


@torch.no_grad()
def test_our_neurons_go_on_inside_a_spikingjelly_network():
    sj()
    from spikingjelly.activation_based import functional

    model = sj_images("m")
    model[7] = LIF(2.0, v_threshold=0.5)
    functional.set_step_mode(model.eval(), "m")
    x, whole = inputs_of((2, 4, 4), "sequence")
    check_laws(as_stepper(model, inputs="sequence"), x, sj_full(model, whole, "m"))


@torch.no_grad()
def test_a_loop_over_steps_inside_the_network_is_called_with_sequences():
    sj()

    class Loops(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = sj_images("s")

        def forward(self, xs):
            return torch.stack([self.parts(x) for x in xs])

    model = Loops().eval()
    x, whole = inputs_of((2, 4, 4), "sequence")
    want = sj_full(model, whole, "m")
    check_laws(as_stepper(model, inputs="sequence", step_mode="m"), x, want)


def test_spikingjelly_memory_without_the_batch_is_named():
    sj()
    from spikingjelly.activation_based import neuron

    sliding = nn.Sequential(nn.Linear(5, 3), neuron.SlidingPSN(2, step_mode="s"), nn.Linear(3, 3)).eval()
    stepper = as_stepper(sliding, inputs="static")
    with pytest.raises(ValueError, match=r"`1\['queue'\]\[0\]` must have the batch, 9 samples, on axis 0"):
        stepper.run(stepper.start(torch.ones(B, 5)), 1)
    # A single-step neuron that was fed a sequence takes time for the batch.
    mixed = nn.Sequential(nn.Linear(5, 3), neuron.IFNode(step_mode="s")).eval()
    stepper = as_stepper(mixed, inputs="static", step_mode="m")
    with pytest.raises(
        ValueError, match=r"`1\['v'\]` must have the batch, 9 samples, on axis 0, got shape \(2, 9, 3\)"
    ):
        stepper.run(stepper.start(torch.ones(B, 5)), 2)


def test_spikingjelly_network_that_resets_itself_is_named():
    sj()
    from spikingjelly.activation_based import functional

    class Resets(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = sj_images("m")

        def forward(self, x):
            functional.reset_net(self.parts)
            return self.parts(x)

    model = Resets().eval()
    stepper = as_stepper(model, inputs="static", step_mode="m")
    with pytest.raises(ValueError, match=r"not reset its neurons in forward, got a reset of `parts.2`"):
        stepper.run(stepper.start(inputs_of((2, 4, 4), "static")[0]), 1)
    functional.reset_net(model)  # works as before


def test_spikingjelly_network_that_sums_over_time_is_told_so():
    sj()

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = sj_images("m")

        def forward(self, x):
            return self.parts(x).mean(0)

    stepper = as_stepper(Sums().eval(), inputs="static")
    with pytest.raises(ValueError, match="not summed over time"):
        stepper.run(stepper.start(inputs_of((2, 4, 4), "static")[0]), 2)


def test_step_modes_that_disagree_are_an_error():
    sj()
    from spikingjelly.activation_based import neuron

    model = nn.Sequential(neuron.IFNode(step_mode="s"), neuron.IFNode(step_mode="m"))
    with pytest.raises(ValueError, match=r"one step mode, got both 's' and 'm'.*step_mode="):
        as_stepper(model, inputs="static")


def test_spikingjelly_training_mode_is_refused():
    sj()
    stepper = as_stepper(sj_images("m").train(), inputs="static")
    with pytest.raises(ValueError, match="evaluation mode"):
        stepper.start(inputs_of((2, 4, 4), "static")[0])


@torch.no_grad()
def test_a_state_that_lies_elsewhere_is_named_and_put_back():
    sj()
    model = nn.Sequential(*sj_images("s"), Stateful()).eval()
    stepper = as_stepper(model, inputs="static")
    before = tensors_of(model)
    with pytest.raises(ValueError, match=r"`9.v` must stay as it is while the network runs"):
        stepper.run(stepper.start(inputs_of((2, 4, 4), "static")[0]), 1)
    assert same(before, tensors_of(model))
    with pytest.raises(TypeError, match=r"be one of these: .*spikingjelly.*got Sequential"):
        as_stepper(nn.Sequential(nn.Linear(2, 2), Stateful()), inputs="static")
