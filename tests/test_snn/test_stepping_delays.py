"""Networks with delays and chains of our modules, some steps at a time, against their own full run."""

import pytest
import torch
from fakes.stepping import dyadic, leave, pieces, same, splits, tensors_of
from tolerances import close
from torch import nn

from snn import IF, LIF, PLIF, DelayConv1d, DelayConv2d, DelayLinear
from snn.delays import SHARES, paths
from snn.models import delay_mlp
from snn.models.delay_mlp import DELAYS
from snn.sequence import SequenceBatchNorm, SequenceDropout
from snn.stepping import DelayMLPStepper, ModuleStepper, as_stepper, carriers
from snn.stepping.arrivals import OnTheWay, can_deliver, deliver
from snn.stepping.recent import after_history

T, B = 11, 6


def spikes(shape=(T, B, 5), rate=0.4, dtype=torch.float32, seed=1):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).to(dtype)


def exact(model, seed=3):
    """Weights, leak and normalisation are short binary fractions: no sum rounds, so spikes agree to the last one."""
    generator = torch.Generator().manual_seed(seed)
    dyadic(model, generator, 4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            # sqrt(1 + eps) is not exact, but multiplied in the same way everywhere.
            module.running_mean.copy_(torch.randint(-2, 3, module.running_mean.shape, generator=generator) / 4)
    return model.eval()


def build(tail_steps=0, hidden=(7, 8), tau=2.0, **options):
    generator = torch.Generator().manual_seed(5)
    options = {"max_delay": 4, "generator": generator, **options}
    model = delay_mlp(5, 3, hidden=hidden, tail_steps=tail_steps, tau=tau, v_threshold=0.5, dropout=0.3, **options)
    return exact(model)


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


# --- what is on its way --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("max_delay", [1, 2, 5, 8, 9])
@torch.no_grad()
def test_what_is_on_its_way_arrives_as_from_the_whole_sequence(dtype, share, max_delay):
    """Also at the edges of a block of outputs, and for more than 0 and 1."""
    generator = torch.Generator().manual_seed(max_delay)
    for n_outputs in (1, 31, 33, 64):
        layer = DelayLinear(6, n_outputs, max_delay, kernel_count=2, share=share, bias=True, generator=generator)
        layer = exact(layer).to(dtype)
        layer.delay.add_(0.3 * max_delay).sub_(0.15)  # some lie outside
        x = torch.randint(-2, 3, (12, 4, 6), generator=generator).to(dtype)
        want = layer(x)
        for sizes in ([1] * 12, [3, 1, 8], [12]):
            parts, on_the_way = [], None
            for part in x.split(sizes):
                y, on_the_way = deliver(layer, part, on_the_way)
                parts.append(y)
            assert torch.equal(torch.cat(parts), want)


@torch.no_grad()
def test_synapses_are_read_again_when_they_have_changed():
    layer, x = exact(DelayLinear(5, 4, 3)), spikes()
    _, before = deliver(layer, x, None)
    assert deliver(layer, x, before)[1].synapses is before.synapses
    layer.weight.mul_(2)
    _, before = deliver(layer, torch.zeros_like(x), before)  # the old spikes arrive
    close(deliver(layer, x, before)[0], layer(x))


@pytest.mark.parametrize("backend", ["auto", "dense"])
@torch.no_grad()
def test_both_memories_of_delays_let_samples_leave(backend):
    """With as many samples as lags and outputs in a block, axes cannot be told by their size."""
    model, x = build(3, (32,), max_delay=8), spikes((T, 32, 5))
    for layer in model.layers:
        layer.backend = backend
    want = model.step_logits(x)
    for age, left, logits in leave(as_stepper(model), x, len(want), 1, size=1):
        close(logits, want[age : age + 1, left])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("max_delay", [1, 2, 9, 30])
@torch.no_grad()
def test_bits_after_their_history_are_the_whole_sequence(dtype, max_delay):
    generator = torch.Generator().manual_seed(max_delay)
    layer = DelayLinear(6, 17, max_delay, kernel_count=2, bias=True, generator=generator).eval().to(dtype)
    x = spikes((60, 20, 6), dtype=dtype)
    want = layer(x)  # any weights: the sums are the same
    for n_history, n_steps in ((0, 1), (1, 1), (5, 3), (29, 1), (30, 8), (30, 17), (31, 29)):
        got = after_history(layer, x[:n_history] if n_history else None, x[n_history : n_history + n_steps])
        same_path = layer.last_choice.path == "packed"
        close(got, want[n_history : n_history + n_steps])
        if same_path:
            assert torch.equal(got, want[n_history : n_history + n_steps])


@torch.no_grad()
def test_many_samples_go_as_bits_until_few_are_left(monkeypatch):
    """From one memory to the other, in the middle of a run; and inputs that are no bits end that way too."""
    monkeypatch.setattr(carriers, "are_bits", lambda layer, x: x.shape[1] >= 16 and bool(((x == 0) | (x == 1)).all()))
    model, x = build(2, max_delay=6), spikes((T, 20, 5))
    want = model.step_logits(x)
    stepper = as_stepper(model)
    kinds, state, left = [], stepper.start(x), torch.arange(20)
    before = paths.calls["packed"]
    for t in range(T):
        logits, state = stepper.run(state, 1)
        close(logits, want[t : t + 1, left])
        kinds.append(type(state.memories["layers.1"][0]).__name__)
        if t == 4:
            left = torch.tensor([19, 3, 7])
            state = stepper.keep(state, left)
    assert kinds == ["_History"] * 5 + ["OnTheWay"] * 6
    assert paths.calls["packed"] == before + 5 * 3
    logits, state = pieces(stepper, stepper.start(x), [8, 1, 2])
    close(logits, want[:T])
    assert paths.calls["packed"] == before + 7 * 3  # a long first block has its own ways, and ends in bits
    x[3, 5, 2] = 2.0
    want = model.step_logits(x)
    logits, state = pieces(stepper, stepper.start(x), [1] * T)
    close(logits, want[:T])
    assert isinstance(state.memories["layers.0"][0], OnTheWay)


@torch.no_grad()
def test_delays_that_are_no_numbers_are_named():
    layer = DelayLinear(5, 4, 3).eval()
    layer.delay[1, 2] = float("nan")
    for run in (lambda: deliver(layer, spikes(), None), lambda: after_history(layer, None, spikes())):
        with pytest.raises(ValueError, match="`delay` must hold no NaN"):
            run()


@torch.no_grad()
def test_only_whole_step_delays_on_their_own_path_are_carried_as_currents():
    x = spikes()
    layer = DelayLinear(5, 4, 3).eval()
    assert can_deliver(layer, x)
    layer.backend = "dense"
    assert not can_deliver(layer, x)
    assert not can_deliver(DelayLinear(5, 4, 3).train(), x)
    assert not can_deliver(DelayLinear(5, 4, 3, rounding="never").eval(), x)
    assert not can_deliver(DelayLinear(5, 4, 3).eval().bfloat16(), x)
    assert not can_deliver(DelayLinear(5, 4, 3).eval(), x.to("meta"))


# --- chains of ours -----------------------------------------------------------------------------------------------

CHAINS = {
    "neurons": (lambda: nn.Sequential(nn.Linear(5, 8), LIF(2.0), nn.Linear(8, 6), IF(), nn.Linear(6, 3)), (5,)),
    "plif": (lambda: nn.Sequential(nn.Linear(5, 8), PLIF(4.0, v_reset=None), nn.Linear(8, 3)), (5,)),
    "delays": (
        lambda: nn.Sequential(
            DelayLinear(5, 8, 6, bias=True), SequenceBatchNorm(8), LIF(2.0), SequenceDropout(0.5), DelayLinear(8, 3, 3)
        ),
        (5,),
    ),
    "nested": (lambda: nn.Sequential(nn.Sequential(nn.Linear(5, 8), nn.Identity(), LIF()), nn.Linear(8, 3)), (5,)),
    "1d": (
        lambda: nn.Sequential(DelayConv1d(2, 4, 3, 5, padding=1), LIF(), nn.Flatten(2), nn.Linear(20, 3)),
        (2, 5),
    ),
    "2d": (
        lambda: nn.Sequential(DelayConv2d(2, 3, 3, 4), IF(v_threshold=0.5), nn.Flatten(2), nn.Linear(12, 3)),
        (2, 4, 4),
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("inputs", ["static", "sequence"])
@torch.no_grad()
def test_chains_of_ours_go_on_where_they_stopped(chain, inputs):
    make, shape = CHAINS[chain]
    model = exact(make())
    x = spikes((T, 9, *shape))
    whole = x if inputs == "sequence" else x[:1].expand_as(x)
    want = model(whole)
    assert want.unique().numel() > 3
    stepper = as_stepper(model, inputs=inputs)
    assert isinstance(stepper, ModuleStepper)
    x = x if inputs == "sequence" else x[0]
    for sizes in splits(T):
        close(pieces(stepper, stepper.start(x), sizes)[0], want)
    for age, left, logits in leave(stepper, x, T, 2):
        close(logits, want[age : age + len(logits), left])


@torch.no_grad()
def test_the_first_layer_of_a_chain_can_run_once():
    model, x = exact(CHAINS["neurons"][0]()), spikes()[0]
    want = model(x.expand(T, *x.shape))
    rows = []
    model[0].register_forward_hook(lambda m, args, y: rows.append(tuple(y.shape)))
    stepper = as_stepper(model, inputs="static", first_once=True)
    state = stepper.start(x)
    assert rows == [(2, B, 8)]  # two steps, to see that they are alike
    logits, state = pieces(stepper, state, [3, 1])
    close(logits, want[:4])
    order = torch.tensor([4, 0])
    close(pieces(stepper, stepper.keep(state, order), [5, 2])[0], want[4:, order])
    assert len(rows) == 1


@torch.no_grad()
def test_a_first_layer_that_changes_over_time_is_found_out():
    model = exact(nn.Sequential(DelayLinear(5, 8, 6), nn.Linear(8, 8), LIF(), nn.Linear(8, 3)))
    # The delays themselves remember: they are what comes first, and run at each call.
    x = spikes()[0]
    stepper = as_stepper(model, inputs="static", first_once=True)
    close(pieces(stepper, stepper.start(x), [2, 4])[0], model(x.expand(6, *x.shape)))

    class Fades(nn.Module):
        def forward(self, x):
            return x * torch.linspace(1, 0, len(x)).view(-1, 1, 1)

    stepper = as_stepper(nn.Sequential(Fades(), LIF()).eval(), inputs="static", first_once=True)
    with pytest.raises(ValueError, match="same at each step"):
        stepper.start(x)


@torch.no_grad()
def test_a_module_called_twice_has_two_memories():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.delays, self.neuron, self.out = DelayLinear(5, 5, 4), LIF(v_threshold=0.5), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(self.neuron(self.delays(self.neuron(self.delays(x)))))

    model, x = exact(Twice()), spikes()
    want = model(x)
    stepper = as_stepper(model, inputs="sequence")
    for sizes in splits(T):
        close(pieces(stepper, stepper.start(x), sizes)[0], want)
    for age, left, logits in leave(stepper, x, T):
        close(logits, want[age : age + len(logits), left])


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
