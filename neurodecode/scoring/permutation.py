"""Is a score better than chance? Stimuli change places; what was predicted stays where it is."""

# n rows (trials or items)

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import is_tensor
from neurodecode.scoring.n_way import TIES, identification_table, item_groups
from neurodecode.scoring.similarity import named_matrix
from neuroloaders.checks import (
    check_fraction,
    check_int,
    check_number,
    check_option,
    check_same_length,
    check_shape,
    invalid,
)

__all__ = ["ALTERNATIVES", "PermutationTest", "binomial_p", "identification_test", "permutation_test"]

# What is better -> how much better a score is than another.
ALTERNATIVES: dict[str, Callable[[Any, Any], Any]] = {
    "greater": lambda a, b: a - b,
    "less": lambda a, b: b - a,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class PermutationTest:
    """Outcome of a permutation test.

    Parameters
    ----------
    observed : float
        The score with every stimulus in its place.
    null : ndarray of float64, shape (n_permutations,)
        Scores with stimuli in each other's places.
    p : float
        (1 + scores of the null that are as good or better) / (1 + n_permutations).
    """

    observed: float
    null: np.ndarray
    p: float

    @property
    def chance(self) -> float:
        """Mean of the null: the chance level of this statistic on these data."""
        return float(self.null.mean())


def permutation_test(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    groups: Any = None,
    within: Any = None,
    n_permutations: int = 1000,
    alternative: str = "greater",
    rng: np.random.Generator,
    progress: bool = False,
) -> PermutationTest:
    """Compare a score with those of the same predictions when stimuli change places.

    Parameters
    ----------
    statistic : callable
        Takes rows of int64, shape (n,), and returns the score when prediction i is compared with what row ``rows[i]``
        showed; ``np.arange(n)`` is the true order.
    n : int
        Number of rows.
    groups : array of shape (n,), optional
        What each row showed: rows of one stimulus (repeats, subjects) stay together, and the identities of stimuli are
        permuted. Without it repeats of one stimulus would be treated as independent, and p come out too small.
    within : array of shape (n,), optional
        Stimuli change places within these blocks only (category, session); all rows of a stimulus lie in one.
    n_permutations : int
        How many; the smallest p is 1 / (1 + n_permutations).
    alternative : {"greater", "less"}
        Which scores are better.
    rng : numpy.random.Generator
        Where the permutations come from.
    progress : bool
        Show a progress bar (tqdm).

    Returns
    -------
    PermutationTest
        Observed score, null distribution, p.

    Notes
    -----
    Under the null hypothesis that predictions do not depend on stimuli, all orders are equally likely, the true one
    among them, so that P(p <= a) <= a exactly (Phipson & Smyth 2010 [1]_). Scores that differ by rounding alone count
    as equal. Where stimuli have different numbers of rows, the k-th row of one takes the (k mod m)-th of the other's m.

    References
    ----------
    .. [1] Phipson & Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010),
       doi:10.2202/1544-6115.1585.

    Examples
    --------
    >>> x = np.arange(30.0)
    >>> test = permutation_test(lambda rows: float(x @ x[rows]), 30, n_permutations=99, rng=np.random.default_rng(0))
    >>> test.p
    0.01
    """
    check_int("n", n, at_least=2)
    check_int("n_permutations", n_permutations, at_least=1)
    check_option("alternative", alternative, ALTERNATIVES)
    orders = _Orders(n, groups, within)

    def score(rows: np.ndarray) -> float:
        value = float(statistic(rows))
        if not np.isfinite(value):
            raise invalid("statistic", "return a finite number", f"{value}", "Leave out what it is undefined for.")
        return value

    observed = score(np.arange(n))
    draws: Iterable[int] = range(n_permutations)
    if progress:
        from tqdm.auto import tqdm

        draws = tqdm(draws, desc="permutation test")
    null = np.array([score(orders.draw(rng)) for _ in draws])
    return PermutationTest(observed=observed, null=null, p=_p_value(observed, null, alternative))


def identification_test(
    real: Any,
    made: Any,
    n: int = 2,
    *,
    similarity: str = "correlation",
    categories: Any = None,
    ties: str = "fail",
    n_permutations: int = 1000,
    rng: np.random.Generator,
) -> PermutationTest:
    """Test n-way identification by permuting which item each prediction was made for.

    Parameters
    ----------
    real, made, n, similarity, categories, ties
        As for `neurodecode.scoring.n_way`. With `categories`, foils come from the item's own category, and items change
        places within it; a category of fewer than n items is left out.
    n_permutations : int
        How many.
    rng : numpy.random.Generator
        Where the permutations come from.

    Returns
    -------
    PermutationTest
        `observed` is what `n_way` gives.

    Notes
    -----
    All similarities are computed once and sorted; a permutation then costs a look-up for each item.

    Examples
    --------
    >>> k = np.arange(300.0).reshape(12, 25)
    >>> real = np.sin(1.3 * k**2)
    >>> identification_test(real, real + 0.1, n_permutations=99, rng=np.random.default_rng(0)).p
    0.01
    """
    check_option("ties", ties, TIES)
    check_int("n", n, at_least=2, advice="n counts the true candidate too.")
    check_same_length(real=real, made=made)
    matrix, width = named_matrix(("real", "made"), real, made, similarity=similarity)
    matrix = matrix.cpu().numpy() if is_tensor(matrix) else matrix
    table, groups = identification_table(matrix, width, n, categories=categories, ties=ties)
    return permuted_table(table, groups, n_permutations=n_permutations, rng=rng)


def permuted_table(
    table: np.ndarray, groups: list[np.ndarray], *, n_permutations: int, rng: np.random.Generator
) -> PermutationTest:
    """Test identification from the scores that each prediction would have if another item were the true one.

    Parameters
    ----------
    table, groups
        As `neurodecode.scoring.n_way.identification_table` returns them.
    n_permutations : int
        How many.
    rng : numpy.random.Generator
        Where the permutations come from.
    """
    kept = np.concatenate(groups)
    return permutation_test(
        lambda rows: float(table[kept[rows], kept].mean()),
        len(kept),
        within=np.repeat(np.arange(len(groups)), [len(members) for members in groups]),
        n_permutations=n_permutations,
        rng=rng,
    )


def binomial_p(accuracy: float, n_items: int) -> float:
    """Return the p value that the reference code of Brain-Diffuser prints for 2-way identification. It is wrong.

    Parameters
    ----------
    accuracy : float
        Share of comparisons that were right, in [0, 1].
    n_items : int
        Items, each compared with all others.

    Returns
    -------
    float
        1 - P(X <= accuracy N) for X binomial with N = n_items (n_items - 1) and chance 1/2.

    Notes
    -----
    For comparison with that code alone. It takes the N comparisons for independent, but n_items - 1 of them share each
    prediction and as many each real item: the accuracy varies about as much as with n_items draws, not N, and by chance
    falls below "p < 0.05" many times more often than in 5 of 100 data sets. (It also leaves out the probability of the
    observed count itself.) Use `identification_test`.
    """
    from scipy.stats import binom

    check_fraction("accuracy", accuracy)
    total = check_int("n_items", n_items, at_least=2) * (n_items - 1)
    return float(1 - binom.cdf(accuracy * total, total, 0.5))


def _p_value(observed: float, null: np.ndarray, alternative: str) -> float:
    """Return the p value; what is worse by rounding alone counts as equally good."""
    slack = 1e-12 * max(abs(observed), float(np.abs(null).max()))
    better = ALTERNATIVES[alternative](null, observed) >= -slack
    return check_number("p", (1 + int(better.sum())) / (1 + len(null)))


class _Orders:
    """Random orders of stimuli, as numbers of rows."""

    def __init__(self, n: int, groups: Any, within: Any) -> None:
        groups = np.arange(n) if groups is None else np.asarray(groups)
        check_shape("groups", groups, (n,), advice="One stimulus for each row.")
        first, number, size = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)[1:]
        sorted_rows = np.argsort(number, kind="stable")
        start = np.cumsum(size) - size
        # Place of each row among those of its stimulus.
        place = np.empty(n, dtype=np.int64)
        place[sorted_rows] = np.arange(n) - start[number[sorted_rows]]
        self.rows, self.start, self.size, self.number, self.place = sorted_rows, start, size, number, place
        blocks = np.zeros(n) if within is None else np.asarray(within)
        check_shape("within", blocks, (n,), advice="One block for each row.")
        if within is not None and (blocks != blocks[first][number]).any():
            k = int((blocks != blocks[first][number]).argmax())
            raise invalid(
                "within", "hold one block for all rows of a stimulus", f"several for stimulus {groups[k]} (row {k})"
            )
        self.blocks = item_groups(blocks[first], len(first))
        if max(map(len, self.blocks)) < 2:
            raise invalid("groups", "hold two stimuli that can change places", "none")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return for each row that row whose stimulus it is taken for."""
        new = np.empty(len(self.size), dtype=np.int64)
        for members in self.blocks:
            new[members] = rng.permutation(members)
        stimulus = new[self.number]
        return self.rows[self.start[stimulus] + self.place % self.size[stimulus]]
