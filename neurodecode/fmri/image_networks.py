"""The networks whose features images are compared by, from weight files that lie in a folder."""

# B images, S side of the square that the networks see, d features

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurodecode.fmri.image_pixels import as_bytes, check_images, resize
from neurodecode.fmri.image_weights import NETWORKS, SIDE, Source
from neuroloaders.checks import check_int, check_option, invalid

__all__ = ["ImageNetworks", "load_image_networks", "tiny_image_networks"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageNetworks:
    """Networks that turn images into features, each made when it is first needed.

    Parameters
    ----------
    sources : dict of str to Source
        The networks.
    paths : dict of str to Path
        The weights of each.
    side : int
        Height and width of the images that they see.
    provenance : str
        Where the weights come from.
    comparable : bool
        Whether results may be compared with published ones.
    device : torch.device
        Where they run.
    """

    sources: dict[str, Source]
    paths: dict[str, Path]
    side: int = SIDE
    provenance: str
    comparable: bool
    device: torch.device
    _made: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(layer for source in self.sources.values() for layer in source.layers)

    def batches(
        self,
        images: Any,
        layers: Sequence[str] | None = None,
        *,
        name: str = "images",
        batch_size: int = 32,
        progress: bool = False,
    ) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """Yield the features of some images at a time.

        Parameters
        ----------
        images : array, tensor or memory map, shape (B, 3, H, W)
            Floating point in [0, 1], or uint8.
        layers : sequence of str, optional
            Which features; by default all.
        name : str
            What to call the images in errors.
        batch_size : int
            Images at a time.
        progress : bool
            Show a progress bar (tqdm).

        Yields
        ------
        part : slice
            Which images.
        features : dict of str to Tensor, each of shape (b, d)
            Their features, float32, on the device.
        """
        check_images(name, images)
        check_int("batch_size", batch_size, at_least=1)
        layers = self.layers if layers is None else tuple(layers)
        for layer in layers:
            check_option("layers", layer, self.layers)
        # Before the first image: a file that cannot be read is reported at once.
        needed = {key: self._network(key) for key, source in self.sources.items() if {*source.layers} & {*layers}}
        n = len(images)
        parts: Any = [slice(first, min(first + batch_size, n)) for first in range(0, n, batch_size)]
        if progress:
            from tqdm.auto import tqdm

            parts = tqdm(parts, desc=f"features of {name}")
        for part in parts:
            # Resampled by Pillow, as torchvision does with PNG files: bilinear, antialiased, in bytes.
            small = resize(as_bytes(name, images[part]), self.side, "bilinear")
            pixels = torch.from_numpy(np.ascontiguousarray(small)).to(self.device).float() / 255
            found = {}
            with torch.no_grad():
                for key, network in needed.items():
                    source = self.sources[key]
                    mean, std = (pixels.new_tensor(values)[:, None, None] for values in source.statistics)
                    found.update(zip(source.layers, network((pixels - mean) / std), strict=True))
            yield part, {layer: found[layer] for layer in layers}

    def features(
        self,
        images: Any,
        layers: Sequence[str] | None = None,
        *,
        name: str = "images",
        batch_size: int = 32,
        progress: bool = False,
    ) -> dict[str, np.ndarray]:
        """Return the features of images; the parameters are those of `batches`.

        Returns
        -------
        dict of str to ndarray of float32, each of shape (B, d)
            One entry for each layer.
        """
        out: dict[str, np.ndarray] = {}
        found = self.batches(images, layers, name=name, batch_size=batch_size, progress=progress)
        for part, features in found:
            for layer, values in features.items():
                if layer not in out:
                    out[layer] = np.empty((len(images), values.shape[1]), dtype=np.float32)
                out[layer][part] = values.cpu().numpy()
        return out

    def _network(self, key: str) -> nn.Module:
        if key not in self._made:
            # Building draws weights that are replaced at once; the global generator is given back as it was.
            with torch.random.fork_rng(devices=[]):
                network = self.sources[key].build(self.paths[key])
            self._made[key] = network.to(self.device).eval().requires_grad_(False)
        return self._made[key]


def load_image_networks(
    folder: str | os.PathLike[str], *, only: Sequence[str] | None = None, device: Any = "cpu"
) -> ImageNetworks:
    """Return the networks of the paper's metrics, from weight files in a folder. Nothing is downloaded.

    Parameters
    ----------
    folder : path-like
        Where the files lie: those of `neurodecode.fmri.image_weights.NETWORKS`, which says what they are called and
        where they are published. A ``.pth`` file is read without executing anything in it; ``.safetensors`` files with
        the same names of tensors do as well.
    only : sequence of str, optional
        Which of "alexnet", "inception", "clip", "efficientnet", "swav"; by default all.
    device : str or torch.device
        Where they run.

    Returns
    -------
    ImageNetworks
        Each network is read when it is first needed.

    Raises
    ------
    FileNotFoundError
        If files are missing: the message lists them all, and where to get them.

    Notes
    -----
    As in the reference code of Ozcelik & VanRullen 2023: all networks see 224 x 224 pixels, Inception too, and
    EfficientNet-B1 has the first of torchvision's weights. AlexNet gives its second and fifth convolution after the
    ReLU, Inception, EfficientNet and SwAV their average pooling, CLIP its projected image embedding.
    """
    root = Path(folder)
    wanted = tuple(NETWORKS) if only is None else tuple(only)
    if not wanted:
        raise invalid("only", "name at least one network", "none")
    paths, missing = {}, []
    for key in wanted:
        source = NETWORKS[check_option("only", key, NETWORKS)]
        there = [root / file for file in source.files if (root / file).exists()]
        if there:
            paths[key] = there[0]
        else:
            missing.append(f"{source.files[0]} ({source.title}, from {source.url})")
    if missing:
        advice = "Put the files there, or leave networks out with `only`."
        required = "hold the weights " + ", ".join(missing)
        raise invalid("folder", required, f"{os.fspath(folder)!r} without them", advice, kind=FileNotFoundError)
    return ImageNetworks(
        sources={key: NETWORKS[key] for key in wanted},
        paths=paths,
        provenance="published weights: " + ", ".join(path.name for path in paths.values()),
        comparable=True,
        device=torch.device(device),
    )


class _Tiny(nn.Module):
    """Random convolutions; what a test needs of a network."""

    def __init__(self, n_layers: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = [3, *[6 * 2**k for k in range(n_layers + 1)]]
        for k, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            weight = torch.randn(n_out, n_in, 3, 3, generator=generator) / (9 * n_in) ** 0.5
            self.register_buffer(f"weight{k}", weight)
        self.n_layers = n_layers

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = []
        for k in range(self.n_layers + 1):
            x = nn.functional.conv2d(x, self.get_buffer(f"weight{k}"), stride=2, padding=1).relu()
            if k > 0:
                out.append(x.flatten(1))
        return tuple(out)


def tiny_image_networks(seed: int = 0, *, side: int = 32, device: Any = "cpu") -> ImageNetworks:
    """Return small random networks in place of the real ones, for tests and for runs without weights.

    Parameters
    ----------
    seed : int
        Where their weights come from.
    side : int
        Height and width of the images that they see.
    device : str or torch.device
        Where they run.

    Returns
    -------
    ImageNetworks
        With the same layers as the real ones. Their numbers are **not comparable** with any others: results say so.
    """
    check_int("seed", seed, at_least=0)
    check_int("side", side, at_least=8)
    sources = {}
    for place, (key, source) in enumerate(NETWORKS.items()):

        def build(path: Path, n_layers: int = len(source.layers), place: int = place) -> nn.Module:
            return _Tiny(n_layers, torch.Generator().manual_seed(seed * len(NETWORKS) + place))

        sources[key] = Source(
            title=f"random convolutions for {source.title}",
            files=(),
            url="",
            layers=source.layers,
            build=build,
            statistics=source.statistics,
        )
    return ImageNetworks(
        sources=sources,
        paths=dict.fromkeys(NETWORKS, Path()),
        side=side,
        provenance=f"random convolutions, seed {seed}: not comparable with published numbers",
        comparable=False,
        device=torch.device(device),
    )
