"""Networks that answer in one time step: IIR-SNN, iterative initialisation and retraining.

A network trained at T steps starts the training at fewer steps with its weights, thresholds and leaks, until T = 1.
(IIR *filter* spiking networks are something else.)
"""

# T time, B batch

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn.conversion import calibrate_thresholds, to_spiking
from snn.folded import IIR_SURROGATE, Compare, FoldedLIF
from snn.models import FoldedNetwork, TimeSharedDropout
from snn.surrogate import Surrogate
from snn.training import History, TrainConfig, fit

__all__ = ["COMPAT", "OneStepResult", "Stage", "TemporalPruning", "clamp_leaks", "one_step_network"]

COMPAT = {
    None: "each stage keeps the epoch that is best on the validation data",
    "test-set-selection": "each stage keeps the epoch that is best on the test data, as the authors' code does; "
    "the accuracies it reports are then too high",
}

# A fifth of the learning rate after 60, 80 and 90 % of the epochs; 1e-4 and 300 epochs are the paper's for CIFAR.
_PAPER_STAGE = TrainConfig(epochs=300, lr=1e-4, optimizer="adam", amsgrad=True, schedule="steps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One step count of the schedule, trained.

    Attributes
    ----------
    n_steps : int
        T.
    model : FoldedNetwork
        The spiking network at T steps, in evaluation mode.
    history : History
        Its training.
    """

    n_steps: int
    model: FoldedNetwork
    history: History


@dataclass(frozen=True, kw_only=True, slots=True)
class OneStepResult:
    """What `TemporalPruning` returns.

    Attributes
    ----------
    stages : tuple of Stage
        In the order of the schedule.
    thresholds : dict
        Name of the neuron -> threshold, as calibrated before training.
    selected_on : str
        "validation", "test" or "last epoch": what the weights were chosen by.
    """

    stages: tuple[Stage, ...]
    thresholds: dict[str, float]
    selected_on: str

    @property
    def model(self) -> FoldedNetwork:
        """The spiking network of the last stage."""
        return self.stages[-1].model

    @property
    def one_step(self) -> FoldedNetwork:
        """The last stage as a plain network of convolutions and comparisons; the schedule must end at T = 1."""
        return one_step_network(self.model)

    def at(self, n_steps: int) -> FoldedNetwork:
        """Return the network that was trained at `n_steps`."""
        models = {stage.n_steps: stage.model for stage in self.stages}
        return models[check_option("n_steps", n_steps, models)]


@dataclass(frozen=True, kw_only=True)
class TemporalPruning:
    """Train a spiking network at many steps and take them away one after the other [1]_.

    Parameters
    ----------
    schedule : tuple of int
        Step counts, each smaller than the one before. ``(1,)`` trains at one step directly from the ANN: the
        baseline that shows what the schedule is worth.
    config : TrainConfig
        Training of each stage. The default is the paper's for CIFAR.
    stage_epochs : tuple of int, optional
        Epochs of each stage, if they are to differ from ``config.epochs``: the last stage costs least and needs most.
    percentile, threshold_scale : float
        Calibration of the thresholds before the first stage, see `calibrate_thresholds`.
    calibration_samples : int
        How many training images calibrate; the authors take 512.
    calibration_steps : int, optional
        Steps that calibration looks at; by default the first of `schedule`.
    leak : float
        Where the leaks start.
    surrogate : Surrogate
        Surrogate gradient.
    compat : str or None
        A key of `COMPAT`.
    backend : str
        "auto", or a key of `snn.kernels.BACKENDS`.

    Notes
    -----
    Per layer one threshold and one leak are learned with the weights; the leak is clamped to at most 1 after each step
    of the optimiser, thresholds are free. The loss is the cross-entropy of the readout summed over time. Each stage has
    a new optimiser.

    Deviations from the authors' code: the epoch is chosen on validation data and not on the test set (`compat` brings
    that back), and calibration looks at the steps of the first stage and not at 500.

    References
    ----------
    .. [1] Chowdhury, Rathi & Roy, "Towards Ultra Low Latency Spiking Neural Networks for Vision and Sequential Tasks
       Using Temporal Pruning", ECCV 2022, doi:10.1007/978-3-031-20083-0_42 (arXiv:2110.05929).
    """

    schedule: tuple[int, ...] = (5, 4, 3, 2, 1)
    config: TrainConfig = _PAPER_STAGE
    stage_epochs: tuple[int, ...] | None = None
    percentile: float = 90.0
    threshold_scale: float = 1.0
    calibration_samples: int = 512
    calibration_steps: int | None = None
    leak: float = 1.0
    surrogate: Surrogate = field(default=IIR_SURROGATE)
    compat: str | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        schedule = tuple(check_int("schedule", n_steps, at_least=1) for n_steps in self.schedule)
        if not schedule or any(later >= earlier for earlier, later in pairwise(schedule)):
            required = "be step counts, each smaller than the one before"
            raise invalid("schedule", required, repr(self.schedule), "Example: (5, 3, 1).")
        object.__setattr__(self, "schedule", schedule)
        if self.stage_epochs is not None:
            epochs = tuple(check_int("stage_epochs", n, at_least=1) for n in self.stage_epochs)
            if len(epochs) != len(schedule):
                advice = f"The schedule is {schedule}."
                raise invalid("stage_epochs", "have one number for each stage", repr(epochs), advice)
            object.__setattr__(self, "stage_epochs", epochs)
        check_number("percentile", self.percentile, at_least=0, at_most=100)
        check_number("threshold_scale", self.threshold_scale, above=0)
        check_int("calibration_samples", self.calibration_samples, at_least=1)
        check_option("compat", self.compat, COMPAT)

    @property
    def epochs_of_stages(self) -> tuple[int, ...]:
        """How many epochs each stage is trained."""
        return self.stage_epochs or (self.config.epochs,) * len(self.schedule)

    def fit(
        self,
        ann: FoldedNetwork,
        train: Any,
        valid: Any,
        *,
        test: Any = None,
        run_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        progress: bool = False,
        on_log: Callable[[dict[str, Any]], None] | None = None,
    ) -> OneStepResult:
        """Convert `ann` and train it down the schedule.

        Parameters
        ----------
        ann : FoldedNetwork
            The trained ANN; it is not changed.
        train, valid : loader
            As `snn.fit` takes them. `valid` selects the epoch of each stage; None keeps the last.
        test : loader, optional
            Only for ``compat="test-set-selection"``.
        run_dir : path-like, optional
            Folder; each stage has its own in it (``T5``, ``T4``, ...). The same call goes on where a run stopped.
        device, progress, on_log
            As in `snn.fit`; rows for `on_log` have ``n_steps`` too.

        Returns
        -------
        OneStepResult
        """
        selector, selected_on = self._selector(valid, test)
        model = to_spiking(ann, self.schedule[0], leak=self.leak, surrogate=self.surrogate, backend=self.backend)
        images = self._calibration_images(train).to(next(model.parameters()).device)
        thresholds = calibrate_thresholds(
            model, images, self.percentile, n_steps=self.calibration_steps, scale=self.threshold_scale
        )
        stages = []
        for k, n_steps in enumerate(self.schedule):
            model = copy.deepcopy(model)
            model.n_steps = n_steps
            config = replace(self.config, epochs=self.epochs_of_stages[k])
            if selector is None:
                config = replace(config, select="last", patience=None)
            history = fit(
                model,
                train,
                selector,
                config,
                run_dir=None if run_dir is None else Path(run_dir) / f"T{n_steps}",
                device=device,
                progress=progress,
                on_log=None if on_log is None else (lambda row, n=n_steps: on_log({"n_steps": n, **row})),
                after_step=clamp_leaks,
            )
            stages.append(Stage(n_steps=n_steps, model=model, history=history))
        return OneStepResult(stages=tuple(stages), thresholds=thresholds, selected_on=selected_on)

    def _selector(self, valid: Any, test: Any) -> tuple[Any, str]:
        """Return the loader that selects epochs, and what to call it."""
        if self.compat == "test-set-selection":
            if test is None:
                raise invalid("test", "be given with compat='test-set-selection'", "None", "Pass the test loader.")
            return test, "test"
        if test is not None:
            raise invalid("test", "be left out", test, "Only compat='test-set-selection' looks at the test set.")
        selects = valid is not None and self.config.select == "best"
        return valid, "validation" if selects else "last epoch"

    def _calibration_images(self, train: Any) -> Tensor:
        """Return the first training images of the first epoch, as the network will see them."""
        images, count = [], 0
        for batch in train.batches(0) if hasattr(train, "batches") else iter(train):
            images.append(batch[0])
            count += len(batch[0])
            if count >= self.calibration_samples:
                break
        if not images:
            raise invalid("train", "hold at least one batch", "an empty loader")
        return torch.cat(images)[: self.calibration_samples]


@torch.no_grad()
def clamp_leaks(model: nn.Module) -> None:
    """Clamp every leak to at most 1, in place: a membrane must not grow by itself."""
    for module in model.modules():
        if isinstance(module, FoldedLIF):
            module.leak.clamp_(max=1.0)


def one_step_network(model: FoldedNetwork) -> FoldedNetwork:
    """Return a spiking network of one step as a plain network: convolution, comparison, pooling, readout.

    Parameters
    ----------
    model : FoldedNetwork
        A spiking network with ``n_steps == 1``.

    Returns
    -------
    FoldedNetwork
        For inference: each neuron is a `Compare` with its threshold, dropout is gone, and no state is left.

    Raises
    ------
    ValueError
        If the network has more than one step, or no neurons.
    """
    neurons = [name for name, module in model.named_modules() if isinstance(module, FoldedLIF)]
    if not neurons:
        raise invalid("model", "have spiking layers", type(model).__name__, "Convert it with snn.to_spiking first.")
    if model.n_steps != 1:
        advice = "Train it down to T = 1 with snn.TemporalPruning, or set model.n_steps = 1."
        raise invalid("model", "have one time step", f"n_steps = {model.n_steps}", advice)
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    for name in neurons:
        neuron = plain.get_submodule(name)
        # In place: every current comes fresh out of a convolution, a linear layer or a residual sum.
        plain.set_submodule(name, Compare(neuron.v_threshold.item(), inplace=True).to(neuron.v_threshold))
    for name, module in list(plain.named_modules()):
        if isinstance(module, TimeSharedDropout):
            plain.set_submodule(name, nn.Identity())
    return plain
