"""Early exit by Dynamic Confidence: each inference ends when it is sure, in batches that shrink."""

from snn.early_exit.calibration import BINNINGS, Reliability, expected_calibration_error, reliability
from snn.early_exit.dynamic import DynamicConfidence
from snn.early_exit.evaluation import Evaluation, Interval, bootstrap_means
from snn.early_exit.fitting import Fitted
from snn.early_exit.pareto import Oracle, ParetoPoint
from snn.early_exit.readout import ACCUMULATE, CRITERIA, Check, ExitRule
from snn.early_exit.recalibration import RECALIBRATORS, Recalibration
from snn.early_exit.running import Exit, Work, run_until_sure
from snn.early_exit.temperature import CALIBRATORS, fit_alpha

__all__ = [
    "ACCUMULATE",
    "BINNINGS",
    "CALIBRATORS",
    "CRITERIA",
    "RECALIBRATORS",
    "Check",
    "DynamicConfidence",
    "Evaluation",
    "Exit",
    "ExitRule",
    "Fitted",
    "Interval",
    "Oracle",
    "ParetoPoint",
    "Recalibration",
    "Reliability",
    "Work",
    "bootstrap_means",
    "expected_calibration_error",
    "fit_alpha",
    "reliability",
    "run_until_sure",
]
