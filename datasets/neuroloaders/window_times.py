"""From seconds to samples: how long a window is, where it begins, whether it lies inside.

The only place where this is decided, for windows cut from files and for windows cut from a live stream.
"""

# N events, T samples of a window

from __future__ import annotations

import math

import numpy as np

from neuroloaders.checks import check_number, invalid

__all__ = ["baseline_samples", "first_samples", "n_samples", "times_every", "window_times", "windows_inside"]

# Seconds as floating-point numbers: t + tmin misses the start of a block by a millionth of a sample or less.
_SLACK = 1e-6


def n_samples(tmin: float, tmax: float, sfreq: float, endpoint: bool = True) -> int:
    """Return T, the number of samples of a window from `tmin` to `tmax`.

    Parameters
    ----------
    tmin, tmax : float
        Ends of the window in s, relative to the event.
    sfreq : float
        Sampling rate in Hz.
    endpoint : bool
        With it the sample at `tmax` belongs to the window: round(tmax sfreq) - round(tmin sfreq) + 1, as in
        ``mne.Epochs``. Without it, ceil((tmax - tmin) sfreq), as in ``mne_lsl.stream.EpochsStream``.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If a number is not finite, `sfreq` is not positive, or the window holds no sample.

    Notes
    -----
    Halves are rounded to even, as both NumPy and Python do. Without `endpoint` the product is not rounded before
    ``ceil``, as it is not in mne-lsl: (0.8 - 0.1) * 1000 is a little more than 700 in floating point and gives 701
    samples, here as there, so that a decoder gets from a stream what it was trained on.

    Examples
    --------
    >>> n_samples(-0.5, 2.5, 120), n_samples(-0.5, 1.0, 120), n_samples(-0.5, 1.0, 120, endpoint=False)
    (361, 181, 180)
    """
    tmin, tmax, sfreq = _check_window(tmin, tmax, sfreq)
    n = round(tmax * sfreq) - round(tmin * sfreq) + 1 if endpoint else math.ceil((tmax - tmin) * sfreq)
    if n < 1:
        raise invalid("tmax", f"be more than tmin ({tmin:g})", f"{tmax:g}", "The window would hold no sample.")
    return n


def window_times(tmin: float, tmax: float, sfreq: float, endpoint: bool = True) -> np.ndarray:
    """Return the time of each sample of a window in s, relative to the event's sample: float64, shape (T,).

    Parameters
    ----------
    tmin, tmax, sfreq, endpoint
        As for `n_samples`.

    Returns
    -------
    ndarray, shape (T,)
        ``(round(tmin sfreq) + 0, 1, ...) / sfreq``, as ``mne.Epochs.times``.
    """
    n = n_samples(tmin, tmax, sfreq, endpoint)
    return (round(tmin * sfreq) + np.arange(n)) / sfreq


def first_samples(times: np.ndarray, tmin: float, sfreq: float, start: float = 0.0) -> np.ndarray:
    """Return where the windows around events begin, as places in the recording.

    Parameters
    ----------
    times : array, shape (N,)
        Times of the events in s.
    tmin : float
        Begin of the window in s, relative to the event.
    sfreq : float
        Sampling rate in Hz.
    start : float
        Time of the first sample of the recording in s, on the clock of `times`.

    Returns
    -------
    ndarray of int64, shape (N,)
        round((times - start) sfreq) + round(tmin sfreq); negative where a window begins before the recording.

    Notes
    -----
    As in MNE: the event is rounded to a sample first (``mne.events_from_annotations``), the window's begin is
    rounded by itself (``mne.Epochs``), so that all windows have the event at the same place. Halves go to even.
    """
    times = np.asarray(times, dtype=np.float64)
    return np.rint((times - start) * sfreq).astype(np.int64) + round(tmin * sfreq)


