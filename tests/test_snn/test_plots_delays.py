"""Pictures of delays and spikes: every bar, square, dot and line is where the numbers say."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fakes.pictures import legend, make_history, make_layer, make_spikes

from snn import DelayConv1d, DelayLinear, History, SigmaSchedule, plots
from snn.plots import calibration, charts, delays, exits, pictures, rasters, saving

NAMES = ["delay_histogram", "delay_matrix", "delayed_raster", "raster", "sigma_history"]
FIGURES = {"delayed_raster", "sigma_history"}


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


def draw(name, **options):
    layer = make_layer([[1.0, -0.5], [0.25, 0.0]], [[3, 0], [15, 7]])
    spikes = make_spikes(20, 2, (2, 0), (5, 1))
    return {
        "delay_histogram": lambda: plots.delay_histogram([0, 1, 2, 3], layer, **options),
        "delay_matrix": lambda: plots.delay_matrix(layer, **options),
        "delayed_raster": lambda: plots.delayed_raster(spikes, layer, 0),
        "raster": lambda: plots.raster(spikes, **options),
        "sigma_history": lambda: plots.sigma_history(make_history(3), SigmaSchedule(epochs=2, start=3.0)),
    }[name]()


# --- what all share -----------------------------------------------------------------------------------------------


def test_every_picture_of_the_package_is_tested_here_or_in_test_plots():
    elsewhere = [*charts.__all__, *pictures.__all__, *calibration.__all__, *exits.__all__, *saving.__all__]
    modules = [*elsewhere, *delays.__all__, *rasters.__all__]
    assert sorted(plots.__all__) == sorted(name for name in modules if name != "SORTS")
    assert sorted([*elsewhere, *NAMES]) == sorted(plots.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_picture_can_be_saved_and_is_not_shown(name, tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("it was shown"))
    drawn = draw(name)
    figure = drawn if name in FIGURES else drawn.figure
    assert plt.get_fignums() == [figure.number]
    figure.savefig(tmp_path / "figure.png")  # warnings, such as of missing glyphs, are errors
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FIGURES])
def test_picture_is_drawn_into_the_given_axes(name):
    figure, (left, right) = plt.subplots(1, 2)
    assert draw(name, ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", NAMES)
def test_axes_say_what_they_show_and_in_which_unit(name):
    want = {
        "delay_histogram": [("delay (steps)", "synapses")],
        "delay_matrix": [("input neuron", "output neuron"), ("", "delay (steps)")],
        "delayed_raster": [("", "input (weight)"), ("time step", "current into\nneuron 0")],
        "raster": [("time step", "unit")],
        "sigma_history": [("", "width of the\nbumps σ (steps)"), ("epoch", "accuracy (%)")],
    }
    drawn = draw(name)
    axes = drawn.axes if name in FIGURES else drawn.figure.axes
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == want[name]


def test_nothing_that_is_drawn_changes_the_layer_or_draws_its_gradient():
    layer = make_layer([[1.0, -0.5]], [[3.4, 0]]).train()
    state, choice = copy.deepcopy(layer.state_dict()), layer.last_choice
    plots.delay_histogram([0, 0], layer)
    plots.delay_matrix(layer)
    plots.delayed_raster(make_spikes(9, 2, (1, 0)), layer, 0)
    assert layer.training
    assert layer.last_choice is choice
    assert all(torch.equal(state[name], value) for name, value in layer.state_dict().items())


# --- distribution of delays ---------------------------------------------------------------------------------------


def bars(ax):
    return {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in ax.containers[0]}


def outline(ax):
    (found,) = (patch for patch in ax.patches if hasattr(patch, "get_data"))
    return found.get_data()


def test_histogram_counts_whole_steps_before_and_after():
    before = torch.tensor([0.0, 1.4, 1.6, 2.5])  # halves go to the even neighbour, as in the layers
    ax = plots.delay_histogram(before, make_layer([[1, 1], [1, 1]], [[0.2, 3.0], [3.0, 1.0]], max_delay=5))
    assert bars(ax) == {0: 1, 1: 1, 2: 0, 3: 2, 4: 0}
    assert outline(ax).values.tolist() == [1, 1, 2, 0, 0]
    assert outline(ax).edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert legend(ax) == ["before learning", "after learning"]


def test_histogram_says_how_much_lies_at_both_ends():
    ax = plots.delay_histogram([0, 1, 2, 3], [0, 0, 0, 9], max_delay=10)
    assert [text.get_text() for text in ax.texts] == [
        "at 0 steps:\n25 % before,\n75 % after",
        "at 9 steps:\n0 % before,\n25 % after",
    ]


def test_histogram_counts_what_lies_outside_the_range_at_its_ends():
    ax = plots.delay_histogram([-3.0, 1, 2, 99], [1, 1, 1, 1], max_delay=4)
    assert outline(ax).values.tolist() == [1, 1, 1, 1]


def test_histogram_without_a_range_does_not_call_the_longest_delay_its_end():
    ax = plots.delay_histogram([0, 1], [2, 5])
    assert list(bars(ax)) == [0, 1, 2, 3, 4, 5]
    assert [text.get_text() for text in ax.texts] == ["at 0 steps:\n50 % before,\n0 % after"]
    assert ax.get_ylabel() == "delays"  # nobody says whether synapses share them


@pytest.mark.parametrize("known_by", ["layer", "argument"])
def test_histogram_is_in_ms_where_the_step_is_known(known_by):
    in_layer, given = (10.0, None) if known_by == "layer" else (None, 10.0)
    layer = make_layer([[1, 1]], [[2, 3]], max_delay=4, dt_ms=in_layer)
    ax = plots.delay_histogram(np.array([0, 1]), layer, dt_ms=given)
    assert bars(ax) == {0: 0, 10: 0, 20: 1, 30: 1}
    assert outline(ax).edges.tolist() == [-5, 5, 15, 25, 35]
    assert ax.get_xlabel() == "delay (ms)"
    assert ax.texts[1].get_text().startswith("at 30 ms:")


def test_histogram_takes_layers_of_any_kind_and_shared_delays():
    conv = DelayConv1d(2, 3, 1, 7)
    ax = plots.delay_histogram(conv.delay.detach().clone(), conv)
    assert sum(bars(ax).values()) == conv.delay.numel()
    shared = DelayLinear(5, 3, 7, share="axon")
    ax = plots.delay_histogram(shared.delay.detach().clone(), shared)
    assert sum(bars(ax).values()) == 5
    assert ax.get_ylabel() == "delays"  # not one a synapse


# --- delays of a layer --------------------------------------------------------------------------------------------


def squares(ax):
    """Return row -> column -> (delay, side as a share of the place)."""
    found = {}
    for path, value in zip(ax.collections[0].get_paths(), ax.collections[0].get_array(), strict=True):
        (left, low), (right, high) = path.vertices.min(0), path.vertices.max(0)
        assert right - left == pytest.approx(high - low)
        found[(round((low + high) / 2), round((left + right) / 2))] = (float(value), (right - left) / 0.94)
    return found


WEIGHTS, DELAYS = [[1.0, -0.25], [0.0, 0.5], [0.75, 0.75]], [[3, 14.6], [0, 7], [1, 1]]


def test_matrix_colours_are_delays_and_areas_are_weights():
    ax = plots.delay_matrix(make_layer(WEIGHTS, DELAYS))
    drawn = squares(ax)
    for row, column in np.ndindex(3, 2):
        delay, side = drawn[row, column]
        assert delay == round(DELAYS[row][column])
        assert side**2 == pytest.approx(abs(WEIGHTS[row][column]))
    assert ax.yaxis_inverted()  # the first output on top
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 1.5), (2.5, -0.5))


def test_matrix_has_one_colour_a_step_over_the_whole_range():
    image = plots.delay_matrix(make_layer(WEIGHTS, np.minimum(DELAYS, 3))).collections[0]
    assert image.get_clim() == (-0.5, 15.5)
    assert image.cmap.N == 16
    assert len({tuple(image.to_rgba(step)) for step in range(16)}) == 16
    lightness = image.to_rgba(np.arange(16))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()  # not cyclic


def test_matrix_squares_of_negative_weights_are_hollow():
    ax = plots.delay_matrix(make_layer(WEIGHTS, DELAYS))
    corners = [(path.vertices.min(0), path.vertices.max(0)) for path in ax.collections[1].get_paths()]
    seen = [((low + high) / 2).tolist() for low, high in corners if (high > low).all()]
    assert np.allclose(seen, [[1, 0]])  # input 1, output 0
    assert ax.get_title("left") == "colour: delay · area: |weight| · hollow: negative"
    positive = plots.delay_matrix(make_layer(np.abs(WEIGHTS), DELAYS))
    assert len(positive.collections) == 1
    assert positive.get_title("left") == "colour: delay · area: |weight|"


def test_matrix_is_not_emptied_by_one_huge_weight():
    weight = np.ones((10, 10))
    weight[0, 0] = 1000
    sides = [side for _, side in squares(plots.delay_matrix(make_layer(weight, np.zeros((10, 10))))).values()]
    assert sides == pytest.approx([1] * 100)


def test_matrix_without_weights_is_the_delays():
    ax = plots.delay_matrix(make_layer(WEIGHTS, DELAYS, dt_ms=2.0), weights=False)
    (image,) = ax.get_images()
    assert image.get_array().tolist() == [[6, 30], [0, 14], [2, 2]]
    assert image.get_clim() == (-1, 31)
    assert ax.figure.axes[1].get_ylabel() == "delay (ms)"


@pytest.mark.parametrize(
    ("sort", "order", "said"),
    [
        ("index", [0, 1, 2], ""),
        # Means weighted by |weight|: (3 + 15 / 4) / 1.25 = 5.4, 7 and 1.
        ("mean-delay", [2, 0, 1], "\nshortest mean delay on top"),
        ("weight", [2, 0, 1], "\nlargest sum of |weight| on top"),
    ],
)
def test_matrix_rows_can_be_sorted_and_keep_their_numbers(sort, order, said):
    ax = plots.delay_matrix(make_layer(WEIGHTS, DELAYS), sort=sort)
    assert [text.get_text() for text in ax.get_yticklabels()] == [str(row) for row in order]
    drawn = squares(ax)
    assert [drawn[row, 1][0] for row in range(3)] == [round(DELAYS[row][1]) for row in order]
    assert ax.get_title("left").endswith(f"negative{said}")


def test_every_sort_is_tested():
    assert list(delays.SORTS) == ["index", "mean-delay", "weight"]


def test_matrix_shows_the_strongest_of_several_synapses():
    layer = make_layer([[[0.1, -0.9, 0.3], [0.2, 0.1, 0.45]]], [[[1, 2, 3], [4, 5, 6]]])
    ax = plots.delay_matrix(layer)
    drawn = squares(ax)
    assert [drawn[0, column][0] for column in range(2)] == [2, 6]
    assert drawn[0, 1][1] ** 2 == pytest.approx(0.5)
    assert "of each pair's 3 synapses the strongest" in ax.get_title("left")


@pytest.mark.parametrize(("share", "want"), [("axon", [[2, 5], [2, 5]]), ("dendrite", [[2, 2], [5, 5]])])
def test_matrix_spreads_shared_delays(share, want):
    layer = DelayLinear(2, 2, 8, share=share)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([2.0, 5.0]).view(layer.delay.shape))
    assert plots.delay_matrix(layer, weights=False).get_images()[0].get_array().tolist() == want


def test_matrix_of_a_layer_without_weight_can_be_drawn():
    assert {side for _, side in squares(plots.delay_matrix(make_layer([[0.0]], [[1]]))).values()} == {0}


# --- width over the epochs ----------------------------------------------------------------------------------------


def curves(figure):
    above, below = figure.axes
    return above.get_lines()[0], {line.get_label(): line for line in below.get_lines()}


def test_sigma_history_draws_the_widths_of_the_schedule_over_the_scores():
    schedule = SigmaSchedule(epochs=3)
    figure = plots.sigma_history(make_history(5), schedule, max_delay=16)
    width, scores = curves(figure)
    want = [schedule.width(epoch, max_delay=16, kernel="gauss") for epoch in range(5)]
    assert list(width.get_ydata()) == pytest.approx(want)
    assert list(scores["training"].get_ydata()) == pytest.approx([50, 60, 70, 80, 90])
    assert list(scores["validation"].get_ydata()) == pytest.approx([45, 55, 65, 75, 85])
    assert all(list(line.get_xdata()) == [1, 2, 3, 4, 5] for line in (width, *scores.values()))
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim() == (0.5, 5.5)


def test_sigma_history_takes_numbers_and_does_without_validation():
    width, scores = curves(plots.sigma_history(make_history(3, valid=False), torch.tensor([2.0, 1.0, 0.5])))
    assert list(width.get_ydata()) == [2, 1, 0.5]
    assert list(scores) == ["training"]


@pytest.mark.parametrize(("kernel", "least"), [("gauss", 0.5), ("triangle", 1.0)])
def test_sigma_history_marks_how_narrow_bumps_get(kernel, least):
    figure = plots.sigma_history(make_history(4), SigmaSchedule(epochs=2, start=3.0), kernel=kernel)
    assert set(figure.axes[0].get_lines()[1].get_ydata()) == {least}
    assert curves(figure)[0].get_ydata()[-1] == least


def test_sigma_history_marks_epochs_with_whole_steps():
    schedule = SigmaSchedule(epochs=2, start=3.0)
    figure = plots.sigma_history(make_history(5), schedule, fixed_from=3)
    assert list(curves(figure)[0].get_ydata()) == pytest.approx(
        [3, schedule.width(1, max_delay=1, kernel="gauss"), 0.5, 0, 0]
    )
    for ax in figure.axes:
        (span,) = ax.patches
        assert (span.get_x(), span.get_width()) == (3.5, 2)
    assert "whole-step\ndelays" in [text.get_text() for text in figure.axes[0].texts]
    twice = plots.sigma_history(make_history(5), [0, 1, 1, 0, 0])
    assert [(span.get_x(), span.get_width()) for span in twice.axes[1].patches] == [(0.5, 1), (3.5, 2)]
    assert not plots.sigma_history(make_history(5), schedule).axes[1].patches


# --- mistakes -----------------------------------------------------------------------------------------------------

LAYER = make_layer([[1.0, 1.0]], [[1, 2]])
SPIKES = make_spikes(9, 2)
BROKEN = make_layer([[1.0, float("nan")]], [[1, 2]])
MISTAKES = {
    "live": (lambda: plots.delay_histogram(LAYER, LAYER), "`before` must be a copy from ahead of training"),
    "live parameter": (lambda: plots.delay_histogram(LAYER.delay.detach(), LAYER), "`before` must be a copy"),
    "other number": (
        lambda: plots.delay_histogram([1, 2, 3], LAYER),
        "must have the same length, got before: 3, after: 2",
    ),
    "empty": (lambda: plots.delay_histogram([], []), "`before` must hold at least one delay"),
    "text": (lambda: plots.delay_histogram(["a"], [1]), "`before` must be a delay layer, or numbers in an array"),
    "network": (
        lambda: plots.delay_histogram([1], torch.nn.Sequential(LAYER)),
        "got a Sequential. Give one of its layers",
    ),
    "NaN": (lambda: plots.delay_histogram([1, float("nan")], [1, 2]), "`before` must hold finite numbers only"),
    "negative": (
        lambda: plots.delay_histogram([1, -2], [1, 2]),
        "`before` must hold delays of at least 0 steps, got -2",
    ),
    "other range": (
        lambda: plots.delay_histogram([1, 2], LAYER, max_delay=5),
        "`max_delay` must be the same .* 5 and 16",
    ),
    "microseconds": (lambda: plots.delay_histogram([1], [9e12]), "`after` must hold delays below 10000 steps"),
    "dt": (lambda: plots.delay_histogram([1], [2], dt_ms=0), "`dt_ms` must be a finite number > 0"),
    "no layer": (lambda: plots.delay_matrix(torch.nn.Linear(1, 1)), "`layer` must be a snn.DelayLinear, got a Linear"),
    "sort": (lambda: plots.delay_matrix(LAYER, sort="delay"), "`sort` must be one of 'index', 'mean-delay', 'weight'"),
    "NaN weight": (lambda: plots.delay_matrix(BROKEN), "`layer.weight` must hold finite numbers only"),
    "batch": (lambda: plots.raster(SPIKES[:, None]), r"must have shape \(T, C\), got \(9, 1, 2\). Pick a sample"),
    "no units": (lambda: plots.raster(SPIKES[:, :0]), "`spikes` must have at least one step and one unit"),
    "negative count": (lambda: plots.raster(-1 - SPIKES), "`spikes` must hold spikes or counts, at least 0, got -1"),
    "NaN count": (lambda: plots.raster(SPIKES * float("nan")), "`spikes` must hold finite numbers only"),
    "letters": (lambda: plots.raster(np.array([["a"]])), "`spikes` must hold numbers"),
    "units twice": (
        lambda: plots.raster(SPIKES, n_units=3),
        "`n_units` must be None where `spikes` has an axis of units",
    ),
    "three": (
        lambda: plots.raster((SPIKES, SPIKES, SPIKES)),
        "`spikes` must be two arrays, times in ms and units, got 3",
    ),
    "events dt": (lambda: plots.raster(([1.0], [1]), dt_ms=1), "`dt_ms` must be None for events, got 1"),
    "event lengths": (lambda: plots.raster(([1.0], [1, 2])), "must have the same length, got times_ms: 1, units: 2"),
    "event units": (lambda: plots.raster(([1.0], [-1])), "`units` must be whole numbers from 0, got -1"),
    "fractions": (lambda: plots.raster(([1.0], [1.5])), "`units` must be whole numbers from 0, got shape"),
    "few units": (lambda: plots.raster(([1.0], [4]), n_units=4), "`n_units` must be a whole number >= 5, got 4"),
    "conv": (lambda: plots.delayed_raster(SPIKES, DelayConv1d(2, 1, 1, 3), 0), "`layer` must be a snn.DelayLinear"),
    "inputs": (
        lambda: plots.delayed_raster(SPIKES[:, :1], LAYER, 0),
        r"`spikes_in` must have shape \(T, 2\), got \(9, 1\)",
    ),
    "output": (lambda: plots.delayed_raster(SPIKES, LAYER, 1), "`output` must be a whole number >= 0 and <= 0, got 1"),
    "strongest": (
        lambda: plots.delayed_raster(SPIKES, LAYER, 0, n_strongest=0),
        "`n_strongest` must be a whole number >= 1",
    ),
    "outputs": (lambda: plots.delayed_raster(SPIKES, LAYER, 0, SPIKES), r"`spikes_out` must have shape \(T, 1\)"),
    "short": (
        lambda: plots.delayed_raster(SPIKES, LAYER, 0, SPIKES[:8, 0]),
        "`spikes_out` must have at least the 9 steps",
    ),
    "rows": (lambda: plots.sigma_history([{"epoch": 0}], [1.0]), "`history` must be a snn.History"),
    "no epoch": (lambda: plots.sigma_history(History(), [1.0]), "`history` must have at least one epoch"),
    "metric": (
        lambda: plots.sigma_history(make_history(1), [1.0], metric="f1"),
        "`metric` must be one of 'accuracy', got 'f1'",
    ),
    "loss": (lambda: plots.sigma_history(make_history(1), [1.0], metric="loss"), "`metric` must be one of 'accuracy'"),
    "kernel": (lambda: plots.sigma_history(make_history(1), [1.0], kernel="box"), "`kernel` must be one of 'gauss'"),
    "widths": (
        lambda: plots.sigma_history(make_history(2), [1.0]),
        "must have the same length, got sigma: 1, history: 2",
    ),
    "width": (lambda: plots.sigma_history(make_history(1), [-1.0]), "`sigma` must be a finite number >= 0, got -1"),
    "one width": (
        lambda: plots.sigma_history(make_history(1), 1.0),
        "`sigma` must be a SigmaSchedule, or one width an epoch",
    ),
    "no start": (
        lambda: plots.sigma_history(make_history(1), SigmaSchedule(epochs=1)),
        "`max_delay` must be given for a",
    ),
    "fixed": (lambda: plots.sigma_history(make_history(1), [1.0], fixed_from=1), "`fixed_from` must be a whole number"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_sentence_and_leaves_no_figure(name):
    call, message = MISTAKES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()
    assert plt.get_fignums() == []
