"""Pictures of reservoirs: what is drawn is what was given, and says so."""

import ast
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from reservoir import (
    Izhikevich,
    LearningCurves,
    PredictionTask,
    Pulse,
    Record,
    Recording,
    Reservoir,
    Stimulus,
    plots,
    simulate,
    standard_blocks,
)
from reservoir.analysis import (
    Angles,
    PerturbationGrowth,
    Spectrum,
    SpikeTrains,
    condition_space,
    perturbation_growth,
    subspace_angles,
)
from reservoir.plots.base import COLOURS, label_ends

PLOTS = Path(plots.__file__).parent


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


def texts(figure):
    """Return everything that is written into the axes of a figure."""
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def spans(ax):
    """Return begin and end of each shaded stretch of the horizontal axis."""
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]


def lines(ax, colour=None):
    return [line for line in ax.lines if colour is None or to_hex(line.get_color()) == colour.lower()]


def make_curves(rmse, tests=(0, 10, 50), blocks=None, outputs=None):
    """Return curves of given errors, (blocks, tests, B)."""
    rmse = np.asarray(rmse, dtype=float)
    blocks = standard_blocks()[: len(rmse)] if blocks is None else blocks
    n_lanes = rmse.shape[2]
    if outputs is None:
        outputs = np.zeros((len(rmse), 1, 700, n_lanes, 2))
    weights = np.zeros((*rmse.shape, 2, 3))
    return LearningCurves(
        blocks=tuple(blocks), tests=np.array(tests), rmse=rmse, outputs=outputs, when_weights=weights,
        what_weights=weights,
    )  # fmt: skip


# --- all of them --------------------------------------------------------------------------------------------------


def test_importing_draws_in_no_matplotlib():
    code = "import sys, reservoir.plots, reservoir.analysis; print('matplotlib' in sys.modules)"
    root = PLOTS.parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"


def test_none_shows_a_figure():
    for path in PLOTS.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "show"], path


def every_plot():
    net = Reservoir(20, generator=0)
    recording = simulate(net, 50.0, record=Record(traces=("v",)), n_threads=1)
    growth = PerturbationGrowth(
        t_ms=np.arange(1.0, 11), distance=np.ones((2, 10)), unrelated=np.ones((2, 10)), rate_per_ms=0.0,
        error_per_ms=0.0, window_ms=(1.0, 10.0), neurons=np.array([0, 1]), measure="spikes",
    )  # fmt: skip
    space = condition_space(np.random.default_rng(0).standard_normal((6, 9)), {"p": np.arange(6)}, n_permutations=9)
    task, flat = PredictionTask((250.0, 450.0), 0.8), np.ones((20, 20))
    return {
        "ablations": lambda ax: plots.ablations({"full": [0.1, 0.2]}, ax=ax),
        "angles": lambda ax: plots.angles(subspace_angles(np.eye(2, 30), np.eye(2, 30)[:, ::-1]), ax=ax),
        "condition_plane": lambda ax: plots.condition_plane(space, colour_by="p", ax=ax),
        "divergence": lambda ax: plots.divergence(growth, ax=ax),
        "learning_curves": lambda ax: plots.learning_curves(make_curves(np.full((2, 3, 2), 0.1)), ax=ax),
        "predictions": lambda ax: plots.predictions(task.truth(dt_ms=1.0), task, dt_ms=1.0, ax=ax),
        "probability_sweep": lambda ax: plots.probability_sweep([0, 0.5, 1], np.eye(3)[:, :2], ax=ax),
        "raster": lambda ax: plots.raster(recording, ax=ax),
        "readout_weights": lambda ax: plots.readout_weights(flat, flat, ax=ax),
        "spectrum": lambda ax: plots.spectrum(Spectrum(frequency_hz=np.arange(300.0), power=np.ones(300)), ax=ax),
        "voltages": lambda ax: plots.voltages(recording, ax=ax),
        "weight_matrix": lambda ax: plots.weight_matrix(net, ax=ax),
    }


