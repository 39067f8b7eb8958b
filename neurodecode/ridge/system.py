r"""Centred features, their Gram matrix, and the two ways to invert it: Cholesky for one alpha, eigenvectors for all.

With square roots of the sample weights s, weighted means x̄ and ȳ, and X̃ = s(X - x̄), Ỹ = s(Y - ȳ), ridge regression
with an intercept that is not penalised is ridge regression of Ỹ on X̃ without one. In the dual, predictions are
:math:`\hat y = (x - \bar x) \tilde X^T (\tilde X \tilde X^T + \alpha I)^{-1} \tilde Y + \bar y`; in the primal the p x
p matrix X̃ᵀX̃ takes the place of the n x n one. What multiplies Ỹ does not depend on it: the smoother.

The hat matrix, in the scale of Ỹ, is :math:`H = \tilde X \tilde X^T (\tilde X \tilde X^T + \alpha I)^{-1} + u u^T` with
u = s/‖s‖, the direction of the intercept. In the dual :math:`I - H = \alpha (\tilde X \tilde X^T + \alpha I)^{-1} -
u u^T`, which subtracts nothing that nearly cancels.
"""

# n training rows, p features, m targets, t new rows, r eigenvectors

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import Library
from neurodecode.ridge.rowwise import rowwise_product

__all__ = ["Cholesky", "Features", "Spectrum", "centre", "gram", "row_weights"]

# Inverses of fold blocks that are kept: 20 alphas and 5 folds of 1000 rows are 800 MB.
_KEPT_BYTES = 2**30

# Features at a time while a float32 Gram matrix is summed in float64.
_BLOCK = 4096


@dataclass(eq=False)
class Features:
    """Training features, centred and weighted, and how new ones become comparable."""

    lib: Library
    dtype: str
    x: Any  # (n, p), in dtype
    mean: Any  # (p,), in dtype
    weights: np.ndarray | None  # (n,), of the samples; None: all 1
    intercept: bool
    dual: bool

    @property
    def n(self) -> int:
        """Return the number of training rows."""
        return self.x.shape[0]

    def root_weights(self, dtype: str) -> Any:
        """Return s, shape (n, 1), or None where all are 1."""
        return None if self.weights is None else self.lib.array(np.sqrt(self.weights)[:, None], dtype)

    def intercept_direction(self) -> np.ndarray:
        """Return u, shape (n,); zero without intercept."""
        if not self.intercept:
            return np.zeros(self.n)
        s = np.ones(self.n) if self.weights is None else np.sqrt(self.weights)
        return s / np.linalg.norm(s)

    def centred(self, x_new: Any) -> Any:
        """Return new rows minus the training mean."""
        return self.lib.array(x_new, self.dtype) - self.mean

    def inputs(self, x_new: Any, *, exact_rows: bool = False) -> Any:
        """Return what the coefficients multiply: kernel rows (t, n) in the dual, centred rows (t, p) in the primal.

        With `exact_rows` no row depends on the others, to the last bit.
        """
        x = self.centred(x_new)
        if not self.dual:
            return x
        return rowwise_product(x, self.x.T) if exact_rows else x @ self.x.T

    def own_inputs(self, rows: np.ndarray) -> Any:
        """Return the inputs of training rows, in the scale of Ỹ."""
        return self.x[rows] @ self.x.T if self.dual else self.x[rows]

    def hold_for_single_rows(self) -> None:
        """Store X̃ feature by feature: what `rowwise_product` reads is then contiguous."""
        if self.dual:
            kept = self.x.T
            self.x = (np.ascontiguousarray(kept) if isinstance(kept, np.ndarray) else kept.contiguous()).T


def centre(lib: Library, x: Any, weights: np.ndarray | None, *, dtype: str, intercept: bool, dual: bool) -> Features:
    """Centre and weight features; `x` stays as it is."""
    mean = _mean(lib, x, weights) if intercept else np.zeros(x.shape[1])
    # Subtracted in the precision of the data, before anything is rounded to `dtype`.
    own = x if isinstance(x, np.ndarray) else lib.array(x, "float64" if dtype == "float64" else str(x.dtype)[6:])
    centred = lib.array(own - lib.array(mean, str(own.dtype).removeprefix("torch.")), dtype)
    features = Features(lib, dtype, centred, lib.array(mean, dtype), weights, intercept, dual)
    s = features.root_weights(dtype)
    if s is not None:
        features.x = features.x * s
    return features


def row_weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    """Return the weights of the rows in a mean, which sum to one."""
    return np.full(n, 1.0 / n) if weights is None else weights / weights.sum()


