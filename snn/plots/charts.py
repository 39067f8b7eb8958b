"""Charts: accuracy, spikes and energy of networks, and the course of their training."""

# T time

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neuroloaders.checks import invalid
from snn.energy import ENERGY_45NM, EnergyReport
from snn.plots.base import ANN, DIRECT, MARKERS, SPIKING, own_axes, tidy
from snn.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "accuracy_by_steps",
    "energy_by_layer",
    "learning_curves",
    "spike_rates",
]


def accuracy_by_steps(
    accuracy: Mapping[int, float | Sequence[float]],
    *,
    ann: float | Sequence[float] | None = None,
    direct: float | Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against time steps, many to few; of several seeds the mean, the standard deviation and each.

    Parameters
    ----------
    accuracy : mapping of int to float or sequence of float
        T -> accuracy as a fraction, one number a seed.
    ann : float or sequence of float, optional
        Accuracy of the ANN.
    direct : float or sequence of float, optional
        Accuracy of the network that was trained at the fewest steps directly.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    if not accuracy:
        raise invalid("accuracy", "have at least one number of steps", "an empty mapping")
    ax = own_axes(ax, 3.4)
    steps = sorted(accuracy, reverse=True)
    span = max(1, steps[0] - steps[-1])
    if ann is not None:
        mean, spread, _ = _percent(ann)
        ax.axhline(mean, color=ANN, linestyle="--", linewidth=1.5, label=f"ANN: {_written(mean, spread)}")
        if spread:
            ax.axhspan(mean - spread, mean + spread, color=ANN, alpha=0.12, linewidth=0)
    curves = [(steps, [accuracy[n] for n in steps], SPIKING, "o", f"spiking, T = {steps[-1]}")]
    if direct is not None:
        # Beside the schedule's last point and not on it.
        name = f"trained at T = {steps[-1]} directly"
        curves.append(([steps[-1] - 0.05 * span], [direct], DIRECT, "D", name))
    for places, values, colour, marker, name in curves:
        means, spreads, each = zip(*map(_percent, values), strict=True)
        look = {"color": colour, "marker": marker, "markersize": 7, "linewidth": 2, "capsize": 4}
        label = f"{name}: {_written(means[-1], spreads[-1])}"
        ax.errorbar(places, means, spreads if any(spreads) else None, label=label, **look)
        for place, seeds in zip(places, each, strict=True):
            if len(seeds) > 1:
                ax.plot([place] * len(seeds), seeds, ".", color=colour, alpha=0.5, markersize=5)
    ax.set_xlim(steps[0] + 0.1 * span, steps[-1] - 0.12 * span)
    ax.set_xticks(steps)
    _widen(ax)
    ax.set(xlabel="time steps T", ylabel="test accuracy (%)")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(0, -0.2), borderaxespad=0)
    return tidy(ax, grid="y")


