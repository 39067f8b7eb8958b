"""What a trained readout holds: predictions as objects, angles between readouts, conditions in weight space."""

# T time, K events, N neurons, M conditions, P principal components

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from neuroloaders.checks import check_finite, check_int, check_number, check_shape, invalid
from reservoir.network import random_source

__all__ = ["Angles", "ConditionSpace", "PredictionObject", "condition_space", "prediction_object", "subspace_angles"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionObject:
    """What is predicted, when, and with what probability.

    Attributes
    ----------
    delays_ms : ndarray, shape (K,)
        When each event is expected: where the prediction is largest; NaN if it is 0 throughout.
    probabilities : ndarray, shape (K,)
        How large the prediction is there.
    """

    delays_ms: np.ndarray
    probabilities: np.ndarray


def prediction_object(outputs: np.ndarray, *, dt_ms: float) -> PredictionObject:
    """Read what, when and how likely from a prediction after the cue alone.

    Parameters
    ----------
    outputs : ndarray, shape (T, K)
        Such as ``learner.test(task).mean(axis=0)[:, lane]``.
    dt_ms : float
        Time step.

    Examples
    --------
    >>> from reservoir.tasks import PredictionTask
    >>> truth = PredictionTask((250.0, 450.0), 0.8).truth(dt_ms=1.0)
    >>> prediction_object(truth, dt_ms=1.0).delays_ms.tolist()
    [250.0, 450.0]
    """
    check_finite("outputs", check_shape("outputs", np.asarray(outputs), ("T", "K")))
    check_number("dt_ms", dt_ms, above=0)
    height = outputs.max(axis=0)
    return PredictionObject(
        delays_ms=np.where(height > 0, outputs.argmax(axis=0) * dt_ms, np.nan), probabilities=np.maximum(height, 0)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Angles:
    """Principal angles between two subspaces, and those that chance gives.

    Attributes
    ----------
    degrees : ndarray, shape (K,)
        Principal angles, ascending; 90 is orthogonal.
    null : ndarray, shape (permutations, K)
        The same after the neurons of one of the two were shuffled.
    p_below, p_above : float
        Probability under the null of a smallest angle that is at most, and at least, as large.
    """

    degrees: np.ndarray
    null: np.ndarray
    p_below: float
    p_above: float


def subspace_angles(a: np.ndarray, b: np.ndarray, *, n_permutations: int = 1000, generator: Any = 0) -> Angles:
    """Measure the angles between the subspaces that two readouts span, against a permutation null.

    Parameters
    ----------
    a, b : ndarray, shape (K, N)
        Weights, one row an output.
    n_permutations : int
        How often the neurons of `b` are shuffled.
    generator : numpy.random.Generator, torch.Generator, or int
        Source of the permutations.

    Returns
    -------
    Angles

    Notes
    -----
    Two random directions among N neurons are within about ``1 / sqrt(N)`` of orthogonal. An angle near 90 degrees
    therefore says nothing by itself; only one that the null does not give does. A readout whose weights have a mean
    keeps it under the shuffle, so a common mean is no finding either.

    Examples
    --------
    >>> subspace_angles(np.eye(2, 50), np.eye(2, 50), n_permutations=10).degrees.round(3).tolist()
    [0.0, 0.0]
    """
    for name, weights in (("a", a), ("b", b)):
        check_finite(name, check_shape(name, weights, ("K", "N")))
        if np.linalg.matrix_rank(weights) < len(weights):
            raise invalid(name, "have independent rows", f"rank {np.linalg.matrix_rank(weights)} of {len(weights)}")
    check_shape("b", b, (None, a.shape[1]))
    check_int("n_permutations", n_permutations, at_least=1)
    rng = random_source(generator)
    found = _angles(a, b)
    null = np.array([_angles(a, b[:, rng.permutation(b.shape[1])]) for _ in range(n_permutations)])
    # The data count as one of the permutations, so that no probability is 0.
    below = (1 + (null[:, 0] <= found[0]).sum()) / (n_permutations + 1)
    above = (1 + (null[:, 0] >= found[0]).sum()) / (n_permutations + 1)
    return Angles(degrees=found, null=null, p_below=float(below), p_above=float(above))


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.rad2deg(np.sort(scipy.linalg.subspace_angles(a.T, b.T)))


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionSpace:
    """Weights of many conditions in few dimensions.

    Attributes
    ----------
    scores : ndarray, shape (M, P)
        Each condition along each principal component.
    share : ndarray, shape (P,)
        Share of the variance.
    correlations : dict of str to ndarray of shape (P,)
        Correlation of each label with each component.
    """

    scores: np.ndarray
    share: np.ndarray
    correlations: dict[str, np.ndarray]


def condition_space(weights: np.ndarray, labels: dict[str, Any], *, n_components: int = 3) -> ConditionSpace:
    """Find the directions in which weights differ between conditions, and what they follow.

    Parameters
    ----------
    weights : ndarray, shape (M, ...)
        Weights after training in each condition; all axes but the first are flattened. Parts of different size, such as
        those for what and for when, should be brought to one scale first.
    labels : dict of str to array of shape (M,)
        What distinguishes the conditions, such as probability and delay.
    n_components : int
        How many, P.

    Returns
    -------
    ConditionSpace
        The sign of a component is arbitrary.

    Examples
    --------
    >>> weights = np.arange(5.0)[:, None] * np.ones((5, 3))
    >>> space = condition_space(weights, {"p": np.arange(5)}, n_components=1)
    >>> float(abs(space.correlations["p"][0]).round(6))
    1.0
    """
    flat = np.asarray(weights, dtype=np.float64).reshape(len(weights), -1)
    check_finite("weights", flat)
    check_int("n_components", n_components, at_least=1, at_most=min(flat.shape))
    left, sizes, _ = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    if not sizes[0] > 0:
        raise invalid("weights", "differ between conditions", "the same ones in all")
    scores = (left * sizes)[:, :n_components]
    correlations = {}
    for name, label in labels.items():
        label = check_shape(name, np.asarray(label, dtype=np.float64), (len(flat),))
        centred = label - label.mean()
        spread = np.linalg.norm(centred) * np.linalg.norm(scores, axis=0)
        correlations[name] = np.divide(centred @ scores, spread, out=np.zeros(n_components), where=spread > 0)
    share = sizes[:n_components] ** 2 / (sizes**2).sum()
    return ConditionSpace(scores=scores, share=share, correlations=correlations)
