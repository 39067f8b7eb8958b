"""The figures of the what/when/probability experiment, from the numbers that `examples/reservoir_what_when.py` keeps.

Each function takes the results of all stages, as read back from ``results.json``, and returns a figure of matplotlib,
which is loaded by the first call. None shows it.
"""

# T time, K events

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "ablated", "amplitude", "geometry", "learning", "prediction", "rules", "save"]

# Okabe & Ito 2008, "Color universal design": colour-blind readers can tell them apart. Never the only sign.
_EVENTS = ("#0072B2", "#D55E00")
_GREY = "#555555"
_RULES = {
    "local": ("#0072B2", "o"),
    "RLS": ("#D55E00", "s"),
    "RLS, forgetting": ("#CC79A7", "D"),
    "RLS, told": ("#009E73", "^"),
    "merged": ("#555555", "v"),
}


def prediction(found: Mapping[str, Any]) -> Figure:
    """Draw spikes after a cue, and what is predicted after it at the end of each block.

    Parameters
    ----------
    found : mapping
        Results of all stages.
    """
    import matplotlib.pyplot as plt

    stage = found["learning"]
    outputs = np.array(stage["outputs"])
    t_ms = np.arange(outputs.shape[1]) * 5
    fig, axes = plt.subplots(
        len(outputs) + 1,
        figsize=(6.4, 8.0),
        layout="constrained",
        sharex=True,
        height_ratios=[2.2] + [1] * len(outputs),
    )
    times, neurons = np.array(stage["spike_ms"]), np.array(stage["spike_neurons"])
    axes[0].plot(times, neurons, ",", color="black", alpha=0.7, rasterized=True)
    axes[0].set(ylabel="neuron")
    axes[0].set_title("Cue alone, learning off: spikes of one network, predictions (mean of all)", fontsize=10)
    axes[0].margins(y=0.01)
    for number, (ax, output) in enumerate(zip(axes[1:], outputs, strict=True)):
        truth = _truth(stage["blocks"][number], t_ms)
        for k, (name, colour) in enumerate(zip("AB", _EVENTS, strict=True)):
            ax.fill_between(t_ms, truth[:, k], color=colour, alpha=0.18, linewidth=0)
            ax.plot(t_ms, output[:, k], color=colour, linewidth=1.8)
            top = truth[:, k].argmax()
            ax.annotate(
                name, (t_ms[top], truth[top, k]), (0, 4), textcoords="offset points", color=colour, ha="center",
                weight="bold",
            )  # fmt: skip
        ax.set(ylim=(0, 1.15), yticks=(0, 0.5, 1), ylabel=f"block {number + 1}")
    for ax in axes:
        ax.axvspan(0, 50, color="black", alpha=0.1, linewidth=0)
        _tidy(ax)
    axes[1].text(25, 1.1, "cue", ha="center", va="top", fontsize=9)
    axes[-1].set(xlabel="time after the cue (ms); shaded bumps: probability x bump, the truth", xlim=(-200, t_ms[-1]))
    return fig


def learning(found: Mapping[str, Any]) -> Figure:
    """Draw the error over the trials of all blocks.

    Parameters
    ----------
    found : mapping
        Results of all stages.
    """
    import matplotlib.pyplot as plt

    stage = found["learning"]
    rmse, tests = np.array(stage["rmse"], dtype=np.float64), np.array(stage["tests"])
    fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for number, errors in enumerate(rmse):
        _band(ax, tests + number * tests[-1], errors, _EVENTS[0], "o")
        _border(ax, number, tests[-1], stage["blocks"][number])
    known = {trial: error for trial, error in stage["paper"] if trial <= tests[-1]}
    ax.plot(list(known), list(known.values()), "x", color=_GREY)
    trial, error = next(iter(known.items()))
    ax.annotate("paper", (trial, error), (7, 0), textcoords="offset points", color=_GREY, va="center")
    ax.set(xlabel="trial", ylabel="error (RMSE)", ylim=(0, None))
    ax.set_title(
        f"Error with the cue alone; mean and standard deviation of {rmse.shape[2]} networks", fontsize=10, pad=28
    )
    _tidy(ax)
    return fig


