"""A graph under construction: nodes one behind the other, or side by side and added up."""

# C channels, H W image

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import nir

__all__ = ["Chain"]


@dataclass(kw_only=True)
class Chain:
    """The graph so far: its last nodes, whose sum is the current signal, and the shape of that."""

    nir: ModuleType
    dt_s: float
    round_delays: bool
    expand_delays: bool
    shape: tuple[int, ...]
    nodes: dict = field(default_factory=dict)
    edges: list = field(default_factory=list)
    ends: list = field(default_factory=list)

    def add(self, path: str, *branch: nir.NIRNode, shape: tuple[int, ...] | None = None) -> None:
        """Append nodes one after the other."""
        self.split(path, [branch], self.shape if shape is None else shape)

    def split(self, path: str, branches: Sequence[Sequence[nir.NIRNode]], shape: tuple[int, ...]) -> None:
        """Append branches side by side, which are added up by what comes next."""
        ends = []
        for branch in branches:
            before = self.ends
            for node in branch:
                name = self._new_name(path, node, len(branches) * len(branch) == 1)
                self.nodes[name] = node
                self.edges += [(end, name) for end in before]
                before = [name]
            ends += before
        self.ends, self.shape = ends, shape

    def _new_name(self, path: str, node: nir.NIRNode, alone: bool) -> str:
        # No dots: some readers take them for subgraphs.
        base = path.replace(".", "_") + ("" if alone else f"_{type(node).__name__.lower()}")
        name, count = base, 1
        while name in self.nodes:
            count += 1
            name = f"{base}_{count}"
        return name
