"""What pictures of decoders show."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from neurodecode import plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_images_of_one_stimulus_stand_in_a_column():
    grey, colour = torch.rand(5, 1, 8, 8), np.random.default_rng(0).random((5, 3, 16, 16))
    ax = plots.image_rows({"seen": grey, "decoded": colour}, titles=list("abcde"), n_columns=3)
    assert len(ax.images) == 10
    corners = [image.get_extent()[0] for image in ax.images]
    assert corners[0] == corners[1] == corners[6] == corners[7]
    np.testing.assert_allclose(ax.images[0].get_array(), grey[0, 0])
    np.testing.assert_allclose(ax.images[1].get_array(), colour[0].transpose(1, 2, 0), rtol=1e-6)
    assert {"seen", "decoded", "a", "e"} <= {text.get_text() for text in ax.texts}


def test_bytes_and_fractions_look_the_same():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    ax = plots.image_rows({"bytes": images, "fractions": images / 255})
    np.testing.assert_allclose(ax.images[0].get_array(), ax.images[1].get_array(), rtol=1e-6)


def test_large_images_are_thinned():
    ax = plots.image_rows({"seen": np.zeros((1, 3, 1024, 1024))})
    assert ax.images[0].get_array().shape == (256, 256, 3)


def test_scores_stand_at_their_values_with_their_intervals():
    scores = {"CLIP": (0.8, 0.7, 0.9), "Inception": (0.6, np.nan, np.nan)}
    ax = plots.score_intervals(scores, others={"paper": {"CLIP": 0.915}}, chance=0.5)
    (lines,) = ax.collections
    assert [segment[:, 0].tolist() for segment in lines.get_segments()] == [[0.7, 0.9]]
    ours, paper = ax.lines[:2]
    assert ours.get_xdata().tolist() == [0.8, 0.6]
    assert list(paper.get_xdata()) == [0.915]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["this run", "paper"]


def test_histograms_mark_the_median_of_each_stage():
    values = {"low": np.arange(101.0), "text": np.arange(11.0)}
    ax = plots.stage_histograms(values)
    assert [text.get_text() for text in ax.texts] == ["50", "5"]
    ax = plots.stage_histograms({"constant": np.ones(7)})
    assert [text.get_text() for text in ax.texts] == ["1"]


def test_regions_are_sorted_by_preference():
    ax = plots.region_bars({"places": 30.0, "V1": -40.0, "faces": 20.0})
    assert [text.get_text() for text in ax.get_yticklabels()] == ["V1", "faces", "places"]
    assert [bar.get_width() for bar in ax.patches] == [-40.0, 20.0, 30.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.image_rows({}), "at least one row"),
        (lambda: plots.image_rows({"seen": np.zeros((2, 8, 8))}), r"rows\['seen'\]"),
        (lambda: plots.image_rows({"a": np.zeros((2, 3, 8, 8)), "b": np.zeros((3, 3, 8, 8))}), "same length"),
        (lambda: plots.score_intervals({}), "at least one score"),
        (lambda: plots.score_intervals({"a": (np.nan, 0, 1)}), "could not be computed"),
        (lambda: plots.stage_histograms({"a": np.array([np.nan])}), r"values\['a'\]"),
        (lambda: plots.region_bars({}), "at least one region"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
