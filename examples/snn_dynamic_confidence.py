"""Stop when sure: three spiking networks that end each inference as soon as they are confident enough.

Dynamic Confidence (Li, Jones & Furber, ICCV 2023, arXiv:2303.10276) on handwritten digits, with a network converted
from an ANN and with one trained with spikes, and on spoken digits, where time carries the signal, with a network of
learned delays. Temperature and threshold come from validation data; the test set is looked at once. The paper, on
CIFAR-10 and ImageNet: 40 % fewer steps on average without loss. What came out here is in `examples/README.md`. All of
it takes about 20 minutes on two CPU cores.

    python examples/snn_dynamic_confidence.py                                # everything, three seeds
    python examples/snn_dynamic_confidence.py --tasks spoken --seeds 0       # one network
    python examples/snn_dynamic_confidence.py --fake                         # small, made-up: does it run?

A run that was stopped goes on with the same command.
"""

# %%
from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import snn_delays
import snn_single_timestep
import torch
import tyro
from torch import Tensor, nn

import snn
from neuroloaders import Compose, ImageSet, RandomCrop, ResidentLoader, SpikeLoader, ToFloat, example_data, load_images
from neuroloaders.runs import atomic_write
from snn import experiment
from snn.early_exit import DynamicConfidence, Reliability

# Steps of the networks that do not stop: chosen on validation images, where the static curve has become flat.
T_CONVERTED, LEVELS, T_DIRECT = 16, 8, 5
T_SPOKEN = snn_delays.N_BINS + 2 * snn_delays.TAIL
ANN = snn_single_timestep.ADAM
QUANTISED = snn.TrainConfig(epochs=3, lr=1e-3, schedule="onecycle", schedule_every="step")
DIRECT = replace(snn_single_timestep.FINE_TUNE, epochs=2)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run.

    Parameters
    ----------
    tasks
        "converted": MNIST, an ANN with QCFS activations turned into spikes. "direct": MNIST, the same ANN as a spiking
        network, trained with spikes. "spoken": FSDD through a cochlea, learned delays.
    seeds
        One network of each task for each seed.
    max_drop
        Accuracy that may be lost on validation data, as a fraction.
    jobs
        Trainings side by side, each on one thread.
    fake
        Bundled small digits and made-up spikes, one epoch: does everything, and learns little.
    out
        Folder for results, figures and weights.
    fresh
        Forget the runs that are there.
    """

    tasks: tuple[Literal["converted", "direct", "spoken"], ...] = ("converted", "direct", "spoken")
    seeds: tuple[int, ...] = (0, 1, 2)
    max_drop: float = 0.001
    jobs: int = 2
    fake: bool = False
    out: Path = Path("runs/snn_dynamic_confidence")
    fresh: bool = False


class Ready(NamedTuple):
    """A trained network, how its decision is made, how long it runs, and data as (input, classes)."""

    net: nn.Module
    how: dict[str, str]
    n_steps: int
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    # Test images as they are looked at; of spoken digits the steps until each recording has been heard out.
    images: Tensor | None = None
    ends: Tensor | None = None


# %% Handwritten digits
def image_sets(config: Config, seed: int) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Return train, valid, test."""
    train, test = example_data("digits") if config.fake else load_images("mnist")
    return *train.holdout(0.1, seed=seed), test


def n_classes(images: ImageSet) -> int:
    """Return how many classes there are."""
    # A function of its own: one that says both `torch` and `.classes` cannot be sent to another process.
    return len(images.classes)


def image_network(config: Config, task: str, seed: int, folder: Path) -> Ready:
    """Train the ANN, and make a spiking network of it."""
    train, valid, test = image_sets(config, seed)
    to_float = ToFloat(train.mean, train.std)

    def loader(part: ImageSet, *, learn: bool = False) -> ResidentLoader:
        return ResidentLoader(
            part.images,
            part.labels,
            batch_size=128,
            shuffle=learn,
            generator=torch.Generator().manual_seed(seed),
            transform=Compose((RandomCrop(2), to_float)) if learn else to_float,
        )

    def settings(training: snn.TrainConfig) -> snn.TrainConfig:
        return replace(training, epochs=1 if config.fake else training.epochs, seed=seed)

    ann = snn.models.vgg(
        5,
        n_classes(train),
        in_shape=tuple(train.images.shape[1:]),
        width=0.375,
        classifier=(),
        generator=torch.Generator().manual_seed(seed),
    ).to(memory_format=torch.channels_last)
    data = {"device": "cpu"}
    snn.fit(ann, loader(train, learn=True), loader(valid), settings(ANN), run_dir=folder / "ann", **data)
    some = to_float(train.images[:512])
    if task == "converted":
        quantised = snn.quantise_activations(ann, LEVELS, some)
        training = settings(QUANTISED)
        snn.fit(quantised, loader(train, learn=True), loader(valid), training, run_dir=folder / "quantised", **data)
        net, n_steps = snn.ann_to_snn(quantised, some, n_steps=T_CONVERTED), T_CONVERTED
    else:
        pruning = snn.TemporalPruning(schedule=(T_DIRECT,), config=settings(DIRECT))
        result = pruning.fit(ann, loader(train, learn=True), loader(valid), run_dir=folder / "direct", **data)
        net, n_steps = result.at(T_DIRECT), T_DIRECT
    inputs = ((to_float(part.images), part.labels) for part in (valid, test))
    # The paper's: evidence is the sum of the logits, and certain is what has one large probability.
    how = {"accumulate": "sum", "criterion": "confidence"}
    return Ready(net.eval(), how, n_steps, *inputs, images=test.images)


