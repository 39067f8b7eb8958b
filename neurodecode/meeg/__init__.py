"""Decoding of M/EEG: networks of Defossez et al. and Benchetrit et al., a spiking variant; speech, images, classes."""

from neurodecode.meeg.aggregation import AGGREGATIONS, AffineOverTime, AttentionOverTime, MeanOverTime
from neurodecode.meeg.artefacts import with_artefacts
from neurodecode.meeg.brain_module import BrainModule
from neurodecode.meeg.classify import LINEAR_KINDS, BrainClassifier, ClassifierConfig, LinearClassifier
from neurodecode.meeg.clip_loss import FORMS, ClipLoss, candidate_norms, clip_scores
from neurodecode.meeg.config import ABLATIONS, BRAIN_MODULES, BrainModuleConfig
from neurodecode.meeg.convolutions import ConvolutionStack, dilations
from neurodecode.meeg.heads import PointwiseHead, ProjectionHead
from neurodecode.meeg.image_config import IMAGE_MONITORS, IMAGE_SCALES, WEIGHT_COMPAT, ImageConfig
from neurodecode.meeg.image_objective import HEADS
from neurodecode.meeg.image_scores import AVERAGES, ImageEvaluation, average_estimates, evaluate_images, score_images
from neurodecode.meeg.images import ImageDecoder
from neurodecode.meeg.lag_scan import LagScan, lag_scan
from neurodecode.meeg.linear_images import LinearImageDecoder
from neurodecode.meeg.linear_speech import LinearSpeechDecoder
from neurodecode.meeg.new_subject import Calibration, CalibrationCurve, calibrate_subject, calibration_curve
from neurodecode.meeg.positions import (
    UNPLACED,
    fourier_embedding,
    pad_channels,
    position_table,
    sensor_positions,
    valid_positions,
)
from neurodecode.meeg.preprocessing import PHASES, bandpass, quiet_windows
from neurodecode.meeg.run_folds import LEARN_FROM, RunFold, RunScores, cross_validate_runs, run_folds
from neurodecode.meeg.segments import FEATURE_SCALES, Segments
from neurodecode.meeg.simulate_images import SimulatedImages, drawn_images, simulate_images
from neurodecode.meeg.simulate_speech import SimulatedSpeech, simulate_speech
from neurodecode.meeg.spatial import SpatialAttention, attention_weights, without_disc
from neurodecode.meeg.spatial_path import SpatialPath
from neurodecode.meeg.speech import SpeechDecoder
from neurodecode.meeg.speech_config import MONITORS, TRAIN_ON, SpeechConfig
from neurodecode.meeg.speech_controls import CONTROLS
from neurodecode.meeg.speech_evaluation import SpeechEvaluation, evaluate_speech
from neurodecode.meeg.speech_scores import WORD_MERGES, TrialScores, score_estimates, word_frequency
from neurodecode.meeg.speech_windows import grid_windows, shifted, word_windows
from neurodecode.meeg.spiking import SpikingBrainConfig, SpikingBrainModule
from neurodecode.meeg.spoken_digits import tell_digits
from neurodecode.meeg.stacked_module import StackedBrainModule
from neurodecode.meeg.subjects import NEW_SUBJECT, SUBJECT_LAYERS, UNSEEN, SubjectEmbedding, SubjectLayer
from neurodecode.meeg.time_config import SCALE_BY, TIME_MONITORS, TimeConfig
from neurodecode.meeg.time_curve import TIME_TESTS, Cluster, TimeCurve, permutation_clusters, sign_clusters, time_curve
from neurodecode.meeg.time_linear import LinearTimeDecoder
from neurodecode.meeg.time_resolved import TimeResolvedDecoder
from neurodecode.meeg.time_scores import TimeScores, class_scores, retrieval_scores
from neurodecode.meeg.time_windows import TimeWindows, growing_windows, sliding_windows

__all__ = [
    "ABLATIONS",
    "AGGREGATIONS",
    "AVERAGES",
    "BRAIN_MODULES",
    "CONTROLS",
    "FEATURE_SCALES",
    "FORMS",
    "HEADS",
    "IMAGE_MONITORS",
    "IMAGE_SCALES",
    "LEARN_FROM",
    "LINEAR_KINDS",
    "MONITORS",
    "NEW_SUBJECT",
    "PHASES",
    "SCALE_BY",
    "SUBJECT_LAYERS",
    "TIME_MONITORS",
    "TIME_TESTS",
    "TRAIN_ON",
    "UNPLACED",
    "UNSEEN",
    "WEIGHT_COMPAT",
    "WORD_MERGES",
    "AffineOverTime",
    "AttentionOverTime",
    "BrainClassifier",
    "BrainModule",
    "BrainModuleConfig",
    "Calibration",
    "CalibrationCurve",
    "ClassifierConfig",
    "ClipLoss",
    "Cluster",
    "ConvolutionStack",
    "ImageConfig",
    "ImageDecoder",
    "ImageEvaluation",
    "LagScan",
    "LinearClassifier",
    "LinearImageDecoder",
    "LinearSpeechDecoder",
    "LinearTimeDecoder",
    "MeanOverTime",
    "PointwiseHead",
    "ProjectionHead",
    "RunFold",
    "RunScores",
    "Segments",
    "SimulatedImages",
    "SimulatedSpeech",
    "SpatialAttention",
    "SpatialPath",
    "SpeechConfig",
    "SpeechDecoder",
    "SpeechEvaluation",
    "SpikingBrainConfig",
    "SpikingBrainModule",
    "StackedBrainModule",
    "SubjectEmbedding",
    "SubjectLayer",
    "TimeConfig",
    "TimeCurve",
    "TimeResolvedDecoder",
    "TimeScores",
    "TimeWindows",
    "TrialScores",
    "attention_weights",
    "average_estimates",
    "bandpass",
    "calibrate_subject",
    "calibration_curve",
    "candidate_norms",
    "class_scores",
    "clip_scores",
    "cross_validate_runs",
    "dilations",
    "drawn_images",
    "evaluate_images",
    "evaluate_speech",
    "fourier_embedding",
    "grid_windows",
    "growing_windows",
    "lag_scan",
    "pad_channels",
    "permutation_clusters",
    "position_table",
    "quiet_windows",
    "retrieval_scores",
    "run_folds",
    "score_estimates",
    "score_images",
    "sensor_positions",
    "shifted",
    "sign_clusters",
    "simulate_images",
    "simulate_speech",
    "sliding_windows",
    "tell_digits",
    "time_curve",
    "valid_positions",
    "with_artefacts",
    "without_disc",
    "word_frequency",
    "word_windows",
]
