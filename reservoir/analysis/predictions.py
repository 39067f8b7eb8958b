"""Predictions as objects: what is expected, when, and with what probability, read from a run after the cue alone."""

# T time, B lanes, N neurons, K events

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloaders.checks import check_finite, check_int, check_number, invalid
from reservoir.inputs import attended
from reservoir.network import whole_steps
from reservoir.recording import Recording
from reservoir.tasks import PredictionTask

if TYPE_CHECKING:
    from reservoir.learner import PredictionLearner

__all__ = ["PredictionObject", "prediction_object", "replay_predictions"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionObject:
    """What is predicted, when, and with what probability.

    Attributes
    ----------
    delays_ms : ndarray, shape (K,) or (B, K)
        When each event is expected: where the prediction is largest; NaN if it is 0 throughout.
    probabilities : ndarray, shape (K,) or (B, K)
        How large the prediction is there.
    true_delays_ms, true_probabilities : ndarray of shape (K,), or None
        Those of the task, if one was given. Nothing of the prediction is read with their help.
    """

    delays_ms: np.ndarray
    probabilities: np.ndarray
    true_delays_ms: np.ndarray | None = None
    true_probabilities: np.ndarray | None = None

    @property
    def expected(self) -> np.ndarray:
        """Number of the event that is most probable, -1 if none is predicted; shape () or (B,)."""
        return np.where(self.probabilities.max(axis=-1) > 0, self.probabilities.argmax(axis=-1), -1)


def prediction_object(
    recording: Recording | np.ndarray,
    task: PredictionTask | None = None,
    *,
    learner: PredictionLearner | None = None,
    cue: int = 0,
    dt_ms: float | None = None,
) -> PredictionObject:
    """Read what, when and how likely from a run after the cue alone.

    Parameters
    ----------
    recording : Recording, or array of shape (T, K) or (T, B, K)
        What the networks of `learner` did in a test, as ``learner.record(task)`` returns it; or predictions, such as
        ``learner.test(task).mean(axis=0)``.
    task : PredictionTask, optional
        The task; it may be left out for an array.
    learner : PredictionLearner, optional
        Whose readouts predict; for a recording, which holds spikes and no weights.
    cue : int
        Which cue came.
    dt_ms : float, optional
        Time step, for an array; by default that of `learner`.

    Returns
    -------
    PredictionObject
        With a row for each lane, but for an array (T, K).

    Raises
    ------
    TypeError, ValueError
        If what is needed was not given, or does not fit.

    Examples
    --------
    >>> from reservoir import PredictionLearner, PredictionTask, Reservoir
    >>> task = PredictionTask((250.0, 450.0), 0.8)
    >>> prediction_object(task.truth(dt_ms=1.0), task, dt_ms=1.0).delays_ms.tolist()
    [250.0, 450.0]
    >>> learner = PredictionLearner(Reservoir(50, generator=0), 2)
    >>> prediction_object(learner.record(task), task, learner=learner).expected.tolist()
    [-1]
    """
    if isinstance(recording, Recording):
        if task is None or learner is None:
            missing = "no `task`" if task is None else "no `learner`"
            raise invalid("recording", "come with the task, and the learner whose weights read it", missing)
        outputs, dt_ms = replay_predictions(recording, task, learner=learner, cue=cue), recording.dt_ms
    else:
        outputs = np.asarray(recording)
        if outputs.ndim not in (2, 3) or 0 in outputs.shape:
            required = "be a Recording, or an array of shape (T, K) or (T, B, K)"
            raise invalid("recording", required, f"shape {outputs.shape}")
        check_finite("recording", outputs)
        if dt_ms is None and learner is None:
            raise invalid("dt_ms", "be given for an array", "None")
        dt_ms = learner.dt_ms if dt_ms is None else check_number("dt_ms", dt_ms, above=0)
    truth = {}
    if task is not None:
        check_int("cue", cue, at_least=0, at_most=task.n_cues - 1)
        if outputs.shape[-1] != task.n_events:
            raise invalid("task", f"have {outputs.shape[-1]} events, as what is predicted", f"{task.n_events}")
        if len(outputs) != whole_steps(task.trial_ms, dt_ms, "trial_ms"):
            got = f"{len(outputs)} steps"
            raise invalid("recording", f"last a trial of the task, {task.trial_ms:g} ms of {dt_ms:g} ms", got)
        truth = {"true_delays_ms": task.delays_ms[cue].copy(), "true_probabilities": task.probabilities[cue].copy()}
    height = outputs.max(axis=0)
    return PredictionObject(
        delays_ms=np.where(height > 0, outputs.argmax(axis=0) * dt_ms, np.nan),
        probabilities=np.maximum(height, 0),
        **truth,
    )


def replay_predictions(
    recording: Recording, task: PredictionTask, *, learner: PredictionLearner, cue: int = 0
) -> np.ndarray:
    """Compute from spikes alone what the readouts of a learner predicted in a test.

    Parameters
    ----------
    recording : Recording
        What ``learner.record(task)`` returned, or that of another test of the same length, with a lane for each network
        of `learner`. Its last `trial_ms` are the trial.
    task : PredictionTask
        The task.
    learner : PredictionLearner
        Whose readouts predict, in the state in which the test began: it must not have learned since.
    cue : int
        Which cue came.

    Returns
    -------
    ndarray, shape (T, B, K)
        As ``learner.test(task, n_repeats=1)`` gives it for the same noise, but for rounding.

    Examples
    --------
    >>> from reservoir import PredictionLearner, PredictionTask, Reservoir
    >>> task = PredictionTask((100.0, 200.0), 0.8, trial_ms=300.0, n_trials=2)
    >>> learner = PredictionLearner(Reservoir(50, generator=0), 2)
    >>> learner.train(task.trials(dt_ms=1.0, generator=0))
    >>> outputs = replay_predictions(learner.record(task), task, learner=learner)
    >>> bool(np.allclose(outputs, learner.test(task)[0], rtol=1e-9, atol=1e-12))
    True
    """
    _check_learner(recording, task, learner)
    check_int("cue", cue, at_least=0, at_most=task.n_cues - 1)
    dt_ms, n_trial = recording.dt_ms, whole_steps(task.trial_ms, recording.dt_ms, "trial_ms")
    if recording.n_steps < n_trial:
        got = f"{recording.n_steps * dt_ms:g} ms"
        raise invalid("recording", f"last at least a trial, {task.trial_ms:g} ms", got, "Use learner.record(task).")
    decay = np.exp(-dt_ms / learner.when.kernel_shape.tau_ms)
    first, last = learner.what_window
    outputs = np.zeros((n_trial, recording.n_lanes, task.n_events))
    from scipy.signal import lfilter

    for lane in range(recording.n_lanes):
        spikes = recording.lane(lane).to_dense()[:, 0].astype(np.float64)
        before = np.zeros(recording.n) if learner.reset_state else learner.when.trace[lane]
        trace, _ = lfilter([1.0], [1.0, -decay], spikes, axis=0, zi=decay * before[None])
        trace = trace[-n_trial:]
        when = np.maximum(trace @ learner.when.weights[lane].T, 0)
        if learner.readout == "factored":
            what = np.maximum(learner.what_weights[lane] @ trace[first:last].mean(axis=0), 0)
            when = what * when
        outputs[:, lane] = when
    if learner.boxcar_ms is not None:
        outputs *= attended(task, dt_ms, cue=cue, boxcar_ms=learner.boxcar_ms)[:, None]
    return outputs


def _check_learner(recording: Any, task: PredictionTask, learner: Any) -> None:
    if not isinstance(recording, Recording):
        raise invalid("recording", "be a Recording", recording, "Use learner.record(task).", kind=TypeError)
    if not hasattr(learner, "what_weights"):
        raise invalid("learner", "be a PredictionLearner", learner, kind=TypeError)
    if task.n_events != learner.n_events or task.n_cues != learner.n_cues:
        required = f"have {learner.n_events} events and {learner.n_cues} cues, as the learner has"
        raise invalid("task", required, f"{task.n_events} and {task.n_cues}")
    n, n_lanes, dt_ms = learner.networks[0].n, learner.n_lanes, learner.dt_ms
    if (recording.n, recording.n_lanes, recording.dt_ms) != (n, n_lanes, dt_ms):
        required = f"be of the networks of `learner`: {n_lanes} x {n} neurons, {dt_ms:g} ms"
        got = f"{recording.n_lanes} x {recording.n} neurons, {recording.dt_ms:g} ms"
        raise invalid("recording", required, got, "Use learner.record(task).")
