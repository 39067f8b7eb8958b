"""Which of all sentences was heard? Speech from MEG and EEG by contrast (Défossez et al. 2023,
doi:10.1038/s42256-023-00714-5).

    python examples/neurodecode_speech.py                    # simulated listeners, some minutes on two cores
    python examples/neurodecode_speech.py --study PATH       # MEG-MASC, MOUS, Broderick, Brennan, or a BIDS folder
    torchrun --nproc-per-node 4 examples/neurodecode_speech.py --study PATH

Simulated: several subjects hear the same stories, recorded digits of the data set "fsdd" or, where it is not,
speech-like sound. Their mel spectrum drives sources in auditory cortex 150 ms later; an MNE forward model brings them
to the sensors, in autocorrelated noise of known strength. So it is known when the brain follows, and what the best of
all decoders reaches. A study is converted once, to memory maps at 120 Hz; features are wav2vec 2.0's (--wav2vec PATH, a
folder or a name in the Hugging Face cache) or, without, a mel spectrum. Whatever is decoded is compared with what needs
no brain or less of it: the place in the sentence, the envelope, a brain of ten seconds later.
"""

# %%
from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from neurodecode import plots
from neurodecode.features import MelSpectrum, Wav2Vec, audio_table
from neurodecode.meeg import (
    LinearSpeechDecoder,
    SpeechConfig,
    SpeechDecoder,
    evaluate_speech,
    lag_scan,
    simulate_speech,
    tell_digits,
)
from neurodecode.report import SpeechReport, report, save_report
from neuroloaders import (
    StimulusSequences,
    convert_study,
    open_events,
    open_recordings,
    open_sounds,
    open_study,
    split_blocks,
)
from neuroloaders.folders import search_folders
from neuroloaders.runs import world
from snn import experiment

