"""From an untrained ANN to networks of one time step, with the baseline that shows what the way there is worth."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import check_int
from snn.comparison import NetworkScores, compare_one_step
from snn.models import FoldedNetwork
from snn.single_timestep import OneStepResult, TemporalPruning
from snn.training import History, TrainConfig, fit

__all__ = ["OneStepRun", "run_one_step"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OneStepRun:
    """All that one seed gave.

    Attributes
    ----------
    ann : FoldedNetwork
        The trained ANN.
    ann_history : History
        Its training.
    result : OneStepResult
        The schedule.
    direct : OneStepResult
        The same ANN trained at the last number of steps directly.
    scores : tuple of NetworkScores
        All networks on the test data, from `snn.comparison.compare_one_step`.
    """

    ann: FoldedNetwork
    ann_history: History
    result: OneStepResult
    direct: OneStepResult
    scores: tuple[NetworkScores, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The scores as a table, see `NetworkScores.as_row`."""
        return [score.as_row() for score in self.scores]


def run_one_step(
    ann: FoldedNetwork,
    train: Any,
    valid: Any,
    test: Any,
    inputs: Tensor,
    *,
    ann_config: TrainConfig,
    pruning: TemporalPruning,
    direct_epochs: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> OneStepRun:
    """Train `ann`, take it down the schedule, train it at the last step count directly, and compare all of them.

    Parameters
    ----------
    ann : FoldedNetwork
        An untrained network of `snn.models`; it is trained in place.
    train, valid : loader
        As `snn.fit` takes them. `valid` selects epochs.
    test : loader
        Looked at once, at the end; with the `compat` of `pruning` that says so, it selects epochs as well.
    inputs : Tensor, shape (B, C, H, W)
        Test images as the networks see them, on which spikes, energy and time are measured.
    ann_config : TrainConfig
        Training of the ANN.
    pruning : TemporalPruning
        The schedule and its training. The baseline differs in its schedule alone.
    direct_epochs : int, optional
        Of the baseline; by default as many as all stages together.
    run_dir : path-like, optional
        Folder, with one for each training in it (``ann``, ``schedule``, ``direct``). The same call goes on where a run
        stopped.
    device, progress
        As in `snn.fit`.
    on_log : callable, optional
        As in `snn.fit`. Each row has ``stage`` ("ANN", "T = 5", "T = 1, direct") and ``n_epochs``, its length.

    Returns
    -------
    OneStepRun
    """
    n_direct = sum(pruning.epochs_of_stages)
    if direct_epochs is not None:
        n_direct = check_int("direct_epochs", direct_epochs, at_least=1)
    last = pruning.schedule[-1]
    baseline = replace(pruning, schedule=(last,), stage_epochs=(n_direct,))
    epochs = {"ANN": ann_config.epochs, f"T = {last}, direct": n_direct}
    epochs |= {f"T = {n}": count for n, count in zip(pruning.schedule, pruning.epochs_of_stages, strict=True)}

    def log_as(stage: str | None) -> Callable[[dict[str, Any]], None] | None:
        def log(row: dict[str, Any]) -> None:
            name = stage or f"T = {row['n_steps']}"
            on_log({"stage": name, "n_epochs": epochs[name], **row})

        return None if on_log is None else log

    folder = {name: None if run_dir is None else Path(run_dir) / name for name in ("ann", "schedule", "direct")}
    common = {"device": device, "progress": progress}
    on_test = {"test": test} if pruning.compat == "test-set-selection" else {}
    history = fit(ann, train, valid, ann_config, run_dir=folder["ann"], on_log=log_as("ANN"), **common)
    common |= on_test
    result = pruning.fit(ann, train, valid, run_dir=folder["schedule"], on_log=log_as(None), **common)
    directly = log_as(f"T = {last}, direct")
    direct = baseline.fit(ann, train, valid, run_dir=folder["direct"], on_log=directly, **common)
    scores = compare_one_step(ann, result, direct, test, inputs, device=device)
    return OneStepRun(ann=ann, ann_history=history, result=result, direct=direct, scores=scores)
