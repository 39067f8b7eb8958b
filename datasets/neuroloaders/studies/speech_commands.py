"""Google Speech Commands, version 2: 35 spoken words as mel spectrograms, in the official split.

A folder for each word holds recordings of one second or less; two lists name those for validation and for testing.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuroloaders.cache import Allocate, cache_folder, cached_arrays, source_identity
from neuroloaders.checks import corrupt_file
from neuroloaders.features import FeatureSet
from neuroloaders.fetch import fetch
from neuroloaders.registry import DatasetEntry
from neuroloaders.studies.mel import MelConfig, mel_front_end

__all__ = ["list_recordings", "load_speech_commands", "read_wav"]

N_CLASSES = 35
_FOLDER = "speech_commands_v0.02"
_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
_SPEAKER_END = "_nohash_"  # in a file's name, between the speaker and the number of the take
_PORTION = 256  # recordings in memory at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Recordings:
    """The recordings of one split.

    Parameters
    ----------
    files : list of Path, length n
        In the order of their names, class by class.
    labels : ndarray of int64, shape (n,)
        Classes.
    speakers : ndarray of str, shape (n,)
        Hashes that stand for speakers.
    """

    files: list[Path]
    labels: np.ndarray
    speakers: np.ndarray


def load_speech_commands(
    config: MelConfig | None = None,
    *,
    data_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
    registry: Mapping[str, DatasetEntry] | None = None,
) -> dict[str, FeatureSet]:
    """Load Google Speech Commands v2 (35 words) as mel spectrograms: train, valid, test.

    Parameters
    ----------
    config : MelConfig, optional
        The front end; by default the paper's, with filters that end at 4 kHz.
    data_dir, offline, registry
        As for `neuroloaders.fetch`, which finds or downloads the recordings.
    progress : bool
        Show progress bars while downloading, and while computing the first time.

    Returns
    -------
    sets : dict of str to FeatureSet
        Features in dB, shape (N, 101, 140) by default, over memory maps. Groups are the speakers, numbered alike in
        all splits; no speaker is in two of the official splits.

    Raises
    ------
    ValueError
        If a recording is damaged or of another format, a word's folder is missing, or a list names what is not there.
    OSError
        If the recordings are not there and cannot be downloaded, or the cache cannot be written.

    Notes
    -----
    Computed once into the cache, 6 GB with the default settings; another `config` is another entry. What neither
    list names is for training; folders whose names begin with "_" (background noise) are left out.

    References
    ----------
    .. [1] Warden, arXiv:1804.03209

    Examples
    --------
    Batches [T, B, C] for a spiking network::

        sets = load_speech_commands()
        train = sets["train"]
        loader = ResidentLoader(train.features, train.labels, batch_size=256, shuffle=True, transform=time_first)
    """
    config = config or MelConfig()
    folder = fetch("gsc", data_dir=data_dir, offline=offline, progress=progress, registry=registry) / _FOLDER
    identity, cache = source_identity(folder), cache_folder(data_dir)
    classes = _class_folders(folder)
    listed: dict[str, Recordings] = {}

    def build(allocate: Allocate, split: str) -> None:
        if not listed:  # only needed when something is computed
            listed.update(list_recordings(folder))
        _compute(allocate, listed[split], config, f"{split} spectrograms", progress)

    stored = {}
    for split in ("train", "valid", "test"):
        source = {**identity, "split": split, "classes": classes}
        stored[split] = cached_arrays(config, source, lambda allocate, s=split: build(allocate, s), folder=cache)
    speakers, numbers = np.unique(
        np.concatenate([np.array(arrays["speakers"]) for arrays in stored.values()]), return_inverse=True
    )
    ends = np.cumsum([len(arrays["labels"]) for arrays in stored.values()])
    return {
        split: FeatureSet(
            features=torch.from_numpy(arrays["features"]),
            labels=torch.from_numpy(np.array(arrays["labels"])),
            classes=classes,
            name="gsc",
            split=split,
            groups=torch.from_numpy(numbers[end - len(arrays["labels"]) : end]),
            group_names=tuple(speakers.tolist()),
            provenance=f"{folder}, {config}",
        )
        for (split, arrays), end in zip(stored.items(), ends, strict=True)
    }


def list_recordings(folder: str | os.PathLike) -> dict[str, Recordings]:
    """List the recordings of each official split.

    Parameters
    ----------
    folder : path-like
        Holds a folder for each word, ``validation_list.txt`` and ``testing_list.txt``.

    Returns
    -------
    recordings : dict of str to Recordings
        For 'train', 'valid' and 'test'.

    Raises
    ------
    ValueError
        If there are not 35 words, a list is missing, a file is in both lists or is not there, a split is empty, or
        a file's name does not say who spoke.
    """
    folder = Path(folder)
    places: dict[str, tuple[Path, int, str]] = {}
    for label, name in enumerate(_class_folders(folder)):
        for path in sorted((folder / name).glob("*.wav")):
            places[f"{name}/{path.name}"] = path, label, _speaker(path)
    split_of = dict.fromkeys(places, "train")
    for split, list_name in _LISTS.items():
        for line in _lines(folder / list_name):
            if line not in split_of:
                raise corrupt_file(folder / list_name, f"it names {line!r}, which is not there", "Unpack it all again.")
            if split_of[line] not in ("train", split):
                raise corrupt_file(folder / list_name, f"{line!r} is in {_LISTS[split_of[line]]} as well")
            split_of[line] = split
    recordings = {}
    for split in ("train", *_LISTS):
        rows = [places[name] for name, where in split_of.items() if where == split]
        if not rows:
            raise corrupt_file(folder, f"there are no recordings for {split!r} in it", "Unpack the archive again.")
        files, labels, speakers = zip(*rows, strict=True)
        labels = np.array(labels, dtype=np.int64)
        recordings[split] = Recordings(files=list(files), labels=labels, speakers=np.array(speakers))
    return recordings


def read_wav(path: str | os.PathLike, sfreq: int) -> np.ndarray:
    """Read a recording of one channel and 16 bits.

    Parameters
    ----------
    path : path-like
        A wav file.
    sfreq : int
        The sampling rate that it must have, in Hz.

    Returns
    -------
    waveform : ndarray of float32, shape (n,)
        In [-1, 1).

    Raises
    ------
    ValueError
        If the file is truncated, no wav file, or of another format or sampling rate.
    """
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            # Of a file that ends too early scipy returns what there is. Other warnings are about harmless extras.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            rate, wave = wavfile.read(path)
    except (ValueError, EOFError, struct.error, wavfile.WavFileWarning) as error:
        raise corrupt_file(path, f"it is no whole wav file ({error})") from error
    if rate != sfreq or wave.dtype != np.int16 or wave.ndim != 1 or not len(wave):
        came = f"{rate} Hz, {wave.dtype}, shape {wave.shape}"
        raise corrupt_file(path, f"it must be {sfreq} Hz, 16 bits, one channel and not empty, it is {came}")
    return wave.astype(np.float32) / 32768


def _compute(allocate: Allocate, recordings: Recordings, config: MelConfig, what: str, progress: bool) -> None:
    from tqdm.auto import tqdm

    n = len(recordings.files)
    features = allocate("features", (n, config.n_times, config.n_mels), np.float32)
    allocate("labels", (n,), np.int64)[:] = recordings.labels
    allocate("speakers", (n,), recordings.speakers.dtype)[:] = recordings.speakers
    front_end = mel_front_end(config)
    with tqdm(total=n, desc=what, unit=" recordings", disable=not progress) as bar:
        for first in range(0, n, _PORTION):
            files = recordings.files[first : first + _PORTION]
            waves = np.zeros((len(files), config.n_samples), np.float32)
            for row, path in enumerate(files):
                wave = read_wav(path, config.sfreq)[: config.n_samples]
                waves[row, : len(wave)] = wave
            features[first : first + len(files)] = front_end(torch.from_numpy(waves)).numpy()
            bar.update(len(files))


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = tuple(
        sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
    )
    if len(names) != N_CLASSES:
        reason = f"it has folders for {len(names)} words instead of {N_CLASSES}"
        raise corrupt_file(folder, reason, "Unpack the archive of version 0.02 again.")
    return names


def _speaker(path: Path) -> str:
    speaker, end, _ = path.name.partition(_SPEAKER_END)
    if not end or not speaker:
        raise corrupt_file(path, f"its name does not say who spoke (speaker{_SPEAKER_END}number.wav)", "Remove it.")
    return speaker


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise corrupt_file(path, "it is not there", "Unpack the archive again.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
