"""What is predicted after the cue alone, against the truth."""

# T time, B networks, K events

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_int, invalid
from reservoir.analysis.predictions import prediction_object
from reservoir.experiment import LearningCurves
from reservoir.plots.base import GREY, SMALL, colour, event_name, figure_of, own_axes, tidy
from reservoir.tasks import PredictionTask, rmse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["block_predictions", "predictions"]


def predictions(outputs: Any, task: PredictionTask, *, dt_ms: float, cue: int = 0, ax: Axes | None = None) -> Figure:
    """Draw what is predicted of each event over a trial after the cue alone, its peak, and the truth.

    Parameters
    ----------
    outputs : array, shape (T, K) or (T, B, K)
        Predictions, such as ``learner.test(task, n_repeats=4).mean(axis=0)``: of several networks each is a thin line,
        and their mean a thick one.
    task : PredictionTask
        Gives the truth, probability times bump, which is shaded.
    dt_ms : float
        Time step.
    cue : int
        Which cue came.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure

    Notes
    -----
    A peak is the largest value of the mean, wherever it is: nothing is looked for near the delay. The error is that of
    the mean; the mean of the errors of single networks is larger.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if outputs.ndim == 2:
        outputs = outputs[:, None]
    found = prediction_object(outputs, task, dt_ms=dt_ms, cue=cue)
    mean, truth = outputs.mean(axis=1), task.truth(dt_ms=dt_ms, cue=cue)
    peaks = prediction_object(mean, task, dt_ms=dt_ms, cue=cue)
    t_ms = np.arange(len(outputs)) * dt_ms
    ax = own_axes(ax, 2.8)
    if task.cue_ms:
        ax.axvspan(0, task.cue_ms, color="black", alpha=0.1, linewidth=0)
        look = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "top", "fontsize": SMALL}
        ax.annotate("cue", (task.cue_ms / 2, 0.97), **look)
    for k in range(task.n_events):
        ax.fill_between(t_ms, truth[:, k], color=colour(k), alpha=0.2, linewidth=0)
        if outputs.shape[1] > 1:
            ax.plot(t_ms, outputs[:, :, k], color=colour(k), alpha=0.3, linewidth=0.7)
        ax.plot(t_ms, mean[:, k], color=colour(k), linewidth=1.8)
        place, text = (task.delays_ms[cue, k], truth[:, k].max()), f"{event_name(k)}: nothing"
        if peaks.probabilities[k] > 0:
            place = (peaks.delays_ms[k], peaks.probabilities[k])
            text = f"{event_name(k)}: {place[0]:.0f} ms, {place[1]:.2f}"
            ax.plot(*place, "v", color=colour(k), markeredgecolor="white", markersize=8, clip_on=False, zorder=4)
        above = max(place[1], truth[:, k].max())
        look = {"textcoords": "offset points", "ha": "center", "color": colour(k), "fontsize": SMALL, "weight": "bold"}
        ax.annotate(text, (place[0], above), (0, 8), zorder=5, **look)
        tick = {"color": colour(k), "linewidth": 1, "linestyle": "--", "alpha": 0.8}
        ax.plot([task.delays_ms[cue, k]] * 2, [0, truth[:, k].max()], **tick)
    highest = max(float(truth.max()), float(mean.max()), float(found.probabilities.mean()), 0.1)
    error = f"RMSE {rmse(mean, truth):.3f}"
    look = {"xycoords": "axes fraction", "ha": "right", "va": "top", "fontsize": SMALL, "color": GREY}
    ax.annotate(error, (0.995, 0.97), **look)
    ax.set(xlim=(0, task.trial_ms), ylim=(0, 1.28 * highest))
    ax.set(xlabel="time after the cue (ms)", ylabel="prediction")
    return figure_of(tidy(ax, grid="y"))


def block_predictions(curves: LearningCurves, *, cue: int = 0) -> Figure:
    """Draw what is predicted at the end of each block, one block below the other.

    Parameters
    ----------
    curves : LearningCurves
        Of one learner.
    cue : int
        Which cue came.

    Returns
    -------
    Figure
        With axes for each block.
    """
    if not isinstance(curves, LearningCurves):
        raise invalid("curves", "be LearningCurves", curves, kind=TypeError)
    check_int("cue", cue, at_least=0, at_most=curves.outputs.shape[1] - 1)
    if not np.isfinite(curves.outputs).all():
        raise invalid("curves", "be of networks whose learning did not diverge", "predictions that are not finite")
    import matplotlib.pyplot as plt

    n = len(curves.blocks)
    size = (5.6, 0.5 + 1.7 * n)
    figure, axes = plt.subplots(n, figsize=size, layout="constrained", sharex=True, squeeze=False)
    for number, (ax, task) in enumerate(zip(axes[:, 0], curves.blocks, strict=True)):
        outputs = curves.outputs[number, cue]
        predictions(outputs, task, dt_ms=task.trial_ms / len(outputs), cue=cue, ax=ax)
        ax.set_ylabel(f"block {number + 1}")
        if number < n - 1:
            ax.set_xlabel("")
    top = max(ax.get_ylim()[1] for ax in axes[:, 0])
    for ax in axes[:, 0]:
        ax.set_ylim(0, top)
    return figure
