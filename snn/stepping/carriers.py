"""How each kind of module that remembers is lent a memory from outside, and gives it back.

A network is run with the memory of one group of samples in place, and left as it was: what its modules hold between
two calls belongs to whoever used them before.
"""

# k steps of a block, B samples, D lags, h <= D - 1 steps of history

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from neuroloaders.checks import invalid
from snn import functional
from snn.delays.base import DelayModule
from snn.folded import FoldedLIF
from snn.neurons import IF, LIF, PLIF
from snn.stepping.arrivals import OnTheWay, can_deliver, deliver
from snn.stepping.recent import after_history, are_bits
from snn.stepping.trees import check_rows, keep_rows

__all__ = ["CARRIERS", "Block", "Carrier", "find_carrier"]


@dataclass(slots=True)
class Block:
    """What the network is being run on: so many steps of so many samples."""

    n_steps: int
    n_samples: int


class Carrier:
    """A module that remembers, and how to reach its memory."""

    needs_sequence = False  # whether it is called with [k, B, ...] only

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Return whether `module` is of this kind."""
        raise NotImplementedError

    def fresh(self) -> Any:
        """Return the memory before the first step."""
        raise NotImplementedError

    def save(self) -> Any:
        """Return all that running the module may change."""
        raise NotImplementedError

    def restore(self, saved: Any) -> None:
        """Put back what `save` returned."""
        raise NotImplementedError

    def put(self, memory: Any, block: Block) -> None:
        """Let the module go on from this memory."""
        raise NotImplementedError

    def get(self) -> Any:
        """Return the memory after the module has run."""
        raise NotImplementedError

    def rewind(self) -> None:
        """Hear that the network is about to be called once more on the same memory."""

    def check(self, memory: Any, n_samples: int) -> None:
        """Raise, with the module's name, if the memory has not a row for each sample."""
        check_rows(memory, n_samples, self.name)

    def keep(self, memory: Any, index: Tensor, n_samples: int) -> Any:
        """Return the memory of the samples `index` only."""
        return keep_rows(memory, index, n_samples, self.name)


def _own_tensors(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Tensor) or value is None}


def _restore_own_tensors(module: nn.Module, saved: dict[str, Any]) -> None:
    for name in [name for name, value in vars(module).items() if isinstance(value, Tensor) and name not in saved]:
        del module.__dict__[name]
    module.__dict__.update(saved)


def _set_or_delete(module: nn.Module, name: str, value: Any) -> None:
    module.__dict__.pop(name, None)
    if value is not None:
        module.__dict__[name] = value


class _Memories(Carrier):
    """spikingjelly's: named values in ``_memories``, set back to those in ``_memories_rv``."""

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return isinstance(vars(module).get("_memories"), dict) and isinstance(vars(module).get("_memories_rv"), dict)

    def fresh(self) -> Any:
        return copy.deepcopy(self.module._memories_rv)

    def save(self) -> Any:
        return self.module._memories, _own_tensors(self.module), vars(self.module).get("reset")

    def restore(self, saved: Any) -> None:
        memories, tensors, reset = saved
        _set_or_delete(self.module, "reset", reset)
        self.module.__dict__["_memories"] = memories
        _restore_own_tensors(self.module, tensors)

    def put(self, memory: Any, block: Block) -> None:
        self.module.__dict__["_memories"] = dict(memory)
        self.module.__dict__["reset"] = self._refuse

    def get(self) -> Any:
        return self.module._memories

    def check(self, memory: Any, n_samples: int) -> None:
        # Some compute a sequence as a whole and remember nothing of it: the next block would begin anew.
        if self.forgets(memory):
            advice = "Use single-step mode, functional.set_step_mode(model, 's'), or another neuron."
            raise invalid(self.name, "remember its last steps", f"a {type(self.module).__name__} that does not", advice)
        super().check(memory, n_samples)

    def forgets(self, memory: dict[str, Any]) -> bool:
        """Return whether a memory after a run holds nothing where there should be something."""
        if memory:
            return any(isinstance(value, list) and not value for value in memory.values())
        parts = [part for part in self.module.modules() if part is not self.module and self.fits(part)]
        return getattr(self.module, "step_mode", "s") == "m" and not parts

    def _refuse(self) -> None:
        advice = "Leave resetting to whoever runs the network."
        raise invalid("model", "not reset its neurons in forward", f"a reset of `{self.name}`", advice)


