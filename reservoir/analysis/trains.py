"""Spike trains: who spiked and when, of how many neurons, in which stretch of time."""

# N neurons, E spikes, T bins

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_int, check_number, check_same_length, check_shape, invalid
from reservoir.recording import Recording

__all__ = ["SpikeTrains", "spike_trains"]

# In bins. A spike's time is its step times dt, which rounds: 0.1 * 3 / 0.1 must fall into bin 3.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class SpikeTrains:
    """Spikes of a group of neurons in a stretch of time.

    What did not come from this package is analysed by way of this class.

    Parameters
    ----------
    t_ms : array, shape (E,)
        Time of each spike, in any order.
    neurons : array of int, shape (E,)
        Who spiked, 0 to `n` - 1.
    n : int
        Number of neurons, silent ones included.
    start_ms, stop_ms : float
        The stretch that was observed; a spike at `stop_ms` does not belong to it.

    Raises
    ------
    TypeError, ValueError
        If arrays differ in length, or if spikes lie outside the stretch or the neurons.

    Examples
    --------
    >>> trains = SpikeTrains(t_ms=[10.0, 30.0, 35.0], neurons=[0, 0, 2], n=4, stop_ms=100.0)
    >>> trains.counts().tolist()
    [2, 0, 1, 0]
    """

    t_ms: np.ndarray
    neurons: np.ndarray
    n: int
    stop_ms: float
    start_ms: float = 0.0

    def __post_init__(self) -> None:
        t_ms, neurons = np.asarray(self.t_ms, dtype=np.float64), np.asarray(self.neurons)
        check_finite("t_ms", check_shape("t_ms", t_ms, ("E",)))
        check_shape("neurons", neurons, ("E",))
        check_same_length(t_ms=t_ms, neurons=neurons)
        n = check_int("n", self.n, at_least=1)
        start = check_number("start_ms", self.start_ms)
        stop = check_number("stop_ms", self.stop_ms, above=start)
        if neurons.size and neurons.dtype.kind not in "iu":
            raise invalid("neurons", "be whole numbers", neurons, kind=TypeError)
        if neurons.size and not 0 <= neurons.min() <= neurons.max() < n:
            raise invalid("neurons", f"be from 0 to {n - 1}", f"{neurons.min()} to {neurons.max()}", "Raise `n`.")
        if t_ms.size and not start <= t_ms.min() <= t_ms.max() < stop:
            got = f"{t_ms.min():g} to {t_ms.max():g} ms"
            raise invalid("t_ms", f"lie in [{start:g}, {stop:g}) ms", got, "Give the stretch that was observed.")
        order = np.lexsort((neurons, t_ms))
        for name, value in (("t_ms", t_ms[order]), ("neurons", neurons[order].astype(np.int64))):
            object.__setattr__(self, name, value)

    @property
    def duration_ms(self) -> float:
        """Length of the stretch."""
        return self.stop_ms - self.start_ms

    def counts(self) -> np.ndarray:
        """Return the number of spikes of each neuron, shape (N,)."""
        return np.bincount(self.neurons, minlength=self.n)

    def part(
        self, *, start_ms: float | None = None, stop_ms: float | None = None, neurons: slice | np.ndarray | None = None
    ) -> SpikeTrains:
        """Return the spikes of a shorter stretch, or of some of the neurons.

        Parameters
        ----------
        start_ms, stop_ms : float, optional
            The stretch; it must lie within that of the whole.
        neurons : slice or array of int, optional
            Which neurons, such as ``reservoir.populations["E"]``. They are numbered anew, from 0.
        """
        start = self.start_ms if start_ms is None else start_ms
        stop = self.stop_ms if stop_ms is None else stop_ms
        check_number("start_ms", start, at_least=self.start_ms, below=self.stop_ms)
        check_number("stop_ms", stop, above=start, at_most=self.stop_ms)
        chosen = self._chosen(neurons)
        number = np.full(self.n, -1, dtype=np.int64)
        number[chosen] = np.arange(len(chosen))
        keep = (number[self.neurons] >= 0) & (self.t_ms >= start) & (self.t_ms < stop)
        return SpikeTrains(
            t_ms=self.t_ms[keep], neurons=number[self.neurons[keep]], n=len(chosen), start_ms=start, stop_ms=stop
        )

    def _chosen(self, neurons: slice | np.ndarray | None) -> np.ndarray:
        if neurons is None or isinstance(neurons, slice):
            chosen = np.arange(self.n)[slice(None) if neurons is None else neurons]
        else:
            chosen = np.array([check_int("neurons", k, at_least=0, at_most=self.n - 1) for k in neurons], dtype=int)
        if not len(chosen) or len(np.unique(chosen)) < len(chosen):
            raise invalid("neurons", "name at least one neuron, and each once", neurons)
        return chosen

    def binned(self, bin_ms: float = 1.0, *, each: bool = True) -> np.ndarray:
        """Count the spikes in bins; a rest at the end that fills no bin is left out.

        Parameters
        ----------
        bin_ms : float
            Length of a bin.
        each : bool
            Whether for each neuron, shape (T, N), or of all together, shape (T,).

        Returns
        -------
        ndarray of int64
        """
        check_number("bin_ms", bin_ms, above=0, at_most=self.duration_ms)
        n_bins = int(self.duration_ms / bin_ms + _ROUNDING)
        bins = np.floor((self.t_ms - self.start_ms) / bin_ms + _ROUNDING).astype(np.int64)
        inside = bins < n_bins
        if not each:
            return np.bincount(bins[inside], minlength=n_bins)
        flat = np.bincount(bins[inside] * self.n + self.neurons[inside], minlength=n_bins * self.n)
        return flat.reshape(n_bins, self.n)


