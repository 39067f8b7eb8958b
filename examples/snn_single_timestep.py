"""One time step in place of five: accuracy, spikes and energy of a spiking network as its time steps are taken away.

The pipeline of Chowdhury, Rathi & Roy (ECCV 2022, arXiv:2110.05929): train an ANN, convert it, train at T = 5, and from
there at 4, 3, 2 and 1, each from the one before. Beside it the same network trained at T = 1 directly, for as many
epochs. Epochs are chosen on validation images held out of the training set; the test set is looked at once a seed, at
the end. `--compat test-set-selection` chooses the epochs of the spiking networks on the test set, as the authors do.

    python examples/snn_single_timestep.py --data mnist
    python examples/snn_single_timestep.py --data cifar10 --model vgg16 --amp bf16 --seeds 0
    torchrun --nproc-per-node 4 examples/snn_single_timestep.py --data cifar10 --model resnet20
    python examples/snn_single_timestep.py --fake          # half a minute; does everything, learns little

The paper: CIFAR-10, VGG16, T = 1: 93.05 %. A run that was stopped goes on by the same command.
"""

# %%
from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro

import snn
from neuroloaders import (
    Compose,
    HorizontalFlip,
    ImageSet,
    RandomCrop,
    ResidentLoader,
    ToFloat,
    Transform,
    citation,
    example_data,
    load_images,
)
from neuroloaders.runs import choose_device, generator, spawn_seeds, world
from snn import experiment
from snn.comparison import mean_and_spread, text_table
from snn.one_step_report import Examples, write_one_step_report
from snn.one_step_run import OneStepRun, run_one_step

ADAM = snn.TrainConfig(epochs=10, lr=3e-3, schedule="onecycle", schedule_every="step")
FINE_TUNE = snn.TrainConfig(epochs=1, lr=2e-3, amsgrad=True, schedule="cosine", schedule_every="step")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a data set is trained unless the command line says otherwise; chosen on validation images."""

    model: str = "vgg5"
    width: float = 0.375
    classifier: tuple[int, ...] = ()
    dropout: float = 0.0
    batch_size: int = 128
    augment: tuple[Transform, ...] = ()
    ann: snn.TrainConfig = ADAM
    stage: snn.TrainConfig = FINE_TUNE
    # (T, epochs) of stages longer than the others: the last one costs least and needs most.
    epochs_at: tuple[tuple[int, int], ...] = ((1, 6),)


# The paper's network and training; 300 epochs a stage are for GPUs.
PAPER = Recipe(
    model="vgg16",
    width=1.0,
    classifier=(4096, 4096),
    dropout=0.2,
    batch_size=64,
    augment=(RandomCrop(4), HorizontalFlip()),
    ann=snn.TrainConfig(
        epochs=300, lr=1e-2, optimizer="sgd", weight_decay=5e-4, schedule="steps", milestones=(0.45, 0.7, 0.9)
    ),
    stage=snn.TemporalPruning().config,
    epochs_at=(),
)
RECIPES = {
    "mnist": Recipe(augment=(RandomCrop(2),)),
    "fashion-mnist": Recipe(augment=(RandomCrop(2), HorizontalFlip())),
    "cifar10": PAPER,
    "cifar100": PAPER,
    "digits": Recipe(
        width=0.5,
        classifier=(256,),
        dropout=0.1,
        batch_size=64,
        ann=replace(ADAM, epochs=20),
        stage=replace(FINE_TUNE, epochs=10),
        epochs_at=(),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to do. What is not given is taken from the data set's recipe in this file.

    Parameters
    ----------
    data
        The images. 'digits' needs no download.
    model
        A key of `snn.models.MODELS`: vgg5, vgg9, vgg16, resnet20, ...
    width
        Factor on all channels.
    schedule
        Time steps of the stages, many to few.
    seeds
        One run each; of weights, order, augmentation, dropout and the choice of validation images.
    epochs_ann
        Passes over the training images for the ANN.
    epochs_stage
        The same for each stage: one number for all, or one for each.
    epochs_direct
        The same for the baseline at one step; by default as many as all stages together.
    amp
        Number format of the forward pass.
    compat
        A habit of the authors' code to reproduce.
    device
        By default a GPU if there is one.
    data_dir
        Folder with one folder for each data set; by default looked for, then downloaded.
    out
        Folder for everything; by default runs/DATA-MODEL.
    fresh
        Forget the experiment that is there.
    fake
        Digits, a tiny network, one epoch a stage: does everything in half a minute, and learns little.
    """

    data: Literal["mnist", "fashion-mnist", "cifar10", "cifar100", "digits"] = "mnist"
    model: str | None = None
    width: float | None = None
    schedule: tuple[int, ...] = (5, 4, 3, 2, 1)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs_ann: int | None = None
    epochs_stage: tuple[int, ...] | None = None
    epochs_direct: int | None = None
    amp: Literal["off", "bf16", "fp16"] = "off"
    compat: Literal["test-set-selection"] | None = None
    device: str | None = None
    data_dir: Path | None = None
    out: Path | None = None
    fresh: bool = False
    fake: bool = False

    def recipe(self) -> Recipe:
        """Return the data set's recipe, with what the command line changes in it."""
        recipe = RECIPES[self.data]
        given = {"model": self.model, "width": self.width}
        given["ann"] = replace(recipe.ann, amp=self.amp, epochs=self.epochs_ann or recipe.ann.epochs)
        given["stage"] = replace(recipe.stage, amp=self.amp)
        return replace(recipe, **{name: value for name, value in given.items() if value is not None})

    def epochs_of_stages(self) -> tuple[int, ...]:
        """Return how many epochs each stage is trained."""
        if self.epochs_stage:
            return self.epochs_stage if len(self.epochs_stage) > 1 else self.epochs_stage * len(self.schedule)
        recipe = RECIPES[self.data]
        return tuple(dict(recipe.epochs_at).get(n_steps, recipe.stage.epochs) for n_steps in self.schedule)


