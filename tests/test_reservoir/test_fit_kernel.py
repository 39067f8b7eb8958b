"""The loops of a fit: the same cell as in `simulate`, and spike-train measures against references and laws."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from reservoir import SCHEMES, Izhikevich, Record, Reservoir, State, initial_state, simulate
from reservoir.fitting import coincidence_factor
from reservoir.fitting.kernel import count_coincidences, isi_distance
from reservoir.fitting.result import FittedParameter, IzhikevichFit
from reservoir.fitting.search import Objective
from reservoir.fitting.space import Free, Space
from reservoir.fitting.sweeps import prepare_sweeps

DT_MS = 0.1
CELLS = {
    "2007": Izhikevich("CH", form="2007", d=120.0).parameters | {"input_gain": 1.0, "input_bias": 20.0},
    "2003": Izhikevich("IB").parameters | {"input_gain": 0.05, "input_bias": 0.5},
}


def noise(seed, n_steps=8000, n_sweeps=2):
    rng = np.random.default_rng(seed)
    return 250 + 150 * np.repeat(rng.normal(size=(n_steps // 50, n_sweeps)), 50, axis=0)


def fit_of(form, scheme, **measured):
    """Return a fit with the parameters of a cell, as if they had been found."""
    parameters = tuple(
        FittedParameter(name=name, unit="", value=value, low=value, high=value, how="fixed", at_bound=False)
        for name, value in CELLS[form].items()
    )
    rest = {name: None for name in IzhikevichFit.__dataclass_fields__}
    return IzhikevichFit(**rest | {"form": form, "scheme": scheme, "dt_ms": DT_MS, "parameters": parameters} | measured)


def simulated(form, scheme, current, v_start):
    """Return spike times and potentials of the package's own simulator, one sweep a neuron."""
    fit = fit_of(form, scheme)
    n = current.shape[1]
    net = Reservoir.from_edges(n, [], [], [], fit.cell, bias=fit.input_bias, dt_ms=DT_MS, v_min=None)
    rest = CELLS[form].get("v_rest", 0.0)
    start: State = initial_state(net, v=v_start, u=CELLS[form]["b"] * (v_start - rest))
    recording = simulate(net, fit.input_gain * current, state=start, record=Record(traces=("v",)))
    times, neurons = recording.spikes()
    return [times[neurons == k] + DT_MS for k in range(n)], recording.traces["v"][:, 0]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", CELLS)
def test_fitted_cell_is_the_simulated_cell_to_the_last_spike(form, scheme):
    current = noise(0)
    spikes, v = simulated(form, scheme, current, -62.0)
    found = fit_of(form, scheme).predict(current.T, 10_000.0, v_start_mV=-62.0)
    assert min(map(len, spikes)) > 10
    for k in range(2):
        assert np.array_equal(np.rint(found.spikes_ms[k] / DT_MS), np.rint(spikes[k] / DT_MS))
        assert np.array_equal(found.voltage_mV[k], v[:, k])


def objective(form, scheme, *, n_sweeps=2, ceiling=-20.0, n_threads=1):
    """Return an objective over sweeps of unequal length, in which all parameters are free, and the cell's own point."""
    current = noise(1, n_sweeps=n_sweeps)
    _, v = simulated(form, scheme, current, -62.0)
    lengths = 8000 - 500 * np.arange(n_sweeps)
    # The potential at the beginning of each step, and that after the last one is not recorded.
    voltages = [np.concatenate([[-62.0], v[: m - 1, k]]) for k, m in enumerate(lengths)]
    sweeps = prepare_sweeps(voltages, [current[:m, k] for k, m in enumerate(lengths)], 10_000.0)
    sweeps.v_start[:] = -62.0
    free = tuple(Free(name=n, unit="", low=x - 200, high=x + 200, start=x) for n, x in CELLS[form].items())
    space = Space(form=form, parameters=free)
    own = Objective(space, sweeps, {"gamma": 1.0}, scheme=scheme, ceiling=ceiling, delta_ms=2.0, n_threads=n_threads)
    return own, space.start()


@pytest.mark.parametrize("form", CELLS)
def test_true_cell_has_no_loss_neither_free_nor_forced(form):
    own, point = objective(form, "euler")
    times, counts, errors = own.simulate(point[None])
    for k, spikes in enumerate(own.sweeps.spikes):
        # A spike beyond the end of a shorter sweep does not count.
        assert np.allclose(times[0, k, : counts[0, k]], spikes)
    assert np.allclose(errors, 0, atol=1e-9)
    assert own.forced(point[None])[0] < 1e-9
    assert own(point[None])[0] == pytest.approx(0, abs=1e-12)
    other = point.copy()
    other[list(CELLS[form]).index("c")] -= 8
    assert own.forced(other[None])[0] > 0.02


@pytest.mark.parametrize("name", ["input_gain", "a", "b", "c", "d"])
def test_forced_candidates_have_fewer_minima_than_free_ones_and_the_lowest_at_the_true_value(name):
    own, point = objective("2007", "euler")
    line = np.tile(point, (61, 1))
    line[:, list(CELLS["2007"]).index(name)] *= np.linspace(0.5, 1.5, 61)
    minima = {}
    for kind, y in {"free": own.terms(line)["voltage"], "forced": own.forced(line)}.items():
        minima[kind] = np.count_nonzero((y[1:-1] < y[:-2]) & (y[1:-1] < y[2:]))
        assert y.argmin() == 30
    assert minima["forced"] < minima["free"]


