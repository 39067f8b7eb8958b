"""A graph of nodes as a module: subgraphs unfolded, nodes put in order, outputs that meet added up."""

# T time, B batch, C channels

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from torch import Tensor, nn

from neuroloaders.checks import invalid

if TYPE_CHECKING:
    import nir

__all__ = ["GraphModule", "as_module", "unfold"]

# Nodes that hand on what they get.
_PASSING = ("Input", "Output", "Identity")


class GraphModule(nn.Module):
    """Run layers in the order of a graph; a layer with several sources gets their sum.

    Parameters
    ----------
    layers : dict of str to Module
        In the order they run. The last one's output is that of the network.
    sources : dict of str to sequence of str
        Name of the layer -> the layers before it. None: the input of the network.
    """

    def __init__(self, layers: dict[str, nn.Module], sources: dict[str, Iterable[str]]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.sources = {name: tuple(sources.get(name, ())) for name in layers}

    def forward(self, x: Tensor) -> Tensor:
        """Map (T, B, C, ...) to the output of the last layer, (T, B, ...)."""
        values: dict[str, Tensor] = {}
        out = x
        for name, layer in self.layers.items():
            inputs = [values[source] for source in self.sources[name]] or [x]
            shapes = {tuple(value.shape) for value in inputs}
            if len(shapes) > 1:
                raise invalid(f"{name}", "get inputs of one shape", " and ".join(map(str, sorted(shapes))))
            out = values[name] = layer(sum(inputs[1:], start=inputs[0]))
        return out


def unfold(graph: nir.NIRGraph, prefix: str = "") -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """Return all nodes and edges of a graph, those of its subgraphs under "<subgraph>.<node>"."""
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    doors: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        full = f"{prefix}{name}"
        if type(node).__name__ != "NIRGraph":
            nodes[full], doors[name] = node, (full, full)
            continue
        inner_nodes, inner_edges = unfold(node, f"{full}.")
        entries = [f"{full}.{key}" for key, inner in node.nodes.items() if type(inner).__name__ == "Input"]
        exits = [f"{full}.{key}" for key, inner in node.nodes.items() if type(inner).__name__ == "Output"]
        if len(entries) != 1 or len(exits) != 1:
            came = f"{len(entries)} and {len(exits)}"
            raise invalid(f"{full}", "have one Input and one Output", came, "Merge or split the subgraph.")
        nodes |= inner_nodes
        edges += inner_edges
        doors[name] = entries[0], exits[0]
    for source, target in graph.edges:
        unknown = [name for name in (source, target) if name not in doors]
        if unknown:
            raise invalid("graph", "have edges between its nodes only", f"one of {unknown[0]!r}, which is none of them")
        edges.append((doors[source][1], doors[target][0]))
    # Edges are a set by NIR's definition; some writers repeat them.
    return nodes, list(dict.fromkeys(edges))


def as_module(
    nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], build: Callable[[str, nir.NIRNode], nn.Module]
) -> nn.Module:
    """Return an nn.Sequential for a chain of nodes, else a `GraphModule`."""
    before: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        before[target].append(source)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        cycle = " -> ".join(repr(name) for name in reversed(error.args[1]))
        advice = "Recurrent graphs are not supported; cut the connection, or run the graph in the simulator it is from."
        raise invalid("graph", "have no cycles", cycle, advice) from error
    behind = {source for source, _ in edges}
    for kind, ends in (
        ("input", [name for name in order if not before[name]]),
        ("output", [name for name in order if name not in behind]),
    ):
        if len(ends) != 1:
            came = f"{len(ends)}{': ' if ends else ''}{', '.join(map(repr, ends))}"
            advice = "Connect the others, or take them out."
            raise invalid("graph", f"have one {kind}", came, advice)
    names = _module_names(order)
    layers = {
        names[name]: nn.Identity() if type(nodes[name]).__name__ in _PASSING else build(name, nodes[name])
        for name in order
    }
    # One start and one end, and nobody with two sources: then it is a chain.
    if all(len(sources) <= 1 for sources in before.values()):
        return nn.Sequential(
            OrderedDict((key, layer) for key, layer in layers.items() if not isinstance(layer, nn.Identity))
        )
    return GraphModule(layers, {names[name]: [names[source] for source in before[name]] for name in order})


def _module_names(names: list[str]) -> dict[str, str]:
    """Return names that torch takes: without dots, no attribute of a container, each once."""
    taken = set(dir(nn.ModuleDict())) | set(dir(nn.Sequential()))
    found = {}
    for name in names:
        short = re.sub(r"\W", "_", name) or "_"
        while short in taken:
            short += "_"
        taken.add(short)
        found[name] = short
    return found
