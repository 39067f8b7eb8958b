"""A face or a house, 30 Hz or 20 Hz: what a network finds in real EEG of a headband, and what a linear way finds.

    python examples/neurodecode_eeg_classes.py                 # both tasks, some minutes on two cores
    python examples/neurodecode_eeg_classes.py --task n170     # one of them

The network of the image decoder (`BrainModule`), with classes as targets. Each run is left out in turn, within its
subject; epochs are chosen on another run, and no window of the tested run is used for anything. The recordings
(NeuroTechX, four electrodes and an extra one) are looked for as the data set "eeg_muse".
"""

# %%
from __future__ import annotations

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from neurodecode import plots
from neurodecode.meeg import (
    BrainClassifier,
    ClassifierConfig,
    LinearClassifier,
    bandpass,
    cross_validate_runs,
    quiet_windows,
)
from neuroloaders import load_eeg_muse
from neuroloaders.folders import search_folders
from snn import experiment


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to tell apart.

    Parameters
    ----------
    task
        Faces and houses (n170), flicker of 30 and 20 Hz (ssvep), or both.
    networks
        Trained for each left-out run; their probabilities are averaged.
    jobs
        Runs at a time.
    out
        Folder for the figures and the table.
    fresh
        Forget the run that is there.
    """

    task: Literal["both", "n170", "ssvep"] = "both"
    networks: int = 3
    jobs: int = 2
    out: Path = Path("runs/eeg-classes")
    fresh: bool = False


# %%
def n170(folder: Path, n_networks: int) -> dict[str, Any]:
    """Return runs, windows, settings and how each decoder is made; a picture is on the screen for about 0.2 s."""
    recordings, events = load_eeg_muse(folder, "n170")
    recordings = bandpass(recordings, 1.0, 24.0, every=4, picks=("TP9", "AF7", "AF8", "TP10"))
    config = ClassifierConfig(n_networks=n_networks)
    window = {"tmin": config.tmin, "tmax": config.tmax, "baseline": config.baseline}
    return {
        "recordings": recordings, "events": quiet_windows(recordings, events, limit=100e-6, **window),
        "of": len(events),
        "decoders": {
            "network": (lambda: BrainClassifier(config), "all"),
            "linear discriminant": (lambda: LinearClassifier(config), "subject"),
            "logistic regression": (lambda: LinearClassifier(config, kind="logistic"), "subject"),
        },
    }  # fmt: skip


def ssvep(folder: Path, n_networks: int) -> dict[str, Any]:
    """The same for flicker of three seconds, whose phase is not known: the linear way is given the power."""
    recordings, events = load_eeg_muse(folder, "ssvep")
    recordings = bandpass(recordings, 5.0, 45.0, every=2)
    base = ClassifierConfig()
    network = dataclasses.replace(base.network, aggregation="mean", kernel_size=17, glu_every=0, latent=16)
    config = dataclasses.replace(
        base, network=network, tmin=0.1, tmax=3.0, baseline=None, noise=0.5, batch_size=32, lr=3e-3, weight_decay=0.05,
        n_networks=n_networks,
    )  # fmt: skip
    return {
        "recordings": recordings, "events": quiet_windows(recordings, events, tmin=0.1, tmax=3.0, limit=1.0),
        "of": len(events),
        "decoders": {
            "network": (lambda: BrainClassifier(config), "subject"),
            "logistic regression of power": (lambda: LinearClassifier(config, kind="power"), "subject"),
        },
    }  # fmt: skip


TASKS = {"n170": n170, "ssvep": ssvep}


def decode(config: Config) -> dict[str, Any]:
    """Run all decoders of the tasks, draw them, and return the areas under their curves."""
    folder = next((place / "eeg_muse" for place in search_folders() if (place / "eeg_muse").is_dir()), None)
    if folder is None:
        raise FileNotFoundError("There is no folder eeg_muse: set NEUROLOADERS_DATA to the folder that holds it.")
    done: dict[str, Any] = {}
    for task in TASKS if config.task == "both" else [config.task]:
        data = TASKS[task](folder, config.networks)
        print(f"{task}: {len(data['events'])} of {data['of']} windows are whole and quiet", flush=True)
        found = {}
        for name, (make, learn_from) in data["decoders"].items():
            began = time.perf_counter()
            found[name] = cross_validate_runs(
                make, data["recordings"], data["events"], learn_from=learn_from, n_jobs=config.jobs, progress=True
            )
            print(f"  {name}: AUC {found[name].mean():.3f} in {time.perf_counter() - began:.0f} s", flush=True)
        ax = plots.run_scores(found)
        ax.set_title(f"{task}: runs left out")
        plots.save_figure(ax.figure, config.out / experiment.FIGURES / f"{task}.png")
        done[task] = {
            name: {"auc": s.auc, "mean": s.mean(), "by_subject": s.by_subject(), "valid": s.mean("valid_auc")}
            for name, s in found.items()
        }
    return done


def main(config: Config) -> None:
    """Decode, or find the finished run, and say what was written."""
    settings = {"task": config.task, "networks": config.networks}
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is None:
        done = decode(config)
        rows = [
            {"task": task, "decoder": name, "run": run, "auc": auc}
            for task, found in done.items()
            for name, scores in found.items()
            for run, auc in scores["auc"].items()
        ]
        experiment.finish(config.out, done, rows)
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
    for task, found in done.items():
        for name, scores in found.items():
            each = ", ".join(f"{who} {auc:.3f}" for who, auc in scores["by_subject"].items())
            print(f"{task:6} {name:30} AUC {scores['mean']:.3f}   subjects: {each}")
    pictures = " and ".join(str(config.out / experiment.FIGURES / f"{task}.png") for task in done)
    print(f"\nOpen {pictures}. Written too: {config.out / experiment.TABLE}, an area for each run.")
    print("Next: BrainClassifier on windows of your own; --networks 1 for a quick look.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"neurodecode_eeg_classes: {error}")
