"""The training of stacked networks: each model keeps the weights of its own best epoch, as if it were alone."""

# M models, E epochs, B batch, C channels, T samples of the span

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neurodecode.meeg.stacked_module import StackedBrainModule
from neurodecode.meeg.time_config import TimeConfig
from neurodecode.meeg.time_windows import TimeWindows, cut_windows
from neuroloaders.runs import generator, spawn_seeds
from neuroloaders.window_loader import WindowLoader

__all__ = ["Batch", "SpanBatches", "TimeHistory", "groups_of_windows", "train_stacked"]

_PADDING = 1.25  # samples of a padded group over those inside of its windows, at most


class Batch(NamedTuple):
    """Spans that windows are cut from, and what belongs to them."""

    x: Tensor
    subjects: Tensor
    recordings: Tensor
    candidates: Tensor | None
    numbers: Tensor
    event: Tensor


class SpanBatches:
    """Batches of whole spans for stacked networks.

    Parameters
    ----------
    loader : WindowLoader
        Of spans, with labels, and with targets where features are decoded.
    subjects : sequence of int
        The network's number of each subject of the loader.
    center, scale : ndarray, shape (F,), optional
        What is subtracted from features, and what they are divided by.
    """

    def __init__(self, loader: WindowLoader, subjects: Any, center: Any = None, scale: Any = None) -> None:
        self.loader = loader
        self._scale = None
        if center is not None:
            self._scale = [torch.as_tensor(values, device=loader.device) for values in (center, scale)]
        self._subjects = torch.tensor(subjects, dtype=torch.int64, device=loader.device)
        # Recordings with the same layout are one row: where there is one only, attention is a single product.
        self.positions, self._layout = torch.unique(loader.positions, dim=0, return_inverse=True)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        for windows in self.loader.batches(epoch):
            candidates = None if windows.target is None else windows.target.flatten(1).float()
            if candidates is not None and self._scale is not None:
                candidates = (candidates - self._scale[0]) / self._scale[1]
            numbers = windows.event if windows.label is None else windows.label
            yield Batch(
                windows.x, self._subjects[windows.subject], self._layout[windows.recording], candidates, numbers,
                windows.event,
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TimeHistory:
    """What happened in training.

    Parameters
    ----------
    train_loss, valid : ndarray of float64, shape (E, M)
        Mean loss of training batches; the monitored measure of validation presentations. NaN after the epoch at which
        a window had its network.
    best_epoch : ndarray of int64, shape (M,)
        Whose weights were kept.
    """

    train_loss: np.ndarray
    valid: np.ndarray
    best_epoch: np.ndarray


def groups_of_windows(windows: TimeWindows, at_once: int | None = None) -> list[slice]:
    """Return which windows are trained together: neighbours, of about the same length.

    Parameters
    ----------
    windows : TimeWindows
        M windows.
    at_once : int, optional
        At most.

    Returns
    -------
    list of slice
        Of one after the other, all windows in all.
    """
    groups, first = [], 0
    for last in range(1, len(windows) + 1):
        lengths = windows.n_times[first : last + 1]
        padded = max(lengths) * len(lengths) > _PADDING * sum(lengths)
        if last == len(windows) or padded or last - first == at_once:
            groups.append(slice(first, last))
            first = last
    return groups


def train_stacked(
    network: StackedBrainModule,
    objective: nn.Module,
    places: Tensor,
    train: SpanBatches,
    valid: SpanBatches,
    candidates: Tensor | None,
    config: TimeConfig,
    *,
    progress: bool = False,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> TimeHistory:
    """Train, and leave each model with the weights of its own best epoch.

    Parameters
    ----------
    network : StackedBrainModule
        M models, on the device of the batches.
    objective : Module
        A `RetrievalObjective` or `ClassObjective`.
    places : Tensor of int64, shape (M,)
        Where the windows begin in a span.
    train, valid : SpanBatches
        What is learned from, and what epochs are chosen on.
    candidates : Tensor, shape (S, F), optional
        Features of all validation stimuli, in the order of their numbers.
    config : TimeConfig
        Settings.
    progress : bool
        Show a bar.
    on_log : callable, optional
        Gets each epoch's numbers.

    Returns
    -------
    TimeHistory

    Raises
    ------
    FloatingPointError
        If the loss of a model that still learns is no number.
    """
    from tqdm.auto import tqdm

    n_models, device = network.n_models, places.device
    seeds = spawn_seeds(config.seed, "noise", "dropout")
    noise, dropout = (generator(seeds[name], device) for name in ("noise", "dropout"))
    learned = [*network.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=config.lr, weight_decay=config.weight_decay)
    stored = [tensor for part in (network, objective) for tensor in _of_models(part)]
    best = [tensor.detach().clone() for tensor in stored]
    lowest = np.full(n_models, np.inf)
    best_epoch = np.full(n_models, -1)
    rows: dict[str, list[np.ndarray]] = {"train_loss": [], "valid": []}
    for epoch in tqdm(range(config.epochs), desc=f"{n_models} windows", disable=not progress):
        network.train()
        objective.train()
        total, count = torch.zeros(n_models, dtype=torch.float64, device=device), 0
        for batch in train.batches(epoch):
            x = batch.x
            if config.noise:
                x = x + config.noise * torch.randn(x.shape, generator=noise, device=device, dtype=x.dtype)
            cut = cut_windows(x, places, max(network.n_times))
            out = network(cut, batch.subjects, train.positions, batch.recordings, generator=dropout)
            loss = objective(out, batch.candidates, batch.numbers)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
            total += loss.detach().double() * len(x)
            count += len(x)
        value = validate_stacked(network, objective, places, valid, candidates)[config.monitor].cpu().numpy()
        learning = np.ones(n_models, dtype=bool)
        if config.patience is not None and epoch:
            learning = epoch - 1 - best_epoch < config.patience
        bad = learning & ~np.isfinite(value)
        if bad.any():
            raise FloatingPointError(
                f"The validation {config.monitor} of window {int(bad.argmax())} is {value[bad][0]} after epoch {epoch}."
                " Lower `lr`, or clamp the windows."
            )
        better = learning & (value < lowest)
        lowest[better], best_epoch[better] = value[better], epoch
        which = torch.from_numpy(np.flatnonzero(better)).to(device)
        with torch.no_grad():
            for kept, now in zip(best, stored, strict=True):
                kept[which] = now[which]
        rows["train_loss"].append(np.where(learning, (total / count).cpu().numpy(), np.nan))
        rows["valid"].append(np.where(learning, value, np.nan))
        if on_log is not None:
            on_log({"epoch": epoch, **{name: found[-1].tolist() for name, found in rows.items()}})
        if config.patience is not None and (epoch - best_epoch >= config.patience).all():
            break
    with torch.no_grad():
        for kept, now in zip(best, stored, strict=True):
            now.copy_(kept)
    network.eval()
    return TimeHistory(np.array(rows["train_loss"]), np.array(rows["valid"]), best_epoch)


@torch.no_grad()
def validate_stacked(
    network: StackedBrainModule, objective: nn.Module, places: Tensor, valid: SpanBatches, candidates: Tensor | None
) -> dict[str, Tensor]:
    """Return the measures of each model on all validation presentations, shape (M,) each."""
    network.eval()
    objective.eval()
    found: dict[str, list[Tensor]] = {name: [] for name in objective.heads}
    numbers = []
    for batch in valid.batches(0):
        cut = cut_windows(batch.x, places, max(network.n_times))
        out = network(cut, batch.subjects, valid.positions, batch.recordings)
        for name in found:
            found[name].append(out[name])
        numbers.append(batch.numbers)
    return objective.validate(
        {name: torch.cat(parts, 1) for name, parts in found.items()}, candidates, torch.cat(numbers)
    )


def _of_models(part: nn.Module) -> list[Tensor]:
    """Return all that is learned or counted, each with M as first axis."""
    buffers = [tensor for name, tensor in part.named_buffers() if not name.startswith("_")]
    return [*part.parameters(), *buffers]
