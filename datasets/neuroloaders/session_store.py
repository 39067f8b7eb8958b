"""Responses of many sessions as one memory map, kept session by session until all are there."""

# n trials, p voxels

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from neuroloaders.cache import Allocate, cache_folder, cache_key, cached_arrays
from neuroloaders.checks import check_shape

__all__ = ["stored_sessions"]


@dataclass(frozen=True, kw_only=True)
class SessionPart:
    """One session of a set that is being put together.

    Parameters
    ----------
    whole : str
        The key of the set.
    session : int
        Which session.
    version : int
        Of what is stored.
    """

    whole: str
    session: int
    version: int = 1


def stored_sessions(
    config: Any,
    sources: Mapping[int, Any],
    read: Callable[[int], np.ndarray],
    shape: tuple[int, int],
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return the responses of all sessions, one after the other; read what is not stored yet.

    Parameters
    ----------
    config : frozen dataclass
        What the responses depend on besides the files.
    sources : mapping of int to JSON-like
        The identity of each session's file, by session, in the order wanted.
    read : callable
        Returns the responses of a session, shape (n_session, p), float32.
    shape : tuple of int
        (n, p), of all sessions together.
    folder : path-like, optional
        Where the cache lies; by default `neuroloaders.cache_folder`.
    progress : bool
        Show a bar over sessions.

    Returns
    -------
    ndarray of float32, shape (n, p)
        A memory map, copy-on-write.

    Raises
    ------
    ValueError
        If sessions have other numbers of rows or columns than `shape` says.

    Notes
    -----
    Each session is stored when it has been read, so a run that was interrupted goes on with the next one. Once all are
    there they are copied into one array, and the parts are removed: for a moment, twice the space is taken.
    """
    root = cache_folder() if folder is None else Path(folder).expanduser()
    source = {str(session): identity for session, identity in sources.items()}
    # The order of the sessions is part of what is stored, and JSON mappings are sorted.
    source["order"] = list(sources)
    whole = cache_key(config, source)
    parts = {session: SessionPart(whole=whole, session=session) for session in sources}

    def build(allocate: Allocate) -> None:
        out = allocate("betas", shape, np.float32)
        row = 0
        for session in tqdm(parts, desc="sessions", disable=not progress):
            part = cached_arrays(parts[session], sources[session], _storing(read, session), folder=root)["betas"]
            check_shape(f"session {session}", part, ("n", shape[1]))
            out[row : row + len(part)] = part
            row += len(part)
        check_shape("sessions", out[:row], shape, advice="The files hold another number of trials than the design.")

    whole_array = cached_arrays(config, source, build, folder=root)["betas"]
    for session, part in parts.items():
        shutil.rmtree(root / cache_key(part, sources[session]), ignore_errors=True)
    return whole_array


def _storing(read: Callable[[int], np.ndarray], session: int) -> Callable[[Allocate], None]:
    def build(allocate: Allocate) -> None:
        betas = read(session)
        allocate("betas", betas.shape, np.float32)[:] = betas

    return build
