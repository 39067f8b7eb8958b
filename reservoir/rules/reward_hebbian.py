"""Reward-modulated Hebbian learning: trial and error with one signal, whether things went better than lately."""

# N neurons, K outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_number
from reservoir.noise import normals
from reservoir.rules.base import Plain, Rule

__all__ = ["RewardHebbian"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardHebbian(Rule):
    r"""Reward-modulated Hebbian rule with exploration.

    Noise on the outputs is kept where it helped: the rule is not told the error, only whether the sum of squared errors
    is below its recent mean.

    Parameters
    ----------
    eta : float, optional
        Learning rate at the beginning, for traces to which a spike adds 1; by default 0.1 / N, above which the
        prediction task diverges.
    horizon_ms : float
        Time in which the rate falls to half.
    tau_ms : float
        Time constant of the recent means.
    exploration : float
        Standard deviation of the noise on the outputs where the lesson is active, drawn anew at each step. It is part
        of what is kept and fed back.

    Notes
    -----
    .. math::
        \hat z = W r + \xi, \quad P = -\sum_k a_k (\hat z_k - f_k)^2, \quad M = [P > \bar P], \quad
        \Delta W_{ki} = \frac{\eta}{1 + t / T} M a_k (\hat z_k - \bar z_k) r_i

    after [1]_, with low-pass filtered :math:`\bar P, \bar z`. There, neurons have rates and the noise is uniform; here
    r are traces of spikes and the noise is normal. The rates are this project's.

    References
    ----------
    .. [1] Hoerzer, Legenstein & Maass, Cerebral Cortex 24 (2014), doi:10.1093/cercor/bhs348.

    Examples
    --------
    >>> RewardHebbian(eta=1e-4).tau_ms
    5.0
    """

    eta: float | None = None
    horizon_ms: float = 20_000.0
    tau_ms: float = 5.0
    exploration: float = 0.3

    def __post_init__(self) -> None:
        if self.eta is not None:
            check_number("eta", self.eta, at_least=0)
        check_number("horizon_ms", self.horizon_ms, above=0)
        check_number("tau_ms", self.tau_ms, above=0)
        check_number("exploration", self.exploration, at_least=0)

    @property
    def kernel(self) -> Any:
        """The compiled rule."""
        from reservoir.rules.kernels import compiled_rule

        return compiled_rule("reward_hebbian")

    def numbers(self, n: int, dt_ms: float) -> np.ndarray:
        """Return rate, horizon in steps, factor on the means, and standard deviation.

        Parameters
        ----------
        n : int
            Number of neurons.
        dt_ms : float
            Time step.
        """
        eta = 0.1 / n if self.eta is None else self.eta
        return np.array([eta, self.horizon_ms / dt_ms, np.exp(-dt_ms / self.tau_ms), self.exploration])

    def memory(self, n: int, n_outputs: int) -> np.ndarray:
        """Return the means of P and of z, zeros, and room for random numbers.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs.
        """
        return np.zeros(1 + n_outputs + (n_outputs + 3) + 5 * (n_outputs + 6))

    def plain(self, n: int, n_outputs: int, dt_ms: float, *, seed: int = 0) -> Plain:
        """Return the rule in plain numpy.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs.
        dt_ms : float
            Time step.
        seed : int
            Of the exploration.
        """
        eta, horizon, keep, exploration = self.numbers(n, dt_ms)
        mean_performance, mean_z = 0.0, np.zeros(n_outputs)

        def learn(step, r, z, target, active, weights):
            nonlocal mean_performance, mean_z
            z += exploration * active * normals(seed, step, n_outputs, stream="rule")
            performance = -np.sum(active * (z - target) ** 2)
            if performance > mean_performance:
                weights += eta / (1 + step / horizon) * np.outer(active * (z - mean_z), r)
            mean_performance = keep * mean_performance + (1 - keep) * performance
            mean_z = keep * mean_z + (1 - keep) * z

        return learn
