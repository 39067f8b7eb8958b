"""Features of VGG-19, a convolutional network trained to name ImageNet's classes."""

# B batch

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurodecode.features.base import ImageExtractor, check_config
from neurodecode.features.pixels import IMAGENET_MEAN, IMAGENET_STD, as_floats, square, standardised
from neuroloaders.checks import check_int, check_option, check_state_dict, corrupt_file, invalid, soft_import

__all__ = ["VGG19", "VGG_LAYERS", "VGG19Config"]

# Name in Benchetrit et al. 2023 -> part of the network, and how many modules of it are run.
VGG_LAYERS = {
    "last": ("classifier", None),
    "dropout_5": ("classifier", 6),
    "dropout_2": ("classifier", 3),
    "avgpool": ("avgpool", None),
    "maxpool2d_35": ("features", None),
}
# The file of torchvision's weights IMAGENET1K_V1.
_FILE = "vgg19-dcbb9e9d.pth"


@dataclass(frozen=True, kw_only=True)
class VGG19Config:
    """Settings of `VGG19`.

    Parameters
    ----------
    layer : {"last", "dropout_5", "dropout_2", "avgpool", "maxpool2d_35"}
        A key of `VGG_LAYERS`: the 1000 logits; the second and first hidden layer of the classifier, after ReLU; its
        input, pooled to 7 x 7; the last feature map, after pooling.
    resize : int
        Pixels of the shorter side after resizing (bilinear).
    crop : int
        Pixels of the square that is cut out of the middle.
    """

    layer: str = "last"
    resize: int = 256
    crop: int = 224

    def __post_init__(self) -> None:
        check_option("layer", self.layer, VGG_LAYERS)
        check_int("crop", self.crop, at_least=32)
        check_int("resize", self.resize, at_least=self.crop)


class VGG19(ImageExtractor):
    """One layer of VGG-19.

    Parameters
    ----------
    model : nn.Module
        ``torchvision.models.vgg19``, or another network with ``features``, ``avgpool`` and ``classifier``.
    config : VGG19Config, optional
        Layer and sizes.
    device : str or torch.device, optional
        Where to compute; by default where the model is.
    batch_size : int
        Images at a time, if the caller of `extract` does not say.

    Notes
    -----
    Simonyan & Zisserman 2014 [1]_; the layers that Benchetrit et al. 2023 [2]_ compare. Their "maxpool2d_35" is taken
    to be the last pooling (``features.36`` of torchvision), as no other is that deep; at 224 pixels it is what
    "avgpool" gives too. Dropout does nothing outside training.

    References
    ----------
    .. [1] Simonyan & Zisserman, Very deep convolutional networks for large-scale image recognition, arXiv:1409.1556.
    .. [2] Benchetrit, Banville & King, Brain decoding: toward real-time reconstruction of visual perception,
       arXiv:2310.19812.
    """

    name = "vgg19"

    def __init__(
        self, model: nn.Module, config: VGG19Config | None = None, *, device: Any = None, batch_size: int = 32
    ) -> None:
        super().__init__(check_config(config, VGG19Config), model, device=device, batch_size=batch_size)
        with torch.no_grad():
            blank = torch.zeros(1, 3, self.config.crop, self.config.crop, device=self.device, dtype=self.dtype)
            self._shape = tuple(self.compute(blank, None).shape[1:])

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        config: VGG19Config | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> VGG19:
        """Load torchvision's network with weights from a file.

        Parameters
        ----------
        path : path-like, optional
            A state dict of ``torchvision.models.vgg19``, ``.safetensors`` or ``.pth``, of which only tensors are read.
            By default the file that torchvision downloads, where torch keeps such files.
        config : VGG19Config, optional
            Settings.
        device : str or torch.device, optional
            Where to compute; by default the CPU.
        dtype : torch.dtype
            What to compute in.
        batch_size : int
            Images at a time.

        Raises
        ------
        FileNotFoundError
            If the file is not there; the message says how to download it.
        ValueError
            If it is damaged, or of another network.
        """
        models = soft_import("torchvision.models", purpose="VGG-19")
        path = Path(torch.hub.get_dir()) / "checkpoints" / _FILE if path is None else Path(path)
        tensors = _read_tensors(path)
        # On no device at first: 144 million weights need not be drawn to be replaced.
        with torch.device("meta"):
            model = models.vgg19(weights=None, init_weights=False)
        check_state_dict(path, tensors, model.state_dict())
        model.load_state_dict(tensors, assign=True)
        return cls(model.to(dtype), config, device=device, batch_size=batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one stimulus."""
        return self._shape

    def prepare(self, images: Tensor) -> Tensor:
        """Return images resized, cut and normalised by ImageNet's statistics."""
        pixels = square(as_floats(images), self.config.resize, crop=self.config.crop, mode="bilinear")
        return standardised(pixels, IMAGENET_MEAN, IMAGENET_STD).to(self.dtype)

    def compute(self, pixels: Tensor, originals: Any) -> Tensor:
        """Return the features of prepared images, shape (B, *shape)."""
        part, n_modules = VGG_LAYERS[self.config.layer]
        x = self.module.features(pixels)
        if part != "features":
            x = self.module.avgpool(x)
        if part == "classifier":
            x = self.module.classifier[:n_modules](x.flatten(1))
        return x


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        advice = f"Download https://download.pytorch.org/models/{_FILE} once and pass where it is."
        raise invalid(
            "path", "be a file with the weights of VGG-19", repr(os.fspath(path)), advice, kind=FileNotFoundError
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise corrupt_file(path, (str(error) or type(error).__name__).splitlines()[0]) from error
    except Exception as error:  # safetensors has a class of its own, which is imported above only
        raise corrupt_file(path, str(error)) from error
    if not isinstance(tensors, dict):
        raise corrupt_file(path, "it holds no state dict")
    return tensors
