"""The compiled way from a sound to spikes: what `cochlea_stages` computes, a channel at a time.

One channel's drive is kept in scratch memory that stays in the processor's cache; no array of channels by samples is
made. Compiled code is stored on disk beside this file. Imported when it is needed, because it loads numba.
"""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["encode"]

# Added to each sample: in digital silence the filters' states would fall below the smallest normal number, with which
# processors calculate a hundred times slower.
_TINY = 1e-100


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _drive(wave, pole, fine, membrane_share, compression, strength, slow_share, out):
    """Write the drive of one channel: gammatone filter, hair cell and adaptation."""
    c, s, gain = pole.real, pole.imag, 1 - abs(pole)
    gain = 2 * gain**4
    a = b = d = e = 0.0  # real parts of the four filters' states
    ai = bi = di = ei = 0.0  # imaginary parts
    first = second = past = 0.0
    for k in range(wave.shape[0]):
        a, ai = c * a - s * ai + gain * wave[k] + _TINY, c * ai + s * a
        b, bi = c * b - s * bi + a, c * bi + s * b + ai
        d, di = c * d - s * di + b, c * di + s * d + bi
        e, ei = c * e - s * ei + d, c * ei + s * e + di
        rigid = abs(e) if fine else 2 / math.pi * math.sqrt(e * e + ei * ei)
        first += membrane_share * ((e + rigid) / 2 - first)
        second += membrane_share * (first - second)
        out[k] = second
    # The power is most of the work, and apart from the recurrence it does not wait for it.
    for k in range(wave.shape[0]):
        out[k] = max(out[k], 0.0) ** compression
    for k in range(wave.shape[0]):
        now = out[k]
        out[k] = max(now - strength * past, 0.0)
        past += slow_share * (now - past)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _fire(drive, theta, tau, silence, v0, times):
    """Write the spike times of one neuron, in samples, and return how many there are."""
    v, free, n = v0, 0.0, 0
    decay = math.exp(-1 / tau)
    for k in range(drive.shape[0]):
        if free >= k + 1:
            continue
        current, before = drive[k], v
        start = max(free, float(k))
        v = current + (v - current) * (decay if start == k else math.exp((start - k - 1) / tau))
        if v >= theta:
            when = start + tau * math.log((current - before) / (current - theta))
            times[n] = when
            n += 1
            free = max(when + silence, k + 1.0)
            v = 0.0
    return n


@numba.njit(nogil=True, cache=True, error_model="numpy")
def encode(wave, poles, fine, membrane_share, compression, strength, slow_share, thresholds, tau, silence, v_start):
    """Return spike times in samples, and units, ordered by unit.

    Parameters
    ----------
    wave : ndarray of float64, shape (T,)
        Emphasised and normalised.
    poles : ndarray of complex128, shape (C,)
        From `gammatone_poles`.
    fine : ndarray of bool, shape (C,)
        From `hears_fine_structure`.
    membrane_share, slow_share : float
        Of the hair cell's low-passes and of adaptation, from `one_pole`.
    compression, strength : float
        As for `hair_cell` and `adapt`.
    thresholds : ndarray of float64, shape (F,)
        As for `lif_spikes`.
    tau, silence : float
        Membrane time constant and refractory period, in samples.
    v_start : ndarray of float64, shape (C, F)
        Potentials at the start.

    Returns
    -------
    times : ndarray of float64, shape (E,)
        In samples.
    units : ndarray of int32, shape (E,)
        ``channel * F + fibre``.
    """
    n_samples, n_fibres = wave.shape[0], thresholds.shape[0]
    drive = np.empty(n_samples)
    one = np.empty(n_samples)  # a fibre spikes at most once a sample
    times, units, n = np.empty(1024), np.empty(1024, dtype=np.int32), 0
    for channel in range(poles.shape[0]):
        _drive(wave, poles[channel], fine[channel], membrane_share, compression, strength, slow_share, drive)
        for fibre in range(n_fibres):
            more = _fire(drive, thresholds[fibre], tau, silence, v_start[channel, fibre], one)
            if n + more > times.shape[0]:
                size = 2 * (n + more)
                grown_times, grown_units = np.empty(size), np.empty(size, dtype=np.int32)
                grown_times[:n], grown_units[:n] = times[:n], units[:n]
                times, units = grown_times, grown_units
            times[n : n + more] = one[:more]
            units[n : n + more] = channel * n_fibres + fibre
            n += more
    return times[:n].copy(), units[:n].copy()
