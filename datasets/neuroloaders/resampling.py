"""From the rate of an amplifier to the rate that is trained on, without aliases."""

# C channels, T samples

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

from neuroloaders.checks import check_number, check_shape, invalid

__all__ = ["rate_ratio", "resample", "resampled_length"]

# The filter lets pass what is below 0.9 of the lower Nyquist frequency, and takes 80 dB off above that frequency.
_PASS, _STOP_DB = 0.9, 80.0
_MAX_DRIFT = 0.01  # output samples, at the end of a recording
_DENOMINATORS = (10, 100, 1000, 10_000)


def rate_ratio(sfreq_in: float, sfreq_out: float, n_times: int) -> tuple[int, int]:
    """Return (up, down): the smallest whole numbers with ``sfreq_in * up / down`` close enough to `sfreq_out`.

    Parameters
    ----------
    sfreq_in, sfreq_out : float
        Rates in Hz.
    n_times : int
        Samples of the recording: at its end, times must be right to a hundredth of an output sample.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        If there are none up to 10,000.

    Examples
    --------
    >>> rate_ratio(1000.0, 120.0, 10_000), rate_ratio(1200.0, 120.0, 10_000)
    ((3, 25), (1, 10))
    """
    sfreq_in = check_number("sfreq_in", sfreq_in, above=0)
    sfreq_out = check_number("sfreq", sfreq_out, above=0)
    exact = Fraction(sfreq_out) / Fraction(sfreq_in)
    for limit in _DENOMINATORS:
        ratio = exact.limit_denominator(limit)
        if ratio and abs(ratio - exact) * n_times <= _MAX_DRIFT:
            return ratio.numerator, ratio.denominator
    advice = "Choose a rate in a simpler ratio to it."
    raise invalid("sfreq", f"be reached from {sfreq_in:g} Hz by whole numbers", f"{sfreq_out:g} Hz", advice)


def resampled_length(n_times: int, sfreq_in: float, sfreq_out: float) -> int:
    """Return how many samples `resample` makes of `n_times`: ``ceil(n_times * up / down)``."""
    up, down = rate_ratio(sfreq_in, sfreq_out, n_times)
    return -(-n_times * up // down)


def resample(data: np.ndarray, sfreq_in: float, sfreq_out: float) -> np.ndarray:
    """Bring a recording to another rate with a linear-phase filter: nothing moves in time.

    Parameters
    ----------
    data : ndarray, shape (C, T)
        Samples, at `sfreq_in`.
    sfreq_in, sfreq_out : float
        Rates in Hz.

    Returns
    -------
    ndarray, shape (C, T'), of the type of `data`
        Sample k is at the time ``k / sfreq_out`` after the first of `data`; T' is as `resampled_length` says.

    Notes
    -----
    ``scipy.signal.resample_poly`` with a Kaiser window: flat to 0.9 of the lower of both Nyquist frequencies (54 Hz of
    the 60 Hz for a target of 120 Hz), and 80 dB down from that frequency on; SciPy's own window is 6 dB down there.
    Défossez et al. 2023 use a windowed sinc of about the same width. There is no high-pass filter. Before the first
    and after the last sample the line through both goes on, so that an offset does not ring.

    Examples
    --------
    >>> ramp = np.arange(1000.0)[None]
    >>> np.allclose(resample(ramp, 1000.0, 120.0)[0, :3], [0, 1000 / 120, 2000 / 120], atol=1e-3)
    True
    """
    check_shape("data", data, ("C", "T"))
    up, down = rate_ratio(sfreq_in, sfreq_out, data.shape[1])
    if up == down:
        return np.array(data)
    from scipy.signal import resample_poly

    return resample_poly(data, up, down, axis=1, window=_taps(max(up, down)), padtype="line")


@lru_cache(maxsize=8)
def _taps(rate: int) -> np.ndarray:
    from scipy.signal import firwin, kaiserord

    n_taps, beta = kaiserord(_STOP_DB, (1 - _PASS) / rate)
    # Odd, and so symmetric around a sample.
    return firwin(n_taps | 1, (1 + _PASS) / 2 / rate, window=("kaiser", beta))
