"""What happened when: one long table of events for all recordings of a study.

Words, phonemes, sounds, images and blocks are rows of the same table and told apart by their kind. Splits are made on
`split_group`, so that whatever must stay on one side of a split has the same text there.
"""

# N events

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_option, check_same_length, check_shape, corrupt_file, invalid, soft_import

__all__ = ["COLUMNS", "EventTable", "concatenate_events"]

COLUMNS = {
    "recording": "name of the recording",
    "kind": "what sort of event: image, word, sound, block",
    "start": "time in s, on the clock of the recording",
    "duration": "length in s; infinity for a last block that has no end",
    "stimulus": "what was shown or heard; the same text wherever it is the same",
    "split_group": "what stays on one side of a split",
    "repeat": "how often this stimulus was presented before, from 0",
}
_NUMBERS = {"start": np.float64, "duration": np.float64, "repeat": np.int64}
_TYPES = {"float": np.float64, "int": np.int64, "bool": np.bool_}
_BOOLS = {"True": True, "False": False}


@dataclass(frozen=True, eq=False, kw_only=True)
class EventTable:
    """N events, column by column.

    Parameters
    ----------
    start : array of float64, shape (N,)
        Times in s, on the clock of the recording (`ContinuousRecording.start` is the time of its first sample).
    recording : array of str, shape (N,), or str
        Names of the recordings. Here and below, one value stands for all rows.
    kind : array of str, or str
        What sort of events.
    duration : array of float64, or float
        Lengths in s, not negative; may be infinite.
    stimulus : array of str, or str
        What was shown or heard. Numbers become text.
    split_group : array of str, or str, optional
        What stays on one side of a split; by default the stimulus.
    repeat : array of int64, or int
        How often the stimulus was presented before. Not counted here: whether that is in a recording, a session or
        altogether is for the reader of a study to say.
    extra : mapping of str to array
        Further columns, of text or numbers.

    Raises
    ------
    TypeError, ValueError
        If columns differ in length, or a value is out of range.

    Examples
    --------
    >>> events = EventTable(start=[0.5, 1.5], recording="01", kind="image", stimulus=["cat", "dog"])
    >>> events.where(stimulus="dog").start.tolist()
    [1.5]
    """

    start: np.ndarray
    recording: np.ndarray
    kind: np.ndarray = "event"
    duration: np.ndarray = 0.0
    stimulus: np.ndarray = ""
    split_group: np.ndarray | None = None
    repeat: np.ndarray = 0
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start = _numbers("start", self.start, np.float64)
        check_shape("start", start, ("N",))
        if not np.isfinite(start).all():
            bad = int((~np.isfinite(start)).sum())
            raise invalid("start", "be finite times in s", f"{bad} NaN or infinite ones", "Leave such events out.")
        columns: dict[str, np.ndarray] = {"start": start}
        for name in ("recording", "kind", "stimulus"):
            columns[name] = _texts(name, getattr(self, name), len(start))
        groups = self.split_group
        columns["split_group"] = columns["stimulus"] if groups is None else _texts("split_group", groups, len(start))
        for name in ("duration", "repeat"):
            column = _numbers(name, getattr(self, name), _NUMBERS[name])
            columns[name] = np.broadcast_to(column, start.shape).copy() if column.ndim == 0 else column
            if not (columns[name] >= 0).all():
                raise invalid(name, "not be negative", f"{columns[name][~(columns[name] >= 0)][0]}")
        if len(start) and (columns["recording"] == "").any():
            raise invalid("recording", "name a recording in each row", "an empty one")
        check_same_length(**columns)
        extra = {}
        for name, values in dict(self.extra).items():
            if not isinstance(name, str) or not name or ":" in name or name in COLUMNS:
                raise invalid("extra", "have names of its own, without colons", repr(name))
            extra[name] = _extra_column(name, values, len(start))
        for name, column in {**columns, "extra": extra}.items():
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.start)

    def __repr__(self) -> str:
        kinds, counts = np.unique(self.kind, return_counts=True)
        shown = ", ".join(f"{count} {kind}" for kind, count in zip(kinds[:4], counts[:4], strict=True))
        more = ", ..." if len(kinds) > 4 else ""
        return f"EventTable({len(self)} events in {len(np.unique(self.recording))} recordings: {shown}{more})"

    def column(self, name: str) -> np.ndarray:
        """Return a column, own or extra, by its name."""
        check_option("name", name, [*COLUMNS, *self.extra])
        return self.extra[name] if name in self.extra else getattr(self, name)

    def select(self, rows: Any) -> EventTable:
        """Return some events: `rows` are whole numbers in the order wanted, a mask of shape (N,), or a slice."""
        rows = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(check_shape("rows", rows, (len(self),)))
        elif rows.size == 0:
            rows = rows.astype(np.int64)
        elif rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise invalid("rows", "be whole numbers or a mask", rows, kind=TypeError)
        elif rows.min() < 0 or rows.max() >= len(self):
            raise invalid("rows", f"lie in 0..{len(self) - 1}", f"{rows.min()}..{rows.max()}")
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return EventTable(**columns, extra={name: column[rows] for name, column in self.extra.items()})

    def where(
        self,
        *,
        kind: str | Iterable[str] | None = None,
        recording: str | Iterable[str] | None = None,
        stimulus: str | Iterable[str] | None = None,
        split_group: str | Iterable[str] | None = None,
    ) -> EventTable:
        """Return the events with one of the given values in each column that is named; may be none."""
        keep = np.ones(len(self), dtype=bool)
        wanted = {"kind": kind, "recording": recording, "stimulus": stimulus, "split_group": split_group}
        for name, values in wanted.items():
            if values is not None:
                keep &= np.isin(getattr(self, name), [values] if isinstance(values, str) else list(values))
        return self.select(keep)

    def with_column(self, name: str, values: Any) -> EventTable:
        """Return the table with a column added or replaced, own or extra."""
        if name in COLUMNS:
            return dataclasses.replace(self, **{name: values})
        return dataclasses.replace(self, extra={**self.extra, name: values})

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with the columns of `COLUMNS`, then the extra ones."""
        pandas = soft_import("pandas", purpose="A data frame")
        return pandas.DataFrame({name: self.column(name) for name in [*COLUMNS, *self.extra]})

    @classmethod
    def from_pandas(cls, frame: Any, columns: Mapping[str, str] | None = None) -> EventTable:
        """Take a ``pandas.DataFrame`` (or a mapping of columns).

        Parameters
        ----------
        frame : DataFrame or mapping of str to array
            With ``start`` and ``recording``, perhaps others of `COLUMNS`; the rest becomes `extra`. Missing text is
            empty text.
        columns : mapping of str to str, optional
            Other names that columns have: ``{"onset": "start", "trial_type": "kind"}`` for events of BIDS.

        Returns
        -------
        EventTable
        """
        renamed = dict(columns or {})
        absent = [name for name in renamed if name not in frame]
        if absent:
            raise invalid("columns", "name columns of the table", repr(absent[0]))
        table = {renamed.get(name, name): _of_frame(frame[name]) for name in frame}
        for name in ("start", "recording"):
            if name not in table:
                advice = 'Rename columns with columns={"onset": "start"}.' if name == "start" else ""
                raise invalid("frame", f"have a column {name!r}", f"{', '.join(map(str, table))}", advice)
        own = {name: table.pop(name) for name in COLUMNS if name in table}
        return cls(**own, extra={str(name): column for name, column in table.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as CSV, whole or not at all; `load` reads back the same to the last bit.

        Types of extra columns other than text stand behind their names: ``surprisal:float``.
        """
        types = {"f": "float", "i": "int", "u": "int", "b": "bool"}
        header = [*COLUMNS]
        for name, values in self.extra.items():
            header.append(name if values.dtype.kind == "U" else f"{name}:{types[values.dtype.kind]}")
        # repr of a Python float is the shortest text that gives the same float again.
        lists = [self.column(name).tolist() for name in [*COLUMNS, *self.extra]]
        with atomic_write(path, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(zip(*lists, strict=True))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EventTable:
        """Read a table that `save` wrote, or another CSV file with the columns ``start`` and ``recording``.

        Parameters
        ----------
        path : path-like
            The file, in UTF-8.

        Returns
        -------
        EventTable

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If a row is too short or too long, or a number is none, with the row.
        """
        path = Path(path)
        if not path.is_file():
            raise invalid("path", "be a table of events", os.fspath(path), kind=FileNotFoundError)
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        header = rows.pop(0) if rows else []
        absent = [name for name in ("start", "recording") if name not in header]
        if absent:
            raise corrupt_file(path, f"it has no column {absent[0]!r}", "Name its columns in the first line.")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise corrupt_file(path, f"row {number} has {len(row)} fields of {len(header)}", "Repair the row.")
        own: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for place, title in enumerate(header):
            name, _, kind = title.partition(":")
            kind = _NUMBERS[name].__name__.rstrip("64") if name in _NUMBERS and not kind else kind
            values = _parsed(path, title, kind, [row[place] for row in rows])
            (own if name in COLUMNS else extra)[name] = values
        return cls(**own, extra=extra)


def concatenate_events(tables: Iterable[EventTable]) -> EventTable:
    """Put tables one below the other.

    Parameters
    ----------
    tables : iterable of EventTable
        Their extra columns must be the same.

    Returns
    -------
    EventTable
    """
    tables = list(tables)
    if not tables:
        raise invalid("tables", "hold at least one", "none")
    names = list(tables[0].extra)
    for number, table in enumerate(tables):
        if set(table.extra) != set(names):
            differing = sorted(set(table.extra) ^ set(names))[0]
            raise invalid(f"tables[{number}]", "have the extra columns of the first", f"a difference in {differing!r}")
        for name in names:
            column, first = table.extra[name], tables[0].extra[name]
            if column.dtype.kind != first.dtype.kind:
                got = f"{column.dtype}, where the first has {first.dtype}"
                raise invalid(f"tables[{number}].extra[{name!r}]", "be of the same type in all tables", got)
    columns = {name: np.concatenate([table.column(name) for table in tables]) for name in COLUMNS}
    extra = {name: np.concatenate([table.extra[name] for table in tables]) for name in names}
    return EventTable(**columns, extra=extra)


def _numbers(name: str, values: Any, dtype: type) -> np.ndarray:
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(dtype)
    if array.dtype.kind not in ("iu" if dtype is np.int64 else "iuf"):
        # A column of pandas in which a number is missing is of floats.
        whole = array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all()
        if not whole:
            raise invalid(name, f"be {'whole ' if dtype is np.int64 else ''}numbers", array, kind=TypeError)
    return array.astype(dtype)


def _texts(name: str, values: Any, n: int) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind == "O":
        array = np.array(["" if value is None else str(value) for value in array.ravel()], dtype=str)
    elif array.dtype.kind in "iu" or array.size == 0:
        array = array.astype(str)
    if array.dtype.kind != "U":
        raise invalid(name, "be text or whole numbers", array, kind=TypeError)
    if array.ndim == 0:
        return np.full(n, array)
    return check_shape(name, array, ("N",))


def _extra_column(name: str, values: Any, n: int) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    elif array.dtype.kind in "iu":
        array = array.astype(np.int64)
    elif array.dtype.kind != "b":
        array = _texts(f"extra[{name!r}]", array, n)
    if array.ndim == 0:
        array = np.full(n, array)
    check_shape(f"extra[{name!r}]", array, (n,))
    return array


def _of_frame(column: Any) -> np.ndarray:
    if not hasattr(column, "isna"):
        return np.asarray(column)
    missing = column.isna().to_numpy()
    if getattr(column.dtype, "kind", "O") in "iufb":
        return column.to_numpy(dtype=np.float64, na_value=np.nan) if missing.any() else column.to_numpy()
    return np.array(["" if gone else str(v) for v, gone in zip(column, missing, strict=True)], dtype=str)


def _parsed(path: Path, title: str, kind: str, texts: list[str]) -> np.ndarray:
    if not kind:
        return np.array(texts, dtype=str)
    if kind not in _TYPES:
        raise corrupt_file(path, f"column {title!r} is of an unknown type", f"Known are {', '.join(_TYPES)}.")
    read = _BOOLS.__getitem__ if kind == "bool" else {"float": float, "int": int}[kind]
    values = []
    for number, text in enumerate(texts, start=2):
        try:
            values.append(read(text))
        except (ValueError, KeyError) as error:
            reason = f"row {number} has {text!r} in column {title!r}, which must be {kind}"
            raise corrupt_file(path, reason, "Repair the row.") from error
    return np.array(values, dtype=_TYPES[kind])
