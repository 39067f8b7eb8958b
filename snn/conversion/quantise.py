"""Prepare a network for conversion: QCFS in place of every ReLU, to be trained a little more."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_finite, check_int, check_number, invalid
from snn.conversion.convert import activation_limits
from snn.conversion.modules import leaf_base
from snn.conversion.qcfs import QCFS
from snn.conversion.reading import read_network
from snn.conversion.refusals import refuse

__all__ = ["quantise_activations"]

_AVERAGES = {nn.MaxPool1d: nn.AvgPool1d, nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}


def quantise_activations(
    ann: nn.Module,
    levels: int = 8,
    x: Tensor | None = None,
    *,
    threshold: float = 8.0,
    percentile: float = 99.0,
    average_pools: bool = False,
) -> nn.Module:
    """Return a copy of `ann` with a QCFS in place of every ReLU, for quantisation-aware training by `snn.fit`.

    Parameters
    ----------
    ann : Module
        A network that `snn.conversion.ann_to_snn` can convert, with activations that are modules. Activations that
        are QCFS already stay.
    levels : int
        Number of steps L of each; also the number of time steps at which the spiking network is meant to answer.
    x : Tensor, shape (B, C, H, W), optional
        Some hundred training images, from which the thresholds come.
    threshold : float
        Threshold of every layer without `x`; 8 in the code of Bu et al. 2022, for networks trained from the start.
    percentile : float
        With `x`: the threshold is this percentile of the ReLU's values; 100 for the maximum. Training moves it, but a
        high one leaves most values below the first level, and spikes that come late.
    average_pools : bool
        Also put average pooling in place of max pooling, which changes what the network computes before it is
        trained again. Max pooling of spikes is exact at the last step, but has a memory of its own.

    Returns
    -------
    Module
        In the mode of `ann`, on its device, with the names and weights of its layers.

    Raises
    ------
    ValueError
        If the network cannot be converted, or has a ReLU that is a function or a module that is called twice: it
        has no place to put a threshold.
    TypeError
        If `ann` is no module.

    Examples
    --------
    >>> import torch
    >>> ann = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> quantise_activations(ann, levels=4)[1]
    QCFS(levels=4, threshold=8)
    """
    check_int("levels", levels, at_least=1)
    check_number("threshold", threshold, above=0)
    check_number("percentile", percentile, above=0, at_most=100)
    plan = read_network(ann)
    named = dict(ann.named_modules())
    rectified = [op.name for op in plan.activations() if not isinstance(plan.modules[op.module], QCFS)]
    for name in rectified:
        if leaf_base(named.get(name)) is None:
            advice = f"Make it a module: self.{name.rpartition('.')[2]} = nn.ReLU() where the network is built."
            why = "as a function, or of one module for a second time, which can hold no threshold of its own"
            raise refuse(name.rpartition(".")[0], "relu", why, advice)
    limits: dict[str, float] = {}
    place = next(ann.parameters(), torch.empty(0))
    if x is not None:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not x.shape[0]:
            raise invalid("x", "be a floating-point tensor with at least one sample, shape (B, ...)", x)
        with torch.no_grad():
            limits = activation_limits(plan, check_finite("x", x).to(place), percentile)
    model = copy.deepcopy(ann)
    for name in rectified:
        activation = QCFS(levels, limits.get(name, threshold)).to(place)
        model.set_submodule(name, activation.train(named[name].training))
    if average_pools:
        for op in plan.ops:
            if op.kind == "max_pool":
                model.set_submodule(op.module, _average(op.module, named.get(op.module), plan.modules[op.module]))
    return model


def _average(name: str, own: nn.Module | None, pool: nn.Module) -> nn.Module:
    """Return the average pooling over the same neighbours; `own` is None where the ANN calls a function."""
    kind = _AVERAGES.get(leaf_base(pool))
    if own is None or kind is None or pool.dilation not in (1, (1,) * 2, (1,) * 3):
        raise refuse(name, pool, "that no average pooling can replace", "Make it nn.MaxPool2d without dilation.")
    options = {"ceil_mode": pool.ceil_mode, "count_include_pad": False}
    return kind(pool.kernel_size, pool.stride, pool.padding, **options).train(own.training)
