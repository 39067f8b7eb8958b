"""Batches of windows around events, cut from continuous recordings where those lie.

Windows overlap and are many: stored one by one they take several times the room of the recordings. So the recordings
are kept as they are, on the device if they fit, and a batch is cut, corrected and scaled when it is due.
"""

# R recordings, N windows, B batch, C channels, T samples of a window

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuroloaders.checks import check_int, check_number, check_option, check_shape, invalid
from neuroloaders.epoch_bounds import check_inside_epochs
from neuroloaders.events_table import EventTable
from neuroloaders.prefetch import prefetched
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.resident import _SHARE_OF_FREE, ResidentLoader, logger
from neuroloaders.robust_scaler import RobustScaler, robust_scale
from neuroloaders.window_gather import GATHERS, GatherPlan, make_gather
from neuroloaders.window_layout import (
    BAD_CHANNELS,
    OUTSIDE,
    REPEATED,
    batches_of_blocks,
    place_channels,
    place_windows,
)
from neuroloaders.window_targets import StimulusFeatures, StimulusSequences, label_numbers
from neuroloaders.window_times import baseline_samples, n_samples, window_times

__all__ = ["BAD_CHANNELS", "OUTSIDE", "REPEATED", "SCALES", "WindowLoader", "Windows"]

SCALES = {
    "robust": "median and quartiles of this loader's own windows (see WindowLoader.fit_scaler): for training sets"
}
_ORDER_WITHIN, _FIT = 2, 3  # separate streams of random numbers


class Windows(NamedTuple):
    """A batch of windows; all on one device.

    Parameters
    ----------
    x : Tensor of float32, shape (B, C, T)
        Baseline subtracted, scaled and clamped as asked for. Zero where `channels` is False.
    recording, subject : Tensor of int64, shape (B,)
        Places in the recording set, and among its subjects.
    event : Tensor of int64, shape (B,)
        Rows of the event table that was given.
    channels : Tensor of bool, shape (B, C)
        Which channels there are: False for padding and for bad channels.
    target : Tensor, optional
        Features of the stimulus, shape (B, ...) or (B, F, T).
    label : Tensor of int64, shape (B,), optional
        Places in the loader's ``classes``.
    """

    x: Tensor
    recording: Tensor
    subject: Tensor
    event: Tensor
    channels: Tensor
    target: Tensor | None = None
    label: Tensor | None = None


