"""N-MNIST: the digits of MNIST on a screen, seen by an event camera that moves three times in 300 ms.

Each digit is one file of 5 bytes an event, in a folder named by its class.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from neuroloaders.cache import cache_folder, source_identity
from neuroloaders.checks import corrupt_file
from neuroloaders.fetch import fetch
from neuroloaders.registry import DatasetEntry
from neuroloaders.spikes import SpikeSet
from neuroloaders.studies.event_store import EventReading, Piece, SampleTable, spike_sets, store_events

__all__ = ["decode_atis", "load_nmnist"]

_DIGITS = tuple("0123456789")
_SIDE = 34  # pixels: 28 and three to each side
_EVENT_BYTES = 5
_FOLDERS = {"train": "Train", "test": "Test"}
_PORTION = 1024  # files in memory at a time: about 4 million events


def load_nmnist(
    *,
    data_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    sort: bool = False,
    progress: bool = True,
    registry: Mapping[str, DatasetEntry] | None = None,
) -> dict[str, SpikeSet]:
    """Load N-MNIST: 60000 training and 10000 test digits.

    Parameters
    ----------
    data_dir, offline, registry
        As for `neuroloaders.fetch`, which finds or downloads the files.
    sort : bool
        Sort events that are out of order instead of refusing the file.
    progress : bool
        Show progress bars while downloading, and while reading the first time.

    Returns
    -------
    sets : dict of str to SpikeSet
        By split, in the order of the file names, whatever their class. Times in ms from the recording's start; unit
        ``(polarity * 34 + y) * 34 + x``, `unit_shape` (2, 34, 34), polarity 1 for brighter. There are no groups: the
        files do not say who wrote.

    Raises
    ------
    ValueError
        If a file is truncated, has a pixel outside of 34 x 34 or is out of order, or a folder is none of 0 to 9.
    OSError
        If the files are not there and cannot be downloaded, or the cache cannot be written.

    Notes
    -----
    Read once, in pieces, into the cache: 8 bytes an event, 2 GB for the training set. The time has 23 bits, 8.4 s;
    a recording has 0.3 s, so there are no overflow marks to look for.

    References
    ----------
    .. [1] Orchard et al., Frontiers in Neuroscience 9 (2015) 437, doi:10.3389/fnins.2015.00437;
       https://www.garrickorchard.com/datasets/n-mnist
    """
    folder = fetch("nmnist", data_dir=data_dir, offline=offline, progress=progress, registry=registry)
    stored = {}
    for split, name in _FOLDERS.items():
        path = folder / name
        stored[split] = store_events(
            EventReading(name="nmnist", split=split, sort=sort),
            source_identity(path),
            partial(_read_table, path),
            partial(_read_pieces, path, progress),
            folder=cache_folder(data_dir),
        )
    return spike_sets(
        stored, name="nmnist", classes=_DIGITS, unit_shape=(2, _SIDE, _SIDE), provenance=os.fspath(folder)
    )


def decode_atis(content: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Decode events of the ATIS camera as N-MNIST stores them.

    Parameters
    ----------
    content : ndarray of uint8, shape (E, 5)
        x; y; polarity in the highest bit and 23 bits of time, the most significant first.

    Returns
    -------
    times_us, x, y, polarity : ndarray of int32, shape (E,)
        Time in microseconds; column and row; 1 for brighter, 0 for darker.
    """
    columns = content.astype(np.int32).T
    high = columns[2]
    return (high & 127) << 16 | columns[3] << 8 | columns[4], columns[0], columns[1], high >> 7


def _list_files(folder: Path) -> list[Path]:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if classes != list(_DIGITS):
        raise corrupt_file(folder, f"its folders are {classes} instead of 0 to 9", "Unpack the archive again.")
    # By name: the number of a file is the place of its digit in MNIST, counted from 1.
    return sorted(folder.glob("[0-9]/*.bin"), key=lambda path: (path.name, path.parent.name))


def _read_table(folder: Path) -> SampleTable:
    files = _list_files(folder)
    sizes = np.array([path.stat().st_size for path in files], dtype=np.int64)
    if (sizes % _EVENT_BYTES).any():
        bad = int((sizes % _EVENT_BYTES).argmax())
        raise corrupt_file(files[bad], f"its {sizes[bad]} bytes are no whole number of events of 5 bytes")
    labels = np.array([int(path.parent.name) for path in files], dtype=np.int64)
    return SampleTable(counts=sizes // _EVENT_BYTES, labels=labels)


def _read_pieces(folder: Path, progress: bool, table: SampleTable) -> Iterator[Piece]:
    from tqdm.auto import tqdm

    files = _list_files(folder)
    with tqdm(total=len(files), desc=f"reading {folder.name}", unit=" files", disable=not progress) as bar:
        for first in range(0, len(files), _PORTION):
            part, counts = files[first : first + _PORTION], table.counts[first : first + _PORTION]
            content = b"".join(path.read_bytes() for path in part)
            times, x, y, polarity = decode_atis(np.frombuffer(content, np.uint8).reshape(-1, _EVENT_BYTES))
            outside = (x >= _SIDE) | (y >= _SIDE)
            if outside.any():
                event = int(outside.argmax())
                file = part[int(np.searchsorted(np.cumsum(counts), event, side="right"))]
                raise corrupt_file(file, f"it has an event at ({x[event]}, {y[event]}), outside of 34 x 34 pixels")
            yield Piece(
                times_ms=times.astype(np.float32) / np.float32(1000),
                units=(polarity * _SIDE + y) * _SIDE + x,
                counts=counts,
                where=lambda row, part=part: (part[row], "the recording"),
            )
            bar.update(len(part))
