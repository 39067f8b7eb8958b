"""Rasters, and rasters with delays: what is drawn is what was sent, when it arrives, and what it adds up to."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fakes.pictures import legend, make_layer, make_spikes, points, stroke
from matplotlib.colors import to_rgba

from snn import LIF, DelayLinear, plots
from snn.models import delay_mlp
from snn.plots.base import DIRECT, SPIKING


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


def test_raster_has_a_dot_for_each_spike_that_grows_with_the_count():
    spikes = make_spikes(10, 3, (2, 0), (7, 2), (7, 2), (7, 2))
    ax = plots.raster(spikes)
    (dots,) = ax.collections
    assert points(dots) == [[2, 0], [7, 2]]
    sizes = dots.get_sizes()
    assert sizes[1] / sizes[0] == pytest.approx(3)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 9.5), (-0.5, 2.5))  # silence is shown, too
    assert not ax.yaxis_inverted()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float64])
def test_raster_takes_spikes_of_any_type_in_ms(dtype):
    ax = plots.raster(make_spikes(10, 3, (2, 0), (7, 2)).to(dtype).requires_grad_(dtype == torch.float64), dt_ms=5)
    assert points(ax.collections[0]) == [[10, 0], [35, 2]]
    assert ax.get_xlim() == (-2.5, 47.5)
    assert ax.get_xlabel() == "time (ms)"


def test_raster_takes_events():
    ax = plots.raster((torch.tensor([1.5, 100.0]), torch.tensor([4, 1], dtype=torch.int32)), n_units=8)
    assert points(ax.collections[0]) == [[1.5, 4], [100, 1]]
    assert ax.get_ylim() == (-0.5, 7.5)
    assert ax.get_xlabel() == "time (ms)"
    assert plots.raster((np.array([1.5]), np.array([4]))).get_ylim() == (-0.5, 4.5)


def test_raster_of_silence_says_so():
    for spikes in (torch.zeros(5, 2), (torch.zeros(0), torch.zeros(0, dtype=torch.int32))):
        assert [text.get_text() for text in plots.raster(spikes).texts] == ["no spikes"]
    assert not plots.raster(torch.ones(5, 2)).texts


def test_raster_dots_of_many_units_do_not_run_into_each_other():
    one = make_spikes(50, 700, (3, 5))
    small, large = (plots.raster(spikes).collections[0].get_sizes()[0] for spikes in (one, one[:, :20]))
    assert small < large / 4


def test_delayed_raster_draws_each_spike_from_leaving_to_arrival():
    layer = make_layer([[2.0, -1.0], [9.0, 9.0]], [[3, 11.2], [0, 0]])
    above, _ = plots.delayed_raster(make_spikes(20, 2, (2, 0), (6, 0), (4, 1)), layer, 0).axes
    first, second = above.collections[:3], above.collections[3:6]  # the longest delay is the last row, on top
    for (lines, sent, arrived), start, delay, row in ((first, [2, 6], 3, 0), (second, [4], 11, 1)):
        assert points(sent) == [[t, row] for t in start]
        assert points(arrived) == [[t + delay, row] for t in start]
        assert stroke(lines) == [[t, row, t + delay, row] for t in start]
    assert [text.get_text() for text in above.get_yticklabels()] == ["0 (+2.00)", "1 (-1.00)"]


def test_delayed_raster_colours_and_marks_the_sign_and_widens_the_strong():
    layer = make_layer([[2.0, -1.0]], [[3, 11]])
    figure = plots.delayed_raster(make_spikes(20, 2, (2, 0), (4, 1)), layer, 0)
    plus, minus = figure.axes[0].collections[:3], figure.axes[0].collections[3:6]
    assert tuple(plus[0].get_color()[0][:3]) == to_rgba(SPIKING)[:3]
    assert tuple(minus[0].get_color()[0][:3]) == to_rgba(DIRECT)[:3]
    assert tuple(minus[2].get_facecolor()[0]) == to_rgba(DIRECT)
    tips = [part[2].get_paths()[0].vertices for part in (plus, minus)]
    assert tips[0][0, 1] > 0 > tips[1][0, 1]  # one points up, the other down
    assert plus[0].get_linewidth()[0] > minus[0].get_linewidth()[0]
    assert legend(figure) == ["sent", "arrives: excitatory", "arrives: inhibitory"]


@pytest.mark.parametrize("options", [{}, {"share": "axon"}, {"kernel_count": 3}, {"bias": True}])
def test_delayed_raster_draws_the_current_that_the_layer_computes(options, generator):
    layer = DelayLinear(6, 4, 9, generator=generator, **options).eval()
    spikes = (torch.rand(30, 6, generator=generator) < 0.2).float() * 2
    with torch.no_grad():
        want = layer(torch.cat([spikes, torch.zeros(8, 6)])[:, None])[:, 0, 2]
    figure = plots.delayed_raster(spikes, layer, 2, n_strongest=50)
    (line,) = figure.axes[1].get_lines()
    assert list(line.get_xdata()) == list(range(38))  # until the last spike can have arrived
    assert np.allclose(line.get_ydata(), want, atol=1e-6)
    heights = np.array([bar.get_height() for bar in figure.axes[1].patches]).reshape(2, 38)
    assert np.allclose(heights.sum(0), want, atol=1e-6)
    assert (heights[0] >= 0).all()
    assert (heights[1] <= 0).all()


def test_delayed_raster_of_the_strongest_shows_their_part_of_the_current():
    layer = make_layer([[0.1, -5.0, 3.0]], [[1, 6, 2]])
    figure = plots.delayed_raster(make_spikes(10, 3, (0, 0), (0, 1), (0, 2)), layer, 0, n_strongest=2)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["2 (+3.00)", "1 (-5.00)"]
    everything, part = (line.get_ydata() for line in figure.axes[1].get_lines())
    assert everything[[1, 2, 6]].tolist() == pytest.approx([0.1, 3, -5])
    assert part[[1, 2, 6]].tolist() == pytest.approx([0, 3, -5])
    assert legend(figure.axes[1]) == ["all 3 synapses", "the 2 above"]


@pytest.mark.parametrize("one_axis", [True, False])
def test_delayed_raster_marks_output_spikes_in_both_panels_and_ends_with_them(one_axis):
    layer = make_layer([[1.0], [1.0]], [[3], [4]], dt_ms=2.0)
    out = make_spikes(12, 2, (5, 1), (11, 0))
    figure = plots.delayed_raster(make_spikes(10, 1, (2, 0)), layer, 1, out[:, 1] if one_axis else out)
    for ax in figure.axes:
        (marks,) = (found for found in ax.collections if np.allclose(found.get_alpha() or 1, 0.35))
        assert stroke(marks) == [[10, 0, 10, 1]]
    assert points(figure.axes[1].collections[-1])[0][0] == 10
    assert figure.axes[1].get_xlim() == (-1, 23)
    assert figure.axes[1].get_xlabel() == "time (ms)"
    assert legend(figure)[-1] == "output spike"
    silent = plots.delayed_raster(make_spikes(10, 1, (2, 0)), layer, 1, torch.zeros(12))
    assert legend(silent)[-1] == "no output spike"


def test_delayed_raster_makes_a_coincidence_by_delays_visible():
    layer = make_layer([[0.7, 0.7]], [[11, 1]])
    for first, second, n_spikes in ((5, 15, 1), (15, 5, 0)):
        spikes = make_spikes(30, 2, (first, 0), (second, 1))
        with torch.no_grad():
            out = LIF(tau=1.05)(layer(spikes[:, None]))[:, 0]
        above, below = plots.delayed_raster(spikes, layer, 0, out).axes
        arrivals = {points(above.collections[k])[0][0] for k in (2, 5)}
        assert len(arrivals) == 2 - n_spikes
        assert len(points(below.collections[-1])) == n_spikes
        assert max(below.get_lines()[0].get_ydata()) == pytest.approx(1.4 if n_spikes else 0.7)


def test_delayed_raster_fits_what_a_network_records():
    net = delay_mlp(2, 2, hidden=(4,), max_delay=6, tail_steps=5, generator=torch.Generator().manual_seed(0)).eval()
    spikes = make_spikes(20, 2, (2, 0), (5, 1))
    with torch.no_grad():
        (hidden,) = net.hidden_spikes(spikes[:, None])
    figure = plots.delayed_raster(spikes, net.layers[0], 3, hidden[:, 0])
    assert figure.axes[1].get_xlim() == (-0.5, 24.5)
    assert plots.delayed_raster(hidden[:, 0], net.layers[1], 1).axes[1].get_xlim() == (-0.5, 29.5)
