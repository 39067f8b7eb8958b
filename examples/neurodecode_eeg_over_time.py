"""When does the brain tell a face from a house? A network for each of many short windows, beside a linear classifier.

    python examples/neurodecode_eeg_over_time.py            # some minutes on two cores
    python examples/neurodecode_eeg_over_time.py --step 0.1 --networks 1

Real EEG of a headband (NeuroTechX), four electrodes; each run is left out in turn, within its subject. Windows of
100 ms slide over the trial (as Benchetrit et al. 2023 do for images, arXiv:2310.19812); their networks are trained
together, as one. Clusters of windows are tested by exchanging labels. The filter is of zero phase: responses stay in
their place, and begin a little too early.
"""

# %%
from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from joblib import Parallel, delayed

from neurodecode import plots
from neurodecode.meeg import (
    BRAIN_MODULES,
    LinearTimeDecoder,
    TimeConfig,
    TimeResolvedDecoder,
    bandpass,
    class_scores,
    quiet_windows,
    run_folds,
    sliding_windows,
    time_curve,
)
from neuroloaders import load_eeg_muse
from neuroloaders.folders import search_folders
from snn import experiment


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to look at.

    Parameters
    ----------
    step
        From a window to the next, s.
    networks
        Trained for each window; their probabilities are averaged.
    epochs
        At most.
    jobs
        Runs at a time.
    out
        Folder for the figure and the table.
    fresh
        Forget the run that is there.
    """

    step: float = 0.05
    networks: int = 3
    epochs: int = 25
    jobs: int = 2
    out: Path = Path("runs/eeg-over-time")
    fresh: bool = False


# %%
def one_run(make: Any, recordings: Any, events: Any, fold: Any) -> np.ndarray:
    """Return the probabilities of a run that was left out, (windows, events, classes)."""
    torch.set_num_threads(1)
    part = np.full(len(events), "", dtype="<U5")
    for name in ("train", "valid", "test"):
        part[getattr(fold, name)] = name
    decoder = make().fit(recordings, events, None, part, labels="stimulus")
    return decoder.predict(recordings, events.select(fold.test))


def decode(config: Config) -> dict[str, Any]:
    """Return the curve of each decoder, and draw them."""
    folder = next((place / "eeg_muse" for place in search_folders() if (place / "eeg_muse").is_dir()), None)
    if folder is None:
        raise FileNotFoundError("There is no folder eeg_muse: set NEUROLOADERS_DATA to the folder that holds it.")
    recordings, events = load_eeg_muse(folder, "n170")
    recordings = bandpass(recordings, 1.0, 30.0, every=3, picks=("TP9", "AF7", "AF8", "TP10"))
    n_all = len(events)
    events = quiet_windows(recordings, events, tmin=-0.1, tmax=0.8, limit=100e-6)
    print(f"{len(events)} of {n_all} trials are whole and quiet", flush=True)
    network = dataclasses.replace(
        BRAIN_MODULES["small-images"], n_heads=None, initial_linear=8, hidden=16, depth=2, final_width=None, latent=16
    )
    settings = TimeConfig(
        network=network, tmin=-0.1, tmax=0.8, clamp=4.0, scale_by="subject", noise=1.0, label_smoothing=0.1, lr=5e-3,
        weight_decay=0.1, batch_size=64, epochs=config.epochs, patience=6, n_networks=config.networks,
    )  # fmt: skip
    windows = sliding_windows(-0.1, 0.7, width_s=0.1, step_s=config.step, sfreq=recordings.sfreq)
    folds = list(run_folds(recordings, events))
    tested = np.concatenate([fold.test for fold in folds])
    curves = {}
    for name, make in (
        ("network", lambda: TimeResolvedDecoder(settings, windows)),
        ("linear discriminant", lambda: LinearTimeDecoder(settings, windows)),
    ):
        tasks = (delayed(one_run)(make, recordings, events, fold) for fold in folds)
        said = np.concatenate(Parallel(n_jobs=config.jobs)(tasks), axis=1)
        scores = class_scores(
            said, events.stimulus[tested], ("face", "house"), units=events.recording[tested], n_permutations=500,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        curves[name] = time_curve(scores, windows, at="centre", rng=np.random.default_rng(0))
        print(f"{name}: done", flush=True)
    ax = plots.plot_time_curve(curves, stimulus_s=(0.0, 0.2))
    ax.set_title("face or house: runs left out")
    plots.save_figure(ax.figure, config.out / experiment.FIGURES / "over_time.png")
    return {
        name: {
            "times_s": curve.times_s.tolist(), "auc": curve.mean.tolist(), "sem": curve.sem.tolist(),
            "peak": float(curve.peak), "peak_s": float(curve.peak_s),
        }
        for name, curve in curves.items()
    }  # fmt: skip


def main(config: Config) -> None:
    """Decode, or find the finished run, and say what was written."""
    settings = {"step": config.step, "networks": config.networks, "epochs": config.epochs}
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is None:
        done = decode(config)
        rows = [
            {"decoder": name, "centre_s": time, "auc": auc, "sem": sem}
            for name, curve in done.items()
            for time, auc, sem in zip(curve["times_s"], curve["auc"], curve["sem"], strict=True)
        ]
        experiment.finish(config.out, done, rows)
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
    for name, curve in done.items():
        print(f"{name:20} peak AUC {curve['peak']:.3f} in the window around {1000 * curve['peak_s']:.0f} ms")
    print(f"\nOpen {config.out / experiment.FIGURES / 'over_time.png'}. Written too: {config.out / experiment.TABLE}.")
    print("Next: growing_windows for what can be known so far; embeddings of images in place of classes.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"neurodecode_eeg_over_time: {error}")
