"""The stages from sound to spikes, one pure function each: filterbank, hair cell, adaptation, spiking neurons.

Written to be read and checked, with NumPy and SciPy. `cochlea_kernel` computes the same in one pass and much faster;
tests hold one against the other.
"""

# C channels from low to high frequency, F fibres a channel, T samples, E events

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = [
    "FILTERBANKS",
    "NORMALISATIONS",
    "adapt",
    "emphasise",
    "erb_hz",
    "erb_number",
    "erb_space",
    "gammatone_bands",
    "gammatone_poles",
    "hair_cell",
    "hears_fine_structure",
    "lif_spikes",
    "one_pole",
]

# Glasberg & Moore 1990, equation 3.
_ERB_MIN_HZ, _ERB_SLOPE = 24.7, 4.37e-3


def erb_hz(f_hz: np.ndarray | float) -> np.ndarray:
    """Return the equivalent rectangular bandwidth (Hz) of the human auditory filter at frequency `f_hz`.

    Notes
    -----
    ``24.7 (4.37 f / 1000 + 1)``, equation 3 of Glasberg & Moore, Hearing Research 47 (1990), 103-138.
    """
    return _ERB_MIN_HZ * (_ERB_SLOPE * np.asarray(f_hz, dtype=np.float64) + 1)


def erb_number(f_hz: np.ndarray | float) -> np.ndarray:
    """Return how many auditory filters fit below `f_hz`: the integral of ``1 / erb_hz`` from 0, in Cams."""
    return np.log1p(_ERB_SLOPE * np.asarray(f_hz, dtype=np.float64)) / (_ERB_MIN_HZ * _ERB_SLOPE)


def erb_space(f_min_hz: float, f_max_hz: float, n_channels: int) -> np.ndarray:
    """Return `n_channels` frequencies (Hz) from `f_min_hz` to `f_max_hz`, equally far apart in ERB number.

    Returns
    -------
    ndarray of float64, shape (C,)
        Rising, both ends included; a single channel lies in the middle.
    """
    low, high = erb_number(f_min_hz), erb_number(f_max_hz)
    numbers = np.linspace(low, high, n_channels) if n_channels > 1 else np.array([(low + high) / 2])
    return np.expm1(numbers * _ERB_MIN_HZ * _ERB_SLOPE) / _ERB_SLOPE


def gammatone_poles(centres_hz: np.ndarray, sfreq: float) -> np.ndarray:
    r"""Return the pole of each digital gammatone filter: four equal complex one-pole filters in a row.

    Parameters
    ----------
    centres_hz : ndarray, shape (C,)
        Centre frequencies, below half of `sfreq`.
    sfreq : float
        Sampling rate in Hz.

    Returns
    -------
    ndarray of complex128, shape (C,)
        ``r exp(2 pi i centre / sfreq)``. The gain at the centre is 1 if each input is scaled by ``1 - r``.

    Notes
    -----
    The realisation is that of Hohmann, Acta Acustica united with Acustica 88 (2002), 433-442: a complex output
    whose real part is the band-passed sound and whose modulus is its envelope. His radius makes the bandwidth
    right for filters that are narrow compared with the sampling rate. Here it is right for all of them: with the
    impulse response ``binom(k + 3, 3) r^k``, Parseval's theorem gives the equivalent rectangular bandwidth

    .. math:: \frac{ERB}{f_s} = \frac{(1 - r)(1 + 9 r^2 + 9 r^4 + r^6)}{(1 + r)^7},

    which falls from 1 to 0 as r rises from 0 to 1 and is inverted by bisection.
    """
    centres_hz = np.asarray(centres_hz, dtype=np.float64)
    goal = erb_hz(centres_hz) / sfreq
    low, high = np.zeros_like(goal), np.ones_like(goal)
    for _ in range(60):  # more halvings than a float64 has bits
        r = (low + high) / 2
        too_wide = (1 - r) * (1 + 9 * r**2 + 9 * r**4 + r**6) / (1 + r) ** 7 > goal
        low, high = np.where(too_wide, r, low), np.where(too_wide, high, r)
    return (low + high) / 2 * np.exp(2j * math.pi * centres_hz / sfreq)