# %% Spoken digits
def spoken_network(config: Config, task: str, seed: int, folder: Path) -> Ready:
    """Train the network of `snn_delays.py` with learned delays, on the official split.

    It is not told where a recording ends, as nobody is who listens: silence is a part of what it learns.
    """
    chosen = snn_delays.Config(fake=config.fake, out=folder, epochs=24 if config.fake else snn_delays.Config.epochs)
    net, _, (_, valid, test) = snn_delays.train_network(
        chosen, snn_delays.TAKES, "learned", seed, folder / "delays", mask=False
    )
    parts = []
    for spikes in (valid, test):
        loader = SpikeLoader(
            spikes, dt_ms=snn_delays.DT_MS, batch_size=len(spikes), n_bins=snn_delays.N_BINS, beyond="drop"
        )
        parts += list(loader)
    (x_valid, _, y_valid), (x_test, lengths, y_test) = parts
    ends = lengths + 2 * snn_delays.TAIL
    # As it was trained: evidence is the highest membrane so far. Of confidence and entropy, the latter needed fewer
    # steps on the validation data of each seed.
    how = {"accumulate": "max", "criterion": "entropy"}
    return Ready(net.eval(), how, T_SPOKEN, (x_valid, y_valid), (x_test, y_test), ends=ends)


# %%
def step_logits(ready: Ready, x: Tensor) -> Tensor:
    """Return the logits of every step, [T, N, K]."""
    axis = 0 if ready.images is not None else 1
    with torch.no_grad():
        return torch.cat([ready.net.step_logits(part) for part in x.split(250, axis)], 1)


def run_one(config: Config, task: str, seed: int) -> dict:
    """Train, fit the decision, measure it, and return a row, unless that is done; draw for the first seed."""
    torch.set_num_threads(1)
    folder = config.out / experiment.TRAINING / f"{'spoken' if task == 'spoken' else 'images'}-{seed}"
    done = folder / f"{task}.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    ready = (spoken_network if task == "spoken" else image_network)(config, task, seed, folder)
    (x, y), options = ready.test, ready.how
    # All is measured on the logits of whole runs; what the network does when it stops must be the same.
    on_logits = DynamicConfidence(None, ready.n_steps, **options)
    on_logits.fit(step_logits(ready, ready.valid[0]), ready.valid[1], max_drop=config.max_drop)
    logits = step_logits(ready, x)
    found = {"alpha": on_logits.alpha_, "threshold": on_logits.threshold_}
    decide = DynamicConfidence(ready.net, ready.n_steps, **found, **options)
    exits, evaluation = decide.predict(x), on_logits.evaluate(logits, y)
    before, after = on_logits.reliability(logits, y, alpha=1.0), on_logits.reliability(logits, y)
    some = x if ready.images is None else x[:1000]
    energy, full = (snn.energy_report(model, some) for model in (decide, full_run(decide)))
    row = {
        "task": task,
        "seed": seed,
        "T": ready.n_steps,
        "accuracy": evaluation.accuracy.value,
        "accuracy at T": evaluation.full_accuracy,
        "steps": exits.mean_steps,
        "steps to the end": ready.n_steps if ready.ends is None else ready.ends.double().mean().item(),
        "fewer steps": 1 - exits.mean_steps / ready.n_steps,
        "ECE before": before.ece,
        "ECE": after.ece,
        "oracle accuracy": evaluation.oracle.accuracy,
        "oracle steps": evaluation.oracle.mean_steps,
        "energy at T / at exit": full.energy_pj / energy.energy_pj,
        "same as on logits": float((exits.steps == on_logits.predict(logits).steps).double().mean()),
        **{name: value for name, value in found.items()},
    }
    decide.save(folder / f"{task}-decision.json")
    if seed == config.seeds[0]:
        draw(config, task, ready, on_logits, logits, exits, (before, after))
    with atomic_write(done, "w") as file:
        json.dump(row, file)
    print(
        f"{task:9} seed {seed}: {row['accuracy']:.2%} after {row['steps']:.2f} steps; {row['accuracy at T']:.2%} after "
        f"all {ready.n_steps}",
        flush=True,
    )
    return row


