"""Rhythms of a population: the spectrum of its rate, and how much of the power lies in a band."""

# T bins, F frequencies

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_number, invalid
from reservoir.analysis.trains import SpikeTrains, spike_trains
from reservoir.recording import Recording

__all__ = ["BANDS", "Spectrum", "population_rate", "power_spectrum"]

# Hz. Names as in the field; borders differ between authors, these are those of the checks on Izhikevich's network.
BANDS = {"alpha": (7.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 60.0)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectrum:
    """Power of a population's rate at each frequency.

    Attributes
    ----------
    frequency_hz : ndarray, shape (F,)
        Frequencies, ascending.
    power : ndarray, shape (F,)
        Power spectral density of the rate per neuron, Hz²/Hz. Its integral is the variance of the rate.
    """

    frequency_hz: np.ndarray
    power: np.ndarray

    def band_fraction(self, low_hz: float, high_hz: float, *, of_hz: tuple[float, float] = (1.0, 200.0)) -> float:
        """Return which part of the power lies in a band, borders included; NaN if there is no power.

        Parameters
        ----------
        low_hz, high_hz : float
            The band, such as ``*BANDS["alpha"]``.
        of_hz : tuple of float
            The power that counts as all.

        Notes
        -----
        Power that is the same at all frequencies would lie in a band by its width: compare with
        ``(high_hz - low_hz) / (of_hz[1] - of_hz[0])``.
        """
        whole = self.power[self._inside("of_hz", *of_hz)].sum()
        part = self.power[self._inside("low_hz", low_hz, high_hz)].sum()
        if low_hz < of_hz[0] or high_hz > of_hz[1]:
            raise invalid("of_hz", f"hold the band of {low_hz:g} to {high_hz:g} Hz", of_hz)
        return float(part / whole) if whole > 0 else float("nan")

    def peak_hz(self, low_hz: float, high_hz: float) -> float:
        """Return the frequency of the highest peak in a band, borders included; NaN if there is none.

        Parameters
        ----------
        low_hz, high_hz : float
            The band.

        Notes
        -----
        A peak is a frequency with more power than its neighbour on either side, inside the band or outside. Where
        power only falls in a band, there is none. One noisy spectrum has many: average over segments or runs.
        """
        inside = self._inside("low_hz", low_hz, high_hz)
        padded = np.concatenate([[-np.inf], self.power, [-np.inf]])
        peaks = np.flatnonzero(inside & (self.power > padded[:-2]) & (self.power > padded[2:]))
        return float(self.frequency_hz[peaks[self.power[peaks].argmax()]]) if len(peaks) else float("nan")

    def _inside(self, name: str, low: float, high: float) -> np.ndarray:
        check_number(name, low, at_least=0)
        check_number(name if name == "of_hz" else "high_hz", high, above=low)
        inside = (self.frequency_hz >= low) & (self.frequency_hz <= high)
        step = self.frequency_hz[1] if len(self.frequency_hz) > 1 else np.inf
        if not inside.any() or high > self.frequency_hz[-1] + step:
            got = f"{low:g} to {high:g} Hz"
            required = f"hold a frequency of the spectrum, {step:.3g} Hz apart up to {self.frequency_hz[-1]:.4g} Hz"
            raise invalid(name, required, got, "Lengthen `segment_ms`, shorten `bin_ms`, or choose another band.")
        return inside


def population_rate(spikes: Recording | SpikeTrains, *, bin_ms: float = 1.0) -> np.ndarray:
    """Return the mean rate of the neurons in the course of time.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        Of one lane; ``trains.part(neurons=net.populations["E"])`` for one population.
    bin_ms : float
        Length of a bin.

    Returns
    -------
    ndarray, shape (T,)
        Hz per neuron.

    Examples
    --------
    >>> trains = SpikeTrains(t_ms=[1.0, 1.5, 7.0], neurons=[0, 1, 0], n=2, stop_ms=10.0)
    >>> population_rate(trains, bin_ms=5.0).tolist()
    [200.0, 100.0]
    """
    trains = spike_trains(spikes)
    return trains.binned(bin_ms, each=False) / (trains.n * bin_ms * 1e-3)


def power_spectrum(
    spikes: Recording | SpikeTrains, *, bin_ms: float = 1.0, segment_ms: float | None = None, window: str = "hann"
) -> Spectrum:
    """Return the spectrum of a population's rate, by Welch's method.

    Parameters
    ----------
    spikes : Recording or SpikeTrains
        Of one lane. Leave out how the network settles: ``spike_trains(recording, start_ms=100.0)``.
    bin_ms : float
        Length of the bins in which spikes are counted; frequencies go up to ``500 / bin_ms`` Hz.
    segment_ms : float, optional
        Length of the segments, which overlap by half and whose spectra are averaged; by default 512 ms, or the whole
        recording if that is shorter. Frequencies lie ``1000 / segment_ms`` Hz apart. The whole recording is one
        periodogram: fine, and noisy.
    window : str
        A window of `scipy.signal.get_window`; "boxcar" for none.

    Returns
    -------
    Spectrum

    Notes
    -----
    `scipy.signal.welch` after [1]_; the mean of each segment is subtracted. Independent Poisson neurons of rate r have
    the flat spectrum 2 r / N.

    References
    ----------
    .. [1] Welch, IEEE Transactions on Audio and Electroacoustics 15 (1967), doi:10.1109/TAU.1967.1161901.

    Examples
    --------
    >>> t_ms = np.arange(0.0, 1000.0, 25.0)
    >>> trains = SpikeTrains(t_ms=t_ms, neurons=np.zeros(40, dtype=int), n=1, stop_ms=1000.0)
    >>> power_spectrum(trains, segment_ms=1000.0).peak_hz(10.0, 60.0)
    40.0
    """
    import scipy.signal  # takes longer to load than all of ours

    rate = population_rate(spikes, bin_ms=bin_ms)
    if segment_ms is None:
        n_segment = min(len(rate), max(2, round(512 / bin_ms)))
    else:
        advice = "Record for longer, or take a shorter segment."
        check_number("segment_ms", segment_ms, at_least=2 * bin_ms, at_most=len(rate) * bin_ms, advice=advice)
        n_segment = round(segment_ms / bin_ms)
    if len(rate) < 2:
        raise invalid("spikes", "last at least two bins", f"{len(rate)}", "Shorten `bin_ms`.")
    try:
        taper = scipy.signal.get_window(window, n_segment)
    except ValueError as error:
        raise invalid("window", "be known to scipy.signal.get_window", repr(window)) from error
    frequency, power = scipy.signal.welch(rate, fs=1e3 / bin_ms, window=taper, nperseg=n_segment)
    return Spectrum(frequency_hz=frequency, power=power)
