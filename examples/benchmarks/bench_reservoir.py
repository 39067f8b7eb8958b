"""Reservoirs against brian2: static runs of 1000 and 10 000 neurons, p = 0.1, steps of 1 ms; lanes; learning; start.

All simulate the same network from the same state. The spikes of the strict peers are compared with ours, to the last,
before a time is printed; brian2 with its default options (-ffast-math) rounds otherwise, so only its rate is compared.
Times are per step of the loop over time, the best of several runs taken in turn; those of cpp_standalone are what its
program reports, without reading and writing. Building it is a case of its own.

The learning experiment runs on two threads and on one, beside what two threads do for pure arithmetic on this machine,
which is the most that can be had. `others_cpu_s` is processor time that other programs took during the best run on two
threads: where it is not about 0, the ratio says more about them.

    python examples/benchmarks/bench_reservoir.py                 # with C++ compiler: all; without: numpy only
    python examples/benchmarks/bench_reservoir.py --small         # 1000 neurons only
    python examples/benchmarks/bench_reservoir.py --learning      # lanes and learning on two threads only
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np

import reservoir
from reservoir.backends import brian2 as brian2_backend

STRICT = {"brian2": "brian2 numpy", "brian2_cython": "brian2 cython", "brian2_cpp": "cpp_standalone strict"}
DEFAULT = {"brian2_cpp_default": "cpp_standalone default"}


def network(n: int) -> reservoir.Reservoir:
    """Return the network of the what/when experiment without noise, with bias for about 9 Hz."""
    populations = reservoir.default_populations()
    populations = {
        name: replace(p, noise=0.0, bias=(p.bias[0] + (2.5 if name == "E" else 0.0), 1.0))
        for name, p in populations.items()
    }
    return reservoir.Reservoir(n, populations=populations, p_connect=0.1, generator=0)


def ours(net: reservoir.Reservoir, duration_ms: float, **options: object) -> float:
    """Return the seconds of a run."""
    record = reservoir.Record(spikes="all")
    started = time.perf_counter()
    reservoir.simulate(net, duration_ms, record=record, **options)
    return time.perf_counter() - started


def our_step(net: reservoir.Reservoir, duration_ms: float, n_lanes: int = 1, **options: object) -> float:
    """Return our seconds per step, of all lanes together."""
    return min(ours(net, duration_ms, batch=n_lanes, **options) for _ in range(5)) / duration_ms


def peer_step(net: reservoir.Reservoir, backend: str, duration_ms: float) -> tuple[float, reservoir.Recording]:
    """Return the peer's seconds per step, and what it recorded."""
    if "cpp" in backend:
        brian2_backend.n_program_runs = 5
        recording = reservoir.simulate(net, duration_ms, backend=backend)
        return brian2_backend.seconds["run"] / duration_ms, recording
    # The first run compiles; code is generated in each, and takes as long for few steps as for many.
    few = 100.0
    reservoir.simulate(net, few, backend=backend)
    long, short = np.inf, np.inf
    for _ in range(3):
        recording = reservoir.simulate(net, duration_ms, backend=backend)
        long = min(long, brian2_backend.seconds["run"])
        reservoir.simulate(net, few, backend=backend)
        short = min(short, brian2_backend.seconds["run"])
    return (long - short) / (duration_ms - few), recording


def same_spikes(one: reservoir.Recording, other: reservoir.Recording) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.spike_steps(), other.spike_steps(), strict=True))


def same_rate(recording: reservoir.Recording, rate: float) -> bool:
    return bool(abs(recording.rates_hz().mean() / rate - 1) < 0.05)


def report(case: str, ours_s: float, peer: str, peer_s: float, agree: bool | None, **more: object) -> None:
    line = {"case": case, "ours_s": float(f"{ours_s:.4g}"), "peer": peer, "peer_s": float(f"{peer_s:.4g}")}
    print(json.dumps(line | {"ratio": round(peer_s / ours_s, 2), "agree": agree} | more), flush=True)


def static_run(n: int, peers: dict[str, str]) -> None:
    """Compare, then time, a network without learning and without input that changes."""
    net = network(n)
    duration = 5000.0 if n <= 1000 else 1000.0
    want = reservoir.simulate(net, duration)
    rate = float(want.rates_hz().mean())
    for backend, name in peers.items():
        before = our_step(net, duration)
        peer_s, recording = peer_step(net, backend, duration)
        ours_s = min(before, our_step(net, duration))
        strict = backend in STRICT
        agree = same_spikes(recording, want) if strict else same_rate(recording, rate)
        if strict and not agree:
            raise SystemExit(f"{name} and ours do not give the same spikes at N = {n}: no time is printed")
        report(f"static run, N = {n}, one step", ours_s, name, peer_s, agree, rate_hz=round(rate, 2))
        if "cpp" in backend:
            single = our_step(net, duration, dtype="float32")
            agree = same_rate(reservoir.simulate(net, duration, dtype="float32"), rate)
            report(f"static run, N = {n}, float32, one step", single, name, peer_s, agree)
            alone = our_step(net, duration, n_threads=1)
            report(f"static run, N = {n}, one thread, one step", alone, name, peer_s, None)
            build_s = brian2_backend.seconds["build"]
            report(f"first run of 1 s in a new process, N = {n}; theirs: build", quick_start(n), name, build_s, None)


