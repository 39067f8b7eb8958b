"""A model as early exit sees it: a stepper, the axis that samples are along, and where batches go."""

# T time steps, N samples, K classes

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_option, check_same_length, check_shape, invalid
from snn.early_exit.running import Replay

if TYPE_CHECKING:
    from snn.stepping.protocol import Stepper

__all__ = ["SAMPLE_AXIS", "Adapted", "Network", "check_labels", "stepper_of"]

# What a network is shown (a key of `snn.stepping.INPUTS`) -> the axis of `x` that samples are along.
SAMPLE_AXIS = {"static": 0, "sequence": 1}


@dataclass(frozen=True, slots=True)
class Network:
    """A stepper that is ready for `x`.

    Attributes
    ----------
    stepper : Stepper
        The model, run step by step.
    batch_axis : int
        Axis of `x` that samples are along.
    device : torch.device or None
        Where batches are moved; None leaves them where they are.
    n_samples : int
        N.
    """

    stepper: Stepper
    batch_axis: int
    device: torch.device | None
    n_samples: int

    @classmethod
    def open(
        cls,
        adapted: Adapted,
        model: Any,
        x: Tensor,
        n_steps: int,
        inputs: str | None,
        device: str | torch.device | None,
    ) -> Network:
        """Check that `x` fits a stepper.

        Parameters
        ----------
        adapted : Adapted
            From `stepper_of`.
        model, inputs, device
            As for `DynamicConfidence`.
        x : Tensor
            N samples, or logits of each step without a model.
        n_steps : int
            T.

        Returns
        -------
        Network
        """
        if not isinstance(x, Tensor):
            raise invalid("x", "be a tensor", x, "Convert it with torch.as_tensor(x).", kind=TypeError)
        if model is None:
            advice = f"Without a model, pass the logits of each of the T = {n_steps} steps, not summed over time."
            check_shape("x", x, (n_steps, "B", "K"), advice=advice)
        stepper, known = adapted
        axis = SAMPLE_AXIS[check_option("inputs", inputs or known or "static", SAMPLE_AXIS)]
        if x.ndim <= axis:
            shape = "(T, B, ...)" if axis else "(B, ...)"
            raise invalid("x", f"have shape {shape}", f"{tuple(x.shape)}")
        if device is None and isinstance(model, nn.Module):
            first = next(itertools.chain(model.parameters(), model.buffers()), None)
            device = None if first is None else first.device
        if device is None:
            device = getattr(stepper, "device", None)
        return cls(stepper, axis, None if device is None else torch.device(device), x.shape[axis])


class Adapted(NamedTuple):
    """A stepper, and what it is shown, "static" or "sequence", as far as either says."""

    stepper: Stepper
    inputs: str | None


def stepper_of(model: Any, inputs: str | None) -> Adapted:
    """Find the stepper of a model.

    Parameters
    ----------
    model, inputs
        As for `DynamicConfidence`.

    Returns
    -------
    Adapted
    """
    if model is None:
        adapted = Adapted(Replay(), "sequence")
    elif all(callable(getattr(model, name, None)) for name in ("start", "run", "keep")):
        adapted = Adapted(model, getattr(model, "inputs", None))
    else:
        from snn.stepping import STEPPERS, as_stepper

        stepper = as_stepper(model, inputs=inputs)
        kind = next((kind for kind in STEPPERS.values() if kind.fits(model)), None)
        adapted = Adapted(stepper, getattr(stepper, "inputs", None if kind is None else kind.inputs))
    if inputs is not None and adapted.inputs is not None and inputs != adapted.inputs:
        raise invalid("inputs", f"be {adapted.inputs!r} for this model, or left out", repr(inputs))
    return adapted


def check_labels(y: Tensor, n_samples: int, n_classes: int | None = None) -> Tensor:
    """Return classes as int64 on the CPU.

    Parameters
    ----------
    y : Tensor, shape (N,), integer
        What came.
    n_samples : int
        N, at least 1.
    n_classes : int, optional
        K, where it is known.

    Returns
    -------
    Tensor, shape (N,), int64
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        advice = "Convert it with torch.as_tensor(y)."
        raise invalid("y", "be an integer tensor of classes", y, advice, kind=TypeError)
    check_shape("y", y, ("N",), advice="One class a sample.")
    if n_samples == 0:
        raise invalid("x", "have at least one sample", "none")
    check_same_length(y=y, x=range(n_samples))
    low, high = int(y.min()), int(y.max())
    if low < 0 or (n_classes is not None and high >= n_classes):
        known = "from 0 on" if n_classes is None else f"0..{n_classes - 1}, as there are {n_classes} logits"
        raise invalid("y", f"hold classes {known}", f"{low}..{high}")
    return y.detach().long().cpu()
