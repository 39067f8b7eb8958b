"""A lab's recording as a fit needs it: checked, in simulation steps, with its spikes and what lies between them."""

# S sweeps, T steps, G grid points

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_number, invalid

__all__ = ["MIN_SFREQ", "Sweeps", "find_spikes", "prepare_sweeps", "steps_of", "sweeps_of", "time_step"]

# Hz. A spike is about a millisecond wide: below this its peak may fall between two samples.
MIN_SFREQ = 2000.0
# ms around the peak of a recorded spike in which potentials are not compared: the model has no shape of a spike.
BEFORE_SPIKE_MS, AFTER_SPIKE_MS = 2.0, 5.0
# Potentials are compared about so often.
_GRID_MS = 0.5
_STEP_MS = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweeps:
    """Sweeps in steps of the simulation.

    Attributes
    ----------
    dt_ms : float
        Time step.
    stride : int
        Potentials are compared after each so many steps.
    current : ndarray, shape (T, S)
        Mean current of each step, pA; shorter sweeps end with zeros.
    n_steps : ndarray of int64, shape (S,)
        Length of each sweep.
    v_start : ndarray, shape (S,)
        First potential of each sweep, mV.
    potential : ndarray, shape (G, S)
        Potential at the end of steps `stride`, 2 `stride`, ..., mV; NaN behind the end of a sweep.
    target : ndarray, shape (G, S)
        The same with NaN around spikes as well: what a model's potential is compared with.
    spikes : tuple of ndarray
        Times of the peaks of the spikes of each sweep, ms.
    """

    dt_ms: float
    stride: int
    current: np.ndarray
    n_steps: np.ndarray
    v_start: np.ndarray
    potential: np.ndarray
    target: np.ndarray
    spikes: tuple[np.ndarray, ...]

    @property
    def n_sweeps(self) -> int:
        """Number of sweeps."""
        return len(self.spikes)

    @property
    def durations_ms(self) -> np.ndarray:
        """Length of each sweep."""
        return self.n_steps * self.dt_ms

    def choose(self, sweeps: Sequence[int]) -> Sweeps:
        """Return some of the sweeps.

        Parameters
        ----------
        sweeps : sequence of int
            Which ones.
        """
        index = np.asarray(sweeps, dtype=np.int64)
        longest = int(self.n_steps[index].max())
        n_grid = longest // self.stride
        return Sweeps(
            dt_ms=self.dt_ms,
            stride=self.stride,
            current=np.ascontiguousarray(self.current[:longest, index]),
            n_steps=self.n_steps[index],
            v_start=self.v_start[index],
            potential=np.ascontiguousarray(self.potential[:n_grid, index]),
            target=np.ascontiguousarray(self.target[:n_grid, index]),
            spikes=tuple(self.spikes[k] for k in index),
        )


def time_step(sfreq: float, dt_ms: float | None) -> tuple[float, int, int]:
    """Return the time step of the simulation, how many samples it takes, and how many steps a sample lasts.

    One of the two numbers is 1: either a step is the mean of whole samples, or a sample is held for whole steps.

    Parameters
    ----------
    sfreq : float
        Samples a second.
    dt_ms : float or None
        Wanted step; by default what comes closest to 0.1 ms.

    Examples
    --------
    >>> time_step(20_000.0, None)
    (0.1, 2, 1)
    >>> time_step(5_000.0, 0.1)
    (0.1, 1, 2)
    """
    advice = "Spikes are about 1 ms wide. Is it in Hz (20 kHz: 20000)?"
    sample_ms = 1000.0 / check_number("sfreq", sfreq, at_least=MIN_SFREQ, advice=advice)
    wanted = _STEP_MS if dt_ms is None else check_number("dt_ms", dt_ms, above=0, at_most=1.0)
    per_step, per_sample = max(1, round(wanted / sample_ms)), max(1, round(sample_ms / wanted))
    if per_step > 1:
        per_sample = 1
    # Rounded: 2 x 0.05 and 3 x (1000 / 30000) are to be the 0.1 that a user writes.
    step = round(sample_ms * per_step / per_sample, 12)
    if dt_ms is not None and abs(step - wanted) > 1e-9 * wanted:
        required = f"be a multiple of the sample interval, {sample_ms:g} ms, or divide it"
        raise invalid("dt_ms", required, f"{dt_ms:g}", f"The closest step is {step:g}.")
    return step, per_step, per_sample


