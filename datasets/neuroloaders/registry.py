"""The registry of data sets: what `registry.toml` says, checked and as plain records."""

from __future__ import annotations

import os
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from neuroloaders.checks import check_int, check_option, invalid

__all__ = ["DatasetEntry", "RemoteFile", "citation", "dataset_info", "datasets_available", "read_registry"]

_DIGITS = {"sha256": 64, "md5": 32}
_FILE_KEYS = ("url", "name", "size", *_DIGITS, "checksum_source", "member", "becomes")


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file of a data set.

    Parameters
    ----------
    url : str
        Where it is published.
    name : str
        Its name in the data set's folder.
    size : int or None
        Bytes; None where no public table gives it.
    algorithm, digest : str
        The checksum: 'sha256' or 'md5', and its hexadecimal digits.
    checksum_source : str
        The public table that the checksum was taken from.
    member, becomes : str or None
        For an archive: what is unpacked from it ("." is everything), and the path in the data set's folder
        that it becomes. None if the file is used as it is.
    """

    url: str
    name: str
    size: int | None
    algorithm: str
    digest: str
    checksum_source: str
    member: str | None = None
    becomes: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetEntry:
    """What the registry knows about a data set.

    Parameters
    ----------
    name, title, homepage, licence, citation, note, how_to_get : str
        For people. `how_to_get` is for data that cannot be downloaded without a licence form.
    files : tuple of RemoteFile
        What is downloaded; empty if nothing can be.
    also : tuple of tuple of str
        Other sets of paths, relative to the data set's folder, each of which makes it complete.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    files: tuple[RemoteFile, ...] = ()
    also: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    how_to_get: str = ""

    @property
    def size(self) -> int | None:
        """Bytes to download in all; None if nothing can be downloaded or a file's size is not published."""
        sizes = [file.size for file in self.files]
        return None if not sizes or None in sizes else sum(sizes)


def read_registry(path: str | os.PathLike | None = None) -> dict[str, DatasetEntry]:
    """Read a registry file.

    Parameters
    ----------
    path : path-like, optional
        A TOML file in the form of ``registry.toml`` of this package, which is the default.

    Returns
    -------
    entries : dict of str to DatasetEntry

    Raises
    ------
    ValueError
        If an entry has an unknown or missing key, a checksum of the wrong length, or a path that leaves the
        data set's folder.
    """
    path = Path(__file__).with_name("registry.toml") if path is None else Path(path)
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: _entry(name, table) for name, table in tables.items()}


def datasets_available(registry: Mapping[str, DatasetEntry] | None = None) -> dict[str, str]:
    """Return the names that `fetch` takes, each with a one-line title.

    Parameters
    ----------
    registry : dict, optional
        Another registry, from `read_registry`; by default the one that is installed.

    Returns
    -------
    dict of str to str
    """
    entries = read_registry() if registry is None else registry
    return {name: entry.title for name, entry in entries.items()}


def dataset_info(name: str, registry: Mapping[str, DatasetEntry] | None = None) -> DatasetEntry:
    """Return what the registry knows about a data set: files, checksums, size, licence, citation.

    Parameters
    ----------
    name : str
        A name from `datasets_available`.
    registry : dict, optional
        Another registry, from `read_registry`; by default the one that is installed.

    Returns
    -------
    DatasetEntry

    Raises
    ------
    ValueError
        If the registry has no data set of that name.
    """
    entries = read_registry() if registry is None else registry
    return entries[check_option("name", name, entries)]


def citation(name: str, registry: Mapping[str, DatasetEntry] | None = None) -> str:
    """Return the BibTeX entry to cite when a data set is used.

    Parameters
    ----------
    name : str
        A name from `datasets_available`.
    registry : dict, optional
        Another registry, from `read_registry`; by default the one that is installed.

    Returns
    -------
    str
    """
    return dataset_info(name, registry).citation


def _entry(name: str, table: dict[str, Any]) -> DatasetEntry:
    known = {field.name for field in fields(DatasetEntry)} - {"name"}
    _check_keys(name, table, known, needed={"title", "homepage", "licence", "citation"})
    files = tuple(_file(f"{name}.files[{i}]", file) for i, file in enumerate(table.get("files", ())))
    also = tuple(tuple(_inside(f"{name}.also", path) for path in paths) for paths in table.get("also", ()))
    if not files and not (also and table.get("how_to_get")):
        raise invalid(name, "list files, or say in `also` and `how_to_get` what is to be put there", "neither")
    text = {key: value.strip() for key, value in table.items() if isinstance(value, str)}
    for prose in ("note", "how_to_get"):  # lines of the file are no lines of a message
        text[prose] = " ".join(text.get(prose, "").split())
    return DatasetEntry(name=name, files=files, also=also, **text)


def _file(where: str, table: dict[str, Any]) -> RemoteFile:
    _check_keys(where, table, set(_FILE_KEYS), needed={"url", "checksum_source"})
    given = [algorithm for algorithm in _DIGITS if algorithm in table]
    if len(given) != 1:
        raise invalid(where, "give one checksum, sha256 or md5", f"{len(given)}", "Never invent one.")
    algorithm, digest = given[0], table[given[0]].lower()
    if len(digest) != _DIGITS[algorithm] or set(digest) - set(string.hexdigits):
        raise invalid(f"{where}.{algorithm}", f"have {_DIGITS[algorithm]} hexadecimal digits", repr(digest))
    if ("member" in table) != ("becomes" in table):
        raise invalid(where, "give `member` and `becomes` together or neither", "one of them")
    size = table.get("size")
    return RemoteFile(
        url=table["url"],
        name=_inside(f"{where}.name", table.get("name", table["url"].rpartition("/")[2])),
        size=None if size is None else check_int(f"{where}.size", size, at_least=1),
        algorithm=algorithm,
        digest=digest,
        checksum_source=table["checksum_source"],
        member=table.get("member"),
        becomes=_inside(f"{where}.becomes", table["becomes"]) if "becomes" in table else None,
    )


def _check_keys(where: str, table: dict[str, Any], known: set[str], needed: set[str]) -> None:
    for key in table:
        check_option(f"key of {where}", key, sorted(known))
    if missing := sorted(needed - table.keys()):
        raise invalid(where, f"have the keys {', '.join(sorted(needed))}", f"none of {', '.join(missing)}")


def _inside(where: str, path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path:
        raise invalid(where, "be a path inside the data set's folder", repr(path))
    return path
