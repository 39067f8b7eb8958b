"""Which category was seen? Identification from predicted embeddings in a block design, runs left out in turn."""

# t volumes, p voxels, n rows (blocks or volumes), c categories, d dimensions of an embedding

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge import MultiTargetRidge
from neuroloaders.checks import check_finite, check_int, check_option, check_same_length, check_shape, invalid

__all__ = [
    "DECODERS",
    "UNITS",
    "BlockIdentification",
    "Blocks",
    "detrended_runs",
    "find_blocks",
    "identify_categories",
    "simplex_embeddings",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Blocks:
    """Stretches of one label in one run.

    Parameters
    ----------
    start, stop : ndarray of int64, shape (n_blocks,)
        First volume, and the one behind the last, among all volumes.
    labels : ndarray, shape (n_blocks,)
        What was shown.
    runs : ndarray, shape (n_blocks,)
        In which run.
    """

    start: np.ndarray
    stop: np.ndarray
    labels: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockIdentification:
    """What was identified, each row by a decoder that saw none of its run.

    Parameters
    ----------
    categories : ndarray, shape (c,)
        The categories, sorted.
    truth : ndarray of int64, shape (n,)
        What each row showed, as a place in `categories`.
    scores : ndarray of float64, shape (n, c)
        How well each category fits; the largest is the answer. Correlations for ``decoder="ridge"``.
    blocks : ndarray of int64, shape (n,)
        Block of each row.
    runs : ndarray, shape (n,)
        Run of each row.
    lags : dict
        Run that was left out -> lag that its training runs chose, in volumes.
    """

    categories: np.ndarray
    truth: np.ndarray
    scores: np.ndarray
    blocks: np.ndarray
    runs: np.ndarray
    lags: dict[Any, int]

    @property
    def predicted(self) -> np.ndarray:
        """Answer of each row, as a place in `categories`, int64, shape (n,)."""
        return self.scores.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """Share of rows that were identified."""
        return float(np.mean(self.predicted == self.truth))

    @property
    def block_accuracy(self) -> float:
        """Share of blocks that were identified, by the mean of the scores of their rows."""
        n = int(self.blocks.max()) + 1
        total = np.zeros((n, len(self.categories)))
        np.add.at(total, self.blocks, self.scores)
        truth = np.zeros(n, dtype=np.int64)
        truth[self.blocks] = self.truth
        used = np.bincount(self.blocks, minlength=n)
        return float(np.mean((total / np.maximum(used, 1)[:, None]).argmax(axis=1)[used > 0] == truth[used > 0]))

    def confusion(self) -> np.ndarray:
        """Return how often each category (row) was taken for each (column), int64, shape (c, c)."""
        out = np.zeros((len(self.categories),) * 2, dtype=np.int64)
        np.add.at(out, (self.truth, self.predicted), 1)
        return out


def find_blocks(labels: Any, runs: Any, *, rest: Any = 0) -> Blocks:
    """Return the blocks of a design: what follows on each other with the same label in the same run.

    Parameters
    ----------
    labels : array, shape (t,)
        What each volume shows.
    runs : array, shape (t,)
        Run of each volume.
    rest : object
        The label that is no category.

    Examples
    --------
    >>> find_blocks([0, 3, 3, 0, 5, 5], [1, 1, 1, 1, 1, 2]).start.tolist()
    [1, 4, 5]
    """
    labels, runs = np.asarray(labels), np.asarray(runs)
    check_shape("labels", labels, ("t",))
    check_shape("runs", runs, ("t",))
    check_same_length(labels=labels, runs=runs)
    if len(labels) == 0:
        raise invalid("labels", "name at least one volume", "none")
    change = (labels[1:] != labels[:-1]) | (runs[1:] != runs[:-1])
    start = np.concatenate([[0], np.flatnonzero(change) + 1])
    stop = np.append(start[1:], len(labels))
    shown = labels[start] != rest
    start, stop = start[shown], stop[shown]
    if len(start) == 0:
        raise invalid("labels", f"name a category besides rest={rest!r}", "none")
    return Blocks(start=start, stop=stop, labels=labels[start], runs=runs[start])


def detrended_runs(bold: Any, runs: Any, *, order: int = 1) -> np.ndarray:
    """Remove a polynomial trend from each run and voxel, and divide by the standard deviation that is left (ddof = 0).

    Parameters
    ----------
    bold : array, shape (t, p)
        Time courses.
    runs : array, shape (t,)
        Run of each volume.
    order : int
        Degree of the polynomial; 0 removes the mean only.

    Returns
    -------
    ndarray of float64, shape (t, p)

    Raises
    ------
    ValueError
        If values are not finite, a run is too short for the polynomial, or a voxel is constant in a run.

    Notes
    -----
    Statistics are those of the whole run, which the decoder knows once the run is over; labels are not looked at.
    """
    bold, runs = np.asarray(bold), np.asarray(runs)
    check_shape("bold", bold, ("t", "p"))
    check_same_length(bold=bold, runs=runs)
    check_finite("bold", bold, advice="Leave such voxels out.")
    check_int("order", order, at_least=0)
    out = np.empty(bold.shape)
    for run in np.unique(runs).tolist():
        rows = np.flatnonzero(runs == run)
        if len(rows) < order + 2:
            raise invalid(
                "runs", f"have at least {order + 2} volumes each for order={order}", f"{len(rows)} in {run!r}"
            )
        x = bold[rows].astype(np.float64)
        size = abs(x).max(axis=0)
        basis = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, len(rows)), order))[0]
        x -= basis @ (basis.T @ x)
        spread = x.std(axis=0)
        flat = spread <= 1e-12 * size
        if flat.any():
            came = f"{int(flat.sum())} constant ones in run {run!r}, the first {int(flat.argmax())}"
            raise invalid("bold", "have voxels that vary in each run", came, "Leave them out.")
        out[rows] = x / spread
    return out


