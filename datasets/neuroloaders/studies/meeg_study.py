"""What every study of M/EEG has: which recordings there are, each as MNE opens it, and what happened in them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import check_option, invalid, missing_data
from neuroloaders.events_table import EventTable, concatenate_events

__all__ = ["MEEGStudy", "RecordingFile", "count_repeats"]


@dataclass(frozen=True, kw_only=True)
class RecordingFile:
    """A recording of a study, where it lies on the disk.

    Parameters
    ----------
    subject, session, run : str
        As for `ContinuousRecording`: what the study calls them; session and run may be empty.
    path : Path
        The file or folder that holds the samples.
    task : str
        What the subject did.

    Attributes
    ----------
    name : str
        As of the `ContinuousRecording` that it becomes.
    """

    subject: str
    session: str = ""
    run: str = ""
    path: Path
    task: str = ""

    @property
    def name(self) -> str:
        """Subject, session and run, joined by "_"."""
        return "_".join(part for part in (self.subject, self.session, self.run) if part)


class MEEGStudy(ABC):
    """A study of M/EEG in the layout that it is published in.

    Parameters
    ----------
    root : path-like
        Its folder.

    Attributes
    ----------
    name : str
        The study.
    kind : str
        "meg" or "eeg": which sensors `raw` keeps.
    recordings : tuple of RecordingFile
        Those that are there, ordered by subject, session and run; each subject's in the order of recording.
    subjects : tuple of str
        Of the recordings.
    settings : str
        What the events depend on, beside the files; empty by default.
    """

    name: str
    kind: str
    settings: str = ""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            raise invalid("root", "be a folder", repr(os.fspath(self.root)), kind=FileNotFoundError)

    @classmethod
    @abstractmethod
    def matches(cls, root: Path) -> bool:
        """Return whether a folder has the layout of this study."""

    @abstractmethod
    def _find(self) -> list[RecordingFile]:
        """Return the recordings, in order."""

    @abstractmethod
    def _events(self, recording: RecordingFile) -> EventTable:
        """Return the events of one recording."""

    @abstractmethod
    def raw(self, recording: RecordingFile | str) -> Any:
        """Return a recording as ``mne.io.Raw``: the sensors of the study's kind, in V or T; bad ones in its info."""

    @abstractmethod
    def sound_path(self, stimulus: str) -> Path:
        """Return where the sound lies that events name; it need not be there."""

    @cached_property
    def recordings(self) -> tuple[RecordingFile, ...]:
        """The recordings that are there."""
        found = tuple(self._find())
        if not found:
            raise missing_data(self.name, [self._wanted], [self.root], "Point at the folder that holds these files.")
        names = [recording.name for recording in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            paths = ", ".join(os.fspath(recording.path) for recording in found if recording.name == twice[0])
            raise invalid("root", "hold each recording once", f"{paths} for {twice[0]!r}", "Move one of them away.")
        return found

    # A pattern of the files that were looked for, for an error.
    _wanted = "recordings"

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of which there are recordings."""
        return tuple(dict.fromkeys(recording.subject for recording in self.recordings))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self.root)!r}: {len(self.recordings)} recordings)"

    def describe(self) -> str:
        """Return what is in the folder, for people."""
        lines = [f"{self.name} in {os.fspath(self.root)}: {len(self.recordings)} recordings, {self.kind.upper()}"]
        for subject in self.subjects:
            own = [recording for recording in self.recordings if recording.subject == subject]
            sessions = sorted({recording.session for recording in own if recording.session})
            where = f" in sessions {', '.join(sessions)}" if sessions else ""
            lines.append(f"  {subject}: {len(own)} recordings{where}")
        return "\n".join(lines)

    def events(self, recording: RecordingFile | str | Iterable[RecordingFile | str] | None = None) -> EventTable:
        """Return what happened.

        Parameters
        ----------
        recording : RecordingFile or str, or several, optional
            Which, by itself or by its name; by default all.

        Returns
        -------
        EventTable
            Times in s from the first sample of each recording. ``repeat`` counts, for each subject and kind, how
            often the stimulus was presented before in the recordings asked for.

        Raises
        ------
        FileNotFoundError, ValueError
            If a file of events is not there or malformed: which, and in which line.
        """
        if recording is None:
            recording = self.recordings
        one = isinstance(recording, (RecordingFile, str))
        chosen = [self.named(item) for item in ([recording] if one else recording)]
        tables = [self._events(item) for item in chosen]
        columns = dict.fromkeys(name for table in tables for name in table.extra)
        # A column that only some recordings have is empty in the others.
        for k, table in enumerate(tables):
            for name in columns:
                if name not in table.extra:
                    tables[k] = tables[k].with_column(name, np.full(len(table), "", dtype=str))
        return count_repeats(concatenate_events(tables), {item.name: item.subject for item in chosen})

    def sounds(self, events: EventTable | None = None) -> dict[str, Path]:
        """Return the sounds that were heard, each once.

        Parameters
        ----------
        events : EventTable, optional
            From `events`; by default all.

        Returns
        -------
        dict of str to Path
            Stimulus, as events name it -> wav file, which need not be there.
        """
        events = self.events() if events is None else events
        return {str(name): self.sound_path(str(name)) for name in dict.fromkeys(events.where(kind="sound").stimulus)}

    def named(self, recording: RecordingFile | str) -> RecordingFile:
        """Return the recording of a name; one that is of this study already, as it is."""
        names = {item.name: item for item in self.recordings}
        name = recording.name if isinstance(recording, RecordingFile) else recording
        if name not in names and len(names) > 8:
            shown = ", ".join(map(repr, list(names)[:4]))
            raise invalid("recording", f"be one of {len(names)} recordings ({shown}, ...)", repr(name))
        return names[check_option("recording", name, names)]


def count_repeats(events: EventTable, subject_of: dict[str, str]) -> EventTable:
    """Return events with ``repeat`` counted for each subject, kind and stimulus, in the order of recordings and times.

    Parameters
    ----------
    events : EventTable
        N events.
    subject_of : dict of str to str
        Recording -> subject; its order is that of the recordings.

    Returns
    -------
    EventTable
        In the order of `events`.
    """
    place = {name: k for k, name in enumerate(subject_of)}
    order = np.lexsort([events.start, np.array([place[str(name)] for name in events.recording], dtype=np.int64)])
    seen: dict[tuple[str, str, str], int] = {}
    repeat = np.zeros(len(events), dtype=np.int64)
    for row in order:
        key = (subject_of[str(events.recording[row])], str(events.kind[row]), str(events.stimulus[row]))
        repeat[row] = seen[key] = seen.get(key, -1) + 1
    return events.with_column("repeat", repeat)
