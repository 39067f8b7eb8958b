"""MultiTargetRidge against scikit-learn, on every path: dual and primal, numpy and torch, fitted and smoothed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from neurodecode.ridge import BandedRidge, MultiTargetRidge, StandardizedRidge
from neurodecode.ridge.solver import counts

SHAPES = {"p<n": (40, 15), "p>n": (25, 60), "p=n": (20, 20)}
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
# As in scikit-learn's own RidgeCV: what is left out is a row, however often it is repeated.
REPEATED = {"check_sample_weight_equivalence_on_dense_data": "cross-validation leaves rows out, not repetitions"}
ESTIMATORS = {
    MultiTargetRidge(alpha=1.0): {},
    MultiTargetRidge(alpha=1.0, solver="primal", chunk_size=1): {},
    MultiTargetRidge(alphas=[0.1, 1.0, 10.0]): REPEATED,
    MultiTargetRidge(alphas=[0.1, 1.0, 10.0], select="loo"): REPEATED,
    StandardizedRidge(MultiTargetRidge(alpha=1.0)): REPEATED,
    BandedRidge(alphas=[0.1, 1.0]): REPEATED,
}


def simulated(n: int, p: int, m: int = 7, t: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features far from zero, targets that partly follow them, and new rows."""
    rng = np.random.default_rng(seed)
    X, new = rng.normal(3.0, 1.0, (n, p)), rng.normal(3.0, 1.0, (t, p))
    return X, X @ rng.normal(0, 0.3, (p, m)) + rng.normal(5.0, 1.0, (n, m)), new


def as_kind(kind: str, *arrays: np.ndarray) -> list[Any]:
    return [a if kind == "numpy" else torch.from_numpy(np.array(a)) for a in arrays]


