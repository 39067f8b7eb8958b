"""What the decoder of speech loses without its subject layer, and without the clamp (Défossez et al. 2023, their
ablations: 43.3 % of segments among the ten nearest, 28.4 % without subject layer, 9.7 % without clamp; mean of four
studies).

    python examples/neurodecode_speech_ablations.py            # some minutes on two cores
    python examples/neurodecode_speech_ablations.py --seeds 0 1 2

Simulated listeners, whose sources reach the sensors in ways that differ, and whose sensors jump now and then, up to
ten thousand times larger than everything else. All variants see the same recordings and windows.
"""

# %%
from __future__ import annotations

import dataclasses
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from joblib import Parallel, delayed

from neurodecode.meeg import ABLATIONS, BRAIN_MODULES, SpeechConfig, SpeechDecoder, simulate_speech, with_artefacts
from neurodecode.meeg.speech_scores import score_estimates
from neurodecode.plots import save_figure
from neuroloaders import split_blocks
from snn import experiment


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to compare.

    Parameters
    ----------
    subjects, sentences
        Of the simulated study.
    epochs
        At most.
    seeds
        Of study, weights and order; one training of each variant for each.
    jobs
        Trainings at a time.
    out
        Folder for the figure and the table.
    fresh
        Forget the run that is there.
    """

    subjects: int = 6
    sentences: int = 40
    epochs: int = 25
    seeds: tuple[int, ...] = (0, 1)
    jobs: int = 2
    out: Path = Path("runs/speech-ablations")
    fresh: bool = False


# Variant -> what differs: settings of the decoder, settings of the network.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "no subject layer": ({}, ABLATIONS["no subject layer"]),
    "no clamp": ({"clamp": None}, {}),
}


def train(config: Config, variant: str, seed: int) -> dict[str, Any]:
    """Return how many test segments are among the ten nearest, and the chance."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    made = simulate_speech(rng=rng, n_subjects=config.subjects, n_sentences=config.sentences, snr=0.01)
    recordings = with_artefacts(made.recordings, rng=rng)
    split = split_blocks(made.events, seed=seed + 12)
    settings, network = VARIANTS[variant]
    decoder = SpeechDecoder(SpeechConfig(
        network=dataclasses.replace(BRAIN_MODULES["small"], **network), lr=1e-3, epochs=config.epochs, patience=8,
        batch_size=64, feature_scale="each", seed=seed, **settings,
    ))  # fmt: skip
    decoder.fit(recordings, made.events, made.features, split, device="cpu")
    windows = decoder.windows(recordings, made.events, split, "test", words=True)
    words = windows.extra["word"]
    segments = decoder.segments(windows, made.features, labels=words)
    found = score_estimates(decoder.estimates(recordings, windows), segments, words)
    return {
        "variant": variant, "seed": seed, "top_10": found.segment.accuracy(10), "chance": found.segment.chance(10),
        "epochs": len(decoder.history_.rows),
    }  # fmt: skip


def main(config: Config) -> None:
    """Train all variants, or find the finished run, and say what was written."""
    settings = {"subjects": config.subjects, "sentences": config.sentences, "epochs": config.epochs}
    done = experiment.begin(config.out, {**settings, "seeds": list(config.seeds)}, fresh=config.fresh)
    if done is None:
        began = time.perf_counter()
        tasks = [(variant, seed) for seed in config.seeds for variant in VARIANTS]
        rows = []
        for row in Parallel(n_jobs=config.jobs, return_as="generator")(delayed(train)(config, *task) for task in tasks):
            rows.append(row)
            print(
                f"[{len(rows)} of {len(tasks)}, {time.perf_counter() - began:.0f} s] {row['variant']:18} "
                f"seed {row['seed']}: top-10 {row['top_10']:.3f} (chance {row['chance']:.3f})",
                flush=True,
            )
        done = {"rows": rows}
        save_figure(draw(rows), config.out / experiment.FIGURES / "ablations.png")
        experiment.finish(config.out, done, rows)
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
    for variant in VARIANTS:
        values = [row["top_10"] for row in done["rows"] if row["variant"] == variant]
        print(f"{variant:18} top-10 {np.mean(values):.3f} +- {np.std(values):.3f} over {len(values)} seeds")
    print(f"\nOpen {config.out / experiment.FIGURES / 'ablations.png'}. Written too: {config.out / experiment.TABLE}.")
    print("Next: neurodecode.meeg.ABLATIONS holds the others of the paper; --seeds 0 1 2 for a spread.")


def draw(rows: list[dict[str, Any]]) -> Any:
    """Return a figure: a bar for each variant, a dot for each seed."""
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(5, 2.2), layout="constrained")
    for y, variant in enumerate(VARIANTS):
        values = [row["top_10"] for row in rows if row["variant"] == variant]
        ax.barh(y, np.mean(values), color="C0", alpha=0.5, height=0.6)
        ax.plot(values, np.full(len(values), y), "o", color="C0", markersize=4)
    ax.axvline(np.mean([row["chance"] for row in rows]), color="0.5", linestyle="--", linewidth=1, label="chance")
    ax.set_yticks(range(len(VARIANTS)), list(VARIANTS))
    ax.invert_yaxis()
    ax.set_xlabel("segments among the 10 nearest (dots: seeds)")
    ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"neurodecode_speech_ablations: {error}")
