"""What an extractor is: something that turns images or captions into features, and says exactly which ones."""

# B batch, H height, W width

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from neurodecode.features.pixels import check_images
from neurodecode.features.weights import hash_module, module_state
from neuroloaders.checks import check_int, invalid
from neuroloaders.runs import choose_device

__all__ = ["Extractor", "FeatureExtractor", "ImageExtractor", "check_config", "counts"]

# How many stimuli each extractor was run on in this process, by its name.
counts: Counter[str] = Counter()


@runtime_checkable
class Extractor(Protocol):
    """What `neurodecode.features.extract` needs; a class of your own may be anything that has these.

    Attributes
    ----------
    name : str
        Begins the name of the cache folder.
    takes : {"images", "captions"}
        What a batch consists of.
    shape : tuple of int
        Shape of the features of one stimulus.
    batch_size : int
        Stimuli at a time, if the caller does not say.
    """

    name: str
    takes: str
    shape: tuple[int, ...]
    batch_size: int

    def fingerprint(self) -> str:
        """Return a hash of everything the features depend on besides the stimulus: weights and settings."""

    def __call__(self, batch: Any) -> Tensor:
        """Return the features of a batch, shape (B, *shape)."""


class FeatureExtractor(abc.ABC):
    """Base of the extractors of this package: a network (or none), a frozen configuration, a fingerprint.

    Parameters
    ----------
    config : frozen dataclass
        Every setting that changes the features.
    module : nn.Module, optional
        The network. It is put into evaluation mode and its parameters need no gradients any more.
    device : str or torch.device, optional
        Where to compute; by default where the network is.
    batch_size : int
        Stimuli at a time, if the caller of `extract` does not say.

    Notes
    -----
    Device and batch size are no part of the fingerprint, although they change the last bits of features.
    """

    name: ClassVar[str]
    takes: ClassVar[str]
    # To be raised when the code changes what is computed: old caches are then left alone.
    version: ClassVar[int] = 1

    def __init__(self, config: Any, module: nn.Module | None, *, device: Any = None, batch_size: int = 32) -> None:
        self.config, self.module = config, module
        self.batch_size = check_int("batch_size", batch_size, at_least=1)
        if module is not None:
            module.eval().requires_grad_(False)
            if device is not None:
                module.to(choose_device(device))
        self._device = choose_device("cpu" if device is None else device)
        self._hashed: tuple[Any, str] | None = None

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        parameter = None if self.module is None else next(self.module.parameters(), None)
        return self._device if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        parameter = None if self.module is None else next(self.module.parameters(), None)
        return torch.float32 if parameter is None else parameter.dtype

    def settings(self) -> dict[str, Any]:
        """Return everything besides the weights that the features depend on, as JSON can hold it."""
        return {"name": self.name, "version": self.version, "config": dataclasses.asdict(self.config)}

    def fingerprint(self) -> str:
        """Return a hash of weights, architecture and settings: 64 hexadecimal digits.

        The weights are read once, and again only if they were changed.
        """
        state = None if self.module is None else module_state(self.module)
        if self._hashed is None or state is None or self._hashed[0] != state:
            digest = "none" if self.module is None else hash_module(self.module)
            self._hashed = (state, digest)
        text = json.dumps({**self.settings(), "weights": self._hashed[1]}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @abc.abstractmethod
    def __call__(self, batch: Any) -> Tensor:
        """Return the features of a batch, shape (B, *shape), float32 on the extractor's device."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config}, shape={self.shape}, {self.dtype} on {self.device})"


class ImageExtractor(FeatureExtractor):
    """An extractor of images: `prepare` brings them to the network's size, `compute` runs it."""

    takes = "images"

    def __call__(self, batch: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the features of images.

        Parameters
        ----------
        batch : tensor of shape (B, 3, H, W), or sequence of B tensors of shape (3, H, W)
            Bytes, or floating point in [0, 1]; both give the same features. Of a sequence, each image may have a size
            of its own.

        Returns
        -------
        Tensor of float32, shape (B, *shape)
            On the extractor's device.
        """
        if len(batch) == 0:
            raise invalid("batch", "hold at least one image", "none")
        with torch.no_grad():
            if isinstance(batch, Tensor):
                pixels = self.prepare(check_images("batch", batch).to(self.device))
            else:
                pixels = self._prepare_each(batch)
            features = self.compute(pixels, batch)
        counts[self.name] += len(batch)
        return features.float()

    def _prepare_each(self, batch: Sequence[Tensor]) -> Tensor:
        """Prepare images of several sizes, those of one size and type at a time."""
        groups: dict[Any, list[int]] = {}
        images = [check_images(f"batch[{i}]", image[None])[0] for i, image in enumerate(batch)]
        for i, image in enumerate(images):
            groups.setdefault((tuple(image.shape), image.dtype), []).append(i)
        prepared: dict[int, Tensor] = {}
        for rows in groups.values():
            pixels = self.prepare(torch.stack([images[i] for i in rows]).to(self.device))
            prepared.update(zip(rows, pixels, strict=True))
        return torch.stack([prepared[i] for i in range(len(batch))])

    @abc.abstractmethod
    def prepare(self, images: Tensor) -> Tensor:
        """Turn checked images of one size, bytes or floating point in [0, 1], into what the network takes."""

    @abc.abstractmethod
    def compute(self, pixels: Tensor, originals: Sequence[Tensor] | Tensor) -> Tensor:
        """Return features, shape (B, *shape).

        Parameters
        ----------
        pixels : Tensor
            From `prepare`.
        originals : tensor or sequence of tensors
            The images themselves, which seed what is drawn for each.
        """


def check_config(config: Any, kind: type) -> Any:
    """Return a configuration if it is of the `kind` that the extractor takes; None stands for the default one."""
    if config is None:
        return kind()
    if not isinstance(config, kind):
        raise invalid("config", f"be a {kind.__name__}", config, kind=TypeError)
    return config
