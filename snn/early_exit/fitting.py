"""What is found on validation data: alpha, the Pareto front, and the threshold chosen from it."""

# T time steps, N samples, K classes

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from snn.early_exit.pareto import ParetoPoint, choose, pareto_front, sweep
from snn.early_exit.readout import ExitRule, Trajectory, checked_readouts, trajectory
from snn.early_exit.recalibration import RECALIBRATORS, Recalibration
from snn.early_exit.temperature import fit_alpha

__all__ = ["Fitted", "find_rule", "fingerprint"]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Fitted:
    """What `DynamicConfidence.fit` found, and on what.

    Attributes
    ----------
    alpha, threshold : float
        In use from now on, found or given.
    mean_steps, accuracy : float
        Of that threshold on the validation data.
    full_accuracy : float
        Accuracy at T on the validation data.
    max_drop, assurance : float
        What was allowed to be lost, and how surely.
    n_samples : int
        Of the validation data.
    pareto : tuple of ParetoPoint
        The front, from cheap to dear.
    fingerprint : str
        Of the labels and of the running answers, to recognise these data.
    recalibration : Recalibration or None
        From the largest probability to the confidence that is reported.
    """

    alpha: float
    threshold: float
    mean_steps: float
    accuracy: float
    full_accuracy: float
    max_drop: float
    assurance: float
    n_samples: int
    pareto: tuple[ParetoPoint, ...]
    fingerprint: str
    recalibration: Recalibration | None = None

    def __repr__(self) -> str:
        return (
            f"Fitted on {self.n_samples} samples: alpha {self.alpha:.6g}, threshold {self.threshold:.6g}, accuracy "
            f"{self.accuracy:.4f} at {self.mean_steps:.2f} steps (at T {self.full_accuracy:.4f}, "
            f"max_drop {self.max_drop:g} at {self.assurance:g}), {len(self.pareto)} points on the front"
        )


def find_rule(
    logits: Tensor,
    y: Tensor,
    draft: ExitRule,
    *,
    alpha: float | None = None,
    threshold: float | None = None,
    max_drop: float = 0.001,
    assurance: float = 0.5,
    calibrator: str = "nll",
    recalibrate: str = "isotonic",
) -> Fitted:
    """Find alpha, the threshold and what the confidence means on validation data.

    Parameters
    ----------
    logits : Tensor, shape (T, N, K)
        Of each step, on the CPU.
    y : Tensor, shape (N,), int64
        Classes.
    draft : ExitRule
        Everything but alpha and threshold.
    alpha, threshold : float, optional
        Used as they are if given.
    max_drop, assurance : float
        As in `snn.early_exit.pareto.choose`.
    calibrator : str
        As in `fit_alpha`.
    recalibrate : str
        A key of `RECALIBRATORS`.

    Returns
    -------
    Fitted
    """
    if alpha is None:
        alpha = fit_alpha(checked_readouts(logits, draft), y, calibrator=calibrator)
    course = trajectory(logits, replace(draft, alpha=alpha))
    right, steps = (course.labels == y).numpy(), course.steps.numpy()
    everything = sweep(course.certainty.numpy(), right, steps)
    point = choose(everything, max_drop, assurance)
    if threshold is not None:
        leaves = course.exits(threshold).numpy()
        accuracy = right[leaves, np.arange(len(y))].mean()
        point = ParetoPoint(float(threshold), float(steps[leaves].mean()), float(accuracy))
    return Fitted(
        alpha=float(alpha),
        threshold=point.threshold,
        mean_steps=point.mean_steps,
        accuracy=point.accuracy,
        full_accuracy=float(right[-1].mean()),
        max_drop=float(max_drop),
        assurance=float(assurance),
        n_samples=len(y),
        pareto=pareto_front(everything),
        fingerprint=fingerprint(course, y),
        recalibration=RECALIBRATORS[recalibrate](course.confidence.flatten().numpy(), right.ravel(), len(y)),
    )


def fingerprint(course: Trajectory, y: Tensor) -> str:
    """Return a hash of the running answers and of the classes, to tell whether data were seen before.

    Parameters
    ----------
    course : Trajectory
        Whole runs. Of their answers and not their logits, which are the same to the last bit only on the same device
        and in batches of the same size.
    y : Tensor, shape (N,), int64
        Classes.

    Returns
    -------
    str
    """
    parts = [y.numpy().tobytes(), np.ascontiguousarray(course.labels.numpy()).tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()
