"""Ranks among many candidates: streamed, against the matrix of all similarities.

5000 predictions and 5000 candidates of 1024 numbers, some candidates twice so that there are ties, by cosine. The peer
makes the matrix of similarities with NumPy and ranks it with ``scipy.stats.rankdata``, as is usual; the candidates lie
in a memory map. All ranks must be the same, ties included, before anything is timed. Memory is what NumPy allocates at
its peak, beyond the predictions. Prints one JSON line a case:

    {"case", "ours_s", "peer", "peer_s", "ratio", "agree"}      medians; ratio: peer / ours
    {"case", "ours_mb", "peer", "peer_mb", "ratio", "agree"}    peaks

    python examples/benchmarks/bench_retrieval.py --repeats 3
"""

# %%
from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from neurodecode.scoring import retrieve


def naive(predicted: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the rank of the i-th candidate for the i-th prediction, 1 is best; ties get their mean."""
    # The sums of both packages differ in their last digits, which must not break a tie: candidates that are there
    # twice get one column's numbers.
    _, first, copies = np.unique(candidates, axis=0, return_index=True, return_inverse=True)
    pool = candidates[first].astype(np.float64)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    scores = (predicted.astype(np.float64) @ pool.T)[:, copies.reshape(-1)]
    return rankdata(-scores, axis=1)[np.arange(len(scores)), np.arange(len(scores))]


def streamed(predicted: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    return np.asarray(retrieve(predicted, candidates, chunk_size=512).rank)


def peak_mb(run: Callable[[], object]) -> float:
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main(n: int, n_features: int, repeats: int) -> None:
    """Compare, then time in turn."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidates.npy"
        candidates = rng.standard_normal((n, n_features), dtype=np.float32)
        candidates[n // 2 : n // 2 + n // 50] = candidates[: n // 50]
        np.save(path, candidates)
        predicted = candidates + 12 * rng.standard_normal((n, n_features), dtype=np.float32)
        stored = np.load(path, mmap_mode="r")
        ours, peer = streamed(predicted, stored), naive(predicted, stored)
        agree = bool(np.array_equal(ours, peer))
        ties = int((ours % 1 == 0.5).sum())
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(repeats):
            for name, rank in (("ours", streamed), ("peer", naive)):
                began = time.perf_counter()
                rank(predicted, stored)
                seconds[name].append(time.perf_counter() - began)
        ours_s, peer_s = (statistics.median(seconds[name]) for name in ("ours", "peer"))
        ours_mb, peer_mb = (peak_mb(lambda rank=rank: rank(predicted, stored)) for rank in (streamed, naive))
    size = f"{n} x {n} x {n_features}"
    found = {"agree": agree, "ties": ties, "median_rank": float(np.median(ours))}
    print(json.dumps({
        "case": f"ranks, {size}", "ours_s": ours_s, "peer": "similarity matrix and scipy.stats.rankdata",
        "peer_s": peer_s, "ratio": peer_s / ours_s, **found,
    }))  # fmt: skip
    print(json.dumps({
        "case": f"memory of ranks, {size}", "ours_mb": ours_mb, "peer": "similarity matrix and scipy.stats.rankdata",
        "peer_mb": peer_mb, "ratio": peer_mb / ours_mb, **found,
    }))  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=5000, help="predictions, and candidates")
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    main(given.n, given.features, given.repeats)
