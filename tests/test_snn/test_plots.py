"""Pictures show the numbers they were given, in the axes they were given, and say their units."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fakes.one_step import tiny_loaders, tiny_run

from snn import plots
from snn.plots import charts, pictures
from snn.training import History

NAMES = [*charts.__all__, *pictures.__all__]  # the others: test_plots_delays.py


@pytest.fixture(scope="module")
def run():
    return tiny_run()[0]


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


def _draw(name, run, ax):
    """Draw each kind of picture once, from one experiment."""
    _, inputs, images, labels = tiny_loaders()
    energies = {score.name: score.energy for score in run.scores}
    told = {"ANN": labels.roll(1), "T = 1": labels}
    classes = tuple("0123456789")
    stages = {"ANN": run.ann_history, "T = 3": run.result.stages[0].history}
    return {
        "accuracy_by_steps": lambda: plots.accuracy_by_steps({3: 0.9, 1: 0.8}, ann=0.95, direct=0.7, ax=ax),
        "energy_by_layer": lambda: plots.energy_by_layer(energies["T = 1"], ax=ax),
        "learning_curves": lambda: plots.learning_curves(stages, direct=run.direct.stages[0].history, ax=ax),
        "sample_predictions": lambda: plots.sample_predictions(images, labels, told, classes, ax=ax),
        "spike_maps": lambda: plots.spike_maps(run.result.model, inputs[0], ax=ax),
        "spike_rates": lambda: plots.spike_rates({"T = 3": energies["T = 3"], "T = 1": energies["T = 1"]}, ax=ax),
    }[name]()


@pytest.mark.parametrize("name", NAMES)
def test_picture_is_drawn_into_the_given_axes_and_not_shown(name, run, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("it was shown"))
    figure, ax = plt.subplots()
    assert _draw(name, run, ax) is ax
    assert ax.has_data()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", NAMES)
def test_picture_makes_a_figure_of_its_own_that_can_be_saved(name, run, tmp_path):
    ax = _draw(name, run, None)
    assert len(ax.figure.axes) == 1
    ax.figure.savefig(tmp_path / "figure.png")  # warnings, such as of missing glyphs, are errors
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("accuracy_by_steps", "time steps T", "test accuracy (%)"),
        ("energy_by_layer", "compute energy (nJ per image, 45 nm)", ""),
        ("learning_curves", "epoch", "accuracy (%)"),
        ("spike_rates", "spikes per neuron and image, all steps", ""),
    ],
)
def test_axes_say_what_they_show_and_in_which_unit(name, x, y, run):
    ax = _draw(name, run, None)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x, y)
    assert ax.get_legend() is not None


def test_pictures_load_matplotlib_only_when_they_draw():
    code = "import sys, snn.plots, snn.report, snn.one_step_report; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_accuracy_is_in_per_cent_and_runs_from_many_steps_to_few():
    ax = plots.accuracy_by_steps({1: 0.8, 3: 0.9}, ann=0.95)
    ann, spiking = ax.get_lines()[:2]
    assert set(ann.get_ydata()) == {95}
    assert list(spiking.get_xdata()) == [3, 1]
    assert list(spiking.get_ydata()) == pytest.approx([90, 80])
    assert ax.xaxis_inverted()


def test_accuracy_of_several_seeds_shows_mean_deviation_and_each():
    ax = plots.accuracy_by_steps({1: [0.7, 0.8, 0.9]}, direct=[0.5, 0.5, 0.5])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["spiking, T = 1: 80.00 ± 10.00 %", "trained at T = 1 directly: 50.00 %"]
    dots = [line for line in ax.get_lines() if line.get_marker() == "."]
    assert list(dots[0].get_ydata()) == pytest.approx([70, 80, 90])


def test_small_differences_of_accuracy_are_not_made_large():
    low, high = plots.accuracy_by_steps({2: 0.9801, 1: 0.98}).get_ylim()
    assert high - low >= 1.9
    assert 100 < plots.accuracy_by_steps({2: 1.0, 1: 0.999}).get_ylim()[1] < 100.2


def test_spike_rates_are_those_of_the_report(run):
    ax = _draw("spike_rates", run, None)
    report = next(score.energy for score in run.scores if score.name == "T = 3")
    assert list(ax.get_lines()[0].get_xdata()) == [neuron.rate for neuron in report.neurons]
    assert [text.get_text() for text in ax.get_yticklabels()] == [neuron.name for neuron in report.neurons]
    assert ax.yaxis_inverted()  # the first layer on top


def test_energy_bars_add_up_to_the_totals(run):
    report = next(score.energy for score in run.scores if score.name == "T = 1")
    ax = plots.energy_by_layer(report, name="T = 1")
    widths = [bar.get_width() for bar in ax.patches]
    n = len(report.layers)
    assert sum(widths[:n]) == pytest.approx(report.ann_energy_pj / 1e3)
    assert sum(widths[n:]) == pytest.approx(report.energy_pj / 1e3)
    said = [text.get_text().strip() for text in ax.texts]
    assert said[0] == "the same"  # the first layer sees the image, not spikes
    assert all(text.endswith("times less") for text in said[1:])


def test_mistakes_come_first_and_are_marked():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 2, 2) * 40
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    told = {"A": torch.tensor([0, 1, 2, 1, 1, 1]), "B": [0, 1, 2, 0, 1, 0]}
    ax = plots.sample_predictions(images, labels, told, ("x", "y", "z"), n_images=3)
    shown = [float(picture.get_array().max()) * 255 for picture in ax.get_images()]
    assert shown == pytest.approx([200, 120, 0])  # two wrong, one wrong, none wrong
    texts = [text.get_text() for text in ax.texts]
    assert texts[:6] == ["is z", "A: y ✗", "B: x ✗", "is x", "A: y ✗", "B: x"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_samples_may_be_grey_or_coloured_bytes_or_fractions(channels, dtype):
    images = torch.full((2, channels, 4, 4), 255 if dtype == torch.uint8 else 1, dtype=dtype)
    ax = plots.sample_predictions(images, [0, 0], {"A": [0, 0]}, ("x",))
    assert [float(picture.get_array().max()) for picture in ax.get_images()] == [1, 1]


def test_samples_that_do_not_fit_are_refused():
    images = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="must have the same length, got images: 2, labels: 2, A: 3"):
        plots.sample_predictions(images, [0, 0], {"A": [0, 0, 0]}, ("x",))
    with pytest.raises(ValueError, match="must be one of 1, 3, got 2"):
        plots.sample_predictions(torch.zeros(2, 2, 4, 4), [0, 0], {"A": [0, 0]}, ("x",))


def test_spike_maps_are_the_spikes_of_the_first_layer(run):
    model, x = run.result.model, tiny_loaders()[1][0]
    model.train()
    ax = plots.spike_maps(model, x, n_maps=3)
    assert model.training
    model.eval()
    picture, *maps = (np.asarray(image.get_array()) for image in ax.get_images())
    assert (picture.min(), picture.max()) == (0, 1)
    with torch.no_grad():
        spikes = model.features.act1(model.features.conv1(x[None]))[0]
    assert len(maps) == 3
    assert all(np.array_equal(one, spikes[k].numpy()) for k, one in enumerate(maps))
    assert set(np.unique(maps)) == {0, 1}


def test_spike_maps_refuse_another_shape(run):
    with pytest.raises(ValueError, match=r"`x` must have shape \(1, 8, 8\), got \(2, 1, 8, 8\)"):
        plots.spike_maps(run.result.model, torch.zeros(2, 1, 8, 8))


def _history(scores, kept):
    rows = [{"epoch": k, "train_accuracy": score, "valid_accuracy": score} for k, score in enumerate(scores)]
    return History(rows, kept_epoch=kept)


def test_learning_curves_follow_each_other_and_mark_what_was_kept():
    stages = {"ANN": _history([0.5, 0.9, 0.8], 1), "T = 1": _history([0.6, 0.7], 1)}
    ax = plots.learning_curves(stages, direct=_history([0.4, 0.5], 1))
    curves = [line for line in ax.get_lines() if line.get_marker() == "."]
    assert [list(line.get_xdata()) for line in curves] == [[1, 2, 3], [4, 5]]
    kept = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.get_lines() if line.get_marker() == "o"]
    assert np.allclose(kept, [(2, 90), (5, 70)])
    (direct,) = (line for line in ax.get_lines() if line.get_linestyle() == "--")
    assert list(direct.get_xdata()) == [4, 5]
    assert [text.get_text() for text in ax.texts] == ["ANN", "T = 1"]


def test_learning_curves_do_without_validation():
    rows = [{"epoch": 0, "train_accuracy": 0.5}]
    ax = plots.learning_curves({"ANN": History(rows, kept_epoch=0)})
    assert "validation" not in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.accuracy_by_steps({}), "`accuracy` must have at least one number of steps"),
        (lambda: plots.spike_rates({}), "`reports` must be of networks with the same spiking layers"),
        (lambda: plots.learning_curves({"ANN": History()}), "`stages` must each have at least one epoch"),
    ],
)
def test_nothing_to_draw_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
