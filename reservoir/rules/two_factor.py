"""The two-factor rule, which tells what: one change at the end of each trial, from the mean activity after the cue."""

# M trials, N neurons, K outputs

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroloaders.checks import check_finite, check_number, check_shape, invalid

__all__ = ["TwoFactorRule"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoFactorRule:
    r"""Two-factor rule for which event follows: activity before the synapse, times error after it.

    Parameters
    ----------
    eta : float
        Share of the error that a trial takes away, in (0, 2). About 1 / eta trials are remembered.

    Notes
    -----
    .. math:: \Delta W_{ki} = \eta \, ([k = \mathrm{event}] - y_k) \, \bar r_i / |\bar r|^2, \quad y = W \bar r

    with the mean trace after the cue. The rule is that of [1]_; dividing by the square of the activity, which makes the
    rate a share, is this project's. For the same activity in each trial, y is a running mean of what happened: for an
    event of probability p its mean is p and its standard deviation :math:`\sqrt{p (1 - p) \eta / (2 - \eta)}`.

    References
    ----------
    .. [1] Yamada & Chao, arXiv:2510.14382.

    Examples
    --------
    >>> weights = np.zeros((2, 3))
    >>> TwoFactorRule(eta=0.5).learn(weights, np.ones((2, 3)), [0, 0])
    >>> (weights @ np.ones(3)).round(3).tolist()
    [0.75, 0.0]
    """

    eta: float = 0.05

    def __post_init__(self) -> None:
        check_number("eta", self.eta, above=0, below=2)

    def learn(self, weights: np.ndarray, averages: np.ndarray, events: Any) -> None:
        """Change the weights, trial by trial.

        Parameters
        ----------
        weights : ndarray of float64, shape (K, N)
            Changed in place.
        averages : ndarray, shape (M, N)
            Mean trace of each trial, such as ``readout.averages[lane]``.
        events : sequence of int, shape (M,)
            Which event came; -1 for none.

        Raises
        ------
        ValueError
            For events that are none of the K, and shapes that do not fit.
        """
        events = np.asarray(events)
        check_shape("weights", weights, ("K", "N"))
        check_shape("averages", averages, (len(events), weights.shape[1]))
        check_finite("averages", averages)
        if len(events) and not (events.min() >= -1 and events.max() < len(weights)):
            raise invalid("events", f"be -1 (none) to {len(weights) - 1}", f"{events.min()} to {events.max()}")
        for mean, event in zip(averages, events, strict=True):
            power = mean @ mean
            if power > 0:
                error = (np.arange(len(weights)) == event) - weights @ mean
                weights += self.eta / power * np.outer(error, mean)
