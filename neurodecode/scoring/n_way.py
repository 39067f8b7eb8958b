"""Identification among n candidates, without drawing foils: the mean over all sets of foils is a closed form."""

# n items

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import is_tensor
from neurodecode.scoring.retrieval import named_retrieval
from neuroloaders.checks import check_int, check_option, check_same_length, check_shape, invalid

__all__ = ["TIES", "Identification", "n_way", "win_share"]


def _ties_fail(less: np.ndarray, equal: np.ndarray, n_foils: np.ndarray, n: int) -> np.ndarray:
    """Return C(less, n - 1) / C(n_foils, n - 1): all foils of the set are below the true one."""
    share = np.ones(np.shape(less))
    for k in range(n - 1):
        share *= np.maximum(less - k, 0) / (n_foils - k)
    return share


def _ties_share(less: np.ndarray, equal: np.ndarray, n_foils: np.ndarray, n: int) -> np.ndarray:
    """Return the mean of the above over the places that the true one can take among its equals.

    The sum over j = 0..equal of C(less + j, n - 1) is C(less + equal + 1, n) - C(less, n).
    """

    def over(count: np.ndarray) -> np.ndarray:
        # C(count, n) / C(n_foils, n - 1)
        return _ties_fail(count, equal, n_foils, n) * np.maximum(count - n + 1, 0) / n

    return (over(less + equal + 1) - over(less)) / (equal + 1)


# What a foil that is exactly as similar as the true one counts -> share of sets of n - 1 foils that the true one beats.
TIES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "fail": _ties_fail,
    "share": _ties_share,
}


def win_share(less: Any, equal: Any, n_foils: Any, n: int, *, ties: str = "fail") -> np.ndarray:
    """Return the share of all sets of n - 1 foils in which the true candidate is the most similar.

    Parameters
    ----------
    less : array of int
        Foils that are less similar than the true candidate.
    equal : array of int
        Foils that are exactly as similar.
    n_foils : array of int
        All foils.
    n : int
        Candidates in a trial, the true one included.
    ties : {"fail", "share"}
        Whether an equal foil wins, or each of the equal ones is taken equally often.

    Returns
    -------
    ndarray of float64
        In [0, 1]; NaN where there are fewer than n - 1 foils.

    Examples
    --------
    >>> win_share([3], [0], [4], 2).tolist(), win_share([3], [0], [4], 3).tolist()
    ([0.75], [0.5])
    """
    check_option("ties", ties, TIES)
    check_int("n", n, at_least=2, advice="n counts the true candidate too.")
    less, equal, n_foils = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (less, equal, n_foils)))
    enough = n_foils >= n - 1
    share = TIES[ties](less, equal, np.where(enough, n_foils, n), n)
    return np.where(enough, share, np.nan)


@dataclass(frozen=True, eq=False, kw_only=True)
class Identification:
    """How often each item is identified among n candidates.

    Parameters
    ----------
    per_item : ndarray of float64, shape (n_items,)
        Share of the sets of foils in which the item is identified; NaN for an item with too few foils.
    n_foils : ndarray of int64, shape (n_items,)
        From how many foils the sets are taken.
    n : int
        Candidates in a trial.
    """

    per_item: np.ndarray
    n_foils: np.ndarray
    n: int

    @property
    def accuracy(self) -> float:
        """Mean over the items that have enough foils."""
        return float(np.nanmean(self.per_item))

    @property
    def chance(self) -> float:
        """What a decoder that knows nothing reaches, ties apart."""
        return 1 / self.n


