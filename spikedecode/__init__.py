"""The door of the distribution: its version, and the command ``spikedecode``.

What it does is in `snn`, `reservoir`, `neurodecode` and `neuroloaders`.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("spikedecode")
