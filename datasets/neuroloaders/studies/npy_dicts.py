"""Dictionaries of arrays that ``np.save`` wrote: read without running what is in the file, arrays left on the disk.

``np.save(path, {"x": array})`` writes a pickle, and unpickling a stranger's file runs whatever it asks for. Here the
few instructions that such a dictionary needs are carried out one by one, and nothing else: arrays of numbers and text,
numbers, text, lists, tuples and dictionaries come out, anything more is refused by name.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neuroloaders.checks import corrupt_file, missing_data

__all__ = ["read_npy_dict"]

_ADVICE = "Only dictionaries of arrays, lists, text and numbers are read, for a pickle may run anything."
_DTYPE = re.compile(r"[<>|=]?([?biufcSU]\d*|O8?)")
_DEPTH = 20  # of lists and dictionaries in one another


def read_npy_dict(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a dictionary that ``np.save`` wrote.

    Parameters
    ----------
    path : path-like
        The file: an array of one object, as ``np.save(path, dictionary)`` writes it (pickle protocols 2 to 4).

    Returns
    -------
    dict
        Arrays are read-only views of a memory map of the file: an array larger than memory is no trouble, as long as
        it is used part by part. They need not be aligned in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is cut short, or asks for anything but what is named above.
    """
    path = Path(path)
    if not path.is_file():
        raise missing_data("dictionary of arrays", [path.name], [path.parent], "It is part of the study.")
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(file)
            begin = file.tell()
    except (OSError, ValueError, KeyError) as error:
        raise corrupt_file(path, f"it is no file of np.save ({error})") from error
    if dtype.kind != "O" or shape != ():
        raise corrupt_file(path, f"it holds an array of shape {shape} and dtype {dtype}, no dictionary", _ADVICE)
    content = np.memmap(path, dtype=np.uint8, mode="r")
    try:
        found = _resolved(_Machine(content, begin).run(), {})
    except (_Refused, IndexError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise corrupt_file(path, str(error) or "it is cut short", _ADVICE) from error
    found = found.item() if isinstance(found, np.ndarray) and found.shape == () else found
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise corrupt_file(path, "it holds no dictionary with text as keys", _ADVICE)
    return found


class _Refused(Exception):
    """What the file asks for is not done."""


class _Dtype:
    """A type of arrays: its name, and the order of bytes that its state says."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            raise _Refused(f"it has an array of the type {name!r}")
        self.dtype = np.dtype(name)

    def build(self, state: Any) -> None:
        _, order, *rest = state
        if order not in ("<", ">", "=", "|") or any(part is not None for part in rest[:3]):
            raise _Refused("it has an array of structures")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array, without its content until its state is known."""

    def __init__(self, kind: Any, *_: Any) -> None:
        if kind is not np.ndarray:
            raise _Refused("it has a subclass of arrays")
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise _Refused("it has an array without a shape")
        if not isinstance(kind, _Dtype):
            raise _Refused("it has an array without a type")
        size = math.prod(shape)
        if kind.dtype.kind == "O":
            if not isinstance(content, list) or len(content) != size:
                raise _Refused("it has an array of objects that is not whole")
            values = np.empty(size, dtype=object)
            for place, item in enumerate(content):
                values[place] = item
        else:
            if not isinstance(content, np.ndarray) or content.size != size * kind.dtype.itemsize:
                raise _Refused(f"it has an array of shape {shape} that is not whole")
            # A view of no bytes is not defined for text of length 0.
            values = content.view(kind.dtype) if content.size else np.zeros(size, kind.dtype)
        self.value = values.reshape(shape, order="F" if fortran else "C")


def _scalar(kind: Any, content: Any) -> Any:
    if not isinstance(kind, _Dtype) or kind.dtype.kind == "O" or not isinstance(content, np.ndarray):
        raise _Refused("it has a number of an unknown type")
    return content.view(kind.dtype)[0].item() if content.size else kind.dtype.type().item()


def _encoded(text: Any, code: Any) -> np.ndarray:
    """Return bytes, which protocol 2 writes as text of Latin-1."""
    if not isinstance(text, str) or code != "latin1":
        raise _Refused("it has bytes in an unknown code")
    return np.frombuffer(text.encode("latin1"), dtype=np.uint8)


def _no_bytes() -> np.ndarray:
    """Return what protocol 2 writes for no bytes."""
    return np.zeros(0, dtype=np.uint8)


# What a dictionary of arrays needs, by the names that pickles have for it; NumPy 2 renamed its core.
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}
_CALLED = (_Dtype, _Array, _scalar, _encoded, _no_bytes)


