"""Which category was taken for which."""

# c categories

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_same_length, check_shape, invalid
from snn.plots.base import own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_matrix"]


def confusion_matrix(counts: Any, names: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw how often each category, a row, was taken for each, a column.

    Parameters
    ----------
    counts : array of int, shape (c, c)
        From `BlockIdentification.confusion`, or scikit-learn's ``confusion_matrix``.
    names : sequence of c str
        The categories.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Examples
    --------
    >>> ax = confusion_matrix([[3, 1], [0, 4]], ["face", "house"])
    >>> [text.get_text() for text in ax.texts]
    ['3', '1', '0', '4']
    """
    counts = np.asarray(counts)
    check_shape("counts", counts, ("c", "c"))
    check_same_length(counts=counts, names=names)
    if counts.shape[0] != counts.shape[1] or (counts < 0).any() or (counts.sum(axis=1) == 0).any():
        raise invalid("counts", "be square, of numbers >= 0, with a true row of each category", counts)
    share = counts / counts.sum(axis=1, keepdims=True)
    ax = own_axes(ax, height=1.2 + 0.42 * len(names))
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if share[row, column] > 0.6 else "black"
        ax.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("decoded")
    ax.set_ylabel("seen")
    for side in ax.spines.values():
        side.set_visible(False)
    return ax
