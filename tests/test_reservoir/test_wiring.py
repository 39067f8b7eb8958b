"""Networks: what is connected, the law of Dale, sizes beyond small integers, errors; and the course of a current."""

import numpy as np
import pytest
import scipy.sparse
import torch

from reservoir import Izhikevich, Population, Record, Reservoir, Stimulus, Synapse, initial_state, simulate
from reservoir.wiring import from_edges, random_edges

RS = Izhikevich("RS")


def matrix(n=30, seed=0, p=0.3):
    rng = np.random.default_rng(seed)
    weights = rng.random((n, n)) * (rng.random((n, n)) < p)
    weights[n // 2 :] *= -1
    return weights


@pytest.mark.parametrize("make", [scipy.sparse.csr_array, scipy.sparse.coo_matrix, torch.tensor, "torch", "torch csr"])
def test_matrix_of_any_kind_gives_the_same_network(make):
    weights = matrix()
    want = Reservoir.from_weights(weights, RS).digest()
    if make == "torch":
        given = torch.tensor(weights).to_sparse()
    elif make == "torch csr":
        with pytest.warns(UserWarning, match=r"beta"):
            given = torch.tensor(weights).to_sparse_csr()
    else:
        given = make(weights)
    assert Reservoir.from_weights(given, RS).digest() == want


def test_edges_in_any_order_give_the_same_network():
    weights = matrix()
    pre, post = np.nonzero(weights)
    order = np.random.default_rng(1).permutation(len(pre))
    net = Reservoir.from_edges(30, pre[order], post[order], weights[pre, post][order], RS)
    assert net.digest() == Reservoir.from_weights(weights, RS).digest()
    assert np.array_equal(net.to_dense(), weights)


def test_synapses_lie_by_delay_then_sender_then_receiver():
    rng = np.random.default_rng(0)
    pre, post, delay = rng.integers(0, 20, 400), rng.integers(0, 20, 400), rng.choice([0, 2, 7], 400)
    wiring = from_edges(20, pre, post, np.arange(400.0), delay)
    key = np.stack([-wiring.delay(), wiring.pre(), wiring.post.astype(int), wiring.weight])
    assert np.array_equal(key[:, np.lexsort(key[::-1])], key)
    back = np.stack([delay, pre, post])[:, wiring.weight.astype(int)]
    assert np.array_equal(back, np.stack([wiring.delay(), wiring.pre(), wiring.post]))


@pytest.mark.parametrize("edges", [(0, 7, 20), (0, 1, 2, 19, 20)])
def test_cuts_part_each_segment_by_receiver(edges):
    rng = np.random.default_rng(0)
    wiring = from_edges(
        20, rng.integers(0, 20, 300), rng.integers(0, 20, 300), rng.random(300), rng.choice([0, 3], 300)
    )
    cuts = wiring.cuts(edges)
    for k in range(len(edges) - 1):
        for low, high in zip(cuts[k], cuts[k + 1], strict=True):
            assert ((wiring.post[low:high] >= edges[k]) & (wiring.post[low:high] < edges[k + 1])).all()
    assert np.array_equal(cuts[0], wiring.start[:-1])
    assert np.array_equal(cuts[-1], wiring.start[1:])


@pytest.mark.parametrize("p", [0.0, 0.02, 0.5, 1.0])
def test_random_network_has_the_density_asked_for_and_no_autapses(p):
    n = 400
    net = Reservoir(n, p_connect=p, generator=3)
    pre, post = net.wiring.pre(), net.wiring.post
    pairs = n * (n - 1)
    assert abs(len(pre) - p * pairs) <= 4 * np.sqrt(pairs * p * (1 - p)) + (0 if p in (0, 1) else 1)
    assert (pre != post).all()
    assert len(np.unique(pre * n + post)) == len(pre)
    received = np.bincount(post, minlength=n)
    assert abs(received - p * (n - 1)).max() <= 5.5 * np.sqrt(n * p * (1 - p))


def test_random_network_keeps_dales_law_and_the_scale_of_its_weights():
    net = Reservoir(1000, gain=2.0, generator=0)
    excites = net.signs[net.populations["E"]]
    assert (excites == 1).all()
    assert (net.signs[net.populations["I"]] == -1).all()
    weight = net.wiring.weight[net.wiring.weight > 0]
    assert abs(weight.mean() / (2.0 * 0.6 / np.sqrt(100)) - 1) < 0.02
    assert weight.max() <= 2 * 2.0 * 0.6 / 10


def test_same_seed_gives_the_same_network():
    want = Reservoir(100, generator=5).digest()
    assert Reservoir(100, generator=np.random.default_rng(5)).digest() == want
    assert Reservoir(100, generator=6).digest() != want
    first, second = (Reservoir(100, generator=torch.Generator().manual_seed(5)).digest() for _ in range(2))
    assert first == second != want


def test_running_leaves_the_network_as_it_was():
    net = Reservoir(100, generator=0)
    before = net.digest()
    simulate(net, 100.0)
    assert net.digest() == before


def test_neuron_with_both_signs_breaks_dales_law():
    weights = matrix()
    weights[3, :2] = [1.0, -1.0]
    with pytest.raises(ValueError, match=r"both signs from neuron 3 and 0 others. Pass dale=False"):
        Reservoir.from_weights(weights, RS)
    assert Reservoir.from_weights(weights, RS, dale=False).signs[3] == 2


def test_index_fits_the_number_of_neurons():
    assert from_edges(1 << 16, [0], [65535], [1.0]).post.dtype == np.uint16
    assert from_edges(70_000, [0], [69_999], [1.0]).post.tolist() == [69_999]


def test_network_beyond_16_bits_delivers_to_its_last_neuron():
    net = Reservoir.from_edges(70_000, [0, 69_998], [69_999, 0], [500.0, 500.0], RS, synapse=Synapse(0.0))
    drive = np.zeros((2, 70_000))
    drive[0, [0, 69_998]] = 500.0
    rec = simulate(net, drive)
    assert list(zip(*(a.tolist() for a in rec.spike_steps()), strict=True)) == [
        (0, 0),
        (0, 69_998),
        (1, 0),
        (1, 69_999),
    ]


def test_places_of_synapses_have_64_bits():
    wiring = from_edges(5, [0, 1], [1, 2], [1.0, 1.0])
    assert wiring.start.dtype == np.int64
    assert wiring.cuts((0, 5)).dtype == np.int64
    # Flat numbers of pairs beyond 2**31: the last sender of a population of 60 000.
    pre, post = random_edges(slice(0, 60_000), slice(0, 60_000), 2e-9, np.random.default_rng(0))
    assert pre.max(initial=0) < 60_000
    assert post.max(initial=0) < 60_000


def current_of_one_spike(synapse, dt_ms, n_steps, dtype="float64"):
    """Return the current that neuron 1 gets from one spike of neuron 0 in step 0, without neurons in the way."""
    still = Izhikevich(a=0.02, b=0.2, c=-70.0, d=0.0, v_peak=1e9)
    net = Reservoir.from_edges(2, [0], [1], [3.0], still, synapse=synapse, dt_ms=dt_ms, v_min=None)
    net.parameters["v_peak"][0] = -1.0
    start = initial_state(net, v=[[0.0, -70.0]], u=[[0.0, -14.0]], dtype=dtype)
    record = Record(traces=("i_syn",), neurons=[1])
    return simulate(net, Stimulus(n_steps * dt_ms), state=start, record=record, dtype=dtype).traces["i_syn"][:, 0, 0]


def test_single_exponential_decays_exactly():
    current = current_of_one_spike(Synapse(5.0), 0.5, 200)
    assert current[0] == 0
    assert np.allclose(current[1:], 3.0 * np.exp(-0.1 * np.arange(199)), rtol=1e-12, atol=0)


def test_current_without_time_constant_lasts_one_step():
    assert current_of_one_spike(Synapse(0.0), 1.0, 5).tolist() == [0, 3, 0, 0, 0]


@pytest.mark.parametrize(("dt", "excess"), [(0.04, 1.011), (0.5, None)])
def test_double_exponential_has_the_area_and_the_peak_of_its_scheme(dt, excess):
    """Nicola & Clopath 2017: the area is w dt^2 / (tr td (1 - e_r)(1 - e_d)), the peak is at 5.12 ms."""
    rise, tau = 2.0, 20.0
    current = current_of_one_spike(Synapse(tau, rise), dt, round(800 / dt))
    area = 3.0 * dt**2 / (rise * tau * (1 - np.exp(-dt / rise)) * (1 - np.exp(-dt / tau)))
    assert abs(current.sum() * dt / area - 1) < 1e-12
    if excess:
        assert abs(area / 3.0 - excess) < 5e-4
    peak = np.log(tau / rise) * tau * rise / (tau - rise)
    assert abs(current.argmax() * dt - dt - peak) <= dt


@pytest.mark.parametrize("delay", [0, 1, 6])
def test_spike_acts_one_step_and_its_delay_later(delay):
    net = Reservoir.from_edges(2, [0], [1], [7.0], RS, delay=delay)
    drive = np.zeros((12, 2))
    drive[2, 0] = 500.0
    rec = simulate(net, drive, record=Record(traces=("i_syn",), neurons=[1]))
    assert rec.spike_steps()[0][0] == 2
    assert np.flatnonzero(rec.traces["i_syn"][:, 0, 0])[0] == 2 + 1 + delay


def test_populations_that_do_not_fit_are_refused():
    half = {"a": Population(size=0.5, neuron="RS"), "b": Population(size=0.4, neuron="RS")}
    with pytest.raises(ValueError, match=r"add up to 1"):
        Reservoir(10, populations=half)
    with pytest.raises(ValueError, match=r"hold 10 neurons together"):
        Reservoir(10, populations={"a": Population(size=4, neuron="RS")})
    other = {"a": Population(size=5, neuron="RS"), "b": Population(size=5, neuron=Izhikevich("RS", form="2007"))}
    with pytest.raises(ValueError, match=r"share one form, scheme and quadratic"):
        Reservoir(10, populations=other)
    with pytest.raises(ValueError, match=r"`kind` must be one of"):
        Reservoir(10, populations={"a": Population(size=10, neuron="nothing")})
    with pytest.raises(
        ValueError, match=r"`delay_ms` must be a multiple of the time step, 0.5 ms, got 1.7. Use 1.5 ms"
    ):
        Reservoir(10, delay_ms=1.7, dt_ms=0.5)
    with pytest.raises(ValueError, match=r"`pre` must hold neurons 0 to 4, got 0 to 5"):
        from_edges(5, [0, 5], [1, 1], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"`weight` must hold finite numbers only"):
        from_edges(5, [0], [1], [np.inf])
