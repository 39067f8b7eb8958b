r"""Ridge regression from several feature spaces, each with an alpha of its own (banded ridge).

With bands b = 1..B, kernels K_b, shares γ_b >= 0 that sum to one, and one α, the penalty is Σ_b (α/γ_b) ‖w_b‖² [1]_; it
is ridge regression with the kernel Σ_b γ_b K_b. A share of 0 leaves a band out. As in [2]_, shares are drawn at random
from Dirichlet distributions and each target keeps the draw and the α that cross-validation finds best. Here each draw
costs one eigendecomposition and is scored, for all α and all targets, by the closed forms of
`neurodecode.ridge.selection`, where the reference fits every fold.
"""

# n rows, p features, m targets, B bands, D draws

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from neurodecode.ridge.choice import alpha_grid
from neurodecode.ridge.estimator import DEFAULT_ALPHAS, PRECISIONS
from neurodecode.ridge.inputs import checked_features, checked_weights, new_features
from neurodecode.ridge.rowwise import rowwise_product
from neurodecode.ridge.saved import Saved
from neurodecode.ridge.selection import SELECTIONS, folds_of_groups, scores
from neurodecode.ridge.solver import counts
from neurodecode.ridge.system import Features, Spectrum, centre, gram
from neurodecode.ridge.targets import Targets
from neuroloaders.checks import check_int, check_number, check_option, check_shape, invalid

__all__ = ["BandedRidge", "drawn_shares"]


