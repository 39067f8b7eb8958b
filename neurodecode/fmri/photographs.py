"""Real pictures without a network: crops of the two photographs that come with scikit-learn, each with a caption."""

# n pictures; H, W height and width of a photograph

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_int, check_number, invalid

__all__ = ["PHOTOGRAPHS", "Photographs", "photographs"]

# Photograph -> what lies where, as (words, left, top, right, bottom) in pixels of 640 x 427. What stands later hides
# what stands before it. Both are under CC BY 2.0 (scikit-learn's images/README.txt names authors and sources).
PHOTOGRAPHS: dict[str, tuple[tuple[str, int, int, int, int], ...]] = {
    "china": (
        ("a hazy sky", 0, 0, 640, 215),
        ("a lake with boats", 330, 215, 640, 330),
        ("houses in the haze", 0, 205, 90, 330),
        ("green trees", 0, 330, 640, 427),
        ("a green tree", 0, 145, 60, 427),
        ("a tall green tree", 550, 135, 640, 427),
        ("an orange tiled roof of a Chinese tower", 95, 30, 320, 130),
        ("red and green galleries of a Chinese tower", 65, 130, 350, 380),
    ),
    "flower": (
        ("dark green leaves", 0, 0, 640, 427),
        ("a big dark leaf", 0, 60, 145, 340),
        ("orange petals of a dahlia", 168, 85, 446, 360),
        ("a second orange flower", 288, 374, 468, 427),
    ),
}

# Photographs are cut into cells of about this many pixels; a cell belongs to one side of the split.
_CELL = 107

# What takes a smaller part of a crop is not in its caption.
_SEEN = 0.2


@dataclass(frozen=True, eq=False, kw_only=True)
class Photographs:
    """Crops of photographs.

    Parameters
    ----------
    images : ndarray of float32, shape (n, 3, size, size)
        The pictures, in [0, 1].
    captions : tuple of str
        What is on each.
    is_test : ndarray of bool, shape (n,)
        Which are for testing: they share no pixel with the others.
    sources : tuple of str
        The photograph of each, a key of `PHOTOGRAPHS`.
    boxes : ndarray of int64, shape (n, 4)
        Where each was cut: left, top, right, bottom in pixels.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    is_test: np.ndarray
    sources: tuple[str, ...]
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.captions)


def photographs(n: int, *, rng: np.random.Generator, size: int = 64, test_fraction: float = 0.2) -> Photographs:
    """Return real pictures of a size, split so that no pixel is on both sides.

    Parameters
    ----------
    n : int
        How many.
    rng : numpy.random.Generator
        Where the crops come from.
    size : int
        Height and width of the pictures, in pixels.
    test_fraction : float
        Share of the pictures that are for testing.

    Returns
    -------
    Photographs
        In random order.

    Raises
    ------
    ValueError
        If `n` or `size` is too small, or a side would be empty.

    Notes
    -----
    Each photograph is divided into cells, 4 by 6, of which a sixth is for testing. Test pictures are cut from within a
    cell for testing; training pictures from anywhere that touches no such cell. Crops on one side overlap and are
    similar, so this is a source for trying things out and for tests: scores on it say little about other pictures.

    The photographs are "China" by Daniel Buechele and a dahlia by the Flickr user vultilion, both CC BY 2.0.

    Examples
    --------
    >>> found = photographs(10, rng=np.random.default_rng(0), size=32)
    >>> found.images.shape, int(found.is_test.sum())
    ((10, 3, 32, 32), 2)
    """
    n, size = check_int("n", n, at_least=1), check_int("size", size, at_least=8)
    check_number("test_fraction", test_fraction, at_least=0, at_most=1)
    n_test = round(n * test_fraction)
    if test_fraction not in (0, 1) and n_test in (0, n):
        raise invalid("test_fraction", f"leave a picture of {n} on each side", f"{test_fraction:g}")
    pictures = _opened()
    cells = {name: _test_cells(picture.shape, rng) for name, picture in pictures.items()}
    is_test = rng.permutation(np.arange(n) < n_test)
    names = list(pictures)
    images, captions, sources, boxes = [], [], [], []
    for test in is_test.tolist():
        name = names[int(rng.integers(len(names)))]
        box = _cut(pictures[name].shape, cells[name], test, rng)
        left, top, right, bottom = box
        images.append(_resized(pictures[name][top:bottom, left:right], size))
        captions.append(_caption(PHOTOGRAPHS[name], box))
        sources.append(name)
        boxes.append(box)
    return Photographs(
        images=np.stack(images),
        captions=tuple(captions),
        is_test=is_test,
        sources=tuple(sources),
        boxes=np.array(boxes, dtype=np.int64),
    )


def _opened() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_sample_image

    return {name: load_sample_image(f"{name}.jpg") for name in PHOTOGRAPHS}


def _test_cells(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return the cells for testing as boxes, shape (m, 4)."""
    down, right = (np.linspace(0, length, round(length / _CELL) + 1).astype(int) for length in shape[:2])
    every = [
        (left, top, to_right, to_bottom)
        for top, to_bottom in itertools.pairwise(down)
        for left, to_right in itertools.pairwise(right)
    ]
    chosen = rng.choice(len(every), size=len(every) // 6, replace=False)
    return np.array(every)[chosen]


def _cut(shape: tuple[int, ...], cells: np.ndarray, test: bool, rng: np.random.Generator) -> tuple[int, int, int, int]:
    if test:
        left, top, right, bottom = cells[int(rng.integers(len(cells)))]
        side = int(rng.integers(_CELL * 3 // 5, min(right - left, bottom - top) + 1))
        x, y = int(rng.integers(left, right - side + 1)), int(rng.integers(top, bottom - side + 1))
        return x, y, x + side, y + side
    while True:
        # Training cells are most of the picture, so that this ends soon.
        side = int(rng.integers(_CELL * 3 // 5, _CELL * 3 // 2))
        x, y = int(rng.integers(0, shape[1] - side + 1)), int(rng.integers(0, shape[0] - side + 1))
        apart = (cells[:, 0] >= x + side) | (cells[:, 2] <= x) | (cells[:, 1] >= y + side) | (cells[:, 3] <= y)
        if apart.all():
            return x, y, x + side, y + side


def _resized(crop: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    small = Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)
    return (np.asarray(small, dtype=np.float32) / 255).transpose(2, 0, 1)


def _caption(things: tuple[tuple[str, int, int, int, int], ...], box: tuple[int, int, int, int]) -> str:
    left, top, right, bottom = box
    label = np.full((bottom - top, right - left), -1)
    for place, (_, x0, y0, x1, y1) in enumerate(things):
        label[max(y0 - top, 0) : max(y1 - top, 0), max(x0 - left, 0) : max(x1 - left, 0)] = place
    share = np.bincount(label[label >= 0], minlength=len(things)) / label.size
    seen = [place for place in np.argsort(-share, kind="stable") if share[place] >= _SEEN] or [int(share.argmax())]
    return " and ".join(things[place][0] for place in seen)
