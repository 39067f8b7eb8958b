"""Pictures of spikes in time: when each neuron spikes, and when what it sends arrives at the next one."""

# T steps, C units, E events, O outputs, I inputs, K synapses a connection

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_finite, check_int, check_same_length, check_shape, invalid
from snn.delays import DelayLinear
from snn.plots.base import ANN, DIRECT, SPIKING, own_axes, own_figure, tidy, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["delayed_raster", "raster"]

# Sign of a weight -> colour, and marker of an arrival.
_SIGNS = {1: (SPIKING, "^", "excitatory"), -1: (DIRECT, "v", "inhibitory")}
# Where the legend lies, as narrow as its four entries need it.
_ON_TOP = {
    "loc": "outside upper center",
    "ncols": 4,
    "frameon": False,
    "fontsize": 8.5,
    "columnspacing": 1,
    "handletextpad": 0.3,
    "handlelength": 1.6,
}


def raster(
    spikes: Tensor | np.ndarray | tuple[Tensor | np.ndarray, Tensor | np.ndarray],
    *,
    dt_ms: float | None = None,
    n_units: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a dot for each spike, time to the right, units upwards.

    Parameters
    ----------
    spikes : array, shape (T, C), or tuple of two arrays (times_ms, units), each of shape (E,)
        Spikes or counts of one sample, whose dots grow with the count; or its events, as
        `neuroloaders.spikes.SpikeSet.sample` gives them.
    dt_ms : float, optional
        Length of a step, for an axis in ms; a spike is drawn at the start of its step. Not for events.
    n_units : int, optional
        How many units there are, for events; by default up to the last that spikes.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, or if counts are negative or not finite.
    """
    if isinstance(spikes, tuple | list):
        times, units, sizes, rows, begin, end = _events(spikes, dt_ms, n_units)
        unit, columns = "ms", 1
    else:
        if n_units is not None:
            raise invalid("n_units", "be None where `spikes` has an axis of units", f"{n_units}")
        step, unit = time_unit(dt_ms)
        counts = _counts("spikes", spikes)
        steps, units = np.nonzero(counts)
        times, sizes, (columns, rows) = steps * step, counts[steps, units], counts.shape
        begin, end = -0.5 * step, (len(counts) - 0.5) * step
    ax = own_axes(ax, 1.3 + min(0.25 * max(rows, 2), 2.2))
    # Neither over the next unit nor over the next step.
    ax.scatter(times, units, s=_dot(ax, rows, columns) * sizes, color="black", linewidth=0)
    if not len(times):
        ax.text(0.5, 0.5, "no spikes", transform=ax.transAxes, ha="center", va="center", color=ANN)
    ax.set(xlim=(begin, end), ylim=(-0.5, rows - 0.5))
    ax.locator_params(axis="y", integer=True)
    ax.set(xlabel=_time_label(unit), ylabel="unit")
    return tidy(ax, grid="x")


def delayed_raster(
    spikes_in: Tensor | np.ndarray,
    layer: DelayLinear,
    output: int,
    spikes_out: Tensor | np.ndarray | None = None,
    *,
    n_strongest: int = 10,
) -> Figure:
    """Draw when spikes reach an output neuron: from each input spike a line to its arrival, and below it their sum.

    Parameters
    ----------
    spikes_in : array, shape (T, I)
        Spikes or counts of one sample that the layer receives.
    layer : DelayLinear
        Its delays in whole steps, as evaluation takes them; the axis is in ms if the layer has `dt_ms`.
    output : int
        Which output neuron.
    spikes_out : array, shape (T',) or (T', O), optional
        Spikes of that neuron, or of all outputs; T' >= T. The picture ends with it; without it, with the last step at
        which a spike can arrive.
    n_strongest : int
        How many synapses at most: those of the largest absolute weight, the longest delay on top. A wide line is a
        strong synapse.

    Returns
    -------
    Figure
        With two axes: synapses above, current below. The current is that of all synapses, with the bias, before any
        normalisation; where not all are drawn, a dashed line is that of those drawn.

    Raises
    ------
    TypeError, ValueError
        If `layer` is no DelayLinear, or if shapes or `output` do not fit it.
    """
    if not isinstance(layer, DelayLinear):
        raise invalid("layer", "be a snn.DelayLinear", f"a {type(layer).__name__}", kind=TypeError)
    check_int("output", output, at_least=0, at_most=layer.out_features - 1)
    check_int("n_strongest", n_strongest, at_least=1)
    counts = _counts("spikes_in", spikes_in)
    check_shape("spikes_in", counts, ("T", layer.in_features))
    out_steps, n_steps = _output_steps(spikes_out, layer, output, len(counts))
    step, unit = time_unit(layer.dt_ms)
    weight = check_finite("layer.weight", layer.weight.detach()).double()
    delay = layer.delays_in_steps().expand(weight.shape)
    weight, delay = (values[output].flatten().cpu().numpy() for values in (weight, delay))
    source = np.repeat(np.arange(layer.in_features), layer.kernel_count)
    bias = 0.0 if layer.bias is None else float(layer.bias.detach()[output])
    strongest = np.argsort(-np.abs(weight), kind="stable")[:n_strongest]
    rows = strongest[np.lexsort((source[strongest], delay[strongest]))]

    figure, (above, below) = own_figure(2.7 + 0.24 * len(rows), [0.7 + 0.24 * len(rows), 1.3])
    for row, synapse in enumerate(rows):
        start = np.flatnonzero(counts[:, source[synapse]])
        colour, marker, _ = _SIGNS[1 if weight[synapse] >= 0 else -1]
        width = 0.6 + 2.4 * abs(weight[synapse]) / max(np.abs(weight).max(), 1e-30)
        stop = start + delay[synapse]
        # Where spikes are dense, small marks.
        dot, arrow = (float(np.clip(size * 15 / max(len(start), 1), 6, size)) for size in (16, 34))
        above.hlines([row] * len(start), start * step, stop * step, color=colour, alpha=0.6, linewidth=width)
        above.scatter(start * step, [row] * len(start), s=dot, color="black", linewidth=0, zorder=3)
        above.scatter(stop * step, [row] * len(start), s=arrow, marker=marker, color=colour, linewidth=0, zorder=4)
    above.set_yticks(range(len(rows)), [f"{source[k]} ({weight[k]:+.2f})" for k in rows], fontsize=7.5)
    above.set(ylim=(-0.6, len(rows) - 0.4), ylabel="input (weight)")

    times = np.arange(n_steps)
    total = bias + _current(counts, source, weight, delay, n_steps)
    for sign, (colour, _, _) in _SIGNS.items():
        part = np.maximum(sign * total, 0) * sign
        below.bar(times * step, part, step, color=colour, alpha=0.45, linewidth=0)
    below.step(times * step, total, where="mid", color="black", linewidth=1, label=f"all {len(weight)} synapses")
    if len(rows) < len(weight):
        drawn = bias + _current(counts, source[rows], weight[rows], delay[rows], n_steps)
        look = {"color": ANN, "linewidth": 1.2, "linestyle": "--", "label": f"the {len(rows)} above"}
        below.step(times * step, drawn, where="mid", **look)
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2}
        below.legend(frameon=False, fontsize=7.5, borderaxespad=0.4, **place)
    faint = float(np.clip(4 / max(len(out_steps), 1), 0.05, 0.35))
    for ax in (above, below):
        look = {"color": "black", "alpha": faint, "linewidth": 1, "zorder": 0}
        ax.vlines(out_steps * step, 0, 1, transform=ax.get_xaxis_transform(), **look)
    top = {"transform": below.get_xaxis_transform(), "clip_on": False}
    below.scatter(out_steps * step, [1.06] * len(out_steps), s=50, marker="|", color="black", **top)
    below.set_xlim(-0.5 * step, (n_steps - 0.5) * step)
    below.margins(y=0.15)
    below.set(xlabel=_time_label(unit), ylabel=f"current into\nneuron {output}")
    figure.legend(handles=_key(weight[rows], None if spikes_out is None else len(out_steps)), **_ON_TOP)
    for ax in (above, below):
        tidy(ax, grid="x")
    return figure


def _key(weights: np.ndarray, n_output_spikes: int | None) -> list:
    """Return what the legend shows."""
    from matplotlib.lines import Line2D

    key = [Line2D([], [], color="black", marker="o", markersize=4, linestyle="", label="sent")]
    for sign, (colour, marker, name) in _SIGNS.items():
        if (np.where(weights >= 0, 1, -1) == sign).any():
            key.append(Line2D([], [], color=colour, marker=marker, markersize=6, label=f"arrives: {name}"))
    if n_output_spikes is not None:
        label = "output spike" if n_output_spikes else "no output spike"
        key.append(Line2D([], [], color="black", marker="|", markersize=7, linestyle="", label=label))
    return key


def _current(counts: np.ndarray, source: np.ndarray, weight: np.ndarray, delay: np.ndarray, n_steps: int) -> np.ndarray:
    """Return the current at each step: what the layer computes, for one output and past the end of its input."""
    current = np.zeros(n_steps)
    for i, w, d in zip(source, weight, delay, strict=True):
        arriving = counts[: max(n_steps - d, 0), i]
        current[d : d + len(arriving)] += w * arriving
    return current


def _output_steps(
    spikes_out: Tensor | np.ndarray | None, layer: DelayLinear, output: int, n_steps: int
) -> tuple[np.ndarray, int]:
    """Return the steps of the output's spikes, and how many steps there are."""
    if spikes_out is None:
        return np.zeros(0, int), n_steps + layer.max_delay - 1
    given = np.asarray(_array("spikes_out", spikes_out))
    if given.ndim == 2:
        check_shape("spikes_out", given, ("T", layer.out_features))
        given = given[:, output]
    check_shape("spikes_out", given, ("T",), advice="Pick one sample.")
    if len(given) < n_steps:
        raise invalid("spikes_out", f"have at least the {n_steps} steps of `spikes_in`", f"{len(given)}")
    return np.flatnonzero(given), len(given)


def _events(spikes: tuple, dt_ms: float | None, n_units: int | None) -> tuple:
    """Return times in ms, units, sizes, number of units, and where the axis begins and ends."""
    if len(spikes) != 2:
        advice = "Or give an array of shape (T, C)."
        raise invalid("spikes", "be two arrays, times in ms and units", f"{len(spikes)}", advice, kind=TypeError)
    if dt_ms is not None:
        raise invalid("dt_ms", "be None for events", f"{dt_ms:g}", "Their times are in ms already.")
    times, units = (_array(name, values) for name, values in zip(("times_ms", "units"), spikes, strict=True))
    check_shape("times_ms", times, ("E",))
    check_shape("units", units, ("E",))
    check_same_length(times_ms=times, units=units)
    check_finite("times_ms", times)
    last = int(units.max(initial=-1))
    if units.dtype.kind not in "iu" or units.min(initial=0) < 0:
        raise invalid("units", "be whole numbers from 0", units if units.dtype.kind not in "iu" else f"{units.min()}")
    rows = max(last + 1, 1) if n_units is None else check_int("n_units", n_units, at_least=max(last + 1, 1))
    begin, end = min(0.0, times.min(initial=0)), times.max(initial=0)
    margin = 0.02 * (end - begin) or 1.0
    return times, units, np.ones(len(times)), rows, begin - margin, end + margin


def _array(name: str, values: Tensor | np.ndarray) -> np.ndarray:
    array = values.detach().cpu() if isinstance(values, Tensor) else np.asarray(values)
    if isinstance(array, Tensor):
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    if array.dtype.kind not in "biuf":
        raise invalid(name, "hold numbers", values, kind=TypeError)
    return array


def _counts(name: str, values: Tensor | np.ndarray) -> np.ndarray:
    """Return spikes of one sample as float64, (T, C)."""
    array = _array(name, values)
    advice = "Pick a sample of a batch: spikes[:, 0]." if array.ndim == 3 else ""
    check_shape(name, array, ("T", "C"), advice=advice)
    if 0 in array.shape:
        raise invalid(name, "have at least one step and one unit", array)
    check_finite(name, array)
    if array.min() < 0:
        raise invalid(name, "hold spikes or counts, at least 0", f"{array.min():g}")
    return array.astype(float)


def _time_label(unit: str) -> str:
    return "time step" if unit == "steps" else "time (ms)"


def _dot(ax: Axes, rows: int, columns: int) -> float:
    """Return the area, in points², of a dot that fits its row and column, as far as it can still be seen."""
    room = ax.get_window_extent().size / ax.figure.dpi * 72 / (columns, rows)
    return float(np.clip(0.8 * room.min(), 1.2, 6)) ** 2
