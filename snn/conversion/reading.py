"""Turn what tracing found into a plan, node by node."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from neuroloaders.checks import invalid
from snn.conversion.functions import FUNCTIONS
from snn.conversion.modules import MODULES, leaf_base, settle
from snn.conversion.plan import Op, Plan
from snn.conversion.refusals import refuse
from snn.conversion.tracing import Traced, follow
from snn.models import FoldedNetwork

__all__ = ["Reader", "read_network"]

# Functions that torch hides behind a dispatcher without a name of its own.
_DISPATCHED = {
    getattr(F, name): name
    for name in (f"{kind}max_pool{n}d" for kind in ("", "adaptive_", "fractional_") for n in (1, 2, 3))
    if hasattr(F, name)
}


def read_network(model: nn.Module) -> Plan:
    """Return `model` as a plan.

    Parameters
    ----------
    model : Module
        Any network of what `MODULES` and `FUNCTIONS` list; it is left as it is.

    Raises
    ------
    ValueError
        For the first module or function that cannot be converted, with its name and what to use instead.
    TypeError
        If `model` is no module.
    """
    return Reader(model, follow(model)).plan


class Reader:
    """Reads node by node; `names` says which value of the plan a node stands for."""

    def __init__(self, model: nn.Module, traced: Traced) -> None:
        self.traced = traced
        self.names: dict[fx.Node, str] = {}
        self.shapes: dict[fx.Node, fx.Node] = {}  # a whole shape -> whose
        self.sizes: set[fx.Node] = set()  # whole numbers that come from shapes
        self.row_counts: set[fx.Node] = set()  # sizes of the batch axis
        self.taken = {name for name, _ in traced.root.named_modules()}
        self.plan = Plan([], "", in_shape=model.in_shape if isinstance(model, FoldedNetwork) else None)
        for node in traced.nodes:
            self._read(node)
        if traced.output not in self.names:
            raise invalid("model", "return one tensor", f"`{traced.output.name}`", "Return the logits alone.")
        self.plan.output = self.names[traced.output]

    def _read(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.add(node, "input", name=self._new_name("input"))
        elif node.op == "call_module":
            self._module(node, self.traced.root.get_submodule(node.target))
        elif node.op in ("call_function", "call_method"):
            name = self.function_name(node)
            handler = FUNCTIONS.get(name.rstrip("_") if name != "_" else name)
            if handler is None:
                raise self.refuse(node)
            handler(self, node)

    def function_name(self, node: fx.Node) -> str:
        """Return the name of the function or method that a node calls."""
        if node.op == "call_method":
            return node.target
        known = _DISPATCHED.get(node.target) or getattr(node.target, "__name__", str(node.target))
        home = getattr(node.target, "__module__", None) or ""
        # A function of the user's own may bear any name.
        own = callable(node.target) and home and not home.startswith(("torch", "_operator", "builtins", "math"))
        return f"{home}.{known}" if own else known

    def refuse(self, node: fx.Node, why: str = "", advice: str = "") -> Exception:
        """Build the error for a call."""
        return refuse(self.traced.where(node), self.function_name(node), why, advice)

    def _new_name(self, name: str) -> str:
        number, given = 2, name
        while given in self.taken:
            given, number = f"{name}_{number}", number + 1
        self.taken.add(given)
        return given

    def value(self, node: fx.Node, thing: Any) -> str:
        """Return the name of the value that an argument stands for; refuse what is none."""
        if not isinstance(thing, fx.Node) or thing not in self.names:
            raise self.refuse(node, "of something that is no value of the network")
        return self.names[thing]

    def add(self, node: fx.Node, kind: str, *inputs: str, name: str = "", **details: Any) -> None:
        """Append an operation for a call, by default under the name of the function in its module."""
        if not name:
            scope = self.traced.where(node)
            base = self.function_name(node).rstrip("_").rpartition(".")[2]
            name = self._new_name(f"{scope}.{base}" if scope else base)
        self.names[node] = name
        self.plan.ops.append(Op(name, kind, inputs, **details))

    def add_module(self, node: fx.Node, module: nn.Module, source: str) -> None:
        """Append an operation that calls a new module, which does what the function did."""
        self.add(node, MODULES[type(module)], source)
        op = self.plan.ops[-1]
        self.plan.modules[op.name] = settle(op.name, module.eval())
        self.plan.ops[-1] = Op(op.name, op.kind, op.inputs, module=op.name)

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        path = node.target
        base = leaf_base(module)
        if base is None:
            raise refuse(path, module)
        given = [*node.args, *node.kwargs.values()]
        if len(given) != 1 or not isinstance(given[0], fx.Node):
            raise refuse(path, module, "that is not called with one tensor")
        source = self.value(node, given[0])
        kind = MODULES[base]
        if kind == "gone":
            self.names[node] = source
            return
        if path in self.plan.modules:
            if kind == "activation":
                # Each call is a layer of neurons of its own, with memories of its own.
                again = self._new_name(path)
                self.plan.modules[again] = settle(again, copy.deepcopy(module))
                self.add(node, kind, source, name=again, module=again)
                return
            self.add(node, kind, source, name=self._new_name(path), module=path)
            return
        self.plan.modules[path] = settle(path, module)
        self.add(node, kind, source, name=path, module=path)

    def constant(self, thing: Any) -> Tensor | float | None:
        """Return the number or tensor that an argument stands for, or None if it is a value of the network."""
        if isinstance(thing, (int, float)) and not isinstance(thing, bool):
            return thing
        if isinstance(thing, fx.Node) and thing.op == "get_attr":
            owner, _, name = thing.target.rpartition(".")
            tensor = getattr(self.traced.root.get_submodule(owner), name)
            return tensor.detach() if isinstance(tensor, Tensor) else None
        return None
