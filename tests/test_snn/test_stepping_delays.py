"""Networks with delays, some steps at a time, against their own full run."""

import pytest
import torch
from fakes.delayed import CHAINS, B, T, build, spikes
from fakes.stepping import leave, pieces, same, splits, tensors_of
from tolerances import close
from torch import nn

from snn import LIF
from snn.delays import paths
from snn.models.delay_mlp import DELAYS
from snn.stepping import DelayMLPStepper, as_stepper
from snn.stepping.arrivals import OnTheWay


@pytest.mark.parametrize("delays", DELAYS)
@pytest.mark.parametrize("tail_steps", [0, 1, 3, 9])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 8)])
@torch.no_grad()
def test_pieces_of_any_size_are_the_full_run(delays, tail_steps, hidden):
    model, x = build(tail_steps, hidden, delays=delays), spikes()
    want = model.step_logits(x)
    n_steps = T + (len(hidden) + 1) * tail_steps
    stepper = as_stepper(model)
    assert stepper.steps_left(stepper.start(x)) == len(want) == n_steps
    for sizes in splits(n_steps):
        logits, state = pieces(stepper, stepper.start(x), sizes)
        close(logits, want)
        assert stepper.steps_left(state) == 0


@torch.no_grad()
def test_the_network_of_these_tests_is_alive():
    model = build(3)
    assert all(0.05 < one.mean() < 0.7 for one in model.hidden_spikes(spikes()))


@pytest.mark.parametrize("tau", [1.01, 1.5, 2.0, 100.0])
@torch.no_grad()
def test_every_readout_leak_is_carried(tau):
    model, x = build(2, tau=tau), spikes(dtype=torch.float64)
    model.double()
    want = model.step_logits(x)
    stepper = as_stepper(model)
    for sizes in splits(len(want)):
        close(pieces(stepper, stepper.start(x), sizes)[0], want)


