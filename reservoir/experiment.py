"""The experiment: learning curves over blocks whose statistics switch, and amplitude against probability."""

# T time, B lanes, N neurons, K events

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuroloaders.checks import check_int, check_number, check_option, invalid
from reservoir.inputs import random_for
from reservoir.learner import Diverged, PredictionLearner
from reservoir.tasks import PredictionTask, Trials, rmse

__all__ = ["DIVERGED", "LearningCurves", "amplitudes", "draw_trials", "learning_curves", "probability_sweep"]

DIVERGED = {
    "raise": "stop with the error",
    "keep": "score infinity from there on, and return what there is",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningCurves:
    """How well each block was predicted in the course of training.

    Attributes
    ----------
    blocks : tuple of PredictionTask
        The blocks.
    tests : ndarray of int, shape (tests,)
        After how many trials of a block it was tested.
    rmse : ndarray, shape (blocks, tests, B)
        Root mean square error of each test, the mean over repetitions and cues; infinity once learning has diverged.
    outputs : ndarray, shape (blocks, cues, T, B, K)
        Predictions of the last test of each block, the mean over repetitions.
    when_weights, what_weights : ndarray, shape (blocks, tests, B, K, N)
        Weights at each test.
    """

    blocks: tuple[PredictionTask, ...]
    tests: np.ndarray
    rmse: np.ndarray
    outputs: np.ndarray
    when_weights: np.ndarray
    what_weights: np.ndarray

    def table(self) -> str:
        """Return the errors as text: a row a block, mean and standard deviation over networks."""
        lines = ["block | " + " | ".join(f"{test:d}" for test in self.tests)]
        for number, errors in enumerate(self.rmse):
            cells = [f"{one.mean():.3f}+-{one.std(ddof=1) if len(one) > 1 else 0:.3f}" for one in errors]
            lines.append(f"{number + 1} | " + " | ".join(cells))
        return "\n".join(lines)


def learning_curves(
    learner: PredictionLearner,
    blocks: Sequence[PredictionTask],
    *,
    tests: Sequence[int] = (0, 1, 5, 10, 20, 50, 100),
    n_repeats: int = 4,
    reset_at_switch: bool = False,
    diverged: str = "raise",
    progress: bool = False,
    on_trials: Callable[[int], None] | None = None,
) -> LearningCurves:
    """Train block after block, and test with the cue alone on the way.

    Parameters
    ----------
    learner : PredictionLearner
        Is trained.
    blocks : sequence of PredictionTask
        One after the other, without telling the learner that the statistics change.
    tests : sequence of int
        After how many trials of a block to test, ascending; the block is trained up to the last one only.
    n_repeats : int
        Tests from one state with different noise.
    reset_at_switch : bool
        Tell the rule of each switch: what it keeps, such as the covariance of FORCE, begins anew. Weights stay.
    diverged : str
        What to do if weights are not finite any more, a key of `DIVERGED`. All networks of a learner stop together.
    progress : bool
        Show a bar.
    on_trials : callable, optional
        Called after each stretch of training with the number of trials in it.

    Returns
    -------
    LearningCurves

    Raises
    ------
    Diverged
        If weights are not finite any more and `diverged` is "raise".

    Examples
    --------
    >>> from reservoir import Reservoir
    >>> task = PredictionTask((100.0, 200.0), 0.8, trial_ms=300.0, n_trials=2)
    >>> curves = learning_curves(PredictionLearner(Reservoir(50, generator=0), 2), [task], tests=(0, 2))
    >>> curves.rmse.shape
    (1, 2, 1)
    """
    tests = np.array([check_int("tests", test, at_least=0) for test in tests])
    if not len(tests) or (np.diff(tests) <= 0).any():
        raise invalid("tests", "be ascending", tests)
    shortest = min((block.n_trials for block in blocks), default=tests[-1])
    if shortest < tests[-1]:
        raise invalid("tests", f"be at most {shortest}, the trials of the shortest block", f"{tests[-1]}")
    if not len(blocks):
        raise invalid("blocks", "hold at least one PredictionTask", "none")
    lengths = {block.trial_ms for block in blocks}
    if len(lengths) > 1:
        raise invalid("blocks", "have trials of one length, `trial_ms`", f"{sorted(lengths)} ms")
    check_option("diverged", diverged, DIVERGED)
    shape = (len(blocks), len(tests), *learner.what_weights.shape)
    t_steps = len(blocks[0].bumps(dt_ms=learner.dt_ms))
    errors, when, what = np.full(shape[:3], np.inf), np.full(shape, np.nan), np.full(shape, np.nan)
    outputs = np.full((len(blocks), learner.n_cues, t_steps, learner.n_lanes, learner.n_events), np.nan)
    bar = _Bar(len(blocks) * int(tests[-1]), progress, on_trials)
    try:
        with bar:
            for number, block in enumerate(blocks):
                if reset_at_switch and number:
                    learner.reset(rule=True)
                trials, done = draw_trials(learner, [block] * learner.n_lanes, number), 0
                for column, test in enumerate(tests):
                    learner.train([own.part(done, test) for own in trials])
                    bar.update(int(test) - done)
                    done = int(test)
                    seed = number * 100_000 + done
                    errors[number, column], outputs[number] = _score(learner, block, n_repeats, seed)
                    when[number, column], what[number, column] = learner.when.weights, learner.what_weights
    except Diverged:
        if diverged == "raise":
            raise
    return LearningCurves(
        blocks=tuple(blocks), tests=tests, rmse=errors, outputs=outputs, when_weights=when, what_weights=what
    )


def _score(learner: PredictionLearner, block: PredictionTask, r: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the error of each network, shape (B,), and the mean predictions, shape (cues, T, B, K)."""
    errors, means = np.zeros((block.n_cues, r, learner.n_lanes)), []
    for cue in range(block.n_cues):
        truth = block.truth(dt_ms=learner.dt_ms, cue=cue)
        outputs = learner.test(block, cue=cue, n_repeats=r, seed=seed)
        for repeat, lane in np.ndindex(r, learner.n_lanes):
            errors[cue, repeat, lane] = rmse(outputs[repeat, :, lane], truth)
        means.append(outputs.mean(axis=0))
    return errors.mean(axis=(0, 1)), np.array(means)


class _Bar:
    """A progress bar over trials, which tells a function as well."""

    def __init__(self, total: int, show: bool, tell: Callable[[int], None] | None) -> None:
        self._total, self._show, self._tell, self._bar = total, show, tell, None

    def update(self, n_trials: int) -> None:
        if self._bar is not None:
            self._bar.update(n_trials)
        if self._tell is not None:
            self._tell(n_trials)

    def __enter__(self) -> None:
        if self._show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, unit="trial")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def amplitudes(
    outputs: np.ndarray, task: PredictionTask, *, dt_ms: float, cue: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Read how large the prediction of each event is, and when it is largest.

    Parameters
    ----------
    outputs : ndarray, shape (T, ..., K)
        Predictions after the cue alone, such as ``learner.test(task).mean(axis=0)``, of shape (T, B, K).
    task : PredictionTask
        Gives the delays and the width of the bumps.
    dt_ms : float
        Time step.
    cue : int
        Which cue.

    Returns
    -------
    amplitude, peak_ms : ndarray, shape (..., K)
        The largest prediction within three standard deviations of the bump around the delay, and where it is; NaN where
        the prediction is 0 throughout.

    Examples
    --------
    >>> task = PredictionTask((250.0, 450.0), 0.8)
    >>> amplitude, peak_ms = amplitudes(task.truth(dt_ms=1.0), task, dt_ms=1.0)
    >>> amplitude.round(3).tolist(), peak_ms.tolist()
    ([0.8, 0.2], [250.0, 450.0])
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    check_number("dt_ms", dt_ms, above=0)
    check_int("cue", cue, at_least=0, at_most=task.n_cues - 1)
    if outputs.ndim < 2 or outputs.shape[-1] != task.n_events:
        raise invalid("outputs", f"have shape (T, ..., {task.n_events})", f"{outputs.shape}")
    t_ms = np.arange(len(outputs)) * dt_ms
    near = np.abs(t_ms[:, None] - task.delays_ms[cue]) <= 3 * task.sigma_ms
    inside = outputs * near.reshape(len(outputs), *[1] * (outputs.ndim - 2), task.n_events)
    amplitude = inside.max(axis=0)
    return amplitude, np.where(amplitude > 0, inside.argmax(axis=0) * dt_ms, np.nan)


def probability_sweep(
    learner: PredictionLearner,
    task: PredictionTask,
    levels: Sequence[float],
    *,
    n_repeats: int = 4,
    progress: bool = False,
) -> np.ndarray:
    """Train each lane on a probability of its own, and return how large the predictions become.

    Parameters
    ----------
    learner : PredictionLearner
        Is trained; it has one lane for each level.
    task : PredictionTask
        Of two events and one cue; all but its probabilities is used.
    levels : sequence of float, length B
        Probability of the first event in each lane.
    n_repeats : int
        Tests with different noise, over which the predictions are averaged.
    progress : bool
        Show a bar.

    Returns
    -------
    ndarray, shape (B, K)
        The largest prediction of each event within three standard deviations of its bump around its delay.

    Notes
    -----
    The paper on this task (Yamada & Chao, arXiv:2510.14382) reports for 11 levels a correlation of 0.978 between
    probability and amplitude of the first event, and of -0.989 for the second one.
    """
    if len(levels) != learner.n_lanes:
        raise invalid("levels", f"hold one number for each of the {learner.n_lanes} lanes", f"{len(levels)}")
    trials = draw_trials(learner, [task.switch(probabilities=float(p)) for p in levels])
    learner.train(trials, progress=progress)
    outputs = learner.test(task, n_repeats=n_repeats).mean(axis=0)
    return amplitudes(outputs, task, dt_ms=learner.dt_ms)[0]


def draw_trials(learner: PredictionLearner, tasks: Sequence[PredictionTask], number: int = 0) -> list[Trials]:
    """Return the trials of a block for each network: events of its own, at times that are the same for all.

    Parameters
    ----------
    learner : PredictionLearner
        Gives the number of networks, the time step and the seeds.
    tasks : sequence of PredictionTask
        What to draw from, one a network.
    number : int
        Which block, so that equal blocks are drawn differently.
    """
    lists = []
    for lane, task in enumerate(tasks):
        rng = random_for("trials", learner.seed + lane, number)
        lists.append(task.trials(dt_ms=learner.dt_ms, generator=rng))
    return [replace(own, start=lists[0].start, end=lists[0].end) for own in lists]
