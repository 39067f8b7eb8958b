"""One network on every backend, in any number of pieces: the same numbers to the last bit."""

import warnings
from dataclasses import replace

import numba
import numpy as np
import pytest
import scipy.signal
import torch
from numba import carray

from reservoir import (
    BACKENDS,
    Izhikevich,
    Population,
    Pulse,
    Record,
    Reservoir,
    State,
    Stimulus,
    Synapse,
    available_backends,
    default_populations,
    initial_state,
    simulate,
)
from reservoir.backends import calls
from reservoir.backends import numba as numba_backend
from snn.kernels.threads import address, compile_kernel

TRACES = Record(traces=("v", "u", "i_syn"), neurons=[1, 7, 100], every=3)


def small_net(seed=0, *, n=200, delay_ms=0.0, rise_ms=None, dt_ms=1.0):
    stronger = 1.0 if rise_ms is None else 4.0
    populations = {
        name: replace(p, gain=p.gain * stronger, synapse=Synapse(p.synapse.tau_ms, rise_ms))
        for name, p in default_populations().items()
    }
    return Reservoir(n, populations=populations, generator=seed, delay_ms=delay_ms, dt_ms=dt_ms, v_min=None)


def rich_stimulus(n=200, n_lanes=1):
    rng = np.random.default_rng(0)
    cue = 40 * rng.random(n)
    pulses = [Pulse(20.0, 70.0, cue), Pulse(50.0, 90.0, 3.0), Pulse(100.0, 130.0, cue, lane=n_lanes - 1)]
    return Stimulus(pulses=pulses, current=rng.random((200, n_lanes, n)))


def assert_same(one, other):
    assert one.n_lanes == other.n_lanes
    for lane in range(one.n_lanes):
        for a, b in zip(one.spike_steps(lane), other.spike_steps(lane), strict=True):
            assert np.array_equal(a, b)
    for name in one.traces:
        assert np.array_equal(one.traces[name], other.traces[name]), name
    for name in ("v", "u", "s", "h", "fed", "recent", "seeds", "step"):
        assert np.array_equal(getattr(one.state, name), getattr(other.state, name)), name


