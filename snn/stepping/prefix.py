"""What runs before the first neuron gets the same input at each step: it is computed once, and kept as a current."""

# k steps of a block, B samples, N rows

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from neuroloaders.checks import invalid

__all__ = ["Prefix", "current_before", "given_current"]


class _Reached(Exception):
    """No error, but the way out of a forward pass that has seen enough."""

    def __init__(self, name: str, current: Tensor) -> None:
        super().__init__(name)
        self.name, self.current = name, current


class Prefix:
    """What runs before the first neuron.

    Parameters
    ----------
    first : str
        Name of that neuron.
    layers : iterable of Module
        The modules without parts of their own that run before it.
    """

    def __init__(self, first: str, layers: Iterable[nn.Module]) -> None:
        self.first = first
        self.over = False  # whether the first neuron has run in this pass
        self.ghosts = {id(layer): _Ghost(layer, self) for layer in layers}


def current_before(model: nn.Module, names: Iterable[str], run: Callable[[], Any]) -> tuple[Tensor, Prefix]:
    """Run a network up to its first neuron.

    Parameters
    ----------
    model : Module
        The network.
    names : iterable of str
        Modules that may be the first neuron.
    run : callable
        Calls the network.

    Returns
    -------
    current : Tensor
        What the neuron that was called first got.
    prefix : Prefix
        What ran before it.
    """
    modules = dict(model.named_modules())
    before: dict[str, nn.Module] = {}
    neurons = dict.fromkeys(names)

    def reached(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple) -> None:
            if len(args) != 1 or not isinstance(args[0], Tensor):
                raise invalid(name, "be called with one tensor to compute what comes before it once", f"{len(args)}")
            raise _Reached(name, args[0])

        return hook

    def passed(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple) -> None:
            before[name] = module

        return hook

    handles = []
    try:
        for name, module in modules.items():
            if name in neurons:
                handles.append(module.register_forward_pre_hook(reached(name)))
            elif _is_layer(module):
                handles.append(module.register_forward_pre_hook(passed(name)))
        try:
            run()
        except _Reached as found:
            return found.current, Prefix(found.name, before.values())
    finally:
        for handle in handles:
            handle.remove()
    raise invalid("model", "call a neuron that keeps a state", "a forward pass without one")


class _Ghost(nn.Module):
    """Stands where a module ran before the first neuron: what it gives has a shape and no values.

    Whoever needs the values - a skip past the first neuron, say - fails loudly instead of getting wrong ones.
    """

    def __init__(self, module: nn.Module, prefix: Prefix) -> None:
        super().__init__()
        # In a tuple, so that they are no parts of this module.
        self.held = (module, _without_values(module), prefix)

    def forward(self, *args: Any, **named: Any) -> Any:
        """Run the real module if the first neuron has run, else only think of it."""
        real, shapes, prefix = self.held
        return (real if prefix.over else shapes)(*args, **named)


def _is_layer(module: nn.Module) -> bool:
    # What torch.nn.utils.parametrize adds is no part that runs by itself.
    return {name for name, _ in module.named_children()} <= {"parametrizations"}


def _without_values(module: nn.Module) -> nn.Module:
    """Return a copy whose tensors are on the device "meta", without hooks."""
    if any(module.children()):
        clone = copy.deepcopy(module).to("meta")
    else:
        clone = copy.copy(module)
        for store in (clone.__dict__, "_parameters", "_buffers"):
            held = store if isinstance(store, dict) else dict(vars(module)[store])
            held.update({name: value.detach().to("meta") for name, value in held.items() if isinstance(value, Tensor)})
            if store is not held:
                clone.__dict__[store] = held
    for part in clone.modules():
        for name in [name for name in vars(part) if name.endswith("_hooks")]:
            part.__dict__[name] = OrderedDict()
    return clone


@contextmanager
def given_current(model: nn.Module, prefix: Prefix, current: Tensor) -> Iterator[None]:
    """Run a network from its first neuron on: pass it an input on the device "meta" meanwhile.

    Parameters
    ----------
    model : Module
        The network. Modules that ran before the first neuron are replaced, and put back.
    prefix : Prefix
        From `current_before`. Set `over` to False before each pass but the first.
    current : Tensor
        What the first neuron gets at its first call of a pass.
    """

    def hook(module: nn.Module, args: tuple) -> tuple | None:
        if prefix.over:
            return None
        prefix.over = True
        return (current,)

    prefix.over, ghosts = False, prefix.ghosts
    places = [
        (parent, key)
        for parent in model.modules()
        for key, child in parent._modules.items()
        if child is not None and id(child) in ghosts
    ]
    originals = [parent._modules[key] for parent, key in places]
    # First in line, so that other hooks see what the neuron gets.
    handle = model.get_submodule(prefix.first).register_forward_pre_hook(hook, prepend=True)
    try:
        for parent, key in places:
            parent._modules[key] = ghosts[id(parent._modules[key])]
        yield
    except RuntimeError as error:
        if not re.search(r"\bmeta\b", str(error), re.IGNORECASE):
            raise
        raise invalid(
            "model",
            "need what comes before its first neuron there only",
            f"an operation after `{prefix.first}` on it, or one before on weights that belong to no layer",
            "Run it without `first_once`, or as a function step(x, state).",
        ) from error
    finally:
        handle.remove()
        for (parent, key), original in zip(places, originals, strict=True):
            parent._modules[key] = original
