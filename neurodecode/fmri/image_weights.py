"""Which networks images are compared by, where their weights are published, and how the files are read."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroloaders.checkpoints import load_checkpoint
from neuroloaders.checks import check_state_dict, corrupt_file, soft_import

__all__ = ["IMAGENET", "NETWORKS", "SIDE", "Source"]

# Mean and standard deviation of R, G, B that the networks were trained with.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# Height and width of the images that all of them see.
SIDE = 224


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a network comes from.

    Parameters
    ----------
    title : str
        Its name in the literature.
    files : tuple of str
        Names that its weights may have in the folder; the first is the published one.
    url : str
        Where they are published.
    layers : tuple of str
        Features that it gives, as `ImageNetworks.features` calls them.
    build : callable
        Makes the module from the path; it returns one tensor for each layer.
    statistics : pair of tuple of float
        Mean and standard deviation of its inputs.
    """

    title: str
    files: tuple[str, ...]
    url: str
    layers: tuple[str, ...]
    build: Callable[[Path], nn.Module]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET


class _Stages(nn.Module):
    """Stages that run one after the other; the output of each is a layer."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x.flatten(1))
        return tuple(out)


class _ClipImage(nn.Module):
    """The projected image embedding of CLIP."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.model(pixel_values=x).image_embeds,)


def _alexnet(path: Path) -> nn.Module:
    net = _torchvision().alexnet(weights=None)
    features = net.features
    _fill(path, features, prefix="features.", unused=("classifier.",))
    # After the second and the fifth convolution and their ReLU: 192 x 27 x 27 and 256 x 13 x 13 numbers.
    return _Stages(features[:5], features[5:12])


def _inception(path: Path) -> nn.Module:
    # The published weights go with transform_input: they expect other statistics than ImageNet's and convert.
    net = _torchvision().inception_v3(weights=None, init_weights=False, aux_logits=False, transform_input=True)
    net.fc = nn.Identity()
    _fill(path, net, unused=("fc.", "AuxLogits."))
    return _Stages(net)


def _efficientnet(path: Path) -> nn.Module:
    net = _torchvision().efficientnet_b1(weights=None)
    net.classifier = nn.Identity()
    _fill(path, net, unused=("classifier.",))
    return _Stages(net)


# The published file has the names of a network inside DistributedDataParallel.
_SWAV_HEAD = ("module.projection_head.", "module.prototypes.", "projection_head.", "prototypes.", "fc.")


def _swav(path: Path) -> nn.Module:
    net = _torchvision().resnet50(weights=None)
    net.fc = nn.Identity()
    _fill(path, net, prefix="module.", unused=_SWAV_HEAD)
    return _Stages(net)


def _clip(path: Path) -> nn.Module:
    transformers = soft_import("transformers", purpose="The CLIP metric")
    try:
        model = transformers.CLIPVisionModelWithProjection.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise corrupt_file(path, f"it is no folder of a CLIP model ({str(error).splitlines()[0]})") from error
    side = model.config.image_size
    if side != SIDE:
        raise corrupt_file(path, f"its images are {side} pixels wide, not {SIDE}", "Take clip-vit-large-patch14.")
    return _ClipImage(model.float())


_PYTORCH = "https://download.pytorch.org/models/"

# Name -> the network; layers in the order in which results are reported.
NETWORKS: dict[str, Source] = {
    "alexnet": Source(
        title="AlexNet",
        files=("alexnet-owt-7be5be79.pth", "alexnet.safetensors"),
        url=_PYTORCH + "alexnet-owt-7be5be79.pth",
        layers=("alexnet2", "alexnet5"),
        build=_alexnet,
    ),
    "inception": Source(
        title="Inception v3",
        files=("inception_v3_google-0cc3c7bd.pth", "inception_v3.safetensors"),
        url=_PYTORCH + "inception_v3_google-0cc3c7bd.pth",
        layers=("inception",),
        build=_inception,
    ),
    "clip": Source(
        title="CLIP ViT-L/14, image side",
        files=("clip-vit-large-patch14",),
        url="https://huggingface.co/openai/clip-vit-large-patch14 (config.json and model.safetensors)",
        layers=("clip",),
        build=_clip,
        statistics=_CLIP,
    ),
    "efficientnet": Source(
        title="EfficientNet-B1",
        files=(
            "efficientnet_b1_rwightman-bac287d4.pth",
            "efficientnet_b1_rwightman-533bc792.pth",
            "efficientnet_b1.safetensors",
        ),
        url=_PYTORCH + "efficientnet_b1_rwightman-bac287d4.pth",
        layers=("efficientnet",),
        build=_efficientnet,
    ),
    "swav": Source(
        title="SwAV ResNet-50",
        files=("swav_800ep_pretrain.pth.tar", "swav_800ep_pretrain.safetensors"),
        url="https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
        layers=("swav",),
        build=_swav,
    ),
}


def _torchvision() -> Any:
    return soft_import("torchvision.models", purpose="`load_image_networks`")


def _fill(path: Path, module: nn.Module, *, prefix: str = "", unused: tuple[str, ...] = ()) -> None:
    """Read weights into a module; names that begin with one of `unused` are left out."""
    tensors = load_checkpoint(path).tensors if path.suffix == ".safetensors" else _read_pth(path)
    names = {name: value for name, value in tensors.items() if not name.startswith(unused)}
    have = {name.removeprefix(prefix): value for name, value in names.items()}
    # Old files lack the counters of batch normalisation, which evaluation does not use.
    counters = "num_batches_tracked"
    want = {name: value for name, value in module.state_dict().items() if not name.endswith(counters)}
    check_state_dict(path, {name: value for name, value in have.items() if not name.endswith(counters)}, want)
    module.load_state_dict({name: have[name] for name in want}, strict=False)


def _read_pth(path: Path) -> dict[str, Tensor]:
    data = path.read_bytes()
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises half a dozen kinds; the bytes are in memory, so that all of them are about the content.
        raise corrupt_file(path, f"it is no file of weights ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise corrupt_file(path, "it holds more than named tensors")
    return found