@parametrize_with_checks(list(ESTIMATORS), expected_failed_checks=ESTIMATORS.get)
def test_estimators_follow_the_rules_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["dual", "primal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_equals_scikit_learn(shape: str, solver: str, weighted: bool, intercept: bool, kind: str) -> None:
    X, Y, new = simulated(*SHAPES[shape])
    weight = np.random.default_rng(1).uniform(0, 3, len(X)) if weighted else None
    if weighted:
        weight[2] = 0.0
    for alpha in (2.0, np.geomspace(0.1, 100, 7), np.repeat([1.0, 30.0], [3, 4])):
        want = Ridge(alpha=alpha, fit_intercept=intercept).fit(X, Y, sample_weight=weight)
        ours = MultiTargetRidge(alpha, solver=solver, fit_intercept=intercept, chunk_size=3)
        x, y, rows = as_kind(kind, X, Y, new)
        got = clone(ours).fit(x, y, sample_weight=weight)
        assert isinstance(got.predict(rows), np.ndarray if kind == "numpy" else torch.Tensor)
        np.testing.assert_allclose(got.predict(rows), want.predict(new), **CLOSE)
        np.testing.assert_allclose(got.coef_, want.coef_, **CLOSE)
        np.testing.assert_allclose(got.intercept_, want.intercept_, **CLOSE)
        smooth = clone(ours).smooth_predict(x, y, rows, sample_weight=weight)
        np.testing.assert_allclose(smooth, want.predict(new), **CLOSE)


def test_ridge_with_one_target_returns_one_axis() -> None:
    X, Y, new = simulated(*SHAPES["p>n"])
    want, got = Ridge(3.0).fit(X, Y[:, 0]), MultiTargetRidge(3.0).fit(X, Y[:, 0])
    assert got.coef_.shape == (X.shape[1],)
    np.testing.assert_allclose(got.predict(new), want.predict(new), **CLOSE)
    np.testing.assert_allclose(MultiTargetRidge(3.0).smooth_predict(X, Y[:, 0], new), want.predict(new), **CLOSE)
    np.testing.assert_allclose(got.intercept_, want.intercept_, **CLOSE)


def test_float32_stays_float32_and_close_to_float64() -> None:
    X, Y, new = simulated(60, 200, m=50)
    exact = MultiTargetRidge(50.0).fit(X, Y).predict(new)
    single = [a.astype(np.float32) for a in (X, Y, new)]
    for got in (
        MultiTargetRidge(50.0).fit(*single[:2]).predict(single[2]),
        MultiTargetRidge(50.0).smooth_predict(*single),
    ):
        assert got.dtype == np.float32
        assert abs(got - exact).max() < 1e-5 * abs(exact).max()
    wide = MultiTargetRidge(50.0, precision="float64").smooth_predict(*single)
    assert wide.dtype == np.float64


def test_targets_far_from_zero_keep_their_digits_in_float32() -> None:
    X, Y, new = (a.astype(np.float32) for a in simulated(60, 200))
    near = MultiTargetRidge(50.0).smooth_predict(X, Y, new)
    # 4096 is a power of two: the shifted targets are rounded by 2**-11 only.
    far = MultiTargetRidge(50.0).smooth_predict(X, Y + np.float32(4096), new)
    assert abs(far - near - 4096).max() < 2e-3


def test_a_fixed_alpha_needs_a_cholesky_factor_and_a_choice_an_eigendecomposition() -> None:
    X, Y, new = simulated(30, 50)
    for ridge, path in (
        (MultiTargetRidge(1.0), {"dual": 1, "cholesky": 1}),
        (MultiTargetRidge([1.0, 2.0] * 3 + [1.0]), {"dual": 1, "cholesky": 2}),
        (MultiTargetRidge(), {"dual": 1, "eigh": 1}),
        (MultiTargetRidge(alpha_per="all", solver="primal"), {"primal": 1, "eigh": 1}),
    ):
        counts.clear()
        ridge.smooth_predict(X, Y, new)
        assert counts == path


def test_targets_and_results_may_be_files(tmp_path: Path) -> None:
    X, Y, new = simulated(30, 50, m=23)
    want = MultiTargetRidge(4.0).fit(X, Y)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", np.asfortranarray(Y))
    model = MultiTargetRidge(4.0, chunk_size=5).fit(tmp_path / "x.npy", str(tmp_path / "y.npy"))
    got = model.predict(new, out=tmp_path / "out.npy")
    assert isinstance(got, np.memmap) or isinstance(got.base, np.memmap)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), want.predict(new), **CLOSE)
    model.weights(out=tmp_path / "weights.npy")
    np.testing.assert_allclose(np.load(tmp_path / "weights.npy"), want.coef_, **CLOSE)
    room = np.lib.format.open_memmap(tmp_path / "room.npy", mode="w+", shape=(4, 23), dtype=np.float64)
    MultiTargetRidge(4.0).smooth_predict(X, np.load(tmp_path / "y.npy", mmap_mode="r"), new, out=room)
    np.testing.assert_allclose(room, want.predict(new), **CLOSE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "room.npy", "weights.npy", "x.npy", "y.npy"]


def test_failed_output_leaves_no_file(tmp_path: Path) -> None:
    X, Y, new = simulated(30, 50)
    Y[3, 6] = np.nan  # in the last chunk
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 columns \(6\)"):
        MultiTargetRidge(4.0, chunk_size=2).smooth_predict(X, Y, new, out=tmp_path / "out.npy")
    assert list(tmp_path.iterdir()) == []


def test_groups_of_targets_have_one_alpha_each() -> None:
    X, Y, new = simulated(30, 50, m=4)
    labels = ["vision", "text", "vision", "text"]
    got = MultiTargetRidge({"text": 100.0, "vision": 5.0}, target_groups=labels).fit(X, Y)
    assert got.alpha_.tolist() == [5.0, 100.0, 5.0, 100.0]
    np.testing.assert_allclose(got.predict(new), Ridge([5.0, 100.0, 5.0, 100.0]).fit(X, Y).predict(new), **CLOSE)


