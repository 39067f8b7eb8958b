"""Subjects and folds side by side: independent regressions over joblib, and so over Dask or any other backend of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.model_selection import check_cv

from neurodecode.ridge.arrays import is_tensor
from neurodecode.ridge.estimator import MultiTargetRidge
from neurodecode.ridge.targets import open_array
from neuroloaders.checks import check_same_length, invalid

__all__ = ["cross_val_smooth", "smooth_predict_many"]


def smooth_predict_many(ridge: MultiTargetRidge, jobs: Iterable[tuple], *, n_jobs: int | None = None) -> list[Any]:
    """Predict for several subjects, each from its own training data.

    Parameters
    ----------
    ridge : MultiTargetRidge
        Settings; each job fits a copy.
    jobs : iterable of tuples
        ``(X, y, X_test)``, or ``(X, y, X_test, out)``. Paths are opened where the job runs, so that data need not be
        sent there; `out`, a path, is where the predictions are written.
    n_jobs : int, optional
        Jobs at a time, as in scikit-learn; None takes what ``joblib.parallel_config`` says, or 1.

    Returns
    -------
    list of array
        Predictions in the order of the jobs.

    Examples
    --------
    On a cluster: ``with joblib.parallel_config("dask"): smooth_predict_many(...)``, after a
    ``dask.distributed.Client``.

    >>> rng = np.random.default_rng(0)
    >>> subject = (rng.standard_normal((20, 9)), rng.standard_normal((20, 4)), rng.standard_normal((3, 9)))
    >>> [p.shape for p in smooth_predict_many(MultiTargetRidge(alpha=1.0), [subject, subject])]
    [(3, 4), (3, 4)]
    """
    jobs = list(jobs)
    for k, job in enumerate(jobs):
        if len(job) not in (3, 4):
            raise invalid(f"jobs[{k}]", "be (X, y, X_test) or (X, y, X_test, out)", f"{len(job)} entries")
    return Parallel(n_jobs=n_jobs)(delayed(_job)(ridge, *job) for job in jobs)


def _job(ridge: MultiTargetRidge, X: Any, y: Any, X_test: Any, out: Any = None) -> Any:
    return clone(ridge).smooth_predict(X, y, X_test, out=out)


def cross_val_smooth(
    ridge: MultiTargetRidge, X: Any, y: Any, *, cv: Any = 5, groups: Any = None, n_jobs: int | None = None
) -> np.ndarray:
    """Predict every row from the folds that it is not in, alphas chosen anew within each training set.

    Parameters
    ----------
    ridge : MultiTargetRidge
        Settings; each fold fits a copy. With ``select="group-kfold"`` it is given the groups of its training rows.
    X : array, shape (n_samples, n_features)
        Features.
    y : array, memory map or path, shape (n_samples,) or (n_samples, n_targets)
        Targets.
    cv : int, splitter or iterable
        Outer folds, as in scikit-learn. Use ``LeaveOneGroupOut()`` with `groups` for runs or sessions.
    groups : array of shape (n_samples,), optional
        Group of each row.
    n_jobs : int, optional
        Folds at a time, as for `smooth_predict_many`.

    Returns
    -------
    ndarray, of the shape of `y`
        What ``sklearn.model_selection.cross_val_predict`` gives, without a matrix of weights for each fold.

    Raises
    ------
    ValueError
        If a row is in the test part of none, or of several folds.
    """
    x, targets = (_host(open_array(name, value)) for name, value in (("X", X), ("y", y)))
    n = check_same_length(X=x, y=targets)
    splits = list(check_cv(cv).split(x, targets, groups))
    tests = np.concatenate([test for _, test in splits])
    if not np.array_equal(np.sort(tests), np.arange(n)):
        raise invalid("cv", "put each row into the test part of one fold", "folds that overlap, or leave rows out")
    labels = None if groups is None else np.asarray(groups)
    parts = Parallel(n_jobs=n_jobs)(delayed(_fold)(ridge, x, targets, train, test, labels) for train, test in splits)
    out = np.empty(targets.shape, parts[0].dtype)
    for (_, test), part in zip(splits, parts, strict=True):
        out[test] = part
    return out


def _host(x: Any) -> np.ndarray:
    return x.detach().cpu().numpy() if is_tensor(x) else x


def _fold(ridge: MultiTargetRidge, x: Any, y: Any, train: np.ndarray, test: np.ndarray, groups: Any) -> np.ndarray:
    model = clone(ridge)
    own = model.groups if groups is None else groups
    chosen = None if own is None else np.asarray(own)[train]
    return model.smooth_predict(x[train], y[train], x[test], groups=chosen)
