"""Recursive least squares inside the loop over time, against the same update in NumPy and by BLAS.

FORCE updates the inverse covariance P (N x N) of a readout of N neurons: q = P r, c = 1 / (1 + r q), P - c q q'. Ours
runs in the compiled loop, on half of P, which goes through the cache once an update; what is timed is a run that learns
in each step minus the same run without a rule. The peers are the formula in NumPy as one writes it, and the symmetric
routines of BLAS in place (dsymv, dsyr), the least that a program can call. Weights after 40 updates are compared first.
Best of several, taken in turn; prints one JSON line a case.

    python examples/benchmarks/bench_force.py
"""

# N neurons, K outputs

from __future__ import annotations

import json
import time

import numpy as np
import scipy.linalg.blas

from reservoir import FORCE, Readout, Reservoir, simulate

N_OUTPUTS, TARGET, DT_MS = 2, 0.5, 1.0
RULE = FORCE(every_ms=DT_MS)


def run(net: Reservoir, n_steps: int, rule: FORCE | None) -> float:
    """Return the seconds of a run."""
    lesson = None if rule is None else rule.teach(np.full((n_steps, N_OUTPUTS), TARGET))
    readout = Readout(net.n, N_OUTPUTS)
    started = time.perf_counter()
    simulate(net, n_steps * DT_MS, readout=readout, rule=lesson, n_threads=1)
    return time.perf_counter() - started


def by_numpy(p: np.ndarray, r: np.ndarray, weights: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Update weights (K, N) in place, and return P."""
    q = p @ r
    c = 1 / (1 + r @ q)
    weights -= c * np.outer(error, q)
    p -= np.outer(c * q, q)
    return p


def by_blas(p: np.ndarray, r: np.ndarray, weights: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Do the same on the upper half of P, which lies column by column."""
    q = scipy.linalg.blas.dsymv(1.0, p, r)
    c = 1 / (1 + r @ q)
    weights -= c * np.outer(error, q)
    return scipy.linalg.blas.dsyr(-c, q, a=p, overwrite_a=1)


PEERS = {"NumPy": (by_numpy, "C"), "BLAS dsymv and dsyr": (by_blas, "F")}


def agreement(net: Reservoir, n_steps: int = 40) -> dict[str, bool]:
    """Compare the weights after some updates, on the traces that the network had."""
    own, spectator = Readout(net.n, N_OUTPUTS), Readout(net.n, N_OUTPUTS)
    simulate(net, n_steps * DT_MS, readout=own, rule=RULE.teach(np.full((n_steps, N_OUTPUTS), TARGET)))
    state, traces = None, []
    for _ in range(n_steps):
        state = simulate(net, DT_MS, readout=spectator, state=state).state
        traces.append(spectator.trace[0].copy())
    same = {}
    for name, (update, order) in PEERS.items():
        p, weights = np.eye(net.n, order=order) * RULE.alpha, np.zeros((N_OUTPUTS, net.n))
        for r in traces:
            p = update(p, r, weights, weights @ r - TARGET)
        scale = np.abs(weights).max()
        same[name] = bool(scale > 0 and np.abs(own.weights[0] - weights).max() < 1e-9 * scale)
    return same


def main() -> None:
    """Measure small and large networks."""
    for n, n_steps in ((300, 2000), (1000, 1000), (2000, 300)):
        net = Reservoir(n, generator=0)
        same = agreement(net)
        rng = np.random.default_rng(0)
        r, error = rng.random(n), np.ones(N_OUTPUTS)
        least = dict.fromkeys(["learning", "fixed", *PEERS], np.inf)
        for _ in range(5):
            least["learning"] = min(least["learning"], run(net, n_steps, RULE) / n_steps)
            least["fixed"] = min(least["fixed"], run(net, n_steps, None) / n_steps)
            for name, (update, order) in PEERS.items():
                p, weights = np.eye(n, order=order), np.zeros((N_OUTPUTS, n))
                started = time.perf_counter()
                for _ in range(40):
                    p = update(p, r, weights, error)
                least[name] = min(least[name], (time.perf_counter() - started) / 40)
        ours = least["learning"] - least["fixed"]
        for name in PEERS:
            line = {"case": f"RLS, N = {n}, one update", "ours_s": float(f"{ours:.4g}"), "peer": name}
            line |= {"peer_s": float(f"{least[name]:.4g}"), "ratio": round(least[name] / ours, 2), "agree": same[name]}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
