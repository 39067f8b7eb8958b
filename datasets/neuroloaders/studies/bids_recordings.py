"""Any BIDS folder of M/EEG with tables of events: ``sub-01/ses-1/meg/sub-01_ses-1_task-listen_run-1_meg.fif``.

BIDS, the Brain Imaging Data Structure: Gorgolewski et al., Sci. Data 3 (2016), doi:10.1038/sdata.2016.44; for MEG
Niso et al. 2018, doi:10.1038/sdata.2018.110; for EEG Pernet et al. 2019, doi:10.1038/s41597-019-0104-8. Names are
taken apart here; the recordings themselves are opened by MNE.
"""

# N events

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import check_option, corrupt_file, invalid, missing_data, soft_import
from neuroloaders.events_table import COLUMNS, EventTable
from neuroloaders.studies.meeg_study import MEEGStudy, RecordingFile
from neuroloaders.studies.raw_files import SENSORS, ending_of, open_raw, pick_sensors

__all__ = ["BIDSStudy", "bids_entities", "companion", "read_tsv", "seconds"]

MISSING = "n/a"
# Files that are named like recordings and are none, and recordings of nobody.
_NO_RECORDINGS = {"crosstalk", "calibration"}
_NOBODY = {"emptyroom"}
# What tells the recordings of a session apart, in this order in the name of a run.
_RUN_ENTITIES = ("task", "acq", "run", "proc")
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}


def bids_entities(name: str) -> dict[str, str]:
    """Return what a name says: ``{"sub": "01", "task": "rest", ...}``.

    Examples
    --------
    >>> bids_entities("sub-01_ses-0_task-0_meg.con")
    {'sub': '01', 'ses': '0', 'task': '0'}
    """
    return dict(re.findall(r"(?:^|_)([a-z]+)-([^_.]+)", name))


