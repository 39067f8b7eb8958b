"""What a folder of checkpoints was made from, so that a run never goes on with something else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from neuroloaders.atomic import atomic_write
from neuroloaders.checkpoints import as_json, check_same_config, read_json
from neuroloaders.events_table import EventTable

__all__ = ["claim_run"]

_RUN = "images.json"


def claim_run(run_dir: Path, decoder: Any, tables: dict[str, EventTable]) -> None:
    """Write what is trained on what into the folder of a run, or refuse to go on with something else there.

    Parameters
    ----------
    run_dir : Path
        Made if it is not there.
    decoder : ImageDecoder
        With its configuration, rate and subjects.
    tables : dict of str to EventTable
        The presentations of each part.

    Raises
    ------
    ValueError
        If another run lies there; it names what differs.
    """
    record = {"config": decoder.config.as_dict(), "sfreq": decoder.sfreq_, "subjects": list(decoder.subjects_)}
    for part, table in tables.items():
        columns = [table.recording, table.start, table.stimulus]
        text = "\n".join(map(str, zip(*(column.tolist() for column in columns), strict=True)))
        record[part] = hashlib.sha256(text.encode()).hexdigest()
    given, path = as_json("run", record), run_dir / _RUN
    if path.exists():
        check_same_config(path, read_json(path), given)
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        json.dump(given, file, indent=1)
