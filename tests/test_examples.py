"""Every script of examples/ runs as a user runs it, on small settings, and runs at once the second time."""

import csv
import json

import pytest
from fakes.scripts import EXAMPLES, call

# Notebook -> what it must print.
NOTEBOOKS = {
    "from_betas_to_images": "the same to the last bit: True",
    "learned_delays": "learned delays: 100.0%",
    "stop_when_sure": "<- the answer",
    "reservoir_raster": "the same spikes: True",
    "speech_from_meg": "the brain follows 150 ms later",
}
# Scripts that the tests of their package run.
ELSEWHERE = {
    "neurodecode_brain_diffuser.py",
    "neurodecode_eeg_classes.py",
    "neurodecode_eeg_over_time.py",
    "neurodecode_haxby.py",
    "neurodecode_speech.py",
    "neurodecode_speech_ablations.py",
    "reservoir_dopamine_stdp.py",
    "reservoir_fit_cell.py",
    "reservoir_force_sine.py",
    "reservoir_izhikevich_2003.py",
    "reservoir_what_when.py",
}
# Script -> what makes it small; these compare networks of several time steps and write a report.
SMALL = {
    "quickstart.py": ["--epochs", "1"],
    "snn_single_timestep.py": ["--fake", "--seeds", "0", "1", "--schedule", "3", "1"],
}
DELAYS = ["--fake", "--epochs", "4", "--seeds", "0", "--jobs", "1", "--splits", "takes", "a"]
FIGURES = {
    "accuracy_by_steps.png",
    "energy_by_layer.png",
    "learning_curves.png",
    "sample_predictions.png",
    "spike_maps.png",
    "spike_rates.png",
}


