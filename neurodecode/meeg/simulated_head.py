"""A simulated head in a helmet of MEG sensors: fields of dipoles, and slow noise that the whole brain makes."""

# C sensors, P dipoles, T samples

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloaders.checks import check_int, check_number, soft_import

__all__ = ["BRAIN_RADIUS", "CENTRE", "dipole_fields", "head_noise_covariance", "helmet", "slow_noise"]

CENTRE = np.array([0.0, 0.0, 0.04])  # of the head, m
BRAIN_RADIUS = 0.078  # where dipoles may be, m
_HEAD, _HELMET = 0.09, 0.11  # radii, m
_WHITE_SHARE = 0.2


def helmet(n_sensors: int, sfreq: float = 120.0) -> tuple[Any, np.ndarray]:
    """Return axial gradiometers, spread evenly over a helmet.

    Parameters
    ----------
    n_sensors : int
        C, at least 4.
    sfreq : float
        What the info says of the rate, Hz.

    Returns
    -------
    info : mne.Info
        With the places of the coils.
    positions : ndarray of float32, shape (C, 2)
        Places on the flattened helmet, from 0 to 1.
    """
    mne = soft_import("mne", purpose="A forward model")
    check_int("n_sensors", n_sensors, at_least=4)
    k = np.arange(n_sensors) + 0.5
    z = 1 - 1.15 * k / n_sensors  # from the vertex to a little below the centre
    turn = np.pi * (1 + np.sqrt(5)) * k
    normal = np.column_stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z])
    info = mne.create_info([f"MEG{number:03d}" for number in range(n_sensors)], sfreq, "mag")
    with info._unlock():
        for channel, ez in zip(info["chs"], normal, strict=True):
            across = np.cross([0.0, 1.0, 0.0] if abs(ez[2]) > 0.9 else [0.0, 0.0, 1.0], ez)
            ex = across / np.linalg.norm(across)
            channel["loc"] = np.concatenate([CENTRE + _HELMET * ez, ex, np.cross(ez, ex), ez])
            channel["coil_type"] = 5001  # axial gradiometers of CTF, 5 cm
        info["dev_head_t"] = mne.transforms.Transform("meg", "head")
    flat = normal[:, :2] * (np.arccos(z) / np.sqrt(1 - z**2))[:, None]
    low, high = flat.min(axis=0), flat.max(axis=0)
    return info, ((flat - low) / (high - low)).astype(np.float32)


def dipole_fields(info: Any, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what the sensors see of dipoles of 1 Am with random directions, in a spherical head.

    Parameters
    ----------
    info : mne.Info
        From `helmet`.
    places : ndarray, shape (P, 3)
        In m, inside the head.
    rng : numpy.random.Generator
        For directions.

    Returns
    -------
    ndarray, shape (C, P)
        In T / (Am).
    """
    mne = soft_import("mne", purpose="A forward model")
    towards = rng.standard_normal(places.shape)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    n = len(places)
    # In MNE, dipoles of one object differ in time.
    dipoles = mne.Dipole(np.arange(n) / 1.0, places, np.ones(n), towards, np.full(n, 100.0), verbose="error")
    head = mne.make_sphere_model(CENTRE, _HEAD, verbose="error")
    return mne.make_forward_dipole(dipoles, head, info, verbose="error")[0]["sol"]["data"]


def head_noise_covariance(info: Any, rng: np.random.Generator, *, n_dipoles: int = 150) -> np.ndarray:
    """Return the covariance of brain noise and sensor noise, with variance 1 on average over sensors.

    Parameters
    ----------
    info : mne.Info
        From `helmet`.
    rng : numpy.random.Generator
        For places and directions.
    n_dipoles : int
        Independent ones all over the brain. They make four fifths of the variance, the sensors make the rest.

    Returns
    -------
    ndarray, shape (C, C)
    """
    check_int("n_dipoles", n_dipoles, at_least=1)
    directions = rng.standard_normal((n_dipoles, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = CENTRE + BRAIN_RADIUS * rng.uniform(0.2, 1.0, (n_dipoles, 1)) ** (1 / 3) * directions
    fields = dipole_fields(info, places, rng)
    covariance = fields @ fields.T
    covariance /= np.diag(covariance).mean()
    return (1 - _WHITE_SHARE) * covariance + _WHITE_SHARE * np.eye(len(covariance))


def slow_noise(shape: tuple[int, int], autocorrelation: float, rng: np.random.Generator) -> np.ndarray:
    """Return stationary autoregressive noise of first order and variance 1 along the last axis.

    Parameters
    ----------
    shape : tuple of int
        (C, T).
    autocorrelation : float
        From one sample to the next, in [0, 1).
    rng : numpy.random.Generator
        Where it comes from.

    Returns
    -------
    ndarray, shape (C, T)
    """
    from scipy.signal import lfilter

    rho = check_number("autocorrelation", autocorrelation, at_least=0, below=1)
    innovations = rng.standard_normal(shape)
    innovations[:, 1:] *= np.sqrt(1 - rho**2)
    return lfilter([1.0], [1.0, -rho], innovations, axis=1)
