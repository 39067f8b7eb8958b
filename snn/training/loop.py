"""Training: one plain loop, for every network of the house.

A run with a `run_dir` may be killed at any moment; the same call goes on and ends with the same weights. Under
torchrun the same script trains on several processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from neuroloaders.checks import check_option, invalid
from neuroloaders.runs import RunFolder
from snn.training.batches import check_loader
from snn.training.config import TrainConfig
from snn.training.history import History
from snn.training.losses import Loss, find_metrics
from snn.training.processes import Processes
from snn.training.run import TrainingRun

__all__ = ["fit"]


def fit(
    model: nn.Module,
    train: Any,
    valid: Any,
    config: TrainConfig,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    before_epoch: Callable[[nn.Module, int], None] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
    param_groups: Callable[[nn.Module], Iterable[Mapping]] | None = None,
    metrics: Mapping[str, str | Loss] | None = None,
) -> History:
    """Train `model`, and leave it with the weights that ``config.select`` names, in evaluation mode.

    Parameters
    ----------
    model : Module
        Moved to the device and trained in place. Each epoch puts all of it into training mode; a layer that is
        to stay frozen overrides ``train``.
    train, valid : loader
        With ``batches(epoch, start)`` as `neuroloaders.ResidentLoader`, or an iterable of tuples. The last tensor
        of each batch is the target, the others are the model's inputs; the target's first axis is the batch.
        `valid` may be None.
    config : TrainConfig
        What to do.
    run_dir : path-like, optional
        Folder for ``config.json``, ``versions.txt``, ``metrics.csv``, ``log.txt``, ``checkpoint.pt`` and, once
        the run is complete, ``model.safetensors``. The same call with the same folder goes on where the run
        stopped, or returns at once if it is complete.
    device : str or torch.device, optional
        None takes a GPU if there is one; under torchrun, each process its own.
    progress : bool
        Show a bar.
    on_log : callable, optional
        Gets a copy of the history's row after each epoch, on rank 0.
    before_epoch : callable, optional
        ``before_epoch(model, epoch)``, for schedules such as the width of delays. It must depend on the epoch
        alone: a run that goes on inside an epoch calls it again.
    after_step : callable, optional
        ``after_step(model)`` after each step of the optimiser, for clamping parameters.
    param_groups : callable, optional
        Maps the model to groups with their own ``lr``, ``weight_decay`` or ``schedule``.
    metrics : dict, optional
        Names and functions (output, target) -> one number a sample, shape (B,), higher is better. None is the
        accuracy.

    Returns
    -------
    History
        One row an epoch.

    Raises
    ------
    TypeError, ValueError
        For arguments and data that do not fit; for a folder with another configuration or architecture.
    FloatingPointError
        If the loss or the weights become NaN or infinite: where, and which checkpoint is good.
    OSError
        If the disk is full; the checkpoint before stays whole.

    Notes
    -----
    A run that was killed ends bit for bit like one that was not: on CPUs with the same number of threads, on GPUs
    under ``torch.use_deterministic_algorithms(True)``, and with data whose order depends on the epoch alone. If
    it stopped inside an epoch (`checkpoint_every_n_steps`), an iterable makes the skipped batches again.

    PyTorch's global generators are used, seeded by (seed, epoch, rank), and given back as they were.

    Under torchrun, loaders yield each process's share of every global batch, and the gradient is that of the mean
    over the global batch. A loss that compares the samples of a batch with each other sees one share at a time.
    """
    if not isinstance(config, TrainConfig):
        raise invalid("config", "be a TrainConfig", config, kind=TypeError)
    metrics = find_metrics(metrics)
    check_option("monitor", config.monitor, ["loss", *metrics])
    if valid is None and (config.select == "best" or config.patience is not None):
        advice = "Without validation data pass select='last' and patience=None."
        raise invalid("valid", "be given with select='best' or with patience", "None", advice)
    processes = Processes(device)
    loaders = {"train": train} if valid is None else {"train": train, "valid": valid}
    for name, loader in loaders.items():
        check_loader(name, loader, processes.rank, processes.world_size)
    run = TrainingRun(model, loaders, config, processes, metrics, run_dir, after_step, param_groups)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []))
        run.layers_talk = stack.enter_context(processes.joint_batchnorm(model))
        if run_dir is not None and processes.rank == 0:
            run.folder = RunFolder(run_dir)
            stack.enter_context(run.folder.held())
        run.start_or_go_on(before_epoch)
        while not run.is_complete():
            epoch, started = run.state.epoch, time.perf_counter() - run.state.seconds
            row = {"epoch": epoch}
            for batch in run.open_train(before_epoch, progress):
                run.step(batch)
                run.state.seconds = time.perf_counter() - started
                run.look(config.checkpoint_every_n_steps)
            row |= run.scores()
            row |= {"lr": run.optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - started}
            run.end_epoch(row)
            if on_log is not None and processes.rank == 0:
                on_log(dict(row))
        run.finish()
    return run.history
