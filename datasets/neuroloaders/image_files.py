"""Readers of the files that image data sets are published in: idx, mnist.npz, CIFAR's binary records.

Each returns plain arrays, in the order of the file. None unpickles anything.
"""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuroloaders.checks import corrupt_file

__all__ = ["read_cifar_binary", "read_class_names", "read_idx", "read_mnist"]

# Type codes of the idx format, http://yann.lecun.com/exdb/mnist/; numbers are big-endian.
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CIFAR_PIXELS = 3 * 32 * 32
Split = tuple[np.ndarray, np.ndarray]


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read an idx file, plain or gzipped.

    Parameters
    ----------
    path : path-like
        A name that ends in ``.gz`` is decompressed.

    Returns
    -------
    array : ndarray
        Of the shape and type that the file states, in the machine's byte order.

    Raises
    ------
    ValueError
        If the file is no idx file, or holds fewer or more numbers than it states.
    """
    path = Path(path)
    content = _read_bytes(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _IDX_TYPES:
        raise corrupt_file(path, "it does not begin like an idx file")
    dtype, n_axes = np.dtype(_IDX_TYPES[content[2]]), content[3]
    start = 4 + 4 * n_axes
    if len(content) < start:
        raise corrupt_file(path, "it ends within its header")
    shape = tuple(np.frombuffer(content, ">u4", count=n_axes, offset=4).tolist())
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise corrupt_file(path, f"its header promises {expected} bytes for shape {shape}, it has {len(content)}")
    # A copy, as arrays over a bytes object may not be written to.
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_mnist(folder: str | os.PathLike) -> tuple[Split, Split]:
    """Read MNIST or Fashion-MNIST from a folder: the four idx files, or else ``mnist.npz``.

    Parameters
    ----------
    folder : path-like
        Holds ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, each plain or ``.gz``; or ``mnist.npz`` with
        ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : arrays
        Images uint8, shape (n, 1, h, w); labels int64, shape (n,).

    Raises
    ------
    FileNotFoundError
        If the folder holds neither.
    ValueError
        If a file is damaged.
    """
    folder = Path(folder)
    if not _idx_path(folder, "train-images-idx3-ubyte").exists() and (folder / "mnist.npz").exists():
        return _read_mnist_npz(folder / "mnist.npz")
    return _read_idx_pair(folder, "train"), _read_idx_pair(folder, "t10k")


def read_cifar_binary(paths: Sequence[str | os.PathLike], *, n_label_bytes: int) -> Split:
    """Read CIFAR's binary records, one file after the other.

    Parameters
    ----------
    paths : sequence of path-like
        CIFAR-10: ``data_batch_1.bin`` ... ``data_batch_5.bin``, or ``test_batch.bin``. CIFAR-100:
        ``train.bin`` or ``test.bin``.
    n_label_bytes : int
        1 for CIFAR-10. 2 for CIFAR-100, whose records begin with the coarse and the fine label.

    Returns
    -------
    images : ndarray of uint8, shape (n, 3, 32, 32)
        Channels red, green, blue.
    labels : ndarray of int64, shape (n,)
        The last label byte: for CIFAR-100 the fine label.

    Raises
    ------
    ValueError
        If a file does not consist of whole records.
    """
    size = n_label_bytes + _CIFAR_PIXELS
    batches = []
    for path in map(Path, paths):
        content = _read_bytes(path)
        if len(content) == 0 or len(content) % size:
            raise corrupt_file(path, f"its {len(content)} bytes are no whole number of records of {size} bytes")
        batches.append(np.frombuffer(content, np.uint8).reshape(-1, size))
    records = np.concatenate(batches)
    images = records[:, n_label_bytes:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(images), records[:, n_label_bytes - 1].astype(np.int64)


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Read class names from a text file, one a line; empty lines are skipped."""
    lines = _read_bytes(Path(path)).decode("utf-8", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _idx_path(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


def _read_idx_pair(folder: Path, part: str) -> Split:
    image_path = _idx_path(folder, f"{part}-images-idx3-ubyte")
    label_path = _idx_path(folder, f"{part}-labels-idx1-ubyte")
    return _checked_pair(image_path, read_idx(image_path), label_path, read_idx(label_path))


def _read_mnist_npz(path: Path) -> tuple[Split, Split]:
    try:
        # Opened here: np.load leaves the file open when it is no zip.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise corrupt_file(path, f"it is no mnist.npz with x_train, y_train, x_test, y_test ({error})") from error
    train = _checked_pair(path, arrays["x_train"], path, arrays["y_train"])
    return train, _checked_pair(path, arrays["x_test"], path, arrays["y_test"])


def _checked_pair(image_path: Path, images: np.ndarray, label_path: Path, labels: np.ndarray) -> Split:
    if images.ndim != 3 or images.dtype != np.uint8:
        raise corrupt_file(image_path, f"images must be uint8 (n, h, w), they are {images.dtype} {images.shape}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise corrupt_file(label_path, f"it has labels {labels.dtype} {labels.shape} for {len(images)} images")
    return images[:, None], labels.astype(np.int64)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read()
        return path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise corrupt_file(path, f"the compressed data are damaged ({error})") from error
