"""Functions of one step, as loops over time are written by hand, and recorded logits."""

# T time steps, B samples, K classes, N recorded samples

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_option, check_shape, invalid
from snn.stepping.inputs import INPUTS, Shown
from snn.stepping.protocol import RunState, check_evaluation, check_index, check_logits, check_state, check_steps
from snn.stepping.trees import check_rows, keep_rows

__all__ = ["FunctionStepper", "ReplayStepper"]


@dataclass(slots=True, kw_only=True)
class _State(RunState):
    """The input, what the function returned as its state, and K and the dtype of the logits once they are known."""

    shown: Shown
    inner: Any = None
    n_classes: int | None = None
    dtype: torch.dtype | None = None


class FunctionStepper:
    """Run a function ``step(x, state) -> (logits, state)``, once a step.

    Parameters
    ----------
    step : callable
        Gets the input of one step, shape (B, ...), and what it returned as the state before, None at first. Returns
        logits, shape (B, K), and its state: tensors in lists, tuples, dictionaries or dataclasses, nested as it likes,
        each with a row for each sample. It must keep nothing elsewhere.
    inputs : str
        A key of `INPUTS`.
    batch_axis : int
        Where in the tensors of the state the samples lie.

    Notes
    -----
    Numbers, None and tensors without axes in the state are shared by all samples. If `step` is a method of a module, or
    a module, that must be in evaluation mode; of what else a function uses nothing is known.
    """

    def __init__(self, step: Callable[[Tensor, Any], tuple[Tensor, Any]], *, inputs: str, batch_axis: int = 0) -> None:
        if not callable(step):
            raise invalid("step", "be a function step(x, state)", step, kind=TypeError)
        self.step, self.inputs = step, check_option("inputs", inputs, INPUTS)
        self.batch_axis = check_int("batch_axis", batch_axis)

    @torch.no_grad()
    def start(self, x: Tensor) -> _State:
        """Return the state before the first step of `x`, shape (B, ...), or (T, B, ...) if it is a sequence."""
        self._check_mode()
        shown = Shown(x, self.inputs)
        return _State(owner=self, n_samples=shown.n_samples, shown=shown)

    @torch.no_grad()
    def run(self, state: _State, n_steps: int) -> tuple[Tensor, _State]:
        """Return logits of the next steps, shape (n_steps, B, K), and the state after them."""
        check_state(state, self)
        self._check_mode()
        check_steps(n_steps, state.shown.left(state.age))
        state.spent = True
        after = dataclasses.replace(state, age=state.age + n_steps, spent=False)
        if state.n_samples == 0 and state.n_classes is not None:
            return state.shown.x.new_zeros((n_steps, 0, state.n_classes), dtype=state.dtype), after
        steps, inner = [], state.inner
        for x in state.shown.block(state.age, n_steps):
            answer = self.step(x, inner)
            if not isinstance(answer, tuple | list) or len(answer) != 2 or not isinstance(answer[0], Tensor):
                raise invalid("step", "return logits and a state", answer, kind=TypeError)
            logits, inner = answer
            steps.append(check_logits(logits[None], 1, state.n_samples)[0])
        check_rows(inner, state.n_samples, "state", self.batch_axis)
        after.inner, after.n_classes, after.dtype = inner, steps[0].shape[1], steps[0].dtype
        return torch.stack(steps), after

    @torch.no_grad()
    def keep(self, state: _State, index: Tensor) -> _State:
        """Return a state of the samples `index` only."""
        check_state(state, self)
        check_index(index, state.n_samples)
        inner = keep_rows(state.inner, index, state.n_samples, "state", self.batch_axis)
        return dataclasses.replace(state, n_samples=len(index), shown=state.shown.keep(index), inner=inner)

    def steps_left(self, state: _State) -> int | None:
        """Return how many steps the sequence has left; None for a static input, which has no end."""
        check_state(state, self)
        return state.shown.left(state.age)

    def _check_mode(self) -> None:
        owner = getattr(self.step, "__self__", self.step)
        if isinstance(owner, nn.Module):
            check_evaluation(owner)


@dataclass(slots=True, kw_only=True)
class _Place(RunState):
    """Which recorded samples are left."""

    rows: Tensor


class ReplayStepper:
    """Replay the logits of a run that was recorded, to try rules of stopping without the network.

    Parameters
    ----------
    logits : Tensor, shape (T, N, K)
        Logits of every step, not summed over time.
    """

    inputs = "static"  # the numbers of samples, shape (B,)

    def __init__(self, logits: Tensor) -> None:
        self.logits = check_shape("logits", logits, ("T", "N", "K"), advice="One row a step and sample, not summed.")

    def start(self, x: Tensor | None = None) -> _Place:
        """Return the state of the recorded samples with the numbers `x`, int64, shape (B,); of all if it is None."""
        n_recorded = self.logits.shape[1]
        if x is None:
            rows = torch.arange(n_recorded, device=self.logits.device)
        elif isinstance(x, Tensor) and x.dtype == torch.int64 and x.ndim == 1:
            rows = check_index(x, n_recorded).to(self.logits.device)
        else:
            raise invalid("x", "be the numbers of recorded samples, int64 of shape (B,), or None for all of them", x)
        return _Place(owner=self, n_samples=len(rows), rows=rows)

    @torch.no_grad()
    def run(self, state: _Place, n_steps: int) -> tuple[Tensor, _Place]:
        """Return logits of the next steps, shape (n_steps, B, K), and the state after them."""
        check_state(state, self)
        check_steps(n_steps, len(self.logits) - state.age)
        state.spent = True
        after = dataclasses.replace(state, age=state.age + n_steps, spent=False)
        return self.logits[state.age : after.age].detach().index_select(1, state.rows), after

    def keep(self, state: _Place, index: Tensor) -> _Place:
        """Return a state of the samples `index` only."""
        check_state(state, self)
        rows = state.rows.index_select(0, check_index(index, state.n_samples).to(state.rows.device))
        return dataclasses.replace(state, n_samples=len(rows), rows=rows)

    def steps_left(self, state: _Place) -> int:
        """Return how many steps of the recording are left."""
        check_state(state, self)
        return len(self.logits) - state.age
