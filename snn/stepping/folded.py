"""Networks whose time is folded into the batch: the first layers once, the others on as many steps as a call asks."""

# k steps of a call, B samples, C H W image, K classes

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import check_shape, invalid
from snn.models.base import FoldedNetwork
from snn.stepping.carriers import Block
from snn.stepping.lending import carriers_of, kept, lend
from snn.stepping.prefix import Prefix, current_before, given_current
from snn.stepping.protocol import RunState, check_evaluation, check_index, check_logits, check_state, check_steps

__all__ = ["FoldedStepper"]


@dataclass(slots=True, kw_only=True)
class _State(RunState):
    """The current of the first neuron, shape (B, ...), the layers it came from, and the membranes of all neurons."""

    current: Tensor
    prefix: Prefix
    memories: dict[str, Any]


class FoldedStepper:
    """Run a `snn.models.FoldedNetwork` of `snn.FoldedLIF` neurons on static images.

    Parameters
    ----------
    model : FoldedNetwork
        A network from `snn.to_spiking` or `snn.TemporalPruning`. Its `n_steps` plays no part, and it is left as it is;
        between two calls it may be used otherwise.

    Notes
    -----
    What comes before the first neuron runs in `start`, once. In `run` the layers see k * B rows in one call, and the
    neurons k steps in one kernel.
    """

    inputs = "static"

    def __init__(self, model: FoldedNetwork) -> None:
        self.model = model
        self.carriers = carriers_of(model, ("folded",))
        for name in model.activation_names:
            if name not in self.carriers:
                other = type(model.get_submodule(name)).__name__
                raise invalid(name, "be a FoldedLIF neuron", other, "Make the network spiking with snn.to_spiking.")

    @torch.no_grad()
    def start(self, x: Tensor) -> _State:
        """Return the state of images `x`, shape (B, C, H, W), before their first step."""
        check_evaluation(self.model)
        check_shape("x", x, ("B", *self.model.in_shape), advice="The network was built for this in_shape = (C, H, W).")
        first = self.model.first_activation
        fresh = {name: carrier.fresh() for name, carrier in self.carriers.items()}
        with lend(self.carriers, fresh, Block(1, len(x))):
            current, prefix = current_before(self.model, self.carriers, lambda: self.model._rows(x))
        if prefix.first != first:
            raise invalid("model", f"run `{first}` first, as `first_activation` says", f"`{prefix.first}`")
        return _State(owner=self, n_samples=len(x), current=current, prefix=prefix, memories=fresh)

    @torch.no_grad()
    def run(self, state: _State, n_steps: int) -> tuple[Tensor, _State]:
        """Return logits of the next steps, shape (n_steps, B, K), and the state after them."""
        check_state(state, self)
        check_evaluation(self.model)
        check_steps(n_steps, None)
        state.spent = True
        n_samples, n_classes, current = state.n_samples, self.model.n_classes, state.current
        after = dataclasses.replace(state, age=state.age + n_steps, spent=False)
        if n_samples == 0:
            return current.new_zeros((n_steps, 0, n_classes)), after
        image = torch.empty((n_samples, *self.model.in_shape), dtype=current.dtype, device="meta")
        with (
            lend(self.carriers, state.memories, Block(n_steps, n_samples)) as loan,
            given_current(self.model, state.prefix, current),
        ):
            rows = self.model._rows(image)
            after.memories = loan.memories()
        return check_logits(rows.reshape(n_steps, n_samples, n_classes), n_steps, n_samples), after

    @torch.no_grad()
    def keep(self, state: _State, index: Tensor) -> _State:
        """Return a state of the samples `index` only."""
        check_state(state, self)
        check_index(index, state.n_samples)
        return dataclasses.replace(
            state,
            n_samples=len(index),
            current=state.current.index_select(0, index.to(state.current.device)),
            memories=kept(self.carriers, state.memories, index, state.n_samples),
        )

    def steps_left(self, state: _State) -> None:
        """Return None: an image can be looked at without end."""
        check_state(state, self)
