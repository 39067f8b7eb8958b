"""Scenes of single regions, and where the weights of a decoder lie."""

import numpy as np
import pytest

from neurodecode.fmri.roi import PAPER_NORMS, region_latents, region_preference, voxel_weights
from neurodecode.ridge import MultiTargetRidge, StandardizedRidge
from neurodecode.ridge.side_by_side import Layout, SideBySide

N, P = 60, 90
ROIS = {
    "early": np.arange(P) < 30,
    "faces": (np.arange(P) >= 30) & (np.arange(P) < 50),
    "places": np.arange(P) >= 50,
}


@pytest.fixture(scope="module", params=["dual", "primal"])
def fitted(request):
    rng = np.random.default_rng(0)
    n = N if request.param == "dual" else 300
    X = rng.standard_normal((n, P)) + 0.5
    low, text, image = (rng.standard_normal((P, size)) for size in (12, 20, 18))
    low[30:] *= 0.05
    text[:30] *= 0.05
    image[:30] *= 0.05
    blocks = SideBySide(
        {"low_level": X @ low + 3.0, "text": (X @ text - 1).reshape(n, 4, 5), "image": (X @ image).reshape(n, 3, 6)}
    )
    model = StandardizedRidge(MultiTargetRidge(10.0, solver=request.param)).fit(X, blocks)
    return model, blocks.layout


def by_hand(model, layout, rois, spread):
    """The rule of the reference code, from explicit weights."""
    ridge = model.ridge_
    out = {}
    for name, where in layout.columns.items():
        W, b = ridge.coef_[where], ridge.intercept_[where]
        rows = np.stack(list(rois.values())).astype(float) @ W.T
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * PAPER_NORMS[name][0] + b
        if name == "low_level":
            s = model.scaler_
            if spread == "regions":
                rows = (rows - rows.mean(0)) / rows.std(0)
            else:
                rows = (rows - s.prediction_mean_[where]) / s.prediction_std_[where]
            rows = rows * s.target_std_[where] + s.target_mean_[where]
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * 80
        out[name] = rows.reshape(len(rois), *layout.shapes[name])
    return out


@pytest.mark.parametrize("spread", ["training", "regions"])
def test_latents_equal_those_from_explicit_weights(fitted, spread):
    model, layout = fitted
    made, want = region_latents(model, layout, ROIS, spread=spread), by_hand(model, layout, ROIS, spread)
    for name in want:
        np.testing.assert_allclose(made[name], want[name], rtol=1e-4, atol=1e-5)


def test_a_scene_does_not_depend_on_other_regions_by_default(fitted):
    model, layout = fitted
    alone = region_latents(model, layout, {"faces": ROIS["faces"]})
    together = region_latents(model, layout, ROIS)
    for name in alone:
        np.testing.assert_allclose(alone[name][0], together[name][1], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="spread='training'"):
        region_latents(model, layout, {"faces": ROIS["faces"]}, spread="regions")


def test_weights_are_sums_of_absolute_weights(fitted):
    model, layout = fitted
    want = {name: abs(model.ridge_.coef_[where]).sum(0) for name, where in layout.columns.items()}
    for chunk_size in (None, 7):
        model.ridge_.chunk_size = chunk_size
        made = voxel_weights(model, layout)
        for name in want:
            np.testing.assert_allclose(made[name], want[name], rtol=1e-9, atol=1e-12)
    model.ridge_.chunk_size = None


def test_planted_regions_are_told_apart(fitted):
    model, layout = fitted
    preference = region_preference(voxel_weights(model, layout), ROIS)
    assert preference["early"] < -30
    assert preference["faces"] > 10
    assert preference["places"] > 10


def test_percentiles_of_equal_weights_give_no_preference():
    weights = {"low_level": np.arange(6.0), "text": np.arange(6.0), "image": np.zeros(6)}
    assert region_preference(weights, {"all": np.ones(6, bool)}) == {"all": 0.0}


def test_unusable_regions_are_named(fitted):
    model, layout = fitted
    with pytest.raises(ValueError, match="hold at least one voxel"):
        region_latents(model, layout, {"none": np.zeros(P, bool)})
    with pytest.raises(ValueError, match=r"rois\['short'\]"):
        region_latents(model, layout, {"short": np.ones(P - 1, bool)})
    with pytest.raises(ValueError, match="array of bool"):
        region_latents(model, layout, {"labels": np.ones(P)})
    with pytest.raises(ValueError, match="50 targets"):
        region_latents(model, Layout({"low_level": (3,)}), ROIS)
    with pytest.raises(ValueError, match="none for 'other'"):
        region_latents(model, Layout({"other": (50,)}), ROIS)
    with pytest.raises(TypeError, match="fitted"):
        voxel_weights(StandardizedRidge(), layout)