def _mean(lib: Library, x: Any, weights: np.ndarray | None) -> np.ndarray:
    """Return the weighted means of the columns, summed in float64."""
    if weights is not None:
        total = lib.array(weights, "float64") @ lib.array(x, "float64")
        return lib.numpy(total) / weights.sum()
    if isinstance(x, np.ndarray):
        return x.mean(axis=0, dtype=np.float64)
    return lib.numpy(lib.array(x, "float64").mean(0))


def gram(features: Features, *, precision: str) -> Any:
    """Return X̃X̃ᵀ in the dual, X̃ᵀX̃ in the primal, in float64; products of single blocks in `precision`."""
    x, lib, (n, p) = features.x, features.lib, features.x.shape
    total = None
    # In blocks of the inner dimension: float32 products, but their sum in float64, and no float64 copy of the features.
    for first in range(0, p if features.dual else n, _BLOCK):
        block = x[:, first : first + _BLOCK] if features.dual else x[first : first + _BLOCK].T
        block = lib.array(block, precision)
        part = lib.array(block @ block.T, "float64")
        total = part if total is None else total.__iadd__(part)
    return total


class Cholesky:
    """One alpha: a Cholesky factor, from which come smoothers, coefficients and leave-one-out residuals.

    `matrix` is overwritten.
    """

    def __init__(self, features: Features, matrix: Any, alpha: float) -> None:
        self.features, self.alpha = features, alpha
        index = range(len(matrix))
        matrix[index, index] += alpha
        self.factor = features.lib.cholesky(matrix)
        self._inverse: Any = None

    def coefficients(self, y: Any) -> Any:
        """Return what multiplies the inputs: duals (n, m) or weights (p, m), for Ỹ (n, m)."""
        lib, dtype = self.features.lib, self.features.dtype
        right = y if self.features.dual else self.features.x.T @ y
        # Two triangular systems in float64 take longer than one product in float32, once there are many targets.
        if self.features.dual and dtype == "float32" and (self._inverse is not None or 4 * y.shape[1] > len(y)):
            if self._inverse is None:
                self._inverse = lib.array(lib.inverse(self.factor), dtype)
            return self._inverse @ right
        return lib.array(lib.solve(self.factor, lib.array(right, "float64")), dtype)

    def smoother(self, inputs: Any) -> Any:
        """Return what multiplies Ỹ, shape (t, n), for the inputs of t rows."""
        lib, dtype = self.features.lib, self.features.dtype
        rows = lib.solve(self.factor, lib.array(inputs, "float64").T).T
        rows = lib.array(rows, dtype)
        return rows if self.features.dual else rows @ self.features.x.T

    def residual_rows(self, rows: np.ndarray) -> Any:
        """Return rows of I - H but for the intercept, in float64, shape (len(rows), n)."""
        lib, features = self.features.lib, self.features
        unit = lib.zeros((len(rows), features.n), "float64")
        unit[range(len(rows)), rows] = 1.0
        if features.dual:
            return self.alpha * lib.solve(self.factor, unit.T).T
        x = lib.array(features.x, "float64")
        return unit - lib.solve(self.factor, x[rows].T).T @ x.T


