"""From fMRI to the seen image."""

from neurodecode.fmri.betas import betas_from_bold, betas_from_images
from neurodecode.fmri.bids import betas_from_bids
from neurodecode.fmri.block_design import BlockIdentification, identify_categories
from neurodecode.fmri.brain_diffuser import PAPER_ALPHA, BrainDiffuser, Reconstruction
from neurodecode.fmri.decoder_ceiling import decoder_ceiling_r2, wiener_decoder
from neurodecode.fmri.evaluation import REFERENCE_R2, DecoderEvaluation, StageScores, evaluate_decoder
from neurodecode.fmri.image_baseline import NearestImages, nearest_training_image
from neurodecode.fmri.image_metrics import METRICS, ImageMetrics, image_metrics
from neurodecode.fmri.image_networks import ImageNetworks, load_image_networks, tiny_image_networks
from neurodecode.fmri.image_study import ImagePart, ImageStudy, image_study
from neurodecode.fmri.photographs import Photographs, photographs
from neurodecode.fmri.published import PAPER_TABLE, PublishedScores
from neurodecode.fmri.roi import PAPER_NORMS, region_latents, region_preference, voxel_weights
from neurodecode.fmri.roi_scene import roi_scene
from neurodecode.fmri.simulate import ScanDesign, SimulatedSubject, simulate_subject
from neurodecode.fmri.trials import trial_betas
from neurodecode.fmri.vdvae import VDVAE, VDVAEConfig
from neurodecode.fmri.vdvae_training import VDVAETraining, train_vdvae
from neurodecode.fmri.voxels import VoxelScaler

__all__ = [
    "METRICS",
    "PAPER_ALPHA",
    "PAPER_NORMS",
    "PAPER_TABLE",
    "REFERENCE_R2",
    "VDVAE",
    "BlockIdentification",
    "BrainDiffuser",
    "DecoderEvaluation",
    "ImageMetrics",
    "ImageNetworks",
    "ImagePart",
    "ImageStudy",
    "NearestImages",
    "Photographs",
    "PublishedScores",
    "Reconstruction",
    "ScanDesign",
    "SimulatedSubject",
    "StageScores",
    "VDVAEConfig",
    "VDVAETraining",
    "VoxelScaler",
    "betas_from_bids",
    "betas_from_bold",
    "betas_from_images",
    "decoder_ceiling_r2",
    "evaluate_decoder",
    "identify_categories",
    "image_metrics",
    "image_study",
    "load_image_networks",
    "nearest_training_image",
    "photographs",
    "region_latents",
    "region_preference",
    "roi_scene",
    "simulate_subject",
    "tiny_image_networks",
    "train_vdvae",
    "trial_betas",
    "voxel_weights",
    "wiener_decoder",
]
