r"""Predictions with the mean and the spread of the training targets, for one sample as for many.

Ridge predictions are shrunk: their spread is smaller than that of what they predict, and a generator that is fed with
them sees latents it never saw. Brain-Diffuser [1]_ therefore z-scores the predictions of the test set and gives them
the mean and standard deviation of the training targets. With the statistics of the test set itself (``"test"``) a
prediction depends on the other test samples, and a single live volume cannot be decoded. Here they come by default from
leave-one-out predictions of training rows (``"loo"``): out-of-sample like those of new rows, known before any of them.
"""

# t rows, m targets

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from neurodecode.ridge.arrays import is_tensor, library_of
from neurodecode.ridge.estimator import MultiTargetRidge
from neurodecode.ridge.left_out import checked_rows, left_out_chunks
from neurodecode.ridge.saved import Saved
from neuroloaders.checks import check_finite, check_int, check_option, check_shape, invalid

__all__ = ["STANDARDIZATIONS", "PredictionScaler", "StandardizedRidge", "chunk_statistics"]

# Spread of predictions, relative to their mean, below which they are constant but for rounding in float32.
_ROUNDING = 1e-7


def _by_training(scaler: PredictionScaler, predictions: Any) -> Any:
    return _rescale(scaler, predictions, scaler.prediction_mean_, scaler.prediction_std_)


def _by_themselves(scaler: PredictionScaler, predictions: Any) -> Any:
    if len(predictions) < 2:
        advice = "Use standardize='loo', which works for a single one."
        raise invalid("X", "have at least 2 rows for standardize='test', better hundreds", predictions, advice)
    wide = library_of(predictions).array(predictions, "float64")
    mean = wide.mean(0)
    spread = ((wide - mean) ** 2).mean(0) ** 0.5
    return _rescale(scaler, predictions, _numpy(mean), _numpy(spread))


# How predictions are standardised -> the function that does it.
STANDARDIZATIONS: dict[str | None, Callable[[PredictionScaler, Any], Any]] = {
    "loo": _by_training,
    "test": _by_themselves,
    None: lambda scaler, predictions: predictions,
}


class PredictionScaler(BaseEstimator):
    r"""Give predictions the mean and standard deviation of the training targets.

    Parameters
    ----------
    standardize : {"loo", "test", None}
        Where the statistics of the predictions come from. "loo": from those passed to `fit`, which should be
        out-of-sample, such as `MultiTargetRidge.loo_predict`. "test": from the rows passed to `transform`, as in the
        paper [1]_; each row then depends on the others. None: predictions stay as they are.

    Attributes
    ----------
    prediction_mean_, prediction_std_ : ndarray of float64, shape (n_targets,)
        Statistics of the predictions of training rows.
    target_mean_, target_std_ : ndarray of float64, shape (n_targets,)
        Statistics of the training targets.

    Notes
    -----
    :math:`\hat z = (\hat y - m) / s \cdot \sigma_Y + \mu_Y`, standard deviations with ddof = 0 as in the reference
    code. A target whose predictions have no spread at all gets :math:`\mu_Y` (there, NaN).

    A target that cannot be predicted gets the full spread as well; what it then carries is noise. Look at its
    cross-validated error.

    References
    ----------
    .. [1] Ozcelik & VanRullen, Scientific Reports 13 (2023), doi:10.1038/s41598-023-42891-8.

    Examples
    --------
    >>> scaler = PredictionScaler().fit([[1.0], [3.0]], [[10.0], [30.0]])
    >>> scaler.transform(np.array([[2.5]]))
    array([[25.]])
    """

    def __init__(self, standardize: str | None = "loo") -> None:
        self.standardize = standardize

    def fit(self, X: Any, y: Any = None) -> PredictionScaler:
        """Take the statistics of predictions and targets of the training rows.

        Parameters
        ----------
        X : array of shape (n_samples, n_targets)
            Predictions of training rows, made without these rows.
        y : array of shape (n_samples, n_targets)
            Targets; as many rows as the training set has, which need not be those of `X`.
        """
        check_option("standardize", self.standardize, STANDARDIZATIONS)
        if y is None:
            raise invalid("y", "be given: PredictionScaler requires y to be passed, but the target y is None", "None")
        predictions, targets = _matrix("X", X), _matrix("y", y)
        check_shape("y", targets, ("n", predictions.shape[1]), advice="One column for each column of the predictions.")
        return self._set(predictions.mean(0), predictions.std(0), targets.mean(0), targets.std(0))

    def transform(self, X: Any) -> Any:
        """Return standardised predictions.

        Parameters
        ----------
        X : array or tensor, shape (n_samples, n_targets)
            Predictions. With "loo" no row depends on the others, to the last bit.
        """
        check_is_fitted(self, "target_mean_")
        check_option("standardize", self.standardize, STANDARDIZATIONS)
        x = X if is_tensor(X) else np.asarray(X)
        check_shape("X", x, ("n", len(self.target_mean_)))
        return STANDARDIZATIONS[self.standardize](self, x)

    def _set(self, *statistics: np.ndarray) -> PredictionScaler:
        wide = [np.asarray(values, dtype=np.float64) for values in statistics]
        self.prediction_mean_, self.prediction_std_, self.target_mean_, self.target_std_ = wide
        self.n_features_in_ = len(self.target_mean_)
        return self


