"""How well a model's spikes and potentials agree with those recorded: coincidence factor, terms, losses."""

# P candidates, S sweeps

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from neuroloaders.checks import check_number, check_option, invalid

__all__ = ["LOSSES", "TERMS", "Coincidences", "check_loss", "coincidence_factor", "terms_of", "voltage_term"]

TERMS = {
    "voltage": "root mean square distance of the potential between spikes, over the standard deviation recorded there",
    "count": "distance of the spike counts over 1 + their mean; mean over sweeps",
    "latency": "distance x of the first spikes as x / (x + 20 ms), 1 if only one of the two fires; mean over sweeps",
    "isi": "ISI distance (Kreuz et al. 2007): mean over time of 1 - shorter / longer interval; mean over sweeps",
    "gamma": "1 - coincidence factor (Jolivet et al. 2008), all sweeps together",
}
# Weights of the terms. In the mix, counts and intervals weigh most: other cells hear those. The coincidence factor
# weighs least: it is rugged, and in steps of current a cell need not repeat its own spikes to some ms.
LOSSES: dict[str, dict[str, float]] = {
    "features": {"voltage": 1.0, "count": 2.0, "latency": 1.0, "isi": 2.0, "gamma": 0.25},
    "gamma": {"gamma": 1.0},
    "voltage": {"voltage": 1.0},
}
_LATENCY_MS = 20.0
# What a candidate gets that leaves the numbers.
WORST = 1e6


class Coincidences(NamedTuple):
    """Spikes that agree.

    Attributes
    ----------
    gamma : float
        The coincidence factor: 1 if all do, 0 as by chance; NaN if there are no spikes at all.
    n_coincident : int
        Pairs of spikes within the precision.
    n_expected : float
        How many are expected if the model fired at its rate, but at random.
    """

    gamma: float
    n_coincident: int
    n_expected: float


def coincidence_factor(
    data: Sequence[np.ndarray], model: Sequence[np.ndarray], durations_ms: Sequence[float], *, delta_ms: float = 4.0
) -> Coincidences:
    """Return the coincidence factor of a model's spike trains with those recorded.

    Parameters
    ----------
    data, model : sequence of arrays
        Sorted spike times of each sweep, ms.
    durations_ms : sequence of float
        Length of each sweep.
    delta_ms : float
        Precision: pairs that are no farther apart coincide. 2 and 4 ms are in use.

    Returns
    -------
    Coincidences

    Raises
    ------
    ValueError
        If the numbers of sweeps differ, or times are not sorted, or at such a rate and precision chance explains all.

    Notes
    -----
    Gamma = (N_coinc - <N_coinc>) / ((N_data + N_model) / 2) / (1 - 2 nu delta), where <N_coinc> = 2 nu delta N_data is
    what a Poisson train of the model's rate nu gives [1]_ [2]_. Each spike belongs to one pair at most, which matters
    where intervals are shorter than `delta_ms`. With several sweeps the counts are added up, each with its own rate,
    and 2 nu delta in the last factor is <N_coinc> / N_data: one sweep gives the published number, and a perfect model
    1. The rate is that over the whole sweep. Where a cell fires during a step only, chance is therefore understated;
    compare with a second recording of the same current where there is one.

    References
    ----------
    .. [1] Kistler, Gerstner & van Hemmen, Neural Computation 9 (1997), doi:10.1162/neco.1997.9.5.1015.
    .. [2] Jolivet et al., Journal of Neuroscience Methods 169 (2008), doi:10.1016/j.jneumeth.2007.11.006.

    Examples
    --------
    >>> spikes = [np.array([100.0, 250.0, 400.0])]
    >>> found = coincidence_factor(spikes, spikes, [1000.0])
    >>> found.gamma, found.n_coincident, round(found.n_expected, 3)
    (1.0, 3, 0.072)
    """
    from reservoir.fitting.kernel import count_coincidences

    check_number("delta_ms", delta_ms, above=0)
    if not len(data) == len(model) == len(durations_ms):
        raise invalid("model", f"hold {len(data)} sweeps, as `data` and `durations_ms`", f"{len(model)}")
    trains = [[np.asarray(one, dtype=np.float64) for one in trains] for trains in (data, model)]
    for name, sweeps in zip(("data", "model"), trains, strict=True):
        for one in sweeps:
            if one.ndim != 1 or (np.diff(one) < 0).any():
                raise invalid(name, "hold sorted spike times, one array a sweep", one)
    # A pair exactly at the precision counts, whatever the rounding of its times.
    pairs = sum(count_coincidences(d, m, delta_ms * (1 + 1e-9)) for d, m in zip(*trains, strict=True))
    n_data = np.array([len(one) for one in trains[0]], dtype=np.float64)
    n_model = np.array([len(one) for one in trains[1]], dtype=np.float64)
    expected = float((2 * n_model / np.asarray(durations_ms, dtype=np.float64) * delta_ms * n_data).sum())
    if n_data.sum() + n_model.sum() == 0:
        return Coincidences(float("nan"), 0, 0.0)
    left = 1 - expected / max(n_data.sum(), 1)
    if left <= 0:
        advice = "At this rate every spike coincides by chance. Shorten it."
        raise invalid("delta_ms", "be short against the model's intervals", f"{delta_ms:g}", advice)
    gamma = (pairs - expected) / (0.5 * (n_data.sum() + n_model.sum())) / left
    return Coincidences(float(gamma), int(pairs), expected)


