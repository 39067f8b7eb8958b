"""An experiment's folder: found again, protected, and removed only where it is one."""

import json

import pytest
import torch
from fakes.one_step import tiny_run

from snn import experiment

SETTINGS = {"seed": 0, "schedule": [5, 1]}
ROWS = [{"network": "ANN", "accuracy": 0.5}]


def test_finished_experiment_is_found_by_the_same_settings(tmp_path):
    out = tmp_path / "run"
    assert experiment.begin(out, SETTINGS) is None
    assert experiment.begin(out, SETTINGS) is None  # begun, and not complete
    experiment.finish(out, {"rows": ROWS}, ROWS)
    assert experiment.begin(out, SETTINGS) == {"rows": ROWS}
    assert (out / experiment.TABLE).read_text() == "network,accuracy\nANN,0.5\n"


def test_other_settings_are_refused_with_both_values(tmp_path):
    experiment.begin(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match=r"`seed` must be 0, as in .*, got 1\."):
        experiment.begin(tmp_path, {**SETTINGS, "seed": 1})


def test_fresh_removes_what_an_experiment_wrote_and_nothing_else(tmp_path):
    experiment.begin(tmp_path, SETTINGS)
    for folder in (experiment.TRAINING, experiment.FIGURES):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    (tmp_path / experiment.REPORT).touch()
    (tmp_path / "notes.txt").touch()
    experiment.finish(tmp_path, {"rows": ROWS}, ROWS)
    assert experiment.begin(tmp_path, {**SETTINGS, "seed": 1}, fresh=True) is None
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "versions.txt", "notes.txt"}
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_fresh_refuses_a_folder_that_is_no_experiment(tmp_path):
    precious = tmp_path / experiment.TRAINING / "thesis.tex"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(ValueError, match="`out` must be empty or the folder of an experiment"):
        experiment.begin(tmp_path, SETTINGS, fresh=True)
    assert precious.exists()


def test_fresh_needs_no_earlier_experiment(tmp_path):
    assert experiment.begin(tmp_path / "new", SETTINGS, fresh=True) is None
    assert experiment.begin(tmp_path, SETTINGS | {"seed": 2}) is None


def test_damaged_results_are_named(tmp_path):
    experiment.begin(tmp_path, SETTINGS)
    (tmp_path / experiment.RESULTS).write_text('{"rows": [')
    with pytest.raises(ValueError, match=r"results\.json' cannot be read: it is no JSON\. Delete it"):
        experiment.begin(tmp_path, SETTINGS)


def test_results_that_are_no_json_leave_the_experiment_incomplete(tmp_path):
    experiment.begin(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="not JSON compliant"):
        experiment.finish(tmp_path, {"rows": [float("nan")]}, ROWS)
    assert experiment.begin(tmp_path, SETTINGS) is None


def test_run_logs_every_stage_and_baseline_has_the_epochs_of_all(tmp_path):
    log = []
    run, _ = tiny_run(run_dir=tmp_path, on_log=log.append)
    seen = [(row["stage"], row["epoch"], row["n_epochs"]) for row in log]
    direct = [("T = 1, direct", epoch, 2) for epoch in range(2)]
    assert seen == [("ANN", 0, 1), ("T = 3", 0, 1), ("T = 1", 0, 1), *direct]
    assert {path.name for path in tmp_path.iterdir()} == {"ann", "schedule", "direct"}

    log.clear()
    again, _ = tiny_run(run_dir=tmp_path, on_log=log.append)
    assert log == []  # nothing was trained a second time
    for one, other in (
        (run.ann, again.ann),
        (run.result.model, again.result.model),
        (run.direct.model, again.direct.model),
    ):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_run_takes_the_baseline_that_is_asked_for():
    run, _ = tiny_run(schedule=(3, 2), direct_epochs=3)
    assert len(run.direct.stages[0].history) == 3
    assert [row["network"] for row in run.rows] == ["ANN", "T = 3", "T = 2", "T = 2, direct"]
    with pytest.raises(ValueError, match="`direct_epochs` must be a whole number >= 1, got 0"):
        tiny_run(direct_epochs=0)
