"""Runs of a consumer EEG headband, as NeuroTechX's EEG notebooks publish them: faces, oddballs, flicker.

One file a task: ``eeg_000``, ... (samples, channels) in microvolts, ``marker_000``, ... (samples,), 0 where
nothing began, and ``meta``, a JSON list with the subject and the session of each run.
"""

# R runs, C channels, T samples

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np

from neuroloaders.checks import check_option, corrupt_file, missing_data
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.recordings import ContinuousRecording, RecordingSet

__all__ = ["EEG_MUSE_TASKS", "load_eeg_muse"]

# Task -> file, and what its markers stand for.
EEG_MUSE_TASKS: dict[str, tuple[str, dict[int, str]]] = {
    "n170": ("n170.npz", {1: "house", 2: "face"}),
    "p300_visual": ("p300_visual.npz", {1: "non-target", 2: "target"}),
    "ssvep": ("ssvep.npz", {1: "30 Hz", 2: "20 Hz"}),
}
_SFREQ = 256.0  # time stamps of the source are rounded to 1 ms, and say 250
_CH_NAMES = ("TP9", "AF7", "AF8", "TP10", "AUX")
# On a circle with the nose above: from 0 to 1, as the layouts of MNE.
_POSITIONS = np.array([[0.0, 0.28], [0.21, 0.9], [0.79, 0.9], [1.0, 0.28], [-0.1, -0.1]])
_UV = 1e-6


def load_eeg_muse(folder: str | os.PathLike[str], task: str) -> tuple[RecordingSet, EventTable]:
    """Read all runs of a task.

    Parameters
    ----------
    folder : path-like
        Holds the file of the task.
    task : str
        A key of `EEG_MUSE_TASKS`.

    Returns
    -------
    recordings : RecordingSet
        In V, one for each run, with the four electrodes of the headband and "AUX", a fifth in an unknown place.
    events : EventTable
        Kind "stimulus"; the stimulus is what was shown. `split_group` is the run: nothing else tells presentations
        apart.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If the task is unknown, or the file is damaged.

    Notes
    -----
    Markers stand at the sample after the picture was asked for; how long the screen takes is not known.

    References
    ----------
    .. [1] Barachant et al., muse-lsl (2019), and the EEG notebooks of NeuroTechX, BSD 3-clause.
    """
    name, classes = EEG_MUSE_TASKS[check_option("task", task, EEG_MUSE_TASKS)]
    path = Path(folder) / name
    if not path.is_file():
        raise missing_data("The EEG of a headband", [name], [Path(folder)], "It is data/eeg_muse of the shared data.")
    recordings, events = [], []
    counts: dict[tuple[str, str], int] = {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            runs = json.loads(str(stored["meta"]))
            for number, run in enumerate(runs):
                data, marker = stored[f"eeg_{number:03d}"], stored[f"marker_{number:03d}"]
                if data.shape != (len(marker), len(_CH_NAMES)):
                    raise ValueError(f"eeg_{number:03d} has the shape {data.shape}")
                who = (f"{int(run['subject']):02d}", str(run["session"]))
                counts[who] = counts.get(who, -1) + 1
                recordings.append(ContinuousRecording(
                    data=data.T * np.float32(_UV), sfreq=_SFREQ, ch_names=_CH_NAMES, subject=who[0], session=who[1],
                    run=str(counts[who]), positions=_POSITIONS, provenance=run["file"],
                ))  # fmt: skip
                where = np.flatnonzero(marker)
                unknown = sorted({int(code) for code in marker[where]} - set(classes))
                if unknown:
                    raise ValueError(f"marker_{number:03d} holds {unknown[0]}, which stands for nothing")
                if len(where):
                    events.append(EventTable(
                        start=where / _SFREQ, recording=recordings[-1].name, kind="stimulus",
                        stimulus=[classes[int(code)] for code in marker[where]], split_group=recordings[-1].name,
                    ))  # fmt: skip
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise corrupt_file(path, f"it is no file of this kind ({error})", "Copy it anew.") from error
    return RecordingSet(recordings), concatenate_events(events)
