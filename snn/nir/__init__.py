"""Exchange of networks with other simulators and chips through NIR, the neuromorphic intermediate representation.

Needs the package `nir` once something is read or written, not before: ``pip install 'spikedecode[nir]'``.
"""

from snn.nir.equations import INTEGRATIONS
from snn.nir.export import to_nir, write_nir
from snn.nir.layers import FoldTime, LeakyIntegrator, PerNeuron, Scale, StepDelay
from snn.nir.load import from_nir

__all__ = [
    "INTEGRATIONS",
    "FoldTime",
    "LeakyIntegrator",
    "PerNeuron",
    "Scale",
    "StepDelay",
    "from_nir",
    "to_nir",
    "write_nir",
]
