"""What was looked at, from one real run of fMRI: eight categories, decoded from blocks the decoder never saw.

Haxby et al. 2001 (doi:10.1126/science.1063736) showed that categories are read from patterns of activity in ventral
temporal cortex. Here each run is left out in turn; ridge regression predicts an embedding of the category, and the
nearest embedding is the answer. Alpha and the delay of the response are chosen within the training runs.

    python examples/neurodecode_haxby.py                  # the real slice, ten seconds
    python examples/neurodecode_haxby.py --svm            # beside it a linear support vector machine
    python examples/neurodecode_haxby.py --data PATH      # PyMVPA's slice, or a folder in the layout of OpenfMRI
    python examples/neurodecode_haxby.py --fake           # simulated blocks of known strength

The slice (PyMVPA's tutorial data, subject 1) is looked for in NEUROLOADERS_DATA and in ../shared/data beside a
checkout; where there is none, blocks are simulated.
"""

# %%
from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from neurodecode import plots
from neurodecode.fmri import identify_categories
from neuroloaders import open_study
from neuroloaders.folders import search_folders
from snn import experiment

NAMES = ("face", "house", "shoe", "cat", "scissors", "scrambled", "bottle", "chair")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to decode.

    Parameters
    ----------
    data
        Folder of the study; by default looked for.
    subject
        By default the first.
    roi
        Region, where the study has masks, such as 'vt'.
    svm
        Also by a linear support vector machine: ten seconds more.
    out
        Folder for everything; by default runs/haxby-SUBJECT.
    fresh
        Forget the run that is there.
    fake
        Simulated blocks.
    """

    data: Path | None = None
    subject: str | None = None
    roi: str | None = None
    svm: bool = False
    out: Path | None = None
    fresh: bool = False
    fake: bool = False


# %%
def load(config: Config) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, str]:
    """Return name, volumes (t, p), labels and runs of each, and the label of rest."""
    places = [config.data] if config.data else [folder / "haxby" for folder in search_folders(None)]
    found = [place for place in places if place.is_dir()]
    if config.fake or not (found or config.data):
        return "simulated", *simulated()
    study = open_study((found or places)[0])
    subject = config.subject or study.subjects[0]
    bold = study.bold(subject, config.roi)
    return subject, bold.bold, bold.labels.astype(str), bold.runs, "rest"


def simulated() -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Eight categories with patterns of their own in noise five times as strong, two volumes late."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((len(NAMES), 150))
    bold, labels, runs = [], [], []
    for run in range(6):
        label = np.concatenate([["rest"] * 6] + [[name] * 9 + ["rest"] * 6 for name in rng.permutation(NAMES)])
        signal = np.stack([np.zeros(150) if name == "rest" else patterns[NAMES.index(name)] for name in label])
        bold.append(100 + np.roll(signal, 2, axis=0) + 5 * rng.standard_normal(signal.shape))
        labels.append(label)
        runs.append(np.full(len(label), run))
    return np.concatenate(bold).astype(np.float32), np.concatenate(labels), np.concatenate(runs), "rest"


def decode(
    bold: np.ndarray, labels: np.ndarray, runs: np.ndarray, rest: str, svm: bool
) -> tuple[list[dict[str, Any]], Any]:
    """Return a row for each decoder, and what ridge regression said of the blocks."""
    rows, blocks = [], None
    for decoder, unit in (("ridge", "block"), ("ridge", "volume"), *([("svm", "block")] if svm else [])):
        show = {"progress": sys.stderr.isatty()}
        found = identify_categories(bold, labels, runs, rest=rest, unit=unit, decoder=decoder, **show)
        n, chance = len(found.truth), 1 / len(found.categories)
        rows.append({"decoder": decoder, "unit": unit, "n": n, "accuracy": found.accuracy, "chance": chance})
        print(f"{decoder:6} per {unit:7} {found.accuracy:.3f} of {n} (chance {chance:.3f})", flush=True)
        blocks = blocks or found
    return rows, blocks


def main(config: Config) -> None:
    """Decode, or find the finished run, and say what was written."""
    name, bold, labels, runs, rest = load(config)
    out = config.out or Path("runs") / f"haxby-{name}"
    settings = {"name": name, "roi": config.roi, "voxels": bold.shape[1], "volumes": len(bold), "svm": config.svm}
    done = experiment.begin(out, settings, fresh=config.fresh)
    picture = out / experiment.FIGURES / "confusion.png"
    if done is None:
        n_runs, n_kinds = len(np.unique(runs)), len(np.unique(labels)) - 1
        print(f"{name}: {len(bold)} volumes of {bold.shape[1]} voxels, {n_runs} runs, {n_kinds} categories", flush=True)
        rows, blocks = decode(bold, labels, runs, rest, config.svm)
        plots.save_figure(plots.confusion_matrix(blocks.confusion(), blocks.categories.astype(str)).figure, picture)
        experiment.finish(out, {"rows": rows}, rows)
    else:
        print(f"Found the finished run in {out}. To start anew, add --fresh.")
        for row in done["rows"]:
            print(f"{row['decoder']:6} per {row['unit']:7} {row['accuracy']:.3f} of {row['n']}")
    print(f"\nLook at {picture} first. Written too: {out / experiment.TABLE}.")
    print("Next: --data PATH --roi face on the full study; or neurodecode_brain_diffuser.py, from betas to images.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"neurodecode_haxby: {error}")
