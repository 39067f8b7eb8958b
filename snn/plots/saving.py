"""A figure in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import invalid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["save_figure"]


def save_figure(drawn: Figure | Axes, path: str | os.PathLike[str], *, dpi: float = 150) -> Path:
    """Write a figure as PNG, and close it: a script that draws many would keep all of them in memory.

    Parameters
    ----------
    drawn : Figure or Axes
        The figure, or axes in it.
    path : path-like
        The file. Its folder is made; a file that is there is replaced once the new one is complete.
    dpi : float
        Dots an inch.

    Returns
    -------
    Path
    """
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    figure = drawn.get_figure(root=True) if isinstance(drawn, Axes) else drawn
    if not isinstance(figure, Figure):
        raise invalid("drawn", "be a figure or axes of matplotlib", f"{drawn!r}", kind=TypeError)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=dpi, format="png")
    plt.close(figure)
    return path
