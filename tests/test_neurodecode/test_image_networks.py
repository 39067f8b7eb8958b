"""The networks of the metrics, from files of the published form with random weights, against torchvision's own use."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from neurodecode.fmri.image_networks import load_image_networks, tiny_image_networks
from neurodecode.fmri.image_weights import NETWORKS

models = pytest.importorskip("torchvision.models")
CLIP_STATISTICS = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])


def tiny_clip():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
        projection_dim=12,
    )
    return CLIPVisionModelWithProjection(config).eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Networks with random weights, and a folder of files as their authors publish them."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nets = {
            "alexnet": models.alexnet(weights=None),
            "inception": models.inception_v3(weights=None, init_weights=False, transform_input=True),
            "efficientnet": models.efficientnet_b1(weights=None),
            "swav": models.resnet50(weights=None),
            "clip": tiny_clip(),
        }
    for key in ("alexnet", "inception", "efficientnet"):
        state = nets[key].eval().state_dict()
        # The large layers that the metrics do not use; one stays, to be passed over.
        kept = {name: value for name, value in state.items() if value.numel() < 3_000_000}
        torch.save(kept, folder / NETWORKS[key].files[0])
    swav = {name: value for name, value in nets["swav"].eval().state_dict().items() if not name.startswith("fc.")}
    swav = {f"module.{name}": value for name, value in swav.items() if "num_batches" not in name}
    swav |= {"module.projection_head.0.weight": torch.zeros(3, 3), "module.prototypes.weight": torch.zeros(3, 3)}
    torch.save(swav, folder / NETWORKS["swav"].files[0])
    nets["clip"].save_pretrained(folder / NETWORKS["clip"].files[0])
    return nets, folder


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 3, 60, 50), dtype=np.uint8)


@pytest.fixture(scope="module")
def features(published, images):
    return load_image_networks(published[1]).features(images, batch_size=2)


def inputs(images, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    from torchvision.transforms import functional

    rows = []
    for image in images:
        small = functional.resize(Image.fromarray(image.transpose(1, 2, 0)), (224, 224))
        rows.append(functional.normalize(functional.to_tensor(small), mean, std))
    return torch.stack(rows)


def hooked(net, module, x):
    """Return what a module of the network puts out, as the reference code takes it."""
    seen = []
    handle = module.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    with torch.no_grad():
        net(x)
    handle.remove()
    return seen[0].flatten(1).numpy()


@pytest.mark.reference
@pytest.mark.parametrize(
    ("layer", "key", "module", "size"),
    [
        ("alexnet2", "alexnet", "features.4", 139_968),
        ("alexnet5", "alexnet", "features.11", 43_264),
        ("inception", "inception", "avgpool", 2048),
        ("efficientnet", "efficientnet", "avgpool", 1280),
        ("swav", "swav", "avgpool", 2048),
    ],
)
def test_features_are_those_of_torchvision(published, images, features, layer, key, module, size):
    net = published[0][key]
    want = hooked(net, net.get_submodule(module), inputs(images))
    assert features[layer].shape == (3, size)
    np.testing.assert_allclose(features[layer], want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.reference
def test_clip_features_are_the_projected_embeddings(published, images, features):
    with torch.no_grad():
        want = published[0]["clip"](pixel_values=inputs(images, *CLIP_STATISTICS)).image_embeds.numpy()
    np.testing.assert_allclose(features["clip"], want, rtol=1e-4, atol=1e-6)


def test_networks_are_read_when_they_are_needed(published, images, tmp_path, global_rng_untouched):
    for key in ("alexnet", "swav"):
        (tmp_path / NETWORKS[key].files[0]).write_bytes(b"no weights")
    networks = load_image_networks(tmp_path, only=["alexnet", "swav"])
    assert networks.layers == ("alexnet2", "alexnet5", "swav")
    shutil.copy(published[1] / NETWORKS["alexnet"].files[0], tmp_path)
    assert set(networks.features(images, ["alexnet5"])) == {"alexnet5"}
    with pytest.raises(ValueError, match=r"swav_800ep_pretrain.pth.tar' cannot be read: it is no file of weights"):
        networks.features(images, ["swav"])


def test_safetensors_are_read_as_well(published, images, features, tmp_path):
    state = torch.load(published[1] / NETWORKS["alexnet"].files[0], weights_only=True)
    save_file(state, tmp_path / "alexnet.safetensors")
    found = load_image_networks(tmp_path, only=["alexnet"]).features(images, batch_size=2)
    np.testing.assert_array_equal(found["alexnet5"], features["alexnet5"])


def test_missing_files_are_listed_with_their_addresses(tmp_path):
    (tmp_path / NETWORKS["swav"].files[0]).touch()
    with pytest.raises(FileNotFoundError) as error:
        load_image_networks(tmp_path)
    for key, source in NETWORKS.items():
        assert (source.url in str(error.value)) == (key != "swav")
    assert "leave networks out with `only`" in str(error.value)
    with pytest.raises(ValueError, match="`only` must be one of 'alexnet'"):
        load_image_networks(tmp_path, only=["vgg"])


def test_weights_of_another_network_are_refused(published, images, tmp_path):
    shutil.copy(published[1] / NETWORKS["swav"].files[0], tmp_path / NETWORKS["efficientnet"].files[0])
    with pytest.raises(ValueError, match="is of another architecture: it lacks"):
        load_image_networks(tmp_path, only=["efficientnet"]).features(images)
    (tmp_path / NETWORKS["clip"].files[0]).mkdir()
    with pytest.raises(ValueError, match="cannot be read: it is no folder of a CLIP model"):
        load_image_networks(tmp_path, only=["clip"]).features(images)


def test_code_in_a_file_of_weights_is_not_run(images, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_here"), "w"))

    torch.save({"features.0.weight": Evil()}, tmp_path / NETWORKS["alexnet"].files[0])
    with pytest.raises(ValueError, match="it is no file of weights"):
        load_image_networks(tmp_path, only=["alexnet"]).features(images)
    assert not (tmp_path / "was_here").exists()


def test_tiny_networks_have_the_layers_of_the_real_ones_and_say_what_they_are(images, global_rng_untouched):
    first, again, other = (tiny_image_networks(seed) for seed in (1, 1, 2))
    assert first.layers == tuple(layer for source in NETWORKS.values() for layer in source.layers)
    found = first.features(images)
    for layer, values in again.features(images, batch_size=1).items():
        np.testing.assert_allclose(values, found[layer], rtol=1e-5, atol=1e-6)
        assert not np.allclose(other.features(images, [layer])[layer], found[layer])
    assert not first.comparable
    assert "not comparable" in first.provenance


def test_features_say_what_is_wrong(images):
    networks = tiny_image_networks()
    with pytest.raises(ValueError, match="`layers` must be one of 'alexnet2'"):
        networks.features(images, ["vgg"])
    with pytest.raises(ValueError, match=r"`made` must lie in \[0, 1\]"):
        networks.features(images.astype(float), name="made")
