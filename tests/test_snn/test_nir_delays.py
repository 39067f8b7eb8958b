"""Delays in NIR graphs: one per element in the format, one per synapse in our layers."""

import numpy as np
import pytest
import torch
from torch import nn

import snn
from snn.nir import StepDelay, from_nir, to_nir

nir = pytest.importorskip("nir")


class DelayLinear(nn.Module):
    """A delay layer by its definition, y[t, o] = sum over i, k of w[o, i, k] x[t - d[o, i, k], i]."""

    def __init__(self, weight, delay, *, share="synapse", bias=None, dt_ms=None):
        super().__init__()
        self.weight, self.delay = nn.Parameter(weight), nn.Parameter(delay.float())
        self.bias = None if bias is None else nn.Parameter(bias)
        self.share, self.kernel_count, self.dt_ms = share, weight.shape[-1], dt_ms

    def forward(self, x):
        y = x.new_zeros(*x.shape[:2], self.weight.shape[0])
        for index in np.ndindex(self.weight.shape):
            d = int(self.delay.expand(self.weight.shape)[index])
            y[d:, :, index[0]] += self.weight[index] * x[: len(x) - d, :, index[1]]
        return y if self.bias is None else y + self.bias


def dyadic(*shape, generator):
    """Weights whose sums are exact in any order."""
    return torch.randint(-4, 13, shape, generator=generator) / 16


DELAYS = {"axon": (1, 5, 1), "dendrite": (4, 1, 1), "synapse": (4, 5, 1)}


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("n_taps", [1, 2])
@pytest.mark.parametrize("share", DELAYS)
def test_delay_layer_comes_back_exactly(share, n_taps, with_bias, generator):
    delay = torch.randint(0, 6, (*DELAYS[share][:2], n_taps), generator=generator)
    bias = dyadic(4, generator=generator) if with_bias else None
    layer = DelayLinear(dyadic(4, 5, n_taps, generator=generator), delay, share=share, bias=bias)
    graph = to_nir(nn.Sequential(layer, snn.LIF(tau=4.0, v_threshold=0.25)), 5, dt_ms=0.7, expand_delays=True)
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    if share != "synapse" and n_taps == 1:
        # One Delay node of a whole layer, on the side that the delays belong to.
        expected = {"axon": ["Delay", "Linear"], "dendrite": ["Linear", "Delay"]}[share]
        if not with_bias:
            assert kinds == ["Input", *expected, "LIF", "Output"]
        assert kinds.count("Delay") == 1
    else:
        assert kinds.count("Delay") == len(delay.unique())
    x = torch.randint(0, 2, (25, 3, 5), generator=generator).float()
    network = from_nir(graph, dt_ms=0.7)
    assert torch.equal(network(x), nn.Sequential(layer, snn.LIF(tau=4.0, v_threshold=0.25))(x))
    assert network(x).sum() > 0


def test_delays_of_one_axis_belong_to_what_share_says(generator):
    weight, delay = dyadic(3, 3, 1, generator=generator), torch.tensor([0, 2, 4])
    for share, shape in (("axon", (1, 3, 1)), ("dendrite", (3, 1, 1))):
        flat = to_nir(DelayLinear(weight, delay, share=share), 3, dt_ms=1)
        full = to_nir(DelayLinear(weight, delay.view(shape), share=share), 3, dt_ms=1)
        assert [type(a) for a in flat.nodes.values()] == [type(a) for a in full.nodes.values()]
        x = torch.randn(9, 1, 3, generator=generator)
        assert torch.equal(from_nir(flat, dt_ms=1)(x), from_nir(full, dt_ms=1)(x))


@pytest.mark.parametrize("share", DELAYS)
def test_our_own_layer_is_written_as_it_evaluates(share, generator):
    layer = snn.DelayLinear(5, 4, 6, share=share, generator=generator).eval()
    with torch.no_grad():
        layer.weight.copy_(dyadic(4, 5, 1, generator=generator))
    x = torch.randint(0, 2, (25, 3, 5), generator=generator).float()
    network = from_nir(to_nir(layer, 5, dt_ms=1, expand_delays=True), dt_ms=1)
    assert not torch.equal(layer.delay, layer.delay.round())
    assert torch.equal(network(x), layer(x))


def test_delays_per_synapse_are_refused_with_the_ways_out(generator):
    layer = DelayLinear(dyadic(4, 5, 1, generator=generator), torch.arange(20).view(4, 5, 1))
    with pytest.raises(
        ValueError, match=r"`1.delay` must be shared by .*, got 20 delays .*expand_delays=True"
    ) as error:
        to_nir(nn.Sequential(nn.Identity(), layer), 5, dt_ms=1)
    assert "train with one per axon or per dendrite" in str(error.value)


def test_fractions_of_a_step_are_refused_or_rounded(generator):
    layer = DelayLinear(dyadic(2, 2, 1, generator=generator), torch.tensor([[[1.0], [2.4]]]))
    with pytest.raises(
        ValueError, match=r"`model.delay` must be whole numbers of steps, got fractions\. .*round_delays"
    ):
        to_nir(layer, 2, dt_ms=1)
    graph = to_nir(layer, 2, dt_ms=1, round_delays=True)
    assert graph.nodes["model_delay"].delay == pytest.approx([1e-3, 2e-3])


def test_step_of_the_layer_and_of_the_file_must_agree(generator):
    layer = DelayLinear(dyadic(2, 2, 1, generator=generator), torch.ones(1, 2, 1), dt_ms=10.0)
    with pytest.raises(ValueError, match=r"`dt_ms` must be that of the layer 'model', 10.0, got 1"):
        to_nir(layer, 2, dt_ms=1)
    assert to_nir(layer, 2, dt_ms=10).nodes["model_delay"].delay == pytest.approx([1e-2, 1e-2])


def test_delay_node_shifts_each_element_by_its_own_time():
    graph = nir.NIRGraph.from_list(nir.Delay(np.array([0.0, 3e-4, 20e-4], dtype=np.float32)))
    x = torch.arange(1.0, 11).view(10, 1, 1).expand(10, 2, 3)
    y = from_nir(graph, dt_ms=0.1)(x)
    for channel, steps in enumerate((0, 3, 20)):
        assert torch.equal(y[steps:, :, channel], x[: max(0, 10 - steps), :, channel])
        assert y[:steps, :, channel].count_nonzero() == 0


def test_delay_that_is_no_multiple_of_the_step_is_refused_or_rounded():
    graph = nir.NIRGraph.from_list(nir.Delay(np.array([1e-3, 2.4e-3])))
    with pytest.raises(
        ValueError, match=r"`delay.delay` must be a whole number of time steps, got 2.4 ms with steps of 1 ms"
    ):
        from_nir(graph, dt_ms=1)
    assert from_nir(graph, dt_ms=1, round_delays=True)[0].steps.tolist() == [1, 2]
    assert from_nir(graph, dt_ms=0.2)[0].steps.tolist() == [5, 12]


def test_step_delay_of_pictures_passes_gradients(generator):
    delay = StepDelay(torch.randint(0, 4, (2, 3, 3), generator=generator))
    x = torch.randn(6, 2, 2, 3, 3, generator=generator, requires_grad=True)
    delay(x).sum().backward()
    # What would leave the sequence reaches no output.
    assert torch.equal(x.grad.sum(0), (6.0 - delay.steps).expand(2, 2, 3, 3))
    with pytest.raises(ValueError, match=r"`steps` must be whole numbers of at least 0"):
        StepDelay(-1)
