"""The scripts that decode brains, run as a user runs them."""

from __future__ import annotations

import json

import pytest
from fakes.scripts import call


def test_haxby_identifies_simulated_blocks_and_finds_its_run_again(tmp_path) -> None:
    out = tmp_path / "run"
    done = call("neurodecode_haxby.py", "--fake", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [(row["decoder"], row["unit"]) for row in rows] == [("ridge", "block"), ("ridge", "volume")]
    assert rows[0]["accuracy"] > 0.9
    assert rows[0]["accuracy"] > rows[1]["accuracy"] > 0.3
    assert (out / "figures" / "confusion.png").stat().st_size > 5000
    again = call("neurodecode_haxby.py", "--fake", "--out", out)
    assert again.stdout.startswith("Found the finished")
    missing = call("neurodecode_haxby.py", "--data", tmp_path / "none", "--out", tmp_path / "other")
    assert missing.returncode == 1
    assert "be a folder" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.slow
def test_real_categories_are_identified_at_least_as_often_as_by_support_vectors(tmp_path, shared_data) -> None:
    done = call("neurodecode_haxby.py", "--svm", "--data", shared_data / "haxby", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    ridge, _, svm = (row["accuracy"] for row in rows)
    assert ridge >= 0.82
    assert ridge >= svm
