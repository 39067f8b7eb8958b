"""Networks and learners that differ in one thing, side by side: the same seeds, the same trials, the same tests."""

# S seeds, B lanes, N neurons, K events

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.atomic import atomic_write
from neuroloaders.checks import check_int, check_number, check_option, invalid
from reservoir.experiment import LearningCurves, learning_curves
from reservoir.learner import Diverged, PredictionLearner
from reservoir.tasks import PredictionTask, standard_blocks
from reservoir.variants import Variant

__all__ = ["SCORES", "Comparison", "compare"]

SCORES = {
    "first": "error at the last test of the first block: what is learned",
    "recovery": "error at the test nearest to trial 10 of the blocks after a switch, their mean: how fast it re-learns",
    "switched": "error at the last test of the blocks after a switch, their mean: how well it re-learns",
}
# How tables call them.
_TITLES = {"first": "block 1", "recovery": "trial 10", "switched": "after switch"}
_RECOVERY_TRIAL = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What came out for each variant.

    Attributes
    ----------
    variants : dict of str to Variant
        What was compared.
    curves : dict of str to LearningCurves
        How well each of them predicted; lanes are seeds.
    rates_hz : dict of str to ndarray of shape (S,)
        Mean firing rate of each network in a test after the training; NaN where learning diverged.
    seeds : tuple of int
        The seeds, S of them.
    """

    variants: Mapping[str, Variant]
    curves: Mapping[str, LearningCurves]
    rates_hz: Mapping[str, np.ndarray]
    seeds: tuple[int, ...]

    def score(self, name: str, kind: str) -> np.ndarray:
        """Return an error of a variant for each seed, shape (S,); NaN if there is no block after a switch.

        Parameters
        ----------
        name : str
            The variant.
        kind : str
            A key of `SCORES`.
        """
        check_option("name", name, self.curves)
        check_option("kind", kind, SCORES)
        curves = self.curves[name]
        if kind == "first":
            return curves.rmse[0, -1]
        if len(curves.rmse) == 1:
            return np.full(len(self.seeds), np.nan)
        column = -1 if kind == "switched" else int(np.abs(curves.tests - _RECOVERY_TRIAL).argmin())
        return curves.rmse[1:, column].mean(axis=0)

    def ratio(self, name: str, reference: str, kind: str, *, confidence: float = 0.95) -> tuple[float, float, float]:
        """Compare a variant with another one, seed by seed.

        Parameters
        ----------
        name, reference : str
            The variants.
        kind : str
            A key of `SCORES`.
        confidence : float
            Of the interval.

        Returns
        -------
        ratio, low, high : float
            Error of `name` over that of `reference`, the geometric mean over seeds, and its interval. NaN where there
            are too few seeds, infinity where learning diverged.

        Notes
        -----
        The interval is that of Student for the mean of the logarithms of S ratios. It is of this one comparison: of
        twenty ratios whose true value is 1, one interval at 0.95 leaves out 1 by chance.
        """
        check_number("confidence", confidence, above=0, below=1)
        mine, others = self.score(name, kind), self.score(reference, kind)
        if not np.isfinite(others).all() or np.isnan(mine).any():
            return np.nan, np.nan, np.nan
        if np.isinf(mine).any():
            return np.inf, np.nan, np.nan
        from scipy.special import stdtrit  # quantiles of Student; scipy.stats takes half a second to load

        logs = np.log(mine / others)
        mean, half = logs.mean(), np.nan
        if len(logs) > 1:
            half = stdtrit(len(logs) - 1, (1 + confidence) / 2) * logs.std(ddof=1) / np.sqrt(len(logs))
        return float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half))

    def _measured(self, kind: str) -> str:
        check_option("kind", kind, SCORES)
        return kind if len(next(iter(self.curves.values())).rmse) > 1 else "first"

    def rows(self, reference: str | None = None, kind: str = "switched") -> list[dict[str, Any]]:
        """Return a row for each variant: mean and standard deviation over seeds of each score.

        Parameters
        ----------
        reference : str, optional
            Add the ratio of an error to that of this variant, and what can be said of it.
        kind : str
            Which error, a key of `SCORES`. With a single block it is "first".

        Returns
        -------
        list of dict
            None stands where learning diverged or nothing was measured.
        """
        kind, rows = self._measured(kind), []
        for name, variant in self.variants.items():
            row: dict[str, Any] = {"variant": name, "about": variant.about}
            for score in SCORES:
                found = self.score(name, score)
                row[score] = _number(found.mean())
                row[f"{score} sd"] = _number(found.std(ddof=1)) if len(found) > 1 and np.isfinite(found).all() else None
            row["rate_hz"] = _number(self.rates_hz[name].mean())
            if reference is not None:
                ratio = self.ratio(name, reference, kind)
                row |= dict(zip(("ratio", "ratio low", "ratio high"), map(_number, ratio), strict=True))
                row["verdict"] = "reference" if name == reference else _verdict(*ratio)
            rows.append(row)
        return rows

    def lines(self) -> list[dict[str, Any]]:
        """Return every error that was measured: a row for each variant, block, test and seed."""
        found = []
        for name, curves in self.curves.items():
            for (block, column, lane), error in np.ndenumerate(curves.rmse):
                found.append(
                    {
                        "variant": name,
                        "block": block + 1,
                        "statistics": repr(curves.blocks[block]),
                        "trial": int(curves.tests[column]),
                        "seed": self.seeds[lane],
                        "rmse": _number(error),
                        "diverged": bool(np.isinf(error)),
                    }
                )
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `lines` as JSON lines.

        Parameters
        ----------
        path : path-like
            The file; it is replaced once the new one is complete.
        """
        with atomic_write(path, "w") as file:
            for line in self.lines():
                file.write(json.dumps(line, allow_nan=False) + "\n")

    def table(self, reference: str | None = None, kind: str = "switched") -> str:
        """Return `rows` as text.

        Parameters
        ----------
        reference, kind
            As for `rows`.
        """
        kind = self._measured(kind)
        width = max(map(len, self.variants))
        lines = [f"{'':{width}}  {'  '.join(f'{title:>13}' for title in _TITLES.values())}  {'rate':>7}"]
        if reference is not None:
            lines[0] += f"  {_TITLES[kind]}, ratio to {reference}"
        for row in self.rows(reference, kind):
            line = f"{row['variant']:{width}}"
            for score in SCORES:
                line += f"  {_cell(row[score], row[f'{score} sd']):>13}"
            line += f"  {'-' if row['rate_hz'] is None else format(row['rate_hz'], '.1f'):>4} Hz"
            if reference is not None:
                line += f"  {_cell(row['ratio'], None, 2)} ({_cell(row['ratio low'], None, 2)} to "
                line += f"{_cell(row['ratio high'], None, 2)}) {row['verdict']}"
            lines.append(line)
        return "\n".join(lines)


