"""Stretches of a window that are decoded one by one: sliding ones, and ones that grow from a fixed begin."""

# M windows, B batch, C channels, T samples

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_number, check_option, invalid
from neuroloaders.window_times import n_samples

__all__ = ["TIMES", "TimeWindows", "cut_windows", "growing_windows", "sliding_windows"]

# Where on a time axis a window stands -> its time, of begin and end in s.
TIMES = {
    "end": lambda begin, end: end,
    "centre": lambda begin, end: (begin + end) / 2,
    "begin": lambda begin, end: begin,
}
_SLACK = 1e-6  # of a sample: seconds as floating-point numbers


@dataclass(frozen=True, kw_only=True)
class TimeWindows:
    """M stretches of time relative to an event, in whole samples.

    Parameters
    ----------
    first : tuple of int
        First sample of each; 0 is that of the event.
    n_times : tuple of int
        Samples of each. The sample after the last one is that at which a window ends.
    sfreq : float
        Sampling rate, Hz.

    Raises
    ------
    ValueError, TypeError
        If there is none, or one holds no sample.

    Examples
    --------
    >>> windows = sliding_windows(0.0, 0.2, width_s=0.1, step_s=0.05, sfreq=120)
    >>> windows.first, windows.n_times, windows.times("end").round(3).tolist()
    ((0, 6, 12), (12, 12, 12), [0.1, 0.15, 0.2])
    """

    first: tuple[int, ...]
    n_times: tuple[int, ...]
    sfreq: float

    def __post_init__(self) -> None:
        check_number("sfreq", self.sfreq, above=0)
        for name in ("first", "n_times"):
            values = tuple(check_int(name, value) for value in getattr(self, name))
            object.__setattr__(self, name, values)
        if not self.first or len(self.first) != len(self.n_times):
            came = f"{len(self.first)} and {len(self.n_times)}"
            raise invalid("first", "name at least one window, with as many in `n_times`", came)
        if min(self.n_times) < 1:
            raise invalid("n_times", "hold numbers of at least 1", f"{min(self.n_times)}")

    def __len__(self) -> int:
        return len(self.first)

    def times(self, at: str = "end") -> np.ndarray:
        """Return the time of each window in s, float64, shape (M,).

        Parameters
        ----------
        at : {"end", "centre", "begin"}
            A key of `TIMES`. The end of a window lies one sample after its last one.
        """
        begin, length = np.array(self.first), np.array(self.n_times)
        return TIMES[check_option("at", at, TIMES)](begin / self.sfreq, (begin + length) / self.sfreq)

    def select(self, first: int, last: int) -> TimeWindows:
        """Return the windows number `first` to `last`, the latter excluded."""
        return TimeWindows(first=self.first[first:last], n_times=self.n_times[first:last], sfreq=self.sfreq)

    def places(self, tmin: float, tmax: float, sfreq: float) -> np.ndarray:
        """Return where each window begins in a longer one, as places of samples, int64, shape (M,).

        Parameters
        ----------
        tmin, tmax : float
            Ends of the longer window in s, both included.
        sfreq : float
            Its sampling rate, Hz.

        Raises
        ------
        ValueError
            If the rate is another one, or a window leaves the longer one.
        """
        if sfreq != self.sfreq:
            raise invalid("windows", f"be made for {sfreq:g} Hz, the rate of the recordings", f"{self.sfreq:g} Hz")
        total, origin = n_samples(tmin, tmax, sfreq), round(tmin * sfreq)
        places = np.array(self.first, dtype=np.int64) - origin
        outside = (places < 0) | (places + np.array(self.n_times) > total)
        if outside.any():
            k = int(outside.argmax())
            came = f"one from {self.first[k] / sfreq:g} to {(self.first[k] + self.n_times[k]) / sfreq:g} s"
            raise invalid("windows", f"lie between tmin={tmin:g} and tmax={tmax:g} s", came)
        return places


