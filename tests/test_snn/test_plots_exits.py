"""Pictures of early exit: every point, cell, image and bar is where the numbers say."""

import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fakes.exits import noisy_logits
from fakes.pictures import legend, points, stroke

from snn import plots
from snn.early_exit import DynamicConfidence, Evaluation, Exit, Interval, Oracle, ParetoPoint, Reliability, Work
from snn.early_exit import reliability as compare
from snn.plots import calibration, exits

NAMES = [*calibration.__all__, *exits.__all__]
N_STEPS = 8


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    """A decision, and the test data that it is drawn with."""
    logits, y = noisy_logits(N_STEPS, 400, 4, signal=1.0)
    return DynamicConfidence(None, N_STEPS).fit(logits[:, :200], y[:200]), logits[:, 200:], y[200:]


def make_exit(steps, labels=None, *, n_steps, confidence=None):
    """Build what a run of those steps returns."""
    steps = torch.as_tensor(steps)
    labels = torch.zeros_like(steps) if labels is None else torch.as_tensor(labels)
    sure = torch.linspace(0.9, 0.5, len(steps)).double() if confidence is None else torch.as_tensor(confidence).double()
    work = Work(
        samples=len(steps),
        sample_steps=int(steps.sum()),
        needed_sample_steps=int(steps.sum()),
        full_sample_steps=len(steps) * n_steps,
        calls=1,
        early=int((steps < n_steps).sum()),
        compactions=0,
    )
    return Exit(labels=labels, steps=steps, confidence=sure, certainty=sure, n_steps=n_steps, work=work)


def make_evaluation(static, accuracy, mean_steps, *, best=None, steps=None, half=0.002, fitted_on=False):
    """Build an evaluation whose intervals reach `half` to each side, in accuracy, and half a step in steps."""
    best = (max(*static, accuracy[0]), 1.2) if best is None else best
    steps = tuple(range(1, len(static) + 1)) if steps is None else steps
    value, full = accuracy[0], static[-1]
    return Evaluation(
        accuracy=Interval(value, value - half, value + half),
        mean_steps=Interval(mean_steps, mean_steps - 0.5, mean_steps + 0.25),
        full_accuracy=full,
        difference=Interval(value - full, value - full - half, value - full + half),
        ece=0.01,
        full_ece=0.02,
        steps=steps,
        static_accuracy=tuple(static),
        exits=(1,) * len(static),
        oracle=Oracle(*best, np.array([1]), np.array([True])),
        n_samples=1000,
        n_steps=steps[-1],
        level=0.9,
        fitted_on=fitted_on,
    )


def draw(name, fitted, **options):
    decide, x, y = fitted
    images = torch.linspace(0, 1, len(y)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return {
        "exit_curve": lambda: plots.exit_curve(decide.evaluate(x, y), points=decide.pareto, **options),
        "exit_histogram": lambda: plots.exit_histogram(decide.predict(x), y, **options),
        "first_and_last": lambda: plots.first_and_last(images, decide.predict(x), y, **options),
        "reliability_diagram": lambda: plots.reliability_diagram(
            decide.reliability(x, y, alpha=1), decide.reliability(x, y), **options
        ),
    }[name]()


def line(ax, label):
    """Return the one line whose legend begins like that, as points (x, y)."""
    (found,) = (one for one in ax.get_lines() if str(one.get_label()).startswith(label))
    return found.get_xydata()


# --- what all share -----------------------------------------------------------------------------------------------


def test_every_picture_of_early_exit_can_be_imported_from_plots():
    assert set(NAMES) <= set(plots.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_picture_makes_a_figure_of_its_own_that_can_be_saved_and_is_not_shown(name, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("it was shown"))
    ax = draw(name, fitted)
    assert plt.get_fignums() == [ax.figure.number]
    ax.figure.savefig(tmp_path / "figure.png")  # warnings, such as of missing glyphs, are errors
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_drawn_into_the_given_axes(name, fitted):
    figure, (left, right) = plt.subplots(1, 2)
    assert draw(name, fitted, ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("exit_curve", "mean time steps per sample", "accuracy (%)"),
        ("exit_histogram", "step at which the sample left (of T = 8)", "class"),
        ("reliability_diagram", "confidence (%)", "accuracy (%)"),
    ],
)
def test_axes_say_what_they_show_and_in_which_unit(name, x, y, fitted):
    ax = draw(name, fitted)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x, y)
    assert ax.get_legend() is not None


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_is_written_overlaps_or_leaves_the_figure(name, fitted):
    ax = draw(name, fitted)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    legend = ax.get_legend()
    if legend is not None:
        assert not ax.get_window_extent().overlaps(legend.get_window_extent())
        boxes.append(legend.get_window_extent())
    # A pixel more or less: the box of a text is rounded.
    width, height = ax.figure.bbox.size
    assert all(-1 <= box.x0 < box.x1 <= width + 1 and -1 <= box.y0 < box.y1 <= height + 1 for box in boxes)
    shrunk = [box.padded(-1) for box in boxes]
    assert not any(one.overlaps(other) for k, one in enumerate(shrunk) for other in shrunk[:k])


