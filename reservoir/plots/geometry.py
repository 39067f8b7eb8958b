"""Where weights lie: the angle between readouts against chance, conditions in the plane of two components."""

# M conditions, P principal components

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_int, check_option, invalid
from reservoir.analysis.geometry import Angles, ConditionSpace
from reservoir.plots.base import COLOURS, GREY, SMALL, figure_of, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["angles", "condition_plane"]

_MARKERS = "osD^vP*X"


def angles(found: Angles | Mapping[str, Angles], *, ax: Axes | None = None) -> Figure:
    """Draw the smallest angle between two readouts, against those of shuffled neurons.

    Parameters
    ----------
    found : Angles, or mapping of str to Angles
        Of one network, or of several by name. The shuffles of all are one histogram.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    The band holds the middle 95 % of the shuffles: a line inside it is what chance gives, however near to 90 degrees.
    """
    named = {"": found} if isinstance(found, Angles) else dict(found)
    if not named:
        raise invalid("found", "hold at least one Angles", "none")
    null = np.concatenate([one.null[:, 0] for one in named.values()])
    low, high = np.quantile(null, (0.025, 0.975))
    ax = own_axes(ax, 3.2)
    ax.axvspan(low, high, color=GREY, alpha=0.12, linewidth=0)
    ax.hist(null, min(40, max(5, len(null) // 10)), color=GREY, alpha=0.6)
    for one in named.values():
        ax.axvline(one.degrees[0], color=COLOURS[1], linewidth=1.8)
    measured = [one.degrees[0] for one in named.values()]
    left, right = min(null.min(), *measured, 88.0), 90.0
    ax.set(xlim=(left - 0.03 * (right - left), right), ylabel="shuffles")
    ax.set_xlabel(f"smallest angle between the readouts (degrees)\ngrey: {len(null)} shuffles of neurons, band: 95 %")
    lines = [
        f"{name + ': ' if name else ''}{one.degrees[0]:.1f}°, p {one.p_below:.3f} (smaller), {one.p_above:.3f} (larger)"
        for name, one in named.items()
    ]
    look = {"xycoords": "axes fraction", "va": "bottom", "fontsize": SMALL}
    ax.annotate("\n".join(lines), (0, 1.02), color=COLOURS[1], **look)
    return figure_of(tidy(ax, grid="y"))


def condition_plane(
    space: ConditionSpace,
    *,
    colour_by: str,
    mark_by: str | None = None,
    components: tuple[int, int] = (0, 1),
    paths: Mapping[str, Any] | None = None,
    unit: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw conditions in the plane of two principal components of their weights.

    Parameters
    ----------
    space : ConditionSpace
        What `condition_space` returned.
    colour_by : str
        The label that gives the colour.
    mark_by : str, optional
        The label that gives the mark; conditions in which it is the same are joined by a line, at whose end it is
        written.
    components : tuple of int
        Which two, from 0.
    paths : mapping of str to array of shape (steps, ...), optional
        Weights in the course of trainings, made like those of the conditions: drawn as arrows into the plane.
    unit : str
        Unit of `mark_by`, such as "ms".
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    Each axis says what part of the variance it holds and, for each label, how much it correlates with it and with what
    probability any component would as much if the label were in random order.
    """
    check_option("colour_by", colour_by, space.labels)
    if mark_by is not None:
        check_option("mark_by", mark_by, space.labels)
    x, y = (check_int("components", k, at_least=0, at_most=space.scores.shape[1] - 1) for k in components)
    ax = own_axes(ax, 4.4)
    values = space.labels[colour_by]
    marks = np.zeros(len(values)) if mark_by is None else space.labels[mark_by]
    norm = {"vmin": values.min(), "vmax": values.max() if np.ptp(values) else values.min() + 1, "cmap": "viridis"}
    for number, mark in enumerate(np.unique(marks)):
        mine = np.flatnonzero(marks == mark)
        mine = mine[np.argsort(values[mine], kind="stable")]
        at = space.scores[mine][:, [x, y]]
        if mark_by is not None:
            ax.plot(*at.T, color=GREY, alpha=0.4, linewidth=1)
            look = {"textcoords": "offset points", "fontsize": SMALL, "color": GREY}
            ax.annotate(f"{mark:g} {unit}".strip(), at[-1], (7, 5), **look)
        symbol = _MARKERS[number % len(_MARKERS)]
        points = ax.scatter(*at.T, c=values[mine], marker=symbol, s=50, edgecolor="white", zorder=3, **norm)
    for number, (name, weights) in enumerate((paths or {}).items()):
        way = space.project(weights)[:, [x, y]]
        line = COLOURS[(number + 1) % len(COLOURS)]
        ax.plot(*way.T, color=line, linewidth=1.6, zorder=4)
        ax.plot(*way[0], "o", color=line, markerfacecolor="white", markersize=6, zorder=5)
        if len(way) > 1:
            ax.annotate("", way[-1], way[-2], arrowprops={"arrowstyle": "-|>", "color": line, "lw": 1.6}, zorder=5)
        ax.annotate(name, way[0], (7, -10), textcoords="offset points", fontsize=SMALL, color=line)
    figure_of(ax).colorbar(points, ax=ax, label=colour_by)
    ax.margins(0.16)
    for axis, k in (("x", x), ("y", y)):
        lines = [f"component {k + 1}, {100 * space.share[k]:.0f} % of the variance"]
        lines += [
            f"correlation with {name} {found[k]:+.2f}, p-value {space.p_values[name][k]:.3f}"
            for name, found in space.correlations.items()
        ]
        getattr(ax, f"set_{axis}label")("\n".join(lines), fontsize=SMALL)
    return figure_of(tidy(ax, grid="both"))