def compare(
    variants: Mapping[str, Variant],
    blocks: Sequence[PredictionTask] | None = None,
    *,
    n: int = 1000,
    n_seeds: int = 5,
    seed: int = 0,
    tests: Sequence[int] = (0, 1, 5, 10, 20, 50, 100),
    n_repeats: int = 4,
    n_threads: int | None = None,
    progress: bool = False,
) -> Comparison:
    """Train every variant on the same blocks, with the same seeds.

    Parameters
    ----------
    variants : mapping of str to Variant
        What to compare.
    blocks : sequence of PredictionTask, optional
        By default `standard_blocks`: a task, then other delays, other probabilities, and both.
    n : int
        Number of neurons.
    n_seeds, seed : int
        How many networks, and the seed of the first one; the others have those that follow. With one seed, all variants
        have the same trials, and the same network where they do not change it.
    tests, n_repeats, n_threads
        As for `learning_curves` and `reservoir.simulate`.
    progress : bool
        Show a bar over the trials of all variants.

    Returns
    -------
    Comparison
        A network whose learning diverges scores infinity from there on, and its seed alone.

    Examples
    --------
    >>> from reservoir.variants import Variant
    >>> task = PredictionTask((100.0, 200.0), 0.8, trial_ms=300.0, n_trials=2)
    >>> variants = {"closed": Variant(about="as it is"), "open": Variant(about="no feedback", feedback=0.0)}
    >>> found = compare(variants, [task], n=50, n_seeds=2, tests=(0, 2))
    >>> found.curves["open"].rmse.shape
    (1, 2, 2)
    """
    if not variants:
        raise invalid("variants", "hold at least one Variant", "none")
    blocks = standard_blocks() if blocks is None else tuple(blocks)
    if not blocks:
        raise invalid("blocks", "hold at least one PredictionTask", "none")
    first, count = check_int("seed", seed, at_least=0), check_int("n_seeds", n_seeds, at_least=1)
    seeds = tuple(range(first, first + count))
    curves, rates_hz = {}, {}
    with _Bar(len(variants) * len(blocks) * max(tests, default=0), progress) as bar:
        for name, variant in variants.items():
            bar.name(name)
            options = {"tests": tests, "n_repeats": n_repeats, "reset_at_switch": variant.reset_at_switch}
            before = bar.done
            try:
                learner = variant.learner(blocks[0], n, seeds, n_threads=n_threads)
                curves[name] = learning_curves(learner, blocks, **options, on_trials=bar.update)
                rates_hz[name] = _rates_hz(learner, blocks[-1])
            except Diverged:
                # One of them stopped all: each alone, for it learns alone what it learns beside others.
                bar.back_to(before)
                parts = []
                for own in seeds:
                    learner = variant.learner(blocks[0], n, [own], n_threads=n_threads)
                    part = learning_curves(learner, blocks, **options, diverged="keep")
                    rate = _rates_hz(learner, blocks[-1]) if np.isfinite(part.rmse).all() else np.array([np.nan])
                    parts.append((part, rate))
                curves[name] = _side_by_side([part for part, _ in parts])
                rates_hz[name] = np.concatenate([rate for _, rate in parts])
                bar.update(len(blocks) * max(tests))
    return Comparison(variants=dict(variants), curves=curves, rates_hz=rates_hz, seeds=seeds)


