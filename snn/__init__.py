"""Spiking networks: neurons, learnable delays, one-timestep training, early exit, conversion, energy."""

from snn import functional as functional
from snn import models as models
from snn.conversion import calibrate_thresholds as calibrate_thresholds
from snn.conversion import fold_batchnorm as fold_batchnorm
from snn.conversion import to_spiking as to_spiking
from snn.energy import EnergyReport as EnergyReport
from snn.energy import energy_report as energy_report
from snn.folded import Compare as Compare
from snn.folded import FoldedLIF as FoldedLIF
from snn.kernels import available_backends as available_backends
from snn.neurons import IF as IF
from snn.neurons import LIF as LIF
from snn.neurons import PLIF as PLIF
from snn.single_timestep import OneStepResult as OneStepResult
from snn.single_timestep import TemporalPruning as TemporalPruning
from snn.single_timestep import one_step_network as one_step_network
from snn.surrogate import Surrogate as Surrogate
from snn.training import History as History
from snn.training import TrainConfig as TrainConfig
from snn.training import evaluate as evaluate
from snn.training import fit as fit
