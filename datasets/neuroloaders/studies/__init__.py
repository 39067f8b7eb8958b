"""Loaders of the data sets of particular studies, each in its official split.

Spikes come as `SpikeSet`, spectrograms as `FeatureSet`; both lie over memory maps from the second start on.
"""

from neuroloaders.studies.dvs_gesture import load_dvs_gesture
from neuroloaders.studies.fsdd import FSDD_PROTOCOLS, load_fsdd
from neuroloaders.studies.heidelberg import load_heidelberg
from neuroloaders.studies.mel import MelConfig, mel_features
from neuroloaders.studies.nmnist import load_nmnist
from neuroloaders.studies.protocols import PROTOCOLS, split_by_protocol
from neuroloaders.studies.speech_commands import load_speech_commands

__all__ = [
    "FSDD_PROTOCOLS",
    "PROTOCOLS",
    "MelConfig",
    "load_dvs_gesture",
    "load_fsdd",
    "load_heidelberg",
    "load_nmnist",
    "load_speech_commands",
    "mel_features",
    "split_by_protocol",
]
