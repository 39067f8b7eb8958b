"""What was heard, as rows of one table: sounds, sentences, words, phonemes; the same columns for every study of speech.

    kind      stimulus                          split_group
    sound     the sound's file                  the same
    sentence  its words, joined by blanks       the same
    word      the word                          its sentence
    phoneme   the phoneme                       its sentence

Sentences are made here from runs of words, so that every study has blocks to split by.
"""

# N events

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroloaders.events_table import EventTable

__all__ = ["SPEECH_COLUMNS", "Heard", "speech_table", "wav_seconds"]

SPEECH_COLUMNS = {
    "word": "the word, or the one that a phoneme is part of",
    "phoneme": "the phoneme",
    "condition": "in what: a sentence, a list of words, ... as the study calls it",
    "story": "the story",
    "sound": "the sound in which it was heard",
    "stimulus_start": "where in the sound it begins, in s; NaN where that is not known",
}


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A stretch of what was heard.

    Parameters
    ----------
    kind : str
        "sound", "word" or "phoneme".
    start, duration : float
        In s, on the clock of the recording.
    text : str
        The word or phoneme; the name of a sound's file.
    sentence : object
        Tells sentences apart: neighbouring words with an equal one are one sentence. None for what is in no sentence.
    word, condition, story, sound : str
        See `SPEECH_COLUMNS`.
    stimulus_start : float
        Likewise.
    group : str
        What stays on one side of a split, where it is not the words of the sentence.
    """

    kind: str
    start: float
    duration: float
    text: str
    sentence: object = None
    word: str = ""
    condition: str = ""
    story: str = ""
    sound: str = ""
    stimulus_start: float = float("nan")
    group: str = ""


def speech_table(recording: str, rows: Sequence[Heard]) -> EventTable:
    """Return events in order of time, with sentences, and each word and phoneme in the split group of its sentence.

    Parameters
    ----------
    recording : str
        Name of the recording.
    rows : sequence of Heard
        What was heard in it, in any order.

    Returns
    -------
    EventTable
        With the extra columns of `SPEECH_COLUMNS`. A sentence lasts from the start of its first word to the end of
        its last. A phoneme belongs to the sentence of the last word that began, if it is one of the same sound.
    """
    words = sorted((row for row in rows if row.kind == "word"), key=lambda row: row.start)
    sentences: list[list[Heard]] = []
    for word in words:
        if word.sentence is None:
            continue
        if sentences and sentences[-1][-1].sentence == word.sentence:
            sentences[-1].append(word)
        else:
            sentences.append([word])
    out: list[tuple[Heard, str, str]] = []
    group_of = {}
    for parts in sentences:
        text = " ".join(word.text for word in parts)
        group = parts[0].group or text
        group_of.update((id(word), group) for word in parts)
        first, stop = parts[0], max(word.start + word.duration for word in parts)
        whole = Heard(
            kind="sentence",
            start=first.start,
            duration=stop - first.start,
            text=text,
            condition=first.condition,
            story=first.story,
            sound=first.sound,
            stimulus_start=first.stimulus_start,
        )
        out.append((whole, group, ""))
    begins = np.array([word.start for word in words])
    for row in rows:
        if row.kind == "word":
            out.append((row, group_of.get(id(row), row.group or row.text), row.text))
        elif row.kind == "phoneme":
            # A phoneme that begins with its word may be earlier by what rounding leaves.
            last = int(np.searchsorted(begins, row.start + 1e-6, side="right")) - 1
            near = words[last] if last >= 0 and words[last].sound == row.sound else None
            group = row.group or (group_of.get(id(near), near.text) if near else row.text)
            out.append((row, group, row.word or (near.text if near else "")))
        else:
            out.append((row, row.group or row.text, ""))
    # A sound comes before the sentence that begins with it, and that before its first word.
    rank = {"sound": 0, "sentence": 1, "word": 2, "phoneme": 3}
    out.sort(key=lambda item: (item[0].start, rank.get(item[0].kind, 4)))
    extra = {
        "word": [word for _, _, word in out],
        "phoneme": [row.text if row.kind == "phoneme" else "" for row, *_ in out],
        "condition": [row.condition for row, *_ in out],
        "story": [row.story for row, *_ in out],
        "sound": [row.text if row.kind == "sound" else row.sound for row, *_ in out],
    }
    return EventTable(
        start=np.array([row.start for row, *_ in out], dtype=np.float64),
        duration=np.array([row.duration for row, *_ in out], dtype=np.float64),
        recording=np.full(len(out), recording),
        kind=np.array([row.kind for row, *_ in out], dtype=str),
        stimulus=np.array([row.text for row, *_ in out], dtype=str),
        split_group=np.array([group for _, group, _ in out], dtype=str),
        extra={
            **{name: np.array(column, dtype=str) for name, column in extra.items()},
            "stimulus_start": np.array([row.stimulus_start for row, *_ in out], dtype=np.float64),
        },
    )


def wav_seconds(path: Path) -> float | None:
    """Return the length of a wav file in s, from its header; None if it is not there or of an unknown kind."""
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes() / file.getframerate()
    except FileNotFoundError:
        return None
    except (wave.Error, EOFError):
        # Floating-point wav files: Python's own reader knows PCM only.
        return _scipy_seconds(path)


def _scipy_seconds(path: Path) -> float | None:
    import warnings

    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            rate, data = wavfile.read(path)
    except (ValueError, EOFError, OSError):
        return None
    return len(data) / rate
