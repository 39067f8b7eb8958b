"""Networks with delays, some steps at a time: each layer goes on from its last inputs, and hears the tail out."""

# T time steps of the input, k steps of a call, B samples, C channels, K classes, D lags

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroloaders.checks import check_shape, invalid
from snn.models.delay_mlp import DelayMLP
from snn.sequence import check_n_steps, leaky_integrate
from snn.stepping.carriers import Block
from snn.stepping.inputs import Shown
from snn.stepping.lending import carriers_of, kept, lend
from snn.stepping.protocol import RunState, check_evaluation, check_index, check_state, check_steps

__all__ = ["DelayMLPStepper"]


@dataclass(slots=True, kw_only=True)
class _State(RunState):
    """Input and lengths of the samples, memories of layers and neurons, and the readout's membranes, (B, K) or None."""

    shown: Shown
    lengths: Tensor | None
    memories: dict[str, Any]
    v: Tensor | None = None


class DelayMLPStepper:
    """Run a `snn.models.DelayMLP` on sequences.

    Parameters
    ----------
    model : DelayMLP
        The network; it is left as it is.

    Notes
    -----
    Logits are the readout's membranes, those of `DelayMLP.step_logits`, for T steps and the tail. Layers of whole-step
    delays on the CPU have ways of their own to run few steps; all others are run on their last D - 1 inputs once more
    at each call. Either way many steps a call are quicker than few.
    """

    inputs = "sequence"

    def __init__(self, model: DelayMLP) -> None:
        self.model = model
        self.carriers = carriers_of(model, ("snn neuron", "snn delay"))
        for kind, modules in (("layers", model.layers), ("neurons", model.neurons)):
            for index, module in enumerate(modules):
                name = f"{kind}.{index}"
                if name not in self.carriers and not (kind == "layers" and isinstance(module, nn.Linear)):
                    required = "be a delay layer or torch.nn.Linear" if kind == "layers" else "be one of snn's neurons"
                    raise invalid(name, f"{required} to be run step by step", type(module).__name__)

    @torch.no_grad()
    def start(self, x: Tensor, n_steps: Tensor | None = None) -> _State:
        """Return the state before the first step.

        Parameters
        ----------
        x : Tensor, shape (T, B, C)
            Spikes or counts, padded with zeros at the end.
        n_steps : Tensor of int, shape (B,), optional
            Length of each sample, as in `DelayMLP.forward`.
        """
        check_evaluation(self.model)
        check_shape("x", x, ("T", "B", self.model.layers[0].in_features), advice="Time comes first, channels last.")
        check_n_steps(n_steps, x)
        memories = {name: carrier.fresh() for name, carrier in self.carriers.items()}
        shown = Shown(x, "sequence")
        return _State(owner=self, n_samples=x.shape[1], shown=shown, lengths=n_steps, memories=memories)

    @torch.no_grad()
    def run(self, state: _State, n_steps: int) -> tuple[Tensor, _State]:
        """Return logits of the next steps, shape (n_steps, B, K), and the state after them."""
        check_state(state, self)
        check_evaluation(self.model)
        check_steps(n_steps, self._n_steps(state) - state.age)
        state.spent = True
        after = dataclasses.replace(state, age=state.age + n_steps, spent=False)
        with lend(self.carriers, state.memories, Block(n_steps, state.n_samples)) as loan:
            current = self._currents(state, n_steps)
            after.memories = loan.memories()
        leak = self.model.readout_leak
        v = leaky_integrate(current, leak) if n_steps > 1 else current
        if state.v is not None:
            ages = torch.arange(1, n_steps + 1, dtype=v.dtype, device=v.device)
            v = v + (leak**ages)[:, None, None] * state.v
        after.v = v[-1].clone()
        return v, after

    @torch.no_grad()
    def keep(self, state: _State, index: Tensor) -> _State:
        """Return a state of the samples `index` only."""
        check_state(state, self)
        check_index(index, state.n_samples)
        here = index.to(state.shown.x.device)
        return dataclasses.replace(
            state,
            n_samples=len(index),
            shown=state.shown.keep(index),
            lengths=None if state.lengths is None else state.lengths.index_select(0, index.to(state.lengths.device)),
            memories=kept(self.carriers, state.memories, index, state.n_samples),
            v=None if state.v is None else state.v.index_select(0, here),
        )

    def steps_left(self, state: _State) -> int:
        """Return how many steps are left, the tail included."""
        check_state(state, self)
        return self._n_steps(state) - state.age

    def _n_steps(self, state: _State) -> int:
        return len(state.shown.x) + len(self.model.layers) * self.model.tail_steps

    def _currents(self, state: _State, n_steps: int) -> Tensor:
        """Return what reaches the readout at the next steps, shape (k, B, K)."""
        model = self.model
        x = state.shown.block(state.age, n_steps)
        masks = state.lengths is not None and model.mask_padding
        for index, layer in enumerate(model.layers):
            # Layer by layer the sequence is longer by the tail; what comes after its end is silence.
            end = len(state.shown.x) + (index + 1) * model.tail_steps
            n_here = min(max(end - state.age, 0), n_steps)
            if n_here == 0:
                x = x.new_zeros((0, state.n_samples, layer.out_features))
                continue
            x = layer(F.pad(x, (0, 0, 0, 0, 0, n_here - len(x))) if n_here > len(x) else x)
            if index == len(model.norms):
                break
            valid = None
            if masks:
                ends = state.lengths + (index + 1) * model.tail_steps
                valid = torch.arange(state.age, state.age + n_here, device=ends.device)[:, None] < ends
            x = model.norms[index](x, valid)
            x = model.dropouts[index](model.neurons[index](x))
        return x