def rules(found: Mapping[str, Any]) -> Figure:
    """Draw the error of each rule over the trials.

    Parameters
    ----------
    found : mapping
        Results of all stages.
    """
    import matplotlib.pyplot as plt

    stage = found["rules"]
    tests = np.array(stage["tests"])
    fig, ax = plt.subplots(figsize=(6.8, 4.0), layout="constrained")
    ends = []
    for name, values in stage["rmse"].items():
        rmse = np.array(values, dtype=np.float64)
        colour, marker = _RULES.get(name, (_GREY, "x"))
        for number, errors in enumerate(rmse):
            _band(ax, tests + number * tests[-1], errors, colour, marker, alpha=0.1)
        ends.append((rmse[-1, -1].mean(), name, colour))
    for number in range(len(rmse)):
        _border(ax, number, tests[-1], found["learning"]["blocks"][number])
    ax.set(xlabel="trial", ylabel="error (RMSE)", ylim=(0, 0.4))
    # Names at the ends of the lines, pushed apart where lines end together.
    height = -1.0
    for error, name, colour in sorted(ends):
        height = max(min(error, 0.38), height + 0.025)
        at = (len(rmse) * tests[-1] * 1.015, height)
        ax.text(*at, name, color=colour, va="center", fontsize=9, clip_on=False)
    ax.set_xlim(0, len(rmse) * tests[-1])
    n_seeds = rmse.shape[2]
    ax.set_title(f"Rules on the same networks and trials ({n_seeds} networks)", fontsize=10, pad=28)
    _tidy(ax)
    return fig


def amplitude(found: Mapping[str, Any]) -> Figure:
    """Draw how large each event is predicted against its probability.

    Parameters
    ----------
    found : mapping
        Results of all stages.
    """
    import matplotlib.pyplot as plt

    stage = found["sweep"]
    levels, sizes = np.array(stage["levels"]), np.array(stage["amplitude"])
    fig, ax = plt.subplots(figsize=(4.8, 4.2), layout="constrained")
    for k, (name, colour, marker) in enumerate(zip("AB", _EVENTS, "os", strict=True)):
        mean = sizes[:, :, k].mean(axis=0)
        r = np.corrcoef(levels, mean)[0, 1] if mean.std() > 0 else np.nan
        for one in sizes[:, :, k]:
            ax.plot(levels, one, marker, color=colour, alpha=0.35, markersize=4, linewidth=0)
        ax.plot(levels, mean, color=colour, marker=marker)
        right = name == "A"
        x = 0.97 if right else 0.03
        ax.text(
            x, 1.12, f"{name}: r = {r:.3f}", color=colour, ha="right" if right else "left", va="top", weight="bold"
        )  # fmt: skip
    ax.plot([0, 1], [0, 1], ":", color=_GREY)
    ax.plot([0, 1], [1, 0], ":", color=_GREY)
    ax.set(xlabel="probability of A", ylabel="predicted amplitude (dotted: the probability)", ylim=(-0.03, 1.15))
    ax.set_title(f"{len(levels)} probabilities; networks for each: {len(sizes)}", fontsize=10)
    _tidy(ax)
    return fig


def geometry(found: Mapping[str, Any]) -> Figure:
    """Draw conditions in the space of weights, and the angle between the readouts against shuffled ones.

    Parameters
    ----------
    found : mapping
        Results of all stages.
    """
    import matplotlib.pyplot as plt

    stage = found["conditions"]
    scores = np.array(stage["scores"])
    delays, ps = np.array(stage["labels"]["delay"]), np.array(stage["labels"]["p"])
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
    for delay, marker in zip(np.unique(delays), "osD^vP*X", strict=False):
        mine = delays == delay
        left.plot(scores[mine, 0], scores[mine, 1], color=_GREY, alpha=0.4, linewidth=1)
        points = left.scatter(
            scores[mine, 0], scores[mine, 1], c=ps[mine], cmap="viridis", vmin=0, vmax=1, marker=marker, s=45, zorder=3
        )
        end = np.flatnonzero(mine)[ps[mine].argmax()]
        left.annotate(f"{delay:g} ms", scores[end, :2], (6, 4), textcoords="offset points", fontsize=8, color=_GREY)
    fig.colorbar(points, ax=left, label="probability of A")
    left.margins(0.18)
    share = 100 * np.array(stage["share"])
    left.set(xlabel=f"component 1 ({share[0]:.0f} % of variance)", ylabel=f"component 2 ({share[1]:.0f} %)")
    left.set_title("Weights of one network after each condition", fontsize=10)
    null = np.concatenate(found["learning"]["angle_null_deg"])
    right.hist(null, 40, color=_GREY, alpha=0.4)
    for angle in found["learning"]["angle_deg"]:
        right.axvline(angle, color=_EVENTS[1], linewidth=1.8)
    right.set(xlabel="angle between what and when (degrees)", ylabel="shuffles")
    right.set_title("Lines: networks; grey: their neurons shuffled", fontsize=10)
    for ax in (left, right):
        _tidy(ax)
    return fig