def mixed_2007():
    kinds = ["RS", "IB", "CH", "LTS", "FS", "TC", "RTN"] * 10
    rows = [Izhikevich(kind, form="2007").per_neuron(1) for kind in kinds]
    neuron = Izhikevich(form="2007", **{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    weights = np.random.default_rng(0).random((70, 70)) * 40 * (np.arange(70) % 3 > 0)[:, None]
    return Reservoir.from_weights(weights, neuron, bias=100.0, dt_ms=0.5, synapse=Synapse(5.0), v_min=None)


CASES = {
    "plain": (lambda: small_net(), None),
    "delays": (lambda: small_net(delay_ms=4.0), None),
    "double exponential": (lambda: small_net(rise_ms=2.0), None),
    "2007": (mixed_2007, Stimulus(100.0)),
}


def run_case(name, backend, **options):
    make, stimulus = CASES[name]
    net = make()
    stimulus = rich_stimulus() if stimulus is None else stimulus
    record = TRACES if net.n > 100 else Record(traces=("v", "u", "i_syn"))
    before = calls[backend]
    recording = simulate(net, stimulus, backend=backend, record=record, seed=3, **options)
    assert calls[backend] == before + 1, "another backend ran"
    assert recording.spike_counts().sum() > 200
    return recording


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_torch_equals_numba(case, dtype):
    assert_same(run_case(case, "torch", dtype=dtype), run_case(case, "numba", dtype=dtype))


@pytest.mark.reference
@pytest.mark.parametrize("case", CASES)
def test_brian2_equals_numba(case):
    reference = run_case(case, "brian2")
    assert_same(reference, run_case(case, "numba"))


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["brian2_cython", "brian2_cpp"])
@pytest.mark.parametrize("case", CASES)
def test_compiled_brian2_equals_numba(case, backend):
    reference = run_case(case, backend)
    assert_same(reference, run_case(case, "numba"))


@pytest.mark.reference
def test_brian2_equals_numba_in_a_large_network_for_long():
    net = Reservoir(1000, generator=1)
    reference = simulate(net, 1000.0, backend="brian2", seed=9)
    assert_same(reference, simulate(net, 1000.0, seed=9))
    assert reference.spike_counts().sum() > 2000


@pytest.mark.reference
def test_brian2_preferences_are_put_back():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import brian2
    names = ("codegen.target", "codegen.loop_invariant_optimisations", "codegen.cpp.extra_compile_args_gcc")
    before, dt = [brian2.prefs[name] for name in names], brian2.defaultclock.dt
    with pytest.raises(ValueError, match=r"`dtype` must be 'float64' with brian2"):
        simulate(small_net(), 1.0, backend="brian2", dtype="float32")
    simulate(small_net(dt_ms=0.5), 2.0, backend="brian2")
    assert brian2.defaultclock.dt == dt
    assert [brian2.prefs[name] for name in names] == before


def test_every_backend_is_compared():
    compared = {"numba", "torch", "brian2", "brian2_cython", "brian2_cpp"}
    # The last one is there for its speed and promises no numbers.
    assert set(BACKENDS) == {*compared, "brian2_cpp_default"} == set(available_backends())


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu_before_chaos():
    one, other = (run_case("plain", "torch", device=device) for device in ("cpu", "cuda"))
    assert np.array_equal(one.to_dense()[:50], other.to_dense()[:50])
    assert abs(one.rates_hz().mean() / other.rates_hz().mean() - 1) < 0.1


# --- pieces, lanes, threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("case", ["plain", "delays", "double exponential"])
def test_chunks_do_not_change_a_number(case, backend):
    want = run_case(case, "numba")
    for chunk_steps in (1, 7, 64):
        assert_same(run_case(case, backend, chunk_steps=chunk_steps), want)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_lane_equals_its_own_run(backend):
    nets = [small_net(seed) for seed in (0, 1, 2)]
    stimulus = rich_stimulus(n_lanes=3)
    together = simulate(nets, stimulus, backend=backend, seed=[5, 6, 7], record=TRACES, n_threads=2)
    for lane in range(3):
        pulses = [Pulse(p.start_ms, p.stop_ms, p.current) for p in stimulus.pulses if p.lane in (None, lane)]
        own = Stimulus(pulses=pulses, current=stimulus.current[:, lane])
        assert_same(together.lane(lane), simulate(nets[lane], own, seed=5 + lane, record=TRACES))


def test_lanes_of_one_network_differ_by_their_noise():
    rec = simulate(small_net(), 200.0, batch=2, seed=5)
    assert_same(rec.lane(1), simulate(small_net(), 200.0, seed=6))
    assert not np.array_equal(rec.to_dense()[:, 0], rec.to_dense()[:, 1])


@pytest.mark.parametrize("case", ["plain", "delays"])
def test_threads_that_share_a_lane_do_not_change_a_number(case, monkeypatch):
    want = run_case(case, "numba", n_threads=1)
    monkeypatch.setattr(numba_backend, "MIN_NEURONS", 64)
    used, real = [], numba_backend.compiled_loop
    monkeypatch.setattr(numba_backend, "compiled_loop", lambda *options: used.append(options) or real(*options))
    assert_same(run_case(case, "numba", n_threads=2, chunk_steps=50), want)
    assert_same(run_case(case, "numba", n_threads=3), want)
    assert [options[-1] for options in used] == [True, True]


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("delay_ms", [0.0, 5.0])
def test_saved_and_loaded_run_goes_on_as_if_uninterrupted(tmp_path, backend, delay_ms):
    net = small_net(delay_ms=delay_ms)
    whole = simulate(net, 200.0, seed=4, record=TRACES)
    # Pieces shorter than the delay: spikes stay on their way over two of them.
    pieces, state = [], None
    for k, duration in enumerate((61.0, 2.0, 1.0, 136.0)):
        piece = simulate(net, duration, seed=4 if k == 0 else None, state=state, record=TRACES, backend=backend)
        piece.state.save(tmp_path / "state.npz")
        state = State.load(tmp_path / "state.npz")
        pieces.append(piece)
    assert np.array_equal(np.concatenate([piece.to_dense() for piece in pieces]), whole.to_dense())
    for name in whole.traces:
        assert np.array_equal(np.concatenate([piece.traces[name] for piece in pieces]), whole.traces[name])
    assert np.array_equal(np.concatenate([piece.trace_ms() for piece in pieces]), whole.trace_ms())
    assert_same(end_of(whole), end_of(pieces[-1]))


def end_of(recording):
    """Keep only the end of a recording, for comparison."""
    lane = recording.lane(0)
    lane.traces = {}
    lane._counts, lane._neurons = [np.zeros(lane.n_steps, int)], [np.zeros(0, int)]
    return lane


def test_fork_goes_on_alike_with_the_same_seed_and_apart_with_another():
    net = small_net(delay_ms=2.0)
    state = simulate(net, 100.0, seed=1).state
    want = simulate(net, 100.0, state=state)
    forked = simulate(net, 100.0, state=state.fork(3, seeds=[1, 1, 2]))
    assert_same(forked.lane(0), want)
    assert_same(forked.lane(1), want)
    assert not np.array_equal(forked.to_dense()[:, 2], want.to_dense()[:, 0])


def test_state_passed_in_stays_as_it_was():
    net = small_net(delay_ms=2.0)
    state = simulate(net, 50.0).state
    before = state.copy()
    simulate(net, 50.0, state=state)
    for name in ("v", "u", "s", "recent", "step"):
        assert np.array_equal(getattr(state, name), getattr(before, name))


# --- readouts inside the loop -------------------------------------------------------------------------------------

# What the readout below keeps: trace (N), decay, gain, then how often it was called.


def _follow(context):
    """A readout in C: r decays, spikes add 1, and the mean of r is fed back to every neuron."""
    c = carray(context, 8)
    n = c[5]
    spiked, fed = carray(address(c[3]), (c[2],), np.int32), carray(address(c[4]), (n,), np.float64)
    own = carray(address(c[6]), (n + 3,), np.float64)
    total = 0.0
    for i in range(n):
        own[i] = own[i] * own[n]
    for j in range(c[2]):
        own[spiked[j]] += 1.0
    for i in range(n):
        total += own[i]
    for i in range(n):
        fed[i] = own[n + 1] * total / n
    own[n + 2] += 1.0


class Follower:
    """The readout of the tests, compiled and in Python."""

    def __init__(self, gain):
        self.gain, self.kernel = gain, compile_kernel(_follow)
        self.address = self.kernel.address

    def loop_part(self, rule, plan):
        self.own = np.zeros((plan.n_lanes, plan.n + 3))
        self.own[:, plan.n :] = [0.97, self.gain, 0.0]
        return self

    def context(self, lane):
        return self.own[lane].ctypes.data

    def chunk(self, lane, t, n_steps):
        pass

    def step(self, lane, step, t, spiked, fed):
        own, n = self.own[lane], len(fed)
        own[:n] *= own[n]
        own[spiked] += 1.0
        # Added from left to right, as the compiled loop does; numpy's sum adds in pairs.
        fed[:] = own[n + 1] * np.cumsum(own[:n])[-1] / n
        own[n + 2] += 1.0


@pytest.mark.parametrize(("backend", "n_threads"), [("numba", 1), ("numba", 2), ("torch", 1)])
def test_readout_inside_the_loop_feeds_back(backend, n_threads, monkeypatch):
    net, follower = small_net(), Follower(-20.0)
    want = simulate(net, 300.0, readout=follower, seed=2)
    trace = follower.own.copy()
    assert trace[0, -1] == 300
    monkeypatch.setattr(numba_backend, "MIN_NEURONS", 64)
    got = simulate(net, 300.0, readout=follower, seed=2, backend=backend, n_threads=n_threads, chunk_steps=37)
    assert_same(got, want)
    assert np.array_equal(follower.own, trace)
    open_loop = simulate(net, 300.0, seed=2)
    assert want.spike_counts().sum() < 0.8 * open_loop.spike_counts().sum()


@pytest.mark.reference
def test_readout_of_brian2_feeds_back_alike():
    net, follower = small_net(), Follower(-20.0)
    want = simulate(net, 200.0, readout=follower, seed=2, backend="brian2")
    trace = follower.own.copy()
    assert_same(simulate(net, 200.0, readout=follower, seed=2), want)
    assert np.array_equal(follower.own, trace)


# --- published networks -------------------------------------------------------------------------------------------


def net_m(seed, scheme=None):
    """The network of Izhikevich 2003 (net.m), without its synapses of neurons on themselves."""

    def with_scheme(sampler):
        from reservoir.samplers import SAMPLERS

        def draw(n, rng):
            p = SAMPLERS[sampler](n, rng).per_neuron(n)
            return Izhikevich(scheme=scheme, **{k: p[k] for k in "abcd"})

        return draw

    root = np.sqrt(1000)
    populations = {
        "E": Population(
            size=800, neuron=with_scheme("excitatory_2003"), gain=0.25 * root, noise=5.0, synapse=Synapse(0.0)
        ),
        "I": Population(
            size=200, neuron=with_scheme("inhibitory"), sign=-1, gain=0.5 * root, noise=2.0, synapse=Synapse(0.0)
        ),
    }
    return Reservoir(1000, p_connect=1.0, populations=populations, generator=seed, v_min=None)


def rates(recording):
    r = recording.rates_hz()[0]
    return r[:800].mean(), r[800:].mean()


def check_net_m(seeds):
    found, spectra = [], []
    for seed in seeds:
        rec = simulate(net_m(seed), 1000.0, seed=100 + seed)
        found.append(rates(rec))
        power = scipy.signal.welch(rec.step_counts()[100:, 0].astype(float), fs=1000.0, nperseg=512)
        spectra.append(power[1])
    e, i = np.mean(found, axis=0)
    # 20 seeds of a port of net.m to C: 7.58 and 7.33 Hz, with standard deviations of 0.18 and 0.23 between seeds.
    assert abs(e - 7.58) < 0.18 * 3 / np.sqrt(len(found)) + 0.05
    assert abs(i - 7.33) < 0.23 * 3 / np.sqrt(len(found)) + 0.05
    frequency, spectrum = power[0], np.mean(spectra, axis=0)
    alpha, gamma = (frequency >= 6) & (frequency <= 14), (frequency >= 30) & (frequency <= 60)
    between = (frequency > 16) & (frequency < 26)
    assert spectrum[alpha].max() > 2 * np.median(spectrum[between])
    assert spectrum[gamma].max() > 2 * np.median(spectrum[(frequency > 80) & (frequency < 150)])


def test_net_m_fires_at_the_known_rates():
    check_net_m(range(3))


@pytest.mark.slow
def test_net_m_fires_at_the_known_rates_over_twenty_seeds():
    check_net_m(range(20))


def test_net_m_with_consistent_euler_fires_more():
    """The negative control, 9.13 and 9.80 Hz: more than three standard deviations away."""
    e, i = rates(simulate(net_m(0, "euler"), 1000.0, seed=100))
    assert e > 7.58 + 3 * 0.18 + 0.5
    assert i > 7.33 + 3 * 0.23 + 0.5


# --- edges --------------------------------------------------------------------------------------------------------


def test_neuron_that_is_not_finite_is_named_with_its_time():
    drive = np.zeros((50, 5))
    drive[20:, 3] = 1e308
    net = Reservoir.from_edges(5, [], [], [], Izhikevich("RS"))
    for backend in ("numba", "torch"):
        with pytest.raises(ValueError, match=r"neuron 3 of lane 0 that is not, at 2\d ms \(step 2\d\)"):
            simulate(net, drive, backend=backend, chunk_steps=7)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_one_neuron_no_synapse_and_no_time_are_fine(backend):
    net = Reservoir(1, populations={"a": Population(size=1, neuron="RS", bias=(10.0, 0.0))}, generator=0)
    assert simulate(net, 100.0, backend=backend).spike_counts().tolist() == [[3]]
    empty = simulate(net, 0.0, backend=backend, record=Record(traces=("v",)))
    assert empty.to_dense().shape == (0, 1, 1)
    assert empty.traces["v"].shape == (0, 1, 1)
    assert empty.spikes()[0].size == 0


def test_what_does_not_fit_is_refused():
    net = small_net(dt_ms=0.5)
    with pytest.raises(
        ValueError, match=r"`duration_ms` must be a multiple of the time step, 0.5 ms, got 10.2. Use 10 ms"
    ):
        simulate(net, 10.2)
    with pytest.raises(ValueError, match=r"`start_ms` must be a multiple of the time step"):
        simulate(net, Stimulus(10.0, pulses=[Pulse(0.3, 1.0, 1.0)]))
    with pytest.raises(ValueError, match=r"`current` must have shape \(4, 200\) or \(4, 2, 200\), got \(4, 3, 200\)"):
        simulate(net, np.zeros((4, 3, 200)), batch=2)
    with pytest.raises(ValueError, match=r"`backend` must be one of 'numba', 'torch', 'brian2'"):
        simulate(net, 1.0, backend="cuda")
    with pytest.raises(ValueError, match=r"`rule` must come with a `readout`"):
        simulate(net, 1.0, rule=object())
    with pytest.raises(ValueError, match=r"share `n`"):
        simulate([net, small_net(n=100, dt_ms=0.5)], 1.0)
    with pytest.raises(ValueError, match=r"`lane` must be a whole number >= 0 and <= 1, got 2"):
        simulate(net, Stimulus(1.0, pulses=[Pulse(0.0, 1.0, 1.0, lane=2)]), batch=2)
    with pytest.raises(ValueError, match=r"`state` must have `v` of shape"):
        simulate(net, 1.0, state=initial_state(small_net(n=100)))
    with pytest.raises(ValueError, match=r"`state` must be of dtype float32, got float64"):
        simulate(net, 1.0, state=initial_state(net), dtype="float32")
    with pytest.raises(ValueError, match=r"`seed` must be one number, or 2"):
        simulate(net, 1.0, batch=2, seed=[1, 2, 3])


def test_pulse_beyond_the_end_and_to_the_last_step_is_fine():
    net = Reservoir.from_edges(1, [], [], [], Izhikevich("RS"))
    edge = simulate(net, Stimulus(30.0, pulses=[Pulse(29.0, 30.0, 500.0), Pulse(40.0, 50.0, 500.0)]))
    assert edge.spike_steps()[0].tolist() == [29]


def test_global_generators_stay_as_they_were(global_rng_untouched):
    before = np.random.get_state()[1].copy()
    simulate(Reservoir(50, generator=torch.Generator().manual_seed(1)), 20.0)
    assert np.array_equal(np.random.get_state()[1], before)
    assert numba.get_num_threads() >= 1
