"""Readouts inside the loop: traces, feedback, windows, lanes, and the same numbers on every backend."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from tolerances import close

from reservoir import Izhikevich, Record, Reservoir, Stimulus, Synapse, simulate
from reservoir.backends import calls
from reservoir.readout import Readout
from reservoir.rules import FORCE, Lesson, ThreeFactorRule

N = 80


def net(seed=0, dt_ms=1.0):
    return Reservoir(N, generator=seed, p_connect=0.2, dt_ms=dt_ms)


def loop(n_outputs=2, **options):
    """A readout whose feedback drives the network."""
    readout = Readout(N, n_outputs, feedback=8.0, generator=0, **options)
    readout.weights = np.random.default_rng(1).standard_normal((1, n_outputs, N)) * 0.1
    return readout


def test_trace_is_the_sum_of_decayed_spikes():
    readout = Readout(N, 1, tau_ms=20.0)
    spikes = simulate(net(), 300.0, readout=readout).to_dense()[:, 0]
    age = np.arange(299, -1, -1.0)
    close(torch.from_numpy(readout.trace[0]), torch.from_numpy(np.exp(-age / 20.0) @ spikes))


def test_trace_of_a_double_exponential_has_the_area_of_the_published_steps():
    dt, rise, tau = 0.5, 2.0, 20.0
    readout = Readout(N, 1, tau_ms=tau, rise_ms=rise)
    readout.weights[:] = 1.0
    recording = simulate(net(dt_ms=dt), 400.0, readout=readout)
    fast, slow = Synapse(tau, rise).decays(dt)
    kernel, r, h = [], 0.0, 1 / (rise * tau)
    kernel.append(0.0)
    for _ in range(800):
        r, h = r * fast + h * dt, h * slow
        kernel.append(r)
    assert abs(np.sum(kernel) * dt - dt**2 / (rise * tau * (1 - fast) * (1 - slow))) < 1e-6
    counts = recording.step_counts()[:, 0].astype(float)
    want = np.convolve(counts, kernel)[:800]
    close(torch.from_numpy(readout.outputs[:, 0, 0].copy()), torch.from_numpy(want))


def test_output_is_the_weighted_sum_of_the_traces_of_the_same_step():
    readout = loop(3, tau_ms=15.0)
    readout.feedback[:] = 0
    spikes = simulate(net(), 200.0, readout=readout).to_dense()[:, 0]
    r = np.zeros((200, N))
    for t in range(200):
        r[t] = (r[t - 1] * np.exp(-1 / 15.0) if t else 0) + spikes[t]
    close(torch.from_numpy(readout.outputs[:, 0].copy()), torch.from_numpy(r @ readout.weights[0].T))


def test_feedback_is_the_clipped_output_of_the_step_before():
    readout = loop(2, clip=(-0.2, 0.1))
    closed = simulate(net(), 300.0, readout=readout)
    z = readout.outputs[:, 0]
    assert z.min() < -0.2
    assert z.max() > 0.1
    current = np.zeros((300, N))
    # Added output by output, from left to right, as the loop does.
    for k in range(2):
        current[1:] += np.clip(z[:-1, k, None], -0.2, 0.1) * readout.feedback[:, :, k]
    replayed = simulate(net(), Stimulus(current=current))
    assert np.array_equal(closed.to_dense(), replayed.to_dense())
    assert not np.array_equal(closed.to_dense(), simulate(net(), 300.0).to_dense())


@pytest.mark.parametrize("backend", ["torch", pytest.param("brian2", marks=pytest.mark.reference)])
def test_every_backend_learns_to_the_same_bits(backend):
    def run(backend):
        readout, before = loop(2), calls[backend]
        rule = FORCE(every_ms=2.0) if backend == "torch" else ThreeFactorRule()
        lesson = rule.teach(np.full((200, 2), 0.5), windows=[(20, 70), (90, 200)])
        recording = simulate(net(), 200.0, readout=readout, rule=lesson, backend=backend, chunk_steps=37)
        assert calls[backend] == before + 1
        return recording, readout

    rule = FORCE(every_ms=2.0) if backend == "torch" else ThreeFactorRule()
    reference = loop(2)
    lesson = rule.teach(np.full((200, 2), 0.5), windows=[(20, 70), (90, 200)])
    want = simulate(net(), 200.0, readout=reference, rule=lesson)
    got, readout = run(backend)
    assert np.array_equal(got.to_dense(), want.to_dense())
    for name in ("weights", "trace", "outputs", "averages", "memory"):
        assert np.array_equal(getattr(readout, name), getattr(reference, name)), name
    assert np.abs(readout.weights).max() > 0.01


@pytest.mark.parametrize("chunk_steps", [1, 13, 1000])
def test_float32_network_gets_its_feedback_in_float32(chunk_steps):
    readout = loop(2)
    recording = simulate(net(), 200.0, readout=readout, dtype="float32", chunk_steps=chunk_steps)
    assert recording.state.fed.dtype == np.float32
    z = np.clip(readout.outputs[-1, 0], *readout.clip)
    assert np.allclose(recording.state.fed[0], readout.feedback[0] @ z, rtol=1e-5, atol=1e-5)
    twin = loop(2)
    other = simulate(net(), 200.0, readout=twin, dtype="float32", backend="torch")
    assert np.array_equal(other.to_dense(), recording.to_dense())
    assert np.array_equal(twin.outputs, readout.outputs)


def test_windows_hold_the_mean_trace():
    windows = [(0, 10), (10, 11), (50, 200)]
    readout = Readout(N, 1)
    spikes = simulate(net(), 200.0, readout=readout, rule=Lesson(windows=windows)).to_dense()[:, 0]
    r, found = np.zeros(N), []
    for t in range(200):
        r = r * np.exp(-1 / 30.0) + spikes[t]
        found.append(r)
    want = np.stack([np.mean(found[a:b], axis=0) for a, b in windows])
    close(torch.from_numpy(readout.averages[0]), torch.from_numpy(want))


def test_windows_of_a_lane_are_its_own():
    readout = Readout(N, 1)
    lists = [np.array([(0, 50)]), np.array([(100, 150)])]
    simulate(net(), 200.0, batch=2, seed=[4, 4], readout=readout, rule=Lesson(windows=lists))
    one = Readout(N, 1)
    simulate(net(), 200.0, seed=4, readout=one, rule=Lesson(windows=[(0, 50), (100, 150)]))
    assert np.array_equal(readout.averages[0, 0], one.averages[0, 0])
    assert np.array_equal(readout.averages[1, 0], one.averages[0, 1])
    with pytest.raises(ValueError, match=r"`windows` must be one list, or 3 of the same length"):
        simulate(net(), 200.0, batch=3, readout=Readout(N, 1), rule=Lesson(windows=lists))


def test_outputs_of_every_few_steps_are_those_of_the_simulation():
    full, kept = loop(2), loop(2, every=7)
    state, parts = None, []
    want = simulate(net(), 200.0, readout=full)
    for duration in (50.0, 3.0, 1.0, 146.0):
        state = simulate(net(), duration, readout=kept, state=state).state
        parts.append(kept.outputs)
    assert np.array_equal(np.concatenate(parts), full.outputs[::7])
    assert np.array_equal(state.v, want.state.v)


def test_feedback_of_a_lane_is_its_own():
    feedback = np.random.default_rng(0).uniform(-8, 8, (2, N, 2))
    weights = np.random.default_rng(1).standard_normal((1, 2, N)) * 0.1
    both = Readout(N, 2, feedback=feedback)
    both.weights = weights.copy()
    together = simulate(net(), 200.0, batch=2, seed=[4, 4], readout=both)
    for lane in range(2):
        one = Readout(N, 2, feedback=feedback[lane])
        one.weights = weights.copy()
        assert np.array_equal(
            simulate(net(), 200.0, seed=4, readout=one).to_dense()[:, 0], together.to_dense()[:, lane]
        )
        assert np.array_equal(one.outputs[:, 0], both.outputs[:, lane])
    assert not np.array_equal(both.outputs[:, 0], both.outputs[:, 1])


def test_copy_and_fork_share_nothing():
    readout = loop(2)
    simulate(net(), 100.0, batch=2, readout=readout)
    before = readout.copy()
    forked = readout.fork([1, 1, 0])
    assert np.array_equal(forked.weights, before.weights[[1, 1, 0]])
    assert forked.n_lanes == 3
    simulate(net(), 100.0, batch=3, readout=forked, rule=ThreeFactorRule().teach(np.ones((100, 2))))
    assert np.array_equal(readout.weights, before.weights)
    assert np.array_equal(readout.trace, before.trace)
    assert np.array_equal(readout.outputs, before.outputs)


def test_saved_readout_goes_on_where_it_was(tmp_path):
    rule, one = FORCE(every_ms=2.0), loop(2)
    state = simulate(net(), 100.0, readout=one, rule=rule.teach(np.ones((100, 2)))).state
    one.save(tmp_path / "readout.npz")
    other = Readout(N, 2)
    other.load(tmp_path / "readout.npz", rule=rule)
    for readout in (one, other):
        simulate(net(), 100.0, state=state, readout=readout, rule=rule.teach(np.ones((100, 2))))
    assert np.array_equal(one.weights, other.weights)
    assert np.array_equal(one.outputs, other.outputs)
    with pytest.raises(ValueError, match=r"its weights are of shape \(1, 2, 80\), not \(B, 3, 80\)"):
        Readout(N, 3).load(tmp_path / "readout.npz")
    with pytest.raises(ValueError, match=r"Pass the rule that it was trained with"):
        Readout(N, 2).load(tmp_path / "readout.npz", rule=ThreeFactorRule())
    (tmp_path / "other.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"it is no saved readout"):
        Readout(N, 2).load(tmp_path / "other.npz")


def test_readout_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"`readout` must read 80 neurons, as many as the network has, got 70"):
        simulate(net(), 10.0, readout=Readout(70, 2))
    with pytest.raises(
        ValueError, match=r"`feedback` must be a number or have shape \(80, 2\) or \(B, 80, 2\), got \(2, 80\)"
    ):
        Readout(N, 2, feedback=np.zeros((2, N)))
    with pytest.raises(ValueError, match=r"`clip` must be \(lowest, highest\)"):
        Readout(N, 2, clip=(1.0, 0.0))
    readout = loop(2)
    simulate(net(), 10.0, batch=2, readout=readout)
    with pytest.raises(ValueError, match=r"`readout` must have 1 lane, or the 3 of the run, got 2"):
        simulate(net(), 10.0, batch=3, readout=readout)
    readout.weights = np.zeros((2, 1, N))
    with pytest.raises(ValueError, match=r"`weights` must have shape \(B, 2, 80\)"):
        simulate(net(), 10.0, batch=2, readout=readout)


def test_run_without_time_and_of_one_neuron_is_fine():
    readout = Readout(1, 1)
    tiny = Reservoir.from_edges(1, [], [], [], Izhikevich("RS"))
    simulate(tiny, 0.0, readout=readout, rule=ThreeFactorRule().teach(np.zeros((0, 1))))
    assert readout.outputs.shape == (0, 1, 1)
    simulate(tiny, 5.0, readout=readout, rule=FORCE().teach(np.zeros((5, 1))), record=Record(spikes="none"))
    assert readout.outputs.shape == (5, 1, 1)


def test_importing_readouts_does_not_load_the_compiler():
    code = "import sys, reservoir.readout, reservoir.rules; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
