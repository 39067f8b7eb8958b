"""Chains of our modules, some steps at a time, against their own full run."""

import pytest
import torch
from fakes.delayed import CHAINS, B, T, exact, spikes
from fakes.stepping import leave, pieces, splits
from tolerances import close
from torch import nn

from snn import LIF, DelayLinear
from snn.stepping import ModuleStepper, as_stepper


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
