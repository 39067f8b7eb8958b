"""What came of a sweep: runs in the order of the grid, as arrays, as a data frame, or chosen by their parameters."""

# P points of the grid, S seeds

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from neuroloaders.checks import check_option, invalid, soft_import
from reservoir.sweep_points import GENERATOR, Point, plain

__all__ = ["Run", "Sweep"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One call of the function.

    Attributes
    ----------
    point : Point
        What it was called with: `point.parameters` and `point.generator`.
    result : dict or None
        What it returned, by name; None if it failed.
    seconds : float
        How long it took, also if it is from an earlier sweep.
    stored : bool
        Whether it was found on disk and not run now.
    error : str
        What went wrong; empty if nothing did.
    traceback : str
        Where.
    """

    point: Point
    result: dict[str, Any] | None = None
    seconds: float = 0.0
    stored: bool = False
    error: str = ""
    traceback: str = ""


class Sweep:
    """Results of `reservoir.sweep`: point after point of the grid, seed after seed.

    Attributes
    ----------
    axes : dict of str to list
        Values along each axis of the grid; one axis "point" if it was a list of points.
    n_seeds : int
        Runs of each point, S.
    runs : tuple of Run
        All runs.
    """

    def __init__(self, axes: Mapping[str, list[Any]], n_seeds: int, runs: tuple[Run, ...]) -> None:
        self.axes, self.n_seeds, self.runs = dict(axes), n_seeds, runs

    @property
    def failures(self) -> tuple[Run, ...]:
        """Runs that gave no result."""
        return tuple(run for run in self.runs if run.result is None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the results, in the order in which they came up."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.result or {}))

    def to_array(self, name: str = "value") -> np.ndarray:
        """Return one result of all runs.

        Parameters
        ----------
        name : str
            Which; "value" is that of a function that returns no names.

        Returns
        -------
        ndarray, shape (values of the first axis, ..., of the last axis, S, ...)
            With the axes of the result at the end. NaN where a run failed, and where the result is None.

        Raises
        ------
        ValueError
            If runs have results of different shapes, or one that failed has no NaN to stand for it.
        """
        check_option("name", name, self.names)
        cells = [None if run.result is None else run.result.get(name) for run in self.runs]
        there = [np.asarray(cell) for cell in cells if cell is not None]
        shapes = {cell.shape for cell in there}
        if len(shapes) > 1:
            first, second = sorted(shapes)[:2]
            raise invalid(name, "have one shape in all runs", f"{first} and {second}", "Read them from `runs`.")
        shape, dtype = (shapes.pop(), np.result_type(*there)) if there else ((), np.dtype(np.float64))
        if len(there) < len(cells):
            if dtype.kind not in "biufc":
                raise invalid(name, "have a number in each run", f"{len(cells) - len(there)} without one")
            dtype = np.result_type(dtype, np.float32)
        array = np.full((len(cells), *shape), np.nan if dtype.kind in "fc" else np.zeros((), dtype), dtype=dtype)
        for k, cell in enumerate(cells):
            if cell is not None:
                array[k] = cell
        return array.reshape(*(len(values) for values in self.axes.values()), self.n_seeds, *shape)

    def sel(self, **parameters: Any) -> Sweep:
        """Return the runs with these parameters, without the axes that they fix.

        Parameters
        ----------
        **parameters
            A value each; numbers must be equal, not only near.
        """
        axes, keep = dict(self.axes), np.ones(len(self.runs), dtype=bool)
        known = self.runs[0].point.parameters if self.runs else {}
        for name, value in parameters.items():
            check_option("parameters", name, known)
            wanted = plain(name, value)
            found = [plain(name, run.point.parameters[name]) == wanted for run in self.runs]
            if not any(found):
                values = {repr(run.point.parameters[name]): None for run in self.runs}
                raise invalid(name, f"be one of {', '.join(values)}", repr(value))
            keep &= found
            axes.pop(name, None)
        runs = tuple(run for run, kept in zip(self.runs, keep, strict=True) if kept)
        if "point" in axes and parameters:
            places = self.axes["point"]
            axes["point"] = [k for row, k in enumerate(places) if keep[row * self.n_seeds]]
        if not runs:
            raise invalid("parameters", "meet at a point of the grid", f"{parameters}")
        return Sweep(axes, self.n_seeds, runs)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row a run: parameters, seed, results, seconds, and errors if there are any.

        Raises
        ------
        ImportError
            If pandas is not installed.
        ValueError
            If a result is named like a parameter.
        """
        pandas = soft_import("pandas", purpose="A data frame")
        columns = self._columns()
        return pandas.DataFrame({name: pandas.Series(values) for name, values in columns.items()})

    def _columns(self) -> dict[str, list[Any]]:
        """Return everything but arrays as columns, and arrays as they are."""
        first = self.runs[0].point if self.runs else None
        names = list(first.parameters) if first else []
        columns: dict[str, list[Any]] = {name: [run.point.parameters[name] for run in self.runs] for name in names}
        if first is not None and first.generator is not None:
            columns[GENERATOR] = [run.point.generator for run in self.runs]
        ends = ("seconds", "error")
        for name in self.names:
            if name in columns or name in ends:
                taken = ", ".join(map(repr, [*columns, *ends]))
                raise invalid("function", f"name no result like one of {taken}", repr(name))
            columns[name] = [None if run.result is None else run.result.get(name) for run in self.runs]
        columns["seconds"] = [run.seconds for run in self.runs]
        if self.failures:
            columns["error"] = [run.error for run in self.runs]
        return columns

    def table(self, name: str = "value") -> str:
        """Return a number as text: a row a point, mean and standard deviation over seeds.

        Parameters
        ----------
        name : str
            Which result; a single number in each run.
        """
        numbers = self.to_array(name).reshape(-1, self.n_seeds, *self._shape_of(name))
        if numbers.ndim > 2 or numbers.dtype.kind not in "biuf":
            raise invalid("name", "be that of a single number in each run", f"{name!r}")
        names = list(self.runs[0].point.parameters)
        lines = [" | ".join([*names, name])]
        for row, cells in enumerate(numbers.astype(np.float64)):
            parameters = self.runs[row * self.n_seeds].point.parameters
            there = cells[~np.isnan(cells)]
            text = f"{there.mean():.4g}" if len(there) else "failed"
            text += f"+-{there.std(ddof=1):.2g}" if len(there) > 1 else ""
            text += f" ({len(cells) - len(there)} of {len(cells)} failed)" if 0 < len(there) < len(cells) else ""
            lines.append(" | ".join([*(f"{parameters[key]}" for key in names), text]))
        return "\n".join(lines)

    def _shape_of(self, name: str) -> tuple[int, ...]:
        return next((np.shape(run.result[name]) for run in self.runs if run.result and name in run.result), ())

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name} {len(values)}" for name, values in self.axes.items())
        failed = f", {len(self.failures)} failed" if self.failures else ""
        stored = sum(run.stored for run in self.runs)
        return f"Sweep({axes or 'one point'}; {self.n_seeds} seeds, {len(self)} runs, {stored} from disk{failed})"