def ablated(found: Mapping[str, Any]) -> Figure:
    """Draw the error after the switches without each part of the network.

    Parameters
    ----------
    found : mapping
        Results of all stages.
    """
    import matplotlib.pyplot as plt

    stage = found["ablations"]
    names = list(stage["rmse"])
    fig, ax = plt.subplots(figsize=(6.4, 0.8 + 0.32 * len(names)), layout="constrained")
    verdict = {row["variant"]: row["verdict"] for row in stage["rows"]}
    ends = []
    for place, name in enumerate(names):
        rmse = np.array(stage["rmse"][name], dtype=np.float64)[1:, -1].mean(axis=0)
        colour = {"reference": _EVENTS[0], "worse": _EVENTS[1], "better": "#009E73"}.get(verdict[name], "#999999")
        ax.barh(place, rmse.mean(), color=colour, alpha=0.55, height=0.7)
        ax.plot(rmse, np.full(len(rmse), place), "o", color="black", markersize=3, alpha=0.7)
        ends.append(max(rmse.max(), rmse.mean()))
        ax.annotate(
            verdict[name], (ends[-1], place), (6, 0), textcoords="offset points", va="center", fontsize=8, color=_GREY
        )
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="error (RMSE) at the end of the blocks after a switch; dots: networks", xlim=(0, 1.35 * max(ends)))
    _tidy(ax, "x")
    return fig


FIGURES: dict[str, Callable[..., Any]] = {
    "prediction": prediction,
    "learning": learning,
    "rules": rules,
    "amplitude": amplitude,
    "geometry": geometry,
    "ablations": ablated,
}


def save(fig: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, and close it.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        The figure.
    path : path-like
        The file; it is replaced once the new one is complete.
    """
    import matplotlib.pyplot as plt

    with atomic_write(path) as file:
        fig.savefig(file, dpi=150, format="png")
    plt.close(fig)


def _truth(block: str, t_ms: np.ndarray, sigma_ms: float = 25.0) -> np.ndarray:
    """Return probability times bump of each event of a block as it prints itself, shape (T, K)."""
    pairs = [part.split(" ms: ") for part in block.removeprefix("PredictionTask(").removesuffix(")").split(", ")]
    bumps = [float(p) * np.exp(-((t_ms - float(delay)) ** 2) / (2 * sigma_ms**2)) for delay, p in pairs]
    return np.stack(bumps, axis=1)


def _band(ax: Axes, x: np.ndarray, errors: np.ndarray, colour: str, marker: str, alpha: float = 0.2) -> None:
    """Draw mean and standard deviation over networks, errors of shape (tests, networks)."""
    mean = errors.mean(axis=1)
    spread = errors.std(axis=1, ddof=1) if errors.shape[1] > 1 else np.zeros(len(mean))
    ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=alpha, linewidth=0)
    ax.plot(x, mean, color=colour, marker=marker, markersize=4, linewidth=1.6)


def _border(ax: Axes, number: int, length: int, block: str) -> None:
    """Mark where a block begins, and write its statistics above it."""
    if number:
        ax.axvline(number * length, color=_GREY, linestyle=":", linewidth=1)
    text = block.removeprefix("PredictionTask(").removesuffix(")").replace(", ", "\n")
    middle = (number + 0.5) * length
    ax.text(middle, 1.02, text, transform=ax.get_xaxis_transform(), ha="center", va="bottom", fontsize=7.5, color=_GREY)


def _tidy(ax: Axes, grid: str = "y") -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="black", alpha=0.12, linewidth=0.8)
    ax.set_axisbelow(True)
