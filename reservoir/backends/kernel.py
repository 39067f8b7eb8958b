"""The compiled loop: all steps of a chunk for one lane, with everything that happens in a step.

What a step does, in this order; every backend computes these lines and rounds as they do::

    1. current = bias + pulses (when they change), + synapses of each kind, + given current, + feedback, + noise
    2. v in substeps (bounded below by v_min), then u
    3. synaptic currents decay
    4. neurons at their peak spike: v = c, u = u + d
    5. spikes that are due reach their targets: longest delay first, then by sender, then by receiver, ascending;
       plastic synapses change as `reservoir.plastic_kernel` says
    6. a readout and its rule see the spikes of the step and write the feedback of the next one

Traces hold what drove the step (synaptic current) and what came of it before the reset (v, cut at the peak, and u).

Threads share a lane by ranges of neurons. Each delivers every spike to its own range, so that no sum depends on how
many there are; they wait for each other once a step, after the spikes are known and before they are delivered. The
ring of spike lists has one row more than the longest delay needs, so that a fast thread may write while a slow one
still reads.
"""

# N neurons, R kinds of synapses, Q distinct delays, P patterns, K threads

from __future__ import annotations

import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from reservoir.noise_kernel import fill_normals
from reservoir.plastic_kernel import Plastic, begin_step, deliver, potentiate, write_down

__all__ = ["Cells", "Drive", "Memory", "Output", "Scratch", "Wires", "compiled_loop"]

# Rows of Cells.values, in the order of izhikevich.PARAMETERS and BENT.
A, B, C, D, PEAK, CAPACITANCE, K, V_REST, V_THRESHOLD, B_BELOW, V_BEND, CUBIC, PEAK_SLOPE, RESET_SLOPE, U_MAX = range(
    15
)
# How often a waiting thread looks before it offers its core to others.
PATIENCE = 2000


class Cells(NamedTuple):
    """Parameters and scheme, as `spec.parameters` returns them: the first row of `values` (15, N) is a times dt."""

    values: np.ndarray
    numbers: np.ndarray
    scheme: tuple[int, bool, bool]


class Memory(NamedTuple):
    """What goes on from step to step: v, u, fed (N,), s, h (R, N), spike lists (H, N), their lengths (H, K)."""

    v: np.ndarray
    u: np.ndarray
    s: np.ndarray
    h: np.ndarray
    fed: np.ndarray
    ring: np.ndarray
    ring_count: np.ndarray
    clamped: np.ndarray


class Wires(NamedTuple):
    """Synapses: delays (Q,), cuts (K + 1, Q * N), post, weight (S,), receptor (N,), decays (2, R); plastic ones."""

    delays: np.ndarray
    cuts: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    receptor: np.ndarray
    decays: np.ndarray
    plastic: Plastic | tuple[()] = ()


class Drive(NamedTuple):
    """Input: bias, noise (N,), patterns (P, N), and which of them act from which step on; given current (T, N)."""

    bias: np.ndarray
    noise: np.ndarray
    patterns: np.ndarray
    edges: np.ndarray
    active_start: np.ndarray
    active: np.ndarray
    given: np.ndarray
    seed: int


class Output(NamedTuple):
    """Results: spikes (capacity,), how many each step (T,), watched neurons, traces (rows, 3, watched)."""

    neurons: np.ndarray
    counts: np.ndarray
    watch: np.ndarray
    traces: np.ndarray


class Scratch(NamedTuple):
    """Memory between the passes of a step: what the fields say; threads meet at `barrier`."""

    base: np.ndarray
    current: np.ndarray
    before: np.ndarray
    force: np.ndarray
    normals: np.ndarray
    noise: np.ndarray
    barrier: np.ndarray
    failed: np.ndarray


@intrinsic
def _add_atomically(typingctx: Any, array: Any, value: Any) -> Any:
    """Add to the first element of an int64 array, visibly to all threads; return what it was."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(array, types.int64), codegen


@intrinsic
def _read_atomically(typingctx: Any, array: Any) -> Any:
    """Return the first element of an int64 array as other threads last left it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(array), codegen


@intrinsic
def _call(typingctx: Any, address: Any, argument: Any) -> Any:
    """Call a compiled C function that takes the address of an array of int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(64).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [pointer])
        builder.call(builder.inttoptr(args[0], function.as_pointer()), [builder.inttoptr(args[1], pointer)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


_yield_core = types.ExternalFunction("sched_yield", types.int32())


@numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _wait_for_all(barrier, n_threads):
    """Return once all threads have come here as often as this one."""
    goal = (_add_atomically(barrier, 1) // n_threads + 1) * n_threads
    patience = PATIENCE
    while _read_atomically(barrier) < goal:
        patience -= 1
        if patience < 0:
            _yield_core()


def _sources() -> int:
    """Fingerprint of the code that is compiled into the loop: numba's cache looks at one file only."""
    folder = Path(__file__).parent
    names = ("backends/kernel.py", "noise_kernel.py", "noise.py", "plastic_kernel.py", "rules/stdp.py")
    parts = [folder.parent / name for name in names]
    return zlib.crc32(b"".join(part.read_bytes() for part in parts)) + 1