def test_every_plot_is_in_the_list():
    # The last two: one takes a figure of its own, and one writes what was drawn.
    assert {*every_plot(), "block_predictions", "save_figure"} == set(plots.__all__)


@pytest.mark.parametrize("name", every_plot())
def test_every_plot_draws_into_given_axes_or_its_own_and_names_both(name):
    given, ax = plt.subplots(layout="constrained")
    draw = every_plot()[name]
    assert draw(ax) is given
    assert plt.get_fignums() == [given.number], "no other figure was made"
    own = draw(None)
    assert own is not given
    for axes in (ax, own.axes[0]):
        assert axes.get_xlabel()
        # Bars have names instead.
        assert axes.get_ylabel() or axes.get_yticklabels()[0].get_text() == "full"
    own.canvas.draw()


# --- activity -----------------------------------------------------------------------------------------------------


def test_raster_draws_every_spike_in_the_colour_of_its_population():
    trains = SpikeTrains(t_ms=[5.0, 20.0, 30.0], neurons=[0, 3, 3], n=4, stop_ms=100.0)
    places = {"E": slice(0, 3), "I": slice(3, 4)}
    figure = plots.raster(trains, populations=places, zero_ms=10.0)
    one, other = figure.axes[0].collections
    assert np.asarray(one.get_offsets()).tolist() == [[-5, 0]]
    assert np.asarray(other.get_offsets()).tolist() == [[10, 3], [20, 3]]
    assert [to_hex(dots.get_facecolor()[0]) for dots in (one, other)] == [name.lower() for name in COLOURS[:2]]
    assert figure.axes[0].get_xlim() == (-10, 90)
    assert texts(figure) == ["E\n3.3 Hz", "I\n20.0 Hz"]
    with pytest.raises(ValueError, match=r"`populations` must hold some of the 4 neurons"):
        plots.raster(trains, populations={"E": slice(0, 5)})


def test_raster_of_many_spikes_draws_whole_neurons_and_says_so():
    rng = np.random.default_rng(0)
    trains = SpikeTrains(t_ms=rng.random(9000) * 1000, neurons=rng.integers(0, 90, 9000), n=90, stop_ms=1000.0)
    figure = plots.raster(trains, max_spikes=3000, populations={"all": slice(0, 90)})
    drawn = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert set(drawn[:, 1]) == set(range(0, 90, 3))
    counts = trains.counts()
    assert len(drawn) == counts[::3].sum()
    assert figure.axes[0].get_ylabel() == "neuron (one in 3 drawn)"
    # The rate is that of all.
    assert texts(figure) == ["all\n100.0 Hz"]


def test_inputs_are_shaded_where_the_run_had_them():
    net = Reservoir.from_edges(3, [], [], [], Izhikevich("RS"))
    first = simulate(net, 40.0)
    stimulus = Stimulus(60.0, pulses=[Pulse(10.0, 20.0, 5.0), Pulse(10.0, 20.0, 1.0), Pulse(30.0, 50.0, 5.0)])
    later = simulate(net, stimulus, state=first.state, record=Record(traces=("v",)))
    for figure in (plots.raster(later, inputs=stimulus), plots.voltages(later, inputs=stimulus)):
        assert spans(figure.axes[0]) == [(50, 60), (70, 90)]
    figure = plots.raster(later, inputs=[(50.0, 60.0, "cue")], zero_ms=50.0)
    assert spans(figure.axes[0]) == [(0, 10)]
    assert "cue" in texts(figure)
    with pytest.raises(ValueError, match=r"`inputs` must be a Stimulus, or hold \(start, stop\)"):
        plots.raster(later, inputs=[(50.0,)])
    with pytest.raises(ValueError, match=r"`stop_ms` must be a finite number > 60"):
        plots.raster(later, inputs=[(60.0, 50.0)])


def test_raster_of_silence_says_so():
    assert texts(plots.raster(SpikeTrains(t_ms=[], neurons=[], n=3, stop_ms=10.0))) == ["no spikes"]


