"""Ridge regression of many targets on the same features."""

# n_samples rows, n_features, n_targets

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from neurodecode.ridge.choice import ALPHA_PER, alpha_grid, fixed_alphas, group_numbers
from neurodecode.ridge.fitted import FittedRidge, as_matrix, put
from neurodecode.ridge.inputs import checked_features, checked_weights, new_features
from neurodecode.ridge.rowwise import rowwise_product
from neurodecode.ridge.selection import SELECTIONS, folds_of_groups
from neurodecode.ridge.solver import Plan, Solver
from neurodecode.ridge.system import centre
from neurodecode.ridge.targets import Targets, opened_output
from neuroloaders.checks import check_option, invalid

__all__ = ["DEFAULT_ALPHAS", "PRECISIONS", "SOLVERS", "MultiTargetRidge"]

DEFAULT_ALPHAS = tuple(float(f"{alpha:.4g}") for alpha in np.logspace(-1, 7, 17))

# Which Gram matrix is factorised -> whether it is that of the rows, for n rows and p features.
SOLVERS = {"auto": lambda n, p: n <= p, "dual": lambda n, p: True, "primal": lambda n, p: False}

# Of products; "auto" is float32 where features and targets are. Factorisations are always in float64.
PRECISIONS = ("auto", "float32", "float64")


