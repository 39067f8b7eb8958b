"""The gated three-factor rule, which tells when: what was active, how wrong the output is, and whether to attend."""

# N neurons, K outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_number, check_option
from reservoir.rules.base import Plain, Rule

__all__ = ["GATES", "ThreeFactorRule"]

GATES = {
    "expectation": "min(1, target + max(0, output) + floor): where something comes or is expected, a little elsewhere",
    "open": "1: only `active` of the lesson decides. With a window around each event this is the boxcar gate",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ThreeFactorRule(Rule):
    r"""Gated three-factor rule: activity before the synapse, times error after it, times attention.

    Parameters
    ----------
    eta : float, optional
        Learning rate, for traces to which a spike adds 1. By default 0.7 / N: the change of the output in one step
        grows with the number of neurons that are active. Rates from 0.5 / N to 1 / N learn the prediction task alike.
    gate : str
        The third factor, a key of `GATES`.
    floor : float
        What "expectation" is where nothing comes and nothing is expected. It keeps the output at zero there.
    tau_eligibility_ms : float, optional
        The synapse remembers its trace, ``e = e exp(-dt / tau) + r``, and the error acts on that; for errors that
        come late. By default e is the trace r itself.

    Notes
    -----
    .. math:: \Delta W_{ki} = \eta \, a_k(t) \, G_k(t) \, (f_k(t) - z_k(t)) \, e_i(t)

    with the lesson's target f and factor a. With G = 1 this is the rule of Widrow and Hoff (least mean squares) [2]_.

    The model of [1]_ has a gate that limits learning to the channel and the latency window of the event; its shape and
    constants were not available. A boxcar alone leaves the output free elsewhere: it peaks at the cue, and an old peak
    is never unlearned once the latency has moved. Hence the default gate, which opens where something *is expected* as
    well; it is this project's. G = 1 throughout diverges at rates at which the default learns.

    References
    ----------
    .. [1] Yamada & Chao, arXiv:2510.14382.
    .. [2] Widrow & Hoff, Adaptive switching circuits. IRE WESCON (1960).

    Examples
    --------
    >>> ThreeFactorRule(eta=1e-3)
    ThreeFactorRule(eta=0.001, gate='expectation', floor=0.02, tau_eligibility_ms=None)
    """

    eta: float | None = None
    gate: str = "expectation"
    floor: float = 0.02
    tau_eligibility_ms: float | None = None

    def __post_init__(self) -> None:
        if self.eta is not None:
            check_number("eta", self.eta, at_least=0)
        check_option("gate", self.gate, GATES)
        check_number("floor", self.floor, at_least=0, at_most=1)
        if self.tau_eligibility_ms is not None:
            check_number("tau_eligibility_ms", self.tau_eligibility_ms, above=0)

    @property
    def kernel(self) -> Any:
        """The compiled rule."""
        from reservoir.rules.kernels import compiled_rule

        return compiled_rule("three_factor")

    def numbers(self, n: int, dt_ms: float) -> np.ndarray:
        """Return rate, whether the gate is open, floor, and the factor on the eligibility (-1: it is the trace).

        Parameters
        ----------
        n : int
            Number of neurons.
        dt_ms : float
            Time step.
        """
        eta = 0.7 / n if self.eta is None else self.eta
        decay = -1.0 if self.tau_eligibility_ms is None else float(np.exp(-dt_ms / self.tau_eligibility_ms))
        return np.array([eta, float(self.gate == "open"), self.floor, decay])

    def memory(self, n: int, n_outputs: int) -> np.ndarray:
        """Return the eligibilities, zeros.

        Parameters
        ----------
        n, n_outputs : int
            Numbers of neurons and of outputs.
        """
        return np.zeros(0 if self.tau_eligibility_ms is None else n)

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
        eta, is_open, floor, decay = self.numbers(n, dt_ms)
        eligibility = np.zeros(n)

        def learn(step, r, z, target, active, weights):
            nonlocal eligibility
            eligibility = r if decay < 0 else eligibility * decay + r
            gate = 1.0 if is_open else np.minimum(1, target + np.maximum(0, z) + floor)
            weights += eta * np.outer(active * gate * (target - z), eligibility)

        return learn
