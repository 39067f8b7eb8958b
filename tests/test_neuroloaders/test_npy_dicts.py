"""Dictionaries of arrays from files: what NumPy wrote comes back, and nothing that the file asks for is run."""

import os
import pickle
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
from fakes.things_eeg2 import save_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neuroloaders.studies.npy_dicts import read_npy_dict

CONTENT = {
    "float": np.arange(24.0).reshape(2, 3, 4),
    "columns": np.asfortranarray(np.arange(12, dtype=">i4").reshape(3, 4)),
    "texts": np.array(["Oz", "PO3", "é"]),
    "objects": np.array(["Oz", 3, None], dtype=object),
    "bools": np.array([True, False]),
    "complex": np.array([1 + 2j], dtype=np.complex64),
    "none_of_it": np.zeros((0, 3)),
    "scalar": np.float32(1.5),
    "whole": np.int64(-7),
    "word": np.str_("stim"),
    "alone": np.array(3.0),
    "names": [f"name{k}" for k in range(3000)],
    "mixed": (1, 2.5, "x", None, True, [], {}, (), ("a",), ("a", "b"), ("a", "b", "c"), 70_000, 2**40, -(2**70), 300),
    "deep": {"a": {"b": [np.arange(3)]}},
    "bytes": b"ab\xff",
}  # fmt: skip


def same(one, other):
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_was_written_is_read_in_all_protocols(tmp_path, protocol):
    assert same(CONTENT, read_npy_dict(save_dict(tmp_path / "x.npy", CONTENT, protocol)))


def test_what_numpy_writes_today_is_read(tmp_path):
    np.save(tmp_path / "x.npy", CONTENT)
    assert same(CONTENT, read_npy_dict(tmp_path / "x.npy"))


def test_names_of_numpy_1_are_known(tmp_path):
    path = save_dict(tmp_path / "x.npy", {"x": np.arange(4.0), "n": np.float64(2)}, 3)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert same({"x": np.arange(4.0), "n": 2.0}, read_npy_dict(path))


VALUES = arrays.arrays(
    st.sampled_from(["<f8", ">f4", "<i2", "u1", "?", "<U3", "<c16"]), arrays.array_shapes(min_dims=0, min_side=0)
)


@given(values=st.dictionaries(st.text(), VALUES | st.integers() | st.text() | st.lists(st.text())))
@settings(deadline=None, max_examples=40)
def test_any_dictionary_comes_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("any") / "x.npy"
    np.save(path, values)
    found = read_npy_dict(path)
    assert list(found) == list(values)
    for key, value in values.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value


def test_large_arrays_stay_on_the_disk(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, {"x": np.arange(100_000.0).reshape(4, -1), "y": np.zeros(3)})
    found = read_npy_dict(path)
    assert isinstance(found["x"], np.memmap)
    assert not found["x"].flags.writeable
    # The very bytes of the file.
    with open(path, "r+b") as file:
        place = file.read().index(np.arange(100_000.0).tobytes())
        file.seek(place + 8)
        file.write(np.float64(-5.0).tobytes())
    assert found["x"][0, 1] == -5.0


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "wrap", [lambda it: {"x": it}, lambda it: [it], lambda it: {"x": np.array([it, 1], dtype=object)}, lambda it: it]
)
def test_nothing_is_run(tmp_path, protocol, wrap):
    made = tmp_path / "made"
    path = save_dict(tmp_path / "x.npy", wrap(Harmful(str(made))), protocol)
    with pytest.raises(ValueError, match=r"it asks for (posix|nt|os)\.mkdir\. Only dictionaries"):
        read_npy_dict(path)
    assert not made.exists()
    np.load(path, allow_pickle=True)
    assert made.exists()  # the harm was real


@pytest.mark.parametrize(
    "value", [OrderedDict(a=1), {1, 2}, Fraction(1, 3), np.dtype, np.ma.zeros(3), int, pickle.dumps]
)
def test_what_is_no_array_list_text_or_number_is_refused(tmp_path, value):
    for protocol in (2, 4):
        with pytest.raises(ValueError, match="Only dictionaries of arrays, lists, text and numbers are read"):
            read_npy_dict(save_dict(tmp_path / "x.npy", {"x": value}, protocol))


def test_structures_dates_and_subclasses_are_refused(tmp_path):
    for value in (np.zeros(2, dtype=[("a", "f4")]), np.zeros(2, dtype="M8[s]"), np.zeros(2).view(np.recarray)):
        with pytest.raises(ValueError, match="cannot be read"):
            read_npy_dict(save_dict(tmp_path / "x.npy", {"x": value}))


def test_a_file_that_is_cut_or_damaged_anywhere_is_an_error_or_another_dictionary(tmp_path):
    path = save_dict(tmp_path / "x.npy", {"x": np.arange(6.0), "names": ["a", "b"], "n": 3}, 4)
    content = path.read_bytes()
    begin = content.index(b"\n") + 1
    for end in range(0, len(content), 2):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="cannot be read"):
            read_npy_dict(path)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[int(rng.integers(begin, len(content)))] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        try:
            read_npy_dict(path)
        except ValueError:  # and nothing else
            refused += 1
    assert refused > 30


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.npy"):
        read_npy_dict(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"an array of shape \(3,\) and dtype float64, no dictionary"):
        read_npy_dict(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="no dictionary with text as keys"):
        read_npy_dict(save_dict(tmp_path / "y.npy", {1: 2}))
    (tmp_path / "z.npy").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"no file of np\.save"):
        read_npy_dict(tmp_path / "z.npy")
    inside = []
    for _ in range(40):
        inside = [inside]
    with pytest.raises(ValueError, match="too deep"):
        read_npy_dict(save_dict(tmp_path / "w.npy", {"x": inside}))
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="too deep"):
        read_npy_dict(save_dict(tmp_path / "w.npy", {"x": loop}))


def test_lists_that_share_their_parts_do_not_grow(tmp_path):
    shared = ["x"] * 10
    for _ in range(15):
        shared = [shared] * 10
    found = read_npy_dict(save_dict(tmp_path / "x.npy", {"x": shared}))
    assert found["x"][0] is found["x"][9]
