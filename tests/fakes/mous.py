"""A tiny MOUS: CTF-like recordings, logs of Presentation (CRLF, 0.0001 s), TextGrids, a clock that drifts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.audio import write_wav
from fakes.bids_meeg import meg_raw, save_fif, write_tsv

STEM = "EQ_Ramp_Int2_Int1LPF"
# Number of the file: (number in stimuli.txt, words, times of words in the file in s).
SOUNDS = {
    "186": (61, ["Toen", "de"], [(0.05, 0.31), (0.31, 0.41)]),
    "045": (7, ["Het", "café", "sluit"], [(0.06, 0.2), (0.2, 0.5), (0.5, 0.9)]),
    "704": (300, ["boom", "de", "op"], [(0.04, 0.3), (0.3, 0.4), (0.4, 0.7)]),
}
FILE_S, ONSET_S = 1.0, 0.046  # length of each file, and where speech begins in it
COLUMNS = "Subject\tTrial\tEvent Type\tCode\tTime\tTTime\tUncertainty\tDuration\tUncertainty\tReqTime\tReqDur"
SECOND = (
    "Event Type\tCode\tType\tResponse\tRT\tRT Uncertainty\tTime\tUncertainty\tDuration\tUncertainty\tReqTime\tReqDur"
)


def textgrid(words, spans, *, length=FILE_S, short=False):
    """Return a TextGrid of tiers ORT-MAU, KAN-MAU and MAU; a phoneme a word is its first letter."""
    tiers = {
        "ORT-MAU": [("", 0.0, spans[0][0]), *((word, *span) for word, span in zip(words, spans, strict=True))],
        "KAN-MAU": [("", 0.0, spans[0][0]), *((" ".join(w), *span) for w, span in zip(words, spans, strict=True))],
        "MAU": [("<p:>", 0.0, spans[0][0]), *((w[0].lower(), *span) for w, span in zip(words, spans, strict=True))],
    }
    tiers = {name: [*rows, ("", rows[-1][2], length)] for name, rows in tiers.items()}
    if short:
        lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", f"{length}", "<exists>", "3"]
        for name, rows in tiers.items():
            lines += ['"IntervalTier"', f'"{name}"', "0", f"{length}", f"{len(rows)}"]
            lines += [part for text, start, stop in rows for part in (f"{start}", f"{stop}", f'"{text}"')]
        return "\n".join(lines) + "\n"
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 ", f"xmax = {length:f}"]
    lines += ["tiers? <exists> ", f"size = {len(tiers)}", "item []:"]
    for number, (name, rows) in enumerate(tiers.items(), start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {length:f}", f"        intervals: size = {len(rows)}"]
        for place, (text, start, stop) in enumerate(rows, start=1):
            lines += [f"        intervals [{place}]:", f"            xmin = {start:f}", f"            xmax = {stop:f}"]
            lines += [f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def session(seed=0, n_trials=14):
    """Return the events of a log (kind, code, time in s) and the sounds played: (number, context, begin in s)."""
    rng = np.random.default_rng(seed)
    rows, played, time = [("Picture", "PULSE MODE 1", -1.2)], [], 0.3
    numbers = list(SOUNDS)
    for trial in range(n_trials):
        context = "WOORDEN" if trial % 6 >= 3 else "ZINNEN"
        if trial % 3 == 0:
            rows.append(("Picture", context, time))
            time += 0.3
        wait = float(np.round(rng.uniform(0.32, 0.42), 4))
        rows += [("Picture", "blank", time), ("Picture", f"FIX {round(wait * 1e4)}", time + 0.2)]
        time += 0.2 + wait
        number = numbers[trial % 3]
        rows += [
            ("Sound", f"14 Start File {number}.wav", time),
            ("Nothing", "1 Audio onset", time + ONSET_S),
            ("Nothing", "2 target", time + 0.5),
            ("Nothing", "15 End of file", time + FILE_S),
        ]
        played.append((number, context, time))
        time += FILE_S + 0.1
        rows.append(("Response", "11", time))
    return rows, played


def log_text(subject, rows, *, copies=1):
    """Return the text of a log: CRLF, a header, two tables, and a line without a time."""
    table = [f"{subject}\t{k}\t{kind}\t{code}\t{round(time * 1e4)}\t0\t2\t\t\t0\t\tother\t0" for k, (kind, code, time)
             in enumerate(rows, start=1)]  # fmt: skip
    again = [f"{kind}\t{code}\tother\t\t\t\t{round(time * 1e4)}\t2\t\t\t0" for kind, code, time in rows]
    lines = ["Scenario - 5MEG", "Logfile written - 01/01/2013 10:00:00", "", COLUMNS + "\tStim Type\tPair Index", ""]
    lines += [*table, f"{subject}\t{len(rows)}\tQuit", "", "", SECOND, "", *again, ""]
    return "\r\n".join(lines * copies)


def write_mous(
    root, *, subjects=("A2002", "A2003"), drift=40e-6, offset=3.7, triggers="table", jitter=0.0, seconds=None
):
    """Write recordings, logs, stimuli and TextGrids; return {subject: sounds played, with begins in the recording}.

    `drift` and `offset` bring the clock of the log to that of the recording. Triggers are in the events.tsv ("table")
    or on the stimulus channel ("channel").
    """
    root = Path(root)
    out = {}
    for seed, subject in enumerate(subjects):
        rows, played = session(seed)
        rng = np.random.default_rng(seed)
        marks = [
            (time * (1 + drift) + offset + jitter * rng.standard_normal(), 20 if code.startswith("FIX") else 10)
            for kind, code, time in rows
            if code.startswith("FIX") or code in ("ZINNEN", "WOORDEN")
        ]
        del marks[4]  # one is lost
        base = root / f"sub-{subject}/meg/sub-{subject}"
        length = seconds or marks[-1][0] + 3.0
        on_channel = marks if triggers == "channel" else ()
        raw = meg_raw(n_channels=4, seconds=length, sfreq=600.0, maker="ctf", triggers=on_channel)
        save_fif(raw, f"{base}_task-auditory_meg.fif")
        save_fif(meg_raw(n_channels=4, seconds=1.0, sfreq=600.0, maker="ctf"), f"{base}_task-rest_meg.fif")
        table = [("0.0", "1.0", "0", "trial", "n/a"), ("0.1", "n/a", "60", "UPPT001", "5")]
        if triggers == "table":
            table += [(f"{time:.6f}", "n/a", f"{round(time * 600)}", "UPPT001", f"{code}") for time, code in marks]
        header = ("onset", "duration", "sample", "type", "value")
        write_tsv(f"{base}_task-auditory_events.tsv", header, table)
        path = root / f"sourcedata/meg_task/{subject}-MEG-MOUS-Aud.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(log_text(subject, rows).encode("cp1252"))
        out[subject] = [(number, context, time * (1 + drift) + offset) for number, context, time in played]
    for number, (_, words, spans) in SOUNDS.items():
        wave = 0.1 * np.sin(np.arange(round(FILE_S * 8000)))
        write_wav(root / f"stimuli/audio_files/{STEM}{number}.wav", np.stack([wave, wave], axis=1), 8000)
        grid = root / f"derivatives/phonemes/{STEM}{number}.TextGrid"
        grid.parent.mkdir(parents=True, exist_ok=True)
        grid.write_text(textgrid(words, spans, short=number == "045"), encoding="utf-8")
    lines = [f"{uid} {' '.join(words)}" for uid, words, _ in SOUNDS.values()]
    (root / "stimuli/stimuli.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    return out
