"""Single-trial responses."""

import numpy as np
import pytest

from neuroloaders.betas import BetaSet


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    mask = np.zeros((3, 4, 2), bool)
    mask.reshape(-1)[[1, 5, 6, 10, 20]] = True
    return BetaSet(
        betas=rng.standard_normal((12, 5)).astype(np.float32) * 3 + 1,
        stimuli=np.array([7, 4, 7, 9, 4, 7, 1, 1, 9, 2, 2, 2]),
        sessions=np.repeat([1, 2], 6),
        runs=np.repeat([1, 2, 3, 4], 3),
        mask=mask,
        affine=np.diag([2.0, 2, 2, 1]),
        rois={"early": np.array([1, 1, 0, 0, 0], bool)},
        ncsnr=np.arange(5.0),
        name="study",
        subject="01",
    )


def test_means_over_repeats_come_in_the_order_of_first_appearance(trials):
    means = trials.average()
    assert means.stimuli.tolist() == [7, 4, 9, 1, 2]
    assert means.repeats.tolist() == [3, 2, 2, 2, 3]
    for stimulus, row in zip(means.stimuli, means.betas, strict=True):
        np.testing.assert_allclose(row, trials.betas[trials.stimuli == stimulus].mean(0), rtol=1e-5, atol=1e-6)


def test_mean_of_means_weighs_by_repeats(trials):
    halves = [trials.select(trials.sessions == session).average() for session in (1, 2)]
    both = BetaSet(
        betas=np.concatenate([half.betas for half in halves]),
        stimuli=np.concatenate([half.stimuli for half in halves]),
        sessions=np.concatenate([half.sessions for half in halves]),
        repeats=np.concatenate([half.repeats for half in halves]),
    ).average()
    np.testing.assert_allclose(both.betas, trials.average().betas, rtol=1e-5, atol=1e-6)
    assert both.repeats.tolist() == trials.average().repeats.tolist()


def test_zscores_come_from_training_rows_only(trials):
    train = np.arange(8)
    scored = trials.zscore(train)
    np.testing.assert_allclose(scored.betas[train].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scored.betas[train].std(0, ddof=1), 1, rtol=1e-5)
    other = trials.betas.copy()
    other[8:] = 99
    changed = BetaSet(betas=other, stimuli=trials.stimuli, sessions=trials.sessions).zscore(train)
    np.testing.assert_array_equal(changed.betas[:8], scored.betas[:8])


@pytest.mark.parametrize("rows", [[0, 12], [-1, 3], [0.0, 1.0], np.ones(11, bool)])
def test_training_rows_that_are_none_are_refused(trials, rows):
    with pytest.raises((IndexError, ValueError), match="train_rows"):
        trials.zscore(rows)


def test_zscores_per_session_remove_the_level_of_each(trials):
    shifted = trials.betas + 50 * (trials.sessions == 2)[:, None].astype(np.float32)
    moved = BetaSet(betas=shifted, stimuli=trials.stimuli, sessions=trials.sessions)
    train = np.array([0, 1, 2, 3, 6, 7, 8, 9])
    scored = moved.zscore(train, per="session").betas
    np.testing.assert_allclose(scored, trials.zscore(train, per="session").betas, atol=1e-4)
    with pytest.raises(ValueError, match="session 2"):
        moved.zscore(np.arange(6), per="session")


def test_a_region_keeps_its_voxels_everywhere(trials):
    early = trials.restrict("early")
    np.testing.assert_array_equal(early.betas, trials.betas[:, :2])
    assert early.rois["early"].all()
    assert np.flatnonzero(early.mask).tolist() == [1, 5]
    assert early.ncsnr.tolist() == [0.0, 1.0]


def test_nan_and_constant_voxels_are_found_and_dropped(trials):
    betas = trials.betas.copy()
    betas[3, 1], betas[:, 4] = np.nan, 2.0
    broken = BetaSet(betas=betas, stimuli=trials.stimuli, sessions=trials.sessions, mask=trials.mask)
    assert broken.bad_voxels().tolist() == [False, True, False, False, True]
    assert broken.drop_bad_voxels().n_voxels == 3
    assert trials.drop_bad_voxels() is trials
    with pytest.raises(ValueError, match="2 constant or NaN ones, the first 1"):
        broken.zscore(np.arange(12))


def test_rows_are_taken_in_the_order_asked(trials):
    some = trials.select([5, 0, 0])
    np.testing.assert_array_equal(some.betas, trials.betas[[5, 0, 0]])
    assert some.runs.tolist() == [2, 1, 1]
    with pytest.raises(IndexError, match=r"0\.\.11"):
        trials.select([12])
    with pytest.raises(ValueError, match="at least one row"):
        trials.select(np.zeros(12, bool))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"betas": np.zeros((12, 5))}, TypeError, "float32"),
        ({"stimuli": np.arange(11)}, ValueError, "same length"),
        ({"stimuli": np.arange(12.0)}, TypeError, "whole numbers or text"),
        ({"mask": np.ones((2, 2, 1), bool)}, ValueError, "5 voxels"),
        ({"rois": {"V1": np.ones(4, bool)}}, ValueError, "V1"),
        ({"rois": {"V1": np.ones(5)}}, TypeError, "V1"),
        ({"repeats": np.zeros(12, int)}, ValueError, "at least 1"),
        ({"affine": np.eye(3)}, ValueError, "affine"),
    ],
)
def test_what_does_not_fit_is_named(trials, change, kind, message):
    given = {name: getattr(trials, name) for name in ("betas", "stimuli", "sessions", "mask", "rois")}
    with pytest.raises(kind, match=message):
        BetaSet(**{**given, **change})
