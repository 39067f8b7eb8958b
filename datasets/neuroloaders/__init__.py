"""Data for spiking networks and brain decoding: found, checked, split, and in batches on the device.

The public names of the package; each module's docstring says more. A module is imported when one of its names is first
asked for, and what reads a format when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

# A function and its module have the same name: the module would take its place if it were imported first.
from neuroloaders.fetch import fetch

if TYPE_CHECKING:
    from neuroloaders.augment import Compose, HorizontalFlip, RandomCrop, ToFloat, Transform
    from neuroloaders.betas import ZSCORES, BetaSet
    from neuroloaders.block_splits import BlockSplit, hold_out, published_parts, split_blocks
    from neuroloaders.bold import BlockAveraging, BoldSet, block_averages, clean_runs
    from neuroloaders.bundled import EXAMPLE_DATA, example_data
    from neuroloaders.cache import cache_folder, cached_arrays, source_identity
    from neuroloaders.cochlea import COCHLEA_BACKENDS, CochleaConfig, cochlea_spikes, cochlea_spikes_batch
    from neuroloaders.convert import convert_study, open_sounds
    from neuroloaders.epoch_bounds import check_inside_epochs
    from neuroloaders.event_augment import ComposeEvents, DropEvents, EventTransform, TimeStretch, UnitShift
    from neuroloaders.events import BEYOND, BINNINGS, bin_events, count_bins
    from neuroloaders.events_table import EventTable, concatenate_events
    from neuroloaders.features import FeatureSet, time_first
    from neuroloaders.fmri_splits import StimulusSplit, category_split, cluster_split
    from neuroloaders.image_folder import ImageFolderConfig, read_image_folder
    from neuroloaders.image_splits import IMAGE_PARTS, VALID_BY, ImageSplit, split_images
    from neuroloaders.images import IMAGE_SETS, ImageSet, load_images
    from neuroloaders.recording_files import open_events, open_recordings, save_events, save_recording
    from neuroloaders.recordings import ContinuousRecording, RecordingSet, channel_faults
    from neuroloaders.registry import citation, dataset_info, datasets_available, read_registry
    from neuroloaders.released_epochs import epoch_recordings
    from neuroloaders.resident import ResidentLoader
    from neuroloaders.robust_scaler import RobustScaler, robust_scale
    from neuroloaders.spike_loader import SpikeLoader
    from neuroloaders.spikes import SpikeSet
    from neuroloaders.splits import SPLITS, GroupSplit, hash_split, stratified_holdout
    from neuroloaders.studies import (
        EEG_MUSE_TASKS,
        FSDD_PROTOCOLS,
        PROTOCOLS,
        MelConfig,
        load_dvs_gesture,
        load_eeg_muse,
        load_fsdd,
        load_heidelberg,
        load_nmnist,
        load_speech_commands,
        mel_features,
        split_by_protocol,
    )
    from neuroloaders.study import STUDIES, Study, StudyLayout, open_study
    from neuroloaders.wav_folder import STEREO, read_wav, spikes_from_wavs
    from neuroloaders.window_loader import WindowLoader, Windows
    from neuroloaders.window_targets import StimulusFeatures, StimulusSequences

__all__ = [
    "BEYOND",
    "BINNINGS",
    "COCHLEA_BACKENDS",
    "EEG_MUSE_TASKS",
    "EXAMPLE_DATA",
    "FSDD_PROTOCOLS",
    "IMAGE_PARTS",
    "IMAGE_SETS",
    "PROTOCOLS",
    "SPLITS",
    "STEREO",
    "STUDIES",
    "VALID_BY",
    "ZSCORES",
    "BetaSet",
    "BlockAveraging",
    "BlockSplit",
    "BoldSet",
    "CochleaConfig",
    "Compose",
    "ComposeEvents",
    "ContinuousRecording",
    "DropEvents",
    "EventTable",
    "EventTransform",
    "FeatureSet",
    "GroupSplit",
    "HorizontalFlip",
    "ImageFolderConfig",
    "ImageSet",
    "ImageSplit",
    "MelConfig",
    "RandomCrop",
    "RecordingSet",
    "ResidentLoader",
    "RobustScaler",
    "SpikeLoader",
    "SpikeSet",
    "StimulusFeatures",
    "StimulusSequences",
    "StimulusSplit",
    "Study",
    "StudyLayout",
    "TimeStretch",
    "ToFloat",
    "Transform",
    "UnitShift",
    "WindowLoader",
    "Windows",
    "bin_events",
    "block_averages",
    "cache_folder",
    "cached_arrays",
    "category_split",
    "channel_faults",
    "check_inside_epochs",
    "citation",
    "clean_runs",
    "cluster_split",
    "cochlea_spikes",
    "cochlea_spikes_batch",
    "concatenate_events",
    "convert_study",
    "count_bins",
    "dataset_info",
    "datasets_available",
    "epoch_recordings",
    "example_data",
    "fetch",
    "hash_split",
    "hold_out",
    "load_dvs_gesture",
    "load_eeg_muse",
    "load_fsdd",
    "load_heidelberg",
    "load_images",
    "load_nmnist",
    "load_speech_commands",
    "mel_features",
    "open_events",
    "open_recordings",
    "open_sounds",
    "open_study",
    "published_parts",
    "read_image_folder",
    "read_registry",
    "read_wav",
    "robust_scale",
    "save_events",
    "save_recording",
    "source_identity",
    "spikes_from_wavs",
    "split_blocks",
    "split_by_protocol",
    "split_images",
    "stratified_holdout",
    "time_first",
]

# Name -> module that it is imported from.
_HOMES = {
    "BEYOND": "events",
    "BINNINGS": "events",
    "BetaSet": "betas",
    "BlockAveraging": "bold",
    "BlockSplit": "block_splits",
    "BoldSet": "bold",
    "COCHLEA_BACKENDS": "cochlea",
    "CochleaConfig": "cochlea",
    "Compose": "augment",
    "ComposeEvents": "event_augment",
    "ContinuousRecording": "recordings",
    "DropEvents": "event_augment",
    "EXAMPLE_DATA": "bundled",
    "EventTable": "events_table",
    "EventTransform": "event_augment",
    "EEG_MUSE_TASKS": "studies",
    "FSDD_PROTOCOLS": "studies",
    "FeatureSet": "features",
    "GroupSplit": "splits",
    "HorizontalFlip": "augment",
    "IMAGE_SETS": "images",
    "ImageFolderConfig": "image_folder",
    "ImageSet": "images",
    "MelConfig": "studies",
    "PROTOCOLS": "studies",
    "RandomCrop": "augment",
    "RecordingSet": "recordings",
    "ResidentLoader": "resident",
    "RobustScaler": "robust_scaler",
    "SPLITS": "splits",
    "STEREO": "wav_folder",
    "STUDIES": "study",
    "SpikeLoader": "spike_loader",
    "SpikeSet": "spikes",
    "StimulusFeatures": "window_targets",
    "StimulusSequences": "window_targets",
    "StimulusSplit": "fmri_splits",
    "Study": "study",
    "StudyLayout": "study",
    "TimeStretch": "event_augment",
    "ToFloat": "augment",
    "Transform": "augment",
    "UnitShift": "event_augment",
    "WindowLoader": "window_loader",
    "Windows": "window_loader",
    "ZSCORES": "betas",
    "bin_events": "events",
    "block_averages": "bold",
    "cache_folder": "cache",
    "cached_arrays": "cache",
    "category_split": "fmri_splits",
    "channel_faults": "recordings",
    "citation": "registry",
    "clean_runs": "bold",
    "cluster_split": "fmri_splits",
    "cochlea_spikes": "cochlea",
    "cochlea_spikes_batch": "cochlea",
    "concatenate_events": "events_table",
    "convert_study": "convert",
    "count_bins": "events",
    "dataset_info": "registry",
    "datasets_available": "registry",
    "example_data": "bundled",
    "hash_split": "splits",
    "hold_out": "block_splits",
    "load_dvs_gesture": "studies",
    "load_eeg_muse": "studies",
    "load_fsdd": "studies",
    "load_heidelberg": "studies",
    "load_images": "images",
    "load_nmnist": "studies",
    "load_speech_commands": "studies",
    "mel_features": "studies",
    "open_events": "recording_files",
    "open_recordings": "recording_files",
    "open_sounds": "convert",
    "open_study": "study",
    "published_parts": "block_splits",
    "read_image_folder": "image_folder",
    "read_registry": "registry",
    "read_wav": "wav_folder",
    "robust_scale": "robust_scaler",
    "save_events": "recording_files",
    "save_recording": "recording_files",
    "source_identity": "cache",
    "spikes_from_wavs": "wav_folder",
    "split_blocks": "block_splits",
    "split_by_protocol": "studies",
    "stratified_holdout": "splits",
    "time_first": "features",
    "IMAGE_PARTS": "image_splits",
    "VALID_BY": "image_splits",
    "ImageSplit": "image_splits",
    "split_images": "image_splits",
    "check_inside_epochs": "epoch_bounds",
    "epoch_recordings": "released_epochs",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: all of them take half a second."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"neuroloaders.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
