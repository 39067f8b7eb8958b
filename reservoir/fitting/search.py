"""The search: the kernel scores candidates, differential evolution spreads them, Nelder-Mead refines the best."""

# P candidates, F free parameters, S sweeps

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from reservoir.fitting.scores import terms_of, voltage_term
from reservoir.fitting.space import Space
from reservoir.fitting.sweeps import Sweeps
from reservoir.izhikevich import SCHEMES

__all__ = ["Found", "Objective", "search"]

QUADRATIC = (0.04, 5.0, 140.0)
# Spread of the first candidates around the measured start, in units of the width of the bounds.
_SPREAD = 0.15
# How many of the first stage's best go on downhill, in how many steps, and by which part of the bounds' distance slopes
# are taken.
_DESCENTS, _STEPS, _DIFFERENCE = 5, 40, 1e-6


class Objective:
    """The loss of points of the search, many at once.

    Parameters
    ----------
    space : Space
        What is searched.
    sweeps : Sweeps
        What it is compared with.
    weights : mapping of str to float
        Of the terms of the loss.
    scheme : str
        A key of `reservoir.izhikevich.SCHEMES`.
    ceiling : float
        Potentials are compared up to here, mV.
    delta_ms : float
        Precision of the coincidence factor.
    n_threads : int
        Candidates are shared out among so many; no number depends on it.
    """

    def __init__(
        self,
        space: Space,
        sweeps: Sweeps,
        weights: Mapping[str, float],
        *,
        scheme: str,
        ceiling: float,
        delta_ms: float,
        n_threads: int = 1,
    ) -> None:
        self.space, self.sweeps, self.weights, self.scheme = space, sweeps, weights, scheme
        self.ceiling, self.delta_ms, self.n_threads = ceiling, delta_ms, n_threads
        self.n_evaluations = 0
        most = max(map(len, sweeps.spikes))
        self.room = 3 * most + 20
        self._given = np.full((sweeps.n_sweeps, most + 1), np.iinfo(np.int64).max)
        for s, spikes in enumerate(sweeps.spikes):
            # A step's spike is stamped with the end of the step.
            self._given[s, : len(spikes)] = np.maximum(np.rint(spikes / sweeps.dt_ms).astype(np.int64) - 1, 0)

    def forced(self, points: np.ndarray) -> np.ndarray:
        """Return the "voltage" term, shape (P,), of candidates that are reset where the recorded cell fired.

        Parameters
        ----------
        points : ndarray, shape (P, F)
            Points of the search.
        """
        errors = self.simulate(points, forced=True)[2]
        return voltage_term(errors, self.sweeps.target)

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Return the distances of the forced potential from that recorded, shape (P, G * S); 0 where there are none.

        Parameters
        ----------
        points : ndarray, shape (P, F)
            Points of the search.
        """
        away = np.zeros((len(points), *self.sweeps.target.shape))
        self.simulate(points, forced=True, distances=away)
        return np.clip(np.nan_to_num(away, nan=1e3), -1e3, 1e3).reshape(len(points), -1)

    def simulate(
        self, points: np.ndarray, *, forced: bool = False, distances: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return spike times in ms (P, S, Q), counts (P, S) and squared distances of the potential (P, S).

        Parameters
        ----------
        points : ndarray, shape (P, F)
            Points of the search.
        forced : bool
            Reset candidates where the recorded cell fired, and only there.
        distances : ndarray, shape (P, G, S), optional
            Receives the distances of the potential.
        """
        shape = (len(points), self.sweeps.n_sweeps)
        times = np.zeros((*shape, self.room), dtype=np.int32)
        counts, errors = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        candidates = self.space.candidates(points, self.sweeps.dt_ms)
        n_parts = min(self.n_threads, len(points))
        parts = [slice(k * len(points) // n_parts, (k + 1) * len(points) // n_parts) for k in range(n_parts)]
        results = [times, counts, errors] + ([] if distances is None else [distances])
        if n_parts == 1:
            self._run(candidates, forced, *results)
        else:
            with ThreadPoolExecutor(n_parts) as pool:
                jobs = [pool.submit(self._run, candidates[p], forced, *(one[p] for one in results)) for p in parts]
                for job in jobs:
                    job.result()
        self.n_evaluations += len(points)
        # A spike is where v has come to at the end of its step.
        return (times + 1) * self.sweeps.dt_ms, counts, errors

    def terms(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Return every term of the loss, each of shape (P,).

        Parameters
        ----------
        points : ndarray, shape (P, F)
            Points of the search.
        """
        s = self.sweeps
        return terms_of(*self.simulate(points), s.spikes, s.durations_ms, s.target, self.delta_ms)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the loss, shape (P,)."""
        terms = self.terms(points)
        return sum(weight * terms[name] for name, weight in self.weights.items())

    def _run(
        self,
        candidates: np.ndarray,
        forced: bool,
        times: np.ndarray,
        counts: np.ndarray,
        errors: np.ndarray,
        distances: np.ndarray | None = None,
    ) -> None:
        from reservoir.fitting.kernel import run_candidates

        s, scheme = self.sweeps, SCHEMES[self.scheme]
        numbers = np.array([s.dt_ms / scheme.n_substeps, *QUADRATIC])
        options = (scheme.n_substeps, scheme.u_sees_old_v, scheme.strict, self.space.form == "2007")
        # A sweep that begins inside a spike begins at the threshold.
        start = np.minimum(s.v_start, self.ceiling)
        run_candidates(
            candidates, numbers, *options, s.current, s.n_steps, start, s.stride, s.target, s.potential, self.ceiling,
            self._given, forced, times, counts, errors, np.zeros((0, 0, 0)) if distances is None else distances,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best point and how it was found.

    Attributes
    ----------
    point : ndarray, shape (F,)
        The point.
    loss : float
        Its loss.
    start_loss : float
        Loss of the initial values.
    history : list of float
        Best of each generation: distance of the potential in the first stage, then the loss.
    stopped_by : str
        "iterations", "converged" or "time".
    """

    point: np.ndarray
    loss: float
    start_loss: float
    history: list[float]
    stopped_by: str


def search(
    objective: Objective,
    rng: np.random.Generator,
    *,
    n_iterations: int,
    n_candidates: int,
    max_seconds: float | None = None,
    progress: bool = False,
) -> Found:
    """Return the best point.

    Parameters
    ----------
    objective : Objective
        The loss.
    rng : numpy.random.Generator
        Source of randomness.
    n_iterations : int
        Generations, at most: half of them in each stage.
    n_candidates : int
        Candidates of a generation.
    max_seconds : float, optional
        Time after which no further generation begins. What is found then depends on the machine.
    progress : bool
        Show a bar.

    Notes
    -----
    First candidates are reset where the recorded cell fired, and only their potential in between counts: this has
    fewer local minima. Half of the first generation is spread around the measured values, half over the whole space
    (Latin hypercube); the best of the last one go on to the least squares. Then candidates run freely, and the loss
    counts. That stage begins with what the first one has found, and a third spread anew. The mutations are those that
    `scipy.optimize.differential_evolution` calls "randtobest1bin" (Storn & Price 1997). The best points are then
    refined by the method of Nelder and Mead.
    """
    until = None if max_seconds is None else time.monotonic() + max_seconds
    bounds, start = objective.space.bounds(), objective.space.start()
    low, width = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
    bar = _Bar(n_iterations, progress)
    n_near = n_candidates // 2
    with bar:
        near = start + rng.normal(0, _SPREAD, (n_near, len(start))) * width
        near[0] = start
        first = np.concatenate([near, _spread(rng, low, width, n_candidates - n_near)])
        forced = _evolve(objective.forced, bounds, first, n_iterations // 2, rng, bar, until)
        population = forced.population[np.argsort(forced.population_energies)]
        descents = [
            _descend(objective, bounds, begin, min(_STEPS, n_iterations))
            for begin in population[:_DESCENTS]
            if until is None or time.monotonic() < until
        ]
        lowest = min(descents, key=lambda one: one[1])[0] if descents else forced.x
        second = population[: n_candidates - n_candidates // 3].copy()
        # In the place of the worst that are kept.
        if descents:
            second[-len(descents) :] = [one[0] for one in descents]
        second = np.concatenate([second, _spread(rng, low, width, n_candidates - len(second))])
        second[-1] = start
        found = _evolve(objective, bounds, second, n_iterations - n_iterations // 2, rng, bar, until)
        late = until is not None and time.monotonic() > until
        point, loss = found.x, float(found.fun)
        # Near the best point, from two others, and from where the potential alone fits best.
        order = np.argsort(found.population_energies)
        for begin in (*found.population[order[:3]], lowest):
            late = late or (until is not None and time.monotonic() > until)
            if late:
                break
            spread = np.maximum(found.population.std(axis=0), 0.005 * width)
            refined = _refine(objective, bounds, begin, spread, min(80 * len(start), n_iterations * n_candidates // 8))
            if refined.fun < loss:
                point, loss = refined.x, float(refined.fun)
    return Found(
        point=point,
        loss=loss,
        start_loss=float(objective(start[None])[0]),
        history=bar.history,
        stopped_by="time" if late else "converged" if found.success else "iterations",
    )


def _spread(rng: np.random.Generator, low: np.ndarray, width: np.ndarray, n: int) -> np.ndarray:
    """Return points all over the space."""
    from scipy.stats import qmc

    return low + qmc.LatinHypercube(len(low), rng=rng).random(n) * width


def _evolve(
    loss: Any, bounds: np.ndarray, first: np.ndarray, n: int, rng: np.random.Generator, bar: _Bar, until: float | None
) -> Any:
    from scipy.optimize import differential_evolution

    def after(intermediate_result: Any) -> bool:
        bar.update(float(intermediate_result.fun))
        return until is not None and time.monotonic() > until

    width = bounds[:, 1] - bounds[:, 0]
    # Strictly inside: scipy checks that in its own units, where rounding may put a bound outside.
    first = np.clip(first, bounds[:, 0] + 1e-9 * width, bounds[:, 1] - 1e-9 * width)
    return differential_evolution(
        lambda x: loss(np.atleast_2d(x.T)) if x.ndim == 2 else loss(x[None])[0],
        bounds,
        strategy="randtobest1bin",
        mutation=(0.4, 0.9),
        recombination=0.8,
        maxiter=n,
        init=first,
        tol=1e-3,
        atol=1e-6,
        polish=False,
        updating="deferred",
        vectorized=True,
        callback=after,
        rng=rng,
    )


def _descend(objective: Objective, bounds: np.ndarray, begin: np.ndarray, n: int) -> tuple[np.ndarray, float]:
    """Go down to the least squares of the forced potential; all points of a Jacobian are simulated side by side."""
    from scipy.optimize import least_squares

    low, width = bounds[:, 0], bounds[:, 1] - bounds[:, 0]

    def slope(x: np.ndarray) -> np.ndarray:
        shift = np.where(x > 0.5, -_DIFFERENCE, _DIFFERENCE)
        near = objective.distances(low + np.concatenate([x[None], x + np.diag(shift)]) * width)
        return ((near[1:] - near[0]) / shift[:, None]).T

    found = least_squares(
        lambda x: objective.distances((low + x * width)[None])[0],
        np.clip((begin - low) / width, 1e-6, 1 - 1e-6),
        jac=slope,
        bounds=(0, 1),
        max_nfev=n,
    )
    point = low + found.x * width
    return point, float(objective.forced(point[None])[0])


def _refine(objective: Objective, bounds: np.ndarray, begin: np.ndarray, spread: np.ndarray, n: int) -> Any:
    """Minimise by the method of Nelder and Mead, the first simplex being as wide as the candidates lie apart."""
    from scipy.optimize import minimize

    simplex = np.clip(np.vstack([begin, begin + np.diag(spread)]), bounds[:, 0], bounds[:, 1])
    return minimize(
        lambda x: float(objective(x[None])[0]),
        begin,
        method="Nelder-Mead",
        bounds=bounds,
        options={"initial_simplex": simplex, "maxfev": n, "adaptive": len(begin) > 2},
    )


def default_threads() -> int:
    """Return how many threads to use: torch's number if torch is loaded, else that of the cores."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Bar:
    """A bar over generations, which keeps the best loss of each."""

    def __init__(self, total: int, show: bool) -> None:
        self.history: list[float] = []
        self._total, self._show, self._bar = total, show, None

    def update(self, loss: float) -> None:
        self.history.append(loss)
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update()

    def __enter__(self) -> None:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, unit="generation")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
