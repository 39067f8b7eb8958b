"""Compute energy of an inference: measured activity, counted operations, constants with their source."""

from snn.energy.activity import LayerActivity, MacRule, NeuronActivity, count_macs, measure_activity
from snn.energy.delays import delay_buffer_bits, longest_delays
from snn.energy.exits import ExitActivity, measure_exits
from snn.energy.model import ENERGY_45NM, EnergyConstants, EnergyEstimate, energy_from_rates
from snn.energy.report import AC_RULES, FIRST_LAYER, EnergyReport, LayerEnergy, energy_report

__all__ = [
    "AC_RULES",
    "ENERGY_45NM",
    "FIRST_LAYER",
    "EnergyConstants",
    "EnergyEstimate",
    "EnergyReport",
    "ExitActivity",
    "LayerActivity",
    "LayerEnergy",
    "MacRule",
    "NeuronActivity",
    "count_macs",
    "delay_buffer_bits",
    "energy_from_rates",
    "energy_report",
    "longest_delays",
    "measure_activity",
    "measure_exits",
]
