"""Where data lies: the folders that are searched, and the one that may be written to.

Search order: the `data_dir` argument, the environment variable ``NEUROLOADERS_DATA``, ``../shared/data``
beside a development checkout, the user's cache folder. Downloads and caches go to the first of them that
may be written to, never into ``../shared/data``, and nowhere but `data_dir` if that was given.
"""

from __future__ import annotations

import os
from pathlib import Path

from neuroloaders.checks import invalid

__all__ = ["DATA_VARIABLE", "download_folder", "file_mode", "search_folders"]

DATA_VARIABLE = "NEUROLOADERS_DATA"


def search_folders(data_dir: str | os.PathLike | None = None) -> list[Path]:
    """Return the folders in which data sets are looked for, in order; they need not exist."""
    candidates = (_given(data_dir), _from_environment(), _beside_checkout(), _user_cache())
    return [folder for folder in candidates if folder is not None]


def download_folder(data_dir: str | os.PathLike | None = None) -> Path:
    """Return the folder that downloads and caches go to; it need not exist yet.

    An explicit `data_dir` is taken as it is: if it cannot be written to, writing says so. A
    ``NEUROLOADERS_DATA`` that cannot be written to (data shared by a lab) is passed over for the user's
    cache.

    Raises
    ------
    ValueError
        If `data_dir` is the ``../shared/data`` of a development checkout.
    """
    given = _given(data_dir)
    if given is not None:
        if _is_shared(given):
            advice = "Data beside the checkout is only read. Choose a folder of your own."
            raise invalid("data_dir", "be another folder than ../shared/data to download to", str(given), advice)
        return given
    named = _from_environment()
    if named is not None and _may_write(named) and not _is_shared(named):
        return named
    return _user_cache()


def file_mode(folder: Path) -> int:
    """Return the permissions of a new file in `folder`: those of the folder without the right to execute.

    Temporary files are private to their owner; once renamed, a lab's other members must be able to read them.
    """
    return folder.stat().st_mode & 0o666


def _given(data_dir: str | os.PathLike | None) -> Path | None:
    return None if data_dir is None else Path(data_dir).expanduser().absolute()


def _from_environment() -> Path | None:
    value = os.environ.get(DATA_VARIABLE, "").strip()
    return Path(value).expanduser().absolute() if value else None


def _beside_checkout() -> Path | None:
    root = Path(__file__).resolve().parents[2]
    shared = root.parent / "shared" / "data"
    # In site-packages there is no pyproject.toml two levels up.
    return shared if (root / "pyproject.toml").is_file() and shared.is_dir() else None


def _user_cache() -> Path:
    import pooch

    return Path(pooch.os_cache("neuroloaders"))


def _is_shared(folder: Path) -> bool:
    shared = _beside_checkout()
    return shared is not None and folder.exists() and folder.samefile(shared)


def _may_write(folder: Path) -> bool:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
