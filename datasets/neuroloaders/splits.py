"""Splits of data into training, validation and test parts that stay what they are.

Three needs, three functions: `hash_split` decides row by row from an identifier, so that nothing moves when
rows are added; `stratified_holdout` carves a validation set out of a training set, class by class;
`GroupSplit` keeps every subject, speaker, stimulus or run on one side.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import numbers
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import (
    check_finite,
    check_fraction,
    check_int,
    check_number,
    check_same_length,
    invalid,
)

__all__ = ["SPLITS", "GroupSplit", "hash_split", "stratified_holdout"]

SPLITS = {
    "train": "what parameters are fitted on",
    "valid": "what choices (epoch, threshold, learning rate) are made on",
    "test": "what is reported, looked at once",
}


def hash_split(uids: Iterable[str | int], *, valid: float, test: float, seed: int) -> np.ndarray:
    """Assign each row to 'train', 'valid' or 'test' by a hash of its identifier.

    Nothing but (`seed`, uid) decides: not the order of the rows, not the other rows, no random state. A row
    therefore keeps its part when the data set grows, and two files that share identifiers agree.

    Parameters
    ----------
    uids : iterable of str or int, length n
        Identifiers. Rows with the same identifier (the same sentence, the same image shown twice) get the
        same part. The number 7 and the text "7" are the same identifier.
    valid, test : float
        Expected shares, in [0, 1], together at most 1. The shares that come out differ from them by chance,
        by about ``sqrt(share / n)``.
    seed : int
        Names the split. Raising `valid` at the same seed moves rows from train to valid only.

    Returns
    -------
    parts : ndarray of str, shape (n,)
        'train', 'valid' or 'test'.

    Raises
    ------
    TypeError
        If an identifier is neither text nor a whole number: a float's text depends on rounding.
    ValueError
        If the shares are outside [0, 1] or sum to more than 1.

    Examples
    --------
    >>> hash_split(["sub-01", "sub-02", "sub-03"], valid=0.0, test=0.0, seed=0).tolist()
    ['train', 'train', 'train']
    """
    valid, test = check_fraction("valid", valid), check_fraction("test", test)
    check_number("valid + test", valid + test, at_most=1 + 1e-12, advice="What is left is for training.")
    seed = check_int("seed", seed)
    parts = [_part(_unit_interval(uid, row, seed), valid, test) for row, uid in enumerate(uids)]
    return np.array(parts, dtype="<U5")


def _unit_interval(uid: Any, row: int, seed: int) -> float:
    """Hash (seed, uid) to a number in [0, 1), the same on every machine and in every Python."""
    if isinstance(uid, bool) or not isinstance(uid, str | numbers.Integral):
        raise invalid(
            f"uids[{row}]",
            "be text or a whole number",
            uid,
            "Name each row, e.g. by its file.",
            kind=TypeError,
        )
    # The separator cannot be part of the seed's digits, so (1, "23") and (12, "3") differ.
    digest = hashlib.blake2b(f"{seed}\x1f{uid}".encode(), digest_size=8).digest()
    # 53 bits fill a float64 exactly; 64 would round the largest up to 1.0.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _part(u: float, valid: float, test: float) -> str:
    # Test first: it stays the same set whatever share is set aside for validation.
    if u < test:
        return "test"
    return "valid" if u < test + valid else "train"


def stratified_holdout(labels: Any, *, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Carve a validation set out of a training set, with every class represented in proportion.

    Parameters
    ----------
    labels : array or tensor, shape (n,)
        Class of each row: whole numbers or text.
    fraction : float
        Share of the rows to hold out, strictly between 0 and 1.
    seed : int
        Names the split.

    Returns
    -------
    train_idx, valid_idx : ndarray of int64
        Row numbers in rising order; together each row once. A class of m rows gives ``fraction * m`` of them
        to validation, rounded up or down so that the total is ``round(fraction * n)``, but at least one and
        never all.

    Raises
    ------
    ValueError
        If `labels` is empty or not 1-D, a class has a single row, or `fraction` is not in (0, 1).

    Notes
    -----
    The rounding is by largest remainder, so the sizes are fixed by the labels and only the choice of rows is
    random.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise invalid("labels", "be a 1-D array of at least two rows", labels)
    fraction = check_number("fraction", fraction, above=0, below=1)
    rng = np.random.default_rng(check_int("seed", seed, at_least=0))
    classes, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if sizes.min() < 2:
        lonely = classes[sizes.argmin()].item()
        advice = "One row cannot be in both parts: drop the class or merge it with another."
        raise invalid("labels", "have at least two rows in each class", f"one row of class {lonely!r}", advice)
    held_out = []
    for code, n_valid in enumerate(_largest_remainder(sizes, fraction)):
        held_out.append(rng.permutation(np.flatnonzero(codes == code))[:n_valid])
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[np.concatenate(held_out)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _largest_remainder(sizes: np.ndarray, fraction: float) -> np.ndarray:
    quota = fraction * sizes
    taken = np.floor(quota).astype(np.int64)
    missing = round(fraction * int(sizes.sum())) - int(taken.sum())
    if missing > 0:
        taken[np.argsort(taken - quota, kind="stable")[:missing]] += 1
    return np.clip(taken, 1, sizes - 1)


@dataclass(frozen=True)
class GroupSplit:
    """Cross-validation that never splits a group: a subject, a speaker, a stimulus, a run.

    A splitter like scikit-learn's: ``cross_val_score(model, X, y, groups=subject, cv=GroupSplit())``.

    Parameters
    ----------
    n_splits : int, optional
        None leaves `leave_out` groups out at a time, in every combination. A number k deals the groups into
        k folds of about equally many rows; each group is tested exactly once.
    leave_out : int
        How many groups are tested together when `n_splits` is None. 1 is leave-one-subject-out.
    seed : int
        Decides which groups share a fold (k-fold only). The same seed and groups give the same folds,
        whatever the order of the rows.

    Notes
    -----
    Folds are filled with the largest group first, each into the fold that has the fewest rows so far; the
    seed orders groups of equal size. With groups of equal size the folds differ by at most one group.
    """

    n_splits: int | None = None
    leave_out: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_splits is not None:
            check_int("n_splits", self.n_splits, at_least=2, advice="None leaves one group out at a time.")
            if self.leave_out != 1:
                raise invalid("leave_out", "stay 1 when `n_splits` is given", f"{self.leave_out}", "Give one of them.")
        check_int("leave_out", self.leave_out, at_least=1)
        check_int("seed", self.seed, at_least=0)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return how many (train, test) pairs `split` gives; `groups` is needed when `n_splits` is None."""
        if self.n_splits is not None:
            return self.n_splits
        names, _, _ = self._groups(groups)
        return math.comb(len(names), self.leave_out)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (train_idx, test_idx), each int64 and rising, so that no group is in both.

        Parameters
        ----------
        X : array, length n_samples
            Only its length is looked at.
        y : ignored
            For scikit-learn.
        groups : array, shape (n_samples,)
            The group of each row: text or whole numbers.

        Raises
        ------
        ValueError
            If `groups` is missing, of another length than `X`, or has too few different values.
        """
        names, codes, sizes = self._groups(groups)
        if X is not None:
            n_rows = X.shape[0] if hasattr(X, "shape") else len(X)  # len() fails on sparse matrices
            check_same_length(X=range(n_rows), groups=codes)
        for tested in self._tested_groups(sizes):
            in_test = np.isin(codes, tested)
            yield np.flatnonzero(~in_test), np.flatnonzero(in_test)

    def _groups(self, groups: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        advice = "Pass groups=..., e.g. the subject of each row."
        if groups is None:
            raise invalid("groups", "be given", "None", advice)
        groups = np.asarray(groups)
        if groups.ndim != 1 or len(groups) == 0:
            raise invalid("groups", "be a 1-D array with one entry a row", groups, advice)
        if groups.dtype.kind == "f":
            check_finite("groups", groups, advice="A row without a group cannot be kept on one side.")
        if groups.dtype.kind == "O":  # text columns of pandas; mixed types cannot be sorted
            if any(group is None or group != group for group in groups):
                raise invalid("groups", "name a group for every row", "None or NaN", advice)
            groups = groups.astype(str)
        names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        needed = self.n_splits or self.leave_out + 1
        if len(names) < needed:
            advice = "Ask for fewer folds, or split by something finer."
            raise invalid("groups", f"have at least {needed} different values", f"{len(names)}", advice)
        return names, codes, sizes

    def _tested_groups(self, sizes: np.ndarray) -> Iterator[np.ndarray]:
        if self.n_splits is None:
            for combination in itertools.combinations(range(len(sizes)), self.leave_out):
                yield np.array(combination)
            return
        shuffled = np.random.default_rng(self.seed).permutation(len(sizes))
        order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
        fold_of, filled = np.empty(len(sizes), dtype=np.int64), np.zeros(self.n_splits, dtype=np.int64)
        for group in order:
            fold_of[group] = filled.argmin()
            filled[fold_of[group]] += sizes[group]
        for fold in range(self.n_splits):
            yield np.flatnonzero(fold_of == fold)
