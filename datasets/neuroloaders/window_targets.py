"""What windows are compared with: features of the stimulus, stored once a stimulus and looked up for each window.

A sentence that 96 subjects hear is stored once, at its own rate, and brought to the rate of the recording by choosing
columns on the device: what is copied for a batch are indices.
"""

# N events, S stimuli, F features, T samples of a window

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_number, check_option, check_same_length, check_shape, invalid
from neuroloaders.events_table import COLUMNS, EventTable
from neuroloaders.resident import _as_tensor

__all__ = ["StimulusFeatures", "StimulusSequences", "label_numbers", "nearest_indices"]


def nearest_indices(n_in: int, n_out: int) -> Tensor:
    """Return which of `n_in` columns stands at each of `n_out` places: floor(i n_in / n_out), int64, shape (n_out,).

    Parameters
    ----------
    n_in, n_out : int
        At least 1.

    Returns
    -------
    Tensor

    Notes
    -----
    ``x[..., nearest_indices(x.shape[-1], n)]`` is ``torch.nn.functional.interpolate(x, n, mode="nearest")``, to the
    last bit: the product is taken in float32, as it is there. In exact arithmetic, about one place in 5000 would have
    the next column (57 to 361: 5 places).

    Examples
    --------
    >>> nearest_indices(3, 7).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    check_int("n_in", n_in, at_least=1)
    check_int("n_out", n_out, at_least=1)
    scale = np.float32(n_in) / np.float32(n_out)
    indices = np.floor(np.arange(n_out, dtype=np.float32) * scale).astype(np.int64)
    return torch.from_numpy(np.minimum(indices, n_in - 1))


class StimulusFeatures:
    """One array of features a stimulus: the embedding of an image, of a word.

    Parameters
    ----------
    names : sequence of str, length S
        The stimuli, as event tables name them; each once.
    values : array or tensor, shape (S, ...)
        Their features, of any type and shape. A memory map is read where batches need it.

    Examples
    --------
    >>> StimulusFeatures(["cat", "dog"], np.zeros((2, 768), dtype=np.float16))
    StimulusFeatures(2 stimuli, 768 of float16)
    """

    def __init__(self, names: Sequence[str], values: Any) -> None:
        self._places = _places(names)
        self._values = _as_tensor("values", values)
        check_same_length(names=self._places, values=self._values)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self._values.shape[1:])) or "1"
        return f"StimulusFeatures({len(self._places)} stimuli, {shape} of {str(self._values.dtype)[6:]})"

    @property
    def n_bytes(self) -> int:
        """Bytes of all features."""
        return self._values.numel() * self._values.element_size()

    def for_windows(self, events: EventTable, tmin: float, sfreq: float, n_times: int) -> _RowLookup:
        """Return what looks up the features of the windows around `events`; shape (B, ...) for B of them."""
        rows = _rows_of(events, self._places)
        return _RowLookup(torch.from_numpy(rows), self._values)


class StimulusSequences:
    """Features over time for each stimulus: of sounds, at the rate of the network that made them.

    Parameters
    ----------
    values : mapping of str to array or tensor, shape (F, T_s)
        For each stimulus its features over time; one F and one type for all. Copied to memory.
    sfreq : float, optional
        Their rate in Hz. Without it, the whole of a stimulus is stretched over the window.
    column : str
        Column of the events that says where in its stimulus an event lies, in s; 0 if the table has no such column.
        A word's onset in a recording of an hour, for example.

    Notes
    -----
    With `sfreq`, a window from ``tmin`` on takes the columns from round((where + tmin) sfreq) on, as many as fit its
    T samples, round(T sfreq / rate of the recording), and these are brought to T by `nearest_indices`: slice, then
    interpolate, as Défossez et al. 2023 do. So a column may be off by half of one at the end of the window. Before and
    after the stimulus there are zeros.
    """

    def __init__(
        self, values: Mapping[str, Any], *, sfreq: float | None = None, column: str = "stimulus_start"
    ) -> None:
        self._places = _places(list(values))
        tables = [_as_tensor(f"values[{name!r}]", value) for name, value in values.items()]
        for name, table in zip(values, tables, strict=True):
            check_shape(f"values[{name!r}]", table, (tables[0].shape[0], "T"))
            if table.dtype != tables[0].dtype:
                raise invalid(f"values[{name!r}]", f"be of {tables[0].dtype}, like the first", table, kind=TypeError)
            if table.shape[1] == 0:
                raise invalid(f"values[{name!r}]", "hold at least one column", table)
        self.sfreq = None if sfreq is None else check_number("sfreq", sfreq, above=0)
        self._column = column
        self._lengths = np.array([table.shape[1] for table in tables], dtype=np.int64)
        self._values = torch.cat(tables, dim=1)

    def __repr__(self) -> str:
        rate = "stretched" if self.sfreq is None else f"at {self.sfreq:g} Hz"
        return f"StimulusSequences({len(self._places)} stimuli, {len(self._values)} features {rate})"

    @property
    def n_bytes(self) -> int:
        """Bytes of all features."""
        return self._values.numel() * self._values.element_size()

    def for_windows(self, events: EventTable, tmin: float, sfreq: float, n_times: int) -> _ColumnLookup:
        """Return what looks up the features of the windows around `events`; shape (B, F, T) for B of them."""
        rows = _rows_of(events, self._places)
        begin, length = (np.cumsum(self._lengths) - self._lengths)[rows], self._lengths[rows]
        if self.sfreq is None:
            lengths, which = np.unique(self._lengths, return_inverse=True)
            table = torch.stack([nearest_indices(int(n), n_times) for n in lengths])
            first, steps = np.zeros(len(rows), dtype=np.int64), torch.from_numpy(which[rows])
        else:
            where = np.zeros(len(events))
            if self._column in events.extra:
                where = events.extra[self._column]
                if where.dtype.kind not in "fi" or not np.isfinite(where).all():
                    raise invalid(f"events.extra[{self._column!r}]", "be finite times in s", where)
            first = np.rint((where + tmin) * self.sfreq).astype(np.int64)
            table = nearest_indices(max(round(n_times * self.sfreq / sfreq), 1), n_times)[None]
            steps = torch.zeros(len(rows), dtype=torch.int64)
        placed = [torch.from_numpy(column) for column in (begin, length, first)]
        return _ColumnLookup(*placed, steps, table, self._values)


class _Lookup:
    """Tensors that move together, and a function of event numbers."""

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tensors

    def to(self, device: torch.device) -> _Lookup:
        """Return it on a device."""
        return type(self)(*(tensor.to(device) for tensor in self._tensors))


class _RowLookup(_Lookup):
    def __call__(self, events: Tensor) -> Tensor:
        rows, values = self._tensors
        return values.index_select(0, rows[events])


class _ColumnLookup(_Lookup):
    def __call__(self, events: Tensor) -> Tensor:
        begin, length, first, steps, table, values = self._tensors
        columns = first[events][:, None] + table[steps[events]]
        outside = (columns < 0) | (columns >= length[events][:, None])
        columns = torch.where(outside, 0, columns + begin[events][:, None])
        shape = (len(events), len(values), columns.shape[1])
        # Both are expanded, not copied; what is written is (B, F, T) and contiguous.
        out = values[None].expand(shape[0], -1, -1).gather(2, columns[:, None].expand(shape))
        return out.masked_fill_(outside[:, None], 0)


def _places(names: Sequence[str]) -> dict[str, int]:
    names = [str(name) for name in np.asarray(names).tolist()] if len(names) else []
    if not names:
        raise invalid("names", "hold at least one stimulus", "none")
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid("names", "hold each stimulus once", f"{twice!r} twice")
    return places


def _rows_of(events: EventTable, places: Mapping[str, int]) -> np.ndarray:
    stimuli, inverse = np.unique(events.stimulus, return_inverse=True)
    missing = [name for name in stimuli.tolist() if name not in places]
    if missing:
        advice = "Compute them, or leave such events out."
        got = f"none for {len(missing)} of {len(stimuli)}, such as {missing[0]!r}"
        raise invalid("targets", "have features of all stimuli of the events", got, advice)
    return np.array([places[name] for name in stimuli.tolist()], dtype=np.int64)[inverse]


def label_numbers(
    events: EventTable, labels: str | None, classes: Sequence[Any] | None
) -> tuple[tuple[Any, ...], np.ndarray | None]:
    """Turn a column of the events into numbers of classes.

    Parameters
    ----------
    events : EventTable
        N events.
    labels : str, optional
        A column, own or extra.
    classes : sequence, optional
        Its values in order; by default those that occur, sorted.

    Returns
    -------
    classes : tuple
    numbers : ndarray of int64, shape (N,), or None
        Places in `classes`; None without `labels`.
    """
    if labels is None:
        if classes is not None:
            raise invalid("classes", "come with `labels`", "no labels", 'Pass labels="stimulus".')
        return (), None
    check_option("labels", labels, [*COLUMNS, *events.extra])
    there, inverse = np.unique(events.column(labels), return_inverse=True)
    classes = tuple(there.tolist()) if classes is None else tuple(classes)
    places = {value: place for place, value in enumerate(classes)}
    unknown = [value for value in there.tolist() if value not in places]
    if unknown or len(places) < len(classes):
        got = f"none for {unknown[0]!r}" if unknown else "one twice"
        raise invalid("classes", f"hold each value of the column {labels!r} once", got)
    return classes, np.array([places[value] for value in there.tolist()], dtype=np.int64)[inverse]
