"""Errors of variants of a network side by side, such as ablations."""

# S seeds

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import check_option, invalid
from reservoir.plots.base import COLOURS, GREY, SMALL, figure_of, own_axes, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ablations"]


def ablations(
    errors: Mapping[str, Sequence[float] | np.ndarray],
    *,
    reference: str | None = None,
    label: str = "error (RMSE)",
    ax: Axes | None = None,
) -> Figure:
    """Draw the error of each variant: a bar for the mean, a dot for each seed.

    Parameters
    ----------
    errors : mapping of str to sequence of float
        An error for each seed; infinity where learning diverged. Of a `reservoir.comparison.Comparison`:
        ``{name: found.score(name, "switched") for name in found.curves}``.
    reference : str, optional
        The variant that others are compared with: a dashed line, and ratios to it.
    label : str
        What the axis is called.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    The ratio is that of the geometric means over seeds, paired if all have as many. Whether it differs from 1 is said
    by the dots, and better by ``Comparison.ratio``, which gives an interval. Where any seed diverged there is no bar.
    """
    rows = {name: np.asarray(values, dtype=np.float64).ravel() for name, values in errors.items()}
    if not rows or not all(len(values) for values in rows.values()):
        raise invalid("errors", "hold at least one error for each variant", f"{dict(errors)}")
    for name, values in rows.items():
        if np.isnan(values).any() or (values < 0).any():
            raise invalid("errors", "be at least 0", f"{values} for {name!r}")
    if reference is not None:
        check_option("reference", reference, rows)
    finite = np.concatenate([values[np.isfinite(values)] for values in rows.values()])
    highest = float(finite.max(initial=0)) or 1.0
    ax = own_axes(ax, 0.9 + 0.34 * len(rows))
    base = rows.get(reference) if reference is not None else None
    for place, (name, values) in enumerate(rows.items()):
        whole, known = np.isfinite(values).all(), values[np.isfinite(values)]
        if whole:
            tint = COLOURS[0] if name == reference else GREY
            ax.barh(place, values.mean(), color=tint, alpha=0.45, height=0.68)
        ax.plot(known, np.full(len(known), place), "o", color="black", markersize=3.5, alpha=0.7)
        text = _described(name, values, reference, base)
        look = {"textcoords": "offset points", "va": "center", "fontsize": SMALL, "color": GREY}
        ax.annotate(text, (known.max(initial=0), place), (7, 0), **look)
    if base is not None and np.isfinite(base).all():
        ax.axvline(base.mean(), color=COLOURS[0], linestyle="--", linewidth=1)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    n_seeds = sorted({len(values) for values in rows.values()})
    ax.set(xlim=(0, 1.4 * highest), xlabel=f"{label}; dots: {'/'.join(map(str, n_seeds))} seeds")
    return figure_of(tidy(ax, grid="x"))


def _described(name: str, values: np.ndarray, reference: str | None, base: np.ndarray | None) -> str:
    if not np.isfinite(values).all():
        return f"{int((~np.isfinite(values)).sum())} of {len(values)} diverged"
    if base is None or name == reference:
        return f"{values.mean():.3f}"
    if not np.isfinite(base).all() or not (values > 0).all() or not (base > 0).all():
        return f"{values.mean():.3f}"
    return f"{values.mean():.3f}, x {np.exp(np.log(values).mean() - np.log(base).mean()):.2f}"
