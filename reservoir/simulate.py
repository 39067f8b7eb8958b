"""The way in: run a network, or several side by side, on any backend."""

# T time, B lanes, N neurons

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_option, invalid
from reservoir import backends
from reservoir.backends.spec import Plan
from reservoir.network import Reservoir
from reservoir.plastic_part import PlasticPart, lane_networks
from reservoir.plasticity import Plasticity, as_plasticity
from reservoir.recording import Record, Recording, Sink
from reservoir.rules.stdp import STDP
from reservoir.state import State, as_seeds, initial_state
from reservoir.stimulus import Stimulus, as_stimulus

__all__ = ["DTYPES", "simulate"]

DTYPES = {"float64": np.float64, "float32": np.float32}


def simulate(
    reservoir: Reservoir | Sequence[Reservoir],
    stimulus: Stimulus | float | np.ndarray,
    *,
    readout: Any = None,
    rule: Any = None,
    plasticity: Plasticity | STDP | None = None,
    backend: str = "numba",
    batch: int = 1,
    state: State | None = None,
    seed: int | Sequence[int] | None = None,
    record: Record | None = None,
    dtype: str = "float64",
    n_threads: int | None = None,
    chunk_steps: int = 1000,
    device: str | None = None,
    progress: bool = False,
) -> Recording:
    """Run a network.

    Parameters
    ----------
    reservoir : Reservoir, or sequence of them
        The network. Several, of one size, run side by side as lanes.
    stimulus : Stimulus, float, or array of shape (T, N) or (T, B, N)
        Input and length of the run: a stimulus, a duration in ms, or the current of each step. Its times count from
        the start of this run.
    readout : object with ``loop_part(rule, plan)``, optional
        What reads, learns and feeds back inside the loop; see `reservoir.backends.spec.LoopPart`.
    rule : Lesson, optional
        What the readout learns and how, such as ``ThreeFactorRule().teach(target)``.
    plasticity : Plasticity, STDP or DopamineSTDP, optional
        How synapses inside the network change. By default their weights are fixed: those of the network, or of `state`
        where an earlier run has changed them.
    backend : str
        A key of `reservoir.backends.BACKENDS`.
    batch : int
        Number of lanes B: the same network several times, with its own noise and its own input in each lane.
    state : State, optional
        Where to start, such as ``recording.state`` to go on; by default at rest. It is not changed.
    seed : int or sequence of int, optional
        Of the noise: of lane 0, the others get those that follow; or one a lane. By default those of `state`, or 0.
    record : Record, optional
        What to keep; by default all spikes, in memory.
    dtype : str
        "float64", or "float32" for half the memory; a key of `DTYPES`.
    n_threads : int, optional
        How many threads "numba" may use; by default torch's number if torch is loaded, else that of the cores.
    chunk_steps : int
        Steps between looks at the outside world (memory, disk, interrupts). No number depends on it.
    device : str, optional
        Where "torch" runs: "cpu" by default, "cuda".
    progress : bool
        Show a bar.

    Returns
    -------
    Recording
        Spikes, traces, and the state after the last step.

    Raises
    ------
    ValueError
        For shapes that do not fit, times that the step does not divide, a neuron that is not finite any more (with its
        number and the time), a recording beyond its bound.

    Warns
    -----
    UserWarning
        If v was held at the network's lower bound: its inhibition is stronger than the time step bears.

    Notes
    -----
    In float64 "numba", "torch" on the CPU and "brian2" give the same spikes, to the last. A lane gives the same spikes
    as a run of its own with its seed; any number of threads and any `chunk_steps` do. On CUDA, and in float32, networks
    that are chaotic part after some hundred ms; compare rates there.

    Examples
    --------
    >>> from reservoir import Reservoir
    >>> recording = simulate(Reservoir(100, generator=0), 500.0, seed=1)
    >>> bool(1 < recording.rates_hz().mean() < 20)
    True
    """
    nets, n_lanes = _lanes(reservoir, check_int("batch", batch, at_least=1), state)
    first = nets[0]
    check_option("backend", backend, backends.BACKENDS)
    real = np.dtype(DTYPES[check_option("dtype", dtype, DTYPES)])
    stimulus = as_stimulus(stimulus)
    n_steps = stimulus.n_steps(first.dt_ms)
    schedules = tuple(stimulus.schedule(lane, n_lanes, first.n, first.dt_ms) for lane in range(n_lanes))
    now = _start(nets, n_lanes, state, seed, real)
    record = Record() if record is None else record
    sizes = {"n": first.n, "n_lanes": n_lanes, "n_steps": n_steps, "step": now.step}
    sink = Sink(record, **sizes, dt_ms=first.dt_ms, dtype=real)
    bar = _Bar(n_steps * n_lanes, progress)
    plastic = None
    if plasticity is not None:
        plastic = PlasticPart(as_plasticity(plasticity), nets, now.synapses, now.step, n_steps)
        nets = plastic.networks
    elif now.synapses is not None:
        nets = lane_networks(nets, now.synapses)
    plan = Plan(
        networks=nets,
        schedules=schedules,
        start=now.step,
        n_steps=n_steps,
        dtype=real,
        n_threads=_threads(n_threads),
        chunk_steps=check_int("chunk_steps", chunk_steps, at_least=1),
        device=device,
        part=None,
        on_steps=bar.update,
        plastic=plastic,
    )
    if readout is not None:
        plan = replace(plan, part=readout.loop_part(rule, plan))
    elif rule is not None:
        raise invalid("rule", "come with a `readout`", rule)
    with bar:
        clamped = backends.run(backend, plan, now, sink)
    now.step += n_steps
    if plastic is not None:
        now.synapses = plastic.finish()
    if clamped.any():
        warnings.warn(
            f"v was held at v_min = {first.v_min:g} mV {int(clamped.sum())} times: the inhibition is stronger than the "
            "time step bears. Lower the gain of inhibitory neurons, or shorten `dt_ms`.",
            stacklevel=2,
        )
    return sink.finish(now, clamped)


