"""What all pictures share: size, colours, and the axes they are drawn into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuroloaders.checks import check_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ANN", "DIRECT", "MARKERS", "SPIKING", "WIDTH", "own_axes", "own_figure", "tidy", "time_unit"]

# Okabe & Ito 2008, "Color universal design": colour-blind readers can tell them apart. Never the only sign.
ANN, SPIKING, DIRECT = "#555555", "#0072B2", "#D55E00"
MARKERS = "osD^vP*X"
# Inches. Scaled down to a phone's width, the letters of such a figure are still about 10 pixels high.
WIDTH = 4.8


def own_axes(ax: Axes | None, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of that height in inches; matplotlib is loaded here."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(WIDTH, height), layout="constrained")[1]


def own_figure(height: float, panels: Sequence[float]) -> tuple[Figure, Sequence[Axes]]:
    """Return a new figure of that height in inches, and its axes: one below the other, with the time in common.

    `panels` are their heights, relative to each other.
    """
    import matplotlib.pyplot as plt

    size, ratios = (WIDTH, height), list(panels)
    return plt.subplots(len(ratios), figsize=size, layout="constrained", sharex=True, height_ratios=ratios)


def tidy(ax: Axes, grid: str) -> Axes:
    """Take away the frame's upper and right side, and draw faint lines across the axis `grid` ("x" or "y")."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="black", alpha=0.12, linewidth=0.8)
    ax.set_axisbelow(True)
    return ax


def time_unit(dt_ms: float | None) -> tuple[float, str]:
    """Return how long a step is on the axis, and the unit to write there: "steps", or "ms" where `dt_ms` is known."""
    return (1, "steps") if dt_ms is None else (check_number("dt_ms", dt_ms, above=0), "ms")
