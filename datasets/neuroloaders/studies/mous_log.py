"""Logs of Presentation, as those of MOUS are: what was played when, on the clock of the stimulus computer.

A log has a header, a table with one line for each event, and a second table that says the same again. Times are in
0.0001 s; lines end in CRLF. `align_clocks` brings them to the clock of the recording by triggers that both have.
"""

# N synchronising events of the log, M triggers of the recording

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroloaders.checks import check_same_length, corrupt_file, missing_data

__all__ = ["ClockMap", "LogRow", "align_clocks", "read_log"]

_UNIT_S = 1e-4
_NEEDED = ("Trial", "Event Type", "Code", "Time")
_COARSE_S, _FINE_S = 0.3, 0.01  # how far a trigger may be from where it is expected, before and after the fit


@dataclass(frozen=True)
class LogRow:
    """A line of the log.

    Parameters
    ----------
    line : int
        Its number, from 1.
    kind : str
        "Picture", "Sound", "Nothing", "Response", ...
    code : str
        What the experimenter called it: "ZINNEN", "FIX 3516", "14 Start File 186.wav".
    time : float
        In s, on the clock of the stimulus computer.
    """

    line: int
    kind: str
    code: str
    time: float


@dataclass(frozen=True)
class ClockMap:
    """From the clock of the log to that of the recording: ``time * rate + offset``.

    Parameters
    ----------
    rate : float
        Seconds of the recording in a second of the log.
    offset : float
        In s.
    n_matched : int
        Triggers that agree.
    worst : float
        How far the worst of them is off, in s.
    """

    rate: float
    offset: float
    n_matched: int
    worst: float

    def __call__(self, time: float) -> float:
        """Return a time of the log on the clock of the recording, in s."""
        return time * self.rate + self.offset


def read_log(path: Path) -> list[LogRow]:
    """Read the first table of a log of Presentation.

    Parameters
    ----------
    path : Path
        The file, in UTF-8 or Windows-1252.

    Returns
    -------
    list of LogRow
        In the order of the file. If it holds several logs, as some of MOUS do, those of the longest; of equally long
        ones the first.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it holds no table, or a time that is no number: with the line.

    Notes
    -----
    A line that is broken after a full stop, as sentences that end in one are in some logs, is put together again.
    Lines without a time (such as those of a scanner's pulses) are left out.
    """
    logs: list[list[LogRow]] = []
    header: list[str] | None = None
    pending = ""
    for line, text in enumerate(_lines(path), start=1):
        if text.startswith("Scenario -"):
            logs.append([])
            header, pending = None, ""
        elif text.startswith("Subject\t"):
            logs = logs or [[]]
            header = text.split("\t")
            absent = [name for name in _NEEDED if name not in header]
            if absent:
                raise corrupt_file(path, f"line {line} names no column {absent[0]!r}")
        elif text.startswith("Event Type\t"):
            header = None  # the second table
        elif header is not None and text:
            fields = (pending + text).split("\t")
            if len(fields) <= header.index("Time") and text.endswith("."):
                pending += text
                continue
            pending = ""
            row = dict(zip(header, fields, strict=False))  # the second "Uncertainty" hides the first; neither is used
            if row.get("Time"):
                logs[-1].append(LogRow(line, row["Event Type"], row["Code"].strip(), _time(path, line, row["Time"])))
    longest = max(logs, key=len, default=[])
    if not longest:
        advice = 'It is to have a table with the columns "Subject", "Trial", "Event Type", "Code", "Time".'
        raise corrupt_file(path, "it holds no table of events", advice)
    return longest


def align_clocks(
    log_times: np.ndarray,
    log_codes: np.ndarray,
    times: np.ndarray,
    codes: np.ndarray,
    *,
    path: Path,
    share: float = 0.9,
) -> ClockMap:
    """Find the line that brings times of a log to the clock of a recording, from events that both have.

    Parameters
    ----------
    log_times : ndarray of float, shape (N,)
        Times of the log, in s.
    log_codes : ndarray of int, shape (N,)
        The trigger that each of these events sent.
    times : ndarray of float, shape (M,)
        Times of triggers in the recording, in s.
    codes : ndarray of int, shape (M,)
        Their values.
    path : Path
        The log, for an error.
    share : float
        Of the events of the log, or of the triggers if these are fewer, as many must agree to 10 ms.

    Returns
    -------
    ClockMap

    Raises
    ------
    ValueError
        If fewer agree, or fewer than 3: log and recording are then not of the same session, or one is cut short.

    Notes
    -----
    First the offset at which most events have a trigger of the same value within 0.3 s, tried for every pair of event
    and trigger; then a straight line through the events that do, twice. So triggers may be missing, or too many.
    Fixations last for random times, which makes the offset unique.
    """
    check_same_length(log_times=log_times, log_codes=log_codes)
    check_same_length(times=times, codes=codes)
    pairs = log_codes[:, None] == codes[None]
    offsets = (times[None] - log_times[:, None])[pairs]
    if len(offsets) == 0:
        raise corrupt_file(path, "none of its triggers is in the recording", "Is it the log of this recording?")
    # Within the width of a bin most votes agree; sorted, they are counted in one pass.
    ordered = np.sort(offsets)
    votes = np.searchsorted(ordered, ordered + _COARSE_S, side="right") - np.arange(len(ordered))
    best = int(votes.argmax())
    rate, offset = 1.0, float(np.median(ordered[best : best + votes[best]]))
    for tolerance in (_COARSE_S, _FINE_S, _FINE_S):
        mine, theirs = _matched(log_times * rate + offset, log_codes, times, codes, tolerance)
        if len(mine) >= 3:
            rate, offset = (float(value) for value in _line(log_times[mine], times[theirs]))
    mine, theirs = _matched(log_times * rate + offset, log_codes, times, codes, _FINE_S)
    needed = max(3, share * min(len(log_times), len(times)))
    if len(mine) < needed:
        reason = (
            f"of its {len(log_times)} synchronising events {len(mine)} have a trigger within {_FINE_S * 1e3:g} ms"
            f" in the recording, which has {len(times)}"
        )
        raise corrupt_file(path, reason, "Is it the log of this recording, and is the recording whole?")
    worst = float(np.abs(log_times[mine] * rate + offset - times[theirs]).max())
    return ClockMap(rate, offset, len(mine), worst)


def _matched(
    expected: np.ndarray, log_codes: np.ndarray, times: np.ndarray, codes: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return places of events and of the nearest trigger of the same value, where it is near enough."""
    distance = np.where(log_codes[:, None] == codes[None], np.abs(expected[:, None] - times[None]), np.inf)
    nearest = distance.argmin(axis=1)
    mine = np.flatnonzero(distance[np.arange(len(expected)), nearest] <= tolerance)
    return mine, nearest[mine]


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the least-squares line."""
    centre = x.mean()
    slope = ((x - centre) * (y - y.mean())).sum() / ((x - centre) ** 2).sum()
    return slope, y.mean() - slope * centre


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise missing_data("log of Presentation", [path.name], [path.parent], "It is part of the study.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _time(path: Path, line: int, text: str) -> float:
    try:
        return int(text) * _UNIT_S
    except ValueError:
        raise corrupt_file(path, f"line {line} has the time {text!r}, no whole number of 0.0001 s") from None
