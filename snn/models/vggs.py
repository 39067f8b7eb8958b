"""VGG networks of the direct-encoding spiking lineage (hybrid-SNN, DIET-SNN, IIR-SNN)."""

# B batch, N = T * B rows, C channels, H W image, K classes; "A" in a plan is a pooling

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_int, check_number, check_option, invalid
from snn.models.base import (
    FoldedNetwork,
    TimeSharedDropout,
    check_in_shape,
    conv_block,
    new_activation,
    new_linear,
    scaled,
)

__all__ = ["PLANS", "POOLS", "VGG", "vgg"]

_SIX = (64, "A", 128, 128, "A")
_D = (64, 64, "A", 128, 128, "A", 256, 256, 256, "A", 512, 512, 512, "A", 512, 512, 512)
_E = (64, 64, "A", 128, 128, "A", 256, 256, 256, 256, "A", 512, 512, 512, 512, "A", 512, 512, 512, 512)

# "cifar": the lineage's own plans; its 11 and 13 are not those of Simonyan & Zisserman. One network has two
# names there: hybrid-SNN and IIR-SNN call 3 convolutions + 3 linear layers VGG5, DIET-SNN calls it VGG6.
# "imagenet": Simonyan & Zisserman (2015), table 1, columns A, B, D, E. D with average pooling is IIR-SNN's
# ImageNet network.
PLANS: dict[str, dict[int, tuple[int | str, ...]]] = {
    "cifar": {
        5: _SIX,
        6: _SIX,
        9: (64, "A", 128, 256, "A", 256, 512, "A", 512, "A", 512),
        11: (64, "A", 128, 256, "A", 512, 512, "A", 512, "A", 512, 512),
        13: (64, 64, "A", 128, 128, "A", 256, 256, "A", 512, 512, 512, "A", 512),
        16: _D,
        19: _E,
    },
    "imagenet": {
        11: (64, "A", 128, "A", 256, 256, "A", 512, 512, "A", 512, 512, "A"),
        13: (64, 64, "A", 128, 128, "A", 256, 256, "A", 512, 512, "A", 512, 512, "A"),
        16: (*_D, "A"),
        19: (*_E, "A"),
    },
}

POOLS: dict[str, type[nn.Module]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}

# Smallest image side from which layout="auto" takes the plan with five poolings.
_IMAGENET_SIDE = 128


