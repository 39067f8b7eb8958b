"""Pictures made of images: what networks saw, what they said, and where the first neurons fired."""

# N images, C channels, H W image

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_option, check_same_length, check_shape
from snn.models import FoldedNetwork
from snn.plots.base import ANN, DIRECT, WIDTH, own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["sample_predictions", "spike_maps"]

# In the units of these pictures an image is 1 wide.
_GAP = 0.08
# Images side by side, and inches from line to line.
_COLUMNS, _LINE = 4, 0.15


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
    rows = -(-len(order) // _COLUMNS)
    width = _COLUMNS * (1 + _GAP) - _GAP
    # An image, and the room that the lines of text below take at the size of a figure of our own.
    tall = 1 + (_LINE * (1 + len(chosen)) + 0.08) * width / WIDTH
    ax = own_axes(ax, rows * tall * WIDTH / width)
    for k, number in enumerate(order.tolist()):
        x, y = (k % _COLUMNS) * (1 + _GAP), -(k // _COLUMNS) * tall
        _show(ax, images[number], x, y)
        _frame(ax, x, y)
        texts = [(f"is {classes[labels[number]]}", "black")]
        for name, found in chosen.items():
            wrong = bool(found[number] != labels[number])
            texts.append((f"{name}: {classes[found[number]]}{' ✗' if wrong else ''}", DIRECT if wrong else ANN))
        for line, (text, colour) in enumerate(texts):
            below = {"xytext": (0, -2 - 72 * _LINE * line), "textcoords": "offset points"}
            ax.annotate(text, (x + 0.5, y - 1), ha="center", va="top", fontsize=8.5, color=colour, **below)
    return _picture(ax, width, rows * tall)


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
    spikes = found[0].float().mean(0).cpu().numpy()
    n_channels = len(spikes)
    maps = spikes[: check_int("n_maps", n_maps, at_least=1)]
    columns = 8 if len(maps) > 4 else len(maps)
    rows = -(-len(maps) // columns)
    side, left = 1 + _GAP, 3 + 4 * _GAP  # from map to map; where they begin, beside an input three times as large
    width, height = left + columns * side - _GAP, max(rows * side - _GAP, 3)
    ax = own_axes(ax, WIDTH * height / width + 0.2)
    low, high = x.min(), x.max()
    _show(ax, (x - low) / (high - low).clamp(min=1e-12), 0, 0, 3)
    _frame(ax, 0, 0, 3)
    for k, one in enumerate(maps):
        x0, y0 = left + (k % columns) * side, -(k // columns) * side
        ax.imshow(one, extent=(x0, x0 + 1, y0 - 1, y0), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        _frame(ax, x0, y0)
    ax.set_title("input", fontsize=8.5, loc="left")
    shown = f"all {len(maps)}" if len(maps) == n_channels else f"{len(maps)} of {n_channels}"
    ax.set_title(f"spikes of {model.first_activation}, {shown} channels", fontsize=8.5, loc="right")
    return _picture(ax, width, height)


def _show(ax: Axes, image: Tensor, x: float, y: float, size: float = 1.0) -> None:
    """Draw an image (C, H, W) with its upper left corner at (x, y)."""
    pixels = image.detach().float().cpu().numpy() / (255 if image.dtype == torch.uint8 else 1)
    place = {"extent": (x, x + size, y - size, y), "interpolation": "nearest"}
    if pixels.shape[0] == 1:
        ax.imshow(pixels[0], cmap="gray", vmin=0, vmax=1, **place)
    else:
        ax.imshow(pixels.transpose(1, 2, 0).clip(0, 1), **place)


def _frame(ax: Axes, x: float, y: float, size: float = 1.0) -> None:
    corners = ([x, x + size, x + size, x, x], [y, y, y - size, y - size, y])
    ax.plot(*corners, color="black", alpha=0.25, linewidth=0.6, solid_joinstyle="miter", clip_on=False)


def _picture(ax: Axes, width: float, height: float) -> Axes:
    """Fit the axes, without scales, to what was drawn from (0, 0) to the right and down."""
    ax.set(xlim=(0, width), ylim=(-height, 0), aspect="equal")
    ax.axis("off")
    return ax
