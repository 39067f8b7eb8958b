"""One-step networks beside what they came from: accuracy, spikes, energy and time of each, measured alike."""

# T time, B batch

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_shape, invalid
from snn.conversion import fold_batchnorm
from snn.energy import EnergyReport, energy_report
from snn.models import FoldedNetwork
from snn.single_timestep import OneStepResult, one_step_network
from snn.training import evaluate

__all__ = [
    "COLUMNS",
    "NetworkScores",
    "compare_one_step",
    "format_rows",
    "mean_and_spread",
    "ms_per_image",
    "text_table",
]

# Column of a row -> its heading, the factor to its unit, and the decimals that are shown.
COLUMNS: dict[str, tuple[str, float, int]] = {
    "accuracy": ("accuracy (%)", 100, 2),
    "spike_rate": ("spikes / neuron", 1, 3),
    "energy_ratio": ("energy ratio", 1, 1),
    "ms_per_image": ("ms / image", 1, 3),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkScores:
    """One network of a comparison.

    Attributes
    ----------
    name : str
        "ANN", "T = 5", "T = 1", "T = 1, plain" (without neurons' state) or "T = 1, direct".
    n_steps : int or None
        T; None for the ANN.
    accuracy : float
        Fraction of the test samples.
    energy : EnergyReport
        Spikes and energy of an inference, layer by layer.
    ms_per_image : float
        Time of an inference in milliseconds.
    """

    name: str
    n_steps: int | None
    accuracy: float
    energy: EnergyReport
    ms_per_image: float

    def as_row(self) -> dict[str, Any]:
        """Return name, steps and the numbers of `COLUMNS`; ``spike_rate`` is None for the ANN.

        ``spike_rate`` counts spikes per neuron and inference, over all steps; ``energy_ratio`` says how many times
        less energy than the ANN the operations take.
        """
        rate = self.energy.mean_spike_rate
        return {
            "network": self.name,
            "n_steps": self.n_steps,
            "accuracy": self.accuracy,
            "spike_rate": None if math.isnan(rate) else rate,
            "energy_ratio": self.energy.ratio,
            "ms_per_image": self.ms_per_image,
        }

    def layer_rows(self) -> list[dict[str, Any]]:
        """Return one row a weighted layer, as `EnergyReport.table`, with None in place of NaN (JSON has no NaN)."""
        return [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            for row in self.energy.table()
        ]


def compare_one_step(
    ann: FoldedNetwork,
    result: OneStepResult,
    direct: OneStepResult | None,
    test: Any,
    images: Tensor,
    *,
    device: str | torch.device | None = None,
    timed_batch: int = 64,
    repeats: int = 21,
) -> tuple[NetworkScores, ...]:
    """Measure an ANN, its spiking networks at every T, and those trained at one step directly.

    Parameters
    ----------
    ann : FoldedNetwork
        The trained ANN.
    result : OneStepResult
        What `TemporalPruning` made of it. If the schedule ends at T = 1, that network is measured twice: with its
        neurons, and as the plain network it amounts to.
    direct : OneStepResult, optional
        The baseline: ``TemporalPruning(schedule=(1,))`` from the same ANN.
    test : loader
        Test data, as `snn.evaluate` takes them. Each network sees them once.
    images : Tensor, shape (B, C, H, W)
        Inputs as the networks see them, on which spikes are counted. Take them from all over the test set, as its
        parts may differ.
    device : str or torch.device, optional
        As for `snn.fit`.
    timed_batch : int
        The first so many of `images` are the batch that is timed.
    repeats : int
        How often each network is timed; the median counts.

    Returns
    -------
    tuple of NetworkScores
        In the order ANN, the schedule, the plain network, the direct baseline.

    Notes
    -----
    The ANN is measured with its normalisations folded into the weights, as they are in the spiking networks.
    Under torchrun `test` yields each process's share; `images` are the same for all processes.
    """
    check_shape("images", images, ("B", *ann.in_shape))
    spiking = {f"T = {stage.n_steps}": stage.model for stage in result.stages}
    networks: dict[str, FoldedNetwork] = {"ANN": fold_batchnorm(ann), **spiking}
    if result.model.n_steps == 1:
        networks["T = 1, plain"] = one_step_network(result.model)
    if direct is not None:
        networks[f"T = {direct.model.n_steps}, direct"] = direct.model
    accuracies = {name: evaluate(model, test, device=device)["accuracy"] for name, model in networks.items()}
    # The plain network gives the same spikes, so they are not counted again.
    energies = {name: energy_report(model, images) for name, model in networks.items() if name != "T = 1, plain"}
    energies |= {"T = 1, plain": energies["T = 1"]} if "T = 1, plain" in networks else {}
    times = ms_per_image(networks, images[:timed_batch], repeats=repeats)
    return tuple(
        NetworkScores(
            name=name,
            n_steps=None if name == "ANN" else model.n_steps,
            accuracy=accuracies[name],
            energy=energies[name],
            ms_per_image=times[name],
        )
        for name, model in networks.items()
    )


def ms_per_image(models: Mapping[str, nn.Module], images: Tensor, *, repeats: int = 21) -> dict[str, float]:
    """Time one batch through each model, in turn.

    Parameters
    ----------
    models : mapping of str to Module
        All on one device, in evaluation mode.
    images : Tensor, shape (B, ...)
        The batch; moved to the models' device.
    repeats : int
        Rounds. Each runs every model once, so that whatever else the machine does hits all alike.

    Returns
    -------
    dict of str to float
        Median over the rounds, in milliseconds an image.
    """
    check_int("repeats", repeats, at_least=1)
    if len(images) == 0:
        raise invalid("images", "hold at least one image", images)
    device = next((tensor.device for model in models.values() for tensor in model.parameters()), images.device)
    images = images.to(device)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for number in range(-2, repeats):  # two rounds to warm up
            for name, model in models.items():
                _wait(device)
                start = time.perf_counter()
                model(images)
                _wait(device)
                if number >= 0:
                    seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(times) / len(images) for name, times in seconds.items()}


def mean_and_spread(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over seeds.

    Parameters
    ----------
    tables : sequence of sequence of mapping
        For each seed the rows of `NetworkScores.as_row`, the same networks in each.

    Returns
    -------
    list of dict
        One row a network: each column of `COLUMNS` as the mean, and with ``_sd`` the sample standard deviation
        (n - 1); None with a single seed, and where a network has no such number.
    """
    names = [[row["network"] for row in table] for table in tables]
    if not names or any(other != names[0] for other in names):
        raise invalid("tables", "hold the same networks for each seed", f"{names}")
    rows = []
    for same in zip(*tables, strict=True):
        row = {"network": same[0]["network"], "n_steps": same[0]["n_steps"]}
        for column in COLUMNS:
            values = [one[column] for one in same]
            known = None not in values
            row[column] = statistics.fmean(values) if known else None
            row[f"{column}_sd"] = statistics.stdev(values) if known and len(values) > 1 else None
        rows.append(row)
    return rows


def format_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return rows of one seed, or of `mean_and_spread`, as text under the headings of `COLUMNS`."""
    shown = []
    for row in rows:
        cells = {"network": str(row["network"])}
        for column, (heading, factor, decimals) in COLUMNS.items():
            numbers = [row[column], row.get(f"{column}_sd")]
            cells[heading] = " ± ".join(f"{factor * number:.{decimals}f}" for number in numbers if number is not None)
        shown.append(cells)
    return shown


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of one seed, or of `mean_and_spread`, as lines for a terminal."""
    cells = format_rows(rows)
    lines = [list(cells[0]), *(list(row.values()) for row in cells)] if cells else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
