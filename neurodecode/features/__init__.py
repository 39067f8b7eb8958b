"""What was seen or read, as features: computed once for each different stimulus, kept on disk under a fingerprint.

Networks are loaded from folders, by the libraries that know their layout, which are imported only then.
"""

from neurodecode.features.audio import AUDIO_FEATURES, Audio, MelSpectrum, Wav2Vec, audio_features, audio_table
from neurodecode.features.autokl import LATENTS, AutoKL, AutoKLConfig
from neurodecode.features.base import Extractor, FeatureExtractor, ImageExtractor
from neurodecode.features.clip import (
    NORMALISATIONS,
    ClipText,
    ClipTextConfig,
    ClipVision,
    ClipVisionConfig,
    normalised_tokens,
)
from neurodecode.features.clip_hidden import ClipTextHidden, ClipTextHiddenConfig
from neurodecode.features.dino import DINOConfig, DINOv1, DINOv2
from neurodecode.features.extract import STORAGE, extract, extract_unique
from neurodecode.features.handcrafted import (
    FFT2D,
    HOG,
    LBP,
    HistogramConfig,
    HOGConfig,
    LBPConfig,
    LogPSD,
    RGBHistogram,
    SpectrumConfig,
)
from neurodecode.features.patterns import PATTERNS, hog, local_binary_patterns
from neurodecode.features.registry import FEATURES, load_extractor
from neurodecode.features.vdvae import VdvaeConfig, VdvaeLatents
from neurodecode.features.vgg import VGG19, VGG_LAYERS, VGG19Config

__all__ = [
    "AUDIO_FEATURES",
    "FEATURES",
    "FFT2D",
    "HOG",
    "LATENTS",
    "LBP",
    "NORMALISATIONS",
    "PATTERNS",
    "STORAGE",
    "VGG19",
    "VGG_LAYERS",
    "Audio",
    "AutoKL",
    "AutoKLConfig",
    "ClipText",
    "ClipTextConfig",
    "ClipTextHidden",
    "ClipTextHiddenConfig",
    "ClipVision",
    "ClipVisionConfig",
    "DINOConfig",
    "DINOv1",
    "DINOv2",
    "Extractor",
    "FeatureExtractor",
    "HOGConfig",
    "HistogramConfig",
    "ImageExtractor",
    "LBPConfig",
    "LogPSD",
    "MelSpectrum",
    "RGBHistogram",
    "SpectrumConfig",
    "VGG19Config",
    "VdvaeConfig",
    "VdvaeLatents",
    "Wav2Vec",
    "audio_features",
    "audio_table",
    "extract",
    "extract_unique",
    "hog",
    "load_extractor",
    "local_binary_patterns",
    "normalised_tokens",
]
