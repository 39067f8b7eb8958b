"""The compiled loops of a fit: every candidate cell through every sweep, and its spikes against those recorded.

A candidate's steps are those of `reservoir.backends.kernel` for one neuron without synapses, in the same order and
rounded as they are there: a fitted cell fires at the same steps in `reservoir.simulate`, to the last spike. What is
left out is what a fit does not need: networks, noise, bent recovery. No trace is kept; the distance of v from the
recorded potential is summed up on the way.
"""

# P candidates, S sweeps, T steps, G grid points, Q most spikes of a sweep that are kept

from __future__ import annotations

import numba
import numpy as np

__all__ = ["COLUMNS", "count_coincidences", "isi_distance", "run_candidates", "trace_candidate"]

# Columns of a candidate, in this order; `a` is times dt.
COLUMNS = ("a", "b", "c", "d", "v_peak", "capacitance", "k", "v_rest", "v_threshold", "input_gain", "input_bias")
A, B, C, D, PEAK, CAPACITANCE, K, V_REST, V_THRESHOLD, GAIN, BIAS = range(11)
# Candidates are advanced together until about so many lanes (candidates x sweeps) fill the vector units.
_LANES = 24

_OPTIONS = {"nogil": True, "error_model": "numpy", "cache": True}


@numba.njit(**_OPTIONS)
def run_candidates(
    candidates, numbers, n_substeps, old_v, strict, is_2007, current, n_steps, v_start, stride, target, recorded,
    ceiling, given, forced, times, counts, errors, distances,
):  # fmt: skip
    """Simulate candidates, all sweeps of each.

    Parameters
    ----------
    candidates : ndarray, shape (P, 11)
        Parameters, as `COLUMNS` says.
    numbers : ndarray, shape (4,)
        Substep in ms, k2, k1, k0.
    n_substeps, old_v, strict : int, bool, bool
        The scheme.
    is_2007 : bool
        The form of the equations, else that of 2003.
    current : ndarray, shape (T, S)
        Current of each step as recorded, in pA.
    n_steps : ndarray of int64, shape (S,)
        Length of each sweep; what comes later is ignored.
    v_start : ndarray, shape (S,)
        v at the beginning; u is where it rests at this v.
    stride : int
        v is compared after each so many steps.
    target : ndarray, shape (G, S)
        Recorded potential there, NaN where it is not compared.
    recorded : ndarray, shape (G, S)
        Recorded potential, around spikes as well.
    ceiling : float
        v is taken as no more than this in the comparison.
    given : ndarray of int64, shape (S, R)
        Steps of the recorded spikes, then numbers beyond T.
    forced : bool
        Whether a candidate is reset where the recorded cell fired, and only there. If it reaches its peak elsewhere, v
        goes back to where the recorded cell is, and u does not change. Then spikes that come too early or too late do
        not shift the intervals behind them, and cost as much as they are wrong.
    times : ndarray of int32, shape (P, S, Q)
        Receives the steps at which a candidate spikes.
    counts : ndarray of int64, shape (P, S)
        Receives the number of spikes, of which the first Q are in `times`.
    errors : ndarray, shape (P, S)
        Receives the sum of squared distances from `target`.
    distances : ndarray, shape (P, G, S) or (0, 0, 0)
        Receives the distances themselves, 0 where there are none.
    """
    n_candidates, n_sweeps, room = times.shape
    n_longest, keeps = current.shape[0], distances.shape[0] > 0
    group = max(1, _LANES // n_sweeps)
    n_lanes = group * n_sweeps
    lanes = np.empty((11, n_lanes))
    v, u, drive = np.empty(n_lanes), np.empty(n_lanes), np.empty(n_lanes)
    before, error = np.empty(n_lanes), np.empty(n_lanes)
    turn = np.zeros(n_sweeps, dtype=np.int64)
    substep, k2, k1, k0 = numbers[0], numbers[1], numbers[2], numbers[3]
    for first in range(0, n_candidates, group):
        n_here = min(group, n_candidates - first)
        n = n_here * n_sweeps
        for q in range(n_here):
            for s in range(n_sweeps):
                i = q * n_sweeps + s
                for column in range(11):
                    lanes[column, i] = candidates[first + q, column]
                v[i] = v_start[s]
                error[i] = 0.0
                counts[first + q, s] = 0
        a, b, c, d, peak = lanes[A], lanes[B], lanes[C], lanes[D], lanes[PEAK]
        capacitance, k_, v_rest, v_threshold = lanes[CAPACITANCE], lanes[K], lanes[V_REST], lanes[V_THRESHOLD]
        gain, bias = lanes[GAIN], lanes[BIAS]
        for i in range(n):
            u[i] = b[i] * (v[i] - v_rest[i])
        grid = 0
        turn[:] = 0
        for t in range(n_longest):
            for q in range(n_here):
                for s in range(n_sweeps):
                    drive[q * n_sweeps + s] = current[t, s]
            if is_2007:
                for i in range(n):
                    before[i] = v[i]
                for _ in range(n_substeps):
                    for i in range(n):
                        force = k_[i] * (v[i] - v_rest[i]) * (v[i] - v_threshold[i])
                        v[i] = v[i] + substep * (force - u[i] + (gain[i] * drive[i] + bias[i])) / capacitance[i]
                for i in range(n):
                    seen = before[i] if old_v else v[i]
                    u[i] = u[i] + a[i] * (b[i] * (seen - v_rest[i]) - u[i])
            elif old_v:
                for i in range(n):
                    x, w = v[i], u[i]
                    v[i] = x + substep * (k2 * x * x + k1 * x + k0 - w + (gain[i] * drive[i] + bias[i]))
                    u[i] = w + a[i] * (b[i] * x - w)
            else:
                for _ in range(n_substeps):
                    for i in range(n):
                        x = v[i]
                        v[i] = x + substep * (k2 * x * x + k1 * x + k0 - u[i] + (gain[i] * drive[i] + bias[i]))
                for i in range(n):
                    u[i] = u[i] + a[i] * (b[i] * v[i] - u[i])
            if (t + 1) % stride == 0:
                for q in range(n_here):
                    for s in range(n_sweeps):
                        goal = target[grid, s]
                        if goal == goal:
                            i = q * n_sweeps + s
                            away = min(v[i], ceiling) - goal
                            error[i] += away * away
                            if keeps:
                                distances[first + q, grid, s] = away
                grid += 1
            if forced:
                for s in range(n_sweeps):
                    if given[s, turn[s]] == t:
                        turn[s] += 1
                        for q in range(n_here):
                            i = q * n_sweeps + s
                            v[i] = c[i]
                            u[i] = u[i] + d[i]
                    else:
                        there = recorded[grid - 1, s] if grid > 0 else v_start[s]
                        for q in range(n_here):
                            i = q * n_sweeps + s
                            if v[i] > peak[i] or (not strict and v[i] == peak[i]):
                                v[i] = min(there, ceiling) if there == there else c[i]
                continue
            n_spikes = 0
            if strict:
                for i in range(n):
                    n_spikes += v[i] > peak[i]
            else:
                for i in range(n):
                    n_spikes += v[i] >= peak[i]
            if n_spikes:
                for i in range(n):
                    if v[i] > peak[i] or (not strict and v[i] == peak[i]):
                        q, s = first + i // n_sweeps, i % n_sweeps
                        if t < n_steps[s]:
                            if counts[q, s] < room:
                                times[q, s, counts[q, s]] = t
                            counts[q, s] += 1
                        v[i] = c[i]
                        u[i] = u[i] + d[i]
        for i in range(n):
            # A NaN never spikes again; it must not pass for a quiet cell.
            bad = not (abs(v[i]) < np.inf and abs(u[i]) < np.inf)
            errors[first + i // n_sweeps, i % n_sweeps] = np.inf if bad else error[i]


@numba.njit(**_OPTIONS)
def trace_candidate(candidate, numbers, n_substeps, old_v, is_2007, strict, current, v_start, v, spiked):
    """Simulate one candidate in one sweep, and keep v of each step, cut at the peak, and whether it spiked.

    Parameters
    ----------
    candidate : ndarray, shape (11,)
        Parameters, as `COLUMNS` says.
    numbers, n_substeps, old_v, is_2007, strict
        As in `run_candidates`.
    current : ndarray, shape (T,)
        Current of each step, in pA.
    v_start : float
        v at the beginning.
    v, spiked : ndarray, shape (T,)
        Receive the trace, and whether there was a spike.
    """
    a, b, c, d, peak, capacitance, k_, v_rest, v_threshold, gain, bias = candidate
    substep, k2, k1, k0 = numbers[0], numbers[1], numbers[2], numbers[3]
    x, w = v_start, b * (v_start - v_rest)
    for t in range(current.shape[0]):
        drive, seen = gain * current[t] + bias, x
        if is_2007:
            for _ in range(n_substeps):
                x = x + substep * (k_ * (x - v_rest) * (x - v_threshold) - w + drive) / capacitance
        else:
            for _ in range(n_substeps):
                x = x + substep * (k2 * x * x + k1 * x + k0 - w + drive)
        if not old_v:
            seen = x
        w = w + a * (b * (seen - v_rest) - w)
        v[t] = min(x, peak)
        spiked[t] = x > peak or (not strict and x == peak)
        if spiked[t]:
            x, w = c, w + d


@numba.njit(**_OPTIONS)
def count_coincidences(data, model, delta):
    """Return how many pairs of spikes lie within `delta`, each spike in one pair at most.

    Going along both sorted trains and pairing the earliest that fit gives the largest such number.

    Parameters
    ----------
    data, model : ndarray
        Sorted times.
    delta : float
        Largest distance that counts.
    """
    i, j, found = 0, 0, 0
    while i < data.shape[0] and j < model.shape[0]:
        # As a difference: rounding must not depend on how late in the sweep a pair comes.
        gap = model[j] - data[i]
        if gap < -delta:
            j += 1
        elif gap > delta:
            i += 1
        else:
            found += 1
            i += 1
            j += 1
    return found


@numba.njit(**_OPTIONS)
def isi_distance(data, model, duration):
    """Return the ISI distance of two spike trains: the mean over time of 1 - shorter / longer of the two intervals.

    The beginning and the end of the sweep count as spikes of both.

    Parameters
    ----------
    data, model : ndarray
        Sorted times in (0, duration).
    duration : float
        Length of the sweep.
    """
    i, j, now, total = 0, 0, 0.0, 0.0
    last_data, last_model = 0.0, 0.0
    next_data = data[0] if data.shape[0] else duration
    next_model = model[0] if model.shape[0] else duration
    while now < duration:
        isi_data, isi_model = next_data - last_data, next_model - last_model
        until = min(next_data, next_model, duration)
        longer = max(isi_data, isi_model)
        if longer > 0:
            total += (until - now) * (1.0 - min(isi_data, isi_model) / longer)
        now = until
        if next_data <= now:
            i += 1
            last_data, next_data = next_data, (data[i] if i < data.shape[0] else duration)
        if next_model <= now:
            j += 1
            last_model, next_model = next_model, (model[j] if j < model.shape[0] else duration)
        if last_data >= duration or last_model >= duration:
            break
    return total / duration
