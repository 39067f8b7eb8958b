"""Band-pass filters, fewer samples, and windows without large artefacts, for recordings that come raw."""

# C channels, T samples, N events

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from neuroloaders.checks import check_int, check_number, check_option, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.recordings import ContinuousRecording, RecordingSet
from neuroloaders.window_loader import WindowLoader

__all__ = ["PHASES", "bandpass", "quiet_windows"]


def _zero(sos: np.ndarray, x: np.ndarray) -> np.ndarray:
    from scipy.signal import sosfiltfilt

    return sosfiltfilt(sos, x, axis=1)


def _causal(sos: np.ndarray, x: np.ndarray) -> np.ndarray:
    from scipy.signal import sosfilt, sosfilt_zi

    # As if the first sample had been there for ever: an offset of the electrodes makes no step.
    state = sosfilt_zi(sos)[:, None] * x[None, :, :1]
    return sosfilt(sos, x, axis=1, zi=state)[0]


PHASES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    # Forwards and backwards: responses stay in their place and begin too early. For recordings that are over.
    "zero": _zero,
    # Forwards: responses come later. What can be done live.
    "causal": _causal,
}


def bandpass(
    recordings: RecordingSet | ContinuousRecording,
    l_freq: float,
    h_freq: float,
    *,
    every: int = 1,
    order: int = 4,
    phase: str = "zero",
    picks: Iterable[str] | None = None,
) -> RecordingSet:
    """Filter recordings with a Butterworth band-pass, and keep every k-th sample.

    Parameters
    ----------
    recordings : RecordingSet or ContinuousRecording
        Raw ones. They are not changed.
    l_freq, h_freq : float
        Edges of the band, at half power of one pass, Hz.
    every : int
        Which samples are kept: the first, and each of this many. The band must end below 80 % of the new Nyquist rate.
    order : int
        Of the filter, at each edge.
    phase : str
        A key of `PHASES`.
    picks : iterable of str, optional
        Channels to keep, in this order; by default all.

    Returns
    -------
    RecordingSet
        In memory, float32.

    Raises
    ------
    ValueError
        If the band does not fit the rate, or a channel is not there.
    """
    from scipy.signal import butter

    check_int("every", every, at_least=1)
    check_int("order", order, at_least=1)
    through = PHASES[check_option("phase", phase, PHASES)]
    check_number("l_freq", l_freq, above=0)
    check_number("h_freq", h_freq, above=l_freq)
    picks = None if picks is None else list(picks)
    out = []
    for recording in RecordingSet(recordings):
        limit = 0.4 * recording.sfreq / every
        if h_freq > limit:
            advice = "Keep more samples, or less of the band."
            came = f"{h_freq:g} Hz for samples at {recording.sfreq / every:g} Hz"
            raise invalid("h_freq", f"be at most {limit:g} Hz", came, advice)
        names = list(recording.ch_names) if picks is None else picks
        missing = [name for name in names if name not in recording.ch_names]
        if missing:
            raise invalid("picks", f"be channels of {recording.name}", f"{missing[0]!r}")
        rows = [recording.ch_names.index(name) for name in names]
        sos = butter(order, [l_freq, h_freq], "bandpass", fs=recording.sfreq, output="sos")
        x = through(sos, np.asarray(recording.data[rows], dtype=np.float64))[:, ::every]
        out.append(dataclasses.replace(
            recording, data=np.ascontiguousarray(x, dtype=np.float32), sfreq=recording.sfreq / every,
            ch_names=tuple(names), positions=None if recording.positions is None else recording.positions[rows],
            bads=tuple(name for name in recording.bads if name in names), faults=None,
            provenance=f"{recording.provenance}; {l_freq:g} to {h_freq:g} Hz, {phase} phase".lstrip("; "),
        ))  # fmt: skip
    return RecordingSet(out)


def quiet_windows(
    recordings: RecordingSet,
    events: EventTable,
    *,
    tmin: float,
    tmax: float,
    limit: float,
    baseline: tuple[float | None, float | None] | None = None,
) -> EventTable:
    """Return the events whose window lies in its recording and never leaves a limit.

    Parameters
    ----------
    recordings : RecordingSet
        Where the events are.
    events : EventTable
        N events.
    tmin, tmax : float
        Ends of the windows in s, relative to the event.
    limit : float
        Largest absolute value of any channel, in the unit of the recordings.
    baseline : (float or None, float or None), optional
        As for `WindowLoader`: subtracted before.

    Returns
    -------
    EventTable
        Those that are kept; ``len(events)`` less its length were not.

    Notes
    -----
    A fixed limit uses nothing of other windows: it may be applied before a split.
    """
    check_number("limit", limit, above=0)
    loader = WindowLoader(
        recordings, events, tmin=tmin, tmax=tmax, baseline=baseline, outside="drop", batch_size=256,
        repeated="keep",
    )  # fmt: skip
    kept = [batch.event[batch.x.abs().amax(dim=(1, 2)) <= limit].numpy() for batch in loader]
    return events.select(np.sort(np.concatenate(kept)))
