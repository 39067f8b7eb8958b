"""Broderick et al.: 19 subjects listen to The Old Man and the Sea; 128 BioSemi electrodes, published at 128 Hz.

Broderick, Anderson, Di Liberto, Crosse & Lalor, Curr. Biol. 28 (2018), doi:10.1016/j.cub.2018.01.080; Dryad
10.5061/dryad.070jc, called Broderick 2019 by Défossez et al. 2023, who published the words' times beside it
(``private/align{run}.json``, by Gentle, with ``audio{run}.wav`` and ``oldman_run{run}.txt``).
"""

# T samples

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from neuroloaders.checks import check_number, corrupt_file, missing_data, soft_import
from neuroloaders.events_table import EventTable
from neuroloaders.studies.mat_files import numbers, read_mat
from neuroloaders.studies.meeg_study import MEEGStudy, RecordingFile
from neuroloaders.studies.speech_events import Heard, speech_table, wav_seconds

__all__ = ["BroderickStudy", "sentence_starts"]

_EEG, _ALIGNED = "Natural Speech/EEG", "private"
_N_ELECTRODES, _MONTAGE = 128, "biosemi128"
_VOLTS = 1e-6  # the files are in microvolts
# A sentence ends in a full stop, question or exclamation mark, perhaps quoted, before a blank and a capital.
_END = re.compile(r"""[.!?]+["'”’)\]]*\s+(?=["'“‘(\[]*[A-Z])""")
_ABBREVIATIONS = {"mr.", "mrs.", "ms.", "dr.", "st."}


def sentence_starts(text: str) -> list[int]:
    """Return where sentences begin, as places of characters: after . ! or ?, a blank, before a capital.

    Examples
    --------
    >>> sentence_starts('He was old. "Who is he?" Mr. Smith asked.')
    [0, 12, 25]
    """
    starts = [0]
    for match in _END.finditer(text):
        word = text[: match.end()].split()[-1].lower()
        if word not in _ABBREVIATIONS:
            starts.append(match.end())
    return starts


