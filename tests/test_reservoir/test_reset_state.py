"""State that is reset in each trial, and what a reset leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerances import close

from reservoir import Reservoir
from reservoir.ablations import noisy
from reservoir.experiment import draw_trials, learning_curves
from reservoir.learner import PredictionLearner
from reservoir.rules import FORCE, ThreeFactorRule
from reservoir.tasks import PredictionTask

TASK = PredictionTask((80.0, 140.0), 0.5, n_trials=4, trial_ms=200.0, pause_ms=(50.0, 60.0))


def learner(n=100, n_lanes=1, *, populations=None, first=0, **options):
    networks = [Reservoir(n, populations=populations, generator=first + lane) for lane in range(n_lanes)]
    return PredictionLearner(networks, 2, n_threads=1, seed=first, **options)


def spikes(own, **options):
    times, neurons = own.record(TASK, **options).spikes()
    return list(zip(times.tolist(), neurons.tolist(), strict=True))


def test_without_noise_jitter_and_feedback_every_trial_is_the_first_one():
    quiet = {"populations": noisy(0.0)(), "feedback": 0.0}
    fixed, running = learner(**quiet, reset_state=True, jitter_mV=0.0), learner(**quiet)
    before = [spikes(own, pause_ms=0.0) for own in (fixed, running)]
    for own in (fixed, running):
        own.train(TASK.trials(dt_ms=1.0, generator=0))
    relative = [(t - fixed.state.step, neuron) for t, neuron in spikes(fixed)]
    assert len(before[0]) > 50
    assert relative == before[0]
    assert [(t - running.state.step, neuron) for t, neuron in spikes(running, pause_ms=0.0)] != before[1]
    # The network does the same in each trial, so its traces after the cue do as well.
    fixed.train(TASK.trials(dt_ms=1.0, generator=1))
    trace = fixed.when.averages[0].copy()
    fixed.train(TASK.trials(dt_ms=1.0, generator=2))
    assert np.array_equal(fixed.when.averages[0], trace)


def test_noise_and_jitter_differ_from_trial_to_trial():
    for options in ({"jitter_mV": 0.0}, {"populations": noisy(0.0)()}):
        own, traces = learner(**options, reset_state=True, feedback=0.0), []
        for _ in range(2):
            own.train(replace(TASK.trials(dt_ms=1.0, generator=0)).part(0, 1))
            traces.append(own.when.averages[0].copy())
        assert not np.array_equal(*traces)


def test_pause_before_a_cue_makes_no_difference():
    trials, weights = TASK.trials(dt_ms=1.0, generator=0), []
    longer = 37 * np.arange(1, len(trials) + 1)
    for own in (trials, replace(trials, start=trials.start + longer, end=trials.end + longer)):
        fixed = learner(reset_state=True)
        fixed.train(own)
        weights.append(fixed.when.weights)
    assert np.array_equal(*weights)
    assert weights[0].any()


@pytest.mark.parametrize("rule", [ThreeFactorRule(), ThreeFactorRule(eta=2e-4, tau_eligibility_ms=50.0), FORCE()])
def test_parts_are_the_whole_and_a_lane_learns_as_alone(rule):
    trials = TASK.trials(dt_ms=1.0, generator=0)
    whole, parts = (learner(n_lanes=2, rule=rule, reset_state=True) for _ in range(2))
    alone = learner(first=1, rule=rule, reset_state=True)
    whole.train(trials)
    alone.train(trials)
    for first, last in ((0, 1), (1, 4)):
        parts.train(trials.part(first, last))
    assert np.array_equal(whole.when.weights, parts.when.weights)
    assert np.array_equal(whole.when.weights[1], alone.when.weights[0])
    assert np.array_equal(whole.what_weights[1], alone.what_weights[0])
    assert np.array_equal(whole.test(TASK, n_repeats=2)[:, :, 1], alone.test(TASK, n_repeats=2)[:, :, 0])


def test_test_changes_nothing():
    own = learner(reset_state=True)
    own.train(TASK.trials(dt_ms=1.0, generator=0))
    v, trace, step = own.state.v.copy(), own.when.trace.copy(), own.state.step
    assert np.array_equal(own.test(TASK, n_repeats=2), own.test(TASK, n_repeats=2))
    assert np.array_equal(own.state.v, v)
    assert np.array_equal(own.when.trace, trace)
    assert own.state.step == step == 4 * 200


@pytest.mark.parametrize("rule", [ThreeFactorRule(eta=2e-4, tau_eligibility_ms=50.0), FORCE()])
def test_reset_sets_back_what_is_named_and_nothing_else(rule):
    own = learner(rule=rule)
    own.train(TASK.trials(dt_ms=1.0, generator=0))
    weights, memory, step = own.when.weights.copy(), own.when.memory.copy(), own.state.step
    own.reset()
    assert own.when.trace.any()
    own.reset(state=True)
    assert np.abs(own.state.v + 65).max() < 6, "at rest, but for the jitter of 1 mV"
    assert 0.8 < own.state.v.std() < 1.2
    assert own.state.step == step
    assert not own.when.trace.any()
    assert np.array_equal(own.when.weights, weights)
    # Eligibilities are of the activity; a covariance is what was learned.
    assert own.when.memory.shape == memory.shape
    assert memory.any()
    assert own.when.memory.any() == isinstance(rule, FORCE)
    own.reset(weights=True)
    assert not own.when.weights.any()
    assert not own.what_weights.any()
    assert own.when.memory.size == memory.size
    own.reset(rule=True)
    assert own.when.memory.size == 0


def test_record_shows_the_test_that_is_scored():
    own = learner(n_lanes=2)
    own.train(TASK.trials(dt_ms=1.0, generator=0))
    found = own.record(TASK, pause_ms=50.0, seed=3).to_dense()
    assert found.shape == (250, 2, 100)
    outputs = own.test(TASK, pause_ms=50.0, seed=3)[0]
    for lane in range(2):
        # The trace of these spikes, weighted by both readouts.
        r, traces = own.when.trace[lane], []
        for spiked in found[:, lane]:
            r = r * np.exp(-1 / 30.0) + spiked
            traces.append(r)
        when = np.array(traces[50:]) @ own.when.weights[lane].T
        what = own.what_weights[lane] @ np.mean(traces[50 + 20 : 50 + 170], axis=0)
        assert outputs[:, lane].any()
        wanted = np.maximum(when, 0) * np.maximum(what, 0)
        close(torch.from_numpy(outputs[:, lane].copy()), torch.from_numpy(wanted))


def test_learns_with_state_reset():
    task = PredictionTask((250.0, 450.0), 0.8)
    found = learning_curves(learner(300, 2, reset_state=True), [task], tests=(0, 10, 100)).rmse[0].mean(axis=1)
    assert found[2] < 0.085
    assert found[2] < found[1] < found[0]


def test_trials_of_a_block_are_the_same_with_and_without_reset():
    fixed, running = (draw_trials(learner(reset_state=on), [TASK])[0] for on in (True, False))
    assert np.array_equal(fixed.start, running.start)
    assert np.array_equal(fixed.event, running.event)
