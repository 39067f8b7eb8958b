"""Noise that depends on nothing but its address: seed, step and neuron.

Every backend asks for the same numbers, in any order and on any number of threads. The bits come from a counter-based
generator, the normal deviates from the method of Box and Muller in additions, multiplications, divisions and square
roots only. These round alike on every processor, unlike the logarithms and cosines of a mathematics library, so a
noisy run is the same everywhere, bit for bit.
"""

# N neurons

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from neuroloaders.checks import check_int

__all__ = ["STREAMS", "block_normals", "normal_pair", "normals", "philox"]

# Who draws. One seed serves all without their numbers being related.
STREAMS = {"current": 0, "rule": 1}

# Multipliers and key increments of philox4x32 (Salmon et al. 2011).
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
N_ROUNDS = 10
_LOW = 0xFFFFFFFF

# Series, highest power first: of atanh(z) / z, sin(x) / x and cos(x), in the square of their argument. With |z| < 0.172
# and |x| <= pi / 4 the first terms left out are below 3e-8.
LOG_SERIES = (1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0)
SIN_SERIES = (1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0)
COS_SERIES = (-1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0)
LN2 = 0.6931471805599453
SQRT2 = 1.4142135623730951
ANGLE = 2.0**-31 * 3.141592653589793


def philox(counter: tuple[Any, Any, Any, Any], seed: int) -> tuple[Any, Any, Any, Any]:
    """Return four words of 32 random bits for each counter.

    Parameters
    ----------
    counter : four int64 arrays, or tensors, that broadcast
        Which numbers; each is used modulo 2**32.
    seed : int
        The key, 0 to 2**64 - 1.

    Returns
    -------
    tuple of four int64 arrays
        0 to 2**32 - 1.

    Notes
    -----
    philox4x32-10 of [1]_.

    References
    ----------
    .. [1] Salmon et al., Parallel random numbers: as easy as 1, 2, 3. SC 2011, doi:10.1145/2063384.2063405.

    Examples
    --------
    >>> import numpy as np
    >>> [hex(word[0]) for word in philox((np.zeros(1, np.int64),) * 4, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = (word & _LOW for word in counter)
    k0, k1 = seed & _LOW, seed >> 32 & _LOW
    for _ in range(N_ROUNDS):
        # Products of two 32-bit numbers wrap around in int64, but their bits are those of the unsigned product.
        low, high = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (high >> 32 & _LOW) ^ c1 ^ k0, high & _LOW, (low >> 32 & _LOW) ^ c3 ^ k1, low & _LOW
        k0, k1 = k0 + W0 & _LOW, k1 + W1 & _LOW
    return c0, c1, c2, c3


def normal_pair(radius_bits: Any, angle_bits: Any) -> tuple[Any, Any]:
    """Turn two words of 32 random bits into two standard normal deviates.

    Parameters
    ----------
    radius_bits, angle_bits : int64 arrays or tensors
        0 to 2**32 - 1.

    Returns
    -------
    two float64 arrays or tensors
        At most 6.77 from 0; within 1e-6 of the exact formula, and the same bits everywhere.

    Notes
    -----
    The method of Box and Muller [1]_, ``sqrt(-2 log u) (cos, sin)(2 pi w)``, with u and w in the middle of the 2**32
    intervals that the bits count, and with a logarithm, sine and cosine of its own.

    References
    ----------
    .. [1] Box & Muller, Annals of Mathematical Statistics 29 (1958), doi:10.1214/aoms/1177706645.
    """
    xp = _namespace(radius_bits)
    mantissa, exponent = xp.frexp(xp.asarray(2 * radius_bits + 1, dtype=xp.float64))
    mantissa, exponent = mantissa * 2.0, xp.asarray(exponent, dtype=xp.float64) - 1.0
    high = mantissa > SQRT2
    mantissa, exponent = xp.where(high, mantissa * 0.5, mantissa), xp.where(high, exponent + 1.0, exponent)
    z = (mantissa - 1.0) / (mantissa + 1.0)
    log = exponent * LN2 + 2.0 * z * _polynomial(LOG_SERIES, z * z)
    radius = _sqrt(66.0 * LN2 - 2.0 * log)
    # The nearest multiple of a quarter turn, and the rest, at most an eighth of a turn.
    quarter = angle_bits + (1 << 29) >> 30
    x = (xp.asarray(angle_bits - (quarter << 30), dtype=xp.float64) + 0.5) * ANGLE
    x2 = x * x
    sine, cosine = x * _polynomial(SIN_SERIES, x2), _polynomial(COS_SERIES, x2)
    swap = (quarter & 1) == 1
    first, second = xp.where(swap, sine, cosine), xp.where(swap, cosine, sine)
    first = first * xp.asarray(1 - (quarter + 1 & 2), dtype=xp.float64)
    second = second * xp.asarray(1 - (quarter & 2), dtype=xp.float64)
    return radius * first, radius * second


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    value = coefficients[0] * x + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def _sqrt(x: Any) -> Any:
    """Return the correctly rounded root; that of torch on the CPU comes from a library that is not always."""
    if isinstance(x, np.ndarray | np.generic):
        return np.sqrt(x)
    return sys.modules["torch"].from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def _namespace(x: Any) -> ModuleType:
    """Return torch for a tensor, else numpy; this module does not import torch."""
    return sys.modules["torch"] if type(x).__module__.startswith("torch") else np


def block_normals(words: tuple[Any, Any, Any, Any]) -> list[Any]:
    """Return the four deviates of each block of four neurons.

    Parameters
    ----------
    words : four int64 arrays or tensors
        What `philox` returned.

    Returns
    -------
    list of four float64 arrays or tensors
    """
    return [*normal_pair(words[0], words[1]), *normal_pair(words[2], words[3])]


def normals(seed: int, step: int, n: int, *, stream: str = "current") -> np.ndarray:
    """Return the standard normal deviates of one step, one a neuron.

    Parameters
    ----------
    seed : int
        The key of the run, 0 to 2**64 - 1.
    step : int
        Number of the time step, from 0.
    n : int
        Number of neurons. The first numbers do not depend on it.
    stream : str
        Who draws, a key of `STREAMS`.

    Returns
    -------
    ndarray, shape (N,), float64

    Examples
    --------
    >>> bool((normals(1, 5, 8)[:3] == normals(1, 5, 3)).all())
    True
    """
    check_int("n", n, at_least=0)
    block = np.arange(-(-n // 4), dtype=np.int64)
    place = (np.int64(step), np.int64(step >> 32), np.int64(STREAMS[stream]))
    words = philox((block, *(np.full_like(block, number) for number in place)), seed)
    return np.stack(block_normals(words), axis=1).reshape(-1)[:n]
