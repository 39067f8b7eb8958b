"""What all pictures of reservoirs share: colours, names of events, shaded inputs, means with spread, names of lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_number, invalid
from reservoir.stimulus import Stimulus
from snn.plots.base import ANN as GREY
from snn.plots.base import own_axes, own_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS", "GREY", "SMALL", "check_interval", "colour", "draw_spread", "event_name", "figure_of", "label_ends",
    "own_axes", "own_figure", "places", "shade_inputs", "tidy",
]  # fmt: skip

# Okabe & Ito 2008, "Color universal design": colour-blind readers can tell them apart. Never the only sign.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SMALL = 8.5


def colour(number: int) -> str:
    """Return the colour of the population, event or curve of that number."""
    return COLOURS[number % len(COLOURS)]


def event_name(k: int) -> str:
    """Return what an event is called: A, B, and so on."""
    return chr(ord("A") + k) if k < 26 else f"event {k}"


def figure_of(ax: Axes) -> Figure:
    """Return the figure that holds axes, those of a subfigure included."""
    return ax.get_figure(root=True)


def check_interval(start_ms: float, stop_ms: float) -> tuple[float, float]:
    """Return both if they are an interval."""
    start = check_number("start_ms", start_ms)
    return start, check_number("stop_ms", stop_ms, above=start)


def places(populations: Mapping[str, slice] | None, n: int) -> dict[str, np.ndarray]:
    """Return the neurons of each population; one without a name if there are none."""
    if populations is None:
        return {"": np.arange(n)}
    found = {name: np.arange(n)[place] for name, place in populations.items()}
    members = np.concatenate([np.zeros(0, dtype=np.int64), *found.values()])
    last = max((place.stop or 0 for place in populations.values() if isinstance(place, slice)), default=0)
    if not len(members) or len(np.unique(members)) < len(members) or last > n:
        raise invalid("populations", f"hold some of the {n} neurons, and each at most once", f"{dict(populations)}")
    return found


def shade_inputs(ax: Axes, inputs: Any, *, begin_ms: float, zero_ms: float) -> None:
    """Shade when something came from outside, and write what it was above it.

    `inputs` is a Stimulus, whose times count from the beginning of the run at `begin_ms`, or (start, stop) or
    (start, stop, name) in the time of the recording. `zero_ms` is where the axis has its 0.
    """
    if inputs is None:
        return
    if isinstance(inputs, Stimulus):
        spans = sorted({(pulse.start_ms + begin_ms, pulse.stop_ms + begin_ms) for pulse in inputs.pulses})
    else:
        spans = [tuple(span) for span in inputs]
    for span in spans:
        if len(span) not in (2, 3):
            raise invalid("inputs", "be a Stimulus, or hold (start, stop) or (start, stop, name)", span)
        start, stop = check_interval(span[0], span[1])
        ax.axvspan(start - zero_ms, stop - zero_ms, color="black", alpha=0.1, linewidth=0, zorder=0)
        if len(span) == 3:
            place = ((start + stop) / 2 - zero_ms, 1.01)
            ax.annotate(span[2], place, xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=SMALL)


def draw_spread(ax: Axes, x: np.ndarray, values: np.ndarray, colour: str, **look: Any) -> np.ndarray:
    """Draw the mean over the last axis of `values` (X, S), and a band of one standard deviation; return the mean."""
    mean = values.mean(axis=1)
    if values.shape[1] > 1:
        spread = values.std(axis=1, ddof=1)
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
    ax.plot(x, mean, color=colour, **{"linewidth": 1.8, **look})
    return mean


def label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]], *, room: float = 0.055) -> None:
    """Write names right of where lines end, (x, y, name, colour), pushed apart where they would lie upon each other.

    `room` is the height of a line of letters, as a share of the axis. To be called once the axis has its limits.
    """
    scale = ax.transScale + ax.transLimits
    heights = [float(scale.transform((x, max(y, ax.get_ylim()[0])))[1]) for x, y, _, _ in ends]
    order = sorted(range(len(ends)), key=lambda k: heights[k])
    below = -np.inf
    shift = max(0.0, _stack([heights[k] for k in order], room) - 1.0)
    for k in order:
        x, _, name, colour = ends[k]
        below = max(min(heights[k], 1.0) - shift, below + room)
        at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "center"}
        ax.annotate(name, (x, below), (6, 0), color=colour, fontsize=SMALL, annotation_clip=False, **at)


def _stack(heights: Sequence[float], room: float) -> float:
    """Return where the highest of the names would lie."""
    top = -np.inf
    for height in heights:
        top = max(min(height, 1.0), top + room)
    return top
