"""Rules of a readout: compiled and in numpy alike, and the laws that they obey."""

import numpy as np
import pytest
import torch
from tolerances import close

from reservoir import Izhikevich, Record, Reservoir, simulate
from reservoir.readout import Readout
from reservoir.rules import FORCE, RULES, EProp, Lesson, RewardHebbian, ThreeFactorRule, TwoFactorRule

T, K = 400, 3
CASES = {
    "three_factor": ThreeFactorRule(eta=2e-3),
    "three_factor open": ThreeFactorRule(eta=2e-3, gate="open"),
    "three_factor eligibility": ThreeFactorRule(eta=2e-4, tau_eligibility_ms=50.0),
    "force": FORCE(alpha=2.0, every_ms=3.0),
    "force forgetting": FORCE(every_ms=2.0, forgetting=0.99),
    "reward_hebbian": RewardHebbian(eta=2e-3, exploration=0.3),
    "eprop": EProp(eta=2e-4, period_ms=50.0),
}


def net(n=60, seed=0, dt_ms=1.0):
    return Reservoir(n, generator=seed, dt_ms=dt_ms, p_connect=0.2)


def target(n_steps=T):
    t = np.arange(n_steps)[:, None]
    return np.sin(t / np.array([20.0, 33.0, 50.0])) ** 2


def active(n_steps=T):
    """Learn in parts of the run only, never in all outputs, and for a while by half."""
    on = np.zeros((n_steps, K))
    on[50:150, 0], on[100:300, 1], on[200:, 0] = 1.0, 0.5, 1.0
    return on


def traces(recording, readout, dt_ms=1.0):
    """Return the trace of each step of a recording, shape (T, N), by the definition."""
    decay, r, found = np.exp(-dt_ms / readout.kernel_shape.tau_ms), np.zeros(readout.n), []
    for spikes in recording.to_dense()[:, 0]:
        r = r * decay + spikes
        found.append(r)
    return np.array(found)


def in_numpy(rule, r, f, on, seed=0, dt_ms=1.0):
    """Return outputs and weights of a rule in plain numpy."""
    weights, learn, outputs = np.zeros((f.shape[1], r.shape[1])), None, []
    learn = rule.plain(r.shape[1], f.shape[1], dt_ms, seed=seed)
    for step in range(len(r)):
        z = weights @ r[step]
        learn(step, r[step], z, f[step], on[step], weights)
        outputs.append(z)
    return np.array(outputs), weights


def test_every_rule_is_compared():
    assert {name.split()[0] for name in CASES} == set(RULES)
    assert all(type(rule) is RULES[name.split()[0]] for name, rule in CASES.items())


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_compiled_rule_equals_its_reference(name, gated):
    readout, on = Readout(60, K), active() if gated else np.ones((T, K))
    lesson = CASES[name].teach(target(), active=active() if gated else None, seed=7)
    recording = simulate(net(), float(T), readout=readout, rule=lesson)
    outputs, weights = in_numpy(CASES[name], traces(recording, readout), target(), on, seed=7)
    assert np.abs(weights).max() > 1e-3
    close(torch.from_numpy(readout.outputs[:, 0].copy()), torch.from_numpy(outputs))
    close(torch.from_numpy(readout.weights[0]), torch.from_numpy(weights))


@pytest.mark.parametrize("name", CASES)
def test_absent_output_is_unchanged_to_the_last_bit(name):
    readout = Readout(60, K, feedback=1.0, generator=0)
    before = np.random.default_rng(0).standard_normal((1, K, 60)) * 0.01
    readout.weights = before.copy()
    simulate(net(), float(T), readout=readout, rule=CASES[name].teach(target(), active=active()))
    assert np.array_equal(readout.weights[:, 2], before[:, 2])
    assert not np.array_equal(readout.weights[:, :2], before[:, :2])


