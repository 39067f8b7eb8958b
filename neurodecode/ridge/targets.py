"""Targets and results that may be larger than memory: arrays, tensors, memory maps, ``.npy`` files, in chunks."""

# n rows, m targets

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neurodecode.ridge.arrays import Library, is_tensor
from neurodecode.ridge.system import Features, row_weights
from neuroloaders.archives import partial_name
from neuroloaders.checks import check_int, check_shape, corrupt_file, explain_os_error, invalid

__all__ = ["Targets", "open_array", "opened_output"]

# Bytes of targets in a chunk, if the user does not choose.
_CHUNK_BYTES = 1 << 24


class Targets:
    """Targets of n rows, of which a chunk of columns is in memory at a time.

    Parameters
    ----------
    y : array, tensor, memory map or path, shape (n,) or (n, m)
        The targets; a path leads to a ``.npy`` file.
    n : int
        Rows that there must be.
    """

    def __init__(self, y: Any, n: int) -> None:
        if y is None:
            raise invalid("y", "be given: ridge regression requires y to be passed, but the target y is None", "None")
        y = open_array("y", y)
        if not is_tensor(y) and (y.dtype == object or y.dtype.kind not in "fiub"):
            try:
                y = y.astype(np.float64)
            except (TypeError, ValueError) as error:
                raise invalid("y", "hold real numbers", y, kind=type(error)) from error
        if is_tensor(y) and (y.is_complex() or y.requires_grad):
            raise invalid("y", "hold real numbers without gradients", y, "Call y.detach().", kind=TypeError)
        if y.ndim not in (1, 2) or 0 in y.shape:
            raise invalid("y", "have shape (n_samples,) or (n_samples, n_targets), neither of them 0", y)
        if len(y) != n:
            raise invalid("y", f"have {n} rows, as many as `X` (inconsistent numbers of samples)", y)
        self.array, self.is_1d = y, y.ndim == 1
        self.n, self.m = n, 1 if self.is_1d else y.shape[1]

    @property
    def is_single(self) -> bool:
        """Return whether the targets hold no more than float32 does."""
        return str(self.array.dtype).removeprefix("torch.") in ("float32", "float16", "bfloat16")

    def chunks(self, size: int | None, dtype: str) -> list[slice]:
        """Return the columns of each chunk: `size`, or as many as take some tens of MB."""
        if size is None:
            size = max(_CHUNK_BYTES // (self.n * (4 if dtype == "float32" else 8)), 64)
        size = check_int("chunk_size", size, at_least=1)
        return [slice(first, min(first + size, self.m)) for first in range(0, self.m, size)]

    def raw(self, columns: slice) -> Any:
        """Return a chunk as it is stored, shape (n, w)."""
        return self.array[:, None] if self.is_1d else self.array[:, columns]

    def prepared(self, columns: slice, features: Features) -> tuple[Any, Any]:
        """Return a chunk centred and weighted, Ỹ of shape (n, w), and the means of its columns, shape (w,)."""
        lib, dtype, raw = features.lib, features.dtype, self.raw(columns)
        if isinstance(raw, np.ndarray) and lib.name == "numpy":
            mean = raw.mean(axis=0, dtype=np.float64) if features.weights is None else None
        else:
            raw = lib.array(raw, "float64" if dtype == "float64" else "float32")
            mean = lib.array(raw, "float64").mean(0) if features.weights is None else None
        if mean is None:
            mean = lib.array(row_weights(features.weights, self.n), "float64") @ lib.array(raw, "float64")
        # A mean is finite only if all that went in is.
        if not np.isfinite(lib.numpy(mean)).all():
            self._complain(lib, raw, columns)
        mean = lib.array(mean, dtype)
        if not features.intercept:
            mean = mean * 0
            y = lib.array(raw, dtype) + 0
        elif isinstance(raw, np.ndarray):
            y = np.subtract(raw, mean, dtype=dtype) if raw.dtype == dtype else (raw - mean).astype(dtype)
        else:
            y = raw - mean
        s = features.root_weights(dtype)
        return (y if s is None else y * s), mean

    def _complain(self, lib: Library, raw: Any, columns: slice) -> None:
        bad = np.flatnonzero(~np.isfinite(lib.numpy(raw)).all(0))
        if len(bad) == 0:
            advice = "Scale the targets, or use precision='float64'."
            raise invalid("y", "have finite means", "infinity or a value too large for its dtype", advice)
        names = ", ".join(map(str, bad[:5] + columns.start)) + (", ..." if len(bad) > 5 else "")
        advice = "Leave out these targets, or find where the values come from."
        raise invalid("y", "hold finite numbers only", f"NaN or infinity in {len(bad)} columns ({names})", advice)


def open_array(name: str, x: Any) -> Any:
    """Return an array or tensor as it is; of a path, a read-only memory map of the ``.npy`` file.

    Parameters
    ----------
    name : str
        The argument's name.
    x : array, tensor, list or path-like
        What came.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is no ``.npy`` file.
    """
    if isinstance(x, (str, os.PathLike)):
        try:
            return np.load(x, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise invalid(
                name, "be an array or the path of a .npy file", f"{os.fspath(x)!r}", kind=type(error)
            ) from error
        except (ValueError, EOFError, OSError) as error:
            raise corrupt_file(x, f"it is no .npy file of numbers ({error})", "Write it with numpy.save.") from error
    # What says its shape and dtype gives its columns when asked: see `SideBySide`.
    lazy = hasattr(x, "dtype") and hasattr(x, "shape") and hasattr(x, "__getitem__") and not hasattr(x, "__array__")
    return x if lazy or is_tensor(x) or isinstance(x, np.ndarray) else np.asarray(x)


@contextlib.contextmanager
def opened_output(out: Any, shape: tuple[int, ...], dtype: str, lib: Library) -> Iterator[list[Any]]:
    """Yield a list whose first entry is the array to fill; its last entry, afterwards, is what to return.

    Parameters
    ----------
    out : None, array or path-like
        None: a new array. An array, or memory map, of that shape: it is filled. A path: a ``.npy`` file, written under
        another name and renamed when it is whole, then opened as a memory map.
    shape : tuple of int
        Shape of the result.
    dtype : str
        Its type.
    lib : Library
        Where a new array is made.
    """
    if out is None:
        yield [lib.zeros(shape, dtype)]
        return
    if not isinstance(out, (str, os.PathLike)):
        check_shape("out", out, shape)
        yield [out]
        return
    path = Path(out)
    partial = path.with_name(partial_name(path.name))
    holder: list[Any] = []
    try:
        try:
            holder.append(np.lib.format.open_memmap(partial, mode="w+", shape=shape, dtype=np.dtype(dtype)))
            if hasattr(os, "posix_fallocate"):
                # A full disk is an error here, and would kill the process while the map is written.
                with open(partial, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise explain_os_error("write", path, error) from error
        yield holder
        holder[0].flush()
        os.replace(partial, path)
        holder[0] = np.load(path, mmap_mode="r", allow_pickle=False)
    finally:
        partial.unlink(missing_ok=True)
