"""Data for spiking networks and brain decoding: found, checked, split, and in batches on the device.

The public names of the package; each module's docstring says more. Importing this loads NumPy and PyTorch
only: what reads a format is imported when it is used.
"""

from neuroloaders.augment import Compose, HorizontalFlip, RandomCrop, ToFloat, Transform
from neuroloaders.bundled import EXAMPLE_DATA, example_data
from neuroloaders.cache import cache_folder, cached_arrays, source_identity
from neuroloaders.fetch import fetch
from neuroloaders.image_folder import ImageFolderConfig, read_image_folder
from neuroloaders.images import IMAGE_SETS, ImageSet, load_images
from neuroloaders.registry import citation, dataset_info, datasets_available, read_registry
from neuroloaders.resident import ResidentLoader
from neuroloaders.splits import SPLITS, GroupSplit, hash_split, stratified_holdout

__all__ = [
    "EXAMPLE_DATA",
    "IMAGE_SETS",
    "SPLITS",
    "Compose",
    "GroupSplit",
    "HorizontalFlip",
    "ImageFolderConfig",
    "ImageSet",
    "RandomCrop",
    "ResidentLoader",
    "ToFloat",
    "Transform",
    "cache_folder",
    "cached_arrays",
    "citation",
    "dataset_info",
    "datasets_available",
    "example_data",
    "fetch",
    "hash_split",
    "load_images",
    "read_image_folder",
    "read_registry",
    "source_identity",
    "stratified_holdout",
]
