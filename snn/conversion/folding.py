"""Fold each batch normalisation into the layer before it, by the order of registration."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from neuroloaders.checks import invalid
from snn.models import FoldedNetwork

__all__ = ["fold_batchnorm", "fold_into"]

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
        fold_into(layer, norm)
        parent.set_submodule(name, nn.Identity())
    if x is None and isinstance(model, FoldedNetwork):
        weight = next(model.parameters())
        generator = torch.Generator().manual_seed(0)
        x = torch.rand((2, *model.in_shape), generator=generator).to(weight)
    if x is not None and not x.is_meta:
        _check_same(model, folded, x)
    return folded


@torch.no_grad()
def fold_into(layer: nn.Module, norm: nn.Module) -> None:
    """Make a batch normalisation in evaluation mode part of the convolution or linear layer before it, in place."""
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    # A new parameter: another layer may share the old one.
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    bias = shift if layer.bias is None else layer.bias * scale + shift
    layer.bias = nn.Parameter(bias.detach().clone())


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
