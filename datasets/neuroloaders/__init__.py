"""Data for spiking networks and brain decoding: found, checked, split, and in batches on the device.

The public names of the package; each module's docstring says more. Importing this loads NumPy and PyTorch
only: what reads a format is imported when it is used.
"""

from neuroloaders.augment import Compose, HorizontalFlip, RandomCrop, ToFloat, Transform
from neuroloaders.bundled import EXAMPLE_DATA, example_data
from neuroloaders.cache import cache_folder, cached_arrays, source_identity
from neuroloaders.cochlea import COCHLEA_BACKENDS, CochleaConfig, cochlea_spikes, cochlea_spikes_batch
from neuroloaders.event_augment import ComposeEvents, DropEvents, EventTransform, TimeStretch, UnitShift
from neuroloaders.events import BEYOND, BINNINGS, bin_events, count_bins
from neuroloaders.features import FeatureSet, time_first
from neuroloaders.fetch import fetch
from neuroloaders.image_folder import ImageFolderConfig, read_image_folder
from neuroloaders.images import IMAGE_SETS, ImageSet, load_images
from neuroloaders.registry import citation, dataset_info, datasets_available, read_registry
from neuroloaders.resident import ResidentLoader
from neuroloaders.spike_loader import SpikeLoader
from neuroloaders.spikes import SpikeSet
from neuroloaders.splits import SPLITS, GroupSplit, hash_split, stratified_holdout
from neuroloaders.studies import (
    FSDD_PROTOCOLS,
    PROTOCOLS,
    MelConfig,
    load_dvs_gesture,
    load_fsdd,
    load_heidelberg,
    load_nmnist,
    load_speech_commands,
    mel_features,
    split_by_protocol,
)
from neuroloaders.wav_folder import STEREO, read_wav, spikes_from_wavs

__all__ = [
    "BEYOND",
    "BINNINGS",
    "COCHLEA_BACKENDS",
    "EXAMPLE_DATA",
    "FSDD_PROTOCOLS",
    "IMAGE_SETS",
    "PROTOCOLS",
    "SPLITS",
    "STEREO",
    "CochleaConfig",
    "Compose",
    "ComposeEvents",
    "DropEvents",
    "EventTransform",
    "FeatureSet",
    "GroupSplit",
    "HorizontalFlip",
    "ImageFolderConfig",
    "ImageSet",
    "MelConfig",
    "RandomCrop",
    "ResidentLoader",
    "SpikeLoader",
    "SpikeSet",
    "TimeStretch",
    "ToFloat",
    "Transform",
    "UnitShift",
    "bin_events",
    "cache_folder",
    "cached_arrays",
    "citation",
    "cochlea_spikes",
    "cochlea_spikes_batch",
    "count_bins",
    "dataset_info",
    "datasets_available",
    "example_data",
    "fetch",
    "hash_split",
    "load_dvs_gesture",
    "load_fsdd",
    "load_heidelberg",
    "load_images",
    "load_nmnist",
    "load_speech_commands",
    "mel_features",
    "read_image_folder",
    "read_registry",
    "read_wav",
    "source_identity",
    "spikes_from_wavs",
    "split_by_protocol",
    "stratified_holdout",
    "time_first",
]
