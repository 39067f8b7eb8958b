"""Unpacking of downloaded archives: nothing half-unpacked is ever in place, nothing lands outside.

An archive is unpacked into a folder of its own beside the goal and renamed into place when it is whole. Only
plain files and folders are taken out; a path that leaves the folder, or a link, is refused.
"""

from __future__ import annotations

import gzip
import secrets
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from neuroloaders.checks import corrupt_file, explain_os_error

__all__ = ["UNPACKERS", "partial_name", "unpack"]

_CHUNK = 1 << 20  # bytes copied at a time
# Each archive is read as (path in the archive, open file or None for a folder).
_Members = Iterator[tuple[str, BinaryIO | None]]


def unpack(archive: Path, member: str, goal: Path) -> Path:
    """Unpack one member of an archive, whole or not at all.

    Parameters
    ----------
    archive : Path
        A file whose name ends in one of `UNPACKERS`.
    member : str
        File or folder inside the archive; "." is everything.
    goal : Path
        What it becomes. If it is there already, it is left as it is.

    Returns
    -------
    goal : Path

    Raises
    ------
    ValueError
        If the archive is damaged, lacks `member`, or holds links or paths that leave its folder.
    OSError
        If the files cannot be written.
    """
    if goal.exists():
        return goal
    partial = goal.with_name(partial_name(goal.name))
    try:
        partial.mkdir(parents=True)
        _take_out(archive, member, partial)
        unpacked = partial.joinpath(*_parts(member))
        if not unpacked.exists():
            raise corrupt_file(archive, f"there is no {member!r} in it")
        try:
            unpacked.rename(goal)
        except OSError:
            if not goal.exists():  # another process was faster: its files are the same
                raise
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise corrupt_file(archive, f"the archive is damaged ({error})") from error
    except OSError as error:
        raise explain_os_error("unpack", archive, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return goal


def partial_name(name: str) -> str:
    """Return a name for something unfinished: hidden, unique, and never looked for by a reader."""
    return f".partial-{secrets.token_hex(6)}-{name}"


def _take_out(archive: Path, member: str, folder: Path) -> None:
    wanted = _parts(member)
    ending = next((ending for ending in UNPACKERS if archive.name.lower().endswith(ending)), None)
    if ending is None:
        raise corrupt_file(archive, f"its name ends in none of {', '.join(UNPACKERS)}", "Rename it.")
    root = folder.resolve()
    for path, file in UNPACKERS[ending](archive):
        parts = _parts(path)
        target = folder.joinpath(*parts)
        if PurePosixPath(path).is_absolute() or ".." in parts or not target.resolve().is_relative_to(root):
            raise corrupt_file(archive, f"{path!r} would be written outside of its folder", "Do not use it.")
        if parts[: len(wanted)] != wanted:
            continue
        if file is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as out:
            shutil.copyfileobj(file, out, _CHUNK)


def _parts(path: str) -> tuple[str, ...]:
    """Split a path inside an archive; "." and a trailing slash vanish."""
    return tuple(part for part in PurePosixPath(path).parts if part != ".")


def _tar_members(archive: Path) -> _Members:
    with tarfile.open(archive) as tar:
        for info in tar:
            if info.isdir():
                yield info.name, None
            elif info.isfile():
                with tar.extractfile(info) as file:
                    yield info.name, file
            else:
                raise corrupt_file(archive, f"{info.name!r} is a link or a device", "Do not use it.")


def _zip_members(archive: Path) -> _Members:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if info.is_dir():
                yield info.filename, None
            else:
                # A link in a zip is stored as its text, so writing it as a file is harmless.
                with zipped.open(info) as file:
                    yield info.filename, file


def _gzip_member(archive: Path) -> _Members:
    with gzip.open(archive) as file:
        yield archive.name[: -len(".gz")], file


UNPACKERS: dict[str, Callable[[Path], _Members]] = {
    ".tar.gz": _tar_members,
    ".tgz": _tar_members,
    ".tar": _tar_members,
    ".zip": _zip_members,
    ".gz": _gzip_member,
}
