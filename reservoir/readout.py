"""Readouts: traces of the spikes, weighted sums of them, learning, and feedback into the network."""

# T time, B lanes, N neurons, K outputs, W windows

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_finite, check_int, check_number, corrupt_file, invalid
from reservoir.backends.spec import Plan
from reservoir.network import random_source
from reservoir.rules.base import Lesson, Rule
from reservoir.state import as_seeds
from reservoir.wiring import Synapse

__all__ = ["Readout"]

# What is kept from step to step, of every lane.
_KEPT = ("weights", "feedback", "trace", "rising")


class Readout:
    r"""Linear readout of a network, whose weights a rule may change while the network runs.

    A run changes the readout: weights, traces and what the rule keeps go on where the last run ended. `copy` before a
    run keeps what was there.

    Parameters
    ----------
    n : int
        Number of neurons that it reads, N.
    n_outputs : int
        Number of outputs, K.
    tau_ms : float
        Time constant of the traces.
    rise_ms : float, optional
        Rise of the traces, for a double exponential of area 1 ms. Without it a spike adds 1.
    feedback : float, or array of shape (N, K) or (B, N, K)
        Current that each output sends to each neuron, per unit of output; of a number Q, drawn between -Q and Q. 0: the
        loop is open.
    clip : tuple of float
        Bounds of what is fed back; they keep a run stable while little is learned.
    every : int
        Keep the outputs of those steps whose number this divides, counted from the beginning of the simulation.
    generator : numpy.random.Generator, torch.Generator, or int
        Source of the feedback weights.

    Attributes
    ----------
    weights : ndarray of float64, shape (B, K, N)
        Weights; zero at the beginning. May be overwritten. B is 1, or that of `feedback`, until the first run with
        more lanes, each of which then has its own.
    feedback : ndarray of float64, shape (B, N, K)
        Feedback weights.
    trace, rising : ndarray of float64, shape (B, N)
        Traces, and what feeds them where they rise.
    memory : ndarray of float64, shape (B, M)
        What the rule keeps; `reset` clears it, and so does a rule with other settings. A run without a rule does not.
    outputs : ndarray of float64, shape (T, B, K)
        What the last run gave: the outputs before they were clipped.
    averages : ndarray of float64, shape (B, W, N)
        Mean trace in each window of the last run's lesson.

    Notes
    -----
    A trace follows :math:`r \leftarrow r\,e^{-dt/\tau} + s`, with spikes s of the step; outputs are :math:`z = W r` of
    the same step. The double exponential takes the steps of [2]_: ``r = r e_rise + h dt; h = h e_decay + s / (rise
    tau)``. Feedback acts in the next step: ``I_i += sum_k E_ik clip(z_k)``. All of it is float64 on every backend and
    the same function does it, so one and the same spikes give the same numbers.

    The constants are those that work for the prediction task; [1]_ gives none.

    References
    ----------
    .. [1] Yamada & Chao, arXiv:2510.14382.
    .. [2] Nicola & Clopath, Nature Communications 8 (2017), doi:10.1038/s41467-017-01827-3.

    Examples
    --------
    >>> from reservoir import Reservoir, simulate
    >>> readout = Readout(100, 2, feedback=1.0, generator=0)
    >>> recording = simulate(Reservoir(100, generator=0), 50.0, readout=readout)
    >>> readout.outputs.shape
    (50, 1, 2)
    """

    def __init__(
        self,
        n: int,
        n_outputs: int,
        *,
        tau_ms: float = 30.0,
        rise_ms: float | None = None,
        feedback: float | np.ndarray = 0.0,
        clip: tuple[float, float] = (-0.5, 1.5),
        every: int = 1,
        generator: Any = None,
    ) -> None:
        self.n = check_int("n", n, at_least=1)
        self.n_outputs = check_int("n_outputs", n_outputs, at_least=1)
        self.kernel_shape = Synapse(check_number("tau_ms", tau_ms, above=0), rise_ms)
        self.clip = (check_number("clip", clip[0], finite=False), check_number("clip", clip[1], finite=False))
        if self.clip[0] > self.clip[1]:
            raise invalid("clip", "be (lowest, highest)", clip)
        self.every = check_int("every", every, at_least=1)
        self.feedback = self._feedback(feedback, generator)
        n_lanes = len(self.feedback)
        self.weights = np.zeros((n_lanes, self.n_outputs, self.n))
        self.trace, self.rising = np.zeros((n_lanes, self.n)), np.zeros((n_lanes, self.n))
        self.memory = np.zeros((n_lanes, 0))
        self.outputs = np.zeros((0, n_lanes, self.n_outputs))
        self.averages = np.zeros((n_lanes, 0, self.n))
        # Whose memory it is: another rule begins with a memory of its own.
        self._rule: Rule | None = None

    def _feedback(self, feedback: Any, generator: Any) -> np.ndarray:
        shape = (self.n, self.n_outputs)
        if np.ndim(feedback) == 0:
            size = check_number("feedback", feedback, at_least=0)
            return size * random_source(generator).uniform(-1, 1, (1, *shape)) if size else np.zeros((1, *shape))
        array = check_finite("feedback", np.array(feedback, dtype=np.float64))
        if array.shape[-2:] != shape or array.ndim > 3:
            raise invalid(
                "feedback", f"be a number or have shape {shape} or (B, {self.n}, {self.n_outputs})", f"{array.shape}"
            )
        return array.reshape(-1, *shape)

    @property
    def n_lanes(self) -> int:
        """Number of lanes, B."""
        return len(self.weights)

    def copy(self) -> Readout:
        """Return a copy that shares no memory with this one."""
        return self.fork(range(self.n_lanes))

    def fork(self, lanes: Sequence[int]) -> Readout:
        """Return a readout whose lanes are copies of lanes of this one, as `State.fork` does for the network.

        Parameters
        ----------
        lanes : sequence of int
            Which lanes.
        """
        index = [check_int("lanes", lane, at_least=0, at_most=self.n_lanes - 1) for lane in lanes]
        other = Readout.__new__(Readout)
        other.__dict__.update(self.__dict__)
        for name in (*_KEPT, "memory", "averages"):
            setattr(other, name, getattr(self, name)[index].copy())
        other.outputs = self.outputs[:, index].copy()
        return other

    def reset(self, *, weights: bool = False, trace: bool = False, rule: bool = False) -> None:
        """Set what is named back to where it began.

        Parameters
        ----------
        weights : bool
            The weights, to zero.
        trace : bool
            The traces, to zero.
        rule : bool
            What the rule keeps, such as the covariance of recursive least squares.
        """
        if weights:
            self.weights = np.zeros_like(self.weights)
        if trace:
            self.trace, self.rising = np.zeros_like(self.trace), np.zeros_like(self.rising)
        if rule:
            self.memory, self._rule = np.zeros((self.n_lanes, 0)), None

    def loop_part(self, rule: Any, plan: Plan) -> _Part:
        """Return what the loop calls, for one run; `reservoir.simulate` asks for it.

        Parameters
        ----------
        rule : Lesson or None
            What to learn and how; None: nothing.
        plan : Plan
            The run.
        """
        if rule is None:
            rule = Lesson()
        if isinstance(rule, Rule):
            raise invalid("rule", "know what it is to learn", rule, "Pass rule.teach(target).")
        if not isinstance(rule, Lesson):
            raise invalid("rule", "be a Lesson, such as ThreeFactorRule().teach(target)", rule, kind=TypeError)
        if plan.n != self.n:
            raise invalid("readout", f"read {plan.n} neurons, as many as the network has", f"{self.n}")
        self._spread(plan.n_lanes)
        if rule.rule is not None and rule.rule != self._rule:
            fresh = rule.rule.memory(self.n, self.n_outputs)
            self.memory, self._rule = np.tile(fresh, (plan.n_lanes, 1)), rule.rule
        return _Part(self, rule, plan)

    def _spread(self, n_lanes: int) -> None:
        """Give every lane of a run its own copy of a readout that has one lane."""
        weights = self.weights
        if weights.ndim != 3 or weights.shape[1:] != (self.n_outputs, self.n):
            raise invalid("weights", f"have shape (B, {self.n_outputs}, {self.n})", f"{np.shape(weights)}")
        if len(weights) not in (1, n_lanes):
            advice = "readout.fork([...]) chooses and copies lanes."
            raise invalid("readout", f"have 1 lane, or the {n_lanes} of the run", f"{len(weights)}", advice)
        for name in (*_KEPT, "memory"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if len(array) != n_lanes:
                array = np.repeat(array, n_lanes, axis=0)
            setattr(self, name, np.ascontiguousarray(array))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights, traces, feedback and the rule's memory to a file of numpy's npz format.

        Parameters
        ----------
        path : path-like
            The file; it is replaced once the new one is complete.
        """
        with atomic_write(path) as file:
            np.savez(file, **{name: getattr(self, name) for name in (*_KEPT, "memory")})

    def load(self, path: str | os.PathLike[str], *, rule: Rule | None = None) -> None:
        """Take over what `save` wrote, into a readout made with the same settings.

        Parameters
        ----------
        path : path-like
            The file.
        rule : Rule, optional
            The rule whose memory the file holds, to go on with it. Without it the rule begins anew.

        Raises
        ------
        ValueError
            If it is no such file, or of another size.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in (*_KEPT, "memory")}
        except (KeyError, ValueError, EOFError) as error:
            raise corrupt_file(path, f"it is no saved readout ({error})") from error
        if found["weights"].shape[1:] != (self.n_outputs, self.n):
            reason = f"its weights are of shape {found['weights'].shape}, not (B, {self.n_outputs}, {self.n})"
            raise corrupt_file(path, reason, "Make a readout of that size.")
        wanted = 0 if rule is None else rule.memory(self.n, self.n_outputs).size
        if rule is not None and found["memory"].shape[1] != wanted:
            reason = f"it keeps {found['memory'].shape[1]} numbers for the rule, which needs {wanted}"
            raise corrupt_file(path, reason, "Pass the rule that it was trained with.")
        for name, array in found.items():
            setattr(self, name, array)
        self._rule = rule
        if rule is None:
            self.reset(rule=True)

    def __repr__(self) -> str:
        tau, lanes = self.kernel_shape.tau_ms, f", {self.n_lanes} lanes" if self.n_lanes > 1 else ""
        loop = "closed loop" if self.feedback.any() else "open loop"
        return f"Readout({self.n} neurons -> {self.n_outputs} outputs, tau {tau:g} ms, {loop}{lanes})"


