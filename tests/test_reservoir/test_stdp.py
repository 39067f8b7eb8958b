"""STDP in a network: window, closed forms, dense against event-driven, backends, pieces, threads, lanes."""

from dataclasses import fields

import numpy as np
import pytest

from reservoir import Izhikevich, Reservoir, State, Synapse, simulate
from reservoir.backends import numba as numba_backend
from reservoir.plasticity import Plasticity
from reservoir.rules import PAIRINGS, PLASTIC, STDP, DopamineSTDP
from reservoir.synapses import SynapseState, first_state, powers

RULES = {
    "dopamine": DopamineSTDP(tau_c_ms=100.0, eta=0.3),
    "dopamine, all pairs": DopamineSTDP(tau_c_ms=30.0, tau_d_ms=40.0, pairing="all", eta=0.5),
    "plain": STDP(a_plus=0.1, a_minus=0.11, w_max=4.0),
    "plain, nearest": STDP(a_plus=0.1, a_minus=0.11, w_max=4.0, pairing="nearest", tau_plus_ms=10.0),
}
REWARDS = [(50.0, 0.5), (300.0, 0.7), (301.0, 0.1), (301.0, 0.2), (5000.0, 1.0)]
WATCH = [0, 5, 7, 500, 700]
KEPT = ("n_synapses", "is_plastic", "values", "arrived", "spiked", "now", "pending", "numbers", "step")
SYNAPSES = {
    "delays": {"synapse": Synapse(2.0), "max_delay": 4},
    "two kinds": {"synapse": (Synapse(5.0), Synapse(10.0))},
    "double exponential": {"synapse": Synapse(5.0, 2.0)},
}


def small_net(n=60, *, seed=0, max_delay=0, synapse=Synapse(2.0)):  # noqa: B008  frozen
    """Four fifths excite; some pairs have several synapses."""
    rng = np.random.default_rng(seed)
    pre, post = np.repeat(np.arange(n), 12), rng.integers(0, n, 12 * n)
    weight = rng.random(len(pre)) * np.where(pre < 0.8 * n, 3.0, -3.0)
    delay = rng.integers(0, max_delay, len(pre)) if max_delay else 0
    net = Reservoir.from_edges(
        n, pre, post, weight, Izhikevich("RS"), delay=delay, synapse=synapse, bias=4.0, noise=5.0, v_min=None
    )
    return net


def learn(rule, **options):
    """What a run gets: rewards only where dopamine matters."""
    rewards = REWARDS if isinstance(rule, DopamineSTDP) else ()
    return Plasticity(rule, rewards=rewards, watch=WATCH, watch_every=3, **options)


def assert_same_synapses(one, other):
    for name in KEPT:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def pair(rule, before_ms, after_ms, *, delay=0, weight=0.5, duration_ms=100.0, **options):
    """Two neurons that fire at given times, driven from outside; the synapse is too weak to matter."""
    # Without recovery a neuron fires for each pulse, and for nothing else.
    neuron = Izhikevich("RS", a=0.0, d=0.0)
    net = Reservoir.from_edges(2, [0], [1], [weight], neuron, delay=delay, synapse=Synapse(0.0), v_min=None)
    current = np.zeros((round(duration_ms), 2))
    for neuron, times in enumerate((before_ms, after_ms)):
        # A pulse of this size makes a neuron fire in the step in which it comes.
        current[np.array(times, dtype=int), neuron] = 2000.0
    plasticity = Plasticity(rule, watch=[0], **options)
    recording = simulate(net, current, plasticity=plasticity)
    fired = recording.spikes()
    assert fired[0][fired[1] == 0].tolist() == list(before_ms)
    assert fired[0][fired[1] == 1].tolist() == list(after_ms)
    return plasticity, recording.state.synapses


# --- the window and closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("distance", [-30, -5, -1, 0, 1, 2, 5, 30])
def test_pair_changes_the_weight_by_the_exponential_window(distance, delay):
    """The distance is counted from the arrival, `delay` steps after the spike; at 0 the arrival is late."""
    rule = STDP(a_plus=0.02, a_minus=0.03, tau_plus_ms=15.0, tau_minus_ms=25.0)
    _, state = pair(rule, [40.0], [40.0 + delay + distance], delay=delay)
    window = 0.02 * np.exp(-distance / 15) if distance > 0 else -0.03 * np.exp(distance / 25)
    assert state.weights()[0] == pytest.approx(0.5 + window, rel=1e-14)