@pytest.mark.parametrize("name", CASES)
def test_rule_goes_on_in_the_next_run_as_if_uninterrupted(name):
    whole, pieces = (Readout(60, K, feedback=1.0, generator=0) for _ in range(2))
    want = simulate(net(), float(T), readout=whole, rule=CASES[name].teach(target(), active=active()))
    state, outputs = None, []
    for first, last in ((0, 130), (130, 131), (131, T)):
        lesson = CASES[name].teach(target()[first:last], active=active()[first:last])
        got = simulate(net(), float(last - first), readout=pieces, rule=lesson, state=state)
        state = got.state
        outputs.append(pieces.outputs)
    assert np.array_equal(np.concatenate(outputs), whole.outputs)
    assert np.array_equal(pieces.weights, whole.weights)
    assert np.array_equal(pieces.memory, whole.memory)
    assert np.array_equal(got.state.v, want.state.v)


@pytest.mark.parametrize("name", CASES)
def test_lane_learns_as_in_its_own_run(name):
    together = Readout(60, K, feedback=1.0, generator=0)
    f = np.stack([target(), 1 - target()], axis=1)
    lesson = CASES[name].teach(f, active=active(), seed=[3, 4])
    both = simulate([net(), net(seed=1)], float(T), readout=together, rule=lesson, seed=[8, 9], n_threads=2)
    alone = Readout(60, K, feedback=1.0, generator=0)
    own = CASES[name].teach(f[:, 1], active=active(), seed=4)
    want = simulate(net(seed=1), float(T), readout=alone, rule=own, seed=9)
    assert np.array_equal(together.weights[1], alone.weights[0])
    assert np.array_equal(together.outputs[:, 1], alone.outputs[:, 0])
    assert np.array_equal(both.to_dense()[:, 1], want.to_dense()[:, 0])
    assert not np.array_equal(together.weights[0], together.weights[1])


# --- laws ---------------------------------------------------------------------------------------------------------


def test_three_factor_rule_with_an_open_gate_is_lms():
    readout, eta = Readout(60, K), 2e-3
    recording = simulate(net(), float(T), readout=readout, rule=ThreeFactorRule(eta=eta, gate="open").teach(target()))
    weights = np.zeros((K, 60))
    for r, f, z in zip(traces(recording, readout), target(), readout.outputs[:, 0], strict=True):
        # The errors are those of the run, so that nothing but the change itself is compared: exactly.
        for k in range(K):
            weights[k] += eta * (f[k] - z[k]) * r
    assert np.array_equal(readout.weights[0], weights)


def test_three_factor_rule_with_a_closed_gate_freezes():
    before = np.random.default_rng(0).standard_normal((1, K, 60)) * 0.01
    for lesson in (
        ThreeFactorRule(gate="open").teach(target(), active=np.zeros((T, K))),
        ThreeFactorRule(floor=0.0).teach(np.zeros((T, K))),
        None,
    ):
        readout = Readout(60, K)
        # The second gate is closed where nothing is expected: where the output is not above 0.
        readout.weights = -np.abs(before)
        simulate(net(), float(T), readout=readout, rule=lesson)
        assert np.array_equal(readout.weights, -np.abs(before))
        assert readout.outputs.min() < 0


def test_three_factor_gate_is_the_sum_of_target_expectation_and_floor():
    """One step of one neuron that has just spiked, so that r = 1."""
    learn = ThreeFactorRule(eta=1.0, floor=0.1).plain(1, 4, 1.0)
    z, f = np.array([0.5, -0.5, 0.9, 0.0]), np.array([0.2, 0.2, 0.9, 0.0])
    weights = np.zeros((4, 1))
    learn(0, np.ones(1), z, f, np.ones(4), weights)
    assert np.allclose(weights[:, 0], [0.8 * -0.3, 0.3 * 0.7, 0.0, 0.0])


@pytest.mark.parametrize("every_ms", [1.0, 5.0])
def test_recursive_least_squares_equals_batch_ridge(every_ms):
    readout, alpha = Readout(60, K), 3.0
    recording = simulate(net(), float(T), readout=readout, rule=FORCE(alpha=alpha, every_ms=every_ms).teach(target()))
    step = int(every_ms)
    r, f = traces(recording, readout)[::step], target()[::step]
    gram = r.T @ r + np.eye(60) / alpha
    assert np.abs(readout.weights[0] - np.linalg.solve(gram, r.T @ f).T).max() < 1e-8
    covariance = FORCE().covariance(readout.memory[0], 60)
    assert np.array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert np.abs(covariance @ gram - np.eye(60)).max() < 1e-8


