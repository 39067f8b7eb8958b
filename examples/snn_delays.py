"""Learned delays against fixed random delays and none, on spoken digits turned into spikes.

Recordings of the Free Spoken Digit Dataset go through a cochlea (`neuroloaders.load_fsdd`). Three networks with the
same number of trainable parameters learn from the spikes: one whose synapses learn their delays (Hammouamri et al.,
ICLR 2024), one with random delays that stay, one without; the latter two have more neurons for it. On the official
split, and with each speaker held out. What came out is in `examples/README.md`.

    python examples/snn_delays.py                                  # everything: 30 minutes on two CPU cores
    python examples/snn_delays.py --splits takes --seeds 0         # one split, one seed: three minutes
    python examples/snn_delays.py --connections 10                 # every neuron hears ten others, drawn at random
    python examples/snn_delays.py --fake --epochs 4 --seeds 0      # made-up spikes: does it run?

A run that was stopped goes on with the same command.
"""

# %%
from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro

import snn
from neuroloaders import (
    CochleaConfig,
    ComposeEvents,
    DropEvents,
    SpikeLoader,
    SpikeSet,
    TimeStretch,
    UnitShift,
    load_fsdd,
)
from neuroloaders.runs import atomic_write
from snn import experiment
from snn.plots import save_figure

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo")
TAKES = "takes"
# Chosen on voices that the network had not heard, with two of george, jackson, lucas and nicolas held out in turn, and
# by the accuracy of learned and of fixed delays together. Nothing was chosen on theo, nor on the official test set.
DT_MS, N_BINS, MAX_DELAY, TAIL = 10.0, 80, 25, 12
TAU, DROPOUT, LR, DELAY_LR, WEIGHT_DECAY = 2.0, 0.2, 5e-3, 0.1, 1e-3
BATCH_SIZE = 64
COCHLEA = CochleaConfig(emphasis_hz=500.0)  # a recording's spectrum falls off: lift what is above
AUGMENT = ComposeEvents([TimeStretch(1.2), UnitShift(4), DropEvents(0.1)])


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is to be compared.

    Parameters
    ----------
    splits
        "takes" is the official split: takes 0 to 4 of all speakers are the test set. A speaker's name: that speaker is
        the test set, the network never heard the voice.
    delays
        Kinds of networks.
    seeds
        Of initial weights and delays, order, dropout and augmentation.
    hidden
        Neurons of the network with learned delays; the others get as many as make the same number of parameters.
    connections
        How many inputs each neuron hears, hidden ones and those of the readout, drawn at random; 0 for all of them.
    epochs
        Passes over the training set. The last epoch is what is tested: nothing is selected.
    jobs
        Runs side by side, each on one thread.
    fake
        Made-up spikes in place of recordings.
    out
        Folder for results and figures.
    fresh
        Forget the runs that are there.
    """

    splits: tuple[str, ...] = (TAKES, *SPEAKERS)
    delays: tuple[str, ...] = ("learned", "fixed", "none")
    seeds: tuple[int, ...] = (0, 1, 2)
    hidden: int = 64
    connections: int = 0
    epochs: int = 48
    jobs: int = 2
    fake: bool = False
    out: Path = Path("runs/snn_delays")
    fresh: bool = False


# %%
def n_trainable(hidden: int, n_inputs: int, n_classes: int, delays: str, connections: int) -> int:
    """Return how many parameters a network of one hidden layer has."""
    heard = [min(connections, n) if connections else n for n in (n_inputs, hidden)]
    synapses = heard[0] * hidden + heard[1] * n_classes
    return synapses * (2 if delays == "learned" else 1) + 2 * hidden


def sizes(spikes: SpikeSet) -> tuple[int, int]:
    """Return how many units and classes there are."""
    # A function of its own: one that says both `torch` and `.classes` cannot be sent to another process.
    return spikes.n_units, len(spikes.classes)


def hidden_size(learned: int, n_inputs: int, n_classes: int, delays: str, connections: int) -> int:
    """Return how wide a network must be to have as many parameters as the one with learned delays."""
    wanted = n_trainable(learned, n_inputs, n_classes, "learned", connections)

    def excess(size: int) -> int:
        return abs(n_trainable(size, n_inputs, n_classes, delays, connections) - wanted)

    return min(range(1, 4 * learned), key=excess)


class Sparse:
    """Keeps some of a network's connections and silences the others: called after each step of the training.

    Parameters
    ----------
    net
        Its layers are cut at once; what is left is as strong as a whole layer's start for so few inputs.
    connections
        Inputs that each neuron hears.
    seed
        Of the draw.
    """

    def __init__(self, net: snn.models.DelayMLP, connections: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.masks = []
        for layer in net.layers:
            n_outputs, n_inputs = layer.weight.shape[:2]
            heard = torch.rand(n_outputs, n_inputs, generator=generator).argsort(1) < connections
            self.masks.append(heard.to(layer.weight.dtype).view(n_outputs, n_inputs, *[1] * (layer.weight.ndim - 2)))
            layer.weight.data.mul_(max(1.0, n_inputs / connections) ** 0.5)
        self(net)

    def __call__(self, net: snn.models.DelayMLP) -> None:
        """Silence the others again."""
        for layer, mask in zip(net.layers, self.masks, strict=True):
            layer.weight.data.mul_(mask)


def load(split: str, fake: bool) -> tuple[SpikeSet, SpikeSet, SpikeSet]:
    """Return train, valid, test."""
    if fake:
        return tuple(made_up(part) for part in ("train", "valid", "test"))
    if split == TAKES:
        return load_fsdd(config=COCHLEA, progress=False)
    return load_fsdd(protocol="speaker", test_speaker=split, config=COCHLEA, progress=False)


def made_up(split: str) -> SpikeSet:
    """Return noise on 20 units in which two spikes, class + 2 steps apart, tell one of two classes."""
    generator = torch.Generator().manual_seed(("train", "valid", "test").index(split))
    n, n_noise = 64, 10
    labels = torch.arange(n) % 2
    onset = 100 * torch.rand(n, 1, generator=generator)
    times = torch.cat([onset, onset + 20 + 80 * labels[:, None], 250 * torch.rand(n, n_noise, generator=generator)], 1)
    units = torch.cat([torch.tensor([[0, 1]]).repeat(n, 1), torch.randint(2, 20, (n, n_noise), generator=generator)], 1)
    order = times.argsort(1)
    return SpikeSet(
        times_ms=times.gather(1, order).flatten(),
        units=units.gather(1, order).flatten().int(),
        offsets=torch.arange(n + 1) * (n_noise + 2),
        labels=labels,
        n_units=20,
        classes=("near", "far"),
        name="made-up",
        split=split,
    )


def train_network(
    config: Config, split: str, delays: str, seed: int, folder: Path, readout: str = "max", mask: bool = True
) -> tuple[snn.models.DelayMLP, snn.History, tuple[SpikeSet, SpikeSet, SpikeSet]]:
    """Train one network in `folder`; return it with its history and its data: train, valid, test."""
    train, valid, test = load(split, config.fake)
    n_inputs, n_classes = sizes(train)

    def loader(spikes: SpikeSet, *, learn: bool = False) -> SpikeLoader:
        return SpikeLoader(
            spikes,
            dt_ms=DT_MS,
            batch_size=BATCH_SIZE,
            n_bins=N_BINS,
            beyond="drop",  # one recording in a hundred is longer
            shuffle=learn,
            transform=AUGMENT if learn else None,
            generator=torch.Generator().manual_seed(seed),
        )

    hidden = hidden_size(config.hidden, n_inputs, n_classes, delays, config.connections)
    net = snn.models.delay_mlp(
        n_inputs,
        n_classes,
        hidden=(hidden,),
        max_delay=MAX_DELAY,
        delays=delays,
        tau=TAU,
        surrogate=snn.Surrogate(name="atan", alpha=5.0),
        dropout=DROPOUT,
        readout=readout,
        mask_padding=mask,
        tail_steps=TAIL,
        dt_ms=DT_MS,
        generator=torch.Generator().manual_seed(seed),
    )
    sparse = Sparse(net, config.connections, seed) if config.connections else None
    before = {name: layer.delay.detach().clone() for name, layer in snn.delays.delay_layers(net)}
    history = snn.fit(
        net,
        loader(train, learn=True),
        loader(valid),
        snn.TrainConfig(epochs=config.epochs, lr=LR, schedule="onecycle", select="last", seed=seed),
        run_dir=folder,
        device="cpu",
        after_step=sparse,
        before_epoch=snn.SigmaSchedule(epochs=config.epochs // 2) if delays == "learned" else None,
        param_groups=lambda model: snn.delay_param_groups(
            model, lr=LR, delay_lr=DELAY_LR, weight_decay=WEIGHT_DECAY, delay_schedule="cosine"
        ),
    )
    torch.save(before, folder / "delays_before.pt")
    return net, history, (train, valid, test)


def train_one(config: Config, split: str, delays: str, seed: int) -> dict:
    """Train and test one network, unless that is done, and return its row."""
    torch.set_num_threads(1)
    folder = config.out / experiment.TRAINING / f"{split}-{delays}-{seed}"
    done = folder / "row.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    net, history, (train, _, test) = train_network(config, split, delays, seed, folder)
    n_inputs, n_classes = sizes(train)
    hidden = net.layers[0].out_features
    test_loader = SpikeLoader(test, dt_ms=DT_MS, batch_size=BATCH_SIZE, n_bins=N_BINS, beyond="drop")
    row = {
        "split": split,
        "delays": delays,
        "seed": seed,
        "hidden": hidden,
        "parameters": n_trainable(hidden, n_inputs, n_classes, delays, config.connections),
        "train accuracy": history["train_accuracy"][-1],
        "valid accuracy": history["valid_accuracy"][-1],
        "accuracy": snn.evaluate(net, test_loader)["accuracy"],
    }
    with atomic_write(done, "w") as file:
        json.dump(row, file)
    print(f"{split:8} {delays:8} seed {seed}: test accuracy {row['accuracy']:.1%}", flush=True)
    return row


# %%
def summary(rows: Sequence[dict]) -> list[dict]:
    """Return mean and spread over seeds, a row for each split, and the mean over speakers."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    kinds = list(dict.fromkeys(row["delays"] for row in rows))
    table = []
    for split in splits:
        cells = {"test set": split}
        for kind in kinds:
            found = [100 * row["accuracy"] for row in rows if (row["split"], row["delays"]) == (split, kind)]
            cells[f"{kind} (%)"] = spread(found)
        table.append(cells)
    speakers = [split for split in splits if split != TAKES]
    if len(speakers) > 1:
        cells = {"test set": f"mean of {len(speakers)} speakers"}
        for kind in kinds:
            seeds = sorted({row["seed"] for row in rows})
            means = [
                statistics.mean(
                    100 * row["accuracy"]
                    for row in rows
                    if row["delays"] == kind and row["seed"] == seed and row["split"] in speakers
                )
                for seed in seeds
            ]
            cells[f"{kind} (%)"] = spread(means)
        table.append(cells)
    return table


