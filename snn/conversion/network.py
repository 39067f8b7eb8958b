"""A converted network: static images in, the logits of every time step out, some steps at a time."""

# T time steps, k of them at a time, B samples, K classes; rows are k * B, step-major

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_shape, invalid
from snn.conversion.neurons import ConvertedIF
from snn.conversion.plan import Op, Plan, compute

__all__ = ["ConvertedNetwork", "ConvertedState"]


@dataclass(slots=True)
class ConvertedState:
    """What a converted network remembers of some samples between two runs.

    Attributes
    ----------
    n_samples : int
        B.
    static : dict
        What the layers before the first neurons make of the images, once for all steps.
    memory : dict
        Neurons or pooling -> tensors, shapes (B, ...); empty before the first step.
    """

    n_samples: int
    static: dict[str, Any]
    memory: dict[str, tuple[Tensor, ...]]


class ConvertedNetwork(nn.Module):
    """A spiking network made by `ann_to_snn`; its layers have the names that they have in the ANN.

    Parameters
    ----------
    plan : Plan
        What to compute. Its modules become submodules: `ConvertedIF` in place of activations, `RunningMaxPool` in
        place of max pooling.
    n_steps : int
        Number of time steps T.

    Attributes
    ----------
    n_steps : int
        T, for `forward` and `step_logits`; may be set.
    in_shape : tuple of int or None
        (C, H, W) of one image, if the ANN says so.

    Raises
    ------
    ValueError
        If a layer of the ANN has a name that this class needs for itself.

    Notes
    -----
    It is a Stepper: ``state = start(x)``, ``logits, state = run(state, n_steps)``, ``state = keep(state, index)``.
    What does not change from step to step, up to the current of the first neurons, is computed once, in `start`.
    `run` computes layer by layer, each for all its steps at once, so that convolutions see n_steps * B rows.
    Spikes are 0 and 1. Their height, the threshold, is part of the weights that read them: see `ConvertedIF`.
    """

    def __init__(self, plan: Plan, n_steps: int) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.in_shape = plan.in_shape
        self._output = plan.output
        changing = plan.changing()
        self._static = tuple(op for op in plan.ops if op.name not in changing)
        self._changing = tuple(op for op in plan.ops if op.name in changing)
        self._kept = {name for op in self._changing for name in op.inputs if name not in changing}
        self._last = {name: op.name for op in plan.ops for name in op.inputs}
        for name, module in plan.modules.items():
            self._place(name, module)
        for name, buffer in plan.buffers.items():
            self._place(name, buffer)
        self.eval()

    def _place(self, name: str, thing: nn.Module | Tensor) -> None:
        """Put a module or a constant where it is in the ANN."""
        *path, last = name.split(".")
        owner: nn.Module = self
        for part in path:
            if part not in owner._modules:
                _check_name(owner, part, name)
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]
        _check_name(owner, last, name)
        if isinstance(thing, nn.Module):
            owner.add_module(last, thing)
        else:
            owner.register_buffer(last, thing)

    inputs = "static"  # what steppers say of the input they are shown

    @property
    def n_steps(self) -> int:
        """Number of time steps T of `forward` and `step_logits`."""
        return self._n_steps

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        self._n_steps = check_int("n_steps", value, at_least=1)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Threshold of each layer of neurons, by name: the value that a spike at each step stands for."""
        neurons = ((name, module) for name, module in self.named_modules() if isinstance(module, ConvertedIF))
        return {name: module.v_threshold.item() for name, module in neurons}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (B, K), of images, shape (B, C, H, W): summed over the `n_steps` steps.

        Divided by `n_steps` they are in the units of the ANN's logits.
        """
        return self.step_logits(x).sum(0)

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits of every time step, not yet summed.

        Parameters
        ----------
        x : Tensor, shape (B, C, H, W)
            Static images, presented at every step; any shape (B, ...) that the ANN takes.

        Returns
        -------
        Tensor, shape (T, B, K)

        Raises
        ------
        ValueError
            If `x` does not fit the network, or a layer does not leave the batch axis as it is.
        TypeError
            If `x` is no floating-point tensor.
        """
        return self._run(self._start(x), self._n_steps)

    @torch.no_grad()
    def start(self, x: Tensor) -> ConvertedState:
        """Return the state of samples before their first step.

        Parameters
        ----------
        x : Tensor, shape (B, C, H, W)
            Static images.

        Returns
        -------
        ConvertedState
        """
        return self._start(x)

    @torch.no_grad()
    def run(self, state: ConvertedState, n_steps: int) -> tuple[Tensor, ConvertedState]:
        """Run some steps.

        Parameters
        ----------
        state : ConvertedState
            From `start`, `run` or `keep`. It is written over: go on with the one that is returned.
        n_steps : int
            How many steps.

        Returns
        -------
        logits : Tensor, shape (n_steps, B, K)
            Of each of these steps.
        state : ConvertedState
            After them.
        """
        return self._run(state, check_int("n_steps", n_steps, at_least=1)), state

    @torch.no_grad()
    def keep(self, state: ConvertedState, index: Tensor) -> ConvertedState:
        """Return the state of some of the samples.

        Parameters
        ----------
        state : ConvertedState
            Of B samples.
        index : Tensor, int64, shape (B',)
            Which, in this order.

        Returns
        -------
        ConvertedState
        """
        if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.ndim != 1:
            raise invalid("index", "be an int64 tensor of shape (B',)", index, "Get it from mask.nonzero()[:, 0].")
        static = {
            name: value.index_select(0, index) if isinstance(value, Tensor) else value
            for name, value in state.static.items()
        }
        memory = {
            name: tuple(value.index_select(0, index) for value in values) for name, values in state.memory.items()
        }
        return ConvertedState(index.numel(), static, memory)

    def _start(self, x: Tensor) -> ConvertedState:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
            advice = "Convert it with x.float(), and give it a batch axis."
            raise invalid("x", "be a floating-point tensor of shape (B, ...)", x, advice, kind=TypeError)
        if self.in_shape is not None:
            check_shape("x", x, ("B", *self.in_shape), advice="The ANN was built for this in_shape = (C, H, W).")
        values: dict[str, Any] = {}
        for op in self._static:
            inputs = [values[name] for name in op.inputs] if op.inputs else [x]
            held = self._held(op)
            # The maximum of what stands still needs no memory.
            values[op.name] = compute(op, inputs, held.pool if op.kind == "max_pool" else held, x.shape[0])
            self._let_go(values, op, self._kept)
        return ConvertedState(x.shape[0], {name: values[name] for name in self._kept}, {})

    def _run(self, state: ConvertedState, n_steps: int) -> Tensor:
        n_rows = n_steps * state.n_samples
        values = dict(state.static)
        for op in self._changing:
            inputs = [values[name] for name in op.inputs]
            if op.kind == "activation":
                (v,) = state.memory.get(op.name, (None,))
                is_static = op.inputs[0] in state.static
                values[op.name], v = self._held(op)(inputs[0], v, n_steps, repeat_input=is_static)
                state.memory[op.name] = (v,)
            elif op.kind == "max_pool":
                values[op.name], state.memory[op.name] = self._held(op)(inputs[0], state.memory.get(op.name), n_steps)
            else:
                at_each_step = [
                    value.repeat(n_steps, *[1] * (value.ndim - 1))
                    if name in state.static and isinstance(value, Tensor)
                    else value
                    for name, value in zip(op.inputs, inputs, strict=True)
                ]
                values[op.name] = compute(op, at_each_step, self._held(op), n_rows)
            self._let_go(values, op)
        return values[self._output].unflatten(0, (n_steps, state.n_samples))

    def _held(self, op: Op) -> nn.Module | Tensor | None:
        if op.module:
            return self.get_submodule(op.module)
        return self.get_buffer(op.buffer) if op.buffer else None

    def _let_go(self, values: dict[str, Any], op: Op, kept: Collection[str] = ()) -> None:
        """Drop the values that nothing reads after this operation: they are the memory that a run needs."""
        for name in set(op.inputs):
            if self._last[name] == op.name and name != self._output and name not in kept:
                del values[name]

    def extra_repr(self) -> str:
        """Show the number of steps."""
        return f"n_steps={self._n_steps}"


def _check_name(owner: nn.Module, part: str, name: str) -> None:
    if hasattr(owner, part):
        raise invalid(
            name,
            "have a name that the converted network does not need itself",
            repr(part),
            "Rename that layer in the ANN.",
        )
