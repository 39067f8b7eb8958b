"""Analysis of trained readouts: angles against chance, conditions in weight space, predictions as objects."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from reservoir import PredictionLearner, Record, Reservoir, simulate
from reservoir.analysis import condition_space, prediction_object, replay_predictions, subspace_angles
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


def test_condition_space_projects_what_it_was_found_from_onto_its_scores():
    weights = np.random.default_rng(0).standard_normal((12, 4, 30))
    space = condition_space(weights, {"p": np.arange(12)}, n_components=5)
    assert np.allclose(space.project(weights), space.scores)
    assert np.allclose(space.components @ space.components.T, np.eye(5))
    # The reference: principal components of scikit-learn, which are those but for the sign.
    pca = PCA(5).fit(weights.reshape(12, -1))
    assert np.allclose(np.abs(pca.components_), np.abs(space.components))
    assert np.allclose(pca.explained_variance_ratio_, space.share)
    with pytest.raises(ValueError, match=r"`weights` must have shape \(M, 120\), got \(2, 60\)"):
        space.project(np.ones((2, 60)))


def test_p_values_of_conditions_are_even_under_the_null_and_small_for_what_is_there():
    rng, smallest = np.random.default_rng(1), []
    label = np.tile([0.1, 0.5, 0.9], 3)
    for _ in range(200):
        weights = rng.standard_normal((9, 20))
        space = condition_space(weights, {"p": label}, n_permutations=99, generator=rng)
        smallest.append(space.p_values["p"].min())
    # Corrected for the choice of the best component: no more than 1 in 20 below 0.05, within three standard errors.
    assert np.mean(np.array(smallest) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert abs(np.mean(smallest) - 0.5) < 0.1
    there = condition_space(weights + 5 * label[:, None] * rng.standard_normal(20), {"p": label}, generator=2)
    assert there.p_values["p"].min() < 0.02
    assert (there.null["p"] <= 1 + 1e-12).all()
    assert there.table().splitlines()[1].startswith("p ")


def test_label_that_never_differs_correlates_with_nothing():
    weights = np.random.default_rng(0).standard_normal((6, 10))
    space = condition_space(weights, {"same": np.full(6, 0.1)}, n_permutations=20)
    assert not space.correlations["same"].any()
    assert (space.p_values["same"] == 1).all()
    # Five directions hold all of six conditions: the sixth component is rounding.
    assert condition_space(weights, {"p": np.arange(6)}, n_components=6).correlations["p"][5] == 0


def test_conditions_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"`weights` must have shape \(M, ...\), with two conditions or more"):
        condition_space(np.ones((1, 10)), {})
    with pytest.raises(ValueError, match=r"`weights` must differ between conditions"):
        condition_space(np.full((4, 10), 0.1), {})
    with pytest.raises(ValueError, match=r"`p` must have shape \(4,\), got \(3,\)"):
        condition_space(np.eye(4), {"p": np.ones(3)})


def test_shuffling_within_populations_keeps_a_common_preference_out_of_the_finding():
    rng, n = np.random.default_rng(0), 400
    population = np.repeat([1.0, -1.0], n // 2)
    # Both readouts weight one population up and the other down; within them they have nothing in common.
    a, b = population + 0.5 * rng.standard_normal((2, 1, n))
    places = {"E": slice(0, n // 2), "I": slice(n // 2, n)}
    assert subspace_angles(a, b, n_permutations=200).p_below == 1 / 201
    within = subspace_angles(a, b, n_permutations=200, populations=places)
    assert 0.05 < within.p_below < 0.95
    assert within.p_two_sided == min(1, 2 * min(within.p_below, within.p_above))
    assert "200 shuffles" in within.summary()
    # What the weights share within populations is found still.
    assert subspace_angles(a, a + 0.1 * b, n_permutations=200, populations=places).p_below == 1 / 201
    with pytest.raises(ValueError, match=r"`populations` must hold some of the 400 neurons, and each at most once"):
        subspace_angles(a, b, populations={"E": slice(0, 300), "I": slice(200, 400)})


def test_prediction_object_reads_the_truth_back():
    task = PredictionTask((120.0, 300.0, 600.0), (0.5, 0.25, 0.0))
    truth = task.truth(dt_ms=0.5)
    for found in (prediction_object(truth, dt_ms=0.5), prediction_object(truth, task, dt_ms=0.5)):
        assert found.delays_ms[:2].tolist() == [120.0, 300.0]
        assert np.isnan(found.delays_ms[2])
        assert found.probabilities.tolist() == [0.5, 0.25, 0.0]
        assert found.expected == 0
    assert found.true_delays_ms.tolist() == [120.0, 300.0, 600.0]
    assert found.true_probabilities.tolist() == [0.5, 0.25, 0.0]
    several = prediction_object(np.stack([truth, 0 * truth], axis=1), dt_ms=0.5)
    assert several.delays_ms.shape == (2, 3)
    assert several.expected.tolist() == [0, -1]


@pytest.mark.parametrize(
    "options", [{}, {"readout": "merged"}, {"reset_state": True}, {"boxcar_ms": 30.0}, {"n_cues": 2}], ids=str
)
def test_prediction_object_of_a_recording_is_that_of_the_test(options):
    task, n_cues = PredictionTask((80.0, 140.0), 0.7, trial_ms=250.0, n_trials=20), options.get("n_cues", 1)
    if n_cues == 2:
        task = PredictionTask([(80.0, 140.0), (140.0, 80.0)], [(0.7, 0.3)] * 2, trial_ms=250.0, n_trials=20)
    learner = PredictionLearner([Reservoir(100, generator=k) for k in (0, 1)], 2, n_threads=1, **options)
    learner.train(task.trials(dt_ms=1.0, generator=0))
    for cue in range(n_cues):
        recording, want = learner.record(task, cue=cue, seed=3), learner.test(task, cue=cue, seed=3)[0]
        assert want.max() > 0.1
        assert np.allclose(replay_predictions(recording, task, learner=learner, cue=cue), want, rtol=1e-9, atol=1e-12)
        found, other = (prediction_object(one, task, learner=learner, cue=cue) for one in (recording, want))
        assert np.array_equal(found.delays_ms, other.delays_ms, equal_nan=True)
        assert np.allclose(found.probabilities, other.probabilities)
        assert found.true_delays_ms.tolist() == task.delays_ms[cue].tolist()


def test_predictions_of_what_does_not_fit_are_refused():
    task = PredictionTask((80.0, 140.0), 0.7, trial_ms=250.0)
    learner = PredictionLearner(Reservoir(50, generator=0), 2, n_threads=1)
    recording, silent = learner.record(task), learner.record(task, record=Record(spikes="none"))
    other, short = (simulate(Reservoir(n, generator=0), ms) for n, ms in ((60, 300.0), (50, 100.0)))
    for make, message in (
        (lambda: prediction_object(recording, task), r"come with the task, and the learner .* got no `learner`"),
        (lambda: prediction_object(other, task, learner=learner), r"1 x 50 neurons, 1 ms, got 1 x 60 neurons, 1 ms"),
        (lambda: prediction_object(short, task, learner=learner), r"must last at least a trial, 250 ms, got 100 ms"),
        (lambda: prediction_object(silent, task, learner=learner), r"`record` must keep spikes"),
        (lambda: prediction_object(np.zeros((100, 2)), task, dt_ms=1.0), r"last a trial of the task, 250 ms of 1 ms"),
        (lambda: prediction_object(np.zeros((250, 2)), task), r"`dt_ms` must be given for an array"),
        (lambda: prediction_object(np.zeros(250), task, dt_ms=1.0), r"be a Recording, or an array of shape \(T, K\)"),
        (lambda: prediction_object(np.full((250, 2), np.nan), task, dt_ms=1.0), r"must hold finite numbers only"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