class BroderickStudy(MEEGStudy):
    """Natural speech of Broderick et al.: 20 runs a subject.

    Parameters
    ----------
    root : path-like
        The folder with ``Natural Speech`` and ``private``.

    Attributes
    ----------
    name, kind : str
        "Broderick 2019", "eeg".
    recordings : tuple of RecordingFile
        Subjects "1" to "19", runs "01" to "20", as far as they are there.

    Notes
    -----
    The sound of a run begins with its recording. Samples in the files are microvolts and become volts; Défossez et
    al. 2023 multiply by 1e6, which their scaling hides. Mastoids are left out. Electrodes are placed by MNE's
    ``biosemi128``.

    Words that Gentle did not find in the sound are no events, but belong to the text of their sentence. Where each
    word of the JSON file has a key ``sentence``, words with an equal one in a row are a sentence. Otherwise sentences
    are cut by `sentence_starts` from the text in which Gentle's character offsets count: ``transcript`` of the JSON
    file, or ``oldman_run{run}.txt``. Défossez et al. use spaCy, whose sentences depend on its version.
    """

    name = "Broderick 2019"
    kind = "eeg"
    _wanted = f"{_EEG}/Subject*/Subject*_Run*.mat"

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self._runs: dict[str, list[Heard]] = {}

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Return whether there are recordings of this study."""
        return any(root.glob(cls._wanted))

    def _find(self) -> list[RecordingFile]:
        found = []
        for path in self.root.glob(self._wanted):
            match = re.fullmatch(r"Subject(\d+)_Run(\d+)\.mat", path.name)
            if match:
                found.append((int(match[1]), int(match[2]), path))
        return [
            RecordingFile(subject=f"{subject}", run=f"{run:02d}", task="listen", path=path)
            for subject, run, path in sorted(found)
        ]

    def raw(self, recording: RecordingFile | str) -> Any:
        """Return a recording as ``mne.io.RawArray``: 128 electrodes, in V, placed."""
        path = self.named(recording).path
        found = read_mat(path, ("eegData", "fs"))
        samples = numbers(path, found["eegData"], ("T", _N_ELECTRODES), what="eegData")
        sfreq = float(check_number(f"fs of {path.name}", float(numbers(path, found["fs"], (), what="fs")), above=0))
        mne = soft_import("mne", purpose="Reading M/EEG")
        montage = mne.channels.make_standard_montage(_MONTAGE)
        info = mne.create_info(montage.ch_names, sfreq, "eeg", verbose="ERROR")
        return mne.io.RawArray(samples.T * _VOLTS, info, verbose="ERROR").set_montage(montage, verbose="ERROR")

    def sound_path(self, stimulus: str) -> Path:
        """Return where the sound lies that events name."""
        return self.root / stimulus

    def _events(self, recording: RecordingFile) -> EventTable:
        run = str(int(recording.run))
        if run not in self._runs:
            self._runs[run] = self._heard(run)
        return speech_table(recording.name, self._runs[run])

    def _heard(self, run: str) -> list[Heard]:
        path = self.root / _ALIGNED / f"align{run}.json"
        aligned = _json(path)
        words = aligned.get("words") if isinstance(aligned, dict) else None
        if not isinstance(words, list) or not words:
            raise corrupt_file(path, "it has no list 'words'", "It is to be a file that Gentle wrote.")
        sentence = self._sentences(path, run, aligned, words)
        texts: dict[Any, list[str]] = {}
        for word, which in zip(words, sentence, strict=True):
            texts.setdefault(which, []).append(str(_of(path, word, "word")))
        sound, rows, end = f"{_ALIGNED}/audio{run}.wav", [], 0.0
        for place, (word, which) in enumerate(zip(words, sentence, strict=True)):
            if word.get("case") != "success":
                continue
            start, stop = (_second(path, place, word, name) for name in ("start", "end"))
            if stop < start:
                raise corrupt_file(path, f"word {place} ends before it begins, at {start:g} s", "")
            group, end = " ".join(texts[which]), max(end, stop)
            common = {"condition": "sentence", "sound": sound, "group": group}
            said = str(word["word"])
            rows.append(
                Heard(
                    kind="word",
                    start=start,
                    duration=stop - start,
                    text=said,
                    sentence=which,
                    stimulus_start=start,
                    **common,
                )
            )
            for phone in word.get("phones") or ():
                length = _second(path, place, phone, "duration")
                name = str(_of(path, phone, "phone"))
                rows.append(
                    Heard(
                        kind="phoneme",
                        start=start,
                        duration=length,
                        text=name,
                        word=said,
                        stimulus_start=start,
                        **common,
                    )
                )
                start += length
        length = wav_seconds(self.sound_path(sound)) or end
        rows.append(
            Heard(kind="sound", start=0.0, duration=length, text=sound, condition="sentence", stimulus_start=0.0)
        )
        return rows

    def _sentences(self, path: Path, run: str, aligned: dict[str, Any], words: list[dict[str, Any]]) -> list[int]:
        """Return the number of the sentence of each word."""
        if all(isinstance(word, dict) and "sentence" in word for word in words):
            # One number for each run of equal values.
            runs = itertools.groupby(words, key=lambda word: word["sentence"])
            return [number for number, (_, same) in enumerate(runs) for _ in same]
        text = aligned.get("transcript")
        if not isinstance(text, str):
            text = _read(self.root / _ALIGNED / f"oldman_run{run}.txt")
        starts, out, number = sentence_starts(text), [], 0
        for place, word in enumerate(words):
            begin, stop = (_of(path, word, name) for name in ("startOffset", "endOffset"))
            said = str(_of(path, word, "word"))
            whole = isinstance(begin, int) and isinstance(stop, int)
            if not whole:
                raise corrupt_file(path, f"word {place} has {begin!r} and {stop!r} as its offsets", "")
            if text[begin:stop].lower() != said.lower():
                reason = f"word {place} is {said!r}, where the text has {text[begin:stop]!r} at {begin}"
                raise corrupt_file(path, reason, "Put 'transcript' in it, or give each word its 'sentence'.")
            while number + 1 < len(starts) and starts[number + 1] <= begin:
                number += 1
            out.append(number)
        return out


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise corrupt_file(path, f"it is no JSON ({error})") from error


def _read(path: Path) -> str:
    try:
        # Offsets count characters, and a carriage return is one of them.
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        advice = "Défossez et al. 2023 published it beside the study, in private.zip."
        raise missing_data("Broderick 2019", [path.name], [path.parent], advice) from error
    except UnicodeDecodeError as error:
        raise corrupt_file(path, f"it is no text in UTF-8 ({error})") from error


def _of(path: Path, entry: Any, name: str) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise corrupt_file(path, f"{str(entry)[:60]} has no {name!r}", "It is to be a file that Gentle wrote.")
    return entry[name]


def _second(path: Path, place: int, entry: Any, name: str) -> float:
    value = _of(path, entry, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise corrupt_file(path, f"word {place} has {value!r} as {name!r}, which must be in s", "")
    return float(value)
