"""The folder of an experiment: what was asked and what came out, so that the same call need not do it again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroloaders.checks import corrupt_file, invalid
from neuroloaders.runs import RunFolder, atomic_write, to_csv

__all__ = ["FIGURES", "REPORT", "RESULTS", "TABLE", "TRAINING", "begin", "finish", "remove_experiment"]

# What an experiment's folder holds, beside the settings and versions of every run: the folder of its trainings, that
# of its figures, and what came out.
TRAINING, FIGURES = "training", "figures"
RESULTS, TABLE, REPORT = "results.json", "results.csv", "report.html"
_SETTINGS = ("config.json", "versions.txt")


def begin(out: str | os.PathLike[str], settings: Mapping[str, Any], *, fresh: bool = False) -> dict[str, Any] | None:
    """Take a folder for an experiment, or find the one that is complete there.

    Parameters
    ----------
    out : path-like
        The folder; made if it is not there.
    settings : mapping
        All that the result depends on.
    fresh : bool
        Remove an earlier experiment from the folder first.

    Returns
    -------
    dict or None
        The results if the same experiment is complete there; None if it is to be run, or to go on.

    Raises
    ------
    ValueError
        If the folder holds an experiment with other settings: which, and what to do.
    """
    if fresh:
        remove_experiment(out)
    RunFolder(out).claim(settings)
    file = Path(out) / RESULTS
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise corrupt_file(file, "it is no JSON", "Delete it and start the same command again.") from error


def finish(out: str | os.PathLike[str], results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``results.csv`` and, last, ``results.json``, which says that the experiment is complete.

    Parameters
    ----------
    out : path-like
        The folder that `begin` was given.
    results : mapping
        All that came out, as JSON can hold it.
    rows : sequence of mapping
        The table of it, with the same columns in each row.
    """
    with atomic_write(Path(out) / TABLE, "w") as file:
        file.write(to_csv(rows))
    with atomic_write(Path(out) / RESULTS, "w") as file:
        json.dump(results, file, indent=2, allow_nan=False)


def remove_experiment(out: str | os.PathLike[str]) -> None:
    """Remove what an experiment has written into a folder; anything else stays.

    Raises
    ------
    ValueError
        If the folder is not empty and no experiment's.
    """
    folder = Path(out)
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not all((folder / name).is_file() for name in _SETTINGS):
        advice = "Choose another folder."
        raise invalid("out", "be empty or the folder of an experiment", repr(os.fspath(out)), advice)
    # The settings go last: a removal that was interrupted can be repeated.
    for name in (RESULTS, TABLE, REPORT, TRAINING, FIGURES, *_SETTINGS):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