def spike_trains(
    spikes: Recording | SpikeTrains, *, start_ms: float | None = None, stop_ms: float | None = None
) -> SpikeTrains:
    """Return the spikes of a recording in the form that all functions here work on.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        A recording of one lane; ``recording.lane(k)`` chooses one.
    start_ms, stop_ms : float, optional
        A shorter stretch, in the time of the recording, which counts from the beginning of the simulation. To leave out
        how a network settles, give its `start_ms`.

    Raises
    ------
    TypeError, ValueError
        If it is neither, has several lanes, lasts no time, or kept the spikes of some neurons only, whose silence would
        be counted as silence.

    Examples
    --------
    >>> from reservoir import Reservoir, simulate
    >>> spike_trains(simulate(Reservoir(100, generator=0), 200.0), start_ms=100.0).duration_ms
    100.0
    """
    if isinstance(spikes, Recording):
        spikes = _of_recording(spikes)
    if not isinstance(spikes, SpikeTrains):
        raise invalid("spikes", "be a Recording or SpikeTrains", spikes, kind=TypeError)
    return spikes if start_ms is None and stop_ms is None else spikes.part(start_ms=start_ms, stop_ms=stop_ms)


def _of_recording(recording: Any) -> SpikeTrains:
    if recording.n_lanes != 1:
        advice = "Choose one: recording.lane(0)."
        raise invalid("spikes", "be a recording of one lane", f"{recording.n_lanes} lanes", advice)
    if recording._meta["spikes"] == "watched":
        advice = "Run with Record(spikes='all'), or pass SpikeTrains of those that were watched."
        raise invalid("spikes", "hold the spikes of every neuron", "those of watched ones", advice)
    if not recording.n_steps:
        raise invalid("spikes", "last some time", "a recording of 0 steps")
    t_ms, neurons = recording.spikes()
    first, last = recording.step, recording.step + recording.n_steps
    return SpikeTrains(
        t_ms=t_ms, neurons=neurons, n=recording.n, start_ms=first * recording.dt_ms, stop_ms=last * recording.dt_ms
    )