class _Hidden(Carrier):
    """snntorch's with ``init_hidden=True``: buffers that are not saved with the weights."""

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return isinstance(getattr(module, "init_hidden", None), bool)

    def _names(self) -> list[str]:
        return sorted(self.module._non_persistent_buffers_set)

    def fresh(self) -> Any:
        if not self._names() or not hasattr(self.module, "reset_mem"):
            advice = "Use a neuron that runs one step a call, or write a function step(x, state)."
            raise invalid(self.name, "keep its state in buffers between calls", type(self.module).__name__, advice)
        saved = self.save()
        try:
            self.module.reset_mem()
            after = dict(self.module._buffers)
        finally:
            self.restore(saved)
        # A tensor without elements: the neuron makes zeros of the input's shape and dtype of it.
        return {name: None if after[name] is None else after[name].new_zeros(0) for name in self._names()}

    def save(self) -> Any:
        return {name: self.module._buffers[name] for name in self._names()}, _own_tensors(self.module)

    def restore(self, saved: Any) -> None:
        buffers, tensors = saved
        self.module._buffers.update(buffers)
        _restore_own_tensors(self.module, tensors)

    def put(self, memory: Any, block: Block) -> None:
        self.module._buffers.update(memory)

    def get(self) -> Any:
        return {name: self.module._buffers[name] for name in self._names()}


