"""From windows to batches that `snn.training.fit` trains on."""

# N windows

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.meeg.speech_config import SpeechConfig
from neurodecode.meeg.speech_objective import SpeechNetwork, SpeechObjective
from neuroloaders.runs import spawn_seeds
from neuroloaders.window_loader import WindowLoader
from snn.training import History, TrainConfig
from snn.training import fit as train_network

__all__ = ["SpeechBatches", "train_speech"]


class SpeechBatches:
    """Batches of (windows, subjects, recordings, numbers of segments), for `snn.training.fit`.

    Parameters
    ----------
    loader : WindowLoader
        Windows.
    numbers : ndarray of int64, shape (N,)
        The segment of each event that the loader was given.
    n_lag : int
        Samples that are cut off the begin of each window.
    subjects : sequence of int
        The network's number of each subject of the loader.
    max_batches : int, optional
        Batches of an epoch, at most. The loader shuffles, so that each epoch has others.
    """

    def __init__(
        self, loader: WindowLoader, numbers: np.ndarray, n_lag: int, subjects: Any, max_batches: int | None = None
    ) -> None:
        self.loader, self.n_lag = loader, n_lag
        self.rank, self.world_size = loader.rank, loader.world_size
        self.n_samples, self.batch_size = loader.n_samples, loader.batch_size
        self._numbers = torch.from_numpy(numbers).to(loader.device)
        self._subjects = torch.tensor(subjects, dtype=torch.int64, device=loader.device)
        self._length = len(loader) if max_batches is None else min(len(loader), max_batches)

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Yield the batches of an epoch from number `start` on."""
        batches = self.loader.batches(epoch, start=start)
        try:
            for _, windows in zip(range(start, self._length), batches, strict=False):
                subjects = self._subjects[windows.subject]
                yield windows.x[..., self.n_lag :], subjects, windows.recording, self._numbers[windows.event]
        finally:
            batches.close()


def train_speech(
    network: SpeechNetwork,
    batches: dict[str, SpeechBatches],
    objective: SpeechObjective,
    config: SpeechConfig,
    *,
    device: torch.device,
    run_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> History:
    """Train with the optimiser and the stopping rule of `config`, and leave the network at its best epoch.

    Parameters
    ----------
    network : SpeechNetwork
        What learns: its parameters with ``requires_grad``.
    batches : dict of str to SpeechBatches
        "train" and "valid".
    objective : SpeechObjective
        Loss and metrics.
    config : SpeechConfig
        Settings.
    device, run_dir, progress, on_log
        As for `snn.training.fit`.

    Returns
    -------
    History
    """
    settings = TrainConfig(
        epochs=config.epochs, lr=config.lr, betas=config.betas, loss=objective, amp=config.amp,
        patience=config.patience, monitor=config.monitor, seed=spawn_seeds(config.seed, "dropout")["dropout"],
    )  # fmt: skip
    return train_network(
        network, batches["train"], batches["valid"], settings,
        run_dir=run_dir, device=device, progress=progress, on_log=on_log, metrics=objective.metrics,
    )  # fmt: skip