def sliding_windows(
    tmin: float, tmax: float, *, sfreq: float, width_s: float = 0.1, step_s: float = 0.025
) -> TimeWindows:
    """Return windows of one width that begin at even steps.

    Parameters
    ----------
    tmin, tmax : float
        Begin of the first window, and the time that the last one does not end after; s relative to the event.
    sfreq : float
        Sampling rate, Hz.
    width_s, step_s : float
        Width of a window and distance of their begins in s: 0.1 and 0.025 in Benchetrit et al. 2023 [1]_.

    Returns
    -------
    TimeWindows

    Raises
    ------
    ValueError
        If a window would hold no sample, a step is less than one, or no window fits.

    Notes
    -----
    Width and each begin are rounded to samples by themselves: all windows are of one length, and begins are never more
    than half a sample off.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.
    """
    tmin, tmax, sfreq, step_s = _checked(tmin, tmax, sfreq, step_s)
    width = round(check_number("width_s", width_s, above=0) * sfreq)
    if width < 1:
        raise invalid("width_s", f"hold a sample at {sfreq:g} Hz", f"{width_s:g} s")
    count = math.floor((tmax - tmin - width / sfreq) / step_s + _SLACK) + 1
    if count < 1:
        raise invalid("width_s", f"fit between {tmin:g} and {tmax:g} s", f"{width_s:g} s")
    first = tuple(round((tmin + k * step_s) * sfreq) for k in range(count))
    return TimeWindows(first=first, n_times=(width,) * count, sfreq=sfreq)


def growing_windows(
    tmin: float, tmax: float, *, sfreq: float, first_end_s: float | None = None, step_s: float = 0.025
) -> TimeWindows:
    """Return windows that begin together and end later and later.

    Parameters
    ----------
    tmin, tmax : float
        Begin of all windows, and the time that the last one does not end after; s relative to the event.
    sfreq : float
        Sampling rate, Hz.
    first_end_s : float, optional
        End of the first window; by default one step after `tmin`.
    step_s : float
        From an end to the next, in s.

    Returns
    -------
    TimeWindows

    Raises
    ------
    ValueError
        If a window would hold no sample, a step is less than one, or no window fits.

    Notes
    -----
    In Benchetrit et al. 2023 [1]_ from -0.1 s in steps of 0.025 s for retrieval, and 0 to 0.1, 0.15, ... 1.5 s for
    generation. Ends are rounded to samples.

    References
    ----------
    .. [1] Benchetrit, Banville & King, ICLR 2024, arXiv:2310.19812.

    Examples
    --------
    >>> growing_windows(0.0, 0.2, first_end_s=0.1, step_s=0.05, sfreq=120).n_times
    (12, 18, 24)
    """
    tmin, tmax, sfreq, step_s = _checked(tmin, tmax, sfreq, step_s)
    end = tmin + step_s if first_end_s is None else check_number("first_end_s", first_end_s, above=tmin)
    count = math.floor((tmax - end) / step_s + _SLACK) + 1
    if count < 1:
        raise invalid("first_end_s", f"be at most tmax={tmax:g}", f"{end:g} s")
    begin = round(tmin * sfreq)
    lengths = tuple(round((end + k * step_s) * sfreq) - begin for k in range(count))
    if lengths[0] < 1:
        raise invalid("first_end_s", f"be a sample after tmin={tmin:g} at {sfreq:g} Hz", f"{end:g} s")
    return TimeWindows(first=(begin,) * count, n_times=lengths, sfreq=sfreq)


def cut_windows(x: Tensor, places: Tensor, n_times: int) -> Tensor:
    """Cut stretches of one length out of each window.

    Parameters
    ----------
    x : Tensor, shape (B, C, T)
        Windows.
    places : Tensor of int64, shape (M,)
        Where stretches begin. Those that would leave `x` are filled up with its last sample, which is then to be
        masked.
    n_times : int
        Samples of each.

    Returns
    -------
    Tensor, shape (M, B, C, n_times)
        Laid out in memory as (M, C, B, n_times), the order that a `StackedBrainModule` works in.
    """
    index = (places[:, None] + torch.arange(n_times, device=x.device)).clamp(max=x.shape[-1] - 1)
    cut = x.transpose(0, 1).index_select(2, index.flatten()).unflatten(2, index.shape)
    return cut.permute(2, 0, 1, 3).contiguous().transpose(1, 2)


def _checked(tmin: float, tmax: float, sfreq: float, step_s: float) -> tuple[float, float, float, float]:
    tmin, tmax = check_number("tmin", tmin), check_number("tmax", tmax)
    sfreq = check_number("sfreq", sfreq, above=0)
    if tmax <= tmin:
        raise invalid("tmax", f"be more than tmin={tmin:g}", f"{tmax:g}")
    if check_number("step_s", step_s, above=0) * sfreq < 1 - _SLACK:
        advice = "Two windows would be the same: take at least one sample."
        raise invalid("step_s", f"be at least {1 / sfreq:g} s, a sample", f"{step_s:g} s", advice)
    return tmin, tmax, sfreq, step_s