# %%
def main(config: Config) -> None:
    """Run every seed; write mean and spread, figures and report."""
    if config.fake:
        config = replace(config, data="digits", width=0.125, epochs_ann=2, epochs_stage=(1,), seeds=config.seeds[:2])
        torch.set_num_threads(1)  # a second thread would slow a network of this size down
    recipe, (rank, _, n_processes) = config.recipe(), world()
    out = config.out or Path("runs") / f"{config.data}-{recipe.model}{'-fake' if config.fake else ''}"
    n_each = config.epochs_of_stages()
    network = ("model", "width", "classifier", "dropout", "batch_size", "augment")
    settings = {
        "data": config.data,
        **{name: str(getattr(recipe, name)) for name in network},
        "schedule": list(config.schedule),
        "seeds": list(config.seeds),
        "ANN": f"{recipe.ann.epochs} epochs, {describe(recipe.ann)}",
        "stages": f"{' '.join(map(str, n_each))} epochs, {describe(recipe.stage)}",
        "T = 1 directly": f"{config.epochs_direct or sum(n_each)} epochs, else as a stage",
        "epochs chosen by": config.compat or "validation images, a tenth of the training set",
    }
    if rank == 0:  # of the processes that torchrun starts; the others compute and stay silent
        try:
            done = experiment.begin(out, settings, fresh=config.fresh)
        except ValueError as error:
            sys.exit(f"{error} Or add --fresh.")
        if done is not None and n_processes == 1:
            print(f"Found the finished experiment in {out}. To start anew, add --fresh.\n\n{text_table(done['rows'])}")
            return

    from_disk = config.data != "digits"
    train, test = load_images(config.data, data_dir=config.data_dir) if from_disk else example_data("digits")
    runs = []
    for seed in config.seeds:
        runs.append(run_seed(seed, train, test, recipe, config, out / experiment.TRAINING / f"seed{seed}"))
        if rank == 0:
            print(f"\nseed {seed}\n{text_table(runs[-1][0].rows)}\n", flush=True)
    if rank > 0:
        return
    tables = [run.rows for run, _ in runs]
    launcher = "python" if n_processes == 1 else f"torchrun --nproc-per-node {n_processes}"
    write_one_step_report(
        out,
        *runs[0],
        tables,
        title=f"From {config.schedule[0]} time steps to {config.schedule[-1]}: {recipe.model} on {config.data}",
        settings=settings,
        command=f"{launcher} {shlex.join(sys.argv)}",
        citations=[citation(config.data) if from_disk else test.provenance],
    )
    each = [{"seed": seed, **row} for seed, table in zip(config.seeds, tables, strict=True) for row in table]
    rows = mean_and_spread(tables)
    layers = {score.name: score.layer_rows() for score in runs[0][0].scores}  # of the first seed
    experiment.finish(out, {"rows": rows, "seeds": each, "layers": layers, "settings": settings}, each)
    if len(tables) > 1:
        print(f"mean and standard deviation of {len(tables)} seeds\n{text_table(rows)}\n")
    print(f"Written to {out}: report.html (open it first), figures/, results.csv, results.json, training/ (weights).")
    print("Next: another network (--model vgg9), fewer stages (--schedule 5 3 1), other data (--data fashion-mnist).")


