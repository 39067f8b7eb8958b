"""The Spiking Heidelberg Digits (SHD) and the Spiking Speech Commands (SSC): spoken words on 700 cochlea channels.

Each split is one HDF5 file: spike times and channels as lists of different lengths, labels, speakers, class names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.cache import cache_folder, source_identity
from neuroloaders.checks import check_option, corrupt_file
from neuroloaders.fetch import fetch
from neuroloaders.registry import DatasetEntry
from neuroloaders.spikes import SpikeSet
from neuroloaders.studies.event_store import EventReading, Piece, SampleTable, spike_sets, store_events

__all__ = ["HEIDELBERG_SETS", "load_heidelberg"]

N_CHANNELS = 700
_PORTION = 512  # samples in memory at a time: about 5 million events


@dataclass(frozen=True, kw_only=True, slots=True)
class HeidelbergSet:
    """What the files of one of the two data sets hold.

    Parameters
    ----------
    splits : tuple of str
        One file each.
    n_classes : int
        Words.
    has_speakers : bool
        Whether a file without speakers is refused.
    """

    splits: tuple[str, ...]
    n_classes: int
    has_speakers: bool


HEIDELBERG_SETS = {
    "shd": HeidelbergSet(splits=("train", "test"), n_classes=20, has_speakers=True),
    "ssc": HeidelbergSet(splits=("train", "valid", "test"), n_classes=35, has_speakers=False),
}


def load_heidelberg(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    sort: bool = False,
    progress: bool = True,
    registry: Mapping[str, DatasetEntry] | None = None,
) -> dict[str, SpikeSet]:
    """Load SHD (train, test) or SSC (train, valid, test) as spikes of 700 channels.

    Parameters
    ----------
    name : str
        'shd' or 'ssc', a key of `HEIDELBERG_SETS`.
    data_dir, offline, registry
        As for `neuroloaders.fetch`, which finds or downloads the files.
    sort : bool
        Sort events that are out of order instead of refusing the file.
    progress : bool
        Show progress bars while downloading, and while reading the first time.

    Returns
    -------
    sets : dict of str to SpikeSet
        By split. Times in ms are ``float32(t) * 1000`` of the files' float16 seconds, without any rounding. Groups
        are the speakers, numbered alike in all splits; None if the files do not say who spoke.

    Raises
    ------
    ValueError
        If `name` is unknown, or a file is truncated, lacks a part, or its parts do not fit together.
    OSError
        If the files are not there and cannot be downloaded, or the cache cannot be written.

    Notes
    -----
    Read once, in pieces, into the cache: 8 bytes an event, 5 GB for the training set of SSC. From the second
    start on the sets lie over memory maps. A float16 resolves 0.5 ms at 0.5 to 1 s, and the events of one such
    step share a time.

    SHD has no validation set, and speakers 4 and 5 are in its test set only: see `split_by_protocol`.

    References
    ----------
    .. [1] Cramer et al., IEEE TNNLS 33 (2022) 2744, doi:10.1109/TNNLS.2020.3044364; https://compneuro.net
    """
    kind = HEIDELBERG_SETS[check_option("name", name, HEIDELBERG_SETS)]
    folder = fetch(name, data_dir=data_dir, offline=offline, progress=progress, registry=registry)
    cache, stored, names = cache_folder(data_dir), {}, {}
    for split in kind.splits:
        path = folder / f"{name}_{split}.h5"
        names[split] = _class_names(path, kind.n_classes)
        stored[split] = store_events(
            EventReading(name=name, split=split, sort=sort),
            source_identity(path),
            partial(_read_table, path, kind, progress),
            partial(_read_pieces, path, progress),
            folder=cache,
        )
    classes = names["train"]
    for split in kind.splits:
        if names[split] != classes:
            raise corrupt_file(folder / f"{name}_{split}.h5", "its class names differ from those of the training set")
    return spike_sets(stored, name=name, classes=classes, unit_shape=(N_CHANNELS,), provenance=os.fspath(folder))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:  # what HDF5 says of a truncated or foreign file
        raise corrupt_file(path, f"it is no whole HDF5 file ({error})") from error


def _part(file: Any, path: Path, key: str, kinds: str) -> Any:
    """Return a dataset of the file if it is there and holds numbers of one of the kinds."""
    import h5py

    if key not in file or not isinstance(file[key], h5py.Dataset):
        raise corrupt_file(path, f"there is no dataset {key!r} in it")
    part = file[key]
    dtype = h5py.check_vlen_dtype(part.dtype) if key.startswith("spikes/") else part.dtype
    if dtype is None or np.dtype(dtype).kind not in kinds or part.ndim != 1:
        raise corrupt_file(path, f"{key!r} has dtype {part.dtype} and shape {part.shape}, which is not its format")
    return part


def _class_names(path: Path, n_classes: int) -> tuple[str, ...]:
    with _opened(path) as file:
        names = tuple(_as_text(_part(file, path, "extra/keys", "SO")[()]).tolist())
    if len(names) != n_classes:
        raise corrupt_file(path, f"it has {len(names)} class names instead of {n_classes}")
    return names


def _read_table(path: Path, kind: HeidelbergSet, progress: bool) -> SampleTable:
    with _opened(path) as file:
        labels = _part(file, path, "labels", "iu")[()].astype(np.int64)
        units = _part(file, path, "spikes/units", "iu")
        lengths = {"labels": len(labels), "spikes/units": len(units)}
        lengths["spikes/times"] = len(_part(file, path, "spikes/times", "f"))
        groups = None
        if kind.has_speakers or "extra/speaker" in file:
            groups = _as_text(_part(file, path, "extra/speaker", "iuSO")[()])
            lengths["extra/speaker"] = len(groups)
        if len(set(lengths.values())) > 1 or not len(labels):
            text = ", ".join(f"{key}: {length}" for key, length in lengths.items())
            raise corrupt_file(path, f"its parts must all have one entry a sample, they have {text}")
        if labels.min() < 0 or labels.max() >= kind.n_classes:
            raise corrupt_file(path, f"its labels {labels.min()}..{labels.max()} are not in 0..{kind.n_classes - 1}")
        counts = np.empty(len(labels), np.int64)
        # HDF5 does not tell the length of a list without reading it, so units are read twice.
        for first, last in _portions(len(labels), f"counting {path.name}", progress):
            lists = units[first:last]
            counts[first:last] = [len(row) for row in lists]
            channels = np.concatenate(lists)
            low, high = (int(channels.min()), int(channels.max())) if len(channels) else (0, 0)
            if low < 0 or high >= N_CHANNELS:
                raise corrupt_file(path, f"channels {low}..{high} in samples {first}..{last - 1} are not in 0..699")
    return SampleTable(counts=counts, labels=labels, groups=groups)


def _read_pieces(path: Path, progress: bool, table: SampleTable) -> Iterator[Piece]:
    with _opened(path) as file:
        all_times, all_units = _part(file, path, "spikes/times", "f"), _part(file, path, "spikes/units", "iu")
        for first, last in _portions(len(table.labels), f"reading {path.name}", progress):
            times, units, counts = all_times[first:last], all_units[first:last], table.counts[first:last]
            unequal = np.flatnonzero(np.array([len(row) for row in times]) != counts)
            if len(unequal):
                row = int(unequal[0])
                text = f"sample {first + row} has {len(times[row])} times and {counts[row]} units"
                raise corrupt_file(path, text)
            # A float16 has 11 digits and 1000 has 7 besides its factor 8: the product is exact in float32.
            times_ms = np.concatenate(times).astype(np.float32) * np.float32(1000)
            yield Piece(
                times_ms=times_ms,
                units=np.concatenate(units).astype(np.int32),
                counts=counts,
                where=partial(_sample_name, path, first),
            )


def _sample_name(path: Path, first: int, row: int) -> tuple[Path, str]:
    return path, f"sample {first + row}"


def _portions(n: int, what: str, progress: bool) -> Iterator[tuple[int, int]]:
    from tqdm.auto import tqdm

    with tqdm(total=n, desc=what, unit=" samples", disable=not progress) as bar:
        for first in range(0, n, _PORTION):
            last = min(first + _PORTION, n)
            yield first, last
            bar.update(last - first)


def _as_text(values: np.ndarray) -> np.ndarray:
    """Return numbers, bytes or text as an array of text."""
    return np.array([value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values.tolist()])
