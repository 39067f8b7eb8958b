"""What a sweep keeps on disk: a file for each run, named by what was run, with what it was run by."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import corrupt_file, explain_os_error, invalid
from reservoir.sweep_points import Point, plain

__all__ = ["Store", "as_result", "fingerprint"]

_FORMAT = 1
_RECORD, _ARRAY = "record", "result."
_SCALARS = (bool, int, float, str, type(None))


class Store:
    """A folder of results.

    Parameters
    ----------
    path : path-like
        The folder; made if it is not there. Sweeps of several functions may share one.
    function : callable
        What makes the results.
    """

    def __init__(self, path: str | os.PathLike[str], function: Callable[..., Any]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error("make the folder", path, error) from error
        self.name, self.fixed, self.version = _name(function), _fixed(function), fingerprint(function)

    def file(self, point: Point) -> Path:
        """Return where the result of a run lies.

        Parameters
        ----------
        point : Point
            The run.
        """
        text = json.dumps([self.name, self.fixed, point.plain], sort_keys=True)
        return self.path / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"

    def write(self, point: Point, result: Mapping[str, Any], seconds: float) -> None:
        """Keep the result of a run; the file is there as a whole or not at all.

        Parameters
        ----------
        point : Point
            The run.
        result : mapping
            What `as_result` returned.
        seconds : float
            How long it took.
        """
        arrays = {f"{_ARRAY}{name}": value for name, value in result.items() if isinstance(value, np.ndarray)}
        record = {
            "format": _FORMAT, "function": self.name, "fixed": self.fixed, **json.loads(point.plain),
            "version": self.version, "spikedecode": _version(), "seconds": seconds, "names": list(result),
            "result": {name: value for name, value in result.items() if not isinstance(value, np.ndarray)},
        }  # fmt: skip
        with atomic_write(self.file(point)) as file:
            np.savez(file, **{_RECORD: np.array(json.dumps(record))}, **arrays)

    def read(self, point: Point) -> tuple[dict[str, Any], float, bool] | None:
        """Return result, seconds, and whether the same version of the function made it; None if there is nothing.

        Parameters
        ----------
        point : Point
            The run.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        path = self.file(point)
        try:
            # Opened here, because numpy leaves a damaged file open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                record = json.loads(str(stored[_RECORD][()]))
                if record["format"] != _FORMAT:
                    raise ValueError(f"its format is {record['format']}, not {_FORMAT}")
                arrays = {name: stored[f"{_ARRAY}{name}"] for name in record["names"] if name not in record["result"]}
                found = record["result"] | arrays
                result = {name: found[name] for name in record["names"]}
                same = (record["version"], record["spikedecode"]) == (self.version, _version())
                return result, float(record["seconds"]), same
        except FileNotFoundError:
            return None
        except Exception as error:
            # zipfile, numpy and json raise a dozen kinds for what a damaged disk or a broken copy may hold.
            raise corrupt_file(path, f"it is no result of a sweep ({error})", "Delete it; it is run again.") from error


def as_result(value: Any) -> dict[str, Any]:
    """Return what a function gave as names with numbers, texts and arrays, as they are read back from disk.

    Parameters
    ----------
    value : number, text, array, or mapping of names to such
        What the function returned. Without a name it is called "value".

    Raises
    ------
    TypeError
        If it is something else, or holds something else.
    """
    named = value if isinstance(value, Mapping) else {"value": value}
    result = {}
    for name, entry in named.items():
        if not isinstance(name, str):
            raise _no_result(f"the name {name!r}")
        if hasattr(entry, "detach"):
            entry = entry.detach().cpu().numpy()
        if isinstance(entry, np.generic) or (isinstance(entry, np.ndarray) and entry.ndim == 0):
            entry = entry.item()
        if isinstance(entry, list | tuple):
            try:
                entry = np.array(entry)
            except ValueError:
                raise _no_result(f"a list of unequal length as {name!r}") from None
        if isinstance(entry, np.ndarray):
            if entry.dtype.kind not in "biufcUSmM":
                raise _no_result(f"an array of dtype {entry.dtype} as {name!r}")
            # A copy: what the caller goes on to change is not part of the result.
            entry = np.array(entry)
        elif not isinstance(entry, _SCALARS):
            raise _no_result(f"{type(entry).__name__} as {name!r}")
        result[name] = entry
    return result


