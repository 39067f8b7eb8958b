"""Splits by stimulus that keep what looks or means alike on one side.

Images of NSD were drawn at random into training and test set, so most test images have near twins in training, and a
decoder can score well by naming the nearest training image (Shirakawa et al. 2024 [1]_). `cluster_split` holds whole
clusters of stimulus features out, `category_split` whole categories; the same decoder scored on both kinds of split
says how much of its accuracy is generalisation.

References
----------
.. [1] Shirakawa, Nagano, Tanaka, Aoki, Majima, Muraki & Kamitani, "Spurious reconstruction from brain activity",
   arXiv:2405.10078 (2024).
"""

# N stimuli, d features, K groups

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import (
    check_finite,
    check_fraction,
    check_int,
    check_number,
    check_option,
    check_same_length,
    check_shape,
    invalid,
)
from neuroloaders.splits import SPLITS

__all__ = ["StimulusSplit", "category_split", "cluster_split"]


@dataclass(frozen=True, eq=False, kw_only=True)
class StimulusSplit:
    """Which stimuli are for training, for choices, and for the report.

    Parameters
    ----------
    train, valid, test : ndarray of int64 or str
        Identifiers of stimuli, sorted; no stimulus is in two parts. `valid` may be empty, `test` too.
    groups : dict, optional
        The cluster or category of each stimulus, by identifier.

    Raises
    ------
    ValueError
        If a stimulus, or a group, is in two parts.

    Examples
    --------
    >>> split = StimulusSplit(train=[1, 2], valid=[], test=[7])
    >>> split.rows([7, 1, 7, 2], "test").tolist()
    [True, False, True, False]
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    groups: dict[Any, Any] | None = None

    def __post_init__(self) -> None:
        filled = [ids for ids in (self.train, self.valid, self.test) if len(ids)]
        kind = identifiers("train", filled[0]).dtype if filled else np.dtype(np.int64)
        for part in SPLITS:
            ids = getattr(self, part)
            ids = identifiers(part, ids) if len(ids) else np.empty(0, dtype=kind)
            if ids.dtype.kind != kind.kind:
                raise invalid(part, "have identifiers of the same type as the other parts", ids, kind=TypeError)
            object.__setattr__(self, part, np.unique(ids))
        for name, places in (("stimulus", None), ("group", self.groups)):
            seen: dict[Any, str] = {}
            for part in SPLITS:
                for uid in getattr(self, part).tolist():
                    if places is not None and uid not in places:
                        raise invalid("groups", "name the group of each stimulus", f"none for {uid!r}")
                    key = uid if places is None else places[uid]
                    if seen.setdefault(key, part) != part:
                        came = f"the {name} {key!r} in {seen[key]} and {part}"
                        raise invalid(part, f"share no {name} with another part", came)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, part))} {part}" for part in SPLITS)
        return f"StimulusSplit({sizes})"

    def rows(self, stimuli: Any, part: str) -> np.ndarray:
        """Return which rows belong to a part.

        Parameters
        ----------
        stimuli : array of int or str, shape (n,), or BetaSet
            The stimulus of each row, such as the ``stimuli`` of a `BetaSet`.
        part : {"train", "valid", "test"}
            Which part.

        Returns
        -------
        ndarray of bool, shape (n,)
            Rows whose stimulus is in no part at all are in none.
        """
        check_option("part", part, SPLITS)
        stimuli = identifiers("stimuli", getattr(stimuli, "stimuli", stimuli))
        ids = getattr(self, part)
        if stimuli.dtype.kind != ids.dtype.kind:
            raise invalid("stimuli", f"be identifiers like those of the split, {ids.dtype}", stimuli, kind=TypeError)
        return np.isin(stimuli, ids)


def cluster_split(
    features: Any,
    n_clusters: int = 50,
    *,
    ids: Any = None,
    valid: float = 0.0,
    test: float = 0.1,
    normalize: bool = True,
    random_state: int = 0,
) -> StimulusSplit:
    """Hold whole clusters of stimuli out.

    Parameters
    ----------
    features : array of shape (N, d)
        Features of each stimulus, a row each, such as CLIP embeddings of images or captions. Repeated trials of a
        stimulus are one row, not many.
    n_clusters : int
        Number of clusters of k-means. Few are far apart and uneven; with many, parts are near each other again.
    ids : array of int or str, shape (N,), optional
        Identifiers of the stimuli; by default 0 .. N - 1.
    valid, test : float
        Shares of the stimuli to hold out, in [0, 1], together less than 1. A part is never larger than its share,
        unless each single cluster is; it is smaller by less than the smallest cluster that would not fit. Clusters
        larger than a share stay in training.
    normalize : bool
        Scale rows to unit length first, so that distance means cosine, as usual with CLIP.
    random_state : int
        Decides the start of k-means and which clusters are held out.

    Returns
    -------
    StimulusSplit
        With the cluster of each stimulus in ``groups``.

    Raises
    ------
    ValueError
        If shapes do not fit, features are not finite, or there are fewer clusters than parts.

    Notes
    -----
    Clusters come from all stimuli, test ones included; no brain data are looked at. Clusters touch: two stimuli on
    either side of a border may be near. Report the similarity of each test stimulus to its nearest training stimulus
    beside the scores.
    """
    features = np.asarray(features)
    check_shape("features", features, ("N", "d"), advice="Flatten or average further axes first.")
    if features.dtype.kind not in "fiu":
        raise invalid("features", "be numbers", features, kind=TypeError)
    check_finite("features", features)
    ids = _unique_ids(ids, len(features))
    random_state = check_int("random_state", random_state, at_least=0)
    check_int("n_clusters", n_clusters, at_least=1 + (valid > 0) + (test > 0), at_most=len(features))
    features = np.asarray(features, dtype=np.float32 if features.dtype != np.float64 else np.float64)
    if normalize:
        length = np.linalg.norm(features, axis=1, keepdims=True)
        if (length == 0).any():
            came = f"a row of zeros, {int((length[:, 0] == 0).argmax())}"
            raise invalid("features", "have rows other than zero to be normalized", came, "Pass normalize=False.")
        features = features / length
    different = len(np.unique(features, axis=0))
    if different < n_clusters:
        raise invalid("n_clusters", f"be at most {different}, the number of different rows", f"{n_clusters}")
    from sklearn.cluster import KMeans

    # Ten starts: of one alone, the clusters depend more on the start than on the stimuli.
    labels = KMeans(n_clusters, n_init=10, random_state=random_state).fit_predict(features)
    return _deal(ids, labels, valid, test, random_state, "clusters")


def category_split(
    categories: Any, *, ids: Any = None, valid: float = 0.0, test: float = 0.1, random_state: int = 0
) -> StimulusSplit:
    """Hold whole categories of stimuli out.

    Parameters
    ----------
    categories : array of int or str, shape (N,)
        The category of each stimulus.
    ids : array of int or str, shape (N,), optional
        Identifiers of the stimuli; by default 0 .. N - 1. A stimulus may be named more than once (a row a trial) if
        it has the same category each time.
    valid, test : float
        Shares of the stimuli to hold out, in [0, 1], together less than 1. A part is never larger than its share,
        unless each single category is; categories larger than a share stay in training.
    random_state : int
        Decides which categories are held out.

    Returns
    -------
    StimulusSplit
        With the category of each stimulus in ``groups``.

    Raises
    ------
    ValueError
        If a stimulus has two categories, or there are fewer categories than parts.
    """
    categories = identifiers("categories", categories)
    random_state = check_int("random_state", random_state, at_least=0)
    ids = np.arange(len(categories)) if ids is None else identifiers("ids", ids)
    check_same_length(categories=categories, ids=ids)
    unique, first, code = np.unique(ids, return_index=True, return_inverse=True)
    torn = categories[first][code] != categories
    if torn.any():
        row = int(torn.argmax())
        came = f"{ids[row].item()!r} in {categories[first][code][row].item()!r} and {categories[row].item()!r}"
        raise invalid("categories", "give each stimulus one category", came)
    return _deal(unique, categories[first], valid, test, random_state, "categories")


def identifiers(name: str, values: Any) -> np.ndarray:
    """Return identifiers as a 1-D array of int64 or str."""
    values = np.asarray(list(values) if isinstance(values, Iterable) and not hasattr(values, "shape") else values)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(str)
    check_shape(name, values, ("n",))
    if values.dtype.kind not in "iuU" or len(values) == 0:
        raise invalid(name, "be whole numbers or text, at least one", values, kind=TypeError)
    return values if values.dtype.kind == "U" else values.astype(np.int64)


def _unique_ids(ids: Any, n: int) -> np.ndarray:
    if ids is None:
        return np.arange(n)
    ids = identifiers("ids", ids)
    check_same_length(features=range(n), ids=ids)
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = values[counts.argmax()].item()
        raise invalid("ids", "name each stimulus once", f"{twice!r} {counts.max()} times", "Pass one row a stimulus.")
    return ids


def _deal(ids: np.ndarray, labels: np.ndarray, valid: float, test: float, seed: int, what: str) -> StimulusSplit:
    """Give whole groups to parts: test, then valid, take groups that fit in random order; the rest is for training."""
    valid, test = check_fraction("valid", valid), check_fraction("test", test)
    check_number("valid + test", valid + test, below=1, advice="What is left is for training.")
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    held = {part: share for part, share in (("test", test), ("valid", valid)) if share > 0}
    if len(names) <= len(held):
        parts = ", ".join(["train", *held])
        raise invalid(what, f"be at least {len(held) + 1}, one for each of {parts}", f"{len(names)}")
    part_of = np.full(len(names), "train", dtype="<U5")
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    for behind, (part, share) in enumerate(held.items()):
        lacking = share * len(ids)
        spare = len(order) - (len(held) - behind)  # groups that may be taken and leave one for each further part
        taken = []
        for group in order:
            if len(taken) < spare and sizes[group] <= lacking + 1e-9 * len(ids):
                taken.append(group)
                lacking -= sizes[group]
        # All groups may be larger than the share.
        taken = taken or [min(order, key=lambda group: sizes[group])]
        part_of[taken] = part
        order = [group for group in order if group not in taken]
    where = part_of[codes]
    return StimulusSplit(
        **{part: ids[where == part] for part in SPLITS}, groups=dict(zip(ids.tolist(), labels.tolist(), strict=True))
    )
