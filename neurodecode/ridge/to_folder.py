"""Predictions of more targets than memory holds: chunk by chunk into a folder, on one or many processes, resumable.

Every chunk is a file of its own that is renamed into its place when it is whole, and carries a hash of everything it
was computed from. A run that is repeated computes what is missing, or what was made from other data, and nothing else.
"""

# n training rows, t new rows, m targets, w targets of a chunk

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from neurodecode.ridge.arrays import is_tensor
from neurodecode.ridge.estimator import MultiTargetRidge
from neurodecode.ridge.solver import counts
from neurodecode.ridge.standardise import STANDARDIZATIONS, PredictionScaler, chunk_statistics, drawn_rows
from neurodecode.ridge.targets import Targets, open_array, opened_output
from neuroloaders.atomic import atomic_write, remove_leftovers
from neuroloaders.checkpoints import check_same_config, read_json
from neuroloaders.checks import check_int, check_option, explain_os_error, invalid

__all__ = ["predict_to_folder", "share_of_chunks"]

_VERSION = 1
_CHUNK_SIZE = 4096


def predict_to_folder(
    ridge: MultiTargetRidge,
    X: Any,
    y: Any,
    X_test: Any,
    folder: str | os.PathLike[str],
    *,
    standardize: str | None = None,
    n_loo: int | None = 1000,
    random_state: int = 0,
    sample_weight: Any = None,
    rank: int | None = None,
    world_size: int | None = None,
    progress: bool = True,
) -> np.ndarray | None:
    """Fit any number of targets and write the predictions of known rows; go on where an earlier run ended.

    Parameters
    ----------
    ridge : MultiTargetRidge
        Settings: alphas that are fixed, or chosen for each target. Its `chunk_size` is 4096 by default here.
    X : array, tensor or path, shape (n_samples, n_features)
        Training features.
    y : array, memory map or path, shape (n_samples, n_targets)
        Targets, of which a chunk is in memory at a time.
    X_test : array, tensor or path, shape (n_test, n_features)
        Rows to predict.
    folder : path-like
        Where to write; made if needed. It belongs to one job.
    standardize : {None, "loo", "test"}
        Give the predictions the mean and spread of the training targets, see `PredictionScaler`.
    n_loo : int, optional
        Training rows whose leave-one-out predictions give the statistics of "loo"; None: all.
    random_state : int
        Draws them.
    sample_weight : array of shape (n_samples,), optional
        Weight of each row.
    rank, world_size : int, optional
        This process and how many there are; by default from torchrun (RANK, WORLD_SIZE). Each takes its share of the
        chunks; whoever comes last puts them together.
    progress : bool
        Show a progress bar (tqdm) with the time that is left.

    Returns
    -------
    ndarray or None
        ``predictions.npy``, shape (n_test, n_targets), as a memory map. None if other processes are not ready yet.
        Beside it are ``alpha.npy`` and, with `standardize`, ``statistics.npy`` (mean and standard deviation of the
        predictions, then of the targets).

    Raises
    ------
    ValueError
        If the folder belongs to another job: other features, rows or settings. Targets that changed are no error: their
        chunks are computed again.

    Notes
    -----
    Memory: features twice, the Gram matrix in float64 twice (four times where alphas are chosen), one chunk, and
    nothing of the size of the targets or the weights.

    Examples
    --------
    >>> import tempfile
    >>> rng = np.random.default_rng(0)
    >>> X, Y, new = rng.standard_normal((20, 30)), rng.standard_normal((20, 9)), rng.standard_normal((4, 30))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     predictions = predict_to_folder(MultiTargetRidge(alpha=5.0), X, Y, new, folder, progress=False)
    ...     predictions.shape
    (4, 9)
    """
    check_option("standardize", standardize, STANDARDIZATIONS)
    rank, world_size = _process(rank, world_size)
    ridge = clone(ridge)
    if ridge.alpha is None and ridge.alpha_per != "target":
        advice = "Choose the alpha on some thousands of targets first, then pass it as `alpha`."
        raise invalid("ridge", "have fixed alphas or alpha_per='target'", f"alpha_per={ridge.alpha_per!r}", advice)
    x, x_test = (_host(open_array(name, value)) for name, value in (("X", X), ("X_test", X_test)))
    targets = Targets(y, len(x))
    if targets.is_1d:
        raise invalid("y", "have shape (n_samples, n_targets)", targets.array, "Use smooth_predict for one target.")
    columns = targets.chunks(ridge.chunk_size or _CHUNK_SIZE, "float32")
    options = {"standardize": standardize, "n_loo": n_loo, "random_state": random_state}
    job = _Job(Path(folder), ridge, x, x_test, sample_weight, targets, columns, options)
    job.open(alone=world_size == 1)
    mine = share_of_chunks(len(columns), rank, world_size)
    job.run(mine, progress, f" (rank {rank})" if world_size > 1 else "")
    return job.merge(mine)


