"""Image networks, some steps at a time, against their own full run."""

import copy

import pytest
import torch
from fakes.stepping import leave, pieces, same, splits, tensors_of
from torch import nn
from torch.nn.utils import prune

from snn import FoldedLIF
from snn.folded import Compare
from snn.models import resnet, vgg
from snn.models.base import FoldedNetwork, conv_block, new_linear
from snn.stepping import FoldedStepper, Stepper, as_stepper

T = 6
NETWORKS = {
    "vgg": lambda **options: vgg(5, 10, in_shape=(2, 8, 8), width=0.125, **options),
    "vgg max": lambda **options: vgg(5, 10, in_shape=(2, 8, 8), width=0.125, pool="max", **options),
    "resnet": lambda **options: resnet(12, 10, in_shape=(2, 8, 8), width=0.0625, **options),
}


def build(which="vgg", n_steps=T, leak=0.75, dtype=torch.float64, **options):
    """Weights are multiples of 1/8, membranes decay by 3/4: all sums are exact, so spikes agree to the last one."""
    options = {"batch_norm": False, "dropout": 0.5, "dtype": dtype, **options}
    generator = torch.Generator().manual_seed(3)
    model = NETWORKS[which](activation=lambda: FoldedLIF(v_threshold=0.5, leak=leak), **options).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("weight", "bias")):
                p.copy_(torch.randint(-4, 5, p.shape, generator=generator) / 8)
    model.n_steps = n_steps
    return model


def images(batch=7, dtype=torch.float64, shape=(2, 8, 8)):
    return (torch.randint(0, 9, (batch, *shape), generator=torch.Generator().manual_seed(1)) / 8).to(dtype)


@pytest.mark.parametrize("which", NETWORKS)
@torch.no_grad()
def test_pieces_of_any_size_are_the_full_run(which):
    model, x = build(which), images()
    whole = model.step_logits(x)
    assert whole.unique().numel() > 20  # the network is alive
    assert (whole[0] != whole[-1]).any()
    stepper = as_stepper(model)
    for sizes in splits(T):
        assert torch.equal(pieces(stepper, stepper.start(x), sizes)[0], whole)


