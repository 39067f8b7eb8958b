"""Closed forms of cross-validation against explicit refits, scikit-learn, and numbers worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold, LeaveOneGroupOut

from neurodecode.ridge import MultiTargetRidge
from neurodecode.ridge.selection import SELECTIONS

SHAPES = {"p<n": (40, 15), "p>n": (25, 60), "p<<n": (60, 4)}
ALPHAS = np.geomspace(0.05, 500, 9)


def simulated(n: int, p: int, m: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(2.0, 1.0, (n, p))
    return X, X @ rng.normal(0, 0.2, (p, m)) * rng.uniform(0, 2, m) + rng.normal(4.0, 1.0, (n, m))


def refitted(X, Y, folds, weight, intercept, alpha):
    """Return predictions of rows by fits without their folds."""
    out = np.zeros_like(Y)
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(X)), fold)
        w = None if weight is None else weight[rest]
        out[fold] = Ridge(alpha, fit_intercept=intercept).fit(X[rest], Y[rest], sample_weight=w).predict(X[fold])
    return out


def test_errors_are_those_worked_out_by_hand() -> None:
    # shared/research/neurodecode.md, F.1: alpha = 3, with intercept.
    rng = np.random.RandomState(0)
    X, Y = rng.randn(8, 12), rng.randn(8, 2)
    for select, want in (("loo", [1.68222077, 1.10933592]), ("gcv", [1.55759035, 1.0733697])):
        np.testing.assert_allclose(MultiTargetRidge(alphas=[3.0], select=select).fit(X, Y).cv_mse_[0], want, rtol=1e-8)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["dual", "primal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_closed_forms_equal_refits(shape: str, solver: str, weighted: bool, intercept: bool) -> None:
    X, Y = simulated(*SHAPES[shape])
    n = len(X)
    weight = np.random.default_rng(1).uniform(0.2, 3, n) if weighted else None
    groups = np.random.default_rng(2).integers(0, 7, n)
    folds = {
        "loo": [[i] for i in range(n)],
        "group-kfold": [test for _, test in GroupKFold(3).split(X, groups=groups)],
        "each group": [test for _, test in LeaveOneGroupOut().split(X, groups=groups)],
    }
    for name, rows in folds.items():
        want = [
            np.average((Y - refitted(X, Y, rows, weight, intercept, a)) ** 2, axis=0, weights=weight) for a in ALPHAS
        ]
        ridge = MultiTargetRidge(alphas=ALPHAS, select="loo" if name == "loo" else "group-kfold", solver=solver)
        ridge.set_params(fit_intercept=intercept, n_splits=None if name == "each group" else 3, chunk_size=4)
        ridge.fit(X, Y, sample_weight=weight, groups=groups)
        np.testing.assert_allclose(ridge.cv_mse_, want, rtol=1e-8)
        assert (ridge.alpha_ == ALPHAS[np.argmin(want, axis=0)]).all()


@pytest.mark.parametrize("solver", ["dual", "primal"])
@pytest.mark.parametrize("alpha", [3.0, None, [1.0, 1.0, 9.0, 9.0, 9.0, 1.0]], ids=["fixed", "chosen", "two"])
def test_left_out_predictions_equal_refits(alpha: object, solver: str) -> None:
    X, Y = simulated(25, 30)
    weight = np.random.default_rng(1).uniform(0.2, 3, 25)
    ridge = MultiTargetRidge(alpha, alphas=ALPHAS, solver=solver, chunk_size=4).fit(X, Y, sample_weight=weight)
    want = refitted(X, Y, [[i] for i in range(25)], weight, True, ridge.alpha_)
    np.testing.assert_allclose(ridge.loo_predict(Y), want, rtol=1e-8)
    np.testing.assert_allclose(ridge.loo_predict(Y, [7, 3]), want[[7, 3]], rtol=1e-8)
    with pytest.raises(ValueError, match="`rows` must be numbers of training rows, 0 to 24"):
        ridge.loo_predict(Y, [25])


@pytest.mark.parametrize("shape", SHAPES)
def test_gcv_is_its_definition(shape: str) -> None:
    X, Y = simulated(*SHAPES[shape])
    n = len(X)
    Xc = X - X.mean(0)
    want = []
    for alpha in ALPHAS:
        H = Xc @ np.linalg.solve(Xc.T @ Xc + alpha * np.eye(X.shape[1]), Xc.T) + 1.0 / n
        want.append(((Y - H @ Y) ** 2).mean(0) / (1 - np.trace(H) / n) ** 2)
    np.testing.assert_allclose(MultiTargetRidge(alphas=ALPHAS).fit(X, Y).cv_mse_, want, rtol=1e-8)


@pytest.mark.reference
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(120, 300), (200, 50)])
def test_loo_chooses_what_ridge_cv_chooses(shape: tuple[int, int], dtype: str) -> None:
    X, Y = (a.astype(dtype) for a in simulated(*shape, m=300))
    alphas = np.geomspace(3, 1e5, 60)  # close enough for near ties
    want = RidgeCV(alphas=alphas, alpha_per_target=True).fit(X.astype("float64"), Y.astype("float64"))
    for library in (np.asarray, torch.from_numpy):
        got = MultiTargetRidge(alphas=alphas, select="loo").fit(library(X), library(Y))
        # Features are centred in their own precision: two alphas that differ in the seventh digit may change places.
        best, second = np.sort(got.cv_mse_, axis=0)[:2]
        decided = second / best - 1 > (2e-6 if dtype == "float32" else 1e-12)
        assert decided.mean() > 0.95
        assert (got.alpha_ == want.alpha_)[decided].all()
    np.testing.assert_allclose(got.cv_mse_.min(0), -want.best_score_, rtol=1e-5 if dtype == "float32" else 1e-8)
    assert len(np.unique(want.alpha_)) > 10


@pytest.mark.reference
def test_alpha_for_all_is_what_a_grid_search_finds() -> None:
    X, Y = simulated(60, 90)
    groups = np.repeat(np.arange(6), 10)
    grid = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=LeaveOneGroupOut(), scoring="neg_mean_squared_error")
    want = grid.fit(X, Y, groups=groups)
    got = MultiTargetRidge(alphas=ALPHAS, select="group-kfold", groups=groups, n_splits=None, alpha_per="all").fit(X, Y)
    assert set(got.alpha_) == {want.best_params_["alpha"]}
    np.testing.assert_allclose(got.cv_mse_.mean(1), -want.cv_results_["mean_test_score"], rtol=1e-8)


def test_group_alpha_is_the_best_of_the_mean_error() -> None:
    X, Y = simulated(30, 50)
    labels = np.array(["b", "a", "b", "a", "b", "c"])
    free = MultiTargetRidge(alphas=ALPHAS).fit(X, Y)
    got = MultiTargetRidge(alphas=ALPHAS, alpha_per="group", target_groups=labels, chunk_size=2).fit(X, Y)
    for name in "abc":
        own = labels == name
        assert set(got.alpha_[own]) == {ALPHAS[free.cv_mse_[:, own].mean(1).argmin()]}
    fixed = MultiTargetRidge(got.alpha_).fit(X, Y)
    np.testing.assert_allclose(got.predict(X), fixed.predict(X), rtol=1e-9)


@pytest.mark.parametrize("select", SELECTIONS)
def test_chosen_alphas_predict_like_the_same_alphas_fixed(select: str) -> None:
    X, Y = simulated(30, 50)
    groups = np.repeat(np.arange(10), 3)
    ridge = MultiTargetRidge(alphas=ALPHAS, select=select, groups=groups)
    smooth = ridge.smooth_predict(X, Y, X[:5])
    want = Ridge(ridge.alpha_).fit(X, Y).predict(X[:5])
    np.testing.assert_allclose(smooth, want, rtol=1e-8)
    np.testing.assert_allclose(ridge.fit(X, Y).predict(X[:5]), want, rtol=1e-8)


def test_rows_of_weight_zero_do_not_count() -> None:
    X, Y = simulated(30, 20)
    weight = np.ones(30)
    weight[[3, 11]] = 0
    for select in SELECTIONS:
        groups = np.repeat(np.arange(10), 3)
        ridge = MultiTargetRidge(alphas=ALPHAS, select=select, groups=groups, n_splits=None)
        want = ridge.fit(X[weight > 0], Y[weight > 0], groups=groups[weight > 0]).cv_mse_
        np.testing.assert_allclose(ridge.fit(X, Y, sample_weight=weight).cv_mse_, want, rtol=1e-8)


def test_a_duplicated_row_makes_no_score_better_than_its_group_allows() -> None:
    # The same image shown twice: leave-one-out has seen it, leave-one-image-out has not.
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((30, 80)), 2, axis=0) + 0.1 * rng.standard_normal((60, 80))
    Y = np.repeat(rng.standard_normal((30, 5)), 2, axis=0)  # unrelated to X
    images = np.repeat(np.arange(30), 2)
    loo = MultiTargetRidge(alphas=[1.0], select="loo").fit(X, Y).cv_mse_
    grouped = MultiTargetRidge(alphas=[1.0], select="group-kfold", groups=images, n_splits=None).fit(X, Y).cv_mse_
    assert (loo < 0.3 * Y.var(0)).all()
    assert (grouped > 0.8 * Y.var(0)).all()


def test_edge_share_says_how_often_the_grid_was_too_narrow() -> None:
    X, Y = simulated(40, 15)
    noise = np.random.default_rng(3).standard_normal((40, 5))
    assert MultiTargetRidge(alphas=[0.01, 1.0, 1e6]).fit(X, noise).edge_share_ == 1.0
    assert MultiTargetRidge(alphas=ALPHAS).fit(X, Y).edge_share_ < 0.5
