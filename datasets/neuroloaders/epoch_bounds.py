"""How far the epochs of a table of events reach: windows that would hold samples of another epoch are refused."""

# N events

from __future__ import annotations

import numpy as np

from neuroloaders.checks import check_number, invalid
from neuroloaders.events_table import EventTable
from neuroloaders.window_times import n_samples

__all__ = ["EPOCH_TMAX", "EPOCH_TMIN", "check_inside_epochs"]

# Extra columns: times of the first and the last sample of an event's epoch, in s, relative to the event.
EPOCH_TMIN, EPOCH_TMAX = "epoch_tmin", "epoch_tmax"


def check_inside_epochs(
    events: EventTable, tmin: float, tmax: float, *, sfreq: float | None = None, endpoint: bool = True
) -> None:
    """Refuse windows that reach beyond the epochs that their events are of.

    Parameters
    ----------
    events : EventTable
        From `epoch_recordings`. Tables without its columns ``epoch_tmin`` and ``epoch_tmax`` are of continuous
        recordings, and pass.
    tmin, tmax : float
        Ends of the window in s, relative to the event.
    sfreq : float, optional
        Rate in Hz: then the samples of the window are compared, as `WindowLoader` cuts them, else the times.
    endpoint : bool
        As for `WindowLoader`; with `sfreq` only.

    Raises
    ------
    ValueError
        If a window holds samples of another epoch.
    """
    if EPOCH_TMIN not in events.extra or EPOCH_TMAX not in events.extra or len(events) == 0:
        return
    low, high = events.extra[EPOCH_TMIN].astype(np.float64), events.extra[EPOCH_TMAX].astype(np.float64)
    tmin, tmax = check_number("tmin", tmin), check_number("tmax", tmax)
    if sfreq is None:
        # Times of samples are rounded in their last digit.
        slack = 1e-9
        early, late = tmin < low - slack, tmax > high + slack
    else:
        begin = round(tmin * check_number("sfreq", sfreq, above=0))
        early = begin < np.rint(low * sfreq)
        late = begin + n_samples(tmin, tmax, sfreq, endpoint) - 1 > np.rint(high * sfreq)
    # NaN is what a continuous recording has where tables of both kinds were put together.
    outside = (early | late) & np.isfinite(low)
    if outside.any():
        row = int(outside.argmax())
        required = f"lie inside the epoch of each event, from {low[row]:g} to {high[row]:g} s for row {row}"
        advice = "What comes next in the recording is another presentation: choose a shorter window."
        raise invalid("tmin, tmax", required, f"{tmin:g} to {tmax:g} s", advice)
