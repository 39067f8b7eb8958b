"""The reference: the same statements in brian2, in an order and with options that make the numbers the same.

brian2 agrees to the last bit if it integrates by ordered statements, if its code generator does not reorder sums, if
the compiler neither does that nor contracts multiplications and additions, and if synapses are made in the order of
delivery. Its own random numbers are not used: noise comes as an array. What its preferences were is put back.
"""

# T time, N neurons, R kinds of synapses

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from neuroloaders.checks import check_option, invalid, soft_import
from reservoir.backends.brian2_synapses import PlasticSynapses
from reservoir.backends.spec import Plan, not_finite, parameters
from reservoir.izhikevich import BENT, PARAMETERS, SCHEMES
from reservoir.noise import normals
from reservoir.recording import Sink
from reservoir.state import State

__all__ = ["TARGETS", "run", "seconds"]

TARGETS = {
    "numpy": "numpy",
    "cython": "compiled by Cython",
    "cpp": "a C++ program, cpp_standalone",
    "cpp_default": "cpp_standalone with brian2's own options, -ffast-math among them: faster, and other numbers",
}
# What the last lane took: "run", the loop over time (at run time with the generation of code), and "build".
seconds: dict[str, float] = {}
# How often a C++ program is run; a benchmark takes the best of several.
n_program_runs = 1
# Of each term that changes with time, all steps are laid out before the run.
MAX_BYTES = 1 << 30
# Stands for infinity in `clip`, which has no one-sided form.
_HIGHEST = float(np.finfo(np.float64).max)
STRICT_FLAGS = ["-w", "-O3", "-march=native", "-ffp-contract=off", "-std=c++17"]


def run(plan: Plan, state: State, sink: Sink, *, target: str = "numpy") -> np.ndarray:
    """Run a plan; the contract is that of `reservoir.backends.run`.

    Parameters
    ----------
    plan : Plan
        What to run.
    state : State
        Overwritten at the end.
    sink : Sink
        Where spikes and traces go.
    target : str
        A key of `TARGETS`.

    Returns
    -------
    ndarray of int64, shape (B,)
        How often v was held at its lower bound.
    """
    check_option("target", target, TARGETS)
    if plan.dtype != np.float64:
        raise invalid("dtype", "be 'float64' with brian2", f"{plan.dtype}")
    if plan.part is not None and target.startswith("cpp"):
        raise invalid("backend", "be 'brian2' with a readout", "'brian2_cpp'", "A C++ program cannot call back.")
    if state.recent.size:
        raise invalid("state", "have no spikes on their way, with brian2", f"{len(state.recent)}", "Use 'numba'.")
    clamped = np.zeros(plan.n_lanes, dtype=np.int64)
    with warnings.catch_warnings():
        # What brian2 uses that others deprecate concerns nobody here.
        warnings.simplefilter("ignore", DeprecationWarning)
        brian2 = soft_import("brian2", purpose="The 'brian2' backend")
        with _preferences(brian2, target):
            for lane in range(plan.n_lanes):
                with _device(brian2, target) as build:
                    clamped[lane] = _Lane(brian2, plan, state, lane, sink).run(state, sink, build)
                plan.on_steps(plan.n_steps)
    return clamped


@contextlib.contextmanager
def _preferences(brian2: Any, target: str) -> Iterator[None]:
    """Set brian2's global preferences, and put them back."""
    prefs, flags = brian2.prefs, "codegen.cpp.extra_compile_args_gcc"
    wanted: dict[str, Any] = {"codegen.target": "numpy" if target == "numpy" else "cython"}
    if target != "cpp_default":
        wanted |= {"codegen.loop_invariant_optimisations": False, flags: STRICT_FLAGS}
    before, dt = {name: prefs[name] for name in wanted}, brian2.defaultclock.dt
    for name, value in wanted.items():
        prefs[name] = value
    try:
        yield
    finally:
        brian2.defaultclock.dt = dt
        for name, value in before.items():
            prefs[name] = value


