"""A network as a list of operations in the order in which they run: what tracing gives and conversion works on."""

# N rows: B samples, or T * B samples at each time step, step-major; C channels

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import invalid

__all__ = ["AFFINE", "KINDS", "Known", "Op", "Plan", "compute", "look_up_sizes", "run_ann"]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation.

    Attributes
    ----------
    name : str
        Its own and that of its value; for a module that is called once, the name of the module.
    kind : str
        A key of `KINDS`.
    inputs : tuple of str
        Names of the values it reads.
    module, buffer : str
        Name of the module that it calls, or of the tensor that it uses; "" for none.
    options : mapping
        What else the kind needs.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    module: str = ""
    buffer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """Operations, and the modules and tensors that they use by name.

    Attributes
    ----------
    ops : list of Op
        Each after those whose values it reads. The first is the input.
    output : str
        Name of the value that the network gives.
    modules : dict of str to Module
        Copies: conversion may change them.
    buffers : dict of str to Tensor
        Constants.
    in_shape : tuple of int, optional
        (C, H, W), where the network says so.
    """

    ops: list[Op]
    output: str
    modules: dict[str, nn.Module] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    in_shape: tuple[int, ...] | None = None

    def readers(self) -> dict[str, list[Op]]:
        """Return the operations that read each value."""
        found: dict[str, list[Op]] = {op.name: [] for op in self.ops}
        for op in self.ops:
            for name in op.inputs:
                found[name].append(op)
        return found

    def changing(self) -> set[str]:
        """Return the values that change from step to step though the image stands still: all after an activation."""
        names: set[str] = set()
        for op in self.ops:
            if op.kind == "activation" or not names.isdisjoint(op.inputs):
                names.add(op.name)
        return names

    def forward_names(self, renamed: Mapping[str, str]) -> None:
        """Let readers of the values that are keys of `renamed` read the others instead."""
        self.ops = [replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs)) for op in self.ops]
        self.output = renamed.get(self.output, self.output)

    def held(self, op: Op) -> nn.Module | Tensor | None:
        """Return the module or the tensor that an operation uses."""
        if op.module:
            return self.modules[op.module]
        return self.buffers[op.buffer] if op.buffer else None

    def activations(self) -> list[Op]:
        """Return the operations that become neurons."""
        return [op for op in self.ops if op.kind == "activation"]


@dataclass(frozen=True, slots=True)
class Known:
    """Stands in an operation's options for a size that is found when it runs, in its inputs at `index`."""

    index: int


def look_up_sizes(sizes: Sequence[int | str]) -> tuple[tuple[int | Known, ...], tuple[str, ...]]:
    """Return sizes for an operation's options, and the names to add to its inputs for those that are names."""
    names = tuple(size for size in sizes if isinstance(size, str))
    counter = iter(range(len(names)))
    return tuple(Known(next(counter)) if isinstance(size, str) else size for size in sizes), names


def _call(op: Op, inputs: list, module: nn.Module) -> Tensor:
    axes = op.options.get("n_axes")
    if axes is not None and inputs[0].ndim != axes:
        raise invalid(
            op.name,
            f"be fed {axes} axes, because the batch normalisation after it has become part of it",
            f"shape {tuple(inputs[0].shape)}",
            "Flatten before the layer.",
        )
    return module(inputs[0])


def _sum(op: Op, inputs: list[Tensor], _: None) -> Tensor:
    a, b = inputs
    of_a, of_b = op.options["factors"]
    if of_a == of_b == 1:
        return a + b
    # A factor comes with the addition for nothing, on one of the two.
    return torch.add(a, b, alpha=of_b) if of_a == 1 else torch.add(b if of_b == 1 else b * of_b, a, alpha=of_a)


AFFINE: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
}


def _affine(op: Op, inputs: list[Tensor], buffer: Tensor | None) -> Tensor:
    constant = op.options["constant"] if buffer is None else buffer
    if buffer is not None and buffer.ndim >= inputs[0].ndim and buffer.shape[0] != 1:
        advice = "Give it one row, or no batch axis: time is folded into that of the value."
        raise invalid(op.buffer, "be the same for all samples", f"shape {tuple(buffer.shape)}", advice)
    function = AFFINE[op.options["function"]]
    return function(constant, inputs[0]) if op.options["is_swapped"] else function(inputs[0], constant)


