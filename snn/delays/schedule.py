"""How the width of the bumps shrinks in training, and which parameters get which learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from neuroloaders.checks import check_int, check_number, invalid
from snn.delays.base import delay_layers
from snn.delays.taps import SHAPES

__all__ = ["SigmaSchedule", "delay_param_groups"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SigmaSchedule:
    """Shrink the width of all delay layers from epoch to epoch, geometrically, then hold it.

    Give it to `snn.fit` as ``before_epoch``. It depends on the epoch alone, so a run that was stopped goes on with
    the right width.

    Parameters
    ----------
    epochs : int
        Epochs until the width has reached `end`. The paper takes a quarter of all epochs.
    start : float, optional
        Width at first, in steps; by default half of each layer's ``max_delay``, as in the paper.
    end : float
        Width in the end, in steps: 0.5 in the paper, where rounding changes next to nothing.

    Notes
    -----
    What shrinks geometrically is the width above the least one of the kernel (0.27 for gauss), as in the code of
    Hammouamri et al. 2023, which multiplies SIG = sigma - 0.27. With ``D = 25`` and 37 epochs: 12.27 to 0.5.

    Examples
    --------
    >>> schedule = SigmaSchedule(epochs=37)
    >>> [round(schedule.width(epoch, max_delay=25, kernel="gauss"), 2) for epoch in (0, 1, 37, 100)]
    [12.27, 11.05, 0.5, 0.5]
    """

    epochs: int
    start: float | None = None
    end: float = 0.5

    def __post_init__(self) -> None:
        check_int("epochs", self.epochs, at_least=0)
        check_number("end", self.end, above=0)
        if self.start is not None:
            check_number("start", self.start, at_least=self.end)

    def width(self, epoch: int, *, max_delay: int, kernel: str) -> float:
        """Return the width in steps of a layer in an epoch, counted from 0."""
        least = SHAPES[kernel].least_sigma
        end = max(self.end, least)
        start = max_delay // 2 + least if self.start is None else self.start
        if epoch >= self.epochs or start <= end:
            return end
        if end == least:  # geometric decay never gets to zero
            return least + (start - least) * (1 - epoch / self.epochs)
        return least + (start - least) * ((end - least) / (start - least)) ** (epoch / self.epochs)

    @torch.no_grad()
    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Set the widths for `epoch`, counted from 0."""
        layers = list(delay_layers(model))
        if not layers:
            raise invalid("model", "hold a delay layer", f"a {type(model).__name__} without")
        for name, layer in layers:
            if layer.sigma.requires_grad:
                raise invalid(f"{name}.sigma", "not be learned where a schedule sets it", "requires_grad=True")
            layer.sigma.fill_(self.width(epoch, max_delay=layer.max_delay, kernel=layer.kernel))


def delay_param_groups(
    model: nn.Module,
    *,
    lr: float,
    delay_lr: float | None = None,
    weight_decay: float = 0.0,
    delay_schedule: str | None = None,
) -> list[dict[str, Any]]:
    """Return groups for an optimiser: delays and widths learn faster and without weight decay.

    Parameters
    ----------
    model : Module
        A network with delay layers.
    lr : float
        Learning rate of everything else.
    delay_lr : float, optional
        Of delays, in steps; by default 100 times `lr`, as in Hammouamri et al. 2023.
    weight_decay : float
        Of weights. Biases, batch normalisation, other parameters of one axis, and delays have none.
    delay_schedule : str, optional
        Schedule of the delays' rate, a key of `snn.training.optimizers.SCHEDULES`; for `snn.fit` only.

    Returns
    -------
    list of dict
        "weights", "others" and "delays", as PyTorch's optimisers take them; empty groups are left out. For
        `snn.fit`: ``param_groups=lambda model: delay_param_groups(model, ...)``.
    """
    check_number("lr", lr, above=0)
    delay_lr = 100 * lr if delay_lr is None else check_number("delay_lr", delay_lr, above=0)
    check_number("weight_decay", weight_decay, at_least=0)
    positions = [p for _, layer in delay_layers(model) for p in (layer.delay, layer.sigma)]
    rest = [p for p in model.parameters() if all(p is not position for position in positions)]
    groups: Iterable[dict[str, Any]] = (
        {"name": "weights", "params": [p for p in rest if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
        {"name": "others", "params": [p for p in rest if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
        {"name": "delays", "params": positions, "lr": delay_lr, "weight_decay": 0.0},
    )
    groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    if delay_schedule is not None:
        groups[2]["schedule"] = delay_schedule
    return [group for group in groups if group["params"]]
