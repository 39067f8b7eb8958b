"""Heterogeneous neurons: parameters drawn anew for each neuron of a population."""

# N neurons

from __future__ import annotations

import numpy as np

from reservoir.izhikevich import Izhikevich

__all__ = ["SAMPLERS", "excitatory", "excitatory_2003", "inhibitory"]


def excitatory_2003(n: int, rng: np.random.Generator) -> Izhikevich:
    """Draw excitatory neurons from regular spiking to chattering, as net.m of Izhikevich 2003 does.

    With q uniform in [0, 1): ``a = 0.02, b = 0.2, c = -65 + 15 q**2, d = 8 - 6 q**2``. The square favours regular
    spiking.

    Parameters
    ----------
    n : int
        Number of neurons.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Izhikevich
        With one value of c and d a neuron.
    """
    q2 = rng.random(n) ** 2
    return Izhikevich(a=0.02, b=0.2, c=-65.0 + 15.0 * q2, d=8.0 - 6.0 * q2)


def excitatory(n: int, rng: np.random.Generator) -> Izhikevich:
    """Draw excitatory neurons from regular spiking to chattering, with slow and unequal adaptation.

    As `excitatory_2003`, with ``a = 0.01 exp(z / 2)``, z standard normal: recovery takes from some tens to some
    hundreds of ms, which is what lets a network tell 250 ms from 450 ms after a cue. The spread of a is a choice of
    this project; the paper on the what/when/probability task says "heterogeneous" and gives no distribution.

    Parameters
    ----------
    n : int
        Number of neurons.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Izhikevich
        With one value of a, c and d a neuron.
    """
    q2 = rng.random(n) ** 2
    return Izhikevich(a=0.01 * np.exp(0.5 * rng.standard_normal(n)), b=0.2, c=-65.0 + 15.0 * q2, d=8.0 - 6.0 * q2)


def inhibitory(n: int, rng: np.random.Generator) -> Izhikevich:
    """Draw inhibitory neurons from fast spiking to low threshold, as net.m of Izhikevich 2003 does.

    With q uniform in [0, 1): ``a = 0.02 + 0.08 q, b = 0.25 - 0.05 q, c = -65, d = 2``.

    Parameters
    ----------
    n : int
        Number of neurons.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    Izhikevich
        With one value of a and b a neuron.
    """
    q = rng.random(n)
    return Izhikevich(a=0.02 + 0.08 * q, b=0.25 - 0.05 * q, c=-65.0, d=2.0)


SAMPLERS = {"excitatory": excitatory, "excitatory_2003": excitatory_2003, "inhibitory": inhibitory}
