"""A decision in a file: the same bits again, and nothing else taken for one."""

import copy
import json

import numpy as np
import pytest
import torch
from fakes.exits import TinyNetwork, inputs, valid_and_test

from snn.early_exit import DynamicConfidence

N_STEPS = 12


@pytest.fixture(scope="module")
def data():
    return valid_and_test(N_STEPS)


def test_decision_comes_back_from_its_file_bit_for_bit(data, tmp_path):
    settings = {"criterion": "entropy", "accumulate": "mean", "check_every": 2, "batch_size": 17, "compact_below": 0.25}
    settings["look_ahead"] = 3
    decide = DynamicConfidence(None, N_STEPS, **settings, calibrator="ece").fit(*data["valid"])
    path = decide.save(tmp_path / "exit.json")
    loaded = DynamicConfidence.load(path, None)
    assert loaded.fitted_ == decide.fitted_
    assert loaded.rule_ == decide.rule_
    assert (loaded.batch_size, loaded.compact_below, loaded.look_ahead, loaded.calibrator) == (17, 0.25, 3, "ece")
    ours, theirs = decide.predict(data["test"][0]), loaded.predict(data["test"][0])
    assert torch.equal(ours.steps, theirs.steps)
    assert torch.equal(ours.certainty, theirs.certainty)
    assert loaded.evaluate(*data["valid"]).fitted_on
    assert json.loads(path.read_text())["settings"]["alpha"] is None
    loaded.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["exit.json"]


def test_decision_by_hand_is_kept_without_a_fit(tmp_path):
    # Numbers of NumPy are numbers, too.
    path = DynamicConfidence(None, np.int64(4), np.float32(0.5), 1 / 3).save(tmp_path / "exit.json")
    loaded = DynamicConfidence.load(path, TinyNetwork())
    assert (loaded.alpha_, loaded.threshold_, loaded.fitted_) == (0.5, 1 / 3, None)
    assert len(loaded.predict(inputs(3))) == 3


def broken(record, path, value):
    record = copy.deepcopy(record)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "other", "holds no early-exit decision"),
        (["version"], 1, "its version is 1, and this release reads 2"),
        (["settings", "more"], 1, "its settings are not"),
        (["settings", "criterion"], "luck", "`criterion` must be one of 'confidence'"),
        (["settings", "n_steps"], 0, "`n_steps` must be"),
        (["fitted"], {}, "what was fitted is not"),
        (["fitted", "alpha"], "0.5", "its 'alpha' is '0.5' and not of type float"),
        (["fitted", "pareto"], [[0.5, 1.0]], "a point of its front is"),
        (["fitted", "recalibration"], [[0.5], ["1"]], "its 'recalibration' is not two lists of numbers"),
        (["fitted", "recalibration"], [[0.5, 0.1], [0.0, 1.0]], "`probability` must ascend"),
    ],
)
def test_file_with_something_else_is_refused(data, tmp_path, path, value, message):
    file = DynamicConfidence(None, N_STEPS).fit(*data["valid"]).save(tmp_path / "exit.json")
    file.write_text(json.dumps(broken(json.loads(file.read_text()), path, value)))
    with pytest.raises(ValueError, match=message):
        DynamicConfidence.load(file, None)


def test_file_that_is_no_json_or_not_there_is_refused(tmp_path):
    (tmp_path / "exit.json").write_text("{")
    with pytest.raises(ValueError, match=r"exit.json' cannot be read: it is no JSON"):
        DynamicConfidence.load(tmp_path / "exit.json", None)
    with pytest.raises(OSError, match="Could not read"):
        DynamicConfidence.load(tmp_path / "absent.json", None)