def _reshape(op: Op, inputs: list, _: None) -> Tensor:
    """Give new trailing axes; what belongs to a row stays in it."""
    x, known = inputs[0], inputs[1:]
    sizes = [known[size.index] if isinstance(size, Known) else size for size in op.options["sizes"]]
    in_row = math.prod(x.shape[1:])
    if sizes.count(-1) == 1:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = in_row // rest if rest else 0
    if math.prod(sizes) != in_row or min(sizes, default=0) < 0:
        raise invalid(
            op.name,
            "keep the batch axis and reshape the axes after it only",
            f"{tuple(x.shape[1:])} to {tuple(sizes)}",
            "Write torch.flatten(x, 1), or x.view(x.shape[0], ...).",
        )
    return x.reshape(x.shape[0], *sizes)


def _product(op: Op, inputs: list[int], _: None) -> int:
    a, b = (inputs[part.index] if isinstance(part, Known) else part for part in op.options["parts"])
    return a // b if op.options["is_division"] else a * b


def _scale(op: Op, inputs: list[Tensor], heights: Tensor | None) -> Tensor:
    """Give spikes of one unit the height that they stand for: one for all, or one a channel."""
    (x,) = inputs
    if heights is None:
        return x * op.options["height"]
    # After flattening, a channel has become a run of features.
    each = x.shape[1] // heights.numel()
    return x * heights.repeat_interleave(each).view(-1, *[1] * (x.ndim - 2)).to(x.dtype)


# kind -> its value, from (operation, values of its inputs, its module or tensor). "activation" and "max_pool" have a
# memory in a spiking network, which runs them itself; here they are what they are in the ANN.
KINDS: dict[str, Callable[[Op, list, Any], Any]] = {
    "input": lambda op, inputs, held: inputs[0],
    "layer": _call,
    "activation": _call,
    "max_pool": _call,
    "sum": _sum,
    "concat": lambda op, inputs, held: torch.cat(inputs, op.options["dim"]),
    "affine": _affine,
    "mean": lambda op, inputs, held: inputs[0].mean(op.options["dims"], keepdim=op.options["keepdim"]),
    "squeeze": lambda op, inputs, held: inputs[0].squeeze(op.options["dim"]),
    "reshape": _reshape,
    "size": lambda op, inputs, held: inputs[0].shape[op.options["axis"]],
    "product": _product,
    "scale": _scale,
}


def compute(op: Op, inputs: list, held: nn.Module | Tensor | None, n_rows: int) -> Any:
    """Return the value of an operation, which must have as many rows as what it read."""
    value = KINDS[op.kind](op, inputs, held)
    if isinstance(value, Tensor) and (value.ndim == 0 or value.shape[0] != n_rows):
        raise invalid(
            op.name,
            "leave the batch axis in front and as it is",
            f"{n_rows} rows in, shape {tuple(value.shape)} out",
            "Time is folded into that axis: work on the axes after it.",
        )
    return value


def run_ann(plan: Plan, x: Tensor, on_activation: Callable[[Op, Tensor, Tensor], None] | None = None) -> Tensor:
    """Run the plan as the ANN it was read from.

    Parameters
    ----------
    plan : Plan
        From `snn.conversion.tracing.trace`.
    x : Tensor, shape (B, ...)
        Input.
    on_activation : callable, optional
        Called with each activation, its input and its output.
    """
    last = {name: op.name for op in plan.ops for name in op.inputs}
    values: dict[str, Any] = {}
    for op in plan.ops:
        inputs = [values[name] for name in op.inputs] if op.inputs else [x]
        values[op.name] = compute(op, inputs, plan.held(op), x.shape[0])
        if op.kind == "activation" and on_activation is not None:
            on_activation(op, inputs[0], values[op.name])
        for name in set(op.inputs):
            if last[name] == op.name and name != plan.output:
                del values[name]
    return values[plan.output]
