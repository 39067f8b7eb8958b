"""Read a torch network as a plan: follow a symbol through it, and refuse by name what cannot be followed."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from neuroloaders.checks import invalid
from snn.conversion.modules import computed_weight, leaf_base, reads_in_place
from snn.conversion.refusals import SPIKING
from snn.models import FoldedNetwork

__all__ = ["Traced", "follow"]

_DATA = "Take decisions when the network is built, not from the data; shapes may be read as x.shape[i]."


class _Symbol(fx.Proxy):
    """A symbol that remembers that an addition was in place, which changes what others see."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})


class _Follower(fx.Tracer):
    """Goes into every module but the leaves, and knows in which module each function is called."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.traced_func_name = method
        self.scopes: dict[str, str] = {}  # node -> module that called it
        self.stack: list[str] = [""]
        self.failed_in: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        from_torch = type(m).__module__.startswith(("torch.nn.", "torch.ao.")) and not isinstance(m, nn.Sequential)
        return from_torch or leaf_base(m) is not None or type(m).__name__.lower() in SPIKING

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        self.stack.append(self.path_of_module(m))
        try:
            # The checks of the base's forward are about time and batch; what it computes is `_rows`.
            return super().call_module(m, m._rows if isinstance(m, FoldedNetwork) else forward, args, kwargs)
        except Exception:
            self.failed_in = self.stack[-1] if self.failed_in is None else self.failed_in
            raise
        finally:
            self.stack.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.scopes[node.name] = self.stack[-1]
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Symbol(node, self)


class Traced:
    """What following a symbol through a network found.

    Attributes
    ----------
    root : Module
        A copy of the network, in evaluation mode.
    nodes : list of Node
        Those that the output depends on, in the order in which they run.
    output : Node
        The value that the network gives.
    scopes : dict of str to str
        Node -> name of the module that made the call; of a module, its own name.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, scopes: dict[str, str]) -> None:
        self.root, self.scopes = root, scopes
        nodes = list(graph.nodes)
        self.output = nodes[-1].args[0]
        if not isinstance(self.output, fx.Node):
            advice = "Return the logits alone."
            raise invalid("model", "return one tensor", f"a {type(self.output).__name__}", advice)
        self._refuse_overwritten(nodes)
        needed = {self.output}
        for node in reversed(nodes):
            if node in needed:
                needed.update(node.all_input_nodes)
        self.nodes = [node for node in nodes if node in needed]

    def where(self, node: fx.Node) -> str:
        """Return the name of the module that a node calls, or in which it calls a function."""
        return str(node.target) if node.op in ("call_module", "get_attr") else self.scopes.get(node.name, "")

    def _refuse_overwritten(self, nodes: list[fx.Node]) -> None:
        """Refuse operations in place on a value that is read later: what is read then is not what was traced."""
        order = {node: position for position, node in enumerate(nodes)}
        for node in nodes:
            module = self.root.get_submodule(node.target) if node.op == "call_module" else None
            if not node.all_input_nodes or not reads_in_place(node, module):
                continue
            source = node.all_input_nodes[0]
            if any(order[user] > order[node] for user in source.users if user is not node):
                raise invalid(
                    self.where(node) or "model",
                    "not work in place on a value that is read again",
                    f"`{node.name}`, which overwrites `{source.name}`",
                    "Pass inplace=False, or write y = y + x instead of y += x, and use the result.",
                )


def follow(model: nn.Module) -> Traced:
    """Follow a symbol through a copy of `model` in evaluation mode.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        If it takes more than one input or decides by its data; the module in which is named.
    """
    if not isinstance(model, nn.Module):
        raise invalid("model", "be a torch.nn.Module", model, kind=TypeError)
    for name, module in model.named_modules():
        if any(isinstance(value, Tensor) and not value.is_leaf for value in vars(module).values()):
            raise computed_weight(name, module)
    root = copy.deepcopy(model).eval()
    method = "_rows" if isinstance(root, FoldedNetwork) else "forward"
    options = _defaults(getattr(root, method))
    follower = _Follower(method)
    # fx makes tensors of its own for nothing here, but a model's forward may: without gradients, as in evaluation.
    try:
        with torch.no_grad():
            graph = follower.trace(root, concrete_args=options)
    except Exception as error:
        where = follower.failed_in or "model"
        came = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise invalid(where, "compute the same steps whatever its data", came, _DATA) from error
    return Traced(root, graph, follower.scopes)


def _defaults(forward: Callable) -> dict[str, Any]:
    """Return the default of every argument of `forward` but the first."""
    first, *others = inspect.signature(forward).parameters.values()
    for parameter in others:
        is_open = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not is_open:
            advice = "Wrap it in a module whose forward(x) fills in the others."
            raise invalid("model", "take one input", f"a further argument `{parameter.name}`", advice)
    return {parameter.name: parameter.default for parameter in others if parameter.default is not parameter.empty}
