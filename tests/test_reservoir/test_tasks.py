"""The prediction task: its statistics, its truth, its scores, and what it refuses."""

import numpy as np
import pytest

from reservoir.tasks import PredictionTask, nrmse, rmse, standard_blocks


def test_zero_output_scores_what_the_integral_of_the_bumps_says():
    truth = PredictionTask((250.0, 450.0), 0.8).truth(dt_ms=1.0)
    exact = np.sqrt((0.8**2 + 0.2**2) * 25 * np.sqrt(np.pi) / (2 * 700))
    assert abs(rmse(np.zeros((700, 2)), truth) - exact) < 1e-12
    assert round(exact, 4) == 0.1467
    assert nrmse(np.zeros((700, 2)), truth) == 1
    assert rmse(truth, truth) == 0


def test_truth_peaks_at_the_delays_with_the_probabilities():
    task = PredictionTask((120.0, 300.0, 500.0), (0.5, 0.2, 0.1))
    truth = task.truth(dt_ms=0.5)
    assert truth.shape == (1400, 3)
    assert (truth.argmax(axis=0) * 0.5).tolist() == [120.0, 300.0, 500.0]
    assert truth.max(axis=0).tolist() == [0.5, 0.2, 0.1]
    assert task.truth(dt_ms=0.5, kind="timing").max(axis=0).tolist() == [1, 1, 1]
    # One standard deviation away.
    assert np.isclose(truth[int(145 / 0.5), 0], 0.5 * np.exp(-0.5))


@pytest.mark.parametrize("p", [0.0, 0.07, 0.5, 0.8, 1.0])
def test_stratified_block_holds_each_event_as_often_as_its_probability_says(p):
    for seed in range(5):
        event = PredictionTask((250.0, 450.0), p).trials(dt_ms=1.0, generator=seed).event
        assert np.bincount(event, minlength=2).tolist() == [round(100 * p), 100 - round(100 * p)]


def test_rest_of_the_probability_is_omissions_and_rounding_leaves_no_trial_out():
    task = PredictionTask((100.0, 200.0, 300.0), (1 / 3, 1 / 3, 1 / 6), n_trials=10)
    event = task.trials(dt_ms=1.0, generator=0).event
    counts = [int((event == k).sum()) for k in (0, 1, 2, -1)]
    assert sum(counts) == 10
    assert counts[:2] == [3, 3]
    assert sorted(counts[2:]) == [2, 2]


def test_drawn_events_have_the_probabilities_and_vary():
    task = PredictionTask((250.0, 450.0), 0.8, stratified=False)
    shares = [(task.trials(dt_ms=1.0, generator=seed).event == 0).mean() for seed in range(200)]
    # The standard deviation of the share in a hundred trials is 0.04.
    assert abs(np.mean(shares) - 0.8) < 4 * 0.04 / np.sqrt(200)
    assert abs(np.std(shares) - 0.04) < 0.008


def test_trials_follow_each_other_with_pauses_in_their_range():
    trials = PredictionTask((250.0, 450.0), 0.8).trials(dt_ms=0.5, generator=3)
    pauses = trials.start - np.concatenate([[0], trials.end[:-1]])
    assert pauses.min() >= 400
    assert pauses.max() <= 1000
    assert len(np.unique(pauses)) > 50
    assert (trials.end - trials.start == 1400).all()
    assert trials.n_steps == trials.end[-1]


def test_parts_of_trials_are_the_whole_again():
    trials = PredictionTask((250.0, 450.0), 0.8, n_trials=10).trials(dt_ms=1.0, generator=3)
    begin, starts, events = 0, [], []
    for first, last in ((0, 1), (1, 4), (4, 10)):
        part = trials.part(first, last)
        starts.extend(part.start + begin)
        events.extend(part.event)
        begin += part.n_steps
    assert starts == trials.start.tolist()
    assert events == trials.event.tolist()
    assert begin == trials.n_steps


def test_every_cue_has_its_own_statistics():
    task = PredictionTask([(250.0, 450.0), (300.0, 600.0)], [(0.8, 0.2), (0.0, 0.5)])
    trials = task.trials(dt_ms=1.0, generator=0)
    assert np.bincount(trials.cue).tolist() == [50, 50]
    first, second = trials.event[trials.cue == 0], trials.event[trials.cue == 1]
    assert [int((first == k).sum()) for k in (0, 1, -1)] == [40, 10, 0]
    assert [int((second == k).sum()) for k in (0, 1, -1)] == [0, 25, 25]
    assert task.truth(dt_ms=1.0, cue=1).argmax(axis=0)[1] == 600
    assert "250 ms: 0.8, 450 ms: 0.2; 300 ms: 0, 600 ms: 0.5" in repr(task)


