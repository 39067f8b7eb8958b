"""Recordings in wav files, encoded once into spikes by the model of `cochlea`."""

# N recordings, E events, T samples

from __future__ import annotations

import hashlib
import json
import os
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroloaders.cache import Allocate, cache_folder, cached_arrays, source_identity
from neuroloaders.checks import check_option, check_same_length, corrupt_file, invalid
from neuroloaders.cochlea import CochleaConfig, check_carries, cochlea_spikes, join_events
from neuroloaders.spikes import SpikeSet

__all__ = ["STEREO", "read_wav", "spikes_from_wavs"]

_CONVERT = "Convert it to a plain PCM wav file, or leave it out."
_REPLACE = "Get the file again, or leave it out."


def spikes_from_wavs(
    paths: Sequence[str | os.PathLike],
    labels: Sequence[str | int],
    config: CochleaConfig | None = None,
    *,
    groups: Sequence[str | int] | None = None,
    classes: Sequence[str | int] | None = None,
    name: str = "wav files",
    split: str = "train",
    stereo: str = "error",
    cache_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> SpikeSet:
    """Encode wav files as spikes; the first time, then from the cache.

    Parameters
    ----------
    paths : sequence of path-like, length N
        The files. Their sampling rates may differ: filters are made for each rate.
    labels : sequence of str or int, length N
        The class of each file.
    config : CochleaConfig, optional
        How sound becomes spikes.
    groups : sequence of str or int, length N, optional
        Who made each recording: speakers, subjects.
    classes : sequence of str or int, optional
        The classes in the order that numbers them; by default those that occur, sorted. Pass the training set's when
        reading a test set.
    name, split : str
        As for `SpikeSet`.
    stereo : str
        A key of `STEREO`: what to do with several channels.
    cache_dir : path-like, optional
        Where the spikes are stored, 8 bytes an event; by default `cache_folder`.
    progress : bool
        Show a progress bar (tqdm) while encoding.

    Returns
    -------
    SpikeSet
        In the order of `paths`; ``config.n_units`` units, laid out as (channels, fibres).

    Raises
    ------
    ValueError
        If a file is damaged, holds no sound or has too low a sampling rate, or labels do not fit. Nothing is stored
        then.
    FileNotFoundError
        If a file is not there.

    Notes
    -----
    The spikes are encoded anew if a setting or a file changed (name, size, or time of the last change). Labels and
    groups are not stored.
    """
    config = config or CochleaConfig()
    check_option("stereo", stereo, STEREO)
    paths = [Path(path) for path in paths]
    check_same_length(paths=paths, labels=labels, **({} if groups is None else {"groups": groups}))
    if not paths:
        raise invalid("paths", "name at least one wav file", "none")
    codes, class_names = _number("labels", labels, classes)
    group_codes, group_names = (None, ()) if groups is None else _number("groups", groups, None)

    def build(allocate: Allocate) -> None:
        parts = [_encode(path, config, stereo) for path in _with_bar(paths, progress)]
        for key, array in zip(("times_ms", "units", "offsets"), join_events(parts), strict=True):
            allocate(key, array.shape, array.dtype)[...] = array

    source = {**_identity(paths), "stereo": stereo}
    folder = cache_folder() if cache_dir is None else cache_dir
    arrays = cached_arrays(config, source, build, folder=folder)
    return SpikeSet(
        **{key: torch.from_numpy(array) for key, array in arrays.items()},
        labels=codes,
        n_units=config.n_units,
        unit_shape=(config.n_channels, len(config.thresholds)),
        classes=class_names,
        groups=group_codes,
        group_names=group_names,
        name=name,
        split=split,
        provenance=f"{os.fspath(paths[0].parent)}, encoded by {config}",
    )


def read_wav(path: str | os.PathLike, *, stereo: str = "error") -> tuple[np.ndarray, float]:
    """Read a wav file of 8, 16, 24 or 32-bit integers, or of 32 or 64-bit floats.

    Parameters
    ----------
    path : path-like
        The file.
    stereo : str
        A key of `STEREO`.

    Returns
    -------
    wave : ndarray of float64, shape (T,)
        Full scale is 1.
    sfreq : float
        Sampling rate in Hz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, empty, compressed, holds NaN, or has several channels and `stereo` is 'error'.
    """
    from scipy.io import wavfile

    combine = STEREO[check_option("stereo", stereo, STEREO)]
    path = Path(path)
    _check_header(path)
    try:
        with warnings.catch_warnings():
            # SciPy warns of each chunk that is no sound (names, cue points); they do no harm.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            sfreq, data = wavfile.read(path)
    # What SciPy raises depends on where the file is damaged.
    except (ValueError, struct.error, EOFError, ZeroDivisionError, UnboundLocalError, TypeError) as error:
        raise corrupt_file(path, str(error).rstrip("."), _CONVERT) from error
    if data.size == 0:
        raise corrupt_file(path, "it holds no samples", _REPLACE)
    if sfreq <= 0:
        raise corrupt_file(path, f"its sampling rate is {sfreq} Hz", _REPLACE)
    wave = _full_scale(data)
    if not np.isfinite(wave).all():
        raise corrupt_file(path, "it holds NaN or infinite samples", _REPLACE)
    return (wave if wave.ndim == 1 else combine(wave, path)), float(sfreq)


def _check_header(path: Path) -> None:
    """Refuse a file that is no wav, or shorter than its header says: SciPy would return what there is of it."""
    if not path.is_file():
        raise invalid("path", "be a wav file that exists", os.fspath(path), kind=FileNotFoundError)
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
    if size == 0:
        raise corrupt_file(path, "it is empty", _REPLACE)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:] != b"WAVE":
        raise corrupt_file(path, "it is no wav file", _CONVERT)
    (promised,) = struct.unpack(">I" if head[:4] == b"RIFX" else "<I", head[4:8])
    # One byte may lack: some programs count the byte that pads an odd number of samples and do not write it.
    if head[:4] != b"RF64" and promised + 8 > size + 1:
        raise corrupt_file(path, f"it has {size} of the {promised + 8} bytes that its header promises", _REPLACE)


