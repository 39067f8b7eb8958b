"""Sound to spikes: a model of the inner ear that makes events like those of the Heidelberg digits.

Gammatone filterbank, hair cells, adaptation, spiking neurons; each stage is a function of `cochlea_stages`. The same
sound and settings give the same spikes on every run: there is no noise unless a random generator is passed.
"""

# C channels from low to high frequency, F fibres a channel, T samples, E events, N recordings

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from neuroloaders.checks import (
    check_finite,
    check_fraction,
    check_int,
    check_number,
    check_option,
    check_same_length,
    check_shape,
    invalid,
)
from neuroloaders.cochlea_stages import (
    FILTERBANKS,
    NORMALISATIONS,
    adapt,
    emphasise,
    erb_space,
    gammatone_poles,
    hair_cell,
    hears_fine_structure,
    lif_spikes,
    one_pole,
)

__all__ = ["COCHLEA_BACKENDS", "CochleaConfig", "cochlea_spikes", "cochlea_spikes_batch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CochleaConfig:
    """How sound becomes spikes.

    The defaults are for speech of telephone quality (8 kHz): 140 units, and some 40 spikes a second in a unit that
    is driven.

    Parameters
    ----------
    n_channels : int
        Number of frequency channels C.
    f_min_hz, f_max_hz : float
        Centre frequencies of the lowest and the highest channel; those between are equally far apart in ERB number.
        `f_max_hz` must be below half of the sampling rate, and better 10 % below: a real sound has a mirror image
        above that half, which beats with it in filters that are wide enough to hear both.
    filterbank : str
        A key of `neuroloaders.cochlea_stages.FILTERBANKS`.
    normalisation : str
        What each recording is divided by, a key of `neuroloaders.cochlea_stages.NORMALISATIONS`: 'rms' (root mean
        square of the whole recording), 'peak' (largest absolute value), or 'none'. No other recording is looked at. A
        long silence lowers the RMS, and a click raises the peak.
    emphasis_hz : float
        Sound is raised by 6 dB an octave above this corner before it is normalised; 0 leaves it as it is.
    hair_cell_hz : float
        Corner of the hair cell's two low-passes; phase is lost above.
    compression : float
        Exponent of the power law that follows, in [0.1, 1]; 1 is linear. At 0.3, 60 dB become 18 dB.
    adaptation : float
        Share of a steady drive that is lost, in [0, 1]; 0 does without.
    adaptation_ms : float
        Time constant of the loss.
    thresholds : tuple of float
        Of the F fibres of each channel, rising: several are several ranges of level. In units of the drive, which for
        a channel that carries all of a normalised recording is of the order of 1 at its onset.
    membrane_ms : float
        Membrane time constant of the spiking neurons.
    refractory_ms : float
        How long a neuron is silent after a spike; at least to the end of the sample.
    version : int
        Of the code that encodes; part of the cache's key.

    Raises
    ------
    TypeError, ValueError
        If a setting is of the wrong kind or out of range.
    """

    n_channels: int = 70
    f_min_hz: float = 100.0
    f_max_hz: float = 3600.0
    filterbank: str = "gammatone"
    normalisation: str = "rms"
    emphasis_hz: float = 0.0
    hair_cell_hz: float = 1000.0
    compression: float = 0.3
    adaptation: float = 0.6
    adaptation_ms: float = 60.0
    thresholds: tuple[float, ...] = (0.15, 0.3)
    membrane_ms: float = 5.0
    refractory_ms: float = 2.0
    version: int = 1

    def __post_init__(self) -> None:
        check_int("n_channels", self.n_channels, at_least=1)
        check_number("f_min_hz", self.f_min_hz, above=0)
        check_number("f_max_hz", self.f_max_hz, above=self.f_min_hz, advice="It must lie above `f_min_hz`.")
        check_option("filterbank", self.filterbank, FILTERBANKS)
        check_option("normalisation", self.normalisation, NORMALISATIONS)
        check_number("emphasis_hz", self.emphasis_hz, at_least=0)
        check_number("hair_cell_hz", self.hair_cell_hz, above=0)
        check_number("compression", self.compression, at_least=0.1, at_most=1)
        check_fraction("adaptation", self.adaptation)
        check_number("adaptation_ms", self.adaptation_ms, above=0)
        if not isinstance(self.thresholds, Sequence) or isinstance(self.thresholds, str) or not self.thresholds:
            raise invalid("thresholds", "be a tuple of at least one number", self.thresholds, kind=TypeError)
        object.__setattr__(self, "thresholds", tuple(self.thresholds))  # a list, as JSON gives it, will do
        for i, threshold in enumerate(self.thresholds):
            check_number(f"thresholds[{i}]", threshold, at_least=1e-6)
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise invalid("thresholds", "rise", f"{self.thresholds}", "Equal fibres would spike alike.")
        check_number("membrane_ms", self.membrane_ms, above=0)
        check_number("refractory_ms", self.refractory_ms, at_least=0)
        check_int("version", self.version, at_least=1)

    @property
    def n_units(self) -> int:
        """Number of units: channels times fibres. Unit ``channel * F + fibre``, low frequency and threshold first."""
        return self.n_channels * len(self.thresholds)

    @property
    def centres_hz(self) -> np.ndarray:
        """Centre frequency of each channel in Hz, rising, shape (C,)."""
        return erb_space(self.f_min_hz, self.f_max_hz, self.n_channels)


def cochlea_spikes(
    wave: Any,
    sfreq: float,
    config: CochleaConfig | None = None,
    *,
    rng: np.random.Generator | None = None,
    backend: str = "numba",
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a sound into spikes.

    Parameters
    ----------
    wave : array, shape (T,)
        One channel of sound, in any unit unless ``config.normalisation`` is 'none'.
    sfreq : float
        Sampling rate in Hz. The filters are made for it; nothing is resampled.
    config : CochleaConfig, optional
        Settings.
    rng : numpy.random.Generator, optional
        Lets each neuron start at a random potential between 0 and its threshold instead of 0, so that neighbours are
        not in step: other spikes for the same sound, as of another trial.
    backend : str
        A key of `COCHLEA_BACKENDS`.

    Returns
    -------
    times_ms : ndarray of float32, shape (E,)
        In rising order, from the first sample on.
    units : ndarray of int32, shape (E,)
        ``channel * F + fibre`` in 0..config.n_units - 1, from low to high frequency.

    Raises
    ------
    TypeError, ValueError
        If `wave` is not a list of finite numbers, or `sfreq` is too low for ``config.f_max_hz``.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(1600) / 8000)
    >>> times_ms, units = cochlea_spikes(tone, 8000)
    >>> loudest = np.bincount(units).argmax() // 2  # two fibres a channel
    >>> round(float(CochleaConfig().centres_hz[loudest]), -2)
    1000.0
    """
    config = config or CochleaConfig()
    encode = COCHLEA_BACKENDS[check_option("backend", backend, COCHLEA_BACKENDS)]
    design = _design(config, check_number("sfreq", sfreq, above=0))
    x = _normalise(_checked(wave), sfreq, config)
    v_start = np.zeros((config.n_channels, len(config.thresholds)))
    if rng is not None:
        v_start = rng.uniform(0.0, config.thresholds, v_start.shape)
    times_ms, units = encode(x, design, config, v_start)
    return times_ms.astype(np.float32), units


def cochlea_spikes_batch(
    waves: Sequence[Any],
    sfreq: float | Sequence[float],
    config: CochleaConfig | None = None,
    *,
    rng: np.random.Generator | None = None,
    backend: str = "numba",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn several sounds, which may differ in length and rate, into one list of events.

    Parameters
    ----------
    waves : sequence of arrays, length N
        Each of shape (T,).
    sfreq : float or sequence of float
        Sampling rate in Hz of all, or of each.
    config, rng, backend
        As for `cochlea_spikes`.

    Returns
    -------
    times_ms : ndarray of float32, shape (E,)
    units : ndarray of int32, shape (E,)
    offsets : ndarray of int64, shape (N + 1,)
        Events of sound i are ``offsets[i]:offsets[i + 1]``, as a `SpikeSet` takes them.
    """
    rates = [sfreq] * len(waves) if np.ndim(sfreq) == 0 else list(sfreq)
    check_same_length(waves=waves, sfreq=rates)
    options = {"rng": rng, "backend": backend}
    parts = [cochlea_spikes(wave, rate, config, **options) for wave, rate in zip(waves, rates, strict=True)]
    return join_events(parts)


def join_events(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay (times, units) of N samples end to end: times (E,), units (E,), offsets (N + 1,)."""
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([len(times) for times, _ in parts], out=offsets[1:])
    times = [np.empty(0, dtype=np.float32), *(times for times, _ in parts)]
    units = [np.empty(0, dtype=np.int32), *(units for _, units in parts)]
    return np.concatenate(times), np.concatenate(units), offsets


class _Design(NamedTuple):
    """What depends on the settings and the sampling rate, and not on the sound."""

    sfreq: float
    centres_hz: np.ndarray
    poles: np.ndarray
    fine: np.ndarray


@lru_cache(maxsize=16)
def _design(config: CochleaConfig, sfreq: float) -> _Design:
    check_carries(config, sfreq, "`sfreq`")
    centres = config.centres_hz
    return _Design(sfreq, centres, gammatone_poles(centres, sfreq), hears_fine_structure(centres, sfreq))


def check_carries(config: CochleaConfig, sfreq: float, what: str) -> None:
    """Raise ValueError if the highest channel lies at or above half of the sampling rate of `what`."""
    if config.f_max_hz >= sfreq / 2:
        advice = "A sampling rate carries frequencies up to its half: set a lower f_max_hz in the config."
        raise invalid("f_max_hz", f"be below {sfreq / 2:g} Hz, half of {what}", f"{config.f_max_hz:g}", advice)


def _checked(wave: Any) -> np.ndarray:
    wave = check_shape("wave", np.asarray(wave), ("T",), advice="Pass one channel at a time.")
    if wave.dtype.kind not in "fiu":
        raise invalid("wave", "hold real numbers", wave, kind=TypeError)
    if len(wave) == 0:
        raise invalid("wave", "hold at least one sample", wave)
    return check_finite("wave", wave.astype(np.float64))


def _normalise(wave: np.ndarray, sfreq: float, config: CochleaConfig) -> np.ndarray:
    wave = emphasise(wave, sfreq, config.emphasis_hz)
    level = NORMALISATIONS[config.normalisation](wave)
    return wave / level if level > 0 else wave  # silence stays silence


def _numba(
    wave: np.ndarray, design: _Design, config: CochleaConfig, v_start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    from neuroloaders.cochlea_kernel import encode

    per_ms = design.sfreq / 1000
    times, units = encode(
        wave,
        design.poles,
        design.fine,
        one_pole(1 / (2 * math.pi * config.hair_cell_hz), design.sfreq),
        float(config.compression),
        float(config.adaptation),
        one_pole(config.adaptation_ms / 1000, design.sfreq),
        np.asarray(config.thresholds, dtype=np.float64),
        config.membrane_ms * per_ms,
        config.refractory_ms * per_ms,
        v_start,
    )
    # The kernel goes unit by unit and mergesort keeps ties in order, so simultaneous spikes stay in unit order.
    order = np.argsort(times, kind="stable")
    return times[order] / per_ms, units[order]


def _numpy(
    wave: np.ndarray, design: _Design, config: CochleaConfig, v_start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    sfreq, centres = design.sfreq, design.centres_hz
    bands = FILTERBANKS[config.filterbank](wave, sfreq, centres)
    drive = hair_cell(bands, sfreq, centres, cutoff_hz=config.hair_cell_hz, compression=config.compression)
    drive = adapt(drive, sfreq, strength=config.adaptation, tau_ms=config.adaptation_ms)
    return lif_spikes(
        drive,
        sfreq,
        thresholds=config.thresholds,
        membrane_ms=config.membrane_ms,
        refractory_ms=config.refractory_ms,
        v_start=v_start,
    )


# Two ways to the same spikes: 'numba' is compiled, 'numpy' goes through the functions of `cochlea_stages`.
COCHLEA_BACKENDS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {"numba": _numba, "numpy": _numpy}
