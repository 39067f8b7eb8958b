"""A tiny Alice of Brennan & Hale: FieldTrip structs in MATLAB files, a table of words, trials that begin early."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.audio import write_wav
from fakes.bids_meeg import tones

# (word, segment, sentence), all of the chapter
WORDS = [("Alice", 1, 1), ("was", 1, 1), ("tired", 1, 1), ("So", 1, 2), ("she", 1, 2), ("slept", 1, 2),
         ("The", 2, 3), ("rabbit", 2, 3), ("ran", 2, 3)]  # fmt: skip
BEGINS = {1: -0.1, 2: 4.0}  # of the sounds, in s of the recording: the first before it
OFFSET = -150  # samples from a word back to the begin of its trial
SFREQ = 500.0
HEADER = "Word,Segment,onset,offset,Order,LogFreq,Position,Sentence,IsLexical"


def times():
    """Return [onset, offset] in the sound, in s, of each word."""
    out, last, time = [], 0, 0.0
    for _, segment, _ in WORDS:
        time = 0.6 if segment != last else time + 0.5
        last = segment
        out.append((time, time + 0.4))
    return out


def write_brennan(root, *, subjects=("S01", "S03"), missing=None, seconds=8.0, offset=OFFSET):
    """Write recordings, trials, words and sounds; `missing` is {subject: places of words that it lacks}.

    S01 has 61 channels and no audio channel, others 62.
    """
    from scipy.io import savemat

    root = Path(root)
    (root / "proc").mkdir(parents=True, exist_ok=True)
    rows = [
        f"{word},{segment},{onset:.3f},{stop:.3f},{order},8.1,{order},{sentence},1"
        for order, ((word, segment, sentence), (onset, stop)) in enumerate(zip(WORDS, times(), strict=True), start=1)
    ]
    (root / "AliceChapterOne-EEG.csv").write_text("\r\n".join([HEADER, *rows]) + "\r\n", encoding="utf-8")
    eeg = [str(k) for k in range(1, 62) if k != 29]
    time = np.arange(round(seconds * SFREQ)) / SFREQ
    for subject in subjects:
        labels = [*eeg, "VEOG"] if subject == "S01" else [*eeg, "VEOG", "Aux5"]
        n, t = len(labels), len(time)
        data = np.tile(tones(4, time, 10.0), (16, 1))[:n]
        header = {
            "Fs": SFREQ, "nChans": n, "nSamples": t, "nSamplesPre": 0, "nTrials": 1,
            "label": np.array(labels, dtype=object)[:, None],
            "chantype": np.array(["eeg"] * n, dtype=object)[:, None],
            "chanunit": np.array(["uV"] * n, dtype=object)[:, None],
        }  # fmt: skip
        # FieldTrip keeps time and trial in cells of 1 x 1.
        time_cell, trial_cell = np.empty((1, 1), object), np.empty((1, 1), object)
        time_cell[0, 0], trial_cell[0, 0] = time[None], data
        raw = {"hdr": header, "fsample": SFREQ, "label": header["label"], "time": time_cell, "trial": trial_cell,
               "sampleinfo": np.array([[1, t]])}  # fmt: skip
        savemat(root / f"{subject}.mat", {"raw": raw})
        keep = [k for k in range(len(WORDS)) if k not in (missing or {}).get(subject, ())]
        trials = []
        for k in keep:
            _, segment, _ = WORDS[k]
            # MATLAB counts samples from 1.
            first = round((BEGINS[segment] + times()[k][0]) * SFREQ) + 1 + offset
            trials.append((first, first + 650, offset, segment, times()[k][0], k + 1))
        proc = {
            "trl": np.array(trials, dtype=float),
            "varnames": np.array(["segment", "tmin", "Order"], dtype=object)[None],
            "tot_trials": len(trials), "tot_chans": 61, "subject": subject,
            "impedence": {"bads": np.array(["5", "41"], dtype=object)[None] if subject == "S03" else "7"},
            "rejections": {"badchans": np.empty((0, 0), object)},
        }  # fmt: skip
        savemat(root / f"proc/{subject}.mat", {"proc": proc})
    for segment in BEGINS:
        path = root / f"audio/DownTheRabbitHoleFinal_SoundFile{segment}.wav"
        write_wav(path, 0.1 * np.sin(np.arange(round(3.5 * 8000))), 8000)
    return root