class _Part:
    """A readout in one run: the arrays, and a table of their addresses for each lane."""

    def __init__(self, readout: Readout, lesson: Lesson, plan: Plan) -> None:
        # What loads numba is imported where a run begins.
        from reservoir import readout_kernel as places

        self.kernel = places.compiled_readout()
        self.address = self.kernel.address
        n, k, n_lanes, dt_ms = readout.n, readout.n_outputs, plan.n_lanes, plan.networks[0].dt_ms
        shape, every = readout.kernel_shape, readout.every
        decay, slow = shape.decays(dt_ms)
        numbers = np.array([decay, slow, shape.scale, dt_ms, *readout.clip])
        rows = -(-(plan.start + plan.n_steps) // every) + -plan.start // every
        outputs, z = np.zeros((n_lanes, rows, k)), np.zeros((n_lanes, k))
        arrays, windows = lesson.arrays(plan.n_steps, n_lanes, k), lesson.windows_of(plan.n_steps, n_lanes)
        averages = np.zeros((n_lanes, len(windows[0]), n))
        feedback = np.ascontiguousarray(readout.feedback.transpose(0, 2, 1))
        rule: Rule | None = lesson.rule
        rule_numbers = np.zeros(0) if rule is None else np.ascontiguousarray(rule.numbers(n, dt_ms), dtype=np.float64)
        self.rule_kernel = None if rule is None else rule.kernel
        seeds = as_seeds(lesson.seed, n_lanes)
        self.table = np.zeros((n_lanes, places.SIZE), dtype=np.int64)
        self.table[:, [places.N, places.K, places.EVERY, places.N_WINDOWS]] = n, k, every, len(windows[0])
        self.table[:, places.RISES] = shape.rise_ms is not None
        self.table[:, places.SINGLE] = plan.dtype == np.float32
        self.table[:, places.SEED] = seeds.view(np.int64)
        self.table[:, places.NUMBERS] = numbers.ctypes.data
        if rule is not None:
            self.table[:, places.RULE] = self.rule_kernel.address
            self.table[:, places.RULE_NUMBERS] = rule_numbers.ctypes.data
            self.table[:, places.N_NUMBERS] = rule_numbers.size
            self.table[:, places.N_MEMORY] = readout.memory.shape[1]
        for lane, row in enumerate(self.table):
            target, active = arrays[lane]
            for place, array in (
                (places.TRACE, readout.trace[lane]),
                (places.RISING, readout.rising[lane]),
                (places.WEIGHTS, readout.weights[lane]),
                (places.Z, z[lane]),
                (places.FEEDBACK, feedback[lane] if feedback[lane].any() else None),
                (places.TARGET, target),
                (places.ACTIVE, active),
                (places.OUTPUTS, outputs[lane]),
                (places.AVERAGES, averages[lane]),
                (places.WINDOWS, windows[lane]),
                (places.RULE_MEMORY, readout.memory[lane]),
            ):
                row[place] = 0 if array is None else array.ctypes.data
        # The table holds addresses only: these keep what is behind them alive.
        self.kept = (numbers, outputs, z, arrays, windows, averages, feedback, rule_numbers, readout.weights)
        self.kept += (readout.trace, readout.rising, readout.memory)
        readout.outputs, readout.averages = outputs.transpose(1, 0, 2), averages

    def context(self, lane: int) -> int:
        """Return the address of the lane's table."""
        return self.table[lane].ctypes.data

    def chunk(self, lane: int, t: int, n_steps: int) -> None:
        """Do nothing: there is room for all outputs."""

    def step(self, lane: int, step: int, t: int, spiked: np.ndarray, fed: np.ndarray) -> None:
        """Call the compiled function from Python: one function for every backend, so that numbers are the same."""
        spiked = np.ascontiguousarray(spiked, dtype=np.int32)
        context = np.array(
            [step, t, len(spiked), spiked.ctypes.data, fed.ctypes.data, len(fed), self.context(lane), 0], dtype=np.int64
        )
        self.kernel.ctypes(context.ctypes.data_as(ctypes.POINTER(ctypes.c_int64)))