def test_recursive_least_squares_with_forgetting_equals_weighted_ridge():
    readout, rule = Readout(60, K), FORCE(alpha=3.0, every_ms=1.0, forgetting=0.995)
    recording = simulate(net(), float(T), readout=readout, rule=rule.teach(target()))
    r, f = traces(recording, readout), target()
    weight = 0.995 ** np.arange(T - 1, -1, -1.0)
    gram = (r.T * weight) @ r + np.eye(60) * 0.995**T / 3.0
    assert np.abs(readout.weights[0] - np.linalg.solve(gram, (r.T * weight) @ f).T).max() < 1e-7


def test_recursive_least_squares_updates_only_where_an_output_is_active():
    on = np.zeros((T, K))
    on[100:200, 1] = 1
    readout = Readout(60, K)
    recording = simulate(net(), float(T), readout=readout, rule=FORCE(every_ms=1.0).teach(target(), active=on))
    r, f = traces(recording, readout)[100:200], target()[100:200, 1]
    want = np.linalg.solve(r.T @ r + np.eye(60), r.T @ f)
    assert np.abs(readout.weights[0, 1] - want).max() < 1e-8


def test_rule_begins_anew_after_a_reset_and_keeps_its_weights():
    readout, rule = Readout(60, K), FORCE(every_ms=1.0)
    simulate(net(), float(T), readout=readout, rule=rule.teach(target()))
    weights = readout.weights.copy()
    readout.reset(rule=True)
    simulate(net(), 0.0, readout=readout, rule=rule.teach(target(0)))
    assert np.array_equal(FORCE().covariance(readout.memory[0], 60), np.eye(60))
    assert np.array_equal(readout.weights, weights)
    readout.reset(weights=True, trace=True)
    assert not readout.weights.any()
    assert not readout.trace.any()


def test_eprop_with_a_period_of_one_step_is_lms():
    one, other = Readout(60, K), Readout(60, K)
    simulate(net(), float(T), readout=one, rule=EProp(eta=1e-3, period_ms=1.0).teach(target()))
    simulate(net(), float(T), readout=other, rule=ThreeFactorRule(eta=1e-3, gate="open").teach(target()))
    close(torch.from_numpy(one.weights), torch.from_numpy(other.weights))


def test_eprop_follows_the_gradient_of_the_squared_error():
    readout, eta = Readout(60, K), 1e-6
    recording = simulate(net(), float(T), readout=readout, rule=EProp(eta=eta, period_ms=float(T)).teach(target()))
    r = torch.from_numpy(traces(recording, readout))
    weights = torch.zeros(K, 60, dtype=torch.float64, requires_grad=True)
    loss = 0.5 * ((r @ weights.T - torch.from_numpy(target())) ** 2).sum()
    loss.backward()
    close(torch.from_numpy(readout.weights[0]), -eta * weights.grad)


def constant_net():
    """One neuron that spikes in each step: its trace tends to a constant."""
    neuron = Izhikevich(a=0.0, b=0.0, c=-65.0, d=0.0)
    return Reservoir.from_edges(1, [], [], [], neuron, bias=1000.0)


def test_reward_hebbian_rule_learns_a_constant_from_one_bit_a_step():
    readout, level = Readout(1, 1, tau_ms=1.0), 0.7
    rule = RewardHebbian(eta=0.05, horizon_ms=1e9, exploration=0.1)
    n_steps = 4000
    simulate(constant_net(), float(n_steps), readout=readout, rule=rule.teach(np.full((n_steps, 1), level), seed=1))
    assert abs(readout.outputs[-1000:, 0, 0].mean() - level) < 0.03
    blind = Readout(1, 1, tau_ms=1.0)
    rule = RewardHebbian(eta=0.05, horizon_ms=1e9, exploration=0.0)
    simulate(constant_net(), float(n_steps), readout=blind, rule=rule.teach(np.full((n_steps, 1), level), seed=1))
    assert not blind.weights.any(), "without exploration nothing is learned"


