"""Brennan & Hale: subjects listen to the first chapter of Alice in Wonderland; 60 electrodes at 500 Hz.

Brennan & Hale, PLoS ONE 14 (2019), doi:10.1371/journal.pone.0207741; Deep Blue bg257f92t (first release): FieldTrip
structs in ``S01.mat`` and ``proc/S01.mat``, words in ``AliceChapterOne-EEG.csv``, sounds in ``audio/``.
"""

# T samples, K words of a subject

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import check_number, check_option, corrupt_file, missing_data, soft_import
from neuroloaders.events_table import EventTable
from neuroloaders.studies.mat_files import field, numbers, read_mat, texts
from neuroloaders.studies.meeg_study import MEEGStudy, RecordingFile
from neuroloaders.studies.speech_events import Heard, speech_table, wav_seconds

__all__ = ["BRENNAN_COMPAT", "BRENNAN_EXCLUDED", "BrennanStudy"]

# Those that Défossez et al. 2023 leave out, to keep 33 of 42: words or times of theirs are incomplete.
BRENNAN_EXCLUDED = ("S02", "S24", "S26", "S27", "S30", "S32", "S34", "S35", "S36")

BRENNAN_COMPAT = {
    None: "a word begins at the time 0 of its trial, as FieldTrip defines it, and is found by its number",
    "published": "a word begins at the first sample of its trial, counted from 0, and trials are taken row by row, as"
    " in Défossez et al. 2023",
}

_WORDS, _SOUND = "AliceChapterOne-EEG.csv", "audio/DownTheRabbitHoleFinal_SoundFile{}.wav"
_COLUMNS = ("Word", "Segment", "onset", "offset", "Order", "Sentence")
_MONTAGE = "easycap-M10"
_VOLTS = {"uV": 1e-6, "mV": 1e-3, "V": 1.0}


