"""The contract of steppers: a network that answers over time, run some steps at a time, with its state outside.

Whoever holds the state can look at the answer so far, let samples leave the batch, and go on with the rest.
"""

# T time steps, n_steps steps of one call, B samples, K classes

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_shape, invalid

__all__ = [
    "RunState",
    "State",
    "Stepper",
    "check_evaluation",
    "check_index",
    "check_logits",
    "check_state",
    "check_steps",
]

# What a stepper makes of a network between two calls. Only that stepper looks into it.
State = Any


@runtime_checkable
class Stepper(Protocol):
    """A network that is run some steps at a time.

    Notes
    -----
    Laws, whatever the network: steps in pieces of any size are the steps of one run; and samples that are kept go on as
    if they had been alone. They hold exactly for spikes and labels, and for logits up to the rounding of sums whose
    order depends on the size of the batch.

    All three run in evaluation mode and without gradients. The input `x` must stay as it is while a state made of it is
    in use.
    """

    def start(self, x: Tensor) -> State:
        """Return the state of the samples `x` before their first step."""
        ...

    def run(self, state: State, n_steps: int) -> tuple[Tensor, State]:
        """Run the next steps; return logits, shape (n_steps, B, K), not summed over time, and the state after them.

        The state passed in is used up.
        """
        ...

    def keep(self, state: State, index: Tensor) -> State:
        """Return a state of the samples `index` only, int64 of shape (B',), in that order."""
        ...


@dataclass(slots=True, kw_only=True)
class RunState:
    """What all states of this package know.

    Attributes
    ----------
    owner : Stepper
        Who made it, and alone can read it.
    n_samples : int
        B.
    age : int
        Steps that were run.
    spent : bool
        Whether it was handed to `run`, and so may have been written over.
    """

    owner: Any
    n_samples: int
    age: int = 0
    spent: bool = False


def check_state(state: Any, owner: Any) -> None:
    """Raise unless `state` is the latest one of this stepper."""
    if not isinstance(state, RunState) or state.owner is not owner:
        raise invalid("state", "be what `start`, `run` or `keep` of this stepper returned", state, kind=TypeError)
    if state.spent:
        raise invalid("state", "be the latest one", "one that was run on already", "Go on with what `run` returned.")


def check_steps(n_steps: Any, left: int | None) -> int:
    """Return `n_steps` if it is a whole number from 1 to `left`, the steps that a sequence still has."""
    check_int("n_steps", n_steps, at_least=1)
    if left is not None and n_steps > left:
        raise invalid("n_steps", f"be at most {left}, the steps that the sequence has left", f"{n_steps}")
    return int(n_steps)


def check_index(index: Any, n_samples: int) -> Tensor:
    """Return `index` if it is int64 of shape (B',) and names samples in 0..n_samples - 1."""
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.ndim != 1:
        raise invalid("index", "be an int64 tensor of shape (B',)", index, "From a mask: mask.nonzero()[:, 0].")
    # Looked at on the CPU only, where nobody has to wait for it.
    if index.device.type == "cpu" and index.numel():
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= n_samples:
            raise invalid("index", f"name samples in 0..{n_samples - 1}", f"{low}..{high}")
    return index


def check_evaluation(model: nn.Module) -> None:
    """Raise if `model` or a part of it is in training mode, where normalisation and dropout look at the batch."""
    for name, module in model.named_modules():
        if module.training:
            where = f"`{name}` in training mode" if name else "training mode"
            raise invalid("model", "be in evaluation mode to run step by step", where, "Call model.eval().")


def check_logits(logits: Any, n_steps: int, n_samples: int) -> Tensor:
    """Return what a network gave if it is logits of every step, shape (n_steps, B, K)."""
    advice = "Return the logits of each step, not summed over time; `output=` picks one of several outputs."
    check_shape("the output of the model", logits, (n_steps, n_samples, "K"), advice=advice)
    if logits.is_meta:
        raise invalid("model", "answer by its neurons", "logits of what comes before the first of them")
    return logits
