"""Targets of windows: nearest interpolation by indices, looked up once a stimulus."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloaders.events_table import EventTable
from neuroloaders.window_targets import StimulusFeatures, StimulusSequences, label_numbers, nearest_indices


def events(stimuli, **extra):
    return EventTable(start=np.arange(len(stimuli)), recording="01", stimulus=stimuli, extra=extra)


@settings(max_examples=300, deadline=None)
@given(n_in=st.integers(1, 700), n_out=st.integers(1, 700))
def test_indices_are_those_of_interpolate(n_in, n_out):
    x = torch.arange(float(n_in))[None, None]
    indices = nearest_indices(n_in, n_out)
    assert torch.equal(x[..., indices], F.interpolate(x, size=n_out, mode="nearest"))
    exact = torch.arange(n_out) * n_in // n_out
    assert (indices - exact).abs().max() <= 1


@pytest.mark.parametrize(("n_in", "n_out"), [(150, 361), (143, 343), (75, 181), (50, 120), (361, 181)])
def test_indices_of_common_rates_are_exact(n_in, n_out):
    assert torch.equal(nearest_indices(n_in, n_out), torch.arange(n_out) * n_in // n_out)


def test_indices_follow_interpolate_where_float32_rounds_down():
    x = torch.arange(57.0)[None, None]
    assert torch.equal(x[..., nearest_indices(57, 361)], F.interpolate(x, size=361, mode="nearest"))
    assert not torch.equal(nearest_indices(57, 361), torch.arange(361) * 57 // 361)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_stretched_sequences_are_interpolated(dtype):
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal((6, n)).astype(dtype) for name, n in (("a", 20), ("b", 50), ("c", 20))}
    look = StimulusSequences(values).for_windows(events(["b", "a", "c", "a"]), -0.5, 120, 37)
    got = look(torch.tensor([2, 0, 0, 3]))
    assert got.is_contiguous()
    assert got.dtype == torch.from_numpy(values["a"]).dtype
    for row, name in zip(got, "cbba", strict=True):
        want = F.interpolate(torch.from_numpy(values[name]).float()[None], size=37, mode="nearest")[0]
        assert torch.equal(row.float(), want)


def test_sequences_at_a_rate_are_sliced_then_interpolated_and_zero_beyond():
    rng = np.random.default_rng(1)
    values = {"long": torch.from_numpy(rng.standard_normal((3, 400))), "short": torch.ones(3, 30, dtype=torch.float64)}
    where = np.array([4.0, 0.2, 7.5, 0.0])
    table = events(["long", "long", "long", "short"], stimulus_start=where)
    got = StimulusSequences(values, sfreq=50).for_windows(table, -0.5, 120.0, 361)(torch.arange(4))
    assert got.shape == (4, 3, 361)
    for row, name, t in zip(got, table.stimulus, where, strict=True):
        padded = F.pad(values[str(name)], (200, 200))
        first = 200 + round((t - 0.5) * 50)
        want = F.interpolate(padded[None, :, first : first + 150], size=361, mode="nearest")[0]
        assert torch.equal(row, want)
    assert (got[1, :, :20] == 0).all()
    assert (got[3] == 0).any()
    alone = StimulusSequences(values, sfreq=50).for_windows(events(["short"]), 0.0, 120.0, 61)(torch.tensor([0]))
    assert (alone == 1).all()


def test_features_of_any_shape_are_looked_up(tmp_path):
    np.save(tmp_path / "features.npy", np.random.default_rng(2).standard_normal((3, 4, 8, 8)).astype(np.float16))
    stored = np.load(tmp_path / "features.npy", mmap_mode="r")
    features = StimulusFeatures(np.array([10, 11, 12]), stored)
    got = features.for_windows(events([12, 10, 12]), 0, 120, 5)(torch.tensor([0, 2, 1]))
    assert torch.equal(got, torch.from_numpy(stored[[2, 2, 0]]))
    assert features.n_bytes == stored.nbytes
    assert repr(features) == "StimulusFeatures(3 stimuli, 4x8x8 of float16)"


def test_labels_are_places_among_the_classes():
    table = events(["dog", "cat", "dog"], level=[3, 1, 3])
    assert label_numbers(table, None, None) == ((), None)
    classes, numbers = label_numbers(table, "stimulus", None)
    assert (classes, numbers.tolist()) == (("cat", "dog"), [1, 0, 1])
    classes, numbers = label_numbers(table, "stimulus", ["owl", "dog", "cat"])
    assert numbers.tolist() == [1, 2, 1]
    assert label_numbers(table, "level", [1, 2, 3])[1].tolist() == [2, 0, 2]
    for wrong in (["cat"], ["cat", "dog", "dog"]):
        with pytest.raises(ValueError, match="`classes`"):
            label_numbers(table, "stimulus", wrong)
    with pytest.raises(ValueError, match="`classes` must come with"):
        label_numbers(table, None, ["cat"])
    with pytest.raises(ValueError, match="'level'"):
        label_numbers(table, "levels", None)


def test_what_has_no_features_is_refused():
    features = StimulusFeatures(["a"], np.zeros((1, 2)))
    with pytest.raises(ValueError, match="none for 2 of 3, such as 'b'"):
        features.for_windows(events(["a", "b", "c"]), 0, 120, 5)
    with pytest.raises(ValueError, match="'a' twice"):
        StimulusFeatures(["a", "a"], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="same length"):
        StimulusFeatures(["a"], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="at least one"):
        StimulusSequences({})
    with pytest.raises(ValueError, match="shape"):
        StimulusSequences({"a": np.zeros((2, 5)), "b": np.zeros((3, 5))})
    with pytest.raises(TypeError, match="float64"):
        StimulusSequences({"a": np.zeros((2, 5)), "b": np.zeros((2, 5), dtype=np.float32)})
    sequences, bad = StimulusSequences({"a": np.zeros((2, 5))}, sfreq=50), events(["a"], stimulus_start=[np.nan])
    with pytest.raises(ValueError, match="finite times"):
        sequences.for_windows(bad, 0, 120, 5)