@pytest.mark.parametrize(("pairing", "sum_of"), [("all", [20, 10, 5]), ("nearest", [5])])
def test_pairing_says_which_spikes_count(pairing, sum_of):
    rule = STDP(a_plus=0.02, a_minus=0.0, pairing=pairing)
    _, state = pair(rule, [30.0, 40.0, 45.0], [50.0])
    assert state.weights()[0] == pytest.approx(0.5 + 0.02 * sum(np.exp(-d / 20) for d in sum_of), rel=1e-13)


def test_weight_moves_by_the_integral_of_eligibility_times_dopamine():
    """One pair, one reward: c(t) d(t) integrated by hand from the reward to the end."""
    rule = DopamineSTDP(tonic=0.0, eta=0.1, a_plus=1.0)
    plasticity, state = pair(rule, [10.0], [14.0], rewards=[(500.0, 0.3)], duration_ms=2000.0)
    c = np.exp(-4 / 20) * np.exp(-(500 - 14) / 1000)
    both = 1 / (1 / 1000 + 1 / 200)
    moved = 0.1 * c * 0.3 * both * (1 - np.exp(-1499 / both))
    assert (plasticity.weights[:501] == 0.5).all()
    assert state.weights()[0] - 0.5 == pytest.approx(moved, rel=1e-12)
    assert plasticity.eligibility[500, 0, 0] == pytest.approx(c, rel=1e-12)
    assert plasticity.dopamine[700, 0] == pytest.approx(0.3 * np.exp(-1), rel=1e-12)


def test_tonic_dopamine_turns_all_of_an_eligibility_into_weight():
    rule = DopamineSTDP(tonic=0.01, eta=0.1, a_plus=1.0, tau_c_ms=100.0)
    _, state = pair(rule, [10.0], [11.0], duration_ms=5000.0)
    assert state.weights()[0] - 0.5 == pytest.approx(0.1 * 0.01 * 100 * np.exp(-1 / 20), rel=1e-12)


def test_smaller_steps_give_the_same_closed_form():
    """Between events the solution is exact, so only the times at which they are seen depend on the step."""
    found = []
    for dt_ms in (1.0, 0.25):
        net = Reservoir.from_edges(2, [0], [1], [0.5], Izhikevich("RS"), synapse=Synapse(0.0), dt_ms=dt_ms, v_min=None)
        state = first_state(DopamineSTDP(), [net], 0)
        # An eligibility of 0.3 after the step before the first one.
        state.values[0, 0, 1] = 0.3 / powers(state.numbers)[-2]
        start = simulate(net, 0.0).state
        start.synapses = state
        state.now[0, 0] = 0.4
        run = simulate(net, 300.0, plasticity=DopamineSTDP(), state=start)
        found.append(run.state.synapses.weights()[0])
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    assert found[0] > 0.6


def test_bounds_hold_and_a_bounded_weight_comes_back_at_once():
    rule = STDP(a_plus=0.4, a_minus=0.25)
    _, state = pair(rule, [10.0, 210.0, 410.0, 611.0], [11.0, 211.0, 411.0, 610.0], duration_ms=700.0)
    # What came before the last pair is forgotten up to exp(-10).
    assert state.weights()[0] == pytest.approx(1 - 0.25 * np.exp(-1 / 20), abs=1e-4)
    _, state = pair(DopamineSTDP(a_plus=9.0, tonic=1.0, w_max=0.6), [10.0], [11.0])
    assert state.weights()[0] == 0.6