@contextlib.contextmanager
def _device(brian2: Any, target: str) -> Iterator[Any]:
    """Yield what builds and runs a C++ program, or None at run time."""
    if not target.startswith("cpp"):
        yield None
        return
    folder = tempfile.mkdtemp(prefix="reservoir-brian2-")
    brian2.set_device("cpp_standalone", build_on_run=False)

    def build() -> None:
        started = time.perf_counter()
        brian2.device.build(directory=folder, compile=True, run=False, debug=False, clean=False)
        seconds["build"] = time.perf_counter() - started
        seconds["run"] = np.inf
        for _ in range(n_program_runs):
            brian2.device.run(directory=folder, with_output=False, run_args=[])
            # What the program itself says about its loop over time, without reading and writing.
            seconds["run"] = min(seconds["run"], brian2.device._last_run_time)

    try:
        yield build
    finally:
        brian2.device.reinit()
        brian2.set_device("runtime")
        shutil.rmtree(folder, ignore_errors=True)


class _Lane:
    """One lane as a brian2 network."""

    def __init__(self, brian2: Any, plan: Plan, state: State, lane: int, sink: Sink) -> None:
        self.brian2, self.plan, self.lane = brian2, plan, lane
        self.net = net = plan.networks[lane]
        ms = brian2.ms
        brian2.defaultclock.dt = net.dt_ms * ms
        values, numbers = parameters(net, np.float64)
        namespace = self._input(state)
        kinds = range(len(net.synapses))
        names = [*PARAMETERS, *BENT]
        rising = state.h.shape[1] > 0
        # By name: as figures in the code they would be cut to fifteen digits.
        constants = dict(zip(("substep", "k2", "k1", "k0", "v_min", "step"), map(float, numbers), strict=False))
        constants |= {"highest": _HIGHEST, "lowest": -_HIGHEST}
        for r, synapse in enumerate(net.synapses):
            constants[f"fast{r}"], constants[f"slow{r}"] = synapse.decays(net.dt_ms)
        self.plastic = None if plan.plastic is None else PlasticSynapses(brian2, plan.plastic, lane)
        if self.plastic is not None:
            namespace |= self.plastic.namespace()
        namespace |= constants if net.v_min is not None else {k: x for k, x in constants.items() if k != "v_min"}
        equations = [f"{name} : 1 (constant)" for name in names] + ["v : 1", "u : 1", "low : 1", "base : 1 (constant)"]
        equations += ["noise : 1 (constant)", "fed : 1", "drive : 1", "before : 1", "seen : 1", "top : 1", "i_syn : 1"]
        equations += ["slope : 1", "over : 1", "moved : 1"]
        equations += [f"s{r} : 1" for r in kinds] + [f"h{r} : 1" for r in kinds if rising]
        scheme = SCHEMES[net.scheme]
        bent = "v = c + reset_slope*u\nu = clip(u + d, lowest, u_max)"
        reset = bent if net.is_bent else "v = c\nu = u + d"
        compare = ">" if scheme.strict else ">="
        group = brian2.NeuronGroup(
            net.n, "\n".join(equations), threshold=f"v {compare} top", reset=reset, method="euler", namespace=namespace,
            name="neurons",
        )  # fmt: skip
        for name, row in zip(names, values, strict=True):
            setattr(group, name, row)
        group.base, group.noise = self.base, net.noise
        group.v, group.u, group.fed = state.v[lane], state.u[lane], state.fed[lane]
        for r in kinds:
            setattr(group, f"s{r}", state.s[lane, r])
            if rising:
                setattr(group, f"h{r}", state.h[lane, r])
        code = "\n".join(self._statements(rising))
        group.run_regularly(code, dt=net.dt_ms * ms, when="groups", name="integrate")
        self.group = group
        self.parts = [group, *self._synapses("h" if rising else "s")]
        self.spikes = brian2.SpikeMonitor(group, name="spikes")
        self.parts.append(self.spikes)
        self.monitor = None
        if sink.wants_traces:
            record = sink.watch.tolist()
            self.monitor = brian2.StateMonitor(group, ["v", "u", "top", "i_syn"], record=record, when="before_resets")
            self.parts.append(self.monitor)
        if plan.part is not None:
            self.parts.append(self._read_out())

    def _input(self, state: State) -> dict[str, Any]:
        """Lay out what changes with time; return it as functions of time."""
        plan, schedule, net = self.plan, self.plan.schedules[self.lane], self.net
        dt = net.dt_ms * self.brian2.ms
        self.base, self.terms = schedule.base(0, net.bias), []
        tables: dict[str, np.ndarray] = {}
        n_tables = (len(schedule.edges) > 1) + (schedule.given is not None) + bool(net.noise.any())
        if n_tables * plan.n_steps * net.n * 8 > MAX_BYTES:
            got = f"{n_tables * plan.n_steps * net.n * 8 / 2**20:.0f} MB of input"
            raise invalid("stimulus", "be shorter with brian2, where all input is laid out", got, "Use 'numba'.")
        if len(schedule.edges) > 1:
            tables["pulses"] = np.empty((plan.n_steps, net.n))
            for first, last in zip(schedule.edges, [*schedule.edges[1:], plan.n_steps], strict=True):
                if first < plan.n_steps:
                    tables["pulses"][first:last] = schedule.base(int(first), net.bias)
        if schedule.given is not None:
            tables["given"] = np.array(schedule.given)
        if net.noise.any():
            seed = int(state.seeds[self.lane])
            rows = [normals(seed, plan.start + t, net.n) for t in range(plan.n_steps)]
            tables["deviates"] = np.array(rows).reshape(plan.n_steps, net.n)
        self.terms = list(tables)
        return {name: self.brian2.TimedArray(table, dt=dt) for name, table in tables.items() if len(table)}

    def _statements(self, rising: bool) -> Iterator[str]:
        """Yield the statements of a step up to the threshold; see `kernel` for what they are.

        brian2 turns ``x = x + ...`` into ``x += ...`` and reorders the rest on the way, so sums go to a variable of
        their own first. No variable may become another name of one that changes in place.
        """
        net, scheme = self.net, SCHEMES[self.net.scheme]
        sources = [f"s{r}" for r in range(len(net.synapses))]
        yield f"i_syn = 1.0*{' + '.join(sources)}"
        drive = ["pulses(t, i)" if "pulses" in self.terms else "base", *sources]
        drive += ["given(t, i)"] * ("given" in self.terms) + ["fed"] * (self.plan.part is not None)
        yield f"drive = {' + '.join(drive)}"
        if "deviates" in self.terms:
            yield "drive = drive + noise*deviates(t, i)"
        yield "before = 1.0*v"
        for _ in range(scheme.n_substeps):
            if net.form == "2007":
                yield "moved = v + substep*(k*(v - v_rest)*(v - v_threshold) - u + drive)/capacitance"
            else:
                yield "moved = v + substep*(k2*v*v + k1*v + k0 - u + drive)"
            if net.v_min is not None:
                yield "low = low + int(moved < v_min)"
            yield f"v = {'clip(moved, v_min, highest)' if net.v_min is not None else '1.0*moved'}"
        yield f"seen = 1.0*{'before' if scheme.u_sees_old_v else 'v'}"
        if net.form == "2007" and net.is_bent:
            yield "slope = int(seen <= v_bend)*b_below + int(seen > v_bend)*b"
            yield "over = clip(seen - v_bend, 0, highest)*int(cubic != 0)"
            yield "moved = u + a*(slope*(seen - v_rest) + cubic*over*over*over - u)"
        elif net.form == "2007":
            yield "moved = u + a*(b*(seen - v_rest) - u)"
        elif net.form == "2003_accommodation":
            yield "moved = u + a*(b*(seen + 65.0))"
        else:
            yield "moved = u + a*(b*seen - u)"
        yield "u = 1.0*moved"
        yield f"top = v_peak{' + peak_slope*u' if net.is_bent else '*1.0'}"
        for r, source in enumerate(sources):
            yield f"{source} = {source}*fast{r}{f' + h{r}*step' if rising else ''}"
            if rising:
                yield f"h{r} = h{r}*slow{r}"

    def _synapses(self, target: str) -> Iterator[Any]:
        """Yield the synapses of each kind, made in the order of delivery."""
        net, wiring = self.net, self.net.wiring
        pre, post = wiring.pre(), wiring.post.astype(np.int64)
        scale = np.array([synapse.scale for synapse in net.synapses])[net.receptor]
        weight, delay = wiring.weights_as(np.float64, scale), wiring.delay()
        # Synapses of one pathway lie by sender and receiver; its queue then yields older spikes first.
        order = np.lexsort((np.arange(len(pre)), post, pre)) if len(wiring.delays) > 1 else slice(None)
        for r in range(len(net.synapses)):
            mine = np.nonzero(net.receptor[pre[order]] == r)[0]
            if not len(mine):
                continue
            if self.plastic is not None:
                numbers = np.arange(len(pre))[order][mine]
                synapses = self.plastic.synapses(self.group, f"{target}{r}", f"kind{r}", numbers)
            else:
                code = f"{target}{r}_post += w"
                synapses = self.brian2.Synapses(
                    self.group, self.group, "w : 1 (constant)", on_pre=code, name=f"kind{r}"
                )
            synapses.connect(i=pre[order][mine], j=post[order][mine])
            if self.plastic is None:
                synapses.w = weight[order][mine]
            else:
                yield from self.plastic.start(synapses, scale)
            if wiring.max_delay:
                synapses.pre.delay = delay[order][mine] * net.dt_ms * self.brian2.ms
            yield synapses

    def _read_out(self) -> Any:
        """Return the operation that lets the readout work at the end of each step."""
        plan, lane, group, spikes = self.plan, self.lane, self.group, self.spikes
        seen = [0, 0]

        def read_out() -> None:
            t, first = seen
            last = spikes.num_spikes
            seen[:] = t + 1, last
            if t % plan.chunk_steps == 0:
                plan.part.chunk(lane, t, min(plan.chunk_steps, plan.n_steps - t))
            fed = np.array(group.fed[:])
            neurons = np.sort(np.asarray(spikes.i[first:last])).astype(np.int32)
            plan.part.step(lane, plan.start + t, t, neurons, fed)
            group.fed = fed

        return self.brian2.NetworkOperation(read_out, when="end", dt=self.net.dt_ms * self.brian2.ms)

    def run(self, state: State, sink: Sink, build: Any) -> int:
        """Run the network, fill the sink, and return how often the lower bound held."""
        plan, net, lane, group = self.plan, self.net, self.lane, self.group
        network = self.brian2.Network(*self.parts)
        if plan.n_steps:
            started = time.perf_counter()
            network.run(plan.n_steps * net.dt_ms * self.brian2.ms, namespace={})
            seconds["run"] = time.perf_counter() - started
            if build is not None:
                build()
        steps = np.round(np.asarray(self.spikes.t / self.brian2.ms) / net.dt_ms).astype(np.int64)
        neurons = np.asarray(self.spikes.i, dtype=np.int64)
        order = np.lexsort((neurons, steps))
        sink.put(lane, plan.start, np.bincount(steps, minlength=plan.n_steps), neurons[order])
        bad = ~(np.isfinite(group.v[:]) & np.isfinite(group.u[:]))
        if bad.any():
            raise not_finite(int(np.argmax(bad)), lane, plan.start + plan.n_steps, net.dt_ms)
        if self.monitor is not None:
            kept = np.arange(plan.start, plan.start + plan.n_steps) % sink.record.every == 0
            found = {
                "v": np.minimum(self.monitor.v, self.monitor.top),
                "u": self.monitor.u,
                "i_syn": self.monitor.i_syn,
            }
            for name in sink.traces:
                sink.traces[name][:, lane] = np.asarray(found[name]).T[kept]
        for name in ("v", "u", "fed"):
            getattr(state, name)[lane] = getattr(group, name)[:]
        for r in range(len(net.synapses)):
            state.s[lane, r] = getattr(group, f"s{r}")[:]
            if state.h.shape[1]:
                state.h[lane, r] = getattr(group, f"h{r}")[:]
        if self.plastic is not None:
            self.plastic.give_back()
        state.recent = self._recent(state.recent, steps[order], neurons[order])
        return int(group.low[:].sum())

    def _recent(self, recent: np.ndarray, steps: np.ndarray, neurons: np.ndarray) -> np.ndarray:
        """Add the spikes of this lane that are still on their way."""
        age = self.plan.n_steps - steps
        late = age <= self.net.wiring.max_delay
        mine = np.stack([np.full(late.sum(), self.lane), age[late], neurons[late]], axis=1)
        return np.concatenate([recent, mine[np.lexsort((mine[:, 2], mine[:, 1]))]])
