"""Growth of a disturbance over time."""

# R repetitions, T time

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import invalid
from reservoir.analysis.perturbation import PerturbationGrowth
from reservoir.plots.base import COLOURS, GREY, SMALL, figure_of, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["divergence"]

_UNITS = {"voltage": "difference of v, RMS (mV)", "spikes": "difference of spike trains, RMS"}


def divergence(found: PerturbationGrowth, *, ax: Axes | None = None) -> Figure:
    """Draw how far nudged networks get from where they would have been, on a logarithmic axis.

    Parameters
    ----------
    found : PerturbationGrowth
        What `perturbation_growth` returned.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure
        Thin lines: repetitions. Thick: their mean. Dashed: networks that began in unrelated states. Orange: the fit, in
        the window of the fit.
    """
    if not isinstance(found, PerturbationGrowth):
        raise invalid("found", "be a PerturbationGrowth", found, kind=TypeError)
    ax = own_axes(ax, 3.4)
    mean, level = found.distance.mean(axis=0), found.unrelated.mean(axis=0)
    drawn = np.where(found.distance > 0, found.distance, np.nan)
    ax.plot(found.t_ms, drawn.T, color=GREY, alpha=0.25, linewidth=0.7)
    ax.plot(found.t_ms, np.where(mean > 0, mean, np.nan), color=COLOURS[0], linewidth=2)
    ax.plot(found.t_ms, np.where(level > 0, level, np.nan), color="black", linestyle="--", linewidth=1.2)
    if np.isfinite(found.rate_per_ms):
        ax.plot(found.t_ms, found.fit, color=COLOURS[1], linewidth=2.5)
        error = f" ± {found.error_per_ms:.4f}" if np.isfinite(found.error_per_ms) else ""
        first, last = found.window_ms
        text = f"{found.rate_per_ms:+.4f}{error} per ms, fitted {first:g} to {last:g} ms"
    else:
        text = "no rate: fewer than 3 distances above 0"
    look = {"xycoords": "axes fraction", "va": "bottom", "fontsize": SMALL}
    ax.annotate(text, (0, 1.02), color=COLOURS[1], weight="bold", **look)
    positive = np.concatenate([mean[mean > 0], level[level > 0]])
    if len(positive):
        ax.set_yscale("log")
        ax.set_ylim(max(positive.min() / 3, positive.max() * 1e-6), positive.max() * 3)
        end = (found.t_ms[-1], level[-1] if level[-1] > 0 else positive.max())
        at = {"textcoords": "offset points", "ha": "right", "va": "bottom", "fontsize": SMALL}
        ax.annotate("unrelated states", end, (0, 7), **at)
    ax.set(xlim=(0, found.t_ms[-1]), xlabel="time since the nudge (ms)", ylabel=_UNITS[found.measure])
    return figure_of(tidy(ax, grid="y"))
