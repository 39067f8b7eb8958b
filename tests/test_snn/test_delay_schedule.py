"""How the width shrinks, against the published numbers; which parameter learns how fast; a whole training run."""

import pytest
import torch
from torch import nn

import snn
from neuroloaders.resident import ResidentLoader
from snn import LIF, DelayConv1d, DelayLinear, SigmaSchedule, TrainConfig, delay_param_groups
from snn.delays import SHAPES, SHARES

# Hammouamri et al. 2023: half of the taps -> 0.23 in a quarter of the epochs; data set, D, epochs, factor an epoch.
PUBLISHED = {"SHD": (25, 37, 0.89863), "SSC": (31, 15, 0.7569)}


def their_widths(length, final_epoch, n_epochs):
    """Return SIG + 0.27 in each epoch as the published code runs: SIG is multiplied at the end of early epochs."""
    sig, widths = length // 2, []
    factor = (0.23 / sig) ** (1 / final_epoch)
    for epoch in range(n_epochs):
        widths.append(sig + 0.27)
        if epoch < final_epoch and sig > 0.23:
            sig *= factor
    return widths


@pytest.mark.parametrize("name", PUBLISHED)
def test_widths_are_the_published_ones(name):
    length, final_epoch, factor = PUBLISHED[name]
    schedule = SigmaSchedule(epochs=final_epoch)
    widths = [schedule.width(epoch, max_delay=length, kernel="gauss") for epoch in range(4 * final_epoch)]
    assert widths == pytest.approx(their_widths(length, final_epoch, 4 * final_epoch), rel=1e-9)
    assert widths[0] == pytest.approx(length // 2 + 0.27)
    assert widths[final_epoch:] == [0.5] * (3 * final_epoch)
    for epoch in range(final_epoch):
        assert (widths[epoch + 1] - 0.27) / (widths[epoch] - 0.27) == pytest.approx(factor, abs=5e-5)


@pytest.mark.parametrize("kernel", SHAPES)
@pytest.mark.parametrize("max_delay", [1, 2, 3, 25])
@pytest.mark.parametrize("options", [{}, {"start": 4.0}, {"end": 0.01}, {"start": 3.0, "end": 3.0}, {"epochs": 0}])
def test_widths_never_grow_nor_fall_below_the_least(kernel, max_delay, options):
    schedule = SigmaSchedule(**{"epochs": 7, **options})
    widths = [schedule.width(epoch, max_delay=max_delay, kernel=kernel) for epoch in range(12)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == max(schedule.end, SHAPES[kernel].least_sigma)
    assert all(width == widths[-1] for width in widths[schedule.epochs :])


def test_the_schedule_sets_every_layer_by_its_own_range():
    model = nn.Sequential(DelayLinear(3, 4, 25), nn.ReLU(), DelayConv1d(1, 1, 1, 31, kernel="triangle"))
    schedule = SigmaSchedule(epochs=10)
    for epoch in (0, 4, 10, 40):
        schedule(model, epoch)
        for layer in (model[0], model[2]):
            want = schedule.width(epoch, max_delay=layer.max_delay, kernel=layer.kernel)
            assert torch.equal(layer.sigma, torch.full_like(layer.sigma, want))
    assert model[0].sigma.unique().item() == 0.5
    assert model[2].sigma.unique().item() == 1.0


def test_a_new_layer_begins_where_the_schedule_begins():
    for kernel in ("gauss", "triangle"):
        layer = DelayLinear(3, 4, 25, kernel=kernel)
        before = layer.sigma.clone()
        SigmaSchedule(epochs=10)(layer, 0)
        assert torch.equal(layer.sigma, before)


# Who learns how fast


class Classifier(nn.Module):
    """Delays of every kind, neurons and batch normalisation."""

    def __init__(self, **options):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        options = {"generator": generator, "bias": True} | options
        self.conv = DelayConv1d(1, 2, 3, 5, padding=1, **options)
        self.hidden = nn.Sequential(DelayLinear(24, 8, 7, **options), LIF(tau=2.0))
        self.norm = nn.BatchNorm1d(8)
        self.out = DelayLinear(8, 3, 7, kernel_count=2, **({"share": "axon"} | options))

    def forward(self, x):  # [B, T, C]
        x = self.conv(x.transpose(0, 1).unsqueeze(2)).flatten(2)
        x = self.hidden(x)
        return self.out(self.norm(x.flatten(0, 1)).view(x.shape)).sum(0)


@pytest.mark.parametrize("options", [{}, {"learn_sigma": True}, {"learn_delay": False}])
def test_every_trained_parameter_is_in_one_group(options):
    model = Classifier(**options)
    model.hidden.add_module("again", model.hidden[0])  # one module in two places
    groups = delay_param_groups(model, lr=0.01)
    found = [id(p) for group in groups for p in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}
    torch.optim.Adam(groups)


def test_delays_learn_faster_and_without_weight_decay():
    model = Classifier(learn_sigma=True)
    groups = {g["name"]: g for g in delay_param_groups(model, lr=0.001, weight_decay=1e-5, delay_schedule="cosine")}
    names = {id(p): name for name, p in model.named_parameters()}
    members = {group: {names[id(p)] for p in groups[group]["params"]} for group in groups}
    layers = ("conv", "hidden.0", "out")
    assert members["delays"] == {f"{layer}.{which}" for layer in layers for which in ("delay", "sigma")}
    assert members["weights"] == {f"{layer}.weight" for layer in layers}
    assert members["others"] == {f"{layer}.bias" for layer in layers} | {"norm.weight", "norm.bias"}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "weights": 1e-5,
        "others": 0.0,
        "delays": 0.0,
    }
    assert groups["delays"]["lr"] == pytest.approx(0.1)
    assert groups["weights"]["lr"] == groups["others"]["lr"] == 0.001
    assert groups["delays"]["schedule"] == "cosine"
    assert delay_param_groups(model, lr=0.001, delay_lr=0.5)[-1]["lr"] == 0.5


def test_fixed_delays_leave_no_empty_group():
    model = DelayLinear(3, 4, 5, learn_delay=False)
    assert [group["name"] for group in delay_param_groups(model, lr=0.1)] == ["weights"]
    delay_param_groups(model, lr=0.1, delay_schedule="cosine")


@pytest.mark.parametrize("share", SHARES)
def test_adam_moves_delays_by_their_rate_and_weights_by_theirs(share):
    """The first step of Adam is the learning rate in the direction of the gradient, whatever its size."""
    layer = DelayLinear(3, 4, 9, share=share, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        layer.delay.clamp_(1, 7)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = torch.optim.Adam(delay_param_groups(layer, lr=1e-3, weight_decay=0.1))
    x = torch.rand(20, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    layer(x).square().sum().backward()
    optimizer.step()
    step = {name: (p - before[name]).abs() for name, p in layer.named_parameters()}
    torch.testing.assert_close(step["delay"], torch.full_like(step["delay"], 0.1), rtol=1e-4, atol=0)
    torch.testing.assert_close(step["weight"], torch.full_like(step["weight"], 1e-3), rtol=1e-4, atol=0)
    assert not step["sigma"].any()


# A whole run


def coincidences(n=96, n_steps=12):
    """Two spikes, 2 or 6 steps apart in either order or together: without delays all classes look alike in sum."""
    generator = torch.Generator().manual_seed(5)
    label = torch.arange(n) % 3
    first = torch.randint(0, 4, (n,), generator=generator)
    x = torch.zeros(n, n_steps, 12)
    x[torch.arange(n), first, 0] = 1
    x[torch.arange(n), first + torch.tensor([0, 2, 6])[label], 1] = 1
    return x, label


def train(amp="off", **options):
    x, y = coincidences()
    model, widths = Classifier(**options), []
    schedule = SigmaSchedule(epochs=3)

    def before_epoch(net, epoch):
        schedule(net, epoch)
        widths.append(net.out.sigma.flatten()[0].item())

    generator = torch.Generator().manual_seed(0)
    history = snn.fit(
        model,
        ResidentLoader(x[:64], y[:64], batch_size=16, shuffle=True, generator=generator),
        ResidentLoader(x[64:], y[64:], batch_size=16),
        TrainConfig(epochs=6, lr=0.01, select="last", schedule="onecycle", seed=3, amp=amp),
        device="cpu",
        before_epoch=before_epoch,
        after_step=snn.clamp_delays,
        param_groups=lambda net: delay_param_groups(net, lr=0.01, delay_lr=0.3, delay_schedule="cosine"),
    )
    return model, history, widths


@pytest.mark.parametrize("backend", ["auto", "dense"])
def test_a_run_trains_weights_and_delays_and_leaves_whole_steps_to_evaluate(backend):
    model, history, widths = train(backend=backend)
    assert widths[0] == pytest.approx(3.27)
    assert widths[3:] == pytest.approx([0.5] * 3)
    assert history["train_loss"][-1] < history["train_loss"][0]
    fresh = Classifier()
    for name in ("hidden.0.delay", "hidden.0.weight", "conv.delay", "out.delay"):
        learned, first = model.get_parameter(name), fresh.get_parameter(name)
        assert not torch.equal(learned, first), name
    for layer in (model.conv, model.hidden[0], model.out):
        assert layer.delay.min() >= 0
        assert layer.delay.max() <= layer.max_delay - 1
        assert layer.rounds
    again, history_again, _ = train(backend=backend)
    assert history_again["train_loss"] == history["train_loss"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_run_in_mixed_precision():
    _, history, _ = train(amp="bf16", backend="fft", share="synapse")
    assert history["train_loss"][-1] < history["train_loss"][0]


# What it refuses


def test_what_is_wrong_is_named():
    learned = nn.Sequential(DelayLinear(2, 2, 5, learn_sigma=True))
    with pytest.raises(ValueError, match=r"`0.sigma` must not be learned where a schedule sets it"):
        SigmaSchedule(epochs=3)(learned, 0)
    with pytest.raises(ValueError, match=r"`model` must hold a delay layer, got a Linear without"):
        SigmaSchedule(epochs=3)(nn.Linear(2, 2), 0)
    for options, message in (
        ({"epochs": -1}, "`epochs` must be a whole number >= 0"),
        ({"epochs": 3, "end": 0}, "`end` must be a finite number > 0"),
        ({"epochs": 3, "start": 0.3}, "`start` must be a finite number >= 0.5"),
        ({"epochs": 3, "start": float("nan")}, "`start` must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            SigmaSchedule(**options)
    for options, message in (
        ({"lr": 0}, "`lr` must be a finite number > 0"),
        ({"lr": 0.1, "delay_lr": -1.0}, "`delay_lr` must be a finite number > 0"),
        ({"lr": 0.1, "weight_decay": -1.0}, "`weight_decay` must be a finite number >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            delay_param_groups(nn.Linear(2, 2), **options)
