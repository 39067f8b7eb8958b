"""What a fitted ridge regression holds: duals or weights, and what is made of them in chunks of targets."""

# n_samples rows, n_features, n_targets

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from neurodecode.ridge.saved import Saved
from neurodecode.ridge.targets import opened_output
from neuroloaders.checks import invalid

__all__ = ["FittedRidge", "as_matrix", "put"]

# Bytes of weights in a chunk, if the user does not choose its targets.
_CHUNK_BYTES = 1 << 25


class FittedRidge(Saved):
    """Weights, duals and intercepts of an estimator that holds `_features`, `_coefficients` and `_mean`."""

    def weights(self, *, out: Any = None) -> Any:
        """Return the weights of all targets, from duals in chunks.

        Parameters
        ----------
        out : array or path, optional
            As for `predict`. For Brain-Diffuser at full size the weights are 22 GB.

        Returns
        -------
        array or tensor, shape (n_targets, n_features)
            Weights, 0 for features that were dropped.
        """
        check_is_fitted(self, "alpha_")
        features = self._features
        shape = (len(self.alpha_), self.n_features_in_)
        with opened_output(out, shape, features.dtype, features.lib) as holder:
            for part, block in self.weight_chunks():
                holder[0][part] = block if hasattr(holder[0], "detach") else features.lib.numpy(block)
        return features.lib.numpy(holder[0]) if self._takes_numpy else holder[0]

    def weight_chunks(self) -> Iterator[tuple[slice, Any]]:
        """Yield pairs: a slice of targets, and their weights of shape (n_targets, n_features)."""
        check_is_fitted(self, "alpha_")
        self._must_hold_coefficients()
        features = self._features
        kept = np.flatnonzero(self.kept_features_)
        for part in self._parts(features.n):
            block = self._coefficients[:, part].T
            if features.dual:
                block = block @ features.x
            full = features.lib.zeros((len(block), self.n_features_in_), features.dtype)
            full[:, kept] = block
            yield part, full

    @property
    def dual_coef_(self) -> Any:
        """Duals, shape (n_samples, n_targets)."""
        if not getattr(self, "is_dual_", False) or self._coefficients is None:
            raise AttributeError("dual_coef_ exists after fit() of a dual system only; see coef_")
        return self._coefficients

    @property
    def coef_(self) -> Any:
        """Weights, shape (n_targets, n_features), or (n_features,) of a single target."""
        if getattr(self, "_coefficients", None) is None:
            raise AttributeError("coef_ exists after fit() only")
        weights = self.weights()
        return weights[0] if self._is_1d else weights

    @property
    def intercept_(self) -> Any:
        """Intercepts, shape (n_targets,), or a number."""
        if getattr(self, "_coefficients", None) is None:
            raise AttributeError("intercept_ exists after fit() only")
        features, kept = self._features, np.flatnonzero(self.kept_features_)
        out = self._mean + 0
        for part, block in self.weight_chunks():
            out[part] -= block[:, kept] @ features.mean
        out = features.lib.numpy(out) if self._takes_numpy else out
        return out[0] if self._is_1d else out

    def _parts(self, n: int) -> list[slice]:
        size = self.chunk_size or max(_CHUNK_BYTES // (8 * max(n, self.n_features_in_)), 64)
        m = len(self.alpha_)
        return [slice(first, min(first + size, m)) for first in range(0, m, size)]

    def _filled(self, out: Any, t: int, product: Any) -> Any:
        """Fill an output chunk by chunk."""
        self._must_hold_coefficients()
        features, m = self._features, len(self.alpha_)
        with opened_output(as_matrix(out, self._is_1d), (t, m), features.dtype, features.lib) as holder:
            for part in self._parts(t):
                put(holder[0], part, product(part))
        return self._given(holder[0])

    def _given(self, predictions: Any) -> Any:
        """Return predictions in the shape and kind that the user's arrays have."""
        if self._is_1d:
            predictions = predictions[:, 0]
        return self._features.lib.numpy(predictions) if self._takes_numpy else predictions

    def _must_hold_coefficients(self) -> None:
        if self._coefficients is None:
            advice = "Call fit(X, y)."
            raise invalid("predict", "follow fit()", "smooth_predict(), which keeps no duals or weights", advice)

    def __getstate__(self) -> dict[str, Any]:
        # The factorisation is for loo_predict(), which makes it anew where it is gone.
        return {**super().__getstate__(), "_solver": None} if hasattr(self, "_solver") else super().__getstate__()


def as_matrix(out: Any, is_1d: bool) -> Any:
    """Return a view of a 1-D output as one column."""
    return out[:, None] if is_1d and getattr(out, "ndim", None) == 1 else out


def put(out: Any, columns: slice, block: Any) -> None:
    """Write columns of an array, memory map or tensor, wherever the block was computed."""
    out[:, columns] = block.cpu().numpy() if isinstance(out, np.ndarray) and hasattr(block, "detach") else block