def gammatone_bands(wave: np.ndarray, sfreq: float, centres_hz: np.ndarray) -> np.ndarray:
    """Split a sound into the bands of a 4th-order gammatone filterbank.

    Parameters
    ----------
    wave : ndarray, shape (T,)
        The sound.
    sfreq : float
        Sampling rate in Hz.
    centres_hz : ndarray, shape (C,)
        Centre frequencies.

    Returns
    -------
    ndarray of complex128, shape (C, T)
        The real part is the band-passed sound with gain 1 at the centre, the modulus its envelope. Low bands lag:
        the envelope of a click peaks ``3 / (2 pi 1.019 ERB)`` seconds after it, about 13 ms at 100 Hz and 1 ms at
        3600 Hz, as the travelling wave of the basilar membrane does.

    Notes
    -----
    After Patterson et al., "An efficient auditory filterbank based on the gammatone function" (1987), in the
    realisation of `gammatone_poles`.
    """
    from scipy.signal import lfilter

    wave = np.asarray(wave, dtype=np.float64)
    bands = np.empty((len(centres_hz), len(wave)), dtype=np.complex128)
    for band, pole in zip(bands, gammatone_poles(centres_hz, sfreq), strict=True):
        # A real sound has half of its amplitude at positive frequencies, hence the 2.
        band[:] = 2 * wave
        for _ in range(4):
            band[:] = lfilter([1 - abs(pole)], [1, -pole], band)
    return bands


def one_pole(tau_s: float, sfreq: float) -> float:
    """Return the share of the new sample in a first-order low-pass: ``y += share * (x - y)``, exact for steps."""
    return -math.expm1(-1 / (tau_s * sfreq))


def hears_fine_structure(centres_hz: np.ndarray, sfreq: float) -> np.ndarray:
    """Return for which channels the second harmonic, which rectification makes, lies below half of `sfreq`."""
    return np.asarray(centres_hz) <= sfreq / 4


def hair_cell(
    bands: np.ndarray, sfreq: float, centres_hz: np.ndarray, *, cutoff_hz: float, compression: float
) -> np.ndarray:
    """Turn the motion of each band into the drive of an inner hair cell.

    Half-wave rectification, two first-order low-passes (the membrane loses what is faster than about 1 kHz, so
    high channels follow the envelope and low ones each cycle), then a power law.

    Parameters
    ----------
    bands : ndarray of complex, shape (C, T)
        From `gammatone_bands`.
    sfreq : float
        Sampling rate in Hz.
    centres_hz : ndarray, shape (C,)
        Centre frequencies.
    cutoff_hz : float
        Where each of the two low-passes loses 3 dB.
    compression : float
        Exponent of the power law; 1 is linear. The basilar membrane's is about 0.2 to 0.3 at medium levels.

    Returns
    -------
    ndarray of float64, shape (C, T)
        Not negative.

    Notes
    -----
    Rectification is ``(Re z + |Re z|) / 2``, and ``|Re z|`` holds twice the centre frequency. Where that lies above
    half of the sampling rate it would fold back to a slow beat that is not in the sound; there ``|Re z|`` is replaced
    by its mean over a cycle, ``2 |z| / pi``.
    """
    from scipy.signal import lfilter

    rigid = np.where(hears_fine_structure(centres_hz, sfreq)[:, None], np.abs(bands.real), 2 / math.pi * np.abs(bands))
    drive = (bands.real + rigid) / 2
    share = one_pole(1 / (2 * math.pi * cutoff_hz), sfreq)
    for _ in range(2):
        drive = lfilter([share], [1, share - 1], drive)
    # What is left of the fine structure may dip below 0 where the mean was put in.
    return np.maximum(drive, 0) ** compression


