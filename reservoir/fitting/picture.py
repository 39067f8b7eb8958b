"""The picture of a fit: potential over model, spikes of every sweep, rate over current.

matplotlib is loaded by the first call. None shows anything.
"""

# S sweeps

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_int
from reservoir.fitting.result import IzhikevichFit, Prediction
from reservoir.fitting.sweeps import find_spikes, sweeps_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_f_i", "draw_raster", "draw_sweep", "fit_figure"]

# Okabe & Ito 2008, "Color universal design".
_DATA, _MODEL, _GREY = "#222222", "#D55E00", "#555555"


def fit_figure(fit: IzhikevichFit, voltage: Any, current: Any, sfreq: float) -> Figure:
    """Draw a fit over its recording.

    On the left up to three sweeps over the model, held-out ones first; on the right the spikes of every sweep, and the
    rate over the current.

    Parameters
    ----------
    fit : IzhikevichFit
        The fit.
    voltage, current : array or list of arrays
        The recording in mV and pA, all its sweeps in the order in which they were fitted.
    sfreq : float
        Samples a second.
    """
    import matplotlib.pyplot as plt

    potentials, currents = sweeps_of("voltage", voltage), sweeps_of("current", current)
    prediction = _predict(fit, potentials, currents, sfreq)
    shown = _telling(fit, len(potentials))
    fig = plt.figure(figsize=(11.0, 2.2 + 1.7 * len(shown)), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=(1.35, 1.0))
    axes = left.subplots(len(shown), squeeze=False, sharex=True)[:, 0]
    for ax, sweep in zip(axes, shown, strict=True):
        draw_sweep(fit, potentials, currents, sfreq, sweep, ax=ax, prediction=prediction)
        ax.set_xlabel("")
    axes[0].legend(loc="lower right", ncols=2, fontsize=8, frameon=False, bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
    axes[-1].set_xlabel("time (s)")
    top, bottom = right.subplots(2, height_ratios=(1.25, 1.0))
    draw_raster(fit, potentials, currents, sfreq, ax=top, prediction=prediction)
    draw_f_i(fit, potentials, currents, sfreq, ax=bottom, prediction=prediction)
    good = fit.train if fit.held_out is None else fit.held_out
    where = "fitted sweeps; none was held out" if fit.held_out is None else "held-out sweeps"
    fig.suptitle(
        f"Izhikevich {fit.form} on {where}: Γ = {good.gamma:.2f} at {good.delta_ms:g} ms, "
        f"{good.count_error:.1f} spikes off a sweep, {good.explained_variance:.0%} of the variance between spikes",
        fontsize=11,
    )
    return fig


def draw_sweep(
    fit: IzhikevichFit,
    voltage: Any,
    current: Any,
    sfreq: float,
    sweep: int,
    *,
    ax: Axes | None = None,
    prediction: Prediction | None = None,
) -> Axes:
    """Draw one sweep over what the model does with its current.

    Parameters
    ----------
    fit : IzhikevichFit
        The fit.
    voltage, current : array or list of arrays
        The recording.
    sfreq : float
        Samples a second.
    sweep : int
        Which one.
    ax : Axes, optional
        Where; by default a new figure's.
    prediction : Prediction, optional
        What the model does, if it is known already.
    """
    n_sweeps = len(sweeps_of("voltage", voltage))
    check_int("sweep", sweep, at_least=0, at_most=n_sweeps - 1)
    potentials, currents, prediction, ax = _opened(fit, voltage, current, sfreq, prediction, ax)
    v, model = potentials[sweep], prediction.voltage_mV[sweep]
    ax.plot(np.arange(len(v)) / sfreq, v, color=_DATA, linewidth=0.8, label="recorded")
    ax.plot(np.arange(1, len(model) + 1) * prediction.dt_ms / 1000, model, color=_MODEL, linewidth=0.8, label="model")
    held = fit.held_out is not None and sweep in fit.held_out.sweeps
    low, high = currents[sweep].min(), currents[sweep].max()
    name = f"sweep {sweep}, {'held out' if held else 'fitted'}: {low:.0f} to {high:.0f} pA"
    ax.set_title(name, fontsize=9, loc="left")
    ax.set(xlabel="time (s)", ylabel="v (mV)")
    ax.margins(x=0)
    _tidy(ax)
    return ax


def draw_raster(
    fit: IzhikevichFit,
    voltage: Any,
    current: Any,
    sfreq: float,
    *,
    ax: Axes | None = None,
    prediction: Prediction | None = None,
) -> Axes:
    """Draw the spikes of every sweep, recorded above modelled.

    Parameters
    ----------
    fit, voltage, current, sfreq, ax, prediction
        As for `draw_sweep`.
    """
    potentials, currents, prediction, ax = _opened(fit, voltage, current, sfreq, prediction, ax)
    recorded = _recorded(fit, potentials, sfreq)
    numbers = np.arange(len(recorded))
    style = {"linelengths": 0.36, "linewidths": 0.9}
    ax.eventplot([x / 1000 for x in recorded], lineoffsets=numbers + 0.2, colors=_DATA, **style)
    ax.eventplot([x / 1000 for x in prediction.spikes_ms], lineoffsets=numbers - 0.2, colors=_MODEL, **style)
    for sweep in () if fit.held_out is None else fit.held_out.sweeps:
        ax.axhspan(sweep - 0.5, sweep + 0.5, color=_GREY, alpha=0.15, linewidth=0)
    grey = "" if fit.held_out is None else "; grey: held out"
    ax.set_title(f"spikes: recorded (black), model (orange){grey}", fontsize=9, loc="left")
    longest = max(len(v) for v in potentials) / sfreq
    ax.set(xlabel="time (s)", ylabel="sweep", xlim=(0, longest), ylim=(-0.6, len(recorded) - 0.4))
    ax.yaxis.get_major_locator().set_params(integer=True)
    _tidy(ax)
    return ax


def draw_f_i(
    fit: IzhikevichFit,
    voltage: Any,
    current: Any,
    sfreq: float,
    *,
    ax: Axes | None = None,
    prediction: Prediction | None = None,
) -> Axes:
    """Draw the number of spikes of every sweep over its strongest current.

    Parameters
    ----------
    fit, voltage, current, sfreq, ax, prediction
        As for `draw_sweep`.
    """
    potentials, currents, prediction, ax = _opened(fit, voltage, current, sfreq, prediction, ax)
    # Of a step its height, with its sign; the size of the transition, not of a test pulse, is what sweeps differ in.
    strength = np.array([_strength(i, currents) for i in currents])
    order = np.argsort(strength, kind="stable")
    counts = [
        np.array([len(x) for x in trains]) for trains in (_recorded(fit, potentials, sfreq), prediction.spikes_ms)
    ]
    ax.plot(strength[order], counts[0][order], "-o", color=_DATA, markersize=4, linewidth=1, label="recorded")
    ax.plot(strength[order], counts[1][order], "-s", color=_MODEL, markersize=4, linewidth=1, label="model")
    if fit.held_out is not None:
        held = list(fit.held_out.sweeps)
        held = [k for k in held if k < len(strength)]
        for count, marker in zip(counts, "os", strict=True):
            ax.plot(strength[held], count[held], marker, color="none", markeredgecolor=_GREY, markersize=9)
    ring = "" if fit.held_out is None else " (ringed: held out)"
    ax.set_title(f"spikes in a sweep{ring}", fontsize=9, loc="left")
    ax.set(xlabel="current (pA)", ylabel="spikes", ylim=(-0.03 * max(1, counts[0].max(), counts[1].max()), None))
    ax.legend(fontsize=8, frameon=False)
    _tidy(ax)
    return ax


def _strength(current: np.ndarray, all_currents: list[np.ndarray]) -> float:
    """Return the current of a sweep where sweeps differ most: the height of its step, or the mean of its noise."""
    shortest = min(map(len, all_currents))
    spread = np.ptp([one[:shortest] for one in all_currents], axis=0)
    return float(current[:shortest][spread >= 0.5 * spread.max()].mean())


def _telling(fit: IzhikevichFit, n: int) -> list[int]:
    """Return up to three sweeps to show: held-out ones, few spikes to many, then fitted ones."""
    chosen: list[int] = []
    for good in (fit.held_out, fit.train):
        if good is None:
            continue
        order = np.argsort(good.spikes_data, kind="stable")
        spiking = [int(k) for k in order if good.spikes_data[k]] or [int(order[-1])]
        places = dict.fromkeys((len(spiking) - 1, 0, len(spiking) // 2))
        chosen += [good.sweeps[spiking[place]] for place in places]
    return sorted(k for k in chosen[:3] if k < n)


def _opened(
    fit: IzhikevichFit, voltage: Any, current: Any, sfreq: float, prediction: Prediction | None, ax: Axes | None
) -> tuple[list[np.ndarray], list[np.ndarray], Prediction, Axes]:
    """Return the sweeps, what the model does in them, and where to draw."""
    from snn.plots.base import own_axes

    potentials, currents = sweeps_of("voltage", voltage), sweeps_of("current", current)
    return potentials, currents, prediction or _predict(fit, potentials, currents, sfreq), own_axes(ax, 3.2)


def _predict(fit: IzhikevichFit, potentials: list[np.ndarray], currents: list[np.ndarray], sfreq: float) -> Prediction:
    first = max(1, round(sfreq / 1000))
    start = [min(float(np.median(v[:first])), fit.ceiling_mV) for v in potentials]
    return fit.predict(currents, sfreq, v_start_mV=start)


def _recorded(fit: IzhikevichFit, potentials: list[np.ndarray], sfreq: float) -> list[np.ndarray]:
    levels = {"level_mV": fit.level_mV, "prominence_mV": fit.prominence_mV}
    return [find_spikes(v, sfreq, **levels) * (1000.0 / sfreq) for v in potentials]


def _tidy(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=8)
