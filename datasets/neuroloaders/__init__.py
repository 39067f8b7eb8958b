"""Data for spiking networks and brain decoding: found, checked, split, and in batches on the device.

The public names of the package; each module's docstring says more. Importing this loads NumPy and PyTorch
only: what reads a format is imported when it is used.
"""

from neuroloaders.augment import Compose, HorizontalFlip, RandomCrop, ToFloat, Transform
from neuroloaders.betas import ZSCORES, BetaSet
from neuroloaders.block_splits import BlockSplit, hold_out, published_parts, split_blocks
from neuroloaders.bold import BlockAveraging, BoldSet, block_averages, clean_runs
from neuroloaders.bundled import EXAMPLE_DATA, example_data
from neuroloaders.cache import cache_folder, cached_arrays, source_identity
from neuroloaders.cochlea import COCHLEA_BACKENDS, CochleaConfig, cochlea_spikes, cochlea_spikes_batch
from neuroloaders.convert import convert_study, open_sounds
from neuroloaders.event_augment import ComposeEvents, DropEvents, EventTransform, TimeStretch, UnitShift
from neuroloaders.events import BEYOND, BINNINGS, bin_events, count_bins
from neuroloaders.events_table import EventTable, concatenate_events
from neuroloaders.features import FeatureSet, time_first
from neuroloaders.fetch import fetch
from neuroloaders.fmri_splits import StimulusSplit, category_split, cluster_split
from neuroloaders.image_folder import ImageFolderConfig, read_image_folder
from neuroloaders.images import IMAGE_SETS, ImageSet, load_images
from neuroloaders.recording_files import open_events, open_recordings, save_events, save_recording
from neuroloaders.recordings import ContinuousRecording, RecordingSet, channel_faults
from neuroloaders.registry import citation, dataset_info, datasets_available, read_registry
from neuroloaders.resident import ResidentLoader
from neuroloaders.robust_scaler import RobustScaler, robust_scale
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
from neuroloaders.study import STUDIES, Study, StudyLayout, open_study
from neuroloaders.wav_folder import STEREO, read_wav, spikes_from_wavs
from neuroloaders.window_loader import WindowLoader, Windows
from neuroloaders.window_targets import StimulusFeatures, StimulusSequences

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
    "STUDIES",
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
    "example_data",
    "fetch",
    "hash_split",
    "hold_out",
    "load_dvs_gesture",
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
    "stratified_holdout",
    "time_first",
]
