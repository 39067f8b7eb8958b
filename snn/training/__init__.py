"""Training: one plain loop for every network of the house, that can be killed, resumed and spread over processes."""

from snn.training.config import TrainConfig
from snn.training.evaluation import evaluate
from snn.training.history import History
from snn.training.loop import fit

__all__ = ["History", "TrainConfig", "evaluate", "fit"]
