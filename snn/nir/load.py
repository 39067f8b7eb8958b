"""From a NIR graph to a network of ours."""

# T time, B batch, C channels, H W image

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neuroloaders.checks import check_number, check_option, corrupt_file, invalid, soft_import
from snn.nir.equations import COMPARE_KEY, INTEGRATIONS, integrator_from_nir, neuron_from_nir
from snn.nir.graph import as_module, unfold
from snn.nir.layers import FoldTime, Scale, StepDelay

if TYPE_CHECKING:
    import nir

__all__ = ["LOADERS", "from_nir"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Options:
    dt_s: float
    integration: str
    soft_reset: bool
    round_delays: bool


def from_nir(
    graph: nir.NIRGraph | str | os.PathLike[str],
    *,
    dt_ms: float,
    integration: str = "euler",
    soft_reset: bool = False,
    round_delays: bool = False,
) -> nn.Module:
    r"""Build a network from a NIR graph [1]_.

    Parameters
    ----------
    graph : nir.NIRGraph or path-like
        The graph, or the .nir file it is in. It has one input, one output and no cycle.
    dt_ms : float
        Length of a time step in ms. NIR states time in seconds and says nothing about steps.
    integration : str
        How the differential equations become steps, a key of `snn.nir.INTEGRATIONS`: see Notes.
    soft_reset : bool
        Subtract the threshold at a spike. NIR knows the reset to a potential only, but some simulators that write
        NIR subtract all the same (sinabs, rockpool). Its `v_reset` is then ignored.
    round_delays : bool
        Round delays to whole steps; otherwise a delay that is no multiple of `dt_ms` is an error.

    Returns
    -------
    Module
        On sequences (T, B, C, ...), in torch's default dtype. A chain of nodes becomes an ``nn.Sequential`` with the
        nodes' names. The output keeps the length T.

    Raises
    ------
    ValueError
        If the file cannot be read, or the graph has what our neurons cannot do. The message names the node.
    ImportError
        If nir is not installed.

    Notes
    -----
    With :math:`\alpha` the decay of the membrane in a step and :math:`g` the factor on :math:`R I`,
    ``"euler"`` has :math:`\alpha = 1 - \Delta t / \tau, g = \Delta t / \tau`; ``"exact"`` has
    :math:`\alpha = e^{-\Delta t / \tau}, g = 1 - \alpha`, the solution for an input that is constant within the
    step; ``"impulse"`` has :math:`\alpha = e^{-\Delta t / \tau}, g = \Delta t / \tau`, the solution for an impulse at
    the end of the step. On the recordings of the NIR paper, norse, snntorch, SpiNNaker2 and (one step late) lava and
    spyx spike like "euler", nengo like "exact", sinabs and rockpool like "impulse" with a soft reset.

    A neuron spikes above the threshold, not at it, as NIR has it, unless the file is ours and says otherwise.
    Neurons start at `v_leak`, which NIR leaves open. Parameters that differ between neurons are kept. A factor on the
    input that `LIF` cannot hold becomes a `Scale` before it. CubaLIF becomes a `LeakyIntegrator` and a `LIF`; a spike
    is in the membrane in the step in which it arrives.

    References
    ----------
    .. [1] Pedersen et al., Nature Communications 15 (2024), 8122, doi:10.1038/s41467-024-52259-9.
    """
    module = soft_import("nir", purpose="Reading a NIR graph", extra="nir")
    options = _Options(
        dt_s=check_number("dt_ms", dt_ms, above=0) * 1e-3,
        integration=check_option("integration", integration, INTEGRATIONS),
        soft_reset=soft_reset,
        round_delays=round_delays,
    )
    if isinstance(graph, str | os.PathLike):
        graph = _read(module, Path(graph))
    if not isinstance(graph, module.NIRGraph):
        raise invalid("graph", "be a nir.NIRGraph or the path of a .nir file", graph, kind=TypeError)

    def build(name: str, node: nir.NIRNode) -> nn.Module:
        kind = type(node).__name__
        if kind not in LOADERS:
            raise invalid(name, f"be one of {', '.join(LOADERS)}", kind, "Replace this node of the graph.")
        return LOADERS[kind](name, node, options)

    return as_module(*unfold(graph), build)


def _read(module: object, path: Path) -> nir.NIRGraph:
    if not path.is_file():
        raise invalid("graph", "be the path of a .nir file", f"{os.fspath(path)!r}, where there is none")
    try:
        # The shapes of Output nodes are wrong in files of some simulators, and nir 1.0.8 refuses convolutions that
        # are grouped or not square. Nothing here relies on the shapes.
        return module.read(path, type_check=False)
    # nir and h5py raise whatever a missing key or a foreign file leads to.
    except Exception as error:
        raise corrupt_file(path, f"{error}", "It must be a NIR file (HDF5); write it again.") from error


def _affine(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    weight, bias = _tensor(name, node, "weight"), _tensor(name, node, "bias") if hasattr(node, "bias") else None
    if weight.ndim != 2:
        raise invalid(f"{name}.weight", "have shape (C_out, C_in)", f"{tuple(weight.shape)}", "Split it into nodes.")
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    return _with_values(layer, weight, bias)


def _conv(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    weight, groups = _tensor(name, node, "weight"), int(node.groups)
    n_axes = weight.ndim - 2
    padding = node.padding if isinstance(node.padding, str) else _sizes(node.padding, n_axes)
    layer = nn.utils.skip_init(
        (nn.Conv1d, nn.Conv2d)[n_axes - 1],
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_sizes(node.stride, n_axes),
        padding=padding,
        dilation=_sizes(node.dilation, n_axes),
        groups=groups,
    )
    return FoldTime(_with_values(layer, weight, _tensor(name, node, "bias")))


def _pool(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    sizes = (_sizes(getattr(node, key), 2) for key in ("kernel_size", "stride", "padding"))
    # A sum is an average that is divided by 1.
    return FoldTime(nn.AvgPool2d(*sizes, divisor_override=1 if type(node).__name__ == "SumPool2d" else None))


def _flatten(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    # NIR counts the axes of one step of one sample, torch also time and batch.
    return nn.Flatten(*(axis + 2 if axis >= 0 else axis for axis in (int(node.start_dim), int(node.end_dim))))


def _delay(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    steps = np.asarray(node.delay, dtype=np.float64) / options.dt_s
    if not np.isfinite(steps).all() or (steps < 0).any():
        raise invalid(f"{name}.delay", "hold numbers of at least 0 seconds", "others")
    rounded = np.round(steps)
    if not options.round_delays and not np.allclose(steps, rounded, rtol=1e-6, atol=1e-6):
        worst = steps.flat[np.abs(steps - rounded).argmax()]
        came = f"{worst * options.dt_s * 1e3:.4g} ms with steps of {options.dt_s * 1e3:.4g} ms"
        raise invalid(f"{name}.delay", "be a whole number of time steps", came, "Pass round_delays=True, or fit dt_ms.")
    same = rounded.size and rounded.min() == rounded.max()
    return StepDelay(torch.as_tensor(np.array(rounded.flat[0] if same else rounded, dtype=np.int64)))


def _neuron(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    return neuron_from_nir(name, _fields(node), **_spiking(node, options))


def _fields(node: nir.NIRNode) -> dict:
    return {key: getattr(node, key) for key in ("tau", "r", "v_leak", "v_threshold", "v_reset") if hasattr(node, key)}


def _spiking(node: nir.NIRNode, options: _Options) -> dict:
    at_threshold = (node.metadata or {}).get(COMPARE_KEY) == "ge"
    return {"soft_reset": options.soft_reset, "at_threshold": at_threshold, **_stepping(options)}


def _stepping(options: _Options) -> dict:
    return {"dt_s": options.dt_s, "integration": options.integration}


def _integrator(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    return integrator_from_nir(name, **_fields(node), **_stepping(options))


def _current_based(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    synapse = integrator_from_nir(f"{name}.synapse", tau=node.tau_syn, r=node.w_in, **_stepping(options))
    fields = {"tau": node.tau_mem, **_fields(node)}
    if type(node).__name__ == "CubaLI":
        return nn.Sequential(synapse, integrator_from_nir(name, **fields, **_stepping(options)))
    return nn.Sequential(synapse, neuron_from_nir(name, fields, **_spiking(node, options)))


def _scale(name: str, node: nir.NIRNode, options: _Options) -> nn.Module:
    return Scale(_tensor(name, node, "scale"))


# Type of the node, as it is called in the file -> what builds the module.
LOADERS: dict[str, Callable[[str, nir.NIRNode, _Options], nn.Module]] = {
    "Affine": _affine,
    "Linear": _affine,
    "Scale": _scale,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Delay": _delay,
    "LIF": _neuron,
    "IF": _neuron,
    "LI": _integrator,
    "I": _integrator,
    "CubaLIF": _current_based,
    "CubaLI": _current_based,
}


def _tensor(name: str, node: nir.NIRNode, key: str) -> Tensor:
    array = np.array(getattr(node, key), dtype=np.float64)
    if not np.isfinite(array).all():
        raise invalid(f"{name}.{key}", "hold finite numbers only", "NaN or infinity", "Repair the graph.")
    return torch.as_tensor(array).to(torch.get_default_dtype())


def _sizes(value: object, n_axes: int) -> tuple[int, ...]:
    return tuple(int(size) for size in np.broadcast_to(np.asarray(value), (n_axes,)))


def _with_values(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
