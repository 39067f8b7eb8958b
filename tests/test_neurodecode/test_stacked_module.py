"""Networks of many windows as one: they are the single ones, see their own window only, and have the same losses."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tolerances import close

from neurodecode.meeg import stacked_module
from neurodecode.meeg.clip_loss import ClipLoss
from neurodecode.meeg.config import BRAIN_MODULES
from neurodecode.meeg.image_objective import ImageNetwork, ImageObjective
from neurodecode.meeg.stacked_module import StackedBrainModule
from neurodecode.meeg.time_objective import ClassObjective, RetrievalObjective
from neurodecode.meeg.time_training import groups_of_windows
from neurodecode.meeg.time_windows import TimeWindows, cut_windows, growing_windows, sliding_windows
from neuroloaders.runs import generator as seeded

TINY = dataclasses.replace(
    BRAIN_MODULES["small-images"], n_heads=None, initial_linear=8, hidden=12, depth=2, final_width=None, latent=12
)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- windows ------------------------------------------------------------------------------------------------------


def test_published_windows_at_the_published_rate():
    sliding = sliding_windows(-0.1, 1.0, sfreq=120.0)
    assert set(sliding.n_times) == {12}
    assert set(np.diff(sliding.first)) == {3}
    assert len(sliding) == 41
    np.testing.assert_allclose(sliding.times("end")[[0, -1]], [0.0, 1.0])
    np.testing.assert_allclose(sliding.times("centre") - sliding.times("begin"), 0.05)
    growing = growing_windows(0.0, 1.5, first_end_s=0.1, step_s=0.05, sfreq=120.0)
    assert len(growing) == 29
    np.testing.assert_allclose(growing.times("end"), np.arange(2, 31) * 0.05)
    assert set(growing.first) == {0}


@pytest.mark.parametrize("sfreq", [64.0, 85.3, 100.0, 128.0])
def test_windows_of_other_rates_have_one_width_and_are_half_a_sample_off_at_most(sfreq):
    windows = sliding_windows(-0.1, 0.8, sfreq=sfreq)
    assert set(windows.n_times) == {round(0.1 * sfreq)}
    wanted = -0.1 + 0.025 * np.arange(len(windows))
    assert np.abs(windows.times("begin") - wanted).max() <= 0.5 / sfreq + 1e-9
    assert min(np.diff(windows.first)) >= 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sliding_windows(0, 1, sfreq=120, step_s=0.005), "step_s"),
        (lambda: sliding_windows(0, 1, sfreq=120, width_s=0.001), "width_s"),
        (lambda: sliding_windows(0, 0.05, sfreq=120), "width_s"),
        (lambda: sliding_windows(1, 0, sfreq=120), "tmax"),
        (lambda: growing_windows(0, 1, sfreq=120, first_end_s=2.0), "first_end_s"),
        (lambda: growing_windows(0, 1, sfreq=120, first_end_s=0.001), "first_end_s"),
        (lambda: TimeWindows(first=(), n_times=(), sfreq=1.0), "first"),
        (lambda: sliding_windows(-0.2, 1, sfreq=120).places(-0.1, 1.0, 120), "tmin"),
        (lambda: sliding_windows(0, 1, sfreq=120).places(0, 1.0, 100), "120 Hz"),
    ],
)
def test_windows_that_cannot_be_are_refused_by_name(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_cut_windows_are_slices_of_the_span():
    x = torch.arange(2 * 3 * 20.0).view(2, 3, 20)
    cut = cut_windows(x, torch.tensor([0, 7, 15]), 5)
    for m, place in enumerate((0, 7, 15)):
        assert torch.equal(cut[m], x[..., place : place + 5])
    assert cut.transpose(1, 2).is_contiguous()


def test_groups_hold_all_windows_once_with_little_padding():
    windows = growing_windows(0.0, 1.0, sfreq=120.0)
    for at_once in (None, 3):
        groups = groups_of_windows(windows, at_once)
        assert [m for group in groups for m in range(group.start, group.stop)] == list(range(len(windows)))
        for group in groups:
            lengths = windows.n_times[group]
            assert max(lengths) * len(lengths) <= 1.25 * sum(lengths)
            assert at_once is None or len(lengths) <= at_once
    assert len(groups_of_windows(sliding_windows(0, 1, sfreq=120.0))) == 1


# --- stacked networks ---------------------------------------------------------------------------------------------

_BASE = BRAIN_MODULES["small-images"]
_SMALL = dataclasses.replace(
    _BASE, n_heads=6, fourier_features=32, initial_linear=5, hidden=8, final_width=10, latent=7
)
NETWORKS = {
    "as published": _SMALL,
    "mean over time": dataclasses.replace(_SMALL, aggregation="mean"),
    "attention over time": dataclasses.replace(_SMALL, aggregation="attention"),
    "no spatial attention": dataclasses.replace(_SMALL, n_heads=None),
    "subject embedding": dataclasses.replace(_SMALL, subject="embedding", subject_size=3),
    "one for all subjects": dataclasses.replace(_SMALL, subject="none", initial_linear=None),
    "plain": dataclasses.replace(_SMALL, batch_norm=False, skip=False, glu_every=0, final_width=None),
    "relu, wide kernel, deep head": dataclasses.replace(_SMALL, activation="relu", kernel_size=9, head_depth=2),
}


def stacked_and_alone(config, lengths, dtype, *, n_recordings=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs, n_channels = {"clip": 6, "mse": 5}, 10
    modules = [
        config.build(3, outputs, n_times=n, n_channels=n_channels, generator=generator, dtype=dtype) for n in lengths
    ]
    x = torch.randn(len(lengths), 9, n_channels, max(lengths), generator=generator, dtype=dtype)
    subjects = torch.randint(0, 3, (9,), generator=generator)
    positions = torch.rand(n_recordings, n_channels, 2, generator=generator, dtype=dtype)
    recordings = torch.randint(0, n_recordings, (9,), generator=generator)
    return modules, StackedBrainModule(modules, lengths), (x, subjects, positions, recordings)


@pytest.mark.parametrize("lengths", [(12, 12, 12), (3, 9, 14)], ids=["sliding", "growing"])
@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_networks_are_the_single_ones(name, lengths):
    """Outputs, gradients, three steps of Adam, running statistics, and what they then say in evaluation."""
    modules, stacked, (x, subjects, positions, recordings) = stacked_and_alone(NETWORKS[name], lengths, torch.float64)
    stacked_module.calls.clear()
    # With the usual eps of 1e-8, Adam divides the rounding noise of gradients that are zero (a bias before batch
    # normalisation) by its own size.
    options = {"lr": 1e-2, "eps": 1e-4}
    optimizers = [torch.optim.Adam(part.parameters(), **options) for part in (stacked, *modules)]
    for step in range(3):
        out = stacked(x, subjects, positions, recordings, generator=seeded(step))
        loss = sum(value.square().mean((1, 2)) for value in out.values())
        optimizers[0].zero_grad()
        loss.sum().backward()
        for m, (module, length) in enumerate(zip(modules, lengths, strict=True)):
            own = module(x[m, ..., :length], subjects, positions, recordings, generator=seeded(step))
            optimizers[m + 1].zero_grad()
            sum(value.square().mean() for value in own.values()).backward()
            for head, value in own.items():
                close(out[head][m], value)
            for key, parameter in module.named_parameters():
                gradient = stacked.weights[key.replace(".", "/")].grad[m]
                if key == "aggregation.weight":
                    assert not gradient[length:].any()
                    gradient = gradient[:length]
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-10)
        for optimizer in optimizers:
            optimizer.step()
    assert stacked_module.calls == {"even" if len(set(lengths)) == 1 else "masked": 3}
    for module, again in zip(modules, stacked.unstack(), strict=True):
        for key, value in module.state_dict().items():
            torch.testing.assert_close(again.state_dict()[key], value, rtol=1e-9, atol=1e-9)
    stacked.eval()
    subjects = subjects.clone()
    subjects[0] = -1  # whom nobody knows
    with torch.no_grad():
        out = stacked(x, subjects, positions, recordings)
        for m, (module, length) in enumerate(zip(modules, lengths, strict=True)):
            for head, value in module.eval()(x[m, ..., :length], subjects, positions, recordings).items():
                torch.testing.assert_close(out[head][m], value, rtol=1e-8, atol=1e-8)


def test_stacked_networks_in_float32_with_one_layout_of_sensors():
    modules, stacked, (x, subjects, positions, recordings) = stacked_and_alone(
        _SMALL, (12, 12, 12), torch.float32, n_recordings=1
    )
    for given in ((positions, recordings), (positions[0], None)):
        out = stacked(x, subjects, *given, generator=seeded(0))
        for m, module in enumerate(modules):
            own = module(x[m], subjects, *given, generator=seeded(0))
            for head, value in own.items():
                close(out[head][m], value, "float32 gradient")


@pytest.mark.parametrize("mode", [True, False])
def test_no_sample_beyond_its_window_reaches_a_model(mode):
    _, stacked, (x, subjects, positions, recordings) = stacked_and_alone(_SMALL, (3, 9, 14), torch.float64)
    stacked.train(mode)
    x = x.requires_grad_()
    out = stacked(x, subjects, positions, recordings, generator=seeded(0))["clip"]
    out.square().sum().backward()
    for m, length in enumerate((3, 9, 14)):
        assert not x.grad[m, ..., length:].any()
        assert x.grad[m, ..., :length].any()
    # Another model's windows neither.
    assert not torch.autograd.grad(
        stacked(x, subjects, positions, recordings, generator=seeded(0))["clip"][0].sum(), x
    )[0][1:].any()


def test_stacks_that_cannot_be_are_refused():
    generator = torch.Generator().manual_seed(0)
    build = {"n_times": 5, "n_channels": 4, "generator": generator}
    one = TINY.build(2, 3, **build)
    with pytest.raises(ValueError, match="same settings"):
        StackedBrainModule([one, TINY.build(3, 3, **build)])
    with pytest.raises(ValueError, match="aggregation"):
        StackedBrainModule([BRAIN_MODULES["small"].build(2, 3, generator=generator)])
    with pytest.raises(TypeError, match="modules"):
        StackedBrainModule([])
    with pytest.raises(ValueError, match="n_times"):
        StackedBrainModule([one], [6])
    stacked = StackedBrainModule([one, one])
    with pytest.raises(ValueError, match="`x`"):
        stacked(torch.zeros(2, 3, 4, 6), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="subjects"):
        stacked(torch.zeros(2, 3, 4, 5), torch.full((3,), 2))
    one.add_subject()
    with pytest.raises(ValueError, match="added"):
        StackedBrainModule([one])


# --- objective ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["paper", "symmetric"])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("weight", [1.0, 0.75, 0.0])
def test_retrieval_objective_is_the_weighted_sum_of_clip_loss_and_squared_error(form, mask, weight):
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(7, 5, generator=generator)
    numbers = torch.tensor([0, 1, 2, 1, 3, 4, 0])
    candidates = candidates[torch.tensor([0, 1, 2, 1, 4, 5, 0])]
    estimates = {head: torch.randn(3, 7, 5, generator=generator) for head in ("clip", "mse")}
    objective = RetrievalObjective(3, weight, loss=form, mask_duplicates=mask)
    clip = ClipLoss(form, mask_duplicates=mask)
    found = objective(estimates, candidates, numbers)
    for m in range(3):
        wanted = weight * clip(estimates["clip"][m], candidates, numbers)
        wanted = wanted + (1 - weight) * F.mse_loss(estimates["mse"][m], candidates)
        close(found[m], wanted)


@pytest.mark.parametrize("form", ["paper", "symmetric"])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
def test_retrieval_objective_is_that_of_the_image_decoder_for_each_model(form, weight):
    generator = torch.Generator().manual_seed(0)
    train, valid = (torch.randn(n, 5, generator=generator) for n in (6, 8))
    numbers = torch.tensor([0, 1, 2, 1, 3, 4, 0])
    objective = RetrievalObjective(3, weight, loss=form)
    estimates = {head: torch.randn(3, 7, 5, generator=generator) for head in objective.heads}
    network = ImageNetwork(torch.nn.Identity(), ClipLoss(form), torch.zeros(1, 4, 2))
    single = ImageObjective(network, train, valid, weight)
    for m in range(3):
        own = {head: value[m] for head, value in estimates.items()}
        network.train()
        close(objective.train()(estimates, train[numbers], numbers)[m], single(own, numbers))
        network.eval()
        measures = objective.eval().validate(estimates, valid, numbers)
        close(measures["loss"][m], single(own, numbers))
        percentile = single.metrics["percentile"](own, numbers).mean()
        assert measures["rank"][m].item() == pytest.approx(1 - percentile.item())


def test_validation_is_among_all_distinct_stimuli():
    estimates = {"clip": torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])}
    candidates, own = torch.eye(2), torch.tensor([0, 1])
    measures = RetrievalObjective(2).validate(estimates, candidates, own)
    assert measures["rank"].tolist() == [0.0, 0.5]
    close(measures["loss"][0], F.cross_entropy(torch.eye(2), own))
    tied = ClassObjective().validate({"classes": torch.zeros(1, 4, 3)}, None, torch.tensor([0, 1, 2, 0]))
    assert tied["rank"].tolist() == [0.5]
