"""Learning curves: error over the trials of all blocks, of one rule or of several."""

# S networks

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import check_number, invalid
from reservoir.experiment import LearningCurves
from reservoir.plots.base import GREY, colour, draw_spread, event_name, figure_of, label_ends, own_axes, tidy
from reservoir.tasks import PredictionTask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["learning_curves"]

_MARKERS = "osD^vP*X"


def learning_curves(
    curves: LearningCurves | Mapping[str, LearningCurves], *, top: float | None = None, ax: Axes | None = None
) -> Figure:
    """Draw the error with the cue alone over trials; of several networks the mean and the standard deviation.

    Parameters
    ----------
    curves : LearningCurves, or mapping of str to LearningCurves
        Of one learner, or of several by name, such as ``comparison.curves``, which learned the same blocks.
    top : float, optional
        Where the axis of errors ends, for curves of which one is far above the others.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    Dotted lines are the borders of blocks, whose statistics stand above: delay and probability of each event. A line
    ends where learning of any of its networks diverged, and says of how many: a mean of the others would flatter it.
    """
    named = {"": curves} if isinstance(curves, LearningCurves) else dict(curves)
    if not named:
        raise invalid("curves", "hold at least one LearningCurves", "none")
    first = next(iter(named.values()))
    for name, one in named.items():
        if list(map(repr, one.blocks)) != list(map(repr, first.blocks)):
            raise invalid("curves", "be of the same blocks", f"{one.blocks} from {name!r}, {first.blocks} before")
    length = int(max(one.tests[-1] for one in named.values()))
    is_own, ax = ax is None, own_axes(ax, 3.8)
    if is_own:
        # Room for the statistics of each block, and for names.
        figure_of(ax).set_size_inches(max(4.8, 1.1 + 1.15 * len(first.blocks)) + (1.2 if "" not in named else 0), 3.8)
    ends, highest = [], 0.0
    for number, (name, one) in enumerate(named.items()):
        last = None
        for block, errors in enumerate(one.rmse):
            whole = np.isfinite(errors).all(axis=1)
            # From the first test on at which a network had diverged, nothing.
            kept = len(whole) if whole.all() else int(np.argmin(whole))
            if kept:
                x = one.tests[:kept] + block * length
                marker = _MARKERS[number % len(_MARKERS)]
                mean = draw_spread(ax, x, errors[:kept], colour(number), marker=marker, markersize=4)
                last = (float(x[-1]), float(mean[-1]))
                highest = max(highest, float((mean + errors[:kept].std(axis=1)).max()))
            if kept < len(whole):
                break
        diverged = int((~np.isfinite(one.rmse)).any(axis=(0, 1)).sum())
        if last is None:
            last = (0.0, 0.0)
        elif diverged:
            ax.plot(*last, "x", color=colour(number), markersize=9)
        text = name + (f" ({diverged} of {one.rmse.shape[2]} diverged)" if diverged else "")
        ends.append((len(first.blocks) * length, last[1], text.strip(), colour(number)))
    for block, task in enumerate(first.blocks):
        if block:
            ax.axvline(block * length, color=GREY, linestyle=":", linewidth=1)
        place = ((block + 0.5) * length, 1.01)
        look = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "color": GREY, "fontsize": 7}
        ax.annotate(_statistics(task), place, **look)
    limit = 1.08 * highest if top is None else check_number("top", top, above=0)
    networks = sorted({one.rmse.shape[2] for one in named.values()})
    spread = f" (mean and standard deviation of {'/'.join(map(str, networks))} networks)" if networks[-1] > 1 else ""
    ax.set(xlim=(0, max(len(first.blocks) * length, 1)), ylim=(0, limit or 1))
    ax.set(xlabel=f"trial{spread}", ylabel="error with the cue alone (RMSE)")
    label_ends(ax, [end for end in ends if end[2]])
    return figure_of(tidy(ax, grid="y"))


def _statistics(task: PredictionTask) -> str:
    """Return delays and probabilities of a block, a line an event."""
    if task.n_cues > 1:
        return f"{task.n_cues} cues"
    pairs = zip(task.delays_ms[0], task.probabilities[0], strict=True)
    return "\n".join(f"{event_name(k)} {delay:g} ms: {p:g}" for k, (delay, p) in enumerate(pairs))