def spike_rates(reports: Mapping[str, EnergyReport], *, ax: Axes | None = None) -> Axes:
    """Draw how often the neurons of each layer fire, for each of several networks.

    Parameters
    ----------
    reports : mapping of str to EnergyReport
        Name of a network, such as "T = 5" -> its report. All have the same layers of neurons.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    layers = [tuple(neuron.name for neuron in report.neurons) for report in reports.values()]
    if not layers or not layers[0] or any(other != layers[0] for other in layers):
        raise invalid("reports", "be of networks with the same spiking layers", f"{layers}")
    ax = own_axes(ax, 1.6 + 0.32 * len(layers[0]))
    from matplotlib import colormaps

    colours = colormaps["viridis"]([0.85 * k / max(1, len(reports) - 1) for k in range(len(reports))])
    for k, (name, report) in enumerate(reports.items()):
        rates = [neuron.rate for neuron in report.neurons]
        marker = MARKERS[k % len(MARKERS)]
        ax.plot(rates, range(len(rates)), marker=marker, color=colours[k], linewidth=1, markersize=6, label=name)
    ax.set_yticks(range(len(layers[0])), layers[0])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel("spikes per neuron and image, all steps")
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": min(5, len(reports))}
    ax.legend(frameon=False, fontsize=8.5, columnspacing=0.9, handlelength=1.2, handletextpad=0.4, **place)
    return tidy(ax, grid="x")


def energy_by_layer(report: EnergyReport, *, name: str = "spiking", ax: Axes | None = None) -> Axes:
    """Draw the energy of each layer as ANN and as spiking network, and how many times less the latter takes.

    Parameters
    ----------
    report : EnergyReport
        Of the spiking network.
    name : str
        What the legend calls it.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
    """
    if not report.layers:
        raise invalid("report", "have at least one layer", "none")
    ax = own_axes(ax, 1.8 + 0.42 * len(report.layers))
    unit, size = ("µJ", 1e6) if report.ann_energy_pj >= 1e6 else ("nJ", 1e3)
    rows = range(len(report.layers))
    as_ann = [layer.ann_energy_pj / size for layer in report.layers]
    as_snn = [layer.energy_pj / size for layer in report.layers]
    label = f"ANN: {report.ann_energy_pj / size:.3g} {unit}"
    ax.barh([row - 0.2 for row in rows], as_ann, 0.38, color=ANN, label=label)
    label = f"{name}: {report.energy_pj / size:.3g} {unit}"
    ax.barh([row + 0.2 for row in rows], as_snn, 0.38, color=SPIKING, label=label)
    for row, ann, snn in zip(rows, as_ann, as_snn, strict=True):
        times = " no spikes" if not snn else " the same" if ann == snn else f" {ann / snn:.3g} times less"
        ax.annotate(times, (max(ann, snn), row), va="center", fontsize=8.5)
    ax.set_yticks(rows, [layer.name for layer in report.layers])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.35 * max(as_ann + as_snn))
    ax.set_xlabel(
        f"compute energy ({unit} per image, 45 nm)" if report.constants == ENERGY_45NM else f"energy ({unit} per image)"
    )
    ax.legend(frameon=False, fontsize=8.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return tidy(ax, grid="x")


def learning_curves(
    stages: Mapping[str, History],
    *,
    direct: History | None = None,
    metric: str = "accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Draw the course of several trainings, one after the other.

    Parameters
    ----------
    stages : mapping of str to History
        Name of a stage, such as "ANN" or "T = 5" -> its history, in their order.
    direct : History, optional
        Training at the last number of steps directly, drawn so that it ends with the last stage.
    metric : str
        Which score, a fraction; on the validation data where there are any, and dashed on the training data.
    ax : Axes, optional
        Where to draw. The first epochs of a stage may lie below it, so that the later ones can be told apart.

    Returns
    -------
    Axes
    """
    if not stages or not all(len(history) for history in stages.values()):
        raise invalid("stages", "each have at least one epoch", f"{list(stages.values())}")
    ax = own_axes(ax, 3.6)
    valid = f"valid_{metric}" if f"valid_{metric}" in next(iter(stages.values())).rows[0] else f"train_{metric}"
    start, drawn = 0, []
    total = sum(len(history) for history in stages.values())
    for k, (name, history) in enumerate(stages.items()):
        epochs = range(start + 1, start + len(history) + 1)
        trained, scores = ([100 * value for value in history[column]] for column in (f"train_{metric}", valid))
        first = k == 0
        ax.plot(epochs, trained, color=SPIKING, linewidth=1, linestyle=":", label="training" if first else None)
        label = {f"valid_{metric}": "validation"}.get(valid) if first else None
        ax.plot(epochs, scores, color=SPIKING, linewidth=1.8, marker=".", label=label)
        if history.kept_epoch is not None:
            label = "kept weights" if first else None
            ax.plot(epochs[history.kept_epoch], scores[history.kept_epoch], "o", mfc="none", color="black", label=label)
        if k % 2:
            ax.axvspan(start + 0.5, start + len(history) + 0.5, color="black", alpha=0.05, linewidth=0)
        place = (start + 0.5 + len(history) / 2, 1.01)
        # The names of short stages would run into each other if they lay flat.
        upright = 90 if len(history) < 0.012 * len(name) * total else 0
        text = {"ha": "center", "va": "bottom", "fontsize": 7.5, "rotation": upright}
        ax.annotate(name, place, xycoords=("data", "axes fraction"), **text)
        start, drawn = start + len(history), drawn + scores
    if direct is not None:
        scores = [100 * value for value in direct[valid]]
        epochs = range(start - len(direct) + 1, start + 1)
        ax.plot(epochs, scores, color=DIRECT, linewidth=1.2, linestyle="--", label="directly")
        drawn += scores
    low = sorted(drawn)[len(drawn) // 10]
    margin = 0.1 * (max(drawn) - low) + 0.1
    ax.set_ylim(low - margin, min(max(drawn) + margin, _top(low)))
    ax.set_xlim(0.5, start + 0.5)
    ax.set(xlabel="epoch", ylabel=f"{metric} (%)")
    ax.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, columnspacing=1)
    return tidy(ax, grid="y")


def _percent(values: float | Sequence[float]) -> tuple[float, float, list[float]]:
    """Return mean, standard deviation (0 for one value) and the values, in per cent."""
    each = [100 * value for value in (values if isinstance(values, Sequence) else [values])]
    return statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else 0.0, each


def _written(mean: float, spread: float) -> str:
    return f"{mean:.2f} ± {spread:.2f} %" if spread else f"{mean:.2f} %"


def _widen(ax: Axes) -> None:
    """Let the axis of per cents span 2 points or more: a difference of one image must not look like a cliff."""
    ax.margins(y=0.15)
    low, high = ax.get_ylim()
    missing = max(0.0, 2 - (high - low)) / 2
    ax.set_ylim(low - missing, min(high + missing, _top(low - missing)))


def _top(low: float) -> float:
    """Return where an axis of per cents ends at the latest: so little above 100 that a marker there is whole."""
    return 100 + 0.04 * (100 - low)
