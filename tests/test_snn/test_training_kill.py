"""A run that is killed at any moment and started again ends like one that was left alone, bit for bit."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys

import pytest
import torch
from children import train_until_killed
from safetensors.torch import load_file

from neuroloaders.checkpoints import load_checkpoint, load_state, read_json
from snn.training import fit


class Runner:
    """Starts the child's runs, and kills those that halt."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", train_until_killed.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def run(self, folder, halt):
        """Return True if the run came to its end, False if it was killed where it should halt."""
        print(folder / "run", folder / "weights.safetensors", halt, sep="\t", file=self.process.stdin, flush=True)
        word, number = self.process.stdout.readline().split()
        if word == "halted":
            os.kill(int(number), signal.SIGKILL)
            assert self.process.stdout.readline().split() == ["status", str(-signal.SIGKILL)]
            return False
        assert (word, number) == ("status", "0")
        return True

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait() == 0


@pytest.fixture(scope="module")
def runner():
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def undisturbed(runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runner.run(folder, "never")
    return folder


def rows(folder):
    """What metrics.csv holds, without the wall times."""
    with open(folder / "run" / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_every_file_is_whole(folder, expected_rows):
    """Everything that has a file's proper name can be read to its end, and fits the others."""
    run_dir = folder / "run"
    assert not (folder / "weights.safetensors").exists()
    if (run_dir / "config.json").exists():
        assert read_json(run_dir / "config.json")["train"]["seed"] == train_until_killed.CONFIG.seed
    n_epochs = 0
    if (run_dir / "checkpoint.pt").exists():
        n_epochs = len(load_state(run_dir / "checkpoint.pt")["state"]["rows"])
    if (run_dir / "metrics.csv").exists():
        found = rows(folder)
        assert found == expected_rows[: len(found)]
        assert n_epochs - 1 <= len(found) <= n_epochs  # written after the checkpoint
    if (run_dir / "model.safetensors").exists():
        load_checkpoint(run_dir / "model.safetensors", train_until_killed.build_model())


# A run of its own makes 32 steps in 4 epochs, 15 checkpoints, and some 60 fsyncs.
HALTS = {
    "step": (2, 1, 5, 3, 7, 6, 4, 9),
    "half": (1, 2, 3, 4, 2, 5, 3, 2),
    "fsync": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2),
    "before-rename": (1, 2, 3, 4, 5, 3, 2, 6, 1),
    "after-rename": (1, 2, 3, 1, 4, 5, 1, 3, 2),
}


@pytest.mark.parametrize("kind", HALTS)
def test_run_killed_again_and_again_ends_with_the_same_bits(kind, runner, undisturbed, tmp_path):
    expected_rows = rows(undisturbed)
    n_kills = 0
    for count in HALTS[kind]:
        if runner.run(tmp_path, f"{kind}:{count}"):
            break
        n_kills += 1
        assert_every_file_is_whole(tmp_path, expected_rows)
    assert n_kills >= 6
    assert runner.run(tmp_path, "never")
    expected, got = load_file(undisturbed / "weights.safetensors"), load_file(tmp_path / "weights.safetensors")
    assert expected.keys() == got.keys()
    for name in expected:
        assert torch.equal(expected[name], got[name]), name
    assert rows(tmp_path) == expected_rows
    kept = load_checkpoint(tmp_path / "run" / "model.safetensors").tensors
    assert all(torch.equal(kept[name], expected[name]) for name in expected)
    assert not list((tmp_path / "run").glob("*.tmp"))


class StoppedError(Exception):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("every", [None, 1, 5])
def test_run_stopped_after_any_step_ends_with_the_same_bits(every, tmp_path):
    config = dataclasses.replace(train_until_killed.CONFIG, epochs=2, checkpoint_every_n_steps=every)

    def train(run_dir, stop_after=None):
        model, steps = train_until_killed.build_model(), iter(range(1, 1000))

        def after_step(_):
            if next(steps) == stop_after:
                raise StoppedError

        loaders = train_until_killed.build_loaders()
        history = fit(model, *loaders, config, run_dir=run_dir, device="cpu", after_step=after_step)
        return model.state_dict(), [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]

    expected, expected_rows = train(tmp_path / "whole")
    for stop_after in range(1, 17):
        run_dir = tmp_path / f"stopped-{stop_after}"
        with pytest.raises(StoppedError):
            train(run_dir, stop_after)
        got, got_rows = train(run_dir)
        assert got_rows == expected_rows
        assert all(torch.equal(got[name], expected[name]) for name in expected), stop_after


def test_run_interrupted_in_a_notebook_starts_from_its_own_first_weights(tmp_path):
    """The model object has been trained a little by then; the second call must not start from there."""
    config = dataclasses.replace(train_until_killed.CONFIG, epochs=1, checkpoint_every_n_steps=None)
    loaders, whole, model = train_until_killed.build_loaders(), *(train_until_killed.build_model() for _ in "ab")
    fit(whole, *loaders, config, device="cpu")

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, *loaders, config, run_dir=tmp_path, device="cpu", after_step=interrupt)
    fit(model, *loaders, config, run_dir=tmp_path, device="cpu")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
