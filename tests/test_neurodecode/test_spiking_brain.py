"""The spiking brain module: it learns delays, runs step by step, and keeps the interface of the other one."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tolerances import close

from neurodecode.meeg import BrainModuleConfig, SpikingBrainConfig, SpikingBrainModule, spatial_path
from snn import DelayLinear

TINY = SpikingBrainConfig(
    n_heads=8, fourier_features=32, initial_linear=8, hidden=(12, 10), max_delay=6, tau_readout=1.5
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(config=TINY, n_outputs=5):
    return config.build(3, n_outputs, n_channels=9, n_times=40, generator=rng())


def settled(batch, config=TINY):
    """A network in evaluation, whose normalisation has seen the batch, so that its neurons spike."""
    model = build(config)
    with torch.no_grad():
        for _ in range(30):
            model(*batch, generator=rng(3))
    return model.eval()


@pytest.fixture
def batch():
    x = 3 * torch.randn(4, 9, 40, generator=rng(1))
    return x, torch.tensor([0, 2, 1, 2]), torch.rand(9, 2, generator=rng(2))


@pytest.mark.parametrize("aggregation", [None, "mean", "affine", "attention"])
def test_spiking_network_has_the_interface_of_the_other(aggregation, batch):
    other = BrainModuleConfig(
        n_heads=8, fourier_features=32, initial_linear=8, hidden=12, depth=2, latent=8, aggregation=aggregation
    )
    for n_outputs in (5, {"clip": 5, "mse": 3}):
        want = other.build(3, n_outputs, n_times=40)(*batch)
        got = build(dataclasses.replace(TINY, aggregation=aggregation), n_outputs)(*batch)
        if isinstance(n_outputs, int):
            assert got.shape == want.shape
        else:
            assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in want.items()}


def test_all_parameters_have_finite_gradients_that_are_not_zero(batch):
    model = build()
    model(*batch, generator=rng(3)).square().mean().backward()
    for name, parameter in model.named_parameters():
        # Widths of delays are not learned, as in the paper.
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_output_does_not_depend_on_later_samples(batch):
    model = settled(batch, dataclasses.replace(TINY, lookahead=7))
    x, subjects, positions = batch
    later = x.clone()
    later[:, :, 27:] += 5.0
    with torch.no_grad():
        before, after = model(x, subjects, positions), model(later, subjects, positions)
    assert torch.equal(before[:, :, :20], after[:, :, :20])
    assert not torch.equal(before[:, :, 20:], after[:, :, 20:])


def test_step_by_step_gives_what_the_sequence_gives(batch):
    model = settled(batch)
    with torch.no_grad():
        current = model.current(*batch)
        state, answers = None, []
        for now in current:
            v, state = model.stack.step(now, state)
            answers.append(v)
        close(torch.stack(answers, 2), model(*batch))


def test_only_spikes_pass_between_layers(batch):
    model = settled(batch)
    fed = []
    for layer in model.stack.layers:
        layer.register_forward_pre_hook(lambda _, args: fed.append(args[0]))
    with torch.no_grad():
        model(*batch)
    assert len(fed) == 2
    for spikes in fed:
        assert set(spikes.unique().tolist()) == {0.0, 1.0}


def test_spiking_network_learns_a_lag_that_it_cannot_hold_without_delays():
    # What the sensors saw 6 samples ago; neurons and readout forget within two.
    lag, n_times, n_steps = 6, 40, 80
    config = dataclasses.replace(TINY, n_heads=2, initial_linear=None, subject="none", hidden=(16,), max_delay=10,
                                 dropout_radius=0.0, tau_readout=1.05)  # fmt: skip
    positions = torch.tensor([[0.2, 0.3], [0.8, 0.6]])

    def pulses(seed):
        x = (torch.rand(32, 1, n_times, generator=rng(seed)) < 0.15).float()
        return x.expand(-1, 2, -1), F.pad(x, (lag, 0))[:, :, :n_times]

    def error_after_training(config):
        model = config.build(1, 1, generator=rng())
        (layer,) = model.stack.layers
        others = [p for p in model.parameters() if p.requires_grad and p is not layer.delay]
        optimizer = torch.optim.Adam([{"params": others, "lr": 0.05}, {"params": [layer.delay], "lr": 0.3}])
        for step in range(n_steps):
            with torch.no_grad():
                layer.sigma.fill_(3.0 * (0.4 / 3.0) ** min(1.0, step / n_steps / 0.7))
            x, y = pulses(step)
            optimizer.zero_grad()
            F.mse_loss(model(x, None, positions), y).backward()
            optimizer.step()
        x, y = pulses(1000)
        with torch.no_grad():
            # Delays are whole steps now.
            return (F.mse_loss(model.eval()(x, None, positions), y) / y.var()).item()

    assert error_after_training(config) < 0.2
    assert error_after_training(dataclasses.replace(config, max_delay=1)) > 0.9


def test_energy_counts_currents_in_full_and_spikes_by_rate(batch):
    model = settled(batch).train()
    report = model.energy_report(*batch)
    assert model.training
    encoder, first, second = report.layers
    assert (encoder.input, first.input, second.input) == ("analog", "spikes", "spikes")
    assert [layer.macs for layer in report.layers] == [8 * 12, 12 * 10, 10 * 5]
    assert encoder.mac_operations == 8 * 12 * 40
    model.eval()
    with torch.no_grad():
        current = model.current(*batch)
        spikes = model.stack.neurons[0](model.stack.norms[0](model.stack.encoder(current)))
    assert first.ac_operations == pytest.approx(spikes.sum().item() / 4 * 10, rel=1e-5)
    assert spikes.sum() > 0
    assert 0 < report.energy_pj < report.ann_energy_pj * 40


def test_fused_inference_and_calibration_work_as_in_the_other_network(batch):
    model = settled(batch)
    x, subjects, positions = batch
    before = spatial_path.calls["fused"]
    with torch.no_grad():
        fused = model.current(x, subjects, positions)
    assert spatial_path.calls["fused"] == before + 1
    close(fused, model.current(x, subjects, positions).detach())
    new = model.add_subject()
    model(x, torch.full((4,), new), positions).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["spatial.subject.added.0"]


def test_saved_network_answers_to_the_bit(batch, tmp_path):
    config = dataclasses.replace(TINY, aggregation="affine", dt_ms=8.0, learn_delay=False)
    model = settled(batch, config)
    model.save(tmp_path)
    loaded = SpikingBrainModule.load(tmp_path)
    assert loaded.config == config
    with torch.no_grad():
        assert torch.equal(loaded(*batch), model(*batch))


def test_fixed_delays_are_whole_steps_and_are_not_learned(batch):
    model = build(dataclasses.replace(TINY, learn_delay=False))
    layers = [m for m in model.modules() if isinstance(m, DelayLinear)]
    assert layers
    assert not any(layer.delay.requires_grad for layer in layers)
    assert all(layer.rounds for layer in layers)


@pytest.mark.parametrize(("change", "match"), [
    ({"hidden": ()}, "`hidden`"), ({"tau": 1.0}, "`tau`"), ({"max_delay": 0}, "`max_delay`"),
    ({"surrogate": "sin"}, "surrogate"), ({"dropout": 1.0}, "`dropout`"), ({"lookahead": -1}, "`lookahead`"),
])  # fmt: skip
def test_impossible_configuration_is_refused_when_made(change, match):
    with pytest.raises((ValueError, TypeError), match=match):
        dataclasses.replace(TINY, **change)
