"""Pictures of accuracy over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import invalid
from snn.plots.base import ANN as GREY
from snn.plots.base import DIRECT, SPIKING, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_time_curve"]

_COLOURS = (SPIKING, DIRECT, "#009E73", "#CC79A7")  # Okabe & Ito 2008
_LINES = ("-", "--", "-.", ":")


def plot_time_curve(
    curve: Any,
    ax: Axes | None = None,
    *,
    stimulus_s: tuple[float, float] | None = (0.0, 0.5),
    marks: Mapping[str, float] | None = None,
    units: bool = False,
) -> Axes:
    """Draw a score against the time of its windows, with chance, interval and significant stretches.

    Parameters
    ----------
    curve : TimeCurve, or mapping of str to TimeCurve
        From `neurodecode.meeg.time_curve.time_curve`; several by name, of one measure.
    ax : Axes, optional
        Where to draw.
    stimulus_s : (float, float), optional
        When the stimulus was on, in s: a bar at the bottom.
    marks : mapping of str to float, optional
        What to mark -> its time in s: planted or true onsets, say.
    units : bool
        Draw each subject or run, too.

    Returns
    -------
    Axes
    """
    curves = dict(curve) if isinstance(curve, Mapping) else {"": curve}
    if not 1 <= len(curves) <= len(_COLOURS):
        raise invalid("curve", f"hold 1 to {len(_COLOURS)} curves", f"{len(curves)}")
    ax = own_axes(ax, height=3.0)
    first = next(iter(curves.values()))
    for number, (name, one) in enumerate(curves.items()):
        ms, colour = 1000 * one.times_s, _COLOURS[number]
        if units and len(one.units) > 1:
            ax.plot(ms, one.score.T, color=colour, linewidth=0.6, alpha=0.35)
        if np.isfinite(one.low).all():
            ax.fill_between(ms, one.low, one.high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(ms, one.mean, color=colour, linestyle=_LINES[number], linewidth=2, label=name or None)
    ax.axhline(first.chance, color=GREY, linestyle="--", linewidth=1)
    ax.annotate("chance", (1, first.chance), xycoords=("axes fraction", "data"), fontsize=7, color=GREY, ha="right",
                va="bottom", xytext=(0, 1), textcoords="offset points")  # fmt: skip
    # Stretches and the bar stand below the curves, in rows of their own.
    low, high = ax.get_ylim()
    row = 0.04 * (high - low)
    for number, one in enumerate(curves.values()):
        level = low - row * number
        ms = 1000 * one.times_s
        step = float(np.diff(ms).min()) if len(ms) > 1 else 10.0
        for cluster in one.clusters:
            if cluster.p <= one.alpha:
                ends = (ms[cluster.first] - step / 2, ms[cluster.last] + step / 2)
                ax.plot(ends, (level, level), color=_COLOURS[number], linewidth=4, solid_capstyle="butt")
    bottom = low - row * len(curves)
    if stimulus_s is not None:
        ax.axvline(1000 * stimulus_s[0], color="black", linewidth=0.6, alpha=0.5)
        ends = [1000 * time for time in stimulus_s]
        ax.fill_between(ends, bottom - row, bottom - row / 4, color="black", alpha=0.6, linewidth=0)
        ax.annotate("stimulus", (ends[1], bottom - row * 0.6), fontsize=7, va="center", xytext=(3, 0),
                    textcoords="offset points")  # fmt: skip
    ax.set_ylim(bottom - 1.5 * row, high + row)
    for name, time_s in (marks or {}).items():
        ax.axvline(1000 * time_s, color="black", linestyle=":", linewidth=1)
        ax.annotate(name, (1000 * time_s, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top", rotation=90,
                    xytext=(2, -2), textcoords="offset points")  # fmt: skip
    ax.set_xlabel(f"{first.at} of window after the event (ms)")
    ax.set_ylabel(first.measure)
    if any(curves):
        ax.legend(frameon=False, fontsize=8, loc="upper right")
    return tidy(ax, "y")
