"""Sweeps: the numbers of lone runs, in the order of the grid, and how they are read."""

import numpy as np
import pytest
from fakes.sweeps import GRID, assert_same, failing, learning_error, product, quiet

from reservoir import ThreeFactorRule
from reservoir.sweep import sweep
from reservoir.sweep_points import as_seeds, make_points
from reservoir.sweep_store import Store, as_result

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
