"""Dynamic Confidence: fit when a network may stop, and stop it there."""

# T time steps, J checks, B batch, N samples, K classes

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from neuroloaders.checks import check_fraction, check_int, check_option, invalid
from snn.early_exit import running, storage
from snn.early_exit.calibration import Reliability, reliability
from snn.early_exit.evaluation import Evaluation, evaluate_exits
from snn.early_exit.fitting import Fitted, find_rule, fingerprint
from snn.early_exit.network import SAMPLE_AXIS, Adapted, Network, check_labels, stepper_of
from snn.early_exit.pareto import Oracle, ParetoPoint, oracle, sweep
from snn.early_exit.readout import Check, ExitRule, trajectory
from snn.early_exit.recalibration import RECALIBRATORS
from snn.early_exit.running import COMPACT_BELOW, Exit
from snn.early_exit.temperature import CALIBRATORS

if TYPE_CHECKING:
    from snn.stepping.protocol import Stepper

__all__ = ["DynamicConfidence"]


class DynamicConfidence:
    r"""Let a spiking network stop, sample by sample, as soon as it is sure [1]_.

    Parameters
    ----------
    model : Module, Stepper or None
        A network that `snn.stepping.as_stepper` knows, in evaluation mode; a stepper, such as ``as_stepper`` makes
        where it needs more options; or None: wherever `x` is asked for, logits of each step are then passed, shape
        (T, B, K).
    n_steps : int
        T: the longest run. One number for all samples; sequences of different lengths are padded to the longest.
    alpha : float, optional
        Temperature, in units of the logits. By default `fit` finds it.
    threshold : float, optional
        In [0, 1]. By default `fit` chooses it.
    criterion : str
        A key of `CRITERIA`: ``"confidence"`` (the paper's), the largest probability; ``"entropy"``, 1 - H / log K;
        ``"margin"``, the two largest probabilities' difference; ``"patience"``, the share of the T steps for which the
        label has been the same up to now. All lie in (0, 1].
    accumulate : str
        A key of `ACCUMULATE`: how logits add up over time. ``"sum"`` (the paper's), ``"mean"``, ``"max"``, ``"last"``.
    check_every : int
        Steps between two looks, which are run in one call; the last look is at T.
    batch_size : int
        Samples that start together.
    compact_below : float
        Once this fraction or less of a batch is still running, the rest is taken out of it: 1 at each exit, 0 never.
    look_ahead : int
        Checks that a batch of one sample is run to in one call. Small networks answer sooner with 4, say.
    calibrator : str
        A key of `CALIBRATORS`: how `fit` finds alpha.
    recalibrate : str
        A key of `RECALIBRATORS`: how `fit` finds what the reported confidence is, beyond alpha: ``"isotonic"``, or
        ``"none"``, the largest probability itself. It changes neither answers nor steps.
    inputs : {"static", "sequence"}, optional
        Whether `x` is shown at each step, shape (B, ...), or is a sequence, shape (T, B, ...). By default what the
        model or the stepper says, else ``"static"``.
    device : str or torch.device, optional
        Batches are moved there. By default where a module's parameters are, or what the stepper says (``device``).

    Notes
    -----
    At step t the evidence is the sum of the logits so far, O_t. The network stops at the first checked t with

    .. math:: \max_k \operatorname{softmax}(O_t / \alpha)_k > \theta,

    or at T, and answers argmax O_t. One alpha serves all t: evidence grows with t, and confidence with it (the paper's
    confidence smoothing). The paper sets alpha by reliability diagrams and the threshold by the Pareto front of mean
    steps and accuracy; here alpha minimises a loss (`fit_alpha`) and the front holds all thresholds that matter
    (`sweep`), of which the cheapest that loses at most `max_drop` is taken.
    One alpha cannot be right at both ends, so the reported confidence is how often answers with such a max softmax were
    right on the validation data; this is ours. The other criteria stop by the entropy of the evidence as [2]_ does,
    and by labels that stay the same as [3]_ does between layers, here as a share of T.

    `fit` needs validation data: neither training data, on which a network is too sure, nor the test data, which are
    to be reported. The decision is made in float64 on the CPU. A silent network (no spikes, all logits 0) answers class
    0 with confidence 1 / K.

    References
    ----------
    .. [1] Li, Jones & Furber, "Unleashing the Potential of Spiking Neural Networks with Dynamic Confidence",
       ICCV 2023 (arXiv:2303.10276).
    .. [2] Li, Moitra, Geller & Panda, "Input-Aware Dynamic Timestep Spiking Neural Networks for Efficient In-Memory
       Computing", 2023 (arXiv:2305.17346).
    .. [3] Zhou et al., "BERT Loses Patience: Fast and Robust Inference with Early Exit", NeurIPS 2020
       (arXiv:2006.04152).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> y = torch.randint(10, (400,), generator=generator)
    >>> logits = torch.randn(8, 400, 10, generator=generator) + 1.5 * nn.functional.one_hot(y, 10)
    >>> decide = DynamicConfidence(None, 8).fit(logits[:, :200], y[:200], max_drop=0.01)
    >>> decide.predict(logits[:, 200:])
    Exit of 200 samples: 4.03 of 8 steps on average, 189 left early, mean confidence 0.9761, 6 compactions
    """

    def __init__(
        self,
        model: nn.Module | Stepper | None,
        n_steps: int,
        alpha: float | None = None,
        threshold: float | None = None,
        *,
        criterion: str = "confidence",
        accumulate: str = "sum",
        check_every: int = 1,
        batch_size: int = 256,
        compact_below: float = COMPACT_BELOW,
        look_ahead: int = 1,
        calibrator: str = "nll",
        recalibrate: str = "isotonic",
        inputs: str | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.model, self.device = model, device
        self.inputs = None if inputs is None else check_option("inputs", inputs, SAMPLE_AXIS)
        self.batch_size = check_int("batch_size", batch_size, at_least=1)
        self.compact_below = running.check_compact_below(compact_below)
        self.look_ahead = check_int("look_ahead", look_ahead, at_least=1)
        self.calibrator = check_option("calibrator", calibrator, CALIBRATORS)
        self.recalibrate = check_option("recalibrate", recalibrate, RECALIBRATORS)
        # Checks what was given. Of what was not, any value does until `fit` has found it.
        self._draft = ExitRule(
            n_steps=n_steps,
            alpha=1.0 if alpha is None else alpha,
            threshold=1.0 if threshold is None else threshold,
            criterion=criterion,
            accumulate=accumulate,
            check_every=check_every,
        )
        self.alpha = None if alpha is None else self._draft.alpha
        self.threshold = None if threshold is None else self._draft.threshold
        self.fitted_: Fitted | None = None
        self._adapted: tuple[Any, Adapted] | None = None

    @property
    def alpha_(self) -> float:
        """The temperature in use."""
        return self._found("alpha")

    @property
    def threshold_(self) -> float:
        """The threshold in use."""
        return self._found("threshold")

    @property
    def rule_(self) -> ExitRule:
        """The decision: T, alpha, threshold, criterion, accumulation, and when it is checked."""
        found = None if self.fitted_ is None else self.fitted_.recalibration
        return replace(self._draft, alpha=self.alpha_, threshold=self.threshold_, recalibration=found)

    @property
    def pareto(self) -> tuple[ParetoPoint, ...]:
        """The front of mean steps and accuracy on the validation data, from cheap to dear."""
        if self.fitted_ is None:
            raise self._unfitted("pareto")
        return self.fitted_.pareto

    def _found(self, name: str) -> float:
        given = getattr(self, name)
        if given is not None:
            return given
        if self.fitted_ is None:
            raise self._unfitted(name)
        return getattr(self.fitted_, name)

    def _unfitted(self, name: str) -> Exception:
        advice = "Call fit(x, y) with validation data first."
        advice += "" if name == "pareto" else f" Or give {name}=... when making DynamicConfidence."
        return invalid(name, "be known before this", "a decision that is not fitted", advice)

    def fit(
        self, x: Tensor, y: Tensor, *, max_drop: float = 0.001, assurance: float = 0.9, progress: bool = False
    ) -> DynamicConfidence:
        """Find alpha and the threshold on validation data; what was given stays.

        Parameters
        ----------
        x : Tensor
            N samples, or logits of each step, shape (T, N, K), without a model.
        y : Tensor, shape (N,), integer
            Classes.
        max_drop : float
            Accuracy that may be lost against running all samples to T, as a fraction. Counted in whole samples: of
            fewer than 1 / `max_drop` none may be lost.
        assurance : float
            How surely no more than that is to be lost on other data, see `snn.early_exit.pareto.choose`. 0.5 is the
            paper's way: the front of the validation data is taken as it is.
        progress : bool
            Show a bar.

        Notes
        -----
        All N samples are run to T and their logits kept on the CPU: 4 T N K bytes in float32, and while alpha is fitted
        four times that for the checked steps. With few samples the drop on others may be larger all the same: see
        `Evaluation.difference`.
        """
        check_fraction("max_drop", max_drop, advice="It is a fraction: 0.001 is 0.1 percentage points.")
        logits, y = self._run(x, y, progress)
        given = {"alpha": self.alpha, "threshold": self.threshold}
        given |= {"max_drop": max_drop, "assurance": assurance}
        given |= {"calibrator": self.calibrator, "recalibrate": self.recalibrate}
        self.fitted_ = find_rule(logits, y, self._draft, **given)
        return self

    def predict(self, x: Tensor, *, progress: bool = False) -> Exit:
        """Answer each sample as soon as it is sure.

        Parameters
        ----------
        x : Tensor
            N samples, on any device, or logits without a model.
        progress : bool
            Show a bar.

        Returns
        -------
        Exit
            In the order of `x`.
        """
        rule, network = self.rule_, self.open(x)
        return running.run_until_sure(
            network.stepper,
            x,
            rule,
            batch_size=self.batch_size,
            compact_below=self.compact_below,
            look_ahead=self.look_ahead,
            batch_axis=network.batch_axis,
            device=network.device,
            progress=progress,
        )

    def anytime(self, x: Tensor) -> Iterator[tuple[Check, Tensor]]:
        """Yield the running answer to one batch at each check, for live use.

        Parameters
        ----------
        x : Tensor
            B samples, or logits without a model.

        Yields
        ------
        check : Check
        sure : Tensor, shape (B,), bool
            Whether a sample is or has been sure, or is at T. Its label at the first check at which this is true is the
            answer of `predict`; those after it may still change.
        """
        rule, network = self.rule_, self.open(x)
        checks = running.step_by_step(network.stepper, x, rule, device=network.device)
        # Not a generator itself: what is wrong with `x` is said here, and not at the first step.
        return running.once_sure(checks, rule)

    def oracle(self, x: Tensor, y: Tensor) -> Oracle:
        """Leave at the first check whose answer is right: the target line of every criterion.

        Parameters
        ----------
        x, y : Tensor
            As for `fit`. Needs no fit: no confidence enters.

        Returns
        -------
        Oracle
        """
        logits, y = self._run(x, y)
        course = trajectory(logits, self._draft)
        return oracle((course.labels == y).numpy(), course.steps.numpy())

    def curve(self, x: Tensor, y: Tensor, *, n_points: int = 200) -> tuple[ParetoPoint, ...]:
        """Return what the thresholds cost and give on these data: for a picture, not to choose from.

        Parameters
        ----------
        x, y : Tensor
            As for `fit`.
        n_points : int
            At most so many thresholds, from 0 to 1, at even distances in mean steps.
        """
        check_int("n_points", n_points, at_least=2)
        logits, y = self._run(x, y)
        course = trajectory(logits, replace(self._draft, alpha=self.alpha_))
        right = (course.labels == y).numpy()
        return sweep(course.certainty.numpy(), right, course.steps.numpy()).thinned(n_points)

    def reliability(
        self, x: Tensor, y: Tensor, *, alpha: float | None = None, n_bins: int = 15, binning: str = "equal_width"
    ) -> Reliability:
        """Compare confidence with accuracy over all checks of all samples, pooled as `fit` pools them.

        Parameters
        ----------
        x, y : Tensor
            As for `fit`.
        alpha : float, optional
            Another temperature than the one in use, and nothing beyond it: 1 is the network before calibration.
        n_bins, binning
            As in `snn.early_exit.reliability`.

        Returns
        -------
        Reliability
        """
        rule = self.rule_ if alpha is None else replace(self._draft, alpha=alpha)
        logits, y = self._run(x, y)
        course = trajectory(logits, rule)
        correct = (course.labels == y).flatten().numpy()
        return reliability(course.confidence.flatten().numpy(), correct, n_bins=n_bins, binning=binning)

    def evaluate(
        self,
        x: Tensor,
        y: Tensor,
        *,
        rng: int | np.random.Generator = 0,
        n_resamples: int = 1000,
        level: float = 0.95,
        n_bins: int = 15,
        binning: str = "equal_width",
        progress: bool = False,
    ) -> Evaluation:
        """Measure the decision beside the network that runs to T: each sample is run to T, to have both.

        Parameters
        ----------
        x, y : Tensor
            As for `fit`, and other data than `fit` saw; the same data are allowed, and noted (``fitted_on``).
        rng, n_resamples, level
            Of the bootstrap intervals, as in `bootstrap_means`.
        n_bins, binning
            Of the calibration error, as in `snn.early_exit.reliability`.
        progress : bool
            Show a bar.

        Returns
        -------
        Evaluation
        """
        rule = self.rule_
        logits, y = self._run(x, y, progress)
        course = trajectory(logits, rule)
        known = self.fitted_ is not None and self.fitted_.fingerprint == fingerprint(course, y)
        draws = {"rng": rng, "n_resamples": n_resamples, "level": level}
        bins = {"n_bins": n_bins, "binning": binning}
        return evaluate_exits(course, y.numpy(), rule.threshold, **draws, **bins, fitted_on=known)

    def score(self, x: Tensor, y: Tensor) -> float:
        """Return the accuracy of `predict`.

        Parameters
        ----------
        x, y : Tensor
            As for `fit`.
        """
        y = check_labels(y, self.open(x).n_samples)
        return (self.predict(x).labels == y).double().mean().item()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write settings and what was fitted as JSON, without the model; an existing file is replaced as a whole.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        Path
        """
        settings = {name: getattr(self, name) for name in ("alpha", "threshold", *storage.RUN_SETTINGS)}
        settings |= {name: getattr(self._draft, name) for name in storage.RULE_SETTINGS}
        return storage.write(path, settings, self.fitted_)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: nn.Module | Stepper | None,
        *,
        device: str | torch.device | None = None,
    ) -> DynamicConfidence:
        """Read what `save` wrote: the same decisions, bit for bit.

        Parameters
        ----------
        path : path-like
            The file.
        model : Module, Stepper or None
            The network that it was fitted for.
        device : str or torch.device, optional
            As when making it.
        """
        settings, fitted = storage.read(path)
        loaded = cls(model, **settings, device=device)
        loaded.fitted_ = fitted
        return loaded

    def __repr__(self) -> str:
        rule, name = self._draft, "no model" if self.model is None else type(self.model).__name__
        parts = [name, f"n_steps={rule.n_steps}"]
        for key in ("alpha", "threshold"):
            value = getattr(self, key) if self.fitted_ is None else getattr(self, f"{key}_")
            parts.append(f"{key}={'not fitted' if value is None else f'{value:.6g}'}")
        parts += [f"criterion={rule.criterion!r}", f"accumulate={rule.accumulate!r}", f"check_every={rule.check_every}"]
        return f"DynamicConfidence({', '.join(parts)})"

    def open(self, x: Any) -> Network:
        """Return the stepper that runs `x`, and how: for those who look at the network while it decides."""
        # The stepper is made once: that takes as long as some steps of a small network.
        if self._adapted is None or self._adapted[0] is not self.model:
            self._adapted = (self.model, stepper_of(self.model, self.inputs))
        return Network.open(self._adapted[1], self.model, x, self._draft.n_steps, self.inputs, self.device)

    def _run(self, x: Any, y: Any, progress: bool = False) -> tuple[Tensor, Tensor]:
        """Return the logits of all samples at all steps, (T, N, K), and their classes, both on the CPU."""
        network = self.open(x)
        check_labels(y, network.n_samples)
        if self.model is None:
            logits = x.detach().cpu()
        else:
            logits = running.run_to_the_end(
                network.stepper,
                x,
                self._draft.n_steps,
                chunk=self._draft.check_every,  # no more memory than predict takes
                batch_size=self.batch_size,
                batch_axis=network.batch_axis,
                device=network.device,
                progress=progress,
            )
        return logits, check_labels(y, network.n_samples, logits.shape[2])
