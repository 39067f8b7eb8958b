"""Cached arrays: computed once, found by what made them, never read half-written."""

import dataclasses
import errno
import os

import numpy as np
import pytest

from neuroloaders import cache
from neuroloaders.cache import cache_folder, cache_key, cached_arrays, source_identity


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 3
    names: tuple[str, ...] = ("a",)
    version: int = 1


class Builder:
    """Counts how often it is called."""

    def __init__(self, value=7, fail=None):
        self.calls, self.value, self.fail = 0, value, fail

    def __call__(self, allocate):
        self.calls += 1
        allocate("x", (4, 3), np.float32)[:] = self.value
        if self.fail is not None:
            raise self.fail
        allocate("labels", (4,), "int64")[:] = np.arange(4)


def test_arrays_are_built_once_and_come_back_as_memory_maps(tmp_path):
    build = Builder()
    for _ in range(3):
        arrays = cached_arrays(Config(), "source", build, folder=tmp_path)
        assert list(arrays) == ["labels", "x"]
        assert isinstance(arrays["x"], np.memmap)
        assert arrays["x"].dtype == np.float32
        np.testing.assert_array_equal(arrays["x"], np.full((4, 3), 7))
        np.testing.assert_array_equal(arrays["labels"], np.arange(4))
    assert build.calls == 1


def test_changing_an_array_does_not_reach_the_file(tmp_path):
    cached_arrays(Config(), "s", Builder(), folder=tmp_path)["x"][:] = 0
    np.testing.assert_array_equal(cached_arrays(Config(), "s", Builder(), folder=tmp_path)["x"], np.full((4, 3), 7))


def test_another_setting_or_source_is_another_entry(tmp_path):
    build = Builder()
    for config, source in (
        (Config(), "a"),
        (Config(size=4), "a"),
        (Config(version=2), "a"),
        (Config(), "b"),
        (Config(), {"k": 1}),
    ):
        cached_arrays(config, source, build, folder=tmp_path)
    assert build.calls == len(os.listdir(tmp_path)) == 5


def test_key_depends_on_class_fields_and_source_not_on_their_order():
    @dataclasses.dataclass(frozen=True)
    class Other:
        size: int = 3
        names: tuple[str, ...] = ("a",)
        version: int = 1

    assert cache_key(Config(), {"a": 1, "b": 2}) == cache_key(Config(), {"b": 2, "a": 1})
    assert cache_key(Config(names=["a"]), 0) == cache_key(Config(names=("a",)), 0)
    assert len({cache_key(c, 0) for c in (Config(), Other(), Config(size=4))}) == 3


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_build_that_stops_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        cached_arrays(Config(), "s", Builder(fail=error), folder=tmp_path)
    assert os.listdir(tmp_path) == []
    build = Builder(value=8)
    assert cached_arrays(Config(), "s", build, folder=tmp_path)["x"][0, 0] == 8


def test_what_a_killed_process_left_is_not_read(tmp_path):
    key = cache_key(Config(), "s")
    killed = tmp_path / cache.partial_name(key)
    killed.mkdir()
    np.save(killed / "x.npy", np.zeros(3))
    build = Builder()
    np.testing.assert_array_equal(cached_arrays(Config(), "s", build, folder=tmp_path)["x"], np.full((4, 3), 7))
    assert build.calls == 1


def test_a_truncated_file_is_an_error_that_says_what_to_delete(tmp_path):
    cached_arrays(Config(), "s", Builder(), folder=tmp_path)
    stored = tmp_path / cache_key(Config(), "s") / "x.npy"
    stored.write_bytes(stored.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"Delete the folder .* it is built again"):
        cached_arrays(Config(), "s", Builder(), folder=tmp_path)
    stored.unlink()
    with pytest.raises(ValueError, match="Delete the folder"):
        cached_arrays(Config(), "s", Builder(), folder=tmp_path)


def test_a_full_disk_is_explained_before_anything_is_computed(tmp_path, monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="the disk is full"):
        cached_arrays(Config(), "s", Builder(), folder=tmp_path)
    assert os.listdir(tmp_path) == []


def test_two_builders_at_once_agree(tmp_path):
    def slow(allocate):
        Builder()(allocate)
        cached_arrays(Config(), "s", Builder(), folder=tmp_path)  # another process finishes first

    np.testing.assert_array_equal(cached_arrays(Config(), "s", slow, folder=tmp_path)["x"], np.full((4, 3), 7))
    assert len(os.listdir(tmp_path)) == 1


def test_config_must_be_frozen_and_storable(tmp_path):
    @dataclasses.dataclass
    class Loose:
        size: int = 3

    for config in (Loose(), Config, {"size": 3}):
        with pytest.raises(TypeError, match="`config` must be an instance of a frozen dataclass"):
            cached_arrays(config, "s", Builder(), folder=tmp_path)
    with pytest.raises(TypeError, match="be storable as JSON"):
        cached_arrays(Config(size=np.zeros(3)), "s", Builder(), folder=tmp_path)
    with pytest.raises(TypeError, match="be storable as JSON"):
        cached_arrays(Config(), float("nan"), Builder(), folder=tmp_path)


def test_builder_must_store_something_under_new_names(tmp_path):
    with pytest.raises(ValueError, match="`build` must store at least one array"):
        cached_arrays(Config(), "s", lambda allocate: None, folder=tmp_path)
    for name in ("../x", "a b", "x"):
        with pytest.raises(ValueError, match="be a new identifier"):
            cached_arrays(
                Config(),
                "s",
                lambda allocate, name=name: [allocate("x", (1,), "u1"), allocate(name, (1,), "u1")],
                folder=tmp_path,
            )


def test_source_identity_sees_content_names_and_times(tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    file = tmp_path / "d" / "sub" / "a.txt"
    file.write_text("abc")
    seen = [source_identity(tmp_path / "d")]
    assert seen[0] == source_identity(tmp_path / "d")
    assert (seen[0]["name"], seen[0]["files"], seen[0]["bytes"]) == ("d", 1, 3)
    file.write_text("abcd")
    seen.append(source_identity(tmp_path / "d"))
    os.utime(file, ns=(1, 1))
    seen.append(source_identity(tmp_path / "d"))
    file.rename(file.with_name("b.txt"))
    seen.append(source_identity(tmp_path / "d"))
    (tmp_path / "d" / "c.txt").touch()
    seen.append(source_identity(tmp_path / "d"))
    assert len({identity["listing"] for identity in seen}) == len(seen)
    assert source_identity(file.with_name("b.txt"))["files"] == 1
    with pytest.raises(FileNotFoundError, match="`path` must exist"):
        source_identity(tmp_path / "nowhere")


def test_cache_lies_beside_the_data(tmp_path):
    assert cache_folder(tmp_path) == tmp_path / "cache"
