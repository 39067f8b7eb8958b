"""Losses and metrics by name, and what they require of a model's output.

Every loss is a mean over the samples of a batch. `snn.training` relies on it: it weights batches by their
number of samples, so that a short last batch and several processes give the mean over all samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroloaders.checks import check_option, invalid

# B batch, K classes or targets

__all__ = [
    "LOSSES",
    "METRICS",
    "accuracy",
    "check_classes",
    "cross_entropy",
    "find_loss",
    "find_metrics",
    "mse",
]

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of class scores.

    Parameters
    ----------
    output : Tensor, shape (B, K) or (B, K, ...)
        Scores before the softmax.
    target : Tensor, shape (B,) or (B, ...), integer; or the shape of `output`, float
        Classes, or their probabilities.
    label_smoothing : float
        Part of the probability that is spread over all classes.

    Returns
    -------
    Tensor, shape ()
        Mean over the batch, in nats.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    if target.is_floating_point():
        _check_output(output, tuple(target.shape))
        return F.cross_entropy(output, target, label_smoothing=label_smoothing)
    _check_output(output, (target.shape[0], "K", *target.shape[1:]))
    return F.cross_entropy(output, target.long(), label_smoothing=label_smoothing)


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error, over all entries.

    Parameters
    ----------
    output : Tensor, shape (B, ...)
        Predictions; with classes as targets (B, K), usually spike rates.
    target : Tensor, the shape of `output`, float; or shape (B,), integer
        Values, or classes that are compared as one-hot vectors.

    Returns
    -------
    Tensor, shape ()
        Mean over all entries.

    Raises
    ------
    ValueError
        If the shapes differ: they are never broadcast.
    """
    if not target.is_floating_point():
        _check_output(output, (target.shape[0], "K"))
        target = F.one_hot(target.long(), output.shape[1]).to(output.dtype)
    _check_output(output, tuple(target.shape))
    return F.mse_loss(output, target)


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Whether the highest score is the target class, a sample; its mean is the accuracy.

    Parameters
    ----------
    output : Tensor, shape (B, K) or (B, K, ...)
        Scores.
    target : Tensor, shape (B,) or (B, ...), integer
        Classes.

    Returns
    -------
    Tensor, shape (B,)
        1 or 0; with further axes, the share of correct ones.

    Raises
    ------
    TypeError
        If the targets are no classes.
    ValueError
        If the shapes do not fit.
    """
    if target.is_floating_point():
        raise invalid(
            "targets",
            "be integers (classes) where accuracy is measured",
            target,
            "For other targets pass metrics={} and TrainConfig(monitor='loss').",
            kind=TypeError,
        )
    _check_output(output, (target.shape[0], "K", *target.shape[1:]))
    correct = output.argmax(1) == target
    return correct.flatten(1).double().mean(1) if correct.ndim > 1 else correct.double()


# What TrainConfig(loss=...) may name.
LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "mse": mse}
# Metrics map (output, target) to one number a sample, shape (B,); higher is better.
METRICS: dict[str, Loss] = {"accuracy": accuracy}


def find_loss(loss: str | Loss, label_smoothing: float = 0.0) -> Loss:
    """Return the loss of that name; a callable (output, target) -> mean over samples is returned as it is."""
    if callable(loss):
        return loss
    found = LOSSES[check_option("loss", loss, LOSSES)]
    return functools.partial(found, label_smoothing=label_smoothing) if label_smoothing else found


def find_metrics(metrics: Mapping[str, str | Loss] | None) -> dict[str, Loss]:
    """Return metrics by their names in the log; None gives the accuracy."""
    if metrics is None:
        return {"accuracy": accuracy}
    if not isinstance(metrics, Mapping):
        raise invalid("metrics", "be a dict of names and functions", metrics, kind=TypeError)
    for name in metrics:
        if name in ("loss", "epoch", "lr", "seconds"):
            raise invalid("metrics", "have names of their own", repr(name), "The log has a column of that name.")
    return {
        name: metric if callable(metric) else METRICS[check_option(f"metrics[{name!r}]", metric, METRICS)]
        for name, metric in metrics.items()
    }


def check_classes(name: str, output: Tensor, target: Tensor) -> None:
    """Raise ValueError if integer targets lie outside the K classes of `output`, shape (B, K, ...).

    It waits for the GPU, so it is done for the first batch only. A GPU itself reports bad classes by an
    assertion that ends the process.
    """
    fits = tuple(output.shape[:1] + output.shape[2:]) == tuple(target.shape)
    if target.is_floating_point() or not fits or target.numel() == 0:
        return  # the loss says what is wrong with the shapes
    lowest, highest, n_classes = int(target.min()), int(target.max()), output.shape[1]
    if lowest < 0 or highest >= n_classes:
        raise invalid(
            name,
            f"hold classes from 0 to {n_classes - 1}, one for each of the model's {n_classes} outputs",
            f"{lowest} to {highest}",
            "Count classes from 0, or give the model more outputs.",
        )


def _check_output(output: Tensor, shape: tuple[int | str, ...]) -> None:
    if not isinstance(output, torch.Tensor):
        raise invalid("model output", "be a tensor", output, "Return the scores alone.", kind=TypeError)
    got = tuple(output.shape)
    fits = len(got) == len(shape) and all(w == "K" or w == g for w, g in zip(shape, got, strict=True))
    if fits:
        return
    advice = "Targets and outputs must belong to the same samples."
    if len(got) == len(shape) + 1 and got[1] == shape[0]:
        advice = "Reduce the time axis in the model's last line: output.mean(0), output.sum(0) or output[-1]."
    text = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    raise invalid("model output", f"have shape {text} to fit the targets", f"{got}", advice)
