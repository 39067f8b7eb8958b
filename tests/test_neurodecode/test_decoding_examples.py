"""The scripts that decode brains, run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from fakes.eeg_muse import write_task
from fakes.scripts import EXAMPLES, call


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
    small = ["--sound", "synthetic", "--sentences", "24", "--subjects", "2", "--epochs", "1", "--out", out]
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


# A minute, most of it for two processes that each import and simulate; the decoder itself runs so in every test run.
@pytest.mark.slow
def test_speech_is_trained_by_two_processes_and_written_by_one(tmp_path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    small = ["--sound", "synthetic", "--sentences", "24", "--subjects", "2", "--epochs", "1", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(EXAMPLES / "neurodecode_speech.py"), *small],
        capture_output=True, text=True, timeout=600, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Written too") == 1
    assert (out / "report.html").is_file()


def test_classes_of_a_headband_are_told_apart(tmp_path, monkeypatch) -> None:
    write_task(tmp_path / "data" / "eeg_muse", "n170.npz", subjects=[(1, 3)], strength=60.0)
    monkeypatch.setenv("NEUROLOADERS_DATA", str(tmp_path / "data"))
    small = ["--task", "n170", "--networks", "1", "--jobs", "1", "--out", tmp_path / "run"]
    done = call("neurodecode_eeg_classes.py", *small)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "run" / "results.json").read_text())["n170"]
    assert set(found) == {"network", "linear discriminant", "logistic regression"}
    assert found["linear discriminant"]["mean"] > 0.8
    assert set(found["network"]["auc"]) == {"01_1_0", "01_1_1", "01_1_2"}
    assert (tmp_path / "run" / "figures" / "n170.png").stat().st_size > 5000
    assert call("neurodecode_eeg_classes.py", *small).stdout.startswith("Found the finished")


# Six minutes: networks for each run of real recordings.
@pytest.mark.slow
def test_the_network_reaches_the_linear_way_on_real_eeg(tmp_path, shared_data) -> None:
    if not (shared_data / "eeg_muse").is_dir():
        pytest.skip(f"no folder eeg_muse in {shared_data}")
    done = call("neurodecode_eeg_classes.py", "--out", tmp_path / "run", limit=2400)
    assert done.returncode == 0, done.stderr[-3000:]
    for found in json.loads((tmp_path / "run" / "results.json").read_text()).values():
        others = [scores["mean"] for name, scores in found.items() if name != "network"]
        # The difference of two decoders of some hundred trials has a spread of about .02.
        assert found["network"]["mean"] >= max(others) - 0.02


# Some minutes: six trainings.
@pytest.mark.slow
def test_subject_layer_and_clamp_are_worth_something(tmp_path) -> None:
    done = call("neurodecode_speech_ablations.py", "--out", tmp_path / "run", limit=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    mean = {
        variant: sum(row["top_10"] for row in rows if row["variant"] == variant) / 2
        for variant in ("full", "no subject layer", "no clamp")
    }
    assert mean["full"] > mean["no subject layer"] + 0.05
    assert mean["full"] > mean["no clamp"] + 0.05


def test_ablations_of_speech_run_and_are_drawn(tmp_path) -> None:
    small = ["--subjects", "2", "--sentences", "40", "--epochs", "1", "--seeds", "0", "--jobs", "1"]
    done = call("neurodecode_speech_ablations.py", *small, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["full", "no subject layer", "no clamp"]
    assert (tmp_path / "run" / "figures" / "ablations.png").stat().st_size > 3000


def test_classes_are_decoded_over_time(tmp_path, monkeypatch) -> None:
    write_task(tmp_path / "data" / "eeg_muse", "n170.npz", subjects=[(1, 3)], strength=60.0)
    monkeypatch.setenv("NEUROLOADERS_DATA", str(tmp_path / "data"))
    small = ["--step", "0.1", "--networks", "1", "--epochs", "2", "--jobs", "1", "--out", tmp_path / "run"]
    done = call("neurodecode_eeg_over_time.py", *small)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(found) == {"network", "linear discriminant"}
    # Planted from 137 to 293 ms.
    assert found["linear discriminant"]["peak"] > 0.8
    assert 0.13 < found["linear discriminant"]["peak_s"] < 0.3
    assert (tmp_path / "run" / "figures" / "over_time.png").stat().st_size > 5000