def test_voltages_keep_their_shape_and_the_bar_its_height():
    net = Reservoir.from_edges(4, [], [], [], Izhikevich("RS"), bias=np.array([0.0, 5.0, 10.0, 15.0]))
    recording = simulate(net, 200.0, record=Record(traces=("v",), neurons=[1, 3], every=2))
    figure = plots.voltages(recording, start_ms=50.0, bar_mV=40.0)
    ax, t_ms = figure.axes[0], recording.trace_ms()
    inside, drawn = t_ms >= 50, [line for line in ax.lines if len(line.get_xdata()) > 2]
    for k, line in enumerate(drawn):
        v = recording.traces["v"][inside, 0, k]
        assert np.allclose(np.diff(line.get_ydata()), np.diff(v)), "in mV, whatever the offset"
        assert np.array_equal(line.get_xdata(), t_ms[inside])
        assert texts(figure)[k] == f"{v.min():.0f} mV"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "3"]
    (bar,) = lines(ax, "#D55E00")
    assert np.isclose(np.ptp(bar.get_ydata()), 40)
    with pytest.raises(ValueError, match=r"`neurons` must name some of the watched neurons, got \[0\]"):
        plots.voltages(recording, neurons=[0])
    with pytest.raises(ValueError, match=r"`recording` must hold the trace 'v', got no traces"):
        plots.voltages(simulate(net, 10.0))
    with pytest.raises(ValueError, match=r"`start_ms` must leave some of the recording, 0 to 200 ms"):
        plots.voltages(recording, start_ms=300.0, stop_ms=400.0)


def test_spectrum_draws_the_mean_and_the_parts_of_the_power():
    frequency = np.arange(0.0, 251.0)
    flat = Spectrum(frequency_hz=frequency, power=np.ones(251))
    peak = Spectrum(frequency_hz=frequency, power=np.ones(251) + 100 * (frequency == 10))
    figure = plots.spectrum([flat, peak])
    ax = figure.axes[0]
    thick = max(ax.lines, key=lambda line: line.get_linewidth())
    assert np.allclose(thick.get_ydata(), ((flat.power + peak.power) / 2)[1:101])
    # Of 200 frequencies 7 are alpha; with the peak 107 of 300 units. The mean of both parts is 20 %.
    assert texts(figure)[0] == "alpha\n20 %\n(flat: 3 %)"
    assert spans(ax) == [(7, 13), (30, 60)]
    with pytest.raises(ValueError, match=r"`found` must hold spectra with the same frequencies"):
        plots.spectrum([flat, Spectrum(frequency_hz=frequency[:200], power=np.ones(200))])
    # Nothing fires: nothing to divide by.
    assert plots.spectrum(Spectrum(frequency_hz=frequency, power=np.zeros(251))).axes[0].get_yscale() == "linear"


def test_divergence_draws_mean_fit_and_rate():
    found = perturbation_growth(Reservoir(100, generator=0), 200.0, n_repeats=4, n_threads=1)
    figure = plots.divergence(found)
    ax = figure.axes[0]
    assert np.allclose(lines(ax, COLOURS[0])[0].get_ydata(), found.distance.mean(axis=0), equal_nan=True)
    assert np.array_equal(lines(ax, COLOURS[1])[0].get_ydata(), found.fit, equal_nan=True)
    assert f"{found.rate_per_ms:+.4f}" in texts(figure)[0]
    assert ax.get_yscale() == "log"
    dead = perturbation_growth(
        Reservoir.from_edges(3, [], [], [], Izhikevich("RS")), 20.0, nudge="voltage", n_repeats=2, settle_ms=0.0
    )
    assert texts(plots.divergence(dead))[0].startswith("no rate")


# --- learning -----------------------------------------------------------------------------------------------------