# --- dense against event-driven -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_event_driven_weights_equal_the_dense_ones(name):
    rule, net = RULES[name], small_net(max_delay=4)
    plasticity = learn(rule)
    recording = simulate(net, 1000.0, plasticity=plasticity, seed=1)
    dense, rewards = rule.plain(net), np.zeros(1000)
    if isinstance(rule, DopamineSTDP):
        np.add.at(rewards, [int(t) for t, _ in REWARDS[:-1]], [amount for _, amount in REWARDS[:-1]])
    rows = []
    for t, spiked in enumerate(recording.to_dense()[:, 0]):
        dense.step(spiked, rewards[t])
        if t % 3 == 0:
            rows.append(np.concatenate([dense.weights[WATCH], dense.eligibility[WATCH], [dense.dopamine]]))
    state, rows = recording.state.synapses, np.array(rows)
    assert np.allclose(state.weights(), dense.weights, rtol=0, atol=1e-10)
    assert np.allclose(state.eligibility(), dense.eligibility, rtol=0, atol=1e-10)
    assert np.allclose(plasticity.weights[:, 0], rows[:, :5], rtol=0, atol=1e-10)
    assert np.allclose(plasticity.eligibility[:, 0], rows[:, 5:10], rtol=0, atol=1e-10)
    assert np.allclose(plasticity.dopamine[:, 0], rows[:, 10] + getattr(rule, "tonic", 0), rtol=0, atol=1e-12)
    # It is a test only if weights moved, and met both bounds.
    moved = state.weights() != net.wiring.weight
    assert moved[dense.plastic].mean() > 0.9
    assert not moved[~dense.plastic].any()
    assert (dense.weights[dense.plastic] == 0).sum() > 3


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RULES)
def test_torch_equals_numba(name, dtype):
    net = small_net(max_delay=4)
    runs = []
    for backend in ("numba", "torch"):
        plasticity = learn(RULES[name])
        options = {"backend": backend, "dtype": dtype, "seed": 1, "batch": 2}
        runs.append((simulate(net, 300.0, plasticity=plasticity, **options), plasticity))
    (one, of_one), (other, of_other) = runs
    for lane in range(2):
        assert np.array_equal(one.spikes(lane), other.spikes(lane))
    assert_same_synapses(one.state.synapses, other.state.synapses)
    for kept in ("t_ms", "weights", "eligibility", "dopamine"):
        assert np.array_equal(getattr(of_one, kept), getattr(of_other, kept))


@pytest.mark.reference
@pytest.mark.parametrize("kind", SYNAPSES)
@pytest.mark.parametrize("name", ["dopamine", "plain"])
def test_brian2_gives_the_same_raster_and_weights(name, kind):
    net = small_net(**SYNAPSES[kind])
    start = None if net.wiring.max_delay else simulate(net, 100.0, plasticity=RULES[name], seed=1).state
    found = []
    for backend in ("numba", "brian2"):
        plasticity = learn(RULES[name])
        recording = simulate(net, 400.0, plasticity=plasticity, seed=1, state=start, backend=backend)
        found.append((recording, recording.state.synapses, plasticity))
    (one, ours, watched), (other, theirs, watched_there) = found
    assert np.array_equal(one.spikes(), other.spikes())
    assert one.spike_counts().sum() > 200
    assert np.allclose(ours.weights(), theirs.weights(), rtol=0, atol=1e-9)
    assert np.allclose(ours.eligibility(), theirs.eligibility(), rtol=0, atol=1e-9)
    assert np.allclose(watched.weights, watched_there.weights, rtol=0, atol=1e-9)
    assert np.allclose(watched.eligibility, watched_there.eligibility, rtol=0, atol=1e-9)
    assert np.allclose(watched.dopamine, watched_there.dopamine, rtol=0, atol=1e-12)
    assert np.array_equal(ours.pending, theirs.pending)
    if not net.wiring.max_delay:
        # brian2's state goes on as ours does.
        again = [simulate(net, 100.0, plasticity=RULES[name], state=run.state) for run in (one, other)]
        assert np.array_equal(again[0].spikes(), again[1].spikes())
        assert np.allclose(*(run.state.synapses.weights() for run in again), rtol=0, atol=1e-9)


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["brian2_cython", "brian2_cpp"])
def test_compiled_brian2_gives_the_same_raster_and_weights(backend):
    net = small_net(max_delay=4)
    one = simulate(net, 400.0, plasticity=learn(RULES["dopamine"]), seed=1)
    other = simulate(net, 400.0, plasticity=learn(RULES["dopamine"]), seed=1, backend=backend)
    assert np.array_equal(one.spikes(), other.spikes())
    assert np.allclose(one.state.synapses.weights(), other.state.synapses.weights(), rtol=0, atol=1e-9)


# --- pieces, threads, lanes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_run_in_pieces_through_a_file_is_the_whole_run(name, tmp_path):
    net = small_net(max_delay=4)
    whole = simulate(net, 600.0, plasticity=learn(RULES[name]), seed=1)
    part = simulate(net, 233.0, plasticity=learn(RULES[name]), seed=1)
    part.state.save(tmp_path / "state.npz")
    state = State.load(tmp_path / "state.npz")
    # Rewards after the end of the first piece wait in its state.
    rest = simulate(net, 367.0, plasticity=RULES[name], state=state, chunk_steps=10)
    assert np.array_equal(rest.state.v, whole.state.v)
    assert_same_synapses(rest.state.synapses, whole.state.synapses)


