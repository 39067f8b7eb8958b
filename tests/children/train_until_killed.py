"""A small training run that halts where it is told to, so that a test can kill it there.

Each line of standard input, "RUN_DIR OUT HALT" with tabs between, starts the run in a new process, by a fork, as
importing torch takes longer than the run. HALT is "never", "step:N" (after the N-th step of this process),
"half:N" (with half of its N-th state file written), "fsync:N", "before-rename:N" or "after-rename:N" (at its
N-th such call). There the process prints "halted PID" and waits to be killed. A run that ends writes its weights
to OUT. After each run comes a line "status CODE".
"""

import contextlib
import importlib
import itertools
import os
import signal
import sys
import traceback

import torch
from safetensors.torch import save_file
from torch import nn

import neuroloaders.checkpoints
from neuroloaders.resident import ResidentLoader
from snn.training import TrainConfig, fit

CONFIG = TrainConfig(
    epochs=4, lr=0.01, schedule="cosine", schedule_every="step", checkpoint_every_n_steps=3, grad_clip=1.0, seed=7
)


def halt() -> None:
    """Stay here until killed."""
    print("halted", os.getpid(), flush=True)
    while True:
        signal.pause()


def halting(function, when: str, count: int):
    """Wrap `function` so that its `count`-th call halts before or after it."""
    calls = itertools.count(1)

    def wrapped(*args, **kwargs):
        here = next(calls) == count
        if here and when == "before":
            halt()
        result = function(*args, **kwargs)
        if here and when == "after":
            halt()
        return result

    return wrapped


class HalfWriter:
    """A file that halts in the middle of its first write."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        self.file.write(bytes(data)[: len(data) // 2])
        self.file.flush()
        halt()


def half_writing(atomic_write, count: int):
    """Wrap `atomic_write` so that its `count`-th file halts half-written."""
    calls = itertools.count(1)

    @contextlib.contextmanager
    def wrapped(path, mode="wb"):
        here = next(calls) == count
        with atomic_write(path, mode) as file:
            yield HalfWriter(file) if here else file

    return wrapped


def build_model() -> nn.Module:
    """Batch norm, dropout and parameters enough for an optimiser with state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def build_loaders() -> tuple[ResidentLoader, ResidentLoader]:
    """62 and 20 samples; batches of 8 leave a short one of 6 and of 4."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(82, 6, generator=generator)
    y = (x[:, :3] + 0.5 * torch.randn(82, 3, generator=generator)).argmax(1)
    shuffle = {"shuffle": True, "generator": torch.Generator().manual_seed(3)}
    return ResidentLoader(x[:62], y[:62], batch_size=8, **shuffle), ResidentLoader(x[62:], y[62:], batch_size=8)


def main(run_dir: str, out: str, where: str) -> None:
    """Train, halt where told, and write the weights at the end."""
    torch.set_num_threads(1)
    kind, _, count = where.partition(":")
    after_step = None
    if kind == "step":
        after_step = halting(lambda model: None, "after", int(count))
    elif kind == "half":
        neuroloaders.checkpoints.atomic_write = half_writing(neuroloaders.checkpoints.atomic_write, int(count))
    elif kind == "fsync":
        os.fsync = halting(os.fsync, "before", int(count))
    elif kind in ("before-rename", "after-rename"):
        os.replace = halting(os.replace, kind.split("-")[0], int(count))
    model = build_model()
    fit(model, *build_loaders(), CONFIG, run_dir=run_dir, device="cpu", after_step=after_step)
    save_file(model.state_dict(), out)


def serve() -> None:
    """Run once for each line of standard input."""
    # PyTorch's optimisers import it at their first step, which takes ten times as long as a run.
    importlib.import_module("torch._dynamo")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                main(*line.rstrip("\n").split("\t"))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print("status", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
