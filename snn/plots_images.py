"""Pictures made of images: what networks saw, what they said, and where the first neurons fired."""

# N images, C channels, H W image

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_option, check_same_length, check_shape, invalid
from snn.models import FoldedNetwork
from snn.plots_base import ANN, DIRECT, WIDTH, own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sample_predictions", "spike_maps"]

# In the units of these pictures an image is 1 wide.
_GAP, _LINE = 0.08, 0.155


def sample_predictions(
    images: Tensor,
    labels: Sequence[int] | Tensor,
    predictions: Mapping[str, Sequence[int] | Tensor],
    classes: Sequence[str],
    *,
    n_images: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Draw images with their label and what networks said, mistakes first.

    Parameters
    ----------
    images : Tensor, shape (N, 1 or 3, H, W)
        Bytes, or floating point in [0, 1].
    labels : sequence of int, length N
        True classes.
    predictions : mapping of str to sequence of int, length N
        Name of a network -> the classes it chose. Wrong ones are marked.
    classes : sequence of str
        Class names.
    n_images : int
        How many at most.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    check_shape("images", images, ("N", "C", "H", "W"))
    check_option("images.shape[1]", images.shape[1], [1, 3])
    check_same_length(images=images, labels=labels, **predictions)
    labels = torch.as_tensor(labels).cpu()
    chosen = {name: torch.as_tensor(classes_of).cpu() for name, classes_of in predictions.items()}
    n_wrong = torch.stack([found != labels for found in chosen.values()]).sum(0)
    order = torch.argsort(n_wrong, descending=True, stable=True)[: check_int("n_images", n_images, at_least=1)]
    columns = min(4, len(order))
    lines = 0.16 * (1 + len(chosen)) + 0.06
    ax = own_axes(ax, (1.12 + lines) * -(-len(order) // columns) + 0.1)
    tall = 1 + lines / 1.12
    for k, number in enumerate(order.tolist()):
        row, column = divmod(k, columns)
        x, y = 1.06 * column, -row * tall
        _show(ax, images[number], (x, x + 1, y - 1, y))
        texts = [(f"is {classes[labels[number]]}", "black")]
        for name, found in chosen.items():
            wrong = found[number] != labels[number]
            text = f"{name}: {classes[found[number]]}" + (" ✗" if wrong else "")
            texts.append((text, DIRECT if wrong else ANN))
        for line, (text, colour) in enumerate(texts):
            at = (x + 0.5, y - 1.02 - line * 0.16 / 1.12)
            ax.annotate(text, at, ha="center", va="top", fontsize=8, color=colour, annotation_clip=False)
    return _picture(ax, 1.06 * columns - 0.06, -(-len(order) // columns) * tall)


def spike_maps(model: FoldedNetwork, x: Tensor, *, n_maps: int = 32, ax: Axes | None = None) -> Axes:
    """Draw an image, and beside it the spikes of the first layer: dark where a neuron fired.

    Parameters
    ----------
    model : FoldedNetwork
        A spiking network; of more than one step, the mean over the steps is drawn.
    x : Tensor, shape (C, H, W)
        The input as the network sees it, C = 1 or 3; drawn between its least and largest value.
    n_maps : int
        How many channels at most, the first ones.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    check_shape("x", x, model.in_shape)
    check_option("x.shape[0]", x.shape[0], [1, 3])
    found: list[Tensor] = []
    first = model.get_submodule(model.first_activation)
    handle = first.register_forward_hook(lambda module, args, output: found.append(output))
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(x[None].to(next(model.parameters())))
    finally:
        handle.remove()
        model.train(was_training)
    maps = found[0].mean(0).float().cpu()[: check_int("n_maps", n_maps, at_least=1)]
    columns = min(len(maps), 8)
    rows = -(-len(maps) // columns)
    side = 1.08  # of a map, with the gap to the next
    width = columns * side - 0.08 + 3.4
    height = max(rows * side - 0.08, 3)
    ax = own_axes(ax, WIDTH * height / width + 0.4)
    low, high = x.min(), x.max()
    _show(ax, (x - low) / (high - low).clamp(min=1e-12), (0, 3, -3, 0))
    for k, one in enumerate(maps):
        row, column = divmod(k, columns)
        x0, y0 = 3.4 + column * side, -row * side
        ax.imshow(one, extent=(x0, x0 + 1, y0 - 1, y0), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        _frame(ax, x0, y0, 1)
    ax.annotate("input", (1.5, -3.06), ha="center", va="top", fontsize=8.5, annotation_clip=False)
    title = f"spikes of {model.first_activation}, channels 1 to {len(maps)} of {found[0].shape[1]}"
    ax.set_title(title, fontsize=9, loc="right")
    return _picture(ax, width, height)


def _show(ax: Axes, image: Tensor, x: float, y: float, size: float = 1.0) -> None:
    """Draw an image (C, H, W) with its upper left corner at (x, y)."""
    pixels = image.detach().float().cpu() / (255 if image.dtype == torch.uint8 else 1)
    place = {"extent": (x, x + size, y - size, y), "interpolation": "nearest"}
    if pixels.shape[0] == 1:
        ax.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, **place)
    else:
        ax.imshow(pixels.permute(1, 2, 0).clamp(0, 1), **place)


def _picture(ax: Axes, width: float, height: float) -> Axes:
    """Fit the axes, without scales, to what was drawn from (0, 0) to the right and down."""
    ax.set(xlim=(0, width), ylim=(-height, 0), aspect="equal")
    ax.axis("off")
    return ax
