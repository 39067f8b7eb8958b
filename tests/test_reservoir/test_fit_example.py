"""The example of a fit runs as a user runs it, on a simulated cell, and at once the second time."""

import os
import subprocess
import sys
from pathlib import Path

from reservoir.fitting import IzhikevichFit

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "reservoir_fit_cell.py"


def call(*options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_script_finds_the_simulated_cell_draws_it_and_finds_its_run_again(tmp_path):
    out = tmp_path / "run"
    done = call("--fake", "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "figures" / "fit.png").stat().st_size > 20_000
    assert "Gamma 1.00 at 4 ms" in done.stdout
    assert "\nNext: " in done.stdout
    assert IzhikevichFit.load(out / "cell.json").cell.form == "2007"
    again = call("--fake", "--out", out)
    assert again.returncode == 0, again.stderr
    assert "Found the finished" in again.stdout