def check_loss(loss: str | Mapping[str, float]) -> dict[str, float]:
    """Return the weights of the terms of a loss.

    Parameters
    ----------
    loss : str or mapping of str to float
        A key of `LOSSES`, or weights of some of `TERMS`.
    """
    if isinstance(loss, str):
        return dict(LOSSES[check_option("loss", loss, LOSSES)])
    if not isinstance(loss, Mapping) or not loss:
        raise invalid("loss", f"be one of {', '.join(map(repr, LOSSES))}, or map terms to weights", loss)
    weights = {check_option("loss", term, TERMS): check_number("loss", w, at_least=0) for term, w in loss.items()}
    if not any(weights.values()):
        raise invalid("loss", "give one term a weight at least", weights)
    return weights


def terms_of(
    times_ms: Any, counts: np.ndarray, errors: np.ndarray, spikes: Sequence[np.ndarray], durations_ms: np.ndarray,
    target: np.ndarray, delta_ms: float,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return every term of `TERMS` for each candidate.

    Parameters
    ----------
    times_ms : ndarray, shape (P, S, Q)
        Spike times of the candidates.
    counts : ndarray of int64, shape (P, S)
        How many there are.
    errors : ndarray, shape (P, S)
        Sum of squared distances of the potential.
    spikes : sequence of arrays
        Recorded spikes of each sweep, ms.
    durations_ms : ndarray, shape (S,)
        Length of each sweep.
    target : ndarray, shape (G, S)
        Recorded potential, NaN where it is not compared.
    delta_ms : float
        Precision of the coincidence factor.

    Returns
    -------
    dict of str to ndarray, shape (P,)
    """
    from reservoir.fitting.kernel import count_coincidences, isi_distance

    n_candidates, n_sweeps, room = times_ms.shape
    n_data = np.array([len(one) for one in spikes], dtype=np.float64)
    count = (np.abs(counts - n_data) / (1 + (counts + n_data) / 2)).mean(axis=1)
    latency, isi, pairs = (np.zeros((n_candidates, n_sweeps)) for _ in range(3))
    for s, data in enumerate(spikes):
        for p in range(n_candidates):
            model = times_ms[p, s, : min(counts[p, s], room)]
            if len(data) and len(model):
                apart = abs(model[0] - data[0])
                latency[p, s] = apart / (apart + _LATENCY_MS)
            else:
                latency[p, s] = float(len(data) != len(model))
            isi[p, s] = isi_distance(data, model, durations_ms[s])
            pairs[p, s] = count_coincidences(data, model, delta_ms * (1 + 1e-9))
    expected = (2 * counts / durations_ms * delta_ms * n_data).sum(axis=1)
    half = 0.5 * (counts.sum(axis=1) + n_data.sum())
    left = np.maximum(1 - expected / max(n_data.sum(), 1), 1e-3)
    gamma = (pairs.sum(axis=1) - expected) / np.maximum(half, 1) / left
    terms = {
        "voltage": voltage_term(errors, target),
        "count": count,
        "latency": latency.mean(axis=1),
        "isi": isi.mean(axis=1),
    }
    # Bounded for those that fire so often that chance explains everything.
    terms["gamma"] = np.clip(1 - gamma, 0, 2)
    # The spikes of those that left the numbers mean nothing either.
    bad = terms["voltage"] >= WORST
    return {name: np.where(bad, WORST, term) for name, term in terms.items()}


def voltage_term(errors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the "voltage" term, shape (P,).

    Parameters
    ----------
    errors : ndarray, shape (P, S)
        Sum of squared distances of the potential; infinite where it is not finite.
    target : ndarray, shape (G, S)
        Recorded potential, NaN where it is not compared.
    """
    compared = np.isfinite(target)
    distance = np.sqrt(errors.sum(axis=1) / compared.sum()) / target[compared].std()
    return np.where(np.isfinite(distance), np.minimum(distance, WORST), WORST)
