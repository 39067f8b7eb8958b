"""Sweeps: the numbers of lone runs, in the order of the grid, whatever runs them and however often they are stopped."""

import functools
import math
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass

import joblib
import numpy as np
import pytest

from reservoir import PredictionLearner, PredictionTask, Reservoir, ThreeFactorRule, learning_curves
from reservoir.sweep import SweepError, sweep
from reservoir.sweep_points import as_seeds, make_points
from reservoir.sweep_store import Store, as_result, fingerprint

GRID = {"gain": [0.0, 1.0], "eta": [1e-3, 3e-3]}
quiet = functools.partial(sweep, progress=False)


def learning_error():
    """Return a function that learns; made here, so that it goes to other processes by value."""

    # Pauses of one length: cues come at the same times in all networks.
    def error(gain, eta, *, generator, n_lanes=1):
        task = PredictionTask((80.0, 140.0), 0.5, n_trials=3, trial_ms=200.0, pause_ms=(50.0, 50.0))
        networks = [Reservoir(50, gain=gain, generator=generator + k) for k in range(n_lanes)]
        rule = ThreeFactorRule(eta=eta)
        learner = PredictionLearner(networks, 2, rule=rule, seed=generator, n_threads=1)
        curves = learning_curves(learner, [task], tests=(0, 3), n_repeats=2)
        return {"rmse": curves.rmse, "weights": curves.when_weights, "last": float(curves.rmse[0, 1, 0])}

    return error


def product(calls=None):
    def multiply(x, y=1, *, generator):
        if calls is not None:
            calls.append((x, y, generator))
        return x * y

    return multiply


def assert_same(one, other):
    assert one.axes == other.axes
    assert [run.point.plain for run in one] == [run.point.plain for run in other]
    for a, b in zip(one, other, strict=True):
        assert list(a.result) == list(b.result)
        for name, value in a.result.items():
            assert type(value) is type(b.result[name])
            assert np.array_equal(value, b.result[name], equal_nan=isinstance(value, float)), name
            assert getattr(value, "dtype", None) == getattr(b.result[name], "dtype", None)


# --- learning experiments -----------------------------------------------------------------------------------------


def test_a_point_equals_the_run_alone_and_two_processes_equal_one(tmp_path):
    error = learning_error()
    found = quiet(error, GRID, seeds=2)
    assert found.to_array("weights").shape == (2, 2, 2, 1, 2, 1, 2, 50)
    for run in found:
        alone = error(**run.point.parameters, generator=run.point.generator)
        assert all(np.array_equal(run.result[name], alone[name]) for name in alone)
    assert len({run.result["last"] for run in found}) == 8
    assert_same(quiet(error, GRID, seeds=2, n_jobs=2, path=tmp_path), found)
    again = quiet(error, GRID, seeds=2, path=tmp_path)
    assert all(run.stored for run in again)
    assert_same(again, found)


def test_lanes_equal_the_runs_of_a_sweep_over_their_seeds():
    error = learning_error()
    together = error(gain=1.0, eta=1e-3, generator=5, n_lanes=3)
    apart = quiet(error, {"gain": [1.0], "eta": [1e-3]}, seeds=(5, 6, 7))
    for name, axis in (("rmse", 2), ("weights", 2)):
        # Seeds are the last axis of the sweep, and lanes an axis of each result.
        rows = np.concatenate([run.result[name] for run in apart], axis=axis)
        assert np.array_equal(rows, together[name]), name


# --- seeds and points ---------------------------------------------------------------------------------------------


def test_seeds_are_those_that_seed_sequence_spawns():
    want = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(3).spawn(4)]
    assert as_seeds(4, seed=3) == want
    assert as_seeds(2, seed=3) == want[:2]
    assert as_seeds(None) == [None]
    assert as_seeds((4, 2)) == [4, 2]