def simplex_embeddings(n: int) -> np.ndarray:
    """Return n points that are equally far from each other: the centred one-hot code, shape (n, n).

    Examples
    --------
    >>> simplex_embeddings(2).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    return np.eye(check_int("n", n, at_least=2)) - 1 / n


def _ridge(x: np.ndarray, y: np.ndarray, runs: np.ndarray, new: np.ndarray, given: _Given) -> tuple[float, Callable]:
    """Regress the embeddings; correlate predictions with those of the categories."""
    ridge = MultiTargetRidge(alphas=given.alphas, select="group-kfold", alpha_per="all", n_splits=None)
    ridge.fit(x, given.embeddings[y], groups=runs)

    def scores() -> np.ndarray:
        return _correlations(ridge.predict(new), given.embeddings)

    return float(ridge.cv_mse_.mean(axis=1).min()), scores


def _svm(x: np.ndarray, y: np.ndarray, runs: np.ndarray, new: np.ndarray, given: _Given) -> tuple[float, Callable]:
    """Linear support vector machine, one against the rest, C = 1: the usual baseline."""
    from sklearn.svm import LinearSVC

    def fitted(rows: np.ndarray) -> LinearSVC:
        return LinearSVC(random_state=0).fit(x[rows], y[rows])

    def scores() -> np.ndarray:
        model = fitted(np.arange(len(y)))
        values = model.decision_function(new)
        if values.ndim == 1:
            values = np.stack([-values, values], axis=1)
        out = np.full((len(new), len(given.embeddings)), -np.inf)
        out[:, model.classes_] = values
        return out

    if not given.is_choice:
        return 0.0, scores
    errors = [(fitted(np.flatnonzero(runs != r)).predict(x[runs == r]) != y[runs == r]).sum() for r in np.unique(runs)]
    return sum(errors) / len(y), scores


# Name -> function that returns the cross-validated error within the training runs, and a function of no argument that
# returns the scores of new rows.
DECODERS: dict[str, Callable[..., tuple[float, Callable[[], np.ndarray]]]] = {"ridge": _ridge, "svm": _svm}

# What a row is -> whether the volumes of a block are averaged.
UNITS = {"block": True, "volume": False}


@dataclass(frozen=True, eq=False, kw_only=True)
class _Given:
    embeddings: np.ndarray
    alphas: Sequence[float]
    is_choice: bool


def identify_categories(
    bold: Any,
    labels: Any,
    runs: Any,
    *,
    rest: Any = 0,
    unit: str = "block",
    decoder: str = "ridge",
    embeddings: Any = None,
    lags: Sequence[int] = (0, 1, 2, 3),
    alphas: Sequence[float] = tuple(10.0**k for k in range(-1, 7)),
    detrend: int = 1,
    progress: bool = False,
) -> BlockIdentification:
    r"""Identify the category of blocks (or volumes) of runs that the decoder has not seen, run after run.

    Parameters
    ----------
    bold : array, shape (t, p)
        Volumes of all runs, one after the other.
    labels, runs : array, shape (t,)
        What each volume shows, and its run. A volume is labelled by when it was taken, without a lag.
    rest : object
        The label that is no category.
    unit : {"block", "volume"}
        Whether a row is the mean of a block's volumes, or a volume.
    decoder : {"ridge", "svm"}
        "ridge": embeddings are predicted by `neurodecode.MultiTargetRidge`, with one alpha, and compared with those of
        the categories by correlation. "svm": scikit-learn's ``LinearSVC``, the baseline.
    embeddings : array of shape (c, d), optional
        Embedding of each category, in sorted order, such as word vectors; they are centred over the categories. By
        default `simplex_embeddings`, in which all categories are equally far from each other.
    lags : sequence of int
        By how many volumes the response is behind the labels, to choose from.
    alphas : sequence of float
        Ridge penalties to choose from.
    detrend : int
        Degree of the polynomial that is removed from each run.
    progress : bool
        Show a progress bar over runs.

    Returns
    -------
    BlockIdentification

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or constant, there are fewer than 3 runs or 2 categories, or a run
        that is left out has a category that no other run has.

    Notes
    -----
    Nothing is chosen on the run that is left out: both the lag and alpha are those with the smallest error when the
    *training* runs are left out in turn, squared for ridge (in closed form), misclassified for the support vector
    machine. Trends and z-scores are per run (`detrended_runs`). A block that a lag moves beyond its run loses the
    volumes there.

    In the copy of the data of [1]_ that PyMVPA distributes, runs begin with 15 s of rest and blocks are 35 to 37.5 s
    apart; in the paper these are 12 and 36 s. Its labels are hence behind the stimuli by 1 to 4.5 s already, and lags
    of 0 or 1 volumes (2.5 s) are chosen, where 2 would be expected.

    Leaving runs out is the protocol of Haxby et al. 2001 [1]_ refined (they split odd and even runs); identification
    by predicted embeddings is that of Mitchell et al. 2008 [2]_.

    References
    ----------
    .. [1] Haxby et al., Science 293 (2001), doi:10.1126/science.1063736.
    .. [2] Mitchell et al., Science 320 (2008), doi:10.1126/science.1152876.
    """
    check_option("unit", unit, UNITS)
    check_option("decoder", decoder, DECODERS)
    if len(lags) == 0:
        raise invalid("lags", "name at least one lag", "none")
    lags = [check_int("lags", lag, at_least=0) for lag in lags]
    blocks = find_blocks(labels, runs, rest=rest)
    runs = np.asarray(runs)
    categories, truth = np.unique(blocks.labels, return_inverse=True)
    names = np.unique(blocks.runs)
    if len(names) < 3:
        advice = "One is left out, and choices within the others need two."
        raise invalid("runs", "name at least 3 runs with blocks", f"{len(names)}", advice)
    if len(categories) < 2:
        raise invalid("labels", "name at least 2 categories", f"{len(categories)}")
    for run in names.tolist():
        only = np.setdiff1d(truth[blocks.runs == run], truth[blocks.runs != run])
        if len(only):
            advice = "No decoder can know it when that run is left out."
            raise invalid(
                "labels", "show each category in 2 runs", f"{categories[only[0]].item()!r} in {run!r} only", advice
            )
    given = _Given(
        embeddings=_embeddings(embeddings, len(categories)), alphas=tuple(alphas), is_choice=len(set(lags)) > 1
    )
    x = detrended_runs(bold, runs, order=detrend)
    rows = {lag: _rows(x, runs, blocks, lag, average=UNITS[unit]) for lag in dict.fromkeys(lags)}

    from tqdm.auto import tqdm

    out: list[tuple[np.ndarray, np.ndarray]] = []
    chosen: dict[Any, int] = {}
    for run in tqdm(names.tolist(), desc="runs left out", disable=not progress):
        candidates = []
        for lag, (features, block) in rows.items():
            train = blocks.runs[block] != run
            kept = block[train]
            error, scores = DECODERS[decoder](features[train], truth[kept], blocks.runs[kept], features[~train], given)
            candidates.append((error, lag, scores, block[~train]))
        _, lag, scores, block = min(candidates, key=lambda candidate: candidate[0])
        chosen[run] = lag
        out.append((scores(), block))
    block = np.concatenate([b for _, b in out])
    order = np.argsort(block, kind="stable")
    return BlockIdentification(
        categories=categories,
        truth=truth[block[order]],
        scores=np.concatenate([s for s, _ in out])[order],
        blocks=block[order],
        runs=blocks.runs[block[order]],
        lags=chosen,
    )


def _embeddings(embeddings: Any, c: int) -> np.ndarray:
    if embeddings is None:
        return simplex_embeddings(c)
    embeddings = np.array(embeddings, dtype=np.float64)
    check_shape("embeddings", embeddings, (c, "d"), advice="One row for each category, in sorted order.")
    check_finite("embeddings", embeddings)
    embeddings -= embeddings.mean(axis=0)
    if (embeddings.std(axis=1) <= 1e-12 * abs(embeddings).max()).any():
        raise invalid("embeddings", "have rows that vary over dimensions, for correlation", embeddings)
    return embeddings


def _rows(x: np.ndarray, runs: np.ndarray, blocks: Blocks, lag: int, *, average: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return features, shape (n, p), and the block of each row, with the response `lag` volumes late."""
    rows, owner = [], []
    for k, (start, stop, run) in enumerate(zip(blocks.start, blocks.stop, blocks.runs, strict=True)):
        where = np.arange(start + lag, stop + lag)
        where = where[where < len(runs)]
        where = where[runs[where] == run]
        if len(where) == 0:
            advice = "Choose a smaller lag, or leave this block out by giving it the label of rest."
            raise invalid("lags", "leave each block a volume in its run", f"{lag} for the block at {start}", advice)
        rows.append(x[where].mean(axis=0, keepdims=True) if average else x[where])
        owner.append(np.full(len(rows[-1]), k))
    return np.concatenate(rows), np.concatenate(owner)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the correlations of the rows of a with those of b; 0 where a row of a is constant."""
    a, b = (rows - rows.mean(axis=1, keepdims=True) for rows in (a, b))
    length = np.linalg.norm(a, axis=1, keepdims=True)
    a = a / np.where(length == 0, 1, length)
    return a @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
