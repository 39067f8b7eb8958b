"""Weights: the recurrent matrix, and what a neuron says about what and about when."""

# N neurons, K outputs

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_finite, check_int, check_shape, invalid
from reservoir.network import Reservoir
from reservoir.plots.base import GREY, SMALL, colour, event_name, figure_of, own_axes, places, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["readout_weights", "weight_matrix"]


def weight_matrix(
    weights: Reservoir | np.ndarray,
    *,
    populations: Mapping[str, slice] | None = None,
    max_cells: int = 200,
    ax: Axes | None = None,
) -> Figure:
    """Draw who sends to whom, red what excites and blue what inhibits.

    Parameters
    ----------
    weights : Reservoir, or array of shape (N, N)
        A network, or its weights: rows send, columns receive.
    populations : mapping of str to slice, optional
        Whose borders are drawn; by default those of the network.
    max_cells : int
        With more neurons than this, a cell is the mean weight between blocks of neighbours, absent synapses as 0:
        single synapses of a sparse matrix could not be seen.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure
    """
    if isinstance(weights, Reservoir):
        populations = weights.populations if populations is None else populations
        weights = weights.to_dense()
    weights = check_finite("weights", check_shape("weights", np.asarray(weights, dtype=np.float64), ("N", "N")))
    n = len(weights)
    if not n:
        raise invalid("weights", "be of at least one neuron", weights)
    groups = places(populations, n)
    edges = np.linspace(0, n, min(n, check_int("max_cells", max_cells, at_least=1)) + 1).round().astype(int)
    sums = np.add.reduceat(np.add.reduceat(weights, edges[:-1], axis=0), edges[:-1], axis=1)
    means = sums / np.outer(np.diff(edges), np.diff(edges))
    # Robust: one heavy cell would leave the others white.
    limit = float(np.quantile(np.abs(means), 0.995)) or float(np.abs(means).max()) or 1.0
    ax = own_axes(ax, 4.2)
    look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "rasterized": True}
    image = ax.pcolormesh(edges - 0.5, edges - 0.5, means, **look)
    for name, members in groups.items():
        if name:
            if members[0]:
                ax.axhline(members[0] - 0.5, color="black", linewidth=0.7)
                ax.axvline(members[0] - 0.5, color="black", linewidth=0.7)
            at = {"ha": "center", "fontsize": SMALL, "weight": "bold"}
            ax.annotate(name, (members.mean(), 1.01), xycoords=("data", "axes fraction"), va="bottom", **at)
            at["ha"] = "left"
            ax.annotate(name, (1.02, members.mean()), xycoords=("axes fraction", "data"), va="center", **at)
    ax.set(aspect="equal", xlabel="neuron that receives", ylabel="neuron that sends")
    ax.invert_yaxis()
    size = f", mean of {n / (len(edges) - 1):.3g} x {n / (len(edges) - 1):.3g}" if len(edges) - 1 < n else ""
    figure_of(ax).colorbar(image, ax=ax, label=f"weight{size}", extend="both", pad=0.1, shrink=0.8)
    return figure_of(ax)


def readout_weights(
    what: Any, when: Any, *, output: int = 0, populations: Mapping[str, slice] | None = None, ax: Axes | None = None
) -> Figure:
    """Draw the weight of each neuron in the readout of when against that in the readout of what.

    Parameters
    ----------
    what, when : array, shape (K, N)
        Weights of one network, such as ``learner.what_weights[0]`` and ``learner.when.weights[0]``.
    output : int
        Which event.
    populations : mapping of str to slice, optional
        Such as `Reservoir.populations`: each has a colour.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    The cosine of the two weight vectors is given with the standard deviation of that of random ones, ``1 / sqrt(N)``;
    `subspace_angles` tests it.
    """
    what, when = np.asarray(what, dtype=np.float64), np.asarray(when, dtype=np.float64)
    for name, weights in (("what", what), ("when", when)):
        check_finite(name, check_shape(name, weights, ("K", "N")))
    check_shape("when", when, what.shape)
    check_int("output", output, at_least=0, at_most=len(what) - 1)
    a, b = what[output], when[output]
    ax = own_axes(ax, 3.8)
    ax.axhline(0, color="black", linewidth=0.6, alpha=0.5)
    ax.axvline(0, color="black", linewidth=0.6, alpha=0.5)
    for number, (name, members) in enumerate(places(populations, len(a)).items()):
        mark, tint = "o^sDvP*X"[number % 8], colour(number) if name else "black"
        ax.scatter(a[members], b[members], s=12, marker=mark, color=tint, alpha=0.5, linewidth=0, rasterized=True)
        if name:
            place = (0.02 + 0.08 * number, 1.02)
            ax.annotate(name, place, xycoords="axes fraction", color=tint, weight="bold", va="bottom")
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = f"cosine {a @ b / norm:+.3f}" if norm > 0 else "no weights"
    text = f"{cosine} (of random weights: 0 ± {1 / np.sqrt(len(a)):.3f})"
    ax.annotate(text, (1, 1.02), xycoords="axes fraction", ha="right", va="bottom", fontsize=SMALL, color=GREY)
    name = event_name(output)
    ax.set(xlabel=f"weight for what ({name})", ylabel=f"weight for when ({name})")
    return figure_of(tidy(ax, grid="both"))
