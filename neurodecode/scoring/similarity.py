"""How alike two vectors are, in float64, and how near two similarities must be to count as a tie.

A matrix product rounds otherwise when it is cut otherwise: two equal candidates get scores that differ in the last bits
if they fall into different chunks, and a rank would then depend on the size of the chunks. So scores are computed in
float64 whatever comes in, and two of them are a tie where they differ by less than the worst that rounding can do.
Equal candidates, and multiples of one another under cosine, are then always a tie, in any chunking, order and device.
The other way round, scores that truly differ are taken for a tie only if they agree to about 12 digits (d = 1000).
"""

# q queries, c candidates, d features

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from neurodecode.ridge.arrays import is_tensor
from neuroloaders.checks import check_finite, check_int, check_option, invalid

__all__ = ["SIMILARITIES", "Measure", "row_chunks", "similarity_matrix", "tie_width"]

# Bytes of one block of rows in float64. Rows are prepared again for each block of the others: it pays to have few.
_BLOCK_BYTES = 1 << 28


class Measure(NamedTuple):
    """What is done to a vector before the product.

    Attributes
    ----------
    centred : bool
        Its mean is subtracted.
    scaled : bool
        It is divided by its length.
    directed : str
        What a vector without a direction lacks, for errors.
    """

    centred: bool
    scaled: bool
    directed: str = ""


# Name -> measure: all are products of vectors that may be centred and scaled first.
SIMILARITIES: dict[str, Measure] = {
    "cosine": Measure(centred=False, scaled=True, directed="be rows that are not all zero, for similarity='cosine'"),
    "correlation": Measure(
        centred=True, scaled=True, directed="be rows that are not constant, for similarity='correlation'"
    ),
    "dot": Measure(centred=False, scaled=False),
}


def tie_width(n_features: int) -> float:
    """Return how far two scores may be apart and be a tie, relative to the lengths of the vectors.

    Notes
    -----
    A product of d terms is off by at most d u/(1 - d u) times the product of the lengths, in any order of summation,
    u = 2^-53 (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed. 2002, equation 3.5); scaling and
    centring the rows costs about as much again. Twice that is taken.
    """
    return 4.0 * (n_features + 8) * 2.0**-53


def similarity_matrix(
    first: Any, second: Any, *, similarity: str = "correlation", chunk_size: int | None = None
) -> tuple[Any, float]:
    """Return the similarity of all pairs, in float64, and the difference below which two of them are a tie.

    Parameters
    ----------
    first : array, tensor or memory map, shape (n, ...)
        Rows; further axes are flattened.
    second : array, tensor or memory map, shape (m, ...)
        Rows of the same size. The result is of its kind and on its device.
    similarity : {"cosine", "correlation", "dot"}
        Measure.
    chunk_size : int, optional
        Features in memory at a time, as float64. By default some hundred MB.

    Returns
    -------
    matrix : array or tensor of float64, shape (n, m)
        Similarities. Only this block is formed, not the n + m square one of ``np.corrcoef``.
    width : float
        Two entries of a column that are no further apart are a tie.

    Raises
    ------
    ValueError
        If sizes do not fit, something is NaN or infinite, or a row has no direction (zero, or constant).
    """
    return named_matrix(("first", "second"), first, second, similarity=similarity, chunk_size=chunk_size)


def named_matrix(
    names: tuple[str, str], first: Any, second: Any, *, similarity: str, chunk_size: int | None = None
) -> tuple[Any, float]:
    """Return what `similarity_matrix` returns; errors call its arguments by `names`."""
    check_option("similarity", similarity, SIMILARITIES)
    d = check_rows(names[1], second)
    if check_rows(names[0], first) != d:
        raise invalid(names[0], f"have {d} features a row, as `{names[1]}`", first)
    if chunk_size is not None:
        check_int("chunk_size", chunk_size, at_least=1)
    left, right = (_Rows(name, x, d, similarity, second) for name, x in zip(names, (first, second), strict=True))
    # In pieces of the features: each number is converted and centred once, and only the result is as large as n x m.
    size = row_chunks(d, len(first) + len(second))[0].stop if chunk_size is None else chunk_size
    total = None
    for part in row_chunks(d, 1, size):
        product = left.columns(part) @ right.columns(part).T
        total = product if total is None else total + product
    total = total / left.scale[:, None] / right.scale[None]
    return total, 2 * tie_width(d) * float(left.reach.max()) * float((right.length / right.scale).max())


