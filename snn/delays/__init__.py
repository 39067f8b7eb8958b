"""Learnable synaptic delays: layers, the ways to compute them, and what training them needs."""

from snn.delays.base import (
    ROUNDING,
    SHARES,
    DelayModule,
    clamp_delays,
    delay_layers,
    delays_in_steps,
    fix_delays,
    ms_to_steps,
)
from snn.delays.conv import DelayConv1d, DelayConv2d
from snn.delays.linear import DelayLinear
from snn.delays.paths import PATHS, Choice, calls, choose_path, delay_linear
from snn.delays.schedule import SigmaSchedule, delay_param_groups
from snn.delays.streaming import DelayState
from snn.delays.taps import SHAPES, TapShape

__all__ = [
    "PATHS",
    "ROUNDING",
    "SHAPES",
    "SHARES",
    "Choice",
    "DelayConv1d",
    "DelayConv2d",
    "DelayLinear",
    "DelayModule",
    "DelayState",
    "SigmaSchedule",
    "TapShape",
    "calls",
    "choose_path",
    "clamp_delays",
    "delay_layers",
    "delay_linear",
    "delay_param_groups",
    "delays_in_steps",
    "fix_delays",
    "ms_to_steps",
]
