"""The state of a run: what must be kept to go on as if nothing had happened."""

# B lanes, N neurons, R kinds of synapses

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_int, corrupt_file, invalid
from reservoir.synapses import SynapseState

__all__ = ["State", "initial_state"]


@dataclass(eq=False)
class State:
    """Everything that the next step depends on, of every lane.

    Attributes
    ----------
    step : int
        Number of steps done since the beginning; noise is addressed by it.
    seeds : ndarray of uint64, shape (B,)
        Seed of the noise of each lane.
    v, u : ndarray, shape (B, N)
        Membrane potential in mV and recovery variable, after resets.
    s : ndarray, shape (B, R, N)
        Synaptic currents.
    h : ndarray, shape (B, R, N), or (B, 0, N)
        What feeds the currents of synapses that rise.
    fed : ndarray, shape (B, N)
        Current that a readout feeds back in the next step.
    recent : ndarray of int64, shape (spikes, 3)
        Spikes that are still on their way: lane, how many steps ago (1 is the last step), neuron; sorted.
    synapses : SynapseState or None
        Plastic synapses, once there have been any.
    """

    step: int
    seeds: np.ndarray
    v: np.ndarray
    u: np.ndarray
    s: np.ndarray
    h: np.ndarray
    fed: np.ndarray
    recent: np.ndarray
    synapses: SynapseState | None = None

    @property
    def n_lanes(self) -> int:
        """Number of lanes."""
        return self.v.shape[0]

    def copy(self) -> State:
        """Return a copy that shares no memory."""
        return State(**{f.name: _copy(getattr(self, f.name)) for f in fields(self)})

    def lane(self, lane: int) -> State:
        """Return the state of one lane, for a run of its own.

        Parameters
        ----------
        lane : int
            Number of the lane.
        """
        return self.fork([check_int("lane", lane, at_least=0, at_most=self.n_lanes - 1)])

    def fork(self, lanes: int | Sequence[int], seeds: Sequence[int] | None = None) -> State:
        """Return a state whose lanes are copies of lanes of this one.

        Parameters
        ----------
        lanes : int or sequence of int
            How many copies of a single lane, or which lanes.
        seeds : sequence of int, optional
            Seed of the noise of each copy from now on; by default that of the original, so that copies stay alike
            until their input differs.

        Examples
        --------
        >>> from reservoir import Reservoir
        >>> from reservoir.state import initial_state
        >>> state = initial_state(Reservoir(10, generator=0), 1)
        >>> state.fork(3, seeds=[1, 2, 3]).n_lanes
        3
        """
        if isinstance(lanes, int | np.integer):
            if self.n_lanes != 1:
                raise invalid("lanes", f"say which of the {self.n_lanes} lanes", lanes, "For example lanes=[0, 0].")
            lanes = [0] * check_int("lanes", lanes, at_least=1)
        index = np.array([check_int("lanes", k, at_least=0, at_most=self.n_lanes - 1) for k in lanes], dtype=np.int64)
        recent = [np.insert(self.recent[self.recent[:, 0] == k, 1:], 0, new, axis=1) for new, k in enumerate(index)]
        picked = {name: getattr(self, name)[index].copy() for name in ("seeds", "v", "u", "s", "h", "fed")}
        if seeds is not None:
            picked["seeds"] = as_seeds(seeds, len(index))
        synapses = None if self.synapses is None else self.synapses.fork(index)
        return State(step=self.step, recent=np.concatenate(recent).reshape(-1, 3), synapses=synapses, **picked)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file of numpy's npz format.

        Parameters
        ----------
        path : path-like
            The file; it is replaced once the new one is complete.
        """
        with atomic_write(path) as file:
            arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name != "synapses"}
            np.savez(file, **arrays, **({} if self.synapses is None else self.synapses.arrays()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> State:
        """Read a state that `save` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        ValueError
            If it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {f.name: arrays[f.name] for f in fields(cls) if f.name != "synapses"}
                if "synapses.values" in arrays:
                    found["synapses"] = SynapseState.of_arrays(arrays)
        except (KeyError, ValueError, EOFError) as error:
            raise corrupt_file(path, f"it is no saved state ({error})") from error
        return cls(**found | {"step": int(found["step"])})


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray | SynapseState) else value


def as_seeds(seed: int | Sequence[int], n_lanes: int) -> np.ndarray:
    """Return one seed a lane: of a single number, that one and those that follow.

    Parameters
    ----------
    seed : int or sequence of int
        0 to 2**64 - 1.
    n_lanes : int
        Number of lanes.
    """
    top = 2**64 - 1
    if np.ndim(seed) == 0:
        first = check_int("seed", seed, at_least=0, at_most=top)
        numbers = [(first + k) & top for k in range(n_lanes)]
    else:
        numbers = [check_int("seed", number, at_least=0, at_most=top) for number in seed]
        if len(numbers) != n_lanes:
            raise invalid("seed", f"be one number, or {n_lanes}: one a lane", f"{len(numbers)}")
    return np.array(numbers, dtype=np.uint64)


def initial_state(
    networks: Any,
    n_lanes: int = 1,
    *,
    v: Any = None,
    u: Any = None,
    seed: int | Sequence[int] = 0,
    dtype: Any = np.float64,
) -> State:
    """Return a state to start from: at rest, without synaptic currents.

    Parameters
    ----------
    networks : Reservoir, or sequence of them
        One for all lanes, or one a lane.
    n_lanes : int
        Number of lanes, B.
    v : float or array that broadcasts to (B, N), optional
        Membrane potential, mV; by default -65 in the 2003 form and `v_rest` in the 2007 form.
    u : float or array that broadcasts to (B, N), optional
        Recovery variable; by default where it rests at `v`.
    seed : int or sequence of int
        Seed of the noise: of lane 0, the others get those that follow; or one a lane.
    dtype : dtype
        np.float64 or np.float32.
    """
    nets = list(networks) if isinstance(networks, list | tuple) else [networks] * n_lanes
    first = nets[0]
    n, n_kinds = first.n, len(first.synapses)
    rising = n_kinds if first.synapses[0].rise_ms is not None else 0
    start = np.empty((n_lanes, n))
    rest = np.empty((n_lanes, n))
    for lane, net in enumerate(nets):
        p = net.parameters
        start[lane] = p["v_rest"] if net.form == "2007" else -65.0
        if v is not None:
            start[lane] = np.broadcast_to(np.asarray(v, dtype=np.float64), (n_lanes, n))[lane]
        if net.form == "2007":
            slope = np.where(start[lane] <= p["v_bend"], p["b_below"], p["b"])
            rest[lane] = slope * (start[lane] - p["v_rest"])
        else:
            rest[lane] = p["b"] * start[lane]
    if u is not None:
        rest[:] = np.broadcast_to(np.asarray(u, dtype=np.float64), (n_lanes, n))
    zeros = np.zeros((n_lanes, n), dtype=dtype)
    return State(
        step=0,
        seeds=as_seeds(seed, n_lanes),
        v=start.astype(dtype),
        u=rest.astype(dtype),
        s=np.zeros((n_lanes, n_kinds, n), dtype=dtype),
        h=np.zeros((n_lanes, rising, n), dtype=dtype),
        fed=zeros,
        recent=np.zeros((0, 3), dtype=np.int64),
    )