class _Ours(Carrier):
    """Ours keep nothing between calls: while the network runs, `forward` goes on from the memory instead.

    A module that the network calls several times has a memory for each call: called on whole sequences, it would begin
    anew each time.
    """

    needs_sequence = True

    def fresh(self) -> list:
        return []

    def save(self) -> Any:
        return vars(self.module).get("forward")

    def restore(self, saved: Any) -> None:
        _set_or_delete(self.module, "forward", saved)

    def put(self, memory: list, block: Block) -> None:
        self.block, self.memory, self.calls = block, list(memory), 0
        self.module.__dict__["forward"] = self._forward

    def get(self) -> list:
        memory, self.memory = self.memory, []
        return memory

    def rewind(self) -> None:
        self.calls = 0

    def _forward(self, x: Tensor, *state: Any, **named: Any) -> Any:
        if state or named:  # one step whose state the network carries by itself
            return type(self.module).forward(self.module, x, *state, **named)
        before = self.memory[self.calls] if self.calls < len(self.memory) else None
        y, after = self._go_on(x, before)
        self.memory[self.calls : self.calls + 1] = [after]
        self.calls += 1
        return y

    def _go_on(self, x: Tensor, before: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError


class _Neuron(_Ours):
    """`snn.LIF` and its kind, on [k, B, ...]: the membranes."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__(name, module)
        if type(module).forward is not LIF.forward:
            advice = "What another one remembers is not known: write a function step(x, state)."
            raise invalid(name or "model", "have the forward of snn's neurons", type(module).__name__, advice)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return isinstance(module, IF | LIF | PLIF)

    def _go_on(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.module._run(x, before)


class _History(NamedTuple):
    """The last inputs of a layer with delays, shape (h, B, ...), and whether they are 0 or 1 as far as is known."""

    x: Tensor
    are_bits: bool


class _Delays(_Ours):
    """`snn.DelayLinear` and its kind, on [k, B, ...]: the last inputs, at most D - 1 steps, or what is on its way.

    Any layer can be run on history and block together; what it gives for the history is left away. Whole-step delays
    on the CPU know two quicker ways: as bits, for many samples, and as what is on its way, for few steps. The second
    has no way back; but the number of samples only falls.
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return isinstance(module, DelayModule)

    def _go_on(self, x: Tensor, before: _History | OnTheWay | None) -> tuple[Tensor, _History | OnTheWay]:
        layer, few = self.module, self._few_steps(x)
        if isinstance(before, OnTheWay):
            return deliver(layer, x, before)
        history, known_bits = (None, True) if before is None else before
        quick = can_deliver(layer, x)
        bits = quick and known_bits and are_bits(layer, x)
        if quick and few and not bits:
            on_the_way = None if history is None else deliver(layer, history, None)[1]
            return deliver(layer, x, on_the_way)
        whole = x if history is None else torch.cat([history, x])
        if bits and (few or history is not None):
            y = after_history(layer, history, x)
        else:
            y = type(layer).forward(layer, whole)[len(whole) - len(x) :]
        n_kept = min(layer.max_delay - 1, len(whole))
        after = whole[len(whole) - n_kept :]
        # Copied where it is the caller's own tensor, or would hold a long block in memory.
        own = history is not None and len(whole) <= 2 * n_kept
        return y, _History(after if own else after.clone(), bits)

    def _few_steps(self, x: Tensor) -> bool:
        # Measured: 256 to 256 neurons, 25 lags, a tenth of them spiking. From 16 samples on, whole sequences are so
        # quick that a quarter of the history is worth it.
        return len(x) * (1 if x.shape[1] < 16 else 4) < self.module.max_delay

    def check(self, memory: list, n_samples: int) -> None:
        for i, one in enumerate(memory):
            self._rows(one, lambda rows, axis, i=i: check_rows(rows, n_samples, f"{self.name}[{i}]", axis))

    def keep(self, memory: list, index: Tensor, n_samples: int) -> list:
        return [self._rows(one, lambda x, axis: keep_rows(x, index, n_samples, self.name, axis)) for one in memory]

    @staticmethod
    def _rows(one: _History | OnTheWay, function: Callable[[Tensor, int], Any]) -> Any:
        if isinstance(one, OnTheWay):  # its synapses are of no sample
            return one._replace(ring=function(one.ring, 0))
        return one._replace(x=function(one.x, 1))


class _Folded(_Ours):
    """`snn.FoldedLIF`, on (k * B, ...): the membranes."""

    @staticmethod
    def fits(module: nn.Module) -> bool:
        return isinstance(module, FoldedLIF) and type(module).forward is FoldedLIF.forward

    def _go_on(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        # As FoldedLIF has it: a channels-last image is taken as it lies, with its membranes.
        last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        if last:
            x = x.permute(0, 2, 3, 1)
            before = None if before is None else before.permute(0, 2, 3, 1)
        n_steps = self.block.n_steps if self.module.repeat_input else None
        spikes, v = functional.lif(
            x if self.module.repeat_input else x.unflatten(0, (self.block.n_steps, self.block.n_samples)),
            before,
            leak=self.module.leak,
            v_threshold=self.module.v_threshold,
            v_reset=None,
            compare="gt",
            surrogate=self.module.surrogate,
            n_steps=n_steps,
            backend=self.module.backend,
        )
        spikes = spikes.flatten(0, 1)
        return (spikes.permute(0, 3, 1, 2), v.permute(0, 3, 1, 2)) if last else (spikes, v)


# name -> kind; the first that fits.
CARRIERS: dict[str, type[Carrier]] = {
    "spikingjelly": _Memories,
    "snntorch": _Hidden,
    "snn neuron": _Neuron,
    "snn delay": _Delays,
    "folded": _Folded,
}


def find_carrier(name: str, module: nn.Module, kinds: tuple[str, ...]) -> Carrier | None:
    """Return the carrier of a module that remembers, or None if it is of none of the `kinds`."""
    makers: list[Callable[..., Carrier]] = [CARRIERS[kind] for kind in kinds if CARRIERS[kind].fits(module)]
    return makers[0](name, module) if makers else None
