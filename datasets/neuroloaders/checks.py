"""Checks of what a user passed in. This file is the only home of error wording.

Every message is one sentence or two: which argument, what is required, what came, what to do.
Each check returns the value it was given, so that a check and an assignment fit on one line.
"""

from __future__ import annotations

import errno
import importlib
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

__all__ = [
    "check_finite",
    "check_fraction",
    "check_int",
    "check_number",
    "check_option",
    "check_same_length",
    "check_shape",
    "check_state_dict",
    "corrupt_file",
    "describe",
    "explain_os_error",
    "failed_download",
    "invalid",
    "missing_data",
    "soft_import",
]


def describe(value: Any) -> str:
    """Say what a value is, in few words: its shape and dtype if it is an array, else its type and value."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"shape {tuple(shape)} and dtype {getattr(value, 'dtype', '?')}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def invalid(name: str, required: str, got: Any, advice: str = "", *, kind: type[Exception] = ValueError) -> Exception:
    """Build the one sentence that all checks share; the caller raises it.

    Parameters
    ----------
    name : str
        The argument as the user wrote it.
    required : str
        What it must be, continuing "`name` must ...".
    got : object
        What came: a string is quoted as it stands, anything else is described.
    advice : str
        What to do, as a sentence of its own.
    kind : type of exception
        ``ValueError`` by default; ``TypeError`` for a wrong kind of thing.
    """
    came = got if isinstance(got, str) else describe(got)
    return kind(f"`{name}` must {required}, got {came}.{' ' + advice if advice else ''}")


def check_option(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Return `value` if it is one of `allowed` (a dict's keys will do), else raise ValueError."""
    allowed = list(allowed)
    if value not in allowed:
        raise invalid(name, f"be one of {', '.join(map(repr, allowed))}", repr(value))
    return value


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
    finite: bool = True,
    advice: str = "",
) -> float:
    """Return `value` as float if it is a real number inside the bounds.

    Parameters
    ----------
    name : str
        The argument's name.
    value : float
        What came.
    above, below : float
        Bounds that are excluded.
    at_least, at_most : float
        Bounds that are included.
    finite : bool
        Refuse infinity. NaN is always refused.
    advice : str
        What to do.

    Raises
    ------
    TypeError
        If `value` is no real number (a bool is none).
    ValueError
        If it lies outside the bounds.
    """
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">", above), (">=", at_least), ("<", below), ("<=", at_most))
        if math.isfinite(bound)
    ]
    required = "be a finite number" if finite else "be a number"
    required += f" {' and '.join(bounds)}" if bounds else ""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise invalid(name, required, value, advice, kind=TypeError)
    number = float(value)
    inside = above < number < below or (math.isinf(number) and not finite and number in (above, below))
    if math.isnan(number) or (finite and math.isinf(number)) or not (inside and at_least <= number <= at_most):
        raise invalid(name, required, f"{value}", advice)
    return number


def check_fraction(name: str, value: Any, *, advice: str = "") -> float:
    """Return `value` as float if it lies in [0, 1]."""
    return check_number(name, value, at_least=0, at_most=1, advice=advice)


def check_int(
    name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None, advice: str = ""
) -> int:
    """Return `value` as int if it is a whole number inside the bounds, which are included."""
    bounds = [f"{sign} {bound}" for sign, bound in ((">=", at_least), ("<=", at_most)) if bound is not None]
    required = "be a whole number" + (f" {' and '.join(bounds)}" if bounds else "")
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise invalid(name, required, value, advice, kind=TypeError)
    number = int(value)
    if (at_least is not None and number < at_least) or (at_most is not None and number > at_most):
        raise invalid(name, required, f"{number}", advice)
    return number


def check_shape(name: str, value: Any, shape: Sequence[int | str | None], *, advice: str = "") -> Any:
    """Return `value` if its shape fits the pattern.

    Parameters
    ----------
    name : str
        The argument's name.
    value : array or tensor
        Anything with a ``shape``.
    shape : sequence
        An int is required exactly; a letter or None stands for any size, and the same letter for the same
        size; ``"..."`` as the last entry allows any further axes.
    advice : str
        What to do.
    """
    pattern = list(shape)
    open_ended = bool(pattern) and pattern[-1] == "..."
    wanted = pattern[:-1] if open_ended else pattern
    axes = ", ".join("?" if axis is None else str(axis) for axis in pattern)
    text = f"({axes},)" if len(pattern) == 1 else f"({axes})"
    if not hasattr(value, "shape"):
        raise invalid(name, f"be an array of shape {text}", value, advice, kind=TypeError)
    got = tuple(int(size) for size in value.shape)
    fits = len(got) >= len(wanted) if open_ended else len(got) == len(wanted)
    sizes: dict[str, int] = {}
    for axis, size in zip(wanted, got, strict=False):
        if isinstance(axis, str):
            fits = fits and sizes.setdefault(axis, size) == size
        elif axis is not None:
            fits = fits and axis == size
    if not fits:
        raise invalid(name, f"have shape {text}", f"{got}", advice)
    return value


