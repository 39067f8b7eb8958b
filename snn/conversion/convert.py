"""From an ANN to spikes: thresholds from QCFS layers or from data, weights as they are."""

# T time steps, B batch, L levels

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_finite, check_int, check_number, invalid
from snn.conversion.heights import put_heights_into_weights
from snn.conversion.network import ConvertedNetwork
from snn.conversion.neurons import ConvertedIF, RunningMaxPool
from snn.conversion.norms import fold_norms
from snn.conversion.plan import Op, Plan, run_ann
from snn.conversion.qcfs import QCFS
from snn.conversion.reading import read_network
from snn.surrogate import Surrogate

__all__ = ["activation_limits", "ann_to_snn", "percentile_of"]


def ann_to_snn(
    model: nn.Module,
    x: Tensor | None = None,
    *,
    n_steps: int | None = None,
    percentile: float = 99.9,
    start: float = 0.5,
    surrogate: str | Surrogate = "atan",
    backend: str = "auto",
) -> ConvertedNetwork:
    r"""Convert a trained network with ReLU or QCFS activations into a spiking network with the same weights.

    Parameters
    ----------
    model : Module
        Convolutions, linear layers, batch normalisation, average and max pooling, ReLU and QCFS (ReLU as a function
        too), flattening, dropout, sums of branches, concatenation. It is left as it is.
    x : Tensor, shape (B, C, H, W), optional
        Some hundred training images, from which the thresholds of ReLU layers come. For QCFS layers not needed; where
        it is given, the network that was read is checked with it.
    n_steps : int, optional
        Number of time steps T; by default the levels of the QCFS layers (the most, if they differ).
    percentile : float
        For ReLU layers: the threshold is this percentile of the layer's activations on `x`; 100 for the maximum.
        Above the threshold a neuron can give no more, and below 100 a few large activations do not make the spikes of
        all others rare.
    start : float
        Membrane before the first step, in units of the threshold.
    surrogate : str or Surrogate
        Surrogate gradient, for training with spikes afterwards.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Returns
    -------
    ConvertedNetwork
        On the device of `model`, in evaluation mode. Its logits are summed over time.

    Raises
    ------
    ValueError
        For the first module or function that spikes cannot compute, with its name and what to use instead; if `x` or
        `n_steps` is needed and missing; if a threshold is not positive; or if the network that was read computes
        something else than `model`.
    TypeError
        If `model` is no module.

    Notes
    -----
    Each activation becomes integrate-and-fire neurons with soft reset whose membrane starts at half the threshold
    (Bu et al. 2022 [1]_). Fed a constant current, they give at T = L exactly what QCFS with L levels gives. In deeper
    layers spikes come unevenly in time, which is an error that shrinks as T grows: see `conversion_errors`.
    Thresholds of ReLU layers are the percentiles of Rueckauer et al. 2017 [2]_; their weights are normalised in place
    of the thresholds, which is the same network. Batch normalisation becomes part of the layer before it. Max pooling
    passes on what the largest sum of spikes has grown by, see `RunningMaxPool`.

    References
    ----------
    .. [1] Bu et al., Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks,
       ICLR 2022, arXiv:2303.04347.
    .. [2] Rueckauer et al., Frontiers in Neuroscience 11 (2017), doi:10.3389/fnins.2017.00682.

    Examples
    --------
    >>> import torch
    >>> ann = nn.Sequential(nn.Linear(2, 3), QCFS(levels=4, threshold=1.0), nn.Linear(3, 2))
    >>> network = ann_to_snn(ann)
    >>> network.n_steps, network(torch.zeros(5, 2)).shape
    (4, torch.Size([5, 2]))
    """
    check_number("percentile", percentile, above=0, at_most=100)
    if n_steps is not None:
        check_int("n_steps", n_steps, at_least=1)
    plan = read_network(model)
    activations = plan.activations()
    if not activations:
        raise invalid("model", "have activations", f"a {type(model).__name__} without", "Neurons take their place.")
    levels = [plan.modules[op.module].levels for op in activations if isinstance(plan.modules[op.module], QCFS)]
    rectified = [op.name for op in activations if not isinstance(plan.modules[op.module], QCFS)]
    if n_steps is None and not levels:
        advice = "Pass n_steps=64, say, or train with QCFS activations, whose levels it would be."
        raise invalid("n_steps", "be given for a network with ReLU activations", "nothing", advice)
    x = _example(model, plan, x, rectified)
    with torch.no_grad():
        if x is not None:
            # Before any weight is changed: operation by operation it is the same, so that no rounding differs.
            _check_same(model, plan, x)
        fold_norms(plan)
        limits = activation_limits(plan, x, percentile) if rectified else {}
    thresholds = {op.name: _threshold(op, plan.modules[op.module], limits) for op in activations}
    put_heights_into_weights(plan, thresholds)
    place = next(model.parameters(), torch.empty(0) if x is None else x)
    for op in plan.ops:
        if op.kind == "activation":
            neuron = ConvertedIF(thresholds[op.name], start=start, surrogate=surrogate, backend=backend).to(place)
            # Once more, now that it has the precision of the network.
            neuron.v_threshold.fill_(thresholds[op.name])
            plan.modules[op.module] = neuron
        elif op.kind == "max_pool" and not isinstance(plan.modules[op.module], RunningMaxPool):
            plan.modules[op.module] = RunningMaxPool(plan.modules[op.module])
    network = ConvertedNetwork(plan, n_steps=max(levels) if n_steps is None else n_steps)
    return network.to(place.device).eval()