def share_of_chunks(n_chunks: int, rank: int, world_size: int) -> range:
    """Return the numbers of the chunks of one process: contiguous, and of all processes as many, or one more.

    Parameters
    ----------
    n_chunks, rank, world_size : int
        Chunks in all; this process, from 0; how many there are.

    Examples
    --------
    >>> [list(share_of_chunks(5, rank, 2)) for rank in range(2)]
    [[0, 1], [2, 3, 4]]
    """
    return range(n_chunks * rank // world_size, n_chunks * (rank + 1) // world_size)


class _Job:
    """One folder: what is computed, what lies there, and what it was made from."""

    def __init__(
        self,
        folder: Path,
        ridge: MultiTargetRidge,
        x: np.ndarray,
        x_test: np.ndarray,
        sample_weight: Any,
        targets: Targets,
        columns: list[slice],
        options: dict[str, Any],
    ) -> None:
        self.folder, self.ridge, self.x, self.x_test, self.targets = folder, ridge, x, x_test, targets
        self.sample_weight, self.columns, self.options = sample_weight, columns, options
        settings = {name: value for name, value in ridge.get_params(deep=False).items() if name not in _NO_INFLUENCE}
        text = {name: _digest(value) if np.ndim(value) else _plain(value) for name, value in settings.items()}
        if isinstance(ridge.alpha, dict):
            text["alpha"] = {str(name): float(value) for name, value in ridge.alpha.items()}
        self.record = {
            "version": _VERSION,
            "X": _digest(x),
            "X_test": _digest(x_test),
            "sample_weight": None if sample_weight is None else _digest(sample_weight),
            "n_targets": targets.m,
            "targets_dtype": str(targets.array.dtype),
            "chunk": columns[0].stop,
            "ridge": text,
            "options": options,
        }
        self.key = hashlib.sha256(json.dumps(self.record, sort_keys=True).encode()).hexdigest()

    def open(self, *, alone: bool) -> None:
        """Make the folder, or see that it is this job's; `alone`, clear away what killed runs left half-written."""
        record = self.folder / "job.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error("write", self.folder, error) from error
        if record.exists():
            check_same_config(record, read_json(record), self.record)
            if alone:
                remove_leftovers(self.folder)
                for partial in self.folder.glob(".partial-*"):
                    partial.unlink(missing_ok=True)
        else:
            with atomic_write(record, "w") as file:
                json.dump(self.record, file, indent=1)

    def path(self, k: int) -> Path:
        return self.folder / f"targets-{self.columns[k].start:09d}-{self.columns[k].stop:09d}.npz"

    def chunk_key(self, k: int) -> str:
        """Return the hash of everything a chunk is computed from, the targets included."""
        return hashlib.sha256(f"{self.key} {_digest(_host(self.targets.raw(self.columns[k])))}".encode()).hexdigest()

    def is_done(self, k: int) -> bool:
        """Return whether the chunk lies there, whole, and was computed from these data."""
        try:
            # Opened here: of a damaged archive NumPy would leave the file open.
            with open(self.path(k), "rb") as file, np.load(file, allow_pickle=False) as stored:
                # All of it is read: the archive's checksums tell what was damaged.
                arrays = {name: stored[name] for name in stored.files}
            return str(arrays["key"]) == self.chunk_key(k)
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return False  # damaged by something else than us: computed again

    def run(self, mine: range, progress: bool, note: str) -> None:
        """Compute the chunks that are missing."""
        from tqdm.auto import tqdm

        compute = None
        total = sum(self.columns[k].stop - self.columns[k].start for k in mine)
        with tqdm(total=total, desc=f"ridge{note}", unit=" targets", disable=not progress) as bar:
            for k in mine:
                width = self.columns[k].stop - self.columns[k].start
                if self.is_done(k):
                    if progress:
                        # Not counted in the speed, from which the time left is estimated.
                        bar.initial += width
                else:
                    if compute is None:
                        bar.set_description(f"ridge{note}: factorising")
                        compute = _Compute(self)
                        bar.set_description(f"ridge{note}")
                        if progress:
                            bar.unpause()  # once, and not for every chunk: no part of the time that is left
                    key, arrays = self.chunk_key(k), compute.chunk(self.columns[k])
                    counts["chunks"] += 1
                    with atomic_write(self.path(k)) as file:
                        np.savez(file, key=np.array(key), **arrays)
                bar.update(width)

    def merge(self, mine: range) -> np.ndarray | None:
        """Put the chunks of all processes together, if all are there."""
        if not all(self.path(k).exists() for k in range(len(self.columns))):
            return None
        # Another process may not have looked yet whether what lies there was made from these targets.
        if not all(self.is_done(k) for k in range(len(self.columns)) if k not in mine):
            return None
        if not self._is_merged():
            self._merge()
        return np.load(self.folder / "predictions.npy", mmap_mode="r", allow_pickle=False)

    def _merge(self) -> None:
        with np.load(self.path(0), allow_pickle=False) as first:
            names = [name for name in first.files if name != "key"]
            shapes = {name: (*first[name].shape[:-1], self.targets.m) for name in names}
            dtypes = {name: str(first[name].dtype) for name in names}
        for name in [name for name in names if name != "predictions"] + ["predictions"]:
            with opened_output(self.folder / f"{name}.npy", shapes[name], dtypes[name], None) as holder:
                for stored, part in self._stored():
                    holder[0][..., part] = stored[name]
        with atomic_write(self.folder / "merged.json", "w") as file:
            json.dump(self._keys(), file)

    def _stored(self) -> Iterator[tuple[Any, slice]]:
        for k, part in enumerate(self.columns):
            with np.load(self.path(k), allow_pickle=False) as stored:
                yield stored, part

    def _keys(self) -> list[str]:
        return [str(stored["key"]) for stored, _ in self._stored()]

    def _is_merged(self) -> bool:
        record = self.folder / "merged.json"
        return record.exists() and (self.folder / "predictions.npy").exists() and read_json(record) == self._keys()


class _Compute:
    """The factorised system and the rows to predict, made once it is known that something is missing."""

    def __init__(self, job: _Job) -> None:
        from neurodecode.ridge.inputs import new_features

        self.job, self.standardize = job, job.options["standardize"]
        self.solver, _ = job.ridge._prepare(job.x, job.targets.array, job.sample_weight, None)
        self.rows = self.solver.rows(new_features(job.ridge, job.x_test, name="X_test"))
        self.left_out = None
        if self.standardize == "loo":
            drawn = drawn_rows(self.solver.features, job.options["n_loo"], job.options["random_state"])
            self.left_out = self.solver.left_out_rows(drawn)

    def chunk(self, part: slice) -> dict[str, np.ndarray]:
        """Return predictions, alphas and statistics of some targets."""
        (chunk,) = self.solver.chunks(self.job.targets, [part])
        features = self.solver.features
        predictions = features.lib.numpy(self.rows.predict(chunk))
        arrays = {"alpha": chunk.alpha}
        if self.standardize is not None:
            rows = None if self.left_out is None else self.left_out.rows
            guesses = predictions if self.left_out is None else self.left_out.predict(chunk)
            found = chunk_statistics(chunk, features, rows, guesses)
            predictions = PredictionScaler(self.standardize)._set(*found).transform(predictions)
            arrays["statistics"] = found
        return {"predictions": predictions, **arrays}


# Settings that change how fast the numbers come, or how they are shown. Each rank may have a device of its own.
_NO_INFLUENCE = ("progress", "chunk_size", "device")


def _process(rank: int | None, world_size: int | None) -> tuple[int, int]:
    world_size = check_int("world_size", int(os.environ.get("WORLD_SIZE", 1)) if world_size is None else world_size)
    if world_size < 1:
        raise invalid("world_size", "be >= 1", f"{world_size}")
    rank = int(os.environ.get("RANK", 0)) if rank is None else rank
    return check_int("rank", rank, at_least=0, at_most=world_size - 1), world_size


def _digest(x: Any) -> str:
    """Return a hash of an array's type, shape and values."""
    x = np.asarray(_host(x))
    head = hashlib.sha256(f"{x.dtype.str} {x.shape} ".encode())
    if x.dtype == object:
        x = np.asarray(x, dtype=str)
    if x.flags.f_contiguous:
        x = x.T  # as it lies in the file
    # In blocks of rows: a memory map is not copied to memory as a whole.
    for first in range(0, max(len(x), 1), 1024):
        head.update(np.ascontiguousarray(x[first : first + 1024]).data if x.ndim else x.tobytes())
    return head.hexdigest()


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _host(x: Any) -> Any:
    return x.detach().cpu().numpy() if is_tensor(x) else x