def test_two_factor_rule_tracks_probability_with_the_known_mean_and_spread():
    rng, eta, p = np.random.default_rng(0), 0.05, 0.8
    mean = rng.random(50)
    events = (rng.random(42_000) >= p).astype(int)
    weights, found = np.zeros((2, 50)), []
    for event in events:
        TwoFactorRule(eta=eta).learn(weights, mean[None], [event])
        found.append(weights @ mean)
    found = np.array(found[2000:])
    assert abs(found[:, 0].mean() - p) < 0.01
    assert abs(found[:, 0].std() - np.sqrt(p * (1 - p) * eta / (2 - eta))) < 0.005
    assert np.allclose(found.sum(axis=1), 1)


def test_two_factor_rule_unlearns_after_omissions_and_skips_silence():
    weights, mean = np.ones((2, 4)), np.ones((1, 4))
    TwoFactorRule(eta=0.5).learn(weights, np.repeat(mean, 20, axis=0), [-1] * 20)
    assert np.abs(weights @ mean[0]).max() < 1e-5
    before = weights.copy()
    TwoFactorRule().learn(weights, np.zeros((1, 4)), [0])
    assert np.array_equal(weights, before)
    with pytest.raises(ValueError, match=r"`events` must be -1 \(none\) to 1, got 2 to 2"):
        TwoFactorRule().learn(weights, mean, [2])


# --- what a user may get wrong ------------------------------------------------------------------------------------


def test_lesson_that_does_not_fit_is_refused():
    readout, rule = Readout(60, K), ThreeFactorRule()
    with pytest.raises(ValueError, match=r"`rule` must know what it is to learn.*Pass rule.teach\(target\)"):
        simulate(net(), 10.0, readout=readout, rule=rule)
    with pytest.raises(TypeError, match=r"`rule` must be a Lesson"):
        simulate(net(), 10.0, readout=readout, rule="force")
    with pytest.raises(ValueError, match=r"`target` must have shape \(10, 3\) or \(10, 1, 3\), got \(9, 3\)"):
        simulate(net(), 10.0, readout=readout, rule=rule.teach(np.zeros((9, K))))
    with pytest.raises(ValueError, match=r"`active` must hold finite numbers only"):
        simulate(net(), 10.0, readout=readout, rule=rule.teach(np.zeros((10, K)), active=np.full((10, K), np.nan)))
    with pytest.raises(ValueError, match=r"`target` must come together with `rule`, got a target alone"):
        Lesson(target=np.zeros((10, K)))
    for windows in ([(0, 11)], [(3, 3)], [(0, 5), (4, 6)], [(-1, 3)]):
        with pytest.raises(ValueError, match=r"`windows` must be \(start, stop\) pairs inside the 10 steps"):
            simulate(net(), 10.0, readout=readout, rule=Lesson(windows=windows))
    with pytest.raises(ValueError, match=r"`every_ms` must be a multiple of the time step, 1 ms, got 2.5"):
        simulate(net(), 10.0, readout=readout, rule=FORCE(every_ms=2.5).teach(np.zeros((10, K))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThreeFactorRule(gate="closed"), r"`gate` must be one of 'expectation', 'open'"),
        (lambda: ThreeFactorRule(eta=-1.0), r"`eta` must be a finite number >= 0"),
        (lambda: FORCE(alpha=0.0), r"`alpha` must be a finite number > 0"),
        (lambda: FORCE(forgetting=1.5), r"`forgetting` must be a finite number > 0 and <= 1"),
        (lambda: EProp(period_ms=0.0), r"`period_ms` must be a finite number > 0"),
        (lambda: RewardHebbian(tau_ms=0.0), r"`tau_ms` must be a finite number > 0"),
        (lambda: TwoFactorRule(eta=2.0), r"`eta` must be a finite number > 0 and < 2"),
    ],
)
def test_settings_out_of_bounds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_recording_needs_no_spikes_for_a_readout():
    readout = Readout(60, K)
    simulate(net(), 50.0, readout=readout, record=Record(spikes="none"))
    assert readout.trace.any()
