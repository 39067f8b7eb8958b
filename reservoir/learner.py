"""A network that learns what comes, when, and with what probability, and is tested with the cue alone."""

# T time, M trials, B lanes, N neurons, K events, R repetitions

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_number, check_option, invalid
from reservoir.inputs import Inputs, attended, random_for, targets
from reservoir.network import Reservoir, whole_steps
from reservoir.readout import Readout
from reservoir.recording import Record, Recording
from reservoir.rules.base import Lesson, Rule
from reservoir.rules.three_factor import ThreeFactorRule
from reservoir.rules.two_factor import TwoFactorRule
from reservoir.simulate import simulate
from reservoir.state import State, initial_state
from reservoir.stimulus import Stimulus
from reservoir.tasks import PredictionTask, Trials

__all__ = ["READOUTS", "Diverged", "PredictionLearner"]

READOUTS = {
    "factored": "what times when: one readout tells which event, another when; the product is the prediction",
    "merged": "one readout for both, with the event that came as a bump and the others as zero",
}


class Diverged(ValueError):
    """Weights are not finite any more: the learning rate is too high, or the rule unstable."""


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
    reset_state : bool
        Whether each trial begins anew: when its cue comes on, the network is at rest, as `reset` with ``state=True``
        leaves it, and of the trial before only weights are left. The pause before the cue is not simulated then, for
        nothing of it would be left. By default the network runs on from trial to trial, and its state when the cue
        comes is another one each time.
    jitter_mV : float
        Standard deviation of what is added to each v when the state is reset.
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
    inputs : Inputs
        Cues, events and feedback weights of each network.
    state : State or None
        Of the networks, after the last trial.
    clamped : ndarray of int64, shape (B,)
        How often v was held at the lower bound of the network while it was trained. Once in some trials does no harm;
        `reservoir.simulate` warns of it in each run, which is not repeated here.

    Raises
    ------
    Diverged
        From `train`, if weights are not finite any more. It is a ValueError.

    Notes
    -----
    After [1]_: a network whose weights are fixed, a two-factor rule for what, a gated three-factor rule for when, whose
    output is fed back, and their product as prediction, ``max(0, y_k) max(0, z_k(t))``. The constants are this
    project's, for none were published in what was available; those of the time step are for networks with 1 ms. In
    training the lesson is active for the event that comes, from the cue to the end of the trial.

    Cues that are drawn for every neuron excite much the same neurons: the mean activities after two cues have a cosine
    of about 0.7. Several cues are told apart all the same, but take more trials each than one alone, about twice as
    many after a switch.

    With `reset_state` one thing is not asked any more: that a cue brings a network whose state differs each time onto
    the same path. Errors are much the same. Whether [1]_ resets is not known.

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
        reset_state: bool = False,
        jitter_mV: float = 1.0,
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
        self.reset_state, self.jitter_mV = reset_state, check_number("jitter_mV", jitter_mV, at_least=0)
        self.seed = check_int("seed", seed, at_least=0)
        self.backend, self.n_threads = backend, n_threads
        self.inputs = Inputs.draw(
            self.networks, n_cues=self.n_cues, n_events=self.n_events, cue_current=cue_current,
            event_current=event_current, feedback=feedback, seed=self.seed,
        )  # fmt: skip
        n, k = first.n, self.n_events
        self.when = Readout(n, k, tau_ms=tau_ms, feedback=self.inputs.feedback)
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

    def reset(self, *, state: bool = False, weights: bool = False, rule: bool = False) -> None:
        """Set what is named back, and nothing else.

        Parameters
        ----------
        state : bool
            The networks, to rest with v jittered by `jitter_mV`, and all that remembers their activity: the traces, and
            the eligibilities of `ThreeFactorRule`. Noise goes on, so that no trial repeats that of another one.
        weights : bool
            The weights of both readouts, to zero.
        rule : bool
            What the rule keeps, such as the covariance of FORCE.
        """
        if state:
            step = 0 if self.state is None else self.state.step
            seeds = [self.seed + lane for lane in range(self.n_lanes)] if self.state is None else self.state.seeds
            self.state = self._at_rest(self.networks, seeds, step)
            self.when.reset(trace=True)
            if isinstance(self.rule, ThreeFactorRule):
                self.when.memory = np.zeros_like(self.when.memory)
        if weights:
            self.what_weights = np.zeros_like(self.what_weights)
        self.when.reset(weights=weights, rule=rule)

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
        if not self.reset_state:
            self._learn(lists, progress)
            return
        for trial in _with_bar(range(len(first)), progress):
            self.reset(state=True)
            self._learn([_from_cue(own.part(trial, trial + 1)) for own in lists], progress=False)

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
            Pause before the cue; none if the state is reset in each trial.
        seed : int
            Of the noise.

        Returns
        -------
        ndarray, shape (R, T, B, K)
            The predictions.
        """
        r = check_int("n_repeats", n_repeats, at_least=1)
        readout, _ = self._cue_alone(task, cue, r, pause_ms, seed, Record(spikes="none"))
        length = whole_steps(task.trial_ms, self.dt_ms, "trial_ms")
        z = np.maximum(readout.outputs[-length:], 0)
        z = z.reshape(len(z), r, self.n_lanes, self.n_events).transpose(1, 0, 2, 3)
        if self.boxcar_ms is not None:
            z = z * attended(task, self.dt_ms, cue=cue, boxcar_ms=self.boxcar_ms)[None, :, None]
        if self.readout == "merged":
            return z
        mean = readout.averages[:, 0].reshape(r, self.n_lanes, -1)
        y = np.maximum(np.einsum("bkn,rbn->rbk", self.what_weights, mean), 0)
        return z * y[:, None]

    def record(
        self,
        task: PredictionTask,
        *,
        cue: int = 0,
        pause_ms: float = 200.0,
        seed: int = 0,
        record: Record | None = None,
    ) -> Recording:
        """Return what the networks do in a test, with learning off; nothing is changed.

        Parameters
        ----------
        task : PredictionTask
            Length of trial and cue are taken from it.
        cue : int
            Which cue.
        pause_ms : float
            Pause before the cue; none if the state is reset in each trial.
        seed : int
            Of the noise: that of the first repetition of `test` with this seed.
        record : Record, optional
            What to keep; by default all spikes.

        Returns
        -------
        Recording
            A lane for each network; the cue comes on after the pause.
        """
        return self._cue_alone(task, cue, 1, pause_ms, seed, Record() if record is None else record)[1]

    def _learn(self, lists: Sequence[Trials], progress: bool) -> None:
        """Run trials with learning on."""
        first = lists[0]
        target, active = targets(lists, self.dt_ms, boxcar_ms=self.boxcar_ms, all_events=self.readout == "merged")
        lesson = self.rule.teach(
            target, active=active, windows=self._what_windows(first), seed=[self.seed + k for k in range(self.n_lanes)]
        )
        stimulus = Stimulus(first.n_steps * self.dt_ms, pulses=self.inputs.pulses(lists, self.dt_ms, with_events=True))
        try:
            recording = self._run(stimulus, self.when, lesson, self.state, progress)
        except ValueError as error:
            if np.isfinite(self.when.weights).all():
                raise
            raise self._diverged() from error
        if not np.isfinite(self.when.weights).all():
            raise self._diverged()
        self.state = recording.state
        self.clamped += recording.clamped
        for lane, own in enumerate(lists):
            self.what.learn(self.what_weights[lane], self.when.averages[lane], own.event)

    def _diverged(self) -> Exception:
        lanes = np.flatnonzero(~np.isfinite(self.when.weights).all(axis=(1, 2))).tolist()
        advice = "Learning diverged. Lower the rule's `eta`, or raise its `forgetting`."
        return invalid("weights", "stay finite", f"NaN or infinity in networks {lanes}", advice, kind=Diverged)

    def _cue_alone(
        self, task: PredictionTask, cue: int, r: int, pause_ms: float, seed: int, record: Record
    ) -> tuple[Readout, Recording]:
        """Run r tests of each network side by side, lane after lane, on copies of states and readout."""
        self._check_task(task)
        check_int("cue", cue, at_least=0, at_most=self.n_cues - 1)
        n_lanes = self.n_lanes
        trials = _one_trial(task, 0.0 if self.reset_state else pause_ms).trials(dt_ms=self.dt_ms, generator=0)
        trials = replace(trials, cue=np.array([cue]))
        lanes = [lane for _ in range(r) for lane in range(n_lanes)]
        # Far from the seeds of training.
        seeds = [(1 << 40) + (seed << 20) + (self.seed + lane) * 1000 + k for k in range(r) for lane in range(n_lanes)]
        readout = self.when.fork(lanes)
        networks = [self.networks[lane] for lane in lanes]
        state = None if self.state is None else self.state.fork(lanes, seeds=seeds)
        if self.reset_state:
            state = self._at_rest(networks, seeds, 0 if self.state is None else self.state.step)
            readout.reset(trace=True)
        pulses = self.inputs.pulses([trials] * n_lanes, self.dt_ms)
        pulses = [replace(pulse, lane=pulse.lane + k * n_lanes) for pulse in pulses for k in range(r)]
        stimulus = Stimulus(trials.n_steps * self.dt_ms, pulses=pulses)
        lesson = Lesson(windows=self._what_windows(trials))
        return readout, self._run(stimulus, readout, lesson, state, False, networks, seeds, record)

    def _at_rest(self, networks: Sequence[Reservoir], seeds: Sequence[int], step: int) -> State:
        """Return a state at rest, with each v jittered, after as many steps as have been run."""
        seeds = [int(seed) for seed in seeds]
        state = initial_state(list(networks), len(networks), seed=seeds)
        state.step = step
        for v, seed in zip(state.v, seeds, strict=True):
            v += self.jitter_mV * random_for("jitter", seed, step).standard_normal(len(v))
        return state

    def _check_task(self, task: PredictionTask) -> None:
        if task.n_events != self.n_events or task.n_cues != self.n_cues:
            required = f"have {self.n_events} events and {self.n_cues} cues, as the learner has"
            raise invalid("task", required, f"{task.n_events} and {task.n_cues}")
        if self.what_window[1] * self.dt_ms > task.trial_ms:
            raise invalid("what_window_ms", f"end in the trial of {task.trial_ms:g} ms", f"{self.what_window}")

    def _what_windows(self, trials: Trials) -> np.ndarray:
        return trials.start[:, None] + np.array(self.what_window)

    def _run(
        self,
        stimulus: Stimulus,
        readout: Readout,
        lesson: Lesson,
        state: State | None,
        progress: bool,
        networks: Sequence[Reservoir] | None = None,
        seeds: Sequence[int] | None = None,
        record: Record | None = None,
    ) -> Recording:
        if seeds is None and state is None:
            seeds = [self.seed + lane for lane in range(self.n_lanes)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="v was held at v_min")
            return simulate(
                self.networks if networks is None else networks,
                stimulus,
                readout=readout,
                rule=lesson,
                backend=self.backend,
                state=state,
                seed=seeds,
                record=Record(spikes="none") if record is None else record,
                n_threads=self.n_threads,
                progress=progress,
            )


def _with_bar(trials: range, show: bool) -> Any:
    """Return the numbers of trials, with a bar if it is to be shown."""
    if not show:
        return trials
    from tqdm.auto import tqdm

    return tqdm(trials, unit="trial")


def _from_cue(trial: Trials) -> Trials:
    """Return a single trial without the pause before it."""
    return replace(trial, start=trial.start - trial.start[0], end=trial.end - trial.start[0])


def _one_trial(task: PredictionTask, pause_ms: float) -> PredictionTask:
    """Return a task of one trial after a pause, for a test."""
    return PredictionTask(
        task.delays_ms, task.probabilities, n_trials=1, trial_ms=task.trial_ms, pause_ms=(pause_ms, pause_ms),
        sigma_ms=task.sigma_ms, cue_ms=task.cue_ms,
    )  # fmt: skip
