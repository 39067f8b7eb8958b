"""`examples/reservoir_what_when.py` as a user runs it: pictures, every number as JSON, and a stopped run goes on."""

import csv
import json

import numpy as np
from fakes.scripts import call

FIGURES = {"ablations", "amplitude", "angles", "conditions", "learning", "prediction", "rules", "spikes"}
STAGES = ("learning", "sweep", "conditions", "rules", "ablations")


def test_example_draws_measures_and_goes_on_where_it_was_stopped(tmp_path):
    out = tmp_path / "run"
    first = call("reservoir_what_when.py", "--fake", "--out", out)
    assert first.returncode == 0, first.stderr
    assert {path.stem for path in (out / "figures").iterdir()} == FIGURES
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"figures", *STAGES}
    rows = results["figures"]
    with open(out / "results.csv", newline="") as file:
        assert [float(row["measured"]) for row in csv.DictReader(file)] == [row["measured"] for row in rows]
    # What is reported is what was measured.
    measured = {row["claim"]: row["measured"] for row in rows}
    rmse = np.array(results["learning"]["rmse"])
    assert measured["error, trial 10"] == rmse[0, -1].mean()
    assert measured["error after switches, trial 10"] == rmse[1:, -1].mean()
    errors = {name: np.mean(values, axis=2) for name, values in results["rules"]["rmse"].items()}
    assert measured["RLS / local, second block, trial 10"] == errors["RLS"][1, -1] / errors["local"][1, -1]
    assert all(row["claim"] in first.stdout for row in rows)
    assert str(out) in first.stdout
    # As if it had been stopped in its last part.
    (out / "results.json").unlink()
    (out / "training" / "ablations.json").unlink()
    again = call("reservoir_what_when.py", "--fake", "--out", out)
    assert again.returncode == 0, again.stderr
    assert [line.split(":")[0] for line in again.stdout.splitlines() if line.endswith(" s")] == ["ablations"]
    assert json.loads((out / "results.json").read_text()) == results
    assert call("reservoir_what_when.py", "--fake", "--out", out).stdout.startswith("Found the finished")
    other = call("reservoir_what_when.py", "--fake", "--seed", "1", "--out", out)
    assert other.returncode == 1
    assert "Traceback" not in other.stderr
