"""A small study of looking at images, in which all is known; made once."""

import dataclasses
from functools import cache

import numpy as np

from neurodecode.meeg.config import BRAIN_MODULES
from neurodecode.meeg.image_config import ImageConfig
from neurodecode.meeg.simulate_images import drawn_images, simulate_images
from neuroloaders.image_splits import split_images

NETWORK = dataclasses.replace(
    BRAIN_MODULES["small-images"], n_heads=12, fourier_features=128, initial_linear=12, hidden=16, depth=2,
    final_width=32, latent=16,
)  # fmt: skip
CONFIG = ImageConfig(
    network=NETWORK, tmin=-0.1, tmax=0.6, lr=5e-3, weight_decay=0.05, epochs=6, batch_size=64, patience=6
)


@cache
def study(snr=0.3, seed=0, n_subjects=3):
    """The study, and its split: 300 training images, 40 of 40 other categories to be tested, shown three times."""
    rng = np.random.default_rng(seed)
    names, categories, features = drawn_images(115, 3, 8, rng=rng)
    test = [name for name in names if name.endswith("/00")][-40:]
    repeats = np.where(np.isin(names, test), 3, 1)
    made = simulate_images(
        names, features, rng=rng, categories=categories, n_repeats=repeats, n_subjects=n_subjects, n_runs=2,
        sfreq=40.0, n_sensors=12, n_sources=6, snr=snr, spacing_s=(0.7, 0.9),
    )  # fmt: skip
    return made, split_images(made.events, test, seed=seed)
