"""Spike-timing-dependent plasticity of the synapses inside a network, plain and modulated by dopamine."""

# N neurons, S synapses

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_number, check_option, invalid

__all__ = ["PAIRINGS", "PLASTIC", "STDP", "DopamineSTDP", "plastic_synapses"]

PAIRINGS = {
    "all": "every spike pairs with every one before it: a spike adds 1 to its trace",
    "nearest": "every spike pairs with the last one before it: a spike sets its trace to 1",
}
PLASTIC = {
    "excitatory": "synapses of neurons that do not inhibit",
    "excitatory_to_excitatory": "those among them that lead to neurons that do not inhibit",
}
# Places in what `numbers` returns.
A_PLUS, A_MINUS, W_MAX, MODULATED, NEAREST, TONIC, FADE, PHASIC_GAIN, TONIC_GAIN, EPOCH = range(10)
C_RATE, PLUS_RATE, MINUS_RATE, N_NUMBERS = range(10, 14)
# How many time constants of the eligibility pass between two sweeps over all synapses, and at most how many steps.
EPOCH_TAUS, MAX_EPOCH = 4.0, 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class STDP:
    r"""Pair-based STDP: weights change with each spike.

    Parameters
    ----------
    a_plus, a_minus : float
        Change of the weight by a spike before, and after, that of the other neuron at no distance in time; >= 0, in
        units of the weights. `a_minus` is subtracted.
    tau_plus_ms, tau_minus_ms : float
        Time constants of the two sides of the window.
    w_max : float
        Upper bound of plastic weights; the lower one is 0.
    pairing : str
        Which spikes pair, a key of `PAIRINGS`.
    synapses : str, or array of bool of shape (S,)
        Which synapses are plastic, a key of `PLASTIC`, or one flag for each in the order of ``reservoir.wiring``.

    Notes
    -----
    With the traces x of arrivals and y of spikes after the synapse, both decaying by ``exp(-dt / tau)`` a step,

    .. math:: w \leftarrow w + A_+ x \;\text{(spike after the synapse)}, \qquad
              w \leftarrow w - A_- y \;\text{(arrival)},

    within [0, w_max]. Defaults are those of [1]_, for weights in units of their bound. A spike arrives `delay` steps
    after it was fired and acts in the step that follows. In a step, neurons that spike see what arrived in the steps
    before; what arrives then sees them. So the earliest arrival that can have caused a spike counts with
    ``exp(-dt / tau_plus)``, and an arrival in the step of a spike counts as late, at distance 0. The weight that acts
    is the one before the change.

    References
    ----------
    .. [1] Song, Miller & Abbott, Nature Neuroscience 3 (2000), doi:10.1038/78829.

    Examples
    --------
    >>> STDP(w_max=2.0).pairing
    'all'
    """

    a_plus: float = 0.005
    a_minus: float = 0.00525
    tau_plus_ms: float = 20.0
    tau_minus_ms: float = 20.0
    w_max: float = 1.0
    pairing: str = "all"
    synapses: Any = "excitatory"

    def __post_init__(self) -> None:
        check_number("a_plus", self.a_plus, at_least=0)
        check_number("a_minus", self.a_minus, at_least=0)
        check_number("tau_plus_ms", self.tau_plus_ms, above=0)
        check_number("tau_minus_ms", self.tau_minus_ms, above=0)
        check_number("w_max", self.w_max, above=0)
        check_option("pairing", self.pairing, PAIRINGS)
        if isinstance(self.synapses, str):
            check_option("synapses", self.synapses, PLASTIC)

    def numbers(self, dt_ms: float) -> np.ndarray:
        """Return the settings as the loop reads them; the places are named at the top of this file.

        Parameters
        ----------
        dt_ms : float
            Time step.
        """
        numbers = np.zeros(N_NUMBERS)
        numbers[:3] = self.a_plus, self.a_minus, self.w_max
        numbers[NEAREST] = self.pairing == "nearest"
        numbers[EPOCH] = 1.0
        numbers[PLUS_RATE:] = dt_ms / self.tau_plus_ms, dt_ms / self.tau_minus_ms
        return numbers

    def plain(self, network: Any) -> Any:
        """Return the rule in plain numpy, every synapse in every step: the reference of the compiled one.

        Parameters
        ----------
        network : Reservoir
            The network.
        """
        from reservoir.rules.stdp_plain import DenseSTDP

        return DenseSTDP(self, network)


