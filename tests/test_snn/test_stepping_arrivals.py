"""What spikes that are on their way do when they arrive: currents and bits between the calls of a network."""

import pytest
import torch
from fakes.delayed import T, build, exact, spikes
from fakes.stepping import leave, pieces
from tolerances import close

from snn import DelayLinear
from snn.delays import SHARES, paths
from snn.stepping import as_stepper, carriers
from snn.stepping.arrivals import OnTheWay, can_deliver, deliver
from snn.stepping.recent import after_history


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
