"""A tiny Natural Speech of Broderick et al.: MATLAB files at 128 Hz in microvolts, words by Gentle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from fakes.audio import write_wav
from fakes.bids_meeg import tones

TEXT = 'He was an old man. "Who fished?" The boy knew.'
SENTENCES = [["He", "was", "an", "old", "man"], ["Who", "fished"], ["The", "boy", "knew"]]
LOST = 2  # the number of the word that Gentle did not find
WORD_S = 0.4


def aligned(text=TEXT, begin=0.5):
    """Return what Gentle writes: words with places in the text and in the sound, phones with lengths."""
    words, place, time = [], 0, begin
    for number, said in enumerate(word for sentence in SENTENCES for word in sentence):
        place = text.index(said, place)
        entry = {"word": said, "startOffset": place, "endOffset": place + len(said), "case": "success"}
        place += len(said)
        if number == LOST:
            words.append({**entry, "case": "not-found-in-audio"})
        else:
            phones = [{"phone": f"{said[0].lower()}_B", "duration": 0.1}, {"phone": "x_E", "duration": 0.2}]
            times = {"start": time, "end": time + 0.3, "alignedWord": said.lower(), "phones": phones}
            words.append({**entry, **times})
        time += WORD_S
    return {"transcript": text, "words": words}


def write_broderick(root, *, subjects=(1, 2, 10), runs=(1, 2), seconds=6.0, transcript=True):
    """Write recordings (subject 2 lacks the second run), alignments, texts and sounds."""
    from scipy.io import savemat

    root = Path(root)
    times = np.arange(round(seconds * 128)) / 128
    for subject in subjects:
        for run in runs[:1] if subject == 2 else runs:
            path = root / f"Natural Speech/EEG/Subject{subject}/Subject{subject}_Run{run}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            eeg = tones(4, times, 10.0)
            eeg = np.tile(eeg, (32, 1)).T + subject  # (T, 128) microvolts
            savemat(path, {"eegData": eeg, "mastoids": np.zeros((len(times), 2)), "fs": np.array([[128.0]])})
    for run in runs:
        (root / "private").mkdir(exist_ok=True)
        said = aligned()
        if not transcript:
            del said["transcript"]
        (root / f"private/align{run}.json").write_text(json.dumps(said), encoding="utf-8")
        (root / f"private/oldman_run{run}.txt").write_text(TEXT, encoding="utf-8")
        write_wav(root / f"private/audio{run}.wav", 0.1 * np.sin(np.arange(round(5.5 * 8000))), 8000)
    return root
