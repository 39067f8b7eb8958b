"""Beyond two events after one cue: more events, omissions, several cues, and switches of everything at once."""

import numpy as np
import pytest

from reservoir import Reservoir
from reservoir.experiment import amplitudes, draw_trials, learning_curves
from reservoir.learner import PredictionLearner
from reservoir.tasks import PredictionTask

# Of 300 neurons. The mean over trials of y has a standard deviation of 0.08 at p = 0.5, of the mean of four 0.04; bumps
# come out up to a tenth too low.
NEAR, NEAR_MS = 0.15, 15


def learner(n_events, n_networks=4, n_cues=1):
    networks = [Reservoir(300, generator=seed) for seed in range(n_networks)]
    return PredictionLearner(networks, n_events, n_cues=n_cues, n_threads=1)


def predicted(own, task, cue=0):
    """Return amplitude and time of the mean prediction of several networks, each of shape (K,)."""
    outputs = own.test(task, cue=cue, n_repeats=4).mean(axis=(0, 2))
    return amplitudes(outputs, task, dt_ms=1.0, cue=cue)


def trained(task):
    own = learner(task.n_events, n_cues=task.n_cues)
    own.train(draw_trials(own, [task] * own.n_lanes))
    return own


@pytest.mark.parametrize(
    ("delays_ms", "probabilities"),
    [((200.0, 350.0, 500.0), (0.5, 0.3, 0.2)), ((150.0, 270.0, 390.0, 510.0, 630.0), (0.4, 0.1, 0.3, 0.1, 0.1))],
)
def test_three_and_five_events_are_predicted_with_their_probabilities_at_their_delays(delays_ms, probabilities):
    task = PredictionTask(delays_ms, probabilities)
    amplitude, peak_ms = predicted(trained(task), task)
    assert np.abs(amplitude - probabilities).max() < NEAR
    # What comes ten times in a hundred trials has its time learned less well.
    often = np.array(probabilities) >= 0.3
    assert np.abs(peak_ms - delays_ms)[often].max() < NEAR_MS
    assert np.abs(peak_ms - delays_ms).max() < 2 * NEAR_MS
    assert np.corrcoef(amplitude, probabilities)[0, 1] > 0.9


def test_amplitude_follows_how_often_the_only_event_comes_at_all():
    levels = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    tasks = [PredictionTask((300.0,), (p,)) for p in np.repeat(levels, 2)]
    own = learner(1, len(tasks))
    own.train(draw_trials(own, tasks))
    outputs = own.test(tasks[0], n_repeats=4).mean(axis=0)[:, :, 0].reshape(700, len(levels), 2).mean(axis=2)
    amplitude = outputs[225:376].max(axis=0)
    assert amplitude[0] == 0
    assert np.abs(amplitude - levels).max() < NEAR
    assert (np.diff(amplitude) > 0).all()


def test_cues_that_announce_the_same_events_are_told_apart_by_their_probabilities():
    task = PredictionTask([(250.0, 450.0)] * 2, [(0.9, 0.1), (0.3, 0.7)], n_trials=200)
    own = trained(task)
    for cue in (0, 1):
        amplitude, peak_ms = predicted(own, task, cue)
        # A cue learns from its own trials, but its trace overlaps with that of the other one.
        assert np.abs(amplitude - task.probabilities[cue]).max() < 0.2
        often = task.probabilities[cue] >= 0.3
        assert np.abs(peak_ms - task.delays_ms[cue])[often].max() < NEAR_MS


def test_after_a_switch_of_delays_and_probabilities_the_new_ones_are_predicted_and_the_old_ones_are_not():
    before = PredictionTask((200.0, 400.0), 0.8)
    after = before.switch(delays_ms=(350.0, 600.0), probabilities=0.3)
    own = learner(2)
    curves = learning_curves(own, [before, after], tests=(0, 100))
    old = curves.outputs[0, 0].mean(axis=1)
    new = curves.outputs[1, 0].mean(axis=1)
    amplitude, peak_ms = amplitudes(new, after, dt_ms=1.0)
    assert np.abs(amplitude - (0.3, 0.7)).max() < NEAR
    assert np.abs(peak_ms - (350, 600)).max() < NEAR_MS
    assert old[200, 0] > 0.6
    assert new[200, 0] < 0.2 * old[200, 0], "the old expectation is extinguished"
    error = curves.rmse[1].mean(axis=1)
    assert error[1] < 0.6 * error[0]


def test_two_cues_may_switch_together_and_need_more_trials_than_one():
    task = PredictionTask([(200.0, 400.0), (300.0, 500.0)], [(1.0, 0.0), (0.0, 1.0)], n_trials=300)
    own = learner(2, n_networks=2, n_cues=2)
    swapped = task.switch(probabilities=task.probabilities[::-1])
    curves = learning_curves(own, [task, swapped], tests=(0, 300), n_repeats=2)
    assert curves.outputs.shape == (2, 2, 700, 2, 2)
    error = curves.rmse[1].mean(axis=1)
    assert error[1] < 0.6 * error[0]
    for cue in (0, 1):
        amplitude, _ = amplitudes(curves.outputs[1, cue].mean(axis=1), swapped, dt_ms=1.0, cue=cue)
        assert amplitude[1 - cue] > 0.5, "what comes now"
        assert amplitude[cue] < 0.2, "what came before"
