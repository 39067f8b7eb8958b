"""Images in rows: what was seen, and what was decoded from the brain, one below the other."""

# N images, R rows, H height, W width

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_int, check_same_length, invalid
from snn.plots.base import WIDTH, own_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["image_rows"]

# In the units of the picture an image is 1 wide.
_GAP, _NAMES = 0.06, 1.3
_PIXELS = 256


def image_rows(
    rows: Mapping[str, Any],
    *,
    titles: Sequence[str] | None = None,
    n_columns: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """Draw images in rows, those of one stimulus in a column.

    Parameters
    ----------
    rows : mapping of str to array or tensor, each of shape (N, 3, H, W) or (N, 1, H, W)
        What a row shows -> its images, floating point in [0, 1] or bytes. Sizes may differ between rows.
    titles : sequence of N str, optional
        What stands above each column, such as its score.
    n_columns : int
        Columns beside each other; more stimuli go below, all rows again.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no row, or rows differ in their number of images.

    Examples
    --------
    >>> import numpy as np
    >>> ax = image_rows({"seen": np.zeros((3, 3, 8, 8)), "decoded": np.ones((3, 3, 16, 16))})
    >>> len(ax.images)
    6
    """
    n_columns = check_int("n_columns", n_columns, at_least=1)
    if not rows:
        raise invalid("rows", "hold at least one row of images", "none")
    pixels = {name: _pixels(name, images) for name, images in rows.items()}
    n = check_same_length(**pixels)
    if titles is not None:
        check_same_length(titles=titles, images=range(n))
    n_columns = min(n_columns, n)
    n_blocks, step = -(-n // n_columns), 1 + _GAP
    block = len(rows) * step + (0.35 if titles is not None else 0.12)
    ax = own_axes(ax, height=WIDTH * (n_blocks * block) / (n_columns * step + _NAMES))
    for k in range(n):
        column, top = k % n_columns * step, (k // n_columns) * block + (0.25 if titles is not None else 0)
        for row, images in enumerate(pixels.values()):
            y = top + row * step
            ax.imshow(images[k], extent=(column, column + 1, y + 1, y), cmap="gray", vmin=0, vmax=1, aspect="equal")
        if titles is not None:
            ax.text(column + 0.5, top - 0.06, titles[k], ha="center", va="bottom", fontsize=7)
    for b in range(n_blocks):
        for row, name in enumerate(pixels):
            y = b * block + (0.25 if titles is not None else 0) + row * step + 0.5
            ax.text(-0.08, y, name, ha="right", va="center", fontsize=8)
    ax.set_xlim(-_NAMES, n_columns * step)
    ax.set_ylim(n_blocks * block, -0.05)
    ax.set_axis_off()
    return ax


def _pixels(name: str, images: Any) -> np.ndarray:
    """Return images as (N, H, W, 3) or (N, H, W), in [0, 1]."""
    images = images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise invalid(f"rows[{name!r}]", "have shape (N, 3, H, W) or (N, 1, H, W)", images)
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    # No more pixels than the picture has: hundreds of large photographs would fill the memory.
    every = max(1, min(images.shape[2:]) // _PIXELS)
    images = np.clip(images[:, :, ::every, ::every].astype(np.float32) / scale, 0, 1)
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
