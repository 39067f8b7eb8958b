"""Picture of calibration: whether a network is as often right as it says."""

# M bins

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import invalid
from snn.early_exit import Reliability
from snn.plots.base import ANN, DIRECT, SPIKING, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["reliability_diagram"]

# Points²: the area of a marker that stands for all predictions, and the least that can be seen.
_WHOLE, _LEAST = 600.0, 14.0
_CORNER = {
    "xycoords": "axes fraction",
    "textcoords": "offset points",
    "ha": "right",
    "va": "bottom",
    "fontsize": 7.5,
    "color": ANN,
}


def reliability_diagram(
    before: Reliability,
    after: Reliability | None = None,
    *,
    names: tuple[str, str] = ("before", "after"),
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against confidence, one marker a bin, and how far each is from the diagonal.

    Parameters
    ----------
    before : Reliability
        Such as of the network as trained, ``DynamicConfidence.reliability(x, y, alpha=1)``.
    after : Reliability, optional
        Such as with the fitted temperature, ``DynamicConfidence.reliability(x, y)``.
    names : tuple of str, str
        What the legend calls them; their expected calibration errors (ECE) stand beside.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        A marker lies at the mean confidence and the accuracy of its bin; its area is the share of the predictions in
        the bin, below about 2 % the smallest that can be seen. Empty bins have none. Above the diagonal a network is
        right more often than it says, below it less often.

    Raises
    ------
    TypeError, ValueError
        If what is given is no Reliability, holds no predictions, or has no name.

    Notes
    -----
    The diagram of Guo et al. [1]_, who draw bars. Markers lie at the mean confidence and not in the middle of the bin,
    and show how many predictions each of them stands for: the ECE weighs the gaps, drawn as thin lines, by these.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599).
    """
    found = {"before": before} | ({} if after is None else {"after": after})
    for key, one in found.items():
        if not isinstance(one, Reliability):
            advice = "Call DynamicConfidence.reliability(x, y)."
            raise invalid(key, "be a snn.early_exit.Reliability", one, advice, kind=TypeError)
        if not one.counts.sum():
            raise invalid(key, "have at least one prediction", "none")
    if isinstance(names, str) or len(names) < len(found):
        raise invalid("names", f"be {len(found)} names", names)
    ax = own_axes(ax, 5.2)
    ax.plot([0, 100], [0, 100], color=ANN, linestyle="--", linewidth=1.2, label="as sure as right")
    # Hollow before and filled after: colour is not the only sign.
    looks = [
        {"facecolor": "none", "edgecolor": DIRECT, "marker": "s", "linewidth": 1.5},
        {"facecolor": SPIKING, "edgecolor": "white", "marker": "o", "linewidth": 0.8, "alpha": 0.85},
    ]
    for k, (one, name) in enumerate(zip(found.values(), names, strict=False)):
        filled = one.counts > 0
        x, y = 100 * one.confidence[filled], 100 * one.accuracy[filled]
        area = np.maximum(_WHOLE * one.counts[filled] / one.counts.sum(), _LEAST)
        colour = (DIRECT, SPIKING)[k]
        ax.vlines(x, np.minimum(x, y), np.maximum(x, y), color=colour, linewidth=1, alpha=0.5, zorder=2)
        ax.plot(x, y, color=colour, linewidth=0.8, alpha=0.5, zorder=2)
        label = f"{name}: ECE {100 * one.ece:.2f} %"
        ax.scatter(x, y, area, label=label, clip_on=False, zorder=3 + k, **looks[k])
    # Room for the largest markers, which lie in the upper corner.
    ax.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal")
    ax.set(xlabel="confidence (%)", ylabel="accuracy (%)")
    ax.annotate("area: share of\nthe predictions", (1, 0), (-4, 6), **_CORNER)
    legend = ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, -0.14), borderaxespad=0)
    for handle in legend.legend_handles[1:]:
        handle.set_sizes([36])
    return tidy(ax, grid="both")