class MultiTargetRidge(FittedRidge, MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Ridge regression of many targets on the same features, with one factorisation for all of them.

    Parameters
    ----------
    alpha : float, array of shape (n_targets,), dict, or None
        Fixed penalty: one for all targets, one for each, or a dict with one for each name in `target_groups`. None:
        chosen from `alphas`.
    alphas : sequence of float
        What to choose from. Of equally good ones the first is taken.
    select : {"gcv", "loo", "group-kfold"}
        How to choose: see `neurodecode.ridge.selection`. All are closed forms; none fits again.
    alpha_per : {"target", "all", "group"}
        Which targets share the alpha that is chosen: none, all, or those of one group in `target_groups`.
    target_groups : array of shape (n_targets,), optional
        Group of each target, such as the token or the latent layer it belongs to.
    groups : array of shape (n_samples,), optional
        Group of each row (run, session, image) for ``"group-kfold"``; `fit` takes it too, where scikit-learn's
        splitters can cut it.
    n_splits : int, optional
        Folds of ``"group-kfold"``. None: each group is a fold.
    fit_intercept : bool
        Fit an intercept, which is not penalised. The closed forms account for it.
    solver : {"auto", "dual", "primal"}
        Whether the Gram matrix of the rows or that of the features is factorised; by default the smaller one.
    precision : {"auto", "float32", "float64"}
        Of matrix products. "auto": float32 where features and targets are. Factorisations are in float64.
    bad_features : {"raise", "drop"}
        What to do with features that hold NaN or infinity or are constant, such as voxels outside of the brain.
        "drop": they get weight 0 and are not looked at in new rows.
    chunk_size : int, optional
        Targets in memory at a time. By default some tens of MB.
    device : str or torch.device, optional
        Where to compute: "cpu", "cuda". By default where the features are; NumPy arrays stay with NumPy.
    progress : bool
        Show a progress bar (tqdm) over targets.

    Attributes
    ----------
    alpha_ : ndarray, shape (n_targets,)
        Alpha of each target.
    cv_mse_ : ndarray, shape (n_alphas, n_targets)
        Cross-validated mean squared error of each alpha; only where alphas were chosen.
    edge_share_ : float
        Share of targets whose alpha is the smallest or largest of `alphas`: widen the grid if it is large. (For a
        target that the features do not predict, the largest is right.)
    dual_coef_ : array or tensor, shape (n_samples, n_targets)
        Duals, where the Gram matrix of the rows was factorised.
    coef_ : array or tensor, shape (n_targets, n_features) or (n_features,)
        Weights; computed from the duals each time it is asked for. See also `weights`.
    intercept_ : array or tensor, shape (n_targets,), or float
        Intercepts.
    is_dual_ : bool
        Which of the two was factorised.
    n_features_in_ : int
        Number of features.
    kept_features_ : ndarray of bool, shape (n_features_in_,)
        Features that were used.

    Notes
    -----
    `fit` stores what predicts new rows, as many numbers as targets (dual) or weights (primal). Where the rows to
    predict are known, `smooth_predict` stores nothing and is several times cheaper: predictions are :math:`P Y` with
    the smoother :math:`P = K_t (K + \alpha I)^{-1}`, which does not depend on the targets. For what does not fit into
    memory or takes hours see `neurodecode.ridge.predict_to_folder`.

    A prediction does not depend on the other rows that are predicted with it, to the last bit, see
    `neurodecode.ridge.rowwise`; so a live volume is decoded as it would be in a batch. `smooth_predict` has no such
    promise.

    Sample weights multiply squared errors, as in scikit-learn. In ``"gcv"`` n is the number of rows with a weight.

    Regressions by separate fits that share features, such as the 335 of Brain-Diffuser [1]_, factorise the same matrix
    each time.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.standard_normal((20, 50)), rng.standard_normal((20, 3))
    >>> MultiTargetRidge(alpha=10.0).fit(X, Y).predict(X[:2]).shape
    (2, 3)
    >>> MultiTargetRidge(select="loo", alphas=[1, 100]).fit(X, Y).cv_mse_.shape
    (2, 3)
    """

    def __init__(
        self,
        alpha: Any = None,
        *,
        alphas: Any = DEFAULT_ALPHAS,
        select: str = "gcv",
        alpha_per: str = "target",
        target_groups: Any = None,
        groups: Any = None,
        n_splits: int | None = 5,
        fit_intercept: bool = True,
        solver: str = "auto",
        precision: str = "auto",
        bad_features: str = "raise",
        chunk_size: int | None = None,
        device: Any = None,
        progress: bool = False,
    ) -> None:
        self.alpha = alpha
        self.alphas = alphas
        self.select = select
        self.alpha_per = alpha_per
        self.target_groups = target_groups
        self.groups = groups
        self.n_splits = n_splits
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.precision = precision
        self.bad_features = bad_features
        self.chunk_size = chunk_size
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> MultiTargetRidge:
        """Fit all targets.

        Parameters
        ----------
        X : array, tensor or path, shape (n_samples, n_features)
            Features: betas.
        y : array, tensor, memory map or path, shape (n_samples,) or (n_samples, n_targets)
            Targets; read in chunks of columns, so a ``.npy`` file in Fortran order is read fastest.
        sample_weight : float or array of shape (n_samples,), optional
            Weight of each row.
        groups : array of shape (n_samples,), optional
            Group of each row, in place of the constructor's.

        Raises
        ------
        ValueError
            If something has a wrong shape, holds NaN or infinity, or (features) is constant: the message names the
            columns.
        """
        solver, targets = self._prepare(X, y, sample_weight, groups)
        features, lib = solver.features, solver.features.lib
        coefficients = lib.zeros((features.n if features.dual else features.x.shape[1], targets.m), features.dtype)
        mean = lib.zeros((targets.m,), features.dtype)
        for chunk in self._chunks(solver, targets, "ridge"):
            coefficients[:, chunk.columns] = solver.coefficients(chunk)
            mean[chunk.columns] = chunk.mean
        features.hold_for_single_rows()
        self._features, self._coefficients, self._mean, self._is_1d = features, coefficients, mean, targets.is_1d
        self._solver = solver
        return self

    def predict(self, X: Any, *, out: Any = None) -> Any:
        """Predict the targets of new rows.

        Parameters
        ----------
        X : array, tensor or path, shape (n_samples, n_features)
            New rows; one will do.
        out : array or path, optional
            Where to write the predictions; a path becomes a ``.npy`` file, opened as a memory map.

        Returns
        -------
        array or tensor, shape (n_samples, n_targets) or (n_samples,)
            Of the kind that the training features were. No row depends on the others, to the last bit.
        """
        check_is_fitted(self, "alpha_")
        x = new_features(self, X)
        inputs = self._features.inputs(x, exact_rows=True)
        return self._filled(
            out, len(x), lambda part: rowwise_product(inputs, self._coefficients[:, part]) + self._mean[part]
        )

    def smooth_predict(
        self, X: Any, y: Any, X_test: Any, *, sample_weight: Any = None, groups: Any = None, out: Any = None
    ) -> Any:
        """Fit, and predict rows that are known already, without weights or duals.

        Parameters
        ----------
        X, y, sample_weight, groups
            As for `fit`.
        X_test : array, tensor or path, shape (n_test, n_features)
            The rows to predict.
        out : array or path, optional
            As for `predict`.

        Returns
        -------
        array or tensor, shape (n_test, n_targets) or (n_test,)
            What ``fit(X, y).predict(X_test)`` returns, up to rounding. The estimator then has its alphas and scores,
            but cannot predict other rows.
        """
        solver, targets = self._prepare(X, y, sample_weight, groups)
        x = new_features(self, X_test, name="X_test")
        rows, features = solver.rows(x), solver.features
        self._features, self._is_1d, self._solver = features, targets.is_1d, solver
        self._coefficients = self._mean = None
        shape = (len(x), targets.m)
        with opened_output(as_matrix(out, targets.is_1d), shape, features.dtype, features.lib) as holder:
            for chunk in self._chunks(solver, targets, "ridge, smoother"):
                put(holder[0], chunk.columns, rows.predict(chunk))
        return self._given(holder[0])

    def loo_predict(self, y: Any, rows: Any = None, *, out: Any = None) -> Any:
        """Predict training rows from all others, exactly as refits without each would, with the alphas of the fit.

        Parameters
        ----------
        y : array, tensor, memory map or path
            The targets that were fitted.
        rows : array of int, optional
            Numbers of the training rows to predict; by default all. Each must have a sample weight above 0.
        out : array or path, optional
            As for `predict`.

        Returns
        -------
        array or tensor, shape (n_rows, n_targets) or (n_rows,)
            Predictions.
        """
        from neurodecode.ridge.left_out import loo_predict

        check_is_fitted(self, "alpha_")
        return loo_predict(self, y, rows, out=out)

    def _prepare(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> tuple[Solver, Targets]:
        """Check everything, then centre and factorise."""
        check_option("select", self.select, SELECTIONS)
        check_option("alpha_per", self.alpha_per, ALPHA_PER)
        check_option("solver", self.solver, SOLVERS)
        check_option("precision", self.precision, PRECISIONS)
        if y is None:
            Targets(y, 0)
        lib, x = checked_features(self, X)
        n = x.shape[0]
        targets = Targets(y, n)
        weights = checked_weights(sample_weight, n)
        dtype = self.precision
        if dtype == "auto":
            dtype = "float32" if str(x.dtype).endswith("float32") and targets.is_single else "float64"
        alphas, folds, fixed = alpha_grid(self.alphas), [], None
        if self.alpha is not None:
            fixed = fixed_alphas(self.alpha, self.target_groups, targets.m)
        elif self.select == "group-kfold":
            folds = folds_of_groups(self.groups if groups is None else groups, n, self.n_splits)
        numbers = group_numbers(self.alpha_per, self.target_groups, targets.m) if fixed is None else np.empty(0)
        if fixed is None and (n if weights is None else np.count_nonzero(weights)) < 2:
            raise invalid("X", "have at least 2 samples to choose alphas by cross-validation", f"{n} sample")
        plan = Plan(fixed, alphas, self.select, numbers, folds)
        self.is_dual_ = bool(SOLVERS[self.solver](n, x.shape[1]))
        features = centre(lib, x, weights, dtype=dtype, intercept=self.fit_intercept, dual=self.is_dual_)
        return Solver(features, plan), targets

    def _chunks(self, solver: Solver, targets: Targets, what: str) -> Iterator[Any]:
        """Yield chunks of targets under a progress bar, and keep their alphas and errors."""
        from tqdm.auto import tqdm

        alpha, errors = np.empty(targets.m), []
        total = targets.m * (2 if solver.plan.is_shared else 1)
        with tqdm(total=total, desc=what, unit=" targets", disable=not self.progress) as bar:
            parts = targets.chunks(self.chunk_size, solver.features.dtype)
            for chunk in solver.chunks(targets, parts, bar):
                alpha[chunk.columns] = chunk.alpha
                errors.append(chunk.errors)
                yield chunk
        self.alpha_ = alpha
        if solver.plan.fixed is None:
            self.cv_mse_ = np.concatenate(errors, axis=1)
            grid = solver.plan.alphas
            self.edge_share_ = float(np.isin(alpha, (grid.min(), grid.max())).mean()) if len(grid) > 1 else 0.0
        else:
            for name in ("cv_mse_", "edge_share_"):
                self.__dict__.pop(name, None)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "alpha_")