class VGG(FoldedNetwork):
    """Convolution blocks with 2 x 2 poolings, then linear layers. Build it with :func:`vgg`.

    Parameters
    ----------
    plan : sequence
        Output channels of each 3 x 3 convolution, and "A" for a pooling of the block before.
    n_classes : int
        K.
    in_shape, width, batch_norm, dropout, pool, classifier, activation, generator, device, dtype
        As in :func:`vgg`.

    Attributes
    ----------
    features, classifier : nn.Sequential
        Layers ``conv1, bn1, act1, drop1 | pool1, conv2, ...`` and ``fc1, act1, drop1, fc2, ...``.
    """

    def __init__(
        self,
        plan: Sequence[int | str],
        n_classes: int,
        *,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        width: float = 1.0,
        batch_norm: bool = True,
        dropout: float = 0.0,
        pool: str = "avg",
        classifier: Sequence[int] = (4096, 4096),
        activation: Callable[[], nn.Module] = nn.ReLU,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(check_in_shape(in_shape), n_classes)
        check_number("width", width, above=0)
        new_pool = POOLS[check_option("pool", pool, POOLS)]
        place = {"device": device, "dtype": dtype}

        channels, *image = self.in_shape
        layers: dict[str, nn.Module] = {}
        index = 0
        for entry in plan:
            if entry == "A":
                # The pooling takes the place of its block's dropout, as in the lineage's code.
                del layers[f"drop{index}"]
                layers[f"pool{index}"] = new_pool(2)
                image = [side // 2 for side in image]
            else:
                index += 1
                c_out = scaled(entry, width)
                layers |= conv_block(index, channels, c_out, batch_norm=batch_norm, activation=activation, **place)
                layers[f"drop{index}"] = TimeSharedDropout(dropout)
                channels = c_out
        self.features = nn.Sequential(OrderedDict(layers))

        layers = {}
        n_in = channels * image[0] * image[1]
        for index, size in enumerate(classifier, start=1):
            n_out = scaled(check_int("classifier", size, at_least=1), width)
            layers[f"fc{index}"] = new_linear(n_in, n_out, **place)
            layers[f"act{index}"] = new_activation(activation)
            layers[f"drop{index}"] = TimeSharedDropout(dropout)
            n_in = n_out
        layers[f"fc{len(classifier) + 1}"] = new_linear(n_in, self.n_classes, **place)
        self.classifier = nn.Sequential(OrderedDict(layers))
        self._finish(generator)

    def _rows(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def vgg(
    depth: int | str,
    n_classes: int,
    *,
    in_shape: tuple[int, int, int] = (3, 32, 32),
    width: float = 1.0,
    batch_norm: bool = True,
    dropout: float = 0.0,
    pool: str = "avg",
    classifier: Sequence[int] = (4096, 4096),
    layout: str = "auto",
    n_pools: int | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> VGG:
    """Build a VGG network with time folded into the batch.

    Parameters
    ----------
    depth : int or str
        5, 6, 9, 11, 13, 16 or 19, or the name "vgg16". 5 and 6 are two published names of one network.
    n_classes : int
        K.
    in_shape : tuple of int
        (C, H, W) of one image.
    width : float
        Factor on all channels and on the hidden linear layers.
    batch_norm : bool
        True: convolutions without bias, each followed by BatchNorm2d. False: convolutions with bias, the form
        that folding the normalisation gives. Linear layers never have a bias.
    dropout : float
        Probability of :class:`TimeSharedDropout` after every activation that no pooling follows.
    pool : str
        "avg" (the papers) or "max".
    classifier : sequence of int
        Hidden linear layers.
    layout : str
        "cifar" (poolings between the blocks only), "imagenet" (five poolings, the last before the linear
        layers) or "auto": "imagenet" for images of at least 128 x 128, where that depth has such a layout.
    n_pools : int, optional
        Keep only the first `n_pools` poolings, for small images.
    activation : callable
        Makes one new module per activation.
    generator : torch.Generator, optional
        Where the weights come from, see :func:`init_weights`.
    device, dtype
        Of parameters and buffers; device="meta" builds the shapes only.

    Returns
    -------
    VGG

    Raises
    ------
    ValueError
        If an option is unknown, or the image becomes smaller than 1 x 1.

    References
    ----------
    .. [1] Chowdhury, Rathi & Roy, arXiv:2110.05929 (ECCV 2022). Their VGG16: 39.92 M parameters for CIFAR-10.
    .. [2] Rathi & Roy, DIET-SNN, arXiv:2008.03658.
    .. [3] Simonyan & Zisserman, Very deep convolutional networks, ICLR 2015.

    Examples
    --------
    >>> model = vgg(5, 10, in_shape=(1, 8, 8), width=0.125)
    >>> model(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    check_option("layout", layout, ["auto", *PLANS])
    known = {*PLANS["cifar"], *PLANS["imagenet"]}
    names = {f"vgg{known_depth}": known_depth for known_depth in sorted(known)}
    if isinstance(depth, str):
        depth = names[check_option("depth", depth.lower(), names)]
    shape = check_in_shape(in_shape)
    if layout == "auto":
        large = min(shape[1:]) >= _IMAGENET_SIDE and depth in PLANS["imagenet"]
        layout = "imagenet" if large else "cifar"
    plan = PLANS[layout][check_option("depth", depth, PLANS[layout])]

    available = plan.count("A")
    n_pools = available if n_pools is None else check_int("n_pools", n_pools, at_least=0, at_most=available)
    possible = min(shape[1:]).bit_length() - 1  # halvings, rounded down, that leave at least one pixel
    if n_pools > possible:
        raise invalid(
            "in_shape",
            f"be at least {2**n_pools} x {2**n_pools} for {n_pools} poolings",
            f"{shape}",
            f"Pass n_pools={possible} to leave out the last ones, or choose a network with fewer.",
        )
    pools_left = iter([True] * n_pools)
    plan = tuple(entry for entry in plan if entry != "A" or next(pools_left, False))
    return VGG(
        plan,
        n_classes,
        in_shape=shape,
        width=width,
        batch_norm=batch_norm,
        dropout=dropout,
        pool=pool,
        classifier=classifier,
        activation=activation,
        generator=generator,
        device=device,
        dtype=dtype,
    )
