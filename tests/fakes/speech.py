"""A small simulated study of listening, its split, and settings of a network that learns it in seconds."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from neurodecode.meeg.config import BRAIN_MODULES
from neurodecode.meeg.speech_config import SpeechConfig
from neuroloaders.block_splits import split_blocks

ENDS = {"tmin": -0.5, "tmax": 2.5}
NETWORK = dataclasses.replace(
    BRAIN_MODULES["small"],
    hidden=24,
    depth=2,
    n_heads=16,
    initial_linear=16,
    final_width=24,
    fourier_features=128,
    dropout_radius=0.1,
)
CONFIG = SpeechConfig(network=NETWORK, epochs=8, batch_size=64, lr=3e-3, patience=None, feature_scale="each", **ENDS)


@functools.cache
def study(n_subjects=2, n_sentences=50, snr=0.01, seed=0, **settings):
    """Return (simulated study, its blocks)."""
    # Here, for processes that are given the study and need no forward model.
    from neurodecode.meeg.simulate_speech import simulate_speech

    settings = {"sfreq": 60.0, "n_sensors": 24, "n_mels": 8, "lag_s": 0.15, **settings}
    made = simulate_speech(
        rng=np.random.default_rng(seed), n_subjects=n_subjects, n_sentences=n_sentences, snr=snr, **settings
    )
    return made, split_blocks(made.events, min_block_s=6.0, valid=0.15, test=0.25, seed=3)


def data(made, split):
    """Return what every decoder is given, in order."""
    return made.recordings, made.events, made.features, split