class BandedRidge(Saved, MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Ridge regression with one alpha for each band of features, and for each target.

    Parameters
    ----------
    bands : array of shape (n_features,), optional
        Band of each feature: any labels. None: all are one band, and this is `MultiTargetRidge`.
    alphas : sequence of float
        What α is chosen from.
    select : {"gcv", "loo", "group-kfold"}
        How shares and α are chosen: see `neurodecode.ridge.selection`.
    n_draws : int
        Shares to try, besides equal ones and those that use a single band.
    concentration : sequence of float
        Parameters of the Dirichlet distributions, used in turn: 1 draws evenly, 0.1 draws shares of which few are
        large.
    groups : array of shape (n_samples,), optional
        Group of each row for ``"group-kfold"``; `fit` takes it too.
    n_splits : int, optional
        Folds of ``"group-kfold"``. None: each group is a fold.
    fit_intercept : bool
        Fit an intercept, which is not penalised.
    precision : {"auto", "float32", "float64"}
        Of matrix products, as in `MultiTargetRidge`.
    bad_features : {"raise", "drop"}
        As in `MultiTargetRidge`.
    random_state : int, RandomState or None
        Draws the shares.
    chunk_size : int, optional
        Targets in memory at a time.
    device : str or torch.device, optional
        As in `MultiTargetRidge`.
    progress : bool
        Show a progress bar (tqdm) over draws.

    Attributes
    ----------
    bands_ : ndarray, shape (n_bands,)
        Names of the bands.
    band_shares_ : ndarray, shape (n_bands, n_targets)
        γ of each band and target.
    alpha_ : ndarray, shape (n_targets,)
        α of each target.
    band_alphas_ : ndarray, shape (n_bands, n_targets)
        Penalty of each band, α / γ; infinite where a band is not used.
    cv_mse_ : ndarray, shape (n_targets,)
        Cross-validated mean squared error of what was chosen. As it is the best of many, it flatters; judge on test
        data.
    coef_ : array or tensor, shape (n_targets, n_features) or (n_features,)
        Weights; computed each time it is asked for.

    Notes
    -----
    Cost: one n x n eigendecomposition for each of ``n_draws + n_bands + 1`` shares, whatever the number of targets and
    alphas. Deviations from [2]_: closed forms in place of K-fold refits; equal shares and single bands are always
    tried.

    References
    ----------
    .. [1] Nunez-Elizalde, Huth & Gallant, NeuroImage 197 (2019), doi:10.1016/j.neuroimage.2019.04.012.
    .. [2] Dupré la Tour, Eickenberg, Nunez-Elizalde & Gallant, NeuroImage 264 (2022),
       doi:10.1016/j.neuroimage.2022.119728.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((60, 80))
    >>> Y = X[:, :40] @ rng.standard_normal((40, 2)) + rng.standard_normal((60, 2))
    >>> model = BandedRidge(["motion"] * 40 + ["meaning"] * 40, alphas=[1, 10, 100], random_state=0).fit(X, Y)
    >>> bool((model.band_shares_[1] > 0.6).all()), model.bands_.tolist()
    (True, ['meaning', 'motion'])
    """

    def __init__(
        self,
        bands: Any = None,
        *,
        alphas: Any = DEFAULT_ALPHAS,
        select: str = "gcv",
        n_draws: int = 30,
        concentration: Any = (0.1, 1.0),
        groups: Any = None,
        n_splits: int | None = 5,
        fit_intercept: bool = True,
        precision: str = "auto",
        bad_features: str = "raise",
        random_state: Any = None,
        chunk_size: int | None = None,
        device: Any = None,
        progress: bool = False,
    ) -> None:
        self.bands = bands
        self.alphas = alphas
        self.select = select
        self.n_draws = n_draws
        self.concentration = concentration
        self.groups = groups
        self.n_splits = n_splits
        self.fit_intercept = fit_intercept
        self.precision = precision
        self.bad_features = bad_features
        self.random_state = random_state
        self.chunk_size = chunk_size
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> BandedRidge:
        """Choose shares and alphas, and fit all targets.

        Parameters
        ----------
        X : array, tensor or path, shape (n_samples, n_features)
            Features of all bands, side by side.
        y : array, tensor, memory map or path, shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : float or array of shape (n_samples,), optional
            Weight of each row.
        groups : array of shape (n_samples,), optional
            Group of each row.
        """
        from tqdm.auto import tqdm

        check_option("select", self.select, SELECTIONS)
        check_option("precision", self.precision, PRECISIONS)
        check_int("n_draws", self.n_draws, at_least=0)
        if y is None:
            Targets(y, 0)
        lib, x = checked_features(self, X)
        targets, weights = Targets(y, x.shape[0]), checked_weights(sample_weight, x.shape[0])
        alphas, folds = alpha_grid(self.alphas), []
        if self.select == "group-kfold":
            folds = folds_of_groups(self.groups if groups is None else groups, targets.n, self.n_splits)
        dtype = self.precision
        if dtype == "auto":
            dtype = "float32" if str(x.dtype).endswith("float32") and targets.is_single else "float64"
        features = centre(lib, x, weights, dtype=dtype, intercept=self.fit_intercept, dual=True)
        self._read_bands()
        kernels = [gram(self._of_band(features, b), precision="float64") for b in range(len(self.bands_))]
        shares = drawn_shares(len(kernels), self.n_draws, self.concentration, self.random_state)

        m = targets.m
        best, alpha, draw = np.full(m, np.inf), np.zeros(m), np.zeros(m, dtype=np.int64)
        duals, mean = lib.zeros((targets.n, m), dtype), lib.zeros((m,), dtype)
        for k, share in enumerate(tqdm(shares, desc="banded ridge", unit=" draws", disable=not self.progress)):
            matrix = sum(float(g) * kernel for g, kernel in zip(share, kernels, strict=True) if g > 0)
            spectrum = Spectrum(features, matrix)
            counts["eigh"] += 1
            for part in targets.chunks(self.chunk_size, dtype):
                prepared, mean[part] = targets.prepared(part, features)
                errors, q = scores(self.select, spectrum, prepared, alphas, folds)
                lowest = errors.min(0)
                better = np.flatnonzero(lowest < best[part])
                if len(better):
                    columns, chosen = better + part.start, alphas[errors.argmin(0)[better]]
                    best[columns], alpha[columns], draw[columns] = lowest[better], chosen, k
                    duals[:, columns] = spectrum.back @ spectrum.divided(q[:, better], chosen)
        features.hold_for_single_rows()
        self._features, self._coefficients, self._mean, self._is_1d = features, duals, mean, targets.is_1d
        self.alpha_, self.band_shares_, self.cv_mse_ = alpha, np.ascontiguousarray(shares[draw].T), best
        return self

    def predict(self, X: Any) -> Any:
        """Predict the targets of new rows; no row depends on the others, to the last bit.

        Parameters
        ----------
        X : array, tensor or path, shape (n_samples, n_features)
            New rows.
        """
        parts = self._parts_by_band(X)
        total = next(parts)
        for part in parts:
            total = total + part
        return self._given(total + self._mean)

    def predict_bands(self, X: Any) -> np.ndarray:
        """Return what each band contributes to the predictions, shape (n_bands, n_samples, n_targets).

        Parameters
        ----------
        X : array, tensor or path, shape (n_samples, n_features)
            New rows. The contributions and the mean of the targets sum to the prediction.
        """
        return np.stack([self._features.lib.numpy(part) for part in self._parts_by_band(X)])

    @property
    def band_alphas_(self) -> np.ndarray:
        """Penalty of each band and target, shape (n_bands, n_targets)."""
        with np.errstate(divide="ignore"):
            return self.alpha_ / self.band_shares_

    @property
    def coef_(self) -> Any:
        """Weights, shape (n_targets, n_features), or (n_features,) of a single target; 0 for dropped features."""
        if not hasattr(self, "_coefficients"):
            raise AttributeError("coef_ exists after fit() only")
        features, lib = self._features, self._features.lib
        kept = np.flatnonzero(self.kept_features_)
        out = lib.zeros((len(self.alpha_), self.n_features_in_), features.dtype)
        shares = lib.array(self.band_shares_, features.dtype)
        for b, columns in enumerate(self._columns()):
            out[:, kept[columns]] = (self._coefficients * shares[b]).T @ features.x[:, columns]
        return self._given(out.T).T if self._is_1d else self._given(out)

    def _read_bands(self) -> None:
        labels = np.zeros(self.n_features_in_, dtype=np.int64) if self.bands is None else np.asarray(self.bands)
        check_shape("bands", labels, (self.n_features_in_,), advice="One label for each column of X.")
        labels = labels[self.kept_features_]
        self.bands_ = np.unique(labels)

    def _columns(self) -> list[np.ndarray]:
        """Return the numbers of the features, among those kept, of each band."""
        if not hasattr(self, "bands_"):
            self._read_bands()
        if self.bands is None:
            return [np.arange(int(self.kept_features_.sum()))]
        labels = np.asarray(self.bands)[self.kept_features_]
        return [np.flatnonzero(labels == name) for name in self.bands_]

    def _of_band(self, features: Features, b: int) -> Features:
        columns = self._columns()[b]
        mean = features.mean[columns]
        own = (features.lib, features.dtype, features.x[:, columns], mean, features.weights)
        return Features(*own, features.intercept, dual=True)

    def _parts_by_band(self, X: Any) -> Any:
        """Yield what each band contributes, shape (t, m)."""
        check_is_fitted(self, "alpha_")
        features, x = self._features, new_features(self, X)
        centred = features.centred(x)
        shares = features.lib.array(self.band_shares_, features.dtype)
        for b, columns in enumerate(self._columns()):
            rows = rowwise_product(centred[:, columns], features.x[:, columns].T)
            yield rowwise_product(rows, self._coefficients * shares[b])

    def _given(self, result: Any) -> Any:
        if self._is_1d:
            result = result[:, 0]
        return self._features.lib.numpy(result) if self._takes_numpy else result

    def _must_hold_coefficients(self) -> None:
        """Do nothing: a fit always keeps them."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "alpha_")


def drawn_shares(n_bands: int, n_draws: int, concentration: Any, random_state: Any) -> np.ndarray:
    """Return shares of the bands to try, shape (D, n_bands): equal ones, single bands, then random ones.

    Parameters
    ----------
    n_bands : int
        Number of bands.
    n_draws : int
        Number of random draws.
    concentration : sequence of float
        Parameters of the Dirichlet distributions, used in turn.
    random_state : int, RandomState or None
        Draws them.

    Examples
    --------
    >>> drawn_shares(2, 0, [1.0], 0)
    array([[0.5, 0.5],
           [1. , 0. ],
           [0. , 1. ]])
    """
    if n_bands == 1:
        return np.ones((1, 1))
    values = [check_number("concentration", float(c), above=0) for c in np.atleast_1d(concentration)]
    if not values:
        raise invalid("concentration", "hold at least one number > 0", "none")
    rng = check_random_state(random_state)
    draws = [rng.dirichlet(np.full(n_bands, values[k % len(values)])) for k in range(n_draws)]
    return np.concatenate([np.full((1, n_bands), 1.0 / n_bands), np.eye(n_bands), np.reshape(draws, (-1, n_bands))])
