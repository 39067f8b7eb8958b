"""Finding a data set on disk, and downloading it once if it is not there.

What is downloaded is checked against the registry's checksum before it gets its name, so a file that is there
is whole. Nothing that is there is downloaded again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from neuroloaders.archives import unpack
from neuroloaders.checks import explain_os_error, failed_download, missing_data
from neuroloaders.folders import DATA_VARIABLE, download_folder, file_mode, search_folders
from neuroloaders.registry import DatasetEntry, RemoteFile, dataset_info

__all__ = ["OFFLINE_VARIABLE", "fetch"]

OFFLINE_VARIABLE = "NEUROLOADERS_OFFLINE"
_TIMEOUT_S = 60  # without an answer; a slow server that keeps sending is waited for

logger = logging.getLogger(__name__)


def fetch(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    offline: bool | None = None,
    progress: bool = True,
    registry: Mapping[str, DatasetEntry] | None = None,
) -> Path:
    """Return the folder of a data set, downloading and unpacking it the first time.

    Looked for in ``data_dir/name``, then in the folder of the same name in ``NEUROLOADERS_DATA``, in
    ``../shared/data`` beside a development checkout, and in the user's cache. Downloads go to `data_dir` if
    it is given, else to ``NEUROLOADERS_DATA`` if it may be written to, else to the user's cache.

    Parameters
    ----------
    name : str
        A key of `datasets_available`.
    data_dir : path-like, optional
        The folder that holds one folder for each data set.
    offline : bool, optional
        Never use the network. By default decided by the environment variable ``NEUROLOADERS_OFFLINE``.
    progress : bool
        Show a progress bar (tqdm) while downloading.
    registry : mapping of str to DatasetEntry, optional
        Another registry, from `read_registry`.

    Returns
    -------
    folder : Path
        Holds every file of the registry's entry, or one of the sets of files that its `also` lists.

    Raises
    ------
    ValueError
        If `name` is unknown, or an archive is damaged.
    FileNotFoundError
        If the data is not there and may not be downloaded: offline, or in need of a licence.
    OSError
        If the download fails, or the disk cannot be written to.

    Notes
    -----
    Archives are kept beside what was unpacked from them; they may be deleted. Files put there by hand are
    checked in the same way. Before starting several processes, call this once: they would each download.
    """
    entry = dataset_info(name, registry)
    searched = [folder / name for folder in search_folders(data_dir)]
    for folder in searched:
        if _is_complete(entry, folder):
            return folder
    wanted = [file.name for file in entry.files] or [" and ".join(paths) for paths in entry.also]
    if not entry.files:
        advice = f"{entry.how_to_get} Then pass data_dir or set {DATA_VARIABLE}."
        raise missing_data(name, wanted, searched, advice)
    folder = download_folder(data_dir) / name
    for file in entry.files:
        if file.becomes and (folder / file.becomes).exists():
            continue
        if not _has_download(file, folder):
            if _is_offline(offline):
                raise missing_data(name, wanted, searched, _offline_advice(entry, folder))
            _download(file, folder, progress)
        if file.becomes:
            unpack(folder / file.name, file.member, folder / file.becomes)
    return folder


def _offline_advice(entry: DatasetEntry, folder: Path) -> str:
    urls = ", ".join(file.url for file in entry.files)
    return (
        f"This is offline: get {urls} on a connected machine, put them into {os.fspath(folder)!r} and call "
        f"again; or allow downloads (offline=False, or {OFFLINE_VARIABLE}=0)."
    )


def _is_offline(offline: bool | None) -> bool:
    if offline is not None:
        return bool(offline)
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no")


def _is_complete(entry: DatasetEntry, folder: Path) -> bool:
    if not folder.is_dir():
        return False
    if entry.files and all(_has_result(file, folder) for file in entry.files):
        return True
    return any(all((folder / path).exists() for path in paths) for paths in entry.also)


def _has_result(file: RemoteFile, folder: Path) -> bool:
    """Whether what the file is fetched for is there: the unpacked goal, or the file itself."""
    # Unpacking renames a finished folder into place, so a goal that exists is whole.
    return (folder / file.becomes).exists() if file.becomes else _has_download(file, folder)


def _has_download(file: RemoteFile, folder: Path) -> bool:
    path = folder / file.name
    if not path.is_file():
        return False
    if file.size in (None, path.stat().st_size) and _digest(path, file.algorithm) == file.digest:
        return True
    logger.warning("%s is not the published file (%s differs) and is passed over.", path, file.algorithm)
    return False


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _download(file: RemoteFile, folder: Path, progress: bool) -> None:
    import pooch
    import requests

    path = folder / file.name
    by_hand = f"Try again later, or put the file into {os.fspath(folder)!r} by hand."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # pooch writes to a temporary name, compares the checksum and only then renames.
        pooch.retrieve(
            file.url,
            known_hash=f"{file.algorithm}:{file.digest}",
            fname=file.name,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=progress, timeout=_TIMEOUT_S),
        )
        path.chmod(file_mode(folder))
    except requests.exceptions.RequestException as error:
        raise failed_download(file.url, f"the connection failed ({error})", by_hand) from error
    except ValueError as error:  # raised by pooch when the checksum differs
        reason = f"what came is truncated or not the published file (its {file.algorithm} differs)"
        raise failed_download(file.url, reason, by_hand) from error
    except OSError as error:
        raise explain_os_error("download to", path, error) from error
