"""The runs that a sweep consists of: which parameters, which seeds, and how each is told apart from all others."""

# P points of the grid, S seeds

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_option, invalid

__all__ = ["SEEDING", "Point", "as_seeds", "make_points", "plain"]

SEEDING = {
    "paired": "the same seeds at all points: what differs between points is not the luck of the draw",
    "independent": "seeds of its own for each point, which depend on its parameters and not on its place",
}
# What a run is handed beside its parameters.
GENERATOR = "generator"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One run to do.

    Attributes
    ----------
    parameters : dict
        What the function is called with.
    generator : int or None
        Seed; None if the function draws nothing.
    plain : str
        Both as JSON: equal text means equal runs.
    """

    parameters: dict[str, Any]
    generator: int | None
    plain: str

    def __str__(self) -> str:
        named = [f"{name}={value!r}" for name, value in self.parameters.items()]
        return ", ".join([*named, *([] if self.generator is None else [f"{GENERATOR}={self.generator}"])])


def make_points(
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    seeds: int | Sequence[int] | None,
    *,
    seed: int,
    seeding: str,
) -> tuple[dict[str, list[Any]], int, list[Point]]:
    """Return the axes of the grid, the number of seeds, and all runs: point after point, seed after seed.

    Parameters
    ----------
    grid, seeds, seed, seeding
        As for `reservoir.sweep`.

    Returns
    -------
    axes : dict of str to list
        Values along each axis, in the order of the points; one axis "point" for a list of points.
    n_seeds : int
        Runs of each point.
    points : list of Point
        All runs.
    """
    check_option("seeding", seeding, SEEDING)
    if isinstance(grid, Mapping):
        axes = {_checked_name(name): _values(name, values) for name, values in grid.items()}
        combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    else:
        combinations = _listed(grid)
        axes = {"point": list(range(len(combinations)))}
    points = []
    for parameters in combinations:
        stored = {name: plain(name, value) for name, value in parameters.items()}
        for number in as_seeds(seeds, seed=seed, apart=stored if seeding == "independent" else None):
            text = json.dumps({"parameters": stored, GENERATOR: number}, sort_keys=True)
            points.append(Point(parameters, number, text))
    texts = [point.plain for point in points]
    if len(set(texts)) < len(texts):
        twice = next(point for point in points if texts.count(point.plain) > 1)
        raise invalid("grid", "name each point once", f"twice {twice}", "Ask for more `seeds` to repeat a point.")
    return axes, len(points) // max(1, len(combinations)), points


def as_seeds(
    seeds: int | Sequence[int] | None, *, seed: int = 0, apart: Mapping[str, Any] | None = None
) -> list[int | None]:
    """Return the seeds of the runs of one point.

    Parameters
    ----------
    seeds : int, sequence of int, or None
        How many, or which; None: the function takes none.
    seed : int
        What they are drawn from, if it is a number of seeds.
    apart : mapping, optional
        Parameters, as JSON can hold them, to which the seeds belong alone.

    Returns
    -------
    list of int
        Numbers below 2**32, which NumPy, PyTorch and this package all take as a seed. Those of a longer list begin with
        those of a shorter one.

    Notes
    -----
    The first word of each child of ``numpy.random.SeedSequence(seed)``, as `spawn` makes them; with `apart` the SHA-256
    of its text goes before the number of the child in the spawn key.

    Examples
    --------
    >>> as_seeds(2) == [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(0).spawn(2)]
    True
    """
    if seeds is None:
        return [None]
    check_int("seed", seed, at_least=0)
    if not isinstance(seeds, int | np.integer):
        numbers = [check_int("seeds", number, at_least=0) for number in _values("seeds", seeds)]
        if len(set(numbers)) < len(numbers):
            raise invalid("seeds", "differ from each other", f"{numbers}")
        return numbers
    digest = b"" if apart is None else hashlib.sha256(json.dumps(apart, sort_keys=True).encode()).digest()
    key = tuple(int(word) for word in np.frombuffer(digest, dtype="<u4"))
    children = [np.random.SeedSequence(seed, spawn_key=(*key, k)) for k in range(check_int("seeds", seeds, at_least=1))]
    return [int(child.generate_state(1)[0]) for child in children]


def plain(name: str, value: Any) -> Any:
    """Return a value as JSON can hold it, so that equal values have equal text.

    Parameters
    ----------
    name : str
        What it is called.
    value : object
        Number, text, None, list, mapping, array, path, or a dataclass of such, such as a rule.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            raise invalid(name, "be no NaN, which equals nothing", "NaN")
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return [plain(name, entry) for entry in value.tolist()] if value.ndim else plain(name, value.item())
    if isinstance(value, list | tuple):
        return [plain(name, entry) for entry in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(f"{name}[{key!r}]", entry) for key, entry in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        own = {key: plain(f"{name}.{key}", entry) for key, entry in fields.items()}
        return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **own}
    required = "be a number, text, None, or a list, mapping, array or dataclass of such"
    advice = "Pass a setting or a name, and make the object inside the function."
    raise invalid(name, required, value, advice, kind=TypeError)


def _values(name: str, values: Any) -> list[Any]:
    """Return the values along an axis as a list."""
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        advice = f"Write [{values!r}] for a single one."
        raise invalid(str(name), "be a list of values", repr(values), advice, kind=TypeError)
    found = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if not found:
        raise invalid(str(name), "hold at least one value", "none")
    return found


def _listed(grid: Any) -> list[dict[str, Any]]:
    """Return a list of points, checked."""
    required = "be a dict of lists, or a list of dicts"
    if isinstance(grid, str) or not hasattr(grid, "__iter__"):
        raise invalid("grid", required, grid, kind=TypeError)
    found = list(grid)
    if not found:
        raise invalid("grid", "hold at least one point", "none")
    for point in found:
        if not isinstance(point, Mapping):
            raise invalid("grid", required, f"a list that holds {point!r}", kind=TypeError)
        if point.keys() != found[0].keys():
            names = f"{sorted(map(str, found[0]))} and {sorted(map(str, point))}"
            raise invalid("grid", "name the same parameters at each point", names)
    return [{_checked_name(name): point[name] for name in found[0]} for point in found]


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier() or name in (GENERATOR, "point"):
        raise invalid("grid", f"have names of parameters as keys, other than {GENERATOR!r} and 'point'", repr(name))
    return name
