"""Training runs that a test compares between one process and two.

As a script it runs all of them in the process group that the environment describes, and rank 0 saves what came
out: python train_in_processes.py OUT FOLDER
"""

import contextlib
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from neuroloaders.resident import ResidentLoader
from neuroloaders.runs import world
from snn.training import TrainConfig, evaluate, fit

# (dtype, number of samples, configuration). Batches of 8 leave one of 5, whose shares are uneven, or one of 1, of
# which one process has nothing.
SCENARIOS = {
    "float64": (torch.float64, 61, {}),
    "float32": (torch.float32, 61, {}),
    "empty share": (torch.float64, 57, {}),
    "sgd with clipping": (torch.float64, 61, {"optimizer": "sgd", "grad_clip": 0.3, "weight_decay": 0.1}),
    "adam with weight decay": (torch.float64, 61, {"weight_decay": 0.1}),
    "mse": (torch.float64, 61, {"loss": "mse"}),
}


class Net(nn.Module):
    """Two layers, and a parameter that is never used; it remembers its dropout masks."""

    def __init__(self, dropout=0.0, batchnorm=False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            norm = [nn.BatchNorm1d(16)] if batchnorm else []
            self.layers = nn.Sequential(nn.Linear(6, 16), *norm, nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 3))
        self.unused = nn.Parameter(torch.ones(2))
        self.masks = []

    def forward(self, x):
        if self.training:
            self.masks.append(self.layers[-2](torch.ones(1, 50)) if self.layers[-2].p else None)
        return self.layers(x)


def build_loaders(n_samples, dtype):
    """Shares of this process of shuffled training data and of 23 for validation."""
    rank, _, world_size = world()
    x = torch.randn(n_samples + 23, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    y = (x[:, :3] * 2).argmax(1)
    share = {"batch_size": 8, "rank": rank, "world_size": world_size}
    order = {"shuffle": True, "generator": torch.Generator().manual_seed(1)}
    return ResidentLoader(x[:n_samples], y[:n_samples], **share, **order), ResidentLoader(
        x[n_samples:], y[n_samples:], **share
    )


def run_scenario(name, run_dir=None):
    """Return the weights, the history and the evaluation of the last weights."""
    dtype, n_samples, settings = SCENARIOS[name]
    loaders = build_loaders(n_samples, dtype)
    model = Net().to(dtype)
    config = TrainConfig(epochs=3, lr=0.02, select="last", **settings)
    history = fit(model, *loaders, config, device="cpu", run_dir=run_dir)
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]
    return {"weights": dict(model.state_dict()), "rows": rows, "scores": evaluate(model, loaders[1], loss=config.loss)}


def run_stopped(run_dir, stop_after):
    """Train with dropout; stop after a step, as by Ctrl-C, and go on."""

    def train(stop_at):
        model, steps = Net(dropout=0.3), iter(range(1, 1000))

        def after_step(_):
            if next(steps) == stop_at:
                raise KeyboardInterrupt

        config = TrainConfig(epochs=2, lr=0.02, checkpoint_every_n_steps=3, select="last")
        loaders = build_loaders(61, torch.float32)
        history = fit(model, *loaders, config, device="cpu", run_dir=run_dir, after_step=after_step)
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]
        return {"weights": dict(model.state_dict()), "rows": rows}

    if stop_after is not None:
        with contextlib.suppress(KeyboardInterrupt):
            train(stop_after)
    return train(None)


def run_with_batchnorm():
    """Return the warnings of a run with batch norm, and the dropout mask of its first step."""
    model = Net(dropout=0.5, batchnorm=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, *build_loaders(61, torch.float32), TrainConfig(epochs=2, select="last"), device="cpu")
    where = [(str(warning.message), Path(warning.filename).name) for warning in caught]
    buffers = {name: value for name, value in model.state_dict().items() if "running" in name}
    return {"warnings": where, "mask": model.masks[0], "buffers": buffers}


def refusal_of_undivided_data():
    """Return the message for a loader that yields the same to each process."""
    x, y = torch.zeros(8, 6), torch.zeros(8, dtype=torch.int64)
    try:
        fit(Net(), [(x, y)], None, TrainConfig(epochs=1, select="last"), device="cpu")
    except ValueError as error:
        return str(error)
    return "none"


def main(out, folder):
    """Run everything; rank 0 writes what all ranks found."""
    torch.set_num_threads(1)
    folder = Path(folder)
    found = {
        "refusal": refusal_of_undivided_data(),
        "scenarios": {name: run_scenario(name, folder / name.replace(" ", "-")) for name in SCENARIOS},
        "whole": run_stopped(folder / "whole", None),
        "stopped": run_stopped(folder / "stopped", 13),
        "batchnorm": run_with_batchnorm(),
    }
    everything = [None] * world()[2]
    torch.distributed.all_gather_object(everything, found)
    if world()[0] == 0:
        torch.save(everything, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