def test_learning_curves_draw_means_spread_and_borders():
    rmse = np.random.default_rng(0).random((3, 3, 4))
    figure = plots.learning_curves(make_curves(rmse))
    ax = figure.axes[0]
    drawn = lines(ax, COLOURS[0])
    for block, line in enumerate(drawn):
        assert line.get_xdata().tolist() == [0 + 50 * block, 10 + 50 * block, 50 + 50 * block]
        assert np.allclose(line.get_ydata(), rmse[block].mean(axis=1))
        band = ax.collections[block].get_paths()[0].vertices
        at = band[np.isclose(band[:, 0], 10 + 50 * block), 1]
        mean, spread = rmse[block, 1].mean(), rmse[block, 1].std(ddof=1)
        assert np.allclose([at.min(), at.max()], [mean - spread, mean + spread])
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"] == [50, 100]
    assert texts(figure)[:2] == ["A 250 ms: 0.8\nB 450 ms: 0.2", "A 350 ms: 0.8\nB 550 ms: 0.2"]
    assert "4 networks" in ax.get_xlabel()


def test_a_rule_that_diverged_ends_where_it_did_and_says_so():
    good, bad = np.full((2, 3, 2), 0.1), np.full((2, 3, 2), 0.2)
    bad[1, 1:, 1] = np.inf
    figure = plots.learning_curves({"local": make_curves(good), "RLS": make_curves(bad)})
    ax = figure.axes[0]
    ends = [line.get_xdata()[-1] for line in lines(ax, COLOURS[1]) if line.get_marker() == "s"]
    # The second block ends with its first test, for the mean of what is left would flatter.
    assert ends == [50, 50]
    assert {"local", "RLS (1 of 2 diverged)"} <= set(texts(figure))
    assert np.isfinite(ax.get_ylim()).all()
    all_gone = plots.learning_curves({"RLS": make_curves(np.full((1, 3, 2), np.inf))})
    assert "RLS (2 of 2 diverged)" in texts(all_gone)
    with pytest.raises(ValueError, match=r"`curves` must be of the same blocks"):
        plots.learning_curves({"a": make_curves(good), "b": make_curves(good[:1])})


def test_names_of_lines_that_end_together_do_not_lie_upon_each_other():
    figure, ax = plt.subplots()
    ax.set_ylim(0, 1)
    label_ends(ax, [(1.0, y, name, "black") for name, y in (("a", 0.99), ("b", 0.98), ("c", 0.5), ("d", 0.501))])
    heights = {text.get_text(): text.xy[1] for text in ax.texts}
    gaps = np.diff(sorted(heights.values()))
    assert (gaps >= 0.054).all()
    assert sorted(heights, key=heights.get) == ["c", "d", "b", "a"]
    assert max(heights.values()) <= 1.001


def test_predictions_mark_the_peak_wherever_it_is():
    task = PredictionTask((250.0, 450.0), 0.8)
    outputs = 0.9 * task.truth(dt_ms=1.0)
    outputs[30, 1] = 0.4
    figure = plots.predictions(outputs, task, dt_ms=1.0)
    ax = figure.axes[0]
    marks = [line for line in ax.lines if line.get_marker() == "v"]
    assert [mark.get_xydata()[0].round(6).tolist() for mark in marks] == [[250, 0.72], [30, 0.4]]
    assert {"A: 250 ms, 0.72", "B: 30 ms, 0.40", "cue"} <= set(texts(figure))
    error = np.sqrt(np.mean((outputs - task.truth(dt_ms=1.0)) ** 2))
    assert f"RMSE {error:.3f}" in texts(figure)
    silent = plots.predictions(0 * outputs, task, dt_ms=1.0)
    assert {"A: nothing", "B: nothing", "RMSE 0.147"} <= set(texts(silent))


def test_predictions_of_several_networks_are_their_mean():
    task = PredictionTask((250.0, 450.0), 0.8)
    outputs = task.truth(dt_ms=1.0)[:, None] * np.array([0.5, 1.0, 1.5])[:, None]
    ax = plots.predictions(outputs, task, dt_ms=1.0).axes[0]
    thick = [line for line in ax.lines if line.get_linewidth() == 1.8]
    assert np.allclose(thick[0].get_ydata(), task.truth(dt_ms=1.0)[:, 0])
    assert len([line for line in ax.lines if line.get_linewidth() == 0.7]) == 6


