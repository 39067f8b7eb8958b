"""Features of stimuli, computed once for each different one, and kept on disk."""

# N stimuli, U different ones among them

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.features.base import Extractor
from neurodecode.features.stimuli import Stimuli
from neurodecode.features.store import FeatureStore
from neuroloaders.checks import check_int, check_option, invalid

__all__ = ["STORAGE", "extract", "extract_unique"]

# Types that features are stored in.
STORAGE = {
    "float32": "as they are computed",
    "float16": "half the size; a relative error of up to 5e-4",
}


def extract(
    stimuli: Any,
    extractor: Extractor,
    *,
    cache: str | os.PathLike[str] | None = None,
    keys: Sequence[str] | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
    workers: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Return the features of stimuli; those that were seen before come from the cache.

    Parameters
    ----------
    stimuli : array, or sequence of N
        Images for an extractor that takes images: an array, tensor, memory map or HDF5 data set of shape
        (N, 3, H, W), bytes or floating point in [0, 1]; or a sequence of such images (3, H, W), of Pillow images, or of
        paths, each of any size. Anything with a length and an index will do; items are asked for one at a time.
        For an extractor of captions, a sequence with a caption, or several, for each stimulus: an array of strings of
        shape (N, 5) is one. Empty captions are left out.
    extractor : Extractor
        From `neurodecode.features.load_extractor`, or a class of your own, see `neurodecode.features.Extractor`.
    cache : path-like, optional
        Folder that features are kept in, a subfolder for each fingerprint and type, so that other weights or settings
        never meet. None: computed in memory, and forgotten.
    keys : sequence of N str, optional
        Names that stand for the content, as "nsd/00042": then only what is missing in the cache is read. The caller
        promises that one name is always one stimulus, in whatever data set.
    batch_size : int, optional
        Stimuli at a time; by default the extractor's.
    dtype : {"float32", "float16"}
        How features are stored, a key of `STORAGE`.
    workers : int
        Threads that read and decode ahead. 0 reads in this one, as sequences that know nothing of threads need.
    progress : bool
        Show a progress bar (tqdm).

    Returns
    -------
    ndarray, shape (N, *extractor.shape)
        In the order of `stimuli`. With `cache` a memory map, copy-on-write: changing it changes no file.

    Raises
    ------
    TypeError, ValueError
        If a stimulus is no image or has no caption (its row is named), or if features are not finite in `dtype`.

    Notes
    -----
    What is the same is known by a hash of its content: pixels (bytes, or the same divided by 255), the bytes of a file,
    or the captions in their order. Each batch is on the disk before the next one is computed, so a run that was killed
    goes on where it was. Processes that run at once may share a cache; each may take a share of the stimuli, after
    which one call on all of them puts them together. Rows are checked against their checksums when they are asked for;
    damaged ones are computed again. Device and batch size change the last bits of features and do not make other ones.

    If the stimuli were computed in the order asked for, the result is a part of the file they were written to;
    else it is put together in a file of its own, which takes as much space again. `extract_unique` avoids that where
    stimuli come several times.

    Examples
    --------
    >>> from neurodecode.features import RGBHistogram, extract
    >>> images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    >>> extract(images, RGBHistogram()).shape
    (3, 24)
    """
    order, rows = _run(stimuli, extractor, cache, keys, batch_size, dtype, workers, progress)
    return rows(order)


def extract_unique(
    stimuli: Any,
    extractor: Extractor,
    *,
    cache: str | os.PathLike[str] | None = None,
    keys: Sequence[str] | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
    workers: int = 0,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of the different stimuli, and which of them each stimulus is.

    Parameters
    ----------
    stimuli, extractor, cache, keys, batch_size, dtype, workers, progress
        As for `extract`.

    Returns
    -------
    features : ndarray, shape (U, *extractor.shape)
        In the order in which stimuli come for the first time.
    index : ndarray of int64, shape (N,)
        ``features[index]`` is what `extract` returns.
    """
    order, rows = _run(stimuli, extractor, cache, keys, batch_size, dtype, workers, progress)
    unique = {digest: place for place, digest in enumerate(dict.fromkeys(order))}
    return rows(list(unique)), np.array([unique[digest] for digest in order], dtype=np.int64)


def _run(
    stimuli: Any,
    extractor: Extractor,
    cache: Any,
    keys: Sequence[str] | None,
    batch_size: int | None,
    dtype: str,
    workers: int,
    progress: bool,
) -> tuple[list[bytes], Callable[[list[bytes]], np.ndarray]]:
    """Compute what is missing; return the hash of each stimulus, and what gives the rows of hashes."""
    from tqdm.auto import tqdm

    if not isinstance(extractor, Extractor):
        required = "have name, takes, shape, batch_size, fingerprint() and be callable"
        raise invalid("extractor", required, extractor, "Load one: load_extractor.", kind=TypeError)
    check_option("dtype", dtype, STORAGE)
    size = check_int("batch_size", extractor.batch_size if batch_size is None else batch_size, at_least=1)
    source = Stimuli(stimuli, extractor.takes, keys)
    store = _Memory(dtype) if cache is None else _open(Path(cache), extractor, dtype)
    order: list[bytes] = []
    waiting: dict[bytes, tuple[int, Any]] = {}
    with tqdm(total=len(source), desc=extractor.name, unit=" stimuli", disable=not progress) as bar:

        def flush() -> None:
            numbers = [number for number, _ in waiting.values()]
            batch = [load() for _, load in waiting.values()]
            store.add(list(waiting), _computed(extractor, batch, numbers, dtype))
            bar.update(len(waiting))
            waiting.clear()

        try:
            for number, digest, load in source.identified(workers):
                order.append(digest)
                if digest in waiting or store.has(digest):
                    if progress:  # not counted in the speed, from which the time left is estimated
                        bar.initial += 1
                    bar.update(1)
                    continue
                if workers:
                    load.start()
                waiting[digest] = (number, load)
                if len(waiting) == size:
                    flush()
            if waiting:
                flush()
        finally:
            store.close()
    return order, store.gather


def _computed(extractor: Extractor, batch: list[Any], numbers: list[int], dtype: str) -> np.ndarray:
    """Return the features of a batch, checked, in the type they are stored in."""
    if extractor.takes == "images" and len({(image.shape, image.dtype) for image in batch}) == 1:
        batch = torch.stack(batch)
    features = extractor(batch)
    wanted = (len(numbers), *extractor.shape)
    if not isinstance(features, Tensor) or tuple(features.shape) != wanted:
        raise invalid("extractor", f"return a tensor of shape {wanted}", features)
    with np.errstate(over="ignore"):  # found below, with the row
        found = features.detach().float().cpu().numpy().astype(dtype)
    bad = ~np.isfinite(found.reshape(len(found), -1)).all(axis=1)
    if bad.any():
        advice = "Store as float32, and compute in float32 (dtype of the extractor)."
        came = f"NaN or infinity for stimuli[{numbers[int(bad.argmax())]}]"
        raise invalid("extractor", f"return numbers that are finite in {dtype}", came, advice)
    return found


def _open(cache: Path, extractor: Extractor, dtype: str) -> FeatureStore:
    fingerprint, shape = extractor.fingerprint(), tuple(extractor.shape)
    record = {"extractor": extractor.name, "fingerprint": fingerprint, "shape": list(shape), "dtype": dtype}
    settings = getattr(extractor, "settings", None)
    if settings is not None:
        record["settings"] = settings()
    # Hashed once more: fingerprints of other people's extractors may be any text.
    digest = hashlib.sha256(f"{fingerprint} {shape}".encode()).hexdigest()[:32]
    return FeatureStore(cache / f"{extractor.name}-{digest}-{dtype}", record, shape, dtype)


class _Memory:
    """Rows kept in memory, with the methods of `FeatureStore`."""

    def __init__(self, dtype: str) -> None:
        self.dtype, self.places = dtype, {}
        self.parts: list[np.ndarray] = []

    def has(self, key: bytes) -> bool:
        return key in self.places

    def add(self, keys: list[bytes], features: np.ndarray) -> None:
        for key in keys:
            self.places[key] = len(self.places)
        self.parts.append(features)

    def close(self) -> None:
        """Do nothing: there is no file."""

    def gather(self, keys: list[bytes]) -> np.ndarray:
        rows = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        self.parts = [rows]
        places = np.array([self.places[key] for key in keys])
        return rows if len(keys) == len(rows) and (np.diff(places) == 1).all() else rows[places]
