"""Pictures of early exit: what stopping costs in accuracy, when the classes leave, and who leaves first and last."""

# J checks, N samples, K classes, T time steps

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_option, check_same_length, check_shape, invalid
from snn.early_exit import Evaluation, Exit, ParetoPoint
from snn.plots.base import ANN, DIRECT, SPIKING, WIDTH, own_axes, tidy
from snn.plots.charts import _top
from snn.plots.pictures import _GAP, _LINE, _frame, _picture, _show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["exit_curve", "exit_histogram", "first_and_last"]

# Percentage points: the axis of accuracy shows at least so many, and at most so many on either side of the accuracy at
# T for the sake of what all samples reach at the decision's mean steps, and of the oracle.
_LEAST_SPAN, _FAR = 2.0, 10.0
# With more steps than this, and the decision in this first part of them, the axis of steps is logarithmic.
_MANY_STEPS, _EARLY = 16, 1 / 4
# More points than this are a line without markers.
_MOST_MARKERS = 20
# More cells than this are stored as pixels in a PDF or SVG, and more rows are named only now and then.
_MOST_CELLS, _MOST_ROWS = 5000, 25
# So many checks are each written at the axis.
_MOST_TICKS = 10
# Images side by side, at least and at most, and the letters that fit below one where there are most.
_LEAST_COLUMNS, _MOST_COLUMNS, _LETTERS = 4, 8, 9


