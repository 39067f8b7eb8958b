"""Tiny recordings of M/EEG under BIDS names, with signals that are known at every rate, and tables of events."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SENSORS_OF = {"ctf": 5001, "kit": 6001}  # coil types of axial gradiometers


def tones(n_channels, times, scale=1.0):
    """Return channels (C, T) of a sine and an offset each: channel k at 3 + 4 k Hz, the offset k."""
    k = np.arange(n_channels)[:, None]
    return scale * (np.sin(2 * np.pi * (3 + 4 * k) * np.asarray(times)[None] + k) + k)


def meg_raw(n_channels=6, seconds=8.0, sfreq=1000.0, maker="kit", scale=1e-13, data=None, triggers=()):
    """Return an mne.io.RawArray of tones: gradiometers of KIT or CTF, a reference sensor, a stimulus channel.

    `triggers` are (time in s, value), 5 ms long.
    """
    import mne

    plain = [name.split("-")[0] for name in mne.channels.read_layout("CTF-275").names]
    names = {"kit": [f"MEG {k + 1:03d}" for k in range(n_channels)], "ctf": [f"{name}-2908" for name in plain]}[maker]
    names = [*names[:n_channels], "REF 1", "UPPT001"]
    info = mne.create_info(names, sfreq, ["mag"] * n_channels + ["ref_meg", "stim"], verbose="ERROR")
    with info._unlock():
        for k, channel in enumerate(info["chs"][:n_channels]):
            channel["coil_type"] = SENSORS_OF[maker]
            channel["loc"][:3] = [0.1 * np.cos(k), 0.1 * np.sin(k), 0.05]
            channel["loc"][3:12] = np.eye(3).ravel()
    times = np.arange(round(seconds * sfreq)) / sfreq
    own = tones(n_channels, times, scale) if data is None else data
    stim = np.zeros(len(times))
    for time, value in triggers:
        first = round(time * sfreq)
        stim[first : first + max(1, round(0.005 * sfreq))] = value
    rest = np.stack([np.full(len(times), 1e-12), stim])
    return mne.io.RawArray(np.concatenate([own, rest]), info, verbose="ERROR")


def save_fif(raw, path):
    """Write a FIF file, and its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.save(path, overwrite=True, verbose="ERROR")
    return path


def write_brainvision(path, data, ch_names, sfreq):
    """Write BrainVision files (.vhdr, .vmrk, .eeg) of (C, T) volts, as microvolts in float32."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = "".join(f"Ch{k}={name},,1,µV\n" for k, name in enumerate(ch_names, start=1))
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={len(ch_names)}\nSamplingInterval={1e6 / sfreq:g}\n\n[Binary Infos]\n"
        f"BinaryFormat=IEEE_FLOAT_32\n\n[Channel Infos]\n{channels}",
        encoding="utf-8",
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\n",
        encoding="utf-8",
    )
    path.with_suffix(".eeg").write_bytes((np.asarray(data).T * 1e6).astype("<f4").tobytes())
    return path


def write_tsv(path, header, rows, *, end="\n"):
    """Write a table of BIDS; fields are text already."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header), *("\t".join(map(str, row)) for row in rows)]
    path.write_bytes((end.join(lines) + end).encode())
    return path


EEG_NAMES = ("Fz", "Cz", "Pz", "Oz")


def write_bids_eeg(root, *, subjects=("01", "02"), sfreq=500.0, seconds=6.0):
    """Write a study of EEG: BrainVision files, events with "n/a", a bad channel, electrodes in mm, an inherited table.

    Subject 02 has no events of its own and takes those of the study.
    """
    root = Path(root)
    (root / "dataset_description.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "tiny", "BIDSVersion": "1.9.0"}', encoding="utf-8")
    header = ("onset", "duration", "trial_type", "value", "stim_file", "response:time")
    rows = [
        ("0.5", "n/a", "face", "1", "face_3.png", "0.31"),
        ("1.25", "0.2", "house", "2", "n/a", "n/a"),
        ("2.0", "0.2", "n/a", "n/a", "n/a", "n/a"),
    ]
    for number, subject in enumerate(subjects):
        base = root / f"sub-{subject}/eeg/sub-{subject}_task-see_run-1"
        times = np.arange(round(seconds * sfreq)) / sfreq
        write_brainvision(f"{base}_eeg.vhdr", tones(4, times, 1e-5), EEG_NAMES, sfreq)
        write_tsv(
            f"{base}_channels.tsv",
            ("name", "type", "units", "status"),
            [(name, "EEG", "µV", "bad" if name == "Pz" else "good") for name in EEG_NAMES],
        )
        if number == 0:
            write_tsv(f"{base}_events.tsv", header, rows)
    places = {"Fz": (0, 60, 70), "Cz": (0, 0, 95), "Pz": (0, -60, 70), "Oz": ("n/a", "n/a", "n/a")}
    folder = root / f"sub-{subjects[0]}/eeg"
    write_tsv(
        folder / f"sub-{subjects[0]}_electrodes.tsv",
        ("name", "x", "y", "z"),
        [(name, *place) for name, place in places.items()],
    )
    system = {"EEGCoordinateSystem": "Other", "EEGCoordinateUnits": "mm"}
    (folder / f"sub-{subjects[0]}_coordsystem.json").write_text(json.dumps(system), encoding="utf-8")
    write_tsv(root / "task-see_events.tsv", header[:3], [row[:3] for row in rows[:2]], end="\r\n")
    return root