def _rates_hz(learner: PredictionLearner, task: PredictionTask) -> np.ndarray:
    """Return the mean rate of each network in a test."""
    return learner.record(task).rates_hz().mean(axis=-1)


def _side_by_side(parts: Sequence[LearningCurves]) -> LearningCurves:
    """Return curves of single networks as those of one learner."""
    return LearningCurves(
        blocks=parts[0].blocks,
        tests=parts[0].tests,
        rmse=np.concatenate([part.rmse for part in parts], axis=2),
        outputs=np.concatenate([part.outputs for part in parts], axis=3),
        when_weights=np.concatenate([part.when_weights for part in parts], axis=2),
        what_weights=np.concatenate([part.what_weights for part in parts], axis=2),
    )


def _number(value: float) -> float | None:
    """Return a number as JSON can hold it."""
    return float(value) if np.isfinite(value) else None


def _cell(mean: float | None, spread: float | None, digits: int = 3) -> str:
    if mean is None:
        return "-"
    if abs(mean) >= 1000:
        return f"{mean:.1e}"
    return f"{mean:.{digits}f}" + ("" if spread is None else f"+-{spread:.{digits}f}")


def _verdict(ratio: float, low: float, high: float) -> str:
    """Say in words what an interval of a ratio of errors allows to say."""
    if np.isinf(ratio):
        return "diverged"
    if not np.isfinite([ratio, low, high]).all():
        return "too few seeds to tell"
    return "worse" if low > 1 else "better" if high < 1 else "not told apart"


class _Bar:
    """A progress bar over the trials of all variants, named after the one that is running."""

    def __init__(self, total: int, show: bool) -> None:
        self._total, self._show, self._bar, self.done = total, show, None, 0

    def name(self, name: str) -> None:
        if self._bar is not None:
            self._bar.set_description(name)

    def update(self, n_trials: int) -> None:
        self.done += n_trials
        if self._bar is not None:
            self._bar.update(n_trials)

    def back_to(self, done: int) -> None:
        self.update(done - self.done)

    def __enter__(self) -> _Bar:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, unit="trial")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
