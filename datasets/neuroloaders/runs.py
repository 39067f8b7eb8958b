"""What every run needs beside its numbers: seeds, a device, its place among processes, and a folder.

What reads and writes files lives in `neuroloaders.atomic` and `neuroloaders.checkpoints`, and can be imported
from here as well.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroloaders.atomic import atomic_write, remove_leftovers
from neuroloaders.checkpoints import (
    as_json,
    check_same_config,
    load_checkpoint,
    load_state,
    read_json,
    save_checkpoint,
    save_state,
)
from neuroloaders.checks import check_int, explain_os_error, invalid

__all__ = [
    "RunFolder",
    "atomic_write",
    "choose_device",
    "generator",
    "load_checkpoint",
    "load_state",
    "save_checkpoint",
    "save_state",
    "spawn_seeds",
    "to_csv",
    "versions",
    "world",
]


def spawn_seeds(seed: int, *names: str) -> dict[str, int]:
    """Split one seed into independent ones, one a name.

    Parameters
    ----------
    seed : int
        The run's one seed, >= 0.
    *names : str
        What the seeds are for: ``"split"``, ``"weights"``, ``"shuffle"``.

    Returns
    -------
    dict of str to int
        Seeds in [0, 2**32), which NumPy, PyTorch and scikit-learn all take. Each depends on `seed` and its
        own name alone: further names and their order change nothing.

    Notes
    -----
    ``numpy.random.SeedSequence`` with the name's SHA-256 as spawn key.
    """
    check_int("seed", seed, at_least=0)
    for name in names:
        if not isinstance(name, str):
            raise invalid("names", "be strings", name, kind=TypeError)
    if len(set(names)) < len(names):
        raise invalid(
            "names",
            "differ from each other",
            ", ".join(map(repr, names)),
            "Equal names would give equal seeds.",
        )
    seeds = {}
    for name in names:
        key = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
        sequence = np.random.SeedSequence(seed, spawn_key=tuple(int(word) for word in key))
        seeds[name] = int(sequence.generate_state(1)[0])
    return seeds


def generator(seed: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a random number generator of PyTorch on `device`, seeded; nothing global changes."""
    return torch.Generator(device).manual_seed(check_int("seed", seed, at_least=0))


def world() -> tuple[int, int, int]:
    """Return (rank, local rank, world size) as torchrun set them; (0, 0, 1) without torchrun.

    The local rank counts processes on one machine, and is the number of this process's GPU.
    """
    found = {name: os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    if found["WORLD_SIZE"] is None:
        return 0, 0, 1
    try:
        rank, local_rank, size = (int(value) for value in found.values())
        valid = 0 <= rank < size and 0 <= local_rank < size
    except (TypeError, ValueError):
        valid = False
    if not valid:
        came = ", ".join(f"{name}={value}" for name, value in found.items())
        raise invalid(
            "RANK, LOCAL_RANK, WORLD_SIZE",
            "be set together, as torchrun does",
            came,
            "Start the script with torchrun, or unset all three.",
        )
    return rank, local_rank, size


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """Return a device that is there.

    Parameters
    ----------
    name : str or torch.device, optional
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``... None takes a GPU if there is one, else the CPU. Under torchrun,
        a GPU without a number is the one with this process's local rank.

    Raises
    ------
    ValueError
        If PyTorch does not know the name or the device is absent; the message lists what is available.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = ["cpu", *(f"cuda:{index}" for index in range(n_gpus))]
    listed = f"Available here: {', '.join(present)}."
    if n_gpus == 0 and not torch.backends.cuda.is_built():
        listed += " This build of PyTorch has no CUDA."
    try:
        device = torch.device(name if name is not None else ("cuda" if n_gpus else "cpu"))
    except (RuntimeError, TypeError) as error:
        raise invalid("device", "be the name of a device", repr(name), listed) from error
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", world()[1] if world()[2] > 1 else torch.cuda.current_device() if n_gpus else 0)
    if device.type == "cpu":
        return torch.device("cpu")
    if str(device) not in present:
        raise invalid("device", "be a device that is there", repr(str(name or device)), listed)
    return device


def versions() -> str:
    """Return what produced a number, a line each: versions, machine, commit of the working folder's git."""
    gpus = (
        [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    lines = {
        "python": sys.version.split()[0],
        "spikedecode": _version("spikedecode"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda if gpus else "not used",
        "gpus": ", ".join(gpus) or "none",
        "platform": platform.platform(),
        "processor": platform.machine(),
        "git": _git_commit() or "no repository",
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


class RunFolder:
    """The folder of one run: what was asked, by which versions, and what came of it.

    It holds ``config.json``, ``versions.txt``, ``metrics.csv`` and ``log.txt``; a trainer adds weights. All
    but the log are replaced as a whole. Under torchrun only rank 0 makes one.

    Parameters
    ----------
    path : path-like
        The folder; made if it is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error("make the folder", path, error) from error

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def claim(self, config: Any) -> bool:
        """Write `config`, or compare it with the one that is there.

        Parameters
        ----------
        config : dataclass or mapping
            What the run was asked to do.

        Returns
        -------
        bool
            True if the folder holds a run with this configuration already.

        Raises
        ------
        ValueError
            If it holds one with another: the field, both values, and what to do.
        """
        given, file = as_json("config", config), self.path / "config.json"
        known = file.exists()
        if known:
            check_same_config(file, read_json(file), given)
        else:
            with atomic_write(file, "w") as out:
                json.dump(given, out, indent=2)
        self._add_versions()
        return known

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace ``metrics.csv`` by `rows`; floats are written so that they read back exactly."""
        with atomic_write(self.path / "metrics.csv", "w") as out:
            out.write(to_csv(rows))

    def log(self, text: str) -> None:
        """Append a line with date and time to ``log.txt``."""
        try:
            with open(self.path / "log.txt", "a", encoding="utf-8") as out:
                out.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            raise explain_os_error("write", self.path / "log.txt", error) from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out while this one writes; they get a sentence that says so.

        The lock is the system's and ends with the process, also one that is killed.
        """
        try:
            import fcntl
        except ImportError:  # Windows: two runs in one folder go unnoticed.
            yield
            return
        try:
            lock = open(self.path / ".lock", "a")  # noqa: SIM115
        except OSError as error:
            raise explain_os_error("write", self.path / ".lock", error) from error
        with lock:
            try:
                # lockf and not flock: forked data workers that outlive a killed run must not keep its lock.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise invalid(
                    "run_dir",
                    "be in use by one process only",
                    repr(str(self.path)),
                    "Another one is writing there: wait for it, or choose another folder.",
                ) from error
            except OSError:  # a file system without locks
                pass
            remove_leftovers(self.path)
            yield

    def _add_versions(self) -> None:
        # A run that was resumed under other versions must show all of them.
        file, now = self.path / "versions.txt", versions()
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if not before.endswith(now):
            with atomic_write(file, "w") as out:
                out.write(f"{before}\nresumed with\n{now}" if before else now)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    """Return the commit of the working folder's repository, with "-dirty" if files were changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
