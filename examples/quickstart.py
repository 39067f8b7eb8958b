"""A spiking network that answers in one time step, beside the ANN it came from, on real handwritten digits.

Trains a small ANN, makes it a spiking network of five time steps, takes the steps away one after the other
(Chowdhury, Rathi & Roy, ECCV 2022), and compares. No download: the 1797 digits come with scikit-learn.

    python examples/quickstart.py               # half a minute; `make demo` runs this
    python examples/quickstart.py --fresh       # forgets the earlier run and starts anew
"""

# %%
from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

import snn
from neuroloaders import ResidentLoader, ToFloat, example_data
from neuroloaders.runs import generator, spawn_seeds
from snn import experiment
from snn.comparison import text_table
from snn.one_step_report import Examples, write_one_step_report
from snn.one_step_run import run_one_step


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the demo may be asked.

    Parameters
    ----------
    seed
        Of everything random: validation images, initial weights, order of the images, dropout.
    epochs
        Passes over the training images for the ANN. Each stage of the schedule has half as many, and the baseline that
        is trained at one time step directly as many as all stages together.
    out
        Folder for weights and report. The same command goes on where a run was stopped.
    fresh
        Forget the run that is there.
    """

    seed: int = 0
    epochs: int = 20
    out: Path = Path("runs/quickstart")
    fresh: bool = False


# Width, learning rates and label smoothing were chosen on validation images of several seeds.
SCHEDULE = (5, 4, 3, 2, 1)
NETWORK = {"width": 0.5, "classifier": (256,), "dropout": 0.1}
BATCH_SIZE, ANN_LR, STAGE_LR = 64, 2e-3, 1e-3


# %%
def main(config: Config) -> None:
    """Train, compare, write the report."""
    started = time.perf_counter()
    n_stage = max(1, config.epochs // 2)
    settings = {
        "data": "digits of scikit-learn, a fifth of the training images for validation",
        "network": "vgg5, " + ", ".join(f"{name} {value}" for name, value in NETWORK.items()),
        "schedule": list(SCHEDULE),
        "seed": config.seed,
        "training": f"Adam, learning rate from {ANN_LR} (ANN) and {STAGE_LR} (spiking) to 0 by a cosine, "
        f"batches of {BATCH_SIZE}, label smoothing 0.1",
        "epochs": f"ANN {config.epochs}, each stage {n_stage}, T = 1 directly {n_stage * len(SCHEDULE)}",
    }
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is not None:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
        show(config, done)
        return

    # The networks are too small for a GPU, or for a second thread, which beside other programs would slow them down.
    torch.set_num_threads(1)
    seeds = spawn_seeds(config.seed, "validation", "weights", "order", "dropout")
    train, test = example_data("digits")
    train, valid = train.holdout(0.2, seed=seeds["validation"])
    to_float = ToFloat(train.mean, train.std)
    order = {"shuffle": True, "generator": generator(seeds["order"])}
    train_loader = ResidentLoader(train.images, train.labels, batch_size=BATCH_SIZE, transform=to_float, **order)
    valid_loader, test_loader = (
        ResidentLoader(part.images, part.labels, batch_size=512, transform=to_float) for part in (valid, test)
    )
    ann = snn.models.vgg(5, 10, in_shape=(1, 8, 8), **NETWORK, generator=generator(seeds["weights"]))
    ann_config = snn.TrainConfig(
        epochs=config.epochs,
        lr=ANN_LR,
        schedule="cosine",
        schedule_every="step",
        label_smoothing=0.1,
        monitor="loss",  # many epochs have the same accuracy on so few validation images
        seed=seeds["dropout"],
    )
    stage_config = replace(ann_config, epochs=n_stage, lr=STAGE_LR)

    print(f"Training on {len(train)} images of digits; {len(valid)} others choose the epochs, {len(test)} test.")
    inputs = to_float(test.images)
    run = run_one_step(
        ann.to(memory_format=torch.channels_last),  # CPUs convolve faster so
        train_loader,
        valid_loader,
        test_loader,
        inputs,
        ann_config=ann_config,
        pruning=snn.TemporalPruning(schedule=SCHEDULE, config=stage_config),
        run_dir=config.out / experiment.TRAINING,
        device="cpu",
        on_log=after_epoch,
    )
    write_one_step_report(
        config.out,
        run,
        Examples(pictures=test.images, inputs=inputs, labels=test.labels, classes=test.classes),
        [run.rows],
        title="A spiking network that answers in one time step",
        settings=settings,
        command=f"python examples/quickstart.py --seed {config.seed} --epochs {config.epochs} --fresh",
        citations=[test.provenance],
    )
    results = {"rows": run.rows, "n_test": len(test)}
    experiment.finish(config.out, results, run.rows)
    print(f"Done in {time.perf_counter() - started:.0f} s.")
    show(config, results)


def after_epoch(row: dict) -> None:
    """Show how far a stage is: one line, rewritten after each epoch."""
    epoch, n_epochs = row["epoch"] + 1, row["n_epochs"]
    if epoch == n_epochs or sys.stdout.isatty():
        text = f"  {row['stage']:13}  epoch {epoch:2}/{n_epochs}  validation accuracy {row['valid_accuracy']:.1%}"
        print(text, end="\n" if epoch == n_epochs else "\r", flush=True)


def show(config: Config, results: dict) -> None:
    """Print the table, where the report is, and what to try next."""
    python = os.path.relpath(sys.executable)
    n_test = results["n_test"]
    print(f"\n{text_table(results['rows'])}\n")
    print(f"Accuracy on {n_test} test images: one of them is {1 / n_test:.2%}, so small differences say little.")
    print("Spikes / neuron: for one image, over all time steps. Energy ratio: ANN over network, compute only, 45 nm.")
    print("T = 1, plain: the same network as convolutions and comparisons, the form to deploy.\n")
    print(f"Report, to open in a browser: {config.out / experiment.REPORT}")
    print("Next:")
    print(f"  {python} examples/quickstart.py --seed 1 --out {config.out}-1    another seed")
    print(f"  {python} examples/snn_single_timestep.py --data mnist    three seeds on MNIST")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into the report, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"quickstart: {error}")
