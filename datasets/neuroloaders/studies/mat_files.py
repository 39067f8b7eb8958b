"""MATLAB files of other people's: variables by name, with errors that say what is wrong with which file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import corrupt_file, missing_data

__all__ = ["field", "numbers", "read_mat", "texts"]


def read_mat(path: Path, variables: tuple[str, ...]) -> dict[str, Any]:
    """Read variables of a MATLAB file of version 5 to 7; structs become dicts, and axes of length 1 are dropped.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it cannot be read, or lacks a variable.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=list(variables), simplify_cells=True)
    except FileNotFoundError as error:
        raise missing_data("MATLAB file", [path.name], [path.parent], "It is part of the study.") from error
    except NotImplementedError as error:
        advice = "Load it in MATLAB and save it with save(..., '-v7')."
        raise corrupt_file(path, "it is of MATLAB's version 7.3", advice) from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise corrupt_file(path, f"it is no MATLAB file, or cut short ({error})") from error
    for name in variables:
        if name not in found:
            raise corrupt_file(path, f"it holds no variable {name!r}", "Is it the file of another study?")
    return {name: found[name] for name in variables}


def field(path: Path, struct: Any, name: str, *, where: str) -> Any:
    """Return a field of a struct, ``where.name``."""
    if not isinstance(struct, Mapping) or name not in struct:
        raise corrupt_file(path, f"it has no field {where}.{name}", "Is it the file of another study?")
    return struct[name]


def numbers(path: Path, value: Any, shape: tuple[int | str, ...], *, what: str) -> np.ndarray:
    """Return an array of finite numbers with as many axes as `shape` has, as float64; a whole number is a length."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise corrupt_file(path, f"{what} holds no numbers") from error
    fits = array.ndim == len(shape) and all(
        isinstance(wanted, str) or wanted == got for wanted, got in zip(shape, array.shape, strict=True)
    )
    if not fits or array.size == 0:
        axes = ", ".join(map(str, shape))
        raise corrupt_file(path, f"{what} has shape {array.shape}, not ({axes})")
    if not np.isfinite(array).all():
        raise corrupt_file(path, f"{what} holds NaN or infinity")
    return array


def texts(value: Any) -> list[str]:
    """Return a cell of text as a list: MATLAB's one text, its empty cell, and whole numbers included."""
    items = [value] if isinstance(value, str) else np.asarray(value, dtype=object).ravel().tolist()
    items = [int(item) if isinstance(item, float) and item.is_integer() else item for item in items]
    return [str(item).strip() for item in items if str(item).strip()]
