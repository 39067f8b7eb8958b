"""Predictions with the mean and spread of the training targets: the paper's formula, and the one that can go live."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from neurodecode.ridge import MultiTargetRidge, PredictionScaler, StandardizedRidge


def simulated(n: int = 200, p: int = 300, t: int = 2000, m: int = 5) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    X, new = rng.standard_normal((n, p)), rng.standard_normal((t, p))
    return X, X @ rng.normal(0, 0.1, (p, m)) * 2 + rng.normal(7.0, 1.0, (n, m)), new


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_test_mode_is_the_formula_of_the_paper(dtype: str) -> None:
    X, Y, new = (a.astype(dtype) for a in simulated())
    P = Ridge(80.0).fit(X.astype("f8"), Y.astype("f8")).predict(new.astype("f8"))
    want = (P - P.mean(0)) / P.std(0) * Y.std(0) + Y.mean(0)
    got = StandardizedRidge(MultiTargetRidge(80.0), standardize="test").fit(X, Y).predict(new)
    np.testing.assert_allclose(got, want, rtol=1e-4 if dtype == "float32" else 1e-8, atol=1e-5)
    np.testing.assert_allclose(got.std(0), Y.std(0), rtol=1e-4)


def test_test_mode_refuses_a_single_row() -> None:
    X, Y, new = simulated()
    model = StandardizedRidge(MultiTargetRidge(80.0), standardize="test").fit(X, Y)
    with pytest.raises(ValueError, match=r"at least 2 rows .* Use standardize='loo'"):
        model.predict(new[:1])


def test_loo_mode_is_that_of_explicit_refits() -> None:
    X, Y, new = simulated(n=40)
    weight = np.random.default_rng(1).uniform(0.5, 2, 40)
    left_out = np.empty_like(Y)
    for i in range(40):
        rest = np.arange(40) != i
        left_out[i] = Ridge(9.0).fit(X[rest], Y[rest], sample_weight=weight[rest]).predict(X[i : i + 1])[0]

    def statistics(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.average(a, axis=0, weights=weight)
        return mean, np.sqrt(np.average((a - mean) ** 2, axis=0, weights=weight))

    (m, s), (mean, spread) = statistics(left_out), statistics(Y)
    want = (Ridge(9.0).fit(X, Y, sample_weight=weight).predict(new) - m) / s * spread + mean
    for intercept in (True,):
        ridge = MultiTargetRidge(9.0, fit_intercept=intercept)
        got = StandardizedRidge(ridge, n_loo=None).fit(X, Y, sample_weight=weight)
        np.testing.assert_allclose(got.predict(new), want, rtol=1e-8)


def test_loo_mode_gives_new_rows_the_spread_of_the_targets() -> None:
    # In-sample statistics would not: there, predictions have nearly the spread of the targets already.
    X, Y, new = simulated(n=400)
    ridge = MultiTargetRidge(80.0).fit(X, Y)
    got = StandardizedRidge(MultiTargetRidge(80.0)).fit(X, Y).predict(new)
    assert (abs(got.std(0) / Y.std(0) - 1) < 0.1).all()
    in_sample = PredictionScaler().fit(ridge.predict(X), Y).transform(ridge.predict(new))
    assert (in_sample.std(0) < 0.9 * got.std(0)).all()


def test_mode_none_changes_nothing() -> None:
    X, Y, new = simulated(t=5)
    got = StandardizedRidge(MultiTargetRidge(80.0), standardize=None).fit(X, Y).predict(new)
    assert (got == MultiTargetRidge(80.0).fit(X, Y).predict(new)).all()


def test_a_sample_of_rows_is_seeded_and_enough() -> None:
    X, Y, new = simulated(n=600, t=50)
    few = [StandardizedRidge(MultiTargetRidge(80.0), n_loo=300, random_state=seed).fit(X, Y) for seed in (0, 0, 1)]
    assert (few[0].predict(new) == few[1].predict(new)).all()
    assert (few[0].predict(new) != few[2].predict(new)).any()
    whole = StandardizedRidge(MultiTargetRidge(80.0), n_loo=None).fit(X, Y)
    np.testing.assert_allclose(few[0].scaler_.prediction_std_, whole.scaler_.prediction_std_, rtol=0.15)


def test_statistics_without_intercept_are_those_of_the_targets_themselves() -> None:
    X, Y, _ = simulated()
    model = StandardizedRidge(MultiTargetRidge(80.0, fit_intercept=False)).fit(X, Y)
    np.testing.assert_allclose(model.scaler_.target_mean_, Y.mean(0), rtol=1e-10)
    np.testing.assert_allclose(model.scaler_.target_std_, Y.std(0), rtol=1e-10)


def test_predictions_without_spread_become_the_mean_of_the_targets() -> None:
    flat = np.full((6, 1), 0.1)
    for mode in ("loo", "test"):
        assert (PredictionScaler(mode).fit(flat, np.arange(6.0)[:, None]).transform(flat) == 2.5).all()


@pytest.mark.parametrize("mode", ["loo", "test"])
def test_tensors_come_back_as_tensors(mode: str) -> None:
    X, Y, new = simulated(t=30)
    model = StandardizedRidge(MultiTargetRidge(80.0), standardize=mode)
    want = model.fit(X, Y).predict(new)
    got = model.fit(torch.from_numpy(X), torch.from_numpy(Y)).predict(torch.from_numpy(new))
    assert isinstance(got, torch.Tensor)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-8)


def test_one_target_has_one_axis() -> None:
    X, Y, new = simulated(t=3)
    want = StandardizedRidge(MultiTargetRidge(80.0)).fit(X, Y[:, :1]).predict(new)[:, 0]
    np.testing.assert_allclose(StandardizedRidge(MultiTargetRidge(80.0)).fit(X, Y[:, 0]).predict(new), want, rtol=1e-12)


def test_wrong_use_is_explained() -> None:
    X, Y, new = simulated(t=3)
    with pytest.raises(ValueError, match="`standardize` must be one of 'loo', 'test', None"):
        StandardizedRidge(standardize="train").fit(X, Y)
    with pytest.raises(ValueError, match=r"`y` must have shape \(n, 5\)"):
        PredictionScaler().fit(Y, Y[:, :4])
    with pytest.raises(ValueError, match=r"`X` must have shape \(n, 5\)"):
        PredictionScaler().fit(Y, Y).transform(Y[:, :4])
    with pytest.raises(ValueError, match="`n_loo` must be a whole number >= 2"):
        StandardizedRidge(n_loo=1).fit(X, Y)
