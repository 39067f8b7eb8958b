"""What was saved is what is loaded, or nothing is."""

import dataclasses
import json
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from neuroloaders.checkpoints import as_json, load_checkpoint, load_state, save_checkpoint, save_state


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 4
    betas: tuple = (0.9, 0.999)


def build(width=4):
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_tensors_come_back_bit_for_bit(tmp_path, dtype, shape):
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(9).to(dtype)
    save_checkpoint(tmp_path / "a.safetensors", {"x": value})
    loaded = load_checkpoint(tmp_path / "a.safetensors").tensors["x"]
    assert loaded.dtype == dtype
    assert loaded.shape == value.shape
    assert torch.equal(loaded, value)


def test_transposed_and_overlapping_tensors_come_back(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"base": base, "transposed": base.T, "row": base[1], "column": base[:, 2]}
    save_checkpoint(tmp_path / "a.safetensors", tensors)
    loaded = load_checkpoint(tmp_path / "a.safetensors").tensors
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_tied_weights_are_stored_once_and_come_back_under_both_names(tmp_path):
    def tied():
        model = nn.ModuleDict({"encode": build(3), "decode": build(3)})
        model["decode"][0].weight = model["encode"][0].weight
        return model

    model, other = tied(), tied()
    save_checkpoint(tmp_path / "a.safetensors", model)
    load_checkpoint(tmp_path / "a.safetensors", other)
    assert "decode.0.weight" not in load_file(tmp_path / "a.safetensors")
    assert torch.equal(other["decode"][0].weight, model["encode"][0].weight)
    assert other["decode"][0].weight is other["encode"][0].weight


def test_config_and_notes_travel_in_the_one_file_and_lie_beside_it(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", build(), config=Config(), meta={"epoch": 3})
    expected = {"width": 4, "betas": [0.9, 0.999]}
    assert json.loads((tmp_path / "config.json").read_text()) == expected
    (tmp_path / "config.json").unlink()
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert (loaded.config, loaded.meta) == (expected, {"epoch": 3})


def test_config_of_other_weights_is_not_overwritten(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", build(), config=Config())
    before = (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"`width` must be 4, as in '.*config.json', got 5"):
        save_checkpoint(tmp_path / "a.safetensors", build(5), config=Config(width=5))
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_files_of_others_load(tmp_path):
    model = build()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors", build())
    assert (loaded.config, loaded.meta) == (None, {})
    assert torch.equal(loaded.tensors["0.weight"], model[0].weight)


def test_file_cut_short_anywhere_is_refused(tmp_path):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    save_checkpoint(whole, build())
    data = whole.read_bytes()
    header = struct.unpack("<Q", data[:8])[0]
    for length in [0, 1, 7, 8, 9, 8 + header // 2, 8 + header - 1, 8 + header, 9 + header, len(data) - 1]:
        cut.write_bytes(data[:length])
        model = build()
        before = [value.clone() for value in model.state_dict().values()]
        with pytest.raises(ValueError, match=r"cut.safetensors' cannot be read: it is damaged or cut short"):
            load_checkpoint(cut, model)
        assert all(torch.equal(*pair) for pair in zip(before, model.state_dict().values(), strict=True))


def test_other_architecture_is_refused_and_the_model_unchanged(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", build(5))
    model = build(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"of another architecture: .*'0.weight' is \(5, 3\), the model has \(4, 3\)"):
        load_checkpoint(tmp_path / "a.safetensors", model)
    with pytest.raises(ValueError, match=r"lacks 1 tensors of the model \(first: 'extra'\)"):
        load_checkpoint(tmp_path / "a.safetensors", {**build(5).state_dict(), "extra": torch.zeros(1)})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_absent_file_is_named(tmp_path):
    for load in (load_checkpoint, load_state):
        with pytest.raises(FileNotFoundError, match="absent"):
            load(tmp_path / "absent")


def test_values_that_are_no_tensors_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"`tensors\['epoch'\]` must be a tensor, got int 3. Put other values into"):
        save_checkpoint(tmp_path / "a.safetensors", {"epoch": 3})
    assert os.listdir(tmp_path) == []


def test_optimizer_state_comes_back_bit_for_bit(tmp_path):
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    model(torch.arange(24.0).reshape(8, 3)).square().sum().backward()
    optimizer.step()
    save_state(
        tmp_path / "state.pt", {"optimizer": optimizer.state_dict(), "rows": [{"a": 0.1}], "rng": torch.get_rng_state()}
    )
    loaded = load_state(tmp_path / "state.pt")
    assert loaded["rows"] == [{"a": 0.1}]
    assert torch.equal(loaded["rng"], torch.get_rng_state())
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            assert torch.equal(loaded["optimizer"]["state"][index][name], value)


def test_state_cut_short_anywhere_is_refused(tmp_path):
    save_state(tmp_path / "state.pt", {"x": torch.arange(100.0), "rows": [1, 2]})
    data = (tmp_path / "state.pt").read_bytes()
    for length in [*range(0, len(data), 41), len(data) - 1]:
        (tmp_path / "cut.pt").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut.pt' cannot be read: it is damaged or cut short"):
            load_state(tmp_path / "cut.pt")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_code_in_a_state_file_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Malicious()}, "state.pt")
    with open("old.pt", "wb") as file:
        pickle.dump(Malicious(), file, protocol=2)
    for path in ("state.pt", "old.pt"):
        with pytest.raises(ValueError, match="cannot be read"):
            load_state(path)
    assert not os.path.exists("executed")


def test_config_that_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="`config` must hold only what JSON can"):
        as_json("config", {"a": object()})
    with pytest.raises(TypeError, match="`config` must hold only what JSON can"):
        as_json("config", {"a": float("nan")})
    with pytest.raises(TypeError, match="`config` must be a dataclass or a dict"):
        as_json("config", 3)
