"""Pictures of learned delays: how they moved, which synapse has which, and how their width shrank in training."""

# O outputs, I inputs, K synapses a connection, D delays

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from neuroloaders.checks import check_finite, check_int, check_number, check_option, check_same_length, invalid
from snn.delays import SHAPES, DelayLinear, DelayModule, SigmaSchedule
from snn.plots.base import ANN, DIRECT, SPIKING, WIDTH, own_axes, own_figure, tidy, time_unit
from snn.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SORTS", "delay_histogram", "delay_matrix", "sigma_history"]

# name -> what the rows of a delay matrix are sorted by, smallest on top; from delays and absolute weights, (O, I)
SORTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "index": lambda delay, weight: np.arange(len(delay)),
    "mean-delay": lambda delay, weight: (weight * delay).sum(1) / np.maximum(weight.sum(1), 1e-30),
    "weight": lambda delay, weight: -weight.sum(1),
}

# More squares than this are stored as pixels in a PDF or SVG, not one by one.
_MOST_SHAPES = 5000
# Wider than any layer's range; a delay beyond it was given in another unit.
_MOST_STEPS = 10_000
# Below this the lightest colour of viridis can still be told from white.
_LIGHTEST = 0.93


def delay_histogram(
    before: DelayModule | Tensor | np.ndarray | Sequence[float],
    after: DelayModule | Tensor | np.ndarray | Sequence[float],
    *,
    max_delay: int | None = None,
    dt_ms: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many synapses have which delay, before and after learning, one bar a step.

    Parameters
    ----------
    before, after : layer, or array of any shape
        Delays of the same synapses, in steps; drawn as evaluation takes them, in whole steps. For `before`, copy the
        delays ahead of training: ``layer.delay.detach().clone()``.
    max_delay : int, optional
        D, in steps: delays outside 0..D - 1 count at the nearer end, as in the layers. By default that of the layer;
        without a layer the axis ends at the longest delay.
    dt_ms : float, optional
        Length of a step, for an axis in ms; by default the layer's, if it has one.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Written above both ends of the range: how much of all delays lies there, before and after.

    Raises
    ------
    TypeError, ValueError
        If there are no delays, if they are not finite, negative, or as many before as after, or if both are the same
        tensor in memory.

    Notes
    -----
    Delays that are drawn evenly from 0 to D - 1 and rounded fill the first and the last bar half: only numbers from
    one side are rounded to these. What is above that has piled up at the ends of the range.
    """
    values = {"before": _delays("before", before), "after": _delays("after", after)}
    check_same_length(**values)
    if values["before"].data_ptr() == values["after"].data_ptr():
        advice = "Ahead of training: before = layer.delay.detach().clone()."
        raise invalid("before", "be a copy from ahead of training", "the very delays of `after`", advice)
    layers = [layer for layer in (before, after) if isinstance(layer, DelayModule)]
    ranges = {layer.max_delay for layer in layers} | ({max_delay} - {None})
    if len(ranges) > 1:
        raise invalid("max_delay", "be the same before and after", " and ".join(map(str, sorted(ranges))))
    max_delay = next(iter(ranges), None)
    if dt_ms is None:
        dt_ms = next((layer.dt_ms for layer in layers if layer.dt_ms is not None), None)
    step, unit = time_unit(dt_ms)
    whole = {name: _whole(name, tensor, max_delay) for name, tensor in values.items()}
    n_bins = max_delay if max_delay is not None else int(max(steps.max() for steps in whole.values())) + 1
    if n_bins > _MOST_STEPS:
        raise invalid(
            "after", f"hold delays below {_MOST_STEPS} steps", f"{n_bins - 1}", "Delays are in steps, not in ms."
        )
    counts = {name: np.bincount(steps, minlength=n_bins) for name, steps in whole.items()}

    ax = own_axes(ax, 3.2)
    edges = (np.arange(n_bins + 1) - 0.5) * step
    ax.bar(np.arange(n_bins) * step, counts["after"], 0.86 * step, color=SPIKING, alpha=0.85, label="after learning")
    ax.stairs(counts["before"], edges, color="black", linewidth=1.5, label="before learning")
    ends = {0: "left"} | ({n_bins - 1: "right"} if max_delay is not None and n_bins > 1 else {})
    for place, side in ends.items():
        was, now = (100 * counts[name][place] / counts[name].sum() for name in ("before", "after"))
        text = f"at {place * step:g} {unit}:\n{was:.3g} % before,\n{now:.3g} % after"
        corner = {
            "xycoords": "axes fraction",
            "xytext": (3 if side == "left" else -3, 0),
            "textcoords": "offset points",
        }
        ax.annotate(text, (0 if side == "left" else 1, 1), ha=side, va="top", fontsize=7.5, **corner)
    ax.set_xlim(edges[0], edges[-1])
    # Room for the texts.
    ax.set_ylim(0, 1.35 * max(count.max() for count in counts.values()))
    ax.locator_params(axis="y", integer=True)
    if dt_ms is None:
        ax.locator_params(axis="x", integer=True)
    own = bool(layers) and all(layer.share == "synapse" for layer in layers)
    ax.set(xlabel=f"delay ({unit})", ylabel="synapses" if own else "delays")
    ax.legend(frameon=False, fontsize=8.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return tidy(ax, grid="y")


def delay_matrix(layer: DelayLinear, *, weights: bool = True, sort: str = "index", ax: Axes | None = None) -> Axes:
    """Draw the delay of every synapse of a layer as colour, outputs downwards, inputs to the right.

    Parameters
    ----------
    layer : DelayLinear
        Its delays in whole steps, as evaluation takes them; in ms if the layer has `dt_ms`. Where a pair of neurons has
        several synapses, the strongest is drawn.
    weights : bool
        Draw each synapse as large as it is strong: its area is its absolute weight, the strongest 5 % fill their place,
        and negative ones are hollow. Otherwise all are the same.
    sort : {"index", "mean-delay", "weight"}
        Order of the outputs, a key of `SORTS`: as in the layer; shortest mean delay on top, weighted by absolute
        weights; largest sum of absolute weights on top.
    ax : Axes, optional
        Where to draw. The bar of colours takes some of its room.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If `layer` is no DelayLinear, holds numbers that are not finite, or `sort` is unknown.
    """
    delay, weight, shown = _strongest(layer)
    order = np.argsort(SORTS[check_option("sort", sort, SORTS)](delay, np.abs(weight)), kind="stable")
    delay, weight = delay[order], weight[order]
    step, unit = time_unit(layer.dt_ms)
    n_out, n_in = delay.shape
    ax = own_axes(ax, 1.0 + min(max(0.75 * WIDTH * n_out / n_in, 1.1), 0.3 * max(n_out, 4), 4.0))
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    # One colour a step.
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, _LIGHTEST, layer.max_delay)))
    limits = {"cmap": colours, "clim": (-0.5 * step, (layer.max_delay - 0.5) * step)}
    if weights:
        # Of many weights one is always far larger than the rest.
        full = np.quantile(np.abs(weight), 0.95, method="higher")
        sides = np.sqrt(np.minimum(np.abs(weight) / max(full, 1e-30), 1))
        drawn = _squares(ax, sides, array=(delay * step).ravel(), **limits)
        if (weight < 0).any():
            _squares(ax, np.where(weight < 0, 0.4 * sides, 0), color="white")
        hollow = " · hollow: negative" if (weight < 0).any() else ""
        meaning = f"colour: delay · area: |weight|{hollow}"
    else:
        drawn = ax.imshow(delay * step, aspect="auto", interpolation="nearest", **limits)
        meaning = "colour: delay"
    ax.set(xlim=(-0.5, n_in - 0.5), ylim=(n_out - 0.5, -0.5))
    ax.locator_params(axis="x", integer=True)
    rows = np.unique(np.linspace(0, n_out - 1, min(n_out, 10)).round().astype(int))
    ax.set_yticks(rows, [str(order[row]) for row in rows])
    rows_are = {
        "index": "",
        "mean-delay": "\nshortest mean delay on top",
        "weight": "\nlargest sum of |weight| on top",
    }[sort]
    ax.set(xlabel="input neuron", ylabel="output neuron")
    ax.set_title(meaning + shown + rows_are, fontsize=8.5, loc="left")
    ax.figure.colorbar(drawn, ax=ax, label=f"delay ({unit})").locator.set_params(integer=layer.dt_ms is None)
    return ax


def sigma_history(
    history: History,
    sigma: SigmaSchedule | Sequence[float],
    *,
    max_delay: int | None = None,
    kernel: str = "gauss",
    fixed_from: int | None = None,
    metric: str = "accuracy",
) -> Figure:
    """Draw the width of the bumps over the epochs, and below it the scores that were reached with it.

    Parameters
    ----------
    history : History
        Of the training. Two that follow each other: ``History(first.rows + second.rows)``.
    sigma : SigmaSchedule, or sequence of float with one number an epoch
        Widths in steps. 0 stands for delays in whole steps.
    max_delay : int, optional
        D of the layer whose width is drawn, in steps; needed for a schedule without `start`.
    kernel : str
        Kernel of that layer, a key of `snn.delays.SHAPES`.
    fixed_from : int, optional
        First epoch, counted from 0, after `snn.fix_delays`: from there on the width is 0.
    metric : str
        Which score, a fraction.

    Returns
    -------
    Figure
        With two axes, widths above and scores below.

    Raises
    ------
    TypeError, ValueError
        If the history is empty or lacks the metric, or if the widths do not fit.

    Notes
    -----
    Unless the layers' rounding says otherwise, training hears bumps and validation whole-step delays. While the bumps
    are wide these are two different networks, and the validation score jumps.
    """
    if not isinstance(history, History):
        raise invalid("history", "be a snn.History", history, "Of rows: History(rows).", kind=TypeError)
    if not len(history):
        raise invalid("history", "have at least one epoch", "none")
    check_option("kernel", kernel, SHAPES)
    scores = [column.removeprefix("train_") for column in history.rows[0] if column.startswith("train_")]
    check_option("metric", metric, [score for score in scores if score != "loss"])
    train = history[f"train_{metric}"]
    widths = _widths(sigma, len(history), max_delay, kernel)
    if fixed_from is not None:
        widths[check_int("fixed_from", fixed_from, at_least=0, at_most=len(history) - 1) :] = 0
    epochs = np.arange(1, len(history) + 1)
    figure, (above, below) = own_figure(4.2, [1, 1.4])
    above.plot(epochs, widths, color="black", linewidth=1.8, marker=".", label="width")
    least = max(SigmaSchedule(epochs=0).end, SHAPES[kernel].least_sigma)
    above.axhline(least, color=ANN, linestyle=":", linewidth=1)
    note = {"xytext": (-3, 2), "textcoords": "offset points", "ha": "right", "va": "bottom", "fontsize": 7.5}
    narrow = "below: nearly one step" if kernel == "gauss" else "narrowest"
    above.annotate(narrow, (1, least), xycoords=("axes fraction", "data"), color=ANN, **note)
    above.set_ylim(0, 1.12 * max(*widths, least))
    above.set_ylabel("width of the\nbumps σ (steps)")
    below.plot(epochs, 100 * np.asarray(train), color=ANN, linestyle="--", linewidth=1.5, label="training")
    if f"valid_{metric}" in history.rows[0]:
        scores = 100 * np.asarray(history[f"valid_{metric}"])
        below.plot(epochs, scores, color=SPIKING, linewidth=1.8, marker=".", label="validation")
    below.margins(y=0.08)
    below.set_ylim(top=min(below.get_ylim()[1], 102))
    below.set_xlim(0.5, len(history) + 0.5)
    below.locator_params(axis="x", integer=True)
    below.set(xlabel="epoch", ylabel=f"{metric} (%)")
    for start, stop in _runs(widths == 0):
        for ax in (above, below):
            ax.axvspan(start + 0.5, stop + 0.5, color=DIRECT, alpha=0.1, linewidth=0)
        middle = ((start + stop + 1) / 2, 0.9)
        text = {"ha": "center", "va": "top", "fontsize": 8.5, "color": DIRECT}
        above.annotate("whole-step\ndelays", middle, xycoords=("data", "axes fraction"), **text)
    below.legend(frameon=False, fontsize=8.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    for ax in (above, below):
        tidy(ax, grid="y")
    return figure


def _delays(name: str, source: DelayModule | Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """Return delays in steps as one row, where possible without a copy."""
    if isinstance(source, nn.Module) and not isinstance(source, DelayModule):
        advice = "Give one of its layers: see snn.delays.delay_layers."
        raise invalid(name, "be a delay layer or its delays", f"a {type(source).__name__}", advice, kind=TypeError)
    try:
        values = torch.as_tensor(source.delay if isinstance(source, DelayModule) else source).detach().flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise invalid(name, "be a delay layer, or numbers in an array", source, kind=TypeError) from error
    if not len(values) or values.dtype == torch.bool or values.is_complex():
        raise invalid(name, "hold at least one delay, in steps", values)
    return check_finite(name, values)


def _whole(name: str, delays: Tensor, max_delay: int | None) -> np.ndarray:
    """Return whole steps, rounded and kept in the range as the layers do."""
    whole = torch.round(delays.cpu().double())
    if max_delay is not None:
        whole = whole.clamp(0, check_int("max_delay", max_delay, at_least=1) - 1)
    elif whole.min() < 0:
        advice = "Give max_delay=... to count such delays at 0, as the layers do."
        raise invalid(name, "hold delays of at least 0 steps", f"{float(delays.min()):g}", advice)
    return whole.long().numpy()


def _strongest(layer: DelayLinear) -> tuple[np.ndarray, np.ndarray, str]:
    """Return delay in steps and weight of each connection's strongest synapse, (O, I), and what to say about it."""
    if not isinstance(layer, DelayLinear):
        raise invalid("layer", "be a snn.DelayLinear", f"a {type(layer).__name__}", kind=TypeError)
    weight = check_finite("layer.weight", layer.weight.detach())
    check_finite("layer.delay", layer.delay)
    delay = layer.delays_in_steps().expand(weight.shape)
    best = weight.abs().argmax(-1, keepdim=True)
    delay, weight = (values.gather(-1, best)[..., 0].cpu().double().numpy() for values in (delay, weight))
    count = layer.kernel_count
    return delay, weight, f"\nof each pair's {count} synapses the strongest" if count > 1 else ""


def _squares(ax: Axes, sides: np.ndarray, **look: object) -> object:
    """Draw a rectangle in the middle of each place, `sides` of its width and height."""
    from matplotlib.collections import PolyCollection

    row, column = np.indices(sides.shape).reshape(2, -1)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    places = np.stack([column, row], -1)[:, None] + 0.47 * sides.reshape(-1, 1, 1) * corners
    # Not moved to whole pixels: where a rectangle is less than one, how much it covers still tells its size.
    drawn = PolyCollection(places, linewidth=0, snap=False, rasterized=sides.size > _MOST_SHAPES, **look)
    return ax.add_collection(drawn)


def _widths(sigma: SigmaSchedule | Sequence[float], n_epochs: int, max_delay: int | None, kernel: str) -> np.ndarray:
    if isinstance(sigma, SigmaSchedule):
        if max_delay is None and sigma.start is None:
            raise invalid("max_delay", "be given for a schedule without `start`", "None", "It begins at half of it.")
        longest = 1 if max_delay is None else check_int("max_delay", max_delay, at_least=1)
        return np.array([sigma.width(epoch, max_delay=longest, kernel=kernel) for epoch in range(n_epochs)])
    if isinstance(sigma, str) or not hasattr(sigma, "__len__"):
        raise invalid("sigma", "be a SigmaSchedule, or one width an epoch", sigma, kind=TypeError)
    check_same_length(sigma=sigma, history=range(n_epochs))
    return np.array([check_number("sigma", float(width), at_least=0) for width in sigma])


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return begin and end of each stretch of True."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))