def test_threads_that_share_a_lane_change_nothing(monkeypatch):
    net = small_net(300, max_delay=4)
    runs = []
    for n_threads in (1, 2):
        if n_threads == 2:
            monkeypatch.setattr(numba_backend, "MIN_NEURONS", 100)
        plasticity = learn(RULES["dopamine"])
        runs.append((simulate(net, 500.0, plasticity=plasticity, seed=2, n_threads=n_threads), plasticity))
    assert_same_synapses(runs[0][0].state.synapses, runs[1][0].state.synapses)
    assert np.array_equal(runs[0][0].spikes(), runs[1][0].spikes())
    assert np.array_equal(runs[0][1].weights, runs[1][1].weights)


def test_lanes_of_different_networks_equal_runs_of_their_own():
    nets = [small_net(seed=seed, max_delay=2 + seed) for seed in range(2)]
    nets[1] = Reservoir.from_edges(60, [0, 1, 2], [1, 2, 3], [1.0, 2.0, 3.0], Izhikevich("RS"), bias=6.0, noise=5.0)
    rewards = [[(50.0, 0.5)], [(60.0, 0.7), (900.0, 0.2)]]
    both = simulate(nets, 300.0, plasticity=Plasticity(RULES["dopamine"], rewards=rewards), seed=[3, 4])
    for lane, net in enumerate(nets):
        alone = simulate(net, 300.0, plasticity=Plasticity(RULES["dopamine"], rewards=rewards[lane]), seed=3 + lane)
        assert np.array_equal(both.spikes(lane), alone.spikes())
        assert np.array_equal(both.state.synapses.weights(lane), alone.state.synapses.weights())
        assert np.array_equal(both.state.lane(lane).synapses.pending, alone.state.synapses.pending)


def test_weights_stay_to_the_last_bit_when_learning_is_off_and_are_those_that_act():
    net = small_net()
    learned = simulate(net, 300.0, plasticity=learn(RULES["dopamine"]), seed=1).state
    off = simulate(net, 200.0, state=learned)
    assert_same_synapses(off.state.synapses, learned.synapses)
    as_network = simulate(learned.synapses.network(net), 200.0, state=learned)
    untouched = learned.copy()
    untouched.synapses = None
    fixed = simulate(learned.synapses.network(net), 200.0, state=untouched)
    first = simulate(net, 200.0, state=untouched)
    assert np.array_equal(off.spikes(), as_network.spikes())
    assert np.array_equal(off.spikes(), fixed.spikes())
    assert not np.array_equal(off.spikes(), first.spikes())


def test_marks_fade_while_learning_is_off():
    rule = RULES["dopamine"]
    net = small_net()
    learned = simulate(net, 320.0, plasticity=learn(rule), seed=1).state.synapses
    later = learned.at(learned.step + 50, learned.numbers)
    assert np.array_equal(later.weights(), learned.weights())
    assert np.allclose(later.eligibility(), learned.eligibility() * np.exp(-50 / 100), rtol=1e-12, atol=0)
    assert later.dopamine() - rule.tonic == pytest.approx(
        (learned.dopamine() - rule.tonic) * np.exp(-50 / 200), rel=1e-12
    )
    assert later.at(later.step, later.numbers) is later


def test_callback_gets_all_spikes_and_its_rewards_act():
    net, heard = small_net(), []

    def on_spikes(t_ms, neurons, lane):
        heard.append((t_ms, neurons))
        return [(t + 200.0, 0.3) for t in t_ms[neurons == 3]]

    for backend in ("numba", "torch"):
        heard.clear()
        plasticity = Plasticity(RULES["dopamine"], on_spikes=on_spikes, every_ms=100.0)
        recording = simulate(net, 500.0, plasticity=plasticity, seed=1, chunk_steps=70, backend=backend)
        t_ms, neurons = (np.concatenate(parts) for parts in zip(*heard, strict=True))
        assert len(heard) == 5
        assert np.array_equal((t_ms, neurons), recording.spikes())
        times = t_ms[neurons == 3] + 200.0
        assert len(times) > 2
        given = Plasticity(RULES["dopamine"], rewards=[(t, 0.3) for t in times])
        known = simulate(net, 500.0, plasticity=given, seed=1)
        assert_same_synapses(recording.state.synapses, known.state.synapses)


# --- what it touches, and what it refuses -------------------------------------------------------------------------


def test_only_synapses_that_a_spike_reaches_are_looked_at():
    """Cost goes with spikes: without one nothing is written; a sweep of all comes once in four time constants."""
    net = Reservoir.from_edges(50, np.arange(49), np.arange(1, 50), np.ones(49), Izhikevich("RS"), v_min=None)
    current = np.zeros((300, 50))
    current[100, 20] = 2000.0
    state = simulate(net, current, plasticity=DopamineSTDP()).state.synapses
    looked = np.flatnonzero(state.values[0, :, 2])
    # The synapses to and from the neuron that fired; the first has no arrival to reward.
    assert looked.tolist() == [20]


