"""THINGS-MEG: four subjects look at 22 448 images of things in twelve sessions each; CTF, 1200 Hz.

Hebart et al., eLife 12 (2023), doi:10.7554/eLife.82580; OpenNeuro ds004212, a BIDS folder of CTF recordings. What is
said here of tables and triggers is how others read the published files; it is checked when they are read.
"""

# N images of a run

from __future__ import annotations

import csv
import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import check_number, check_option, corrupt_file, missing_data
from neuroloaders.events_table import EventTable
from neuroloaders.studies.bids_recordings import BIDSStudy, bids_entities, read_tsv, seconds
from neuroloaders.studies.meeg_study import RecordingFile
from neuroloaders.studies.raw_files import open_raw
from neuroloaders.studies.things_images import things_image, things_image_paths

__all__ = ["ONSETS", "ThingsMEGStudy", "attributes_path", "image_rows", "read_attributes"]

logger = logging.getLogger(__name__)

ONSETS = {
    "trigger": "when the trigger of the image was sent, from the stimulus channel; the table's where there is no such"
    " channel",
    "table": "the column onset of the table of events",
}

# What is shown, by trial_type: kind of the event, and its image_set.
_TRIALS = {"exp": ("image", "train"), "test": ("image", "test"), "catch": ("catch", "")}
_PATHS = ("image_path", "file_path", "stim_file")  # columns for the file of the image, by release
_TRIGGERS, _SHOWN = "UPPT001", 64
_NUMBERS = ("things_image_nr", "value")
_NO_IMAGE = ("", "n/a", "nan", "999999")