def _full_scale(data: np.ndarray) -> np.ndarray:
    wave = data.astype(np.float64)
    if data.dtype == np.uint8:  # 8-bit wav files are unsigned, with silence at 128
        return (wave - 128) / 128
    # SciPy puts 24 bits into the upper three bytes of an int32, so the same division serves.
    return wave / 2.0 ** (8 * data.itemsize - 1) if data.dtype.kind == "i" else wave


def _refuse(wave: np.ndarray, path: Path) -> np.ndarray:
    advice = "Pass stereo='mean' to average them, if they are of the same sound."
    raise invalid("stereo", "say what to do with several channels", f"{wave.shape[1]} in {os.fspath(path)!r}", advice)


def _mean(wave: np.ndarray, path: Path) -> np.ndarray:
    return wave.mean(1)


# What to do with a file of several channels; a file of one channel is taken as it is.
STEREO: dict[str, Callable[[np.ndarray, Path], np.ndarray]] = {"error": _refuse, "mean": _mean}


def _encode(path: Path, config: CochleaConfig, stereo: str) -> tuple[np.ndarray, np.ndarray]:
    wave, sfreq = read_wav(path, stereo=stereo)
    check_carries(config, sfreq, f"the sampling rate of {os.fspath(path)!r}")
    return cochlea_spikes(wave, sfreq, config)


def _with_bar(paths: list[Path], progress: bool) -> Any:
    if not progress:
        return paths
    from tqdm.auto import tqdm

    return tqdm(paths, desc="encoding as spikes", unit="file")


def _identity(paths: list[Path]) -> dict[str, Any]:
    """Identify the files, in their order, by one short record: thousands would bloat what the cache writes down."""
    listing = json.dumps([source_identity(path) for path in paths])
    return {"files": len(paths), "first": paths[0].name, "listing": hashlib.sha256(listing.encode()).hexdigest()}


def _number(
    name: str, values: Sequence[str | int], known: Sequence[str | int] | None
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return the place of each value among the known ones, and their names."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise invalid(name, "be one text or whole number for each file", array, kind=TypeError)
    # Numbers are sorted as numbers and then named: 2 before 10.
    names = tuple(map(str, np.unique(array).tolist() if known is None else known))
    places = {value: place for place, value in enumerate(names)}
    texts = list(map(str, array.tolist()))
    if unknown := sorted(set(texts) - places.keys()):
        raise invalid(name, f"be among the classes {', '.join(names)}", repr(unknown[0]))
    return torch.tensor([places[text] for text in texts], dtype=torch.int64), names