def test_block_predictions_have_axes_of_one_height_for_each_block():
    blocks = standard_blocks()
    outputs = np.array([[block.truth(dt_ms=1.0)[:, None]] for block in blocks])
    curves = make_curves(np.zeros((4, 1, 1)), tests=(0,), blocks=blocks, outputs=outputs)
    figure = plots.block_predictions(curves)
    assert [ax.get_ylabel() for ax in figure.axes] == [f"block {k}" for k in (1, 2, 3, 4)]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    assert {"A: 350 ms, 0.20", "B: 550 ms, 0.80"} <= set(texts(figure))
    outputs[1] = np.nan
    with pytest.raises(ValueError, match=r"`curves` must be of networks whose learning did not diverge"):
        plots.block_predictions(curves)


def test_sweep_gives_r_and_the_distance_from_the_diagonal():
    levels = np.linspace(0, 1, 11)
    sizes = np.stack([0.8 * levels, 0.1 + (1 - levels)], axis=1)
    figure = plots.probability_sweep(levels, np.stack([sizes - 0.05, sizes + 0.05]))
    r = [text for text in texts(figure) if "r = " in text]
    away = np.sqrt(np.mean((0.2 * levels) ** 2))
    # Straight, and not on the diagonal: r does not see it.
    assert r == [f"A: r = 1.000, RMSE {away:.3f}", "B: r = 1.000, RMSE 0.100"]
    assert "11 levels, 2 seeds" in texts(figure)
    (mean,) = [line for line in lines(figure.axes[0], COLOURS[1]) if len(line.get_xdata()) == 11]
    assert np.allclose(mean.get_xydata()[0], [0, 0.1])
    flat = plots.probability_sweep(levels, np.full((11, 2), 0.3))
    assert any("r not defined" in text for text in texts(flat))
    with pytest.raises(ValueError, match=r"`probabilities` must have shape \(11, 2\), or \(11,\), got \(10,\)"):
        plots.probability_sweep(levels[1:], sizes)
    with pytest.raises(ValueError, match=r"`probabilities` must be a finite number >= 0 and <= 1, got 1.05"):
        plots.probability_sweep(1.5 * levels, sizes)


def test_ablations_draw_bars_dots_and_ratios():
    errors = {"full": [0.1, 0.1], "no feedback": [0.1, 0.4], "RLS": [0.1, np.inf]}
    figure = plots.ablations(errors, reference="full")
    ax = figure.axes[0]
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.25]
    # The geometric mean of 1 and 4.
    assert texts(figure) == ["0.100", "0.250, x 2.00", "1 of 2 diverged"]
    dots = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[0.1, 0.1], [0.1, 0.4], [0.1]]
    assert ax.yaxis_inverted()
    with pytest.raises(ValueError, match=r"`reference` must be one of 'full', 'no feedback', 'RLS'"):
        plots.ablations(errors, reference="none")
    with pytest.raises(ValueError, match=r"`errors` must hold at least one error for each variant"):
        plots.ablations({"full": []})
    with pytest.raises(ValueError, match=r"`errors` must be at least 0"):
        plots.ablations({"full": [np.nan]})


# --- weights ------------------------------------------------------------------------------------------------------


def test_angles_stand_against_the_shuffles_and_both_probabilities_are_written():
    null = np.linspace(80, 90, 201)[:, None]
    found = Angles(degrees=np.array([85.0]), null=null, p_below=0.5, p_above=0.51)
    figure = plots.angles({"net 0": found, "net 1": found})
    ax = figure.axes[0]
    assert [line.get_xdata()[0] for line in lines(ax, COLOURS[1])] == [85, 85]
    counted = sum(patch.get_height() for patch in ax.patches[1:])
    assert counted == 402
    assert texts(figure)[0].splitlines()[1] == "net 1: 85.0°, p 0.500 (smaller), 0.510 (larger)"
    band = ax.patches[0]
    assert np.allclose([band.get_x(), band.get_x() + band.get_width()], [80.25, 89.75])