def test_early_exit_pictures_load_matplotlib_only_when_they_draw():
    code = "import sys, snn.plots.exits, snn.plots.calibration; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# --- accuracy against mean steps ----------------------------------------------------------------------------------


def test_curve_shows_static_accuracy_decision_intervals_and_oracle():
    ax = plots.exit_curve(make_evaluation([0.90, 0.94, 0.95], [0.945], 1.5, best=(0.97, 1.25)), chosen="ours")
    assert line(ax, "static") == pytest.approx(np.array([[1, 90], [2, 94], [3, 95]]))
    assert line(ax, "T = 3")[:, 1] == pytest.approx([95, 95])
    assert line(ax, "oracle: 97.00 % at 1.25 steps") == pytest.approx(np.array([[1.25, 97]]))
    (container,) = ax.containers
    dot, _, (across, along) = container
    assert dot.get_xydata() == pytest.approx(np.array([[1.5, 94.5]]))
    assert stroke(across) == [pytest.approx([1.0, 94.5, 1.75, 94.5])]
    assert stroke(along) == [pytest.approx([1.5, 94.3, 1.5, 94.7])]
    (to_full,) = (one for one in ax.get_lines() if np.ptp(one.get_xdata()) == 0 and len(one.get_xdata()) == 2)
    assert to_full.get_xydata() == pytest.approx(np.array([[1.5, 94.5], [1.5, 95]]))
    assert legend(ax)[-1] == "ours: 94.50 % at 1.50 steps (90 % intervals);\nagainst T = 3: −0.50 [−0.70, −0.30] points"


def test_curve_shows_points_from_cheap_to_dear_and_tells_test_from_validation_data():
    front = [ParetoPoint(0.9, 2.0, 0.95), ParetoPoint(0.0, 1.0, 0.90)]
    evaluation = make_evaluation([0.90, 0.94, 0.95], [0.945], 1.5)
    ax = plots.exit_curve(evaluation, points=front, pareto=[ParetoPoint(0.5, 1.5, 0.96)], name="ours")
    assert line(ax, "ours: other thresholds") == pytest.approx(np.array([[1, 90], [2, 95]]))
    assert line(ax, "ours: front on the validation data") == pytest.approx(np.array([[1.5, 96]]))
    assert "validation" not in "".join(legend(plots.exit_curve(evaluation, points=front)))


def test_curve_of_a_real_decision_meets_the_static_curve_at_both_ends(fitted):
    decide, x, y = fitted
    evaluation = decide.evaluate(x, y)
    ends = [DynamicConfidence(None, N_STEPS, decide.alpha_, end).evaluate(x, y) for end in (0.0, 1.0)]
    front = [ParetoPoint(0.0, one.mean_steps.value, one.accuracy.value) for one in ends]
    ax = plots.exit_curve(evaluation, points=front)
    assert line(ax, "early exit") == pytest.approx(line(ax, "static")[[0, -1]])


@pytest.mark.parametrize(
    ("static", "accuracy"), [([0.9500, 0.9505], 0.9503), ([0.9995, 1.0], 1.0), ([1.0, 1.0], 1.0), ([0.001, 0.0], 0.0)]
)
def test_curve_does_not_make_small_differences_large(static, accuracy):
    ax = plots.exit_curve(make_evaluation(static, [accuracy], 1.5, half=0.0))
    low, high = ax.get_ylim()
    assert high - low >= 2 - 1e-9
    assert low >= 0
    assert high < 100.2


def test_curve_keeps_the_decision_readable_and_says_what_lies_below():
    static = [0.10, 0.50, 0.88, 0.94, 0.95]
    evaluation = make_evaluation(static, [0.948], 2.8, best=(0.97, 1.9))
    ax = plots.exit_curve(evaluation)
    low, high = ax.get_ylim()
    # What all samples reach at 2.8 steps, 80.4 %, is more than 10 points below the accuracy at T.
    assert 83 < low < 85
    assert 97 < high < 100
    assert "static: all stop at the same step\nbelow the axis: 10.0 % at step 1, 50.0 % at step 2" in legend(ax)
    assert len(line(ax, "static")) == 5
    ax = plots.exit_curve(replace(evaluation, static_accuracy=(0.1, 0.3, 0.5, 0.94, 0.95)))
    assert "static: all stop at the same step\nbelow the axis: 10.0 to 50.0 % at steps 1 to 3" in legend(ax)
    ax = plots.exit_curve(replace(evaluation, static_accuracy=(0.1, 0.94, 0.5, 0.3, 0.95)))
    assert "static: all stop at the same step\nbelow the axis: 10.0 to 50.0 % at 3 of 5 checks" in legend(ax)


