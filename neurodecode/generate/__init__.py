"""From predicted embeddings to images: diffusion models of diffusers, run by a loop of our own.

A generator takes the embeddings of its ``shapes``, and begins with noise or with a first guess. `load_backend` reads
them from the folders they are published in.
"""

from neurodecode.generate.backend import DiffusionBackend
from neurodecode.generate.ip_adapter import IPAdapter
from neurodecode.generate.registry import BACKENDS, load_backend
from neurodecode.generate.settings import COMPAT, GenerationSettings
from neurodecode.generate.tiny import TinyTraining, save_tiny_versatile, train_tiny
from neurodecode.generate.unclip import StableUnCLIP
from neurodecode.generate.versatile import VersatileDiffusion

__all__ = [
    "BACKENDS",
    "COMPAT",
    "DiffusionBackend",
    "GenerationSettings",
    "IPAdapter",
    "StableUnCLIP",
    "TinyTraining",
    "VersatileDiffusion",
    "load_backend",
    "save_tiny_versatile",
    "train_tiny",
]
