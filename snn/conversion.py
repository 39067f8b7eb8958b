"""From a trained ANN to a spiking network with its weights: fold normalisation, place neurons, set thresholds."""

# T time, B batch, C channels

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_finite, check_int, check_number, check_shape, invalid
from snn.folded import IIR_SURROGATE, FoldedLIF
from snn.models import FoldedNetwork
from snn.surrogate import Surrogate

__all__ = ["calibrate_thresholds", "fold_batchnorm", "to_spiking"]

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batchnorm(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    r"""Return a copy of `model` in which every batch normalisation is part of the layer before it.

    Parameters
    ----------
    model : Module
        Each BatchNorm must come right after a convolution or linear layer of the same parent module.
    x : Tensor, optional
        An input to check the copy with. A `snn.models.FoldedNetwork` is checked without.

    Returns
    -------
    Module
        In evaluation mode; the normalisations have become ``nn.Identity``, the layers before them have a bias.

    Raises
    ------
    ValueError
        If a BatchNorm follows no such layer, keeps no running statistics, or the copy computes something else.

    Notes
    -----
    .. math:: w' = w \gamma / \sqrt{\sigma^2 + \epsilon}, \quad
              b' = (b - \mu) \gamma / \sqrt{\sigma^2 + \epsilon} + \beta
    """
    folded = copy.deepcopy(model).eval()
    for parent_name, parent, name, layer, norm in _normalised_layers(folded):
        if norm.running_var is None:
            advice = "Train it with track_running_stats=True."
            raise invalid(f"{parent_name}{name}", "keep running statistics", "none", advice)
        scale = (norm.running_var + norm.eps).rsqrt()
        shift = -norm.running_mean * scale
        if norm.affine:
            scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
        with torch.no_grad():
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1)))
            bias = shift if layer.bias is None else layer.bias * scale + shift
            layer.bias = nn.Parameter(bias.detach().clone())
        parent.set_submodule(name, nn.Identity())
    if x is None and isinstance(model, FoldedNetwork):
        weight = next(model.parameters())
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((2, *model.in_shape), generator=generator).to(weight)
    if x is not None and not x.is_meta:
        _check_same(model, folded, x)
    return folded


def _normalised_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Module, nn.Module]]:
    """Yield (parent's name, parent, name, layer, norm) for each BatchNorm; the order of registration pairs them."""
    for parent_name, parent in list(model.named_modules()):
        prefix = f"{parent_name}." if parent_name else ""
        before: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, _NORMS):
                n_channels = getattr(before, "out_channels", getattr(before, "out_features", None))
                if not isinstance(before, _WEIGHTED) or n_channels != child.num_features:
                    advice = "Only such a BatchNorm can be folded; move it, or remove it and retrain."
                    came = "no layer before it" if before is None else f"a {type(before).__name__} before it"
                    raise invalid(f"{prefix}{name}", "come right after a convolution or linear layer", came, advice)
                yield prefix, parent, name, before, child
            before = child


def _check_same(model: nn.Module, folded: nn.Module, x: Tensor) -> None:
    was_training = model.training
    with torch.no_grad():
        want, have = model.eval()(x), folded(x)
    model.train(was_training)
    error = (have - want).abs().max().item()
    if not error <= 1e-3 * max(1e-3, want.abs().max().item()):
        raise invalid(
            "model",
            "compute the same with its normalisations folded",
            f"a largest difference of {error:.2g}",
            "Its BatchNorms are not called in the order they are registered; register each right after its layer.",
        )


def to_spiking(
    ann: FoldedNetwork,
    n_steps: int,
    *,
    v_threshold: float = 1.0,
    leak: float = 1.0,
    surrogate: Surrogate = IIR_SURROGATE,
    backend: str = "auto",
) -> FoldedNetwork:
    """Return a spiking copy of `ann`: normalisation folded, every activation a `FoldedLIF`, the same weights.

    Parameters
    ----------
    ann : FoldedNetwork
        A network of `snn.models`, or one of your own on the same base.
    n_steps : int
        Number of time steps T.
    v_threshold, leak : float
        Where each layer's threshold and leak start; `calibrate_thresholds` sets the thresholds from data.
    surrogate : Surrogate
        Surrogate gradient of the neurons.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Returns
    -------
    FoldedNetwork
        On the device of `ann`, in evaluation mode.
    """
    if not isinstance(ann, FoldedNetwork):
        advice = "Build it with snn.models.vgg or resnet, or subclass snn.models.FoldedNetwork."
        raise invalid("ann", "be a snn.models.FoldedNetwork", ann, advice, kind=TypeError)
    model = fold_batchnorm(ann)
    place = next(model.parameters())
    for name in model.activation_names:
        neuron = FoldedLIF(
            repeat_input=name == model.first_activation,
            v_threshold=v_threshold,
            leak=leak,
            surrogate=surrogate,
            backend=backend,
        )
        model.set_submodule(name, neuron.to(place))
    model.n_steps = n_steps
    return model.eval()


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
