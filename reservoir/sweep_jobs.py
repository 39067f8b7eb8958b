"""Runs of a sweep on their way through joblib or Dask: one that fails, or takes its process with it, stops no other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from neuroloaders.checks import invalid
from reservoir.sweep_points import GENERATOR, Point
from reservoir.sweep_store import as_result
from reservoir.sweep_table import Run

__all__ = ["do_runs"]


def do_runs(
    function: Callable[..., Any], points: Sequence[Point], todo: Iterable[int], n_jobs: int | None
) -> Iterator[tuple[int, Run]]:
    """Yield runs as they are done.

    Parameters
    ----------
    function : callable
        What is called.
    points : sequence of Point
        All runs there are.
    todo : iterable of int
        Which of them to do.
    n_jobs : int or None
        As for `reservoir.sweep`.

    Yields
    ------
    number : int
        Which run.
    run : Run
        What came of it: a result, or an error.

    Raises
    ------
    TypeError
        If the function returned what is no result.
    """
    from joblib.parallel import get_active_backend

    backend, _ = get_active_backend()
    if type(backend).__name__ == "DaskDistributedBackend":
        yield from _on_dask(backend.client, function, points, todo)
        return
    left = dict.fromkeys(todo)
    while left:
        begun: list[int] = []
        try:
            for k, run in _in_parallel(function, points, list(left), begun, n_jobs):
                del left[k]
                yield k, run
        except BrokenExecutor:
            # A killed process takes with it whatever else was under way: only one of those can be the culprit.
            for k in [k for k in begun if k in left]:
                del left[k]
                yield k, _by_itself(function, points, k, n_jobs)


def _in_parallel(
    function: Callable[..., Any], points: Sequence[Point], numbers: list[int], begun: list[int], n_jobs: int | None
) -> Iterator[tuple[int, Run]]:
    """Yield runs as they are done; `begun` lists those that were handed out."""
    from joblib import Parallel, delayed

    def jobs() -> Iterator[Any]:
        for k in numbers:
            begun.append(k)
            yield delayed(_run)(function, points[k], k)

    try:
        parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
    except ValueError as error:
        if "return_as" not in str(error):
            raise
        required = "be a backend that hands over results as they come, such as 'loky', 'threading' or 'dask'"
        raise invalid("joblib.parallel_config", required, f"another ({error})") from error
    results = parallel(jobs())
    try:
        for outcome in results:
            yield _usable(outcome)
    finally:
        results.close()


def _by_itself(function: Callable[..., Any], points: Sequence[Point], k: int, n_jobs: int | None) -> Run:
    """Run what may have killed its process, with nothing beside it."""
    try:
        return dict(_in_parallel(function, points, [k], [], n_jobs))[k]
    except BrokenExecutor as error:
        return _killed(points[k], error)


def _on_dask(
    client: Any, function: Callable[..., Any], points: Sequence[Point], numbers: Iterable[int]
) -> Iterator[tuple[int, Run]]:
    """Yield runs as they are done on a cluster.

    Without joblib in between: its Dask backend (1.6) waits forever for a run whose worker was killed.
    """
    from distributed import KilledWorker, as_completed

    suspects: list[int] = []
    futures = {client.submit(_run, function, points[k], k, pure=False): k for k in numbers}
    try:
        for future in as_completed(list(futures)):
            k = futures.pop(future)
            try:
                run = _usable(future.result())[1]
            except KilledWorker:
                suspects.append(k)
                continue
            # The cluster need not keep what is here.
            future.release()
            yield k, run
    finally:
        client.cancel(list(futures))
    # Dask blames all that had been handed to a worker that died: only what dies with nothing beside it is to blame.
    for k in suspects:
        future = client.submit(_run, function, points[k], k, pure=False)
        try:
            yield k, _usable(future.result())[1]
        except KilledWorker as error:
            yield k, _killed(points[k], error)
        finally:
            future.release()


def _killed(point: Point, error: Exception) -> Run:
    return Run(point=point, error=f"its process was killed or ran out of memory ({' '.join(str(error).split())})")


def _usable(outcome: tuple[int, Run, Exception | None]) -> tuple[int, Run]:
    """Return number and run, or raise what ends the sweep."""
    k, run, unusable = outcome
    if unusable is not None:
        raise unusable
    return k, run


def _run(function: Callable[..., Any], point: Point, k: int) -> tuple[int, Run, Exception | None]:
    """Call the function, in whichever process this is; the last of what is returned ends the sweep."""
    given = {} if point.generator is None else {GENERATOR: point.generator}
    started = time.perf_counter()
    try:
        value = function(**point.parameters, **given)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        return k, Run(point=point, error=text, traceback=traceback.format_exc(), seconds=seconds), None
    seconds = time.perf_counter() - started
    try:
        return k, Run(point=point, result=as_result(value), seconds=seconds), None
    except TypeError as error:
        return k, Run(point=point), error
