"""Where weights lie: angles between readouts and conditions in weight space, each against what chance gives."""

# K outputs, N neurons, M conditions, F features, P principal components

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from neuroloaders.checks import check_finite, check_int, check_shape, invalid
from reservoir.network import random_source

__all__ = ["Angles", "ConditionSpace", "condition_space", "subspace_angles"]

# Relative: numbers that differ by less are the same.
_ROUNDING = 1e-12


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

    @property
    def p_two_sided(self) -> float:
        """Probability under the null of a smallest angle that is as far out on either side."""
        return min(1.0, 2 * min(self.p_below, self.p_above))

    def summary(self) -> str:
        """Return the smallest angle, what the null gives, and both probabilities, in one line."""
        low, middle, high = np.quantile(self.null[:, 0], (0.025, 0.5, 0.975))
        return (
            f"smallest angle {self.degrees[0]:.1f} degrees; {len(self.null)} shuffles: median {middle:.1f}, 95 % in "
            f"{low:.1f} to {high:.1f}; p {self.p_below:.3f} (smaller), {self.p_above:.3f} (larger)"
        )


def subspace_angles(
    a: np.ndarray,
    b: np.ndarray,
    *,
    n_permutations: int = 1000,
    populations: Mapping[str, slice] | None = None,
    generator: Any = 0,
) -> Angles:
    """Measure the angles between the subspaces that two readouts span, against a permutation null.

    Parameters
    ----------
    a, b : ndarray, shape (K, N)
        Weights, one row an output.
    n_permutations : int
        How often the neurons of `b` are shuffled.
    populations : mapping of str to slice, optional
        Such as `Reservoir.populations`: neurons are shuffled within each of them only, and those in none stay. By
        default among all, and then that two readouts weight one population more than another counts as a finding.
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
    rng, groups = random_source(generator), _groups(populations, b.shape[1])
    found = _angles(a, b)
    null = np.array([_angles(a, b[:, _shuffled(groups, b.shape[1], rng)]) for _ in range(n_permutations)])
    # The data count as one of the permutations, so that no probability is 0.
    below = (1 + (null[:, 0] <= found[0]).sum()) / (n_permutations + 1)
    above = (1 + (null[:, 0] >= found[0]).sum()) / (n_permutations + 1)
    return Angles(degrees=found, null=null, p_below=float(below), p_above=float(above))


def _groups(populations: Mapping[str, slice] | None, n: int) -> list[np.ndarray]:
    if populations is None:
        return [np.arange(n)]
    groups = [np.arange(n)[place] for place in populations.values()]
    members = np.concatenate([np.zeros(0, dtype=np.int64), *groups])
    if not len(members) or len(np.unique(members)) < len(members):
        raise invalid("populations", f"hold some of the {n} neurons, and each at most once", populations)
    return groups


def _shuffled(groups: list[np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    order = np.arange(n)
    for group in groups:
        order[group] = group[rng.permutation(len(group))]
    return order


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.rad2deg(np.sort(scipy.linalg.subspace_angles(a.T, b.T)))


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionSpace:
    """Weights of many conditions in few dimensions, and what these follow.

    Attributes
    ----------
    scores : ndarray, shape (M, P)
        Each condition along each principal component.
    share : ndarray, shape (P,)
        Share of the variance.
    correlations : dict of str to ndarray of shape (P,)
        Correlation of each label with each component; 0 for a label that is the same in all conditions.
    p_values : dict of str to ndarray of shape (P,)
        Probability that any of the P components correlates as much, of either sign, with the label in random order:
        corrected for the choice of the best component, not for the number of labels.
    null : dict of str to ndarray of shape (permutations,)
        The largest absolute correlation of any component with the label in random order.
    labels : dict of str to ndarray of shape (M,)
        The labels.
    mean : ndarray, shape (F,)
        Mean of the weights.
    components : ndarray, shape (P, F)
        Directions of the components, of norm 1.
    """

    scores: np.ndarray
    share: np.ndarray
    correlations: dict[str, np.ndarray]
    p_values: dict[str, np.ndarray]
    null: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    mean: np.ndarray
    components: np.ndarray

    def project(self, weights: np.ndarray) -> np.ndarray:
        """Return where other weights lie, such as those in the course of a training.

        Parameters
        ----------
        weights : ndarray, shape (M', ...)
            Made like those that the space was found from, scale included.

        Returns
        -------
        ndarray, shape (M', P)
        """
        flat = np.asarray(weights, dtype=np.float64).reshape(len(weights), -1)
        check_finite("weights", check_shape("weights", flat, ("M", len(self.mean))))
        return (flat - self.mean) @ self.components.T

    def table(self) -> str:
        """Return for each label its strongest component, the correlation, what chance gives, and the probability."""
        lines = [f"{'label':12} {'component':>9} {'|r|':>6} {'95 % of chance':>14} {'p':>6}"]
        for name, found in self.correlations.items():
            best = int(np.abs(found).argmax())
            chance, p = np.quantile(self.null[name], 0.95), self.p_values[name][best]
            lines.append(f"{name:12} {best + 1:9} {abs(found[best]):6.3f} {chance:14.3f} {p:6.3f}")
        return "\n".join(lines)


def condition_space(
    weights: np.ndarray,
    labels: Mapping[str, Any],
    *,
    n_components: int = 3,
    n_permutations: int = 1000,
    generator: Any = 0,
) -> ConditionSpace:
    """Find the directions in which weights differ between conditions, what they follow, and what chance would give.

    Parameters
    ----------
    weights : ndarray, shape (M, ...)
        Weights after training in each condition; all axes but the first are flattened. Parts of different size, such as
        those for what and for when, should be brought to one scale first, as `reservoir.conditions.join_weights` does.
    labels : mapping of str to array of shape (M,)
        What distinguishes the conditions, such as probability and delay.
    n_components : int
        How many, P.
    n_permutations : int
        How often each label is put into random order.
    generator : numpy.random.Generator, torch.Generator, or int
        Source of the orders.

    Returns
    -------
    ConditionSpace
        The sign of a component is arbitrary.

    Notes
    -----
    Few conditions correlate with anything: of nine, one of three components reaches 0.8 in one of about twenty random
    orders. A correlation means something beside its probability only. The conditions must be trained independently but
    for what they share on purpose; a network that went through them one after the other carries the last into the next.

    Examples
    --------
    >>> weights = np.arange(8.0)[:, None] * np.ones((8, 3))
    >>> space = condition_space(weights, {"p": np.arange(8)}, n_components=1)
    >>> float(abs(space.correlations["p"][0]).round(6)), bool(space.p_values["p"][0] < 0.01)
    (1.0, True)
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim < 2 or 0 in weights.shape or len(weights) < 2:
        raise invalid("weights", "have shape (M, ...), with two conditions or more", f"{weights.shape}")
    flat = check_finite("weights", weights.reshape(len(weights), -1))
    check_int("n_components", n_components, at_least=1, at_most=min(flat.shape))
    check_int("n_permutations", n_permutations, at_least=1)
    rng, mean = random_source(generator), flat.mean(axis=0)
    left, sizes, right = np.linalg.svd(flat - mean, full_matrices=False)
    # Weights that are the same in all conditions differ from their mean by rounding.
    if sizes[0] <= np.finfo(np.float64).eps * max(flat.shape) * np.abs(flat).max():
        raise invalid("weights", "differ between conditions", "the same ones in all")
    scores = (left * sizes)[:, :n_components]
    correlations, p_values, null = {}, {}, {}
    labels = {name: np.asarray(label, dtype=np.float64) for name, label in labels.items()}
    for name, label in labels.items():
        check_finite(name, check_shape(name, label, (len(flat),)))
        found = _correlations(label[None], scores)[0]
        orders = rng.permuted(np.tile(label, (n_permutations, 1)), axis=1)
        largest = np.abs(_correlations(orders, scores)).max(axis=1)
        beyond = (largest[:, None] >= np.abs(found) - _ROUNDING).sum(axis=0)
        correlations[name], null[name], p_values[name] = found, largest, (1 + beyond) / (n_permutations + 1)
    return ConditionSpace(
        scores=scores,
        share=sizes[:n_components] ** 2 / (sizes**2).sum(),
        correlations=correlations,
        p_values=p_values,
        null=null,
        labels=labels,
        mean=mean,
        components=right[:n_components],
    )


def _correlations(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the correlation of each row of labels with each component; 0 where one of them is constant."""
    centred = labels - labels.mean(axis=1, keepdims=True)
    width, size = np.linalg.norm(centred, axis=1), np.linalg.norm(scores, axis=0)
    # What differs by rounding is constant.
    varies = (width > _ROUNDING * np.linalg.norm(labels, axis=1))[:, None] & (size > _ROUNDING * size.max())
    spread = width[:, None] * size
    return np.divide(centred @ scores, spread, out=np.zeros(spread.shape), where=varies)