class ThingsMEGStudy(BIDSStudy):
    """THINGS-MEG, as it is published.

    Parameters
    ----------
    root : path-like
        The folder with ``sub-BIGMEG1`` and so on.
    onsets : str
        A key of `ONSETS`.
    max_difference_s : float
        With triggers: how far the onset of an image in the table may be from its trigger, in s. Images follow one
        another after 1.3 to 1.7 s, so that a row that is further away belongs to another image.

    Attributes
    ----------
    name, kind : str
        "THINGS-MEG", "meg".
    recordings : tuple of RecordingFile
        One a run: subject "BIGMEG1", session "01", run "main-01".

    Notes
    -----
    Events are of the kinds "image" and "catch". An image has its file name as stimulus, its category as split_group
    (see `things_image`); the columns ``image_set`` ("train", "test", or "" for catch trials), ``trial_type``, and
    ``table_difference_s``, the onset in the table minus that of the trigger (NaN without triggers).

    The stimulus channel UPPT001 has the value 64 while an image's trigger lasts and 32 at the end of a run; a trigger
    begins where the value becomes 64. There must be one for each row of the table. Between trigger and table, up to
    0.15 s have been seen; between trigger and light, as an optical sensor (UADC016) saw it, a constant of some
    milliseconds is left, the delay of the projector.

    Where the table of events names no files, rows are looked up in ``sourcedata/sample_attributes_P1.csv``, those of
    the session and run in their order. Columns are found whatever the case of their names; "n/a" and 999999 are the
    numbers of catch trials. One channel, MRO11, was faulty in all sessions and is left out by the authors; it is
    marked as bad only if ``*_channels.tsv`` says so. In run 5 of session 11 of the first subject and run 3 of
    session 10 of the second the signal drops out for 0.2 s, at 13.4 and 59.8 s; nothing is done about that.
    """

    name = "THINGS-MEG"
    _wanted = "sub-BIGMEG*/ses-*/meg/*_task-main_*_meg.{ds,fif}"

    def __init__(self, root: str | os.PathLike[str], *, onsets: str = "trigger", max_difference_s: float = 0.5) -> None:
        super().__init__(root, kind="meg", tasks=("main",))
        self.onsets = check_option("onsets", onsets, ONSETS)
        self.max_difference_s = check_number("max_difference_s", max_difference_s, above=0)
        self.settings = f"onsets {onsets}"
        # Triggers that were read: MNE reads a CTF recording as a whole for them.
        self._sent: dict[str, np.ndarray] = {}
        # Tables of all images of a subject that were read.
        self._attributes: dict[Path, list[tuple[int, dict[str, str]]]] = {}

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Return whether a table of events is of the subjects of this study, or names its images."""
        table = next(iter(sorted(root.glob("sub-*/ses-*/meg/*_events.tsv"))), None)
        if table is None:
            return False
        if re.fullmatch(r"bigmeg\d+", bids_entities(table.name).get("sub", "").lower()):
            return True
        with open(table, encoding="utf-8", errors="replace") as file:
            head = file.read(4000)
        return "images_meg/" in head or "images_test_meg/" in head

    def image_paths(self, images: Any, folder: str | os.PathLike[str] | None = None) -> list[Path]:
        """Return where images lie, in the order of `images`; by default below the study. See `things_image_paths`."""
        return things_image_paths(images, self.root if folder is None else folder)

    def onset_differences(self) -> dict[str, tuple[float, float]]:
        """Return, for each recording, median and largest absolute deviation from it of `table_difference_s`, in s.

        Reads the stimulus channel of all recordings.
        """
        out = {}
        for recording in self.recordings:
            events = self.events(recording)
            off = events.extra["table_difference_s"]
            middle = float(np.median(off)) if len(off) else float("nan")
            out[recording.name] = (middle, float(np.abs(off - middle).max(initial=0.0)))
        return out

    def _events(self, recording: RecordingFile) -> EventTable:
        path = self._events_path(recording)
        rows = [(line, {name.lower(): text for name, text in row.items()}) for line, row in read_tsv(path)]
        for needed in ("onset", "trial_type"):
            if rows and needed not in rows[0][1]:
                raise corrupt_file(path, f"line 1 names no column {needed!r}", "Name its columns, divided by tabs.")
        onset = np.array([seconds(path, line, "onset", row["onset"]) for line, row in rows], dtype=np.float64)
        duration = [seconds(path, line, "duration", row.get("duration", ""), missing=0.0) for line, row in rows]
        low = next((line for (line, _), length in zip(rows, duration, strict=True) if length < 0), None)
        if low is not None:
            raise corrupt_file(path, f"line {low} has a negative duration", "Repair it.")
        if rows and not any(name in rows[0][1] for name in _PATHS):
            rows = self._with_paths(recording, path, rows)
        start, difference = onset, np.full(len(onset), np.nan)
        if self.onsets == "trigger":
            triggers = self._triggers(recording)
            if triggers is not None:
                start, difference = triggers, self._differences(path, onset, triggers)
        columns = image_rows(path, rows)
        extra = {name: columns.pop(name) for name in ("image_set", "trial_type")}
        return EventTable(
            start=start,
            duration=np.array(duration, dtype=np.float64),
            recording=np.full(len(rows), recording.name),
            extra={**extra, "table_difference_s": difference},
            **columns,
        )

    def _triggers(self, recording: RecordingFile) -> np.ndarray | None:
        """Return when triggers of images begin, in s from the first sample; None if there is no stimulus channel."""
        if recording.name in self._sent:
            return self._sent[recording.name]
        raw = open_raw(recording.path)
        found = [name for name in raw.ch_names if name.split("-")[0] == _TRIGGERS]
        if not found:
            logger.warning("%s has no channel %s: onsets are those of its table of events.", recording.name, _TRIGGERS)
            return None
        values = np.rint(raw.get_data(picks=[found[0]], verbose="ERROR")[0]).astype(np.int64)
        shown = values == _SHOWN
        begins = np.flatnonzero(shown & ~np.concatenate([[False], shown[:-1]]))
        self._sent[recording.name] = begins / float(raw.info["sfreq"])
        return self._sent[recording.name]

    def _differences(self, path: Path, onset: np.ndarray, triggers: np.ndarray) -> np.ndarray:
        advice = "Pass onsets='table' to take the onsets of the table."
        if len(onset) != len(triggers):
            reason = f"it has {len(onset)} rows, the channel {_TRIGGERS} {len(triggers)} triggers of images"
            raise corrupt_file(path, reason, advice)
        off = onset - triggers
        if len(off) and np.abs(off).max() > self.max_difference_s:
            row = int(np.abs(off).argmax())
            reason = f"row {row + 1} is {off[row]:.3f} s from its trigger"
            raise corrupt_file(path, reason, advice)
        return off

    def _with_paths(
        self, recording: RecordingFile, path: Path, rows: list[tuple[int, dict[str, str]]]
    ) -> list[tuple[int, dict[str, str]]]:
        """Return rows with the paths of their images, from the table of all images of the subject."""
        source = attributes_path(self.root, recording.subject)
        if source is None:
            wanted = f"sourcedata/sample_attributes_P{_digits(recording.subject)}.csv"
            advice = f"{path.name} names no files of images ({', '.join(_PATHS)}); without that table they are unknown."
            raise missing_data(f"images of {recording.name}", [wanted], [self.root], advice)
        if source not in self._attributes:
            self._attributes[source] = read_attributes(source)
        table, run = self._attributes[source], _digits(bids_entities(recording.path.name).get("run", ""))
        own = [row for _, row in table if (row["session_nr"], row["run_nr"]) == (_digits(recording.session), run)]
        if len(own) != len(rows):
            reason = f"it has {len(rows)} rows, {source.name} {len(own)} of this session and run"
            raise corrupt_file(path, reason, "Both must be of the same version of the data.")
        out = []
        for (line, row), known in zip(rows, own, strict=True):
            number = next((row[name] for name in _NUMBERS if name in row), "")
            same = _number(number) == _number(known["things_image_nr"])
            if row["trial_type"].lower() != known["trial_type"] or (known["trial_type"] != "catch" and not same):
                reason = f"line {line} is {row['trial_type']!r}, image {number!r}"
                other = f"{source.name} has {known['trial_type']!r}, image {known['things_image_nr']!r}"
                raise corrupt_file(path, f"{reason}; {other}", "Both must be of the same version of the data.")
            out.append((line, {**row, "image_path": known["image_path"]}))
        return out


def attributes_path(root: Path, subject: str) -> Path | None:
    """Return the table of all images of a subject, ``sample_attributes_P1.csv``, whatever its case; None if absent."""
    wanted = f"sample_attributes_p{_digits(subject)}.csv"
    folders = (root / "sourcedata", root)
    return next((path for place in folders for path in place.glob("*.csv") if path.name.lower() == wanted), None)


def read_attributes(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a table of all images of a subject, by column in lower case, with the number of their line.

    Raises
    ------
    ValueError
        If a column is missing, or a row is of another length.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise corrupt_file(path, f"it is no table ({error})") from error
    header = [title.strip().lower() for title in lines.pop(0)[1]] if lines else []
    for needed in ("trial_type", "image_path", "things_image_nr", "session_nr", "run_nr"):
        if needed not in header:
            raise corrupt_file(path, f"line 1 names no column {needed!r}")
    out = []
    for line, fields in lines:
        if len(fields) != len(header):
            raise corrupt_file(path, f"line {line} has {len(fields)} fields of {len(header)}", "Repair the line.")
        row = {title: field.strip() for title, field in zip(header, fields, strict=True)}
        row["trial_type"] = row["trial_type"].lower()
        for name in ("session_nr", "run_nr"):
            row[name] = _number(row[name])
        out.append((line, row))
    return out


def image_rows(path: Path, rows: list[tuple[int, dict[str, str]]]) -> dict[str, np.ndarray]:
    """Return the columns of an event table that say what was shown.

    Parameters
    ----------
    path : Path
        Names the table in an error.
    rows : list of (int, dict of str to str)
        Lines and fields, with ``trial_type`` and the file of the image.

    Returns
    -------
    dict of str to ndarray
        ``kind``, ``stimulus``, ``split_group``, ``image_set``, ``trial_type``.
    """
    out: dict[str, list[str]] = {name: [] for name in ("kind", "stimulus", "split_group", "image_set", "trial_type")}
    for line, row in rows:
        said = row["trial_type"].lower()
        if said not in _TRIALS:
            advice = f"Known are {', '.join(_TRIALS)}."
            raise corrupt_file(path, f"line {line} has the trial_type {row['trial_type']!r}", advice)
        kind, image_set = _TRIALS[said]
        file = next(row[name] for name in _PATHS if name in row)
        if kind == "catch":
            name = category = Path(file).name if file.lower() not in _NO_IMAGE else "catch"
        else:
            try:
                name, category = things_image(file)
            except ValueError as error:
                raise corrupt_file(
                    path, f"line {line} has the image {file!r}", "Names are like 'dog_12s.jpg'."
                ) from error
        for column, value in zip(out.values(), (kind, name, category, image_set, said), strict=True):
            column.append(value)
    return {name: np.array(column, dtype=str) for name, column in out.items()}


def _digits(text: str) -> str:
    """Return the number that a text begins or ends in, without leading zeros: "1" of "BIGMEG1", of "01"."""
    found = re.findall(r"\d+", text)
    return str(int(found[-1])) if found else ""


def _number(text: str) -> str:
    """Return a whole number as text, however it was written ("12.0"); "" for none."""
    if text.lower() in _NO_IMAGE:
        return ""
    try:
        return str(int(float(text)))
    except (ValueError, OverflowError):
        return text
