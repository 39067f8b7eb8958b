"""The three classic examples run as a user runs them, on small settings, and at once the second time."""

import csv
import json

import pytest
from fakes.scripts import call

FIGURES = {
    "reservoir_izhikevich_2003.py": "rhythms.png",
    "reservoir_force_sine.py": "sine.png",
    "reservoir_dopamine_stdp.py": "rewarded_synapse.png",
}
# What the small runs must show: column, lowest, highest.
SHOWS = {
    "reservoir_izhikevich_2003.py": [("rate E (Hz)", 7.0, 8.2), ("rate I (Hz)", 6.5, 8.3), ("gamma", 0.2, 0.5)],
    "reservoir_force_sine.py": [("frequency (Hz)", 4.85, 5.15), ("amplitude", 0.85, 1.1), ("purity", 0.97, 1.0)],
    "reservoir_dopamine_stdp.py": [("rewards", 1, 40), ("others, mean (mV)", 0.6, 1.0)],
}


@pytest.mark.parametrize("script", FIGURES)
def test_script_draws_writes_and_finds_its_run_again(script, tmp_path):
    out = tmp_path / "run"
    done = call(script, "--fake", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Look at {out / 'figures' / FIGURES[script]} first.")
    assert (out / "figures" / FIGURES[script]).stat().st_size > 20_000
    assert "\nNext: " in done.stdout
    rows = json.loads((out / "results.json").read_text())["rows"]
    for name, low, high in SHOWS[script]:
        assert all(low <= row[name] <= high for row in rows), name
    with open(out / "results.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    again = call(script, "--fake", "--out", out)
    assert again.stdout.startswith("Found the finished")
    assert again.stdout.endswith(done.stdout)