def learning_step(n: int, n_steps: int = 2000) -> None:
    """Compare a step with two readouts that learn and feed back, with brian2 run from Python, where it can learn."""
    net, target = network(n), np.random.default_rng(1).uniform(0, 1, (n_steps, 2))

    def run(backend: str, n_steps: int = n_steps) -> tuple[float, reservoir.Recording, np.ndarray]:
        readout = reservoir.Readout(n, 2, feedback=1.0, generator=0)
        lesson = reservoir.ThreeFactorRule().teach(target[:n_steps])
        started = time.perf_counter()
        recording = reservoir.simulate(net, float(n_steps), readout=readout, rule=lesson, backend=backend)
        return time.perf_counter() - started, recording, readout.weights

    run("numba")
    ours_s, want, learned = min((run("numba") for _ in range(5)), key=lambda one: one[0])
    for backend, code in {"brian2": "numpy", "brian2_cython": "cython"}.items():
        if code == "cython" and shutil.which("g++") is None:
            continue
        few = n_steps // 4
        run(backend, few)
        short, long = run(backend, few), run(backend)
        if not (same_spikes(long[1], want) and np.allclose(long[2], learned, rtol=1e-9, atol=1e-12)):
            raise SystemExit(f"{backend} and ours do not learn the same at N = {n}: no time is printed")
        # Both runs generate code first; their difference are steps alone.
        peers = {"strict": ((long[0] - short[0]) / (n_steps - few), True)}
        peer_s, rate = by_hand(net, target, code)
        peers["by hand"] = peer_s, same_rate(want, rate)
        for name, (peer_s, agree) in peers.items():
            report(f"learning, N = {n}, one step", ours_s / n_steps, f"{STRICT[backend]}, {name}", peer_s, agree)


def by_hand(net: reservoir.Reservoir, target: np.ndarray, code: str) -> tuple[float, float]:
    """Run the same experiment as a user of brian2 writes it, the short way; return seconds a step and the mean rate."""
    import brian2
    from brian2 import ms

    before, brian2.prefs.codegen.target = brian2.prefs.codegen.target, code
    brian2.defaultclock.dt, n = net.dt_ms * ms, net.n
    group = brian2.NeuronGroup(
        n,
        "v : 1\nu : 1\ncurrent : 1\nfed : 1\n"
        + "\n".join(f"{name} : 1 (constant)" for name in ("a", "b", "c", "d", "bias")),
        threshold="v >= 30",
        reset="v = c\nu += d",
        method="euler",
    )
    for name in ("a", "b", "c", "d"):
        setattr(group, name, net.parameters[name])
    group.bias, start = net.bias, reservoir.initial_state(net)
    group.v, group.u = start.v[0], start.u[0]
    keep, _ = net.synapses[0].decays(net.dt_ms)
    half = "v += 0.5*(0.04*v*v + 5*v + 140 - u + current + bias + fed)\n"
    group.run_regularly(half + half + f"u += a*(b*v - u)\ncurrent *= {keep}", dt=net.dt_ms * ms, when="groups")
    synapses = brian2.Synapses(group, group, "w : 1 (constant)", on_pre="current_post += w")
    synapses.connect(i=net.wiring.pre(), j=net.wiring.post.astype(np.int64))
    synapses.w = net.wiring.weights_as(np.float64, np.array([one.scale for one in net.synapses])[net.receptor])
    weights, trace, n_spikes, moments = np.zeros((2, n)), np.zeros(n), 0, []
    feedback = reservoir.Readout(n, 2, feedback=1.0, generator=0).feedback[0]
    decay, steps = np.exp(-net.dt_ms / 20.0), iter(target)

    def learn() -> None:
        nonlocal n_spikes, trace
        moments.append(time.perf_counter())
        spikes = group.spikes[:]
        n_spikes += len(spikes)
        trace *= decay
        trace[spikes] += 1.0
        z, wanted = weights @ trace, next(steps)
        np.add(weights, 1e-4 * np.outer(wanted - z, trace), out=weights)
        group.fed = feedback @ z

    operation = brian2.NetworkOperation(learn, when="end", dt=net.dt_ms * ms)
    network_of_it = brian2.Network(group, synapses, operation)
    network_of_it.run(len(target) * net.dt_ms * ms, namespace={})
    brian2.prefs.codegen.target = before
    # From one step to the next: the generation of code does not count.
    return (moments[-1] - moments[0]) / (len(moments) - 1), n_spikes / n / (len(target) * net.dt_ms * 1e-3)


