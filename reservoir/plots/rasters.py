"""Raster: a dot for each spike, populations coloured, inputs shaded."""

# N neurons, E spikes

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from neuroloaders.checks import check_int, check_number
from reservoir.analysis.trains import SpikeTrains, spike_trains
from reservoir.plots.base import SMALL, colour, figure_of, own_axes, places, shade_inputs, tidy
from reservoir.recording import Recording
from reservoir.stimulus import Stimulus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["raster"]


def raster(
    spikes: Recording | SpikeTrains,
    *,
    populations: Mapping[str, slice] | None = None,
    inputs: Stimulus | Sequence[tuple] | None = None,
    start_ms: float | None = None,
    stop_ms: float | None = None,
    zero_ms: float = 0.0,
    max_spikes: int = 20_000,
    ax: Axes | None = None,
) -> Figure:
    """Draw a dot for each spike, time to the right, neurons upwards.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        Of one lane.
    populations : mapping of str to slice, optional
        Such as `Reservoir.populations`: each has a colour, and its name and mean rate at the right.
    inputs : Stimulus, or sequence of (start_ms, stop_ms) or (start_ms, stop_ms, name), optional
        What is shaded: the pulses of the run, or spans in the time of the recording, such as cues and events.
    start_ms, stop_ms : float, optional
        Which stretch, in the time of the recording.
    zero_ms : float
        Time that is 0 on the axis, such as the onset of a cue.
    max_spikes : int
        With more spikes than this, every second, third, ... neuron is drawn, which the picture says. Rates are those of
        all neurons.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Figure
    """
    whole = spike_trains(spikes)
    trains = spike_trains(whole, start_ms=start_ms, stop_ms=stop_ms)
    groups = places(populations, trains.n)
    check_int("max_spikes", max_spikes, at_least=1)
    check_number("zero_ms", zero_ms)
    stride = -(-len(trains.t_ms) // max_spikes) or 1
    ax = own_axes(ax, 3.6)
    counts = trains.counts()
    size = float(np.clip(4000 / max(len(trains.t_ms) / stride, 1), 0.6, 9.0))
    for number, (name, members) in enumerate(groups.items()):
        drawn = np.zeros(trains.n, dtype=bool)
        drawn[members[::stride]] = True
        keep = drawn[trains.neurons]
        look = {"s": size, "color": colour(number) if name else "black", "linewidth": 0, "rasterized": True}
        ax.scatter(trains.t_ms[keep] - zero_ms, trains.neurons[keep], **look)
        if name:
            rate = counts[members].sum() / (len(members) * trains.duration_ms * 1e-3)
            place = (1.015, members.mean())
            ax.annotate(
                f"{name}\n{rate:.1f} Hz", place, xycoords=("axes fraction", "data"), color=colour(number), va="center",
                fontsize=SMALL, annotation_clip=False,
            )  # fmt: skip
    if not len(trains.t_ms):
        ax.text(0.5, 0.5, "no spikes", transform=ax.transAxes, ha="center", va="center")
    ax.set_xlim(trains.start_ms - zero_ms, trains.stop_ms - zero_ms)
    ax.set_ylim(-0.5, trains.n - 0.5)
    shade_inputs(ax, inputs, begin_ms=whole.start_ms, zero_ms=zero_ms)
    ax.set(xlabel="time (ms)", ylabel="neuron" if stride == 1 else f"neuron (one in {stride} drawn)")
    return figure_of(tidy(ax, grid="x"))
