"""What all pictures share: size, colours, and the axes they are drawn into."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ANN", "DIRECT", "MARKERS", "SPIKING", "WIDTH", "own_axes", "tidy"]

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


def tidy(ax: Axes, grid: str) -> Axes:
    """Take away the frame's upper and right side, and draw faint lines across the axis `grid` ("x" or "y")."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="black", alpha=0.12, linewidth=0.8)
    ax.set_axisbelow(True)
    return ax
