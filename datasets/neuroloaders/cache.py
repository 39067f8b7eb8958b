"""Preprocessed arrays on disk, computed once for a configuration and a source.

The name of a stored folder is a hash of what it was made by (a frozen configuration) and made from (the
source's identity), so a changed setting or a changed file is another folder. Arrays are plain ``.npy`` files,
opened as memory maps. They are written under another name and renamed when they are whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from neuroloaders.archives import partial_name
from neuroloaders.checks import corrupt_file, explain_os_error, invalid
from neuroloaders.folders import download_folder

__all__ = ["Allocate", "cache_folder", "cache_key", "cached_arrays", "source_identity"]

_RECORD = "made_from.json"


class Allocate(Protocol):
    """What a builder is given: a way to make an array that is stored."""

    def __call__(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return a new array, zero everywhere, that is stored as ``name.npy``."""


def cached_arrays(
    config: Any,
    source: Any,
    build: Callable[[Allocate], None],
    *,
    folder: str | os.PathLike | None = None,
) -> dict[str, np.ndarray]:
    """Return stored arrays as memory maps; build and store them the first time.

    Parameters
    ----------
    config : frozen dataclass
        Every setting that the arrays depend on. Give it a ``version`` field and raise it when the code of
        `build` changes what it computes.
    source : str, number, list or mapping
        What identifies the data that go in, e.g. from `source_identity`.
    build : callable
        Called with `Allocate` if nothing is stored yet: ``allocate("x", (n, 3), "uint8")[:] = ...``. Arrays
        may be larger than memory; they are filled in place on the disk.
    folder : path-like, optional
        Where the cache lies; by default `cache_folder`.

    Returns
    -------
    arrays : dict of str to ndarray
        Memory maps, copy-on-write: changing one changes neither the file nor what others read.

    Raises
    ------
    TypeError
        If `config` is no frozen dataclass or holds something that JSON cannot.
    ValueError
        If a stored file was damaged, or `build` stored nothing.
    OSError
        If the disk is full or may not be written to. The space is reserved before anything is computed.
    """
    root = cache_folder() if folder is None else Path(folder).expanduser()
    goal = root / cache_key(config, source)
    if not goal.is_dir():
        _build(goal, _record(config, source), build)
    return {name: _open(goal / f"{name}.npy") for name in _stored_names(goal)}


def cache_folder(data_dir: str | os.PathLike | None = None) -> Path:
    """Return where caches lie by default: ``cache`` in the folder that downloads go to.

    Parameters
    ----------
    data_dir : path-like, optional
        As for `fetch`.

    Returns
    -------
    Path
        It need not exist yet.
    """
    return download_folder(data_dir) / "cache"


def cache_key(config: Any, source: Any) -> str:
    """Return the hash that names the arrays made by `config` from `source`: 32 hexadecimal digits."""
    text = json.dumps(_record(config, source), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def source_identity(path: str | os.PathLike) -> dict[str, Any]:
    """Identify a file, or all files below a folder, by name, size and time of the last change.

    Nothing is read, so this is quick for large data; a file rewritten with the same size within the clock's
    resolution would not be seen. Copying a data set without its times makes it another source.

    Parameters
    ----------
    path : path-like
        A file or a folder.

    Returns
    -------
    identity : dict
        The name, the number of files, their bytes together, and a hash of the listing.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    """
    path = Path(path)
    if not path.exists():
        raise invalid("path", "exist", os.fspath(path), kind=FileNotFoundError)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    listing, n_bytes = hashlib.sha256(), 0
    for file in files:
        status = file.stat()
        n_bytes += status.st_size
        where = "" if file == path else file.relative_to(path).as_posix()
        listing.update(f"{where}\x00{status.st_size}\x00{status.st_mtime_ns}\n".encode())
    return {"name": path.name, "files": len(files), "bytes": n_bytes, "listing": listing.hexdigest()}


def _record(config: Any, source: Any) -> dict[str, Any]:
    kind = type(config)
    if isinstance(config, type) or not dataclasses.is_dataclass(config) or not kind.__dataclass_params__.frozen:
        advice = "Write @dataclass(frozen=True) above its class."
        raise invalid("config", "be an instance of a frozen dataclass", config, advice, kind=TypeError)
    record = {
        "config": f"{kind.__module__}.{kind.__qualname__}",
        "fields": dataclasses.asdict(config),
        "source": source,
    }
    try:
        # Through JSON and back: a tuple and a list, a path read from a file or not, name the same arrays.
        return json.loads(json.dumps(record, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        advice = "Use text, numbers, lists and mappings of them."
        raise invalid("config and source", f"be storable as JSON ({error})", config, advice, kind=TypeError) from error


def _build(goal: Path, record: Mapping[str, Any], build: Callable[[Allocate], None]) -> None:
    partial = goal.with_name(partial_name(goal.name))
    maps: dict[str, np.memmap] = {}

    def allocate(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if name in maps or not name.isidentifier():
            raise invalid("name", "be a new identifier", repr(name))
        path = partial / f"{name}.npy"
        try:
            maps[name] = np.lib.format.open_memmap(path, mode="w+", shape=tuple(shape), dtype=np.dtype(dtype))
            _reserve(path)
        except OSError as error:
            raise explain_os_error("write", path, error) from error
        return maps[name]

    try:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise explain_os_error("write", partial, error) from error
        build(allocate)
        if not maps:
            raise invalid("build", "store at least one array", "none", "Call allocate(name, shape, dtype).")
        for stored in maps.values():
            stored.flush()
        record = {**record, "arrays": sorted(maps)}
        (partial / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        try:
            partial.rename(goal)
        except OSError:
            if not goal.is_dir():  # another process was faster: its arrays are the same
                raise
    finally:
        maps.clear()
        shutil.rmtree(partial, ignore_errors=True)


def _reserve(path: Path) -> None:
    # A memory map of a sparse file kills the process (SIGBUS) when the disk fills up while writing to it.
    if hasattr(os, "posix_fallocate") and path.stat().st_size:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _stored_names(goal: Path) -> list[str]:
    try:
        return json.loads((goal / _RECORD).read_text(encoding="utf-8"))["arrays"]
    except (OSError, ValueError, KeyError) as error:
        raise corrupt_file(goal / _RECORD, str(error), f"Delete the folder {os.fspath(goal)!r}.") from error


def _open(path: Path) -> np.ndarray:
    try:
        # "c" rather than "r": torch warns about arrays that may not be written to.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise corrupt_file(
            path, str(error), f"Delete the folder {os.fspath(path.parent)!r}; it is built again."
        ) from error
