"""Any spiking network, some steps at a time, with its state outside, so that samples can leave the batch."""

from snn.stepping.choose import STEPPERS, as_stepper
from snn.stepping.delay_mlp import DelayMLPStepper
from snn.stepping.folded import FoldedStepper
from snn.stepping.functions import FunctionStepper, ReplayStepper
from snn.stepping.inputs import INPUTS
from snn.stepping.modules import STEP_MODES, ModuleStepper
from snn.stepping.protocol import State, Stepper

__all__ = [
    "INPUTS",
    "STEPPERS",
    "STEP_MODES",
    "DelayMLPStepper",
    "FoldedStepper",
    "FunctionStepper",
    "ModuleStepper",
    "ReplayStepper",
    "State",
    "Stepper",
    "as_stepper",
]
