"""Networks whose modules keep the state: of spikingjelly, of snntorch with hidden states, and chains of ours."""

# T time steps, k steps of a call, B samples, K classes

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_option, invalid
from snn.delays.base import DelayModule
from snn.folded import Compare, FoldedLIF
from snn.stepping.carriers import Block
from snn.stepping.inputs import INPUTS, Shown
from snn.stepping.lending import Loan, carriers_of, kept, lend, no_other_memory
from snn.stepping.prefix import Prefix, current_before, given_current
from snn.stepping.protocol import RunState, check_evaluation, check_index, check_logits, check_state, check_steps

__all__ = ["STEP_MODES", "ModuleStepper", "keeps_state"]

STEP_MODES = {
    "s": "the network is called once a step, with (B, ...)",
    "m": "the network is called with a sequence of steps, [k, B, ...]",
}
_KINDS = ("spikingjelly", "snntorch", "snn neuron", "snn delay")
# What looks across time or mixes it with the batch, and would begin anew at each call.
_REFUSED = {
    nn.RNNBase: "It begins anew at each call; write a function step(x, state).",
    nn.RNNCellBase: "Its state is passed by hand; write a function step(x, state).",
    FoldedLIF: "Time folded into the batch is known of snn.models.FoldedNetwork only.",
    Compare: "It is a neuron of one step, and has no second one.",
}


def keeps_state(model: Any) -> bool:
    """Return whether a module in `model` keeps its state where `ModuleStepper` finds it."""
    return isinstance(model, nn.Module) and bool(carriers_of(model, _KINDS))


@dataclass(slots=True, kw_only=True)
class _State(RunState):
    """The input, what the modules remember, and K and the dtype of the logits once they are known.

    `current` is the first neuron's input, shape (B, ...), where it is computed once.
    """

    shown: Shown
    memories: dict[str, Any]
    n_classes: int | None = None
    dtype: torch.dtype | None = None
    current: Tensor | None = None
    prefix: Prefix | None = None


