"""From features and targets to coefficients and predictions, a chunk of targets at a time, by the cheapest path.

Alphas that are fixed and few need one Cholesky factor each. Alphas that are chosen, or many, need one
eigendecomposition. `counts` says how often each was made in this process.
"""

# n training rows, t new rows, m targets, w targets of a chunk

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodecode.ridge.choice import chosen_alphas
from neurodecode.ridge.selection import scores
from neurodecode.ridge.system import Cholesky, Features, Spectrum, gram
from neurodecode.ridge.targets import Targets

__all__ = ["Chunk", "Plan", "Rows", "Solver", "counts"]

counts: Counter[str] = Counter()

# An eigendecomposition takes as long as some 25 Cholesky factorisations, and about as long with their solves as 8.
MAX_FACTORS = 8


@dataclass(eq=False)
class Plan:
    """How alphas are found.

    Either `fixed`, shape (m,), or `alphas` to choose from by `select`, one for each group of `numbers`, shape (m,).
    """

    fixed: np.ndarray | None
    alphas: np.ndarray
    select: str
    numbers: np.ndarray
    folds: Sequence[np.ndarray] = ()

    @property
    def is_shared(self) -> bool:
        """Return whether targets of different chunks may have to agree on an alpha."""
        return self.fixed is None and not np.array_equal(self.numbers, np.arange(len(self.numbers)))


@dataclass(eq=False)
class Chunk:
    """Some targets: prepared, with their alphas and, where alphas were chosen, their errors."""

    columns: slice
    y: Any  # (n, w), Ỹ
    mean: Any  # (w,)
    alpha: np.ndarray  # (w,)
    q: Any = None  # (r, w)
    errors: np.ndarray | None = None  # (A, w)


class Solver:
    """The factorised system of one set of training rows.

    Parameters
    ----------
    features : Features
        Training features.
    plan : Plan
        How alphas are found.
    """

    def __init__(self, features: Features, plan: Plan) -> None:
        self.features, self.plan = features, plan
        self.spectrum: Spectrum | None = None
        self.factors: dict[float, Cholesky] = {}
        distinct = [] if plan.fixed is None else np.unique(plan.fixed).tolist()
        spectral = plan.fixed is None or len(distinct) > MAX_FACTORS
        # Where an alpha is chosen, rounding must not choose it; the primal matrix is small, and squares the condition.
        exact = spectral or not features.dual
        matrix = gram(features, precision="float64" if exact else features.dtype)
        counts["dual" if features.dual else "primal"] += 1
        if spectral:
            self.spectrum = Spectrum(features, matrix)
            counts["eigh"] += 1
        for k, alpha in enumerate(() if spectral else distinct):
            last = k == len(distinct) - 1
            self.factors[alpha] = Cholesky(features, matrix if last else matrix + 0.0, alpha)
            counts["cholesky"] += 1

    def with_plan(self, plan: Plan) -> Solver:
        """Return a solver that shares this one's factorisations and takes its alphas from `plan`."""
        other = Solver.__new__(Solver)
        other.__dict__.update(self.__dict__, plan=plan)
        return other

    def chunks(self, targets: Targets, columns: Sequence[slice], bar: Any = None) -> Iterator[Chunk]:
        """Yield the targets chunk by chunk, each with its alphas.

        Where alphas are shared, all targets are read twice.
        """
        plan, lib = self.plan, self.features.lib
        errors: list[np.ndarray] = []
        shared = None
        if plan.is_shared:
            for part in columns:
                y, _ = targets.prepared(part, self.features)
                errors.append(scores(plan.select, self._spectrum(), y, plan.alphas, plan.folds)[0])
                _advance(bar, part)
            shared = chosen_alphas(np.concatenate(errors, axis=1), plan.alphas, plan.numbers)
        for k, part in enumerate(columns):
            y, mean = targets.prepared(part, self.features)
            if plan.fixed is not None:
                chunk = Chunk(part, y, mean, plan.fixed[part])
            elif shared is not None:
                chunk = Chunk(part, y, mean, shared[part], errors=errors[k])
            else:
                found, q = scores(plan.select, self._spectrum(), y, plan.alphas, plan.folds)
                alpha = chosen_alphas(found, plan.alphas, np.arange(found.shape[1]))
                chunk = Chunk(part, y, mean, alpha, q, found)
            if self.spectrum is not None and chunk.q is None:
                chunk.q = self.spectrum.project(lib.array(y, self.features.dtype))
            yield chunk
            _advance(bar, part)

    def coefficients(self, chunk: Chunk) -> Any:
        """Return what multiplies the inputs of new rows: duals (n, w), or weights (p, w) in the primal."""
        if self.spectrum is not None:
            return self.spectrum.back @ self.spectrum.divided(chunk.q, _one_or_all(chunk.alpha))
        return self._by_alpha(chunk, lambda alpha, y: self.factors[alpha].coefficients(y))

    def rows(self, x_new: Any) -> Rows:
        """Prepare new rows, shape (t, p)."""
        inputs = self.features.inputs(x_new)
        if self.spectrum is not None:
            return Rows(self, {None: inputs @ self.spectrum.back})
        return Rows(self, {alpha: factor.smoother(inputs) for alpha, factor in self.factors.items()})

    def left_out_rows(self, rows: np.ndarray) -> LeftOutRows:
        """Prepare training rows, each to be predicted from all others."""
        return LeftOutRows(self, rows)

    def _spectrum(self) -> Spectrum:
        if self.spectrum is None:  # not reached: a plan that chooses makes a spectrum
            raise RuntimeError("alphas can only be chosen from a spectrum")
        return self.spectrum

    def _by_alpha(self, chunk: Chunk, product: Any) -> Any:
        """Return products, shape (..., w), where each distinct alpha of a chunk has a matrix of its own."""
        distinct = np.unique(chunk.alpha).tolist()
        if len(distinct) == 1:
            return product(distinct[0], chunk.y)
        out = None
        for alpha in distinct:
            columns = np.flatnonzero(chunk.alpha == alpha)
            part = product(alpha, chunk.y[:, columns])
            if out is None:
                out = self.features.lib.zeros((len(part), len(chunk.alpha)), self.features.dtype)
            out[:, columns] = part
        return out


