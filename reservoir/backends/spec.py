"""What a backend is asked to do. The order of a step and of its additions is at the top of `kernel`."""

# T time, B lanes, N neurons

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from neuroloaders.checks import invalid
from reservoir.izhikevich import BENT, PARAMETERS, SCHEMES
from reservoir.network import Reservoir
from reservoir.stimulus import Schedule

__all__ = ["LoopPart", "Plan", "not_finite", "parameters", "recent_spikes"]


class LoopPart(Protocol):
    """A readout with its rule, as the loop sees it: called at the end of each step, without Python in between.

    The compiled backend calls the C function at `address` once a step and lane with one argument, an array of int64::

        0  step, from the beginning of the simulation     4  address of the feedback current, N numbers of the
        1  step of the run                                   run's dtype, which the next step adds; it keeps what
        2  number of spikes of this step                     was written there
        3  address of the neurons that spiked (int32,     5  N
           ascending)                                     6  what `context` returned for the lane

    ``snn.kernels.threads.compile_kernel`` makes such a function, and ``address`` and ``numba.carray`` turn addresses
    into arrays. The function may keep whatever it likes behind number 6: traces, weights, targets, its own recording.
    Two lanes may run at the same time; calls of one lane never overlap.

    Attributes
    ----------
    address : int
        Address of the compiled function.
    """

    address: int

    def context(self, lane: int) -> int:
        """Return the number that the function gets with each call for the lane, usually an address.

        Parameters
        ----------
        lane : int
            Which lane.
        """

    def chunk(self, lane: int, t: int, n_steps: int) -> None:
        """Be told which steps come next, to make room for what is recorded; chunks of a lane come in order.

        Parameters
        ----------
        lane, t, n_steps : int
            Lane, first step of the run, and number of steps; fewer may be done, then the next chunk starts earlier.
        """

    def step(self, lane: int, step: int, t: int, spiked: np.ndarray, fed: np.ndarray) -> None:
        """Do in Python what the compiled function does: for the backends that go step by step.

        Parameters
        ----------
        lane, step, t : int
            Lane, step of the simulation, and of the run.
        spiked : ndarray of int32
            Neurons that spiked, ascending.
        fed : ndarray, shape (N,)
            Feedback current, to be overwritten.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A run, checked and in steps.

    Attributes
    ----------
    networks : tuple of Reservoir
        One a lane; all of one size, time step, form and scheme.
    schedules : tuple of Schedule
        Input, one a lane.
    start, n_steps : int
        First step from the beginning of the simulation, and length.
    dtype : dtype
        float64 or float32.
    n_threads : int
        How many threads may be used.
    chunk_steps : int
        How many steps to take between looks at the outside world. No number depends on it.
    device : str or None
        Where the torch backend runs.
    part : LoopPart or None
        Readout and rule.
    plastic : PlasticPart or None
        Synapses that change; each lane then has a network object of its own.
    on_steps : callable
        Told how many steps of a lane were done.
    """

    networks: tuple[Reservoir, ...]
    schedules: tuple[Schedule, ...]
    start: int
    n_steps: int
    dtype: np.dtype
    n_threads: int
    chunk_steps: int
    device: str | None
    part: LoopPart | None
    on_steps: Callable[[int], None]
    plastic: Any = None

    @property
    def n(self) -> int:
        """Number of neurons."""
        return self.networks[0].n

    @property
    def n_lanes(self) -> int:
        """Number of lanes."""
        return len(self.networks)


def parameters(network: Reservoir, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters as the equations use them.

    Parameters
    ----------
    network : Reservoir
        The network.
    dtype : dtype
        float64 or float32; products are formed in float64.

    Returns
    -------
    values : ndarray, shape (15, N)
        In the order of PARAMETERS and BENT; a is times dt.
    numbers : ndarray, shape (9,)
        Substep, k2, k1, k0, v_min, dt, shift, leak, 0: u' = a (b (v + shift) - leak u) in the 2003 forms.
    """
    values = np.stack([network.parameters[name] for name in (*PARAMETERS, *BENT)])
    values[0] = values[0] * network.dt_ms
    v_min = -np.inf if network.v_min is None else network.v_min
    bend = (65.0, 0.0) if network.form == "2003_accommodation" else (0.0, 1.0)
    substep = network.dt_ms / SCHEMES[network.scheme].n_substeps
    numbers = np.array([substep, *network.quadratic, v_min, network.dt_ms, *bend, 0.0])
    return values.astype(dtype), numbers.astype(dtype)


def recent_spikes(recent: np.ndarray, lane: int, max_delay: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield how many steps ago, and who spiked then, of one lane of a state.

    Parameters
    ----------
    recent : ndarray of int64, shape (spikes, 3)
        The field of `State`.
    lane : int
        Which lane.
    max_delay : int
        The oldest spikes that matter.
    """
    mine = recent[recent[:, 0] == lane]
    for age in range(1, max_delay + 1):
        yield age, mine[mine[:, 1] == age, 2]


def not_finite(neuron: int, lane: int, step: int, dt_ms: float) -> Exception:
    """Say which neuron left the numbers, and when; the caller raises it.

    Parameters
    ----------
    neuron, lane, step : int
        Who and when.
    dt_ms : float
        Time step.
    """
    return invalid(
        "reservoir",
        "stay finite",
        f"neuron {neuron} of lane {lane} that is not, at {step * dt_ms:g} ms (step {step})",
        "Look for currents or weights that are too large, a time step that is too long, or set `v_min`.",
    )