RATE = 50.0  # of features, Hz


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to decode.

    Parameters
    ----------
    study
        Folder of a study; without it listeners are simulated.
    wav2vec
        Weights of wav2vec 2.0; without them features are a mel spectrum.
    epochs
        At most; by default 25 of a simulated study, 200 of a real one.
    sound
        What simulated listeners hear: recorded digits, synthetic sound, or digits if they are there.
    sentences
        Of each of the simulated stories: three of digits, two of synthetic sound.
    subjects
        Simulated.
    seed
        Of simulation, split and network.
    device
        By default a GPU if there is one.
    out
        Folder for everything; by default runs/speech-NAME.
    fresh
        Forget the run that is there.
    """

    study: Path | None = None
    wav2vec: Path | None = None
    epochs: int | None = None
    sound: Literal["auto", "digits", "synthetic"] = "auto"
    sentences: int = 50
    subjects: int = 3
    seed: int = 0
    device: str | None = None
    out: Path | None = None
    fresh: bool = False


# %%
def simulated(config: Config) -> dict[str, Any]:
    """Return recordings, events, features, envelope, settings, and what is known."""
    rng = np.random.default_rng(config.seed)
    folders = [folder / "fsdd" / "recordings" for folder in search_folders()]
    digits = next((folder for folder in folders if folder.is_dir()), None)
    if digits is None and config.sound == "digits":
        raise FileNotFoundError("There is no folder fsdd/recordings: neuroloaders.fetch('fsdd') gets it.")
    heard: dict[str, Any] = {"n_stories": 2, "n_sentences": config.sentences}
    if digits is not None and config.sound != "synthetic":
        heard = {"stories": tell_digits(digits, 3, config.sentences, rng=rng)}
    made = simulate_speech(rng=rng, n_subjects=config.subjects, snr=0.005, **heard)
    settings = SpeechConfig(
        network="small", lr=1e-3, epochs=config.epochs or 25, patience=6, batch_size=64, feature_scale="each",
        seed=config.seed,
    )  # fmt: skip
    return {
        "recordings": made.recordings, "events": made.events, "features": made.features, "envelope": made.envelope,
        "settings": settings, "truth": made,
    }  # fmt: skip


def real(config: Config, out: Path) -> dict[str, Any]:
    """The same for a study, which is converted first; what is there already is not done again."""
    convert_study(open_study(config.study), out / "converted", sfreq=120.0, n_jobs=2)
    recordings, events = open_recordings(out / "converted"), open_events(out / "converted")
    sounds = open_sounds(out / "converted")
    split = split_blocks(events, seed=config.seed + 12)
    borders = {os.fspath(path): _ends(events, split, name) for name, path in sounds.items()}
    extractor = MelSpectrum(n_mels=40) if config.wav2vec is None else Wav2Vec.load(config.wav2vec)
    options = {"rate": RATE, "cache": out / "features", "progress": True}

    def features(extractor: Any) -> StimulusSequences:
        found = audio_table(list(sounds.values()), extractor, borders=borders, **options)
        return StimulusSequences({name: found[os.fspath(path)] for name, path in sounds.items()}, sfreq=RATE)

    mel = audio_table(list(sounds.values()), MelSpectrum(n_mels=20), borders=borders, **options)
    envelope = {name: mel[os.fspath(path)].mean(axis=0, keepdims=True) for name, path in sounds.items()}
    settings = SpeechConfig(epochs=config.epochs or 200, seed=config.seed)
    return {
        "recordings": recordings, "events": events, "features": features(extractor),
        "envelope": StimulusSequences(envelope, sfreq=RATE), "settings": settings, "truth": None,
    }  # fmt: skip


def _ends(events: Any, split: Any, sound: str) -> list[float]:
    """Return where blocks end within a sound, so that features of one know nothing of the next."""
    rows = events.where(kind="sentence")
    starts = rows.extra.get("stimulus_start")
    if starts is None:
        return []
    return sorted(
        {float(start) for start, name in zip(starts, rows.extra["sound"], strict=True) if name == sound and start > 0}
    )


def decode(config: Config, out: Path) -> dict[str, Any]:
    """Train, evaluate, and write report and decoder."""
    data = simulated(config) if config.study is None else real(config, out)
    recordings, events, features, truth = (data[key] for key in ("recordings", "events", "features", "truth"))
    split = split_blocks(events, seed=config.seed + 12)
    print(f"{recordings}\n{split}", flush=True)
    scan = lag_scan(recordings, events, features, split, np.arange(-12, 37, 3) / recordings.sfreq)
    print(f"the brain follows the sound {1000 * scan.peak_s:.0f} ms later", flush=True)
    decoder = SpeechDecoder(data["settings"]).fit(
        recordings, events, features, split, run_dir=out / experiment.TRAINING, device=config.device, progress=True
    )
    rank = world()[0]
    if torch.distributed.is_initialized():
        # Together, and not at exit: a process whose peer has gone may be aborted while its threads end.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if rank:
        return {}  # other processes have helped to train
    decoder.save(out / "decoder")
    rng, given = np.random.default_rng(config.seed), (recordings, events, features, split)
    found = {"network": evaluate_speech(decoder, *given, rng=rng, envelope=data["envelope"])}
    linear = LinearSpeechDecoder(data["settings"]).fit(*given)
    found["ridge regression"] = evaluate_speech(linear, *given, rng=rng, controls=["shifted brain"])
    ceiling = None
    if truth is not None:
        windows = decoder.windows(recordings, events, split, "test", words=True)
        k = found["network"].permutation_k
        ceiling = truth.ideal(windows, tmin=decoder.config.tmin, tmax=decoder.config.tmax).accuracy(k)
    shown = SpeechReport(
        evaluations=found, scan=scan, ceiling=ceiling, planted_lag_s=None if truth is None else truth.lag_s
    )
    settings = {key: str(value) for key, value in vars(config).items()}
    name = "simulated listeners" if config.study is None else config.study.name
    save_report(report(shown, title=f"Speech: {name}", settings=settings), out / experiment.REPORT)
    drawn = plots.decoder_and_controls(found, k=found["network"].permutation_k, ceiling=ceiling)
    plots.save_figure(drawn.figure, out / experiment.FIGURES / "controls.png")
    print(f"\n{found['network']}\n", flush=True)
    return {
        "peak_s": scan.peak_s, "ceiling": ceiling,
        "evaluations": {key: evaluation.as_dict() for key, evaluation in found.items()},
    }  # fmt: skip


def main(config: Config) -> None:
    """Decode, or find the finished run, and say what was written."""
    name = "simulated" if config.study is None else config.study.name
    out = config.out or Path("runs") / f"speech-{name}"
    settings = {key: None if value is None else str(value) for key, value in vars(config).items()}
    settings = {key: value for key, value in settings.items() if key not in ("out", "fresh", "device")}
    done = experiment.begin(out, settings, fresh=config.fresh)
    if done is None:
        done = decode(config, out)
        if not done:
            return
        rows = [{"decoder": key, **row} for key, found in done["evaluations"].items() for row in found["table"]]
        experiment.finish(out, done, rows)
    else:
        print(f"Found the finished run in {out}. To start anew, add --fresh.")
    for key, found in done["evaluations"].items():
        row = next(row for row in found["table"] if row["of"] == "decoder" and row["subject"] == "all")
        print(f"{key:18} segment top-1 {row['segment top-1']:.3f}, top-10 {row['segment top-10']:.3f}")
    if done["ceiling"] is not None:
        print(f"{'ideal observer':18} {done['ceiling']:.3f} among as many as the test counts")
    print(f"\nOpen {out / experiment.REPORT} first. Written too: {out / 'decoder'}, {out / experiment.TABLE}.")
    print("Next: --sentences 100 for more to learn from, or --study PATH; SpeechDecoder.load(...) and")
    print("neurodecode.meeg.calibrate_subject for somebody new.")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"neurodecode_speech: {error}")
