"""Analysis of trained readouts: angles against chance, conditions in weight space, predictions as objects."""

import numpy as np
import pytest

from reservoir.analysis import condition_space, prediction_object, subspace_angles
from reservoir.tasks import PredictionTask


def rotated(a, degrees, rng):
    """Return a plane at two given angles to the plane `a`, whose rows are orthonormal."""
    other = np.linalg.qr(np.concatenate([a, rng.standard_normal((2, a.shape[1]))]).T)[0].T[2:]
    angle = np.deg2rad(degrees)[:, None]
    return np.cos(angle) * a + np.sin(angle) * other


def test_angles_are_those_by_which_a_plane_was_turned():
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.standard_normal((50, 2)))[0].T
    b = np.array([[2.0, 1.0], [0.5, 3.0]]) @ rotated(a, np.array([30.0, 75.0]), rng)
    found = subspace_angles(a, b, n_permutations=200)
    assert np.allclose(found.degrees, [30.0, 75.0])
    assert found.null.shape == (200, 2)
    assert found.p_below == 1 / 201, "closer than any shuffle"
    assert found.p_above > 0.9


def test_random_weights_are_nearly_orthogonal_and_that_is_no_finding():
    rng, small = np.random.default_rng(0), 0
    for _ in range(40):
        found = subspace_angles(*rng.standard_normal((2, 2, 400)), n_permutations=99, generator=rng)
        assert found.degrees[0] > 75
        small += min(found.p_below, found.p_above) <= 0.05
    # One in ten is expected by chance.
    assert small <= 12


def test_angles_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"`a` must have independent rows, got rank 1 of 2"):
        subspace_angles(np.ones((2, 5)), np.eye(2, 5))
    with pytest.raises(ValueError, match=r"`b` must have shape \(\?, 5\), got \(2, 6\)"):
        subspace_angles(np.eye(2, 5), np.eye(2, 6))


def test_components_follow_what_weights_were_made_of():
    rng = np.random.default_rng(0)
    p, delay = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 1, 6), np.linspace(200, 400, 5)))
    one, other = np.linalg.qr(rng.standard_normal((300, 2)))[0].T
    weights = 10 * p[:, None] * one + 0.02 * delay[:, None] * other + 0.05 * rng.standard_normal((30, 300))
    space = condition_space(weights.reshape(30, 3, 100), {"p": p, "delay": delay, "none": np.ones(30)})
    assert abs(space.correlations["p"][0]) > 0.99
    assert abs(space.correlations["delay"][1]) > 0.99
    assert abs(space.correlations["delay"][0]) < 0.1
    assert not space.correlations["none"].any()
    assert space.share[0] > space.share[1] > 5 * space.share[2]
    assert np.allclose(space.scores.mean(axis=0), 0)
    with pytest.raises(ValueError, match=r"`weights` must differ between conditions"):
        condition_space(np.ones((4, 10)), {})


def test_prediction_object_reads_the_truth_back():
    task = PredictionTask((120.0, 300.0, 600.0), (0.5, 0.25, 0.0))
    found = prediction_object(task.truth(dt_ms=0.5), dt_ms=0.5)
    assert found.delays_ms[:2].tolist() == [120.0, 300.0]
    assert np.isnan(found.delays_ms[2])
    assert found.probabilities.tolist() == [0.5, 0.25, 0.0]
