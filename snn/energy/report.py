"""Compute energy of an inference, spiking against non-spiking, layer by layer, with its assumptions.

The model of the low-latency papers: an analog input costs a multiply-accumulate (MAC) per synapse, a spike an
accumulate (AC) per synapse. What is measured is how often; the energy of one operation is a constant.
"""

# T time steps; energies in pJ per sample (one inference)

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from neuroloaders.checks import check_number, check_option, explain_os_error, invalid
from snn.energy.activity import Activity, LayerActivity, MacRule, NeuronActivity, measure_activity
from snn.energy.delays import BUFFER_COLUMN, BUFFER_MODEL, buffers_of_layers
from snn.energy.model import ENERGY_45NM, EnergyConstants, EnergyEstimate, energy_from_rates

if TYPE_CHECKING:
    from snn.early_exit import DynamicConfidence

__all__ = [
    "AC_RULES",
    "ENERGY_45NM",
    "FIRST_LAYER",
    "EnergyConstants",
    "EnergyEstimate",
    "EnergyReport",
    "LayerEnergy",
    "energy_from_rates",
    "energy_report",
]

AC_RULES = {
    "spikes": "accumulates = mean input value in spikes x MACs (the papers' rule: a pooled input k/4 counts k/4)",
    "nonzero": "accumulates = fraction of nonzero inputs x MACs (a pooled input k/4 counts 1)",
}