def test_bad_features_are_named_or_dropped() -> None:
    X, Y, new = simulated(30, 50)
    X[4, 7], X[:, 9], X[0, 20] = np.nan, 1.5, np.inf
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 50 columns \(7, 20\)"):
        MultiTargetRidge(1.0).fit(X, Y)
    with pytest.raises(ValueError, match=r"same value in every row in 1 of 50 columns \(9\)"):
        MultiTargetRidge(1.0).fit(np.nan_to_num(X, posinf=0.0), Y)
    keep = np.setdiff1d(np.arange(50), [7, 9, 20])
    got, want = MultiTargetRidge(1.0, bad_features="drop").fit(X, Y), Ridge(1.0).fit(X[:, keep], Y)
    new[:, 7] = np.nan  # what was dropped is not looked at
    np.testing.assert_allclose(got.predict(new), want.predict(new[:, keep]), **CLOSE)
    np.testing.assert_allclose(got.coef_[:, keep], want.coef_, **CLOSE)
    assert (got.coef_[:, [7, 9, 20]] == 0).all()
    new[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 NaN or infinite values"):
        got.predict(new)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "`alpha` must be a finite number > 0"),
        ({"alpha": [1.0, 2.0]}, r"`alpha` must have shape \(7,\), got \(2,\)"),
        ({"alpha": {"a": 1.0}}, "`target_groups` must say which group"),
        ({"alphas": [1.0, -1.0]}, "`alphas` must be a list of finite numbers > 0"),
        ({"select": "aic"}, "`select` must be one of 'gcv', 'loo', 'group-kfold'"),
        ({"alpha_per": "voxel"}, "`alpha_per` must be one of"),
        ({"solver": "svd"}, "`solver` must be one of 'auto', 'dual', 'primal'"),
        ({"precision": "float16"}, "`precision` must be one of"),
        ({"bad_features": "zero"}, "`bad_features` must be one of"),
        ({"select": "group-kfold"}, "`groups` must be given"),
        ({"select": "group-kfold", "groups": [0, 1] * 15}, "`n_splits` must be at most 2"),
        ({"select": "group-kfold", "groups": [0] * 30}, "`groups` must name at least two groups"),
        ({"device": "nowhere"}, "`device` must be one that torch can use"),
        ({"chunk_size": 0}, "`chunk_size` must be a whole number >= 1"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, Any], message: str) -> None:
    X, Y, _ = simulated(30, 50)
    with pytest.raises(ValueError, match=message):
        MultiTargetRidge(**settings).fit(X, Y)


def test_wrong_data_are_explained(tmp_path: Path) -> None:
    X, Y, new = simulated(30, 50)
    ridge = MultiTargetRidge(1.0)
    with pytest.raises(ValueError, match="`y` must have 30 rows"):
        ridge.fit(X, Y[:-1])
    with pytest.raises(ValueError, match=r"`sample_weight` must have shape \(30,\)"):
        ridge.fit(X, Y, sample_weight=np.ones(29))
    with pytest.raises(FileNotFoundError, match=r"`y` must be an array or the path of a .npy file"):
        ridge.fit(X, tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ValueError, match=r"no \.npy file of numbers"):
        ridge.fit(X, tmp_path / "text.npy")
    with pytest.raises(ValueError, match=r"`out` must have shape \(4, 7\)"):
        ridge.smooth_predict(X, Y, new, out=np.empty((4, 6)))
    with pytest.raises(ValueError, match="which keeps no duals or weights"):
        _smoothed(X, Y, new).predict(new)
    with pytest.raises(ValueError, match="`X` must have 50 features"):
        ridge.fit(torch.from_numpy(X), torch.from_numpy(Y)).predict(torch.from_numpy(new[:, :9]))


def _smoothed(X: np.ndarray, Y: np.ndarray, new: np.ndarray) -> MultiTargetRidge:
    ridge = MultiTargetRidge(1.0)
    ridge.smooth_predict(X, Y, new)
    return ridge


@pytest.mark.gpu
def test_cuda_equals_the_cpu() -> None:
    X, Y, new = simulated(60, 200, m=50)
    for ridge in (MultiTargetRidge(5.0), MultiTargetRidge(select="loo"), MultiTargetRidge(solver="primal")):
        want = clone(ridge).fit(X, Y)
        got = clone(ridge).set_params(device="cuda").fit(X, Y)
        assert (got.alpha_ == want.alpha_).all()
        np.testing.assert_allclose(got.predict(new), want.predict(new), **CLOSE)
        assert (got.predict(new[2:3]) == got.predict(new)[2:3]).all()


def test_import_loads_no_neuroimaging_plotting_or_diffusion_library() -> None:
    heavy = "matplotlib mne nilearn diffusers transformers brian2 numba"
    code = f"import sys, neurodecode; print(sorted({{m.split('.')[0] for m in sys.modules}} & set({heavy!r}.split())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