class WindowLoader(ResidentLoader):
    """Windows from `tmin` to `tmax` around events, cut from recordings on the device.

    Parameters
    ----------
    recordings : RecordingSet, ContinuousRecording, or iterable of them
        At one sampling rate. Only those that events refer to are read; all of them count for the numbers of recordings
        and subjects, and for C.
    events : EventTable
        N events, such as those of a training split.
    tmin, tmax : float
        Ends of the window in s, relative to the event.
    endpoint : bool
        Whether the sample at `tmax` belongs to it; see `neuroloaders.window_times.n_samples`.
    device : torch.device or str, optional
        Where the batches are; by default the CPU.
    baseline : (float or None, float or None), optional
        Begin and end in s of the stretch whose mean is subtracted from each channel of each window, both included;
        ``(None, 0)`` is all before the event, as in ``mne.Epochs``.
    scale : RobustScaler or str, optional
        Then centers are subtracted and scales divided by, one of each a channel of a recording. A scaler of the
        training windows, or a key of `SCALES`.
    clamp : float, optional
        Then values are limited to ± this.
    batch_size, shuffle, generator, rank, world_size, drop_last
        As for `ResidentLoader`: order, shares of the ranks and resuming by ``batches(epoch, start)`` are the same.
    by_recording : bool
        Each batch is of one recording, at most `batch_size` windows. `shuffle` then orders the windows of a recording,
        and the batches.
    channels : sequence of str, optional
        What stands at each of the C places of a window; missing channels are zero. By default each recording has its
        channels in its own order, and recordings with fewer channels are padded at the end.
    bad_channels : str
        What to do about channels that hold NaN or never change, a key of `BAD_CHANNELS`. Those named in a recording's
        ``bads`` are always zero and not in the mask.
    targets : StimulusFeatures or StimulusSequences, optional
        Features of the stimuli of all events.
    labels : str, optional
        A column of the events, such as "stimulus", "kind", or an extra one: its values are classes.
    classes : sequence, optional
        The classes in order, so that loaders of several splits agree; by default the values that occur, sorted.
    outside : str
        What to do about windows that leave their recording, a key of `OUTSIDE`.
    repeated : str
        What to do about events at the same sample, a key of `REPEATED`.
    max_device_bytes : int, optional
        How much recordings and targets may take on the device: by default half of the free memory of a GPU. If they
        take more they stay where they are, in memory or on the disk, and the next batch is cut in the background while
        the current one is used. On the CPU, arrays in memory are always used where they lie; memory maps are read into
        memory only if this is given and they fit.
    backend : str
        How windows are cut, a key of `neuroloaders.window_gather.GATHERS`, or "auto": "torch" on a GPU that holds the
        recordings, else "numba".

    Attributes
    ----------
    recordings : RecordingSet
    events : EventTable
        The N that are kept; ``rows`` are their rows in the table that was given.
    n_samples, n_channels, n_times : int
        N, C, T.
    times : ndarray of float64, shape (T,)
        In s, relative to the event.
    n_outside, n_repeated : int
        How many events were left out.
    subjects, classes : tuple
        What the numbers in a batch stand for.
    ch_names : tuple of str or None
        If they are the same for all recordings.
    positions : Tensor of float32, shape (R, C, 2)
        Places of the sensors, on the device; index it by ``windows.recording``.
    scaler : RobustScaler or None
    device : torch.device
    is_resident : bool
        Whether batches are cut from memory of the device, with nothing to wait for.
    backend : str
        The one in use.
    n_gathers : int
        How many batches it has cut.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or recordings, events, scaler and targets do not belong together.

    Notes
    -----
    Samples are float32, sums are float64: a mean over the baseline is as exact as the samples.

    Examples
    --------
    >>> from neuroloaders.recordings import ContinuousRecording
    >>> noise = np.random.default_rng(0).standard_normal((2, 1200))
    >>> recording = ContinuousRecording(data=noise, sfreq=120, ch_names=("Fz", "Cz"), subject="01")
    >>> events = EventTable(start=[1, 3, 5], recording="01", kind="image", stimulus=["cat", "dog", "cat"])
    >>> loader = WindowLoader(recording, events, tmin=-0.5, tmax=1.0, baseline=(None, 0), labels="stimulus")
    >>> windows = next(iter(loader))
    >>> windows.x.shape, windows.label.tolist()
    (torch.Size([3, 2, 181]), [0, 1, 0])
    """

    def __init__(
        self,
        recordings: RecordingSet | ContinuousRecording | Iterable[ContinuousRecording],
        events: EventTable,
        *,
        tmin: float,
        tmax: float,
        endpoint: bool = True,
        device: torch.device | str | None = None,
        baseline: tuple[float | None, float | None] | None = None,
        scale: RobustScaler | str | None = None,
        clamp: float | None = None,
        batch_size: int = 128,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        by_recording: bool = False,
        channels: Sequence[str] | None = None,
        bad_channels: str = "raise",
        targets: StimulusFeatures | StimulusSequences | None = None,
        labels: str | None = None,
        classes: Sequence[Any] | None = None,
        outside: str = "raise",
        repeated: str = "keep",
        max_device_bytes: int | None = None,
        backend: str = "auto",
    ) -> None:
        self.recordings = recordings if isinstance(recordings, RecordingSet) else RecordingSet(recordings)
        if not isinstance(events, EventTable):
            raise invalid("events", "be an EventTable", events, "Use EventTable.from_pandas.", kind=TypeError)
        check_option("backend", backend, ["auto", *GATHERS])
        if targets is not None and not isinstance(targets, (StimulusFeatures, StimulusSequences)):
            raise invalid("targets", "be StimulusFeatures or StimulusSequences", targets, kind=TypeError)
        self.sfreq = self.recordings.sfreq
        self.n_times = n_samples(tmin, tmax, self.sfreq, endpoint)
        check_inside_epochs(events, tmin, tmax, sfreq=self.sfreq, endpoint=endpoint)
        self.times = window_times(tmin, tmax, self.sfreq, endpoint)
        self._baseline_samples = baseline_samples(baseline, tmin, tmax, self.sfreq, endpoint)
        self._baseline = baseline if baseline is None else tuple(baseline)
        self._clamp = math.inf if clamp is None else check_number("clamp", clamp, above=0)
        places = place_windows(
            self.recordings, events, tmin=tmin, tmax=tmax, n_times=self.n_times, outside=outside, repeated=repeated
        )
        self.rows, self.n_outside, self.n_repeated = places.rows, places.n_outside, places.n_repeated
        self.events = events.select(places.rows)
        self._by_recording = bool(by_recording)
        # The rows are loaded as their numbers; all that is stored stays beside them.
        super().__init__(
            torch.arange(len(self.events)), batch_size=batch_size, device="cpu", shuffle=shuffle, generator=generator,
            rank=rank, world_size=world_size, drop_last=drop_last,
        )  # fmt: skip
        used = np.unique(places.recording)
        layout = place_channels(self.recordings, channels, bad_channels, used.tolist())
        self._used, self._layout, self.ch_names = used, layout, layout.ch_names
        self.n_channels, self.subjects = layout.rows.shape[1], self.recordings.subjects
        self._window_recording, self._window_first = places.recording, places.first
        self.classes, label = label_numbers(self.events, labels, classes)
        self._blocks = [np.flatnonzero(places.recording == r) for r in used] if by_recording else []
        if by_recording and len(self) == 0:
            got = f"{self.batch_size}, with at most {max(map(len, self._blocks))} windows of a recording"
            raise invalid("batch_size", "leave a batch with drop_last", got)
        self.scaler = self._scaler(scale)

        # An empty tensor names its device in full: "cuda:0", not "cuda".
        self.device = torch.empty(0, device="cpu" if device is None else device).device
        data = [self.recordings[r].data for r in used.tolist()]
        self.is_resident = self._resides(data, targets, max_device_bytes, backend)
        home = self.device if self.is_resident else torch.device("cpu")
        if self.is_resident and self.device.type == "cpu":
            data = [np.array(samples) if isinstance(samples, np.memmap) else samples for samples in data]
        if backend == "auto":
            backend = "torch" if home.type != "cpu" else "numba"
        self.backend = backend
        self._cut = make_gather(backend, data, self._plan(self.scaler, self._clamp), self.device)
        lookup = None if targets is None else targets.for_windows(self.events, tmin, self.sfreq, self.n_times)
        self._target = None if lookup is None else lookup.to(home)
        self.positions = torch.from_numpy(layout.positions).to(self.device)
        columns = [places.recording, np.searchsorted(used, places.recording), places.first]
        columns += [self.recordings.subject_numbers[places.recording], places.rows]
        self._columns = [torch.from_numpy(np.asarray(column, dtype=np.int64)).to(home) for column in columns]
        self._mask = torch.from_numpy(layout.rows >= 0).to(home)
        self._label = None if label is None else torch.from_numpy(label).to(home)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        if not self._by_recording:
            return super().__len__()
        whole, rest = np.divmod([len(rows) for rows in self._blocks], self.batch_size)
        return int(whole.sum() if self._drop_last else (whole + (rest > 0)).sum())

    def __repr__(self) -> str:
        size = f"{self.n_samples} windows of {self.n_channels} channels x {self.n_times} samples"
        where = f"on {self.device}" if self.is_resident else f"cut on the host for {self.device}"
        return f"WindowLoader({size}, {len(self)} batches, {where}, {self.backend})"

    @property
    def n_gathers(self) -> int:
        """How many batches were cut by the backend in use."""
        return self._cut.calls

    def windows(self, rows: Any) -> Windows:
        """Return some of the N windows as one batch, on the device.

        Parameters
        ----------
        rows : array or tensor of int64, shape (B,)
            Places in `events`.

        Returns
        -------
        Windows
        """
        rows = torch.as_tensor(rows)
        check_shape("rows", rows, ("B",))
        if rows.is_floating_point() or rows.dtype == torch.bool:
            raise invalid("rows", "be whole numbers", rows, kind=TypeError)
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= self.n_samples):
            raise invalid("rows", f"lie in 0..{self.n_samples - 1}", f"{int(rows.min())}..{int(rows.max())}")
        gathered = self._gathered(rows.to(self._mask.device, torch.int64))
        return self._named([tensor.to(self.device) for tensor in gathered])

    def fit_scaler(
        self,
        *,
        n_windows: int = 200,
        lower: float = 0.25,
        upper: float = 0.75,
        method: str = "sorted",
        generator: torch.Generator | None = None,
    ) -> RobustScaler:
        """Fit center and scale of every channel of every recording to some of its windows.

        Parameters
        ----------
        n_windows : int
            How many windows of each recording are looked at, chosen at random; all, if there are fewer.
        lower, upper, method
            As for `robust_scale`.
        generator : torch.Generator, optional
            Only its ``initial_seed()`` is read; by default the seed is 0. What is chosen of one recording does not
            depend on the others.

        Returns
        -------
        RobustScaler
            Of the recordings that have events here, and the channels that are used.

        Notes
        -----
        After the baseline was subtracted, before any scale and clamp, as Défossez et al. 2023 do.
        """
        check_int("n_windows", n_windows, at_least=1)
        data = [self.recordings[r].data for r in self._used.tolist()]
        cut = make_gather("numba", data, self._plan(None, math.inf), torch.device("cpu"))
        seed = 0 if generator is None else generator.initial_seed()
        center, scale, ch_names = {}, {}, {}
        for slot, r in enumerate(self._used.tolist()):
            rows = np.flatnonzero(self._window_recording == r)
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_FIT, r)))
            if len(rows) > n_windows:
                rows = np.sort(rng.choice(rows, n_windows, replace=False))
            first = torch.from_numpy(self._window_first[rows])
            x = cut(torch.full((len(rows),), slot), first).numpy()
            there = np.flatnonzero(self._layout.rows[r] >= 0)
            recording = self.recordings[r]
            name = recording.name
            stacked = x[:, there].transpose(0, 2, 1).reshape(-1, len(there))
            center[name], scale[name] = robust_scale(stacked, lower=lower, upper=upper, method=method)
            ch_names[name] = tuple(recording.ch_names[row] for row in self._layout.rows[r, there])
        return RobustScaler(center=center, scale=scale, ch_names=ch_names, baseline=self._baseline)

    def _scaler(self, scale: RobustScaler | str | None) -> RobustScaler | None:
        if isinstance(scale, str):
            check_option("scale", scale, SCALES)
            return self.fit_scaler()
        if scale is not None and not isinstance(scale, RobustScaler):
            raise invalid("scale", "be a RobustScaler or 'robust'", scale, kind=TypeError)
        if scale is not None and scale.baseline != self._baseline:
            advice = "Fit it on windows with the same baseline."
            raise invalid("scale", f"be fitted with baseline={self._baseline}", f"one with {scale.baseline}", advice)
        return scale

    def _plan(self, scaler: RobustScaler | None, clamp: float) -> GatherPlan:
        """Return what is done to windows of the recordings in use."""
        rows = self._layout.rows[self._used]
        center, scale = np.zeros(rows.shape), np.ones(rows.shape)
        for slot, r in enumerate(self._used.tolist() if scaler else []):
            recording, there = self.recordings[r], rows[slot] >= 0
            names = [recording.ch_names[row] for row in rows[slot, there]]
            center[slot, there], scale[slot, there] = scaler.of(recording.name, names)
        return GatherPlan(
            n_times=self.n_times, rows=rows, baseline=self._baseline_samples, center=center, scale=scale, clamp=clamp
        )

    def _resides(self, data: list[np.ndarray], targets: Any, limit: int | None, backend: str) -> bool:
        """Decide whether the recordings in use and the targets are put on the device."""
        needed = sum(samples.nbytes for samples in data) + (0 if targets is None else targets.n_bytes)
        mapped = any(isinstance(samples, np.memmap) for samples in data)
        if limit is not None:
            check_int("max_device_bytes", limit, at_least=0)
        elif self.device.type == "cuda":
            limit = int(torch.cuda.mem_get_info(self.device)[0] * _SHARE_OF_FREE)
        fits = not (mapped and self.device.type == "cpu") if limit is None else needed <= limit
        if not fits and limit is not None:
            logger.warning(
                "The recordings take %.2f GB, more than the %s may hold of them (%.2f GB): they stay where they are.",
                needed / 1e9, self.device, limit / 1e9,
            )  # fmt: skip
        if backend == "torch" and not fits:
            advice = "Raise max_device_bytes, or pass backend='auto'."
            raise invalid("backend", "not be 'torch' for recordings that stay on the host", "'torch'", advice)
        return fits and (backend in ("auto", "torch") or self.device.type == "cpu")

    def _epoch(self, epoch: int) -> list[Tensor]:
        """Return the windows of each batch, this rank's share of them, on the host."""
        if not self._by_recording:
            order, batches = self._order(epoch), []
            for number in range(len(self)):
                first, begin, end = self._share(number)
                rows = slice(first + begin, first + end)
                batches.append(self._tensors[0][rows] if order is None else order[rows])
            return batches
        generator = self._generator(_ORDER_WITHIN, epoch) if self._shuffle else None
        whole = batches_of_blocks(self._blocks, self.batch_size, self._drop_last, generator)
        shares = ((len(rows) * k // self.world_size for k in (self.rank, self.rank + 1)) for rows in whole)
        return [rows[begin:end] for rows, (begin, end) in zip(whole, shares, strict=True)]

    def _batches(self, epoch: int, start: int) -> Iterator[Windows]:
        batches, numbers = self._epoch(epoch), range(start, len(self))
        if self.is_resident:
            gathered = (self._gathered(batches[k].to(self.device, non_blocking=True)) for k in numbers)
        else:
            gathered = prefetched(lambda k: self._pinned(self._gathered(batches[k])), numbers, self.device)
        try:
            for batch in gathered:
                yield self._named(batch)
        finally:
            gathered.close()  # ends the background thread now, also if the caller stops early

    def _gathered(self, rows: Tensor) -> tuple[Tensor, ...]:
        # Not column[rows]: torch shares that out among threads, which then spin for milliseconds where windows are cut.
        recording, slot, first, subject, event = (column.index_select(0, rows) for column in self._columns)
        batch = [self._cut(slot, first), recording, subject, event, self._mask.index_select(0, recording)]
        if self._target is not None:
            batch.append(self._target(rows))
        if self._label is not None:
            batch.append(self._label.index_select(0, rows))
        return tuple(batch)

    def _pinned(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.pin_memory() for tensor in batch) if self.device.type == "cuda" else batch

    def _named(self, batch: Sequence[Tensor]) -> Windows:
        rest = list(batch[5:])
        target = rest.pop(0) if self._target is not None else None
        return Windows(*batch[:5], target=target, label=rest[0] if rest else None)