class _Rows:
    """Rows of an array with their means and lengths."""

    def __init__(self, name: str, x: Any, d: int, similarity: str, like: Any) -> None:
        self.x, self.like = x if len(x.shape) == 2 else x.reshape(len(x), -1), like
        found = [_statistics(name, x, rows, similarity, like)[1:] for rows in row_chunks(len(x), d)]
        self.mean, self.length, self.scale, self.reach = (_joined(list(parts)) for parts in zip(*found, strict=True))

    def columns(self, part: slice) -> Any:
        return _as_float64(self.x, (slice(None), part), self.like) - self.mean[:, None]


def check_rows(name: str, x: Any) -> int:
    """Return the number of features of each row."""
    shape = getattr(x, "shape", None)
    if shape is None:
        raise invalid(name, "be an array or tensor of shape (n, n_features)", x, kind=TypeError)
    if len(shape) < 2 or 0 in shape:
        raise invalid(name, "have shape (n, n_features), none of them 0", x, "For one sample: x[None].")
    real = x.dtype.is_floating_point or "int" in str(x.dtype) if is_tensor(x) else x.dtype.kind in "fiu"
    if not real:
        raise invalid(name, "hold real numbers", x, kind=TypeError)
    return int(np.prod([int(size) for size in shape[1:]]))


def row_chunks(n: int, width: int, chunk_size: int | None = None) -> list[slice]:
    """Cut n rows of `width` float64 numbers into pieces of at most `chunk_size` rows, or some hundred MB."""
    size = max(1, _BLOCK_BYTES // (8 * max(width, 1))) if chunk_size is None else chunk_size
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def prepared(name: str, x: Any, rows: slice | np.ndarray, similarity: str, like: Any) -> tuple[Any, Any]:
    """Return some rows in float64, ready for the product, in the library and on the device of `like`.

    The second result, of shape (n,), is by how much rounding can move each row, in units of the machine precision.
    """
    part, mean, _, scale, reach = _statistics(name, x, rows, similarity, like)
    measure = SIMILARITIES[similarity]
    part = part - mean[:, None] if measure.centred else part
    return part / scale[:, None] if measure.scaled else part, reach


def _statistics(
    name: str, x: Any, rows: slice | np.ndarray, similarity: str, like: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """Return rows as they are, and of each what is subtracted, the length, what it is divided by, and the reach."""
    measure, part = SIMILARITIES[similarity], _as_float64(x, rows, like)
    # NaN, infinity and lengths of 0 come out as a reach that is no number, and are reported with their row.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = part.sum(1) / part.shape[1] if measure.centred else 0 * part[:, 0]
        whole = _length(part)
        length = _length(part - mean[:, None]) if measure.centred else whole
        # What is left of a constant row is rounding.
        length = length * (length > 8 * np.finfo(np.float64).eps * whole) if measure.centred else length
        # Centring loses digits where the mean is large beside the spread.
        scale, reach = (length, whole / length) if measure.scaled else (0 * length + 1, length)
        bad = (reach - reach) != 0
    if bool(bad.any()):
        check_finite(name, part, advice="Leave these rows out.")
        k = int(bad.nonzero()[0][0])
        number = (rows.start or 0) + k if isinstance(rows, slice) else int(rows[k])
        came = f"{int(bad.sum())} such rows, the first of them {number}"
        raise invalid(name, measure.directed or "have lengths that float64 can hold", came, "Leave them out.")
    return part, mean, length, scale, reach


def _length(rows: Any) -> Any:
    if is_tensor(rows):
        return (rows * rows).sum(1) ** 0.5
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))


def _as_float64(x: Any, where: Any, like: Any) -> Any:
    """Return some rows, or some columns of all rows, in the library and on the device of `like`."""
    if is_tensor(x) and isinstance(where, np.ndarray):
        import torch

        where = torch.from_numpy(where).to(x.device)
    part = x[where]
    if not is_tensor(like):
        part = part.detach().cpu().numpy() if is_tensor(part) else part
        return np.asarray(part, dtype=np.float64).reshape(len(part), -1)
    import torch

    if not is_tensor(part):
        part = torch.from_numpy(np.array(part, dtype=np.float64))
    return part.detach().to(like.device, torch.float64).reshape(len(part), -1)


def _joined(parts: list[Any]) -> Any:
    if is_tensor(parts[0]):
        import torch

        return torch.cat(parts)
    return np.concatenate(parts)