FIRST_LAYER = {
    "cached": "layers before the first neuron run once on a static input, their current is kept for all steps",
    "every_step": "layers before the first neuron run again at each of the T steps",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerEnergy:
    """One weighted layer of a report; counts and energies are per sample (one inference).

    Attributes
    ----------
    name : str
        As in ``named_modules``.
    input : str
        "analog" or "spikes".
    macs : int
        Dense multiply-accumulates of one evaluation: the ANN's count.
    evaluations : int or float
        How often the layer is counted to run: 1 or T, or the steps of its own sequence; with exits a mean.
    input_rate : float
        Spikes per presynaptic neuron, summed over T; NaN for an analog input.
    nonzero_rate : float
        Fraction of inputs that are not zero, summed over T.
    mac_operations, ac_operations, bias_operations : float
        Operations of the spiking network; biases 0 unless ``count_bias``.
    energy_pj, ann_energy_pj : float
        Energy of the spiking and of the non-spiking network.
    extra : mapping of str to float
        Further columns, see :meth:`EnergyReport.with_column`.
    """

    name: str
    input: str
    macs: int
    evaluations: float
    input_rate: float
    nonzero_rate: float
    mac_operations: float
    ac_operations: float
    bias_operations: float
    energy_pj: float
    ann_energy_pj: float
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, repr=False)
class EnergyReport:
    """Energy of a network, layer by layer. Printing it shows the assumptions it stands on.

    Attributes
    ----------
    layers : tuple of LayerEnergy
        Weighted layers in the order in which they run.
    neurons : tuple of NeuronActivity
        Layers of spiking neurons: name, number, spikes per neuron and inference.
    n_steps, n_samples : int
        T, and the samples measured on.
    constants : EnergyConstants
        Energy of one MAC and one AC.
    assumptions : tuple of str
        What is counted and what is not.
    """

    layers: tuple[LayerEnergy, ...]
    neurons: tuple[NeuronActivity, ...]
    n_steps: int
    n_samples: int
    constants: EnergyConstants
    assumptions: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of one inference of the ANN."""
        return sum(layer.macs for layer in self.layers)

    @property
    def estimate(self) -> EnergyEstimate:
        """Energies of all layers, their totals and their ratio."""
        return EnergyEstimate(
            tuple(layer.ann_energy_pj for layer in self.layers), tuple(layer.energy_pj for layer in self.layers)
        )

    @property
    def energy_pj(self) -> float:
        """Energy of the spiking network."""
        return self.estimate.snn_pj

    @property
    def ann_energy_pj(self) -> float:
        """Energy of the same network without spikes: every MAC once."""
        return self.estimate.ann_pj

    @property
    def ratio(self) -> float:
        """``ann_energy_pj / energy_pj``, the papers' beta; above 1 the spiking network is the cheaper one."""
        return self.estimate.ratio

    @property
    def mean_input_rate(self) -> float:
        """Input spike rate of the layers fed by spikes, weighted by their MACs; NaN if there are none."""
        fed = [layer for layer in self.layers if layer.input == "spikes"]
        macs = sum(layer.macs for layer in fed)
        return math.fsum(layer.input_rate * layer.macs for layer in fed) / macs if macs else math.nan

    @property
    def mean_spike_rate(self) -> float:
        """Spikes per neuron and inference over all neurons; NaN if there are none."""
        count = sum(layer.n_neurons for layer in self.neurons)
        return math.fsum(layer.rate * layer.n_neurons for layer in self.neurons) / count if count else math.nan

    def with_column(self, name: str, values: Mapping[str, float], *, is_energy: bool = False) -> EnergyReport:
        """Return a copy with one more column, such as mean exit steps or delay buffers.

        Parameters
        ----------
        name : str
            Heading; must be new.
        values : mapping of str to float
            Layer name -> value; layers that are left out get 0.
        is_energy : bool
            The values are pJ per sample that the spiking network spends in addition: add them to `energy_pj`.
        """
        if not self.layers or name in self.table()[0]:
            raise invalid("name", "be a new column", repr(name))
        for key in values:
            check_option("values", key, [layer.name for layer in self.layers])
        layers = []
        for layer in self.layers:
            value = values.get(layer.name, 0)
            added = check_number(name, value, at_least=0) if is_energy else 0.0
            extra = {**layer.extra, name: value}
            layers.append(dataclasses.replace(layer, extra=extra, energy_pj=layer.energy_pj + added))
        return dataclasses.replace(self, layers=tuple(layers))

    def table(self) -> list[dict[str, str | float]]:
        """Return one dict per layer: the fields of :class:`LayerEnergy`, then the further columns."""
        fields = [one.name for one in dataclasses.fields(LayerEnergy) if one.name != "extra"]
        return [{**{key: getattr(layer, key) for key in fields}, **layer.extra} for layer in self.layers]

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`table` as CSV and return the path; an existing file is replaced once all is written."""
        text = io.StringIO(newline="")
        rows = self.table()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise explain_os_error("write", path, error) from error
        return path

    def __repr__(self) -> str:
        rows = [["layer", "input", "MACs", "in rate", "nonzero", "MAC op", "AC op", "SNN nJ", "ANN nJ"]]
        extra = list(self.layers[0].extra)
        rows[0] += extra
        for layer in self.layers:
            numbers = [layer.macs, layer.input_rate, layer.nonzero_rate, layer.mac_operations, layer.ac_operations]
            numbers += [layer.energy_pj / 1e3, layer.ann_energy_pj / 1e3, *(layer.extra[key] for key in extra)]
            rows.append([layer.name, layer.input, *(f"{number:.5g}" for number in numbers)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines += [
            f"Energy per inference: {self.energy_pj / 1e3:.6g} nJ, as ANN {self.ann_energy_pj / 1e3:.6g} nJ, "
            f"ratio {self.ratio:.4g}",
            f"T = {self.n_steps}, {self.n_samples} samples, {self.macs / 1e6:.6g} MMAC, "
            f"MAC-weighted input rate {self.mean_input_rate:.4g}",
        ]
        if self.neurons:
            each = ", ".join(f"{layer.name} {layer.rate:.4g}" for layer in self.neurons)
            lines.append(f"Spikes per neuron and inference: {self.mean_spike_rate:.4g} ({each})")
        return "\n".join([*lines, "Assumptions:", *(f"- {line}" for line in self.assumptions)])


def energy_report(
    model: nn.Module | DynamicConfidence,
    x: Tensor,
    *,
    n_steps: int | None = None,
    first_layer: str = "cached",
    ac_rule: str = "spikes",
    count_bias: bool = False,
    constants: EnergyConstants = ENERGY_45NM,
    batch_size: int = 64,
    batch_axis: int = 0,
    rules: Mapping[type[nn.Module], MacRule] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> EnergyReport:
    """Measure the spike rates of a network on `x` and compute the energy of one inference.

    Parameters
    ----------
    model : nn.Module or DynamicConfidence
        ANN, network with time folded into the batch, or multi-step network. Or a network that stops when it is sure:
        each sample is counted up to its exit, see `snn.energy.measure_exits`.
    x : Tensor, shape (B, ...) or (T, B, ...)
        Samples.
    n_steps : int, optional
        T; default: what the model says, see :func:`snn.energy.activity.measure_activity`.
    first_layer : str
        A key of ``FIRST_LAYER``: whether layers before the first neuron run once or T times on a static input. An
        input that changes over time is counted T times in both.
    ac_rule : str
        A key of ``AC_RULES``: what an average of spikes costs.
    count_bias : bool
        Count one add (as an AC) per output of a layer with bias and evaluation, in both networks.
    constants : EnergyConstants
        Energy of one MAC and one AC.
    batch_size, batch_axis, rules, kinds
        As in :func:`snn.energy.measure_activity`, where it is also said how spikes are told from analog inputs.

    Returns
    -------
    EnergyReport
        With the column ``delay_buffer_bits`` if there are layers with delays, see
        :func:`snn.energy.delays.delay_buffer_bits`.

    Raises
    ------
    ValueError
        If an option is unknown, a layer cannot be counted, or T does not fit the data.

    Notes
    -----
    See :func:`energy_from_rates` for the equation. A rate is the mean over the layer's inputs: every spike of a
    convolution is charged k_h k_w c_out / stride^2 targets as if there were no border, the papers' convention. An
    event-driven count of the same spikes is lower where zero padding cuts targets off.

    Layers with delays (``batch_axis=1``) are counted as evaluation runs them, one lag a synapse and kernel, over the
    steps of the sequence that they are given: in `snn.models.delay_mlp`, T and what each layer adds.
    """
    check_option("first_layer", first_layer, FIRST_LAYER)
    check_option("ac_rule", ac_rule, AC_RULES)
    if hasattr(model, "rule_"):
        if n_steps is not None or batch_axis != 0:
            name, given = ("batch_axis", batch_axis) if n_steps is None else ("n_steps", n_steps)
            raise invalid(name, "be left out for a network with exits", f"{given}", "It knows its own.")
        from snn.energy.exit_report import energy_at_exit

        return energy_at_exit(
            model, x, first_layer=first_layer, ac_rule=ac_rule, count_bias=count_bias, constants=constants,
            batch_size=batch_size, rules=rules, kinds=kinds,
        )  # fmt: skip
    activity = measure_activity(
        model, x, n_steps=n_steps, batch_axis=batch_axis, batch_size=batch_size, rules=rules, kinds=kinds
    )
    layers = tuple(
        _charge(layer, activity.n_steps, first_layer, ac_rule, count_bias, constants) for layer in activity.layers
    )
    assumptions = [
        constants.source,
        FIRST_LAYER[first_layer],
        AC_RULES[ac_rule],
        "MACs are dense, border padding included",
        "bias additions are counted" if count_bias else "bias additions are not counted",
        "not counted: memory access, neuron updates (leak, threshold, reset), pooling, residual additions, "
        "normalisation (taken as folded into the weights)",
    ]
    if all(layer.input == "analog" for layer in layers):
        assumptions.append("no spiking neurons were found: counted as an ANN")
    if activity.not_run:
        assumptions.append(f"layers that did not run are left out: {', '.join(activity.not_run)}")
    buffers = buffers_of_layers(model, {layer.name: (layer.kind, layer.n_inputs) for layer in activity.layers})
    if buffers:
        assumptions += _sequence_assumptions(activity)
    report = EnergyReport(
        layers=layers,
        neurons=activity.neurons,
        n_steps=activity.n_steps,
        n_samples=activity.n_samples,
        constants=constants,
        assumptions=tuple(assumptions),
    )
    return report.with_column(BUFFER_COLUMN, buffers) if buffers else report


def _sequence_assumptions(activity: Activity) -> list[str]:
    own = [f"{layer.name} {layer.steps}" for layer in activity.layers if layer.steps not in (1, activity.n_steps)]
    lines = ["the ANN is one pass through the layers without delays, for one time step", BUFFER_MODEL]
    return [*lines, f"layers whose sequences have another length than T, in steps: {', '.join(own)}"] if own else lines


def _charge(
    layer: LayerActivity,
    n_steps: int,
    first_layer: str,
    ac_rule: str,
    count_bias: bool,
    constants: EnergyConstants,
) -> LayerEnergy:
    evaluations = layer.steps
    if layer.static:
        evaluations = 1 if first_layer == "cached" else n_steps
    repeats = evaluations / layer.steps  # rates are sums over the steps seen
    rate, nonzero_rate = layer.rate * repeats, layer.nonzero_rate * repeats
    charged = None
    if layer.kind == "spikes":
        charged = rate if ac_rule == "spikes" else nonzero_rate
    estimate = energy_from_rates([layer.macs], [charged], evaluations=evaluations, constants=constants)
    bias = layer.n_outputs if layer.bias and count_bias else 0
    return LayerEnergy(
        name=layer.name,
        input=layer.kind,
        macs=layer.macs,
        evaluations=evaluations,
        input_rate=rate,
        nonzero_rate=nonzero_rate,
        mac_operations=layer.macs * evaluations if charged is None else 0,
        ac_operations=0 if charged is None else layer.macs * charged,
        bias_operations=bias * evaluations,
        energy_pj=estimate.snn_pj + constants.ac_pj * bias * evaluations,
        ann_energy_pj=estimate.ann_pj + constants.ac_pj * bias,
    )
