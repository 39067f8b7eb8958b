"""Ridge regression of many targets against scikit-learn and himalaya, at a scaled-down Brain-Diffuser.

1500 training rows, 2600 features, 160 rows to predict, all float32. The reference fits one scikit-learn ``Ridge`` for
each of its tokens of 768 targets, on the same features. Ours and the peer run in turn, results are compared first,
times are the best of several. Prints one JSON line a case:

    {"case", "ours_s", "peer", "peer_s", "ratio", "agree"}      ratio: peer / ours

    python examples/benchmarks/bench_ridge.py
    python examples/benchmarks/bench_ridge.py --full FOLDER     # 8859 x 15724 -> 347680: 12 GB of targets, resumable
"""

# %%
from __future__ import annotations

import argparse
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from himalaya.kernel_ridge import KernelRidgeCV
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold

from neurodecode import MultiTargetRidge, predict_to_folder

N, P, N_TEST, TOKEN = 1500, 2600, 160, 768
ALPHA = 6000.0
ALPHAS = np.logspace(1, 6, 20)
# Ozcelik & VanRullen 2023: subject 1 of NSD; latents of VDVAE, tokens of CLIP text and CLIP vision, and their alphas.
FULL = {"n": 8859, "p": 15724, "n_test": 982}
TARGETS = {"vdvae": (91168, 50000.0), "text": (77 * 768, 100000.0), "vision": (257 * 768, 60000.0)}