@cache
def compiled_loop(is_2007: bool, bent: bool, threaded: bool, plastic: bool = False) -> Any:
    """Return the loop for one set of options, which are constants to the compiler.

    Parameters
    ----------
    is_2007 : bool
        Whether the equations are those of 2007.
    bent : bool
        Whether u bends and peaks move (`izhikevich.BENT`).
    threaded : bool
        Whether several threads share a lane.
    plastic : bool
        Whether synapses change.

    Returns
    -------
    callable
        ``loop(thread, n_threads, first, last, step, t, n_steps, cells, memory, wires, drive, output, every, scratch,
        hook, hook_context)``: thread, range of neurons, absolute step, step of the run, how many steps; address of a
        compiled function that is called at the end of each step (0: none) and the array it is handed. Returns the
        number of steps done, fewer if the space for spikes is used up or a neuron is not finite any more.
    """
    sources = _sources()

    def loop(
        thread,
        n_threads,
        first,
        last,
        step,
        t,
        n_steps,
        cells,
        memory,
        wires,
        drive,
        output,
        every,
        scratch,
        hook,
        hook_context,
    ):
        if sources == 0:
            return 0
        values, numbers = cells.values, cells.numbers
        a, b, c, d = values[A, first:last], values[B, first:last], values[C, first:last], values[D, first:last]
        peak = values[PEAK, first:last]
        substep, k2, k1, k0 = numbers[0], numbers[1], numbers[2], numbers[3]
        v_min, dt, shift, leak, zero = numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]
        n_substeps, old_v, strict = cells.scheme
        v, u, fed = memory.v[first:last], memory.u[first:last], memory.fed[first:last]
        ring, ring_count = memory.ring, memory.ring_count
        n_rows, n_all, n = ring.shape[0], ring.shape[1], last - first
        n_kinds, rising = memory.s.shape[0], memory.h.shape[0] > 0
        target = memory.h if rising else memory.s
        delays, post, weight, receptor = wires.delays, wires.post, wires.weight, wires.receptor
        low, high = wires.cuts[thread], wires.cuts[thread + 1]
        base, current, normal = scratch.base[first:last], scratch.current[first:last], scratch.normals[first:last]
        force = scratch.force[first:last]
        sd, noisy = drive.noise[first:last], drive.noise.shape[0] > 0
        given = drive.given.shape[0] > 0
        watch, n_watched, traces = output.watch, output.watch.shape[0], output.traces
        # Which set of pulses acts now.
        edge = np.searchsorted(drive.edges, t, side="right") - 1
        fresh, position, row, n_clamped = True, 0, 0, 0
        done = 0
        while done < n_steps:
            if position + n_all > output.neurons.shape[0]:
                break
            while edge + 1 < drive.edges.shape[0] and drive.edges[edge + 1] <= t:
                edge += 1
                fresh = True
            if fresh:
                fresh = False
                base[:] = drive.bias[first:last]
                for q in range(drive.active_start[edge], drive.active_start[edge + 1]):
                    pattern = drive.patterns[drive.active[q], first:last]
                    for i in range(n):
                        base[i] += pattern[i]

            # 1. What drives this step; 3. the synapses decay, which the neurons do not see any more.
            tracing = n_watched > 0 and step % every == 0
            for r in range(n_kinds):
                s, fast = memory.s[r, first:last], wires.decays[0, r]
                if r == 0:
                    if tracing:
                        for k in range(n_watched):
                            if first <= watch[k] < last:
                                traces[row, 2, k] = s[watch[k] - first]
                    for i in range(n):
                        current[i] = base[i] + s[i]
                else:
                    if tracing:
                        for k in range(n_watched):
                            if first <= watch[k] < last:
                                traces[row, 2, k] += s[watch[k] - first]
                    for i in range(n):
                        current[i] += s[i]
                if rising:
                    h, slow = memory.h[r, first:last], wires.decays[1, r]
                    for i in range(n):
                        s[i] = s[i] * fast + h[i] * dt
                    for i in range(n):
                        h[i] = h[i] * slow
                else:
                    for i in range(n):
                        s[i] = s[i] * fast
            if given:
                more = drive.given[t, first:last]
                for i in range(n):
                    current[i] += more[i]
            if hook != 0:
                for i in range(n):
                    current[i] += fed[i]
            if noisy:
                fill_normals(drive.seed, step, 0, first, last, scratch.noise, scratch.normals)
                for i in range(n):
                    current[i] += sd[i] * normal[i]

            # 2. The neurons. In passes, which are compiled to vector instructions.
            if is_2007:
                capacitance, k_ = values[CAPACITANCE, first:last], values[K, first:last]
                v_rest, v_threshold = values[V_REST, first:last], values[V_THRESHOLD, first:last]
                before = scratch.before[first:last]
                before[:] = v
                for _ in range(n_substeps):
                    for i in range(n):
                        force[i] = k_[i] * (v[i] - v_rest[i]) * (v[i] - v_threshold[i])
                    for i in range(n):
                        x = v[i] + substep * (force[i] - u[i] + current[i]) / capacitance[i]
                        n_clamped += x < v_min
                        v[i] = v_min if x < v_min else x
                seen = before if old_v else v
                if bent:
                    b_below, v_bend = values[B_BELOW, first:last], values[V_BEND, first:last]
                    cubic = values[CUBIC, first:last]
                    for i in range(n):
                        slope = b_below[i] if seen[i] <= v_bend[i] else b[i]
                        goal = slope * (seen[i] - v_rest[i])
                        if cubic[i] != zero:
                            over = max(seen[i] - v_bend[i], zero)
                            goal = goal + cubic[i] * over * over * over
                        u[i] = u[i] + a[i] * (goal - u[i])
                else:
                    for i in range(n):
                        u[i] = u[i] + a[i] * (b[i] * (seen[i] - v_rest[i]) - u[i])
            elif old_v:
                for i in range(n):
                    before, w = v[i], u[i]
                    x = before + substep * (k2 * before * before + k1 * before + k0 - w + current[i])
                    n_clamped += x < v_min
                    v[i] = v_min if x < v_min else x
                    u[i] = w + a[i] * (b[i] * (before + shift) - leak * w)
            else:
                for _ in range(n_substeps):
                    for i in range(n):
                        x = v[i]
                        x = x + substep * (k2 * x * x + k1 * x + k0 - u[i] + current[i])
                        n_clamped += x < v_min
                        v[i] = v_min if x < v_min else x
                for i in range(n):
                    u[i] = u[i] + a[i] * (b[i] * (v[i] + shift) - leak * u[i])

            if tracing:
                for k in range(n_watched):
                    i = watch[k] - first
                    if 0 <= i < n:
                        top = peak[i] + values[PEAK_SLOPE, watch[k]] * u[i] if bent else peak[i]
                        traces[row, 0, k] = top if v[i] > top else v[i]
                        traces[row, 1, k] = u[i]
                row += 1

            # 4. Spikes and resets. A NaN is not below the peak either, and comes to light here.
            found, place = 0, step % n_rows
            spiked = ring[place, first:last]
            for i in range(n):
                top = peak[i] + values[PEAK_SLOPE, first + i] * u[i] if bent else peak[i]
                quiet = v[i] <= top if strict else v[i] < top
                if not quiet:
                    if not (abs(v[i]) < np.inf and abs(u[i]) < np.inf):
                        scratch.failed[thread] = min(scratch.failed[thread], first + i)
                    spiked[found] = first + i
                    found += 1
                    if bent:
                        v[i] = c[i] + values[RESET_SLOPE, first + i] * u[i]
                        u[i] = min(u[i] + d[i], values[U_MAX, first + i])
                    else:
                        v[i] = c[i]
                        u[i] = u[i] + d[i]
            ring_count[place, thread] = found
            if threaded:
                _wait_for_all(scratch.barrier, n_threads)

            # Every thread counts all spikes, so that all stop at the same step; the first one writes them down.
            n_spikes, failed = 0, False
            for k in range(n_threads):
                failed = failed or scratch.failed[k] < n_all
                if thread == 0:
                    lane_start = scratch.barrier[1 + k]
                    for j in range(ring_count[place, k]):
                        output.neurons[position + n_spikes + j] = ring[place, lane_start + j]
                n_spikes += ring_count[place, k]
            if failed:
                break
            if thread == 0:
                output.counts[done] = n_spikes

            # 5. Delivery, before which plastic synapses see who spiked.
            if plastic:
                begin_step(wires.plastic, thread, step, low, high)
                for j in range(found):
                    potentiate(wires.plastic, thread, step, spiked[j])
            for q in range(delays.shape[0]):
                source = (step - delays[q]) % n_rows
                for k in range(n_threads):
                    lane_start = scratch.barrier[1 + k]
                    for j in range(ring_count[source, k]):
                        pre = ring[source, lane_start + j]
                        to = target[receptor[pre]]
                        g = q * n_all + pre
                        if plastic:
                            deliver(wires.plastic, thread, step, g, pre, low[g], high[g], post, weight, to)
                        else:
                            for m in range(low[g], high[g]):
                                to[post[m]] += weight[m]
            if plastic:
                write_down(wires.plastic, thread, step, first, last)

            # 6. Readout and rule, on one thread; the feedback must be there before anybody goes on.
            if hook != 0:
                if thread == 0:
                    hook_context[0] = step
                    hook_context[1] = t
                    hook_context[2] = n_spikes
                    hook_context[3] = hook_context[7] + 4 * position
                    _call(hook, hook_context.ctypes.data)
                if threaded:
                    _wait_for_all(scratch.barrier, n_threads)
            position += n_spikes
            done += 1
            step += 1
            t += 1
        memory.clamped[thread] += n_clamped
        return done

    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(loop)
    except RuntimeError:
        # Neither the installation nor the user's cache folder can be written to: compile anew in each process.
        return numba.njit(**options)(loop)


def can_share_a_lane() -> bool:
    """Say whether threads can wait for each other here."""
    return hasattr(os, "sched_yield")