def test_paired_seeds_are_the_same_at_all_points_and_independent_ones_belong_to_the_parameters():
    def seeds(grid, seeding):
        found = quiet(product(), grid, seeds=2, seeding=seeding)
        return {tuple(run.point.parameters.items()): [] for run in found} | {
            tuple(part[0].point.parameters.items()): [run.point.generator for run in part]
            for part in (found.runs[k : k + 2] for k in range(0, len(found), 2))
        }

    paired = seeds({"x": [1, 2, 3]}, "paired")
    assert len({tuple(own) for own in paired.values()}) == 1
    wide = seeds({"x": [1, 2, 3]}, "independent")
    assert len({number for own in wide.values() for number in own}) == 6
    narrow = seeds([{"x": 3}, {"x": 1}], "independent")
    assert narrow == {key: wide[key] for key in narrow}


def test_grid_is_all_combinations_the_last_parameter_changing_fastest():
    axes, n_seeds, points = make_points({"x": np.arange(2), "y": ("a", None)}, 1, seed=0, seeding="paired")
    assert axes == {"x": [0, 1], "y": ["a", None]}
    assert n_seeds == 1
    wanted = [{"x": 0, "y": "a"}, {"x": 0, "y": None}, {"x": 1, "y": "a"}, {"x": 1, "y": None}]
    assert [point.parameters for point in points] == wanted
    listed = make_points(wanted, 1, seed=0, seeding="paired")
    assert listed[0] == {"point": [0, 1, 2, 3]}
    assert [point.plain for point in listed[2]] == [point.plain for point in points]


def test_a_grid_without_parameters_runs_seeds_and_one_without_seeds_draws_nothing():
    assert quiet(lambda generator: generator, {}, seeds=(3, 1)).to_array().tolist() == [3, 1]
    found = quiet(lambda x: 2 * x, {"x": [1, 2]}, seeds=None)
    assert found.to_array().tolist() == [[2], [4]]
    assert found.runs[0].point.generator is None


# --- what is kept, and what is run again --------------------------------------------------------------------------


def test_only_new_points_are_run(tmp_path):
    calls = deque()
    quiet(product(calls), {"x": [1, 2]}, path=tmp_path)
    found = quiet(product(calls), {"x": [3, 2, 1]}, seeds=2, path=tmp_path)
    first, second = as_seeds(2)
    assert list(calls) == [(1, 1, first), (2, 1, first), (3, 1, first), (3, 1, second), (2, 1, second), (1, 1, second)]
    assert [run.stored for run in found] == [False, False, True, False, True, False]
    assert found.to_array().tolist() == [[3, 3], [2, 2], [1, 1]]
    assert len(list(tmp_path.iterdir())) == 6
    # What a partial function holds is part of what is run.
    quiet(functools.partial(product(calls), y=2), {"x": [1]}, path=tmp_path)
    assert calls[-1] == (1, 2, first)


def test_results_from_disk_equal_those_from_memory(tmp_path):
    def everything(generator):
        rng = np.random.default_rng(generator)
        return {
            "float": 0.1 + 0.2, "nan": math.nan, "infinity": -math.inf, "int": 2**70, "bool": True, "text": "µV",
            "none": None, "single": np.float32(0.1), "array": rng.standard_normal((2, 3)).astype(np.float32).T,
            "texts": ["a", "bc"], "empty": np.zeros((0, 2)), "complex": np.array([1j]), "zero": np.array(3),
        }  # fmt: skip

    want = quiet(everything, {})
    quiet(everything, {}, path=tmp_path)
    again = quiet(everything, {}, path=tmp_path)
    assert again.runs[0].stored
    assert_same(again, want)


def test_an_interrupted_sweep_goes_on(tmp_path):
    calls = deque()

    def work(x, *, generator):
        calls.append(x)
        if x == 3 and len(calls) == 3:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        quiet(work, {"x": [1, 2, 3, 4]}, path=tmp_path)
    assert list(calls) == [1, 2, 3]
    assert quiet(work, {"x": [1, 2, 3, 4]}, path=tmp_path).to_array().ravel().tolist() == [1, 2, 3, 4]
    assert list(calls) == [1, 2, 3, 3, 4]


def test_a_killed_sweep_goes_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "from reservoir.sweep import sweep\n"
        "def work(x, *, generator):\n"
        "    if x == 2 and not os.path.exists('killed'):\n"
        "        open('killed', 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return x * generator\n"
        "if __name__ == '__main__':\n"
        "    found = sweep(work, {'x': [0, 1, 2, 3]}, seeds=(7,), path='kept', progress=False)\n"
        "    print([run.stored for run in found], found.to_array().ravel().tolist())\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(script)]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    assert subprocess.run(command, **options).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "kept").glob("[0-9a-f]*.npz"))) == 2
    done = subprocess.run(command, **options)
    assert done.stdout.strip() == "[True, True, False, False] [0, 7, 14, 21]", done.stderr


