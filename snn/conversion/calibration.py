"""Set the threshold of every spiking layer from the currents that it receives, first layer first."""

# T time, B batch, C channels

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuroloaders.checks import check_finite, check_int, check_number, check_shape, invalid
from snn.folded import FoldedLIF
from snn.models import FoldedNetwork

__all__ = ["calibrate_thresholds"]


class _EnoughError(Exception):
    """The layer of interest has been reached; the rest of the forward pass is not needed."""


@torch.no_grad()
def calibrate_thresholds(
    model: FoldedNetwork,
    x: Tensor,
    percentile: float = 90.0,
    *,
    n_steps: int | None = None,
    scale: float = 1.0,
    layers: tuple[str, ...] | None = None,
) -> dict[str, float]:
    """Set the threshold of each spiking layer from the currents it receives, first layer first, in place.

    Parameters
    ----------
    model : FoldedNetwork
        A spiking network from `to_spiking`.
    x : Tensor, shape (B, C, H, W)
        Training images; the authors take one batch of 512.
    percentile : float
        Of the currents of the whole layer and batch, negative ones too, at each step; the threshold is the largest
        of the steps.
    n_steps : int, optional
        Steps to look at; by default those of the model. The authors look at 500 (VGG) or 2000 (ResNet) steps, which
        needs 100 times the memory of 5.
    scale : float
        Factor on each threshold. 1 in IIR-SNN, below 1 in DIET-SNN.
    layers : tuple of str, optional
        Names of the neurons to calibrate; all by default. The authors calibrate only the three layers before the
        residual blocks of their ResNet.

    Returns
    -------
    dict
        Name of the neuron -> threshold.

    Notes
    -----
    A layer's currents depend on the thresholds before it, so the network is run once per layer, up to that layer. A
    threshold that comes out as zero or below would make every neuron spike; it becomes 0.1, as in the authors' code.
    """
    check_number("percentile", percentile, at_least=0, at_most=100)
    check_number("scale", scale, above=0)
    check_finite("x", check_shape("x", x, ("B", *model.in_shape)))
    neurons = {name: module for name, module in model.named_modules() if isinstance(module, FoldedLIF)}
    if not neurons:
        raise invalid("model", "have spiking layers", type(model).__name__, "Convert it with snn.to_spiking first.")
    unknown = [name for name in layers or () if name not in neurons]
    if unknown:
        raise invalid("layers", f"name neurons of the model ({', '.join(neurons)})", repr(unknown[0]))
    was_training, steps = model.training, model.n_steps
    model.eval()
    model.n_steps = steps if n_steps is None else check_int("n_steps", n_steps, at_least=1)
    thresholds = {}
    try:
        for name in layers or tuple(neurons):
            found: list[float] = []
            handle = neurons[name].register_forward_pre_hook(_percentile_hook(percentile, model.n_steps, found))
            try:
                model(x)
            except _EnoughError:
                pass
            finally:
                handle.remove()
            # The rule of the authors' code for a layer that would otherwise always spike.
            thresholds[name] = scale * found[0] if found[0] > 0 else 0.1
            neurons[name].v_threshold.fill_(thresholds[name])
    finally:
        model.n_steps = steps
        model.train(was_training)
    return thresholds


def _percentile_hook(percentile: float, n_steps: int, found: list[float]) -> Callable[..., None]:
    def hook(module: FoldedLIF, args: tuple[Tensor]) -> None:
        (current,) = args
        steps = current.reshape(1 if module.repeat_input else n_steps, -1)
        rank = 1 + round(0.01 * percentile * (steps.shape[1] - 1))
        found.append(steps.kthvalue(rank, dim=1).values.max().item())
        raise _EnoughError

    return hook
