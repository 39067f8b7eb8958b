"""Continuous recordings in the formats of their makers, through MNE: which files there are, sensors, places.

MNE finds the reader by the ending (``mne.io.read_raw``), so that a KIT file of a study, and the FIF file that stands
for it in a test, go the same way from ``mne.io.Raw`` on.
"""

# C channels

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import check_option, corrupt_file, invalid, soft_import
from neuroloaders.recordings import NO_POSITION

__all__ = ["RAW_ENDINGS", "SENSORS", "ending_of", "flat_positions", "open_raw", "pick_sensors"]

# What a recording's file or folder ends in. Their companions (.eeg, .fdt, .mrk) are found by MNE.
RAW_ENDINGS = {
    ".con": "KIT",
    ".sqd": "KIT",
    ".ds": "CTF",
    ".fif": "MEGIN, and whatever MNE wrote",
    ".vhdr": "BrainVision",
    ".set": "EEGLAB",
    ".edf": "European Data Format",
    ".bdf": "BioSemi",
    ".gdf": "General Data Format",
    ".mff": "EGI",
    ".cnt": "Neuroscan, ANT",
    ".nxe": "Nexstim",
}

SENSORS = {
    "meg": "magnetometers and gradiometers, without reference sensors",
    "eeg": "electrodes of type EEG",
}


def ending_of(path: str | os.PathLike[str]) -> str | None:
    """Return the key of `RAW_ENDINGS` that a path ends in, or None."""
    name = Path(path).name.lower()
    return next((ending for ending in RAW_ENDINGS if name.endswith(ending)), None)


def open_raw(path: str | os.PathLike[str]) -> Any:
    """Open a recording of any format of `RAW_ENDINGS`; its samples stay on the disk.

    Parameters
    ----------
    path : path-like
        A file, or a folder such as ``*.ds``.

    Returns
    -------
    mne.io.Raw

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If its ending is unknown, or MNE cannot read it: the message has MNE's.
    """
    path = Path(path)
    if not path.exists():
        raise invalid("path", "be a recording", os.fspath(path), kind=FileNotFoundError)
    if ending_of(path) is None:
        raise invalid("path", f"end in one of {', '.join(RAW_ENDINGS)}", repr(path.name))
    mne = soft_import("mne", purpose="Reading M/EEG")
    try:
        # Silent but for warnings: a study has hundreds of files.
        return mne.io.read_raw(path, preload=False, verbose="WARNING")
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise corrupt_file(path, f"MNE says: {error}".replace("\n", " "), "Look at it with mne.io.read_raw.") from error


def pick_sensors(raw: Any, kind: str, path: Any = None) -> Any:
    """Keep the sensors of one kind, in place, also those that are marked as bad.

    Parameters
    ----------
    raw : mne.io.Raw
        The recording.
    kind : str
        A key of `SENSORS`.
    path : path-like, optional
        Names the recording in an error.

    Returns
    -------
    mne.io.Raw
        `raw`.

    Raises
    ------
    ValueError
        If there is no such sensor.
    """
    check_option("kind", kind, SENSORS)
    mne = soft_import("mne", purpose="Reading M/EEG")
    wanted = {"meg": kind == "meg", "eeg": kind == "eeg", "ref_meg": False}
    picks = mne.pick_types(raw.info, exclude=[], **wanted)
    if len(picks) == 0:
        kinds = ", ".join(sorted(set(raw.get_channel_types())))
        raise corrupt_file(path or raw, f"it holds no {kind} channels, but {kinds}", "Is it a recording of that kind?")
    return raw.pick(picks, verbose="WARNING")


def flat_positions(info: Any) -> np.ndarray | None:
    """Return where sensors are on the flattened head, from 0 to 1.

    Parameters
    ----------
    info : mne.Info
        Of the sensors of one kind.

    Returns
    -------
    ndarray of float32, shape (C, 2), or None
        In the order of ``info["ch_names"]``: those of ``mne.channels.find_layout``, bad sensors included, so scaled
        that they fill [0, 1] along each axis, recording by recording [1]_; `NO_POSITION` for a sensor that the layout
        lacks. None if nothing is known of any.

    Notes
    -----
    Names are matched without blanks ("MEG 0113"), and those of CTF without what is appended to them ("MLC11-2908").

    References
    ----------
    .. [1] Défossez et al., Nature Machine Intelligence 5 (2023), doi:10.1038/s42256-023-00714-5.
    """
    mne = soft_import("mne", purpose="Reading sensor positions")
    # Without a montage MNE would put digitised points of the head in the electrodes' place, with a warning.
    types = set(info.get_channel_types())
    where = np.array([channel["loc"][:3] for channel in info["chs"]]).reshape(-1, 3)
    # An electrode that nobody has measured is at NaN or in the middle of the head; a layout would have it somewhere.
    placed = np.isfinite(where).all(axis=1) & where.any(axis=1)
    if not placed.any() or (types == {"eeg"} and info.get_montage() is None):
        return None
    try:
        layout = mne.channels.find_layout(mne.pick_info(info, np.flatnonzero(placed)), exclude=[])
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    if layout is None:
        return None
    places: dict[str, np.ndarray] = {}
    for name, row in zip(layout.names, layout.pos, strict=True):
        plain = name.replace(" ", "")
        places[plain] = row[:2]
        places.setdefault(plain.split("-")[0], row[:2])
    found = np.full((len(info["ch_names"]), 2), np.nan)
    for k, name in enumerate(info["ch_names"]):
        plain = name.replace(" ", "")
        if plain not in places and types != {"eeg"}:
            plain = plain.split("-")[0]
        if placed[k] and plain in places:
            found[k] = places[plain]
    known = np.isfinite(found).all(axis=1)
    if not known.any():
        return None
    low, high = found[known].min(axis=0), found[known].max(axis=0)
    # Sensors in one line have no extent across it.
    scaled = (found - low) / np.where(high > low, high - low, 1.0)
    return np.where(known[:, None], scaled, NO_POSITION).astype(np.float32)
