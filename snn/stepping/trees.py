"""States of any nesting: which tensors hold a sample a row, and how rows are picked."""

# B samples

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from neuroloaders.checks import invalid
from snn.delays import DelayState

__all__ = ["check_rows", "keep_rows"]

# What all samples share, since all are of one age: counters, options, and nothing yet.
_SHARED = (bool, int, float, complex, str, bytes, type(None))
_ADVICE = "Each sample needs a row of its own, or it cannot leave the batch."


def check_rows(tree: Any, n_samples: int, where: str, axis: int = 0) -> None:
    """Raise, with the name of the tensor, if one has not `n_samples` rows.

    Parameters
    ----------
    tree : nested lists, tuples, mappings and dataclasses of tensors
        Numbers, text, None, and tensors without axes are shared by all samples. A tensor of shape (0,) is a state that
        does not exist yet.
    n_samples : int
        B.
    where : str
        What `tree` is called.
    axis : int
        Where the samples lie.
    """

    def look(x: Tensor, name: str, axis: int) -> Tensor:
        if not -x.ndim <= axis < x.ndim or x.shape[axis] != n_samples:
            required = f"have the batch, {n_samples} samples, on axis {axis}"
            raise invalid(name, required, f"shape {tuple(x.shape)}", _ADVICE)
        return x

    _map(tree, look, where, axis)


def keep_rows(tree: Any, index: Tensor, n_samples: int, where: str, axis: int = 0) -> Any:
    """Return the same tree with the rows `index` of each tensor, as copies; the other parameters as in `check_rows`."""
    check_rows(tree, n_samples, where, axis)
    return _map(tree, lambda x, name, axis: x.index_select(axis, index.to(x.device)), where, axis)


def _map(tree: Any, function: Callable[[Tensor, str, int], Tensor], where: str, axis: int) -> Any:
    if isinstance(tree, Tensor):
        return tree if tree.ndim == 0 or tree.shape == (0,) else function(tree, where, axis)
    if isinstance(tree, _SHARED):
        return tree
    if isinstance(tree, DelayState):
        # The ring's first axis is time. Its place says how many samples there are as well as any other would.
        return DelayState(function(tree.ring, f"{where}.ring", 1), tree.now)
    if isinstance(tree, Mapping):
        changed = {key: _map(value, function, f"{where}[{key!r}]", axis) for key, value in tree.items()}
        return _rebuilt(tree, changed)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        values = zip(tree._fields, tree, strict=True)
        return type(tree)(*(_map(value, function, f"{where}.{name}", axis) for name, value in values))
    if isinstance(tree, list | tuple):
        return _rebuilt(tree, [_map(value, function, f"{where}[{i}]", axis) for i, value in enumerate(tree)])
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [field.name for field in dataclasses.fields(tree) if field.init]
        new = {name: _map(getattr(tree, name), function, f"{where}.{name}", axis) for name in fields}
        return dataclasses.replace(tree, **new)
    advice = "Make it of tensors, lists, tuples, dictionaries or dataclasses."
    raise invalid(where, "be a state whose samples can be picked", tree, advice, kind=TypeError)


def _rebuilt(old: Any, values: Any) -> Any:
    """Return `values` as the plain type that `old` is a kind of."""
    for kind in (dict, list, tuple):
        if isinstance(old, kind):
            return values if type(values) is type(old) else type(old)(values)
    return dict(values)