class Rows:
    """New rows: one product a chunk gives their predictions, and no weights are formed."""

    def __init__(self, solver: Solver, matrices: dict[float | None, Any]) -> None:
        self.solver, self.matrices = solver, matrices

    def predict(self, chunk: Chunk) -> Any:
        """Return predictions, shape (t, w)."""
        spectrum = self.solver.spectrum
        if spectrum is not None:
            out = self.matrices[None] @ spectrum.divided(chunk.q, _one_or_all(chunk.alpha))
        else:
            out = self.solver._by_alpha(chunk, lambda alpha, y: self.matrices[alpha] @ y)
        return out + chunk.mean


class LeftOutRows:
    """Training rows predicted from all others; exactly what a refit without each would give."""

    def __init__(self, solver: Solver, rows: np.ndarray) -> None:
        features = solver.features
        self.solver, self.rows, lib = solver, rows, features.lib
        self.matrices: dict[float, Any] = {}
        u2 = features.intercept_direction()[rows] ** 2
        for alpha, factor in solver.factors.items():
            residual_rows = factor.residual_rows(rows)
            unexplained = residual_rows[range(len(rows)), rows] - lib.array(u2, "float64")
            self.matrices[alpha] = lib.array(residual_rows / unexplained[:, None], features.dtype)

    def predict(self, chunk: Chunk) -> Any:
        """Return predictions, shape (len(rows), w)."""
        lib, features, spectrum = self.solver.features.lib, self.solver.features, self.solver.spectrum
        if spectrum is not None:
            alpha, number = np.unique(chunk.alpha, return_inverse=True)
            scale = 1.0 / spectrum.unexplained(alpha)[:, self.rows]
            errors = spectrum.residuals(chunk.y, chunk.q, _one_or_all(chunk.alpha), self.rows)
            errors = errors * lib.array(np.ascontiguousarray(scale[number].T), features.dtype)
        else:
            errors = self.solver._by_alpha(chunk, lambda alpha, y: self.matrices[alpha] @ y)
        out = chunk.y[self.rows] - errors
        s = features.root_weights(features.dtype)
        return (out if s is None else out / s[self.rows]) + chunk.mean


def _one_or_all(alpha: np.ndarray) -> np.ndarray | float:
    """Return one number where all targets have the same alpha: dividing by it is cheaper."""
    return float(alpha[0]) if (alpha == alpha[0]).all() else alpha


def _advance(bar: Any, columns: slice) -> None:
    if bar is not None:
        bar.update(columns.stop - columns.start)
