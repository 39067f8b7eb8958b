"""The local rule beside recursive least squares, with and without forgetting and reset, and beside a merged readout."""

from __future__ import annotations

from collections.abc import Sequence

from reservoir.comparison import Comparison, compare
from reservoir.rules.force import FORCE
from reservoir.tasks import PredictionTask
from reservoir.variants import Variant, chosen

__all__ = ["LEARNERS", "compare_rules"]

LEARNERS = {
    "local": Variant(about="gated three-factor rule, two readouts"),
    "RLS": Variant(about="recursive least squares (FORCE), forgets nothing", rule=FORCE()),
    "RLS, forgetting": Variant(about="recursive least squares, forgetting 0.9995", rule=FORCE(forgetting=0.9995)),
    "RLS, told": Variant(
        about="recursive least squares, P begins anew at each switch", rule=FORCE(), reset_at_switch=True
    ),
    "merged": Variant(about="gated three-factor rule, one readout for what and when", readout="merged"),
}


def compare_rules(
    blocks: Sequence[PredictionTask] | None = None,
    *,
    names: Sequence[str] | None = None,
    n: int = 1000,
    n_seeds: int = 5,
    seed: int = 0,
    tests: Sequence[int] = (0, 1, 5, 10, 20, 50, 100),
    n_repeats: int = 4,
    n_threads: int | None = None,
    progress: bool = False,
) -> Comparison:
    """Train rules side by side, on the same networks and trials.

    Parameters
    ----------
    blocks : sequence of PredictionTask, optional
        By default `standard_blocks`.
    names : sequence of str, optional
        Which, keys of `LEARNERS`; by default all.
    n, n_seeds, seed, tests, n_repeats, n_threads, progress
        As for `compare`.

    Returns
    -------
    Comparison
        ``print(found.table("local"))`` compares each with the local rule; ``found.save("rules.jsonl")`` writes every
        error that was measured.

    Notes
    -----
    Yamada & Chao (arXiv:2510.14382) compare with recursive least squares that forgets nothing, and find that it adjusts
    badly after a switch without an explicit reset. So it does here: what holds it back is its covariance P, which
    shrinks with all that was ever seen. Least squares as such is not slow. "RLS, told" of each switch, so that P begins
    anew, re-learns faster than the local rule and ends as well; with forgetting it lies in between, and erratic. What
    can be said for the local rule is that it is local, and that nobody tells it of the switch.

    With 1000 neurons and 5 seeds, the error at trial 10 after a switch and at trial 100, mean of three switches: local
    0.126 and 0.056, RLS 0.158 and 0.092, forgetting 0.140 and 0.076, told 0.101 and 0.054, merged 0.162 and 0.183.

    Examples
    --------
    >>> task = PredictionTask((100.0, 200.0), 0.8, trial_ms=300.0, n_trials=2)
    >>> found = compare_rules([task], names=("local", "RLS"), n=50, n_seeds=1, tests=(0, 2))
    >>> list(found.curves)
    ['local', 'RLS']
    """
    return compare(
        chosen(names, LEARNERS), blocks, n=n, n_seeds=n_seeds, seed=seed, tests=tests, n_repeats=n_repeats,
        n_threads=n_threads, progress=progress,
    )  # fmt: skip
