"""Functions of one step, recorded logits, states of any nesting, and the choice of a stepper."""

import dataclasses
from typing import NamedTuple

import pytest
import torch
from fakes.stepping import leave, pieces, splits
from tolerances import close
from torch import nn

from snn import LIF, DelayLinear, FoldedLIF
from snn.delays import DelayState
from snn.models import delay_mlp, vgg
from snn.stepping import INPUTS, STEP_MODES, STEPPERS, FunctionStepper, ReplayStepper, Stepper, as_stepper
from snn.stepping.trees import check_rows, keep_rows

T, B, K = 6, 9, 3


class Pair(NamedTuple):
    v: torch.Tensor
    spikes: torch.Tensor


@dataclasses.dataclass
class Held:
    v: torch.Tensor
    n: int


def data(inputs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (B, K) if inputs == "static" else (T, B, K)
    return torch.randint(0, 9, shape, generator=generator) / 8


def integrate(x, state):
    """A leaky membrane that is the logits, its state nested as deep as it goes."""
    if state is None:
        zeros = torch.zeros_like(x)
        state = [{"pair": Pair(zeros, zeros), "held": Held(zeros, 0)}, None, torch.tensor(0.0), "name"]
    inner, _, age, name = state
    v = 0.5 * inner["pair"].v + x - inner["pair"].spikes
    held = Held(inner["held"].v + x, inner["held"].n + 1)
    return v + held.v, [{"pair": Pair(v, (v > 1).float()), "held": held}, None, age + 1, name]


def loop(function, x, inputs):
    whole = x if inputs == "sequence" else x.expand(T, *x.shape)
    state, logits = None, []
    for one in whole:
        some, state = function(one, state)
        logits.append(some)
    return torch.stack(logits)


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_step_function_is_its_own_loop(inputs):
    x = data(inputs)
    want = loop(integrate, x, inputs)
    stepper = as_stepper(integrate, inputs=inputs)
    assert isinstance(stepper, FunctionStepper)
    for sizes in splits(T):
        assert torch.equal(pieces(stepper, stepper.start(x), sizes)[0], want)
    for seed in range(4):
        for age, left, logits in leave(stepper, x, T, seed, size=None if seed else 1):
            assert torch.equal(logits, want[age : age + len(logits), left])


def test_a_step_function_is_called_once_a_step_and_for_nobody_never():
    calls = []

    def step(x, state):
        calls.append(len(x))
        return integrate(x, state)

    stepper = as_stepper(step, inputs="static")
    _, state = stepper.run(stepper.start(data("static")), 4)
    _, state = stepper.run(stepper.keep(state, torch.tensor([2])), 1)
    state = stepper.keep(state, torch.empty(0, dtype=torch.int64))
    assert stepper.run(state, 3)[0].shape == (3, 0, K)
    assert calls == [B] * 4 + [1]


def test_samples_may_lie_on_another_axis_of_the_state():
    def step(x, state):
        v = torch.zeros_like(x).T if state is None else state
        v = v + x.T
        return v.T.clone(), v

    x = data("sequence")
    stepper = as_stepper(step, inputs="sequence", batch_axis=1)
    want = loop(step, x, "sequence")
    for age, left, logits in leave(stepper, x, T):
        assert torch.equal(logits, want[age : age + len(logits), left])
    stepper = as_stepper(step, inputs="sequence")
    with pytest.raises(ValueError, match=r"`state` must have the batch, 9 samples, on axis 0, got shape \(3, 9\)"):
        stepper.run(stepper.start(x), 1)


@torch.no_grad()
def test_a_delay_network_of_its_own_steps_is_a_step_function():
    """The state holds rings of inputs, with time first, beside membranes, with the batch first."""
    model = delay_mlp(K, 2, hidden=(4,), max_delay=B, generator=torch.Generator().manual_seed(1)).eval()
    x = data("sequence")
    stepper = as_stepper(model.step, inputs="sequence")
    want = model.step_logits(x)
    for age, left, logits in leave(stepper, x, T):
        close(logits, want[age : age + len(logits), left])


def test_what_a_step_function_returns_is_checked():
    x = data("static")
    for answer, message in (
        ((x, torch.zeros(B + 1)), r"`state` must have the batch, 9 samples"),
        ((x, {"a": [torch.zeros(B), torch.zeros(2, 2)]}), r"`state\['a'\]\[1\]` must have the batch"),
        ((x, Held(torch.zeros(2), 0)), r"`state.v` must have the batch"),
        ((x[:2], None), r"the output of the model` must have shape \(1, 9, K\)"),
        ((x[0], None), r"the output of the model` must have shape"),
    ):
        stepper = as_stepper(lambda x, state, answer=answer: answer, inputs="static")
        with pytest.raises(ValueError, match=message):
            stepper.run(stepper.start(x), 1)
    for answer in (x, (x, None, None), (None, x)):
        stepper = as_stepper(lambda x, state, answer=answer: answer, inputs="static")
        with pytest.raises(TypeError, match="`step` must return logits and a state"):
            stepper.run(stepper.start(x), 1)
    stepper = as_stepper(lambda x, state: (x, {1, 2}), inputs="static")
    with pytest.raises(TypeError, match="`state` must be a state whose samples can be picked"):
        stepper.run(stepper.start(x), 1)


def test_a_sequence_ends_and_a_static_input_does_not():
    stepper = as_stepper(integrate, inputs="sequence")
    state = stepper.start(data("sequence"))
    assert stepper.steps_left(state) == T
    with pytest.raises(ValueError, match="at most 6, the steps that the sequence has left, got 7"):
        stepper.run(state, 7)
    _, state = stepper.run(state, 5)
    assert stepper.steps_left(stepper.keep(state, torch.tensor([0]))) == 1
    stepper = as_stepper(integrate, inputs="static")
    state = stepper.start(data("static"))
    assert stepper.steps_left(state) is None
    assert len(stepper.run(state, 100)[0]) == 100


# --- nested states ------------------------------------------------------------------------------------------------


def test_rows_are_picked_at_any_depth():
    v = torch.arange(6.0).view(3, 2)
    tree = (v, [Pair(v, v + 1), {"a": Held(v, 5), "b": None}], torch.tensor(7), torch.zeros(0), 1.5, True)
    got = keep_rows(tree, torch.tensor([2, 0]), 3, "state")
    want = v[[2, 0]]
    assert torch.equal(got[0], want)
    assert isinstance(got[1][0], Pair)
    assert torch.equal(got[1][0].spikes, want + 1)
    assert torch.equal(got[1][1]["a"].v, want)
    assert got[1][1]["a"].n == 5
    assert got[2] is tree[2]
    assert got[3].shape == (0,)
    assert got[4:] == (1.5, True)
    got[0][:] = 0
    assert torch.equal(v, torch.arange(6.0).view(3, 2))  # what was kept is a copy


def test_rings_of_delay_layers_are_picked_along_their_second_axis():
    layer = DelayLinear(2, 2, 3)
    _, state = layer.step(torch.rand(3, 2))  # as many delays as samples: axes cannot be told by their size
    got = keep_rows([state], torch.tensor([2]), 3, "state")[0]
    assert isinstance(got, DelayState)
    assert got.now == state.now
    assert torch.equal(got.ring, state.ring[:, [2]])
    with pytest.raises(ValueError, match=r"`state.ring` must have the batch, 4 samples, on axis 1"):
        check_rows(state, 4, "state")


# --- recorded logits ----------------------------------------------------------------------------------------------


def test_recorded_logits_are_replayed():
    logits = torch.rand(T, B, K, generator=torch.Generator().manual_seed(1))
    stepper = as_stepper(logits)
    assert isinstance(stepper, ReplayStepper)
    assert stepper.steps_left(stepper.start()) == T
    for sizes in splits(T):
        assert torch.equal(pieces(stepper, stepper.start(), sizes)[0], logits)
    x = torch.tensor([7, 7, 0, 3])
    assert torch.equal(pieces(stepper, stepper.start(x), [2, 4])[0], logits[:, x])
    for seed in range(3):
        for age, left, some in leave(stepper, x, T, seed):
            assert torch.equal(some, logits[age : age + len(some), x[left]])


def test_replay_checks_its_samples_and_its_end():
    stepper = as_stepper(torch.rand(T, B, K))
    for x in (torch.tensor([9]), torch.tensor([-1]), torch.rand(B, 5), torch.zeros(B, dtype=torch.int32), [0, 1]):
        with pytest.raises(ValueError, match=r"`x`|`index`"):
            stepper.start(x)
    with pytest.raises(ValueError, match="at most 6"):
        stepper.run(stepper.start(), 7)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(T, N, K\)"):
        as_stepper(torch.rand(B, K))


# --- the choice ---------------------------------------------------------------------------------------------------


class Own:
    """A stepper of the user's."""

    def start(self, x):
        return x

    def run(self, state, n_steps):
        return state.expand(n_steps, *state.shape), state

    def keep(self, state, index):
        return state[index]


def test_a_stepper_stays_as_it_is():
    own = Own()
    assert as_stepper(own) is own
    stepper = as_stepper(integrate, inputs="static")
    assert as_stepper(stepper) is stepper
    with pytest.raises(ValueError, match="`inputs` must be left out for an object with start, run and keep"):
        as_stepper(own, inputs="static")


def test_every_stepper_keeps_to_the_protocol():
    for known in STEPPERS.values():
        if isinstance(known.make, type):
            assert issubclass(known.make, Stepper)
            assert hasattr(known.make, "steps_left")
    assert isinstance(Own(), Stepper)
    assert not isinstance(nn.Linear(1, 1), Stepper)


def test_steppers_say_what_they_are_shown():
    delays = delay_mlp(K, 2, hidden=(4,), generator=torch.Generator().manual_seed(1))
    images = vgg(5, 3, in_shape=(1, 8, 8), width=0.1, activation=FoldedLIF)
    chain = nn.Sequential(nn.Linear(2, 2), LIF())
    shown = [as_stepper(delays), as_stepper(images), as_stepper(torch.rand(T, B, K))]
    shown += [as_stepper(model, inputs=inputs) for model in (chain, integrate) for inputs in INPUTS]
    assert [stepper.inputs for stepper in shown] == ["sequence", "static", "static", *INPUTS, *INPUTS]


def test_an_unknown_model_is_told_what_is_known():
    for model in (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), 3, "vgg", None):
        with pytest.raises(TypeError) as error:
            as_stepper(model, inputs="static")
        for known in STEPPERS.values():
            assert known.what in str(error.value)


def test_inputs_must_be_said_where_they_cannot_be_known():
    with pytest.raises(ValueError, match=r"`inputs` must be given for a function.*'static'.*'sequence'"):
        as_stepper(integrate)
    with pytest.raises(ValueError, match="`inputs` must be one of 'static', 'sequence', got 'other'"):
        as_stepper(integrate, inputs="other")
    with pytest.raises(ValueError, match="`step_mode` must be left out for a function"):
        as_stepper(integrate, inputs="static", step_mode="m")
    assert set(STEP_MODES) == {"s", "m"}
