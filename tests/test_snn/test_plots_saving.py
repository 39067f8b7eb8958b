"""A figure in a file: whole, closed, and in place of what was there only once it is complete."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.image import imread

from snn.plots import save_figure

SIZE = (3.0, 2.0)


def test_figure_has_the_asked_size_its_folder_is_made_and_it_is_closed(tmp_path):
    figure, _ = plt.subplots(figsize=SIZE)
    path = save_figure(figure, tmp_path / "new" / "figure.png", dpi=100)
    assert path == tmp_path / "new" / "figure.png"
    assert imread(path).shape[:2] == (200, 300)
    assert not plt.fignum_exists(figure.number)


def test_axes_stand_for_their_figure_those_of_a_part_of_it_too(tmp_path):
    figure = plt.figure(figsize=SIZE)
    left, _ = figure.subfigures(1, 2)
    assert imread(save_figure(left.subplots(), tmp_path / "figure.png", dpi=50)).shape[:2] == (100, 150)
    assert not plt.fignum_exists(figure.number)


def test_figure_that_cannot_be_drawn_leaves_the_old_file(tmp_path):
    path = save_figure(plt.figure(figsize=SIZE), tmp_path / "figure.png")
    before = path.read_bytes()
    figure, ax = plt.subplots()
    ax.set_title(r"$\frac{1$")  # no mathematics
    with pytest.raises(ValueError, match="frac"):
        save_figure(figure, path)
    plt.close(figure)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_what_is_no_figure_is_named(tmp_path):
    with pytest.raises(TypeError, match="`drawn` must be a figure or axes of matplotlib, got 'figure'"):
        save_figure("figure", tmp_path / "figure.png")