def _no_result(got: str) -> Exception:
    required = "return a number, a text, an array, or a mapping of names to such"
    advice = "Return what is to be compared, such as {'rmse': curves.rmse}."
    return invalid("function", required, got, advice, kind=TypeError)


def fingerprint(function: Callable[..., Any]) -> str:
    """Return a hash that changes when the function does, or what it uses of its own file.

    Parameters
    ----------
    function : callable
        A function, a partial one, a method, or an object that can be called.

    Returns
    -------
    str
        Of its source without comments and docstrings, of the functions and classes of the same module that it uses, and
        of the constants, defaults and captured variables among them. What it imports is not looked at, but for the
        version of this package.

    Examples
    --------
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    own = _function(function)
    text = "\n".join(_parts(own, getattr(own, "__module__", None), set()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _function(function: Any) -> Any:
    """Return the function behind partial ones, methods, and objects that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType | types.BuiltinFunctionType | type):
        function = getattr(type(function).__call__, "__func__", type(function).__call__)
    return function


def _parts(thing: Any, module: str | None, seen: set[int]) -> Iterator[str]:
    """Yield the texts that make up a function or class, and what it uses of its module."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    yield _source(thing)
    code = getattr(thing, "__code__", None)
    if code is None:
        return
    cells = zip(code.co_freevars, thing.__closure__ or (), strict=True)
    used = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
    used |= {name: thing.__globals__[name] for name in _names(code) if name in thing.__globals__}
    used |= {"defaults": thing.__defaults__, "keyword defaults": thing.__kwdefaults__}
    for name, value in sorted(used.items()):
        if isinstance(value, types.FunctionType | type):
            if value.__module__ == module:
                yield from _parts(value, module, seen)
        else:
            try:
                yield f"{name} = {json.dumps(plain(name, value), sort_keys=True)}"
            except (TypeError, ValueError):
                # A module, an open file: nothing that a hash could tell apart.
                continue


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function uses, those inside it included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _source(thing: Any) -> str:
    """Return the source without comments and docstrings; the compiled code where there is no source."""
    code = getattr(thing, "__code__", None)
    if getattr(thing, "__name__", "") == "<lambda>":
        # Its source is the line that it is on, with whatever else there is.
        return _compiled(code)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return _compiled(code)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            first = body[0].value
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                body[:1] = [] if len(body) > 1 else [ast.Pass()]
    return ast.unparse(tree)


def _compiled(code: types.CodeType | None) -> str:
    if code is None:
        return ""
    constants = [_compiled(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_varnames))


def _name(function: Any) -> str:
    """Return module and name; of a script, that of its file."""
    own = _function(function)
    module, name = getattr(own, "__module__", None), getattr(own, "__qualname__", repr(own))
    code = getattr(own, "__code__", None)
    if module == "__main__" and code is not None:
        module = Path(code.co_filename).stem
    return f"{module}.{name}"


def _fixed(function: Any) -> Any:
    """Return the arguments that partial functions hold, and the object of a method: they are part of what is run."""
    held: list[Any] = []
    while isinstance(function, functools.partial):
        held.append([list(function.args), function.keywords])
        function = function.func
    owner = getattr(function, "__self__", None)
    if not isinstance(function, types.FunctionType | types.BuiltinFunctionType | types.MethodType | type):
        owner = function
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        held.append(owner)
    try:
        return plain("function", held)
    except TypeError as error:
        required = "hold only numbers, texts, and lists or dataclasses of such where results are kept in `path`"
        advice = "They tell its results from those of others."
        raise invalid("function", required, function, advice, kind=TypeError) from error


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("spikedecode")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