@pytest.mark.parametrize("leak", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_leaks_at_the_ends_are_carried(leak):
    model, x = build(2), spikes()
    model.readout_leak = leak
    stepper = as_stepper(model)
    for sizes in splits(T + 6):
        close(pieces(stepper, stepper.start(x), sizes)[0], model.step_logits(x))


@pytest.mark.parametrize("tail_steps", [0, 3])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_samples_that_stay_go_on_as_if_alone(tail_steps, seed):
    model, x = build(tail_steps), spikes((T, 9, 5))
    want = model.step_logits(x)
    sizes = []
    for age, left, logits in leave(as_stepper(model), x, len(want), seed, size=None if seed else 1):
        close(logits, want[age : age + len(logits), left])
        sizes.append(len(left))
    assert len(sizes) > 1
    assert seed or sizes[-2:] == [1, 0]


@torch.no_grad()
def test_steps_are_those_of_its_own_step():
    model, x = build(), spikes()
    stepper, own = as_stepper(model), None
    state = stepper.start(x)
    for one in x:
        want, own = model.step(one, own)
        logits, state = stepper.run(state, 1)
        close(logits[0], want)


@pytest.mark.parametrize("mask_padding", [True, False])
@torch.no_grad()
def test_lengths_of_samples_count_as_in_the_full_run(mask_padding):
    model, x = build(2, mask_padding=mask_padding), spikes()
    lengths = torch.tensor([11, 3, 0, 7, 1, 9])
    x = x * (torch.arange(T)[:, None] < lengths)[..., None]
    want = model.step_logits(x, lengths)
    assert torch.equal(want, model.step_logits(x)) is not mask_padding
    stepper = DelayMLPStepper(model)
    for sizes in splits(len(want)):
        close(pieces(stepper, stepper.start(x, lengths), sizes)[0], want)
    order = torch.tensor([5, 1, 2])
    logits, state = stepper.run(stepper.start(x, lengths), 4)
    close(stepper.run(stepper.keep(state, order), 13)[0], want[4:, order])


@torch.no_grad()
def test_wide_bumps_and_shared_delays_are_carried():
    for options in ({"share": "axon"}, {"share": "dendrite", "kernel_count": 2}, {"kernel": "triangle"}):
        model, x = build(2, **options), spikes(dtype=torch.float64)
        model.double()
        for layer in model.layers:
            layer.rounding = "never"
        want = model.step_logits(x)
        stepper = as_stepper(model)
        close(pieces(stepper, stepper.start(x), [2, 1, len(want) - 3])[0], want)


@torch.no_grad()
def test_many_steps_a_call_run_each_layer_once_on_block_and_history():
    model, x = build(), spikes()
    rows = []
    for layer in model.layers:
        layer.register_forward_hook(lambda m, args, y: rows.append((len(args[0]), len(y))))
    stepper = as_stepper(model)
    before = paths.calls.total()
    _, state = stepper.run(stepper.start(x), 4)
    assert paths.calls.total() == before + 3
    _, state = stepper.run(state, 5)
    assert paths.calls.total() == before + 6
    _, state = stepper.run(stepper.start(x), 1)
    assert paths.calls.total() == before + 6
    assert all(isinstance(state.memories[f"layers.{i}"][0], OnTheWay) for i in range(3))
    del rows[6:]
    # Hooks see the steps of the call, and no history.
    assert rows == [(4, 4)] * 3 + [(5, 5)] * 3


@torch.no_grad()
def test_histories_are_no_longer_than_the_longest_delay():
    model, x = build(), spikes()
    stepper = as_stepper(model)
    for layer in model.layers:
        layer.backend = "dense"
    for k in (1, 2, 9):
        _, state = stepper.run(stepper.start(x), k)
        assert [len(state.memories[f"layers.{i}"][0].x) for i in range(3)] == [min(k, 3)] * 3


@torch.no_grad()
def test_the_input_of_the_last_call_may_be_overwritten():
    """Nothing of a block is read again from the sequence."""
    model, x = build(), spikes()
    want, stepper = model.step_logits(x), as_stepper(model)
    mine = x.clone()
    state = stepper.start(mine)
    for t in range(T):
        logits, state = stepper.run(state, 1)
        mine[t] = 99.0
        close(logits[0], want[t])


@torch.no_grad()
def test_the_network_comes_out_as_it_went_in():
    model, x = build(), spikes()
    before = tensors_of(model)
    stepper = as_stepper(model)
    state = stepper.start(x)
    stepper.run(state, 3)
    for layer in model.layers:
        vars(layer).pop("last_choice", None)  # says which path ran
    assert same(before, tensors_of(model))
    handle = model.neurons[1].register_forward_hook(lambda *a: 1 / 0)
    before = tensors_of(model)
    with pytest.raises(ZeroDivisionError):
        stepper.run(stepper.start(x), 2)
    for layer in model.layers[:2]:
        vars(layer).pop("last_choice", None)
    assert same(before, tensors_of(model))
    handle.remove()


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_sequence_ends():
    stepper, chain = as_stepper(build(2)), as_stepper(CHAINS["neurons"][0]().eval(), inputs="sequence")
    for one, n_steps in ((stepper, T + 6), (chain, T)):
        with pytest.raises(
            ValueError, match=f"at most {n_steps}, the steps that the sequence has left, got {n_steps + 1}"
        ):
            one.run(one.start(spikes()), n_steps + 1)
        state = one.run(one.start(spikes()), n_steps)[1]
        assert one.steps_left(state) == 0
        with pytest.raises(ValueError, match="at most 0"):
            one.run(state, 1)


def test_shapes_and_lengths_are_checked():
    stepper = as_stepper(build())
    with pytest.raises(ValueError, match=r"shape \(T, B, 5\)"):
        stepper.start(spikes((T, B, 6)))
    with pytest.raises(ValueError, match=r"shape \(T, B, 5\)"):
        stepper.start(spikes((B, 5)))
    with pytest.raises(ValueError, match="n_steps"):
        stepper.start(spikes(), torch.tensor([1, 2]))
    chain = as_stepper(CHAINS["neurons"][0]().eval(), inputs="sequence")
    with pytest.raises(ValueError, match=r"`x` must be a tensor of shape \(T, B, ...\)"):
        chain.start(torch.ones(3))


def test_parts_whose_memory_is_not_known_are_refused_by_name():
    class Slower(LIF):
        def forward(self, x, v=None):
            return super().forward(x / 2, v)

    model = build()
    model.neurons[1] = nn.ReLU()
    with pytest.raises(ValueError, match=r"`neurons.1` must be one of snn's neurons to be run step by step, got ReLU"):
        as_stepper(model)
    model = build()
    model.layers[0] = nn.GRU(5, 7)
    with pytest.raises(ValueError, match=r"`layers.0` must be a delay layer"):
        as_stepper(model)
    model = build()
    model.neurons[0] = Slower()
    with pytest.raises(ValueError, match=r"`neurons.0` must have the forward of snn's neurons, got Slower"):
        as_stepper(model)
    with pytest.raises(ValueError, match="`1` must have the forward of snn's neurons, got Slower"):
        as_stepper(nn.Sequential(nn.Linear(5, 3), Slower()), inputs="static")


def test_inputs_that_are_no_floats_are_refused_however_many_steps_are_run():
    stepper = as_stepper(build())
    for k in (1, T):
        with pytest.raises(TypeError, match="`x` must be a floating-point tensor"):
            stepper.run(stepper.start(spikes().long()), k)


def test_training_mode_is_refused():
    for stepper in (as_stepper(build().train()), as_stepper(CHAINS["neurons"][0]().train(), inputs="sequence")):
        with pytest.raises(ValueError, match=r"evaluation mode.*Call model.eval"):
            stepper.start(spikes())


def test_other_inputs_and_options_are_refused():
    with pytest.raises(ValueError, match=r"`inputs` must be 'sequence' for a snn.models.DelayMLP"):
        as_stepper(build(), inputs="static")
    with pytest.raises(ValueError, match="`first_once` must be left out"):
        as_stepper(build(), first_once=True)
    with pytest.raises(ValueError, match="`step_mode` must be 'm' with `1`, which runs on sequences"):
        as_stepper(CHAINS["neurons"][0](), inputs="static", step_mode="s")
    with pytest.raises(ValueError, match="`first_once` must be False for a sequence"):
        as_stepper(CHAINS["neurons"][0](), inputs="sequence", first_once=True)
    recurrent = nn.Sequential(nn.Linear(5, 5), LIF(), nn.GRU(5, 3))
    with pytest.raises(ValueError, match=r"`2` must be a module that can be run step by step, got GRU"):
        as_stepper(recurrent, inputs="static")