def _lanes(reservoir: Any, batch: int, state: State | None) -> tuple[tuple[Reservoir, ...], int]:
    """Return the network of each lane."""
    nets = (reservoir,) if isinstance(reservoir, Reservoir) else tuple(reservoir)
    if not nets or not all(isinstance(net, Reservoir) for net in nets):
        raise invalid("reservoir", "be a Reservoir, or a sequence of them", reservoir, kind=TypeError)
    n_lanes = max(batch, len(nets))
    if batch == len(nets) == 1 and state is not None:
        n_lanes = state.n_lanes
    if len(nets) not in (1, n_lanes):
        raise invalid("batch", f"be 1 or the number of networks, {len(nets)}", f"{batch}")
    for k, net in enumerate(nets):
        for name in ("n", "dt_ms", "form", "scheme"):
            if getattr(net, name) != getattr(nets[0], name):
                values = f"{getattr(nets[0], name)} in the first and {getattr(net, name)} in number {k}"
                raise invalid("reservoir", f"hold networks that share `{name}`", values, "Run them one by one.")
        if len(net.synapses) != len(nets[0].synapses):
            raise invalid("reservoir", "hold networks with as many kinds of synapses", f"{len(net.synapses)}")
    return (nets * n_lanes if len(nets) == 1 else nets), n_lanes


def _start(
    nets: tuple[Reservoir, ...], n_lanes: int, state: State | None, seed: int | Sequence[int] | None, dtype: np.dtype
) -> State:
    """Return the state to start from, which the backend may overwrite."""
    if state is None:
        return initial_state(nets, n_lanes, seed=0 if seed is None else seed, dtype=dtype)
    like = initial_state(nets, n_lanes, dtype=dtype)
    for name in ("v", "s", "h"):
        if getattr(state, name).shape != getattr(like, name).shape:
            wanted, got = getattr(like, name).shape, getattr(state, name).shape
            advice = "Take one of this network, with as many lanes; state.fork([...]) chooses and copies lanes."
            raise invalid("state", f"have `{name}` of shape {wanted}", f"{got}", advice)
    if state.v.dtype != dtype:
        raise invalid("state", f"be of dtype {dtype}", f"{state.v.dtype}", f"Pass dtype={state.v.dtype.name!r}.")
    now = state.copy()
    if seed is not None:
        now.seeds = as_seeds(seed, n_lanes)
    return now


def _threads(n_threads: int | None) -> int:
    if n_threads is not None:
        return check_int("n_threads", n_threads, at_least=1)
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Bar:
    """A progress bar over the steps of all lanes, which report from several threads."""

    def __init__(self, total: int, show: bool) -> None:
        self._total, self._show, self._bar, self._lock = total, show, None, threading.Lock()

    def update(self, n_steps: int) -> None:
        if self._bar is not None:
            with self._lock:
                self._bar.update(n_steps)

    def __enter__(self) -> None:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, unit="step", unit_scale=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
