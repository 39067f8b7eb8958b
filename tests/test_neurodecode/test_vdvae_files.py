"""Networks of the very deep VAE on disk, and their training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from tolerances import close
from torch import Tensor

from neurodecode.fmri.vdvae import VDVAE, VDVAEConfig
from neurodecode.fmri.vdvae_training import VDVAETraining, train_vdvae

TINY = VDVAEConfig.tiny(8, 8)


@pytest.fixture(scope="module")
def vdvae() -> VDVAE:
    return VDVAE(TINY, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(3, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_the_release_loads_by_name(
    vdvae: VDVAE, images: Tensor, tmp_path: Path, prefix: str, zipped: bool
) -> None:
    path = tmp_path / "model-ema.th"
    state = {prefix + name: value for name, value in vdvae.state_dict().items()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    loaded = VDVAE.load(path, config=TINY)
    assert not loaded.training
    assert torch.equal(loaded.encode(images), vdvae.encode(images))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_it_is_the_same(images: Tensor, tmp_path: Path, dtype: torch.dtype) -> None:
    net = VDVAE(TINY, generator=torch.Generator().manual_seed(1)).to(dtype)
    net.save(tmp_path / "net")
    loaded = VDVAE.load(tmp_path / "net")
    assert loaded.config == TINY
    assert json.loads((tmp_path / "net" / "config.json").read_text())["width"] == 8
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
        assert loaded.state_dict()[name].dtype == dtype
    latents = net.encode(images)
    assert torch.equal(loaded.encode(images), latents)
    assert torch.equal(loaded.decode(latents), net.decode(latents))
    with pytest.raises(ValueError, match="width"):  # a folder keeps the network it holds
        VDVAE(VDVAEConfig.tiny(8, 12)).save(tmp_path / "net")
    assert torch.equal(VDVAE.load(tmp_path / "net").encode(images), latents)


def test_what_is_no_checkpoint_of_the_network_is_refused(vdvae: VDVAE, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="openaipublic"):
        VDVAE.load(tmp_path / "nothing.th")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        VDVAE.load(tmp_path)
    torch.save(vdvae.state_dict(), tmp_path / "small.th")
    with pytest.raises(ValueError, match="another architecture"):
        VDVAE.load(tmp_path / "small.th")
    state = dict(vdvae.state_dict())
    state.pop("decoder.gain")
    torch.save(state, tmp_path / "lacking.th")
    with pytest.raises(ValueError, match=r"lacks 1 tensors of the model \(first: 'decoder\.gain'\)"):
        VDVAE.load(tmp_path / "lacking.th", config=TINY)
    (tmp_path / "text.th").write_text("no checkpoint")
    with pytest.raises(ValueError, match="no checkpoint of tensors"):
        VDVAE.load(tmp_path / "text.th", config=TINY)
    torch.save({"epoch": 3}, tmp_path / "other.th")
    with pytest.raises(ValueError, match="something else than tensors"):
        VDVAE.load(tmp_path / "other.th", config=TINY)
    torch.save({"path": Path()}, tmp_path / "objects.th")  # would have to be built by code in the file
    with pytest.raises(ValueError, match="no checkpoint of tensors"):
        VDVAE.load(tmp_path / "objects.th", config=TINY)
    vdvae.save(tmp_path / "net")
    with pytest.raises(ValueError, match="Leave it out"):
        VDVAE.load(tmp_path / "net", config=VDVAEConfig.tiny(8, 12))


# --- training -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.from_numpy(load_digits().images.astype(np.float32) / 16)[:, None].expand(-1, 3, -1, -1)


@pytest.mark.usefixtures("global_rng_untouched")
def test_trained_on_digits_it_reconstructs_others(digits: Tensor) -> None:
    """A correlation of each new digit with its own reconstruction that is above those with all others."""
    training = VDVAETraining(steps=90, lr=1e-2, rate_weight=0.1)
    net, history = train_vdvae(digits[:1500], VDVAEConfig.tiny(8, 24), training)
    assert np.mean(history[-10:]) < 0.7 * np.mean(history[:5])
    new = digits[1500:1600]
    made = net.decode(net.encode(new, batch_size=50))
    n = len(new)
    correlation = np.corrcoef(made.flatten(1), new.flatten(1))[:n, n:]
    assert (correlation.argmax(1) == np.arange(n)).mean() > 0.85
    assert ((made - new) ** 2).mean() < 0.4 * ((digits[:1500].mean(0) - new) ** 2).mean()
    assert net.elbo(new, generator=torch.Generator().manual_seed(0)).bits.mean() < history[0]


@pytest.mark.usefixtures("global_rng_untouched")
def test_training_is_that_of_its_seed(digits: Tensor) -> None:
    def train(seed: int) -> tuple[VDVAE, list[float]]:
        return train_vdvae(digits, TINY, VDVAETraining(steps=3, batch_size=4, seed=seed))

    (first, losses), (again, same), (_, others) = train(0), train(0), train(1)
    assert losses == same != others
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not first.training
    bytes_ = (digits * 255).round().to(torch.uint8).numpy()
    _, from_bytes = train_vdvae(bytes_, TINY, VDVAETraining(steps=3, batch_size=4))
    close(torch.tensor(from_bytes), torch.tensor(losses))


def test_training_that_cannot_work_is_named(digits: Tensor) -> None:
    with pytest.raises(ValueError, match="loss stay finite"):
        train_vdvae(digits, TINY, VDVAETraining(steps=30, batch_size=4, lr=1e6))
    with pytest.raises(ValueError, match="images"):
        train_vdvae(digits[:0], TINY)
    with pytest.raises(ValueError, match="rate_warmup"):
        VDVAETraining(rate_warmup=2)
