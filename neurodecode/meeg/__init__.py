"""Decoding of M/EEG: the network of Defossez et al. and Benchetrit et al., a spiking variant, and the CLIP loss."""

from neurodecode.meeg.aggregation import AGGREGATIONS, AffineOverTime, AttentionOverTime, MeanOverTime
from neurodecode.meeg.brain_module import BrainModule
from neurodecode.meeg.clip_loss import FORMS, ClipLoss, candidate_norms, clip_scores
from neurodecode.meeg.config import ABLATIONS, BRAIN_MODULES, BrainModuleConfig
from neurodecode.meeg.convolutions import ConvolutionStack, dilations
from neurodecode.meeg.heads import PointwiseHead, ProjectionHead
from neurodecode.meeg.positions import (
    UNPLACED,
    fourier_embedding,
    pad_channels,
    position_table,
    sensor_positions,
    valid_positions,
)
from neurodecode.meeg.spatial import SpatialAttention, attention_weights, without_disc
from neurodecode.meeg.spatial_path import SpatialPath
from neurodecode.meeg.spiking import SpikingBrainConfig, SpikingBrainModule
from neurodecode.meeg.subjects import NEW_SUBJECT, SUBJECT_LAYERS, UNSEEN, SubjectEmbedding, SubjectLayer

__all__ = [
    "ABLATIONS",
    "AGGREGATIONS",
    "BRAIN_MODULES",
    "FORMS",
    "NEW_SUBJECT",
    "SUBJECT_LAYERS",
    "UNPLACED",
    "UNSEEN",
    "AffineOverTime",
    "AttentionOverTime",
    "BrainModule",
    "BrainModuleConfig",
    "ClipLoss",
    "ConvolutionStack",
    "MeanOverTime",
    "PointwiseHead",
    "ProjectionHead",
    "SpatialAttention",
    "SpatialPath",
    "SpikingBrainConfig",
    "SpikingBrainModule",
    "SubjectEmbedding",
    "SubjectLayer",
    "attention_weights",
    "candidate_norms",
    "clip_scores",
    "dilations",
    "fourier_embedding",
    "pad_channels",
    "position_table",
    "sensor_positions",
    "valid_positions",
    "without_disc",
]
