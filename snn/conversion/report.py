"""Where a conversion loses: each layer's activations in the ANN against those that its spikes stand for."""

# T time steps, B samples, K classes

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_finite, check_int, invalid
from snn.conversion.network import ConvertedNetwork
from snn.conversion.plan import Op, run_ann
from snn.conversion.reading import read_network

__all__ = ["ConversionReport", "LayerError", "conversion_errors"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerError:
    """One layer of neurons against the activation that it replaces.

    Attributes
    ----------
    name : str
        As in the ANN.
    threshold : float
        What a spike at each step stands for, in units of the activation.
    ann_mean : float
        Mean activation in the ANN.
    snn_mean : float
        Mean of threshold x spikes / T.
    mean_absolute_error : float
        Mean distance between the two, value by value.
    relative_error : float
        The same divided by `ann_mean`; NaN if that is 0.
    correlation : float
        Pearson's, over all values; NaN if one of them is constant.
    clipped : float
        Share of the ANN's currents above the threshold, which no spike rate can follow.
    spike_rate : float
        Spikes per neuron and inference, summed over T.
    """

    name: str
    threshold: float
    ann_mean: float
    snn_mean: float
    mean_absolute_error: float
    relative_error: float
    correlation: float
    clipped: float
    spike_rate: float


@dataclass(frozen=True, kw_only=True, repr=False)
class ConversionReport:
    """A conversion layer by layer, in the order in which the layers run. Printing it shows a table.

    Attributes
    ----------
    layers : tuple of LayerError
        Layers of neurons.
    logits_error : float
        Mean distance between the ANN's logits and those of the spiking network divided by T.
    relative_logits_error : float
        The same divided by the mean absolute logit of the ANN.
    agreement : float
        Share of samples with the same label (largest logit).
    n_steps, n_samples : int
        T, and the samples compared.
    """

    layers: tuple[LayerError, ...]
    logits_error: float
    relative_logits_error: float
    agreement: float
    n_steps: int
    n_samples: int

    @property
    def worst(self) -> LayerError:
        """The layer with the largest relative error, of those that have one."""
        return max(self.layers, key=lambda layer: -1 if math.isnan(layer.relative_error) else layer.relative_error)

    def table(self) -> list[dict[str, str | float]]:
        """Return one dict per layer: the fields of :class:`LayerError`."""
        return [dataclasses.asdict(layer) for layer in self.layers]

    def __repr__(self) -> str:
        rows = [["layer", "threshold", "ANN mean", "SNN mean", "mean error", "relative", "corr.", "clipped", "spikes"]]
        for layer in self.layers:
            name, *numbers = dataclasses.astuple(layer)
            rows.append([name, *(f"{number:.4g}" for number in numbers)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines += [
            f"Logits: mean error {self.logits_error:.4g}, {self.relative_logits_error:.2%} of their mean size; "
            f"same label in {self.agreement:.2%} of {self.n_samples} samples at T = {self.n_steps}",
            f"Largest error for its size: {self.worst.name}, {self.worst.relative_error:.2%}",
        ]
        return "\n".join(lines)


class _Sums:
    """Sums over the values of one layer, in float64: they are differences of large numbers in the end."""

    def __init__(self) -> None:
        self.count = 0
        self.clipped = self.spikes = self.error = 0.0
        self.ann = self.snn = self.ann_squared = self.snn_squared = self.product = 0.0

    def add(self, ann: Tensor, snn: Tensor, spikes: float, clipped: float) -> None:
        a, s = ann.double().flatten(), snn.double().flatten()
        self.count += a.numel()
        self.clipped += clipped
        self.spikes += spikes
        self.error += (a - s).abs().sum().item()
        self.ann += a.sum().item()
        self.snn += s.sum().item()
        self.ann_squared += a.dot(a).item()
        self.snn_squared += s.dot(s).item()
        self.product += a.dot(s).item()

    def result(self, name: str, threshold: float) -> LayerError:
        n = self.count
        covariance = self.product - self.ann * self.snn / n
        variances = (self.ann_squared - self.ann**2 / n) * (self.snn_squared - self.snn**2 / n)
        # What is left of equal numbers after rounding is no variance.
        varies = variances > (1e-12 * self.ann_squared) * self.snn_squared
        return LayerError(
            name=name,
            threshold=threshold,
            ann_mean=self.ann / n,
            snn_mean=self.snn / n,
            mean_absolute_error=self.error / n,
            relative_error=self.error / self.ann if self.ann else math.nan,
            correlation=covariance / math.sqrt(variances) if varies else math.nan,
            clipped=self.clipped / n,
            spike_rate=self.spikes / n,
        )


@torch.no_grad()
def conversion_errors(
    ann: nn.Module, snn: ConvertedNetwork, x: Tensor, n_steps: int | None = None, *, batch_size: int = 64
) -> ConversionReport:
    r"""Compare a spiking network with the ANN that it was made from, layer by layer.

    Parameters
    ----------
    ann : Module
        With ReLU or QCFS activations. It may be another one than `snn` was made from, such as the ReLU network before
        quantisation, as long as its activations have the same names.
    snn : ConvertedNetwork
        From `ann_to_snn`.
    x : Tensor, shape (B, C, H, W)
        Samples.
    n_steps : int, optional
        T; by default that of `snn`, which is left as it is.
    batch_size : int
        Samples in memory at a time.

    Returns
    -------
    ConversionReport

    Raises
    ------
    ValueError
        If the activations of the two have different names, or there are no samples.
    TypeError
        If `snn` was not made by `ann_to_snn`.

    Notes
    -----
    The activation y of the ANN is compared with :math:`\theta \sum_t s_t / T`, so that errors of earlier layers are in
    those of later ones: look for the first layer at which they jump. A large share of clipped currents asks for a
    larger threshold, a small error that falls with T for more steps, and one that does not for another
    ANN: train it with QCFS.
    """
    if not isinstance(snn, ConvertedNetwork):
        raise invalid("snn", "be a ConvertedNetwork", snn, "Make it with snn.conversion.ann_to_snn.", kind=TypeError)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not x.shape[0]:
        raise invalid("x", "be a floating-point tensor with at least one sample, shape (B, ...)", x)
    check_finite("x", x)
    check_int("batch_size", batch_size, at_least=1)
    n_steps = snn.n_steps if n_steps is None else check_int("n_steps", n_steps, at_least=1)
    plan, thresholds = read_network(ann), snn.thresholds
    names = [op.name for op in plan.activations()]
    if set(names) != set(thresholds):
        odd = sorted(set(names) ^ set(thresholds))[0]
        raise invalid("ann", "have the activations of `snn`", f"`{odd}` in only one of them")
    place = next(ann.parameters(), x)
    sums = {name: _Sums() for name in names}
    seen: dict[str, tuple[Tensor, float]] = {}
    logits_error = logits_size = same = 0.0
    n_logits = 0

    def look(op: Op, current: Tensor, activation: Tensor) -> None:
        clipped = (current > thresholds[op.name]).sum().item()
        seen[op.name] = (activation, clipped)

    own_steps, handles = snn.n_steps, []
    try:
        for name in names:
            hook = _spike_hook(name, thresholds[name], n_steps, seen, sums)
            handles.append(snn.get_submodule(name).register_forward_hook(hook))
        snn.n_steps = n_steps
        for batch in x.split(batch_size):
            batch = batch.to(place)
            want = run_ann(plan, batch, look)
            have = snn(batch) / n_steps
            logits_error += (have - want).abs().sum(dtype=torch.float64).item()
            logits_size += want.abs().sum(dtype=torch.float64).item()
            n_logits += want.numel()
            agrees = have.argmax(1) == want.argmax(1)
            same += agrees.reshape(batch.shape[0], -1).all(1).sum().item()
    finally:
        snn.n_steps = own_steps
        for handle in handles:
            handle.remove()
    return ConversionReport(
        layers=tuple(sums[name].result(name, thresholds[name]) for name in names),
        logits_error=logits_error / n_logits,
        relative_logits_error=logits_error / logits_size if logits_size else math.nan,
        agreement=same / x.shape[0],
        n_steps=n_steps,
        n_samples=x.shape[0],
    )


def _spike_hook(
    name: str, threshold: float, n_steps: int, seen: dict[str, tuple[Tensor, float]], sums: dict[str, _Sums]
) -> Callable[..., None]:
    """Return a hook that compares a layer's spikes with the activation just seen in the ANN, and forgets that."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        activation, clipped = seen.pop(name)
        counts = output[0].unflatten(0, (n_steps, -1)).sum(0)
        spikes = counts.sum(dtype=torch.float64).item()
        sums[name].add(activation, counts * (threshold / n_steps), spikes, clipped)

    return hook