@dataclass(frozen=True, kw_only=True, slots=True)
class DopamineSTDP(STDP):
    r"""STDP modulated by dopamine: coincidences mark a synapse, and a reward that comes later changes what is marked.

    Parameters
    ----------
    a_plus, a_minus : float
        What a coincidence adds to, and takes from, the eligibility at no distance in time.
    tau_plus_ms, tau_minus_ms : float
        Time constants of the two sides of the window.
    w_max : float
        Upper bound of plastic weights; the lower one is 0.
    pairing, synapses : optional
        As for `STDP`.
    tau_c_ms : float
        Time constant of the eligibility.
    tau_d_ms : float
        Time constant of dopamine after a reward.
    tonic : float
        Dopamine without rewards, which is constant.
    eta : float
        Learning rate, 1/ms.

    Notes
    -----
    With the eligibility c of each synapse and the dopamine d of all,

    .. math:: \dot c = -c / \tau_c + \mathrm{STDP}(\Delta t)\,\delta(t - t_{\mathrm{pre/post}}), \quad
              \dot d = -d / \tau_d + \mathrm{rewards}, \quad \dot w = \eta\, c\, (d + d_{\mathrm{tonic}}),

    and w within [0, w_max] [1]_. Between spikes and rewards the solution is exact. Rewards add to d; they are not
    negative, so that a weight moves in one direction until the next spike, and bounding it when it is looked at is the
    same as bounding it all the time.

    The defaults are the constants of the paper's first experiment as its script has them [2]_: weights up to 4 mV, 0.1
    and 0.15 mV with nearest neighbours, windows of 20 ms, 1 s, 0.2 s, a reward of 0.5 uM and a source of 0.01 uM/s,
    which keeps 0.002 uM. Deviations: the script decays in steps of 1 ms by 0.95, 0.99 (in 10 ms) and 0.995, which are
    19.5, 995 and 199.5 ms, and adds ``c d`` to the weights every 10 ms; hence ``eta = 1 / (10 ms)`` here, where weights
    change continuously.

    References
    ----------
    .. [1] Izhikevich, Cerebral Cortex 17 (2007), doi:10.1093/cercor/bhl152.
    .. [2] ModelDB 84167, https://modeldb.science/84167.

    Examples
    --------
    >>> DopamineSTDP().tau_c_ms
    1000.0
    """

    a_plus: float = 0.1
    a_minus: float = 0.15
    w_max: float = 4.0
    pairing: str = "nearest"
    tau_c_ms: float = 1000.0
    tau_d_ms: float = 200.0
    tonic: float = 0.002
    eta: float = 0.1

    def __post_init__(self) -> None:
        STDP.__post_init__(self)
        check_number("tau_c_ms", self.tau_c_ms, above=0)
        check_number("tau_d_ms", self.tau_d_ms, above=0)
        check_number("tonic", self.tonic, at_least=0)
        check_number("eta", self.eta, at_least=0)

    def numbers(self, dt_ms: float) -> np.ndarray:
        """Return the settings as the loop reads them; the places are named at the top of this file.

        Parameters
        ----------
        dt_ms : float
            Time step.
        """
        numbers = STDP.numbers(self, dt_ms)
        both = self.tau_c_ms * self.tau_d_ms / (self.tau_c_ms + self.tau_d_ms)
        numbers[MODULATED], numbers[TONIC] = 1.0, self.tonic
        numbers[FADE] = np.exp(-dt_ms / self.tau_d_ms)
        # Integrals over a step of c d and of c, for c and d of 1 at its start.
        numbers[PHASIC_GAIN] = -self.eta * both * np.expm1(-dt_ms / both)
        numbers[TONIC_GAIN] = -self.eta * self.tonic * self.tau_c_ms * np.expm1(-dt_ms / self.tau_c_ms)
        numbers[EPOCH] = min(max(1.0, np.rint(EPOCH_TAUS * self.tau_c_ms / dt_ms)), MAX_EPOCH)
        numbers[C_RATE] = dt_ms / self.tau_c_ms
        return numbers


def plastic_synapses(rule: STDP, network: Any) -> np.ndarray:
    """Return which synapses of a network a rule changes, bool, shape (S,), in the order of its wiring.

    Parameters
    ----------
    rule : STDP
        The rule.
    network : Reservoir
        The network.

    Raises
    ------
    ValueError
        If the flags do not fit, or if the weight of a plastic synapse is not between 0 and `w_max`.
    """
    wiring = network.wiring
    if isinstance(rule.synapses, str):
        mild = (network.signs == 0) | (network.signs == 1)
        chosen = mild[wiring.pre()]
        if rule.synapses == "excitatory_to_excitatory":
            chosen &= mild[wiring.post]
    else:
        chosen = np.array(rule.synapses)
        if chosen.shape != wiring.post.shape or chosen.dtype != bool:
            required = f"be one of {', '.join(map(repr, PLASTIC))}, or hold {len(wiring.post)} flags, one a synapse"
            raise invalid("synapses", required, chosen)
    bad = chosen & ~((wiring.weight >= 0) & (wiring.weight <= rule.w_max))
    if bad.any():
        weights = wiring.weight[chosen]
        advice = "Scale the network's weights, raise `w_max`, or choose other `synapses`."
        got = f"{weights.min():g} to {weights.max():g}"
        raise invalid("reservoir", f"have plastic weights between 0 and w_max = {rule.w_max:g}", got, advice)
    return chosen
