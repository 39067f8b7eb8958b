"""How neurons fire: rates, irregularity, synchrony."""

# N neurons, T time or bins, P populations

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_number, check_shape, invalid
from reservoir.analysis.trains import SpikeTrains, spike_trains
from reservoir.recording import Recording

__all__ = ["Activity", "describe_activity", "firing_rates", "isi_cv", "isi_cv2", "synchrony"]


def firing_rates(spikes: Recording | SpikeTrains) -> np.ndarray:
    """Return the mean rate of each neuron.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        Of one lane.

    Returns
    -------
    ndarray, shape (N,)
        Hz.

    Examples
    --------
    >>> firing_rates(SpikeTrains(t_ms=[10.0, 30.0], neurons=[1, 1], n=2, stop_ms=500.0)).tolist()
    [0.0, 4.0]
    """
    trains = spike_trains(spikes)
    return trains.counts() / (trains.duration_ms * 1e-3)


def isi_cv(spikes: Recording | SpikeTrains) -> np.ndarray:
    """Return how irregularly each neuron fires: the coefficient of variation of its inter-spike intervals.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        Of one lane.

    Returns
    -------
    ndarray, shape (N,)
        0 for a clock, 1 for a Poisson process; NaN where there are fewer than 3 spikes, which are 2 intervals.

    Notes
    -----
    Standard deviation (of N, not N - 1, intervals) over mean. Two things bias it: from few intervals it comes out too
    small, and a rate that changes in the course of the recording makes it larger, for which `isi_cv2` is there. Short
    recordings do not see long intervals.

    Examples
    --------
    >>> trains = SpikeTrains(t_ms=[0.0, 10.0, 40.0, 5.0], neurons=[0, 0, 0, 1], n=2, stop_ms=50.0)
    >>> isi_cv(trains).tolist()
    [0.5, nan]
    """
    intervals, neurons, n = _intervals(spikes)
    count, total = np.bincount(neurons, minlength=n), np.bincount(neurons, intervals, n)
    mean = np.divide(total, count, out=np.full(n, np.nan), where=count > 1)
    # Deviations from the mean first: the difference of two large sums of squares would lose digits.
    square = np.bincount(neurons, (intervals - mean[neurons]) ** 2, n)
    spread = np.sqrt(np.divide(square, count, out=np.full(n, np.nan), where=count > 1))
    return spread / mean


def isi_cv2(spikes: Recording | SpikeTrains) -> np.ndarray:
    r"""Return how irregularly each neuron fires from one interval to the next.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        Of one lane.

    Returns
    -------
    ndarray, shape (N,)
        0 for a clock, 1 for a Poisson process; NaN where there are fewer than 3 spikes.

    Notes
    -----
    :math:`CV_2 = \langle 2 |I_{k+1} - I_k| / (I_{k+1} + I_k) \rangle`, of [1]_: unlike `isi_cv` it hardly notices
    slow changes of the rate.

    References
    ----------
    .. [1] Holt, Softky, Koch & Douglas, Journal of Neurophysiology 75 (1996), doi:10.1152/jn.1996.75.5.1806.

    Examples
    --------
    >>> isi_cv2(SpikeTrains(t_ms=[0.0, 10.0, 40.0], neurons=[0, 0, 0], n=1, stop_ms=50.0)).tolist()
    [1.0]
    """
    intervals, neurons, n = _intervals(spikes)
    same = neurons[1:] == neurons[:-1]
    total = intervals[1:] + intervals[:-1]
    ratio = 2 * np.abs(np.diff(intervals))[same] / total[same]
    owner = neurons[1:][same]
    count = np.bincount(owner, minlength=n)
    return np.divide(np.bincount(owner, ratio, n), count, out=np.full(n, np.nan), where=count > 0)


def _intervals(spikes: Recording | SpikeTrains) -> tuple[np.ndarray, np.ndarray, int]:
    """Return all inter-spike intervals, neuron by neuron in the order of time, whose they are, and N."""
    trains = spike_trains(spikes)
    order = np.lexsort((trains.t_ms, trains.neurons))
    t_ms, neurons = trains.t_ms[order], trains.neurons[order]
    same = neurons[1:] == neurons[:-1]
    intervals = np.diff(t_ms)[same]
    if (intervals <= 0).any():
        twice = neurons[1:][same][np.argmin(intervals)]
        raise invalid("spikes", "hold at most one spike of a neuron at a time", f"two of neuron {twice}")
    return intervals, neurons[1:][same], trains.n


