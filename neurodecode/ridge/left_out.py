"""Leave-one-out predictions of a fitted ridge regression, without refits."""

# n training rows, k of them left out, w targets of a chunk

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from neurodecode.ridge.solver import Chunk, Plan, Solver
from neurodecode.ridge.targets import Targets, opened_output
from neuroloaders.checks import check_same_length, invalid

__all__ = ["checked_rows", "left_out_chunks", "loo_predict"]


def loo_predict(ridge: Any, y: Any, rows: Any = None, *, out: Any = None) -> Any:
    """Return leave-one-out predictions; see `MultiTargetRidge.loo_predict`.

    Parameters
    ----------
    ridge : MultiTargetRidge
        Fitted.
    y : array, tensor, memory map or path
        The targets that were fitted.
    rows : array of int, optional
        Training rows; by default all.
    out : array or path, optional
        Where to write.
    """
    features = ridge._features
    rows = checked_rows(rows, features)
    column = out[:, None] if ridge._is_1d and getattr(out, "ndim", None) == 1 else out
    shape = (len(rows), len(ridge.alpha_))
    with opened_output(column, shape, features.dtype, features.lib) as holder:
        for chunk, block in left_out_chunks(ridge, y, rows):
            numbers = features.lib.numpy(block) if isinstance(holder[0], np.ndarray) else block
            holder[0][:, chunk.columns] = numbers
    return ridge._given(holder[0])


def left_out_chunks(ridge: Any, y: Any, rows: np.ndarray) -> Iterator[tuple[Chunk, Any]]:
    """Yield chunks of targets, and the leave-one-out predictions of `rows` for them.

    Parameters
    ----------
    ridge : MultiTargetRidge
        Fitted; its alphas are used, and not chosen again.
    y : array, tensor, memory map or path
        The targets that were fitted.
    rows : ndarray of int
        Training rows.
    """
    features = ridge._features
    targets = Targets(y, features.n)
    check_same_length(**{"y's columns": range(targets.m), "the targets of the fit": ridge.alpha_})
    plan = Plan(ridge.alpha_, np.unique(ridge.alpha_), "loo", np.empty(0))
    if ridge._solver is None:
        ridge._solver = Solver(features, plan)
    solver = ridge._solver.with_plan(plan)
    prepared = solver.left_out_rows(rows)
    for chunk in solver.chunks(targets, targets.chunks(ridge.chunk_size, features.dtype)):
        yield chunk, prepared.predict(chunk)


def checked_rows(rows: Any, features: Any) -> np.ndarray:
    """Return numbers of training rows that can be left out.

    Parameters
    ----------
    rows : array of int, or None
        None: all.
    features : Features
        Training features.
    """
    rows = np.arange(features.n) if rows is None else np.atleast_1d(np.asarray(rows))
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or rows.min() < 0 or rows.max() >= features.n:
        raise invalid("rows", f"be numbers of training rows, 0 to {features.n - 1}", rows)
    if features.weights is not None and (features.weights[rows] == 0).any():
        raise invalid("rows", "have a sample weight above 0", "a row of weight 0", "Predict such rows by predict().")
    with_weight = features.n if features.weights is None else np.count_nonzero(features.weights)
    if with_weight < 2:
        raise invalid("X", "have at least 2 samples to leave one out", f"{with_weight}")
    return rows