def test_a_damaged_file_is_named(tmp_path):
    quiet(product(), {"x": [1]}, path=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{file.name}' cannot be read: it is no result of a sweep .*it is run again"):
        quiet(product(), {"x": [1]}, path=tmp_path)


# --- other versions of a function ---------------------------------------------------------------------------------


def variants(constant=1):
    """Return functions of one name: as it is, commented, and with a captured constant."""

    def work(x, *, generator):
        return x + constant

    first = work

    def work(x, *, generator):  # a comment
        """Say what it does."""
        return x + constant  # more

    return first, work


def test_a_function_is_the_same_without_comments_and_another_with_other_constants():
    plainly, commented = variants()
    assert fingerprint(plainly) == fingerprint(commented)
    assert fingerprint(plainly) != fingerprint(variants(2)[0])
    assert fingerprint(functools.partial(plainly, x=1)) == fingerprint(plainly)


def test_functions_and_constants_of_the_same_file_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = "FACTOR = 2\nclass Box:\n    size = 1\ndef inner(x):\n    return x * FACTOR\n"
    text += "def outer(x):\n    return [inner(y) + Box.size for y in [x]]\n"
    texts = [text, text + "\nOTHER = 3\n", text.replace("= 2", "= 3"), text.replace("size = 1", "size = 2")]
    texts.append(text.replace("x * F", "x / F"))
    prints = []
    for k, own in enumerate(texts):
        (tmp_path / f"sweep_module_{k}.py").write_text(own, encoding="utf-8")
        module = __import__(f"sweep_module_{k}")
        prints.append(fingerprint(module.outer))
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_results_of_another_version_are_not_taken_without_a_word(tmp_path):
    old, new = variants()[0], variants(10)[0]
    quiet(old, {"x": [1, 2]}, path=tmp_path)
    match = r"2 of 3 results in .* were made by another version of .*work \(the first: x=1, generator=\d+\)"
    with pytest.raises(ValueError, match=match):
        quiet(new, {"x": [1, 2, 3]}, path=tmp_path, changed="raise")
    with pytest.warns(UserWarning, match=match):
        found = quiet(new, {"x": [1, 2, 3]}, path=tmp_path)
    assert found.to_array().ravel().tolist() == [2, 3, 13]
    assert quiet(new, {"x": [1, 2]}, path=tmp_path, changed="reuse").to_array().ravel().tolist() == [2, 3]
    assert quiet(new, {"x": [1, 2]}, path=tmp_path, changed="again").to_array().ravel().tolist() == [11, 12]
    # They are of the new version now.
    assert quiet(new, {"x": [1, 2]}, path=tmp_path, changed="raise").to_array().ravel().tolist() == [11, 12]


# --- what goes wrong ----------------------------------------------------------------------------------------------


def failing(x, *, generator):
    if x == 2:
        raise RuntimeError("no such reservoir")
    return x


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


# --- reading it ---------------------------------------------------------------------------------------------------


def test_runs_are_found_by_their_parameters():
    rules = [ThreeFactorRule(eta=eta) for eta in (1e-3, 2e-3)]
    found = quiet(
        lambda rule, x, generator: {"both": x * rule.eta, "curve": np.array([x, generator])},
        {"rule": rules, "x": [1, 2, 3]},
        seeds=(4, 5),
    )
    assert found.to_array("curve").shape == (2, 3, 2, 2)
    part = found.sel(rule=ThreeFactorRule(eta=2e-3))
    assert list(part.axes) == ["x"]
    assert np.allclose(part.to_array("both"), 2e-3 * np.array([[1, 1], [2, 2], [3, 3]]), rtol=1e-15)
    assert found.sel(rule=rules[0], x=3).to_array("curve").tolist() == [[3, 4], [3, 5]]
    with pytest.raises(ValueError, match=r"`x` must be one of 1, 2, 3, got 4"):
        found.sel(x=4)
    with pytest.raises(ValueError, match=r"`parameters` must be one of 'rule', 'x', got 'y'"):
        found.sel(y=4)
    with pytest.raises(ValueError, match=r"`name` must be one of 'both', 'curve', got 'value'"):
        found.to_array()
    with pytest.raises(ValueError, match=r"a single number in each run"):
        found.table("curve")
    listed = quiet(product(), [{"x": 1, "y": 2}, {"x": 3, "y": 2}, {"x": 1, "y": 5}], seeds=2)
    assert listed.sel(x=1).axes == {"point": [0, 2]}
    assert listed.sel(x=1).to_array().tolist() == [[2, 2], [5, 5]]
    assert listed.table().splitlines()[:2] == ["x | y | value", "1 | 2 | 2+-0"]
    assert repr(listed) == "Sweep(point 3; 2 seeds, 6 runs, 0 from disk)"


def test_shapes_that_differ_are_named():
    found = quiet(lambda x, generator: np.zeros(x), {"x": [1, 2]})
    with pytest.raises(ValueError, match=r"`value` must have one shape in all runs, got \(1,\) and \(2,\)"):
        found.to_array()


def test_data_frame_has_a_row_a_run():
    pytest.importorskip("pandas")
    frame = quiet(failing, {"x": [1, 2]}, seeds=(8, 9), on_error="keep").to_frame()
    assert list(frame.columns) == ["x", "generator", "value", "seconds", "error"]
    assert frame.x.tolist() == [1, 1, 2, 2]
    assert frame.generator.tolist() == [8, 9, 8, 9]
    assert frame.value.isna().tolist() == [False, False, True, True]
    assert frame.error[2] == "RuntimeError: no such reservoir"
    clash = quiet(lambda x, generator: {"x": 1}, {"x": [1]})
    with pytest.raises(ValueError, match=r"name no result like one of 'x', 'generator', 'seconds', 'error', got 'x'"):
        clash.to_frame()


def test_bar_counts_what_is_there_and_what_failed(tmp_path, capsys):
    sweep(failing, {"x": [1, 3]}, path=tmp_path, progress=False)
    assert capsys.readouterr().err == ""
    sweep(failing, {"x": [1, 2, 3]}, path=tmp_path, on_error="keep")
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "1 failed" in shown


@pytest.mark.usefixtures("global_rng_untouched")
def test_global_generators_stay_as_they_are():
    before = np.random.get_state()[1].copy()
    quiet(learning_error(), GRID)
    assert np.array_equal(np.random.get_state()[1], before)


def test_results_are_copies():
    buffer = np.zeros(2)

    def work(x, *, generator):
        buffer[:] = x
        return buffer

    assert quiet(work, {"x": [1, 2]}).to_array()[:, 0].tolist() == [[1, 1], [2, 2]]
    assert as_result(np.float32(1))["value"] == 1.0


def test_files_of_several_functions_lie_side_by_side(tmp_path):
    one, other = Store(tmp_path, failing), Store(tmp_path, product())
    (point,) = make_points({"x": [1]}, 1, seed=0, seeding="paired")[2]
    assert one.file(point) != other.file(point)


# --- machines -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs=50) as cluster, distributed.Client(cluster):
        yield


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cluster")
def test_dask_cluster_of_two_processes_gives_the_same_numbers(tmp_path):
    error = learning_error()
    want = quiet(error, GRID)

    def fail(x, *, generator):
        if x == 2:
            raise RuntimeError("no such reservoir")
        return x

    with joblib.parallel_config("dask"):
        assert_same(quiet(error, GRID, path=tmp_path), want)
        with pytest.raises(SweepError, match=r"x=2, generator=\d+: RuntimeError: no such reservoir"):
            quiet(fail, {"x": [1, 2]})
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_of_a_cluster_costs_only_its_own_run():
    parent = os.getpid()

    def work(x, *, generator):
        import os
        import signal

        if x == 1 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * x

    with joblib.parallel_config("dask"):
        found = quiet(work, {"x": range(5)}, on_error="keep")
    assert "its process was killed" in found.failures[0].error
    assert np.array_equal(found.to_array().ravel(), [0, np.nan, 20, 30, 40], equal_nan=True)