def _resolved(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """Return a value with arrays in the place of what stands for them; `done` holds what was met before."""
    if depth > _DEPTH:
        raise _Refused("lists and dictionaries are too deep in one another")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if id(value) not in done:
        done[id(value)] = _made(value, done, depth)
    return done[id(value)]


def _made(value: Any, done: dict[int, Any], depth: int) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise _Refused("it has an array without content")
        if value.value.dtype.kind != "O":
            return value.value
        out = np.empty(value.value.shape, dtype=object)
        for place, item in np.ndenumerate(value.value):
            out[place] = _resolved(item, done, depth + 1)
        return out
    if isinstance(value, dict):
        return {key: _resolved(item, done, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(item, done, depth + 1) for item in value)
    raise _Refused("it has something that is no array, list, text or number")


class _Machine:
    """The stack machine of pickle, with the instructions of `_OPS` only."""

    def __init__(self, content: np.ndarray, place: int) -> None:
        self.content, self.place = content, place
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = int(self.taken(1)[0])
            if code == pickle.STOP[0]:
                return self.stack.pop()
            if code not in _OPS:
                raise _Refused(f"it has the pickle instruction {bytes([code])!r}")
            _OPS[code](self)

    def taken(self, n: int) -> np.ndarray:
        if n < 0 or self.place + n > len(self.content):
            raise _Refused("it is cut short")
        self.place += n
        return self.content[self.place - n : self.place]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.taken(struct.calcsize(layout)).tobytes())[0]

    def line(self) -> str:
        begin = self.place
        while int(self.taken(1)[0]) != 10:
            pass
        return self.content[begin : self.place - 1].tobytes().decode("ascii")

    def marked(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def known(self, module: Any, name: Any) -> None:
        if (module, name) not in _KNOWN:
            raise _Refused(f"it asks for {module}.{name}")
        self.stack.append(_KNOWN[module, name])

    def stack_known(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.known(module, name)

    def reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not any(called is known for known in _CALLED) or not isinstance(arguments, tuple):
            raise _Refused("it calls something")
        self.stack.append(called(*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, (_Array, _Dtype)) or not isinstance(state, tuple):
            raise _Refused("it sets the state of something that is no array")
        target.build(state)

    def text(self, layout: str) -> None:
        self.stack.append(self.taken(self.number(layout)).tobytes().decode("utf-8", "surrogatepass"))

    def items(self, pairs: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict) or len(pairs) % 2:
            raise _Refused("it sets an item of something that is no dictionary")
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _Refused("it appends to something that is no list")
        self.stack[-1].extend(values)

    def last(self, n: int) -> list[Any]:
        """Take the last `n` values off the stack."""
        if len(self.stack) < n:
            raise _Refused("it is damaged")
        values = self.stack[-n:]
        del self.stack[-n:]
        return values

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise _Refused("it is damaged")
        self.stack.append(self.memo[place])


def _integer(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine.taken(machine.number("B")).tobytes(), "little", signed=True))


_OPS: dict[int, Callable[[_Machine], Any]] = {
    pickle.PROTO[0]: lambda m: m.taken(1),
    pickle.FRAME[0]: lambda m: m.taken(8),
    pickle.MARK[0]: _Machine.mark,
    pickle.POP[0]: lambda m: m.stack.pop(),
    pickle.NONE[0]: lambda m: m.push(None),
    pickle.NEWTRUE[0]: lambda m: m.push(True),
    pickle.NEWFALSE[0]: lambda m: m.push(False),
    pickle.BININT[0]: lambda m: m.push(m.number("<i")),
    pickle.BININT1[0]: lambda m: m.push(m.number("B")),
    pickle.BININT2[0]: lambda m: m.push(m.number("<H")),
    pickle.LONG1[0]: _integer,
    pickle.BINFLOAT[0]: lambda m: m.push(m.number(">d")),
    pickle.SHORT_BINUNICODE[0]: lambda m: m.text("B"),
    pickle.BINUNICODE[0]: lambda m: m.text("<I"),
    pickle.BINUNICODE8[0]: lambda m: m.text("<Q"),
    pickle.SHORT_BINBYTES[0]: lambda m: m.push(m.taken(m.number("B"))),
    pickle.BINBYTES[0]: lambda m: m.push(m.taken(m.number("<I"))),
    pickle.BINBYTES8[0]: lambda m: m.push(m.taken(m.number("<Q"))),
    pickle.EMPTY_LIST[0]: lambda m: m.push([]),
    pickle.EMPTY_DICT[0]: lambda m: m.push({}),
    pickle.EMPTY_TUPLE[0]: lambda m: m.push(()),
    pickle.TUPLE[0]: lambda m: m.push(tuple(m.marked())),
    pickle.TUPLE1[0]: lambda m: m.push(tuple(m.last(1))),
    pickle.TUPLE2[0]: lambda m: m.push(tuple(m.last(2))),
    pickle.TUPLE3[0]: lambda m: m.push(tuple(m.last(3))),
    pickle.APPEND[0]: lambda m: m.append(m.last(1)),
    pickle.APPENDS[0]: lambda m: m.append(m.marked()),
    pickle.SETITEM[0]: lambda m: m.items(m.last(2)),
    pickle.SETITEMS[0]: lambda m: m.items(m.marked()),
    pickle.BINPUT[0]: lambda m: m.remember(m.number("B")),
    pickle.LONG_BINPUT[0]: lambda m: m.remember(m.number("<I")),
    pickle.MEMOIZE[0]: lambda m: m.remember(len(m.memo)),
    pickle.BINGET[0]: lambda m: m.recall(m.number("B")),
    pickle.LONG_BINGET[0]: lambda m: m.recall(m.number("<I")),
    pickle.GLOBAL[0]: lambda m: m.known(m.line(), m.line()),
    pickle.STACK_GLOBAL[0]: _Machine.stack_known,
    pickle.REDUCE[0]: _Machine.reduce,
    pickle.BUILD[0]: _Machine.build,
}
