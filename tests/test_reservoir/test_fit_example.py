"""The example of a fit runs as a user runs it, on a simulated cell, and at once the second time."""

from fakes.scripts import call

from reservoir.fitting import IzhikevichFit


def test_script_finds_the_simulated_cell_draws_it_and_finds_its_run_again(tmp_path):
    out = tmp_path / "run"
    done = call("reservoir_fit_cell.py", "--fake", "--out", out)
    assert done.returncode == 0, done.stderr
    assert (out / "figures" / "fit.png").stat().st_size > 20_000
    assert "Gamma 1.00 at 4 ms" in done.stdout
    assert "\nNext: " in done.stdout
    assert IzhikevichFit.load(out / "cell.json").cell.form == "2007"
    again = call("reservoir_fit_cell.py", "--fake", "--out", out)
    assert again.returncode == 0, again.stderr
    assert "Found the finished" in again.stdout
