"""What NIR or our neurons cannot hold is refused in one sentence that names the place and the way out."""

import numpy as np
import pytest
import torch
from torch import nn

import snn
from snn.nir import FoldTime, LeakyIntegrator, from_nir, to_nir

nir = pytest.importorskip("nir")


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


EXPORTS = {
    "soft reset": (snn.LIF(v_reset=None), 3, r"`1.v_reset` must be a number, got None.*NIR has no soft reset\. Train"),
    "soft reset of IF": (snn.IF(v_reset=None), 3, r"`1.v_reset` must be a number"),
    "folded neuron": (snn.FoldedLIF(), 3, r"`1` must be an nn.Sequential, .* got FoldedLIF\. It subtracts"),
    "other layer": (nn.Softmax(-1), 3, r"`1` must be .*Linear, Conv1d.*DelayLinear, got Softmax\. Take it out"),
    "normalisation": (nn.BatchNorm1d(3), 3, r"got BatchNorm1d\. Fold it .*snn\.fold_batchnorm"),
    "max pooling": (FoldTime(nn.MaxPool2d(2)), (1, 4, 4), r"`1` must be .*got MaxPool2d\. Train with nn\.AvgPool2d"),
    "subclass": (Doubled(3, 3), 3, r"`1` must be .*got Doubled"),
    "bare convolution": (nn.Conv2d(1, 2, 3), (1, 4, 4), r"`1` must work on sequences .*FoldTime\(Conv2d\(\.\.\.\)\)"),
    "convolution of vectors": (
        FoldTime(nn.Conv2d(1, 2, 3)),
        3,
        r"`1` must fit what reaches it, .*\(C, H, W\), got \(3,\)",
    ),
    "channels": (FoldTime(nn.Conv2d(2, 2, 3)), (1, 4, 4), r"`1` must fit what reaches it, .*got \(1, 4, 4\): "),
    "padding": (
        FoldTime(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")),
        (1, 4, 4),
        r"`1.padding_mode` must be",
    ),
    "ceil": (FoldTime(nn.AvgPool2d(2, ceil_mode=True)), (1, 4, 4), r"`1.ceil_mode` must be False, got True"),
    "divisor": (FoldTime(nn.AvgPool2d(2, divisor_override=3)), (1, 4, 4), r"`1.divisor_override` must be None, or 1"),
    "pad": (FoldTime(nn.AvgPool2d(2, padding=1, count_include_pad=False)), (1, 4, 4), r"`1.count_include_pad` must be"),
    "flattened batch": (nn.Flatten(), (1, 4, 4), r"`1.start_dim` must leave .*got 1\. Use nn\.Flatten\(2\)"),
    "maps": (nn.Linear(4, 3), (1, 4, 4), r"`1` must get steps of shape \(4,\), got \(1, 4, 4\)\. Put nn\.Flatten\(2\)"),
    "features": (nn.Linear(4, 3), 3, r"`1` must get steps of shape \(4,\), got \(3,\)\."),
    "neuron channels": (snn.LIF(n_channels=4), 3, r"`1.n_channels` must be 3, .*got 4"),
    "neuron without time": (FoldTime(snn.LIF()), 3, r"`1` must stand where it sees time, .*got a LIF in one"),
    "mixed integrators": (LeakyIntegrator(torch.tensor([2.0, np.inf])), 2, r"`1.tau` must be finite everywhere"),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_what_nir_cannot_hold_is_refused(case):
    layer, shape, message = EXPORTS[case]
    with pytest.raises(ValueError, match=message):
        to_nir(nn.Sequential(nn.Identity(), layer), shape, dt_ms=1)


def test_arguments_of_export_are_checked():
    with pytest.raises(ValueError, match="`dt_ms` must be"):
        to_nir(snn.LIF(), 3, dt_ms=0)
    with pytest.raises(ValueError, match="`in_shape` must be"):
        to_nir(snn.LIF(), (3, 0), dt_ms=1)
    with pytest.raises(TypeError, match="`in_shape` must be"):
        to_nir(snn.LIF(), 3.5, dt_ms=1)


def graph(*nodes, edges=None):
    names = {"input": nir.Input(np.array([1])), **dict(zip("abc", nodes, strict=False))}
    names["output"] = nir.Output(np.array([1]))
    edges = edges or list(zip(names, list(names)[1:], strict=False))
    return nir.NIRGraph(names, edges, type_check=False)


def lif(**changes):
    fields = {"tau": 20e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
    return nir.LIF(**{key: np.atleast_1d(value) for key, value in fields.items()})


ONE = np.ones((1, 1))
IMPORTS = {
    "unknown node": (
        graph(nir.Threshold(np.ones(1))),
        r"`a` must be one of Affine, .*got Threshold\. Replace this node",
    ),
    "leak": (graph(lif(v_leak=0.3)), r"`a.v_leak` must equal v_reset, .*add \(v_leak - v_reset\) / r to the bias"),
    "threshold": (graph(lif(v_threshold=-1.0)), r"`a.v_threshold` must be above v_reset"),
    "reset": (graph(lif(v_reset=2.0, v_leak=2.0)), r"`a.v_threshold` must be above v_reset, .*never stops"),
    "tau": (graph(lif(tau=-1.0)), r"`a.tau` must be above 0 seconds, got -1"),
    "step": (graph(lif(tau=1e-3)), r"`dt_ms` must be shorter than the time constant of the node 'a', 1 ms, got 1\."),
    "nan": (graph(lif(r=np.nan)), r"`a.r` must hold finite numbers only"),
    "nan weight": (graph(nir.Linear(ONE * np.nan)), r"`a.weight` must hold finite numbers only"),
    "stacked weights": (graph(nir.Linear(np.ones((2, 3, 4)))), r"`a.weight` must have shape \(C_out, C_in\), got"),
    "negative delay": (graph(nir.Delay(np.array([-1.0]))), r"`a.delay` must hold numbers of at least 0"),
    "cycle": (
        graph(nir.Linear(ONE), lif(), edges=[("input", "a"), ("a", "b"), ("b", "a"), ("b", "output")]),
        r"`graph` must have no cycles, got 'a' -> 'b' -> 'a'\. Recurrent|`graph` must .*'b' -> 'a' -> 'b'\. Recurrent",
    ),
    "loose end": (
        graph(nir.Linear(ONE), nir.Linear(ONE), edges=[("input", "a"), ("input", "b"), ("b", "output")]),
        r"`graph` must have one output, got 2: 'a', 'output'",
    ),
    "no edges to the input": (
        graph(nir.Linear(ONE), edges=[("a", "output")]),
        r"must have one input, got 2: 'input', 'a'",
    ),
    "unknown name": (graph(nir.Linear(ONE), edges=[("input", "z")]), r"edges between its nodes only, got one of 'z'"),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_what_our_neurons_cannot_do_is_refused(case):
    broken, message = IMPORTS[case]
    with pytest.raises(ValueError, match=message):
        from_nir(broken, dt_ms=1)


def test_soft_reset_needs_a_membrane_that_leaks_to_zero():
    with pytest.raises(ValueError, match=r"`a.v_leak` must be 0 with soft_reset=True"):
        from_nir(graph(lif(v_leak=0.5, v_reset=0.5)), dt_ms=1, soft_reset=True)


def test_advice_for_another_leak_gives_the_neuron_that_was_meant(generator):
    """Potentials relative to the reset, and a bias for the rest: the recursion of the original, step by step."""
    x = torch.rand(40, 1, 1, generator=generator) * 2
    broken = graph(nir.Affine(ONE, np.zeros(1)), lif(v_leak=0.3, v_reset=-0.2, v_threshold=0.6, r=2.0, tau=5e-3))
    with pytest.raises(ValueError, match="Subtract v_reset"):
        from_nir(broken, dt_ms=1)
    mended = graph(nir.Affine(ONE, np.array([0.5 / 2])), lif(v_threshold=0.8, r=2.0, tau=5e-3))
    v, spikes = torch.tensor(-0.2, dtype=torch.float64), []
    for step in x.flatten().double():
        v = v + (0.3 - v + 2 * step) / 5
        spikes.append(float(v > 0.6))
        v = torch.where(v > 0.6, -0.2, v)
    assert from_nir(mended, dt_ms=1)(x).flatten().tolist() == spikes
    assert 0 < sum(spikes) < 40


def test_arguments_of_import_are_checked(tmp_path):
    good = graph(lif())
    with pytest.raises(ValueError, match="`dt_ms` must be"):
        from_nir(good, dt_ms=-1)
    with pytest.raises(ValueError, match="`integration` must be one of 'euler', 'exact', 'impulse', got 'rk4'"):
        from_nir(good, dt_ms=1, integration="rk4")
    with pytest.raises(TypeError, match=r"`graph` must be a nir.NIRGraph or the path"):
        from_nir(3, dt_ms=1)
    with pytest.raises(ValueError, match=r"`graph` must be the path of a .nir file, got .*where there is none"):
        from_nir(tmp_path / "none.nir", dt_ms=1)
    foreign = tmp_path / "foreign.nir"
    foreign.write_text("no HDF5")
    with pytest.raises(ValueError, match=r"foreign.nir' cannot be read: .*It must be a NIR file"):
        from_nir(foreign, dt_ms=1)


def test_branches_of_different_shapes_are_refused(generator):
    nodes = {"input": nir.Input(np.array([2])), "a": nir.Linear(np.ones((2, 2))), "b": nir.Linear(np.ones((3, 2)))}
    nodes["output"] = nir.Output(np.array([2]))
    edges = [("input", "a"), ("input", "b"), ("a", "output"), ("b", "output")]
    network = from_nir(nir.NIRGraph(nodes, edges, type_check=False), dt_ms=1)
    with pytest.raises(ValueError, match=r"`output` must get inputs of one shape, got \(4, 1, 2\) and \(4, 1, 3\)"):
        network(torch.ones(4, 1, 2))
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, C, ...\)"):
        FoldTime(nn.Conv2d(1, 1, 1))(torch.ones(4, 2))