def check_same_length(**arrays: Any) -> int:
    """Return the common length of the named arrays, else raise ValueError with every length."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        names = ", ".join(f"`{name}`" for name in lengths)
        came = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ValueError(
            f"{names} must have the same length, got {came}. Each row of one belongs to the same row of the others."
        )
    return next(iter(lengths.values()))


def check_finite(name: str, value: Any, *, advice: str = "") -> Any:
    """Return `value` (array or tensor) if it holds no NaN and no infinity.

    The message counts the bad values and shows where the first one is.
    """
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        # One pass and one number: the sum of x * 0 is 0 unless a value is NaN or infinite.
        if not value.is_floating_point() or (value.detach() * 0).sum().item() == 0:
            return value
        bad = ~torch.isfinite(value.detach())
        count, where = int(bad.sum()), tuple(bad.nonzero()[0].tolist())
    else:
        bad = ~np.isfinite(np.asarray(value))
        count = int(bad.sum())
        if count == 0:
            return value
        where = tuple(int(axis[0]) for axis in np.nonzero(bad))
    raise invalid(
        name,
        "hold finite numbers only",
        f"{count} NaN or infinite values, the first at index {where}",
        advice or "Find where they come from before training on them.",
    )


def check_state_dict(path: Any, have: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """Compare the tensors of a checkpoint with those of a model; raise ValueError on the first difference.

    Parameters
    ----------
    path : path-like
        Where the checkpoint came from, for the message.
    have : mapping of str to tensor
        The tensors in the checkpoint.
    want : mapping of str to tensor
        The tensors of the model it is to be loaded into.
    """
    missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    shapes = [key for key in want if key in have and tuple(want[key].shape) != tuple(have[key].shape)]
    if not (missing or extra or shapes):
        return
    parts = []
    if missing:
        parts.append(f"it lacks {len(missing)} tensors of the model (first: {missing[0]!r})")
    if extra:
        parts.append(f"it has {len(extra)} tensors that the model lacks (first: {extra[0]!r})")
    if shapes:
        key = shapes[0]
        there, here = tuple(have[key].shape), tuple(want[key].shape)
        parts.append(f"{len(shapes)} shapes differ (first: {key!r} is {there}, the model has {here})")
    raise ValueError(
        f"The checkpoint {os.fspath(path)!r} is of another architecture: {'; '.join(parts)}. "
        "Build the model with the settings the checkpoint was trained with, or choose another folder."
    )


_OS_ADVICE = {
    errno.ENOSPC: "the disk is full. Free some space, or choose a folder on another disk",
    errno.EDQUOT: "your disk quota is used up. Free some space, or choose a folder on another disk",
    errno.EFBIG: "the file would be larger than this system allows. Raise the limit, or choose another disk",
    errno.EACCES: "you may not write there. Choose a folder that you own",
    errno.EROFS: "that file system is read-only. Choose another folder",
}


def explain_os_error(action: str, path: Any, error: OSError) -> OSError:
    """Turn an OSError of writing or reading into one clear sentence; the caller raises it from the first.

    Parameters
    ----------
    action : str
        What was being done, continuing "Could not ...": "write", "download".
    path : path-like
        The file.
    error : OSError
        What the system said.
    """
    reason = _OS_ADVICE.get(error.errno or 0, f"{error.strerror or error}. Check the path and try again")
    message = f"Could not {action} {os.fspath(path)!r}: {reason}. Nothing was left half-written."
    return OSError(error.errno, message)


def corrupt_file(path: Any, reason: str, advice: str = "") -> ValueError:
    """Say that a file is not what its format promises; the caller raises it.

    Parameters
    ----------
    path : path-like
        The file.
    reason : str
        What is wrong, continuing "the file cannot be read: ...".
    advice : str
        What to do, as a sentence of its own.
    """
    advice = advice or "Delete it and fetch it again."
    return ValueError(f"{os.fspath(path)!r} cannot be read: {reason}. {advice}")


def failed_download(url: str, reason: str, advice: str) -> OSError:
    """Say that a download failed and that nothing of it was kept; the caller raises it.

    Parameters
    ----------
    url : str
        What was asked for.
    reason : str
        What went wrong, continuing "Could not download ...: ".
    advice : str
        What to do, as a sentence of its own.
    """
    return OSError(f"Could not download {url}: {reason}. Nothing of it was kept. {advice}")


def missing_data(name: str, files: Sequence[str], folders: Iterable[Any], advice: str) -> FileNotFoundError:
    """Say which data set is not there, what was looked for and where; the caller raises it.

    Parameters
    ----------
    name : str
        The data set.
    files : sequence of str
        What the data set consists of.
    folders : iterable of path-like
        Where it was looked for.
    advice : str
        What to do, as a sentence of its own.
    """
    places = ", ".join(dict.fromkeys(repr(os.fspath(folder)) for folder in folders))
    return FileNotFoundError(f"The data set {name!r} ({', '.join(files)}) is in none of {places}. {advice}")


def soft_import(name: str, *, purpose: str, extra: str | None = None) -> ModuleType:
    """Import an optional package at the point of use.

    Parameters
    ----------
    name : str
        The module to import.
    purpose : str
        What needs it, as the start of the error: "The 'brian2' backend".
    extra : str, optional
        The extra of spikedecode that installs it.

    Raises
    ------
    ImportError
        If it cannot be imported, with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        distribution = f"'spikedecode[{extra}]'" if extra else name.split(".")[0].replace("_", "-")
        absent = isinstance(error, ModuleNotFoundError)
        missing = "is not installed" if absent else f"could not be imported ({error})"
        raise ImportError(f"{purpose} needs {name}, which {missing}: pip install {distribution}") from error
