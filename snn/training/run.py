"""What `snn.training.fit` does, step by step."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroloaders.checks import invalid
from neuroloaders.runs import RunFolder, save_checkpoint
from snn.training import state as train_state
from snn.training.batches import describe_loader, open_epoch, split_batch
from snn.training.config import TrainConfig
from snn.training.evaluation import Scorer, Sums, means, measure
from snn.training.history import History
from snn.training.losses import Loss
from snn.training.optimizers import build_optimizer, describe_groups, set_learning_rates
from snn.training.processes import Processes
from snn.training.state import TrainState

__all__ = ["TrainingRun"]

logger = logging.getLogger(__name__)

# So many losses are looked at together, because each look waits for the GPU.
_LOOK_EVERY = 50


class TrainingRun:
    """The parts of one call of `fit`, which calls its methods in the order in which they stand here.

    Parameters
    ----------
    model : Module
        Moved to the device of `processes`.
    loaders : dict of str to loader
        ``"train"``, and ``"valid"`` if there is one.
    config : TrainConfig
        What to do.
    processes : Processes
        One or several.
    metrics : dict of str to callable
        As `snn.training.losses.find_metrics` returns them.
    run_dir, after_step, param_groups
        As for `fit`.
    """

    def __init__(
        self,
        model: nn.Module,
        loaders: dict[str, Any],
        config: TrainConfig,
        processes: Processes,
        metrics: dict[str, Loss],
        run_dir: str | os.PathLike[str] | None,
        after_step: Callable[[nn.Module], None] | None,
        param_groups: Callable[[nn.Module], Iterable[Mapping]] | None,
    ) -> None:
        self.device = processes.device
        self.score = Scorer(
            model, self.device, config.amp, config.loss, metrics, label_smoothing=config.label_smoothing
        )
        self.model, self.loaders, self.config, self.processes = model.to(self.device), loaders, config, processes
        self.n_positions = _count_positions(loaders["train"], config)
        self.optimizer = build_optimizer(model, config, param_groups)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")
        self.trainable = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.after_step = after_step
        self.layers_talk = False
        self.checkpoint = None if run_dir is None else Path(run_dir) / train_state.FILE
        self.folder: RunFolder | None = None  # on rank 0 only
        self.sums = Sums(len(metrics), self.device)
        self.state = TrainState(totals=self.sums.values)
        self.history = History(self.state.rows, config.monitor)
        self.saved_at: tuple[int, int] | None = None
        # Described now, because schedules change the groups.
        self.description = {
            "train": config.as_dict(),
            "groups": describe_groups(self.optimizer),
            "data": {name: describe_loader(loader) for name, loader in loaders.items()},
            "metrics": list(metrics),
        }

    def start_or_go_on(self, before_epoch: Callable[[nn.Module, int], None] | None) -> None:
        """Take up the run in the folder, or begin one there."""
        saved = None
        if self.folder is not None:
            self.folder.claim(self.description)
            saved = train_state.load(self.checkpoint)
        saved = self.processes.share(saved)
        if saved is None:
            self.processes.copy_from_first([*self.model.parameters(), *self.model.buffers()])
            # Before the first step, so that the same call always starts from the same weights, in a notebook too.
            self.save()
            return
        if saved["state"]["batch"] and before_epoch is not None:
            before_epoch(self.model, saved["state"]["epoch"])
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        self.state = train_state.restore(self.checkpoint, saved, **parts, device=self.device)
        self.history.rows = self.state.rows
        self.saved_at = (self.state.epoch, self.state.batch)
        if self.processes.rank == 0:
            self.sums.values += self.state.totals  # those of all ranks
        self.note(f"going on at epoch {self.state.epoch}, batch {self.state.batch}")

    def save(self) -> None:
        """Write the checkpoint, if there is a folder for it; every process must call it."""
        if self.checkpoint is None:
            return
        # A step can spoil the weights after a loss that was still finite.
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise self.diverged(f"`{name}` holds NaN or infinite values")
        rngs = self.processes.collect(train_state.get_rng(self.device))
        state = TrainState(**{**vars(self.state), "totals": self.processes.sum(self.sums.values), "rngs": rngs})
        if self.folder is not None:
            parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
            train_state.save(self.checkpoint, state, **parts)
        self.saved_at = (state.epoch, state.batch)

    def is_complete(self) -> bool:
        """Return whether all epochs are done, or too many have passed without a better one."""
        n_epochs, patience = len(self.history), self.config.patience
        stalled = patience is not None and n_epochs and n_epochs - 1 - self.history.best_epoch >= patience
        return n_epochs == self.config.epochs or bool(stalled)

    def open_train(self, before_epoch: Callable[[nn.Module, int], None] | None, progress: bool) -> Iterable[Any]:
        """Return the rest of this epoch's batches, with the random number generators as they belong to them."""
        state, train = self.state, self.loaders["train"]
        train_state.seed_epoch(self.config.seed, state.epoch, self.processes.rank, self.device)
        if state.batch == 0 and before_epoch is not None:
            before_epoch(self.model, state.epoch)
        self.model.train()
        batches = open_epoch(train, state.epoch, state.batch)
        # After the skipped batches were made, which may have drawn numbers as well.
        if state.batch and self.processes.rank < len(state.rngs):
            train_state.set_rng(state.rngs[self.processes.rank], self.device)
        if not progress or self.processes.rank > 0:
            return batches
        from tqdm.auto import tqdm

        length = len(train) if hasattr(train, "__len__") else None
        return tqdm(batches, desc=f"epoch {state.epoch}", total=length, initial=state.batch, leave=False)

    def step(self, batch: Any) -> None:
        """Train on one batch."""
        state, config = self.state, self.config
        inputs, target = split_batch("train", batch, self.device)
        position = state.step if config.schedule_every == "step" else state.epoch
        set_learning_rates(self.optimizer, position, self.n_positions, config)
        self.optimizer.zero_grad()
        weight = self.processes.weight(len(target))
        # A share of an uneven last batch may be empty.
        if len(target) or self.layers_talk:
            loss, parts = self.score(inputs, target, name="train", is_first=state.step == 0)
            self.scaler.scale(loss if weight is None else loss * weight.to(loss.dtype)).backward()
        else:
            parts = self.score.nothing()
        self.sums.note(len(target), parts)
        self.processes.sum_gradients(self.trainable)
        if config.grad_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trainable, config.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.after_step is not None:
            self.after_step(self.model)
        state.batch, state.step = state.batch + 1, state.step + 1

    def look(self, save_every: int | None = None, *, now: bool = False) -> None:
        """Stop if a recent loss was NaN or infinite; save if it is time to."""
        due = save_every is not None and self.state.step % save_every == 0
        noted = len(self.sums.noted)
        if noted and (now or due or noted >= _LOOK_EVERY):
            # The losses of all processes, so that all of them stop together.
            losses = self.processes.sum(self.sums.flush()).tolist()
            bad = [index for index, loss in enumerate(losses) if not math.isfinite(loss)]
            if bad:
                step = self.state.step - len(losses) + bad[0]
                raise self.diverged(f"The loss became {losses[bad[0]]} in epoch {self.state.epoch}, step {step}")
        if due:
            self.save()

    def scores(self) -> dict[str, float]:
        """Return the epoch's training scores, and those on the validation data."""
        self.look(now=True)
        train = self.loaders["train"]
        if hasattr(train, "__len__") and len(train) != self.state.batch:
            raise invalid("train", f"yield len(train) = {len(train)} batches an epoch", f"{self.state.batch}")
        self.processes.copy_from_first(self.model.buffers())
        totals = {"train": self.processes.sum(self.sums.values)}
        if "valid" in self.loaders:
            totals["valid"] = measure(self.score, "valid", self.loaders["valid"], self.processes)
        row = {}
        for name, sums in totals.items():
            found = means(name, sums, self.score.metrics)
            row |= {f"{name}_{key}": value for key, value in found.items()}
        for key, value in row.items():
            if not math.isfinite(value):
                raise self.diverged(f"{key} became {value} in epoch {self.state.epoch}")
        return row

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Enter the row, keep the weights if they are the best, and save."""
        state = self.state
        state.rows.append(row)
        if self.config.select == "best" and self.history.best_epoch == state.epoch:
            state.kept = copy.deepcopy(dict(self.model.state_dict()))
        state.epoch, state.batch, state.seconds = state.epoch + 1, 0, 0.0
        self.sums.values.zero_()
        self.save()
        if self.folder is not None:
            self.folder.write_metrics(state.rows)

    def finish(self) -> None:
        """Give the model the weights it is to have, and write them."""
        kept, history = self.state.kept, self.history
        if kept is not None:
            self.model.load_state_dict(kept)
        history.kept_epoch = len(history) - 1 if kept is None else history.best_epoch
        self.model.eval()
        if self.folder is not None:
            # Once more: the run may have been killed between its last checkpoint and these.
            self.folder.write_metrics(history.rows)
            meta = {"kept": history.rows[history.kept_epoch], "n_epochs": len(history)}
            path = self.folder.path / "model.safetensors"
            save_checkpoint(path, self.model, config=self.description, meta=meta)
        self.note(f"complete: {history}")

    def note(self, text: str) -> None:
        """Log a line, in the folder as well."""
        logger.info(text)
        if self.folder is not None:
            self.folder.log(text)

    def diverged(self, what: str) -> FloatingPointError:
        """Say where training broke down, what is left, and what to try."""
        good = "No checkpoint was saved."
        if self.saved_at is not None:
            good = f"The last good checkpoint is {str(self.checkpoint)!r}"
            good += f" (epoch {self.saved_at[0]}, batch {self.saved_at[1]})."
        tries = [f"a smaller lr (now {self.config.lr:g})", "grad_clip=1.0"]
        tries += ["amp='bf16' or 'off'"] if self.config.amp == "fp16" else []
        return FloatingPointError(f"{what}. {good} Try {', '.join(tries)}, or inputs on a smaller scale.")


def _count_positions(train: Any, config: TrainConfig) -> int:
    """Return how many positions the schedules have."""
    if config.schedule_every == "epoch":
        return config.epochs
    if not hasattr(train, "__len__"):
        advice = "Pass a loader with a length, or schedule_every='epoch'."
        raise invalid("train", "have a len() with schedule_every='step'", train, advice, kind=TypeError)
    return config.epochs * len(train)
