"""Stimuli one at a time: images from arrays, files or anything with an index, captions; each with a hash."""

# N stimuli, H height, W width

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.features.pixels import check_images, image_digest
from neuroloaders.checks import check_int, check_option, corrupt_file, describe, invalid

__all__ = ["TAKES", "Stimuli", "caption_texts"]

# What an extractor may take.
TAKES = {"images": "images, bytes or floating point in [0, 1]", "captions": "a caption or several for each stimulus"}


class Stimuli:
    """Stimuli in order, read when they are wanted.

    Parameters
    ----------
    stimuli : array, or sequence of N
        See `neurodecode.features.extract`.
    takes : {"images", "captions"}
        What they are, a key of `TAKES`.
    keys : sequence of N str, optional
        Names that stand for the content.
    """

    def __init__(self, stimuli: Any, takes: str, keys: Sequence[str] | None = None) -> None:
        check_option("takes", takes, TAKES)
        if isinstance(stimuli, (str, bytes, os.PathLike)) or not hasattr(stimuli, "__getitem__"):
            required = "be an array of shape (N, 3, H, W) or a sequence of images or paths"
            if takes == "captions":
                required = "be a sequence with a caption, or several, for each stimulus"
            raise invalid("stimuli", required, stimuli, "Of one, make a list.", kind=TypeError)
        self.stimuli, self.takes, self.keys = stimuli, takes, keys
        if takes == "images" and len(shape := getattr(stimuli, "shape", ())) > 1:
            self._check_axes(shape)
        if len(self) == 0:
            raise invalid("stimuli", "hold at least one", stimuli)
        if keys is not None:
            self._check_keys(keys)

    def __len__(self) -> int:
        return len(self.stimuli)

    def identified(self, workers: int = 0) -> Iterator[tuple[int, bytes, Callable[[], Any]]]:
        """Yield for each stimulus its number, the hash of its content, and a call that returns it.

        Parameters
        ----------
        workers : int
            Threads that read ahead; 0 reads in the caller's.

        Yields
        ------
        number : int
        digest : bytes
            32 bytes. With `keys`, nothing is read for it.
        load : callable
            Returns a tensor of shape (3, H, W), or a tuple of captions.
        """
        check_int("workers", workers, at_least=0)
        if workers == 0:
            for i in range(len(self)):
                yield (i, *self._identify(i))
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="neurodecode-stimuli") as pool:
            numbers = iter(range(len(self)))
            window = [(i, pool.submit(self._identify, i)) for i in islice(numbers, 4 * workers)]
            try:
                while window:
                    i, found = window.pop(0)
                    digest, load = found.result()
                    window += [(k, pool.submit(self._identify, k)) for k in islice(numbers, 1)]
                    yield i, digest, _Ahead(pool, load)
            finally:
                for _, waiting in window:
                    waiting.cancel()

    def _identify(self, i: int) -> tuple[bytes, Callable[[], Any]]:
        if self.keys is not None:
            digest = hashlib.sha256(f"{self.takes} key {self.keys[i]}".encode()).digest()
            return digest, lambda: self._load(i, self.stimuli[i])
        item = self.stimuli[i]
        if self.takes == "images" and isinstance(item, (str, os.PathLike)):
            content = _read(Path(item))
            # The file, not its pixels: to know it again it need not be decoded.
            return hashlib.sha256(b"file " + content).digest(), lambda: _decode(item, content)
        loaded = self._load(i, item)
        if self.takes == "images":
            return image_digest(loaded), lambda: loaded
        return hashlib.sha256(f"captions {json.dumps(loaded)}".encode()).digest(), lambda: loaded

    def _load(self, i: int, item: Any) -> Any:
        name = f"stimuli[{i}]"
        if self.takes == "captions":
            return caption_texts(name, item)
        if isinstance(item, (str, os.PathLike)):
            return _decode(item, _read(Path(item)))
        if hasattr(item, "convert") and hasattr(item, "getbands"):  # a Pillow image
            return _channels_first(item)
        if not hasattr(item, "shape"):
            raise invalid(
                name, "be an image (array of shape (3, H, W)), a Pillow image or a path", item, kind=TypeError
            )
        if len(item.shape) != 3:
            raise invalid(name, "have shape (3, H, W)", item)
        image = item if isinstance(item, Tensor) else torch.from_numpy(np.array(item))
        return check_images(name, image[None])[0]

    def _check_axes(self, shape: Sequence[int]) -> None:
        if len(shape) != 4 or shape[1] != 3:
            last = len(shape) == 4 and shape[-1] == 3
            advice = "Channels come second: x.transpose(0, 3, 1, 2)." if last else "Add the axis that is missing."
            raise invalid("stimuli", "have shape (N, 3, H, W)", f"{tuple(shape)}", advice)

    def _check_keys(self, keys: Sequence[str]) -> None:
        if isinstance(keys, str) or len(keys) != len(self):
            raise invalid("keys", f"be {len(self)} names, one for each stimulus", keys)
        for i, key in enumerate(keys):
            if not isinstance(key, str):
                advice = "Name the data set too, since its cache may hold others: f'nsd/{number}'."
                raise invalid(f"keys[{i}]", "be a str", key, advice, kind=TypeError)


class _Ahead:
    """A stimulus that is being loaded in a thread, once it is asked for by `start`."""

    def __init__(self, pool: ThreadPoolExecutor, load: Callable[[], Any]) -> None:
        self._pool, self._load, self._future = pool, load, None

    def start(self) -> None:
        self._future: Future = self._pool.submit(self._load)

    def __call__(self) -> Any:
        return self._load() if self._future is None else self._future.result()


def caption_texts(name: str, item: Any) -> tuple[str, ...]:
    """Return the captions of one stimulus that are not empty.

    Parameters
    ----------
    name : str
        The argument and its row, for errors.
    item : str, or sequence or array of str
        One caption or several. Those of white space only are left out, as data sets fill up their tables with "".

    Raises
    ------
    TypeError
        If something is no text.
    ValueError
        If none is left.
    """
    texts = [item] if isinstance(item, str) else item
    if not isinstance(texts, (list, tuple, np.ndarray)):
        raise invalid(name, "be a caption or a sequence of captions", item, kind=TypeError)
    if isinstance(texts, np.ndarray):
        texts = texts.reshape(-1).tolist()
    for text in texts:
        if not isinstance(text, str):
            raise invalid(name, "hold text only", text, "Write '' for a caption that is missing.", kind=TypeError)
    kept = tuple(str(text) for text in texts if text.strip())
    if not kept:
        raise invalid(name, "have at least one caption that is not empty", f"{len(texts)} empty ones", "Drop that row.")
    return kept


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise invalid("stimuli", "be paths of files", repr(os.fspath(path)), kind=FileNotFoundError) from error


def _decode(path: Any, content: bytes) -> Tensor:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return _channels_first(image)
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for unknown or truncated images
        raise corrupt_file(path, str(error) or describe(error), "Remove or replace the image.") from error


def _channels_first(image: Any) -> Tensor:
    """Return a Pillow image as bytes, shape (3, H, W); grey and transparent ones become RGB."""
    return torch.from_numpy(np.array(image.convert("RGB")).transpose(2, 0, 1).copy())
