"""Denoising by DDIM (Song et al. 2021), from noise or from a noised image.

References
----------
Song, Meng & Ermon, Denoising diffusion implicit models, ICLR 2021, arXiv:2010.02502.
"""

# B batch, k steps

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurodecode.generate.settings import GenerationSettings
from neuroloaders.checks import check_option, invalid

__all__ = ["NOISES", "PREDICTIONS", "Schedule", "add_noise", "ddim", "ddim_schedule", "noise_of_rows"]


def _of_noise(x: Tensor, out: Tensor, a: float) -> tuple[Tensor, Tensor]:
    return (x - (1 - a) ** 0.5 * out) / a**0.5, out


def _of_velocity(x: Tensor, out: Tensor, a: float) -> tuple[Tensor, Tensor]:
    return a**0.5 * x - (1 - a) ** 0.5 * out, a**0.5 * out + (1 - a) ** 0.5 * x


def _of_image(x: Tensor, out: Tensor, a: float) -> tuple[Tensor, Tensor]:
    return out, (x - a**0.5 * out) / (1 - a) ** 0.5


# What a network predicts, in the words of diffusers -> image without noise, and noise, of x = sqrt(a) x0 + sqrt(1-a) e.
PREDICTIONS: dict[str, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "epsilon": _of_noise,
    "v_prediction": _of_velocity,
    "sample": _of_image,
}


# What is drawn for an image -> its stream. Numbers of two streams have nothing to do with each other, nor with what
# others draw from (seed, row).
NOISES = {"diffusion": 1, "posterior": 2, "embedding": 3}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps that are run, the noisiest first.

    Parameters
    ----------
    timesteps : tuple of int, length k
        What the network is told.
    signal : tuple of float, length k
        Share of the signal's variance before each step (cumulated alpha).
    after : tuple of float, length k
        The same after it.
    start : float
        The same of what the first step is given.
    prediction : str
        A key of `PREDICTIONS`.
    """

    timesteps: tuple[int, ...]
    signal: tuple[float, ...]
    after: tuple[float, ...]
    start: float
    prediction: str


def ddim_schedule(scheduler: Any, settings: GenerationSettings, *, from_image: bool) -> Schedule:
    """Return the steps of a run.

    Parameters
    ----------
    scheduler : DDIMScheduler
        Of diffusers: ``alphas_cumprod`` and its configuration are read.
    settings : GenerationSettings
        Number of steps, strength, compat.
    from_image : bool
        Whether it begins with an image or with noise.

    Notes
    -----
    Of N training steps those numbered 1, 1 + N // steps, ... are taken (Stable Diffusion's, "leading" with offset 1 in
    diffusers), 1, 21, ..., 981 of 1000. The last step leads to the noise of training step 0.
    """
    alphas = np.asarray(scheduler.alphas_cumprod, dtype=np.float64)
    n = len(alphas)
    if settings.steps >= n:
        raise invalid("steps", f"be below {n}, the steps of the training", f"{settings.steps}")
    prediction = check_option("prediction_type", scheduler.config.prediction_type, PREDICTIONS)
    every = 1 + np.arange(settings.steps) * (n // settings.steps)
    run = every[: settings.n_steps] if from_image else every
    start = run[-1]
    if from_image and "noise-offset" in settings.compat:
        start = every[settings.n_steps]
    after = alphas[np.concatenate([[0], run[:-1]])]
    return Schedule(
        timesteps=tuple(int(t) for t in run[::-1]),
        signal=tuple(float(a) for a in alphas[run[::-1]]),
        after=tuple(float(a) for a in after[::-1]),
        start=float(alphas[start]),
        prediction=prediction,
    )


def noise_of_rows(seed: int, rows: Sequence[int], shape: tuple[int, ...], what: str = "diffusion") -> Tensor:
    """Return normal noise of which each row has a seed of its own, float32, shape (B, *shape), on the CPU.

    Parameters
    ----------
    seed : int
        The user's, below 2 ** 32.
    rows : sequence of B int
        Number of each image among all.
    shape : tuple of int
        Of a row.
    what : str
        A key of `NOISES`.
    """
    stream = NOISES[check_option("what", what, NOISES)]
    drawn = []
    for row in rows:
        # Not as a third number: SeedSequence([5, 1]) is SeedSequence([5, 1, 0]).
        source = np.random.SeedSequence([seed, row], spawn_key=(stream,))
        state = int(source.generate_state(1, np.uint64)[0]) >> 1
        drawn.append(torch.randn(shape, generator=torch.Generator().manual_seed(state)))
    return torch.stack(drawn)


def add_noise(x: Tensor, noise: Tensor, signal: float) -> Tensor:
    """Return an image with noise, of which the signal has the share `signal` of the variance."""
    return signal**0.5 * x + (1 - signal) ** 0.5 * noise


def ddim(
    predict: Callable[[Tensor, int], Tensor], x: Tensor, schedule: Schedule, *, tick: Callable = lambda: None
) -> Tensor:
    """Denoise, without new noise on the way (eta = 0).

    Parameters
    ----------
    predict : callable
        Takes x and the timestep, returns what the network predicts, of the shape of x.
    x : Tensor of float32, shape (B, ...)
        With the noise of ``schedule.start``.
    schedule : Schedule
        The steps.
    tick : callable
        Called after each step.

    Returns
    -------
    Tensor of float32, shape (B, ...)
    """
    split = PREDICTIONS[schedule.prediction]
    for t, before, after in zip(schedule.timesteps, schedule.signal, schedule.after, strict=True):
        clean, noise = split(x, predict(x, t).to(x.dtype), before)
        x = add_noise(clean, noise, after)
        tick()
    return x
