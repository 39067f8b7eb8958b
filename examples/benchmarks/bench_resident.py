"""One epoch of shuffled batches: ResidentLoader against torch's DataLoader on the same tensors.

60000 x 1 x 28 x 28 bytes and their labels, batches of 128, each batch read once (its sum). Every row of an
epoch must come once and unchanged from both loaders before they are timed. Prints one JSON line a case:

    {"case", "ours_s", "peer", "peer_s", "ratio", "agree"}      seconds: medians; ratio: peer / ours

    python examples/benchmarks/bench_resident.py --repeats 5
"""

# %%
from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable

import torch
from torch.utils.data import DataLoader, TensorDataset

from neuroloaders import ResidentLoader

BATCH_SIZE = 128


def epoch_seconds(loader: Iterable[tuple[torch.Tensor, ...]]) -> float:
    start = time.perf_counter()
    for images, _ in loader:
        images.sum()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def covers(loader: Iterable[tuple[torch.Tensor, ...]], images: torch.Tensor) -> bool:
    """Whether an epoch gives every row once, with the image that belongs to its number."""
    seen = torch.zeros(len(images), dtype=torch.int64)
    for batch, rows in loader:
        rows = rows.cpu()
        seen[rows] += 1
        if not torch.equal(batch.cpu(), images[rows]):
            return False
    return bool((seen == 1).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (args.samples, 1, 28, 28), dtype=torch.uint8, generator=generator)
    rows = torch.arange(args.samples)
    ours = ResidentLoader(images, rows, batch_size=BATCH_SIZE, shuffle=True, device=args.device, generator=generator)
    for workers in (0, 2):
        peer = DataLoader(
            TensorDataset(images, rows), BATCH_SIZE, shuffle=True, num_workers=workers, generator=generator
        )
        agree = covers(ours, images) and covers(peer, images)
        # Taken in turn, so that whatever else the machine does hits both.
        times = [(epoch_seconds(ours), epoch_seconds(peer)) for _ in range(args.repeats)]
        ours_s, peer_s = (statistics.median(column) for column in zip(*times, strict=True))
        case = f"epoch of {args.samples} x 28 x 28 bytes, shuffled, {args.device}"
        name = f"torch DataLoader, num_workers={workers}"
        line = {
            "case": case,
            "ours_s": ours_s,
            "peer": name,
            "peer_s": peer_s,
            "ratio": peer_s / ours_s,
            "agree": agree,
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
