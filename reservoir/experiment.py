"""The experiment: learning curves over blocks whose statistics switch, and amplitude against probability."""

# T time, B lanes, N neurons, K events

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuroloaders.checks import check_int, invalid
from reservoir.learner import PredictionLearner
from reservoir.tasks import PredictionTask, Trials, rmse

__all__ = ["LearningCurves", "draw_trials", "learning_curves", "probability_sweep"]

# Part of the seeds of trials; `reservoir.learner` uses the numbers below it.
_TRIALS = 3


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
        Root mean square error of each test, the mean over repetitions and cues.
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
    progress: bool = False,
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
    progress : bool
        Show a bar for each stretch of training.

    Returns
    -------
    LearningCurves

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
    errors = np.zeros((len(blocks), len(tests), learner.n_lanes))
    last, when, what = [], [], []
    for number, block in enumerate(blocks):
        if reset_at_switch and number:
            learner.when.reset(rule=True)
        trials = draw_trials(learner, [block] * learner.n_lanes, number)
        truths = [block.truth(dt_ms=learner.dt_ms, cue=cue) for cue in range(block.n_cues)]
        done = 0
        for column, test in enumerate(tests):
            learner.train([own.part(done, test) for own in trials], progress=progress)
            done = int(test)
            seed = number * 100_000 + done
            outputs = [learner.test(block, cue=k, n_repeats=n_repeats, seed=seed) for k in range(block.n_cues)]
            for lane in range(learner.n_lanes):
                pairs = [(one[:, lane], truth) for of_cue, truth in zip(outputs, truths, strict=True) for one in of_cue]
                errors[number, column, lane] = np.mean([rmse(*pair) for pair in pairs])
            when.append(learner.when.weights.copy())
            what.append(learner.what_weights.copy())
        last.append([of_cue.mean(axis=0) for of_cue in outputs])
    shape = (len(blocks), len(tests), *learner.what_weights.shape)
    return LearningCurves(
        blocks=tuple(blocks),
        tests=tests,
        rmse=errors,
        outputs=np.array(last),
        when_weights=np.array(when).reshape(shape),
        what_weights=np.array(what).reshape(shape),
    )


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
    t_ms = np.arange(len(outputs)) * learner.dt_ms
    near = np.abs(t_ms[:, None] - task.delays_ms[0]) <= 3 * task.sigma_ms
    return (outputs * near[:, None]).max(axis=0)


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
        rng = np.random.default_rng([learner.seed + lane, _TRIALS, number])
        lists.append(task.trials(dt_ms=learner.dt_ms, generator=rng))
    return [replace(own, start=lists[0].start, end=lists[0].end) for own in lists]