def read_tsv(path: Path, needed: Iterable[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """Read a table of BIDS.

    Parameters
    ----------
    path : Path
        The file, in UTF-8, with or without a byte order mark; lines may end in CRLF.
    needed : iterable of str
        Columns that must be there.

    Returns
    -------
    list of (int, dict of str to str)
        For each row the number of its line, from 1, and its fields as they stand, without blanks around them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a column is missing, or a row has too many fields or too few: with the line.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            # As pandas writes them: a field with quotes or tabs inside is in double quotes.
            reader = csv.reader(file, delimiter="\t")
            rows = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except FileNotFoundError as error:
        raise missing_data("table of BIDS", [path.name], [path.parent], "It is part of the study.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise corrupt_file(path, f"it is no table ({error})") from error
    header = [title.strip() for title in rows.pop(0)[1]] if rows else []
    absent = [name for name in needed if name not in header]
    if absent:
        raise corrupt_file(path, f"line 1 names no column {absent[0]!r}", "Name its columns, divided by tabs.")
    out = []
    for line, row in rows:
        if len(row) != len(header):
            raise corrupt_file(path, f"line {line} has {len(row)} fields of {len(header)}", "Repair the line.")
        out.append((line, {title: field.strip() for title, field in zip(header, row, strict=True)}))
    return out


def seconds(path: Path, line: int, column: str, text: str, *, missing: float | None = None) -> float:
    """Return a time as a number, or `missing` for "n/a" and the like; else raise ValueError with the line."""
    if missing is not None and text.lower() in (MISSING, "nan", ""):
        return missing
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise corrupt_file(path, f"line {line} has {text!r} in column {column!r}, which must be in s", "Repair it.")
    return value


def companion(path: Path, suffix: str, root: Path) -> Path | None:
    """Return the file of another kind that goes with a recording, by the inheritance principle of BIDS.

    Parameters
    ----------
    path : Path
        The recording.
    suffix : str
        What the name of the other ends in: "events.tsv".
    root : Path
        The study.

    Returns
    -------
    Path or None
        In the recording's folder, or else in the nearest one above it: the file whose entities are all among the
        recording's, and of several the one with most.
    """
    own = bids_entities(path.name)
    for folder in itertools.takewhile(lambda place: place != root.parent, path.parents):
        found = []
        for other in folder.glob(f"*{suffix}"):
            entities = bids_entities(other.name)
            named = other.name == suffix or other.name.endswith(f"_{suffix}")
            if named and other.is_file() and entities.items() <= own.items():
                found.append((len(entities), other))
        if found:
            return max(found)[1]
    return None


class BIDSStudy(MEEGStudy):
    """Recordings of M/EEG in a BIDS folder, and the events beside them.

    Parameters
    ----------
    root : path-like
        The folder with ``sub-*``.
    kind : str, optional
        A key of `SENSORS`; by default the one that there are folders of.
    tasks : iterable of str, optional
        Only these.
    event_kind : str
        Column of the tables of events that says what sort of event it is; "event" where there is none.
    stimulus : str
        Column that says what was shown or heard. Where it is not there or "n/a": ``value``, else the kind.
    montage : str, optional
        Places of electrodes by name, of ``mne.channels.make_standard_montage``; by default those of
        ``*_electrodes.tsv``, or of the recording.

    Notes
    -----
    A duration that is "n/a" becomes 0. All further columns are kept as text, "n/a" as empty text. Channels whose
    status is "bad" in ``*_channels.tsv`` are marked so. Of FIF files in parts the first names them all. Files of
    ``sub-emptyroom``, cross-talk and calibration are no recordings. Of iEEG nothing is read.
    """

    name = "BIDS"
    _wanted = "sub-*/[ses-*/]{meg,eeg}/*_{meg,eeg}.*"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        kind: str | None = None,
        tasks: Iterable[str] | None = None,
        event_kind: str = "trial_type",
        stimulus: str = "stim_file",
        montage: str | None = None,
    ) -> None:
        super().__init__(root)
        if kind is None:
            there = [name for name in SENSORS if _folders(self.root, name)]
            if len(there) > 1:
                raise invalid("kind", f"be given where there are {' and '.join(there)}", "None")
            kind = there[0] if there else "meg"
        self.kind = check_option("kind", kind, SENSORS)
        self.tasks = None if tasks is None else tuple(tasks)
        self.event_kind, self.stimulus, self.montage = event_kind, stimulus, montage
        self.settings = f"kind {self.kind}, events {event_kind}, {stimulus}, montage {montage}"

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Return whether there are a recording of M/EEG and a table of events."""
        return any(
            any(ending_of(path) for path in folder.iterdir()) and any(root.glob("**/*events.tsv"))
            for kind in SENSORS
            for folder in _folders(root, kind)
        )

    def _find(self) -> list[RecordingFile]:
        found = []
        for folder in _folders(self.root, self.kind):
            for path in sorted(folder.iterdir()):
                entities = bids_entities(path.name)
                if self._is_recording(path, entities):
                    parts = [entities[name] for name in _RUN_ENTITIES if name in entities]
                    found.append(
                        RecordingFile(
                            subject=entities["sub"],
                            session=entities.get("ses", ""),
                            run=self._run_name(entities, parts),
                            task=entities.get("task", ""),
                            path=path,
                        )
                    )
        return sorted(found, key=lambda item: (item.subject, item.session, item.run))

    def _is_recording(self, path: Path, entities: dict[str, str]) -> bool:
        ending = ending_of(path)
        if ending is None or not path.name.lower().endswith(f"_{self.kind}{ending}") or "sub" not in entities:
            return False
        if (
            entities["sub"] in _NOBODY
            or entities.get("acq") in _NO_RECORDINGS
            or entities.get("split", "1").strip("0") != "1"
        ):
            return False
        return self.tasks is None or entities.get("task", "") in self.tasks

    def _run_name(self, entities: dict[str, str], parts: list[str]) -> str:
        return "-".join(parts)

    def raw(self, recording: RecordingFile | str) -> Any:
        """Return a recording as ``mne.io.Raw``: the sensors of the study's kind, in V or T; bad ones in its info."""
        path = self.named(recording).path
        raw = pick_sensors(open_raw(path), self.kind, path)
        raw.info["bads"] = sorted({*raw.info["bads"], *self._bads(path, raw.ch_names)}, key=raw.ch_names.index)
        if self.kind == "eeg":
            self._place_electrodes(raw, path)
        return raw

    def sound_path(self, stimulus: str) -> Path:
        """Return where a stimulus lies: in the folder ``stimuli`` of BIDS, or as the path says."""
        inside = self.root / "stimuli" / stimulus
        return inside if inside.exists() else self.root / stimulus

    def _events_path(self, recording: RecordingFile) -> Path:
        path = companion(recording.path, "events.tsv", self.root)
        if path is None:
            wanted = re.sub(rf"_{self.kind}\.[^.]*$", "_events.tsv", recording.path.name)
            raise missing_data(f"events of {recording.name}", [wanted], [recording.path.parent], "BIDS puts it there.")
        return path

    def _events(self, recording: RecordingFile) -> EventTable:
        path = self._events_path(recording)
        rows = read_tsv(path, ("onset",))
        start = [seconds(path, line, "onset", row["onset"]) for line, row in rows]
        duration = [seconds(path, line, "duration", row.get("duration", ""), missing=0.0) for line, row in rows]
        low = next((line for (line, _), length in zip(rows, duration, strict=True) if length < 0), None)
        if low is not None:
            raise corrupt_file(path, f"line {low} has a negative duration", "Repair it.")
        kinds, stimuli = [], []
        for _, row in rows:
            values = [_given(row.get(name, "")) for name in (self.event_kind, self.stimulus, "value")]
            kinds.append(values[0] or "event")
            stimuli.append(values[1] or values[2] or values[0])
        used = {"onset", "duration", self.event_kind, self.stimulus}
        titles = [title for title in (rows[0][1] if rows else ()) if title not in used]
        # A column that is called like one of the table's own, or has a colon in its name, keeps its text under another.
        extra = {
            (f"bids_{title}" if title in COLUMNS else title.replace(":", "_")): np.array(
                [_given(row[title]) for _, row in rows], dtype=str
            )
            for title in titles
        }
        return EventTable(
            start=np.array(start, dtype=np.float64),
            duration=np.array(duration, dtype=np.float64),
            recording=np.full(len(rows), recording.name),
            kind=np.array(kinds, dtype=str),
            stimulus=np.array(stimuli, dtype=str),
            extra=extra,
        )

    def _bads(self, path: Path, ch_names: list[str]) -> list[str]:
        table = companion(path, "channels.tsv", self.root)
        if table is None:
            return []
        rows = read_tsv(table, ("name",))
        return [row["name"] for _, row in rows if row.get("status", "").lower() == "bad" and row["name"] in ch_names]

    def _place_electrodes(self, raw: Any, path: Path) -> None:
        mne = soft_import("mne", purpose="Reading M/EEG")
        if self.montage is not None:
            try:
                montage = mne.channels.make_standard_montage(self.montage)
            except ValueError as error:
                advice = "mne.channels.get_builtin_montages() lists them."
                raise invalid("montage", "be one that MNE knows", repr(self.montage), advice) from error
            raw.set_montage(montage, on_missing="ignore", verbose="ERROR")
            return
        table = companion(path, "electrodes.tsv", self.root)
        if table is None:
            return
        unit = _METRES.get(self._electrode_unit(path), 1.0)
        places = {}
        for line, row in read_tsv(table, ("name", "x", "y", "z")):
            where = [seconds(table, line, axis, row[axis], missing=math.nan) * unit for axis in "xyz"]
            if row["name"] in raw.ch_names and np.isfinite(where).all():
                places[row["name"]] = np.array(where)
        if places:
            montage = mne.channels.make_dig_montage(places, coord_frame="head")
            raw.set_montage(montage, on_missing="ignore", verbose="ERROR")

    def _electrode_unit(self, path: Path) -> str:
        system = companion(path, "coordsystem.json", self.root)
        if system is None:
            return "m"
        try:
            return str(json.loads(system.read_text(encoding="utf-8-sig")).get("EEGCoordinateUnits", "m"))
        except (OSError, ValueError, AttributeError) as error:
            raise corrupt_file(system, f"it is no JSON ({error})", "Repair it.") from error


def _folders(root: Path, kind: str) -> list[Path]:
    """Return the folders of recordings of a kind: of subjects with sessions, and without."""
    return sorted(
        folder
        for pattern in (f"sub-*/{kind}", f"sub-*/ses-*/{kind}")
        for folder in root.glob(pattern)
        if folder.is_dir()
    )


def _given(text: str) -> str:
    return "" if text.lower() == MISSING else text