def test_curve_shows_what_is_to_be_beaten_at_the_same_steps():
    ax = plots.exit_curve(make_evaluation([0.50, 0.89, 0.95], [0.948], 2.0))
    assert ax.get_ylim()[0] < 89


def test_curve_is_drawn_whole_where_little_would_be_missing():
    ax = plots.exit_curve(make_evaluation([0.92, 0.94, 0.95], [0.948], 2.0, best=(0.97, 1.2)))
    assert ax.get_ylim()[0] < 92
    assert not any("below" in text for text in legend(ax))


def test_curve_marks_a_far_oracle_on_its_edge_and_keeps_its_numbers():
    ax = plots.exit_curve(make_evaluation([0.70, 0.75], [0.749], 1.5, best=(0.90, 1.25)))
    high = ax.get_ylim()[1]
    assert high < 78
    assert line(ax, "oracle: 90.00 % at 1.25 steps, above the axis") == pytest.approx(np.array([[1.25, high]]))


@pytest.mark.parametrize(
    ("mean_steps", "n_steps", "scale"), [(10, 100, "log"), (40, 100, "linear"), (1.2, 8, "linear")]
)
def test_curve_spreads_the_steps_where_the_decision_is_early_in_a_long_run(mean_steps, n_steps, scale):
    static = np.linspace(0.9, 0.95, n_steps).tolist()
    ax = plots.exit_curve(make_evaluation(static, [0.949], mean_steps))
    assert ax.get_xscale() == scale
    left, right = ax.get_xlim()
    assert left < 1 < n_steps < right


def test_curve_confesses_data_that_chose_the_decision():
    ax = plots.exit_curve(make_evaluation([0.90, 0.95], [0.945], 1.5, fitted_on=True))
    assert ax.get_ylabel() == "accuracy on the data that chose the decision (%)"


# --- when the classes leave ---------------------------------------------------------------------------------------


def cells(ax):
    (mesh,) = (one for one in ax.collections if hasattr(one, "get_coordinates"))
    coordinates = mesh.get_coordinates()
    return np.asarray(mesh.get_array()), coordinates[0, :, 0].tolist(), coordinates[:, 0, 1].tolist()


def test_histogram_shows_the_share_of_each_class_at_each_step_and_the_means():
    ax = plots.exit_histogram(make_exit([1, 1, 3, 4, 2, 2], n_steps=4), [0, 0, 0, 0, 1, 1])
    shares, across, down = cells(ax)
    assert shares.tolist() == [[50, 0, 25, 25], [0, 100, 0, 0]]
    assert across == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert down == [-0.5, 0.5, 1.5]
    assert ax.yaxis_inverted()  # the first class on top
    assert line(ax, "of the class").tolist() == [[2.25, 0], [2, 1]]
    assert line(ax, f"mean: {13 / 6:.2f} steps")[:, 0] == pytest.approx([13 / 6] * 2)
    assert ax.figure.axes[1].get_ylabel() == "share of the class (%)"


def test_histogram_names_classes_and_says_which_have_no_samples():
    ax = plots.exit_histogram(make_exit([1, 2], n_steps=2), torch.tensor([0, 2]), classes=("cat", "dog", "frog"))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["cat", "dog", "frog"]
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("no samples", 1)]
    assert line(ax, "of the class")[:, 1].tolist() == [0, 2]
    assert ax.get_ylabel() == ""


def test_histogram_of_many_steps_has_a_cell_each_and_few_ticks():
    steps = torch.arange(1, 101).repeat(2)
    ax = plots.exit_histogram(make_exit(steps, n_steps=100), [0] * 100 + [1] * 100)
    shares, across, _ = cells(ax)
    assert (shares == 1).all()
    assert across == [k + 0.5 for k in range(101)]
    assert len(ax.get_xticks()) < 12


def test_histogram_of_rare_checks_has_a_cell_a_check():
    ax = plots.exit_histogram(make_exit([4, 8, 10, 10], n_steps=10), [0, 0, 0, 0], check_every=4)
    shares, across, _ = cells(ax)
    assert shares.tolist() == [[25, 25, 50]]
    assert across == [2, 6, 9, 12]  # each check is inside its cell


