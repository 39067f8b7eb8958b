"""The report of a one-step experiment: what to look at first, then the numbers, then how they came about."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroloaders.runs import atomic_write, versions
from snn import plots
from snn.comparison import format_rows, mean_and_spread
from snn.experiment import FIGURES, REPORT
from snn.models import FoldedNetwork
from snn.one_step_run import OneStepRun
from snn.report import Code, Picture, Section, Table, Text, write_report

__all__ = ["PAPER", "Examples", "one_step_pictures", "one_step_sections", "write_one_step_report"]

PAPER = """
@inproceedings{chowdhury2022towards,
  author    = {Chowdhury, Sayeed Shafayet and Rathi, Nitin and Roy, Kaushik},
  title     = {Towards Ultra Low Latency Spiking Neural Networks for Vision and Sequential Tasks Using Temporal
               Pruning},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2022},
  doi       = {10.1007/978-3-031-20083-0_42}
}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Test images to show.

    Attributes
    ----------
    pictures : Tensor, shape (N, C, H, W)
        Bytes, for people.
    inputs : Tensor, shape (N, C, H, W)
        The same as the networks see them.
    labels : Tensor, shape (N,)
        Classes.
    classes : tuple of str
        Their names.
    """

    pictures: Tensor
    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def write_one_step_report(
    out: str | os.PathLike[str],
    run: OneStepRun,
    examples: Examples,
    tables: Sequence[Sequence[Mapping[str, Any]]],
    *,
    title: str,
    settings: Mapping[str, Any],
    command: str,
    citations: Sequence[str] = (),
) -> Path:
    """Write ``report.html`` and its figures, as PNG in the folder ``figures``.

    Parameters
    ----------
    out : path-like
        The experiment's folder.
    run : OneStepRun
        The seed that is shown.
    examples : Examples
        Images of the test set.
    tables : sequence of sequence of mapping
        For each seed the rows of `OneStepRun.rows`.
    title : str
        Of the report.
    settings, command, citations
        As for `one_step_sections`.

    Returns
    -------
    Path
        The report.
    """
    figures = Path(out) / FIGURES
    figures.mkdir(exist_ok=True)
    pictures = one_step_pictures(run, examples, tables)
    for name, picture in pictures.items():
        with atomic_write(figures / f"{name}.png") as file:
            file.write(picture.png)
    sections = one_step_sections(pictures, run, tables, settings=settings, command=command, citations=citations)
    return write_report(Path(out) / REPORT, title=title, sections=sections)


def one_step_pictures(
    run: OneStepRun, examples: Examples, tables: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Picture]:
    """Draw the figures of a one-step experiment.

    Parameters
    ----------
    run : OneStepRun
        The seed that is shown.
    examples : Examples
        Images of the test set.
    tables : sequence of sequence of mapping
        For each seed the rows of `OneStepRun.rows`.

    Returns
    -------
    dict of str to Picture
        Name, good for a file -> figure.
    """
    import matplotlib.pyplot as plt

    by_name = {score.name: score for score in run.scores}
    last = run.result.model
    last_name, n_steps = f"T = {last.n_steps}", [stage.n_steps for stage in run.result.stages]
    accuracies = {row["network"]: [table[k]["accuracy"] for table in tables] for k, row in enumerate(tables[0])}
    direct_name = f"T = {run.direct.model.n_steps}, direct"
    predictions = {"ANN": _predict(run.ann, examples.inputs), last_name: _predict(last, examples.inputs)}
    n_wrong = {name: int((found.cpu() != examples.labels.cpu()).sum()) for name, found in predictions.items()}
    reports = {f"T = {n}": by_name[f"T = {n}"].energy for n in n_steps}
    stages = {"ANN": run.ann_history, **{f"T = {stage.n_steps}": stage.history for stage in run.result.stages}}
    n_epochs = sum(len(stage.history) for stage in run.result.stages)
    seeds = f", mean and standard deviation of {len(tables)} seeds" if len(tables) > 1 else ""
    drawn = {
        "accuracy_by_steps": (
            plots.accuracy_by_steps(
                {n: accuracies[f"T = {n}"] for n in n_steps}, ann=accuracies["ANN"], direct=accuracies[direct_name]
            ),
            f"Test accuracy against time steps, {n_steps[0]} to {n_steps[-1]}, with the ANN and direct training.",
            f"Accuracy as time steps are taken away{seeds}. Dashed: the ANN. Diamond: trained at {last_name} directly, "
            f"{len(run.direct.stages[0].history)} epochs; the stages have {n_epochs} together.",
        ),
        "sample_predictions": (
            plots.sample_predictions(examples.pictures, examples.labels, predictions, examples.classes),
            f"Test images with their label and the answers of the ANN and of the spiking network at {last_name}.",
            f"Mistakes first: of {len(examples.labels)} test images the ANN gets {n_wrong['ANN']} wrong, and the "
            f"spiking network at {last_name} gets {n_wrong[last_name]} wrong.",
        ),
        "spike_maps": (
            plots.spike_maps(last, examples.inputs[0]),
            "A test image and where the neurons of the first layer fired for it, channel by channel.",
            f"All that the first layer tells the rest of the network at {last_name}: spike (dark) or none.",
        ),
        "spike_rates": (
            plots.spike_rates(reports),
            "Spikes per neuron and image in each layer, for each number of time steps.",
            "How often neurons fire for one image, summed over its time steps.",
        ),
        "energy_by_layer": (
            plots.energy_by_layer(by_name[last_name].energy, name=last_name),
            f"Compute energy of each layer, as ANN and as spiking network at {last_name}.",
            "Multiply-accumulates of the ANN against accumulates of the spiking network. Memory access is not "
            "counted; the assumptions stand below.",
        ),
        "learning_curves": (
            plots.learning_curves(stages, direct=run.direct.stages[0].history),
            "Accuracy on training and validation data against epochs, stage by stage.",
            "Each stage starts from the weights, thresholds and leaks of the one before. Circles: the epoch that was "
            f"kept, chosen by {run.result.selected_on} data. The first epochs of a stage may lie below the axis.",
        ),
    }
    pictures = {name: Picture.of(ax, alt=alt, caption=caption) for name, (ax, alt, caption) in drawn.items()}
    for ax, _, _ in drawn.values():
        plt.close(ax.figure)
    return pictures


def one_step_sections(
    pictures: Mapping[str, Picture],
    run: OneStepRun,
    tables: Sequence[Sequence[Mapping[str, Any]]],
    *,
    settings: Mapping[str, Any],
    command: str,
    citations: Sequence[str] = (),
) -> list[Section]:
    """Return the sections of the report, for `snn.report.write_report`.

    Parameters
    ----------
    pictures, run, tables
        As for `one_step_pictures`, and what it returned.
    settings : mapping
        What the result depends on: name -> value.
    command : str
        What to type to get it again.
    citations : sequence of str
        Of the data, as BibTeX; the paper of the method is added.

    Returns
    -------
    list of Section
    """
    rows = mean_and_spread(tables)
    energy = {score.name: score.energy for score in run.scores}[f"T = {run.result.model.n_steps}"]
    many = f"Mean ± standard deviation of {len(tables)} seeds." if len(tables) > 1 else "One seed."
    layers = [
        {
            "layer": layer.name,
            "input": layer.input,
            "MACs": layer.macs,
            "input spikes": layer.input_rate if layer.input == "spikes" else None,
            "ANN (nJ)": layer.ann_energy_pj / 1e3,
            "spiking (nJ)": layer.energy_pj / 1e3,
        }
        for layer in energy.layers
    ]
    thresholds = [
        {
            "neurons": name,
            "calibrated": run.result.thresholds[name],
            **{f"T\u00a0=\u00a0{s.n_steps}": s.model.get_submodule(name).v_threshold.item() for s in run.result.stages},
        }
        for name in run.result.thresholds
    ]
    return [
        Section("", [Text(_summary(rows, run)), *pictures.values()]),
        Section("All networks", [Table(format_rows(rows), f"{many} {_about_columns(run.result.selected_on)}")]),
        Section(
            f"Energy at T = {energy.n_steps}",
            [
                Table(layers, f"For one image, mean of {energy.n_samples} test images."),
                Text("Assumptions: " + "; ".join(energy.assumptions) + "."),
            ],
        ),
        Section("Thresholds", [Table(thresholds, "Before training, and learned at each number of time steps.")]),
        Section("Settings", [Table([{"setting": key, "value": _written(value)} for key, value in settings.items()])]),
        Section("Versions", [Code(f"{versions()}threads: {torch.get_num_threads()}")]),
        Section("How to reproduce", [Text("In the folder of the repository:"), Code(command)]),
        Section("How to cite", [Code(entry) for entry in (PAPER, *citations)]),
    ]


def _about_columns(selected_on: str) -> str:
    chose = "which chose nothing"
    if selected_on == "test":
        chose = "WHICH ALSO CHOSE THE EPOCHS (compat): these numbers are too high"
    return (
        f"Accuracy on the test set, {chose}. Spikes per neuron: of one image, over all its time steps. Energy ratio: "
        "ANN over spiking network, compute only. Time: of one image within a batch, median, with normalisation "
        "folded into the weights; 'plain' is the T = 1 network as convolutions and comparisons."
    )


def _summary(rows: Sequence[Mapping[str, Any]], run: OneStepRun) -> str:
    found = {row["network"]: row for row in format_rows(rows)}
    last = f"T = {run.result.model.n_steps}"
    ann, one, direct = (found[name] for name in ("ANN", last, f"T = {run.direct.model.n_steps}, direct"))
    text = (
        f"The spiking network at {last} is right on {one['accuracy (%)']} % of the test images, its ANN on "
        f"{ann['accuracy (%)']} %, and the same network trained at {last} directly on {direct['accuracy (%)']} %. For "
        f"an image, a neuron fires {one['spikes / neuron']} times on average, and the operations take "
        f"{one['energy ratio']} times less energy than the ANN's."
    )
    for sign in (" = ", " ± ", " %"):  # lines do not break there
        text = text.replace(sign, sign.replace(" ", "\u00a0"))
    return text


def _written(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _predict(model: FoldedNetwork, inputs: Tensor) -> Tensor:
    """Return the class that the network chooses for each input."""
    place = next(model.parameters())
    with torch.inference_mode():
        return torch.cat([model(part.to(place)).argmax(1) for part in inputs.split(256)])