def as_text(table: Sequence[dict]) -> str:
    """Return a table as lines for a terminal."""
    lines = [list(table[0]), *([str(cell) for cell in row.values()] for row in table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def draw(rows: Sequence[dict], path: Path) -> None:
    """Draw each run as a point: splits across, kinds of networks by colour and mark."""
    import matplotlib.pyplot as plt

    splits = list(dict.fromkeys(row["split"] for row in rows))
    kinds = list(dict.fromkeys(row["delays"] for row in rows))
    figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for index, (kind, mark, colour) in enumerate(zip(kinds, "osD", ("#0072B2", "#D55E00", "#555555"), strict=False)):
        mine = [row for row in rows if row["delays"] == kind]
        places = [splits.index(row["split"]) + 0.2 * (index - (len(kinds) - 1) / 2) for row in mine]
        ax.plot(places, [100 * row["accuracy"] for row in mine], mark, color=colour, label=f"{kind} delays", alpha=0.8)
    ax.set_xticks(range(len(splits)), [s if s == TAKES else f"voice of\n{s}" for s in splits])
    ax.set_ylabel("test accuracy (%)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="black", alpha=0.12)
    ax.legend(frameon=False, ncols=len(kinds), loc="lower left")
    save_figure(figure, path)


def main(config: Config) -> None:
    """Train all networks, draw and print."""
    from joblib import Parallel, delayed

    for split in config.splits:
        if split != TAKES and split not in SPEAKERS and not config.fake:
            sys.exit(f"snn_delays: `splits` must be {TAKES!r} or a speaker ({', '.join(SPEAKERS)}), got {split!r}.")
    asked = {k: v for k, v in asdict(config).items() if k not in ("out", "fresh", "jobs")}
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asked.items()}
    done = experiment.begin(config.out, settings, fresh=config.fresh)
    if done is None:
        config = replace(config, fresh=False)
        todo = [(s, d, seed) for s in config.splits for d in config.delays for seed in config.seeds]
        print(f"{len(todo)} networks to train, {config.jobs} side by side.", flush=True)
        if not config.fake:
            load(config.splits[0], False)  # encodes the recordings once, for all
        rows = Parallel(n_jobs=min(config.jobs, len(todo)))(delayed(train_one)(config, *run) for run in todo)
        draw(rows, config.out / experiment.FIGURES / "accuracy.png")
        experiment.finish(config.out, {"rows": rows}, rows)
        done = {"rows": rows}
    else:
        print(f"Found the finished run in {config.out}. To start anew, add --fresh.")
    show(config, done["rows"])


def show(config: Config, rows: Sequence[dict]) -> None:
    """Print the table, what was written, and what to try next."""
    sizes = {row["delays"]: (row["hidden"], row["parameters"]) for row in rows}
    print(f"\n{as_text(summary(rows))}\n")
    print(
        "Mean and standard deviation over seeds; chance is one in the number of classes. Sizes (trainable parameters):"
    )
    print(", ".join(f"{kind} {hidden} hidden neurons ({count})" for kind, (hidden, count) in sizes.items()) + ".\n")
    print(f"Written: {config.out / experiment.FIGURES / 'accuracy.png'}, {config.out / experiment.TABLE}")
    python = os.path.relpath(sys.executable)
    print("Next:")
    print(f"  {python} examples/snn_delays.py --splits takes --delays learned --seeds 3 --out {config.out}-3")
    print(f"  {python} examples/quickstart.py    networks that answer in one time step")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go into files, not to a screen
    try:
        main(tyro.cli(Config, description=__doc__))
    except (OSError, ValueError) as error:
        sys.exit(f"snn_delays: {error}")