def full_run(decide: DynamicConfidence) -> DynamicConfidence:
    """Return the same network that never stops before T."""
    rule = decide.rule_
    how = {"accumulate": rule.accumulate, "criterion": rule.criterion}
    return DynamicConfidence(decide.model, rule.n_steps, rule.alpha, 1.0, **how)


def draw(
    config: Config,
    task: str,
    ready: Ready,
    decide: DynamicConfidence,
    logits: Tensor,
    exits: snn.Exit,
    calibration: tuple[Reliability, Reliability],
) -> None:
    """Draw the trade of steps for accuracy, who left when, calibration, and the images that left first and last."""
    from snn.plots import exit_curve, exit_histogram, first_and_last, reliability_diagram, save_figure

    labels = ready.test[1]
    pictures = {
        "curve": lambda: exit_curve(
            decide.evaluate(logits, labels), points=decide.curve(logits, labels), pareto=decide.pareto
        ),
        "exits": lambda: exit_histogram(exits, labels),
        "calibration": lambda: reliability_diagram(*calibration),
    }
    if ready.images is not None:
        pictures["first_and_last"] = lambda: first_and_last(ready.images, exits, labels)
    folder = config.out / experiment.FIGURES
    for name, make in pictures.items():
        save_figure(make(), folder / f"{task}_{name}.png")


# %%
COLUMNS = (
    ("accuracy", 100, 2),
    ("accuracy at T", 100, 2),
    ("steps", 1, 2),
    ("fewer steps", 100, 1),
    ("ECE before", 100, 2),
    ("ECE", 100, 2),
    ("oracle accuracy", 100, 2),
    ("oracle steps", 1, 2),
    ("energy at T / at exit", 1, 2),
)


def summary(rows: Sequence[Mapping]) -> list[dict]:
    """Return mean and standard deviation over the seeds, a row for each task."""
    table = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        cells = {"task": task, "T": str(mine[0]["T"])}
        for name, factor, digits in COLUMNS:
            values = [factor * row[name] for row in mine]
            cell = f"{statistics.mean(values):.{digits}f}"
            cells[name] = cell if len(values) < 2 else f"{cell} ± {statistics.stdev(values):.{digits}f}"
        table.append(cells)
    return table


def main(config: Config) -> None:
    """Run all, write the table, print it."""
    from joblib import Parallel, delayed

    asked = {k: v for k, v in asdict(config).items() if k not in ("out", "fresh", "jobs")}
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asked.items()}
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is None:
        config = replace(config, fresh=False)
        # Both networks on images start from one ANN, so a seed of them is one job.
        kinds = dict.fromkeys("spoken" if task == "spoken" else "images" for task in config.tasks)
        todo = [
            ([task for task in config.tasks if (task == "spoken") == (kind == "spoken")], seed)
            for seed in config.seeds
            for kind in kinds
        ]
        if "spoken" in kinds and not config.fake:
            snn_delays.load(snn_delays.TAKES, False)  # encodes the recordings once, for all
        some = Parallel(n_jobs=min(config.jobs, len(todo)))(delayed(run_several)(config, *job) for job in todo)
        rows = sorted((row for part in some for row in part), key=lambda row: config.tasks.index(row["task"]))
        experiment.finish(config.out, {"rows": rows}, rows)
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
        rows = done["rows"]
    print(f"\n{snn_delays.as_text(summary(rows))}\n")
    print("Accuracies, fewer steps and calibration errors in %; mean and standard deviation over seeds.")
    print(f"Written: {config.out / experiment.FIGURES} (open *_curve.png first), {config.out / experiment.TABLE},")
    print(f"weights and decisions in {config.out / experiment.TRAINING}.")
    print("Next: examples/notebooks/stop_when_sure.ipynb; another loss (--max-drop 0.005 --out runs/other).")


def run_several(config: Config, tasks: Sequence[str], seed: int) -> list[dict]:
    """Return the rows of several tasks, one after the other."""
    return [run_one(config, task, seed) for task in tasks]


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"snn_dynamic_confidence: {error}")
