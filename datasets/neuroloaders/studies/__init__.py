"""Loaders of the data sets of particular studies, each in its official split.

Spikes come as `SpikeSet`, spectrograms as `FeatureSet`; both lie over memory maps from the second start on. Studies of
the brain are opened by `neuroloaders.open_study`, which recognises them by their files.
"""

from neuroloaders.studies.bids_recordings import BIDSStudy
from neuroloaders.studies.brennan import BrennanStudy
from neuroloaders.studies.broderick import BroderickStudy
from neuroloaders.studies.dvs_gesture import load_dvs_gesture
from neuroloaders.studies.fsdd import FSDD_PROTOCOLS, load_fsdd
from neuroloaders.studies.haxby import HAXBY_AVERAGING, HaxbySlice, HaxbyStudy
from neuroloaders.studies.heidelberg import load_heidelberg
from neuroloaders.studies.meg_masc import MEGMASCStudy
from neuroloaders.studies.mel import MelConfig, mel_features
from neuroloaders.studies.mous import MOUSStudy
from neuroloaders.studies.nmnist import load_nmnist
from neuroloaders.studies.nsd import NSDStudy
from neuroloaders.studies.nsd_paper_regions import REGION_COMPAT, paper_regions
from neuroloaders.studies.protocols import PROTOCOLS, split_by_protocol
from neuroloaders.studies.speech_commands import load_speech_commands
from neuroloaders.studies.things_fmri import ThingsFMRIStudy

__all__ = [
    "FSDD_PROTOCOLS",
    "HAXBY_AVERAGING",
    "PROTOCOLS",
    "REGION_COMPAT",
    "BIDSStudy",
    "BrennanStudy",
    "BroderickStudy",
    "HaxbySlice",
    "HaxbyStudy",
    "MEGMASCStudy",
    "MOUSStudy",
    "MelConfig",
    "NSDStudy",
    "ThingsFMRIStudy",
    "load_dvs_gesture",
    "load_fsdd",
    "load_heidelberg",
    "load_nmnist",
    "load_speech_commands",
    "mel_features",
    "paper_regions",
    "split_by_protocol",
]
