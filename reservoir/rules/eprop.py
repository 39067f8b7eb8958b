"""The readout of e-prop: the gradient of the squared error, gathered online and applied at the end of a period."""

# N neurons, K outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_number
from reservoir.rules.base import Plain, Rule, check_steps

__all__ = ["EProp"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EProp(Rule):
    r"""What e-prop does to the weights of a linear readout.

    Parameters
    ----------
    eta : float, optional
        Learning rate, for traces to which a spike adds 1; by default 2 / N, divided by the steps of a period.
    period_ms : float
        Time after which the gathered changes are applied, a multiple of the time step, counted from the beginning of
        the simulation.

    Notes
    -----
    .. math:: \Delta W_{ki} = \eta \sum_t a_k (f_k(t) - z_k(t)) \, r_i(t)

    Of the rule in [1]_ this is the part for output weights, where the eligibility is the spikes filtered by the
    readout's own leak, here the trace r. Its other part changes recurrent weights, which are fixed here. With a period
    of one step it is the three-factor rule with an open gate.

    References
    ----------
    .. [1] Bellec et al., Nature Communications 11 (2020), doi:10.1038/s41467-020-17236-y.

    Examples
    --------
    >>> EProp(period_ms=500.0).numbers(1000, 1.0).tolist()
    [4e-06, 500.0]
    """

    eta: float | None = None
    period_ms: float = 1000.0

    def __post_init__(self) -> None:
        if self.eta is not None:
            check_number("eta", self.eta, at_least=0)
        check_number("period_ms", self.period_ms, above=0)

    @property
    def kernel(self) -> Any:
        """The compiled rule."""
        from reservoir.rules.kernels import compiled_rule

        return compiled_rule("eprop")

    def numbers(self, n: int, dt_ms: float) -> np.ndarray:
        """Return rate, and steps of a period.

        Parameters
        ----------
        n : int
            Number of neurons.
        dt_ms : float
            Time step.
        """
        period = check_steps("period_ms", self.period_ms, dt_ms)
        return np.array([2.0 / (n * period) if self.eta is None else self.eta, period])

    def memory(self, n: int, n_outputs: int) -> np.ndarray:
        """Return the gathered changes, zeros.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs.
        """
        return np.zeros(n_outputs * n)

    def plain(self, n: int, n_outputs: int, dt_ms: float, *, seed: int = 0) -> Plain:
        """Return the rule in plain numpy.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs.
        dt_ms : float
            Time step.
        seed : int
            Not used.
        """
        eta, period = self.numbers(n, dt_ms)
        gathered = np.zeros((n_outputs, n))

        def learn(step, r, z, target, active, weights):
            gathered[:] += np.outer(active * (target - z), r)
            if (step + 1) % period == 0:
                weights += eta * gathered
                gathered[:] = 0

        return learn
