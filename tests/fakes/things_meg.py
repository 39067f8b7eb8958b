"""A tiny THINGS-MEG: runs in FIF under the names of BIDS, triggers, tables that are late, and preprocessed epochs.

Each image has a response of its own: a bump of 20 ms, 0.1 s after the trigger, with the pattern `pattern(image)` over
sensors. MNE cannot write CTF recordings, so the runs are FIF files with the sensors of a CTF.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

import numpy as np
from fakes.bids_meeg import meg_raw, save_fif, write_tsv

CATEGORIES, EXEMPLARS, TEST = 7, 3, ("thing0_00x.jpg", "thing1_00x.jpg")
SFREQ, PEAK_S, WIDTH_S, SCALE = 600.0, 0.1, 0.02, 1e-12
LATE_S = 0.11  # of the tables' onsets, on average
CSV_COLUMNS = (
    "trial_type", "image_nr", "category_nr", "exemplar_nr", "test_image_nr", "things_category_nr", "things_image_nr",
    "things_exemplar_nr", "image_path", "image_on", "image_off", "iti", "responded", "RT", "button_id", "key",
    "session_nr", "run_nr",
)  # fmt: skip


def pattern(image, n_channels=6):
    """Return the response of an image over sensors, of standard normal numbers."""
    return np.random.default_rng(zlib.crc32(image.encode())).standard_normal(n_channels)


def bump(times):
    """Return the time course of responses at times in s after the trigger."""
    return np.exp(-0.5 * ((np.asarray(times) - PEAK_S) / WIDTH_S) ** 2)


def trials(subject, sessions=(1, 2), runs=(1, 2)):
    """Return what is shown to a subject, row by row of its csv: each training image once, test images in each run."""
    rng = np.random.default_rng(int(subject[-1]))
    shown = [f"thing{c}_{e + 1:02d}s.jpg" for c in range(CATEGORIES) for e in range(EXEMPLARS)]
    parts = np.array_split(rng.permutation(shown), len(sessions) * len(runs))
    out = []
    for k, (session, run) in enumerate((s, r) for s in sessions for r in runs):
        rows = [("exp", name, f"images_meg/{name.rsplit('_', 1)[0]}/{name}") for name in parts[k].tolist()]
        rows += [("test", name, f"images_test_meg/{name}") for name in TEST]
        rows += [("catch", f"catch{k:03d}.jpg", f"images_catch_meg/catch{k:03d}.jpg")]
        rows = [rows[place] for place in rng.permutation(len(rows))]
        on = 1.0 + np.cumsum(rng.uniform(1.3, 1.7, len(rows))) - 1.3
        for (kind, name, path), begin in zip(rows, on.tolist(), strict=True):
            number = "NA" if kind == "catch" else str(100 + [*shown, *TEST].index(name))
            category = "NA" if kind == "catch" else str(1 + int(name[5 : name.index("_")]))
            out.append(
                dict.fromkeys(CSV_COLUMNS, "NA")
                | {
                    "trial_type": kind, "image_path": path, "things_image_nr": number, "things_category_nr": category,
                    "image_on": repr(begin), "image_off": repr(begin + 0.5), "session_nr": str(session),
                    "run_nr": str(run), "name": name, "begin": round(begin * SFREQ) / SFREQ,
                }
            )  # fmt: skip
    return out


def write_csv(path, rows):
    """Write the table of all images of a subject."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _run(root, subject, session, run, rows, paths, triggers):
    base = root / f"sub-{subject}/ses-{session:02d}/meg/sub-{subject}_ses-{session:02d}_task-main_run-{run:02d}"
    length = rows[-1]["begin"] + 2.0
    times = np.arange(round(length * SFREQ)) / SFREQ
    data = np.zeros((6, len(times)))
    for row in rows:
        data += SCALE * pattern(row["name"])[:, None] * bump(times - row["begin"])
    rng = np.random.default_rng([int(subject[-1]), session, run])
    data += 1e-3 * SCALE * rng.standard_normal(data.shape)
    sent = [(row["begin"], 64) for row in rows] + [(length - 0.5, 32)]
    raw = meg_raw(seconds=length, sfreq=SFREQ, maker="ctf", data=data, triggers=sent)
    save_fif(raw if triggers else raw.drop_channels(["UPPT001"]), f"{base}_meg.fif")
    header = ["onset", "duration", "trial_type", "value", "sample", *([paths] if paths else [])]
    late = LATE_S + rng.uniform(-0.04, 0.04, len(rows))
    table = []
    for row, off in zip(rows, late.tolist(), strict=True):
        onset = row["begin"] + off
        value = {"NA": ("n/a", "999999")[run % 2]}.get(row["things_image_nr"], row["things_image_nr"])
        fields = (f"{onset:.4f}", "0.5", row["trial_type"], value, str(round(onset * SFREQ)))
        table.append((*fields, *([row["image_path"]] if paths else [])))
    write_tsv(f"{base}_events.tsv", header, table)
    bads = [("MLC11-2908", "bad"), ("MLC12-2908", "good")]
    write_tsv(f"{base}_channels.tsv", ("name", "status"), bads)


