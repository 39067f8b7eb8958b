"""Scores with their intervals, beside chance and beside what a paper reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import check_finite, invalid
from snn.plots.base import ANN as GREY
from snn.plots.base import DIRECT, SPIKING, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["score_intervals"]


def score_intervals(
    scores: Mapping[str, tuple[float, float, float]],
    *,
    others: Mapping[str, Mapping[str, float]] | None = None,
    chance: float | None = None,
    label: str = "score",
    ax: Axes | None = None,
) -> Axes:
    """Draw scores as points with intervals, one a line.

    Parameters
    ----------
    scores : mapping of str to (value, low, high)
        What is scored -> its value and the bounds of its interval; NaN bounds draw none.
    others : mapping of str to mapping of str to float, optional
        Who else reports these scores -> what is scored -> value: a paper, a baseline. What they lack is left out.
    chance : float, optional
        Drawn as a line.
    label : str
        What the axis says.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Examples
    --------
    >>> ax = score_intervals({"CLIP": (0.8, 0.7, 0.9)}, others={"paper": {"CLIP": 0.915}}, chance=0.5)
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['CLIP']
    """
    if not scores:
        raise invalid("scores", "hold at least one score", "none")
    names = list(scores)
    table = np.asarray([scores[name] for name in names], dtype=float)
    if table.ndim != 2 or table.shape[1] != 3:
        raise invalid("scores", "give (value, low, high) for each name", table)
    check_finite("scores", table[:, 0], advice="Leave out scores that could not be computed.")
    ax = own_axes(ax, height=0.9 + 0.32 * len(names))
    y = np.arange(len(names))
    known = np.isfinite(table[:, 1:]).all(1)
    ax.hlines(y[known], table[known, 1], table[known, 2], color=SPIKING, linewidth=2)
    ax.plot(table[:, 0], y, "o", color=SPIKING, label="this run")
    for marker, colour, (who, values) in zip(
        "D^sv", (DIRECT, GREY, "#009E73", "#CC79A7"), (others or {}).items(), strict=False
    ):
        found = [(values[name], k) for k, name in enumerate(names) if name in values]
        if found:
            ax.plot(*zip(*found, strict=True), marker, color=colour, markerfacecolor="none", label=who)
    if chance is not None:
        ax.axvline(chance, color=GREY, linestyle="--", linewidth=1)
        ax.annotate("chance", (chance, 0), xycoords=("data", "axes fraction"), fontsize=7, color=GREY,
                    xytext=(2, 2), textcoords="offset points")  # fmt: skip
    ax.set_yticks(y, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(label)
    if others:
        ax.legend(frameon=False, fontsize=8, loc="best")
    return tidy(ax, "x")
