"""Files that are either whole or not there: written beside their place, then renamed into it.

POSIX promises that a rename within a folder is one indivisible act, so a reader sees the old file or the new
one, whatever moment the writer is killed at. The two fsyncs make it hold after a power cut as well.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from neuroloaders.checks import check_option, explain_os_error

__all__ = ["atomic_write", "remove_leftovers"]

_PREFIX, _SUFFIX = ".neuroloaders-", ".tmp"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that replaces `path` only once it is complete and on the disk.

    Parameters
    ----------
    path : path-like
        The file to write or replace. Its folder must exist. A symbolic link is followed, not replaced.
    mode : {"wb", "w"}
        Bytes, or text in UTF-8 with one line feed a line on every system.

    Yields
    ------
    file
        An open file. Leave the block to put it into place; on any exception it is removed and the old file
        stays as it was.

    Raises
    ------
    OSError
        If the disk is full, the quota is used up, the file may not be written: one sentence that says so. The
        errno is kept.
    """
    check_option("mode", mode, ("wb", "w"))
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}")
    try:
        # Not tempfile: its files are readable by their owner only, and a lab shares its folders.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise explain_os_error("write", path, error) from error
    text = {"encoding": "utf-8", "newline": "\n"} if mode == "w" else {}
    file = os.fdopen(descriptor, mode, **text)
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException as error:
        # A failed flush leaves data in the buffer, and close() would try once more to write them.
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        # An OSError that names another file was raised by the caller's own block and is none of ours.
        ours = isinstance(error, OSError) and error.filename in (None, str(temporary))
        if ours:
            raise explain_os_error("write", path, error) from error
        raise


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files that killed writers left in `folder`; call it only where nobody is writing."""
    for leftover in Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the renaming itself on the disk; Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
