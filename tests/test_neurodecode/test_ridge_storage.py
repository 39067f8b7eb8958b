"""A regression that was saved and loaded predicts the same, to the last bit; files are whole or not there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from neurodecode.ridge import BandedRidge, MultiTargetRidge, StandardizedRidge, load_ridge

LABELS = ["a", "b", "b", "a", "a"]
MODELS = {
    "fixed": MultiTargetRidge(7.0),
    "chosen": MultiTargetRidge(alphas=[1.0, 10.0], select="loo"),
    "primal": MultiTargetRidge(7.0, solver="primal"),
    "per group": MultiTargetRidge({"a": 1.0, "b": 2.0}, target_groups=np.array(LABELS)),
    "dropped": MultiTargetRidge(7.0, bad_features="drop"),
    "standardised": StandardizedRidge(MultiTargetRidge(7.0)),
    "test mode": StandardizedRidge(MultiTargetRidge(7.0), standardize="test"),
    "banded": BandedRidge(np.repeat([0, 1], [20, 60]), n_draws=2, random_state=0),
    "standardised, torch": StandardizedRidge(MultiTargetRidge(7.0)),
}


def simulated(name: str) -> list[Any]:
    rng = np.random.default_rng(0)
    X, Y, new = (rng.standard_normal(s, dtype="f4") for s in ((40, 80), (40, 5), (6, 80)))
    if name == "dropped":
        X[:, 3] = np.nan
    arrays = [X, Y, new, rng.uniform(0.5, 2, 40)]
    return [torch.from_numpy(a) for a in arrays] if name.endswith("torch") else arrays


@pytest.mark.parametrize("name", MODELS)
def test_loaded_model_predicts_the_same_bits(name: str, tmp_path: Path) -> None:
    X, Y, new, weight = simulated(name)
    model = MODELS[name].fit(X, Y, sample_weight=weight)
    model.save(tmp_path / "model.safetensors")
    again = load_ridge(tmp_path / "model.safetensors")
    assert type(again) is type(model)
    assert type(again.predict(new)) is type(model.predict(new))
    assert (again.predict(new) == model.predict(new)).all()
    pickled = pickle.loads(pickle.dumps(model))
    assert (pickled.predict(new) == model.predict(new)).all()
    again.save(tmp_path / "again.safetensors")
    assert (load_ridge(tmp_path / "again.safetensors").predict(new) == model.predict(new)).all()


def test_loaded_model_leaves_rows_out_as_before(tmp_path: Path) -> None:
    X, Y, _, weight = simulated("fixed")
    for model in (MultiTargetRidge(7.0), MultiTargetRidge(alphas=np.geomspace(1, 100, 20))):
        model.fit(X, Y, sample_weight=weight).save(tmp_path / "model.safetensors")
        again = load_ridge(tmp_path / "model.safetensors")
        np.testing.assert_allclose(again.loo_predict(Y), model.loo_predict(Y), rtol=1e-4, atol=1e-5)
        assert again.get_params().keys() == model.get_params().keys()


def test_feature_names_are_kept(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    X, Y, new, _ = simulated("fixed")
    names = [f"voxel {k}" for k in range(80)]
    model = MultiTargetRidge(7.0).fit(pandas.DataFrame(X, columns=names), Y)
    model.save(tmp_path / "model.safetensors")
    again = load_ridge(tmp_path / "model.safetensors")
    assert again.feature_names_in_.tolist() == names
    with pytest.raises(ValueError, match="feature names"):
        again.predict(pandas.DataFrame(new, columns=names[::-1]))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    X, Y, new, _ = simulated("fixed")
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError):
        load_ridge(path)
    save_file({"x": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="holds no ridge regression of this version"):
        load_ridge(path)
    MultiTargetRidge(7.0).fit(X, Y).save(path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_ridge(path)
    smooth = MultiTargetRidge(7.0)
    smooth.smooth_predict(X, Y, new)
    with pytest.raises(ValueError, match="keeps no duals or weights"):
        smooth.save(path)