def windows_inside(
    times: np.ndarray, tmin: float, tmax: float, sfreq: float, start: np.ndarray | float, stop: np.ndarray | float
) -> np.ndarray:
    """Tell which windows lie inside a stretch of time: a recording, or a block that belongs to one split.

    Parameters
    ----------
    times : array, shape (N,)
        Times of the events in s.
    tmin, tmax : float
        Ends of the window in s, relative to the event.
    sfreq : float
        Sampling rate in Hz.
    start, stop : float or array, shape (N,)
        Begin and end of the stretch in s, one for all or each its own. The end of the last block may be infinite.

    Returns
    -------
    ndarray of bool, shape (N,)
        Whether times + tmin >= start and times + tmax - 1 / (2 sfreq) < stop.

    Notes
    -----
    The rule of Défossez et al. 2023, doi:10.1038/s42256-023-00714-5, with a millionth of a sample of slack against
    the rounding of seconds. At the end, half a sample more than the stretch is allowed, as its last sample lasts
    until the next: a window that ends with a block's last sample is inside.
    """
    times = np.asarray(times, dtype=np.float64)
    slack = _SLACK / sfreq
    return (times + tmin >= np.subtract(start, slack)) & (times + tmax - 0.5 / sfreq < np.add(stop, slack))


def baseline_samples(
    baseline: tuple[float | None, float | None] | None, tmin: float, tmax: float, sfreq: float, endpoint: bool = True
) -> slice | None:
    """Return the samples of a window whose mean is its baseline.

    Parameters
    ----------
    baseline : (float or None, float or None), optional
        Begin and end in s relative to the event, both included; None is that end of the window. No pair: no
        baseline.
    tmin, tmax, sfreq, endpoint
        As for `n_samples`.

    Returns
    -------
    slice or None

    Raises
    ------
    ValueError
        If it lies outside the window, by more than a sample, or holds no sample.
    """
    if baseline is None:
        return None
    if isinstance(baseline, str) or not hasattr(baseline, "__len__") or len(baseline) != 2:
        raise invalid("baseline", "be a pair of times in s, such as (None, 0)", baseline)
    times = window_times(tmin, tmax, sfreq, endpoint)
    begin, end = baseline
    begin = times[0] if begin is None else check_number("baseline[0]", begin)
    end = times[-1] if end is None else check_number("baseline[1]", end)
    if begin < times[0] - 1 / sfreq or end > times[-1] + 1 / sfreq:
        window = f"lie in the window, {times[0]:g} to {times[-1]:g} s"
        raise invalid("baseline", window, f"({begin:g}, {end:g})", "Widen the window, or narrow the baseline.")
    inside = np.flatnonzero((times >= begin) & (times <= end))
    if len(inside) == 0:
        raise invalid("baseline", "hold at least one sample of the window", f"({begin:g}, {end:g})")
    return slice(int(inside[0]), int(inside[-1]) + 1)


def times_every(step: float, start: float, stop: float, *, tmin: float, tmax: float, sfreq: float) -> np.ndarray:
    """Return event times at regular steps whose windows lie inside a stretch of time.

    Parameters
    ----------
    step : float
        Distance of the events in s: Défossez et al. 2023 train on windows every 0.5 s.
    start, stop : float
        Begin and end of a recording or a block in s.
    tmin, tmax, sfreq
        As for `windows_inside`.

    Returns
    -------
    ndarray of float64
        ``start - tmin``, then every `step`; empty if the stretch is shorter than a window.

    Examples
    --------
    >>> times_every(0.5, 10, 14, tmin=-0.5, tmax=2.5, sfreq=120)
    array([10.5, 11. , 11.5])
    """
    check_number("step", step, above=0)
    tmin, tmax, sfreq = _check_window(tmin, tmax, sfreq)
    start, stop = check_number("start", start), check_number("stop", stop)
    count = max(math.ceil((stop - start - (tmax - tmin)) / step) + 2, 0)
    times = start - tmin + step * np.arange(count)
    return times[windows_inside(times, tmin, tmax, sfreq, start, stop)]


def _check_window(tmin: float, tmax: float, sfreq: float) -> tuple[float, float, float]:
    return check_number("tmin", tmin), check_number("tmax", tmax), check_number("sfreq", sfreq, above=0)
