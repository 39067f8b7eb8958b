"""Targets of several kinds as one matrix, without a copy: latents and embeddings that lie in files of their own."""

# n rows, m targets

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from neurodecode.ridge.targets import open_array
from neuroloaders.checks import invalid

__all__ = ["Layout", "SideBySide"]


class Layout:
    """Which columns of a matrix belong to which kind of target.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of a row of each kind, in order.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        As given.
    columns : dict of str to slice
        Where each kind lies.
    n_targets : int
        Columns in all.

    Examples
    --------
    >>> layout = Layout({"latents": (3,), "text": (2, 4)})
    >>> layout.n_targets, layout.columns["text"]
    (11, slice(3, 11, None))
    >>> layout.split(np.zeros((5, 11)))["text"].shape
    (5, 2, 4)
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = {name: tuple(int(size) for size in shape) for name, shape in shapes.items()}
        ends = list(itertools.accumulate(math.prod(shape) for shape in self.shapes.values()))
        self.columns = dict(zip(self.shapes, map(slice, [0, *ends[:-1]], ends), strict=True))
        self.n_targets = ends[-1] if ends else 0

    @property
    def target_groups(self) -> np.ndarray:
        """Return the kind of each column, shape (n_targets,)."""
        return np.repeat(np.asarray(list(self.shapes)), [math.prod(shape) for shape in self.shapes.values()])

    def split(self, matrix: Any) -> dict[str, Any]:
        """Return the kinds of target of a matrix of shape (n, n_targets), each in its own shape."""
        if matrix.ndim != 2 or matrix.shape[1] != self.n_targets:
            raise invalid("matrix", f"have shape (n, {self.n_targets})", matrix)
        return {name: matrix[:, where].reshape(len(matrix), *self.shapes[name]) for name, where in self.columns.items()}


class SideBySide:
    """A matrix of which each block of columns is an array of its own, read when it is asked for.

    One factorisation then serves all of them: pass it as `y` to `MultiTargetRidge.fit` or `predict_to_folder`, and
    `layout.target_groups` for an alpha of its own for each block.

    Parameters
    ----------
    blocks : mapping of str to array, memory map or path, each of shape (n_samples, ...)
        The blocks, in order; further axes are flattened in C order.

    Attributes
    ----------
    layout : Layout
        Where each block lies.
    shape, ndim, dtype
        Of the whole.

    Raises
    ------
    ValueError
        If there is no block, or blocks differ in their number of rows.

    Examples
    --------
    >>> both = SideBySide({"latents": np.zeros((5, 3)), "text": np.ones((5, 2, 4))})
    >>> both.shape, both[:, 2:5].tolist()[0]
    ((5, 11), [0.0, 1.0, 1.0])
    """

    ndim = 2

    def __init__(self, blocks: Mapping[str, Any]) -> None:
        if not blocks:
            raise invalid("blocks", "name at least one array", "none")
        arrays = {}
        for name, block in blocks.items():
            array = open_array(f"blocks[{name!r}]", block)
            if (
                not isinstance(array, np.ndarray)
                or array.dtype.kind not in "fiub"
                or array.ndim < 2
                or 0 in array.shape
            ):
                raise invalid(f"blocks[{name!r}]", "be an array of real numbers of shape (n_samples, ...)", array)
            arrays[name] = array
        rows = {name: len(array) for name, array in arrays.items()}
        if len(set(rows.values())) > 1:
            came = ", ".join(f"{name}: {count}" for name, count in rows.items())
            raise invalid(
                "blocks", "have the same number of rows", came, "Each row of one belongs to that of the others."
            )
        self.layout = Layout({name: array.shape[1:] for name, array in arrays.items()})
        self._arrays = [array.reshape(len(array), -1) for array in arrays.values()]
        self.shape = (len(self._arrays[0]), self.layout.n_targets)
        self.dtype = np.result_type(*(array.dtype for array in self._arrays))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Return columns ``[:, first:last]`` of all rows as an array."""
        everything, columns = key
        if everything != slice(None) or columns.step not in (None, 1):
            raise invalid("key", "be [:, first:last]", f"{key!r}", kind=TypeError)
        first, last, _ = columns.indices(self.shape[1])
        parts = []
        for array, where in zip(self._arrays, self.layout.columns.values(), strict=True):
            low, high = max(first, where.start), min(last, where.stop)
            if low < high:
                parts.append(array[:, low - where.start : high - where.start])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts, axis=1, dtype=self.dtype) if parts else np.empty((self.shape[0], 0), self.dtype)
