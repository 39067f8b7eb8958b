"""Rows of features on disk, found by the hash of their stimulus: whole or not there, whoever is killed when.

A store is a folder of blocks. A block is a file of rows, to which rows are only ever added, and a journal, which is
written after the rows are on the disk: a record is the hash of a stimulus, the number of its row and the row's
checksum. Only one process at a time adds to a block; another one that comes meanwhile begins a block of its own. Rows
without a record were cut off by a kill and are overwritten; rows that do not have their checksum count as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import secrets
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from neurodecode.ridge.targets import opened_output
from neuroloaders.atomic import atomic_write
from neuroloaders.checkpoints import check_same_config, read_json
from neuroloaders.checks import explain_os_error

__all__ = ["Block", "FeatureStore"]

_log = logging.getLogger(__name__)

_RECORD = np.dtype([("key", "V32"), ("row", "<u8"), ("rows_crc", "<u4"), ("own_crc", "<u4")])
_BODY = _RECORD.itemsize - 4
_GATHER_BYTES = 1 << 26


class Block:
    """One file of rows and its journal.

    Parameters
    ----------
    stem : Path
        ``block-...`` without the ending; ``.rows`` and ``.journal`` lie there.
    shape, dtype
        Shape and type of a row.
    """

    def __init__(self, stem: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.stem, self.shape, self.dtype = stem, shape, dtype
        self.data, self.journal = stem.with_suffix(".rows"), stem.with_suffix(".journal")
        self.row_bytes = math.prod(shape) * dtype.itemsize
        self.read()

    def read(self) -> None:
        """Read the journal: `records` is of the whole ones, `is_sound` says whether rows may be added."""
        content = self.journal.read_bytes()
        n, torn = divmod(len(content), _RECORD.itemsize)
        records = np.frombuffer(content, _RECORD, count=n)
        own = np.fromiter((zlib.crc32(record.tobytes()[:_BODY]) for record in records), np.uint32, n)
        self.records = records[own == records["own_crc"]]
        n_there = self.data.stat().st_size // self.row_bytes if self.data.exists() else 0
        self.n_rows = int(self.records["row"].max()) + 1 if len(self.records) else 0
        # A torn last record is what a kill leaves. Anything else has been damaged: nothing is added there.
        self.is_sound = len(self.records) == n and self.n_rows <= n_there
        self.records = self.records[self.records["row"] < n_there]
        self.n_rows = min(self.n_rows, n_there)
        self._map: np.ndarray | None = None

    def rows(self) -> np.ndarray:
        """Return all rows as a copy-on-write memory map, shape (n_rows, *shape)."""
        if self._map is None or len(self._map) < self.n_rows:
            # "c" rather than "r": torch warns about arrays that may not be written to.
            self._map = np.memmap(self.data, self.dtype, mode="c", shape=(self.n_rows, *self.shape))
        return self._map


class FeatureStore:
    """The features of one extractor, in one folder.

    Parameters
    ----------
    folder : path-like
        Made when the first row is added.
    record : dict
        What the features were made by; kept beside them as ``made_by.json``.
    shape : tuple of int
        Shape of the features of one stimulus.
    dtype : str
        Type they are stored in.
    """

    def __init__(
        self, folder: str | os.PathLike[str], record: dict[str, Any], shape: Sequence[int], dtype: str
    ) -> None:
        self.folder, self.record = Path(folder), record
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._writing: tuple[Block, IO[bytes], IO[bytes]] | None = None
        self.blocks: list[Block] = []
        # Hash -> (block, row, checksum) of each record of it; rows that turned out to be damaged are taken out.
        self.index: dict[bytes, list[tuple[Block, int, int]]] = {}
        self._verified: set[bytes] = set()
        if (self.folder / "made_by.json").exists():
            check_same_config(self.folder / "made_by.json", read_json(self.folder / "made_by.json"), record)
        for journal in sorted(self.folder.glob("block-*.journal")):
            block = Block(journal.with_suffix(""), self.shape, self.dtype)
            self.blocks.append(block)
            self._enter(block, block.records)

    def has(self, key: bytes) -> bool:
        """Return whether a row is there and has its checksum; each row is read once for it."""
        if key in self._verified:
            return True
        places = self.index.get(key, [])
        while places:
            block, row, crc = places[-1]
            if _crc(block.rows()[row]) == crc:
                self._verified.add(key)
                return True
            _log.warning("Row %d of %s is damaged and left out.", row, block.data)
            places.pop()
        return False

    def add(self, keys: Sequence[bytes], features: np.ndarray) -> None:
        """Add rows: they are on the disk, and stay through a kill, when this returns.

        Parameters
        ----------
        keys : sequence of n bytes objects of length 32
            Hashes of the stimuli.
        features : ndarray, shape (n, *shape)
            Finite, of the store's type.

        Raises
        ------
        OSError
            If the disk is full or may not be written to; what was there before stays.
        """
        if self._writing is None:
            self._writing = self._open_block()
        block, data, journal = self._writing
        features = np.ascontiguousarray(features, dtype=self.dtype)
        records = np.zeros(len(keys), _RECORD)
        for i, key in enumerate(keys):
            records["key"][i], records["row"][i] = np.void(key), block.n_rows + i
            records["rows_crc"][i] = _crc(features[i])
            records["own_crc"][i] = zlib.crc32(records[i].tobytes()[:_BODY])
        try:
            # The rows are on the disk before the journal speaks of them.
            for file, content in ((data, features), (journal, records)):
                file.write(content.reshape(-1).view(np.uint8).data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self.close()
            raise explain_os_error("write", block.data, error) from error
        block.n_rows += len(keys)
        self._enter(block, records)
        self._verified.update(keys)

    def close(self) -> None:
        """Give up the block that rows were added to, so that another process may go on there."""
        if self._writing is not None:
            _, data, journal = self._writing
            self._writing = None
            with data, journal:
                pass

    def gather(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return rows in the order of `keys`, shape (len(keys), *shape), as a copy-on-write memory map.

        Rows that lie one after the other in a block are not copied. Others are put together in a file of their own,
        which is kept for the next time.
        """
        places = [self.index[key][-1] for key in keys]
        block, first, _ = places[0]
        if all(place[0] is block and place[1] == first + i for i, place in enumerate(places)):
            return block.rows()[first : first + len(places)]
        path = self.folder / f"order-{_order_hash(keys)}.npy"
        found = self._stored_order(path, places)
        return self._write_order(path, places) if found is None else found

    def _stored_order(self, path: Path, places: list[tuple[Block, int, int]]) -> np.ndarray | None:
        """Return an earlier file if each of its rows is the one that is wanted."""
        try:
            stored = np.load(path, mmap_mode="c", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            stored = None
        fits = stored is not None and stored.shape == (len(places), *self.shape) and stored.dtype == self.dtype
        if fits and all(_crc(row) == place[2] for row, place in zip(stored, places, strict=True)):
            return stored
        _log.warning("%s is damaged; it is put together again.", path)
        return None

    def _write_order(self, path: Path, places: list[tuple[Block, int, int]]) -> np.ndarray:
        shape, n = (len(places), *self.shape), max(_GATHER_BYTES // places[0][0].row_bytes, 1)
        with opened_output(path, shape, str(self.dtype), None) as holder:
            for start in range(0, len(places), n):
                part = places[start : start + n]
                holder[0][start : start + len(part)] = [block.rows()[row] for block, row, _ in part]
        return np.load(path, mmap_mode="c", allow_pickle=False)

    def _enter(self, block: Block, records: np.ndarray) -> None:
        for record in records:
            place = (block, int(record["row"]), int(record["rows_crc"]))
            self.index.setdefault(record["key"].tobytes(), []).append(place)

    def _open_block(self) -> tuple[Block, IO[bytes], IO[bytes]]:
        """Return a block that no other process adds to, with its files opened at their ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "made_by.json").exists():
                with atomic_write(self.folder / "made_by.json", "w") as file:
                    json.dump(self.record, file, indent=1)
            for block in self.blocks:
                if block.is_sound and (opened := self._go_on(block)) is not None:
                    return opened
            return self._begin()
        except OSError as error:
            raise explain_os_error("write", self.folder, error) from error

    def _go_on(self, block: Block) -> tuple[Block, IO[bytes], IO[bytes]] | None:
        # Files stay open beyond this call: the lock lasts as long as they do, hence no `with`.
        journal = open(block.journal, "r+b")  # noqa: SIM115
        data = None
        try:
            if _lock(journal):
                known = len(block.records)
                block.read()  # another process may have added to it since
                self._enter(block, block.records[known:])
                if block.is_sound:
                    # What a killed process wrote without a record is cut off.
                    journal.truncate(len(block.records) * _RECORD.itemsize)
                    journal.seek(0, os.SEEK_END)
                    data = open(block.data, "r+b" if block.data.exists() else "w+b")  # noqa: SIM115
                    data.truncate(block.n_rows * block.row_bytes)
                    data.seek(0, os.SEEK_END)
                    return block, data, journal
        finally:
            if data is None:
                journal.close()
        return None

    def _begin(self) -> tuple[Block, IO[bytes], IO[bytes]]:
        stem = self.folder / f"block-{secrets.token_hex(8)}"
        # Under another name until it is locked: nobody else can take the lock before.
        new = stem.with_suffix(".journal" if os.name == "nt" else ".new")
        data, journal = open(stem.with_suffix(".rows"), "xb"), open(new, "xb")  # noqa: SIM115
        _lock(journal)
        if os.name != "nt":
            os.rename(new, stem.with_suffix(".journal"))
        block = Block(stem, self.shape, self.dtype)
        self.blocks.append(block)
        return block, data, journal


def _lock(file: IO[bytes]) -> bool:
    """Take the system's lock of a file, which ends with the process, also a killed one; False if it cannot be had."""
    try:
        import fcntl
    except ImportError:  # Windows: each run begins a block of its own
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # taken, or a file system without locks
        return False
    return True


def _crc(row: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(row).reshape(-1).view(np.uint8).data)


def _order_hash(keys: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(keys)).hexdigest()[:32]
