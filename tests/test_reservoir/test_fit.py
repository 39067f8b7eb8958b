"""From a recording to a cell: known cells come back, held-out sweeps stay out, real ones are fitted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from reservoir import Izhikevich, Population, Record, Reservoir, initial_state, simulate
from reservoir.cells import PRESETS
from reservoir.fitting import (
    LOSSES,
    SPACES,
    TERMS,
    FittedParameter,
    IzhikevichFit,
    find_spikes,
    fit_figure,
    fit_izhikevich,
    prepare_sweeps,
)
from reservoir.fitting.fit import _parameters as named
from reservoir.fitting.fit import hold_out
from reservoir.fitting.search import Objective
from reservoir.fitting.space import make_space

SLOW = pytest.mark.slow
# Fast spiking with linear recovery; the kind FS of 2007 has a cubic one, which is not fitted.
FAST = Izhikevich(
    form="2007", capacitance=20, k=1, v_rest=-55, v_threshold=-40, v_peak=25, a=0.15, b=8, c=-55, d=200
)  # fmt: skip
CELLS = {
    "RS": (Izhikevich("RS", form="2007"), 70.0),
    "IB": (Izhikevich("IB", form="2007"), 400.0),
    "CH": (Izhikevich("CH", form="2007"), 200.0),
    "fast": (FAST, 100.0),
}


def noise_currents(strength, *, seed=1, n_steps=10_000):
    """Ornstein-Uhlenbeck currents of 5 ms, one a sweep, of rising mean."""
    rng = np.random.default_rng(seed)
    means = strength * np.array([0.4, 0.7, 1.0, 1.3, 1.0])
    current, decay = np.zeros((5, n_steps)), np.exp(-0.1 / 5.0)
    kicks = rng.normal(0, 0.5 * strength * np.sqrt(1 - decay**2), (5, n_steps))
    for t in range(1, n_steps):
        current[:, t] = decay * current[:, t - 1] + kicks[:, t]
    return current + means[:, None]


def step_currents(strength, n=13):
    current = np.zeros((n, 10_000))
    current[:, 2000:8000] = strength * np.linspace(-0.5, 2.5, n)[:, None]
    return current


def record(cell, current):
    """Record a cell with the package's simulator: the potential at the beginning of each step of 0.1 ms."""
    n, rest = len(current), cell.parameters["v_rest"]
    net = Reservoir.from_edges(n, [], [], [], cell, dt_ms=0.1, v_min=None)
    trace = simulate(net, current.T, state=initial_state(net, v=rest, u=0.0), record=Record(traces=("v",)))
    return np.concatenate([np.full((n, 1), rest), trace.traces["v"][:-1, 0].T], axis=1)


@pytest.mark.parametrize("kind", [kind if kind in ("RS", "fast") else pytest.param(kind, marks=SLOW) for kind in CELLS])
def test_known_cell_comes_back_from_noise(kind):
    """With the default search: Γ on a held-out current, and all parameters."""
    cell, strength = CELLS[kind]
    current = noise_currents(strength)
    fit = fit_izhikevich(record(cell, current), current, 10_000, held_out=[4], n_threads=1)
    assert fit.held_out.sweeps == (4,)
    assert fit.held_out.gamma > 0.9
    assert sum(fit.held_out.spikes_data) > 5
    assert fit.held_out.explained_variance > 0.98
    assert fit.loss_value < 0.1 * fit.start_loss
    true = {name: cell.parameters[name] for name in fit.values if name in cell.parameters}
    for name in true:
        margin = 0.08 * abs(true[name]) + (0.5 if name == "b" else 0.0)
        assert abs(fit.values[name] - true[name]) <= margin, name
    assert not any(one.at_bound for one in fit.parameters)


def solved(cell, current_at, duration_ms):
    """Record a cell with scipy, from spike to spike, at 20 kHz: independent of any scheme of ours."""
    p = cell.parameters
    t, y, v = 0.0, [p["v_rest"], 0.0], []

    def slope(t, y):
        x, u = y
        force = p["k"] * (x - p["v_rest"]) * (x - p["v_threshold"])
        return (force - u + current_at(t)) / p["capacitance"], p["a"] * (p["b"] * (x - p["v_rest"]) - u)

    def spike(t, y):
        return y[0] - p["v_peak"]

    spike.terminal, spike.direction = True, 1
    times = np.arange(round(duration_ms * 20)) / 20
    while t < duration_ms:
        wanted = times[len(v) :]
        out = solve_ivp(
            slope, (t, duration_ms), y, "LSODA", wanted, events=spike, rtol=1e-6, atol=1e-6, max_step=2.0
        )  # fmt: skip
        v.extend(out.y[0])
        if out.status != 1 or not len(out.t_events[0]):
            break
        # A spike as it is sampled: its peak, unless that was a sample.
        if v:
            v[-1] = p["v_peak"]
        t, y = float(out.t_events[0][0]), [p["c"], float(out.y_events[0][0][1]) + p["d"]]
    return np.array(v[: len(times)])


