"""Decisions as JSON: readable, without pickle, and either whole or not there."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import corrupt_file, explain_os_error
from snn.early_exit.fitting import Fitted
from snn.early_exit.pareto import ParetoPoint
from snn.early_exit.recalibration import Recalibration

__all__ = ["FORMAT", "RULE_SETTINGS", "RUN_SETTINGS", "VERSION", "read", "write"]

FORMAT, VERSION = "spikedecode early exit", 2
# What the decision is made of, and how it is run; alpha and threshold are kept as they were given, too.
RULE_SETTINGS = ("n_steps", "criterion", "accumulate", "check_every")
RUN_SETTINGS = ("batch_size", "compact_below", "look_ahead", "calibrator", "recalibrate", "inputs")
_SETTINGS = {"alpha", "threshold", *RULE_SETTINGS, *RUN_SETTINGS}
_FITTED = {
    "alpha": float,
    "threshold": float,
    "mean_steps": float,
    "accuracy": float,
    "full_accuracy": float,
    "max_drop": float,
    "assurance": float,
    "n_samples": int,
    "pareto": list,
    "fingerprint": str,
    "recalibration": (list, type(None)),
}


def write(path: str | os.PathLike[str], settings: Mapping[str, Any], fitted: Fitted | None) -> Path:
    """Write a decision.

    Parameters
    ----------
    path : path-like
        The file; one that exists is replaced once all is written.
    settings : mapping
        What `DynamicConfidence` was made with.
    fitted : Fitted or None
        What it found.

    Returns
    -------
    Path
    """
    record = {"format": FORMAT, "version": VERSION, "settings": dict(settings), "fitted": None}
    if fitted is not None:
        found = {field.name: getattr(fitted, field.name) for field in dataclasses.fields(fitted)}
        # Triples and not objects: a front has hundreds of points.
        knots = None if fitted.recalibration is None else dataclasses.astuple(fitted.recalibration)
        pareto = [dataclasses.astuple(point) for point in fitted.pareto]
        record["fitted"] = {**found, "pareto": pareto, "recalibration": knots}
    with atomic_write(path, "w") as file:
        # Python writes the shortest digits that give the same float back.
        json.dump(record, file, indent=1, allow_nan=False)
        file.write("\n")
    return Path(path)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Fitted | None]:
    """Read what `write` wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    settings : dict
        Their values are checked by whoever takes them.
    fitted : Fitted or None

    Raises
    ------
    ValueError
        If the file holds something else.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise explain_os_error("read", path, error) from error
    except ValueError as error:
        raise corrupt_file(path, f"it is no JSON ({error})", "Save the decision again.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise corrupt_file(path, "it holds no early-exit decision", "Pass a file that DynamicConfidence.save wrote.")
    if record.get("version") != VERSION:
        reason = f"its version is {record.get('version')!r}, and this release reads {VERSION}"
        raise corrupt_file(path, reason, "Use the release that wrote it, or fit again.")
    settings, fitted = record.get("settings"), record.get("fitted")
    if not isinstance(settings, dict) or settings.keys() != _SETTINGS:
        raise corrupt_file(path, f"its settings are not {sorted(_SETTINGS)}", "Save the decision again.")
    if fitted is None:
        return settings, None
    if not isinstance(fitted, dict) or fitted.keys() != _FITTED.keys():
        raise corrupt_file(path, f"what was fitted is not {sorted(_FITTED)}", "Save the decision again.")
    for name, kind in _FITTED.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(fitted[name]) not in kinds:
            wanted = " or ".join(one.__name__ for one in kinds)
            reason = f"its {name!r} is {fitted[name]!r} and not of type {wanted}"
            raise corrupt_file(path, reason, "Save the decision again.")
    for point in fitted["pareto"]:
        if not isinstance(point, list) or [type(number) for number in point] != [float] * 3:
            raise corrupt_file(path, f"a point of its front is {point!r}", "Save the decision again.")
    knots = fitted["recalibration"]
    if knots is not None and not (len(knots) == 2 and all(_are_floats(part) for part in knots)):
        raise corrupt_file(path, "its 'recalibration' is not two lists of numbers", "Save the decision again.")
    points = tuple(ParetoPoint(*point) for point in fitted["pareto"])
    found = None if knots is None else Recalibration(*map(tuple, knots))
    return settings, Fitted(**{**fitted, "pareto": points, "recalibration": found})


def _are_floats(part: Any) -> bool:
    return isinstance(part, list) and all(type(number) is float for number in part)
