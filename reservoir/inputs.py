"""What networks of an experiment receive, cues, events and feedback, drawn for each network; and what it is taught."""

# T time, B lanes, N neurons, K events

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroloaders.checks import check_number, check_option
from reservoir.network import Reservoir, whole_steps
from reservoir.stimulus import Pulse
from reservoir.tasks import PredictionTask, Trials

__all__ = ["PURPOSES", "Inputs", "attended", "random_for", "targets"]

# What random numbers are drawn for; part of the seed, so that no two purposes share them.
PURPOSES = {"cues": 0, "events": 1, "feedback": 2, "trials": 3, "jitter": 4}


def random_for(purpose: str, seed: int, number: int = 0) -> np.random.Generator:
    """Return the random numbers of one network for one purpose.

    Parameters
    ----------
    purpose : str
        A key of `PURPOSES`.
    seed : int
        Of the network.
    number : int
        Which of several draws for this purpose.
    """
    check_option("purpose", purpose, PURPOSES)
    return np.random.default_rng([seed, PURPOSES[purpose], number])


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What each network receives.

    Attributes
    ----------
    cues : list of list of ndarray of shape (N,)
        Current of each cue, by network.
    events : list of list of ndarray of shape (N,)
        Current of each event, by network.
    feedback : ndarray, shape (B, N, K)
        Feedback weights.
    """

    cues: list[list[np.ndarray]]
    events: list[list[np.ndarray]]
    feedback: np.ndarray

    @classmethod
    def draw(
        cls,
        networks: Sequence[Reservoir],
        *,
        n_cues: int,
        n_events: int,
        cue_current: float,
        event_current: float,
        feedback: float,
        seed: int,
    ) -> Inputs:
        """Draw what each network receives.

        Parameters
        ----------
        networks : sequence of Reservoir
            The networks.
        n_cues, n_events : int
            Numbers of cues and events.
        cue_current : float
            A cue is drawn for each neuron between 0 and this.
        event_current : float
            An event goes into a fifth of the excitatory neurons, drawn for each between 0 and this.
        feedback : float
            Feedback weights are drawn between minus this and this.
        seed : int
            Of the first network; the others have those that follow.
        """
        check_number("cue_current", cue_current)
        check_number("event_current", event_current)
        check_number("feedback", feedback, at_least=0)
        cues, events, fed = [], [], []
        for own, net in enumerate(networks, start=seed):
            rng = random_for("cues", own)
            cues.append([cue_current * rng.random(net.n) for _ in range(n_cues)])
            rng = random_for("events", own)
            events.append([event_current * _fifth(net, rng) * rng.random(net.n) for _ in range(n_events)])
            fed.append(feedback * random_for("feedback", own).uniform(-1, 1, (net.n, n_events)))
        return cls(cues=cues, events=events, feedback=np.array(fed))

    def pulses(self, lists: Sequence[Trials], dt_ms: float, *, with_events: bool = False) -> list[Pulse]:
        """Return the currents of trials.

        Parameters
        ----------
        lists : sequence of Trials
            Those of each network.
        dt_ms : float
            Time step.
        with_events : bool
            The events as well, where their current is not 0.
        """
        pulses = []
        for lane, trials in enumerate(lists):
            cues, events, task = self.cues[lane], self.events[lane], trials.task
            for start, cue, event in zip(trials.start * dt_ms, trials.cue, trials.event, strict=True):
                pulses.append(Pulse(start, start + task.cue_ms, cues[cue], lane))
                if with_events and event >= 0 and events[event].any():
                    onset = start + task.delays_ms[cue, event]
                    pulses.append(Pulse(onset, onset + task.event_ms, events[event], lane))
        return pulses


def attended(task: PredictionTask, dt_ms: float, *, cue: int = 0, boxcar_ms: float | None = None) -> np.ndarray:
    """Return where a trial may be learned from: 1, or 0 far from the event; shape (T, K).

    Parameters
    ----------
    task : PredictionTask
        Gives the length of a trial and the delays.
    dt_ms : float
        Time step.
    cue : int
        Which cue.
    boxcar_ms : float, optional
        How near to the event; by default all of the trial.
    """
    t_ms = np.arange(whole_steps(task.trial_ms, dt_ms, "trial_ms"))[:, None] * dt_ms
    if boxcar_ms is None:
        return np.ones((len(t_ms), task.n_events))
    return (np.abs(t_ms - task.delays_ms[cue]) < boxcar_ms).astype(np.float64)


def targets(
    lists: Sequence[Trials], dt_ms: float, *, boxcar_ms: float | None = None, all_events: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the readout of timing is taught.

    Parameters
    ----------
    lists : sequence of Trials
        Those of each network.
    dt_ms : float
        Time step.
    boxcar_ms : float, optional
        Learn only so near to an event.
    all_events : bool
        Learn as well that the events that did not come are 0; else nothing is learned of them.

    Returns
    -------
    target, active : ndarray, shape (T, B, K)
        The bump of the event that comes, and where to learn.
    """
    task = lists[0].task
    target = np.zeros((lists[0].n_steps, len(lists), task.n_events))
    active = np.zeros_like(target)
    for lane, own in enumerate(lists):
        bumps = [own.task.bumps(dt_ms=dt_ms, cue=cue) for cue in range(task.n_cues)]
        windows = [attended(own.task, dt_ms, cue=cue, boxcar_ms=boxcar_ms) for cue in range(task.n_cues)]
        for start, end, cue, event in zip(own.start, own.end, own.cue, own.event, strict=True):
            if all_events:
                active[start:end, lane] = windows[cue]
            elif event >= 0:
                active[start:end, lane, event] = windows[cue][:, event]
            if event >= 0:
                target[start:end, lane, event] = bumps[cue][:, event]
    return target, active


def _fifth(net: Reservoir, rng: np.random.Generator) -> np.ndarray:
    """Return 1 for a random fifth of the neurons that excite, else 0."""
    who = np.flatnonzero(net.signs >= 0)
    chosen = np.zeros(net.n)
    chosen[rng.permutation(who)[: round(0.2 * len(who))]] = 1.0
    return chosen
