"""Who is connected to whom: synapses sorted for delivery, and the constructors that sort them.

Synapses lie in memory by delay (longest first), then by presynaptic neuron, then by postsynaptic neuron, each
ascending. A step delivers in this order, so the sum that reaches a neuron is the same on every backend and for every
number of threads. That order is also brian2's, whose queues hand out older spikes first.
"""

# N neurons, S synapses, Q distinct delays

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_same_length, check_shape, invalid

__all__ = ["WEIGHTS", "Synapse", "Wiring", "from_dense", "from_edges", "from_sparse", "random_edges"]


@dataclass(frozen=True, slots=True)
class Synapse:
    """Time course of a synaptic current.

    Parameters
    ----------
    tau_ms : float
        Time constant of the decay. 0: the current lasts one step, as in net.m of Izhikevich 2003.
    rise_ms : float, optional
        Time constant of the rise, for a double exponential whose area is the weight times 1 ms. Without it the
        current jumps by the weight, and its area is the weight times `tau_ms`.

    Notes
    -----
    Decay is exact: a factor ``exp(-dt / tau)`` a step. The double exponential takes the steps of Nicola & Clopath
    2017, ``I = I e_r + h dt; h = h e_d + w / (rise tau)``, whose area is that of the weight up to
    ``dt**2 / (rise tau (1 - e_r)(1 - e_d))``: 1 % too much for 2 and 20 ms and steps of 0.04 ms.
    """

    tau_ms: float
    rise_ms: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.tau_ms < np.inf:
            raise invalid("tau_ms", "be a finite number >= 0", self.tau_ms)
        if self.rise_ms is not None and not (0 < self.rise_ms < np.inf and self.tau_ms > 0):
            raise invalid("rise_ms", "be > 0, as must be `tau_ms` with it", self.rise_ms)

    def decays(self, dt_ms: float) -> tuple[float, float]:
        """Return the factors on the current and, with a rise, on what feeds it.

        Parameters
        ----------
        dt_ms : float
            Time step.
        """
        slow = float(np.exp(-dt_ms / self.tau_ms)) if self.tau_ms else 0.0
        return (slow, 0.0) if self.rise_ms is None else (float(np.exp(-dt_ms / self.rise_ms)), slow)

    @property
    def scale(self) -> float:
        """What a weight is multiplied with before it is added."""
        return 1.0 if self.rise_ms is None else 1.0 / (self.rise_ms * self.tau_ms)


