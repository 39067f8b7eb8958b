"""Image networks by name. All are :class:`FoldedNetwork`: one definition for ANN and spiking network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from snn.models.base import FoldedNetwork, TimeSharedDropout
from snn.models.delay_mlp import DELAYS, READOUTS, DelayMLP, delay_mlp
from snn.models.resnets import BLOCKS, ResNet, resnet
from snn.models.vggs import PLANS, VGG, vgg

__all__ = [
    "DELAYS",
    "MODELS",
    "READOUTS",
    "VGG",
    "DelayMLP",
    "FoldedNetwork",
    "ResNet",
    "TimeSharedDropout",
    "delay_mlp",
    "resnet",
    "vgg",
]

# Name -> builder; the remaining arguments are those of vgg and resnet.
MODELS: dict[str, Callable[..., FoldedNetwork]] = {
    **{f"vgg{depth}": partial(vgg, depth) for depth in PLANS["cifar"]},
    **{f"resnet{depth}": partial(resnet, depth) for depth in BLOCKS},
}
