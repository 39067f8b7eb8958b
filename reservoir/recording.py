"""What is kept of a run, in memory or on disk, and what can be read from it."""

# T time, B lanes, N neurons, W watched neurons

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_int, check_number, check_option, corrupt_file, explain_os_error, invalid
from reservoir.state import State

__all__ = ["SPIKES", "TRACES", "Record", "Recording", "Sink"]

TRACES = {
    "v": "membrane potential before the reset, cut at the peak, mV",
    "u": "recovery variable before the reset",
    "i_syn": "synaptic current that drove the step, of all kinds of synapses together",
}
SPIKES = {"all": "of every neuron", "watched": "of the neurons named", "none": "none"}
_META = "recording.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """What to keep of a run.

    Parameters
    ----------
    spikes : str
        Whose spikes, a key of `SPIKES`.
    traces : sequence of str
        Which variables, keys of `TRACES`.
    neurons : sequence of int, optional
        The watched neurons, whose traces are kept; by default all.
    every : int
        Keep the traces of those steps whose number this divides, counted from the beginning of the simulation and not
        of the run, so that runs in pieces keep the same steps.
    path : path-like, optional
        A new folder to write to; by default everything stays in memory.
    max_mb : float
        Bound of what is kept, in memory or on disk. A run that would keep more stops with an error: at once if it is
        for the traces, else when the spikes reach it.
    """

    spikes: str = "all"
    traces: Sequence[str] = ()
    neurons: Sequence[int] | None = None
    every: int = 1
    path: str | os.PathLike[str] | None = None
    max_mb: float = 4096.0

    def __post_init__(self) -> None:
        check_option("spikes", self.spikes, SPIKES)
        for name in self.traces:
            check_option("traces", name, TRACES)
        check_int("every", self.every, at_least=1)
        check_number("max_mb", self.max_mb, above=0)

    def watched(self, n: int) -> np.ndarray:
        """Return the watched neurons, ascending.

        Parameters
        ----------
        n : int
            Number of neurons.
        """
        if self.neurons is None:
            return np.arange(n, dtype=np.int64)
        chosen = np.unique(np.array([check_int("neurons", k, at_least=0, at_most=n - 1) for k in self.neurons]))
        if chosen.size != len(self.neurons):
            raise invalid("neurons", "name each neuron once", self.neurons)
        return chosen.astype(np.int64)

    def rows(self, step: int, n_steps: int) -> int:
        """Return how many of the steps have their traces kept.

        Parameters
        ----------
        step, n_steps : int
            The first step, from the beginning of the simulation, and how many there are.
        """
        return -(-(step + n_steps) // self.every) + -step // self.every


class Sink:
    """Takes what a backend produces, chunk by chunk and lane by lane; lanes may come from different threads.

    Parameters
    ----------
    record : Record
        What to keep.
    n, n_lanes, n_steps, step : int
        Neurons, lanes, length of the run, and its first step.
    dt_ms : float
        Time step.
    dtype : dtype
        Of the traces.
    """

    def __init__(
        self, record: Record, *, n: int, n_lanes: int, n_steps: int, step: int, dt_ms: float, dtype: Any
    ) -> None:
        self.record, self.step, self.dt_ms = record, step, dt_ms
        self.n, self.n_lanes, self.n_steps = n, n_lanes, n_steps
        self.watch = record.watched(n)
        self.small = np.dtype(np.uint16 if n < 1 << 16 else np.uint32)
        self._mine = None
        if record.spikes == "watched":
            self._mine = np.zeros(n, dtype=bool)
            self._mine[self.watch] = True
        self._lock = threading.Lock()
        shape = (record.rows(step, n_steps), n_lanes, len(self.watch))
        self._bytes = len(record.traces) * int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._bytes += n_steps * n_lanes * self.small.itemsize if record.spikes != "none" else 0
        self._check_bound(0, "Keep fewer neurons, every 10th step, fewer traces")
        self.folder = None if record.path is None else _new_folder(record.path)
        if self.folder is None:
            self.traces = {name: np.empty(shape, dtype=dtype) for name in record.traces}
            self._spikes: list[list[np.ndarray]] = [[] for _ in range(n_lanes)]
            self._counts: list[list[np.ndarray]] = [[] for _ in range(n_lanes)]
        else:
            self.traces = {
                name: np.lib.format.open_memmap(self.folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
                for name in record.traces
            }
            for lane in range(n_lanes):
                for kind in ("neurons", "counts"):
                    (self.folder / f"{kind}_{lane}.bin").touch()

    @property
    def wants_traces(self) -> bool:
        """Whether any trace is kept."""
        return bool(self.record.traces)

    def _check_bound(self, step: int, advice: str) -> None:
        if self._bytes > self.record.max_mb * 2**20:
            when = f" by {step * self.dt_ms:g} ms" if step else ""
            got = f"a recording of {self._bytes / 2**20:.0f} MB{when}"
            raise invalid("max_mb", "bound what is kept", got, f"{advice}, or raise it from {self.record.max_mb:g}.")

    def put(self, lane: int, step: int, counts: np.ndarray, neurons: np.ndarray) -> None:
        """Keep the spikes of a chunk.

        Parameters
        ----------
        lane : int
            Which lane.
        step : int
            First step of the chunk; only for messages, chunks come in order.
        counts : ndarray of int, shape (steps,)
            Number of spikes of each step.
        neurons : ndarray of int, shape (sum of `counts`,)
            Who spiked, step by step, ascending.
        """
        if self.record.spikes == "none":
            return
        if self._mine is not None:
            keep = self._mine[neurons]
            counts = np.bincount(np.repeat(np.arange(len(counts)), counts)[keep], minlength=len(counts))
            neurons = neurons[keep]
        counts, neurons = counts.astype(self.small), neurons.astype(self.small)
        with self._lock:
            self._bytes += neurons.nbytes
        self._check_bound(step, "Keep fewer spikes, write to a folder by `path`, run for a shorter time")
        if self.folder is None:
            self._counts[lane].append(counts)
            self._spikes[lane].append(neurons)
            return
        for kind, array in (("neurons", neurons), ("counts", counts)):
            path = self.folder / f"{kind}_{lane}.bin"
            try:
                with path.open("ab") as file:
                    array.tofile(file)
            except OSError as error:
                raise explain_os_error("write", path, error) from error

    def finish(self, state: State, clamped: np.ndarray) -> Recording:
        """Return the recording, once all lanes are through.

        Parameters
        ----------
        state : State
            State after the last step.
        clamped : ndarray of int64, shape (B,)
            How often the lower bound of v held.
        """
        meta = {"format": _FORMAT, "n": self.n, "n_lanes": self.n_lanes, "n_steps": self.n_steps, "step": self.step}
        meta |= {"dt_ms": self.dt_ms, "every": self.record.every, "spikes": self.record.spikes}
        meta |= {"watched": self.watch.tolist(), "clamped": clamped.tolist(), "traces": list(self.record.traces)}
        if self.folder is not None:
            for trace in self.traces.values():
                trace.flush()
            return _finish_folder(self.folder, meta, state)
        lanes = range(self.n_lanes)
        empty = [np.zeros(0, dtype=self.small)]
        counts = [np.concatenate(self._counts[lane] or empty) for lane in lanes]
        neurons = []
        for lane in lanes:
            neurons.append(np.concatenate(self._spikes[lane] or empty))
            self._spikes[lane].clear()
        return Recording(meta, counts, neurons, self.traces, state)


class Recording:
    """Spikes and traces of a run.

    Parameters
    ----------
    meta : dict
        Sizes and settings.
    counts : list of ndarray, one a lane, shape (T,)
        Number of spikes of each step.
    neurons : list of ndarray, one a lane
        Who spiked, step by step, ascending.
    traces : dict of str to ndarray of shape (rows, B, W)
        Kept variables of the watched neurons.
    state : State
        State after the last step: pass it to `simulate` to go on.

    Attributes
    ----------
    n, n_lanes, n_steps : int
        Neurons, lanes, time steps.
    step : int
        The first step, counted from the beginning of the simulation.
    dt_ms : float
        Time step.
    watched : ndarray of int64, shape (W,)
        The neurons whose traces are kept.
    clamped : ndarray of int64, shape (B,)
        How often v was held at its lower bound, of all neurons and substeps.
    """

    def __init__(
        self,
        meta: dict[str, Any],
        counts: list[np.ndarray],
        neurons: list[np.ndarray],
        traces: dict[str, np.ndarray],
        state: State,
    ) -> None:
        self._meta, self._counts, self._neurons = meta, counts, neurons
        self.traces, self.state = traces, state
        self.n, self.n_lanes, self.n_steps = meta["n"], meta["n_lanes"], meta["n_steps"]
        self.step, self.dt_ms, self.every = meta["step"], meta["dt_ms"], meta["every"]
        self.watched = np.array(meta["watched"], dtype=np.int64)
        self.clamped = np.array(meta["clamped"], dtype=np.int64)

    def spikes(self, lane: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return when and who, in the order of time and neurons.

        Parameters
        ----------
        lane : int
            Which lane.

        Returns
        -------
        t_ms : ndarray of float64
            Time of each spike since the beginning of the simulation: that of its step.
        neurons : ndarray of int64
            Who spiked.
        """
        steps, neurons = self.spike_steps(lane)
        return steps * self.dt_ms, neurons

    def spike_steps(self, lane: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return step, from the beginning of the simulation, and neuron of each spike.

        Parameters
        ----------
        lane : int
            Which lane.
        """
        self._need_spikes()
        lane = check_int("lane", lane, at_least=0, at_most=self.n_lanes - 1)
        steps = np.repeat(np.arange(self.step, self.step + self.n_steps), self._counts[lane])
        return steps, self._neurons[lane].astype(np.int64)

    def spike_counts(self) -> np.ndarray:
        """Return the number of spikes of each neuron, shape (B, N)."""
        self._need_spikes()
        return np.stack([np.bincount(neurons, minlength=self.n) for neurons in self._neurons])

    def step_counts(self) -> np.ndarray:
        """Return the number of spikes of each step, shape (T, B)."""
        self._need_spikes()
        return np.stack(self._counts, axis=1).astype(np.int64)

    def rates_hz(self) -> np.ndarray:
        """Return the mean rate of each neuron, Hz, shape (B, N)."""
        return self.spike_counts() / max(self.n_steps * self.dt_ms * 1e-3, 1e-300)

    def to_dense(self) -> np.ndarray:
        """Return the spikes as booleans, shape (T, B, N)."""
        self._need_spikes()
        dense = np.zeros((self.n_steps, self.n_lanes, self.n), dtype=bool)
        for lane in range(self.n_lanes):
            steps, neurons = self.spike_steps(lane)
            dense[steps - self.step, lane, neurons] = True
        return dense

    def trace_ms(self) -> np.ndarray:
        """Return the times of the traces, ms since the beginning of the simulation."""
        first = -(-self.step // self.every) * self.every
        return np.arange(first, self.step + self.n_steps, self.every) * self.dt_ms

    def lane(self, lane: int) -> Recording:
        """Return the recording of one lane.

        Parameters
        ----------
        lane : int
            Which lane.
        """
        k = check_int("lane", lane, at_least=0, at_most=self.n_lanes - 1)
        meta = self._meta | {"n_lanes": 1, "clamped": [int(self.clamped[k])]}
        traces = {name: trace[:, k : k + 1] for name, trace in self.traces.items()}
        return Recording(meta, self._counts[k : k + 1], self._neurons[k : k + 1], traces, self.state.lane(k))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recording to a new folder, in the form in which a run writes to disk.

        Parameters
        ----------
        path : path-like
            The folder; it must not exist, or be empty.
        """
        folder = _new_folder(path)
        for lane in range(self.n_lanes):
            for kind, arrays in (("neurons", self._neurons), ("counts", self._counts)):
                (folder / f"{kind}_{lane}.bin").write_bytes(np.ascontiguousarray(arrays[lane]).tobytes())
        for name, trace in self.traces.items():
            np.save(folder / f"{name}.npy", trace)
        _finish_folder(folder, self._meta, self.state)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Open a recording on disk; arrays are read when they are used.

        Parameters
        ----------
        path : path-like
            The folder.

        Raises
        ------
        ValueError
            If it holds no complete recording.
        """
        folder = Path(path)
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
            small = np.dtype(np.uint16 if meta["n"] < 1 << 16 else np.uint32)
            lanes = range(meta["n_lanes"])
            neurons, counts = (
                [_map(folder / f"{kind}_{lane}.bin", small) for lane in lanes] for kind in ("neurons", "counts")
            )
            traces = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in meta["traces"]}
        except (OSError, KeyError, ValueError) as error:
            raise corrupt_file(folder, f"it holds no complete recording ({error})", "Run it again.") from error
        return cls(meta, counts, neurons, traces, State.load(folder / "state.npz"))

    def _need_spikes(self) -> None:
        if self._meta["spikes"] == "none":
            raise invalid("record", "keep spikes", "spikes='none'", "Run again with Record(spikes='all').")

    def __repr__(self) -> str:
        n = sum(len(neurons) for neurons in self._neurons)
        kept = f", {', '.join(self.traces)} of {len(self.watched)}" if self.traces else ""
        return f"Recording({self.n_steps * self.dt_ms:g} ms, {self.n_lanes} x {self.n} neurons, {n} spikes{kept})"


def _new_folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise invalid("path", "be a new or an empty folder", f"{os.fspath(path)!r}, which has files in it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error("make", folder, error) from error
    return folder


def _finish_folder(folder: Path, meta: dict[str, Any], state: State) -> Recording:
    """Write what makes a folder a complete recording, last of all, and open it."""
    state.save(folder / "state.npz")
    with atomic_write(folder / _META, "w") as file:
        json.dump(meta, file)
    return Recording.load(folder)


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    # An empty file cannot be mapped.
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)
