"""One function over a grid of parameters and seeds: over cores or machines, and to be resumed."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neuroloaders.checks import check_option, invalid
from reservoir.sweep_jobs import do_runs
from reservoir.sweep_points import GENERATOR, Point, make_points
from reservoir.sweep_store import Store
from reservoir.sweep_table import Run, Sweep

__all__ = ["CHANGED", "ON_ERROR", "SweepError", "sweep"]

ON_ERROR = {
    "raise": "raise a `SweepError` once all other runs are done; it holds their results",
    "keep": "return what there is; `Sweep.failures` lists the runs that gave nothing",
}
CHANGED = {
    "warn": "take it, and warn",
    "again": "run it again",
    "raise": "stop before anything is run",
    "reuse": "take it without a word",
}


class SweepError(RuntimeError):
    """Runs of a sweep failed; the others are done.

    Attributes
    ----------
    sweep : Sweep
        All results; ``sweep.failures`` are the runs that failed, with their parameters and tracebacks.
    """

    def __init__(self, found: Sweep) -> None:
        self.sweep = found
        failed = found.failures
        lines = [f"    {run.point}: {run.error}" for run in failed[:5]]
        lines += [f"    and {len(failed) - 5} more"] if len(failed) > 5 else []
        where = f"\nThe first of them:\n{failed[0].traceback}" if failed[0].traceback else ""
        super().__init__(f"{len(failed)} of {len(found)} runs failed:\n" + "\n".join(lines) + where)


def sweep(
    function: Callable[..., Any],
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    *,
    seeds: int | Sequence[int] | None = 1,
    seed: int = 0,
    seeding: str = "paired",
    n_jobs: int | None = None,
    path: str | os.PathLike[str] | None = None,
    changed: str = "warn",
    on_error: str = "raise",
    progress: bool = True,
) -> Sweep:
    """Call a function at each point of a grid, with several seeds.

    Parameters
    ----------
    function : callable
        Called as ``function(**parameters, generator=seed)`` with an int as seed, once a run. Returns a number, a text,
        an array, or a mapping of names to such. All that it draws must come from the seed.
    grid : dict of lists, or list of dicts
        Values of each parameter, of which all combinations are run, the last one changing fastest; or the points
        themselves. Values are numbers, texts, None, and lists or dataclasses of such, such as rules.
    seeds : int, sequence of int, or None
        How many seeds to run at each point, or which; None: the function takes no `generator`.
    seed : int
        What the seeds are drawn from, if `seeds` is how many.
    seeding : str
        Whose seeds they are, a key of `SEEDING`.
    n_jobs : int, optional
        Runs at a time, each in a process of its own, as in scikit-learn; None takes what ``joblib.parallel_config``
        says, or 1; -1: as many as there are cores.
    path : path-like, optional
        A folder where each result is kept as soon as it is there. What lies there already is not run again: the same
        call goes on after an interruption, and a larger grid runs what is new. By default nothing is kept.
    changed : str
        What to do with a result in `path` that another version of the function has made, a key of `CHANGED`; see Notes.
    on_error : str
        What to do if runs fail, a key of `ON_ERROR`. The others go on in any case, also if the process of a run is
        killed. Failed runs are tried again in the next sweep.
    progress : bool
        Show a bar.

    Returns
    -------
    Sweep
        The runs in the order of the grid, whatever the order in which they were done.

    Raises
    ------
    SweepError
        If runs failed and `on_error` is "raise".
    TypeError, ValueError
        If grid, seeds or function do not fit together, before anything is run; if the function returns what is no
        result, at once; if results are of another version and `changed` is "raise".

    Warns
    -----
    UserWarning
        If results in `path` were made by another version of the function and `changed` is "warn".

    Notes
    -----
    A run depends on its parameters and its seed alone. ``function(**run.point.parameters,
    generator=run.point.generator)`` repeats it, to the last bit where the function is deterministic.

    The version of a function is its source without comments, with the functions, classes and constants of the same file
    that it uses, and the version number of this package. What it reads from disk or imports from elsewhere is not part
    of it: use another folder when that changes.

    Whatever joblib can do runs a sweep: after ``client = dask.distributed.Client(address)``, ``with
    joblib.parallel_config("dask"): sweep(...)`` sends it to the machines of a Dask cluster. Results come back to this
    process, which alone writes to `path`. Within a run, networks that share a size run side by side as lanes, which
    costs less than a run each; with `n_jobs` above 1 give a run one thread, ``n_threads=1``.

    Examples
    --------
    >>> from reservoir import PredictionLearner, PredictionTask, Reservoir, ThreeFactorRule, learning_curves
    >>> task = PredictionTask((80.0, 140.0), 0.5, n_trials=2, trial_ms=200.0)
    >>> def error(gain, eta, *, generator):
    ...     networks = [Reservoir(30, gain=gain, generator=generator + k) for k in range(2)]
    ...     learner = PredictionLearner(networks, 2, rule=ThreeFactorRule(eta=eta), seed=generator, n_threads=1)
    ...     return {"rmse": learning_curves(learner, [task], tests=(2,)).rmse[0, 0]}
    >>> found = sweep(error, {"gain": [0.0, 1.0], "eta": [1e-3, 3e-3]}, seeds=(7,), progress=False)
    >>> found.to_array("rmse").shape
    (2, 2, 1, 2)
    >>> alone = error(gain=1.0, eta=1e-3, generator=7)["rmse"]
    >>> bool((found.sel(gain=1.0, eta=1e-3).to_array("rmse")[0] == alone).all())
    True
    """
    if not callable(function):
        raise invalid("function", "be callable", function, kind=TypeError)
    check_option("on_error", on_error, ON_ERROR)
    check_option("changed", changed, CHANGED)
    axes, n_seeds, points = make_points(grid, seeds, seed=seed, seeding=seeding)
    _check_signature(function, points[0])
    store = None if path is None else Store(path, function)
    runs = _found(store, points, changed)
    todo = [k for k in range(len(points)) if k not in runs]
    # Before the first run, so that an interruption leaves no bar behind.
    with _Bar(len(points), len(runs), progress) as bar:
        for k, run in do_runs(function, points, todo, n_jobs):
            if store is not None and run.result is not None:
                store.write(run.point, run.result, run.seconds)
            runs[k] = run
            bar.update(run)
    found = Sweep(axes, n_seeds, tuple(runs[k] for k in range(len(points))))
    if found.failures and on_error == "raise":
        raise SweepError(found)
    return found


def _check_signature(function: Callable[..., Any], point: Point) -> None:
    """Compare the parameters with those that the function takes."""
    given = dict(point.parameters) | ({} if point.generator is None else {GENERATOR: point.generator})
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**given)
    except TypeError as error:
        advice = "With seeds=None it gets no `generator`." if point.generator is not None else ""
        required = f"take the parameters {', '.join(given) or 'none'}"
        raise invalid("function", required, f"{signature} ({error})", advice, kind=TypeError) from error


def _found(store: Store | None, points: Sequence[Point], changed: str) -> dict[int, Run]:
    """Return the runs that are on disk, by their number."""
    runs: dict[int, Run] = {}
    if store is None:
        return runs
    others = []
    for k, point in enumerate(points):
        stored = store.read(point)
        if stored is None:
            continue
        result, seconds, same = stored
        if not same:
            others.append(point)
        if same or changed != "again":
            runs[k] = Run(point=point, result=result, seconds=seconds, stored=True)
    if others and changed in ("warn", "raise"):
        text = f"{len(others)} of {len(points)} results in {os.fspath(store.path)!r} were made by another version of "
        text += f"{store.name} (the first: {others[0]}). changed='again' runs them again, changed='reuse' takes them."
        if changed == "raise":
            raise ValueError(text)
        warnings.warn(text, stacklevel=3)
    return runs


class _Bar:
    """A progress bar over runs, which counts those that failed."""

    def __init__(self, total: int, done: int, show: bool) -> None:
        self._total, self._done, self._show, self._bar, self._failed = total, done, show, None, 0

    def update(self, run: Run) -> None:
        self._failed += run.result is None
        if self._bar is not None:
            if run.result is None:
                self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
            self._bar.update(1)

    def __enter__(self) -> _Bar:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, unit="run")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
