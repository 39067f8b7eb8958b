"""The network for M/EEG: published counts, an independent reference, laws, files, calibration."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from tolerances import close

from neurodecode.meeg import (
    ABLATIONS,
    AGGREGATIONS,
    BRAIN_MODULES,
    BrainModule,
    BrainModuleConfig,
    ConvolutionStack,
    SpikingBrainConfig,
    SpikingBrainModule,
    aggregation,
    spatial_path,
)

# Three layers: a residual path, a gate, and a layer after it.
TINY = BrainModuleConfig(
    n_heads=8, fourier_features=32, initial_linear=8, hidden=12, depth=3, final_width=20, latent=16
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(config=TINY, n_outputs=5, **options):
    options = {"n_subjects": 3, "n_channels": 9, "n_times": 30, "dtype": torch.float64, "generator": rng()} | options
    return config.build(n_outputs=n_outputs, **options)


@pytest.fixture
def batch():
    x = torch.randn(4, 9, 30, generator=rng(1), dtype=torch.float64)
    return x, torch.tensor([0, 2, 1, 2]), torch.rand(9, 2, generator=rng(2), dtype=torch.float64)


def settle(model, batch):
    """Give the batch normalisation statistics that are not 0 and 1, and evaluate from now on."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.uniform_(-0.3, 0.3, generator=rng(8))
                module.running_var.uniform_(0.5, 1.5, generator=rng(9))
                module.weight.uniform_(0.5, 1.5, generator=rng(10))
                module.bias.uniform_(-0.3, 0.3, generator=rng(11))
    return model.eval()


# --- published sizes ----------------------------------------------------------------------------------------------


def test_benchetrit_has_the_rows_of_table_s1():
    counts = BRAIN_MODULES["benchetrit"].build(4, 768, n_times=181, device="meta").count_parameters()
    assert counts == {
        "spatial attention": 552_960,
        "initial linear": 73_170,
        "subjects": 291_600,
        "block 1": 1_183_360,
        "block 2": 1_231_360,
        "final": 1_518_208,
        "aggregation": 182,
        "head": 1_573_632,
        "total": 6_424_472,
    }


@pytest.mark.parametrize("n_subjects", [1, 27, 96])
def test_defossez_has_the_published_number_of_parameters(n_subjects):
    model = BRAIN_MODULES["defossez"].build(n_subjects, 1024, device="meta")
    total = sum(p.numel() for p in model.parameters())
    assert total == model.count_parameters()["total"] == 7_596_754 + 72_900 * n_subjects


def test_receptive_field_is_the_samples_that_reach_an_output():
    assert BRAIN_MODULES["defossez"].build(1, 8, device="meta").receptive_field == 135
    model = build(n_times=None).eval()
    x = torch.randn(1, 9, 61, generator=rng(1), dtype=torch.float64, requires_grad=True)
    model(x, torch.tensor([0]), torch.rand(9, 2, generator=rng(2), dtype=torch.float64))[0, :, 30].sum().backward()
    reached = x.grad[0].abs().sum(0).nonzero()[:, 0].tolist()
    half = (model.receptive_field - 1) // 2
    assert reached == list(range(30 - half, 30 + half + 1))
    assert model.receptive_field == 1 + 2 * (1 + 2 + 4) + 2


# --- what it computes ---------------------------------------------------------------------------------------------


def plain_stack(state, x, depth):
    """The convolutions written anew from the paper's description, by the names of the weights."""
    for k in range(depth):
        name = f"convolutions.layers.{k}"
        dilation = 2 ** (k % 5)
        y = F.conv1d(
            x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], dilation=dilation, padding=dilation
        )  # fmt: skip
        mean, var = (state[f"{name}.1.running_{key}"][:, None] for key in ("mean", "var"))
        y = (y - mean) / (var + 1e-5).sqrt() * state[f"{name}.1.weight"][:, None] + state[f"{name}.1.bias"][:, None]
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y if x.shape == y.shape else y
        if k % 2 == 1:
            gate = f"convolutions.gates.{k}.0"
            a, b = F.conv1d(x, state[f"{gate}.weight"], state[f"{gate}.bias"], padding=1).chunk(2, 1)
            x = a / (1 + (-b).exp())
    return x


