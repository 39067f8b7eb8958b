"""MEG-MASC: 27 subjects listen to four stories, twice; 208 KIT gradiometers at 1000 Hz.

Gwilliams et al., Sci. Data 10 (2023), doi:10.1038/s41597-023-02752-5; OSF ag3kj, h2tzn, u5327 and dr4wy, unpacked into
one folder. A BIDS folder whose tables of events have a Python dict in each field of ``trial_type``: kinds "sound",
"word" and "phoneme".
"""

from __future__ import annotations

import ast
import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from neuroloaders.checks import corrupt_file
from neuroloaders.events_table import EventTable
from neuroloaders.studies.bids_recordings import BIDSStudy, read_tsv, seconds
from neuroloaders.studies.meeg_study import RecordingFile
from neuroloaders.studies.speech_events import Heard, speech_table, wav_seconds

__all__ = ["MEGMASCStudy", "parse_annotation"]

_AUDIO = "stimuli/audio"
_NOT_NUMBERS = {"nan": math.nan, "inf": math.inf}
_KINDS = ("sound", "word", "phoneme")


class _Names(ast.NodeTransformer):
    """Turn the names nan and inf, which repr gives for such numbers, into numbers."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(_NOT_NUMBERS[node.id]), node) if node.id in _NOT_NUMBERS else node


def parse_annotation(text: str) -> dict[str, Any]:
    """Read the text of a dict of numbers and text, without running it.

    Parameters
    ----------
    text : str
        As ``repr`` gives it; ``nan`` and ``inf`` may be among the numbers.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> parse_annotation("{'kind': 'word', 'word': 'nan', 'pronounced': nan}")
    {'kind': 'word', 'word': 'nan', 'pronounced': nan}
    """
    try:
        value = ast.literal_eval(_Names().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text[:60]!r} is no dict of numbers and text") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{text[:60]!r} is no dict with text as keys")
    return value


class MEGMASCStudy(BIDSStudy):
    """MEG-MASC, as it is published.

    Parameters
    ----------
    root : path-like
        The folder with ``sub-*`` and ``stimuli``.

    Attributes
    ----------
    name, kind : str
        "MEG-MASC", "meg".
    recordings : tuple of RecordingFile
        Sessions "0" and "1" of each subject, as far as they are there, and runs "0" to "3", the stories.

    Notes
    -----
    Sounds are named by their files in lower case, ``stimuli/audio/lw1_0.wav``: the tables have capitals, and number
    sounds by floats (``LW1_0.0.wav``), where files have neither. A sound lasts as long as its file; if there is none,
    to the end of the last word or phoneme in it. A sentence is a run of words of one sound with one ``sequence_id``; a
    word with ``word_index`` 0 begins another. Lists of words are sentences too: their ``condition`` says so.
    """

    name = "MEG-MASC"
    _wanted = "sub-*/ses-*/meg/*_task-*_meg.con"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root, kind="meg")

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Return whether a table of events has a dict with a story in its first rows."""
        table = next(iter(sorted(root.glob("sub-*/ses-*/meg/*_events.tsv"))), None)
        if table is None:
            return False
        with open(table, encoding="utf-8", errors="replace") as file:
            head = file.read(2000)
        return "'story'" in head and "'kind'" in head

    def sound_path(self, stimulus: str) -> Path:
        """Return where the sound lies that events name."""
        return self._audio.get(Path(stimulus).name, self.root / stimulus)

    @cached_property
    def _audio(self) -> dict[str, Path]:
        """Files of sounds by their names in lower case."""
        return {path.name.lower(): path for path in sorted((self.root / _AUDIO).glob("*")) if path.is_file()}

    def _events(self, recording: RecordingFile) -> EventTable:
        path = self._events_path(recording)
        rows, sequence = [], 0
        last: tuple[Any, ...] | None = None
        for line, row in read_tsv(path, ("onset", "duration", "trial_type")):
            start = seconds(path, line, "onset", row["onset"])
            duration = seconds(path, line, "duration", row["duration"], missing=0.0)
            try:
                said = parse_annotation(row["trial_type"])
            except ValueError as error:
                raise corrupt_file(path, f"line {line}, trial_type: {error}", "Repair it.") from error
            kind = said.get("kind")
            if kind not in _KINDS or duration < 0:
                reason = f"line {line} has the kind {kind!r} and lasts {duration:g} s"
                raise corrupt_file(path, reason, f"Kinds are {', '.join(_KINDS)}, and durations are not negative.")
            text = said.get(kind)
            if not isinstance(text, str) or not text:
                raise corrupt_file(path, f"line {line} says no {kind!r}, but {text!r}", "Repair it.")
            sound = self._sound_name(text if kind == "sound" else _text(said.get("sound")))
            if kind == "word":
                if "sequence_id" not in said:
                    raise corrupt_file(path, f"line {line}: the word has no 'sequence_id'", "Without it no sentences.")
                here = (sound, repr(said["sequence_id"]))
                if here != last or said.get("word_index") == 0:
                    sequence += 1
                last = here
            rows.append(
                Heard(
                    kind=kind,
                    start=start,
                    duration=duration,
                    text=sound if kind == "sound" else text,
                    sentence=sequence if kind == "word" else None,
                    condition=_text(said.get("condition")),
                    story=_text(said.get("story")).lower(),
                    sound=sound,
                    stimulus_start=_number(said.get("start")),
                )
            )
        return speech_table(recording.name, [self._lasting(row, rows) for row in rows])

    def _sound_name(self, name: str) -> str:
        """Return what a sound is called here."""
        if not name:
            return ""
        plain = Path(name.replace("\\", "/")).name.lower()
        stem, _, ending = plain.rpartition(".")
        whole, _, fraction = stem.rpartition(".")
        # 'lw1_0.0.wav' is the sound 0.0 of a table of floats.
        if whole and fraction == "0" and plain not in self._audio:
            plain = f"{whole}.{ending}"
        return f"{_AUDIO}/{plain}"

    def _lasting(self, row: Heard, rows: list[Heard]) -> Heard:
        if row.kind != "sound":
            return row
        length = wav_seconds(self.sound_path(row.text))
        if length is None:
            ends = [
                other.start + other.duration for other in rows if other.sound == row.sound and other.kind != "sound"
            ]
            length = max([*ends, row.start + row.duration]) - row.start
        start = 0.0 if math.isnan(row.stimulus_start) else row.stimulus_start
        values = {name: getattr(row, name) for name in ("kind", "start", "text", "condition", "story", "sound")}
        return Heard(**values, duration=max(length - start, 0.0), stimulus_start=start)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
