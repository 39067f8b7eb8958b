"""A one-step experiment that is trained in a second, on real digits."""

from __future__ import annotations

import torch

import snn
from neuroloaders import ResidentLoader, ToFloat, example_data
from snn.one_step_run import run_one_step

TRAINING = snn.TrainConfig(epochs=1, lr=2e-3)


def tiny_loaders():
    """Loaders of 96 training, 32 validation and 40 test digits, and the test images as tensors and bytes."""
    train, test = example_data("digits")
    to_float = ToFloat(train.mean, train.std)
    parts = {
        "train": (train.images[:96], train.labels[:96]),
        "valid": (train.images[96:128], train.labels[96:128]),
        "test": (test.images[:40], test.labels[:40]),
    }
    loaders = {
        name: ResidentLoader(*part, batch_size=32, shuffle=name == "train", transform=to_float)
        for name, part in parts.items()
    }
    return loaders, to_float(test.images[:40]), *parts["test"]


def tiny_ann():
    """An untrained VGG5 of 4, 8 and 8 channels."""
    generator = torch.Generator().manual_seed(0)
    return snn.models.vgg(5, 10, in_shape=(1, 8, 8), width=1 / 16, classifier=(256,), generator=generator)


def tiny_run(schedule=(3, 1), **options):
    """One seed of everything, and the inputs it was measured on."""
    loaders, inputs, _, _ = tiny_loaders()
    pruning = snn.TemporalPruning(schedule=schedule, config=TRAINING)
    options |= {"inputs": inputs, "ann_config": TRAINING, "pruning": pruning, "device": "cpu"}
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for networks of this size a second one only waits
    try:
        return run_one_step(tiny_ann(), **loaders, **options), inputs
    finally:
        torch.set_num_threads(n_threads)
