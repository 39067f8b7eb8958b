"""Artefacts as MEG has them, for simulations: rare, short, and much larger than everything else."""

# C channels, T samples

from __future__ import annotations

import dataclasses

import numpy as np

from neuroloaders.checks import check_number, invalid
from neuroloaders.recordings import RecordingSet

__all__ = ["with_artefacts"]


def with_artefacts(
    recordings: RecordingSet,
    *,
    rng: np.random.Generator,
    per_minute: float = 6.0,
    size: tuple[float, float] = (100.0, 10_000.0),
    duration_s: tuple[float, float] = (0.05, 0.3),
    share: float = 0.2,
) -> RecordingSet:
    """Return recordings to which jumps of some sensors were added.

    Parameters
    ----------
    recordings : RecordingSet
        Left as they are.
    rng : numpy.random.Generator
        When, where and how large.
    per_minute : float
        How many a minute, on average; a Poisson process.
    size : (float, float)
        From and to, in interquartile ranges of the sensor; uniform in its logarithm, of either sign. Jumps of a SQUID
        are of this size: nT, where the brain makes hundreds of fT.
    duration_s : (float, float)
        From and to; a half sine.
    share : float
        Of the sensors that see each, in (0, 1]; at least one.

    Returns
    -------
    RecordingSet
        In memory.
    """
    check_number("per_minute", per_minute, at_least=0)
    check_number("share", share, above=0, at_most=1)
    for name, pair in (("size", size), ("duration_s", duration_s)):
        if not 0 < pair[0] <= pair[1]:
            raise invalid(name, "be two numbers above 0, the lesser first", pair)
    out = []
    for recording in recordings:
        data = np.array(recording.data, dtype=np.float32)
        low, high = np.quantile(data, [0.25, 0.75], axis=1)
        for _ in range(rng.poisson(per_minute * recording.duration / 60)):
            n = max(2, round(rng.uniform(*duration_s) * recording.sfreq))
            first = int(rng.integers(0, max(1, recording.n_times - n)))
            seen = rng.permutation(len(data))[: max(1, round(share * len(data)))]
            height = np.exp(rng.uniform(*np.log(size), len(seen))) * rng.choice([-1, 1], len(seen)) * (high - low)[seen]
            wave = np.sin(np.pi * (np.arange(n) + 0.5) / n)
            data[seen, first : first + n] += (height[:, None] * wave)[:, : data.shape[1] - first]
        out.append(dataclasses.replace(recording, data=data, provenance=f"{recording.provenance}, with artefacts"))
    return RecordingSet(out)
