"""What goes wrong in a sweep costs its own run alone, on one machine or on a cluster."""

import math
import os
import threading
from dataclasses import dataclass

import joblib
import numpy as np
import pytest
from fakes.cluster import cluster
from fakes.sweeps import GRID, assert_same, failing, learning_error, product, quiet

from reservoir.sweep import SweepError

# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_failure_is_reported_at_the_end_and_the_others_are_kept(tmp_path):
    with pytest.raises(SweepError, match=r"1 of 3 runs failed:\n    x=2, generator=\d+: RuntimeError: no such") as info:
        quiet(failing, {"x": [1, 2, 3]}, path=tmp_path)
    assert "in failing" in str(info.value)
    assert np.array_equal(info.value.sweep.to_array().ravel(), [1, np.nan, 3], equal_nan=True)
    found = quiet(failing, {"x": [1, 2, 3]}, path=tmp_path, on_error="keep")
    assert [run.stored for run in found] == [True, False, True]
    (failure,) = found.failures
    assert failure.point.parameters == {"x": 2}
    assert found.table().splitlines() == ["x | value", "1 | 1", "2 | failed", "3 | 3"]


def test_a_killed_worker_costs_only_its_own_run(tmp_path):
    parent, flag = os.getpid(), str(tmp_path / "flag")

    def work(x, *, generator):
        import os  # the module goes to the worker by name
        import signal

        once = x == 3 and not os.path.exists(flag)
        if once:
            open(flag, "w").close()
        if (once or x == 1) and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * x

    found = quiet(work, {"x": range(6)}, n_jobs=2, on_error="keep", path=tmp_path / "kept")
    assert [run.point.parameters["x"] for run in found.failures] == [1]
    assert "its process was killed" in found.failures[0].error
    assert np.array_equal(found.to_array().ravel(), [0, np.nan, 20, 30, 40, 50], equal_nan=True)


def test_order_is_that_of_the_grid_and_not_that_of_completion():
    last, order = threading.Event(), []

    def work(x, *, generator):
        if x == 0:
            assert last.wait(30)
        order.append(x)
        if x == 3:
            last.set()
        return x

    with joblib.parallel_config("threading", n_jobs=2):
        found = quiet(work, {"x": range(4)})
    assert order == [1, 2, 3, 0]
    assert found.to_array().ravel().tolist() == [0, 1, 2, 3]


def test_a_backend_that_hands_over_nothing_before_the_end_is_refused():
    with joblib.parallel_config("multiprocessing", n_jobs=2), pytest.raises(ValueError, match=r"hands over results"):
        quiet(product(), {"x": [1, 2]})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"function": 3}, r"`function` must be callable, got int 3"),
        ({"function": lambda y: y}, r"`function` must take the parameters x, generator, got \(y\)"),
        ({"function": lambda x: x}, r"With seeds=None it gets no `generator`"),
        ({"function": lambda x, generator: object()}, r"`function` must return a number.* got object as 'value'"),
        ({"function": lambda x, generator: {"a": [[1], [1, 2]]}}, r"a list of unequal length as 'a'"),
        ({"function": lambda x, generator: {1: 2}}, r"got the name 1"),
        ({"grid": 3}, r"`grid` must be a dict of lists, or a list of dicts, got int 3"),
        ({"grid": []}, r"`grid` must hold at least one point"),
        ({"grid": {"x": []}}, r"`x` must hold at least one value"),
        ({"grid": {"x": "abc"}}, r"`x` must be a list of values, got 'abc'. Write \['abc'\] for a single one"),
        ({"grid": {"x": 3.0}}, r"Write \[3.0\] for a single one"),
        ({"grid": {"x": [math.nan]}}, r"`x` must be no NaN"),
        ({"grid": {"x": [object()]}}, r"`x` must be a number, text, None"),
        ({"grid": {"x": [1, 1]}}, r"`grid` must name each point once, got twice x=1"),
        ({"grid": {"generator": [1]}}, r"`grid` must have names of parameters as keys"),
        ({"grid": [{"x": 1}, {"y": 1}]}, r"name the same parameters at each point, got \['x'\] and \['y'\]"),
        ({"grid": [3]}, r"a list that holds 3"),
        ({"seeds": 0}, r"`seeds` must be a whole number >= 1, got 0"),
        ({"seeds": (1, 1)}, r"`seeds` must differ from each other"),
        ({"seeds": (-1,)}, r"`seeds` must be a whole number >= 0"),
        ({"seed": -1}, r"`seed` must be a whole number >= 0"),
        ({"seeding": "same"}, r"`seeding` must be one of 'paired', 'independent'"),
        ({"on_error": "stop"}, r"`on_error` must be one of 'raise', 'keep'"),
        ({"changed": "no"}, r"`changed` must be one of 'warn', 'again', 'raise', 'reuse'"),
    ],
)
def test_mistakes_are_named_before_anything_is_run(options, match):
    settings = {"function": product(), "grid": {"x": [1, 2]}} | options
    with pytest.raises((TypeError, ValueError), match=match):
        quiet(settings.pop("function"), settings.pop("grid"), **settings)


def test_an_object_that_no_text_can_stand_for_keeps_no_results(tmp_path):
    class Model:
        def __call__(self, x, *, generator):
            return x

    @dataclass(frozen=True)
    class Settings:
        factor: float

        def run(self, x, *, generator):
            return self.factor * x

    assert quiet(Model(), {"x": [1]}).to_array().item() == 1
    with pytest.raises(TypeError, match=r"`function` must hold only numbers.* where results are kept in `path`"):
        quiet(Model(), {"x": [1]}, path=tmp_path)
    for factor in (2.0, 3.0):
        assert quiet(Settings(factor).run, {"x": [1]}, path=tmp_path).to_array().item() == factor


# --- machines -----------------------------------------------------------------------------------------------------


def test_dask_cluster_of_two_processes_gives_the_same_numbers(tmp_path):
    error = learning_error()
    want = quiet(error, GRID)

    def fail(x, *, generator):
        if x == 2:
            raise RuntimeError("no such reservoir")
        return x

    with cluster(2):
        assert_same(quiet(error, GRID, path=tmp_path), want)
        with pytest.raises(SweepError, match=r"x=2, generator=\d+: RuntimeError: no such reservoir"):
            quiet(fail, {"x": [1, 2]})
    assert len(list(tmp_path.iterdir())) == 4


def test_a_killed_worker_of_a_cluster_costs_only_its_own_run(tmp_path):
    """Two runs share a worker, each waiting for the other; then one kills it, and Dask, told so, gives up both."""
    import dask

    parent, meeting, met = os.getpid(), str(tmp_path / "meeting"), str(tmp_path / "met")
    os.mkfifo(meeting)

    def work(x, *, generator):
        import os
        import signal

        assert os.getpid() != parent
        first = not os.path.exists(f"{met}{x}")
        open(f"{met}{x}", "w").close()
        if x == 1:
            # Opening a pipe waits for the other end; reading, for its end to be closed, by death in this case.
            if first:
                os.open(meeting, os.O_WRONLY)
            os.kill(os.getpid(), signal.SIGKILL)
        elif first:
            with open(meeting) as pipe:
                pipe.read()
        return 10 * x

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), cluster(1, threads=2):
        found = quiet(work, {"x": [1, 2]}, on_error="keep")
    assert [run.point.parameters["x"] for run in found.failures] == [1]
    assert "its process was killed" in found.failures[0].error
    assert np.array_equal(found.to_array().ravel(), [np.nan, 20], equal_nan=True)
