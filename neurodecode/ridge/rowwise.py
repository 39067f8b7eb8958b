"""A matrix product whose rows do not know of each other, to the last bit.

A BLAS chooses its kernel by the size of the matrices and treats the last rows of a block otherwise than the first, so a
row of a product depends, in its last bits, on how many rows there are and where it stands. A sample that is decoded
live, alone, would get other numbers than the same sample in a batch. Here each element is one and the same chain of
multiplications and additions, in blocks of `DEPTH` terms, whatever else is computed beside it, on however many threads.
"""

# t rows of the left factor, n inner length, m columns

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import is_tensor

__all__ = ["rowwise_product"]

# Terms that are summed before they are added to the result; part of what the result is.
DEPTH = 128
# Columns at a time, so that a block of the right factor stays in the second-level cache.
_WIDTH = 512
# On CUDA: rows of every product, filled up with zeros.
_PADDED_ROWS = 64
_MIN_WORK = 1 << 21


@cache
def _compiled() -> Any:
    """Compile the kernel; without fast-math, so that no sum is reordered and no product fused."""
    import numba

    @numba.njit(nogil=True, error_model="numpy")
    def tile(left, right, out, first, last, width, depth):
        t, n = left.shape
        total = np.empty(width, dtype=out.dtype)
        for start in range(first, last, width):
            w = min(width, last - start)
            for k0 in range(0, n, depth):
                k1 = min(k0 + depth, n)
                for i in range(t):
                    for j in range(w):
                        total[j] = 0
                    k = k0
                    # Eight terms in a register: the additions stay in the order of k.
                    while k + 8 <= k1:
                        a0, a1, a2, a3 = left[i, k], left[i, k + 1], left[i, k + 2], left[i, k + 3]
                        a4, a5, a6, a7 = left[i, k + 4], left[i, k + 5], left[i, k + 6], left[i, k + 7]
                        b0, b1 = right[k, start : start + w], right[k + 1, start : start + w]
                        b2, b3 = right[k + 2, start : start + w], right[k + 3, start : start + w]
                        b4, b5 = right[k + 4, start : start + w], right[k + 5, start : start + w]
                        b6, b7 = right[k + 6, start : start + w], right[k + 7, start : start + w]
                        for j in range(w):
                            s = ((total[j] + a0 * b0[j]) + a1 * b1[j]) + a2 * b2[j]
                            s = ((s + a3 * b3[j]) + a4 * b4[j]) + a5 * b5[j]
                            total[j] = (s + a6 * b6[j]) + a7 * b7[j]
                        k += 8
                    while k < k1:
                        a0, b0 = left[i, k], right[k, start : start + w]
                        for j in range(w):
                            total[j] += a0 * b0[j]
                        k += 1
                    row = out[i, start : start + w]
                    for j in range(w):
                        row[j] += total[j]

    return tile


def rowwise_product(left: Any, right: Any) -> Any:
    """Return ``left @ right``; no row of the result depends on another row of `left`, bit for bit.

    Parameters
    ----------
    left : array or tensor, shape (t, n)
        Any number of rows.
    right : array or tensor, shape (n, m)
        Of the same dtype; fastest if its rows are contiguous.

    Returns
    -------
    array or tensor, shape (t, m)
        Of the library of `right`.

    Notes
    -----
    On the CPU this holds by construction. On CUDA the rows are multiplied in blocks of one fixed size, filled up with
    zeros: it then rests on cuBLAS running the same kernel on matrices of the same shape.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> left, right = rng.standard_normal((5, 30)), rng.standard_normal((30, 7))
    >>> bool((rowwise_product(left, right)[3:4] == rowwise_product(left[3:4], right)).all())
    True
    """
    if is_tensor(right) and right.device.type != "cpu":
        return _padded_product(left, right)
    a = np.ascontiguousarray(left.numpy() if is_tensor(left) else left)
    b = np.ascontiguousarray(right.numpy() if is_tensor(right) else right)
    out = np.zeros((a.shape[0], b.shape[1]), dtype=b.dtype)
    _run(a, b, out)
    if is_tensor(right):
        import torch

        return torch.from_numpy(out)
    return out


def _run(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Share the columns among threads; which thread takes which does not change them."""
    tile, (t, m), n = _compiled(), out.shape, a.shape[1]
    n_tiles = -(-m // _WIDTH)
    n_threads = min(_n_threads(), n_tiles) if t * m * n > _MIN_WORK else 1
    if n_threads == 1:
        tile(a, b, out, 0, m, _WIDTH, DEPTH)
        return
    borders = [min(_WIDTH * (n_tiles * k // n_threads), m) for k in range(n_threads + 1)]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(lambda k: tile(a, b, out, borders[k], borders[k + 1], _WIDTH, DEPTH), range(n_threads)))


def _n_threads() -> int:
    """Return how many threads the numerical libraries were told to use."""
    import numba

    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(numba.get_num_threads(), int(told)) if told.isdecimal() and int(told) else numba.get_num_threads()


def _padded_product(left: Any, right: Any) -> Any:
    t = len(left)
    out = right.new_empty((t, right.shape[1]))
    block = left.new_zeros((_PADDED_ROWS, left.shape[1]))
    for first in range(0, t, _PADDED_ROWS):
        rows = left[first : first + _PADDED_ROWS]
        block.zero_()[: len(rows)] = rows
        out[first : first + len(rows)] = (block @ right)[: len(rows)]
    return out