def _example(model: nn.Module, plan: Plan, x: Tensor | None, rectified: list[str]) -> Tensor | None:
    """Return an input beside the model: that of the user, or for a network that tells its input's shape any."""
    place = next(model.parameters(), None)
    if x is not None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not x.shape[0]:
            raise invalid("x", "be a floating-point tensor with at least one sample, shape (B, ...)", x)
        check_finite("x", x)
        return x if place is None else x.to(place)
    if rectified:
        raise invalid(
            "x",
            "be given: the thresholds of ReLU layers come from their activations",
            f"nothing for {len(rectified)} of them, the first `{rectified[0]}`",
            "Pass some hundred training images, or train with QCFS activations (snn.conversion.quantise_activations).",
        )
    if plan.in_shape is None or place is None or place.is_meta:
        return None
    return torch.rand((2, *plan.in_shape), generator=torch.Generator().manual_seed(0)).to(place)


def _check_same(model: nn.Module, plan: Plan, x: Tensor) -> None:
    """Raise if the plan computes something else than the model: something in it was not seen."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        want = model.eval()(x[:64])
    finally:
        for module, mode in modes:
            module.training = mode
    have = run_ann(plan, x[:64])
    error = (have - want).abs().max().item() if have.shape == want.shape else math.inf
    if not error <= 1e-3 * max(1e-3, want.abs().max().item()):
        raise invalid(
            "model",
            "compute the same as the operations that were read from it",
            f"a largest difference of {error:.2g}",
            "Look for hooks that change values, and for values that are changed in place.",
        )


def percentile_of(values: Tensor, percentile: float) -> float:
    """Return the percentile of all values, that of the nearest rank."""
    flat = values.flatten()
    if percentile == 100 or flat.numel() == 1:
        return flat.max().item()
    return flat.kthvalue(1 + round(0.01 * percentile * (flat.numel() - 1))).values.item()


def activation_limits(plan: Plan, x: Tensor, percentile: float) -> dict[str, float]:
    """Return the percentile of every ReLU's activations on `x`, by name; with a warning for one that is silent."""
    limits: dict[str, float] = {}

    def look(op: Op, _: Tensor, activation: Tensor) -> None:
        if not isinstance(plan.modules[op.module], QCFS):
            limits[op.name] = percentile_of(activation, percentile)

    run_ann(plan, x, look)
    for name, limit in limits.items():
        if not limit > 0:
            limits[name] = 1.0
            warnings.warn(
                f"The activation `{name}` is silent: percentile {percentile:g} of its values on `x` is {limit:g}. "
                "Its threshold is set to 1. Pass more of the training images, or a higher percentile.",
                stacklevel=3,
            )
    return limits


def _threshold(op: Op, module: nn.Module, limits: dict[str, float]) -> float:
    if not isinstance(module, QCFS):
        return limits[op.name]
    advice = "It was lost in training: lower the learning rate, or start from a larger threshold."
    return check_number(f"{op.name}.threshold", module.threshold.item(), above=0, advice=advice)
