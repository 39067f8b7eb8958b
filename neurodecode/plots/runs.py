"""Pictures of runs that were left out: decoders side by side, a point for each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import invalid
from snn.plots.base import ANN as GREY
from snn.plots.base import DIRECT, SPIKING, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["run_scores"]

_COLOURS = (SPIKING, DIRECT, GREY)


def run_scores(scores: Mapping[str, Any], *, ax: Axes | None = None) -> Axes:
    """Draw the area under the curve of each left-out run, by subject, and the mean of each subject.

    Parameters
    ----------
    scores : mapping of str to RunScores
        Name of a decoder -> what `neurodecode.meeg.cross_validate_runs` found.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    if not scores:
        raise invalid("scores", "hold at least one", "none")
    ax = own_axes(ax, height=3.2)
    subjects = list(dict.fromkeys(who for found in scores.values() for who in found.by_subject()))
    wide = 0.8 / len(scores)
    for number, (name, found) in enumerate(scores.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        for x, who in enumerate(subjects):
            each = [auc for run, auc in found.auc.items() if found.subject[run] == who]
            place = x + (number - (len(scores) - 1) / 2) * wide
            ax.bar(
                place, np.mean(each) - 0.5, wide * 0.9, bottom=0.5, color=colour, alpha=0.45,
                label=f"{name} (mean {found.mean():.2f})" if x == 0 else None,
            )  # fmt: skip
            spread = np.linspace(-0.25, 0.25, len(each)) * wide if len(each) > 1 else [0.0]
            ax.plot(place + np.asarray(spread), each, "o", color=colour, markersize=3)
    ax.axhline(0.5, color=GREY, linestyle="--", linewidth=1)
    ax.set_xticks(range(len(subjects)), [f"subject {who}" for who in subjects])
    ax.set_ylabel("area under the curve (dots: runs)")
    ax.set_ylim(min(0.3, *(min(found.auc.values()) - 0.03 for found in scores.values())), 1.02)
    ax.legend(frameon=False, fontsize=8, loc="upper right")
    return tidy(ax, "y")
