"""FORCE: recursive least squares on the weights of a readout, with or without forgetting."""

# N neurons, K outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_number
from reservoir.rules.base import Plain, Rule, check_steps

__all__ = ["FORCE"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FORCE(Rule):
    r"""Recursive least squares (RLS), for first-order reduced and controlled error learning.

    Parameters
    ----------
    alpha : float
        The covariance P begins as alpha times the identity: the larger, the faster the first changes.
    every_ms : float
        Time between updates, a multiple of the time step.
    forgetting : float
        Factor by which an update discounts the errors before it; 1 forgets nothing.

    Notes
    -----
    With the trace r, q = P r and the error e = z - f of the step:

    .. math::
        c = 1 / (\lambda + r^T q), \quad W_k \leftarrow W_k - c\, a_k e_k\, q^T, \quad
        P \leftarrow (P - c\, q q^T) / \lambda

    [1]_, [2]_; :math:`\lambda` is `forgetting` [3]_. Without forgetting, W after some updates is the ridge solution
    ``(R R' + I / alpha)^-1 R y`` of all of them. P is one for all outputs. A step at which the lesson's `active` is 0
    for all outputs updates nothing, which is how a training period is given.

    With forgetting, P grows without bound in directions that the network does not visit, and the weights may explode:
    it is here to compare with. `Readout.reset` with ``rule=True`` begins with a new P.

    P is kept as a triangle, and what an update subtracts from it is subtracted while the next one multiplies it, so
    that it is read and written once for each update. It takes ``4 N**2`` bytes a lane.

    References
    ----------
    .. [1] Sussillo & Abbott, Neuron 63 (2009), doi:10.1016/j.neuron.2009.07.018.
    .. [2] Nicola & Clopath, Nature Communications 8 (2017), doi:10.1038/s41467-017-01827-3.
    .. [3] Haykin, Adaptive Filter Theory, chapter on recursive least squares.

    Examples
    --------
    >>> FORCE(alpha=2.0, every_ms=1.0)
    FORCE(alpha=2.0, every_ms=1.0, forgetting=1.0)
    """

    alpha: float = 1.0
    every_ms: float = 4.0
    forgetting: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, above=0)
        check_number("every_ms", self.every_ms, above=0)
        check_number("forgetting", self.forgetting, above=0, at_most=1)

    @property
    def kernel(self) -> Any:
        """The compiled rule."""
        from reservoir.rules.kernels import compiled_rule

        return compiled_rule("force")

    def numbers(self, n: int, dt_ms: float) -> np.ndarray:
        """Return the number of steps between updates, and the forgetting.

        Parameters
        ----------
        n : int
            Number of neurons.
        dt_ms : float
            Time step.
        """
        return np.array([check_steps("every_ms", self.every_ms, dt_ms), self.forgetting])

    def memory(self, n: int, n_outputs: int) -> np.ndarray:
        """Return c and q of the last update, room for the next q, and the upper triangle of P, row by row.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs.
        """
        memory = np.zeros(1 + 2 * n + n * (n + 1) // 2)
        rows = np.arange(n)
        memory[1 + 2 * n + rows * n - rows * (rows - 1) // 2] = self.alpha
        return memory

    def covariance(self, memory: np.ndarray, n: int) -> np.ndarray:
        """Return P as a matrix, shape (N, N).

        Parameters
        ----------
        memory : ndarray
            What a readout keeps for the rule, of one lane: ``readout.memory[lane]``.
        n : int
            Number of neurons.
        """
        c, q = memory[0], memory[1 : n + 1]
        matrix = np.zeros((n, n))
        matrix[np.triu_indices(n)] = memory[2 * n + 1 :]
        matrix = matrix + np.triu(matrix, 1).T
        return matrix if c == 0 else (matrix - c * np.outer(q, q)) / self.forgetting

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
        every, p = check_steps("every_ms", self.every_ms, dt_ms), self.alpha * np.eye(n)

        def learn(step, r, z, target, active, weights):
            nonlocal p
            if step % every or not active.any():
                return
            q = p @ r
            c = 1.0 / (self.forgetting + r @ q)
            weights -= c * np.outer(active * (z - target), q)
            p = (p - c * np.outer(q, q)) / self.forgetting

        return learn
