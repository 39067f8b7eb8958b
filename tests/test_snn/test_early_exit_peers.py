"""Networks of other packages stop when sure: against the loop over one sample at a time that their users write."""

import pytest
import torch
from torch import nn

from snn.early_exit import DynamicConfidence

pytestmark = pytest.mark.reference
T, N, K = 9, 24, 5


@pytest.fixture
def x(generator):
    # Short binary fractions: sums are exact, whatever the size of the batch.
    return torch.randint(0, 16, (N, 8), generator=generator) / 16


def rounded(model, generator):
    """Give a network weights that are short binary fractions."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randint(-8, 9, parameter.shape, generator=generator) / 16)
    return model.eval()


def one_at_a_time(x, alpha, threshold, start):
    """Return labels and steps; ``start()`` returns a function that maps a sample to the logits of its next step."""
    labels, steps = [], []
    with torch.no_grad():
        for sample in x.split(1):
            step, total = start(), 0
            for taken in range(1, T + 1):
                total = total + step(sample)
                if taken == T or torch.softmax(total.double() / alpha, -1).max() > threshold:
                    break
            labels.append(int(total.argmax()))
            steps.append(taken)
    return labels, steps


def same(decide, x, start):
    want = one_at_a_time(x, decide.alpha, decide.threshold, start)
    exits = decide.predict(x)
    assert len(set(want[1])) > 2, "samples must leave at different steps for this to test something"
    assert (exits.labels.tolist(), exits.steps.tolist()) == want
    assert exits.work.compactions > 0


@pytest.mark.parametrize("mode", ["s", "m"])
def test_spikingjelly_network_stops_as_its_own_loop_does(x, generator, mode):
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, layer, neuron

    net = nn.Sequential(
        layer.Linear(8, 16, bias=False), neuron.LIFNode(tau=2.0, v_threshold=0.25), layer.Linear(16, K, bias=False)
    )
    functional.set_step_mode(rounded(net, generator), mode)

    def start():
        functional.reset_net(net)
        return lambda sample: net(sample) if mode == "s" else net(sample[None])[0]

    decide = DynamicConfidence(net, T, alpha=1.0, threshold=0.8, inputs="static", batch_size=N)
    same(decide, x, start)


def test_snntorch_loop_stops_as_it_does_by_itself(x, generator):
    snntorch = pytest.importorskip("snntorch")
    first, last = (rounded(nn.Linear(a, b, bias=False), generator) for a, b in ((8, 16), (16, K)))
    leaky = snntorch.Leaky(beta=0.5, threshold=0.25)

    def step(sample, state):
        mem = leaky.init_leaky() if state is None else state
        spk, mem = leaky(first(sample), mem)
        return last(spk), mem

    def start():
        state = None

        def run(sample):
            nonlocal state
            logits, state = step(sample, state)
            return logits

        return run

    same(DynamicConfidence(step, T, alpha=1.0, threshold=0.8, inputs="static", batch_size=N), x, start)


def test_snntorch_network_with_hidden_states_stops_as_its_own_loop_does(x, generator):
    snntorch = pytest.importorskip("snntorch")
    from snntorch import utils

    net = nn.Sequential(
        nn.Linear(8, 16, bias=False),
        snntorch.Leaky(beta=0.5, threshold=0.25, init_hidden=True),
        nn.Linear(16, K, bias=False),
    )
    rounded(net, generator)

    def start():
        utils.reset(net)
        return net

    same(DynamicConfidence(net, T, alpha=1.0, threshold=0.8, inputs="static", batch_size=N), x, start)