class ModuleStepper:
    """Run a network whose modules keep the state, with the state outside.

    Parameters
    ----------
    model : Module
        A network with spikingjelly's neurons (or any module with its ``_memories``), with snntorch's neurons and
        ``init_hidden=True``, or with ours. It gives logits of each step, and treats each step by itself outside of
        those modules.
    inputs : str
        A key of `INPUTS`.
    step_mode : str, optional
        A key of `STEP_MODES`: how the network is called. By default read off its modules.
    output : int, optional
        Which of several outputs are the logits; for snntorch's ``output=True``, 0 are the spikes and -1 the membrane.
    first_once : bool
        Compute what comes before the first neuron once, in `start`. For static inputs, where it is the same at each
        step; that it is is checked on two steps, and that nothing else needs it at each call.

    Notes
    -----
    Modules are told by what they have, not by where they come from: spikingjelly's by ``_memories`` and
    ``_memories_rv`` (version 2.0), snntorch's by ``init_hidden`` and their unsaved buffers (version 1.0). While the
    network runs they hold the memory of the samples in question; afterwards they hold what they held before. A network
    that resets its own neurons in ``forward``, or whose state lies elsewhere, is an error as far as it shows.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        inputs: str,
        step_mode: str | None = None,
        output: int | None = None,
        first_once: bool = False,
    ) -> None:
        self.model, self.output, self.first_once = model, output, first_once
        self.inputs = check_option("inputs", inputs, INPUTS)
        if output is not None:
            check_int("output", output)
        if first_once and inputs != "static":
            raise invalid("first_once", "be False for a sequence", "True", "Its steps differ.")
        self.carriers = carriers_of(model, _KINDS)
        if not self.carriers:
            raise invalid("model", "hold a module that keeps a state", type(model).__name__)
        inside = {id(part) for carrier in self.carriers.values() for part in carrier.module.modules()}
        for name, module in model.named_modules():
            for kind, advice in _REFUSED.items():
                if isinstance(module, kind) and id(module) not in inside:
                    raise invalid(name or "model", "be a module that can be run step by step", module, advice)
        self.step_mode = _read_step_mode(model) if step_mode is None else step_mode
        check_option("step_mode", self.step_mode, STEP_MODES)
        for name, carrier in self.carriers.items():
            if self.step_mode == "s" and carrier.needs_sequence:
                raise invalid("step_mode", f"be 'm' with `{name}`, which runs on sequences", "'s'")

    @torch.no_grad()
    def start(self, x: Tensor) -> _State:
        """Return the state before the first step of `x`, shape (B, ...), or (T, B, ...) if it is a sequence."""
        check_evaluation(self.model)
        shown = Shown(x, self.inputs)
        fresh = {name: carrier.fresh() for name, carrier in self.carriers.items()}
        state = _State(owner=self, n_samples=shown.n_samples, shown=shown, memories=fresh)
        if self.first_once:
            self._compute_first(state)
        return state

    @torch.no_grad()
    def run(self, state: _State, n_steps: int) -> tuple[Tensor, _State]:
        """Return logits of the next steps, shape (n_steps, B, K), and the state after them."""
        check_state(state, self)
        check_evaluation(self.model)
        check_steps(n_steps, state.shown.left(state.age))
        state.spent = True
        after = dataclasses.replace(state, age=state.age + n_steps, spent=False)
        if state.n_samples == 0 and state.n_classes is not None:
            return state.shown.x.new_zeros((n_steps, 0, state.n_classes), dtype=state.dtype), after
        x = state.shown.block(state.age, n_steps)
        watched = no_other_memory(self.model, self.carriers) if state.age == 0 else nullcontext()
        with watched, lend(self.carriers, state.memories, Block(n_steps, state.n_samples)) as loan:
            logits = self._logits(x, loan) if state.current is None else self._logits_from(state, x, loan)
            after.memories = loan.memories()
        logits = check_logits(logits, n_steps, state.n_samples)
        after.n_classes, after.dtype = logits.shape[2], logits.dtype
        return logits, after

    @torch.no_grad()
    def keep(self, state: _State, index: Tensor) -> _State:
        """Return a state of the samples `index` only."""
        check_state(state, self)
        check_index(index, state.n_samples)
        after = dataclasses.replace(state, n_samples=len(index), shown=state.shown.keep(index))
        if state.age:
            after.memories = kept(self.carriers, state.memories, index, state.n_samples)
        else:  # what every sample begins with, and anew, as modules may fill a list in place
            after.memories = {name: carrier.fresh() for name, carrier in self.carriers.items()}
        if state.current is not None:
            after.current = state.current.index_select(0, index.to(state.current.device))
        return after

    def steps_left(self, state: _State) -> int | None:
        """Return how many steps the sequence has left; None for a static input, which has no end."""
        check_state(state, self)
        return state.shown.left(state.age)

    def _logits(self, x: Tensor, loan: Loan, prefix: Prefix | None = None) -> Tensor:
        if self.step_mode == "m":
            return self._pick(self.model(x))
        steps = []
        for one in x:
            loan.rewind()
            if prefix is not None:
                prefix.over = False
            steps.append(self._pick(self.model(one)))
        return torch.stack(steps)

    def _logits_from(self, state: _State, x: Tensor, loan: Loan) -> Tensor:
        current = state.current if self.step_mode == "s" else state.current.expand(len(x), *state.current.shape)
        with given_current(self.model, state.prefix, current):
            return self._logits(torch.empty_like(x, device="meta"), loan, state.prefix)

    def _pick(self, output: Any) -> Any:
        if self.output is None:
            if isinstance(output, tuple | list):
                advice = "Say which of them are the logits: output=0, or output=-1 for snntorch's membrane."
                raise invalid("output", f"be given for a network with {len(output)} outputs", "None", advice)
            if not isinstance(output, Tensor):
                raise invalid("model", "give a tensor of logits", output, kind=TypeError)
            return output
        if not isinstance(output, tuple | list) or not -len(output) <= self.output < len(output):
            raise invalid("output", "be the number of one of the network's outputs", f"{self.output}")
        return output[self.output]

    def _compute_first(self, state: _State) -> None:
        """Fill in the first neuron's current, if it is the same at two steps."""
        x = state.shown.block(0, 2)
        currents = []
        for x_in in [x] if self.step_mode == "m" else x:
            with lend(self.carriers, state.memories, Block(2, state.n_samples)):
                found = current_before(self.model, self.carriers, lambda x_in=x_in: self.model(x_in))
            currents.append(found[0])
        first, second = currents if self.step_mode == "s" else currents[0][:2]
        if not torch.equal(first, second):
            advice = "Its layers depend on the step, or draw random numbers: leave `first_once` at False."
            raise invalid(
                "model", "give its first neuron the same at each step", "another current at the second", advice
            )
        state.prefix, state.current = found[1], first.clone()


def _read_step_mode(model: nn.Module) -> str:
    """Return how the outermost modules that know say that they are called."""
    modes = set()
    waiting = [model]
    while waiting:
        module = waiting.pop()
        supported = getattr(module, "supported_step_mode", tuple)()
        mode = getattr(module, "step_mode", None) or (supported[0] if len(supported) == 1 else None)
        mode = "m" if isinstance(module, DelayModule) else mode
        if mode in STEP_MODES:
            modes.add(mode)
        else:
            waiting += module.children()
    if len(modes) > 1:
        advice = "Call spikingjelly's set_step_mode, or pass step_mode= to say how the network is called."
        raise invalid("model", "hold modules of one step mode", "both 's' and 'm'", advice)
    return modes.pop() if modes else "s"