def test_cell_that_scipy_integrated_comes_back():
    """Sums of sines up to 60 Hz, smooth enough for an adaptive solver; the last sweep is held out."""
    cell = Izhikevich("RS", form="2007")
    rng = np.random.default_rng(0)
    hz, voltage, current = np.arange(2.0, 60.0, 2.0), [], []
    t_ms = np.arange(20_000) / 20
    for mean in (40.0, 80.0, 120.0, 90.0):
        phases = rng.uniform(0, 2 * np.pi, len(hz))

        def current_at(t, mean=mean, phases=phases):
            return mean + 14 * np.sin(2 * np.pi * hz * t / 1000 + phases).sum()

        voltage.append(solved(cell, current_at, 1000.0))
        current.append([current_at(t) for t in t_ms])
    fit = fit_izhikevich(np.array(voltage), np.array(current), 20_000, held_out=[3], n_threads=1)
    assert sum(fit.held_out.spikes_data) >= 5
    assert fit.held_out.gamma > 0.9
    assert fit.held_out.explained_variance > 0.98
    for name in ("capacitance", "k", "a", "d"):
        assert fit.values[name] == pytest.approx(cell.parameters[name], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CELLS)
def test_known_cell_comes_back_from_steps(kind):
    cell, strength = CELLS[kind]
    current = step_currents(strength)
    fit = fit_izhikevich(record(cell, current), current, 10_000)
    # Regular firing over 600 ms adds up small errors of the interval: spikes leave the 4 ms, the counts stay.
    assert fit.held_out.gamma > 0.8
    assert fit.held_out.count_error <= 0.5
    assert fit.held_out.explained_variance > 0.97


def small_recording():
    current = step_currents(70.0, n=4)[:, ::2]
    return record(Izhikevich("RS", form="2007"), current), current


TINY = {"n_iterations": 4, "n_candidates": 12, "n_threads": 1}


@pytest.mark.parametrize("form", SPACES)
def test_fit_is_the_same_for_a_seed_and_any_threads(form):
    voltage, current = small_recording()
    first = fit_izhikevich(voltage, current, 10_000, form=form, generator=3, **TINY)
    second = fit_izhikevich(voltage, current, 10_000, form=form, generator=3, **{**TINY, "n_threads": 3})
    other = fit_izhikevich(voltage, current, 10_000, form=form, generator=4, **TINY)
    assert first.values == second.values != other.values
    assert first.train == second.train
    assert set(first.values) - {"input_gain", "input_bias"} <= {*PRESETS["2007"]["RS"]}


@pytest.mark.parametrize("loss", [*LOSSES, {"count": 2.0, "voltage": 1.0}])
def test_loss_is_the_weighted_sum_of_its_terms(loss):
    voltage, current = small_recording()
    fit = fit_izhikevich(voltage, current, 10_000, held_out=0, loss=loss, **TINY)
    sweeps = prepare_sweeps(voltage, current, 10_000)
    own = Objective(fit._space(), sweeps, {}, scheme=fit.scheme, ceiling=fit.ceiling_mV, delta_ms=4.0)
    terms = own.terms(np.zeros((1, 0)))
    assert set(terms) == set(TERMS)
    weights = LOSSES[loss] if isinstance(loss, str) else loss
    assert fit.loss_value == pytest.approx(sum(w * terms[name][0] for name, w in weights.items()), rel=1e-12)
    assert terms["gamma"][0] == pytest.approx(1 - fit.train.gamma)
    assert terms["voltage"][0] ** 2 == pytest.approx(1 - fit.train.explained_variance)


def test_what_is_held_out_does_not_change_the_fit():
    voltage, current = small_recording()
    fit = fit_izhikevich(voltage, current, 10_000, held_out=[1], **TINY)
    changed = voltage.copy()
    changed[1] = -65.0
    again = fit_izhikevich(changed, current, 10_000, held_out=[1], **TINY)
    assert again.values == fit.values
    assert again.measured == fit.measured
    assert again.held_out != fit.held_out
    assert fit.train.sweeps == (0, 2, 3)