@pytest.mark.parametrize("choice", [*PLASTIC, "flags"])
def test_choice_of_synapses_is_kept_to(choice):
    net = small_net()
    pre, post = net.wiring.pre(), net.wiring.post
    expected = {
        "excitatory": pre < 48,
        "excitatory_to_excitatory": (pre < 48) & (post < 48),
        "flags": (pre < 48) & (post % 2 == 0),
    }[choice]
    rule = STDP(a_plus=0.1, a_minus=0.11, w_max=4.0, synapses=expected if choice == "flags" else choice)
    state = simulate(net, 300.0, plasticity=rule, seed=1).state.synapses
    moved = state.weights() != net.wiring.weight
    assert not moved[~expected].any()
    assert moved[expected].mean() > 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: STDP(a_plus=-1.0), r"`a_plus` must be a finite number >= 0"),
        (lambda: DopamineSTDP(tau_c_ms=0.0), r"`tau_c_ms` must"),
        (lambda: DopamineSTDP(tonic=float("nan")), r"`tonic` must"),
        (lambda: STDP(pairing="triplets"), r"`pairing` must be one of 'all', 'nearest'"),
        (lambda: STDP(synapses="inhibitory"), r"`synapses` must be one of 'excitatory'"),
        (lambda: run(STDP(w_max=1.0)), r"`reservoir` must have plastic weights between 0 and w_max = 1"),
        (lambda: run(STDP(synapses=np.ones(3, dtype=bool))), r"`synapses` must .* 720 flags"),
        (lambda: run(DopamineSTDP(), rewards=[(-5.0, 1.0)]), r"`rewards` must be a finite number >= 0"),
        (lambda: run(DopamineSTDP(), rewards=[(5.0, -1.0)]), r"`rewards` must be a finite number >= 0"),
        (lambda: run(DopamineSTDP(), rewards=[(5.5, 1.0)]), r"`rewards` must be a multiple of the time step"),
        (lambda: run(DopamineSTDP(), rewards=[5.0, 6.0]), r"`rewards` must hold pairs"),
        (lambda: run(DopamineSTDP(), rewards=[[(5.0, 1.0)]] * 3), r"`rewards` must be one list, or 1"),
        (lambda: run(STDP(w_max=4.0), rewards=[(5.0, 1.0)]), r"`rewards` must be left out"),
        (lambda: run(DopamineSTDP(), watch=[720]), r"`watch` must hold synapses 0 to 719"),
        (lambda: run(DopamineSTDP(), watch=[3, 3]), r"`watch` must be ascending"),
        (lambda: run(DopamineSTDP(), on_spikes=lambda *_: [(0.0, 1.0)], every_ms=10.0), r"`on_spikes` must return"),
        (lambda: simulate(small_net(), 10.0, plasticity=0.5), r"`plasticity` must be a Plasticity"),
        (lambda: run(DopamineSTDP(), state=simulate(small_net(40), 5.0, plasticity=DopamineSTDP()).state), r"`state`"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def run(rule, state=None, **options):
    return simulate(small_net(), 20.0, plasticity=Plasticity(rule, **options), state=state)


def test_another_network_with_the_same_neurons_is_refused():
    state = simulate(small_net(), 5.0, plasticity=DopamineSTDP()).state
    other = Reservoir.from_edges(60, [0], [1], [1.0], Izhikevich("RS"))
    with pytest.raises(ValueError, match=r"`state` must have as many synapses as the networks, \[1\]"):
        simulate(other, 5.0, state=state)


@pytest.mark.parametrize("backend", ["numba", "torch", pytest.param("brian2", marks=pytest.mark.reference)])
def test_run_of_no_steps_and_network_without_synapses(backend):
    net = small_net()
    empty = simulate(net, 0.0, plasticity=learn(RULES["dopamine"]), backend=backend)
    assert np.array_equal(empty.state.synapses.weights(), net.wiring.weight)
    none = np.zeros(0, dtype=int)
    alone = Reservoir.from_edges(1, none, none, np.zeros(0), Izhikevich("RS"), bias=10.0)
    state = simulate(alone, 100.0, plasticity=DopamineSTDP(), backend=backend).state.synapses
    assert state.weights().shape == (0,)


def test_every_pairing_and_every_field_of_the_state_is_compared():
    assert set(PAIRINGS) == {rule.pairing for rule in RULES.values()}
    assert set(KEPT) == {field.name for field in fields(SynapseState)}
