"""Every message names the argument, what is required, what came, and what to do."""

import errno
import math

import numpy as np
import pytest
import torch

from neuroloaders import checks


def test_invalid_names_argument_requirement_value_and_advice():
    error = checks.invalid("tau", "be > 1", 0.5, "Give it in time steps.", kind=TypeError)
    assert isinstance(error, TypeError)
    assert str(error) == "`tau` must be > 1, got float 0.5. Give it in time steps."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((2, 3), np.uint8), "shape (2, 3) and dtype uint8"),
        (torch.zeros(4), "shape (4,) and dtype torch.float32"),
        (None, "NoneType None"),
    ],
)
def test_describe_shows_shape_or_value(value, text):
    assert checks.describe(value) == text


def test_describe_shortens_long_values():
    assert len(checks.describe("x" * 1000)) < 80


def test_option_lists_what_is_allowed():
    assert checks.check_option("mode", "a", {"a": 1, "b": 2}) == "a"
    with pytest.raises(ValueError, match=r"`mode` must be one of 'a', 'b', got 'c'\."):
        checks.check_option("mode", "c", {"a": 1, "b": 2})


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1)])
def test_number_accepts_any_real_number_and_returns_float(value):
    result = checks.check_number("x", value, above=0, at_most=1)
    assert type(result) is float
    assert result == 1.0


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0, {"above": 0}),
        (-1e-300, {"at_least": 0}),
        (1, {"below": 1}),
        (2, {"at_most": 1}),
        (math.nan, {}),
        (math.inf, {}),
        (-math.inf, {"finite": False, "above": 0}),
        (math.nan, {"finite": False}),
    ],
)
def test_number_refuses_values_outside_its_bounds(value, bounds):
    with pytest.raises(ValueError, match="`x` must be a"):
        checks.check_number("x", value, **bounds)


def test_number_accepts_infinity_where_it_is_allowed():
    assert checks.check_number("x", math.inf, finite=False, above=0) == math.inf


@pytest.mark.parametrize("value", [True, "1", None, 1j, [1]])
def test_number_refuses_other_types(value):
    with pytest.raises(TypeError, match="`x` must be a finite number"):
        checks.check_number("x", value)


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_fraction_lies_in_the_unit_interval(value):
    assert checks.check_fraction("p", 1) == 1.0
    with pytest.raises(ValueError, match="`p` must be a finite number >= 0 and <= 1"):
        checks.check_fraction("p", value)


def test_int_includes_its_bounds_and_refuses_floats_and_bools():
    assert type(checks.check_int("n", np.int32(3), at_least=3, at_most=3)) is int
    with pytest.raises(ValueError, match=r"`n` must be a whole number >= 4, got 3\."):
        checks.check_int("n", 3, at_least=4)
    for value in (3.0, True, "3"):
        with pytest.raises(TypeError, match="`n` must be a whole number"):
            checks.check_int("n", value)


def test_shape_pattern_binds_letters_and_allows_open_ends():
    x = np.zeros((2, 3, 3))
    assert checks.check_shape("x", x, (2, "H", "H")) is x
    assert checks.check_shape("x", x, ("N", "...")) is x
    with pytest.raises(ValueError, match=r"`x` must have shape \(T, B, C, \?\), got \(2, 3, 3\)\. Add an axis\."):
        checks.check_shape("x", x, ("T", "B", "C", None), advice="Add an axis.")
    with pytest.raises(ValueError, match=r"`x` must have shape \(H, H, W\)"):
        checks.check_shape("x", x, ("H", "H", "W"))
    with pytest.raises(ValueError, match=r"`x` must have shape \(N,\)"):
        checks.check_shape("x", x, ("N",))
    with pytest.raises(TypeError, match="`x` must be an array"):
        checks.check_shape("x", [1, 2], ("N",))


def test_same_length_names_every_length():
    assert checks.check_same_length(x=[1, 2], y=np.zeros(2)) == 2
    with pytest.raises(ValueError, match="`x`, `y` must have the same length, got x: 2, y: 3"):
        checks.check_same_length(x=[1, 2], y=np.zeros(3))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_finite_counts_and_locates_bad_values(make):
    good = make([[1.0, 2.0]])
    assert checks.check_finite("x", good) is good
    with pytest.raises(ValueError, match=r"2 NaN or infinite values, the first at index \(0, 1\)"):
        checks.check_finite("x", make([[1.0, math.nan], [math.inf, 0.0]]))


def test_finite_accepts_whole_numbers_and_huge_floats():
    checks.check_finite("x", torch.tensor([1, 2]))
    checks.check_finite("x", torch.full((10,), torch.finfo(torch.float32).max))


@pytest.mark.parametrize(
    ("have", "text"),
    [
        ({}, "it lacks 1 tensors of the model \\(first: 'w'\\)"),
        ({"w": torch.zeros(2), "extra": torch.zeros(1)}, "it has 1 tensors that the model lacks"),
        ({"w": torch.zeros(3)}, r"1 shapes differ \(first: 'w' is \(3,\), the model has \(2,\)\)"),
    ],
)
def test_state_dict_says_how_a_checkpoint_differs(have, text):
    want = {"w": torch.zeros(2)}
    checks.check_state_dict("a.safetensors", dict(want), want)
    with pytest.raises(ValueError, match=text):
        checks.check_state_dict("a.safetensors", have, want)


def test_os_errors_say_what_to_do_and_keep_their_number():
    full = checks.explain_os_error("write", "/x/y", OSError(errno.ENOSPC, "No space left on device"))
    assert full.errno == errno.ENOSPC
    assert "Could not write '/x/y': the disk is full. Free some space" in str(full)
    other = checks.explain_os_error("read", "/x/y", OSError(errno.EIO, "Input/output error"))
    assert "Input/output error. Check the path" in str(other)


def test_file_errors_name_the_file_and_the_remedy():
    damaged = checks.corrupt_file("/x/a.gz", "it ends early")
    assert str(damaged) == "'/x/a.gz' cannot be read: it ends early. Delete it and fetch it again."
    failed = checks.failed_download("http://h/a", "no answer", "Try again later.")
    assert str(failed) == "Could not download http://h/a: no answer. Nothing of it was kept. Try again later."
    missing = checks.missing_data("shd", ["a", "b"], ["/x", "/y", "/x"], "Get it.")
    assert isinstance(missing, FileNotFoundError)
    assert str(missing) == "The data set 'shd' (a, b) is in none of '/x', '/y'. Get it."


def test_soft_import_says_what_for_and_how_to_install():
    assert checks.soft_import("math", purpose="This") is math
    with pytest.raises(ImportError, match=r"The 'x' backend needs no_such_thing.*pip install 'spikedecode\[extra\]'"):
        checks.soft_import("no_such_thing", purpose="The 'x' backend", extra="extra")


def test_public_names_are_what_is_defined():
    assert sorted(checks.__all__) == checks.__all__
    assert all(callable(getattr(checks, name)) for name in checks.__all__)
