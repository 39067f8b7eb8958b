"""The energy report of inferences that end early."""

# N samples, T time steps

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from snn.energy.activity import LayerActivity, MacRule
from snn.energy.delays import BUFFER_COLUMN, BUFFER_MODEL, buffers_of_layers
from snn.energy.exits import measure_exits
from snn.energy.model import EnergyConstants
from snn.energy.report import AC_RULES, FIRST_LAYER, EnergyReport, LayerEnergy

if TYPE_CHECKING:
    from snn.early_exit import DynamicConfidence

__all__ = ["energy_at_exit"]


def energy_at_exit(
    decide: DynamicConfidence,
    x: Tensor,
    *,
    first_layer: str,
    ac_rule: str,
    count_bias: bool,
    constants: EnergyConstants,
    batch_size: int,
    rules: Mapping[type[nn.Module], MacRule] | None,
    kinds: Mapping[str, str] | None,
) -> EnergyReport:
    """Return the report of a network that stops: for `snn.energy.energy_report`, which says what the options mean."""
    activity = measure_exits(decide, x, batch_size=batch_size, rules=rules, kinds=kinds)
    mean_steps, n_steps = activity.exit.mean_steps, activity.exit.n_steps
    layers = []
    for layer, evaluations in zip(activity.layers, activity.evaluations, strict=True):
        repeats = mean_steps if layer.static and first_layer == "every_step" else 1.0
        layers.append(_charge(layer, evaluations * repeats, repeats, ac_rule, count_bias, constants))
    assumptions = (
        constants.source,
        f"every sample is counted up to its own exit: {mean_steps:.4g} of {n_steps} steps on average",
        FIRST_LAYER[first_layer],
        AC_RULES[ac_rule],
        "MACs are dense, border padding included",
        "bias additions are counted" if count_bias else "bias additions are not counted",
        "not counted: memory access, neuron updates (leak, threshold, reset), pooling, residual additions, "
        "normalisation (taken as folded into the weights), and the decision to stop (K exponentials a check)",
    )
    model = decide.model if isinstance(decide.model, nn.Module) else decide.model.model
    buffers = buffers_of_layers(model, {layer.name: (layer.kind, layer.n_inputs) for layer in activity.layers})
    report = EnergyReport(
        layers=tuple(layers),
        neurons=activity.neurons,
        n_steps=n_steps,
        n_samples=len(activity.exit),
        constants=constants,
        assumptions=(*assumptions, BUFFER_MODEL) if buffers else assumptions,
    )
    return report.with_column(BUFFER_COLUMN, buffers) if buffers else report


def _charge(
    layer: LayerActivity,
    evaluations: float,
    repeats: float,
    ac_rule: str,
    count_bias: bool,
    constants: EnergyConstants,
) -> LayerEnergy:
    rate, nonzero_rate = layer.rate * repeats, layer.nonzero_rate * repeats
    spikes = layer.kind == "spikes"
    macs = 0.0 if spikes else layer.macs * evaluations
    accumulates = layer.macs * (rate if ac_rule == "spikes" else nonzero_rate) if spikes else 0.0
    bias = layer.n_outputs if layer.bias and count_bias else 0
    energy = constants.mac_pj * macs + constants.ac_pj * (accumulates + bias * evaluations)
    return LayerEnergy(
        name=layer.name,
        input=layer.kind,
        macs=layer.macs,
        evaluations=evaluations,
        input_rate=rate,
        nonzero_rate=nonzero_rate,
        mac_operations=macs,
        ac_operations=accumulates,
        bias_operations=bias * evaluations,
        energy_pj=energy,
        ann_energy_pj=constants.mac_pj * layer.macs + constants.ac_pj * bias,
    )
