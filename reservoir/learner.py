"""A network that learns what comes, when, and with what probability, and is tested with the cue alone."""

# T time, M trials, B lanes, N neurons, K events, R repetitions

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroloaders.checks import check_finite, check_int, check_number, check_option, invalid
from reservoir.network import Reservoir, whole_steps
from reservoir.readout import Readout
from reservoir.recording import Record
from reservoir.rules.base import Lesson, Rule
from reservoir.rules.three_factor import ThreeFactorRule
from reservoir.rules.two_factor import TwoFactorRule
from reservoir.simulate import simulate
from reservoir.state import State
from reservoir.stimulus import Pulse, Stimulus
from reservoir.tasks import PredictionTask, Trials

__all__ = ["READOUTS", "PredictionLearner"]

READOUTS = {
    "factored": "what times when: one readout tells which event, another when; the product is the prediction",
    "merged": "one readout for both, with the event that came as a bump and the others as zero",
}
# What random numbers are drawn for; part of the seed, so that no two purposes share them.
_CUES, _EVENTS, _FEEDBACK = range(3)


class PredictionLearner:
    r"""A network that learns the prediction task, with the readouts that learn it.

    Several networks learn side by side, as lanes, each with cues, feedback, events and noise of its own.

    Parameters
    ----------
    networks : Reservoir, or sequence of them
        One a lane.
    n_events : int
        Number of events, K.
    n_cues : int
        Number of cues.
    rule : Rule
        How the readout of timing learns, at each step.
    what : TwoFactorRule
        How the readout of identity learns, at the end of each trial.
    readout : str
        A key of `READOUTS`.
    boxcar_ms : float, optional
        Learn only within so many ms of the event, and count outputs only there: with ``ThreeFactorRule(gate="open")``
        the literal reading of a gate that is open in the latency window. By default the whole trial after the cue.
    tau_ms : float
        Time constant of the traces.
    feedback : float
        Size of the current that the timing outputs feed back; 0 opens the loop.
    cue_current : float
        The pulse of a cue is drawn for each neuron between 0 and this.
    event_current : float
        An event is a pulse into a fifth of the excitatory neurons, drawn for each between 0 and this. With 0, events
        teach without driving the network.
    what_window_ms : tuple of float
        When after the onset of the cue the trace is averaged to tell what comes.
    seed : int
        Of everything that is drawn, for lane 0; other lanes have those that follow.
    backend : str
        A key of `reservoir.BACKENDS`.
    n_threads : int, optional
        As for `reservoir.simulate`.

    Attributes
    ----------
    when : Readout
        The readout of timing; `when.weights` has shape (B, K, N).
    what_weights : ndarray, shape (B, K, N)
        Weights of the readout of identity.
    state : State or None
        Of the networks, after the last trial.
    clamped : ndarray of int64, shape (B,)
        How often v was held at the lower bound of the network while it was trained. Once in some trials does no harm;
        `reservoir.simulate` warns of it in each run, which is not repeated here.

    Raises
    ------
    ValueError
        From `train`, if weights are not finite any more: the learning rate is too high.

    Notes
    -----
    After [1]_: a network whose weights are fixed, a two-factor rule for what, a gated three-factor rule for when, whose
    output is fed back, and their product as prediction, ``max(0, y_k) max(0, z_k(t))``. The constants are this
    project's, for none were published in what was available; those of the time step are for networks with 1 ms. In
    training the lesson is active for the event that comes, from the cue to the end of the trial.

    References
    ----------
    .. [1] Yamada & Chao, arXiv:2510.14382.

    Examples
    --------
    >>> task = PredictionTask((100.0, 200.0), 0.8, trial_ms=300.0, n_trials=2)
    >>> learner = PredictionLearner(Reservoir(50, generator=0), 2)
    >>> learner.train(task.trials(dt_ms=1.0, generator=0))
    >>> learner.test(task, n_repeats=3).shape
    (3, 300, 1, 2)
    """

    def __init__(
        self,
        networks: Reservoir | Sequence[Reservoir],
        n_events: int,
        *,
        n_cues: int = 1,
        rule: Rule | None = None,
        what: TwoFactorRule | None = None,
        readout: str = "factored",
        boxcar_ms: float | None = None,
        tau_ms: float = 30.0,
        feedback: float = 1.0,
        cue_current: float = 40.0,
        event_current: float = 0.0,
        what_window_ms: tuple[float, float] = (20.0, 170.0),
        seed: int = 0,
        backend: str = "numba",
        n_threads: int | None = None,
    ) -> None:
        self.networks = (networks,) if isinstance(networks, Reservoir) else tuple(networks)
        if not self.networks:
            raise invalid("networks", "hold at least one Reservoir", "none")
        first, n_lanes = self.networks[0], len(self.networks)
        self.n_events = check_int("n_events", n_events, at_least=1)
        self.n_cues = check_int("n_cues", n_cues, at_least=1)
        self.rule = ThreeFactorRule() if rule is None else rule
        self.what = TwoFactorRule() if what is None else what
        self.readout = check_option("readout", readout, READOUTS)
        self.boxcar_ms = None if boxcar_ms is None else check_number("boxcar_ms", boxcar_ms, above=0)
        start, stop = (whole_steps(time, first.dt_ms, "what_window_ms") for time in what_window_ms)
        if start >= stop:
            raise invalid("what_window_ms", "be (start, stop) with start before stop", what_window_ms)
        self.what_window = (start, stop)
        self.seed = check_int("seed", seed, at_least=0)
        self.backend, self.n_threads = backend, n_threads
        check_number("cue_current", cue_current)
        check_number("event_current", event_current)
        check_number("feedback", feedback, at_least=0)
        n, k = first.n, self.n_events
        self.cues, self.events, fed = [], [], []
        for lane, net in enumerate(self.networks):
            rng = self._source(_CUES, lane)
            self.cues.append([cue_current * rng.random(n) for _ in range(self.n_cues)])
            rng = self._source(_EVENTS, lane)
            self.events.append([event_current * _fifth(net, rng) * rng.random(n) for _ in range(k)])
            fed.append(feedback * self._source(_FEEDBACK, lane).uniform(-1, 1, (n, k)))
        self.drives = event_current != 0
        self.when = Readout(n, k, tau_ms=tau_ms, feedback=np.array(fed))
        self.what_weights = np.zeros((n_lanes, k, n))
        self.state: State | None = None
        self.clamped = np.zeros(n_lanes, dtype=np.int64)

    @property
    def n_lanes(self) -> int:
        """Number of networks, B."""
        return len(self.networks)

    @property
    def dt_ms(self) -> float:
        """Time step of the networks."""
        return self.networks[0].dt_ms

    def _source(self, purpose: int, lane: int) -> np.random.Generator:
        return np.random.default_rng([self.seed + lane, purpose])

    def train(self, trials: Trials | Sequence[Trials], *, progress: bool = False) -> None:
        """Learn from trials, and go on from where the last ones ended.

        Parameters
        ----------
        trials : Trials, or sequence of them
            The same for all networks, or one a network, whose cues come at the same times.
        progress : bool
            Show a bar.
        """
        lists = [trials] * self.n_lanes if isinstance(trials, Trials) else list(trials)
        first = lists[0] if lists else None
        same = [np.array_equal(one.start, first.start) and np.array_equal(one.end, first.end) for one in lists]
        if len(lists) != self.n_lanes or not all(same):
            required = f"be one, or {self.n_lanes} with the same times"
            raise invalid("trials", required, f"{len(lists)}", "Use dataclasses.replace(trials, start=..., end=...).")
        self._check_task(first.task)
        if not len(first):
            return
        length = whole_steps(first.task.trial_ms, self.dt_ms, "trial_ms")
        if first.end[0] - first.start[0] != length:
            got = f"trials of {first.end[0] - first.start[0]} steps instead of {length}"
            raise invalid("trials", f"be drawn with the time step of the networks, {self.dt_ms:g} ms", got)
        shape = (first.n_steps, self.n_lanes, self.n_events)
        target, active = np.zeros(shape), np.zeros(shape)
        for lane, own in enumerate(lists):
            bumps = [own.task.bumps(dt_ms=self.dt_ms, cue=cue) for cue in range(self.n_cues)]
            windows = [self._attended(own.task, cue) for cue in range(self.n_cues)]
            for start, end, cue, event in zip(own.start, own.end, own.cue, own.event, strict=True):
                if self.readout == "merged":
                    active[start:end, lane] = windows[cue]
                elif event >= 0:
                    active[start:end, lane, event] = windows[cue][:, event]
                if event >= 0:
                    target[start:end, lane, event] = bumps[cue][:, event]
        lesson = self.rule.teach(
            target, active=active, windows=self._what_windows(first), seed=[self.seed + k for k in range(self.n_lanes)]
        )
        stimulus = Stimulus(first.n_steps * self.dt_ms, pulses=self._pulses(lists, with_events=True))
        self.state, clamped = self._run(stimulus, self.when, lesson, self.state, progress)
        self.clamped += clamped
        check_finite("weights", self.when.weights, advice="Learning diverged. Lower the rule's `eta`.")
        for lane, own in enumerate(lists):
            self.what.learn(self.what_weights[lane], self.when.averages[lane], own.event)

    def test(
        self, task: PredictionTask, *, cue: int = 0, n_repeats: int = 1, pause_ms: float = 200.0, seed: int = 0
    ) -> np.ndarray:
        """Return what is predicted after a cue alone, with learning off; nothing is changed.

        Parameters
        ----------
        task : PredictionTask
            Length of trial and cue are taken from it.
        cue : int
            Which cue.
        n_repeats : int
            How often, R, from the same state with other noise.
        pause_ms : float
            Pause before the cue.
        seed : int
            Of the noise.

        Returns
        -------
        ndarray, shape (R, T, B, K)
            The predictions.
        """
        self._check_task(task)
        check_int("cue", cue, at_least=0, at_most=self.n_cues - 1)
        r, n_lanes = check_int("n_repeats", n_repeats, at_least=1), self.n_lanes
        quiet = _one_trial(task, pause_ms)
        trials = replace(quiet.trials(dt_ms=self.dt_ms, generator=0), cue=np.array([cue]))
        lanes = [lane for _ in range(r) for lane in range(n_lanes)]
        # Far from the seeds of training.
        seeds = [(1 << 40) + (seed << 20) + (self.seed + lane) * 1000 + k for k in range(r) for lane in range(n_lanes)]
        readout = self.when.fork(lanes)
        networks = [self.networks[lane] for lane in lanes]
        state = None if self.state is None else self.state.fork(lanes, seeds=seeds)
        pulses = [replace(p, lane=p.lane + k * n_lanes) for p in self._pulses([trials] * n_lanes) for k in range(r)]
        stimulus = Stimulus(trials.n_steps * self.dt_ms, pulses=pulses)
        self._run(stimulus, readout, Lesson(windows=self._what_windows(trials)), state, False, networks, seeds)
        z = np.maximum(readout.outputs[trials.start[0] :], 0)
        z = z.reshape(len(z), r, n_lanes, self.n_events).transpose(1, 0, 2, 3)
        if self.boxcar_ms is not None:
            z = z * self._attended(task, cue)[None, :, None]
        if self.readout == "merged":
            return z
        mean = readout.averages[:, 0].reshape(r, n_lanes, -1)
        y = np.maximum(np.einsum("bkn,rbn->rbk", self.what_weights, mean), 0)
        return z * y[:, None]

    def _check_task(self, task: PredictionTask) -> None:
        if task.n_events != self.n_events or task.n_cues != self.n_cues:
            required = f"have {self.n_events} events and {self.n_cues} cues, as the learner has"
            raise invalid("task", required, f"{task.n_events} and {task.n_cues}")
        if self.what_window[1] * self.dt_ms > task.trial_ms:
            raise invalid("what_window_ms", f"end in the trial of {task.trial_ms:g} ms", f"{self.what_window}")

    def _attended(self, task: PredictionTask, cue: int) -> np.ndarray:
        """Return where a trial may be learned from, shape (T, K)."""
        t_ms = np.arange(whole_steps(task.trial_ms, self.dt_ms, "trial_ms"))[:, None] * self.dt_ms
        if self.boxcar_ms is None:
            return np.ones((len(t_ms), self.n_events))
        return (np.abs(t_ms - task.delays_ms[cue]) < self.boxcar_ms).astype(np.float64)

    def _what_windows(self, trials: Trials) -> np.ndarray:
        return trials.start[:, None] + np.array(self.what_window)

    def _pulses(self, lists: Sequence[Trials], *, with_events: bool = False) -> list[Pulse]:
        pulses, dt = [], self.dt_ms
        for lane, trials in enumerate(lists):
            cues, task = self.cues[lane], trials.task
            for start, cue, event in zip(trials.start * dt, trials.cue, trials.event, strict=True):
                pulses.append(Pulse(start, start + task.cue_ms, cues[cue], lane))
                if with_events and self.drives and event >= 0:
                    onset = start + task.delays_ms[cue, event]
                    pulses.append(Pulse(onset, onset + task.event_ms, self.events[lane][event], lane))
        return pulses

    def _run(
        self,
        stimulus: Stimulus,
        readout: Readout,
        lesson: Lesson,
        state: State | None,
        progress: bool,
        networks: Sequence[Reservoir] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[State, np.ndarray]:
        if seeds is None and state is None:
            seeds = [self.seed + lane for lane in range(self.n_lanes)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="v was held at v_min")
            recording = simulate(
                self.networks if networks is None else networks,
                stimulus,
                readout=readout,
                rule=lesson,
                backend=self.backend,
                state=state,
                seed=seeds,
                record=Record(spikes="none"),
                n_threads=self.n_threads,
                progress=progress,
            )
        return recording.state, recording.clamped


def _one_trial(task: PredictionTask, pause_ms: float) -> PredictionTask:
    """Return a task of one trial after a pause, for a test."""
    return PredictionTask(
        task.delays_ms, task.probabilities, n_trials=1, trial_ms=task.trial_ms, pause_ms=(pause_ms, pause_ms),
        sigma_ms=task.sigma_ms, cue_ms=task.cue_ms,
    )  # fmt: skip


def _fifth(net: Reservoir, rng: np.random.Generator) -> np.ndarray:
    """Return 1 for a random fifth of the neurons that excite, else 0."""
    who = np.flatnonzero(net.signs >= 0)
    chosen = np.zeros(net.n)
    chosen[rng.permutation(who)[: round(0.2 * len(who))]] = 1.0
    return chosen