def test_default_holds_a_quarter_out_but_never_the_only_sweep_or_the_one_that_fires_most():
    voltage, current = small_recording()
    sweeps = prepare_sweeps(voltage, current, 10_000)
    assert hold_out(sweeps, None) == ([0, 2, 3], [1])
    assert hold_out(sweeps.choose([3]), None) == ([0], [])
    assert hold_out(sweeps.choose([3, 0]), None) == ([0], [1])
    for fraction in (0.25, 0.5, 0.75):
        train, apart = hold_out(sweeps, fraction)
        assert 3 in train
        assert len(apart) == 4 * fraction
    assert hold_out(sweeps, 0)[1] == hold_out(sweeps, [])[1] == []


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ([4], r"`held_out` must be a whole number >= 0 and <= 3, got 4"),
        ([1, 1], r"`held_out` must name each sweep once"),
        ([0, 1, 2, 3], r"`held_out` must leave one of 4 sweeps to be fitted"),
        (1.0, r"`held_out` must be a finite number >= 0 and < 1, got 1\.0\. Or list sweeps"),
        ([3, 2], r"`voltage` must hold spikes in the sweeps that are fitted"),
    ],
)
def test_held_out_sweeps_that_leave_no_fit_are_refused(held_out, message):
    voltage, current = small_recording()
    with pytest.raises(ValueError, match=message):
        fit_izhikevich(voltage, current, 10_000, held_out=held_out, **TINY)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"form": "1952"}, r"`form` must be one of '2007', '2003'"),
        ({"loss": "mse"}, r"`loss` must be one of 'features', 'gamma', 'voltage'"),
        ({"loss": {"rate": 1.0}}, r"`loss` must be one of 'voltage', 'count'"),
        ({"loss": {"count": 0.0}}, r"`loss` must give one term a weight"),
        ({"bounds": {"tau": (1, 2)}}, r"`bounds` must be one of 'capacitance'"),
        ({"bounds": {"k": (2, 1)}}, r"`bounds` must be a finite number >= 2, got 1"),
        ({"bounds": {"k": (0, 1)}}, r"`bounds` must be above 0 for 'k'"),
        ({"bounds": {"k": 1.0}}, r"`bounds` must be \(low, high\) for 'k'"),
        ({"dt_ms": 0.15}, r"`dt_ms` must be a multiple of the sample interval"),
        ({"n_candidates": 2}, r"`n_candidates` must be a whole number >= 8"),
        ({"scheme": "rk4"}, r"`scheme` must be one of"),
        ({"delta_ms": 0.0}, r"`delta_ms` must be"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(wrong, message):
    voltage, current = small_recording()
    with pytest.raises(ValueError, match=message):
        fit_izhikevich(voltage, current, 10_000, **{**TINY, **wrong})


def test_bounds_fix_what_is_known_and_say_where_they_choose():
    voltage, current = small_recording()
    bounds = {"capacitance": (100.0, 100.0), "v_peak": (30.0, 40.0)}
    fit = fit_izhikevich(voltage, current, 10_000, bounds=bounds, **TINY)
    found = {one.name: one for one in fit.parameters}
    assert (found["capacitance"].value, found["capacitance"].how) == (100.0, "fixed")
    assert found["v_peak"].how == "fitted"
    assert 30 <= found["v_peak"].value <= 40
    # On a logarithmic scale 1.1 is far from 1 if the other end is 1.5, and close to it if that is 1e6.
    for high, at_bound in ((1.5, False), (1e6, True)):
        space = make_space("2007", fit.measured, bounds={"k": (1.0, high)})
        point = np.array([np.log(1.1) if one.name == "k" else space.start()[n] for n, one in enumerate(space.free)])
        found = {one.name: one for one in named(space, point)}
        assert found["k"].value == pytest.approx(1.1)
        assert found["k"].at_bound is at_bound
    shown = replace(fit, parameters=named(space, point)).table()
    assert [line.split()[0] for line in shown.splitlines() if "AT ITS BOUND" in line] == ["k"]


def test_cell_that_fires_by_itself_gets_a_bias():
    current = noise_currents(80.0) - 80.0
    current[:, :3000] = 0.0
    voltage = record(Izhikevich("RS", form="2007"), current + 90.0)
    fit = fit_izhikevich(voltage, current, 10_000, held_out=[4], n_threads=1)
    assert fit.measured.fires_at_rest
    assert fit.parameters[-1].how == "fitted"
    assert fit.held_out.gamma > 0.8
    quiet, steps = small_recording()
    assert fit_izhikevich(quiet, steps, 10_000, **TINY).input_bias == 0
    assert fit_izhikevich(quiet, steps, 10_000, fit_bias=True, **TINY).input_bias != 0


def test_with_a_bias_the_two_potentials_are_interchangeable():
    """k (v - r)(v - t) - u + I is the same for r + s and t - s, if u and I take up what is left of b and k."""
    voltage, current = small_recording()
    fit = fit_izhikevich(voltage, current, 10_000, fit_bias=True, held_out=0, **TINY)
    p = fit.values
    rest, threshold = p["v_rest"] + 7.0, p["v_threshold"] - 7.0
    product = p["v_rest"] * p["v_threshold"] - rest * threshold
    bias = p["input_bias"] + p["k"] * product + p["b"] * (p["v_rest"] - rest)
    moved = {"v_rest": rest, "v_threshold": threshold, "input_bias": bias}
    other = replace(fit, parameters=tuple(replace(q, value=moved.get(q.name, q.value)) for q in fit.parameters))
    one, two = (x.predict(current, 10_000, v_start_mV=-60.0) for x in (fit, other))
    assert sum(map(len, one.spikes_ms)) > 10
    for k in range(len(current)):
        assert np.allclose(one.spikes_ms[k], two.spikes_ms[k])
        assert np.allclose(one.voltage_mV[k], two.voltage_mV[k], atol=1e-5)


def test_fit_at_the_step_of_a_network_is_a_cell_of_that_network():
    voltage, current = small_recording()
    fit = fit_izhikevich(voltage, current, 10_000, dt_ms=0.5, **TINY)
    assert fit.dt_ms == 0.5
    populations = {"all": Population(size=20, neuron=fit.cell, bias=(fit.input_bias + 150.0, 0.0))}
    net = Reservoir(20, p_connect=0.0, populations=populations, dt_ms=fit.dt_ms, v_min=None, generator=0)
    rest = fit.measured.rest_mV
    u = fit.values["b"] * (rest - fit.values["v_rest"])
    times, neurons = simulate(net, 400.0, state=initial_state(net, v=rest, u=u)).spikes()
    alone = fit.predict(np.full(800, 150.0), 2000.0).spikes_ms[0]
    assert len(alone) > 2
    assert np.allclose(times[neurons == 7] + 0.5, alone)


def test_time_budget_ends_the_search_and_is_said():
    voltage, current = small_recording()
    fit = fit_izhikevich(voltage, current, 10_000, n_iterations=100_000, n_candidates=20, max_seconds=0.5, n_threads=1)
    assert fit.stopped_by == "time"
    assert fit.loss_value <= fit.start_loss


def test_saved_fit_is_the_fit(tmp_path):
    voltage, current = small_recording()
    fit = fit_izhikevich(voltage, current, 10_000, **TINY)
    fit.save(tmp_path / "cell.json")
    again = IzhikevichFit.load(tmp_path / "cell.json")
    for name in IzhikevichFit.__dataclass_fields__:
        if name != "held_out":
            assert getattr(again, name) == getattr(fit, name), name
    # Γ may be NaN in silent held-out sweeps.
    assert repr(again.held_out) == repr(fit.held_out)
    assert repr(again.cell) == repr(fit.cell)
    assert all(isinstance(one, FittedParameter) for one in again.parameters)
    assert again.evaluate(voltage[[0, 2, 3]], current[[0, 2, 3]], 10_000).gamma == fit.train.gamma
    (tmp_path / "other.json").write_text('{"format": "something"}')
    with pytest.raises(ValueError, match=r"other.json' cannot be read: it is no saved fit of this version"):
        IzhikevichFit.load(tmp_path / "other.json")


def test_figure_shows_sweeps_raster_and_curve():
    import matplotlib.pyplot as plt

    voltage, current = small_recording()
    fit = fit_izhikevich(voltage, current, 10_000, **TINY)
    fig = fit_figure(fit, voltage, current, 10_000)
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert sum(title.startswith("sweep") for title in titles) == len(titles) - 2 >= 2
    curve = next(ax for ax in fig.axes if ax.get_title(loc="left").startswith("spikes in a sweep"))
    recorded = curve.lines[0]
    assert recorded.get_xdata() == pytest.approx(current[:, 2000])
    assert recorded.get_ydata().tolist() == [len(find_spikes(v, 10_000)) for v in voltage]
    fig.canvas.draw()
    plt.close(fig)


# Recording: on held-out sweeps bounds of the count error, of the explained variance, and of Γ at 4 ms.
REAL = {
    "171116sh_0018": (1.0, 0.75, 0.0),
    "18713001": (1.5, 0.7, 0.05),
    "2019_07_24_0055_fsi": (4.0, 0.75, 0.4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_cells_are_fitted_in_counts_and_potential_on_held_out_sweeps(name, shared_data):
    """Regression: what seeds 0 to 2 gave, with a margin. Single spikes of the first cell are hardly predicted."""
    file = shared_data / "patch_clamp" / "pyabf_current_clamp.npz"
    if not file.exists():
        pytest.skip(f"needs {file}")
    with np.load(file) as arrays:
        sfreq = json.loads(str(arrays["info"]))[name]["fs"]
        voltage, current = arrays[f"{name}_V"], arrays[f"{name}_I"]
    fit = fit_izhikevich(voltage, current, sfreq)
    count_error, variance, gamma = REAL[name]
    assert fit.held_out.count_error < count_error
    assert fit.held_out.explained_variance > variance
    assert fit.held_out.gamma > gamma