def run_seed(
    seed: int, train: ImageSet, test: ImageSet, recipe: Recipe, config: Config, folder: Path
) -> tuple[OneStepRun, Examples]:
    """Train and compare with one seed."""
    rank, _, world_size = world()
    device = choose_device(config.device)
    seeds = spawn_seeds(seed, "validation", "weights", "order", "dropout")
    train, valid = train.holdout(0.1, seed=seeds["validation"])
    to_float = ToFloat(train.mean, train.std)
    share = {"device": device, "rank": rank, "world_size": world_size}
    order = {"shuffle": True, "generator": generator(seeds["order"])}
    augment = Compose((*recipe.augment, to_float))
    train_loader = ResidentLoader(
        train.images, train.labels, batch_size=recipe.batch_size, transform=augment, **order, **share
    )
    valid_loader, test_loader = (
        ResidentLoader(part.images, part.labels, batch_size=500, transform=to_float, **share) for part in (valid, test)
    )
    ann = snn.models.MODELS[recipe.model](
        len(train.classes),
        in_shape=tuple(train.images.shape[1:]),
        width=recipe.width,
        dropout=recipe.dropout,
        generator=generator(seeds["weights"]),
        **({"classifier": recipe.classifier} if recipe.model.startswith("vgg") else {}),
    )
    some = slice(None, None, max(1, len(test) // 1000))  # from all over the test set
    inputs = to_float(test.images[some])
    run = run_one_step(
        ann.to(device, memory_format=torch.channels_last),  # convolutions are faster so
        train_loader,
        valid_loader,
        test_loader,
        inputs,
        ann_config=replace(recipe.ann, seed=seeds["dropout"]),
        pruning=snn.TemporalPruning(
            schedule=config.schedule,
            config=replace(recipe.stage, seed=seeds["dropout"]),
            stage_epochs=config.epochs_of_stages(),
            compat=config.compat,
        ),
        direct_epochs=config.epochs_direct,
        run_dir=folder,
        device=device,
        progress=sys.stderr.isatty(),
        on_log=lambda row: print(
            f"seed {seed}  {row['stage']:13}  epoch {row['epoch'] + 1:3}/{row['n_epochs']}  "
            f"validation {row['valid_accuracy']:.2%}  {row['seconds']:.0f} s",
            flush=True,
        ),
    )
    shown = {"pictures": test.images[some], "labels": test.labels[some], "classes": test.classes}
    return run, Examples(inputs=inputs, **shown)


def describe(training: snn.TrainConfig) -> str:
    """Return the settings that differ from the defaults of `snn.TrainConfig`."""
    usual = snn.TrainConfig(epochs=training.epochs).as_dict()
    changed = {name: value for name, value in training.as_dict().items() if value != usual[name]}
    return ", ".join(f"{name} {value}" for name, value in {"optimizer": training.optimizer, **changed}.items())


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    main(tyro.cli(Config, description=__doc__))
