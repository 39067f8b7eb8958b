"""Robust scaling: the literature's quantiles, scikit-learn's, and files."""

import numpy as np
import pytest
import sklearn.preprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.robust_scaler import QUANTILES, RobustScaler, robust_scale


def test_sorted_quantiles_of_ten_numbers_are_2_5_7():
    x = np.random.default_rng(3).permutation(10).astype(float)[:, None]
    center, scale = robust_scale(x)
    assert (center[0], scale[0]) == (5, 5)
    assert QUANTILES["sorted"](x, np.array([0.25, 0.5, 0.75]))[:, 0].tolist() == [2, 5, 7]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 1000), lower=st.sampled_from([0.0, 0.1, 0.25]))
def test_sorted_is_the_element_at_the_place(n, seed, lower):
    x = np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32)
    center, scale = robust_scale(x, lower=lower, upper=0.8)
    for c in range(3):
        column = sorted(x[:, c].tolist())
        width = np.float64(column[int(0.8 * n)]) - np.float64(column[int(lower * n)])
        assert center[c] == column[int(0.5 * n)]
        assert scale[c] == (width or 1)


def test_interpolated_is_that_of_scikit_learn():
    x = np.random.default_rng(0).standard_normal((101, 4)) * [1, 10, 1e-6, 0]
    theirs = sklearn.preprocessing.RobustScaler(quantile_range=(10, 80)).fit(x)
    center, scale = robust_scale(x, lower=0.1, upper=0.8, method="interpolated")
    np.testing.assert_allclose(center, theirs.center_, rtol=1e-12)
    np.testing.assert_allclose(scale, theirs.scale_, rtol=1e-12)
    assert scale[3] == 1  # a constant column


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros(3), {}, "shape"),
        (np.zeros((0, 2)), {}, "at least one sample"),
        (np.array([[0.0, np.nan]]), {}, "NaN or infinity in 1 channels, the first 1"),
        (np.zeros((3, 2)), {"method": "exact"}, "'sorted', 'interpolated'"),
        (np.zeros((3, 2)), {"lower": 0.8}, "`upper`"),
        (np.zeros((3, 2)), {"upper": 1}, "`upper`"),
    ],
)
def test_what_has_no_quantiles_is_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        robust_scale(x, **options)


def scaler():
    values = {"01_a": np.array([0.1, 1 / 3]), "02": np.array([1e-13])}
    names = {"01_a": ("Fz", "Cz"), "02": ("MEG 001",)}
    return RobustScaler(center=values, scale={k: v * 7 for k, v in values.items()}, ch_names=names, baseline=(None, 0))


def test_scaler_on_disk_is_the_same_to_the_last_bit(tmp_path):
    scaler().save(tmp_path / "scaler.json")
    again = RobustScaler.load(tmp_path / "scaler.json")
    assert again.baseline == (None, 0)
    assert again.ch_names == scaler().ch_names
    for name in ("01_a", "02"):
        for got, want in zip(again.of(name, scaler().ch_names[name]), (scaler().center, scaler().scale), strict=True):
            assert np.array_equal(got, want[name])


def test_channels_are_found_by_name():
    center, scale = scaler().of("01_a", ["Cz", "Fz"])
    assert center.tolist() == [1 / 3, 0.1]
    assert scale.tolist() == [1 / 3 * 7, 0.1 * 7]
    with pytest.raises(ValueError, match="know the recording '03'"):
        scaler().of("03", ["Cz"])
    with pytest.raises(ValueError, match="none for 'Pz'"):
        scaler().of("01_a", ["Cz", "Pz"])


def test_numbers_that_scale_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="positive"):
        RobustScaler(center={"a": [0.0]}, scale={"a": [0.0]}, ch_names={"a": ("x",)})
    with pytest.raises(ValueError, match="same recordings"):
        RobustScaler(center={"a": [0.0]}, scale={}, ch_names={"a": ("x",)})
    (tmp_path / "scaler.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match="no scaler"):
        RobustScaler.load(tmp_path / "scaler.json")
