"""Voltage traces: what single neurons do, one above the other."""

# N neurons, T time

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import check_int, check_number, invalid
from reservoir.plots.base import SMALL, check_interval, figure_of, own_axes, shade_inputs, tidy
from reservoir.recording import TRACES, Recording
from reservoir.stimulus import Stimulus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["voltages"]

# More than this side by side cannot be told apart.
_MOST = 8


def voltages(
    recording: Recording,
    *,
    neurons: Sequence[int] | None = None,
    lane: int = 0,
    inputs: Stimulus | Sequence[tuple] | None = None,
    start_ms: float | None = None,
    stop_ms: float | None = None,
    zero_ms: float = 0.0,
    bar_mV: float = 50.0,
    ax: Axes | None = None,
) -> Figure:
    """Draw the membrane potential of some neurons, one above the other.

    Parameters
    ----------
    recording : Recording
        With the trace "v": ``Record(traces=("v",), neurons=[...])``.
    neurons : sequence of int, optional
        Which of the watched neurons, from below; by default the first 8.
    lane : int
        Which lane.
    inputs : Stimulus, or sequence of (start_ms, stop_ms) or (start_ms, stop_ms, name), optional
        What is shaded, as in `raster`.
    start_ms, stop_ms : float, optional
        Which stretch, in the time of the recording.
    zero_ms : float
        Time that is 0 on the axis.
    bar_mV : float
        Height of the scale bar.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    v is recorded before the reset and cut at the peak, so a spike reaches the peak. With ``Record(every=k)`` those in
    between are not seen. Dotted: where each neuron's v is lowest.
    """
    if "v" not in recording.traces:
        kept = ", ".join(recording.traces) or "no traces"
        raise invalid("recording", "hold the trace 'v'", kept, f"Run with Record(traces=('v',)); keys: {list(TRACES)}.")
    check_int("lane", lane, at_least=0, at_most=recording.n_lanes - 1)
    check_number("bar_mV", bar_mV, above=0)
    check_number("zero_ms", zero_ms)
    shown = list(recording.watched[:_MOST]) if neurons is None else list(neurons)
    column = {int(neuron): k for k, neuron in enumerate(recording.watched)}
    missing = [neuron for neuron in shown if neuron not in column]
    if missing or not shown:
        required = "name some of the watched neurons"
        raise invalid("neurons", required, f"{missing or 'none'}", "Record(neurons=[...]) says who is watched.")
    t_ms = recording.trace_ms()
    begin = recording.step * recording.dt_ms
    end = begin + recording.n_steps * recording.dt_ms
    start, stop = check_interval(begin if start_ms is None else start_ms, end if stop_ms is None else stop_ms)
    inside = (t_ms >= start) & (t_ms < stop)
    if not inside.any():
        raise invalid("start_ms", f"leave some of the recording, {begin:g} to {end:g} ms", f"{start:g} to {stop:g} ms")
    v = np.asarray(recording.traces["v"][inside, lane])[:, [column[int(neuron)] for neuron in shown]]
    low = v.min(axis=0)
    step = 1.15 * max(float((v - low).max()), 1.0)
    ax = own_axes(ax, 0.9 + 0.5 * len(shown))
    for row in range(len(shown)):
        base = row * step
        ax.axhline(base, color="black", alpha=0.25, linewidth=0.7, linestyle=":")
        ax.plot(t_ms[inside] - zero_ms, v[:, row] - low[row] + base, color="black", linewidth=0.8)
        place = (1.015, base)
        look = {"xycoords": ("axes fraction", "data"), "fontsize": 7.5, "va": "bottom", "annotation_clip": False}
        ax.annotate(f"{low[row]:.0f} mV", place, color="#555555", **look)
    # Above the highest trace, where nothing else is.
    bar, bottom = start - zero_ms + 0.012 * (stop - start), (len(shown) - 0.05) * step
    ax.plot([bar, bar], [bottom, bottom + bar_mV], color="#D55E00", linewidth=2.5, solid_capstyle="butt")
    at = {"color": "#D55E00", "fontsize": SMALL, "va": "center"}
    ax.annotate(f"{bar_mV:g} mV", (bar, bottom + bar_mV / 2), (4, 0), textcoords="offset points", **at)
    ax.set_yticks([row * step for row in range(len(shown))], [str(neuron) for neuron in shown])
    ax.set(xlim=(start - zero_ms, stop - zero_ms), ylim=(-0.08 * step, bottom + 1.2 * bar_mV))
    ax.set(xlabel="time (ms)", ylabel="neuron; v above its lowest")
    shade_inputs(ax, inputs, begin_ms=begin, zero_ms=zero_ms)
    return figure_of(tidy(ax, grid="x"))