def find_spikes(
    voltage: np.ndarray, sfreq: float, *, level_mV: float = -20.0, prominence_mV: float = 20.0
) -> np.ndarray:
    """Return the samples at which spikes peak.

    Parameters
    ----------
    voltage : array, shape (n_samples,)
        Membrane potential, mV.
    sfreq : float
        Samples a second.
    level_mV : float
        A peak below this is no spike.
    prominence_mV : float
        By how much a spike must stand out of what lies between it and a higher one: ripples on a plateau are none.

    Returns
    -------
    ndarray of int64

    Examples
    --------
    >>> v = np.full(1000, -65.0)
    >>> v[[300, 700]] = 20.0
    >>> find_spikes(v, 10_000.0)
    array([300, 700])
    """
    from scipy.signal import find_peaks

    # Two spikes are at least a millisecond apart.
    distance = max(1, round(sfreq / 1000))
    # Infinite ends would be peaks; a spike that is cut off by an end of the sweep has no peak and does not count.
    return find_peaks(voltage, height=level_mV, prominence=prominence_mV, distance=distance)[0].astype(np.int64)


def prepare_sweeps(
    voltage: Any,
    current: Any,
    sfreq: float,
    *,
    dt_ms: float | None = None,
    level_mV: float = -20.0,
    prominence_mV: float = 20.0,
) -> Sweeps:
    """Check a recording and bring it into simulation steps.

    Parameters
    ----------
    voltage : array, shape (n_samples,) or (n_sweeps, n_samples), or list of arrays
        Membrane potential, mV.
    current : like `voltage`
        Injected current, pA.
    sfreq : float
        Samples a second, at least 2000.
    dt_ms : float, optional
        Time step: a multiple of the sample interval, or a whole part of it; by default the one closest to 0.1.
    level_mV, prominence_mV : float
        What counts as a spike, as in `find_spikes`.

    Returns
    -------
    Sweeps

    Raises
    ------
    ValueError
        For other shapes, NaN, sweeps that differ in length, units that cannot be mV and pA, a low `sfreq`.

    Notes
    -----
    Nothing is interpolated. A step of several samples gets their mean current, so that no charge is lost, and its
    potential is the sample at the end of the step. Where a sample lasts several steps, they share its current, and
    potentials are compared at samples only. Samples at the end that do not fill a step are left out.
    """
    step, per_step, per_sample = time_step(sfreq, dt_ms)
    check_number("level_mV", level_mV, at_least=-60, at_most=60)
    check_number("prominence_mV", prominence_mV, above=0, at_most=150)
    potentials, currents = sweeps_of("voltage", voltage), sweeps_of("current", current)
    if len(potentials) != len(currents):
        raise invalid("current", f"hold {len(potentials)} sweeps, as `voltage` does", f"{len(currents)}")
    for number, (v, i) in enumerate(zip(potentials, currents, strict=True)):
        if len(v) != len(i):
            required = f"have as many samples as `voltage` in each sweep, {len(v)} in number {number}"
            raise invalid("current", required, f"{len(i)}")
    _check_units(potentials, currents)
    n_steps = np.array([len(v) // per_step * per_sample for v in potentials], dtype=np.int64)
    # Grid points lie on samples.
    stride = max(1, round(_GRID_MS / step / per_sample)) * per_sample
    if n_steps.min() < 10 * stride:
        raise invalid("voltage", f"last at least {10 * stride * step:g} ms", f"{n_steps.min() * step:g} ms")
    n_sweeps, longest = len(potentials), int(n_steps.max())
    drive = np.zeros((longest, n_sweeps))
    grid = np.full((longest // stride, n_sweeps), np.nan)
    target = grid.copy()
    spikes = []
    for s, (v, i) in enumerate(zip(potentials, currents, strict=True)):
        drive[: n_steps[s], s] = steps_of(i, per_step, per_sample)
        # The state after n steps is that at the beginning of sample n * per_step; the last one may not be there.
        samples = np.arange(1, n_steps[s] // stride + 1) * stride * per_step // per_sample
        samples = samples[samples < len(v)]
        grid[: len(samples), s] = v[samples]
        peaks = find_spikes(v, sfreq, level_mV=level_mV, prominence_mV=prominence_mV) * (1000.0 / sfreq)
        times = np.arange(1, len(grid) + 1) * (stride * step)
        target[:, s] = np.where(_near(times, peaks), np.nan, grid[:, s])
        # A peak behind the last whole step has no counterpart in the simulation.
        spikes.append(peaks[peaks <= n_steps[s] * step])
    return Sweeps(
        dt_ms=step,
        stride=stride,
        current=drive,
        n_steps=n_steps,
        v_start=np.array([np.median(v[: max(1, round(sfreq / 1000))]) for v in potentials]),
        potential=grid,
        target=target,
        spikes=tuple(spikes),
    )


def steps_of(current: np.ndarray, per_step: int, per_sample: int) -> np.ndarray:
    """Return the current of each step: the mean of its samples, or that of the sample that it is part of.

    Parameters
    ----------
    current : ndarray, shape (n_samples,)
        As sampled.
    per_step, per_sample : int
        Samples a step and steps a sample, as `time_step` returns them.
    """
    whole = current[: len(current) // per_step * per_step]
    return np.repeat(whole.reshape(-1, per_step).mean(axis=1), per_sample)


def sweeps_of(name: str, value: Any) -> list[np.ndarray]:
    """Return sweeps as a list of float64 arrays.

    Parameters
    ----------
    name : str
        The argument's name.
    value : array, shape (n_samples,) or (n_sweeps, n_samples), or list of arrays
        What came.
    """
    shapes = "have shape (n_samples,) or (n_sweeps, n_samples), or be a list of sweeps"
    if isinstance(value, list | tuple) and len(value) and np.ndim(value[0]) == 1:
        sweeps = [np.asarray(one, dtype=np.float64) for one in value]
    else:
        array = np.asarray(value, dtype=np.float64)
        if array.ndim not in (1, 2) or not array.size:
            raise invalid(name, shapes, f"shape {array.shape}")
        sweeps = list(array[None] if array.ndim == 1 else array)
    for number, one in enumerate(sweeps):
        if one.ndim != 1 or not len(one):
            raise invalid(name, shapes, f"shape {one.shape} as sweep {number}")
        check_finite(name, one, advice="Cut the sweep before it, or leave the sweep out.")
    return sweeps


def _near(times: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Say which times lie around a spike."""
    if not len(peaks):
        return np.zeros(len(times), dtype=bool)
    # The first peak of which the time is not past the window, and whether that window has begun.
    following = np.minimum(np.searchsorted(peaks, times - AFTER_SPIKE_MS), len(peaks) - 1)
    away = times - peaks[following]
    return (away >= -BEFORE_SPIKE_MS) & (away <= AFTER_SPIKE_MS)


def _check_units(potentials: list[np.ndarray], currents: list[np.ndarray]) -> None:
    """Refuse volts, amperes, nanoamperes, exchanged arguments and a current that never changes."""
    low, high = min(v.min() for v in potentials), max(v.max() for v in potentials)
    came = f"values from {low:g} to {high:g}"
    if low > -1 and high < 1:
        raise invalid("voltage", "be in mV", came, "Volts? Multiply by 1000.")
    if low < -250 or high > 200 or np.median(np.concatenate([v[:: max(1, len(v) // 1000)] for v in potentials])) > 30:
        raise invalid("voltage", "be a membrane potential in mV", came, "Are `voltage` and `current` exchanged?")
    low, high = min(i.min() for i in currents), max(i.max() for i in currents)
    came, largest = f"values from {low:g} to {high:g}", max(abs(low), abs(high))
    if low == high:
        advice = "Steps, ramps or noise are needed: without a change, resistance and time constant cannot be told."
        raise invalid("current", "change in the course of the recording", f"{low:g} throughout", advice)
    if largest < 1e-5:
        raise invalid("current", "be in pA", came, "Amperes? Multiply by 1e12.")
    if largest < 2.0:
        raise invalid("current", "be in pA", came, "Nanoamperes? Multiply by 1000.")
    if largest > 50_000:
        raise invalid("current", "be in pA", came, "Femtoamperes, or the converter's units?")