@pytest.mark.parametrize(("n_sweeps", "n_candidates"), [(1, 70), (3, 33), (30, 5)])
def test_candidate_in_a_crowd_is_the_candidate_alone(n_sweeps, n_candidates):
    own, point = objective("2007", "euler", n_sweeps=min(n_sweeps, 3))
    crowd = point + np.random.default_rng(0).normal(0, 0.02, (n_candidates, len(point))) * np.abs(point)
    own.n_threads = 3
    together = own.simulate(crowd)
    own.n_threads = 1
    for p in (0, n_candidates // 2, n_candidates - 1):
        for all_of_them, alone in zip(together, own.simulate(crowd[p : p + 1]), strict=True):
            assert np.array_equal(all_of_them[p], alone[0])


def test_squared_distance_is_that_of_the_trace_under_the_ceiling():
    own, point = objective("2003", "iz2003_pub", ceiling=-50.0)
    other = point * 1.03
    traces = [own.sweeps.current[:, k] for k in range(2)]
    fit = fit_of("2003", "iz2003_pub")
    parameters = [
        FittedParameter(name=n, unit="", value=x, low=x, high=x, how="fixed", at_bound=False)
        for n, x in zip(CELLS["2003"], other, strict=True)
    ]
    object.__setattr__(fit, "parameters", tuple(parameters))
    found = fit.predict(traces, 10_000.0, v_start_mV=-62.0)
    for k in range(2):
        v = np.minimum(found.voltage_mV[k][own.sweeps.stride - 1 :: own.sweeps.stride], -50.0)
        goal = own.sweeps.target[: len(v), k]
        assert own.simulate(other[None])[2][0, k] == pytest.approx(np.nansum((v - goal) ** 2), rel=1e-9)


def test_candidate_that_leaves_the_numbers_is_the_worst():
    own, point = objective("2007", "euler")
    wild = point.copy()
    wild[list(CELLS["2007"]).index("a")] = -5.0
    terms = own.terms(np.stack([point, wild]))
    assert all(values[1] == 1e6 for values in terms.values())
    assert all(values[0] == pytest.approx(0, abs=1e-9) for values in terms.values())


# --- spike trains -------------------------------------------------------------------------------------------------


def trains(seed, rate=0.05, duration=1000.0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, duration, rng.poisson(rate * duration))) for _ in range(2)]


@pytest.mark.parametrize("seed", range(8))
def test_coincidences_are_a_maximum_matching(seed):
    data, model = trains(seed)
    near = csr_array((np.abs(data[:, None] - model) <= 5.0).astype(int))
    best = int((maximum_bipartite_matching(near) >= 0).sum())
    assert count_coincidences(data, model, 5.0) == count_coincidences(model, data, 5.0) == best > 5


@pytest.mark.parametrize("seed", range(4))
def test_isi_distance_is_the_mean_of_the_ratio_over_time(seed):
    data, model = trains(seed, rate=0.02)
    t = (np.arange(200_000) + 0.5) * 1000 / 200_000

    def intervals(spikes):
        edges = np.concatenate([[0.0], spikes, [1000.0]])
        return np.diff(edges)[np.searchsorted(edges, t, side="right") - 1]

    first, second = intervals(data), intervals(model)
    expected = 1 - (np.minimum(first, second) / np.maximum(first, second)).mean()
    assert isi_distance(data, model, 1000.0) == pytest.approx(expected, abs=2e-3)
    assert isi_distance(model, data, 1000.0) == pytest.approx(isi_distance(data, model, 1000.0), abs=1e-12)
    assert isi_distance(data, data, 1000.0) == 0


def test_isi_distance_of_silence():
    none, one = np.zeros(0), np.array([250.0])
    assert isi_distance(none, none, 1000.0) == 0
    # Intervals of 250 and 750 ms against one of 1000 ms.
    assert isi_distance(one, none, 1000.0) == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)


def test_coincidence_factor_by_hand():
    """Four recorded, three modelled in 1 s: two pairs within 4 ms; 2 x 3 Hz x 4 ms x 4 = 0.096 by chance."""
    found = coincidence_factor(
        [np.array([100.0, 200.0, 300.0, 400.0])], [np.array([103.0, 196.0, 350.0])], [1000.0], delta_ms=4.0
    )
    assert (found.n_coincident, found.n_expected) == (2, pytest.approx(0.096))
    assert found.gamma == pytest.approx((2 - 0.096) / 3.5 / (1 - 0.024))


def test_coincidence_factor_is_one_for_equal_trains_whatever_the_sweeps():
    sweeps = [trains(k, rate=0.01 * (k + 1))[0] for k in range(3)] + [np.zeros(0)]
    assert coincidence_factor(sweeps, sweeps, [1000.0] * 4).gamma == pytest.approx(1, abs=1e-12)


def test_coincidence_factor_of_independent_poisson_trains_is_zero_on_average():
    gammas = [coincidence_factor(*([x] for x in trains(k, 0.01, 20_000.0)), [20_000.0]).gamma for k in range(60)]
    assert abs(np.mean(gammas)) < 3 * np.std(gammas) / np.sqrt(60)
    assert np.std(gammas) < 0.1


def test_coincidence_factor_without_spikes_is_nan_and_with_one_silent_train_zero():
    silent = [np.zeros(0)]
    assert np.isnan(coincidence_factor(silent, silent, [1000.0]).gamma)
    assert coincidence_factor([np.array([5.0])], silent, [1000.0]).gamma == 0


def test_coincidence_factor_refuses_what_means_nothing():
    fast = [np.arange(1.0, 1000.0, 4.0)]
    with pytest.raises(ValueError, match=r"`delta_ms` must be short against the model's intervals, got 4"):
        coincidence_factor(fast, fast, [1000.0])
    with pytest.raises(ValueError, match=r"`model` must hold 1 sweeps"):
        coincidence_factor(fast, [], [1000.0])
    with pytest.raises(ValueError, match=r"`data` must hold sorted spike times"):
        coincidence_factor([np.array([2.0, 1.0])], fast, [1000.0])