def exit_curve(
    evaluation: Evaluation,
    *,
    points: Sequence[ParetoPoint] | None = None,
    pareto: Sequence[ParetoPoint] | None = None,
    chosen: str = "chosen",
    name: str = "early exit",
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against mean steps: stopping where each sample is sure, and stopping all at the same step.

    Parameters
    ----------
    evaluation : Evaluation
        Of the chosen decision, on test data, as `DynamicConfidence.evaluate` returns it.
    points : sequence of ParetoPoint, optional
        Other thresholds, measured on the same data.
    pareto : sequence of ParetoPoint, optional
        The front on the validation data, `DynamicConfidence.pareto`. Its points are the best of many on those data,
        which flatters them.
    chosen, name : str
        What the legend calls the decision, and the thresholds of `points`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If `evaluation` is none, or if points lie outside 0..T steps or 0..1 accuracy.

    Notes
    -----
    Orange squares: all samples stop at the same checked step; on the lines between them a share of the samples stops
    one check earlier, drawn by lot. Blue line: the thresholds of `points`; dotted, those of `pareto`. Blue dot: the
    decision, with the bootstrap intervals of its accuracy and of its mean steps; a thin line leads to the accuracy at
    T, which is dashed. The legend gives the paired difference of the two: the bars alone say little about it, because
    the same samples are easy for both. Star: the oracle.

    The axis of accuracy holds the decision and the accuracy at T. It holds the oracle too, and what all samples reach
    if they stop at the decision's mean steps, up to 10 points away from the accuracy at T. It spans 2 points at least,
    so that 0.05 are not a cliff. The legend says which part of the static curve lies below it; an oracle above it is a
    triangle on its edge. The axis of steps is logarithmic where T > 16 and the decision takes less than T / 4.
    """
    if not isinstance(evaluation, Evaluation):
        advice = "Call DynamicConfidence.evaluate(x, y)."
        raise invalid("evaluation", "be a snn.early_exit.Evaluation", evaluation, advice, kind=TypeError)
    fronts = {
        "points": _front("points", points, evaluation.n_steps),
        "pareto": _front("pareto", pareto, evaluation.n_steps),
    }
    ax = own_axes(ax, 4.4)
    static, full = 100 * np.asarray(evaluation.static_accuracy), 100 * evaluation.full_accuracy
    accuracy, steps, n_steps = evaluation.accuracy, evaluation.mean_steps, evaluation.n_steps
    low, high = _limits(evaluation, [front[:, 1] for front in fronts.values()])
    ax.axhline(full, color=ANN, linestyle="--", linewidth=1.2, label=f"T = {n_steps}: {full:.2f} %")
    look = {"marker": "s", "markersize": 5} if len(static) <= _MOST_MARKERS else {}
    label = "static: all stop at the same step" + _below(evaluation.steps, static, low)
    ax.plot(evaluation.steps, static, color=DIRECT, linewidth=1.5, label=label, **look)
    looks = {
        "points": {"linestyle": "-", "label": f"{name}: other thresholds"},
        "pareto": {"linestyle": ":", "label": f"{name}: front on the validation data"},
    }
    for key, front in fronts.items():
        if len(front):
            marker = "." if len(front) <= _MOST_MARKERS and key == "points" else None
            ax.plot(*front.T, color=SPIKING, linewidth=1.5, marker=marker, **looks[key])
    place = (steps.value, 100 * accuracy.value)
    ax.plot([place[0]] * 2, [place[1], full], color=ANN, linewidth=0.8, zorder=2.5)
    bars = {
        "xerr": [[steps.value - steps.low], [steps.high - steps.value]],
        "yerr": [[100 * (accuracy.value - accuracy.low)], [100 * (accuracy.high - accuracy.value)]],
    }
    look = {"marker": "o", "markersize": 7, "markeredgecolor": "white", "linewidth": 1.5, "capsize": 3, "zorder": 4}
    ax.errorbar(*place, **bars, color=SPIKING, label=_described(evaluation, chosen), **look)
    best, when = 100 * evaluation.oracle.accuracy, evaluation.oracle.mean_steps
    label = f"oracle: {best:.2f} % at {when:.2f} steps" + (", above the axis" if best > high else "")
    # Not clipped: whole at an accuracy of 100 %, where the axis ends.
    look = {"marker": "^" if best > high else "*", "markersize": 7 if best > high else 10, "clip_on": False}
    ax.plot([when], [min(best, high)], linestyle="none", color="black", label=label, zorder=5, **look)

    ax.set_ylim(low, high)
    _step_axis(ax, evaluation)
    where = " on the data that chose the decision" if evaluation.fitted_on else ""
    ax.set(xlabel="mean time steps per sample", ylabel=f"accuracy{where} (%)")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, -0.2), borderaxespad=0)
    return tidy(ax, grid="y")


def exit_histogram(
    exits: Exit,
    labels: Sequence[int] | Tensor,
    *,
    classes: Sequence[str] | None = None,
    check_every: int = 1,
    ax: Axes | None = None,
) -> Axes:
    """Draw when the samples of each class left: one row a class, the darker the larger a share of it.

    Parameters
    ----------
    exits : Exit
        Answers of N samples.
    labels : sequence of int, length N
        True classes.
    classes : sequence of str, optional
        Class names; by default the classes are numbered up to the last that occurs.
    check_every : int
        Steps between two checks, as in the decision: a cell is so many steps wide.
    ax : Axes, optional
        Where to draw. The bar of shades takes some of its room.

    Returns
    -------
    Axes
        A diamond marks the mean of each class, and a dashed line that of all samples. Shade rises with the square root
        of the share, so that few samples can be told from none. Where far more run to T than leave at any other step,
        the shades end at a quarter of that, and the bar in an arrow.

    Raises
    ------
    TypeError, ValueError
        If `exits` is none or empty, `labels` do not fit it or `classes`, or samples left between the checks.
    """
    steps = _check_exits(exits).steps.cpu().numpy()
    check_same_length(exits=exits, labels=labels)
    truth = _check_classes("labels", labels, classes)
    check_int("check_every", check_every, at_least=1, at_most=exits.n_steps)
    checks = np.append(np.arange(check_every, exits.n_steps, check_every), exits.n_steps)
    if not np.isin(steps, checks).all():
        came = f"a sample that left at step {steps[~np.isin(steps, checks)][0]}"
        raise invalid("check_every", "be that of the decision", f"{check_every}, and {came}")
    n_rows = int(truth.max()) + 1 if classes is None else len(classes)
    counts = np.zeros((n_rows, len(checks)))
    np.add.at(counts, (truth, np.searchsorted(checks, steps)), 1)
    members = counts.sum(1)
    shares = 100 * counts / np.maximum(members, 1)[:, None]

    ax = own_axes(ax, 1.5 + min(max(0.27 * n_rows, 1.0), 5.5))
    from matplotlib.colors import PowerNorm

    # A cell ends halfway to the next check; the last step may be less than `check_every` after the check before.
    between = (checks[1:] + checks[:-1]) / 2
    edges = np.concatenate([[checks[0] - check_every / 2], between, [checks[-1] + check_every / 2]])
    before, at_the_end = shares[:, :-1].max(initial=0), shares[:, -1].max()
    # Where most run to T, what goes on before would be pale.
    dominated = 0 < before < at_the_end / 4
    shade = PowerNorm(0.5, 0, at_the_end / 4 if dominated else shares.max())
    rows = np.arange(n_rows)
    dense = {"rasterized": shares.size > _MOST_CELLS}
    drawn = ax.pcolormesh(edges, np.arange(n_rows + 1) - 0.5, shares, cmap="Blues", norm=shade, **dense)
    # Rows apart: of equal shades, the eye would make one block.
    ax.hlines(rows[1:] - 0.5, edges[0], edges[-1], color="white", linewidth=min(2.5, 40 / n_rows))
    ax.axvline(steps.mean(), color=DIRECT, linestyle="--", linewidth=1.2, label=f"mean: {steps.mean():.2f} steps")
    there = rows[members > 0]
    means = [steps[truth == row].mean() for row in there]
    look = {"color": DIRECT, "markeredgecolor": "white", "markersize": 7 if n_rows <= _MOST_ROWS else 4}
    ax.plot(means, there, "D", label="of the class", **look)
    for row in rows[members == 0]:
        ax.annotate("no samples", (edges[0], row), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    ax.set(xlim=(edges[0], edges[-1]), ylim=(n_rows - 0.5, -0.5))
    shown = rows if n_rows <= _MOST_ROWS else rows[:: -(-n_rows // _MOST_ROWS)]
    ax.set_yticks(shown, [str(row) if classes is None else classes[row] for row in shown], fontsize=8.5)
    if len(checks) <= _MOST_TICKS:
        ax.set_xticks(checks)
    else:
        ax.locator_params(axis="x", integer=True)
    ax.tick_params(left=False)
    ax.set(xlabel=f"step at which the sample left (of T = {exits.n_steps})", ylabel="class" if classes is None else "")
    ax.legend(frameon=False, fontsize=8.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, handletextpad=0.5)
    ax.spines[:].set_visible(False)
    extend = "max" if dominated else "neither"
    ax.figure.colorbar(drawn, ax=ax, label="share of the class (%)", extend=extend).outline.set_visible(False)
    return ax


def first_and_last(
    images: Tensor,
    exits: Exit,
    labels: Sequence[int] | Tensor | None = None,
    *,
    n: int = 8,
    classes: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the images that left first and those that left last, each with its step and the answer.

    Parameters
    ----------
    images : Tensor, shape (N, 1 or 3, H, W)
        Bytes, or floating point in [0, 1]; in the order of `exits`.
    exits : Exit
        Answers to these images.
    labels : sequence of int, length N, optional
        True classes. Wrong answers are marked, with the true class below.
    n : int
        How many at most of each kind; no image is drawn twice.
    classes : sequence of str, optional
        Class names; by default their numbers.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Above, the fewest steps come first, and of equally many the most confident answer. Below, the most steps come
        first; of equally many wrong answers, then the least confident.

    Raises
    ------
    TypeError, ValueError
        If `images` or `labels` do not fit `exits`, or answers lie outside `classes`.
    """
    answers = _check_classes("exits.labels", _check_exits(exits).labels, classes)
    check_shape("images", images, ("N", "C", "H", "W"))
    check_option("images.shape[1]", images.shape[1], [1, 3])
    check_same_length(images=images, exits=exits)
    if labels is not None:
        check_same_length(exits=exits, labels=labels)
    truth = answers if labels is None else _check_classes("labels", labels, classes)
    n = check_int("n", n, at_least=1)
    steps, confidence, wrong = exits.steps.cpu().numpy(), exits.confidence.cpu().numpy(), answers != truth
    first = np.lexsort((-confidence, steps))[: min(n, -(-len(exits) // 2))]
    last = np.lexsort((confidence, ~wrong, -steps))
    last = last[~np.isin(last, first)][:n]
    names = [str(k) for k in range(1 + max(answers.max(), truth.max()))] if classes is None else classes
    texts = {int(k): _texts(steps[k], names[answers[k]], names[truth[k]], bool(wrong[k])) for k in [*first, *last]}
    longest = max(len(text) for lines in texts.values() for text, _ in lines)
    most = _MOST_COLUMNS if longest <= _LETTERS else _LEAST_COLUMNS
    columns = max(-(-n // -(-n // most)), _LEAST_COLUMNS)
    width = columns * (1 + _GAP) - _GAP
    # Units of the picture that an inch has, at the size of a figure of our own.
    inch = width / WIDTH
    head = 0.27 * inch
    groups = [(title, group.tolist()) for title, group in (("first to leave", first), ("last to leave", last))]
    groups = [(title, group) for title, group in groups if group]
    # An image, and the lines below it.
    heights = [1 + (_LINE * max(len(texts[k]) for k in group) + 0.08) * inch for _, group in groups]
    total = sum(head + -(-len(group) // columns) * tall for (_, group), tall in zip(groups, heights, strict=True))
    ax = own_axes(ax, total / inch)
    top = 0.0
    for (title, group), tall in zip(groups, heights, strict=True):
        ax.text(0, top - 0.07 * inch, title, ha="left", va="top", fontsize=9.5, fontweight="bold")
        top -= head
        for k, number in enumerate(group):
            x, y = (k % columns) * (1 + _GAP), top - (k // columns) * tall
            _show(ax, images[number], x, y)
            _frame(ax, x, y)
            for line, (text, colour) in enumerate(texts[number]):
                below = {"xytext": (0, -2 - 72 * _LINE * line), "textcoords": "offset points"}
                ax.annotate(text, (x + 0.5, y - 1), ha="center", va="top", fontsize=8.5, color=colour, **below)
        top -= -(-len(group) // columns) * tall
    return _picture(ax, width, total)


def _front(name: str, points: Sequence[ParetoPoint] | None, n_steps: int) -> np.ndarray:
    """Return mean steps and accuracy in per cent, shape (number of points, 2), from cheap to dear."""
    if points is None:
        return np.empty((0, 2))
    wrong = [point for point in points if not isinstance(point, ParetoPoint)]
    if wrong:
        raise invalid(name, "hold snn.early_exit.ParetoPoint only", wrong[0], kind=TypeError)
    for point in points:
        if not (0 < point.mean_steps <= n_steps and 0 <= point.accuracy <= 1):
            required = f"hold accuracies in [0, 1] at up to T = {n_steps} mean steps"
            raise invalid(name, required, point, "Measure them with the T of `evaluation`.")
    return np.array(sorted((point.mean_steps, 100 * point.accuracy) for point in points)).reshape(-1, 2)


def _described(evaluation: Evaluation, chosen: str) -> str:
    accuracy, difference = 100 * evaluation.accuracy.value, evaluation.difference
    signs = [
        f"{100 * one:.2f}".replace("-", "\N{MINUS SIGN}") for one in (difference.value, difference.low, difference.high)
    ]
    level = f"{100 * evaluation.level:g} % intervals"
    here = f"{chosen}: {accuracy:.2f} % at {evaluation.mean_steps.value:.2f} steps ({level});"
    return f"{here}\nagainst T = {evaluation.n_steps}: {signs[0]} [{signs[1]}, {signs[2]}] points"


def _limits(evaluation: Evaluation, fronts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return where the axis of accuracy begins and ends, in per cent."""
    static, full = 100 * np.asarray(evaluation.static_accuracy), 100 * evaluation.full_accuracy
    to_beat = float(np.interp(evaluation.mean_steps.value, evaluation.steps, static))
    low = min(full, 100 * evaluation.accuracy.low, max(to_beat, full - _FAR))
    high = max(full, 100 * evaluation.accuracy.high, static.max(), *(front.max(initial=0) for front in fronts))
    best = 100 * evaluation.oracle.accuracy
    high = max(high, best) if best <= full + _FAR else high
    # Curves of which little would be missing are drawn to their ends.
    everything = min(static.min(), *(front.min(initial=100) for front in fronts))
    if everything >= min(low - (high - low) / 2, high - _FAR):
        low = min(low, everything)
    margin = max(0.08 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    low = max(low - margin, 0.0)
    high = min(high + margin, _top(low))
    # Where 0 or 100 % ends the axis, the other end gives way.
    low = float(max(min(low, high - _LEAST_SPAN), 0.0))
    return low, float(max(high, low + _LEAST_SPAN))


def _step_axis(ax: Axes, evaluation: Evaluation) -> None:
    first, last = evaluation.steps[0], evaluation.n_steps
    if last > _MANY_STEPS and evaluation.mean_steps.value < _EARLY * last:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        room = (last / first) ** 0.03
        ax.set_xlim(first / room, last * room)
    else:
        room = 0.03 * max(1, last - first)
        ax.set_xlim(first - room, last + room)
        ax.locator_params(axis="x", integer=True)


def _below(steps: Sequence[int], static: np.ndarray, low: float) -> str:
    """Say what of the static curve the axis leaves out, on a line of its own."""
    (out,) = np.nonzero(static < low)
    if not len(out):
        return ""
    if len(out) <= 2:
        return "\nbelow the axis: " + ", ".join(f"{static[k]:.1f} % at step {steps[k]}" for k in out)
    together = out[-1] - out[0] == len(out) - 1
    where = f"at steps {steps[out[0]]} to {steps[out[-1]]}" if together else f"at {len(out)} of {len(steps)} checks"
    return f"\nbelow the axis: {static[out].min():.1f} to {static[out].max():.1f} % {where}"


def _check_exits(exits: Exit) -> Exit:
    if not isinstance(exits, Exit):
        advice = "Call DynamicConfidence.predict(x)."
        raise invalid("exits", "be a snn.early_exit.Exit", exits, advice, kind=TypeError)
    if not len(exits):
        raise invalid("exits", "have at least one sample", "none")
    return exits


def _check_classes(name: str, labels: Sequence[int] | Tensor, classes: Sequence[str] | None) -> np.ndarray:
    """Return one class a sample, each of which has a name where there are any."""
    try:
        found = torch.as_tensor(labels).cpu().numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise invalid(name, "be one whole number a sample", labels, kind=TypeError) from error
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise invalid(name, "be one whole number a sample", found, kind=TypeError)
    n_classes = np.inf if classes is None else len(classes)
    outside = found[(found < 0) | (found >= n_classes)]
    if len(outside):
        required = "be 0 or more" if classes is None else f"lie in 0..{n_classes - 1}, the names in `classes`"
        raise invalid(name, required, f"{outside[0]}")
    return found


def _texts(step: int, answer: str, truth: str, wrong: bool) -> list[tuple[str, str]]:
    """Return the lines below an image, with their colours."""
    lines = [(f"step {step}", "black"), (f"{answer} ✗" if wrong else answer, DIRECT if wrong else ANN)]
    return [*lines, (f"is {truth}", "black")] if wrong else lines