def synchrony(signal: Any) -> float:
    r"""Return how much neurons do the same: the measure chi of Golomb.

    Parameters
    ----------
    signal : array, shape (T, N)
        Of each neuron, such as ``recording.traces["v"][:, 0]``, or ``trains.binned(5.0)`` for spikes.

    Returns
    -------
    float
        0 to 1: 1 if all are alike, about ``1 / sqrt(N)`` if they are independent, so compare networks of one size only.
        NaN if nothing changes.

    Notes
    -----
    :math:`\chi^2 = \mathrm{Var}_t \langle x_i \rangle_i / \langle \mathrm{Var}_t\, x_i \rangle_i`, equations 8 to 11
    of [1]_. There x is the membrane potential. With binned spikes it depends on the bin.

    References
    ----------
    .. [1] Golomb, Scholarpedia 2 (2007) 1347, doi:10.4249/scholarpedia.1347.

    Examples
    --------
    >>> wave = np.sin(np.arange(100.0))[:, None]
    >>> round(synchrony(wave * np.ones((1, 5))), 6), round(synchrony(wave * [[1.0, -1.0]]), 6)
    (1.0, 0.0)
    """
    signal = np.asarray(signal, dtype=np.float64)
    check_finite("signal", check_shape("signal", signal, ("T", "N")))
    if 0 in signal.shape:
        raise invalid("signal", "have at least one step and one neuron", signal)
    single = signal.var(axis=0).mean()
    return float(np.sqrt(signal.mean(axis=1).var() / single)) if single > 0 else float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """How each population fires.

    Attributes
    ----------
    rates_hz, cv, cv2 : dict of str to ndarray
        Of each population: a number for each of its neurons.
    synchrony : dict of str to float
        Of each population, from binned spikes.
    bin_ms : float
        Length of the bins.
    """

    rates_hz: dict[str, np.ndarray]
    cv: dict[str, np.ndarray]
    cv2: dict[str, np.ndarray]
    synchrony: dict[str, float]
    bin_ms: float

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each population: means, and of how many neurons; None where there are none."""
        rows = []
        for name, rates in self.rates_hz.items():
            row = {"population": name, "neurons": len(rates), "silent": int((rates == 0).sum())}
            row |= {"rate_hz": float(rates.mean()), "rate_hz sd": float(rates.std())}
            for key, values in (("cv", self.cv[name]), ("cv2", self.cv2[name])):
                known = values[np.isfinite(values)]
                row[key] = float(known.mean()) if len(known) else None
            row["with cv"] = int(np.isfinite(self.cv[name]).sum())
            chi = self.synchrony[name]
            row["synchrony"] = chi if np.isfinite(chi) else None
            rows.append(row)
        return rows

    def table(self) -> str:
        """Return `rows` as text."""
        lines = [f"{'':10} {'neurons':>7} {'silent':>6} {'rate (Hz)':>13} {'CV':>5} {'CV2':>5} {'chi':>5}"]
        for row in self.rows():
            cells = [f"{'-' if row[key] is None else format(row[key], '.2f'):>5}" for key in ("cv", "cv2", "synchrony")]
            rate = f"{row['rate_hz']:.2f}+-{row['rate_hz sd']:.2f}"
            lines.append(
                f"{row['population']:10} {row['neurons']:7} {row['silent']:6} {rate:>13} {' '.join(cells)}".rstrip()
            )
        return "\n".join(lines)


def describe_activity(
    spikes: Recording | SpikeTrains, populations: Mapping[str, slice | np.ndarray] | None = None, *, bin_ms: float = 5.0
) -> Activity:
    """Describe how each population of a network fires.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        Of one lane.
    populations : mapping of str to slice or array of int, optional
        Such as `Reservoir.populations`; by default all neurons are one.
    bin_ms : float
        Length of the bins in which synchrony is measured.

    Returns
    -------
    Activity

    Examples
    --------
    >>> from reservoir import Reservoir, simulate
    >>> net = Reservoir(100, generator=0)
    >>> found = describe_activity(simulate(net, 500.0), net.populations)
    >>> list(found.rates_hz), found.rates_hz["E"].shape
    (['E', 'I'], (80,))
    """
    trains = spike_trains(spikes)
    check_number("bin_ms", bin_ms, above=0, at_most=trains.duration_ms)
    populations = {"all": slice(None)} if populations is None else populations
    if not populations:
        raise invalid("populations", "name at least one population", "none")
    parts = {name: trains.part(neurons=place) for name, place in populations.items()}
    return Activity(
        rates_hz={name: firing_rates(part) for name, part in parts.items()},
        cv={name: isi_cv(part) for name, part in parts.items()},
        cv2={name: isi_cv2(part) for name, part in parts.items()},
        synchrony={name: synchrony(part.binned(bin_ms)) for name, part in parts.items()},
        bin_ms=bin_ms,
    )
