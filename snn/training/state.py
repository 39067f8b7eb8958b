"""All that a killed run needs to go on as if nothing had happened, in one file.

One file and one rename: there is no moment at which weights of one step lie beside an optimiser of another.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_state_dict, invalid
from neuroloaders.runs import load_state, save_state, spawn_seeds

__all__ = ["FILE", "TrainState", "get_rng", "load", "restore", "save", "seed_epoch", "set_rng"]

# Its name in the run's folder.
FILE = "checkpoint.pt"


@dataclasses.dataclass
class TrainState:
    """Where a run stands, apart from what model, optimiser and scaler hold.

    Attributes
    ----------
    epoch, batch : int
        The next batch to train on, both from 0.
    step : int
        Batches trained on so far.
    seconds : float
        Wall time spent in this epoch so far.
    totals : Tensor, shape (2 + n_metrics,), float64
        `snn.training.evaluation.Sums` of this epoch, when it was saved.
    rows : list of dict
        The history.
    kept : dict of str to Tensor or None
        A copy of the best epoch's state dict.
    rngs : list of dict
        States of the random number generators of each rank.
    """

    totals: Tensor
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    kept: dict[str, Any] | None = None
    rngs: list[dict[str, Tensor]] = dataclasses.field(default_factory=list)


def save(
    path: Path, state: TrainState, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> None:
    """Write the whole run to `path`, in one transaction."""
    # Field by field, because dataclasses.asdict copies every tensor.
    own = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    parts = {"model": model, "optimizer": optimizer, "scaler": scaler}
    save_state(path, {"state": own, **{name: dict(part.state_dict()) for name, part in parts.items()}})


def load(path: Path) -> dict[str, Any] | None:
    """Read what `save` wrote, onto the CPU; None if there is no such file."""
    return load_state(path) if path.exists() else None


def restore(
    path: Path,
    saved: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    device: torch.device,
) -> TrainState:
    """Give model, optimiser and scaler what was `saved`, and return where the run stands.

    Raises
    ------
    ValueError
        If the checkpoint is of another architecture or dtype; the model is then unchanged.
    """
    have = {name: value for name, value in saved["model"].items() if isinstance(value, Tensor)}
    want = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    check_state_dict(path, have, want)
    for name, value in want.items():
        if have[name].dtype != value.dtype:
            # Loading would convert silently, and the run would not be the one that was stopped.
            raise invalid(f"model.{name}", f"have dtype {have[name].dtype} as in {str(path)!r}", f"{value.dtype}")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scaler.load_state_dict(saved["scaler"])
    state = TrainState(**saved["state"])
    state.totals = state.totals.to(device)
    if state.kept is not None:
        state.kept = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in state.kept.items()}
    return state


def seed_epoch(seed: int, epoch: int, rank: int, device: torch.device) -> None:
    """Seed PyTorch's global generators of the CPU and of `device`, for dropout and the like.

    Call it where their states are restored afterwards (`torch.random.fork_rng`). Ranks differ, so that their
    shares of a batch do not get the same dropout masks.
    """
    name = f"epoch {epoch} rank {rank}"
    number = spawn_seeds(seed, name)[name]
    # Not torch.manual_seed: it also seeds GPUs that belong to others.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(number)


def get_rng(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the generators that `seed_epoch` seeds."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng(states: dict[str, Tensor], device: torch.device) -> None:
    """Set the states that `get_rng` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
