"""What a training run is asked to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neuroloaders.checks import check_fraction, check_int, check_number, check_option, invalid
from snn.training.losses import find_loss
from snn.training.optimizers import OPTIMIZERS, SCHEDULES

__all__ = ["AMP", "TrainConfig"]

# Number format of the forward pass; weights stay as they are.
AMP: dict[str, torch.dtype | None] = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_SELECT = ("best", "last")
_SCHEDULE_EVERY = ("epoch", "step")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Settings of `snn.training.fit`; vary them with `dataclasses.replace`.

    Parameters
    ----------
    epochs : int
        Passes over the training data.
    lr : float
        Learning rate; the peak of every schedule.
    optimizer : {"adam", "adamw", "sgd"}
        ``"adam"`` adds the weight decay to the gradient (L2), ``"adamw"`` takes it from the weights.
    momentum : float
        For ``"sgd"``.
    betas : tuple of 2 floats
        For Adam.
    amsgrad : bool
        For Adam; IIR-SNN trains with it.
    weight_decay : float
        Of all parameters; give BN and delays their own through ``param_groups``.
    schedule : {"constant", "cosine", "steps", "onecycle"}
        Course of the learning rate.
    schedule_every : {"epoch", "step"}
        When it moves. The reference code of DCLS-Delays and IIR-SNN moves it once an epoch.
    milestones : tuple of float
        For ``"steps"``: fractions of the training after which the rate is multiplied by `factor`.
    factor : float
        For ``"steps"``.
    warmup : float
        Fraction of the training in which the rate rises from 0 in equal steps. Not with ``"onecycle"``.
    cycle_momentum : bool
        With ``"onecycle"``, momentum (Adam: the first beta) runs 0.95 -> 0.85 -> 0.95 and `momentum` and
        ``betas[0]`` are not used, as in PyTorch's default.
    loss : str or callable
        A key of `snn.training.losses.LOSSES`, or a function (output, target) -> mean over the samples, a 0-d tensor.
    label_smoothing : float
        For ``"cross_entropy"``; the validation loss has it, too.
    amp : {"off", "bf16", "fp16"}
        Number format of the forward pass. The loss is always computed in float32 or better.
    grad_clip : float, optional
        Largest norm of the whole gradient.
    patience : int, optional
        Stop once this many epochs have passed since the best one.
    monitor : str
        What "best" means on the validation data: ``"loss"`` (lowest) or a metric's name (highest). Of equal
        epochs the first counts.
    select : {"best", "last"}
        Which weights the model has at the end. Scores of the best epoch on the validation data flatter the
        model; report those of test data that selected nothing.
    checkpoint_every_n_steps : int, optional
        Also save inside epochs; at their ends always.
    seed : int
        Of everything random in the model, such as dropout. Initial weights and the order of the data have
        their own.

    Raises
    ------
    ValueError, TypeError
        Named after the argument.
    """

    epochs: int
    lr: float = 1e-3
    optimizer: str = "adam"
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    schedule_every: str = "epoch"
    # IIR-SNN (Chowdhury, Rathi & Roy 2021): a fifth of the rate after 60, 80 and 90 % of the epochs.
    milestones: tuple[float, ...] = (0.6, 0.8, 0.9)
    factor: float = 0.2
    warmup: float = 0.0
    cycle_momentum: bool = True
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy"
    label_smoothing: float = 0.0
    amp: str = "off"
    grad_clip: float | None = None
    patience: int | None = None
    monitor: str = "accuracy"
    select: str = "best"
    checkpoint_every_n_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("epochs", self.epochs, at_least=1)
        check_number("lr", self.lr, above=0)
        check_option("optimizer", self.optimizer, OPTIMIZERS)
        check_number("momentum", self.momentum, at_least=0, below=1)
        if len(self.betas) != 2:
            raise invalid("betas", "be two numbers", self.betas)
        for beta in self.betas:
            check_number("betas", beta, at_least=0, below=1)
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_option("schedule", self.schedule, SCHEDULES)
        check_option("schedule_every", self.schedule_every, _SCHEDULE_EVERY)
        for fraction in self.milestones:
            check_fraction("milestones", fraction, advice="They are fractions of the training, not epochs.")
        check_number("factor", self.factor, above=0)
        check_number("warmup", self.warmup, at_least=0, below=1, advice="It is a fraction of the training.")
        find_loss(self.loss)
        check_number("label_smoothing", self.label_smoothing, at_least=0, below=1)
        if self.label_smoothing and self.loss != "cross_entropy":
            advice = "Only loss='cross_entropy' has it."
            raise invalid("label_smoothing", f"be 0 with loss={self.loss!r}", f"{self.label_smoothing}", advice)
        check_option("amp", self.amp, AMP)
        if self.grad_clip is not None:
            check_number("grad_clip", self.grad_clip, above=0)
        if self.patience is not None:
            check_int("patience", self.patience, at_least=1)
        check_option("select", self.select, _SELECT)
        if self.checkpoint_every_n_steps is not None:
            check_int("checkpoint_every_n_steps", self.checkpoint_every_n_steps, at_least=1)
        check_int("seed", self.seed, at_least=0)
        # Lists, as JSON gives them back, become tuples: the configuration is to be hashable and comparable.
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "milestones", tuple(self.milestones))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them; a loss of your own appears by its module and name."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if callable(self.loss):
            kind = self.loss if hasattr(self.loss, "__qualname__") else type(self.loss)
            settings["loss"] = f"{kind.__module__}.{kind.__qualname__}"
        return settings