class Spectrum:
    r"""All alphas: eigenvectors U (n x r) and eigenvalues λ of X̃X̃ᵀ, from the smaller of the two Gram matrices.

    With Q = UᵀỸ, coefficients are B (Q / (λ + α)) and predictions F (Q / (λ + α)), where B is U in the dual, V√λ in the
    primal, and F = inputs · B. So a target costs its Q once, and an alpha a division.
    """

    def __init__(self, features: Features, matrix: Any, *, dual: bool | None = None) -> None:
        lib = features.lib
        self.features, self.lib = features, lib
        self.complete = features.dual if dual is None else dual
        values, vectors = lib.eigh(matrix)
        values = lib.numpy(values).copy()
        # The centred matrix has an exact zero, which comes out as rounding noise of either sign.
        noise = values[-1] * len(values) * np.finfo(np.float64).eps
        values[values <= noise] = 0.0
        if not self.complete:
            keep = values > 0
            values, vectors = values[keep], vectors[:, np.flatnonzero(keep)]
            root = lib.array(np.sqrt(values), "float64")
            self.u64 = (lib.array(features.x, "float64") @ vectors) / root
            self.back = lib.array(vectors * root, features.dtype)
        else:
            self.u64 = vectors
        self.values = values
        self.u = lib.array(self.u64, features.dtype)
        if self.complete:
            self.back = self.u
        self._fold_inverses: dict[tuple[float, bytes], Any] = {}
        self._fold_bytes = 0

    def project(self, y: Any) -> Any:
        """Return Q = UᵀỸ, in the precision of `y`."""
        return (self.u64 if str(y.dtype).endswith("64") else self.u).T @ y

    def divided(self, q: Any, alpha: np.ndarray | float) -> Any:
        """Return Q / (λ + α), with one alpha, or one for each target."""
        alpha = np.asarray(alpha, dtype=np.float64)
        lib, dtype = self.lib, str(q.dtype).removeprefix("torch.")
        if alpha.ndim == 0:
            return q * lib.array(1.0 / (self.values + float(alpha))[:, None], dtype)
        return q / (lib.array(self.values[:, None], dtype) + lib.array(alpha[None, :], dtype))

    def residuals(self, y: Any, q: Any, alpha: np.ndarray | float, rows: np.ndarray | slice = slice(None)) -> Any:
        """Return residuals of the fit, (I - H) Ỹ, shape (rows, m)."""
        u = self.u64 if str(q.dtype).endswith("64") else self.u
        if self.complete:
            scale = self.lib.array(np.asarray(alpha, dtype=np.float64), str(q.dtype).removeprefix("torch."))
            return (u[rows] @ self.divided(q, alpha)) * scale
        values = self.lib.array(self.values[:, None], str(q.dtype).removeprefix("torch."))
        return y[rows] - u[rows] @ (self.divided(q, alpha) * values)

    def unexplained(self, alphas: np.ndarray) -> np.ndarray:
        """Return the diagonals of I - H, shape (n_alphas, n), in float64."""
        squares = self.lib.numpy(self.u64 * self.u64)
        u2 = self.features.intercept_direction() ** 2
        alphas = np.asarray(alphas, dtype=np.float64)[:, None]
        if self.complete:
            return (alphas / (self.values + alphas)) @ squares.T - u2
        return 1.0 - (self.values / (self.values + alphas)) @ squares.T - u2

    def fold_errors(self, alpha: float, fold: np.ndarray, residuals: Any) -> Any:
        r"""Return (I - H_gg)⁻¹ R_g, the errors of the rows of a fold when it is left out, in the precision of R_g.

        With more rows in the fold than eigenvectors, H_gg = ZZᵀ has a low rank, and the inverse is that of a smaller
        matrix: :math:`(I - ZZ^T)^{-1} = I + Z (I - Z^T Z)^{-1} Z^T`.
        """
        lib, dtype = self.lib, str(residuals.dtype).removeprefix("torch.")
        thin = not self.complete and len(self.values) + 1 < len(fold)
        inverse, z = self._fold_inverse(alpha, fold, thin)
        if not thin:
            return lib.array(inverse, dtype) @ residuals
        z = lib.array(z, dtype)
        return residuals + z @ (lib.array(inverse, dtype) @ (z.T @ residuals))

    def _fold_inverse(self, alpha: float, fold: np.ndarray, thin: bool) -> tuple[Any, Any]:
        """Return (I - H_gg)⁻¹, or (I - ZᵀZ)⁻¹ with Z, in float64; kept, as each chunk of targets asks for it again."""
        key = (alpha, fold.tobytes())
        if key in self._fold_inverses:
            return self._fold_inverses[key]
        lib = self.lib
        direction = lib.array(self.features.intercept_direction()[fold, None], "float64")
        kept = alpha if self.complete else self.values
        u = self.u64[fold] * lib.array(np.sqrt(kept / (self.values + alpha)), "float64")
        z = None
        if self.complete:
            block = u @ u.T - direction @ direction.T
        else:
            z = lib.zeros((len(fold), len(self.values) + 1), "float64")
            z[:, :-1], z[:, -1:] = u, direction
            block = -(z.T @ z) if thin else -(z @ z.T)
            diagonal = range(len(block))
            block[diagonal, diagonal] += 1.0
        found = (lib.inverse(lib.cholesky(block)), z if thin else None)
        self._fold_bytes += 8 * (len(block) ** 2 + (z.shape[0] * z.shape[1] if thin else 0))
        if self._fold_bytes <= _KEPT_BYTES:
            self._fold_inverses[key] = found
        return found

    def degrees_left(self, alpha: float, n_rows: int) -> float:
        """Return n - tr H, n being the rows that have a weight."""
        missing = n_rows - len(self.values)
        return float((alpha / (self.values + alpha)).sum() + missing - self.features.intercept)
