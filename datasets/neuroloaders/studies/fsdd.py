"""The Free Spoken Digit Dataset as spikes: ten digits said fifty times each by every speaker (Jackson, 2016)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from neuroloaders.cache import cache_folder
from neuroloaders.checks import check_number, check_option, invalid, missing_data
from neuroloaders.cochlea import CochleaConfig
from neuroloaders.fetch import fetch
from neuroloaders.registry import DatasetEntry
from neuroloaders.spikes import SpikeSet
from neuroloaders.splits import stratified_holdout
from neuroloaders.wav_folder import spikes_from_wavs

__all__ = ["FSDD_PROTOCOLS", "load_fsdd"]

# The test set by the authors' README: takes 0 to 4 of each speaker and digit.
_TEST_TAKES = range(5)
_DIGITS = tuple("0123456789")
_NAME = re.compile(r"([0-9])_([A-Za-z]+)_([0-9]+)\.wav")

FSDD_PROTOCOLS = {
    "takes": "the official split: takes 0 to 4 are the test set, every speaker is in all sets",
    "speaker": "one speaker is the test set and in no other: how well it works for a new voice",
}


def load_fsdd(
    *,
    data_dir: str | os.PathLike | None = None,
    config: CochleaConfig | None = None,
    protocol: str = "takes",
    test_speaker: str | None = None,
    valid_speaker: str | None = None,
    valid: float = 0.1,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
    registry: Mapping[str, DatasetEntry] | None = None,
) -> tuple[SpikeSet, SpikeSet, SpikeSet]:
    """Load the spoken digits as spikes.

    Parameters
    ----------
    data_dir, offline, progress, registry
        As for `neuroloaders.fetch`, which finds or downloads the recordings.
    config : CochleaConfig, optional
        How sound becomes spikes.
    protocol : str
        A key of `FSDD_PROTOCOLS`.
    test_speaker : str, optional
        For 'speaker', and needed there: who is the test set.
    valid_speaker : str, optional
        For 'speaker': another speaker who is the validation set, so that choices are made for a new voice too. By
        default validation is a share of the takes of those who are trained on.
    valid : float
        Share of the takes left for training that becomes the validation set, the same of each speaker and digit up to
        rounding, in (0, 1). Not used with `valid_speaker`.
    seed : int
        Names the choice of those takes.
    cache_dir : path-like, optional
        Where the spikes are stored; by default `cache_folder`.

    Returns
    -------
    train, valid, test : SpikeSet
        With the digits as classes and the speakers as groups, sorted by digit, speaker and take.

    Raises
    ------
    ValueError
        If an option does not fit the protocol, or a speaker is unknown.
    OSError
        If the recordings are not there and cannot be downloaded.

    Notes
    -----
    With 'takes', the validation set shares its speakers with the test set and says nothing about new voices. With
    'speaker' and no `valid_speaker`, validation is easier than the test: its speakers are known.
    """
    check_option("protocol", protocol, FSDD_PROTOCOLS)
    _check_speakers(protocol, test_speaker, valid_speaker)
    check_number("valid", valid, above=0, below=1)
    folder = fetch("fsdd", data_dir=data_dir, offline=offline, progress=progress, registry=registry) / "recordings"
    paths, digits, speakers, takes = _list_recordings(folder)
    names = sorted(set(speakers))
    for option, speaker in (("test_speaker", test_speaker), ("valid_speaker", valid_speaker)):
        if speaker is not None:
            check_option(option, speaker, names)
    whole = spikes_from_wavs(
        paths,
        digits,
        config,
        groups=speakers,
        classes=_DIGITS,
        name="fsdd",
        cache_dir=cache_folder(data_dir) if cache_dir is None else cache_dir,
        progress=progress,
    )
    voices = np.array(speakers)
    is_test = np.isin(takes, list(_TEST_TAKES)) if protocol == "takes" else voices == test_speaker
    rest = np.flatnonzero(~is_test)
    if valid_speaker is not None:
        train, held = rest[voices[rest] != valid_speaker], rest[voices[rest] == valid_speaker]
    elif len(rest):
        # By digit and speaker: a voice missing from validation would not be chosen for.
        cells = [f"{digits[row]}_{speakers[row]}" for row in rest]
        train, held = (rest[rows] for rows in stratified_holdout(cells, fraction=valid, seed=seed))
    else:
        train = held = rest
    sets = []
    for split, rows in (("train", train), ("valid", held), ("test", np.flatnonzero(is_test))):
        if len(rows) == 0:
            raise invalid("protocol", f"leave recordings for the set {split!r}", f"{protocol!r}, which leaves none")
        sets.append(whole.select(torch.from_numpy(rows), split))
    train_set, valid_set, test_set = sets
    return train_set, valid_set, test_set


def _check_speakers(protocol: str, test_speaker: str | None, valid_speaker: str | None) -> None:
    if protocol == "speaker":
        if test_speaker is None:
            raise invalid("test_speaker", "be given with protocol='speaker'", "None", "For example 'theo'.")
        if valid_speaker == test_speaker:
            raise invalid("valid_speaker", "be another than `test_speaker`", repr(valid_speaker))
        return
    for option, speaker in (("test_speaker", test_speaker), ("valid_speaker", valid_speaker)):
        if speaker is not None:
            raise invalid(option, f"be left out with protocol={protocol!r}", repr(speaker), "Use protocol='speaker'.")


def _list_recordings(folder: Path) -> tuple[list[Path], list[str], list[str], np.ndarray]:
    """Return paths, digits, speakers and takes of ``{digit}_{speaker}_{take}.wav``, sorted by digit, speaker, take."""
    found = [(path, match) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    if not found:
        raise missing_data("fsdd", ["{digit}_{speaker}_{take}.wav"], [folder], "Put the recordings there.")
    found.sort(key=lambda pair: (pair[1][1], pair[1][2], int(pair[1][3])))
    takes = np.array([int(match[3]) for _, match in found])
    return [path for path, _ in found], [m[1] for _, m in found], [m[2] for _, m in found], takes