def plain_spatial(state, x, subjects, positions):
    n = math.isqrt(state["spatial.attention.heads"].shape[1] // 2)
    k = torch.arange(n, dtype=x.dtype)
    angle = 2 * math.pi * (k[:, None] * (positions[:, 0, None, None] + 0.2) + k * (positions[:, 1, None, None] + 0.2))
    angle = (angle / 1.4).reshape(len(positions), -1)
    scores = state["spatial.attention.heads"] @ torch.cat([angle.cos(), angle.sin()], 1).T
    y = torch.einsum("hc,bct->bht", scores.exp() / scores.exp().sum(1, keepdim=True), x)
    y = torch.einsum("dh,bht->bdt", state["spatial.linear.weight"], y) + state["spatial.linear.bias"][:, None]
    return torch.einsum("bct,bcd->bdt", y, state["spatial.subject.weight"][subjects])


def test_network_for_speech_is_the_one_described_in_the_paper(batch):
    model = settle(build(dataclasses.replace(TINY, depth=7)), batch)
    state = model.state_dict()
    y = plain_stack(state, plain_spatial(state, *batch), 7)
    y = F.gelu(F.conv1d(y, state["heads.output.first.weight"], state["heads.output.first.bias"]))
    # The paper's last layer: a transposed convolution of kernel 1, whose weights are (inputs, outputs, 1).
    expected = F.conv_transpose1d(y, state["heads.output.last.weight"].transpose(0, 1), state["heads.output.last.bias"])
    got = model(*batch)
    assert got.shape == (4, 5, 30)
    close(got.detach(), expected)


@pytest.mark.reference
def test_convolutions_are_those_of_braindecode():
    pytest.importorskip(
        "braindecode", reason="braindecode is no dependency: pip install braindecode", exc_type=ImportError
    )
    from braindecode.models import BrainModule as Peer

    config = dataclasses.replace(TINY, n_heads=None, subject="none", initial_linear=12, depth=7, final_width=None)
    ours = build(config)
    peer = Peer(n_chans=9, n_outputs=5, n_times=30, sfreq=120, hidden_dim=12, depth=7).double()
    with torch.no_grad():
        # The same layers in the same order: 1x1, convolutions, gates, last.
        for mine, theirs in zip(ours.parameters(), peer.parameters(), strict=True):
            theirs.copy_(mine.view(theirs.shape))
    x = torch.randn(4, 9, 30, generator=rng(1), dtype=torch.float64)
    for training in (True, False):
        # The peer's answer is the mean over the window.
        close(ours.train(training)(x).mean(-1).detach(), peer.train(training)(x).detach())


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_network_for_images_is_the_one_described_in_the_paper(name, batch):
    model = settle(build(dataclasses.replace(TINY, aggregation=name)), batch)
    state = model.state_dict()
    y = plain_stack(state, plain_spatial(state, *batch), 3)
    y = F.gelu(F.conv1d(y, state["final.first.weight"], state["final.first.bias"]))
    z = F.conv1d(y, state["final.last.weight"], state["final.last.bias"])
    if name == "mean":
        latent = z.mean(2)
    elif name == "affine":
        latent = torch.einsum("blt,t->bl", z, state["aggregation.weight"]) + state["aggregation.bias"]
    else:
        keys = (
            torch.einsum("blt,ul->but", z, state["aggregation.keys.weight"]) + state["aggregation.keys.bias"][:, None]
        )
        scores = torch.einsum("but,u->bt", keys.tanh(), state["aggregation.score.weight"][0])
        latent = (z * scores.softmax(1)[:, None]).sum(2)
    centred = latent - latent.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    expected = F.gelu(normal) @ state["heads.output.maps.0.weight"].T + state["heads.output.maps.0.bias"]
    got = model(*batch)
    assert got.shape == (4, 5)
    close(got.detach(), expected)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_aggregating_first_equals_projecting_every_sample_first(name):
    generator = rng()
    module = AGGREGATIONS[name](6, 11, generator, {"dtype": torch.float64})
    weight, bias = torch.randn(6, 4, generator=generator, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    h = torch.randn(3, 4, 11, generator=generator, dtype=torch.float64)
    before = sum(aggregation.calls.values())
    close(module.projected(h, weight, bias).detach(), module(weight @ h + bias[:, None]).detach())
    assert sum(aggregation.calls.values()) == before + 1


def test_several_heads_give_outputs_by_name(batch):
    model = build(dataclasses.replace(TINY, aggregation="mean", head_depth=2), {"clip": 5, "mse": 7}).eval()
    out = model(*batch)
    assert {name: tuple(y.shape) for name, y in out.items()} == {"clip": (4, 5), "mse": (4, 7)}
    assert {"head clip", "head mse"} <= model.count_parameters().keys()
    speech = build(n_outputs={"wav2vec": 6, "mel": 2}).eval()(*batch)
    assert {name: tuple(y.shape) for name, y in speech.items()} == {"wav2vec": (4, 6, 30), "mel": (4, 2, 30)}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_changes_what_it_names_and_trains(name, batch):
    config = dataclasses.replace(TINY, **ABLATIONS[name])
    assert config != TINY
    model = build(config, generator=rng())
    out = model(*batch, generator=rng(4))
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert not torch.equal(out, build(generator=rng())(*batch, generator=rng(4)))
    gone = {
        "no final convolutions": "heads.output.first.weight",
        "no initial linear": "spatial.linear.weight",
        "no spatial attention": "spatial.attention.heads",
        "no glu": "convolutions.gates.1.0.weight",
        "no subject layer": "spatial.subject.weight",
    }
    assert gone.get(name) not in model.state_dict()


def test_every_preset_runs_and_has_finite_gradients():
    for name, config in BRAIN_MODULES.items():
        if name in ("defossez", "benchetrit"):
            config = dataclasses.replace(config, n_heads=8, fourier_features=32, initial_linear=8, hidden=16)
        model = config.build(2, 6, n_times=24, generator=rng())
        x = torch.randn(3, 10, 24, generator=rng(1))
        out = model(x, torch.tensor([0, 1, 1]), torch.rand(3, 10, 2, generator=rng(2)))
        assert out.shape == ((3, 6, 24) if config.aggregation is None else (3, 6))
        out.square().mean().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


def test_same_seed_gives_the_same_weights_and_moves_no_global_generator(global_rng_untouched):
    first, second, other = (build(generator=rng(seed)).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["spatial.attention.heads"], other["spatial.attention.heads"])
    build(generator=None)
    SpikingBrainConfig(n_heads=4, fourier_features=8, initial_linear=4, hidden=(4,)).build(1, 2)


def test_weights_start_as_the_papers_do():
    model = BRAIN_MODULES["defossez"].build(2, 64, generator=rng())
    assert model.spatial.attention.heads.std().item() == pytest.approx(2048**-0.5, rel=0.01)
    assert model.spatial.subject.weight.std().item() == pytest.approx(270**-0.5, rel=0.01)
    for layer, fan in ((model.convolutions.layers[1][0], 960), (model.heads["output"].last, 64)):
        assert layer.weight.abs().max().item() == pytest.approx(fan**-0.5, rel=0.01)
        assert layer.weight.std().item() == pytest.approx((3 * fan) ** -0.5, rel=0.02)


def test_fused_inference_equals_the_layers_in_the_whole_network(batch):
    model = settle(build(), batch)
    before = spatial_path.calls["fused"]
    with torch.inference_mode():
        got = model(*batch)
    assert spatial_path.calls["fused"] == before + 1
    close(got.clone(), model(*batch).detach())
    # What was made in inference mode does not stop a later training.
    with torch.no_grad():
        model(*batch)
    model(*batch).sum().backward()


def test_whole_network_compiles_into_one_graph(batch):
    model = settle(build(dataclasses.replace(TINY, aggregation="affine")), batch)
    table, recordings = batch[2].expand(2, -1, -1).clone(), torch.tensor([0, 1, 1, 0])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = model(batch[0], batch[1], table, recordings)
    close(compiled(batch[0], batch[1], table, recordings).detach(), expected.detach())
    with torch.no_grad():
        close(compiled(batch[0], batch[1], table, recordings), expected.detach())
    # In training, with its random disc.
    out = torch.compile(model.train(), backend="eager", fullgraph=True)(batch[0], batch[1], table, recordings)
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_bfloat16_autocast_is_near_float32(batch):
    model = settle(build(dtype=torch.float32), batch)
    x, subjects, positions = batch[0].float(), batch[1], batch[2].float()
    expected = model(x, subjects, positions).detach()
    with torch.autocast("cpu", torch.bfloat16):
        got = model(x, subjects, positions).detach()
    assert (got - expected).norm() < 0.02 * expected.norm()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert (model(x, subjects, positions) - expected).norm() < 0.02 * expected.norm()


# --- subjects after the training ----------------------------------------------------------------------------------


def test_calibration_moves_the_new_subject_alone_and_lowers_the_loss(batch):
    x, _, positions = batch
    model = settle(build(), batch)
    new = model.add_subject()
    assert (new, model.n_subjects) == (3, 4)
    subjects = torch.full((4,), new)
    with torch.no_grad():
        close(model(x, subjects, positions), model(x, torch.full((4,), -1), positions))
    learned = [p for p in model.parameters() if p.requires_grad]
    assert len(learned) == 1
    assert learned[0] is model.subject_parameter(new)
    # What the network would say if the new subject had another map.
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        teacher.subject_parameter(new).normal_(0, 8**-0.5, generator=rng(6))
        target = teacher(x, subjects, positions)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(learned, lr=0.05, weight_decay=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x, subjects, positions), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert changed == ["spatial.subject.added.0"]


def test_add_subject_like_another_answers_as_that_one(batch):
    x, _, positions = batch
    model = settle(build(), batch)
    new = model.add_subject(like=1, freeze=False)
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        ours, theirs = (model(x, torch.full((4,), s), positions) for s in (new, 1))
    assert torch.equal(ours, theirs)


def test_subjects_cannot_be_added_where_there_are_none():
    model = build(dataclasses.replace(TINY, subject="none"))
    with pytest.raises(ValueError, match="`subject` must be 'layer' or 'embedding'"):
        model.add_subject()
    with pytest.raises(ValueError, match="added subject"):
        build().subject_parameter(0)


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_network_answers_to_the_bit_with_its_added_subjects(dtype, batch, tmp_path):
    model = settle(build(dataclasses.replace(TINY, aggregation="affine"), {"a": 3, "b": 2}, dtype=dtype), batch)
    model.add_subject()
    with torch.no_grad():
        model.subject_parameter(3).mul_(1.5)
    x, positions = batch[0].to(dtype), batch[2].to(dtype)
    subjects = torch.tensor([0, 3, -1, 2])
    model.save(tmp_path / "new" / "decoder")
    assert sorted(p.name for p in (tmp_path / "new" / "decoder").iterdir()) == ["config.json", "model.safetensors"]
    loaded = BrainModule.load(tmp_path / "new" / "decoder")
    assert not loaded.training
    assert loaded.config == model.config
    with torch.no_grad():
        expected, got = model(x, subjects, positions), loaded(x, subjects, positions)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    # Another subject may be added and saved to the same place; another network may not.
    loaded.add_subject()
    loaded.save(tmp_path / "new" / "decoder")
    assert BrainModule.load(tmp_path / "new" / "decoder").n_subjects == 5
    with pytest.raises(ValueError, match=r"config\.hidden"):
        build(dataclasses.replace(TINY, aggregation="affine", hidden=4), {"a": 3, "b": 2}).save(
            tmp_path / "new" / "decoder"
        )


def test_loading_what_is_not_there_or_another_network_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        BrainModule.load(tmp_path)
    build().save(tmp_path)
    with pytest.raises(ValueError, match="'BrainModule', no 'SpikingBrainModule'"):
        SpikingBrainModule.load(tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-9])
    with pytest.raises(ValueError, match="damaged or cut short"):
        BrainModule.load(tmp_path)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "match"), [
    ({"kernel_size": 4}, "`kernel_size` must be odd"),
    ({"hidden": 0}, "`hidden`"),
    ({"subject": "name"}, "`subject` must be one of 'layer', 'embedding', 'none'"),
    ({"aggregation": "max"}, "`aggregation` must be one of None, 'mean', 'attention', 'affine'"),
    ({"fourier_features": 100}, "twice a square"),
    ({"dropout_radius": -1}, "`dropout_radius`"),
])  # fmt: skip
def test_impossible_configuration_is_refused_when_made(change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(TINY, **change)


def test_what_the_data_must_say_is_asked_for():
    with pytest.raises(ValueError, match="`n_channels` must be given without spatial attention"):
        dataclasses.replace(TINY, n_heads=None).build(1, 2)
    with pytest.raises(ValueError, match="`n_times` must be given"):
        dataclasses.replace(TINY, aggregation="affine").build(1, 2)
    model = build(dataclasses.replace(TINY, aggregation="affine"))
    with pytest.raises(ValueError, match="`x` must have 30 samples"):
        model(torch.zeros(1, 9, 29, dtype=torch.float64), torch.tensor([0]), torch.zeros(9, 2))
    with pytest.raises(ValueError, match="`kernel_size` must be odd"):
        ConvolutionStack(3, 4, 2, kernel_size=2)
