"""`as_stepper`: the adapter that fits a network."""

# T time steps, B samples, K classes

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from neuroloaders.checks import invalid
from snn.models.base import FoldedNetwork
from snn.models.delay_mlp import DelayMLP
from snn.stepping.delay_mlp import DelayMLPStepper
from snn.stepping.folded import FoldedStepper
from snn.stepping.functions import FunctionStepper, ReplayStepper
from snn.stepping.inputs import INPUTS
from snn.stepping.modules import ModuleStepper, keeps_state
from snn.stepping.protocol import Stepper

__all__ = ["STEPPERS", "as_stepper"]


class Known(NamedTuple):
    """A kind of network: what it is, how it is told, what makes a stepper of it, the one input it can have, options."""

    what: str
    fits: Callable[[Any], bool]
    make: Callable[..., Stepper]
    inputs: str | None
    options: tuple[str, ...] = ()


# name -> kind; the first that fits.
STEPPERS: dict[str, Known] = {
    "stepper": Known("an object with start, run and keep", lambda m: isinstance(m, Stepper), lambda m: m, None),
    "logits": Known("recorded logits [T, B, K]", lambda m: isinstance(m, Tensor), ReplayStepper, None),
    "folded": Known(
        "a snn.models.FoldedNetwork of FoldedLIF neurons",
        lambda m: isinstance(m, FoldedNetwork),
        FoldedStepper,
        "static",
    ),
    "delay_mlp": Known("a snn.models.DelayMLP", lambda m: isinstance(m, DelayMLP), DelayMLPStepper, "sequence"),
    "modules": Known(
        "a network of spikingjelly's neurons, of snntorch's with init_hidden=True, or of snn.LIF, PLIF, IF and delays",
        keeps_state,
        ModuleStepper,
        None,
        ("inputs", "step_mode", "output", "first_once"),
    ),
    "function": Known(
        "a function step(x, state) -> (logits, state)",
        lambda m: callable(m) and not isinstance(m, nn.Module),
        FunctionStepper,
        None,
        ("inputs", "batch_axis"),
    ),
}


def as_stepper(
    model: Any,
    *,
    inputs: str | None = None,
    step_mode: str | None = None,
    output: int | None = None,
    batch_axis: int | None = None,
    first_once: bool = False,
) -> Stepper:
    """Make a network one that is run some steps at a time, with samples leaving the batch.

    Parameters
    ----------
    model : object
        One of `STEPPERS`. It stays as it is, and a module can be used otherwise between two calls; but not from two
        threads at once.
    inputs : {"static", "sequence"}, optional
        Whether `x` in ``start(x)`` is shown at each step, shape (B, ...), or is a sequence, shape (T, B, ...). Needed
        for networks of spiking modules and for functions; of the others it is known.
    step_mode : {"s", "m"}, optional
        How a network of spiking modules is called: once a step, or with [k, B, ...]. By default read off its modules.
    output : int, optional
        Which of several outputs of such a network are the logits.
    batch_axis : int, optional
        Where in the tensors of a function's state the samples lie, by default 0.
    first_once : bool
        Compute what comes before the first neuron of a network of spiking modules once, for a static input. It is
        checked that this changes nothing. `snn.models.FoldedNetwork` does so always.

    Returns
    -------
    Stepper
        See `snn.stepping.Stepper` for what it promises. Of those made here, `inputs` is what they are shown, and
        ``steps_left(state)`` says how many steps a sequence has left; None means that there is no end.

    Raises
    ------
    TypeError, ValueError
        If the model is of no known kind, or an option does not go with it.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from snn import LIF
    >>> network = nn.Sequential(nn.Linear(4, 8), LIF(), nn.Linear(8, 3)).eval()
    >>> stepper = as_stepper(network, inputs="static")
    >>> state = stepper.start(torch.rand(5, 4))
    >>> logits, state = stepper.run(state, 2)
    >>> logits.shape
    torch.Size([2, 5, 3])
    >>> state = stepper.keep(state, torch.tensor([0, 3]))
    >>> stepper.run(state, 1)[0].shape
    torch.Size([1, 2, 3])
    """
    known = next((known for known in STEPPERS.values() if known.fits(model)), None)
    if known is None:
        kinds = "; ".join(known.what for known in STEPPERS.values())
        came = type(model).__name__ if isinstance(model, nn.Module) else model
        advice = "A state of another kind goes into a function step(x, state)."
        raise invalid("model", f"be one of these: {kinds}", came, advice, kind=TypeError)
    given = {
        "inputs": inputs,
        "step_mode": step_mode,
        "output": output,
        "batch_axis": batch_axis,
        "first_once": first_once or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if known.inputs is not None and given.get("inputs") == known.inputs:
        del given["inputs"]
    for name, value in given.items():
        if name not in known.options:
            only = f"be {known.inputs!r}" if name == "inputs" and known.inputs else "be left out"
            raise invalid(name, f"{only} for {known.what}", repr(value))
    if "inputs" in known.options and inputs is None:
        choices = "; ".join(f"{name!r}: {what}" for name, what in INPUTS.items())
        raise invalid("inputs", f"be given for {known.what}", "None", f"Choose {choices}.")
    return known.make(model, **given)
