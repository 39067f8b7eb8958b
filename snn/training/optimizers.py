"""Optimisers and learning rate schedules by name.

A schedule is a pure function of the position in training, so resuming needs no state of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from neuroloaders.checks import check_number, check_option, invalid

if TYPE_CHECKING:
    from snn.training.config import TrainConfig

__all__ = ["OPTIMIZERS", "SCHEDULES", "build_optimizer", "describe_groups", "set_learning_rates"]

Groups = list[dict[str, Any]]

# Defaults of PyTorch's OneCycleLR (after Smith & Topin 2017): where the peak lies; the first is peak / 25,
# the last is the first / 1e4, and the momentum goes the other way between these bounds.
_PEAK_AT, _FIRST, _LAST = 0.3, 25.0, 1e4
_LOW_MOMENTUM, _HIGH_MOMENTUM = 0.85, 0.95
# What of a group a run's config.json records: what a user sets, not what a release of PyTorch adds.
_RECORDED = ("name", "initial_lr", "schedule", "weight_decay", "momentum", "betas", "amsgrad")


def _adam(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    settings = {"betas": config.betas, "amsgrad": config.amsgrad, "weight_decay": config.weight_decay}
    return torch.optim.Adam(groups, lr=config.lr, **settings)


def _adamw(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    settings = {"betas": config.betas, "amsgrad": config.amsgrad, "weight_decay": config.weight_decay}
    return torch.optim.AdamW(groups, lr=config.lr, **settings)


def _sgd(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


# "adam" adds the weight decay to the gradient (L2), "adamw" takes it from the weights directly.
OPTIMIZERS: dict[str, Callable[[Groups, TrainConfig], torch.optim.Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
}


def constant(position: int, start: int, total: int, config: TrainConfig) -> float:
    """Return 1."""
    return 1.0


def cosine(position: int, start: int, total: int, config: TrainConfig) -> float:
    """Half a cosine from 1 towards 0, which it would reach at `total`."""
    return (1 + math.cos(math.pi * (position - start) / (total - start))) / 2


def steps(position: int, start: int, total: int, config: TrainConfig) -> float:
    """One `factor` for each milestone that is reached; milestones are fractions of the whole training."""
    # round, because 0.7 * 10 is 7.000000000000001
    return config.factor ** sum(position >= round(fraction * total) for fraction in config.milestones)


def onecycle(position: int, start: int, total: int, config: TrainConfig) -> float:
    """Up to 1 in the first 30 %, then down to nearly 0, both along half a cosine."""
    rising, part = _onecycle_phase(position, total)
    first, last = 1 / _FIRST, 1 / _FIRST / _LAST
    return _between(first, 1.0, part) if rising else _between(1.0, last, part)


# Each maps (position, end of the warm-up, total, config) to a factor of the learning rate.
SCHEDULES: dict[str, Callable[[int, int, int, TrainConfig], float]] = {
    "constant": constant,
    "cosine": cosine,
    "steps": steps,
    "onecycle": onecycle,
}


def build_optimizer(
    model: nn.Module,
    config: TrainConfig,
    param_groups: Callable[[nn.Module], Iterable[Mapping]] | None = None,
) -> torch.optim.Optimizer:
    """Build the optimiser that `config` names.

    Parameters
    ----------
    model : Module
        Its parameters with ``requires_grad`` are trained.
    config : TrainConfig
        The optimiser and its settings.
    param_groups : callable, optional
        Maps `model` to groups as PyTorch's optimisers take them: ``{"params": [...], "lr": ...,
        "weight_decay": ...}``. A group may also name its own ``"schedule"``. What a group leaves out comes
        from `config`.

    Raises
    ------
    ValueError
        If a trainable parameter is in no group or in two, if a group holds a setting that the optimiser does
        not know, or if nothing is trainable.
    """
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not names:
        raise invalid("model", "have parameters with requires_grad=True", "none", "There is nothing to train.")
    groups = [{"params": list(names)}] if param_groups is None else _complete(param_groups(model), names)
    optimizer = OPTIMIZERS[config.optimizer](groups, config)
    known = {*optimizer.defaults, "params", "name", "schedule"}
    for index, group in enumerate(optimizer.param_groups):
        for key in group:
            check_option(f"a key of param_groups[{index}]", key, sorted(known))
        group["schedule"] = check_option(
            f"param_groups[{index}]['schedule']", group.get("schedule", config.schedule), SCHEDULES
        )
        group["initial_lr"] = check_number(f"param_groups[{index}]['lr']", group["lr"], above=0)
        if group["schedule"] == "onecycle" and config.warmup:
            raise invalid("warmup", "be 0 with the schedule 'onecycle'", f"{config.warmup}", "It rises by itself.")
    return optimizer


def describe_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return what a run's ``config.json`` records of each group: sizes and settings, no tensors."""
    described = []
    for group in optimizer.param_groups:
        settings = {key: group[key] for key in _RECORDED if key in group}
        sizes = {"n_tensors": len(group["params"]), "n_values": sum(p.numel() for p in group["params"])}
        described.append({**sizes, **settings})
    return described


def set_learning_rates(optimizer: torch.optim.Optimizer, position: int, total: int, config: TrainConfig) -> None:
    """Set each group's rate, and its momentum where the schedule moves it, for a position in 0..total-1.

    Positions are epochs or steps, as ``config.schedule_every`` says.
    """
    start = round(config.warmup * total)
    for group in optimizer.param_groups:
        if position < start:
            factor = (position + 1) / (start + 1)
        else:
            factor = SCHEDULES[group["schedule"]](position, start, total, config)
        group["lr"] = group["initial_lr"] * factor
        if group["schedule"] == "onecycle" and config.cycle_momentum:
            rising, part = _onecycle_phase(position, total)
            bounds = (_HIGH_MOMENTUM, _LOW_MOMENTUM) if rising else (_LOW_MOMENTUM, _HIGH_MOMENTUM)
            momentum = _between(*bounds, part)
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


def _onecycle_phase(position: int, total: int) -> tuple[bool, float]:
    """Return whether the rate is rising, and how much of that phase is over, in [0, 1]."""
    if total < 4:
        advice = "Train longer, choose another schedule, or schedule_every='step'."
        raise invalid("schedule", "have at least 4 positions for 'onecycle'", f"{total}", advice)
    # PyTorch counts the peak at _PEAK_AT * total - 1, which need not be whole.
    peak, end = _PEAK_AT * total - 1, total - 1
    return (True, position / peak) if position <= peak else (False, (position - peak) / (end - peak))


def _between(first: float, last: float, part: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * part))


def _complete(groups: Iterable[Mapping], names: dict[nn.Parameter, str]) -> Groups:
    """Copy the groups, and refuse those that leave out or repeat a trainable parameter."""
    copies = [{**group, "params": list(group["params"])} for group in groups]
    grouped = [id(parameter) for group in copies for parameter in group["params"]]
    left_out = [name for parameter, name in names.items() if id(parameter) not in grouped]
    if left_out:
        advice = "Add them to a group, or set requires_grad=False."
        raise invalid("param_groups", "hold every trainable parameter", f"none for {', '.join(left_out[:5])}", advice)
    if len(set(grouped)) < len(grouped):
        raise invalid("param_groups", "hold every parameter once", "one that appears twice")
    return copies