def adapt(drive: np.ndarray, sfreq: float, *, strength: float, tau_ms: float) -> np.ndarray:
    """Subtract from each drive what it has been of late, so that onsets stand out.

    Parameters
    ----------
    drive : ndarray, shape (C, T)
        From `hair_cell`.
    sfreq : float
        Sampling rate in Hz.
    strength : float
        Share of a steady drive that is lost in the end, in [0, 1].
    tau_ms : float
        Time constant of the loss.

    Returns
    -------
    ndarray of float64, shape (C, T)
        Not negative. A step of height 1 gives 1 at first, then ``1 - strength``.

    Notes
    -----
    Stands for the emptying of transmitter stores and the adaptation of auditory nerve fibres (short-term adaptation
    of some 60 ms: Westerman & Smith, Hearing Research 15, 1984, 249-260), without modelling the stores.
    """
    from scipy.signal import lfilter

    share = one_pole(tau_ms / 1000, sfreq)
    # The delay of a sample: the very first one of an onset is not reduced.
    past = lfilter([0, share], [1, share - 1], drive)
    return np.maximum(drive - strength * past, 0)


def lif_spikes(
    drive: np.ndarray,
    sfreq: float,
    *,
    thresholds: tuple[float, ...],
    membrane_ms: float,
    refractory_ms: float,
    v_start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Let leaky integrate-and-fire neurons spike: F a channel, alike but for their thresholds.

    Parameters
    ----------
    drive : ndarray, shape (C, T)
        Input current of each channel, held constant through each sample, in units of the thresholds.
    sfreq : float
        Sampling rate in Hz.
    thresholds : tuple of float, length F
        Potentials at which the fibres of a channel spike.
    membrane_ms : float
        Membrane time constant.
    refractory_ms : float
        How long the potential stays at 0 after a spike; at least until the sample ends.
    v_start : ndarray, shape (C, F), optional
        Potentials at the start; by default 0.

    Returns
    -------
    times_ms : ndarray of float64, shape (E,)
        Sorted; simultaneous spikes in the order of their units.
    units : ndarray of int32, shape (E,)
        ``channel * F + fibre``.

    Notes
    -----
    :math:`\tau \dot v = I - v` is solved exactly within each sample, and so is the moment at which v reaches the
    threshold; a steady current I therefore fires every ``refractory + tau ln(I / (I - threshold))`` at any `sfreq`.
    """
    n_channels, n_samples = drive.shape
    tau, dt = membrane_ms / 1000 * sfreq, 1.0  # in samples from here on
    silence = refractory_ms / 1000 * sfreq
    theta = np.asarray(thresholds, dtype=np.float64)
    v = np.zeros((n_channels, len(theta))) if v_start is None else np.array(v_start, dtype=np.float64)
    free = np.zeros_like(v)  # until when each fibre is silent
    times, units = [], []
    for k in range(n_samples):
        current = drive[:, k, None]
        start = np.clip(free, k, k + dt)
        before = v
        v = current + (v - current) * np.exp((start - k - dt) / tau)
        fires = v >= theta
        if fires.any():
            which = np.nonzero(fires)
            i, v0, th = np.broadcast_to(current, v.shape)[which], before[which], np.broadcast_to(theta, v.shape)[which]
            when = start[which] + tau * np.log((i - v0) / (i - th))
            times.append(when)
            units.append(which[0] * len(theta) + which[1])
            free[which] = np.maximum(when + silence, k + dt)
            v[which] = 0
    if not times:
        return np.empty(0), np.empty(0, dtype=np.int32)
    time, unit = np.concatenate(times), np.concatenate(units)
    order = np.lexsort((unit, time))
    return time[order] * (1000 / sfreq), unit[order].astype(np.int32)


def emphasise(wave: np.ndarray, sfreq: float, corner_hz: float) -> np.ndarray:
    """Raise a sound by 6 dB an octave above `corner_hz`, against the fall of the voice's spectrum; 0 leaves it."""
    if corner_hz == 0:
        return wave
    return np.diff(wave, prepend=0.0) + one_pole(1 / (2 * math.pi * corner_hz), sfreq) * np.append(0.0, wave[:-1])


def _rms(wave: np.ndarray) -> float:
    return math.sqrt(np.mean(wave**2))


def _peak(wave: np.ndarray) -> float:
    return float(np.abs(wave).max())


def _one(wave: np.ndarray) -> float:
    return 1.0


# What a recording is divided by before it is filtered. None looks at other recordings.
NORMALISATIONS: dict[str, Callable[[np.ndarray], float]] = {"rms": _rms, "peak": _peak, "none": _one}
# What splits a sound into bands.
FILTERBANKS = {"gammatone": gammatone_bands}
