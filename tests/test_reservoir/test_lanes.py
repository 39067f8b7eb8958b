"""Lanes on threads: who goes on with which lane, and that no number depends on it."""

import threading
from collections import Counter

import numpy as np
import pytest

from reservoir import (
    PredictionLearner,
    PredictionTask,
    Pulse,
    Record,
    Reservoir,
    Stimulus,
    learning_curves,
    simulate,
)
from reservoir.backends import numba as numba_backend
from reservoir.backends.turns import _Turns, work_through


class Counted:
    """A lane of so many chunks that writes down when it was gone on with, and on which desk."""

    def __init__(self, n_chunks):
        self.n_chunks, self.t, self.desks = n_chunks, 0, []

    @property
    def is_done(self):
        return self.t >= self.n_chunks

    def advance(self, desk):
        self.t += 1
        self.desks.append(desk)


class Desk:
    closed = 0

    def close(self):
        self.closed += 1


def rounds(lanes, n_threads):
    """Let threads work at the same pace; return how many chunks each of them does, one after the other."""
    turns = _Turns(lanes, n_threads)
    places = [turns.next(None) for _ in range(n_threads)]
    count = 0
    while any(places):
        for number, entry in enumerate(places):
            if entry is not None:
                entry[-1].advance(number)
        # All chunks end before the next ones begin; the threads come back in another order each time.
        for number in sorted(range(n_threads), key=lambda k: (k + count) % n_threads):
            if places[number] is not None:
                places[number] = turns.next(places[number])
        count += 1
    assert all(lane.is_done and lane.t == lane.n_chunks for lane in lanes)
    return count


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("n_lanes", [1, 2, 3, 5, 7, 64])
def test_threads_end_together(n_threads, n_lanes):
    # No schedule does better than all threads at work, or one lane from beginning to end.
    best = max(-(-n_lanes * 40 // n_threads), 40)
    assert best <= rounds([Counted(40) for _ in range(n_lanes)], n_threads) <= best + 2


def test_a_thread_stays_with_its_lane_while_there_are_others():
    lanes = [Counted(40) for _ in range(64)]
    rounds(lanes, 2)
    assert sum(len(set(lane.desks)) > 1 for lane in lanes) == 0
    # Those that run at the same time are far apart in memory.
    turns = _Turns(lanes := [Counted(1) for _ in range(64)], 2)
    first, second = turns.next(None), turns.next(None)
    assert abs(lanes.index(first[-1]) - lanes.index(second[-1])) == 32


def test_each_thread_has_a_desk_of_its_own_that_is_closed():
    desks = []

    def make():
        desks.append(Desk())
        return desks[-1]

    lanes = [Counted(100) for _ in range(9)]
    work_through(lanes, 3, make)
    assert all(lane.is_done for lane in lanes)
    assert [desk.closed for desk in desks] == [1, 1, 1]


def test_the_error_of_the_first_lane_is_raised_and_the_others_stop():
    both = threading.Barrier(2)

    class Broken(Counted):
        def advance(self, desk):
            if self.n_chunks > 1:
                both.wait(30)
            raise ValueError(f"lane of {self.n_chunks}")

    with pytest.raises(ValueError, match="lane of 3"):
        work_through([Broken(3), Broken(2)], 2, Desk)
    with pytest.raises(ValueError, match="lane of 1"):
        work_through([Counted(1 << 60), Broken(1)], 2, Desk)
    with pytest.raises(ValueError, match="lane of 1"):
        work_through([Counted(3), Broken(1)], 1, Desk)


# --- the real loop ------------------------------------------------------------------------------------------------


def learn(n_threads, chunk_steps=None, n_lanes=5):
    networks = [Reservoir(120, gain=0.5 + 0.2 * k, generator=k) for k in range(n_lanes)]
    task = PredictionTask((80.0, 140.0), 0.5, n_trials=4, trial_ms=200.0, pause_ms=(50.0, 80.0))
    learner = PredictionLearner(networks, 2, n_threads=n_threads)
    curves = learning_curves(learner, [task, task.switch(probabilities=0.9)], tests=(0, 2, 4), n_repeats=3)
    return curves, learner


def test_learning_on_lanes_does_not_depend_on_threads():
    want, alone = learn(1)
    for n_threads in (2, 3, 8):
        found, learner = learn(n_threads)
        for name in ("rmse", "outputs", "when_weights", "what_weights"):
            assert np.array_equal(getattr(found, name), getattr(want, name)), (name, n_threads)
        for name in ("v", "u", "s", "fed"):
            assert np.array_equal(getattr(learner.state, name), getattr(alone.state, name)), (name, n_threads)


def test_lanes_that_change_threads_give_the_same_spikes_and_traces(monkeypatch):
    nets = [Reservoir(150, generator=k, delay_ms=3.0) for k in range(3)]
    pulses = [Pulse(5.0, 60.0, 10.0 + lane, lane) for lane in range(3)]
    record = Record(traces=("v", "i_syn"), neurons=[0, 77], every=3)

    def run(n_threads, chunk_steps):
        return simulate(
            nets, Stimulus(400.0, pulses=pulses), seed=3, record=record, n_threads=n_threads, chunk_steps=chunk_steps
        )

    want = run(1, 1000)
    workers, chunks, advance = {}, Counter(), numba_backend._Lane.advance
    # Both threads do their first chunks at the same pace, of which there are 93 in all.
    meeting = threading.Barrier(2)

    def watched(lane, desk):
        me = threading.get_ident()
        workers.setdefault(lane.lane, set()).add(me)
        chunks[me] += 1
        if chunks[me] <= 40:
            meeting.wait(30)
        advance(lane, desk)

    monkeypatch.setattr(numba_backend._Lane, "advance", watched)
    got = run(2, 13)
    assert any(len(workers[lane]) == 2 for lane in range(3)), "no lane went from one thread to the other"
    for lane in range(3):
        for a, b in zip(got.spike_steps(lane), want.spike_steps(lane), strict=True):
            assert np.array_equal(a, b)
    for name in ("v", "i_syn"):
        assert np.array_equal(got.traces[name], want.traces[name])
    assert np.array_equal(got.state.recent, want.state.recent)


def test_a_neuron_that_is_not_finite_stops_all_lanes_and_is_named():
    nets = [Reservoir(50, generator=0), Reservoir(50, generator=1), Reservoir(50, generator=2)]
    stimulus = Stimulus(300.0, pulses=[Pulse(100.0, 101.0, 1e308, lane=1)])
    with pytest.raises(ValueError, match=r"neuron 0 of lane 1 that is not, at 10\d ms"):
        simulate(nets, stimulus, n_threads=2, chunk_steps=10)


def test_a_run_of_no_steps_changes_nothing():
    recording = simulate(Reservoir(50, generator=0), 0.0, batch=3, n_threads=2)
    assert recording.state.step == 0
    assert recording.n_lanes == 3
