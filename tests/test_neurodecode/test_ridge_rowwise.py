"""Products and predictions whose rows do not know of each other, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurodecode.ridge import BandedRidge, MultiTargetRidge, StandardizedRidge, rowwise
from neurodecode.ridge.rowwise import DEPTH, rowwise_product


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 7, 8, DEPTH, DEPTH + 3, 1000])
def test_product_is_that_of_matrices(n: int, dtype: str) -> None:
    rng = np.random.default_rng(n)
    left, right = rng.standard_normal((5, n)).astype(dtype), rng.standard_normal((n, 1100)).astype(dtype)
    exact = left.astype(np.longdouble) @ right.astype(np.longdouble)
    bound = 4 * np.finfo(dtype).eps * np.sqrt(n) * (abs(left) @ abs(right)).max()
    for got in (rowwise_product(left, right), rowwise_product(torch.from_numpy(left), torch.from_numpy(right)).numpy()):
        assert got.dtype == dtype
        assert abs(got - exact).max() <= bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_element_is_a_chain_of_blocks_whatever_stands_beside_it(dtype: str) -> None:
    # The order of operations, spelled out: no fused, no reordered sum.
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((3, 300)).astype(dtype), rng.standard_normal((300, 1030)).astype(dtype)
    want = np.zeros((3, 1030), dtype)
    for first in range(0, 300, DEPTH):
        block = np.zeros_like(want)
        for k in range(first, min(first + DEPTH, 300)):
            block += left[:, k : k + 1] * right[k]
        want += block
    assert (rowwise_product(left, right) == want).all()
    assert (rowwise_product(left, np.asfortranarray(right)) == want).all()
    assert (rowwise_product(left[1:2], right[:, 511:514]) == want[1:2, 511:514]).all()


def test_product_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((9, 500), dtype="f4"), rng.standard_normal((500, 3001), dtype="f4")
    found = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(rowwise, "_n_threads", lambda n=n_threads: n)
        found.append(rowwise_product(left, right))
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("p", [30, 300], ids=["primal", "dual"])
def test_prediction_of_a_row_does_not_depend_on_the_other_rows(p: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    X, Y, new, other = (rng.standard_normal(s, dtype="f4") for s in ((90, p), (90, 700), (37, p), (37, p)))
    if kind == "torch":
        X, Y, new, other = map(torch.from_numpy, (X, Y, new, other))
    bands = ["a"] * 20 + ["b"] * (p - 20)
    models = [MultiTargetRidge(), MultiTargetRidge(20.0), BandedRidge(bands, n_draws=3, random_state=0)]
    for model in (*models, StandardizedRidge(MultiTargetRidge(20.0))):
        together = np.asarray(model.fit(X, Y).predict(new))
        for k in (0, 1, 17, 36):
            assert (np.asarray(model.predict(new[k : k + 1]))[0] == together[k]).all()
            among = other + 0
            among[36 - k] = new[k]
            assert (np.asarray(model.predict(among))[36 - k] == together[k]).all()
            assert (np.asarray(model.predict(among[: 37 - k]))[36 - k] == together[k]).all()
