"""From a trained ANN to a spiking network: fold, quantise, convert, calibrate, and see where a conversion loses.

Two ways lead there. `to_spiking` and `calibrate_thresholds` prepare a network that is then trained with surrogate
gradients at few time steps. `quantise_activations`, training, and `ann_to_snn` give a network that needs no training
with spikes; `conversion_errors` compares the two, layer by layer.
"""

from snn.conversion.calibration import calibrate_thresholds
from snn.conversion.convert import ann_to_snn
from snn.conversion.folding import fold_batchnorm
from snn.conversion.network import ConvertedNetwork
from snn.conversion.qcfs import QCFS, qcfs
from snn.conversion.quantise import quantise_activations
from snn.conversion.report import ConversionReport, LayerError, conversion_errors
from snn.conversion.spiking import to_spiking

__all__ = [
    "QCFS",
    "ConversionReport",
    "ConvertedNetwork",
    "LayerError",
    "ann_to_snn",
    "calibrate_thresholds",
    "conversion_errors",
    "fold_batchnorm",
    "qcfs",
    "quantise_activations",
    "to_spiking",
]
