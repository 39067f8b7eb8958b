"""Ranks of the true candidate among all, streamed: no matrix of queries by candidates is kept."""

# q queries, c candidates, d features

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import is_tensor
from neurodecode.scoring.similarity import SIMILARITIES, check_rows, prepared, row_chunks, tie_width
from neuroloaders.checks import check_int, check_option, check_shape, invalid

__all__ = ["Retrieval", "rank", "retrieve", "top_k"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Retrieval:
    """Where the true candidate of each query stands.

    Parameters
    ----------
    greater : array or tensor of int64, shape (n_queries,)
        Candidates that are more similar to the query than its own.
    equal : array or tensor of int64, shape (n_queries,)
        Other candidates that are exactly as similar.
    n_candidates : int
        Candidates, the true one included; labels, where candidates were merged.
    """

    greater: Any
    equal: Any
    n_candidates: int

    @property
    def rank(self) -> Any:
        """1 + number of greater + half the number of equal ones, float64, shape (n_queries,); 1 is best."""
        return 1 + self.greater + 0.5 * _float64(self.equal)

    @property
    def relative_rank(self) -> Any:
        """Rank from 0 (best) to 1 (worst); 0.5 is chance. NaN with a single candidate."""
        return (self.rank - 1) / (self.n_candidates - 1 or np.nan)

    def top_k(self, k: int) -> Any:
        """Return whether the true candidate is among the k nearest, float64, shape (n_queries,).

        Parameters
        ----------
        k : int
            How many count.

        Notes
        -----
        A tie across the border counts by the share of its orders that put the true candidate inside, so that a decoder
        that says the same of all candidates scores k/n, which is chance. A sort would leave that to the order of the
        candidates in memory.
        """
        check_int("k", k, at_least=1)
        return ((k - _float64(self.greater)) / (1 + self.equal)).clip(0.0, 1.0)

    def accuracy(self, k: int = 1) -> float:
        """Return the share of queries with the true candidate among the k nearest.

        Parameters
        ----------
        k : int
            How many count.
        """
        return float(self.top_k(k).mean())

    def chance(self, k: int = 1) -> float:
        """Return what `accuracy` is for a decoder that knows nothing.

        Parameters
        ----------
        k : int
            How many count.
        """
        return min(check_int("k", k, at_least=1) / self.n_candidates, 1.0)


def retrieve(
    predicted: Any,
    candidates: Any,
    target: Any = None,
    *,
    similarity: str = "cosine",
    labels: Any = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> Retrieval:
    r"""Compare predictions with all candidates, and count those that beat the true one.

    Parameters
    ----------
    predicted : array or tensor, shape (n_queries, ...)
        Predicted embeddings; further axes (channels, time) are flattened. The result is of this kind, on its device.
    candidates : array, tensor or memory map, shape (n_candidates, ...)
        Embeddings to choose from, with as many features. Read in chunks.
    target : array of int, shape (n_queries,), optional
        Number of the candidate that is true for each query. Several queries may share one; some may have none. None:
        the i-th query belongs to the i-th candidate.
    similarity : {"cosine", "correlation", "dot"}
        Measure. Ranks by cosine are also those of the contrastive loss that normalises candidates only, since the
        length of a query is the same to all of them.
    labels : array of shape (n_candidates,), optional
        Label of each candidate, such as its word: candidates with the same label are one, with the best of their
        scores, and the ranks are those of labels.
    chunk_size : int, optional
        Candidates in memory at a time, as float64; queries are cut to the same size. By default some hundred MB. It
        does not change the result.
    progress : bool
        Show a progress bar (tqdm).

    Returns
    -------
    Retrieval
        Counts, ranks and top-k scores, O(n_queries) numbers.

    Raises
    ------
    ValueError
        If shapes do not fit, `target` is no candidate, something is NaN or infinite, or a row has no direction.

    Notes
    -----
    Scores and ties are those of `neurodecode.scoring.similarity`: float64, with ties that rounding cannot break.

    Examples
    --------
    >>> found = retrieve(np.eye(3), np.array([[1.0, 0, 0], [0, 1, 1], [0, 1, 1]]))
    >>> found.rank.tolist(), found.accuracy(1)
    ([1.0, 1.5, 1.5], 0.6666666666666666)
    """
    return named_retrieval(
        ("predicted", "candidates"),
        predicted,
        candidates,
        target,
        similarity=similarity,
        labels=labels,
        chunk_size=chunk_size,
        progress=progress,
    )


def named_retrieval(
    names: tuple[str, str],
    predicted: Any,
    candidates: Any,
    target: Any = None,
    *,
    similarity: str,
    labels: Any = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> Retrieval:
    """Return what `retrieve` returns; errors call its first two arguments by `names`."""
    check_option("similarity", similarity, SIMILARITIES)
    d = check_rows(names[1], candidates)
    if check_rows(names[0], predicted) != d:
        raise invalid(names[0], f"have {d} features a row, as `{names[1]}`", predicted)
    if chunk_size is not None:
        check_int("chunk_size", chunk_size, at_least=1)
    n_queries, n_candidates = len(predicted), len(candidates)
    targets = _checked_target(target, n_queries, n_candidates)
    blocks = row_chunks(n_queries, d, chunk_size)
    # Scores of a chunk, and what is compared with them, take a quarter of what rows may.
    pieces = row_chunks(n_candidates, max(d, 4 * blocks[0].stop), chunk_size)
    pool = _Pool(names[1], candidates, similarity, predicted, pieces, labels)
    greater, equal = _zeros(n_queries, predicted), _zeros(n_queries, predicted)
    for block in _bar(blocks, progress):
        queries, _ = prepared(names[0], predicted, block, similarity, predicted)
        # A query is rounded once, the same way for all candidates: ties are blurred by what it does to these alone.
        slack = (tie_width(d) * (queries * queries).sum(1) ** 0.5)[:, None]
        own, own_reach = pool.own_scores(queries, targets[block])
        for scores, reach in pool.scores(queries):
            width = slack * (reach[None] + own_reach[:, None])
            above = (scores > own[:, None] + width).sum(1)
            greater[block] += above
            equal[block] += (scores >= own[:, None] - width).sum(1) - above
    # The true candidate ties with itself.
    return Retrieval(greater=greater, equal=equal - 1, n_candidates=pool.n_choices)


def rank(
    predicted: Any,
    candidates: Any,
    target: Any = None,
    *,
    similarity: str = "cosine",
    labels: Any = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> Any:
    """Return the rank of the true candidate of each query, from 1; the parameters are those of `retrieve`.

    Returns
    -------
    array or tensor of float64, shape (n_queries,)
        1 + number of candidates that are more similar + half the number of equally similar ones.

    Examples
    --------
    >>> rank(np.array([[1.0, 0.2]]), np.eye(2), [1]).tolist()
    [2.0]
    """
    return retrieve(
        predicted,
        candidates,
        target,
        similarity=similarity,
        labels=labels,
        chunk_size=chunk_size,
        progress=progress,
    ).rank


def top_k(
    predicted: Any,
    candidates: Any,
    target: Any = None,
    *,
    k: int = 5,
    similarity: str = "cosine",
    labels: Any = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> float:
    """Return the share of queries whose true candidate is among the k nearest.

    Parameters
    ----------
    predicted, candidates, target, similarity, labels, chunk_size, progress
        As for `retrieve`.
    k : int
        How many count. For several k, call `retrieve` once.

    Returns
    -------
    float
        Share, in [0, 1]; ties across the border count by shares, see `Retrieval.top_k`.

    Examples
    --------
    >>> top_k(np.eye(4), np.eye(4), k=1)
    1.0
    """
    check_int("k", k, at_least=1)
    found = retrieve(
        predicted,
        candidates,
        target,
        similarity=similarity,
        labels=labels,
        chunk_size=chunk_size,
        progress=progress,
    )
    return found.accuracy(k)


class _Pool:
    """The candidates, cut into pieces; where they have labels, sorted by label."""

    def __init__(
        self, name: str, candidates: Any, similarity: str, like: Any, pieces: list[slice], labels: Any
    ) -> None:
        self.name, self.candidates, self.similarity, self.like, self.pieces = name, candidates, similarity, like, pieces
        self.n_choices = len(candidates)
        self.number: np.ndarray | None = None
        if labels is not None:
            labels = np.asarray(labels.detach().cpu() if is_tensor(labels) else labels)
            check_shape("labels", labels, (len(candidates),), advice="One label for each candidate.")
            names, number = np.unique(labels, return_inverse=True)
            self.number, self.n_choices = number, len(names)
            self.order = np.argsort(number, kind="stable")
            self.borders = np.searchsorted(number[self.order], np.arange(len(names) + 1))

    def rows(self, which: slice | np.ndarray) -> tuple[Any, Any]:
        return prepared(self.name, self.candidates, which, self.similarity, self.like)

    def scores(self, queries: Any) -> Iterator[tuple[Any, Any]]:
        """Yield scores of pieces of the choices, shape (q, c), and how rounding reaches them, shape (c,)."""
        if self.number is None:
            for piece in self.pieces:
                rows, reach = self.rows(piece)
                yield queries @ rows.T, reach
            return
        held = None
        for piece in self.pieces:
            members = self.order[piece]
            rows, reach = self.rows(members)
            starts = np.flatnonzero(np.diff(self.number[members], prepend=-1))
            best = _best_of_runs(queries @ rows.T, starts), _best_of_runs(reach[None], starts)[0]
            if held is not None and self.number[members[0]] == held[2]:
                best[0][:, 0], best[1][0] = _larger(held[0], best[0][:, 0]), _larger(held[1], best[1][0])
            elif held is not None:
                yield held[0][:, None], held[1][None]
            # The last label of a piece may go on in the next one.
            yield best[0][:, :-1], best[1][:-1]
            held = best[0][:, -1], best[1][-1], self.number[members[-1]]
        yield held[0][:, None], held[1][None]

    def own_scores(self, queries: Any, target: np.ndarray) -> tuple[Any, Any]:
        """Return the score of the true choice of each query, and how rounding reaches it, both of shape (q,)."""
        if self.number is None:
            rows, reach = self.rows(target)
            return (queries * rows).sum(1), reach
        size = self.pieces[0].stop
        own, own_reach = queries[:, 0] * 0 - np.inf, queries[:, 0] * 0
        wanted = self.number[target]
        for label in np.unique(wanted):
            mine = np.flatnonzero(wanted == label)
            members = self.order[self.borders[label] : self.borders[label + 1]]
            for first in range(0, len(members), size):
                rows, reach = self.rows(members[first : first + size])
                best = _best_of_runs(queries[mine] @ rows.T, np.zeros(1, dtype=np.int64))[:, 0]
                own[mine] = _larger(own[mine], best)
                own_reach[mine] = _larger(own_reach[mine], reach.max() + 0 * best)
        return own, own_reach


def _best_of_runs(scores: Any, starts: np.ndarray) -> Any:
    """Return the largest of each run of columns, shape (q, n_runs)."""
    if not is_tensor(scores):
        return np.maximum.reduceat(scores, starts, axis=1)
    import torch

    runs = np.zeros(scores.shape[1], dtype=np.int64)
    runs[starts[1:]] = 1
    index = torch.from_numpy(runs.cumsum()).to(scores.device).expand(len(scores), -1)
    return scores.new_full((len(scores), len(starts)), -np.inf).scatter_reduce_(1, index, scores, "amax")


def _larger(a: Any, b: Any) -> Any:
    return a.maximum(b) if is_tensor(a) else np.maximum(a, b)


def _float64(x: Any) -> Any:
    return x.double() if is_tensor(x) else x.astype(np.float64)


def _zeros(n: int, like: Any) -> Any:
    if not is_tensor(like):
        return np.zeros(n, dtype=np.int64)
    import torch

    return torch.zeros(n, dtype=torch.int64, device=like.device)


def _checked_target(target: Any, n_queries: int, n_candidates: int) -> np.ndarray:
    if target is None:
        if n_queries != n_candidates:
            came = f"{n_queries} queries and {n_candidates} candidates"
            raise invalid("target", "be given where they are not as many", came, "Say which candidate is true.")
        return np.arange(n_queries)
    target = np.asarray(target.detach().cpu() if is_tensor(target) else target)
    check_shape("target", target, (n_queries,), advice="One candidate for each query.")
    if target.dtype.kind not in "iu":
        raise invalid("target", "hold numbers of candidates", target, kind=TypeError)
    outside = (target < 0) | (target >= n_candidates)
    if outside.any():
        k = int(outside.argmax())
        raise invalid("target", f"hold numbers from 0 to {n_candidates - 1}", f"{target[k]} for query {k}")
    return target.astype(np.int64)


def _bar(blocks: list[slice], progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(blocks, desc="retrieval", disable=not progress)