def test_histogram_of_many_classes_names_some_of_them():
    ax = plots.exit_histogram(make_exit([1] * 100, n_steps=2), range(100))
    assert len(cells(ax)[0]) == 100
    assert [text.get_text() for text in ax.get_yticklabels()] == [str(k) for k in range(0, 100, 4)]


def test_histogram_stays_dark_where_most_run_to_the_end():
    steps = [1, 2, 3, 4] + [5] * 76
    ax = plots.exit_histogram(make_exit(steps, n_steps=5), [0] * 80)
    (mesh,) = (one for one in ax.collections if hasattr(one, "get_coordinates"))
    assert mesh.norm.vmax == pytest.approx(95 / 4)
    assert mesh.colorbar.extend == "max"
    ax = plots.exit_histogram(make_exit([1, 5], n_steps=5), [0, 0])
    (mesh,) = (one for one in ax.collections if hasattr(one, "get_coordinates"))
    assert (mesh.norm.vmax, mesh.colorbar.extend) == (50, "neither")


@pytest.mark.parametrize("n_steps", [1, 3])
def test_histogram_where_all_run_to_the_end_can_be_drawn(n_steps):
    ax = plots.exit_histogram(make_exit([n_steps] * 3, n_steps=n_steps), [0, 1, 1])
    assert cells(ax)[0][:, -1].tolist() == [100, 100]
    ax.figure.canvas.draw()


# --- who leaves first and last ------------------------------------------------------------------------------------


def shown(ax):
    """Return the brightness of each image, in the order in which they were drawn."""
    return [round(float(picture.get_array().max()) * 255) for picture in ax.get_images()]


IMAGES = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2) * 40


def test_first_are_the_surest_and_last_the_wrong_ones_at_the_end():
    found = make_exit([1, 1, 2, 4, 4, 4], [0, 1, 1, 0, 1, 1], n_steps=4, confidence=[0.8, 0.9, 0.7, 0.2, 0.6, 0.3])
    ax = plots.first_and_last(IMAGES, found, [0, 1, 1, 0, 0, 1], n=2, classes=("cat", "dog"))
    # Equal steps: confidence decides first; wrong comes last, and then little confidence.
    assert shown(ax) == [40, 0, 160, 120]
    texts = [text.get_text() for text in ax.texts]
    assert texts == [
        *["first to leave", "step 1", "dog", "step 1", "cat"],
        *["last to leave", "step 4", "dog ✗", "is cat", "step 4", "cat"],
    ]


def test_without_labels_nothing_is_called_wrong():
    found = make_exit([3, 1, 2, 4], [7, 8, 9, 6], n_steps=4)
    ax = plots.first_and_last(IMAGES[:4], found, n=1)
    assert shown(ax) == [40, 120]
    assert [text.get_text() for text in ax.texts] == ["first to leave", "step 1", "8", "last to leave", "step 4", "6"]


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_no_image_is_drawn_twice(n_images):
    ax = plots.first_and_last(IMAGES[:n_images], make_exit(list(range(1, n_images + 1)), n_steps=6))
    assert sorted(shown(ax)) == [40 * k for k in range(n_images)]


def test_images_with_long_names_are_larger():
    found = make_exit([1] * 16, n_steps=2)
    images = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    columns = []
    for name in ("cat", "locomotive engine"):
        ax = plots.first_and_last(images, found, classes=(name,))
        columns.append(len({picture.get_extent()[0] for picture in ax.get_images()}))
    assert columns == [8, 4]


# --- calibration --------------------------------------------------------------------------------------------------


def test_diagram_has_a_marker_a_filled_bin_with_the_area_of_its_count():
    right = [False] * 10 + [True] * 30
    before = compare([0.2] * 10 + [0.9] * 30, right, n_bins=10)
    after = compare([0.3] * 10 + [1.0] * 30, right, n_bins=10)
    ax = plots.reliability_diagram(before, after, names=("raw", "fitted"))
    raw, fitted_ = (one for one in ax.collections if len(one.get_offsets()) and not hasattr(one, "get_segments"))
    assert np.allclose(points(raw), [[20, 0], [90, 100]])
    assert np.allclose(points(fitted_), [[30, 0], [100, 100]])
    assert np.divide(*raw.get_sizes()) == pytest.approx(1 / 3)
    # ECE by hand: (10 * 0.2 + 30 * 0.1) / 40 and 10 * 0.3 / 40.
    assert legend(ax) == ["as sure as right", "raw: ECE 12.50 %", "fitted: ECE 7.50 %"]
    gaps, _ = (one for one in ax.collections if hasattr(one, "get_segments"))
    assert np.allclose(stroke(gaps), [[20, 0, 20, 20], [90, 90, 90, 100]])
    assert np.allclose(ax.get_lines()[0].get_xydata(), [[0, 0], [100, 100]])