def test_same_seed_gives_the_same_block_and_global_generators_stay(global_rng_untouched):
    task = PredictionTask((250.0, 450.0), 0.8)
    one, other = (task.trials(dt_ms=1.0, generator=7) for _ in range(2))
    assert np.array_equal(one.event, other.event)
    assert np.array_equal(one.start, other.start)
    assert not np.array_equal(one.event, task.trials(dt_ms=1.0, generator=8).event)


def test_switch_changes_what_is_named_and_keeps_the_rest():
    task = PredictionTask((250.0, 450.0), 0.8, sigma_ms=10.0, n_trials=7, trial_ms=600.0, pause_ms=(1.0, 2.0))
    other = task.switch(delays_ms=(100.0, 200.0))
    assert other.delays_ms.tolist() == [[100.0, 200.0]]
    for name in ("n_trials", "trial_ms", "pause_ms", "sigma_ms", "cue_ms", "event_ms", "stratified"):
        assert getattr(other, name) == getattr(task, name)
    assert np.array_equal(other.probabilities, task.probabilities)
    blocks = standard_blocks(task)
    assert [block.delays_ms[0, 0] for block in blocks] == [250.0, 350.0, 350.0, 250.0]
    assert [block.probabilities[0, 0].round(3) for block in blocks] == [0.8, 0.8, 0.2, 0.8]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PredictionTask((250.0, 450.0), 1.2),
            r"`probabilities` must be a finite number >= 0 and <= 1, got 1.2",
        ),
        (lambda: PredictionTask((250.0, 450.0), (0.7, -0.1)), r"`probabilities` must be a finite number >= 0"),
        (lambda: PredictionTask((250.0, 450.0), (0.7, 0.4)), r"`probabilities` must add up to at most 1"),
        (lambda: PredictionTask((250.0, 450.0), (0.7,)), r"`probabilities` must have shape \(1, 2\), got \(1, 1\)"),
        (lambda: PredictionTask((250.0, 300.0, 350.0), 0.7), r"`probabilities` must hold one number for each of the 3"),
        (lambda: PredictionTask((250.0, 701.0), 0.8), r"`delays_ms` must be a finite number >= 0 and <= 700, got 701"),
        (lambda: PredictionTask((-1.0, 450.0), 0.8), r"`delays_ms` must be a finite number >= 0 and <= 700, got -1"),
        (lambda: PredictionTask((250.0, 450.0), 0.8, pause_ms=(5.0, 4.0)), r"`pause_ms` must be a finite number >= 5"),
        (lambda: PredictionTask((250.0, 450.0), 0.8, sigma_ms=0.0), r"`sigma_ms` must be a finite number > 0"),
        (
            lambda: PredictionTask((250.0, 450.0), 0.8).trials(dt_ms=0.3),
            r"`trial_ms` must be a multiple of the time step, 0.3 ms, got 700",
        ),
        (
            lambda: PredictionTask((250.0, 450.0), 0.8, cue_ms=50.5).trials(dt_ms=1.0),
            r"`cue_ms` must be a multiple of the time step, 1 ms, got 50.5",
        ),
        (lambda: PredictionTask((250.0, 450.0), 0.8).truth(dt_ms=1.0, kind="what"), r"`kind` must be one of"),
        (lambda: PredictionTask((250.0, 450.0), 0.8).truth(dt_ms=1.0, cue=1), r"`cue` must be a whole number"),
        (lambda: nrmse(np.zeros((5, 2)), np.zeros((5, 2))), r"`truth` must differ from 0 somewhere"),
    ],
)
def test_task_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_delay_at_the_edges_of_the_trial_and_no_trial_are_fine():
    task = PredictionTask((0.0, 700.0), 1.0, n_trials=0)
    assert task.truth(dt_ms=1.0)[0].tolist()[0] == 1.0
    assert len(task.trials(dt_ms=1.0)) == task.trials(dt_ms=1.0).n_steps == 0
