"""The CPU backend: feeds the compiled loop, spreads lanes over threads, or one large lane over several."""

# T time, B lanes, N neurons, K threads, W watched neurons

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from reservoir.backends.kernel import (
    Cells,
    Drive,
    Memory,
    Output,
    Scratch,
    Wires,
    can_share_a_lane,
    compiled_loop,
)
from reservoir.backends.spec import Plan, not_finite, parameters, recent_spikes
from reservoir.backends.turns import work_through
from reservoir.izhikevich import SCHEMES
from reservoir.network import Reservoir
from reservoir.recording import Sink
from reservoir.state import State

__all__ = ["run"]

# Neurons of a thread where several share a lane: with fewer, waiting for each other takes longer than it saves.
MIN_NEURONS = 2048
# Ranges begin at multiples of this, a line of cache in bytes, so that no two threads write to one line.
ALIGN = 64
# Space for the spikes of a chunk; the loop comes back early when it is used up.
N_SPIKES = 1 << 16


def run(plan: Plan, state: State, sink: Sink) -> np.ndarray:
    """Run a plan; the contract is that of `reservoir.backends.run`.

    Parameters
    ----------
    plan : Plan
        What to run.
    state : State
        Advanced in place.
    sink : Sink
        Where spikes and traces go.

    Returns
    -------
    ndarray of int64, shape (B,)
        How often v was held at its lower bound.
    """
    share = min(plan.n_threads // plan.n_lanes, plan.n // MIN_NEURONS) if can_share_a_lane() else 1
    edges = _edges(plan.n, max(1, share))
    shared = {id(net): _constants(net, plan.dtype, edges) for net in plan.networks}
    lanes = [_Lane(plan, state, sink, lane, shared[id(plan.networks[lane])], edges) for lane in range(plan.n_lanes)]
    if plan.n_steps:
        work_through(lanes, max(1, min(plan.n_threads, plan.n_lanes)), lambda: _Desk(plan, sink, edges))
    state.recent = np.concatenate([lane.recent() for lane in lanes])
    return np.array([lane.memory.clamped.sum() for lane in lanes])


def _edges(n: int, n_threads: int) -> tuple[int, ...]:
    """Return where the neurons of each thread begin, and N."""
    inner = [round(n * k / n_threads / ALIGN) * ALIGN for k in range(1, n_threads)]
    return (0, *inner, n)


def _constants(net: Reservoir, dtype: Any, edges: tuple[int, ...]) -> tuple[Cells, Wires]:
    """Return what all lanes of a network share."""
    values, numbers = parameters(net, dtype)
    wiring = net.wiring
    scale = np.array([synapse.scale for synapse in net.synapses])[net.receptor]
    decays = np.array([synapse.decays(net.dt_ms) for synapse in net.synapses]).T
    wires = Wires(
        wiring.delays, wiring.cuts(edges), wiring.post, wiring.weights_as(dtype, scale), net.receptor,
        np.ascontiguousarray(decays, dtype=dtype),
    )  # fmt: skip
    scheme = SCHEMES[net.scheme]
    return Cells(values, numbers, (scheme.n_substeps, scheme.u_sees_old_v, scheme.strict)), wires


class _Desk:
    """What one thread needs to go on with any lane; it stays in the cache of its core from lane to lane."""

    def __init__(self, plan: Plan, sink: Sink, edges: tuple[int, ...]) -> None:
        n, n_threads = plan.n, len(edges) - 1
        watch = sink.watch if sink.wants_traces else sink.watch[:0]
        self.chunk = min(plan.chunk_steps, plan.n_steps)
        self.output = Output(
            np.empty(max(N_SPIKES, 2 * n), dtype=np.int32), np.empty(self.chunk, dtype=np.int32), watch,
            np.empty((self.chunk // sink.record.every + 1 if len(watch) else 0, 3, len(watch)), dtype=plan.dtype),
        )  # fmt: skip
        self.scratch = Scratch(
            *np.empty((4, n), dtype=plan.dtype), np.empty(n + 3), np.empty((5, n + 6)),
            np.array([0, *edges[:-1]], dtype=np.int64), np.full(n_threads, n, dtype=np.int64),
        )  # fmt: skip
        # All threads of a lane wait for each other inside the loop, so each must be there at any time.
        self.pool = ThreadPoolExecutor(n_threads, thread_name_prefix="reservoir") if n_threads > 1 else None

    def close(self) -> None:
        """End the threads that share a lane."""
        if self.pool is not None:
            self.pool.shutdown()


class _Lane:
    """One lane on its way through a run."""

    def __init__(
        self,
        plan: Plan,
        state: State,
        sink: Sink,
        lane: int,
        constants: tuple[Cells, Wires],
        edges: tuple[int, ...],
    ) -> None:
        self.plan, self.sink, self.lane = plan, sink, lane
        # Steps done, and rows of traces.
        self.t, self.row = 0, 0
        self.cells, self.wires = constants
        self.edges = edges
        net, n, dtype = plan.networks[lane], plan.n, plan.dtype
        plastic = {"plastic": True} if plan.plastic is not None else {}
        self.loop = compiled_loop(net.form == "2007", net.is_bent, len(edges) > 2, **plastic)
        if plastic:
            table = plan.plastic.table(lane, len(edges) - 1)
            self.wires = self.wires._replace(weight=self.wires.weight.copy(), plastic=table)
        self.max_delay = net.wiring.max_delay
        ring, ring_count = self._ring(state)
        self.memory = Memory(
            state.v[lane], state.u[lane], state.s[lane], state.h[lane], state.fed[lane],
            ring, ring_count, _apart(len(edges) - 1),
        )  # fmt: skip
        schedule = plan.schedules[lane]
        nothing = np.zeros((0, n), dtype=dtype)
        self.drive = Drive(
            net.bias.astype(dtype),
            net.noise.astype(dtype) if net.noise.any() else np.zeros(0, dtype=dtype),
            np.ascontiguousarray(schedule.patterns, dtype=dtype),
            schedule.edges, schedule.active_start, schedule.active,
            nothing if schedule.given is None else np.ascontiguousarray(schedule.given, dtype=dtype),
            state.seeds[lane],
        )  # fmt: skip
        self.hook_context = _apart(8)
        self.hook_context[4] = state.fed[lane].ctypes.data
        self.hook_context[5] = n
        if plan.part is not None:
            self.hook_context[6] = plan.part.context(lane)

    def _ring(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Return the spike lists of the steps before the first, as the threads would have left them."""
        n_rows = self.max_delay + 2
        ring = np.zeros((n_rows, self.plan.n), dtype=np.int32)
        count = _apart(n_rows, len(self.edges) - 1)
        for age, neurons in recent_spikes(state.recent, self.lane, self.max_delay):
            row = (self.plan.start - age) % n_rows
            for k in range(len(self.edges) - 1):
                mine = neurons[(neurons >= self.edges[k]) & (neurons < self.edges[k + 1])]
                ring[row, self.edges[k] : self.edges[k] + len(mine)] = mine
                count[row, k] = len(mine)
        return ring, count

    def recent(self) -> np.ndarray:
        """Return the spikes that are still on their way, as `State.recent` lists them."""
        ring, count, end = self.memory.ring, self.memory.ring_count, self.plan.start + self.plan.n_steps
        found = [np.zeros((0, 3), dtype=np.int64)]
        for age in range(1, self.max_delay + 1):
            row = (end - age) % len(ring)
            for k, first in enumerate(self.edges[:-1]):
                neurons = ring[row, first : first + count[row, k]].astype(np.int64)
                found.append(np.stack([np.full_like(neurons, self.lane), np.full_like(neurons, age), neurons], axis=1))
        return np.concatenate(found)

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.t >= self.plan.n_steps

    def advance(self, desk: _Desk) -> None:
        """Do the steps of a chunk."""
        plan, n, t, output, scratch = self.plan, self.plan.n, self.t, desk.output, desk.scratch
        steps, every = min(desk.chunk, plan.n_steps - t), self.sink.record.every
        if plan.part is not None:
            plan.part.chunk(self.lane, t, steps)
        wires = self.wires
        if plan.plastic is not None:
            steps, table = plan.plastic.begin(self.lane, t, steps)
            wires = wires._replace(plastic=table)
        hook = 0 if plan.part is None else plan.part.address
        self.hook_context[7] = output.neurons.ctypes.data
        rest = (plan.start + t, t, steps, self.cells, self.memory, wires, self.drive, output, every)
        rest += (scratch, hook, self.hook_context)
        if desk.pool is None:
            done = self.loop(0, 1, 0, n, *rest)
        else:
            ranges = enumerate(zip(self.edges[:-1], self.edges[1:], strict=True))
            jobs = [desk.pool.submit(self.loop, k, len(self.edges) - 1, *ends, *rest) for k, ends in ranges]
            done = min(job.result() for job in jobs)
        counts = output.counts[:done]
        spiked = output.neurons[: counts.sum()]
        self.sink.put(self.lane, plan.start + t, counts, spiked)
        rows = self.sink.record.rows(plan.start + t, done) if len(output.watch) else 0
        for k, name in enumerate(("v", "u", "i_syn")):
            if name in self.sink.traces:
                self.sink.traces[name][self.row : self.row + rows, self.lane] = output.traces[:rows, k]
        self.row += rows
        self.t += done
        if (scratch.failed < n).any():
            raise not_finite(int(scratch.failed.min()), self.lane, plan.start + self.t, plan.networks[0].dt_ms)
        if plan.plastic is not None:
            plan.plastic.end(self.lane, plan.start + t, counts, spiked)
        plan.on_steps(done)


def _apart(*shape: int) -> np.ndarray:
    """Return zeros, int64, in lines of cache that no other array is in: threads write to them at each step."""
    size, line = math.prod(shape), ALIGN // 8
    block = np.zeros(size + 2 * line, dtype=np.int64)
    first = -block.ctypes.data % ALIGN // 8
    return block[first : first + size].reshape(shape)