@pytest.mark.parametrize("which", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_samples_that_stay_go_on_as_if_alone(which, seed):
    model, x = build(which), images(9)
    whole = model.step_logits(x)
    sizes = []
    for age, left, logits in leave(as_stepper(model), x, T, seed, size=None if seed else 1):
        assert torch.equal(logits, whole[age : age + len(logits), left])
        sizes.append(len(left))
    assert len(sizes) > 1
    assert seed or sizes == [9, 5, 3, 2, 1, 0]


@torch.no_grad()
def test_the_batch_may_be_one_and_none():
    model, x = build(), images(3)
    stepper = as_stepper(model)
    one = stepper.start(x[:1])
    assert torch.equal(stepper.run(one, T)[0], model.step_logits(x[:1]))
    none = stepper.keep(stepper.start(x), torch.empty(0, dtype=torch.int64))
    logits, none = stepper.run(none, 2)
    assert logits.shape == (2, 0, 10)
    assert stepper.run(stepper.keep(none, torch.empty(0, dtype=torch.int64)), 1)[0].shape == (1, 0, 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_channels_last_images_give_the_same_steps(dtype):
    model = build(dtype=dtype).to(memory_format=torch.channels_last)
    x = images(dtype=dtype).contiguous(memory_format=torch.channels_last)
    stepper = as_stepper(model)
    want = model.step_logits(x)
    assert torch.equal(pieces(stepper, stepper.start(x), [2, 1, 3])[0], want)
    for age, left, logits in leave(stepper, x, T, 1):
        assert torch.equal(logits, want[age : age + len(logits), left])


class Calls:
    """Counts calls and rows of modules."""

    def __init__(self, model, *names):
        self.rows = {name: [] for name in names}
        for name in names:
            model.get_submodule(name).register_forward_hook(lambda m, args, y, name=name: self.see(name, args[0], y))

    def see(self, name, x, y):
        assert not x.is_meta
        assert not y.is_meta
        self.rows[name].append((len(x), len(y)))


@torch.no_grad()
def test_the_first_layer_runs_once_and_others_once_a_call():
    model, x = build(), images(5)
    calls = Calls(model, "features.conv1", "features.act1", "features.conv2", "features.act2", "classifier.fc3")
    stepper = as_stepper(model)
    state = stepper.start(x)
    assert calls.rows == {"features.conv1": [(5, 5)]} | {name: [] for name in list(calls.rows)[1:]}
    _, state = stepper.run(state, 4)
    _, state = stepper.run(stepper.keep(state, torch.tensor([4, 0])), 2)
    assert calls.rows["features.conv1"] == [(5, 5)]
    assert calls.rows["features.act1"] == [(5, 20), (2, 4)]
    for name in list(calls.rows)[2:]:
        assert calls.rows[name] == [(20, 20), (4, 4)]


@torch.no_grad()
def test_the_network_comes_out_as_it_went_in():
    model, x = build(n_steps=3), images()
    Calls(model, "features.conv1", "features.act2")
    before = tensors_of(model)
    stepper = as_stepper(model)
    state = stepper.start(x)
    stepper.run(stepper.run(state, 2)[1], 5)
    assert same(before, tensors_of(model))
    assert model.n_steps == 3
    assert torch.equal(model.step_logits(x), build(n_steps=3).step_logits(x))


@pytest.mark.parametrize("place", ["features.conv1", "features.conv2", "classifier.act2"])
@torch.no_grad()
def test_the_network_comes_out_as_it_went_in_after_an_exception(place):
    model, x = build(), images()
    stepper = as_stepper(model)
    ready = stepper.start(x)

    def fail(module, args):
        raise KeyboardInterrupt

    handle = model.get_submodule(place).register_forward_pre_hook(fail)
    before = tensors_of(model)
    with pytest.raises(KeyboardInterrupt):
        stepper.run(stepper.start(x), 2)
    if place != "features.conv1":
        with pytest.raises(KeyboardInterrupt):
            stepper.run(ready, 2)
    assert same(before, tensors_of(model))
    handle.remove()
    assert torch.equal(stepper.run(stepper.start(x), T)[0], model.step_logits(x))


@torch.no_grad()
def test_two_runs_of_one_network_do_not_disturb_each_other():
    model, x, y = build(), images(4), 1 - images(6)
    stepper, other = as_stepper(model), as_stepper(model)
    want_x, want_y = model.step_logits(x), model.step_logits(y)
    at_x, at_y, at_z = stepper.start(x), stepper.start(y), other.start(x)
    for t in range(T):
        got_x, at_x = stepper.run(at_x, 1)
        got_y, at_y = stepper.run(at_y, 1)
        got_z, at_z = other.run(at_z, 1)
        assert torch.equal(model.step_logits(x), want_x)
        assert torch.equal(got_x[0], want_x[t])
        assert torch.equal(got_y[0], want_y[t])
        assert torch.equal(got_z, got_x)


@torch.no_grad()
def test_a_batch_can_be_split_in_two_that_both_go_on():
    model, x = build(), images(5)
    want, stepper = model.step_logits(x), as_stepper(model)
    _, state = stepper.run(stepper.start(x), 2)
    parts = [torch.tensor([3, 1]), torch.tensor([0, 2, 4])]
    for part, state_of_part in [(part, stepper.keep(state, part)) for part in parts]:
        assert torch.equal(stepper.run(state_of_part, 4)[0], want[2:, part])


@torch.no_grad()
def test_weights_that_are_computed_anew_at_each_call_are_found():
    """Pruning and parametrisation put their weights where they want."""
    for change in (
        lambda conv: prune.l1_unstructured(conv, "weight", 0.3),
        lambda conv: nn.utils.parametrizations.weight_norm(conv),
    ):
        model, x = build(dtype=torch.float64), images()
        change(model.get_submodule("features.conv1"))
        model.eval()  # what was added begins in training mode
        stepper = as_stepper(model)
        assert torch.equal(pieces(stepper, stepper.start(x), [2, 1, 3])[0], model.step_logits(x))


def test_steps_take_no_gradients():
    model, x = build(), images().requires_grad_()
    stepper = as_stepper(model)
    logits, _ = stepper.run(stepper.start(x), 2)
    assert not logits.requires_grad


def test_a_folded_network_is_known():
    assert isinstance(as_stepper(build()), FoldedStepper)
    assert isinstance(as_stepper(build(), inputs="static"), Stepper)


# --- what it refuses ----------------------------------------------------------------------------------------------


def test_other_activations_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`features.act1` must be a FoldedLIF neuron, got ReLU"):
        as_stepper(vgg(5, 10, in_shape=(2, 8, 8), width=0.125))
    model = build(n_steps=1)
    model.set_submodule("features.act2", Compare(0.5))
    with pytest.raises(ValueError, match=r"`features.act2` must be a FoldedLIF neuron, got Compare"):
        as_stepper(model)


def test_training_mode_is_refused_in_any_part():
    model = build()
    stepper = as_stepper(model)
    state = stepper.start(images())
    model.train()
    with pytest.raises(ValueError, match="evaluation mode"):
        stepper.start(images())
    model.eval()
    model.get_submodule("features.drop2").train()
    with pytest.raises(ValueError, match=r"`features.drop2` in training mode"):
        stepper.run(state, 1)
    model.eval()
    stepper.run(state, 1)  # what was refused has used nothing up


def test_shapes_steps_and_states_are_checked():
    stepper, other = as_stepper(build()), as_stepper(build())
    with pytest.raises(ValueError, match=r"shape \(B, 2, 8, 8\)"):
        stepper.start(images(shape=(2, 8, 9)))
    state = stepper.start(images(4))
    assert stepper.steps_left(state) is None
    for n_steps, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="n_steps"):
            stepper.run(state, n_steps)
    for index in (torch.tensor([0, 4]), torch.tensor([-1]), torch.tensor([True] * 4), torch.tensor([[0]]), [0]):
        with pytest.raises(ValueError, match="index"):
            stepper.keep(state, index)
    with pytest.raises(TypeError, match="of this stepper"):
        other.run(state, 1)
    with pytest.raises(TypeError, match="of this stepper"):
        stepper.keep(None, torch.tensor([0]))
    stepper.run(state, 1)
    with pytest.raises(ValueError, match="run on already"):
        stepper.run(state, 1)
    with pytest.raises(ValueError, match="run on already"):
        stepper.keep(state, torch.tensor([0]))


class Skips(FoldedNetwork):
    """Needs the first current once more after the first neuron: not what a folded network is."""

    def __init__(self):
        super().__init__((2, 4, 4), 3)
        layers = conv_block(1, 2, 2, batch_norm=False, activation=FoldedLIF)
        self.conv1, self.act1 = layers["conv1"], layers["act1"]
        self.classifier = new_linear(32, 3)
        self._finish(torch.Generator().manual_seed(0))

    def _rows(self, x):
        current = self.conv1(x)
        spikes = self.act1(current)
        return self.classifier((spikes + current.repeat(len(spikes) // len(current), 1, 1, 1)).flatten(1))


def test_a_skip_past_the_first_neuron_is_an_error_and_no_wrong_number():
    model = Skips().eval()
    stepper = as_stepper(model)
    state = stepper.start(torch.rand(3, 2, 4, 4))
    before = tensors_of(model)
    with pytest.raises(ValueError, match="before its first neuron"):
        stepper.run(state, 2)
    assert same(before, tensors_of(model))


def test_a_stepper_can_be_copied_with_its_network():
    stepper = as_stepper(build())
    twin, x = copy.deepcopy(stepper), images(2)
    assert twin.model is not stepper.model
    assert torch.equal(twin.run(twin.start(x), 2)[0], stepper.run(stepper.start(x), 2)[0])