class StandardizedRidge(Saved, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression whose predictions have the mean and spread of the training targets.

    Parameters
    ----------
    ridge : MultiTargetRidge, optional
        The regression; a copy is fitted. By default one that chooses an alpha for each target.
    standardize : {"loo", "test", None}
        See `PredictionScaler`. "loo" works for a single volume; "test" is the paper's.
    n_loo : int, optional
        So many training rows, drawn at random, are predicted from all others for the statistics of "loo". None: all.
    random_state : int, RandomState or None
        Draws them.

    Attributes
    ----------
    ridge_ : MultiTargetRidge
        The fitted regression.
    scaler_ : PredictionScaler
        The statistics.
    n_features_in_ : int
        Number of features.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 20))
    >>> Y = X[:, :2] + rng.standard_normal((200, 2))
    >>> shrunk = MultiTargetRidge(alpha=300.0).fit(X, Y)
    >>> model = StandardizedRidge(shrunk).fit(X, Y)
    >>> new = rng.standard_normal((1000, 20))
    >>> shrunk.predict(new).std(0) / Y.std(0) < 0.4
    array([ True,  True])
    >>> abs(model.predict(new).std(0) / Y.std(0) - 1) < 0.15
    array([ True,  True])
    """

    def __init__(
        self, ridge: Any = None, *, standardize: str | None = "loo", n_loo: int | None = 1000, random_state: Any = 0
    ) -> None:
        self.ridge = ridge
        self.standardize = standardize
        self.n_loo = n_loo
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> StandardizedRidge:
        """Fit the regression and take the statistics.

        Parameters
        ----------
        X, y, sample_weight, groups
            As for `MultiTargetRidge.fit`. With sample weights the statistics are weighted too.
        """
        check_option("standardize", self.standardize, STANDARDIZATIONS)
        ridge = MultiTargetRidge() if self.ridge is None else clone(self.ridge)
        self.ridge_ = ridge.fit(X, y, sample_weight=sample_weight, groups=groups)
        self.n_features_in_ = ridge.n_features_in_
        if hasattr(ridge, "feature_names_in_"):
            self.feature_names_in_ = ridge.feature_names_in_
        features = ridge._features
        rows = drawn_rows(features, self.n_loo, self.random_state)
        found = [chunk_statistics(chunk, features, rows, block) for chunk, block in left_out_chunks(ridge, y, rows)]
        self.scaler_ = PredictionScaler(self.standardize)._set(*np.concatenate(found, axis=1))
        return self

    def predict(self, X: Any) -> Any:
        """Return standardised predictions, shape (n_samples, n_targets) or (n_samples,).

        Parameters
        ----------
        X : array, tensor or path, shape (n_samples, n_features)
            New rows.
        """
        check_is_fitted(self, "scaler_")
        predictions = self.ridge_.predict(X)
        if self.ridge_._is_1d:
            return self.scaler_.transform(predictions[:, None])[:, 0]
        return self.scaler_.transform(predictions)


def drawn_rows(features: Any, n_loo: int | None, random_state: Any) -> np.ndarray:
    """Return the numbers of training rows whose leave-one-out predictions are taken, in order."""
    from sklearn.utils import check_random_state

    rows = np.arange(features.n) if features.weights is None else np.flatnonzero(features.weights)
    if n_loo is not None and check_int("n_loo", n_loo, at_least=2) < len(rows):
        rows = np.sort(check_random_state(random_state).choice(rows, n_loo, replace=False))
    return checked_rows(rows, features)


def chunk_statistics(chunk: Any, features: Any, rows: np.ndarray | None, predictions: Any) -> np.ndarray:
    """Return mean and standard deviation of predictions, then of targets, in float64, shape (4, w).

    Parameters
    ----------
    chunk : Chunk
        Prepared targets.
    features : Features
        Training features.
    rows : ndarray of int, or None
        Which training rows were predicted; None: none of them, and the predictions count alike.
    predictions : array, shape (t, w)
        Leave-one-out predictions of these rows, or predictions of new ones.
    """
    lib = features.lib
    weights = np.ones(features.n) if features.weights is None else features.weights
    p = lib.numpy(predictions).astype(np.float64)
    share = np.ones(len(p)) if rows is None else weights[rows]
    share = share / share.sum()
    mean = share @ p
    spread = np.sqrt(share @ (p - mean) ** 2)
    y, s = lib.numpy(chunk.y).astype(np.float64), np.sqrt(weights)
    # Ỹ is s (Y - mean), or s Y where there is no intercept.
    offset = s @ y / weights.sum()
    target_spread = np.sqrt(np.maximum((y * y).sum(0) / weights.sum() - offset**2, 0.0))
    return np.stack([mean, spread, lib.numpy(chunk.mean) + offset, target_spread])


def _rescale(scaler: PredictionScaler, predictions: Any, mean: np.ndarray, spread: np.ndarray) -> Any:
    # What is rounding only must not be blown up.
    flat = spread <= _ROUNDING * abs(mean)
    factor = np.where(flat, 0.0, scaler.target_std_ / np.where(flat, 1.0, spread))
    lib = library_of(predictions)
    dtype = str(predictions.dtype).removeprefix("torch.")
    dtype = dtype if dtype in ("float32", "float64") else "float64"
    p = lib.array(predictions, dtype)
    # The mean first: of latents far from zero, a shift computed beforehand would lose digits.
    return (p - lib.array(mean, dtype)) * lib.array(factor, dtype) + lib.array(scaler.target_mean_, dtype)


def _matrix(name: str, x: Any) -> np.ndarray:
    x = np.asarray(_numpy(x), dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise invalid(name, "have shape (n_samples, n_targets), neither of them 0", x)
    return check_finite(name, x)


def _numpy(x: Any) -> Any:
    return x.detach().cpu().numpy() if is_tensor(x) else x
