"""Windows cut from a recording by WindowLoader against mne.Epochs in torch's DataLoader.

10 minutes of 60 channels in a FIF file, an event a second, windows from -0.5 to 1 s minus their mean before the event,
shuffled batches of 256, at 120 Hz and at 1 kHz. The peers: epochs that are read when they are asked for
(``preload=False``), all epochs in memory, window by window, and as one tensor from which a batch is one gather of whole
windows (they take one and a half times the room of the recording here, and more where windows overlap more). Every
window of an epoch must come once, with the numbers of MNE to a millionth of the largest, before loaders are timed in
turn. Prints one JSON line a case:

    {"case", "ours_s", "peer", "peer_s", "ratio", "agree"}      seconds an epoch: medians; ratio: peer / ours

    python examples/benchmarks/bench_windows.py --repeats 5
"""

# %%
from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import mne
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from neuroloaders.events_table import EventTable
from neuroloaders.recording_files import save_recording
from neuroloaders.recordings import ContinuousRecording
from neuroloaders.window_loader import WindowLoader

N_CHANNELS, SECONDS, BATCH_SIZE = 60, 600, 256
TMIN, TMAX, BASELINE = -0.5, 1.0, (None, 0)


class LazyEpochs(Dataset):
    """Each item is read from the file when it is asked for."""

    def __init__(self, epochs: mne.Epochs) -> None:
        self.epochs, self.n = epochs, len(epochs.events)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.epochs.get_data(item=k, verbose="error")[0]).float(), k


class PreloadedEpochs(Dataset):
    """Each item is a window of an array in memory, as braindecode and most scripts have it."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data.astype(np.float32)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.data[k]), k


# %%
def simulated(folder: Path, sfreq: float, seconds: float) -> Path:
    """Write drifting noise with an offset, in V."""
    rng = np.random.default_rng(0)
    data = 1e-5 * rng.standard_normal((N_CHANNELS, round(seconds * sfreq)), dtype=np.float32)
    data += np.cumsum(data, axis=1) / 10 + 1e-4 * rng.standard_normal((N_CHANNELS, 1), dtype=np.float32)
    path = folder / f"{sfreq:g}_raw.fif"
    raw = mne.io.RawArray(data.astype(float), mne.create_info(N_CHANNELS, sfreq, "eeg"), verbose="error")
    raw.save(path, fmt="single", verbose="error")
    return path


def epoch_seconds(loader: Iterable[tuple[torch.Tensor, ...]]) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def difference(loader: Iterable[tuple[torch.Tensor, ...]], row: int, want: np.ndarray) -> float:
    """Return the largest difference over the largest number, infinite unless every window comes once."""
    seen, largest = np.zeros(len(want), dtype=int), 0.0
    for batch in loader:
        rows = batch[row].cpu().numpy()
        seen[rows] += 1
        largest = max(largest, float(abs(batch[0].cpu().numpy() - want[rows]).max()))
    return largest / float(abs(want).max()) if (seen == 1).all() else float("inf")


def compare(folder: Path, sfreq: float, seconds: float, repeats: int, device: str) -> None:
    raw = mne.io.read_raw_fif(simulated(folder, sfreq, seconds), verbose="error")
    onsets = np.arange(1, seconds - 1)
    events = np.stack([onsets * sfreq + raw.first_samp, 0 * onsets, 0 * onsets + 1], axis=1).astype(int)
    epochs = mne.Epochs(raw, events, tmin=TMIN, tmax=TMAX, baseline=BASELINE, preload=False, verbose="error")
    want = epochs.get_data(verbose="error")
    epochs.drop_bad(verbose="error")  # or MNE looks for bad epochs at the first item

    data = raw.get_data(verbose="error")
    recording = ContinuousRecording(data=data, sfreq=sfreq, ch_names=tuple(raw.ch_names), subject="01", start=0.0)
    mapped = save_recording(recording, folder / f"study_{sfreq:g}")
    table = EventTable(start=onsets, recording="01", kind="image")
    options = {"tmin": TMIN, "tmax": TMAX, "baseline": BASELINE, "batch_size": BATCH_SIZE, "shuffle": True}
    ours = {
        "in memory": WindowLoader(recording, table, **options, device=device),
        "memory map": WindowLoader(mapped, table, **options, device=device, max_device_bytes=0),
    }
    lazy, tensors = LazyEpochs(epochs), TensorDataset(torch.from_numpy(want).float(), torch.arange(len(want)))
    peers = {
        f"mne.Epochs, {name}, num_workers={workers}": DataLoader(
            dataset, BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        for name, dataset in (
            ("preload=False", lazy),
            ("preloaded, item by item", PreloadedEpochs(want)),
            ("preloaded as a tensor", tensors),
        )
        for workers in (0, 2)
    }
    differences = {name: difference(loader, 3, want) for name, loader in ours.items()}
    for peer, loader in peers.items():
        agree = difference(loader, 1, want) < 1e-6
        for name, loader_of_ours in ours.items():
            # Taken in turn, so that whatever else the machine does hits both. Epochs of ours are short: more of them.
            n = 5 if "preload=False" in peer else 1
            times = [(epoch_seconds(loader_of_ours), epoch_seconds(loader)) for _ in range(max(repeats // n, 2))]
            times_ours = [epoch_seconds(loader_of_ours) for _ in range(repeats)] + [pair[0] for pair in times]
            ours_s, peer_s = statistics.median(times_ours), statistics.median(pair[1] for pair in times)
            line = {
                "case": f"{len(want)} windows of {N_CHANNELS} x {want.shape[2]} at {sfreq:g} Hz, {name}, {device}",
                "ours_s": float(f"{ours_s:.4g}"),
                "peer": peer,
                "peer_s": float(f"{peer_s:.4g}"),
                "ratio": round(peer_s / ours_s, 2),
                "agree": agree and differences[name] < 1e-6,
                "difference": float(f"{differences[name]:.2g}"),
                "windows_per_s": round(len(want) / ours_s),
            }
            print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of the recording")
    parser.add_argument("--sfreq", type=float, nargs="+", default=[120.0, 1000.0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for sfreq in args.sfreq:
            compare(Path(folder), sfreq, args.seconds, args.repeats, args.device)


if __name__ == "__main__":
    main()
