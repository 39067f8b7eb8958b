"""One network, trained anew in each of many conditions, to see where in the space of weights each of them lies."""

# M conditions, N neurons, K events

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuroloaders.checks import check_finite, check_shape, invalid
from reservoir.experiment import draw_trials
from reservoir.learner import PredictionLearner
from reservoir.network import Reservoir
from reservoir.tasks import PredictionTask

__all__ = ["grid_of_tasks", "join_weights", "train_conditions"]


def grid_of_tasks(
    delays_ms: Sequence[float], levels: Sequence[float], *, gap_ms: float = 200.0, n_trials: int = 100
) -> tuple[list[PredictionTask], dict[str, np.ndarray]]:
    """Return a task for each pair of a delay and a probability.

    Parameters
    ----------
    delays_ms : sequence of float
        Delays of the first event.
    levels : sequence of float
        Its probabilities; otherwise the second event comes.
    gap_ms : float
        How much later the second event comes.
    n_trials : int
        Number of trials of each.

    Returns
    -------
    tasks : list of PredictionTask
        M of them.
    labels : dict of str to ndarray of shape (M,)
        "p" and "delay" of each, for `reservoir.analysis.condition_space`.

    Examples
    --------
    >>> tasks, labels = grid_of_tasks((200.0, 300.0), (0.2, 0.8))
    >>> tasks[1], labels["p"].tolist()
    (PredictionTask(200 ms: 0.8, 400 ms: 0.2), [0.2, 0.8, 0.2, 0.8])
    """
    pairs = [(float(delay), float(level)) for delay in delays_ms for level in levels]
    if not pairs:
        raise invalid("delays_ms", "hold at least one delay, and `levels` one probability", "none")
    tasks = [PredictionTask((delay, delay + gap_ms), level, n_trials=n_trials) for delay, level in pairs]
    delays, ps = np.transpose(pairs)
    return tasks, {"p": ps, "delay": delays}


def train_conditions(
    network: Reservoir,
    tasks: Sequence[PredictionTask],
    *,
    seed: int = 0,
    n_threads: int | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Train a network in each condition from nothing, with the same cue, feedback and noise.

    Parameters
    ----------
    network : Reservoir
        The network.
    tasks : sequence of PredictionTask
        The conditions.
    seed : int
        Of cue, feedback, trials and noise: the same in all conditions, so that only these differ.
    n_threads : int, optional
        As for `reservoir.simulate`.
    progress : bool
        Show a bar.

    Returns
    -------
    what, when : ndarray, shape (M, K, N)
        Weights after the training in each condition.

    Examples
    --------
    >>> tasks, _ = grid_of_tasks((200.0,), (0.2, 0.8), n_trials=2)
    >>> what, when = train_conditions(Reservoir(50, generator=0), tasks)
    >>> what.shape
    (2, 2, 50)
    """
    if not tasks:
        raise invalid("tasks", "hold at least one PredictionTask", "none")
    conditions = tasks
    if progress:
        from tqdm.auto import tqdm

        conditions = tqdm(tasks, unit="condition")
    what, when = [], []
    for task in conditions:
        own = PredictionLearner(network, task.n_events, n_cues=task.n_cues, seed=seed, n_threads=n_threads)
        own.train(draw_trials(own, [task]))
        what.append(own.what_weights[0])
        when.append(own.when.weights[0])
    return np.array(what), np.array(when)


def join_weights(what: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Return both sets of weights side by side, each brought to norm 1, so that neither rules by its size.

    Parameters
    ----------
    what, when : ndarray, shape (M, K, N)
        Weights in each condition.

    Returns
    -------
    ndarray, shape (M, 2 K N)
        For `reservoir.analysis.condition_space`.

    Examples
    --------
    >>> join_weights(np.ones((3, 2, 8)), 5 * np.ones((3, 2, 8))).shape
    (3, 32)
    """
    parts = []
    for name, weights in (("what", what), ("when", when)):
        check_finite(name, check_shape(name, np.asarray(weights), ("M", "K", "N")))
        size = np.linalg.norm(weights)
        if size == 0:
            raise invalid(name, "differ from 0", "zeros", "Train before.")
        parts.append(np.asarray(weights) / size)
    check_shape("when", when, np.shape(what))
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