def test_condition_plane_draws_scores_paths_and_what_chance_gives():
    rng = np.random.default_rng(0)
    p, delay = np.tile([0.1, 0.5, 0.9], 3), np.repeat([200.0, 300.0, 400.0], 3)
    one, other = np.linalg.qr(rng.standard_normal((40, 2)))[0].T
    weights = 10 * p[:, None] * one + 0.02 * delay[:, None] * other + 0.01 * rng.standard_normal((9, 40))
    space = condition_space(weights, {"p": p, "delay": delay}, n_permutations=200)
    figure = plots.condition_plane(
        space, colour_by="p", mark_by="delay", unit="ms", paths={"switch": weights[[0, 8]]}
    )  # fmt: skip
    ax = figure.axes[0]
    drawn = np.concatenate([np.asarray(dots.get_offsets()) for dots in ax.collections])
    assert np.allclose(drawn, space.scores[:, :2])
    way = [line for line in lines(ax, COLOURS[1]) if len(line.get_xdata()) == 2]
    assert np.allclose(way[0].get_xydata(), space.scores[[0, 8], :2])
    assert {"200 ms", "300 ms", "400 ms", "switch"} <= set(texts(figure))
    label = ax.get_xlabel()
    assert f"correlation with p {space.correlations['p'][0]:+.2f}, p-value {space.p_values['p'][0]:.3f}" in label
    with pytest.raises(ValueError, match=r"`colour_by` must be one of 'p', 'delay', got 'time'"):
        plots.condition_plane(space, colour_by="time")
    with pytest.raises(ValueError, match=r"`components` must be a whole number >= 0 and <= 2, got 3"):
        plots.condition_plane(space, colour_by="p", components=(0, 3))


def test_weight_matrix_shows_weights_and_means_of_blocks():
    weights = np.random.default_rng(0).standard_normal((6, 6))
    (image,) = plots.weight_matrix(weights).axes[0].collections
    assert np.allclose(np.asarray(image.get_array()), weights)
    assert image.get_clim()[0] == -image.get_clim()[1]
    figure = plots.weight_matrix(weights, max_cells=3)
    want = weights.reshape(3, 2, 3, 2).mean(axis=(1, 3))
    assert np.allclose(np.asarray(figure.axes[0].collections[0].get_array()), want)
    assert figure.axes[1].get_ylabel() == "weight, mean of 2 x 2"
    net = Reservoir(50, generator=0)
    drawn = plots.weight_matrix(net)
    assert np.allclose(np.asarray(drawn.axes[0].collections[0].get_array()), net.to_dense())
    assert [text for text in texts(drawn) if text] == ["E", "E", "I", "I"]
    assert plots.weight_matrix(np.zeros((1, 1))).axes[0].collections[0].get_clim() == (-1, 1)
    with pytest.raises(ValueError, match=r"`weights` must have shape \(N, N\), got \(2, 3\)"):
        plots.weight_matrix(np.zeros((2, 3)))


def test_readout_weights_give_the_cosine():
    what, when = np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 0.0]])
    figure = plots.readout_weights(what, when, populations={"E": slice(0, 3), "I": slice(3, 4)})
    assert [len(dots.get_offsets()) for dots in figure.axes[0].collections] == [3, 1]
    assert texts(figure) == ["E", "I", "cosine +0.500 (of random weights: 0 ± 0.500)"]
    assert texts(plots.readout_weights(0 * what, when))[0].startswith("no weights")
    with pytest.raises(ValueError, match=r"`when` must have shape \(1, 4\), got \(1, 3\)"):
        plots.readout_weights(what, when[:, :3])


def test_recording_of_several_lanes_is_not_drawn_as_one():
    recording = simulate(Reservoir(10, generator=0), 20.0, batch=2)
    assert isinstance(recording, Recording)
    with pytest.raises(ValueError, match=r"`spikes` must be a recording of one lane, got 2 lanes"):
        plots.raster(recording)