class BrennanStudy(MEEGStudy):
    """Alice in Wonderland of Brennan & Hale.

    Parameters
    ----------
    root : path-like
        The folder with ``S01.mat``, ``proc``, ``audio`` and ``AliceChapterOne-EEG.csv``.
    exclude : iterable of str
        Subjects to leave out.
    compat : str, optional
        A key of `BRENNAN_COMPAT`.
    max_jitter_s : float
        How far a word may be from where its sound puts it, in s.

    Attributes
    ----------
    name, kind : str
        "Brennan 2019", "eeg".
    recordings : tuple of RecordingFile
        One a subject: "S01".

    Notes
    -----
    ``proc.trl`` has a row for each trial, which is a word: first and last sample (from 1), offset, and what
    ``proc.varnames`` says. In FieldTrip's definition time 0 is at the sample ``first - offset``: a trial with the
    offset -150 begins 0.3 s before its word. Défossez et al. 2023 take the first sample as the word's onset.

    A sound begins so that its words fit best (median over words); it may begin before the recording. If a word is
    further than `max_jitter_s` from where its sound puts it, the subject's file is refused. Channels in
    ``impedence.bads`` and ``rejections.badchans`` are marked as bad. VEOG and audio channels are left out. The files
    hold signals from 0.1 to 200 Hz. Electrodes are placed by MNE's ``easycap-M10``.
    """

    name = "Brennan 2019"
    kind = "eeg"
    _wanted = "S*.mat"

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        exclude: Iterable[str] = BRENNAN_EXCLUDED,
        compat: str | None = None,
        max_jitter_s: float = 0.05,
    ) -> None:
        super().__init__(root)
        self.max_jitter_s = check_number("max_jitter_s", max_jitter_s, above=0)
        self.compat = check_option("compat", compat, BRENNAN_COMPAT)
        self.exclude = frozenset(exclude)
        self.settings = f"compat {compat}"

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Return whether there are the words of the chapter and a recording."""
        return (root / _WORDS).is_file() and any(root.glob(cls._wanted))

    def _find(self) -> list[RecordingFile]:
        found = [path for path in sorted(self.root.glob(self._wanted)) if re.fullmatch(r"S\d+\.mat", path.name)]
        return [
            RecordingFile(subject=path.stem, task="listen", path=path)
            for path in found
            if path.stem not in self.exclude
        ]

    def raw(self, recording: RecordingFile | str) -> Any:
        """Return a recording as ``mne.io.RawArray``: its electrodes, in V, placed, bad ones in its info."""
        recording = self.named(recording)
        path = recording.path
        raw = read_mat(path, ("raw",))["raw"]
        header = field(path, raw, "hdr", where="raw")
        sfreq = float(numbers(path, field(path, header, "Fs", where="raw.hdr"), (), what="raw.hdr.Fs"))
        names = texts(field(path, header, "label", where="raw.hdr"))
        samples = numbers(path, field(path, raw, "trial", where="raw"), (len(names), "T"), what="raw.trial")
        times = numbers(path, field(path, raw, "time", where="raw"), (samples.shape[1],), what="raw.time")
        if sfreq <= 0 or np.abs(np.diff(times) - 1 / sfreq).max(initial=0) > 1e-5:
            raise corrupt_file(path, f"the times in raw.time are not {sfreq:g} Hz apart, as raw.hdr.Fs says")
        unit = texts(header.get("chanunit", "uV"))
        unknown = sorted(set(unit) - set(_VOLTS))
        if unknown:
            raise corrupt_file(path, f"raw.hdr.chanunit has {unknown[0]!r}", f"Known are {', '.join(_VOLTS)}.")
        keep = [k for k, name in enumerate(names) if name.isdigit()]
        if not keep:
            raise corrupt_file(path, f"of its channels {', '.join(names[:5])} none has a number as its name")
        scale = np.array([_VOLTS[unit[k] if len(unit) == len(names) else unit[0]] for k in keep])
        mne = soft_import("mne", purpose="Reading M/EEG")
        info = mne.create_info([names[k] for k in keep], sfreq, "eeg", verbose="ERROR")
        out = mne.io.RawArray(samples[keep] * scale[:, None], info, verbose="ERROR")
        out.set_montage(mne.channels.make_standard_montage(_MONTAGE), on_missing="ignore", verbose="ERROR")
        proc_path, proc = self._proc(recording)
        bads = [
            name
            for struct, key in (("impedence", "bads"), ("rejections", "badchans"))
            for name in texts(
                field(proc_path, field(proc_path, proc, struct, where="proc"), key, where=f"proc.{struct}")
            )
        ]
        out.info["bads"] = [name for name in out.ch_names if name in bads]
        return out

    def sound_path(self, stimulus: str) -> Path:
        """Return where the sound lies that events name."""
        return self.root / stimulus

    def _proc(self, recording: RecordingFile) -> tuple[Path, dict[str, Any]]:
        path = self.root / "proc" / recording.path.name
        return path, read_mat(path, ("proc",))["proc"]

    def _events(self, recording: RecordingFile) -> EventTable:
        path, proc = self._proc(recording)
        onsets, places = self._onsets(path, proc)
        words = [self._words[place] for place in places]
        begins = self._sound_begins(path, onsets, words)
        rows = [
            Heard(
                kind="sound",
                start=begin,
                duration=self._length(segment, words),
                text=_SOUND.format(segment),
                condition="sentence",
                stimulus_start=0.0,
            )
            for segment, begin in begins.items()
        ]
        for start, word in zip(onsets.tolist(), words, strict=True):
            rows.append(
                Heard(
                    kind="word",
                    start=start,
                    duration=word["offset"] - word["onset"],
                    text=word["Word"],
                    sentence=word["Sentence"],
                    condition="sentence",
                    sound=_SOUND.format(word["Segment"]),
                    stimulus_start=word["onset"],
                    group=self._texts[word["Sentence"]],
                )
            )
        return speech_table(recording.name, rows)

    def _onsets(self, path: Path, proc: Any) -> tuple[np.ndarray, list[int]]:
        """Return when the words of a subject begin, in s, and their places in the chapter."""
        trials = numbers(path, np.atleast_2d(field(path, proc, "trl", where="proc")), ("K", "columns"), what="proc.trl")
        titles = texts(field(path, proc, "varnames", where="proc"))
        if len(titles) != trials.shape[1]:
            titles = ["start_sample", "stop_sample", "offset", *titles]
        if len(titles) != trials.shape[1]:
            raise corrupt_file(path, f"proc.trl has {trials.shape[1]} columns, proc.varnames names {len(titles)}")
        sfreq = self._sfreq(path, proc)
        if self.compat == "published" or "Order" not in titles:
            if len(trials) != len(self._words):
                reason = f"proc.trl has {len(trials)} rows, {_WORDS} {len(self._words)}"
                raise corrupt_file(path, reason, "Leave this subject out: exclude=...")
            places = list(range(len(trials)))
        else:
            order = {word["Order"]: place for place, word in enumerate(self._words)}
            wanted = trials[:, titles.index("Order")].tolist()
            unknown = [number for number in wanted if number not in order]
            if unknown or len(set(wanted)) < len(wanted):
                reason = f"proc.trl has the word {unknown[0]:g}" if unknown else "proc.trl has a word twice"
                raise corrupt_file(path, reason, f"Numbers are those in the column Order of {_WORDS}, each once.")
            places = [order[number] for number in wanted]
        if "segment" in titles:
            segments = trials[:, titles.index("segment")]
            wrong = [k for k, place in enumerate(places) if self._words[place]["Segment"] != segments[k]]
            if wrong:
                word = self._words[places[wrong[0]]]
                reason = f"row {wrong[0] + 1} of proc.trl is in segment {segments[wrong[0]]:g}, its word in"
                raise corrupt_file(path, f"{reason} {word['Segment']}", "Leave this subject out: exclude=...")
        if self.compat == "published":
            return trials[:, 0] / sfreq, places
        return (trials[:, 0] - 1 - trials[:, 2]) / sfreq, places

    def _sfreq(self, path: Path, proc: Any) -> float:
        """Return the rate that samples of trials are counted at: that of the recording."""
        own = self.root / path.name
        raw = read_mat(own, ("raw",))["raw"]
        return float(numbers(own, field(own, raw, "fsample", where="raw"), (), what="raw.fsample"))

    def _sound_begins(self, path: Path, onsets: np.ndarray, words: list[dict[str, Any]]) -> dict[int, float]:
        """Return when each sound begins, in s."""
        begins = onsets - np.array([word["onset"] for word in words])
        segments = np.array([word["Segment"] for word in words])
        out = {}
        for segment in sorted(set(segments.tolist())):
            own = np.flatnonzero(segments == segment)
            out[segment] = float(np.median(begins[own]))
            off = np.abs(begins[own] - out[segment])
            if off.max() > self.max_jitter_s:
                word = words[own[off.argmax()]]
                reason = (
                    f"the word {word['Word']!r} ({word['Order']}) is {off.max():.3f} s from where its sound puts it"
                )
                raise corrupt_file(path, reason, "Leave this subject out: exclude=...")
        return out

    def _length(self, segment: int, words: list[dict[str, Any]]) -> float:
        length = wav_seconds(self.sound_path(_SOUND.format(segment)))
        return max(word["offset"] for word in words if word["Segment"] == segment) if length is None else length

    @cached_property
    def _words(self) -> list[dict[str, Any]]:
        """The words of the chapter, in order."""
        path = self.root / _WORDS
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                rows = [(reader.line_num, row) for row in reader]
        except FileNotFoundError as error:
            raise missing_data(self.name, [_WORDS], [self.root], "It is part of the study.") from error
        except (OSError, ValueError, csv.Error) as error:
            raise corrupt_file(path, f"it is no table ({error})") from error
        absent = [name for name in _COLUMNS if not rows or name not in rows[0][1]]
        if absent:
            raise corrupt_file(path, f"it has no column {absent[0]!r}, or no rows")
        out = []
        for line, row in rows:
            try:
                word = {name: int(float(row[name])) for name in ("Segment", "Order", "Sentence")}
                word.update({name: float(row[name]) for name in ("onset", "offset")})
            except (TypeError, ValueError) as error:
                raise corrupt_file(path, f"line {line} lacks a number ({error})", "Repair it.") from error
            if not word["offset"] >= word["onset"] >= 0 or not row["Word"].strip():
                raise corrupt_file(path, f"line {line} has no word, or one that ends before it begins", "Repair it.")
            out.append({**word, "Word": row["Word"].strip()})
        return out

    @cached_property
    def _texts(self) -> dict[int, str]:
        """The text of each sentence, from all of its words: also for subjects who lack some."""
        texts_of: dict[int, list[str]] = {}
        for word in self._words:
            texts_of.setdefault(word["Sentence"], []).append(word["Word"])
        return {number: " ".join(said) for number, said in texts_of.items()}