@dataclass(eq=False)
class Wiring:
    """Synapses in the order of delivery.

    Parameters
    ----------
    n : int
        Number of neurons.
    delays : ndarray of int64, shape (Q,)
        The distinct delays in steps, longest first. A spike acts ``1 + delay`` steps after its own.
    start : ndarray of int64, shape (Q * N + 1,)
        Where the synapses of delay q and presynaptic neuron i begin: at ``start[q * N + i]``. 64 bits, so that there
        may be more than 2**31 synapses.
    post : ndarray of uint16 or uint32, shape (S,)
        Postsynaptic neurons; 16 bits where these suffice, for half the memory traffic.
    weight : ndarray of float64, shape (S,)
        Weights in the order of `post`.
    """

    n: int
    delays: np.ndarray
    start: np.ndarray
    post: np.ndarray
    weight: np.ndarray
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False, init=False)

    @property
    def max_delay(self) -> int:
        """The longest delay, in steps."""
        return int(self.delays.max(initial=0))

    def pre(self) -> np.ndarray:
        """Return the presynaptic neuron of each synapse, in the order of delivery."""
        owner = np.tile(np.arange(self.n, dtype=np.int64), len(self.delays))
        return np.repeat(owner, np.diff(self.start))

    def delay(self) -> np.ndarray:
        """Return the delay of each synapse in steps, in the order of delivery."""
        return np.repeat(np.repeat(self.delays, self.n), np.diff(self.start))

    def weights_as(self, dtype: type, scale: np.ndarray) -> np.ndarray:
        """Return the weights in `dtype`, times the factor of their presynaptic neuron's synapse; made once.

        Parameters
        ----------
        dtype : type
            np.float32 or np.float64.
        scale : ndarray of float64, shape (N,)
            `Synapse.scale` of each presynaptic neuron.
        """
        key = (np.dtype(dtype).name, scale.tobytes())
        if key not in self._cache:
            scaled = self.weight if (scale == 1).all() else self.weight * scale[self.pre()]
            self._cache[key] = scaled.astype(dtype, copy=False)
        return self._cache[key]

    def cuts(self, edges: tuple[int, ...]) -> np.ndarray:
        """Return where each segment of synapses enters the next range of postsynaptic neurons; made once.

        Parameters
        ----------
        edges : tuple of int
            Where the ranges begin, and N.

        Returns
        -------
        ndarray of int64, shape (len(edges), Q * N)
        """
        if edges not in self._cache:
            rows = [self.start[:-1]]
            for edge in edges[1:-1]:
                below = np.zeros(len(self.start) - 1, dtype=np.int64)
                # In blocks: a running sum over all synapses would take eight bytes for each.
                block = max(1, (1 << 22) * len(below) // max(1, len(self.post)))
                for k in range(0, len(below), block):
                    ends = self.start[k : k + block + 1]
                    total = np.zeros(ends[-1] - ends[0] + 1, dtype=np.int64)
                    np.cumsum(self.post[ends[0] : ends[-1]] < edge, out=total[1:])
                    below[k : k + block] = np.diff(total[ends - ends[0]])
                rows.append(self.start[:-1] + below)
            self._cache[edges] = np.stack([*rows, self.start[1:]])
        return self._cache[edges]

    def digest(self) -> str:
        """Return a fingerprint of all synapses, to tell whether a network is still the same."""
        sha = hashlib.sha256(f"{self.n}".encode())
        for array in (self.delays, self.start, self.post, self.weight):
            sha.update(np.ascontiguousarray(array))
        return sha.hexdigest()


def _index_type(n: int) -> type:
    return np.uint16 if n <= 1 << 16 else np.uint32


def from_edges(n: int, pre: Any, post: Any, weight: Any, delay: Any = 0) -> Wiring:
    """Sort synapses given one by one.

    Parameters
    ----------
    n : int
        Number of neurons.
    pre, post : array of int, shape (S,)
        Presynaptic and postsynaptic neuron of each synapse. A pair may occur more than once.
    weight : array, shape (S,)
        Weights.
    delay : int, or array of int of shape (S,)
        Delay in steps; 0 acts in the step after the spike.

    Raises
    ------
    ValueError
        For lengths that differ, neurons that do not exist, negative delays, weights that are not finite.
    """
    pre, post = _whole("pre", pre), _whole("post", post)
    weight = check_finite("weight", np.asarray(weight, dtype=np.float64))
    check_same_length(pre=pre, post=post, weight=weight)
    for name, index in (("pre", pre), ("post", post)):
        if index.size and not (index.min() >= 0 and index.max() < n):
            raise invalid(name, f"hold neurons 0 to {n - 1}", f"{index.min()} to {index.max()}")
    steps = _whole("delay", np.atleast_1d(delay))
    if steps.size > 1:
        check_same_length(pre=pre, delay=steps)
    if steps.size and steps.min() < 0:
        raise invalid("delay", "be >= 0 steps", f"{steps.min()}", "A spike acts 1 + delay steps later.")
    delays = np.unique(steps)[::-1] if steps.size else np.zeros(1, dtype=np.int64)
    group = np.searchsorted(-delays, -steps) if len(delays) > 1 else np.int64(0)
    # Stable: synapses between the same two neurons stay in the order in which they came.
    segment = group * n + pre
    if not _is_sorted(segment, post):
        order = np.lexsort((post, segment))
        segment, post, weight = segment[order], post[order], weight[order]
    counts = np.bincount(segment, minlength=len(delays) * n)
    start = np.zeros(len(delays) * n + 1, dtype=np.int64)
    np.cumsum(counts, out=start[1:])
    return Wiring(n, delays, start, post.astype(_index_type(n)), np.ascontiguousarray(weight))


def _is_sorted(segment: np.ndarray, post: np.ndarray) -> bool:
    ahead = np.diff(segment)
    return not ((ahead < 0) | ((ahead == 0) & (np.diff(post) < 0))).any()


def _whole(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1:
        raise invalid(name, "have shape (S,)", f"{array.shape}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise invalid(name, "hold whole numbers", array, "Convert it with .astype(int).", kind=TypeError)
    return array.astype(np.int64)


def from_dense(weights: Any, delay: int = 0) -> Wiring:
    """Take every entry of a matrix that is not zero.

    Parameters
    ----------
    weights : array, shape (N, N)
        ``weights[i, j]`` is the synapse from neuron i to neuron j.
    delay : int
        Delay of all synapses, in steps.
    """
    matrix = np.asarray(weights, dtype=np.float64)
    n = check_shape("weights", matrix, ("N", "N"), advice="Rows send, columns receive.").shape[0]
    pre, post = np.nonzero(matrix)
    return from_edges(n, pre, post, matrix[pre, post], np.int64(delay))


def from_sparse(weights: Any, delay: int = 0) -> Wiring:
    """Take the stored entries of a sparse matrix, zeros included.

    Parameters
    ----------
    weights : scipy sparse array or matrix, or torch sparse tensor, shape (N, N)
        ``weights[i, j]`` is the synapse from neuron i to neuron j; rows send. Entries stored twice are added.
    delay : int
        Delay of all synapses, in steps.
    """
    n = check_shape("weights", weights, ("N", "N"), advice="Rows send, columns receive.").shape[0]
    if type(weights).__module__.startswith("torch"):
        coo = weights.detach().to_sparse_coo().cpu().coalesce()
        (pre, post), values = coo.indices().numpy(), coo.values().numpy()
    else:
        coo = weights.tocsr(copy=True)
        coo.sum_duplicates()
        coo = coo.tocoo()
        pre, post, values = coo.row, coo.col, coo.data
    return from_edges(n, pre, post, values, np.int64(delay))


def random_edges(sources: slice, targets: slice, p: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw which pairs of neurons are connected, each with the same probability, none with itself.

    Parameters
    ----------
    sources, targets : slice
        Ranges of presynaptic and postsynaptic neurons.
    p : float
        Probability of a connection.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    pre, post : ndarray of int64
        Sorted by presynaptic, then by postsynaptic neuron.

    Notes
    -----
    The gaps between connected pairs are geometric, so the work goes with the number of synapses, not of pairs.
    """
    rows, columns = sources.stop - sources.start, targets.stop - targets.start
    n_pairs, found, place = rows * columns, [], -1
    while p > 0 and place < n_pairs:
        room = (n_pairs - place) * p
        steps = np.cumsum(rng.geometric(p, size=int(min(room + 4 * np.sqrt(room) + 16, 1 << 22)))) + place
        found.append(steps[steps < n_pairs])
        place = int(steps[-1])
    places = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    pre, post = places // columns + sources.start, places % columns + targets.start
    itself = pre == post
    return (pre[~itself], post[~itself]) if itself.any() else (pre, post)


def _ones(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.ones(n)


# How weights spread around their mean; the sign and the scale come later.
WEIGHTS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "uniform": lambda n, rng: 2.0 * rng.random(n),
    "normal": lambda n, rng: rng.standard_normal(n),
    "constant": _ones,
}
