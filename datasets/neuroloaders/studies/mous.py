"""MOUS, the auditory half: subjects listen to Dutch sentences and lists of words; 273 CTF gradiometers at 1200 Hz.

Schoffelen et al., Sci. Data 6 (2019), doi:10.1038/s41597-019-0020-y; Radboud DSC_3011020.09_236_v1. What was played is
in logs of Presentation, on another clock than the recording; when words begin in a sound is in TextGrids made by
WebMAUS (``derivatives/phonemes``), which Défossez et al. 2023, doi:10.1038/s42256-023-00714-5, published.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from neuroloaders.checks import check_option, corrupt_file, missing_data, soft_import
from neuroloaders.events_table import EventTable
from neuroloaders.studies.bids_recordings import BIDSStudy, companion, read_tsv, seconds
from neuroloaders.studies.meeg_study import RecordingFile
from neuroloaders.studies.mous_log import ClockMap, LogRow, align_clocks, read_log
from neuroloaders.studies.raw_files import open_raw
from neuroloaders.studies.speech_events import Heard, speech_table, wav_seconds
from neuroloaders.studies.textgrid import Interval, read_textgrid

__all__ = ["MOUS_COMPAT", "MOUS_TWO_RUNS", "MOUSStudy"]

# Auditory subjects with two runs, or an incomplete one, which Défossez et al. 2023 leave out.
MOUS_TWO_RUNS = ("A2011", "A2036", "A2062", "A2063", "A2076", "A2084")

MOUS_COMPAT = {
    None: "a sound begins when the log says that its file was started",
    "published": "a sound begins at the log's 'Audio onset', as in Défossez et al. 2023, and split groups are the"
    " numbers of sentences in stimuli.txt",
}

_LOGS, _AUDIO, _GRIDS, _TEXTS = "sourcedata/meg_task", "stimuli/audio_files", "derivatives/phonemes", "stimuli.txt"
_STEM = "EQ_Ramp_Int2_Int1LPF"
_WORDS, _PHONEMES = "ORT-MAU", "MAU"
_CONTEXTS = {"ZINNEN": "sentence", "WOORDEN": "word_list"}
_FIXATION, _CONTEXT = 20, 10  # triggers
_CHANNEL = "UPPT001"
_PAUSES = ("", "<p:>")
# Some trials miss the last word: texts are recognised by how they begin.
_BEGINNING = 45


class MOUSStudy(BIDSStudy):
    """The auditory subjects of MOUS.

    Parameters
    ----------
    root : path-like
        The folder with ``sub-A*``, ``sourcedata``, ``stimuli`` and ``derivatives``.
    exclude : iterable of str
        Subjects to leave out.
    compat : str, optional
        A key of `MOUS_COMPAT`.

    Attributes
    ----------
    name, kind : str
        "MOUS", "meg".

    Notes
    -----
    The log's "Audio onset" is where speech begins in a file, some 50 ms after its begin: the script of the experiment
    gives both as times in the trial, the file at 0. TextGrids count from the begin of the file, so words are placed
    from there; Défossez et al. 2023 count from "Audio onset", which puts everything later by those milliseconds.

    Logs are aligned by the triggers for fixation (20) and for the titles of blocks (10): those in ``*_events.tsv`` of
    type UPPT001, or, where there are none, on the stimulus channel of the recording. At least 0.9 of them must agree to
    10 ms. A sound is one sentence or list of words: split by ``split_blocks(events, kind="sound", min_block_s=0)`` to
    have the blocks of Défossez et al. Subjects who read (``sub-V*``) and recordings of rest are not listed.
    """

    name = "MOUS"
    _wanted = "sub-A*/meg/*_task-auditory_meg.ds"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        exclude: Iterable[str] = MOUS_TWO_RUNS,
        compat: str | None = None,
    ) -> None:
        super().__init__(root, kind="meg", tasks=("auditory",))
        self.compat = check_option("compat", compat, MOUS_COMPAT)
        self.exclude = frozenset(exclude)
        self.settings = f"compat {compat}"
        self._sentences: dict[str, dict[str, list[Interval]]] = {}

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Return whether there are auditory recordings and logs."""
        heard = next(iter(root.glob("sub-A*/meg/*_task-auditory*_meg.*")), None)
        return heard is not None and (root / _LOGS).is_dir()

    def _find(self) -> list[RecordingFile]:
        return [recording for recording in super()._find() if recording.subject not in self.exclude]

    def _run_name(self, entities: dict[str, str], parts: list[str]) -> str:
        return entities.get("run", "")

    def sound_path(self, stimulus: str) -> Path:
        """Return where the sound lies that events name."""
        return self.root / stimulus

    def clock(self, recording: RecordingFile | str) -> ClockMap:
        """Return what brings times of a recording's log to its own, and how well it fits."""
        recording = self.named(recording)
        return self._clock(recording, self._log_path(recording), read_log(self._log_path(recording)))

    def _events(self, recording: RecordingFile) -> EventTable:
        path = self._log_path(recording)
        log = read_log(path)
        clock = self._clock(recording, path, log)
        rows: list[Heard] = []
        context = ""
        for place, row in enumerate(log):
            if row.kind == "Picture" and row.code in _CONTEXTS:
                context = _CONTEXTS[row.code]
            name = re.fullmatch(r"(?:\d+ )?Start File (\S+)\.wav", row.code)
            if row.kind == "Sound" and name is None:
                raise corrupt_file(path, f"line {row.line} has the sound {row.code!r}, not 'Start File 186.wav'", "")
            if row.kind == "Sound":
                rows += self._heard(clock, path, log[place:], name[1], context)
        return speech_table(recording.name, rows)

    def _heard(self, clock: ClockMap, path: Path, log: list[LogRow], number: str, context: str) -> list[Heard]:
        """Return the sound that the first row of a log starts, and the words and phonemes in it."""
        following = log[1:]
        ends = [k for k, row in enumerate(following) if row.kind == "Sound"]
        own = [log[0], *(following[: ends[0]] if ends else following)]
        onset = next((row for row in own if row.code.endswith("Audio onset")), None)
        stop = next((row for row in own if row.code.endswith("End of file")), None)
        if onset is None or stop is None:
            reason = f"line {log[0].line} starts the sound {number}, but no 'Audio onset' or 'End of file' follows"
            raise corrupt_file(path, reason, "Is the log whole?")
        begin = clock(onset.time if self.compat == "published" else log[0].time)
        sound = f"{_AUDIO}/{_STEM}{number}.wav"
        grid = self._grid(number)
        words = [part for part in grid[_WORDS] if part.text not in _PAUSES]
        text = " ".join(word.text for word in words)
        group = self._number(text) if self.compat == "published" else text.lower()
        length = wav_seconds(self.sound_path(sound)) or stop.time - log[0].time
        common = {"condition": context, "sound": sound, "group": group}
        heard = [Heard(kind="sound", start=begin, duration=length, text=sound, stimulus_start=0.0, **common)]
        for kind, parts in (("word", words), ("phoneme", grid.get(_PHONEMES, []))):
            heard += [
                Heard(
                    kind=kind,
                    start=begin + part.start,
                    duration=part.stop - part.start,
                    text=part.text,
                    stimulus_start=part.start,
                    sentence=log[0].line if kind == "word" else None,
                    **common,
                )
                for part in parts
                if part.text not in _PAUSES
            ]
        return heard

    def _grid(self, number: str) -> dict[str, list[Interval]]:
        if number not in self._sentences:
            path = self.root / _GRIDS / f"{_STEM}{number}.TextGrid"
            grid = read_textgrid(path)
            if _WORDS not in grid:
                raise corrupt_file(path, f"it has no tier {_WORDS!r}, but {', '.join(map(repr, grid)) or 'none'}")
            self._sentences[number] = grid
        return self._sentences[number]

    @cached_property
    def _numbers(self) -> dict[str, str]:
        """Numbers of the texts in stimuli.txt, by how these begin."""
        path = self.root / "stimuli" / _TEXTS
        try:
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        except OSError as error:
            raise missing_data(self.name, [f"stimuli/{_TEXTS}"], [self.root], "compat='published' needs it.") from error
        numbers: dict[str, str] = {}
        for line, text in enumerate(lines, start=1):
            number, _, sentence = text.strip().partition(" ")
            if text.strip() and not (number.isdigit() and sentence):
                raise corrupt_file(path, f"line {line} is no number and sentence: {text[:40]!r}")
            if text.strip():
                numbers[sentence[:_BEGINNING].lower()] = number
        return numbers

    def _number(self, text: str) -> str:
        number = self._numbers.get(text[:_BEGINNING].lower())
        if number is None:
            path = self.root / "stimuli" / _TEXTS
            raise corrupt_file(path, f"it has no text that begins like {text[:_BEGINNING]!r}", "Use compat=None.")
        return number

    def _log_path(self, recording: RecordingFile) -> Path:
        folder = self.root / _LOGS
        found = [
            path
            for path in sorted(folder.glob("*"))
            if path.suffix.lower() == ".log" and recording.subject.lower() in path.name.lower()
        ]
        if not found:
            wanted = f"{_LOGS}/*{recording.subject}*.log"
            raise missing_data(f"log of {recording.name}", [wanted], [self.root], "It says what was played when.")
        if len(found) > 1:
            raise corrupt_file(found[1], f"it is another log of {recording.subject}", "Leave the right one there.")
        return found[0]

    def _clock(self, recording: RecordingFile, path: Path, log: list[LogRow]) -> ClockMap:
        pictures = [row for row in log if row.kind == "Picture"]
        marks = [(row.time, _FIXATION) for row in pictures if row.code.startswith("FIX")]
        marks += [(row.time, _CONTEXT) for row in pictures if row.code in _CONTEXTS]
        times, codes = self._triggers(recording)
        return align_clocks(
            np.array([time for time, _ in marks]),
            np.array([code for _, code in marks], dtype=np.int64),
            times,
            codes,
            path=path,
        )

    def _triggers(self, recording: RecordingFile) -> tuple[np.ndarray, np.ndarray]:
        """Return times in s, and values, of the triggers that logs are aligned by."""
        wanted = {str(_FIXATION), str(_CONTEXT)}
        table = companion(recording.path, "events.tsv", self.root)
        found = []
        if table is not None:
            rows = read_tsv(table, ("onset", "type", "value"))
            own = [(line, row) for line, row in rows if row["type"] == _CHANNEL and row["value"] in wanted]
            found = [(seconds(table, line, "onset", row["onset"]), int(row["value"])) for line, row in own]
        if not found:
            found = _stimulus_channel(recording.path)
        times = np.array([time for time, _ in found], dtype=np.float64)
        codes = np.array([code for _, code in found], dtype=np.int64)
        keep = np.isin(codes, (_FIXATION, _CONTEXT))
        return times[keep], codes[keep]


def _stimulus_channel(path: Path) -> list[tuple[float, int]]:
    mne = soft_import("mne", purpose="Reading M/EEG")
    raw = open_raw(path)
    if _CHANNEL not in raw.ch_names:
        raise corrupt_file(path, f"it has no channel {_CHANNEL!r}, and its events.tsv no trigger of it")
    events = mne.find_events(raw, stim_channel=_CHANNEL, shortest_event=1, verbose="ERROR")
    # Samples count from the start of the system's clock, recordings from their first sample.
    return [((sample - raw.first_samp) / raw.info["sfreq"], int(code)) for sample, _, code in events]