def n_way(
    real: Any,
    made: Any,
    n: int = 2,
    *,
    similarity: str = "correlation",
    categories: Any = None,
    ties: str = "fail",
    chunk_size: int | None = None,
) -> Identification:
    """Identify what each prediction was made for, among its own and n - 1 other real items.

    Parameters
    ----------
    real : array, tensor or memory map, shape (n_items, ...)
        Features of the true items; further axes are flattened.
    made : array, tensor or memory map, shape (n_items, ...)
        Features of what was predicted or reconstructed, row by row for the same items.
    n : int
        Candidates in a trial, the true one included; chance is 1/n.
    similarity : {"correlation", "cosine", "dot"}
        Measure. Correlation centres each row by its own mean, as in the paper.
    categories : array of shape (n_items,), optional
        Category of each item: foils then come from the category of the item alone, so that knowing the category is not
        enough.
    ties : {"fail", "share"}
        What a foil that is exactly as similar does: it wins, as in the paper, or all equal ones win equally often. A
        decoder that says the same of all items scores 0 with "fail", and chance with "share".
    chunk_size : int, optional
        Rows in memory at a time, as float64.

    Returns
    -------
    Identification
        Score of each item; `accuracy` is their mean.

    Raises
    ------
    ValueError
        If shapes do not fit, values are NaN or infinite, a row is constant, or no item has n - 1 foils.

    Notes
    -----
    For n = 2 this is the identification of Ozcelik & VanRullen 2023 [1]_: with the correlations r_ij of real item i
    with prediction j, the share of i != j with r_ij < r_jj, for each prediction j; then the mean over j. For larger n
    the mean over all sets of n - 1 foils is taken exactly, C(less, n - 1) / C(foils, n - 1), where others draw sets at
    random. Repeats of one item among the rows are foils that tie: leave them out, or use ``ties="share"``.

    The scores of different items share foils and are not independent: intervals from a bootstrap over items hold for
    these foils, and for significance see `neurodecode.scoring.identification_test`.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.

    Examples
    --------
    >>> k = np.arange(20.0).reshape(4, 5)
    >>> real = np.sin(1.3 * k)
    >>> round(n_way(real, real + 0.8 * np.cos(2.1 * k)).accuracy, 5)
    0.58333
    """
    check_option("ties", ties, TIES)
    check_int("n", n, at_least=2, advice="n counts the true candidate too.")
    n_items = check_same_length(real=real, made=made)
    groups = item_groups(categories, n_items)
    less, equal, n_foils = (np.zeros(n_items, dtype=np.int64) for _ in range(3))
    if max(map(len, groups)) < n:
        came = f"at most {max(map(len, groups))}" + (" in a category" if categories is not None else "")
        raise invalid("real", f"hold at least {n} items for {n}-way identification", came)
    for members in groups:
        if len(members) < n:
            continue
        whole = len(members) == n_items
        left, right = (real, made) if whole else (_rows(real, members), _rows(made, members))
        found = named_retrieval(("made", "real"), right, left, similarity=similarity, chunk_size=chunk_size)
        greater, same = (np.asarray(x.cpu() if is_tensor(x) else x) for x in (found.greater, found.equal))
        less[members], equal[members] = len(members) - 1 - greater - same, same
        n_foils[members] = len(members) - 1
    return Identification(per_item=win_share(less, equal, n_foils, n, ties=ties), n_foils=n_foils, n=n)


def identification_table(
    matrix: np.ndarray, width: float, n: int, *, categories: Any = None, ties: str = "fail"
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return for each item and each prediction the score of the prediction if that item were the true one.

    Parameters
    ----------
    matrix, width
        Similarity of real items (rows) to predictions (columns), and the width of a tie: see
        `neurodecode.scoring.similarity_matrix`.
    n, categories, ties
        As for `n_way`.

    Returns
    -------
    table : ndarray of float64, shape (n_items, n_items)
        The diagonal holds the scores of `n_way`. NaN between categories, and in those of fewer than n items.
    groups : list of ndarray of int64
        The items of each category that has n.
    """
    n_items = len(matrix)
    groups = [members for members in item_groups(categories, n_items) if len(members) >= n]
    if not groups:
        raise invalid("real", f"hold at least {n} items (of a category) for {n}-way identification", "fewer")
    table = np.full((n_items, n_items), np.nan)
    for members in groups:
        block = matrix[np.ix_(members, members)]
        for j, prediction in enumerate(members):
            order = np.sort(block[:, j])
            less = np.searchsorted(order, block[:, j] - width, "left")
            equal = np.searchsorted(order, block[:, j] + width, "right") - less - 1
            table[members, prediction] = win_share(less, equal, len(members) - 1, n, ties=ties)
    return table, groups


def item_groups(categories: Any, n_items: int) -> list[np.ndarray]:
    """Return the numbers of the items of each category."""
    if categories is None:
        return [np.arange(n_items)]
    categories = np.asarray(categories)
    check_shape("categories", categories, (n_items,), advice="One category for each item.")
    number = np.unique(categories, return_inverse=True)[1]
    return np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])


def _rows(x: Any, rows: np.ndarray) -> Any:
    if is_tensor(x):
        import torch

        return x[torch.from_numpy(rows).to(x.device)]
    return x[rows]
