"""The residual networks of DIET-SNN and IIR-SNN ("ResNet20"; not the CIFAR ResNet-20 of He et al.)."""

# B batch, N = T * B rows, C channels, H W image, K classes

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuroloaders.checks import check_number, check_option, invalid
from snn.models.base import (
    FoldedNetwork,
    TimeSharedDropout,
    check_in_shape,
    conv_block,
    new_activation,
    new_linear,
    scaled,
)

__all__ = ["BLOCKS", "BasicBlock", "ResNet", "resnet"]

# Basic blocks in each of the four stages of 64, 128, 256 and 512 channels.
# ResNet34 is left out: the lineage's ANN code has (3, 4, 5, 3), its spiking code (3, 4, 6, 3).
BLOCKS: dict[int, tuple[int, int, int, int]] = {12: (1, 1, 1, 1), 20: (2, 2, 2, 2)}
_CHANNELS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, activations after the first and after the sum.

    Parameters
    ----------
    c_in, c_out : int
        Channels.
    stride : int
        Of the first convolution and of the shortcut.
    batch_norm, dropout, activation
        As in :func:`resnet`.
    **place
        Device and dtype of the parameters.

    Notes
    -----
    The shortcut is a 1 x 1 convolution (with its own normalisation) where stride or channels change, else the
    identity; its current is added to that of the second convolution before the activation.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        batch_norm: bool,
        dropout: float,
        activation: Callable[[], nn.Module],
        **place,
    ) -> None:
        super().__init__()
        first = conv_block(1, c_in, c_out, stride=stride, batch_norm=batch_norm, activation=activation, **place)
        second = conv_block(2, c_out, c_out, batch_norm=batch_norm, **place)
        self.residual = nn.Sequential(OrderedDict({**first, "drop1": TimeSharedDropout(dropout), **second}))
        self.shortcut = nn.Identity()
        if stride != 1 or c_in != c_out:
            block = conv_block(1, c_in, c_out, kernel_size=1, stride=stride, batch_norm=batch_norm, **place)
            self.shortcut = nn.Sequential(OrderedDict(block))
        # Registered last, because the names of activations follow the order in which they run.
        self.act2 = new_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        return self.act2(self.residual(x) + self.shortcut(x))


class ResNet(FoldedNetwork):
    """Three convolutions, a pooling, four stages of basic blocks, one linear layer; built by :func:`resnet`.

    Parameters
    ----------
    blocks : tuple of int
        Number of basic blocks in each stage.
    n_classes : int
        K.
    in_shape, width, batch_norm, dropout, activation, generator, device, dtype
        As in :func:`resnet`.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        n_classes: int,
        *,
        in_shape: tuple[int, int, int] = (3, 32, 32),
        width: float = 1.0,
        batch_norm: bool = True,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(check_in_shape(in_shape), n_classes)
        check_number("width", width, above=0)
        channels, *image = self.in_shape
        if min(image) < 2:
            raise invalid("in_shape", "be at least 2 x 2 for the pooling", f"{self.in_shape}")
        common = {"batch_norm": batch_norm, "activation": activation, "device": device, "dtype": dtype}

        stem = scaled(_CHANNELS[0], width)
        layers: dict[str, nn.Module] = {}
        for index in (1, 2, 3):
            layers |= conv_block(index, channels, stem, **common)
            if index < 3:
                layers[f"drop{index}"] = TimeSharedDropout(dropout)
            channels = stem
        layers["pool3"] = nn.AvgPool2d(2)
        self.pre_process = nn.Sequential(OrderedDict(layers))
        image = [side // 2 for side in image]

        self.blocks = nn.Sequential()
        for stage, count in enumerate(blocks):
            c_out = scaled(_CHANNELS[stage], width)
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                image = [-(-side // stride) for side in image]  # 3 x 3 with padding 1 rounds up
                self.blocks.append(BasicBlock(channels, c_out, stride, dropout=dropout, **common))
                channels = c_out
        self.classifier = new_linear(channels * image[0] * image[1], self.n_classes, device=device, dtype=dtype)
        self._finish(generator)

    def _rows(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.pre_process(x)).flatten(1))


def resnet(
    depth: int | str,
    n_classes: int,
    *,
    in_shape: tuple[int, int, int] = (3, 32, 32),
    width: float = 1.0,
    batch_norm: bool = True,
    dropout: float = 0.0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> ResNet:
    """Build a residual network of the DIET-SNN lineage with time folded into the batch.

    Parameters
    ----------
    depth : int or str
        12 or 20, or the name "resnet20".
    n_classes : int
        K.
    in_shape : tuple of int
        (C, H, W) of one image.
    width : float
        Factor on all channels.
    batch_norm : bool
        True: convolutions (shortcuts too) without bias, each followed by BatchNorm2d. False: convolutions
        with bias, the form that folding the normalisation gives. The linear layer has no bias.
    dropout : float
        Probability of :class:`TimeSharedDropout` after the first two convolutions and inside every block.
    activation : callable
        Makes one new module per activation.
    generator : torch.Generator, optional
        Where the weights come from, see :func:`init_weights`.
    device, dtype
        Of parameters and buffers; device="meta" builds the shapes only.

    Returns
    -------
    ResNet

    Raises
    ------
    ValueError
        If `depth` is unknown or the image is smaller than 2 x 2.

    Notes
    -----
    "ResNet20" counts its weighted layers without the three 1 x 1 shortcuts. It has 11.26 M parameters and
    215.7 M multiply-accumulates on CIFAR-10; the CIFAR ResNet-20 of He et al. (16-32-64 channels) is another
    network.

    References
    ----------
    .. [1] Chowdhury, Rathi & Roy, arXiv:2110.05929 (ECCV 2022).

    Examples
    --------
    >>> resnet(12, 10, width=0.125)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if isinstance(depth, str):
        names = {f"resnet{known}": known for known in BLOCKS}
        depth = names[check_option("depth", depth.lower(), names)]
    return ResNet(
        BLOCKS[check_option("depth", depth, BLOCKS)],
        n_classes,
        in_shape=in_shape,
        width=width,
        batch_norm=batch_norm,
        dropout=dropout,
        activation=activation,
        generator=generator,
        device=device,
        dtype=dtype,
    )
