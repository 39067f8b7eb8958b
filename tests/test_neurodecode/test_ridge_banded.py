"""Banded ridge against ridge regression of rescaled features, and on data with a band that does not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from neurodecode.ridge import BandedRidge, MultiTargetRidge
from neurodecode.ridge.banded import drawn_shares
from neurodecode.ridge.solver import counts

BANDS = np.repeat(["image", "text", "noise"], [30, 40, 50])[np.random.default_rng(5).permutation(120)]


def simulated(n: int = 90, m: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X, new = rng.normal(1.0, 1.0, (n, 120)), rng.normal(1.0, 1.0, (5, 120))
    W = rng.standard_normal((120, m)) * np.where(BANDS == "noise", 0.0, 0.3)[:, None]
    W[BANDS == "text", : m // 2] = 0.0
    return X, X @ W + rng.normal(3.0, 1.0, (n, m)), new


def test_one_band_is_multi_target_ridge() -> None:
    X, Y, new = simulated()
    for select in ("gcv", "loo"):
        got = BandedRidge(select=select).fit(X, Y)
        want = MultiTargetRidge(select=select, solver="dual").fit(X, Y)
        assert (got.alpha_ == want.alpha_).all()
        np.testing.assert_allclose(got.predict(new), want.predict(new), rtol=1e-10)
        np.testing.assert_allclose(got.cv_mse_, want.cv_mse_.min(0), rtol=1e-10)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_shares_are_a_rescaling_of_the_features(kind: str) -> None:
    X, Y, new = simulated()
    weight = np.random.default_rng(1).uniform(0.5, 2, len(X))
    model = BandedRidge(BANDS, n_draws=6, random_state=0)
    if kind == "numpy":
        model.fit(X, Y, sample_weight=weight)
    else:
        model.fit(torch.from_numpy(X), torch.from_numpy(Y), sample_weight=weight)
    predicted = np.asarray(model.predict(new if kind == "numpy" else torch.from_numpy(new)))
    names = model.bands_.tolist()
    for t in range(Y.shape[1]):
        root = np.sqrt(model.band_shares_[[names.index(band) for band in BANDS], t])
        want = Ridge(model.alpha_[t]).fit(X * root, Y[:, t], sample_weight=weight)
        np.testing.assert_allclose(predicted[:, t], want.predict(new * root), rtol=1e-8)
        np.testing.assert_allclose(np.asarray(model.coef_)[t], want.coef_ * root, atol=1e-9)


@pytest.mark.parametrize("select", ["loo", "group-kfold"])
def test_scores_are_those_of_refits_with_the_same_shares(select: str) -> None:
    X, Y, _ = simulated(40)
    groups = np.arange(40) if select == "loo" else np.arange(40) % 8
    model = BandedRidge(BANDS, n_draws=3, select=select, groups=groups, n_splits=None, random_state=1).fit(X, Y)
    names = model.bands_.tolist()
    for t in range(Y.shape[1]):
        root = np.sqrt(model.band_shares_[[names.index(band) for band in BANDS], t])
        errors = []
        for g in np.unique(groups):
            rest = groups != g
            fit = Ridge(model.alpha_[t]).fit((X * root)[rest], Y[rest, t])
            errors += ((Y[~rest, t] - fit.predict((X * root)[~rest])) ** 2).tolist()
        np.testing.assert_allclose(model.cv_mse_[t], np.mean(errors), rtol=1e-8)


def test_a_band_that_does_not_matter_is_left_out() -> None:
    X, Y, _ = simulated(n=300)
    rng = np.random.default_rng(9)
    new = rng.normal(1.0, 1.0, (500, 120))
    model = BandedRidge(BANDS, n_draws=40, random_state=0).fit(X, Y)
    shares = dict(zip(model.bands_.tolist(), model.band_shares_, strict=True))
    assert (shares["noise"] < 0.15).all()
    assert (shares["text"][:3] < 0.15).all()
    assert (model.cv_mse_ < MultiTargetRidge().fit(X, Y).cv_mse_.min(0)).all()
    parts = model.predict_bands(new)
    np.testing.assert_allclose(parts.sum(0) + Y.mean(0), model.predict(new), rtol=1e-9)
    noise = parts[model.bands_.tolist().index("noise")]
    assert (noise.std(0) < 0.2 * model.predict(new).std(0)).all()


def test_penalties_are_alpha_over_share() -> None:
    X, Y, _ = simulated()
    model = BandedRidge(BANDS, n_draws=0).fit(X, Y)
    used = model.band_shares_ > 0
    assert np.isinf(model.band_alphas_[~used]).all()
    penalties = model.band_alphas_[used] * model.band_shares_[used]
    np.testing.assert_allclose(penalties, np.broadcast_to(model.alpha_, used.shape)[used])


def test_one_eigendecomposition_for_each_draw_whatever_the_targets() -> None:
    X, Y, _ = simulated(m=50)
    counts.clear()
    BandedRidge(BANDS, n_draws=5, chunk_size=7, random_state=0).fit(X, Y)
    assert counts == {"eigh": 1 + 3 + 5}


def test_draws_are_seeded_and_sum_to_one() -> None:
    shares = drawn_shares(3, 200, (0.1, 1.0), 0)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert (shares == drawn_shares(3, 200, (0.1, 1.0), 0)).all()
    # Dirichlet(c) of three has variance (2/9) / (3c + 1).
    for k, c in enumerate((0.1, 1.0)):
        np.testing.assert_allclose(shares[4 + k :: 2].var(0).mean(), (2 / 9) / (3 * c + 1), rtol=0.15)


def test_wrong_use_is_explained() -> None:
    X, Y, _ = simulated()
    with pytest.raises(ValueError, match=r"`bands` must have shape \(120,\)"):
        BandedRidge(BANDS[:-1]).fit(X, Y)
    with pytest.raises(ValueError, match="`concentration` must be a finite number > 0"):
        BandedRidge(BANDS, concentration=[0.0]).fit(X, Y)