@pytest.fixture(scope="module", params=SMALL)
def ran(request, tmp_path_factory):
    """A script that has run once: its name, its folder, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "run"
    done = call(request.param, *SMALL[request.param], "--out", out)
    assert done.returncode == 0, done.stderr
    return request.param, out, done.stdout


def test_every_script_is_run_here():
    here = {*SMALL, "snn_delays.py", "snn_dynamic_confidence.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == here | ELSEWHERE
    assert {path.stem for path in (EXAMPLES / "notebooks").glob("[!_]*.py")} == set(NOTEBOOKS)


def test_script_writes_report_figures_table_and_weights(ran):
    script, out, said = ran
    assert {path.name for path in (out / "figures").iterdir()} == FIGURES
    page = (out / "report.html").read_text()
    assert page.count("<img ") == len(FIGURES)
    assert str(out) in said
    n_stages, n_seeds = (5, 1) if script == "quickstart.py" else (2, 2)
    assert len(list((out / "training").rglob("model.safetensors"))) == n_seeds * (n_stages + 2)
    results = json.loads((out / "results.json").read_text())
    names = [row["network"] for row in results["rows"]]
    steps = [5, 4, 3, 2, 1] if script == "quickstart.py" else [3, 1]
    assert names == ["ANN", *(f"T = {n}" for n in steps), "T = 1, plain", "T = 1, direct"]
    assert all(f"\n{name} " in said for name in names)
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == n_seeds * len(names)
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    assert not list(out.rglob("*.tmp"))


def test_second_call_finds_the_finished_run(ran):
    script, out, said = ran
    before = (out / "report.html").stat().st_mtime_ns
    again = call(script, *SMALL[script], "--out", out)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("Found the finished")
    assert "--fresh" in again.stdout
    table = [line for line in said.splitlines() if line.startswith(("network", "T = "))]
    assert all(line in again.stdout for line in table[-4:])
    assert (out / "report.html").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused_in_one_sentence(ran):
    script, out, _ = ran
    option = ["--epochs", "2"] if script == "quickstart.py" else ["--schedule", "2", "1"]
    other = call(script, *SMALL[script], "--out", out, *option)
    assert other.returncode == 1
    assert "Traceback" not in other.stderr
    assert "To go on there, pass" in other.stderr


def test_stopped_run_goes_on_without_training_again(ran):
    script, out, said = ran
    # As if it had been stopped right before its end.
    (out / "results.json").unlink()
    on = call(script, *SMALL[script], "--out", out)
    assert on.returncode == 0, on.stderr
    assert " epoch " in said
    assert " epoch " not in on.stdout
    accuracies = [
        [line.split("  ")[0] + line[15:31] for line in text.splitlines() if line[:4] == "T = "]
        for text in (said, on.stdout)
    ]
    assert accuracies[0][-4:] == accuracies[1][-4:]
    assert (out / "results.json").exists()


def test_delays_are_compared_at_the_same_size_and_a_stopped_run_goes_on(tmp_path):
    out = tmp_path / "run"
    first = call("snn_delays.py", *DELAYS, "--out", out)
    assert first.returncode == 0, first.stderr
    assert (out / "figures" / "accuracy.png").stat().st_size > 5000
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [(row["split"], row["delays"]) for row in rows] == [
        (split, kind) for split in ("takes", "a") for kind in ("learned", "fixed", "none")
    ]
    sizes = [row["parameters"] for row in rows]
    assert max(sizes) < 1.01 * min(sizes)
    with open(out / "results.csv", newline="") as file:
        assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [row["accuracy"] for row in rows]
    # As if it had been stopped before its last network.
    (out / "results.json").unlink()
    (out / "training" / "a-none-0" / "row.json").unlink()
    again = call("snn_delays.py", *DELAYS, "--out", out)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("test accuracy") == 1
    assert json.loads((out / "results.json").read_text())["rows"] == rows
    assert call("snn_delays.py", *DELAYS, "--out", out).stdout.startswith("Found the finished")
    unknown = call("snn_delays.py", "--splits", "nobody", "--out", tmp_path / "other")
    assert unknown.returncode == 1
    assert "`splits` must be" in unknown.stderr


EXITS = ["--fake", "--seeds", "0", "--jobs", "1"]


def test_networks_stop_when_sure_and_a_stopped_run_goes_on(tmp_path):
    out = tmp_path / "run"
    first = call("snn_dynamic_confidence.py", *EXITS, "--out", out)
    assert first.returncode == 0, first.stderr
    tasks = ("converted", "direct", "spoken")
    pictures = {f"{task}_{name}.png" for task in tasks for name in ("curve", "exits", "calibration")}
    pictures |= {f"{task}_first_and_last.png" for task in tasks[:2]}
    assert {path.name for path in (out / "figures").iterdir()} == pictures
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [row["task"] for row in rows] == list(tasks)
    for row in rows:
        assert 1 <= row["steps"] <= row["T"]
        assert row["same as on logits"] == 1
        assert row["oracle accuracy"] >= row["accuracy"]
        assert row["energy at T / at exit"] >= 1
    assert all(f"\n{task} " in first.stdout for task in tasks)
    # As if it had been stopped before its last network.
    (out / "results.json").unlink()
    (out / "training" / "spoken-0" / "spoken.json").unlink()
    again = call("snn_dynamic_confidence.py", *EXITS, "--out", out)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(" seed 0:") == 1
    assert json.loads((out / "results.json").read_text())["rows"] == rows
    assert call("snn_dynamic_confidence.py", *EXITS, "--out", out).stdout.startswith("Found the finished")


@pytest.mark.parametrize("notebook", sorted((EXAMPLES / "notebooks").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_notebook_runs_and_is_the_one_that_is_shown(notebook):
    import jupytext

    done = call(notebook.relative_to(EXAMPLES))
    assert done.returncode == 0, done.stderr
    assert NOTEBOOKS[notebook.stem] in done.stdout
    script, shown = jupytext.read(notebook), jupytext.read(notebook.with_suffix(".ipynb"))
    assert [cell.source for cell in script.cells] == [cell.source for cell in shown.cells]
    assert any(output.get("data", {}).get("image/png") for cell in shown.cells for output in cell.get("outputs", []))