def write_things_meg(
    root, *, subjects=("BIGMEG1", "BIGMEG2"), sessions=(1, 2), runs=(1, 2), paths="image_path", triggers=True, csv=True
):
    """Write raw recordings, tables of events, and the tables of all images of a subject.

    `paths` is the column of the tables of events for the files of images; without it they have none.
    """
    root = Path(root)
    write_tsv(root / "participants.tsv", ("participant_id",), [(f"sub-{subject}",) for subject in subjects])
    for subject in subjects:
        rows = trials(subject, sessions, runs)
        if csv:
            write_csv(root / f"sourcedata/sample_attributes_P{subject[-1]}.csv", rows)
        for session in sessions:
            for run in runs:
                own = [row for row in rows if (row["session_nr"], row["run_nr"]) == (str(session), str(run))]
                _run(root, subject, session, run, own, paths, triggers)
    return root


def write_things_meg_epochs(root, *, subject="BIGMEG1", n_channels=20, metadata=True, split_size="2MB"):
    """Write preprocessed epochs, in parts, and return them (N, C, T) with the rows of their table.

    Baselines are z-scores, so there is no unit; 200 Hz, from -0.1 to 1.3 s.
    One channel more is of no sensor.
    """
    import mne
    import pandas as pd

    rows = trials(subject, sessions=(1, 2, 3), runs=(1, 2, 3, 4))
    plain = [name.split("-")[0] for name in mne.channels.read_layout("CTF-275").names]
    names = [*(f"{name}-1609" for name in plain[:n_channels]), "UADC016-2104"]
    info = mne.create_info(names, 200.0, ["mag"] * n_channels + ["misc"], verbose="ERROR")
    with info._unlock():
        for k, channel in enumerate(info["chs"][:n_channels]):
            channel["coil_type"] = 5001
            channel["loc"][:3] = [0.1 * np.cos(k), 0.1 * np.sin(k), 0.05]
            channel["loc"][3:12] = np.eye(3).ravel()
    times = (np.arange(281) - 20) / 200.0
    rng = np.random.default_rng(3)
    x = np.stack([pattern(row["name"], n_channels)[:, None] * bump(times) for row in rows])
    x = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    numbers = {"session_nr", "run_nr", "image_on", "image_off"}
    table = {
        name: [float(row[name]) if name in numbers else None if row[name] == "NA" else row[name] for row in rows]
        for name in CSV_COLUMNS
    }
    table["things_image_nr"] = [
        np.nan if row["things_image_nr"] == "NA" else float(row["things_image_nr"]) for row in rows
    ]
    codes = np.array([[k, 0, 1] for k in range(len(rows))])
    frame = pd.DataFrame(table) if metadata else None
    light = np.broadcast_to(times > 0, (len(x), 1, 281))
    epochs = mne.EpochsArray(
        np.concatenate([x, light], axis=1), info, codes, tmin=-0.1, metadata=frame, verbose="ERROR"
    )
    folder = Path(root) / "derivatives/preprocessed"
    folder.mkdir(parents=True, exist_ok=True)
    epochs.save(
        folder / f"preprocessed_P{subject[-1]}-epo.fif", fmt="double", split_size=split_size, overwrite=True,
        verbose="ERROR",
    )  # fmt: skip
    return x, rows
