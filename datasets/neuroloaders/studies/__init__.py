"""Loaders of the data sets of particular studies, each in its official split.

Spikes come as `SpikeSet`, spectrograms as `FeatureSet`; both lie over memory maps from the second start on. Studies of
the brain are opened by `neuroloaders.open_study`, which recognises them by their files.

A module is imported when one of its names is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroloaders.studies.bids_recordings import BIDSStudy
    from neuroloaders.studies.brennan import BrennanStudy
    from neuroloaders.studies.broderick import BroderickStudy
    from neuroloaders.studies.dvs_gesture import load_dvs_gesture
    from neuroloaders.studies.eeg_muse import EEG_MUSE_TASKS, load_eeg_muse
    from neuroloaders.studies.fsdd import FSDD_PROTOCOLS, load_fsdd
    from neuroloaders.studies.haxby import HAXBY_AVERAGING, HaxbySlice, HaxbyStudy
    from neuroloaders.studies.heidelberg import load_heidelberg
    from neuroloaders.studies.meg_masc import MEGMASCStudy
    from neuroloaders.studies.mel import MelConfig, mel_features
    from neuroloaders.studies.mous import MOUSStudy
    from neuroloaders.studies.nmnist import load_nmnist
    from neuroloaders.studies.npy_dicts import read_npy_dict
    from neuroloaders.studies.nsd import NSDStudy
    from neuroloaders.studies.nsd_paper_regions import REGION_COMPAT, paper_regions
    from neuroloaders.studies.protocols import PROTOCOLS, split_by_protocol
    from neuroloaders.studies.speech_commands import load_speech_commands
    from neuroloaders.studies.things_eeg2 import ThingsEEG2Study
    from neuroloaders.studies.things_eeg2_epochs import things_eeg2_epochs
    from neuroloaders.studies.things_fmri import ThingsFMRIStudy
    from neuroloaders.studies.things_images import things_image, things_image_paths, things_split, unseen_images
    from neuroloaders.studies.things_meg import ONSETS, ThingsMEGStudy
    from neuroloaders.studies.things_meg_epochs import things_meg_epochs

__all__ = [
    "EEG_MUSE_TASKS",
    "FSDD_PROTOCOLS",
    "HAXBY_AVERAGING",
    "ONSETS",
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
    "ThingsEEG2Study",
    "ThingsFMRIStudy",
    "ThingsMEGStudy",
    "load_dvs_gesture",
    "load_eeg_muse",
    "load_fsdd",
    "load_heidelberg",
    "load_nmnist",
    "load_speech_commands",
    "mel_features",
    "paper_regions",
    "read_npy_dict",
    "split_by_protocol",
    "things_eeg2_epochs",
    "things_image",
    "things_image_paths",
    "things_meg_epochs",
    "things_split",
    "unseen_images",
]

# Name -> module that it is imported from.
_HOMES = {
    "BIDSStudy": "bids_recordings",
    "BrennanStudy": "brennan",
    "BroderickStudy": "broderick",
    "EEG_MUSE_TASKS": "eeg_muse",
    "FSDD_PROTOCOLS": "fsdd",
    "HAXBY_AVERAGING": "haxby",
    "HaxbySlice": "haxby",
    "HaxbyStudy": "haxby",
    "MEGMASCStudy": "meg_masc",
    "MOUSStudy": "mous",
    "MelConfig": "mel",
    "NSDStudy": "nsd",
    "PROTOCOLS": "protocols",
    "REGION_COMPAT": "nsd_paper_regions",
    "ThingsFMRIStudy": "things_fmri",
    "load_dvs_gesture": "dvs_gesture",
    "load_eeg_muse": "eeg_muse",
    "load_fsdd": "fsdd",
    "load_heidelberg": "heidelberg",
    "load_nmnist": "nmnist",
    "load_speech_commands": "speech_commands",
    "mel_features": "mel",
    "paper_regions": "nsd_paper_regions",
    "split_by_protocol": "protocols",
    "ONSETS": "things_meg",
    "ThingsMEGStudy": "things_meg",
    "things_meg_epochs": "things_meg_epochs",
    "ThingsEEG2Study": "things_eeg2",
    "things_eeg2_epochs": "things_eeg2_epochs",
    "read_npy_dict": "npy_dicts",
    "things_image": "things_images",
    "things_image_paths": "things_images",
    "things_split": "things_images",
    "unseen_images": "things_images",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"neuroloaders.studies.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
