"""Ranks of the true segment and the true word for estimates that come in batches: a few numbers are kept of each."""

# n trials, S segments, W words, K nearest that are kept

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.meeg.segments import Segments
from neurodecode.scoring.retrieval import Retrieval
from neurodecode.scoring.similarity import similarity_matrix
from neuroloaders.checks import check_int, check_option, check_same_length, invalid

__all__ = ["WORD_MERGES", "TrialScores", "score_estimates", "word_frequency"]

# Probabilities of words that differ by less, relative to them, are a tie: they are sums of up to S rounded numbers.
_TIE = 1e-9


def _summed(cosine: Tensor, logits: Tensor, word: Tensor, n_words: int, width: float) -> tuple[Tensor, Tensor]:
    probability = torch.softmax(logits, dim=1)
    score = probability.new_zeros(len(logits), n_words).index_add_(1, word, probability)
    return score, _TIE * score.amax(1)


def _best(cosine: Tensor, logits: Tensor, word: Tensor, n_words: int, width: float) -> tuple[Tensor, Tensor]:
    index = word.expand(len(cosine), -1)
    score = cosine.new_full((len(cosine), n_words), -np.inf).scatter_reduce_(1, index, cosine, "amax")
    return score, score.new_full((len(score),), width)


# How candidates of the same word become one -> function that returns scores (B, W), and what is a tie, (B,).
WORD_MERGES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    # The sum of their probabilities, as the reference code of Défossez et al. 2023 does for its vocabulary.
    "sum": _summed,
    # The best of their scores, as `neurodecode.scoring.retrieve` does for labels.
    "max": _best,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialScores:
    """Where the true answer of each trial stands.

    Parameters
    ----------
    row : ndarray of int64, shape (n,)
        Which trials were scored.
    segment, word : Retrieval
        Ranks among segments and among words, counted in each of these trials.
    nearest : ndarray of int64, shape (n, K)
        The K nearest segments, the nearest first; of equal ones that of the smaller number.
    """

    row: np.ndarray
    segment: Retrieval
    word: Retrieval
    nearest: np.ndarray


def score_estimates(
    estimates: Iterable[tuple[np.ndarray, Tensor]],
    segments: Segments,
    words: Any,
    *,
    cosine: bool = False,
    temperature: float = 1.0,
    word_merge: str = "sum",
    n_nearest: int = 10,
    progress: bool = False,
) -> TrialScores:
    r"""Compare estimates with all segments.

    Parameters
    ----------
    estimates : iterable of (rows, Tensor of shape (B, F, T))
        Batches: which of the windows that `segments` was made of, and what is said of them. Each window once.
    segments : Segments
        The candidates, on the device of the estimates.
    words : array of str, shape (N,)
        The word of each of these windows; windows of one segment have the same.
    cosine : bool
        Whether probabilities come from cosines, as with the symmetric loss; else from
        :math:`\langle e, c \rangle / \lVert c \rVert`, as with the published one. Segments are ranked the same.
    temperature : float
        What scores are divided by before they become probabilities.
    word_merge : {"sum", "max"}
        A key of `WORD_MERGES`.
    n_nearest : int
        K.
    progress : bool
        Show a bar.

    Returns
    -------
    TrialScores
        O(n K) numbers; of a batch, B x S in memory.

    Notes
    -----
    Similarities are float64, with ties that rounding cannot break, as everywhere in `neurodecode.scoring`.
    """
    merge = WORD_MERGES[check_option("word_merge", word_merge, WORD_MERGES)]
    check_int("n_nearest", n_nearest, at_least=1)
    names, number = np.unique(np.asarray(words), return_inverse=True)
    check_same_length(words=number, windows=segments.number)
    if (number != number[segments.first][segments.number]).any():
        raise invalid(
            "words", "be the same for all windows of a segment", "several", "Make Segments with labels=words."
        )
    device, n_words = segments.device, len(names)
    word_of = torch.from_numpy(number[segments.first]).to(device)
    kept: list[tuple[np.ndarray, ...]] = []
    total = None
    if progress:
        from tqdm.auto import tqdm

        total = tqdm(total=len(segments.number), desc="retrieval", unit=" windows")
    for rows, batch in estimates:
        similar, width = _cosines(batch.to(device), segments)
        length = torch.linalg.vector_norm(batch.to(device).double().flatten(1), dim=1, keepdim=True)
        logits = (similar if cosine else similar * length) / temperature
        true = torch.from_numpy(segments.number[rows]).to(device)
        counts = [*_counts(similar, true, similar.new_full((len(true),), width))]
        scores, ties = merge(similar, logits, word_of, n_words, width)
        counts += _counts(scores, word_of[true], ties)
        nearest = similar.sort(dim=1, descending=True, stable=True).indices[:, :n_nearest]
        kept.append((rows, *(value.cpu().numpy() for value in (*counts, nearest))))
        if total is not None:
            total.update(len(rows))
    if total is not None:
        total.close()
    if not kept:
        raise invalid("estimates", "hold at least one window", "none")
    row, above, equal, word_above, word_equal, nearest = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = np.argsort(row, kind="stable")
    if (np.diff(row[order]) == 0).any():
        raise invalid("estimates", "be of each window once", "one more often")
    return TrialScores(
        row=row[order],
        segment=Retrieval(greater=above[order], equal=equal[order], n_candidates=len(segments)),
        word=Retrieval(greater=word_above[order], equal=word_equal[order], n_candidates=n_words),
        nearest=nearest[order],
    )


def word_frequency(segments: Segments, words: Any) -> TrialScores:
    """Return the scores of a decoder that has seen no brain: words that many segments have come first.

    Parameters
    ----------
    segments, words
        As for `score_estimates`.

    Notes
    -----
    The chance level of words, where some have more candidates than others: both ways of merging favour them. Of
    segments, it says the same of all.
    """
    number = np.unique(np.asarray(words), return_inverse=True)[1]
    count = np.bincount(number[segments.first])
    own = count[number]
    greater = np.array([(count > n).sum() for n in range(count.max() + 1)])
    equal = np.bincount(count)
    n = len(number)
    return TrialScores(
        row=np.arange(n),
        segment=Retrieval(
            greater=np.zeros(n, dtype=np.int64), equal=np.full(n, len(segments) - 1), n_candidates=len(segments)
        ),
        word=Retrieval(greater=greater[own], equal=equal[own] - 1, n_candidates=len(count)),
        nearest=np.zeros((n, 0), dtype=np.int64),
    )


def _cosines(estimates: Tensor, segments: Segments) -> tuple[Tensor, float]:
    """Return cosines with all segments, float64, shape (B, S), and how far rounding may move them."""
    parts, widths = zip(
        *(similarity_matrix(estimates, piece, similarity="cosine") for piece in segments.pieces()), strict=True
    )
    return torch.cat(parts, dim=1), max(widths)


def _counts(scores: Tensor, true: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many candidates are above the true one, and how many others are equal."""
    own, width = scores.gather(1, true[:, None]), width[:, None]
    above = (scores > own + width).sum(1)
    return above, (scores >= own - width).sum(1) - above - 1