def test_diagram_shows_one_network_alone():
    ax = plots.reliability_diagram(compare([0.5, 0.5], [True, False]), names=("as trained",))
    assert legend(ax) == ["as sure as right", "as trained: ECE 0.00 %"]


def test_diagram_shows_bins_of_few_predictions():
    ax = plots.reliability_diagram(compare([0.1] + [0.9] * 9999, [True] * 10000))
    (dots,) = (one for one in ax.collections if not hasattr(one, "get_segments"))
    assert dots.get_sizes().min() > 5


# --- what is refused ----------------------------------------------------------------------------------------------

EVALUATION = make_evaluation([0.90, 0.95], [0.945], 1.5)
EXITS = make_exit([1, 2], [0, 1], n_steps=4)
EMPTY = Reliability(edges=np.array([0.0, 1]), counts=np.array([0]), accuracy=np.array([np.nan]), confidence=np.zeros(1))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plots.exit_curve(EXITS), TypeError, "`evaluation` must be a snn.early_exit.Evaluation"),
        (lambda: plots.exit_curve(EVALUATION, points=[(1, 2)]), TypeError, "`points` must hold snn.early_exit.Pareto"),
        (
            lambda: plots.exit_curve(EVALUATION, pareto=[ParetoPoint(0.5, 3.0, 0.9)]),
            ValueError,
            r"`pareto` must hold accuracies in \[0, 1\] at up to T = 2 mean steps",
        ),
        (lambda: plots.exit_curve(EVALUATION, points=[ParetoPoint(0.5, 1.0, 93.0)]), ValueError, "`points` must hold"),
        (lambda: plots.exit_histogram(EVALUATION, [0]), TypeError, "`exits` must be a snn.early_exit.Exit"),
        (lambda: plots.exit_histogram(make_exit([], n_steps=4), []), ValueError, "`exits` must have at least one"),
        (lambda: plots.exit_histogram(EXITS, [0]), ValueError, "must have the same length, got exits: 2, labels: 1"),
        (lambda: plots.exit_histogram(EXITS, [0, -1]), ValueError, "`labels` must be 0 or more, got -1"),
        (lambda: plots.exit_histogram(EXITS, [0.0, 1.0]), TypeError, "`labels` must be one whole number a sample"),
        (lambda: plots.exit_histogram(EXITS, ["a", "b"]), TypeError, "`labels` must be one whole number a sample"),
        (lambda: plots.exit_histogram(EXITS, [0, 1], classes=("a",)), ValueError, r"`labels` must lie in 0..0"),
        (
            lambda: plots.exit_histogram(EXITS, [0, 1], check_every=2),
            ValueError,
            "`check_every` must be that of the decision, got 2, and a sample that left at step 1",
        ),
        (lambda: plots.exit_histogram(EXITS, [0, 1], check_every=5), ValueError, "`check_every` must be a whole"),
        (lambda: plots.first_and_last(IMAGES, EXITS), ValueError, "got images: 6, exits: 2"),
        (lambda: plots.first_and_last(IMAGES[:2], EXITS, [0]), ValueError, "got exits: 2, labels: 1"),
        (lambda: plots.first_and_last(IMAGES[:2, 0], EXITS), ValueError, r"`images` must have shape \(N, C, H, W\)"),
        (lambda: plots.first_and_last(torch.zeros(2, 2, 4, 4), EXITS), ValueError, "must be one of 1, 3, got 2"),
        (lambda: plots.first_and_last(IMAGES[:2], EXITS, n=0), ValueError, "`n` must be a whole number >= 1"),
        (lambda: plots.first_and_last(IMAGES[:2], EXITS, classes=("a",)), ValueError, "`exits.labels` must lie in"),
        (lambda: plots.reliability_diagram(EVALUATION), TypeError, "`before` must be a snn.early_exit.Reliability"),
        (lambda: plots.reliability_diagram(EMPTY), ValueError, "`before` must have at least one prediction"),
        (
            lambda: plots.reliability_diagram(compare([0.5], [True]), EXITS),
            TypeError,
            "`after` must be a snn.early_exit.Reliability",
        ),
        (lambda: plots.reliability_diagram(compare([0.5], [True]), names="ab"), ValueError, "`names` must be 1 names"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_figure_is_made(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
    assert plt.get_fignums() == []
