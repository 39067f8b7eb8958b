"""A tiny MEG-MASC: dicts as text in trial_type, capitals and floats in names of sounds, a session that is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.audio import write_wav
from fakes.bids_meeg import meg_raw, save_fif, write_tsv

# Story, sentences of words; the last is a list of words.
STORIES = {
    "lw1": [["Tara", "stood", "still"], ["don't", "move"], ["nan", "lamp", "tree"]],
    "The_Black_Willow": [["A", "willow", "grew"], ["It", "was", "black"]],
}
WORD_S, GAP_S, BEGIN_S = 0.3, 0.5, 1.0
HEADER = ("onset", "duration", "trial_type", "value", "sample")


def annotations(story, begin=BEGIN_S, delay=0.0):
    """Return rows (onset, duration, dict) of one story, in one sound."""
    name = f"stimuli/audio/{story}_0.0.wav"
    base = {"story": story, "story_uid": float(list(STORIES).index(story)), "sound_id": 0.0}
    rows = [(begin, float("nan"), {**base, "kind": "sound", "start": 0.0, "sound": name})]
    time = 0.25
    for number, words in enumerate(STORIES[story]):
        for index, word in enumerate(words):
            condition = "word_list" if story == "lw1" and number == 2 else "sentence"
            rest = {"start": time, "sound": name, "pronounced": 1.0, "speech_rate": float("nan"), "voice": "Ava"}
            sentence = {"word_index": float(index), "sequence_id": float(number), "condition": condition}
            rows.append((begin + time + delay, WORD_S, {**base, "kind": "word", "word": word, **sentence, **rest}))
            for place in range(2):
                start = time + place * WORD_S / 2
                said = {
                    **base,
                    "kind": "phoneme",
                    "phoneme": f"{word[place % len(word)].lower()}_{'BI'[place]}",
                    "sound": name,
                }
                rows.append((begin + start + delay, WORD_S / 2, {**said, "start": start}))
            time += WORD_S
        time += GAP_S
    return rows


def write_events(path, rows):
    """Write an events.tsv as pandas does: fields with double quotes are quoted, and those in them doubled."""
    out = []
    for onset, duration, said in rows:
        text = repr(said)
        text = '"' + text.replace('"', '""') + '"' if '"' in text else text
        length = "n/a" if duration != duration else repr(duration)
        out.append((repr(onset), length, text, "1", str(round(onset * 1000))))
    return write_tsv(path, HEADER, out)


def write_meg_masc(root, *, sounds=True, seconds=8.0, ending="fif"):
    """Write subject 01 with sessions 0 and 1, subject 02 with session 0 only; tasks 0 and 3."""
    root = Path(root)
    for subject, sessions in (("01", "01"), ("02", "0")):
        for session in sessions:
            for task, story in ((0, "lw1"), (3, "The_Black_Willow")):
                base = root / f"sub-{subject}/ses-{session}/meg/sub-{subject}_ses-{session}_task-{task}"
                save_fif(meg_raw(seconds=seconds, maker="kit"), f"{base}_meg.{ending}")
                write_events(f"{base}_events.tsv", annotations(story))
                names = [f"MEG {k:03d}" for k in range(1, 7)]
                rows = [(name, "MEGGRADAXIAL", "T", "bad" if name == "MEG 002" else "good") for name in names]
                write_tsv(f"{base}_channels.tsv", ("name", "type", "units", "status"), rows)
    write_tsv(root / "participants.tsv", ("participant_id",), [("sub-01",), ("sub-02",)])
    if sounds:
        # Files are in lower case and numbered by whole numbers.
        for story in STORIES:
            write_wav(root / f"stimuli/audio/{story.lower()}_0.wav", 0.1 * np.sin(np.arange(5 * 8000)), 8000)
    return root
