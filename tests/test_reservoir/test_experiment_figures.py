"""Every figure of the experiment shows the numbers it was given, and is closed when it is saved."""

import numpy as np
import pytest

from reservoir.experiment_figures import FIGURES, save
from reservoir.tasks import PredictionTask, standard_blocks

TESTS = [0, 1, 10]


def results(n_networks=2):
    """Results of a run of few trials, as JSON holds them."""
    rng = np.random.default_rng(0)
    blocks = standard_blocks(PredictionTask((250.0, 450.0), 0.8))
    names = ("local", "RLS", "RLS, told", "merged")
    comparison = {name: rng.uniform(0.1, 0.2, (2, 3, n_networks)).tolist() for name in names}
    comparison["merged"][1][2][0] = None
    truths = [block.truth(dt_ms=5.0).tolist() for block in blocks]
    return {
        "learning": {
            "tests": TESTS,
            "paper": [[1, 0.192], [10, 0.136], [100, 0.085]],
            "blocks": [repr(block) for block in blocks],
            "rmse": rng.uniform(0.1, 0.2, (4, 3, n_networks)).tolist(),
            "outputs": truths,
            "spike_ms": [-10.0, 20.0, 300.0],
            "spike_neurons": [0, 5, 9],
            "angle_deg": [86.0] * n_networks,
            "angle_null_deg": rng.normal(87, 1, (n_networks, 50)).tolist(),
        },
        "sweep": {"levels": [0.0, 0.5, 1.0], "amplitude": [[[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]] * n_networks},
        "conditions": {
            "scores": rng.normal(size=(4, 3)).tolist(),
            "share": [0.5, 0.3, 0.1],
            "labels": {"p": [0.2, 0.8] * 2, "delay": [200.0] * 2 + [300.0] * 2},
        },
        "rules": {"tests": TESTS, "rmse": comparison},
        "ablations": {
            "rmse": comparison,
            "rows": [{"variant": name, "verdict": "worse"} for name in names],
        },
    }


@pytest.fixture(autouse=True)
def headless():
    import matplotlib

    matplotlib.use("Agg")


@pytest.mark.parametrize("n_networks", [1, 2])
@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_and_saved(name, n_networks, tmp_path):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    save(FIGURES[name](results(n_networks)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert plt.get_fignums() == before
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_truth_that_is_shaded_is_that_of_the_task():
    import matplotlib.pyplot as plt

    fig = FIGURES["prediction"](results())
    for ax, block in zip(fig.axes[1:], standard_blocks(), strict=True):
        truth = block.truth(dt_ms=5.0)
        for k, patch in enumerate(ax.collections[:2]):
            heights = patch.get_paths()[0].vertices[:, 1]
            assert np.isclose(heights.max(), truth[:, k].max())
            # Here the outputs are the truth.
            assert np.allclose(ax.lines[k].get_ydata(), truth[:, k])
    plt.close(fig)


def test_learning_curve_shows_the_means():
    import matplotlib.pyplot as plt

    found = results()
    fig = FIGURES["learning"](found)
    drawn = [line.get_ydata() for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert np.allclose(drawn, np.mean(found["learning"]["rmse"], axis=2))
    plt.close(fig)
