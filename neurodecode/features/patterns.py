"""Gradients and local patterns of grey images: the functions behind `HOG` and `LBP`."""

# B batch, H height, W width

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from neuroloaders.checks import check_int, check_number, check_option, check_shape, invalid

__all__ = ["PATTERNS", "grey", "hog", "local_binary_patterns"]

# Luminance of red, green and blue (ITU-R BT.709, as scikit-image rounds them).
_LUMINANCE = (0.2125, 0.7154, 0.0721)

# Codes of a pattern of P bits.
PATTERNS = {
    "default": "the number that the bits are, 2**P codes",
    "uniform": "how many bits are set if they change at most twice around the circle, else P + 1; P + 2 codes",
}

# Grey values are whole numbers and weights have five decimals: what differs by less is rounding.
_TIE = 1e-11


def grey(images: Tensor) -> Tensor:
    """Return the luminance of colour images.

    Parameters
    ----------
    images : Tensor of floating point, shape (B, 3, H, W)

    Returns
    -------
    Tensor of float64, shape (B, H, W)
        In the range of `images`.
    """
    check_shape("images", images, ("B", 3, "H", "W"))
    return torch.einsum("bchw,c->bhw", images.double(), images.new_tensor(_LUMINANCE, dtype=torch.float64))


def hog(images: Tensor, *, orientations: int = 8, cell: int = 8, block: int = 2) -> Tensor:
    """Histograms of oriented gradients of grey images.

    Parameters
    ----------
    images : Tensor of floating point, shape (B, H, W)
        Grey values.
    orientations : int
        Bins from 0 to 180 degrees; a gradient and its opposite are one.
    cell : int
        Side of a cell, pixels. Pixels beyond the last whole cell are left out.
    block : int
        Side of a block, cells; blocks overlap, one begins at each cell.

    Returns
    -------
    Tensor of float64, shape (B, n_blocks_down, n_blocks_across, block, block, orientations)

    Notes
    -----
    Dalal & Triggs 2005 [1]_ with the choices of scikit-image's ``hog``: central differences that are 0 at the border;
    each pixel votes with its magnitude for one bin; the votes of a cell are averaged; blocks are normalised by L2-Hys,
    v / sqrt(|v|² + 1e-10), clipped at 0.2 and normalised again.

    References
    ----------
    .. [1] Dalal & Triggs, Histograms of oriented gradients for human detection, CVPR 2005,
       doi:10.1109/CVPR.2005.177.
    """
    check_shape("images", images, ("B", "H", "W"))
    for name, value in (("orientations", orientations), ("cell", cell), ("block", block)):
        check_int(name, value, at_least=1)
    x = images.double()
    down, across = (size // cell for size in x.shape[1:])
    if min(down, across) < block:
        raise invalid("images", f"have at least {block * cell} pixels a side", x)
    rows, columns = torch.zeros_like(x), torch.zeros_like(x)
    rows[:, 1:-1] = x[:, 2:] - x[:, :-2]
    columns[:, :, 1:-1] = x[:, :, 2:] - x[:, :, :-2]
    angle = torch.rad2deg(torch.atan2(rows, columns)) % 180
    place = (angle / (180 / orientations)).floor().clamp(0, orientations - 1).long()
    votes = x.new_zeros(len(x), orientations, *x.shape[1:])
    votes.scatter_(1, place[:, None], torch.hypot(rows, columns)[:, None])
    cells = functional.avg_pool2d(votes[..., : down * cell, : across * cell], cell)
    # (B, orientations, blocks down, blocks across, block, block), then orientations last.
    blocks = cells.unfold(2, block, 1).unfold(3, block, 1).permute(0, 2, 3, 4, 5, 1)
    normed = _unit(blocks).clamp(max=0.2)
    return _unit(normed)


def local_binary_patterns(
    images: Tensor, *, points: int = 8, radius: float = 1.0, pattern: str = "uniform"
) -> tuple[Tensor, int]:
    """Code of each pixel's surround: which points on a circle are at least as bright as the pixel.

    Parameters
    ----------
    images : Tensor, shape (B, H, W)
        Grey values from 0 to 255; rounded to whole numbers.
    points : int
        Points P on the circle, counter-clockwise from the right; values between pixels are interpolated linearly, those
        outside the image are 0.
    radius : float
        Of the circle, pixels.
    pattern : {"default", "uniform"}
        A key of `PATTERNS`.

    Returns
    -------
    codes : Tensor of int64, shape (B, H, W)
    n_codes : int
        How many there can be.

    Notes
    -----
    Ojala et al. 2002 [1]_; points and codes as in scikit-image's ``local_binary_pattern``. Where all points are as
    bright as the pixel the bits are set, which scikit-image leaves to rounding.

    References
    ----------
    .. [1] Ojala, Pietikäinen & Mäenpää, Multiresolution gray-scale and rotation invariant texture classification with
       local binary patterns, IEEE TPAMI 24 (2002), doi:10.1109/TPAMI.2002.1017623.
    """
    check_shape("images", images, ("B", "H", "W"))
    check_int("points", points, at_least=2, at_most=24)
    check_number("radius", radius, above=0)
    check_option("pattern", pattern, PATTERNS)
    x = images.double().round()
    height, width = x.shape[1:]
    margin = math.ceil(radius) + 1
    padded = functional.pad(x, (margin,) * 4)
    bits = []
    for k in range(points):
        # Five decimals, so that points on the axes lie on pixels.
        down = round(-radius * math.sin(2 * math.pi * k / points), 5)
        across = round(radius * math.cos(2 * math.pi * k / points), 5)
        bits.append(_shifted(padded, down + margin, across + margin, height, width) >= x - _TIE)
    bits = torch.stack(bits)
    if pattern == "default":
        weights = 2 ** torch.arange(points, device=x.device)
        return torch.einsum("pbhw,p->bhw", bits.long(), weights), 2**points
    n_set, changes = bits.sum(0), (bits != bits.roll(1, dims=0)).sum(0)
    return torch.where(changes <= 2, n_set, points + 1), points + 2


def _shifted(padded: Tensor, down: float, across: float, height: int, width: int) -> Tensor:
    """Return the image seen from `down`, `across`, between pixels by linear interpolation."""
    top, left = math.floor(down), math.floor(across)
    y, x = down - top, across - left
    total = torch.zeros_like(padded[:, :height, :width])
    for row, across_weight in ((top, 1 - y), (top + 1, y)):
        for column, weight in ((left, 1 - x), (left + 1, x)):
            if across_weight * weight:
                total += across_weight * weight * padded[:, row : row + height, column : column + width]
    return total


def _unit(blocks: Tensor) -> Tensor:
    return blocks / (blocks.square().sum(dim=(-3, -2, -1), keepdim=True) + 1e-10).sqrt()
