"""What a recording says about a cell without any search: passive properties, spikes, and where parameters may lie."""

# S sweeps, T steps, G grid points

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import invalid
from reservoir.fitting.sweeps import Sweeps

__all__ = ["Measured", "measure_cell", "measure_passive", "measure_spikes"]

# mV/ms, where the upstroke of a spike begins; 10 to 20 are in use.
UPSTROKE = 20.0
# ms: how long a cell is not passive after a spike; where upstroke and trough are looked for, before and after a peak.
_RECOVERY_MS, _AHEAD_MS, _TROUGH_MS = 150.0, 3.0, 50.0
# ms ahead of a spike in which the potential runs away from that of a circuit.
_APPROACH_MS = 10.0
# Input resistance that no neuron exceeds.
_MOST_GOHM = 10.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Properties of a cell as electrophysiologists state them.

    Attributes
    ----------
    rest_mV : float
        Potential without current.
    resistance_MOhm : float
        Input resistance.
    tau_ms : float
        Membrane time constant.
    capacitance_pF : float
        Time constant over resistance.
    threshold_mV : float
        Where the upstroke of spikes begins; the median.
    peak_mV : float
        Height of spikes; the median.
    trough_mV : float
        Lowest potential after a spike; the median.
    n_spikes : int
        How many spikes these come from.
    fires_at_rest : bool
        Whether spikes come while the current is at its most frequent value and has been for 100 ms.
    """

    rest_mV: float
    resistance_MOhm: float
    tau_ms: float
    capacitance_pF: float
    threshold_mV: float
    peak_mV: float
    trough_mV: float
    n_spikes: int
    fires_at_rest: bool


def measure_cell(sweeps: Sweeps, voltage: Any, sfreq: float) -> Measured:
    """Measure what the initial values of a fit are made of.

    Parameters
    ----------
    sweeps : Sweeps
        The recording in steps.
    voltage : list of arrays
        The same sweeps as sampled, mV: the upstroke of a spike is too fast for steps.
    sfreq : float
        Samples a second.

    Raises
    ------
    ValueError
        Without spikes, or if the potential does not follow the current.
    """
    threshold, peak, trough = measure_spikes(voltage, sfreq, sweeps.spikes)
    rest, resistance, tau = measure_passive(sweeps)
    return Measured(
        rest_mV=rest,
        resistance_MOhm=resistance * 1000,
        tau_ms=tau,
        capacitance_pF=tau / resistance,
        threshold_mV=threshold,
        peak_mV=peak,
        trough_mV=trough,
        n_spikes=sum(map(len, sweeps.spikes)),
        fires_at_rest=_fires_at_rest(sweeps),
    )


def measure_passive(sweeps: Sweeps) -> tuple[float, float, float]:
    """Return rest in mV, input resistance in GOhm (mV/pA) and membrane time constant in ms.

    Parameters
    ----------
    sweeps : Sweeps
        The recording.

    Raises
    ------
    ValueError
        If the potential does not rise with the current.

    Notes
    -----
    The potential of an RC circuit, tau v' = rest - v + R I, is fitted by least squares to whatever lies more than
    150 ms after a spike and 10 ms before the next one; for a given tau rest and R follow linearly, and tau is searched
    for from 1 to 300 ms. It needs no steps: ramps and noise do as well. Each sweep begins in balance.
    """
    from scipy.optimize import minimize_scalar

    quiet = _quiet(sweeps)
    if quiet.sum() < 20:
        came = f"{quiet.sum() * sweeps.stride * sweeps.dt_ms:g} ms of them"
        raise invalid("voltage", "hold stretches without spikes", came, "Add weaker currents to the fit.")
    goal = sweeps.potential[quiet]

    def solve(log_tau: float) -> tuple[float, np.ndarray]:
        answer = _filtered(sweeps, np.exp(log_tau))[quiet]
        design = np.stack([np.ones_like(answer), answer], axis=1)
        found, *_ = np.linalg.lstsq(design, goal, rcond=None)
        return float(((design @ found - goal) ** 2).sum()), found

    grid = np.linspace(np.log(1.0), np.log(300.0), 40)
    errors = [solve(x)[0] for x in grid]
    best = int(np.argmin(errors))
    inside = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    log_tau = minimize_scalar(lambda x: solve(x)[0], bounds=inside, method="bounded").x
    rest, resistance = solve(log_tau)[1]
    if not 1e-3 < resistance < _MOST_GOHM:
        advice = (
            "Is the current in pA, positive where v rises, each sweep with its own? A cell that fires throughout needs "
            "sweeps with negative currents as well."
        )
        raise invalid("voltage", "follow `current`", f"{resistance * 1000:.3g} MOhm of input resistance", advice)
    return float(rest), float(resistance), float(np.exp(log_tau))


def measure_spikes(voltage: Any, sfreq: float, spikes: Any) -> tuple[float, float, float]:
    """Return where spikes begin, how high they are and how deep the potential falls after them: medians, in mV.

    Parameters
    ----------
    voltage : list of arrays
        Sweeps as sampled, mV.
    sfreq : float
        Samples a second.
    spikes : sequence of arrays
        Times of their peaks, ms.

    Raises
    ------
    ValueError
        Without spikes.

    Notes
    -----
    The upstroke begins where v' reaches 20 mV/ms in the phase plot of v' over v, or a fifth of its largest value in
    spikes that are slower than that; the crossing is interpolated. The trough is looked for until the next spike, and
    50 ms at most.
    """
    ahead, behind = max(2, round(_AHEAD_MS * sfreq / 1000)), round(_TROUGH_MS * sfreq / 1000)
    starts, peaks, troughs = [], [], []
    for v, times in zip(voltage, spikes, strict=True):
        at = np.rint(np.asarray(times) * sfreq / 1000).astype(np.int64)
        for number, peak in enumerate(at):
            first = max(0, peak - ahead, at[number - 1] if number else 0)
            piece = v[first : peak + 1]
            slope = np.diff(piece) * sfreq / 1000
            if not len(slope):
                continue
            level = min(UPSTROKE, 0.2 * slope.max())
            # From the steepest place backwards: an EPSP ahead of the spike is none of it.
            start = int(slope.argmax())
            while start > 0 and slope[start - 1] >= level:
                start -= 1
            # Slopes belong to the middles of samples.
            part = 1.0 if start == 0 else (level - slope[start - 1]) / (slope[start] - slope[start - 1])
            middles = (piece[1:] + piece[:-1]) / 2
            starts.append(middles[start] - (1 - part) * (middles[start] - middles[max(start - 1, 0)]))
            peaks.append(v[peak])
            end = at[number + 1] if number + 1 < len(at) else len(v)
            troughs.append(v[peak : min(peak + behind, end)].min())
    if not peaks:
        advice = "Lower `level_mV` if they are small; a threshold cannot be told from a cell that does not fire."
        raise invalid("voltage", "hold spikes in the sweeps that are fitted", "none", advice)
    return float(np.median(starts)), float(np.median(peaks)), float(np.median(troughs))


def _filtered(sweeps: Sweeps, tau: float) -> np.ndarray:
    """Return what a current gives behind a low-pass of time constant tau, exact for the steps, at the grid points."""
    from scipy.signal import lfilter

    decay = np.exp(-sweeps.dt_ms / tau)
    start = sweeps.current[0] * decay
    answer, _ = lfilter([1 - decay], [1, -decay], sweeps.current, axis=0, zi=start[None])
    return answer[sweeps.stride - 1 :: sweeps.stride][: len(sweeps.potential)]


def _quiet(sweeps: Sweeps) -> np.ndarray:
    """Say which grid points lie long after a spike, and not just before one."""
    times = np.arange(1, len(sweeps.potential) + 1) * (sweeps.stride * sweeps.dt_ms)
    quiet = np.isfinite(sweeps.target)
    for s, spikes in enumerate(sweeps.spikes):
        edges = np.concatenate([[-np.inf], spikes, [np.inf]])
        place = np.searchsorted(edges, times)
        quiet[:, s] &= (times > edges[place - 1] + _RECOVERY_MS) & (times < edges[place] - _APPROACH_MS)
    return quiet


def _fires_at_rest(sweeps: Sweeps) -> bool:
    """Say whether the cell fires while nothing has been done to it for 100 ms."""
    inside = np.arange(len(sweeps.current))[:, None] < sweeps.n_steps
    values, counts = np.unique(sweeps.current[inside].round(3), return_counts=True)
    most = values[counts.argmax()]
    if counts.max() < 0.2 * inside.sum():
        return False
    for s, spikes in enumerate(sweeps.spikes):
        for time in spikes:
            last = int(time / sweeps.dt_ms)
            first = last - round(100.0 / sweeps.dt_ms)
            if first >= 0 and (np.abs(sweeps.current[first:last, s] - most) < 1e-2).all():
                return True
    return False
