"""Networks of Izhikevich neurons: populations, random or given connections, Dale's law."""

# N neurons, S synapses, R kinds of synapses

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_fraction, check_int, check_number, check_option, invalid
from reservoir.izhikevich import BENT, PARAMETERS, Izhikevich
from reservoir.samplers import SAMPLERS
from reservoir.wiring import WEIGHTS, Synapse, Wiring, from_dense, from_edges, from_sparse, random_edges

__all__ = ["Population", "Reservoir", "default_populations", "random_source"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """Neurons of one sort.

    Parameters
    ----------
    size : int or float
        How many neurons, or which share of all (below 1).
    neuron : str, Izhikevich, or callable
        A sampler (a key of `reservoir.samplers.SAMPLERS`), a published kind such as "RS", parameters, or a function of
        (number, numpy generator) that returns them.
    sign : {1, -1, 0}
        1: all its synapses excite, -1: all inhibit (Dale's law), 0: of both signs.
    gain : float
        Mean absolute weight times the root of the expected number of synapses that a neuron receives.
    weights : str
        How weights spread, a key of `reservoir.wiring.WEIGHTS`: "uniform" from 0 to twice the mean, "constant", or
        "normal" around 0 (with sign 0).
    synapse : Synapse
        Time course of the currents that it causes.
    bias : tuple of float
        Mean and standard deviation over neurons of a constant current.
    noise : float
        Standard deviation of a current that is drawn anew at each step.
    """

    size: float
    neuron: str | Izhikevich | Callable[[int, np.random.Generator], Izhikevich]
    sign: int = 1
    gain: float = 1.0
    weights: str = "uniform"
    synapse: Synapse = field(default_factory=lambda: Synapse(5.0))
    bias: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_number("size", self.size, above=0)
        check_option("sign", self.sign, (1, -1, 0))
        check_number("gain", self.gain, at_least=0)
        check_option("weights", self.weights, WEIGHTS)
        if (self.weights == "normal") != (self.sign == 0):
            raise invalid("weights", "be 'normal' with sign 0, and only with it", f"{self.weights!r}, sign {self.sign}")
        if len(self.bias) != 2:
            raise invalid("bias", "be (mean, standard deviation)", self.bias)
        check_number("bias", self.bias[0])
        check_number("bias", self.bias[1], at_least=0)
        check_number("noise", self.noise, at_least=0)

    def draw(self, n: int, rng: np.random.Generator) -> Izhikevich:
        """Return the parameters of its `n` neurons.

        Parameters
        ----------
        n : int
            Number of neurons.
        rng : numpy.random.Generator
            Source of randomness.
        """
        if isinstance(self.neuron, Izhikevich):
            return self.neuron
        if isinstance(self.neuron, str):
            return SAMPLERS[self.neuron](n, rng) if self.neuron in SAMPLERS else Izhikevich(self.neuron)
        return self.neuron(n, rng)


def default_populations() -> dict[str, Population]:
    """Return the populations of the what/when/probability experiment: four fifths excite, one fifth inhibits.

    Gains, biases and noise are this project's choice: they were tuned so that the network fires at about 8 Hz and
    keeps a trace of a cue for half a second. They work for `E` from 0 to 1.5 and for `I` from 0 to 5.
    """
    return {
        "E": Population(size=0.8, neuron="excitatory", gain=0.6, bias=(3.0, 1.0), noise=0.5),
        "I": Population(
            size=0.2, neuron="inhibitory", sign=-1, gain=2.0, synapse=Synapse(10.0), bias=(2.0, 1.0), noise=0.5
        ),
    }


def random_source(generator: Any) -> np.random.Generator:
    """Return a numpy generator for a numpy one, a torch one (which gives a seed), a seed, or None.

    Parameters
    ----------
    generator : numpy.random.Generator, torch.Generator, int or None
        None draws a seed from the system.
    """
    if generator is None or isinstance(generator, np.random.Generator):
        return np.random.default_rng(generator)
    if hasattr(generator, "initial_seed"):
        import torch

        seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
        return np.random.default_rng(int(seed))
    return np.random.default_rng(check_int("generator", generator, at_least=0))


class Reservoir:
    """A recurrent network of Izhikevich neurons whose weights are fixed.

    Parameters
    ----------
    n : int
        Number of neurons.
    p_connect : float
        Probability that a neuron sends to another one; none sends to itself.
    gain : float
        Factor on all weights.
    populations : mapping of str to Population, optional
        In the order in which the neurons are numbered; by default `default_populations`. Sizes below 1 are shares.
    dt_ms : float
        Time step.
    delay_ms : float
        Delay of all synapses, a multiple of `dt_ms`. With 0, a spike of step t acts in step t + 1.
    v_min : float or None
        Lower bound of v, mV. Far below it the explicit steps are unstable, and strong inhibition would make neurons
        fire; a run counts how often the bound held. None: no bound, as published.
    generator : numpy.random.Generator, torch.Generator, or int
        Source of parameters and connections. The same seed gives the same network.

    Attributes
    ----------
    parameters : dict of str to ndarray of shape (N,)
        a, b, c, d and so on, float64.
    bias, noise : ndarray, shape (N,)
        Constant current, and standard deviation of the noise current.
    wiring : Wiring
        The synapses.
    synapses : tuple of Synapse
        The R kinds of synapses.
    receptor : ndarray of uint8, shape (N,)
        Which kind the synapses are that a neuron sends.
    populations : dict of str to slice
        Where each population is.

    Raises
    ------
    ValueError
        For sizes that do not add up, populations of different forms or schemes, and what `Population` refuses.

    Examples
    --------
    >>> net = Reservoir(100, p_connect=0.1, generator=0)
    >>> net.populations
    {'E': slice(0, 80, None), 'I': slice(80, 100, None)}
    """

    def __init__(
        self,
        n: int,
        *,
        p_connect: float = 0.1,
        gain: float = 1.0,
        populations: Mapping[str, Population] | None = None,
        dt_ms: float = 1.0,
        delay_ms: float = 0.0,
        v_min: float | None = -100.0,
        generator: Any = None,
    ) -> None:
        n = check_int("n", n, at_least=1)
        p, gain = check_fraction("p_connect", p_connect), check_number("gain", gain)
        populations = default_populations() if populations is None else dict(populations)
        places = _places(n, populations)
        rng = random_source(generator)
        cells, bias, noise = [], np.zeros(n), np.zeros(n)
        for name, population in populations.items():
            place = places[name]
            cells.append((place, population.draw(place.stop - place.start, rng)))
            mean, spread = population.bias
            bias[place] = mean + spread * rng.standard_normal(place.stop - place.start)
            noise[place] = population.noise
        pres, posts, weights = [], [], []
        for name, population in populations.items():
            pre, post = random_edges(places[name], slice(0, n), p, rng)
            size = (population.sign or 1) * gain * population.gain / np.sqrt(max(p * n, 1e-300))
            pres.append(pre)
            posts.append(post)
            weights.append(size * WEIGHTS[population.weights](len(pre), rng))
        dt_ms = check_number("dt_ms", dt_ms, above=0)
        wiring = from_edges(n, *map(np.concatenate, (pres, posts, weights)), np.int64(whole_steps(delay_ms, dt_ms)))
        kinds = list(dict.fromkeys(population.synapse for population in populations.values()))
        receptor = np.zeros(n, dtype=np.uint8)
        for name, population in populations.items():
            receptor[places[name]] = kinds.index(population.synapse)
        self._set(cells, bias, noise, wiring, kinds, receptor, places, dt_ms, v_min)

    @classmethod
    def from_weights(
        cls,
        weights: Any,
        neuron: Izhikevich,
        *,
        synapse: Synapse | tuple[Synapse, Synapse] = Synapse(5.0),  # noqa: B008  frozen
        dale: bool = True,
        bias: float | np.ndarray = 0.0,
        noise: float | np.ndarray = 0.0,
        dt_ms: float = 1.0,
        delay_ms: float = 0.0,
        v_min: float | None = -100.0,
    ) -> Reservoir:
        """Build a network from a matrix.

        Parameters
        ----------
        weights : array, scipy sparse array, or torch tensor (dense or sparse), shape (N, N)
            ``weights[i, j]`` is the synapse from neuron i to neuron j: rows send, columns receive.
        neuron : Izhikevich
            Parameters, one for all or one a neuron.
        synapse : Synapse, or two of them
            Time course of the currents; of two, the first is that of neurons that excite, the second of those that
            inhibit, which needs Dale's law.
        dale : bool
            Require Dale's law: no neuron has synapses of both signs.
        bias, noise : float or array of shape (N,)
            Constant current, and standard deviation of the noise current.
        dt_ms, delay_ms, v_min : float
            As for the class.
        """
        is_sparse = hasattr(weights, "tocsr") or getattr(weights, "layout", None) not in (None, _strided())
        delay = whole_steps(delay_ms, check_number("dt_ms", dt_ms, above=0))
        wiring = from_sparse(weights, delay) if is_sparse else from_dense(weights, delay)
        return cls._from_wiring(wiring, neuron, synapse, dale, bias, noise, dt_ms, v_min)

    @classmethod
    def from_edges(
        cls,
        n: int,
        pre: Any,
        post: Any,
        weight: Any,
        neuron: Izhikevich,
        *,
        delay: Any = 0,
        synapse: Synapse | tuple[Synapse, Synapse] = Synapse(5.0),  # noqa: B008  frozen
        dale: bool = True,
        bias: float | np.ndarray = 0.0,
        noise: float | np.ndarray = 0.0,
        dt_ms: float = 1.0,
        v_min: float | None = -100.0,
    ) -> Reservoir:
        """Build a network from a list of synapses.

        Parameters
        ----------
        n : int
            Number of neurons.
        pre, post : array of int, shape (S,)
            Neurons that send and receive. A pair may occur more than once.
        weight : array, shape (S,)
            Weights.
        neuron : Izhikevich
            Parameters, one for all or one a neuron.
        delay : int, or array of int of shape (S,)
            Delay of each synapse in steps; with 0, a spike of step t acts in step t + 1.
        synapse, dale, bias, noise : optional
            As for `from_weights`.
        dt_ms, v_min : float
            As for the class.
        """
        wiring = from_edges(check_int("n", n, at_least=1), pre, post, weight, delay)
        return cls._from_wiring(wiring, neuron, synapse, dale, bias, noise, dt_ms, v_min)

    @classmethod
    def _from_wiring(
        cls,
        wiring: Wiring,
        neuron: Izhikevich,
        synapse: Synapse | tuple[Synapse, Synapse],
        dale: bool,
        bias: float | np.ndarray,
        noise: float | np.ndarray,
        dt_ms: float,
        v_min: float | None,
    ) -> Reservoir:
        kinds = [synapse] if isinstance(synapse, Synapse) else list(synapse)
        if len(kinds) == 2 and not dale:
            raise invalid("synapse", "be one Synapse where Dale's law is not required", "two", "Or pass dale=True.")
        signs = signs_of(wiring)
        if dale and (signs == 2).any():
            raise invalid(
                "weights",
                "keep Dale's law: all synapses of a neuron excite, or all inhibit",
                f"both signs from neuron {int(np.argmax(signs == 2))} and {int((signs == 2).sum()) - 1} others",
                "Pass dale=False if they may.",
            )
        n = wiring.n
        receptor = (signs < 0).astype(np.uint8) if len(kinds) == 2 else np.zeros(n, dtype=np.uint8)
        self = cls.__new__(cls)
        currents = (_per_neuron("bias", bias, n), _per_neuron("noise", noise, n))
        self._set([(slice(0, n), neuron)], *currents, wiring, kinds, receptor, {"all": slice(0, n)}, dt_ms, v_min)
        return self

    def _set(
        self,
        cells: Sequence[tuple[slice, Izhikevich]],
        bias: np.ndarray,
        noise: np.ndarray,
        wiring: Wiring,
        synapses: Sequence[Synapse],
        receptor: np.ndarray,
        populations: dict[str, slice],
        dt_ms: float,
        v_min: float | None,
    ) -> None:
        self.n = wiring.n
        self.dt_ms = check_number("dt_ms", dt_ms, above=0)
        self.v_min = None if v_min is None else check_number("v_min", v_min)
        models = {(cell.form, cell.scheme, cell.quadratic) for _, cell in cells}
        if len(models) > 1:
            raise invalid("populations", "share one form, scheme and quadratic", f"{sorted(models)}")
        self.form, self.scheme, self.quadratic = models.pop()
        self.is_bent = any(cell.is_bent for _, cell in cells)
        self.parameters = {name: np.empty(self.n) for name in (*PARAMETERS, *BENT)}
        for place, cell in cells:
            for name, values in cell.per_neuron(place.stop - place.start).items():
                self.parameters[name][place] = values
        if len({synapse.rise_ms is None for synapse in synapses}) > 1:
            raise invalid("synapse", "be all with or all without `rise_ms` in one network", f"{list(synapses)}")
        self.bias, self.noise = bias, noise
        self.wiring, self.synapses, self.receptor = wiring, tuple(synapses), receptor
        self.populations = populations

    @property
    def signs(self) -> np.ndarray:
        """Return of each neuron whether its synapses excite (1), inhibit (-1), do both (2) or are none (0)."""
        return signs_of(self.wiring)

    def to_dense(self) -> np.ndarray:
        """Return the weights as a matrix of shape (N, N), rows sending; synapses of one pair are added."""
        matrix = np.zeros((self.n, self.n))
        np.add.at(matrix, (self.wiring.pre(), self.wiring.post), self.wiring.weight)
        return matrix

    def digest(self) -> str:
        """Return a fingerprint of everything that decides how the network runs."""
        settings = (self.dt_ms, self.v_min, self.form, self.scheme, self.quadratic, self.synapses, self.is_bent)
        sha = hashlib.sha256(f"{settings} {self.wiring.digest()}".encode())
        for array in (*self.parameters.values(), self.bias, self.noise, self.receptor):
            sha.update(np.ascontiguousarray(array))
        return sha.hexdigest()

    def __repr__(self) -> str:
        places = ", ".join(f"{name} {place.stop - place.start}" for name, place in self.populations.items())
        return f"Reservoir({self.n} neurons ({places}), {len(self.wiring.post)} synapses, dt {self.dt_ms:g} ms)"


def whole_steps(time_ms: float, dt_ms: float, name: str = "delay_ms") -> int:
    """Return a time in steps.

    Parameters
    ----------
    time_ms : float
        A time, >= 0.
    dt_ms : float
        Time step.
    name : str
        The argument's name, for the message.

    Raises
    ------
    ValueError
        If the step does not divide it, to a millionth of a step.
    """
    steps = check_number(name, time_ms, at_least=0) / dt_ms
    if abs(steps - round(steps)) > 1e-6:
        nearest = round(steps) * dt_ms
        advice = f"Use {nearest:g} ms, or another `dt_ms`."
        raise invalid(name, f"be a multiple of the time step, {dt_ms:g} ms", f"{time_ms}", advice)
    return round(steps)


def signs_of(wiring: Wiring) -> np.ndarray:
    """Return of each neuron whether its synapses excite (1), inhibit (-1), do both (2) or are none (0).

    Parameters
    ----------
    wiring : Wiring
        The synapses; those of weight 0 have no sign.
    """
    pre = wiring.pre()
    excites, inhibits = np.zeros(wiring.n, dtype=bool), np.zeros(wiring.n, dtype=bool)
    excites[pre[wiring.weight > 0]] = True
    inhibits[pre[wiring.weight < 0]] = True
    return np.where(excites & inhibits, 2, excites.astype(np.int8) - inhibits)


def _places(n: int, populations: Mapping[str, Population]) -> dict[str, slice]:
    """Number the neurons: shares are rounded, and the last population takes the rest."""
    sizes = {name: p.size for name, p in populations.items()}
    shared = all(size < 1 or size == 1 == len(sizes) for size in sizes.values())
    if shared and abs(sum(sizes.values()) - 1) > 1e-9:
        raise invalid("populations", "have shares that add up to 1", f"{sizes}")
    edges = [round(share) for share in np.cumsum([size * n if shared else size for size in sizes.values()])]
    if edges[-1] != n or any(size != round(size) for size in sizes.values() if not shared):
        raise invalid("populations", f"hold {n} neurons together (or shares below 1)", f"{sizes}")
    return {name: slice(a, b) for name, a, b in zip(sizes, [0, *edges[:-1]], edges, strict=True)}


def _per_neuron(name: str, value: float | np.ndarray, n: int) -> np.ndarray:
    array = check_finite(name, np.asarray(value, dtype=np.float64))
    if array.shape not in ((), (n,)):
        raise invalid(name, f"be a number or have shape ({n},)", f"{array.shape}")
    return np.array(np.broadcast_to(array, n))


def _strided() -> Any:
    """Return the layout of dense torch tensors, without loading torch for those who do not use it."""
    import sys

    return sys.modules["torch"].strided if "torch" in sys.modules else None
