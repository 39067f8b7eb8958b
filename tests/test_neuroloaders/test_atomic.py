"""Files are whole or not there, also on a full disk."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from neuroloaders.atomic import atomic_write, remove_leftovers


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def assert_untouched(path):
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(("mode", "content"), [("wb", b"a\nb\0"), ("w", "a\nb\u00e9")])
def test_atomic_write_replaces_the_file_by_exactly_what_was_written(old_file, mode, content):
    with atomic_write(old_file, mode) as file:
        file.write(content)
        assert old_file.read_bytes() == b"old"
    assert old_file.read_bytes() == (content if mode == "wb" else content.encode("utf-8"))
    assert os.listdir(old_file.parent) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_any_exception_leaves_the_old_file_and_nothing_else(old_file, error):
    def write():
        with atomic_write(old_file) as file:
            file.write(b"new")
            file.flush()
            raise error

    with pytest.raises(error):
        write()
    assert_untouched(old_file)


def test_data_reach_the_disk_before_the_rename_and_the_rename_before_the_return(old_file, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def kind(descriptor):
        return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"

    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append(kind(descriptor)), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    with atomic_write(old_file) as file:
        file.write(b"new")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota is used up"), (errno.EROFS, "read-only")],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_system_errors_become_one_sentence_and_keep_their_number(old_file, monkeypatch, code, words, call):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    def write():
        with atomic_write(old_file) as file:
            file.write(b"new")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=words) as caught:
        write()
    assert caught.value.errno == code
    assert str(old_file) in str(caught.value)
    assert_untouched(old_file)


def test_errors_of_the_callers_own_files_are_passed_on(old_file, tmp_path):
    def write():
        with atomic_write(old_file):
            (tmp_path / "absent").read_bytes()

    with pytest.raises(FileNotFoundError, match="absent") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "absent")
    assert_untouched(old_file)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent/file"), atomic_write(tmp_path / "absent" / "file"):
        pass


def test_mode_is_checked(tmp_path):
    with pytest.raises(ValueError, match="`mode` must be one of 'wb', 'w', got 'a'"), atomic_write(tmp_path, "a"):
        pass


def test_new_files_have_the_permissions_that_open_would_give(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "file"):
        pass
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_links_are_followed(old_file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(old_file)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert old_file.read_bytes() == b"new"


def test_leftovers_are_removed_and_other_files_stay(old_file):
    (old_file.parent / ".neuroloaders-1-abc.tmp").write_bytes(b"half")
    remove_leftovers(old_file.parent)
    assert_untouched(old_file)


# Writes 64 kB in pieces, as a large array would be.
WRITER = """
import resource, sys
from neuroloaders.atomic import atomic_write
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    with atomic_write(sys.argv[1]) as file:
        for _ in range(64):
            file.write(bytes(1000))
except OSError as error:
    print(error)
"""


def write_64_kb(path, how):
    command = [sys.executable, "-W", "error", "-c", WRITER, str(path), how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_file_size_limit_of_the_system_leaves_the_old_file(old_file):
    assert "would be larger than this system allows" in write_64_kb(old_file, "limit")
    assert_untouched(old_file)


def test_disk_that_is_really_full_leaves_the_old_file(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", tmp_path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tiny file system is not allowed here: {mounted.stderr.strip()}")
    try:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        assert "the disk is full" in write_64_kb(path, "plain")
        assert_untouched(path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
