"""Events of a data set, written piece by piece to the cache and opened as sets over memory maps.

What the readers of event files share. N samples, E events in all. Only one piece is in memory at a time, so a data
set may be larger than memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroloaders.cache import Allocate, cached_arrays
from neuroloaders.checks import corrupt_file
from neuroloaders.spikes import SpikeSet

__all__ = ["EventReading", "Piece", "SampleTable", "spike_sets", "store_events"]


@dataclass(frozen=True, kw_only=True)
class EventReading:
    """What stored events depend on besides their files; the key of the cache.

    Parameters
    ----------
    name, split : str
        Data set and split.
    sort : bool
        Whether events out of order were sorted rather than refused.
    version : int
        Of the code that reads.
    """

    name: str
    split: str
    sort: bool
    version: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleTable:
    """What is known of each sample before its events are read.

    Parameters
    ----------
    counts : ndarray of int64, shape (N,)
        Events of each sample.
    labels : ndarray of int64, shape (N,)
        Classes.
    groups : ndarray of str, shape (N,), optional
        Who made each sample.
    """

    counts: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Whole samples that follow one another.

    Parameters
    ----------
    times_ms : ndarray of float32, shape (E,)
        In ms; sample after sample.
    units : ndarray of int32, shape (E,)
        Checked already.
    counts : ndarray of int64, shape (n,)
        Events of each sample.
    where : callable
        From a sample's number in this piece to its file and a name for it, for error messages.
    """

    times_ms: np.ndarray
    units: np.ndarray
    counts: np.ndarray
    where: Callable[[int], tuple[Path, str]]


def store_events(
    config: EventReading,
    source: Any,
    table: Callable[[], SampleTable],
    pieces: Callable[[SampleTable], Iterator[Piece]],
    *,
    folder: str | os.PathLike,
) -> dict[str, np.ndarray]:
    """Return the arrays of a split as memory maps; read the files the first time.

    Parameters
    ----------
    config : EventReading
        What is read.
    source : mapping
        From `source_identity`.
    table : callable
        Counts and labels.
    pieces : callable
        The events in order, all of the table's.
    folder : path-like
        Of the cache.

    Returns
    -------
    arrays : dict of str to ndarray
        ``times_ms, units, offsets, labels`` and, if known, ``groups``.

    Raises
    ------
    ValueError
        If events are out of order and ``config.sort`` is False, a time is not finite, or there are no events.
    """

    def build(allocate: Allocate) -> None:
        known = table()
        n, total = len(known.labels), int(known.counts.sum())
        if not total:
            raise corrupt_file(source["name"], "it holds no events")
        offsets = allocate("offsets", (n + 1,), np.int64)
        np.cumsum(known.counts, out=offsets[1:])
        allocate("labels", (n,), np.int64)[:] = known.labels
        if known.groups is not None:
            allocate("groups", (n,), known.groups.dtype)[:] = known.groups
        times_ms, units = allocate("times_ms", (total,), np.float32), allocate("units", (total,), np.int32)
        first = 0
        for piece in pieces(known):
            last = first + len(piece.times_ms)
            times_ms[first:last], units[first:last] = _in_order(piece, config.sort)
            first = last

    return cached_arrays(config, source, build, folder=folder)


def spike_sets(
    stored: Mapping[str, Mapping[str, np.ndarray]],
    *,
    name: str,
    classes: tuple[str, ...],
    unit_shape: tuple[int, ...],
    provenance: str,
) -> dict[str, SpikeSet]:
    """Make the sets of all splits; the same group has the same number in each.

    Parameters
    ----------
    stored : mapping of str to arrays
        From `store_events`, by split.
    name, classes, unit_shape, provenance
        As for `SpikeSet`.

    Returns
    -------
    sets : dict of str to SpikeSet
    """
    with_groups = all("groups" in arrays for arrays in stored.values())
    found = {group for arrays in stored.values() for group in np.unique(arrays["groups"])} if with_groups else set()
    names = tuple(sorted(map(str, found), key=_by_number))
    sets = {}
    for split, arrays in stored.items():
        groups = torch.from_numpy(_places(arrays["groups"], names)) if with_groups else None
        sets[split] = SpikeSet(
            times_ms=torch.from_numpy(arrays["times_ms"]),
            units=torch.from_numpy(arrays["units"]),
            offsets=torch.from_numpy(np.array(arrays["offsets"])),
            labels=torch.from_numpy(np.array(arrays["labels"])),
            n_units=int(np.prod(unit_shape)),
            classes=classes,
            name=name,
            split=split,
            groups=groups,
            group_names=names,
            unit_shape=unit_shape,
            provenance=provenance,
        )
    return sets


def _in_order(piece: Piece, sort: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return times and units, each sample's in rising order of time."""
    times, owner = piece.times_ms, np.repeat(np.arange(len(piece.counts)), piece.counts)
    if not np.isfinite(times).all():
        path, sample = piece.where(int(owner[~np.isfinite(times)][0]))
        raise corrupt_file(path, f"{sample} has a time that is NaN or infinite")
    falling = (np.diff(times) < 0) & (np.diff(owner) == 0)
    if not falling.any():
        return times, piece.units
    step = int(falling.argmax()) + 1
    if not sort:
        path, sample = piece.where(int(owner[step]))
        event = step - int(np.searchsorted(owner, owner[step]))
        reason = f"the events of {sample} are out of order (event {event} is before the one that precedes it)"
        raise corrupt_file(path, reason, "Fetch the file again, or pass sort=True to sort events by time.")
    order = np.lexsort((times, owner))  # stable: events at one time keep their order
    return times[order], piece.units[order]


def _places(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    found, inverse = np.unique(np.asarray(values), return_inverse=True)
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[str(name)] for name in found], dtype=np.int64)[inverse]


def _by_number(name: str) -> tuple[bool, int, str]:
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)
