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


def test_real_categories_are_identified_at_least_as_often_as_by_support_vectors(tmp_path, shared_data) -> None:
    done = call("neurodecode_haxby.py", "--svm", "--data", shared_data / "haxby", "--out", tmp_path / "run", limit=900)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    ridge, _, svm = (row["accuracy"] for row in rows)
    assert ridge >= 0.82
    assert ridge >= svm


def test_brain_diffuser_goes_from_photographs_to_a_report(tmp_path) -> None:
    out = tmp_path / "run"
    small = ["--n-images", "60", "--steps", "3", "--out", out]
    done = call("neurodecode_brain_diffuser.py", *small)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((out / "results.json").read_text())
    assert results["metrics"]["n_images"] == 12
    assert 0.3 < results["planted"]["r2"] < results["planted"]["ceiling"]
    assert results["preference"]["higher"] > 20 > -20 > results["preference"]["early"]
    page = (out / "report.html").read_text()
    for part in ("Nothing here says how well brains", "Metrics beside the paper", "Scenes of regions"):
        assert part in page
    assert "decoder.safetensors" in {path.name for path in (out / "decoder").iterdir()}
    again = call("neurodecode_brain_diffuser.py", *small)
    assert again.stdout.startswith("Found the finished")


@pytest.mark.slow  # trains three networks for two minutes
def test_simulated_subject_is_decoded_nearly_as_well_as_can_be(tmp_path) -> None:
    done = call("neurodecode_brain_diffuser.py", "--out", tmp_path / "run", limit=900)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["planted"]["share"] > 0.95
    assert results["metrics"]["scores"]["pixcorr"] > results["nearest"]["scores"]["pixcorr"]
    assert max(results["metrics"]["p"].values()) < 0.01


def test_speech_goes_from_simulated_listeners_to_a_report(tmp_path) -> None:
    out = tmp_path / "run"
    small = ["--sentences", "24", "--subjects", "2", "--epochs", "1", "--out", out]
    done = call("neurodecode_speech.py", *small)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((out / "results.json").read_text())
    assert results["peak_s"] == pytest.approx(0.15, abs=0.1)  # few sentences
    assert results["ceiling"] > 0.9
    assert set(results["evaluations"]) == {"network", "ridge regression"}
    page = (out / "report.html").read_text()
    for part in ("Which segment was heard", "When the brain follows", "shifted brain"):
        assert part in page
    assert (out / "figures" / "controls.png").stat().st_size > 5000
    again = call("neurodecode_speech.py", *small)
    assert again.stdout.startswith("Found the finished")