def simulated(n_targets: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, targets that follow them more or less, and rows to predict."""
    rng = np.random.default_rng(seed)
    X, new = (rng.standard_normal((n, P), dtype=np.float32) for n in (N, N_TEST))
    W = rng.standard_normal((P, n_targets), dtype=np.float32) * rng.uniform(0, 0.02, n_targets).astype(np.float32)
    return X, X @ W + rng.standard_normal((N, n_targets), dtype=np.float32), new


def best_of(repeats: int, *calls: Callable[[], Any]) -> list[float]:
    """Return the least seconds of each call, run in turn."""
    seconds = [np.inf] * len(calls)
    for _ in range(repeats):
        for k, call in enumerate(calls):
            started = time.perf_counter()
            call()
            seconds[k] = min(seconds[k], time.perf_counter() - started)
    return seconds


def report(case: str, ours_s: float, peer: str | None, peer_s: float | None, agree: bool | None, **more: Any) -> None:
    line = {"case": case, "ours_s": float(f"{ours_s:.4g}"), "peer": peer}
    line |= {"peer_s": peer_s and float(f"{peer_s:.4g}"), "ratio": peer_s and round(peer_s / ours_s, 2), "agree": agree}
    print(json.dumps(line | more), flush=True)


# %%
def fixed_alpha(repeats: int) -> None:
    """One alpha, known rows: the reference's loop over tokens, and one fit of all."""
    X, Y, new = simulated(10 * TOKEN)

    def loop() -> np.ndarray:
        parts = [Y[:, k : k + TOKEN] for k in range(0, Y.shape[1], TOKEN)]
        return np.concatenate([Ridge(ALPHA, max_iter=10000).fit(X, part).predict(new) for part in parts], axis=1)

    calls = {
        "known rows, no weights": lambda: MultiTargetRidge(ALPHA).smooth_predict(X, Y, new),
        "fit, then predict": lambda: MultiTargetRidge(ALPHA).fit(X, Y).predict(new),
    }
    want = loop()
    for name, call in calls.items():
        difference = float(abs(call() - want).max())
        ours_s, peer_s = best_of(repeats, call, loop)
        case = f"alpha fixed, 10 x {TOKEN} targets, {name}"
        agree = difference < 1e-5
        report(case, ours_s, "scikit-learn Ridge, one fit a token", peer_s, agree, difference=difference)
    call = calls["known rows, no weights"]
    ours_s, peer_s = best_of(repeats, call, lambda: Ridge(ALPHA).fit(X, Y).predict(new))
    report(
        f"alpha fixed, {10 * TOKEN} targets, known rows, no weights",
        ours_s,
        "scikit-learn Ridge, one fit",
        peer_s,
        True,
    )


def chosen_alphas(repeats: int) -> None:
    """An alpha of 20 for each of 2048 targets, then predictions."""
    X, Y, new = simulated(2048)

    def ours(select: str, **options: Any) -> MultiTargetRidge:
        return MultiTargetRidge(alphas=ALPHAS, select=select, **options)

    def sklearn() -> RidgeCV:
        return RidgeCV(alphas=ALPHAS, alpha_per_target=True).fit(X, Y)

    want = sklearn().alpha_
    for select in ("loo", "gcv"):
        same = float((ours(select).fit(X, Y).alpha_ == want).mean())
        ours_s, peer_s = best_of(
            repeats, lambda s=select: ours(s).fit(X, Y).predict(new), lambda: sklearn().predict(new)
        )
        agree = same == 1.0 if select == "loo" else None  # gcv is another criterion
        case = f"20 alphas, 2048 targets, {select}"
        report(case, ours_s, "scikit-learn RidgeCV, loo", peer_s, agree, same_alpha=same)
    cv = KFold(5)
    folds = np.zeros(N, dtype=int)
    for k, (_, test) in enumerate(cv.split(X)):
        folds[test] = k

    def himalaya() -> KernelRidgeCV:
        return KernelRidgeCV(alphas=ALPHAS, kernel="linear", cv=cv, fit_intercept=True).fit(X, Y)

    def kfold() -> MultiTargetRidge:
        return ours("group-kfold", groups=folds, n_splits=None).fit(X, Y)

    want = himalaya().best_alphas_  # in float32
    same = float(np.isclose(kfold().alpha_, want, rtol=1e-4).mean())
    ours_s, peer_s = best_of(2, lambda: kfold().predict(new), lambda: himalaya().predict(new))
    name = "himalaya KernelRidgeCV, 5 folds"
    report("20 alphas, 2048 targets, the same 5 folds", ours_s, name, peer_s, same > 0.999, same_alpha=same)
    for select in ("gcv", "loo"):
        same = float(np.isclose(ours(select).fit(X, Y).alpha_, want, rtol=1e-4).mean())
        (ours_s,) = best_of(repeats, lambda s=select: ours(s).fit(X, Y).predict(new))
        report(f"20 alphas, 2048 targets, {select}", ours_s, name, peer_s, None, same_alpha=same)


def growth(repeats: int) -> None:
    """Cost against the number of targets: the features once, then a constant for each target."""
    X, Y, new = simulated(32 * TOKEN)
    widths = [TOKEN * k for k in (1, 2, 4, 8, 16, 32)]
    for name, settings in (("alpha fixed", {"alpha": ALPHA}), ("gcv", {"alphas": ALPHAS})):
        calls = [lambda w=w, s=settings: MultiTargetRidge(**s).smooth_predict(X, Y[:, :w], new) for w in widths]
        seconds = best_of(repeats, *calls)
        slope, start = np.polyfit(widths, seconds, 1)
        for width, ours_s in zip(widths, seconds, strict=True):
            line = start + slope * width
            report(f"growth, {name}, {width} targets", ours_s, "a straight line", line, None)


# %%
@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yield a list whose last entry is the most memory in MB so far, without what is mapped from files (Linux)."""
    status, peak, done = Path("/proc/self/status"), [], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            kilobytes = re.search(r"RssAnon:\s+(\d+)", status.read_text(encoding="utf-8"))
            peak.append(max(int(kilobytes[1]) / 1024, *peak[-1:], 0.0))

    thread = threading.Thread(target=watch, daemon=True)
    if status.exists():
        thread.start()
    try:
        yield peak
    finally:
        done.set()


def full(folder: Path, chunk_size: int) -> None:
    """The size of Brain-Diffuser, random numbers: runs on, if it was interrupted."""
    folder.mkdir(parents=True, exist_ok=True)
    n, p, t = FULL["n"], FULL["p"], FULL["n_test"]
    rng = np.random.default_rng(0)
    X, new = (rng.standard_normal((rows, p), dtype=np.float32) for rows in (n, t))
    m = sum(width for width, _ in TARGETS.values())
    path = folder / "targets.npy"
    if not path.exists():
        partial = folder / "targets.partial.npy"
        # Targets first, as columns are read: in Fortran order a chunk of them is one piece of the file.
        y = np.lib.format.open_memmap(partial, mode="w+", shape=(n, m), dtype=np.float32, fortran_order=True)
        for first in range(0, m, chunk_size):
            w = min(chunk_size, m - first)
            y[:, first : first + w] = np.random.default_rng([1, first]).standard_normal((w, n), dtype=np.float32).T
            y[:, first : first + w] += X[:, :1]
        y.flush()
        partial.rename(path)
    names = np.repeat(list(TARGETS), [width for width, _ in TARGETS.values()])
    ridge = MultiTargetRidge({name: alpha for name, (_, alpha) in TARGETS.items()}, target_groups=names)
    ridge.set_params(chunk_size=chunk_size)
    started = time.perf_counter()
    with peak_memory() as peak_mb:
        predictions = predict_to_folder(ridge, X, path, new, folder / "predictions", standardize="loo")
    seconds = time.perf_counter() - started
    # One target of each kind by scikit-learn, in float64; the standardisation is undone.
    some = np.array([np.flatnonzero(names == name)[7] for name in TARGETS])
    p_mean, p_std, y_mean, y_std = np.load(folder / "predictions" / "statistics.npy", mmap_mode="r")[:, some]
    raw = (predictions[:, some] - y_mean) / y_std * p_std + p_mean
    y = np.asarray(np.load(path, mmap_mode="r")[:, some], dtype=np.float64)
    want = Ridge([alpha for _, alpha in TARGETS.values()]).fit(X.astype(np.float64), y).predict(new.astype(np.float64))
    difference = float(abs(raw - want).max())
    case = f"full size, {n} x {p} -> {m} targets, {t} rows, with leave-one-out statistics"
    report(case, seconds, None, None, difference < 1e-5, difference=difference, peak_MB=peak_mb and round(peak_mb[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="the full size only, in this folder")
    parser.add_argument("--chunk-size", type=int, default=4096, help="targets in memory at a time, of --full")
    args = parser.parse_args()
    if args.full is not None:
        full(args.full, args.chunk_size)
        return
    fixed_alpha(args.repeats)
    chosen_alphas(args.repeats)
    growth(args.repeats)


if __name__ == "__main__":
    main()
