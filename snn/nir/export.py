"""From a network of ours to a NIR graph."""

# T time, B batch, C channels, H W image

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_int, check_number, invalid, soft_import
from snn.folded import FoldedLIF
from snn.models.base import TimeSharedDropout
from snn.nir.chain import Chain
from snn.nir.layers import FoldTime
from snn.nir.nodes import EXPORTERS

if TYPE_CHECKING:
    import nir

__all__ = ["to_nir", "write_nir"]


def to_nir(
    model: nn.Module,
    in_shape: int | Sequence[int],
    *,
    dt_ms: float,
    round_delays: bool = False,
    expand_delays: bool = False,
) -> nir.NIRGraph:
    """Write a feed-forward network as a NIR graph [1]_.

    Parameters
    ----------
    model : Module
        An ``nn.Sequential`` on sequences (T, B, C, ...), nested at will, of the layers in
        `snn.nir.nodes.EXPORTERS`. Convolutions and poolings stand inside a `FoldTime`.
    in_shape : int or sequence of int
        Shape of one step of one sample: (C,), or (C, H, W).
    dt_ms : float
        Length of a time step in ms; NIR states time constants and delays in seconds.
    round_delays : bool
        Write delays that are no whole number of steps as the nearest; otherwise they are an error, unless the
        layer itself rounds them in evaluation, as `DelayLinear` does.
    expand_delays : bool
        Write a layer with a delay per synapse as one Delay and one Linear node per distinct delay, whose sum is the
        same; otherwise it is an error, for NIR has a delay per element only.

    Returns
    -------
    nir.NIRGraph
        Its nodes are named like the modules.

    Raises
    ------
    ValueError
        For a layer or an option that NIR cannot hold; the message names the module and what to do.
    ImportError
        If nir is not installed.

    Notes
    -----
    A `LIF` of `tau` steps becomes a LIF node of ``tau * dt``, with ``r = 1`` if its input decays and ``r = tau`` if it
    does not, and ``v_leak = v_reset``: stepped by forward Euler with the same step, that is the same neuron. NIR
    spikes above the threshold only, so a neuron with ``compare="ge"`` gets the next smaller float as its threshold,
    which comes to the same; `from_nir` undoes it. Not written are the surrogate, what learns (a `PLIF` comes back as
    a `LIF`), and dropout. nir 1.0.8 reads grouped convolutions, and those with a kernel that is not square, with
    ``nir.read(path, type_check=False)`` only.

    References
    ----------
    .. [1] Pedersen et al., Nature Communications 15 (2024), 8122, doi:10.1038/s41467-024-52259-9.
    """
    module = soft_import("nir", purpose="Writing a NIR graph", extra="nir")
    sizes = in_shape if isinstance(in_shape, Sequence) else (in_shape,)
    shape = tuple(check_int("in_shape", size, at_least=1) for size in sizes)
    chain = Chain(
        nir=module,
        dt_s=check_number("dt_ms", dt_ms, above=0) * 1e-3,
        round_delays=round_delays,
        expand_delays=expand_delays,
        shape=shape,
    )
    chain.add("input", module.Input(np.array(shape)))
    for path, layer, folded in _leaves(model, "", False):
        _exporter(path, layer)(chain, path or "model", layer, folded)
    chain.add("output", module.Output(np.array(chain.shape)))
    return module.NIRGraph(nodes=chain.nodes, edges=chain.edges)


def write_nir(
    path: str | os.PathLike[str],
    model: nn.Module,
    in_shape: int | Sequence[int],
    *,
    dt_ms: float,
    round_delays: bool = False,
    expand_delays: bool = False,
) -> Path:
    """Write a network to a .nir file, whole or not at all.

    Parameters
    ----------
    path : path-like
        The file to write or replace.
    model, in_shape, dt_ms, round_delays, expand_delays
        As in `to_nir`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError, ImportError
        As in `to_nir`.
    """
    module = soft_import("nir", purpose="Writing a NIR graph", extra="nir")
    graph = to_nir(model, in_shape, dt_ms=dt_ms, round_delays=round_delays, expand_delays=expand_delays)
    buffer = io.BytesIO()
    # HDF5 reads back from the file while it writes, and knows no renaming: so first into memory.
    module.write(buffer, graph)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
    return Path(path)


# What to do about layers that NIR does not have.
_INSTEAD: dict[type[nn.Module], str] = {
    nn.modules.batchnorm._BatchNorm: "Fold it into the layer before it: snn.fold_batchnorm(model).",
    nn.MaxPool1d: "Train with a convolution of that stride.",
    nn.MaxPool2d: "Train with nn.AvgPool2d.",
    nn.ReLU: "NIR has no ReLU; convert the network to spikes first.",
    nn.RNNBase: "Only feed-forward networks can be written.",
    FoldedLIF: "It subtracts its threshold at a spike, which NIR cannot hold: train with snn.LIF(v_reset=0.0).",
}


def _leaves(module: nn.Module, path: str, folded: bool) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield path, layer and whether it sees time folded into the batch, in the order they run."""
    # spikingjelly's containers and layers, in which our neurons may stand; not imported for it.
    peer = type(module).__name__ if type(module).__module__.startswith("spikingjelly.") else ""
    if type(module).forward is nn.Sequential.forward or peer in ("SeqToANNContainer", "MultiStepContainer"):
        # Not named_children, which leaves out a module that stands in two places.
        for name, child in module._modules.items():
            yield from _leaves(child, f"{path}.{name}" if path else name, folded or peer == "SeqToANNContainer")
    elif isinstance(module, FoldTime):
        yield from _leaves(module.module, path, True)
    elif not isinstance(module, nn.Identity | nn.Dropout | TimeSharedDropout) and peer != "Dropout":
        yield path, module, folded or bool(peer and getattr(module, "step_mode", "") == "m")


def _exporter(path: str, layer: nn.Module) -> Callable:
    for kind in type(layer).__mro__:
        exporter = EXPORTERS.get(kind, EXPORTERS.get(kind.__name__ if kind.__name__ == "DelayLinear" else ""))
        # A subclass may compute something else; those of spikingjelly only loop over time.
        same = type(layer).forward is kind.forward if exporter else False
        if exporter and (same or type(layer).__module__.startswith("spikingjelly.")):
            return exporter
    advice = "Take it out, or replace it."
    for kinds, instead in _INSTEAD.items():
        if isinstance(layer, kinds):
            advice = instead
    known = ", ".join(key if isinstance(key, str) else key.__name__ for key in EXPORTERS)
    raise invalid(path or "model", f"be an nn.Sequential, a FoldTime or one of {known}", type(layer).__name__, advice)