def lanes(n: int) -> None:
    """Time many lanes of one network, which need not learn anything from each other."""
    net = network(n)
    for n_lanes in (1, 8, 64):
        together, alone = np.inf, np.inf
        for _ in range(3):
            together = min(together, our_step(net, 16_000.0 / n_lanes, n_lanes) / n_lanes)
            alone = min(alone, our_step(net, 16_000.0 / n_lanes, n_lanes, n_threads=1) / n_lanes)
        case = f"{n_lanes} lanes, N = {n}, one step of one lane, all cores"
        report(case, together, "ours, one thread", alone, None)


@numba.njit(nogil=True, error_model="numpy")
def _arithmetic(x: np.ndarray, n: int) -> None:
    for _ in range(n):
        for i in range(x.shape[0]):
            x[i] = x[i] * 0.999 + 0.5


def ceiling() -> None:
    """Time arithmetic on 8 KB a thread, which needs neither memory nor Python, on two threads and on one."""
    arrays, n = [np.ones(1000) for _ in range(2)], 2_000_000
    _arithmetic(arrays[0], 1)

    def together() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_arithmetic, arrays, [n // 2, n // 2]))

    both, one, others = in_turn(together, lambda: _arithmetic(arrays[0], n), 7)
    report("pure arithmetic, two threads", both, "one thread", one, None, others_cpu_s=others)


def learning(n_seeds: int, n_repeats: int) -> float:
    """Time the what/when experiment, four blocks of 25 trials with tests, a network a seed; return seconds a seed."""
    networks = [reservoir.Reservoir(1000, generator=seed) for seed in range(n_seeds)]
    errors = {}

    def experiment(n_threads: int) -> None:
        learner = reservoir.PredictionLearner(networks, 2, n_threads=n_threads)
        curves = reservoir.learning_curves(learner, reservoir.standard_blocks(), tests=(0, 5, 25))
        errors[n_threads] = curves.rmse

    both, one, others = in_turn(lambda: experiment(2), lambda: experiment(1), n_repeats)
    agree = np.array_equal(errors[1], errors[2])
    case = f"learning experiment, {n_seeds} seeds, N = 1000, two threads"
    report(
        case, both, "ours, one thread", one, agree, rmse=round(float(errors[2][0, -1].mean()), 4), others_cpu_s=others
    )
    return both / n_seeds


def in_turn(both: Callable[[], None], one: Callable[[], None], n_repeats: int) -> tuple[float, float, float | None]:
    """Return the least seconds of each, and what other programs took in the best run of the first."""
    best, alone, others = math.inf, math.inf, None
    for _ in range(n_repeats):
        busy, mine, started = busy_s(), time.process_time(), time.perf_counter()
        both()
        seconds, mine = time.perf_counter() - started, time.process_time() - mine
        if seconds < best:
            best, others = seconds, None if busy is None else round(max(0.0, busy_s() - busy - mine), 2)
        started = time.perf_counter()
        one()
        alone = min(alone, time.perf_counter() - started)
    return best, alone, others


def busy_s() -> float | None:
    """Return the processor time that all programs have taken since the machine started, where Linux tells."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def two_threads() -> None:
    """Report what a second thread brings, and whether many seeds cost as much as so many times one."""
    ceiling()
    lanes(1000)
    few = learning(8, 4)
    many = learning(64, 2)
    report("learning experiment, one seed of 64, two threads", many, "ours, one seed of 8", few, None)


def quick_start(n: int) -> float:
    """Return the seconds of a new process that imports, builds the network and runs 1 s, with compiled code cached."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import bench_reservoir as bench; "
    code += f"bench.reservoir.simulate(bench.network({n}), 1000.0)"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def main(*, small: bool, only_learning: bool) -> None:
    if only_learning:
        two_threads()
        return
    compiler = shutil.which("g++") is not None
    peers = STRICT | DEFAULT if compiler else {"brian2": STRICT["brian2"]}
    if not compiler:
        print("no C++ compiler: brian2 runs in numpy only", file=sys.stderr)
    static_run(1000, peers)
    learning_step(1000)
    two_threads()
    if not small:
        static_run(10_000, {name: peer for name, peer in peers.items() if "cpp" in name} or peers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="1000 neurons only")
    parser.add_argument("--learning", action="store_true", help="lanes and learning on two threads only")
    options = parser.parse_args()
    main(small=options.small, only_learning=options.learning)
