"""How large predictions become against how probable the events are."""

# S seeds, B levels, K events

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_finite, check_fraction, invalid
from reservoir.plots.base import GREY, SMALL, colour, event_name, figure_of, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["probability_sweep"]

_MARKERS = "osD^vP*X"


def probability_sweep(probabilities: Any, amplitudes: Any, *, ax: Axes | None = None) -> Figure:
    """Draw the size of the prediction of each event against the probability of that event.

    Parameters
    ----------
    probabilities : array, shape (B,) or (B, K)
        Probability of the first of two events, or of each event, at each level.
    amplitudes : array, shape (B, K) or (S, B, K)
        What `reservoir.probability_sweep` returned, of one seed or of several.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    Both axes are of the same event, so that a perfect prediction of any event lies on the dotted diagonal. r is the
    correlation of the means over seeds with the probability of the event itself; Yamada & Chao (arXiv:2510.14382) give
    that with the probability of A for both events, which for B has the other sign. RMSE is the distance from the
    diagonal, which r does not see.
    """
    p, sizes = np.asarray(probabilities, dtype=np.float64), np.asarray(amplitudes, dtype=np.float64)
    check_finite("amplitudes", sizes)
    sizes = sizes[None] if sizes.ndim == 2 else sizes
    if sizes.ndim != 3 or 0 in sizes.shape:
        raise invalid("amplitudes", "have shape (B, K) or (S, B, K)", f"{np.shape(amplitudes)}")
    n_seeds, n_levels, n_events = sizes.shape
    if p.ndim == 1 and n_events == 2:
        p = np.stack([p, 1 - p], axis=1)
    if p.shape != (n_levels, n_events):
        required = f"have shape ({n_levels}, {n_events})" + (f", or ({n_levels},)" if n_events == 2 else "")
        raise invalid("probabilities", required, f"{np.shape(probabilities)}")
    for value in p.flat:
        check_fraction("probabilities", float(value))
    ax = own_axes(ax, 4.0)
    ax.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1.2)
    for k in range(n_events):
        mean, order = sizes[:, :, k].mean(axis=0), np.argsort(p[:, k], kind="stable")
        mark = _MARKERS[k % len(_MARKERS)]
        if n_seeds > 1:
            look = {"color": colour(k), "alpha": 0.35, "markersize": 4, "linewidth": 0}
            ax.plot(np.tile(p[:, k], n_seeds), sizes[:, :, k].ravel(), mark, **look)
        ax.plot(p[order, k], mean[order], color=colour(k), marker=mark, markersize=6, linewidth=1.4)
        text = f"{event_name(k)}: {_correlation(p[:, k], mean)}, RMSE {np.sqrt(((mean - p[:, k]) ** 2).mean()):.3f}"
        place = (0.03, 0.97 - 0.065 * k)
        ax.annotate(text, place, xycoords="axes fraction", color=colour(k), va="top", weight="bold", fontsize=9.5)
    seeds = f", {n_seeds} seeds" if n_seeds > 1 else ""
    ax.annotate(
        f"{n_levels} levels{seeds}", (0.97, 0.03), xycoords="axes fraction", ha="right", color=GREY, fontsize=SMALL
    )
    highest = max(1.0, float(sizes.max()))
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, highest + 0.2))
    ax.set(xlabel="probability of the event", ylabel="predicted amplitude (dotted: perfect)")
    return figure_of(tidy(ax, grid="y"))


def _correlation(p: np.ndarray, mean: np.ndarray) -> str:
    # A spread of rounding is none.
    if len(p) < 3 or min(np.ptp(p), np.ptp(mean)) < 1e-12:
        return "r not defined"
    return f"r = {np.corrcoef(p, mean)[0, 1]:.3f}"
