"""What lies behind a reconstruction: how well each kind of latent is predicted, and from which voxels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import check_finite, invalid
from snn.plots.base import ANN as GREY
from snn.plots.base import DIRECT, SPIKING, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["region_bars", "stage_histograms"]


def stage_histograms(
    values: Mapping[str, np.ndarray], *, label: str = "R² on test images", ax: Axes | None = None
) -> Axes:
    """Draw how a number is distributed over the targets of each stage.

    Parameters
    ----------
    values : mapping of str to ndarray, shape (n_targets,)
        Kind of latent -> R², correlation or log10 of alpha of each target.
    label : str
        What the axis says.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Notes
    -----
    Half a violin each: the density of the targets, scaled to the same height, with the median as a line.
    """
    if not values:
        raise invalid("values", "hold at least one stage", "none")
    arrays = {name: np.asarray(value, dtype=float).ravel() for name, value in values.items()}
    for name, array in arrays.items():
        check_finite(f"values[{name!r}]", array)
    low, high = (f(np.quantile(array, q) for array in arrays.values()) for f, q in ((min, 0.001), (max, 0.999)))
    edges = np.linspace(low, high, 61) if high > low else np.linspace(low - 0.5, low + 0.5, 3)
    ax = own_axes(ax, height=0.9 + 0.6 * len(arrays))
    for k, array in enumerate(arrays.values()):
        counts, _ = np.histogram(array, edges)
        ax.stairs(k - 0.8 * counts / max(counts.max(), 1), edges, baseline=k, fill=True, color=SPIKING, alpha=0.5)
        median = float(np.median(array))
        ax.vlines(median, k - 0.8, k, color=DIRECT)
        ax.annotate(
            f"{median:.3g}", (median, k - 0.8), xytext=(2, -2), textcoords="offset points", fontsize=7, va="top"
        )
    ax.set_yticks(range(len(arrays)), list(arrays))
    ax.set_ylim(len(arrays) - 0.7, -1)
    ax.set_xlabel(label)
    return tidy(ax, "x")


def region_bars(preference: Mapping[str, float], *, ax: Axes | None = None) -> Axes:
    """Draw what regions weigh more for: low-level latents to the left, high-level ones to the right.

    Parameters
    ----------
    preference : mapping of str to float
        From `neurodecode.fmri.region_preference`, percentile ranks.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    if not preference:
        raise invalid("preference", "hold at least one region", "none")
    names = sorted(preference, key=preference.get)
    values = check_finite("preference", np.asarray([preference[name] for name in names], dtype=float))
    ax = own_axes(ax, height=0.9 + 0.28 * len(names))
    ax.barh(range(len(names)), values, color=[SPIKING if value < 0 else DIRECT for value in values], height=0.7)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("weights: low-level  ←  percentile ranks  →  high-level")
    return tidy(ax, "x")
